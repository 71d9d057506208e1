"""Concurrent runs of one manifest, or of several in one ledger, and runs that are killed.

Which jobs were created is read from the server.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest
from support import shell as shells
from support.schemas import check_results
from support.shell import CompletedCommand, Shell
from support.wire import TIMEOUT, Request, Reset, Script, Stall, WireServer, created, reply

from runner.ledger import connect, lock
from runner.ledger.store import Ledger

SOON = 15.0  # seconds: well below the grace period, and enough for a slow machine

# The command. It reports that it is ready, and waits for the start; lookups are quick and the grace period is long.
READY_COMMAND = """
import os, sys
from runner.runs import reconcile
from runner.cli.commands import run
from runner.cli.main import main
from runner.submission import engine
reconcile.LOOKUP_DELAYS = (0.0, 0.1)
engine.GRACE_PERIOD = 60.0
if "READY" in os.environ:
    os.write(int(os.environ["READY"]), b".")
    os.read(int(os.environ["START"]), 1)
sys.exit(main())
"""

JOBS = tuple((f"j{number}", "w-1", f"p-{number}") for number in range(4))
PROJECTS = [project for _, _, project in JOBS]
RUN_COUNT = 10


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", "-c", READY_COMMAND, *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)
    shell = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "2"})
    shell.manifest(*JOBS, once_per="forever")
    return shell


@dataclass
class Backend:
    """An API that creates a job for each POST at once, responds with its project's script, and lists all jobs."""

    scripts: dict[str, Script] = field(default_factory=dict)
    jobs: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __call__(self, request: Request) -> Script:
        if request.method == "GET":
            jobs = [job for workflow, job in self.jobs if workflow == request.workflow]
            return reply(200, json.dumps({"jobs": jobs}).encode())
        project = request.project
        self.counts[project] = self.counts.get(project, 0) + 1
        job_id = f"job-{self.counts[project]}-of-{project}"
        self.jobs.append((request.workflow, {"id": job_id, "created_at": datetime.now(UTC).isoformat()}))
        return self.scripts.get(project) or created(job_id)


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


@pytest.fixture
def server(shell: Shell, backend: Backend) -> Iterator[WireServer]:
    with WireServer(choose=backend) as server:
        shell.use_api(server.url)
        yield server


def stall(backend: Backend, gate: threading.Event, *projects: str) -> None:
    """Delay the responses for these projects until the gate opens; their jobs exist before that."""
    for project in projects:
        backend.scripts[project] = Stall(gate, then=created(f"job-1-of-{project}"))


def created_projects(server: WireServer) -> list[str]:
    assert len(server.created) == sum(request.method == "POST" for request in server.requests)
    return sorted(request.project for request in server.created)


def recorded_job_ids(path: Path) -> list[str]:
    """Return the ids of all created jobs in the ledger."""
    with Ledger(path) as ledger:
        return sorted(str(row.job_id) for row in ledger.all_submissions() if row.state == "created")


def first_job_ids(*projects: str) -> list[str]:
    return sorted(f"job-1-of-{project}" for project in projects)


def finish(process: subprocess.Popen[str], timeout: float = 3 * TIMEOUT) -> CompletedCommand:
    out, err = process.communicate(timeout=timeout)
    assert not any(text in err for text in ("Traceback", "bug:", "Exception")), err
    return CompletedCommand(process.returncode, out, err)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"stderr ended without {text!r}")


class ConcurrentRuns:
    """Runs that are started one by one and released together. Those still running at the end are killed."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._ready, self._ready_end = os.pipe()
        self._start, self._start_end = os.pipe()
        self._open = {self._ready, self._ready_end, self._start, self._start_end}
        self._stack = ExitStack()
        self.processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._open:
            os.close(end)
        self._stack.close()

    def start(self, *arguments: str | Path) -> None:
        ends = (self._ready_end, self._start)
        self._shell.environment |= {"READY": str(ends[0]), "START": str(ends[1])}
        self.processes.append(self._stack.enter_context(self._shell.start(*arguments, pass_fds=ends)))
        del self._shell.environment["READY"]

    def release(self) -> None:
        """Wait until all are ready, then release them."""
        for _ in self.processes:
            assert os.read(self._ready, 1) == b"."
        os.close(self._start_end)
        self._open.remove(self._start_end)

    def finish(self) -> list[CompletedCommand]:
        return [finish(process) for process in self.processes]


@pytest.fixture
def runs(shell: Shell) -> Iterator[ConcurrentRuns]:
    with ConcurrentRuns(shell) as runs:
        yield runs


# One manifest.


def wait_for_exits(processes: Sequence[subprocess.Popen[str]], remaining: int) -> list[subprocess.Popen[str]]:
    """Wait until all but `remaining` processes have exited. Return those that still run."""
    exited = threading.Semaphore(0)

    def wait(process: subprocess.Popen[str]) -> None:
        process.wait()
        exited.release()

    threads = [threading.Thread(target=wait, args=[process]) for process in processes]
    for thread in threads:
        thread.start()
    for _ in processes[remaining:]:
        assert exited.acquire(timeout=3 * TIMEOUT)
    return [process for process in processes if process.returncode is None]


LOCK_HOLDER = re.compile(r"error: manifest 'nightly' is locked at \S+ by run \S+ \(pid (\d+) on \S+, since \S+\)")


def test_of_ten_concurrent_runs_one_proceeds_and_the_others_are_refused(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event, runs: ConcurrentRuns
) -> None:
    stall(backend, gate, *PROJECTS)
    for _ in range(RUN_COUNT):
        runs.start("run", "nightly.yaml")
    runs.release()
    server.wait_for_requests(2)
    [worker] = wait_for_exits(runs.processes, remaining=1)
    gate.set()
    results = {process.pid: finish(process) for process in runs.processes}
    assert sorted(result.code for result in results.values()) == [0] + [5] * (RUN_COUNT - 1)
    assert results[worker.pid].code == 0
    for result in (result for result in results.values() if result.code == 5):
        assert result.out == ""
        assert "--lock-timeout" in result.err
        match = LOCK_HOLDER.search(result.err)
        assert match, result.err
        assert int(match[1]) == worker.pid
    assert (created_projects(server), recorded_job_ids(shell.ledger)) == (PROJECTS, first_job_ids(*PROJECTS))


def test_the_lock_holder_is_named_even_if_it_has_not_written_its_name_yet(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is taken a moment before its text is written, and another run may read it just then."""
    shell.ledger.parent.mkdir()
    with lock.hold(shell.ledger, "sandbox", "nightly", timeout=0, activity="run one"):
        [file] = lock.directory(shell.ledger).iterdir()
        signature = file.read_bytes()
        os.truncate(file, 0)
        monkeypatch.setattr("runner.ledger.lock.time.sleep", lambda _: file.write_bytes(signature))
        contender = lock.hold(shell.ledger, "sandbox", "nightly", timeout=0, activity="run two")
        with pytest.raises(lock.LockedError, match=f"run one \\(pid {os.getpid()} on "), contender:
            pass


def test_concurrent_runs_that_wait_find_nothing_to_submit(
    shell: Shell, server: WireServer, runs: ConcurrentRuns
) -> None:
    for _ in range(RUN_COUNT):
        runs.start("run", "nightly.yaml", "--lock-timeout", "60")
    runs.release()
    results = runs.finish()
    assert [result.code for result in results] == [0] * RUN_COUNT
    assert sum("nothing to submit" in result.err for result in results) == RUN_COUNT - 1
    assert all("4 created" in result.out for result in results)
    assert (created_projects(server), recorded_job_ids(shell.ledger)) == (PROJECTS, first_job_ids(*PROJECTS))
    assert check_results(shell.directory / "nightly.results.json")["summary"]["created"] == len(JOBS)


def test_once_per_run_creates_the_jobs_in_each_run(shell: Shell, server: WireServer, runs: ConcurrentRuns) -> None:
    shell.manifest(*JOBS, once_per="run")
    for _ in range(3):
        runs.start("run", "nightly.yaml", "--lock-timeout", "60")
    runs.release()
    assert [result.code for result in runs.finish()] == [0] * 3
    assert created_projects(server) == sorted(PROJECTS * 3)
    assert len(recorded_job_ids(shell.ledger)) == 3 * len(JOBS)


def test_a_suspended_run_keeps_the_lock(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event
) -> None:
    stall(backend, gate, *PROJECTS)
    with shell.start("run", "nightly.yaml") as process:
        server.wait_for_requests(2)
        process.send_signal(signal.SIGSTOP)
        refused = shell("run", "nightly.yaml")
        process.send_signal(signal.SIGCONT)
        gate.set()
        assert finish(process).code == 0
    assert refused.code == 5
    assert f"pid {process.pid} on" in refused.err
    assert created_projects(server) == PROJECTS


# Several manifests in one ledger.


def write_manifest(shell: Shell, name: str, *pairs: tuple[str, str]) -> None:
    shell.manifest(*((f"{w} of {p}", w, p) for w, p in pairs), path=f"{name}.yaml", once_per="forever")


def test_concurrent_first_runs_share_one_new_ledger(shell: Shell, server: WireServer, runs: ConcurrentRuns) -> None:
    """Nothing exists yet: each run would create the directory and the ledger."""
    names = [f"m{number}" for number in range(6)]
    for name in names:
        write_manifest(shell, name, ("w-1", f"{name}-a"), ("w-1", f"{name}-b"))
        runs.start("run", f"{name}.yaml")
    runs.release()
    assert [(result.code, result.err) for result in runs.finish() if result.code] == []
    projects = [f"{name}-{letter}" for name in names for letter in "ab"]
    assert (created_projects(server), recorded_job_ids(shell.ledger)) == (projects, first_job_ids(*projects))
    assert sorted(entry.name for entry in shell.ledger.parent.iterdir()) == [
        ".gitignore",
        "ledger.db",
        "ledger.db.locks",
    ]


def test_two_manifests_of_one_workflow_share_one_ledger(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event, runs: ConcurrentRuns
) -> None:
    ledger = shell.directory / "jobs.db"
    connect.create_ledger(ledger)
    our_projects, their_projects = [f"a-{number}" for number in range(5)], [f"b-{number}" for number in range(5)]
    write_manifest(shell, "ours", *(("w-1", project) for project in our_projects))
    write_manifest(shell, "theirs", *(("w-1", project) for project in their_projects))
    stall(backend, gate, "a-0", "b-0")
    for name in ("ours", "theirs"):
        runs.start("run", f"{name}.yaml", "--ledger", ledger)
    runs.release()
    server.wait_for(what=lambda log: {"a-0", "b-0"} <= {request.project for request in log.requests})
    gate.set()
    assert [result.code for result in runs.finish()] == [0, 0]
    assert (created_projects(server), recorded_job_ids(ledger)) == (
        [*our_projects, *their_projects],
        first_job_ids(*our_projects, *their_projects),
    )
    for name, projects in (("ours", our_projects), ("theirs", their_projects)):
        results = check_results(shell.directory / f"{name}.results.json")
        assert [job["job"]["id"] for job in results["created"]] == first_job_ids(*projects)


def test_the_same_pair_in_two_manifests_is_two_jobs(shell: Shell, server: WireServer, runs: ConcurrentRuns) -> None:
    for name in ("ours", "theirs"):
        write_manifest(shell, name, ("w-1", "p-1"))
        runs.start("run", f"{name}.yaml")
    runs.release()
    assert [result.code for result in runs.finish()] == [0, 0]
    assert created_projects(server) == ["p-1", "p-1"]
    assert recorded_job_ids(shell.ledger) == ["job-1-of-p-1", "job-2-of-p-1"]


def test_a_lookup_does_not_adopt_a_job_that_another_manifest_is_sending(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event
) -> None:
    write_manifest(shell, "ours", ("w-1", "a"))
    write_manifest(shell, "theirs", ("w-1", "b"))
    backend.scripts["a"] = Reset(creates=True)
    stall(backend, gate, "b")
    with shell.start("run", "theirs.yaml") as process:
        server.wait_for(what=lambda log: bool(log.created))
        assert shell("run", "ours.yaml", "--settle", "0").code == 3
        gate.set()
        assert finish(process).code == 0
    assert recorded_job_ids(shell.ledger) == first_job_ids("b")
    assert shell("run", "ours.yaml", "--settle", "0").code == 0
    assert (created_projects(server), recorded_job_ids(shell.ledger)) == (["a", "b"], first_job_ids("a", "b"))


# Killed runs.


def test_a_second_signal_ends_the_run_with_its_results_at_once(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event
) -> None:
    """CI sends SIGINT, then SIGTERM; the run exits before the SIGKILL."""
    stall(backend, gate, *PROJECTS)
    with shell.start("run", "nightly.yaml") as process:
        server.wait_for_requests(2)
        process.send_signal(signal.SIGINT)
        read_until(process, "stopping")
        process.send_signal(signal.SIGTERM)
        result = finish(process, SOON)
    assert result.code == 130
    results = check_results(shell.directory / "nightly.results.json")
    assert results["run"]["state"] == "interrupted"
    assert {error["name"]: error["outcome"] for error in results["errors"]} == {"j0": "in_doubt", "j1": "in_doubt"}
    assert [skipped["name"] for skipped in results["skipped"]] == ["j2", "j3"]
    with Ledger(shell.ledger) as ledger:
        assert [row.state for row in ledger.all_submissions()] == ["in_doubt", "in_doubt"]
    check_the_next_run(shell, server, backend, gate)


def test_two_simultaneous_signals_are_both_handled(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event, runs: ConcurrentRuns
) -> None:
    """The kernel may deliver both to a worker thread: the engine's thread must still wake up."""
    names = [f"m{number}" for number in range(5)]
    for name in names:
        write_manifest(shell, name, ("w-1", name))
        stall(backend, gate, name)
        runs.start("run", f"{name}.yaml", "--hold")
    runs.release()
    server.wait_for_requests(len(names))
    for process in runs.processes:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    assert {finish(process, SOON).code for process in runs.processes} <= {130, 143}
    for name in names:
        assert len(check_results(shell.directory / f"{name}.results.json")["errors"]) == 1


@contextmanager
def start_and_kill(shell: Shell, server: WireServer, *signals: int) -> Iterator[subprocess.Popen[str]]:
    """Start a run and kill it with SIGKILL while two requests are in flight, after sending the other signals."""
    with shell.start("run", "nightly.yaml") as process:
        server.wait_for_requests(2)
        for signum in signals:
            process.send_signal(signum)
            read_until(process, "stopping")
        yield process
        process.kill()
        process.wait()


@pytest.mark.parametrize("signals", [(), (signal.SIGINT,), (signal.SIGTERM,)], ids=["at-once", "SIGINT", "SIGTERM"])
def test_sigkill_releases_the_lock_and_loses_no_job(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event, signals: Sequence[int]
) -> None:
    stall(backend, gate, *PROJECTS)
    with start_and_kill(shell, server, *signals) as process:
        refused = shell("run", "nightly.yaml")
        assert refused.code == 5
        assert f"pid {process.pid} on" in refused.err
    assert not (shell.directory / "nightly.results.json").exists()
    check_the_next_run(shell, server, backend, gate)


def test_a_waiting_run_continues_where_a_killed_run_ended(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event
) -> None:
    stall(backend, gate, *PROJECTS[:2])
    with start_and_kill(shell, server), ExitStack() as stack:
        waiting = [stack.enter_context(shell.start("run", "nightly.yaml", "--lock-timeout", "60")) for _ in "ab"]
        waiting_stack = stack.pop_all()
    with waiting_stack:
        assert [finish(process).code for process in waiting] == [0, 0]
    assert (created_projects(server), recorded_job_ids(shell.ledger)) == (PROJECTS, first_job_ids(*PROJECTS))


def check_the_next_run(shell: Shell, server: WireServer, backend: Backend, gate: threading.Event) -> None:
    """Check that the next run gets the lock at once, recovers the jobs in flight, and sends the rest."""
    gate.set()
    backend.scripts = {}
    result = shell("run", "nightly.yaml")
    assert result.code == 0, result.err
    assert (created_projects(server), recorded_job_ids(shell.ledger)) == (PROJECTS, first_job_ids(*PROJECTS))
    results = check_results(shell.directory / "nightly.results.json")
    assert [job["recovered"] for job in results["created"]] == [True, True, False, False]
    assert shell("run", "nightly.yaml").code == 0
    assert created_projects(server) == PROJECTS
