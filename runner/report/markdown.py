"""The table for GitHub: a job summary, a pull request's comment, an issue."""

from __future__ import annotations

import re
from collections.abc import Iterable

from runner.model import Record
from runner.report.rows import Row, listed, notes, times_format
from runner.report.style import Style

_TITLES = ("job", "workflow", "project", "outcome", "job id or error", "cost", "sent (UTC)")
_RULE = ("---", "---", "---", "---", "---", "---:", "---")

_SPECIAL = re.compile(r"[\\`*_\[\]{}~$|!]")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

# GitHub would notify a person, link an issue or an address. An entity that has no width keeps it from seeing one.
_LINKED = re.compile(r"@(?=\w)|#(?=\d)|:(?=//)|(?<=www)\.", re.IGNORECASE)


def report(record: Record, style: Style) -> str:
    """The record as a table of GitHub's Markdown and the totals, without the last line's end."""
    rows = listed(record, style)
    lines = [escaped(note) for note in notes(record, rows)]
    if rows:
        times = times_format(row.sent_at for row in rows)
        lines = [_line(_TITLES), _line(_RULE), *(_line(_cells(row, times)) for row in rows), "", *lines]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text that Markdown and GitHub show as it is. A `|` gets a backslash of its own, so that cells stay apart.

    `text` is fit to show already (`runner.report.text.visible`).
    """
    text = re.sub("[&<>]", lambda found: _HTML[found[0]], text)
    text = _SPECIAL.sub(r"\\\g<0>", text)
    return _LINKED.sub(r"\g<0>&#8203;", text)


def _cells(row: Row, times: str) -> tuple[str, ...]:
    return (
        escaped(row.name),
        escaped(row.workflow),
        escaped(row.project),
        escaped(row.outcome),
        escaped(row.detail),
        "" if row.cost is None else str(row.cost),
        row.sent_at.strftime(times) if row.sent_at else "",
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
