"""The entry point: every error becomes a message and an exit code."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from support.shell import environment_without_coverage

from runner.cli.main import main
from runner.core.errors import RefusedError, RunnerError, UsageError
from runner.core.exit_codes import Exit

HOSTILE = "\x1b[31mred\r::error::x\u202e"  # what a terminal or a CI log would act on


ReplaceRun = Callable[[Callable[[], Any]], None]


@pytest.fixture
def replace_run(monkeypatch: pytest.MonkeyPatch) -> ReplaceRun:
    """Replaces the command `run` by a function."""

    def replace(function: Callable[[], Any]) -> None:
        module = SimpleNamespace(command=click.command("run")(function))
        monkeypatch.setitem(sys.modules, "runner.cli.commands.run", module)

    return replace


class OtherError(RunnerError):
    exit_code = Exit.LOCKED


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("wrong", "do this"), 2, "error: wrong\n  do this\n"),
        (RefusedError("no"), 4, "error: no\n"),
        (OtherError("held", "wait"), 5, "error: held\n  wait\n"),
        (click.UsageError("odd"), 2, "Error: odd\n"),
        (click.BadParameter("odd"), 2, "Error: Invalid value: odd\n"),
        (click.FileError("f", "gone"), 2, "Error: Could not open file 'f': gone\n"),
        (click.Abort(), 130, "interrupted\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (ZeroDivisionError("by zero"), 70, "bug: ZeroDivisionError: by zero\n"),
        (BaseExceptionGroup("many", [ValueError("x")]), 70, "bug: ExceptionGroup: many"),
        (RecursionError("deep"), 70, "bug: RecursionError: deep\n"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 4, "error: x: Permission denied\n"),
        (OSError(errno.EIO, "Input/output error"), 4, "error: operating system error: Input/output error\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 4, "error: operating system error: Broken pipe\n"),
    ],
)
def test_every_error_becomes_a_message_and_an_exit_code(
    replace_run: ReplaceRun,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail() -> None:
        raise error

    replace_run(fail)
    assert main(["run"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert "command completed" not in err


@pytest.mark.parametrize(("returned", "code"), [(Exit.OK, 0), (None, 0), (Exit.IN_DOUBT, 3), (Exit.SIGTERM, 143)])
def test_a_command_returns_its_exit_code(replace_run: ReplaceRun, returned: Exit | None, code: int) -> None:
    replace_run(lambda: returned)
    assert main(["run"]) == code


def test_a_traceback_is_printed_only_for_debugging(
    replace_run: ReplaceRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_run(lambda: 1 / 0)
    monkeypatch.setenv("PIXXEL_RUNNER_DEBUG", "1")
    assert main(["run"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_message_of_a_bug_is_escaped(replace_run: ReplaceRun, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(HOSTILE)

    replace_run(fail)
    assert main(["run"]) == 70
    err = capsys.readouterr().err
    assert all(line.isprintable() for line in err.splitlines())
    assert len(err.splitlines()) == 2


def test_help_is_shown_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) in (0, 2)  # 2 since click 8.2
    out, err = capsys.readouterr()
    assert "Commands:" in out + err


def test_a_deleted_working_directory_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["show"]) == 4
    err = capsys.readouterr().err
    assert err.startswith("error: the current directory cannot be used: No such file or directory\n")
    assert "command completed" not in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("EMPTY", "the first argument is empty"),
        *((f"{line} EMPTY", f"the argument after {line.split()[-1]} is empty") for line in (
            "run", "plan", "validate", "status", "show", "runs", "resolve", "init", "ledger init",
            "run --sandbox", "run a.yaml", "run -q",
            "run a.yaml --ca-bundle", "run a.yaml --results", "run a.yaml --api-key-file",
            "run a.yaml --ledger", "run a.yaml --base-url", "run a.yaml --only", "show --manifest", "show --results",
            "resolve --run", "sandbox --state", "ledger check --ledger", "ledger export --ledger",
        )),
        ("run a.yaml --ca-bundle=", "the value of --ca-bundle is empty"),
        ("run a.yaml --report html=", "expected FORMAT=PATH"),
    ],
)  # fmt: skip
def test_an_empty_argument_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    """It would mean the current directory or the default, and is mostly a shell variable that was never set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("version: 1\njobs: [{workflow_id: w, project_id: p}]\n", encoding="ascii")
    assert main(["" if word == "EMPTY" else word for word in line.split()]) == 2
    out, err = capsys.readouterr()
    assert message in out + err
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize(
    "variable",
    [
        "PIXXEL_BASE_URL",
        "PIXXEL_RUNNER_LEDGER",
        "PIXXEL_RUNNER_CA_BUNDLE",
        "PIXXEL_RUNNER_API_KEY_FILE",
        "PIXXEL_RUNNER_RESULTS",
    ],
)
def test_an_empty_variable_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIXXEL_API_KEY", "a-key-of-no-api")
    monkeypatch.setenv("PIXXEL_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, "")
    (tmp_path / "a.yaml").write_text("version: 1\njobs: [{workflow_id: w, project_id: p}]\n", encoding="ascii")
    assert main(["run", "a.yaml"]) == 2
    assert f"{variable} is set to an empty string" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


def test_help_imports_nothing_slow() -> None:
    """`--help` must be instant, and needs none of these modules."""
    script = (
        "import sys\nfrom runner.cli.main import main\nmain(['--help'])\n"
        "print(sorted({'yaml', 'jsonschema', 'urllib3', 'tabulate', 'sqlite3'} & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment_without_coverage(), capture_output=True, text=True, check=True
    )
    assert process.stdout.splitlines()[-1] == "[]"
