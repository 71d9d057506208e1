"""Tables for people, before any layout: columns of printable cells, and the notes under them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

from runner.core.text import display_width, escape_unprintable
from runner.reports.style import Style

ROW_LIMIT = 1000  # a longer table hides what went wrong, and takes seconds to lay out

_Kind = Literal["text", "id", "number", "time"]
_T = TypeVar("_T")

_MIN_WIDTHS: Mapping[_Kind, int] = {"text": 9, "id": 16, "number": 6, "time": 19}
_UUID_WIDTH = 36  # a truncated id is of no use


@dataclass(frozen=True, slots=True)
class ColumnSpec(Generic[_T]):
    """A column of a table, and how to get its value from a row: a text, or, as `kind` says, a number or time or None.

    On a narrow terminal, columns of the highest `rank` are left out first, those of rank 0 never. With less than
    `min_width` the column is of no use; 0 is the default of its kind. Up to `preferred_width`, columns of higher rank
    are left out rather than this one truncated. `optional`: left out if all its cells are empty.
    """

    title: str
    get: Callable[[_T], Any]
    rank: int
    kind: _Kind = "text"
    min_width: int = 0
    preferred_width: int = 0
    optional: bool = False
    get_color: Callable[[_T], str] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its cells, which are printable, and their colors, if they have any.

    `width` is that of the widest cell or the title. Up to `preferred_width`, columns of higher rank are left out rather
    than this one truncated; it is never truncated below `min_width`.
    """

    spec: ColumnSpec[Any]
    cells: tuple[str, ...]
    colors: Sequence[str]
    width: int
    min_width: int
    preferred_width: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the lines under it, all printable."""

    columns: tuple[Column, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells row by row, without the titles."""
        return list(zip(*(column.cells for column in self.columns), strict=True))


_MANIFEST: ColumnSpec[str] = ColumnSpec("manifest", str, rank=3, min_width=8)


def build_table(
    specs: Sequence[ColumnSpec[_T]],
    rows: Iterable[tuple[str, _T]],
    style: Style,
    list_notes: Callable[[int], Iterable[str]],
) -> Table:
    """Build a table.

    Args:
        specs: its columns, without that of the manifest's name.
        rows: the manifest's name and the row. They are read one by one, as there may be 100,000.
        style: whether the manifests are named.
        list_notes: returns the notes for the number of rows.
    """
    manifests: list[str] = []
    values: list[list[Any]] = [[] for _ in specs]
    colors: list[list[str]] = [[] for _ in specs]
    for manifest, row in rows:
        manifests.append(manifest)
        for index, spec in enumerate(specs):
            values[index].append(spec.get(row))
            if spec.get_color:
                colors[index].append(spec.get_color(row))
    columns = [_build_column(*column) for column in zip(specs, values, colors, strict=True)]
    columns = [column for column in columns if not column.spec.optional or any(column.cells)]
    if style.several_manifests:
        columns.insert(0, _build_column(_MANIFEST, manifests, ()))
    return Table(tuple(columns), tuple(map(escape_unprintable, list_notes(len(manifests)))))


def _build_column(spec: ColumnSpec[Any], values: Sequence[Any], colors: Sequence[str]) -> Column:
    match spec.kind:
        case "number":
            cells = tuple("" if value is None else str(value) for value in values)
        case "time":
            cells = _format_times(values)
        case _:
            cells = tuple(map(escape_unprintable, values))
    width = max(map(display_width, (spec.title, *cells)))
    min_width = min(width, spec.min_width or _MIN_WIDTHS[spec.kind])
    preferred_width = max(min_width, min(width, spec.preferred_width or (_UUID_WIDTH if spec.kind == "id" else 0)))
    return Column(spec, cells, colors, width, min_width, preferred_width)


def _format_times(values: Sequence[datetime | None]) -> tuple[str, ...]:
    """Times in UTC, without the date if all are of one day."""
    times = [value and value.astimezone(UTC) for value in values]
    pattern = "%H:%M:%S" if len({time.date() for time in times if time}) <= 1 else "%Y-%m-%d %H:%M:%S"
    return tuple(time.strftime(pattern) if time else "" for time in times)


def lists_all(row_count: int, style: Style) -> bool:
    """Whether a table of so many rows lists all of them, and not only those that need attention."""
    return style.list_all or row_count <= ROW_LIMIT


def note_unlisted(jobs: str) -> str:
    """The note for jobs that a long table does not list."""
    return f"{jobs} are not listed; use --all to list every job"


def format_count(number: int, singular: str, plural: str) -> str:
    """A number and its noun."""
    return f"{number} {singular if number == 1 else plural}"
