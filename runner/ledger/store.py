"""The ledger: runs, submissions, and how doubts were resolved. One thread owns an open ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from runner.client.job import parse_job
from runner.core.errors import RefusedError
from runner.core.models import ErrorInfo, Job
from runner.ledger import rows
from runner.ledger.database import batches, marks
from runner.ledger.errors import reject_invalid_values
from runner.ledger.rows import Decision, RunRow, SubmissionCount, SubmissionRow
from runner.ledger.writes import SubmissionWriter, bounded_cost

_FROM_SUBMISSIONS = "FROM submissions s JOIN manifests m ON m.id = s.manifest"
_SELECT_RUNS = f"SELECT {rows.RUN_COLUMNS} FROM runs r JOIN manifests m ON m.id = r.manifest"  # noqa: S608 - column names
_OF_MANIFEST = "(? IS NULL OR m.api = ?) AND (? IS NULL OR m.name = ?)"


class _StoredJob(NamedTuple):
    submission: int
    body: bytes
    seen_at: datetime | None


class Ledger(SubmissionWriter):
    """An open ledger."""

    # Manifests and runs.

    def manifests(self) -> list[tuple[str, str, str]]:
        """Each manifest that was ever run: its API, its name, and the absolute path of its file."""
        found = self.query("SELECT api, name, path FROM manifests ORDER BY id")
        return [(api, name, str(rows.from_sql(path))) for api, name, path in found]

    def manifest_paths(self, api: str) -> dict[str, str]:
        """The absolute path of each manifest that was ever run at an API, by name."""
        return {name: path for of_api, name, path in self.manifests() if of_api == api}

    def manifest_id(self, api: str, name: str) -> int:
        """The id of a manifest that was run at an API."""
        [(manifest,)] = self.query("SELECT id FROM manifests WHERE api = ? AND name = ?", api, name)
        return int(manifest)

    def start_run(self, run: RunRow, jobs: Sequence[Job], absolute_path: str) -> None:
        """Save that a run started, and that earlier ones of its manifest ended: their processes are gone.

        Only the holder of the manifest's lock may call this.
        """
        with self.transaction():
            self.insert(
                "manifests",
                {"api": run.api, "name": run.manifest, "path": absolute_path},
                conflict="ON CONFLICT (api, name) DO UPDATE SET path = excluded.path",
            )
            manifest = self.manifest_id(run.api, run.manifest)
            if not self.query("SELECT 1 FROM snapshots WHERE sha256 = ?", run.sha256):
                self.insert("snapshots", {"sha256": run.sha256, "jobs": rows.pack_jobs(jobs)})
            self.execute(
                "UPDATE runs SET state = 'interrupted', reason = 'interrupted', detail = ? "
                "WHERE manifest = ? AND state = 'running'",
                *("its process ended unexpectedly", manifest),
            )
            values = {name: getattr(run, name) for name in rows.column_names(RunRow) if name != "api"}
            self.insert("runs", values | {"manifest": manifest})

    def finish_run(self, run: RunRow) -> None:
        """Save how a run ended: its state, reason, detail and time."""
        with self.transaction():
            self.execute(
                "UPDATE runs SET state = ?, reason = ?, detail = ?, finished_at = ? WHERE id = ?",
                *(run.state, run.reason, run.detail, run.finished_at, run.id),
            )

    def runs(self, api: str | None = None, manifest: str | None = None) -> Iterator[RunRow]:
        """Runs, the newest first; of one API or manifest, or of all."""
        query = f"{_SELECT_RUNS} WHERE {_OF_MANIFEST} ORDER BY r.rowid DESC"
        for row in self.query(query, api, api, manifest, manifest):
            with reject_invalid_values(self.path):
                run = rows.decode(RunRow, row)
            yield run

    def manifest_jobs(self, run: RunRow) -> tuple[Job, ...]:
        """The manifest's jobs as they were in a run."""
        with reject_invalid_values(self.path):
            [(snapshot,)] = self.query("SELECT jobs FROM snapshots WHERE sha256 = ?", run.sha256)
            return rows.unpack_jobs(snapshot)

    # Submissions.

    def submissions(self, api: str, manifest: str, run_key: str) -> list[SubmissionRow]:
        """The submissions of a run key, in the order in which they were first claimed."""
        return self._select("m.api = ? AND m.name = ? AND s.run_key = ?", api, manifest, run_key)

    def unresolved(self, api: str | None = None, manifest: str | None = None) -> list[SubmissionRow]:
        """Submissions in doubt, and intents without an outcome; of one API or manifest, or of all."""
        return self._select(f"s.state IN ('sending', 'in_doubt') AND {_OF_MANIFEST}", api, api, manifest, manifest)

    def submissions_by_workflow(self, api: str, workflow_id: str) -> list[SubmissionRow]:
        """The submissions of a workflow at an API, of every manifest."""
        return self._select("s.api = ? AND s.workflow_id = ?", api, workflow_id)

    def submissions_by_name(self, api: str, name: str) -> list[SubmissionRow]:
        """The submissions at an API that were last claimed under a name, of every manifest."""
        return self._select("s.api = ? AND s.name = ?", api, name)

    def submission_by_job_id(self, api: str, job_id: str) -> SubmissionRow | None:
        """The submission that created a job of the API."""
        return next(iter(self._select("s.api = ? AND s.job_id = ?", api, job_id)), None)

    def all_submissions(self) -> list[SubmissionRow]:
        """Every submission of the ledger."""
        return self._select("1")

    def _select(self, condition: str, *values: object) -> list[SubmissionRow]:
        # Ids first, by an index alone: in their order the rows are read in two thirds of the time.
        ids = f"SELECT s.id {_FROM_SUBMISSIONS} WHERE {condition}"
        query = f"SELECT {rows.SUBMISSION_COLUMNS} {_FROM_SUBMISSIONS} WHERE s.id IN ({ids}) ORDER BY s.id"
        found = self.query(query, *values)
        with reject_invalid_values(self.path):
            return [rows.read_submission(row) for row in found]

    def submission_counts(self) -> list[SubmissionCount]:
        """How many submissions were last claimed by each run, are in each state and have each cost.

        Costs are left to be added up by the caller: SQLite's sum of integers can overflow.
        """
        query = "SELECT run_id, state, cost, count(*) FROM submissions GROUP BY run_id, state, cost"
        return self.decode_all(SubmissionCount, query)

    def claimed_pairs(self, api: str, manifest: str) -> set[tuple[str, str]]:
        """The workflow/project pairs that were ever claimed for a manifest."""
        query = f"SELECT DISTINCT s.workflow_id, s.project_id {_FROM_SUBMISSIONS} WHERE m.api = ? AND m.name = ?"
        return {(workflow_id, project_id) for workflow_id, project_id in self.query(query, api, manifest)}

    def ids_in_use(self, api: str, job_ids: Collection[str]) -> set[str]:
        """Those of some job ids that submissions at the API have."""
        used: set[str] = set()
        for batch in batches(list(job_ids)):
            query = f"SELECT job_id FROM submissions WHERE api = ? AND job_id IN ({marks(len(batch))})"  # noqa: S608 - placeholders
            used.update(str(rows.from_sql(job_id)) for (job_id,) in self.query(query, api, *batch))
        return used

    def creators(self, run_id: str) -> set[str]:
        """Who created the jobs of a run according to the API, without those that a lookup found."""
        query = "SELECT DISTINCT created_by FROM submissions WHERE run_id = ? AND created_by NOTNULL AND NOT recovered"
        found = self.query(query, run_id)
        with reject_invalid_values(self.path):
            return {str(rows.from_sql(creator)) for (creator,) in found}

    def job_objects(self, submissions: Sequence[int]) -> dict[int, tuple[bytes, datetime | None]]:
        """The latest job object of each submission that has one, and when it was seen to be final.

        Of a job that is not known to be final, that is the response that created it, and None.
        """
        jobs: dict[int, tuple[bytes, datetime | None]] = {}
        for batch in batches(submissions):
            query = (
                "SELECT r.submission, coalesce(f.body, r.body), f.seen_at FROM responses r "  # noqa: S608 - placeholders
                f"LEFT JOIN final_jobs f USING (submission) WHERE r.submission IN ({marks(len(batch))})"
            )
            for job in self.decode_all(_StoredJob, query, *batch):
                jobs[job.submission] = (job.body, job.seen_at)
        return jobs

    def save_final_jobs(self, bodies: Mapping[int, bytes], seen_at: datetime) -> None:
        """Save the objects of jobs that are final, by submission, and what they cost."""
        with self.transaction():
            for submission, body in bodies.items():
                self.insert(
                    "final_jobs",
                    {"submission": submission, "seen_at": seen_at, "body": body},
                    conflict="ON CONFLICT (submission) DO UPDATE SET seen_at = excluded.seen_at, body = excluded.body",
                )
                cost = bounded_cost(parse_job(body))
                if cost:  # a list may say 0 where the response said more: what was spent does not become nothing
                    self.execute("UPDATE submissions SET cost = ? WHERE id = ?", cost, submission)

    # Doubts.

    def mark_intents_in_doubt(self, api: str, manifest: str, error: ErrorInfo) -> None:
        """Mark a manifest's intents without an outcome as in doubt: their process is gone.

        Only the holder of the manifest's lock may call this.
        """
        with self.transaction():
            self.execute(
                "UPDATE submissions SET state = 'in_doubt', error = ? WHERE state = 'sending' "
                "AND state IN ('sending', 'in_doubt') "  # as the index has it, or the whole table is read
                "AND manifest = (SELECT id FROM manifests WHERE api = ? AND name = ?)",
                *(error, api, manifest),
            )

    def resolve(self, decisions: Sequence[Decision]) -> None:
        """Save decisions on doubts, all or none, with who made them and when.

        Only the holder of their manifests' locks may call this: an intent of another run is a live send.

        Raises:
            RefusedError: a job belongs to another submission by now.
        """
        columns = ("submission", "decided_at", "decided_by", "action", "detail")
        try:
            with self.transaction():
                for decision in decisions:  # in their order, as two may be of one submission
                    self.save_outcomes([(decision.submission, decision.outcome, decision.ended_at)])
                    self.insert("decisions", {name: getattr(decision, name) for name in columns})
        except sqlite3.IntegrityError as error:
            raise RefusedError(
                "another submission took one of the jobs meanwhile, so nothing was resolved", "Run the lookup again."
            ) from error

    def save_candidates(self, candidates: Mapping[int, tuple[str, ...]]) -> None:
        """Save the ids of the jobs that submissions in doubt may have created, by submission."""
        with self.transaction():
            for submission, job_ids in candidates.items():
                self.execute("UPDATE submissions SET candidates = ? WHERE id = ?", job_ids, submission)
