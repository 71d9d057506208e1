"""What the engine asks of the record: intents and outcomes, kept in turns. Pure types; the ledger meets them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runner.core.models import Created, InDoubt, NotCreated, Submission


@dataclass(frozen=True, slots=True)
class Claim:
    """A submission that is about to be sent: which attempt this is, when, and the seconds that it may take."""

    submission: Submission
    attempt: int
    claimed_at: datetime
    timeout: float


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """What became of a claimed submission, and when its exchange was over.

    Not `final`: it failed, and is to be tried again in this run.
    """

    submission: Submission
    outcome: Created | NotCreated | InDoubt
    ended_at: datetime
    final: bool = True


class JobIdTakenError(Exception):
    """Job ids that were to be kept belong to other submissions by now: nothing was kept."""

    def __init__(self, job_ids: Collection[str]) -> None:
        super().__init__(f"{len(job_ids)} job ids")
        self.job_ids = job_ids


class Journal(Protocol):
    """Where submissions and outcomes are kept. Called by one thread only."""

    def commit(
        self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> None:
        """Keep, in this order, what became of sends, what was claimed and certainly not created, and the next intents.

        All of it is durable when this returns, and none of it when it raises.

        Raises:
            HeldError: another manifest's run has taken ids since `held` was asked.
            RefusedError: it cannot be kept.
        """

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:
        """Those of some job ids that submissions at this API have."""
