"""Budgets and `--confirm`: what is sent to the server, printed and recorded."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from support import shell as shells
from support.schemas import check_results
from support.shell import KEY, CompletedCommand, Shell
from support.terminal import read_terminal, run_on_terminal, terminal_environment
from support.wire import TIMEOUT, Request, Reset, Script, Stall, WireServer, reply

Job = tuple[str, str, str]

STARTUP_TIME = 8.0  # seconds: enough for the program to start on a slow machine, and far less than the default timeout

JOBS: tuple[Job, ...] = (
    ("field-a", "ndvi", "agri"),
    ("field-b", "ndvi", "agri"),
    ("coast-a", "algae", "coast"),
    ("coast-b", "turbid", "coast"),
)
COSTS: Mapping[str, int] = {"ndvi": 10, "algae": 40, "turbid": 25}  # 85 for all
NO_FLAGS: tuple[str, ...] = ()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", "-m", "runner", *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)
    shell = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "1"})
    write_manifest(shell)
    return shell


def write_manifest(shell: Shell, *jobs: Job, head: str = "once_per: forever\n", path: str = "nightly.yaml") -> None:
    entries = "".join(
        f"  - {{name: {name}, workflow_id: {workflow}, project_id: {project}}}\n"
        for name, workflow, project in jobs or JOBS
    )
    shell.write(path, f"version: 1\n{head}jobs:\n{entries}")


class Api:
    """An API with an estimate and a job cost for each workflow, and scripts for POSTs."""

    def __init__(
        self,
        estimates: Mapping[str, int | Script] = COSTS,
        *,
        costs: Mapping[str, int] | None = None,
        posts: Mapping[str, Script] | None = None,
    ) -> None:
        self.estimates = estimates
        self.costs = costs or {}
        self.posts = dict(posts or {})  # by workflow
        self.created_count = 0

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            self.created_count += 1
            cost = self.costs.get(request.workflow, 0)
            body = json.dumps({"id": f"job-{self.created_count}", "status": "accepted", "cost": cost}).encode()
            return self.posts.get(request.workflow) or reply(200, body, creates=True)
        if not request.target.endswith("/estimate"):
            return reply(404)
        estimate = self.estimates.get(request.workflow)
        if isinstance(estimate, int):
            return reply(200, json.dumps({"estimated_cost": estimate}).encode())
        return estimate or reply(404, b'{"error": {"code": "not_found", "message": "no estimate"}}')


@contextmanager
def serving(shell: Shell, api: Api) -> Iterator[WireServer]:
    with WireServer(choose=api) as server:
        shell.use_api(server.url)
        yield server


def submitted_workflows(server: WireServer) -> list[str]:
    return [request.workflow for request in server.requests if request.method == "POST"]


def estimated_workflows(server: WireServer) -> list[str]:
    return sorted(request.workflow for request in server.requests if request.target.endswith("/estimate"))


def run(shell: Shell, *arguments: str, **streams: Any) -> CompletedCommand:
    completed = shell("run", "nightly.yaml", "--hold", *arguments, **streams)
    assert "Traceback" not in completed.err, completed.err
    assert KEY not in completed.out + completed.err
    return completed


def load_results(shell: Shell) -> dict[str, Any]:
    return check_results(shell.directory / "nightly.results.json")


# Limits, before anything is sent


def test_run_above_the_limit_sends_nothing(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        completed = run(shell, "--max-cost", "84")
        assert (completed.code, submitted_workflows(server), estimated_workflows(server)) == (
            4,
            [],
            ["algae", "ndvi", "turbid"],
        )
    assert "the estimated cost of 4 jobs is 85 tokens, which exceeds max_cost 84; nothing was sent" in completed.err
    assert "Most expensive: coast-a 40, coast-b 25, field-a 10." in completed.err
    assert completed.out == ""
    assert not (shell.directory / "nightly.results.json").exists()


def test_empty_limit_variable_is_rejected(shell: Shell) -> None:
    shell.environment["PIXXEL_RUNNER_MAX_COST"] = ""
    with serving(shell, Api()) as server:
        completed = run(shell)
        assert (completed.code, submitted_workflows(server), estimated_workflows(server)) == (2, [], [])
    assert "PIXXEL_RUNNER_MAX_COST is set to an empty string" in completed.err


def test_run_at_the_limit_sends_everything(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        completed = run(shell, "--max-cost", "85")
        assert (completed.code, submitted_workflows(server)) == (0, ["ndvi", "ndvi", "algae", "turbid"])


def test_no_limit_requests_no_estimates(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        assert run(shell).code == 0
        assert (len(submitted_workflows(server)), estimated_workflows(server)) == (4, [])


def test_only_jobs_to_submit_are_estimated_and_counted(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        assert run(shell, "--max-cost", "20", "--only", "field-*").code == 0
        assert (submitted_workflows(server), estimated_workflows(server)) == (["ndvi", "ndvi"], ["ndvi"])
        assert run(shell, "--max-cost", "20", "--only", "field-*").code == 0  # all jobs exist: no estimates needed
        assert (len(submitted_workflows(server)), estimated_workflows(server)) == (2, ["ndvi"])


@pytest.mark.parametrize(
    ("manifest_value", "environment_value", "flag_value", "exceeded_limit"),
    [
        ("84", None, None, 84),
        ("1", "84", None, 84),
        ("1", "1", "84", 84),
        (None, "84", None, 84),
        ("84", "85", None, None),
        ("84", "84", "85", None),
        ("0", None, None, 0),
        ("85", None, "0", 0),
    ],
)
def test_limit_precedence_is_flag_then_environment_then_manifest(
    shell: Shell,
    manifest_value: str | None,
    environment_value: str | None,
    flag_value: str | None,
    exceeded_limit: int | None,
) -> None:
    write_manifest(shell, head="once_per: forever\n" + (f"max_cost: {manifest_value}\n" if manifest_value else ""))
    if environment_value is not None:
        shell.environment["PIXXEL_RUNNER_MAX_COST"] = environment_value
    with serving(shell, Api()) as server:
        completed = run(shell, *(("--max-cost", flag_value) if flag_value is not None else NO_FLAGS))
        assert (completed.code, len(submitted_workflows(server))) == ((0, 4) if exceeded_limit is None else (4, 0))
    assert exceeded_limit is None or f"exceeds max_cost {exceeded_limit}; nothing was sent" in completed.err


# Unknown estimates


def test_unknown_estimate_is_refused_unless_allowed(shell: Shell) -> None:
    with serving(shell, Api({"ndvi": 10, "turbid": 25})) as server:
        completed = run(shell, "--max-cost", "1000")
        assert (completed.code, submitted_workflows(server)) == (4, [])
        assert "the cost of 1 workflow is unknown, and max_cost is 1000; nothing was sent (algae: " in completed.err
        assert "HTTP 404 Not Found: not_found: no estimate" in completed.err
        assert "--allow-unknown-cost" in completed.err
        above_limit = run(shell, "--max-cost", "44", "--allow-unknown-cost")
        assert (above_limit.code, submitted_workflows(server)) == (4, [])
        assert "the estimated cost of 4 jobs is 45 tokens" in above_limit.err
        assert run(shell, "--max-cost", "45", "--allow-unknown-cost").code == 0
        assert submitted_workflows(server) == ["ndvi", "ndvi", "algae", "turbid"]
    assert [job["estimate"] for job in load_results(shell)["created"]] == [10, 10, None, 25]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (reply(500), "HTTP 500 Internal Server Error"),
        (reply(401), "HTTP 401 Unauthorized: the API does not recognize the key"),
        (reply(429, headers=[("Retry-After", "60")]), "HTTP 429 Too Many Requests"),
        (reply(200, b'{"estimated_cost": 1e3}'), "the API returned no valid estimate"),
        (reply(200, b"<html>"), "the response cannot be read"),
        (reply(302, headers=[("Location", "/login")]), "the server redirects to /login"),
        (Reset(), "the connection was closed before the response"),
        (Stall(threading.Event()), "no complete response within"),
    ],
    ids=["500", "401", "429", "float", "html", "302", "reset", "stall"],
)
def test_unavailable_estimates_stop_the_run_within_the_timeout(shell: Shell, script: Script, reason: str) -> None:
    with serving(shell, Api(dict.fromkeys(COSTS, script))) as server:
        start = time.monotonic()
        completed = run(shell, "--max-cost", "1000", "--timeout", "1")
        assert time.monotonic() - start < 1 + STARTUP_TIME
        assert (completed.code, submitted_workflows(server)) == (4, [])
    assert "the cost of 3 workflows is unknown" in completed.err
    assert reason in completed.err


def test_one_stalled_estimate_delays_the_run_no_longer_than_the_timeout(shell: Shell) -> None:
    shell.environment["PIXXEL_RUNNER_CONCURRENCY"] = "2"
    with serving(shell, Api({**COSTS, "ndvi": Stall(threading.Event())})) as server:
        start = time.monotonic()
        completed = run(shell, "--max-cost", "65", "--timeout", "1", "--allow-unknown-cost")
        assert time.monotonic() - start < 1 + STARTUP_TIME
        assert (completed.code, len(submitted_workflows(server))) == (0, 4)


# Limits during a run


def test_costs_above_the_estimates_stop_the_run_at_the_limit(shell: Shell) -> None:
    with serving(shell, Api(costs={"ndvi": 35})) as server:
        completed = run(shell, "--max-cost", "90")
        assert (completed.code, submitted_workflows(server)) == (4, ["ndvi", "ndvi"])
        assert "budget: 70 of 90 tokens are spent, and coast-a is estimated at 40" in completed.err
        assert "2 created, 0 not created, 0 in doubt, 2 skipped" in completed.out
        results = load_results(shell)
        assert results["run"]["state"] == "stopped"
        assert [(job["name"], job["reason"]) for job in results["skipped"]] == [
            ("coast-a", "budget"),
            ("coast-b", "budget"),
        ]
        assert results["skipped"][0]["detail"] == "budget: 70 of 90 tokens are spent, and coast-a is estimated at 40"
        second = run(shell, "--max-cost", "90")
        assert (second.code, len(submitted_workflows(server))) == (4, 2)
        assert (
            "the estimated cost of 2 jobs is 65 tokens, on top of 70 spent for ever, which exceeds max_cost 90"
            in second.err
        )
        assert run(shell, "--max-cost", "135").code == 0
        assert submitted_workflows(server) == ["ndvi", "ndvi", "algae", "turbid"]


@pytest.mark.parametrize("first_flags", [NO_FLAGS, ("--max-cost", "85")], ids=["without", "with"])
def test_resumed_run_counts_what_was_already_spent(shell: Shell, first_flags: tuple[str, ...]) -> None:
    """Even if the first run had no limit, so that no estimates were saved, and its jobs have no cost yet."""
    write_manifest(shell, head="once_per: run\n")
    with serving(shell, Api(posts={"turbid": reply(422)})) as server:
        assert run(shell, *first_flags).code == 1
        refused = run(shell, "--resume", "--max-cost", "84")
        assert (refused.code, len(submitted_workflows(server))) == (4, 4)
        assert "the estimated cost of 1 job is 25 tokens, on top of 60 spent for the run " in refused.err
        assert "Most expensive: coast-b 25." in refused.err
        assert run(shell, "--resume", "--max-cost", "85").code == 1
        assert submitted_workflows(server) == ["ndvi", "ndvi", "algae", "turbid", "turbid"]


def test_jobs_in_doubt_count_as_spent(shell: Shell) -> None:
    with serving(shell, Api(posts={"algae": Reset(), "turbid": reply(422)})) as server:
        assert run(shell, "--max-cost", "85").code == 3
        [in_doubt, not_created] = load_results(shell)["errors"]
        assert (in_doubt["outcome"], in_doubt["estimate"]) == ("in_doubt", 40)
        assert (not_created["outcome"], not_created["estimate"]) == ("not_created", None)
        assert run(shell, "--max-cost", "84").code == 4
        assert len(submitted_workflows(server)) == 4


# Results and reports


def test_estimates_and_costs_are_reported_per_job_and_project_and_in_total(shell: Shell) -> None:
    with serving(shell, Api(costs={"ndvi": 12, "algae": 33}, posts={"turbid": Reset()})):
        completed = run(shell, "--max-cost", "100")
    assert completed.code == 3
    results = load_results(shell)
    assert [(job["name"], job["estimate"], job["job"]["cost"]) for job in results["created"]] == [
        ("field-a", 10, 12),
        ("field-b", 10, 12),
        ("coast-a", 40, 33),
    ]
    summary = results["summary"]
    assert (summary["estimate"], summary["cost"]) == (85, 57)
    assert summary["projects"] == [
        {"project_id": "agri", "created": 2, "cost": 24, "estimate": 20},
        {"project_id": "coast", "created": 1, "cost": 33, "estimate": 65},
    ]
    assert results["run"]["settings"]["max_cost"] == 100
    header, _, first_row, *_ = completed.out.splitlines()
    assert header.split()[-4:] == ["estimate", "cost", "sent", "(UTC)"]
    assert first_row.split()[-3:-1] == ["10", "12"]
    assert "cost 57 (estimate 85)" in completed.out
    assert "project agri: 2 created · cost 24 (estimate 20)" in completed.out
    assert "project coast: 1 created · cost 33 (estimate 65)" in completed.out
    shown = shell("show", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert [(row["name"], row["estimate"], row["cost"]) for row in rows] == [
        ("field-a", "10", "12"),
        ("field-b", "10", "12"),
        ("coast-a", "40", "33"),
        ("coast-b", "25", ""),
    ]


def test_run_without_a_limit_reports_no_estimates(shell: Shell) -> None:
    with serving(shell, Api(costs={"ndvi": 12})):
        completed = run(shell)
    results = load_results(shell)
    assert (results["summary"]["estimate"], results["summary"]["cost"]) == (None, 24)
    assert {job["estimate"] for job in results["created"]} == {None}
    assert "estimate" not in completed.out


# --confirm, on a pseudo-terminal


@contextmanager
def start_confirmation(
    shell: Shell, *arguments: str, stdout: IO[bytes] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start `run --confirm` on a pseudo-terminal; stdout goes to a file if one is given."""
    with run_on_terminal(shell, "run", "nightly.yaml", "--confirm", *arguments, out=stdout) as process_and_tty:
        yield process_and_tty


def test_confirming_submits(shell: Shell) -> None:
    with serving(shell, Api()) as server, start_confirmation(shell) as (process, tty):
        output = read_terminal(tty, "[y/N]")
        assert submitted_workflows(server) == []
        os.write(tty, b"y\n")
        output += read_terminal(tty, None)
        assert process.wait(TIMEOUT) == 0
        assert len(submitted_workflows(server)) == 4
    for text in ("job ", "submit", "coast-a", "4 jobs: 4 to submit, 0 to look up", "estimate 85", "for ever"):
        assert text in output
    assert f"Submit 4 of 4 jobs of nightly to {server.url}? [y/N]" in output
    assert load_results(shell)["summary"]["estimate"] == 85


@pytest.mark.parametrize("typed", [b"yes\n", b" Y \n"])
def test_other_forms_of_yes_confirm(shell: Shell, typed: bytes) -> None:
    with serving(shell, Api()) as server, start_confirmation(shell, "--only", "field-a") as (process, tty):
        assert "Submit 1 of 4 jobs" in read_terminal(tty, "[y/N]")
        os.write(tty, typed)
        read_terminal(tty, None)
        assert (process.wait(TIMEOUT), submitted_workflows(server)) == (0, ["ndvi"])


@pytest.mark.parametrize(
    "typed", [b"n\n", b"\n", b"yep\n", b"\xff\n", b"\x04"], ids=["no", "enter", "other", "byte", "ctrl-d"]
)
def test_any_other_reply_sends_nothing(shell: Shell, typed: bytes) -> None:
    with serving(shell, Api()) as server, start_confirmation(shell) as (process, tty):
        read_terminal(tty, "[y/N]")
        os.write(tty, typed)
        assert "not confirmed: nothing was sent" in read_terminal(tty, None)
        assert (process.wait(TIMEOUT), submitted_workflows(server)) == (4, [])
    assert not (shell.directory / "nightly.results.json").exists()


def test_ctrl_c_at_the_prompt_sends_nothing_and_releases_the_lock(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        with start_confirmation(shell) as (process, tty):
            read_terminal(tty, "[y/N]")
            os.write(tty, b"\x03")
            assert "interrupted" in read_terminal(tty, None)
            assert (process.wait(TIMEOUT), submitted_workflows(server)) == (130, [])
        assert run(shell).code == 0


def test_sigterm_at_the_prompt_sends_nothing(shell: Shell) -> None:
    with serving(shell, Api()) as server, start_confirmation(shell) as (process, tty):
        read_terminal(tty, "[y/N]")
        process.send_signal(signal.SIGTERM)
        read_terminal(tty, None)
        assert (process.wait(TIMEOUT), submitted_workflows(server)) == (143, [])


def test_prompt_is_not_written_to_stdout(shell: Shell) -> None:
    path = shell.directory / "out.csv"
    with (
        serving(shell, Api()),
        path.open("wb") as file,
        start_confirmation(shell, "--format", "csv", stdout=file) as (process, tty),
    ):
        output = read_terminal(tty, "[y/N]")
        os.write(tty, b"y\n")
        read_terminal(tty, None)
        assert process.wait(TIMEOUT) == 0
    assert "4 to submit" in output
    assert path.read_text(encoding="utf-8").startswith("manifest,name,workflow_id,")


def test_unknown_costs_are_shown_before_the_prompt(shell: Shell) -> None:
    with serving(shell, Api({"ndvi": 10, "turbid": 25})) as server, start_confirmation(shell) as (process, tty):
        output = read_terminal(tty, "[y/N]")
        os.write(tty, b"n\n")
        read_terminal(tty, None)
        assert (process.wait(TIMEOUT), submitted_workflows(server)) == (4, [])
    assert "estimate 45 and 1 of unknown cost" in output
    assert "cost of workflow algae not known: HTTP 404 Not Found" in output


def test_run_above_the_limit_is_refused_without_a_prompt(shell: Shell) -> None:
    with serving(shell, Api()) as server, start_confirmation(shell, "--max-cost", "84") as (process, tty):
        output = read_terminal(tty, None)
        assert (process.wait(TIMEOUT), submitted_workflows(server)) == (4, [])
    assert "exceeds max_cost 84" in output
    assert "[y/N]" not in output


def test_run_with_nothing_to_submit_does_not_prompt(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        assert run(shell).code == 0
        with start_confirmation(shell) as (process, tty):
            assert "[y/N]" not in read_terminal(tty, None)
            assert process.wait(TIMEOUT) == 0
        assert (len(submitted_workflows(server)), estimated_workflows(server)) == (4, [])


def test_confirm_without_a_terminal_is_refused(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        completed = run(shell, "--confirm")
        assert (completed.code, server.requests) == (4, [])
    assert "--confirm requires a terminal" in completed.err


def test_confirm_with_a_piped_reply_is_refused(shell: Shell) -> None:
    """With `yes | pixxel-runner run --confirm`, nobody has read the plan."""
    with serving(shell, Api()) as server:
        completed = subprocess.run(
            [sys.executable, "-P", "-m", "runner", "run", "nightly.yaml", "--confirm"],
            cwd=shell.directory,
            env=terminal_environment(shell),
            input="y\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (completed.returncode, server.requests) == (4, [])
