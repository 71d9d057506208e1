"""The writes that the promise rests on: intents, what was not sent, and outcomes. Each is part of a transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, assert_never

from runner.client.job import JobObject, parse_job
from runner.core.models import Created, ErrorInfo, InDoubt, NotCreated
from runner.ledger import rows
from runner.ledger.connect import LedgerError
from runner.ledger.database import Database, batches
from runner.ledger.journal import Claim
from runner.ledger.rows import RunRow, State

# Around the rows of values: many at once are one statement.
_CLAIM = (
    (
        "INSERT INTO submissions (id, manifest, run_key, workflow_id, project_id, ordinal, again, api, state, name, "
        "labels, run_id, attempts, claimed_at, timeout, estimate) VALUES"
    ),
    (
        "ON CONFLICT (manifest, run_key, workflow_id, project_id, ordinal) DO UPDATE SET state = 'sending', "
        "name = excluded.name, labels = excluded.labels, run_id = excluded.run_id, attempts = excluded.attempts, "
        "claimed_at = excluded.claimed_at, timeout = excluded.timeout, estimate = excluded.estimate, "
        "ended_at = NULL, error = NULL, candidates = NULL"
    ),
)
_CREATE = (
    (
        "UPDATE submissions SET state = 'created', job_id = v.column2, created_by = v.column3, cost = v.column4, "
        "val_errors = v.column5, recovered = v.column6, assigned = v.column7, candidates = v.column8, "
        "ended_at = v.column9, error = NULL FROM (VALUES"
    ),
    ") AS v WHERE submissions.id = v.column1",
)
LARGEST_COST = 2**63 - 1  # SQLite has no larger integers: it stands for all that are
_MOST_ROWS = 128  # what an engine decides at once, and what a statement's cache is good for


class Writes(Database):
    """A ledger that intents and outcomes are written to, inside `transaction`."""

    def claim(self, run: RunRow, manifest: int, claims: Sequence[Claim]) -> list[int]:
        """Write intents and return their submissions' numbers; one that was there before keeps its own.

        What exists, or may exist, can't be claimed. All of them are one statement: between any two, all threads take
        a turn.
        """
        [(last,)] = self.query("SELECT coalesce(max(id), 0) FROM submissions")  # nobody else writes meanwhile
        fresh = list(range(last + 1, last + 1 + len(claims)))
        for some in batches(list(zip(fresh, claims, strict=True)), _MOST_ROWS):
            values = [value for number, claim in some for value in _intent(run, manifest, number, claim)]
            self.execute(f"{_CLAIM[0]} {_rows_of(values, len(some))} {_CLAIM[1]}", *values)
        [(made,)] = self.query("SELECT count(*) FROM submissions WHERE id > ?", last)
        return fresh if made == len(claims) else self._numbers_of(run, manifest, claims)

    def _numbers_of(self, run: RunRow, manifest: int, claims: Sequence[Claim]) -> list[int]:
        """The numbers of submissions that are claimed, as the ledger has them."""
        keys = [(*claim.submission.job.pair, claim.submission.ordinal) for claim in claims]
        known: dict[tuple[str, str, int], int] = {}
        for some in batches(keys, _MOST_ROWS):
            values = [value for key in some for value in key]
            found = self.query(
                f"SELECT v.column1, v.column2, v.column3, s.id FROM (VALUES {_rows_of(values, len(some))}) AS v "  # noqa: S608 - marks alone
                "CROSS JOIN submissions s ON s.manifest = ? AND s.run_key = ? AND s.workflow_id = v.column1 "
                "AND s.project_id = v.column2 AND s.ordinal = v.column3",  # CROSS: of the two, this order
                *(*values, manifest, run.run_key),
            )
            for workflow_id, project_id, ordinal, number in found:
                known[workflow_id, project_id, ordinal] = number
        self._see_that_all_are_there(len(known), len(claims))
        return [known[key] for key in keys]

    def release(self, submission: int) -> None:
        """Write that an intent was never sent."""
        self.execute("UPDATE submissions SET state = 'released' WHERE id = ?", submission)

    def save_outcomes(self, decided: Sequence[tuple[int, Created | NotCreated | InDoubt, datetime | None]]) -> None:
        """Write outcomes: each a submission's number, what became of it, and when its exchange was over."""
        created: list[tuple[int, Created, str | None]] = []
        for submission, outcome, ended_at in decided:
            ended = None if ended_at is None else ended_at.isoformat()
            match outcome:
                case Created():
                    created.append((submission, outcome, ended))
                case NotCreated(error=error):
                    self._fail("not_created", submission, error, None, ended)
                case InDoubt(error=error, candidates=candidates):
                    self._fail("in_doubt", submission, error, candidates, ended)
                case _:
                    assert_never(outcome)
        for some in batches(created, _MOST_ROWS):
            self._create(some)

    def _fail(
        self, state: State, submission: int, error: ErrorInfo, candidates: Sequence[str] | None, ended: str | None
    ) -> None:
        changed = self.execute(
            "UPDATE submissions SET state = ?, error = ?, candidates = ?, ended_at = ? WHERE id = ?",
            *(state, rows.error_text(error), None if candidates is None else json.dumps(candidates), ended, submission),
        )
        self._see_that_all_are_there(changed, 1)

    def _create(self, created: Sequence[tuple[int, Created, str | None]]) -> None:
        # The bytes first, as they came: what is read of them below may fail on anything but the id.
        bodies = [value for submission, one, _ in created for value in (submission, one.body)]
        self.execute(f"INSERT OR REPLACE INTO answers VALUES {_rows_of(bodies, len(created))}", *bodies)  # noqa: S608 - marks alone
        values = [value for submission, one, ended in created for value in _told(submission, one, ended)]
        changed = self.execute(f"{_CREATE[0]} {_rows_of(values, len(created))} {_CREATE[1]}", *values)
        self._see_that_all_are_there(changed, len(created))

    def _see_that_all_are_there(self, changed: int, wanted: int) -> None:
        if changed != wanted:  # an outcome would be forgotten, or be another's
            raise LedgerError(f"the ledger {self.path} has not the submissions that this run claimed in it", "")


def _rows_of(values: Sequence[Any], count: int) -> str:
    """Marks for so many rows that these are the values of."""
    row = f"({', '.join('?' * (len(values) // count))})"
    return ", ".join([row] * count)


def _intent(run: RunRow, manifest: int, number: int, claim: Claim) -> tuple[Any, ...]:
    submission, job = claim.submission, claim.submission.job
    return (
        *(number, manifest, run.run_key, job.workflow_id, job.project_id),
        *(submission.ordinal, submission.again, run.api),
        *("sending", job.name, json.dumps(dict(job.labels)) if job.labels else "{}", run.id, claim.attempt),
        *(claim.claimed_at.isoformat(), claim.timeout, submission.estimate),
    )


def _told(submission: int, created: Created, ended: str | None) -> tuple[Any, ...]:
    """The values of _CREATE."""
    job = parse_job(created.body)
    return (
        *(
            submission,
            created.job_id,
            job.created_by if job else None,
            known_cost(job),
            len(job.val_errors) if job else 0,
        ),
        *(created.recovered, created.assigned, json.dumps(created.candidates) if created.candidates else "[]", ended),
    )


def known_cost(job: JobObject | None) -> int | None:
    """A job's cost, where the API told one; as large as SQLite can hold if it is larger: it must not count as none."""
    return None if job is None or job.cost is None else max(-LARGEST_COST, min(LARGEST_COST, job.cost))
