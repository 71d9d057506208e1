"""What befalls a ledger between two runs: it is gone, or no longer what it was; and how it is brought back."""

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


def _cut_off(ledger: Path, dice: random.Random) -> None:
    size = ledger.stat().st_size
    _forget_log(ledger)
    with ledger.open("r+b") as file:
        file.truncate(dice.randrange(size))


def _overwritten(ledger: Path, dice: random.Random) -> None:
    """The start of a page is lost, which is where a page says what it is."""
    _forget_log(ledger)
    with ledger.open("r+b") as file:
        file.seek(dice.randrange(ledger.stat().st_size // PAGE) * PAGE)
        file.write(b"\xa5" * 16)


def _not_a_database(ledger: Path, dice: random.Random) -> None:
    _removed(ledger, dice)
    ledger.write_bytes(dice.randbytes(3 * PAGE))


def _anothers(ledger: Path, dice: random.Random) -> None:
    """Another program's database is in its place."""
    _removed(ledger, dice)
    with closing(sqlite3.connect(ledger)) as other:
        other.execute("CREATE TABLE submissions (id INTEGER PRIMARY KEY, state TEXT)")


def _forget_log(ledger: Path) -> None:
    """Get everything into the file: what is damaged there a log may mend."""
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


DAMAGES: Mapping[str, Callable[[Path, random.Random], None]] = {
    "removed": _removed,
    "emptied": _emptied,
    "cut off": _cut_off,
    "a page overwritten": _overwritten,
    "not a database": _not_a_database,
    "another program's": _anothers,
}


@contextmanager
def damaged(ledger: Path, kind: str, dice: random.Random) -> Iterator[None]:
    """A ledger is so meanwhile, and is then brought back from a copy: as it was, as nothing could be bought since."""
    backup = ledger.parent.parent / "backup"
    backup.mkdir()
    try:
        for path in files_of(ledger):
            shutil.copy2(path, backup)
        DAMAGES[kind](ledger, dice)
        yield
        for path in (*files_of(ledger), ledger.with_name(f"{ledger.name}-shm")):
            path.unlink(missing_ok=True)
        for path in backup.iterdir():
            shutil.copy2(path, ledger.parent)
    finally:
        shutil.rmtree(backup)
