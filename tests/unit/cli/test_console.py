"""What is said on stdout and stderr: every end in words and a code, and a bar that messages do not garble."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from support.shell import environment_without_coverage
from support.systems import needs_full_device

from runner.cli import console
from runner.cli.main import main
from runner.cli.progress import Progress
from runner.core.errors import RefusedError, RunnerError, UsageError
from runner.core.exit_codes import Exit
from runner.core.models import Created, ErrorInfo, InDoubt, Job, NotCreated, Outcome, Skipped, Submission
from runner.ledger.rows import SubmissionRow
from runner.runs.matching import Finding

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
HOSTILE = "\x1b[31mred\r::error::x\u202e"  # what a terminal or a CI log would act on


# How commands end.


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Put a function in the place of the command `run`."""

    def put(does: Callable[[], Any]) -> None:
        file = SimpleNamespace(command=click.command("run")(does))
        monkeypatch.setitem(sys.modules, "runner.cli.commands.run", file)

    return put


class OtherError(RunnerError):
    exit_code = Exit.LOCKED


@pytest.mark.parametrize(
    ("end", "code", "said"),
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
def test_every_end_is_words_and_a_code(
    command: Callable[[Callable[[], Any]], None],
    capsys: pytest.CaptureFixture[str],
    end: BaseException,
    code: int,
    said: str,
) -> None:
    def ends() -> None:
        raise end

    command(ends)
    assert main(["run"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert "was done" not in err


@pytest.mark.parametrize(("returned", "code"), [(Exit.OK, 0), (None, 0), (Exit.IN_DOUBT, 3), (Exit.SIGTERM, 143)])
def test_what_a_command_returns_is_the_code(
    command: Callable[[Callable[[], Any]], None], returned: Exit | None, code: int
) -> None:
    command(lambda: returned)
    assert main(["run"]) == code


def test_a_traceback_is_for_those_who_ask(
    command: Callable[[Callable[[], Any]], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(lambda: 1 / 0)
    monkeypatch.setenv("PIXXEL_RUNNER_DEBUG", "1")
    assert main(["run"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_words_of_a_bug_cannot_steer_the_terminal(
    command: Callable[[Callable[[], Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks() -> None:
        raise ValueError(HOSTILE)

    command(breaks)
    assert main(["run"]) == 70
    err = capsys.readouterr().err
    assert all(line.isprintable() for line in err.splitlines())
    assert len(err.splitlines()) == 2


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) in (0, 2)  # as click has it: 2 since 8.2
    out, err = capsys.readouterr()
    assert "Commands:" in out + err


def test_a_folder_that_was_deleted_is_said_and_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["show"]) == 4
    err = capsys.readouterr().err
    assert err.startswith("error: the current directory cannot be used: No such file or directory\n")
    assert "done" not in err


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
def test_an_empty_value_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    """It would mean the current folder, no pin, or all: whoever wrote `"$NAME"` meant something else."""
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
def test_an_empty_variable_that_names_a_place_is_refused(
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


# Where words go.


def test_data_goes_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.output("data ×")
    console.info("talk …")
    console.warn("careful")
    console.error(RefusedError("no", "do this"))
    console.error(RefusedError("no"))
    out, err = capsys.readouterr()
    assert out == "data ×\n"
    assert err == "talk …\nwarning: careful\nerror: no\n  do this\nerror: no\n"


def broken_pipe() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full_disk() -> io.TextIOWrapper:
    return Path("/dev/full").open("w", encoding="utf-8")


def test_a_stdout_that_went_away_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_pipe() as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        for _ in range(3):
            console.output("data")
            console.flush_stdout()
        stdout.write("more")
        console.flush_stdout()


@pytest.mark.parametrize("stream", [broken_pipe, pytest.param(full_disk, marks=needs_full_device), None])
def test_a_stderr_that_went_away_stops_no_run(
    monkeypatch: pytest.MonkeyPatch, stream: Callable[[], io.TextIOWrapper] | None
) -> None:
    """Talk is said in the middle of a run, where an exception would end it with jobs in flight and no record."""
    stderr = stream() if stream else None
    monkeypatch.setattr(sys, "stderr", stderr)
    try:
        assert not console.is_terminal(sys.stderr)
        progress = Progress(quiet=False, verbose=True, bar=False)
        progress.note("submitting")
        with progress.showing(2):
            progress.decided(A, CREATED)
            progress.stopping("interrupted")
        console.warn("careful")
        console.error(RefusedError("no", "do this"))
    finally:
        if stderr is not None:
            _close(stderr)


def _close(stream: io.TextIOWrapper) -> None:
    """Close a stream that cannot write out what it holds."""
    try:
        stream.close()
    except OSError as error:
        assert error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO)  # noqa: PT017 - how it went away


def test_no_stdout_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    console.output("data")
    console.flush_stdout()
    assert console.is_colored(sys.stdout) is False
    assert console.width(sys.stdout) is None


def test_a_character_that_the_encoding_lacks_loses_no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    console.configure_streams()
    console.output("cut… \ud800")
    console.flush_stdout()
    assert raw.getvalue().startswith(b"cut")


# Colours.


class Terminal:
    """A pseudo-terminal, and what was written to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._ours, theirs = os.openpty()
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")

    def becomes(self, name: str) -> None:
        """Take the place of a standard stream; within the test, as pytest puts its own there after the fixtures."""
        self._monkeypatch.setattr(sys, name, self.stream)

    def raw(self) -> str:
        """All that came, once the other side is closed."""
        self.stream.close()
        came = bytearray()
        try:
            while data := os.read(self._ours, 65_536):
                came += data
        except OSError as error:  # how Linux says that the other side is closed
            assert error.errno == errno.EIO  # noqa: PT017 - an end of file, not a failure
        return came.decode()

    def hang_up(self) -> None:
        """Go away, as the terminal of a lost SSH session does: each write is an EIO from now on."""
        os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        _close(self.stream)
        if self._ours >= 0:
            os.close(self._ours)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 80 columns that may be coloured."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.close()


def screens(raw: str) -> Iterator[list[str]]:
    """What the terminal shows at each NUL in the output, and at its end: its lines."""
    lines, column = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", raw + "\0", re.DOTALL):
        if token == "\0":
            yield [line.rstrip() for line in lines]
        elif token == "\r":
            column = 0
        elif token == "\n":
            lines.append("")
        elif token == "\x1b[2K":
            lines[-1] = ""
        elif token == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif token.startswith("\x1b["):
            assert token in ("\x1b[?25l", "\x1b[?25h", "\x1b[0m"), "an order that this terminal does not know"
        else:
            lines[-1] = lines[-1].ljust(column)[:column] + token + lines[-1][column + 1 :]
            column += 1


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("", True), ("1", False)])
def test_errors_on_a_terminal_are_coloured_unless_no_color_is_set(
    command: Callable[[Callable[[], Any]], None],
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    no_color: str | None,
    coloured: bool,
) -> None:
    def fails() -> None:
        raise RefusedError("no")

    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    command(fails)
    terminal.becomes("stderr")
    assert main(["run"]) == 4
    assert terminal.raw() == ("\x1b[31merror:\x1b[0m no\r\n" if coloured else "error: no\r\n")


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
def test_the_choice_of_colour(
    monkeypatch: pytest.MonkeyPatch, choice: str, no_color: str | None, expected: bool | None
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert console.color_mode(choice) is expected
    with click.Context(click.Command("x"), color=None) as context:
        context.color = expected
        assert console.is_colored(sys.stdout) is bool(expected)  # the tests' stdout is no terminal


def test_stdout_on_a_terminal_has_a_width_and_colours(terminal: Terminal) -> None:
    assert (console.width(sys.stdout), console.is_colored(sys.stdout)) == (None, False)
    terminal.becomes("stdout")
    assert (console.width(sys.stdout), console.is_colored(sys.stdout)) == (80, True)


# Progress.


A, B, C, D = (Submission(Job(name, "w", "p"), 1) for name in ("field-a", "field-b", "coast", "w/p"))
CREATED = Created("job-1", b"{}", 1, AT)
FAILED = NotCreated(ErrorInfo("rejected", "HTTP 404 Not Found: no workflow", 404), 1, AT)
IN_DOUBT = InDoubt(ErrorInfo("timeout", "no answer in time; the job may have been created"), 1, AT)
SKIPPED = Skipped("stopped", "not found, 10 times in a row")
UNREACHABLE = ErrorInfo("unreachable", "no connection: Connection refused")
DECIDED: list[tuple[Submission, Outcome]] = [(A, CREATED), (B, FAILED), (C, IN_DOUBT), (D, SKIPPED)]

QUIET_LINES = [
    "submitting 4 of 4 jobs",
    "pausing for 2.0 s: no connection: Connection refused",
    "stopping: not found, 10 times in a row; waiting for requests in flight",
    "looking up 2 jobs in doubt, for up to 30 s",
    "old: was in doubt, now created: job-1",
]
VERBOSE_LINES = [
    "submitting 4 of 4 jobs",
    "field-a: not sent, retrying in 0.5 s: no connection: Connection refused",
    "pausing for 2.0 s: no connection: Connection refused",
    "field-a: created: job-1",
    "field-b: not created: HTTP 404 Not Found: no workflow",
    "stopping: not found, 10 times in a row; waiting for requests in flight",
    "coast: in doubt: no answer in time; the job may have been created",
    "w/p: skipped: stopped: not found, 10 times in a row",
    "looking up 2 jobs in doubt, for up to 30 s",
    "old: was in doubt, now created: job-1",
    "old: still in doubt: two candidates",
]


def doubtful(name: str) -> SubmissionRow:
    return SubmissionRow(
        1, "https://api.example", "nightly", "key", "run-0", name, "w", "p", ordinal=1, again=False, labels={},
        state="in_doubt", attempts=1, claimed_at=AT, ended_at=AT, timeout=30.0, estimate=None, job_id=None, cost=None,
        val_errors=0, recovered=False, assigned=True, error=IN_DOUBT.error, candidates=(),
    )  # fmt: skip


def go(progress: Progress) -> None:
    """A run in which all happens that can be told of."""
    with progress.showing(4):
        progress.note("submitting 4 of 4 jobs")
        progress.retrying(A, UNREACHABLE, 0.5)
        progress.pausing(UNREACHABLE, 2.0)
        for number, (submission, outcome) in enumerate(DECIDED):
            progress.decided(submission, outcome)
            if number == 1:
                progress.stopping("not found, 10 times in a row")
        progress.looking_up(2, 30.0)
        old = doubtful("old")
        progress.looked_up([Finding(old, CREATED, "found"), Finding(old, IN_DOUBT, "two candidates")])


@pytest.mark.parametrize(
    ("quiet", "verbose", "lines"),
    [(False, False, QUIET_LINES), (False, True, VERBOSE_LINES), (True, False, []), (True, True, [])],
)
def test_off_a_terminal_progress_is_plain_lines(
    capsys: pytest.CaptureFixture[str], quiet: bool, verbose: bool, lines: list[str]
) -> None:
    go(Progress(quiet=quiet, verbose=verbose, bar=False))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("color", [None, False])
def test_on_a_terminal_a_bar_counts_and_messages_do_not_garble_it(
    terminal: Terminal, verbose: bool, color: bool | None
) -> None:
    terminal.becomes("stderr")
    with click.Context(click.Command("run")) as context:
        context.color = color
        go(Progress(quiet=False, verbose=verbose, bar=True))
    *lines, bar, rest = next(screens(terminal.raw()))
    assert lines == (VERBOSE_LINES if verbose else QUIET_LINES)
    assert re.fullmatch(r"submitting  \[#+\]  4/4 .*[0-9.]+/s, 1 in doubt, 1 not created, 1 skipped", bar)
    assert rest == ""


def test_the_bar_is_there_from_the_start_and_after_each_message(terminal: Terminal) -> None:
    terminal.becomes("stderr")
    progress = Progress(quiet=False, verbose=True, bar=True)

    def snapshot() -> None:
        terminal.stream.write("\0")
        terminal.stream.flush()

    with progress.showing(3):
        progress.note("submitting 3 of 3 jobs")
        snapshot()
        progress.decided(A, CREATED)
        snapshot()
        progress.pausing(UNREACHABLE, 2.0)
        snapshot()
    shown = [screen[-1] for screen in screens(terminal.raw())]
    assert [re.findall(r"submitting .* ([0-9]/3)", line) for line in shown[:3]] == [["0/3"], ["1/3"], ["1/3"]]


@pytest.mark.parametrize(("total", "quiet"), [(0, False), (3, True)])
def test_with_nothing_to_count_or_quiet_there_is_no_bar(terminal: Terminal, total: int, quiet: bool) -> None:
    terminal.becomes("stderr")
    progress = Progress(quiet=quiet, verbose=False, bar=True)
    with progress.showing(total):
        progress.note("submitting")
    assert terminal.raw() == ("" if quiet else "submitting\r\n")


def test_a_terminal_that_went_away_stops_no_run(terminal: Terminal) -> None:
    terminal.becomes("stderr")
    progress = Progress(quiet=False, verbose=True, bar=True)
    with progress.showing(2):
        terminal.hang_up()
        progress.decided(A, CREATED)
        progress.pausing(UNREACHABLE, 2.0)
        progress.decided(B, FAILED)


def test_the_cursor_is_not_hidden_and_stands_below_the_bar_at_the_end(terminal: Terminal) -> None:
    terminal.becomes("stderr")
    with pytest.raises(ZeroDivisionError), Progress(quiet=False, verbose=False, bar=True).showing(3):
        raise ZeroDivisionError
    raw = terminal.raw()
    assert "\x1b[?25" not in raw
    assert raw.endswith("\r\n")


def test_what_a_server_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error = ErrorInfo("rejected", HOSTILE)
    created, in_doubt = Created(HOSTILE, b"", 1, AT), InDoubt(error, 1, AT)
    hostile = Submission(Job(HOSTILE, "w", "p"), 1)
    progress = Progress(quiet=False, verbose=True, bar=False)
    progress.note(HOSTILE)
    progress.retrying(hostile, error, 1.0)
    progress.pausing(error, 1.0)
    progress.stopping(HOSTILE)
    for outcome in (created, NotCreated(error, 1, AT), in_doubt):
        progress.decided(hostile, outcome)
    progress.looked_up([Finding(doubtful(HOSTILE), outcome, HOSTILE) for outcome in (created, in_doubt)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9
    assert all(line.isprintable() and not line.startswith("::") for line in lines)


def test_help_and_version_import_nothing_slow() -> None:
    """A command line is to answer at once: none of these is needed to print a text."""
    script = (
        "import sys\nfrom runner.cli.main import main\nmain(['--help'])\n"
        "print(sorted({'yaml', 'jsonschema', 'urllib3', 'tabulate', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment_without_coverage(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
