"""The ledger: runs, intents and outcomes, written in the order that the promise rests on. One thread owns it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from runner.client.job import parse_job
from runner.core.errors import RefusedError
from runner.core.models import ErrorInfo, Job, RunState
from runner.ledger import rows
from runner.ledger.connect import reject_invalid_values
from runner.ledger.database import batches, marks
from runner.ledger.rows import Decision, RunRow, SubmissionRow
from runner.ledger.writes import Writes, known_cost

_SUBMISSIONS = "FROM submissions s JOIN manifests m ON m.id = s.manifest"
_RUNS = f"SELECT {rows.RUN_COLUMNS} FROM runs r JOIN manifests m ON m.id = r.manifest"  # noqa: S608 - likewise
_WHOSE = "(? IS NULL OR m.api = ?) AND (? IS NULL OR m.name = ?)"


class Ledger(Writes):
    """An open ledger: what was run, where each submission stands, and what was settled later."""

    # Manifests and runs.

    def manifest_paths(self, api: str) -> dict[str, str]:
        """Each manifest that was run at an API, by name: the absolute path of its file."""
        found = self.query("SELECT name, path FROM manifests WHERE api = ?", api)
        return {name: str(rows.from_sql(path)) for name, path in found}

    def manifests(self) -> list[tuple[str, str, str]]:
        """Each manifest that was ever run: its API, its name, and the absolute path of its file."""
        found = self.query("SELECT api, name, path FROM manifests ORDER BY id")
        return [(api, name, str(rows.from_sql(path))) for api, name, path in found]

    def start_run(self, run: RunRow, jobs: Sequence[Job], absolute_path: str) -> None:
        """Keep that a run began, and that earlier ones of its manifest ended: their processes are gone.

        Only the holder of the manifest's lock may call this.
        """
        with self.transaction():
            self.execute(
                "INSERT INTO manifests (api, name, path) VALUES (?, ?, ?) "
                "ON CONFLICT (api, name) DO UPDATE SET path = excluded.path",
                *(run.api, run.manifest, absolute_path),
            )
            manifest = self.manifest_id(run.api, run.manifest)
            if not self.query("SELECT 1 FROM snapshots WHERE sha256 = ?", run.sha256):
                self.execute("INSERT INTO snapshots VALUES (?, ?)", run.sha256, rows.pack_jobs(jobs))
            self.execute(
                "UPDATE runs SET state = 'interrupted', reason = 'interrupted', why = ? "
                "WHERE manifest = ? AND state = 'running'",
                *("its process ended without a word", manifest),
            )
            self.execute(
                "INSERT INTO runs (id, manifest, run_key, once_per, state, reason, why, started_at, runner, path, "
                "sha256, git_commit, settings) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(run.id, manifest, run.run_key, run.once_per, run.state, run.reason, run.detail),
                run.started_at.isoformat(),
                *(run.runner, run.path, run.sha256, run.git_commit, json.dumps(dict(run.settings))),
            )

    def finish_run(self, run_id: str, state: RunState, reason: str, why: str, finished_at: datetime) -> None:
        """Keep how a run ended."""
        with self.transaction():
            self.execute(
                "UPDATE runs SET state = ?, reason = ?, why = ?, finished_at = ? WHERE id = ?",
                *(state, reason, why, finished_at.isoformat(), run_id),
            )

    def runs(self, api: str | None = None, manifest: str | None = None) -> Iterator[RunRow]:
        """Runs, the newest first; of one API or manifest, or of all."""
        for row in self.query(f"{_RUNS} WHERE {_WHOSE} ORDER BY r.rowid DESC", api, api, manifest, manifest):
            with reject_invalid_values(self.path):
                found = rows.read_run(row)
            yield found

    def manifest_jobs(self, run: RunRow) -> tuple[Job, ...]:
        """The manifest's jobs as they were in a run."""
        with reject_invalid_values(self.path):
            [(snapshot,)] = self.query("SELECT jobs FROM snapshots WHERE sha256 = ?", run.sha256)
            return rows.unpack_jobs(snapshot)

    def manifest_id(self, api: str, name: str) -> int:
        """The number of a manifest that was run at an API."""
        [(found,)] = self.query("SELECT id FROM manifests WHERE api = ? AND name = ?", api, name)
        return int(found)

    # Where submissions stand.

    def submissions(self, api: str, manifest: str, run_key: str) -> list[SubmissionRow]:
        """Where each submission of a run key stands, in the order in which they were first claimed."""
        return self._standings("m.api = ? AND m.name = ? AND s.run_key = ?", api, manifest, run_key)

    def unresolved(self, api: str | None = None, manifest: str | None = None) -> list[SubmissionRow]:
        """Submissions in doubt, and intents without an outcome; of one API or manifest, or of all."""
        return self._standings(f"s.state IN ('sending', 'in_doubt') AND {_WHOSE}", api, api, manifest, manifest)

    def submissions_by_workflow(self, api: str, workflow_id: str) -> list[SubmissionRow]:
        """Every submission of a workflow at an API, whichever manifest it is of."""
        return self._standings("s.api = ? AND s.workflow_id = ?", api, workflow_id)

    def submissions_by_name(self, api: str, name: str) -> list[SubmissionRow]:
        """Every submission at an API that was last claimed under this name, whichever manifest it is of."""
        return self._standings("s.api = ? AND s.name = ?", api, name)

    def submission_by_job_id(self, api: str, job_id: str) -> SubmissionRow | None:
        """The submission that has this job of the API."""
        return next(iter(self._standings("s.api = ? AND s.job_id = ?", api, rows.to_sql(job_id))), None)

    def submission_counts(self) -> list[tuple[str, str, int | None, int]]:
        """How many submissions were last claimed by a run, are in a state and have a cost: run id, state, cost, count.

        Costs are left to be added up by the caller: SQLite's sum of integers can overflow.
        """
        found = self.query("SELECT run_id, state, cost, count(*) FROM submissions GROUP BY run_id, state, cost")
        with reject_invalid_values(self.path):
            return [rows.read_count(row) for row in found]

    def all_submissions(self) -> list[SubmissionRow]:
        """Every submission of the ledger."""
        return self._standings("1")

    def claimed_pairs(self, api: str, manifest: str) -> set[tuple[str, str]]:
        """The workflow/project pairs that were ever claimed for a manifest."""
        query = (
            "SELECT DISTINCT s.workflow_id, s.project_id FROM submissions s JOIN manifests m ON m.id = s.manifest "
            "WHERE m.api = ? AND m.name = ?"
        )
        return {(workflow_id, project_id) for workflow_id, project_id in self.query(query, api, manifest)}

    def ids_in_use(self, api: str, job_ids: Collection[str]) -> set[str]:
        """Those of some job ids that submissions at the API have."""
        taken: set[str] = set()
        for some in batches(list(job_ids)):
            query = f"SELECT job_id FROM submissions WHERE api = ? AND job_id IN ({marks(some)})"  # noqa: S608 - marks alone
            taken.update(str(rows.from_sql(job_id)) for (job_id,) in self.query(query, api, *map(rows.to_sql, some)))
        return taken

    def creators(self, run_id: str) -> set[str]:
        """Who the API says created the jobs of a run, which had one key. What was found by a look-up does not tell."""
        query = (
            "SELECT DISTINCT created_by FROM submissions WHERE run_id = ? AND created_by IS NOT NULL AND NOT recovered"
        )
        found = self.query(query, run_id)
        with reject_invalid_values(self.path):
            return {str(rows.from_sql(value)) for (value,) in found}

    def job_objects(self, submissions: Sequence[int]) -> dict[int, tuple[bytes, datetime | None]]:
        """The job object of each submission that has one, as it is known last, and when it was found to be final.

        That is the answer that created it, and None, for one that was not found to be final yet.
        """
        known: dict[int, tuple[bytes, datetime | None]] = {}
        for some in batches(submissions):
            query = (
                "SELECT a.submission, coalesce(e.body, a.body), e.seen_at FROM answers a "  # noqa: S608 - marks alone
                f"LEFT JOIN endings e USING (submission) WHERE a.submission IN ({marks(some)})"
            )
            found = self.query(query, *some)
            with reject_invalid_values(self.path):
                for number, body, seen_at in found:
                    known[number] = (memoryview(body).tobytes(), seen_at and datetime.fromisoformat(seen_at))
        return known

    def save_final_jobs(self, endings: Mapping[int, bytes], seen_at: datetime) -> None:
        """Keep the objects of jobs that are final, by submission. What they cost is told now, too."""
        with self.transaction():
            for submission, body in endings.items():
                self.execute(
                    "INSERT OR REPLACE INTO endings (submission, seen_at, body) VALUES (?, ?, ?)",
                    *(submission, seen_at.isoformat(), body),
                )
                cost = known_cost(parse_job(body))
                if cost:  # a list may have 0 where the answer had more: what was spent does not shrink to nothing
                    self.execute("UPDATE submissions SET cost = ? WHERE id = ?", cost, submission)

    # What was settled later.

    def resolve(self, decisions: Sequence[Decision]) -> None:
        """Settle doubts, all or none, and keep who decided what, and when.

        Only the holder of their manifests' locks may call this: an intent of another run is a live send.
        """
        with self._one_job_a_submission(), self.transaction():
            for one in decisions:  # in their order, as two may be of one submission
                self.save_outcomes([(one.submission, one.outcome, one.ended_at)])
                self.execute(
                    "INSERT INTO decisions (submission, decided_at, decided_by, what, detail) VALUES (?, ?, ?, ?, ?)",
                    *(one.submission, one.decided_at.isoformat(), one.decided_by, one.action, one.detail),
                )

    def save_candidates(self, candidates: Mapping[int, tuple[str, ...]]) -> None:
        """Keep which jobs at the API may be which submission in doubt."""
        with self.transaction():
            for submission, ids in candidates.items():
                self.execute("UPDATE submissions SET candidates = ? WHERE id = ?", json.dumps(ids), submission)

    def mark_intents_in_doubt(self, api: str, manifest: str, error: ErrorInfo) -> None:
        """Make doubts of a manifest's intents that have no outcome: their process is gone.

        Only the holder of the manifest's lock may call this.
        """
        with self.transaction():
            self.execute(
                "UPDATE submissions SET state = 'in_doubt', error = ? WHERE state = 'sending' "
                "AND state IN ('sending', 'in_doubt') "  # in the words of the index, or all of the table is read
                "AND manifest = (SELECT id FROM manifests WHERE api = ? AND name = ?)",
                *(rows.error_text(error), api, manifest),
            )

    def decisions(self, submission: int) -> list[tuple[Any, ...]]:
        """What was decided of a submission after its exchange: when, by whom, what, and the detail; oldest first."""
        query = "SELECT decided_at, decided_by, what, detail FROM decisions WHERE submission = ? ORDER BY id"
        return [tuple(map(rows.from_sql, row)) for row in self.query(query, submission)]

    @contextmanager
    def _one_job_a_submission(self) -> Iterator[None]:
        """Another manifest may take a job between the look at the API and the settling: then it is no longer free."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise RefusedError(
                "a job was taken by another submission meanwhile, so nothing was settled", "Look again."
            ) from error

    def _standings(self, condition: str, *values: Any) -> list[SubmissionRow]:
        # Numbers first, by an index alone: in their order the rows are read in two thirds of the time.
        numbers = f"SELECT s.id {_SUBMISSIONS} WHERE {condition}"
        query = f"SELECT {rows.STANDING_COLUMNS} {_SUBMISSIONS} WHERE s.id IN ({numbers}) ORDER BY s.id"
        found = self.query(query, *values)
        with reject_invalid_values(self.path):
            labels: dict[str, Mapping[str, str]] = {"{}": {}}
            return [rows.read_submission(row, labels) for row in found]
