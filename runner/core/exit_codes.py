"""The program's exit codes: what each means, and which one wins when several apply."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """An exit code; `meaning` says what it tells the caller."""

    OK = 0
    NOT_CREATED = 1
    USAGE = 2
    IN_DOUBT = 3
    REFUSED = 4
    LOCKED = 5
    TIMED_OUT = 6
    BUG = 70
    SIGINT = 130
    SIGTERM = 143

    @property
    def meaning(self) -> str:
        """The code's meaning, as `--help` and the docs give it."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "every job was created, or there was nothing to do",
    Exit.NOT_CREATED: "at least one job was not created",
    Exit.USAGE: "the command line or the manifest is invalid",
    Exit.IN_DOUBT: "at least one job may or may not have been created",
    Exit.REFUSED: "the run was refused, or stopped before it was complete",
    Exit.LOCKED: "another run of the manifest holds the lock",
    Exit.TIMED_OUT: "timed out waiting; jobs are still running",
    Exit.BUG: "a bug in this program",
    Exit.SIGINT: "interrupted by SIGINT (Ctrl-C)",
    Exit.SIGTERM: "terminated by SIGTERM",
}

# Weakest first: a job in doubt outranks a refusal, and an interrupt outranks everything.
_RANKED = (
    Exit.OK,
    Exit.NOT_CREATED,
    Exit.TIMED_OUT,
    Exit.LOCKED,
    Exit.REFUSED,
    Exit.USAGE,
    Exit.IN_DOUBT,
    Exit.BUG,
    Exit.SIGTERM,
    Exit.SIGINT,
)


def worst_exit(codes: Iterable[Exit]) -> Exit:
    """Return the code that outranks the others; OK when there are none."""
    return max(codes, key=_RANKED.index, default=Exit.OK)
