"""The order in which jobs are sent, and streaks of the same failure."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runner.core.models import Created, ErrorInfo, InDoubt, Job, NotCreated, Outcome, Skipped, Submission
from runner.submission.queue import FailureStreak, QueuedJob, SubmissionQueue

A, B, C = (Submission(Job(name, "w", "p"), ordinal) for ordinal, name in enumerate("abc", start=1))
AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
TRIED = NotCreated(ErrorInfo("unreachable", "no connection"), 1, AT)


def test_new_jobs_are_popped_in_order() -> None:
    queue = SubmissionQueue([A, B])
    assert queue
    assert queue.next_due(5.0) == 5.0
    assert [queue.pop(5.0), queue.pop(5.0)] == [QueuedJob(0.0, 1, A), QueuedJob(0.0, 1, B)]
    assert not queue
    assert queue.next_due(5.0) is None
    assert queue.count_waiting(5.0) == 0


def test_a_due_retry_is_popped_before_new_jobs() -> None:
    queue = SubmissionQueue([A])
    queue.add_retry(QueuedJob(20.0, 2, C, TRIED))
    queue.add_retry(QueuedJob(10.0, 3, B, TRIED))
    assert (queue.next_due(9.0), queue.count_waiting(9.0)) == (9.0, 2)
    assert queue.pop(9.0).submission == A
    assert (queue.next_due(9.0), queue.count_waiting(9.0)) == (10.0, 2)
    assert (queue.next_due(10.0), queue.count_waiting(10.0)) == (10.0, 1)
    assert queue.pop(10.0) == QueuedJob(10.0, 3, B, TRIED)
    assert queue.next_due(30.0) == 20.0
    assert queue.pop(30.0) == QueuedJob(20.0, 2, C, TRIED)
    assert not queue


def test_retries_are_popped_by_due_time_and_ties_are_allowed() -> None:
    queue = SubmissionQueue([])
    for due, submission in ((3.0, A), (1.0, B), (1.0, C)):
        queue.add_retry(QueuedJob(due, 2, submission, TRIED))
    taken = [queue.pop(3.0).submission for _ in range(3)]
    assert taken[2] == A
    assert {submission.job.name for submission in taken[:2]} == {"b", "c"}


def test_a_job_put_back_is_next_with_the_same_attempt() -> None:
    queue = SubmissionQueue([A, B])
    first = queue.pop(0.0)
    queue.put_back(first)
    assert queue.pop(0.0) == first
    queue.put_back(QueuedJob(7.0, 4, C, TRIED))
    assert queue.pop(0.0) == QueuedJob(7.0, 4, C, TRIED)
    assert queue.pop(0.0).submission == B


def test_next_due_can_exclude_new_jobs() -> None:
    queue = SubmissionQueue([A])
    assert queue.next_due(5.0, include_new=False) is None
    queue.add_retry(QueuedJob(20.0, 2, C, TRIED))
    assert queue.next_due(5.0, include_new=False) == 20.0
    assert queue.next_due(5.0) == 5.0


def test_drain_returns_all_jobs_with_their_earlier_outcomes() -> None:
    queue = SubmissionQueue([A, B])
    queue.put_back(queue.pop(0.0))
    queue.add_retry(QueuedJob(10.0, 2, C, TRIED))
    jobs = sorted(queue.drain(), key=lambda waiting: waiting.submission.ordinal)
    assert [(waiting.submission, waiting.outcome) for waiting in jobs] == [(A, None), (B, None), (C, TRIED)]
    assert not queue
    assert queue.drain() == []


def failed(kind: str, status: int | None = None) -> NotCreated:
    return NotCreated(ErrorInfo(kind, "message", status), 1, AT)


UNREACHABLE, FORBIDDEN, NOT_FOUND = failed("unreachable"), failed("forbidden", 403), failed("rejected", 404)
REJECTED, IN_DOUBT = failed("rejected", 422), InDoubt(ErrorInfo("timeout", "message"), 1, AT)
CREATED, SKIPPED = Created("job-1", b"{}", 1, AT), Skipped("stopped", "message")


@pytest.mark.parametrize(
    ("limit", "outcomes", "reached"),
    [
        (3, [UNREACHABLE] * 4, [False, False, True, True]),
        (2, [FORBIDDEN] * 2, [False, True]),
        (2, [NOT_FOUND] * 2, [False, True]),
        (
            2,
            [IN_DOUBT, InDoubt(ErrorInfo("server_error", "message", 502), 1, AT)],
            [False, True],
        ),  # whatever the reason
        (2, [REJECTED] * 3, [False] * 3),  # the fault of the manifest, which costs nothing
        (2, [CREATED, SKIPPED] * 2, [False] * 4),
        (2, [UNREACHABLE, FORBIDDEN, NOT_FOUND, IN_DOUBT], [False] * 4),
        (2, [UNREACHABLE, CREATED, UNREACHABLE, UNREACHABLE], [False, False, False, True]),
        (2, [NOT_FOUND, REJECTED, NOT_FOUND], [False] * 3),
        (1, [CREATED, NOT_FOUND], [False, True]),
        (0, [UNREACHABLE] * 50, [False] * 50),  # never
    ],
)
def test_only_the_same_failure_in_a_row_counts(limit: int, outcomes: list[Outcome], reached: list[bool]) -> None:
    streak = FailureStreak(limit)
    assert [streak.add(outcome) for outcome in outcomes] == reached


@pytest.mark.parametrize(
    ("count", "outcome", "expected"),
    [
        (3, InDoubt(ErrorInfo("timeout", "message"), 1, AT), "3 jobs in a row ended in doubt"),
        (2, failed("unreachable"), "2 jobs in a row could not reach the server"),
        (2, failed("forbidden", 403), "2 jobs in a row failed as forbidden"),
        (1, failed("rejected", 404), "1 job in a row failed as not found"),
    ],
)
def test_a_streak_says_how_many_jobs_failed_in_the_same_way(count: int, outcome: Outcome, expected: str) -> None:
    streak = FailureStreak(count)
    for _ in range(count):
        streak.add(outcome)
    assert str(streak) == expected


def test_a_streak_has_a_kind_and_a_count() -> None:
    streak = FailureStreak(9)
    expected: list[tuple[Outcome, tuple[str, int]]] = [
        (UNREACHABLE, ("unreachable", 1)),
        (FORBIDDEN, ("forbidden", 1)),
        (NOT_FOUND, ("not found", 1)),
        (IN_DOUBT, ("in doubt", 1)),
        (IN_DOUBT, ("in doubt", 2)),
        (CREATED, ("", 0)),
    ]
    for outcome, kind_and_count in expected:
        streak.add(outcome)
        assert (streak.kind, streak.count) == kind_and_count
