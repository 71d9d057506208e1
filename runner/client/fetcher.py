"""Concurrent GET requests: retried, rate limited, and given up when the API does not respond.

One thread decides what is sent and when, by the same limits as for the requests that create jobs. A request without a
useful response is retried; an API that gives none for a whole timeout is given up.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import TypeGuard

from runner.client.exchange import Exchange
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.backoff import Backoff, Pauses
from runner.core.errors import ThreadLimitError
from runner.core.rate_limit import RateLimiter
from runner.core.settings import Limits

ApiCall = Callable[[Exchange], ExchangeResult]

_MAX_WAIT = 0.2  # seconds; Python runs signal handlers between two steps of the main thread
_OVERTIME = 1.0  # seconds that an exchange may take to return after its deadline
_MIN_TIMEOUT = 1.0  # seconds
_THROTTLED = (HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(order=True, slots=True)
class _PendingCall:
    """A call without a result: when it is due, its index, the number of its attempt, and when the first was sent."""

    due: float
    index: int
    call: ApiCall = field(compare=False)
    attempt: int = field(compare=False, default=1)
    first_sent_at: float = field(compare=False, default=0.0)
    exchange: Exchange = field(compare=False, default_factory=lambda: Exchange(0.0))


class Fetcher:
    """Makes API calls within the limits of a run. `rate_limiter` may be shared with whatever else is sent meanwhile."""

    def __init__(
        self,
        limits: Limits,
        *,
        rate_limiter: RateLimiter | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._rate_limiter = rate_limiter or RateLimiter(limits.parsed_rate)
        self._pauses = Pauses(limits.max_pause)
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._throttle: Response | None = None  # asked for a longer pause than is made

    @property
    def pause_remaining(self) -> float:
        """The seconds for which the server asked not to be sent anything."""
        return max(0.0, self._pauses.until - self._clock())

    def fetch_all(self, calls: Sequence[ApiCall], time_limit: float | None = None) -> list[ExchangeResult]:
        """Make calls, and return their results in the same order.

        Takes at most `time_limit` seconds; calls without a result by then are interrupted. Waits no longer than one
        timeout for an API that gives no useful response, and not at all for one that asks for a longer pause: calls not
        sent by then get the last result. When some calls succeed and others time out, calls after the first of these
        wait only briefly, and the API is given up when more time out than may be sent at once.

        Raises:
            ThreadLimitError: no thread could be started.
        """
        if self._throttle is not None and self.pause_remaining:
            return [self._throttle] * len(calls)
        batch = _Batch(self._limits, self._rate_limiter, self._pauses, self._backoff, self._clock)
        results = batch.fetch(calls, None if time_limit is None else self._clock() + time_limit)
        self._throttle = batch.failure if _is_throttle(batch.failure) else None
        return results


@dataclass(slots=True)
class _Batch:
    """The calls of one `fetch_all`. `failure` is the result of all calls that are no longer sent."""

    limits: Limits
    rate_limiter: RateLimiter
    pauses: Pauses
    backoff: Backoff
    clock: Callable[[], float]
    failure: ExchangeResult | None = None
    _concurrency: int = 0
    _unsent: deque[_PendingCall] = field(default_factory=deque)
    _retries: list[_PendingCall] = field(default_factory=list)
    _in_flight: dict[int, _PendingCall] = field(default_factory=dict)
    _results: dict[int, ExchangeResult] = field(default_factory=dict)
    _last_useful_at: float = 0.0
    _slowest: float = 0.0  # seconds that the slowest useful response took
    _failing_since: float | None = None  # since when no useful response came, though one was due
    _timeouts: int = 0
    _throttles: int = 0  # in a row
    _todo: SimpleQueue[_PendingCall | None] = field(default_factory=SimpleQueue)
    _done: SimpleQueue[tuple[_PendingCall, ExchangeResult]] = field(default_factory=SimpleQueue)

    def fetch(self, calls: Sequence[ApiCall], deadline: float | None) -> list[ExchangeResult]:
        self._unsent.extend(_PendingCall(0.0, index, call) for index, call in enumerate(calls))
        self._start_workers(min(self.limits.concurrency, len(calls)))
        try:
            while len(self._results) < len(calls):
                self._send_due()
                self._receive()
                self._drop_stuck()
                now = self.clock()
                if deadline is not None and now >= deadline:
                    self.failure = NoResponse("interrupted", written=False, detail="timed out waiting")
                    break
                if self.failure is not None and (not self._in_flight or self._is_late(now)):
                    break
        finally:
            self._abort_in_flight()
            for _ in range(self._concurrency):
                self._todo.put(None)
        rest = self.failure
        return [self._results[index] if rest is None else self._results.get(index, rest) for index in range(len(calls))]

    def _start_workers(self, count: int) -> None:
        """Start threads, as many of `count` as the system allows. Raises ThreadLimitError when it allows none."""
        for number in range(count):
            # Daemons: one that is stuck, in a name lookup for example, must not keep the program from ending.
            thread = threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not number:
                    raise ThreadLimitError from None
                return
            self._concurrency = number + 1

    def _work(self) -> None:
        while (pending := self._todo.get()) is not None:
            self._done.put((pending, pending.call(pending.exchange)))

    def _send_due(self) -> None:
        now = self.clock()
        while self._next_send_at(now) == now:
            pending = heapq.heappop(self._retries) if self._retries else self._unsent.popleft()
            pending.first_sent_at = pending.first_sent_at or now
            pending.exchange = Exchange(self._timeout(now), clock=self.clock, slot=self.rate_limiter.acquire(now))
            pending.exchange.start()  # a worker starts it again, but one that is stuck never would
            self._in_flight[pending.index] = pending
            self._todo.put(pending)

    def _next_send_at(self, now: float) -> float | None:
        """When the next call may be sent: `now`, or later; None when something must come back first."""
        if self.failure is not None or len(self._in_flight) >= self._concurrency:
            return None
        # Retries go first: an API that does not respond must not be sent every call once.
        due = self._retries[0].due if self._retries else (0.0 if self._unsent else None)
        return None if due is None else max(now, due, self.pauses.until, now + self.rate_limiter.delay(now))

    def _receive(self) -> None:
        now = self.clock()
        next_send_at = self._next_send_at(now)
        wait = _MAX_WAIT if next_send_at is None else min(_MAX_WAIT, next_send_at - now)
        with suppress(Empty):
            while True:
                pending, result = self._done.get(timeout=max(0.0, wait))
                if self._in_flight.get(pending.index) is pending:
                    del self._in_flight[pending.index]
                    self._handle(pending, result)
                wait = 0.0

    def _drop_stuck(self) -> None:
        now = self.clock()
        for pending in list(self._in_flight.values()):
            exchange = pending.exchange
            if now - (exchange.started_at or now) > exchange.timeout + _OVERTIME:
                del self._in_flight[pending.index]
                written = exchange.abort("timeout")
                self._handle(pending, NoResponse("timeout", written, "timed out waiting for a response"))

    def _abort_in_flight(self) -> None:
        """Abort what is in flight, and free its slots: users of a shared rate limiter would wait for them."""
        for pending in self._in_flight.values():
            pending.exchange.abort("interrupted")
            pending.exchange.slot.used_at = pending.exchange.slot.used_at or self.clock()

    def _timeout(self, now: float) -> float:
        """The seconds that an exchange may take: less than the limit when earlier ones have timed out or failed."""
        timeout = self.limits.timeout
        if self._timeouts:
            timeout = min(timeout, 2 * self._slowest + _MIN_TIMEOUT)
        if self._failing_since is not None:
            timeout = min(timeout, max(_MIN_TIMEOUT, self._failing_since + self.limits.timeout - now))
        return timeout

    def _handle(self, pending: _PendingCall, result: ExchangeResult) -> None:
        now = self.clock()
        pending.exchange.slot.used_at = pending.exchange.written_at or now
        if _is_useful(result):
            self._last_useful_at, self._failing_since, self._throttles = now, None, 0
            self._slowest = max(self._slowest, now - (pending.exchange.started_at or now))
            self._results[pending.index] = result
            return
        if self._failing_since is None:
            self._failing_since = max(pending.first_sent_at, self._last_useful_at)
        if _is_throttle(result):
            self._handle_throttle(pending, result, now)
            return
        due = now + self.backoff.delay(pending.attempt)
        if _is_transient(result) and pending.attempt < self.limits.attempts and not self._is_late(due):
            pending.due = due
            pending.attempt += 1
            heapq.heappush(self._retries, pending)
        else:
            self._give_up(pending, result, now)

    def _handle_throttle(self, pending: _PendingCall, response: Response, now: float) -> None:
        if now >= self.pauses.until:
            self._throttles += 1
        seconds = max(response.retry_after or 0.0, self.backoff.delay(self._throttles))
        if not self.pauses.extend(now, seconds) or self._is_late(now + seconds):
            self._results[pending.index] = response
            self.failure = self.failure or response
            return
        pending.due = now
        heapq.heappush(self._retries, pending)

    def _give_up(self, pending: _PendingCall, result: ExchangeResult, now: float) -> None:
        """Accept a failure as the call's result, and as that of all others when they would fare no better."""
        self._results[pending.index] = result
        is_silent = isinstance(result, NoResponse) and self._last_useful_at < pending.first_sent_at
        self._timeouts += isinstance(result, NoResponse) and result.cause == "timeout"
        too_many = self._timeouts > self._concurrency
        if is_silent or too_many or _concerns_all(result) or self._is_late(now):
            self.failure = self.failure or result

    def _is_late(self, at: float) -> bool:
        """Whether by then no useful response will have come for longer than the timeout."""
        return self._failing_since is not None and at - self._failing_since > self.limits.timeout


def _is_throttle(result: ExchangeResult | None) -> TypeGuard[Response]:
    return isinstance(result, Response) and result.status in _THROTTLED


def _is_useful(result: ExchangeResult) -> bool:
    """Whether the same response would come again."""
    if isinstance(result, NoResponse) or _is_throttle(result):
        return False
    return result.status < HTTPStatus.INTERNAL_SERVER_ERROR and result.status != HTTPStatus.UNAUTHORIZED


def _concerns_all(result: ExchangeResult) -> bool:
    """Whether other calls would fail alike, because of the key, the server's certificate or an interrupt."""
    if isinstance(result, Response):
        return result.status == HTTPStatus.UNAUTHORIZED
    return result.cause in ("certificate", "interrupted")


def _is_transient(result: ExchangeResult) -> bool:
    """Whether a retry may help. A timeout is not waited for twice."""
    if isinstance(result, NoResponse):
        return result.cause not in ("timeout", "interrupted", "certificate")
    return result.status >= HTTPStatus.INTERNAL_SERVER_ERROR
