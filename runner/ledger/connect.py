"""How a ledger is created and opened: complete, checked, migrated to the latest version, and safe to write."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from runner.core.atomic_file import sync_directory
from runner.ledger import integrity, schema
from runner.ledger.errors import LOCAL_DISK_ONLY, LedgerError, translate_errors

_MIN_SQLITE = (3, 33)  # the first with UPDATE … FROM
_BUSY_TIMEOUT = 30.0  # seconds: another manifest's run may hold the file for a commit, not longer


def create_ledger(path: Path) -> None:
    """Create a new ledger. Raises LedgerError if there is one already, or it can't be created."""
    if not create_if_missing(path):
        raise LedgerError(f"{path} already exists", "A ledger is never overwritten: choose another path.")


def create_if_missing(path: Path) -> bool:
    """Create a new ledger: complete or not at all, and never in place of another file.

    Returns:
        False if there is a file already, such as one that another run created at the same time.

    Raises:
        LedgerError: it can't be created.
    """
    temporary = path.with_name(f"{path.name}.new-{secrets.token_hex(4)}")
    with translate_errors(path):
        _refuse_orphaned_log(path)
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with closing(_open(temporary)) as connection:
                _prepare(connection, temporary)
                # Closing would checkpoint, too, but ignore a failure: on a full disk the file would be incomplete.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                integrity.refuse_truncated(connection, temporary)
            os.link(temporary, path)  # unlike a rename, it fails if there is a file by now
            sync_directory(path.parent)
        except FileExistsError:
            return False
        finally:
            for leftover in (temporary, Path(f"{temporary}-wal"), Path(f"{temporary}-shm")):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)
    return True


def _refuse_orphaned_log(path: Path) -> None:
    """Refuse a log without its ledger: SQLite would delete it, and it may hold the only trace of created jobs."""
    if not path.exists() and integrity.has_log(path):
        raise LedgerError(
            f"the ledger {path} is missing, but its write-ahead log {integrity.wal_path(path)} is there",
            "Restore the ledger beside its log. To start a new one on purpose, move the log away.",
        )


def require_exists(path: Path) -> None:
    """Raise LedgerError if there is no ledger at a path."""
    with translate_errors(path):
        exists = path.exists()
    if not exists:
        raise LedgerError(
            f"there is no ledger at {path}",
            "Without it, every job would be submitted again. Restore it from a backup, or start a new one on purpose: "
            f"pixxel-runner ledger init {path}",
        )


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a ledger and check it. To write, it is also migrated to the latest version and checkpointed.

    `read_only` works on a disk or in a directory that cannot be written, too.

    Raises:
        LedgerError: it is missing, damaged, of a newer version, or not writable; or the disk is full.
    """
    require_exists(path)
    with translate_errors(path):
        integrity.refuse_unsafe_file(path)
        connection = _open(read_only_uri(path) if read_only else path)
        try:
            integrity.check(connection, path)
            if not read_only:
                _prepare(connection, path)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except BaseException:
            connection.close()
            raise
    return connection


def read_only_uri(path: Path) -> str:
    """The URI of a file to read: `immutable` where SQLite could not create the index of a log, if there is no log."""
    mode = "mode=ro" if integrity.has_log(path) or os.access(path.parent, os.W_OK) else "immutable=1"
    return f"{path.resolve().as_uri()}?{mode}"


def _open(target: Path | str) -> sqlite3.Connection:
    """Connect to a file, or to a URI."""
    if sqlite3.sqlite_version_info < _MIN_SQLITE:
        raise LedgerError(
            f"the ledger needs SQLite 3.33 or later, and this Python has {sqlite3.sqlite_version}",
            "Use a Python with a newer SQLite: `python -c 'import sqlite3; print(sqlite3.sqlite_version)'` prints it.",
        )
    connection = sqlite3.connect(target, timeout=_BUSY_TIMEOUT, isolation_level=None, uri=isinstance(target, str))
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set how the file is written, and migrate it to the latest version."""
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise LedgerError(f"the ledger {path} cannot use a write-ahead log", LOCAL_DISK_ONLY)
    connection.execute("PRAGMA synchronous = FULL")  # an intent is on the disk before its request can leave
    connection.execute("PRAGMA fullfsync = ON")  # on macOS: through the cache of the drive, too, as on Linux
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    latest = schema.latest_version()
    schema.migrate(connection, version, latest)
    if version < latest:
        connection.execute(f"PRAGMA user_version = {latest}")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("COMMIT")
