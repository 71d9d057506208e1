"""The command `resolve`: settles jobs in doubt, by a lookup at the API or by hand."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_never

import click

from runner.cli import completers, console, ledger_access, ledger_completers, options
from runner.client.endpoint import SANDBOX_IDENTITY
from runner.core.errors import UsageError
from runner.core.exit_codes import Exit
from runner.core.models import Created, InDoubt, Job, Manifest, NotCreated, outcome_name
from runner.core.text import escape_unprintable, pluralize
from runner.ledger.rows import SubmissionRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs import resolve
from runner.runs.matching import Finding
from runner.runs.resolve import Absence, Adoption, ManualDecision, ReconcileResult, Resolver, Scope
from runner.runs.results_file import format_time

_MAX_EXPLAINED = 3
_SCOPE_OPTIONS = ("sandbox", "base_url", "ledger", "run")
_MINUTES = "%Y-%m-%d %H:%M"
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Request:
    """The command's own parameters."""

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
@options.repeatable(
    "--adopt",
    "Record that the job NAME was created as JOB_ID.",
    "NAME=JOB_ID",
    ledger_completers.complete_adoptions,
)
@options.repeatable("--absent", "Record that the job NAME was not created.", "NAME", ledger_completers.complete_doubts)
@click.option(
    "--run",
    default="",
    metavar="RUN",
    shell_complete=ledger_completers.complete_runs,
    help="Consider only this run (the start of its id).",
)
@options.connection
@options.ledger
@options.settle
@options.lock_timeout
@options.output_format("text", "json", text="Output format: a line per job, or a JSON array.")
@options.colors
def command(**parameters: Any) -> Exit:
    """Look up the jobs in doubt of MANIFEST (a file, or a name in the ledger) or of all manifests.

    A job is settled if the API's list of jobs leaves no other possibility. Settle the others by hand, with --adopt and
    --absent. Nothing is submitted. The exit code is 0 if no job is left in doubt, 3 if one is, 4 if the API cannot be
    called, and 5 if all jobs in doubt belong to manifests that another run has locked.
    """
    request = options.take(Request, parameters)
    return _resolve(request, options.Connection(**parameters))


def _resolve(request: Request, connection: options.Connection) -> Exit:
    api = connection.api_identity
    base_path = ledger_access.find_base_path(request.manifest)
    location = options.locate_ledger(base_path, request.ledger, sandbox=connection.sandbox)
    with ledger_access.open_ledger(location) as ledger:
        name = None if request.manifest is None else ledger_access.resolve_name(ledger, request.manifest, api)
        scope = Scope(api, name, request.run)
        resolver = Resolver(
            ledger=ledger,
            scope=scope,
            user=_current_user(),
            connect=lambda: connection.open_client(_stand_in(base_path, ledger, scope, request)),
            settle=request.settle,
            lock_timeout=request.lock_timeout,
        )
        code = _settle_by_hand(resolver, request) if request.adopt or request.absent else _look_up(resolver, request)
        _mention_other_apis(ledger, api)
    return code


def _stand_in(path: str, ledger: Ledger, scope: Scope, request: Request) -> Manifest:
    """Stands in for the manifest, which may be gone: the sandbox needs its path, and the jobs to be looked up."""
    names = [name for text in request.adopt for name, _ in _split_adoption(text)]
    rows = [*scope.unresolved(ledger), *scope.marked_absent(ledger, names)]
    return Manifest("", path, "", tuple(Job(row.name, row.workflow_id, row.project_id) for row in rows))


def _current_user() -> str:
    """Who makes a manual decision, for the ledger."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, the user id may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _mention_other_apis(ledger: Ledger, api: str) -> None:
    others = [row for row in ledger.unresolved() if row.api != api]
    if others:
        apis = escape_unprintable(", ".join(sorted({row.api for row in others})))
        console.info(
            f"{pluralize(len(others), 'job')} in doubt at {apis} (not looked up; select an API with --base-url)"
        )


# Lookup


def _look_up(resolver: Resolver, request: Request) -> Exit:
    result = resolver.look_up()
    _print(result.findings, request)
    for error in result.locked:
        console.warn(f"skipped: {escape_unprintable(error.message)}")
    doubts = [finding.doubt for finding in result.findings if isinstance(finding.outcome, InDoubt)]
    if doubts:
        _explain(doubts, request)
    if not (result.findings or result.locked):
        console.info(f"no jobs{_describe_scope(resolver.scope)} are in doubt")
    return _exit_code(resolver, result)


def _exit_code(resolver: Resolver, result: ReconcileResult) -> Exit:
    if result.locked and not result.findings:
        return Exit.LOCKED
    # What is still `sending` belongs to a manifest that is running, and is not in doubt yet.
    doubts = [row for row in resolver.scope.unresolved(resolver.ledger) if row.state == "in_doubt"]
    return Exit.IN_DOUBT if doubts else Exit.OK


def _describe_scope(scope: Scope) -> str:
    manifest = f" of {scope.manifest}" if scope.manifest else ""
    run = f" of run {scope.run}" if scope.run else ""
    place = "in the sandbox" if scope.api == SANDBOX_IDENTITY else f"at {scope.api}"
    return escape_unprintable(f"{manifest}{run} {place}")


def _explain(doubts: Sequence[SubmissionRow], request: Request) -> None:
    """Say how to settle the jobs that a lookup cannot."""
    for doubt in doubts[:_MAX_EXPLAINED]:
        console.info(
            escape_unprintable(f"{doubt.name}: check whether the API has {_describe_job(doubt, request.settle)}")
        )
    if len(doubts) > _MAX_EXPLAINED:
        console.info(f"and {pluralize(len(doubts) - _MAX_EXPLAINED, 'more job')}")
    name = shlex.quote(escape_unprintable(doubts[0].name))
    command_line = options.format_command("resolve", *filter(None, [request.manifest]), keep=_SCOPE_OPTIONS)
    console.info(f"For each job, for example {name}:" if len(doubts) > 1 else f"For {name}:")
    console.info(f"  if it exists:         {command_line} --adopt {name}=JOB_ID")
    console.info(f"  if it does not:       {command_line} --absent {name}")
    console.info(f"  to look it up again:  {command_line}")


def _describe_job(doubt: SubmissionRow, settle: timedelta) -> str:
    """Describe the job to search for. Its window is rounded to minutes, outwards."""
    start, end = resolve.creation_window(doubt, settle)
    window = f"{start.strftime(_MINUTES)} and {(end + _MINUTE).strftime(_MINUTES)} UTC"
    return f"a job of workflow {doubt.workflow_id} in project {doubt.project_id} created between {window}"


# Manual decisions


def _settle_by_hand(resolver: Resolver, request: Request) -> Exit:
    scope, ledger = resolver.scope, resolver.ledger
    names = {row.name for row in ledger.unresolved(scope.api, scope.manifest)}
    splits = [_split_adoption(text) for text in request.adopt]
    ambiguous = [name for candidates in splits if len(candidates) > 1 for name, _ in candidates]
    names |= {row.name for row in scope.marked_absent(ledger, ambiguous)}
    decisions: list[ManualDecision] = [_parse_adoption(text, names) for text in request.adopt]
    decisions += [Absence(name) for name in request.absent]
    findings = resolver.apply_decisions(decisions)
    _print(findings, request)
    for finding in findings:
        _warn(finding, request.settle)
    doubts = sum(row.state == "in_doubt" for row in scope.unresolved(ledger))
    if doubts:
        console.info(
            f"{pluralize(doubts, 'job')}{_describe_scope(scope)} {'is' if doubts == 1 else 'are'} still in doubt"
        )
    return Exit.IN_DOUBT if doubts else Exit.OK


def _parse_adoption(text: str, names: set[str]) -> Adoption:
    """Parse NAME=JOB_ID. A name may contain `=`: it is split so that it gives one of `names`, else at the first."""
    splits = _split_adoption(text)
    name, job_id = next((split for split in splits if split[0] in names), splits[0] if splits else (text, ""))
    if not name or not job_id:
        raise UsageError(f"--adopt {text!r}: expected NAME=JOB_ID", "For example: --adopt field-a=0b5f…")
    return Adoption(name, job_id)


def _split_adoption(text: str) -> list[tuple[str, str]]:
    """Split it at each `=`."""
    return [(text[:index], text[index + 1 :].strip()) for index, char in enumerate(text) if char == "="]


def _warn(finding: Finding, settle: timedelta) -> None:
    """Warn of what would make the decision wrong."""
    doubt = finding.doubt
    if isinstance(finding.outcome, NotCreated):
        candidates = f"; candidates: {', '.join(doubt.candidates)}" if doubt.candidates else ""
        next_run = periods.describe_next_run(doubt.run_key)
        console.warn(
            escape_unprintable(
                f"{doubt.name}: if the job was created after all ({_describe_job(doubt, settle)}{candidates}), "
                f"{next_run} will create it a second time"
            )
        )
    created_at = resolve.implausible_creation_time(finding, settle)
    if created_at is not None:
        sent_at, created = (f"{time:%Y-%m-%d %H:%M:%S} UTC" for time in (doubt.claimed_at, created_at))
        console.warn(
            escape_unprintable(f"{doubt.name}: sent at {sent_at}, but the adopted job was created at {created}")
        )


# Output


def _print(findings: Sequence[Finding], request: Request) -> None:
    if request.format == "json":
        console.output(json.dumps([_to_json(finding, request.settle) for finding in findings], indent=2))
        return
    for finding in findings:
        doubt = finding.doubt
        line = f"{doubt.manifest}: {doubt.name} (run {doubt.run_id}): {_describe(finding)}"
        console.output(escape_unprintable(line))


def _describe(finding: Finding) -> str:
    match finding.outcome:
        case Created(job_id=job_id, assigned=True):
            return f"created as {job_id} ({finding.reason})"
        case Created(job_id=job_id, candidates=candidates):
            return f"created as {job_id}; the API does not say which of {', '.join(candidates)} belongs to which job"
        case NotCreated(error=error):
            return f"not created ({finding.reason}): {error.message}"
        case InDoubt(candidates=candidates):
            return f"in doubt: {': '.join(filter(None, (finding.reason, ', '.join(candidates))))}"
        case _:
            assert_never(finding.outcome)


def _to_json(finding: Finding, settle: timedelta) -> dict[str, Any]:
    doubt, outcome = finding.doubt, finding.outcome
    return {
        "manifest": doubt.manifest,
        "name": doubt.name,
        "workflow_id": doubt.workflow_id,
        "project_id": doubt.project_id,
        "run_id": doubt.run_id,
        "key": doubt.run_key,
        "outcome": outcome_name(outcome),
        "action": finding.reason,
        "job_id": outcome.job_id if isinstance(outcome, Created) else None,
        "assigned": outcome.assigned if isinstance(outcome, Created) else None,
        "candidates": [] if isinstance(outcome, NotCreated) else list(outcome.candidates),
        "created_between": [format_time(time) for time in resolve.creation_window(doubt, settle)],
    }
