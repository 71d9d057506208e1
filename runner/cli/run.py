"""`pixxel-runner run`: a manifest is validated, planned and submitted, and the record of it written and shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from runner import execution, manifest, periods, plan, report, results, settings
from runner.api import Api
from runner.cli import console, options, problems, provenance
from runner.cli.interrupts import Interrupts
from runner.cli.progress import Progress
from runner.errors import Exit, ManifestError, RefusedError, UsageError
from runner.execution import Execution, Order
from runner.model import Created, Failed, InDoubt, Manifest, Outcome, Record, Skipped
from runner.pacing import Rate
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
    settle: float
    lock_timeout: float
    quiet: bool
    verbose: bool


def _rate(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            Rate.parse(value)
        except ValueError:
            raise click.BadParameter("give it as N/s, N/min or N/h, such as 5/s") from None
    return value


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
@click.option(
    "--format",
    envvar="PIXXEL_RUNNER_FORMAT",
    type=click.Choice(list(report.FORMATS)),
    default="table",
    show_default=True,
    help="How the summary is printed.",
)
@click.option("--all", "every", is_flag=True, help="List every job in the table, also beyond 1,000.")
@click.option("--only", multiple=True, metavar="NAME-GLOB", help="Submit only jobs whose name matches. Repeatable.")
@click.option("--again", multiple=True, metavar="NAME", help="Send one more of a job that was created. Repeatable.")
@click.option("--resume", is_flag=True, help="Finish the last run: send only what was not created.")
@click.option("--new", is_flag=True, help="Start a new run, although the last one is unfinished.")
@click.option("--hold", is_flag=True, help="Do not look up jobs in doubt: leave them to a person.")
@options.settle
@options.lock_timeout
@click.option(
    "--concurrency",
    envvar="PIXXEL_RUNNER_CONCURRENCY",
    type=click.IntRange(1, 64),
    help="Requests at a time.  [default: 8]",
)
@click.option(
    "--rate",
    envvar="PIXXEL_RUNNER_RATE",
    callback=_rate,
    metavar="N/s|N/min|N/h",
    help="At most so many requests.  [default: no limit]",
)
@click.option(
    "--attempts",
    envvar="PIXXEL_RUNNER_ATTEMPTS",
    type=click.IntRange(1),
    help="Tries of a job that was certainly not sent.  [default: 5]",
)
@click.option(
    "--timeout",
    envvar="PIXXEL_RUNNER_TIMEOUT",
    type=options.Seconds(open_=True),
    metavar="SECONDS",
    help="For one whole exchange.  [default: 30]",
)
@click.option(
    "--stop-after",
    envvar="PIXXEL_RUNNER_STOP_AFTER",
    type=click.IntRange(0),
    metavar="N",
    help="Stop after the same trouble N times in a row; 0: never.  [default: 10]",
)
@click.option(
    "--max-pause",
    envvar="PIXXEL_RUNNER_MAX_PAUSE",
    type=options.Seconds(),
    metavar="SECONDS",
    help="Stop when pauses that the server asks for add up to more.  [default: 900]",
)
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
    _check(request, wanted)
    place = options.LedgerPlace.of(wanted.path, request.ledger, sandbox=at.sandbox)
    options.refuse_unkept_ledger(wanted, place, sandbox=at.sandbox)
    path = request.results or _default_results(wanted, sandbox=at.sandbox)
    order = Order(
        manifest=wanted,
        git_commit=provenance.git_commit(wanted.path, data),
        api=at.identity,
        ledger=place.path,
        make_ledger=not place.named,
        limits=settings.limits(flags, wanted.submit),
        only=request.only,
        again=request.again,
        resume=request.resume,
        new=request.new,
        hold=request.hold,
        settle=timedelta(seconds=request.settle),
        lock_timeout=request.lock_timeout,
    )
    with at.endpoint(wanted) as endpoint, Api(endpoint, order.limits.concurrency) as api:
        options.refuse_target(path, place.path, Path(wanted.path), at.api_key_file)
        results.check_writable(path)
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


def _check(request: Request, wanted: Manifest) -> None:
    if request.resume and request.new:
        raise UsageError("--resume and --new are two answers to one question", "Give one of them.")
    if request.again and wanted.once_per == "run" and not request.resume:
        raise UsageError(
            "--again adds to a run that exists, and once_per: run makes a new one each time",
            "For one job of a new run: --only NAME --new. For one more in the last run: --resume --again NAME.",
        )
    if wanted.max_cost is not None:
        raise RefusedError(
            f"{wanted.path}: max_cost is not kept by this version yet, so nothing was sent",
            "Remove max_cost from the manifest to submit its jobs without a limit.",
        )


def _default_results(wanted: Manifest, *, sandbox: bool) -> Path:
    stem = wanted.name if wanted.path == "-" else Path(wanted.path).stem
    return Path(f"{stem}.sandbox.results.json" if sandbox else f"{stem}.results.json")


def _execute(order: Order, request: Request, api: Api, path: Path) -> Exit:
    progress = Progress(quiet=request.quiet, verbose=request.verbose, bar=console.stderr_is_terminal())
    interrupts = Interrupts(api)
    with execution.opened(order, api, progress, interrupts.wait) as one:
        one.prepare()  # a signal in here ends the program as any other: nothing was sent
        progress.note(_announcement(one))
        with interrupts.caught():
            with progress.over(len(one.plan.sends)):
                end = one.submit(interrupts)
            return _tell(one, end, interrupts.signum, path, request)


def _announcement(one: Execution) -> str:
    sends, total = len(one.plan.sends), len(one.order.manifest.jobs)
    name, period = one.order.manifest.name, periods.describe(one.run.run_key)
    if sends:
        return f"submitting {sends} of {total} jobs of {name} to {one.order.api}, for {period}"
    earlier = sorted({standing.run_id for standing in one.plan.match.of.values() if standing.state == "created"})
    by = f": all that is to be was created by {', '.join(earlier[:3])}{' and others' if earlier[3:] else ''}"
    return f"nothing to submit of {name} for {period}{by if earlier else ''}"


def _tell(one: Execution, end: End, signum: int | None, path: Path, request: Request) -> Exit:
    """Write the record, print the summary, and say what is not as it should be."""
    record = one.record()
    code = _exit_code(record, end, signum)
    written = _write(record, path)
    if not written:
        code = max(code, Exit.REFUSED, key=_RANK.index)
    where = f"results: {path}" if written else "results: not written"
    style = report.Style(width=console.stdout_width(), color=console.stdout_color(), every=request.every)
    if not request.quiet:
        if not _print(report.FORMATS[request.format](record, style)):
            code = max(code, Exit.REFUSED, key=_RANK.index)
        console.say(where)
    elif code != Exit.OK:
        console.say(f"{record.run.manifest_name}: {report.totals(record)}; {where}")
    _advise(one, record, end)
    return code


def _print(summary: str) -> bool:
    try:
        console.out(summary)
    except console.OutputError as error:
        console.fail(error)
        return False
    return True


def _write(record: Record, path: Path) -> bool:
    try:
        results.write(record, path)
    except RefusedError as error:
        console.fail(error)
        return False
    return True


# What outranks what, weakest first (DESIGN, section 6).
_RANK = (Exit.OK, Exit.FAILED, Exit.REFUSED, Exit.IN_DOUBT, Exit.SIGTERM, Exit.SIGINT)


def _exit_code(record: Record, end: End, signum: int | None) -> Exit:
    if signum is not None:
        return Exit(128 + signum)
    if any(isinstance(entry.outcome, InDoubt) for entry in record.entries):
        return Exit.IN_DOUBT
    if end.state == "stopped" or end.error is not None:
        return Exit.REFUSED
    only = record.run.settings["only"]
    wanted = [entry for entry in record.entries if plan.not_sent(entry.job, only) is None]
    return Exit.OK if all(isinstance(entry.outcome, Created) for entry in wanted) else Exit.FAILED


def _advise(one: Execution, record: Record, end: End) -> None:
    if end.error is not None:
        console.fail(end.error)
        for decided in end.unrecorded:
            console.warn(f"not on record: {visible(decided.submission.job.name)}: {_in_short(decided.outcome)}")
        for submission in end.unreleased:
            console.warn(f"not on record: {visible(submission.job.name)}: not sent")
    elif end.state != "completed":
        console.warn(f"the run {'stopped early' if end.signum is None else 'was interrupted'}: {visible(end.why)}")
    _advise_on_failures(record)
    doubts = sum(isinstance(entry.outcome, InDoubt) for entry in record.entries)
    if doubts:
        console.warn(
            f"{doubts} job{' is' if doubts == 1 else 's are'} in doubt: created or not, nobody knows yet. What is in "
            "doubt is not sent again; the next run looks it up, and so does: pixxel-runner resolve"
        )
    if one.order.manifest.once_per == "run" and not all(_is_done(entry.outcome) for entry in record.entries):
        console.say(
            f"To finish this run, and send only what is missing: pixxel-runner run {one.order.manifest.path} --resume"
        )
    earlier = len(one.left_in_doubt())
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


def _advise_on_failures(record: Record) -> None:
    """Say once for each kind why jobs failed, and what to look at."""
    kinds: dict[str, list[str]] = {}
    for entry in record.entries:
        if isinstance(entry.outcome, Failed):
            kinds.setdefault(entry.outcome.error.kind, []).append(entry.outcome.error.message)
    for kind, messages in kinds.items():
        remedy = f" ({_REMEDIES[kind]})" if kind in _REMEDIES else ""
        console.warn(f"{len(messages)} failed as {kind}, the first with: {visible(messages[0])}{remedy}")


def _is_done(outcome: Outcome) -> bool:
    return isinstance(outcome, Created) or (
        isinstance(outcome, Skipped) and outcome.reason in ("disabled", "not_selected")
    )


def _in_short(outcome: Created | Failed | InDoubt) -> str:
    match outcome:
        case Created(job_id=job_id):
            return f"created as {visible(job_id)}"
        case Failed(error=error):
            return f"failed: {visible(error.message)}"
        case InDoubt(error=error):
            return f"in doubt: {visible(error.message)}"
