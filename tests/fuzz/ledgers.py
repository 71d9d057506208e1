"""Fuzzes damaged ledgers: each command works with the ledger, or reports what is wrong.

An example is a list of edits of eight bytes each. They change the file's bytes (flip, truncate, overwrite a page) or,
if the first byte says so, the values of its rows, which SQLite itself does not validate.
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fuzz.time_limit import check_time
from support import ledger_history
from support.shell import Shell

from runner.core.models import Created
from runner.ledger.rows import Decision
from runner.ledger.store import Ledger

MAX_LENGTH = 256
PAGE = 4096
_STEP = 8  # bytes per edit
_SECONDS = 3.0  # CPU time of all commands together

# Each column that the program reads, without primary keys, so that later edits find their rows.
COLUMNS = (
    *(("manifests", column) for column in ("api", "name", "path")),
    *(("snapshots", column) for column in ("sha256", "jobs")),
    *(
        ("runs", column)
        for column in (
            "id", "manifest", "run_key", "once_per", "state", "reason", "detail", "started_at", "finished_at", "runner",
            "path", "sha256", "git_commit", "settings",
        )
    ),
    *(
        ("submissions", column)
        for column in (
            "manifest", "run_key", "workflow_id", "project_id", "ordinal", "again", "api", "state", "name", "labels",
            "run_id", "attempts", "claimed_at", "ended_at", "timeout", "estimate", "job_id", "created_by", "cost",
            "val_errors", "recovered", "assigned", "error", "candidates",
        )
    ),
    *(("responses", column) for column in ("submission", "body")),
    *(("final_jobs", column) for column in ("submission", "seen_at", "body")),
    *(("decisions", column) for column in ("submission", "decided_at", "decided_by", "action", "detail")),
)  # fmt: skip
VALUES: tuple[object, ...] = (
    None,
    *(0, 1, 2, -1, 7, 2**63 - 1, -(2**63), 0.5, 1e308, float("inf")),
    *("", "x", "sandbox", "nightly", "r-1", "created", "running", "completed", "day", "run", "day:2026-10-20", "0"),
    *("then", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "2026-10-20", "2026-10-20T01:00:00", "\0"),
    *("{}", "[]", "null", "0", '"x"', "{", '{"only": 1}', '{"only": ["x"]}', '{"concurrency": "x"}', "[1]", "[[]]"),
    *('{"kind": "x"}', '{"kind": 1, "message": [2]}', '{"x": 1}', '{"kind": "timeout", "message": null}', "1e999"),
    *(b"", b"\xff", b"\xed\xa0\x80", b"x\x9c\x00", b'{"id": "j-1"}', b'{"id": 1}', b"[" * 300, bytes(8)),
    *("\x1b[31m", "::error::", "\u202e", "a" * 300),
)


@dataclass(frozen=True)
class BaseLedger:
    """A directory with a manifest and the ledger of its sandbox runs."""

    directory: Path
    ledger: bytes


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("ledger", "check", "--sandbox"),
    ("ledger", "export", "--sandbox"),
    ("runs", "--sandbox"),
    ("runs", "--sandbox", "--format", "json"),
    ("show", "--sandbox"),
    ("show", "--sandbox", "--format", "json"),
    ("plan", "nightly.yaml", "--sandbox"),
    ("status", "--sandbox"),
    ("resolve", "--sandbox"),
    ("run", "nightly.yaml", "--sandbox", "--hold", "--resume"),
)


def seeds() -> Iterator[bytes]:
    yield b"\x00" * _STEP
    for number in range(len(COLUMNS)):
        yield b"".join(bytes((0x80, number, 0, value, 0, 0, 0, 0)) for value in (number % len(VALUES), 3))
    for kind in range(5):
        for at in (0, 18, 100, 5000, 20_000, 60_000):
            yield bytes((kind, at >> 16, at >> 8 & 255, at & 255, 1, 2, 3, 4))


@cache
def base_ledger() -> BaseLedger:
    """A ledger with at least one row of each kind, built once per process."""
    shell = Shell(Path(tempfile.mkdtemp(prefix="fuzz-")))
    atexit.register(shutil.rmtree, shell.directory, ignore_errors=True)
    shell.write("nightly.yaml", "version: 1\njobs:\n" + "".join(
        f"- {{name: j-{number}, workflow_id: w-{number % 3}, project_id: p-{number}}}\n" for number in range(8)
    ))  # fmt: skip
    path = shell.directory / ".pixxel-runner" / "sandbox" / "ledger.db"
    shell.call("run", "nightly.yaml", "--sandbox", "--only", "j-0")
    jobs = [ledger_history.job(f"j-{number}", f"w-{number % 3}", f"p-{number}", team="agri") for number in range(8)]
    with Ledger(path) as ledger:
        for manifest, key in (("nightly", None), ("daily", "day:2026-10-20")):
            begun = ledger_history.start_run(
                ledger, f"r-{manifest}", jobs, api="sandbox", manifest=manifest, key=key, end="stopped"
            )
            outcomes = (
                ledger_history.created(f"{manifest}-1"),
                ledger_history.in_doubt("x", "y"),
                ledger_history.not_created(),
                ledger_history.in_doubt(),
                None,
            )
            numbers = [ledger_history.send(ledger, begun, job, made) for job, made in zip(jobs, outcomes, strict=False)]
            ledger.save_final_jobs(
                {numbers[0]: b'{"id": "%b-1", "status": "completed"}' % manifest.encode()}, ledger_history.THEN
            )
            [doubt, *_] = [one for one in ledger.unresolved() if one.manifest == manifest]
            found = Created(
                f"{manifest}-9", b"{}", 1, ledger_history.THEN, recovered=True, assigned=False, candidates=("x",)
            )
            ledger.resolve([Decision(doubt.id, found, None, "me", ledger_history.THEN, "found", "found")])
    return BaseLedger(shell.directory, path.read_bytes())


def damage_bytes(whole: bytes, data: bytes) -> bytes:
    """Apply the edits to the bytes of a ledger."""
    found = bytearray(whole)
    for edit in _edits(data):
        at = int.from_bytes(edit[1:4], "big") % max(1, len(found))
        page, other = at // PAGE * PAGE, int.from_bytes(edit[4:6], "big") * PAGE % max(1, len(found)) // PAGE * PAGE
        match edit[0] % 5:
            case 0:
                found[at : at + 1] = bytes([found[at] ^ (edit[4] or 1)]) if found else b""
            case 1:
                found[at : at + 4] = edit[4:8]
            case 2:
                del found[at:]
            case 3:
                found[page : page + PAGE] = (edit[4:8] * PAGE)[:PAGE]
            case _:
                found[page : page + PAGE] = found[other : other + PAGE]
    return bytes(found)


def damage_values(path: Path, data: bytes) -> None:
    """Apply the edits to the values of a ledger's rows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for edit in _edits(data):
            table, column = COLUMNS[edit[1] % len(COLUMNS)]
            value = VALUES[edit[3] % len(VALUES)]
            where = "1" if edit[2] == 0 else f"rowid = {edit[2]}"
            with suppress(sqlite3.Error, UnicodeError):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value,))  # noqa: S608 - names from COLUMNS


def _edits(data: bytes) -> Sequence[bytes]:
    return [data[at : at + _STEP].ljust(_STEP, b"\0") for at in range(0, len(data), _STEP)]


def check(data: bytes, commands: Sequence[tuple[str, ...]] = COMMANDS) -> None:
    """Fail if a command crashes or exceeds the time limit. Each command reads what earlier ones wrote."""
    start = base_ledger()
    shell = Shell(start.directory)
    home = start.directory / ".pixxel-runner" / "sandbox"
    path = home / "ledger.db"
    shutil.rmtree(home)
    home.mkdir(mode=0o700)
    if data and data[0] & 0x80:
        path.write_bytes(start.ledger)
        damage_values(path, data)
    else:
        path.write_bytes(damage_bytes(start.ledger, data))
    started = time.process_time()
    for command in commands:
        done = shell.call(*command)
        assert done.code in (0, 1, 2, 3, 4), (command, done)
    check_time(started, _SECONDS)
