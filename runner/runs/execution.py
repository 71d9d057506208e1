"""One execution of a manifest: lock, settle what is in doubt, plan, submit, look again, and the record of it.

It says what happens through its observer and its results alone: it does not print, exit or touch signals.
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
from runner.core.models import InDoubt, RunRecord, Submission
from runner.core.rate_limit import RateLimiter
from runner.core.version import VERSION
from runner.ledger import lock
from runner.ledger.connect import create_if_missing, require_exists
from runner.ledger.journal import RecordedOutcome
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.rows import RunRow, SubmissionRow
from runner.ledger.run_journal import RunJournal
from runner.ledger.store import Ledger
from runner.planning import cost_limit, estimates, manifest_identity, plan, planned_jobs
from runner.planning import run_key as run_keys
from runner.planning.planned_jobs import Preview
from runner.runs import record
from runner.runs.reconcile import Finding, Reconciler
from runner.runs.request import RunRequest
from runner.runs.summary import RunSummary
from runner.submission.budget import Budget
from runner.submission.engine import Engine, EngineResult, Observer

# Seconds between the looks at the end of a run: half a minute, at growing intervals.
_LOOKS = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)


class RunObserver(Observer, Protocol):
    """Who is told how an execution goes."""

    def looked_up(self, findings: Sequence[Finding]) -> None:
        """A look-up was made, and this is what it says of each doubt."""

    def looking_up(self, doubts: int, seconds: float) -> None:
        """So many jobs are in doubt, and are looked up for at most so many seconds more."""

    def note(self, text: str) -> None:
        """Something that a person wants to know and need not act on."""


class Interrupter(Protocol):
    """Who may want to end an execution early."""

    def engine_started(self, engine: Engine) -> None:
        """Take the engine that is about to run: `interrupt` ends it by its rules."""

    def engine_ended(self) -> None:
        """The engine has ended."""


@dataclass(slots=True)
class Execution:
    """An execution that holds its manifest's lock and its ledger: `prepare`, `submit`, then read `record`.

    `forecast` says what `submit` is about to do and cost, where that matters.
    """

    request: RunRequest
    ledger: Ledger
    api: ApiClient
    observer: RunObserver
    run_id: str
    started_at: datetime
    wait: Callable[[float], bool]  # sleeps so many seconds; False when the run was interrupted meanwhile
    now: Callable[[], datetime]
    run: RunRow = field(init=False)
    plan: plan.Plan = field(init=False)
    preview: Preview | None = field(init=False, default=None)
    unsaved: tuple[RecordedOutcome, ...] = field(init=False, default=())
    unreleased: tuple[Submission, ...] = field(init=False, default=())
    _pace: RateLimiter = field(init=False)
    _budget: Budget = field(init=False, default_factory=Budget)

    def __post_init__(self) -> None:
        self._pace = RateLimiter(self.request.limits.parsed_rate)

    def prepare(self) -> None:
        """Settle what earlier runs left in doubt, choose the run key, plan, and see what that would cost.

        Raises:
            RefusedError: the manifest was renamed, has a twin, or has an unfinished run and no answer what to do; or
                the run would cost more than it may, or what it would cost is not known.
            UsageError: `only` or `again` name no job.
        """
        request, manifest = self.request, self.request.manifest
        manifest_identity.check_identity(self.ledger, request.api, manifest, new=request.options.new)
        self.ledger.mark_intents_in_doubt(request.api, manifest.name, record.KILLED)
        self._look_at(self._doubts())
        answer = run_keys.UnfinishedPolicy.of(manifest, request.options)
        chosen = run_keys.choose_run_key(self.ledger, request.api, manifest, answer, self.run_id, self.started_at)
        for note in chosen.notes:
            self.observer.note(note)
        standings = self.ledger.submissions(request.api, manifest.name, chosen.run_key)
        only = request.options.only or chosen.only
        self.plan = plan.build_plan(manifest, only, standings, request.options.again)
        self._price(chosen.run_key, standings)
        self.run = RunRow(
            id=self.run_id,
            api=request.api,
            manifest=manifest.name,
            run_key=chosen.run_key,
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
            settings=asdict(request.limits) | {"only": list(only), "timezone": request.manifest.timezone},
        )

    def _price(self, run_key: str, standings: Sequence[SubmissionRow]) -> None:
        """Learn what is to be sent costs, where that matters, and refuse what would cost too much."""
        request = self.request
        if not request.options.estimate and request.limits.max_cost is None:
            return
        told: estimates.EstimateResponse | None = None
        if self.plan.to_send:
            asker = Fetcher(request.limits, rate_limiter=self._pace)
            told = estimates.fetch_estimates(asker, self.api, estimates.workflows_to_estimate(self.plan, standings), ())
            self.plan = replace(self.plan, to_send=estimates.with_estimates(self.plan.to_send, told.estimates))
        self.preview = planned_jobs.build_preview(
            request.manifest,
            request.api,
            run_key,
            self.plan,
            standings,
            told.estimates if told else None,
            limit=request.limits.max_cost,
        )
        if told is not None:
            self.preview = replace(self.preview, remedies=told.remedies)
        self._budget = Budget(request.limits.max_cost, self.preview.spent)
        cost_limit.check_limit(self.preview, allow_unknown=request.options.allow_unknown_cost)

    def submit(self, interrupter: Interrupter) -> EngineResult:
        """Send what is planned, look up what is in doubt after it, and keep how the run ended."""
        self.ledger.start_run(
            self.run, self.request.manifest.jobs, manifest_identity.resolve_path(self.request.manifest.path)
        )
        end = self._send(interrupter)
        self.unsaved, self.unreleased = end.unsaved, end.unreleased
        try:
            self._keep_end(end)
            if end.state != "interrupted" and end.error is None:
                self._look_for_a_while()
        except RefusedError as error:  # what was sent is told all the same
            return replace(end, error=end.error or error)
        return end

    def _send(self, interrupter: Interrupter) -> EngineResult:
        engine = Engine(
            self.plan.to_send,
            self.api,
            RunJournal(self.ledger, self.run),
            self.request.limits,
            self.observer,
            budget=self._budget,
            rate_limiter=self._pace,
            now=self.now,
        )
        interrupter.engine_started(engine)
        end = engine.run()
        interrupter.engine_ended()
        return end

    def record(self) -> RunRecord:
        """The record of the run key as the ledger has it now."""
        request, matched = self.request, self.plan.match
        if self.plan.to_send:  # what was planned is not what is there now
            matched = plan.match_submissions(
                request.manifest.jobs, self.ledger.submissions(request.api, request.manifest.name, self.run.run_key)
            )
        return record.build_record(self.ledger, self.run, request.manifest.jobs, matched, self.unsaved, self.unreleased)

    def _keep_end(self, end: EngineResult) -> None:
        finished = self.now()
        self.run = replace(self.run, state=end.state, reason=end.reason, detail=end.detail, finished_at=finished)
        self.ledger.finish_run(self.run)

    # What is in doubt.

    def _doubts(self) -> list[SubmissionRow]:
        return self.ledger.unresolved(self.request.api, self.request.manifest.name)

    def _look_at(self, doubts: Sequence[SubmissionRow]) -> list[Finding]:
        """One look for each doubt; returns those that are left."""
        if not doubts or self.request.options.hold:
            return []
        look = Reconciler(
            self.ledger,
            self.api,
            self.request.api,
            f"run {self.run_id}",
            self.request.options.settle,
            self.request.limits.timeout,
            self.now,
        )
        findings = look.look_up(doubts)
        self.observer.looked_up(findings)
        return [one for one in findings if isinstance(one.outcome, InDoubt)]

    def _look_for_a_while(self) -> None:
        remaining = sum(_LOOKS)
        for pause in _LOOKS:
            doubts = [one for one in self._doubts() if one.run_id == self.run_id]
            if not doubts or self.request.options.hold:
                return
            self.observer.looking_up(len(doubts), remaining)
            if not self.wait(pause):
                return
            remaining -= pause
            self._look_at(doubts)


def exit_code(run: RunRow, made: RunSummary, end: EngineResult) -> Exit:
    """What a run came to, as the program's exit code has it; whether its record was written is another matter."""
    if end.signum is not None:
        return Exit(128 + end.signum)
    if made.summary.in_doubt:
        return Exit.IN_DOUBT
    if end.state == "stopped" or end.error is not None:
        return Exit.REFUSED
    missing = any(plan.skip_reason(entry.job, run.settings["only"]) is None for entry in made.others)
    return Exit.NOT_CREATED if missing else Exit.OK


def _provide_ledger(location: LedgerLocation, observer: RunObserver) -> None:
    """Create the ledger, or check that it exists; before the first lock, as locks without a ledger mean a lost one."""
    path = location.path
    locked_before = path_exists(lock.directory(path))  # checked first: another run may be making both
    if path_exists(path) or location.explicit:
        require_exists(path)
    elif locked_before:
        raise lock.missing_ledger_error(path)
    elif create_if_missing(path):
        observer.note(f"made a new ledger: {path}")


@contextmanager
def open_execution(
    request: RunRequest, api: ApiClient, observer: RunObserver, wait: Callable[[float], bool]
) -> Iterator[Execution]:
    """Take the manifest's lock and open the ledger for one execution.

    Raises:
        LockedError: another run of the manifest holds the lock.
        LedgerError: the ledger is missing, or can't be used.
    """
    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"  # sortable by time, and unique within a second
    path, timeout = request.ledger.path, request.options.lock_timeout
    _provide_ledger(request.ledger, observer)
    with (
        lock.hold(path, request.api, request.manifest.name, timeout=timeout, activity=f"run {run_id}"),
        Ledger(path) as ledger,
    ):
        # The period is fixed now that nobody else can be in it: waiting for the lock may have taken us past midnight.
        begun = datetime.now(UTC)
        yield Execution(request, ledger, api, observer, run_id, begun, wait, _steady(begun))


def _steady(begun: datetime) -> Callable[[], datetime]:
    """A clock that goes on from now. When the machine's is set in mid-run, the times of sends still compare.

    It goes on while the machine sleeps.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    start = time.clock_gettime(clock)
    return lambda: begun + timedelta(seconds=time.clock_gettime(clock) - start)
