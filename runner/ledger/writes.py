"""The writes that the promise rests on: intents, releases and outcomes. Each is part of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, assert_never

from runner.client.job import JobObject, parse_job
from runner.core.models import Created, InDoubt, NotCreated
from runner.ledger.database import Database, batches, marks
from runner.ledger.errors import LedgerError
from runner.ledger.rows import Claim, RunRow

LARGEST_COST = 2**63 - 1  # the largest integer of SQLite, which stands for all that are larger

_KEY = ("manifest", "run_key", "workflow_id", "project_id", "ordinal")
_FIXED = ("id", *_KEY, "again", "api")  # what a second claim leaves as it is
_CLEARED = "ended_at = NULL, error = NULL, candidates = '[]'"  # and what it forgets


class SubmissionWriter(Database):
    """A ledger to which intents and outcomes are written, inside `transaction`."""

    def claim(self, run: RunRow, manifest: int, claims: Sequence[Claim]) -> list[int]:
        """Write intents and return the ids of their submissions; one that was there before keeps its id.

        What exists, or may exist, can't be claimed. A batch is one statement, as all threads take a turn between two.
        """
        [(last,)] = self.query("SELECT coalesce(max(id), 0) FROM submissions")  # nobody else writes meanwhile
        ids = range(last + 1, last + 1 + len(claims))
        for batch in batches([_intent(run, manifest, id_, claim) for id_, claim in zip(ids, claims, strict=True)]):
            updated = ", ".join(f"{column} = excluded.{column}" for column in batch[0] if column not in _FIXED)
            conflict = f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {updated}, {_CLEARED}"
            self.insert("submissions", *batch, conflict=conflict)
        [(inserted,)] = self.query("SELECT count(*) FROM submissions WHERE id > ?", last)
        return list(ids) if inserted == len(claims) else self._find_ids(run, manifest, claims)

    def _find_ids(self, run: RunRow, manifest: int, claims: Sequence[Claim]) -> list[int]:
        """The ids that claimed submissions have in the ledger."""
        keys = [(*claim.submission.job.pair, claim.submission.ordinal) for claim in claims]
        ids: dict[tuple[str, str, int], int] = {}
        for batch in batches(keys):
            found = self.query(
                f"SELECT v.column1, v.column2, v.column3, s.id FROM (VALUES {marks(3, len(batch))}) AS v "  # noqa: S608 - placeholders
                "CROSS JOIN submissions s ON s.manifest = ? AND s.run_key = ? AND s.workflow_id = v.column1 "
                "AND s.project_id = v.column2 AND s.ordinal = v.column3",  # CROSS: in this order of the tables
                *(value for key in batch for value in key),
                *(manifest, run.run_key),
            )
            ids |= {(workflow_id, project_id, ordinal): id_ for workflow_id, project_id, ordinal, id_ in found}
        self._check_count(len(ids), len(claims))
        return [ids[key] for key in keys]

    def release(self, submission: int) -> None:
        """Write that an intent was never sent."""
        self.execute("UPDATE submissions SET state = 'released' WHERE id = ?", submission)

    def save_outcomes(self, outcomes: Sequence[tuple[int, Created | NotCreated | InDoubt, datetime | None]]) -> None:
        """Write outcomes: each the id of a submission, what became of it, and when its exchange ended."""
        for _kind, group in groupby(outcomes, key=lambda row: type(row[1])):  # each kind changes other columns
            for batch in batches(list(group)):
                # The bytes as they came, before they are parsed: that may fail on anything but the id.
                bodies = [
                    {"submission": id_, "body": outcome.body}
                    for id_, outcome, _ in batch
                    if isinstance(outcome, Created)
                ]
                if bodies:
                    conflict = "ON CONFLICT (submission) DO UPDATE SET body = excluded.body"
                    self.insert("responses", *bodies, conflict=conflict)
                self._update([_changes(*row) for row in batch])

    def _update(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """Change submissions by their ids, which come first; all change the same columns."""
        id_, *columns = changes[0]
        assignments = ", ".join(f"{column} = v.column{number}" for number, column in enumerate(columns, start=2))
        changed = self.execute(
            f"UPDATE submissions SET {assignments} FROM (VALUES {marks(1 + len(columns), len(changes))}) AS v "  # noqa: S608 - names
            f"WHERE submissions.{id_} = v.column1",
            *[value for row in changes for value in row.values()],
        )
        self._check_count(changed, len(changes))

    def _check_count(self, actual: int, expected: int) -> None:
        if actual != expected:  # an outcome would be forgotten, or be another's
            raise LedgerError(f"the ledger {self.path} lacks submissions that this run claimed in it", "")


def _intent(run: RunRow, manifest: int, id_: int, claim: Claim) -> dict[str, Any]:
    submission, job = claim.submission, claim.submission.job
    return {
        "id": id_,
        "manifest": manifest,
        "run_key": run.run_key,
        "workflow_id": job.workflow_id,
        "project_id": job.project_id,
        "ordinal": submission.ordinal,
        "again": submission.again,
        "api": run.api,
        "state": "sending",
        "name": job.name,
        "labels": dict(job.labels),
        "run_id": run.id,
        "attempts": claim.attempt,
        "claimed_at": claim.claimed_at,
        "timeout": claim.timeout,
        "estimate": submission.estimate,
    }


def _changes(id_: int, outcome: Created | NotCreated | InDoubt, ended_at: datetime | None) -> dict[str, Any]:
    match outcome:
        case Created(job_id=job_id, body=body, candidates=candidates):
            job = parse_job(body)
            return {
                "id": id_,
                "state": "created",
                "job_id": job_id,
                "created_by": job.created_by if job else None,
                "cost": bounded_cost(job),
                "val_errors": len(job.val_errors) if job else 0,
                "recovered": outcome.recovered,
                "assigned": outcome.assigned,
                "candidates": candidates,
                "ended_at": ended_at,
                "error": None,
            }
        case NotCreated(error=error):
            return {"id": id_, "state": "not_created", "error": error, "candidates": (), "ended_at": ended_at}
        case InDoubt(error=error, candidates=candidates):
            return {"id": id_, "state": "in_doubt", "error": error, "candidates": candidates, "ended_at": ended_at}
        case _:
            assert_never(outcome)


def bounded_cost(job: JobObject | None) -> int | None:
    """A job's cost, if it has one, within what SQLite can hold: one that is larger must not count as none."""
    return None if job is None or job.cost is None else max(-LARGEST_COST, min(LARGEST_COST, job.cost))
