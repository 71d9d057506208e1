"""docs/reports.md: its run works in the sandbox, and each report matches its example."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from support.pages import Page
from support.shell import Shell

from runner import reports
from runner.cli.commands import plan, run, show, status
from runner.reports.formats import prometheus

PAGE = Page("docs/reports.md")
ELLIPSIS = "…"  # a line that replaces the rest

# The parts that differ between runs.
_VARIABLE_PARTS = (
    (r"[0-9a-f]{64}", "SHA256"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\d{8}T\d{6}Z-[0-9a-f]{6}", "RUN"),
    (r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?Z?)?", "TIME"),
    (r"\b\d\d:\d\d:\d\d\b", "CLOCK"),
    (r"\b\d+\.\d{3}\b", "SECONDS"),
    (r"\b\d+\.\d+\.\d+\b", "VERSION"),
)


@dataclass(frozen=True)
class GeneratedReports:
    """The output of the page's commands, by format."""

    outputs: dict[str, str]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> GeneratedReports:
    shell = Shell(tmp_path_factory.mktemp("reports"))
    shell.write("nightly.yaml", PAGE.block("manifest"))
    [run_arguments], [status_arguments] = PAGE.commands("run"), PAGE.commands("status")
    run_command = shell(*run_arguments)
    assert run_command.code == 0, run_command.err
    status_command = shell(*status_arguments)
    assert status_command.code == 1, status_command.err  # the clouds hide the fields
    files = dict(argument.split("=", 1) for argument in run_arguments if re.fullmatch(r"[a-z]+=\S+", argument))
    outputs = {name: (shell.directory / path).read_text("utf-8") for name, path in files.items()}
    return GeneratedReports(outputs | {"table": run_command.out, "github": status_command.out})


def normalize(text: str) -> str:
    for pattern, placeholder in _VARIABLE_PARTS:
        text = re.sub(pattern, placeholder, text)
    return text


@pytest.mark.parametrize("name", [name for name in reports.RUN_FORMATS if name != "html"])
def test_examples_match_the_generated_reports(generated: GeneratedReports, name: str) -> None:
    documented = normalize(PAGE.block(f"example: {name}")).splitlines()
    actual = normalize(generated.outputs[name]).splitlines()
    if documented[-1].strip() == ELLIPSIS:
        assert len(documented) < len(actual)
        documented, actual = documented[:-1], actual[: len(documented) - 1]
    assert documented == actual


def test_every_format_is_generated(generated: GeneratedReports) -> None:
    assert set(generated.outputs) == set(reports.RUN_FORMATS)
    assert generated.outputs["html"].lower().startswith("<!doctype html>")


def test_first_table_lists_every_format_in_order() -> None:
    table = PAGE.text.partition("| format | for |\n")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE)) == tuple(reports.RUN_FORMATS)


def test_documented_metrics_match_the_code() -> None:
    source = Path(prometheus.__file__).read_text("utf-8")
    metrics = set(re.findall(r'"(pixxel_runner_\w+)"', source))
    assert set(re.findall(r"`(pixxel_runner_\w+)`", PAGE.text)) == metrics


@pytest.mark.parametrize(
    ("command", "formats"),
    [
        (run.command, reports.RUN_FORMATS),
        (show.command, reports.RUN_FORMATS),
        (plan.command, reports.PLAN_FORMATS),
        (status.command, reports.STATUS_FORMATS),
    ],
    ids=["run", "show", "plan", "status"],
)
def test_command_accepts_the_formats_of_its_reports(command: click.Command, formats: Collection[str]) -> None:
    options = {name: option for option in command.params for name in option.opts}
    assert "--report" in options
    choice = options["--format"].type
    assert isinstance(choice, click.Choice)
    assert tuple(choice.choices) == tuple(formats)


def test_documented_commands_are_one_line_each() -> None:
    for marker in ("run", "status"):
        assert len(PAGE.commands(marker)) == len(PAGE.block(marker).splitlines()) == 1
        assert shlex.split(PAGE.block(marker))[0] == "pixxel-runner"
