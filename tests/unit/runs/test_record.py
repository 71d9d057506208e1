"""The record of a run key: what the ledger says of each job, in the manifest's order, as often as it is asked."""

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


def words(outcome: Outcome) -> str:
    match outcome:
        case Created(job_id):
            return f"created {job_id}"
        case NotCreated(error) | InDoubt(error):
            return f"{describe_outcome(outcome)} {error.kind}"
        case Skipped(reason):
            return f"skipped {reason}"


def told(entries: Entries) -> list[tuple[str, str, str]]:
    return [(entry.job.name, words(entry.outcome), entry.run_id) for entry in entries]


def send_again(ledger: Ledger, run: RunRow, job: Job, outcome: Created) -> None:
    with ledger.transaction():
        claim = Claim(Submission(job, 2, again=True), 1, ledger_history.THEN, 30.0)
        [number] = ledger.claim(run, ledger.manifest_id(run.api, run.manifest), [claim])
        ledger.save_outcomes([(number, outcome, ledger_history.THEN)])


def test_each_job_has_one_outcome_in_the_manifest_s_order(ledger: Ledger) -> None:
    names = ("sent", "made", "refused", "lost", "released", "unsent", "off")
    jobs = [replace(ledger_history.job(name, f"w-{name}"), enabled=name != "off") for name in names]
    of = {one.name: one for one in jobs}
    run = ledger_history.start_run(ledger, "run-1", jobs, key=KEY, end="interrupted")
    ledger_history.send(ledger, run, of["lost"], ledger_history.in_doubt("x", "y"))
    ledger_history.send(ledger, run, of["made"], ledger_history.created("job-1", b'{"id": "job-1",  "cost": 1e400}'))
    ledger_history.send(ledger, run, of["refused"], ledger_history.not_created())
    ledger_history.send(ledger, run, of["sent"], None)
    number = ledger_history.send(ledger, run, of["released"], None)
    with ledger.transaction():
        ledger.release(number)

    entries = record.load_record(ledger, run).entries
    assert [(entry.job.name, words(entry.outcome)) for entry in entries] == [
        ("sent", "in doubt interrupted"),
        ("made", "created job-1"),
        ("refused", "not created rejected"),
        ("lost", "in doubt timeout"),
        ("released", "skipped interrupted"),
        ("unsent", "skipped interrupted"),
        ("off", "skipped disabled"),
    ]
    assert list(entries) == list(entries)
    assert len(entries) == 7
    by_name = {entry.job.name: entry.outcome for entry in entries}
    assert by_name["made"] == Created("job-1", b'{"id": "job-1",  "cost": 1e400}', 1, ledger_history.THEN)
    assert by_name["lost"] == InDoubt(ledger_history.TIMEOUT, 1, ledger_history.THEN, ("x", "y"))
    assert by_name["sent"] == InDoubt(KILLED, 1, ledger_history.THEN)


@pytest.mark.parametrize(
    ("of_job", "of_run", "expected"),
    [
        ({"enabled": False}, {"state": "stopped", "detail": "401"}, ("disabled", "enabled: false in the manifest")),
        ({"name": "b"}, {"settings": {"only": ["a*"]}}, ("not_selected", "matches no --only pattern")),
        ({"name": "ab"}, {"settings": {"only": ["a*"]}}, ("interrupted", "the run ended before its turn")),
        ({}, {"state": "stopped", "detail": "401"}, ("stopped", "401")),
        ({}, {"state": "interrupted", "detail": "by SIGINT"}, ("interrupted", "by SIGINT")),
        ({}, {"state": "running"}, ("interrupted", "the run ended before its turn")),
    ],
)
def test_why_a_job_was_not_sent(
    ledger: Ledger, of_job: dict[str, Any], of_run: dict[str, Any], expected: tuple[str, str]
) -> None:
    job = replace(ledger_history.job("a"), **of_job)
    run = replace(ledger_history.start_run(ledger, "run-1", [job], key=KEY), **of_run)
    [entry] = record.load_record(ledger, run).entries
    assert entry == Entry(job, Skipped(*expected), "run-1")


def test_it_covers_the_run_key_and_what_no_entry_stands_for_any_more(ledger: Ledger) -> None:
    kept, gone, tried = (
        ledger_history.job("kept"),
        ledger_history.job("gone", "w-2", team="agri"),
        ledger_history.job("tried", "w-3"),
    )
    first = ledger_history.start_run(ledger, "run-1", [kept, gone, tried], key=KEY)
    ledger_history.send(ledger, first, kept, ledger_history.created("job-1"))
    ledger_history.send(ledger, first, gone, ledger_history.created("job-2"))
    ledger_history.send(ledger, first, tried, ledger_history.not_created())
    other = ledger_history.start_run(ledger, "run-2", [kept], key="day:2026-10-21")
    ledger_history.send(ledger, other, kept, ledger_history.created("job-9"))
    renamed = replace(kept, name="renamed")
    added = ledger_history.job("added", "w-4")
    last = ledger_history.start_run(ledger, "run-3", [added, renamed], key=KEY)
    ledger_history.send(ledger, last, added, ledger_history.created("job-3"))
    send_again(ledger, last, renamed, ledger_history.created("job-4"))

    entries = record.load_record(ledger, last).entries
    assert told(entries)[:2] == [("added", "created job-3", "run-3"), ("renamed", "created job-1", "run-1")]
    assert sorted(told(entries)[2:]) == [("gone", "created job-2", "run-1"), ("renamed", "created job-4", "run-3")]
    assert len(entries) == 4
    assert Job("gone", "w-2", "p-1", {"team": "agri"}) in [entry.job for entry in entries]
    # The record of the first run has its own jobs, and the outcomes of the whole day.
    assert told(record.load_record(ledger, first).entries)[:3] == [
        ("kept", "created job-1", "run-1"),
        ("gone", "created job-2", "run-1"),
        ("tried", "not created rejected", "run-1"),
    ]


def test_a_found_job_says_how_it_was_found(ledger: Ledger) -> None:
    job = ledger_history.job("a")
    run = ledger_history.start_run(ledger, "run-1", [job], key=KEY)
    found = Created("x", b'{"id": "x"}', 1, ledger_history.THEN, recovered=True, assigned=False, candidates=("x", "y"))
    ledger_history.send(ledger, run, job, found)
    [entry] = record.load_record(ledger, run).entries
    assert entry.outcome == found


def test_a_run_that_never_ended_was_interrupted(ledger: Ledger) -> None:
    run = ledger_history.start_run(ledger, "run-1", [ledger_history.job("a")], key=KEY, end=None)
    before = datetime.now(UTC)
    about = record.load_record(ledger, run).run
    assert (about.state, about.id, about.key, about.base_url) == ("interrupted", "run-1", KEY, ledger_history.API)
    assert before <= about.finished_at <= datetime.now(UTC)
    ended = replace(run, state="completed", finished_at=ledger_history.THEN + timedelta(minutes=1))
    about = record.load_record(ledger, ended).run
    assert (about.state, about.finished_at) == ("completed", ledger_history.THEN + timedelta(minutes=1))


def test_bodies_are_read_when_they_are_asked_for(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [ledger_history.job(f"j{number}", f"w-{number}") for number in range(3)]
    run = ledger_history.start_run(ledger, "run-1", jobs, key=KEY)
    for number, job in enumerate(jobs):
        ledger_history.send(ledger, run, job, ledger_history.created(f"job-{number}"))
    read: list[Sequence[int]] = []
    job_objects = ledger.job_objects

    def reading(submissions: Sequence[int]) -> dict[int, tuple[bytes, datetime | None]]:
        read.append(submissions)
        return job_objects(submissions)

    monkeypatch.setattr(ledger, "job_objects", reading)
    monkeypatch.setattr(record, "_BATCH", 2)
    entries = iter(record.load_record(ledger, run).entries)
    assert read == []
    next(entries)
    assert len(read) == 1
    assert [entry.outcome for entry in entries]
    assert [len(batch) for batch in read] == [2, 1]


def test_what_is_claimed_on_record_and_was_not_sent_is_told_as_skipped(ledger: Ledger) -> None:
    """As on a disk that is full: the ledger has the claim, and could not be told that nothing left."""
    jobs = [ledger_history.job("a"), ledger_history.job("b", "w-2")]
    run = ledger_history.start_run(ledger, "run-1", jobs, key=KEY)
    for job in jobs:
        ledger_history.send(ledger, run, job, None)
    stopped = replace(run, state="stopped", reason="stopped", detail="the disk is full")
    matched = plan.match_submissions(jobs, ledger.submissions(run.api, run.manifest, run.run_key))
    made = record.build_record(ledger, stopped, jobs, matched, unreleased=[Submission(jobs[0], 1)])
    first, second = (entry.outcome for entry in made.entries)
    assert first == Skipped("stopped", "the disk is full")
    assert isinstance(second, InDoubt)
