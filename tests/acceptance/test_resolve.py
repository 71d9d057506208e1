"""`resolve` from the command line, with doubts of real runs, checked against the server's own state."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import ledger_history
from support.shell import KEY, CompletedCommand, Shell
from support.wire import Request, Reset, Script, Stall, WireServer, created, refusing_port, reply

from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger
from runner.sandbox.backend import Backend
from runner.sandbox.faults import Fault
from runner.sandbox.server import Sandbox

WORKFLOW, PROJECT = "w-1", "p-1"
TWO = (("field-a", WORKFLOW, PROJECT), ("field-b", WORKFLOW, PROJECT))
RESPONSES_LOST = Fault("bad-gateway", 1.0)  # every job is created, every response is lost


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@contextmanager
def sandbox(shell: Shell, backend: Backend, *faults: Fault, port: int = 0) -> Iterator[Sandbox]:
    """Serve a sandbox with the tests' workflows to the shell."""
    backend.add_pairs([(WORKFLOW, PROJECT), ("w-2", PROJECT)])
    with Sandbox(backend, key=KEY, faults=faults, port=port) as server:
        shell.use_api(server.base_url)
        yield server


@contextmanager
def scripted(shell: Shell, post: Script, jobs: list[dict[str, Any]] | None = None) -> Iterator[WireServer]:
    """Serve an API that plays one script for each POST, and has these jobs."""
    listed = jobs if jobs is not None else []

    def choose(request: Request) -> Script:
        if request.method == "POST":
            return post
        job = next((item for item in listed if request.target.endswith(f"/{item['id']}")), None)
        if request.target.endswith("/jobs"):
            return reply(200, json.dumps({"jobs": listed}).encode())
        return reply(404) if job is None else reply(200, json.dumps(job).encode())

    with WireServer(choose=choose) as server:
        shell.use_api(server.url)
        yield server


def run_in_doubt(shell: Shell, *pairs: tuple[str, str, str], once_per: str = "day") -> CompletedCommand:
    """Run a manifest whose jobs end in doubt, without looking them up."""
    shell.manifest(*(pairs or TWO), once_per=once_per)
    done = shell("run", "nightly.yaml", "--hold", "--new" if once_per == "run" else "--hold")
    assert done.code == 3, done
    return done


def export_ledger(shell: Shell) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shell("ledger", "export").out.splitlines()]


def count_posts(server: WireServer) -> int:
    return sum(request.method == "POST" for request in server.requests)


# By lookup


def test_found_jobs_are_resolved_and_nothing_is_sent(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST):
        run_in_doubt(shell)
        done = shell("resolve")
        assert backend.created == 2
        ids = {job.id for job in backend.jobs(WORKFLOW)}
        second = shell("resolve")
    assert done.code == 0
    assert {line.partition(": created as ")[2] for line in done.out.splitlines()} == {
        f"{job_id} (found)" for job_id in ids
    }
    assert {line["job_id"] for line in export_ledger(shell)} == ids
    assert {line["decisions"][0]["action"] for line in export_ledger(shell)} == {"found"}
    assert (second.code, second.out) == (0, "")
    assert "are in doubt" in second.err


def test_the_command_that_a_run_suggests_finds_the_ledger_of_the_run(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST) as server:
        shell.manifest(*TWO, path="jobs/nightly.yaml")
        done = shell("run", "jobs/nightly.yaml", "--hold", "--base-url", server.base_url)
        [command_line] = re.findall("To look them up now: pixxel-runner (.+)", done.err)
        assert command_line == f"resolve jobs/nightly.yaml --base-url {server.base_url}"
        assert shell(*shlex.split(command_line)).code == 0


def test_no_key_is_needed_without_doubts(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend) as server:
        shell.manifest(*TWO)
        assert shell("run", "nightly.yaml").code == 0
        shell.use_api(server.base_url, key=None)
        assert shell("resolve").code == 0


def test_missing_job_stays_in_doubt_until_the_settle_time_is_over(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        early, late = shell("resolve"), shell("resolve", "--settle", "0")
        assert count_posts(server) == 1
    assert (early.code, late.code) == (3, 0)
    assert "in doubt: not at the API so far" in early.out
    assert "field-a: check whether the API has a job of workflow w-1 in project p-1 created between" in early.err
    assert "pixxel-runner resolve --absent field-a" in early.err
    assert "not created (not found)" in late.out


def test_unreachable_api_leaves_jobs_in_doubt(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        run_in_doubt(shell)
    done = shell("resolve", "--settle", "0", "--base-url", server.url)
    assert done.code == 3
    assert done.out.count("in doubt: the API's list of jobs could not be retrieved") == 2


def test_unreadable_list_leaves_jobs_in_doubt(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST):
        run_in_doubt(shell)
        shell.environment["PIXXEL_API_KEY"] = "another"
        done = shell("resolve", "--settle", "0")
    assert done.code == 3
    assert done.out.count("in doubt: the API's list of jobs could not be retrieved (HTTP 401)") == 2


def test_missing_key_leaves_jobs_in_doubt(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST) as server:
        run_in_doubt(shell)
        shell.use_api(server.base_url, key=None)
        done = shell("resolve")
    assert (done.code, done.out) == (4, "")
    assert "no API key" in done.err
    assert {line["state"] for line in export_ledger(shell)} == {"in_doubt"}


def test_more_jobs_than_doubts_need_a_manual_decision_and_candidates_are_shown(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST):
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        other = backend.create(WORKFLOW, PROJECT)
        done = shell("resolve", "nightly.yaml")
        ids = {job.id for job in backend.jobs(WORKFLOW)}
    assert done.code == 3
    assert set(done.out.strip().partition("may be this one: ")[2].split(", ")) == ids
    assert other.id in ids
    assert "pixxel-runner resolve nightly.yaml --adopt field-a=JOB_ID" in done.err


def test_jobs_of_several_projects_are_created_with_a_note_that_ids_may_be_swapped(shell: Shell) -> None:
    with Backend() as backend:
        backend.add_pairs([(WORKFLOW, "p-2")])
        with sandbox(shell, backend, RESPONSES_LOST):
            run_in_doubt(shell, ("a", WORKFLOW, PROJECT), ("b", WORKFLOW, "p-2"))
            done = shell("resolve")
    assert done.code == 0
    assert done.out.count("the API does not say which of") == 2


def test_json_output(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST):
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        [entry] = json.loads(shell("resolve", "--format", "json").out)
        [job] = backend.jobs(WORKFLOW)
        assert shell("resolve", "--format", "json").out == "[]\n"
    assert entry.items() >= {"name": "field-a", "outcome": "created", "action": "found", "job_id": job.id}.items()


def test_text_from_the_server_is_escaped(shell: Shell) -> None:
    hostile = [{"id": f"\x1b[31m::error::{number}"} for number in range(2)]
    with scripted(shell, Reset(creates=True), hostile):
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        done = shell("resolve")
        as_json = shell("resolve", "--format", "json")
    assert done.code == 3
    assert "\x1b" not in done.out + done.err
    assert r"\x1b[31m::error::0" in done.out
    assert json.loads(as_json.out)[0]["candidates"] == [job["id"] for job in hostile]


def test_broken_pipe_changes_nothing(shell: Shell) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST), os.fdopen(writer, "w") as stdout:
        run_in_doubt(shell)
        done = shell("resolve", stdout=stdout)
    assert (done.code, done.err) == (0, "")
    assert {line["state"] for line in export_ledger(shell)} == {"created"}


# Runs in progress and killed runs


def test_locked_manifest_is_skipped(shell: Shell) -> None:
    gate = threading.Event()
    with scripted(shell, Stall(gate, created("job-1"))) as server:
        shell.manifest(("field-a", WORKFLOW, PROJECT))
        with shell.start("run", "nightly.yaml", "--hold") as run:
            server.wait_for_requests(1)
            lookup, absent = shell("resolve", "--settle", "0"), shell("resolve", "--absent", "field-a")
            gate.set()
            assert run.wait(60) == 0
        assert len(server.requests) == 1
    assert (lookup.code, lookup.out) == (5, "")
    assert "skipped: manifest 'nightly' is locked" in lookup.err
    assert absent.code == 5
    assert [(line["state"], line["job_id"]) for line in export_ledger(shell)] == [("created", "job-1")]


def test_claims_of_a_killed_run_are_looked_up(shell: Shell) -> None:
    never = threading.Event()
    listed: list[dict[str, Any]] = [{"id": "job-1", "cost": 12}]
    with scripted(shell, Stall(never, created("job-1")), listed) as server:
        shell.manifest(("field-a", WORKFLOW, PROJECT))
        with shell.start("run", "nightly.yaml", "--hold") as run:
            server.wait_for_requests(1)
            run.send_signal(signal.SIGKILL)
            run.wait(60)
        done = shell("resolve")
        assert count_posts(server) == 1
    assert (done.code, done.out.count("created as job-1 (found)")) == (0, 1)


def test_other_manifests_are_resolved_while_one_is_locked(shell: Shell) -> None:
    gate = threading.Event()
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST):
        run_in_doubt(shell)
        with Ledger(shell.ledger) as ledger:  # another manifest, with a request in flight in another workflow
            job = ledger_history.job("live", "w-2")
            run = ledger_history.start_run(
                ledger,
                "20990101T000000Z-live",
                [job],
                api=shell.environment["PIXXEL_BASE_URL"],
                manifest="other",
                end=None,
            )
            ledger_history.send(ledger, run, job, None)
            with lock.hold(shell.ledger, run.api, "other", timeout=0, activity="run 20990101T000000Z-live"):
                done = shell("resolve")
    gate.set()
    assert (done.code, done.out.count("created as")) == (0, 2)
    assert "manifest 'other' is locked" in done.err
    assert [line["state"] for line in export_ledger(shell)] == ["created", "created", "sending"]


# Manual decisions


def test_adopt_saves_the_response_and_the_decision(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST):
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        backend.create(WORKFLOW, PROJECT)
        [job, _] = backend.jobs(WORKFLOW)
        done = shell("resolve", "--adopt", f"field-a={job.id}")
        run = shell("run", "nightly.yaml")
        assert backend.created == 2
    assert (done.code, run.code) == (0, 0)
    assert f"field-a (run {export_ledger(shell)[0]['run_id']}): created as {job.id} (adopted)" in done.out
    [line] = export_ledger(shell)
    assert (line["state"], line["recovered"], line["cost"], line["job"]["id"]) == ("created", True, job.cost, job.id)
    [decision] = line["decisions"]
    assert decision["action"] == "adopted"
    assert "@" in decision["decided_by"]
    assert job.id in decision["detail"]


def test_decisions_are_applied_all_or_none(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST):
        run_in_doubt(shell)
        job_id = backend.jobs(WORKFLOW)[0].id
        done = shell("resolve", "--adopt", f"field-a={job_id}", "--adopt", "field-b=nonsense", "--absent", "field-c")
        mixed = shell("resolve", "--absent", "field-a", "--adopt", "field-b=nonsense")
    assert (done.code, mixed.code) == (2, 4)
    assert (
        "'field-b' cannot adopt the job 'nonsense' of workflow 'w-1': the API does not know it (HTTP 404)" in mixed.err
    )
    assert {line["state"] for line in export_ledger(shell)} == {"in_doubt"}


def test_adopt_rejects_a_job_of_another_workflow(shell: Shell) -> None:
    jobs = [{"id": "job-1", "workflow_id": "w-9"}]
    with scripted(shell, Reset(), jobs):
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        done = shell("resolve", "--adopt", "field-a=job-1")
    assert done.code == 4
    assert "it belongs to workflow 'w-9'" in done.err
    assert export_ledger(shell)[0]["state"] == "in_doubt"


def test_adopt_rejects_a_job_of_another_submission(shell: Shell) -> None:
    with Backend() as backend, refusing_port() as port:
        with sandbox(shell, backend, port=port):
            shell.manifest(*TWO[:1], path="other.yaml")
            assert shell("run", "other.yaml").code == 0
        with sandbox(shell, backend, RESPONSES_LOST, port=port):
            run_in_doubt(shell)
            [job, *_] = backend.jobs(WORKFLOW)
            done = shell("resolve", "--adopt", f"field-b={job.id}")
    assert done.code == 4
    assert "it belongs to 'field-a' of other" in done.err


def test_adopt_after_absent_prevents_another_send(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST) as server:
        run_in_doubt(shell, ("a=b", WORKFLOW, PROJECT))
        [job] = backend.jobs(WORKFLOW)
        assert shell("resolve", "--absent", "a=b").code == 0
        second = shell("resolve", "--absent", "a=b")
        done = shell("resolve", "--adopt", f"a=b={job.id}")
        shell.use_api(server.base_url)
        assert shell("run", "nightly.yaml").code == 0
        assert backend.created == 1
    assert second.code == 4
    assert "adopt its job with --adopt" in second.err
    assert done.code == 0
    assert f"created as {job.id} (adopted)" in done.out


def test_adopt_warns_about_a_much_older_job(shell: Shell) -> None:
    with scripted(shell, Reset(), [{"id": "job-1", "created_at": "2020-01-01T00:00:00Z"}]):
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        done = shell("resolve", "--adopt", "field-a=job-1")
    assert done.code == 0
    assert "the adopted job was created at 2020-01-01 00:00:00 UTC" in done.err


def test_absent_needs_no_key_or_network_and_the_job_is_sent_again(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        run_in_doubt(shell)
        shell.use_api(server.url, key=None)
        before = len(server.requests)
        done = shell("resolve", "nightly.yaml", "--absent", "field-a")
        assert len(server.requests) == before
        assert done.code == 3  # the other job is still in doubt
        shell.use_api(server.url)
        shell("run", "nightly.yaml", "--hold")
        assert count_posts(server) == 3
    assert "field-a" in done.out
    assert "not created (absent)" in done.out
    assert re.search("1 job of nightly at .* is still in doubt", done.err)
    assert "if the job was created after all (a job of workflow w-1 in project p-1 created between" in done.err
    assert "will create it a second time" in done.err
    assert [decision["action"] for decision in export_ledger(shell)[0]["decisions"]] == ["absent"]


def test_absent_shows_the_candidates_of_the_last_lookup(shell: Shell) -> None:
    with Backend() as backend, sandbox(shell, backend, RESPONSES_LOST):
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        backend.create(WORKFLOW, PROJECT)
        shell("resolve")
        done = shell("resolve", "--absent", "field-a")
        assert all(job.id in done.err for job in backend.jobs(WORKFLOW))


def test_name_that_is_not_in_doubt(shell: Shell) -> None:
    with scripted(shell, Reset(), [{"id": "job-1"}]):
        run_in_doubt(shell)
        assert shell("resolve", "--adopt", "field-a=job-1").code == 3
        typo, resolved, unknown = (
            shell("resolve", "--absent", name) for name in ("feild-b", "field-a", "something-else")
        )
    assert (typo.code, resolved.code, unknown.code) == (2, 4, 2)
    assert "Did you mean 'field-b'" in typo.err
    assert "'field-a' is not in doubt: created as job-1 by run" in resolved.err
    assert "In doubt: 'field-b'." in unknown.err


def test_name_in_doubt_in_two_runs_needs_the_run_option(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT), once_per="run")
        run_in_doubt(shell, ("field-a", WORKFLOW, PROJECT), once_per="run")
        first, second = (line["run_id"] for line in export_ledger(shell))
        ambiguous = shell("resolve", "--absent", "field-a")
        unknown = shell("resolve", "--absent", "field-a", "--run", "1999")
        absent = shell("resolve", "--absent", "field-a", "--run", second)
        lookup = shell("resolve", "--settle", "0", "--run", first)
        assert count_posts(server) == 2
    assert (ambiguous.code, unknown.code, absent.code, lookup.code) == (2, 2, 0, 0)
    assert first in ambiguous.err
    assert second in ambiguous.err
    assert "--run RUN" in ambiguous.err
    # Two runs of the same second have no defined order.
    assert f"It is in doubt in {' and '.join(sorted((first, second)))}" in unknown.err
    assert [line["decisions"][0]["action"] for line in export_ledger(shell)] == ["not found", "absent"]


@pytest.mark.parametrize("value", ["field-a", "=job", "field-a=", "field-a= "])
def test_invalid_adopt_value(shell: Shell, value: str) -> None:
    with scripted(shell, Reset()):
        run_in_doubt(shell)
        done = shell("resolve", "--adopt", value)
    assert (done.code, done.out) == (2, "")
    assert "For example: --adopt field-a=" in done.err


# Which manifest, API and ledger


def test_manifest_can_be_named_by_file_or_name(shell: Shell) -> None:
    with scripted(shell, Reset()):
        run_in_doubt(shell)
        shell.manifest(("x", "w-2", PROJECT), path="other.yaml")
        shell("run", "other.yaml", "--hold")
        results = [shell("resolve", target) for target in ("other", "other.yaml", str(shell.directory / "other.yaml"))]
        shell.write("other.yaml", "jobs: [")
        results.append(shell("resolve", "other.yaml"))
        (shell.directory / "other.yaml").unlink()
        results.append(shell("resolve", "other.yaml"))
        unknown = shell("resolve", "othr")
    assert {done.code for done in results} == {3}
    assert {done.out.splitlines()[0].partition(" (run")[0] for done in results} == {"other: x"}
    assert {len(done.out.splitlines()) for done in results} == {1}
    assert unknown.code == 2
    assert "Manifests in the ledger: 'other'." in unknown.err


def test_doubts_at_another_api_are_mentioned_and_left_alone(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        run_in_doubt(shell)
        with Backend() as backend, sandbox(shell, backend):
            done = shell("resolve", "--settle", "0")
    assert (done.code, done.out) == (0, "")
    assert f"2 jobs in doubt at {server.url}" in done.err
    assert {line["state"] for line in export_ledger(shell)} == {"in_doubt"}


def test_missing_ledger_is_not_created(shell: Shell) -> None:
    with refusing_port() as port:
        shell.use_api(f"http://127.0.0.1:{port}")
        done = shell("resolve")
    assert done.code == 4
    assert "there is no ledger at" in done.err
    assert list(shell.directory.iterdir()) == []


def test_sandbox_has_its_own_doubts(shell: Shell) -> None:
    path = shell.directory / ".pixxel-runner" / "sandbox" / "ledger.db"
    path.parent.mkdir(parents=True)
    create_ledger(path)
    with Ledger(path) as ledger:
        job = ledger_history.job("field-a", "sandbox-workflow", "p")
        ledger_history.send(ledger, ledger_history.start_run(ledger, "run-1", [job], api="sandbox"), job, None)
    done = shell("resolve", "--sandbox")
    assert (done.code, done.err) == (0, "")
    assert "not created (not found)" in done.out
