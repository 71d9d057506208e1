"""The command `plan`: shows what `run` would do, and what it would cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from runner import reports
from runner.cli import completers, console, manifests, options, output, run_requests
from runner.cli.output import OutputOptions
from runner.client.api import ReadOnlyClient
from runner.core.errors import RefusedError, RunnerError
from runner.core.exit_codes import Exit, worst_exit
from runner.core.models import LimitOverrides
from runner.core.settings import RunOptions
from runner.core.text import escape_unprintable
from runner.planning import cost_limit
from runner.planning.planned_jobs import Preview
from runner.runs import preview
from runner.runs.request import RunRequest


@dataclass(frozen=True, slots=True)
class Request:
    """The command's own parameters."""

    manifests: tuple[str, ...]
    ledger: Path | None
    check: bool
    format: str
    reports: tuple[tuple[str, Path], ...]
    every: bool
    exit_code: bool


@click.command("plan")
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, shell_complete=completers.complete_files)
@click.option("--cost", "estimate", is_flag=True, help="Request an estimate of each workflow's cost from the API.")
@click.option("--check", is_flag=True, help="Check with the API that each workflow exists in its project.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are jobs to submit, like `git diff --exit-code`.")
@output.options(reports.PLAN_FORMATS)
@options.selection
@options.cost_limit
@options.connection
@options.ledger
@options.limits
@options.colors
def command(**parameters: Any) -> Exit:
    """Show what `run MANIFEST...` would do with each job now: submit it, look it up, or nothing, and why.

    Nothing is sent, written or locked. Without --cost and --check it needs no key and no network. The exit code is 0;
    with --exit-code, 1 if there are jobs to submit; and 4 if `run` would refuse, or --check found a problem.
    """
    request, connection = options.take(Request, parameters), options.take(options.Connection, parameters)
    run_options = options.take(RunOptions, parameters)
    return _plan(request, connection, run_options, LimitOverrides(**parameters))


def _plan(request: Request, connection: options.Connection, run_options: RunOptions, overrides: LimitOverrides) -> Exit:
    several = manifests.may_be_several(request.manifests)
    output_options = OutputOptions(request.format, request.reports, request.every, several)
    loaded = manifests.load(request.manifests, run_options.only, run_options.again)
    runs = [
        run_requests.build_request(manifest, run_options, overrides, connection, request.ledger) for manifest in loaded
    ]
    inputs = [*connection.files, *(Path(run.manifest.path) for run in runs)]
    output_options.check_targets([], [*inputs, *(path for run in runs for path in run.ledger.files)])
    previews: list[Preview] = []
    codes: list[Exit] = []
    for run in runs:
        try:
            previews.append(_preview(run, connection, check=request.check))
        except RunnerError as error:
            if not several:
                raise
            console.error(error)
            codes.append(error.exit_code)
    if previews and not output_options.write(reports.PLAN_FORMATS, previews):
        codes.append(Exit.REFUSED)
    for each in previews:
        try:
            codes.append(_exit_code(each, run_options, request))
        except RefusedError as error:
            console.error(error)
            codes.append(error.exit_code)
    return worst_exit(codes)


def _preview(run: RunRequest, connection: options.Connection, *, check: bool) -> Preview:
    preview.refuse_running(run)
    with preview.open_ledger(run.ledger) as ledger, _open_client(run, connection, check=check) as client:
        if isinstance(ledger, preview.EmptyLedger):
            console.info(f"there is no ledger at {run.ledger.path} yet: all jobs are new")
        resolve_command = options.format_resolve_command(run.manifest.name, run.manifest.path)
        built, notes = preview.build_preview(run, ledger, client, check=check, resolve_command=resolve_command)
    for note in notes:
        console.info(escape_unprintable(note))
    return built


@contextmanager
def _open_client(run: RunRequest, connection: options.Connection, *, check: bool) -> Iterator[ReadOnlyClient | None]:
    """Connect to the API if there is anything to request. The client has no way to create a job."""
    if not (run.options.estimate or check):
        yield None
        return
    with connection.open_client(run.manifest, run.limits.concurrency) as client:
        yield client


def _exit_code(built: Preview, run_options: RunOptions, request: Request) -> Exit:
    """The exit code for a preview. Raises RefusedError if `run` would refuse, or a check found a problem."""
    problems = sorted({(job.job.pair, job.problem) for job in built.jobs if job.problem})
    if problems:
        (workflow_id, project_id), problem = problems[0]
        hint = built.hints.get(problem)
        workflows = f"{len(problems)} workflow{'' if len(problems) == 1 else 's'}"
        failure = "could not be checked" if hint else "failed the check"
        raise RefusedError(
            f"{workflows} {failure}; first error: {workflow_id} in project {project_id}: {problem}",
            hint or "Check the ids, and the permissions of the key.",
        )
    cost_limit.check_limit(built, allow_unknown=run_options.allow_unknown_cost)
    if built.unknown_costs and not run_options.allow_unknown_cost:  # so that a script notices
        raise cost_limit.unknown_cost_error(built)
    return Exit.NOT_CREATED if request.exit_code and built.count("submit") else Exit.OK
