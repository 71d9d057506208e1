"""Charts as HTML: bars of counts, and jobs as lines. Each comes with its data as text, for readers without the picture.

Pictures are stretched to the available width, so all text stands around them, not in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from runner.reports.formats.html import tables
from runner.reports.formats.html.formatting import (
    DAY,
    SECOND,
    escape_html,
    format_count,
    format_duration,
    format_number,
    format_period,
    format_time,
    from_microseconds,
    seconds_between,
    to_microseconds,
)
from runner.reports.formats.html.model import BarChart, Column, Group, PageTable, Timeline, TimelineBar, Tone, Value

_BAR_WIDTH, _BAR_GAP, _BAR_HEIGHT = 10, 1, 100
_BAR_OVERLAP = 0.5  # hides the seams between bars that form one area
_MIN_BAR_HEIGHT = 2.0  # a single failure among thousands is still visible
_MIN_PEAK, _MIN_STEPS = 4, 12  # a few jobs do not fill the whole picture
_LINE_WIDTH = 1000  # of the picture that a timeline's bar or a share is part of
_MIN_LINE = 4.0  # a job that took no time is still visible
_MIN_SHARE = 8.0
_SHARE_GAP = 3
_TICKS = 4
_DATES_ONLY = 90 * DAY  # in a chart of this length, ticks have no time of day

_PICTURE = 'preserveAspectRatio="none" aria-hidden="true" focusable="false"'


def render_chart(chart: BarChart | Timeline) -> Iterator[str]:
    """A chart with its title, its legend and its data, line by line."""
    yield '<figure class="card chart">'
    yield f"<figcaption><h2>{escape_html(chart.title)}</h2>"
    yield from _render_bar_chart(chart) if isinstance(chart, BarChart) else _render_timeline(chart)
    yield "</figure>"


def render_shares(shares: Sequence[tuple[Tone, int]]) -> str:
    """One bar divided in proportion. It shows only what is written elsewhere."""
    total = sum(size for _, size in shares)
    drawn = [(tone, size) for tone, size in shares if size]
    available = _LINE_WIDTH - _MIN_SHARE * len(drawn)
    x, parts = 0.0, []
    for tone, size in drawn:
        width = _MIN_SHARE + available * size / total
        parts.append(f'<rect class="{tone}" x="{x:.1f}" width="{max(1, width - _SHARE_GAP):.1f}" height="10"/>')
        x += width
    return f'<svg class="shares" viewBox="0 0 {_LINE_WIDTH} 10" {_PICTURE}>{"".join(parts)}</svg>' if parts else ""


# Bar charts.


def _render_bar_chart(chart: BarChart) -> Iterator[str]:
    peak = max(map(sum, chart.counts))
    steps = max(_MIN_STEPS, len(chart.counts))
    step = _format_step(chart.step)
    summary = f"Jobs in each state, every {step}." if chart.cumulative else f"One bar is {step}; the peak is {peak:,}."
    yield f"<p>{summary}{_render_note(chart.note)}</p></figcaption>"
    yield from _render_legend(chart.series)
    top = max(peak, _MIN_PEAK)
    yield f'<div class="plot"><span class="peak" aria-hidden="true">{format_number(top)}</span>'
    yield (
        f'<svg class="bars" viewBox="0 0 {steps * _BAR_WIDTH} {_BAR_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape_html(chart.title)}: chart. The table below has the same data.">'
    )
    for index, counts in enumerate(chart.counts):
        if any(counts):
            yield _render_bar(chart, index, counts, top)
    yield "</svg></div>"
    yield _render_axis(chart.start, chart.start + steps * chart.step, milliseconds=chart.step < SECOND)
    yield "<details><summary>Show as a table</summary>"
    yield from tables.render_table(_build_data_table(chart), "plain")
    yield "</details>"


def _render_bar(chart: BarChart, index: int, counts: tuple[int, ...], top: int) -> str:
    text = ", ".join(
        f"{format_number(count)} {escape_html(series.label)}"
        for count, series in zip(counts, chart.series, strict=True)
        if count
    )
    width = _BAR_WIDTH + _BAR_OVERLAP if chart.cumulative else _BAR_WIDTH - _BAR_GAP
    min_height = 0.0 if chart.cumulative else _MIN_BAR_HEIGHT
    heights = [max(min_height, count / top * _BAR_HEIGHT) if count else 0.0 for count in counts]
    heights[heights.index(max(heights))] -= max(0.0, sum(heights) - _BAR_HEIGHT)  # make room for the minimum heights
    parts, y = [], float(_BAR_HEIGHT)
    for height, series in zip(heights, chart.series, strict=True):
        if height:
            y -= height
            parts.append(
                f'<rect class="{series.tone}" x="{index * _BAR_WIDTH}" y="{y:.1f}" width="{width}" '
                f'height="{height:.1f}"/>'
            )
    return f"<g><title>{_format_step_time(chart, index)}: {text}</title>{''.join(parts)}</g>"


def _build_data_table(chart: BarChart) -> PageTable:
    """The counts of a chart as a table."""
    columns = [Column(f"{'until' if chart.cumulative else 'from'} (UTC)", "name")]
    columns += [Column(series.label, "number") for series in chart.series]
    rows: list[tuple[Value, ...]] = [
        (_format_step_time(chart, index), *counts) for index, counts in enumerate(chart.counts) if any(counts)
    ]
    return PageTable(f"{chart.title}: data", tuple(columns), rows)


def _render_legend(all_series: Sequence[Group]) -> Iterator[str]:
    yield '<ul class="legend">'
    for series in all_series:
        yield (
            '<li><svg class="swatch" viewBox="0 0 14 14" aria-hidden="true" focusable="false">'
            f'<rect class="{series.tone}" width="14" height="14"/></svg>'
            f"{escape_html(series.label)} <b>{format_number(series.count)}</b></li>"
        )
    yield "</ul>"


def _format_step(step: int) -> str:
    """The length of a step, which is round: without units that are zero."""
    if step >= DAY:
        return format_count(step // DAY, "day", "days")
    return format_duration(step / SECOND).replace(".0 s", " s").replace(" 00 s", "").replace(" 00 min", "")


def _format_step_time(chart: BarChart, index: int) -> str:
    """The beginning of a step, or its end if the counts are of that time."""
    time = chart.start + (index + chart.cumulative) * chart.step
    milliseconds = _format_milliseconds(time) if chart.step < SECOND else ""
    return f"{format_time(from_microseconds(time))}{milliseconds}"


# Timelines.


def _render_timeline(chart: Timeline) -> Iterator[str]:
    start = min(bar.created_at for bar in chart.bars)
    end = max(max(bar.ended_at, bar.created_at) for bar in chart.bars)
    length = max(1, to_microseconds(end) - to_microseconds(start))
    note = _render_note(chart.note)
    yield f"<p>{format_period(start, end)}. A thin line is time in the queue, where known.{note}</p></figcaption>"
    yield f'<table class="timeline"><caption class="visually-hidden">{escape_html(chart.title)}</caption>'
    heads = "".join(f'<th scope="col">{title}</th>' for title in ("job", "period", "duration"))
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for bar in chart.bars:
        yield _render_timeline_row(bar, to_microseconds(start), length)
    axis_start = to_microseconds(start)
    axis = _render_axis(axis_start, axis_start + length, milliseconds=length < _TICKS * SECOND)
    yield f'</tbody><tfoot aria-hidden="true"><tr><td></td><td>{axis}</td><td></td></tr></tfoot></table>'


def _render_timeline_row(bar: TimelineBar, start: int, length: int) -> str:
    ended_at = max(bar.ended_at, bar.created_at)
    duration = format_duration(seconds_between(bar.created_at, ended_at))
    text = f"{duration}{'' if bar.is_over else ' so far'}, {escape_html(bar.status.label)}"
    return (
        f'<tr><th scope="row">{escape_html(bar.name)}</th><td><svg viewBox="0 0 {_LINE_WIDTH} 10" {_PICTURE}>'
        f"{_draw_line(bar, ended_at, start, length)}</svg>"
        f'<span class="visually-hidden">{format_period(bar.created_at, ended_at)}</span></td>'
        f'<td><span class="badge {bar.status.tone}">{text}</span></td></tr>'
    )


def _draw_line(bar: TimelineBar, ended_at: datetime, start: int, length: int) -> str:
    """The line of a job: thin while it was in the queue, then thick."""

    def position(time: datetime) -> float:
        return (to_microseconds(time) - start) / length * _LINE_WIDTH

    created, ended = position(bar.created_at), position(ended_at)
    started = min(ended, max(created, position(bar.started_at))) if bar.started_at else created
    queued = f'<rect class="wait" x="{created:.1f}" y="4" width="{started - created:.1f}" height="2"/>'
    x, width = min(started, _LINE_WIDTH - _MIN_LINE), max(_MIN_LINE, ended - started)
    running = f'<rect class="{bar.status.tone}" x="{x:.1f}" y="0" width="{width:.1f}" height="10"/>'
    is_still_queued = not bar.is_over and started == ended > created
    return (queued if started > created else "") + ("" if is_still_queued else running)


# Both.


def _render_note(note: str) -> str:
    return f" {escape_html(note)}." if note else ""


def _render_axis(start: int, end: int, *, milliseconds: bool) -> str:
    ticks = [start + (end - start) * index // _TICKS for index in range(_TICKS + 1)]
    items = "".join(f"<li>{_format_tick(tick, start, end, milliseconds=milliseconds)}</li>" for tick in ticks)
    return f'<ol class="axis" aria-hidden="true">{items}</ol>'


def _format_tick(tick: int, start: int, end: int, *, milliseconds: bool) -> str:
    date, time = format_time(from_microseconds(tick)).split(" ")
    if end - start >= _DATES_ONLY:
        return date
    if start // DAY != end // DAY:
        return f"{date[5:]} {time[:5]}"
    return f"{time}{_format_milliseconds(tick) if milliseconds else ''}"


def _format_milliseconds(microseconds: int) -> str:
    return f".{microseconds // (SECOND // 1000) % 1000:03}"
