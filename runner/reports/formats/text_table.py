"""A table for a terminal: aligned columns that fit its width, and the notes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import click
from tabulate import tabulate

from runner.core.text import display_width, grapheme_clusters, truncate
from runner.reports.style import Style
from runner.reports.views.table import Column, Table

_GAP = 2
_MAX_TRUNCATED_RANK = 2  # columns up to this rank are truncated before they are left out

# Private-use placeholders for a cluster that is not ASCII, one per terminal column. Escaped text contains neither.
_PLACEHOLDER, _FILLER = "\ue000", "\ue001"
_PLACEHOLDERS = re.compile(f"{_PLACEHOLDER}{_FILLER}*")


def render_text_table(table: Table, style: Style) -> str:
    """Lay out the table and its notes, without a final newline."""
    if not table.rows:
        return "\n".join(table.notes)
    columns = table.columns if style.width is None else _select_columns(table.columns, style.width)
    lines = [_lay_out(columns, style), "", *table.notes]
    if hidden := [column.spec.title for column in table.columns if column not in columns]:
        lines.append(f"columns that do not fit the terminal: {', '.join(hidden)}")
    return "\n".join(lines)


def _select_columns(columns: Sequence[Column], terminal_width: int) -> list[Column]:
    """The columns that the terminal has room for."""
    ranked = sorted(columns, key=lambda column: column.spec.rank)
    while not _fit([column.preferred_width for column in ranked], terminal_width):
        if ranked[-1].spec.rank <= _MAX_TRUNCATED_RANK:
            break
        ranked.pop()
    while ranked[-1].spec.rank > 0 and not _fit([column.min_width for column in ranked], terminal_width):
        ranked.pop()
    return [column for column in columns if column in ranked]


def _fit(widths: Sequence[int], terminal_width: int) -> bool:
    return sum(widths) + _GAP * (len(widths) - 1) <= terminal_width


def _compute_widths(columns: Sequence[Column], terminal_width: int | None) -> list[int]:
    """The maximum width of each column: the widest ones are truncated to one common width, none below its minimum."""
    if terminal_width is None:
        return [column.width for column in columns]
    floors = [column.preferred_width for column in columns]
    if not _fit(floors, terminal_width):
        floors = [column.min_width for column in columns]
    for limit in range(terminal_width, 0, -1):
        widths = [max(floor, min(column.width, limit)) for column, floor in zip(columns, floors, strict=True)]
        if _fit(widths, terminal_width):
            return widths
    return floors


def _lay_out(columns: Sequence[Column], style: Style) -> str:
    laid_out = []
    for column, max_width in zip(columns, _compute_widths(columns, style.width), strict=True):
        title, *cells = (truncate(cell, max_width) for cell in (column.spec.title, *column.cells))
        rule = "-" * max(map(display_width, (title, *cells)))
        if style.color and column.colors:
            cells = [click.style(cell, fg=color) for cell, color in zip(cells, column.colors, strict=True)]
        laid_out.append((title, rule, *cells))
    alignments = ["right" if column.spec.kind == "number" else "left" for column in columns]
    return _align(zip(*laid_out, strict=True), alignments)


def _align(lines: Iterable[Sequence[str]], alignments: Sequence[str]) -> str:
    """Let `tabulate` align the cells by their width on a terminal.

    It counts characters, so it gets a placeholder for each terminal column. Titles and rule are lines like the others,
    because it makes a column two wider than a title that it knows of.
    """
    clusters: list[str] = []
    cells = [[_replace_clusters(cell, clusters) for cell in line] for line in lines]
    aligned = tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=alignments)
    originals = iter(clusters)
    return _PLACEHOLDERS.sub(lambda _: next(originals), aligned)


def _replace_clusters(cell: str, replaced: list[str]) -> str:
    """The cell with placeholders for the clusters that are not ASCII, which are appended to `replaced` in order."""
    if cell.isascii():
        return cell
    pieces = []
    for cluster in grapheme_clusters(cell):
        if cluster.isascii():
            pieces.append(cluster)
        else:
            replaced.append(cluster)
            pieces.append(_PLACEHOLDER + _FILLER * (display_width(cluster) - 1))
    return "".join(pieces)
