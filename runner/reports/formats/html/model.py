"""The parts of an HTML page, whatever it reports on: totals, charts, details and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

# What a label means to a reader. Each tone has a color and a sign or a pattern: color alone carries no meaning.
Tone = Literal["good", "bad", "warn", "off", "busy", "idle"]
CellKind = Literal["name", "group", "badge", "id", "text", "message", "number", "time", "duration", "labels"]


@dataclass(frozen=True, slots=True)
class Badge:
    """A label highlighted by its tone, and remarks beside it."""

    label: str
    tone: Tone
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time: as text, and in seconds to sort by where they are known."""

    text: str
    seconds: float | None = None


Value = str | int | datetime | Badge | Duration | Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. At most one is of kind `name`, and one of kind `group`: the badges of the table's groups."""

    title: str
    kind: CellKind


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs that have something in common, and how many there are: rows that can be shown alone, a series of a chart."""

    label: str
    tone: Tone
    count: int


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table. `row_groups` has the index of each row's group; `group_title` says what the groups are (`outcome`)."""

    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[tuple[Value, ...]]
    groups: tuple[Group, ...] = ()
    row_groups: Sequence[int] = ()
    group_title: str = ""


def build_table(
    caption: str,
    columns: Mapping[Column, Sequence[Value]],
    groups: tuple[Group, ...] = (),
    row_groups: Sequence[int] = (),
    group_title: str = "",
) -> PageTable:
    """Build a table from its columns, without those that are empty."""
    shown = {
        column: values
        for column, values in columns.items()
        if column.kind == "name" or any(value or value == 0 for value in values)
    }
    rows = list(zip(*shown.values(), strict=True))
    return PageTable(caption, tuple(shown), rows, groups, row_groups, group_title)


@dataclass(frozen=True, slots=True)
class Total:
    """A number at the top of the page."""

    title: str
    value: str
    detail: str = ""
    tone: Tone | None = None


@dataclass(frozen=True, slots=True)
class BarChart:
    """Counts of each series over time: one tuple of counts per step.

    `start` and `step` are in microseconds, `start` since 1970 in UTC: a step may begin in a year that `datetime` does
    not have. `cumulative`: the counts are the state at the end of each step, not what happened in it.
    """

    title: str
    start: int
    step: int
    series: tuple[Group, ...]
    counts: tuple[tuple[int, ...], ...]
    cumulative: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class TimelineBar:
    """A job over time. `started_at` is when it left the queue, where that is known.

    A job that still waits has not started by `ended_at`, which is then the time of the last look.
    """

    name: str
    status: Badge
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime
    is_over: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """Jobs over time, one per line."""

    title: str
    bars: tuple[TimelineBar, ...]
    note: str = ""


Fact = str | Badge | datetime | None


@dataclass(frozen=True, slots=True)
class Details:
    """Facts about one run or manifest, by title. A fact that is None is left out."""

    title: str
    summary: str
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page. `kind` is the kind of report, `headline` its result in one sentence, `generator` the program."""

    kind: str
    title: str
    badges: tuple[Badge, ...] = ()
    headline: str
    totals: tuple[Total, ...]
    notes: tuple[str, ...] = ()
    charts: tuple[BarChart | Timeline, ...] = ()
    tables: tuple[PageTable, ...] = ()
    details: tuple[Details, ...]
    jobs: PageTable
    generator: str
