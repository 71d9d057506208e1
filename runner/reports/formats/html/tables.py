"""Tables as HTML: the one of all jobs, which the page's script sorts and filters, and small ones beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from runner.reports.formats.html.formatting import clock, count, number, text
from runner.reports.formats.html.model import Kind, Length, Mark, PageTable, Row, Value

_CLASSES: Mapping[Kind, str] = {
    "id": ' class="id"',
    "message": ' class="message"',
    "number": ' class="num"',
    "time": ' class="time"',
    "length": ' class="num"',
}
_NUMERIC: Mapping[Kind, str] = {kind: look for kind, look in _CLASSES.items() if kind in ("number", "length")}
# How wide the columns of the table of all jobs are, in `em`: they stay so whichever rows are shown.
_WIDTHS: Mapping[Kind, float] = {
    "name": 12,
    "choice": 9.5,
    "mark": 10,
    "id": 12.5,
    "text": 9,
    "message": 17,
    "number": 7.5,
    "time": 8.5,
    "length": 7,
    "labels": 10,
}
_MOST_OPEN = 20  # rows of a small table
_DATED = 11.5  # of a column of times with their days
_SIGNS = {"'": "\\27 ", '"': "\\22 ", "\\": "\\5c "}


def jobs(table: PageTable) -> Iterator[str]:
    """The table of all jobs, line by line. What the script works is hidden where there is none."""
    yield f'<section><h2 id="jobs" tabindex="-1">{text(table.caption)}</h2>'
    yield from _controls(table)
    yield '<div class="scroll" role="region" aria-labelledby="jobs" tabindex="0">'
    yield from _table(table, "jobs")
    yield "</div>"
    yield '<nav class="pager" aria-label="Pages of the table" hidden>'
    for name, words in (("first", "First"), ("previous", "Previous")):
        yield f'<button type="button" data-page="{name}">{words}</button>'
    yield '<span id="page"></span>'
    for name, words in (("next", "Next"), ("last", "Last")):
        yield f'<button type="button" data-page="{name}">{words}</button>'
    yield "</nav></section>"


def small(table: PageTable) -> Iterator[str]:
    """A table under its title; one that is long is folded."""
    if len(table.rows) <= _MOST_OPEN:
        yield f'<section class="card"><h2>{text(table.caption)}</h2>'
        yield from _table(table, "plain")
        yield "</section>"
    else:
        rows = count(len(table.rows), "row", "rows")
        yield f'<details class="card about"><summary><h2>{text(table.caption)}</h2> {rows}</summary>'
        yield from _table(table, "plain")
        yield "</details>"


def style(table: PageTable) -> str:
    """The style of the columns of the table of all jobs.

    It says how wide each is, and, where a screen is too narrow for columns, writes its title before each of its cells.
    """
    dated = _on_several_days(table.rows)
    widths = [_DATED if dated and one.kind == "time" else _WIDTHS[one.kind] for one in table.columns]
    columns = "".join(f".jobs col:nth-child({place}){{width:{wide}em}}" for place, wide in enumerate(widths, 1))
    titles = "".join(
        f'.jobs td:nth-child({place}):before{{content:"{_css(column.title)}"}}'
        for place, column in enumerate(table.columns, 1)
        if column.kind != "name"
    )
    wide = f"@media screen and (min-width:46.01rem){{.jobs{{min-width:{sum(widths)}em}}}}"
    return f"{columns}{wide}@media screen and (max-width:46rem){{{titles}}}"


def _controls(table: PageTable) -> Iterator[str]:
    yield '<div class="controls" hidden>'
    yield '<div class="search"><label for="filter">Filter</label>'
    yield (
        '<input id="filter" type="search" autocomplete="off" spellcheck="false" placeholder="words, anywhere in a row" '
        'aria-describedby="filter-hint">'
    )
    yield '<span id="filter-hint" class="unseen">Rows are shown that have each of these words somewhere.</span></div>'
    if len([one for one in table.choices if one.count]) > 1:
        yield f'<div class="choices" role="group" aria-label="Show only this {text(table.grouped)}">'
        for place, one in enumerate(table.choices):
            if one.count:
                yield (
                    f'<button type="button" class="mark {one.tone}" data-choice="{place}" aria-pressed="false">'
                    f"{text(one.word)} <b>{number(one.count)}</b></button>"
                )
        yield "</div>"
    yield "</div>"
    yield f'<p id="shown" role="status">{count(len(table.rows), "row", "rows")}</p>'


def _table(table: PageTable, look: str) -> Iterator[str]:
    yield f'<table class="{look}"><caption class="unseen">{text(table.caption)}</caption>'
    yield f"<colgroup>{'<col>' * len(table.columns)}</colgroup>"
    heads = "".join(
        f'<th scope="col" data-kind="{one.kind}"{_NUMERIC.get(one.kind, "")}>{text(one.title)}</th>'
        for one in table.columns
    )
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    kinds = tuple(one.kind for one in table.columns)
    dated = _on_several_days(table.rows)
    for row in table.rows:
        yield _row(kinds, row, dated=dated)
    yield "</tbody></table>"


def _on_several_days(rows: Sequence[Row]) -> bool:
    """Whether the day has to be said with each time."""
    days = {value.astimezone(UTC).date() for row in rows for value in row.values if isinstance(value, datetime)}
    return len(days) > 1


def _row(kinds: tuple[Kind, ...], row: Row, *, dated: bool) -> str:
    cells = "".join(_cell(kind, value, dated=dated) for kind, value in zip(kinds, row.values, strict=True))
    return f'<tr data-choice="{row.choice}">{cells}</tr>'


def _cell(kind: Kind, value: Value, *, dated: bool) -> str:
    if kind == "name":
        return f'<th scope="row">{_shown(value, dated=dated)}</th>'
    if isinstance(value, Length):
        by = "" if value.seconds is None else f' data-value="{value.seconds:.3f}"'
        return f'<td class="num"{by}>{text(value.words)}</td>'
    return f"<td{_CLASSES.get(kind, '')}>{_shown(value, dated=dated)}</td>"


def _shown(value: Value, *, dated: bool) -> str:
    match value:
        case datetime():
            return clock(value, dated=dated)
        case str() | None:
            return text(value or "")
        case int():
            return number(value)
        case Mark():
            remarks = "".join(f" <small>{text(one)}</small>" for one in value.remarks)
            return f'<span class="mark {value.tone}">{text(value.word)}</span>{remarks}'
        case Length():
            return text(value.words)
        case _:
            return " ".join(f'<span class="label">{text(f"{key}: {one}")}</span>' for key, one in value.items())


def _css(title: str) -> str:
    """A title as the inside of a string in CSS."""
    return "".join(_SIGNS.get(sign, sign) for sign in title)
