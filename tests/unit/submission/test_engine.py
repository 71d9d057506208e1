"""The engine over real sockets: what it sends, when and how often, and what it saves."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.certs import Certificates
from support.wire import (
    TIMEOUT,
    Close,
    Drip,
    Reply,
    Request,
    Reset,
    Script,
    Stall,
    Truncated,
    WireServer,
    created,
    refusing_port,
    reply,
)

from runner.client.api import ApiClient
from runner.client.endpoint import ApiKey, Endpoint
from runner.client.exchange import Exchange
from runner.client.response import ExchangeResult
from runner.core.backoff import Backoff
from runner.core.errors import RefusedError
from runner.core.models import Created, ErrorInfo, InDoubt, Job, NotCreated, Outcome, Skipped, Submission
from runner.core.settings import Limits
from runner.ledger.journal import JobIdTakenError
from runner.ledger.rows import Claim, RecordedOutcome
from runner.submission import engine
from runner.submission.engine import Engine, EngineResult

FAST = Backoff(base=0.02, maximum=0.1)


class RecordingJournal:
    """A journal that logs each call, and fails the test when the engine breaks a rule."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.calls: list[tuple[str, str, float]] = []  # call, job name, and when it was durable
        self.claimed: set[str] = set()
        self.most_claimed = 0
        self.threads: set[int] = set()
        self.fail_after = fail_after  # number of commits

    def commit(
        self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> None:
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise RefusedError("the disk is full")
            self.fail_after -= 1
        self.threads.add(threading.get_ident())
        for recorded in outcomes:
            self._save_outcome(recorded.submission.job.name, recorded.outcome)
        for submission in released:
            self.claimed.remove(submission.job.name)
        for claim in claims:
            self._claim(claim.submission.job.name)
        self.most_claimed = max(self.most_claimed, len(self.claimed))
        self._log("outcome", [recorded.submission for recorded in outcomes])
        self._log("claim", [claim.submission for claim in claims])

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:
        taken = {outcome.job_id for outcome in self.outcomes.values() if isinstance(outcome, Created)}
        return taken & set(job_ids)

    def _save_outcome(self, name: str, outcome: Outcome) -> None:
        assert name in self.claimed, f"{name} was sent without a claim"
        self.claimed.remove(name)
        self.outcomes[name] = outcome

    def _claim(self, name: str) -> None:
        assert name not in self.claimed, f"{name} was claimed twice"
        before = self.outcomes.get(name)
        assert before is None or isinstance(before, NotCreated), f"{name} may already exist"
        self.claimed.add(name)

    def _log(self, call: str, submissions: Iterable[Submission]) -> None:
        at = time.monotonic()
        self.calls += [(call, submission.job.name, at) for submission in submissions]

    def times_of(self, call: str, name: str) -> list[float]:
        return [at for logged, job, at in self.calls if (logged, job) == (call, name)]


@dataclass
class RecordingObserver:
    """An observer that records each call, and whether the journal had the outcome by then."""

    journal: RecordingJournal
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reported_twice: list[str] = field(default_factory=list)
    reported_early: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    paused: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    retried: threading.Event = field(default_factory=threading.Event)

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        name = submission.job.name
        if name in self.outcomes:
            self.reported_twice.append(name)
        if not isinstance(outcome, Skipped) and self.journal.outcomes.get(name) is not outcome:
            self.reported_early.append(name)
        self.outcomes[name] = outcome

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:  # noqa: ARG002 - required by the protocol
        self.retries.append(submission.job.name)
        self.retried.set()

    def pausing(self, error: ErrorInfo, seconds: float) -> None:  # noqa: ARG002 - required by the protocol
        self.pauses.append(seconds)
        self.paused.set()

    def stopping(self, detail: str) -> None:  # noqa: ARG002 - required by the protocol
        self.stopped.set()


@dataclass
class EngineRun:
    """A run that has ended, or is in progress inside `start_engine`."""

    engine: Engine
    journal: RecordingJournal
    observer: RecordingObserver
    result: EngineResult | None = None

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        return self.observer.outcomes

    def names(self, kind: type[object]) -> set[str]:
        return {name for name, outcome in self.outcomes.items() if isinstance(outcome, kind)}

    def kinds(self) -> Counter[str]:
        return Counter(_kind(outcome) for outcome in self.outcomes.values())


def _kind(outcome: Outcome) -> str:
    match outcome:
        case Created():
            return "created"
        case Skipped(reason=reason):
            return reason
        case NotCreated(error=error):
            return error.kind
        case InDoubt(error=error):
            return f"in doubt: {error.kind}"


def jobs(count: int) -> list[Submission]:
    return [Submission(Job(f"j{number}", "w", f"j{number}"), 1) for number in range(count)]


@contextmanager
def start_engine(
    url: str, submissions: Sequence[Submission], *, ca_bundle: str | None = None, backoff: Backoff = FAST, **limits: Any
) -> Iterator[EngineRun]:
    """Run the engine in its own thread. The run has ended when the block exits."""
    wait_timeout = limits.pop("wait_timeout", TIMEOUT)
    journal = RecordingJournal(limits.pop("fail_after", None))
    engine_limits = Limits(**{"concurrency": 4, "timeout": 10.0, **limits})
    observer = RecordingObserver(journal)
    with ApiClient(Endpoint(url, ApiKey("key"), ca_bundle), engine_limits.concurrency) as api:
        run = EngineRun(Engine(submissions, api, journal, engine_limits, observer, backoff=backoff), journal, observer)
        failures: list[BaseException] = []

        def call_engine() -> None:
            try:
                run.result = run.engine.run()
            except BaseException as error:  # noqa: BLE001 - re-raised in the test's thread
                failures.append(error)

        thread = threading.Thread(target=call_engine)
        thread.start()
        try:
            yield run
            thread.join(wait_timeout)
            hung = thread.is_alive()
        finally:
            while thread.is_alive():  # a failed test must not wait for the run
                run.engine.interrupt(signal.SIGTERM)
                thread.join(0.1)
    assert not failures, failures
    assert not hung, "the run did not end"
    _check_invariants(run, submissions)


def _check_invariants(run: EngineRun, submissions: Sequence[Submission]) -> None:
    """Check what holds for every run, however it ended."""
    names = [submission.job.name for submission in submissions]
    unsaved = [recorded.submission.job.name for recorded in run.result.unsaved] if run.result else []
    assert sorted([*run.outcomes, *unsaved]) == sorted(names)
    assert run.observer.reported_twice == run.observer.reported_early == []
    if run.journal.fail_after is None:
        assert run.journal.claimed == set()
    assert len(run.journal.threads) <= 1


def run_engine(url: str, submissions: Sequence[Submission], **limits: Any) -> EngineRun:
    with start_engine(url, submissions, **limits) as run:
        pass
    return run


def by_job(scripts: Mapping[str, Script]) -> Callable[[Request], Script]:
    """Play each job's script, by its name; create the other jobs."""
    return lambda request: scripts.get(request.project) or created(f"job-of-{request.project}")


def in_order(*scripts: Script) -> Callable[[Request], Script]:
    """Play one script per request, in the order the requests arrive; then create jobs."""
    remaining = list(scripts)
    return lambda request: remaining.pop(0) if remaining else created(f"job-of-{request.project}")


def max_in_window(times: Sequence[float], seconds: float) -> int:
    return max(sum(start <= time < start + seconds for time in times) for start in times)


# Each job once.


def test_each_job_is_sent_once_and_its_outcome_saved() -> None:
    with WireServer() as server:
        run = run_engine(server.url, jobs(40))
    assert run.result == EngineResult("completed")
    assert Counter(request.project for request in server.requests) == Counter({f"j{number}": 1 for number in range(40)})
    outcome = run.outcomes["j7"]
    assert isinstance(outcome, Created)
    assert (outcome.job_id, outcome.attempts) == ("job-of-j7", 1)


def test_an_empty_run_opens_no_connection() -> None:
    with WireServer() as server:
        assert run_engine(server.url, []).result == EngineResult("completed")
    assert server.log.connections == 0


AMBIGUOUS_RESPONSES: dict[str, Script] = {
    "reset": Reset(creates=True),
    "close": Close(creates=True),
    "half": Truncated(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", creates=True),
    "garbage": Reply(b"garbage\r\n", creates=True),
    "drip": Drip(b"HTTP/1.1 200 OK\r\n", b"X" * 99, 0.1, creates=True),
    "408": reply(408, creates=True),
    "409": reply(409, creates=True),
    "500": reply(500, creates=True),
    "503-retry-after": reply(503, headers=[("Retry-After", "0")], creates=True),
    "200-no-id": reply(200, b"{}", creates=True),
}


@pytest.mark.parametrize("script", AMBIGUOUS_RESPONSES.values(), ids=AMBIGUOUS_RESPONSES)
def test_a_job_that_may_exist_is_never_sent_again(script: Script) -> None:
    with WireServer(choose=by_job({"j1": script})) as server:
        run = run_engine(server.url, jobs(3), attempts=5, timeout=0.5)
    assert run.names(InDoubt) == {"j1"}
    assert run.names(Created) == {"j0", "j2"}
    assert Counter(request.project for request in server.requests) == {"j0": 1, "j1": 1, "j2": 1}
    assert run.result == EngineResult("completed")


@pytest.mark.parametrize(
    ("count", "concurrency", "rate"),
    [(1, 1, None), (1, 1, "100/s"), (4, 4, "100/s"), (1, 8, None), (9, 2, None), (40, 4, None)],
)
def test_jobs_that_cannot_be_sent_use_all_their_attempts(count: int, concurrency: int, rate: str | None) -> None:
    with refusing_port() as port:
        run = run_engine(
            f"http://127.0.0.1:{port}", jobs(count), concurrency=concurrency, rate=rate, attempts=3, stop_after=0
        )
    assert run.kinds() == {"unreachable": count}
    assert Counter(run.observer.retries) == {f"j{number}": 2 for number in range(count)}
    assert {outcome.attempts for outcome in run.outcomes.values() if isinstance(outcome, NotCreated)} == {3}
    assert run.result == EngineResult("completed")


def test_jobs_whose_handshake_times_out_use_all_their_attempts() -> None:
    stalled = Stall(threading.Event(), early=True)  # a TLS handshake that never completes
    with WireServer(*[stalled] * 9) as server:
        run = run_engine(server.url.replace("http:", "https:"), jobs(3), concurrency=3, attempts=2, timeout=0.7)
    assert run.kinds() == {"unreachable": 3}


def test_an_unsent_job_is_sent_once_the_server_is_reachable() -> None:
    with (
        refusing_port() as port,
        start_engine(f"http://127.0.0.1:{port}", jobs(6), concurrency=2, attempts=1000, stop_after=0) as run,
    ):
        assert run.observer.retried.wait(TIMEOUT)
        with WireServer(port=port) as server:
            server.wait_for_requests(6)
            server.wait_for(what=lambda log: log.busy == 0)
    assert run.kinds() == {"created": 6}
    assert len(server.requests) == 6


def test_an_unreachable_server_stops_the_run_after_few_jobs() -> None:
    with refusing_port() as port:
        run = run_engine(f"http://127.0.0.1:{port}", jobs(50), concurrency=3, attempts=2, stop_after=1)
    assert run.result is not None
    assert run.result.state == "stopped"
    assert len(set(run.observer.retries)) <= 6


# Known job ids.


def test_a_repeated_job_id_in_one_batch_is_in_doubt() -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda _: Stall(gate, then=created("same-id"))) as server,
        start_engine(server.url, jobs(4)) as run,
    ):
        server.wait_for_requests(4)
        gate.set()
    assert run.kinds() == {"created": 1, "in doubt: known_id": 3}


def test_a_job_id_seen_before_is_in_doubt() -> None:
    with WireServer(choose=by_job({"j2": created("job-of-j0")})) as server:
        run = run_engine(server.url, jobs(3), concurrency=1)
    assert run.names(InDoubt) == {"j2"}
    assert run.kinds() == {"created": 2, "in doubt: known_id": 1}


# The order of writes.


def test_claims_are_durable_before_the_request_and_outcomes_before_they_are_reported() -> None:
    with WireServer() as server:
        run = run_engine(server.url, jobs(30))
    for request in server.requests:
        [claimed_at] = run.journal.times_of("claim", request.project)
        [outcome_at] = run.journal.times_of("outcome", request.project)
        assert claimed_at < request.at < outcome_at


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_at_most_twice_as_many_jobs_are_claimed_as_there_are_workers(concurrency: int) -> None:
    with WireServer() as server:
        run = run_engine(server.url, jobs(60), concurrency=concurrency)
    assert concurrency <= run.journal.most_claimed <= 2 * concurrency


def test_no_jobs_are_claimed_ahead_for_a_slow_server() -> None:
    with WireServer(choose=lambda request: Drip(b"", created(request.project).data, 0.008)) as server:
        run = run_engine(server.url, jobs(8), concurrency=2)
    assert run.journal.most_claimed == 2


@pytest.mark.parametrize("concurrency", [1, 2, 7])
def test_the_concurrency_is_reached_and_not_exceeded(concurrency: int) -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda request: Stall(gate, then=created(f"job-of-{request.project}"))) as server,
        start_engine(server.url, jobs(20), concurrency=concurrency),
    ):
        server.wait_for_requests(concurrency)
        assert len(server.requests) == concurrency
        gate.set()
    assert server.log.most_busy == concurrency


@pytest.mark.parametrize("after", [0, 1, 2])
def test_nothing_more_is_sent_once_the_journal_fails(after: int) -> None:
    with WireServer() as server:
        run = run_engine(server.url, jobs(30), concurrency=2, fail_after=after)
    assert run.result is not None
    assert (run.result.state, str(run.result.error)) == ("stopped", "the disk is full")
    assert len(server.requests) <= 2 * after * 2
    saved = {name for name, outcome in run.journal.outcomes.items() if isinstance(outcome, Created)}
    unsaved = {recorded.submission.job.name for recorded in run.result.unsaved}
    assert {request.project for request in server.created} == saved | unsaved
    assert saved & unsaved == set()


# Throttling.


@pytest.mark.parametrize("status", [425, 429])
def test_one_retry_after_pauses_all_workers_and_uses_no_attempt(status: int) -> None:
    throttled, others = threading.Event(), threading.Event()
    responses = in_order(
        Stall(throttled, then=reply(status, headers=[("Retry-After", "1")])),
        *(Stall(others, then=created(f"early-{number}")) for number in range(3)),
    )
    with WireServer(choose=responses) as server, start_engine(server.url, jobs(12), attempts=1) as run:
        server.wait_for_requests(4)
        throttled_at = time.monotonic()
        throttled.set()
        assert run.observer.paused.wait(TIMEOUT)
        others.set()
    assert run.kinds() == {"created": 12}
    assert run.observer.pauses == [1.0]
    assert min(request.at for request in server.requests[4:]) - throttled_at >= 1.0
    [retried_name] = [
        name for name, count in Counter(request.project for request in server.requests).items() if count == 2
    ]
    outcome = run.outcomes[retried_name]
    assert isinstance(outcome, Created)
    assert outcome.attempts == 1


def test_a_pause_also_delays_jobs_claimed_ahead() -> None:
    fast = [created(f"fast-{number}") for number in range(6)]  # jobs are claimed ahead for a fast server
    with WireServer(*fast, reply(429, headers=[("Retry-After", "1")])) as server:
        run = run_engine(server.url, jobs(12), concurrency=1)
    assert run.kinds() == {"created": 12}
    throttled, after = server.requests[6:8]
    assert after.at - throttled.at >= 1.0


def test_a_burst_of_throttled_responses_causes_one_pause() -> None:
    gate = threading.Event()
    with (
        WireServer(choose=in_order(*[Stall(gate, then=reply(429))] * 4)) as server,
        start_engine(server.url, jobs(4), backoff=Backoff(base=0.5)) as run,
    ):
        server.wait_for_requests(4)
        gate.set()
    assert run.kinds() == {"created": 4}
    assert len(run.observer.pauses) == 1
    assert len(server.requests) == 8


def test_repeated_throttling_lengthens_the_pause() -> None:
    with WireServer(*[reply(429, headers=[("Retry-After", "0")])] * 4) as server:
        run = run_engine(server.url, jobs(1), concurrency=1, backoff=Backoff(base=0.08))
    assert run.kinds() == {"created": 1}
    waits = [after.at - before.at for before, after in pairwise(server.requests)]
    assert [wait >= least for wait, least in zip(waits, [0.04, 0.08, 0.16, 0.32], strict=True)] == [True] * 4


@pytest.mark.parametrize("seconds", ["301", "86400", "9" * 400])
def test_a_pause_over_five_minutes_stops_the_run(seconds: str) -> None:
    with WireServer(reply(429, headers=[("Retry-After", seconds)])) as server:
        run = run_engine(server.url, jobs(5), concurrency=1)
    assert run.kinds() == {"stopped": 5}
    assert run.result is not None
    assert run.result.state == "stopped"
    assert run.result.detail == "rate limited: the server asks for a pause of more than 300 s"
    assert len(server.requests) == 1


def test_pauses_that_exceed_max_pause_in_total_stop_the_run() -> None:
    with WireServer(choose=lambda _: reply(429)) as server:
        run = run_engine(server.url, jobs(5), concurrency=1, max_pause=0.5, backoff=Backoff(base=0.2, maximum=0.2))
    assert run.kinds() == {"stopped": 5}
    assert run.result is not None
    assert run.result.detail == "rate limited: the pauses that the server asks for exceed --max-pause (0.5 s)"
    assert 3 <= len(server.requests) <= 12  # each pause is 50 to 100 % of the backoff, with one more request in flight
    assert server.created == []


# Rate limit.


@pytest.mark.parametrize("delay", [0.0, 0.4], ids=["at-once", "slow-to-connect"])
def test_the_rate_limit_holds_over_any_second_at_the_server(certificates: Certificates, delay: float) -> None:
    with WireServer(tls=certificates.good, greet=lambda line: line.pause(delay * (line.number % 2))) as server:
        run = run_engine(server.url, jobs(24), ca_bundle=certificates.bundle, concurrency=16, rate="10/s")
    assert run.kinds() == {"created": 24}
    times = [request.at for request in server.requests]
    assert max_in_window(times, 0.95) <= 10  # 5 % short of a second: the server's own thread may be late
    assert times[-1] - times[0] >= 1.9


def test_slow_responses_do_not_lower_the_rate() -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda request: Stall(gate, then=created(f"job-of-{request.project}"))) as server,
        start_engine(server.url, jobs(11), concurrency=16, rate="10/s"),
    ):
        server.wait_for_requests(11)  # the eleventh is due a second after the first, with or without a response
        gate.set()


# Repeated failures.

FAILURES = {
    "forbidden": (reply(403), NotCreated),
    "not-found": (reply(404), NotCreated),
    "in-doubt": (reply(500), InDoubt),
}


@pytest.mark.parametrize(("script", "outcome"), FAILURES.values(), ids=FAILURES)
def test_repeated_failures_of_one_kind_stop_the_run(script: Script, outcome: type[object]) -> None:
    with WireServer(choose=lambda _: script) as server:
        run = run_engine(server.url, jobs(10), concurrency=1, stop_after=3)
    assert run.result is not None
    assert (run.result.state, "3 jobs in a row " in run.result.detail) == ("stopped", True)
    assert len(server.requests) in (3, 4)  # one may have been in flight
    assert len(run.names(outcome)) == len(server.requests)
    assert run.kinds()["stopped"] == 10 - len(server.requests)


def test_an_unreachable_server_stops_the_run() -> None:
    with refusing_port() as port:
        run = run_engine(f"http://127.0.0.1:{port}", jobs(10), concurrency=1, attempts=2, stop_after=3)
    assert run.result is not None
    assert (run.result.state, "3 jobs in a row " in run.result.detail) == ("stopped", True)
    assert run.kinds()["unreachable"] >= 3


@pytest.mark.parametrize(("script", "outcome"), FAILURES.values(), ids=FAILURES)
def test_stop_after_zero_never_stops_the_run(script: Script, outcome: type[object]) -> None:
    with WireServer(choose=lambda _: script) as server:
        run = run_engine(server.url, jobs(30), stop_after=0)
    assert run.result == EngineResult("completed")
    assert len(run.names(outcome)) == 30


@pytest.mark.parametrize("between", [created("job"), reply(422), reply(500)], ids=["created", "rejected", "in-doubt"])
def test_another_outcome_resets_the_failure_count(between: Script) -> None:
    scripts = [reply(404), reply(404), between, reply(404), reply(404)]
    with WireServer(*scripts) as server:
        run = run_engine(server.url, jobs(5), concurrency=1, stop_after=3)
    assert run.result == EngineResult("completed")


STOPPING_RESPONSES = {
    "401": (reply(401), "unauthorized"),
    "302": (reply(302, headers=[("Location", "http://127.0.0.1:1/")]), "redirected"),
    "304": (Reply(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "in doubt: unexpected"),
}


@pytest.mark.parametrize(("script", "kind"), STOPPING_RESPONSES.values(), ids=STOPPING_RESPONSES)
def test_requests_in_flight_finish_when_the_run_stops(script: Script, kind: str) -> None:
    gate, others = threading.Event(), threading.Event()
    responses = in_order(
        Stall(gate, then=script), *(Stall(others, then=created(f"job-{number}")) for number in range(3))
    )
    with WireServer(choose=responses) as server, start_engine(server.url, jobs(20), stop_after=0) as run:
        server.wait_for_requests(4)
        gate.set()
        assert run.observer.stopped.wait(TIMEOUT)
        others.set()
    assert run.kinds() == {kind: 1, "created": 3, "stopped": 16}
    assert len(server.requests) == 4
    skipped = next(outcome for outcome in run.outcomes.values() if isinstance(outcome, Skipped))
    assert run.result == EngineResult("stopped", skipped.detail, "stopped")
    assert skipped.detail


def test_an_untrusted_certificate_stops_the_run(certificates: Certificates) -> None:
    with WireServer(tls=certificates.self_signed) as server:
        run = run_engine(server.url, jobs(20), ca_bundle=certificates.bundle, concurrency=2)
    assert set(run.kinds()) == {"untrusted", "stopped"}
    assert run.kinds()["untrusted"] <= 4
    assert server.requests == []


# Interrupts.


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "GRACE_PERIOD", 0.4)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_lets_requests_in_flight_finish(signum: signal.Signals) -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda request: Stall(gate, then=created(request.project))) as server,
        start_engine(server.url, jobs(20)) as run,
    ):
        server.wait_for_requests(4)
        run.engine.interrupt(signum)
        assert run.observer.stopped.wait(TIMEOUT)
        gate.set()
    assert run.kinds() == {"created": 4, "interrupted": 16}
    assert len(server.requests) == 4
    assert run.result is not None
    assert (run.result.state, run.result.signum) == ("interrupted", signum)
    assert signum.name in run.result.detail


@pytest.mark.usefixtures("short_grace")
def test_a_request_that_exceeds_the_grace_period_is_in_doubt() -> None:
    with (
        WireServer(choose=by_job({"j0": Stall(threading.Event(), then=created("late"))})) as server,
        start_engine(server.url, jobs(1)) as run,
    ):
        server.wait_for_requests(1)
        before = time.monotonic()
        run.engine.interrupt(signal.SIGINT)
    assert 0.4 <= time.monotonic() - before < 8  # not the timeout
    assert run.kinds() == {"in doubt: interrupted": 1}


def test_a_second_interrupt_ends_the_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "GRACE_PERIOD", 60.0)
    with (
        WireServer(choose=lambda _: Stall(threading.Event())) as server,
        start_engine(server.url, jobs(20)) as run,
    ):
        server.wait_for_requests(4)
        before = time.monotonic()
        run.engine.interrupt(signal.SIGTERM)
        run.engine.interrupt(signal.SIGINT)
    assert time.monotonic() - before < engine.GRACE_PERIOD / 2
    assert run.kinds() == {"in doubt: interrupted": 4, "interrupted": 16}
    assert run.result is not None
    assert run.result.signum == signal.SIGTERM


@pytest.mark.usefixtures("short_grace")
def test_an_interrupted_handshake_leaves_no_job_in_doubt() -> None:
    stalled = Stall(threading.Event(), early=True)
    with (
        WireServer(*[stalled] * 4) as server,
        start_engine(server.url.replace("http:", "https:"), jobs(6), concurrency=4) as run,
    ):
        server.wait_for(what=lambda log: log.connections == 4)
        run.engine.interrupt(signal.SIGINT)
    assert run.kinds() == {"interrupted": 6}
    assert server.requests == []


def test_an_interrupt_ends_a_pause_and_a_backoff() -> None:
    with (
        WireServer(reply(429, headers=[("Retry-After", "200")])) as server,
        start_engine(server.url, jobs(3), concurrency=1) as run,
    ):
        assert run.observer.paused.wait(TIMEOUT)
        run.engine.interrupt(signal.SIGINT)
    assert run.kinds() == {"interrupted": 3}
    with refusing_port() as port, start_engine(f"http://127.0.0.1:{port}", jobs(1), backoff=Backoff(base=200)) as run:
        assert run.observer.retried.wait(TIMEOUT)
        run.engine.interrupt(signal.SIGINT)
    assert run.kinds() == {"unreachable": 1}


def test_a_run_that_is_stopping_can_be_interrupted() -> None:
    gate = threading.Event()
    responses = in_order(Stall(gate, then=reply(401)), Stall(threading.Event()))
    with WireServer(choose=responses) as server, start_engine(server.url, jobs(5), concurrency=2) as run:
        server.wait_for_requests(2)
        gate.set()
        assert run.observer.stopped.wait(TIMEOUT)
        run.engine.interrupt(signal.SIGINT)
        run.engine.interrupt(signal.SIGINT)
    assert run.kinds() == {"unauthorized": 1, "in doubt: interrupted": 1, "interrupted": 3}
    assert run.result is not None
    assert run.result.state == "interrupted"


def test_a_run_interrupted_before_it_starts_sends_nothing() -> None:
    with WireServer() as server, ApiClient(Endpoint(server.url, ApiKey("key")), 2) as api:
        journal = RecordingJournal()
        observer = RecordingObserver(journal)
        engine = Engine(jobs(8), api, journal, Limits(concurrency=2), observer)
        engine.interrupt(signal.SIGINT)
        assert engine.run().state == "interrupted"
    assert server.requests == []
    assert {type(outcome) for outcome in observer.outcomes.values()} == {Skipped}


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_run_continues_with_the_threads_that_the_system_allows(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """As under `ulimit -u`. Without a single thread the run is stopped."""
    remaining, start = [allowed], threading.Thread.start

    def start_if_allowed(thread: threading.Thread) -> None:
        if thread.name.startswith("send-"):
            if not remaining[0]:
                raise RuntimeError("can't start new thread")
            remaining[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)
    with WireServer() as server:
        run = run_engine(server.url, jobs(6), concurrency=4)
        assert len(server.requests) == (6 if allowed else 0)
    assert run.result is not None
    assert run.kinds() == ({"created": 6} if allowed else {"stopped": 6})
    assert run.journal.most_claimed <= 2 * allowed
    assert run.result.state == ("completed" if allowed else "stopped")
    assert allowed or "another thread" in run.result.detail


def test_a_stuck_worker_is_abandoned_and_sends_nothing() -> None:
    entered, resume, returned = threading.Event(), threading.Event(), threading.Event()

    class StuckSender:
        """A client whose host name takes long to resolve, which nothing can abort."""

        def __init__(self, api: ApiClient) -> None:
            self._api = api
            self.bearer = False

        def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
            entered.set()
            resume.wait()
            try:
                return self._api.create_job(workflow_id, project_id, exchange)
            finally:
                returned.set()

    with WireServer() as server, ApiClient(Endpoint(server.url, ApiKey("key")), 1) as api:
        journal = RecordingJournal()
        observer = RecordingObserver(journal)
        engine = Engine(jobs(1), StuckSender(api), journal, Limits(concurrency=1), observer)
        thread = threading.Thread(target=engine.run)
        thread.start()
        assert entered.wait(TIMEOUT)
        engine.interrupt(signal.SIGINT)
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        resume.set()
        assert returned.wait(TIMEOUT)
    assert {name: _kind(outcome) for name, outcome in observer.outcomes.items()} == {"j0": "interrupted"}
    assert server.requests == []


# Arbitrary responses in any order.

RESPONSES: Mapping[str, Script] = {
    "created": created("?"),
    **{name: script for name, script in AMBIGUOUS_RESPONSES.items() if name != "drip"},
    "429": reply(429, headers=[("Retry-After", "0")]),
    "425": reply(425),
    "403": reply(403),
    "404": reply(404),
    "422": reply(422),
    "429-half": Truncated(b"HTTP/1.1 429 Slow\r\nContent-Length: 9\r\n\r\n{"),
    "same-id": created("same"),
}


@settings(max_examples=25)
@given(
    plan=st.lists(st.lists(st.sampled_from(sorted(RESPONSES)), min_size=1, max_size=3), min_size=1, max_size=12),
    concurrency=st.integers(1, 5),
)
def test_no_job_is_created_twice_or_lost(plan: list[list[str]], concurrency: int) -> None:
    remaining = {f"j{number}": list(steps) for number, steps in enumerate(plan)}

    def choose(request: Request) -> Script:
        step = remaining[request.project].pop(0) if remaining[request.project] else "created"
        return created(f"job-of-{request.project}") if step == "created" else RESPONSES[step]

    with WireServer(choose=choose) as server:
        run = run_engine(
            server.url,
            jobs(len(plan)),
            concurrency=concurrency,
            stop_after=0,
            backoff=Backoff(base=0.001, maximum=0.002),
        )
    created_counts = Counter(request.project for request in server.created)
    assert set(created_counts) <= run.names(Created) | run.names(InDoubt)
    assert run.names(Created) <= set(created_counts)
    assert max(created_counts.values(), default=0) <= 1
    for name, steps in ((f"j{number}", steps) for number, steps in enumerate(plan)):
        request_count = sum(request.project == name for request in server.requests)
        final_steps = [at for at, step in enumerate(steps) if step not in {"425", "429"}]
        assert request_count == (final_steps[0] + 1 if final_steps else len(steps) + 1)


class RacingJournal(RecordingJournal):
    """A journal in which another manifest's run takes a job id between `ids_in_use` and `commit`."""

    def __init__(self, taken: str) -> None:
        super().__init__()
        self.taken = taken

    def commit(
        self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> None:
        ids = {recorded.outcome.job_id for recorded in outcomes if isinstance(recorded.outcome, Created)}
        if self.taken in ids:
            raise JobIdTakenError({self.taken})
        super().commit(outcomes, released, claims)


def test_a_job_id_that_another_run_saved_first_is_in_doubt() -> None:
    journal = RacingJournal("job-1")
    observer = RecordingObserver(journal)
    with WireServer(choose=in_order(*(created(f"job-{number}") for number in range(4)))) as server:
        with ApiClient(Endpoint(server.url, ApiKey("key")), 2) as api:
            result = Engine(jobs(4), api, journal, Limits(concurrency=2), observer).run()
        assert len(server.created) == 4
    assert result == EngineResult("completed")
    kinds = Counter(type(outcome).__name__ for outcome in journal.outcomes.values())
    assert kinds == {"Created": 3, "InDoubt": 1}
    [in_doubt] = [outcome for outcome in journal.outcomes.values() if isinstance(outcome, InDoubt)]
    assert in_doubt.error.kind == "known_id"
