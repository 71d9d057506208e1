"""The lookup: which requests it makes, and what it saves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from support import ledger_history
from support.doubts import (
    DAY,
    LONG_AFTER,
    at,
    describe,
    listed,
)

from runner.client.exchange import Exchange
from runner.client.job import JobObject
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.models import Created, InDoubt, outcome_name
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger
from runner.runs.listing import Listing
from runner.runs.reconcile import Reconciler


@dataclass
class Api:
    """An API with a list for each workflow, and the complete jobs. `meanwhile` is called while it lists."""

    lists: Mapping[str, ExchangeResult]
    jobs: Mapping[str, ExchangeResult] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        assert exchange.timeout == 7
        self.requests.append(workflow_id)
        response = self.lists[workflow_id]
        self.meanwhile()
        return response

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:
        assert exchange.timeout == 7
        self.requests.append(f"{workflow_id}/{job_id}")
        return self.jobs.get(job_id, UNREACHABLE)


UNREACHABLE = NoResponse("connect", written=False, detail="no connection: refused")


def response(body: bytes | list[dict[str, Any]], status: int = 200, date: datetime | str | None = None) -> Response:
    data = body if isinstance(body, bytes) else json.dumps({"jobs": body}).encode()
    headers = {} if date is None else {"date": date if isinstance(date, str) else format_datetime(date, usegmt=True)}
    return Response(status, headers, data, LONG_AFTER)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    create_ledger(tmp_path / "ledger.db")
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def lose(ledger: Ledger, *names: str, run_id: str = "run-1", workflow: str = "w-1", **options: Any) -> list[int]:
    """A run whose submissions are in doubt; each has its name as its project."""
    jobs = [ledger_history.job(name, workflow, name) for name in names]
    run = ledger_history.start_run(ledger, run_id, jobs, **options)
    return [ledger_history.send(ledger, run, job, ledger_history.in_doubt("old")) for job in jobs]


def create_job(ledger: Ledger, name: str, job_id: str, *, run_id: str, workflow: str = "w-1", by: str = "me") -> None:
    """A run that created one job."""
    job = ledger_history.job(name, workflow, name)
    body = json.dumps({"id": job_id, "created_by": by}).encode()
    ledger_history.send(
        ledger, ledger_history.start_run(ledger, run_id, [job]), job, ledger_history.created(job_id, body)
    )


def look_up(ledger: Ledger, api: Api, *, manifest: str = "nightly", now: datetime = LONG_AFTER) -> dict[str, str]:
    """Look up all doubts of a manifest once, and return the findings by name; they must be in the ledger, too."""
    reconciler = Reconciler(ledger, api, ledger_history.API, "run run-2", timeout=7, now=lambda: now)
    findings = reconciler.look_up(ledger.unresolved(ledger_history.API, manifest))
    saved = {row.id: row for row in ledger.all_submissions()}
    for finding in findings:
        row = saved[finding.doubt.id]
        assert row.state == outcome_name(finding.outcome)
        if isinstance(finding.outcome, InDoubt | Created):
            assert row.candidates == finding.outcome.candidates
    return {finding.doubt.name: describe(finding) for finding in findings}


INVALID_LISTS: list[tuple[str, ExchangeResult, str]] = [
    ("forbidden", response([], 403), "could not be retrieved (HTTP 403)"),
    ("server-error", response([], 500), "could not be retrieved (HTTP 500)"),
    ("partial", response([], 206), "could not be read (HTTP 206, but not a valid list)"),
    ("no-json", response(b"<html>"), "could not be read (HTTP 200, but not a valid list)"),
    ("half", response(b'{"jobs": ['), "could not be read (HTTP 200, but not a valid list)"),
    ("no-jobs", response(b'{"items": []}'), "could not be read (HTTP 200, but not a valid list)"),
    ("an-object", response(b'{"jobs": {"x": 1}}'), "could not be read (HTTP 200, but not a valid list)"),
    (
        "a-job-without-id",
        response(b'{"jobs": [{"created_at": ""}]}'),
        "could not be read (HTTP 200, but not a valid list)",
    ),
    ("an-array", response(b"[]"), "could not be read (HTTP 200, but not a valid list)"),
    ("gone", UNREACHABLE, "could not be retrieved: no connection: refused"),
]


@pytest.mark.parametrize(("result", "reason"), [pytest.param(*row[1:], id=row[0]) for row in INVALID_LISTS])
def test_an_invalid_list_resolves_nothing(ledger: Ledger, result: ExchangeResult, reason: str) -> None:
    lose(ledger, "a", "b")
    reconciler = Reconciler(
        ledger, Api({"w-1": result}), ledger_history.API, "run run-2", timeout=7, now=lambda: LONG_AFTER
    )
    findings = reconciler.look_up(ledger.unresolved(ledger_history.API))
    assert [describe(finding) for finding in findings] == ["doubt old", "doubt old"]
    assert all(reason in finding.reason for finding in findings)
    assert [(row.state, row.candidates) for row in ledger.all_submissions()] == [("in_doubt", ("old",))] * 2


def test_an_incomplete_list_resolves_nothing(ledger: Ledger) -> None:
    lose(ledger, "a")
    [job] = [listed("x")]
    assert look_up(ledger, Api({"w-1": response(b'{"jobs": [], "next": "/v0/more"}')})) == {"a": "doubt"}
    assert look_up(ledger, Api({"w-1": response(json.dumps({"jobs": [job], "total": 2}).encode())})) == {"a": "doubt x"}
    old = replace(response([job]), headers={"age": "60"})
    assert look_up(ledger, Api({"w-1": old})) == {"a": "doubt x"}
    paged = {"jobs": [job], "pagination": {"limit": 50, "offset": 0, "total": 1}}
    assert look_up(ledger, Api({"w-1": response(json.dumps(paged).encode())})) == {"a": "created x"}


@pytest.mark.parametrize("body", [b'{"jobs": null}', b'{"jobs": [], "more": NaN}'])
def test_an_empty_list_is_valid(ledger: Ledger, body: bytes) -> None:
    [number] = lose(ledger, "a")
    assert look_up(ledger, Api({"w-1": response(body)}), now=at(60)) == {"a": "doubt"}
    assert look_up(ledger, Api({"w-1": response(body)})) == {"a": "absent"}
    [(decided_at, decided_by, action, detail)] = ledger_history.decisions(ledger, number)
    assert (decided_at, decided_by, action) == (LONG_AFTER.isoformat(), "run run-2", "not found")
    assert detail == "was in doubt (no answer in time) and is not in the workflow's list of jobs"


@pytest.mark.parametrize(
    ("date", "created_at", "found"),
    [
        (LONG_AFTER + timedelta(hours=1), 3603, True),
        (LONG_AFTER + timedelta(hours=1), 3 - DAY, False),
        (LONG_AFTER - timedelta(hours=1), -3597, True),
        (LONG_AFTER, 3, True),
        (None, 3, True),
        ("soon", 3, True),
        ("Tue, 20 Oct 2026 11:00:00 -0000", 3, True),
    ],
)
def test_times_are_corrected_by_the_servers_date(
    ledger: Ledger, date: datetime | str | None, created_at: float, *, found: bool
) -> None:
    lose(ledger, "a")
    api = Api({"w-1": response([listed("x", created_at)], date=date)})
    assert look_up(ledger, api) == {"a": "created x" if found else "absent"}


@pytest.mark.parametrize(
    ("result", "cost"),
    [
        (response(b'{"id": "x", "cost": 7}'), 7),
        (response(b'{"id": "y", "cost": 7}'), 1),
        (response(b"{}"), 1),
        (response(b'{"id": "x", "cost": 7}', 404), 1),
        (UNREACHABLE, 1),
    ],
)
def test_a_found_job_is_saved_completely_or_as_listed(ledger: Ledger, result: ExchangeResult, cost: int) -> None:
    [number] = lose(ledger, "a")
    api = Api({"w-1": response([{**listed("x"), "cost": 1}])}, {"x": result})
    assert look_up(ledger, api) == {"a": "created x"}
    assert api.requests == ["w-1", "w-1/x"]
    [row] = ledger.all_submissions()
    assert (row.job_id, row.recovered, row.cost) == ("x", True, cost)
    body = json.loads(ledger_history.response_body(ledger, number))
    assert body == ({"id": "x", "cost": 7} if cost == 7 else {**listed("x"), "cost": 1})
    assert [row[1:] for row in ledger_history.decisions(ledger, number)] == [("run run-2", "found", "x")]


def test_each_workflow_is_listed_once(ledger: Ledger) -> None:
    lose(ledger, "a", "b")
    lose(ledger, "c", run_id="run-2", workflow="w-2", key="day:2026-10-19")
    api = Api({"w-1": response([listed("x"), listed("y")]), "w-2": response([], 403)})
    assert look_up(ledger, api) == {"a": "created x of x y", "b": "created y of x y", "c": "doubt old"}
    assert api.requests == ["w-1", "w-1/x", "w-1/y", "w-2"]


def test_the_creators_of_a_run_are_queried_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query reads all that the run sent: once per doubt, it took an hour for 1,000 doubts of 100,000 jobs."""
    jobs = [ledger_history.job(name, workflow, name) for workflow in ("w-1", "w-2", "w-3") for name in ("a", "b")]
    run = ledger_history.start_run(ledger, "run-1", jobs)
    for job in jobs:
        ledger_history.send(ledger, run, job, ledger_history.in_doubt("old"))
    queried: list[str] = []
    creators = Ledger.creators

    def counted(self: Ledger, run_id: str) -> set[str]:
        queried.append(run_id)
        return creators(self, run_id)

    monkeypatch.setattr(Ledger, "creators", counted)
    look_up(ledger, Api({workflow: response([]) for workflow in ("w-1", "w-2", "w-3")}))
    assert queried == ["run-1"]


def test_a_job_that_another_manifest_received_meanwhile_is_not_adopted(ledger: Ledger) -> None:
    lose(ledger, "a")
    job = ledger_history.job("b", "w-1", "b")
    run = ledger_history.start_run(ledger, "run-9", [job], manifest="other", end=None)
    number = ledger_history.send(ledger, run, job, None)

    def respond() -> None:
        with ledger.transaction():
            ledger.save_outcomes([(number, ledger_history.created("theirs"), at(6))])

    api = Api({"w-1": response([listed("theirs")])}, meanwhile=respond)
    assert look_up(ledger, api) == {"a": "absent"}


def test_a_job_of_a_submission_in_another_workflow_is_no_candidate(ledger: Ledger) -> None:
    create_job(ledger, "c", "x", run_id="run-0", workflow="w-2")
    lose(ledger, "a")
    assert look_up(ledger, Api({"w-1": response([listed("x")])})) == {"a": "absent"}


def test_a_job_listed_twice_is_one_job(ledger: Ledger) -> None:
    job = ledger_history.job("a")
    run = ledger_history.start_run(ledger, "run-1", [job])
    for ordinal in (1, 2):
        ledger_history.send(ledger, run, job, ledger_history.in_doubt(), ordinal)
    look_up(ledger, Api({"w-1": response([listed("x"), listed("x")])}))
    assert [row.job_id for row in ledger.all_submissions()] == ["x", None]


def test_jobs_created_with_another_users_key_are_considered(ledger: Ledger) -> None:
    create_job(ledger, "c", "x", run_id="run-0", workflow="w-2", by="the user of the old key")
    lose(ledger, "a")
    assert look_up(ledger, Api({"w-1": response([listed("y", by="the user of the new key")])}))["a"] != "absent"


def test_an_ambiguous_assignment_is_ambiguous_for_both_manifests(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "b", run_id="run-9", manifest="other")
    api = Api({"w-1": response([listed("x"), listed("y")])})
    assert look_up(ledger, api) == {"a": "created x of x y"}
    assert look_up(ledger, api, manifest="other") == {"b": "created y of x y"}


def test_without_doubts_no_request_is_made(ledger: Ledger) -> None:
    assert look_up(ledger, Api({})) == {}


@pytest.mark.parametrize(("time", "ahead"), [("0001-01-01T00:00:00Z", 1), ("9999-12-31T23:59:59Z", -1)])
def test_a_time_out_of_range_is_unknown(time: str, ahead: int) -> None:
    job = JobObject("x", {"created_at": time})
    assert Listing((job,), timedelta(hours=ahead)).created_at(job) is None
