"""Where submissions and their outcomes are kept: what the engine asks of it, and one that keeps them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runner.model import Created, Outcome, Submission


class Journal(Protocol):
    """Where submissions and outcomes are kept. Called by one thread only."""

    def claim(self, submissions: Sequence[Submission]) -> None:
        """Keep that these may be sent from now on; returns when that is durable."""

    def release(self, submissions: Sequence[Submission]) -> None:
        """Keep that these were certainly not created, and may be claimed again."""

    def decide(self, outcomes: Sequence[tuple[Submission, Outcome]]) -> None:
        """Keep what became of these; returns when that is durable."""

    def holds(self, job_id: str) -> bool:
        """Whether a submission at this API has this job id."""


class MemoryJournal:
    """Keeps the outcomes of one run for as long as the process lives."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}  # by the job's name
        self._ids: set[str] = set()

    def claim(self, submissions: Sequence[Submission]) -> None:
        """Nothing is kept of a claim: it would end with the process, as what it guards against does."""

    def release(self, submissions: Sequence[Submission]) -> None:
        """As for a claim."""

    def decide(self, outcomes: Sequence[tuple[Submission, Outcome]]) -> None:
        """Keep what became of these."""
        for submission, outcome in outcomes:
            self.outcomes[submission.job.name] = outcome
            if isinstance(outcome, Created):
                self._ids.add(outcome.job_id)

    def holds(self, job_id: str) -> bool:
        """Whether a submission of this run has this job id."""
        return job_id in self._ids
