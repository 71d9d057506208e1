"""Settling doubts: which doubt a word is about, what is refused, and that nothing is settled before all is checked."""

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
NOTHING = "Nothing was settled."
CERTAIN = "It was certainly not created, so that it has no job to adopt."


@dataclass
class Api:
    """An API that lists and tells these jobs by workflow, and keeps what it was asked."""

    jobs: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    gone: bool = False

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - the protocol's
        self.asked.append((workflow_id,))
        return self._answer(200, {"jobs": list(self.jobs.get(workflow_id, ()))})

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - likewise
        self.asked.append((workflow_id, job_id))
        found = [job for job in self.jobs.get(workflow_id, ()) if job.get("asked as", job["id"]) == job_id]
        return self._answer(200, dict(found[0])) if found else self._answer(404, {})

    def _answer(self, status: int, body: dict[str, Any]) -> ExchangeResult:
        if self.gone:
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
    """A run that lost the answer to each job."""
    jobs = [ledger_history.job(name, f"w-{name}") for name in names]
    run = ledger_history.start_run(ledger, run_id, jobs, **options)
    return [ledger_history.send(ledger, run, one, ledger_history.in_doubt()) for one in jobs]


def states(ledger: Ledger) -> list[str]:
    return [one.state for one in ledger.all_submissions()]


def settle(ledger: Ledger, *words: ManualDecision, api: Api | None = None, **scope: str) -> list[Finding]:
    return resolver(ledger, api, **scope).apply_decisions(words)


# Which doubt.


def test_the_doubt_of_that_name_is_settled(ledger: Ledger) -> None:
    lose(ledger, "a", "b")
    [finding] = settle(ledger, Absence("b"))
    assert (finding.doubt.name, states(ledger)) == ("b", ["in_doubt", "not_created"])


@pytest.mark.parametrize(
    ("name", "kind", "message", "hint"),
    [
        ("lots", UsageError, "no job named 'lots' is in doubt at https://api.example", "Did you mean 'lost'?"),
        ("zzz", UsageError, "no job named 'zzz' is in doubt at https://api.example", "In doubt are 'lost'."),
        (
            "made",
            RefusedError,
            "'made' is not in doubt: created as job-1 by run run-2",
            f"{NOTHING} run --again sends one more on purpose.",
        ),
        (
            "refused",
            RefusedError,
            "'refused' is not in doubt: not created in run run-2: no such",
            f"{NOTHING} {CERTAIN}",
        ),
        ("released", RefusedError, "'released' is not in doubt: it was not sent in run run-2", f"{NOTHING} {CERTAIN}"),
    ],
)
def test_a_name_that_is_not_in_doubt_says_what_it_is(
    ledger: Ledger, name: str, kind: type[RunnerError], message: str, hint: str
) -> None:
    lose(ledger, "lost")
    jobs = {one: ledger_history.job(one, f"w-{one}") for one in ("made", "refused", "released")}
    run = ledger_history.start_run(ledger, "run-2", list(jobs.values()))
    ledger_history.send(ledger, run, jobs["made"], ledger_history.created("job-1"))
    ledger_history.send(ledger, run, jobs["refused"], ledger_history.not_created("no such"))
    number = ledger_history.send(ledger, run, jobs["released"], None)
    with ledger.transaction():
        ledger.release(number)
    with pytest.raises(kind) as caught:
        settle(ledger, Absence(name))
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_name_in_doubt_in_two_runs_needs_the_run(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "a", run_id="run-2", key="day:2026-10-20")
    with pytest.raises(UsageError) as caught:
        settle(ledger, Absence("a"))
    assert "run-1 (the run run-1), run-2 (the day 2026-10-20)" in caught.value.message
    settle(ledger, Absence("a"), run="run-2")
    assert states(ledger) == ["in_doubt", "not_created"]


def test_a_name_in_doubt_in_two_manifests_needs_the_manifest(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "a", run_id="run-2", manifest="other")
    with pytest.raises(UsageError, match="in 2 manifests: nightly, other"):
        settle(ledger, Absence("a"))
    settle(ledger, Absence("a"), manifest="other")
    assert states(ledger) == ["in_doubt", "not_created"]


def test_a_name_that_is_in_doubt_in_another_run_says_in_which(ledger: Ledger) -> None:
    lose(ledger, "a")
    with pytest.raises(UsageError) as caught:
        settle(ledger, Absence("a"), run="run-9")
    assert caught.value.hint == "It is in doubt in run-1."


def test_a_name_that_is_in_doubt_at_another_api_says_at_which(ledger: Ledger) -> None:
    lose(ledger, "a", api="https://other.example")
    with pytest.raises(UsageError) as caught:
        settle(ledger, Absence("a"))
    assert caught.value.hint == "It is in doubt at https://other.example."


def test_sends_of_one_job_that_are_alike_take_a_word_each(ledger: Ledger) -> None:
    one = ledger_history.job("a")
    run = ledger_history.start_run(ledger, "run-1", [one])
    for ordinal in (1, 2):
        ledger_history.send(ledger, run, one, ledger_history.in_doubt(), ordinal)
    api = Api({"w-1": [{"id": "x"}, {"id": "y"}]})
    with pytest.raises(UsageError, match="in doubt 2 times, and named more often"):
        settle(ledger, Absence("a"), Absence("a"), Absence("a"))
    settle(ledger, Adoption("a", "x"), Adoption("a", "y"), api=api)
    assert [standing.job_id for standing in ledger.all_submissions()] == ["x", "y"]


def test_one_doubt_takes_one_word(ledger: Ledger) -> None:
    lose(ledger, "a")
    with pytest.raises(UsageError, match="in doubt once, and named more often"):
        settle(ledger, Absence("a"), Adoption("a", "x"), api=Api())
    assert states(ledger) == ["in_doubt"]


# What may be adopted.


def test_an_adoption_keeps_the_answer_and_the_trace(ledger: Ledger) -> None:
    [number] = lose(ledger, "a")
    [finding] = settle(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x", "workflow_id": "w-a", "cost": 7}]}))
    [standing] = ledger.all_submissions()
    assert isinstance(finding.outcome, Created)
    assert (standing.job_id, standing.recovered, standing.assigned, standing.cost) == ("x", True, True, 7)
    assert ledger_history.response_body(ledger, number) == b'{"id": "x", "workflow_id": "w-a", "cost": 7}'
    assert ledger_history.decisions(ledger, number) == [
        ("2026-10-21T01:00:00+00:00", "ann@desk", "adopted", "x; was in doubt: no answer in time")
    ]


def test_one_job_is_not_adopted_twice(ledger: Ledger) -> None:
    lose(ledger, "a", "b")
    with pytest.raises(UsageError, match="gives the job 'x' twice"):
        settle(ledger, Adoption("a", "x"), Adoption("b", "x"), api=Api())


def test_a_job_that_is_held_is_not_adopted_and_the_api_is_not_asked(ledger: Ledger) -> None:
    one = ledger_history.job("theirs", "w-9")
    ledger_history.send(
        ledger, ledger_history.start_run(ledger, "run-0", [one], manifest="other"), one, ledger_history.created("x")
    )
    lose(ledger, "a")
    api = Api({"w-a": [{"id": "x"}]})
    with pytest.raises(RefusedError, match="it is that of 'theirs' of other"):
        settle(ledger, Adoption("a", "x"), api=api)
    assert api.asked == []


@pytest.mark.parametrize(
    ("api", "why"),
    [
        (Api(), "the API does not know it"),
        (Api(gone=True), "no connection: refused"),
        (Api({"w-b": [{"id": "y", "workflow_id": "w-9"}]}), "it is one of workflow 'w-9'"),
        (Api({"w-b": [{"id": "y", "project_id": "p-9"}]}), "it is one of project 'p-9'"),
        (Api({"w-b": [{"id": "z", "asked as": "y"}]}), "the API's answer is not that job"),
    ],
)
def test_all_is_checked_before_any_is_settled(ledger: Ledger, api: Api, why: str) -> None:
    lose(ledger, "a", "b", "c")
    api.jobs = {**api.jobs, "w-a": [{"id": "x"}]}
    with pytest.raises(RefusedError, match=why):
        settle(ledger, Absence("c"), Adoption("a", "x"), Adoption("b", "y"), api=api)
    assert states(ledger) == ["in_doubt"] * 3


# What failed on somebody's word alone.


@pytest.mark.parametrize("by", ["a person", "a look"])
def test_what_was_said_to_be_absent_may_be_adopted_after_all(ledger: Ledger, by: str) -> None:
    [number] = lose(ledger, "a")
    if by == "a person":
        settle(ledger, Absence("a"))
    else:
        resolver(ledger, Api()).look_up()
    assert states(ledger) == ["not_created"]
    with pytest.raises(RefusedError) as caught:
        settle(ledger, Absence("a"))
    assert "If it was created after all, --adopt takes its job." in caught.value.hint
    with pytest.raises(RefusedError, match="the API does not know it"):
        settle(ledger, Adoption("a", "x"), api=Api())
    with pytest.raises(RefusedError, match="it is one of workflow 'w-9'"):
        settle(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x", "workflow_id": "w-9"}]}))
    assert states(ledger) == ["not_created"]
    [finding] = settle(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x"}]}))
    [standing] = ledger.all_submissions()
    assert isinstance(finding.outcome, Created)
    assert (standing.job_id, standing.recovered, standing.error) == ("x", True, None)
    [_, (_, who, what, detail)] = ledger_history.decisions(ledger, number)
    assert (who, what) == ("ann@desk", "adopted")
    assert detail.startswith("x; not created: was in doubt (no answer in time)")


def test_a_job_that_is_held_is_not_adopted_by_what_was_said_to_be_absent(ledger: Ledger) -> None:
    lose(ledger, "a", "b")
    api = Api({"w-a": [{"id": "x"}], "w-b": [{"id": "x"}]})
    settle(ledger, Absence("a"))
    settle(ledger, Adoption("b", "x"), api=api)
    with pytest.raises(RefusedError, match="it is that of 'b' of nightly"):
        settle(ledger, Adoption("a", "x"), api=api)


def test_what_was_sent_again_or_failed_for_sure_is_not_adopted(ledger: Ledger) -> None:
    [number] = lose(ledger, "a")
    settle(ledger, Absence("a"))
    run = next(ledger.runs())
    again = Claim(Submission(ledger_history.job("a", "w-a"), 1), 2, ledger_history.THEN, 30.0)
    with ledger.transaction():
        ledger.claim(run, ledger.manifest_id(ledger_history.API, "nightly"), [again])
        ledger.save_outcomes([(number, ledger_history.not_created("no such"), ledger_history.THEN)])
    with pytest.raises(RefusedError, match="'a' is not in doubt: not created in run run-1: no such"):
        settle(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x"}]}))


def test_of_one_name_what_is_in_doubt_goes_first_and_two_that_were_absent_need_the_run(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "a", run_id="run-2", key="day:2026-10-20")
    lose(ledger, "a", run_id="run-3", key="day:2026-10-21")
    settle(ledger, Absence("a"), run="run-1")
    settle(ledger, Absence("a"), run="run-2")
    api = Api({"w-a": [{"id": "x"}, {"id": "y"}]})
    settle(ledger, Adoption("a", "x"), api=api)
    assert states(ledger) == ["not_created", "not_created", "created"]
    with pytest.raises(UsageError, match="'a' is said to be absent in 2 runs"):
        settle(ledger, Adoption("a", "y"), api=api)
    settle(ledger, Adoption("a", "y"), api=api, run="run-2")
    assert states(ledger) == ["not_created", "created", "created"]


def test_only_what_is_locked_is_adopted_after_all(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(ledger, "a", run_id="run-0", manifest="other")
    settle(ledger, Absence("a"))
    [number] = lose(ledger, "a")

    def settled_meanwhile(self: Ledger, *_: object) -> None:
        with self.transaction():
            self.save_outcomes([(number, ledger_history.created("theirs"), ledger_history.THEN)])

    monkeypatch.setattr(Ledger, "mark_intents_in_doubt", settled_meanwhile)
    with pytest.raises(RefusedError, match="not in doubt: created as theirs"):
        settle(ledger, Adoption("a", "x"), api=Api({"w-a": [{"id": "x"}]}))
    assert states(ledger) == ["not_created", "created"]


# Locks, and whose doubts.


def test_what_is_being_sent_is_not_judged(ledger: Ledger) -> None:
    one = ledger_history.job("a", "w-a")
    ledger_history.send(ledger, ledger_history.start_run(ledger, "run-1", [one], end=None), one, None)
    with lock.hold(ledger.path, ledger_history.API, "nightly", timeout=0, activity="run run-1"):
        looked = resolver(ledger, Api()).look_up()
        with pytest.raises(LockedError):
            settle(ledger, Absence("a"))
    assert (looked.findings, len(looked.locked), states(ledger)) == ((), 1, ["sending"])


def test_the_intent_of_a_process_that_is_gone_is_a_doubt(ledger: Ledger) -> None:
    one = ledger_history.job("a", "w-a")
    ledger_history.send(ledger, ledger_history.start_run(ledger, "run-1", [one], end=None), one, None)
    [finding] = resolver(ledger, Api({"w-a": [{"id": "x"}]})).look_up().findings
    assert isinstance(finding.outcome, Created)
    assert states(ledger) == ["created"]


def test_the_intent_of_a_process_that_is_gone_stays_as_a_doubt_when_nothing_is_certain(ledger: Ledger) -> None:
    one = ledger_history.job("a", "w-a")
    ledger_history.send(ledger, ledger_history.start_run(ledger, "run-1", [one], end=None), one, None)
    resolver(ledger, Api(gone=True)).look_up()
    assert states(ledger) == ["in_doubt"]


def test_a_look_is_at_one_api_and_one_manifest(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "b", run_id="run-2", manifest="other")
    lose(ledger, "c", run_id="run-3", api="sandbox")
    api = Api()
    resolver(ledger, api, manifest="other").look_up()
    assert api.asked == [("w-b",)]
    assert states(ledger) == ["in_doubt", "not_created", "in_doubt"]
    resolver(ledger, api).look_up()
    assert api.asked == [("w-b",), ("w-a",)]


def test_nothing_in_doubt_asks_nothing(ledger: Ledger) -> None:
    assert resolver(ledger).look_up().findings == ()


def test_an_api_that_cannot_be_asked_settles_nothing(ledger: Ledger) -> None:
    lose(ledger, "a")
    with pytest.raises(RefusedError, match="no API key"):
        resolver(ledger).look_up()
    [finding] = resolver(ledger, Api(gone=True)).look_up().findings
    assert isinstance(finding.outcome, InDoubt)
    assert states(ledger) == ["in_doubt"]


@pytest.mark.parametrize(
    ("created_at", "strange"),
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
def test_a_job_of_another_time_may_be_another_s(ledger: Ledger, created_at: str | None, *, strange: bool) -> None:
    lose(ledger, "a")
    api = Api({"w-a": [{"id": "x", "created_at": created_at}]})
    [finding] = settle(ledger, Adoption("a", "x"), api=api)
    assert (implausible_creation_time(finding, timedelta(minutes=15)) is not None) is strange
