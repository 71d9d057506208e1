"""Finds the ledger, the manifest and the run that a command is about."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from tabulate import tabulate

from runner.cli import options
from runner.core.errors import ManifestError, RefusedError, UsageError
from runner.core.models import STDIN
from runner.core.state_dir import locate_state_dir
from runner.core.suggestions import closest_matches
from runner.core.text import display_width, escape_unprintable
from runner.ledger import lock
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.planning import manifest_identity

LAST = "last"
_MAX_LISTED = 10

_Command = TypeVar("_Command", bound=Callable[..., Any])


def location_options(command: _Command) -> _Command:
    """Add `--ledger` and `--sandbox` to a command that does not call the API."""
    sandbox = click.option("--sandbox", is_flag=True, help="Use the ledger of the sandbox.")
    return options.ledger(sandbox(command))


def find_base_path(manifest: str | None) -> str:
    """The path next to which the state directory of a manifest is; STDIN for the working directory.

    `manifest` is a path or a name. A path counts even if the file was deleted, as long as its state directory exists.

    Raises:
        UsageError: it is a directory.
    """
    if manifest is None:
        return STDIN
    if os.path.isdir(manifest):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        raise UsageError(f"{manifest} is a directory", f"Specify one manifest in it: {Path(manifest) / 'NAME.yaml'}")
    has_state = os.path.isdir(locate_state_dir(manifest))  # noqa: PTH112 - likewise
    return manifest if _is_file(manifest) or has_state else STDIN


def locate(manifest: str | None, ledger: Path | None, *, sandbox: bool) -> LedgerLocation:
    """The ledger given by its path, else the one next to the manifest, else the one in the working directory."""
    return options.locate_ledger(find_base_path(manifest), ledger, sandbox=sandbox)


@contextmanager
def open_ledger(location: LedgerLocation, *, read_only: bool = False) -> Iterator[Ledger]:
    """Open a ledger that exists. With `read_only` its directory need not be writable.

    Raises:
        RefusedError: it does not exist.
        LedgerError: it cannot be read.
    """
    require_ledger(location)
    with Ledger(location.path, read_only=read_only) as ledger:
        yield ledger


def require_ledger(location: LedgerLocation) -> None:
    """Raise RefusedError if there is no file at the path of a ledger, or it cannot be accessed."""
    path = location.path
    exists = path_exists(path)
    if path.is_dir():
        raise RefusedError(f"{path} is a directory", f"Specify a file in it, such as {path / 'ledger.db'}.")
    if path.is_fifo():
        raise RefusedError(f"{path} is a pipe", "Specify the ledger file.")
    if not exists:
        if path_exists(lock.directory(path)):
            raise lock.missing_ledger_error(path)
        raise RefusedError(f"there is no ledger at {path}", _explain_missing(location))


def _explain_missing(location: LedgerLocation) -> str:
    """The hint for a ledger that never existed. A sandbox has its own, which is always in its default place."""
    if location.explicit:
        command_line = shlex.join(["pixxel-runner", "ledger", "init", str(location.path)])
        return f"Check the path, or create a ledger: {command_line}"
    is_here = locate_state_dir(STDIN) in location.path.parents
    made, advice = (
        ("from here", "Change to the manifest's directory") if is_here else ("there", "Check the manifest's path")
    )
    if location.sandbox:
        return f"No run with --sandbox has been made {made}. {advice}."
    return f"No run has been made {made}. {advice}, or pass --ledger PATH. For sandbox runs, add --sandbox."


def resolve_name(ledger: Ledger, manifest: str, api: str | None = None) -> str:
    """The name of a manifest that is given by its path or by its name.

    Args:
        ledger: the ledger to find it in.
        manifest: the path or the name.
        api: consider only the manifests of this API.

    Raises:
        UsageError: it is neither a file nor a name in the ledger.
        ManifestError: it is an invalid manifest whose path is not in the ledger.
    """
    known = {name: path for identity, name, path in ledger.manifests() if api in (None, identity)}
    if _is_file(manifest):
        return _read_name(manifest, known)
    name = manifest if manifest in known else _find_name(manifest, known)
    if name is None:
        names = closest_matches(manifest, known, 3) or list(known)[:3]
        hint = (
            f"Manifests in the ledger: {', '.join(map(repr, names))}."
            if names
            else "The ledger contains no manifests yet."
        )
        raise UsageError(f"{manifest!r} is neither a file nor a manifest in the ledger {ledger.path}", hint)
    return name


def _read_name(path: str, known: dict[str, str]) -> str:
    """The name in a manifest's file; if the file is invalid, the name it had in its last run."""
    from runner.manifest import loader  # noqa: PLC0415 - YAML and JSON Schema are slow to import

    try:
        return loader.parse(loader.read_source(path, io.BytesIO()), path).name
    except ManifestError:
        name = _find_name(path, known)
        if name is None:
            raise
        return name


def _find_name(path: str, known: dict[str, str]) -> str | None:
    absolute = manifest_identity.resolve_path(path)
    return next((name for name, known_path in known.items() if known_path == absolute), None)


def _is_file(path: str) -> bool:
    """Whether it is a file. Standard input is not: a manifest that was read from it is known by its name."""
    return path != STDIN and os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a name that is too long


def find_run(ledger: Ledger, prefix: str, manifest: str | None, *, unknown: str = "") -> RunRow:
    """The run whose id starts with `prefix`, or the latest one for LAST; of one manifest, or of all.

    `unknown` is the message if no run matches.

    Raises:
        RefusedError: there is no run at all.
        UsageError: no run matches, or several do.
    """
    runs = list(ledger.runs(manifest=manifest))
    if not runs:
        of_manifest = f" of {escape_unprintable(manifest)}" if manifest else ""
        raise RefusedError(
            f"the ledger {ledger.path} contains no runs{of_manifest} yet", "Start one: pixxel-runner run MANIFEST"
        )
    if prefix == LAST:
        return runs[0]
    matches = [run for run in runs if run.id.startswith(prefix)]
    exact = [run for run in matches if run.id == prefix]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    raise _ambiguous(prefix, matches) if matches else _unknown(ledger, prefix, unknown)


def _ambiguous(prefix: str, matches: list[RunRow]) -> UsageError:
    listed = [f"{run.id} ({escape_unprintable(run.manifest)})" for run in matches[:_MAX_LISTED]]
    more = [f"{len(matches) - _MAX_LISTED} more"] if len(matches) > _MAX_LISTED else []
    return UsageError(f"{len(matches)} runs start with {prefix!r}", f"Give more of the id: {', '.join(listed + more)}.")


def _unknown(ledger: Ledger, prefix: str, message: str) -> UsageError:
    names = {name for _, name, _ in ledger.manifests()}
    if prefix in names or os.path.exists(prefix):  # noqa: PTH110 - Path.exists raises for a name that is too long
        option = f"--manifest {escape_unprintable(prefix)}"
        return UsageError(f"{prefix!r} is not the id of a run", f"For the last run of a manifest: show {option}")
    if prefix.endswith((".yaml", ".yml", ".json")) or os.sep in prefix:
        return UsageError(f"there is no file {prefix!r}, and no run with that id", "Check the path.")
    message = message or f"no run starts with {prefix!r}"
    return UsageError(message, "`pixxel-runner runs` lists the runs; `last` is the latest.")


def refresh_run(ledger: Ledger, run: RunRow) -> tuple[RunRow, str | None]:
    """The run as it is now, and a description of its process if it may still be running."""
    if run.state != "running":
        return run, None
    holder = lock.describe_holder(ledger.path, run.api, run.manifest)
    if holder is None:  # the process died, or it finished the run after we read it
        run = next(row for row in ledger.runs(run.api, run.manifest) if row.id == run.id)
    return run, holder


def format_table(titles: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """A table like those of the reports. The cells must be escaped already."""
    # Titles and rule are passed as rows: `tabulate` makes a column two characters wider than a title that it knows of.
    rule = ["-" * max(map(display_width, column)) for column in zip(titles, *rows, strict=True)]
    return tabulate([titles, rule, *rows], tablefmt="plain", disable_numparse=True, colalign=align)
