"""The exceptions that end a command: a message, a hint and an exit code each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runner.core.exit_codes import Exit


class Terminated(BaseException):
    """SIGTERM arrived while no request was in flight."""


class RunnerError(Exception):
    """An expected failure. `message` says what is wrong and where; `hint` says what to do, and may be empty."""

    exit_code: ClassVar[Exit] = Exit.REFUSED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def one_line(self) -> str:
        """The message and the hint on one line, for cron's mail."""
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(RunnerError):
    """The command line, the environment or a setting is invalid."""

    exit_code = Exit.USAGE


class RefusedError(RunnerError):
    """The program refuses to start, or to send anything more."""

    exit_code = Exit.REFUSED


class ThreadLimitError(RefusedError):
    """The system allows no thread that the program cannot do without."""

    def __init__(self) -> None:
        super().__init__(
            "the system does not allow another thread (ulimit -u, ulimit -v, the container's limits)",
            "Raise that limit, or stop other processes.",
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem in a manifest, and its position.

    `line` and `column` count from 1; 0 means that the problem concerns the file as a whole. `field` is the path of the
    field (`jobs[3].workflow_id`), empty for the file. `hint` says how to fix it.
    """

    file: str
    line: int
    column: int
    field: str
    message: str
    hint: str = ""


class ManifestError(RunnerError):
    """All the problems of one or more manifests, ordered by position."""

    exit_code = Exit.USAGE

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = len(problems)
        files = len({problem.file for problem in problems})
        place = f"{files} manifests" if files > 1 else "the manifest"
        super().__init__(f"{count} problem{'s' if count > 1 else ''} in {place}; nothing was sent")
        self.problems = problems
