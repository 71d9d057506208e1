"""What the engine needs of the ledger: intents and outcomes, written in turns. Types only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runner.core.models import Created, InDoubt, NotCreated, Submission


@dataclass(frozen=True, slots=True)
class Claim:
    """A submission that is about to be sent. `timeout` is the maximum duration of its exchange, in seconds."""

    submission: Submission
    attempt: int
    claimed_at: datetime
    timeout: float


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """The outcome of a claimed submission, and when its exchange ended.

    Not `final`: it was not created, and this run will retry it.
    """

    submission: Submission
    outcome: Created | NotCreated | InDoubt
    ended_at: datetime
    final: bool = True


class JobIdTakenError(Exception):
    """Job ids that were to be written belong to other submissions by now: nothing was written."""

    def __init__(self, job_ids: Collection[str]) -> None:
        super().__init__(f"{len(job_ids)} job ids")
        self.job_ids = job_ids


class Journal(Protocol):
    """Where intents and outcomes are written. Called by one thread only."""

    def commit(
        self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> None:
        """Write, in this order, outcomes, claimed submissions that were certainly not sent, and the next intents.

        All of it is durable when this returns, and none of it when it raises.

        Raises:
            JobIdTakenError: another manifest's run has taken job ids since `ids_in_use` was called.
            RefusedError: it cannot be written.
        """

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:
        """Those of some job ids that submissions at this API have."""
