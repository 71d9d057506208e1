"""A program on a terminal of its own, and the end of it at which a person sits: who types, resizes, and looks."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from support import shell as shells
from support.shell import Shell
from support.wire import TIMEOUT

# A program in the foreground of the terminal that is its standard input: Ctrl-C that is typed there reaches it.
_IN_FOREGROUND = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_KEPT = ("PATH", "HOME", "PYTHONPATH", "COVERAGE_PROCESS_CONFIG")

Out = int | IO[bytes] | None


@contextmanager
def run_on_terminal(
    shell: Shell, *arguments: str, size: tuple[int, int] = (80, 24), out: Out = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command on a terminal, and the person's end of it. `out`: where stdout is, if it is not there too."""
    with open_terminal(
        shells.command(arguments), shell.directory, terminal_environment(shell), size=size, out=out
    ) as both:
        yield both


@contextmanager
def open_terminal(
    command: Sequence[str], folder: Path, env: Mapping[str, str], *, size: tuple[int, int] = (80, 24), out: Out = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Any program, by its path, on a terminal of (columns, rows)."""
    person, terminal = pty.openpty()
    resize(person, *size)
    try:
        process = subprocess.Popen(
            [sys.executable, "-E", "-S", "-c", _IN_FOREGROUND, *command],
            cwd=folder,
            env=env,
            stdin=terminal,
            stdout=terminal if out is None else out,
            stderr=terminal,
            start_new_session=True,
        )
    finally:
        os.close(terminal)
    try:
        with process:
            try:
                yield process, person
            finally:
                process.kill()
    finally:
        os.close(person)


def terminal_environment(shell: Shell) -> dict[str, str]:
    """What a program that is started there has as its environment."""
    inherited = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"TERM": "xterm", **inherited, **shell.environment}


def resize(person: int, columns: int, rows: int) -> None:
    """Make the terminal so large; the program in its foreground is told by a signal."""
    fcntl.ioctl(person, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_terminal(person: int, word: str | None = None) -> str:
    """What is written to the terminal until a word is; until the end without one."""
    shown = b""
    while word is None or word.encode() not in shown:
        assert select.select([person], [], [], 3 * TIMEOUT)[0], shown
        try:
            piece = os.read(person, 65_536)
        except OSError:  # the terminal's other end is closed: Linux calls that an input error
            piece = b""
        if not piece:
            break
        shown += piece
    return shown.decode(errors="replace")
