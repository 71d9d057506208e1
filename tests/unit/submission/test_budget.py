"""What is spent, as arithmetic; and that no run, however it goes, sends a job that could take it past its limit."""

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


def made(cost: Any) -> Created:
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
    budget, one = Budget(100), submission("a", 10)
    budget.reserve(one)
    assert budget.spent == 10
    budget.settle(one, made(cost))
    assert budget.spent == spent


@pytest.mark.parametrize(
    ("outcome", "spent"), [(ledger_history.in_doubt(), 10), (ledger_history.not_created(), 0), (None, 0)]
)
def test_a_job_in_doubt_counts_and_one_that_does_not_exist_does_not(
    outcome: InDoubt | NotCreated | None, spent: int
) -> None:
    budget, one = Budget(100), submission("a", 10)
    budget.reserve(one)
    budget.settle(one, outcome)
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
def test_a_job_that_comes_to_the_limit_fits(
    limit: int | None, spent: int, estimate: int | None, *, allowed: bool
) -> None:
    assert Budget(limit, spent).allows(submission("a", estimate)) is allowed


def test_the_refusal_is_in_words() -> None:
    assert Budget(100, 95).describe_refusal(submission("a", 10)) == (
        "budget: 95 of 100 tokens are spent, and a is estimated at 10"
    )


@given(bodies)
def test_whatever_an_answer_holds_its_cost_is_one(body: bytes) -> None:
    assert 0 <= reported_cost(body) <= 2**53


fates: st.SearchStrategy[Created | NotCreated | InDoubt | None] = st.one_of(
    st.builds(made, st.one_of(st.integers(-20, 60), json_values)),
    st.sampled_from([ledger_history.not_created(), ledger_history.in_doubt(), None]),
)


@given(
    jobs=st.lists(st.tuples(st.none() | st.integers(0, 40), fates), max_size=8),
    steps=st.lists(st.integers(0, 7), max_size=24),
    before=st.integers(0, 50),
    limit=st.integers(0, 200),
)
def test_what_is_spent_is_the_sum_at_every_step(
    jobs: list[tuple[int | None, Created | NotCreated | InDoubt | None]], steps: list[int], before: int, limit: int
) -> None:
    """Jobs are taken and settled in any order; one that was certainly not created may be taken again."""
    budget = Budget(limit, before)
    flying: set[int] = set()
    bought: dict[int, int] = {}
    for step in steps:
        if step >= len(jobs) or step in bought:
            continue
        estimate, outcome = jobs[step]
        one = submission(f"j{step}", estimate)
        if step not in flying:
            fits = budget.spent + (estimate or 0) <= limit
            assert budget.allows(one) is fits
            budget.reserve(one)
            flying.add(step)
        else:
            budget.settle(one, outcome)
            flying.remove(step)
            if isinstance(outcome, Created):
                bought[step] = max(estimate or 0, reported_cost(outcome.body))
            elif isinstance(outcome, InDoubt):
                bought[step] = estimate or 0
        assert budget.spent == before + sum(bought.values()) + sum(jobs[at][0] or 0 for at in flying)


# The engine: what comes back frees what it held.


class Told:
    """A journal and an observer that keep what they are told."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.retried = threading.Event()
        self.decided_one = threading.Event()

    def commit(
        self, decided: Sequence[RecordedOutcome], released: Sequence[Submission], claimed: Sequence[Claim]
    ) -> None: ...

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:  # noqa: ARG002 - the protocol's
        return set()

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        self.outcomes[submission.job.name] = outcome
        self.decided_one.set()

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:  # noqa: ARG002 - likewise
        self.retried.set()

    def pausing(self, error: ErrorInfo, seconds: float) -> None: ...

    def stopping(self, why: str) -> None: ...


def send(url: str, sends: Sequence[Submission], limit: int, told: Told, **limits: Any) -> EngineResult:
    settled = Limits(**{"concurrency": 4, "timeout": 10.0, "stop_after": 0, **limits})
    with ApiClient(Endpoint(url, ApiKey("key")), settled.concurrency) as api:
        return Engine(sends, api, told, settled, told, budget=Budget(limit), backoff=FAST).run()


def words(outcome: Outcome) -> str:
    match outcome:
        case Created():
            return "created"
        case NotCreated():
            return "failed"
        case InDoubt():
            return "in doubt"
        case Skipped(reason=reason):
            return reason


def test_what_was_throttled_is_not_counted_twice() -> None:
    told = Told()
    with WireServer(*[reply(429, headers=[("Retry-After", "0")])] * 3) as server:
        assert send(server.url, [submission("a", 10)], 10, told).state == "completed"
    assert {name: words(outcome) for name, outcome in told.outcomes.items()} == {"a": "created"}


def test_what_could_not_be_sent_is_not_counted_twice() -> None:
    told, ends = Told(), list[EngineResult]()
    with refusing_port() as port:
        url = f"http://127.0.0.1:{port}"
        thread = threading.Thread(
            target=lambda: ends.append(send(url, [submission("a", 10)], 10, told, attempts=1000, concurrency=1))
        )
        thread.start()
        assert told.retried.wait(TIMEOUT)
        with WireServer(port=port) as server:
            server.wait_for_requests(1)
            thread.join(TIMEOUT)
    assert ends == [EngineResult("completed")]
    assert words(told.outcomes["a"]) == "created"


def test_a_job_waits_for_what_may_come_back_cheaper_and_is_sent_when_it_did() -> None:
    gate = threading.Event()

    def choose(request: Request) -> Script:
        return Stall(gate, then=reply(422)) if request.project == "a" else created(request.project)

    told, ends = Told(), list[EngineResult]()
    with WireServer(choose=choose) as server:
        sends = [submission("a", 8), submission("b", 1), submission("c", 8)]
        thread = threading.Thread(target=lambda: ends.append(send(server.url, sends, 10, told)))
        thread.start()
        assert told.decided_one.wait(TIMEOUT)  # by then it has been considered to send c, or to stop
        gate.set()
        thread.join(TIMEOUT)
    assert ends == [EngineResult("completed")]
    assert {name: words(outcome) for name, outcome in told.outcomes.items()} == {
        "a": "failed",
        "b": "created",
        "c": "created",
    }
    assert server.requests[2].project == "c"


def test_a_cost_that_was_told_counts_before_the_next_job_goes() -> None:
    """With one connection, the next request after an answer is one that was decided on after it."""

    def choose(request: Request) -> Script:
        body = json.dumps({"id": request.project, "cost": 50 if request.project == "j6" else 1}).encode()
        return reply(200, body, creates=True)

    told = Told()
    with WireServer(choose=choose) as server:
        end = send(server.url, [submission(f"j{number}", 1) for number in range(40)], 45, told, concurrency=1)
    assert (end.state, end.reason) == ("stopped", "budget")
    assert [request.project for request in server.requests] == [f"j{number}" for number in range(7)]
    assert end.detail == "budget: 56 of 45 tokens are spent, and j7 is estimated at 1"


# Whole runs over a real ledger, against the server's own record.

Fate = Literal["created", "rejected", "lost", "made and lost", "server error"]


@dataclass(frozen=True)
class Case:
    """One job: what its workflow is estimated at (None: the API does not tell), what it costs, what becomes of it.

    It has a fate for each POST, and is created when they are used up.
    """

    estimate: int | None
    cost: int
    fates: tuple[Fate, ...]

    @property
    def expected(self) -> int:
        return self.estimate or 0

    @property
    def expense(self) -> int:
        return max(self.expected, self.cost)


@dataclass
class Market:
    """The API: its record says of each POST how much was spent by then, and it keeps what it knows of each job."""

    cases: dict[str, Case]
    limit: int | None = None
    concurrency: int = 1
    posts: list[str] = field(default_factory=list)
    fate: dict[str, Fate] = field(default_factory=dict)  # of the last POST of each job
    known: dict[str, int] = field(default_factory=dict)  # the expense of each job whose outcome the client has
    flying: dict[str, int] = field(default_factory=dict)  # the estimate of each that it sends
    spent_at: dict[str, int] = field(default_factory=dict)  # both together, when a job was claimed
    overdrawn: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Script:
        if request.method == "GET":
            estimate = self.cases[request.workflow].estimate
            return reply(404) if estimate is None else reply(200, b'{"estimated_cost": %d}' % estimate)
        name = request.workflow
        self._look(name)
        turn = self.posts.count(name)
        self.posts.append(name)
        case = self.cases[name]
        self.fate[name] = case.fates[turn] if turn < len(case.fates) else "created"
        match self.fate[name]:
            case "created":
                body = json.dumps({"id": f"job-of-{name}", "cost": self.cases[name].cost}).encode()
                return reply(200, body, creates=True)
            case "rejected":
                return reply(422)
            case "lost":
                return Reset()
            case "made and lost":
                return Reset(creates=True)
            case "server error":
                return reply(500, creates=True)

    def needed(self) -> int:
        """The least limit under which a run would begin: what is spent, and the estimates of what is to be sent."""
        left = (case for name, case in self.cases.items() if self.fate.get(name, "rejected") == "rejected")
        return self.spent() + sum(case.expected for case in left)

    def spent(self, *but: str) -> int:
        """Σ max(estimate, cost) over what is created, and of what is in doubt the estimate; by the server's record."""
        return sum(self._expense(name) for name in self.fate if name not in but)

    def _expense(self, name: str) -> int:
        match self.fate[name]:
            case "created":
                return self.cases[name].expense
            case "rejected":
                return 0
            case "lost" | "made and lost" | "server error":  # the cost of such a job is told to nobody
                return self.cases[name].expected

    def _look(self, name: str) -> None:
        """See that a job which is POSTed fits: by what the client was told when it claimed it, and by what is here."""
        if self.limit is None:
            return
        # The answers of as many as there are other connections may not have been read when this one was decided on.
        over = sorted((one.expense - one.expected for at, one in self.cases.items() if at in self.fate), reverse=True)
        here = self.spent(name) - sum(over[: self.concurrency - 1])
        if max(self.spent_at[name], here) + self.cases[name].expected > self.limit:
            self.overdrawn.append(f"{name}: {self.spent_at[name]} then and {here} now, limit {self.limit}")

    # The client's record.

    def note(
        self, decided: Sequence[RecordedOutcome], released: Sequence[Submission], claimed: Sequence[Claim]
    ) -> None:
        for one in decided:
            name = one.submission.job.name
            self.known[name] = self._expense(name)
            del self.flying[name]
        for send in released:
            del self.flying[send.job.name]
        for claim in claimed:
            name = claim.submission.job.name
            self.known.pop(name, None)
            self.spent_at[name] = sum(self.known.values()) + sum(self.flying.values())
            self.flying[name] = self.cases[name].expected


class Nobody:
    """A watcher and an interrupter to whom it is all the same."""

    def looked_up(self, findings: Sequence[Finding]) -> None: ...

    def looking_up(self, doubts: int, seconds: float) -> None: ...

    def note(self, text: str) -> None: ...

    def decided(self, submission: Submission, outcome: Outcome) -> None: ...

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None: ...

    def pausing(self, error: ErrorInfo, seconds: float) -> None: ...

    def stopping(self, why: str) -> None: ...

    def engine_started(self, engine: Engine) -> None: ...

    def engine_ended(self) -> None: ...


@dataclass
class Site:
    """A ledger and an API, at which a manifest is run again and again."""

    market: Market
    ledger: Path
    url: str

    def run(
        self, limit: int | None, concurrency: int, *, allow_unknown: bool = True
    ) -> tuple[EngineResult | None, RunRecord | None]:
        """Run, resuming what there is; None when it is refused."""
        self.market.limit, self.market.concurrency = limit, concurrency
        jobs = tuple(Job(name, name, "p") for name in self.market.cases)
        request = RunRequest(
            Manifest("nightly", "-", "0" * 64, jobs, once_per="run"),
            ledger_history.API,
            LedgerLocation(self.ledger, explicit=True),
            Limits(concurrency=concurrency, attempts=1, timeout=10.0, stop_after=0, max_cost=limit),
            RunOptions(resume=True, hold=True, allow_unknown_cost=allow_unknown),
        )
        with (
            ApiClient(Endpoint(self.url, ApiKey("key")), concurrency) as api,
            execution.open_execution(request, api, Nobody(), lambda _: True) as one,
        ):
            try:
                one.prepare()
            except RefusedError:
                return None, None
            end = one.submit(Nobody())
            record = one.record()
            return end, replace(record, entries=tuple(record.entries))


@contextmanager
def at_market(cases: Sequence[Case]) -> Iterator[Site]:
    market = Market({f"j{number}": case for number, case in enumerate(cases)})

    class Noting(RunJournal):
        def commit(
            self, decided: Sequence[RecordedOutcome], released: Sequence[Submission], claimed: Sequence[Claim]
        ) -> None:
            super().commit(decided, released, claimed)
            market.note(decided, released, claimed)

    with (
        WireServer(choose=market) as server,
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(execution, "RunJournal", Noting)
        create_ledger(Path(folder) / "ledger.db")
        yield Site(market, Path(folder) / "ledger.db", server.url)


# Each list has the simplest first, which is what hypothesis draws most.
cases = st.builds(
    Case,
    st.sampled_from([10, 1, 20, 0, 7, 13, None]),
    st.sampled_from([25, 0, 10, 60, 1, 12]),
    st.sampled_from(
        [(), ("rejected",), ("lost",), ("rejected", "made and lost"), ("server error",), ("rejected",) * 3]
    ),
)
limits = st.sampled_from([0, -5, 5, 15, 30, -1, 60])  # beyond what is needed


def check_end(site: Site, end: EngineResult, record: RunRecord, limit: int | None) -> None:
    """What holds when a run has ended: what was not sent was skipped for the budget, and would not have fitted."""
    outcomes = {entry.job.name: entry.outcome for entry in record.entries}
    skipped = [name for name, outcome in outcomes.items() if isinstance(outcome, Skipped)]
    assert {words(outcomes[name]) for name in skipped} <= {"budget"}
    assert (end.state, end.reason) == (("stopped", "budget") if end.reason else ("completed", ""))
    assert not (skipped and not end.reason)
    if end.reason:
        assert limit is not None
        unsent = [name for name in site.market.cases if words(outcomes[name]) in ("budget", "failed")]
        assert any(site.market.spent() + site.market.cases[name].expected > limit for name in unsent)


@settings(max_examples=40)
@given(
    jobs=st.lists(cases, min_size=3, max_size=12),
    first=limits | st.none(),
    others=st.lists(limits, min_size=1, max_size=2),
    concurrency=st.sampled_from([1, 4, 2, 16]),
)
def test_no_job_is_sent_that_could_pass_the_limit(
    jobs: list[Case], first: int | None, others: list[int], concurrency: int
) -> None:
    """Over runs that are resumed, with a limit near what is needed and without: one without asked for no estimates."""
    with at_market(jobs) as site:
        for beyond in (first, *others):
            before, needed = len(site.market.posts), site.market.needed()
            limit = None if beyond is None else max(0, needed + beyond)
            end, record = site.run(limit, concurrency)
            assert site.market.overdrawn == []
            if end is None:
                assert limit is not None
                assert limit < needed
                assert len(site.market.posts) == before
            else:
                assert record is not None
                check_end(site, end, record, limit)
        assert len(site.market.posts) <= sum(len(case.fates) + 1 for case in jobs)


CHEAP_AT_FIRST = [Case(10, 0, ())] * 6
DEARER = [Case(10, 25, ())] * 8


@pytest.mark.parametrize(("concurrency", "least", "most"), [(1, 4, 4), (3, 4, 5)])
def test_costs_above_the_estimates_end_it_early(concurrency: int, least: int, most: int) -> None:
    with at_market(DEARER) as site:
        end, record = site.run(100, concurrency)
    assert end is not None
    assert record is not None
    assert (end.state, end.reason) == ("stopped", "budget")
    sent = len(site.market.posts)
    assert least <= sent <= most
    assert [words(entry.outcome) for entry in record.entries] == ["created"] * sent + ["budget"] * (8 - sent)


def test_a_cost_of_nothing_at_creation_does_not_make_a_job_free() -> None:
    with at_market(CHEAP_AT_FIRST) as site:
        assert site.run(59, 4) == (None, None)
        end, _ = site.run(60, 4)
        assert end == EngineResult("completed")
        assert site.run(60, 4)[0] == EngineResult("completed")  # and nothing is sent again
    assert sorted(site.market.posts) == [f"j{number}" for number in range(6)]


def bought_before(limit: int | None) -> Callable[[Site], None]:
    """A first run, in which one was bought, one is in doubt, and one was refused."""

    def run(site: Site) -> None:
        end, _ = site.run(limit, 1)
        assert end == EngineResult("completed")

    return run


@pytest.mark.parametrize("first", [bought_before(None), bought_before(1000)], ids=["without", "with"])
@pytest.mark.parametrize(("limit", "sent"), [(49, False), (50, True)])
def test_what_earlier_runs_spent_counts(first: Callable[[Site], None], limit: int, *, sent: bool) -> None:
    """Also when the first run had no limit, and so no estimates on record: they are asked for then."""
    with at_market([Case(20, 0, ()), Case(10, 0, ("lost",)), Case(20, 0, ("rejected",))]) as site:
        first(site)
        end, _ = site.run(limit, 1)
    assert (end is not None) is sent
    assert site.market.posts == ["j0", "j1", "j2", *(["j2"] if sent else [])]
