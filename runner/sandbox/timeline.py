"""How a job's state follows from its creation, its duration and the clock: nothing about it is ever updated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Status = Literal["pending", "running", "completed"]

# A job waits for this share of its duration before it runs, so that a person can see one pending.
_WAIT = 0.05


@dataclass(frozen=True, slots=True)
class SandboxJob:
    """A job that was created in the sandbox. `created_at` is in UTC, `duration` in seconds, `cost` in tokens."""

    id: str
    workflow_id: str
    project_id: str
    created_at: datetime
    duration: int
    cost: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of work: known from `created_at`, at work from `begins_at` to `ends_at`."""

    created_at: datetime
    begins_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a span is at a moment. `percent` is 0 to 100; a time that is still to come is None."""

    status: Status
    percent: int
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


def job_span(job: SandboxJob) -> Span:
    """The span of a whole job."""
    begins_at = job.created_at + timedelta(seconds=job.duration * _WAIT)
    return Span(job.created_at, begins_at, job.created_at + timedelta(seconds=job.duration))


def task_spans(job: SandboxJob, count: int) -> tuple[Span, ...]:
    """The spans of a job's `count` tasks: one after the other, equally long, filling the job's."""
    whole = job_span(job)
    each = (whole.ends_at - whole.begins_at) / count
    edges = [whole.begins_at + each * index for index in range(count)] + [whole.ends_at]
    return tuple(Span(job.created_at, edges[index], edges[index + 1]) for index in range(count))


def stage(span: Span, now: datetime) -> Stage:
    """Where `span` is at `now`."""
    if now < span.begins_at:
        return Stage("pending", 0, span.created_at)
    if now < span.ends_at:
        percent = int(100 * ((now - span.begins_at) / (span.ends_at - span.begins_at)))
        return Stage("running", percent, now, span.begins_at)
    return Stage("completed", 100, span.ends_at, span.begins_at, span.ends_at)
