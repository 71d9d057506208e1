"""Disks that are full or read-only, ledgers that are damaged or held: nothing is sent without a record, or forgotten.

What was created is read from the server's own record.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import disks, ledger_history
from support import shell as shells
from support.disks import PAGE, Disk
from support.schemas import check_results
from support.shell import CompletedCommand, Shell
from support.systems import needs_full_device
from support.wire import TIMEOUT, Request, Reset, Script, Stall, WireServer, created, reply

from runner.ledger import connect, schema
from runner.ledger.errors import LedgerError
from runner.ledger.schema import APPLICATION_ID
from runner.ledger.store import Ledger

# The command, but for the seconds that it waits for another program to let go of the ledger: thirty are many in a test.
IMPATIENT = """
import sys
from runner.cli.main import main
from runner.ledger import connect
connect._BUSY_TIMEOUT = 0.05
sys.exit(main())
"""

JOBS = tuple((f"j{number}", f"w-{number}", f"p-{number}") for number in range(6))
PROJECTS = [project for _, _, project in JOBS]
ALL = {name: f"job-of-{project}" for name, _, project in JOBS}
# No claims ahead of what is sent: a claim that is not sent and not released for want of space is a doubt for a while.
ONE_AT_A_TIME = {"PIXXEL_RUNNER_CONCURRENCY": "1", "PIXXEL_RUNNER_RATE": "1000/s"}
FULL = "database or disk is full"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    use(monkeypatch, "-m", "runner")
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # it writes files, where these tests let nobody do so
    one = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "2"})
    one.manifest(*JOBS, once_per="forever")
    return one


def use(monkeypatch: pytest.MonkeyPatch, *program: str) -> None:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", *program, *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with disks.mounted(tmp_path / "disk") as one:
        yield one


@dataclass
class Backend:
    """Makes a job for each POST, unless its project has a script, and answers once the gate is open. It lists them."""

    gate: threading.Event = field(default_factory=threading.Event)
    scripts: dict[str, Script] = field(default_factory=dict)
    jobs: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __call__(self, request: Request) -> Script:
        if request.method == "GET":
            jobs = [job for workflow, job in self.jobs if workflow == request.workflow]
            return reply(200, json.dumps({"jobs": jobs}).encode())
        script = self.scripts.get(request.project) or created(f"job-of-{request.project}")
        if script.creates:
            job = {"id": f"job-of-{request.project}", "created_at": datetime.now(UTC).isoformat()}
            self.jobs.append((request.workflow, job))
        return script if self.gate.is_set() else Stall(self.gate, then=script)


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def server(shell: Shell, backend: Backend) -> Iterator[WireServer]:
    with WireServer(choose=backend) as one:
        shell.use_api(one.url)
        yield one


def sent(server: WireServer) -> list[str]:
    return sorted(request.project for request in server.requests if request.method == "POST")


def made(server: WireServer) -> list[str]:
    return sorted(request.project for request in server.created)


def run(shell: Shell, *arguments: str | Path, **streams: Any) -> CompletedCommand:
    return checked(shell("run", "nightly.yaml", *arguments, **streams))


def finished(process: subprocess.Popen[str]) -> CompletedCommand:
    out, err = process.communicate(timeout=3 * TIMEOUT)
    return checked(CompletedCommand(process.returncode, out, err))


def checked(done: CompletedCommand) -> CompletedCommand:
    assert not any(word in done.err for word in ("Traceback", "bug:", "Exception")), done.err
    return done


def on_record(path: Path) -> dict[str, str]:
    """The jobs that the ledger knows as created, by name."""
    with Ledger(path) as ledger:
        return {one.name: str(one.job_id) for one in ledger.all_submissions() if one.state == "created"}


def check_it_ends_well(shell: Shell, server: WireServer, ledger: Path, *arguments: str | Path) -> None:
    """The next run ends with each job created once, by the server's record, and all on record."""
    done = run(shell, "--ledger", ledger, "--settle", "0", *arguments)
    assert done.code == 0, done.err
    assert sent(server) == made(server) == PROJECTS
    assert on_record(ledger) == ALL
    record = check_results(shell.directory / "nightly.results.json")
    assert {job["name"]: job["job"]["id"] for job in record["created"]} == ALL


def check_refusal(done: CompletedCommand, *words: str) -> None:
    """One error, what to do about it below it, and nothing else."""
    first, *hint = done.err.splitlines()
    assert (done.code, done.out) == (4, "")
    assert first.startswith("error: ")
    assert len(hint) == 1, done.err
    assert hint[0].startswith("  ")
    assert len(hint[0]) > len("  Do it.")
    for word in words:
        assert word in done.err


# Before anything is sent: the ledger is not as it should be.


def truncated(ledger: Path) -> None:
    os.truncate(ledger, ledger.stat().st_size // 2 // PAGE * PAGE)


def emptied(ledger: Path) -> None:
    os.truncate(ledger, 0)


def garbled(ledger: Path) -> None:
    with ledger.open("r+b") as file:
        file.write(b"\xa5" * PAGE)


def garbled_within(ledger: Path) -> None:
    with ledger.open("r+b") as file:
        file.seek(2 * PAGE)
        file.write(b"\xa5" * (ledger.stat().st_size - 2 * PAGE))


def newer(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.latest_version() + 1}")


def foreign(ledger: Path) -> None:
    ledger.unlink()
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID + 1}")
        connection.execute("CREATE TABLE submissions (id)")


def text(ledger: Path) -> None:
    ledger.write_text("version: 1\njobs: []\n" * 100, encoding="utf-8")


DAMAGES: list[tuple[Callable[[Path], None], str, str]] = [
    (truncated, "is damaged", "backup"),
    (emptied, "is not a ledger", "backup"),
    (garbled, "not a database", "backup"),
    (garbled_within, "the ledger", "backup"),
    (newer, "newer pixxel-runner", "Upgrade"),
    (foreign, "is not a ledger", "--ledger"),
    (text, "not a database", "backup"),
]


@pytest.mark.parametrize(
    ("damage", "what", "advice", "named"),
    [
        *(pytest.param(*row, True, id=f"{row[0].__name__}-named") for row in DAMAGES),
        *(pytest.param(*row, False, id=row[0].__name__) for row in DAMAGES if row[0] in (emptied, newer)),
    ],
)
def test_a_ledger_that_is_not_whole_stops_the_run_before_it_sends(
    shell: Shell, server: WireServer, damage: Callable[[Path], None], what: str, advice: str, named: bool
) -> None:
    ledger = shell.directory / "kept.db" if named else shell.ledger
    ledger.parent.mkdir(exist_ok=True)
    connect.create_ledger(ledger)
    damage(ledger)
    damaged = ledger.read_bytes()
    check_refusal(run(shell, *(("--ledger", ledger) if named else ())), ledger.name, what, advice)
    assert server.log.connections == 0
    assert ledger.read_bytes() == damaged
    assert not (shell.directory / "nightly.results.json").exists()


def test_a_ledger_that_is_brought_back_from_a_backup_buys_nothing_again(
    shell: Shell, server: WireServer, backend: Backend
) -> None:
    backend.gate.set()
    assert run(shell).code == 0
    backup = shell.ledger.read_bytes()
    shell.manifest(*JOBS, ("more", "w-9", "p-9"), once_per="forever")
    for damage in (emptied, truncated):
        damage(shell.ledger)
        check_refusal(run(shell), "backup")
        shell.ledger.write_bytes(backup)
    assert sent(server) == PROJECTS
    assert run(shell).code == 0
    assert sent(server) == made(server) == [*PROJECTS, "p-9"]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A ledger of many pages."""
    path = tmp_path / "ledger.db"
    jobs = [ledger_history.job(f"job-{number:03}", f"w-{number}", note="x" * 300) for number in range(30)]
    with ledger_history.open_ledger(path) as ledger:
        begun = ledger_history.start_run(ledger, "run-1", jobs)
        for one in jobs:
            ledger_history.send(ledger, begun, one, ledger_history.created(f"id-of-{one.name}"))
    return path


def test_a_ledger_cut_before_its_last_page_is_refused(book: Path) -> None:
    check_cuts(book, [1, 99, 100, *range(0, book.stat().st_size - PAGE + 1, PAGE // 2)])


def test_a_ledger_cut_within_its_last_page_is_refused(book: Path) -> None:
    size = book.stat().st_size
    check_cuts(book, range(size - PAGE, size, PAGE // 16))


def check_cuts(book: Path, lengths: Iterable[int]) -> None:
    whole = book.read_bytes()
    for length in lengths:
        book.write_bytes(whole[:length])
        with pytest.raises(LedgerError) as refusal:
            Ledger(book)
        assert refusal.value.hint


def test_a_ledger_with_a_page_lost_is_refused(book: Path) -> None:
    whole = book.read_bytes()
    for at in range(0, len(whole), PAGE):
        for page in (b"\xa5" * PAGE, bytes(PAGE)):
            book.write_bytes(whole[:at] + page + whole[at + PAGE :])
            with pytest.raises(LedgerError) as refusal:
                Ledger(book)
            assert refusal.value.hint


@pytest.mark.parametrize("path", ["kept.db", "no/such/folder/kept.db"])
def test_a_named_ledger_that_is_missing_is_not_made(shell: Shell, server: WireServer, path: str) -> None:
    check_refusal(run(shell, "--ledger", path), f"there is no ledger at {path}", f"pixxel-runner ledger init {path}")
    assert server.log.connections == 0
    assert sorted(one.name for one in shell.directory.iterdir()) == ["nightly.yaml"]


def test_a_folder_is_no_ledger(shell: Shell, server: WireServer) -> None:
    check_refusal(run(shell, "--ledger", "."), "the ledger . ")
    assert server.log.connections == 0


@contextmanager
def held(ledger: Path) -> Iterator[None]:
    """Another program has the ledger to itself."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_a_ledger_that_another_program_holds(
    shell: Shell, server: WireServer, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.gate.set()
    use(monkeypatch, "-c", IMPATIENT)
    ledger = shell.directory / "kept.db"
    connect.create_ledger(ledger)
    with held(ledger):
        check_refusal(run(shell, "--ledger", ledger), "the ledger", "is locked", "Another program has it locked")
    assert server.log.connections == 0
    check_it_ends_well(shell, server, ledger)


# Before anything is sent: the disk is not as it should be.


def test_everything_on_a_full_disk(shell: Shell, server: WireServer, disk: Disk, backend: Backend) -> None:
    backend.gate.set()
    shell.directory = disk.root
    shell.manifest(*JOBS, once_per="forever")
    disk.fill()
    check_refusal(run(shell), "nightly.results.json", "No space left", "Free some disk space")
    assert server.log.connections == 0
    disk.free()
    assert run(shell).code == 0
    assert (made(server), on_record(shell.ledger)) == (PROJECTS, ALL)


def test_a_first_manifest_on_a_full_disk_leaves_nothing_in_the_way_of_the_next(shell: Shell, disk: Disk) -> None:
    shell.directory = disk.root
    disk.fill()
    before = sorted(disk.root.iterdir())
    check_refusal(shell.call("init", "new.yaml"), "new.yaml cannot be written", "No space left")
    assert sorted(disk.root.iterdir()) == before
    disk.free()
    assert shell.call("init", "new.yaml").code == 0


def test_the_manifest_on_a_full_disk(shell: Shell, server: WireServer, disk: Disk, backend: Backend) -> None:
    backend.gate.set()
    manifest = shutil.move(shell.directory / "nightly.yaml", disk.root)
    disk.fill()
    for _ in range(2):  # what the first leaves behind does not mislead the second
        refused = checked(shell("run", manifest))
        check_refusal(refused, ".pixxel-runner", "No space left")
    assert server.log.connections == 0
    disk.free()
    assert checked(shell("run", manifest)).code == 0
    assert made(server) == PROJECTS
    assert on_record(disk.root / ".pixxel-runner" / "ledger.db") == ALL


def test_a_ledger_on_a_full_disk(shell: Shell, server: WireServer, disk: Disk, backend: Backend) -> None:
    backend.gate.set()
    ledger = disk.root / "kept.db"
    connect.create_ledger(ledger)
    disk.fill()
    check_refusal(run(shell, "--ledger", ledger))
    assert server.log.connections == 0
    disk.free()
    check_it_ends_well(shell, server, ledger)


@pytest.mark.parametrize("pages", [9, 20, 26])
def test_a_disk_that_fills_up_at_some_point(
    shell: Shell, server: WireServer, disk: Disk, backend: Backend, pages: int
) -> None:
    backend.gate.set()
    ledger = disk.root / "kept.db"
    connect.create_ledger(ledger)
    shell.environment |= ONE_AT_A_TIME
    disk.fill(but=pages * PAGE)
    done = run(shell, "--ledger", ledger)
    disk.free()
    check_what_is_told(server, done, on_record(ledger))
    check_it_ends_well(shell, server, ledger)


@pytest.mark.parametrize("kilobytes", [0, 64, 72, 96])
def test_a_limit_on_the_size_of_files(shell: Shell, server: WireServer, backend: Backend, kilobytes: int) -> None:
    backend.gate.set()
    shell.environment |= ONE_AT_A_TIME
    with disks.file_size_limited(kilobytes * 1024):
        done = run(shell)
    if kilobytes == 0:
        check_refusal(done, "nightly.results.json", "File too large", "ulimit -f")
    check_what_is_told(server, done, on_record(shell.ledger) if shell.ledger.exists() else {})
    assert run(shell, "--settle", "0").code == 0
    assert sent(server) == made(server) == PROJECTS
    assert on_record(shell.ledger) == ALL


def check_what_is_told(server: WireServer, done: CompletedCommand, known: dict[str, str]) -> None:
    """Each job that the server made is on record, or told on stderr by name and id."""
    told = {
        name: job_id
        for name, job_id in ALL.items()
        if f"not saved to the ledger: {name}: created as {job_id}" in done.err
    }
    assert {*known.items(), *told.items()} == {(f"j{one[2:]}", f"job-of-{one}") for one in made(server)}
    assert not known.keys() & told.keys()
    if len(known) < len(ALL):
        assert done.code in (3, 4)
        assert "error: " in done.err


@pytest.mark.parametrize("place", ["everything", "ledger", "manifest"])
def test_a_disk_that_is_read_only(shell: Shell, server: WireServer, disk: Disk, backend: Backend, place: str) -> None:
    backend.gate.set()
    ledger = disk.root / "kept.db"
    connect.create_ledger(ledger)
    manifest = Path("nightly.yaml")
    if place != "ledger":
        manifest = Path(shutil.move(shell.directory / manifest, disk.root))
    if place == "everything":
        shell.directory = disk.root
    arguments = ("--ledger", ledger) if place == "ledger" else ()
    with disk.read_only():
        refused = checked(shell("run", manifest, *arguments))
    what = {"everything": "Read-only file system", "ledger": "Read-only file system", "manifest": ".pixxel-runner"}
    check_refusal(refused, what[place], "writ")
    assert server.log.connections == 0
    assert checked(shell("run", manifest, *arguments)).code == 0
    assert made(server) == PROJECTS


# In mid-run.


@dataclass(frozen=True)
class Place:
    """A ledger, and how it comes to be unwritable for a process while its sends are in flight."""

    ledger: Path
    trouble: Callable[[int], AbstractContextManager[None]]
    words: str


@pytest.fixture(params=["disk-full", "file-limit", "ledger-held"])
def place(request: pytest.FixtureRequest, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Place:
    ledger = shell.directory / "kept.db"
    if request.param == "disk-full":
        disk: Disk = request.getfixturevalue("disk")
        one = Place(disk.root / "kept.db", lambda _: disk.filled(), FULL)
    elif request.param == "file-limit":
        one = Place(ledger, disks.file_growth_blocked, "cannot be used")
    else:
        use(monkeypatch, "-c", IMPATIENT)
        one = Place(ledger, lambda _: held(ledger), "is locked")
    connect.create_ledger(one.ledger)
    return one


@contextmanager
def stalled(shell: Shell, server: WireServer, place: Place, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run with two sends in flight, whose answers wait for the gate."""
    with shell.start("run", "nightly.yaml", "--ledger", place.ledger, *arguments) as process:
        server.wait_for_requests(2)
        yield process


@pytest.mark.parametrize(("once_per", "on"), [("run", "--resume"), ("forever", "")])
def test_a_record_that_ends_in_mid_run(
    shell: Shell, server: WireServer, backend: Backend, place: Place, once_per: str, on: str
) -> None:
    shell.manifest(*JOBS, once_per=once_per)
    with stalled(shell, server, place) as process, place.trouble(process.pid):
        backend.gate.set()
        done = finished(process)
    assert done.code in (3, 4)
    assert sent(server) == ["p-0", "p-1"]
    assert place.words in done.err
    for name in ("j0", "j1"):
        assert f"not saved to the ledger: {name}: created as {ALL[name]}" in done.err
    assert "the ledger" in done.err
    check_it_ends_well(shell, server, place.ledger, *([on] if on else []))


def test_what_is_known_is_not_told_as_doubt(shell: Shell, server: WireServer, backend: Backend, place: Place) -> None:
    with stalled(shell, server, place) as process, place.trouble(process.pid):
        backend.gate.set()
        done = finished(process)
    assert "may or may not" not in done.err
    assert "the process ended" not in done.out
    assert done.code == 4
    assert done.err.count("error: ") == 1 + done.err.count("error: the results file")


def test_what_failed_or_is_in_doubt_and_not_on_record_is_told(
    shell: Shell, server: WireServer, backend: Backend, place: Place
) -> None:
    backend.scripts = {"p-0": reply(422), "p-1": Reset(creates=True)}
    with stalled(shell, server, place) as process, place.trouble(process.pid):
        backend.gate.set()
        done = finished(process)
    assert (done.code, sent(server)) == (3, ["p-0", "p-1"])
    assert "not saved to the ledger: j0: not created" in done.err
    assert "not saved to the ledger: j1: in doubt" in done.err


def test_what_was_claimed_and_not_sent_and_is_not_on_record_is_told(
    shell: Shell, server: WireServer, backend: Backend, place: Place
) -> None:
    """A quick server gets claims ahead; a signal takes them back, and then the disk has no room to say so."""
    later = threading.Event()
    backend.gate.set()
    backend.scripts = {"p-1": Stall(later, then=created("job-of-p-1"))}
    shell.environment["PIXXEL_RUNNER_CONCURRENCY"] = "1"
    with stalled(shell, server, place) as process, place.trouble(process.pid):
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert any("stopping: interrupted" in line for line in process.stderr)
        later.set()
        done = finished(process)
    assert (done.code, sent(server)) == (143, ["p-0", "p-1"])
    assert f"not saved to the ledger: j1: created as {ALL['j1']}" in done.err
    assert "not saved to the ledger: j2: not sent" in done.err
    checked(shell("resolve", "nightly.yaml", "--ledger", place.ledger, "--absent", "j2", "--settle", "0"))
    check_it_ends_well(shell, server, place.ledger)


def test_a_record_that_can_be_written_again_has_what_came_back(
    shell: Shell, server: WireServer, backend: Backend, place: Place
) -> None:
    later = threading.Event()
    backend.scripts = {"p-1": Stall(later, then=created("job-of-p-1"))}
    with stalled(shell, server, place) as process:
        with place.trouble(process.pid):
            backend.gate.set()
            assert process.stderr is not None
            assert any("stopping" in line for line in process.stderr)
        later.set()
        done = finished(process)
    assert (done.code, sent(server)) == (4, ["p-0", "p-1"])
    assert "not saved to the ledger" not in done.err
    assert on_record(place.ledger) == {name: ALL[name] for name in ("j0", "j1")}
    backend.scripts = {}
    check_it_ends_well(shell, server, place.ledger)


def test_the_last_answers_are_told_too(shell: Shell, server: WireServer, backend: Backend, place: Place) -> None:
    """Nothing is left to send when the record ends."""
    with stalled(shell, server, place, "--only", "j[01]") as process, place.trouble(process.pid):
        backend.gate.set()
        done = finished(process)
    assert done.code in (3, 4)
    for name in ("j0", "j1"):
        assert f"not saved to the ledger: {name}: created as {ALL[name]}" in done.err
    check_it_ends_well(shell, server, place.ledger)


# The results file, and stdout.


def removed(results: Path) -> None:
    shutil.rmtree(results.parent)


def replaced(results: Path) -> None:
    results.mkdir()


@pytest.mark.parametrize("lose", [removed, replaced])
def test_results_that_cannot_be_written_at_the_end(
    shell: Shell, server: WireServer, backend: Backend, lose: Callable[[Path], None]
) -> None:
    results = shell.directory / "out" / "jobs.json"
    results.parent.mkdir()
    with shell.start("run", "nightly.yaml", "--results", results) as process:
        server.wait_for_requests(2)
        lose(results)
        backend.gate.set()
        done = finished(process)
    check_unwritten(shell, server, done, results)


@pytest.mark.parametrize("trouble", [Disk.filled, Disk.read_only], ids=["full", "read-only"])
def test_results_on_a_disk_that_cannot_be_written_at_the_end(
    shell: Shell,
    server: WireServer,
    backend: Backend,
    disk: Disk,
    trouble: Callable[[Disk], AbstractContextManager[None]],
) -> None:
    results = disk.root / "jobs.json"
    results.write_text("what was there before", encoding="utf-8")
    with shell.start("run", "nightly.yaml", "--results", results) as process:
        server.wait_for_requests(2)
        with trouble(disk):
            backend.gate.set()
            done = finished(process)
    assert results.read_text(encoding="utf-8") == "what was there before"
    assert [one.name for one in disk.root.iterdir()] == ["jobs.json"]
    check_unwritten(shell, server, done, results)


def check_unwritten(shell: Shell, server: WireServer, done: CompletedCommand, results: Path) -> None:
    assert done.code == 4
    assert f"error: the results file {results} " in done.err
    assert "results: not written" in done.err
    assert all(job_id in done.out for job_id in ALL.values())
    assert made(server) == PROJECTS
    if results.is_dir():
        results.rmdir()
    results.parent.mkdir(exist_ok=True)
    assert checked(shell("show", "--results", results)).code == 0
    assert {job["name"]: job["job"]["id"] for job in check_results(results)["created"]} == ALL
    assert run(shell).code == 0
    assert len(server.created) == len(JOBS)


@needs_full_device
@pytest.mark.parametrize(
    ("streams", "arguments"),
    [(("stdout",), ()), (("stdout",), ("--format", "json")), (("stderr",), ("-v",)), (("stdout", "stderr"), ("-v",))],
    ids=["stdout", "stdout-json", "stderr", "both"],
)
def test_streams_on_a_full_disk(
    shell: Shell, server: WireServer, backend: Backend, arguments: Sequence[str], streams: Sequence[str]
) -> None:
    backend.gate.set()
    with open("/dev/full", "w") as full:  # noqa: PTH123 - nothing is ever written
        done = run(shell, *arguments, **dict.fromkeys(streams, full))
    assert done.code == (4 if "stdout" in streams else 0)
    if streams == ("stdout",):
        assert "cannot write to stdout: No space left on device" in done.err
    assert {job["name"] for job in check_results(shell.directory / "nightly.results.json")["created"]} == set(ALL)
    assert on_record(shell.ledger) == ALL
    assert made(server) == PROJECTS
