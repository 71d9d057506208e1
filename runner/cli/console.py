"""Where words go: data to stdout, talk to stderr, and a stdout that went away changes nothing."""

from __future__ import annotations

import io
import os
import shutil
import sys

import click

from runner.errors import RunnerError


def begin() -> None:
    """See that nothing which is to be said fails on a terminal or a file that has no letters for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # it is None when the program is started with it closed
            stream.reconfigure(errors="backslashreplace")


def out(text: str) -> None:
    """Write data to stdout, and a line break."""
    try:
        click.echo(text)
    except BrokenPipeError:
        _drop_stdout()


def say(text: str) -> None:
    """Write talk to stderr, and a line break."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Say something that does not stop the program."""
    say(f"{click.style('warning:', fg='yellow')} {text}")


def fail(error: RunnerError) -> None:
    """Say what is wrong and what to do."""
    say(f"{click.style('error:', fg='red')} {error.message}")
    if error.hint:
        say(f"  {error.hint}")


def usage(error: click.ClickException) -> None:
    """Say what is wrong with the command line, as click words it."""
    error.show()


def bug(error: Exception, trace: str) -> None:
    """Say that the program is wrong, not the person; the traceback only where it was asked for."""
    say(f"{click.style('bug:', fg='red')} {type(error).__name__}: {error}")
    say("  This is a fault of pixxel-runner: please report it with the command. PIXXEL_RUNNER_DEBUG=1 shows where.")
    if os.environ.get("PIXXEL_RUNNER_DEBUG"):
        say(trace)


def color_choice(choice: str) -> bool | None:
    """What click's context takes as `color`: always, never, or None to go by the terminal."""
    if choice == "auto":
        return False if os.environ.get("NO_COLOR") else None
    return choice == "always"


def stdout_color() -> bool:
    """Whether data on stdout is coloured: as `--color` has it, else on a terminal."""
    context = click.get_current_context(silent=True)
    wanted = context.color if context is not None else None
    return sys.stdout.isatty() if wanted is None else wanted


def stdout_width() -> int | None:
    """The columns of the terminal that stdout is; None when it is none, and nothing is to be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def stderr_is_terminal() -> bool:
    """Whether a person sees stderr as it comes."""
    return sys.stderr.isatty()


def flush() -> None:
    """Flush stdout now, so that the interpreter does not complain of a closed pipe while it shuts down."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()


def _drop_stdout() -> None:
    """Let what is still to be written, at exit too, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
