"""What is still to be sent, when, and whether the same trouble keeps coming."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runner.model import ErrorInfo, Failed, InDoubt, Outcome, Submission


@dataclass(order=True, slots=True)
class Retry:
    """A job that was not sent, when to try it again, and its outcome if that does not come to be."""

    due: float
    attempt: int
    submission: Submission = field(compare=False)
    outcome: Failed = field(compare=False)


class Backlog:
    """What is still to be sent: fresh jobs in their order, and jobs to try again when they are due."""

    def __init__(self, submissions: Sequence[Submission]) -> None:
        self._fresh = deque((submission, 1) for submission in submissions)
        self._retries: list[Retry] = []

    def __bool__(self) -> bool:
        return bool(self._fresh or self._retries)

    def due(self, now: float) -> float | None:
        """When the next job may go, as far as the backlog knows; None when there is none."""
        first = self._retries[0].due if self._retries else None
        if self._fresh and (first is None or first > now):
            return now
        return first

    def waiting(self, now: float) -> int:
        """How many jobs wait to be tried again."""
        return sum(retry.due > now for retry in self._retries)

    def take(self, now: float) -> tuple[Submission, int]:
        """The next job, and which attempt this is, from 1."""
        if self._retries and self._retries[0].due <= now:
            retry = heapq.heappop(self._retries)
            return retry.submission, retry.attempt
        return self._fresh.popleft()

    def put_back(self, submission: Submission, attempt: int) -> None:
        """Return a job whose attempt did not count."""
        self._fresh.appendleft((submission, attempt))

    def try_again(self, retry: Retry) -> None:
        """Keep a job for another attempt."""
        heapq.heappush(self._retries, retry)

    def retries(self, submission: Submission) -> bool:
        """Whether a job waits to be tried again."""
        return any(retry.submission is submission for retry in self._retries)

    def empty(self) -> Iterator[tuple[Submission, Failed | None]]:
        """Take everything out: each job, and its outcome so far if it was tried."""
        for retry in self._retries:
            yield retry.submission, retry.outcome
        for submission, _attempt in self._fresh:
            yield submission, None
        self._retries.clear()
        self._fresh.clear()


@dataclass(slots=True)
class Trouble:
    """How often the same trouble came in a row."""

    limit: int
    kind: str = ""
    count: int = 0

    def meets(self, outcome: Outcome) -> bool:
        """Count an outcome; whether the limit is reached."""
        kind = _trouble(outcome)
        self.count = self.count + 1 if kind and kind == self.kind else int(bool(kind))
        self.kind = kind
        return 0 < self.limit <= self.count


def _trouble(outcome: Outcome) -> str:
    match outcome:
        case InDoubt():
            return "in doubt"
        case Failed(error=ErrorInfo(kind="unreachable" | "forbidden" as kind)):
            return kind
        case Failed(error=ErrorInfo(http_status=404)):
            return "not found"
        case _:
            return ""
