"""How a manifest's text is put before a person: pieces of it made harmless, field paths, syntax errors in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import yaml

# A field's path: keys and, counted from 0, indices.
FieldPath = tuple[str | int, ...]

_SHOWN_LENGTH = 60
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KEY_WITHOUT_SPACE = re.compile(r"[ -]*\w+:\S")
_MISSING_SPACE_HINT = "put a space after the colon of the line above"
_QUOTED = re.compile(r"'(.*)'")


def escape(text: str) -> str:
    r"""Text with all that is not simply seen as an escape: controls, ANSI, bidi, odd spaces. Such as `\x1b`, `\xa0`.

    A space that is not the common one is escaped too: in a message about a file it is what is wrong.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def quote(text: str) -> str:
    """A piece of a file as a message shows it: harmless, in backquotes, and cut when long."""
    cut = text if len(text) <= _SHOWN_LENGTH else f"{text[: _SHOWN_LENGTH - 1]}…"
    return f"`{escape(cut)}`"


def format_path(path: FieldPath) -> str:
    """A path as a person writes it: `jobs[3].labels.team`, and `labels["a b"]` where a dot would not do."""
    return "".join(_step(step) for step in path).removeprefix(".")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _PLAIN_KEY.fullmatch(step) else f'["{quote(step)[1:-1]}"]'


@dataclass(frozen=True, slots=True)
class _Explanation:
    """What a syntax error of PyYAML's means to a person.

    `pattern` is found in PyYAML's words: its context, a colon, its problem. `message` may hold `{found}`, what
    PyYAML found, and `{line}`, where the thing began that could not be finished. `at_start` puts the problem there.
    """

    pattern: str
    message: str
    hint: str
    at_start: bool = False


# The first that fits. The last fits all.
_EXPLANATIONS = (
    _Explanation(
        r"scanning a directive|incompatible YAML document|duplicate YAML directive|duplicate tag handle",
        "a line that begins with % is a directive to YAML, and this one cannot be followed",
        "remove the line, or write a value that begins with % in quotes",
    ),
    _Explanation(
        r"found character '\\t'|expected .* but found '\\t'",
        "a tab stands here, and YAML takes only spaces for indentation and between values",
        "replace the tab with spaces",
    ),
    _Explanation(
        r"found character",
        "a value may not begin with {found}",
        "write the value in quotes",
    ),
    _Explanation(
        r"could not find expected ':'",
        "this line has no colon, where YAML expects `key: value`",
        "add the colon, or mend the indentation",
        at_start=True,
    ),
    _Explanation(
        r"mapping values are not allowed",
        "a colon stands where no key can be",
        "write a value that holds `: ` in quotes, or give this line the indentation of its neighbours",
    ),
    _Explanation(
        r"sequence entries are not allowed",
        "a list entry stands where none can be",
        "put the `- ` on a line of its own, below its key",
    ),
    _Explanation(
        r"mapping keys are not allowed",
        "a `? ` key stands where none can be",
        "write the key as `key: value`",
    ),
    _Explanation(
        r"found unexpected end of stream",
        "this quote is never closed",
        "close it with the same kind of quote",
        at_start=True,
    ),
    _Explanation(
        r"found unexpected document separator",
        "this quote is not closed before the document ends",
        "close it with the same kind of quote",
        at_start=True,
    ),
    _Explanation(
        r"found unknown escape",
        "a backslash before {found} means nothing in double quotes",
        "write two backslashes, or use single quotes",
    ),
    _Explanation(
        r"expected escape sequence",
        "this escape lacks hexadecimal digits",
        r"write \x with 2, \u with 4, or \U with 8 digits; or use single quotes",
    ),
    _Explanation(
        r"expected ',' or '[\]}]'",
        "the bracket that opened on line {line} lacks its end, or a comma is missing before this",
        "add the comma or the closing bracket",
    ),
    _Explanation(
        r"expected <block end>, but found '-'|expected <block end>, but found '<block sequence start>'",
        "this list entry is not in line with the entries before it",
        "give every `- ` of a list the same indentation",
    ),
    _Explanation(
        r"expected <block end>",
        "this does not fit into what began on line {line}",
        "give the keys of one mapping the same indentation, and let nothing follow a closing quote",
    ),
    _Explanation(
        r"expected alphabetic or numeric character",
        "a name has to follow `&` or `*`, which mark an anchor and an alias",
        "write a value that begins with `&` or `*` in quotes",
    ),
    _Explanation(
        r"expected chomping|expected indentation indicator|expected a comment or a line break",
        "only an indicator or a comment may follow here",
        "put the text on the next line",
    ),
    _Explanation(
        r"scanning a tag|found undefined tag",
        "a tag stands here; a manifest is plain data and has none",
        "write a value that begins with `!` in quotes",
    ),
    _Explanation(
        r"expected '<document start>'",
        "the manifest has ended above, and more text follows",
        "give this line the indentation of its neighbours, or remove it",
    ),
    _Explanation(
        r"expected the node content",
        "a key or a value is missing here",
        "write it, or close the bracket that is open",
    ),
    _Explanation(r"", "this is not YAML", "look for a wrong quote, bracket, colon or indentation near here"),
)


def explain(error: yaml.MarkedYAMLError, text: str, position: Callable[[int], tuple[int, int]]) -> tuple[int, str, str]:
    """Put an error of PyYAML's parser in Python into words.

    Args:
        error: the error.
        text: the text that it is about.
        position: turns an offset into a line and a column.

    Returns:
        The problem's offset in the text, the message, and the hint.
    """
    words = f"{error.context}: {error.problem}"
    at = error.problem_mark.index if error.problem_mark else len(text)
    start = error.context_mark.index if error.context_mark else at
    chosen = next(each for each in _EXPLANATIONS if re.search(each.pattern, words))
    found = _QUOTED.search(error.problem or "")
    message = chosen.message.format(found=quote(found[1]) if found else "this", line=position(start)[0])
    hint = _MISSING_SPACE_HINT if _lacks_space(words, text, at) else chosen.hint
    return (start if chosen.at_start else at), message, hint


def _lacks_space(words: str, text: str, at: int) -> bool:
    """Whether a colon is unexpected because the line above has `key:value`, which YAML reads on as plain text."""
    lines = text[max(0, at - 1_000) : at].splitlines()
    return "mapping values" in words and len(lines) > 1 and _KEY_WITHOUT_SPACE.match(lines[-2]) is not None
