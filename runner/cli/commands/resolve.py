"""The command `resolve`: looks up jobs in doubt, or settles them by what a person says."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, assert_never

import click

from runner.cli import completers, console, ledger_access, ledger_completers, options
from runner.client.api import ReadOnlyClient
from runner.core.errors import UsageError
from runner.core.exit_codes import Exit
from runner.core.models import Created, InDoubt, Job, Manifest, NotCreated
from runner.core.text import escape_unprintable
from runner.ledger.rows import SubmissionRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs import resolve
from runner.runs.reconcile import Finding
from runner.runs.resolve import Absence, Adoption, ManualDecision, ReconcileResult, Resolver, Scope
from runner.runs.results_file import format_time

_MOST_EXPLAINED = 3
_SAID = ("sandbox", "base_url", "ledger", "run")  # of the command line, in a command to go on with
_MINUTE = "%Y-%m-%d %H:%M"


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for beside the connection."""

    manifest: str | None
    ledger: Path | None
    adopt: tuple[str, ...]
    absent: tuple[str, ...]
    run: str
    settle: timedelta
    lock_timeout: float
    format: str


@click.command("resolve")
@click.argument("manifest", metavar="[MANIFEST]", required=False, shell_complete=completers.complete_files)
@click.option(
    "--adopt",
    multiple=True,
    metavar="NAME=JOB_ID",
    shell_complete=ledger_completers.complete_adoptions,
    help="Settle a job by hand: it is this one at the API. Repeatable.",
)
@click.option(
    "--absent",
    multiple=True,
    metavar="NAME",
    shell_complete=ledger_completers.complete_doubts,
    help="Settle a job by hand: it was not created. Repeatable.",
)
@click.option(
    "--run",
    default="",
    metavar="RUN",
    shell_complete=ledger_completers.complete_runs,
    help="Only what is in doubt in this run (the start of its id).",
)
@options.connection
@options.ledger
@options.settle
@options.lock_timeout
@click.option(
    "--format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How it is said what became of each: a line, or one JSON list.",
)
@options.colors
def command(**given: Any) -> Exit:
    """Look up what is in doubt of MANIFEST (its file, or its name in the ledger), or of every manifest.

    What the API's list of jobs makes certain is settled; nothing is ever sent. The rest is for a person to settle,
    with --adopt and --absent. The exit code is 0 when nothing is left in doubt, 3 when something is, 4 when the API
    cannot be asked, and 5 when all of it belongs to manifests that are being run now.
    """
    request = Request(**{name: given.pop(name) for name in Request.__dataclass_fields__})
    return _resolve(request, options.Connection(**given))


def _resolve(request: Request, at: options.Connection) -> Exit:
    api = at.api_identity
    with ledger_access.open_ledger(
        ledger_access.locate(request.manifest, request.ledger, sandbox=at.sandbox).path
    ) as ledger:
        name = None if request.manifest is None else ledger_access.resolve_name(ledger, request.manifest, api)
        scope = Scope(api, name, request.run)
        resolver = Resolver(
            ledger=ledger,
            scope=scope,
            user=_who(),
            connect=lambda: _connected(
                at, ledger_access.find_base_path(request.manifest), _concerned(ledger, scope, request)
            ),
            settle=request.settle,
            lock_timeout=request.lock_timeout,
        )
        code = _settle_by_hand(resolver, request) if request.adopt or request.absent else _look(resolver, request)
        _mention_elsewhere(ledger, api)
    return code


@contextmanager
def _connected(at: options.Connection, path: str, doubts: Sequence[SubmissionRow]) -> Iterator[ReadOnlyClient]:
    # Not the manifest itself, which may be gone: its place, and what a sandbox must know to be asked for the doubts.
    stand_in = Manifest("", path, "", tuple(Job(one.name, one.workflow_id, one.project_id) for one in doubts))
    with at.endpoint_factory()(stand_in) as endpoint, ReadOnlyClient(endpoint, connections=1) as reader:
        yield reader


def _concerned(ledger: Ledger, scope: Scope, request: Request) -> list[SubmissionRow]:
    """What the API may be asked about."""
    named = [name for text in request.adopt for name, _ in _splits(text)]
    return [*scope.unresolved(ledger), *scope.marked_absent(ledger, named)]


def _who() -> str:
    """Who settles by hand, for the record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _mention_elsewhere(ledger: Ledger, api: str) -> None:
    others = [one for one in ledger.unresolved() if one.api != api]
    if others:
        where = ", ".join(sorted({escape_unprintable(one.api) for one in others}))
        console.info(f"not looked at: {len(others)} in doubt at {where} (--base-url names another API)")


# By a look at the API.


def _look(resolver: Resolver, request: Request) -> Exit:
    looked = resolver.look_up()
    _print(looked.findings, request)
    for error in looked.locked:
        console.warn(f"left alone: {escape_unprintable(error.message)}")
    left = [one for one in looked.findings if isinstance(one.outcome, InDoubt)]
    if left:
        _explain(left, request)
    if not (looked.findings or looked.locked):
        console.info(f"nothing is in doubt{_whose(resolver.scope)}")
    return _code(resolver, looked)


def _code(resolver: Resolver, looked: ReconcileResult) -> Exit:
    if looked.locked and not looked.findings:
        return Exit.LOCKED
    # What is `sending` still belongs to a manifest that is being run: it is on its way, and nobody's doubt yet.
    left = [one for one in resolver.scope.unresolved(resolver.ledger) if one.state == "in_doubt"]
    return Exit.IN_DOUBT if left else Exit.OK


def _whose(scope: Scope) -> str:
    manifest = f" of {escape_unprintable(scope.manifest)}" if scope.manifest else ""
    run = f" in a run {escape_unprintable(scope.run)}" if scope.run else ""
    return f"{manifest}{run} at {escape_unprintable(scope.api)}"


def _explain(left: Sequence[Finding], request: Request) -> None:
    """What a person can do about what no look can settle."""
    for finding in left[:_MOST_EXPLAINED]:
        console.info(f"{escape_unprintable(finding.doubt.name)}: {_place(finding.doubt, request.settle)}?")
    if len(left) > _MOST_EXPLAINED:
        console.info(f"and so for {len(left) - _MOST_EXPLAINED} more")
    name = shlex.quote(escape_unprintable(left[0].doubt.name))
    again = options.format_command("resolve", *filter(None, [request.manifest]), keep=_SAID)
    console.info(f"  if there is:     {again} --adopt {name}=JOB_ID")
    console.info(f"  if there is not: {again} --absent {name}")
    console.info(f"  to look again:   {again}")


def _place(doubt: SubmissionRow, settle: timedelta) -> str:
    start, end = resolve.creation_window(doubt, settle)
    pair = f"workflow {escape_unprintable(doubt.workflow_id)} in project {escape_unprintable(doubt.project_id)}"
    return f"is there, at the API, a job of {pair} created between {_utc(start)} and {_utc(end, up=True)} UTC"


def _utc(time: datetime, *, up: bool = False) -> str:
    """A time to the minute, rounded away from the window that it bounds."""
    return (time + timedelta(minutes=1) if up else time).strftime(_MINUTE)


# By hand.


def _settle_by_hand(resolver: Resolver, request: Request) -> Exit:
    scope, ledger = resolver.scope, resolver.ledger
    names = {one.name for one in ledger.unresolved(scope.api, scope.manifest)}
    several = [name for text in request.adopt if len(_splits(text)) > 1 for name, _ in _splits(text)]
    names |= {one.name for one in scope.marked_absent(ledger, several)}
    words: list[ManualDecision] = [_adoption(text, names) for text in request.adopt]
    words += [Absence(name) for name in request.absent]
    findings = resolver.apply_decisions(words)
    _print(findings, request)
    for finding in findings:
        _warn(finding, request.settle)
    left = sum(one.state == "in_doubt" for one in scope.unresolved(ledger))
    if left:
        console.info(f"still in doubt{_whose(scope)}: {left}")
    return Exit.IN_DOUBT if left else Exit.OK


def _adoption(text: str, names: set[str]) -> Adoption:
    """Read NAME=JOB_ID. A name may hold `=`: it is split where that gives one of `names`, else at the first."""
    splits = _splits(text)
    name, job_id = next((split for split in splits if split[0] in names), splits[0] if splits else (text, ""))
    if not name or not job_id:
        raise UsageError(f"--adopt {text!r}: give a job's name and its id at the API", "Such as --adopt field-a=0b5f…")
    return Adoption(name, job_id)


def _splits(text: str) -> list[tuple[str, str]]:
    return [(text[:at], text[at + 1 :].strip()) for at, character in enumerate(text) if character == "="]


def _warn(finding: Finding, settle: timedelta) -> None:
    """What it takes for the person to be wrong."""
    doubt, name = finding.doubt, escape_unprintable(finding.doubt.name)
    if isinstance(finding.outcome, NotCreated):
        known = f" The last look found {escape_unprintable(', '.join(doubt.candidates))}." if doubt.candidates else ""
        console.warn(
            f"{name}: {_place(doubt, settle)}?{known} Then it was created, and the next run for "
            f"{escape_unprintable(periods.describe_run_key(doubt.run_key))} buys it a second time"
        )
    created_at = resolve.implausible_creation_time(finding, settle)
    if created_at is not None:
        sent = f"{doubt.claimed_at:%Y-%m-%d %H:%M:%S}"
        console.warn(f"{name}: sent at {sent} UTC, and this job says that it was created at {format_time(created_at)}")


# What became of each.


def _print(findings: Sequence[Finding], request: Request) -> None:
    if request.format == "json":
        console.output(json.dumps([_as_json(finding, request.settle) for finding in findings], indent=2))
        return
    for finding in findings:
        doubt = finding.doubt
        whose = escape_unprintable(f"{doubt.manifest}: {doubt.name} (run {doubt.run_id})")
        console.output(f"{whose}: {escape_unprintable(_in_words(finding))}")


def _in_words(finding: Finding) -> str:
    match finding.outcome:
        case Created(job_id=job_id, assigned=True):
            return f"created as {job_id} ({finding.reason})"
        case Created(job_id=job_id, candidates=candidates):
            return f"created as {job_id}, or as another of {', '.join(candidates)}: the API does not say which is whose"
        case NotCreated(error=error):
            return f"failed ({finding.reason}): {error.message}"
        case InDoubt(candidates=candidates):
            listed = f": {', '.join(candidates)}" if candidates else ""
            return f"in doubt: {finding.reason}{listed}"
        case _:
            assert_never(finding.outcome)


def _as_json(finding: Finding, settle: timedelta) -> dict[str, Any]:
    doubt, outcome = finding.doubt, finding.outcome
    result = {Created: "created", NotCreated: "not_created", InDoubt: "in_doubt"}[type(outcome)]
    return {
        "manifest": doubt.manifest,
        "name": doubt.name,
        "workflow_id": doubt.workflow_id,
        "project_id": doubt.project_id,
        "run_id": doubt.run_id,
        "key": doubt.run_key,
        "outcome": result,
        "what": finding.reason,
        "job_id": outcome.job_id if isinstance(outcome, Created) else None,
        "assigned": outcome.assigned if isinstance(outcome, Created) else None,
        "candidates": [] if isinstance(outcome, NotCreated) else list(outcome.candidates),
        "created_between": [format_time(time) for time in resolve.creation_window(doubt, settle)],
    }
