"""Which jobs are followed: those of a run in a ledger, or of a results file, whoever wrote it; and what is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ledger_history
from support.records import json_values

from runner.core.errors import RefusedError, UsageError
from runner.core.models import Created
from runner.ledger.connect import create_ledger
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.runs import record, results_file, summary, tracking
from runner.runs.job_status import JobStatus
from runner.runs.tracking import TrackedRun

JOBS = [ledger_history.job(name, f"w-{name}", f"p-{name}") for name in "abcde"]
DONE = b'{"id": "job-a", "status": "completed", "cost": 7}'
SEEN = datetime(2026, 10, 20, 2, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_ledger(tmp_path / "ledger.db")
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as one:
        yield one


def write(ledger: Ledger) -> tuple[RunRow, int]:
    """A run that created two jobs, was refused one, lost one, and never sent the last; and the first one's number."""
    run = ledger_history.start_run(ledger, "run-1", JOBS, end="stopped")
    number = ledger_history.send(ledger, run, JOBS[0], ledger_history.created("job-a"))
    ledger_history.send(ledger, run, JOBS[1], ledger_history.created("job-b"))
    ledger_history.send(ledger, run, JOBS[2], ledger_history.not_created())
    ledger_history.send(ledger, run, JOBS[3], ledger_history.in_doubt())
    return run, number


def named(name: str, body: bytes, seen_at: datetime | None = None) -> JobStatus:
    """The job of an entry of the manifest, as it is followed from the outset."""
    job = next(one for one in JOBS if one.name == name)
    return JobStatus(name, job.workflow_id, job.project_id, f"job-{name}", body, seen_at)


ANSWER_A, ANSWER_B = (b'{"id": "job-%b", "cost": 12}' % name for name in (b"a", b"b"))
FOLLOWED = TrackedRun(
    "run-1",
    "nightly",
    "nightly.yaml",
    ledger_history.API,
    (named("a", ANSWER_A), named("b", ANSWER_B)),
    {"not_created": 1, "in_doubt": 1, "skipped": 1},
)


# A run of a ledger.


def test_the_jobs_of_a_run(ledger: Ledger) -> None:
    run, _ = write(ledger)
    assert tracking.track_run(ledger, run) == FOLLOWED


def test_what_was_final_is_known_from_the_start(ledger: Ledger) -> None:
    run, number = write(ledger)
    ledger.save_final_jobs({number: DONE}, SEEN)
    first, second = tracking.track_run(ledger, run).jobs
    assert (first, first.is_final) == (named("a", DONE, SEEN), True)
    assert (second, second.is_final) == (named("b", ANSWER_B), False)


def test_a_run_without_jobs(ledger: Ledger) -> None:
    run = ledger_history.start_run(ledger, "run-1", JOBS[:1])
    ledger_history.send(ledger, run, JOBS[0], ledger_history.not_created())
    followed = tracking.track_run(ledger, run)
    assert (followed.jobs, followed.without_job) == ((), {"not_created": 1})


# What is kept.


def final(job_id: str, body: bytes) -> JobStatus:
    return JobStatus("whatever", "w", "p", job_id, body)


def test_endings_are_kept_and_what_they_cost(ledger: Ledger) -> None:
    run, number = write(ledger)
    failures: list[RefusedError] = []
    keep = tracking.final_status_saver(ledger, ledger_history.API, failures.append)
    before = datetime.now(UTC)
    keep([final("job-a", DONE), final("job-of-another-ledger", DONE)])
    outcome = next(iter(record.load_record(ledger, run).entries)).outcome
    assert isinstance(outcome, Created)
    assert outcome.body == DONE
    assert outcome.seen_at is not None
    assert before <= outcome.seen_at <= datetime.now(UTC)
    costs = {one.id: one.cost for one in ledger.submissions(ledger_history.API, "nightly", run.run_key)}
    assert (costs.pop(number), list(costs.values())) == (7, [12, None, None])
    assert failures == []


def trouble(error: RefusedError) -> None:
    raise error


@pytest.mark.parametrize("cost", [b"null", b'"12"', b"0", b"true"])
def test_a_cost_that_is_not_told_leaves_the_one_that_was(ledger: Ledger, cost: bytes) -> None:
    run, number = write(ledger)
    tracking.final_status_saver(ledger, ledger_history.API, trouble)(
        [final("job-a", b'{"id": "job-a", "cost": %b}' % cost)]
    )
    assert (
        next(one.cost for one in ledger.submissions(ledger_history.API, "nightly", run.run_key) if one.id == number)
        == 12
    )


def test_a_job_of_another_api_is_not_ours(ledger: Ledger) -> None:
    run, _ = write(ledger)
    tracking.final_status_saver(ledger, "https://other.example", trouble)([final("job-a", DONE)])
    assert tracking.track_run(ledger, run) == FOLLOWED


def test_a_ledger_that_cannot_be_written_is_read_all_the_same(path: Path) -> None:
    with Ledger(path) as ledger:
        run, _ = write(ledger)
    failures: list[RefusedError] = []
    with Ledger(path, read_only=True) as ledger:
        assert tracking.track_run(ledger, run) == FOLLOWED
        tracking.final_status_saver(ledger, ledger_history.API, failures.append)([final("job-a", DONE)])
        assert tracking.track_run(ledger, run) == FOLLOWED
    assert len(failures) == 1


# A results file.


def write_results(ledger: Ledger, run: RunRow, path: Path) -> dict[str, Any]:
    results_file.write(summary.summarize(record.load_record(ledger, run)), path)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_a_results_file_says_what_its_ledger_does(ledger: Ledger, tmp_path: Path) -> None:
    run, number = write(ledger)
    ledger.save_final_jobs({number: DONE}, SEEN)
    write_results(ledger, run, tmp_path / "r.json")
    assert tracking.track_results_file(tmp_path / "r.json") == tracking.track_run(ledger, run)


def test_a_results_file_without_jobs(ledger: Ledger, tmp_path: Path) -> None:
    write_results(ledger, ledger_history.start_run(ledger, "run-1", []), tmp_path / "r.json")
    followed = tracking.track_results_file(tmp_path / "r.json")
    assert followed is not None
    assert (followed.jobs, followed.without_job) == ((), {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"run": {}, "created": []}',
        '{"run": {}, "errors": []}',
        '[{"run": {}, "created": [], "errors": []}]',
        "version: 1\njobs: []\n",
        '{"run": {}, "created": [], "errors": []',
        '{"run": {}, "created": [], "errors": []} {}',
        "[" * 100_000,
        "{" + '"a": {' * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        "\x00",
    ],
)
def test_what_is_no_results_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, encoding="utf-8")
    assert tracking.track_results_file(path) is None


def test_what_is_no_text_is_no_results_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b'{"run": "\xff"}')
    assert tracking.track_results_file(path) is None
    assert tracking.track_results_file(tmp_path) is None
    assert tracking.track_results_file(tmp_path / "none.json") is None


def test_a_file_as_large_as_none_can_be_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    with path.open("wb") as file:  # a hole: it takes no space on the disk, and would in memory
        file.truncate(2**30 + 1)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("it is read"))
    assert tracking.track_results_file(path) is None


def document(**changed: Any) -> dict[str, Any]:
    one = {"name": "a", "workflow_id": "w-1", "project_id": "p-1", "job": {"id": "job-a"}, "seen_at": None}
    error = {"outcome": "in_doubt"}
    run = {"id": "run-1", "base_url": ledger_history.API, "manifest": {"name": "nightly", "path": "nightly.yaml"}}
    return {"run": run, "created": [one], "errors": [error], "skipped": [], **changed}


def read(tmp_path: Path, text: str) -> TrackedRun | None:
    path = tmp_path / "r.json"
    path.write_text(text, encoding="utf-8")
    return tracking.track_results_file(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"run": None},
        {"run": []},
        {"run": {"id": "run-1"}},
        {"run": {"id": "", "base_url": ledger_history.API, "manifest": {"name": "nightly", "path": "x"}}},
        {"run": {"id": "run-1", "base_url": 7, "manifest": {"name": "nightly", "path": "x"}}},
        {"run": {"id": "run-1", "base_url": ledger_history.API, "manifest": "nightly"}},
        {"created": None},
        {"created": "a"},
        {"created": {"a": 1}},
        {"created": [None]},
        {"created": [{"name": "a", "workflow_id": "w-1", "project_id": "p-1"}]},
        {"created": [{"name": "a", "workflow_id": "w-1", "project_id": "p-1", "job": "job-a"}]},
        {"created": [{"name": "a", "workflow_id": "w-1", "project_id": "p-1", "job": {"id": ""}}]},
        {"created": [{"name": "a", "workflow_id": ["w-1"], "project_id": "p-1", "job": {"id": "job-a"}}]},
        {"errors": None},
        {"errors": [{}]},
        {"errors": ["failed"]},
        {"skipped": None},
        {"skipped": 3},
    ],
)
def test_a_results_file_that_is_broken_says_so(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert read(tmp_path, json.dumps(document())) is not None
    with pytest.raises(UsageError, match=r"the results file .*r\.json cannot be read") as caught:
        read(tmp_path, json.dumps(document(**changed)))
    assert caught.value.hint == "Recreate it from the ledger: pixxel-runner show --results PATH"


@pytest.mark.parametrize(
    "time", ["soon", 7, "", ["2026"], "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-30T00:00:00Z"]
)
def test_a_time_that_is_none_is_left_out(tmp_path: Path, time: Any) -> None:
    made = document()
    made["created"][0]["seen_at"] = time
    followed = read(tmp_path, json.dumps(made))
    assert followed is not None
    assert [one.seen_at for one in followed.jobs] == [None]


def test_what_a_hostile_file_holds_is_text_and_nothing_more(tmp_path: Path) -> None:
    hostile = "\ud800\x1b[2J\n::error::../../\u202e\x00"
    made = document()
    made["created"][0] |= {"name": hostile, "workflow_id": hostile, "project_id": hostile, "job": {"id": hostile}}
    made["run"] = {"id": hostile, "base_url": hostile, "manifest": {"name": hostile, "path": hostile}}
    followed = read(tmp_path, json.dumps(made))
    assert followed is not None
    [one] = followed.jobs
    assert {one.name, one.workflow_id, one.project_id, one.job_id} == {hostile}
    assert {followed.run_id, followed.manifest, followed.manifest_path, followed.api} == {hostile}


def test_a_value_of_another_kind_is_not_repeated(tmp_path: Path) -> None:
    made = document()
    made["created"][0]["name"] = {"secret": "x" * 1000}
    with pytest.raises(UsageError, match="expected a non-empty string, got dict") as caught:
        read(tmp_path, json.dumps(made))
    assert "secret" not in caught.value.message


def test_a_job_that_is_nested_deeply_is_no_bug_of_ours(tmp_path: Path) -> None:
    for depth in range(100, 3000, 29):
        made = json.dumps(document()).replace('"job-a"', '"job-a", "x": ' + "[" * depth + "]" * depth)
        try:
            followed = read(tmp_path, made)
        except UsageError:
            continue
        if followed is None:
            return  # deeper than a reader of JSON goes
        assert [one.job_id for one in followed.jobs] == ["job-a"]


PLACES: tuple[tuple[str | int, ...], ...] = (
    ("run",),
    ("run", "id"),
    ("run", "base_url"),
    ("run", "manifest"),
    ("run", "manifest", "path"),
    ("created",),
    ("created", 0),
    ("created", 0, "name"),
    ("created", 0, "workflow_id"),
    ("created", 0, "job"),
    ("created", 0, "job", "id"),
    ("created", 0, "job", "status"),
    ("created", 0, "job", "tasks"),
    ("created", 0, "seen_at"),
    ("errors",),
    ("errors", 0),
    ("errors", 0, "outcome"),
    ("skipped",),
)


@given(st.sampled_from(PLACES), json_values)
def test_whatever_stands_in_a_results_file(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str | int, ...], value: Any
) -> None:
    made = document()
    inner: Any = made
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    try:
        followed = read(tmp_path_factory.getbasetemp(), json.dumps(made))
    except UsageError:
        return
    assert followed is not None
    for one in followed.jobs:
        assert all(map(len, (one.name, one.workflow_id, one.project_id, one.job_id)))
        assert one.seen_at is None or one.seen_at.tzinfo is UTC
