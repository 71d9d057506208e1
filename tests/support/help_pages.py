"""Writes what each command's `--help` prints into docs/cli.md, after the comments `<!-- help: COMMAND -->`.

python -m support.help_pages

from the checkout, with PYTHONPATH=tests. A test fails while the page shows anything else than the program prints.
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
    """Every command with the words that call it, the program itself (no word) first."""
    yield name, command
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for each in command.list_commands(context):
                if found := command.get_command(context, each):
                    yield from commands(found, f"{name} {each}".strip())


def help_of(name: str) -> str:
    """What a command's `--help` prints, 100 columns wide."""
    with patch.dict(os.environ, {"COLUMNS": "100", "LINES": "50"}), redirect_stdout(io.StringIO()) as printed:
        main([*name.split(), "--help"])
    return printed.getvalue()


def update_help(text: str) -> str:
    """A page's text with the help of now in each of its blocks."""
    return _BLOCK.sub(lambda block: f"{block['name']}{block[2]}{help_of(block['name'])}", text)


def missing_commands(text: str) -> list[str]:
    """The commands that a page has no block for."""
    shown = {block["name"] for block in _BLOCK.finditer(text)}
    return [name for name, _ in commands() if name not in shown]


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    after = update_help(before)
    PAGE.write_text(after, encoding="utf-8")
    for absent in missing_commands(after):
        sys.stderr.write(f"{PAGE.name}: add a block for the command {absent!r}\n")
    sys.stdout.write(f"{PAGE.name}: {'unchanged' if after == before else 'written'}\n")
    sys.exit(1 if missing_commands(after) else 0)
