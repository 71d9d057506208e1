"""`pixxel-runner run`: a manifest is validated, planned and submitted, and the record of it written and shown."""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from runner import execution, following, manifest, periods, plan, record, report, results, settings
from runner.api import Api
from runner.asking import Asker
from runner.cli import console, follow, options, problems, provenance
from runner.cli.interrupts import Interrupts
from runner.cli.progress import Progress
from runner.errors import Exit, ManifestError, RefusedError, UsageError
from runner.execution import Execution, Order
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.model import Created, Entry, Failed, InDoubt, Manifest, Outcome, Skipped
from runner.results import Digest
from runner.status import Watch
from runner.submit import End
from runner.text import visible


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for beside the connection and the limits of the sending."""

    manifest: str
    ledger: Path | None
    results: Path | None
    format: str
    every: bool
    only: tuple[str, ...]
    again: tuple[str, ...]
    resume: bool
    new: bool
    hold: bool
    allow_unknown_cost: bool
    confirm: bool
    wait: bool
    wait_timeout: float | None
    settle: float
    lock_timeout: float
    quiet: bool
    verbose: bool


@click.command()
@click.argument("manifest", metavar="MANIFEST")
@options.connection
@options.ledger
@click.option(
    "--results",
    envvar="PIXXEL_RUNNER_RESULTS",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where the record goes.  [default: MANIFEST's stem + .results.json, here]",
)
@options.formats
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
    """Submit the jobs of MANIFEST (a file, or - for standard input), and record what was created.

    The key comes from PIXXEL_API_KEY or --api-key-file. Each value is the flag's, else the environment's
    (PIXXEL_RUNNER_CONCURRENCY and so on), else the manifest's, else the default.
    """
    request = Request(**{name: given.pop(name) for name in Request.__dataclass_fields__})
    at = options.Connection(**{name: given.pop(name) for name in options.Connection.__dataclass_fields__})
    return _run(request, at, settings.Options(**given))


def _run(request: Request, at: options.Connection, flags: settings.Options) -> Exit:
    data = manifest.read_source(request.manifest, console.stdin())
    wanted = _checked(data, request)
    options.refuse_two_answers(wanted, request.again, resume=request.resume, new=request.new)
    if request.wait_timeout is not None and not request.wait:
        raise UsageError("--wait-timeout is for --wait", "Give both, or neither.")
    if request.confirm and not console.can_ask():
        raise RefusedError("--confirm asks, and there is no terminal to answer on", "Run it without --confirm there.")
    place = options.LedgerPlace.of(wanted.path, request.ledger, sandbox=at.sandbox)
    options.refuse_unkept_ledger(wanted, place, sandbox=at.sandbox)
    path = request.results or _default_results(wanted, sandbox=at.sandbox)
    order = Order(
        manifest=wanted,
        git_commit=provenance.git_commit(wanted.path, data),
        api=at.identity,
        ledger=place.path,
        make_ledger=not place.named,
        limits=settings.limits(flags, wanted),
        only=request.only,
        again=request.again,
        resume=request.resume,
        new=request.new,
        hold=request.hold,
        priced=request.confirm,
        allow_unknown_cost=request.allow_unknown_cost,
        settle=timedelta(seconds=request.settle),
        lock_timeout=request.lock_timeout,
    )
    with at.endpoint(wanted) as endpoint, Api(endpoint, order.limits.concurrency) as api:
        options.refuse_target(path, place.path, Path(wanted.path), at.api_key_file)
        results.FILE.check(path)
        place.make_folder(wanted.path)
        return _execute(order, request, api, path)


def _checked(data: bytes, request: Request) -> Manifest:
    checked = manifest.check(data, request.manifest)
    if not request.quiet:
        for warning in checked.warnings:
            console.warn(problems.text(warning))
    if checked.manifest is None:
        raise ManifestError(checked.problems)
    return checked.manifest


def _default_results(wanted: Manifest, *, sandbox: bool) -> Path:
    stem = wanted.name if wanted.path == "-" else Path(wanted.path).stem
    return Path(f"{stem}.sandbox.results.json" if sandbox else f"{stem}.results.json")


def _execute(order: Order, request: Request, api: Api, path: Path) -> Exit:
    progress = Progress(quiet=request.quiet, verbose=request.verbose, bar=console.stderr_is_terminal())
    interrupts = Interrupts(api)
    with execution.opened(order, api, progress, interrupts.wait) as one:
        one.prepare()  # a signal in here ends the program as any other: nothing was sent
        _confirm(one, request)
        progress.note(_announcement(one))
        with interrupts.caught():
            with progress.over(len(one.plan.sends)):
                end = one.submit(interrupts)
            ran = _Ran(one.ledger, one.run, results.digest(one.record()), end, interrupts.signum)
            if not request.wait or ran.signum is not None or end.error is not None:
                return _tell(ran, path, request)
            _write(ran.made, path)  # waiting may take hours, and may be ended: the record is there before
    return _wait(ran, order, request, api, path)


def _confirm(one: Execution, request: Request) -> None:
    """Show the plan and ask, where that was asked for. Raises RefusedError for a no."""
    if not request.confirm or one.forecast is None or not one.plan.sends:
        return
    style = report.Style(width=console.stderr_width(), color=console.stderr_color(), every=request.every)
    console.say(report.PLAN_FORMATS["table"](one.forecast, style))
    if not _ask(f"Submit {len(one.plan.sends)} of {len(one.order.manifest.jobs)} jobs to {one.order.api}?"):
        raise RefusedError("not confirmed: nothing was sent")


def _ask(question: str) -> bool:
    """Ask for a yes; anything else, and the end of the input, is a no. Ctrl-C ends the program, as anywhere.

    Not click.confirm: it takes Ctrl-C for the end of the input, and some versions write to stdout, which is data.
    """
    with suppress(OSError):
        termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before the plan was shown is no answer to it
    click.echo(f"{question} [y/N]: ", err=True, nl=False)
    answer = console.stdin().readline()
    if not answer:
        console.say("")
    return answer.strip().lower() in (b"y", b"yes")


@dataclass(frozen=True, slots=True)
class _Ran:
    """An execution that has ended: what is to be told of it. `signum` is that of a signal that came at any time."""

    ledger: Ledger
    run: RunRow
    made: Digest
    end: End
    signum: int | None


def _wait(ran: _Ran, order: Order, request: Request, api: Api, path: Path) -> Exit:
    """Follow the jobs until they are final, without holding the lock; then tell of the run, and of them."""
    again = follow.command_line(ran.run.id if ran.run.path == "-" else ran.run.path)
    with follow.record(order.ledger) as ledger:
        with follow.keeping(ledger, order.api) as keep:
            watch = Watch(following.of_run(ledger, ran.run).jobs, api, Asker(order.limits), keep)
            try:
                waited = follow.until_final(watch, timeout=request.wait_timeout, again=again, quiet=request.quiet)
            finally:
                done = replace(ran, ledger=ledger, made=results.digest(record.of_run(ledger, ran.run)))
                code = _tell(done, path, request)
        if waited is not Exit.OK:
            console.say(f"{visible(ran.run.manifest)} at the API: {visible(report.status_totals(watch.sightings))}")
        follow.say_why(watch)
        return max(code, waited, key=_RANK.index)


def _announcement(one: Execution) -> str:
    sends, total = len(one.plan.sends), len(one.order.manifest.jobs)
    name, period = one.order.manifest.name, periods.describe(one.run.run_key)
    if sends:
        return f"submitting {sends} of {total} jobs of {name} to {one.order.api}, for {period}"
    earlier = sorted({standing.run_id for standing in one.plan.match.of.values() if standing.state == "created"})
    by = f": all that is to be was created by {', '.join(earlier[:3])}{' and others' if earlier[3:] else ''}"
    return f"nothing to submit of {name} for {period}{by if earlier else ''}"


def _tell(ran: _Ran, path: Path, request: Request) -> Exit:
    """Write the record, print the summary, and say what is not as it should be."""
    code = _exit_code(ran)
    written = _write(ran.made, path)
    if not written:
        code = max(code, Exit.REFUSED, key=_RANK.index)
    where = f"results: {path}" if written else "results: not written"
    style = report.Style(width=console.stdout_width(), color=console.stdout_color(), every=request.every)
    if not request.quiet:
        if not _print(report.FORMATS[request.format](ran.made, style)):
            code = max(code, Exit.REFUSED, key=_RANK.index)
        console.say(where)
    elif code != Exit.OK:
        console.say(f"{ran.run.manifest}: {report.totals(ran.made)}; {where}")
    _advise(ran)
    return code


def _print(summary: str) -> bool:
    try:
        console.out(summary)
    except console.OutputError as error:
        console.fail(error)
        return False
    return True


def _write(made: Digest, path: Path) -> bool:
    try:
        results.write(made, path)
    except RefusedError as error:
        console.fail(error)
        return False
    return True


# What outranks what, weakest first (DESIGN, section 6).
_RANK = (Exit.OK, Exit.FAILED, Exit.TIMED_OUT, Exit.REFUSED, Exit.IN_DOUBT, Exit.SIGTERM, Exit.SIGINT)


def _exit_code(ran: _Ran) -> Exit:
    if ran.signum is not None:
        return Exit(128 + ran.signum)
    if ran.made.summary.in_doubt:
        return Exit.IN_DOUBT
    if ran.end.state == "stopped" or ran.end.error is not None:
        return Exit.REFUSED
    only = ran.run.settings["only"]
    missing = any(plan.not_sent(entry.job, only) is None for entry in ran.made.rest)
    return Exit.FAILED if missing else Exit.OK


def _advise(ran: _Ran) -> None:
    end = ran.end
    if end.error is not None:
        console.fail(end.error)
        for decided in end.unrecorded:
            console.warn(f"not on record: {visible(decided.submission.job.name)}: {_in_short(decided.outcome)}")
        for submission in end.unreleased:
            console.warn(f"not on record: {visible(submission.job.name)}: not sent")
    elif end.state != "completed":
        console.warn(f"the run {'stopped early' if end.signum is None else 'was interrupted'}: {visible(end.why)}")
    _advise_on_failures(ran.made.rest)
    doubts = ran.made.summary.in_doubt
    if doubts:
        console.warn(
            f"{doubts} job{' is' if doubts == 1 else 's are'} in doubt: created or not, nobody knows yet. What is in "
            "doubt is not sent again; the next run looks it up, and so does: pixxel-runner resolve"
        )
    if ran.run.once_per == "run" and not all(_is_done(entry.outcome) for entry in ran.made.rest):
        console.say(f"To finish this run, and send only what is missing: pixxel-runner run {ran.run.path} --resume")
    unsettled = ran.ledger.unsettled(ran.run.api, ran.run.manifest)
    earlier = sum(one.run_key != ran.run.run_key for one in unsettled)
    if earlier:
        console.warn(f"{earlier} of earlier runs of this manifest still in doubt: pixxel-runner resolve")


# What to look at, for the kinds of failure that are not about a single job.
_REMEDIES = {
    "unreachable": "check the base URL, the proxy (HTTPS_PROXY, NO_PROXY) and the network",
    "untrusted": "a server with a private certificate authority is trusted with --ca-bundle FILE",
    "unauthorized": "set PIXXEL_API_KEY or --api-key-file to a key of this API",
    "forbidden": "check the project, and what the key may do there",
    "redirected": "check the base URL",
}


def _advise_on_failures(entries: Iterable[Entry]) -> None:
    """Say once for each kind why jobs failed, and what to look at."""
    kinds: dict[str, list[str]] = {}
    for entry in entries:
        if isinstance(entry.outcome, Failed):
            kinds.setdefault(entry.outcome.error.kind, []).append(entry.outcome.error.message)
    for kind, messages in kinds.items():
        remedy = f" ({_REMEDIES[kind]})" if kind in _REMEDIES else ""
        console.warn(f"{len(messages)} failed as {kind}, the first with: {visible(messages[0])}{remedy}")


def _is_done(outcome: Outcome) -> bool:
    return isinstance(outcome, Skipped) and outcome.reason in ("disabled", "not_selected")


def _in_short(outcome: Created | Failed | InDoubt) -> str:
    match outcome:
        case Created(job_id=job_id):
            return f"created as {visible(job_id)}"
        case Failed(error=error):
            return f"failed: {visible(error.message)}"
        case InDoubt(error=error):
            return f"in doubt: {visible(error.message)}"
