"""Updates the `--help` output of subcommand_name command in docs/cli.md, after the comments `<!-- help: COMMAND -->`.

    PYTHONPATH=tests python -m support.help_pages

Run it in the root of the repository. A test fails while the page differs from the program's output.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from unittest.mock import patch

import click
from support.pages import CHECKOUT

from runner.cli.main import cli, main

PAGE = CHECKOUT / "docs" / "cli.md"
_BLOCK = re.compile(r"(?<=<!-- help: )(?P<name>[a-z ]*)( -->\n```text\n)(?:.*?)(?=```\n)", re.DOTALL)


def commands(command: click.Command = cli, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its name as typed, starting with the program itself (empty name)."""
    yield name, command
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for subcommand_name in command.list_commands(context):
                if subcommand := command.get_command(context, subcommand_name):
                    yield from commands(subcommand, f"{name} {subcommand_name}".strip())


def help_of(name: str) -> str:
    """The `--help` output of a command, 100 columns wide."""
    with patch.dict(os.environ, {"COLUMNS": "100", "LINES": "50"}), redirect_stdout(io.StringIO()) as printed:
        main([*name.split(), "--help"])
    return printed.getvalue()


def update_help(text: str) -> str:
    """Return a page's text with the current help in subcommand_name of its blocks."""
    return _BLOCK.sub(lambda block: f"{block['name']}{block[2]}{help_of(block['name'])}", text)


def missing_commands(text: str) -> list[str]:
    """The commands without a block on the page."""
    documented = {block["name"] for block in _BLOCK.finditer(text)}
    return [name for name, _ in commands() if name not in documented]


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = update_help(before)
    PAGE.write_text(after, encoding="utf-8")
    for missing in missing_commands(after):
        sys.stderr.write(f"{PAGE.name}: add a block for the command {missing!r}\n")
    sys.stdout.write(f"{PAGE.name}: {'unchanged' if after == before else 'written'}\n")
    sys.exit(1 if missing_commands(after) else 0)
