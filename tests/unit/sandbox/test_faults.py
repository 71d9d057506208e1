"""The sandbox's faults: what a person may write, and which roll meets which fault."""

from __future__ import annotations

import random

import pytest

from runner.core.errors import UsageError
from runner.core.exit_codes import Exit
from runner.sandbox.faults import FAULT_KINDS, Fault, FaultSampler, check_shares, parse_fault, select_fault


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
        ("failure=25%", Fault("failure", 0.25)),
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
        "failure:2=0.1",
        "failure=2",
    ],
)
def test_what_is_no_fault_is_an_error_that_names_the_kinds(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault(text)
    assert f"--fault {text}" in caught.value.message
    assert all(kind in caught.value.hint for kind in FAULT_KINDS)
    assert caught.value.exit_code is Exit.USAGE


def test_shares_that_sum_to_the_whole_are_taken_though_floats_do_not_sum_exactly() -> None:
    faults = [Fault("slow", 0.1)] * 7 + [Fault("reset", 0.3)]
    assert check_shares(faults) == tuple(faults)


def test_shares_over_the_whole_are_refused() -> None:
    with pytest.raises(UsageError, match=r"1\.2"):
        check_shares([Fault("slow", 0.6), Fault("reset", 0.6)])
    with pytest.raises(UsageError, match=r"1\.2"):
        check_shares([Fault("failure", 0.6), Fault("failure", 0.6)])


def test_failures_leave_the_whole_to_the_faults_of_answers() -> None:
    faults = [Fault("slow", 0.6), Fault("failure", 1), Fault("reset", 0.4)]
    assert check_shares(faults) == tuple(faults)


@pytest.mark.parametrize(
    ("roll", "kind"), [(0.0, "slow"), (0.24, "slow"), (0.25, "reset"), (0.49, "reset"), (0.5, None), (0.99, None)]
)
def test_a_roll_meets_the_fault_whose_stretch_it_falls_in(roll: float, kind: str | None) -> None:
    met = select_fault((Fault("slow", 0.25), Fault("reset", 0.25)), roll)
    assert (met and met.kind) == kind


def test_a_share_is_what_is_met_in_the_long_run() -> None:
    faults = (Fault("slow", 0.2), Fault("reset", 0.1))
    rolls = random.Random(7)  # noqa: S311 - the same rolls each time
    met = [select_fault(faults, rolls.random()) for _ in range(10_000)]
    assert met.count(faults[0]) == pytest.approx(2000, abs=200)
    assert met.count(faults[1]) == pytest.approx(1000, abs=200)


def test_the_same_seed_gives_the_same_throws() -> None:
    faults = (Fault("reset", 0.5), Fault("failure", 0.5))

    def throws(seed: int) -> list[tuple[str, ...]]:
        dice = FaultSampler(faults, seed)
        return [tuple(dice.sample()) for _ in range(50)]

    assert throws(1) == throws(1)
    assert throws(1) != throws(2)


def test_each_fault_is_met_with_and_without_a_failure() -> None:
    dice = FaultSampler([Fault("failure", 0.4), Fault("reset", 0.5)], 7)
    met = [tuple(dice.sample()) for _ in range(10_000)]
    assert met.count(("reset", "failure")) == pytest.approx(2000, abs=200)
    assert met.count(("reset",)) == pytest.approx(3000, abs=200)
    assert met.count(("failure",)) == pytest.approx(2000, abs=200)
    assert met.count(()) == pytest.approx(3000, abs=200)


@pytest.mark.parametrize("more", [[], [Fault("failure", 0.5)]])
def test_asking_for_failures_changes_nothing_about_which_answers_go_wrong(more: list[Fault]) -> None:
    dice = FaultSampler([Fault("reset", 0.5), *more], 7)
    rolls = random.Random(7)  # noqa: S311 - the rolls of a sandbox without failures
    assert ["reset" in dice.sample() for _ in range(100)] == [rolls.random() < 0.5 for _ in range(100)]


def test_a_throw_tells_the_seconds_of_what_is_met() -> None:
    assert FaultSampler([Fault("slow", 1, 5)], 7).sample() == {"slow": Fault("slow", 1, 5)}


def test_what_creates_no_job_meets_no_failure() -> None:
    assert list(FaultSampler([Fault("rate-limit", 1, 1), Fault("failure", 1)], 7).sample()) == ["rate-limit"]
