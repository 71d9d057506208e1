"""The status of jobs and their tasks over time, with and without a failure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runner.sandbox.lifecycle import SandboxJob, job_span, stage_at, task_spans

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
SOUND = SandboxJob("a", "w", "p", AT, 10, 1)  # pending for 1 s; its three tasks take 3 s each
FAILING = replace(SOUND, fails=True)


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "status", "percent"),
    [(0, "pending", 0), (0.9, "pending", 0), (1, "running", 0), (5.5, "running", 50), (10, "completed", 100)],
)
def test_job_completes(seconds: float, status: str, percent: int) -> None:
    stage = stage_at(job_span(SOUND), at(seconds))
    assert (stage.status, stage.percent) == (status, percent)


@pytest.mark.parametrize("seconds", [0, 0.9, 1, 4, 5.4])
def test_failing_job_before_the_failure(seconds: float) -> None:
    assert stage_at(job_span(FAILING), at(seconds)) == stage_at(job_span(SOUND), at(seconds))
    failing, sound = ([stage_at(span, at(seconds)) for span in task_spans(job, 3)] for job in (FAILING, SOUND))
    assert failing == sound


@pytest.mark.parametrize("seconds", [5.5, 5.6, 10, 10_000])
def test_failed_job_does_not_change_any_more(seconds: float) -> None:
    failed = stage_at(job_span(FAILING), at(seconds))
    assert (failed.status, failed.percent) == ("failed", 50)
    assert (failed.started_at, failed.updated_at, failed.finished_at) == (at(1), at(5.5), at(5.5))


@pytest.mark.parametrize("seconds", [5.5, 5.6, 10, 10_000])
def test_failure_fails_the_running_task_and_cancels_pending_ones(seconds: float) -> None:
    first, second, third = (stage_at(span, at(seconds)) for span in task_spans(FAILING, 3))
    assert (first.status, first.percent, first.updated_at, first.finished_at) == ("completed", 100, at(4), at(4))
    assert (second.status, second.percent, second.updated_at, second.finished_at) == ("failed", 50, at(5.5), at(5.5))
    assert (third.status, third.percent, third.updated_at) == ("cancelled", 0, at(5.5))
    assert (third.started_at, third.finished_at) == (None, None)
