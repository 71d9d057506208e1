"""The statuses of jobs at the API as badges, groups, durations and a chart, for the pages of runs and of statuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from runner.reports.formats.html import time_buckets
from runner.reports.formats.html.formatting import format_duration, format_number, seconds_between
from runner.reports.formats.html.model import Badge, BarChart, Duration, Group, Timeline, TimelineBar, Tone
from runner.runs.job_status import JobStatus, StatusKind

# The worst first, and active last, as `time_buckets` requires.
_TONES: Mapping[StatusKind, Tone] = {
    "failed": "bad",
    "cancelled": "idle",
    "unknown": "warn",
    "completed": "good",
    "active": "busy",
}
_INDEXES = {kind: index for index, kind in enumerate(_TONES)}
_NOT_STARTED = ("", "0 %")  # as progress


def group_index(job: JobStatus) -> int:
    """The index of a job's group in `count_groups`."""
    return _INDEXES[job.current_kind]


def count_groups(jobs: Sequence[JobStatus]) -> tuple[Group, ...]:
    """The number of jobs with each kind of status."""
    counts = Counter(job.current_kind for job in jobs)
    return tuple(Group(kind, tone, counts[kind]) for kind, tone in _TONES.items())


def describe_groups(jobs: Sequence[JobStatus]) -> str:
    """The same as text, without those that are empty."""
    return ", ".join(f"{format_number(group.count)} {group.label}" for group in count_groups(jobs) if group.count)


def status_badge(job: JobStatus) -> Badge:
    """A job's status in the API's words."""
    return Badge(job.current_status or "unknown", _TONES[job.current_kind])


def job_duration(job: JobStatus) -> Duration | None:
    """From a job's creation to its end by the API's clock, or else as the API describes it."""
    if job.created_at is None or job.finished_at is None:
        return Duration(job.time_taken) if job.time_taken else None
    seconds = max(0.0, seconds_between(job.created_at, job.finished_at))
    return Duration(format_duration(seconds), seconds)


def build_chart(jobs: Sequence[JobStatus]) -> BarChart | Timeline | None:
    """The jobs over time, those whose creation time is known."""
    active = len(_TONES) - 1
    bars = [(bar, _INDEXES[job.kind] if bar.is_over else active) for job in jobs if (bar := _build_bar(job))]
    counts = Counter(index for _, index in bars)
    series = [Group(kind, tone, counts[index]) for index, (kind, tone) in enumerate(_TONES.items())]
    note = time_buckets.note_hidden(len(jobs) - len(bars), "creation time unknown")
    return time_buckets.chart_jobs("Jobs at the API", bars, series, note)


def _build_bar(job: JobStatus) -> TimelineBar | None:
    """A job that is over without a known end is drawn until it was last seen."""
    if job.created_at is None:
        return None
    ended_at = job.finished_at or job.seen_at or job.created_at
    is_queued = job.started_at is None and not job.is_final and job.progress in _NOT_STARTED
    started_at = ended_at if is_queued else job.started_at
    return TimelineBar(job.name, status_badge(job), job.created_at, started_at, ended_at, job.is_final)
