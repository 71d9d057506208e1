"""`runs` lists the runs in the ledger, `show` prints the results of one."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ledger_history
from support.schemas import check_results
from support.shell import Shell
from support.wire import Reset, Script, Stall, WireServer, created, refusing_port, reply

from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger

PAIRS = (("a", "w-1", "p-1"), ("b", "w-1", "p-2"), ("c", "w-1", "p-3"))
DAY = "day:2026-10-20"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def create_history(shell: Shell, write: Callable[[Ledger], object]) -> None:
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    with Ledger(shell.ledger) as ledger:
        write(ledger)


def write_two_runs(ledger: Ledger) -> None:
    """A day's first run, with one of two jobs created and the other in doubt, and a second whose job was rejected."""
    jobs = [
        ledger_history.job("a"),
        ledger_history.job("b", project_id="p-2"),
        ledger_history.job("c", project_id="p-3"),
    ]
    first = ledger_history.start_run(ledger, "20261020T010000Z-aaaaaa", jobs, key=DAY)
    ledger_history.send(ledger, first, jobs[0], ledger_history.created("job-1"))
    ledger_history.send(ledger, first, jobs[1], ledger_history.in_doubt())
    second = ledger_history.start_run(ledger, "20261020T020000Z-bbbbbb", jobs, key=DAY, end="stopped")
    ledger_history.send(ledger, second, jobs[2], ledger_history.not_created())


# runs


def test_runs_are_listed_newest_first_with_their_results(shell: Shell) -> None:
    create_history(shell, write_two_runs)
    done = shell("runs")
    titles, rule, second, first = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert titles.split("  ")[0] == "started (UTC)"
    assert set(rule) == {"-", " "}
    assert second.split()[2] == "20261020T020000Z-bbbbbb"
    assert "the day 2026-10-20" in second
    assert second.split()[-5:] == ["stopped", "0", "1", "0", "0"]
    assert first.split()[-5:] == ["completed", "1", "0", "1", "12"]


def test_runs_as_json(shell: Shell) -> None:
    create_history(shell, write_two_runs)
    second, first = json.loads(shell("runs", "--format", "json").out)
    assert second["id"] > first["id"]
    assert (first["created"], first["not_created"], first["in_doubt"], first["cost"]) == (1, 0, 1, 12)
    assert (first["manifest"], first["api"], first["key"]) == ("nightly", ledger_history.API, DAY)
    assert first["started_at"] == "2026-10-20T01:00:00.000Z"


def test_limit_reports_how_many_runs_are_omitted(shell: Shell) -> None:
    create_history(shell, write_two_runs)
    limited, all_runs = shell("runs", "--limit", "1"), shell("runs", "--limit", "0")
    assert len(limited.out.splitlines()) == 3
    assert "the latest 1 of 2 runs" in limited.err
    assert len(all_runs.out.splitlines()) == 4


def test_runs_of_one_manifest(shell: Shell) -> None:
    def write(ledger: Ledger) -> None:
        write_two_runs(ledger)
        ledger_history.start_run(ledger, "20261020T030000Z-cccccc", [ledger_history.job("x")], manifest="other")

    create_history(shell, write)
    shell.manifest(*PAIRS)
    by_name, by_file, unknown = shell("runs", "other"), shell("runs", "nightly.yaml"), shell("runs", "nightli")
    assert len(by_name.out.splitlines()) == 3
    assert len(by_file.out.splitlines()) == 4
    assert (unknown.code, unknown.out) == (2, "")
    assert "Manifests in the ledger: 'nightly'." in unknown.err


def test_manifest_that_never_ran_has_no_runs(shell: Shell) -> None:
    create_history(shell, write_two_runs)
    shell.manifest(*PAIRS, path="new.yaml")
    done = shell("runs", "new.yaml")
    assert (done.code, done.out) == (0, "")
    assert "contains no runs of new yet" in done.err


def test_empty_ledger_has_no_runs(shell: Shell) -> None:
    create_history(shell, lambda _: None)
    done, as_json = shell("runs"), shell("runs", "--format", "json")
    assert (done.code, done.out, as_json.out) == (0, "", "[]\n")
    assert "contains no runs yet" in done.err


@pytest.mark.parametrize("command", ["runs", "show"])
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "No run has been made from here. Change to the manifest's directory, or pass --ledger PATH. For sandbox"),
        (["--sandbox"], "No run with --sandbox has been made from here. Change to the manifest's directory.\n"),
        (["--ledger", "a b.db"], "Check the path, or create a ledger: pixxel-runner ledger init 'a b.db'\n"),
    ],
)
def test_missing_ledger_is_not_created(shell: Shell, command: str, arguments: list[str], hint: str) -> None:
    done = shell(command, *arguments)
    assert (done.code, done.out) == (4, "")
    assert "there is no ledger at" in done.err
    assert hint in done.err
    assert list(shell.directory.iterdir()) == []


def test_a_lost_ledger_is_not_taken_for_one_that_never_was(shell: Shell) -> None:
    create_history(shell, write_two_runs)
    lock.directory(shell.ledger).mkdir()
    shell.ledger.unlink()
    done = shell("runs")
    assert (done.code, done.out) == (4, "")
    assert "is missing, but its locks show that it existed" in done.err


def test_directory_is_not_a_ledger(shell: Shell) -> None:
    done = shell("runs", "--ledger", ".")
    assert done.code == 4
    assert "is a directory" in done.err


def test_cost_can_exceed_an_sqlite_integer(shell: Shell) -> None:
    def write(ledger: Ledger) -> None:
        jobs = [ledger_history.job(name) for name in "ab"]
        run = ledger_history.start_run(ledger, "run-1", jobs)
        for number, job in enumerate(jobs, 1):
            body = json.dumps({"id": job.name, "cost": 2**63 - 1}).encode()
            ledger_history.send(ledger, run, job, ledger_history.created(job.name, body), number)

    create_history(shell, write)
    assert json.loads(shell("runs", "--format", "json").out)[0]["cost"] == 2**64 - 2


def test_names_are_escaped(shell: Shell) -> None:
    create_history(
        shell, lambda ledger: ledger_history.start_run(ledger, "run-1", [ledger_history.job("a")], manifest="\x1b[31m")
    )
    done = shell("runs")
    assert "\x1b" not in done.out
    assert r"\x1b[31m" in done.out


def test_sandbox_run_is_listed_without_network(shell: Shell) -> None:
    shell.manifest(*PAIRS)
    assert shell("run", "nightly.yaml", "--sandbox").code == 0
    with refusing_port() as port:
        shell.use_api(f"http://127.0.0.1:{port}", key=None)
        runs, show = shell("runs", "nightly.yaml", "--sandbox"), shell("show", "--sandbox")
    assert (runs.code, show.code) == (0, 0)
    assert runs.out.splitlines()[-1].split()[-4:] == ["3", "0", "0", "30"]
    assert "3 jobs: 3 created" in show.out


# show


def test_show_takes_the_last_run_a_manifest_or_a_run_id(shell: Shell) -> None:
    def write(ledger: Ledger) -> None:
        write_two_runs(ledger)
        ledger_history.start_run(ledger, "20270101T000000Z-cccccc", [ledger_history.job("x")], manifest="other")

    create_history(shell, write)
    last, of_manifest, by_id = shell("show"), shell("show", "--manifest", "nightly"), shell("show", "20261020T01")
    assert {done.code for done in (last, of_manifest, by_id)} == {0}
    assert "run 20270101T000000Z-cccccc of other" in last.err
    assert (
        "run 20261020T020000Z-bbbbbb of nightly at https://api.example, for the day 2026-10-20: stopped"
        in of_manifest.err
    )
    assert "run 20261020T010000Z-aaaaaa of nightly" in by_id.err
    assert "3 jobs: 1 created, 1 not created, 1 in doubt" in by_id.out
    assert "1 job is in doubt; look it up with: pixxel-runner resolve nightly" in by_id.err


def test_ambiguous_or_unknown_run_id(shell: Shell) -> None:
    create_history(shell, write_two_runs)
    shell.manifest(*PAIRS)
    ambiguous, unknown, manifest = shell("show", "2026"), shell("show", "1999"), shell("show", "nightly.yaml")
    assert {done.code for done in (ambiguous, unknown, manifest)} == {2}
    assert "20261020T010000Z-aaaaaa" in ambiguous.err
    assert "20261020T020000Z-bbbbbb" in ambiguous.err
    assert "no run starts with '1999'" in unknown.err
    assert "show --manifest nightly.yaml" in manifest.err


def test_empty_ledger_has_nothing_to_show(shell: Shell) -> None:
    create_history(shell, lambda _: None)
    done = shell("show")
    assert (done.code, done.out) == (4, "")
    assert "contains no runs yet" in done.err


def test_json_is_the_results_file_and_can_be_written_again(shell: Shell) -> None:
    scripts: dict[str, Script] = {"p-1": created("job-1"), "p-2": reply(422), "p-3": Reset(creates=True)}
    with WireServer(choose=lambda request: scripts[request.project]) as server:
        shell.use_api(server.url)
        shell.manifest(*PAIRS)
        assert shell("run", "nightly.yaml", "--hold").code == 3
    written = (shell.directory / "nightly.results.json").read_text(encoding="utf-8")
    done = shell("show", "--format", "json", "--results", "again.json")
    assert (done.code, done.out) == (0, written)
    assert (shell.directory / "again.json").read_text(encoding="utf-8") == written
    assert "results: again.json" in done.err
    check_results(shell.directory / "again.json")


def test_show_includes_later_decisions(shell: Shell) -> None:
    create_history(shell, write_two_runs)
    shell.environment["PIXXEL_BASE_URL"] = ledger_history.API
    assert shell("resolve", "--absent", "b").code == 0
    assert "2 not created, 0 in doubt" in shell("show").out


def test_results_file_that_cannot_be_written(shell: Shell) -> None:
    create_history(shell, write_two_runs)
    done = shell("show", "--results", "no/such/folder.json")
    assert done.code == 4
    assert "3 jobs" in done.out
    assert "cannot be written" in done.err


def test_run_in_progress_shows_its_results_so_far(shell: Shell) -> None:
    gate = threading.Event()
    with WireServer(created("job-1"), Stall(gate, created("job-2"))) as server:
        shell.use_api(server.url)
        shell.manifest(*PAIRS)
        with shell.start("run", "nightly.yaml", "--concurrency", "1") as run:
            server.wait_for_requests(2)
            show, runs = shell("show"), json.loads(shell("runs", "--format", "json").out)
            gate.set()
            assert run.wait(60) == 0
        ended = shell("show")
    assert (show.code, ended.code) == (0, 0)
    assert re.search(r"still in progress \(pid [0-9]+ on .*\); the jobs so far are shown", show.err)
    assert "resolve" not in show.err
    assert "sending: the request is in progress" in show.out
    assert "1 created" in show.out
    assert (runs[0]["state"], runs[0]["created"], runs[0]["in_doubt"]) == ("running", 1, 0)
    assert "3 created" in ended.out


def test_killed_run_is_interrupted_and_its_sends_are_in_doubt(shell: Shell) -> None:
    def write(ledger: Ledger) -> None:
        jobs = [ledger_history.job("a"), ledger_history.job("b", project_id="p-2")]
        ledger_history.send(ledger, ledger_history.start_run(ledger, "run-1", jobs, end=None), jobs[0], None)

    create_history(shell, write)
    show, [run_entry] = shell("show"), json.loads(shell("runs", "--format", "json").out)
    assert "interrupted; its process ended unexpectedly" in show.err
    assert "1 in doubt, 1 skipped" in show.out
    assert (run_entry["state"], run_entry["in_doubt"]) == ("interrupted", 1)


@pytest.mark.parametrize("command", [["runs"], ["show"], ["show", "--format", "json"]])
def test_broken_pipe_is_not_an_error(shell: Shell, command: list[str]) -> None:
    create_history(shell, write_two_runs)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = shell(*command, stdout=stdout)
    assert done.code == 0
    assert "Traceback" not in done.err
    assert "Broken" not in done.err
