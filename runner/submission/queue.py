"""What is still to be sent and when, and whether the same failure keeps coming."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.core.models import ErrorInfo, InDoubt, NotCreated, Outcome, Submission
from runner.core.text import pluralize


@dataclass(order=True, frozen=True, slots=True)
class QueuedJob:
    """A job that waits to be sent. `attempt` counts from 1; `outcome` is that of the attempt before, if any.

    `due` is when it may be sent, 0 for a job that may be sent at any time.
    """

    due: float
    attempt: int
    submission: Submission = field(compare=False)
    outcome: NotCreated | None = field(compare=False, default=None)


class SubmissionQueue:
    """New jobs in their order, and retries by the time when they are due."""

    def __init__(self, submissions: Sequence[Submission]) -> None:
        self._new = deque(QueuedJob(0.0, 1, submission) for submission in submissions)
        self._retries: list[QueuedJob] = []

    def __bool__(self) -> bool:
        return bool(self._new or self._retries)

    def next_due(self, now: float, *, include_new: bool = True) -> float | None:
        """When the next job may be sent; None if there is none. New jobs count only if `include_new`."""
        first_retry = self._retries[0].due if self._retries else None
        if include_new and self._new and (first_retry is None or first_retry > now):
            return now
        return first_retry

    def count_waiting(self, now: float) -> int:
        """How many retries are not due yet."""
        return sum(retry.due > now for retry in self._retries)

    def peek(self, now: float) -> QueuedJob | None:
        """The job that `pop` would return, else the first retry to come; None if there is none."""
        if self._retries and (self._retries[0].due <= now or not self._new):
            return self._retries[0]
        return self._new[0] if self._new else None

    def pop(self, now: float) -> QueuedJob:
        """Remove and return the next job."""
        if self._retries and self._retries[0].due <= now:
            return heapq.heappop(self._retries)
        return self._new.popleft()

    def put_back(self, job: QueuedJob) -> None:
        """Return a job whose attempt did not count: it is next."""
        self._new.appendleft(job)

    def add_retry(self, job: QueuedJob) -> None:
        """Add a job for another attempt."""
        heapq.heappush(self._retries, job)

    def drain(self) -> list[QueuedJob]:
        """Remove and return all jobs."""
        jobs = [*self._retries, *self._new]
        self._retries.clear()
        self._new.clear()
        return jobs


_FAILURES = {
    "in doubt": "ended in doubt",
    "unreachable": "could not reach the server",
    "forbidden": "failed as forbidden",
    "not found": "failed as not found",
}


@dataclass(slots=True)
class FailureStreak:
    """How many times in a row the same failure came."""

    limit: int
    kind: str = ""
    count: int = 0

    def __str__(self) -> str:
        return f"{pluralize(self.count, 'job')} in a row {_FAILURES.get(self.kind, self.kind)}"

    def add(self, outcome: Outcome) -> bool:
        """Count an outcome, and return whether the limit is reached."""
        kind = _failure_kind(outcome)
        self.count = self.count + 1 if kind and kind == self.kind else int(bool(kind))
        self.kind = kind
        return 0 < self.limit <= self.count


def _failure_kind(outcome: Outcome) -> str:
    match outcome:
        case InDoubt():
            return "in doubt"
        case NotCreated(error=ErrorInfo(kind="unreachable" | "forbidden" as kind)):
            return kind
        case NotCreated(error=ErrorInfo(http_status=404)):
            return "not found"
        case _:
            return ""
