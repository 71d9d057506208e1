"""An open ledger file: transactions, statements, and the check that it is still the same file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from runner.ledger.connect import connect
from runner.ledger.errors import LedgerError, reject_invalid_values, translate_errors
from runner.ledger.integrity import check_content, file_identity, wal_path
from runner.ledger.rows import decode, to_sql

_BATCH = 128  # rows of one statement; what an engine commits at once is rarely more

_T = TypeVar("_T")


class Database:
    """An open ledger. A context manager; closing it checkpoints the write-ahead log into the file.

    `read_only` opens it where nothing may be written, and writes nothing.

    Every method raises LedgerError when the file or the disk fails; what it was to write is then not written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._connection = connect(path, read_only=read_only)
        self._identity = file_identity(path)
        self._log = wal_path(path)
        self._log_identity: tuple[int, int] | None = None  # there is a log from the first commit on

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
        """Check every page, however large the file is. Raises LedgerError for damage."""
        with translate_errors(self.path):
            check_content(self._connection, self.path)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that is written inside, or nothing. It is durable when the context ends."""
        with translate_errors(self.path):
            self._refuse_replaced_file()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
                self._log_identity = self._log_identity or file_identity(self._log)
            except BaseException:
                if self._connection.in_transaction:  # on a full disk SQLite may have rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def _refuse_replaced_file(self) -> None:
        """Refuse to write to a file that was deleted or replaced: SQLite would go on, and what it writes be lost."""
        for file, identity in ((self.path, self._identity), (self._log, self._log_identity)):
            if identity is not None and file_identity(file) != identity:
                raise LedgerError(
                    f"the ledger {self.path} was deleted or replaced while in use"
                    + ("" if file == self.path else f": {file} is not the same file"),
                    "Restore the original if you can: it records what was sent so far.",
                )

    def execute(self, statement: str, *values: Any) -> int:
        """Execute one statement of a transaction, and return how many rows it changed."""
        return self._connection.execute(statement, to_sql(values)).rowcount

    def insert(self, table: str, *rows: Mapping[str, Any], conflict: str = "") -> int:
        """Insert rows of the same columns with one statement, and return how many rows it changed."""
        statement = f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES {marks(len(rows[0]), len(rows))} {conflict}"  # noqa: S608 - names
        return self.execute(statement, *[value for row in rows for value in row.values()])

    def query(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        with translate_errors(self.path):
            return self._connection.execute(query, to_sql(values)).fetchall()

    def decode_all(self, row_type: type[_T], query: str, *values: Any) -> list[_T]:
        """All rows of a query, decoded; an invalid value is damage of the ledger."""
        found = self.query(query, *values)
        with reject_invalid_values(self.path):
            return [decode(row_type, row) for row in found]


def batches(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Values in portions that one statement can take."""
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]


def marks(columns: int, rows: int | None = None) -> str:
    """Placeholders for values: `?, ?`, or for rows of them: `(?, ?), (?, ?)`."""
    row = ", ".join("?" * columns)
    return row if rows is None else ", ".join([f"({row})"] * rows)
