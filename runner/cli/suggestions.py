"""Words of the command line that are not known, and what was probably meant by them."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Collection, Iterable, Sequence

import click

from runner.core.suggestions import closest_matches
from runner.core.text import escape_unprintable

_MOST = 3
_ENDINGS = (".yaml", ".yml")

# click keeps the word itself nowhere else. Where these do not fit, its own words stay.
_NO_CHOICE = re.compile(r"(?P<word>'.*?'|\".*?\") is not one of ")
_NO_COMMAND = re.compile(r"No such command (?P<word>'.*?'|\".*?\")\.\Z")


def explain(error: click.ClickException) -> click.ClickException:
    """An error of the command line, with what was probably meant where a word of it is not known."""
    if isinstance(error, click.NoSuchOption):
        return click.UsageError(_unknown_option(error), error.ctx)
    if isinstance(error, click.BadParameter) and error.param is not None and isinstance(error.param.type, click.Choice):
        near = _near(_NO_CHOICE, error, map(str, error.param.type.choices))
        return click.BadParameter(f"{error.message} {_question(near)}", error.ctx, error.param) if near else error
    if isinstance(error, click.UsageError) and error.ctx is not None and isinstance(error.ctx.command, click.Group):
        near = _near(_NO_COMMAND, error, error.ctx.command.list_commands(error.ctx))
        return click.UsageError(f"{error.message} {_question(near)}", error.ctx) if near else error
    return error


def describe_unknown_command(words: Sequence[str], commands: Collection[str]) -> str:
    """What to say of arguments of the program, at least one, that do not begin with a command.

    A manifest there means a command that was forgotten, or that stands behind it.
    """
    first, *rest = words
    said = f"No such command {escape_unprintable(repr(first))}."
    if first == "-" or first.lower().endswith(_ENDINGS) or _exists(first):
        command, *rest = rest if rest and rest[0] in commands else ["run", *rest]
        return f"{said} Did you mean: {escape_unprintable(shlex.join(['pixxel-runner', command, first, *rest]))}"
    near = closest_matches(first, commands, _MOST)
    return f"{said} {_question(near)}" if near else said


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for a name that is too long


def _unknown_option(error: click.NoSuchOption) -> str:
    said = f"No such option {escape_unprintable(repr(error.option_name))}."
    if error.ctx is None:
        return said
    options = [name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts]
    near = closest_matches(error.option_name, [name for name in options if name.startswith("--")])
    if near:
        return f"{said} {_question(near)}"
    if isinstance(error.ctx.command, click.Group):
        option = escape_unprintable(error.option_name)
        return f"{said} What belongs to a command stands after it: pixxel-runner COMMAND {option}"
    return said


def _near(pattern: re.Pattern[str], error: click.ClickException, choices: Iterable[str]) -> list[str]:
    found = pattern.match(error.message)
    return closest_matches(ast.literal_eval(found["word"]), choices) if found else []


def _question(near: Sequence[str]) -> str:
    return f"Did you mean {' or '.join(escape_unprintable(repr(one)) for one in near)}?"
