"""`status` and `run --wait`, in scripts and on a terminal, checked against the server's log of requests."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import disks, ledger_history
from support import shell as shells
from support.schemas import check_results, loads_strictly
from support.shell import KEY, CompletedCommand, Shell
from support.terminal import read_terminal, run_on_terminal
from support.wire import TIMEOUT, Drip, Request, Reset, Script, Stall, WireServer, created, refusing_port, reply

from runner.core.models import Job
from runner.core.text import display_width
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger
from runner.runs import record, results_file, summary

SOON = 10.0  # seconds: what a slow machine may need for an immediate exit

# The command, with a shorter interval between polls.
COMMAND = """
import os, sys
from runner.runs import job_status
from runner.cli.main import main
job_status._FIRST_INTERVAL = float(os.environ.get("PAUSE", "0.02"))
sys.exit(main())
"""

RUN = "20261020T010000Z-aaaaaa"
JOBS = tuple(
    Job(f"field-{letter}", workflow, f"p-{letter}") for letter, workflow in (("a", "w-1"), ("b", "w-1"), ("c", "w-2"))
)
OTHERS = (Job("field-z", "w-3", "p-z"),)
A, B, C = (f"job-of-{job.project_id}" for job in JOBS)
LIST = "w-1/jobs"
ALL = [LIST, f"w-2/jobs/{C}"]  # the requests for all three jobs


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(shells, "command", command)
    shell = Shell(tmp_path)
    shell.manifest(*((job.name, job.workflow_id, job.project_id) for job in JOBS))
    return shell


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-P", "-c", COMMAND, *map(str, arguments)]


class Api:
    """An API whose jobs take the next of their statuses each time they are read. The last status stays.

    `instead` has scripts for paths with these endings. `before_get` is called before the response to each GET.
    """

    def __init__(
        self, a: str = "running", b: str = "running", c: str = "running", *, instead: dict[str, Script] | None = None
    ) -> None:
        self.statuses = {A: a.split(), B: b.split(), C: c.split()}
        self.instead = instead or {}
        self.extra: dict[str, dict[str, Any]] = {}  # further members, by job
        self.posts: dict[str, Script] = {}  # by project
        self.expected_projects: list[str] = []  # those that `run` may create jobs in
        self.before_get: Callable[[], None] = lambda: None

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            return self.posts.get(request.project) or created(f"job-of-{request.project}")
        self.before_get()
        script = next((script for suffix, script in self.instead.items() if request.target.endswith(suffix)), None)
        if script is not None:
            return script
        name = request.target.rpartition("/")[2]
        if name == "jobs":
            jobs = [job for job in JOBS if job.workflow_id == request.workflow]
            listed = [self._job(f"job-of-{job.project_id}") for job in jobs]
            return reply(200, json.dumps({"jobs": listed}).encode())
        tasks = [{"name": "Analyze", "failure_type": "INPUT", "err_msg": "no imagery"}]
        failed = self.statuses[name][0] == "failed"
        return reply(200, json.dumps({**self._job(name), "tasks": tasks if failed else []}).encode())

    def _job(self, job_id: str) -> dict[str, Any]:
        statuses = self.statuses[job_id]
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return {"id": job_id, "status": status, "cost": 10, **self.extra.get(job_id, {})}


@contextmanager
def serving(shell: Shell, api: Api, port: int = 0) -> Iterator[WireServer]:
    """Serve the API to the shell. Fails if it was asked to create any job but those that `run` may create."""
    with WireServer(choose=api, port=port) as server:
        shell.use_api(server.url)
        yield server
    assert sorted(request.project for request in server.requests if request.method != "GET") == sorted(
        api.expected_projects
    )


def get_paths(server: WireServer) -> list[str]:
    """The paths of all GETs, sorted."""
    return sorted(
        request.target.removeprefix("/v0/workflows/") for request in server.requests if request.method == "GET"
    )


def write_run(shell: Shell, api: str, jobs: Sequence[Job] = JOBS, run_id: str = RUN, name: str = "nightly") -> None:
    """Write a run that created all of its jobs to the ledger. Creates the ledger if there is none."""
    if not shell.ledger.exists():
        shell.ledger.parent.mkdir()
        create_ledger(shell.ledger)
    with Ledger(shell.ledger) as ledger:
        path = str(shell.directory / f"{name}.yaml")
        run = ledger_history.start_run(ledger, run_id, jobs, api=api, manifest=name, path=path)
        for job in jobs:
            job_id = f"job-of-{job.project_id}"
            ledger_history.send(
                ledger,
                run,
                job,
                ledger_history.created(job_id, b'{"id": "%b", "status": "accepted"}' % job_id.encode()),
            )


def write_results(shell: Shell) -> Path:
    """Write the results file of the ledger's last run."""
    path = shell.directory / "nightly.results.json"
    with Ledger(shell.ledger) as ledger:
        results_file.write(summary.summarize(record.load_record(ledger, next(ledger.runs()))), path)
    return path


def submit(shell: Shell, api: Api, *arguments: str) -> CompletedCommand:
    """Run the manifest, which creates all three jobs."""
    api.expected_projects = [job.project_id for job in JOBS]
    return shell("run", "nightly.yaml", *arguments)


def statuses(done: CompletedCommand) -> dict[str, str]:
    """The status column of the table, by job."""
    titles, _, *lines = done.out.partition("\n\n")[0].splitlines()
    column = titles.index("status")
    return {line.split()[0]: line[column:].split("  ")[0].strip() for line in lines}


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read stderr up to and including the first line that contains the text."""
    assert process.stderr is not None
    output = ""
    for line in process.stderr:
        output += line
        if text in line:
            return output
    pytest.fail(f"stderr ended without {text!r}: {output}")


# Which run


@pytest.mark.parametrize(
    "target",
    [[], [RUN], [RUN[:18]], ["nightly.yaml"], ["nightly"], ["nightly.results.json"]],
    ids=["last", "id", "start-of-id", "manifest", "name", "results"],
)
def test_run_can_be_named_in_several_ways(shell: Shell, target: list[str]) -> None:
    api = Api(a="completed", b="running", c="failed")
    with serving(shell, api) as server:
        write_run(shell, server.url)
        write_results(shell)
        if target:  # then the last run is another one
            write_run(shell, server.url, OTHERS, "20261020T020000Z-bbbbbb", "other")
        done = shell("status", *target)
        assert get_paths(server) == ALL
    assert statuses(done) == {"field-a": "completed", "field-b": "running", "field-c": "failed"}
    assert done.code == 1
    assert f"run {RUN} of nightly at {server.url}" in done.err
    assert "\n3 jobs: 1 completed, 1 running, 1 failed · cost 30\n" in done.out
    assert "INPUT: no imagery" in done.out


def test_manifest_means_its_last_run(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        write_run(shell, server.url, JOBS[:2])
        write_run(shell, server.url, JOBS[2:], "20261020T020000Z-bbbbbb")
        assert statuses(shell("status", "nightly.yaml")) == {"field-c": "running"}
        assert statuses(shell("status", "20261020T01")) == {"field-a": "running", "field-b": "running"}


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("20261020T", 2, "2 runs start with '20261020T'"),
        ("20991231", 2, "'20991231' is not a run id, a results file or a manifest"),
        ("none.yaml", 2, "there is no file 'none.yaml', and no run with that id"),
        ("broken.json", 2, "the results file broken.json cannot be read"),
        ("list.json", 2, "list.json"),
    ],
)
def test_unknown_run(shell: Shell, target: str, code: int, message: str) -> None:
    shell.write("broken.json", '{"run": {}, "created": [], "errors": []}')
    shell.write("list.json", "[]")
    with serving(shell, Api()) as server:
        write_run(shell, server.url)
        write_run(shell, server.url, OTHERS, "20261020T020000Z-bbbbbb")
        done = shell("status", target)
        assert (done.code, done.out, get_paths(server)) == (code, "", [])
    assert message in done.err


def test_missing_ledger(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        done = shell("status")
        assert (done.code, done.out, get_paths(server)) == (4, "", [])
    assert "there is no ledger at" in done.err
    assert not shell.ledger.exists()


def test_jobs_not_created_are_counted(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        write_run(shell, server.url, OTHERS)
        with Ledger(shell.ledger) as ledger:
            run = ledger_history.start_run(ledger, "20261020T020000Z-bbbbbb", JOBS, api=server.url, end="stopped")
            ledger_history.send(ledger, run, JOBS[0], ledger_history.created(A))
            ledger_history.send(ledger, run, JOBS[1], ledger_history.in_doubt())
        done = shell("status")
    assert statuses(done) == {"field-a": "running"}
    assert "not at the API: 1 skipped; 1 in doubt (see pixxel-runner show)" in done.out


def test_run_in_progress_shows_its_jobs_so_far(shell: Shell) -> None:
    gate, api = threading.Event(), Api()
    api.posts["p-c"] = Stall(gate, then=created(C))
    api.expected_projects = [job.project_id for job in JOBS]
    with serving(shell, api) as server, shell.start("run", "nightly.yaml", "--verbose") as process:
        for _ in range(2):
            read_until(process, ": created")
        server.wait_for_requests(3)
        done = shell("status")
        gate.set()
        process.communicate(timeout=TIMEOUT)
    assert statuses(done) == {"field-a": "running", "field-b": "running"}
    assert "is in progress; these are its jobs so far; locked by" in done.err
    assert "in doubt" not in done.out


# Which API


def test_results_file_works_without_a_ledger(shell: Shell) -> None:
    with serving(shell, Api(a="completed")) as server:
        write_run(shell, server.url)
        path = write_results(shell)
        elsewhere = Shell(shell.directory / "elsewhere", shell.environment)
        elsewhere.write("r.json", path.read_text(encoding="utf-8"))
        done = elsewhere("status", "r.json")
        assert get_paths(server) == ALL
    assert statuses(done) == {"field-a": "completed", "field-b": "running", "field-c": "running"}
    assert [item.name for item in elsewhere.directory.iterdir()] == ["r.json"]


def test_base_url_in_a_results_file_is_never_contacted(shell: Shell) -> None:
    with WireServer() as other, serving(shell, Api()) as configured:
        write_run(shell, other.url)
        path = write_results(shell)
        with_ledger = shell("status", path)
        shell.ledger.unlink()
        without_ledger = shell("status", path, "--wait")
        assert (other.log.connections, configured.log.connections) == (0, 0)
    for done in (with_ledger, without_ledger):
        assert (done.code, done.out) == (2, "")
        assert f"used {other.url}, but this command would call {configured.url}" in done.err
        assert f"To call the API of the run: --base-url {other.url}" in done.err


def test_forged_base_url_in_a_results_file_does_not_receive_the_key(shell: Shell) -> None:
    with WireServer(choose=lambda _: reply(404)) as other, serving(shell, Api()) as configured:
        write_run(shell, configured.url)
        path = write_results(shell)
        document = json.loads(path.read_text(encoding="utf-8"))
        document["run"]["base_url"] = other.url
        path.write_text(json.dumps(document), encoding="utf-8")
        done = shell("status", path)
        assert (done.code, other.log.connections, configured.log.connections) == (2, 0, 0)
        # With an explicit --base-url, it is used.
        confirmed = shell("status", path, "--base-url", other.url)
        assert (confirmed.code, get_paths(other), configured.log.connections) == (4, ALL, 0)


def test_run_at_another_api_sends_no_request(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        write_run(shell, "https://elsewhere.example")
        done = shell("status")
        assert (done.code, server.log.connections) == (2, 0)
    assert "https://elsewhere.example" in done.err


def test_sandbox_jobs_are_found_from_another_directory(shell: Shell) -> None:
    shell.manifest(*((job.name, job.workflow_id, job.project_id) for job in JOBS), path="sub/nightly.yaml")
    subdirectory = Shell(shell.directory / "sub")
    assert subdirectory("run", "nightly.yaml", "--sandbox").code == 0
    for done in (
        subdirectory("status", "--sandbox"),
        shell("status", "sub/nightly.yaml", "--sandbox"),
        shell("status", "sub/nightly.sandbox.results.json", "--sandbox"),
    ):
        assert done.code == 0, done.err
        assert set(statuses(done).values()) <= {"pending", "running", "completed"}
    assert not (shell.directory / ".pixxel-runner").exists()


# How many requests


def test_one_request_per_workflow(shell: Shell) -> None:
    jobs = [Job(f"{w}-{n}", f"w-{w}", f"{w}-{n}") for w in range(20) for n in range(5)]

    def choose(request: Request) -> Script:
        number = request.workflow.removeprefix("w-")
        listed = [{"id": f"job-of-{number}-{n}", "status": "running"} for n in range(5)]
        return reply(200, json.dumps({"jobs": listed}).encode())

    with WireServer(choose=choose) as server:
        shell.use_api(server.url)
        write_run(shell, server.url, jobs)
        done = shell("status")
        assert get_paths(server) == sorted(f"w-{n}/jobs" for n in range(20))
        assert {request.method for request in server.requests} == {"GET"}
        assert {request.headers["authorization"] for request in server.requests} == {KEY}
    assert (done.code, set(statuses(done).values())) == (0, {"running"})


def test_final_statuses_are_saved_and_not_requested_again(shell: Shell) -> None:
    with serving(shell, Api(a="completed", b="failed", c="cancelled")) as server:
        write_run(shell, server.url)
        write_results(shell)
        first = shell("status")
        before = get_paths(server)
        assert before == sorted([*ALL, f"w-1/jobs/{B}"])
        shell.use_api(server.url, key=None)
        second, show, show_results = shell("status"), shell("show"), shell("show", "--results", "again.json")
        wait = shell("status", "--wait", "--format", "json")
        from_file = shell("status", "nightly.results.json")  # older than the ledger
        assert (get_paths(server), server.log.connections) == (
            before,
            len({request.connection for request in server.requests}),
        )
    assert (first.code, second.code, show.code, show_results.code, wait.code) == (1, 1, 0, 0, 1)
    assert first.out == second.out == from_file.out
    assert statuses(show) == {"field-a": "completed", "field-b": "failed", "field-c": "cancelled"}
    results = check_results(shell.directory / "again.json")
    assert [job["job"]["status"] for job in results["created"]] == ["completed", "failed", "cancelled"]
    assert results["created"][1]["job"]["tasks"][0]["err_msg"] == "no imagery"
    assert all(job["seen_at"] for job in results["created"])
    assert results["summary"]["cost"] == 30
    assert [job["seen_at"] for job in json.loads(wait.out)["jobs"]] == [job["seen_at"] for job in results["created"]]


def test_read_only_ledger_is_read(shell: Shell) -> None:
    api = Api("completed", "running running completed")
    with disks.mounted(shell.directory / "disk") as disk, serving(shell, api) as server:
        workspace = Shell(disk.root, shell.environment)
        write_run(workspace, server.url)
        with disk.read_only():
            first, second = workspace("status"), workspace("status", "--wait", "--wait-timeout", "0.5")
        assert get_paths(server).count(LIST) == 2  # the final status of the first time was not saved
    assert (first.code, statuses(first)["field-a"]) == (0, "completed")
    assert "warning: final statuses could not be saved to the ledger: " in first.err
    # One warning, below everything that is redrawn.
    assert (second.code, second.err.count("could not be saved to the ledger")) == (6, 1)
    assert "could not be saved to the ledger" in second.err.splitlines()[-1]


# Exit codes and output


@pytest.mark.parametrize(
    ("job_statuses", "instead", "code", "message"),
    [
        (("running", "running", "running"), {}, 0, ""),
        (("completed", "completed", "completed"), {}, 0, ""),
        (("completed", "completed", "failed"), {}, 1, ""),
        (("running", "canceled", "running"), {}, 1, ""),
        (("running", "failed", "running"), {LIST: reply(200, b"?")}, 1, ""),
        (("running", "running", ""), {C: reply(404)}, 4, "the status of 1 job is unknown: HTTP 404"),
        (("", "", "running"), {LIST: reply(500)}, 4, "the status of 2 jobs is unknown; first error: HTTP 500"),
        (
            ("", "", "running"),
            {LIST: reply(401)},
            4,
            "error: HTTP 401 Unauthorized: the API does not recognize the key",
        ),
        (("", "", "failed"), {LIST: Reset()}, 4, "the status of 2 jobs is unknown; first error: the connection"),
        (("", "", "running"), {LIST: reply(429, headers=[("Retry-After", "200")])}, 4, "HTTP 429 Too Many Requests"),
    ],
    ids=[
        "active",
        "completed",
        "failed",
        "cancelled",
        "invalid-list",
        "not-found",
        "error",
        "key",
        "reset",
        "throttled",
    ],
)
def test_exit_codes(
    shell: Shell, job_statuses: tuple[str, ...], instead: dict[str, Script], code: int, message: str
) -> None:
    with serving(shell, Api(*job_statuses, instead=instead)) as server:
        write_run(shell, server.url)
        start = time.monotonic()
        done = shell("status", "--attempts", "1")
        assert time.monotonic() - start < SOON
    assert (done.code, message in done.err) == (code, True), done.err
    assert KEY not in done.out + done.err


def test_unknown_final_status_is_exit_4(shell: Shell) -> None:
    api = Api(a="completed", b="completed", c="sublimated")
    api.extra[C] = {"finished_at": "2026-10-20T02:00:00Z"}
    with serving(shell, api) as server:
        write_run(shell, server.url)
        done = shell("status", "--wait")
    assert (done.code, statuses(done)["field-c"]) == (4, "sublimated")


def test_unreachable_api_is_exit_4(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        write_run(shell, server.url)
    done = shell("status", "--attempts", "1")
    assert (done.code, statuses(done)["field-a"]) == (4, "unknown")
    assert "the status of 3 jobs is unknown; first error: cannot connect" in done.err


def test_missing_key_sends_no_request(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        write_run(shell, server.url)
        shell.use_api(server.url, key=None)
        done = shell("status")
        assert (done.code, done.out, server.log.connections) == (4, "", 0)
    assert "no API key" in done.err


def test_quiet_prints_only_problems(shell: Shell) -> None:
    with serving(shell, Api(a="running failed", b="completed", c="completed")) as server:
        write_run(shell, server.url)
        active, failed = shell("status", "--quiet"), shell("status", "--wait", "--quiet")
    assert (active.code, active.out, active.err) == (0, "", "")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err == "nightly: 3 jobs: 2 completed, 1 failed · cost 30\n"


def test_output_formats(shell: Shell) -> None:
    with serving(shell, Api(a="completed", b="failed")) as server:
        write_run(shell, server.url)
        outputs = {name: shell("status", "--format", name).out for name in ("table", "markdown", "csv", "json")}
    assert outputs["table"].splitlines()[1].startswith("-------  ------")
    assert outputs["markdown"].splitlines()[1].startswith("| --- | --- |")
    assert [row["status"] for row in csv.DictReader(io.StringIO(outputs["csv"]))] == ["completed", "failed", "running"]
    document = loads_strictly(outputs["json"])
    assert [job["final"] for job in document["jobs"]] == [True, True, False]
    assert document["summary"] == {"statuses": {"completed": 1, "failed": 1, "running": 1}, "cost": 30}
    assert document["jobs"][1]["errors"] == ["Analyze: INPUT: no imagery"]


HOSTILE = "\x1b[2J\x1b]0;x\x07\r\n::error::x\n##[add-mask]y\u202e|<b>\x9b"


def test_text_from_the_server_is_escaped(shell: Shell) -> None:
    api = Api()
    api.statuses = {A: [f"::error::{HOSTILE}"], B: ["failed"], C: ["running"]}
    task = {"name": HOSTILE, "failure_type": HOSTILE, "err_msg": HOSTILE}
    api.extra = {A: {"progress": HOSTILE, "time_taken": HOSTILE}}
    api.instead = {
        B: reply(200, json.dumps({"id": B, "status": "failed", "tasks": [task]}).encode()),
        C: reply(404, json.dumps({"error": {"code": HOSTILE, "message": HOSTILE}}).encode()),
    }
    names = (f"::error::{HOSTILE}", ":", "field-c")
    jobs = [Job(name, job.workflow_id, job.project_id) for name, job in zip(names, JOBS, strict=True)]
    with serving(shell, api) as server:
        write_run(shell, server.url, jobs)
        wait = shell("status", "--wait", "--wait-timeout", "0")  # first: later, final statuses are no changes
        table, markdown, as_csv, as_json = (
            shell("status", "--format", name) for name in ("table", "markdown", "csv", "json")
        )
    assert (wait.code, len(wait.err.splitlines())) == (6, 6)
    assert [done.code for done in (table, markdown, as_csv, as_json)] == [4] * 4
    for done in (wait, table, markdown, as_csv, as_json):
        text = done.out.replace("\r\n", "\n") + done.err  # line ends of CSV
        assert not set(text) & {"\x1b", "\x07", "\r", "\u202e", "\x9b"}
        assert not [line for line in text.splitlines() if line.lstrip().startswith("::") or "##[" in line]
    assert "<b>" not in markdown.out
    assert json.loads(as_json.out)["jobs"][0]["status"] == f"::error::{HOSTILE}"


# Stalled responses


@pytest.mark.parametrize("stalled", [(LIST,), (C,), (LIST, C)], ids=["list", "job", "both"])
@pytest.mark.parametrize("how", ["silent", "dripping"])
def test_stalled_server_is_limited_by_the_timeout(shell: Shell, stalled: tuple[str, ...], how: str) -> None:
    drip = Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"{" * 100, 0.2)
    script = Stall(threading.Event()) if how == "silent" else drip
    with serving(shell, Api(instead=dict.fromkeys(stalled, script))) as server:
        write_run(shell, server.url)
        start = time.monotonic()
        done = shell("status", "--timeout", "1")
        assert 1 <= time.monotonic() - start < SOON
    affected = {LIST: {"field-a", "field-b"}, C: {"field-c"}}
    unknown = set[str]().union(*(affected[path] for path in stalled))
    assert done.code == 4
    assert {name for name, status in statuses(done).items() if status != "running"} == unknown


def test_stalled_request_for_the_reason_does_not_matter(shell: Shell) -> None:
    with serving(shell, Api("failed", instead={A: Stall(threading.Event())})) as server:
        write_run(shell, server.url)
        start = time.monotonic()
        done = shell("status", "--timeout", "1")
        assert 1 <= time.monotonic() - start < SOON
    assert (done.code, statuses(done)) == (1, {"field-a": "failed", "field-b": "running", "field-c": "running"})


# `status --wait`


def test_each_change_prints_a_line(shell: Shell) -> None:
    api = Api(a="running completed", b="queued running failed", c="running running running running completed")
    with serving(shell, api) as server:
        write_run(shell, server.url)
        done = shell("status", "--wait")
        counts = [get_paths(server).count(path) for path in ("w-1/jobs", f"w-1/jobs/{B}", f"w-2/jobs/{C}")]
    assert done.err.splitlines() == [
        "field-a: running",
        "field-b: queued",
        "field-c: running",
        "field-a: completed",
        "field-b: running",
        "field-b: failed: Analyze: INPUT: no imagery",
        "field-c: completed",
        f"run {RUN} of nightly at {server.url}",
    ]
    assert (done.code, counts) == (1, [2, 1, 5])  # once A is completed, only B is left in its workflow
    assert statuses(done) == {"field-a": "completed", "field-b": "failed", "field-c": "completed"}


def test_all_completed_is_exit_0(shell: Shell) -> None:
    with serving(shell, Api("running completed", "completed", "running completed")) as server:
        write_run(shell, server.url)
        assert shell("status", "--wait").code == 0


def test_job_unknown_to_the_api_is_given_up(shell: Shell) -> None:
    with serving(shell, Api("completed", "completed", instead={C: reply(404)})) as server:
        write_run(shell, server.url)
        done = shell("status", "--wait")
        assert get_paths(server).count(f"w-2/jobs/{C}") == 12  # no other job is left to poll
    assert done.code == 4
    assert "the status of 1 job is unknown: HTTP 404" in done.err


def test_revoked_key_ends_the_wait(shell: Shell) -> None:
    api = Api()

    def revoke() -> None:
        if len(get_paths(server)) >= 2:
            api.instead |= dict.fromkeys(("w-1/jobs", C), reply(401))

    api.before_get = revoke
    with serving(shell, api) as server:
        write_run(shell, server.url)
        done = shell("status", "--wait")
    assert done.code == 4
    assert "error: HTTP 401" in done.err
    assert "Set PIXXEL_API_KEY or --api-key-file" in done.err


def test_wait_timeout_prints_a_command_that_waits_again(shell: Shell) -> None:
    api = Api("completed")
    with serving(shell, api) as server:
        write_run(shell, server.url)
        timed_out = shell("status", "nightly.yaml", "--wait", "--wait-timeout", "0.1", "--ledger", shell.ledger)
        assert (timed_out.code, statuses(timed_out)) == (
            6,
            {"field-a": "completed", "field-b": "running", "field-c": "running"},
        )
        match = re.search(
            r"timed out waiting; jobs are still running\. To wait again: pixxel-runner (.*)", timed_out.err
        )
        assert match, timed_out.err
        api.statuses = {job_id: ["completed"] for job_id in (A, B, C)}
        assert shell(*shlex.split(match[1])).code == 0


def test_command_that_waits_again_names_run_and_base_url(shell: Shell) -> None:
    api = Api()
    with serving(shell, api) as server:
        write_run(shell, server.url)
        timed_out = shell("status", "--wait", "--wait-timeout", "0", "--base-url", server.url)
        command = timed_out.err.partition("To wait again: pixxel-runner ")[2].splitlines()[0]
        assert command == f"status {RUN} --base-url {server.url} --wait"
        api.statuses = {job_id: ["completed"] for job_id in (A, B, C)}
        assert shell(*shlex.split(command)).code == 0


def test_wait_survives_a_restart_of_the_server(shell: Shell) -> None:
    api = Api()
    with refusing_port() as port, ExitStack() as stack:
        server = stack.enter_context(serving(shell, api, port))
        write_run(shell, server.url)
        with shell.start("status", "--wait", "--attempts", "1") as process:
            read_until(process, "field-c: running")
            stack.close()
            read_until(process, "field-c: status unknown: cannot connect")
            api.statuses = {job_id: ["completed"] for job_id in (A, B, C)}
            with serving(shell, api, port) as restarted:
                out, err = process.communicate(timeout=TIMEOUT)
                assert get_paths(restarted) == ALL
    assert (process.returncode, out.count("completed")) == (0, 4)
    assert "field-a: completed" in err
    assert "not known" not in err.partition("field-a: completed")[2]


def test_second_wait_continues_after_a_kill(shell: Shell) -> None:
    api = Api("completed", "running running completed", "running running running completed")
    shell.environment["PAUSE"] = "600"
    with serving(shell, api) as server:
        write_run(shell, server.url)
        with shell.start("status", "--wait") as process:
            read_until(process, "field-c: running")
            process.kill()
            process.wait(TIMEOUT)
        before = len(get_paths(server))
        shell.environment["PAUSE"] = "0.01"
        done = shell("status", "--wait")
        after = [request.target.removeprefix("/v0/workflows/") for request in server.requests][before:]
    assert done.code == 0
    assert set(after) == {f"w-1/jobs/{B}", f"w-2/jobs/{C}"}
    assert "field-a: " not in done.err
    assert statuses(done) == dict.fromkeys(("field-a", "field-b", "field-c"), "completed")


SIGNALS = pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@SIGNALS
@pytest.mark.parametrize("phase", ["between polls", "during a poll"])
def test_signal_ends_the_wait_and_jobs_continue(shell: Shell, phase: str, signum: int, code: int) -> None:
    api = Api(instead={C: Stall(threading.Event())} if phase == "during a poll" else {})
    shell.environment["PAUSE"] = "600"
    with serving(shell, api) as server:
        write_run(shell, server.url)
        with shell.start("status", "--wait") as process:
            output = read_until(process, "field-c: running") if phase == "between polls" else ""
            server.wait_for_requests(2)
            process.send_signal(signum)
            start = time.monotonic()
            out, err = process.communicate(timeout=TIMEOUT)
            assert time.monotonic() - start < SOON
        assert len(server.requests) == 2
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in output + err
    assert f"the jobs continue at the API. To wait again: pixxel-runner status {RUN} --wait" in err


# On a terminal


@dataclass
class Screen:
    """A terminal with the sequences that the program uses. Fails if a line is too long, or the cursor leaves it."""

    columns: int
    rows: int
    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    frames: int = 1

    def show(self, text: str) -> None:
        for match in re.finditer(r"\x1b\[([0-9;]*)([A-Za-z])|\r?\n|[^\x1b\r\n]+|.", text, re.DOTALL):
            self._apply(match)

    def _apply(self, match: re.Match[str]) -> None:
        match match[2], match[0]:
            case "m", _:
                pass
            case "F", _:
                self.row -= int(match[1])
                assert self.row >= max(0, len(self.lines) - self.rows)
            case "J", _:
                self.lines[self.row :] = [""]
                self.frames += 1
            case None, "\n" | "\r\n":
                self.row += 1
                self.lines.append("")
                assert self.row == len(self.lines) - 1
            case None, printable if "\x1b" not in printable and "\r" not in printable:
                self.lines[self.row] += printable
                assert display_width(self.lines[self.row]) <= self.columns, self.lines[self.row]
            case _:
                pytest.fail(f"unexpected output {match[0]!r}")


def wait_on_terminal(shell: Shell, size: tuple[int, int], *arguments: str) -> tuple[Screen, int, str]:
    """Run `status --wait` to its end. Returns the screen, the exit code, and stdout, which is a pipe."""
    with run_on_terminal(shell, "status", "--wait", *arguments, size=size, out=subprocess.PIPE) as (process, tty):
        text = read_terminal(tty)
        assert process.stdout is not None
        out = process.stdout.read().decode()
        code = process.wait(TIMEOUT)
    screen = Screen(*size)
    screen.show(text.partition(f"run {RUN} of")[0])  # messages after the table may wrap
    return screen, code, out


@pytest.mark.parametrize("columns", [200, 80, 40, 24, 14])
def test_table_is_redrawn_in_place(shell: Shell, columns: int) -> None:
    api = Api("running completed", "queued running failed", "running running running completed")
    with serving(shell, api) as server:
        write_run(shell, server.url)
        screen, code, out = wait_on_terminal(shell, (columns, 24))
    assert (code, screen.frames) == (1, 4)
    table = screen.lines[:4]
    assert table[3].startswith("3 jobs: 2 c")
    assert [line.split()[-1] for line in (table[0], table[2])] == ["completed"] * 2
    if columns >= 24:
        assert [line.split()[0] for line in table[:3]] == ["field-a", "field-b", "field-c"]
        assert "\n".join(screen.lines).count("field-a") == 1
    if columns >= 80:
        assert table[1] == "field-b  failed: Analyze: INPUT: no imagery"
    assert out.splitlines()[0].startswith("job      job id ")  # a pipe gets whole lines


def test_active_jobs_come_first_in_a_truncated_table(shell: Shell) -> None:
    jobs = [Job(f"j-{number:02}", "w", f"{number:02}") for number in range(30)]
    polls: list[int] = []

    def choose(_request: Request) -> Script:
        polls.append(1)
        active = {28, 29} if len(polls) == 2 else set[int]()
        job_statuses = ["running" if len(polls) == 1 or number in active else "completed" for number in range(30)]
        listed = [{"id": f"job-of-{number:02}", "status": status} for number, status in enumerate(job_statuses)]
        return reply(200, json.dumps({"jobs": listed}).encode())

    with WireServer(choose=choose) as server:
        shell.use_api(server.url)
        write_run(shell, server.url, jobs)
        with run_on_terminal(shell, "status", "--wait", size=(60, 10), out=subprocess.PIPE) as (process, tty):
            text = read_terminal(tty)
            assert process.wait(TIMEOUT) == 0
    screen = Screen(60, 10)
    first, second, third = text.split("\x1b[J")
    screen.show(first)
    assert [line.split() for line in screen.lines[:7]] == [[f"j-{number:02}", "running"] for number in range(7)]
    assert screen.lines[7:] == ["30 jobs: 30 running · cost 0 (23 not shown)", ""]
    screen.show(f"\x1b[J{second}")
    assert [line.split() for line in screen.lines[:2]] == [["j-28", "running"], ["j-29", "running"]]
    screen.show(f"\x1b[J{third.partition(f'run {RUN} of')[0]}")
    assert len([line for line in screen.lines if line.startswith("30 jobs: ")]) == 1


def test_wide_characters_keep_columns_aligned(shell: Shell) -> None:
    names = ("圃場の名前がとても長い圃場", "a", "名")
    jobs = [Job(name, job.workflow_id, job.project_id) for name, job in zip(names, JOBS, strict=True)]
    with serving(shell, Api("completed", "completed", "completed")) as server:
        write_run(shell, server.url, jobs)
        screen, code, _ = wait_on_terminal(shell, (40, 24))
    assert code == 0
    assert screen.lines[:3] == [
        "圃場の名前がとても…  completed",
        "a                    completed",
        "名                   completed",
    ]


def test_hostile_text_does_not_break_the_table(shell: Shell) -> None:
    api = Api()
    api.statuses = {A: [f"run{HOSTILE}", "completed"], B: ["completed"], C: ["completed"]}
    with serving(shell, api) as server:
        write_run(shell, server.url)
        screen, code, _ = wait_on_terminal(shell, (60, 24))
    assert (code, screen.frames) == (0, 2)
    assert screen.lines[0] == "field-a  completed"


def test_color_option(shell: Shell) -> None:
    with serving(shell, Api("completed", "failed", "completed")) as server:
        write_run(shell, server.url)
        texts = []
        for color in ("auto", "never"):
            with run_on_terminal(shell, "status", "--wait", "--color", color, out=subprocess.PIPE) as (_, tty):
                texts.append(read_terminal(tty))
            shell.ledger.unlink()
            shell.ledger.parent.rmdir()
            write_run(shell, server.url)
    assert "\x1b[31mfailed" in texts[0]
    assert "\x1b[" not in texts[1]


def test_dumb_terminal_gets_lines(shell: Shell) -> None:
    shell.environment["TERM"] = "dumb"
    with serving(shell, Api("running completed", "completed", "completed")) as server:
        write_run(shell, server.url)
        with run_on_terminal(shell, "status", "--wait", "--color", "never", out=subprocess.PIPE) as (_, tty):
            text = read_terminal(tty)
    assert "\x1b" not in text
    assert text.splitlines()[:4] == [
        "field-a: running",
        "field-b: completed",
        "field-c: completed",
        "field-a: completed",
    ]


def test_quiet_draws_nothing(shell: Shell) -> None:
    with serving(shell, Api("running completed", "completed", "completed")) as server:
        write_run(shell, server.url)
        screen, code, out = wait_on_terminal(shell, (80, 24), "--quiet")
    assert (code, screen.lines, out) == (0, [""], "")


def test_ctrl_c_ends_the_wait_and_jobs_continue(shell: Shell) -> None:
    shell.environment["PAUSE"] = "600"
    with serving(shell, Api()) as server:
        write_run(shell, server.url)
        with run_on_terminal(shell, "status", "--wait", size=(120, 24)) as (process, tty):
            read_terminal(tty, "3 jobs: 3 running")
            os.write(tty, b"\x03")
            text = read_terminal(tty)
            assert process.wait(TIMEOUT) == 130
        assert get_paths(server) == ALL
    assert f"stopped waiting; the jobs continue at the API. To wait again: pixxel-runner status {RUN} --wait" in text
    assert "Traceback" not in text


# `run --wait`


def test_run_wait_updates_the_results_file(shell: Shell) -> None:
    api, path = (
        Api("running completed", "running completed", "running completed"),
        shell.directory / "nightly.results.json",
    )
    snapshots: list[dict[str, Any]] = []
    api.before_get = lambda: snapshots.append(check_results(path))
    with serving(shell, api) as server:
        done = submit(shell, api, "--wait")
        assert len(snapshots) == len(get_paths(server)) == 4
    assert (done.code, snapshots[0] == snapshots[-1]) == (0, True)
    assert [(job["seen_at"], job["job"]["status"]) for job in snapshots[0]["created"]] == [(None, "accepted")] * 3
    after = check_results(path)
    assert [job["job"]["status"] for job in after["created"]] == ["completed"] * 3
    assert all(job["seen_at"] >= after["run"]["finished_at"] for job in after["created"])
    assert after["run"] == snapshots[0]["run"]
    assert after["run"]["state"] == "completed"
    assert after["summary"] == {**snapshots[0]["summary"], "cost": 30, "projects": after["summary"]["projects"]}
    assert "field-a: completed" in done.err
    assert "results: nightly.results.json" in done.err
    assert statuses(done) == dict.fromkeys(("field-a", "field-b", "field-c"), "completed")


@pytest.mark.parametrize(
    ("job_statuses", "instead", "arguments", "code", "message"),
    [
        (("failed", "completed"), {}, (), 1, "status of nightly: 3 jobs, 2 completed, 1 failed · cost 30"),
        (("completed", "completed"), {C: reply(404)}, (), 4, "the status of 1 job is unknown: HTTP"),
        (("", ""), {LIST: reply(401)}, (), 4, "error: HTTP 401 Unauthorized: the API does not recognize the key"),
        (("running", "completed"), {}, ("--wait-timeout", "0"), 6, "again: pixxel-runner status nightly.yaml --wait"),
    ],
    ids=["failed", "not-found", "key", "timeout"],
)
def test_run_wait_exit_codes(
    shell: Shell,
    job_statuses: tuple[str, str],
    instead: dict[str, Script],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    api = Api(*job_statuses, "completed", instead=instead)
    with serving(shell, api):
        done = submit(shell, api, "--wait", "--quiet", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert len(check_results(shell.directory / "nightly.results.json")["created"]) == 3


def test_doubt_outranks_failed_jobs_in_the_exit_code(shell: Shell) -> None:
    api = Api("completed", "failed")
    api.posts["p-c"] = Reset()
    with serving(shell, api):
        done = submit(shell, api, "--wait", "--hold")
    assert done.code == 3
    assert statuses(done) == {"field-a": "completed", "field-b": "failed", "field-c": ""}


def test_run_wait_without_created_jobs_sends_no_request(shell: Shell) -> None:
    api = Api()
    api.posts = {job.project_id: reply(400) for job in JOBS}
    with serving(shell, api) as server:
        done = submit(shell, api, "--wait")
        assert get_paths(server) == []
    assert done.code == 1


def test_run_wait_includes_jobs_of_an_earlier_run(shell: Shell) -> None:
    api = Api("completed", "completed", "completed")
    with serving(shell, api) as server:
        submit(shell, api)
        done = shell("run", "nightly.yaml", "--wait")
        assert get_paths(server) == ALL
    assert done.code == 0
    assert statuses(done) == dict.fromkeys(("field-a", "field-b", "field-c"), "completed")


def test_lock_is_released_while_waiting(shell: Shell) -> None:
    gate = threading.Event()
    done = reply(200, b'{"id": "%b", "status": "completed"}' % C.encode())
    api = Api("completed", "completed", instead={C: Stall(gate, then=done)})
    api.expected_projects = [job.project_id for job in JOBS]
    with serving(shell, api) as server, shell.start("run", "nightly.yaml", "--wait") as process:
        server.wait_for_requests(5)
        second = shell("run", "nightly.yaml")
        gate.set()
        process.communicate(timeout=TIMEOUT)
    assert (second.code, process.returncode) == (0, 0)
    assert "nightly: nothing to submit" in second.err


@SIGNALS
def test_signal_during_run_wait_keeps_the_results(shell: Shell, signum: int, code: int) -> None:
    api = Api("completed")
    api.expected_projects = [job.project_id for job in JOBS]
    shell.environment["PAUSE"] = "600"
    with serving(shell, api) as server, shell.start("run", "nightly.yaml", "--wait") as process:
        read_until(process, "field-c: running")
        process.send_signal(signum)
        start = time.monotonic()
        out, err = process.communicate(timeout=TIMEOUT)
        assert time.monotonic() - start < SOON
        assert len(server.requests) == 5
    assert process.returncode == code
    assert "the jobs continue at the API. To wait again: pixxel-runner status nightly.yaml --wait" in err
    assert "3 jobs: 3 created, 0 not created, 0 in doubt, 0 skipped" in out
    results = check_results(shell.directory / "nightly.results.json")
    assert results["run"]["state"] == "completed"
    assert [bool(job["seen_at"]) for job in results["created"]] == [True, False, False]


def test_run_wait_on_a_terminal_prints_the_run_table_after_the_live_one(shell: Shell) -> None:
    api = Api("running completed", "running completed", "running completed")
    api.expected_projects = [job.project_id for job in JOBS]
    with (
        serving(shell, api),
        run_on_terminal(shell, "run", "nightly.yaml", "--wait", size=(100, 40)) as (process, tty),
    ):
        text = read_terminal(tty)
        assert process.wait(TIMEOUT) == 0
    assert text.count("\x1b[J") == 1
    assert "3 jobs: 3 completed · cost 30" in text
    assert "3 jobs: 3 created, 0 not created, 0 in doubt, 0 skipped" in text.rpartition("3 jobs: 3 completed")[2]
