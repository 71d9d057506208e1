"""Damages a ledger between two runs, and restores it from a backup."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from support.campaign_invariants import files_of

PAGE = 4096


def _removed(ledger: Path, _random: random.Random) -> None:
    for path in files_of(ledger):
        path.unlink()


def _emptied(ledger: Path, _random: random.Random) -> None:
    _removed(ledger, _random)
    ledger.touch()


def _truncated(ledger: Path, rng: random.Random) -> None:
    size = ledger.stat().st_size
    _checkpoint(ledger)
    with ledger.open("r+b") as file:
        file.truncate(rng.randrange(size))


def _overwritten(ledger: Path, rng: random.Random) -> None:
    """Overwrite the start of a page, which holds its header."""
    _checkpoint(ledger)
    with ledger.open("r+b") as file:
        file.seek(rng.randrange(ledger.stat().st_size // PAGE) * PAGE)
        file.write(b"\xa5" * 16)


def _not_a_database(ledger: Path, rng: random.Random) -> None:
    _removed(ledger, rng)
    ledger.write_bytes(rng.randbytes(3 * PAGE))


def _foreign_database(ledger: Path, rng: random.Random) -> None:
    """Replace it with the database of another program."""
    _removed(ledger, rng)
    with closing(sqlite3.connect(ledger)) as other:
        other.execute("CREATE TABLE submissions (id INTEGER PRIMARY KEY, state TEXT)")


def _checkpoint(ledger: Path) -> None:
    """Move everything into the database file, as the write-ahead log could repair the damage."""
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


DAMAGES: Mapping[str, Callable[[Path, random.Random], None]] = {
    "removed": _removed,
    "emptied": _emptied,
    "cut off": _truncated,
    "a page overwritten": _overwritten,
    "not a database": _not_a_database,
    "another program's": _foreign_database,
}


@contextmanager
def damaged(ledger: Path, kind: str, rng: random.Random) -> Iterator[None]:
    """Damage a ledger within the context, then restore it from a copy: no job can have been created meanwhile."""
    backup = ledger.parent.parent / "backup"
    backup.mkdir()
    try:
        for path in files_of(ledger):
            shutil.copy2(path, backup)
        DAMAGES[kind](ledger, rng)
        yield
        for path in (*files_of(ledger), ledger.with_name(f"{ledger.name}-shm")):
            path.unlink(missing_ok=True)
        for path in backup.iterdir():
            shutil.copy2(path, ledger.parent)
    finally:
        shutil.rmtree(backup)
