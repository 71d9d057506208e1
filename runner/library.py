"""The library: load, preview and run manifests without printing, exiting or installing signal handlers."""

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
    """Where the API is, and its key. Proxies are configured by the environment variables.

    `ca_bundle` is a PEM file of certificates to trust instead of the system's. `allow_http` permits sending the key
    over a network unencrypted.
    """

    key: str = field(repr=False)
    base_url: str = PRODUCTION_URL
    ca_bundle: str | None = None
    allow_http: bool = False

    @property
    def identity(self) -> str:
        """The API's name in the ledger. Raises UsageError if the base URL is invalid."""
        return parse_base_url(self.base_url, allow_http=self.allow_http)

    def endpoint(self) -> Endpoint:
        """The endpoint to connect to. Raises UsageError or RefusedError if the settings are invalid."""
        trust = load_ca_bundle(self.ca_bundle)
        origin = self.identity
        return Endpoint(origin, parse_api_key(self.key), self.ca_bundle, find_proxy(origin), trust)


SANDBOX = ApiAccess("", SANDBOX_IDENTITY)
"""A local API server in this process, without account or cost. Its jobs and ledger are stored beside the manifest."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a run.

    `run.state` is `completed`, `stopped` or `interrupted`; `detail` says why it did not complete. `summary` has the
    counts and the cost, and `entries` every job of the run key with its outcome, in the manifest's order. `unsaved` are
    outcomes that could not be saved to the ledger, because of `error`: save them, as you pay for these jobs. `code` is
    the exit code of the command line.
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
        """Whether every job that was to be submitted exists."""
        return self.code is Exit.OK

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the results file atomically. Raises RefusedError if that fails."""
        results_file.write(summary.summarize(RunRecord(self.run, self.entries)), Path(path))


class StopToken:
    """Stops a run early, from any thread. Requests in flight have a few seconds to finish."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.RLock()
        self._engine: Engine | None = None

    def stop(self) -> None:
        """Stop the run. A second call aborts the requests in flight."""
        with self._lock:
            self._stopped.set()
            if self._engine is not None:
                self._engine.interrupt(SIGTERM)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def engine_started(self, engine: Engine) -> None:
        """Called by the run: the engine is about to run."""
        with self._lock:
            self._engine = engine
            if self._stopped.is_set():
                engine.interrupt(SIGTERM)

    def engine_ended(self) -> None:
        """Called by the run: the engine has ended."""
        with self._lock:
            self._engine = None

    def wait(self, seconds: float) -> bool:
        """Sleep; returns False as soon as the run is to stop."""
        return not self._stopped.wait(seconds)


class NullObserver:
    """An observer that ignores everything. Override the methods that you need; they run in the calling thread."""

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        """A job's outcome was saved to the ledger."""

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:
        """A job that was certainly not created is retried in so many seconds."""

    def pausing(self, error: ErrorInfo, seconds: float) -> None:
        """The server asked for a pause: nothing is sent for so many seconds."""

    def stopping(self, detail: str) -> None:
        """Nothing more is sent; requests in flight may finish."""

    def looked_up(self, findings: Sequence[Finding]) -> None:
        """A lookup has ended, with a finding for each job in doubt."""

    def looking_up(self, doubts: int, seconds: float) -> None:
        """Jobs in doubt are looked up, for at most so many seconds more."""

    def note(self, text: str) -> None:
        """Something that the user may want to know but need not act on."""


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
    """Check the arguments, and build the request."""
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
