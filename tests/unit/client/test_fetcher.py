"""Calls over real sockets: how many at once, how often each, and how long a failing API is waited for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any, ClassVar

import pytest
from support.certs import Certificates
from support.wire import (
    TIMEOUT,
    Connection,
    Drip,
    Request,
    Reset,
    Script,
    Stall,
    WireServer,
    refusing_port,
    reply,
    silent_port,
)

from runner.client.api import ReadOnlyClient
from runner.client.endpoint import ApiKey, Endpoint
from runner.client.exchange import Exchange
from runner.client.fetcher import ApiCall, Fetcher
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.backoff import Backoff
from runner.core.errors import ThreadLimitError
from runner.core.rate_limit import Rate, RateLimiter
from runner.core.settings import Limits

FAST = Backoff(base=0.02, maximum=0.1)
SLACK = 5.0  # seconds that a busy machine may be late


@dataclass
class Setup:
    """A fetcher and its API. `calls` are the names of the calls made; `tried` is set after some of them."""

    reader: ReadOnlyClient
    fetcher: Fetcher
    calls: list[str] = field(default_factory=list)
    tried: threading.Event = field(default_factory=threading.Event)

    def call(self, name: str) -> ApiCall:
        def put(exchange: Exchange) -> ExchangeResult:
            self.calls.append(name)
            if len(self.calls) > 4:
                self.tried.set()
            return self.reader.get_estimate(name, exchange)

        return put

    def fetch(self, count: int) -> list[ExchangeResult]:
        return self.fetcher.fetch_all([self.call(f"w{number}") for number in range(count)])


@contextmanager
def set_up(
    url: str,
    *,
    ca_bundle: str | None = None,
    limiter: RateLimiter | None = None,
    backoff: Backoff = FAST,
    **limits: Any,
) -> Iterator[Setup]:
    settled = Limits(**{"concurrency": 4, "timeout": 10.0, **limits})
    with ReadOnlyClient(Endpoint(url, ApiKey("key"), ca_bundle), settled.concurrency) as reader:
        yield Setup(reader, Fetcher(settled, rate_limiter=limiter, backoff=backoff))


@contextmanager
def meanwhile(task: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread of its own; it has ended when the block is left."""
    thread = threading.Thread(target=task)
    thread.start()
    yield
    thread.join(TIMEOUT)
    assert not thread.is_alive()


@contextmanager
def taking_seconds(least: float, most: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started < most


@dataclass(frozen=True)
class Slow:
    """A script after a while."""

    then: Script
    seconds: float = 0.05
    creates: ClassVar[bool] = False
    early: ClassVar[bool] = False

    def play(self, line: Connection) -> None:
        line.pause(self.seconds)
        self.then.play(line)


def priced(cost: int = 7) -> Script:
    return reply(200, b'{"estimated_cost": %d}' % cost)


def by_workflow(**scripts: Script) -> Callable[[Request], Script]:
    """The script of each workflow; a price for the others."""
    return lambda request: scripts.get(request.workflow) or priced()


def statuses(results: Sequence[ExchangeResult]) -> list[int | str]:
    return [result.status if isinstance(result, Response) else result.cause for result in results]


def count_requests(server: WireServer) -> Counter[str]:
    return Counter(request.workflow for request in server.requests)


# Successful calls


def test_results_are_in_the_order_of_the_calls() -> None:
    first = threading.Event()

    def choose(request: Request) -> Script:
        script = priced(int(request.workflow[1:]))
        if request.workflow == "w9":
            first.set()
        return Stall(first, then=script) if request.workflow == "w0" else script

    with WireServer(choose=choose) as server, set_up(server.url) as setup:
        results = setup.fetch(10)
    assert statuses(results) == [200] * 10
    assert [result.body for result in results if isinstance(result, Response)] == [
        b'{"estimated_cost": %d}' % number for number in range(10)
    ]
    assert count_requests(server) == {f"w{number}": 1 for number in range(10)}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_concurrency_is_used_and_not_exceeded(concurrency: int) -> None:
    gate = threading.Event()
    with (
        WireServer(choose=lambda _: Stall(gate, then=priced())) as server,
        set_up(server.url, concurrency=concurrency) as setup,
        meanwhile(lambda: setup.fetch(12)),
    ):
        server.wait_for_requests(concurrency)
        gate.set()
    assert (server.log.most_busy, len(server.requests)) == (concurrency, 12)


def test_no_calls() -> None:
    with WireServer() as server, set_up(server.url) as setup:
        assert setup.fetcher.fetch_all([]) == []
    assert server.log.connections == 0


# The rate and the pauses.


def test_a_shared_rate_limiter_limits_all_its_users() -> None:
    limiter = RateLimiter(Rate(4, 1.0))
    with WireServer(choose=by_workflow()) as server, set_up(server.url, limiter=limiter) as setup:
        started = time.monotonic()
        for _ in range(4):  # somebody else was quick
            limiter.acquire(started).used_at = started
        assert statuses(setup.fetch(5)) == [200] * 5
        assert limiter.delay(time.monotonic()) > 0  # and waits for what was sent here
    times = [request.at for request in server.requests]
    assert times[0] - started >= 1.0
    assert times[4] - times[0] >= 0.95  # a twentieth less than the second: the server's own thread may be late


def test_all_calls_pause_as_long_as_the_server_asks() -> None:
    results: list[ExchangeResult] = []
    gate = threading.Event()
    scripts: list[Script] = [Stall(gate, then=reply(429, headers=[("Retry-After", "1")]))] * 4
    with (
        WireServer(*scripts, choose=by_workflow()) as server,
        set_up(server.url) as setup,
        meanwhile(lambda: results.extend(setup.fetch(8))),
    ):
        server.wait_for_requests(4)
        responded_at = time.monotonic()
        gate.set()
    assert statuses(results) == [200] * 8
    assert min(request.at for request in server.requests[4:]) - responded_at >= 1.0
    assert len(server.requests) == 12


@pytest.mark.parametrize(("timeout", "seconds"), [(30.0, "31"), (0.5, "1"), (400.0, "301")])
def test_a_pause_longer_than_the_timeout_is_not_waited_for(timeout: float, seconds: str) -> None:
    throttled = reply(429, headers=[("Retry-After", seconds)])
    with (
        WireServer(choose=lambda _: throttled) as server,
        set_up(server.url, concurrency=1, timeout=timeout) as setup,
        taking_seconds(0, SLACK),
    ):
        assert statuses(setup.fetch(20)) == [429] * 20
        assert float(seconds) - SLACK < setup.fetcher.pause_remaining <= float(seconds)
    assert len(server.requests) == 1


def test_a_long_pause_also_holds_for_the_next_calls() -> None:
    with (
        WireServer(reply(429, headers=[("Retry-After", "60")])) as server,
        set_up(server.url, timeout=1.0) as setup,
        taking_seconds(0, SLACK),
    ):
        assert statuses(setup.fetch(1)) == statuses(setup.fetch(1)) == [429]
    assert len(server.requests) == 1


def test_endless_throttling_is_given_up_after_one_timeout() -> None:
    with (
        WireServer(choose=lambda _: reply(429, headers=[("Retry-After", "0")])) as server,
        set_up(server.url, timeout=1.0, backoff=Backoff(base=0.2, maximum=0.2)) as setup,
        taking_seconds(0.5, 1.0 + SLACK),
    ):
        assert statuses(setup.fetch(50)) == [429] * 50
    assert 2 * 4 <= len(server.requests) <= 12 * 4  # each time as many as the concurrency


def test_pauses_beyond_max_pause_in_total_give_up() -> None:
    with (
        WireServer(choose=lambda _: reply(429)) as server,
        set_up(server.url, concurrency=1, max_pause=0.5, backoff=Backoff(base=0.2, maximum=0.2)) as setup,
    ):
        assert statuses(setup.fetch(5)) == [429] * 5
    assert 3 <= len(server.requests) <= 6


def test_throttling_uses_no_attempt() -> None:
    throttled = reply(429, headers=[("Retry-After", "0")])
    with WireServer(throttled, throttled, choose=by_workflow()) as server, set_up(server.url, attempts=1) as setup:
        assert statuses(setup.fetch(1)) == [200]
    assert len(server.requests) == 3


# Retries.


@pytest.mark.parametrize(("script", "what"), [(reply(500), 500), (reply(503), 503), (Reset(), "closed")])
@pytest.mark.parametrize("attempts", [2, 3])
def test_a_failed_call_is_retried(script: Script, what: int | str, attempts: int) -> None:
    with WireServer(script, script, choose=by_workflow()) as server, set_up(server.url, attempts=attempts) as setup:
        assert statuses(setup.fetch(1)) == [what if attempts == 2 else 200]
    assert len(server.requests) == attempts


@pytest.mark.parametrize("status", [200, 204, 302, 400, 403, 404, 409])
def test_a_useful_response_is_not_requested_again(status: int) -> None:
    with WireServer(choose=lambda _: reply(status)) as server, set_up(server.url) as setup:
        assert statuses(setup.fetch(2)) == [status] * 2
    assert len(server.requests) == 2


def test_a_permanent_failure_does_not_affect_other_calls() -> None:
    with (
        WireServer(choose=by_workflow(w1=reply(500))) as server,
        set_up(server.url, concurrency=1, attempts=3) as setup,
    ):
        assert statuses(setup.fetch(4)) == [200, 500, 200, 200]
    assert count_requests(server) == {"w0": 1, "w1": 3, "w2": 1, "w3": 1}


def test_calls_are_retried_when_a_server_is_back() -> None:
    results: list[ExchangeResult] = []
    with (
        refusing_port() as port,
        set_up(f"http://127.0.0.1:{port}", concurrency=2, attempts=1000) as setup,
        meanwhile(lambda: results.extend(setup.fetch(6))),
    ):
        assert setup.tried.wait(TIMEOUT)
        with WireServer(port=port, choose=by_workflow()) as server:
            server.wait_for_requests(6)
            server.wait_for(what=lambda log: log.busy == 0)
    assert statuses(results) == [200] * 6


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_unreachable_api_is_given_up_after_all_attempts(concurrency: int) -> None:
    with refusing_port() as port, set_up(f"http://127.0.0.1:{port}", concurrency=concurrency, attempts=3) as setup:
        assert statuses(setup.fetch(40)) == ["connect"] * 40
    tries = Counter(setup.calls)
    assert max(tries.values()) == 3
    assert len(tries) <= 2 * concurrency


# What is given up at once.


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_rejected_key_gives_up_at_once(concurrency: int) -> None:
    with WireServer(choose=lambda _: reply(401)) as server, set_up(server.url, concurrency=concurrency) as setup:
        assert statuses(setup.fetch(50)) == [401] * 50
    assert len(server.requests) <= 2 * concurrency - 1


def test_calls_sent_before_the_key_was_rejected_may_still_succeed() -> None:
    results: list[ExchangeResult] = []
    refused, gate = threading.Event(), threading.Event()
    scripts = by_workflow(w0=Stall(gate, then=priced()), w1=Stall(refused, then=reply(401)))

    def choose(request: Request) -> Script:
        if request.workflow == "w1":
            refused.set()
        return scripts(request)

    with (
        WireServer(choose=choose) as server,
        set_up(server.url, concurrency=2) as setup,
        meanwhile(lambda: results.extend(setup.fetch(9))),
    ):
        server.wait_for(what=lambda log: len(log.requests) == 2 and log.busy == 1)
        gate.set()
    first, second, *others = statuses(results)
    assert (first, second) == (200, 401)
    # On a busy machine the 200 may be read before the 401, and more be sent then: nothing is after the 401.
    assert others.count(401) == 9 - len(server.requests)


def test_an_untrusted_certificate_gives_up_at_once(certificates: Certificates) -> None:
    with (
        WireServer(tls=certificates.self_signed) as server,
        set_up(server.url, ca_bundle=certificates.bundle, concurrency=1) as setup,
    ):
        assert statuses(setup.fetch(20)) == ["certificate"] * 20
    assert (server.log.untrusted, server.requests) == (1, [])


# Nobody waits for long.


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_server_that_never_responds_costs_one_timeout(concurrency: int) -> None:
    with (
        WireServer(choose=lambda _: Stall(threading.Event())) as server,
        set_up(server.url, concurrency=concurrency, timeout=0.4) as setup,
        taking_seconds(0.4, 0.4 + SLACK),
    ):
        assert statuses(setup.fetch(400)) == ["timeout"] * 400
    assert len(server.requests) == concurrency


def test_a_host_that_never_accepts_costs_one_timeout() -> None:
    with (
        silent_port() as port,
        set_up(f"http://127.0.0.1:{port}", concurrency=1, timeout=0.4) as setup,
        taking_seconds(0.4, 0.4 + SLACK),
    ):
        assert statuses(setup.fetch(40)) == ["timeout"] * 40


def test_later_calls_do_not_extend_the_timeout() -> None:
    with (
        WireServer(choose=lambda _: Stall(threading.Event())) as server,
        set_up(server.url, timeout=2.0, limiter=RateLimiter(Rate(1, 1.8))) as setup,
        taking_seconds(2.0, 3.7),  # the last was sent at 1.8 s
    ):
        assert statuses(setup.fetch(10)) == ["timeout"] * 10
    assert len(server.requests) == 2


def test_a_stalled_call_costs_one_timeout_and_the_others_succeed() -> None:
    with (
        WireServer(choose=by_workflow(w3=Stall(threading.Event()))) as server,
        set_up(server.url, concurrency=2, timeout=0.4) as setup,
        taking_seconds(0.4, 0.4 + SLACK),
    ):
        assert statuses(setup.fetch(12)) == [200, 200, 200, "timeout"] + [200] * 8
    assert count_requests(server) == {f"w{number}": 1 for number in range(12)}


def test_a_stall_without_concurrency_gives_up_the_calls_after_it() -> None:
    with (
        WireServer(choose=by_workflow(w2=Stall(threading.Event()))) as server,
        set_up(server.url, concurrency=1, timeout=0.5) as setup,
        taking_seconds(0.5, 0.5 + SLACK),
    ):
        assert statuses(setup.fetch(40)) == [200, 200] + ["timeout"] * 38
    assert len(server.requests) == 3


def test_many_stalled_calls_give_up_before_each_timed_out() -> None:
    stalls: dict[str, Script] = {f"w{number}": Stall(threading.Event()) for number in range(1, 400, 2)}
    with (
        WireServer(choose=by_workflow(**stalls)) as server,
        set_up(server.url, timeout=0.4) as setup,
        taking_seconds(0.4, 2 * 0.4 + SLACK),  # two hundred of them, four at a time: not 20
    ):
        results = statuses(setup.fetch(400))
    assert Counter(count_requests(server).values()).keys() == {1}
    assert all(what == "timeout" for what in results[1::2])
    assert results[:8:2] == [200] * 4


def test_after_a_stall_other_calls_have_a_shorter_timeout() -> None:
    over, seen = threading.Event(), threading.Event()
    timeouts: list[float] = []

    def fine(exchange: Exchange) -> ExchangeResult:
        timeouts.append(exchange.timeout)
        return Response(200, {}, b"", datetime.now(UTC))

    def stalls(exchange: Exchange) -> ExchangeResult:  # noqa: ARG001 - the form of a call
        assert over.wait(TIMEOUT)
        return NoResponse("timeout", written=True, detail="")

    def ends_it(exchange: Exchange) -> ExchangeResult:
        over.set()
        assert seen.wait(TIMEOUT)
        return fine(exchange)

    def comes_after_it(exchange: Exchange) -> ExchangeResult:  # runs in the slot of the stalled call
        seen.set()
        return fine(exchange)

    results = Fetcher(Limits(concurrency=2, timeout=30.0)).fetch_all([stalls, fine, ends_it, comes_after_it])
    assert statuses(results) == ["timeout", 200, 200, 200]
    first, last, before = timeouts[0], timeouts[1], timeouts[2]
    assert (first, before) == (30.0, 30.0)
    assert 1.0 <= last < 5.0


@pytest.mark.parametrize("script", [reply(500), Slow(reply(502)), Reset()], ids=["500", "slow-502", "reset"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_server_that_always_fails_is_given_up_after_one_timeout(script: Script, concurrency: int) -> None:
    with (
        WireServer(choose=lambda _: script) as server,
        set_up(server.url, concurrency=concurrency, timeout=0.4, backoff=Backoff(base=0.1, maximum=0.2)) as setup,
        taking_seconds(0, 0.4 + SLACK),
    ):
        results = setup.fetch(400)
    assert set(statuses(results)) <= {500, 502, "closed"}
    assert max(count_requests(server).values()) >= 2


def test_a_retry_due_after_the_timeout_is_not_made() -> None:
    with (
        WireServer(choose=lambda _: reply(500)) as server,
        set_up(server.url, timeout=0.4, backoff=Backoff(base=100.0, maximum=100.0)) as setup,
        taking_seconds(0, 0.4 + SLACK),
    ):
        assert statuses(setup.fetch(3)) == [500] * 3
    assert len(server.requests) == 3


class Whole(Random):
    """Chance that never shortens a backoff."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002 - Random's
        return b


def test_failures_and_stalls_share_one_timeout() -> None:
    with (
        WireServer(reply(500), choose=lambda _: Stall(threading.Event())) as server,
        set_up(server.url, concurrency=1, timeout=2.5, backoff=Backoff(base=1.4, random=Whole())) as setup,
        taking_seconds(1.4 + 1.0, 1.4 + 2.4),  # and not 1.4 and 2.5
    ):
        assert statuses(setup.fetch(3)) == ["timeout"] * 3
    assert len(server.requests) == 2


def test_the_time_limit_is_kept() -> None:
    with (
        WireServer(choose=by_workflow(w1=Stall(threading.Event()))) as server,
        set_up(server.url, concurrency=2) as setup,
        taking_seconds(0.4, 0.4 + SLACK),
    ):
        calls = [setup.call(f"w{number}") for number in range(3)]
        results = setup.fetcher.fetch_all(calls, time_limit=0.4)
    assert [result.detail if isinstance(result, NoResponse) else result.status for result in results] == [
        200,
        "timed out waiting",
        200,
    ]


# What cannot be cut short is left behind, and what can be is cut.


def test_a_stuck_call_is_dropped_and_frees_its_slot() -> None:
    free = threading.Event()

    def stuck(exchange: Exchange) -> ExchangeResult:  # noqa: ARG001 - resolving a name, which nothing can cut short
        free.wait()
        return NoResponse("resolve", written=False, detail="")

    limiter = RateLimiter(Rate(1, 0.01))
    with (
        WireServer(choose=by_workflow()) as server,
        set_up(server.url, timeout=0.2, limiter=limiter) as setup,
        taking_seconds(0, 4),
    ):
        results = setup.fetcher.fetch_all(
            [partial(setup.reader.get_estimate, "w0"), stuck, stuck, stuck, stuck, setup.call("w")]
        )
        assert statuses(results) == [200] + ["timeout"] * 5
        assert limiter.delay(time.monotonic() + 1) == 0  # or the next send would be waited for without end
    free.set()


def test_calls_in_flight_free_their_slots_when_the_api_is_given_up() -> None:
    started, free = threading.Event(), threading.Event()

    def stuck(exchange: Exchange) -> ExchangeResult:  # noqa: ARG001 - likewise
        started.set()
        free.wait()
        return NoResponse("resolve", written=False, detail="")

    def unreachable(exchange: Exchange) -> ExchangeResult:  # noqa: ARG001 - the form of a call
        assert started.wait(TIMEOUT)
        return NoResponse("connect", written=False, detail="")

    limiter = RateLimiter(Rate(2, 0.01))
    results = Fetcher(Limits(concurrency=2, attempts=1, timeout=0.3), rate_limiter=limiter).fetch_all(
        [unreachable, stuck, stuck]
    )
    assert statuses(results) == ["connect"] * 3
    limiter.acquire(time.monotonic() + 1)  # a further slot is available once the stuck call has left
    assert limiter.delay(time.monotonic() + 2) == 0
    free.set()


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_it_works_with_as_many_threads_as_the_system_allows(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    left, start = [allowed], threading.Thread.start

    def start_if_allowed(thread: threading.Thread) -> None:
        if thread.name.startswith("fetch-"):
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)
    with WireServer(choose=by_workflow()) as server, set_up(server.url, concurrency=4) as setup:
        if allowed:
            assert statuses(setup.fetch(6)) == [200] * 6
        else:
            with pytest.raises(ThreadLimitError):
                setup.fetch(6)


def test_nothing_is_sent_without_a_thread_for_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(ThreadLimitError, match="ulimit"):
        ReadOnlyClient(Endpoint("http://127.0.0.1:1", ApiKey("key")), 1)


def test_an_interrupt_aborts_at_once_and_permanently() -> None:
    results: list[ExchangeResult] = []
    with (
        WireServer(choose=lambda _: Stall(threading.Event())) as server,
        set_up(server.url) as setup,
        taking_seconds(0, SLACK),
    ):
        with meanwhile(lambda: results.extend(setup.fetch(20))):
            server.wait_for_requests(4)
            setup.reader.abort_all()
        assert statuses(results) == ["interrupted"] * 20
        assert statuses(setup.fetch(3)) == ["interrupted"] * 3
    assert len(server.requests) == 4


def test_ctrl_c_leaves_no_call_in_flight() -> None:
    pressed = threading.Event()

    def clock() -> float:
        if pressed.is_set() and threading.current_thread() is threading.main_thread():
            pressed.clear()
            raise KeyboardInterrupt
        return time.monotonic()

    drip = Drip(b"HTTP/1.1 200 OK\r\n", b"X" * 9999, 0.02)  # it sees when nobody listens any more
    with (
        WireServer(choose=lambda _: drip) as server,
        ReadOnlyClient(Endpoint(server.url, ApiKey("key")), 2) as reader,
    ):

        def press() -> None:
            server.wait_for_requests(2)
            pressed.set()

        fetcher = Fetcher(Limits(concurrency=2), clock=clock)
        with meanwhile(press), pytest.raises(KeyboardInterrupt):
            fetcher.fetch_all([partial(reader.get_estimate, f"w{number}") for number in range(5)])
        server.wait_for(what=lambda log: log.ended == 2)
