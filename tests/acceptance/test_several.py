"""Several manifests in one command: all are checked first, each has its own results file, one summary covers all."""

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
from support.shell import KEY, CompletedCommand, Shell
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
    shell = Shell(tmp_path)
    shell.manifest(("north", "w-1", "p-1"), ("south", "w-2", "p-1"), path="jobs/a.yaml")
    shell.manifest(("east", "w-1", "p-2"), path="jobs/b.yaml", once_per="forever")
    return shell


@dataclass
class Workspace:
    """A shell, and the sandbox backend that it works with."""

    shell: Shell
    backend: Backend

    def __call__(self, *arguments: str) -> CompletedCommand:
        done = self.shell.call(*arguments)
        assert KEY not in done.out + done.err
        return done

    def results(self, stem: str) -> Any:
        return check_results(self.shell.directory / f"{stem}.results.json")


@pytest.fixture
def workspace(shell: Shell) -> Iterator[Workspace]:
    with Backend() as backend:
        backend.add_pairs((workflow, project) for workflow in ("w-1", "w-2") for project in ("p-1", "p-2"))
        with Sandbox(backend, key=KEY) as server:
            shell.use_api(server.base_url)
            yield Workspace(shell, backend)


def test_directory_runs_in_order_with_a_results_file_each_and_one_summary(workspace: Workspace) -> None:
    done = workspace("run", "jobs")
    assert (done.code, workspace.backend.created) == (0, 3)
    assert [line.split()[:2] for line in done.out.splitlines()[2:5]] == [["a", "north"], ["a", "south"], ["b", "east"]]
    lines = done.out.split("\n\n")[1].splitlines()
    assert [line.partition(" created")[0] for line in lines[:3]] == ["a: 2 jobs: 2", "b: 1 job: 1", "3 jobs: 3"]
    assert [job["name"] for job in workspace.results("a")["created"]] == ["north", "south"]
    assert [job["name"] for job in workspace.results("b")["created"]] == ["east"]
    assert workspace.results("a")["run"]["id"] != workspace.results("b")["run"]["id"]
    assert done.err.splitlines()[-2:] == ["results: a.results.json", "results: b.results.json"]
    second = workspace("run", "jobs/b.yaml", "jobs/a.yaml")
    assert (second.code, workspace.backend.created) == (0, 3)


def test_one_invalid_manifest_sends_nothing_and_reports_all_problems(workspace: Workspace) -> None:
    workspace.shell.write("jobs/c.yaml", "version: 1\njobs: []\n")
    workspace.shell.write("jobs/d.yaml", "version: 2\njobs: [{workflow_id: w-1, project_id: p-1}]\n")
    done = workspace("run", "jobs")
    assert (done.code, workspace.backend.created) == (2, 0)
    assert "jobs/c.yaml:2:" in done.err
    assert "jobs/d.yaml:1:" in done.err
    assert "error: 2 problems in 2 manifests; nothing was sent" in done.err


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("more/a.yaml", (), "two outputs would be written to a.results.json"),
        ("jobs/c.yaml", (), "jobs/c.yaml and jobs/a.yaml are both named 'a'"),
        (
            "more/c.yaml",
            ("--results", "one.json"),
            "--results one.json must be a directory when running",
        ),
        ("more/c.yaml", ("--report", "csv=a.results.json"), "two outputs would be written to a.results.json"),
        ("more/c.yaml", ("--report", "csv=jobs/a.yaml"), "jobs/a.yaml would overwrite a file that is needed"),
        ("more/c.yaml", ("--report", "csv=nowhere/a.csv"), "the report nowhere/a.csv cannot be written"),
    ],
)
def test_conflicting_outputs_are_rejected_before_anything_is_sent(
    workspace: Workspace, path: str, arguments: tuple[str, ...], message: str
) -> None:
    name = "name: a\n" if "both named" in message else ""
    workspace.shell.write(path, f"version: 1\n{name}jobs: [{{workflow_id: w-1, project_id: p-1}}]\n")
    done = workspace("run", "jobs", *([] if path.startswith("jobs") else [path]), *arguments)
    assert message in done.err
    assert done.code in (2, 4)
    assert workspace.backend.created == 0


def test_results_option_takes_a_directory(workspace: Workspace) -> None:
    (workspace.shell.directory / "out").mkdir()
    assert workspace("run", "jobs", "--results", "out").code == 0
    assert sorted(path.name for path in (workspace.shell.directory / "out").iterdir()) == [
        "a.results.json",
        "b.results.json",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jobs", "jobs/a.yaml"), "jobs/a.yaml was given twice"),
        (("empty",), "the directory empty contains no *.yaml files"),
        (("-", "-"), "standard input (-) can be read only once"),
        (("jobs", "gone.yaml"), "gone.yaml: no such file"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_each_manifest_must_exist_and_be_named_once(
    workspace: Workspace, command: str, arguments: tuple[str, ...], message: str
) -> None:
    (workspace.shell.directory / "empty").mkdir()
    done = workspace(command, *arguments)
    assert (done.code, workspace.backend.created) == (2, 0)
    assert message in done.err


def test_directory_means_its_yaml_files_and_ignored_files_are_reported(workspace: Workspace) -> None:
    workspace.shell.write("jobs/.hidden.yaml", "not a manifest")
    workspace.shell.write("jobs/deeper/c.yaml", "not a manifest")
    workspace.shell.write("jobs/notes.txt", "not a manifest")
    workspace.shell.write("jobs/c.yml", "not a manifest")
    done = workspace("validate", "jobs")
    assert (done.code, done.out.splitlines()) == (0, ["jobs/a.yaml: ok, 2 jobs", "jobs/b.yaml: ok, 1 job"])
    assert "jobs: ignored c.yml; only *.yaml files are read" in done.err


@pytest.mark.parametrize("command", ["run", "plan", "validate"])
def test_pipe_in_a_directory_is_rejected_without_blocking(workspace: Workspace, command: str) -> None:
    os.mkfifo(workspace.shell.directory / "jobs" / "z.yaml")
    done = workspace(command, "jobs")
    assert (done.code, workspace.backend.created) == (2, 0)
    assert "jobs/z.yaml is not a regular file" in done.err


def test_locked_manifest_does_not_stop_the_others_and_the_worst_exit_code_wins(workspace: Workspace) -> None:
    folder = workspace.shell.directory / "jobs"
    (folder / ".pixxel-runner").mkdir()
    ledger = folder / ".pixxel-runner" / "ledger.db"
    create_ledger(ledger)
    with lock.hold(ledger, workspace.shell.environment["PIXXEL_BASE_URL"], "a", timeout=0, activity="run somewhere"):
        done = workspace("run", "jobs")
    assert (done.code, workspace.backend.created) == (5, 1)
    assert "jobs/a.yaml: not run" in done.err
    assert "run somewhere" in done.err
    assert "b: 1 job: 1 created" in done.out


def test_doubt_is_the_worst_exit_code(shell: Shell) -> None:
    def choose(request: Request) -> Script:
        if request.method == "GET":
            return reply(500)
        return Reset() if request.workflow == "w-2" else created(f"j-{request.project}")

    shell.manifest(("late", "w-9", "p-1"), path="jobs/c.yaml")
    with WireServer(choose=lambda request: reply(404) if request.workflow == "w-9" else choose(request)) as server:
        shell.use_api(server.url)
        done = shell("run", "jobs", "--hold")
    assert done.code == 3
    assert [check_results(shell.directory / f"{stem}.results.json")["summary"]["not_created"] for stem in "abc"] == [
        0,
        0,
        1,
    ]


def test_api_failure_ends_all_manifests(shell: Shell) -> None:
    with WireServer(choose=lambda _: reply(401)) as server:
        shell.use_api(server.url)
        done = shell("run", "jobs", "--concurrency", "1")
    assert done.code == 4
    assert len(server.requests) == 1
    assert (
        "jobs/b.yaml not started: an earlier manifest did not complete. To run: pixxel-runner run jobs/b.yaml"
        in done.err
    )
    assert not (shell.directory / "b.results.json").exists()


def test_ctrl_c_ends_all_manifests_and_reports_those_that_ran(shell: Shell) -> None:
    stall = Stall(threading.Event())
    shell.manifest(("first", "w-1", "p-9"), path="jobs/0.yaml")
    with WireServer(created("job-1"), stall) as server:
        shell.use_api(server.url)
        with shell.start("run", "jobs", "--hold", "--concurrency", "1") as process:
            server.wait_for_requests(2)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "0: 1 job: 1 created" in out
    assert "jobs/b.yaml not started: an earlier manifest did not complete. To run: pixxel-runner run jobs/b.yaml" in err
    assert check_results(shell.directory / "0.results.json")["summary"]["created"] == 1
    assert check_results(shell.directory / "a.results.json")["summary"]["in_doubt"] == 1
    assert {request.project for request in server.requests} <= {"p-9", "p-1"}


def test_only_and_again_apply_to_all_manifests(workspace: Workspace) -> None:
    done = workspace("run", "jobs", "--only", "e*")
    assert (done.code, workspace.backend.created) == (0, 1)
    assert "jobs/a.yaml: no job matches --only" in done.err
    assert workspace("run", "jobs", "--again", "east").code == 0
    assert workspace.backend.created == 1 + 2 + 1
    unknown = workspace("run", "jobs", "--only", "wast")
    assert (unknown.code, workspace.backend.created) == (2, 4)
    assert "--only 'wast' matches no job" in unknown.err


def test_json_lists_every_manifest_even_a_single_one(workspace: Workspace) -> None:
    plan = json.loads(workspace("plan", "jobs", "--format", "json").out)
    assert [document["manifest"]["name"] for document in plan["plans"]] == ["a", "b"]
    run = json.loads(workspace("run", "jobs", "--format", "json").out)
    assert [document["run"]["manifest"]["name"] for document in run["runs"]] == ["a", "b"]
    (workspace.shell.directory / "jobs" / "a.yaml").unlink()
    assert len(json.loads(workspace("run", "jobs", "--format", "json").out)["runs"]) == 1


def test_plan_covers_all_manifests(workspace: Workspace) -> None:
    assert workspace("run", "jobs/b.yaml").code == 0
    done = workspace("plan", "jobs", "--exit-code")
    assert done.code == 1
    assert done.out.splitlines()[-1] == "3 jobs: 2 to submit, 0 to look up, 1 with nothing to do"
    assert workspace.backend.created == 1


def test_wait_starts_after_all_manifests_are_submitted(workspace: Workspace) -> None:
    done = workspace("run", "jobs", "--wait")
    assert (done.code, workspace.backend.created) == (0, 3)
    assert {workspace.results(stem)["created"][0]["job"]["status"] for stem in "ab"} == {"completed"}


def test_sandbox_run_of_a_directory(shell: Shell) -> None:
    done = shell("run", "jobs", "--sandbox", "--wait")
    assert done.code == 0, done.err
    assert "3 jobs: 3 created" in done.out


@pytest.mark.parametrize("command", ["run", "plan", "show", "status"])
def test_each_command_writes_reports_and_prints_its_table(workspace: Workspace, command: str) -> None:
    if command != "run":
        assert workspace("run", "jobs/a.yaml").code == 0
    target = {"run": ["jobs/a.yaml"], "plan": ["jobs/a.yaml"], "show": ["--manifest", "jobs/a.yaml"]}
    arguments = target.get(command, ["jobs/a.yaml"])
    done = workspace(
        command, *arguments, "--report", "csv=a.csv", "--report", "json=a.json", "--report", "markdown=a.md"
    )
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("job ")
    assert len((workspace.shell.directory / "a.csv").read_text("utf-8").splitlines()) == 3
    assert json.loads((workspace.shell.directory / "a.json").read_text("utf-8"))["version"] == 1
    assert (workspace.shell.directory / "a.md").read_text("utf-8").endswith("\n")


def test_quiet_still_writes_reports(workspace: Workspace) -> None:
    done = workspace("run", "jobs", "--quiet", "--report", "markdown=all.md")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert "3 jobs: 3 created" in (workspace.shell.directory / "all.md").read_text("utf-8")


@pytest.mark.parametrize("value", ["csv", "csv=", "=a.csv", "pdf=a.pdf"])
def test_report_option_needs_format_and_path(workspace: Workspace, value: str) -> None:
    done = workspace("run", "jobs", "--report", value)
    assert (done.code, workspace.backend.created) == (2, 0)
    assert "expected FORMAT=PATH, where FORMAT is one of table, markdown, csv, json" in done.err


NEEDED = ("jobs/.pixxel-runner/ledger.db", "jobs/.pixxel-runner/ledger.db-wal", "jobs/.pixxel-runner/.gitignore")


@pytest.mark.parametrize("target", [*NEEDED, "jobs/a.yaml", "key", "linked.yaml"])
@pytest.mark.parametrize("command", ["run", "plan", "show", "status"])
def test_report_never_overwrites_a_needed_file(workspace: Workspace, command: str, target: str) -> None:
    folder = workspace.shell.directory
    assert workspace("run", "jobs/a.yaml").code == 0
    workspace.shell.write("key", KEY).chmod(0o600)
    (folder / "linked.yaml").hardlink_to(folder / "jobs" / "a.yaml")
    if command == "show" and target == "key":
        return  # `show` needs no key
    arguments = {"show": ["--manifest", "jobs/a.yaml"]}.get(command, ["jobs/a.yaml", "--api-key-file", "key"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = workspace(command, *arguments, "--report", f"html={target}")
    assert done.code == 2
    assert {path: path.read_bytes() for path in before} == before


def test_report_cannot_be_standard_output(workspace: Workspace) -> None:
    done = workspace("run", "jobs", "--report", "html=-")
    assert (done.code, workspace.backend.created) == (2, 0)
    assert "a report cannot be written to standard output (-)\n  Use --format instead." in done.err
    done = workspace("run", "jobs/a.yaml", "--results", "-")
    assert (done.code, workspace.backend.created) == (2, 0)
    assert "the results file cannot be standard output (-)" in done.err


def test_again_rejects_a_name_in_two_manifests(workspace: Workspace) -> None:
    workspace.shell.manifest(("north", "w-1", "p-2"), path="jobs/c.yaml")
    assert workspace("run", "jobs").code == 0
    done = workspace("run", "jobs", "--again", "north")
    assert (done.code, workspace.backend.created) == (2, 4)
    assert "2 of these manifests have a job of that name" in done.err


def test_hard_link_to_a_manifest_is_rejected(workspace: Workspace) -> None:
    (workspace.shell.directory / "jobs" / "z.yaml").hardlink_to(workspace.shell.directory / "jobs" / "a.yaml")
    done = workspace("run", "jobs")
    assert (done.code, workspace.backend.created) == (2, 0)
    assert "jobs/z.yaml is the same file as jobs/a.yaml" in done.err


def test_manifest_that_did_not_run_keeps_its_last_run_in_prometheus(workspace: Workspace) -> None:
    report = ("--report", "prometheus=all.prom", "--quiet")
    assert workspace("run", "jobs", *report).code == 0
    first = (workspace.shell.directory / "all.prom").read_text("utf-8")
    text = (workspace.shell.directory / "jobs" / "b.yaml").read_text("utf-8")
    workspace.shell.write("jobs/b.yaml", text.replace("version: 1", "version: 1\nmax_cost: 0") + PAIR)
    done = workspace("run", "jobs", *report)
    assert done.code == 4
    assert done.err.count("\n") == 1
    second = (workspace.shell.directory / "all.prom").read_text("utf-8")
    finished = [line for line in first.splitlines() if "run_end_timestamp" in line and 'manifest="b"' in line]
    assert len(finished) == 1
    assert finished[0] in second.splitlines()


def test_quiet_success_is_silent_with_ignored_files(workspace: Workspace) -> None:
    workspace.shell.write("jobs/c.yml", "not a manifest")
    done = workspace("run", "jobs", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("arguments", [("status", "jobs"), ("show", "--manifest", "jobs"), ("runs", "jobs")])
def test_commands_for_one_manifest_reject_a_directory(workspace: Workspace, arguments: tuple[str, ...]) -> None:
    assert workspace("run", "jobs").code == 0
    done = workspace(*arguments)
    assert done.code == 2
    assert "jobs is a directory" in done.err
    assert "Specify one manifest in it: jobs/NAME.yaml" in done.err


def test_many_manifests_need_no_more_open_files_than_one(workspace: Workspace) -> None:
    for number in range(60):
        workspace.shell.manifest(("one", "w-1", "p-1"), path=f"many/{number:02}.yaml")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 40, hard))
    try:
        done = workspace("run", "many")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (done.code, workspace.backend.created) == (0, 60), done.err
    assert "60 jobs: 60 created" in done.out


def test_sandbox_directory_that_cannot_be_created(shell: Shell) -> None:
    shell.write("jobs/.pixxel-runner/sandbox", "a file")
    done = shell.call("run", "jobs/a.yaml", "--sandbox")
    assert done.code == 4
    assert "the directory jobs/.pixxel-runner/sandbox cannot be created" in done.err
