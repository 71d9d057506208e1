"""A table for GitHub: a job summary, a comment on a pull request, an issue."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from runner.reports.views.table import Table

_SPECIAL = re.compile(r"[\\`*_\[\]{}~$|!]")

# GitHub would notify a user, link an issue or an address. A zero-width entity prevents that.
_LINKED = re.compile(r"@(?=\w)|#(?=\d)|:(?=//)|(?<=www)\.", re.IGNORECASE)


def render_markdown(table: Table) -> str:
    """The table and its notes as GitHub Flavored Markdown, without a final newline."""
    lines = [escape_markdown(note) for note in table.notes]
    if table.rows:
        titles = [column.spec.title for column in table.columns]
        rule = ["---:" if column.spec.kind == "number" else "---" for column in table.columns]
        rows = [_render_line(map(escape_markdown, row)) for row in table.rows]
        lines = [_render_line(titles), _render_line(rule), *rows, "", *lines]
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Printable text as Markdown that GitHub shows unchanged. An escaped `|` does not end a cell."""
    text = html.escape(text, quote=False)
    text = _SPECIAL.sub(r"\\\g<0>", text)
    return _LINKED.sub(r"\g<0>&#8203;", text)


def _render_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
