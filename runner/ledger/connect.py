"""How a ledger is made and opened, and what is said when it can't be: the program sends nothing without its record."""

from __future__ import annotations

import glob
import os
import re
import secrets
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.core.atomic_file import sync_directory
from runner.core.errors import RefusedError
from runner.ledger.schema import APPLICATION_ID, MIGRATIONS

VERSION = len(MIGRATIONS)
_LEAST_SQLITE = (3, 33)  # the first with UPDATE … FROM
_BUSY = 30.0  # seconds: another manifest's run may hold the file for the time of a commit, not longer
_QUICK = (
    64 * 2**20
)  # bytes up to which a ledger is looked through when it is opened: that takes some tenths of a second


class LedgerError(RefusedError):
    """The ledger can't be read or written, so nothing (more) is sent."""


def create_ledger(path: Path) -> None:
    """Make a new ledger: whole or not at all, and never in the place of another.

    Raises:
        LedgerError: it exists already, or can't be made.
    """
    new = path.with_name(f"{path.name}.new-{secrets.token_hex(4)}")
    with translate_errors(path):
        _refuse_orphan(path)
        try:
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with closing(_connect(new)) as connection:
                _prepare(connection, new)
                # Closing would fold the log into the file as well, and say nothing where that fails: its disk is full.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                _refuse_cut_off(connection, new)
            os.link(new, path)  # unlike a rename it fails where there is one: two may be starting at once
            sync_directory(path.parent)
        except FileExistsError:
            raise LedgerError(f"{path} exists already", "A ledger is never overwritten: name another path.") from None
        finally:
            for leftover in (new, Path(f"{new}-wal"), Path(f"{new}-shm")):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)


def _refuse_orphan(path: Path) -> None:
    """A log without its ledger is what is left of one: SQLite would throw it away with a new ledger."""
    log = Path(f"{path}-wal")
    if not path.exists() and log.exists() and log.stat().st_size:
        raise LedgerError(
            f"the ledger {path} is gone, and its log {log} is still there",
            "Bring the ledger back beside it. To begin a new one on purpose, move the log away.",
        )


def connect(path: Path, *, make: bool) -> sqlite3.Connection:
    """Open a ledger, brought to today's version, checked and checkpointed.

    Args:
        path: the file.
        make: make it where there is none; otherwise that is an error.

    Raises:
        LedgerError: it is missing, corrupt, of a newer version, read-only, or the disk is full.
    """
    if not make:
        require_exists(path)
    else:
        with translate_errors(path):
            missing = not path.exists()
        if missing:
            create_if_missing(path)
    with translate_errors(path):
        _refuse_special(path)
        connection = _connect(path)
        try:
            _check(connection, path)
            _prepare(connection, path)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except BaseException:
            connection.close()
            raise
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a ledger to read it alone, checked: on a disk or in a folder that cannot be written, too.

    Raises:
        LedgerError: it is missing, corrupt or of another version.
    """
    require_exists(path)
    with translate_errors(path):
        _refuse_special(path)
        how = _how_to_read(path)
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, timeout=_BUSY, isolation_level=None)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            _check(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _how_to_read(path: Path) -> str:
    """Without a log nothing is to be read beside the file; SQLite would make one's index where it may not write."""
    log = Path(f"{path}-wal")
    kept = log.exists() and log.stat().st_size
    return "mode=ro" if kept or os.access(path.parent, os.W_OK) else "immutable=1"


def require_exists(path: Path) -> None:
    """Raise LedgerError when there is no ledger at a path."""
    with translate_errors(path):
        there = path.exists()
    if not there:
        raise LedgerError(
            f"there is no ledger at {path}",
            "Without its record every job would be submitted again. Bring the ledger back from where it is kept, "
            f"or begin a new one on purpose: pixxel-runner ledger init {path}",
        )


def create_if_missing(path: Path) -> bool:
    """Make a new ledger; False when another run that started at the same time was quicker. Raises LedgerError."""
    try:
        create_ledger(path)
    except LedgerError:
        if not path.exists():
            raise
        return False
    return True


def _refuse_special(path: Path) -> None:
    """Refuse a pipe, which would be waited for without end, and whatever else no ledger is; links in a log's place too.

    The ledger itself may be reached by a symbolic link. What SQLite keeps beside it is never one unless somebody
    planted it.
    """
    modes = {path: path.stat().st_mode}
    for one in _beside(path):
        with suppress(FileNotFoundError):
            modes[one] = one.lstat().st_mode
    for one, mode in modes.items():
        if not stat.S_ISREG(mode):
            raise LedgerError(
                f"the ledger {path} cannot be used: {one} is no plain file",
                "Name another with --ledger, or see who put that there.",
            )
    _refuse_second_name(path)


def _refuse_second_name(path: Path) -> None:
    """Refuse a file that has a second name somewhere: by each there would be another log, and another lock."""
    # What a process that makes the ledger has for a moment, and leaves when it is killed, is one, and nobody opens it.
    # Looked for first: meanwhile they become fewer, and not more.
    makers = [file_identity(one) for one in path.parent.glob(f"{glob.escape(path.name)}.new-*")]
    found = path.stat()
    if found.st_nlink > 1 + makers.count((found.st_dev, found.st_ino)):
        raise LedgerError(
            f"the ledger {path} has {found.st_nlink} names (hard links), and by each it would be another ledger",
            "Keep one of them, and delete the others; a symbolic link to it does no harm.",
        )
    if _is_mount_point(path.resolve()):
        raise LedgerError(
            f"the ledger {path} is mounted as a file by itself: what SQLite keeps beside it would be somewhere else",
            "Mount the folder that it is in.",
        )


def _is_mount_point(path: Path) -> bool:
    """Whether a file is one, as far as the system tells: by `os.path.ismount` a bind mount is none."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return False
    # The fifth field, in which spaces and the like are written in octal: proc(5).
    points = (
        re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split(" ")[4]) for line in mounts.splitlines()
    )
    return str(path) in points


def file_identity(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to; None when to none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def wal_path(path: Path) -> Path:
    """The write-ahead log of a ledger: by a link, that of the ledger itself."""
    return Path(f"{path.resolve()}-wal")


def _beside(path: Path) -> tuple[Path, Path]:
    """The files that SQLite keeps beside a ledger while it is in use."""
    return wal_path(path), Path(f"{path.resolve()}-shm")


def _refuse_cut_off(connection: sqlite3.Connection, path: Path) -> None:
    """See that the file is as long as its head says; SQLite itself takes a last page that is cut off for a whole one.

    While there is a log, the head may be ahead of the file. The head is asked for, and not read here: closing any
    descriptor of the file would end all locks that this process has on it, those of other threads' connections too
    (section 2.2 of https://sqlite.org/howtocorrupt.html).
    """
    [(pages,)], [(size,)] = (connection.execute(f"PRAGMA {name}").fetchall() for name in ("page_count", "page_size"))
    # In this order: another process may be writing to the log, and fold it into the file, just now.
    log = wal_path(path)
    is_ahead = log.exists() and log.stat().st_size
    if not is_ahead and path.stat().st_size < pages * size:
        raise LedgerError(f"the ledger {path} is damaged: it is cut off", _DAMAGED)


def _connect(path: Path) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise LedgerError(
            f"this Python has SQLite {sqlite3.sqlite_version}, and the ledger needs 3.33 or later",
            "Use another build of Python: `python -c 'import sqlite3; print(sqlite3.sqlite_version)'` tells.",
        )
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set how it is written, and bring it to today's version."""
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise LedgerError(f"the ledger {path} cannot use a write-ahead log", _NETWORK)
    connection.execute("PRAGMA synchronous = FULL")  # an intent is on the disk before its request can leave
    connection.execute("PRAGMA fullfsync = ON")  # on macOS: through the drive's own cache, too, as on Linux
    connection.execute("BEGIN IMMEDIATE")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    for statements in MIGRATIONS[found:]:
        for statement in statements:
            connection.execute(statement)
    if found < VERSION:
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    _refuse_cut_off(connection, path)
    connection.execute("BEGIN")  # one look at all of it: another process may be bringing it to a new version just now
    try:
        _check_version(connection, path)
    finally:
        if connection.in_transaction:  # on a failing disk SQLite may have ended it by itself
            connection.execute("ROLLBACK")
    if path.stat().st_size <= _QUICK:
        check_integrity(connection, path, "integrity_check")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LedgerError(
            f"{path} is not a ledger, or what it held is lost",
            "Bring it back from a backup, or name another with --ledger. A new one knows of no job that was created.",
        )
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise LedgerError(
            f"the ledger {path} was written by a newer pixxel-runner (version {found}, this one knows {VERSION})",
            "Update pixxel-runner on this machine.",
        )
    if _schema(connection) != _expected(found):
        raise LedgerError(f"the ledger {path} is damaged: its tables are not those of this program", _DAMAGED)


def _schema(connection: sqlite3.Connection) -> list[Any]:
    return connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def _expected(version: int) -> list[Any]:
    """The schema that a ledger of a version has."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statements in MIGRATIONS[:version]:
            for statement in statements:
                connection.execute(statement)
        return _schema(connection)


@contextmanager
def reject_invalid_values(path: Path) -> Iterator[None]:
    """Turn a value that this program did not write into words."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, zlib.error) as error:
        raise LedgerError(f"the ledger {path} is damaged: it holds a value that is none ({error})", _DAMAGED) from error


def check_integrity(connection: sqlite3.Connection, path: Path, pragma: str) -> None:
    """Look through the file with `quick_check` or `integrity_check`, and see that nothing in it refers to nothing.

    Raises LedgerError when it is not whole.
    """
    words = [row[0] for row in connection.execute(f"PRAGMA {pragma}(3)")]
    if words != ["ok"]:
        raise LedgerError(f"the ledger {path} is damaged: {'; '.join(words)}", _DAMAGED)
    stray = connection.execute("PRAGMA foreign_key_check").fetchone()
    if stray is not None:
        what = f"something in `{stray[0]}` belongs to what is not in `{stray[2]}`"
        raise LedgerError(f"the ledger {path} is damaged: {what}", _DAMAGED)


_NETWORK = "It must be on a disk of this machine: network file systems are not supported."
_DAMAGED = (
    "Nothing was sent. Bring it back from a backup; what it still holds can be read with: pixxel-runner ledger export"
)
_HINTS = {
    "SQLITE_FULL": "Free some space there: nothing more is sent without a record.",
    "SQLITE_READONLY": "Make the file and its folder writable for this user, or name another ledger with --ledger.",
    "SQLITE_CANTOPEN": "Its folder must exist and be writable for this user.",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_BUSY": "Another program holds it: find out which (fuser), and try again.",
    "SQLITE_LOCKED": "Another program holds it: find out which (fuser), and try again.",
    "SQLITE_IOERR": "The disk answers with errors (see the system's log), or file sizes are limited (ulimit -f).",
    "SQLITE_PROTOCOL": _NETWORK,
}


@dataclass(frozen=True, slots=True)
class translate_errors:  # noqa: N801 - as contextlib's: it is on the way of each statement, where a generator is slow
    """Turn what SQLite and the disk say into words: what is wrong, where, and what to do."""

    path: Path

    def __enter__(self) -> None:
        """Nothing is wrong yet."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Raise LedgerError in place of what went wrong."""
        match error:
            case None | sqlite3.IntegrityError():
                pass  # a rule of the record was about to be broken: a bug, and not the disk's fault
            case sqlite3.Error():
                name = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
                what = "is damaged" if _HINTS.get(name) is _DAMAGED else "cannot be used"
                raise LedgerError(f"the ledger {self.path} {what}: {error}", _HINTS.get(name, "")) from error
            case UnicodeError():  # of SQLite's own words about a page that is garbled
                raise LedgerError(f"the ledger {self.path} is damaged", _DAMAGED) from error
            case OSError():
                hint = _HINTS["SQLITE_CANTOPEN"]
                raise LedgerError(f"the ledger {self.path} cannot be made: {error.strerror}", hint) from error
