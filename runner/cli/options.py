"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from runner.cli import completers, console
from runner.client.endpoint import (
    PRODUCTION_URL,
    SANDBOX_IDENTITY,
    Endpoint,
    find_proxy,
    load_api_key,
    load_ca_bundle,
    parse_base_url,
)
from runner.core.errors import UsageError
from runner.core.models import STDIN, Manifest
from runner.core.rate_limit import Rate
from runner.core.settings import DEFAULT_SETTLE, MAX_CONCURRENCY, MAX_SECONDS, Limits
from runner.core.state_dir import locate_state_dir
from runner.core.text import escape_unprintable
from runner.ledger.location import LedgerLocation

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from runner.client.api import ReadOnlyClient

_LOCATION_OPTIONS = ("sandbox", "base_url", "api_key_file", "ca_bundle", "allow_http", "ledger")
_DEFAULTS = Limits()

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Fields = TypeVar("_Fields", bound="DataclassInstance")


def take(kind: type[_Fields], parameters: dict[str, Any]) -> _Fields:
    """Make a dataclass of the parameters named like its fields, which are removed."""
    return kind(**{field.name: parameters.pop(field.name) for field in fields(kind) if field.name in parameters})


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the API, as the options say."""

    sandbox: bool
    base_url: str
    api_key_file: Path | None
    ca_bundle: str | None
    allow_http: bool

    @property
    def files(self) -> list[Path]:
        """The files that the options name."""
        return [Path(path) for path in (self.api_key_file, self.ca_bundle) if path is not None]

    @property
    def api_identity(self) -> str:
        """The name of this API in the ledger.

        Raises:
            UsageError: the base URL is invalid, or its variable is empty.
        """
        reject_empty_variables("PIXXEL_BASE_URL")
        if self.sandbox:
            return SANDBOX_IDENTITY
        return parse_base_url(self.base_url, allow_http=self.allow_http)

    def endpoint_factory(self) -> Callable[[Manifest], AbstractContextManager[Endpoint]]:
        """Return a function that makes the API reachable for a manifest, within a context.

        Raises:
            UsageError: the base URL, the key, the CA bundle or the proxy is invalid.
            RefusedError: there is no key.
        """
        if self.sandbox:
            from runner.sandbox import embedded  # noqa: PLC0415 - most runs do not need it, and it takes 10 ms

            return embedded.serve
        reject_empty_variables("PIXXEL_RUNNER_API_KEY_FILE", "PIXXEL_RUNNER_CA_BUNDLE")
        origin = parse_base_url(self.base_url, allow_http=self.allow_http)
        tls_context = load_ca_bundle(self.ca_bundle)
        key, warnings = load_api_key(os.environ.get("PIXXEL_API_KEY"), self.api_key_file)
        for warning in warnings:
            console.warn(warning)
        endpoint = Endpoint(origin, key, self.ca_bundle, find_proxy(origin), tls_context)
        return lambda _manifest: nullcontext(endpoint)

    @contextmanager
    def open_client(self, manifest: Manifest, connections: int = 1) -> Iterator[ReadOnlyClient]:
        """Connect to the API for reading. Raises what `endpoint_factory` does."""
        from runner.client.api import ReadOnlyClient  # noqa: PLC0415 - urllib3 is slow to import

        with self.endpoint_factory()(manifest) as endpoint, ReadOnlyClient(endpoint, connections) as client:
            yield client


def locate_ledger(manifest_path: str, ledger: Path | None, *, sandbox: bool) -> LedgerLocation:
    """The ledger for a manifest: the one given, or the one in its default place.

    Raises:
        UsageError: one is given for the sandbox, which has its own; or the variable for it is empty.
    """
    reject_empty_variables("PIXXEL_RUNNER_LEDGER")
    source = click.get_current_context().get_parameter_source("ledger")
    if sandbox and source is ParameterSource.COMMANDLINE:
        directory = locate_state_dir(manifest_path) / "sandbox"
        raise UsageError("--ledger cannot be used with --sandbox", f"The sandbox has its own ledger in {directory}.")
    return LedgerLocation.for_manifest(manifest_path, ledger, sandbox=sandbox)


def format_command(command: str, *arguments: str, keep: Sequence[str] = _LOCATION_OPTIONS) -> str:
    """A command line to run next, with the options of this one that say which API and ledger to use."""
    context = click.get_current_context()
    words = ["pixxel-runner", command, *arguments]
    for name in keep:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return escape_unprintable(shlex.join(words))


def format_resolve_command(manifest: str, path: str) -> str:
    """The command line that looks up the jobs in doubt of a manifest, by its name if no file has it."""
    return format_command("resolve", manifest if path == STDIN else path)


def reject_empty_variables(*variables: str) -> None:
    """Raise UsageError if an environment variable is empty where the default would mean another API or ledger.

    click takes an empty variable for one that is not set.
    """
    for variable in variables:
        if os.environ.get(variable) == "":
            raise UsageError(f"{variable} is set to an empty string", "Set a value, or unset it to use the default.")


def _check_seconds(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= MAX_SECONDS:  # NaN is in no range
        raise click.BadParameter(f"expected a number of seconds, 0 to {MAX_SECONDS:.0f}")
    return value


def _check_timeout(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value == 0:
        raise click.BadParameter("expected more than 0 seconds")
    return _check_seconds(context, parameter, value)


def _parse_timedelta(context: click.Context, parameter: click.Parameter, value: float) -> timedelta:
    _check_seconds(context, parameter, value)
    return timedelta(seconds=value)


def _set_color(context: click.Context, _parameter: click.Parameter, value: str) -> None:
    context.color = console.color_mode(value)


def _check_rate(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            Rate.parse(value)
        except ValueError:
            raise click.BadParameter("expected N/s, N/min or N/h, such as 5/s") from None
    return value


def _check_max_cost(context: click.Context, _parameter: click.Parameter, value: int | None) -> int | None:
    if not context.resilient_parsing:  # that is, not for shell completion
        reject_empty_variables("PIXXEL_RUNNER_MAX_COST")
    return value


def _combine(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Make one decorator of several options, which `--help` lists in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def setting(name: str, text: str, variable: str = "", **attributes: Any) -> Callable[[_Command], _Command]:
    """An option with an environment variable: PIXXEL_RUNNER_ and its name, unless another one is given."""
    variable = variable or f"PIXXEL_RUNNER_{name.removeprefix('--').replace('-', '_').upper()}"
    return click.option(name, envvar=variable, help=text, **attributes)


def _seconds(name: str, text: str, **attributes: Any) -> Callable[[_Command], _Command]:
    return setting(name, text, **{"type": float, "metavar": "SECONDS", "callback": _check_seconds, **attributes})


def integer(
    name: str, text: str, minimum: int, maximum: int | None = None, **attributes: Any
) -> Callable[[_Command], _Command]:
    """A setting that is a number of things."""
    return setting(name, text, **{"type": click.IntRange(minimum, maximum), "metavar": "N", **attributes})


def repeatable(
    name: str, text: str, metavar: str, complete: Any = None, **attributes: Any
) -> Callable[[_Command], _Command]:
    """An option that can be given several times."""
    attributes |= {"multiple": True, "metavar": metavar, "shell_complete": complete}
    return click.option(name, help=f"{text} Can be repeated.", **attributes)


def output_format(*formats: str, text: str = "Output format.") -> Callable[[_Command], _Command]:
    """The option `--format`; the first format is the default."""
    return click.option("--format", type=click.Choice(formats), default=formats[0], show_default=True, help=text)


_PATH = click.Path(path_type=Path)

connection = _combine(
    click.option("--sandbox", is_flag=True, help="Use the built-in local server: no account, key or cost."),
    setting(
        "--base-url",
        "Base URL of the API.",
        "PIXXEL_BASE_URL",
        default=PRODUCTION_URL,
        show_default=True,
        metavar="URL",
    ),
    setting("--api-key-file", "Read the API key from a file instead of PIXXEL_API_KEY.", type=_PATH, metavar="FILE"),
    setting(
        "--ca-bundle",
        "Trust the certificates in a PEM file instead of the system's.",
        metavar="FILE",
        shell_complete=completers.complete_files,
    ),
    click.option("--allow-http", is_flag=True, help="Allow http for a base URL on another machine."),
)

ledger = setting(
    "--ledger",
    "Path of an existing ledger.  [default: .pixxel-runner/ledger.db beside the manifest]",
    type=_PATH,
    metavar="PATH",
)

settle = _seconds(
    "--settle",
    "How long after a request a slow server may still create its job.",
    callback=_parse_timedelta,
    default=DEFAULT_SETTLE // timedelta(seconds=1),
    show_default=True,
)

lock_timeout = _seconds(
    "--lock-timeout", "How long to wait for another run of the same manifest.", default=0, show_default=True
)

limits = _combine(
    integer(
        "--concurrency",
        f"Number of requests in flight at a time.  [default: {_DEFAULTS.concurrency}]",
        1,
        MAX_CONCURRENCY,
    ),
    setting("--rate", "Rate limit for requests.  [default: no limit]", callback=_check_rate, metavar="N/s|N/min|N/h"),
    integer("--attempts", f"Maximum attempts for requests that are safe to retry.  [default: {_DEFAULTS.attempts}]", 1),
    _seconds("--timeout", f"Total timeout per request.  [default: {_DEFAULTS.timeout:g}]", callback=_check_timeout),
    _seconds(
        "--max-pause",
        f"Stop if the pauses requested by the server add up to more than this.  [default: {_DEFAULTS.max_pause:g}]",
    ),
)

cost_limit = _combine(
    integer(
        "--max-cost",
        "Refuse to submit a manifest whose estimated cost exceeds this.  [default: no limit]",
        0,
        callback=_check_max_cost,
        metavar="TOKENS",
    ),
    click.option("--allow-unknown-cost", is_flag=True, help="Submit jobs of unknown cost despite --max-cost."),
)

selection = _combine(
    repeatable("--only", "Submit only jobs whose name matches.", "NAME-GLOB", completers.complete_job_names),
    repeatable(
        "--again",
        "Submit one more job for an entry whose job was already created.",
        "NAME",
        completers.complete_job_names,
    ),
    click.option("--resume", is_flag=True, help="Resume the unfinished run: submit only what was not created."),
    click.option("--new", is_flag=True, help="Start a new run even if the last one is unfinished."),
)

wait = _combine(
    click.option("--wait", is_flag=True, help="Wait until all jobs have finished, showing their status."),
    _seconds("--wait-timeout", "With --wait: give up after this time, with exit code 6.  [default: no limit]"),
)

quiet = click.option("--quiet", "-q", is_flag=True, help="Print nothing unless there is a problem.")

colors = setting(
    "--color",
    "When to use colors; auto respects NO_COLOR.",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    callback=_set_color,
    expose_value=False,
)
