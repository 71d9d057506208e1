"""The standard streams: what goes where, streams that are lost, and colors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from support.pseudo_terminal import Terminal, close
from support.systems import needs_full_device

from runner.cli import console
from runner.cli.main import main
from runner.cli.progress import Progress
from runner.core.errors import RefusedError
from runner.core.models import Created, Job, Submission


def test_data_goes_to_stdout_and_messages_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.output("data ×")
    console.info("message …")
    console.warn("careful")
    console.error(RefusedError("no", "do this"))
    console.error(RefusedError("no"))
    out, err = capsys.readouterr()
    assert out == "data ×\n"
    assert err == "message …\nwarning: careful\nerror: no\n  do this\nerror: no\n"


def broken_pipe() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full_disk() -> io.TextIOWrapper:
    return Path("/dev/full").open("w", encoding="utf-8")


def test_a_closed_stdout_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_pipe() as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        for _ in range(3):
            console.output("data")
            console.flush_stdout()
        stdout.write("more")
        console.flush_stdout()


@pytest.mark.parametrize("stream", [broken_pipe, pytest.param(full_disk, marks=needs_full_device), None])
def test_a_lost_stderr_does_not_stop_a_run(
    monkeypatch: pytest.MonkeyPatch, stream: Callable[[], io.TextIOWrapper] | None
) -> None:
    """An exception in the middle of a run would end it with requests in flight, and without a record."""
    stderr = stream() if stream else None
    monkeypatch.setattr(sys, "stderr", stderr)
    try:
        assert not console.is_terminal(sys.stderr)
        progress = Progress(quiet=False, verbose=True, bar=False)
        progress.note("submitting")
        with progress.showing(2):
            progress.decided(Submission(Job("a", "w", "p"), 1), Created("job-1", b"{}", 1, datetime.now(UTC)))
            progress.stopping("interrupted")
        console.warn("careful")
        console.error(RefusedError("no", "do this"))
    finally:
        if stderr is not None:
            close(stderr)


def test_a_missing_stdout_is_not_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    console.output("data")
    console.flush_stdout()
    assert console.is_colored(sys.stdout) is False
    assert console.width(sys.stdout) is None


def test_characters_outside_the_encoding_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    console.configure_streams()
    console.output("cut… \ud800")
    console.flush_stdout()
    assert raw.getvalue().startswith(b"cut")


# Colors


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 80 columns, with colors."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.close()


@pytest.mark.parametrize(("no_color", "colored"), [(None, True), ("", True), ("1", False)])
def test_errors_on_a_terminal_are_colored_unless_no_color_is_set(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_color: str | None, colored: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    terminal.replace_stream("stderr")
    assert main(["show"]) == 4
    label = "\x1b[31merror:\x1b[0m" if colored else "error:"
    assert terminal.read().startswith(f"{label} there is no ledger at .pixxel-runner/ledger.db\r\n")


@pytest.mark.parametrize(
    ("choice", "no_color", "expected"),
    [
        ("auto", None, None),
        ("auto", "", None),
        ("auto", "1", False),
        ("always", "1", True),
        ("never", None, False),
    ],
)
def test_the_color_option(
    monkeypatch: pytest.MonkeyPatch, choice: str, no_color: str | None, expected: bool | None
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert console.color_mode(choice) is expected
    with click.Context(click.Command("x"), color=None) as context:
        context.color = expected
        assert console.is_colored(sys.stdout) is bool(expected)  # the stdout of the tests is not a terminal


def test_a_terminal_on_stdout_has_a_width_and_colors(terminal: Terminal) -> None:
    assert (console.width(sys.stdout), console.is_colored(sys.stdout)) == (None, False)
    terminal.replace_stream("stdout")
    assert (console.width(sys.stdout), console.is_colored(sys.stdout)) == (80, True)
