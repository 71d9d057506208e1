"""Which run key a run of a manifest belongs to: its period's, the last run's, or one of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from runner import periods, plan
from runner.errors import RefusedError
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.model import Job, Manifest


class Answer(Enum):
    """What to do when the last run of `once_per: run` is unfinished. RESUME is asked for even if it is not."""

    REFUSE = "refuse"
    RESUME_IF_UNFINISHED = "resume"
    NEW = "new"
    RESUME = "--resume"

    @classmethod
    def of(cls, manifest: Manifest, *, resume: bool, new: bool) -> Answer:
        """The flags' answer, else the manifest's."""
        if resume:
            return cls.RESUME
        return cls.NEW if new else cls(manifest.on_unfinished)


@dataclass(frozen=True, slots=True)
class Choice:
    """A run key, and what a person wants to know about how it came to be chosen."""

    run_key: str
    notes: tuple[str, ...] = ()


def choose(ledger: Ledger, api: str, manifest: Manifest, answer: Answer, run_id: str, now: datetime) -> Choice:
    """Choose the run key. Nothing is written.

    Raises:
        RefusedError: the last run is unfinished, and nobody said what to do.
        UsageError: the timezone is not known on this machine.
    """
    fresh = Choice(periods.run_key(manifest.once_per, manifest.timezone, now, run_id))
    last = next(ledger.runs(api, manifest.name), None)
    if manifest.once_per != "run" or last is None or last.once_per != "run" or answer is Answer.NEW:
        return fresh
    left, listed = _unfinished(ledger, last, manifest)
    if answer is Answer.RESUME or (left and answer is Answer.RESUME_IF_UNFINISHED):
        return Choice(last.run_key, _what_changed(ledger, last, manifest))
    if left:
        raise RefusedError(
            f"the last run of {manifest.name} ({last.id}) left {left} of {listed} jobs not created",
            "Finish it, sending only those: --resume. Start over, and pay for every job again: --new.",
        )
    return fresh


def _unfinished(ledger: Ledger, last: RunRow, manifest: Manifest) -> tuple[int, int]:
    """How many jobs the last run's key lacks that are still in the manifest, of how many it was to create."""
    runs = [run for run in ledger.runs(last.api, last.manifest) if run.run_key == last.run_key]
    jobs = ledger.jobs_of(last)
    wanted = [job for job in jobs if any(plan.not_sent(job, run.settings["only"]) is None for run in runs)]
    of = plan.match(jobs, ledger.standings(last.api, last.manifest, last.run_key)).of
    lacking = Counter(job.pair for job in wanted if job.name not in of or of[job.name].state != "created")
    return (lacking & _enabled(manifest.jobs)).total(), len(wanted)


def _what_changed(ledger: Ledger, last: RunRow, manifest: Manifest) -> tuple[str, ...]:
    if last.sha256 == manifest.sha256:
        return ()
    before, now = _enabled(ledger.jobs_of(last)), _enabled(manifest.jobs)
    added, removed = (now - before).total(), (before - now).total()
    jobs = "job" if added == 1 else "jobs"
    return (f"the manifest has changed since run {last.id}: {added} {jobs} added, {removed} removed",)


def _enabled(jobs: Sequence[Job]) -> Counter[tuple[str, str]]:
    return Counter(job.pair for job in jobs if job.enabled)
