"""Which ledger a command reads, and whose record in it: what the commands about the past share."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from tabulate import tabulate

from runner.cli import options
from runner.core.errors import ManifestError, RefusedError, UsageError
from runner.core.state_dir import locate_state_dir
from runner.core.suggestions import closest_matches
from runner.core.text import display_width, escape_unprintable
from runner.ledger import lock
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.planning import manifest_identity

LAST = "last"
_MOST_LISTED = 10

_Command = TypeVar("_Command", bound=Callable[..., Any])


def location_options(command: _Command) -> _Command:
    """Add `--ledger` and `--sandbox` to a command that asks no API."""
    sandbox = click.option("--sandbox", is_flag=True, help="Read what was rehearsed with --sandbox.")
    return options.ledger(sandbox(command))


def find_base_path(given: str | None) -> str:
    """The path beside which the folder for a manifest is; `-` for the working directory's.

    A name has no folder of its own, but the path of a manifest that is gone may have.

    Raises:
        UsageError: it is a folder.
    """
    if given is None:
        return "-"
    if os.path.isdir(given):  # noqa: PTH112 - as `_is_file`
        raise UsageError(
            f"{given} is a folder, and this is about one manifest", f"Name it: {Path(given) / 'NAME.yaml'}"
        )
    return given if _is_file(given) or os.path.isdir(locate_state_dir(given)) else "-"  # noqa: PTH112 - as `_is_file`


def locate(given: str | None, named: Path | None, *, sandbox: bool) -> LedgerLocation:
    """The ledger: the one named, else the one beside a manifest's file, else the working directory's."""
    return options.locate_ledger(find_base_path(given), named, sandbox=sandbox)


@contextmanager
def open_ledger(path: Path, *, read_only: bool = False) -> Iterator[Ledger]:
    """Open a ledger that is there, which never makes one. `read_only`: it may be where nothing can be written.

    Raises:
        RefusedError: there is none.
        LedgerError: it can't be read.
    """
    require_ledger(path)
    with Ledger(path, read_only=read_only) as ledger:
        yield ledger


def require_ledger(path: Path) -> None:
    """Raise RefusedError, with what to do, when a path is no ledger's, or may not be looked at."""
    there = path_exists(path)
    if path.is_dir():
        raise RefusedError(f"{path} is a folder", f"Name the ledger's file in it, such as {path / 'ledger.db'}.")
    if path.is_fifo():
        raise RefusedError(f"{path} is a pipe", "Name the ledger's file.")
    if not there:
        raise RefusedError(
            f"there is no ledger at {path}",
            "`pixxel-runner run MANIFEST` makes one beside the manifest. One that is elsewhere is named with --ledger "
            "PATH or PIXXEL_RUNNER_LEDGER, the manifest's by its path; that of rehearsals is read with --sandbox.",
        )


def resolve_name(ledger: Ledger, given: str, api: str | None = None) -> str:
    """The name of a manifest that a person gives by its path or by its name.

    Args:
        ledger: where it may be known.
        given: what the person wrote.
        api: look among the manifests of this API only.

    Raises:
        UsageError: it is neither a file nor a name that the ledger knows.
        ManifestError: it is the file of a manifest that can't be read, and the ledger does not know the file.
    """
    known = {name: path for at, name, path in ledger.manifests() if api in (None, at)}
    if _is_file(given):
        return _name_in(given, known)
    name = given if given in known else _name_by_path(given, known)
    if name is None:
        near = closest_matches(given, known, 3) or list(known)[:3]
        hint = f"It knows {', '.join(map(repr, near))}." if near else "It knows no manifest there yet."
        raise UsageError(f"{given!r} is no file, and no manifest's name in the ledger {ledger.path}", hint)
    return name


def _name_in(path: str, known: dict[str, str]) -> str:
    """The name that a manifest's file gives; while the file is broken, the one that it had when it was run last."""
    from runner.manifest import loader  # noqa: PLC0415 - YAML and JSON Schema are slow to import

    try:
        return loader.parse(loader.read_source(path, io.BytesIO()), path).name
    except ManifestError:
        name = _name_by_path(path, known)
        if name is None:
            raise
        return name


def _name_by_path(path: str, known: dict[str, str]) -> str | None:
    absolute = manifest_identity.resolve_path(path)
    return next((name for name, at in known.items() if at == absolute), None)


def _is_file(path: str) -> bool:
    # Not standard input, which has no record of its own: its manifest is known by name.
    return path != "-" and os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a name too long to be one


def find_run(ledger: Ledger, wanted: str, manifest: str | None) -> RunRow:
    """The run that is meant.

    Raises:
        RefusedError: there is no run at all.
        UsageError: none begins so, or several do.
    """
    runs = list(ledger.runs(manifest=manifest))
    if not runs:
        whose = f" of {escape_unprintable(manifest)}" if manifest else ""
        raise RefusedError(f"the ledger {ledger.path} has no run{whose} yet", "`pixxel-runner run MANIFEST` makes one.")
    if wanted == LAST:
        return runs[0]
    found = [run for run in runs if run.id.startswith(wanted)]
    exact = [run for run in found if run.id == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0]
    raise _ambiguous(wanted, found) if found else _unknown(ledger, wanted)


def _ambiguous(wanted: str, found: list[RunRow]) -> UsageError:
    listed = [f"{run.id} ({escape_unprintable(run.manifest)})" for run in found[:_MOST_LISTED]]
    more = [f"{len(found) - _MOST_LISTED} more"] if len(found) > _MOST_LISTED else []
    return UsageError(f"{len(found)} runs begin with {wanted!r}", f"Give more of it: {', '.join(listed + more)}.")


def _unknown(ledger: Ledger, wanted: str) -> UsageError:
    names = {name for _, name, _ in ledger.manifests()}
    if wanted in names or os.path.exists(wanted):  # noqa: PTH110 - Path.exists raises for a name that is too long
        return UsageError(
            f"{wanted!r} is no run's id", f"For a manifest's last run: show --manifest {escape_unprintable(wanted)}"
        )
    if wanted.endswith((".yaml", ".yml", ".json")) or os.sep in wanted:
        return UsageError(f"there is no file {wanted!r}, and no run begins so", "Check the path.")
    return UsageError(f"no run begins with {wanted!r}", "`pixxel-runner runs` lists them; `last` is the newest.")


def refresh_run(ledger: Ledger, run: RunRow) -> tuple[RunRow, str | None]:
    """A run as it is now, and who holds its lock, in words, if it has not ended and its process may be alive."""
    if run.state != "running":
        return run, None
    holder = lock.describe_holder(ledger.path, run.api, run.manifest)
    if holder is None:  # either its process is gone, or it has ended since it was read: then its end is on record
        run = next(one for one in ledger.runs(run.api, run.manifest) if one.id == run.id)
    return run, holder


def format_table(titles: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """Rows under titles, aligned as the table of a run's record is. The cells are fit to show already."""
    # Titles and rule are lines like any other: `tabulate` makes a column two wider than a title that it knows of.
    rule = ["-" * max(map(display_width, column)) for column in zip(titles, *rows, strict=True)]
    return tabulate([titles, rule, *rows], tablefmt="plain", disable_numparse=True, colalign=align)
