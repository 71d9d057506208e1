"""Suggestions for commands that do not exist. click has its own for options and for subcommands."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Sequence

import click

from runner.core.models import STDIN
from runner.core.suggestions import closest_matches
from runner.core.text import escape_unprintable

_MAX_SUGGESTIONS = 3
_CUTOFF = 0.65  # matches `rnu` to `run`; commands are few, so that a wrong suggestion is rare
_EXTENSIONS = (".yaml", ".yml")


def describe_unknown_command(arguments: Sequence[str], commands: Collection[str]) -> str:
    """The error message for arguments, at least one, that do not start with a command.

    A manifest in its place means that the command was omitted, or comes after it.
    """
    first, *rest = arguments
    message = f"No such command {escape_unprintable(repr(first))}."
    if first == STDIN or first.lower().endswith(_EXTENSIONS) or _exists(first):
        command, *rest = rest if rest and rest[0] in commands else ["run", *rest]
        return f"{message} Did you mean: {escape_unprintable(shlex.join(['pixxel-runner', command, first, *rest]))}"
    matches = closest_matches(first, commands, _MAX_SUGGESTIONS, _CUTOFF)
    advice = (
        f"Did you mean {' or '.join(map(repr, matches))}?" if matches else "Run 'pixxel-runner --help' for the list."
    )
    return f"{message} {advice}"


def explain(error: click.ClickException) -> click.ClickException:
    """Add where an option belongs that comes before the command."""
    if not isinstance(error, click.NoSuchOption) or error.possibilities:
        return error
    if error.ctx is None or not isinstance(error.ctx.command, click.Group):
        return error
    command = f"pixxel-runner COMMAND {escape_unprintable(error.option_name)}"
    return click.UsageError(f"{error.message} Options of a command come after its name: {command}", error.ctx)


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for a name that is too long
