"""The journal of one run in the ledger: what the engine writes, as the holder of the manifest's lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from runner.core.models import Created, Submission
from runner.ledger.rows import Claim, RecordedOutcome, RunRow
from runner.ledger.store import Ledger

_Key = tuple[str, str, int]


class JobIdTakenError(Exception):
    """Job ids that were to be written belong to other submissions by now: nothing was written."""

    def __init__(self, job_ids: Collection[str]) -> None:
        super().__init__(f"{len(job_ids)} job ids")
        self.job_ids = job_ids


class RunJournal:
    """Writes the intents and outcomes of a run that the ledger knows to have started."""

    def __init__(self, ledger: Ledger, run: RunRow) -> None:
        self._ledger = ledger
        self._run = run
        self._manifest = ledger.manifest_id(run.api, run.manifest)
        self._ids: dict[_Key, int] = {}  # in the ledger, of what is claimed and has no outcome yet

    def commit(
        self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> None:
        """Write outcomes, then releases, then the next intents, in one transaction."""
        try:
            with self._ledger.transaction():
                self._ledger.save_outcomes(
                    [(self._ids[_key(row.submission)], row.outcome, row.ended_at) for row in outcomes]
                )
                for submission in released:
                    self._ledger.release(self._ids[_key(submission)])
                ids = self._ledger.claim(self._run, self._manifest, claims) if claims else []
        except sqlite3.IntegrityError as error:
            taken = self.ids_in_use([row.outcome.job_id for row in outcomes if isinstance(row.outcome, Created)])
            if not taken:
                raise
            raise JobIdTakenError(taken) from error
        for submission in (*(row.submission for row in outcomes), *released):
            self._ids.pop(_key(submission), None)
        self._ids |= {_key(claim.submission): id_ for claim, id_ in zip(claims, ids, strict=True)}

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:
        """Those of some job ids that submissions at this API have, of every manifest."""
        return self._ledger.ids_in_use(self._run.api, job_ids)


def _key(submission: Submission) -> _Key:
    return (submission.job.workflow_id, submission.job.project_id, submission.ordinal)
