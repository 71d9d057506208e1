"""What became of jobs at the API, as words with a tone and as a chart: of a run's record as of a look at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from runner.reports.formats.html import time_buckets
from runner.reports.formats.html.formatting import SECOND, length, micros, number
from runner.reports.formats.html.model import Bars, Choice, Length, Mark, Series, Span, Spans, Tone
from runner.runs.job_status import JobStatus, StatusKind

# The worst is first, and what is still going on last.
_KINDS: Mapping[StatusKind, tuple[str, Tone]] = {
    "failed": ("failed", "bad"),
    "cancelled": ("cancelled", "idle"),
    "unknown": ("unknown", "warn"),
    "completed": ("completed", "good"),
    "active": ("under way", "busy"),
}
_PLACES = {kind: place for place, kind in enumerate(_KINDS)}
_TITLE = "The jobs at the API"
_NOT_BEGUN = ("", "0 %")  # of progress


def place(job: JobStatus) -> int:
    """The place of a job's choice among `choices`."""
    return _PLACES[job.current_kind]


def choices(jobs: Sequence[JobStatus]) -> tuple[Choice, ...]:
    """How many jobs there are of each kind, in the order of `place`."""
    counts = Counter(one.current_kind for one in jobs)
    return tuple(Choice(word, tone, counts[kind]) for kind, (word, tone) in _KINDS.items())


def summary(jobs: Sequence[JobStatus]) -> str:
    """How many jobs there are of each kind, in words."""
    return ", ".join(f"{number(one.count)} {one.word}" for one in choices(jobs) if one.count)


def mark(job: JobStatus) -> Mark:
    """A job's status in the API's own word."""
    return Mark(job.current_status or "unknown", _KINDS[job.current_kind][1])


def took(job: JobStatus) -> Length | None:
    """From its creation to its end by the API's clock, in the API's own words where it has some."""
    if job.created_at is None or job.finished_at is None:
        return Length(None, job.time_taken) if job.time_taken else None
    seconds = max(0, micros(job.finished_at) - micros(job.created_at)) / SECOND
    return Length(seconds, length(seconds))


def chart(jobs: Sequence[JobStatus]) -> Bars | Spans | None:
    """The jobs over time, as far as it is known when each began."""
    spans = [(span, _PLACES[job.kind] if span.is_over else len(_KINDS) - 1) for job in jobs if (span := _span(job))]
    counts = Counter(end for _, end in spans)
    series = [Series(word, tone, counts[end]) for end, (word, tone) in enumerate(_KINDS.values())]
    note = time_buckets.left_out(len(jobs) - len(spans), "the API did not say when it was created")
    return time_buckets.jobs(_TITLE, spans, series, note)


def _span(job: JobStatus) -> Span | None:
    """A job that is over without an end ended when it was seen, for all that is known."""
    if job.created_at is None:
        return None
    ended_at = job.finished_at or job.seen_at or job.created_at
    waits = job.started_at is None and not job.is_final and job.progress in _NOT_BEGUN
    return Span(job.name, mark(job), job.created_at, ended_at if waits else job.started_at, ended_at, job.is_final)
