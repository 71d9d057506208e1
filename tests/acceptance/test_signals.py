"""Signals: Ctrl-C on a terminal, SIGTERM from CI, SIGHUP from a lost connection. Nothing is lost; exits are prompt."""

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
from support.terminal import read_terminal, run_on_terminal
from support.wire import TIMEOUT, Request, Reset, Script, Stall, WireServer, created, reply

from runner.cli.signals import SignalHandler
from runner.client.api import ApiClient
from runner.client.endpoint import ApiKey, Endpoint
from runner.client.exchange import Exchange
from runner.client.response import Response
from runner.core.models import ErrorInfo, Job, Outcome, Submission
from runner.core.settings import Limits
from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.ledger.rows import Claim, RecordedOutcome
from runner.submission.engine import Engine

SOON = 15.0  # seconds: enough for a slow machine, and half of any timeout that could end a run instead

# The command, with a line on stderr each time it waits for the lock.
WAITING_COMMAND = """
import functools, sys, time
from runner.ledger import lock
from runner.cli.main import main

def sleep(seconds):
    print("waiting for the lock", file=sys.stderr, flush=True)
    time.sleep(seconds)

lock.hold = functools.partial(lock.hold, sleep=sleep)
sys.exit(main())
"""

# The command, with a grace period that only a second signal ends.
PATIENT_COMMAND = """
import sys
from runner.cli.main import main
from runner.submission import engine
engine.GRACE_PERIOD = 60.0
sys.exit(main())
"""

JOBS = tuple((f"j{number}", "w-1", f"p-{number}") for number in range(3))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    set_program(monkeypatch, "-m", "runner")
    shell = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "2"})
    shell.manifest(*JOBS, once_per="forever")
    return shell


def set_program(monkeypatch: pytest.MonkeyPatch, *program: str) -> None:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", *program, *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)


class Backend(dict[str, Script]):
    """An API with a script per project for POSTs. Lists every created job, unless `listing` is set."""

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
        shell.use_api(server.url)
        yield server


def stalled(gate: threading.Event, *, creates: bool = True) -> dict[str, Script]:
    """Scripts that respond to each POST once the gate opens; the job exists immediately."""
    return {project: Stall(gate, then=created(f"job-of-{project}") if creates else None) for _, _, project in JOBS}


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"stderr ended without {text!r}")


def finish(shell: Shell, process: subprocess.Popen[str]) -> tuple[int, str, str, dict[str, Any]]:
    out, err = process.communicate(timeout=3 * TIMEOUT)
    assert "Traceback" not in err
    path = shell.directory / "nightly.results.json"
    code = process.returncode
    return 128 - code if code < 0 else code, out, err, check_results(path) if path.exists() else {}


def outcomes(results: dict[str, Any]) -> dict[str, str]:
    """Each job in the results file: `created`, the error's outcome and kind, or why it was skipped."""
    return {
        **{job["name"]: "created" for job in results["created"]},
        **{error["name"]: f"{error['outcome']} {error['kind']}" for error in results["errors"]},
        **{job["name"]: job["reason"] for job in results["skipped"]},
    }


def sent_projects(server: WireServer) -> list[str]:
    return sorted(request.project for request in server.requests if request.method == "POST")


INTERRUPTED = "in_doubt interrupted"
ABORTED = {"j0": INTERRUPTED, "j1": INTERRUPTED, "j2": "interrupted"}

# Requests in flight


@pytest.mark.parametrize(
    ("signum", "code", "detail"),
    [(signal.SIGINT, 130, "interrupted by SIGINT (Ctrl-C)"), (signal.SIGTERM, 143, "interrupted by SIGTERM")],
)
def test_signal_lets_requests_in_flight_finish(shell: Shell, signum: int, code: int, detail: str) -> None:
    gate = threading.Event()
    with serving(shell, Backend(stalled(gate))) as server, shell.start("run", "nightly.yaml") as process:
        server.wait_for_requests(2)
        process.send_signal(signum)
        read_until(process, f"stopping: {detail}; waiting for requests in flight")
        gate.set()
        exit_code, out, err, results = finish(shell, process)
        assert (exit_code, sent_projects(server)) == (code, ["p-0", "p-1"])
        assert outcomes(results) == {"j0": "created", "j1": "created", "j2": "interrupted"}
        assert results["run"]["state"] == "interrupted"
        assert "3 jobs: 2 created, 0 not created, 0 in doubt, 1 skipped" in out
        assert f"the run was {detail}" in err
        second = shell("run", "nightly.yaml")
        assert (second.code, sent_projects(server)) == (0, ["p-0", "p-1", "p-2"])


def test_requests_unfinished_after_the_grace_period_are_in_doubt_and_found_by_the_next_run(shell: Shell) -> None:
    with serving(shell, Backend(stalled(threading.Event()))) as server:
        with shell.start("run", "nightly.yaml") as process:
            server.wait_for_requests(2)
            process.send_signal(signal.SIGTERM)
            start = time.monotonic()
            exit_code, out, err, results = finish(shell, process)
            elapsed = time.monotonic() - start
        assert (exit_code, outcomes(results), results["run"]["state"]) == (143, ABORTED, "interrupted")
        assert 4.0 <= elapsed < 4.0 + SOON
        assert "3 jobs: 0 created, 0 not created, 2 in doubt, 1 skipped" in out
        assert "2 jobs are in doubt" in err
        created_ids = {f"job-of-{request.project}" for request in server.created}
        second = shell("run", "nightly.yaml", "--only", "j0", "--only", "j1")
    assert (second.code, sent_projects(server)) == (0, ["p-0", "p-1"])
    results = check_results(shell.directory / "nightly.results.json")
    assert {job["job"]["id"] for job in results["created"]} == created_ids == {"job-of-p-0", "job-of-p-1"}


@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGINT, signal.SIGTERM), 130), ((signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGTERM), 143)],
)
def test_second_signal_ends_the_grace_period_and_the_first_sets_the_exit_code(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, signals: tuple[int, ...], code: int
) -> None:
    set_program(monkeypatch, "-c", PATIENT_COMMAND)
    with (
        serving(shell, Backend(stalled(threading.Event()))) as server,
        shell.start("run", "nightly.yaml") as process,
    ):
        server.wait_for_requests(2)
        process.send_signal(signals[0])
        read_until(process, "stopping")
        start = time.monotonic()
        for signum in signals[1:]:
            process.send_signal(signum)
        exit_code, _, _, results = finish(shell, process)
        assert time.monotonic() - start < SOON
    assert (exit_code, outcomes(results), results["run"]["state"]) == (code, ABORTED, "interrupted")


def test_hangup_loses_no_more_than_a_kill(shell: Shell) -> None:
    gate = threading.Event()
    with serving(shell, Backend(stalled(gate))) as server:
        with shell.start("run", "nightly.yaml") as process:
            server.wait_for_requests(2)
            process.send_signal(signal.SIGHUP)
            assert process.wait(TIMEOUT) in (-signal.SIGHUP, 128 + signal.SIGHUP)
        gate.set()
        second = shell("run", "nightly.yaml")
        results = check_results(shell.directory / "nightly.results.json")
    # Both jobs exist, in different projects, and the API does not say which is whose. The third is sent now.
    assert (second.code, sent_projects(server), set(outcomes(results).values())) == (
        0,
        ["p-0", "p-1", "p-2"],
        {"created"},
    )
    assert len({job["job"]["id"] for job in results["created"]}) == 3


# On a terminal


@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_on_a_terminal(shell: Shell, *, twice: bool) -> None:
    gate = threading.Event()
    with (
        serving(shell, Backend(stalled(gate))) as server,
        run_on_terminal(shell, "run", "nightly.yaml") as (process, tty),
    ):
        server.wait_for_requests(2)
        os.write(tty, b"\x03")
        assert "stopping: interrupted by SIGINT" in read_terminal(tty, "waiting for requests in flight")
        if twice:
            os.write(tty, b"\x03")
        else:
            gate.set()
        output = read_terminal(tty, None)
        assert process.wait(TIMEOUT) == 130
    results = check_results(shell.directory / "nightly.results.json")
    assert outcomes(results) == (ABORTED if twice else {"j0": "created", "j1": "created", "j2": "interrupted"})
    assert results["run"]["state"] == "interrupted"
    assert "the run was interrupted by SIGINT (Ctrl-C)" in output
    assert "results: nightly.results.json" in output
    assert KEY not in output


# Nothing in flight


def pairs(*workflows: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((f"field-{workflow}", workflow, f"p-{number}") for number, workflow in enumerate(workflows))


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workflows", [("w-1",), ("w-1", "w-2", "w-3")], ids=["one-workflow", "more-workflows"])
def test_signal_aborts_a_stalled_lookup_at_the_end_of_a_run(
    shell: Shell, workflows: tuple[str, ...], signum: int, code: int
) -> None:
    shell.manifest(*pairs(*workflows), once_per="forever")
    api = Backend({f"p-{number}": Reset(creates=True) for number in range(3)}, Stall(threading.Event()))
    with serving(shell, api) as server, shell.start("run", "nightly.yaml") as process:
        server.wait_for_requests(len(workflows) + 1)
        process.send_signal(signum)
        start = time.monotonic()
        exit_code, _, err, results = finish(shell, process)
        assert time.monotonic() - start < SOON
    assert (exit_code, set(outcomes(results).values())) == (code, {"in_doubt closed"})
    assert len(results["errors"]) == len(workflows)
    assert "in doubt" in err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_wait_between_lookups(shell: Shell, signum: int, code: int) -> None:
    shell.manifest(*pairs("w-1"), once_per="forever")
    with serving(shell, Backend({"p-0": Reset()})) as server, shell.start("run", "nightly.yaml") as process:
        read_until(process, "for up to 29 s")
        process.send_signal(signum)
        start = time.monotonic()
        exit_code, _, _, results = finish(shell, process)
        assert time.monotonic() - start < SOON
        assert (exit_code, outcomes(results), sent_projects(server)) == (
            code,
            {"field-w-1": "in_doubt closed"},
            ["p-0"],
        )


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_aborts_a_stalled_lookup_at_the_start_of_a_run(shell: Shell, signum: int, code: int) -> None:
    api = Backend({"p-0": Reset(creates=True)})
    with serving(shell, api) as server:
        shell.manifest(*pairs("w-1"), once_per="forever")
        assert shell("run", "nightly.yaml", "--hold").code == 3
        (shell.directory / "nightly.results.json").unlink()
        api.listing = Stall(threading.Event())
        with shell.start("run", "nightly.yaml") as process:
            server.wait_for_requests(2)
            process.send_signal(signum)
            start = time.monotonic()
            exit_code, out, _, results = finish(shell, process)
            assert time.monotonic() - start < SOON
        assert (exit_code, out, results, sent_projects(server)) == (code, "", {}, ["p-0"])
        api.listing = None
        assert shell("run", "nightly.yaml").code == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_wait_for_the_lock(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, signum: int, code: int
) -> None:
    set_program(monkeypatch, "-c", WAITING_COMMAND)
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    with serving(shell, Backend({})) as server:
        with (
            lock.hold(shell.ledger, server.url, "nightly", timeout=0, activity="this test"),
            shell.start("run", "nightly.yaml", "--lock-timeout", "60") as process,
        ):
            read_until(process, "waiting for the lock")
            process.send_signal(signum)
            start = time.monotonic()
            exit_code, out, _, results = finish(shell, process)
            assert time.monotonic() - start < SOON
        assert (exit_code, out, results, server.requests) == (code, "", {}, [])
        assert shell("run", "nightly.yaml").code == 0


# A signal between the plan and the first request


class FakeCollaborators:
    """A journal, a client and an observer in one. Counts the requests sent."""

    bearer = False

    def __init__(self) -> None:
        self.sent = 0

    def commit(
        self, decided: Sequence[RecordedOutcome], released: Sequence[Submission], claimed: Sequence[Claim]
    ) -> None: ...

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:  # noqa: ARG002 - the protocol's signature
        return set()

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> Response:  # noqa: ARG002 - as above
        self.sent += 1
        return Response(200, {}, json.dumps({"id": f"job-{self.sent}"}).encode(), datetime.now(UTC))

    def decided(self, submission: Submission, outcome: Outcome) -> None: ...

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None: ...

    def pausing(self, error: ErrorInfo, seconds: float) -> None: ...

    def stopping(self, reason: str) -> None: ...


def test_signal_before_the_engine_starts_is_not_lost() -> None:
    fake = FakeCollaborators()
    submissions = [Submission(Job(f"j{number}", "w-1", "p-1"), number) for number in range(50)]
    with ApiClient(Endpoint("http://127.0.0.1:9", ApiKey(KEY)), 1) as api:
        handler = SignalHandler(api)
        with handler.installed():
            signal.raise_signal(signal.SIGINT)
            engine = Engine(submissions, fake, fake, Limits(concurrency=1), fake)
            handler.engine_started(engine)
            end = engine.run()
            handler.engine_ended()
    assert handler.signum == signal.SIGINT
    assert (end.state, end.signum) == ("interrupted", signal.SIGINT)
    assert fake.sent <= 2
