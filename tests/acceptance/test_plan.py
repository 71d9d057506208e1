"""The `plan` command: its output and requests, that it changes nothing, and that `run` then does the same."""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks, ledger_history
from support import shell as shells
from support.schemas import loads_strictly
from support.shell import KEY, CompletedCommand, Shell
from support.wire import Request, Reset, Script, Stall, WireServer, created, reply

from runner.client.api import ReadOnlyClient
from runner.client.endpoint import ApiKey, Endpoint
from runner.client.exchange import Exchange
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger
from runner.planning import estimates
from runner.planning.planned_jobs import Preview
from runner.runs import preview

Job = tuple[str, str, str]

TIMING_MARGIN = 8.0  # seconds: margin for a slow machine; a missing timeout would take many times as long
PAIRS: tuple[Job, ...] = (("a", "w-1", "p-1"), ("b", "w-1", "p-2"), ("c", "w-2", "p-1"))
NO_FLAGS: tuple[str, ...] = ()


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-P", "-m", "runner", *map(str, arguments)]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(shells, "command", command)
    shell = Shell(tmp_path)
    shell.manifest(*PAIRS, once_per="forever")
    return shell


class Api:
    """An API that has every workflow and creates a job for each POST, unless the test sets another response.

    The keys of `responses` are the last part of a path: `estimate`, `jobs`, or a workflow's id.
    """

    def __init__(self, **responses: Script) -> None:
        self.responses = responses
        self.posts: list[Script] = []  # for the first POSTs
        self.created_count = 0

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            self.created_count += 1
            return self.posts.pop(0) if self.posts else created(f"job-{self.created_count}")
        resource = request.target.partition("?")[0].rpartition("/")[2].replace("-", "_")
        if resource == "jobs":
            return self.responses.get(resource) or reply(404)
        if resource == "estimate":
            cost = int(request.workflow.rpartition("-")[2])
            return self.responses.get(resource) or reply(200, json.dumps({"estimated_cost": cost}).encode())
        body = json.dumps({"id": request.workflow, "project_id": request.project, "val_errors": None}).encode()
        return self.responses.get(resource) or self.responses.get("workflow") or reply(200, body)


@contextmanager
def serving(shell: Shell, api: Api | None = None) -> Iterator[WireServer]:
    with WireServer(choose=api or Api()) as server:
        shell.use_api(server.url)
        yield server


def post_requests(server: WireServer) -> list[Request]:
    return [request for request in server.requests if request.method == "POST"]


def plan(shell: Shell, *arguments: str) -> CompletedCommand:
    completed = shell("plan", "nightly.yaml", *arguments)
    assert "Traceback" not in completed.err, completed.err
    assert KEY not in completed.out + completed.err
    return completed


def parse_document(completed: CompletedCommand) -> dict[str, Any]:
    return loads_strictly(completed.out)


def table_rows(completed: CompletedCommand) -> dict[str, str]:
    """Each job in the table, with its action and reason."""
    lines = completed.out.split("\n\n")[0].splitlines()[2:]
    return {line.split()[0]: " ".join(line.split()[3:]) for line in lines}


def snapshot(directory: Path) -> dict[str, bytes | None]:
    """All files below a directory, except SQLite's shared memory and empty logs, which readers create."""
    contents = {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }
    return {
        name: data
        for name, data in contents.items()
        if not name.endswith("-shm") and not (name.endswith("-wal") and data == b"")
    }


# Requests


def test_plan_sends_no_requests_and_needs_no_key(shell: Shell) -> None:
    with serving(shell) as server:
        shell.use_api(server.url, key=None)
        completed = plan(shell)
        assert (completed.code, server.log.connections) == (0, 0)
    assert table_rows(completed) == {"a": "submit new", "b": "submit new", "c": "submit new"}
    assert "3 jobs: 3 to submit, 0 to look up, 0 with nothing to do" in completed.out
    assert "estimate" not in completed.out
    assert "there is no ledger at .pixxel-runner/ledger.db yet: all jobs are new" in completed.err


def test_estimate_is_requested_once_per_workflow(shell: Shell) -> None:
    shell.manifest(*((f"j{number}", f"w-{number % 20}", f"p-{number}") for number in range(500)), once_per="forever")
    with serving(shell) as server:
        completed = plan(shell, "--cost", "--format", "json")
        assert Counter(request.target for request in server.requests) == {
            f"/v0/workflows/w-{number}/estimate": 1 for number in range(20)
        }
        assert {request.method for request in server.requests} == {"GET"}
    assert parse_document(completed)["summary"] == {
        "submit": 500,
        "nothing": 0,
        "look_up": 0,
        "estimate": 25 * sum(range(20)),
        "spent": 0,
        "max_cost": None,
    }


def test_check_requests_each_workflow_project_pair_once(shell: Shell) -> None:
    jobs = [(f"j{number}", f"w-{number % 3}", f"p-{number % 2}") for number in range(60)]
    shell.manifest(*jobs, once_per="forever")
    pairs = {f"/v0/workflows/{workflow}?project_id={project}": 1 for _, workflow, project in jobs}
    with serving(shell) as server:
        assert plan(shell, "--check").code == 0
        assert Counter(request.target for request in server.requests) == pairs
        assert len(pairs) == 6
        completed = plan(shell, "--check", "--cost")
        assert (completed.code, len(server.requests)) == (0, 6 + 6 + 3)
    assert "estimate 60" in completed.out


def test_jobs_that_would_not_be_submitted_cause_no_requests(shell: Shell) -> None:
    with serving(shell) as server:
        assert shell("run", "nightly.yaml", "--only", "[ab]").code == 0
        assert plan(shell, "--cost", "--check", "--only", "[ab]").code == 0
        assert len(server.requests) == 2
        assert plan(shell, "--cost", "--check").code == 0
        # w-1 has no estimate in the ledger, and counts towards the tokens already spent.
        assert sorted(request.target for request in server.requests[2:]) == [
            "/v0/workflows/w-1/estimate",
            "/v0/workflows/w-2/estimate",
            "/v0/workflows/w-2?project_id=p-1",
        ]


def test_plan_requests_respect_the_concurrency(shell: Shell) -> None:
    gate = threading.Event()
    shell.manifest(*((f"j{number}", f"w-{number}", "p") for number in range(8)), once_per="forever")
    with serving(shell, Api(estimate=Stall(gate, then=reply(200, b'{"estimated_cost": 1}')))) as server:
        with shell.start("plan", "nightly.yaml", "--cost", "--concurrency", "3", "--rate", "100/s") as process:
            server.wait_for_requests(3)
            gate.set()
            process.communicate(timeout=30)
        assert (process.returncode, server.log.most_busy, len(server.requests)) == (0, 3, 8)


def test_cost_and_check_need_a_key(shell: Shell) -> None:
    with serving(shell) as server:
        shell.use_api(server.url, key=None)
        for flag in ("--cost", "--check"):
            completed = plan(shell, flag)
            assert (completed.code, server.log.connections) == (4, 0)
            assert "no API key" in completed.err


# Failures

API_FAILURES: Mapping[str, tuple[Callable[[], Script], str]] = {
    "500": (lambda: reply(500), "HTTP 500 Internal Server Error"),
    "401": (lambda: reply(401), "HTTP 401 Unauthorized: the API does not recognize the key"),
    "429": (lambda: reply(429, headers=[("Retry-After", "60")]), "HTTP 429 Too Many Requests"),
    "html": (lambda: reply(200, b"<html>"), "the response cannot be read"),
    "reset": (Reset, "the connection was closed before the response"),
    "stall": (lambda: Stall(threading.Event()), "no complete response within"),
}


@pytest.mark.parametrize(("make_script", "reason"), API_FAILURES.values(), ids=API_FAILURES)
def test_unavailable_estimates_are_reported_within_the_timeout(
    shell: Shell, make_script: Callable[[], Script], reason: str
) -> None:
    with serving(shell, Api(estimate=make_script())) as server:
        start = time.monotonic()
        completed = shell.call("plan", "nightly.yaml", "--cost", "--timeout", "1")
        assert time.monotonic() - start < 1 + TIMING_MARGIN
        assert post_requests(server) == []
    assert completed.code == 4  # so that a script notices
    assert "the cost of 2 workflows is unknown (" in completed.err
    assert "estimate 0 and 3 of unknown cost" in completed.out
    assert completed.out.count(reason) == 2


@pytest.mark.parametrize(("make_script", "reason"), API_FAILURES.values(), ids=API_FAILURES)
def test_failed_checks_are_reported_within_the_timeout(
    shell: Shell, make_script: Callable[[], Script], reason: str
) -> None:
    with serving(shell, Api(workflow=make_script())) as server:
        start = time.monotonic()
        completed = shell.call("plan", "nightly.yaml", "--check", "--timeout", "1")
        assert time.monotonic() - start < 1 + TIMING_MARGIN
        assert post_requests(server) == []
    assert completed.code == 4
    assert re.search("3 workflows (could not be checked|failed the check); first error: w-1 in", completed.err)
    assert reason in completed.err
    assert all(reason in line for line in completed.out.splitlines()[2:5])


CHECK_NETWORK = "Check the base URL, the proxy (HTTPS_PROXY, NO_PROXY) and the network, or try again later."


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (reply(404), "failed the check|Check the ids, and the permissions of the key."),
        (reply(403), "failed the check|Check the ids, and the permissions of the key."),
        (reply(401), "could not be checked|Set PIXXEL_API_KEY or --api-key-file to a key of this API."),
        (reply(307, headers=[("Location", "/")]), "could not be checked|Check the base URL."),
        (reply(502), "could not be checked|Try again later."),
        (Reset(), f"could not be checked|{CHECK_NETWORK}"),
    ],
)
def test_failed_check_has_a_hint(shell: Shell, script: Script, expected: str) -> None:
    problem, hint = expected.split("|")
    with serving(shell, Api(workflow=script)):
        completed = shell.call("plan", "nightly.yaml", "--check", "--attempts", "1")
    assert completed.code == 4
    assert f"error: 3 workflows {problem}; first error: w-1 in project p-1: " in completed.err
    assert completed.err.splitlines()[-1] == f"  {hint}"


def test_cost_and_check_share_one_timeout(shell: Shell) -> None:
    stall = Stall(threading.Event())
    with serving(shell, Api(estimate=stall, workflow=stall)):
        start = time.monotonic()
        completed = shell.call("plan", "nightly.yaml", "--cost", "--check", "--timeout", "2", "--concurrency", "1")
        assert time.monotonic() - start < 2 + TIMING_MARGIN
    assert completed.code == 4


def test_missing_workflow_is_named(shell: Shell) -> None:
    missing = reply(404, b'{"error": {"code": "not_found", "message": "no such workflow"}}')
    with serving(shell, Api(w_2=missing)):
        completed = plan(shell, "--check")
    assert completed.code == 4
    assert (
        "1 workflow failed the check; first error: w-2 in project p-1: HTTP 404 Not Found: not_found: no such workflow"
    ) in completed.err
    assert [line.endswith("no such workflow") for line in completed.out.splitlines()[2:5]] == [False, False, True]


# Output


def write_ledger(shell: Shell, write: Callable[[Ledger], object]) -> None:
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    with Ledger(shell.ledger) as ledger:
        write(ledger)


def test_every_action_and_reason_is_described(shell: Shell) -> None:
    shell.write(
        "nightly.yaml",
        "version: 1\nonce_per: forever\ndefaults: {project_id: p-1}\njobs:\n"
        "  - {name: made, workflow_id: w-1}\n"
        "  - {name: one-more, workflow_id: w-1}\n"
        "  - {name: refused, workflow_id: w-2}\n"
        "  - {name: lost, workflow_id: w-3}\n"
        "  - {name: killed, workflow_id: w-4}\n"
        "  - {name: idle, workflow_id: w-5, enabled: false}\n"
        "  - {name: new, workflow_id: w-6}\n"
        "  - {name: z-other, workflow_id: w-7}\n",
    )
    submitted_names = ("made", "refused", "lost", "killed")
    jobs = [ledger_history.job(name, f"w-{number}") for number, name in enumerate(submitted_names, 1)]

    def write(ledger: Ledger) -> None:
        path = str(shell.directory / "nightly.yaml")
        run = ledger_history.start_run(ledger, "20261020T010000Z-aaaaaa", jobs, key="forever", path=path)
        for job, outcome in zip(
            jobs,
            (ledger_history.created("job-1"), ledger_history.not_created(), ledger_history.in_doubt(), None),
            strict=True,
        ):
            ledger_history.send(ledger, run, job, outcome)

    write_ledger(shell, write)
    shell.use_api(ledger_history.API, key=None)
    completed = plan(shell, "--only", "[!z]*", "--again", "made")
    assert (completed.code, completed.err) == (0, "")
    assert table_rows(completed) == {
        "made": "submit once more: requested with --again",
        "one-more": "submit one more of this pair: submitted 1 time so far",
        "refused": "submit not created before: no such workflow",
        "lost": "look up in doubt: no answer in time",
        "killed": "look up in doubt: it is being sent, or its run was killed while sending it",
        "idle": "nothing disabled in the manifest",
        "new": "submit new",
        "z-other": "nothing not selected: matches no --only pattern",
    }
    assert "made      w-1       p-1      nothing  created as job-1 by 20261020T010000Z-aaaaaa" in completed.out
    assert "9 jobs: 4 to submit, 2 to look up, 3 with nothing to do\nfor ever" in completed.out
    planned_jobs = parse_document(plan(shell, "--format", "json"))["jobs"]
    assert [(job["reason"], job["run_id"], job["job_id"]) for job in planned_jobs[:2]] == [
        ("created", "20261020T010000Z-aaaaaa", "job-1"),
        ("one_more", None, None),
    ]


def test_plan_after_a_run_has_nothing_to_do(shell: Shell) -> None:
    with serving(shell) as server:
        before = [plan(shell), plan(shell, "--exit-code")]
        assert shell("run", "nightly.yaml").code == 0
        after = [plan(shell), plan(shell, "--exit-code")]
        assert len(server.requests) == 3
    assert [completed.code for completed in (*before, *after)] == [0, 1, 0, 0]
    assert before[0].out == before[1].out
    assert "3 jobs: 0 to submit, 0 to look up, 3 with nothing to do" in after[0].out
    run_id = parse_document(plan(shell, "--format", "json"))["jobs"][0]["run_id"]
    assert table_rows(after[0])["a"].startswith("nothing created as job-")
    assert table_rows(after[0])["a"].endswith(f" by {run_id}")


def test_jobs_in_doubt_of_earlier_run_keys_are_reported(shell: Shell) -> None:
    shell.manifest(*PAIRS, once_per="run")
    api = Api()
    api.posts = [Reset()]
    with serving(shell, api):
        assert shell("run", "nightly.yaml", "--hold").code == 3
    completed = plan(shell, "--new")
    assert completed.code == 0
    assert (
        "1 job is still in doubt from earlier runs. To look it up: pixxel-runner resolve nightly.yaml" in completed.err
    )
    assert "3 to submit" in completed.out
    resumed = plan(shell, "--resume")
    assert (resumed.code, "earlier runs" in resumed.err) == (0, False)
    assert "0 to submit, 1 to look up, 2 with nothing to do\nfor the run " in resumed.out


def test_resuming_a_partial_run_covers_only_its_jobs(shell: Shell) -> None:
    shell.manifest(*PAIRS, once_per="run")
    api = Api()
    api.posts = [created("job-of-a"), reply(422)]
    with serving(shell, api) as server:
        assert shell.call("run", "nightly.yaml", "--only", "[ab]", "--concurrency", "1").code == 1
        assert table_rows(shell.call("plan", "nightly.yaml", "--resume"))["c"].startswith("nothing not selected")
        assert shell.call("run", "nightly.yaml", "--resume").code == 0
        assert [request.project for request in post_requests(server)] == ["p-1", "p-2", "p-2"]


HOSTILE = ("::error::a", "##[add-mask]b", "=1+1", "c|d", "<img src=x>", "@octocat", "1e5")
HOSTILE_BODY = b'{"error": {"code": "\\u001b[31m", "message": "\\r\\n::error::x ##[group] \\u202e"}}'


@pytest.mark.parametrize("output_format", ["table", "markdown", "csv", "json"])
def test_every_format_escapes_names_and_responses(shell: Shell, output_format: str) -> None:
    jobs = "".join(
        f"  - {{name: {json.dumps(name)}, workflow_id: w-{index}, project_id: p}}\n"
        for index, name in enumerate(HOSTILE)
    )
    shell.write("nightly.yaml", f"version: 1\nonce_per: forever\njobs:\n{jobs}")
    api = Api(workflow=reply(404, HOSTILE_BODY), estimate=reply(404, HOSTILE_BODY))
    api.posts = [created("\x1b[31m\r\n::error::j"), reply(422, HOSTILE_BODY), Reset()]
    with serving(shell, api):
        assert shell.call("run", "nightly.yaml", "--hold", "--concurrency", "1", "--only", "[:#=]*").code == 3
        completed = shell.call("plan", "nightly.yaml", "--cost", "--check", "--format", output_format)
    assert completed.code == 4  # the check failed
    for output in (completed.out, completed.err):
        assert all(character.isprintable() for character in output.replace("\n", "").replace("\r", ""))
        assert "##[" not in output
        assert not [line for line in output.splitlines() if line.lstrip().startswith("::")]
    match output_format:
        case "json":
            jobs_shown = parse_document(completed)["jobs"]
            assert [job["name"] for job in jobs_shown] == list(HOSTILE)
            assert jobs_shown[0]["job_id"] == "\x1b[31m\r\n::error::j"
        case "csv":
            jobs_shown = list(csv.DictReader(io.StringIO(completed.out, newline=""), strict=True))
            assert [job["workflow_id"] for job in jobs_shown] == [f"w-{number}" for number in range(len(HOSTILE))]
            assert [job["name"] for job in jobs_shown][2:] == ["'=1+1", "c|d", "<img src=x>", "'@octocat", "1e5"]
        case "markdown":
            assert "<img" not in completed.out
            assert "c\\|d" in completed.out
        case _:
            assert "1e5" in completed.out


# No changes


def test_plan_creates_no_ledger_and_no_directory(shell: Shell) -> None:
    with serving(shell):
        before = snapshot(shell.directory)
        assert plan(shell, "--cost", "--check").code == 0
        assert snapshot(shell.directory) == before == {"nightly.yaml": (shell.directory / "nightly.yaml").read_bytes()}


@pytest.mark.parametrize("flags", [NO_FLAGS, ("--cost", "--check")])
def test_plan_changes_no_file(shell: Shell, flags: tuple[str, ...]) -> None:
    api = Api()
    api.posts = [reply(422)]
    with serving(shell, api):
        assert shell("run", "nightly.yaml").code == 1
        before = snapshot(shell.directory)
        assert plan(shell, *flags).code == 0
        assert snapshot(shell.directory) == before


def test_plan_is_refused_during_a_run_and_works_after_it_was_killed(shell: Shell) -> None:
    api = Api()
    api.posts = [Stall(threading.Event(), then=created("late"))]
    with serving(shell, api) as server:
        with shell.start("run", "nightly.yaml", "--concurrency", "1") as process:
            server.wait_for_requests(1)
            during_run = plan(shell)
            process.kill()
        before = snapshot(shell.directory)
        assert before[".pixxel-runner/ledger.db-wal"]
        after_kill = plan(shell)
        assert snapshot(shell.directory) == before
    assert (during_run.code, during_run.out) == (5, "")
    assert f"error: manifest 'nightly' is being run at {server.url} by run " in during_run.err
    assert after_kill.code == 0
    assert table_rows(after_kill) == {
        "a": "look up in doubt: it is being sent, or its run was killed while sending it",
        "b": "submit new",
        "c": "submit new",
    }


def test_plan_works_on_a_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "command", command)
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # coverage would write files to the read-only disk
    with disks.mounted(tmp_path / "disk") as disk:
        shell = Shell(disk.root)
        shell.manifest(*PAIRS, once_per="forever")
        with serving(shell) as server:
            with disk.read_only():
                assert "3 to submit" in plan(shell, "--cost").out
            assert shell("run", "nightly.yaml", "--only", "a").code == 0
            with disk.read_only():
                completed = plan(shell)
            assert len(post_requests(server)) == 1
    assert (completed.code, table_rows(completed)["b"]) == (0, "submit new")
    assert table_rows(completed)["a"].startswith("nothing created as job-1 by ")


def test_plan_with_the_sandbox(shell: Shell) -> None:
    completed = plan(shell, "--sandbox", "--cost", "--check")
    assert (completed.code, "3 jobs: 3 to submit" in completed.out, "estimate 30" in completed.out) == (0, True, True)
    assert shell("run", "nightly.yaml", "--sandbox").code == 0
    assert "3 with nothing to do" in plan(shell, "--sandbox", "--cost", "--check").out


# Refusals: the same as those of `run`


def unfinished_run(shell: Shell, api: Api) -> tuple[str, ...]:
    shell.manifest(*PAIRS, once_per="run")
    api.posts = [reply(422)]
    assert shell.call("run", "nightly.yaml").code == 1
    return ("nightly.yaml",)


def renamed_manifest(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    (shell.directory / "nightly.yaml").rename(shell.directory / "daily.yaml")
    return ("daily.yaml",)


def duplicate_manifest(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    shell.write("other.yaml", "name: nightly\n" + (shell.directory / "nightly.yaml").read_text(encoding="utf-8"))
    return ("other.yaml",)


def lost_ledger(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    shell.ledger.unlink()
    return ("nightly.yaml",)


def damaged_ledger(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    shell.ledger.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    return ("nightly.yaml",)


def missing_ledger(shell: Shell, _api: Api) -> tuple[str, ...]:
    return ("nightly.yaml", "--ledger", str(shell.directory / "nowhere.db"))


def in_ci(shell: Shell, _api: Api) -> tuple[str, ...]:
    shell.environment["CI"] = "true"
    return ("nightly.yaml",)


def edited_once_per(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    shell.manifest(*PAIRS, once_per="month")
    return ("nightly.yaml",)


def new_within_a_period(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    return ("nightly.yaml", "--new")


def again_for_a_job_in_doubt(shell: Shell, api: Api) -> tuple[str, ...]:
    api.posts = [Reset()]
    assert shell.call("run", "nightly.yaml", "--hold", "--concurrency", "1").code == 3
    return ("nightly.yaml", "--again", "a")


def invalid_manifest(shell: Shell, _api: Api) -> tuple[str, ...]:
    shell.write("nightly.yaml", "version: 1\njobs: [{workflow_id: 1}]\n")
    return ("nightly.yaml",)


def with_flags(*flags: str) -> Callable[[Shell, Api], tuple[str, ...]]:
    return lambda _shell, _api: ("nightly.yaml", *flags)


REFUSALS: Mapping[str, tuple[Callable[[Shell, Api], tuple[str, ...]], int]] = {
    "unfinished": (unfinished_run, 4),
    "renamed": (renamed_manifest, 4),
    "duplicate-manifest": (duplicate_manifest, 4),
    "lost-ledger": (lost_ledger, 4),
    "damaged-ledger": (damaged_ledger, 4),
    "missing-ledger": (missing_ledger, 4),
    "ci": (in_ci, 4),
    "edited-once-per": (edited_once_per, 4),
    "new-within-a-period": (new_within_a_period, 2),
    "again-in-doubt": (again_for_a_job_in_doubt, 2),
    "invalid-manifest": (invalid_manifest, 2),
    "resume-and-new": (with_flags("--resume", "--new"), 2),
    "only-without-match": (with_flags("--only", "x"), 2),
    "again-without-match": (with_flags("--again", "x"), 2),
    "again-not-created": (with_flags("--again", "a"), 2),
    "plain-http": (with_flags("--base-url", "http://api.example"), 2),
}


def error_lines(completed: CompletedCommand) -> list[str]:
    lines = completed.err.splitlines()
    return next(lines[index:] for index, line in enumerate(lines) if line.startswith("error: "))


@pytest.mark.parametrize(("prepare", "code"), REFUSALS.values(), ids=REFUSALS)
def test_plan_and_run_refuse_with_the_same_error(
    shell: Shell, prepare: Callable[[Shell, Api], tuple[str, ...]], code: int
) -> None:
    api = Api()
    with serving(shell, api) as server:
        arguments = prepare(shell, api)
        before, posts = snapshot(shell.directory), len(post_requests(server))
        plan_result = shell.call("plan", *arguments)
        assert snapshot(shell.directory) == before
        run_result = shell.call("run", *arguments, "--hold")
        assert len(post_requests(server)) == posts
    assert (plan_result.code, run_result.code) == (code, code)
    assert plan_result.out == ""
    assert error_lines(plan_result) == error_lines(run_result)


@pytest.mark.parametrize(
    ("flags", "responses"),
    [(("--max-cost", "3"), {}), (("--max-cost", "100"), {"estimate": reply(404)})],
    ids=["above", "unknown"],
)
def test_plan_shows_and_refuses_costs_that_run_would_refuse(
    shell: Shell, flags: tuple[str, ...], responses: dict[str, Script]
) -> None:
    with serving(shell, Api(**responses)) as server:
        plan_result, run_result = (
            shell.call("plan", "nightly.yaml", "--cost", *flags),
            shell.call("run", "nightly.yaml", *flags),
        )
        assert (plan_result.code, run_result.code, post_requests(server)) == (4, 4, [])
    assert error_lines(plan_result) == error_lines(run_result)
    assert "3 to submit" in plan_result.out


def test_plan_allows_unknown_costs_that_run_would_allow(shell: Shell) -> None:
    with serving(shell, Api(estimate=reply(404))):
        completed = shell.call("plan", "nightly.yaml", "--cost", "--max-cost", "1", "--allow-unknown-cost")
    assert (completed.code, "estimate 0 and 3 of unknown cost" in completed.out) == (0, True)


def test_costs_already_spent_do_not_refuse_a_plan_without_submissions(shell: Shell) -> None:
    with serving(shell):
        assert shell.call("run", "nightly.yaml", "--max-cost", "4").code == 0
        for command in (("plan", "nightly.yaml", "--cost"), ("run", "nightly.yaml")):
            assert shell.call(*command, "--max-cost", "1").code == 0


# Read-only access: a plan cannot create a job


def test_preview_client_has_no_method_that_creates_a_job() -> None:
    assert get_type_hints(preview.build_preview)["reader"] == estimates.WorkflowReader | None
    assert not hasattr(estimates.WorkflowReader, "create_job")
    assert not hasattr(ReadOnlyClient, "create_job")


def test_read_only_client_sends_only_get_requests() -> None:
    methods = {
        name: method
        for name, method in inspect.getmembers(ReadOnlyClient, inspect.isfunction)
        if not name.startswith("_") and "exchange" in inspect.signature(method).parameters
    }
    assert methods.keys() == {"get_estimate", "get_workflow", "get_job", "list_jobs"}
    with (
        WireServer(choose=lambda _: reply(200)) as server,
        ReadOnlyClient(Endpoint(server.url, ApiKey(KEY)), 1) as reader,
    ):
        for name, method in methods.items():
            ids = [f"{name}-id"] * (len(inspect.signature(method).parameters) - 2)
            method(reader, *ids, Exchange(10.0))
    assert [request.method for request in server.requests] == ["GET"] * 4


@pytest.mark.parametrize("flags", [("--cost",), ("--check",), ("--cost", "--check", "--sandbox")])
def test_plan_command_uses_the_read_only_client(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    clients: list[object] = []
    build_preview = preview.build_preview

    def spy(*arguments: Any, **options: Any) -> tuple[Preview, tuple[str, ...]]:
        clients.append(arguments[2])
        return build_preview(*arguments, **options)

    monkeypatch.setattr(preview, "build_preview", spy)
    with serving(shell):
        assert shell.call("plan", "nightly.yaml", *flags).code == 0
    assert [type(client) for client in clients] == [ReadOnlyClient]
    assert not hasattr(clients[0], "create_job")


# Agreement with `run`

job_names = st.sampled_from(["a", "b", "c", "d", "e"])
manifest_entries = st.lists(
    st.tuples(job_names, st.sampled_from([0, 0, 1, 2]), st.sampled_from([True, True, True, False])),
    min_size=3,
    max_size=5,
    unique_by=lambda entry: entry[0],
)
job_results = st.lists(st.sampled_from(["created", "rejected", "lost"]), min_size=3, max_size=5)
run_flags = st.sampled_from(
    [NO_FLAGS, ("--only", "[a-c]"), ("--resume",), ("--new",), ("--again", "a"), ("--only", "b", "--again", "a")]
)
RESULTS: Mapping[str, Script] = {"rejected": reply(422), "lost": Reset()}


def write_manifest(shell: Shell, entries: Sequence[tuple[str, int, bool]], once_per: str) -> None:
    jobs = "".join(
        f"  - {{name: {name}, workflow_id: w-{pair}, project_id: p, enabled: {str(enabled).lower()}}}\n"
        for name, pair, enabled in entries
    )
    shell.write("nightly.yaml", f"version: 1\nonce_per: {once_per}\njobs:\n{jobs}")


@settings(max_examples=40)
@given(
    earlier_runs=st.lists(st.tuples(manifest_entries, job_results, st.just(NO_FLAGS) | run_flags), max_size=3)
    | st.lists(st.tuples(manifest_entries, job_results, st.just(NO_FLAGS)), min_size=1, max_size=2),
    entries=manifest_entries,
    flag=run_flags,
    once_per=st.sampled_from(["forever", "run"]),
)
def test_run_submits_what_the_plan_shows(
    earlier_runs: list[tuple[list[tuple[str, int, bool]], list[str], tuple[str, ...]]],
    entries: list[tuple[str, int, bool]],
    flag: tuple[str, ...],
    once_per: str,
) -> None:
    """After runs of earlier versions of the manifest that left jobs created, rejected or in doubt."""
    api = Api()
    with tempfile.TemporaryDirectory() as directory, WireServer(choose=api) as server:
        shell = Shell(Path(directory), {"PIXXEL_RUNNER_CONCURRENCY": "1", "PIXXEL_RUNNER_STOP_AFTER": "0"})
        shell.use_api(server.url)
        for earlier_entries, results, earlier_flags in earlier_runs:
            write_manifest(shell, earlier_entries, once_per)
            api.posts = [
                RESULTS.get(result) or created(f"job-{api.created_count}-{index}")
                for index, result in enumerate(results)
            ]
            shell.call("run", "nightly.yaml", "--hold", *earlier_flags)
        api.posts = []
        write_manifest(shell, entries, once_per)
        files_before, posts_before = snapshot(shell.directory), len(post_requests(server))
        plan_result = shell.call("plan", "nightly.yaml", "--format", "json", *flag)
        assert (snapshot(shell.directory), len(post_requests(server))) == (files_before, posts_before)
        run_result = shell.call("run", "nightly.yaml", "--hold", *flag)
        submitted_pairs = Counter(
            f"{request.workflow}/{request.project}" for request in post_requests(server)[posts_before:]
        )
    if plan_result.code:
        assert (run_result.code, submitted_pairs) == (plan_result.code, Counter())
        assert error_lines(run_result) == error_lines(plan_result)
        return
    preview_document = parse_document(plan_result)
    planned_submissions = [job for job in preview_document["jobs"] if job["action"] == "submit"]
    assert run_result.code in (0, 1, 3)
    assert submitted_pairs == Counter(f"{job['workflow_id']}/{job['project_id']}" for job in planned_submissions)
