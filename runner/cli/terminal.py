"""The terminal that stderr is: how large, what it can, and lines on it that are drawn over themselves.

A terminal may be made narrower while lines stand on it. Most then wrap what no longer fits, so that a line takes more
rows than it was drawn on; some cut it off. What is drawn anew goes up by as many rows as the lines take now.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from runner.cli import console
from runner.core.text import display_width

_USUAL = os.terminal_size((80, 24))  # of a terminal that does not tell its size


def can_redraw() -> bool:
    """Whether stderr is a terminal on which a line can be drawn over itself."""
    return console.is_stderr_terminal() and os.environ.get("TERM") != "dumb"


def size() -> os.terminal_size:
    """How large the terminal is that stderr is: stdout may be a file."""
    try:
        told = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return _USUAL
    return os.terminal_size((told.columns or _USUAL.columns, told.lines or _USUAL.lines))


class LiveLines:
    """Lines that are drawn over themselves: the cursor is in the line below or, with `inline`, at the end of the last.

    The cursor stays visible: a program that is killed or stopped could not bring it back.
    """

    def __init__(self, *, inline: bool = False) -> None:
        self._inline = inline
        self._wraps = _wraps(os.environ)
        self._widths: list[int] = []

    def draw(self, lines: Sequence[str]) -> None:
        """Draw lines, all narrower than the terminal, in place of those that were drawn."""
        text = self._back() + "\n".join(lines) + ("" if self._inline else "\n")
        self._widths = [display_width(click.unstyle(line)) for line in lines]
        _write(text)

    def clear(self) -> None:
        """Take away what was drawn."""
        _write(self._back())
        self._widths = []

    def finish(self) -> None:
        """Let what was drawn stand, and go on below it."""
        if self._inline and self._widths:
            _write("\n")
        self._widths = []

    def _back(self) -> str:
        """What brings the cursor to where drawing began, with nothing behind it."""
        if not self._widths:
            return ""
        columns = size().columns
        rows = sum(max(1, -(-each // columns)) if self._wraps else 1 for each in self._widths)
        if not self._inline:
            return f"\x1b[{rows}F\x1b[J"
        return f"\x1b[{rows - 1}F\x1b[J" if rows > 1 else "\r\x1b[2K"


def _wraps(environment: Mapping[str, str]) -> bool:
    """Whether a terminal that is made narrower wraps the lines that stand on it, as nearly all do."""
    if environment.get("TMUX"):
        return True
    term = environment.get("TERM", "")
    return not (environment.get("XTERM_VERSION") or term.startswith("screen") or term == "linux")


def _write(text: str) -> None:
    with suppress(OSError):  # a terminal that hung up must not end the run
        click.echo(text, file=sys.stderr, nl=False, color=True)
