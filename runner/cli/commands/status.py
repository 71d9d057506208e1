"""The command `status`: shows the status of a run's jobs at the API, once or until all of them are final."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from runner import reports
from runner.cli import console, ledger_access, ledger_completers, live_status, options, output
from runner.cli.live_status import SaveStatuses
from runner.cli.output import OutputOptions
from runner.client.endpoint import SANDBOX_IDENTITY
from runner.client.fetcher import Fetcher
from runner.core.errors import RefusedError, UsageError
from runner.core.exit_codes import Exit, worst_exit
from runner.core.models import STDIN, Job, LimitOverrides, Manifest
from runner.core.settings import Limits, resolve_limits
from runner.core.text import escape_unprintable
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.runs import tracking
from runner.runs.job_status import JobStatus, StatusPoller
from runner.runs.tracking import TrackedRun

_RUN_INTERVAL = 1.0  # seconds between checks whether a run has ended


@dataclass(frozen=True, slots=True)
class Request:
    """The command's own parameters."""

    target: str | None
    ledger: Path | None
    wait: bool
    wait_timeout: float | None
    format: str
    reports: tuple[tuple[str, Path], ...]
    every: bool
    quiet: bool
    started_at: float = field(init=False, default_factory=time.monotonic)

    @property
    def output_options(self) -> OutputOptions:
        """What to print and write."""
        return OutputOptions(self.format, self.reports, self.every)

    @property
    def remaining(self) -> float | None:
        """The seconds until --wait-timeout expires; None without it."""
        if self.wait_timeout is None:
            return None
        return max(0.0, self.wait_timeout - (time.monotonic() - self.started_at))


@dataclass(frozen=True, slots=True)
class _Target:
    """A run, the line of each of its jobs in the manifest (none if unknown), and how to save final statuses."""

    run: TrackedRun
    lines: Mapping[str, int]
    save: SaveStatuses


@click.command("status")
@click.argument(
    "target",
    metavar="[RUN|RESULTS-FILE|MANIFEST]",
    required=False,
    shell_complete=ledger_completers.complete_files_or_runs,
)
@options.wait
@output.options(reports.STATUS_FORMATS)
@options.connection
@options.ledger
@options.limits
@options.quiet
@options.colors
def command(**parameters: Any) -> Exit:
    """Show the status of a run's jobs at the API.

    The run is the latest one; or RUN (the start of its id), the one that wrote RESULTS-FILE, or the latest of MANIFEST
    (a file, or a name in the ledger). Final statuses are saved to the ledger, and not requested again.

    The exit code is 0 if no job failed (with --wait: if all completed); 1 if a job failed, was cancelled or was not
    created; 4 if the status of a job could not be determined; and 6 if --wait-timeout expired.
    """
    request, connection = options.take(Request, parameters), options.take(options.Connection, parameters)
    return _status(request, connection, resolve_limits(LimitOverrides(**parameters), Manifest("", "", "", ())))


def _status(request: Request, connection: options.Connection, limits: Limits) -> Exit:
    if request.wait_timeout is not None and not request.wait:
        raise UsageError("--wait-timeout requires --wait", "Add --wait, or omit --wait-timeout.")
    path = Path(request.target) if request.target is not None and _is_file(request.target) else None
    results_run = None if path is None else tracking.track_results_file(path)
    if path is None or results_run is None:
        base_path = ledger_access.find_base_path(request.target)
    else:
        base_path = _find_base_path(path, results_run)
    location = options.locate_ledger(base_path, request.ledger, sandbox=connection.sandbox)
    request.output_options.check_targets([], [*location.files, path, *connection.files])
    with _open_target(request, location, results_run) as target:
        jobs = target.run.jobs
        if all(job.is_known_final and not job.needs_details for job in jobs):  # no request, and so no key, is needed
            return _show(target, request, jobs)
        try:
            _check_api(target.run, connection)
            with connection.open_client(_stand_in(base_path, jobs), limits.concurrency) as client:
                poller = StatusPoller(jobs, client, Fetcher(limits), target.save)
                code = _poll(poller, request.target or target.run.run_id, request)
        except (RefusedError, UsageError):
            if any(not job.is_known_final for job in jobs):
                raise
            return _show(target, request, jobs)  # only why some jobs failed is unknown
        return _show(target, request, poller.statuses, poller, timed_out=code is Exit.TIMED_OUT)


def _stand_in(path: str, jobs: Sequence[JobStatus]) -> Manifest:
    """Stands in for the manifest, which may be gone: the sandbox needs its path, and the jobs to look up."""
    return Manifest("", path, "", tuple(Job(job.name, job.workflow_id, job.project_id) for job in jobs))


def _poll(poller: StatusPoller, target: str, request: Request) -> Exit:
    if not request.wait:
        poller.poll()
        return Exit.OK
    next_command = live_status.format_status_command(target)
    return live_status.wait_until_final(
        poller, timeout=request.remaining, next_command=next_command, quiet=request.quiet
    )


def _show(
    target: _Target,
    request: Request,
    statuses: Sequence[JobStatus],
    poller: StatusPoller | None = None,
    *,
    timed_out: bool = False,
) -> Exit:
    run = target.run
    code = Exit.TIMED_OUT if timed_out else live_status.exit_code(statuses, run.without_job)
    report = reports.StatusReport(
        run.run_id, run.manifest, run.api, statuses, run.without_job, run.manifest_path, target.lines
    )
    if not request.output_options.write(reports.STATUS_FORMATS, [report], quiet=request.quiet):
        code = worst_exit((code, Exit.REFUSED))
    if not request.quiet:
        console.info(escape_unprintable(f"run {run.run_id} of {run.manifest} at {run.api}"))
    elif code is not Exit.OK:
        others = f"; {reports.describe_without_job(run.without_job)}" if run.without_job else ""
        console.info(escape_unprintable(f"{run.manifest}: {reports.summarize_statuses(statuses)}{others}"))
    if poller is not None:
        live_status.report_problems(poller)
    return code


def _check_api(run: TrackedRun, connection: options.Connection) -> None:
    """Check that the run used the API of the options: the key must not go to a server that only a file names."""
    if run.api == connection.api_identity:
        return
    option = "--sandbox" if run.api == SANDBOX_IDENTITY else f"--base-url {run.api}"
    raise UsageError(
        f"run {run.run_id} used {run.api}, but this command would call {connection.api_identity}",
        f"To call the API of the run: {option}",
    )


@contextmanager
def _open_target(request: Request, location: LedgerLocation, results_run: TrackedRun | None) -> Iterator[_Target]:
    """Find the run. `results_run` is the one of a results file, which does not need a ledger."""
    if results_run is not None and not location.explicit and not path_exists(location.path):
        yield _Target(results_run, {}, lambda _statuses: None)
        return
    ledger_access.require_ledger(location)
    with live_status.open_run_ledger(location.path) as ledger:
        run, lines = _find_run(ledger, request) if results_run is None else _refresh(ledger, results_run)
        with live_status.saving_final_statuses(ledger, run.api) as save:
            yield _Target(run, lines, save)


def _find_base_path(results: Path, run: TrackedRun) -> str:
    """The path of the manifest that a results file names, relative to that file or to the working directory."""
    relative = ledger_access.find_base_path(str(results.parent / run.manifest_path))
    return ledger_access.find_base_path(run.manifest_path) if relative == STDIN else relative


def _refresh(ledger: Ledger, results_run: TrackedRun) -> tuple[TrackedRun, Mapping[str, int]]:
    """The run of a results file as it is in the ledger now, if it is there."""
    runs = ledger.runs(results_run.api, results_run.manifest)
    run = next((run for run in runs if run.id == results_run.run_id), None)
    return (results_run, {}) if run is None else (tracking.track_run(ledger, run), _read_lines(ledger, run))


def _find_run(ledger: Ledger, request: Request) -> tuple[TrackedRun, Mapping[str, int]]:
    """The run of the command line. With --wait, it is waited for if it is in progress."""
    run, holder = ledger_access.refresh_run(ledger, _find_row(ledger, request.target))
    if holder is not None and request.wait:
        console.info(f"run {run.id} is in progress; waiting for it to end; locked by {escape_unprintable(holder)}")
        while holder is not None and request.remaining != 0:
            live_status.sleep(_RUN_INTERVAL)
            run, holder = ledger_access.refresh_run(ledger, run)
    tracked, lines = tracking.track_run(ledger, run), _read_lines(ledger, run)
    if holder is None:
        return tracked, lines
    console.warn(f"run {run.id} is in progress; these are its jobs so far; locked by {escape_unprintable(holder)}")
    return replace(tracked, without_job={}), lines


def _read_lines(ledger: Ledger, run: RunRow) -> Mapping[str, int]:
    return {job.name: job.line for job in ledger.manifest_jobs(run)}


def _find_row(ledger: Ledger, target: str | None) -> RunRow:
    """The run of an id, or the latest one: of the manifest that is given, or of all."""
    if target is None:
        return ledger_access.find_run(ledger, ledger_access.LAST, None)
    if _is_file(target) or target in {name for _, name, _ in ledger.manifests()}:
        return ledger_access.find_run(ledger, ledger_access.LAST, ledger_access.resolve_name(ledger, target))
    return ledger_access.find_run(
        ledger, target, None, unknown=f"{target!r} is not a run id, a results file or a manifest"
    )


def _is_file(target: str) -> bool:
    return os.path.isfile(target)  # noqa: PTH113 - Path.is_file raises for a name that is too long
