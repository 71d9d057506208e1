"""Text for messages about a manifest: quoted snippets, field paths, and explanations of YAML syntax errors."""

from __future__ import annotations

import re
from collections.abc import Callable

import yaml

# A field's path: keys, and indices that count from 0.
FieldPath = tuple[str | int, ...]

_MAX_QUOTED = 60  # characters
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KEY_WITHOUT_SPACE = re.compile(r"[ -]*\w+:\S")
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


# Patterns of PyYAML's errors (context, colon, problem), each with a message and a hint. In a message, `{found}` stands
# for what PyYAML found, and `{line}` for the line where the unfinished part starts. The first match applies.
_EXPLANATIONS = (
    (
        r"scanning a directive|incompatible YAML document|duplicate YAML directive|duplicate tag handle",
        "unsupported YAML directive",
        "remove the line; to start a value with `%`, put it in quotes",
    ),
    (r"found (?:character )?'\\t'", "unexpected tab: YAML allows only spaces here", "replace the tab with spaces"),
    (r"found character", "a value cannot start with {found}", "put the value in quotes"),
    (r"could not find expected ':'", "missing colon: expected `key: value`", "add the colon, or fix the indentation"),
    (r"mapping values", "unexpected colon", "put a value that contains `: ` in quotes, or fix the indentation"),
    (r"sequence entries are not allowed", "unexpected list item", "put the `- ` on its own line, below the key"),
    (r"mapping keys are not allowed", "unexpected `? `", "write the key as `key: value`"),
    (r"end of stream|document separator", "missing closing quote", "close the string with the same kind of quote"),
    (r"unknown escape", "invalid escape: backslash and {found}", "write two backslashes, or use single quotes"),
    (r"expected escape sequence", "incomplete escape", r"write 2 hex digits after \x, 4 after \u or 8 after \U"),
    (
        r"expected ',' or '[\]}]'",
        "missing comma, or missing closing bracket for the bracket opened on line {line}",
        "add the comma or the closing bracket",
    ),
    (
        r"but found '(?:-|<block sequence start>)'",
        "wrong indentation of a list item",
        "indent all items by the same amount",
    ),
    (
        r"expected <block end>",
        "unexpected content in the block that starts on line {line}",
        "indent all keys of a mapping by the same amount, and put nothing after a closing quote",
    ),
    (r"expected alphabetic", "missing name after `&` or `*`", "put a value that starts with `&` or `*` in quotes"),
    (r"scanning a block scalar", "unexpected text after `|` or `>`", "put the text on the next line"),
    (r"scanning a tag|undefined tag", "tags are not supported", "put a value that starts with `!` in quotes"),
    (r"<document start>", "unexpected text after the end of the document", "fix the indentation, or remove the text"),
    (r"expected the node content", "missing key or value", "add it, or close the open bracket"),
    (r"", "invalid YAML", "check quotes, brackets, colons and indentation near here"),
)
# Errors that are reported where the unfinished part starts, not where PyYAML noticed.
_REPORTED_AT_START = re.compile(r"could not find expected ':'|end of stream|document separator")


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
    message, hint = next(rest for pattern, *rest in _EXPLANATIONS if re.search(pattern, description))
    found = _SINGLE_QUOTED.search(error.problem or "")
    message = message.format(found=quote(found[1]) if found else "this", line=position(start)[0])
    if _lacks_space(description, text, end):
        hint = "put a space after the colon on the previous line"
    return (start if _REPORTED_AT_START.search(description) else end), message, hint


def _lacks_space(description: str, text: str, offset: int) -> bool:
    """Whether a colon is unexpected because the line above has `key:value`, which YAML reads as plain text."""
    lines = text[max(0, offset - 1_000) : offset].splitlines()
    return "mapping values" in description and len(lines) > 1 and _KEY_WITHOUT_SPACE.match(lines[-2]) is not None
