"""`status` and `run --wait` as a person and a script meet them. The server's own record is what is believed."""

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
from support import disks, past
from support import shell as shells
from support.schemas import check_results, loads_strictly
from support.shell import KEY, Done, Shell
from support.terminal import on_terminal, seen
from support.wire import PATIENCE, Drip, Request, Reset, Script, Stall, WireServer, created, refusing_port, reply

from runner.core.models import Job
from runner.core.text import display_width
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger
from runner.runs import record, results_file, summary

SOON = 3.0  # seconds that a slow machine may take for what a program does at once

# The command, but for the seconds between its looks: one and more are long for a test.
COMMAND = """
import os, sys
from runner.runs import job_status
from runner.cli.main import main
job_status._FIRST_PAUSE = float(os.environ.get("PAUSE", "0.02"))
sys.exit(main())
"""

RUN = "20261020T010000Z-aaaaaa"
JOBS = tuple(Job(f"field-{one}", workflow, f"p-{one}") for one, workflow in (("a", "w-1"), ("b", "w-1"), ("c", "w-2")))
OTHERS = (Job("field-z", "w-3", "p-z"),)
A, B, C = (f"job-of-{job.project_id}" for job in JOBS)
LIST = "w-1/jobs"
ALL = [LIST, f"w-2/jobs/{C}"]  # what is asked for all three


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Programs that are started have SIGINT as a terminal gives it, though these tests may run with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(shells, "command", command)
    one = Shell(tmp_path)
    one.manifest(*((job.name, job.workflow_id, job.project_id) for job in JOBS))
    return one


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-P", "-c", COMMAND, *map(str, arguments)]


class Api:
    """An API whose jobs are one word further each time that they are told; the last word stays.

    `instead` has what is answered to a path that ends so, and `told` is called before each answer to a GET.
    """

    def __init__(
        self, a: str = "running", b: str = "running", c: str = "running", *, instead: dict[str, Script] | None = None
    ) -> None:
        self.words = {A: a.split(), B: b.split(), C: c.split()}
        self.instead = instead or {}
        self.more: dict[str, dict[str, Any]] = {}  # members beside the status, by job
        self.posts: dict[str, Script] = {}  # by project
        self.bought: list[str] = []  # the projects of the jobs that `run` was to create
        self.told: Callable[[], None] = lambda: None

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            return self.posts.get(request.project) or created(f"job-of-{request.project}")
        self.told()
        script = next((one for end, one in self.instead.items() if request.target.endswith(end)), None)
        if script is not None:
            return script
        end = request.target.rpartition("/")[2]
        if end == "jobs":
            there = [job for job in JOBS if job.workflow_id == request.workflow]
            listed = [self._job(f"job-of-{job.project_id}") for job in there]
            return reply(200, json.dumps({"jobs": listed}).encode())
        tasks = [{"name": "Analyse", "failure_type": "INPUT", "err_msg": "no imagery"}]
        failed = self.words[end][0] == "failed"
        return reply(200, json.dumps({**self._job(end), "tasks": tasks if failed else []}).encode())

    def _job(self, job_id: str) -> dict[str, Any]:
        words = self.words[job_id]
        word = words.pop(0) if len(words) > 1 else words[0]
        return {"id": job_id, "status": word, "cost": 10, **self.more.get(job_id, {})}


@contextmanager
def serving(shell: Shell, api: Api, port: int = 0) -> Iterator[WireServer]:
    """The API of the shell. It must never have been asked to create anything but what `run` was to create."""
    with WireServer(choose=api, port=port) as server:
        shell.at(server.url)
        yield server
    assert sorted(one.project for one in server.requests if one.method != "GET") == sorted(api.bought)


def asked(server: WireServer) -> list[str]:
    """The paths of all GETs, in any order."""
    return sorted(one.target.removeprefix("/v0/workflows/") for one in server.requests if one.method == "GET")


def with_run(shell: Shell, api: str, jobs: Sequence[Job] = JOBS, run_id: str = RUN, name: str = "nightly") -> None:
    """Write a run that created all of its jobs into the ledger, which is made where there is none."""
    if not shell.ledger.exists():
        shell.ledger.parent.mkdir()
        create_ledger(shell.ledger)
    with Ledger(shell.ledger) as ledger:
        path = str(shell.folder / f"{name}.yaml")
        run = past.begin(ledger, run_id, jobs, api=api, manifest=name, path=path)
        for job in jobs:
            job_id = f"job-of-{job.project_id}"
            past.send(ledger, run, job, past.made(job_id, b'{"id": "%b", "status": "accepted"}' % job_id.encode()))


def write_results(shell: Shell) -> Path:
    """Write the results file of the ledger's last run."""
    path = shell.folder / "nightly.results.json"
    with Ledger(shell.ledger) as ledger:
        results_file.write(summary.summarize(record.load_record(ledger, next(ledger.runs()))), path)
    return path


def submit(shell: Shell, api: Api, *arguments: str) -> Done:
    """Run the manifest, which creates all three jobs."""
    api.bought = [job.project_id for job in JOBS]
    return shell("run", "nightly.yaml", *arguments)


def statuses(done: Done) -> dict[str, str]:
    """What stands in the column of each job's status."""
    titles, _, *lines = done.out.partition("\n\n")[0].splitlines()
    at = titles.index("status")
    return {line.split()[0]: line[at:].split("  ")[0].strip() for line in lines}


def read_until(process: subprocess.Popen[str], word: str) -> str:
    """What is said on stderr up to the line that has the word."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if word in line:
            return said
    pytest.fail(f"{word} was never said, but: {said}")


# Which run.


@pytest.mark.parametrize(
    "target",
    [[], [RUN], [RUN[:18]], ["nightly.yaml"], ["nightly"], ["nightly.results.json"]],
    ids=["last", "id", "start-of-id", "manifest", "name", "results"],
)
def test_a_run_is_named_in_any_way(shell: Shell, target: list[str]) -> None:
    api = Api(a="completed", b="running", c="failed")
    with serving(shell, api) as server:
        with_run(shell, server.url)
        write_results(shell)
        if target:  # the last run is another one
            with_run(shell, server.url, OTHERS, "20261020T020000Z-bbbbbb", "other")
        done = shell("status", *target)
        assert asked(server) == ALL
    assert statuses(done) == {"field-a": "completed", "field-b": "running", "field-c": "failed"}
    assert done.code == 1
    assert f"run {RUN} of nightly at {server.url}" in done.err
    assert "\n3 jobs: 1 completed, 1 running, 1 failed · cost 30\n" in done.out
    assert "INPUT: no imagery" in done.out


def test_a_manifest_s_last_run_is_meant(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        with_run(shell, server.url, JOBS[:2])
        with_run(shell, server.url, JOBS[2:], "20261020T020000Z-bbbbbb")
        assert statuses(shell("status", "nightly.yaml")) == {"field-c": "running"}
        assert statuses(shell("status", "20261020T01")) == {"field-a": "running", "field-b": "running"}


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("20261020T", 2, "2 runs start with '20261020T'"),
        ("20991231", 2, "no run starts with '20991231'"),
        ("none.yaml", 2, "there is no file 'none.yaml', and no run with that id"),
        ("broken.json", 2, "the results file broken.json cannot be read"),
        ("list.json", 2, "list.json"),
    ],
)
def test_what_names_no_run(shell: Shell, target: str, code: int, said: str) -> None:
    shell.write("broken.json", '{"run": {}, "created": [], "errors": []}')
    shell.write("list.json", "[]")
    with serving(shell, Api()) as server:
        with_run(shell, server.url)
        with_run(shell, server.url, OTHERS, "20261020T020000Z-bbbbbb")
        done = shell("status", target)
        assert (done.code, done.out, asked(server)) == (code, "", [])
    assert said in done.err


def test_without_a_ledger_there_is_no_run(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        done = shell("status")
        assert (done.code, done.out, asked(server)) == (4, "", [])
    assert "there is no ledger at" in done.err
    assert not shell.ledger.exists()


def test_what_was_not_created_is_counted(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        with_run(shell, server.url, OTHERS)
        with Ledger(shell.ledger) as ledger:
            run = past.begin(ledger, "20261020T020000Z-bbbbbb", JOBS, api=server.url, end="stopped")
            past.send(ledger, run, JOBS[0], past.made(A))
            past.send(ledger, run, JOBS[1], past.lost())
        done = shell("status")
    assert statuses(done) == {"field-a": "running"}
    assert "without a job to follow: 1 in doubt, 1 skipped" in done.out


def test_of_a_run_that_goes_on_the_jobs_so_far_are_told(shell: Shell) -> None:
    gate, api = threading.Event(), Api()
    api.posts["p-c"] = Stall(gate, then=created(C))
    api.bought = [job.project_id for job in JOBS]
    with serving(shell, api) as server, shell.started("run", "nightly.yaml", "--verbose") as process:
        for _ in range(2):
            read_until(process, ": created")
        server.wait_for_requests(3)
        done = shell("status")
        gate.set()
        process.communicate(timeout=PATIENCE)
    assert statuses(done) == {"field-a": "running", "field-b": "running"}
    assert "is in progress; these are its jobs so far; locked by" in done.err
    assert "in doubt" not in done.out


# Where is asked.


def test_a_results_file_without_a_ledger_is_enough(shell: Shell) -> None:
    with serving(shell, Api(a="completed")) as server:
        with_run(shell, server.url)
        path = write_results(shell)
        elsewhere = Shell(shell.folder / "elsewhere", shell.environment)
        elsewhere.write("r.json", path.read_text(encoding="utf-8"))
        done = elsewhere("status", "r.json")
        assert asked(server) == ALL
    assert statuses(done) == {"field-a": "completed", "field-b": "running", "field-c": "running"}
    assert [one.name for one in elsewhere.folder.iterdir()] == ["r.json"]


def test_the_address_in_a_results_file_is_never_contacted(shell: Shell) -> None:
    with WireServer() as theirs, serving(shell, Api()) as ours:
        with_run(shell, theirs.url)
        path = write_results(shell)
        known = shell("status", path)
        shell.ledger.unlink()
        unknown = shell("status", path, "--wait")
        assert (theirs.log.connections, ours.log.connections) == (0, 0)
    for done in (known, unknown):
        assert (done.code, done.out) == (2, "")
        assert f"used {theirs.url}, but this command would call {ours.url}" in done.err
        assert f"To call the API of the run: --base-url {theirs.url}" in done.err


def test_a_results_file_that_lies_about_its_address_sends_the_key_nowhere_else(shell: Shell) -> None:
    with WireServer(choose=lambda _: reply(404)) as theirs, serving(shell, Api()) as ours:
        with_run(shell, ours.url)
        path = write_results(shell)
        document = json.loads(path.read_text(encoding="utf-8"))
        document["run"]["base_url"] = theirs.url
        path.write_text(json.dumps(document), encoding="utf-8")
        done = shell("status", path)
        assert (done.code, theirs.log.connections, ours.log.connections) == (2, 0, 0)
        # Where the person says that it is to be asked, it is.
        asked_there = shell("status", path, "--base-url", theirs.url)
        assert (asked_there.code, asked(theirs), ours.log.connections) == (4, ALL, 0)


def test_a_run_at_another_api_is_not_asked_for_here(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        with_run(shell, "https://elsewhere.example")
        done = shell("status")
        assert (done.code, server.log.connections) == (2, 0)
    assert "https://elsewhere.example" in done.err


def test_the_jobs_of_a_rehearsal_are_found_from_another_folder(shell: Shell) -> None:
    shell.manifest(*((job.name, job.workflow_id, job.project_id) for job in JOBS), path="sub/nightly.yaml")
    there = Shell(shell.folder / "sub")
    assert there("run", "nightly.yaml", "--sandbox").code == 0
    for done in (
        there("status", "--sandbox"),
        shell("status", "sub/nightly.yaml", "--sandbox"),
        shell("status", "sub/nightly.sandbox.results.json", "--sandbox"),
    ):
        assert done.code == 0, done.err
        assert set(statuses(done).values()) <= {"pending", "running", "completed"}
    assert not (shell.folder / ".pixxel-runner").exists()


# How much is asked.


def test_no_more_is_asked_than_there_are_workflows(shell: Shell) -> None:
    jobs = [Job(f"{w}-{n}", f"w-{w}", f"{w}-{n}") for w in range(20) for n in range(5)]

    def choose(request: Request) -> Script:
        number = request.workflow.removeprefix("w-")
        listed = [{"id": f"job-of-{number}-{n}", "status": "running"} for n in range(5)]
        return reply(200, json.dumps({"jobs": listed}).encode())

    with WireServer(choose=choose) as server:
        shell.at(server.url)
        with_run(shell, server.url, jobs)
        done = shell("status")
        assert asked(server) == sorted(f"w-{n}/jobs" for n in range(20))
        assert {one.method for one in server.requests} == {"GET"}
        assert {one.headers["authorization"] for one in server.requests} == {KEY}
    assert (done.code, set(statuses(done).values())) == (0, {"running"})


def test_what_is_final_is_kept_and_asked_for_no_more(shell: Shell) -> None:
    with serving(shell, Api(a="completed", b="failed", c="cancelled")) as server:
        with_run(shell, server.url)
        write_results(shell)
        first = shell("status")
        before = asked(server)
        assert before == sorted([*ALL, f"w-1/jobs/{B}"])
        shell.at(server.url, key=None)
        second, shown, rewritten = shell("status"), shell("show"), shell("show", "--results", "again.json")
        waited = shell("status", "--wait", "--format", "json")
        of_file = shell("status", "nightly.results.json")  # which is older than what the ledger knows
        assert (asked(server), server.log.connections) == (before, len({one.connection for one in server.requests}))
    assert (first.code, second.code, shown.code, rewritten.code, waited.code) == (1, 1, 0, 0, 1)
    assert first.out == second.out == of_file.out
    assert statuses(shown) == {"field-a": "completed", "field-b": "failed", "field-c": "cancelled"}
    made = check_results(shell.folder / "again.json")
    assert [one["job"]["status"] for one in made["created"]] == ["completed", "failed", "cancelled"]
    assert made["created"][1]["job"]["tasks"][0]["err_msg"] == "no imagery"
    assert all(one["seen_at"] for one in made["created"])
    assert made["summary"]["cost"] == 30
    assert [one["seen_at"] for one in json.loads(waited.out)["jobs"]] == [one["seen_at"] for one in made["created"]]


def test_a_record_that_cannot_be_written_is_read(shell: Shell) -> None:
    api = Api("completed", "running running completed")
    with disks.mounted(shell.folder / "disk") as disk, serving(shell, api) as server:
        there = Shell(disk.root, shell.environment)
        with_run(there, server.url)
        with disk.read_only():
            first, second = there("status"), there("status", "--wait", "--wait-timeout", "0.5")
        assert asked(server).count(LIST) == 2  # what was final the first time could not be kept
    assert (first.code, statuses(first)["field-a"]) == (0, "completed")
    assert "warning: final statuses could not be saved to the ledger: " in first.err
    # It is said once, and after all that may be drawn over.
    assert (second.code, second.err.count("could not be saved to the ledger")) == (6, 1)
    assert "could not be saved to the ledger" in second.err.splitlines()[-1]


# What it comes to.


@pytest.mark.parametrize(
    ("words", "instead", "code", "said"),
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
            "error: HTTP 401 Unauthorized: the API does not recognise the key",
        ),
        (("", "", "failed"), {LIST: Reset()}, 4, "the status of 2 jobs is unknown; first error: the connection"),
        (("", "", "running"), {LIST: reply(429, headers=[("Retry-After", "200")])}, 4, "HTTP 429 Too Many Requests"),
    ],
    ids=["going", "completed", "failed", "cancelled", "unlisted", "denied", "broken", "key", "reset", "throttled"],
)
def test_exit_codes(shell: Shell, words: tuple[str, ...], instead: dict[str, Script], code: int, said: str) -> None:
    with serving(shell, Api(*words, instead=instead)) as server:
        with_run(shell, server.url)
        since = time.monotonic()
        done = shell("status", "--attempts", "1")
        assert time.monotonic() - since < PATIENCE
    assert (done.code, said in done.err) == (code, True), done.err
    assert KEY not in done.out + done.err


def test_an_end_that_nobody_understands_could_not_be_told(shell: Shell) -> None:
    api = Api(a="completed", b="completed", c="sublimated")
    api.more[C] = {"finished_at": "2026-10-20T02:00:00Z"}
    with serving(shell, api) as server:
        with_run(shell, server.url)
        done = shell("status", "--wait")
    assert (done.code, statuses(done)["field-c"]) == (4, "sublimated")


def test_nobody_there_could_not_be_told(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        with_run(shell, server.url)
    done = shell("status", "--attempts", "1")
    assert (done.code, statuses(done)["field-a"]) == (4, "unknown")
    assert "the status of 3 jobs is unknown; first error: cannot connect" in done.err


def test_without_a_key_nothing_is_asked(shell: Shell) -> None:
    with serving(shell, Api()) as server:
        with_run(shell, server.url)
        shell.at(server.url, key=None)
        done = shell("status")
        assert (done.code, done.out, server.log.connections) == (4, "", 0)
    assert "no API key" in done.err


def test_quiet_says_nothing_unless_something_is_wrong(shell: Shell) -> None:
    with serving(shell, Api(a="running failed", b="completed", c="completed")) as server:
        with_run(shell, server.url)
        well, wrong = shell("status", "--quiet"), shell("status", "--wait", "--quiet")
    assert (well.code, well.out, well.err) == (0, "", "")
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err == "nightly: 3 jobs: 2 completed, 1 failed · cost 30\n"


def test_formats(shell: Shell) -> None:
    with serving(shell, Api(a="completed", b="failed")) as server:
        with_run(shell, server.url)
        made = {one: shell("status", "--format", one).out for one in ("table", "markdown", "csv", "json")}
    assert made["table"].splitlines()[1].startswith("-------  ------")
    assert made["markdown"].splitlines()[1].startswith("| --- | --- |")
    assert [one["status"] for one in csv.DictReader(io.StringIO(made["csv"]))] == ["completed", "failed", "running"]
    document = loads_strictly(made["json"])
    assert [one["final"] for one in document["jobs"]] == [True, True, False]
    assert document["summary"] == {"statuses": {"completed": 1, "failed": 1, "running": 1}, "cost": 30}
    assert document["jobs"][1]["errors"] == ["Analyse: INPUT: no imagery"]


HOSTILE = "\x1b[2J\x1b]0;x\x07\r\n::error::x\n##[add-mask]y\u202e|<b>\x9b"


def test_what_a_server_says_is_data(shell: Shell) -> None:
    api = Api()
    api.words = {A: [f"::error::{HOSTILE}"], B: ["failed"], C: ["running"]}
    task = {"name": HOSTILE, "failure_type": HOSTILE, "err_msg": HOSTILE}
    api.more = {A: {"progress": HOSTILE, "time_taken": HOSTILE}}
    api.instead = {
        B: reply(200, json.dumps({"id": B, "status": "failed", "tasks": [task]}).encode()),
        C: reply(404, json.dumps({"error": {"code": HOSTILE, "message": HOSTILE}}).encode()),
    }
    names = (f"::error::{HOSTILE}", ":", "field-c")
    jobs = [Job(name, job.workflow_id, job.project_id) for name, job in zip(names, JOBS, strict=True)]
    with serving(shell, api) as server:
        with_run(shell, server.url, jobs)
        waited = shell("status", "--wait", "--wait-timeout", "0")  # first: what it finds to be final is no news later
        table, markdown, as_csv, as_json = (
            shell("status", "--format", one) for one in ("table", "markdown", "csv", "json")
        )
    assert (waited.code, len(waited.err.splitlines())) == (6, 6)
    assert [done.code for done in (table, markdown, as_csv, as_json)] == [4] * 4
    for done in (waited, table, markdown, as_csv, as_json):
        text = done.out.replace("\r\n", "\n") + done.err  # CSV has its line ends
        assert not set(text) & {"\x1b", "\x07", "\r", "\u202e", "\x9b"}
        assert not [line for line in text.splitlines() if line.lstrip().startswith("::") or "##[" in line]
    assert "<b>" not in markdown.out
    assert json.loads(as_json.out)["jobs"][0]["status"] == f"::error::{HOSTILE}"


# What stalls.


@pytest.mark.parametrize("stalled", [(LIST,), (C,), (LIST, C)], ids=["list", "job", "both"])
@pytest.mark.parametrize("how", ["silent", "dripping"])
def test_a_server_that_stalls_is_not_waited_for_longer_than_the_timeout(
    shell: Shell, stalled: tuple[str, ...], how: str
) -> None:
    drip = Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"{" * 100, 0.2)
    script = Stall(threading.Event()) if how == "silent" else drip
    with serving(shell, Api(instead=dict.fromkeys(stalled, script))) as server:
        with_run(shell, server.url)
        since = time.monotonic()
        done = shell("status", "--timeout", "1")
        assert 1 <= time.monotonic() - since < PATIENCE
    told = {LIST: {"field-a", "field-b"}, C: {"field-c"}}
    lost = set[str]().union(*(told[one] for one in stalled))
    assert done.code == 4
    assert {name for name, status in statuses(done).items() if status != "running"} == lost


def test_reasons_that_stall_do_not_matter(shell: Shell) -> None:
    with serving(shell, Api("failed", instead={A: Stall(threading.Event())})) as server:
        with_run(shell, server.url)
        since = time.monotonic()
        done = shell("status", "--timeout", "1")
        assert 1 <= time.monotonic() - since < PATIENCE
    assert (done.code, statuses(done)) == (1, {"field-a": "failed", "field-b": "running", "field-c": "running"})


# Until all are final.


def test_each_change_is_a_line(shell: Shell) -> None:
    api = Api(a="running completed", b="queued running failed", c="running running running running completed")
    with serving(shell, api) as server:
        with_run(shell, server.url)
        done = shell("status", "--wait")
        counts = [asked(server).count(one) for one in ("w-1/jobs", f"w-1/jobs/{B}", f"w-2/jobs/{C}")]
    assert done.err.splitlines() == [
        "field-a: running",
        "field-b: queued",
        "field-c: running",
        "field-a: completed",
        "field-b: running",
        "field-b: failed: Analyse: INPUT: no imagery",
        "field-c: completed",
        f"run {RUN} of nightly at {server.url}",
    ]
    assert (done.code, counts) == (1, [2, 1, 5])  # once a completed, b is alone in its workflow
    assert statuses(done) == {"field-a": "completed", "field-b": "failed", "field-c": "completed"}


def test_it_ends_well_when_all_are_completed(shell: Shell) -> None:
    with serving(shell, Api("running completed", "completed", "running completed")) as server:
        with_run(shell, server.url)
        assert shell("status", "--wait").code == 0


def test_a_job_that_the_api_does_not_know_is_given_up(shell: Shell) -> None:
    with serving(shell, Api("completed", "completed", instead={C: reply(404)})) as server:
        with_run(shell, server.url)
        done = shell("status", "--wait")
        assert asked(server).count(f"w-2/jobs/{C}") == 12  # nothing else is left to ask for
    assert done.code == 4
    assert "the status of 1 job is unknown: HTTP 404" in done.err


def test_a_key_that_is_revoked_ends_it(shell: Shell) -> None:
    api = Api()

    def revoke() -> None:
        if len(asked(server)) >= 2:
            api.instead |= dict.fromkeys(("w-1/jobs", C), reply(401))

    api.told = revoke
    with serving(shell, api) as server:
        with_run(shell, server.url)
        done = shell("status", "--wait")
    assert done.code == 4
    assert "error: HTTP 401" in done.err
    assert "Set PIXXEL_API_KEY or --api-key-file" in done.err


def test_the_time_to_wait_is_over_first(shell: Shell) -> None:
    api = Api("completed")
    with serving(shell, api) as server:
        with_run(shell, server.url)
        late = shell("status", "nightly.yaml", "--wait", "--wait-timeout", "0.1", "--ledger", shell.ledger)
        assert (late.code, statuses(late)) == (6, {"field-a": "completed", "field-b": "running", "field-c": "running"})
        said = re.search(r"timed out waiting; jobs are still running\. To wait again: pixxel-runner (.*)", late.err)
        assert said, late.err
        api.words = {one: ["completed"] for one in (A, B, C)}
        assert shell(*shlex.split(said[1])).code == 0


def test_a_wait_goes_on_as_its_command_says(shell: Shell) -> None:
    api = Api()
    with serving(shell, api) as server:
        with_run(shell, server.url)
        late = shell("status", "--wait", "--wait-timeout", "0", "--base-url", server.url)
        again = late.err.partition("To wait again: pixxel-runner ")[2].splitlines()[0]
        assert again == f"status {RUN} --base-url {server.url} --wait"
        api.words = {one: ["completed"] for one in (A, B, C)}
        assert shell(*shlex.split(again)).code == 0


def test_a_restart_of_the_server_is_survived(shell: Shell) -> None:
    api = Api()
    with refusing_port() as port, ExitStack() as up:
        server = up.enter_context(serving(shell, api, port))
        with_run(shell, server.url)
        with shell.started("status", "--wait", "--attempts", "1") as process:
            read_until(process, "field-c: running")
            up.close()
            read_until(process, "field-c: status unknown: cannot connect")
            api.words = {one: ["completed"] for one in (A, B, C)}
            with serving(shell, api, port) as again:
                out, err = process.communicate(timeout=PATIENCE)
                assert asked(again) == ALL
    assert (process.returncode, out.count("completed")) == (0, 4)
    assert "field-a: completed" in err
    assert "not known" not in err.partition("field-a: completed")[2]


def test_a_restart_of_its_own_is_survived(shell: Shell) -> None:
    api = Api("completed", "running running completed", "running running running completed")
    shell.environment["PAUSE"] = "600"
    with serving(shell, api) as server:
        with_run(shell, server.url)
        with shell.started("status", "--wait") as process:
            read_until(process, "field-c: running")
            process.kill()
            process.wait(PATIENCE)
        before = len(asked(server))
        shell.environment["PAUSE"] = "0.01"
        done = shell("status", "--wait")
        after = [one.target.removeprefix("/v0/workflows/") for one in server.requests][before:]
    assert done.code == 0
    assert set(after) == {f"w-1/jobs/{B}", f"w-2/jobs/{C}"}
    assert "field-a: " not in done.err
    assert statuses(done) == dict.fromkeys(("field-a", "field-b", "field-c"), "completed")


SIGNALS = pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@SIGNALS
@pytest.mark.parametrize("when", ["between", "within"])
def test_a_signal_leaves_the_jobs_and_says_so(shell: Shell, when: str, signum: int, code: int) -> None:
    api = Api(instead={C: Stall(threading.Event())} if when == "within" else {})
    shell.environment["PAUSE"] = "600"
    with serving(shell, api) as server:
        with_run(shell, server.url)
        with shell.started("status", "--wait") as process:
            said = read_until(process, "field-c: running") if when == "between" else ""
            server.wait_for_requests(2)
            process.send_signal(signum)
            since = time.monotonic()
            out, err = process.communicate(timeout=PATIENCE)
            assert time.monotonic() - since < SOON
        assert len(server.requests) == 2
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in said + err
    assert f"the jobs continue at the API. To wait again: pixxel-runner status {RUN} --wait" in err


# On a terminal.


@dataclass
class Screen:
    """A terminal that has what the program uses; it fails at a line that does not fit, or a move beyond the top."""

    columns: int
    rows: int
    lines: list[str] = field(default_factory=lambda: [""])
    at: int = 0
    draws: int = 1

    def show(self, text: str) -> None:
        for found in re.finditer(r"\x1b\[([0-9;]*)([A-Za-z])|\r?\n|[^\x1b\r\n]+|.", text, re.DOTALL):
            self._take(found)

    def _take(self, found: re.Match[str]) -> None:
        match found[2], found[0]:
            case "m", _:
                pass
            case "F", _:
                self.at -= int(found[1])
                assert self.at >= max(0, len(self.lines) - self.rows)
            case "J", _:
                self.lines[self.at :] = [""]
                self.draws += 1
            case None, "\n" | "\r\n":
                self.at += 1
                self.lines.append("")
                assert self.at == len(self.lines) - 1
            case None, words if "\x1b" not in words and "\r" not in words:
                self.lines[self.at] += words
                assert display_width(self.lines[self.at]) <= self.columns, self.lines[self.at]
            case _:
                pytest.fail(f"{found[0]!r} is nothing that the program should write")


def followed(shell: Shell, size: tuple[int, int], *arguments: str) -> tuple[Screen, int, str]:
    """Follow until the end; the screen, the exit code, and what came on stdout, which is no terminal."""
    with on_terminal(shell, "status", "--wait", *arguments, size=size, out=subprocess.PIPE) as (process, person):
        text = seen(person)
        assert process.stdout is not None
        out = process.stdout.read().decode()
        code = process.wait(PATIENCE)
    screen = Screen(*size)
    screen.show(text.partition(f"run {RUN} of")[0])  # what is said after the table may be longer than a line
    return screen, code, out


@pytest.mark.parametrize("columns", [200, 80, 40, 24, 14])
def test_a_table_that_is_drawn_in_place(shell: Shell, columns: int) -> None:
    api = Api("running completed", "queued running failed", "running running running completed")
    with serving(shell, api) as server:
        with_run(shell, server.url)
        screen, code, out = followed(shell, (columns, 24))
    assert (code, screen.draws) == (1, 4)
    table = screen.lines[:4]
    assert table[3].startswith("3 jobs: 2 c")
    assert [line.split()[-1] for line in (table[0], table[2])] == ["completed"] * 2
    if columns >= 24:
        assert [line.split()[0] for line in table[:3]] == ["field-a", "field-b", "field-c"]
        assert "\n".join(screen.lines).count("field-a") == 1
    if columns >= 80:
        assert table[1] == "field-b  failed: Analyse: INPUT: no imagery"
    assert out.splitlines()[0].startswith("job      job id ")  # what is no terminal is not cut to one


def test_jobs_that_go_on_come_first_where_there_is_no_room_for_all(shell: Shell) -> None:
    jobs = [Job(f"j-{number:02}", "w", f"{number:02}") for number in range(30)]
    looks: list[int] = []

    def choose(_request: Request) -> Script:
        looks.append(1)
        going = {28, 29} if len(looks) == 2 else set[int]()
        words = ["running" if len(looks) == 1 or number in going else "completed" for number in range(30)]
        listed = [{"id": f"job-of-{number:02}", "status": word} for number, word in enumerate(words)]
        return reply(200, json.dumps({"jobs": listed}).encode())

    with WireServer(choose=choose) as server:
        shell.at(server.url)
        with_run(shell, server.url, jobs)
        with on_terminal(shell, "status", "--wait", size=(60, 10), out=subprocess.PIPE) as (process, person):
            text = seen(person)
            assert process.wait(PATIENCE) == 0
    screen = Screen(60, 10)
    first, second, third = text.split("\x1b[J")
    screen.show(first)
    assert [line.split() for line in screen.lines[:7]] == [[f"j-{number:02}", "running"] for number in range(7)]
    assert screen.lines[7:] == ["30 jobs: 30 running · cost 0 (23 not shown)", ""]
    screen.show(f"\x1b[J{second}")
    assert [line.split() for line in screen.lines[:2]] == [["j-28", "running"], ["j-29", "running"]]
    screen.show(f"\x1b[J{third.partition(f'run {RUN} of')[0]}")
    assert len([line for line in screen.lines if line.startswith("30 jobs: ")]) == 1


def test_names_of_wide_characters_stay_in_their_column(shell: Shell) -> None:
    names = ("圃場の名前がとても長い圃場", "a", "名")
    jobs = [Job(name, job.workflow_id, job.project_id) for name, job in zip(names, JOBS, strict=True)]
    with serving(shell, Api("completed", "completed", "completed")) as server:
        with_run(shell, server.url, jobs)
        screen, code, _ = followed(shell, (40, 24))
    assert code == 0
    assert screen.lines[:3] == [
        "圃場の名前がとても…  completed",
        "a                    completed",
        "名                   completed",
    ]


def test_hostile_text_does_not_move_the_table(shell: Shell) -> None:
    api = Api()
    api.words = {A: [f"run{HOSTILE}", "completed"], B: ["completed"], C: ["completed"]}
    with serving(shell, api) as server:
        with_run(shell, server.url)
        screen, code, _ = followed(shell, (60, 24))
    assert (code, screen.draws) == (0, 2)
    assert screen.lines[0] == "field-a  completed"


def test_colors_are_for_those_who_want_them(shell: Shell) -> None:
    with serving(shell, Api("completed", "failed", "completed")) as server:
        with_run(shell, server.url)
        texts = []
        for color in ("auto", "never"):
            with on_terminal(shell, "status", "--wait", "--color", color, out=subprocess.PIPE) as (_, person):
                texts.append(seen(person))
            shell.ledger.unlink()
            shell.ledger.parent.rmdir()
            with_run(shell, server.url)
    assert "\x1b[31mfailed" in texts[0]
    assert "\x1b[" not in texts[1]


def test_a_terminal_that_cannot_redraw_gets_lines(shell: Shell) -> None:
    shell.environment["TERM"] = "dumb"
    with serving(shell, Api("running completed", "completed", "completed")) as server:
        with_run(shell, server.url)
        with on_terminal(shell, "status", "--wait", "--color", "never", out=subprocess.PIPE) as (_, person):
            text = seen(person)
    assert "\x1b" not in text
    assert text.splitlines()[:4] == [
        "field-a: running",
        "field-b: completed",
        "field-c: completed",
        "field-a: completed",
    ]


def test_quiet_draws_nothing(shell: Shell) -> None:
    with serving(shell, Api("running completed", "completed", "completed")) as server:
        with_run(shell, server.url)
        screen, code, out = followed(shell, (80, 24), "--quiet")
    assert (code, screen.lines, out) == (0, [""], "")


def test_control_c_leaves_the_jobs(shell: Shell) -> None:
    shell.environment["PAUSE"] = "600"
    with serving(shell, Api()) as server:
        with_run(shell, server.url)
        with on_terminal(shell, "status", "--wait", size=(120, 24)) as (process, person):
            seen(person, "3 jobs: 3 running")
            os.write(person, b"\x03")
            text = seen(person)
            assert process.wait(PATIENCE) == 130
        assert asked(server) == ALL
    assert f"stopped waiting; the jobs continue at the API. To wait again: pixxel-runner status {RUN} --wait" in text
    assert "Traceback" not in text


# `run --wait`.


def test_run_and_wait(shell: Shell) -> None:
    api, path = (
        Api("running completed", "running completed", "running completed"),
        shell.folder / "nightly.results.json",
    )
    before: list[dict[str, Any]] = []
    api.told = lambda: before.append(check_results(path))
    with serving(shell, api) as server:
        done = submit(shell, api, "--wait")
        assert len(before) == len(asked(server)) == 4
    assert (done.code, before[0] == before[-1]) == (0, True)
    assert [(one["seen_at"], one["job"]["status"]) for one in before[0]["created"]] == [(None, "accepted")] * 3
    after = check_results(path)
    assert [one["job"]["status"] for one in after["created"]] == ["completed"] * 3
    assert all(one["seen_at"] >= after["run"]["finished_at"] for one in after["created"])
    assert after["run"] == before[0]["run"]
    assert after["run"]["state"] == "completed"
    assert after["summary"] == {**before[0]["summary"], "cost": 30, "projects": after["summary"]["projects"]}
    assert "field-a: completed" in done.err
    assert "results: nightly.results.json" in done.err
    assert statuses(done) == dict.fromkeys(("field-a", "field-b", "field-c"), "completed")


@pytest.mark.parametrize(
    ("words", "instead", "arguments", "code", "said"),
    [
        (("failed", "completed"), {}, (), 1, "nightly at the API: 3 jobs: 2 completed, 1 failed · cost 30"),
        (("completed", "completed"), {C: reply(404)}, (), 4, "the status of 1 job is unknown: HTTP"),
        (("", ""), {LIST: reply(401)}, (), 4, "error: HTTP 401 Unauthorized: the API does not recognise the key"),
        (("running", "completed"), {}, ("--wait-timeout", "0"), 6, "again: pixxel-runner status nightly.yaml --wait"),
    ],
    ids=["failed", "denied", "key", "late"],
)
def test_what_waiting_comes_to(
    shell: Shell,
    words: tuple[str, str],
    instead: dict[str, Script],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    api = Api(*words, "completed", instead=instead)
    with serving(shell, api):
        done = submit(shell, api, "--wait", "--quiet", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(check_results(shell.folder / "nightly.results.json")["created"]) == 3


def test_doubt_outranks_what_became_of_the_rest(shell: Shell) -> None:
    api = Api("completed", "failed")
    api.posts["p-c"] = Reset()
    with serving(shell, api):
        done = submit(shell, api, "--wait", "--hold")
    assert done.code == 3
    assert statuses(done) == {"field-a": "completed", "field-b": "failed", "field-c": ""}


def test_with_nothing_created_there_is_nothing_to_wait_for(shell: Shell) -> None:
    api = Api()
    api.posts = {job.project_id: reply(400) for job in JOBS}
    with serving(shell, api) as server:
        done = submit(shell, api, "--wait")
        assert asked(server) == []
    assert done.code == 1


def test_what_an_earlier_run_created_is_waited_for_too(shell: Shell) -> None:
    api = Api("completed", "completed", "completed")
    with serving(shell, api) as server:
        submit(shell, api)
        done = shell("run", "nightly.yaml", "--wait")
        assert asked(server) == ALL
    assert done.code == 0
    assert statuses(done) == dict.fromkeys(("field-a", "field-b", "field-c"), "completed")


def test_the_lock_is_not_held_while_it_waits(shell: Shell) -> None:
    gate = threading.Event()
    done = reply(200, b'{"id": "%b", "status": "completed"}' % C.encode())
    api = Api("completed", "completed", instead={C: Stall(gate, then=done)})
    api.bought = [job.project_id for job in JOBS]
    with serving(shell, api) as server, shell.started("run", "nightly.yaml", "--wait") as process:
        server.wait_for_requests(5)
        other = shell("run", "nightly.yaml")
        gate.set()
        process.communicate(timeout=PATIENCE)
    assert (other.code, process.returncode) == (0, 0)
    assert "nothing to submit of nightly" in other.err


@SIGNALS
def test_a_signal_while_run_waits_leaves_the_jobs_and_the_record(shell: Shell, signum: int, code: int) -> None:
    api = Api("completed")
    api.bought = [job.project_id for job in JOBS]
    shell.environment["PAUSE"] = "600"
    with serving(shell, api) as server, shell.started("run", "nightly.yaml", "--wait") as process:
        read_until(process, "field-c: running")
        process.send_signal(signum)
        since = time.monotonic()
        out, err = process.communicate(timeout=PATIENCE)
        assert time.monotonic() - since < SOON
        assert len(server.requests) == 5
    assert process.returncode == code
    assert "the jobs continue at the API. To wait again: pixxel-runner status nightly.yaml --wait" in err
    assert "3 jobs: 3 created, 0 not created, 0 in doubt, 0 skipped" in out
    made = check_results(shell.folder / "nightly.results.json")
    assert made["run"]["state"] == "completed"
    assert [bool(one["seen_at"]) for one in made["created"]] == [True, False, False]


def test_run_s_table_on_a_terminal_stands_under_the_one_that_was_drawn(shell: Shell) -> None:
    api = Api("running completed", "running completed", "running completed")
    api.bought = [job.project_id for job in JOBS]
    with (
        serving(shell, api),
        on_terminal(shell, "run", "nightly.yaml", "--wait", size=(100, 40)) as (process, person),
    ):
        text = seen(person)
        assert process.wait(PATIENCE) == 0
    assert text.count("\x1b[J") == 1
    assert "3 jobs: 3 completed · cost 30" in text
    assert "3 jobs: 3 created, 0 not created, 0 in doubt, 0 skipped" in text.rpartition("3 jobs: 3 completed")[2]
