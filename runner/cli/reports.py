"""What a command puts out: its main output on stdout, and the reports beside it, each in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from runner import report
from runner.atomic import Target
from runner.cli import console
from runner.errors import RefusedError, UsageError
from runner.report import github

_FILE = Target("the report", "--report FORMAT=PATH", 0o666)
_SUMMARY = "GITHUB_STEP_SUMMARY"

_T = TypeVar("_T")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _parse(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[tuple[str, Path], ...]:
    """Read each `FORMAT=PATH`."""
    found = []
    for one in given:
        name, _, path = one.partition("=")
        if name not in report.NAMES or not path:
            raise click.BadParameter(f"{one!r}: give it as FORMAT=PATH, where FORMAT is {', '.join(report.NAMES)}")
        found.append((name, Path(path)))
    return tuple(found)


def options(command: _Command) -> _Command:
    """Add `--format`, `--report` and `--all`."""
    for option in (
        click.option("--all", "every", is_flag=True, help="List every job in the table, also beyond 1,000."),
        click.option(
            "--report",
            "reports",
            multiple=True,
            callback=_parse,
            metavar="FORMAT=PATH",
            help="Write a report to a file, beside what is printed. Repeatable.",
        ),
        click.option(
            "--format",
            envvar="PIXXEL_RUNNER_FORMAT",
            type=click.Choice(report.NAMES),
            default="table",
            show_default=True,
            help="How it is printed.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which reports are wanted. `several`: more than one manifest is asked about."""

    format: str
    reports: tuple[tuple[str, Path], ...] = ()
    every: bool = False
    several: bool = False

    @property
    def paths(self) -> list[Path]:
        """The files that are to be written."""
        return [path for _, path in self.reports]

    def check(self, results: Sequence[Path] = (), needed: Iterable[Path | None] = ()) -> None:
        """See, before anything is done, that each file can be written, and replaces none that something lives by.

        Args:
            results: the results files that are to be written, too.
            needed: the files that must stay as they are.

        Raises:
            UsageError: two outputs would go to one file, or one to a file that is needed.
            RefusedError: a report could not be written.
        """
        targets = [*results, *self.paths]
        spared = [path for path in needed if path is not None]
        for index, target in enumerate(targets):
            if any(_is_same(target, path) for path in spared):
                raise UsageError(f"{target} would be overwritten, and is a file that the run needs", "Name another.")
            if any(_is_same(target, path) for path in targets[:index]):
                raise UsageError(f"two outputs would be written to {target}", "Give each a file of its own.")
        for path in self.paths:
            _FILE.check(path)

    def put_out(self, table: Mapping[str, report.Report[_T]], made: _T, *, quiet: bool = False) -> bool:
        """Print and write what is wanted; `quiet` prints nothing. Whether all of it could be written."""
        done = True
        for name, path in self.reports:
            text = table[name](made, report.Style(every=True, several=self.several))
            done = _tried(_FILE.write, path, (text, "\n")) and done
        if not quiet:
            style = report.Style(console.stdout_width(), console.stdout_color(), self.every, self.several)
            done = _tried(console.out, table[self.format](made, style)) and done
        target = os.environ.get(_SUMMARY)
        if target and "github" in (self.format, *(name for name, _ in self.reports)):
            done = _tried(_append, Path(target), table["markdown"](made, report.Style(several=self.several))) and done
        return done


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.resolve() == other.resolve() or path.samefile(other)
    except OSError:  # there is none yet
        return False


def _append(path: Path, text: str) -> None:
    """Add to the summary that GitHub shows of a step: other commands of the step may have written there before."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(github.summary(text, file.tell()) + "\n")
    except OSError as error:
        raise RefusedError(f"{_SUMMARY} {path} cannot be written: {error.strerror}") from error


def _tried(put: Callable[..., None], *values: Any) -> bool:
    """Whether it could be written; what could not is said, and costs nothing else."""
    try:
        put(*values)
    except RefusedError as error:
        console.fail(error)
        return False
    return True
