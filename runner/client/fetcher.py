"""Questions to the API, many at a time: what costs nothing may be asked again, and nobody waits for long.

One thread decides what is asked and when, by the same rules as for what is sent: so many at a time, the rate, the
pauses that the server asks for. A question that got no answer of use is asked again; an API that gives none for a whole
timeout is given up.
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

from runner.client.exchange import Exchange
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.backoff import Backoff, Pauses
from runner.core.errors import ThreadLimitError
from runner.core.rate_limit import RateLimiter
from runner.core.settings import Limits

ApiCall = Callable[[Exchange], ExchangeResult]

_LONGEST_WAIT = 0.2  # seconds: Python runs a signal handler between two steps of the main thread
_OVERTIME = 1.0  # seconds after its deadline that an exchange may take to come back
_LEAST_PATIENCE = 1.0  # seconds
_THROTTLED = (HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(order=True, slots=True)
class _Asked:
    """One question: when it may be asked, its place among the others, how often it was asked, and when first."""

    due: float
    place: int
    question: ApiCall = field(compare=False)
    attempt: int = field(compare=False, default=1)
    first: float = field(compare=False, default=0.0)
    exchange: Exchange = field(compare=False, default_factory=lambda: Exchange(0.0))


class Fetcher:
    """Asks questions within the limits of a run. Its rate and its pauses go on from one `ask` to the next.

    `pace` is shared with whatever else is sent meanwhile.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        rate_limiter: RateLimiter | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._pace = rate_limiter or RateLimiter(limits.parsed_rate)
        self._pauses = Pauses(limits.max_pause)
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._throttle: ExchangeResult | None = (
            None  # what the server said when it asked for a longer pause than is made
        )

    @property
    def pause_remaining(self) -> float:
        """The seconds for which the server asked not to be asked."""
        return max(0.0, self._pauses.until - self._clock())

    def fetch_all(self, calls: Sequence[ApiCall], time_limit: float | None = None) -> list[ExchangeResult]:
        """What came of each question, in their order; all that needs no answer any more when it returns.

        It takes no more than `within` seconds: what is not answered by then was interrupted.

        It waits no longer than one exchange's timeout for an API that answers nothing of use, and not at all for one
        that wants a longer pause than that: what is not asked then gets what the last one got. Where it answers some
        questions and leaves others waiting, those that come after the first of these wait for a moment only, and it is
        given up when they are more than may be asked at a time.

        Raises ThreadLimitError when the system lets nobody ask.
        """
        if self._throttle is not None and self.pause_remaining:
            return [self._throttle] * len(calls)
        round_ = _Round(self._limits, self._pace, self._pauses, self._backoff, self._clock)
        told = round_.ask(calls, None if time_limit is None else self._clock() + time_limit)
        self._throttle = round_.throttled_by
        return told


class _Round:
    """The asking of some questions."""

    def __init__(
        self, limits: Limits, pace: RateLimiter, pauses: Pauses, backoff: Backoff, clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._at_a_time = limits.concurrency
        self._pace = pace
        self._pauses = pauses
        self._backoff = backoff
        self._clock = clock
        self._fresh: deque[_Asked] = deque()
        self._again: list[_Asked] = []
        self._out: dict[int, _Asked] = {}
        self._told: dict[int, ExchangeResult] = {}
        self._useful_at = 0.0  # when an answer of use came last
        self._slowest = 0.0  # seconds that the slowest of them took
        self._vain_since: float | None = None  # since when none has come, though one was to
        self._stalled = 0  # questions that were waited for in vain, to the end of their time
        self._throttles = 0
        self._gave_up: ExchangeResult | None = None
        self._todo: SimpleQueue[_Asked | None] = SimpleQueue()
        self._back: SimpleQueue[tuple[_Asked, ExchangeResult]] = SimpleQueue()

    def ask(self, questions: Sequence[ApiCall], end: float | None) -> list[ExchangeResult]:
        self._fresh.extend(_Asked(0.0, place, question) for place, question in enumerate(questions))
        count = self._start(min(self._limits.concurrency, len(questions)))
        try:
            while len(self._told) < len(questions):
                self._send_what_is_due()
                self._take_what_came()
                self._leave_what_is_stuck()
                now = self._clock()
                if end is not None and now >= end:
                    self._gave_up = NoResponse("interrupted", written=False, detail="the time to wait was over")
                    break
                if self._gave_up is not None and (not self._out or self._is_late(now)):
                    break
        finally:
            self._leave_the_rest()
            for _thread in range(count):
                self._todo.put(None)
        rest = self._gave_up
        return [self._told[place] if rest is None else self._told.get(place, rest) for place in range(len(questions))]

    def _start(self, wanted: int) -> int:
        """Start so many threads, or as many as the system allows. Raises ThreadLimitError when that is none."""
        for number in range(wanted):
            # Nobody waits for one that is stuck, resolving a name say.
            thread = threading.Thread(target=self._work, name=f"ask-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not number:
                    raise ThreadLimitError from None
                self._at_a_time = number
                return number
        return wanted

    @property
    def throttled_by(self) -> ExchangeResult | None:
        """What the server said when the asking was given up for a pause that it asked for; None if it was not."""
        return self._gave_up if self._gave_up is not None and _is_throttle(self._gave_up) else None

    def _work(self) -> None:
        while (asked := self._todo.get()) is not None:
            self._back.put((asked, asked.question(asked.exchange)))

    def _send_what_is_due(self) -> None:
        now = self._clock()
        while self._gave_up is None and self._next_at(now) == now:
            asked = heapq.heappop(self._again) if self._again else self._fresh.popleft()
            asked.first = asked.first or now
            asked.exchange = Exchange(self._patience(now), clock=self._clock, slot=self._pace.acquire(now))
            asked.exchange.start()  # a worker starts it again; one that is stuck never will
            self._out[asked.place] = asked
            self._todo.put(asked)

    def _next_at(self, now: float) -> float | None:
        """When the next question may be asked: `now`, later, or None when that hangs on something that comes back."""
        if self._gave_up is not None or len(self._out) >= self._at_a_time:
            return None
        # What is to be asked again goes first: an API that does not answer is not asked everything once.
        due = self._again[0].due if self._again else (0.0 if self._fresh else None)
        return None if due is None else max(now, due, self._pauses.until, now + self._pace.delay(now))

    def _take_what_came(self) -> None:
        now = self._clock()
        next_at = self._next_at(now)
        wait = _LONGEST_WAIT if next_at is None else min(_LONGEST_WAIT, next_at - now)
        with suppress(Empty):
            while True:
                asked, happening = self._back.get(timeout=max(0.0, wait))
                if self._out.get(asked.place) is asked:
                    del self._out[asked.place]
                    self._settle(asked, happening)
                wait = 0.0

    def _leave_what_is_stuck(self) -> None:
        now = self._clock()
        for asked in list(self._out.values()):
            if now - (asked.exchange.started_at or now) > asked.exchange.timeout + _OVERTIME:
                del self._out[asked.place]
                self._settle(asked, NoResponse("timeout", asked.exchange.abort("timeout"), "no answer came in time"))

    def _leave_the_rest(self) -> None:
        """End what nobody waits for any more, and give its turns back: whoever shares the pace would wait for them."""
        for asked in self._out.values():
            asked.exchange.abort("interrupted")
            asked.exchange.slot.used_at = asked.exchange.slot.used_at or self._clock()

    def _patience(self, now: float) -> float:
        """The seconds that an exchange may take: less than the timeout where the API was waited for in vain before."""
        longest = self._limits.timeout
        if self._stalled:
            longest = min(longest, 2 * self._slowest + _LEAST_PATIENCE)
        if self._vain_since is not None:
            longest = min(longest, max(_LEAST_PATIENCE, self._vain_since + self._limits.timeout - now))
        return longest

    def _settle(self, asked: _Asked, happening: ExchangeResult) -> None:
        now = self._clock()
        asked.exchange.slot.used_at = asked.exchange.written_at or now
        if _is_of_use(happening):
            self._useful_at, self._vain_since, self._throttles = now, None, 0
            self._slowest = max(self._slowest, now - (asked.exchange.started_at or now))
            self._told[asked.place] = happening
            return
        if self._vain_since is None:
            self._vain_since = max(asked.first, self._useful_at)
        if isinstance(happening, Response) and happening.status in _THROTTLED:
            self._throttled(asked, happening, now)
            return
        due = now + self._backoff.delay(asked.attempt)
        if _is_passing(happening) and asked.attempt < self._limits.attempts and not self._is_late(due):
            asked.due = due
            asked.attempt += 1
            heapq.heappush(self._again, asked)
        else:
            self._end(asked, happening, now)

    def _throttled(self, asked: _Asked, answer: Response, now: float) -> None:
        if now >= self._pauses.until:
            self._throttles += 1
        seconds = max(answer.retry_after or 0.0, self._backoff.delay(self._throttles))
        if not self._pauses.extend(now, seconds) or self._is_late(now + seconds):
            self._told[asked.place] = answer
            self._gave_up = self._gave_up or answer
            return
        asked.due = now
        heapq.heappush(self._again, asked)

    def _end(self, asked: _Asked, happening: ExchangeResult, now: float) -> None:
        self._told[asked.place] = happening
        silent = isinstance(happening, NoResponse) and self._useful_at < asked.first
        self._stalled += isinstance(happening, NoResponse) and happening.cause == "timeout"
        too_many = self._stalled > self._at_a_time
        if silent or too_many or _is_for_all(happening) or self._is_late(now):
            self._gave_up = self._gave_up or happening

    def _is_late(self, at: float) -> bool:
        """Whether nothing of use will have come by then for longer than one exchange may take."""
        return self._vain_since is not None and at - self._vain_since > self._limits.timeout


def _is_of_use(happening: ExchangeResult) -> bool:
    """Whether it is an answer to the question: the same would come again."""
    return (
        isinstance(happening, Response)
        and happening.status < HTTPStatus.INTERNAL_SERVER_ERROR
        and happening.status not in (*_THROTTLED, HTTPStatus.UNAUTHORIZED)
    )


def _is_throttle(happening: ExchangeResult) -> bool:
    return isinstance(happening, Response) and happening.status in _THROTTLED


def _is_for_all(happening: ExchangeResult) -> bool:
    """Whether no other question would fare better: the key is not recognised, or the server's certificate not ours."""
    if isinstance(happening, Response):
        return happening.status == HTTPStatus.UNAUTHORIZED
    return happening.cause in ("certificate", "interrupted")


def _is_passing(happening: ExchangeResult) -> bool:
    """Whether asking again may help. What was waited for once is not waited for again."""
    if isinstance(happening, NoResponse):
        return happening.cause not in ("timeout", "interrupted", "certificate")
    return happening.status >= HTTPStatus.INTERNAL_SERVER_ERROR
