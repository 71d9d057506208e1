"""Which run key a run gets: that of its period, that of the last run, or one of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from runner.core.errors import RefusedError, UsageError
from runner.core.models import Job, Manifest
from runner.core.settings import RunOptions
from runner.core.text import pluralize
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.planning import manifest_identity
from runner.planning.periods import build_run_key, describe_run_key
from runner.planning.plan import match_submissions, skip_reason

_Pairs = Counter[tuple[str, str]]


class UnfinishedPolicy(Enum):
    """What to do if the last run with `once_per: run` is unfinished. RESUME resumes it even if it is finished."""

    REFUSE = "refuse"
    RESUME_IF_UNFINISHED = "resume"
    NEW = "new"
    RESUME = "--resume"

    @classmethod
    def of(cls, manifest: Manifest, options: RunOptions) -> UnfinishedPolicy:
        """Return the policy of the options, else of the manifest."""
        if options.resume:
            return cls.RESUME
        return cls.NEW if options.new else cls(manifest.on_unfinished)


def check_options(manifest: Manifest, options: RunOptions) -> None:
    """Check that the options make sense together and for the manifest. Raises UsageError."""
    if options.resume and options.new:
        raise UsageError("--resume and --new cannot be combined", "Pass only one of them.")
    if options.again and manifest.once_per == "run" and not options.resume:
        raise UsageError(
            "with once_per: run, --again requires --resume",
            "To submit one more job in the last run: --resume --again NAME. To submit one job in a new run: --new "
            "--only NAME.",
        )


@dataclass(frozen=True, slots=True)
class RunKeyChoice:
    """A run key, and notes for the user on how it was chosen.

    `only` are the globs that all runs of the key were limited to, together; empty if one was not limited.
    """

    run_key: str
    notes: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


def choose_run_key(
    ledger: Ledger, api: str, manifest: Manifest, policy: UnfinishedPolicy, run_id: str, now: datetime
) -> RunKeyChoice:
    """Choose the run key. Writes nothing.

    Raises:
        RefusedError: the last run is unfinished and there is no policy for that; there is none to resume; or
            `once_per`, the timezone or the clock changed, so that jobs would be submitted again.
        UsageError: `--new` in a period that has a run, or an unknown timezone.
    """
    chooser = _Chooser(ledger, api, manifest, policy, now, tuple(ledger.runs(api, manifest.name)))
    new_key = build_run_key(manifest.once_per, manifest.timezone, now, run_id)
    return chooser.choose_run(new_key) if manifest.once_per == "run" else chooser.choose_period(new_key)


@dataclass(frozen=True, slots=True)
class _Chooser:
    """The choice of a run key. `runs` are the manifest's runs at this API, newest first."""

    ledger: Ledger
    api: str
    manifest: Manifest
    policy: UnfinishedPolicy
    now: datetime
    runs: Sequence[RunRow]

    def choose_run(self, new_key: str) -> RunKeyChoice:
        """Choose for `once_per: run`."""
        if self.policy is UnfinishedPolicy.NEW:
            return RunKeyChoice(new_key)
        last = next((run for run in self.runs if run.once_per == "run"), None)
        if last is None:
            self._refuse_changed_once_per()
            self._refuse_resume()
            return RunKeyChoice(new_key)
        remaining = _Remaining.of_run(self.ledger, last, self.manifest)
        resume = self.policy is UnfinishedPolicy.RESUME
        if resume or (remaining and self.policy is UnfinishedPolicy.RESUME_IF_UNFINISHED):
            return RunKeyChoice(last.run_key, self._describe_changes(last), self._only_of(last.run_key))
        if remaining and remaining.any_submitted:
            raise RefusedError(
                f"the last run of {self.manifest.name} ({last.id}) {remaining}",
                "To finish it, submitting only what was not created: --resume. To start over and pay for every job "
                "again: --new.",
            )
        return RunKeyChoice(new_key)

    def choose_period(self, new_key: str) -> RunKeyChoice:
        """Choose for the other kinds of `once_per`."""
        refusal = self._find_shifted_period(new_key)
        self._refuse_new(shifted=refusal is not None)
        self._refuse_changed_once_per()
        if refusal is not None and self.policy is not UnfinishedPolicy.NEW:
            raise refusal
        return RunKeyChoice(new_key)

    def _refuse_new(self, *, shifted: bool) -> None:
        """Refuse `--new` within a period, unless `once_per`, the timezone, the clock or the name changed."""
        if self.policy is not UnfinishedPolicy.NEW or shifted:
            return
        if self.runs:
            changed = self.runs[0].once_per != self.manifest.once_per
        else:
            path = manifest_identity.resolve_path(self.manifest.path)
            changed = path in self.ledger.manifest_paths(self.api).values()
        if not changed:
            raise UsageError(
                f"--new conflicts with once_per: {self.manifest.once_per}, which submits each job only once per period",
                "To submit one more of a created job: --again NAME.",
            )

    def _refuse_resume(self) -> None:
        """Refuse `--resume` if the manifest has no such run here, but others."""
        if self.policy is not UnfinishedPolicy.RESUME:
            return
        apis = sorted({run.api for run in self.ledger.runs(manifest=self.manifest.name)})
        if self.runs or apis:
            known = f"have once_per: {self.runs[0].once_per}" if self.runs else f"are at {', '.join(apis)}"
            raise RefusedError(
                f"there is no run of {self.manifest.name} to resume: its runs in this ledger {known}",
                "Without --resume, every job is submitted again and costs money.",
            )

    def _refuse_changed_once_per(self) -> None:
        """Refuse a changed `once_per` if jobs that were just submitted would be submitted again under the new key."""
        last = self.runs[0] if self.runs else None
        if last is None or last.once_per == self.manifest.once_per or self.policy is UnfinishedPolicy.NEW:
            return
        if last.once_per == "run":
            current = bool(_Remaining.of_run(self.ledger, last, self.manifest))
        else:
            current = build_run_key(last.once_per, self.manifest.timezone, self.now, last.id) == last.run_key
        submitted = len(self._submitted(last, last.run_key).keys() & {job.pair for job in self.manifest.jobs})
        if current and submitted:
            raise RefusedError(
                f"once_per was changed from {last.once_per} to {self.manifest.once_per} since the last run of "
                f"{self.manifest.name} ({last.id}): {submitted} of its workflow/project pairs were submitted for "
                f"{describe_run_key(last.run_key)} and would be submitted again",
                f"To continue that run, set once_per back to {last.once_per}. To start over and pay for every job "
                "again: --new.",
            )

    def _find_shifted_period(self, new_key: str) -> RefusedError | None:
        """Return a refusal if only a changed timezone or clock makes this another period than that of the last run.

        None if the last run's period has ended by its own timezone and clock, or if nothing would be submitted again.
        """
        last = self.runs[0] if self.runs else None
        if last is None or last.once_per != self.manifest.once_per or last.run_key == new_key:
            return None
        zone = last.settings.get("timezone", self.manifest.timezone)
        zone_changed = zone != self.manifest.timezone and (
            build_run_key(last.once_per, zone, self.now, last.id) == last.run_key
        )
        if not zone_changed and last.started_at <= self.now:
            return None
        missing = self._submitted(last, last.run_key) - self._submitted(last, new_key)
        repeated = (missing & _enabled_pairs(self.manifest.jobs)).total()
        if not repeated:
            return None
        run = f"the last run of {self.manifest.name} ({last.id})"
        jobs = (
            f"{repeated} of its jobs were submitted for {describe_run_key(last.run_key)} and would be submitted again "
            f"for {describe_run_key(new_key)}"
        )
        if zone_changed:
            return RefusedError(
                f"timezone was changed from {zone or 'UTC'} to {self.manifest.timezone or 'UTC'} since {run}: {jobs}",
                f"Set timezone back to {zone or 'UTC'} until that period has ended. To submit them for both: --new.",
            )
        return RefusedError(
            f"{run} started at {last.started_at:%Y-%m-%d %H:%M:%S} UTC, which is in the future: {jobs}",
            "The clock was wrong then or is wrong now: check it. To submit them for both periods: --new.",
        )

    def _submitted(self, run: RunRow, run_key: str) -> _Pairs:
        submissions = self.ledger.submissions(run.api, run.manifest, run_key)
        return Counter(submission.pair for submission in submissions if submission.consumes_slot)

    def _only_of(self, run_key: str) -> tuple[str, ...]:
        globs = [tuple(run.settings["only"]) for run in self.runs if run.run_key == run_key]
        return tuple(dict.fromkeys(glob for only in globs for glob in only)) if all(globs) else ()

    def _describe_changes(self, last: RunRow) -> tuple[str, ...]:
        if last.sha256 == self.manifest.sha256:
            return ()
        before, now = _enabled_pairs(self.ledger.manifest_jobs(last)), _enabled_pairs(self.manifest.jobs)
        added, removed = (now - before).total(), (before - now).total()
        return (f"the manifest has changed since run {last.id}: {pluralize(added, 'job')} added, {removed} removed",)


@dataclass(frozen=True, slots=True)
class _Remaining:
    """The jobs that are missing under a run's key and still in the manifest. False if there are none.

    `total` counts the jobs that the runs of the key were to submit; `any_submitted`: some may exist.
    """

    not_created: int
    in_doubt: int
    total: int
    any_submitted: bool

    @classmethod
    def of_run(cls, ledger: Ledger, last: RunRow, manifest: Manifest) -> _Remaining:
        runs = [run for run in ledger.runs(last.api, last.manifest) if run.run_key == last.run_key]
        jobs = ledger.manifest_jobs(last)
        selected = [job for job in jobs if any(skip_reason(job, run.settings["only"]) is None for run in runs)]
        submissions = ledger.submissions(last.api, last.manifest, last.run_key)
        by_name = match_submissions(jobs, submissions).by_name
        states = [(job.pair, by_name[job.name].state if job.name in by_name else None) for job in selected]
        missing = Counter(pair for pair, state in states if state in (None, "not_created", "released"))
        doubts = Counter(pair for pair, state in states if state in ("in_doubt", "sending"))
        enabled = _enabled_pairs(manifest.jobs)
        any_submitted = any(submission.consumes_slot for submission in submissions)
        return cls((missing & enabled).total(), (doubts & enabled).total(), len(selected), any_submitted)

    def __bool__(self) -> bool:
        return bool(self.not_created or self.in_doubt)

    def __str__(self) -> str:
        """What the runs of the key did, in words that fit after their name."""
        jobs = pluralize(self.total, "job")
        parts = [(self.not_created, f"did not create {self.not_created} of {jobs}")]
        parts.append((self.in_doubt, f"left {self.in_doubt} of {jobs} in doubt"))
        return " and ".join(text for count, text in parts if count)


def _enabled_pairs(jobs: Sequence[Job]) -> _Pairs:
    return Counter(job.pair for job in jobs if job.enabled)
