"""The record of a run key, from the current state of the ledger: results files and reports are made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from runner.core.models import (
    CostEntry,
    Created,
    Entry,
    InDoubt,
    Job,
    NotCreated,
    Outcome,
    Run,
    RunRecord,
    Skipped,
    Submission,
)
from runner.ledger.rows import KILLED, RecordedOutcome, RunRow, SubmissionRow
from runner.ledger.store import Ledger
from runner.ledger.writes import LARGEST_COST
from runner.planning.plan import Match, match_submissions, skip_reason

_BATCH = 100  # job objects that are read at once: some kilobytes each, 8 MiB at most


def load_record(
    ledger: Ledger, run: RunRow, unsaved: Sequence[RecordedOutcome] = (), unreleased: Sequence[Submission] = ()
) -> RunRecord:
    """Load the record of a run's key, with the manifest's jobs as they were in that run.

    A run without an end is reported as interrupted: call this for one that has ended, or whose process is gone.
    `unsaved` are outcomes that could not be saved to the ledger; `unreleased` are claims that were certainly not sent.
    """
    jobs = ledger.manifest_jobs(run)
    match = match_submissions(jobs, ledger.submissions(run.api, run.manifest, run.run_key))
    return build_record(ledger, run, jobs, match, unsaved, unreleased)


def build_record(
    ledger: Ledger,
    run: RunRow,
    jobs: Sequence[Job],
    match: Match,
    unsaved: Sequence[RecordedOutcome] = (),
    unreleased: Sequence[Submission] = (),
) -> RunRecord:
    """Build the record like `load_record`, from jobs and their current submissions in the ledger."""
    outcomes: dict[str, Outcome] = {saved.submission.job.name: saved.outcome for saved in unsaved}
    outcomes |= {claim.job.name: Skipped(run.reason or "stopped", run.detail) for claim in unreleased}
    entries = LedgerEntries(ledger, run, jobs, match, outcomes)
    return RunRecord(_describe_run(run), entries, entries.outline)


@dataclass(frozen=True, slots=True)
class LazyEntries:
    """The entries of a record whose ledger is opened for each iteration, so that many records hold none open.

    Iterating raises RefusedError if the ledger cannot be read any more.
    """

    ledger: Path
    run: RunRow
    count: int
    unsaved: Sequence[RecordedOutcome] = ()
    unreleased: Sequence[Submission] = ()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        with Ledger(self.ledger, read_only=True) as ledger:
            yield from load_record(ledger, self.run, self.unsaved, self.unreleased).entries


@dataclass(frozen=True, slots=True)
class LedgerEntries:
    """The entries of a record. Each iteration reads the job objects again: they are not kept in memory.

    `unsaved` are outcomes by job name that the ledger does not have.
    """

    ledger: Ledger
    run: RunRow
    jobs: Sequence[Job]
    match: Match
    unsaved: Mapping[str, Outcome]

    def __len__(self) -> int:
        return len(self.jobs) + len(self.match.unlisted)

    def __iter__(self) -> Iterator[Entry]:
        pairs = self._pairs()
        while batch := list(islice(pairs, _BATCH)):
            ids = [row.id for _, row in batch if row is not None and row.state == "created"]
            bodies = self.ledger.job_objects(ids)
            for job, row in batch:
                yield self._entry(job, row, bodies)

    def outline(self) -> Iterator[Entry | CostEntry]:
        """Yield the same without reading job objects, except for costs that exceed the ledger's column."""
        for job, row in self._pairs():
            if row is None or row.state != "created" or job.name in self.unsaved:
                yield self._entry(job, row, {})
            elif row.cost is not None and abs(row.cost) >= LARGEST_COST:
                yield self._entry(job, row, self.ledger.job_objects([row.id]))
            else:
                yield CostEntry(job.project_id, row.run_id, max(0, row.cost or 0), row.val_errors, row.estimate)

    def _entry(self, job: Job, row: SubmissionRow | None, bodies: Mapping[int, tuple[bytes, datetime | None]]) -> Entry:
        if job.name in self.unsaved:
            return Entry(job, self.unsaved[job.name], self.run.id)
        if row is None or row.state == "released":
            return Entry(job, _skipped(job, self.run), self.run.id)
        return Entry(job, to_outcome(row, *bodies.get(row.id, (b"", None))), row.run_id)

    def _pairs(self) -> Iterator[tuple[Job, SubmissionRow | None]]:
        """Yield each job with its submission, then the submissions without an entry."""
        for job in self.jobs:
            yield job, self.match.by_name.get(job.name)
        for row in self.match.unlisted:
            yield Job(row.name, row.workflow_id, row.project_id, row.labels), row


def to_outcome(submission: SubmissionRow, body: bytes, seen_at: datetime | None = None) -> Outcome:
    """Return the outcome of a submission. `body` is its job object: as of `seen_at` if given, else of the response."""
    if submission.job_id is not None:
        return Created(
            submission.job_id,
            body,
            submission.attempts,
            submission.claimed_at,
            submission.recovered,
            submission.assigned,
            submission.candidates,
            submission.estimate,
            seen_at,
        )
    error = submission.error or KILLED
    if submission.state == "not_created":
        return NotCreated(error, submission.attempts, submission.claimed_at)
    return InDoubt(error, submission.attempts, submission.claimed_at, submission.candidates, submission.estimate)


def _skipped(job: Job, run: RunRow) -> Skipped:
    reason = skip_reason(job, run.settings.get("only", ()))
    if reason is not None:
        return reason
    return Skipped(
        run.reason or ("stopped" if run.state == "stopped" else "interrupted"),
        run.detail or "the run ended before its turn",
    )


def _describe_run(run: RunRow) -> Run:
    return Run(
        id=run.id,
        key=run.run_key,
        state="interrupted" if run.state == "running" else run.state,
        started_at=run.started_at,
        finished_at=run.finished_at or datetime.now(UTC),
        runner=run.runner,
        manifest_name=run.manifest,
        manifest_path=run.path,
        manifest_sha256=run.sha256,
        git_commit=run.git_commit,
        base_url=run.api,
        settings=run.settings,
    )
