"""Progress on terminals: narrow, resized, in tmux, and without control sequences."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import shell as shells
from support.pages import Page
from support.shell import Shell
from support.terminal import read_terminal, resize, run_on_terminal, terminal_environment
from support.wire import TIMEOUT, Request, Script, Stall, WireServer, created, reply

from runner.cli import progress, terminal
from runner.core.text import display_width

COUNT = 6
REJECTED = json.dumps({"error": {"code": "not_found", "message": "no such workflow"}}).encode()

# Redraws its lines each time a line arrives on a pipe.
REDRAW_PROGRAM = """
import sys
from runner.cli import terminal
drawing = terminal.LiveLines(inline=sys.argv[2] == "inline")
with open(sys.argv[1]) as pipe:
    for number, _ in enumerate(pipe):
        columns = terminal.size().columns - 1
        drawing.draw([f"{word}{number} ".ljust(columns, "=")[:columns] for word in sys.argv[3:]])
drawing.finish()
"""


class Api:
    """Creates each job once its gate is open, but rejects one."""

    def __init__(self, *, is_open: bool) -> None:
        self.gates = [threading.Event() for _ in range(COUNT)]
        for gate in self.gates if is_open else []:
            gate.set()

    def __call__(self, request: Request) -> Script:
        if request.method != "POST":
            return reply(404)
        number = int(request.project.removeprefix("p-"))
        then = reply(404, REJECTED) if number == 1 else created(f"job-{number}")
        return Stall(self.gates[number], then=then)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", "-m", "runner", *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)
    shell = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "1"})
    shell.manifest(*((f"field-{number}", f"w-{number}", f"p-{number}") for number in range(COUNT)), once_per="forever")
    return shell


def render(text: str, columns: int, rows: int = 40) -> list[str]:
    """The lines on a screen after this output, without empty lines at the end."""
    emulator = pyte.Screen(columns, rows)
    pyte.Stream(emulator).feed(text)
    return "\n".join(line.rstrip() for line in emulator.display).rstrip().splitlines()


def stderr_of_run(shell: Shell, columns: int, *arguments: str) -> str:
    """Everything that a run writes to stderr, which is a terminal."""
    with WireServer(choose=Api(is_open=True)) as server:
        shell.use_api(server.url)
        with run_on_terminal(shell, "run", "nightly.yaml", *arguments, size=(columns, 24), out=subprocess.DEVNULL) as (
            process,
            tty,
        ):
            text = read_terminal(tty)
            assert process.wait(TIMEOUT) == 1
    return text


# The progress bar


@pytest.mark.parametrize(
    ("columns", "bar"),
    [
        (99, "submitting  [##################------------------]  3/6  00:00:06  0.5/s, 1 not created"),
        (84, "submitting  [################-----------------]  3/6  00:00:06  0.5/s, 1 not created"),
        (65, "submitting  [#######-------]  3/6  00:00:06  0.5/s, 1 not created"),
        (55, "submitting  [#######-------]  3/6  0.5/s, 1 not created"),
        (40, "submitting  3/6  0.5/s, 1 not created"),
        (25, "3/6  0.5/s, 1 not created"),
        (19, "3/6  1 not created"),
        (8, "3/6  1 …"),
        (1, "…"),
    ],
)
def test_narrow_bar_omits_the_least_important_parts(columns: int, bar: str) -> None:
    assert progress.format_bar(3, 6, {"not created": 1}, 6.0, columns) == bar


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 9999), st.floats(0, 10**6), st.integers(1, 300))
def test_bar_is_never_wider_than_the_terminal(done: int, total: int, failed: int, elapsed: float, columns: int) -> None:
    line = progress.format_bar(done, total, {"not created": failed, "in doubt": 1}, elapsed, columns)
    assert 1 <= display_width(line) <= columns
    assert "\n" not in line


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_one_complete_bar_remains(shell: Shell, columns: int) -> None:
    text = stderr_of_run(shell, columns, "--verbose")
    bars = [line for line in render(text, columns, 60) if re.search(r"\b\d/6  ", line)]
    assert len(bars) == 1
    assert "6/6" in bars[0]
    assert "1 not created" in bars[0]
    drawn = [part for part in re.split(r"\r\x1b\[2K|\r\n", text) if re.search(r"\b\d/6  ", part)]
    assert len(drawn) > COUNT
    assert max(map(display_width, drawn)) < columns
    assert "field-5: created: job-5" in "".join(render(text, columns, 60))


def test_dumb_terminal_gets_lines(shell: Shell) -> None:
    shell.environment["TERM"] = "dumb"
    text = stderr_of_run(shell, 40, "--color", "never")
    assert "\x1b" not in text
    assert "\r" not in text.replace("\r\n", "")
    assert "submitting 6 of 6 jobs" in text


def test_no_color_removes_colors_and_keeps_the_bar(shell: Shell) -> None:
    assert re.search(r"\x1b\[[0-9;]*m", stderr_of_run(shell, 80))
    shutil.rmtree(shell.ledger.parent)
    shell.environment["NO_COLOR"] = "1"
    text = stderr_of_run(shell, 80)
    assert not re.search(r"\x1b\[[0-9;]*m", text)
    assert "[####" in text


def test_cursor_is_never_hidden(shell: Shell) -> None:
    """A run that is killed or stopped with Ctrl-Z could not show it again."""
    assert "\x1b[?25l" not in stderr_of_run(shell, 80)


# Resizing during a run


@pytest.mark.parametrize("columns", [30, 120])
def test_resized_terminal_that_truncates_lines_keeps_the_lines_above(shell: Shell, columns: int) -> None:
    shell.environment["XTERM_VERSION"] = "XTerm(379)"
    api = Api(is_open=False)
    with WireServer(choose=api) as server:
        shell.use_api(server.url)
        with run_on_terminal(shell, "run", "nightly.yaml", "--verbose", out=subprocess.DEVNULL) as (process, tty):
            before = read_terminal(tty, "0.0/s")
            api.gates[0].set()
            before += read_terminal(tty, "1/6")
            if not before.endswith("/s"):
                before += read_terminal(tty, "/s")
            resize(tty, columns, 24)
            for gate in api.gates:
                gate.set()
            after = read_terminal(tty)
            assert process.wait(TIMEOUT) == 1
    emulator = pyte.Screen(80, 60)
    stream = pyte.Stream(emulator)
    stream.feed(before)
    emulator.resize(60, columns)
    stream.feed(after)
    lines = [line.rstrip() for line in emulator.display]
    assert "field-0: created: job-0"[:columns] in lines
    assert len([line for line in lines if re.search(r"\b\d/6  ", line)]) == 1
    assert "field-5: created: job-5" in lines


@pytest.mark.parametrize(
    ("variables", "wraps"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-256color", "XTERM_VERSION": "XTerm(379)"}, False),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0"}, True),  # noqa: S108 - what tmux sets
        ({"TERM": "screen", "TMUX": "/tmp/tmux-0/default,1,0", "XTERM_VERSION": "XTerm(379)"}, True),  # noqa: S108
        ({"TERM": "screen.xterm-256color"}, False),
        ({"TERM": "linux"}, False),
        ({}, True),
    ],
)
def test_which_terminals_rewrap_lines(variables: dict[str, str], wraps: bool) -> None:
    assert terminal._wraps(variables) is wraps


class Tmux:
    """A tmux session with one window that runs a command."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        inherited = {name: value for name, value in env.items() if name not in ("TMUX", "TERM")}
        self._env = {**inherited, "TMUX_TMPDIR": str(folder), "TERM": "xterm", "LC_ALL": "C.UTF-8"}

    def start(self, command: Sequence[str]) -> None:
        # The window stays after the command ends, so that it can be read.
        self("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "cat")
        self("set", "-g", "remain-on-exit", "on")
        # Fill the screen first, as in real use: on a screen with room, tmux moves lines that it wraps out of reach.
        self("respawn-window", "-k", "--", "sh", "-c", 'seq 40; exec "$@"', "sh", *command)

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", *arguments], env=self._env, capture_output=True, text=True, check=True)  # noqa: S607 - found on PATH
        return done.stdout

    def lines(self) -> list[str]:
        """The output of the command, including the scrollback, without empty lines."""
        text = self("capture-pane", "-p", "-S", "-")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return lines[lines.index("40") + 1 :] if "40" in lines else []

    def resize(self, columns: int) -> None:
        """Resize the window, and wait until the program's terminal has the new size."""
        self("resize-window", "-x", str(columns), "-y", "24")
        terminal = os.open(self("display", "-p", "#{pane_tty}").strip(), os.O_RDONLY | os.O_NOCTTY)
        try:
            wait_until(lambda: os.get_terminal_size(terminal).columns == columns)
        finally:
            os.close(terminal)

    def wait_for(self, text: str) -> list[str]:
        """Wait for a text, and return all lines."""
        wait_until(lambda: any(text in line for line in self.lines()))
        return self.lines()


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition: a terminal does not report when it has drawn its input."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end


@pytest.fixture
def tmux() -> Iterator[Callable[[dict[str, str], Sequence[str]], Tmux]]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    opened: list[Tmux] = []
    with tempfile.TemporaryDirectory() as folder:  # pytest's own path may be too long for a socket

        def start(env: dict[str, str], command: Sequence[str]) -> Tmux:
            session = Tmux(Path(folder), env)
            opened.append(session)
            session.start(command)
            return session

        yield start
        for session in opened:
            session("kill-server")


def test_tmux_resize_during_a_run_leaves_no_partial_bar(
    shell: Shell, tmux: Callable[[dict[str, str], Sequence[str]], Tmux]
) -> None:
    api = Api(is_open=False)
    with WireServer(choose=api) as server:
        shell.use_api(server.url)
        window = tmux(
            terminal_environment(shell), shells.command(["run", shell.directory / "nightly.yaml", "--format", "csv"])
        )
        window.wait_for("0/6")
        window.resize(30)
        api.gates[0].set()
        lines = window.wait_for("1/6")
        assert [line for line in lines if "#" in line or "--" in line] == []
        assert len([line for line in lines if "/6 " in line]) == 1
        window.resize(100)
        for gate in api.gates:
            gate.set()
        lines = window.wait_for("results: ")
    assert len([line for line in lines if re.search(r"\b\d/6  ", line)]) == 1


@pytest.mark.parametrize("mode", ["inline", "below"])
def test_tmux_resize_leaves_no_old_table_line(
    shell: Shell, tmux: Callable[[dict[str, str], Sequence[str]], Tmux], mode: str
) -> None:
    pipe = shell.directory / "pipe"
    os.mkfifo(pipe)
    words = ["alpha"] if mode == "inline" else ["alpha", "beta", "gamma"]
    window = tmux(terminal_environment(shell), [sys.executable, "-P", "-c", REDRAW_PROGRAM, str(pipe), mode, *words])
    with pipe.open("w", encoding="utf-8") as draw:
        for number, columns in enumerate((80, 33, 20, 61, 25)):
            window.resize(columns)
            draw.write("\n")
            draw.flush()
            assert window.wait_for(f"{words[-1]}{number} ") == [
                f"{word}{number} ".ljust(columns - 1, "=") for word in words
            ]


# Suggestions for mistyped words


def usage_error(shell: Shell, *arguments: str) -> str:
    done = shell(*arguments)
    assert (done.code, done.out) == (2, "")
    return done.err


@pytest.mark.skipif(not hasattr(click, "NoSuchCommand"), reason="older versions of click have other messages")
def test_page_shows_the_messages_for_mistyped_words(shell: Shell) -> None:
    shell.manifest(("field-a", "w-1", "p-1"), ("field-b", "w-2", "p-1"))
    first, *rest = Page("docs/terminal.md").block("mistyped").split("$ ")
    assert first == ""
    assert len(rest) == 5
    for command, expected in (example.split("\n", 1) for example in rest):
        program, *arguments = shlex.split(command)
        assert program == "pixxel-runner"
        message = re.sub(r"is not one of .*\.", "is not one of FORMATS.", usage_error(shell, *arguments))
        assert message.endswith(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "nightly.yaml"], "No such command 'RUN'. Did you mean 'run'?\n"),
        (["stauts"], "No such command 'stauts'. Did you mean 'status'?\n"),
        (["quux"], "No such command 'quux'. Run 'pixxel-runner --help' for the list.\n"),
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?\n"),
        (["nightly.yaml", "plan", "--all"], "Did you mean: pixxel-runner plan nightly.yaml --all\n"),
        (["gone.yml"], "Did you mean: pixxel-runner run gone.yml\n"),
        (["."], "Did you mean: pixxel-runner run .\n"),
        (["-"], "Did you mean: pixxel-runner run -\n"),
        (["a b.yaml"], "Did you mean: pixxel-runner run 'a b.yaml'\n"),
        (["\x1b[31m.yaml"], "Did you mean: pixxel-runner run '\\x1b[31m.yaml'\n"),
        (["--sandbox", "run"], "Options of a command come after its name: pixxel-runner COMMAND --sandbox\n"),
        (["run", "nightly.yaml", "--quux"], "--quux"),
        (["--verison"], "--version"),
        (["ledger", "chek"], "No such command 'chek'."),
        (["validate", "x", "--format", "JOSN"], "'JOSN' is not one of 'text', 'json', 'github'.\n"),
        (["show", "--color", "quux"], "'quux' is not one of 'auto', 'always', 'never'.\n"),
        (["plan", "nightly.yaml", "--again", "feild-0"], "field-0"),
    ],
)
def test_suggestion_for_a_mistyped_word(shell: Shell, arguments: list[str], message: str) -> None:
    err = usage_error(shell, *arguments)
    assert err.endswith(message) if message.endswith("\n") else message in err
    assert "\x1b" not in err
