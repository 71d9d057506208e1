"""The command `validate`: checks manifests and reports every problem at once. Nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from runner.cli import completers, console, manifests, problem_format
from runner.core.errors import Problem, UsageError
from runner.core.exit_codes import Exit
from runner.core.models import Manifest
from runner.manifest import loader
from runner.manifest.loader import CheckResult


@click.command("validate")
@click.argument("paths", metavar="MANIFEST...", nargs=-1, required=True, shell_complete=completers.complete_files)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How problems are written: a line each, one JSON list, or annotations for GitHub Actions.",
)
def command(paths: tuple[str, ...], style: str) -> Exit:
    """Check manifests (files, folders of *.yaml, or - for standard input) and report every problem at once.

    Nothing is sent. Each problem is a line `file:line:column: field: message (hint)` on stdout. Lines and columns count
    from 1, and so does nothing else: the first job is jobs[0]. The exit code is 0 if all manifests are valid, else 2.
    """
    results = [_check(path) for path in manifests.find_files(paths)]
    _WRITERS[style](results)
    return Exit.USAGE if any(checked.problems for checked in results) else Exit.OK


def _check(path: str) -> CheckResult:
    try:
        data = loader.read_source(path, console.stdin())
    except UsageError as error:
        return CheckResult(None, (manifests.unreadable(path, error),), ())
    return loader.check(data, path)


def _write_text(results: Iterable[CheckResult]) -> None:
    for checked in results:
        for warning in checked.warnings:
            console.warn(problem_format.format_line(warning))
        for problem in checked.problems:
            console.output(problem_format.format_line(problem))
        _write_ok(checked.manifest)


def _write_github(results: Iterable[CheckResult]) -> None:
    for checked in results:
        for warning in checked.warnings:
            console.output(problem_format.format_github(warning, "warning"))
        for problem in checked.problems:
            console.output(problem_format.format_github(problem, "error"))
        _write_ok(checked.manifest)


def _write_json(results: Iterable[CheckResult]) -> None:
    listed: list[tuple[Problem, problem_format.Severity]] = []
    for checked in results:
        listed.extend((warning, "warning") for warning in checked.warnings)
        listed.extend((problem, "error") for problem in checked.problems)
    console.output(problem_format.format_json(listed))


_WRITERS: dict[str, Callable[[Iterable[CheckResult]], None]] = {
    "text": _write_text,
    "json": _write_json,
    "github": _write_github,
}


def _write_ok(valid: Manifest | None) -> None:
    if valid is not None:
        console.output(problem_format.format_valid(loader.display_name(valid.path), valid))
