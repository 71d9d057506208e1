"""The cost limit of a run key: what is spent so far, and whether one more job fits. Pure.

Spent is the larger of estimate and cost of every job that is created, in doubt or in flight: a cost may be 0 while a
job is young, and a job in doubt may have to be paid for.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.client.job import parse_job
from runner.core.models import Created, InDoubt, NotCreated, Submission

_MAX_COST = 2**53  # tokens: more than anybody could pay, and sums of it still print quickly


@dataclass(slots=True)
class Budget:
    """The tokens of one run key. `limit` is None if there is none. Without an estimate, a job counts by its cost."""

    limit: int | None = None
    spent: int = 0

    def allows(self, submission: Submission) -> bool:
        """Whether one more job fits, by its estimate."""
        return self.limit is None or self.spent + (submission.estimate or 0) <= self.limit

    def reserve(self, submission: Submission) -> None:
        """Count the estimate of a job that is about to be sent."""
        self.spent += submission.estimate or 0

    def settle(self, submission: Submission, outcome: Created | NotCreated | InDoubt | None) -> None:
        """Replace a reservation by what the outcome costs; None if the job was certainly not sent."""
        estimate = submission.estimate or 0
        match outcome:
            case Created(body=body):
                self.spent += max(0, reported_cost(body) - estimate)
            case NotCreated() | None:
                self.spent -= estimate
            case InDoubt():
                pass

    def describe_refusal(self, submission: Submission) -> str:
        """Why a job does not fit."""
        price = "of unknown cost" if submission.estimate is None else f"estimated at {submission.estimate}"
        return f"budget: {self.spent} of {self.limit} tokens are spent, and {submission.job.name} is {price}"


def reported_cost(body: bytes) -> int:
    """The cost in a job object, in tokens; 0 if it has none, or an invalid one."""
    job = parse_job(body)
    return min(max(0, job.cost or 0), _MAX_COST) if job else 0
