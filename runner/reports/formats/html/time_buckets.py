"""What happened when, as counts for a chart: few enough steps to look at, however many jobs there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import accumulate

from runner.reports.formats.html.formatting import DAY, HOUR, MINUTE, SECOND, count, micros
from runner.reports.formats.html.model import Bars, Series, Span, Spans

_MOST_STEPS = 60
_MOST_SPANS = 40  # lines that a person would look at one by one

# Microseconds that a person would choose; beyond them, the double again and again.
_STEPS = (
    *(SECOND // 1000 * few for few in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(SECOND * few for few in (1, 2, 5, 10, 15, 30)),
    *(MINUTE * few for few in (1, 2, 5, 10, 15, 30)),
    *(HOUR * few for few in (1, 2, 3, 6, 12)),
    *(DAY * few for few in (1, 2, 7, 14, 28)),
)


def happenings(
    title: str, points: Sequence[tuple[datetime, int]], series: Sequence[Series], note: str = ""
) -> Bars | None:
    """How many of each series happened in each step; None where nothing did. A point is a time and a series' place."""
    if not points:
        return None
    times = [micros(time) for time, _ in points]
    start, step, steps = _divided(min(times), max(times))
    counts = [[0] * len(series) for _ in range(steps)]
    for time, (_, place) in zip(times, points, strict=True):
        counts[(time - start) // step][place] += 1
    return _bars(title, start, step, series, counts, note=note)


def jobs(
    title: str, spans: Sequence[tuple[Span, int]], series: Sequence[Series], note: str = ""
) -> Bars | Spans | None:
    """Jobs over time: each on a line, or, where those are many, how many were how far at the end of each step.

    A span comes with the place of the series that it ends in; until then it is in the last one.
    """
    if not spans:
        return None
    if len(spans) <= _MOST_SPANS:
        return Spans(title, tuple(sorted((one for one, _ in spans), key=lambda one: one.created_at)), note)
    return _running(title, spans, series, note)


def _running(title: str, spans: Sequence[tuple[Span, int]], series: Sequence[Series], note: str) -> Bars:
    ends = [max(micros(one.ended_at), micros(one.created_at)) for one, _ in spans]
    start, step, steps = _divided(min(micros(one.created_at) for one, _ in spans), max(ends))
    changes = [[0] * len(series) for _ in range(steps)]
    going = len(series) - 1
    for end, (one, place) in zip(ends, spans, strict=True):
        changes[(micros(one.created_at) - start) // step][going] += 1
        if one.is_over:
            changes[(end - start) // step][going] -= 1
            changes[(end - start) // step][place] += 1
    totals = [list(accumulate(column)) for column in zip(*changes, strict=True)]
    return _bars(title, start, step, series, zip(*totals, strict=True), running=True, note=note)


def _bars(
    title: str,
    start: int,
    step: int,
    series: Sequence[Series],
    counts: Iterable[Sequence[int]],
    *,
    running: bool = False,
    note: str = "",
) -> Bars:
    """The bars of those series that there is any of."""
    table = list(counts)
    kept = [place for place in range(len(series)) if any(row[place] for row in table)]
    return Bars(
        title,
        start,
        step,
        tuple(series[place] for place in kept),
        tuple(tuple(row[place] for place in kept) for row in table),
        running,
        note,
    )


def left_out(number: int, why: str) -> str:
    """The note that some jobs are not in a chart; empty where all are."""
    return f"{count(number, 'job is', 'jobs are')} not shown: {why}" if number else ""


def _divided(first: int, last: int) -> tuple[int, int, int]:
    """Where the first step begins, how long a step is, and how many there are."""
    step = next((one for one in _STEPS if _steps(first, last, one) <= _MOST_STEPS), _STEPS[-1])
    while _steps(first, last, step) > _MOST_STEPS:
        step *= 2
    return first // step * step, step, _steps(first, last, step)


def _steps(first: int, last: int, step: int) -> int:
    return last // step - first // step + 1
