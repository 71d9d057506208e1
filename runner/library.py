"""What programs import: to load a manifest, look ahead and run it, without printing, exiting or touching signals."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGTERM

from runner.client.api import ApiClient, ReadOnlyClient
from runner.client.endpoint import (
    PRODUCTION_URL,
    SANDBOX_IDENTITY,
    Endpoint,
    find_proxy,
    load_ca_bundle,
    parse_api_key,
    parse_base_url,
)
from runner.core.errors import RefusedError, UsageError
from runner.core.exit_codes import Exit
from runner.core.models import Entry, ErrorInfo, LimitOverrides, Manifest, Outcome, Run, RunRecord, Submission
from runner.core.settings import RunOptions, resolve_limits, validate_limits
from runner.ledger.location import LedgerLocation, is_ci
from runner.ledger.rows import RecordedOutcome
from runner.manifest import loader
from runner.planning import run_key as run_keys
from runner.planning.planned_jobs import Preview
from runner.runs import execution, results_file, summary
from runner.runs import preview as previews
from runner.runs.execution import RunObserver
from runner.runs.matching import Finding
from runner.runs.request import RunRequest
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
    base_url: str = PRODUCTION_URL
    ca_bundle: str | None = None
    allow_http: bool = False

    @property
    def identity(self) -> str:
        """What the ledger knows this API by. Raises UsageError when the base URL is none."""
        return parse_base_url(self.base_url, allow_http=self.allow_http)

    def endpoint(self) -> Endpoint:
        """How it is reached. Raises UsageError or RefusedError when it can't be."""
        trust = load_ca_bundle(self.ca_bundle)
        origin = self.identity
        return Endpoint(origin, parse_api_key(self.key), self.ca_bundle, find_proxy(origin), trust)


SANDBOX = ApiAccess("", SANDBOX_IDENTITY)
"""An API inside this process, with no account and no cost; its jobs and its ledger are kept beside the manifest."""


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
    detail: str = ""
    error: RefusedError | None = None
    unsaved: tuple[RecordedOutcome, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything that was to be submitted exists."""
        return self.code is Exit.OK

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the results file, whole or not at all. Raises RefusedError when it can't be."""
        results_file.write(summary.summarize(RunRecord(self.run, self.entries)), Path(path))


class StopToken:
    """Ends a run early, by its rules, from another thread: what is in flight has some seconds to finish."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.RLock()
        self._engine: Engine | None = None

    def stop(self) -> None:
        """EngineResult the run; called once more, it ends what is in flight at once."""
        with self._lock:
            self._stopped.set()
            if self._engine is not None:
                self._engine.interrupt(SIGTERM)

    @property
    def stopped(self) -> bool:
        """Whether it was called."""
        return self._stopped.is_set()

    def engine_started(self, engine: Engine) -> None:
        """Take the engine that is about to run."""
        with self._lock:
            self._engine = engine
            if self._stopped.is_set():
                engine.interrupt(SIGTERM)

    def engine_ended(self) -> None:
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

    def looked_up(self, findings: Sequence[Finding]) -> None:
        """A look-up was made, and this is what it says of each doubt."""

    def looking_up(self, doubts: int, seconds: float) -> None:
        """So many jobs are in doubt, and are looked up for at most so many seconds more."""

    def note(self, text: str) -> None:
        """Something that a person wants to know and need not act on."""


_DEFAULT_OPTIONS = RunOptions()
_MANIFEST_LIMITS = LimitOverrides()


def load_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check a manifest file.

    Raises:
        ManifestError: the manifest is invalid: `problems` has every problem with its position.
        UsageError: the file cannot be read.
    """
    # By its absolute path, so that its ledger stays the same when the program changes its working directory.
    return replace(loader.load(os.fspath(path), io.BytesIO()), path=os.path.abspath(path))  # noqa: PTH100 - must not resolve symbolic links


def run(
    manifest: Manifest,
    access: ApiAccess,
    *,
    options: RunOptions = _DEFAULT_OPTIONS,
    limits: LimitOverrides = _MANIFEST_LIMITS,
    ledger: str | os.PathLike[str] | None = None,
    git_commit: str | None = None,
    observer: RunObserver | None = None,
    stop: StopToken | None = None,
) -> Result:
    """Run a manifest: look up jobs in doubt, plan, submit, look up again. Blocks until the run has ended.

    Args:
        manifest: the result of `load_manifest`.
        access: where the API is, and the key; `SANDBOX` for a dry run.
        options: which jobs to submit, and what to do about an unfinished run.
        limits: limits that outrank the manifest's.
        ledger: an existing ledger. The default is the one beside the manifest, which is created if necessary.
        git_commit: the commit that contains the manifest, for the ledger and the results file.
        observer: receives progress in the calling thread.
        stop: stops the run early, from another thread.

    Raises:
        LockedError: another run of this manifest is in progress.
        RefusedError: the run was refused; nothing was sent.
        UsageError: an argument is invalid; nothing was sent.
    """
    request = _request(manifest, access, options, limits, ledger, git_commit)
    request.ledger.create_directory(manifest.path)
    token = stop or StopToken()
    with (
        _endpoint(access, manifest) as endpoint,
        ApiClient(endpoint, request.limits.concurrency) as api,
        execution.open_execution(request, api, observer or NullObserver(), token.wait) as run,
    ):
        run.prepare()
        end = run.submit(token)
        finished = summary.summarize(run.record())
        code = execution.exit_code(run.run, finished, end)
        entries = tuple(finished.record.entries)  # they are read from the ledger, which is about to be closed
        return Result(finished.run, finished.summary, entries, code, end.detail, end.error, end.unsaved)


def preview(
    manifest: Manifest,
    access: ApiAccess,
    *,
    options: RunOptions = _DEFAULT_OPTIONS,
    limits: LimitOverrides = _MANIFEST_LIMITS,
    ledger: str | os.PathLike[str] | None = None,
    check: bool = False,
) -> Preview:
    """Return what `run` would do now with each job, and why, without doing any of it.

    Makes no request, unless `options.estimate` (what does each workflow cost?) or `check` (does each exist?) is set.

    Raises:
        LockedError: a run of this manifest is in progress.
        RefusedError: `run` would be refused.
        UsageError: an argument is invalid.
    """
    request = _request(manifest, access, options, limits, ledger)
    previews.refuse_running(request)
    with previews.open_ledger(request.ledger) as opened:
        if not (options.estimate or check):
            return previews.build_preview(request, opened)[0]
        with _endpoint(access, manifest) as endpoint, ReadOnlyClient(endpoint, request.limits.concurrency) as reader:
            return previews.build_preview(request, opened, reader, check=check)[0]


def _request(
    manifest: Manifest,
    access: ApiAccess,
    options: RunOptions,
    overrides: LimitOverrides,
    ledger: str | os.PathLike[str] | None,
    git_commit: str | None = None,
) -> RunRequest:
    """Check the arguments, and make a request of them."""
    validate_limits(overrides)
    names: dict[str, object] = {"only": options.only, "again": options.again}
    for name, value in names.items():
        if isinstance(value, str):
            raise UsageError(f"{name} must be a tuple of strings, not a string", f"Write {name}=({value!r},).")
    run_keys.check_options(manifest, options)
    sandbox = access == SANDBOX
    if sandbox and ledger is not None:
        raise UsageError("the sandbox has its own ledger", "Omit `ledger`: it applies to the real API only.")
    location = LedgerLocation.for_manifest(manifest.path, None if ledger is None else Path(ledger), sandbox=sandbox)
    location.require_explicit_in_ci(manifest, ci=is_ci(os.environ) and not sandbox)
    api = SANDBOX_IDENTITY if sandbox else access.identity
    return RunRequest(manifest, api, location, resolve_limits(overrides, manifest), options, git_commit)


def _endpoint(access: ApiAccess, manifest: Manifest) -> AbstractContextManager[Endpoint]:
    return embedded.serve(manifest) if access == SANDBOX else nullcontext(access.endpoint())
