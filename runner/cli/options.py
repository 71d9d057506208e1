"""Options that several commands share, and the values that they are given as."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli import api_endpoint, completers, console
from runner.client.endpoint import PRODUCTION_URL, SANDBOX_IDENTITY, Endpoint, parse_base_url
from runner.core.errors import UsageError
from runner.core.models import Manifest
from runner.core.rate_limit import Rate
from runner.core.settings import DEFAULT_SETTLE, MAX_CONCURRENCY, MAX_SECONDS
from runner.core.state_dir import locate_state_dir
from runner.core.text import escape_unprintable
from runner.ledger.location import LedgerLocation, is_ci

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_WHERE = ("sandbox", "base_url", "api_key_file", "ca_bundle", "allow_http", "ledger")

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Fields = TypeVar("_Fields", bound="DataclassInstance")


def take(kind: type[_Fields], parameters: dict[str, Any]) -> _Fields:
    """Make a dataclass of the parameters named like its fields, which are removed."""
    return kind(**{field.name: parameters.pop(field.name) for field in fields(kind) if field.name in parameters})


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API is and how it is reached, as the person has it."""

    sandbox: bool
    base_url: str
    api_key_file: Path | None
    ca_bundle: str | None
    allow_http: bool

    @property
    def ca_file(self) -> Path | None:
        """The file of certificates, if there is one."""
        return None if self.ca_bundle is None else Path(self.ca_bundle)

    def endpoint_factory(self) -> Callable[[Manifest], AbstractContextManager[Endpoint]]:
        """For each manifest, the API, reachable while the context lasts.

        Raises:
            UsageError: the URL, the key, the CA bundle or the proxy cannot be used.
            RefusedError: there is no key.
        """
        if self.sandbox:
            from runner.sandbox import embedded  # noqa: PLC0415 - of no use to most runs, and 10 ms of their start

            return embedded.serve
        reject_empty_variables("PIXXEL_RUNNER_API_KEY_FILE", "PIXXEL_RUNNER_CA_BUNDLE")
        reached = api_endpoint.real(self.base_url, self.api_key_file, self.ca_bundle, allow_http=self.allow_http)
        return lambda _manifest: nullcontext(reached)

    @property
    def api_identity(self) -> str:
        """What the ledger knows this API by.

        Raises:
            UsageError: the base URL is none, or a variable that should name one is set and empty.
        """
        reject_empty_variables("PIXXEL_BASE_URL")
        if self.sandbox:
            return SANDBOX_IDENTITY
        return parse_base_url(self.base_url, allow_http=self.allow_http)


def locate_ledger(manifest_path: str, named: Path | None, *, sandbox: bool) -> LedgerLocation:
    """The ledger for a manifest.

    Raises:
        UsageError: a ledger is named for the sandbox, which has its own; or its variable is set and empty.
    """
    reject_empty_variables("PIXXEL_RUNNER_LEDGER")
    source = click.get_current_context().get_parameter_source("ledger")
    if sandbox and source is click.core.ParameterSource.COMMANDLINE:
        home = locate_state_dir(manifest_path) / "sandbox"
        raise UsageError("--ledger goes with the real API", f"The sandbox has its own, in {home}.")
    return LedgerLocation.for_manifest(manifest_path, named, sandbox=sandbox)


def format_command(command: str, *arguments: str, keep: Sequence[str] = _WHERE) -> str:
    """A command that a person may paste to go on, with what this one's command line says of where things are."""
    context = click.get_current_context()
    words = ["pixxel-runner", command, *arguments]
    for name in keep:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            value = context.params[name]
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return escape_unprintable(shlex.join(words))


def reject_empty_variables(*variables: str) -> None:
    """A variable that a script failed to fill must not quietly mean the default: that may be another API or record."""
    for variable in variables:
        if os.environ.get(variable) == "":
            raise UsageError(f"{variable} is set and empty", "Give it a value, or unset it to mean the default.")


def locate_run_ledger(manifest: Manifest, named: Path | None, *, sandbox: bool) -> LedgerLocation:
    """The ledger for a run of a manifest.

    Raises:
        UsageError: as `ledger_place`.
        RefusedError: it would not be kept, and must be.
    """
    place = locate_ledger(manifest.path, named, sandbox=sandbox)
    place.require_explicit_in_ci(manifest, ci=is_ci(os.environ) and not sandbox)
    return place


class Seconds(click.FloatRange):
    """A number of seconds that a clock can be set to: not NaN, not infinite."""

    name = "seconds"

    def __init__(self, least: float = 0.0, *, open_: bool = False) -> None:
        super().__init__(min=least, min_open=open_)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail in click's way."""
        seconds = float(super().convert(value, param, ctx))
        if not seconds <= MAX_SECONDS:
            self.fail(f"{value} is not a time that anybody waits", param, ctx)
        return seconds


def color(_context: click.Context, _parameter: click.Parameter, value: str) -> None:
    """Settle colours for everything that the command prints."""
    click.get_current_context().color = console.color_mode(value)


def connection(command: _Command) -> _Command:
    """Add the options of a Connection."""
    for option in reversed(
        (
            click.option("--sandbox", is_flag=True, help="Use a server of its own: no account, no key, no cost."),
            click.option(
                "--base-url",
                envvar="PIXXEL_BASE_URL",
                default=PRODUCTION_URL,
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
                shell_complete=completers.complete_files,
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


def _seconds(_context: click.Context, _parameter: click.Parameter, value: float) -> timedelta:
    return timedelta(seconds=value)


def settle(command: _Command) -> _Command:
    """Add `--settle`, a timedelta."""
    return click.option(
        "--settle",
        envvar="PIXXEL_RUNNER_SETTLE",
        type=Seconds(),
        callback=_seconds,
        default=DEFAULT_SETTLE // timedelta(seconds=1),
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
                type=click.IntRange(1, MAX_CONCURRENCY),
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


def _limit(context: click.Context, _parameter: click.Parameter, value: int | None) -> int | None:
    """A budget; click takes a variable that is set and empty for one that is not set, and so for no limit."""
    if not context.resilient_parsing:  # a shell only asks what could come next
        reject_empty_variables("PIXXEL_RUNNER_MAX_COST")
    return value


def max_cost(command: _Command) -> _Command:
    """Add `--max-cost`, in tokens."""
    return click.option(
        "--max-cost",
        envvar="PIXXEL_RUNNER_MAX_COST",
        type=click.IntRange(0),
        callback=_limit,
        metavar="TOKENS",
        help="For each manifest: submit nothing when its estimate is above it.  [default: no limit]",
    )(command)


def selection(command: _Command) -> _Command:
    """Add which jobs a run is about, and which run it is."""
    for option in reversed(
        (
            click.option(
                "--only",
                multiple=True,
                metavar="NAME-GLOB",
                shell_complete=completers.complete_job_names,
                help="Submit only jobs whose name matches. Repeatable.",
            ),
            click.option(
                "--again",
                multiple=True,
                metavar="NAME",
                shell_complete=completers.complete_job_names,
                help="Send one more of a job that was created. Repeatable.",
            ),
            click.option("--resume", is_flag=True, help="Finish the last run: send only what was not created."),
            click.option("--new", is_flag=True, help="Start a new run, although the last one is unfinished."),
        )
    ):
        command = option(command)
    return command


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
