"""Events and jobs over time, counted for a chart in few enough steps to look at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate

from runner.reports.formats.html.formatting import DAY, HOUR, MINUTE, SECOND, format_count, to_microseconds
from runner.reports.formats.html.model import BarChart, Group, Timeline, TimelineBar

_MAX_STEPS = 60
_MAX_TIMELINE_BARS = 40

# Round lengths of a step in microseconds. Beyond the last one, it is doubled as often as needed.
_STEPS = (
    *(SECOND // 1000 * number for number in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(SECOND * number for number in (1, 2, 5, 10, 15, 30)),
    *(MINUTE * number for number in (1, 2, 5, 10, 15, 30)),
    *(HOUR * number for number in (1, 2, 3, 6, 12)),
    *(DAY * number for number in (1, 2, 7, 14, 28)),
)


def chart_events(
    title: str, events: Sequence[tuple[datetime, int]], series: Sequence[Group], note: str = ""
) -> BarChart | None:
    """Count the events of each series in each step. An event is a time and the index of its series.

    Returns:
        None if there are no events.
    """
    if not events:
        return None
    times = [to_microseconds(time) for time, _ in events]
    start, step, steps = _divide(min(times), max(times))
    counts = [[0] * len(series) for _ in range(steps)]
    for time, (_, index) in zip(times, events, strict=True):
        counts[(time - start) // step][index] += 1
    return BarChart(title, start, step, *_drop_unused(series, counts), note=note)


def chart_jobs(
    title: str, jobs: Sequence[tuple[TimelineBar, int]], series: Sequence[Group], note: str = ""
) -> BarChart | Timeline | None:
    """Show jobs over time: one per line, or, if there are many, the number in each state at the end of each step.

    A job comes with the index of the series that it ends in; until then it counts for the last one.

    Returns:
        None if there are no jobs.
    """
    if not jobs:
        return None
    if len(jobs) <= _MAX_TIMELINE_BARS:
        return Timeline(title, tuple(sorted((bar for bar, _ in jobs), key=lambda bar: bar.created_at)), note)
    created = [to_microseconds(bar.created_at) for bar, _ in jobs]
    ended = [max(to_microseconds(bar.ended_at), start) for (bar, _), start in zip(jobs, created, strict=True)]
    start, step, steps = _divide(min(created), max(ended))
    changes = [[0] * len(series) for _ in range(steps)]
    for (bar, index), created_at, ended_at in zip(jobs, created, ended, strict=True):
        changes[(created_at - start) // step][-1] += 1
        if bar.is_over:
            changes[(ended_at - start) // step][-1] -= 1
            changes[(ended_at - start) // step][index] += 1
    counts = list(zip(*(accumulate(column) for column in zip(*changes, strict=True)), strict=True))
    return BarChart(title, start, step, *_drop_unused(series, counts), cumulative=True, note=note)


def note_hidden(number: int, reason: str) -> str:
    """The note that some jobs are not in a chart; empty if all are."""
    return f"{format_count(number, 'job is', 'jobs are')} not shown: {reason}" if number else ""


def _drop_unused(
    series: Sequence[Group], counts: Sequence[Sequence[int]]
) -> tuple[tuple[Group, ...], tuple[tuple[int, ...], ...]]:
    """The series that count anything, and their counts."""
    used = [index for index in range(len(series)) if any(row[index] for row in counts)]
    return tuple(series[index] for index in used), tuple(tuple(row[index] for index in used) for row in counts)


def _divide(first: int, last: int) -> tuple[int, int, int]:
    """Where the first step begins, how long a step is, and how many there are."""
    step = next((step for step in _STEPS if _count_steps(first, last, step) <= _MAX_STEPS), _STEPS[-1])
    while _count_steps(first, last, step) > _MAX_STEPS:
        step *= 2
    return first // step * step, step, _count_steps(first, last, step)


def _count_steps(first: int, last: int, step: int) -> int:
    return last // step - first // step + 1
