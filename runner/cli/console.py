"""Standard streams: data goes to stdout, everything else to stderr. A stream that is lost never costs a job's record.

stderr may be lost while jobs are in flight (`2>&1 | head`, a full disk, a terminal that hung up): what cannot be
written there is dropped. A closed pipe on stdout changes nothing either. Any other failure to write stdout is an error,
because the user asked for that data.
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
            f"cannot write to stdout: {error.strerror}", "The command completed; only its output was lost."
        )


def configure_streams() -> None:
    """Escape characters that the encoding of stdout or stderr lacks, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if the program was started with the stream closed
            stream.reconfigure(errors="backslashreplace")


def stdin() -> BinaryIO:
    """Standard input; empty if the program was started with it closed."""
    return io.BytesIO() if sys.stdin is None else sys.stdin.buffer


def output(text: str) -> None:
    """Write data and a newline to stdout. Raises OutputError."""
    try:
        click.echo(text)
    except OSError as error:
        _lose_stdout(error)


def info(text: str, *, end: str = "\n") -> None:
    """Write a message to stderr."""
    try:
        click.echo(f"{text}{end}", err=True, nl=False, color=_color())
    except OSError:
        _discard(sys.stderr)


def warn(text: str) -> None:
    """Write a warning to stderr."""
    info(f"{click.style('warning:', fg='yellow')} {text}")


def error(failure: RunnerError) -> None:
    """Write an error and its hint to stderr."""
    info(f"{click.style('error:', fg='red')} {escape_unprintable(failure.message)}")
    if failure.hint:
        info(f"  {escape_unprintable(failure.hint)}")


def usage_error(failure: click.ClickException) -> None:
    """Write an error in the command line to stderr, in click's format."""
    try:
        failure.show()
    except OSError:
        _discard(sys.stderr)


def internal_error(failure: Exception) -> None:
    """Write a bug of the program to stderr; its traceback only if PIXXEL_RUNNER_DEBUG is set."""
    info(f"{click.style('bug:', fg='red')} {type(failure).__name__}: {escape_unprintable(str(failure))}")
    info("  Run the command again with PIXXEL_RUNNER_DEBUG=1, and report the traceback.")
    _write_traceback(failure)


def system_error(failure: OSError) -> None:
    """Write an error of the operating system to stderr; its traceback only if PIXXEL_RUNNER_DEBUG is set."""
    reason = failure.strerror or str(failure) or type(failure).__name__
    try:
        os.getcwd()  # noqa: PTH109 - called only for its error
    except OSError as missing:
        message = f"the current directory cannot be used: {missing.strerror}"
        hint = "It was deleted, or you may not enter it. Change to another directory."
    else:
        subject = "operating system error" if failure.filename is None else os.fsdecode(failure.filename)
        message = f"{subject}: {reason}"
        hint = "Check that the file exists and its permissions. Set PIXXEL_RUNNER_DEBUG=1 for a traceback."
    error(RefusedError(message, hint))
    _write_traceback(failure)


def _write_traceback(failure: Exception) -> None:
    if os.environ.get("PIXXEL_RUNNER_DEBUG"):
        import traceback  # noqa: PLC0415 - rarely needed

        info("\n".join(map(escape_unprintable, "".join(traceback.format_exception(failure)).splitlines())))


def color_mode(choice: str) -> bool | None:
    """The value of click's `Context.color` for `--color`: True, False, or None if the terminal decides."""
    if choice == "auto":
        return False if os.environ.get("NO_COLOR") else None
    return choice == "always"


def _color() -> bool | None:
    """What `--color` says; what the environment says if no command has started."""
    context = click.get_current_context(silent=True)
    return color_mode("auto") if context is None or context.color is None else context.color


def is_terminal(stream: object) -> bool:
    """Whether a standard stream is a terminal."""
    return isinstance(stream, io.TextIOBase) and stream.isatty()  # None if the program was started with it closed


def is_colored(stream: object) -> bool:
    """Whether to use colors on a standard stream: as `--color` says, else if it is a terminal."""
    color = _color()
    return is_terminal(stream) if color is None else color


def width(stream: object) -> int | None:
    """The columns of the terminal on a standard stream; None if it is not a terminal."""
    return shutil.get_terminal_size().columns if is_terminal(stream) else None


def can_prompt() -> bool:
    """Whether the user can be asked: prompts go to stderr, replies come from stdin."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def flush_stdout() -> None:
    """Flush stdout now, so that the interpreter does not fail to at exit. Raises OutputError."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        _lose_stdout(error)


def _lose_stdout(error: OSError) -> None:
    """Continue without stdout. Raises OutputError unless the reader closed the pipe."""
    _discard(sys.stdout)
    if not isinstance(error, BrokenPipeError):
        raise OutputError(error) from error


def _discard(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, with what the interpreter flushes at exit."""
    with suppress(OSError, ValueError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)
