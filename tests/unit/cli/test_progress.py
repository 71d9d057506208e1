"""Progress: lines without a terminal, and a bar on one that messages do not garble."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import pytest
from support.pseudo_terminal import Terminal

from runner.cli.progress import Progress
from runner.core.models import Created, ErrorInfo, InDoubt, Job, NotCreated, Outcome, Skipped, Submission
from runner.ledger.rows import SubmissionRow
from runner.runs.matching import Finding

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
HOSTILE = "\x1b[31mred\r::error::x\u202e"  # what a terminal or a CI log would act on

A, B, C, D = (Submission(Job(name, "w", "p"), 1) for name in ("field-a", "field-b", "coast", "w/p"))
CREATED = Created("job-1", b"{}", 1, AT)
NOT_CREATED = NotCreated(ErrorInfo("rejected", "HTTP 404 Not Found: no workflow", 404), 1, AT)
IN_DOUBT = InDoubt(ErrorInfo("timeout", "no answer in time; the job may have been created"), 1, AT)
SKIPPED = Skipped("stopped", "10 jobs in a row failed as not found")
UNREACHABLE = ErrorInfo("unreachable", "no connection: Connection refused")
OUTCOMES: list[tuple[Submission, Outcome]] = [(A, CREATED), (B, NOT_CREATED), (C, IN_DOUBT), (D, SKIPPED)]

QUIET_LINES = [
    "submitting 4 of 4 jobs",
    "pausing for 2.0 s: no connection: Connection refused",
    "stopping: 10 jobs in a row failed as not found; waiting for requests in flight",
    "looking up 2 jobs in doubt, for up to 30 s",
    "old: was in doubt, now created: job-1",
]
VERBOSE_LINES = [
    "submitting 4 of 4 jobs",
    "field-a: not sent, retrying in 0.5 s: no connection: Connection refused",
    "pausing for 2.0 s: no connection: Connection refused",
    "field-a: created: job-1",
    "field-b: not created: HTTP 404 Not Found: no workflow",
    "stopping: 10 jobs in a row failed as not found; waiting for requests in flight",
    "coast: in doubt: no answer in time; the job may have been created",
    "w/p: skipped: stopped: 10 jobs in a row failed as not found",
    "looking up 2 jobs in doubt, for up to 30 s",
    "old: was in doubt, now created: job-1",
    "old: still in doubt: two candidates",
]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 80 columns, with colors."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.close()


def screens(raw: str) -> Iterator[list[str]]:
    """The lines on the terminal at each NUL in the output, and at its end."""
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
            assert token in ("\x1b[?25l", "\x1b[?25h", "\x1b[0m"), "unknown escape sequence"
        else:
            lines[-1] = lines[-1].ljust(column)[:column] + token + lines[-1][column + 1 :]
            column += 1


def make_doubt(name: str) -> SubmissionRow:
    return SubmissionRow(
        1, "https://api.example", "nightly", "key", "run-0", name, "w", "p", ordinal=1, again=False, labels={},
        state="in_doubt", attempts=1, claimed_at=AT, ended_at=AT, timeout=30.0, estimate=None, job_id=None, cost=None,
        val_errors=0, recovered=False, assigned=True, error=IN_DOUBT.error, candidates=(),
    )  # fmt: skip


def run(progress: Progress) -> None:
    """A run in which everything happens that progress reports."""
    with progress.showing(4):
        progress.note("submitting 4 of 4 jobs")
        progress.retrying(A, UNREACHABLE, 0.5)
        progress.pausing(UNREACHABLE, 2.0)
        for number, (submission, outcome) in enumerate(OUTCOMES):
            progress.decided(submission, outcome)
            if number == 1:
                progress.stopping("10 jobs in a row failed as not found")
        progress.looking_up(2, 30.0)
        old = make_doubt("old")
        progress.looked_up([Finding(old, CREATED, "found"), Finding(old, IN_DOUBT, "two candidates")])


@pytest.mark.parametrize(
    ("quiet", "verbose", "lines"),
    [(False, False, QUIET_LINES), (False, True, VERBOSE_LINES), (True, False, []), (True, True, [])],
)
def test_without_a_terminal_progress_is_plain_lines(
    capsys: pytest.CaptureFixture[str], quiet: bool, verbose: bool, lines: list[str]
) -> None:
    run(Progress(quiet=quiet, verbose=verbose, bar=False))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("color", [None, False])
def test_messages_do_not_garble_the_bar(terminal: Terminal, verbose: bool, color: bool | None) -> None:
    terminal.replace_stream("stderr")
    with click.Context(click.Command("run")) as context:
        context.color = color
        run(Progress(quiet=False, verbose=verbose, bar=True))
    *lines, bar, last = next(screens(terminal.read()))
    assert lines == (VERBOSE_LINES if verbose else QUIET_LINES)
    assert re.fullmatch(r"submitting  \[#+\]  4/4 .*[0-9.]+/s, 1 in doubt, 1 not created, 1 skipped", bar)
    assert last == ""


def test_the_bar_is_drawn_at_the_start_and_after_each_message(terminal: Terminal) -> None:
    terminal.replace_stream("stderr")
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
    shown = [screen[-1] for screen in screens(terminal.read())]
    assert [re.findall(r"submitting .* ([0-9]/3)", line) for line in shown[:3]] == [["0/3"], ["1/3"], ["1/3"]]


@pytest.mark.parametrize(("total", "quiet"), [(0, False), (3, True)])
def test_there_is_no_bar_without_jobs_or_with_quiet(terminal: Terminal, total: int, quiet: bool) -> None:
    terminal.replace_stream("stderr")
    progress = Progress(quiet=quiet, verbose=False, bar=True)
    with progress.showing(total):
        progress.note("submitting")
    assert terminal.read() == ("" if quiet else "submitting\r\n")


def test_a_lost_terminal_does_not_stop_a_run(terminal: Terminal) -> None:
    terminal.replace_stream("stderr")
    progress = Progress(quiet=False, verbose=True, bar=True)
    with progress.showing(2):
        terminal.hang_up()
        progress.decided(A, CREATED)
        progress.pausing(UNREACHABLE, 2.0)
        progress.decided(B, NOT_CREATED)


def test_the_cursor_is_visible_and_below_the_bar_at_the_end(terminal: Terminal) -> None:
    terminal.replace_stream("stderr")
    with pytest.raises(ZeroDivisionError), Progress(quiet=False, verbose=False, bar=True).showing(3):
        raise ZeroDivisionError
    raw = terminal.read()
    assert "\x1b[?25" not in raw
    assert raw.endswith("\r\n")


def test_text_from_the_server_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
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
    progress.looked_up([Finding(make_doubt(HOSTILE), outcome, HOSTILE) for outcome in (created, in_doubt)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9
    assert all(line.isprintable() and not line.startswith("::") for line in lines)
