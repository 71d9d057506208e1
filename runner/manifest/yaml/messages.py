"""Text for messages about a manifest: quoted snippets, field paths, and explanations of YAML syntax errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import yaml

# A field's path: keys, and indices that count from 0.
FieldPath = tuple[str | int, ...]

_MAX_QUOTED = 60  # characters
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KEY_WITHOUT_SPACE = re.compile(r"[ -]*\w+:\S")
_MISSING_SPACE_HINT = "put a space after the colon on the previous line"
_SINGLE_QUOTED = re.compile(r"'(.*)'")


def escape(text: str) -> str:
    r"""Escape control and format characters, and every space but U+0020: `\x1b`, `\xa0`.

    A message shows other spaces because they are often what is wrong with the file.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def quote(text: str) -> str:
    """Quote part of a file for a message: escaped, in backquotes, and shortened if it is long."""
    short = text if len(text) <= _MAX_QUOTED else f"{text[: _MAX_QUOTED - 1]}…"
    return f"`{escape(short)}`"


def format_path(path: FieldPath) -> str:
    """Format a field's path: `jobs[3].labels.team`, or `labels["a b"]` where a dot would be ambiguous."""
    return "".join(_format_step(step) for step in path).removeprefix(".")


def _format_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _PLAIN_KEY.fullmatch(step) else f'["{quote(step)[1:-1]}"]'


class _Explanation(NamedTuple):
    """What to say about a syntax error.

    `pattern` matches PyYAML's error: its context, a colon, its problem. In `message`, `{found}` stands for what PyYAML
    found and `{line}` for the line where the unfinished part starts; with `at_start` the error is reported there.
    """

    pattern: str
    message: str
    hint: str
    at_start: bool = False


# The first match applies. The last one matches everything.
_EXPLANATIONS = (
    _Explanation(
        r"scanning a directive|incompatible YAML document|duplicate YAML directive|duplicate tag handle",
        "unsupported YAML directive",
        "remove the line; to start a value with `%`, put it in quotes",
    ),
    _Explanation(
        r"found character '\\t'|expected .* but found '\\t'",
        "unexpected tab: YAML allows only spaces for indentation and between values",
        "replace the tab with spaces",
    ),
    _Explanation(r"found character", "a value cannot start with {found}", "put the value in quotes"),
    _Explanation(
        r"could not find expected ':'",
        "missing colon: expected `key: value`",
        "add the colon, or fix the indentation",
        at_start=True,
    ),
    _Explanation(
        r"mapping values are not allowed",
        "unexpected colon",
        "put a value that contains `: ` in quotes, or indent this line like the lines around it",
    ),
    _Explanation(
        r"sequence entries are not allowed",
        "unexpected list item",
        "put the `- ` on its own line, below the key",
    ),
    _Explanation(r"mapping keys are not allowed", "unexpected `? `", "write the key as `key: value`"),
    _Explanation(
        r"found unexpected (?:end of stream|document separator)",
        "missing closing quote",
        "close the string with the same kind of quote",
        at_start=True,
    ),
    _Explanation(
        r"found unknown escape",
        "invalid escape sequence: backslash followed by {found}",
        "write two backslashes, or use single quotes",
    ),
    _Explanation(
        r"expected escape sequence",
        "incomplete escape sequence: missing hexadecimal digits",
        r"use \x with 2, \u with 4 or \U with 8 digits, or use single quotes",
    ),
    _Explanation(
        r"expected ',' or '[\]}]'",
        "missing comma, or missing closing bracket for the bracket opened on line {line}",
        "add the comma or the closing bracket",
    ),
    _Explanation(
        r"expected <block end>, but found '-'|expected <block end>, but found '<block sequence start>'",
        "inconsistent indentation of a list item",
        "indent all items of the list the same",
    ),
    _Explanation(
        r"expected <block end>",
        "unexpected content in the block that starts on line {line}",
        "indent all keys of a mapping the same, and put nothing after a closing quote",
    ),
    _Explanation(
        r"expected alphabetic or numeric character",
        "missing name after `&` or `*`",
        "put a value that starts with `&` or `*` in quotes",
    ),
    _Explanation(
        r"expected chomping|expected indentation indicator|expected a comment or a line break",
        "unexpected text after `|` or `>`",
        "put the text on the next line",
    ),
    _Explanation(
        r"scanning a tag|found undefined tag",
        "tags are not supported: a manifest is plain data",
        "put a value that starts with `!` in quotes",
    ),
    _Explanation(
        r"expected '<document start>'",
        "unexpected text after the end of the document",
        "indent this line like the lines around it, or remove it",
    ),
    _Explanation(r"expected the node content", "missing key or value", "add it, or close the open bracket"),
    _Explanation(r"", "invalid YAML", "check quotes, brackets, colons and indentation near here"),
)


def explain(error: yaml.MarkedYAMLError, text: str, position: Callable[[int], tuple[int, int]]) -> tuple[int, str, str]:
    """Explain a syntax error of PyYAML's Python parser.

    Args:
        error: the error.
        text: the text that was parsed.
        position: turns an offset into a line and a column.

    Returns:
        The problem's offset in the text, the message, and the hint.
    """
    description = f"{error.context}: {error.problem}"
    end = error.problem_mark.index if error.problem_mark else len(text)
    start = error.context_mark.index if error.context_mark else end
    explanation = next(each for each in _EXPLANATIONS if re.search(each.pattern, description))
    found = _SINGLE_QUOTED.search(error.problem or "")
    message = explanation.message.format(found=quote(found[1]) if found else "this", line=position(start)[0])
    hint = _MISSING_SPACE_HINT if _lacks_space(description, text, end) else explanation.hint
    return (start if explanation.at_start else end), message, hint


def _lacks_space(description: str, text: str, offset: int) -> bool:
    """Whether a colon is unexpected because the line above has `key:value`, which YAML reads as plain text."""
    lines = text[max(0, offset - 1_000) : offset].splitlines()
    return "mapping values" in description and len(lines) > 1 and _KEY_WITHOUT_SPACE.match(lines[-2]) is not None
