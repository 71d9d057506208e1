"""Tables as HTML: the table of all jobs, which the page's script sorts and filters, and the small ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from runner.reports.formats.html.formatting import escape_html, format_count, format_number, format_time
from runner.reports.formats.html.model import Badge, CellKind, Duration, PageTable, Value

_STYLED_KINDS = ("id", "message", "number", "time", "duration")  # those that `page.css` has a class for

# The widths of the jobs table's columns in `em`, fixed so that they do not depend on the rows shown.
_WIDTHS: Mapping[CellKind, float] = {
    "name": 12,
    "group": 10.5,
    "badge": 10.5,
    "id": 12.5,
    "text": 9,
    "message": 17,
    "number": 7.5,
    "time": 8.5,
    "duration": 8,
    "labels": 10,
}
_DATED_WIDTH = 11.5  # of a column of times with dates
_MAX_UNFOLDED = 20  # rows of a small table


def render_small_table(table: PageTable) -> Iterator[str]:
    """A table with its title, folded if it is long."""
    title = f"<h2>{escape_html(table.caption)}</h2>"
    is_folded = len(table.rows) > _MAX_UNFOLDED
    if is_folded:
        rows = format_count(len(table.rows), "row", "rows")
        yield f'<details class="card about"><summary>{title} {rows}</summary>'
    else:
        yield f'<section class="card">{title}'
    yield from render_table(table, "plain")
    yield "</details>" if is_folded else "</section>"


def render_column_style(table: PageTable) -> str:
    """The CSS for the columns of the jobs table: their widths, and on a narrow screen the titles before the cells."""
    with_date = _has_several_dates(table.rows)
    widths = [_DATED_WIDTH if with_date and column.kind == "time" else _WIDTHS[column.kind] for column in table.columns]
    columns = "".join(f".jobs col:nth-child({place}){{width:{width}em}}" for place, width in enumerate(widths, 1))
    titles = "".join(
        f'.jobs td:nth-child({place}):before{{content:"{column.title}"}}'
        for place, column in enumerate(table.columns, 1)
        if column.kind != "name"
    )
    wide = f"@media screen and (min-width:46.01rem){{.jobs{{min-width:{sum(widths)}em}}}}"
    return f"{columns}{wide}@media screen and (max-width:46rem){{{titles}}}"


def render_group_buttons(table: PageTable) -> Iterator[str]:
    """The buttons that show only some groups of rows, if there are several groups."""
    if sum(group.count > 0 for group in table.groups) > 1:
        yield f'<div class="groups" role="group" aria-label="Filter by {escape_html(table.group_title)}">'
        for index, group in enumerate(table.groups):
            if group.count:
                yield (
                    f'<button type="button" class="badge {group.tone}" data-group="{index}" aria-pressed="false">'
                    f"{escape_html(group.label)} <b>{format_number(group.count)}</b></button>"
                )
        yield "</div>"


def render_table(table: PageTable, css_class: str) -> Iterator[str]:
    """A table, line by line."""
    yield f'<table class="{css_class}"><caption class="visually-hidden">{escape_html(table.caption)}</caption>'
    heads = "".join(
        f'<th scope="col" data-kind="{column.kind}">{escape_html(column.title)}</th>' for column in table.columns
    )
    yield f"<colgroup>{'<col>' * len(table.columns)}</colgroup>"
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    kinds = tuple(column.kind for column in table.columns)
    with_date = _has_several_dates(table.rows)
    for index, row in enumerate(table.rows):
        group = f' data-group="{table.row_groups[index]}"' if table.row_groups else ""
        cells = "".join(_render_cell(kind, value, with_date=with_date) for kind, value in zip(kinds, row, strict=True))
        yield f"<tr{group}>{cells}</tr>"
    yield "</tbody></table>"


def _has_several_dates(rows: Sequence[tuple[Value, ...]]) -> bool:
    dates = {value.astimezone(UTC).date() for row in rows for value in row if isinstance(value, datetime)}
    return len(dates) > 1


def _render_cell(kind: CellKind, value: Value, *, with_date: bool) -> str:
    content = _render_value(value, with_date=with_date)
    if kind == "name":
        return f'<th scope="row">{content}</th>'
    sort_key = f' data-value="{value.seconds:.3f}"' if isinstance(value, Duration) and value.seconds is not None else ""
    css_class = f' class="{kind}"' if kind in _STYLED_KINDS else ""
    return f"<td{css_class}{sort_key}>{content}</td>"


def _render_value(value: Value, *, with_date: bool) -> str:
    match value:
        case str() | None:
            return escape_html(value or "")
        case datetime():
            return format_time(value, with_date=with_date)
        case int():
            return format_number(value)
        case Badge():
            remarks = "".join(f" <small>{escape_html(remark)}</small>" for remark in value.remarks)
            return f'<span class="badge {value.tone}">{escape_html(value.label)}</span>{remarks}'
        case Duration():
            return escape_html(value.text)
        case _:
            labels = (f"{name}: {text}" for name, text in value.items())
            return " ".join(f'<span class="label">{escape_html(label)}</span>' for label in labels)
