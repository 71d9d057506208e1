"""A job's status over time. It follows from the job's creation, its duration and the clock; nothing is ever updated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

Status = Literal["pending", "running", "completed", "failed", "cancelled"]

# The share of its duration that a job is pending before it runs.
_PENDING_SHARE = 0.1

# The status of a job or a task after the job fails, by its status before.
_STATUS_AFTER_FAILURE: Mapping[Status, Status] = {"pending": "cancelled", "running": "failed", "completed": "completed"}


@dataclass(frozen=True, slots=True)
class SandboxJob:
    """A job in the sandbox. `created_at` is in UTC, `duration` in seconds, `cost` in tokens.

    If it `fails`, it does so halfway.
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
    """The time of a job or a task: pending from `created_at`, running from `begins_at` to `ends_at` or `fails_at`."""

    created_at: datetime
    begins_at: datetime
    ends_at: datetime
    fails_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """The state of a span at one time. `percent` is 0 to 100; times in the future are None."""

    status: Status
    percent: int
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


def job_span(job: SandboxJob) -> Span:
    """The span of a job."""
    begins_at = job.created_at + timedelta(seconds=job.duration * _PENDING_SHARE)
    ends_at = job.created_at + timedelta(seconds=job.duration)
    return Span(job.created_at, begins_at, ends_at, begins_at + (ends_at - begins_at) / 2 if job.fails else None)


def task_spans(job: SandboxJob, count: int) -> tuple[Span, ...]:
    """The spans of a job's `count` tasks: one after the other, of equal length, together as long as the job runs."""
    span = job_span(job)
    length = (span.ends_at - span.begins_at) / count
    edges = [span.begins_at + length * index for index in range(count)] + [span.ends_at]
    return tuple(Span(job.created_at, edges[index], edges[index + 1], span.fails_at) for index in range(count))


def stage_at(span: Span, now: datetime) -> Stage:
    """The stage of a span at a time."""
    if span.fails_at is None or now < span.fails_at:
        return _stage_without_failure(span, now)
    before = _stage_without_failure(span, span.fails_at)
    status = _STATUS_AFTER_FAILURE[before.status]
    if status == "completed":
        return before
    finished_at = span.fails_at if status == "failed" else None  # what never started does not finish either
    return replace(before, status=status, updated_at=span.fails_at, finished_at=finished_at)


def _stage_without_failure(span: Span, now: datetime) -> Stage:
    if now < span.begins_at:
        return Stage("pending", 0, span.created_at)
    if now < span.ends_at:
        percent = int(100 * ((now - span.begins_at) / (span.ends_at - span.begins_at)))
        return Stage("running", percent, now, span.begins_at)
    return Stage("completed", 100, span.ends_at, span.begins_at, span.ends_at)
