"""The engine over real sockets: what it sends, when, how often, and what it keeps of it."""

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


class Book:
    """A journal that notes each call, and fails the run when the engine breaks a rule."""

    def __init__(self, full_after: int | None = None) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.calls: list[tuple[str, str, float]] = []  # what, the job's name, and when it was durable
        self.claimed: set[str] = set()
        self.most_claimed = 0
        self.owners: set[int] = set()
        self.full_after = full_after  # so many commits

    def commit(
        self, decided: Sequence[RecordedOutcome], released: Sequence[Submission], claimed: Sequence[Claim]
    ) -> None:
        if self.full_after is not None:
            if self.full_after == 0:
                raise RefusedError("the disk is full")
            self.full_after -= 1
        self.owners.add(threading.get_ident())
        for one in decided:
            self._decide(one.submission.job.name, one.outcome)
        for submission in released:
            self.claimed.remove(submission.job.name)
        for claim in claimed:
            self._claim(claim.submission.job.name)
        self.most_claimed = max(self.most_claimed, len(self.claimed))
        self._note("decide", [one.submission for one in decided])
        self._note("claim", [claim.submission for claim in claimed])

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:
        taken = {one.job_id for one in self.outcomes.values() if isinstance(one, Created)}
        return taken & set(job_ids)

    def _decide(self, name: str, outcome: Outcome) -> None:
        assert name in self.claimed, f"{name} was sent without a claim"
        self.claimed.remove(name)
        self.outcomes[name] = outcome

    def _claim(self, name: str) -> None:
        assert name not in self.claimed, f"{name} is claimed twice"
        before = self.outcomes.get(name)
        assert before is None or isinstance(before, NotCreated), f"{name} may exist already"
        self.claimed.add(name)

    def _note(self, what: str, submissions: Iterable[Submission]) -> None:
        at = time.monotonic()
        self.calls += [(what, submission.job.name, at) for submission in submissions]

    def times(self, what: str, name: str) -> list[float]:
        return [at for call, job, at in self.calls if (call, job) == (what, name)]


@dataclass
class Told:
    """An observer that keeps what it is told, and whether that was on record by then."""

    journal: Book
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    too_early: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    paused: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    retried: threading.Event = field(default_factory=threading.Event)

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        name = submission.job.name
        if name in self.outcomes:
            self.twice.append(name)
        if not isinstance(outcome, Skipped) and self.journal.outcomes.get(name) is not outcome:
            self.too_early.append(name)
        self.outcomes[name] = outcome

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        self.retries.append(submission.job.name)
        self.retried.set()

    def pausing(self, error: ErrorInfo, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        self.pauses.append(seconds)
        self.paused.set()

    def stopping(self, why: str) -> None:  # noqa: ARG002 - the protocol's
        self.stopped.set()


@dataclass
class Sent:
    """A run that has ended, or that is on its way while `running`."""

    engine: Engine
    journal: Book
    told: Told
    end: EngineResult | None = None

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        return self.told.outcomes

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
def running(
    url: str, submissions: Sequence[Submission], *, ca_bundle: str | None = None, backoff: Backoff = FAST, **limits: Any
) -> Iterator[Sent]:
    """A run in a thread of its own; it has ended when the block is left."""
    within = limits.pop("within", TIMEOUT)
    journal = Book(limits.pop("full_after", None))
    settled = Limits(**{"concurrency": 4, "timeout": 10.0, **limits})
    told = Told(journal)
    with ApiClient(Endpoint(url, ApiKey("key"), ca_bundle), settled.concurrency) as api:
        sent = Sent(Engine(submissions, api, journal, settled, told, backoff=backoff), journal, told)
        failures: list[BaseException] = []

        def run() -> None:
            try:
                sent.end = sent.engine.run()
            except BaseException as error:  # noqa: BLE001 - it belongs to the test's thread
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield sent
            thread.join(within)
            hung = thread.is_alive()
        finally:
            while thread.is_alive():  # a test that failed must not wait for the run
                sent.engine.interrupt(signal.SIGTERM)
                thread.join(0.1)
    assert not failures, failures
    assert not hung, "the run did not end"
    _check_rules(sent, submissions)


def _check_rules(sent: Sent, submissions: Sequence[Submission]) -> None:
    """What holds of every run, however it went."""
    names = [submission.job.name for submission in submissions]
    unrecorded = [one.submission.job.name for one in sent.end.unsaved] if sent.end else []
    assert sorted([*sent.outcomes, *unrecorded]) == sorted(names)
    assert sent.told.twice == sent.told.too_early == []
    if sent.journal.full_after is None:
        assert sent.journal.claimed == set()
    assert len(sent.journal.owners) <= 1


def run(url: str, submissions: Sequence[Submission], **limits: Any) -> Sent:
    with running(url, submissions, **limits) as sent:
        pass
    return sent


def by_job(scripts: Mapping[str, Script]) -> Callable[[Request], Script]:
    """The script of each job by its name; a job is made for the others."""
    return lambda request: scripts.get(request.project) or created(f"job-of-{request.project}")


def in_turn(*scripts: Script) -> Callable[[Request], Script]:
    """A script for each request of the whole server, in the order of their coming; then jobs are made."""
    left = list(scripts)
    return lambda request: left.pop(0) if left else created(f"job-of-{request.project}")


def most_in_a_window(times: Sequence[float], seconds: float) -> int:
    return max(sum(start <= time < start + seconds for time in times) for start in times)


# Once each.


def test_each_job_is_sent_once_and_kept() -> None:
    with WireServer() as server:
        sent = run(server.url, jobs(40))
    assert sent.end == EngineResult("completed")
    assert Counter(request.project for request in server.requests) == Counter({f"j{number}": 1 for number in range(40)})
    outcome = sent.outcomes["j7"]
    assert isinstance(outcome, Created)
    assert (outcome.job_id, outcome.attempts) == ("job-of-j7", 1)


def test_nothing_to_do() -> None:
    with WireServer() as server:
        assert run(server.url, []).end == EngineResult("completed")
    assert server.log.connections == 0


MAY_EXIST: dict[str, Script] = {
    "reset": Reset(creates=True),
    "close": Close(creates=True),
    "half": Truncated(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", creates=True),
    "garbage": Reply(b"what?\r\n", creates=True),
    "drip": Drip(b"HTTP/1.1 200 OK\r\n", b"X" * 99, 0.1, creates=True),
    "408": reply(408, creates=True),
    "409": reply(409, creates=True),
    "500": reply(500, creates=True),
    "503-retry-after": reply(503, headers=[("Retry-After", "0")], creates=True),
    "200-no-id": reply(200, b"{}", creates=True),
}


@pytest.mark.parametrize("script", MAY_EXIST.values(), ids=MAY_EXIST)
def test_a_job_that_may_exist_is_never_sent_again(script: Script) -> None:
    with WireServer(choose=by_job({"j1": script})) as server:
        sent = run(server.url, jobs(3), attempts=5, timeout=0.5)
    assert sent.names(InDoubt) == {"j1"}
    assert sent.names(Created) == {"j0", "j2"}
    assert Counter(request.project for request in server.requests) == {"j0": 1, "j1": 1, "j2": 1}
    assert sent.end == EngineResult("completed")


@pytest.mark.parametrize(
    ("count", "concurrency", "rate"),
    [(1, 1, None), (1, 1, "100/s"), (4, 4, "100/s"), (1, 8, None), (9, 2, None), (40, 4, None)],
)
def test_jobs_that_cannot_be_sent_are_tried_as_often_as_told(count: int, concurrency: int, rate: str | None) -> None:
    with refusing_port() as port:
        sent = run(
            f"http://127.0.0.1:{port}", jobs(count), concurrency=concurrency, rate=rate, attempts=3, stop_after=0
        )
    assert sent.kinds() == {"unreachable": count}
    assert Counter(sent.told.retries) == {f"j{number}": 2 for number in range(count)}
    assert {outcome.attempts for outcome in sent.outcomes.values() if isinstance(outcome, NotCreated)} == {3}
    assert sent.end == EngineResult("completed")


def test_jobs_that_take_long_to_be_refused_are_tried_as_often_as_told() -> None:
    hold = Stall(threading.Event(), early=True)  # a TLS handshake that never comes
    with WireServer(*[hold] * 9) as server:
        sent = run(server.url.replace("http:", "https:"), jobs(3), concurrency=3, attempts=2, timeout=0.7)
    assert sent.kinds() == {"unreachable": 3}


def test_a_job_that_was_certainly_not_sent_is_sent_when_that_is_possible() -> None:
    with (
        refusing_port() as port,
        running(f"http://127.0.0.1:{port}", jobs(6), concurrency=2, attempts=1000, stop_after=0) as sent,
    ):
        assert sent.told.retried.wait(TIMEOUT)
        with WireServer(port=port) as server:
            server.wait_for_requests(6)
            server.wait_for(what=lambda log: log.busy == 0)
    assert sent.kinds() == {"created": 6}
    assert len(server.requests) == 6


def test_while_it_is_unreachable_only_as_many_jobs_are_tried_as_there_are_workers() -> None:
    with refusing_port() as port:
        sent = run(f"http://127.0.0.1:{port}", jobs(50), concurrency=3, attempts=2, stop_after=1)
    assert sent.end is not None
    assert sent.end.state == "stopped"
    assert len(set(sent.told.retries)) <= 6


# Ids that are known.


def test_the_same_id_twice_in_one_batch_is_one_created_and_one_in_doubt() -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda _: Stall(gate, then=created("the-same"))) as server,
        running(server.url, jobs(4)) as sent,
    ):
        server.wait_for_requests(4)
        gate.set()
    assert sent.kinds() == {"created": 1, "in doubt: known_id": 3}


def test_an_id_that_was_seen_before_is_in_doubt() -> None:
    with WireServer(choose=by_job({"j2": created("job-of-j0")})) as server:
        sent = run(server.url, jobs(3), concurrency=1)
    assert sent.names(InDoubt) == {"j2"}
    assert sent.kinds() == {"created": 2, "in doubt: known_id": 1}


# The order of the record.


def test_a_claim_is_durable_before_the_request_comes_and_an_outcome_before_it_is_told() -> None:
    with WireServer() as server:
        sent = run(server.url, jobs(30))
    for request in server.requests:
        [claimed] = sent.journal.times("claim", request.project)
        [decided] = sent.journal.times("decide", request.project)
        assert claimed < request.at < decided


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_no_more_is_claimed_than_twice_the_workers(concurrency: int) -> None:
    with WireServer() as server:
        sent = run(server.url, jobs(60), concurrency=concurrency)
    assert concurrency <= sent.journal.most_claimed <= 2 * concurrency


def test_a_slow_server_gets_no_claims_ahead() -> None:
    with WireServer(choose=lambda request: Drip(b"", created(request.project).data, 0.008)) as server:
        sent = run(server.url, jobs(8), concurrency=2)
    assert sent.journal.most_claimed == 2


@pytest.mark.parametrize("concurrency", [1, 2, 7])
def test_the_concurrency_is_reached_and_not_exceeded(concurrency: int) -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda request: Stall(gate, then=created(f"job-of-{request.project}"))) as server,
        running(server.url, jobs(20), concurrency=concurrency),
    ):
        server.wait_for_requests(concurrency)
        assert len(server.requests) == concurrency
        gate.set()
    assert server.log.most_busy == concurrency


@pytest.mark.parametrize("after", [0, 1, 2])
def test_without_a_record_nothing_more_is_sent(after: int) -> None:
    with WireServer() as server:
        sent = run(server.url, jobs(30), concurrency=2, full_after=after)
    assert sent.end is not None
    assert (sent.end.state, str(sent.end.error)) == ("stopped", "the disk is full")
    assert len(server.requests) <= 2 * after * 2
    kept = {name for name, outcome in sent.journal.outcomes.items() if isinstance(outcome, Created)}
    unrecorded = {one.submission.job.name for one in sent.end.unsaved}
    assert {request.project for request in server.created} == kept | unrecorded
    assert kept & unrecorded == set()


# Throttling.


@pytest.mark.parametrize("status", [425, 429])
def test_one_retry_after_pauses_all_and_uses_no_attempt(status: int) -> None:
    throttled, others = threading.Event(), threading.Event()
    answers = in_turn(
        Stall(throttled, then=reply(status, headers=[("Retry-After", "1")])),
        *(Stall(others, then=created(f"early-{number}")) for number in range(3)),
    )
    with WireServer(choose=answers) as server, running(server.url, jobs(12), attempts=1) as sent:
        server.wait_for_requests(4)
        said = time.monotonic()
        throttled.set()
        assert sent.told.paused.wait(TIMEOUT)
        others.set()
    assert sent.kinds() == {"created": 12}
    assert sent.told.pauses == [1.0]
    assert min(request.at for request in server.requests[4:]) - said >= 1.0
    [twice] = [name for name, count in Counter(request.project for request in server.requests).items() if count == 2]
    outcome = sent.outcomes[twice]
    assert isinstance(outcome, Created)
    assert outcome.attempts == 1


def test_a_pause_holds_for_what_was_claimed_ahead_too() -> None:
    quick = [created(f"quick-{number}") for number in range(6)]  # such a server gets claims ahead
    with WireServer(*quick, reply(429, headers=[("Retry-After", "1")])) as server:
        sent = run(server.url, jobs(12), concurrency=1)
    assert sent.kinds() == {"created": 12}
    throttled, after = server.requests[6:8]
    assert after.at - throttled.at >= 1.0


def test_a_burst_of_throttling_is_one_pause() -> None:
    gate = threading.Event()
    with (
        WireServer(choose=in_turn(*[Stall(gate, then=reply(429))] * 4)) as server,
        running(server.url, jobs(4), backoff=Backoff(base=0.5)) as sent,
    ):
        server.wait_for_requests(4)
        gate.set()
    assert sent.kinds() == {"created": 4}
    assert len(sent.told.pauses) == 1
    assert len(server.requests) == 8


def test_throttling_again_and_again_waits_longer_each_time() -> None:
    with WireServer(*[reply(429, headers=[("Retry-After", "0")])] * 4) as server:
        sent = run(server.url, jobs(1), concurrency=1, backoff=Backoff(base=0.08))
    assert sent.kinds() == {"created": 1}
    waits = [after.at - before.at for before, after in pairwise(server.requests)]
    assert [wait >= least for wait, least in zip(waits, [0.04, 0.08, 0.16, 0.32], strict=True)] == [True] * 4


@pytest.mark.parametrize("seconds", ["301", "86400", "9" * 400])
def test_a_pause_over_five_minutes_stops_the_run(seconds: str) -> None:
    with WireServer(reply(429, headers=[("Retry-After", seconds)])) as server:
        sent = run(server.url, jobs(5), concurrency=1)
    assert sent.kinds() == {"stopped": 5}
    assert sent.end is not None
    assert (sent.end.state, "throttled" in sent.end.detail) == ("stopped", True)
    assert len(server.requests) == 1


def test_pauses_that_add_up_to_more_than_max_pause_stop_the_run() -> None:
    with WireServer(choose=lambda _: reply(429)) as server:
        sent = run(server.url, jobs(5), concurrency=1, max_pause=0.5, backoff=Backoff(base=0.2, maximum=0.2))
    assert sent.kinds() == {"stopped": 5}
    assert 3 <= len(server.requests) <= 12  # from half a pause to a whole one, and one more on its way each time
    assert server.created == []


# The rate.


@pytest.mark.parametrize("delay", [0.0, 0.4], ids=["at-once", "slow-to-connect"])
def test_the_rate_holds_over_any_second_at_the_server(certificates: Certificates, delay: float) -> None:
    with WireServer(tls=certificates.good, greet=lambda line: line.pause(delay * (line.number % 2))) as server:
        sent = run(server.url, jobs(24), ca_bundle=certificates.bundle, concurrency=16, rate="10/s")
    assert sent.kinds() == {"created": 24}
    times = [request.at for request in server.requests]
    assert most_in_a_window(times, 0.95) <= 10  # a twentieth less than the second: the server's own thread may be late
    assert times[-1] - times[0] >= 1.9


def test_the_rate_is_reached_though_the_answers_take_long() -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda request: Stall(gate, then=created(f"job-of-{request.project}"))) as server,
        running(server.url, jobs(11), concurrency=16, rate="10/s"),
    ):
        server.wait_for_requests(11)  # the eleventh is due a second after the first has left, answered or not
        gate.set()


# Trouble.

TROUBLE = {
    "forbidden": (reply(403), NotCreated),
    "not-found": (reply(404), NotCreated),
    "in-doubt": (reply(500), InDoubt),
}


@pytest.mark.parametrize(("script", "outcome"), TROUBLE.values(), ids=TROUBLE)
def test_the_same_trouble_in_a_row_stops_the_run(script: Script, outcome: type[object]) -> None:
    with WireServer(choose=lambda _: script) as server:
        sent = run(server.url, jobs(10), concurrency=1, stop_after=3)
    assert sent.end is not None
    assert (sent.end.state, "3 times in a row" in sent.end.detail) == ("stopped", True)
    assert len(server.requests) in (3, 4)  # one may have been on its way
    assert len(sent.names(outcome)) == len(server.requests)
    assert sent.kinds()["stopped"] == 10 - len(server.requests)


def test_being_unreachable_in_a_row_stops_the_run() -> None:
    with refusing_port() as port:
        sent = run(f"http://127.0.0.1:{port}", jobs(10), concurrency=1, attempts=2, stop_after=3)
    assert sent.end is not None
    assert (sent.end.state, "3 times in a row" in sent.end.detail) == ("stopped", True)
    assert sent.kinds()["unreachable"] >= 3


@pytest.mark.parametrize(("script", "outcome"), TROUBLE.values(), ids=TROUBLE)
def test_zero_never_stops_the_run(script: Script, outcome: type[object]) -> None:
    with WireServer(choose=lambda _: script) as server:
        sent = run(server.url, jobs(30), stop_after=0)
    assert sent.end == EngineResult("completed")
    assert len(sent.names(outcome)) == 30


@pytest.mark.parametrize("between", [created("job"), reply(422), reply(500)], ids=["created", "rejected", "in-doubt"])
def test_another_outcome_in_between_resets_the_count(between: Script) -> None:
    scripts = [reply(404), reply(404), between, reply(404), reply(404)]
    with WireServer(*scripts) as server:
        sent = run(server.url, jobs(5), concurrency=1, stop_after=3)
    assert sent.end == EngineResult("completed")


STOPS = {
    "401": (reply(401), "unauthorized"),
    "302": (reply(302, headers=[("Location", "http://127.0.0.1:1/")]), "redirected"),
    "304": (Reply(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "in doubt: unexpected"),
}


@pytest.mark.parametrize(("script", "kind"), STOPS.values(), ids=STOPS)
def test_what_is_in_flight_finishes_when_the_run_stops(script: Script, kind: str) -> None:
    gate, others = threading.Event(), threading.Event()
    answers = in_turn(Stall(gate, then=script), *(Stall(others, then=created(f"job-{number}")) for number in range(3)))
    with WireServer(choose=answers) as server, running(server.url, jobs(20), stop_after=0) as sent:
        server.wait_for_requests(4)
        gate.set()
        assert sent.told.stopped.wait(TIMEOUT)
        others.set()
    assert sent.kinds() == {kind: 1, "created": 3, "stopped": 16}
    assert len(server.requests) == 4
    skipped = next(outcome for outcome in sent.outcomes.values() if isinstance(outcome, Skipped))
    assert sent.end == EngineResult("stopped", skipped.detail, "stopped")
    assert skipped.detail


def test_a_certificate_that_is_not_trusted_stops_the_run(certificates: Certificates) -> None:
    with WireServer(tls=certificates.self_signed) as server:
        sent = run(server.url, jobs(20), ca_bundle=certificates.bundle, concurrency=2)
    assert set(sent.kinds()) == {"untrusted", "stopped"}
    assert sent.kinds()["untrusted"] <= 4
    assert server.requests == []


# Interrupted.


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "GRACE_PERIOD", 0.4)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_lets_what_is_in_flight_finish(signum: signal.Signals) -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda request: Stall(gate, then=created(request.project))) as server,
        running(server.url, jobs(20)) as sent,
    ):
        server.wait_for_requests(4)
        sent.engine.interrupt(signum)
        assert sent.told.stopped.wait(TIMEOUT)
        gate.set()
    assert sent.kinds() == {"created": 4, "interrupted": 16}
    assert len(server.requests) == 4
    assert sent.end is not None
    assert (sent.end.state, sent.end.signum) == ("interrupted", signum)
    assert signum.name in sent.end.detail


@pytest.mark.usefixtures("short_grace")
def test_what_does_not_finish_within_the_grace_is_in_doubt() -> None:
    with (
        WireServer(choose=by_job({"j0": Stall(threading.Event(), then=created("late"))})) as server,
        running(server.url, jobs(1)) as sent,
    ):
        server.wait_for_requests(1)
        before = time.monotonic()
        sent.engine.interrupt(signal.SIGINT)
    assert 0.4 <= time.monotonic() - before < 8  # and not the timeout
    assert sent.kinds() == {"in doubt: interrupted": 1}


def test_a_second_interrupt_ends_the_grace_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "GRACE_PERIOD", 60.0)
    with (
        WireServer(choose=lambda _: Stall(threading.Event())) as server,
        running(server.url, jobs(20)) as sent,
    ):
        server.wait_for_requests(4)
        before = time.monotonic()
        sent.engine.interrupt(signal.SIGTERM)
        sent.engine.interrupt(signal.SIGINT)
    assert time.monotonic() - before < engine.GRACE_PERIOD / 2
    assert sent.kinds() == {"in doubt: interrupted": 4, "interrupted": 16}
    assert sent.end is not None
    assert sent.end.signum == signal.SIGTERM


@pytest.mark.usefixtures("short_grace")
def test_an_interrupted_handshake_is_no_doubt() -> None:
    hold = Stall(threading.Event(), early=True)
    with (
        WireServer(*[hold] * 4) as server,
        running(server.url.replace("http:", "https:"), jobs(6), concurrency=4) as sent,
    ):
        server.wait_for(what=lambda log: log.connections == 4)
        sent.engine.interrupt(signal.SIGINT)
    assert sent.kinds() == {"interrupted": 6}
    assert server.requests == []


def test_an_interrupt_ends_a_pause_and_a_backoff() -> None:
    with (
        WireServer(reply(429, headers=[("Retry-After", "200")])) as server,
        running(server.url, jobs(3), concurrency=1) as sent,
    ):
        assert sent.told.paused.wait(TIMEOUT)
        sent.engine.interrupt(signal.SIGINT)
    assert sent.kinds() == {"interrupted": 3}
    with refusing_port() as port, running(f"http://127.0.0.1:{port}", jobs(1), backoff=Backoff(base=200)) as sent:
        assert sent.told.retried.wait(TIMEOUT)
        sent.engine.interrupt(signal.SIGINT)
    assert sent.kinds() == {"unreachable": 1}


def test_an_interrupt_while_the_run_is_stopping_ends_it_too() -> None:
    gate = threading.Event()
    answers = in_turn(Stall(gate, then=reply(401)), Stall(threading.Event()))
    with WireServer(choose=answers) as server, running(server.url, jobs(5), concurrency=2) as sent:
        server.wait_for_requests(2)
        gate.set()
        assert sent.told.stopped.wait(TIMEOUT)
        sent.engine.interrupt(signal.SIGINT)
        sent.engine.interrupt(signal.SIGINT)
    assert sent.kinds() == {"unauthorized": 1, "in doubt: interrupted": 1, "interrupted": 3}
    assert sent.end is not None
    assert sent.end.state == "interrupted"


def test_a_run_that_is_interrupted_before_it_begins_sends_nothing() -> None:
    with WireServer() as server, ApiClient(Endpoint(server.url, ApiKey("key")), 2) as api:
        journal = Book()
        told = Told(journal)
        engine = Engine(jobs(8), api, journal, Limits(concurrency=2), told)
        engine.interrupt(signal.SIGINT)
        assert engine.run().state == "interrupted"
    assert server.requests == []
    assert {type(outcome) for outcome in told.outcomes.values()} == {Skipped}


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_run_goes_on_with_the_threads_that_the_system_allows(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """A limit such as `ulimit -u` has; without a single thread it ends as a run that was stopped."""
    left, start = [allowed], threading.Thread.start

    def start_if_allowed(thread: threading.Thread) -> None:
        if thread.name.startswith("send-"):
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)
    with WireServer() as server:
        sent = run(server.url, jobs(6), concurrency=4)
        assert len(server.requests) == (6 if allowed else 0)
    assert sent.end is not None
    assert sent.kinds() == ({"created": 6} if allowed else {"stopped": 6})
    assert sent.journal.most_claimed <= 2 * allowed
    assert sent.end.state == ("completed" if allowed else "stopped")
    assert allowed or "another thread" in sent.end.detail


def test_a_worker_that_is_stuck_is_left_behind_and_writes_nothing_any_more() -> None:
    stuck, free, came_back = threading.Event(), threading.Event(), threading.Event()

    class Stuck:
        """An API whose name is being resolved for long: nothing can cut that short."""

        def __init__(self, api: ApiClient) -> None:
            self._api = api
            self.bearer = False

        def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
            stuck.set()
            free.wait()
            try:
                return self._api.create_job(workflow_id, project_id, exchange)
            finally:
                came_back.set()

    with WireServer() as server, ApiClient(Endpoint(server.url, ApiKey("key")), 1) as api:
        journal = Book()
        told = Told(journal)
        engine = Engine(jobs(1), Stuck(api), journal, Limits(concurrency=1), told)
        thread = threading.Thread(target=engine.run)
        thread.start()
        assert stuck.wait(TIMEOUT)
        engine.interrupt(signal.SIGINT)
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        free.set()
        assert came_back.wait(TIMEOUT)
    assert {name: _kind(outcome) for name, outcome in told.outcomes.items()} == {"j0": "interrupted"}
    assert server.requests == []


# Anything, in any order.

ANYTHING: Mapping[str, Script] = {
    "created": created("?"),
    **{name: script for name, script in MAY_EXIST.items() if name != "drip"},
    "429": reply(429, headers=[("Retry-After", "0")]),
    "425": reply(425),
    "403": reply(403),
    "404": reply(404),
    "422": reply(422),
    "429-half": Truncated(b"HTTP/1.1 429 Slow\r\nContent-Length: 9\r\n\r\n{"),
    "same-id": created("same"),
}
NOT_CREATED = {"429", "425", "403", "404", "422", "429-half"}


@settings(max_examples=25)
@given(
    plan=st.lists(st.lists(st.sampled_from(sorted(ANYTHING)), min_size=1, max_size=3), min_size=1, max_size=12),
    concurrency=st.integers(1, 5),
)
def test_no_job_is_created_twice_and_none_is_forgotten(plan: list[list[str]], concurrency: int) -> None:
    left = {f"j{number}": list(steps) for number, steps in enumerate(plan)}

    def choose(request: Request) -> Script:
        step = left[request.project].pop(0) if left[request.project] else "created"
        return created(f"job-of-{request.project}") if step == "created" else ANYTHING[step]

    with WireServer(choose=choose) as server:
        sent = run(
            server.url,
            jobs(len(plan)),
            concurrency=concurrency,
            stop_after=0,
            backoff=Backoff(base=0.001, maximum=0.002),
        )
    made = Counter(request.project for request in server.created)
    assert set(made) <= sent.names(Created) | sent.names(InDoubt)
    assert sent.names(Created) <= set(made)
    assert max(made.values(), default=0) <= 1
    for name, steps in ((f"j{number}", steps) for number, steps in enumerate(plan)):
        sends = sum(request.project == name for request in server.requests)
        may_exist = [at for at, step in enumerate(steps) if step not in {"425", "429"}]
        assert sends == (may_exist[0] + 1 if may_exist else len(steps) + 1)


class Quicker(Book):
    """A journal in which another manifest's run takes an id between the question and the commit."""

    def __init__(self, taken: str) -> None:
        super().__init__()
        self.taken = taken

    def commit(
        self, decided: Sequence[RecordedOutcome], released: Sequence[Submission], claimed: Sequence[Claim]
    ) -> None:
        ids = {one.outcome.job_id for one in decided if isinstance(one.outcome, Created)}
        if self.taken in ids:
            raise JobIdTakenError({self.taken})
        super().commit(decided, released, claimed)


def test_an_id_that_another_run_was_quicker_to_keep_is_doubt_and_the_rest_goes_on() -> None:
    journal = Quicker("job-1")
    told = Told(journal)
    with WireServer(choose=in_turn(*(created(f"job-{number}") for number in range(4)))) as server:
        with ApiClient(Endpoint(server.url, ApiKey("key")), 2) as api:
            end = Engine(jobs(4), api, journal, Limits(concurrency=2), told).run()
        assert len(server.created) == 4
    assert end == EngineResult("completed")
    kinds = Counter(type(outcome).__name__ for outcome in journal.outcomes.values())
    assert kinds == {"Created": 3, "InDoubt": 1}
    [doubt] = [one for one in journal.outcomes.values() if isinstance(one, InDoubt)]
    assert doubt.error.kind == "known_id"
