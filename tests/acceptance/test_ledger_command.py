"""`ledger init`, `check` and `export`: create a ledger, check it, and read it even if it is damaged."""

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


def parse_lines(result: CompletedCommand) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.out.splitlines()]


def fill(path: Path, count: int) -> None:
    """Write a run of `count` created jobs, each of which fills about a quarter of a page."""
    jobs = [ledger_history.job(f"job-{number:03}", f"w-{number}", note="x" * 1000) for number in range(count)]
    with Ledger(path) as opened:
        run = ledger_history.start_run(opened, "run-1", jobs)
        for job in jobs:
            ledger_history.send(opened, run, job, ledger_history.created(f"id-of-{job.name}"))


def damage(path: Path, marker: bytes) -> None:
    """Overwrite every page that contains the marker, as a failing disk would."""
    data = bytearray(path.read_bytes())
    offsets = [offset for offset in range(0, len(data), PAGE) if marker in data[offset : offset + PAGE]]
    assert offsets
    for offset in offsets:
        data[offset : offset + PAGE] = b"\xa5" * PAGE
    path.write_bytes(data)


# init


def test_init_creates_a_ledger_and_prints_the_next_step(shell: Shell) -> None:
    result = shell("ledger", "init", "jobs.db")
    path = shell.directory / "jobs.db"
    assert (result.code, result.out) == (0, "")
    assert f"export PIXXEL_RUNNER_LEDGER={path}" in result.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shell.environment["PIXXEL_RUNNER_LEDGER"] = str(path)
    assert "no submissions yet" in shell("ledger", "check").out


def test_init_never_overwrites_a_ledger(shell: Shell, ledger: Path) -> None:
    before = ledger.read_bytes()
    result = shell("ledger", "init", ledger)
    assert result.code == 4
    assert "already exists" in result.err
    assert ledger.read_bytes() == before


def test_init_requires_a_file_in_an_existing_directory(shell: Shell) -> None:
    directory, missing = shell("ledger", "init", "."), shell("ledger", "init", "no/such/ledger.db")
    assert (directory.code, missing.code) == (2, 4)
    assert "ledger.db" in directory.err
    assert "No such file or directory" in missing.err
    assert list(shell.directory.iterdir()) == []


# check


def test_check_summarizes_the_ledger(shell: Shell, ledger: Path) -> None:
    manifest_path = shell.write("here.yaml", "")
    with Ledger(ledger) as opened:
        jobs = [
            ledger_history.job("a"),
            ledger_history.job("b", project_id="p-2"),
            ledger_history.job("c", project_id="p-3"),
        ]
        run = ledger_history.start_run(opened, "run-1", jobs, manifest="here", path=str(manifest_path))
        ledger_history.send(opened, run, jobs[0], ledger_history.created("job-1"))
        ledger_history.send(opened, run, jobs[1], ledger_history.in_doubt())
        ledger_history.start_run(opened, "run-2", [], manifest="gone", path="/no/such.yaml", api="sandbox")
    with lock.hold(ledger, ledger_history.API, "here", timeout=0, activity="run run-3"):
        result = shell("ledger", "check")
    summary, manifests, in_doubt, unfinished, locked = result.out.split("\n\n")
    assert result.code == 0
    assert summary.startswith(".pixxel-runner/ledger.db: intact, version 1, ")
    assert [line.split()[0] for line in manifests.splitlines()[2:]] == ["here", "gone"]
    assert manifests.splitlines()[2].split()[1:] == [ledger_history.API, str(manifest_path), "1", "1", "1"]
    assert "/no/such.yaml (missing)" in manifests
    assert "b of here at https://api.example, run run-1: sent 2026-10-20 01:00:00 UTC, no answer in time" in in_doubt
    assert "here at https://api.example, run run-1 (completed): 1 of 3 jobs not created" in unfinished
    assert "here at https://api.example: run run-3 (pid " in locked


@pytest.mark.parametrize("marker", [b"id-of-job-030", b"CREATE TABLE"])
def test_check_refuses_a_damaged_ledger(shell: Shell, ledger: Path, marker: bytes) -> None:
    fill(ledger, 60)
    damage(ledger, marker)
    result = shell("ledger", "check")
    assert (result.code, result.out) == (4, "")
    assert "ledger.db" in result.err
    assert "bug" not in result.err


def test_check_does_not_create_a_ledger(shell: Shell) -> None:
    for options in ([], ["--sandbox"], ["--ledger", "no.db"]):
        result = shell("ledger", "check", *options)
        assert result.code == 4
        assert "there is no ledger at" in result.err
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
    result = shell("ledger", "export")
    created, not_created, in_doubt = parse_lines(result)
    assert (result.code, result.err) == (0, "")
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
    assert '"x": [1e2, "\\u00e9"]' in result.out  # unchanged except for the escape
    assert not_created["error"] == {"kind": "rejected", "message": "no \x1b[31m", "http_status": 400}
    assert in_doubt["candidates"] == ["x", "y"]
    assert result.out.replace("\n", "").isprintable()


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
def test_a_response_that_is_not_json_is_exported_as_text(shell: Shell, ledger: Path, body: bytes) -> None:
    with Ledger(ledger) as opened:
        job = ledger_history.job("a")
        ledger_history.send(
            opened,
            ledger_history.start_run(opened, "run-1", [job]),
            job,
            Created("x\ud800", body, 1, ledger_history.THEN),
        )
    [line] = parse_lines(shell("ledger", "export"))
    assert (line["job_id"], line["job"]) == ("x\ud800", None)
    assert line["job_text"].encode("utf-8", "surrogateescape") == body


def test_control_sequences_in_a_job_are_escaped(shell: Shell, ledger: Path) -> None:
    text = "\x7f\u202e\u009b##[error] ##vso[x] \U0001f600"
    body = json.dumps({"id": "x", "y": text}, ensure_ascii=False).encode()
    with Ledger(ledger) as opened:
        job = ledger_history.job("a")
        ledger_history.send(
            opened, ledger_history.start_run(opened, "run-1", [job]), job, ledger_history.created("x", body)
        )
    result = shell("ledger", "export")
    assert result.out.replace("\n", "").isascii()
    assert "\x7f" not in result.out
    assert "##" not in result.out
    assert parse_lines(result)[0]["job"]["y"] == text


@pytest.mark.parametrize("marker", [b"job-030", b"id-of-job-055"], ids=["in-the-middle", "towards-the-end"])
def test_intact_rows_of_a_damaged_ledger_are_exported(shell: Shell, ledger: Path, marker: bytes) -> None:
    fill(ledger, 60)
    damage(ledger, marker)
    before = ledger.read_bytes()
    result = shell("ledger", "export")
    names = [line["name"] for line in parse_lines(result)]
    assert result.code == 4
    assert "cannot be read: " in result.err
    assert 40 <= len(names) < 60 or any(line["job"] is None for line in parse_lines(result))
    assert names[0] == "job-000"
    assert names[-1] == "job-059"
    assert names == sorted(names)
    assert ledger.read_bytes() == before


def test_export_refuses_a_file_that_is_not_a_ledger(shell: Shell, ledger: Path) -> None:
    shell.write("text.db", "not a database, and long enough to have a header " * 20)
    shell.write("empty.db", "")
    for path in ("text.db", "empty.db"):
        result = shell("ledger", "export", "--ledger", path)
        assert (result.code, result.out) == (4, "")
        assert "cannot be read at all" in result.err
    assert ledger.exists()


def test_export_works_while_a_run_uses_the_ledger(shell: Shell, ledger: Path) -> None:
    job = ledger_history.job("a")
    with Ledger(ledger) as opened:
        ledger_history.send(opened, ledger_history.start_run(opened, "run-1", [job], end=None), job, None)
        [line] = parse_lines(shell("ledger", "export"))
    assert line["state"] == "sending"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_export_works_in_a_read_only_directory(shell: Shell, ledger: Path) -> None:
    fill(ledger, 3)
    ledger.parent.chmod(0o500)
    try:
        assert len(parse_lines(shell("ledger", "export"))) == 3
    finally:
        ledger.parent.chmod(0o700)


def test_export_to_a_closed_pipe_succeeds(shell: Shell, ledger: Path) -> None:
    fill(ledger, 200)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        result = shell("ledger", "export", stdout=stdout)
    assert (result.code, result.err) == (0, "")
