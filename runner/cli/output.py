"""Writes what a command reports: its output on stdout, and further reports to files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

_REPORT_FILE = AtomicFile("the report", "--report FORMAT=PATH", 0o666)
_STEP_SUMMARY = "GITHUB_STEP_SUMMARY"

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
            raise click.BadParameter(f"{value!r}: expected FORMAT=PATH, where FORMAT is one of {', '.join(formats)}")
        parsed.append((name, Path(path)))
    return tuple(parsed)


def options(formats: Collection[str]) -> Callable[[_Command], _Command]:
    """Add `--format`, `--report` and `--all` to a command whose reports have these formats."""

    def decorate(command: _Command) -> _Command:
        for option in (
            click.option("--all", "every", is_flag=True, help="Show all jobs in the table, even more than 1,000."),
            click.option(
                "--report",
                "reports",
                multiple=True,
                callback=partial(_parse_reports, formats),
                metavar="FORMAT=PATH",
                help="Also write a report to a file. Can be repeated.",
            ),
            click.option(
                "--format",
                envvar="PIXXEL_RUNNER_FORMAT",
                type=click.Choice(tuple(formats)),
                default="table",
                show_default=True,
                help="Output format.",
            ),
        ):
            command = option(command)
        return command

    return decorate


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What to print and write. `several`: the output is about several manifests, and names each of them."""

    format: str
    reports: tuple[tuple[str, Path], ...] = ()
    every: bool = False
    several: bool = False

    def check_targets(self, results: Sequence[Path] = (), inputs: Iterable[Path | None] = ()) -> None:
        """Check, before anything is done, that every file can be written, and overwrites nothing that is needed.

        Args:
            results: the results files, which will be written as well.
            inputs: the files that must not be overwritten.

        Raises:
            UsageError: two outputs have the same path, or an output has the path of an input.
            RefusedError: a report cannot be written.
        """
        taken = {name for path in inputs if path is not None for name in _identify(path)}
        written: set[Hashable] = set()
        for path in results:
            if path.name == "-":
                hint = "Choose a file. --format json prints the same to standard output."
                raise UsageError("the results file cannot be standard output (-)", hint)
        for path in (*results, *(path for _, path in self.reports)):
            if path.name == "-":
                raise UsageError("a report cannot be written to standard output (-)", "Use --format instead.")
            if STATE_DIR_NAME in path.resolve().parts[:-1]:
                raise UsageError(f"{path} is in {STATE_DIR_NAME}, which is the program's own", "Choose another path.")
            names = _identify(path)
            if names & taken:
                raise UsageError(f"{path} would overwrite a file that is needed", "Choose another path.")
            if names & written:
                raise UsageError(f"two outputs would be written to {path}", "Choose a different path for each.")
            written |= names
        for _, path in self.reports:
            _REPORT_FILE.check_writable(path)

    def write(
        self,
        formats: Mapping[str, Report[Sequence[_T]]],
        items: Sequence[_T],
        *,
        quiet: bool = False,
        load_previous: Callable[[], Sequence[_T]] = tuple,
    ) -> bool:
        """Print the output, unless `quiet`, and write the reports. Return whether all of it could be written.

        `load_previous` gives the previous runs of manifests that did not run this time. The prometheus report includes
        them: a metric that disappears raises no alert.
        """
        errors: list[RefusedError] = []
        for name, path in self.reports:
            reported = [*items, *load_previous()] if name == "prometheus" else items
            style = Style(list_all=True, several_manifests=self.several)
            with _collecting(errors):
                _REPORT_FILE.write(path, (formats[name](reported, style), "\n"))
        if not quiet:
            style = Style(console.width(sys.stdout), console.is_colored(sys.stdout), self.every, self.several)
            with _collecting(errors):
                console.output(formats[self.format](items, style))
        summary = os.environ.get(_STEP_SUMMARY)
        if summary and "github" in (self.format, *(name for name, _ in self.reports)):
            with _collecting(errors):
                _append_summary(Path(summary), formats["markdown"](items, Style(several_manifests=self.several)))
        return not errors


def _identify(path: Path) -> set[Hashable]:
    """Identify a file by its resolved path and, if it exists, by its inode."""
    identities: set[Hashable] = {path.resolve()}
    try:
        status = path.stat()
    except OSError:
        return identities
    return {*identities, (status.st_dev, status.st_ino)}


@contextmanager
def _collecting(errors: list[RefusedError]) -> Iterator[None]:
    """Print and collect an error, which does not keep the other reports from being written."""
    try:
        yield
    except RefusedError as error:
        console.error(error)
        errors.append(error)


def _append_summary(path: Path, markdown: str) -> None:
    """Append to the summary of a GitHub Actions step, which other commands of the step may have written to."""
    try:
        with open(path, "a", encoding="utf-8", opener=_open_nonblocking) as file:
            file.write(github.truncate_summary(markdown, file.tell()) + "\n")
    except OSError as error:
        raise RefusedError(f"{_STEP_SUMMARY} {path} cannot be written: {error.strerror}") from error


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file. A pipe without a reader is an error: waiting for one would keep the command from ending."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
