"""What a command puts out: its main output on stdout, and the reports beside it, each in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from runner.cli import console
from runner.core.atomic_file import AtomicFile
from runner.core.errors import RefusedError, UsageError
from runner.core.state_dir import STATE_DIR_NAME
from runner.reports import Report, Style
from runner.reports.formats import github

_FILE = AtomicFile("the report", "--report FORMAT=PATH", 0o666)
_SUMMARY = "GITHUB_STEP_SUMMARY"

_T = TypeVar("_T")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _parse_reports(
    formats: Collection[str], _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, Path], ...]:
    """Parse each `FORMAT=PATH`, where FORMAT is one of `formats`."""
    parsed = []
    for value in values:
        name, _, path = value.partition("=")
        if name not in formats or not path:
            raise click.BadParameter(f"{value!r}: give it as FORMAT=PATH, where FORMAT is {', '.join(formats)}")
        parsed.append((name, Path(path)))
    return tuple(parsed)


def options(formats: Collection[str]) -> Callable[[_Command], _Command]:
    """Add `--format`, `--report` and `--all` to a command whose reports have these formats."""

    def decorate(command: _Command) -> _Command:
        for option in (
            click.option("--all", "every", is_flag=True, help="List every job in the table, also beyond 1,000."),
            click.option(
                "--report",
                "reports",
                multiple=True,
                callback=partial(_parse_reports, formats),
                metavar="FORMAT=PATH",
                help="Write a report to a file, beside what is printed. Repeatable.",
            ),
            click.option(
                "--format",
                envvar="PIXXEL_RUNNER_FORMAT",
                type=click.Choice(tuple(formats)),
                default="table",
                show_default=True,
                help="How it is printed.",
            ),
        ):
            command = option(command)
        return command

    return decorate


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Which reports are wanted. `several`: more than one manifest is asked about."""

    format: str
    reports: tuple[tuple[str, Path], ...] = ()
    every: bool = False
    several: bool = False

    @property
    def paths(self) -> list[Path]:
        """The files that are to be written."""
        return [path for _, path in self.reports]

    def check_targets(self, results: Sequence[Path] = (), needed: Iterable[Path | None] = ()) -> None:
        """See, before anything is done, that each file can be written, and replaces none that something lives by.

        Args:
            results: the results files that are to be written, too.
            needed: the files that must stay as they are.

        Raises:
            UsageError: two outputs would go to one file, or one to a file that is needed.
            RefusedError: a report could not be written.
        """
        seen = {name for path in needed if path is not None for name in _names(path)}
        written: set[Hashable] = set()
        for target in (*results, *self.paths):
            if STATE_DIR_NAME in target.resolve().parts[:-1]:
                raise UsageError(
                    f"{target} is in {STATE_DIR_NAME}, where the program keeps its own", "Name another place."
                )
            if target.name == "-":
                what, hint = "a report", "--format is what is printed."
                if target in results:
                    what, hint = "the results file", "Name one. --format json prints the same on stdout."
                raise UsageError(f"{what} goes to a file, and - is none", hint)
            names = _names(target)
            if names & seen:
                raise UsageError(f"{target} would be overwritten, and is a file that is needed", "Name another.")
            if names & written:
                raise UsageError(f"two outputs would be written to {target}", "Give each a file of its own.")
            written |= names
        for path in self.paths:
            _FILE.check_writable(path)

    def write(
        self,
        table: Mapping[str, Report[Sequence[_T]]],
        made: Sequence[_T],
        *,
        quiet: bool = False,
        before: Callable[[], Sequence[_T]] = tuple,
    ) -> bool:
        """Print and write what is wanted; `quiet` prints nothing. Whether all of it could be written.

        `before` gives what was made earlier of what nothing was made of now: for `prometheus`, where what is not told
        of would be missed by nobody.
        """
        done = True
        for name, path in self.reports:
            what = [*made, *before()] if name == "prometheus" else made
            style = Style(list_all=True, several_manifests=self.several)
            done = _tried(_write, path, table[name], what, style) and done
        if not quiet:
            style = Style(console.stdout_width(), console.is_stdout_colored(), self.every, self.several)
            done = _tried(_print, table[self.format], made, style) and done
        target = os.environ.get(_SUMMARY)
        if target and "github" in (self.format, *(name for name, _ in self.reports)):
            done = (
                _tried(_append, Path(target), table["markdown"], made, Style(several_manifests=self.several)) and done
            )
        return done


def _write(path: Path, make: Report[_T], made: _T, style: Style) -> None:
    _FILE.write(path, (make(made, style), "\n"))


def _print(make: Report[_T], made: _T, style: Style) -> None:
    console.output(make(made, style))


def _names(path: Path) -> set[Hashable]:
    """What a file is known by: its real path, and where it is there, which file of the disk it is."""
    names: set[Hashable] = {path.resolve()}
    try:
        found = path.stat()
    except OSError:  # there is none yet
        return names
    return {*names, (found.st_dev, found.st_ino)}


def _append(path: Path, make: Report[_T], made: _T, style: Style) -> None:
    """Add to the summary that GitHub shows of a step: other commands of the step may have written there before."""
    try:
        # A pipe that nobody reads is an error, and is not waited for: the record is written, and the run to end.
        with open(path, "a", encoding="utf-8", opener=_without_waiting) as file:
            file.write(github.truncate_summary(make(made, style), file.tell()) + "\n")
    except OSError as error:
        raise RefusedError(f"{_SUMMARY} {path} cannot be written: {error.strerror}") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def _tried(put: Callable[..., None], *values: Any) -> bool:
    """Whether it could be written; what could not is said, and costs nothing else."""
    try:
        put(*values)
    except RefusedError as error:
        console.error(error)
        return False
    return True
