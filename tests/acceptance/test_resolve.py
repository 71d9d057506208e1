"""`resolve` as a person has it: doubts of real runs against a server, whose own record is what is believed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import past
from support.shell import KEY, Done, Shell
from support.wire import Request, Reset, Script, Stall, WireServer, created, refusing_port, reply

from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger
from runner.sandbox.backend import Backend
from runner.sandbox.faults import Fault
from runner.sandbox.server import Sandbox

WORKFLOW, PROJECT = "w-1", "p-1"
TWO = (("field-a", WORKFLOW, PROJECT), ("field-b", WORKFLOW, PROJECT))
LOSES = Fault("bad-gateway", 1.0)  # every job is created, and nobody is told


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@contextmanager
def sandbox(shell: Shell, world: Backend, *faults: Fault, port: int = 0) -> Iterator[Sandbox]:
    """The sandbox with the workflows of the tests, which the shell works with."""
    world.add_pairs([(WORKFLOW, PROJECT), ("w-2", PROJECT)])
    with Sandbox(world, key=KEY, faults=faults, port=port) as server:
        shell.at(server.base_url)
        yield server


@contextmanager
def scripted(shell: Shell, post: Script, jobs: list[dict[str, Any]] | None = None) -> Iterator[WireServer]:
    """A server that plays one script for each POST, lists these jobs, and tells each of them."""
    listed = jobs if jobs is not None else []

    def choose(request: Request) -> Script:
        if request.method == "POST":
            return post
        one = next((job for job in listed if request.target.endswith(f"/{job['id']}")), None)
        if request.target.endswith("/jobs"):
            return reply(200, json.dumps({"jobs": listed}).encode())
        return reply(404) if one is None else reply(200, json.dumps(one).encode())

    with WireServer(choose=choose) as server:
        shell.at(server.url)
        yield server


def in_doubt(shell: Shell, *pairs: tuple[str, str, str], once_per: str = "day") -> Done:
    """Run a manifest and leave its doubts alone."""
    shell.manifest(*(pairs or TWO), once_per=once_per)
    done = shell("run", "nightly.yaml", "--hold", "--new" if once_per == "run" else "--hold")
    assert done.code == 3, done
    return done


def exported(shell: Shell) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shell("ledger", "export").out.splitlines()]


def posts(server: WireServer) -> int:
    return sum(request.method == "POST" for request in server.requests)


# By a look.


def test_what_is_found_is_settled_and_nothing_is_sent(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES):
        in_doubt(shell)
        done = shell("resolve")
        assert world.created == 2
        ids = {job.id for job in world.jobs(WORKFLOW)}
        again = shell("resolve")
    assert done.code == 0
    assert {line.partition(": created as ")[2] for line in done.out.splitlines()} == {f"{one} (found)" for one in ids}
    assert {line["job_id"] for line in exported(shell)} == ids
    assert {line["decisions"][0]["what"] for line in exported(shell)} == {"found"}
    assert (again.code, again.out) == (0, "")
    assert "are in doubt" in again.err


def test_with_nothing_in_doubt_no_key_is_needed(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world) as server:
        shell.manifest(*TWO)
        assert shell("run", "nightly.yaml").code == 0
        shell.at(server.base_url, key=None)
        assert shell("resolve").code == 0


def test_what_may_still_come_stays_in_doubt_until_it_is_settled(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        early, late = shell("resolve"), shell("resolve", "--settle", "0")
        assert posts(server) == 1
    assert (early.code, late.code) == (3, 0)
    assert "in doubt: not at the API so far" in early.out
    assert "field-a: check if the API has a job of workflow w-1 in project p-1 created between" in early.err
    assert "pixxel-runner resolve --absent field-a" in early.err
    assert "not created (not found)" in late.out


def test_an_api_that_does_not_answer_leaves_it_in_doubt(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        in_doubt(shell)
    done = shell("resolve", "--settle", "0", "--base-url", server.url)
    assert done.code == 3
    assert done.out.count("in doubt: the API could not be asked") == 2


def test_a_list_that_is_refused_is_no_proof_of_anything(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES):
        in_doubt(shell)
        shell.environment["PIXXEL_API_KEY"] = "another"
        done = shell("resolve", "--settle", "0")
    assert done.code == 3
    assert done.out.count("in doubt: the API's list of jobs could not be read (HTTP 401)") == 2


def test_without_a_key_it_says_so_and_keeps_the_doubt(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES) as server:
        in_doubt(shell)
        shell.at(server.base_url, key=None)
        done = shell("resolve")
    assert (done.code, done.out) == (4, "")
    assert "no API key" in done.err
    assert {line["state"] for line in exported(shell)} == {"in_doubt"}


def test_more_jobs_than_doubts_are_left_to_a_person_with_the_candidates(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES):
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        other = world.create(WORKFLOW, PROJECT)
        done = shell("resolve", "nightly.yaml")
        ids = {job.id for job in world.jobs(WORKFLOW)}
    assert done.code == 3
    assert set(done.out.strip().partition("may be it: ")[2].split(", ")) == ids
    assert other.id in ids
    assert "pixxel-runner resolve nightly.yaml --adopt field-a=JOB_ID" in done.err


def test_over_projects_all_are_created_and_it_says_that_it_is_not_certain_which_is_whose(shell: Shell) -> None:
    with Backend() as world:
        world.add_pairs([(WORKFLOW, "p-2")])
        with sandbox(shell, world, LOSES):
            in_doubt(shell, ("a", WORKFLOW, PROJECT), ("b", WORKFLOW, "p-2"))
            done = shell("resolve")
    assert done.code == 0
    assert done.out.count("the API does not say which of") == 2


def test_json_says_the_same(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES):
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        [found] = json.loads(shell("resolve", "--format", "json").out)
        [job] = world.jobs(WORKFLOW)
        assert shell("resolve", "--format", "json").out == "[]\n"
    assert found.items() >= {"name": "field-a", "outcome": "created", "what": "found", "job_id": job.id}.items()


def test_what_the_server_says_cannot_act_on_the_terminal(shell: Shell) -> None:
    hostile = [{"id": f"\x1b[31m::error::{number}"} for number in range(2)]
    with scripted(shell, Reset(creates=True), hostile):
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        done = shell("resolve")
        as_json = shell("resolve", "--format", "json")
    assert done.code == 3
    assert "\x1b" not in done.out + done.err
    assert r"\x1b[31m::error::0" in done.out
    assert json.loads(as_json.out)[0]["candidates"] == [job["id"] for job in hostile]


def test_nobody_who_reads_changes_nothing(shell: Shell) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with Backend() as world, sandbox(shell, world, LOSES), os.fdopen(writer, "w") as stdout:
        in_doubt(shell)
        done = shell("resolve", stdout=stdout)
    assert (done.code, done.err) == (0, "")
    assert {line["state"] for line in exported(shell)} == {"created"}


# Manifests that are being run, and runs that were killed.


def test_a_manifest_that_is_being_run_is_left_alone(shell: Shell) -> None:
    answer = threading.Event()
    with scripted(shell, Stall(answer, created("job-1"))) as server:
        shell.manifest(("field-a", WORKFLOW, PROJECT))
        with shell.started("run", "nightly.yaml", "--hold") as run:
            server.wait_for_requests(1)
            looked, absent = shell("resolve", "--settle", "0"), shell("resolve", "--absent", "field-a")
            answer.set()
            assert run.wait(60) == 0
        assert len(server.requests) == 1
    assert (looked.code, looked.out) == (5, "")
    assert "skipped: manifest 'nightly' is locked" in looked.err
    assert absent.code == 5
    assert [(line["state"], line["job_id"]) for line in exported(shell)] == [("created", "job-1")]


def test_the_intents_of_a_run_that_was_killed_are_looked_up(shell: Shell) -> None:
    never = threading.Event()
    listed: list[dict[str, Any]] = [{"id": "job-1", "cost": 12}]
    with scripted(shell, Stall(never, created("job-1")), listed) as server:
        shell.manifest(("field-a", WORKFLOW, PROJECT))
        with shell.started("run", "nightly.yaml", "--hold") as run:
            server.wait_for_requests(1)
            run.send_signal(signal.SIGKILL)
            run.wait(60)
        done = shell("resolve")
        assert posts(server) == 1
    assert (done.code, done.out.count("created as job-1 (found)")) == (0, 1)


def test_others_are_settled_while_one_is_being_run(shell: Shell) -> None:
    answer = threading.Event()
    with Backend() as world, sandbox(shell, world, LOSES):
        in_doubt(shell)
        with Ledger(shell.ledger) as ledger:  # a manifest that has a live send, in another workflow
            one = past.job("live", "w-2")
            run = past.begin(ledger, "20990101T000000Z-live", [one], api=shell.environment["PIXXEL_BASE_URL"],
                             manifest="other", end=None)  # fmt: skip
            past.send(ledger, run, one, None)
            with lock.hold(shell.ledger, run.api, "other", timeout=0, activity="run 20990101T000000Z-live"):
                done = shell("resolve")
    answer.set()
    assert (done.code, done.out.count("created as")) == (0, 2)
    assert "manifest 'other' is locked" in done.err
    assert [line["state"] for line in exported(shell)] == ["created", "created", "sending"]


# By hand.


def test_a_job_is_adopted_with_the_bytes_of_the_answer_and_a_trace(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES):
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        world.create(WORKFLOW, PROJECT)
        [mine, _] = world.jobs(WORKFLOW)
        done = shell("resolve", "--adopt", f"field-a={mine.id}")
        run = shell("run", "nightly.yaml")
        assert world.created == 2
    assert (done.code, run.code) == (0, 0)
    assert f"field-a (run {exported(shell)[0]['run_id']}): created as {mine.id} (adopted)" in done.out
    [line] = exported(shell)
    assert (line["state"], line["recovered"], line["cost"], line["job"]["id"]) == ("created", True, mine.cost, mine.id)
    [decision] = line["decisions"]
    assert decision["what"] == "adopted"
    assert "@" in decision["decided_by"]
    assert mine.id in decision["detail"]


def test_nothing_is_half_done(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES):
        in_doubt(shell)
        good = world.jobs(WORKFLOW)[0].id
        done = shell("resolve", "--adopt", f"field-a={good}", "--adopt", "field-b=nonsense", "--absent", "field-c")
        mixed = shell("resolve", "--absent", "field-a", "--adopt", "field-b=nonsense")
    assert (done.code, mixed.code) == (2, 4)
    assert (
        "'field-b' cannot adopt the job 'nonsense' of workflow 'w-1': the API does not know it (HTTP 404)" in mixed.err
    )
    assert {line["state"] for line in exported(shell)} == {"in_doubt"}


def test_a_job_of_another_workflow_is_refused(shell: Shell) -> None:
    answered = [{"id": "job-1", "workflow_id": "w-9"}]
    with scripted(shell, Reset(), answered):
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        done = shell("resolve", "--adopt", "field-a=job-1")
    assert done.code == 4
    assert "it is one of workflow 'w-9'" in done.err
    assert exported(shell)[0]["state"] == "in_doubt"


def test_a_job_that_another_submission_has_is_refused(shell: Shell) -> None:
    with Backend() as world, refusing_port() as port:
        with sandbox(shell, world, port=port):
            shell.manifest(*TWO[:1], path="other.yaml")
            assert shell("run", "other.yaml").code == 0
        with sandbox(shell, world, LOSES, port=port):
            in_doubt(shell)
            [theirs, *_] = world.jobs(WORKFLOW)
            done = shell("resolve", "--adopt", f"field-b={theirs.id}")
    assert done.code == 4
    assert "it is that of 'field-a' of other" in done.err


def test_what_was_said_to_be_absent_is_adopted_after_all_and_not_bought_again(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES) as server:
        in_doubt(shell, ("a=b", WORKFLOW, PROJECT))
        [mine] = world.jobs(WORKFLOW)
        assert shell("resolve", "--absent", "a=b").code == 0
        again = shell("resolve", "--absent", "a=b")
        done = shell("resolve", "--adopt", f"a=b={mine.id}")
        shell.at(server.base_url)
        assert shell("run", "nightly.yaml").code == 0
        assert world.created == 1
    assert again.code == 4
    assert "--adopt takes its job" in again.err
    assert done.code == 0
    assert f"created as {mine.id} (adopted)" in done.out


def test_a_job_that_is_much_older_is_adopted_with_a_warning(shell: Shell) -> None:
    with scripted(shell, Reset(), [{"id": "job-1", "created_at": "2020-01-01T00:00:00Z"}]):
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        done = shell("resolve", "--adopt", "field-a=job-1")
    assert done.code == 0
    assert "the adopted job was created at 2020-01-01 00:00:00 UTC" in done.err


def test_a_job_is_declared_absent_without_key_and_network_and_is_sent_again(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        in_doubt(shell)
        shell.at(server.url, key=None)
        before = len(server.requests)
        done = shell("resolve", "nightly.yaml", "--absent", "field-a")
        assert len(server.requests) == before
        assert done.code == 3  # the other one is in doubt still
        shell.at(server.url)
        shell("run", "nightly.yaml", "--hold")
        assert posts(server) == 3
    assert "field-a" in done.out
    assert "not created (absent)" in done.out
    assert "1 job of nightly at" in done.err
    assert "a job of workflow w-1 in project p-1 created between" in done.err
    assert "will create it a second time" in done.err
    assert [one["what"] for one in exported(shell)[0]["decisions"]] == ["absent"]


def test_absent_says_what_the_last_look_found(shell: Shell) -> None:
    with Backend() as world, sandbox(shell, world, LOSES):
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT))
        world.create(WORKFLOW, PROJECT)
        shell("resolve")
        done = shell("resolve", "--absent", "field-a")
        assert all(job.id in done.err for job in world.jobs(WORKFLOW))


def test_names_that_are_not_in_doubt(shell: Shell) -> None:
    with scripted(shell, Reset(), [{"id": "job-1"}]):
        in_doubt(shell)
        assert shell("resolve", "--adopt", "field-a=job-1").code == 3
        typo, settled, again = (shell("resolve", "--absent", name) for name in ("feild-b", "field-a", "something-else"))
    assert (typo.code, settled.code, again.code) == (2, 4, 2)
    assert "Did you mean 'field-b'" in typo.err
    assert "'field-a' is not in doubt: created as job-1 by run" in settled.err
    assert "In doubt are 'field-b'." in again.err


def test_a_name_in_doubt_in_two_runs_needs_the_run(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT), once_per="run")
        in_doubt(shell, ("field-a", WORKFLOW, PROJECT), once_per="run")
        first, second = (line["run_id"] for line in exported(shell))
        vague = shell("resolve", "--absent", "field-a")
        wrong = shell("resolve", "--absent", "field-a", "--run", "1999")
        one = shell("resolve", "--absent", "field-a", "--run", second)
        rest = shell("resolve", "--settle", "0", "--run", first)
        assert posts(server) == 2
    assert (vague.code, wrong.code, one.code, rest.code) == (2, 2, 0, 0)
    assert first in vague.err
    assert second in vague.err
    assert "--run RUN" in vague.err
    # Two runs of one second are in no order.
    assert f"It is in doubt in {' and in '.join(sorted((first, second)))}" in wrong.err
    assert [line["decisions"][0]["what"] for line in exported(shell)] == ["not found", "absent"]


@pytest.mark.parametrize("text", ["field-a", "=job", "field-a=", "field-a= "])
def test_an_adoption_that_cannot_be_read(shell: Shell, text: str) -> None:
    with scripted(shell, Reset()):
        in_doubt(shell)
        done = shell("resolve", "--adopt", text)
    assert (done.code, done.out) == (2, "")
    assert "For example: --adopt field-a=" in done.err


# Whose.


def test_a_manifest_is_given_by_its_file_or_by_its_name(shell: Shell) -> None:
    with scripted(shell, Reset()):
        in_doubt(shell)
        shell.manifest(("x", "w-2", PROJECT), path="other.yaml")
        shell("run", "other.yaml", "--hold")
        given = [shell("resolve", one) for one in ("other", "other.yaml", str(shell.folder / "other.yaml"))]
        shell.write("other.yaml", "jobs: [")
        given.append(shell("resolve", "other.yaml"))
        (shell.folder / "other.yaml").unlink()
        given.append(shell("resolve", "other.yaml"))
        nobody = shell("resolve", "othr")
    assert {done.code for done in given} == {3}
    assert {done.out.splitlines()[0].partition(" (run")[0] for done in given} == {"other: x"}
    assert {len(done.out.splitlines()) for done in given} == {1}
    assert nobody.code == 2
    assert "It contains 'other'." in nobody.err


def test_doubts_at_another_api_are_mentioned_and_not_touched(shell: Shell) -> None:
    with scripted(shell, Reset()) as server:
        in_doubt(shell)
        with Backend() as world, sandbox(shell, world):
            done = shell("resolve", "--settle", "0")
    assert (done.code, done.out) == (0, "")
    assert f"2 jobs in doubt at {server.url}" in done.err
    assert {line["state"] for line in exported(shell)} == {"in_doubt"}


def test_without_a_ledger_none_is_made(shell: Shell) -> None:
    with refusing_port() as port:
        shell.at(f"http://127.0.0.1:{port}")
        done = shell("resolve")
    assert done.code == 4
    assert "there is no ledger at" in done.err
    assert list(shell.folder.iterdir()) == []


def test_the_sandbox_has_doubts_of_its_own(shell: Shell) -> None:
    path = shell.folder / ".pixxel-runner" / "sandbox" / "ledger.db"
    path.parent.mkdir(parents=True)
    create_ledger(path)
    with Ledger(path) as ledger:
        one = past.job("field-a", "a-workflow-of-its-own", "p")
        past.send(ledger, past.begin(ledger, "run-1", [one], api="sandbox"), one, None)
    done = shell("resolve", "--sandbox")
    assert (done.code, done.err) == (0, "")
    assert "not created (not found)" in done.out
