"""Jobs in doubt: responses are lost, and the run or the next one looks the jobs up."""

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

# The command, with short delays between the lookups at the end of a run; by default they take half a minute.
COMMAND = """
import os, sys
from runner.runs import reconcile
from runner.cli.main import main
reconcile.LOOKUP_DELAYS = tuple(map(float, os.environ.get("LOOKUP_DELAYS", "0 0.1").split()))
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
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        backend.add_pairs((workflow, project) for workflow in ("w-1", "w-2") for project in ("p-1", "p-2"))
        yield backend


@contextmanager
def sandbox(shell: Shell, backend: Backend, fault: Literal["reset", "bad-gateway"]) -> Iterator[None]:
    """A server that creates every job, and then loses the response."""
    with Sandbox(backend, key=KEY, faults=[Fault(fault, 1.0)]) as server:
        shell.use_api(server.base_url)
        yield


class Api:
    """An API with a script for each POST and for each request of the job list."""

    def __init__(self, **posts: Script) -> None:
        self.posts = posts  # by project; for other projects, a job is created and returned
        self.jobs: list[dict[str, Any]] = []
        self.listings: list[list[dict[str, Any]]] = []  # one for each GET of the job list, in order; then all jobs
        self.on_list: Callable[[], None] = lambda: None  # called when the job list is requested

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            return self._post(request)
        if request.target.endswith("/jobs"):
            self.on_list()
            return reply(200, json.dumps({"jobs": self.listings.pop(0) if self.listings else self.jobs}).encode())
        return reply(200, json.dumps(next(job for job in self.jobs if request.target.endswith(job["id"]))).encode())

    def _post(self, request: Request) -> Script:
        script = self.posts.get(request.project) or created(f"job-of-{request.project}")
        if script.creates:
            self.add_job(f"job-of-{request.project}")
        return script

    def add_job(self, job_id: str) -> None:
        self.jobs.append({"id": job_id, "created_at": datetime.now(UTC).isoformat(), "created_by": "me"})


@contextmanager
def serving(shell: Shell, api: Api) -> Iterator[WireServer]:
    with WireServer(choose=api) as server:
        shell.use_api(server.url)
        yield server


def sent_projects(server: WireServer) -> list[str]:
    return [request.project for request in server.requests if request.method == "POST"]


def run(shell: Shell, *arguments: str, manifest: str = "nightly") -> tuple[CompletedCommand, dict[str, Any]]:
    completed = shell("run", f"{manifest}.yaml", *arguments)
    assert "Traceback" not in completed.err, completed.err
    assert completed.code != 70, completed.err
    return completed, check_results(shell.directory / f"{manifest}.results.json")


def outcomes(results: dict[str, Any]) -> dict[str, str]:
    """Each job in the results file: `created`, or the outcome of its error."""
    return {job["name"]: job.get("outcome", "created") for job in (*results["created"], *results["errors"])}


# Jobs that are found


@pytest.mark.parametrize("fault", ["reset", "bad-gateway"])
def test_jobs_whose_responses_were_lost_are_found(
    shell: Shell, backend: Backend, fault: Literal["reset", "bad-gateway"]
) -> None:
    shell.manifest(*THREE)
    with sandbox(shell, backend, fault):
        completed, results = run(shell)
        second, _ = run(shell)
    assert (completed.code, second.code, backend.created) == (0, 0, 3)
    ids = {job.id for workflow in ("w-1", "w-2") for job in backend.jobs(workflow)}
    assert {job["job"]["id"] for job in results["created"]} == ids
    assert [(job["recovered"], job["assigned"]) for job in results["created"]] == [(True, True)] * 3
    recovered_lines = [line for line in completed.err.splitlines() if ": was in doubt, now created: " in line]
    assert {line.rpartition(" ")[2] for line in recovered_lines} == ids
    assert {line.partition(":")[0] for line in recovered_lines} == {"field-a", "field-b", "field-c"}


def test_jobs_of_different_projects_are_recovered_unassigned(shell: Shell, backend: Backend) -> None:
    shell.manifest(*TWO_PROJECTS)
    with sandbox(shell, backend, "reset"):
        completed, results = run(shell)
    ids = {job.id for job in backend.jobs("w-1")}
    assert (completed.code, backend.created) == (0, 2)
    assert {job["job"]["id"] for job in results["created"]} == ids
    assert [(job["assigned"], set(job["candidates"])) for job in results["created"]] == [(False, ids)] * 2


def test_lookup_is_repeated_when_the_job_list_lags(shell: Shell) -> None:
    shell.manifest(*ONE)
    api = Api(**{"p-1": Reset(creates=True)})
    api.listings = [[]]
    with serving(shell, api) as server:
        completed, results = run(shell)
    assert (completed.code, outcomes(results), sent_projects(server)) == (0, {"field-a": "created"}, ["p-1"])


# Jobs that are not found


def test_job_stays_in_doubt_if_another_job_could_match(shell: Shell, backend: Backend) -> None:
    shell.manifest(*ONE)
    backend.create("w-1", "p-2")
    with sandbox(shell, backend, "reset"):
        completed, results = run(shell)
        second, _ = run(shell)
    assert (completed.code, second.code, backend.created) == (3, 3, 2)
    [error] = results["errors"]
    assert (error["outcome"], error["kind"]) == ("in_doubt", "closed")
    assert set(error["candidates"]) == {job.id for job in backend.jobs("w-1")}
    assert "1 job is in doubt" in completed.err


def test_missing_job_is_resubmitted_only_after_the_settling_time(shell: Shell) -> None:
    shell.manifest(*ONE)
    api = Api(**{"p-1": Reset()})
    with serving(shell, api) as server:
        first, _ = run(shell)
        second, results = run(shell)
        assert (first.code, second.code, sent_projects(server)) == (3, 3, ["p-1"])
        assert outcomes(results) == {"field-a": "in_doubt"}
        api.posts = {}
        third, results = run(shell, "--settle", "0")
    assert (third.code, sent_projects(server), outcomes(results)) == (0, ["p-1", "p-1"], {"field-a": "created"})
    assert "field-a: was in doubt, now not created: was in doubt (" in third.err


def test_settle_0_trusts_the_first_job_list(shell: Shell) -> None:
    shell.manifest(*ONE)
    with serving(shell, Api(**{"p-1": Reset()})) as server:
        completed, results = run(shell, "--settle", "0")
    [error] = results["errors"]
    assert (completed.code, error["outcome"], error["kind"], sent_projects(server)) == (
        1,
        "not_created",
        "not_found",
        ["p-1"],
    )


def test_job_stays_in_doubt_if_the_job_list_is_unavailable(shell: Shell) -> None:
    shell.manifest(*ONE)

    def choose(request: Request) -> Script:
        return Reset(creates=True) if request.method == "POST" else reply(403)

    with WireServer(choose=choose) as server:
        shell.use_api(server.url)
        completed, results = run(shell, "--settle", "0", "--verbose")
    assert (completed.code, outcomes(results), len(server.created)) == (3, {"field-a": "in_doubt"}, 1)
    assert "field-a: still in doubt: the API's list of jobs could not be retrieved (HTTP 403)" in completed.err


def test_duplicate_job_in_the_job_list_is_not_an_internal_error(shell: Shell) -> None:
    shell.manifest(*THREE[:2])
    api = Api(**{"p-1": Reset()})
    api.add_job("x")
    api.jobs *= 2
    with serving(shell, api):
        completed, results = run(shell)
    assert completed.code == 3
    assert sum(job["job"]["id"] == "x" for job in results["created"]) <= 1


# Later runs and manual decisions


def test_hold_skips_the_lookup_and_the_next_run_does_it(shell: Shell, backend: Backend) -> None:
    shell.manifest(*ONE)
    with sandbox(shell, backend, "reset"):
        held, results = run(shell, "--hold")
        assert (held.code, outcomes(results), results["errors"][0]["candidates"]) == (3, {"field-a": "in_doubt"}, [])
        assert "looking up" not in held.err
        completed, results = run(shell)
    assert (completed.code, outcomes(results), backend.created) == (0, {"field-a": "created"}, 1)
    [job] = backend.jobs("w-1")
    assert f"field-a: was in doubt, now created: {job.id}" in completed.err


@pytest.mark.parametrize("exists", [True, False])
def test_run_with_another_run_key_looks_up_earlier_doubts_and_only_warns(shell: Shell, *, exists: bool) -> None:
    shell.manifest(*ONE, once_per="run")
    api = Api(**{"p-1": Reset(creates=exists)})
    with serving(shell, api) as server:
        assert run(shell, "--hold")[0].code == 3
        api.posts = {}
        if exists:
            api.jobs[0]["id"] = "of-the-first"
        completed, results = run(shell, "--new")
    assert (completed.code, sent_projects(server), outcomes(results)) == (0, ["p-1", "p-1"], {"field-a": "created"})
    assert ("field-a: was in doubt, now created: of-the-first" in completed.err) is exists
    assert ("1 job is still in doubt from earlier runs" in completed.err) is not exists


def test_concurrent_manifests_of_one_workflow_recover_their_own_jobs(shell: Shell) -> None:
    shell.environment["LOOKUP_DELAYS"] = " ".join(["0"] + ["0.05"] * 200)
    shell.manifest(("mine", "w-1", "p-1"))
    shell.manifest(("theirs", "w-1", "p-2"), path="other.yaml")
    gate = threading.Event()
    posts: dict[str, Script] = {"p-1": Reset(creates=True), "p-2": Stall(gate, then=created("job-of-p-2"))}
    api = Api(**posts)
    with serving(shell, api) as server, shell.start("run", "other.yaml") as other:
        server.wait_for_requests(1)
        listings: list[int] = []

        def open_gate_at_third_listing() -> None:
            listings.append(1)
            if len(listings) == 3:  # each run has found two jobs by now, one of them still without a response
                gate.set()

        api.on_list = open_gate_at_third_listing
        completed, results = run(shell)
        other.communicate(timeout=30)
    assert (completed.code, other.returncode) == (0, 0)
    assert [job["job"]["id"] for job in results["created"]] == ["job-of-p-1"]
    other_results = check_results(shell.directory / "other.results.json")
    assert [job["job"]["id"] for job in other_results["created"]] == ["job-of-p-2"]
    assert sorted(sent_projects(server)) == ["p-1", "p-2"]
