"""Parsing and sampling the sandbox's faults."""

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
def test_parse_fault(text: str, fault: Fault) -> None:
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
def test_invalid_faults_are_rejected_with_the_list_of_kinds(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault(text)
    assert f"--fault {text}" in caught.value.message
    assert all(kind in caught.value.hint for kind in FAULT_KINDS)
    assert caught.value.exit_code is Exit.USAGE


def test_shares_may_sum_to_1_despite_rounding() -> None:
    faults = [Fault("slow", 0.1)] * 7 + [Fault("reset", 0.3)]
    assert check_shares(faults) == tuple(faults)


def test_shares_must_not_sum_to_more_than_1() -> None:
    with pytest.raises(UsageError, match=r"1\.2"):
        check_shares([Fault("slow", 0.6), Fault("reset", 0.6)])
    with pytest.raises(UsageError, match=r"1\.2"):
        check_shares([Fault("failure", 0.6), Fault("failure", 0.6)])


def test_job_failures_do_not_count_towards_response_faults() -> None:
    faults = [Fault("slow", 0.6), Fault("failure", 1), Fault("reset", 0.4)]
    assert check_shares(faults) == tuple(faults)


@pytest.mark.parametrize(
    ("number", "kind"), [(0.0, "slow"), (0.24, "slow"), (0.25, "reset"), (0.49, "reset"), (0.5, None), (0.99, None)]
)
def test_select_fault(number: float, kind: str | None) -> None:
    fault = select_fault((Fault("slow", 0.25), Fault("reset", 0.25)), number)
    assert (fault and fault.kind) == kind


def test_faults_are_selected_in_proportion_to_their_shares() -> None:
    faults = (Fault("slow", 0.2), Fault("reset", 0.1))
    generator = random.Random(7)  # noqa: S311 - the same numbers each time
    selected = [select_fault(faults, generator.random()) for _ in range(10_000)]
    assert selected.count(faults[0]) == pytest.approx(2000, abs=200)
    assert selected.count(faults[1]) == pytest.approx(1000, abs=200)


def test_the_same_seed_gives_the_same_samples() -> None:
    faults = (Fault("reset", 0.5), Fault("failure", 0.5))

    def samples(seed: int) -> list[tuple[str, ...]]:
        sampler = FaultSampler(faults, seed)
        return [tuple(sampler.sample()) for _ in range(50)]

    assert samples(1) == samples(1)
    assert samples(1) != samples(2)


def test_response_faults_and_job_failures_are_independent() -> None:
    sampler = FaultSampler([Fault("failure", 0.4), Fault("reset", 0.5)], 7)
    samples = [tuple(sampler.sample()) for _ in range(10_000)]
    assert samples.count(("reset", "failure")) == pytest.approx(2000, abs=200)
    assert samples.count(("reset",)) == pytest.approx(3000, abs=200)
    assert samples.count(("failure",)) == pytest.approx(2000, abs=200)
    assert samples.count(()) == pytest.approx(3000, abs=200)


@pytest.mark.parametrize("more", [[], [Fault("failure", 0.5)]])
def test_adding_job_failures_does_not_change_which_responses_fail(more: list[Fault]) -> None:
    sampler = FaultSampler([Fault("reset", 0.5), *more], 7)
    generator = random.Random(7)  # noqa: S311 - the numbers of a sandbox without failures
    assert ["reset" in sampler.sample() for _ in range(100)] == [generator.random() < 0.5 for _ in range(100)]


def test_a_sample_includes_the_seconds() -> None:
    assert FaultSampler([Fault("slow", 1, 5)], 7).sample() == {"slow": Fault("slow", 1, 5)}


def test_rate_limit_excludes_job_failure() -> None:
    assert list(FaultSampler([Fault("rate-limit", 1, 1), Fault("failure", 1)], 7).sample()) == ["rate-limit"]
