"""The tracked jobs of a run in the ledger or of a results file, which may be damaged; and saving final statuses."""

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
    with Ledger(path) as opened:
        yield opened


def write_run(ledger: Ledger) -> tuple[RunRow, int]:
    """A run with two jobs created, one not created, one in doubt and one not sent; and the first one's submission."""
    run = ledger_history.start_run(ledger, "run-1", JOBS, end="stopped")
    submission_id = ledger_history.send(ledger, run, JOBS[0], ledger_history.created("job-a"))
    ledger_history.send(ledger, run, JOBS[1], ledger_history.created("job-b"))
    ledger_history.send(ledger, run, JOBS[2], ledger_history.not_created())
    ledger_history.send(ledger, run, JOBS[3], ledger_history.in_doubt())
    return run, submission_id


def job_status(name: str, body: bytes, seen_at: datetime | None = None) -> JobStatus:
    """The initial status of one of JOBS."""
    job = next(job for job in JOBS if job.name == name)
    return JobStatus(name, job.workflow_id, job.project_id, f"job-{name}", body, seen_at)


BODY_A, BODY_B = (b'{"id": "job-%b", "cost": 12}' % name for name in (b"a", b"b"))
TRACKED = TrackedRun(
    "run-1",
    "nightly",
    "nightly.yaml",
    ledger_history.API,
    (job_status("a", BODY_A), job_status("b", BODY_B)),
    {"not_created": 1, "in_doubt": 1, "skipped": 1},
)


# A run in the ledger.


def test_jobs_and_other_outcomes_of_a_run(ledger: Ledger) -> None:
    run, _ = write_run(ledger)
    assert tracking.track_run(ledger, run) == TRACKED


def test_saved_final_statuses_are_loaded(ledger: Ledger) -> None:
    run, submission_id = write_run(ledger)
    ledger.save_final_jobs({submission_id: DONE}, SEEN)
    first, second = tracking.track_run(ledger, run).jobs
    assert (first, first.is_final) == (job_status("a", DONE, SEEN), True)
    assert (second, second.is_final) == (job_status("b", BODY_B), False)


def test_a_run_without_created_jobs(ledger: Ledger) -> None:
    run = ledger_history.start_run(ledger, "run-1", JOBS[:1])
    ledger_history.send(ledger, run, JOBS[0], ledger_history.not_created())
    tracked = tracking.track_run(ledger, run)
    assert (tracked.jobs, tracked.without_job) == ((), {"not_created": 1})


# Saving final statuses.


def final_status(job_id: str, body: bytes) -> JobStatus:
    return JobStatus("any", "w", "p", job_id, body)


def test_final_job_objects_and_costs_are_saved(ledger: Ledger) -> None:
    run, submission_id = write_run(ledger)
    failures: list[RefusedError] = []
    save = tracking.final_status_saver(ledger, ledger_history.API, failures.append)
    before = datetime.now(UTC)
    save([final_status("job-a", DONE), final_status("job-of-another-ledger", DONE)])
    outcome = next(iter(record.load_record(ledger, run).entries)).outcome
    assert isinstance(outcome, Created)
    assert outcome.body == DONE
    assert outcome.seen_at is not None
    assert before <= outcome.seen_at <= datetime.now(UTC)
    costs = load_costs(ledger, run)
    assert (costs.pop(submission_id), list(costs.values())) == (7, [12, None, None])
    assert failures == []


def raise_error(error: RefusedError) -> None:
    raise error


def load_costs(ledger: Ledger, run: RunRow) -> dict[int, int | None]:
    """The cost of each submission of a run."""
    return {row.id: row.cost for row in ledger.submissions(ledger_history.API, "nightly", run.run_key)}


@pytest.mark.parametrize("cost", [b"null", b'"12"', b"0", b"true"])
def test_a_missing_or_invalid_cost_leaves_the_saved_one(ledger: Ledger, cost: bytes) -> None:
    run, submission_id = write_run(ledger)
    tracking.final_status_saver(ledger, ledger_history.API, raise_error)(
        [final_status("job-a", b'{"id": "job-a", "cost": %b}' % cost)]
    )
    assert load_costs(ledger, run)[submission_id] == 12


def test_jobs_of_another_api_are_not_saved(ledger: Ledger) -> None:
    run, _ = write_run(ledger)
    tracking.final_status_saver(ledger, "https://other.example", raise_error)([final_status("job-a", DONE)])
    assert tracking.track_run(ledger, run) == TRACKED


def test_a_read_only_ledger_reports_an_error_and_can_be_read(path: Path) -> None:
    with Ledger(path) as ledger:
        run, _ = write_run(ledger)
    failures: list[RefusedError] = []
    with Ledger(path, read_only=True) as ledger:
        assert tracking.track_run(ledger, run) == TRACKED
        tracking.final_status_saver(ledger, ledger_history.API, failures.append)([final_status("job-a", DONE)])
        assert tracking.track_run(ledger, run) == TRACKED
    assert len(failures) == 1


# A results file.


def write_results(ledger: Ledger, run: RunRow, path: Path) -> dict[str, Any]:
    results_file.write(summary.summarize(record.load_record(ledger, run)), path)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_a_results_file_gives_the_same_run_as_its_ledger(ledger: Ledger, tmp_path: Path) -> None:
    run, submission_id = write_run(ledger)
    ledger.save_final_jobs({submission_id: DONE}, SEEN)
    write_results(ledger, run, tmp_path / "r.json")
    assert tracking.track_results_file(tmp_path / "r.json") == tracking.track_run(ledger, run)


def test_a_results_file_without_jobs(ledger: Ledger, tmp_path: Path) -> None:
    write_results(ledger, ledger_history.start_run(ledger, "run-1", []), tmp_path / "r.json")
    tracked = tracking.track_results_file(tmp_path / "r.json")
    assert tracked is not None
    assert (tracked.jobs, tracked.without_job) == ((), {})


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
def test_other_text_is_not_a_results_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, encoding="utf-8")
    assert tracking.track_results_file(path) is None


def test_binary_files_directories_and_missing_files_are_not_results_files(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(b'{"run": "\xff"}')
    assert tracking.track_results_file(path) is None
    assert tracking.track_results_file(tmp_path) is None
    assert tracking.track_results_file(tmp_path / "none.json") is None


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    with path.open("wb") as file:  # sparse: it takes no disk space, but would take memory
        file.truncate(2**30 + 1)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("the file is read"))
    assert tracking.track_results_file(path) is None


def create_document(**changed: Any) -> dict[str, Any]:
    job = {"name": "a", "workflow_id": "w-1", "project_id": "p-1", "job": {"id": "job-a"}, "seen_at": None}
    error = {"outcome": "in_doubt"}
    run = {"id": "run-1", "base_url": ledger_history.API, "manifest": {"name": "nightly", "path": "nightly.yaml"}}
    return {"run": run, "created": [job], "errors": [error], "skipped": [], **changed}


def track_text(tmp_path: Path, text: str) -> TrackedRun | None:
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
def test_a_damaged_results_file_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert track_text(tmp_path, json.dumps(create_document())) is not None
    with pytest.raises(UsageError, match=r"the results file .*r\.json cannot be read") as caught:
        track_text(tmp_path, json.dumps(create_document(**changed)))
    assert caught.value.hint == "Recreate it from the ledger: pixxel-runner show --results PATH"


@pytest.mark.parametrize(
    "time", ["soon", 7, "", ["2026"], "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-02-30T00:00:00Z"]
)
def test_invalid_times_are_ignored(tmp_path: Path, time: Any) -> None:
    document = create_document()
    document["created"][0]["seen_at"] = time
    tracked = track_text(tmp_path, json.dumps(document))
    assert tracked is not None
    assert [job.seen_at for job in tracked.jobs] == [None]


def test_hostile_text_in_a_file_is_only_text(tmp_path: Path) -> None:
    hostile = "\ud800\x1b[2J\n::error::../../\u202e\x00"
    document = create_document()
    document["created"][0] |= {"name": hostile, "workflow_id": hostile, "project_id": hostile, "job": {"id": hostile}}
    document["run"] = {"id": hostile, "base_url": hostile, "manifest": {"name": hostile, "path": hostile}}
    tracked = track_text(tmp_path, json.dumps(document))
    assert tracked is not None
    [job] = tracked.jobs
    assert {job.name, job.workflow_id, job.project_id, job.job_id} == {hostile}
    assert {tracked.run_id, tracked.manifest, tracked.manifest_path, tracked.api} == {hostile}


def test_values_of_the_wrong_type_are_not_printed(tmp_path: Path) -> None:
    document = create_document()
    document["created"][0]["name"] = {"secret": "x" * 1000}
    with pytest.raises(UsageError, match="expected a non-empty string, got dict") as caught:
        track_text(tmp_path, json.dumps(document))
    assert "secret" not in caught.value.message


def test_a_deeply_nested_job_causes_no_unexpected_error(tmp_path: Path) -> None:
    for depth in range(100, 3000, 29):
        text = json.dumps(create_document()).replace('"job-a"', '"job-a", "x": ' + "[" * depth + "]" * depth)
        try:
            tracked = track_text(tmp_path, text)
        except UsageError:
            continue
        if tracked is None:
            return  # too deep for the json module
        assert [job.job_id for job in tracked.jobs] == ["job-a"]


LOCATIONS: tuple[tuple[str | int, ...], ...] = (
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


@given(st.sampled_from(LOCATIONS), json_values)
def test_any_value_anywhere_in_a_results_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, location: tuple[str | int, ...], value: Any
) -> None:
    document = create_document()
    parent: Any = document
    for key in location[:-1]:
        parent = parent[key]
    parent[location[-1]] = value
    try:
        tracked = track_text(tmp_path_factory.getbasetemp(), json.dumps(document))
    except UsageError:
        return
    assert tracked is not None
    for job in tracked.jobs:
        assert all(map(len, (job.name, job.workflow_id, job.project_id, job.job_id)))
        assert job.seen_at is None or job.seen_at.tzinfo is UTC
