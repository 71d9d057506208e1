"""The command `completion`, and the replies to a shell that completes a command line: click's, with fixes.

On any error the reply is empty: the user is typing, and a message would garble the line.
"""

from __future__ import annotations

import os
import re
import shlex
from itertools import pairwise
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    shell_complete,
)

from runner.core.exit_codes import Exit
from runner.core.text import escape_unprintable

_SHELLS = ("bash", "zsh", "fish")
_WORD_BREAK = re.compile(r"[=:]+")  # where bash splits words for completion (COMP_WORDBREAKS)


class _Printable(ShellComplete):
    """Leaves out values that a terminal would act on: they cannot be escaped, and still be the value."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        return [item for item in super().get_completions(args, incomplete) if self._is_usable(item)]

    def _is_usable(self, item: CompletionItem | Any) -> bool:
        return item.type != "plain" or escape_unprintable(str(item.value)) == str(item.value)


class _Bash(_Printable, BashComplete):
    """Joins the words that bash splits, and quotes what it inserts."""

    _prefix = ""  # the part of the incomplete word that bash does not replace
    _is_quoted = False  # inside quotes a backslash would be a literal character

    def get_completion_args(self) -> tuple[list[str], str]:
        words = os.environ["COMP_WORDS"].split("\n")
        index = int(os.environ["COMP_CWORD"])
        self._is_quoted = index < len(words) and words[index][:1] in ("'", '"')
        arguments, incomplete = super().get_completion_args()
        joined: list[str] = []
        for previous, word in pairwise(["", *arguments, incomplete]):
            if joined and word and (_WORD_BREAK.fullmatch(word) or _WORD_BREAK.fullmatch(previous)):
                self._prefix = joined[-1]
                joined[-1] += word
            else:
                self._prefix = ""
                joined.append(word)
        if _WORD_BREAK.fullmatch(incomplete):  # bash appends to it
            self._prefix = joined[-1]
        if self._prefix.startswith("-"):  # click completes the value of an option only
            self._prefix = self._prefix.partition("=")[2]
        return joined[:-1], joined[-1]

    def format_completion(self, item: CompletionItem) -> str:
        value = str(item.value).removeprefix(self._prefix)
        quoted = _quote(value) if item.type == "plain" and not self._is_quoted else value
        escaped = quoted.replace("\\", "\\\\")  # the script's `read` unescapes backslashes
        return f"{item.type},{escaped}"


def _quote(value: str) -> str:
    """Escape what is special to bash, and nothing else."""
    return value if shlex.quote(value) == value else re.sub(r"([^\w@%+:,./=-])", r"\\\1", value)


class _Zsh(_Printable, ZshComplete):
    """Makes the script reply each time if it is in a directory of $fpath: click's replies only the first time."""

    def source(self) -> str:
        is_called = f"[[ $funcstack[1] == _{self.prog_name} ]]"
        return super().source().replace("[[ $zsh_eval_context[-1] == loadautofunc ]]", is_called)


class _Fish(_Printable, FishComplete):
    """Leaves out values with a comma, which the script takes for the end of the value."""

    def _is_usable(self, item: CompletionItem | Any) -> bool:
        return super()._is_usable(item) and "," not in str(item.value)


for _class in (_Bash, _Zsh, _Fish):
    add_completion_class(_class)


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS), metavar=f"[{'|'.join(_SHELLS)}]")
def command(shell: str) -> Exit:
    """Print the completion script for a shell: it completes commands, options, files, job names and runs.

    \b
    bash: save it as ~/.local/share/bash-completion/completions/pixxel-runner
    zsh:  save it as _pixxel-runner in a directory of $fpath
    fish: save it as ~/.config/fish/completions/pixxel-runner.fish
    """  # noqa: D301 - a backspace keeps click from rewrapping the lines
    root = click.get_current_context().find_root()
    return _reply(root.command, str(root.info_name), f"{shell}_source")


def complete(cli: click.Command, name: str, instruction: str) -> Exit:
    """Reply to a shell: `instruction` is its name, an underscore, and `source` or `complete`.

    The scripts put what is to be completed into the environment.
    """
    try:
        return _reply(cli, name, instruction)
    except Exception:  # noqa: BLE001 - see the module's docstring
        return Exit.NOT_CREATED


def _reply(cli: click.Command, name: str, instruction: str) -> Exit:
    variable = f"_{name}_complete".replace("-", "_").upper()
    return Exit(shell_complete(cli, {}, name, variable, instruction))
