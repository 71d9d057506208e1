"""`ledger init`, `check` and `export`: a record that is made, looked through, and read although it is damaged."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from support import ledger_history
from support.shell import CompletedCommand, Shell

from runner.core.models import Created
from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger

PAGE = 4096


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def ledger(shell: Shell) -> Path:
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    return shell.ledger


def lines(done: CompletedCommand) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def fill(path: Path, count: int) -> None:
    """One run with so many created jobs, each of which fills a good part of a page."""
    jobs = [ledger_history.job(f"job-{number:03}", f"w-{number}", note="x" * 1000) for number in range(count)]
    with Ledger(path) as opened:
        run = ledger_history.start_run(opened, "run-1", jobs)
        for one in jobs:
            ledger_history.send(opened, run, one, ledger_history.created(f"id-of-{one.name}"))


def damage(path: Path, marker: bytes) -> None:
    """Overwrite every page that holds the marker, as a disk does that loses them."""
    data = bytearray(path.read_bytes())
    places = [at for at in range(0, len(data), PAGE) if marker in data[at : at + PAGE]]
    assert places
    for at in places:
        data[at : at + PAGE] = b"\xa5" * PAGE
    path.write_bytes(data)


# init


def test_init_makes_one_and_says_what_to_do_next(shell: Shell) -> None:
    done = shell("ledger", "init", "kept.db")
    path = shell.directory / "kept.db"
    assert (done.code, done.out) == (0, "")
    assert f"export PIXXEL_RUNNER_LEDGER={path}" in done.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shell.environment["PIXXEL_RUNNER_LEDGER"] = str(path)
    assert "no submissions yet" in shell("ledger", "check").out


def test_init_never_overwrites(shell: Shell, ledger: Path) -> None:
    before = ledger.read_bytes()
    done = shell("ledger", "init", ledger)
    assert done.code == 4
    assert "already exists" in done.err
    assert ledger.read_bytes() == before


def test_init_wants_a_file_in_a_folder_that_exists(shell: Shell) -> None:
    folder, missing = shell("ledger", "init", "."), shell("ledger", "init", "no/such/ledger.db")
    assert (folder.code, missing.code) == (2, 4)
    assert "ledger.db" in folder.err
    assert "No such file or directory" in missing.err
    assert list(shell.directory.iterdir()) == []


# check


def test_check_says_what_is_in_it(shell: Shell, ledger: Path) -> None:
    here = shell.write("here.yaml", "")
    with Ledger(ledger) as opened:
        jobs = [
            ledger_history.job("a"),
            ledger_history.job("b", project_id="p-2"),
            ledger_history.job("c", project_id="p-3"),
        ]
        run = ledger_history.start_run(opened, "run-1", jobs, manifest="here", path=str(here))
        ledger_history.send(opened, run, jobs[0], ledger_history.created("job-1"))
        ledger_history.send(opened, run, jobs[1], ledger_history.in_doubt())
        ledger_history.start_run(opened, "run-2", [], manifest="gone", path="/no/such.yaml", api="sandbox")
    with lock.hold(ledger, ledger_history.API, "here", timeout=0, activity="run run-3"):
        done = shell("ledger", "check")
    head, whose, doubts, unfinished, locked = done.out.split("\n\n")
    assert done.code == 0
    assert head.startswith(".pixxel-runner/ledger.db: intact, version 1, ")
    assert [line.split()[0] for line in whose.splitlines()[2:]] == ["here", "gone"]
    assert whose.splitlines()[2].split()[1:] == [ledger_history.API, str(here), "1", "1", "1"]
    assert "/no/such.yaml (missing)" in whose
    assert "b of here at https://api.example, run run-1: sent 2026-10-20 01:00:00 UTC, no answer in time" in doubts
    assert "here at https://api.example, run run-1 (completed): 1 of 3 jobs not created" in unfinished
    assert "here at https://api.example: run run-3 (pid " in locked


@pytest.mark.parametrize("marker", [b"id-of-job-030", b"CREATE TABLE"])
def test_check_of_a_damaged_ledger(shell: Shell, ledger: Path, marker: bytes) -> None:
    fill(ledger, 60)
    damage(ledger, marker)
    done = shell("ledger", "check")
    assert (done.code, done.out) == (4, "")
    assert "ledger.db" in done.err
    assert "bug" not in done.err


def test_check_without_a_ledger_makes_none(shell: Shell) -> None:
    for options in ([], ["--sandbox"], ["--ledger", "no.db"]):
        done = shell("ledger", "check", *options)
        assert done.code == 4
        assert "there is no ledger at" in done.err
    assert list(shell.directory.iterdir()) == []


# export


def test_export_has_every_field_of_every_submission(shell: Shell, ledger: Path) -> None:
    with Ledger(ledger) as opened:
        jobs = [
            ledger_history.job("a", team="agri"),
            ledger_history.job("b", project_id="p-2"),
            ledger_history.job("c", project_id="p-3"),
        ]
        run = ledger_history.start_run(opened, "run-1", jobs, key="day:2026-10-20")
        ledger_history.send(
            opened,
            run,
            jobs[0],
            ledger_history.created("job-1", b'{\r\n\t"id": "job-1",\n "cost": 12, "x": [1e2, "\xc3\xa9"]}\n'),
        )
        ledger_history.send(opened, run, jobs[1], ledger_history.not_created("no \x1b[31m"))
        ledger_history.send(opened, run, jobs[2], ledger_history.in_doubt("x", "y"))
    done = shell("ledger", "export")
    created, failed, doubt = lines(done)
    assert (done.code, done.err) == (0, "")
    assert created == {
        "id": 1,
        "manifest": "nightly",
        "run_key": "day:2026-10-20",
        "workflow_id": "w-1",
        "project_id": "p-1",
        "ordinal": 1,
        "again": False,
        "api": ledger_history.API,
        "state": "created",
        "name": "a",
        "labels": {"team": "agri"},
        "run_id": "run-1",
        "attempts": 1,
        "claimed_at": "2026-10-20T01:00:00+00:00",
        "ended_at": "2026-10-20T01:00:05+00:00",
        "timeout": 30.0,
        "estimate": None,
        "job_id": "job-1",
        "created_by": None,
        "cost": 12,
        "val_errors": 0,
        "recovered": False,
        "assigned": True,
        "error": None,
        "candidates": [],
        "decisions": [],
        "job": {"id": "job-1", "cost": 12, "x": [1e2, "é"]},
    }
    assert '"x": [1e2, "\\u00e9"]' in done.out  # as it came, but for the escape
    assert failed["error"] == {"kind": "rejected", "message": "no \x1b[31m", "http_status": 400}
    assert doubt["candidates"] == ["x", "y"]
    assert done.out.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "x", "cost": NaN}',
        b'{"id": "x", "deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"id": "x"\xff}',
        b'{"id": "x\\ud800", "y": "\xed\xa0\x80"}',
    ],
    ids=["nan", "deep", "not-utf-8", "surrogates"],
)
def test_what_cannot_stand_in_json_is_exported_as_text(shell: Shell, ledger: Path, body: bytes) -> None:
    with Ledger(ledger) as opened:
        one = ledger_history.job("a")
        ledger_history.send(
            opened,
            ledger_history.start_run(opened, "run-1", [one]),
            one,
            Created("x\ud800", body, 1, ledger_history.THEN),
        )
    [line] = lines(shell("ledger", "export"))
    assert (line["job_id"], line["job"]) == ("x\ud800", None)
    assert line["job_text"].encode("utf-8", "surrogateescape") == body


def test_what_a_terminal_would_act_on_is_escaped_within_an_embedded_job(shell: Shell, ledger: Path) -> None:
    text = "\x7f\u202e\u009b##[error] ##vso[x] \U0001f600"
    body = json.dumps({"id": "x", "y": text}, ensure_ascii=False).encode()
    with Ledger(ledger) as opened:
        one = ledger_history.job("a")
        ledger_history.send(
            opened, ledger_history.start_run(opened, "run-1", [one]), one, ledger_history.created("x", body)
        )
    done = shell("ledger", "export")
    assert done.out.replace("\n", "").isascii()
    assert "\x7f" not in done.out
    assert "##" not in done.out
    assert lines(done)[0]["job"]["y"] == text


@pytest.mark.parametrize("marker", [b"job-030", b"id-of-job-055"], ids=["in-the-middle", "towards-the-end"])
def test_what_is_whole_of_a_damaged_ledger_is_exported(shell: Shell, ledger: Path, marker: bytes) -> None:
    fill(ledger, 60)
    damage(ledger, marker)
    before = ledger.read_bytes()
    done = shell("ledger", "export")
    names = [line["name"] for line in lines(done)]
    assert done.code == 4
    assert "cannot be read: " in done.err
    assert 40 <= len(names) < 60 or any(line["job"] is None for line in lines(done))
    assert names[0] == "job-000"
    assert names[-1] == "job-059"
    assert names == sorted(names)
    assert ledger.read_bytes() == before


def test_what_is_no_ledger_is_said(shell: Shell, ledger: Path) -> None:
    shell.write("text.db", "not a database, and long enough to be looked at as if it were one" * 20)
    shell.write("empty.db", "")
    for path in ("text.db", "empty.db"):
        done = shell("ledger", "export", "--ledger", path)
        assert (done.code, done.out) == (4, "")
        assert "cannot be read at all" in done.err
    assert ledger.exists()


def test_export_while_a_run_has_the_ledger_open(shell: Shell, ledger: Path) -> None:
    one = ledger_history.job("a")
    with Ledger(ledger) as opened:
        ledger_history.send(opened, ledger_history.start_run(opened, "run-1", [one], end=None), one, None)
        [line] = lines(shell("ledger", "export"))
    assert line["state"] == "sending"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_export_from_a_folder_that_cannot_be_written(shell: Shell, ledger: Path) -> None:
    fill(ledger, 3)
    ledger.parent.chmod(0o500)
    try:
        assert len(lines(shell("ledger", "export"))) == 3
    finally:
        ledger.parent.chmod(0o700)


def test_nobody_who_reads_changes_nothing(shell: Shell, ledger: Path) -> None:
    fill(ledger, 200)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = shell("ledger", "export", stdout=stdout)
    assert (done.code, done.err) == (0, "")
