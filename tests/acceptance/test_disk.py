"""Full and read-only disks, damaged and locked ledgers: nothing is sent unrecorded, and no job is lost.

Which jobs were created is read from the server.
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

# The command, with a short timeout for a locked ledger: the usual 30 seconds are too long for a test.
SHORT_TIMEOUT_COMMAND = """
import sys
from runner.cli.main import main
from runner.ledger import connect
connect._BUSY_TIMEOUT = 0.05
sys.exit(main())
"""

JOBS = tuple((f"j{number}", f"w-{number}", f"p-{number}") for number in range(6))
PROJECTS = [project for _, _, project in JOBS]
JOB_IDS = {name: f"job-of-{project}" for name, _, project in JOBS}
# Claims nothing ahead: an unsent claim that a full disk keeps from being released is in doubt until the next run.
ONE_AT_A_TIME = {"PIXXEL_RUNNER_CONCURRENCY": "1", "PIXXEL_RUNNER_RATE": "1000/s"}
FULL = "database or disk is full"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    set_program(monkeypatch, "-m", "runner")
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # coverage writes files, which these tests prevent
    shell = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "2"})
    shell.manifest(*JOBS, once_per="forever")
    return shell


def set_program(monkeypatch: pytest.MonkeyPatch, *program: str) -> None:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", *program, *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with disks.mounted(tmp_path / "disk") as disk:
        yield disk


@dataclass
class Backend:
    """An API that creates a job for each POST, unless its project has a script, and responds once the gate opens."""

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
    with WireServer(choose=backend) as server:
        shell.use_api(server.url)
        yield server


def posted_projects(server: WireServer) -> list[str]:
    return sorted(request.project for request in server.requests if request.method == "POST")


def created_projects(server: WireServer) -> list[str]:
    return sorted(request.project for request in server.created)


def run(shell: Shell, *arguments: str | Path, **streams: Any) -> CompletedCommand:
    return check_no_traceback(shell("run", "nightly.yaml", *arguments, **streams))


def finish(process: subprocess.Popen[str]) -> CompletedCommand:
    out, err = process.communicate(timeout=3 * TIMEOUT)
    return check_no_traceback(CompletedCommand(process.returncode, out, err))


def check_no_traceback(result: CompletedCommand) -> CompletedCommand:
    assert not any(word in result.err for word in ("Traceback", "bug:", "Exception")), result.err
    return result


def recorded_jobs(path: Path) -> dict[str, str]:
    """Return the ids of the created jobs in the ledger, by name."""
    with Ledger(path) as ledger:
        return {row.name: str(row.job_id) for row in ledger.all_submissions() if row.state == "created"}


def check_next_run_completes(shell: Shell, server: WireServer, ledger: Path, *arguments: str | Path) -> None:
    """Check that the next run completes: the server created each job once, and the ledger has them all."""
    result = run(shell, "--ledger", ledger, "--settle", "0", *arguments)
    assert result.code == 0, result.err
    assert posted_projects(server) == created_projects(server) == PROJECTS
    assert recorded_jobs(ledger) == JOB_IDS
    results = check_results(shell.directory / "nightly.results.json")
    assert {job["name"]: job["job"]["id"] for job in results["created"]} == JOB_IDS


def check_refusal(result: CompletedCommand, *texts: str) -> None:
    """Check for one error, one line with its hint, and nothing else."""
    first, *hint = result.err.splitlines()
    assert (result.code, result.out) == (4, "")
    assert first.startswith("error: ")
    assert len(hint) == 1, result.err
    assert hint[0].startswith("  ")
    assert len(hint[0]) > len("  Do it.")
    for text in texts:
        assert text in result.err


# An unusable ledger, before anything is sent.


def truncate(ledger: Path) -> None:
    os.truncate(ledger, ledger.stat().st_size // 2 // PAGE * PAGE)


def empty(ledger: Path) -> None:
    os.truncate(ledger, 0)


def garble_header(ledger: Path) -> None:
    with ledger.open("r+b") as file:
        file.write(b"\xa5" * PAGE)


def garble_pages(ledger: Path) -> None:
    with ledger.open("r+b") as file:
        file.seek(2 * PAGE)
        file.write(b"\xa5" * (ledger.stat().st_size - 2 * PAGE))


def set_newer_version(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.latest_version() + 1}")


def replace_with_foreign_database(ledger: Path) -> None:
    ledger.unlink()
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID + 1}")
        connection.execute("CREATE TABLE submissions (id)")


def replace_with_text(ledger: Path) -> None:
    ledger.write_text("version: 1\njobs: []\n" * 100, encoding="utf-8")


DAMAGES: list[tuple[Callable[[Path], None], str, str]] = [
    (truncate, "is damaged", "backup"),
    (empty, "is not a ledger", "backup"),
    (garble_header, "is not a ledger", "backup"),
    (garble_pages, "the ledger", "backup"),
    (set_newer_version, "newer pixxel-runner", "Upgrade"),
    (replace_with_foreign_database, "is not a ledger", "--ledger"),
    (replace_with_text, "is not a ledger", "Check the path"),
]


@pytest.mark.parametrize(
    ("damage", "message", "advice", "explicit"),
    [
        *(pytest.param(*row, True, id=f"{row[0].__name__}-explicit") for row in DAMAGES),
        *(pytest.param(*row, False, id=row[0].__name__) for row in DAMAGES if row[0] in (empty, set_newer_version)),
    ],
)
def test_an_unusable_ledger_stops_the_run_before_it_sends(
    shell: Shell, server: WireServer, damage: Callable[[Path], None], message: str, advice: str, explicit: bool
) -> None:
    ledger = shell.directory / "jobs.db" if explicit else shell.ledger
    ledger.parent.mkdir(exist_ok=True)
    connect.create_ledger(ledger)
    damage(ledger)
    damaged = ledger.read_bytes()
    check_refusal(run(shell, *(("--ledger", ledger) if explicit else ())), ledger.name, message, advice)
    assert server.log.connections == 0
    assert ledger.read_bytes() == damaged
    assert not (shell.directory / "nightly.results.json").exists()


def test_a_ledger_restored_from_a_backup_prevents_duplicates(
    shell: Shell, server: WireServer, backend: Backend
) -> None:
    backend.gate.set()
    assert run(shell).code == 0
    backup = shell.ledger.read_bytes()
    shell.manifest(*JOBS, ("more", "w-9", "p-9"), once_per="forever")
    for damage in (empty, truncate):
        damage(shell.ledger)
        check_refusal(run(shell), "backup")
        shell.ledger.write_bytes(backup)
    assert posted_projects(server) == PROJECTS
    assert run(shell).code == 0
    assert posted_projects(server) == created_projects(server) == [*PROJECTS, "p-9"]


@pytest.fixture
def large_ledger(tmp_path: Path) -> Path:
    """A ledger of many pages."""
    path = tmp_path / "ledger.db"
    jobs = [ledger_history.job(f"job-{number:03}", f"w-{number}", note="x" * 300) for number in range(30)]
    with ledger_history.open_ledger(path) as ledger:
        run_record = ledger_history.start_run(ledger, "run-1", jobs)
        for job in jobs:
            ledger_history.send(ledger, run_record, job, ledger_history.created(f"id-of-{job.name}"))
    return path


def test_a_ledger_truncated_before_its_last_page_is_refused(large_ledger: Path) -> None:
    check_truncations(large_ledger, [1, 99, 100, *range(0, large_ledger.stat().st_size - PAGE + 1, PAGE // 2)])


def test_a_ledger_truncated_within_its_last_page_is_refused(large_ledger: Path) -> None:
    size = large_ledger.stat().st_size
    check_truncations(large_ledger, range(size - PAGE, size, PAGE // 16))


def check_truncations(large_ledger: Path, lengths: Iterable[int]) -> None:
    content = large_ledger.read_bytes()
    for length in lengths:
        large_ledger.write_bytes(content[:length])
        with pytest.raises(LedgerError) as refusal:
            Ledger(large_ledger)
        assert refusal.value.hint


def test_a_ledger_with_a_lost_page_is_refused(large_ledger: Path) -> None:
    content = large_ledger.read_bytes()
    for offset in range(0, len(content), PAGE):
        for page in (b"\xa5" * PAGE, bytes(PAGE)):
            large_ledger.write_bytes(content[:offset] + page + content[offset + PAGE :])
            with pytest.raises(LedgerError) as refusal:
                Ledger(large_ledger)
            assert refusal.value.hint


@pytest.mark.parametrize("path", ["jobs.db", "no/such/directory/jobs.db"])
def test_a_missing_explicit_ledger_is_not_created(shell: Shell, server: WireServer, path: str) -> None:
    check_refusal(run(shell, "--ledger", path), f"there is no ledger at {path}", f"pixxel-runner ledger init {path}")
    assert server.log.connections == 0
    assert sorted(entry.name for entry in shell.directory.iterdir()) == ["nightly.yaml"]


def test_a_directory_is_refused_as_a_ledger(shell: Shell, server: WireServer) -> None:
    check_refusal(run(shell, "--ledger", "."), "the ledger . ")
    assert server.log.connections == 0


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Lock the ledger as another program does."""
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_a_ledger_that_another_program_has_locked_is_refused(
    shell: Shell, server: WireServer, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.gate.set()
    set_program(monkeypatch, "-c", SHORT_TIMEOUT_COMMAND)
    ledger = shell.directory / "jobs.db"
    connect.create_ledger(ledger)
    with locked(ledger):
        check_refusal(run(shell, "--ledger", ledger), "the ledger", "is locked", "Another program has it locked")
    assert server.log.connections == 0
    check_next_run_completes(shell, server, ledger)


# An unwritable disk, before anything is sent.


def test_a_run_on_a_full_disk_sends_nothing(shell: Shell, server: WireServer, disk: Disk, backend: Backend) -> None:
    backend.gate.set()
    shell.directory = disk.root
    shell.manifest(*JOBS, once_per="forever")
    disk.fill()
    check_refusal(run(shell), "nightly.results.json", "No space left", "Free some disk space")
    assert server.log.connections == 0
    disk.free()
    assert run(shell).code == 0
    assert (created_projects(server), recorded_jobs(shell.ledger)) == (PROJECTS, JOB_IDS)


def test_init_on_a_full_disk_leaves_no_partial_manifest(shell: Shell, disk: Disk) -> None:
    shell.directory = disk.root
    disk.fill()
    before = sorted(disk.root.iterdir())
    check_refusal(shell.call("init", "new.yaml"), "new.yaml cannot be written", "No space left")
    assert sorted(disk.root.iterdir()) == before
    disk.free()
    assert shell.call("init", "new.yaml").code == 0


def test_a_manifest_on_a_full_disk_sends_nothing(
    shell: Shell, server: WireServer, disk: Disk, backend: Backend
) -> None:
    backend.gate.set()
    manifest = shutil.move(shell.directory / "nightly.yaml", disk.root)
    disk.fill()
    for _ in range(2):  # what the first run leaves behind does not affect the second
        refused = check_no_traceback(shell("run", manifest))
        check_refusal(refused, ".pixxel-runner", "No space left")
    assert server.log.connections == 0
    disk.free()
    assert check_no_traceback(shell("run", manifest)).code == 0
    assert created_projects(server) == PROJECTS
    assert recorded_jobs(disk.root / ".pixxel-runner" / "ledger.db") == JOB_IDS


def test_a_ledger_on_a_full_disk_sends_nothing(shell: Shell, server: WireServer, disk: Disk, backend: Backend) -> None:
    backend.gate.set()
    ledger = disk.root / "jobs.db"
    connect.create_ledger(ledger)
    disk.fill()
    check_refusal(run(shell, "--ledger", ledger))
    assert server.log.connections == 0
    disk.free()
    check_next_run_completes(shell, server, ledger)


@pytest.mark.parametrize("pages", [9, 20, 26])
def test_a_disk_that_fills_up_during_a_run_loses_no_job(
    shell: Shell, server: WireServer, disk: Disk, backend: Backend, pages: int
) -> None:
    backend.gate.set()
    ledger = disk.root / "jobs.db"
    connect.create_ledger(ledger)
    shell.environment |= ONE_AT_A_TIME
    disk.fill(but=pages * PAGE)
    result = run(shell, "--ledger", ledger)
    disk.free()
    check_created_jobs_are_reported(server, result, recorded_jobs(ledger))
    check_next_run_completes(shell, server, ledger)


@pytest.mark.parametrize("kilobytes", [0, 64, 72, 96])
def test_a_file_size_limit_loses_no_job(shell: Shell, server: WireServer, backend: Backend, kilobytes: int) -> None:
    backend.gate.set()
    shell.environment |= ONE_AT_A_TIME
    with disks.file_size_limited(kilobytes * 1024):
        result = run(shell)
    if kilobytes == 0:
        check_refusal(result, "nightly.results.json", "File too large", "ulimit -f")
    check_created_jobs_are_reported(server, result, recorded_jobs(shell.ledger) if shell.ledger.exists() else {})
    assert run(shell, "--settle", "0").code == 0
    assert posted_projects(server) == created_projects(server) == PROJECTS
    assert recorded_jobs(shell.ledger) == JOB_IDS


def check_created_jobs_are_reported(server: WireServer, result: CompletedCommand, recorded: dict[str, str]) -> None:
    """Check that each job the server created is either in the ledger or on stderr, by name and id."""
    reported = {
        name: job_id
        for name, job_id in JOB_IDS.items()
        if f"not saved to the ledger: {name}: created as {job_id}" in result.err
    }
    assert {*recorded.items(), *reported.items()} == {
        (f"j{project[2:]}", f"job-of-{project}") for project in created_projects(server)
    }
    assert not recorded.keys() & reported.keys()
    if len(recorded) < len(JOB_IDS):
        assert result.code in (3, 4)
        assert "error: " in result.err


@pytest.mark.parametrize("location", ["everything", "ledger", "manifest"])
def test_a_read_only_disk_sends_nothing(
    shell: Shell, server: WireServer, disk: Disk, backend: Backend, location: str
) -> None:
    backend.gate.set()
    ledger = disk.root / "jobs.db"
    connect.create_ledger(ledger)
    manifest = Path("nightly.yaml")
    if location != "ledger":
        manifest = Path(shutil.move(shell.directory / manifest, disk.root))
    if location == "everything":
        shell.directory = disk.root
    arguments = ("--ledger", ledger) if location == "ledger" else ()
    with disk.read_only():
        refused = check_no_traceback(shell("run", manifest, *arguments))
    messages = {"everything": "Read-only file system", "ledger": "Read-only file system", "manifest": ".pixxel-runner"}
    check_refusal(refused, messages[location], "writ")
    assert server.log.connections == 0
    assert check_no_traceback(shell("run", manifest, *arguments)).code == 0
    assert created_projects(server) == PROJECTS


# During a run.


@dataclass(frozen=True)
class FailingLedger:
    """A ledger, and what makes it unwritable for a process while its requests are in flight."""

    ledger: Path
    cause: Callable[[int], AbstractContextManager[None]]
    message: str


@pytest.fixture(params=["disk-full", "file-limit", "ledger-held"])
def failing_ledger(request: pytest.FixtureRequest, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> FailingLedger:
    ledger = shell.directory / "jobs.db"
    if request.param == "disk-full":
        disk: Disk = request.getfixturevalue("disk")
        failing = FailingLedger(disk.root / "jobs.db", lambda _: disk.filled(), FULL)
    elif request.param == "file-limit":
        failing = FailingLedger(ledger, disks.file_growth_blocked, "cannot be used")
    else:
        set_program(monkeypatch, "-c", SHORT_TIMEOUT_COMMAND)
        failing = FailingLedger(ledger, lambda _: locked(ledger), "is locked")
    connect.create_ledger(failing.ledger)
    return failing


@contextmanager
def start_stalled(
    shell: Shell, server: WireServer, failing_ledger: FailingLedger, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a run that has two requests in flight, whose responses wait for the gate."""
    with shell.start("run", "nightly.yaml", "--ledger", failing_ledger.ledger, *arguments) as process:
        server.wait_for_requests(2)
        yield process


@pytest.mark.parametrize(("once_per", "flag"), [("run", "--resume"), ("forever", "")])
def test_a_ledger_that_fails_during_a_run_stops_it_and_loses_no_job(
    shell: Shell, server: WireServer, backend: Backend, failing_ledger: FailingLedger, once_per: str, flag: str
) -> None:
    shell.manifest(*JOBS, once_per=once_per)
    with start_stalled(shell, server, failing_ledger) as process, failing_ledger.cause(process.pid):
        backend.gate.set()
        result = finish(process)
    assert result.code in (3, 4)
    assert posted_projects(server) == ["p-0", "p-1"]
    assert failing_ledger.message in result.err
    for name in ("j0", "j1"):
        assert f"not saved to the ledger: {name}: created as {JOB_IDS[name]}" in result.err
    assert "the ledger" in result.err
    check_next_run_completes(shell, server, failing_ledger.ledger, *([flag] if flag else []))


def test_known_outcomes_are_not_reported_as_in_doubt(
    shell: Shell, server: WireServer, backend: Backend, failing_ledger: FailingLedger
) -> None:
    with start_stalled(shell, server, failing_ledger) as process, failing_ledger.cause(process.pid):
        backend.gate.set()
        result = finish(process)
    assert "may or may not" not in result.err
    assert "the process ended" not in result.out
    assert result.code == 4
    assert result.err.count("error: ") == 1 + result.err.count("error: the results file")


def test_unsaved_outcomes_are_reported(
    shell: Shell, server: WireServer, backend: Backend, failing_ledger: FailingLedger
) -> None:
    backend.scripts = {"p-0": reply(422), "p-1": Reset(creates=True)}
    with start_stalled(shell, server, failing_ledger) as process, failing_ledger.cause(process.pid):
        backend.gate.set()
        result = finish(process)
    assert (result.code, posted_projects(server)) == (3, ["p-0", "p-1"])
    assert "not saved to the ledger: j0: not created" in result.err
    assert "not saved to the ledger: j1: in doubt" in result.err


def test_unreleased_claims_are_reported(
    shell: Shell, server: WireServer, backend: Backend, failing_ledger: FailingLedger
) -> None:
    """Jobs are claimed ahead for a fast server. A signal releases them, but the ledger cannot be written."""
    second_gate = threading.Event()
    backend.gate.set()
    backend.scripts = {"p-1": Stall(second_gate, then=created("job-of-p-1"))}
    shell.environment["PIXXEL_RUNNER_CONCURRENCY"] = "1"
    with start_stalled(shell, server, failing_ledger) as process, failing_ledger.cause(process.pid):
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert any("stopping: interrupted" in line for line in process.stderr)
        second_gate.set()
        result = finish(process)
    assert (result.code, posted_projects(server)) == (143, ["p-0", "p-1"])
    assert f"not saved to the ledger: j1: created as {JOB_IDS['j1']}" in result.err
    assert "not saved to the ledger: j2: not sent" in result.err
    check_no_traceback(
        shell("resolve", "nightly.yaml", "--ledger", failing_ledger.ledger, "--absent", "j2", "--settle", "0")
    )
    check_next_run_completes(shell, server, failing_ledger.ledger)


def test_a_ledger_that_recovers_receives_the_pending_outcomes(
    shell: Shell, server: WireServer, backend: Backend, failing_ledger: FailingLedger
) -> None:
    second_gate = threading.Event()
    backend.scripts = {"p-1": Stall(second_gate, then=created("job-of-p-1"))}
    with start_stalled(shell, server, failing_ledger) as process:
        with failing_ledger.cause(process.pid):
            backend.gate.set()
            assert process.stderr is not None
            assert any("stopping" in line for line in process.stderr)
        second_gate.set()
        result = finish(process)
    assert (result.code, posted_projects(server)) == (4, ["p-0", "p-1"])
    assert "not saved to the ledger" not in result.err
    assert recorded_jobs(failing_ledger.ledger) == {name: JOB_IDS[name] for name in ("j0", "j1")}
    backend.scripts = {}
    check_next_run_completes(shell, server, failing_ledger.ledger)


def test_the_last_outcomes_are_reported_when_the_ledger_fails(
    shell: Shell, server: WireServer, backend: Backend, failing_ledger: FailingLedger
) -> None:
    """Nothing is left to send when the ledger fails."""
    with start_stalled(shell, server, failing_ledger, "--only", "j[01]") as process, failing_ledger.cause(process.pid):
        backend.gate.set()
        result = finish(process)
    assert result.code in (3, 4)
    for name in ("j0", "j1"):
        assert f"not saved to the ledger: {name}: created as {JOB_IDS[name]}" in result.err
    check_next_run_completes(shell, server, failing_ledger.ledger)


# The results file, and stdout.


def remove_directory(results: Path) -> None:
    shutil.rmtree(results.parent)


def replace_with_directory(results: Path) -> None:
    results.mkdir()


@pytest.mark.parametrize("obstruct", [remove_directory, replace_with_directory])
def test_a_results_file_that_cannot_be_written_loses_no_job(
    shell: Shell, server: WireServer, backend: Backend, obstruct: Callable[[Path], None]
) -> None:
    results = shell.directory / "out" / "jobs.json"
    results.parent.mkdir()
    with shell.start("run", "nightly.yaml", "--results", results) as process:
        server.wait_for_requests(2)
        obstruct(results)
        backend.gate.set()
        result = finish(process)
    check_results_not_written(shell, server, result, results)


@pytest.mark.parametrize("cause", [Disk.filled, Disk.read_only], ids=["full", "read-only"])
def test_a_results_file_on_an_unwritable_disk_loses_no_job(
    shell: Shell,
    server: WireServer,
    backend: Backend,
    disk: Disk,
    cause: Callable[[Disk], AbstractContextManager[None]],
) -> None:
    results = disk.root / "jobs.json"
    results.write_text("the earlier content", encoding="utf-8")
    with shell.start("run", "nightly.yaml", "--results", results) as process:
        server.wait_for_requests(2)
        with cause(disk):
            backend.gate.set()
            result = finish(process)
    assert results.read_text(encoding="utf-8") == "the earlier content"
    assert [entry.name for entry in disk.root.iterdir()] == ["jobs.json"]
    check_results_not_written(shell, server, result, results)


def check_results_not_written(shell: Shell, server: WireServer, result: CompletedCommand, results: Path) -> None:
    assert result.code == 4
    assert f"error: the results file {results} " in result.err
    assert "results: not written" in result.err
    assert all(job_id in result.out for job_id in JOB_IDS.values())
    assert created_projects(server) == PROJECTS
    if results.is_dir():
        results.rmdir()
    results.parent.mkdir(exist_ok=True)
    assert check_no_traceback(shell("show", "--results", results)).code == 0
    assert {job["name"]: job["job"]["id"] for job in check_results(results)["created"]} == JOB_IDS
    assert run(shell).code == 0
    assert len(server.created) == len(JOBS)


@needs_full_device
@pytest.mark.parametrize(
    ("streams", "arguments"),
    [(("stdout",), ()), (("stdout",), ("--format", "json")), (("stderr",), ("-v",)), (("stdout", "stderr"), ("-v",))],
    ids=["stdout", "stdout-json", "stderr", "both"],
)
def test_output_streams_on_a_full_disk_lose_no_job(
    shell: Shell, server: WireServer, backend: Backend, arguments: Sequence[str], streams: Sequence[str]
) -> None:
    backend.gate.set()
    with open("/dev/full", "w") as full:  # noqa: PTH123 - nothing is ever written
        result = run(shell, *arguments, **dict.fromkeys(streams, full))
    assert result.code == (4 if "stdout" in streams else 0)
    if streams == ("stdout",):
        assert "cannot write to stdout: No space left on device" in result.err
    assert {job["name"] for job in check_results(shell.directory / "nightly.results.json")["created"]} == set(JOB_IDS)
    assert recorded_jobs(shell.ledger) == JOB_IDS
    assert created_projects(server) == PROJECTS
