"""The command `plan`: says what `run` would do now, and what that would cost, and does none of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from runner import forecast, lock, manifest, outlook, report, settings
from runner.api import Reader
from runner.cli import console, options, problems
from runner.errors import Exit, ManifestError, RefusedError
from runner.forecast import Forecast
from runner.ledger.store import Ledger
from runner.model import Manifest
from runner.outlook import Question
from runner.text import visible


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for beside the connection and the limits."""

    manifest: str
    ledger: Path | None
    only: tuple[str, ...]
    again: tuple[str, ...]
    resume: bool
    new: bool
    cost: bool
    check: bool
    allow_unknown_cost: bool
    format: str
    every: bool
    exit_code: bool


@click.command("plan")
@click.argument("manifest", metavar="MANIFEST")
@click.option("--cost", is_flag=True, help="Ask the API what each workflow costs.")
@click.option("--check", is_flag=True, help="Ask the API whether each workflow is in its project, and may be seen.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 when there is something to submit, as git diff does.")
@options.formats
@options.selection
@options.max_cost
@click.option("--allow-unknown-cost", is_flag=True, help="As run would be given it.")
@options.connection
@options.ledger
@options.limits
@options.colors
def command(**given: Any) -> Exit:
    """Say what `run MANIFEST` would do now with each job: submit it, look it up, or nothing, and why.

    Nothing is sent, written or locked. Without --cost and --check it needs no key and no network. The exit code is 0;
    1 with --exit-code when there is something to submit; 4 when run would refuse, or a check found something wrong.
    """
    request = Request(**{name: given.pop(name) for name in Request.__dataclass_fields__})
    at = options.Connection(**{name: given.pop(name) for name in options.Connection.__dataclass_fields__})
    return _plan(request, at, settings.Options(**given))


def _plan(request: Request, at: options.Connection, flags: settings.Options) -> Exit:
    wanted = _checked(request)
    options.refuse_two_answers(wanted, request.again, resume=request.resume, new=request.new)
    place = options.LedgerPlace.of(wanted.path, request.ledger, sandbox=at.sandbox)
    options.refuse_unkept_ledger(wanted, place, sandbox=at.sandbox)
    question = Question(
        wanted,
        at.identity,
        settings.limits(flags, wanted),
        request.only,
        request.again,
        request.resume,
        request.new,
    )
    holder = lock.holder(place.path, question.api, wanted.name)
    if holder is not None:
        raise lock.LockedError(
            f"manifest {wanted.name!r} is being run at {question.api} by {holder}",
            "What it has still to do is its own; plan again when it has ended.",
        )
    with _ledger(place) as ledger, _reader(request, at, wanted, question.limits) as reader:
        made, notes = outlook.look(question, ledger, reader, cost=request.cost, check=request.check)
    for note in notes:
        console.say(visible(note))
    style = report.Style(width=console.stdout_width(), color=console.stdout_color(), every=request.every)
    console.out(report.PLAN_FORMATS[request.format](made, style))
    return _judge(made, request)


def _checked(request: Request) -> Manifest:
    data = manifest.read_source(request.manifest, console.stdin())
    checked = manifest.check(data, request.manifest)
    for warning in checked.warnings:
        console.warn(problems.text(warning))
    if checked.manifest is None:
        raise ManifestError(checked.problems)
    return checked.manifest


@contextmanager
def _ledger(place: options.LedgerPlace) -> Iterator[Ledger]:
    """The record, to be read; an empty one where there is none yet, and a run would make it."""
    if not place.named and not place.path.exists():
        if lock.folder(place.path).exists():
            raise lock.lost_ledger(place.path)
        console.say(f"there is no ledger at {place.path} yet: every job is new")
        yield outlook.Unwritten(place.path)
        return
    with Ledger(place.path, read_only=True) as ledger:
        yield ledger


@contextmanager
def _reader(
    request: Request, at: options.Connection, wanted: Manifest, limits: settings.Limits
) -> Iterator[Reader | None]:
    """Who is asked: nobody, unless something is to be asked. It could not create a job if it wanted to."""
    if not (request.cost or request.check):
        yield None
        return
    with at.endpoint(wanted) as endpoint, Reader(endpoint, limits.concurrency) as reader:
        yield reader


def _judge(made: Forecast, request: Request) -> Exit:
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
    return Exit.FAILED if request.exit_code and made.count("submit") else Exit.OK
