"""Manual decisions: which doubt each is about, what is refused, and that all are checked before any is saved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support import ledger_history

from runner.client.exchange import Exchange
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.errors import RefusedError, RunnerError, UsageError
from runner.core.models import Created, InDoubt, Submission
from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.ledger.lock import LockedError
from runner.ledger.rows import Claim
from runner.ledger.store import Ledger
from runner.runs.matching import Finding
from runner.runs.resolve import Absence, Adoption, ManualDecision, Resolver, Scope, implausible_creation_time

LONG_AFTER = ledger_history.THEN + timedelta(days=1)
UNCHANGED = "Nothing was changed."
NO_JOB = "It was certainly not created, so there is no job to adopt."


@dataclass
class Api:
    """An API with these jobs by workflow. A job's `requested as` is the id under which it is returned."""

    jobs: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, ...]] = field(default_factory=list)
    unreachable: bool = False

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - the protocol's
        self.requests.append((workflow_id,))
        return self._respond(200, {"jobs": list(self.jobs.get(workflow_id, ()))})

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - likewise
        self.requests.append((workflow_id, job_id))
        jobs = [job for job in self.jobs.get(workflow_id, ()) if job.get("requested as", job["id"]) == job_id]
        return self._respond(200, dict(jobs[0])) if jobs else self._respond(404, {})

    def _respond(self, status: int, body: dict[str, Any]) -> ExchangeResult:
        if self.unreachable:
            return NoResponse("connect", written=False, detail="no connection: refused")
        return Response(status, {}, json.dumps(body).encode(), LONG_AFTER)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    create_ledger(tmp_path / "ledger.db")
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def resolver(ledger: Ledger, api: Api | None = None, **scope: str) -> Resolver:
    @contextmanager
    def connect() -> Iterator[Api]:
        if api is None:
            raise RefusedError("no API key")
        yield api

    return Resolver(ledger, Scope(ledger_history.API, **scope), "ann@desk", connect, now=lambda: LONG_AFTER)


def lose(ledger: Ledger, *names: str, run_id: str = "run-1", **options: Any) -> list[int]:
    """A run whose submissions are in doubt."""
    jobs = [ledger_history.job(name, f"w-{name}") for name in names]
    run = ledger_history.start_run(ledger, run_id, jobs, **options)
    return [ledger_history.send(ledger, run, job, ledger_history.in_doubt()) for job in jobs]


def states(ledger: Ledger) -> list[str]:
    return [row.state for row in ledger.all_submissions()]


def decide(ledger: Ledger, *decisions: ManualDecision, api: Api | None = None, **scope: str) -> list[Finding]:
    return resolver(ledger, api, **scope).apply_decisions(decisions)


# Which doubt a decision is about.


def test_the_doubt_of_that_name_is_resolved(ledger: Ledger) -> None:
    lose(ledger, "a", "b")
    [finding] = decide(ledger, Absence("b"))
    assert (finding.doubt.name, states(ledger)) == ("b", ["in_doubt", "not_created"])


@pytest.mark.parametrize(
    ("name", "kind", "message", "hint"),
    [
        ("lots", UsageError, "no job named 'lots' is in doubt at https://api.example", "Did you mean 'lost'?"),
        ("zzz", UsageError, "no job named 'zzz' is in doubt at https://api.example", "In doubt: 'lost'."),
        (
            "made",
            RefusedError,
            "'made' is not in doubt: created as job-1 by run run-2",
            f"{UNCHANGED} To submit one more of it: run --again.",
        ),
        (
            "refused",
            RefusedError,
            "'refused' is not in doubt: not created in run run-2: no such",
            f"{UNCHANGED} {NO_JOB}",
        ),
        ("released", RefusedError, "'released' is not in doubt: not sent in run run-2", f"{UNCHANGED} {NO_JOB}"),
    ],
)
def test_the_error_for_a_name_that_is_not_in_doubt(
    ledger: Ledger, name: str, kind: type[RunnerError], message: str, hint: str
) -> None:
    lose(ledger, "lost")
    jobs = {name: ledger_history.job(name, f"w-{name}") for name in ("made", "refused", "released")}
    run = ledger_history.start_run(ledger, "run-2", list(jobs.values()))
    ledger_history.send(ledger, run, jobs["made"], ledger_history.created("job-1"))
    ledger_history.send(ledger, run, jobs["refused"], ledger_history.not_created("no such"))
    number = ledger_history.send(ledger, run, jobs["released"], None)
    with ledger.transaction():
        ledger.release(number)
    with pytest.raises(kind) as caught:
        decide(ledger, Absence(name))
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_name_in_doubt_in_two_runs_needs_the_run(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "a", run_id="run-2", key="day:2026-10-20")
    with pytest.raises(UsageError) as caught:
        decide(ledger, Absence("a"))
    assert "run-1 (the run run-1), run-2 (the day 2026-10-20)" in caught.value.message
    decide(ledger, Absence("a"), run="run-2")
    assert states(ledger) == ["in_doubt", "not_created"]


def test_a_name_in_doubt_in_two_manifests_needs_the_manifest(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "a", run_id="run-2", manifest="other")
    with pytest.raises(UsageError, match="in 2 manifests: nightly, other"):
        decide(ledger, Absence("a"))
    decide(ledger, Absence("a"), manifest="other")
    assert states(ledger) == ["in_doubt", "not_created"]


def test_the_hint_names_another_run_in_which_it_is_in_doubt(ledger: Ledger) -> None:
    lose(ledger, "a")
    with pytest.raises(UsageError) as caught:
        decide(ledger, Absence("a"), run="run-9")
    assert caught.value.hint == "It is in doubt in run-1."


def test_the_hint_names_another_api_at_which_it_is_in_doubt(ledger: Ledger) -> None:
    lose(ledger, "a", api="https://other.example")
    with pytest.raises(UsageError) as caught:
        decide(ledger, Absence("a"))
    assert caught.value.hint == "It is in doubt at https://other.example."


def test_two_doubts_of_one_name_in_a_run_take_a_decision_each(ledger: Ledger) -> None:
    job = ledger_history.job("a")
    run = ledger_history.start_run(ledger, "run-1", [job])
    for ordinal in (1, 2):
        ledger_history.send(ledger, run, job, ledger_history.in_doubt(), ordinal)
    api = Api({"w-1": [{"id": "x"}, {"id": "y"}]})
    with pytest.raises(UsageError, match="only 2 jobs 'a' are in doubt, but 3 decisions were given"):
        decide(ledger, Absence("a"), Absence("a"), Absence("a"))
    decide(ledger, Adoption("a", "x"), Adoption("a", "y"), api=api)
    assert [row.job_id for row in ledger.all_submissions()] == ["x", "y"]


def test_one_doubt_takes_one_decision(ledger: Ledger) -> None:
    lose(ledger, "a")
    with pytest.raises(UsageError, match="only 1 job 'a' is in doubt, but 2 decisions were given"):
        decide(ledger, Absence("a"), Adoption("a", "x"), api=Api())
    assert states(ledger) == ["in_doubt"]


# Adoptions.


def test_an_adoption_saves_the_response_and_the_decision(ledger: Ledger) -> None:
    [number] = lose(ledger, "a")
    [finding] = decide(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x", "workflow_id": "w-a", "cost": 7}]}))
    [row] = ledger.all_submissions()
    assert isinstance(finding.outcome, Created)
    assert (row.job_id, row.recovered, row.assigned, row.cost) == ("x", True, True, 7)
    assert ledger_history.response_body(ledger, number) == b'{"id": "x", "workflow_id": "w-a", "cost": 7}'
    assert ledger_history.decisions(ledger, number) == [
        ("2026-10-21T01:00:00+00:00", "ann@desk", "adopted", "x; was in doubt: no answer in time")
    ]


def test_one_job_is_not_adopted_twice(ledger: Ledger) -> None:
    lose(ledger, "a", "b")
    with pytest.raises(UsageError, match="the job 'x' was given twice"):
        decide(ledger, Adoption("a", "x"), Adoption("b", "x"), api=Api())


def test_a_job_of_another_submission_is_not_adopted_and_no_request_is_made(ledger: Ledger) -> None:
    job = ledger_history.job("theirs", "w-9")
    run = ledger_history.start_run(ledger, "run-0", [job], manifest="other")
    ledger_history.send(ledger, run, job, ledger_history.created("x"))
    lose(ledger, "a")
    api = Api({"w-a": [{"id": "x"}]})
    with pytest.raises(RefusedError, match="it belongs to 'theirs' of other"):
        decide(ledger, Adoption("a", "x"), api=api)
    assert api.requests == []


@pytest.mark.parametrize(
    ("api", "problem"),
    [
        (Api(), "the API does not know it"),
        (Api(unreachable=True), "no connection: refused"),
        (Api({"w-b": [{"id": "y", "workflow_id": "w-9"}]}), "it belongs to workflow 'w-9'"),
        (Api({"w-b": [{"id": "y", "project_id": "p-9"}]}), "it belongs to project 'p-9'"),
        (Api({"w-b": [{"id": "z", "requested as": "y"}]}), "the API's response is not that job"),
    ],
)
def test_all_decisions_are_checked_before_any_is_saved(ledger: Ledger, api: Api, problem: str) -> None:
    lose(ledger, "a", "b", "c")
    api.jobs = {**api.jobs, "w-a": [{"id": "x"}]}
    with pytest.raises(RefusedError, match=problem):
        decide(ledger, Absence("c"), Adoption("a", "x"), Adoption("b", "y"), api=api)
    assert states(ledger) == ["in_doubt"] * 3


# Jobs that were declared absent.


@pytest.mark.parametrize("by", ["user", "lookup"])
def test_a_job_declared_absent_may_be_adopted_after_all(ledger: Ledger, by: str) -> None:
    [number] = lose(ledger, "a")
    if by == "user":
        decide(ledger, Absence("a"))
    else:
        resolver(ledger, Api()).look_up()
    assert states(ledger) == ["not_created"]
    with pytest.raises(RefusedError) as caught:
        decide(ledger, Absence("a"))
    assert "If it was created after all, adopt its job with --adopt." in caught.value.hint
    with pytest.raises(RefusedError, match="the API does not know it"):
        decide(ledger, Adoption("a", "x"), api=Api())
    with pytest.raises(RefusedError, match="it belongs to workflow 'w-9'"):
        decide(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x", "workflow_id": "w-9"}]}))
    assert states(ledger) == ["not_created"]
    [finding] = decide(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x"}]}))
    [row] = ledger.all_submissions()
    assert isinstance(finding.outcome, Created)
    assert (row.job_id, row.recovered, row.error) == ("x", True, None)
    [_, (_, decided_by, action, detail)] = ledger_history.decisions(ledger, number)
    assert (decided_by, action) == ("ann@desk", "adopted")
    assert detail.startswith("x; not created: was in doubt (no answer in time)")


def test_a_job_declared_absent_does_not_adopt_a_job_of_another_submission(ledger: Ledger) -> None:
    lose(ledger, "a", "b")
    api = Api({"w-a": [{"id": "x"}], "w-b": [{"id": "x"}]})
    decide(ledger, Absence("a"))
    decide(ledger, Adoption("b", "x"), api=api)
    with pytest.raises(RefusedError, match="it belongs to 'b' of nightly"):
        decide(ledger, Adoption("a", "x"), api=api)


def test_a_job_that_was_sent_again_since_is_not_adopted(ledger: Ledger) -> None:
    [number] = lose(ledger, "a")
    decide(ledger, Absence("a"))
    run = next(ledger.runs())
    again = Claim(Submission(ledger_history.job("a", "w-a"), 1), 2, ledger_history.THEN, 30.0)
    with ledger.transaction():
        ledger.claim(run, ledger.manifest_id(ledger_history.API, "nightly"), [again])
        ledger.save_outcomes([(number, ledger_history.not_created("no such"), ledger_history.THEN)])
    with pytest.raises(RefusedError, match="'a' is not in doubt: not created in run run-1: no such"):
        decide(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x"}]}))


def test_doubts_precede_absent_jobs_of_the_name_and_two_of_those_need_the_run(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "a", run_id="run-2", key="day:2026-10-20")
    lose(ledger, "a", run_id="run-3", key="day:2026-10-21")
    decide(ledger, Absence("a"), run="run-1")
    decide(ledger, Absence("a"), run="run-2")
    api = Api({"w-a": [{"id": "x"}, {"id": "y"}]})
    decide(ledger, Adoption("a", "x"), api=api)
    assert states(ledger) == ["not_created", "not_created", "created"]
    with pytest.raises(UsageError, match="'a' is declared absent in 2 runs"):
        decide(ledger, Adoption("a", "y"), api=api)
    decide(ledger, Adoption("a", "y"), api=api, run="run-2")
    assert states(ledger) == ["not_created", "created", "created"]


def test_only_jobs_of_locked_manifests_are_adopted_after_all(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(ledger, "a", run_id="run-0", manifest="other")
    decide(ledger, Absence("a"))
    [number] = lose(ledger, "a")

    def resolved_meanwhile(self: Ledger, *_: object) -> None:
        with self.transaction():
            self.save_outcomes([(number, ledger_history.created("theirs"), ledger_history.THEN)])

    monkeypatch.setattr(Ledger, "mark_intents_in_doubt", resolved_meanwhile)
    with pytest.raises(RefusedError, match="not in doubt: created as theirs"):
        decide(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x"}]}))
    assert states(ledger) == ["not_created", "created"]


# Locks and scopes.


def test_a_submission_of_a_running_manifest_is_skipped(ledger: Ledger) -> None:
    job = ledger_history.job("a", "w-a")
    ledger_history.send(ledger, ledger_history.start_run(ledger, "run-1", [job], end=None), job, None)
    with lock.hold(ledger.path, ledger_history.API, "nightly", timeout=0, activity="run run-1"):
        result = resolver(ledger, Api()).look_up()
        with pytest.raises(LockedError):
            decide(ledger, Absence("a"))
    assert (result.findings, len(result.locked), states(ledger)) == ((), 1, ["sending"])


def test_an_intent_of_a_dead_process_is_in_doubt(ledger: Ledger) -> None:
    job = ledger_history.job("a", "w-a")
    ledger_history.send(ledger, ledger_history.start_run(ledger, "run-1", [job], end=None), job, None)
    [finding] = resolver(ledger, Api({"w-a": [{"id": "x"}]})).look_up().findings
    assert isinstance(finding.outcome, Created)
    assert states(ledger) == ["created"]


def test_an_intent_of_a_dead_process_stays_in_doubt_if_nothing_is_certain(ledger: Ledger) -> None:
    job = ledger_history.job("a", "w-a")
    ledger_history.send(ledger, ledger_history.start_run(ledger, "run-1", [job], end=None), job, None)
    resolver(ledger, Api(unreachable=True)).look_up()
    assert states(ledger) == ["in_doubt"]


def test_a_lookup_is_limited_to_its_scope(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "b", run_id="run-2", manifest="other")
    lose(ledger, "c", run_id="run-3", api="sandbox")
    api = Api()
    resolver(ledger, api, manifest="other").look_up()
    assert api.requests == [("w-b",)]
    assert states(ledger) == ["in_doubt", "not_created", "in_doubt"]
    resolver(ledger, api).look_up()
    assert api.requests == [("w-b",), ("w-a",)]


def test_without_doubts_no_request_is_made(ledger: Ledger) -> None:
    assert resolver(ledger).look_up().findings == ()


def test_without_the_api_nothing_is_resolved(ledger: Ledger) -> None:
    lose(ledger, "a")
    with pytest.raises(RefusedError, match="no API key"):
        resolver(ledger).look_up()
    [finding] = resolver(ledger, Api(unreachable=True)).look_up().findings
    assert isinstance(finding.outcome, InDoubt)
    assert states(ledger) == ["in_doubt"]


@pytest.mark.parametrize(
    ("created_at", "implausible"),
    [
        ("2026-10-20T01:00:03Z", False),
        ("2026-10-20T00:56:00Z", False),
        ("2026-10-20T01:19:00Z", False),
        ("2026-10-20T00:50:00Z", True),
        ("2026-10-20T01:30:00Z", True),
        ("nonsense", False),
        (None, False),
    ],
)
def test_implausible_creation_time(ledger: Ledger, created_at: str | None, *, implausible: bool) -> None:
    lose(ledger, "a")
    api = Api({"w-a": [{"id": "x", "created_at": created_at}]})
    [finding] = decide(ledger, Adoption("a", "x"), api=api)
    assert (implausible_creation_time(finding, timedelta(minutes=15)) is not None) is implausible
