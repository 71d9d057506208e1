"""The command `plan`: says what `run` would do now, and what that would cost, and does none of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from runner import reports
from runner.cli import completers, console, manifests, options, output
from runner.cli.manifests import LoadedManifest
from runner.cli.output import OutputOptions
from runner.client.api import ReadOnlyClient
from runner.core import settings
from runner.core.errors import Exit, RefusedError, RunnerError, worst
from runner.core.text import escape_unprintable
from runner.ledger.location import LedgerLocation
from runner.planning import forecast
from runner.planning import run_key as run_keys
from runner.planning.forecast import Preview
from runner.runs import preview
from runner.runs.preview import PreviewRequest


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for beside the connection and the limits."""

    manifests: tuple[str, ...]
    ledger: Path | None
    only: tuple[str, ...]
    again: tuple[str, ...]
    resume: bool
    new: bool
    cost: bool
    check: bool
    allow_unknown_cost: bool
    format: str
    reports: tuple[tuple[str, Path], ...]
    every: bool
    exit_code: bool


@click.command("plan")
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, shell_complete=completers.files)
@click.option("--cost", is_flag=True, help="Ask the API what each workflow costs.")
@click.option("--check", is_flag=True, help="Ask the API whether each workflow is in its project, and may be seen.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 when there is something to submit, as git diff does.")
@output.options
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
    request = Request(**{name: given.pop(name) for name in Request.__dataclass_fields__})
    at = options.Connection(**{name: given.pop(name) for name in options.Connection.__dataclass_fields__})
    return _plan(request, at, settings.Options(**given))


def _plan(request: Request, at: options.Connection, flags: settings.Options) -> Exit:
    several = manifests.are_several(request.manifests)
    wanted = OutputOptions(request.format, request.reports, request.every, several)
    chosen = manifests.read(request.manifests, request.only, request.again)
    asked = [(_question(source, request, at, flags), _place(source, request, at)) for source in chosen]
    needed = [at.api_key_file, at.ca_file, *(Path(source.manifest.path) for source in chosen)]
    wanted.check([], [*needed, *(file for _, place in asked for file in place.files)])
    made: list[Preview] = []
    codes: list[Exit] = []
    for question, place in asked:
        try:
            made.append(_forecast(question, place, request, at))
        except RunnerError as error:
            if not several:
                raise
            console.fail(error)
            codes.append(error.exit_code)
    if made and not wanted.put_out(reports.PLAN_FORMATS, made):
        codes.append(Exit.REFUSED)
    for one in made:
        try:
            codes.append(_judge(one, request))
        except RefusedError as error:
            console.fail(error)
            codes.append(error.exit_code)
    return worst(codes)


def _place(source: LoadedManifest, request: Request, at: options.Connection) -> LedgerLocation:
    run_keys.refuse_two_answers(source.manifest, request.again, resume=request.resume, new=request.new)
    return options.ledger_of(source.manifest, request.ledger, sandbox=at.sandbox)


def _question(
    source: LoadedManifest, request: Request, at: options.Connection, flags: settings.Options
) -> PreviewRequest:
    limits = settings.limits(flags, source.manifest)
    return PreviewRequest(source.manifest, at.identity, limits, source.only, source.again, request.resume, request.new)


def _forecast(question: PreviewRequest, place: LedgerLocation, request: Request, at: options.Connection) -> Preview:
    preview.check_free(place, question)
    with preview.record(place) as ledger, _reader(request, at, question) as reader:
        if isinstance(ledger, preview.Unwritten):
            console.say(f"there is no ledger at {place.path} yet: every job is new")
        made, notes = preview.look(question, ledger, reader, cost=request.cost, check=request.check)
    for note in notes:
        console.say(escape_unprintable(note))
    return made


@contextmanager
def _reader(request: Request, at: options.Connection, question: PreviewRequest) -> Iterator[ReadOnlyClient | None]:
    """Who is asked: nobody, unless something is to be asked. It could not create a job if it wanted to."""
    if not (request.cost or request.check):
        yield None
        return
    with (
        at.endpoints()(question.manifest) as endpoint,
        ReadOnlyClient(endpoint, question.limits.concurrency) as reader,
    ):
        yield reader


def _judge(made: Preview, request: Request) -> Exit:
    wrong = sorted({(one.job.pair, one.problem) for one in made.prospects if one.problem})
    if wrong:
        (workflow_id, project_id), problem = wrong[0]
        remedy = made.remedies.get(problem)
        what = "be checked" if remedy else "be seen as the manifest has them"
        raise RefusedError(
            f"{len(wrong)} workflow{'' if len(wrong) == 1 else 's'} could not {what}, the first: {workflow_id} in "
            f"project {project_id}: {problem}",
            remedy or "Check the ids, and what the key may see.",
        )
    forecast.check_cost(made, allow_unknown=request.allow_unknown_cost)
    if made.unpriced and not request.allow_unknown_cost:  # a script is to see that it learned nothing
        raise forecast.unknown_cost(made)
    return Exit.NOT_CREATED if request.exit_code and made.count("submit") else Exit.OK
