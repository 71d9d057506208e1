"""Errors of SQLite and the filesystem as messages with hints: nothing is sent without a working ledger."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.core.errors import RefusedError

LOCAL_DISK_ONLY = "Keep the ledger on a local disk: network filesystems are not supported."
_DAMAGED = (
    "Nothing is sent without an intact ledger. Restore it from a backup. `pixxel-runner ledger export` prints what can "
    "still be read."
)
_NOT_A_LEDGER = "Check the path. If it was a ledger, restore it from a backup."
_LOCKED = "Another program has it locked. Find out which one (with fuser, for example), then run again."
_HINTS = {
    "SQLITE_FULL": "Free some disk space there. Nothing is sent that cannot be recorded.",
    "SQLITE_READONLY": "Make the file and its directory writable for this user, or choose another with --ledger.",
    "SQLITE_CANTOPEN": "Its directory must exist and be writable for this user.",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _NOT_A_LEDGER,
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_IOERR": "The disk reports errors (see the system log), or a limit on file sizes applies (ulimit -f).",
    "SQLITE_PROTOCOL": LOCAL_DISK_ONLY,
}


class LedgerError(RefusedError):
    """The ledger can't be read or written, so nothing (more) is sent."""


def damaged(path: Path, reason: str) -> LedgerError:
    """The error for a ledger whose content is not what this program wrote."""
    return LedgerError(f"the ledger {path} is damaged: {reason}", _DAMAGED)


@dataclass(frozen=True, slots=True)
class translate_errors:  # noqa: N801 - a context manager on the way of each statement, where a generator is slow
    """Raise LedgerError in place of errors of SQLite and the filesystem."""

    path: Path

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Raise LedgerError in place of the error."""
        match error:
            case None | sqlite3.IntegrityError():
                pass  # a constraint of the schema: a bug or a conflict, and not the disk's fault
            case sqlite3.Error():
                name = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
                hint = _HINTS.get(name, "")
                if hint is _DAMAGED:
                    raise damaged(self.path, str(error)) from error
                if hint is _NOT_A_LEDGER:
                    raise LedgerError(f"{self.path} is not a ledger", hint) from error
                raise LedgerError(f"the ledger {self.path} cannot be used: {error}", hint) from error
            case UnicodeError():  # in SQLite's own message about a page of garbage
                raise damaged(self.path, "unreadable page") from error
            case OSError():
                hint = _HINTS["SQLITE_CANTOPEN"]
                raise LedgerError(f"the ledger {self.path} cannot be used: {error.strerror}", hint) from error


@contextmanager
def reject_invalid_values(path: Path) -> Iterator[None]:
    """Raise LedgerError in place of what decoding raises for a value that this program never writes."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, zlib.error) as error:
        raise damaged(path, f"invalid value ({error})") from error
