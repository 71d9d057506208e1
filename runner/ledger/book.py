"""The journal of one run in the ledger: what the engine writes, by the manifest's lock holder."""

from __future__ import annotations

from collections.abc import Sequence

from runner.journal import Claim, Decided
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.model import Submission

_Key = tuple[str, str, int]


class Book:
    """Keeps the intents and outcomes of a run that has begun in the ledger."""

    def __init__(self, ledger: Ledger, run: RunRow) -> None:
        self._ledger = ledger
        self._run = run
        self._manifest = ledger.manifest_id(run.api, run.manifest)
        self._open: dict[_Key, int] = {}  # what is claimed and not decided: its number in the ledger

    def commit(self, decided: Sequence[Decided], released: Sequence[Submission], claimed: Sequence[Claim]) -> None:
        """Keep outcomes, then what was certainly not sent, then the next intents, in one transaction."""
        opened: dict[_Key, int] = {}
        with self._ledger.transaction():
            for one in decided:
                self._ledger.decide(self._open[_key(one.submission)], one.outcome, one.ended_at)
            for submission in released:
                self._ledger.release(self._open[_key(submission)])
            for claim in claimed:
                opened[_key(claim.submission)] = self._ledger.claim(self._run, self._manifest, claim)
        for submission in [*(one.submission for one in decided), *released]:
            del self._open[_key(submission)]
        self._open |= opened

    def holds(self, job_id: str) -> bool:
        """Whether a submission at this API, of whichever manifest, has this job id."""
        return self._ledger.holds(self._run.api, job_id)


def _key(submission: Submission) -> _Key:
    return (submission.job.workflow_id, submission.job.project_id, submission.ordinal)
