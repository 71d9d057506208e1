"""Checks that a ledger's file is safe to use and undamaged: what SQLite itself would accept without notice."""

from __future__ import annotations

import glob
import re
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from runner.ledger import schema
from runner.ledger.errors import LedgerError, damaged

_MAX_CHECKED_SIZE = 64 * 2**20  # bytes: to check as much takes some tenths of a second each time it is opened


def file_identity(path: Path) -> tuple[int, int] | None:
    """The device and inode of a path; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def wal_path(path: Path) -> Path:
    """The write-ahead log of a ledger, beside the file that a symbolic link leads to."""
    return Path(f"{path.resolve()}-wal")


def has_log(path: Path) -> bool:
    """Whether there is a write-ahead log that is not empty."""
    log = wal_path(path)
    return log.exists() and log.stat().st_size > 0


def refuse_unsafe_file(path: Path) -> None:
    """Refuse anything but a regular file of one name, as a ledger and as SQLite's files beside it.

    A pipe would be waited for forever. The ledger itself may be reached by a symbolic link; SQLite's files are never
    links unless somebody planted them.
    """
    modes = {path: path.stat().st_mode}
    for companion in (wal_path(path), Path(f"{path.resolve()}-shm")):
        with suppress(FileNotFoundError):
            modes[companion] = companion.lstat().st_mode
    for file, mode in modes.items():
        if not stat.S_ISREG(mode):
            raise LedgerError(
                f"the ledger {path} cannot be used: {file} is not a regular file",
                "Find out who created it, or choose another ledger with --ledger.",
            )
    _refuse_second_name(path)


def _refuse_second_name(path: Path) -> None:
    """Refuse a file with a second name: by each name it would have another write-ahead log and another lock."""
    # A process that creates the ledger gives it a second name for a moment, and leaves that behind when it is killed.
    # Nobody opens that one. Looked for first, as these names only become fewer meanwhile.
    temporary = [file_identity(file) for file in path.parent.glob(f"{glob.escape(path.name)}.new-*")]
    status = path.stat()
    if status.st_nlink > 1 + temporary.count((status.st_dev, status.st_ino)):
        raise LedgerError(
            f"the ledger {path} has {status.st_nlink} hard links, and SQLite would treat each as a separate ledger",
            "Keep one name and delete the others. A symbolic link is fine.",
        )
    if _is_mount_point(path.resolve()):
        raise LedgerError(
            f"the ledger {path} is a mount point: SQLite's files beside it would be stored elsewhere",
            "Mount its directory instead.",
        )


def _is_mount_point(path: Path) -> bool:
    """Whether a file is mounted by itself, if the system says so: `os.path.ismount` misses bind mounts."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return False
    # The fifth field, in which spaces and the like are octal escapes: proc(5).
    points = (
        re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split(" ")[4]) for line in mounts.splitlines()
    )
    return str(path) in points


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Check an open ledger: its length, its version and schema, and all of its content unless it is large.

    Raises:
        LedgerError: it is damaged, of a newer version, or not a ledger.
    """
    refuse_truncated(connection, path)
    connection.execute("BEGIN")  # one snapshot: another process may be migrating it
    try:
        _check_schema(connection, path)
    finally:
        if connection.in_transaction:  # on a failing disk SQLite may have ended it by itself
            connection.execute("ROLLBACK")
    if path.stat().st_size <= _MAX_CHECKED_SIZE:
        check_content(connection, path)


def refuse_truncated(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file shorter than its header says: SQLite takes a truncated last page for a complete one.

    While there is a log, the header may be ahead of the file. SQLite is asked for the header, as closing any other
    descriptor of the file would release all locks that this process has on it, those of other threads' connections too
    (section 2.2 of https://sqlite.org/howtocorrupt.html).
    """
    [(pages,)], [(page_size,)] = (
        connection.execute(f"PRAGMA {name}").fetchall() for name in ("page_count", "page_size")
    )
    # In this order: another process may be writing to the log and checkpointing it just now.
    if not has_log(path) and path.stat().st_size < pages * page_size:
        raise damaged(path, "the file is truncated")


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
        raise LedgerError(
            f"{path} is not a ledger, or has lost its content",
            "Restore it from a backup, or choose another with --ledger. A new ledger does not know which jobs exist.",
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    latest = schema.latest_version()
    if version > latest:
        raise LedgerError(
            f"the ledger {path} was written by a newer pixxel-runner (ledger version {version}; this one supports "
            f"{latest})",
            "Upgrade pixxel-runner on this machine.",
        )
    if _schema(connection) != _expected_schema(version):
        raise damaged(path, "its schema is not that of its version")


def _schema(connection: sqlite3.Connection) -> list[Any]:
    return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def _expected_schema(version: int) -> list[Any]:
    with closing(sqlite3.connect(":memory:")) as connection:
        schema.migrate(connection, 0, version)
        return _schema(connection)


def check_content(connection: sqlite3.Connection, path: Path) -> None:
    """Check every page, every index against its table, and every reference. Raises LedgerError for damage."""
    messages = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
    if messages != ["ok"]:
        raise damaged(path, "; ".join(messages))
    dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
    if dangling is not None:
        raise damaged(path, f"a row of `{dangling[0]}` refers to a missing row of `{dangling[2]}`")
