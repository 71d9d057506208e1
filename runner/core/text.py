r"""Text from outside, made fit to show: what a terminal or a CI log would act on becomes a visible escape.

A name, an id or a message may hold anything. Shown as it is, it could move the cursor, recolour or reorder what stands
beside it, or give GitHub Actions a command. The escapes are those of Python: `\x1b`, `\u202e`, `\n`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_ELLIPSIS = "…"

# A base and its marks share a cell, but no script needs as many marks as it takes to paint over other lines.
_MOST_MARKS = 4

# What is not simply ASCII, with the letter on which marks may stand: only that is gone through letter by letter.
_ODD = re.compile(r"[ -~]?[^ -~]+")

# GitHub Actions takes `::command::` at the start of a line and `##[command]` anywhere, Azure `##vso[command]`.
_COMMAND = re.compile(r"##(?=\[|vso\[)")
_LEADING_COMMAND = re.compile(r"(\s*):(?=:)")


def escape_unprintable(text: str) -> str:
    """The text with visible escapes in place of all that is not simply shown.

    That is what Python calls unprintable (control and format characters such as bidi overrides and zero-width spaces,
    lone surrogates, line separators, private use, the unassigned), marks that have no letter to stand on, and the
    start of a CI log's command. Spaces of any width stay.
    """
    if not (text.isascii() and text.isprintable()):
        text = _ODD.sub(_escaped, text)
    text = _COMMAND.sub(r"\\x23#", text)
    return _LEADING_COMMAND.sub(r"\1\\x3a", text, count=1) if text.lstrip().startswith("::") else text


def display_width(text: str) -> int:
    """How many columns of a terminal the text takes, for text that `visible` has been over."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def truncate(text: str, columns: int) -> str:
    """The text in at most `columns` columns (at least 1), with an ellipsis where some of it is missing."""
    if display_width(text) <= columns:
        return text
    if text.isascii():
        return text[: columns - 1] + _ELLIPSIS
    kept: list[str] = []
    left = columns - 1
    for cluster in grapheme_clusters(text):
        left -= display_width(cluster)
        if left < 0:
            break
        kept.append(cluster)
    return "".join(kept) + _ELLIPSIS


def grapheme_clusters(text: str) -> Iterator[str]:
    """The text in pieces that must not be parted: a character with the marks that stand on it."""
    start = 0
    for end in range(1, len(text)):
        if _columns(text[end]):
            yield text[start:end]
            start = end
    if text:
        yield text[start:]


def _escaped(run: re.Match[str]) -> str:
    return "".join(_shown(run[0]))


def _shown(text: str) -> Iterator[str]:
    marks = _MOST_MARKS  # at the start there is nothing to stand on
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        yield character if _is_plain(character) and marks <= _MOST_MARKS else _escape(character)


def _is_plain(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me")


def _columns(character: str) -> int:
    if character.isascii():  # as nearly all are: the database of characters is slow to ask
        return 1
    if _is_mark(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
