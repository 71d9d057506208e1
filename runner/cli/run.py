"""`pixxel-runner run`: manifest → plan → submit → results file and summary."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click

from runner import manifest, plan, report, results, settings
from runner.api import Api
from runner.cli import console, endpoint, provenance
from runner.cli.progress import Progress
from runner.errors import Exit, RefusedError
from runner.journal import MemoryJournal
from runner.model import Entry, Manifest, Record, Run
from runner.pacing import Rate
from runner.submit import End, Engine


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for, beside the limits of the sending."""

    manifest: str
    sandbox: bool
    base_url: str
    api_key_file: Path | None
    results: Path | None
    format: str
    every: bool
    only: tuple[str, ...]
    quiet: bool
    verbose: bool
    color: str
    ca_bundle: str | None
    allow_http: bool


def _rate(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            Rate.parse(value)
        except ValueError:
            raise click.BadParameter("give it as N/s, N/min or N/h, such as 5/s") from None
    return value


@click.command()
@click.argument("manifest", metavar="MANIFEST")
@click.option("--sandbox", is_flag=True, help="Rehearse on a server of its own: no account, no key, no cost.")
@click.option(
    "--base-url",
    envvar="PIXXEL_BASE_URL",
    default=settings.PRODUCTION,
    show_default=True,
    metavar="URL",
    help="Where the API is.",
)
@click.option(
    "--api-key-file",
    envvar="PIXXEL_RUNNER_API_KEY_FILE",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read the key from a file instead of PIXXEL_API_KEY.",
)
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
    type=click.FloatRange(0, min_open=True),
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
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Stop when pauses that the server asks for add up to more.  [default: 900]",
)
@click.option("--quiet", "-q", is_flag=True, help="Print nothing unless something is wrong.")
@click.option("--verbose", "-v", is_flag=True, help="Say on stderr what becomes of each job.")
@click.option(
    "--color",
    envvar="PIXXEL_RUNNER_COLOR",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="When to use colours; auto honours NO_COLOR.",
)
@click.option(
    "--ca-bundle",
    envvar="PIXXEL_RUNNER_CA_BUNDLE",
    metavar="FILE",
    help="Trust the certificates of a PEM file instead of the system's.",
)
@click.option("--allow-http", is_flag=True, help="Allow a plain http base URL beyond this machine.")
@click.pass_context
def command(context: click.Context, /, **given: Any) -> Exit:
    """Submit the jobs of MANIFEST (a file, or - for standard input), and record what was created.

    The key comes from PIXXEL_API_KEY or --api-key-file. Each value is the flag's, else the environment's
    (PIXXEL_RUNNER_CONCURRENCY and so on), else the manifest's, else the default.
    """
    request = Request(**{name: given.pop(name) for name in Request.__dataclass_fields__})
    context.color = console.color_choice(request.color)
    return _run(request, settings.Options(**given))


def _run(request: Request, options: settings.Options) -> Exit:
    data = manifest.read_source(request.manifest, sys.stdin.buffer)
    wanted = manifest.parse(data, request.manifest)
    _refuse_what_needs_a_record(wanted)
    intended = plan.make(wanted, request.only)
    limits = settings.limits(options, wanted.submit)
    path = request.results or _default_results(request, wanted)
    with _endpoint(request, wanted) as at, Api(at, limits.concurrency) as api:
        results.check_writable(path)
        started = datetime.now(UTC)
        journal = MemoryJournal()
        total = len(intended.sends)
        progress = Progress(total, quiet=request.quiet, verbose=request.verbose, bar=console.stderr_is_terminal())
        engine = Engine(intended.sends, api, journal, limits, progress, bearer=at.key.bearer)
        with _signals(engine):
            with progress:
                progress.begin(f"submitting {total} of {len(wanted.jobs)} jobs of {wanted.name} to {_place(request, at)}")
                end = engine.run()
            run_id = _new_run_id(started)
            about = Run(
                id=run_id,
                key=run_id,
                state=end.state,
                started_at=started,
                finished_at=datetime.now(UTC),
                runner=settings.runner_version(),
                manifest_name=wanted.name,
                manifest_path=wanted.path,
                manifest_sha256=wanted.sha256,
                git_commit=provenance.git_commit(wanted.path, data),
                base_url=_place(request, at),
                settings=asdict(limits) | {"only": list(request.only)},
            )
            outcomes = {**intended.skipped, **journal.outcomes}
            record = Record(about, tuple(Entry(job, outcomes[job.name], run_id) for job in wanted.jobs))
            return _tell(record, end, path, request)


def _refuse_what_needs_a_record(wanted: Manifest) -> None:
    """Two settings promise what only a record of earlier runs and of costs can keep: better refused than ignored."""
    for field, value, silent in (("once_per", wanted.once_per, "run"), ("max_cost", wanted.max_cost, None)):
        if value != silent:
            raise RefusedError(
                f"{wanted.path}: {field}: {value} is not kept by this version yet, so nothing was sent",
                f"Remove {field} from the manifest to submit its jobs each time that you run it.",
            )


def _endpoint(request: Request, wanted: Manifest) -> AbstractContextManager[settings.Endpoint]:
    if request.sandbox:
        return endpoint.sandbox(wanted)
    return nullcontext(
        endpoint.real(request.base_url, request.api_key_file, request.ca_bundle, allow_http=request.allow_http)
    )


def _place(request: Request, at: settings.Endpoint) -> str:
    return settings.SANDBOX if request.sandbox else at.base_url


def _default_results(request: Request, wanted: Manifest) -> Path:
    stem = wanted.name if wanted.path == "-" else Path(wanted.path).stem
    return Path(f"{stem}.sandbox.results.json" if request.sandbox else f"{stem}.results.json")


def _new_run_id(started: datetime) -> str:
    """Sortable by time, and unique by 24 random bits within a second."""
    return f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@contextmanager
def _signals(engine: Engine) -> Iterator[None]:
    """SIGINT and SIGTERM end the run by the engine's rules, and never in the middle of writing the record."""

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        engine.interrupt(signum)

    before = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _tell(record: Record, end: End, path: Path, request: Request) -> Exit:
    """Write the record, print the summary, and say what is not as it should be."""
    summary = results.summarise(record)
    code = _exit_code(summary, end)
    try:
        results.write(record, path)
        written = f"results: {path}"
    except RefusedError as error:
        console.fail(error)
        code = max(code, Exit.REFUSED, key=_RANK.index)
        written = "results: not written"
    style = report.Style(width=console.stdout_width(), color=console.stdout_color(), every=request.every)
    if not request.quiet:
        console.out(report.FORMATS[request.format](record, style))
        console.say(written)
    elif code != Exit.OK:
        console.say(f"{record.run.manifest_name}: {report.totals(record)}; {written}")
    _advise(summary, end)
    return code


# What outranks what, weakest first (DESIGN, section 6).
_RANK = (Exit.OK, Exit.FAILED, Exit.REFUSED, Exit.IN_DOUBT, Exit.SIGTERM, Exit.SIGINT)


def _exit_code(summary: results.Summary, end: End) -> Exit:
    if end.signum is not None:
        return Exit(128 + end.signum)
    if summary.in_doubt:
        return Exit.IN_DOUBT
    if end.state == "stopped":
        return Exit.REFUSED
    return Exit.FAILED if summary.failed else Exit.OK


def _advise(summary: results.Summary, end: End) -> None:
    if end.state != "completed":
        console.warn(f"the run {'stopped early' if end.signum is None else 'was interrupted'}: {end.why}")
    if summary.in_doubt:
        console.warn(
            f"{summary.in_doubt} job{'s' if summary.in_doubt > 1 else ''} may or may not exist at the API: "
            "look there before you submit them again, as each would be paid for twice"
        )
