"""docs/reports.md is true: its run is made in the sandbox, and each format is what the page shows."""

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
MORE = "…"  # a line that stands for the rest

# What differs from one run to the next.
_DIFFERS = (
    (r"[0-9a-f]{64}", "SHA256"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\d{8}T\d{6}Z-[0-9a-f]{6}", "RUN"),
    (r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?Z?)?", "TIME"),
    (r"\b\d\d:\d\d:\d\d\b", "CLOCK"),
    (r"\b\d+\.\d{3}\b", "SECONDS"),
    (r"\b\d+\.\d+\.\d+\b", "VERSION"),
)


@dataclass(frozen=True)
class Made:
    """What the page's commands made: the outputs by format."""

    outputs: dict[str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    shell = Shell(tmp_path_factory.mktemp("reports"))
    shell.write("nightly.yaml", PAGE.block("manifest"))
    [first], [second] = PAGE.commands("run"), PAGE.commands("status")
    ran = shell(*first)
    assert ran.code == 0, ran.err
    told = shell(*second)
    assert told.code == 1, told.err  # the clouds hide the fields
    files = dict(one.split("=", 1) for one in first if re.fullmatch(r"[a-z]+=\S+", one))
    outputs = {name: (shell.directory / path).read_text("utf-8") for name, path in files.items()}
    return Made(outputs | {"table": ran.out, "github": told.out})


def alike(text: str) -> str:
    for pattern, word in _DIFFERS:
        text = re.sub(pattern, word, text)
    return text


@pytest.mark.parametrize("name", [name for name in reports.RUN_FORMATS if name != "html"])
def test_the_page_shows_what_is_made(made: Made, name: str) -> None:
    shown = alike(PAGE.block(f"example: {name}")).splitlines()
    found = alike(made.outputs[name]).splitlines()
    if shown[-1].strip() == MORE:
        assert len(shown) < len(found)
        shown, found = shown[:-1], found[: len(shown) - 1]
    assert shown == found


def test_every_format_is_made(made: Made) -> None:
    assert set(made.outputs) == set(reports.RUN_FORMATS)
    assert made.outputs["html"].lower().startswith("<!doctype html>")


def test_the_first_table_names_every_format_in_order() -> None:
    table = PAGE.text.partition("| format | for |\n")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE)) == tuple(reports.RUN_FORMATS)


def test_the_metrics_named_are_those_that_there_are() -> None:
    source = Path(prometheus.__file__).read_text("utf-8")
    there = set(re.findall(r'"(pixxel_runner_\w+)"', source))
    assert set(re.findall(r"`(pixxel_runner_\w+)`", PAGE.text)) == there


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
def test_each_command_takes_the_formats_of_its_reports(command: click.Command, formats: Collection[str]) -> None:
    options = {name: one for one in command.params for name in one.opts}
    assert "--report" in options
    kind = options["--format"].type
    assert isinstance(kind, click.Choice)
    assert tuple(kind.choices) == tuple(formats)


def test_the_commands_are_one_line_each() -> None:
    for marker in ("run", "status"):
        assert len(PAGE.commands(marker)) == len(PAGE.block(marker).splitlines()) == 1
        assert shlex.split(PAGE.block(marker))[0] == "pixxel-runner"
