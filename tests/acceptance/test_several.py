"""Several manifests in one command: all are checked first, each keeps its own record, one summary covers all."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import shell as shells
from support.schemas import check_results
from support.shell import KEY, Done, Shell
from support.wire import Request, Reset, Script, Stall, WireServer, created, reply

from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.sandbox.backend import Backend
from runner.sandbox.server import Sandbox

PAIR = "  - {name: more, workflow_id: w-2, project_id: p-2}\n"


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-P", "-m", "runner", *map(str, arguments)]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(shells, "command", command)
    one = Shell(tmp_path)
    one.manifest(("north", "w-1", "p-1"), ("south", "w-2", "p-1"), path="jobs/a.yaml")
    one.manifest(("east", "w-1", "p-2"), path="jobs/b.yaml", once_per="forever")
    return one


@dataclass
class Desk:
    shell: Shell
    world: Backend

    def __call__(self, *arguments: str) -> Done:
        done = self.shell.call(*arguments)
        assert KEY not in done.out + done.err
        return done

    def results(self, stem: str) -> Any:
        return check_results(self.shell.folder / f"{stem}.results.json")


@pytest.fixture
def desk(shell: Shell) -> Iterator[Desk]:
    with Backend() as world:
        world.add_pairs((workflow, project) for workflow in ("w-1", "w-2") for project in ("p-1", "p-2"))
        with Sandbox(world, key=KEY) as server:
            shell.at(server.base_url)
            yield Desk(shell, world)


def test_a_folder_is_run_in_order_each_with_a_record_and_one_summary_for_all(desk: Desk) -> None:
    done = desk("run", "jobs")
    assert (done.code, desk.world.created) == (0, 3)
    assert [line.split()[:2] for line in done.out.splitlines()[2:5]] == [["a", "north"], ["a", "south"], ["b", "east"]]
    notes = done.out.split("\n\n")[1].splitlines()
    assert [note.partition(" created")[0] for note in notes[:3]] == ["a: 2 jobs: 2", "b: 1 job: 1", "3 jobs: 3"]
    assert [one["name"] for one in desk.results("a")["created"]] == ["north", "south"]
    assert [one["name"] for one in desk.results("b")["created"]] == ["east"]
    assert desk.results("a")["run"]["id"] != desk.results("b")["run"]["id"]
    assert done.err.splitlines()[-2:] == ["results: a.results.json", "results: b.results.json"]
    again = desk("run", "jobs/b.yaml", "jobs/a.yaml")
    assert (again.code, desk.world.created) == (0, 3)


def test_nothing_is_sent_while_one_of_them_is_wrong_and_all_problems_are_told(desk: Desk) -> None:
    desk.shell.write("jobs/c.yaml", "version: 1\njobs: []\n")
    desk.shell.write("jobs/d.yaml", "version: 2\njobs: [{workflow_id: w-1, project_id: p-1}]\n")
    done = desk("run", "jobs")
    assert (done.code, desk.world.created) == (2, 0)
    assert "jobs/c.yaml:2:" in done.err
    assert "jobs/d.yaml:1:" in done.err
    assert "error: 2 problems in 2 manifests; nothing was sent" in done.err


@pytest.mark.parametrize(
    ("path", "arguments", "words"),
    [
        ("more/a.yaml", (), "two outputs would be written to a.results.json"),
        ("jobs/c.yaml", (), "jobs/c.yaml and jobs/a.yaml are both named 'a'"),
        ("more/c.yaml", ("--results", "one.json"), "--results one.json is no folder, and there are several manifests"),
        ("more/c.yaml", ("--report", "csv=a.results.json"), "two outputs would be written to a.results.json"),
        ("more/c.yaml", ("--report", "csv=jobs/a.yaml"), "jobs/a.yaml would overwrite a file that is needed"),
        ("more/c.yaml", ("--report", "csv=nowhere/a.csv"), "the report nowhere/a.csv cannot be written"),
    ],
)
def test_what_would_collide_or_be_lost_is_refused_before_anything_is_sent(
    desk: Desk, path: str, arguments: tuple[str, ...], words: str
) -> None:
    name = "name: a\n" if "both named" in words else ""
    desk.shell.write(path, f"version: 1\n{name}jobs: [{{workflow_id: w-1, project_id: p-1}}]\n")
    done = desk("run", "jobs", *([] if path.startswith("jobs") else [path]), *arguments)
    assert words in done.err
    assert done.code in (2, 4)
    assert desk.world.created == 0


def test_results_go_to_a_folder(desk: Desk) -> None:
    (desk.shell.folder / "out").mkdir()
    assert desk("run", "jobs", "--results", "out").code == 0
    assert sorted(path.name for path in (desk.shell.folder / "out").iterdir()) == ["a.results.json", "b.results.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("jobs", "jobs/a.yaml"), "jobs/a.yaml is the same file as jobs/a.yaml"),
        (("empty",), "the directory empty contains no *.yaml files"),
        (("-", "-"), "standard input (-) can be read only once"),
        (("jobs", "gone.yaml"), "gone.yaml: no such file"),
    ],
)
@pytest.mark.parametrize("name", ["run", "plan"])
def test_what_is_named_must_be_there_and_once(desk: Desk, name: str, arguments: tuple[str, ...], words: str) -> None:
    (desk.shell.folder / "empty").mkdir()
    done = desk(name, *arguments)
    assert (done.code, desk.world.created) == (2, 0)
    assert words in done.err


def test_a_folder_is_its_yaml_files_and_says_what_it_leaves_aside(desk: Desk) -> None:
    desk.shell.write("jobs/.hidden.yaml", "no manifest")
    desk.shell.write("jobs/deeper/c.yaml", "no manifest")
    desk.shell.write("jobs/notes.txt", "no manifest")
    desk.shell.write("jobs/c.yml", "no manifest")
    done = desk("validate", "jobs")
    assert (done.code, done.out.splitlines()) == (0, ["jobs/a.yaml: ok, 2 jobs", "jobs/b.yaml: ok, 1 job"])
    assert "jobs: ignored c.yml; only *.yaml files are read" in done.err


@pytest.mark.parametrize("name", ["run", "plan", "validate"])
def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(desk: Desk, name: str) -> None:
    os.mkfifo(desk.shell.folder / "jobs" / "z.yaml")
    done = desk(name, "jobs")
    assert (done.code, desk.world.created) == (2, 0)
    assert "jobs/z.yaml is not a regular file" in done.err


def test_one_that_may_not_run_keeps_no_other_from_running_and_the_worst_code_is_told(desk: Desk) -> None:
    folder = desk.shell.folder / "jobs"
    (folder / ".pixxel-runner").mkdir()
    ledger = folder / ".pixxel-runner" / "ledger.db"
    create_ledger(ledger)
    with lock.hold(ledger, desk.shell.environment["PIXXEL_BASE_URL"], "a", timeout=0, activity="run somewhere"):
        done = desk("run", "jobs")
    assert (done.code, desk.world.created) == (5, 1)
    assert "jobs/a.yaml: not run" in done.err
    assert "run somewhere" in done.err
    assert "b: 1 job: 1 created" in done.out


def test_the_worst_code_is_that_of_doubt(shell: Shell) -> None:
    def answer(request: Request) -> Script:
        if request.method == "GET":
            return reply(500)
        return Reset() if request.workflow == "w-2" else created(f"j-{request.project}")

    shell.manifest(("late", "w-9", "p-1"), path="jobs/c.yaml")
    with WireServer(choose=lambda r: reply(404) if r.workflow == "w-9" else answer(r)) as server:
        shell.at(server.url)
        done = shell("run", "jobs", "--hold")
    assert done.code == 3
    assert [check_results(shell.folder / f"{stem}.results.json")["summary"]["not_created"] for stem in "abc"] == [
        0,
        0,
        1,
    ]


def test_trouble_with_the_api_ends_all_of_them(shell: Shell) -> None:
    with WireServer(choose=lambda _: reply(401)) as server:
        shell.at(server.url)
        done = shell("run", "jobs", "--concurrency", "1")
    assert done.code == 4
    assert len(server.requests) == 1
    assert (
        "not begun, as what went before was not completed: jobs/b.yaml. To run: pixxel-runner run jobs/b.yaml"
        in done.err
    )
    assert not (shell.folder / "b.results.json").exists()


def test_ctrl_c_ends_all_of_them_and_tells_of_those_that_ran(shell: Shell) -> None:
    stall = Stall(threading.Event())
    shell.manifest(("first", "w-1", "p-9"), path="jobs/0.yaml")
    with WireServer(created("job-1"), stall) as server:
        shell.at(server.url)
        with shell.started("run", "jobs", "--hold", "--concurrency", "1") as process:
            server.wait_for_requests(2)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0: 1 job: 1 created" in out
    assert "not begun, as what went before was not completed: jobs/b.yaml. To run: pixxel-runner run jobs/b.yaml" in err
    assert check_results(shell.folder / "0.results.json")["summary"]["created"] == 1
    assert check_results(shell.folder / "a.results.json")["summary"]["in_doubt"] == 1
    assert {request.project for request in server.requests} <= {"p-9", "p-1"}


def test_only_and_again_are_about_all_of_them(desk: Desk) -> None:
    done = desk("run", "jobs", "--only", "e*")
    assert (done.code, desk.world.created) == (0, 1)
    assert "jobs/a.yaml: no job matches --only" in done.err
    assert desk("run", "jobs", "--again", "east").code == 0
    assert desk.world.created == 1 + 2 + 1
    wrong = desk("run", "jobs", "--only", "wast")
    assert (wrong.code, desk.world.created) == (2, 4)
    assert "--only 'wast' matches no job" in wrong.err


def test_documents_hold_all_of_them_however_many_there_are(desk: Desk) -> None:
    planned = json.loads(desk("plan", "jobs", "--format", "json").out)
    assert [one["manifest"]["name"] for one in planned["plans"]] == ["a", "b"]
    made = json.loads(desk("run", "jobs", "--format", "json").out)
    assert [one["run"]["manifest"]["name"] for one in made["runs"]] == ["a", "b"]
    (desk.shell.folder / "jobs" / "a.yaml").unlink()
    assert len(json.loads(desk("run", "jobs", "--format", "json").out)["runs"]) == 1


def test_plan_tells_of_all_of_them(desk: Desk) -> None:
    assert desk("run", "jobs/b.yaml").code == 0
    done = desk("plan", "jobs", "--exit-code")
    assert done.code == 1
    assert done.out.splitlines()[-1] == "3 jobs: 2 to submit, 0 to look up, 1 with nothing to do"
    assert desk.world.created == 1


def test_wait_follows_all_of_them_after_all_are_submitted(desk: Desk) -> None:
    done = desk("run", "jobs", "--wait")
    assert (done.code, desk.world.created) == (0, 3)
    assert {desk.results(stem)["created"][0]["job"]["status"] for stem in "ab"} == {"completed"}


def test_a_rehearsal_of_a_folder(shell: Shell) -> None:
    done = shell("run", "jobs", "--sandbox", "--wait")
    assert done.code == 0, done.err
    assert "3 jobs: 3 created" in done.out


@pytest.mark.parametrize("name", ["run", "plan", "show", "status"])
def test_each_command_writes_reports_beside_what_it_prints(desk: Desk, name: str) -> None:
    if name != "run":
        assert desk("run", "jobs/a.yaml").code == 0
    target = {"run": ["jobs/a.yaml"], "plan": ["jobs/a.yaml"], "show": ["--manifest", "jobs/a.yaml"]}
    arguments = target.get(name, ["jobs/a.yaml"])
    done = desk(name, *arguments, "--report", "csv=a.csv", "--report", "json=a.json", "--report", "markdown=a.md")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("job ")
    assert len((desk.shell.folder / "a.csv").read_text("utf-8").splitlines()) == 3
    assert json.loads((desk.shell.folder / "a.json").read_text("utf-8"))["version"] == 1
    assert (desk.shell.folder / "a.md").read_text("utf-8").endswith("\n")


def test_reports_are_written_under_quiet_too(desk: Desk) -> None:
    done = desk("run", "jobs", "--quiet", "--report", "markdown=all.md")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert "3 jobs: 3 created" in (desk.shell.folder / "all.md").read_text("utf-8")


@pytest.mark.parametrize("given", ["csv", "csv=", "=a.csv", "pdf=a.pdf"])
def test_a_report_is_asked_for_as_format_and_path(desk: Desk, given: str) -> None:
    done = desk("run", "jobs", "--report", given)
    assert (done.code, desk.world.created) == (2, 0)
    assert "expected FORMAT=PATH, where FORMAT is one of table, markdown, csv, json" in done.err


NEEDED = ("jobs/.pixxel-runner/ledger.db", "jobs/.pixxel-runner/ledger.db-wal", "jobs/.pixxel-runner/.gitignore")


@pytest.mark.parametrize("target", [*NEEDED, "jobs/a.yaml", "key", "linked.yaml"])
@pytest.mark.parametrize("name", ["run", "plan", "show", "status"])
def test_no_report_replaces_what_is_needed(desk: Desk, name: str, target: str) -> None:
    folder = desk.shell.folder
    assert desk("run", "jobs/a.yaml").code == 0
    desk.shell.write("key", KEY).chmod(0o600)
    (folder / "linked.yaml").hardlink_to(folder / "jobs" / "a.yaml")
    if name == "show" and target == "key":
        return  # it has no key
    arguments = {"show": ["--manifest", "jobs/a.yaml"]}.get(name, ["jobs/a.yaml", "--api-key-file", "key"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = desk(name, *arguments, "--report", f"html={target}")
    assert done.code == 2
    assert {path: path.read_bytes() for path in before} == before


def test_a_report_is_a_file_and_not_standard_output(desk: Desk) -> None:
    done = desk("run", "jobs", "--report", "html=-")
    assert (done.code, desk.world.created) == (2, 0)
    assert "a report cannot be written to standard output (-)\n  Use --format instead." in done.err
    done = desk("run", "jobs/a.yaml", "--results", "-")
    assert (done.code, desk.world.created) == (2, 0)
    assert "the results file cannot be standard output (-)" in done.err


def test_one_more_is_of_one_manifest(desk: Desk) -> None:
    desk.shell.manifest(("north", "w-1", "p-2"), path="jobs/c.yaml")
    assert desk("run", "jobs").code == 0
    done = desk("run", "jobs", "--again", "north")
    assert (done.code, desk.world.created) == (2, 4)
    assert "2 of these manifests have a job of that name" in done.err


def test_a_file_under_two_names_is_one(desk: Desk) -> None:
    (desk.shell.folder / "jobs" / "z.yaml").hardlink_to(desk.shell.folder / "jobs" / "a.yaml")
    done = desk("run", "jobs")
    assert (done.code, desk.world.created) == (2, 0)
    assert "jobs/z.yaml is the same file as jobs/a.yaml" in done.err


def test_one_that_may_not_run_stays_in_the_monitoring_with_its_last_run(desk: Desk) -> None:
    report = ("--report", "prometheus=all.prom", "--quiet")
    assert desk("run", "jobs", *report).code == 0
    first = (desk.shell.folder / "all.prom").read_text("utf-8")
    text = (desk.shell.folder / "jobs" / "b.yaml").read_text("utf-8")
    desk.shell.write("jobs/b.yaml", text.replace("version: 1", "version: 1\nmax_cost: 0") + PAIR)
    done = desk("run", "jobs", *report)
    assert done.code == 4
    assert done.err.count("\n") == 1
    now = (desk.shell.folder / "all.prom").read_text("utf-8")
    finished = [line for line in first.splitlines() if "run_end_timestamp" in line and 'manifest="b"' in line]
    assert len(finished) == 1
    assert finished[0] in now.splitlines()


def test_success_is_silent_although_something_is_not_read(desk: Desk) -> None:
    desk.shell.write("jobs/c.yml", "no manifest")
    done = desk("run", "jobs", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("arguments", [("status", "jobs"), ("show", "--manifest", "jobs"), ("runs", "jobs")])
def test_what_is_about_one_manifest_takes_no_folder(desk: Desk, arguments: tuple[str, ...]) -> None:
    assert desk("run", "jobs").code == 0
    done = desk(*arguments)
    assert done.code == 2
    assert "jobs is a directory" in done.err
    assert "Name one manifest in it: jobs/NAME.yaml" in done.err


def test_very_many_need_no_more_open_files_than_one(desk: Desk) -> None:
    for number in range(60):
        desk.shell.manifest(("one", "w-1", "p-1"), path=f"many/{number:02}.yaml")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 40, hard))
    try:
        done = desk("run", "many")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (done.code, desk.world.created) == (0, 60), done.err
    assert "60 jobs: 60 created" in done.out


def test_a_sandbox_whose_folder_cannot_be_made_is_said(shell: Shell) -> None:
    shell.write("jobs/.pixxel-runner/sandbox", "a file")
    done = shell.call("run", "jobs/a.yaml", "--sandbox")
    assert done.code == 4
    assert "the directory jobs/.pixxel-runner/sandbox cannot be created" in done.err
