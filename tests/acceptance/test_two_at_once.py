"""Runs that meet: ten of one manifest, two manifests in one ledger, and a CI that kills what it has asked to stop."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.campaign import Shop, read_ledger
from support.schemas import check_results
from support.shell import Shell
from support.wire import PATIENCE, Stall, WireServer, created

from runner.sandbox.faults import Fault
from runner.sandbox.world import World

TEN = 10
JOBS = tuple((f"j{number}", "w-1", f"p-{number}") for number in range(4))
PAIRS = Counter((workflow_id, project_id) for _, workflow_id, project_id in JOBS)

# What GitHub's runner gives a step that is cancelled: SIGTERM after so many seconds, SIGKILL after so many more.
UNTIL_SIGTERM = 7.5
UNTIL_SIGKILL = 2.5


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    one = Shell(tmp_path)
    one.manifest(*JOBS, once_per="forever")
    return one


@contextmanager
def ten(shell: Shell, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Ten runs of one manifest, started together."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(shell.started("run", "nightly.yaml", "--results", f"{number}.json", *arguments))
            for number in range(TEN)
        ]


def ends(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """The exit code of each, and what it said."""
    said = [process.communicate(timeout=60) for process in processes]
    return [(process.returncode, err) for process, (_, err) in zip(processes, said, strict=True)]


def wait_for_all_but_one(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until only one of them is left."""
    with ExitStack() as stack:
        left = select.poll()
        for process in processes:
            handle = os.pidfd_open(process.pid)
            stack.callback(os.close, handle)
            left.register(handle, select.POLLIN)
        ended = 0
        while ended < len(processes) - 1:
            events = left.poll(1000 * PATIENCE)
            assert events, "the others do not end"
            for handle, _ in events:
                left.unregister(handle)
                ended += 1


def test_of_ten_runs_at_once_one_works_and_the_others_say_so(shell: Shell) -> None:
    gate = threading.Event()
    with WireServer(choose=lambda one: Stall(gate, then=created(f"job-of-{one.project}"))) as server:
        shell.at(server.url)
        with ten(shell) as processes:
            server.wait_for_requests(len(JOBS))  # so one has the lock, and keeps it
            wait_for_all_but_one(processes)
            gate.set()
            codes = ends(processes)
    assert Counter(code for code, _ in codes) == {0: 1, 5: TEN - 1}, codes
    assert all("locked" in err and "run 2" in err for code, err in codes if code == 5), codes
    assert Counter((one.workflow, one.project) for one in server.created) == PAIRS
    assert Counter(row.state for row in read_ledger(shell.ledger)) == {"created": len(JOBS)}


def test_ten_runs_that_wait_for_one_another_buy_once(shell: Shell) -> None:
    with WireServer() as server:
        shell.at(server.url)
        with ten(shell, "--lock-timeout", "60") as processes:
            codes = ends(processes)
    assert [code for code, _ in codes] == [0] * TEN, codes
    assert Counter((one.workflow, one.project) for one in server.created) == PAIRS
    for number in range(TEN):  # and each of them tells the same
        results = check_results(shell.folder / f"{number}.json")
        assert {job["name"] for job in results["created"]} == {name for name, *_ in JOBS}


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_two_manifests_that_share_a_ledger_and_their_workflows(shell: Shell, share: float) -> None:
    """Each buys its own, although answers are lost, and each sees jobs of the other in the lists."""
    names = ("one.yaml", "two.yaml")
    world = World()
    world.admit(PAIRS)
    for name in names:
        shell.manifest(*JOBS, path=name, once_per="forever")
    with Shop(world, (Fault("reset", share),), seed=3) as shop:
        shell.at(shop.base_url, "key-of-the-campaign")
        with ExitStack() as stack:
            arguments = ("--settle", "0", "--concurrency", "2")
            both = [stack.enter_context(shell.started("run", name, *arguments)) for name in names]
            codes = ends(both)
        for name, (code, _) in zip(names, codes, strict=True):
            if code:  # the other was sending in the same workflow for as long as it looked
                done = shell("run", name, "--settle", "0")
                assert done.code == 0, done.err
    jobs = world.jobs("w-1")
    assert Counter((job.workflow_id, job.project_id) for job in jobs) == Counter(dict.fromkeys(PAIRS, 2))
    rows = read_ledger(shell.ledger)
    assert Counter(row.state for row in rows) == {"created": 2 * len(JOBS)}
    assert {row.job_id for row in rows} == {job.id for job in jobs}


# A CI that is told to stop.


@contextmanager
def in_flight(shell: Shell, gate: threading.Event) -> Iterator[tuple[WireServer, subprocess.Popen[str]]]:
    """A run with two requests that the server keeps."""
    with (
        WireServer(choose=lambda one: Stall(gate, then=created(f"job-of-{one.project}"))) as server,
        shell.started("run", "nightly.yaml", "--hold", "--concurrency", "2", "--base-url", server.url) as process,
    ):
        server.wait_for_requests(2)
        yield server, process


@pytest.fixture
def ci(shell: Shell) -> Shell:
    shell.at("http://127.0.0.1:1")
    return shell


def test_a_ci_that_cancels_finds_the_record_complete_before_it_asks_again(ci: Shell) -> None:
    gate = threading.Event()
    with in_flight(ci, gate) as (_, process):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=UNTIL_SIGTERM)
    assert process.returncode == 130
    results = check_results(ci.folder / "nightly.results.json")
    assert results["run"]["state"] == "interrupted"
    assert (results["summary"]["in_doubt"], results["summary"]["skipped"]) == (2, 2)
    assert Counter(row.state for row in read_ledger(ci.ledger)) == {"in_doubt": 2}


def test_a_second_signal_has_the_record_complete_long_before_the_kill(ci: Shell) -> None:
    gate = threading.Event()
    with in_flight(ci, gate) as (_, process):
        process.send_signal(signal.SIGINT)
        read_until(process, "stopping")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=UNTIL_SIGKILL)
    assert process.returncode == 130
    results = check_results(ci.folder / "nightly.results.json")
    assert (results["summary"]["in_doubt"], results["summary"]["skipped"]) == (2, 2)


@pytest.mark.parametrize("signals", [(), (signal.SIGINT,), (signal.SIGINT, signal.SIGTERM)], ids=len)
def test_a_kill_in_the_middle_of_it_forgets_nothing(ci: Shell, signals: tuple[signal.Signals, ...]) -> None:
    gate = threading.Event()
    with in_flight(ci, gate) as (server, process):
        for signum in signals:
            process.send_signal(signum)
        process.kill()
        process.communicate(timeout=PATIENCE)
        gate.set()
    assert process.returncode in (-signal.SIGKILL, 130)
    rows = read_ledger(ci.ledger)
    assert len(server.created) == 2
    assert sorted(row.project_id for row in rows) == sorted(one.project for one in server.created)
    assert {row.state for row in rows} <= {"sending", "in_doubt"}


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    pytest.fail(f"{word} was never said")
