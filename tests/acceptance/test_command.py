"""The installed command in a shell: exit codes, and streams that are closed, broken or full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.systems import needs_full_device

COMMAND = str(Path(sys.executable).with_name("pixxel-runner"))

# A command with a bug.
BUGGY_COMMAND = """
import sys
from types import SimpleNamespace
import click
from runner.cli.main import main

def fault():
    raise AssertionError("this cannot be")

sys.modules["runner.cli.commands.run"] = SimpleNamespace(command=click.command("run")(fault))
sys.exit(main(["run"]))
"""


def run(arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    streams: dict[str, Any] = {
        "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options,
    }  # fmt: skip
    return subprocess.run(arguments, text=True, check=False, timeout=30, **streams)


@pytest.mark.parametrize("program", [[COMMAND], [sys.executable, "-m", "runner"]], ids=["command", "module"])
def test_version(program: list[str]) -> None:
    done = run([*program, "--version"])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pixxel-runner {version('pixxel-runner')}\n", "")


def test_help() -> None:
    done = run([COMMAND, "--help"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: pixxel-runner [OPTIONS] COMMAND")
    assert all(f"\n  {name} " in done.stdout for name in ("run", "validate", "sandbox"))


@pytest.mark.parametrize("arguments", [["nonsense"], ["sandbox", "--port", "x"]])
def test_invalid_command_line_is_exit_2(arguments: list[str]) -> None:
    done = run([COMMAND, *arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert arguments[-1] in done.stderr


def test_bug_is_exit_70_with_a_message() -> None:
    done = run([sys.executable, "-c", BUGGY_COMMAND])
    assert (done.returncode, done.stdout) == (70, "")
    assert "bug: AssertionError: this cannot be" in done.stderr
    assert "Traceback" not in done.stderr


# Streams that cannot be written to


@pytest.fixture
def broken_pipe() -> int:
    """The write end of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_broken_pipe_on_stdout_is_not_an_error(broken_pipe: int, argument: str) -> None:
    with os.fdopen(broken_pipe, "w") as stdout:
        done = run([COMMAND, argument], stdout=stdout)
    assert (done.returncode, done.stderr) == (0, "")


def command_without(stream: int, *arguments: str) -> list[str]:
    """A shell that closes a stream, then runs the command in its place."""
    return ["/bin/sh", "-c", f'exec "$@" {stream}>&-', "sh", COMMAND, *arguments]


def test_closed_stdout_is_not_an_error() -> None:
    done = run(command_without(1, "--version"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_full_device
def test_full_stdout_is_reported_and_is_not_a_bug() -> None:
    with Path("/dev/full").open("w") as stdout:
        done = run([COMMAND, "--version"], stdout=stdout)
    assert done.returncode not in (0, 70)
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


def test_exit_code_does_not_depend_on_stderr(broken_pipe: int) -> None:
    with os.fdopen(broken_pipe, "w") as stderr:
        assert run([COMMAND, "nonsense"], stderr=stderr).returncode == 2
    assert run(command_without(2, "nonsense")).returncode == 2


@needs_full_device
def test_exit_code_does_not_depend_on_a_full_stderr() -> None:
    with Path("/dev/full").open("w") as stderr:
        assert run([COMMAND, "nonsense"], stderr=stderr).returncode == 2


# PyYAML as if built without libyaml.
WITHOUT_LIBYAML = """
import sys
import yaml
yaml.__with_libyaml__ = False
del yaml.CSafeLoader
from runner.cli.main import main
sys.exit(main(["run", *sys.argv[1:], "--sandbox"]))
"""


@pytest.mark.parametrize(("flags", "warnings"), [(["--verbose"], 1), ([], 0)])
def test_missing_libyaml_works_with_one_warning(tmp_path: Path, flags: list[str], warnings: int) -> None:
    for name in "ab":
        text = f"version: 1\njobs: [{{workflow_id: {name}, project_id: p}}]\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    done = run([sys.executable, "-c", WITHOUT_LIBYAML, "a.yaml", "b.yaml", *flags], cwd=tmp_path)
    assert (done.returncode, done.stdout.count("  created  ")) == (0, 2)
    assert done.stderr.count("parsing will be slow") == warnings
