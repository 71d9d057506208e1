"""Runs programs on a pseudo-terminal, and reads, types and resizes at the user's end of it."""

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

# Puts the program in the foreground of the terminal on its stdin, so that a typed Ctrl-C reaches it.
_IN_FOREGROUND = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_INHERITED = ("PATH", "HOME", "PYTHONPATH", "COVERAGE_PROCESS_CONFIG")

Out = int | IO[bytes] | None


@contextmanager
def run_on_terminal(
    shell: Shell, *arguments: str, size: tuple[int, int] = (80, 24), out: Out = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the command on a terminal. `out` redirects stdout. Yields the process and the user's end of the terminal."""
    with open_terminal(
        shells.command(arguments), shell.directory, terminal_environment(shell), size=size, out=out
    ) as process_and_terminal:
        yield process_and_terminal


@contextmanager
def open_terminal(
    command: Sequence[str],
    directory: Path,
    env: Mapping[str, str],
    *,
    size: tuple[int, int] = (80, 24),
    out: Out = None,
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a program, given by its path, on a terminal of `size` (columns, rows)."""
    user, terminal = pty.openpty()
    resize(user, *size)
    try:
        process = subprocess.Popen(
            [sys.executable, "-E", "-S", "-c", _IN_FOREGROUND, *command],
            cwd=directory,
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
                yield process, user
            finally:
                process.kill()
    finally:
        os.close(user)


def terminal_environment(shell: Shell) -> dict[str, str]:
    """The environment of a program that is started on the terminal."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {"TERM": "xterm", **inherited, **shell.environment}


def resize(user: int, columns: int, rows: int) -> None:
    """Resize the terminal; the foreground program gets SIGWINCH."""
    fcntl.ioctl(user, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_terminal(user: int, word: str | None = None) -> str:
    """Read the terminal's output up to `word`, or to its end if `word` is None."""
    output = b""
    while word is None or word.encode() not in output:
        assert select.select([user], [], [], 3 * TIMEOUT)[0], output
        try:
            chunk = os.read(user, 65_536)
        except OSError:  # the other end is closed, which Linux reports as EIO
            chunk = b""
        if not chunk:
            break
        output += chunk
    return output.decode(errors="replace")
