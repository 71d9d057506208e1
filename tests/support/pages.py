"""Reads what pages of documentation show: marked blocks, the commands in them, the files that they include."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


class Page:
    """A Markdown page of the checkout, such as `README.md` or `docs/cron.md`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = (CHECKOUT / path).read_text(encoding="utf-8")

    def block(self, marker: str) -> str:
        """The fenced block that follows the comment `<!-- marker -->`."""
        found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", self.text, re.DOTALL)
        assert found is not None, f"{self.path} has no block after <!-- {marker} -->"
        return found[1]

    def commands(self, marker: str) -> list[list[str]]:
        """The lines of a block that call the program, as arguments."""
        lines = (shlex.split(line, comments=True) for line in self.block(marker).splitlines())
        return [words[1:] for words in lines if words[:1] == ["pixxel-runner"]]
