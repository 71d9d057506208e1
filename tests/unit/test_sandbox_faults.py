"""The sandbox's faults: what a person may write, and which roll meets which fault."""

from __future__ import annotations

import random

import pytest

from runner.errors import Exit, UsageError
from runner.sandbox.faults import KINDS, Fault, checked, draw, parse_fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("rate-limit=0.25", Fault("rate-limit", 0.25, 1)),
        ("rate-limit:7=1", Fault("rate-limit", 1, 7)),
        ("bad-gateway=10%", Fault("bad-gateway", 0.1)),
        ("reset=0", Fault("reset", 0)),
        ("slow=.5", Fault("slow", 0.5, 2)),
        ("slow:0.05=100%", Fault("slow", 1, 0.05)),
        (" slow:5 = 5 %", Fault("slow", 0.05, 5)),
    ],
)
def test_a_fault_is_read(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "slow",
        "sloww=0.1",
        "=0.1",
        "slow=",
        "slow=lots",
        "slow=nan",
        "slow=-0.1",
        "slow=1.01",
        "slow=101%",
        "slow:=0.1",
        "slow:-1=0.1",
        "slow:inf=0.1",
        "slow:4000=0.1",
        "rate-limit:1.5=0.1",
        "reset:2=0.1",
    ],
)
def test_what_is_no_fault_is_an_error_that_names_the_kinds(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault(text)
    assert f"--fault {text}" in caught.value.message
    assert all(kind in caught.value.hint for kind in KINDS)
    assert caught.value.exit_code is Exit.USAGE


def test_shares_that_sum_to_the_whole_are_taken_though_floats_do_not_sum_exactly() -> None:
    faults = [Fault("slow", 0.1)] * 7 + [Fault("reset", 0.3)]
    assert checked(faults) == tuple(faults)


def test_shares_over_the_whole_are_refused() -> None:
    with pytest.raises(UsageError, match=r"1\.2"):
        checked([Fault("slow", 0.6), Fault("reset", 0.6)])


@pytest.mark.parametrize(
    ("roll", "kind"), [(0.0, "slow"), (0.24, "slow"), (0.25, "reset"), (0.49, "reset"), (0.5, None), (0.99, None)]
)
def test_a_roll_meets_the_fault_whose_stretch_it_falls_in(roll: float, kind: str | None) -> None:
    met = draw((Fault("slow", 0.25), Fault("reset", 0.25)), roll)
    assert (met and met.kind) == kind


def test_a_share_is_what_is_met_in_the_long_run() -> None:
    faults = (Fault("slow", 0.2), Fault("reset", 0.1))
    rolls = random.Random(7)  # noqa: S311 - the same rolls each time
    met = [draw(faults, rolls.random()) for _ in range(10_000)]
    assert met.count(faults[0]) == pytest.approx(2000, abs=200)
    assert met.count(faults[1]) == pytest.approx(1000, abs=200)
