r"""Text for people: untrusted text made safe to print, display widths, plurals.

A name, an id or a message may contain anything. Printed unchanged, it could move the cursor, change colors, reorder
the text around it, or give a CI system a command: what a terminal or a CI log would act on becomes a visible escape.
The escapes are Python's: `\x1b`, `\u202e`, `\n`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_ELLIPSIS = "…"

# Combining marks share a cell with their base. No script needs as many as it takes to paint over other lines.
_MAX_MARKS = 4

# Text beyond printable ASCII, with the letter its marks may belong to: only this is checked character by character.
_NOT_ASCII = re.compile(r"[ -~]?[^ -~]+")

# GitHub Actions obeys `::command::` at the start of a line and `##[command]` anywhere, Azure `##vso[command]`.
_COMMAND = re.compile(r"##(?=\[|vso\[)")
_LEADING_COMMAND = re.compile(r"(\s*):(?=:)")


def escape_unprintable(text: str) -> str:
    """Return text with visible escapes for everything that does more than print itself.

    That is whatever Python calls unprintable (control and format characters such as bidi overrides and zero-width
    spaces, lone surrogates, line separators, private use, unassigned), combining marks without a base, and the start
    of a CI command. Spaces of any width stay.
    """
    if not (text.isascii() and text.isprintable()):
        text = _NOT_ASCII.sub(lambda match: "".join(_escape_characters(match[0])), text)
    text = _COMMAND.sub(r"\\x23#", text)
    return _LEADING_COMMAND.sub(r"\1\\x3a", text, count=1) if text.lstrip().startswith("::") else text


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun: `1 job`, `2 jobs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def join_reason(reason: str, detail: str) -> str:
    """Join a reason and its detail. A detail that begins with the reason stands alone."""
    if not detail or detail.startswith((f"{reason}: ", f"{reason} ")):
        return detail or reason
    return f"{reason}: {detail}"


def display_width(text: str) -> int:
    """Return how many terminal columns escaped text occupies."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def truncate(text: str, columns: int) -> str:
    """Shorten escaped text to at most `columns` columns (at least 1), with an ellipsis for what is missing."""
    if display_width(text) <= columns:
        return text
    if text.isascii():
        return text[: columns - 1] + _ELLIPSIS
    clusters: list[str] = []
    room = columns - 1
    for cluster in grapheme_clusters(text):
        room -= display_width(cluster)
        if room < 0:
            break
        clusters.append(cluster)
    return "".join(clusters) + _ELLIPSIS


def grapheme_clusters(text: str) -> Iterator[str]:
    """Split text into characters with the combining marks that belong to them."""
    start = 0
    for end in range(1, len(text)):
        if _columns(text[end]):
            yield text[start:end]
            start = end
    if text:
        yield text[start:]


def _escape_characters(text: str) -> Iterator[str]:
    marks = _MAX_MARKS  # the first character has no base before it
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        printable = character.isprintable() or unicodedata.category(character) == "Zs"
        yield character if printable and marks <= _MAX_MARKS else character.encode("unicode_escape").decode("ascii")


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me")


def _columns(character: str) -> int:
    if character.isascii():  # most characters; looking them up in the Unicode database is slow
        return 1
    if _is_mark(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
