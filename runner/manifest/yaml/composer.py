"""A YAML parser's events to values with locations, within limits that apply while events arrive."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from runner.core.errors import ManifestError, Problem
from runner.manifest.yaml.document import Document, Lines, Location, children_of
from runner.manifest.yaml.messages import format_path, quote
from runner.manifest.yaml.scalars import describe_value, parse_scalar

# Limits. Each is far above any real manifest, and protects the machine from a hostile one.
MAX_DEPTH = 20
MAX_SCALAR = 10_000  # characters
MAX_EXPANDED = 2_000_000  # values that aliases repeat
_CHARACTERS_PER_VALUE = 20  # long text that aliases repeat counts as several values

Event = Any  # one of PyYAML's classes; its stubs do not say which attributes each has

_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*(?: +#[^\r\n]*| *)(?:[\r\n]|\Z)")
_AMBIGUOUS_IN_ANCHORS = (":", "?", "%", "@", "`")  # part of an anchor's name in YAML 1.2, its end in YAML 1.1
_SURROGATE = re.compile("[\ud800-\udfff]")


class ParserDisagreementError(Exception):
    """libyaml read something that the reference parser may read differently."""


_UNFINISHED = object()


@dataclass(slots=True)
class _Anchor:
    """The value marked by `&name`. `size` counts values, `height` levels of nested collections."""

    value: Any = _UNFINISHED
    location: Location = 0
    size: int = 0
    height: int = 0


class Composer:
    """Builds values and locations from one parser's events, within limits.

    PyYAML's own composers are not used: libyaml's is recursive in C, and a deeply nested file overflows its stack.
    `is_reference` selects the reference parser, whose result is final.
    """

    def __init__(self, text: str, file: str, lines: Lines, *, is_reference: bool) -> None:
        self._text = text
        self._file = file
        self._lines = lines
        self._is_reference = is_reference
        self._parser: Any = (yaml.SafeLoader if is_reference else yaml.CSafeLoader)(text)
        self._next: Callable[[], Event] = self._parser.get_event
        self._has_question_mark = "?" in text
        self._problems: list[Problem] = []
        self._anchors: dict[str, _Anchor] = {}
        self._path: list[str | int] = []
        self._depth = 0  # of nested collections around the current node
        self._max_depth = 0
        self._flow_depth = 0
        self._count = 0  # of values, including those that aliases repeat
        self._expanded = 0  # of values that aliases repeat

    def compose(self) -> Document:
        """Read the stream's single document.

        Raises:
            ManifestError: there is no document, or it exceeds a limit.
            YAMLError: the text is not YAML.
            ParserDisagreementError: the reference parser has to read the text.
        """
        self._next()  # the stream's start
        if type(self._next()) is StreamEndEvent:
            raise self.fatal_error(0, "the file is empty", "run `pixxel-runner init` to create a manifest")
        value, location = self._compose_node(self._next())
        self._next()  # the document's end
        if type(event := self._next()) is not StreamEndEvent:
            self._defer_to_reference()
            message = "unexpected second document: a manifest is a single YAML document"
            self._report(event.start_mark.index, message, "put each manifest in its own file, or remove this `---`")
        return Document(self._file, value, location, self._lines, tuple(self._problems))

    def fatal_error(self, offset: int, message: str, hint: str) -> ManifestError:
        """An error with the problems so far and a last one, after which there is nothing to read."""
        self._defer_to_reference()
        self._path.clear()
        self._report(offset, message, hint)
        return ManifestError(tuple(self._problems))

    def parser_offset(self) -> int:
        """How far the reference parser has read."""
        return int(self._parser.get_mark().index)

    def _compose_node(self, event: Event) -> tuple[Any, Location]:
        self._count += 1
        if type(event) is AliasEvent:
            return self._expand_alias(event)
        if event.tag is not None:
            self._report_tag(event)
        if event.anchor is not None:
            return self._compose_anchored(event)
        return self._compose_scalar(event) if type(event) is ScalarEvent else self._compose_collection(event)

    def _compose_anchored(self, event: Event) -> tuple[Any, Location]:
        mark = f"&{event.anchor}"
        offset = event.start_mark.index
        if self._text.startswith(mark, offset) and self._text[offset + len(mark) :][:1] in _AMBIGUOUS_IN_ANCHORS:
            self._defer_to_reference()
            message = f"ambiguous anchor {quote(mark)}: YAML parsers disagree on where its name ends"
            self._report(offset, message, "use only letters, digits, `-` and `_` in the name of an anchor")
        anchor = self._anchors[event.anchor] = _Anchor()
        count, max_depth = self._count, self._max_depth
        self._max_depth = self._depth
        anchor.value, anchor.location = value, location = (
            self._compose_scalar(event) if type(event) is ScalarEvent else self._compose_collection(event)
        )
        anchor.size, anchor.height = self._count - count + 1, self._max_depth - self._depth
        self._max_depth = max(max_depth, self._max_depth)
        return value, location

    def _expand_alias(self, event: Event) -> tuple[Any, Location]:
        offset = event.start_mark.index
        anchor = self._anchors.get(event.anchor)
        if anchor is None or anchor.value is _UNFINISHED:
            reason = "no anchor of this name precedes it" if anchor is None else "it is inside its own anchor"
            message = f"invalid alias {quote('*' + event.anchor)}: {reason}"
            self._report(offset, message, "put a value that starts with `*` in quotes")
            return None, offset
        self._count += anchor.size
        self._expanded += anchor.size
        self._max_depth = max(self._max_depth, self._depth + anchor.height)
        if self._max_depth > MAX_DEPTH:
            raise self._depth_error(offset)
        if self._expanded > MAX_EXPANDED:
            message = f"aliases expand to more than {MAX_EXPANDED:,} values"
            raise self.fatal_error(offset, message, "write the values out instead of repeating them by aliases")
        children = children_of(anchor.location)
        return anchor.value, offset if children is None else (offset, children)

    def _compose_scalar(self, event: Event) -> tuple[Any, Location]:
        text: str = event.value
        offset: int = event.start_mark.index
        if len(text) > MAX_SCALAR:
            self._report(offset, f"must be at most {MAX_SCALAR:,} characters, got {len(text):,}", "shorten it")
            text = text[:MAX_SCALAR]  # each alias would have all of it checked again
        self._count += len(text) // _CHARACTERS_PER_VALUE
        if event.implicit[0]:
            if not text and self._flow_depth:
                self._defer_to_reference()
            value = parse_scalar(text)
            return (text, offset) if value is text else (value, (offset, text))
        if event.style in ("|", ">") and _BLOCK_HEADER.match(self._text, offset) is None:
            self._defer_to_reference()
        return (text if text.isascii() else self._join_surrogates(text, offset)), offset

    def _join_surrogates(self, text: str, offset: int) -> str:
        r"""Join the surrogate pairs that JSON writes for a character beyond U+FFFF: `"\ud83d\ude00"`."""
        if _SURROGATE.search(text) is None:
            return text
        joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "\ufffd" in joined:
            self._report(offset, "invalid escape: a lone surrogate", "write the character itself")
        return joined

    def _compose_collection(self, start: Event) -> tuple[Any, Location]:
        offset = start.start_mark.index
        is_flow = bool(start.flow_style)  # the reference leaves it None for an indentless list
        self._depth += 1
        self._max_depth = max(self._max_depth, self._depth)
        if self._depth > MAX_DEPTH:
            raise self._depth_error(offset)
        self._flow_depth += is_flow
        is_mapping = type(start) is MappingStartEvent
        value, children, end = self._compose_mapping() if is_mapping else self._compose_sequence()
        self._flow_depth -= is_flow
        self._depth -= 1
        if is_flow and self._has_question_mark and "?" in self._text[offset : end.end_mark.index]:
            self._defer_to_reference()
        return value, (offset, children)

    def _compose_sequence(self) -> tuple[list[Any], list[Location], Event]:
        values: list[Any] = []
        locations: list[Location] = []
        while type(event := self._next()) is not SequenceEndEvent:
            self._path.append(len(values))
            value, location = self._compose_node(event)
            self._path.pop()
            values.append(value)
            locations.append(location)
        return values, locations, event

    def _compose_mapping(self) -> tuple[dict[str, Any], dict[str, tuple[int, Location]], Event]:
        values: dict[str, Any] = {}
        locations: dict[str, tuple[int, Location]] = {}
        while type(event := self._next()) is not MappingEndEvent:
            key = self._compose_key(event, locations)
            self._path.append(key or "")
            value, location = self._compose_node(self._next())
            self._path.pop()
            if key is not None:
                values[key] = value
                locations[key] = (event.start_mark.index, location)
        return values, locations, event

    def _compose_key(self, event: Event, earlier: dict[str, tuple[int, Location]]) -> str | None:
        """The key's text; None, with a problem reported, if the entry has to be left out."""
        offset = event.start_mark.index
        if self._flow_depth and self._text[max(0, offset - 1) : offset] == "?":
            message = "ambiguous `?`: YAML parsers disagree on whether it belongs to the key"
            self._report(offset - 1, message, "if it does, put the key in quotes")
        value, _ = self._compose_node(event)
        if type(event) is not ScalarEvent:
            self._report_complex_key(event)
            return None
        if not isinstance(value, str):
            self._report_non_string_key(event, value)
        elif event.value == "<<" and event.implicit[0]:
            self._report_key(event, "merge keys (`<<`) are not supported", "put what the jobs share under `defaults`")
            return None
        key = value if isinstance(value, str) else str(event.value)
        if key in earlier:
            first_line = self._lines.position(earlier[key][0])[0]
            message = f"duplicate key {quote(event.value)}; first used on line {first_line}"
            self._report_key(event, message, "remove one of them")
            return None
        return key

    def _report_complex_key(self, event: Event) -> None:
        offset = event.start_mark.index
        if self._text.startswith("{{", offset):
            return  # reported with the key of the inner mapping
        if self._text.startswith("{{", max(0, offset - 1)):
            hint = "render the template first, or put the value in quotes"
            self._report(offset - 1, "YAML reads `{{` as a mapping in place of a key", hint)
        else:
            kind = {AliasEvent: "an alias", SequenceStartEvent: "a list"}.get(type(event), "a mapping")
            self._report(offset, f"expected a string as the key, got {kind}", "write the key as plain text")

    def _report_non_string_key(self, event: Event, value: Any) -> None:
        if event.value:
            reading = describe_value(value, event.value)
            message = f"expected a string as the key, but YAML reads {quote(event.value)} as {reading}"
            hint = f"put the key in quotes: {quote(chr(34) + event.value + chr(34))}"
        else:
            message, hint = "missing key before the colon", "write `key: value`"
        self._report_key(event, message, hint)

    def _report_key(self, event: Event, message: str, hint: str) -> None:
        self._path.append(event.value)
        self._report(event.start_mark.index, message, hint)
        self._path.pop()

    def _report_tag(self, event: Event) -> None:
        self._defer_to_reference()
        tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
        message = f"unsupported tag {quote(tag)}: a manifest is plain data"
        self._report(event.start_mark.index, message, "remove the tag; to make a value a string, put it in quotes")

    def _depth_error(self, offset: int) -> ManifestError:
        message = f"lists and mappings are nested more than {MAX_DEPTH} levels deep"
        return self.fatal_error(offset, message, "remove levels; no manifest needs more than 4")

    def _report(self, offset: int, message: str, hint: str) -> None:
        field = format_path(tuple(self._path))
        self._problems.append(Problem(self._file, *self._lines.position(offset), field, message, hint))

    def _defer_to_reference(self) -> None:
        """Leave the text to the reference parser, unless this is the reference parser.

        Raises:
            ParserDisagreementError: it is not.
        """
        if not self._is_reference:
            raise ParserDisagreementError
