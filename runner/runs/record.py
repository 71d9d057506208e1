"""The record of a run key, made from the ledger's present truth: what results files and reports are made of."""

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
    ErrorInfo,
    InDoubt,
    Job,
    NotCreated,
    Outcome,
    Run,
    RunRecord,
    Skipped,
    Submission,
)
from runner.ledger.rows import RecordedOutcome, RunRow, SubmissionRow
from runner.ledger.store import Ledger
from runner.ledger.writes import LARGEST_COST
from runner.planning import plan

_BATCH = 100  # answers that are read at once: of some kilobytes each, and 8 MiB at most

KILLED = ErrorInfo("interrupted", "the process ended while it was being sent; the job may have been created")


def load_record(
    ledger: Ledger, run: RunRow, unrecorded: Sequence[RecordedOutcome] = (), unreleased: Sequence[Submission] = ()
) -> RunRecord:
    """The record of a run's key, with the manifest's jobs as they were in that run.

    A run that never ended is told as interrupted: call this for one that has ended, or whose process is gone.
    `unrecorded` are outcomes that are known and could not be written to the ledger; `unreleased` are claimed in it, and
    certainly were not sent.
    """
    jobs = ledger.manifest_jobs(run)
    matched = plan.match_submissions(jobs, ledger.submissions(run.api, run.manifest, run.run_key))
    return build_record(ledger, run, jobs, matched, unrecorded, unreleased)


def build_record(
    ledger: Ledger,
    run: RunRow,
    jobs: Sequence[Job],
    matched: plan.Match,
    unrecorded: Sequence[RecordedOutcome] = (),
    unreleased: Sequence[Submission] = (),
) -> RunRecord:
    """The same of jobs and submissions that are at hand, and are those of the ledger now.

    `unreleased` are claimed in the ledger, and certainly were not sent.
    """
    known: dict[str, Outcome] = {one.submission.job.name: one.outcome for one in unrecorded}
    known |= {one.job.name: Skipped(run.reason or "stopped", run.detail) for one in unreleased}
    entries = LedgerEntries(ledger, run, jobs, matched, known)
    return RunRecord(_about(run), entries, entries.outline)


@dataclass(frozen=True, slots=True)
class LazyEntries:
    """The entries of a record whose ledger is opened each time through: of very many records none is held open.

    Going through raises RefusedError when the ledger cannot be read any more.
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
    """The entries of a record. Each time through, the answers' bodies are read anew: they are not held in memory."""

    ledger: Ledger
    run: RunRow
    jobs: Sequence[Job]
    matched: plan.Match
    unrecorded: Mapping[str, Outcome]

    def __len__(self) -> int:
        return len(self.jobs) + len(self.matched.unlisted)

    def __iter__(self) -> Iterator[Entry]:
        lines = self._lines()
        while batch := list(islice(lines, _BATCH)):
            told = self.ledger.job_objects([one.id for _, one in batch if one is not None and one.state == "created"])
            for job, standing in batch:
                yield self._entry(job, standing, told)

    def outline(self) -> Iterator[Entry | CostEntry]:
        """The same without reading an answer, but for a cost that is too large for the ledger's own column."""
        for job, one in self._lines():
            if one is None or one.state != "created" or job.name in self.unrecorded:
                yield self._entry(job, one, {})
            elif one.cost is not None and abs(one.cost) >= LARGEST_COST:
                yield self._entry(job, one, self.ledger.job_objects([one.id]))
            else:
                yield CostEntry(job.project_id, one.run_id, max(0, one.cost or 0), one.val_errors, one.estimate)

    def _entry(
        self, job: Job, standing: SubmissionRow | None, told: Mapping[int, tuple[bytes, datetime | None]]
    ) -> Entry:
        if job.name in self.unrecorded:
            return Entry(job, self.unrecorded[job.name], self.run.id)
        if standing is None or standing.state == "released":
            return Entry(job, _not_sent(job, self.run), self.run.id)
        return Entry(job, to_outcome(standing, *told.get(standing.id, (b"", None))), standing.run_id)

    def _lines(self) -> Iterator[tuple[Job, SubmissionRow | None]]:
        for job in self.jobs:
            yield job, self.matched.by_name.get(job.name)
        for standing in self.matched.unlisted:
            yield Job(standing.name, standing.workflow_id, standing.project_id, standing.labels), standing


def to_outcome(standing: SubmissionRow, body: bytes, seen_at: datetime | None = None) -> Outcome:
    """What became of a submission. `body` is its job's object: of `seen_at` if that is given, else the answer's."""
    if standing.job_id is not None:
        return Created(
            standing.job_id,
            body,
            standing.attempts,
            standing.claimed_at,
            standing.recovered,
            standing.assigned,
            standing.candidates,
            standing.estimate,
            seen_at,
        )
    error = standing.error or KILLED
    if standing.state == "not_created":
        return NotCreated(error, standing.attempts, standing.claimed_at)
    return InDoubt(error, standing.attempts, standing.claimed_at, standing.candidates, standing.estimate)


def _not_sent(job: Job, run: RunRow) -> Skipped:
    reason = plan.skip_reason(job, run.settings.get("only", ()))
    if reason is not None:
        return reason
    return Skipped(
        run.reason or ("stopped" if run.state == "stopped" else "interrupted"),
        run.detail or "the run ended before its turn",
    )


def _about(run: RunRow) -> Run:
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
