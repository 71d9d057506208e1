"""The command `plan`: says what `run` would do now, and what that would cost, and does none of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from runner import reports
from runner.cli import completers, console, manifests, options, output, requests
from runner.cli.output import OutputOptions
from runner.client.api import ReadOnlyClient
from runner.core.errors import RefusedError, RunnerError
from runner.core.exit_codes import Exit, worst_exit
from runner.core.settings import LimitOverrides, RunOptions
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
@click.option("--cost", "estimate", is_flag=True, help="Ask the API what each workflow costs.")
@click.option("--check", is_flag=True, help="Ask the API whether each workflow is in its project, and may be seen.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 when there is something to submit, as git diff does.")
@output.options(reports.PLAN_FORMATS)
@options.selection
@options.max_cost
@click.option("--allow-unknown-cost", is_flag=True, help="As run would be given it.")
@options.connection
@options.ledger
@options.limits
@options.colors
def command(**given: Any) -> Exit:
    """Say what `run MANIFEST...` would do now with each job: submit it, look it up, or nothing, and why.

    Nothing is sent, written or locked. Without --cost and --check it needs no key and no network. The exit code is 0;
    1 with --exit-code when there is something to submit; 4 when run would refuse, or a check found something wrong.
    """
    request, at = options.take(Request, given), options.take(options.Connection, given)
    run_options = options.take(RunOptions, given)
    return _plan(request, at, run_options, LimitOverrides(**given))


def _plan(request: Request, at: options.Connection, run_options: RunOptions, overrides: LimitOverrides) -> Exit:
    several = manifests.may_be_several(request.manifests)
    wanted = OutputOptions(request.format, request.reports, request.every, several)
    sources = manifests.load(request.manifests, run_options.only, run_options.again)
    runs = [requests.build(source, run_options, overrides, at, request.ledger) for source in sources]
    needed = [*at.files, *(Path(run.manifest.path) for run in runs)]
    wanted.check_targets([], [*needed, *(file for run in runs for file in run.ledger.files)])
    made: list[Preview] = []
    codes: list[Exit] = []
    for run in runs:
        try:
            made.append(_preview(run, at, check=request.check))
        except RunnerError as error:
            if not several:
                raise
            console.error(error)
            codes.append(error.exit_code)
    if made and not wanted.write(reports.PLAN_FORMATS, made):
        codes.append(Exit.REFUSED)
    for one in made:
        try:
            codes.append(_judge(one, run_options, request))
        except RefusedError as error:
            console.error(error)
            codes.append(error.exit_code)
    return worst_exit(codes)


def _preview(run: RunRequest, at: options.Connection, *, check: bool) -> Preview:
    preview.refuse_running(run)
    with preview.open_ledger(run.ledger) as ledger, _reader(run, at, check=check) as reader:
        if isinstance(ledger, preview.EmptyLedger):
            console.info(f"there is no ledger at {run.ledger.path} yet: every job is new")
        made, notes = preview.build_preview(run, ledger, reader, check=check)
    for note in notes:
        console.info(escape_unprintable(note))
    return made


@contextmanager
def _reader(run: RunRequest, at: options.Connection, *, check: bool) -> Iterator[ReadOnlyClient | None]:
    """Connect to the API, if there is anything to ask it. The client has no way to create a job."""
    if not (run.options.estimate or check):
        yield None
        return
    with at.endpoint_factory()(run.manifest) as endpoint, ReadOnlyClient(endpoint, run.limits.concurrency) as reader:
        yield reader


def _judge(made: Preview, run_options: RunOptions, request: Request) -> Exit:
    wrong = sorted({(one.job.pair, one.problem) for one in made.jobs if one.problem})
    if wrong:
        (workflow_id, project_id), problem = wrong[0]
        hint = made.hints.get(problem)
        what = "be checked" if hint else "be seen as the manifest has them"
        raise RefusedError(
            f"{len(wrong)} workflow{'' if len(wrong) == 1 else 's'} could not {what}, the first: {workflow_id} in "
            f"project {project_id}: {problem}",
            hint or "Check the ids, and what the key may see.",
        )
    cost_limit.check_limit(made, allow_unknown=run_options.allow_unknown_cost)
    if made.unknown_costs and not run_options.allow_unknown_cost:  # a script is to see that it learned nothing
        raise cost_limit.unknown_cost_error(made)
    return Exit.NOT_CREATED if request.exit_code and made.count("submit") else Exit.OK
