"""The command `validate`: checks manifests and reports every problem at once. Nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from runner import manifest
from runner.cli import completion_values, console, problems, sources
from runner.errors import Exit, Problem, UsageError
from runner.manifest import Checked
from runner.model import Manifest


@click.command("validate")
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, shell_complete=completion_values.files)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="How problems are written: a line each, one JSON list, or annotations for GitHub Actions.",
)
def command(manifests: tuple[str, ...], style: str) -> Exit:
    """Check manifests (files, folders of *.yaml, or - for standard input) and report every problem at once.

    Nothing is sent. Each problem is a line `file:line:column: field: message (hint)` on stdout. Lines and columns count
    from 1, and so does nothing else: the first job is jobs[0]. The exit code is 0 if all manifests are valid, else 2.
    """
    results = [_check(path) for path in sources.paths(manifests)]
    _WRITERS[style](results)
    return Exit.USAGE if any(checked.problems for checked in results) else Exit.OK


def _check(path: str) -> Checked:
    try:
        data = manifest.read_source(path, console.stdin())
    except UsageError as error:
        return Checked(None, (sources.unread(path, error),), ())
    return manifest.check(data, path)


def _write_text(results: Iterable[Checked]) -> None:
    for checked in results:
        for warning in checked.warnings:
            console.warn(problems.text(warning))
        for problem in checked.problems:
            console.out(problems.text(problem))
        _write_ok(checked.manifest)


def _write_github(results: Iterable[Checked]) -> None:
    for checked in results:
        for warning in checked.warnings:
            console.out(problems.github(warning, "warning"))
        for problem in checked.problems:
            console.out(problems.github(problem, "error"))
        _write_ok(checked.manifest)


def _write_json(results: Iterable[Checked]) -> None:
    listed: list[tuple[Problem, problems.Severity]] = []
    for checked in results:
        listed.extend((warning, "warning") for warning in checked.warnings)
        listed.extend((problem, "error") for problem in checked.problems)
    console.out(problems.as_json(listed))


_WRITERS: dict[str, Callable[[Iterable[Checked]], None]] = {
    "text": _write_text,
    "json": _write_json,
    "github": _write_github,
}


def _write_ok(valid: Manifest | None) -> None:
    if valid is not None:
        console.out(problems.ok(manifest.display_name(valid.path), valid))
