"""The table for a terminal: aligned columns, cut to the terminal's width, and the notes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import click
from tabulate import tabulate

from runner.core.text import display_width, grapheme_clusters, truncate
from runner.reports.style import Style
from runner.reports.views.table import Align, Column, Table

_GAP = 2
_WANTED = 2  # columns of at most this rank are cut before they are left out

# Stand-ins for a character that is not ASCII, one for each column that it takes. `visible` lets neither through.
_STAND_IN, _FILLER = "\ue000", "\ue001"
_STOOD_IN = re.compile(f"{_STAND_IN}{_FILLER}*")


def text(sheet: Table, style: Style) -> str:
    """The sheet as a table and its notes, without the last line's end."""
    lines = list(sheet.notes)
    if not sheet.rows:
        return "\n".join(lines)
    kept = list(sheet.columns) if style.width is None else _that_fit(sheet.columns, style.width)
    if len(kept) < len(sheet.columns):
        left_out = (column.title for column in sheet.columns if column not in kept)
        lines.append(f"not shown on a terminal this narrow: {', '.join(left_out)}")
    return "\n".join([_lay_out(kept, sheet, style), "", *lines])


def _that_fit(columns: Sequence[Column], terminal: int) -> list[Column]:
    """The columns without those that a terminal of that width has no room for."""
    kept = list(columns)
    while not _fit([column.wanted for column in kept], terminal) and (last := _last(kept)).rank > _WANTED:
        kept.remove(last)
    while not _fit([column.least for column in kept], terminal) and (last := _last(kept)).rank > 0:
        kept.remove(last)
    return kept


def _last(columns: Sequence[Column]) -> Column:
    return max(columns, key=lambda column: column.rank)


def _fit(widths: Sequence[int], terminal: int) -> bool:
    return sum(widths) + _GAP * (len(widths) - 1) <= terminal


def _widths(columns: Sequence[Column], terminal: int | None) -> list[int]:
    """How wide each column may be: the widest are cut to one common width, none below its least."""
    if terminal is None:
        return [column.natural for column in columns]
    least, wanted = [column.least for column in columns], [column.wanted for column in columns]
    floors = wanted if _fit(wanted, terminal) else least
    for most in range(terminal, 0, -1):
        widths = [max(floor, min(column.natural, most)) for column, floor in zip(columns, floors, strict=True)]
        if _fit(widths, terminal):
            return widths
    return floors


def _lay_out(columns: Sequence[Column], sheet: Table, style: Style) -> str:
    shown = []
    for column, most in zip(columns, _widths(columns, style.width), strict=True):
        title, *cells = (truncate(cell, most) for cell in column.cells)
        rule = "-" * max(map(display_width, (title, *cells)))
        if style.color and column.title == sheet.colored:
            cells = [click.style(cell, fg=color) for cell, color in zip(cells, sheet.colors, strict=True)]
        shown.append((title, rule, *cells))
    return _aligned(zip(*shown, strict=True), [column.align for column in columns])


def _aligned(lines: Iterable[Sequence[str]], aligns: Sequence[Align]) -> str:
    """Have `tabulate` align the cells by the columns that they take on a terminal.

    It counts characters, so it is given as many as there are columns. Titles and rule are lines like any other,
    because it makes a column two wider than a title that it knows of.
    """
    taken: list[str] = []
    cells = [[_stand_in(cell, taken) for cell in line] for line in lines]
    laid_out = tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=aligns)
    back = iter(taken)
    return _STOOD_IN.sub(lambda _: next(back), laid_out)


def _stand_in(cell: str, taken: list[str]) -> str:
    """The cell with a stand-in for each cluster that is not ASCII; those are appended to `taken`, in order."""
    if cell.isascii():
        return cell
    pieces = []
    for cluster in grapheme_clusters(cell):
        if cluster.isascii():
            pieces.append(cluster)
        else:
            taken.append(cluster)
            pieces.append(_STAND_IN + _FILLER * (display_width(cluster) - 1))
    return "".join(pieces)
