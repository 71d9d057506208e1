"""What a run may cost: what was spent under its run key so far, and whether one more job fits. Pure.

Spent is the larger of estimate and cost, over every job that is created, in doubt or in flight: a cost may be 0 while
a job is young, and what is in doubt may have to be paid for.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.client.job import parse_job
from runner.core.models import Created, InDoubt, NotCreated, Submission

_LARGEST = 2**53  # tokens: no cost that a person could pay, and no sum of them that is slow to print


@dataclass(slots=True)
class Budget:
    """The tokens of one run key. `limit` is None where there is none; a job of unknown cost counts once it is told."""

    limit: int | None = None
    spent: int = 0

    def allows(self, submission: Submission) -> bool:
        """Whether one more job fits, by its estimate."""
        return self.limit is None or self.spent + (submission.estimate or 0) <= self.limit

    def reserve(self, submission: Submission) -> None:
        """A job is about to be sent."""
        self.spent += submission.estimate or 0

    def settle(self, submission: Submission, outcome: Created | NotCreated | InDoubt | None) -> None:
        """What became of a job that was taken; None when it was certainly not sent."""
        estimate = submission.estimate or 0
        match outcome:
            case Created(body=body):
                self.spent += max(0, reported_cost(body) - estimate)
            case NotCreated() | None:
                self.spent -= estimate
            case InDoubt():
                pass

    def describe_refusal(self, submission: Submission) -> str:
        """Why a job does not fit, in words."""
        price = "of unknown cost" if submission.estimate is None else f"estimated at {submission.estimate}"
        return f"budget: {self.spent} of {self.limit} tokens are spent, and {submission.job.name} is {price}"


def reported_cost(body: bytes) -> int:
    """The cost that a job object tells; 0 where it tells none, or one that is none."""
    job = parse_job(body)
    return min(max(0, job.cost or 0), _LARGEST) if job else 0
