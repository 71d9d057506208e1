"""From a YAML parser's events to values with places, bounded while the events come."""

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

# Bounds. Each is far above any real manifest, and keeps a hostile one from taking the machine.
MAX_DEPTH = 20
MAX_SCALAR = 10_000  # characters
MAX_EXPANDED = 2_000_000  # values that aliases repeat
_AS_A_VALUE = 20  # characters: long text that aliases repeat counts as so many values

Event = Any  # one of PyYAML's classes, whose stubs do not say which attributes each has

_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*(?: +#[^\r\n]*| *)(?:[\r\n]|\Z)")
_IN_ANCHORS = (":", "?", "%", "@", "`")  # what YAML 1.2 takes for a part of an anchor's name, and 1.1 for its end
_SURROGATE = re.compile("[\ud800-\udfff]")


class ParserDisagreementError(Exception):
    """Libyaml read something that the reference may read differently."""


_UNFINISHED = object()


@dataclass(slots=True)
class _Anchor:
    """What `&name` marks. `size` counts values, `height` the collections inside one another."""

    value: Any = _UNFINISHED
    place: Location = 0
    size: int = 0
    height: int = 0


class Composer:
    """Makes values and places of one parser's events, bounded while they come.

    PyYAML's own composers are not used: libyaml's is recursive in C and overflows the stack on a deep file.
    `trusted` says that the parser is the reference, whose word is final.
    """

    def __init__(self, text: str, file: str, lines: Lines, *, trusted: bool) -> None:
        self._text = text
        self._file = file
        self._lines = lines
        self._trusted = trusted
        self._parser: Any = (yaml.SafeLoader if trusted else yaml.CSafeLoader)(text)
        self._next: Callable[[], Event] = self._parser.get_event
        self._has_question = "?" in text
        self._problems: list[Problem] = []
        self._anchors: dict[str, _Anchor] = {}
        self._path: list[str | int] = []
        self._depth = 0  # of collections, around the current node
        self._deepest = 0
        self._flow_depth = 0
        self._count = 0  # of values, with those that aliases repeat
        self._expanded = 0  # of these, those that aliases repeat

    def compose(self) -> Document:
        """Read the stream's one document.

        Raises:
            ManifestError: the stream has none, or is out of bounds.
            YAMLError: the text is not YAML.
            DoubtError: the reference has to be asked.
        """
        self._next()  # the stream's start
        if type(self._next()) is StreamEndEvent:
            raise self.fatal_error(0, "the file is empty", "`pixxel-runner init` writes a manifest to start from")
        value, place = self._node(self._next())
        self._next()  # the document's end
        self._expect_end(self._next())
        return Document(self._file, value, place, self._lines, tuple(self._problems))

    def fatal_error(self, offset: int, message: str, hint: str) -> ManifestError:
        """The end of the reading: the problems so far, and the one that ends it."""
        self._doubt()
        self._path.clear()
        self._problem(offset, message, hint)
        return ManifestError(tuple(self._problems))

    def offset(self) -> int:
        """How far the reference has come."""
        return int(self._parser.get_mark().index)

    def _expect_end(self, event: Event) -> None:
        if type(event) is not StreamEndEvent:
            self._doubt()
            self._problem(
                event.start_mark.index,
                "a second document begins here; a manifest is one document",
                "put each manifest into a file of its own, or remove this `---`",
            )

    def _node(self, event: Event) -> tuple[Any, Location]:
        self._count += 1
        if type(event) is AliasEvent:
            return self._alias(event)
        if event.tag is not None:
            self._tagged(event)
        if event.anchor is not None:
            return self._anchored(event)
        return self._scalar(event) if type(event) is ScalarEvent else self._collection(event)

    def _anchored(self, event: Event) -> tuple[Any, Location]:
        mark = f"&{event.anchor}"
        offset = event.start_mark.index
        if self._text.startswith(mark, offset) and self._text[offset + len(mark) :][:1] in _IN_ANCHORS:
            self._doubt()
            hint = "name the anchor with letters, digits, `-` and `_` alone"
            self._problem(offset, f"readers of YAML differ in where the name of the anchor {quote(mark)} ends", hint)
        anchor = self._anchors[event.anchor] = _Anchor()
        count, deepest = self._count, self._deepest
        self._deepest = self._depth
        anchor.value, anchor.place = value, place = (
            self._scalar(event) if type(event) is ScalarEvent else self._collection(event)
        )
        anchor.size, anchor.height = self._count - count + 1, self._deepest - self._depth
        self._deepest = max(deepest, self._deepest)
        return value, place

    def _alias(self, event: Event) -> tuple[Any, Location]:
        offset = event.start_mark.index
        anchor = self._anchors.get(event.anchor)
        if anchor is None or anchor.value is _UNFINISHED:
            what = "names no anchor above it" if anchor is None else "stands inside its own anchor"
            hint = "write a value that begins with `*` in quotes"
            self._problem(offset, f"the alias {quote('*' + event.anchor)} {what}", hint)
            return None, offset
        self._count += anchor.size
        self._expanded += anchor.size
        self._deepest = max(self._deepest, self._depth + anchor.height)
        if self._deepest > MAX_DEPTH:
            raise self._too_deep(offset)
        if self._expanded > MAX_EXPANDED:
            message = f"aliases repeat more than {MAX_EXPANDED:,} values up to here"
            raise self.fatal_error(offset, message, "write the values out")
        children = children_of(anchor.place)
        return anchor.value, offset if children is None else (offset, children)

    def _scalar(self, event: Event) -> tuple[Any, Location]:
        text: str = event.value
        offset: int = event.start_mark.index
        if len(text) > MAX_SCALAR:
            self._problem(offset, f"this value has {len(text):,} characters", f"{MAX_SCALAR:,} is the most")
            text = text[:MAX_SCALAR]  # each alias would have all of it looked at once more
        self._count += len(text) // _AS_A_VALUE
        if event.implicit[0]:
            if not text and self._flow_depth:
                self._doubt()
            value = parse_scalar(text)
            return (text, offset) if value is text else (value, (offset, text))
        if event.style in ("|", ">") and _BLOCK_HEADER.match(self._text, offset) is None:
            self._doubt()
        return (text if text.isascii() else self._paired(text, offset)), offset

    def _paired(self, text: str, offset: int) -> str:
        r"""Join the surrogate pairs that JSON writes for a character beyond U+FFFF: `"\ud83d\ude00"`."""
        if _SURROGATE.search(text) is None:
            return text
        joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "\ufffd" in joined:
            message = "an escape here is half of a character (a lone surrogate)"
            self._problem(offset, message, "write the character itself")
        return joined

    def _collection(self, start: Event) -> tuple[Any, Location]:
        offset = start.start_mark.index
        is_flow = bool(start.flow_style)  # the reference leaves it None for an indentless list
        self._depth += 1
        self._deepest = max(self._deepest, self._depth)
        if self._depth > MAX_DEPTH:
            raise self._too_deep(offset)
        self._flow_depth += is_flow
        is_mapping = type(start) is MappingStartEvent
        value, children, end = self._mapping() if is_mapping else self._sequence()
        self._flow_depth -= is_flow
        self._depth -= 1
        if is_flow and self._has_question and "?" in self._text[offset : end.end_mark.index]:
            self._doubt()
        return value, (offset, children)

    def _sequence(self) -> tuple[list[Any], list[Location], Event]:
        values: list[Any] = []
        places: list[Location] = []
        while type(event := self._next()) is not SequenceEndEvent:
            self._path.append(len(values))
            value, place = self._node(event)
            self._path.pop()
            values.append(value)
            places.append(place)
        return values, places, event

    def _mapping(self) -> tuple[dict[str, Any], dict[str, tuple[int, Location]], Event]:
        values: dict[str, Any] = {}
        places: dict[str, tuple[int, Location]] = {}
        while type(event := self._next()) is not MappingEndEvent:
            key = self._key(event, places)
            self._path.append(key or "")
            value, place = self._node(self._next())
            self._path.pop()
            if key is not None:
                values[key] = value
                places[key] = (event.start_mark.index, place)
        return values, places, event

    def _key(self, event: Event, earlier: dict[str, tuple[int, Location]]) -> str | None:
        """The key's text; None, with a problem, if the entry has to be left out."""
        offset = event.start_mark.index
        if self._flow_depth and self._text[max(0, offset - 1) : offset] == "?":
            hint = "write the key in quotes if the `?` belongs to it"
            self._problem(offset - 1, "readers of YAML differ in whether this `?` belongs to the key", hint)
        value, _ = self._node(event)
        if type(event) is not ScalarEvent:
            self._odd_key(event)
            return None
        if not isinstance(value, str):
            self._unquoted_key(event, value)
        elif event.value == "<<" and event.implicit[0]:
            self._merge_key(event)
            return None
        key = value if isinstance(value, str) else str(event.value)
        if key in earlier:
            self._duplicate_key(event, earlier[key][0])
            return None
        return key

    def _odd_key(self, event: Event) -> None:
        offset = event.start_mark.index
        if self._text.startswith("{{", offset):
            return  # the key of the inner mapping has the problem already
        if self._text.startswith("{{", max(0, offset - 1)):
            message, hint = (
                "`{{` is a mapping as a key to YAML",
                "render a template first, or write the value in quotes",
            )
            self._problem(offset - 1, message, hint)
        else:
            what = {AliasEvent: "an alias", SequenceStartEvent: "a list"}.get(type(event), "a mapping")
            self._problem(offset, f"{what} stands where a key belongs", "write the key as plain text")

    def _unquoted_key(self, event: Event, value: Any) -> None:
        if event.value:
            message = f"YAML reads the key {quote(event.value)} as {describe_value(value, event.value)}"
            hint = f"if it is meant, write it in quotes: {quote(chr(34) + event.value + chr(34))}"
        else:
            message, hint = "there is no key before this colon", "write `key: value`"
        self._key_problem(event, message, hint)

    def _merge_key(self, event: Event) -> None:
        message = "the merge key `<<` is not allowed"
        self._key_problem(event, message, "put what the jobs have in common under `defaults`")

    def _duplicate_key(self, event: Event, first: int) -> None:
        message = (
            f"the key {quote(event.value)} stands here twice; the first is on line {self._lines.position(first)[0]}"
        )
        self._key_problem(event, message, "keep one of the two")

    def _key_problem(self, event: Event, message: str, hint: str) -> None:
        self._path.append(event.value)
        self._problem(event.start_mark.index, message, hint)
        self._path.pop()

    def _tagged(self, event: Event) -> None:
        self._doubt()
        tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
        message = f"the tag {quote(tag)} is not allowed: a manifest is plain data"
        self._problem(event.start_mark.index, message, "remove the tag; to keep a value text, write it in quotes")

    def _too_deep(self, offset: int) -> ManifestError:
        message = f"lists and mappings are more than {MAX_DEPTH} deep here"
        return self.fatal_error(offset, message, "a manifest needs no more than 4")

    def _problem(self, offset: int, message: str, hint: str) -> None:
        field = format_path(tuple(self._path))
        self._problems.append(Problem(self._file, *self._lines.position(offset), field, message, hint))

    def _doubt(self) -> None:
        """Have the reference read the text, if this is not the reference."""
        if not self._trusted:
            raise ParserDisagreementError
