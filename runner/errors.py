"""What can go wrong, in words for a person, and the exit code that each kind of end has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """The program's exit codes. The table in DESIGN, section 6, is the specification."""

    OK = 0
    FAILED = 1
    USAGE = 2
    IN_DOUBT = 3
    REFUSED = 4
    LOCKED = 5
    TIMED_OUT = 6
    BUG = 70
    SIGINT = 130
    SIGTERM = 143


class RunnerError(Exception):
    """An end that the program foresaw: what is wrong, what to do next, and the exit code.

    `message` says what is wrong and where; `hint` says what to do and may be empty.
    """

    exit_code: ClassVar[Exit] = Exit.REFUSED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RunnerError):
    """The command line, the environment or a setting cannot be used as given."""

    exit_code = Exit.USAGE


class RefusedError(RunnerError):
    """Nothing was sent, or nothing more will be: the program will not go on as things are."""

    exit_code = Exit.REFUSED


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
    """A manifest with problems: all of them, in the order of their places."""

    exit_code = Exit.USAGE

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = len(problems)
        super().__init__(f"{count} problem{'s' if count > 1 else ''} in the manifest; nothing was sent")
        self.problems = problems
