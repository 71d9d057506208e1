"""Limits: which of override, manifest and default applies, and which overrides are invalid."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from runner.core.errors import UsageError
from runner.core.models import LimitOverrides, Manifest
from runner.core.rate_limit import Rate
from runner.core.settings import Limits, resolve_limits, validate_limits


def resolve(overrides: dict[str, Any], submit: dict[str, Any]) -> Limits:
    manifest = Manifest("m", "m.yaml", "", (), submit=LimitOverrides(**submit))
    return resolve_limits(LimitOverrides(**overrides), manifest)


@pytest.mark.parametrize(
    ("name", "default", "in_manifest", "override"),
    [
        ("concurrency", 8, 2, 3),
        ("rate", None, "2/s", "3/s"),
        ("attempts", 5, 2, 3),
        ("timeout", 30.0, 2.0, 3.0),
        ("stop_after", 10, 2, 3),
        ("stop_after", 10, 2, 0),  # zero is a value
        ("stop_after", 10, 0, None),
        ("max_pause", 900.0, None, 3.0),
        ("max_pause", 900.0, None, 0.0),
    ],
)
def test_limit_precedence_is_override_then_manifest_then_default(
    name: str, default: Any, in_manifest: Any, override: Any
) -> None:
    assert resolve({}, {}) == Limits()
    assert getattr(Limits(), name) == default
    submit = {} if in_manifest is None else {name: in_manifest}
    assert resolve({}, submit) == replace(Limits(), **submit)
    both = submit if override is None else {name: override}
    assert resolve({name: override}, submit) == replace(Limits(), **both)
    assert resolve({name: override}, {}) == (Limits() if override is None else replace(Limits(), **{name: override}))


@pytest.mark.parametrize(("override", "limit"), [(None, 7), (3, 3), (0, 0)])
def test_override_replaces_the_cost_limit_of_the_manifest(override: int | None, limit: int) -> None:
    manifest = Manifest("m", "m.yaml", "", (), max_cost=7)
    assert resolve_limits(LimitOverrides(max_cost=override), manifest).max_cost == limit


def test_rate_is_parsed() -> None:
    assert Limits().parsed_rate is None
    assert Limits(rate="30/min").parsed_rate == Rate(30, 60.0)


@pytest.mark.parametrize(
    "overrides",
    [
        LimitOverrides(),
        LimitOverrides(1, "1/s", 1, 0.1, 0, 0.0, 0),
        LimitOverrides(64, "999999/h", 10**9, 10**9, 10**9, math.inf, 10**18),
    ],
)
def test_valid_limits_are_accepted(overrides: LimitOverrides) -> None:
    validate_limits(overrides)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("concurrency", 0, "Use a whole number from 1 to 64."),
        ("concurrency", 65, "Use a whole number from 1 to 64."),
        ("concurrency", True, "Use a whole number from 1 to 64."),
        ("concurrency", 1.0, "Use a whole number from 1 to 64."),
        ("attempts", 0, "Use a whole number of at least 1."),
        ("attempts", "5", "Use a whole number of at least 1."),
        ("timeout", 0, "Use a number of seconds greater than 0."),
        ("timeout", math.nan, "Use a number of seconds greater than 0."),
        ("timeout", math.inf, "Use a number of seconds greater than 0."),
        ("stop_after", -1, "Use a whole number of at least 0."),
        ("max_pause", -0.5, "Use a number of seconds of at least 0."),
        ("max_cost", 1.5, "Use a whole number of at least 0."),
        ("rate", "5", "Use N/s, N/min or N/h, such as 5/s."),
        ("rate", 5, "Use N/s, N/min or N/h, such as 5/s."),
    ],
)
def test_invalid_limit_is_rejected(name: str, value: Any, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        validate_limits(LimitOverrides(**{name: value}))
    assert (caught.value.message, caught.value.hint) == (f"invalid {name}: {value!r}", hint)
