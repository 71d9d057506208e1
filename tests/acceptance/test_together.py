"""Runs at the same time: of one manifest, of several in one ledger, and runs that a CI or a person kills.

What was created is read from the server's own record.
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

SOON = 15.0  # seconds: well below the grace, and enough for a slow machine

# The command, which is ready, says so, and waits for the word; LOOKS are the seconds between looks at the end of a run.
READY = """
import os, sys
from runner.runs import execution
from runner.cli.commands import run
from runner.cli.main import main
from runner.submission import engine
execution._LOOKUP_DELAYS = (0.0, 0.1)
engine.GRACE_PERIOD = 60.0
if "READY" in os.environ:
    os.write(int(os.environ["READY"]), b".")
    os.read(int(os.environ["WORD"]), 1)
sys.exit(main())
"""

JOBS = tuple((f"j{number}", "w-1", f"p-{number}") for number in range(4))
PROJECTS = [project for _, _, project in JOBS]
TEN = 10


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", "-c", READY, *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)
    one = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "2"})
    one.manifest(*JOBS, once_per="forever")
    return one


@dataclass
class Backend:
    """Makes a job for each POST at once, and answers as its project's script says; the list has all that there are."""

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
    with WireServer(choose=backend) as one:
        shell.use_api(one.url)
        yield one


def stall(backend: Backend, gate: threading.Event, *projects: str) -> None:
    """Have the answers for these wait for the gate; their jobs are there before."""
    for project in projects:
        backend.scripts[project] = Stall(gate, then=created(f"job-1-of-{project}"))


def made(server: WireServer) -> list[str]:
    assert len(server.created) == sum(request.method == "POST" for request in server.requests)
    return sorted(request.project for request in server.created)


def on_record(path: Path) -> list[str]:
    """The ids of all jobs that the ledger knows as created."""
    with Ledger(path) as ledger:
        return sorted(str(one.job_id) for one in ledger.all_submissions() if one.state == "created")


def jobs_of(*projects: str) -> list[str]:
    return sorted(f"job-1-of-{project}" for project in projects)


def finished(process: subprocess.Popen[str], within: float = 3 * TIMEOUT) -> CompletedCommand:
    out, err = process.communicate(timeout=within)
    assert not any(word in err for word in ("Traceback", "bug:", "Exception")), err
    return CompletedCommand(process.returncode, out, err)


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    pytest.fail(f"{word} was never said")


class Crowd:
    """Runs that are started one by one, and let go at once. Those that are still there at the end are killed."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._ready, self._ready_end = os.pipe()
        self._word, self._word_end = os.pipe()
        self._open = {self._ready, self._ready_end, self._word, self._word_end}
        self._stack = ExitStack()
        self.processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._open:
            os.close(end)
        self._stack.close()

    def start(self, *arguments: str | Path) -> None:
        ends = (self._ready_end, self._word)
        self._shell.environment |= {"READY": str(ends[0]), "WORD": str(ends[1])}
        self.processes.append(self._stack.enter_context(self._shell.start(*arguments, pass_fds=ends)))
        del self._shell.environment["READY"]

    def release(self) -> None:
        """Wait until all are ready, and let them go."""
        for _ in self.processes:
            assert os.read(self._ready, 1) == b"."
        os.close(self._word_end)
        self._open.remove(self._word_end)

    def finish(self) -> list[CompletedCommand]:
        return [finished(process) for process in self.processes]


@pytest.fixture
def crowd(shell: Shell) -> Iterator[Crowd]:
    with Crowd(shell) as one:
        yield one


# One manifest.


def ended(processes: Sequence[subprocess.Popen[str]], but: int) -> list[subprocess.Popen[str]]:
    """Wait until all but so many have ended."""
    done = threading.Semaphore(0)

    def wait(process: subprocess.Popen[str]) -> None:
        process.wait()
        done.release()

    threads = [threading.Thread(target=wait, args=[process]) for process in processes]
    for thread in threads:
        thread.start()
    for _ in processes[but:]:
        assert done.acquire(timeout=3 * TIMEOUT)
    return [process for process in processes if process.returncode is None]


HOLDER = re.compile(r"error: manifest 'nightly' is locked at \S+ by run \S+ \(pid (\d+) on \S+, since \S+\)")


def test_ten_at_once_and_one_works(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event, crowd: Crowd
) -> None:
    stall(backend, gate, *PROJECTS)
    for _ in range(TEN):
        crowd.start("run", "nightly.yaml")
    crowd.release()
    server.wait_for_requests(2)
    [worker] = ended(crowd.processes, but=1)
    gate.set()
    done = {process.pid: finished(process) for process in crowd.processes}
    assert sorted(one.code for one in done.values()) == [0] + [5] * (TEN - 1)
    assert done[worker.pid].code == 0
    for one in (one for one in done.values() if one.code == 5):
        assert one.out == ""
        assert "--lock-timeout" in one.err
        found = HOLDER.search(one.err)
        assert found, one.err
        assert int(found[1]) == worker.pid
    assert (made(server), on_record(shell.ledger)) == (PROJECTS, jobs_of(*PROJECTS))


def test_a_holder_that_has_not_signed_yet_is_waited_for_to_say_who_it_is(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is had a moment before its text is written; of many runs at once, one looks just then."""
    shell.ledger.parent.mkdir()
    with lock.hold(shell.ledger, "sandbox", "nightly", timeout=0, activity="run one"):
        [file] = lock.directory(shell.ledger).iterdir()
        signature = file.read_bytes()
        os.truncate(file, 0)
        monkeypatch.setattr("runner.ledger.lock.time.sleep", lambda _: file.write_bytes(signature))
        contender = lock.hold(shell.ledger, "sandbox", "nightly", timeout=0, activity="run two")
        with pytest.raises(lock.LockedError, match=f"run one \\(pid {os.getpid()} on "), contender:
            pass


def test_ten_at_once_that_wait_find_nothing_to_do(shell: Shell, server: WireServer, crowd: Crowd) -> None:
    for _ in range(TEN):
        crowd.start("run", "nightly.yaml", "--lock-timeout", "60")
    crowd.release()
    done = crowd.finish()
    assert [one.code for one in done] == [0] * TEN
    assert sum("nothing to submit" in one.err for one in done) == TEN - 1
    assert all("4 created" in one.out for one in done)
    assert (made(server), on_record(shell.ledger)) == (PROJECTS, jobs_of(*PROJECTS))
    assert check_results(shell.directory / "nightly.results.json")["summary"]["created"] == len(JOBS)


def test_a_new_run_each_time_is_what_once_per_run_means(shell: Shell, server: WireServer, crowd: Crowd) -> None:
    shell.manifest(*JOBS, once_per="run")
    for _ in range(3):
        crowd.start("run", "nightly.yaml", "--lock-timeout", "60")
    crowd.release()
    assert [one.code for one in crowd.finish()] == [0] * 3
    assert made(server) == sorted(PROJECTS * 3)
    assert len(on_record(shell.ledger)) == 3 * len(JOBS)


def test_a_holder_that_is_suspended_keeps_the_lock(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event
) -> None:
    stall(backend, gate, *PROJECTS)
    with shell.start("run", "nightly.yaml") as process:
        server.wait_for_requests(2)
        process.send_signal(signal.SIGSTOP)
        refused = shell("run", "nightly.yaml")
        process.send_signal(signal.SIGCONT)
        gate.set()
        assert finished(process).code == 0
    assert refused.code == 5
    assert f"pid {process.pid} on" in refused.err
    assert made(server) == PROJECTS


# Several manifests in one ledger.


def write(shell: Shell, name: str, *pairs: tuple[str, str]) -> None:
    shell.manifest(*((f"{w} of {p}", w, p) for w, p in pairs), path=f"{name}.yaml", once_per="forever")


def test_manifests_that_are_run_for_the_first_time_at_once(shell: Shell, server: WireServer, crowd: Crowd) -> None:
    """Nothing is there yet: each would make the folder and the ledger."""
    names = [f"m{number}" for number in range(6)]
    for name in names:
        write(shell, name, ("w-1", f"{name}-a"), ("w-1", f"{name}-b"))
        crowd.start("run", f"{name}.yaml")
    crowd.release()
    assert [(one.code, one.err) for one in crowd.finish() if one.code] == []
    projects = [f"{name}-{letter}" for name in names for letter in "ab"]
    assert (made(server), on_record(shell.ledger)) == (projects, jobs_of(*projects))
    assert sorted(one.name for one in shell.ledger.parent.iterdir()) == [".gitignore", "ledger.db", "ledger.db.locks"]


def test_two_manifests_send_jobs_of_one_workflow_into_one_ledger(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event, crowd: Crowd
) -> None:
    ledger = shell.directory / "kept.db"
    connect.create_ledger(ledger)
    ours, theirs = [f"a-{number}" for number in range(5)], [f"b-{number}" for number in range(5)]
    write(shell, "ours", *(("w-1", project) for project in ours))
    write(shell, "theirs", *(("w-1", project) for project in theirs))
    stall(backend, gate, "a-0", "b-0")
    for name in ("ours", "theirs"):
        crowd.start("run", f"{name}.yaml", "--ledger", ledger)
    crowd.release()
    server.wait_for(what=lambda log: {"a-0", "b-0"} <= {request.project for request in log.requests})
    gate.set()
    assert [one.code for one in crowd.finish()] == [0, 0]
    assert (made(server), on_record(ledger)) == ([*ours, *theirs], jobs_of(*ours, *theirs))
    for name, projects in (("ours", ours), ("theirs", theirs)):
        record = check_results(shell.directory / f"{name}.results.json")
        assert [job["job"]["id"] for job in record["created"]] == jobs_of(*projects)


def test_the_same_pair_in_two_manifests_is_two_jobs(shell: Shell, server: WireServer, crowd: Crowd) -> None:
    for name in ("ours", "theirs"):
        write(shell, name, ("w-1", "p-1"))
        crowd.start("run", f"{name}.yaml")
    crowd.release()
    assert [one.code for one in crowd.finish()] == [0, 0]
    assert made(server) == ["p-1", "p-1"]
    assert on_record(shell.ledger) == ["job-1-of-p-1", "job-2-of-p-1"]


def test_a_look_up_does_not_take_what_another_manifest_is_sending(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event
) -> None:
    write(shell, "ours", ("w-1", "a"))
    write(shell, "theirs", ("w-1", "b"))
    backend.scripts["a"] = Reset(creates=True)
    stall(backend, gate, "b")
    with shell.start("run", "theirs.yaml") as process:
        server.wait_for(what=lambda log: bool(log.created))
        assert shell("run", "ours.yaml", "--settle", "0").code == 3
        gate.set()
        assert finished(process).code == 0
    assert on_record(shell.ledger) == jobs_of("b")
    assert shell("run", "ours.yaml", "--settle", "0").code == 0
    assert (made(server), on_record(shell.ledger)) == (["a", "b"], jobs_of("a", "b"))


# Killed.


def test_a_ci_that_asks_twice_gets_the_record_at_once(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event
) -> None:
    """SIGINT, then SIGTERM; the SIGKILL that would come later finds nobody."""
    stall(backend, gate, *PROJECTS)
    with shell.start("run", "nightly.yaml") as process:
        server.wait_for_requests(2)
        process.send_signal(signal.SIGINT)
        read_until(process, "stopping")
        process.send_signal(signal.SIGTERM)
        done = finished(process, SOON)
    assert done.code == 130
    record = check_results(shell.directory / "nightly.results.json")
    assert record["run"]["state"] == "interrupted"
    assert {error["name"]: error["outcome"] for error in record["errors"]} == {"j0": "in_doubt", "j1": "in_doubt"}
    assert [skipped["name"] for skipped in record["skipped"]] == ["j2", "j3"]
    with Ledger(shell.ledger) as ledger:
        assert [one.state for one in ledger.all_submissions()] == ["in_doubt", "in_doubt"]
    check_the_next_run(shell, server, backend, gate)


def test_two_signals_that_come_together_are_both_heard(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event, crowd: Crowd
) -> None:
    """The kernel may give both to a thread that sends: the one that decides must not sleep on."""
    names = [f"m{number}" for number in range(5)]
    for name in names:
        write(shell, name, ("w-1", name))
        stall(backend, gate, name)
        crowd.start("run", f"{name}.yaml", "--hold")
    crowd.release()
    server.wait_for_requests(len(names))
    for process in crowd.processes:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    assert {finished(process, SOON).code for process in crowd.processes} <= {130, 143}
    for name in names:
        assert len(check_results(shell.directory / f"{name}.results.json")["errors"]) == 1


@contextmanager
def killed(shell: Shell, server: WireServer, *before: int) -> Iterator[subprocess.Popen[str]]:
    """A run that is killed with SIGKILL while two sends are in flight, perhaps after another signal."""
    with shell.start("run", "nightly.yaml") as process:
        server.wait_for_requests(2)
        for signum in before:
            process.send_signal(signum)
            read_until(process, "stopping")
        yield process
        process.kill()
        process.wait()


@pytest.mark.parametrize("before", [(), (signal.SIGINT,), (signal.SIGTERM,)], ids=["at-once", "SIGINT", "SIGTERM"])
def test_sigkill_frees_the_lock_and_forgets_nothing(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event, before: Sequence[int]
) -> None:
    stall(backend, gate, *PROJECTS)
    with killed(shell, server, *before) as process:
        refused = shell("run", "nightly.yaml")
        assert refused.code == 5
        assert f"pid {process.pid} on" in refused.err
    assert not (shell.directory / "nightly.results.json").exists()
    check_the_next_run(shell, server, backend, gate)


def test_one_that_waits_goes_on_where_the_killed_one_ended(
    shell: Shell, server: WireServer, backend: Backend, gate: threading.Event
) -> None:
    stall(backend, gate, *PROJECTS[:2])
    with killed(shell, server), ExitStack() as stack:
        waiting = [stack.enter_context(shell.start("run", "nightly.yaml", "--lock-timeout", "60")) for _ in "ab"]
        over = stack.pop_all()
    with over:
        assert [finished(process).code for process in waiting] == [0, 0]
    assert (made(server), on_record(shell.ledger)) == (PROJECTS, jobs_of(*PROJECTS))


def check_the_next_run(shell: Shell, server: WireServer, backend: Backend, gate: threading.Event) -> None:
    """It does not wait for the lock, finds what was in flight, and sends the rest."""
    gate.set()
    backend.scripts = {}
    done = shell("run", "nightly.yaml")
    assert done.code == 0, done.err
    assert (made(server), on_record(shell.ledger)) == (PROJECTS, jobs_of(*PROJECTS))
    record = check_results(shell.directory / "nightly.results.json")
    assert [job["recovered"] for job in record["created"]] == [True, True, False, False]
    assert shell("run", "nightly.yaml").code == 0
    assert made(server) == PROJECTS
