"""README is true: its commands are run, its tables name what there is."""

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


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIXXEL_") and name != "CI"}
    return kept | {"COLUMNS": "100"} | more


def run(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(CHECKOUT / "jobs.example.yaml", tmp_path)
    return tmp_path


def test_the_first_command_ends_with_the_main_job_and_prints_created_jobs(folder: Path) -> None:
    *setup, last = (shlex.split(part) for part in block("main job").split("&&"))
    assert setup == [["python3", "-m", "venv", ".venv"], [".venv/bin/pip", "install", "--quiet", "."]]
    assert last == [".venv/bin/pixxel-runner", "run", "jobs.example.yaml", "--sandbox"]
    done = run(*last[1:], cwd=folder)
    assert done.stdout.count("  created  ") == 5
    assert check_results(folder / "jobs.example.sandbox.results.json")["summary"]["created"] == 5


def test_the_second_command_is_what_ci_runs() -> None:
    assert block("test command").splitlines() == [
        "python3 -m venv .venv && .venv/bin/pip install --quiet tox && .venv/bin/tox"
    ]


def test_what_to_type_to_use_it(tmp_path: Path) -> None:
    told = {words[0]: run(*words, cwd=tmp_path).stdout for words in commands("use it")}
    assert list(told) == ["init", "validate", "plan", "run", "status", "show"]
    assert ": 2 to submit, " in told["plan"]
    assert ": 2 created, " in told["run"]
    assert "\n2 jobs: 2 completed · cost " in told["status"]
    assert told["show"].count("  completed  ") == 2
    check_results(tmp_path / "jobs.sandbox.results.json")


def test_the_real_thing_is_what_was_rehearsed(tmp_path: Path) -> None:
    """The same commands against a server, which is a sandbox here: each ends well."""
    run("init", cwd=tmp_path)
    with sandbox(tmp_path, ["sandbox", "--port", "8900"]) as reach:
        for words in commands("the real thing"):
            run(*words, cwd=tmp_path, **reach)


def test_the_six_lines_are_a_valid_manifest_and_run(tmp_path: Path) -> None:
    assert block("six lines").count("\n") == 6
    (tmp_path / "short.yaml").write_text(block("six lines"), encoding="utf-8")
    assert run("run", "short.yaml", "--sandbox", cwd=tmp_path).stdout.count("  created  ") == 1


def test_the_manifest_reference_has_every_field_of_the_schema() -> None:
    schema = json.loads((CHECKOUT / "schemas" / "manifest.schema.json").read_bytes())
    properties = schema["properties"]
    job, submit = properties["jobs"]["items"]["properties"], properties["submit"]["properties"]
    fields = {*properties, *(f"submit.{name}" for name in submit), *(f"jobs[].{name}" for name in job)}
    table = MANIFEST.text.partition("<!-- fields -->")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == fields - {"submit"}


def test_the_exit_codes_are_all_there() -> None:
    table = README.text.partition("| exit code | meaning |")[2].partition("\n\n")[0]
    told = {int(code) for cell in re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE) for code in cell.split(",")}
    assert told == {int(code) for code in Exit}


@contextmanager
def sandbox(folder: Path, words: list[str]) -> Iterator[dict[str, str]]:
    """README's faulty sandbox, on any free port; what it prints to paste, as an environment."""
    arguments = ["0" if word == "8900" else word for word in words]
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            exports = [process.stdout.readline().removeprefix("export ").strip() for _ in range(2)]
            yield dict(line.split("=", 1) for line in exports)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def test_when_it_goes_wrong_can_be_followed(folder: Path) -> None:
    [serve] = TROUBLESHOOTING.commands("a faulty sandbox")
    [submit] = TROUBLESHOOTING.commands("a run with faults")
    [again] = TROUBLESHOOTING.commands("finish it")
    with sandbox(folder, serve) as pasted:
        told = run(*submit, cwd=folder, **pasted)
        assert "was in doubt, now created" in told.stderr
        assert "5 created" in told.stdout
        assert "nothing to submit" in run(*again, cwd=folder, **pasted).stderr
        for words in (["runs"], ["show"], ["resolve"], ["ledger", "check"]):
            run(*words, cwd=folder, **pasted)
    record = check_results(folder / "jobs.example.results.json")
    assert any(created["recovered"] for created in record["created"])
