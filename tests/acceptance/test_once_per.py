"""Idempotence of runs: what a second run submits, skips or refuses. The sandbox counts the jobs created."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import shell as shells
from support.schemas import check_results
from support.shell import KEY, CompletedCommand, Shell
from support.wire import Stall, WireServer, created, refusing_port

from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.sandbox.backend import Backend
from runner.sandbox.server import Sandbox

Row = tuple[str, str, str]

FIELD_A, FIELD_B = ("field-a", "w-1", "p-1"), ("field-b", "w-1", "p-2")


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-P", "-m", "runner", *map(str, arguments)]


@dataclass
class Workspace:
    """A directory with manifests, and the backend of the API it uses."""

    shell: Shell
    backend: Backend

    def run(self, *arguments: str | Path, manifest: str = "nightly.yaml") -> tuple[CompletedCommand, dict[str, Any]]:
        """Run a manifest. Returns the completed command, and its results file if there is one."""
        completed = self.shell("run", manifest, *arguments)
        assert "Traceback" not in completed.err, completed.err
        results = self.shell.directory / f"{Path(manifest).stem}.results.json"
        return completed, check_results(results) if results.exists() else {}

    def run_successfully(self, *arguments: str | Path, **options: Any) -> dict[str, Any]:
        """Run a manifest, expecting success. Returns its results file."""
        completed, results = self.run(*arguments, **options)
        assert completed.code == 0, completed
        return results


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(shells, "command", command)
    return Shell(tmp_path)


@pytest.fixture
def workspace(shell: Shell) -> Iterator[Workspace]:
    with Backend() as backend:
        backend.add_pairs((workflow, project) for workflow in ("w-1", "w-2") for project in ("p-1", "p-2"))
        with Sandbox(backend, key=KEY) as server:
            shell.use_api(server.base_url)
            yield Workspace(shell, backend)


def outcomes(results: dict[str, Any]) -> dict[str, str]:
    """Each job in the results file: `created`, the outcome of its error, or why it was skipped."""
    return {
        **{job["name"]: "created" for job in results["created"]},
        **{error["name"]: error["outcome"] for error in results["errors"]},
        **{job["name"]: job["reason"] for job in results["skipped"]},
    }


# Runs in the same period


@pytest.mark.parametrize(("once_per", "period_text"), [("month", " for the month "), ("forever", "")])
def test_second_run_in_the_period_submits_nothing(workspace: Workspace, once_per: str, period_text: str) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, once_per=once_per)
    first = workspace.run_successfully()
    completed, second = workspace.run()
    assert (completed.code, workspace.backend.created) == (0, 2)
    value = first["run"]["key"].partition(":")[2]
    scope, run_id = f"{period_text}{value}", first["run"]["id"]
    expected_line = f"nightly: nothing to submit{scope}; its jobs were created by run {run_id}"
    assert completed.err.splitlines() == [expected_line, "results: nightly.results.json"]
    assert second["created"] == first["created"]
    assert {job["run_id"] for job in second["created"]} == {first["run"]["id"]} != {second["run"]["id"]}
    assert (second["summary"]["created"], second["summary"]["created_earlier"]) == (2, 2)
    assert {job["job"]["id"] for job in second["created"]} == {job.id for job in workspace.backend.jobs("w-1")}


MANIFEST_EDITS: list[tuple[str, tuple[Row, ...], int, set[str]]] = [
    ("renamed", (("x", "w-1", "p-1"), FIELD_B), 0, {"x", "field-b"}),
    ("names-swapped", (("field-b", "w-1", "p-1"), ("field-a", "w-1", "p-2")), 0, {"field-a", "field-b"}),
    ("reordered", (FIELD_B, FIELD_A), 0, {"field-a", "field-b"}),
    ("names-regenerated", (("job-1", "w-1", "p-2"), ("job-2", "w-1", "p-1")), 0, {"job-1", "job-2"}),
    ("added", (FIELD_A, ("field-c", "w-2", "p-1"), FIELD_B), 1, {"field-a", "field-b", "field-c"}),
    ("duplicate-pair-added", (("more", "w-1", "p-1"), FIELD_A, FIELD_B), 1, {"field-a", "field-b", "more"}),
    ("removed", (FIELD_A,), 0, {"field-a", "field-b"}),
    ("replaced", (FIELD_A, ("field-b", "w-2", "p-2")), 1, {"field-a", "field-b"}),
]


@pytest.mark.parametrize(
    ("jobs", "created_count", "names"), [pytest.param(*row[1:], id=row[0]) for row in MANIFEST_EDITS]
)
def test_jobs_are_counted_by_workflow_project_pair_not_by_name(
    workspace: Workspace, jobs: tuple[Row, ...], created_count: int, names: set[str]
) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, once_per="forever")
    first = workspace.run_successfully()
    workspace.shell.manifest(*jobs, once_per="forever")
    second = workspace.run_successfully()
    assert workspace.backend.created == 2 + created_count
    assert len(second["created"]) == 2 + created_count
    assert {job["name"] for job in second["created"]} == names
    earlier = {job["job"]["id"]: job["project_id"] for job in first["created"]}
    assert earlier.items() <= {job["job"]["id"]: job["project_id"] for job in second["created"]}.items()


def test_again_submits_one_more_job_of_the_pair(workspace: Workspace) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, once_per="forever")
    completed, _ = workspace.run("--again", "field-a")
    assert (completed.code, workspace.backend.created) == (2, 0)
    assert "--again 'field-a': this job has not been created yet" in completed.err
    workspace.run_successfully()
    results = workspace.run_successfully("--again", "field-a")
    assert (workspace.backend.created, [job["name"] for job in results["created"]].count("field-a")) == (3, 2)
    workspace.run_successfully()
    assert workspace.backend.created == 3
    workspace.shell.manifest(FIELD_A, FIELD_B, ("field-c", *FIELD_A[1:]), once_per="forever")
    results = workspace.run_successfully()
    assert (workspace.backend.created, len(results["created"])) == (4, 4)
    rows = [json.loads(line) for line in workspace.shell("ledger", "export").out.splitlines()]
    assert [row["again"] for row in rows if row["project_id"] == "p-1"] == [False, True, False]


def test_job_that_was_not_created_is_submitted_by_the_next_run(workspace: Workspace) -> None:
    workspace.shell.manifest(FIELD_A, ("field-c", "w-3", "p-1"), once_per="forever")
    completed, results = workspace.run()
    assert (completed.code, outcomes(results)) == (1, {"field-a": "created", "field-c": "not_created"})
    workspace.backend.add_pairs([("w-3", "p-1")])
    assert outcomes(workspace.run_successfully()) == {"field-a": "created", "field-c": "created"}
    assert workspace.backend.created == 2


def test_jobs_excluded_by_only_are_submitted_by_a_later_run(workspace: Workspace) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, ("north", "w-2", "p-1"), once_per="forever")
    partial = workspace.run_successfully("--only", "field-*")
    assert outcomes(partial) == {"field-a": "created", "field-b": "created", "north": "not_selected"}
    assert set(outcomes(workspace.run_successfully()).values()) == {"created"}
    assert workspace.backend.created == 3


# Runs without a period (once_per is `run`)


def test_unfinished_run_must_be_resumed_before_a_new_one_starts(workspace: Workspace) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, ("field-c", "w-3", "p-1"), once_per="run")
    first = workspace.run()[1]
    refused, _ = workspace.run()
    assert (refused.code, workspace.backend.created) == (4, 2)
    assert f"the last run of nightly ({first['run']['id']}) did not create 1 of 3 jobs" in refused.err
    assert "--resume" in refused.err
    assert "--new" in refused.err
    workspace.backend.add_pairs([("w-3", "p-1")])
    workspace.shell.manifest(("field-c", "w-3", "p-1"), FIELD_A, ("field-d", "w-2", "p-1"), once_per="run")
    completed, results = workspace.run("--resume")
    assert (completed.code, workspace.backend.created) == (0, 4)
    assert f"the manifest has changed since run {first['run']['id']}: 1 job added, 1 removed" in completed.err
    assert results["run"]["key"] == first["run"]["key"]
    assert outcomes(results) == dict.fromkeys(["field-a", "field-b", "field-c", "field-d"], "created")
    assert workspace.run_successfully()["summary"]["created_earlier"] == 0
    assert workspace.backend.created == 7


@pytest.mark.parametrize(("policy", "created_count"), [("resume", 2), ("new", 3)])
def test_on_unfinished_in_the_manifest_replaces_the_flags(
    workspace: Workspace, policy: str, created_count: int
) -> None:
    text = workspace.shell.manifest(FIELD_A, ("field-c", "w-3", "p-1"), once_per="run").read_text(encoding="utf-8")
    workspace.shell.write("nightly.yaml", f"on_unfinished: {policy}\n{text}")
    assert workspace.run()[0].code == 1
    workspace.backend.add_pairs([("w-3", "p-1")])
    workspace.run_successfully()
    assert workspace.backend.created == created_count


@pytest.mark.parametrize(
    ("once_per", "arguments", "message"),
    [
        ("run", ("--resume", "--new"), "--resume and --new cannot be combined"),
        ("day", ("--new",), "--new conflicts with once_per: day"),
        ("run", ("--again", "field-a"), "with once_per: run, --again requires --resume"),
        ("day", ("--only", "fields"), "--only 'fields' matches no job"),
        ("day", ("--again", "fields"), "Did you mean field-"),
        ("day", ("--sandbox", "--ledger", "ledger.db"), "--ledger cannot be used with --sandbox"),
    ],
)
def test_invalid_options_are_rejected(
    workspace: Workspace, once_per: str, arguments: tuple[str, ...], message: str
) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, once_per=once_per)
    completed, results = workspace.run(*arguments)
    assert (completed.code, completed.out, results, workspace.backend.created) == (2, "", {}, 0)
    assert message in completed.err


# Manifest identity


def test_renamed_manifest_is_refused_until_it_has_a_name(workspace: Workspace) -> None:
    manifest = workspace.shell.manifest(FIELD_A, FIELD_B, once_per="forever")
    workspace.run_successfully()
    renamed = manifest.rename(workspace.shell.directory / "weekly.yaml")
    completed, results = workspace.run(manifest="weekly.yaml")
    assert (completed.code, results, workspace.backend.created) == (4, {}, 2)
    assert "2 of its 2 workflow/project pairs were submitted under the name" in completed.err
    text = renamed.read_text(encoding="utf-8")
    workspace.shell.write("weekly.yaml", f"name: nightly\n{text}")
    assert workspace.run_successfully(manifest="weekly.yaml")["summary"]["created_earlier"] == 2
    assert workspace.backend.created == 2
    workspace.shell.write("weekly.yaml", f"name: weekly\n{text}")
    completed, _ = workspace.run(manifest="weekly.yaml")
    assert (completed.code, workspace.backend.created) == (4, 2)
    assert "weekly.yaml was run as 'nightly' and is now named 'weekly'" in completed.err
    workspace.run_successfully("--new", manifest="weekly.yaml")
    assert workspace.backend.created == 4


def test_directory_can_be_moved_with_its_ledger(workspace: Workspace) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, path="here/nightly.yaml", once_per="forever")
    workspace.run_successfully(manifest="here/nightly.yaml")
    shutil.move(workspace.shell.directory / "here", workspace.shell.directory / "there")
    workspace.run_successfully(manifest="there/nightly.yaml")
    assert workspace.backend.created == 2


def test_duplicate_manifests_in_one_ledger_are_refused(workspace: Workspace) -> None:
    assert workspace.shell("ledger", "init", "ledger.db").code == 0
    for directory in ("north", "south"):
        workspace.shell.manifest(FIELD_A, FIELD_B, path=f"{directory}/nightly.yaml", once_per="forever")
    workspace.run_successfully("--ledger", "ledger.db", manifest="north/nightly.yaml")
    completed, _ = workspace.run("--ledger", "ledger.db", manifest="south/nightly.yaml")
    assert (completed.code, workspace.backend.created) == (4, 2)
    assert "two manifests are named 'nightly': south/nightly.yaml, and " in completed.err


def test_manifest_from_standard_input_needs_a_name(workspace: Workspace) -> None:
    text = workspace.shell.manifest(FIELD_A, FIELD_B, once_per="forever").read_text(encoding="utf-8")

    def run_from_stdin(manifest: str) -> subprocess.CompletedProcess[str]:
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        return subprocess.run(
            command(["run", "-"]),
            cwd=workspace.shell.directory,
            env=environment | workspace.shell.environment,
            input=manifest,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    unnamed = run_from_stdin(text)
    assert (unnamed.returncode, workspace.backend.created) == (2, 0)
    assert "a manifest from standard input must have a name" in unnamed.stderr
    assert [run_from_stdin(f"name: piped\n{text}").returncode for _ in range(2)] == [0, 0]
    assert workspace.backend.created == 2
    check_results(workspace.shell.directory / "piped.results.json")


# Ledger and results file


def test_ledger_must_be_configured_in_ci(workspace: Workspace) -> None:
    workspace.shell.environment["CI"] = "true"
    workspace.shell.manifest(FIELD_A, once_per="day")
    completed, results = workspace.run()
    assert (completed.code, results, workspace.backend.created) == (4, {}, 0)
    assert "nightly.yaml has once_per: day, which needs a persistent ledger in CI" in completed.err
    assert "PIXXEL_RUNNER_LEDGER" in completed.err
    assert not workspace.shell.ledger.exists()
    assert workspace.shell("run", "nightly.yaml", "--sandbox").code == 0
    assert workspace.shell("ledger", "init", "kept.db").code == 0
    workspace.shell.environment["PIXXEL_RUNNER_LEDGER"] = "kept.db"
    for _ in range(2):
        workspace.run_successfully()
    assert workspace.backend.created == 1


def test_once_per_run_needs_no_persistent_ledger_in_ci(workspace: Workspace) -> None:
    workspace.shell.environment["CI"] = "true"
    workspace.shell.manifest(FIELD_A, once_per="run")
    workspace.run_successfully()
    assert workspace.backend.created == 1


def test_missing_configured_ledger_stops_the_run(workspace: Workspace) -> None:
    workspace.shell.manifest(FIELD_A)
    completed, results = workspace.run("--ledger", "lost.db")
    assert (completed.code, results, workspace.backend.created) == (4, {}, 0)
    assert "there is no ledger at lost.db" in completed.err
    assert "pixxel-runner ledger init lost.db" in completed.err


def test_sandbox_has_its_own_backend_and_ledger(workspace: Workspace) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, once_per="forever")
    workspace.run_successfully()
    with refusing_port() as port:
        workspace.shell.use_api(f"http://127.0.0.1:{port}", key=None)
        workspace.shell.environment["PIXXEL_RUNNER_LEDGER"] = "named/elsewhere.db"  # applies only to the real API
        assert [workspace.shell("run", "nightly.yaml", "--sandbox").code for _ in range(2)] == [0, 0]
    sandbox_directory = workspace.shell.directory / ".pixxel-runner" / "sandbox"
    assert len((sandbox_directory / "jobs.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    results = check_results(workspace.shell.directory / "nightly.sandbox.results.json")
    assert (results["run"]["base_url"], results["summary"]["created_earlier"]) == ("sandbox", 2)
    shutil.rmtree(sandbox_directory)
    assert workspace.shell("run", "nightly.yaml", "--sandbox").code == 0
    assert check_results(workspace.shell.directory / "nightly.sandbox.results.json")["summary"]["created_earlier"] == 0
    assert workspace.backend.created == 2


@pytest.mark.parametrize("damage", ["deleted", "truncated", "empty"])
def test_lost_or_damaged_results_file_is_recreated(workspace: Workspace, damage: str) -> None:
    workspace.shell.manifest(FIELD_A, FIELD_B, once_per="forever")
    original = workspace.run_successfully()
    path = workspace.shell.directory / "nightly.results.json"
    text = path.read_bytes()
    path.unlink()
    if damage != "deleted":
        path.write_bytes(text[: len(text) // 2] if damage == "truncated" else b"")
    assert workspace.shell("show", "--results", "again.json").code == 0
    assert (workspace.shell.directory / "again.json").read_bytes() == text
    completed = workspace.shell("run", "nightly.yaml")
    assert (completed.code, workspace.backend.created) == (0, 2)
    assert check_results(path)["created"] == original["created"]


# Concurrent runs


@contextmanager
def locked(shell: Shell) -> Iterator[None]:
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    base_url = shell.environment["PIXXEL_BASE_URL"]
    with lock.hold(shell.ledger, base_url, "nightly", timeout=0, activity="run 20261020T010000Z-abcdef"):
        yield


@pytest.mark.parametrize(("timeout", "wait_text"), [((), ""), (("--lock-timeout", "0.3"), "; waited 0.3 s")])
def test_concurrent_run_of_the_same_manifest_is_refused(
    workspace: Workspace, timeout: tuple[str, ...], wait_text: str
) -> None:
    workspace.shell.manifest(FIELD_A)
    with locked(workspace.shell):
        completed, results = workspace.run(*timeout)
    assert (completed.code, results, workspace.backend.created) == (5, {}, 0)
    assert f"by run 20261020T010000Z-abcdef (pid {os.getpid()} on " in completed.err
    assert wait_text in completed.err


def test_second_run_waits_for_the_lock_and_submits_nothing(shell: Shell) -> None:
    shell.manifest(FIELD_A, once_per="forever")
    gate = threading.Event()
    with WireServer(Stall(gate, then=created("job-1"))) as server:
        shell.use_api(server.url)
        with shell.start("run", "nightly.yaml") as first:
            server.wait_for_requests(1)
            with shell.start("run", "nightly.yaml", "--lock-timeout", "60") as second:
                assert shell("run", "nightly.yaml").code == 5
                gate.set()
                assert (
                    f"submitting 1 of 1 job of nightly to {server.url} (once, ever)" in first.communicate(timeout=30)[1]
                )
                assert second.communicate(timeout=30)[1].startswith(
                    "nightly: nothing to submit; its jobs were created by run "
                )
    assert (first.returncode, second.returncode, len(server.requests)) == (0, 0, 1)
