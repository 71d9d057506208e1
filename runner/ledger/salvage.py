"""Reading all submissions of a ledger as it lies there, damaged or not: what can be read, and word of what cannot.

Nothing is checked, repaired or brought to another version first, so that a damaged file gives what it still has.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.ledger import rows
from runner.ledger.connect import LedgerError

_LEAST_ROW = 64  # bytes: no submission is smaller, which bounds how many a file can have
_JSON = ("labels", "error", "candidates")
_BROKEN = (sqlite3.DatabaseError, UnicodeError)  # the latter of SQLite's own words about a page that is garbled
_FLAGS = ("again", "recovered", "assigned")


@dataclass(frozen=True, slots=True)
class SalvagedSubmission:
    """One submission: its fields by their names, the answer that created its job, and what was decided of it later."""

    fields: dict[str, Any]
    body: bytes | None
    decisions: list[dict[str, Any]]


@dataclass(slots=True)
class SalvageReader:
    """A ledger opened to be read as it is. `losses` says what could not be read, once all has been gone through."""

    connection: sqlite3.Connection
    losses: list[str] = field(default_factory=list)

    def submissions(self) -> Iterator[SalvagedSubmission]:
        """Every submission that can be read, in the order in which they were first claimed."""
        manifests = {row["id"]: row for row in self._walk("manifests", "id")}
        decisions: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in self._walk("decisions", "id"):
            told = {name: _read(name, row[name]) for name in row if name not in ("id", "submission")}
            decisions[row["submission"]].append(told)
        for row in self._walk("submissions", "id"):
            whose = manifests.get(row["manifest"])
            fields = {name: _read(name, value) for name, value in row.items()}
            fields["manifest"] = _read("name", whose["name"]) if whose else None
            yield SalvagedSubmission(fields, self._body(row["id"]), decisions[row["id"]])

    def _body(self, submission: int) -> bytes | None:
        try:
            found = self.connection.execute("SELECT body FROM answers WHERE submission = ?", (submission,)).fetchone()
        except _BROKEN as error:
            self.losses.append(f"the API's answer for submission {submission}: {error}")
            return None
        body = found["body"] if found else None
        if body is not None and not isinstance(body, bytes):
            self.losses.append(f"the API's answer for submission {submission}: it is not bytes")
            return None
        return body

    def _walk(self, table: str, key: str) -> Iterator[dict[str, Any]]:
        """The rows of a table in the order of their numbers: in one go, and one by one from where that fails."""
        last = 0
        try:
            for row in self.connection.execute(f"SELECT * FROM {table} ORDER BY {key}"):  # noqa: S608 - our own words
                last = row[key]
                yield dict(row)
        except _BROKEN as error:
            self.losses.append(f"some {table} after number {last}: {error}")
        else:
            return
        for number in range(last + 1, self._last(table, key) + 1):
            row = self._row(table, key, number)
            if row is not None:
                yield row

    def _row(self, table: str, key: str, number: int) -> dict[str, Any] | None:
        query = f"SELECT * FROM {table} WHERE {key} = ?"  # noqa: S608 - our own words
        try:
            row = self.connection.execute(query, (number,)).fetchone()
        except _BROKEN:
            return None
        return dict(row) if row else None

    def _last(self, table: str, key: str) -> int:
        """A number that no row of the table is above."""
        try:
            return int(self.connection.execute(f"SELECT max({key}) FROM {table}").fetchone()[0] or 0)  # noqa: S608 - our own words
        except _BROKEN:
            [pages] = self.connection.execute("PRAGMA page_count").fetchone()
            [size] = self.connection.execute("PRAGMA page_size").fetchone()
            return int(pages * size // _LEAST_ROW)


@contextmanager
def open_ledger(path: Path) -> Iterator[SalvageReader]:
    """Open a ledger to be read as it is.

    Raises:
        LedgerError: nothing of it can be read.
    """
    try:
        connection = _connect(path)
    except _BROKEN as error:
        raise _unreadable(path, str(error)) from error
    with closing(connection):
        yield SalvageReader(connection)


def _connect(path: Path) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    try:
        return _begin(sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None))
    except sqlite3.OperationalError:
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise
        # A folder that can't be written has no room for the files of a write-ahead log. There is none to be read.
        return _begin(sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None))


def _begin(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Have all reads see one moment of the ledger, also while a run goes on."""
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM submissions LIMIT 0")
    except BaseException:
        connection.close()
        raise
    return connection


def _unreadable(path: Path, why: str) -> LedgerError:
    return LedgerError(
        f"nothing can be read of the ledger {path}: {why}",
        "Bring it back from a backup, or name another: --ledger.",
    )


def _read(name: str, value: Any) -> Any:
    """A field's value as it is meant; as it is kept, or as text, where that can't be made of it. JSON can hold it."""
    if name in _FLAGS:
        return bool(value)
    if name in _JSON and isinstance(value, str):
        return _from_json(value)
    if isinstance(value, bytes):
        return _from_blob(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # 1e999 would be Infinity, which is no JSON
    except (ValueError, RecursionError):
        return text
    return value


def _from_blob(value: bytes) -> str | None:
    """Text that is not valid Unicode is kept as a blob."""
    try:
        return rows.from_sql(value)
    except UnicodeDecodeError:
        return value.decode("utf-8", "surrogateescape")
