"""Which run key a run of a manifest belongs to: its period's, the last run's, or one of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from runner.core.errors import RefusedError, UsageError
from runner.core.models import Job, Manifest
from runner.core.settings import RunOptions
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.planning import manifest_identity, periods, plan


class UnfinishedPolicy(Enum):
    """What to do when the last run of `once_per: run` is unfinished. RESUME is asked for even if it is not."""

    REFUSE = "refuse"
    RESUME_IF_UNFINISHED = "resume"
    NEW = "new"
    RESUME = "--resume"

    @classmethod
    def of(cls, manifest: Manifest, options: RunOptions) -> UnfinishedPolicy:
        """The policy of the options, else of the manifest."""
        if options.resume:
            return cls.RESUME
        return cls.NEW if options.new else cls(manifest.on_unfinished)


def check_options(manifest: Manifest, options: RunOptions) -> None:
    """Check that the options make sense together and for the manifest. Raises UsageError."""
    if options.resume and options.new:
        raise UsageError("--resume and --new are two answers to one question", "Give one of them.")
    if options.again and manifest.once_per == "run" and not options.resume:
        raise UsageError(
            "--again adds to a run that exists, and once_per: run makes a new one each time",
            "For one job of a new run: --only NAME --new. For one more in the last run: --resume --again NAME.",
        )


@dataclass(frozen=True, slots=True)
class RunKeyChoice:
    """A run key, and what a person wants to know about how it came to be chosen.

    `only` are the globs that every run of the key was limited to; empty when one was not.
    """

    run_key: str
    notes: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


def choose_run_key(
    ledger: Ledger, api: str, manifest: Manifest, answer: UnfinishedPolicy, run_id: str, now: datetime
) -> RunKeyChoice:
    """Choose the run key. Nothing is written.

    Raises:
        RefusedError: the last run is unfinished and nobody said what to do, there is none to resume, or `once_per`,
            the timezone or the clock was changed and what was bought would be bought again.
        UsageError: `--new` for a period that has its run already, or the timezone is not known on this machine.
    """
    fresh = RunKeyChoice(periods.build_run_key(manifest.once_per, manifest.timezone, now, run_id))
    runs = list(ledger.runs(api, manifest.name))
    if manifest.once_per != "run":
        refusal = _of_another_clock(ledger, manifest, runs, fresh.run_key, now)
        _refuse_new(ledger, api, manifest, answer, runs, edited=refusal is not None)
        _refuse_changed(ledger, manifest, answer, runs, now)
        if refusal is not None and answer is not UnfinishedPolicy.NEW:
            raise refusal
        return fresh
    if answer is UnfinishedPolicy.NEW:
        return fresh
    last = next((run for run in runs if run.once_per == "run"), None)
    if last is None:
        _refuse_changed(ledger, manifest, answer, runs, now)
        _refuse_resume(ledger, manifest, answer, runs)
        return fresh
    left = _Left.of(ledger, last, manifest)
    if answer is UnfinishedPolicy.RESUME or (left.unfinished and answer is UnfinishedPolicy.RESUME_IF_UNFINISHED):
        return RunKeyChoice(last.run_key, _what_changed(ledger, last, manifest), _only(runs, last.run_key))
    if left.unfinished and left.bought:
        raise RefusedError(
            f"the last run of {manifest.name} ({last.id}) left {left.words}",
            "Finish it, sending only what was not created: --resume. Start over, and pay for every job again: --new.",
        )
    return fresh


def _refuse_new(
    ledger: Ledger, api: str, manifest: Manifest, answer: UnfinishedPolicy, runs: Sequence[RunRow], *, edited: bool
) -> None:
    """Within a period `--new` only says that an edited `once_per`, timezone, clock or name is meant to begin anew."""
    if runs:
        edited = edited or runs[0].once_per != manifest.once_per
    else:
        edited = manifest_identity.resolve_path(manifest.path) in ledger.manifest_paths(api).values()
    if answer is UnfinishedPolicy.NEW and not edited:
        raise UsageError(
            f"--new would buy again what {manifest.path} says is bought once_per {manifest.once_per}",
            "For one more of a job that exists: --again NAME.",
        )


def _refuse_resume(ledger: Ledger, manifest: Manifest, answer: UnfinishedPolicy, runs: Sequence[RunRow]) -> None:
    if answer is not UnfinishedPolicy.RESUME:
        return
    elsewhere = sorted({run.api for run in ledger.runs(manifest=manifest.name)})
    if runs or elsewhere:
        known = f"once_per: {runs[0].once_per}" if runs else f"at {', '.join(elsewhere)}"
        raise RefusedError(
            f"there is no run of {manifest.name} to resume here: the ledger knows it {known}",
            "Without --resume every job would be new, and paid for.",
        )


def _refuse_changed(
    ledger: Ledger, manifest: Manifest, answer: UnfinishedPolicy, runs: Sequence[RunRow], now: datetime
) -> None:
    """A `once_per` that was edited makes a new key, under which what was just bought would be bought again."""
    last = runs[0] if runs else None
    if last is None or last.once_per == manifest.once_per or answer is UnfinishedPolicy.NEW:
        return
    if last.once_per == "run":
        still = _Left.of(ledger, last, manifest).unfinished
    else:
        still = periods.build_run_key(last.once_per, manifest.timezone, now, last.id) == last.run_key
    standings = ledger.submissions(last.api, last.manifest, last.run_key)
    bought = len({one.pair for one in standings if one.consumes_slot} & {job.pair for job in manifest.jobs})
    if still and bought:
        raise RefusedError(
            f"once_per was {last.once_per} in the last run of {manifest.name} ({last.id}), which bought {bought} of "
            f"its pairs for {periods.describe_run_key(last.run_key)}: as {manifest.once_per} they would be "
            "bought again",
            f"Set once_per back to {last.once_per} to go on with that. To start over and pay for them again: --new.",
        )


def _of_another_clock(
    ledger: Ledger, manifest: Manifest, runs: Sequence[RunRow], fresh: str, now: datetime
) -> RefusedError | None:
    """A refusal where only an edited timezone, or a clock that was set back, makes this another period than the last.

    None where the last run's period is over by its own clock, and where nothing that it bought would be bought again.
    """
    last = runs[0] if runs else None
    if last is None or last.once_per != manifest.once_per or last.run_key == fresh:
        return None
    zone = last.settings.get("timezone", manifest.timezone)
    edited = zone != manifest.timezone and periods.build_run_key(last.once_per, zone, now, last.id) == last.run_key
    if not edited and last.started_at <= now:
        return None
    bought, has = (_bought(ledger, last, run_key) for run_key in (last.run_key, fresh))
    twice = ((bought - has) & _enabled(manifest.jobs)).total()
    if not twice:
        return None
    which = f"the last run of {manifest.name} ({last.id})"
    what = f"bought {twice} of its jobs for {periods.describe_run_key(last.run_key)}"
    anew = f"for {periods.describe_run_key(fresh)} they would be bought again"
    if edited:
        return RefusedError(
            f"timezone was {zone or 'UTC'} in {which}, which {what}: by {manifest.timezone or 'UTC'} {anew}",
            f"Set timezone back until that is over by {zone or 'UTC'}. To buy them for both: --new.",
        )
    return RefusedError(
        f"{which} began at {last.started_at:%Y-%m-%d %H:%M:%S} UTC, which is later than now, and {what}: {anew}",
        "A clock was wrong then, or is now: see that it is right. To buy them for both: --new.",
    )


def _bought(ledger: Ledger, last: RunRow, run_key: str) -> Counter[tuple[str, str]]:
    return Counter(one.pair for one in ledger.submissions(last.api, last.manifest, run_key) if one.consumes_slot)


@dataclass(frozen=True, slots=True)
class _Left:
    """What the last run's key lacks that is still in the manifest, and whether anything was bought under it."""

    missing: int
    in_doubt: int
    listed: int
    bought: bool

    @classmethod
    def of(cls, ledger: Ledger, last: RunRow, manifest: Manifest) -> _Left:
        runs = [run for run in ledger.runs(last.api, last.manifest) if run.run_key == last.run_key]
        jobs = ledger.manifest_jobs(last)
        wanted = [job for job in jobs if any(plan.skip_reason(job, run.settings["only"]) is None for run in runs)]
        standings = ledger.submissions(last.api, last.manifest, last.run_key)
        of = plan.match_submissions(jobs, standings).by_name
        enabled = _enabled(manifest.jobs)
        missing = Counter(job.pair for job in wanted if job.name not in of or not of[job.name].consumes_slot) & enabled
        doubts = (
            Counter(job.pair for job in wanted if job.name in of and of[job.name].state in ("in_doubt", "sending"))
            & enabled
        )
        return cls(missing.total(), doubts.total(), len(wanted), any(one.consumes_slot for one in standings))

    @property
    def unfinished(self) -> bool:
        return bool(self.missing or self.in_doubt)

    @property
    def words(self) -> str:
        parts = [(self.missing, "not created"), (self.in_doubt, "in doubt")]
        return " and ".join(f"{count} of {self.listed} jobs {word}" for count, word in parts if count)


def _only(runs: Sequence[RunRow], run_key: str) -> tuple[str, ...]:
    globs = [tuple(run.settings["only"]) for run in runs if run.run_key == run_key]
    return tuple(dict.fromkeys(glob for one in globs for glob in one)) if all(globs) else ()


def _what_changed(ledger: Ledger, last: RunRow, manifest: Manifest) -> tuple[str, ...]:
    if last.sha256 == manifest.sha256:
        return ()
    before, now = _enabled(ledger.manifest_jobs(last)), _enabled(manifest.jobs)
    added, removed = (now - before).total(), (before - now).total()
    jobs = "job" if added == 1 else "jobs"
    return (f"the manifest has changed since run {last.id}: {added} {jobs} added, {removed} removed",)


def _enabled(jobs: Sequence[Job]) -> Counter[tuple[str, str]]:
    return Counter(job.pair for job in jobs if job.enabled)
