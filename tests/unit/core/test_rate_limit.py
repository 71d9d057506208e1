"""Rate limits, by a simulated clock."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_rate_is_parsed(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "5", "/s", "0/s", "05/s", "-5/s", "+5/s", "5.5/s", "1e3/s", "1000000/s", "5/d", "5/sec", "5/S", "5 / s",
     " 5/s", "5/s ", "5/s\n", "٥/s", "5/s5/s", "5s"],
)  # fmt: skip
def test_invalid_rate_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        Rate.parse(text)


def simulate(rate: Rate, delays: Iterable[tuple[float, float]], start: float) -> tuple[list[float], list[float]]:
    """Acquire a slot for each pair of delays as soon as possible. Returns when slots were acquired and requests left.

    The first delay is from the slot to the first byte of the request, the second from there to its report.
    """
    limiter = RateLimiter(rate)
    now = start
    acquired_at: list[float] = []
    left_at: list[float] = []
    unreported: list[tuple[float, float, Slot]] = []
    for delay_to_first_byte, delay_to_report in delays:
        while (wait := limiter.delay(now)) > 0:
            now += wait
            if wait < 0.01:  # only waiting for a report: skip ahead to the next one
                now = max(now, min((reported_at for reported_at, _, _ in unreported), default=now))
            for reported_at, first_byte_at, slot in unreported:
                if reported_at <= now:
                    slot.used_at = first_byte_at
            unreported = [entry for entry in unreported if entry[0] > now]
        slot = limiter.acquire(now)
        acquired_at.append(now)
        left_at.append(now + delay_to_first_byte)
        unreported.append((now + delay_to_first_byte + delay_to_report, now + delay_to_first_byte, slot))
    return acquired_at, left_at


@given(
    count=st.integers(1, 5),
    period=st.sampled_from([1.0, 60.0, 3600.0]),
    start=st.sampled_from([0.0, 0.1, 86_400.3, 1e7 / 3]),
    # Many requests that leave immediately or much later, as these would crowd a window.
    shares=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.0, 0.3, 0.9, 1.7]) | st.floats(0, 2), st.sampled_from([0.0, 0.4]) | st.floats(0, 1)
        ),
        min_size=15,
        max_size=30,
    ),
)
def test_no_window_exceeds_the_rate_even_if_requests_leave_late(
    count: int, period: float, start: float, shares: list[tuple[float, float]]
) -> None:
    delays = [(before * period, after * period) for before, after in shares]
    left_at = sorted(simulate(Rate(count, period), delays, start)[1])
    assert all(later - earlier > period for earlier, later in zip(left_at, left_at[count:], strict=False))


@pytest.mark.parametrize("text", ["1/s", "5/s", "200/s", "30/min", "7/h"])
def test_requests_are_spread_evenly_and_reach_the_rate(text: str) -> None:
    rate = Rate.parse(text)
    sends = 3 * rate.count + 1
    acquired_at, _ = simulate(rate, [(0.0, 0.0)] * sends, start=1000.0)
    interval = rate.period / rate.count
    assert acquired_at[0] == 1000.0
    assert min(later - earlier for earlier, later in pairwise(acquired_at)) >= interval - 1e-6
    assert acquired_at[-1] - acquired_at[0] <= 3 * rate.period + 0.05


def test_idle_time_does_not_allow_a_burst() -> None:
    limiter = RateLimiter(Rate(10, 1.0))
    limiter.acquire(0.0).used_at = 0.0
    assert limiter.delay(100.0) == 0.0
    limiter.acquire(100.0).used_at = 100.0
    assert limiter.delay(100.0) == pytest.approx(0.1)


def test_no_rate_means_no_wait() -> None:
    limiter = RateLimiter(None)
    assert all(limiter.delay(0.0) == 0.0 and limiter.acquire(0.0).used_at is None for _ in range(100))
