"""What a page of HTML is made of, whatever it is about: figures, charts, facts and tables, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

# What a word means for a person: each has a colour, and a sign or a pattern, so that it is never told by colour alone.
Tone = Literal["good", "bad", "warn", "off", "busy", "idle"]
Kind = Literal["name", "choice", "mark", "id", "text", "message", "number", "time", "length", "labels"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A word that stands out by its tone, and what else there is to say of it."""

    word: str
    tone: Tone
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Length:
    """A length of time: in seconds, by which it is sorted, and in words."""

    seconds: float | None
    words: str


Value = str | int | datetime | Mark | Length | Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, and what kind of values it has.

    Of kind `name` there is one at most, and of kind `choice` too: the marks that a table's choices are of.
    """

    title: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: a value for each column, and the place of the choice that it belongs to."""

    values: tuple[Value, ...]
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """A group of rows that may be shown alone, and how many there are."""

    word: str
    tone: Tone
    count: int


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table. `caption` says what it lists, `grouped` what its choices are of (`outcome`)."""

    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Row]
    grouped: str = ""
    choices: tuple[Choice, ...] = ()


def table(
    caption: str,
    columns: Mapping[Column, Sequence[Value]],
    places: Sequence[int],
    grouped: str,
    choices: tuple[Choice, ...],
) -> PageTable:
    """A table of columns, of which those are left out that have nothing in them. `places` has each row's choice."""
    kept = {one: values for one, values in columns.items() if one.kind == "name" or any(_is_told(v) for v in values)}
    rows = [Row(values, place) for values, place in zip(zip(*kept.values(), strict=True), places, strict=True)]
    return PageTable(caption, tuple(kept), rows, grouped, choices)


def _is_told(value: Value) -> bool:
    return value == 0 or bool(value)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number at the top of the page, in words, with what it is of and what there is to say of it."""

    title: str
    value: str
    detail: str = ""
    tone: Tone | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One of the things that a chart counts."""

    word: str
    tone: Tone
    total: int


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts over time: from `start`, in steps of `step` microseconds, of each series.

    Times are microseconds since 1970 in UTC, as a step's edge may lie in no year that Python has. `running`: the counts
    are of what is so at the end of each step, and not of what happened in it.
    """

    title: str
    start: int
    step: int
    series: tuple[Series, ...]
    counts: tuple[tuple[int, ...], ...]
    running: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A job over time, which may be still going on. `began_at` is when work on it began, where that is known.

    A job that still waits begins when it ends, for all that is known.
    """

    name: str
    mark: Mark
    created_at: datetime
    began_at: datetime | None
    ended_at: datetime
    is_over: bool


@dataclass(frozen=True, slots=True)
class Spans:
    """Jobs over time, one a line."""

    title: str
    spans: tuple[Span, ...]
    note: str = ""


Fact = tuple[str, str | Mark | datetime | None]


@dataclass(frozen=True, slots=True)
class About:
    """What is to be said of one run or manifest. A fact without a value is left out."""

    title: str
    summary: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page. `subject` says what kind of report it is; `verdict` is what it comes to, in a sentence."""

    subject: str
    title: str
    marks: tuple[Mark, ...]
    verdict: str
    figures: tuple[Figure, ...]
    abouts: tuple[About, ...]
    jobs: PageTable
    charts: tuple[Bars | Spans, ...] = ()
    tables: tuple[PageTable, ...] = ()
    notes: tuple[str, ...] = ()
    made_by: str = field(kw_only=True)
