"""The terminal on stderr: its size, and lines that are redrawn in place.

When a terminal gets narrower, most wrap the lines that are already on it, so that a line takes up more rows than it was
drawn on; some truncate them. Redrawing moves the cursor up by the rows that the lines take up now.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from runner.cli import console
from runner.core.text import display_width

_DEFAULT_SIZE = os.terminal_size((80, 24))


def can_redraw() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return console.is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb"


def size() -> os.terminal_size:
    """The size of the terminal on stderr; stdout may be a file. 80 x 24 if it is unknown."""
    try:
        reported = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return _DEFAULT_SIZE
    return os.terminal_size((reported.columns or _DEFAULT_SIZE.columns, reported.lines or _DEFAULT_SIZE.lines))


class LiveLines:
    """Lines that are redrawn in place. The cursor is below them or, with `inline`, at the end of the last one.

    The cursor is never hidden: a program that is killed or stopped could not show it again.
    """

    def __init__(self, *, inline: bool = False) -> None:
        self._inline = inline
        self._wraps = _wraps(os.environ)
        self._widths: list[int] = []

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the lines on the terminal by these, each of which must be narrower than the terminal."""
        text = self._rewind() + "\n".join(lines) + ("" if self._inline else "\n")
        self._widths = [display_width(click.unstyle(line)) for line in lines]
        _write(text)

    def clear(self) -> None:
        """Remove the lines from the terminal."""
        _write(self._rewind())
        self._widths = []

    def finish(self) -> None:
        """Leave the lines on the terminal and continue below them."""
        if self._inline and self._widths:
            _write("\n")
        self._widths = []

    def _rewind(self) -> str:
        """The escape sequence that clears the lines and moves the cursor to where they started."""
        if not self._widths:
            return ""
        columns = size().columns
        rows = sum(max(1, -(-line_width // columns)) if self._wraps else 1 for line_width in self._widths)
        if not self._inline:
            return f"\x1b[{rows}F\x1b[J"
        return f"\x1b[{rows - 1}F\x1b[J" if rows > 1 else "\r\x1b[2K"


def _wraps(environment: Mapping[str, str]) -> bool:
    """Whether the terminal wraps the lines on it when it gets narrower, as nearly all do."""
    if environment.get("TMUX"):
        return True
    term = environment.get("TERM", "")
    return not (environment.get("XTERM_VERSION") or term.startswith("screen") or term == "linux")


def _write(text: str) -> None:
    with suppress(OSError):  # a terminal that hung up must not end the run
        click.echo(text, file=sys.stderr, nl=False, color=True)
