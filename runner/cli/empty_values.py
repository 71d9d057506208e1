"""Empty values on a command line: mostly a variable that a script failed to fill, and nobody's wish for the default."""

from __future__ import annotations

from collections.abc import Sequence

import click

from runner.core.errors import UsageError

_HINT = 'Was it a variable that is not set ("$NAME")? Give it a value, or leave it out.'


def reject(command: click.Command, arguments: Sequence[str]) -> None:
    """See that no argument and no option's value is empty. There is none that means something then.

    An empty path would be the current folder, an empty pin no pin, an empty choice all.

    Raises:
        UsageError: one is empty.
    """
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if word and not (name.startswith("--") and equals and not value):
            continue
        before = arguments[place - 1] if place else ""
        option = name if word else before if _takes_value(command, arguments, before) else ""
        raise UsageError(f"{option} is given, and empty" if option else "an argument is empty", _HINT)


def _takes_value(group: click.Command, arguments: Sequence[str], option: str) -> bool:
    """Whether a word is an option of the command that the line is about, and not a flag."""
    command: click.Command | None = group
    with click.Context(group) as context:
        for word in arguments:
            if not isinstance(command, click.Group):
                break
            command = command.get_command(context, word)
    options = [one for one in (command.params if command else ()) if isinstance(one, click.Option)]
    return any(option in one.opts and not one.is_flag for one in options)
