"""The ledger under kills, concurrency, truncation, flipped bits, locks and migrations."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import astuple, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support import disks, ledger_history
from support.ledger_history import API, THEN, created, in_doubt, job, not_created, send, start_run

from runner.core.models import Created
from runner.ledger import connect, integrity, schema
from runner.ledger.errors import LedgerError
from runner.ledger.rows import Decision, SubmissionRow
from runner.ledger.store import Ledger

A, B = job("a"), job("b", project_id="p-2")
LOG, SHARED = "-wal", "-shm"

# A process without threads that forks a child for each task and prints the children's exit codes. A child counts its
# calls to the operating system and SQLite, and kills itself at the n-th, as if the machine lost power.
SCRIPT = """
import json, os, signal, sqlite3, sys
from pathlib import Path
from runner.ledger import connect, schema
from runner.ledger.errors import LedgerError
from runner.ledger.store import Ledger

remaining = -1

def count_call():
    global remaining
    remaining -= 1
    if remaining == 0:
        os.kill(os.getpid(), signal.SIGKILL)

class Connection(sqlite3.Connection):
    def execute(self, *args):
        count_call()
        return super().execute(*args)
    def close(self):
        count_call()
        super().close()

def wrap(owner, name):
    original = getattr(owner, name)
    def wrapped(*args, **kwargs):
        count_call()
        return original(*args, **kwargs)
    setattr(owner, name, wrapped)

real = sqlite3.connect

def connect_counted(path, **kwargs):
    return real(path, **kwargs) if path == ":memory:" else real(path, factory=Connection, **kwargs)

sqlite3.connect = connect_counted
for name in ("open", "link", "fsync", "unlink"):
    wrap(os, name)

def create(path):
    connect.create_ledger(path)

def use(path):
    connect.create_if_missing(path)
    Ledger(path).close()

def upgrade(path):
    schema.MIGRATIONS = (*schema.MIGRATIONS, *STEPS)
    Ledger(path).close()

action, STEPS, tasks = json.loads(sys.stdin.read())
gate, gate_end = os.pipe()
children, statuses = [], {}
for path, kill in tasks:
    child = os.fork()
    if child == 0:
        os.close(gate_end)
        os.read(gate, 1)  # all start together, once the last child exists
        remaining = kill
        code = 1
        try:
            {"create": create, "use": use, "upgrade": upgrade}[action](Path(path))
            code = 0
        except LedgerError as error:
            print(error, file=sys.stderr)
            code = 4
        finally:
            os._exit(code)
    children.append(child)
    if kill > 0:  # one at a time
        os.write(gate_end, b"x")
        statuses[child] = os.waitpid(child, 0)[1]
os.close(gate_end)
for child in children:
    if child not in statuses:
        statuses[child] = os.waitpid(child, 0)[1]
print(json.dumps([os.waitstatus_to_exitcode(statuses[child]) for child in children]))
"""
KILLED = -9
VERSIONS = schema.MIGRATIONS
# A possible second and third version. The rows that each step writes show how often it ran.
STEPS = (
    ("CREATE TABLE hosts (name TEXT)", "INSERT INTO hosts VALUES ('second')", "ALTER TABLE runs ADD COLUMN host TEXT"),
    ("INSERT INTO hosts VALUES ('third')",),
)


def run_processes(action: str, tasks: list[tuple[Path, int]]) -> list[int]:
    """Run an action in one process per task. Return the exit codes: 0, 4 for LedgerError, -9 if killed."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT],
        input=json.dumps([action, STEPS, [(str(path), kill) for path, kill in tasks]]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    exit_codes: list[int] = json.loads(result.stdout)
    assert 1 not in exit_codes, result.stderr
    return exit_codes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(scope="module")
def filled_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a ledger with rows in every table and nothing in its log."""
    directory = tmp_path_factory.mktemp("filled")
    with ledger_history.open_ledger(directory / "ledger.db") as ledger:
        jobs = [job(f"job-{number}", f"w-{number % 5}", f"p-{number}", team="agri") for number in range(30)]
        run = start_run(ledger, "r-1", jobs)
        for number, submitted in enumerate(jobs):
            outcomes = (created(f"j-{number}"), not_created("no " * 40), in_doubt("x", "y"))
            send(ledger, run, submitted, outcomes[number % 3])
        [first, *_] = ledger.unresolved()
        ledger.resolve([Decision(first.id, created("found"), None, "me", THEN, "found", "found")])
    return directory


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def use_ledger(path: Path) -> list[str]:
    """Read and write as a run does. Return the names of the submissions that existed before."""
    with Ledger(path) as ledger:
        rows = ledger.all_submissions()
        for run in ledger.runs():
            ledger.manifest_jobs(run)
        for row in rows:
            ledger_history.response_body(ledger, row.id)
            ledger_history.decisions(ledger, row.id)
        ledger.submission_counts()
        ledger.mark_intents_in_doubt(API, "nightly", ledger_history.TIMEOUT)
        run = start_run(ledger, "r-used", [job("used", "w-used")], end=None)
        send(ledger, run, job("used", "w-used"), created("j-used"))
    return [row.name for row in rows]


def execute_raw(path: Path, *statements: str) -> None:
    """Write to the file as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


# Creation.


def test_a_creator_killed_at_any_point_leaves_a_complete_ledger_or_none(tmp_path: Path) -> None:
    tasks = []
    for number in range(1, 66):
        directory = tmp_path / str(number)
        directory.mkdir()
        tasks.append((directory / "ledger.db", number))
    exit_codes = run_processes("use", tasks)
    kills = exit_codes.count(KILLED)
    assert exit_codes == [KILLED] * kills + [0] * (len(exit_codes) - kills)
    assert 40 < kills < len(exit_codes)  # every point was reached, up to the end
    exists = [path.exists() for path, _ in tasks]
    assert exists == sorted(exists)
    for path, _ in tasks:
        assert {entry.name for entry in path.parent.iterdir() if not entry.name.startswith("ledger.db.new-")} <= {
            *("ledger.db", "ledger.db-wal", "ledger.db-shm")
        }
        with ledger_history.open_ledger(path) as ledger:  # leftover files block nothing
            send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
            ledger.check_integrity()
        with Ledger(path) as ledger:
            assert [row.job_id for row in ledger.all_submissions()] == ["j-1"]


def test_of_concurrent_creating_processes_one_succeeds(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(4)]
    exit_codes = run_processes("create", [(path, 0) for path in paths for _ in range(4)])
    for number, path in enumerate(paths):
        assert sorted(exit_codes[4 * number : 4 * number + 4]) == [0, 4, 4, 4]
        assert use_ledger(path) == []
    assert sorted(tmp_path.iterdir()) == paths


def test_concurrent_processes_all_open_the_new_ledger(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(4)]
    assert run_processes("use", [(path, 0) for path in paths for _ in range(4)]) == [0] * 16
    assert sorted(tmp_path.iterdir()) == paths


def test_all_files_are_private_at_every_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with an umask of 0."""
    seen: set[tuple[str, int]] = set()

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, values: Any = (), /) -> sqlite3.Cursor:
            cursor = super().execute(statement, values)
            seen.update(
                (
                    entry.name.rpartition("-")[2] if entry.name.endswith((LOG, SHARED)) else "",
                    stat.S_IMODE(entry.stat().st_mode),
                )
                for entry in path.parent.iterdir()
            )
            return cursor

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: real(*args, factory=Connection, **kwargs))
    umask = os.umask(0)
    try:
        with ledger_history.open_ledger(path) as ledger:
            send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
    finally:
        os.umask(umask)
    assert seen == {("", 0o600), ("wal", 0o600), ("shm", 0o600)}


def test_no_ledger_is_created_beside_the_log_of_a_missing_one(path: Path) -> None:
    """The log may hold the only trace of created jobs; a new ledger would adopt or delete it."""
    with ledger_history.open_ledger(path) as ledger:
        send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
        log = beside(path, LOG).read_bytes()
    path.unlink()
    beside(path, LOG).write_bytes(log)
    for create in (connect.create_ledger, ledger_history.open_ledger):
        with pytest.raises(LedgerError):
            create(path)
        assert beside(path, LOG).read_bytes() == log
        assert not path.exists()


@pytest.mark.parametrize("action", [Ledger, connect.create_if_missing])
def test_an_impossible_path_raises_ledger_error(tmp_path: Path, action: Callable[[Path], object]) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "no" / "such" / "directory", Path("/dev/null/ledger.db")):
        with pytest.raises(LedgerError):
            action(path)


# Files that are not ledgers of this version.


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_another_programs_database_is_refused_and_unchanged(path: Path, mode: str, version: int) -> None:
    execute_raw(path, f"PRAGMA journal_mode = {mode}", "CREATE TABLE runs (a)", f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    for action in (Ledger, ledger_history.open_ledger):
        with pytest.raises(LedgerError, match="is not a ledger"):
            action(path)
    assert path.read_bytes() == before


def test_a_newer_ledger_and_its_log_are_refused_and_unchanged(path: Path) -> None:
    connect.create_ledger(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:  # still in use
        connection.execute("CREATE TABLE of_tomorrow (a)")
        connection.execute(f"PRAGMA user_version = {schema.latest_version() + 1}")
        before = (path.read_bytes(), beside(path, LOG).read_bytes())
        with pytest.raises(LedgerError, match="newer pixxel-runner") as caught:
            Ledger(path)
        assert caught.value.hint
        assert (path.read_bytes(), beside(path, LOG).read_bytes()) == before


@pytest.mark.parametrize("version", [-1, 0])
def test_a_version_that_does_not_match_the_schema_is_refused(filled_directory: Path, path: Path, version: int) -> None:
    shutil.copyfile(filled_directory / "ledger.db", path)
    execute_raw(path, f"PRAGMA user_version = {version}")
    with pytest.raises(LedgerError):
        Ledger(path)
    execute_raw(path, "PRAGMA user_version = 1")
    assert len(use_ledger(path)) == 30


# Unwritable files and directories.


def test_an_unwritable_ledger_stops_the_run_before_it_sends(
    filled_directory: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open the file read-only in SQLite, which also works when root runs the tests. Reading is still possible."""
    shutil.copyfile(filled_directory / "ledger.db", path)
    real = sqlite3.connect

    def read_only(target: str | Path, **kwargs: Any) -> sqlite3.Connection:
        if target == path:
            target, kwargs = f"{path.as_uri()}?mode=ro", {**kwargs, "uri": True}
        connection: sqlite3.Connection = real(target, **kwargs)
        return connection

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with Ledger(path) as ledger:
        assert len(ledger.all_submissions()) == 30
        with pytest.raises(LedgerError) as caught:
            start_run(ledger, "r-2", [A])
        assert "writable" in caught.value.hint
    assert path.read_bytes() == (filled_directory / "ledger.db").read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
@pytest.mark.parametrize("target", ["file", "directory"])
def test_a_read_only_ledger_raises_ledger_error(filled_directory: Path, path: Path, target: str) -> None:
    shutil.copyfile(filled_directory / "ledger.db", path)
    locked = path if target == "file" else path.parent
    mode = locked.stat().st_mode
    locked.chmod(mode & ~0o222)
    try:
        with pytest.raises(LedgerError) as caught:
            use_ledger(path)
    finally:
        locked.chmod(mode)
    assert "writable" in caught.value.hint


# Damage.


def test_a_damaged_log_loses_only_the_latest_commits(tmp_path: Path) -> None:
    """As after a power cut on a disk that lies about syncs: the earlier commits remain, and nothing else."""
    path = tmp_path / "past" / "ledger.db"
    path.parent.mkdir()
    ledger = ledger_history.open_ledger(path)
    jobs = [job(f"job-{number}", project_id=f"p-{number}") for number in range(12)]
    run = start_run(ledger, "r-1", jobs)
    for number, submitted in enumerate(jobs):
        send(ledger, run, submitted, created(f"j-{number}"))
    content, log = path.read_bytes(), beside(path, LOG).read_bytes()
    ledger.close()
    rng = random.Random(1)  # noqa: S311 - seeded to be repeatable
    copy = tmp_path / "ledger.db"
    recovered_counts = []
    for _ in range(60):
        offset = rng.randrange(len(log))
        damaged_log = (
            log[:offset] if rng.random() < 0.5 else log[:offset] + bytes([log[offset] ^ 1]) + log[offset + 1 :]
        )
        copy.write_bytes(content)
        beside(copy, LOG).write_bytes(damaged_log)
        with Ledger(copy) as opened:
            names = [row.name for row in opened.all_submissions()]
            opened.check_integrity()
        assert names == [submitted.name for submitted in jobs[: len(names)]]
        recovered_counts.append((offset, len(names)))
    assert len({number for _, number in recovered_counts}) > 4


def test_a_truncated_ledger_is_refused_and_unchanged(filled_directory: Path, path: Path) -> None:
    content = (filled_directory / "ledger.db").read_bytes()
    rng = random.Random(2)  # noqa: S311 - likewise
    for end in (*range(0, len(content), 4096), *(rng.randrange(len(content)) for _ in range(30)), len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(LedgerError):
            use_ledger(path)
        assert path.read_bytes() == content[:end]
        assert [entry.name for entry in path.parent.iterdir()] == ["ledger.db"]


@pytest.mark.parametrize("part", ["header", "anywhere"])
def test_any_flipped_bit_is_harmless_or_raises_ledger_error(filled_directory: Path, path: Path, part: str) -> None:
    content = (filled_directory / "ledger.db").read_bytes()
    rng = random.Random(3)  # noqa: S311 - likewise
    offsets = range(100) if part == "header" else [rng.randrange(len(content)) for _ in range(150)]
    for offset in offsets:
        flipped = bytearray(content)
        flipped[offset] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            use_ledger(path)
        except LedgerError as error:
            message = error.message
        else:
            message = str(path)
        assert str(path) in message
        for suffix in (LOG, SHARED):
            beside(path, suffix).unlink(missing_ok=True)


def read_decisive(path: Path, *, read_only: bool) -> list[Any]:
    """Read the values that decide which jobs are sent or looked up, and how."""
    with Ledger(path, read_only=read_only) as ledger:
        runs = [(*astuple(run)[:6], run.started_at, ledger.manifest_jobs(run)) for run in ledger.runs()]
        return [*runs, *map(decisive_columns, ledger.all_submissions())]


def decisive_columns(row: SubmissionRow) -> Any:
    times = (row.claimed_at, row.ended_at, row.timeout) if row.state in ("sending", "in_doubt") else ()
    return (row.api, row.manifest, row.run_key, *row.pair, row.ordinal, row.again, row.state, row.job_id, *times)


@pytest.mark.parametrize("read_only", [True, False], ids=["to read", "to write"])
def test_no_flipped_bit_changes_what_would_be_sent(path: Path, read_only: bool) -> None:
    outcomes = (created("j-1"), not_created(), in_doubt("x"), None, created("j-2"))
    jobs = [job(f"job-{number}", f"w-{number % 2}", f"p-{number}") for number, _ in enumerate(outcomes)]
    with ledger_history.open_ledger(path) as ledger:
        run = start_run(ledger, "r-1", jobs, key="day:2026-10-20", end="stopped")
        for submitted, outcome in zip(jobs, outcomes, strict=True):
            send(ledger, run, submitted, outcome)
        root_pages = ledger.query("SELECT rootpage FROM sqlite_master WHERE name IN ('runs', 'submissions')")
        [(size,)] = ledger.query("PRAGMA page_size")
    expected = read_decisive(path, read_only=read_only)
    content = path.read_bytes()
    rng = random.Random(4)  # noqa: S311 - likewise
    unnoticed = 0
    for offset in (
        offset for (page,) in root_pages for offset in range((page - 1) * size, page * size) if content[offset]
    ):
        flipped = bytearray(content)
        flipped[offset] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with suppress(LedgerError):
            assert read_decisive(path, read_only=read_only) == expected, offset
            unnoticed += 1
        for suffix in (LOG, SHARED):
            beside(path, suffix).unlink(missing_ok=True)
    assert unnoticed  # some bits are in columns that decide nothing, such as labels


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE submissions SET labels = '{'",
        "UPDATE submissions SET labels = x'ff'",
        "UPDATE submissions SET claimed_at = 'then'",
        "UPDATE submissions SET claimed_at = 7",
        "UPDATE submissions SET ended_at = ''",
        "UPDATE submissions SET name = CAST(x'ff' AS TEXT)",
        "UPDATE submissions SET job_id = x'ff' WHERE id = 1",
        "UPDATE submissions SET error = '{\"kinx\": 1}' WHERE state = 'not_created'",
        "UPDATE submissions SET error = '[]' WHERE state = 'not_created'",
        "UPDATE submissions SET candidates = '3'",
        "UPDATE snapshots SET jobs = x'789c00'",
        "UPDATE snapshots SET jobs = 'none'",
        "UPDATE snapshots SET sha256 = 'another'",
        "UPDATE runs SET settings = '{'",
        "UPDATE runs SET started_at = 'then'",
        "UPDATE responses SET body = 7",
    ],
)
def test_an_invalid_value_raises_ledger_error(filled_directory: Path, path: Path, statement: str) -> None:
    """SQLite's own check covers pages, not the meaning of values."""
    shutil.copyfile(filled_directory / "ledger.db", path)
    execute_raw(path, statement)
    with pytest.raises(LedgerError):
        use_ledger(path)


def test_check_integrity_reads_a_ledger_too_large_to_check_on_opening(
    filled_directory: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = bytearray((filled_directory / "ledger.db").read_bytes())
    damaged[-4096:-4080] = b"\xff" * 16
    path.write_bytes(damaged)
    with pytest.raises(LedgerError):
        Ledger(path)
    monkeypatch.setattr(integrity, "_MAX_CHECKED_SIZE", 0)
    with Ledger(path) as ledger, pytest.raises(LedgerError):
        ledger.check_integrity()


# Arbitrary bytes and text, as a server may send them.


STRANGE = "\ud800-\udfff\x00\n é"


def test_a_response_is_saved_as_the_bytes_that_came(path: Path) -> None:
    bodies = [
        json.dumps({"id": STRANGE, "created_by": STRANGE, "val_errors": [STRANGE]}).encode(),
        b'{"id": "j", "cost": ' + b"9" * 30 + b', "result": "\xff\xfe"}',
        b"\x00" * 5 + b"[" * 5000,
        b"",
        bytes(range(128, 192)),
    ]
    jobs = [job(f"job-{number}", project_id=f"p-{number}") for number in range(len(bodies))]
    ids = [STRANGE, "j", "é", "\udcff", "j\x00"]
    with ledger_history.open_ledger(path) as ledger:
        run = start_run(ledger, "r-1", jobs)
        for submitted, job_id, body in zip(jobs, ids, bodies, strict=True):
            send(ledger, run, submitted, Created(job_id, body, 1, THEN))
    with Ledger(path) as ledger:
        rows = ledger.all_submissions()
        assert [row.job_id for row in rows] == ids
        assert [ledger_history.response_body(ledger, row.id) for row in rows] == bodies
        assert [row.cost for row in rows] == [
            None,
            2**63 - 1,
            *[None] * (len(ids) - 2),
        ]  # a cost that is too large is capped, not dropped
        assert [ledger.submission_by_job_id(API, job_id) for job_id in ids] == rows
        assert ledger.creators("r-1") == {STRANGE}


def test_a_decision_can_have_any_job_id_in_its_detail(path: Path) -> None:
    """A lookup writes the id that the server chose into the detail."""
    with ledger_history.open_ledger(path) as ledger:
        number = send(ledger, start_run(ledger, "r-1", [A]), A, in_doubt(STRANGE))
        ledger.resolve([Decision(number, Created(STRANGE, b"", 1, THEN), None, "me", THEN, "recovered", STRANGE)])
        assert [row.job_id for row in ledger.all_submissions()] == [STRANGE]
        assert [detail for *_, detail in ledger_history.decisions(ledger, number)] == [STRANGE]


def test_a_run_can_finish_with_any_message_of_the_server(path: Path) -> None:
    """After a 401, the detail contains the API's own message."""
    with ledger_history.open_ledger(path) as ledger:
        run = start_run(ledger, "r-1", [A], end=None)
        detail = f"HTTP 401 Unauthorized: {STRANGE}"
        ledger.finish_run(replace(run, state="stopped", reason="stopped", detail=detail, finished_at=THEN))
        [run] = ledger.runs()
        assert (run.state, run.detail) == ("stopped", f"HTTP 401 Unauthorized: {STRANGE}")


def test_a_manifest_can_have_any_path(path: Path) -> None:
    r"""A file's name is bytes: `caf\xe9.yaml` of an old disk is not UTF-8."""
    with ledger_history.open_ledger(path) as ledger:
        start_run(ledger, "r-1", [A], path="/home/caf\udce9.yaml")
        assert ledger.manifest_paths(API) == {"nightly": "/home/caf\udce9.yaml"}
        assert ledger.manifests() == [(API, "nightly", "/home/caf\udce9.yaml")]


# Migrations.


def add_migrations(monkeypatch: pytest.MonkeyPatch, *steps: tuple[str, ...]) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", (*VERSIONS, *steps))


def hosts(path: Path) -> list[str]:
    with Ledger(path) as ledger:
        ledger.check_integrity()
        return [name for (name,) in ledger.query("SELECT name FROM hosts ORDER BY rowid")]


def test_each_migration_runs_once_alone_or_with_others(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect.create_ledger(path)
    for steps in (STEPS[:1], STEPS, STEPS):
        add_migrations(monkeypatch, *steps)
        assert hosts(path) == ["second", "third"][: len(steps)]
    execute_raw(tmp_path / "nought.db", f"PRAGMA application_id = {schema.APPLICATION_ID}")
    assert hosts(tmp_path / "nought.db") == ["second", "third"]
    connect.create_ledger(tmp_path / "new.db")
    assert hosts(tmp_path / "new.db") == ["second", "third"]


def test_a_failed_migration_rolls_back_the_earlier_ones(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute_raw(path, f"PRAGMA application_id = {schema.APPLICATION_ID}")
    add_migrations(monkeypatch, *STEPS, ("CREATE TABLE more (a)", "INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(LedgerError):
        Ledger(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM sqlite_schema").fetchall() == []
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)


def test_a_migration_killed_at_any_point_is_complete_or_undone(
    filled_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = []
    for number in range(1, 46):
        directory = tmp_path / str(number)
        directory.mkdir()
        shutil.copyfile(filled_directory / "ledger.db", directory / "ledger.db")
        tasks.append((directory / "ledger.db", number))
    exit_codes = run_processes("upgrade", tasks)
    assert 10 < exit_codes.count(KILLED) < len(exit_codes)
    versions = set()
    for path, _ in tasks:
        with closing(sqlite3.connect(path)) as connection:
            [(version,)] = connection.execute("PRAGMA user_version").fetchall()
            tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'hosts'").fetchone()[0]
        assert (version, tables) in ((1, 0), (3, 1))
        versions.add(version)
    assert versions == {1, 3}
    add_migrations(monkeypatch, *STEPS)
    for path, _ in tasks:
        assert hosts(path) == ["second", "third"]
        assert len(use_ledger(path)) == 30


def test_of_concurrent_migrations_one_succeeds(
    filled_directory: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(filled_directory / "ledger.db", path)
    assert run_processes("upgrade", [(path, 0)] * 6) == [0] * 6
    add_migrations(monkeypatch, *STEPS)
    assert hosts(path) == ["second", "third"]


# The log.


def test_opening_and_closing_checkpoint_the_log(path: Path) -> None:
    ledger = ledger_history.open_ledger(path)
    send(ledger, start_run(ledger, "r-1", [A, B]), A, created("j-1"))
    assert beside(path, LOG).stat().st_size > 0
    with Ledger(path) as second:
        assert beside(path, LOG).stat().st_size == 0
        send(second, next(second.runs()), B, created("j-2"))
        assert beside(path, LOG).stat().st_size > 0
    assert beside(path, LOG).stat().st_size == 0
    ledger.close()
    assert not beside(path, LOG).exists()
    alone = path.with_name("alone.db")
    shutil.copyfile(path, alone)  # the file without its log is complete
    assert sorted(use_ledger(alone)) == ["a", "b"]


def test_a_long_read_blocks_neither_writes_nor_closing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_BUSY_TIMEOUT", 0.05)
    with ledger_history.open_ledger(path) as ledger:
        send(ledger, start_run(ledger, "r-1", [A, B]), A, created("j-1"))
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM submissions").fetchone() == (1,)
            with Ledger(path) as second:
                send(second, next(second.runs()), B, created("j-2"))
            assert reader.execute("SELECT count(*) FROM submissions").fetchone() == (1,)
    assert sorted(use_ledger(path)) == ["a", "b"]


# Other programs that lock it.


@pytest.fixture
def locking_connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that holds the write lock, as another program's would."""
    connect.create_ledger(path)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_a_locked_ledger_raises_ledger_error(
    path: Path, locking_connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_BUSY_TIMEOUT", 0.05)
    with pytest.raises(LedgerError, match="locked") as caught:
        Ledger(path)
    assert "Another program has it locked" in caught.value.hint
    locking_connection.execute("COMMIT")
    with Ledger(path) as ledger:
        run = start_run(ledger, "r-1", [A])
        locking_connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked"):
            send(ledger, run, A, created("j-1"))
        locking_connection.execute("COMMIT")
        send(ledger, run, A, created("j-1"))  # the connection remains usable
        assert [row.job_id for row in ledger.all_submissions()] == ["j-1"]


def test_a_briefly_locked_ledger_is_waited_for(path: Path, locking_connection: sqlite3.Connection) -> None:
    names: list[str] = []
    thread = threading.Thread(target=lambda: names.extend(use_ledger(path)))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    locking_connection.execute("COMMIT")
    thread.join(20)
    assert not thread.is_alive()
    with Ledger(path) as ledger:
        assert [row.job_id for row in ledger.all_submissions()] == ["j-used"]


def test_two_writers_lose_nothing_of_each_other(path: Path) -> None:
    """Two manifests' runs in two threads, each with its own connection."""
    connect.create_ledger(path)
    numbers = count()
    finished: list[str] = []

    def write(manifest: str) -> None:
        jobs = [job(f"job-{number}", project_id=f"p-{number}") for number in range(20)]
        with Ledger(path) as ledger:
            ledger.query("PRAGMA synchronous = OFF")
            run = start_run(ledger, f"r-{manifest}", jobs, manifest=manifest)
            for submitted in jobs:
                send(ledger, run, submitted, created(f"j-{next(numbers)}"))
        finished.append(manifest)

    threads = [threading.Thread(target=write, args=(manifest,)) for manifest in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(finished) == ["one", "two"]
    with Ledger(path) as ledger:
        assert len(ledger.all_submissions()) == 40
        ledger.check_integrity()


# Several connections at once.

ANOTHER = (
    "import sys; from pathlib import Path; from runner.ledger.store import Ledger; Ledger(Path(sys.argv[1])).close()"
)


def test_closing_another_connection_of_this_process_releases_no_lock(path: Path) -> None:
    """POSIX releases all locks of a process on a file when any descriptor of it is closed; the log would be deleted."""
    with ledger_history.open_ledger(path) as ledger:
        run = start_run(ledger, "r-1", [A, B])
        send(ledger, run, A, created("j-1"))
        with Ledger(path) as second:  # opening it checkpoints the log
            second.runs()
        with Ledger(path, read_only=True) as third:
            third.runs()
        subprocess.run([sys.executable, "-P", "-c", ANOTHER, path], check=True, timeout=60)
        send(ledger, run, B, created("j-2"))
        subprocess.run([sys.executable, "-P", "-c", ANOTHER, path], check=True, timeout=60)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT job_id FROM submissions").fetchall() == [("j-1",), ("j-2",)]


@pytest.mark.parametrize("by", ["deleted", "replaced"])
def test_a_log_deleted_or_replaced_while_in_use_stops_the_run(path: Path, by: str) -> None:
    with ledger_history.open_ledger(path) as ledger:
        run = start_run(ledger, "r-1", [A, B])
        send(ledger, run, A, created("j-1"))
        log = beside(path, LOG)
        log_content = log.read_bytes()
        log.unlink()
        if by == "replaced":
            beside(path, "-old").touch()  # keeps the new file from reusing the inode number
            log.write_bytes(log_content)
        with pytest.raises(LedgerError, match="-wal is not the same file"):
            send(ledger, run, B, created("j-2"))


@pytest.mark.parametrize("pages", [28, 36, 42])
def test_a_nearly_full_disk_gets_a_complete_ledger_or_none(tmp_path: Path, pages: int) -> None:
    with disks.mounted(tmp_path / "disk") as disk:
        path = disk.root / "ledger.db"
        disk.fill(but=pages * disks.PAGE)
        with pytest.raises(LedgerError, match="full"):
            connect.create_ledger(path)
        assert [entry.name for entry in disk.root.iterdir()] == [".ballast"]
        disk.free()
        connect.create_ledger(path)


# One file with two names.


def test_a_hard_link_is_refused_and_a_symbolic_link_is_not(path: Path, tmp_path: Path) -> None:
    connect.create_ledger(path)
    (tmp_path / "link").symlink_to(path)
    Ledger(tmp_path / "link").close()
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "other.db").hardlink_to(path)
    for name in (path, tmp_path / "directory" / "other.db"):
        for read_only in (False, True):
            with pytest.raises(LedgerError, match="2 hard links"):
                Ledger(name, read_only=read_only)
    (tmp_path / "directory" / "other.db").rename(f"{path}.new-0123abcd")  # as a killed creator leaves it
    Ledger(path).close()


def test_a_ledger_mounted_as_a_file_is_refused(path: Path, tmp_path: Path) -> None:
    connect.create_ledger(path)
    mounted = tmp_path / "with a space.db"
    mounted.touch()
    with disks.bind_mounted(path, mounted), pytest.raises(LedgerError, match="is a mount point"):
        Ledger(mounted)
