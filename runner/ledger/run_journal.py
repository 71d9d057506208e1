"""The journal of one run in the ledger: what the engine writes, by the manifest's lock holder."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from runner.core.models import Created, Submission
from runner.ledger.journal import Claim, JobIdTakenError, RecordedOutcome
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger

_Key = tuple[str, str, int]


class RunJournal:
    """Keeps the intents and outcomes of a run that has begun in the ledger."""

    def __init__(self, ledger: Ledger, run: RunRow) -> None:
        self._ledger = ledger
        self._run = run
        self._manifest = ledger.manifest_id(run.api, run.manifest)
        self._numbers: dict[_Key, int] = {}  # in the ledger, of what this run has claimed and not decided

    def commit(
        self, decided: Sequence[RecordedOutcome], released: Sequence[Submission], claimed: Sequence[Claim]
    ) -> None:
        """Keep outcomes, then what was certainly not sent, then the next intents, in one transaction."""
        try:
            with self._ledger.transaction():
                if decided:
                    self._ledger.save_outcomes(
                        [(self._number(one.submission), one.outcome, one.ended_at) for one in decided]
                    )
                for submission in released:
                    self._ledger.release(self._number(submission))
                numbers = self._ledger.claim(self._run, self._manifest, claimed) if claimed else []
        except sqlite3.IntegrityError as error:
            ids = [one.outcome.job_id for one in decided if isinstance(one.outcome, Created)]
            taken = self.ids_in_use(ids)
            if not taken:
                raise
            raise JobIdTakenError(taken) from error
        for submission in (*(one.submission for one in decided), *released):
            self._numbers.pop(_key(submission), None)
        for claim, number in zip(claimed, numbers, strict=True):
            self._numbers[_key(claim.submission)] = number

    def _number(self, submission: Submission) -> int:
        return self._numbers[_key(submission)]

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:
        """Those of some job ids that submissions at this API have, of whichever manifest."""
        return self._ledger.ids_in_use(self._run.api, job_ids)


def _key(submission: Submission) -> _Key:
    return (submission.job.workflow_id, submission.job.project_id, submission.ordinal)
