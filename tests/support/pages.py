"""Reads documentation pages: their marked code blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


class Page:
    """A Markdown page of the repository, such as `README.md` or `docs/cron.md`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (CHECKOUT / path).read_text(encoding="utf-8")

    def block(self, marker: str) -> str:
        """The fenced code block after the comment `<!-- marker -->`."""
        match = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", self.text, re.DOTALL)
        assert match is not None, f"{self.path} has no block after <!-- {marker} -->"
        return match[1]

    def commands(self, marker: str) -> list[list[str]]:
        """The arguments of each `pixxel-runner` command in a block."""
        lines = (shlex.split(line, comments=True) for line in self.block(marker).splitlines())
        return [words[1:] for words in lines if words[:1] == ["pixxel-runner"]]
