"""README is accurate: its commands work, and its tables are complete."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.pages import CHECKOUT, Page
from support.schemas import check_results

from runner.core.exit_codes import Exit

README = Page("README.md")
MANIFEST = Page("docs/manifest.md")
TROUBLESHOOTING = Page("docs/troubleshooting.md")
block, commands = README.block, README.commands
COMMAND = [sys.executable, "-P", "-m", "runner"]


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIXXEL_") and name != "CI"}
    return inherited | {"COLUMNS": "100"} | variables


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copy(CHECKOUT / "jobs.example.yaml", tmp_path)
    return tmp_path


def test_first_command_runs_the_example_and_prints_created_jobs(directory: Path) -> None:
    *setup, last = (shlex.split(part) for part in block("main job").split("&&"))
    assert setup == [["python3", "-m", "venv", ".venv"], [".venv/bin/pip", "install", "--quiet", "."]]
    assert last == [".venv/bin/pixxel-runner", "run", "jobs.example.yaml", "--sandbox"]
    done = run(*last[1:], cwd=directory)
    assert done.stdout.count("  created  ") == 5
    assert check_results(directory / "jobs.example.sandbox.results.json")["summary"]["created"] == 5


def test_second_command_is_what_ci_runs() -> None:
    assert block("test command").splitlines() == [
        "python3 -m venv .venv && .venv/bin/pip install --quiet tox && .venv/bin/tox"
    ]


def test_usage_commands(tmp_path: Path) -> None:
    outputs = {command[0]: run(*command, cwd=tmp_path).stdout for command in commands("use it")}
    assert list(outputs) == ["init", "validate", "plan", "run", "status", "show"]
    assert ": 2 to submit, " in outputs["plan"]
    assert ": 2 created, " in outputs["run"]
    assert "\n2 jobs: 2 completed · cost " in outputs["status"]
    assert outputs["show"].count("  completed  ") == 2
    check_results(tmp_path / "jobs.sandbox.results.json")


def test_commands_for_the_real_api(tmp_path: Path) -> None:
    """The same commands succeed against a server, here a sandbox."""
    run("init", cwd=tmp_path)
    with sandbox(tmp_path, ["sandbox", "--port", "8900"]) as variables:
        for command in commands("the real thing"):
            run(*command, cwd=tmp_path, **variables)


def test_six_line_manifest_is_valid_and_runs(tmp_path: Path) -> None:
    assert block("six lines").count("\n") == 6
    (tmp_path / "short.yaml").write_text(block("six lines"), encoding="utf-8")
    assert run("run", "short.yaml", "--sandbox", cwd=tmp_path).stdout.count("  created  ") == 1


def test_manifest_reference_has_every_field_of_the_schema() -> None:
    schema = json.loads((CHECKOUT / "schemas" / "manifest.schema.json").read_bytes())
    properties = schema["properties"]
    job, submit = properties["jobs"]["items"]["properties"], properties["submit"]["properties"]
    fields = {*properties, *(f"submit.{name}" for name in submit), *(f"jobs[].{name}" for name in job)}
    table = MANIFEST.text.partition("<!-- fields -->")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == fields - {"submit"}


def test_exit_code_table_is_complete() -> None:
    table = README.text.partition("| exit code | meaning |")[2].partition("\n\n")[0]
    documented = {
        int(code) for cell in re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE) for code in cell.split(",")
    }
    assert documented == {int(code) for code in Exit}


@contextmanager
def sandbox(directory: Path, words: list[str]) -> Iterator[dict[str, str]]:
    """Start the page's sandbox on a free port, and yield the variables that it prints."""
    arguments = ["0" if word == "8900" else word for word in words]
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            exports = [process.stdout.readline().removeprefix("export ").strip() for _ in range(2)]
            yield dict(line.split("=", 1) for line in exports)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def test_troubleshooting_example_works(directory: Path) -> None:
    [serve] = TROUBLESHOOTING.commands("a faulty sandbox")
    [submit] = TROUBLESHOOTING.commands("a run with faults")
    [finish] = TROUBLESHOOTING.commands("finish it")
    with sandbox(directory, serve) as variables:
        first = run(*submit, cwd=directory, **variables)
        assert "was in doubt, now created" in first.stderr
        assert "5 created" in first.stdout
        assert "nothing to submit" in run(*finish, cwd=directory, **variables).stderr
        for command in (["runs"], ["show"], ["resolve"], ["ledger", "check"]):
            run(*command, cwd=directory, **variables)
    results = check_results(directory / "jobs.example.results.json")
    assert any(created["recovered"] for created in results["created"])
