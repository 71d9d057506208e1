"""Rates, pauses and backoff by a simulated clock."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.backoff import MAX_SINGLE_PAUSE, Backoff, Pauses
from runner.core.rate_limit import Rate, RateLimiter, Slot


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5/s", Rate(5, 1.0)),
        ("1/min", Rate(1, 60.0)),
        ("100/h", Rate(100, 3600.0)),
        ("999999/s", Rate(999_999, 1.0)),
    ],
)
def test_a_rate_is_parsed(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "5", "/s", "0/s", "05/s", "-5/s", "+5/s", "5.5/s", "1e3/s", "1000000/s", "5/d", "5/sec", "5/S", "5 / s",
     " 5/s", "5/s ", "5/s\n", "٥/s", "5/s5/s", "5s"],
)  # fmt: skip
def test_an_invalid_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        Rate.parse(text)


def simulate(rate: Rate, delays: Iterable[tuple[float, float]], start: float) -> tuple[list[float], list[float]]:
    """Take a slot for each pair of delays as soon as one may be had: when the turns were taken, and when they left.

    The first delay is from a slot to its first byte, the second from there until the engine hears of it.
    """
    limiter = RateLimiter(rate)
    now = start
    taken: list[float] = []
    left: list[float] = []
    unheard: list[tuple[float, float, Slot]] = []
    for before, after in delays:
        while (wait := limiter.delay(now)) > 0:
            now += wait
            if wait < 0.01:  # it only waits to hear of a send: no need to ask again each time
                now = max(now, min((moment for moment, _, _ in unheard), default=now))
            for moment, when, slot in unheard:
                if moment <= now:
                    slot.used_at = when
            unheard = [told for told in unheard if told[0] > now]
        slot = limiter.acquire(now)
        taken.append(now)
        left.append(now + before)
        unheard.append((now + before + after, now + before, slot))
    return taken, left


@given(
    count=st.integers(1, 5),
    period=st.sampled_from([1.0, 60.0, 3600.0]),
    start=st.sampled_from([0.0, 0.1, 86_400.3, 1e7 / 3]),
    # Many sends that leave at once or much later: that is what would crowd a window.
    shares=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.0, 0.3, 0.9, 1.7]) | st.floats(0, 2), st.sampled_from([0.0, 0.4]) | st.floats(0, 1)
        ),
        min_size=15,
        max_size=30,
    ),
)
def test_no_window_exceeds_the_rate_however_late_requests_leave(
    count: int, period: float, start: float, shares: list[tuple[float, float]]
) -> None:
    delays = [(before * period, after * period) for before, after in shares]
    left = sorted(simulate(Rate(count, period), delays, start)[1])
    assert all(later - earlier > period for earlier, later in zip(left, left[count:], strict=False))


@pytest.mark.parametrize("text", ["1/s", "5/s", "200/s", "30/min", "7/h"])
def test_requests_are_spread_evenly_and_reach_the_rate(text: str) -> None:
    rate = Rate.parse(text)
    sends = 3 * rate.count + 1
    taken, _ = simulate(rate, [(0.0, 0.0)] * sends, start=1000.0)
    apart = rate.period / rate.count
    assert taken[0] == 1000.0
    assert min(later - earlier for earlier, later in pairwise(taken)) >= apart - 1e-6
    assert taken[-1] - taken[0] <= 3 * rate.period + 0.05


def test_idle_time_does_not_allow_a_burst() -> None:
    limiter = RateLimiter(Rate(10, 1.0))
    limiter.acquire(0.0).used_at = 0.0
    assert limiter.delay(100.0) == 0.0
    limiter.acquire(100.0).used_at = 100.0
    assert limiter.delay(100.0) == pytest.approx(0.1)


def test_without_a_rate_there_is_no_wait() -> None:
    limiter = RateLimiter(None)
    assert all(limiter.delay(0.0) == 0.0 and limiter.acquire(0.0).used_at is None for _ in range(100))


@pytest.mark.parametrize(
    ("asked", "until", "total"),
    [
        ([(10, 5)], 15, 5),
        ([(10, 5), (10, 5), (12, 3)], 15, 5),  # the same pause, said by all workers
        ([(10, 5), (12, 6)], 18, 8),  # overlap
        ([(10, 5), (15, 5)], 20, 10),
        ([(10, 5), (20, 5)], 25, 10),  # apart
        ([(10, 10), (12, 3)], 20, 10),  # one within another
        ([(10, 0)], 10, 0),
    ],
)
def test_pauses_that_overlap_count_once(asked: list[tuple[float, float]], until: float, total: float) -> None:
    pauses = Pauses(limit=900)
    assert [pauses.extend(now, seconds) for now, seconds in asked] == [True] * len(asked)
    assert (pauses.until, pauses.total) == (until, total)


@given(steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30)), max_size=30))
def test_the_total_is_the_time_that_was_paused(steps: list[tuple[int, int]]) -> None:
    pauses = Pauses(limit=10_000)
    now = 0
    paused: set[int] = set()
    for passed, seconds in steps:
        now += passed
        pauses.extend(float(now), float(seconds))
        paused.update(range(now, now + seconds))
    assert pauses.total == len(paused)


def test_a_single_pause_is_limited() -> None:
    assert MAX_SINGLE_PAUSE == 300.0
    assert Pauses(limit=900).extend(0.0, 300.0)
    assert not Pauses(limit=900).extend(0.0, 300.5)
    assert not Pauses(limit=900).extend(0.0, 999_999_999.0)


def test_pauses_are_limited_in_total() -> None:
    pauses = Pauses(limit=900)
    assert [pauses.extend(now, 300.0) for now in (0.0, 1000.0, 2000.0)] == [True, True, True]
    assert not pauses.extend(3000.0, 1.0)
    assert not Pauses(limit=0).extend(0.0, 0.5)


@pytest.mark.parametrize(
    ("failures", "whole"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (31, 30.0), (100_000, 30.0)]
)
def test_the_backoff_doubles_up_to_a_maximum(failures: int, whole: float) -> None:
    backoff = Backoff(random=random.Random(7))  # noqa: S311 - jitter is no secret
    waits = [backoff.delay(failures) for _ in range(500)]
    assert whole / 2 <= min(waits) < 0.55 * whole
    assert 0.95 * whole < max(waits) <= whole


def test_the_jitter_comes_from_the_generator_passed_in() -> None:
    def waits(seed: int) -> list[float]:
        backoff = Backoff(base=1.0, maximum=8.0, random=random.Random(seed))  # noqa: S311 - jitter is no secret
        return [backoff.delay(failures) for failures in range(1, 9)]

    assert waits(1) == waits(1) != waits(2)
    assert max(waits(1)) <= 8.0
    assert Backoff().delay(3) != Backoff().delay(3)
