"""Pauses requested by the server, and the backoff between retries."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.backoff import MAX_SINGLE_PAUSE, Backoff, Pauses


@pytest.mark.parametrize(
    ("requested", "until", "total"),
    [
        ([(10, 5)], 15, 5),
        ([(10, 5), (10, 5), (12, 3)], 15, 5),  # the same pause, reported by all workers
        ([(10, 5), (12, 6)], 18, 8),  # overlap
        ([(10, 5), (15, 5)], 20, 10),
        ([(10, 5), (20, 5)], 25, 10),  # apart
        ([(10, 10), (12, 3)], 20, 10),  # one within another
        ([(10, 0)], 10, 0),
    ],
)
def test_overlapping_pauses_count_once(requested: list[tuple[float, float]], until: float, total: float) -> None:
    pauses = Pauses(limit=900)
    assert [pauses.extend(now, seconds) for now, seconds in requested] == [True] * len(requested)
    assert (pauses.until, pauses.total) == (until, total)


@given(steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30)), max_size=30))
def test_total_is_the_time_spent_paused(steps: list[tuple[int, int]]) -> None:
    pauses = Pauses(limit=10_000)
    now = 0
    paused_seconds: set[int] = set()
    for elapsed, seconds in steps:
        now += elapsed
        pauses.extend(float(now), float(seconds))
        paused_seconds.update(range(now, now + seconds))
    assert pauses.total == len(paused_seconds)


def test_single_pause_is_limited() -> None:
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
    ("failures", "maximum"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (31, 30.0), (100_000, 30.0)]
)
def test_backoff_doubles_up_to_a_maximum(failures: int, maximum: float) -> None:
    backoff = Backoff(random=random.Random(7))  # noqa: S311 - jitter is no secret
    waits = [backoff.delay(failures) for _ in range(500)]
    assert maximum / 2 <= min(waits) < 0.55 * maximum
    assert 0.95 * maximum < max(waits) <= maximum


def test_jitter_uses_the_given_random_generator() -> None:
    def waits(seed: int) -> list[float]:
        backoff = Backoff(base=1.0, maximum=8.0, random=random.Random(seed))  # noqa: S311 - jitter is no secret
        return [backoff.delay(failures) for failures in range(1, 9)]

    assert waits(1) == waits(1) != waits(2)
    assert max(waits(1)) <= 8.0
    assert Backoff().delay(3) != Backoff().delay(3)
