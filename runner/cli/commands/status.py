"""The command `status`: what became of the jobs of a run at the API, now or until all of them are final."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from runner import reports
from runner.cli import console, ledger_access, ledger_completers, live_status, options, output
from runner.cli.live_status import Keep
from runner.cli.output import OutputOptions
from runner.client.api import ReadOnlyClient
from runner.client.endpoint import SANDBOX_IDENTITY
from runner.client.fetcher import Fetcher
from runner.core.errors import RefusedError, UsageError
from runner.core.exit_codes import Exit, worst_exit
from runner.core.models import Job, Manifest
from runner.core.settings import LimitOverrides, Limits, resolve_limits
from runner.core.text import escape_unprintable
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.runs import tracking
from runner.runs.job_status import JobStatus, StatusPoller
from runner.runs.tracking import TrackedRun

_MOMENT = 1.0  # seconds between looks at a run that goes on


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for beside the connection and the limits."""

    target: str | None
    ledger: Path | None
    wait: bool
    wait_timeout: float | None
    format: str
    reports: tuple[tuple[str, Path], ...]
    every: bool
    quiet: bool
    began_at: float = field(init=False, default_factory=time.monotonic)

    @property
    def wanted(self) -> OutputOptions:
        """The reports that are wanted."""
        return OutputOptions(self.format, self.reports, self.every)

    @property
    def left(self) -> float | None:
        """The seconds that may still be waited; None without a limit."""
        if self.wait_timeout is None:
            return None
        return max(0.0, self.wait_timeout - (time.monotonic() - self.began_at))


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
@click.option("--quiet", "-q", is_flag=True, help="Print nothing unless something is wrong.")
@options.colors
def command(**given: Any) -> Exit:
    """Ask the API for the status of every job of a run.

    That is the last run; or RUN (the start of its id), the one that wrote RESULTS-FILE, or the last one of MANIFEST (a
    file, or a name in the ledger).

    What is final is kept in the ledger and not asked for again. The exit code is 0 when nothing is wrong (with --wait:
    when all completed), 1 when a job failed or was cancelled, 4 when it could not be told, 6 when --wait-timeout
    passed first.
    """
    request = Request(**{name: given.pop(name) for name in Request.__dataclass_fields__ if name in given})
    at = options.Connection(**{name: given.pop(name) for name in options.Connection.__dataclass_fields__})
    return _status(request, at, resolve_limits(LimitOverrides(**given), Manifest("", "", "", ())))


def _status(request: Request, at: options.Connection, limits: Limits) -> Exit:
    target = request.target
    found = tracking.track_results_file(Path(target)) if target is not None and _is_file(target) else None
    home = ledger_access.find_base_path(target) if target is None or found is None else _home_of_results(target, found)
    if request.wait_timeout is not None and not request.wait:
        raise UsageError("--wait-timeout is for --wait", "Give both, or neither.")
    place = options.locate_ledger(home, request.ledger, sandbox=at.sandbox)
    named = None if target is None else Path(target)
    request.wanted.check_targets([], [*place.files, named, *at.files])
    with _followed(request, place, found) as (followed, lines, keep):
        tell = partial(_tell, followed, lines, request)
        if all(
            one.is_known_final and not one.needs_details for one in followed.jobs
        ):  # no question, so no key is needed
            return tell(followed.jobs, Exit.OK, None)
        try:
            _refuse_other_api(followed, at)
            with _connected(at, home, followed.jobs, limits) as reader:
                watch = StatusPoller(followed.jobs, reader, Fetcher(limits), keep)
                waited = _watch(watch, target or followed.run_id, request)
        except (RefusedError, UsageError):
            if any(not one.is_known_final for one in followed.jobs):
                raise
            return tell(followed.jobs, Exit.OK, None)  # only why some failed is left to ask
        return tell(watch.statuses, waited, watch)


def _watch(watch: StatusPoller, target: str, request: Request) -> Exit:
    if not request.wait:
        watch.poll()
        return Exit.OK
    again = live_status.format_status_command(target)
    return live_status.wait_until_final(watch, timeout=request.left, again=again, quiet=request.quiet)


def _tell(
    followed: TrackedRun,
    lines: Mapping[str, int],
    request: Request,
    sightings: Sequence[JobStatus],
    waited: Exit,
    watch: StatusPoller | None,
) -> Exit:
    code = waited if waited is Exit.TIMED_OUT else live_status.exit_code(sightings, followed.others)
    standing = reports.StatusReport(
        followed.run_id, followed.manifest, followed.api, sightings, followed.others, followed.manifest_path, lines
    )
    if not request.wanted.write(reports.STATUS_FORMATS, [standing], quiet=request.quiet):
        code = worst_exit((code, Exit.REFUSED))
    if not request.quiet:
        console.info(
            f"run {followed.run_id} of {escape_unprintable(followed.manifest)} at {escape_unprintable(followed.api)}"
        )
    elif code is not Exit.OK:
        rest = f"; {reports.describe_without_job(followed.others)}" if followed.others else ""
        console.info(
            f"{escape_unprintable(followed.manifest)}: {escape_unprintable(reports.status_totals(sightings))}{rest}"
        )
    if watch is not None:
        live_status.report_problems(watch)
    return code


def _refuse_other_api(followed: TrackedRun, at: options.Connection) -> None:
    """The key goes where the person says, never where a file says."""
    if followed.api == at.api_identity:
        return
    way = "--sandbox" if followed.api == SANDBOX_IDENTITY else f"--base-url {followed.api}"
    raise UsageError(
        f"run {followed.run_id} was made at {followed.api}, and {at.api_identity} is what would be asked",
        f"If that is where to ask: {way}",
    )


@contextmanager
def _connected(
    at: options.Connection, home: str, sightings: Sequence[JobStatus], limits: Limits
) -> Iterator[ReadOnlyClient]:
    # Not the manifest itself, which may be gone: its place, and what a sandbox must know to be asked for the jobs.
    jobs = tuple(Job(one.name, one.workflow_id, one.project_id) for one in sightings)
    with (
        at.endpoint_factory()(Manifest("", home, "", jobs)) as endpoint,
        ReadOnlyClient(endpoint, limits.concurrency) as reader,
    ):
        yield reader


@contextmanager
def _followed(
    request: Request, place: LedgerLocation, found: TrackedRun | None
) -> Iterator[tuple[TrackedRun, Mapping[str, int], Keep]]:
    """What is meant, where its jobs stand in the manifest, and how what is final is kept.

    `found` is what a results file says, which has no lines.
    """
    if found is not None and not place.explicit and not path_exists(place.path):
        yield found, {}, lambda _final: None
        return
    ledger_access.require_ledger(place.path)
    with live_status.open_run_ledger(place.path) as ledger:
        followed, lines = _of_target(ledger, request) if found is None else _of_results(ledger, found)
        with live_status.saving_final_states(ledger, followed.api) as keep:
            yield followed, lines, keep


def _home_of_results(path: str, found: TrackedRun) -> str:
    """A manifest's path is as it was given to the run, which writes its results file where it runs, unless told."""
    beside = ledger_access.find_base_path(str(Path(path).parent / found.manifest_path))
    return ledger_access.find_base_path(found.manifest_path) if beside == "-" else beside


def _of_results(ledger: Ledger, found: TrackedRun) -> tuple[TrackedRun, Mapping[str, int]]:
    """What the ledger knows by now of the run that wrote a results file; else what the file says."""
    run = next((run for run in ledger.runs(found.api, found.manifest) if run.id == found.run_id), None)
    return (found, {}) if run is None else (tracking.track_run(ledger, run), _lines(ledger, run))


def _of_target(ledger: Ledger, request: Request) -> tuple[TrackedRun, Mapping[str, int]]:
    run, holder = ledger_access.refresh_run(ledger, _find(ledger, request.target))
    if holder is not None and request.wait:
        console.info(f"run {run.id} has not ended: waiting for it first; locked by {escape_unprintable(holder)}")
        while holder is not None and request.left != 0:
            live_status.sleep(_MOMENT)
            run, holder = ledger_access.refresh_run(ledger, run)
    followed, lines = tracking.track_run(ledger, run), _lines(ledger, run)
    if holder is None:
        return followed, lines
    console.warn(f"run {run.id} has not ended: these are its jobs so far; locked by {escape_unprintable(holder)}")
    return replace(followed, others={}), lines


def _lines(ledger: Ledger, run: RunRow) -> Mapping[str, int]:
    """The line of each job in the manifest, as it was in a run."""
    return {job.name: job.line for job in ledger.manifest_jobs(run)}


def _find(ledger: Ledger, target: str | None) -> RunRow:
    """The run that is meant: the last one, of a manifest that a file or a name says, or the one of an id."""
    if target is None:
        return ledger_access.find_run(ledger, ledger_access.LAST, None)
    if _is_file(target) or target in {name for _, name, _ in ledger.manifests()}:
        return ledger_access.find_run(ledger, ledger_access.LAST, ledger_access.resolve_name(ledger, target))
    return ledger_access.find_run(ledger, target, None)


def _is_file(target: str) -> bool:
    return os.path.isfile(target)  # noqa: PTH113 - Path.is_file raises for a name that is too long
