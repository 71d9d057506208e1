"""Signals: Ctrl-C on a terminal, SIGTERM of a CI, SIGHUP of a lost connection. Nothing is lost, and it ends soon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import shell as shells
from support.schemas import check_results
from support.shell import KEY, Shell
from support.terminal import on_terminal, seen
from support.wire import PATIENCE, Request, Reset, Script, Stall, WireServer, created, reply

from runner.cli.signals import SignalHandler
from runner.client.api import ApiClient
from runner.client.endpoint import ApiKey, Endpoint
from runner.client.exchange import Exchange
from runner.client.response import Response
from runner.core.models import ErrorInfo, Job, Outcome, Submission
from runner.core.settings import Limits
from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.ledger.journal import Claim, RecordedOutcome
from runner.submission.engine import Engine

SOON = 3.0  # seconds: well below the grace of 4, and enough for a slow machine

# The command, with a line on stderr each time that it waits for the lock.
WAITER = """
import functools, sys, time
from runner.ledger import lock
from runner.cli.main import main

def sleep(seconds):
    print("waits", file=sys.stderr, flush=True)
    time.sleep(seconds)

lock.hold = functools.partial(lock.hold, sleep=sleep)
sys.exit(main())
"""

JOBS = tuple((f"j{number}", "w-1", f"p-{number}") for number in range(3))


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Programs that are started have SIGINT as a terminal gives it, though these tests may run with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    use(monkeypatch, "-m", "runner")
    one = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "2"})
    one.manifest(*JOBS, once_per="forever")
    return one


def use(monkeypatch: pytest.MonkeyPatch, *program: str) -> None:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", *program, *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)


class Backend(dict[str, Script]):
    """What becomes of each POST by its project; the list of jobs has all that were created, after `listing`."""

    def __init__(self, posts: dict[str, Script], listing: Script | None = None) -> None:
        super().__init__(posts)
        self.listing = listing
        self.jobs: list[dict[str, str]] = []

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            script = self.get(request.project) or created(f"job-of-{request.project}")
            if script.creates:
                now = datetime.now(UTC).isoformat()
                self.jobs.append({"id": f"job-of-{request.project}", "created_at": now})
            return script
        if request.target.endswith("/jobs"):
            return self.listing or reply(200, json.dumps({"jobs": self.jobs}).encode())
        return reply(404)


@contextmanager
def serving(shell: Shell, api: Backend) -> Iterator[WireServer]:
    with WireServer(choose=api) as server:
        shell.at(server.url)
        yield server


def stalled(gate: threading.Event, *, creates: bool = True) -> dict[str, Script]:
    """Each POST is answered once the gate is open; the job is there at once."""
    return {project: Stall(gate, then=created(f"job-of-{project}") if creates else None) for _, _, project in JOBS}


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    pytest.fail(f"{word} was never said")


def finish(shell: Shell, process: subprocess.Popen[str]) -> tuple[int, str, str, dict[str, Any]]:
    out, err = process.communicate(timeout=3 * PATIENCE)
    assert "Traceback" not in err
    path = shell.folder / "nightly.results.json"
    code = process.returncode
    return 128 - code if code < 0 else code, out, err, check_results(path) if path.exists() else {}


def kinds(record: dict[str, Any]) -> dict[str, str]:
    """What the record says of each job: `created`, the error's outcome and kind, or why it was skipped."""
    return {
        **{job["name"]: "created" for job in record["created"]},
        **{error["name"]: f"{error['outcome']} {error['kind']}" for error in record["errors"]},
        **{job["name"]: job["reason"] for job in record["skipped"]},
    }


def sent(server: WireServer) -> list[str]:
    return sorted(request.project for request in server.requests if request.method == "POST")


DOUBT = "in_doubt interrupted"
CUT = {"j0": DOUBT, "j1": DOUBT, "j2": "interrupted"}

# While jobs are in flight.


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_in_flight_is_let_finish(shell: Shell, signum: int, code: int) -> None:
    gate = threading.Event()
    with serving(shell, Backend(stalled(gate))) as server, shell.started("run", "nightly.yaml") as process:
        server.wait_for_requests(2)
        process.send_signal(signum)
        read_until(process, f"stopping: interrupted by {signal.Signals(signum).name}; waiting for requests in flight")
        gate.set()
        ended, out, err, record = finish(shell, process)
        assert (ended, sent(server)) == (code, ["p-0", "p-1"])
        assert kinds(record) == {"j0": "created", "j1": "created", "j2": "interrupted"}
        assert record["run"]["state"] == "interrupted"
        assert "3 jobs: 2 created, 0 not created, 0 in doubt, 1 skipped" in out
        assert f"the run was interrupted: interrupted by {signal.Signals(signum).name}" in err
        again = shell("run", "nightly.yaml")
        assert (again.code, sent(server)) == (0, ["p-0", "p-1", "p-2"])


def test_what_does_not_finish_within_the_grace_is_in_doubt_and_found_by_the_next_run(shell: Shell) -> None:
    with serving(shell, Backend(stalled(threading.Event()))) as server:
        with shell.started("run", "nightly.yaml") as process:
            server.wait_for_requests(2)
            process.send_signal(signal.SIGTERM)
            since = time.monotonic()
            ended, out, err, record = finish(shell, process)
            took = time.monotonic() - since
        assert (ended, kinds(record), record["run"]["state"]) == (143, CUT, "interrupted")
        assert 4.0 <= took < 4.0 + SOON
        assert "3 jobs: 0 created, 0 not created, 2 in doubt, 1 skipped" in out
        assert "2 jobs are in doubt" in err
        server_made = {f"job-of-{one.project}" for one in server.created}
        again = shell("run", "nightly.yaml", "--only", "j0", "--only", "j1")
    assert (again.code, sent(server)) == (0, ["p-0", "p-1"])
    record = check_results(shell.folder / "nightly.results.json")
    assert {job["job"]["id"] for job in record["created"]} == server_made == {"job-of-p-0", "job-of-p-1"}


@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGINT, signal.SIGTERM), 130), ((signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGTERM), 143)],
)
def test_a_second_signal_ends_the_grace_and_the_first_gives_the_code(
    shell: Shell, signals: tuple[int, ...], code: int
) -> None:
    with (
        serving(shell, Backend(stalled(threading.Event()))) as server,
        shell.started("run", "nightly.yaml") as process,
    ):
        server.wait_for_requests(2)
        process.send_signal(signals[0])
        read_until(process, "stopping")
        since = time.monotonic()
        for signum in signals[1:]:
            process.send_signal(signum)
        ended, _, _, record = finish(shell, process)
        assert time.monotonic() - since < SOON
    assert (ended, kinds(record), record["run"]["state"]) == (code, CUT, "interrupted")


def test_a_hangup_loses_no_more_than_a_kill(shell: Shell) -> None:
    gate = threading.Event()
    with serving(shell, Backend(stalled(gate))) as server:
        with shell.started("run", "nightly.yaml") as process:
            server.wait_for_requests(2)
            process.send_signal(signal.SIGHUP)
            assert process.wait(PATIENCE) in (-signal.SIGHUP, 128 + signal.SIGHUP)
        gate.set()
        again = shell("run", "nightly.yaml")
        record = check_results(shell.folder / "nightly.results.json")
    # Both were created, of different projects, and which is whose is anyone's guess; the third is sent.
    assert (again.code, sent(server), set(kinds(record).values())) == (0, ["p-0", "p-1", "p-2"], {"created"})
    assert len({job["job"]["id"] for job in record["created"]}) == 3


# On a terminal.


@pytest.mark.parametrize("twice", [False, True])
def test_control_c(shell: Shell, *, twice: bool) -> None:
    gate = threading.Event()
    with (
        serving(shell, Backend(stalled(gate))) as server,
        on_terminal(shell, "run", "nightly.yaml") as (process, person),
    ):
        server.wait_for_requests(2)
        os.write(person, b"\x03")
        assert "stopping: interrupted by SIGINT" in seen(person, "waiting for requests in flight")
        if twice:
            os.write(person, b"\x03")
        else:
            gate.set()
        shown = seen(person, None)
        assert process.wait(PATIENCE) == 130
    record = check_results(shell.folder / "nightly.results.json")
    assert kinds(record) == (CUT if twice else {"j0": "created", "j1": "created", "j2": "interrupted"})
    assert record["run"]["state"] == "interrupted"
    assert "the run was interrupted: interrupted by SIGINT" in shown
    assert "results: nightly.results.json" in shown
    assert KEY not in shown


# While nothing is in flight.


def lost(*workflows: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((f"field-{workflow}", workflow, f"p-{number}") for number, workflow in enumerate(workflows))


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workflows", [("w-1",), ("w-1", "w-2", "w-3")], ids=["one-workflow", "more-workflows"])
def test_a_look_up_that_stalls_at_the_end_is_ended(
    shell: Shell, workflows: tuple[str, ...], signum: int, code: int
) -> None:
    shell.manifest(*lost(*workflows), once_per="forever")
    api = Backend({f"p-{number}": Reset(creates=True) for number in range(3)}, Stall(threading.Event()))
    with serving(shell, api) as server, shell.started("run", "nightly.yaml") as process:
        server.wait_for_requests(len(workflows) + 1)
        process.send_signal(signum)
        since = time.monotonic()
        ended, _, err, record = finish(shell, process)
        assert time.monotonic() - since < SOON
    assert (ended, set(kinds(record).values())) == (code, {"in_doubt closed"})
    assert len(record["errors"]) == len(workflows)
    assert "in doubt" in err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_wait_between_two_looks_is_ended(shell: Shell, signum: int, code: int) -> None:
    shell.manifest(*lost("w-1"), once_per="forever")
    with serving(shell, Backend({"p-0": Reset()})) as server, shell.started("run", "nightly.yaml") as process:
        read_until(process, "for up to 29 s")
        process.send_signal(signum)
        since = time.monotonic()
        ended, _, _, record = finish(shell, process)
        assert time.monotonic() - since < SOON
        assert (ended, kinds(record), sent(server)) == (code, {"field-w-1": "in_doubt closed"}, ["p-0"])


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_look_up_that_stalls_at_the_start_is_ended(shell: Shell, signum: int, code: int) -> None:
    api = Backend({"p-0": Reset(creates=True)})
    with serving(shell, api) as server:
        shell.manifest(*lost("w-1"), once_per="forever")
        assert shell("run", "nightly.yaml", "--hold").code == 3
        (shell.folder / "nightly.results.json").unlink()
        api.listing = Stall(threading.Event())
        with shell.started("run", "nightly.yaml") as process:
            server.wait_for_requests(2)
            process.send_signal(signum)
            since = time.monotonic()
            ended, out, _, record = finish(shell, process)
            assert time.monotonic() - since < SOON
        assert (ended, out, record, sent(server)) == (code, "", {}, ["p-0"])
        api.listing = None
        assert shell("run", "nightly.yaml").code == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_wait_for_the_lock_is_ended(shell: Shell, monkeypatch: pytest.MonkeyPatch, signum: int, code: int) -> None:
    use(monkeypatch, "-c", WAITER)
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    with serving(shell, Backend({})) as server:
        with (
            lock.hold(shell.ledger, server.url, "nightly", timeout=0, activity="this test"),
            shell.started("run", "nightly.yaml", "--lock-timeout", "60") as process,
        ):
            read_until(process, "waits")
            process.send_signal(signum)
            since = time.monotonic()
            ended, out, _, record = finish(shell, process)
            assert time.monotonic() - since < SOON
        assert (ended, out, record, server.requests) == (code, "", {}, [])
        assert shell("run", "nightly.yaml").code == 0


# Before anything is in flight: a signal that comes between the plan and the first send.


class Nothing:
    """A journal, a sender and an observer that note what is asked of them."""

    bearer = False

    def __init__(self) -> None:
        self.sent = 0

    def commit(
        self, decided: Sequence[RecordedOutcome], released: Sequence[Submission], claimed: Sequence[Claim]
    ) -> None: ...

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:  # noqa: ARG002 - the protocol's
        return set()

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> Response:  # noqa: ARG002 - likewise
        self.sent += 1
        return Response(200, {}, json.dumps({"id": f"job-{self.sent}"}).encode(), datetime.now(UTC))

    def decided(self, submission: Submission, outcome: Outcome) -> None: ...

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None: ...

    def pausing(self, error: ErrorInfo, seconds: float) -> None: ...

    def stopping(self, why: str) -> None: ...


def test_a_signal_before_the_engine_is_there_is_not_lost() -> None:
    nothing = Nothing()
    submissions = [Submission(Job(f"j{number}", "w-1", "p-1"), number) for number in range(50)]
    with ApiClient(Endpoint("http://127.0.0.1:9", ApiKey(KEY)), 1) as api:
        interrupts = SignalHandler(api)
        with interrupts.installed():
            signal.raise_signal(signal.SIGINT)
            engine = Engine(submissions, nothing, nothing, Limits(concurrency=1), nothing)
            interrupts.engine_started(engine)
            end = engine.run()
            interrupts.engine_ended()
    assert interrupts.signum == signal.SIGINT
    assert (end.state, end.signum) == ("interrupted", signal.SIGINT)
    assert nothing.sent <= 2
