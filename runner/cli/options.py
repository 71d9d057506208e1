"""Options that several commands share, and the values that they are given as."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from runner import folder, settings
from runner.cli import console, endpoint
from runner.errors import RefusedError, UsageError
from runner.model import Manifest
from runner.pacing import Rate
from runner.text import visible

_WHERE = ("sandbox", "base_url", "api_key_file", "ca_bundle", "allow_http", "ledger")
_LONGEST = 10.0**9  # seconds: 30 years

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API is and how it is reached, as the person has it."""

    sandbox: bool
    base_url: str
    api_key_file: Path | None
    ca_bundle: str | None
    allow_http: bool

    def endpoint(self, manifest: Manifest) -> AbstractContextManager[settings.Endpoint]:
        """The API, reachable while the context lasts."""
        if self.sandbox:
            return endpoint.sandbox(manifest)
        return nullcontext(endpoint.real(self.base_url, self.api_key_file, self.ca_bundle, allow_http=self.allow_http))

    @property
    def identity(self) -> str:
        """What the ledger knows this API by.

        Raises:
            UsageError: the base URL is none, or a variable that should name one is set and empty.
        """
        refuse_empty("PIXXEL_BASE_URL")
        if self.sandbox:
            return settings.SANDBOX
        return settings.base_url(self.base_url, allow_http=self.allow_http)


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """Which ledger is used, and whether it may be made: only one in its default place may."""

    path: Path
    named: bool

    @classmethod
    def of(cls, manifest_path: str, named: Path | None, *, sandbox: bool) -> LedgerPlace:
        """The ledger for a manifest.

        Raises:
            UsageError: a ledger is named for the sandbox, which has its own.
        """
        refuse_empty("PIXXEL_RUNNER_LEDGER")
        home = folder.beside(manifest_path)
        if sandbox:
            source = click.get_current_context().get_parameter_source("ledger")
            if source is click.core.ParameterSource.COMMANDLINE:
                raise UsageError("--ledger goes with the real API", f"The sandbox has its own, in {home / 'sandbox'}.")
            return cls(home / "sandbox" / "ledger.db", named=False)
        return cls(home / "ledger.db", named=False) if named is None else cls(named, named=True)

    def make_folder(self, manifest_path: str) -> None:
        """Make the folder of a ledger in its default place."""
        if not self.named:
            folder.make(folder.beside(manifest_path))
            self.path.parent.mkdir(mode=0o700, exist_ok=True)


def command_line(command: str, *arguments: str, keep: Sequence[str] = _WHERE) -> str:
    """A command that a person may paste to go on, with what this one's command line says of where things are."""
    context = click.get_current_context()
    words = ["pixxel-runner", command, *arguments]
    for name in keep:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            value = context.params[name]
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return visible(shlex.join(words))


def refuse_empty(variable: str) -> None:
    """A variable that a script failed to fill must not quietly mean the default: that may be another API or record."""
    if os.environ.get(variable) == "":
        raise UsageError(f"{variable} is set and empty", "Give it a value, or unset it to mean the default.")


def refuse_target(target: Path, ledger: Path, *others: Path | None) -> None:
    """See that a file to be written is none of those that a run lives by. Raises UsageError."""
    spared = [ledger, *(Path(f"{ledger}{suffix}") for suffix in ("-wal", "-shm")), *others]
    if any(one is not None and _is_same(target, one) for one in spared):
        raise UsageError(f"--results {target} would overwrite a file that the run needs", "Name another file.")


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def refuse_unkept_ledger(manifest: Manifest, place: LedgerPlace, *, sandbox: bool) -> None:
    """CI cleans its checkouts, and with the ledger goes the knowledge of what was bought.

    Raises:
        RefusedError: in CI, with a `once_per` that lives by the record, and no ledger named.
    """
    if os.environ.get("CI") and manifest.once_per != "run" and not place.named and not sandbox:
        raise RefusedError(
            f"CI is set, and {manifest.path} says once_per: {manifest.once_per}, which needs a ledger that is kept",
            "Name one with --ledger or PIXXEL_RUNNER_LEDGER in a place that outlives the checkout (make it once with "
            "`pixxel-runner ledger init PATH`), and keep it between runs: it says what must not be bought again.",
        )


class Seconds(click.FloatRange):
    """A number of seconds that a clock can be set to: not NaN, not infinite."""

    name = "seconds"

    def __init__(self, least: float = 0.0, *, open_: bool = False) -> None:
        super().__init__(min=least, min_open=open_)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail in click's way."""
        seconds = float(super().convert(value, param, ctx))
        if not seconds <= _LONGEST:
            self.fail(f"{value} is not a time that anybody waits", param, ctx)
        return seconds


def color(_context: click.Context, _parameter: click.Parameter, value: str) -> None:
    """Settle colours for everything that the command prints."""
    click.get_current_context().color = console.color_choice(value)


def connection(command: _Command) -> _Command:
    """Add the options of a Connection."""
    for option in reversed(
        (
            click.option("--sandbox", is_flag=True, help="Use a server of its own: no account, no key, no cost."),
            click.option(
                "--base-url",
                envvar="PIXXEL_BASE_URL",
                default=settings.PRODUCTION,
                show_default=True,
                metavar="URL",
                help="Where the API is.",
            ),
            click.option(
                "--api-key-file",
                envvar="PIXXEL_RUNNER_API_KEY_FILE",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="Read the key from a file instead of PIXXEL_API_KEY.",
            ),
            click.option(
                "--ca-bundle",
                envvar="PIXXEL_RUNNER_CA_BUNDLE",
                metavar="FILE",
                help="Trust the certificates of a PEM file instead of the system's.",
            ),
            click.option("--allow-http", is_flag=True, help="Allow a plain http base URL beyond this machine."),
        )
    ):
        command = option(command)
    return command


def ledger(command: _Command) -> _Command:
    """Add `--ledger`."""
    return click.option(
        "--ledger",
        envvar="PIXXEL_RUNNER_LEDGER",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="The record of what was submitted.  [default: .pixxel-runner/ledger.db beside the manifest]",
    )(command)


def settle(command: _Command) -> _Command:
    """Add `--settle`, in seconds."""
    return click.option(
        "--settle",
        envvar="PIXXEL_RUNNER_SETTLE",
        type=Seconds(),
        default=900,
        show_default=True,
        metavar="SECONDS",
        help="How long after a send a slow server may still create its job.",
    )(command)


def lock_timeout(command: _Command) -> _Command:
    """Add `--lock-timeout`, in seconds."""
    return click.option(
        "--lock-timeout",
        envvar="PIXXEL_RUNNER_LOCK_TIMEOUT",
        type=Seconds(),
        default=0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for another run of this manifest.",
    )(command)


def _rate(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            Rate.parse(value)
        except ValueError:
            raise click.BadParameter("give it as N/s, N/min or N/h, such as 5/s") from None
    return value


def limits(command: _Command) -> _Command:
    """Add what holds for every request: how many at a time, how often, how long."""
    for option in reversed(
        (
            click.option(
                "--concurrency",
                envvar="PIXXEL_RUNNER_CONCURRENCY",
                type=click.IntRange(1, 64),
                help="Requests at a time.  [default: 8]",
            ),
            click.option(
                "--rate",
                envvar="PIXXEL_RUNNER_RATE",
                callback=_rate,
                metavar="N/s|N/min|N/h",
                help="At most so many requests.  [default: no limit]",
            ),
            click.option(
                "--attempts",
                envvar="PIXXEL_RUNNER_ATTEMPTS",
                type=click.IntRange(1),
                help="Tries of a request that certainly was not sent, or only asks.  [default: 5]",
            ),
            click.option(
                "--timeout",
                envvar="PIXXEL_RUNNER_TIMEOUT",
                type=Seconds(open_=True),
                metavar="SECONDS",
                help="For one whole exchange.  [default: 30]",
            ),
            click.option(
                "--max-pause",
                envvar="PIXXEL_RUNNER_MAX_PAUSE",
                type=Seconds(),
                metavar="SECONDS",
                help="Stop when pauses that the server asks for add up to more.  [default: 900]",
            ),
        )
    ):
        command = option(command)
    return command


def max_cost(command: _Command) -> _Command:
    """Add `--max-cost`, in tokens."""
    return click.option(
        "--max-cost",
        envvar="PIXXEL_RUNNER_MAX_COST",
        type=click.IntRange(0),
        metavar="TOKENS",
        help="Submit nothing when the estimate is above it.  [default: no limit]",
    )(command)


def selection(command: _Command) -> _Command:
    """Add which jobs a run is about, and which run it is."""
    for option in reversed(
        (
            click.option(
                "--only", multiple=True, metavar="NAME-GLOB", help="Submit only jobs whose name matches. Repeatable."
            ),
            click.option(
                "--again", multiple=True, metavar="NAME", help="Send one more of a job that was created. Repeatable."
            ),
            click.option("--resume", is_flag=True, help="Finish the last run: send only what was not created."),
            click.option("--new", is_flag=True, help="Start a new run, although the last one is unfinished."),
        )
    ):
        command = option(command)
    return command


def refuse_two_answers(wanted: Manifest, again: tuple[str, ...], *, resume: bool, new: bool) -> None:
    """See that the selection makes sense for a manifest. Raises UsageError."""
    if resume and new:
        raise UsageError("--resume and --new are two answers to one question", "Give one of them.")
    if again and wanted.once_per == "run" and not resume:
        raise UsageError(
            "--again adds to a run that exists, and once_per: run makes a new one each time",
            "For one job of a new run: --only NAME --new. For one more in the last run: --resume --again NAME.",
        )


def formats(command: _Command) -> _Command:
    """Add `--format` and `--all`."""
    command = click.option("--all", "every", is_flag=True, help="List every job in the table, also beyond 1,000.")(
        command
    )
    return click.option(
        "--format",
        envvar="PIXXEL_RUNNER_FORMAT",
        type=click.Choice(["table", "markdown", "csv", "json"]),
        default="table",
        show_default=True,
        help="How it is printed.",
    )(command)


def wait(command: _Command) -> _Command:
    """Add `--wait` and `--wait-timeout`."""
    command = click.option(
        "--wait-timeout",
        envvar="PIXXEL_RUNNER_WAIT_TIMEOUT",
        type=Seconds(),
        metavar="SECONDS",
        help="Wait no longer than this; exit 6 then.  [default: no limit]",
    )(command)
    return click.option("--wait", is_flag=True, help="Follow the jobs until all of them are final.")(command)


def colors(command: _Command) -> _Command:
    """Add `--color`."""
    return click.option(
        "--color",
        envvar="PIXXEL_RUNNER_COLOR",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        callback=color,
        expose_value=False,
        help="When to use colours; auto honours NO_COLOR.",
    )(command)
