"""What was probably meant: near words are named, and far ones are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.suggestions import closest_matches

PERIODS = ("run", "hour", "day", "week", "month", "forever")


@pytest.mark.parametrize(
    ("word", "choices", "expected"),
    [
        ("daily", PERIODS, ["day"]),
        ("DAY", PERIODS, ["day"]),
        ("owner", ("once_per", "version"), []),
        ("feild-a", ("field-a", "field-b", "coast"), ["field-a", "field-b"]),
        ("field-a", ("Field-A", "FIELD-A"), ["Field-A", "FIELD-A"]),
        ("RUN", ("run", "runs"), ["run"]),
        ("", PERIODS, []),
        ("day", (), []),
        ("a" * 10_000, ("a" * 100,), ["a" * 100]),
    ],
)
def test_best_match_comes_first(word: str, choices: tuple[str, ...], expected: list[str]) -> None:
    assert closest_matches(word, choices, 3) == expected
    assert closest_matches(word, choices) == expected[:1]


@given(st.text(max_size=20), st.lists(st.text(max_size=10), max_size=8), st.integers(1, 4))
def test_only_choices_are_suggested_and_no_more_than_the_limit(word: str, choices: list[str], limit: int) -> None:
    suggestions = closest_matches(word, choices, limit)
    assert len(suggestions) <= limit
    assert len(set(suggestions)) == len(suggestions)
    assert set(suggestions) <= set(choices)
    assert suggestions or word not in choices
