"""An open ledger file: its transactions, its statements, and that it is the same file still."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from runner.ledger import rows
from runner.ledger.connect import (
    LedgerError,
    check_integrity,
    connect,
    connect_read_only,
    create_if_missing,
    file_identity,
    require_exists,
    translate_errors,
    wal_path,
)

_MOST_VALUES = 500  # in one statement

_T = TypeVar("_T")


class Database:
    """An open ledger. A context manager; closing it folds the write-ahead log into the file.

    `read_only` opens it where nothing may be written, and writes nothing.

    Every method raises LedgerError when the file or the disk fails; what it was to write is then not written.
    """

    def __init__(self, path: Path, *, make: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._connection = connect_read_only(path) if read_only else connect(path, make=make)
        self._identity = file_identity(path)
        self._log = wal_path(path)
        self._log_identity: tuple[int, int] | None = None  # there is one from the first commit on

    @staticmethod
    def require_exists(path: Path) -> None:
        """Raise LedgerError when there is no ledger at a path."""
        require_exists(path)

    @staticmethod
    def create_if_missing(path: Path) -> bool:
        """Make a ledger where there is none, and say whether this was who made it. Raises LedgerError."""
        return create_if_missing(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Checkpoint and close. What can't be checkpointed stays in the log, which is as durable."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def check_integrity(self) -> None:
        """Look through every page. Raises LedgerError when something is damaged."""
        with translate_errors(self.path):
            check_integrity(self._connection, self.path, "integrity_check")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside, or nothing. Durable when it ends."""
        with translate_errors(self.path):
            self._see_that_it_is_there()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
                self._log_identity = self._log_identity or file_identity(self._log)
            except BaseException:
                if self._connection.in_transaction:  # on a full disk SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def _see_that_it_is_there(self) -> None:
        """SQLite goes on writing to a file that was deleted or replaced, and its record would be lost with it."""
        gone = [
            file
            for file, was in ((self.path, self._identity), (self._log, self._log_identity))
            if was is not None and file_identity(file) != was
        ]
        if gone:
            raise LedgerError(
                f"the ledger {self.path} was deleted or replaced while it was in use"
                + (f": {gone[0]} is no longer what it was" if gone[0] != self.path else ""),
                "Bring back the one that was there, if you can: it holds what was sent so far.",
            )

    def execute(self, statement: str, *values: Any) -> int:
        """Run one statement of a transaction; how many rows it changed."""
        cursor = self._connection.execute(
            statement, [rows.to_sql(value) if isinstance(value, str) else value for value in values]
        )
        return cursor.rowcount

    def query(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        with translate_errors(self.path):
            return self._connection.execute(query, values).fetchall()


def batches(values: Sequence[_T], most: int = _MOST_VALUES) -> Iterator[Sequence[_T]]:
    """Values in portions that a statement can take."""
    for start in range(0, len(values), most):
        yield values[start : start + most]


def marks(values: Sequence[Any]) -> str:
    """A mark for each value of a statement."""
    return ", ".join("?" * len(values))
