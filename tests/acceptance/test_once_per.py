"""When a second run is the same run: what is bought again, what is not, and what is refused. The server counts."""

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

A, B = ("field-a", "w-1", "p-1"), ("field-b", "w-1", "p-2")


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-P", "-m", "runner", *map(str, arguments)]


@dataclass
class Desk:
    """A person's folder, and the server that they work with."""

    shell: Shell
    world: Backend

    def run(self, *arguments: str | Path, manifest: str = "nightly.yaml") -> tuple[CompletedCommand, dict[str, Any]]:
        """Run a manifest; what was said, and the results file if there is one."""
        done = self.shell("run", manifest, *arguments)
        assert "Traceback" not in done.err, done.err
        results = self.shell.directory / f"{Path(manifest).stem}.results.json"
        return done, check_results(results) if results.exists() else {}

    def ran(self, *arguments: str | Path, **options: Any) -> dict[str, Any]:
        """Run a manifest, all of which works out."""
        done, record = self.run(*arguments, **options)
        assert done.code == 0, done
        return record


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(shells, "command", command)
    return Shell(tmp_path)


@pytest.fixture
def desk(shell: Shell) -> Iterator[Desk]:
    with Backend() as world:
        world.add_pairs((workflow, project) for workflow in ("w-1", "w-2") for project in ("p-1", "p-2"))
        with Sandbox(world, key=KEY) as server:
            shell.use_api(server.base_url)
            yield Desk(shell, world)


def kinds(record: dict[str, Any]) -> dict[str, str]:
    words = [(one, "created") for one in record["created"]] + [(one, one["outcome"]) for one in record["errors"]]
    return {one["name"]: word for one, word in [*words, *((one, one["reason"]) for one in record["skipped"])]}


# The same period.


@pytest.mark.parametrize(("once_per", "period"), [("month", "the month "), ("forever", "ever")])
def test_a_second_run_sends_nothing_and_says_so(desk: Desk, once_per: str, period: str) -> None:
    desk.shell.manifest(A, B, once_per=once_per)
    first = desk.ran()
    done, second = desk.run()
    assert (done.code, desk.world.created) == (0, 2)
    value = first["run"]["key"].partition(":")[2]
    line = f"nothing to submit of nightly for {period}{value}; already created by {first['run']['id']}"
    assert done.err.splitlines() == [line, "results: nightly.results.json"]
    assert second["created"] == first["created"]
    assert {job["run_id"] for job in second["created"]} == {first["run"]["id"]} != {second["run"]["id"]}
    assert (second["summary"]["created"], second["summary"]["created_earlier"]) == (2, 2)
    assert {job["job"]["id"] for job in second["created"]} == {job.id for job in desk.world.jobs("w-1")}


CHANGES: list[tuple[str, tuple[Row, ...], int, set[str]]] = [
    ("renamed", (("x", "w-1", "p-1"), B), 0, {"x", "field-b"}),
    ("names-swapped", (("field-b", "w-1", "p-1"), ("field-a", "w-1", "p-2")), 0, {"field-a", "field-b"}),
    ("reordered", (B, A), 0, {"field-a", "field-b"}),
    ("regenerated", (("job-1", "w-1", "p-2"), ("job-2", "w-1", "p-1")), 0, {"job-1", "job-2"}),
    ("added", (A, ("field-c", "w-2", "p-1"), B), 1, {"field-a", "field-b", "field-c"}),
    ("added-its-like", (("more", "w-1", "p-1"), A, B), 1, {"field-a", "field-b", "more"}),
    ("removed", (A,), 0, {"field-a", "field-b"}),
    ("replaced", (A, ("field-b", "w-2", "p-2")), 1, {"field-a", "field-b"}),
]


@pytest.mark.parametrize(("jobs", "bought", "names"), [pytest.param(*row[1:], id=row[0]) for row in CHANGES])
def test_pairs_are_counted_and_names_are_labels(
    desk: Desk, jobs: tuple[Row, ...], bought: int, names: set[str]
) -> None:
    desk.shell.manifest(A, B, once_per="forever")
    first = desk.ran()
    desk.shell.manifest(*jobs, once_per="forever")
    second = desk.ran()
    assert desk.world.created == 2 + bought
    assert len(second["created"]) == 2 + bought
    assert {job["name"] for job in second["created"]} == names
    earlier = {job["job"]["id"]: job["project_id"] for job in first["created"]}
    assert earlier.items() <= {job["job"]["id"]: job["project_id"] for job in second["created"]}.items()


def test_one_more_on_purpose(desk: Desk) -> None:
    desk.shell.manifest(A, B, once_per="forever")
    done, _ = desk.run("--again", "field-a")
    assert (done.code, desk.world.created) == (2, 0)
    assert "--again 'field-a': this job has not been created yet" in done.err
    desk.ran()
    record = desk.ran("--again", "field-a")
    assert (desk.world.created, [job["name"] for job in record["created"]].count("field-a")) == (3, 2)
    desk.ran()
    assert desk.world.created == 3
    desk.shell.manifest(A, B, ("field-c", *A[1:]), once_per="forever")
    record = desk.ran()
    assert (desk.world.created, len(record["created"])) == (4, 4)
    rows = [json.loads(line) for line in desk.shell("ledger", "export").out.splitlines()]
    assert [row["again"] for row in rows if row["project_id"] == "p-1"] == [False, True, False]


def test_what_failed_is_tried_again(desk: Desk) -> None:
    desk.shell.manifest(A, ("field-c", "w-3", "p-1"), once_per="forever")
    done, record = desk.run()
    assert (done.code, kinds(record)) == (1, {"field-a": "created", "field-c": "not_created"})
    desk.world.add_pairs([("w-3", "p-1")])
    assert kinds(desk.ran()) == {"field-a": "created", "field-c": "created"}
    assert desk.world.created == 2


def test_only_some_and_then_the_rest(desk: Desk) -> None:
    desk.shell.manifest(A, B, ("north", "w-2", "p-1"), once_per="forever")
    some = desk.ran("--only", "field-*")
    assert kinds(some) == {"field-a": "created", "field-b": "created", "north": "not_selected"}
    assert set(kinds(desk.ran()).values()) == {"created"}
    assert desk.world.created == 3


# once_per: run.


def test_an_unfinished_run_is_refused_and_finished(desk: Desk) -> None:
    desk.shell.manifest(A, B, ("field-c", "w-3", "p-1"), once_per="run")
    first = desk.run()[1]
    refused, _ = desk.run()
    assert (refused.code, desk.world.created) == (4, 2)
    assert f"the last run of nightly ({first['run']['id']}) left 1 of 3 jobs not created" in refused.err
    assert "--resume" in refused.err
    assert "--new" in refused.err
    desk.world.add_pairs([("w-3", "p-1")])
    desk.shell.manifest(("field-c", "w-3", "p-1"), A, ("field-d", "w-2", "p-1"), once_per="run")
    done, record = desk.run("--resume")
    assert (done.code, desk.world.created) == (0, 4)
    assert f"the manifest has changed since run {first['run']['id']}: 1 job added, 1 removed" in done.err
    assert record["run"]["key"] == first["run"]["key"]
    assert kinds(record) == dict.fromkeys(["field-a", "field-b", "field-c", "field-d"], "created")
    assert desk.ran()["summary"]["created_earlier"] == 0
    assert desk.world.created == 7


@pytest.mark.parametrize(("says", "posts"), [("resume", 2), ("new", 3)])
def test_the_manifest_may_answer_for_all_time(desk: Desk, says: str, posts: int) -> None:
    text = desk.shell.manifest(A, ("field-c", "w-3", "p-1"), once_per="run").read_text(encoding="utf-8")
    desk.shell.write("nightly.yaml", f"on_unfinished: {says}\n{text}")
    assert desk.run()[0].code == 1
    desk.world.add_pairs([("w-3", "p-1")])
    desk.ran()
    assert desk.world.created == posts


@pytest.mark.parametrize(
    ("once_per", "arguments", "words"),
    [
        ("run", ("--resume", "--new"), "--resume and --new cannot be combined"),
        ("day", ("--new",), "--new conflicts with once_per: day"),
        ("run", ("--again", "field-a"), "--again needs --resume with once_per: run"),
        ("day", ("--only", "fields"), "--only 'fields' matches no job"),
        ("day", ("--again", "fields"), "Did you mean field-"),
        ("day", ("--sandbox", "--ledger", "ledger.db"), "--ledger cannot be used with --sandbox"),
    ],
)
def test_what_makes_no_sense_is_refused(desk: Desk, once_per: str, arguments: tuple[str, ...], words: str) -> None:
    desk.shell.manifest(A, B, once_per=once_per)
    done, record = desk.run(*arguments)
    assert (done.code, done.out, record, desk.world.created) == (2, "", {}, 0)
    assert words in done.err


# Which manifest it is.


def test_a_renamed_file_is_refused_until_it_says_what_it_is(desk: Desk) -> None:
    manifest = desk.shell.manifest(A, B, once_per="forever")
    desk.ran()
    renamed = manifest.rename(desk.shell.directory / "weekly.yaml")
    done, record = desk.run(manifest="weekly.yaml")
    assert (done.code, record, desk.world.created) == (4, {}, 2)
    assert "2 of its 2 workflow/project pairs were submitted under the name" in done.err
    text = renamed.read_text(encoding="utf-8")
    desk.shell.write("weekly.yaml", f"name: nightly\n{text}")
    assert desk.ran(manifest="weekly.yaml")["summary"]["created_earlier"] == 2
    assert desk.world.created == 2
    desk.shell.write("weekly.yaml", f"name: weekly\n{text}")
    done, _ = desk.run(manifest="weekly.yaml")
    assert (done.code, desk.world.created) == (4, 2)
    assert "weekly.yaml was run as 'nightly' and is now named 'weekly'" in done.err
    desk.ran("--new", manifest="weekly.yaml")
    assert desk.world.created == 4


def test_a_folder_may_be_moved_with_its_ledger(desk: Desk) -> None:
    desk.shell.manifest(A, B, path="here/nightly.yaml", once_per="forever")
    desk.ran(manifest="here/nightly.yaml")
    shutil.move(desk.shell.directory / "here", desk.shell.directory / "there")
    desk.ran(manifest="there/nightly.yaml")
    assert desk.world.created == 2


def test_twins_in_one_ledger_are_refused(desk: Desk) -> None:
    assert desk.shell("ledger", "init", "ledger.db").code == 0
    for folder in ("north", "south"):
        desk.shell.manifest(A, B, path=f"{folder}/nightly.yaml", once_per="forever")
    desk.ran("--ledger", "ledger.db", manifest="north/nightly.yaml")
    done, _ = desk.run("--ledger", "ledger.db", manifest="south/nightly.yaml")
    assert (done.code, desk.world.created) == (4, 2)
    assert "two manifests are named 'nightly': south/nightly.yaml, and " in done.err


def test_a_manifest_from_standard_input_needs_a_name(desk: Desk) -> None:
    text = desk.shell.manifest(A, B, once_per="forever").read_text(encoding="utf-8")

    def piped(manifest: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        return subprocess.run(
            command(["run", "-"]),
            cwd=desk.shell.directory,
            env=inherited | desk.shell.environment,
            input=manifest,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    nameless = piped(text)
    assert (nameless.returncode, desk.world.created) == (2, 0)
    assert "a manifest from standard input must have a name" in nameless.stderr
    assert [piped(f"name: piped\n{text}").returncode for _ in range(2)] == [0, 0]
    assert desk.world.created == 2
    check_results(desk.shell.directory / "piped.results.json")


# Where the record is.


def test_in_ci_the_ledger_must_be_named(desk: Desk) -> None:
    desk.shell.environment["CI"] = "true"
    desk.shell.manifest(A, once_per="day")
    done, record = desk.run()
    assert (done.code, record, desk.world.created) == (4, {}, 0)
    assert "nightly.yaml has once_per: day, which needs a persistent ledger in CI" in done.err
    assert "PIXXEL_RUNNER_LEDGER" in done.err
    assert not desk.shell.ledger.exists()
    assert desk.shell("run", "nightly.yaml", "--sandbox").code == 0
    assert desk.shell("ledger", "init", "kept.db").code == 0
    desk.shell.environment["PIXXEL_RUNNER_LEDGER"] = "kept.db"
    for _ in range(2):
        desk.ran()
    assert desk.world.created == 1


def test_in_ci_a_run_that_is_its_own_needs_no_kept_ledger(desk: Desk) -> None:
    desk.shell.environment["CI"] = "true"
    desk.shell.manifest(A, once_per="run")
    desk.ran()
    assert desk.world.created == 1


def test_a_named_ledger_that_is_not_there_stops_all(desk: Desk) -> None:
    desk.shell.manifest(A)
    done, record = desk.run("--ledger", "lost.db")
    assert (done.code, record, desk.world.created) == (4, {}, 0)
    assert "there is no ledger at lost.db" in done.err
    assert "pixxel-runner ledger init lost.db" in done.err


def test_a_rehearsal_has_a_world_and_a_ledger_of_its_own(desk: Desk) -> None:
    desk.shell.manifest(A, B, once_per="forever")
    desk.ran()
    with refusing_port() as port:
        desk.shell.use_api(f"http://127.0.0.1:{port}", key=None)
        desk.shell.environment["PIXXEL_RUNNER_LEDGER"] = "named/elsewhere.db"  # of the real API alone
        assert [desk.shell("run", "nightly.yaml", "--sandbox").code for _ in range(2)] == [0, 0]
    home = desk.shell.directory / ".pixxel-runner" / "sandbox"
    assert len((home / "jobs.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    rehearsed = check_results(desk.shell.directory / "nightly.sandbox.results.json")
    assert (rehearsed["run"]["base_url"], rehearsed["summary"]["created_earlier"]) == ("sandbox", 2)
    shutil.rmtree(home)
    assert desk.shell("run", "nightly.yaml", "--sandbox").code == 0
    assert check_results(desk.shell.directory / "nightly.sandbox.results.json")["summary"]["created_earlier"] == 0
    assert desk.world.created == 2


@pytest.mark.parametrize("harm", ["lost", "half", "empty"])
def test_a_results_file_that_is_lost_is_made_again(desk: Desk, harm: str) -> None:
    desk.shell.manifest(A, B, once_per="forever")
    whole = desk.ran()
    path = desk.shell.directory / "nightly.results.json"
    text = path.read_bytes()
    path.unlink()
    if harm != "lost":
        path.write_bytes(text[: len(text) // 2] if harm == "half" else b"")
    assert desk.shell("show", "--results", "again.json").code == 0
    assert (desk.shell.directory / "again.json").read_bytes() == text
    done = desk.shell("run", "nightly.yaml")
    assert (done.code, desk.world.created) == (0, 2)
    assert check_results(path)["created"] == whole["created"]


# Two at once.


@contextmanager
def held(shell: Shell) -> Iterator[None]:
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    base_url = shell.environment["PIXXEL_BASE_URL"]
    with lock.hold(shell.ledger, base_url, "nightly", timeout=0, activity="run 20261020T010000Z-abcdef"):
        yield


@pytest.mark.parametrize(("timeout", "words"), [((), ""), (("--lock-timeout", "0.3"), "; waited 0.3 s")])
def test_another_run_of_the_manifest_keeps_this_one_out(desk: Desk, timeout: tuple[str, ...], words: str) -> None:
    desk.shell.manifest(A)
    with held(desk.shell):
        done, record = desk.run(*timeout)
    assert (done.code, record, desk.world.created) == (5, {}, 0)
    assert f"by run 20261020T010000Z-abcdef (pid {os.getpid()} on " in done.err
    assert words in done.err


def test_two_that_wait_for_each_other_buy_once(shell: Shell) -> None:
    shell.manifest(A, once_per="forever")
    gate = threading.Event()
    with WireServer(Stall(gate, then=created("job-1"))) as server:
        shell.use_api(server.url)
        with shell.start("run", "nightly.yaml") as first:
            server.wait_for_requests(1)
            with shell.start("run", "nightly.yaml", "--lock-timeout", "60") as second:
                assert shell("run", "nightly.yaml").code == 5
                gate.set()
                assert "submitting 1 of 1 jobs of nightly" in first.communicate(timeout=30)[1]
                assert second.communicate(timeout=30)[1].startswith("nothing to submit of nightly for ever")
    assert (first.returncode, second.returncode, len(server.requests)) == (0, 0, 1)
