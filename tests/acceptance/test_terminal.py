"""Progress as a person sees it on a terminal: narrow ones, resized ones, tmux, those that can do little."""

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
from support.terminal import environment, on_terminal, resize, seen
from support.wire import PATIENCE, Request, Script, Stall, WireServer, created, reply

from runner.cli import progress, terminal
from runner.core.text import display_width

COUNT = 6
REJECTED = json.dumps({"error": {"code": "not_found", "message": "no such workflow"}}).encode()

# Draws lines in place each time that a line comes from a pipe.
DRAWS = """
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
    """Creates each job but one, which it rejects; each when its gate is open."""

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
    one = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "1"})
    one.manifest(*((f"field-{number}", f"w-{number}", f"p-{number}") for number in range(COUNT)), once_per="forever")
    return one


def looked_at(text: str, columns: int, rows: int = 40) -> list[str]:
    """What stands on a screen after all this was written to it, without the empty lines at its end."""
    emulator = pyte.Screen(columns, rows)
    pyte.Stream(emulator).feed(text)
    return "\n".join(line.rstrip() for line in emulator.display).rstrip().splitlines()


def ran(shell: Shell, columns: int, *arguments: str) -> str:
    """All that a run writes to the terminal that is its stderr."""
    with WireServer(choose=Api(is_open=True)) as server:
        shell.at(server.url)
        with on_terminal(shell, "run", "nightly.yaml", *arguments, size=(columns, 24), out=subprocess.DEVNULL) as (
            process,
            person,
        ):
            text = seen(person)
            assert process.wait(PATIENCE) == 1
    return text


# The bar.


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
def test_a_narrow_bar_leaves_out_what_matters_least(columns: int, bar: str) -> None:
    assert progress.format_bar(3, 6, {"not created": 1}, 6.0, columns) == bar


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 9999), st.floats(0, 10**6), st.integers(1, 300))
def test_a_bar_is_never_wider_than_there_is_room(
    done: int, total: int, failed: int, elapsed: float, columns: int
) -> None:
    line = progress.format_bar(done, total, {"not created": failed, "in doubt": 1}, elapsed, columns)
    assert 1 <= display_width(line) <= columns
    assert "\n" not in line


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_one_bar_is_left_behind_and_no_piece_of_another(shell: Shell, columns: int) -> None:
    text = ran(shell, columns, "--verbose")
    bars = [line for line in looked_at(text, columns, 60) if re.search(r"\b\d/6  ", line)]
    assert len(bars) == 1
    assert "6/6" in bars[0]
    assert "1 not created" in bars[0]
    drawn = [piece for piece in re.split(r"\r\x1b\[2K|\r\n", text) if re.search(r"\b\d/6  ", piece)]
    assert len(drawn) > COUNT
    assert max(map(display_width, drawn)) < columns
    assert "field-5: created: job-5" in "".join(looked_at(text, columns, 60))


def test_a_terminal_that_can_do_nothing_gets_lines(shell: Shell) -> None:
    shell.environment["TERM"] = "dumb"
    text = ran(shell, 40, "--color", "never")
    assert "\x1b" not in text
    assert "\r" not in text.replace("\r\n", "")
    assert "submitting 6 of 6 jobs" in text


def test_no_color_takes_the_colours_and_leaves_the_bar(shell: Shell) -> None:
    assert re.search(r"\x1b\[[0-9;]*m", ran(shell, 80))
    shutil.rmtree(shell.ledger.parent)
    shell.environment["NO_COLOR"] = "1"
    text = ran(shell, 80)
    assert not re.search(r"\x1b\[[0-9;]*m", text)
    assert "[####" in text


def test_the_cursor_is_never_hidden(shell: Shell) -> None:
    """A run that is killed, or stopped with Ctrl-Z, could not show it again."""
    assert "\x1b[?25l" not in ran(shell, 80)


# A terminal that is resized while it goes.


@pytest.mark.parametrize("columns", [30, 120])
def test_a_terminal_that_cuts_lines_off_keeps_what_stands_above(shell: Shell, columns: int) -> None:
    shell.environment["XTERM_VERSION"] = "XTerm(379)"
    api = Api(is_open=False)
    with WireServer(choose=api) as server:
        shell.at(server.url)
        with on_terminal(shell, "run", "nightly.yaml", "--verbose", out=subprocess.DEVNULL) as (process, person):
            before = seen(person, "0.0/s")
            api.gates[0].set()
            before += seen(person, "1/6")
            if not before.endswith("/s"):
                before += seen(person, "/s")
            resize(person, columns, 24)
            for gate in api.gates:
                gate.set()
            after = seen(person)
            assert process.wait(PATIENCE) == 1
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
def test_which_terminals_wrap_what_stands_on_them(variables: dict[str, str], wraps: bool) -> None:
    assert terminal._wraps(variables) is wraps


class Tmux:
    """A real tmux with one window, in which a command runs."""

    def __init__(self, folder: Path, env: dict[str, str], command: Sequence[str]) -> None:
        kept = {name: value for name, value in env.items() if name not in ("TMUX", "TERM")}
        self._env = {**kept, "TMUX_TMPDIR": str(folder), "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        # The command ends and its window stays, to be looked at.
        self("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "cat")
        self("set", "-g", "remain-on-exit", "on")
        # The screen is full, as it is in use: while it is not, tmux moves lines that it wraps out of reach.
        self("respawn-window", "-k", "--", "sh", "-c", 'seq 40; exec "$@"', "sh", *command)

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", *arguments], env=self._env, capture_output=True, text=True, check=True)  # noqa: S607 - wherever it is
        return done.stdout

    def lines(self) -> list[str]:
        """What the command wrote, also what has scrolled out, but for empty lines."""
        text = self("capture-pane", "-p", "-S", "-")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return lines[lines.index("40") + 1 :] if "40" in lines else []

    def resize(self, columns: int) -> None:
        """Make the window so wide, and wait until the program's side is."""
        self("resize-window", "-x", str(columns), "-y", "24")
        terminal = os.open(self("display", "-p", "#{pane_tty}").strip(), os.O_RDONLY | os.O_NOCTTY)
        try:
            until(lambda: os.get_terminal_size(terminal).columns == columns)
        finally:
            os.close(terminal)

    def shows(self, word: str) -> list[str]:
        """What stands there once a word does."""
        until(lambda: any(word in line for line in self.lines()))
        return self.lines()


def until(condition: Callable[[], bool]) -> None:
    """Look again and again: nothing tells when a terminal has drawn what it was sent."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end


@pytest.fixture
def tmux() -> Iterator[Callable[[dict[str, str], Sequence[str]], Tmux]]:
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux here")
    opened: list[Tmux] = []
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be too long for a socket's path

        def start(env: dict[str, str], command: Sequence[str]) -> Tmux:
            opened.append(Tmux(Path(folder), env, command))
            return opened[-1]

        yield start
        for one in opened:
            one("kill-server")


def test_a_run_in_a_tmux_that_is_made_narrower_leaves_no_piece_of_a_bar(
    shell: Shell, tmux: Callable[[dict[str, str], Sequence[str]], Tmux]
) -> None:
    api = Api(is_open=False)
    with WireServer(choose=api) as server:
        shell.at(server.url)
        window = tmux(environment(shell), shells.command(["run", shell.folder / "nightly.yaml", "--format", "csv"]))
        window.shows("0/6")
        window.resize(30)
        api.gates[0].set()
        lines = window.shows("1/6")
        assert [line for line in lines if "#" in line or "--" in line] == []
        assert len([line for line in lines if "/6 " in line]) == 1
        window.resize(100)
        for gate in api.gates:
            gate.set()
        lines = window.shows("results: ")
    assert len([line for line in lines if re.search(r"\b\d/6  ", line)]) == 1


@pytest.mark.parametrize("how", ["inline", "below"])
def test_a_table_in_a_tmux_that_is_resized_leaves_no_line_behind(
    shell: Shell, tmux: Callable[[dict[str, str], Sequence[str]], Tmux], how: str
) -> None:
    pipe = shell.folder / "pipe"
    os.mkfifo(pipe)
    words = ["alpha"] if how == "inline" else ["alpha", "beta", "gamma"]
    window = tmux(environment(shell), [sys.executable, "-P", "-c", DRAWS, str(pipe), how, *words])
    with pipe.open("w", encoding="utf-8") as draw:
        for number, columns in enumerate((80, 33, 20, 61, 25)):
            window.resize(columns)
            draw.write("\n")
            draw.flush()
            assert window.shows(f"{words[-1]}{number} ") == [
                f"{word}{number} ".ljust(columns - 1, "=") for word in words
            ]


# What is said of a word that is not known.


def said(shell: Shell, *arguments: str) -> str:
    done = shell(*arguments)
    assert (done.code, done.out) == (2, "")
    return done.err


@pytest.mark.skipif(not hasattr(click, "NoSuchCommand"), reason="older versions of click word it in another way")
def test_the_page_shows_what_is_said_of_mistyped_words(shell: Shell) -> None:
    shell.manifest(("field-a", "w-1", "p-1"), ("field-b", "w-2", "p-1"))
    first, *rest = Page("docs/terminal.md").block("mistyped").split("$ ")
    assert first == ""
    assert len(rest) == 5
    for command, answer in (one.split("\n", 1) for one in rest):
        program, *arguments = shlex.split(command)
        assert program == "pixxel-runner"
        words = re.sub(r"is not one of .*\.", "is not one of FORMATS.", said(shell, *arguments))
        assert words.endswith(answer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN", "nightly.yaml"], "No such command 'RUN'. Did you mean 'run'?\n"),
        (["stauts"], "No such command 'stauts'. Did you mean 'status'?\n"),
        (["quux"], "No such command 'quux'.\n"),
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
def test_what_was_probably_meant_is_named(shell: Shell, arguments: list[str], words: str) -> None:
    err = said(shell, *arguments)
    assert err.endswith(words) if words.endswith("\n") else words in err
    assert "\x1b" not in err
