"""The program's exit codes: what each means, and which one counts when several apply."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Self


class Exit(IntEnum):
    """An exit code, and what it means."""

    meaning: str

    OK = 0, "Every job to be submitted was created, or there was nothing to do"
    NOT_CREATED = 1, "At least one job was not created"
    USAGE = 2, "The command line, an environment variable or the manifest is invalid"
    IN_DOUBT = 3, "At least one job is in doubt"
    REFUSED = 4, "The program refused to start or stopped early"
    LOCKED = 5, "Another run of this manifest is in progress"
    TIMED_OUT = 6, "--wait-timeout expired before all jobs had finished"
    BUG = 70, "A bug in pixxel-runner"
    SIGINT = 130, "Interrupted by SIGINT (Ctrl-C)"
    SIGTERM = 143, "Terminated by SIGTERM"

    def __new__(cls, code: int, meaning: str = "") -> Self:
        """Give each member its number as value; the meaning is an attribute."""
        exit_code = int.__new__(cls, code)
        exit_code._value_ = code
        exit_code.meaning = meaning
        return exit_code


# Weakest first. A job in doubt outranks a refusal, since it may cost money; an interrupt outranks everything.
_RANKED = (
    *(Exit.OK, Exit.NOT_CREATED, Exit.TIMED_OUT, Exit.LOCKED, Exit.REFUSED, Exit.USAGE),
    *(Exit.IN_DOUBT, Exit.BUG, Exit.SIGTERM, Exit.SIGINT),
)


def worst_exit(codes: Iterable[Exit]) -> Exit:
    """Return the code that outranks the others; OK when there are none."""
    return max(codes, key=_RANKED.index, default=Exit.OK)
