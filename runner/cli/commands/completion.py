"""The command `completion`, and what a shell is told that asks for completions: click's scripts and protocol, mended.

Whatever goes wrong, a shell that completes is told nothing: a person is in the middle of a line there.
"""

from __future__ import annotations

import os
import re
import shlex
from itertools import pairwise
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from runner.cli import console
from runner.core.exit_codes import Exit
from runner.core.text import escape_unprintable

_GLUE = re.compile(r"[=:]+")  # where bash parts words for completion, though they are one (COMP_WORDBREAKS)


class _Bash(BashComplete):
    """Bash, whose words are put together again, and to which what it would act on is quoted."""

    _kept = ""  # of the word that is completed: what bash leaves as it stands
    _quoted = False  # whether it began a quotation, in which a backslash would be a character

    def get_completion_args(self) -> tuple[list[str], str]:
        words = os.environ["COMP_WORDS"].split("\n")
        at = int(os.environ["COMP_CWORD"])
        self._quoted = at < len(words) and words[at][:1] in ("'", '"')
        before, incomplete = super().get_completion_args()
        joined: list[str] = []
        for previous, word in pairwise(["", *before, incomplete]):
            if joined and word and (_GLUE.fullmatch(word) or _GLUE.fullmatch(previous)):
                self._kept = joined[-1]
                joined[-1] += word
            else:
                self._kept = ""
                joined.append(word)
        if _GLUE.fullmatch(incomplete):  # bash puts what is added behind it
            self._kept = joined[-1]
        if self._kept.startswith("-"):  # click looks at an option's value alone
            self._kept = self._kept.partition("=")[2]
        return joined[:-1], joined[-1]

    def format_completion(self, item: CompletionItem) -> str:
        value = str(item.value).removeprefix(self._kept)
        escaped = _escaped(value) if item.type == "plain" and not self._quoted else value
        backslashes = escaped.replace("\\", "\\\\")  # of each two, the script's `read` leaves one
        return f"{item.type},{backslashes}"


def _escaped(value: str) -> str:
    """A word as bash reads it, with as few marks as it needs."""
    return value if shlex.quote(value) == value else re.sub(r"([^\w@%+:,./=-])", r"\\\1", value)


class _Zsh(ZshComplete):
    """Zsh, whose script answers each time when it lies in a folder of $fpath: click's only does the first time."""

    def source(self) -> str:
        called = f"[[ $funcstack[1] == _{self.prog_name} ]]"
        return super().source().replace("[[ $zsh_eval_context[-1] == loadautofunc ]]", called)


class _Fish(FishComplete):
    """Fish, whose script takes a comma for the end of a word."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return [item for item in super().get_completions(args, incomplete) if "," not in str(item.value)]


_SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_SHELLS)), metavar=f"[{'|'.join(_SHELLS)}]")
def command(shell: str) -> Exit:
    """Print the script by which a shell completes commands, options, files, job names and runs.

    \b
    bash: put it into ~/.local/share/bash-completion/completions/pixxel-runner
    zsh:  put it into a folder of $fpath, as _pixxel-runner
    fish: put it into ~/.config/fish/completions/pixxel-runner.fish
    """  # noqa: D301 - the backspace is click's word for lines that stay as they are
    root = click.get_current_context().find_root()
    console.output(_asked(root.command, str(root.info_name), shell).source().rstrip("\n"))
    return Exit.OK


def complete(cli: click.Command, name: str, instruction: str) -> Exit:
    """Answer a shell: `instruction` is the shell's name, an underscore, and `source` or `complete`.

    What is to be completed stands in the environment, as click's scripts put it there.
    """
    shell, _, what = instruction.partition("_")
    if shell not in _SHELLS or what not in ("source", "complete"):
        return Exit.NOT_CREATED
    try:
        one = _asked(cli, name, shell)
        if what == "source":
            console.output(one.source().rstrip("\n"))
        else:
            arguments, incomplete = one.get_completion_args()
            items = [item for item in one.get_completions(arguments, incomplete) if _is_fit(item)]
            if items:
                console.output("\n".join(map(one.format_completion, items)))
    except Exception:  # noqa: BLE001 - as the module says: no words, whatever it is
        return Exit.NOT_CREATED
    return Exit.OK


def _asked(cli: click.Command, name: str, shell: str) -> ShellComplete:
    variable = f"_{name}_complete".replace("-", "_").upper()
    return _SHELLS[shell](cli, {}, name, variable)


def _is_fit(item: CompletionItem | Any) -> bool:
    """Whether a word can be offered: one that a terminal would act on can't be shown otherwise and still be it."""
    return item.type != "plain" or escape_unprintable(str(item.value)) == str(item.value)
