"""The table for GitHub: a job summary, a pull request's comment, an issue."""

from __future__ import annotations

import re
from collections.abc import Iterable

from runner.reports.style import Style
from runner.reports.views.table import Table

_SPECIAL = re.compile(r"[\\`*_\[\]{}~$|!]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

# GitHub would notify a person, link an issue or an address. An entity that has no width keeps it from seeing one.
_LINKED = re.compile(r"@(?=\w)|#(?=\d)|:(?=//)|(?<=www)\.", re.IGNORECASE)


def text(sheet: Table, _style: Style) -> str:
    """The sheet as a table of GitHub's Markdown and its notes, without the last line's end."""
    lines = [escaped(note) for note in sheet.notes]
    if sheet.rows:
        titles = [column.title for column in sheet.columns]
        rule = ["---:" if column.align == "right" else "---" for column in sheet.columns]
        rows = [_line(map(escaped, row)) for row in sheet.rows]
        lines = [_line(titles), _line(rule), *rows, "", *lines]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text that Markdown and GitHub show as it is. A `|` gets a backslash of its own, so that cells stay apart.

    `text` is fit to show already (`runner.core.text.visible`).
    """
    text = re.sub("[&<>]", lambda found: _HTML[found[0]], text)
    text = _SPECIAL.sub(r"\\\g<0>", text)
    return _LINKED.sub(r"\g<0>&#8203;", text)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
