"""Where words go: data to stdout, talk to stderr; and a stream that goes away never costs a record.

stderr may vanish (`2>&1 | head`, a full disk, a terminal that hung up) while jobs are in flight: what can't be said is
dropped. A closed pipe on stdout changes nothing either; a stdout that can't be written for another reason is an error,
as somebody asked for that data.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from contextlib import suppress
from typing import BinaryIO, TextIO

import click

from runner.core.errors import RefusedError, RunnerError
from runner.core.text import escape_unprintable


class OutputError(RefusedError):
    """Data could not be written to stdout."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"stdout cannot be written: {error.strerror}", "What was asked for was done; only its output is lost."
        )


def configure_streams() -> None:
    """See that nothing which is to be said fails on a terminal or a file that has no letters for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # it is None when the program is started with it closed
            stream.reconfigure(errors="backslashreplace")


def stdin() -> BinaryIO:
    """Standard input; empty when the program is started with it closed."""
    return io.BytesIO() if sys.stdin is None else sys.stdin.buffer


def output(text: str) -> None:
    """Write data to stdout, and a line break. Raises OutputError."""
    try:
        click.echo(text)
    except OSError as error:
        _lose_stdout(error)


def info(text: str, *, end: str = "\n") -> None:
    """Write talk to stderr, and a line break unless it ends otherwise."""
    try:
        click.echo(f"{text}{end}", err=True, nl=False, color=_color())
    except OSError:
        _lose(sys.stderr)


def warn(text: str) -> None:
    """Say something that does not stop the program."""
    info(f"{click.style('warning:', fg='yellow')} {text}")


def error(error: RunnerError) -> None:
    """Say what is wrong and what to do."""
    info(f"{click.style('error:', fg='red')} {escape_unprintable(error.message)}")
    if error.hint:
        info(f"  {escape_unprintable(error.hint)}")


def usage_error(error: click.ClickException) -> None:
    """Say what is wrong with the command line, as click words it."""
    try:
        error.show()
    except OSError:
        _lose(sys.stderr)


def internal_error(error: Exception, trace: str) -> None:
    """Say that the program is wrong, not the person; the traceback only where it was asked for."""
    info(f"{click.style('bug:', fg='red')} {type(error).__name__}: {escape_unprintable(str(error))}")
    info("  This is a fault of pixxel-runner: please report it with the command. PIXXEL_RUNNER_DEBUG=1 shows where.")
    _say_trace(trace)


def system_error(error: OSError, trace: str) -> None:
    """Say what the system did not let the program do; the traceback only where it was asked for."""
    words = error.strerror or str(error) or type(error).__name__
    try:
        os.getcwd()  # noqa: PTH109 - asked for its error alone
    except OSError as gone:
        message = f"the current folder cannot be used: {gone.strerror}"
        hint = "It was deleted, or may not be entered: go to one that is there."
    else:
        what = "the system is in the way" if error.filename is None else os.fsdecode(error.filename)
        message = f"{what}: {words}"
        hint = "Look at what is there, and at what this user may do there. PIXXEL_RUNNER_DEBUG=1 shows where it came."
    error(RefusedError(message, hint))
    _say_trace(trace)


def _say_trace(trace: str) -> None:
    if os.environ.get("PIXXEL_RUNNER_DEBUG"):
        info("\n".join(map(escape_unprintable, trace.splitlines())))


def color_mode(choice: str) -> bool | None:
    """What click's context takes as `color`: always, never, or None to go by the terminal."""
    if choice == "auto":
        return False if os.environ.get("NO_COLOR") else None
    return choice == "always"


def _color() -> bool | None:
    """As `--color` has it; where no command has begun, as the environment has it."""
    context = click.get_current_context(silent=True)
    return color_mode("auto") if context is None or context.color is None else context.color


def is_stdout_colored() -> bool:
    """Whether data on stdout is coloured: as `--color` has it, else on a terminal."""
    wanted = _color()
    return _is_terminal(sys.stdout) if wanted is None else wanted


def is_stderr_colored() -> bool:
    """Whether talk on stderr is coloured: as `--color` has it, else on a terminal."""
    wanted = _color()
    return _is_terminal(sys.stderr) if wanted is None else wanted


def can_prompt() -> bool:
    """Whether there is a person to answer: questions go to stderr, answers come from stdin."""
    return _is_terminal(sys.stdin) and _is_terminal(sys.stderr)


def stderr_width() -> int | None:
    """The columns of the terminal that stderr is; None when it is none."""
    return shutil.get_terminal_size().columns if _is_terminal(sys.stderr) else None


def stdout_width() -> int | None:
    """The columns of the terminal that stdout is; None when it is none, and nothing is to be cut."""
    return shutil.get_terminal_size().columns if _is_terminal(sys.stdout) else None


def is_stderr_terminal() -> bool:
    """Whether a person sees stderr as it comes."""
    return _is_terminal(sys.stderr)


def _is_terminal(stream: object) -> bool:
    return isinstance(stream, io.TextIOBase) and stream.isatty()  # None when the program is started with it closed


def flush_stdout() -> None:
    """Flush stdout now, so that the interpreter does not complain while it shuts down. Raises OutputError."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        _lose_stdout(error)


def _lose_stdout(error: OSError) -> None:
    """Go on without stdout; only a closed pipe is nobody's loss."""
    _lose(sys.stdout)
    if not isinstance(error, BrokenPipeError):
        raise OutputError(error) from error


def _lose(stream: TextIO) -> None:
    """Let what is still to be written, and what the interpreter flushes as it shuts down, go nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
