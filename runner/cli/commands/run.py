"""The command `run`: submits the jobs of manifests, and reports what became of them."""

from __future__ import annotations

import os
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from runner import reports
from runner.cli import (
    batch,
    completers,
    console,
    git,
    live_status,
    manifests,
    options,
    output,
    run_requests,
    run_summary,
)
from runner.cli.batch import Batch, FinishedRun, Task
from runner.cli.manifests import LoadedManifest
from runner.cli.output import OutputOptions
from runner.cli.progress import Progress
from runner.client.api import ApiClient
from runner.client.fetcher import Fetcher
from runner.core.errors import RefusedError, RunnerError, UsageError
from runner.core.exit_codes import Exit, worst_exit
from runner.core.models import STDIN, LimitOverrides, Manifest
from runner.core.settings import Limits, RunOptions
from runner.core.text import escape_unprintable
from runner.manifest.yaml.reader import LIBYAML
from runner.runs import results_file, tracking
from runner.runs.execution import Execution
from runner.runs.job_status import StatusPoller


@dataclass(frozen=True, slots=True)
class Request:
    """The command's own parameters."""

    manifests: tuple[str, ...]
    ledger: Path | None
    results: Path | None
    format: str
    reports: tuple[tuple[str, Path], ...]
    every: bool
    confirm: bool
    wait: bool
    wait_timeout: float | None
    quiet: bool
    verbose: bool

    @property
    def output_options(self) -> OutputOptions:
        """What to print and write."""
        several = manifests.may_be_several(self.manifests)
        return OutputOptions(self.format, self.reports, self.every, several)


@click.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, shell_complete=completers.complete_files)
@options.connection
@options.ledger
@options.setting(
    "--results",
    "Path of the results file; of a directory if there are several manifests.  [default: NAME.results.json "
    "in the current directory, for NAME.yaml; NAME.sandbox.results.json with --sandbox]",
    type=click.Path(path_type=Path),
    metavar="PATH",
)
@output.options(reports.RUN_FORMATS)
@options.selection
@click.option("--hold", is_flag=True, help="Do not look up jobs in doubt: leave them for you to resolve.")
@options.settle
@options.lock_timeout
@options.limits
@options.integer(
    "--stop-after",
    f"Stop after N consecutive failures of the same kind; 0 means never.  [default: {Limits().stop_after}]",
    0,
)
@options.cost_limit
@click.option("--confirm", is_flag=True, help="Show the plan with its cost, and ask before anything is sent.")
@options.wait
@options.quiet
@click.option("--verbose", "-v", is_flag=True, help="Print the outcome of each job to stderr.")
@options.colors
def command(**parameters: Any) -> Exit:
    """Submit the jobs of each MANIFEST: a file, a directory of *.yaml files, or - for standard input.

    All manifests are checked before anything is sent. They run one after another, each with its own results file.

    The API key is read from PIXXEL_API_KEY or --api-key-file. An option outranks its environment variable, such as
    PIXXEL_RUNNER_CONCURRENCY, and that outranks the manifest.
    """
    request, connection = options.take(Request, parameters), options.take(options.Connection, parameters)
    run_options = replace(options.take(RunOptions, parameters), estimate=request.confirm)
    try:
        return _run(request, connection, run_options, LimitOverrides(**parameters))
    except RunnerError as error:
        if not request.quiet:
            raise
        run_summary.print_error_line(error)
        return error.exit_code


def _run(request: Request, connection: options.Connection, run_options: RunOptions, overrides: LimitOverrides) -> Exit:
    if request.wait_timeout is not None and not request.wait:
        raise UsageError("--wait-timeout requires --wait", "Add --wait, or omit --wait-timeout.")
    if request.confirm and not console.can_prompt():
        raise RefusedError("--confirm requires a terminal", "Run the command in a terminal, or omit --confirm.")
    if request.verbose and not LIBYAML:
        console.info("PyYAML was built without libyaml; parsing will be slow. Its wheels on PyPI include libyaml.")

    def make_task(loaded: LoadedManifest) -> Task:
        run_request = run_requests.build_request(loaded, run_options, overrides, connection, request.ledger)
        commit = git.find_commit(loaded.manifest.path, loaded.data)
        results = _locate_results(loaded.manifest, request, sandbox=connection.sandbox)
        return Task(replace(run_request, git_commit=commit), results)

    loaded = manifests.load(request.manifests, run_options.only, run_options.again, quiet=request.quiet)
    tasks = list(map(make_task, loaded))
    endpoint_factory = connection.endpoint_factory()
    _check_outputs(tasks, request, connection)
    for task in tasks:
        task.request.ledger.create_directory(task.request.manifest.path)
    progress = Progress(quiet=request.quiet, verbose=request.verbose, bar=console.is_terminal(sys.stderr))
    runs = Batch(endpoint_factory, partial(_confirm, request), progress, request.quiet)
    with runs.running(tasks):
        has_failed = runs.signum is not None or any(run.result.error for run in runs.finished)
        if not request.wait or not runs.finished or has_failed:
            return worst_exit((*runs.exit_codes, _print_summary(runs, request)))
    return worst_exit((*runs.exit_codes, *_wait(runs, request)))


def _locate_results(manifest: Manifest, request: Request, *, sandbox: bool) -> Path:
    """The path of a manifest's results file. Raises UsageError if one file is given for several manifests."""
    options.reject_empty_variables("PIXXEL_RUNNER_RESULTS")
    stem = manifest.name if manifest.path == STDIN else Path(manifest.path).stem
    name = f"{stem}.sandbox.results.json" if sandbox else f"{stem}.results.json"
    if request.results is None:
        return Path(name)
    if not manifests.may_be_several(request.manifests):
        return request.results
    if not os.path.isdir(request.results):  # noqa: PTH112 - Path.is_dir raises if a parent directory may not be entered
        raise UsageError(
            f"--results {request.results} must be a directory when running several manifests", "Specify a directory."
        )
    return request.results / name


def _check_outputs(tasks: Sequence[Task], request: Request, connection: options.Connection) -> None:
    """Check, before anything is sent, that no two manifests have the same name, and that every file can be written."""
    paths: dict[tuple[Path, str], str] = {}
    for task in tasks:
        manifest, ledger = task.request.manifest, task.request.ledger.path
        other = paths.setdefault((ledger.resolve(), manifest.name), manifest.path)
        if other != manifest.path:
            raise UsageError(
                f"{manifest.path} and {other} are both named {manifest.name!r}, and the ledger {ledger} identifies "
                "manifests by name",
                "Give each a different `name`.",
            )
    inputs = [*connection.files, *(Path(task.request.manifest.path) for task in tasks)]
    inputs += [path for task in tasks for path in task.request.ledger.files]
    request.output_options.check_targets([task.results for task in tasks], inputs)
    for task in tasks:
        results_file.RESULTS_FILE.check_writable(task.results)


def _confirm(request: Request, run: Execution) -> None:
    """With --confirm, show the plan and ask. Raises RefusedError unless the user agrees."""
    count, manifest = len(run.plan.to_send), run.request.manifest
    if not request.confirm or run.preview is None or not count:
        return
    style = reports.Style(width=console.width(sys.stderr), color=console.is_colored(sys.stderr), list_all=request.every)
    console.info(reports.PLAN_FORMATS["table"]([run.preview], style))
    name = escape_unprintable(manifest.name)
    if not _ask(f"Submit {count} of {len(manifest.jobs)} jobs of {name} to {run.request.api}?"):
        raise RefusedError("not confirmed: nothing was sent")


def _ask(question: str) -> bool:
    """Ask for a yes. Anything else, and the end of the input, is a no; Ctrl-C ends the program.

    Not `click.confirm`: it takes Ctrl-C for the end of the input, and some versions of it write to stdout.
    """
    with suppress(OSError):
        termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before the question is no answer to it
    console.info(f"{question} [y/N]: ", end="")
    reply = console.stdin().readline()
    if not reply:
        console.info("")
    return reply.strip().lower() in (b"y", b"yes")


def _print_summary(runs: Batch, request: Request) -> Exit:
    return run_summary.print_summary(
        runs.finished, request.output_options, signum=runs.signum, quiet=request.quiet, not_run=runs.not_run
    )


def _wait(runs: Batch, request: Request) -> list[Exit]:
    """Wait until the jobs are final, without holding a lock. Then print the summary, and the statuses."""
    deadline = None if request.wait_timeout is None else time.monotonic() + request.wait_timeout
    codes: list[Exit] = []
    pollers: list[StatusPoller] = []
    try:
        for finished in runs.finished:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            row = finished.run
            command_line = live_status.format_status_command(row.id if row.path == STDIN else row.path)
            with _open_poller(finished, runs.endpoint_factory) as poller:
                pollers.append(poller)
                codes.append(
                    live_status.wait_until_final(
                        poller, timeout=timeout, next_command=command_line, quiet=request.quiet
                    )
                )
    finally:
        runs.finished = list(map(batch.refresh, runs.finished))
        summary_code = _print_summary(runs, request)
    for finished, poller, code in zip(runs.finished, pollers, codes, strict=True):
        if code is not Exit.OK:
            totals = reports.summarize_statuses(poller.statuses).replace(": ", ", ", 1)
            console.info(escape_unprintable(f"status of {finished.run.manifest}: {totals}"))
        live_status.report_problems(poller)
    return [*codes, summary_code]


@contextmanager
def _open_poller(finished: FinishedRun, endpoint_factory: batch.EndpointFactory) -> Iterator[StatusPoller]:
    request = finished.task.request
    with (
        live_status.open_run_ledger(request.ledger.path) as ledger,
        live_status.saving_final_statuses(ledger, request.api) as save,
        endpoint_factory(request.manifest) as endpoint,
        ApiClient(endpoint, request.limits.concurrency) as api,
    ):
        yield StatusPoller(tracking.track_run(ledger, finished.run).jobs, api, Fetcher(request.limits), save)
