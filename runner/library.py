"""What programs import: to load a manifest, look ahead and run it, without printing, exiting or touching signals."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from signal import SIGTERM

from runner.client import endpoint
from runner.client.api import ApiClient, ReadOnlyClient
from runner.client.endpoint import Endpoint
from runner.core import settings
from runner.core.errors import Exit, RefusedError, UsageError
from runner.core.models import Entry, ErrorInfo, Manifest, Outcome, Record, Run, Submission
from runner.core.settings import Options
from runner.ledger.journal import RecordedOutcome
from runner.ledger.location import LedgerLocation, is_ci
from runner.manifest import loader
from runner.planning import run_key as run_keys
from runner.planning.forecast import Preview
from runner.runs import execution, reconcile, results_file, summary
from runner.runs import preview as previews
from runner.runs.execution import RunObserver, RunRequest
from runner.runs.preview import PreviewRequest
from runner.runs.reconcile import Finding
from runner.runs.summary import Summary
from runner.sandbox import embedded
from runner.submission.engine import Engine


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """Where the API is, and the key to it. Proxies are taken from the environment, as every program does.

    `ca_bundle` is a PEM file of certificates to trust instead of the system's. `allow_http` lets the key cross a
    network over plain http.
    """

    key: str = field(repr=False)
    base_url: str = endpoint.PRODUCTION
    ca_bundle: str | None = None
    allow_http: bool = False

    @property
    def identity(self) -> str:
        """What the ledger knows this API by. Raises UsageError when the base URL is none."""
        return endpoint.base_url(self.base_url, allow_http=self.allow_http)

    def endpoint(self) -> Endpoint:
        """How it is reached. Raises UsageError or RefusedError when it can't be."""
        trust = endpoint.trust(self.ca_bundle)
        origin = self.identity
        return Endpoint(origin, endpoint.given_key(self.key), self.ca_bundle, endpoint.proxy_for(origin), trust)


SANDBOX = ApiAccess("", endpoint.SANDBOX)
"""An API inside this process, with no account and no cost; its jobs and its ledger are kept beside the manifest."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Which jobs a run is about, and which run it is: as the options of the same names have it."""

    only: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    resume: bool = False
    new: bool = False
    hold: bool = False
    allow_unknown_cost: bool = False
    settle: timedelta = reconcile.SETTLE
    lock_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to.

    `run.state` is `completed`, `stopped` or `interrupted`, and `why` says why it is not the first. `summary` counts,
    and `entries` has every job of the run key with its outcome, in the manifest's order. `unrecorded` are outcomes that
    are known and could not be kept in the ledger, for the reason in `error`: keep them, they are jobs that you pay for.
    `code` is the exit code that the command would have.
    """

    run: Run
    summary: Summary
    entries: tuple[Entry, ...]
    code: Exit
    why: str = ""
    error: RefusedError | None = None
    unrecorded: tuple[RecordedOutcome, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything that was to be submitted exists."""
        return self.code is Exit.OK

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the results file, whole or not at all. Raises RefusedError when it can't be."""
        results_file.write(summary.summarize(Record(self.run, self.entries)), Path(path))


class StopToken:
    """Ends a run early, by its rules, from another thread: what is in flight has some seconds to finish."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.RLock()
        self._engine: Engine | None = None

    def stop(self) -> None:
        """End the run; called once more, it ends what is in flight at once."""
        with self._lock:
            self._stopped.set()
            if self._engine is not None:
                self._engine.interrupt(SIGTERM)

    @property
    def stopped(self) -> bool:
        """Whether it was called."""
        return self._stopped.is_set()

    def engine_made(self, engine: Engine) -> None:
        """Take the engine that is about to run."""
        with self._lock:
            self._engine = engine
            if self._stopped.is_set():
                engine.interrupt(SIGTERM)

    def engine_done(self) -> None:
        """The engine has ended."""
        with self._lock:
            self._engine = None

    def wait(self, seconds: float) -> bool:
        """Sleep; False as soon as the run is to end."""
        return not self._stopped.wait(seconds)


class NullObserver:
    """A watcher who says nothing. Derive from it, and override what you want to be told, in the calling thread."""

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        """A job's outcome is on record."""

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:
        """A job that was certainly not sent is tried again in so many seconds."""

    def pausing(self, error: ErrorInfo, seconds: float) -> None:
        """The server asked for a pause: nothing is sent for so many seconds."""

    def stopping(self, why: str) -> None:
        """Nothing more is sent; what is in flight is waited for."""

    def found(self, findings: Sequence[Finding]) -> None:
        """A look-up was made, and this is what it says of each doubt."""

    def looking(self, doubts: int, seconds: float) -> None:
        """So many jobs are in doubt, and are looked up for at most so many seconds more."""

    def note(self, text: str) -> None:
        """Something that a person wants to know and need not act on."""


_EVERY = RunOptions()
_AS_WRITTEN = Options()


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest's file.

    Raises:
        ManifestError: it has problems: `problems` has all of them, each with its place.
        UsageError: it cannot be read.
    """
    # By its absolute path: its ledger stays the one beside it, wherever the program goes meanwhile.
    return replace(loader.load(os.fspath(path), io.BytesIO()), path=os.path.abspath(path))  # noqa: PTH100 - no link is to be followed


def run(
    wanted: Manifest,
    access: ApiAccess,
    *,
    choice: RunOptions = _EVERY,
    options: Options = _AS_WRITTEN,
    ledger: str | os.PathLike[str] | None = None,
    git_commit: str | None = None,
    watcher: RunObserver | None = None,
    stop: StopToken | None = None,
) -> Result:
    """Run a manifest: settle what is in doubt, plan, submit, look again. It blocks until the run is over.

    Args:
        wanted: what `load_manifest` gave.
        access: where the API is, and the key; `SANDBOX` to rehearse.
        choice: which jobs, and which run.
        options: limits of the sending, which outrank those of the manifest; None in it leaves them alone.
        ledger: the record, which must exist; without one it is that beside the manifest, which is made if need be.
        git_commit: the commit that holds the manifest, to be kept in the record.
        watcher: who is told how it goes.
        stop: what ends it early.

    Raises:
        LockedError: another run of this manifest is at work.
        RefusedError: it may not run as things are; nothing was sent.
        UsageError: something given makes no sense; nothing was sent.
    """
    place = _place(wanted, access, choice, options, ledger)
    place.create_directory(wanted.path)
    ender = stop or StopToken()
    order = RunRequest(
        manifest=wanted,
        git_commit=git_commit,
        api=_identity(access),
        ledger=place.path,
        make_ledger=not place.explicit,
        limits=settings.limits(options, wanted),
        only=choice.only,
        again=choice.again,
        resume=choice.resume,
        new=choice.new,
        hold=choice.hold,
        allow_unknown_cost=choice.allow_unknown_cost,
        settle=choice.settle,
        lock_timeout=choice.lock_timeout,
    )
    with (
        _endpoint(access, wanted) as endpoint,
        ApiClient(endpoint, order.limits.concurrency) as api,
        execution.opened(order, api, watcher or NullObserver(), ender.wait) as one,
    ):
        one.prepare()
        end = one.submit(ender)
        made = summary.summarize(one.record())
        code = execution.exit_code(one.run, made, end)
        entries = tuple(made.record.entries)  # they are read from the ledger, which is closed after this
        return Result(made.run, made.summary, entries, code, end.detail, end.error, end.unsaved)


def preview(
    wanted: Manifest,
    access: ApiAccess,
    *,
    choice: RunOptions = _EVERY,
    options: Options = _AS_WRITTEN,
    ledger: str | os.PathLike[str] | None = None,
    cost: bool = False,
    check: bool = False,
) -> Preview:
    """What `run` would do now with each job, and why, without doing any of it.

    It asks nobody, unless `cost` (what each workflow costs) or `check` (whether each is there) is set.

    Raises:
        LockedError: a run of this manifest is at work.
        RefusedError: `run` would be refused.
        UsageError: something given makes no sense.
    """
    place = _place(wanted, access, choice, options, ledger)
    limits = settings.limits(options, wanted)
    question = PreviewRequest(wanted, _identity(access), limits, choice.only, choice.again, choice.resume, choice.new)
    previews.check_free(place, question)
    with previews.record(place) as known:
        if not (cost or check):
            return previews.look(question, known)[0]
        with _endpoint(access, wanted) as endpoint, ReadOnlyClient(endpoint, limits.concurrency) as reader:
            return previews.look(question, known, reader, cost=cost, check=check)[0]


def _place(
    wanted: Manifest, access: ApiAccess, choice: RunOptions, options: Options, ledger: str | os.PathLike[str] | None
) -> LedgerLocation:
    """Where the record is, once all that was given makes sense."""
    settings.check(options)
    for name in ("only", "again"):
        if isinstance(getattr(choice, name), str):
            raise UsageError(f"{name} is a text, and would be read as its letters", "Give a tuple of names.")
    run_keys.refuse_two_answers(wanted, choice.again, resume=choice.resume, new=choice.new)
    if access == SANDBOX and ledger is not None:
        raise UsageError("a ledger goes with the real API", "The sandbox has its own, beside the manifest.")
    place = LedgerLocation.for_manifest(
        wanted.path, None if ledger is None else Path(ledger), sandbox=access == SANDBOX
    )
    place.require_explicit_in_ci(wanted, ci=access != SANDBOX and is_ci(os.environ))
    return place


def _identity(access: ApiAccess) -> str:
    return endpoint.SANDBOX if access == SANDBOX else access.identity


def _endpoint(access: ApiAccess, wanted: Manifest) -> AbstractContextManager[Endpoint]:
    return embedded.serve(wanted) if access == SANDBOX else nullcontext(access.endpoint())
