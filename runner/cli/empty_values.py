"""Rejects empty values on the command line: mostly a shell variable that was never set."""

from __future__ import annotations

from collections.abc import Sequence

import click

from runner.core.errors import UsageError

_HINT = 'If it comes from a shell variable ("$NAME"), check that the variable is set. Give a value, or leave it out.'


def reject(command: click.Command, arguments: Sequence[str]) -> None:
    """Check that no argument and no option's value is empty: an empty path would mean the current directory.

    Raises:
        UsageError: one is empty.
    """
    for index, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if word and not (name.startswith("--") and equals and not value):
            continue
        previous = arguments[index - 1] if index else ""
        option = name if word else previous if _takes_value(command, arguments, previous) else ""
        raise UsageError(f"the value of {option} is empty" if option else "an argument is empty", _HINT)


def _takes_value(group: click.Command, arguments: Sequence[str], option: str) -> bool:
    """Whether a word is an option, not a flag, of the command on the command line."""
    command: click.Command | None = group
    with click.Context(group) as context:
        for word in arguments:
            if not isinstance(command, click.Group):
                break
            command = command.get_command(context, word)
    options = [parameter for parameter in (command.params if command else ()) if isinstance(parameter, click.Option)]
    return any(option in candidate.opts and not candidate.is_flag for candidate in options)
