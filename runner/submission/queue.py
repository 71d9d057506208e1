"""What is still to be sent, when, and whether the same trouble keeps coming."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.core.models import ErrorInfo, InDoubt, NotCreated, Outcome, Submission


@dataclass(order=True, frozen=True, slots=True)
class QueuedJob:
    """A job that waits to be sent: which attempt this will be, from 1, and its outcome so far if it was tried.

    `due` is when it may go, 0 for a job that may go at any time.
    """

    due: float
    attempt: int
    submission: Submission = field(compare=False)
    outcome: NotCreated | None = field(compare=False, default=None)


class SubmissionQueue:
    """What is still to be sent: fresh jobs in their order, and jobs to try again when they are due."""

    def __init__(self, submissions: Sequence[Submission]) -> None:
        self._fresh = deque(QueuedJob(0.0, 1, submission) for submission in submissions)
        self._retries: list[QueuedJob] = []

    def __bool__(self) -> bool:
        return bool(self._fresh or self._retries)

    def due(self, now: float, *, fresh: bool = True) -> float | None:
        """When the next job may go, as far as the backlog knows: None when none is left. Fresh ones only if `fresh`."""
        first = self._retries[0].due if self._retries else None
        if fresh and self._fresh and (first is None or first > now):
            return now
        return first

    def count_waiting(self, now: float) -> int:
        """How many jobs wait to be tried again."""
        return sum(retry.due > now for retry in self._retries)

    def next(self, now: float) -> QueuedJob | None:
        """The job that `take` would give, or the first that is to be tried again later; None when none is left."""
        if self._retries and (self._retries[0].due <= now or not self._fresh):
            return self._retries[0]
        return self._fresh[0] if self._fresh else None

    def take(self, now: float) -> QueuedJob:
        """The next job."""
        if self._retries and self._retries[0].due <= now:
            return heapq.heappop(self._retries)
        return self._fresh.popleft()

    def put_back(self, waiting: QueuedJob) -> None:
        """Return a job whose attempt did not count: it goes next."""
        self._fresh.appendleft(waiting)

    def add_retry(self, waiting: QueuedJob) -> None:
        """Keep a job for another attempt."""
        heapq.heappush(self._retries, waiting)

    def drain(self) -> list[QueuedJob]:
        """Take everything out."""
        everything = [*self._retries, *self._fresh]
        self._retries.clear()
        self._fresh.clear()
        return everything


@dataclass(slots=True)
class FailureStreak:
    """How often the same trouble came in a row."""

    limit: int
    kind: str = ""
    count: int = 0

    def add(self, outcome: Outcome) -> bool:
        """Count an outcome; whether the limit is reached."""
        kind = _trouble(outcome)
        self.count = self.count + 1 if kind and kind == self.kind else int(bool(kind))
        self.kind = kind
        return 0 < self.limit <= self.count


def _trouble(outcome: Outcome) -> str:
    match outcome:
        case InDoubt():
            return "in doubt"
        case NotCreated(error=ErrorInfo(kind="unreachable" | "forbidden" as kind)):
            return kind
        case NotCreated(error=ErrorInfo(http_status=404)):
            return "not found"
        case _:
            return ""
