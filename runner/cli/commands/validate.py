"""The command `validate`: checks manifests and reports all their problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from runner.cli import completers, console, manifests, problem_format
from runner.cli.problem_format import Severity
from runner.core.errors import Problem, UsageError
from runner.core.exit_codes import Exit
from runner.manifest import loader
from runner.manifest.loader import CheckResult


@click.command("validate")
@click.argument("paths", metavar="MANIFEST...", nargs=-1, required=True, shell_complete=completers.complete_files)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="Output format: a line per problem, a JSON array, or annotations for GitHub Actions.",
)
def command(paths: tuple[str, ...], output_format: str) -> Exit:
    """Check manifests and report all their problems. Nothing is sent.

    MANIFEST is a file, a directory of *.yaml files, or - for standard input. Each problem is one line:
    `file:line:column: field: message (hint)`. Lines and columns count from 1, jobs from 0: the first is jobs[0]. The
    exit code is 0 if all manifests are valid, and 2 otherwise.
    """
    results = [_check(path) for path in manifests.find_files(paths)]
    match output_format:
        case "json":
            console.output(problem_format.format_json(_list_problems(results)))
        case "github":
            _print(results, _print_github)
        case _:
            _print(results, _print_text)
    return Exit.USAGE if any(result.problems for result in results) else Exit.OK


def _check(path: str) -> CheckResult:
    """Check a manifest. A file that cannot be read is a problem of its own."""
    try:
        data = loader.read_source(path, console.stdin())
    except UsageError as error:
        name = loader.display_name(path)
        problem = Problem(name, 0, 0, "", error.message.removeprefix(f"{name}: "), error.hint)
        return CheckResult(None, (problem,), ())
    return loader.check(data, path)


def _list_problems(results: Iterable[CheckResult]) -> Iterable[tuple[Problem, Severity]]:
    for result in results:
        yield from ((warning, "warning") for warning in result.warnings)
        yield from ((problem, "error") for problem in result.problems)


def _print(results: Iterable[CheckResult], print_problem: Callable[[Problem, Severity], None]) -> None:
    for result in results:
        for problem, severity in _list_problems([result]):
            print_problem(problem, severity)
        if result.manifest is not None:
            name = loader.display_name(result.manifest.path)
            console.output(problem_format.format_valid(name, result.manifest))


def _print_text(problem: Problem, severity: Severity) -> None:
    write = console.warn if severity == "warning" else console.output
    write(problem_format.format_line(problem))


def _print_github(problem: Problem, severity: Severity) -> None:
    console.output(problem_format.format_github(problem, severity))
