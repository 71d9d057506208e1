"""What tables are made of, whoever lays them out: columns of words that are fit to show, and the notes under them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from runner.core.text import display_width

Align = Literal["left", "right"]

_JOB_ID = 36  # columns of a UUID: a job's id that is cut short is of no use


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title over its cells, the width of the widest, and the width below which it tells nothing.

    `wanted` is the width for which others are left out sooner. `rank` says what to leave out first on a narrow
    terminal: the highest. Rank 0 is never left out.
    """

    cells: tuple[str, ...]
    natural: int
    least: int
    wanted: int
    rank: int
    align: Align

    @property
    def title(self) -> str:
        """What stands above it."""
        return self.cells[0]


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns, the colour that each row has in the column called `colored`, and the lines under it."""

    columns: tuple[Column, ...]
    colored: str
    colors: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells row by row, without the titles."""
        return list(zip(*(column.cells[1:] for column in self.columns), strict=True))


def column(title: str, cells: Iterable[str], *, least: int, rank: int, align: Align = "left") -> Column:
    """A column of these cells. `least` is its smallest useful width."""
    return _column((title, *cells), least, least, rank, align)


def job_ids(title: str, cells: Iterable[str], *, rank: int) -> Column:
    """A column of job ids, which are shown whole as long as anything else can be left out."""
    return _column((title, *cells), 16, _JOB_ID, rank, "left")


def _column(cells: tuple[str, ...], least: int, wanted: int, rank: int, align: Align) -> Column:
    natural = max(map(display_width, cells))
    return Column(cells, natural, min(natural, least), min(natural, wanted), rank, align)


def numbers(title: str, values: Iterable[int | None], *, rank: int) -> Column:
    """A column of whole numbers, which are never cut short by much; blank where there is none."""
    return column(title, ("" if one is None else str(one) for one in values), least=6, rank=rank, align="right")


def times(title: str, values: Sequence[datetime | None], *, rank: int) -> Column:
    """A column of times in UTC: without the date when all are of one day."""
    days = {time.date() for time in values if time}
    shown = "%H:%M:%S" if len(days) <= 1 else "%Y-%m-%d %H:%M:%S"
    return column(title, (time.strftime(shown) if time else "" for time in values), least=19, rank=rank)


def count(number: int, one: str, more: str) -> str:
    """A number and its noun."""
    return f"{number} {one if number == 1 else more}"


class JsonCell(str):
    """A cell that is JSON in ASCII: nothing in it is taken for a formula, and it stays JSON."""

    __slots__ = ()


def json_cell(value: Any) -> JsonCell:
    """A cell that holds a value as JSON."""
    # `#` only ever stands inside a string there: its escape keeps this JSON, and keeps `##[` from a CI log.
    return JsonCell(json.dumps(value).replace("#", "\\u0023"))
