"""Jobs in doubt as a person meets them: answers that are lost, and what the run, and the next one, make of them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from support import shell as shells
from support.schemas import check_results
from support.shell import KEY, CompletedCommand, Shell
from support.wire import Request, Reset, Script, Stall, WireServer, created, reply

from runner.sandbox.backend import Backend
from runner.sandbox.faults import Fault
from runner.sandbox.server import Sandbox

# The command, but for the seconds between its looks at the end of a run: half a minute is long for a test.
COMMAND = """
import os, sys
from runner.runs import execution
from runner.cli.main import main
execution._LOOKUP_DELAYS = tuple(map(float, os.environ.get("LOOKS", "0 0.1").split()))
sys.exit(main())
"""

ONE = (("field-a", "w-1", "p-1"),)
THREE = (("field-a", "w-1", "p-1"), ("field-b", "w-1", "p-1"), ("field-c", "w-2", "p-1"))
TWO_PROJECTS = (("field-a", "w-1", "p-1"), ("field-b", "w-1", "p-2"))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    def command(arguments: Sequence[str | Path]) -> list[str]:
        return [sys.executable, "-P", "-c", COMMAND, *map(str, arguments)]

    monkeypatch.setattr(shells, "command", command)
    return Shell(tmp_path)


@pytest.fixture
def world() -> Iterator[Backend]:
    with Backend() as one:
        one.add_pairs((workflow, project) for workflow in ("w-1", "w-2") for project in ("p-1", "p-2"))
        yield one


@contextmanager
def sandbox(shell: Shell, world: Backend, fault: Literal["reset", "bad-gateway"]) -> Iterator[None]:
    """A server that creates every job, and then loses the answer."""
    with Sandbox(world, key=KEY, faults=[Fault(fault, 1.0)]) as server:
        shell.use_api(server.base_url)
        yield


class Api:
    """An API of which the test says what becomes of each POST, and which of the jobs are listed when."""

    def __init__(self, **posts: Script) -> None:
        self.posts = posts  # by project; a job is created and told for the others
        self.jobs: list[dict[str, Any]] = []
        self.lists: list[list[dict[str, Any]]] = []  # for each GET of the list in turn; then all jobs
        self.told: Callable[[], None] = lambda: None  # what happens when the list is asked for

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            return self._post(request)
        if request.target.endswith("/jobs"):
            self.told()
            return reply(200, json.dumps({"jobs": self.lists.pop(0) if self.lists else self.jobs}).encode())
        return reply(200, json.dumps(next(one for one in self.jobs if request.target.endswith(one["id"]))).encode())

    def _post(self, request: Request) -> Script:
        script = self.posts.get(request.project) or created(f"job-of-{request.project}")
        if script.creates:
            self.make(f"job-of-{request.project}")
        return script

    def make(self, job_id: str) -> None:
        self.jobs.append({"id": job_id, "created_at": datetime.now(UTC).isoformat(), "created_by": "me"})


@contextmanager
def serving(shell: Shell, api: Api) -> Iterator[WireServer]:
    with WireServer(choose=api) as server:
        shell.use_api(server.url)
        yield server


def sent(server: WireServer) -> list[str]:
    return [request.project for request in server.requests if request.method == "POST"]


def run(shell: Shell, *arguments: str, manifest: str = "nightly") -> tuple[CompletedCommand, dict[str, Any]]:
    done = shell("run", f"{manifest}.yaml", *arguments)
    assert "Traceback" not in done.err, done.err
    assert done.code != 70, done.err
    return done, check_results(shell.directory / f"{manifest}.results.json")


def kinds(record: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("outcome", "created") for one in (*record["created"], *record["errors"])}


# What is found.


@pytest.mark.parametrize("fault", ["reset", "bad-gateway"])
def test_jobs_whose_answers_were_lost_are_found(
    shell: Shell, world: Backend, fault: Literal["reset", "bad-gateway"]
) -> None:
    shell.manifest(*THREE)
    with sandbox(shell, world, fault):
        done, record = run(shell)
        again, _ = run(shell)
    assert (done.code, again.code, world.created) == (0, 0, 3)
    ids = {job.id for workflow in ("w-1", "w-2") for job in world.jobs(workflow)}
    assert {job["job"]["id"] for job in record["created"]} == ids
    assert [(job["recovered"], job["assigned"]) for job in record["created"]] == [(True, True)] * 3
    told = [line for line in done.err.splitlines() if ": was in doubt, now created: " in line]
    assert {line.rpartition(" ")[2] for line in told} == ids
    assert {line.partition(":")[0] for line in told} == {"field-a", "field-b", "field-c"}


def test_which_job_is_of_which_project_is_anyone_s_guess(shell: Shell, world: Backend) -> None:
    shell.manifest(*TWO_PROJECTS)
    with sandbox(shell, world, "reset"):
        done, record = run(shell)
    ids = {job.id for job in world.jobs("w-1")}
    assert (done.code, world.created) == (0, 2)
    assert {job["job"]["id"] for job in record["created"]} == ids
    assert [(job["assigned"], set(job["candidates"])) for job in record["created"]] == [(False, ids)] * 2


def test_a_list_that_lags_is_looked_at_again(shell: Shell) -> None:
    shell.manifest(*ONE)
    api = Api(**{"p-1": Reset(creates=True)})
    api.lists = [[]]
    with serving(shell, api) as server:
        done, record = run(shell)
    assert (done.code, kinds(record), sent(server)) == (0, {"field-a": "created"}, ["p-1"])


# What is not.


def test_a_colleague_s_job_may_be_the_one(shell: Shell, world: Backend) -> None:
    shell.manifest(*ONE)
    world.create("w-1", "p-2")
    with sandbox(shell, world, "reset"):
        done, record = run(shell)
        again, _ = run(shell)
    assert (done.code, again.code, world.created) == (3, 3, 2)
    [error] = record["errors"]
    assert (error["outcome"], error["kind"]) == ("in_doubt", "closed")
    assert set(error["candidates"]) == {job.id for job in world.jobs("w-1")}
    assert "1 job is in doubt" in done.err


def test_what_is_not_there_is_sent_again_only_when_it_is_settled(shell: Shell) -> None:
    shell.manifest(*ONE)
    api = Api(**{"p-1": Reset()})
    with serving(shell, api) as server:
        first, _ = run(shell)
        second, record = run(shell)
        assert (first.code, second.code, sent(server)) == (3, 3, ["p-1"])
        assert kinds(record) == {"field-a": "in_doubt"}
        api.posts = {}
        third, record = run(shell, "--settle", "0")
    assert (third.code, sent(server), kinds(record)) == (0, ["p-1", "p-1"], {"field-a": "created"})
    assert "field-a: was in doubt, now not created: was in doubt (" in third.err


def test_settle_0_believes_the_first_list(shell: Shell) -> None:
    shell.manifest(*ONE)
    with serving(shell, Api(**{"p-1": Reset()})) as server:
        done, record = run(shell, "--settle", "0")
    [error] = record["errors"]
    assert (done.code, error["outcome"], error["kind"], sent(server)) == (1, "not_created", "not_found", ["p-1"])


def test_a_list_that_cannot_be_had_leaves_it_in_doubt(shell: Shell) -> None:
    shell.manifest(*ONE)

    def choose(request: Request) -> Script:
        return Reset(creates=True) if request.method == "POST" else reply(403)

    with WireServer(choose=choose) as server:
        shell.use_api(server.url)
        done, record = run(shell, "--settle", "0", "--verbose")
    assert (done.code, kinds(record), len(server.created)) == (3, {"field-a": "in_doubt"}, 1)
    assert "field-a: still in doubt: the API's list of jobs could not be retrieved (HTTP 403)" in done.err


def test_a_list_that_names_a_job_twice_is_no_bug_of_ours(shell: Shell) -> None:
    shell.manifest(*THREE[:2])
    api = Api(**{"p-1": Reset()})
    api.make("x")
    api.jobs *= 2
    with serving(shell, api):
        done, record = run(shell)
    assert done.code == 3
    assert sum(job["job"]["id"] == "x" for job in record["created"]) <= 1


# The next run, and the person.


def test_hold_leaves_it_to_the_person_and_the_next_run_looks(shell: Shell, world: Backend) -> None:
    shell.manifest(*ONE)
    with sandbox(shell, world, "reset"):
        held, record = run(shell, "--hold")
        assert (held.code, kinds(record), record["errors"][0]["candidates"]) == (3, {"field-a": "in_doubt"}, [])
        assert "looking up" not in held.err
        done, record = run(shell)
    assert (done.code, kinds(record), world.created) == (0, {"field-a": "created"}, 1)
    [job] = world.jobs("w-1")
    assert f"field-a: was in doubt, now created: {job.id}" in done.err


@pytest.mark.parametrize("there", [True, False])
def test_a_run_under_another_key_looks_too_and_only_warns(shell: Shell, *, there: bool) -> None:
    shell.manifest(*ONE, once_per="run")
    api = Api(**{"p-1": Reset(creates=there)})
    with serving(shell, api) as server:
        assert run(shell, "--hold")[0].code == 3
        api.posts = {}
        if there:
            api.jobs[0]["id"] = "of-the-first"
        done, record = run(shell, "--new")
    assert (done.code, sent(server), kinds(record)) == (0, ["p-1", "p-1"], {"field-a": "created"})
    assert ("field-a: was in doubt, now created: of-the-first" in done.err) is there
    assert ("1 job is still in doubt from earlier runs" in done.err) is not there


def test_two_manifests_that_send_in_one_workflow_at_once_take_their_own(shell: Shell) -> None:
    shell.environment["LOOKS"] = " ".join(["0"] + ["0.05"] * 200)
    shell.manifest(("mine", "w-1", "p-1"))
    shell.manifest(("theirs", "w-1", "p-2"), path="other.yaml")
    gate = threading.Event()
    posts: dict[str, Script] = {"p-1": Reset(creates=True), "p-2": Stall(gate, then=created("job-of-p-2"))}
    api = Api(**posts)
    with serving(shell, api) as server, shell.start("run", "other.yaml") as other:
        server.wait_for_requests(1)
        looks: list[int] = []

        def told() -> None:
            looks.append(1)
            if len(looks) == 3:  # by then each of them has found two jobs, one of which is still to be told
                gate.set()

        api.told = told
        done, record = run(shell)
        other.communicate(timeout=30)
    assert (done.code, other.returncode) == (0, 0)
    assert [job["job"]["id"] for job in record["created"]] == ["job-of-p-1"]
    theirs = check_results(shell.directory / "other.results.json")
    assert [job["job"]["id"] for job in theirs["created"]] == ["job-of-p-2"]
    assert sorted(sent(server)) == ["p-1", "p-2"]
