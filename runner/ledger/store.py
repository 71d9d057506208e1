"""The ledger: runs, intents and outcomes, written in the order that the promise rests on. One thread owns it."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar, assert_never

from runner import jobobject
from runner.errors import RefusedError
from runner.jobobject import JobObject
from runner.journal import Claim
from runner.ledger import rows
from runner.ledger.opening import (
    LedgerError,
    connect,
    connect_to_read,
    explained,
    look_through,
    must_exist,
    provide,
    readable,
)
from runner.ledger.rows import Decision, RunRow, Standing, State
from runner.model import Created, ErrorInfo, Failed, InDoubt, Job, RunState

_SUBMISSIONS = f"SELECT {rows.STANDING_COLUMNS} FROM submissions s JOIN manifests m ON m.id = s.manifest"  # noqa: S608 - our own words
_RUNS = f"SELECT {rows.RUN_COLUMNS} FROM runs r JOIN manifests m ON m.id = r.manifest"  # noqa: S608 - likewise
_WHOSE = "(? IS NULL OR m.api = ?) AND (? IS NULL OR m.name = ?)"
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
_MOST_VALUES = 500  # in one statement
_MOST_ROWS = 128  # what an engine decides at once, and what a statement's cache is good for

_T = TypeVar("_T")


class Ledger:
    """An open ledger. A context manager; closing it folds the write-ahead log into the file.

    `read_only` opens it where nothing may be written, and writes nothing.

    Every method raises LedgerError when the file or the disk fails; what it was to write is then not written.
    """

    def __init__(self, path: Path, *, make: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._connection = connect_to_read(path) if read_only else connect(path, make=make)
        self._identity = _identity(path)

    @staticmethod
    def must_exist(path: Path) -> None:
        """Raise LedgerError when there is no ledger at a path."""
        must_exist(path)

    @staticmethod
    def provide(path: Path) -> bool:
        """Make a ledger where there is none, and say whether this was who made it. Raises LedgerError."""
        return provide(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Checkpoint and close. What can't be checkpointed stays in the log, which is as durable."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def check(self) -> None:
        """Look through every page. Raises LedgerError when something is damaged."""
        with explained(self.path):
            look_through(self._connection, self.path, "integrity_check")

    # Manifests and runs.

    def manifest_paths(self, api: str) -> dict[str, str]:
        """Each manifest that was run at an API, by name: the absolute path of its file."""
        found = self.all("SELECT name, path FROM manifests WHERE api = ?", api)
        return {name: str(rows.from_sql(path)) for name, path in found}

    def manifests(self) -> list[tuple[str, str, str]]:
        """Each manifest that was ever run: its API, its name, and the absolute path of its file."""
        found = self.all("SELECT api, name, path FROM manifests ORDER BY id")
        return [(api, name, str(rows.from_sql(path))) for api, name, path in found]

    def begin_run(self, run: RunRow, jobs: Sequence[Job], absolute_path: str) -> None:
        """Keep that a run began, and that earlier ones of its manifest ended: their processes are gone.

        Only the holder of the manifest's lock may call this.
        """
        with self.transaction():
            self.write(
                "INSERT INTO manifests (api, name, path) VALUES (?, ?, ?) "
                "ON CONFLICT (api, name) DO UPDATE SET path = excluded.path",
                *(run.api, run.manifest, absolute_path),
            )
            manifest = self.manifest_id(run.api, run.manifest)
            if not self.all("SELECT 1 FROM snapshots WHERE sha256 = ?", run.sha256):
                self.write("INSERT INTO snapshots VALUES (?, ?)", run.sha256, rows.pack(jobs))
            self.write(
                "UPDATE runs SET state = 'interrupted', reason = 'interrupted', why = ? "
                "WHERE manifest = ? AND state = 'running'",
                *("its process ended without a word", manifest),
            )
            self.write(
                "INSERT INTO runs (id, manifest, run_key, once_per, state, reason, why, started_at, runner, path, "
                "sha256, git_commit, settings) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(run.id, manifest, run.run_key, run.once_per, run.state, run.reason, run.why),
                run.started_at.isoformat(),
                *(run.runner, run.path, run.sha256, run.git_commit, json.dumps(dict(run.settings))),
            )

    def end_run(self, run_id: str, state: RunState, reason: str, why: str, finished_at: datetime) -> None:
        """Keep how a run ended."""
        with self.transaction():
            self.write(
                "UPDATE runs SET state = ?, reason = ?, why = ?, finished_at = ? WHERE id = ?",
                *(state, reason, why, finished_at.isoformat(), run_id),
            )

    def runs(self, api: str | None = None, manifest: str | None = None) -> Iterator[RunRow]:
        """Runs, the newest first; of one API or manifest, or of all."""
        for row in self.all(f"{_RUNS} WHERE {_WHOSE} ORDER BY r.rowid DESC", api, api, manifest, manifest):
            with readable(self.path):
                found = rows.run(row)
            yield found

    def jobs_of(self, run: RunRow) -> tuple[Job, ...]:
        """The manifest's jobs as they were in a run."""
        with readable(self.path):
            [(snapshot,)] = self.all("SELECT jobs FROM snapshots WHERE sha256 = ?", run.sha256)
            return rows.unpack(snapshot)

    def manifest_id(self, api: str, name: str) -> int:
        """The number of a manifest that was run at an API."""
        [(found,)] = self.all("SELECT id FROM manifests WHERE api = ? AND name = ?", api, name)
        return int(found)

    # Where submissions stand.

    def standings(self, api: str, manifest: str, run_key: str) -> list[Standing]:
        """Where each submission of a run key stands, in the order in which they were first claimed."""
        return self._standings("m.api = ? AND m.name = ? AND s.run_key = ?", api, manifest, run_key)

    def unsettled(self, api: str | None = None, manifest: str | None = None) -> list[Standing]:
        """Submissions in doubt, and intents without an outcome; of one API or manifest, or of all."""
        return self._standings(f"s.state IN ('sending', 'in_doubt') AND {_WHOSE}", api, api, manifest, manifest)

    def of_workflow(self, api: str, workflow_id: str) -> list[Standing]:
        """Every submission of a workflow at an API, whichever manifest it is of."""
        return self._standings("s.api = ? AND s.workflow_id = ?", api, workflow_id)

    def named(self, api: str, name: str) -> list[Standing]:
        """Every submission at an API that was last claimed under this name, whichever manifest it is of."""
        return self._standings("s.api = ? AND s.name = ?", api, name)

    def of_job(self, api: str, job_id: str) -> Standing | None:
        """The submission that has this job of the API."""
        return next(iter(self._standings("s.api = ? AND s.job_id = ?", api, rows.to_sql(job_id))), None)

    def counts(self) -> list[tuple[str, str, int | None, int]]:
        """How many submissions were last claimed by a run, are in a state and have a cost: run id, state, cost, count.

        Costs are left to be added up by the caller: SQLite's sum of integers can overflow.
        """
        return self.all("SELECT run_id, state, cost, count(*) FROM submissions GROUP BY run_id, state, cost")

    def everything(self) -> list[Standing]:
        """Every submission of the ledger."""
        return self._standings("1")

    def pairs(self, api: str, manifest: str) -> set[tuple[str, str]]:
        """The workflow/project pairs that were ever claimed for a manifest."""
        query = (
            "SELECT DISTINCT s.workflow_id, s.project_id FROM submissions s JOIN manifests m ON m.id = s.manifest "
            "WHERE m.api = ? AND m.name = ?"
        )
        return {(workflow_id, project_id) for workflow_id, project_id in self.all(query, api, manifest)}

    def held(self, api: str, job_ids: Collection[str]) -> set[str]:
        """Those of some job ids that submissions at the API have."""
        taken: set[str] = set()
        for some in _batches(list(job_ids)):
            query = f"SELECT job_id FROM submissions WHERE api = ? AND job_id IN ({_marks(some)})"  # noqa: S608 - marks alone
            taken.update(str(rows.from_sql(job_id)) for (job_id,) in self.all(query, api, *map(rows.to_sql, some)))
        return taken

    def creators(self, run_id: str) -> set[str]:
        """Who the API says created the jobs of a run, which had one key. What was found by a look-up does not tell."""
        query = (
            "SELECT DISTINCT created_by FROM submissions WHERE run_id = ? AND created_by IS NOT NULL AND NOT recovered"
        )
        found = self.all(query, run_id)
        with readable(self.path):
            return {str(rows.from_sql(value)) for (value,) in found}

    def body(self, submission: int) -> bytes:
        """The answer that created a job, as it came; empty where there was none."""
        found = self.all("SELECT body FROM answers WHERE submission = ?", submission)
        if not found:
            return b""
        with readable(self.path):
            return memoryview(found[0][0]).tobytes()

    def job_objects(self, submissions: Sequence[int]) -> dict[int, tuple[bytes, datetime | None]]:
        """The job object of each submission that has one, as it is known last, and when it was found to be final.

        That is the answer that created it, and None, for one that was not found to be final yet.
        """
        known: dict[int, tuple[bytes, datetime | None]] = {}
        for some in _batches(submissions):
            query = (
                "SELECT a.submission, coalesce(e.body, a.body), e.seen_at FROM answers a "  # noqa: S608 - marks alone
                f"LEFT JOIN endings e USING (submission) WHERE a.submission IN ({_marks(some)})"
            )
            found = self.all(query, *some)
            with readable(self.path):
                for number, body, seen_at in found:
                    known[number] = (memoryview(body).tobytes(), seen_at and datetime.fromisoformat(seen_at))
        return known

    def keep_endings(self, endings: Mapping[int, bytes], seen_at: datetime) -> None:
        """Keep the objects of jobs that are final, by submission. What they cost is told now, too."""
        with self.transaction():
            for submission, body in endings.items():
                self.write(
                    "INSERT OR REPLACE INTO endings (submission, seen_at, body) VALUES (?, ?, ?)",
                    *(submission, seen_at.isoformat(), body),
                )
                cost = _cost(jobobject.read(body))
                if cost:  # a list may have 0 where the answer had more: what was spent does not shrink to nothing
                    self.write("UPDATE submissions SET cost = ? WHERE id = ?", cost, submission)

    # What was settled later.

    def settle(self, decisions: Sequence[Decision]) -> None:
        """Settle doubts, all or none, and keep who decided what, and when.

        Only the holder of their manifests' locks may call this: an intent of another run is a live send.
        """
        with self._one_job_a_submission(), self.transaction():
            self.decide([(one.submission, one.outcome, one.ended_at) for one in decisions])
            for one in decisions:
                self.write(
                    "INSERT INTO decisions (submission, decided_at, decided_by, what, detail) VALUES (?, ?, ?, ?, ?)",
                    *(one.submission, one.decided_at.isoformat(), one.decided_by, one.what, one.detail),
                )

    def keep_candidates(self, candidates: Mapping[int, tuple[str, ...]]) -> None:
        """Keep which jobs at the API may be which submission in doubt."""
        with self.transaction():
            for submission, ids in candidates.items():
                self.write("UPDATE submissions SET candidates = ? WHERE id = ?", json.dumps(ids), submission)

    def doubt_intents(self, api: str, manifest: str, error: ErrorInfo) -> None:
        """Make doubts of a manifest's intents that have no outcome: their process is gone.

        Only the holder of the manifest's lock may call this.
        """
        with self.transaction():
            self.write(
                "UPDATE submissions SET state = 'in_doubt', error = ? WHERE state = 'sending' "
                "AND state IN ('sending', 'in_doubt') "  # in the words of the index, or all of the table is read
                "AND manifest = (SELECT id FROM manifests WHERE api = ? AND name = ?)",
                *(rows.error_text(error), api, manifest),
            )

    def decisions(self, submission: int) -> list[tuple[Any, ...]]:
        """What was decided of a submission after its exchange: when, by whom, what, and the detail; oldest first."""
        query = "SELECT decided_at, decided_by, what, detail FROM decisions WHERE submission = ? ORDER BY id"
        return [tuple(map(rows.from_sql, row)) for row in self.all(query, submission)]

    # The writes that a transaction is made of.

    def tried(self, run: RunRow) -> dict[tuple[str, str, int], int]:
        """The submissions of a run's key that may be claimed again, by workflow, project and ordinal: their numbers."""
        query = (
            "SELECT s.workflow_id, s.project_id, s.ordinal, s.id FROM submissions s JOIN manifests m ON "
            "m.id = s.manifest WHERE m.api = ? AND m.name = ? AND s.run_key = ? AND s.state IN ('failed', 'released')"
        )
        return {tuple(key): number for *key, number in self.all(query, run.api, run.manifest, run.run_key)}

    def claim(self, run: RunRow, manifest: int, claims: Sequence[tuple[int | None, Claim]]) -> list[int]:
        """Write intents, each with its submission's number if there was one before, and return their numbers.

        What exists, or may exist, can't be claimed. All of them are one statement: between any two, all threads take
        a turn.
        """
        [(last,)] = self.all("SELECT coalesce(max(id), 0) FROM submissions")  # nobody else writes meanwhile
        fresh = itertools.count(last + 1)
        numbers = [next(fresh) if number is None else number for number, _ in claims]
        for some in _batches(list(zip(numbers, claims, strict=True)), _MOST_ROWS):
            values = [
                value for number, (before, claim) in some for value in _intent(run, manifest, number, before, claim)
            ]
            self.write(f"{_CLAIM[0]} {_rows_of(values, len(some))} {_CLAIM[1]}", *values)
        [(made,)] = self.all("SELECT count(*) FROM submissions WHERE id > ?", last)
        self._see_that_all_are_there(made, sum(number is None for number, _ in claims))
        return numbers

    def release(self, submission: int) -> None:
        """Write that an intent was never sent."""
        self.write("UPDATE submissions SET state = 'released' WHERE id = ?", submission)

    def decide(self, decided: Sequence[tuple[int, Created | Failed | InDoubt, datetime | None]]) -> None:
        """Write outcomes: each a submission's number, what became of it, and when its exchange was over."""
        created: list[tuple[int, Created, str | None]] = []
        for submission, outcome, ended_at in decided:
            ended = None if ended_at is None else ended_at.isoformat()
            match outcome:
                case Created():
                    created.append((submission, outcome, ended))
                case Failed(error=error):
                    self._fail("failed", submission, error, None, ended)
                case InDoubt(error=error, candidates=candidates):
                    self._fail("in_doubt", submission, error, candidates, ended)
                case _:
                    assert_never(outcome)
        for some in _batches(created, _MOST_ROWS):
            self._create(some)

    def _fail(
        self, state: State, submission: int, error: ErrorInfo, candidates: Sequence[str] | None, ended: str | None
    ) -> None:
        changed = self.write(
            "UPDATE submissions SET state = ?, error = ?, candidates = ?, ended_at = ? WHERE id = ?",
            *(state, rows.error_text(error), None if candidates is None else json.dumps(candidates), ended, submission),
        )
        self._see_that_all_are_there(changed, 1)

    def _create(self, created: Sequence[tuple[int, Created, str | None]]) -> None:
        # The bytes first, as they came: what is read of them below may fail on anything but the id.
        bodies = [value for submission, one, _ in created for value in (submission, one.body)]
        self.write(f"INSERT OR REPLACE INTO answers VALUES {_rows_of(bodies, len(created))}", *bodies)  # noqa: S608 - marks alone
        values = [value for submission, one, ended in created for value in _told(submission, one, ended)]
        changed = self.write(f"{_CREATE[0]} {_rows_of(values, len(created))} {_CREATE[1]}", *values)
        self._see_that_all_are_there(changed, len(created))

    def _see_that_all_are_there(self, changed: int, wanted: int) -> None:
        if changed != wanted:  # an outcome would be forgotten, or be another's
            raise LedgerError(f"the ledger {self.path} has not the submissions that this run claimed in it", "")

    @contextmanager
    def _one_job_a_submission(self) -> Iterator[None]:
        """Another manifest may take a job between the look at the API and the settling: then it is no longer free."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise RefusedError(
                "a job was taken by another submission meanwhile, so nothing was settled", "Look again."
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside, or nothing. Durable when it ends."""
        with explained(self.path):
            self._see_that_it_is_there()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # on a full disk SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def _see_that_it_is_there(self) -> None:
        """SQLite goes on writing to a file that was deleted or replaced, and its record would be lost with it."""
        if _identity(self.path) != self._identity:
            raise LedgerError(
                f"the ledger {self.path} was deleted or replaced while it was in use",
                "Bring back the one that was there, if you can: it holds what was sent so far.",
            )

    def write(self, statement: str, *values: Any) -> int:
        """Run one statement of a transaction; how many rows it changed."""
        cursor = self._connection.execute(
            statement, [rows.to_sql(value) if isinstance(value, str) else value for value in values]
        )
        return cursor.rowcount

    def all(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        with explained(self.path):
            return self._connection.execute(query, values).fetchall()

    def _standings(self, condition: str, *values: Any) -> list[Standing]:
        found = self.all(f"{_SUBMISSIONS} WHERE {condition} ORDER BY s.id", *values)
        with readable(self.path):
            labels: dict[str, Mapping[str, str]] = {"{}": {}}
            return [rows.standing(row, labels) for row in found]


def _batches(values: Sequence[_T], most: int = _MOST_VALUES) -> Iterator[Sequence[_T]]:
    """The values in portions that a statement can take."""
    for start in range(0, len(values), most):
        yield values[start : start + most]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _rows_of(values: Sequence[Any], count: int) -> str:
    """Marks for so many rows that these are the values of."""
    row = f"({', '.join('?' * (len(values) // count))})"
    return ", ".join([row] * count)


def _intent(run: RunRow, manifest: int, number: int, before: int | None, claim: Claim) -> tuple[Any, ...]:
    submission, job = claim.submission, claim.submission.job
    return (
        number if before is None else None,  # of one that is there, the number stays
        *(manifest, run.run_key, job.workflow_id, job.project_id, submission.ordinal, submission.again, run.api),
        *("sending", job.name, json.dumps(dict(job.labels)) if job.labels else "{}", run.id, claim.attempt),
        *(claim.claimed_at.isoformat(), claim.timeout, submission.estimate),
    )


def _told(submission: int, created: Created, ended: str | None) -> tuple[Any, ...]:
    """The values of _CREATE."""
    job = jobobject.read(created.body)
    return (
        *(submission, created.job_id, job.created_by if job else None, _cost(job), len(job.val_errors) if job else 0),
        *(created.recovered, created.assigned, json.dumps(created.candidates) if created.candidates else "[]", ended),
    )


def _cost(job: JobObject | None) -> int | None:
    """A job's cost, where the API told one; as large as SQLite can hold if it is larger: it must not count as none."""
    return None if job is None or job.cost is None else max(-LARGEST_COST, min(LARGEST_COST, job.cost))


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to; None when to none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
