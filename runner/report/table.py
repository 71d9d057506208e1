"""The table for a terminal: aligned columns, cut to the terminal's width, and the totals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import click
from tabulate import tabulate

from runner.model import Record
from runner.report.rows import Row, Word, listed, notes, times_format
from runner.report.style import Style
from runner.text import clusters, cut, width

_GAP = 2

_COLORS: Mapping[Word, str] = {"created": "green", "failed": "red", "in doubt": "yellow", "skipped": "cyan"}

# Stand-ins for a character that is not ASCII, one for each column that it takes. `visible` lets neither through.
_STAND_IN, _FILLER = "\ue000", "\ue001"
_STOOD_IN = re.compile(f"{_STAND_IN}{_FILLER}*")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its title over its cells, the width of the widest, and the width below which it tells nothing.

    `rank` says what to leave out first on a narrow terminal: the highest. Rank 0 is never left out.
    """

    cells: tuple[str, ...]
    natural: int
    least: int
    rank: int
    align: str

    @property
    def title(self) -> str:
        return self.cells[0]


def report(record: Record, style: Style) -> str:
    """The record as a table and the totals, without the last line's end."""
    rows = listed(record, style)
    lines = notes(record, rows)
    if not rows:
        return "\n".join(lines)
    columns = _columns(rows)
    kept = columns if style.width is None else _that_fit(columns, style.width)
    if len(kept) < len(columns):
        left_out = (column.title for column in columns if column not in kept)
        lines.append(f"not shown on a terminal this narrow: {', '.join(left_out)}")
    return "\n".join([_lay_out(kept, rows, style), "", *lines])


def _columns(rows: Sequence[Row]) -> list[_Column]:
    times = times_format(row.sent_at for row in rows)
    sent = [row.sent_at.strftime(times) if row.sent_at else "" for row in rows]
    costs = ["" if row.cost is None else str(row.cost) for row in rows]
    return [
        _column("job", [row.name for row in rows], least=8, rank=0),
        _column("workflow", [row.workflow for row in rows], least=9, rank=2),
        _column("project", [row.project for row in rows], least=9, rank=3),
        _column("outcome", [row.outcome for row in rows], least=8, rank=0),
        _column("job id or error", [row.detail for row in rows], least=16, rank=1),
        _column("cost", costs, least=6, rank=4, align="right"),
        _column("sent (UTC)", sent, least=19, rank=5),
    ]


def _column(title: str, cells: Sequence[str], *, least: int, rank: int, align: str = "left") -> _Column:
    under_title = (title, *cells)
    natural = max(map(width, under_title))
    return _Column(under_title, natural, min(natural, least), rank, align)


def _that_fit(columns: Sequence[_Column], terminal: int) -> list[_Column]:
    """The columns without those that a terminal of that width has no room for."""
    kept = list(columns)
    while sum(column.least + _GAP for column in kept) - _GAP > terminal:
        last = max(kept, key=lambda column: column.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    return kept


def _widths(columns: Sequence[_Column], terminal: int | None) -> list[int]:
    """How wide each column may be: the widest are cut to one common width, none below its least."""
    if terminal is None:
        return [column.natural for column in columns]
    room = terminal - _GAP * (len(columns) - 1)
    for most in range(room, 0, -1):
        widths = [max(column.least, min(column.natural, most)) for column in columns]
        if sum(widths) <= room:
            return widths
    return [column.least for column in columns]


def _lay_out(columns: Sequence[_Column], rows: Sequence[Row], style: Style) -> str:
    shown = []
    for column, most in zip(columns, _widths(columns, style.width), strict=True):
        title, *cells = (cut(cell, most) for cell in column.cells)
        rule = "-" * max(map(width, (title, *cells)))
        if style.color and column.title == "outcome":
            cells = [_colored(cell, row.word) for cell, row in zip(cells, rows, strict=True)]
        shown.append((title, rule, *cells))
    return _aligned(zip(*shown, strict=True), [column.align for column in columns])


def _aligned(lines: Iterable[Sequence[str]], aligns: Sequence[str]) -> str:
    """Have `tabulate` align the cells by the columns that they take on a terminal.

    It counts characters, so it is given as many as there are columns. Titles and rule are lines like any other,
    because it makes a column two wider than a title that it knows of.
    """
    taken: list[str] = []
    cells = [[_stand_in(cell, taken) for cell in line] for line in lines]
    text = tabulate(cells, tablefmt="plain", disable_numparse=True, colalign=aligns)
    back = iter(taken)
    return _STOOD_IN.sub(lambda _: next(back), text)


def _stand_in(cell: str, taken: list[str]) -> str:
    """The cell with a stand-in for each cluster that is not ASCII; those are appended to `taken`, in order."""
    if cell.isascii():
        return cell
    pieces = []
    for cluster in clusters(cell):
        if cluster.isascii():
            pieces.append(cluster)
        else:
            taken.append(cluster)
            pieces.append(_STAND_IN + _FILLER * (width(cluster) - 1))
    return "".join(pieces)


def _colored(cell: str, word: Word) -> str:
    return click.style(cell, fg=_COLORS[word])
