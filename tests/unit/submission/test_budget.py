"""The cost limit: what counts as spent, and that no run sends a job that could exceed the limit."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ledger_history
from support.records import bodies, json_values
from support.wire import TIMEOUT, Request, Reset, Script, Stall, WireServer, created, refusing_port, reply

from runner.client.api import ApiClient
from runner.client.endpoint import ApiKey, Endpoint
from runner.core.backoff import Backoff
from runner.core.errors import RefusedError
from runner.core.models import (
    Created,
    ErrorInfo,
    InDoubt,
    Job,
    Manifest,
    NotCreated,
    Outcome,
    RunRecord,
    Skipped,
    Submission,
)
from runner.core.settings import Limits, RunOptions
from runner.ledger.connect import create_ledger
from runner.ledger.journal import RunJournal
from runner.ledger.location import LedgerLocation
from runner.ledger.rows import Claim, RecordedOutcome
from runner.runs import execution
from runner.runs.matching import Finding
from runner.runs.request import RunRequest
from runner.submission.budget import Budget, reported_cost
from runner.submission.engine import Engine, EngineResult

FAST = Backoff(base=0.02, maximum=0.05)


def submission(name: str, estimate: int | None = None) -> Submission:
    return Submission(Job(name, "w", name), 1, estimate=estimate)


def created_job(cost: Any) -> Created:
    return ledger_history.created("j", json.dumps({"id": "j", "cost": cost}).encode())


# Arithmetic.


@pytest.mark.parametrize(
    ("cost", "spent"),
    [
        *((0, 10), (9, 10), (10, 10), (25, 25), (25.0, 25), (10**40, 2**53)),
        *((-5, 10), (None, 10), (True, 10), (25.5, 10), ("25", 10)),
    ],
)
def test_a_job_counts_as_the_larger_of_estimate_and_cost(cost: Any, spent: int) -> None:
    budget, job = Budget(100), submission("a", 10)
    budget.reserve(job)
    assert budget.spent == 10
    budget.settle(job, created_job(cost))
    assert budget.spent == spent


@pytest.mark.parametrize(
    ("outcome", "spent"), [(ledger_history.in_doubt(), 10), (ledger_history.not_created(), 0), (None, 0)]
)
def test_a_job_in_doubt_counts_and_a_job_not_created_does_not(outcome: InDoubt | NotCreated | None, spent: int) -> None:
    budget, job = Budget(100), submission("a", 10)
    budget.reserve(job)
    budget.settle(job, outcome)
    assert budget.spent == spent


@pytest.mark.parametrize(
    ("limit", "spent", "estimate", "allowed"),
    [
        (10, 0, 10, True),
        (10, 0, 11, False),
        (10, 10, 0, True),
        (10, 11, 0, False),
        (0, 0, 0, True),
        (10, 0, None, True),
        (10, 11, None, False),
        (None, 10**30, 10, True),
    ],
)
def test_a_job_that_reaches_the_limit_exactly_is_allowed(
    limit: int | None, spent: int, estimate: int | None, *, allowed: bool
) -> None:
    assert Budget(limit, spent).allows(submission("a", estimate)) is allowed


def test_the_refusal_states_the_estimate_and_what_is_spent() -> None:
    assert Budget(100, 95).describe_refusal(submission("a", 10)) == (
        "budget: 95 of 100 tokens are spent, and a is estimated at 10"
    )


@given(bodies)
def test_the_cost_of_any_response_is_within_bounds(body: bytes) -> None:
    assert 0 <= reported_cost(body) <= 2**53


any_outcome: st.SearchStrategy[Created | NotCreated | InDoubt | None] = st.one_of(
    st.builds(created_job, st.one_of(st.integers(-20, 60), json_values)),
    st.sampled_from([ledger_history.not_created(), ledger_history.in_doubt(), None]),
)


@given(
    jobs=st.lists(st.tuples(st.none() | st.integers(0, 40), any_outcome), max_size=8),
    steps=st.lists(st.integers(0, 7), max_size=24),
    before=st.integers(0, 50),
    limit=st.integers(0, 200),
)
def test_spent_is_the_sum_at_every_step(
    jobs: list[tuple[int | None, Created | NotCreated | InDoubt | None]], steps: list[int], before: int, limit: int
) -> None:
    """Jobs are reserved and settled in any order; a job that was not created may be reserved again."""
    budget = Budget(limit, before)
    in_flight: set[int] = set()
    costs: dict[int, int] = {}
    for step in steps:
        if step >= len(jobs) or step in costs:
            continue
        estimate, outcome = jobs[step]
        job = submission(f"j{step}", estimate)
        if step not in in_flight:
            fits = budget.spent + (estimate or 0) <= limit
            assert budget.allows(job) is fits
            budget.reserve(job)
            in_flight.add(step)
        else:
            budget.settle(job, outcome)
            in_flight.remove(step)
            if isinstance(outcome, Created):
                costs[step] = max(estimate or 0, reported_cost(outcome.body))
            elif isinstance(outcome, InDoubt):
                costs[step] = estimate or 0
        assert budget.spent == before + sum(costs.values()) + sum(jobs[number][0] or 0 for number in in_flight)


# The engine: a job that was not created frees what was reserved for it.


class RecordingObserver:
    """A journal and an observer that record outcomes."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.retried = threading.Event()
        self.decided_any = threading.Event()

    def commit(
        self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> None: ...

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:  # noqa: ARG002 - required by the protocol
        return set()

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        self.outcomes[submission.job.name] = outcome
        self.decided_any.set()

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:  # noqa: ARG002 - likewise
        self.retried.set()

    def pausing(self, error: ErrorInfo, seconds: float) -> None: ...

    def stopping(self, detail: str) -> None: ...


def run_engine(
    url: str, submissions: Sequence[Submission], limit: int, observer: RecordingObserver, **limits: Any
) -> EngineResult:
    engine_limits = Limits(**{"concurrency": 4, "timeout": 10.0, "stop_after": 0, **limits})
    with ApiClient(Endpoint(url, ApiKey("key")), engine_limits.concurrency) as api:
        return Engine(submissions, api, observer, engine_limits, observer, budget=Budget(limit), backoff=FAST).run()


def outcome_label(outcome: Outcome) -> str:
    match outcome:
        case Created():
            return "created"
        case NotCreated():
            return "not created"
        case InDoubt():
            return "in doubt"
        case Skipped(reason=reason):
            return reason


def test_a_throttled_job_is_not_counted_twice() -> None:
    observer = RecordingObserver()
    with WireServer(*[reply(429, headers=[("Retry-After", "0")])] * 3) as server:
        assert run_engine(server.url, [submission("a", 10)], 10, observer).state == "completed"
    assert {name: outcome_label(outcome) for name, outcome in observer.outcomes.items()} == {"a": "created"}


def test_an_unsent_job_is_not_counted_twice() -> None:
    observer, results = RecordingObserver(), list[EngineResult]()
    with refusing_port() as port:
        url = f"http://127.0.0.1:{port}"
        thread = threading.Thread(
            target=lambda: results.append(
                run_engine(url, [submission("a", 10)], 10, observer, attempts=1000, concurrency=1)
            )
        )
        thread.start()
        assert observer.retried.wait(TIMEOUT)
        with WireServer(port=port) as server:
            server.wait_for_requests(1)
            thread.join(TIMEOUT)
    assert results == [EngineResult("completed")]
    assert outcome_label(observer.outcomes["a"]) == "created"


def test_a_job_waits_for_requests_in_flight_that_may_free_budget() -> None:
    gate = threading.Event()

    def choose(request: Request) -> Script:
        return Stall(gate, then=reply(422)) if request.project == "a" else created(request.project)

    observer, results = RecordingObserver(), list[EngineResult]()
    with WireServer(choose=choose) as server:
        submissions = [submission("a", 8), submission("b", 1), submission("c", 8)]
        thread = threading.Thread(target=lambda: results.append(run_engine(server.url, submissions, 10, observer)))
        thread.start()
        assert observer.decided_any.wait(TIMEOUT)  # by then the engine has considered sending c, or stopping
        gate.set()
        thread.join(TIMEOUT)
    assert results == [EngineResult("completed")]
    assert {name: outcome_label(outcome) for name, outcome in observer.outcomes.items()} == {
        "a": "not created",
        "b": "created",
        "c": "created",
    }
    assert server.requests[2].project == "c"


def test_a_reported_cost_counts_before_the_next_job_is_sent() -> None:
    """With one connection, each request is decided on after the previous response."""

    def choose(request: Request) -> Script:
        body = json.dumps({"id": request.project, "cost": 50 if request.project == "j6" else 1}).encode()
        return reply(200, body, creates=True)

    observer = RecordingObserver()
    with WireServer(choose=choose) as server:
        result = run_engine(
            server.url, [submission(f"j{number}", 1) for number in range(40)], 45, observer, concurrency=1
        )
    assert (result.state, result.reason) == ("stopped", "budget")
    assert [request.project for request in server.requests] == [f"j{number}" for number in range(7)]
    assert result.detail == "budget: 56 of 45 tokens are spent, and j7 is estimated at 1"


# Runs with a real ledger, checked against what the server saw.

PostBehavior = Literal["created", "rejected", "lost", "created and lost", "server error"]


@dataclass(frozen=True)
class Case:
    """One job: its estimate (None: the API has none), its cost, and how the API handles it.

    There is a behavior for each POST; after the last, the job is created.
    """

    estimate: int | None
    cost: int
    behaviors: tuple[PostBehavior, ...]

    @property
    def estimated(self) -> int:
        return self.estimate or 0

    @property
    def charge(self) -> int:
        return max(self.estimated, self.cost)


@dataclass
class Backend:
    """The API. It tracks what each job may have cost, and checks the limit at each POST."""

    cases: dict[str, Case]
    limit: int | None = None
    concurrency: int = 1
    posts: list[str] = field(default_factory=list)
    behaviors: dict[str, PostBehavior] = field(default_factory=dict)  # for the last POST of each job
    recorded: dict[str, int] = field(default_factory=dict)  # the charge of each job whose outcome the client has saved
    in_flight: dict[str, int] = field(default_factory=dict)  # the estimate of each job that is claimed
    spent_at: dict[str, int] = field(default_factory=dict)  # the sum of both when the job was claimed
    violations: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Script:
        if request.method == "GET":
            estimate = self.cases[request.workflow].estimate
            return reply(404) if estimate is None else reply(200, b'{"estimated_cost": %d}' % estimate)
        name = request.workflow
        self._check_limit(name)
        attempt = self.posts.count(name)
        self.posts.append(name)
        case = self.cases[name]
        self.behaviors[name] = case.behaviors[attempt] if attempt < len(case.behaviors) else "created"
        match self.behaviors[name]:
            case "created":
                body = json.dumps({"id": f"job-of-{name}", "cost": self.cases[name].cost}).encode()
                return reply(200, body, creates=True)
            case "rejected":
                return reply(422)
            case "lost":
                return Reset()
            case "created and lost":
                return Reset(creates=True)
            case "server error":
                return reply(500, creates=True)

    def minimum_limit(self) -> int:
        """The lowest limit under which a run starts: what is spent, plus the estimates of the jobs to send."""
        unsent = (case for name, case in self.cases.items() if self.behaviors.get(name, "rejected") == "rejected")
        return self.spent() + sum(case.estimated for case in unsent)

    def spent(self, *excluded: str) -> int:
        """Sum max(estimate, cost) of each created job, and the estimate of each in doubt, as the server saw it."""
        return sum(self._charge(name) for name in self.behaviors if name not in excluded)

    def _charge(self, name: str) -> int:
        match self.behaviors[name]:
            case "created":
                return self.cases[name].charge
            case "rejected":
                return 0
            case "lost" | "created and lost" | "server error":  # the client never learns the cost
                return self.cases[name].estimated

    def _check_limit(self, name: str) -> None:
        """Check that a POSTed job is within the limit, as the client knew it at its claim and as the server does."""
        if self.limit is None:
            return
        # The client may not have read the responses on its other connections when it decided on this job.
        overruns = sorted(
            (case.charge - case.estimated for job, case in self.cases.items() if job in self.behaviors), reverse=True
        )
        spent_now = self.spent(name) - sum(overruns[: self.concurrency - 1])
        if max(self.spent_at[name], spent_now) + self.cases[name].estimated > self.limit:
            self.violations.append(f"{name}: {self.spent_at[name]} when claimed, {spent_now} now, limit {self.limit}")

    # What the client saved.

    def observe_commit(
        self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> None:
        for recorded in outcomes:
            name = recorded.submission.job.name
            self.recorded[name] = self._charge(name)
            del self.in_flight[name]
        for submission in released:
            del self.in_flight[submission.job.name]
        for claim in claims:
            name = claim.submission.job.name
            self.recorded.pop(name, None)
            self.spent_at[name] = sum(self.recorded.values()) + sum(self.in_flight.values())
            self.in_flight[name] = self.cases[name].estimated


class NullObserver:
    """An observer of the run and of interrupts that does nothing."""

    def looked_up(self, findings: Sequence[Finding]) -> None: ...

    def looking_up(self, doubts: int, seconds: float) -> None: ...

    def note(self, text: str) -> None: ...

    def decided(self, submission: Submission, outcome: Outcome) -> None: ...

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None: ...

    def pausing(self, error: ErrorInfo, seconds: float) -> None: ...

    def stopping(self, detail: str) -> None: ...

    def engine_started(self, engine: Engine) -> None: ...

    def engine_ended(self) -> None: ...


@dataclass
class Harness:
    """A ledger and an API, against which one manifest is run repeatedly."""

    backend: Backend
    ledger: Path
    url: str

    def run(
        self, limit: int | None, concurrency: int, *, allow_unknown: bool = True
    ) -> tuple[EngineResult | None, RunRecord | None]:
        """Run, and resume an unfinished run. Return None, None if the run is refused."""
        self.backend.limit, self.backend.concurrency = limit, concurrency
        jobs = tuple(Job(name, name, "p") for name in self.backend.cases)
        request = RunRequest(
            Manifest("nightly", "-", "0" * 64, jobs, once_per="run"),
            ledger_history.API,
            LedgerLocation(self.ledger, explicit=True),
            Limits(concurrency=concurrency, attempts=1, timeout=10.0, stop_after=0, max_cost=limit),
            RunOptions(resume=True, hold=True, allow_unknown_cost=allow_unknown),
        )
        with (
            ApiClient(Endpoint(self.url, ApiKey("key")), concurrency) as api,
            execution.open_execution(request, api, NullObserver(), lambda _: True) as opened,
        ):
            try:
                opened.prepare()
            except RefusedError:
                return None, None
            result = opened.submit(NullObserver())
            record = opened.record()
            return result, replace(record, entries=tuple(record.entries))


@contextmanager
def harness_for(cases: Sequence[Case]) -> Iterator[Harness]:
    backend = Backend({f"j{number}": case for number, case in enumerate(cases)})

    class ObservedJournal(RunJournal):
        def commit(
            self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
        ) -> None:
            super().commit(outcomes, released, claims)
            backend.observe_commit(outcomes, released, claims)

    with (
        WireServer(choose=backend) as server,
        tempfile.TemporaryDirectory() as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(execution, "RunJournal", ObservedJournal)
        create_ledger(Path(directory) / "ledger.db")
        yield Harness(backend, Path(directory) / "ledger.db", server.url)


# Each list starts with the simplest value: Hypothesis draws it most.
cases = st.builds(
    Case,
    st.sampled_from([10, 1, 20, 0, 7, 13, None]),
    st.sampled_from([25, 0, 10, 60, 1, 12]),
    st.sampled_from(
        [(), ("rejected",), ("lost",), ("rejected", "created and lost"), ("server error",), ("rejected",) * 3]
    ),
)
limits = st.sampled_from([0, -5, 5, 15, 30, -1, 60])  # relative to the minimum limit


def check_result(harness: Harness, result: EngineResult, record: RunRecord, limit: int | None) -> None:
    """Check that jobs were skipped only for the budget, and that at least one would have exceeded the limit."""
    outcomes = {entry.job.name: entry.outcome for entry in record.entries}
    skipped = [name for name, outcome in outcomes.items() if isinstance(outcome, Skipped)]
    assert {outcome_label(outcomes[name]) for name in skipped} <= {"budget"}
    assert (result.state, result.reason) == (("stopped", "budget") if result.reason else ("completed", ""))
    assert not (skipped and not result.reason)
    if result.reason:
        assert limit is not None
        unsent = [name for name in harness.backend.cases if outcome_label(outcomes[name]) in ("budget", "not created")]
        assert any(harness.backend.spent() + harness.backend.cases[name].estimated > limit for name in unsent)


@settings(max_examples=40)
@given(
    jobs=st.lists(cases, min_size=3, max_size=12),
    first=limits | st.none(),
    others=st.lists(limits, min_size=1, max_size=2),
    concurrency=st.sampled_from([1, 4, 2, 16]),
)
def test_no_job_is_sent_that_could_exceed_the_limit(
    jobs: list[Case], first: int | None, others: list[int], concurrency: int
) -> None:
    """Over resumed runs, with a limit near the minimum or none: a run without a limit requests no estimates."""
    with harness_for(jobs) as harness:
        for margin in (first, *others):
            before, minimum_limit = len(harness.backend.posts), harness.backend.minimum_limit()
            limit = None if margin is None else max(0, minimum_limit + margin)
            result, record = harness.run(limit, concurrency)
            assert harness.backend.violations == []
            if result is None:
                assert limit is not None
                assert limit < minimum_limit
                assert len(harness.backend.posts) == before
            else:
                assert record is not None
                check_result(harness, result, record, limit)
        assert len(harness.backend.posts) <= sum(len(case.behaviors) + 1 for case in jobs)


FREE_AT_CREATION = [Case(10, 0, ())] * 6
OVERRUNNING_JOBS = [Case(10, 25, ())] * 8


@pytest.mark.parametrize(("concurrency", "least", "most"), [(1, 4, 4), (3, 4, 5)])
def test_costs_above_the_estimates_stop_the_run_early(concurrency: int, least: int, most: int) -> None:
    with harness_for(OVERRUNNING_JOBS) as harness:
        result, record = harness.run(100, concurrency)
    assert result is not None
    assert record is not None
    assert (result.state, result.reason) == ("stopped", "budget")
    sent = len(harness.backend.posts)
    assert least <= sent <= most
    assert [outcome_label(entry.outcome) for entry in record.entries] == ["created"] * sent + ["budget"] * (8 - sent)


def test_a_job_with_no_cost_at_creation_counts_as_its_estimate() -> None:
    with harness_for(FREE_AT_CREATION) as harness:
        assert harness.run(59, 4) == (None, None)
        result, _ = harness.run(60, 4)
        assert result == EngineResult("completed")
        assert harness.run(60, 4)[0] == EngineResult("completed")  # nothing is sent again
    assert sorted(harness.backend.posts) == [f"j{number}" for number in range(6)]


def earlier_run(limit: int | None) -> Callable[[Harness], None]:
    """A first run: one job is created, one is in doubt, and one is rejected."""

    def run(harness: Harness) -> None:
        result, _ = harness.run(limit, 1)
        assert result == EngineResult("completed")

    return run


@pytest.mark.parametrize("first", [earlier_run(None), earlier_run(1000)], ids=["without", "with"])
@pytest.mark.parametrize(("limit", "sent"), [(49, False), (50, True)])
def test_the_cost_of_earlier_runs_counts(first: Callable[[Harness], None], limit: int, *, sent: bool) -> None:
    """Also when the first run had no limit and saved no estimates: they are requested later."""
    with harness_for([Case(20, 0, ()), Case(10, 0, ("lost",)), Case(20, 0, ("rejected",))]) as harness:
        first(harness)
        result, _ = harness.run(limit, 1)
    assert (result is not None) is sent
    assert harness.backend.posts == ["j0", "j1", "j2", *(["j2"] if sent else [])]
