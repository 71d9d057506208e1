"""Charts as HTML: bars of counts over time, and jobs as lines. The figures stand beside each, for who sees no picture.

A picture is stretched to the width there is, so what is written stands around it and not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from runner.reports.formats.html.formatting import (
    DAY,
    MINUTE,
    SECOND,
    clock,
    count,
    length,
    micros,
    moment,
    number,
    period,
    text,
)
from runner.reports.formats.html.model import Bars, Series, Span, Spans, Tone

_HEIGHT = 100
_WIDTH = 10  # of a bar, of which the gap is a part
_GAP = 1
_LEAST = 2.0  # of the height: a single failure among thousands is seen
_OVERLAP = 0.5  # of bars that make one area: else there are seams
_LEAST_PEAK = 4  # of the height: single jobs are no wall
_LEAST_STEPS = 12  # of the width: a bar that is alone is no wall
_LINE = 1000  # the width of a picture with a job in it
_SHORTEST = 4.0  # of the width: a job that took no time is seen
_TICKS = 4
_DATED = 90 * DAY  # of a chart: from here on the time of the day tells nothing

# Patterns, so that nobody needs to tell colours apart. `page.css` has their colours.
PATTERNS = (
    '<svg class="off-page" width="0" height="0" aria-hidden="true" focusable="false"><defs>'
    '<pattern id="hatched" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="5" height="5" class="under bad"/><rect width="2" height="5" class="over"/></pattern>'
    '<pattern id="dotted" width="5" height="5" patternUnits="userSpaceOnUse">'
    '<rect width="5" height="5" class="under warn"/><circle cx="2.5" cy="2.5" r="1.2" class="over"/></pattern>'
    '<pattern id="striped" width="4" height="4" patternUnits="userSpaceOnUse">'
    '<rect width="4" height="4" class="under off"/><rect width="4" height="1.5" class="over"/></pattern>'
    '<pattern id="checked" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6" class="under idle"/><rect width="3" height="3" class="over"/>'
    '<rect x="3" y="3" width="3" height="3" class="over"/></pattern>'
    "</defs></svg>"
)


def chart(made: Bars | Spans) -> Iterator[str]:
    """A chart with its title, its legend and its figures, line by line."""
    yield '<figure class="card chart">'
    yield f"<figcaption><h2>{text(made.title)}</h2>"
    if isinstance(made, Bars):
        yield from _bars(made)
    else:
        yield from _spans(made)
    yield "</figure>"


def shares(parts: list[tuple[Tone, int]]) -> str:
    """One bar that is divided as the whole is. It shows only what is written elsewhere."""
    whole = sum(size for _, size in parts)
    if not whole:
        return ""
    drawn, before = [], 0.0
    least = _LINE * 0.008
    room = _LINE - least * sum(1 for _, size in parts if size)
    for tone, size in parts:
        if size:
            wide = least + room * size / whole
            drawn.append(f'<rect class="{tone}" x="{before:.1f}" width="{max(1, wide - 3):.1f}" height="10"/>')
            before += wide
    return (
        f'<svg class="shares" viewBox="0 0 {_LINE} 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f"{''.join(drawn)}</svg>"
    )


def _bars(made: Bars) -> Iterator[str]:
    peak = max(map(sum, made.counts))
    steps = max(_LEAST_STEPS, len(made.counts))
    step = length(made.step / SECOND) if made.step < DAY else count(made.step // DAY, "day", "days")
    highest = f"Each bar is {_plain(step)}; the highest is {number(peak)}."
    said = f"How many jobs were so far, every {_plain(step)}." if made.running else highest
    note = f" {text(made.note)}." if made.note else ""
    yield f"<p>{said}{note}</p></figcaption>"
    yield from _legend(made.series)
    label = f"{text(made.title)}: a picture. Its figures are in the table below it."
    top = max(peak, _LEAST_PEAK)
    yield f'<div class="plot"><span class="peak" aria-hidden="true">{number(top)}</span>'
    yield (
        f'<svg class="bars" viewBox="0 0 {steps * _WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">'
    )
    for place, counts in enumerate(made.counts):
        if any(counts):
            yield _bar(made, place, counts, top)
    yield "</svg></div>"
    yield _axis(made.start, made.start + steps * made.step, fine=made.step < SECOND)
    yield from _figures(made)


def _bar(made: Bars, place: int, counts: tuple[int, ...], most: int) -> str:
    said = ", ".join(f"{number(many)} {text(one.word)}" for many, one in zip(counts, made.series, strict=True) if many)
    wide, least = (_WIDTH + _OVERLAP, 0.0) if made.running else (_WIDTH - _GAP, _LEAST)
    heights = [max(least, many / most * _HEIGHT) if many else 0.0 for many in counts]
    heights[heights.index(max(heights))] -= max(0.0, sum(heights) - _HEIGHT)  # what the least took, from the highest
    parts, top = [], float(_HEIGHT)
    for high, one in zip(heights, made.series, strict=True):
        if high:
            top -= high
            parts.append(
                f'<rect class="{one.tone}" x="{place * _WIDTH}" y="{top:.1f}" width="{wide}" height="{high:.1f}"/>'
            )
    return f"<g><title>{_when(made, place)}: {said}</title>{''.join(parts)}</g>"


def _figures(made: Bars) -> Iterator[str]:
    heads = "".join(f'<th scope="col" class="num">{text(one.word)}</th>' for one in made.series)
    yield "<details><summary>The same in figures</summary>"
    yield f'<table class="plain"><caption class="unseen">{text(made.title)}, in figures</caption>'
    yield f'<thead><tr><th scope="col">{"until" if made.running else "from"} (UTC)</th>{heads}</tr></thead><tbody>'
    for place, counts in enumerate(made.counts):
        if any(counts):
            cells = "".join(f'<td class="num">{number(many)}</td>' for many in counts)
            yield f'<tr><th scope="row">{_when(made, place)}</th>{cells}</tr>'
    yield "</tbody></table></details>"


def _when(made: Bars, place: int) -> str:
    """The beginning of a step, or its end where that is what its counts are of."""
    since = made.start + (place + made.running) * made.step
    fine = f".{since // (SECOND // 1000) % 1000:03}" if made.step < SECOND else ""
    return f"{clock(moment(since), dated=True)}{fine}"


def _legend(series: tuple[Series, ...]) -> Iterator[str]:
    yield '<ul class="legend">'
    for one in series:
        yield f"<li>{_swatch(one.tone)}{text(one.word)} <b>{number(one.total)}</b></li>"
    yield "</ul>"


def _swatch(tone: Tone) -> str:
    return (
        '<svg class="swatch" viewBox="0 0 14 14" aria-hidden="true" focusable="false">'
        f'<rect class="{tone}" width="14" height="14"/></svg>'
    )


def _axis(start: int, end: int, *, fine: bool = False) -> str:
    ticks = [start + (end - start) * place // _TICKS for place in range(_TICKS + 1)]
    shown = "".join(f"<li>{_tick(one, start, end, fine=fine)}</li>" for one in ticks)
    return f'<ol class="axis" aria-hidden="true">{shown}</ol>'


def _tick(since: int, start: int, end: int, *, fine: bool) -> str:
    shown = clock(moment(since), dated=True)
    day, time = shown.split(" ")
    if end - start >= _DATED:
        return day
    if start // DAY != end // DAY:
        return f"{day[5:]} {time[:5]}"
    if fine:
        return f"{time}.{since // (SECOND // 1000) % 1000:03}"
    return time[:5] if end - start >= MINUTE * 30 else time


def _plain(words: str) -> str:
    """A round length of time, without the zeros that it does not need."""
    return words.replace(".0 s", " s").replace(" 00 s", "").replace(" 00 min", "")


def _spans(made: Spans) -> Iterator[str]:
    start = min(one.created_at for one in made.spans)
    end = max(max(one.ended_at, one.created_at) for one in made.spans)
    whole = max(1, micros(end) - micros(start))
    note = f" {text(made.note)}." if made.note else ""
    thin = "A line is thin while its job waited, as far as that is told."
    yield f"<p>{period(start, end)}. {thin}{note}</p></figcaption>"
    yield f'<table class="spans"><caption class="unseen">{text(made.title)}</caption>'
    heads = "".join(f'<th scope="col">{title}</th>' for title in ("job", "when", "how long"))
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for one in made.spans:
        yield _span(one, micros(start), whole)
    axis = _axis(micros(start), micros(start) + whole, fine=whole < _TICKS * SECOND)
    yield f'</tbody><tfoot aria-hidden="true"><tr><td></td><td>{axis}</td><td></td></tr></tfoot></table>'


def _span(one: Span, start: int, whole: int) -> str:
    ended_at = max(one.ended_at, one.created_at)
    took = length((micros(ended_at) - micros(one.created_at)) / SECOND)
    said = f"{took}, {text(one.mark.word)}" if one.is_over else f"{took} so far, {text(one.mark.word)}"
    return (
        f'<tr><th scope="row">{text(one.name)}</th><td><svg viewBox="0 0 {_LINE} 10" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{_line(one, ended_at, start, whole)}</svg>'
        f'<span class="unseen">{period(one.created_at, ended_at)}</span></td>'
        f'<td><span class="mark {one.mark.tone}">{said}</span></td></tr>'
    )


def _line(one: Span, ended_at: datetime, start: int, whole: int) -> str:
    """The line of a job: thin while it waited, then thick."""

    def at(time: datetime) -> float:
        return (micros(time) - start) / whole * _LINE

    created, ended = at(one.created_at), at(ended_at)
    began = min(ended, max(created, at(one.began_at))) if one.began_at else created
    waited = f'<rect class="wait" x="{created:.1f}" y="4" width="{began - created:.1f}" height="2"/>'
    left, wide = min(began, _LINE - _SHORTEST), max(_SHORTEST, ended - began)
    worked = f'<rect class="{one.mark.tone}" x="{left:.1f}" y="0" width="{wide:.1f}" height="10"/>'
    only_waits = not one.is_over and began == ended > created
    return (waited if began > created else "") + ("" if only_waits else worked)
