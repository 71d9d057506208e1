"""How a job's state follows from its creation, its duration and the clock: nothing about it is ever updated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

Status = Literal["pending", "running", "completed", "failed", "cancelled"]

# A job waits for this share of its duration before it runs, so that a person can see one pending.
_WAIT = 0.1

# What a failure makes of work that was at that status: only what is at work can fail.
_AFTER_FAILURE: Mapping[Status, Status] = {"pending": "cancelled", "running": "failed", "completed": "completed"}


@dataclass(frozen=True, slots=True)
class SandboxJob:
    """A job that was created in the sandbox. `created_at` is in UTC, `duration` in seconds, `cost` in tokens.

    One that `fails` does so half-way through its work.
    """

    id: str
    workflow_id: str
    project_id: str
    created_at: datetime
    duration: int
    cost: int
    fails: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of work: known from `created_at`, at work from `begins_at` to `ends_at`, or until its job fails."""

    created_at: datetime
    begins_at: datetime
    ends_at: datetime
    fails_at: datetime | None = None


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
    ends_at = job.created_at + timedelta(seconds=job.duration)
    return Span(job.created_at, begins_at, ends_at, begins_at + (ends_at - begins_at) / 2 if job.fails else None)


def task_spans(job: SandboxJob, count: int) -> tuple[Span, ...]:
    """The spans of a job's `count` tasks: one after the other, equally long, filling the job's."""
    whole = job_span(job)
    each = (whole.ends_at - whole.begins_at) / count
    edges = [whole.begins_at + each * index for index in range(count)] + [whole.ends_at]
    return tuple(Span(job.created_at, edges[index], edges[index + 1], whole.fails_at) for index in range(count))


def stage_at(span: Span, now: datetime) -> Stage:
    """Where `span` is at `now`."""
    if span.fails_at is None or now < span.fails_at:
        return _undisturbed(span, now)
    return _after_failure(_undisturbed(span, span.fails_at), span.fails_at)


def _undisturbed(span: Span, now: datetime) -> Stage:
    if now < span.begins_at:
        return Stage("pending", 0, span.created_at)
    if now < span.ends_at:
        percent = int(100 * ((now - span.begins_at) / (span.ends_at - span.begins_at)))
        return Stage("running", percent, now, span.begins_at)
    return Stage("completed", 100, span.ends_at, span.begins_at, span.ends_at)


def _after_failure(reached: Stage, fails_at: datetime) -> Stage:
    """What a stage that was `reached` when the job failed is from then on. What never began has no end either."""
    status = _AFTER_FAILURE[reached.status]
    if status == "completed":
        return reached
    return replace(reached, status=status, updated_at=fails_at, finished_at=fails_at if status == "failed" else None)
