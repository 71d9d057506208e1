"""One run of a manifest: lock, look up jobs in doubt, plan, submit, look up again, and the record of it all.

It reports to its observer and by its return values: it does not print, exit or install signal handlers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from runner.client.api import ApiClient
from runner.client.fetcher import Fetcher
from runner.core.errors import RefusedError
from runner.core.exit_codes import Exit
from runner.core.models import RunRecord, Submission
from runner.core.rate_limit import RateLimiter
from runner.core.version import VERSION
from runner.ledger import lock
from runner.ledger.connect import create_if_missing, require_exists
from runner.ledger.journal import RunJournal
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.rows import KILLED, RecordedOutcome, RunRow, SubmissionRow
from runner.ledger.store import Ledger
from runner.planning import cost_limit, estimates, manifest_identity
from runner.planning.estimates import EstimateResponse
from runner.planning.plan import Plan, build_plan, match_submissions, skip_reason
from runner.planning.planned_jobs import Preview, build_preview
from runner.planning.run_key import UnfinishedPolicy, choose_run_key
from runner.runs import reconcile, record
from runner.runs.matching import Finding
from runner.runs.request import RunRequest
from runner.runs.summary import RunSummary
from runner.submission.budget import Budget
from runner.submission.engine import Engine, EngineResult, Observer


class RunObserver(Observer, Protocol):
    """Receives the progress of a run, in the thread that executes it."""

    def looking_up(self, doubts: int, seconds: float) -> None:
        """A number of jobs are in doubt; they are looked up for at most so many seconds more."""

    def looked_up(self, findings: Sequence[Finding]) -> None:
        """A lookup has ended with a finding for each job in doubt."""

    def note(self, text: str) -> None:
        """Something that the user may want to know but need not act on."""


class Interrupter(Protocol):
    """May stop a run early."""

    def engine_started(self, engine: Engine) -> None:
        """The engine is about to run: `interrupt` stops it gracefully."""

    def engine_ended(self) -> None:
        """The engine has ended."""


@dataclass(slots=True)
class Execution:
    """A run that holds its manifest's lock and its ledger. Call `prepare` and `submit`, then read `record`.

    `wait` sleeps for a number of seconds and returns False if the run was interrupted meanwhile. After `prepare`,
    `preview` has the estimated cost, if it was requested or there is a limit. After `submit`, `unsaved` are the
    outcomes that could not be saved to the ledger, and `unreleased` the claims that were certainly not sent.
    """

    request: RunRequest
    ledger: Ledger
    api: ApiClient
    observer: RunObserver
    run_id: str
    started_at: datetime
    wait: Callable[[float], bool]
    now: Callable[[], datetime]
    run: RunRow = field(init=False)
    plan: Plan = field(init=False)
    preview: Preview | None = field(init=False, default=None)
    unsaved: tuple[RecordedOutcome, ...] = field(init=False, default=())
    unreleased: tuple[Submission, ...] = field(init=False, default=())
    _rate_limiter: RateLimiter = field(init=False)
    _budget: Budget = field(init=False, default_factory=Budget)

    def __post_init__(self) -> None:
        self._rate_limiter = RateLimiter(self.request.limits.parsed_rate)

    def prepare(self) -> None:
        """Look up what earlier runs left in doubt, choose the run key, plan, and check the cost.

        Raises:
            RefusedError: the manifest was renamed or is a duplicate; its last run is unfinished and there is no
                policy for that; or the estimated cost exceeds the limit, or is unknown.
            UsageError: `only` or `again` match no job.
        """
        request, manifest, options = self.request, self.request.manifest, self.request.options
        manifest_identity.check_identity(self.ledger, request.api, manifest, new=options.new)
        self.ledger.mark_intents_in_doubt(request.api, manifest.name, KILLED)
        self._look_up(self._doubts())
        policy = UnfinishedPolicy.of(manifest, options)
        choice = choose_run_key(self.ledger, request.api, manifest, policy, self.run_id, self.started_at)
        for note in choice.notes:
            self.observer.note(note)
        submissions = self.ledger.submissions(request.api, manifest.name, choice.run_key)
        only = options.only or choice.only
        self.plan = build_plan(manifest, only, submissions, options.again)
        self._check_cost(choice.run_key, submissions)
        self.run = self._run_row(choice.run_key, only)

    def _check_cost(self, run_key: str, submissions: Sequence[SubmissionRow]) -> None:
        request = self.request
        if not request.options.estimate and request.limits.max_cost is None:
            return
        response = EstimateResponse()
        if self.plan.to_send:
            workflow_ids = estimates.workflows_to_estimate(self.plan, submissions)
            fetcher = Fetcher(request.limits, rate_limiter=self._rate_limiter)
            response = estimates.fetch_estimates(fetcher, self.api, workflow_ids, ())
            self.plan = replace(self.plan, to_send=estimates.with_estimates(self.plan.to_send, response.estimates))
        self.preview = build_preview(
            request.manifest,
            request.api,
            run_key,
            self.plan,
            submissions,
            response,
            has_estimates=True,
            limit=request.limits.max_cost,
        )
        self._budget = Budget(request.limits.max_cost, self.preview.spent)
        cost_limit.check_limit(self.preview, allow_unknown=request.options.allow_unknown_cost)

    def _run_row(self, run_key: str, only: Sequence[str]) -> RunRow:
        request, manifest = self.request, self.request.manifest
        return RunRow(
            id=self.run_id,
            api=request.api,
            manifest=manifest.name,
            run_key=run_key,
            once_per=manifest.once_per,
            state="running",
            reason="",
            detail="",
            started_at=self.started_at,
            finished_at=None,
            runner=VERSION,
            path=manifest.path,
            sha256=manifest.sha256,
            git_commit=request.git_commit,
            settings=asdict(request.limits) | {"only": list(only), "timezone": manifest.timezone},
        )

    def submit(self, interrupter: Interrupter) -> EngineResult:
        """Submit what is planned, look up what is in doubt after it, and save how the run ended."""
        manifest = self.request.manifest
        self.ledger.start_run(self.run, manifest.jobs, manifest_identity.resolve_path(manifest.path))
        result = self._send(interrupter)
        self.unsaved, self.unreleased = result.unsaved, result.unreleased
        try:
            self._finish(result)
            if result.state != "interrupted" and result.error is None:
                self._look_up_repeatedly()
        except RefusedError as error:  # the outcomes must be reported all the same
            return replace(result, error=result.error or error)
        return result

    def _send(self, interrupter: Interrupter) -> EngineResult:
        engine = Engine(
            self.plan.to_send,
            self.api,
            RunJournal(self.ledger, self.run),
            self.request.limits,
            self.observer,
            budget=self._budget,
            rate_limiter=self._rate_limiter,
            now=self.now,
        )
        interrupter.engine_started(engine)
        result = engine.run()
        interrupter.engine_ended()
        return result

    def _finish(self, result: EngineResult) -> None:
        finished_at = self.now()
        self.run = replace(
            self.run, state=result.state, reason=result.reason, detail=result.detail, finished_at=finished_at
        )
        self.ledger.finish_run(self.run)

    def record(self) -> RunRecord:
        """Return the record of the run key, as the ledger has it now."""
        manifest, match = self.request.manifest, self.plan.match
        if self.plan.to_send:  # the plan's match is of before they were sent
            submissions = self.ledger.submissions(self.request.api, manifest.name, self.run.run_key)
            match = match_submissions(manifest.jobs, submissions)
        return record.build_record(self.ledger, self.run, manifest.jobs, match, self.unsaved, self.unreleased)

    # Jobs in doubt.

    def _doubts(self) -> list[SubmissionRow]:
        return self.ledger.unresolved(self.request.api, self.request.manifest.name)

    def _look_up(self, doubts: Sequence[SubmissionRow]) -> None:
        """Look up each job in doubt once."""
        if not doubts or self.request.options.hold:
            return
        reconciler = reconcile.Reconciler(
            self.ledger,
            self.api,
            self.request.api,
            f"run {self.run_id}",
            self.request.options.settle,
            self.request.limits.timeout,
            self.now,
        )
        self.observer.looked_up(reconciler.look_up(doubts))

    def _look_up_repeatedly(self) -> None:
        """Look up this run's jobs in doubt until there are none, or the time is up."""
        remaining = sum(reconcile.LOOKUP_DELAYS)
        for delay in reconcile.LOOKUP_DELAYS:
            doubts = [doubt for doubt in self._doubts() if doubt.run_id == self.run_id]
            if not doubts or self.request.options.hold:
                return
            self.observer.looking_up(len(doubts), remaining)
            if not self.wait(delay):
                return
            remaining -= delay
            self._look_up(doubts)


def exit_code(run: RunRow, summary: RunSummary, result: EngineResult) -> Exit:
    """Return the exit code for a run, apart from whether its results file was written."""
    if result.signum is not None:
        return Exit(128 + result.signum)
    if summary.summary.in_doubt:
        return Exit.IN_DOUBT
    if result.state == "stopped" or result.error is not None:
        return Exit.REFUSED
    missing = any(skip_reason(entry.job, run.settings["only"]) is None for entry in summary.others)
    return Exit.NOT_CREATED if missing else Exit.OK


@contextmanager
def open_execution(
    request: RunRequest, api: ApiClient, observer: RunObserver, wait: Callable[[float], bool]
) -> Iterator[Execution]:
    """Lock the manifest and open the ledger for one run.

    Raises:
        LockedError: another run of the manifest holds the lock.
        LedgerError: the ledger is missing, or can't be used.
    """
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"  # sorts by time, and is unique within a second
    path, timeout = request.ledger.path, request.options.lock_timeout
    _provide_ledger(request.ledger, observer)
    with (
        lock.hold(path, request.api, request.manifest.name, timeout=timeout, activity=f"run {run_id}"),
        Ledger(path) as ledger,
    ):
        # The period is determined now that no other run can be in it: waiting for the lock may have passed midnight.
        started_at = datetime.now(UTC)
        yield Execution(request, ledger, api, observer, run_id, started_at, wait, _steady_clock(started_at))


def _provide_ledger(location: LedgerLocation, observer: RunObserver) -> None:
    """Create the ledger, or check that it exists; before the first lock, as locks without a ledger mean a lost one."""
    path = location.path
    locked_before = path_exists(lock.directory(path))  # checked first: another run may be creating both
    if path_exists(path) or location.explicit:
        require_exists(path)
    elif locked_before:
        raise lock.missing_ledger_error(path)
    elif create_if_missing(path):
        observer.note(f"created a new ledger: {path}")


def _steady_clock(start: datetime) -> Callable[[], datetime]:
    """Return a clock that continues from `start` steadily when the system clock is set, and also during suspend."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    origin = time.clock_gettime(clock)
    return lambda: start + timedelta(seconds=time.clock_gettime(clock) - origin)
