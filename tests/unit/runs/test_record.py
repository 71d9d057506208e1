"""The record of a run key: the outcome of each job in the ledger, in manifest order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import ledger_history

from runner.core.models import (
    Created,
    Entries,
    Entry,
    InDoubt,
    Job,
    NotCreated,
    Outcome,
    Skipped,
    Submission,
    describe_outcome,
)
from runner.ledger.connect import create_ledger
from runner.ledger.rows import KILLED, Claim, RunRow
from runner.ledger.store import Ledger
from runner.planning import plan
from runner.runs import record

KEY = "day:2026-10-20"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    create_ledger(tmp_path / "ledger.db")
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def summarize_outcome(outcome: Outcome) -> str:
    match outcome:
        case Created(job_id):
            return f"created {job_id}"
        case NotCreated(error) | InDoubt(error):
            return f"{describe_outcome(outcome)} {error.kind}"
        case Skipped(reason):
            return f"skipped {reason}"


def summarize_entries(entries: Entries) -> list[tuple[str, str, str]]:
    return [(entry.job.name, summarize_outcome(entry.outcome), entry.run_id) for entry in entries]


def send_additional(ledger: Ledger, run: RunRow, job: Job, outcome: Created) -> None:
    with ledger.transaction():
        claim = Claim(Submission(job, 2, again=True), 1, ledger_history.THEN, 30.0)
        [submission_id] = ledger.claim(run, ledger.manifest_id(run.api, run.manifest), [claim])
        ledger.save_outcomes([(submission_id, outcome, ledger_history.THEN)])


def test_each_job_has_one_outcome_in_manifest_order(ledger: Ledger) -> None:
    names = ("killed", "created", "rejected", "in-doubt", "released", "unsent", "disabled")
    jobs = [replace(ledger_history.job(name, f"w-{name}"), enabled=name != "disabled") for name in names]
    by_name = {job.name: job for job in jobs}
    run = ledger_history.start_run(ledger, "run-1", jobs, key=KEY, end="interrupted")
    ledger_history.send(ledger, run, by_name["in-doubt"], ledger_history.in_doubt("x", "y"))
    ledger_history.send(
        ledger, run, by_name["created"], ledger_history.created("job-1", b'{"id": "job-1",  "cost": 1e400}')
    )
    ledger_history.send(ledger, run, by_name["rejected"], ledger_history.not_created())
    ledger_history.send(ledger, run, by_name["killed"], None)
    submission_id = ledger_history.send(ledger, run, by_name["released"], None)
    with ledger.transaction():
        ledger.release(submission_id)

    entries = record.load_record(ledger, run).entries
    assert [(entry.job.name, summarize_outcome(entry.outcome)) for entry in entries] == [
        ("killed", "in doubt interrupted"),
        ("created", "created job-1"),
        ("rejected", "not created rejected"),
        ("in-doubt", "in doubt timeout"),
        ("released", "skipped interrupted"),
        ("unsent", "skipped interrupted"),
        ("disabled", "skipped disabled"),
    ]
    assert list(entries) == list(entries)
    assert len(entries) == 7
    outcomes = {entry.job.name: entry.outcome for entry in entries}
    assert outcomes["created"] == Created("job-1", b'{"id": "job-1",  "cost": 1e400}', 1, ledger_history.THEN)
    assert outcomes["in-doubt"] == InDoubt(ledger_history.TIMEOUT, 1, ledger_history.THEN, ("x", "y"))
    assert outcomes["killed"] == InDoubt(KILLED, 1, ledger_history.THEN)


@pytest.mark.parametrize(
    ("job_changes", "run_changes", "expected"),
    [
        ({"enabled": False}, {"state": "stopped", "detail": "401"}, ("disabled", "disabled in the manifest")),
        ({"name": "b"}, {"settings": {"only": ["a*"]}}, ("not_selected", "matches no --only pattern")),
        ({"name": "ab"}, {"settings": {"only": ["a*"]}}, ("interrupted", "the run ended before its turn")),
        ({}, {"state": "stopped", "detail": "401"}, ("stopped", "401")),
        ({}, {"state": "interrupted", "detail": "by SIGINT"}, ("interrupted", "by SIGINT")),
        ({}, {"state": "running"}, ("interrupted", "the run ended before its turn")),
    ],
)
def test_the_reasons_why_jobs_were_skipped(
    ledger: Ledger, job_changes: dict[str, Any], run_changes: dict[str, Any], expected: tuple[str, str]
) -> None:
    job = replace(ledger_history.job("a"), **job_changes)
    run = replace(ledger_history.start_run(ledger, "run-1", [job], key=KEY), **run_changes)
    [entry] = record.load_record(ledger, run).entries
    assert entry == Entry(job, Skipped(*expected), "run-1")


def test_the_record_covers_the_run_key_and_removed_jobs(ledger: Ledger) -> None:
    kept, removed, rejected = (
        ledger_history.job("kept"),
        ledger_history.job("removed", "w-2", team="agri"),
        ledger_history.job("rejected", "w-3"),
    )
    first = ledger_history.start_run(ledger, "run-1", [kept, removed, rejected], key=KEY)
    ledger_history.send(ledger, first, kept, ledger_history.created("job-1"))
    ledger_history.send(ledger, first, removed, ledger_history.created("job-2"))
    ledger_history.send(ledger, first, rejected, ledger_history.not_created())
    other = ledger_history.start_run(ledger, "run-2", [kept], key="day:2026-10-21")
    ledger_history.send(ledger, other, kept, ledger_history.created("job-9"))
    renamed = replace(kept, name="renamed")
    added = ledger_history.job("added", "w-4")
    last = ledger_history.start_run(ledger, "run-3", [added, renamed], key=KEY)
    ledger_history.send(ledger, last, added, ledger_history.created("job-3"))
    send_additional(ledger, last, renamed, ledger_history.created("job-4"))

    entries = record.load_record(ledger, last).entries
    assert summarize_entries(entries)[:2] == [
        ("added", "created job-3", "run-3"),
        ("renamed", "created job-1", "run-1"),
    ]
    assert sorted(summarize_entries(entries)[2:]) == [
        ("removed", "created job-2", "run-1"),
        ("renamed", "created job-4", "run-3"),
    ]
    assert len(entries) == 4
    assert Job("removed", "w-2", "p-1", {"team": "agri"}) in [entry.job for entry in entries]
    # The record of the first run has the jobs of that run, with the outcomes of the complete run key.
    assert summarize_entries(record.load_record(ledger, first).entries)[:3] == [
        ("kept", "created job-1", "run-1"),
        ("removed", "created job-2", "run-1"),
        ("rejected", "not created rejected", "run-1"),
    ]


def test_a_recovered_job_has_its_candidates(ledger: Ledger) -> None:
    job = ledger_history.job("a")
    run = ledger_history.start_run(ledger, "run-1", [job], key=KEY)
    outcome = Created(
        "x", b'{"id": "x"}', 1, ledger_history.THEN, recovered=True, assigned=False, candidates=("x", "y")
    )
    ledger_history.send(ledger, run, job, outcome)
    [entry] = record.load_record(ledger, run).entries
    assert entry.outcome == outcome


def test_a_run_without_an_end_is_interrupted(ledger: Ledger) -> None:
    run = ledger_history.start_run(ledger, "run-1", [ledger_history.job("a")], key=KEY, end=None)
    before = datetime.now(UTC)
    run_info = record.load_record(ledger, run).run
    assert (run_info.state, run_info.id, run_info.key, run_info.base_url) == (
        "interrupted",
        "run-1",
        KEY,
        ledger_history.API,
    )
    assert before <= run_info.finished_at <= datetime.now(UTC)
    ended = replace(run, state="completed", finished_at=ledger_history.THEN + timedelta(minutes=1))
    run_info = record.load_record(ledger, ended).run
    assert (run_info.state, run_info.finished_at) == ("completed", ledger_history.THEN + timedelta(minutes=1))


def test_job_objects_are_read_in_batches_while_iterating(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [ledger_history.job(f"j{number}", f"w-{number}") for number in range(3)]
    run = ledger_history.start_run(ledger, "run-1", jobs, key=KEY)
    for number, job in enumerate(jobs):
        ledger_history.send(ledger, run, job, ledger_history.created(f"job-{number}"))
    batches: list[Sequence[int]] = []
    job_objects = ledger.job_objects

    def read_batch(submissions: Sequence[int]) -> dict[int, tuple[bytes, datetime | None]]:
        batches.append(submissions)
        return job_objects(submissions)

    monkeypatch.setattr(ledger, "job_objects", read_batch)
    monkeypatch.setattr(record, "_BATCH", 2)
    entries = iter(record.load_record(ledger, run).entries)
    assert batches == []
    next(entries)
    assert len(batches) == 1
    assert [entry.outcome for entry in entries]
    assert [len(batch) for batch in batches] == [2, 1]


def test_claims_that_could_not_be_released_are_skipped(ledger: Ledger) -> None:
    """On a full disk, the ledger has the claim, but it could not be released."""
    jobs = [ledger_history.job("a"), ledger_history.job("b", "w-2")]
    run = ledger_history.start_run(ledger, "run-1", jobs, key=KEY)
    for job in jobs:
        ledger_history.send(ledger, run, job, None)
    stopped = replace(run, state="stopped", reason="stopped", detail="the disk is full")
    matched = plan.match_submissions(jobs, ledger.submissions(run.api, run.manifest, run.run_key))
    run_record = record.build_record(ledger, stopped, jobs, matched, unreleased=[Submission(jobs[0], 1)])
    first, second = (entry.outcome for entry in run_record.entries)
    assert first == Skipped("stopped", "the disk is full")
    assert isinstance(second, InDoubt)
