"""Budgets and `--confirm` as a person meets them: what the server was sent, what was said, what stands on record."""

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

STARTING = 8.0  # seconds: enough for a program to start on a slow machine, and far less than a timeout

JOBS: tuple[Job, ...] = (
    ("field-a", "ndvi", "agri"),
    ("field-b", "ndvi", "agri"),
    ("coast-a", "algae", "coast"),
    ("coast-b", "turbid", "coast"),
)
COSTS: Mapping[str, int] = {"ndvi": 10, "algae": 40, "turbid": 25}  # 85 for all
NONE: tuple[str, ...] = ()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", "-m", "runner", *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)
    one = Shell(tmp_path, {"PIXXEL_RUNNER_CONCURRENCY": "1"})
    manifest(one)
    return one


def manifest(shell: Shell, *jobs: Job, head: str = "once_per: forever\n", path: str = "nightly.yaml") -> None:
    listed = "".join(f"  - {{name: {n}, workflow_id: {w}, project_id: {p}}}\n" for n, w, p in jobs or JOBS)
    shell.write(path, f"version: 1\n{head}jobs:\n{listed}")


class Api:
    """An API of which the test says what workflows are estimated at, what jobs cost, and what becomes of a POST."""

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
        self.made = 0

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            self.made += 1
            cost = self.costs.get(request.workflow, 0)
            body = json.dumps({"id": f"job-{self.made}", "status": "accepted", "cost": cost}).encode()
            return self.posts.get(request.workflow) or reply(200, body, creates=True)
        if not request.target.endswith("/estimate"):
            return reply(404)
        told = self.estimates.get(request.workflow)
        if isinstance(told, int):
            return reply(200, json.dumps({"estimated_cost": told}).encode())
        return told or reply(404, b'{"error": {"code": "not_found", "message": "no estimate"}}')


@contextmanager
def serving(shell: Shell, api: Api) -> Iterator[WireServer]:
    with WireServer(choose=api) as server:
        shell.use_api(server.url)
        yield server


def sent(server: WireServer) -> list[str]:
    return [request.workflow for request in server.requests if request.method == "POST"]


def asked(server: WireServer) -> list[str]:
    return sorted(request.workflow for request in server.requests if request.target.endswith("/estimate"))


def run(shell: Shell, *arguments: str, **streams: Any) -> CompletedCommand:
    done = shell("run", "nightly.yaml", "--hold", *arguments, **streams)
    assert "Traceback" not in done.err, done.err
    assert KEY not in done.out + done.err
    return done


def results(shell: Shell) -> dict[str, Any]:
    return check_results(shell.directory / "nightly.results.json")


# Above the limit nothing is sent.


def test_above_the_limit_nothing_is_sent(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        done = run(shell, "--max-cost", "84")
        assert (done.code, sent(server), asked(server)) == (4, [], ["algae", "ndvi", "turbid"])
    assert "the estimated cost of 4 jobs is 85 tokens, which exceeds max_cost 84; nothing was sent" in done.err
    assert "Most expensive: coast-a 40, coast-b 25, field-a 10." in done.err
    assert done.out == ""
    assert not (shell.directory / "nightly.results.json").exists()


def test_a_limit_that_a_script_failed_to_fill_is_not_no_limit(shell: Shell) -> None:
    shell.environment["PIXXEL_RUNNER_MAX_COST"] = ""
    with serving(shell, Api()) as server:
        done = run(shell)
        assert (done.code, sent(server), asked(server)) == (2, [], [])
    assert "PIXXEL_RUNNER_MAX_COST is set to an empty string" in done.err


def test_up_to_the_limit_everything_is(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        done = run(shell, "--max-cost", "85")
        assert (done.code, sent(server)) == (0, ["ndvi", "ndvi", "algae", "turbid"])


def test_without_a_limit_nobody_is_asked(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        assert run(shell).code == 0
        assert (len(sent(server)), asked(server)) == (4, [])


def test_only_what_is_sent_is_asked_for_and_counted(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        assert run(shell, "--max-cost", "20", "--only", "field-*").code == 0
        assert (sent(server), asked(server)) == (["ndvi", "ndvi"], ["ndvi"])
        assert run(shell, "--max-cost", "20", "--only", "field-*").code == 0  # all is bought, and nothing asked
        assert (len(sent(server)), asked(server)) == (2, ["ndvi"])


@pytest.mark.parametrize(
    ("written", "variable", "flag", "limit"),
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
def test_the_flag_goes_before_the_environment_and_that_before_the_manifest(
    shell: Shell, written: str | None, variable: str | None, flag: str | None, limit: int | None
) -> None:
    manifest(shell, head="once_per: forever\n" + (f"max_cost: {written}\n" if written else ""))
    if variable is not None:
        shell.environment["PIXXEL_RUNNER_MAX_COST"] = variable
    with serving(shell, Api()) as server:
        done = run(shell, *(("--max-cost", flag) if flag is not None else NONE))
        assert (done.code, len(sent(server))) == ((0, 4) if limit is None else (4, 0))
    assert limit is None or f"exceeds max_cost {limit}; nothing was sent" in done.err


# What is not known.


def test_an_unknown_estimate_is_refused_and_may_be_allowed(shell: Shell) -> None:
    with serving(shell, Api({"ndvi": 10, "turbid": 25})) as server:
        done = run(shell, "--max-cost", "1000")
        assert (done.code, sent(server)) == (4, [])
        assert "the cost of 1 workflow is unknown, and max_cost is 1000; nothing was sent (algae: " in done.err
        assert "HTTP 404 Not Found: not_found: no estimate" in done.err
        assert "--allow-unknown-cost" in done.err
        above = run(shell, "--max-cost", "44", "--allow-unknown-cost")
        assert (above.code, sent(server)) == (4, [])
        assert "the estimated cost of 4 jobs is 45 tokens" in above.err
        assert run(shell, "--max-cost", "45", "--allow-unknown-cost").code == 0
        assert sent(server) == ["ndvi", "ndvi", "algae", "turbid"]
    assert [job["estimate"] for job in results(shell)["created"]] == [10, 10, None, 25]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (reply(500), "HTTP 500 Internal Server Error"),
        (reply(401), "HTTP 401 Unauthorized: the API does not recognise the key"),
        (reply(429, headers=[("Retry-After", "60")]), "HTTP 429 Too Many Requests"),
        (reply(200, b'{"estimated_cost": 1e3}'), "the API returned no valid estimate"),
        (reply(200, b"<html>"), "the response cannot be read"),
        (reply(302, headers=[("Location", "/login")]), "the server redirects to /login"),
        (Reset(), "the connection was closed before the response"),
        (Stall(threading.Event()), "no complete response within"),
    ],
    ids=["500", "401", "429", "float", "html", "302", "reset", "stall"],
)
def test_estimates_that_cannot_be_had_cost_no_job_and_no_more_than_a_timeout(
    shell: Shell, script: Script, why: str
) -> None:
    with serving(shell, Api(dict.fromkeys(COSTS, script))) as server:
        begun = time.monotonic()
        done = run(shell, "--max-cost", "1000", "--timeout", "1")
        assert time.monotonic() - begun < 1 + STARTING
        assert (done.code, sent(server)) == (4, [])
    assert "the cost of 3 workflows is unknown" in done.err
    assert why in done.err


def test_one_estimate_that_stalls_costs_no_job_and_no_more_than_a_timeout(shell: Shell) -> None:
    shell.environment["PIXXEL_RUNNER_CONCURRENCY"] = "2"
    with serving(shell, Api({**COSTS, "ndvi": Stall(threading.Event())})) as server:
        begun = time.monotonic()
        done = run(shell, "--max-cost", "65", "--timeout", "1", "--allow-unknown-cost")
        assert time.monotonic() - begun < 1 + STARTING
        assert (done.code, len(sent(server))) == (0, 4)


# While it goes.


def test_costs_above_the_estimates_stop_the_run(shell: Shell) -> None:
    with serving(shell, Api(costs={"ndvi": 35})) as server:
        done = run(shell, "--max-cost", "90")
        assert (done.code, sent(server)) == (4, ["ndvi", "ndvi"])
        assert "budget: 70 of 90 tokens are spent, and coast-a is estimated at 40" in done.err
        assert "2 created, 0 not created, 0 in doubt, 2 skipped" in done.out
        record = results(shell)
        assert record["run"]["state"] == "stopped"
        assert [(one["name"], one["reason"]) for one in record["skipped"]] == [
            ("coast-a", "budget"),
            ("coast-b", "budget"),
        ]
        assert record["skipped"][0]["detail"] == "budget: 70 of 90 tokens are spent, and coast-a is estimated at 40"
        again = run(shell, "--max-cost", "90")
        assert (again.code, len(sent(server))) == (4, 2)
        assert (
            "the estimated cost of 2 jobs is 65 tokens, on top of 70 spent for ever, which exceeds max_cost 90"
            in again.err
        )
        assert run(shell, "--max-cost", "135").code == 0
        assert sent(server) == ["ndvi", "ndvi", "algae", "turbid"]


@pytest.mark.parametrize("first", [NONE, ("--max-cost", "85")], ids=["without", "with"])
def test_a_resumed_run_goes_on_with_what_was_spent(shell: Shell, first: tuple[str, ...]) -> None:
    """A first run without a limit has no estimates on record, and its jobs cost nothing while they are young."""
    manifest(shell, head="once_per: run\n")
    with serving(shell, Api(posts={"turbid": reply(422)})) as server:
        assert run(shell, *first).code == 1
        refused = run(shell, "--resume", "--max-cost", "84")
        assert (refused.code, len(sent(server))) == (4, 4)
        assert "the estimated cost of 1 job is 25 tokens, on top of 60 spent for the run " in refused.err
        assert "Most expensive: coast-b 25." in refused.err
        assert run(shell, "--resume", "--max-cost", "85").code == 1
        assert sent(server) == ["ndvi", "ndvi", "algae", "turbid", "turbid"]


def test_what_is_in_doubt_is_spent(shell: Shell) -> None:
    with serving(shell, Api(posts={"algae": Reset(), "turbid": reply(422)})) as server:
        assert run(shell, "--max-cost", "85").code == 3
        [doubt, failed] = results(shell)["errors"]
        assert (doubt["outcome"], doubt["estimate"]) == ("in_doubt", 40)
        assert (failed["outcome"], failed["estimate"]) == ("not_created", None)
        assert run(shell, "--max-cost", "84").code == 4
        assert len(sent(server)) == 4


# What the record says.


def test_results_and_summary_have_estimate_and_cost_of_each_job_each_project_and_all(shell: Shell) -> None:
    with serving(shell, Api(costs={"ndvi": 12, "algae": 33}, posts={"turbid": Reset()})):
        done = run(shell, "--max-cost", "100")
    assert done.code == 3
    record = results(shell)
    assert [(job["name"], job["estimate"], job["job"]["cost"]) for job in record["created"]] == [
        ("field-a", 10, 12),
        ("field-b", 10, 12),
        ("coast-a", 40, 33),
    ]
    summary = record["summary"]
    assert (summary["estimate"], summary["cost"]) == (85, 57)
    assert summary["projects"] == [
        {"project_id": "agri", "created": 2, "cost": 24, "estimate": 20},
        {"project_id": "coast", "created": 1, "cost": 33, "estimate": 65},
    ]
    assert record["run"]["settings"]["max_cost"] == 100
    titles, _, first, *_ = done.out.splitlines()
    assert titles.split()[-4:] == ["estimate", "cost", "sent", "(UTC)"]
    assert first.split()[-3:-1] == ["10", "12"]
    assert "cost 57 (estimate 85)" in done.out
    assert "project agri: 2 created · cost 24 (estimate 20)" in done.out
    assert "project coast: 1 created · cost 33 (estimate 65)" in done.out
    shown = shell("show", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert [(row["name"], row["estimate"], row["cost"]) for row in rows] == [
        ("field-a", "10", "12"),
        ("field-b", "10", "12"),
        ("coast-a", "40", "33"),
        ("coast-b", "25", ""),
    ]


def test_where_nobody_asked_there_is_no_estimate(shell: Shell) -> None:
    with serving(shell, Api(costs={"ndvi": 12})):
        done = run(shell)
    record = results(shell)
    assert (record["summary"]["estimate"], record["summary"]["cost"]) == (None, 24)
    assert {job["estimate"] for job in record["created"]} == {None}
    assert "estimate" not in done.out


# --confirm, on a real terminal.


@contextmanager
def confirming(
    shell: Shell, *arguments: str, out: IO[bytes] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run that asks, on a terminal. `out`: stdout is a file."""
    with run_on_terminal(shell, "run", "nightly.yaml", "--confirm", *arguments, out=out) as both:
        yield both


def test_a_yes_sends(shell: Shell) -> None:
    with serving(shell, Api()) as server, confirming(shell) as (process, person):
        shown = read_terminal(person, "[y/N]")
        assert sent(server) == []
        os.write(person, b"y\n")
        shown += read_terminal(person, None)
        assert process.wait(TIMEOUT) == 0
        assert len(sent(server)) == 4
    for words in ("job ", "submit", "coast-a", "4 jobs: 4 to submit, 0 to look up", "estimate 85", "for ever"):
        assert words in shown
    assert f"Submit 4 of 4 jobs of nightly to {server.url}? [y/N]" in shown
    assert results(shell)["summary"]["estimate"] == 85


@pytest.mark.parametrize("answer", [b"yes\n", b" Y \n"])
def test_a_yes_in_other_words(shell: Shell, answer: bytes) -> None:
    with serving(shell, Api()) as server, confirming(shell, "--only", "field-a") as (process, person):
        assert "Submit 1 of 4 jobs" in read_terminal(person, "[y/N]")
        os.write(person, answer)
        read_terminal(person, None)
        assert (process.wait(TIMEOUT), sent(server)) == (0, ["ndvi"])


@pytest.mark.parametrize(
    "answer", [b"n\n", b"\n", b"yep\n", b"\xff\n", b"\x04"], ids=["no", "enter", "other", "byte", "ctrl-d"]
)
def test_anything_else_sends_nothing(shell: Shell, answer: bytes) -> None:
    with serving(shell, Api()) as server, confirming(shell) as (process, person):
        read_terminal(person, "[y/N]")
        os.write(person, answer)
        assert "not confirmed: nothing was sent" in read_terminal(person, None)
        assert (process.wait(TIMEOUT), sent(server)) == (4, [])
    assert not (shell.directory / "nightly.results.json").exists()


def test_control_c_sends_nothing_and_frees_the_manifest(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        with confirming(shell) as (process, person):
            read_terminal(person, "[y/N]")
            os.write(person, b"\x03")
            assert "interrupted" in read_terminal(person, None)
            assert (process.wait(TIMEOUT), sent(server)) == (130, [])
        assert run(shell).code == 0


def test_sigterm_at_the_question_sends_nothing(shell: Shell) -> None:
    with serving(shell, Api()) as server, confirming(shell) as (process, person):
        read_terminal(person, "[y/N]")
        process.send_signal(signal.SIGTERM)
        read_terminal(person, None)
        assert (process.wait(TIMEOUT), sent(server)) == (143, [])


def test_the_question_is_talk_and_stdout_is_data(shell: Shell) -> None:
    out = shell.directory / "out.csv"
    with (
        serving(shell, Api()),
        out.open("wb") as file,
        confirming(shell, "--format", "csv", out=file) as (process, person),
    ):
        shown = read_terminal(person, "[y/N]")
        os.write(person, b"y\n")
        read_terminal(person, None)
        assert process.wait(TIMEOUT) == 0
    assert "4 to submit" in shown
    assert out.read_text(encoding="utf-8").startswith("manifest,name,workflow_id,")


def test_costs_that_are_not_known_are_said_before_the_question(shell: Shell) -> None:
    with serving(shell, Api({"ndvi": 10, "turbid": 25})) as server, confirming(shell) as (process, person):
        shown = read_terminal(person, "[y/N]")
        os.write(person, b"n\n")
        read_terminal(person, None)
        assert (process.wait(TIMEOUT), sent(server)) == (4, [])
    assert "estimate 45 and 1 of unknown cost" in shown
    assert "cost of workflow algae not known: HTTP 404 Not Found" in shown


def test_what_is_above_the_limit_is_refused_without_a_question(shell: Shell) -> None:
    with serving(shell, Api()) as server, confirming(shell, "--max-cost", "84") as (process, person):
        shown = read_terminal(person, None)
        assert (process.wait(TIMEOUT), sent(server)) == (4, [])
    assert "exceeds max_cost 84" in shown
    assert "[y/N]" not in shown


def test_where_there_is_nothing_to_send_nobody_is_asked(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        assert run(shell).code == 0
        with confirming(shell) as (process, person):
            assert "[y/N]" not in read_terminal(person, None)
            assert process.wait(TIMEOUT) == 0
        assert (len(sent(server)), asked(server)) == (4, [])


def test_without_a_terminal_it_is_refused(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        done = run(shell, "--confirm")
        assert (done.code, server.requests) == (4, [])
    assert "--confirm needs a terminal to ask on" in done.err


def test_with_an_answer_in_a_pipe_it_is_refused_too(shell: Shell) -> None:
    """`yes | pixxel-runner run --confirm` is nobody who has read the plan."""
    with serving(shell, Api()) as server:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "runner", "run", "nightly.yaml", "--confirm"],
            cwd=shell.directory,
            env=terminal_environment(shell),
            input="y\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, server.requests) == (4, [])
