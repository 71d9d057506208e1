"""The command `run`: manifests are validated, planned and submitted, and the record of them written and shown."""

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
from runner.cli import batch, completers, console, git, live_status, manifests, options, output, requests, run_summary
from runner.cli.batch import Batch, FinishedRun, Task
from runner.cli.output import OutputOptions
from runner.cli.progress import Progress
from runner.client.api import ApiClient
from runner.client.fetcher import Fetcher
from runner.core.errors import RefusedError, RunnerError, UsageError
from runner.core.exit_codes import Exit, worst_exit
from runner.core.models import Manifest
from runner.core.settings import LimitOverrides, RunOptions
from runner.core.text import escape_unprintable
from runner.manifest.yaml.reader import LIBYAML
from runner.runs import record, results_file, summary, tracking
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


@click.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, shell_complete=completers.complete_files)
@options.connection
@options.ledger
@click.option(
    "--results",
    envvar="PIXXEL_RUNNER_RESULTS",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where the record goes; with several manifests, a folder.  [default: MANIFEST's stem + .results.json, here]",
)
@output.options(reports.RUN_FORMATS)
@options.selection
@click.option("--hold", is_flag=True, help="Do not look up jobs in doubt: leave them to a person.")
@options.settle
@options.lock_timeout
@options.limits
@click.option(
    "--stop-after",
    envvar="PIXXEL_RUNNER_STOP_AFTER",
    type=click.IntRange(0),
    metavar="N",
    help="Stop after the same trouble N times in a row; 0: never.  [default: 10]",
)
@options.max_cost
@click.option("--allow-unknown-cost", is_flag=True, help="Submit jobs of unknown cost, although there is a limit.")
@click.option("--confirm", is_flag=True, help="Show the plan and its cost, and ask before anything is sent.")
@options.wait
@click.option("--quiet", "-q", is_flag=True, help="Print nothing unless something is wrong.")
@click.option("--verbose", "-v", is_flag=True, help="Say on stderr what becomes of each job.")
@options.colors
def command(**given: Any) -> Exit:
    """Submit the jobs of each MANIFEST (a file, a folder of *.yaml, or - for standard input), and record them.

    Several are all checked before anything is sent, and then run one after another, each with its own record.

    The key comes from PIXXEL_API_KEY or --api-key-file. Each value is the flag's, else the environment's
    (PIXXEL_RUNNER_CONCURRENCY and so on), else the manifest's, else the default.
    """
    request = options.take(Request, given)
    at = options.take(options.Connection, given)
    run_options = replace(options.take(RunOptions, given), estimate=request.confirm)
    try:
        return _run(request, at, run_options, LimitOverrides(**given))
    except RunnerError as error:
        if not request.quiet:
            raise
        run_summary.print_error_line(error)
        return error.exit_code


def _run(request: Request, at: options.Connection, run_options: RunOptions, overrides: LimitOverrides) -> Exit:
    if request.wait_timeout is not None and not request.wait:
        raise UsageError("--wait-timeout requires --wait", "Add --wait, or omit --wait-timeout.")
    if request.confirm and not console.can_prompt():
        raise RefusedError("--confirm asks, and there is no terminal to answer on", "Run it without --confirm there.")
    if request.verbose and not LIBYAML:
        console.info(
            "manifests are read slowly, as PyYAML has no libyaml here: its wheels bring it, a build needs libyaml-dev"
        )
    several = manifests.may_be_several(request.manifests)
    wanted = OutputOptions(request.format, request.reports, request.every, several)
    chosen = manifests.load(request.manifests, run_options.only, run_options.again, quiet=request.quiet)
    tasks = [
        Task(
            replace(
                requests.build(source, run_options, overrides, at, request.ledger),
                git_commit=git.find_commit(source.manifest.path, source.data),
            ),
            _results(source.manifest, request, sandbox=at.sandbox),
        )
        for source in chosen
    ]
    endpoints = at.endpoint_factory()
    _check_outputs(tasks, wanted, at)
    for task in tasks:
        task.request.ledger.create_directory(task.request.manifest.path)
    progress = Progress(quiet=request.quiet, verbose=request.verbose, bar=console.is_stderr_terminal())
    ran = Batch(endpoints, partial(_confirm, request), progress, request.quiet)
    with ran.over(tasks):
        if not request.wait or ran.signum is not None or not ran.ran or any(one.end.error for one in ran.ran):
            return worst_exit((*ran.refused, _tell(ran, wanted, request)))
    return worst_exit((*ran.refused, _wait(ran, wanted, request)))


def _results(wanted: Manifest, request: Request, *, sandbox: bool) -> Path:
    """Where a manifest's results go. Raises UsageError when one file is named for several manifests."""
    options.reject_empty_variables("PIXXEL_RUNNER_RESULTS")
    stem = wanted.name if wanted.path == "-" else Path(wanted.path).stem
    name = f"{stem}.sandbox.results.json" if sandbox else f"{stem}.results.json"
    if request.results is None:
        return Path(name)
    if not manifests.may_be_several(request.manifests):
        return request.results
    if not os.path.isdir(request.results):  # noqa: PTH112 - Path.is_dir raises for a folder that may not be entered
        raise UsageError(f"--results {request.results} is no folder, and there are several manifests", "Name a folder.")
    return request.results / name


def _check_outputs(tasks: Sequence[Task], wanted: OutputOptions, at: options.Connection) -> None:
    """See, before money is spent, that no two manifests share a record, and that everything can be written."""
    known: dict[tuple[Path, str], str] = {}
    for task in tasks:
        path, ledger = task.request.manifest.path, task.request.ledger.path
        whose = (ledger.resolve(), task.request.manifest.name)
        if whose in known:
            raise UsageError(
                f"{path} and {known[whose]} are both named {whose[1]!r}, and the ledger {ledger} knows "
                "manifests by name",
                "Give each a `name:` of its own.",
            )
        known[whose] = path
    needed = [*at.files, *(Path(task.request.manifest.path) for task in tasks)]
    needed += [file for task in tasks for file in task.request.ledger.files]
    wanted.check_targets([task.results for task in tasks], needed)
    for task in tasks:
        results_file.RESULTS_FILE.check_writable(task.results)


def _confirm(request: Request, one: Execution) -> None:
    """Show the plan and ask, where that was asked for. Raises RefusedError for a no."""
    if not request.confirm or one.preview is None or not one.plan.to_send:
        return
    style = reports.Style(width=console.stderr_width(), color=console.is_stderr_colored(), list_all=request.every)
    console.info(reports.PLAN_FORMATS["table"]([one.preview], style))
    name = escape_unprintable(one.request.manifest.name)
    if not _ask(
        f"Submit {len(one.plan.to_send)} of {len(one.request.manifest.jobs)} jobs of {name} to {one.request.api}?"
    ):
        raise RefusedError("not confirmed: nothing was sent")


def _ask(question: str) -> bool:
    """Ask for a yes; anything else, and the end of the input, is a no. Ctrl-C ends the program, as anywhere.

    Not click.confirm: it takes Ctrl-C for the end of the input, and some versions write to stdout, which is data.
    """
    with suppress(OSError):
        termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before the plan was shown is no answer to it
    console.info(f"{question} [y/N]: ", end="")
    answer = console.stdin().readline()
    if not answer:
        console.info("")
    return answer.strip().lower() in (b"y", b"yes")


def _tell(ran: Batch, wanted: OutputOptions, request: Request) -> Exit:
    return run_summary.print_summary(ran.ran, wanted, signum=ran.signum, quiet=request.quiet, missed=ran.missed)


def _wait(ran: Batch, wanted: OutputOptions, request: Request) -> Exit:
    """Follow the jobs until they are final, without holding a lock; then tell of the runs, and of them."""
    until = None if request.wait_timeout is None else time.monotonic() + request.wait_timeout
    codes: list[Exit] = []
    watches: list[StatusPoller] = []
    try:
        for one in ran.ran:
            left = None if until is None else max(0.0, until - time.monotonic())
            with _watch(one, ran.endpoints) as watch:
                watches.append(watch)
                again = live_status.format_status_command(one.run.id if one.run.path == "-" else one.run.path)
                codes.append(live_status.wait_until_final(watch, timeout=left, next_command=again, quiet=request.quiet))
    finally:
        told = list(map(_again, ran.ran))
        codes.append(run_summary.print_summary(told, wanted, signum=None, quiet=request.quiet, missed=ran.missed))
    for one, watch, waited in zip(ran.ran, watches, codes, strict=False):
        if waited is not Exit.OK:
            totals = reports.status_totals(watch.statuses)
            console.info(escape_unprintable(f"{one.run.manifest} at the API: {totals}"))
        live_status.report_problems(watch)
    return worst_exit(codes)


@contextmanager
def _watch(ran: FinishedRun, endpoints: batch.Endpoints) -> Iterator[StatusPoller]:
    request = ran.task.request
    with (
        live_status.open_run_ledger(request.ledger.path) as ledger,
        live_status.saving_final_statuses(ledger, request.api) as keep,
        endpoints(request.manifest) as endpoint,
        ApiClient(endpoint, request.limits.concurrency) as api,
    ):
        yield StatusPoller(tracking.track_run(ledger, ran.run).jobs, api, Fetcher(request.limits), keep)


def _again(ran: FinishedRun) -> FinishedRun:
    """What ran, as the ledger has it by now."""
    with live_status.open_run_ledger(ran.task.request.ledger.path) as ledger:
        made = summary.summarize(record.load_record(ledger, ran.run))
        unwritten = batch.write(made, ran.task.results)
        earlier = batch.doubts_of_earlier(ledger, ran.run)
    made = batch.without_ledger(made, ran.task.request, ran.run)
    return replace(ran, made=made, unwritten=unwritten, earlier=earlier)
