"""What can go wrong, in words for a person, and the exit code that each kind of end has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runner.core.exit_codes import Exit


class Terminated(BaseException):
    """SIGTERM came while nothing was in flight."""


class RunnerError(Exception):
    """An end that the program foresaw: what is wrong, what to do next, and the exit code.

    `message` says what is wrong and where; `hint` says what to do and may be empty.
    """

    exit_code: ClassVar[Exit] = Exit.REFUSED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def one_line(self) -> str:
        """All of it for one line, as a mail from cron has it."""
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(RunnerError):
    """The command line, the environment or a setting cannot be used as given."""

    exit_code = Exit.USAGE


class RefusedError(RunnerError):
    """Nothing was sent, or nothing more will be: the program will not go on as things are."""

    exit_code = Exit.REFUSED


class ThreadLimitError(RefusedError):
    """The system lets the program have no thread that it needs."""

    def __init__(self) -> None:
        super().__init__(
            "the system allows no further thread (ulimit -u, ulimit -v, the container's limits)",
            "Raise that limit, or end what uses it up.",
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a manifest, at a place.

    `line` and `column` count from 1; 0 means that the problem is with the file as a whole. `field` is the
    field's path as a person writes it (`jobs[3].workflow_id`), empty for the file. `hint` says how to mend it.
    """

    file: str
    line: int
    column: int
    field: str
    message: str
    hint: str = ""


class ManifestError(RunnerError):
    """Manifests with problems: all of them, in the order of their places."""

    exit_code = Exit.USAGE

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = len(problems)
        files = len({problem.file for problem in problems})
        where = f"{files} manifests" if files > 1 else "the manifest"
        super().__init__(f"{count} problem{'s' if count > 1 else ''} in {where}; nothing was sent")
        self.problems = problems
