"""Reads the submissions of a ledger as it is, damaged or not: all that can be read, and what is lost.

Nothing is checked, repaired or migrated first, so that a damaged file gives what it still has.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.core.models import ErrorInfo
from runner.ledger import rows
from runner.ledger.connect import read_only_uri
from runner.ledger.errors import LedgerError
from runner.ledger.rows import SubmissionRow

_MIN_ROW = 64  # bytes: no submission is smaller, which bounds how many a file can have
_DATABASE_ERRORS = (sqlite3.DatabaseError, UnicodeError)  # the latter in SQLite's own message about a page of garbage
_FLAGS = rows.columns_of_type(SubmissionRow, bool)
_JSON = rows.columns_of_type(SubmissionRow, Mapping[str, str], ErrorInfo, tuple[str, ...])


@dataclass(frozen=True, slots=True)
class SalvagedSubmission:
    """One submission: its columns by name, the body of the response that created its job, and decisions on it."""

    fields: dict[str, Any]
    body: bytes | None
    decisions: list[dict[str, Any]]


@dataclass(slots=True)
class SalvageReader:
    """Reads a ledger as it is. `losses` says what could not be read, complete once all submissions have been."""

    connection: sqlite3.Connection
    losses: list[str] = field(default_factory=list)

    def submissions(self) -> Iterator[SalvagedSubmission]:
        """Every submission that can be read, in the order in which they were first claimed."""
        manifests = {row["id"]: row["name"] for row in self._read_table("manifests")}
        decisions: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in self._read_table("decisions"):
            fields = {name: _decode(name, row[name]) for name in row if name not in ("id", "submission")}
            decisions[row["submission"]].append(fields)
        for row in self._read_table("submissions"):
            fields = {name: _decode(name, value) for name, value in row.items()}
            fields["manifest"] = _decode("name", manifests.get(row["manifest"]))
            yield SalvagedSubmission(fields, self._read_body(row["id"]), decisions[row["id"]])

    def _read_body(self, submission: int) -> bytes | None:
        try:
            query = "SELECT body FROM responses WHERE submission = ?"
            row = self.connection.execute(query, (submission,)).fetchone()
        except _DATABASE_ERRORS as error:
            self.losses.append(f"the response for submission {submission}: {error}")
            return None
        if row is not None and not isinstance(row["body"], bytes):
            self.losses.append(f"the response for submission {submission}: not bytes")
            return None
        return row["body"] if row else None

    def _read_table(self, table: str) -> Iterator[dict[str, Any]]:
        """The rows of a table by their ids: at once, and one by one from where that fails."""
        last = 0
        try:
            for row in self.connection.execute(f"SELECT * FROM {table} ORDER BY id"):  # noqa: S608 - constants
                last = row["id"]
                yield dict(row)
        except _DATABASE_ERRORS as error:
            self.losses.append(f"some {table} after number {last}: {error}")
        else:
            return
        for number in range(last + 1, self._max_id(table) + 1):
            row = self._read_row(table, number)
            if row is not None:
                yield row

    def _read_row(self, table: str, number: int) -> dict[str, Any] | None:
        query = f"SELECT * FROM {table} WHERE id = ?"  # noqa: S608 - constants
        try:
            row = self.connection.execute(query, (number,)).fetchone()
        except _DATABASE_ERRORS:
            return None
        return dict(row) if row else None

    def _max_id(self, table: str) -> int:
        """A number that no id of the table exceeds."""
        try:
            return int(self.connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0)  # noqa: S608 - constants
        except _DATABASE_ERRORS:
            [pages] = self.connection.execute("PRAGMA page_count").fetchone()
            [page_size] = self.connection.execute("PRAGMA page_size").fetchone()
            return int(pages * page_size // _MIN_ROW)


@contextmanager
def open_ledger(path: Path) -> Iterator[SalvageReader]:
    """Open a ledger to be read as it is.

    Raises:
        LedgerError: nothing of it can be read.
    """
    try:
        connection = _connect(path)
    except _DATABASE_ERRORS as error:
        raise LedgerError(
            f"the ledger {path} cannot be read at all: {error}",
            "Restore it from a backup, or choose another with --ledger.",
        ) from error
    with closing(connection):
        yield SalvageReader(connection)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(read_only_uri(path), uri=True, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        connection.execute("BEGIN")  # one snapshot, even while a run is active
        connection.execute("SELECT 1 FROM submissions LIMIT 0")
    except BaseException:
        connection.close()
        raise
    return connection


def _decode(name: str, value: Any) -> Any:
    """A column's value as it is meant, or as text if it is damaged. JSON can represent it."""
    if name in _FLAGS:
        return bool(value)
    if name in _JSON and isinstance(value, str):
        return _decode_json(value)
    if isinstance(value, bytes):
        return _decode_blob(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _decode_json(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # 1e999 would be Infinity, which JSON does not have
    except (ValueError, RecursionError):
        return text
    return value


def _decode_blob(value: bytes) -> str | None:
    """Text that is not valid Unicode, which is stored as a blob."""
    try:
        return rows.from_sql(value)
    except UnicodeDecodeError:
        return value.decode("utf-8", "surrogateescape")
