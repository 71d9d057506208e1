"""What a run would do with each job, why, and what that would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.errors import RefusedError
from runner.core.models import ErrorInfo, Job, Manifest, Submission
from runner.ledger.rows import State, SubmissionRow
from runner.planning import cost_limit, plan, planned_jobs
from runner.planning import estimates as costs
from runner.planning.estimates import Estimate
from runner.planning.planned_jobs import PlannedJob, Preview

API = "https://api.example"
KEY = "day:2026-10-20"

A, B, C = Job("a", "w-1", "p-1"), Job("b", "w-1", "p-2"), Job("c", "w-2", "p-1")
OFF = Job("b", "w-1", "p-2", enabled=False)


def standing(job: Job, state: State, ordinal: int = 1, *, again: bool = False, **values: Any) -> SubmissionRow:
    given: dict[str, Any] = {
        "run_id": "run-0",
        "estimate": None,
        "cost": None,
        "job_id": f"job-of-{job.name}" if state == "created" else None,
        "error": ErrorInfo("rejected", f"no {job.name}") if state in ("not_created", "in_doubt") else None,
        **values,
    }
    return SubmissionRow(
        id=ordinal, api=API, manifest="nightly", run_key=KEY, name=job.name, workflow_id=job.workflow_id,
        project_id=job.project_id, ordinal=ordinal, again=again, labels={}, state=state, attempts=1,
        claimed_at=datetime(2026, 5, 4, tzinfo=UTC), ended_at=None, timeout=30.0, val_errors=0, recovered=False,
        assigned=True, candidates=(), **given,
    )  # fmt: skip


def make(
    *jobs: Job,
    standings: Sequence[SubmissionRow] = (),
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    costs: Mapping[str, int | None] | None = None,
    problems: Mapping[tuple[str, str], str] | None = None,
    limit: int | None = None,
) -> Preview:
    manifest = Manifest("nightly", "nightly.yaml", "0" * 64, jobs)
    estimates = None if costs is None else {one: estimate(cost) for one, cost in costs.items()}
    planned = plan.build_plan(manifest, only, standings, again)
    return planned_jobs.build_preview(manifest, API, KEY, planned, standings, estimates, problems, limit)


def estimate(cost: int | None) -> Estimate:
    return Estimate(cost, "" if cost is not None else "HTTP 404 Not Found: no estimate")


# What would become of each job.


@pytest.mark.parametrize(
    ("job", "standings", "expected"),
    [
        pytest.param(A, [], PlannedJob(A, "submit", "new"), id="new"),
        pytest.param(A, [standing(A, "released")], PlannedJob(A, "submit", "new"), id="released"),
        pytest.param(
            A,
            [standing(A, "not_created")],
            PlannedJob(A, "submit", "not_created_before", "no a", "run-0"),
            id="not_created",
        ),
        pytest.param(
            A,
            [standing(A, "not_created", error=None)],
            PlannedJob(A, "submit", "not_created_before", "", "run-0"),
            id="unknown-why",
        ),
        pytest.param(
            A,
            [standing(A, "created")],
            PlannedJob(A, "nothing", "created", "", "run-0", "job-of-a"),
            id="created",
        ),
        pytest.param(
            A,
            [standing(Job("old", *A.pair), "created")],
            PlannedJob(A, "nothing", "created", "", "run-0", "job-of-old"),
            id="created-under-another-name",
        ),
        pytest.param(
            A,
            [standing(A, "in_doubt")],
            PlannedJob(A, "look up", "in_doubt", "no a", "run-0"),
            id="in-doubt",
        ),
        pytest.param(
            A,
            [standing(A, "sending")],
            PlannedJob(A, "look up", "sending", "it is being sent, or its run was killed meanwhile", "run-0"),
            id="sending",
        ),
        pytest.param(OFF, [], PlannedJob(OFF, "nothing", "disabled", "enabled: false in the manifest"), id="disabled"),
        pytest.param(
            OFF,
            [standing(OFF, "not_created")],
            PlannedJob(OFF, "nothing", "disabled", "it was not created before"),
            id="disabled-failed",
        ),
        pytest.param(
            OFF,
            [standing(OFF, "created")],
            PlannedJob(OFF, "nothing", "created", "", "run-0", "job-of-b"),
            id="disabled-created",
        ),
        pytest.param(C, [], PlannedJob(C, "nothing", "not_selected", "its name matches no --only"), id="not-selected"),
        pytest.param(
            C,
            [standing(C, "not_created")],
            PlannedJob(C, "nothing", "not_selected", "it was not created before"),
            id="not-selected-failed",
        ),
        pytest.param(
            C,
            [standing(C, "in_doubt")],
            PlannedJob(C, "look up", "in_doubt", "no c", "run-0"),
            id="not-selected-in-doubt",
        ),
    ],
)
def test_what_would_become_of_a_job(job: Job, standings: list[SubmissionRow], expected: PlannedJob) -> None:
    other = Job("selected", "w-9", "p-9")
    assert make(job, other, standings=standings, only=["[!c]*"]).jobs[0] == expected


def test_one_more_of_a_pair_says_how_many_there_are() -> None:
    second, third = Job("a2", *A.pair), Job("a3", *A.pair)
    bought = [standing(A, "created"), standing(second, "in_doubt", 2)]
    assert make(A, third, standings=bought[:1]).jobs[1] == PlannedJob(
        third, "submit", "one_more", "bought 1 time so far"
    )
    assert make(A, second, third, standings=bought).jobs[2] == PlannedJob(
        third, "submit", "one_more", "bought 2 times so far"
    )


def test_again_is_a_prospect_of_its_own_after_all_others() -> None:
    made = make(A, B, standings=[standing(A, "created")], again=["a"], costs={"w-1": 7})
    assert made.jobs == (
        PlannedJob(A, "nothing", "created", "", "run-0", "job-of-a"),
        PlannedJob(B, "submit", "new", estimate=7),
        PlannedJob(A, "submit", "again", "asked for with --again", estimate=7),
    )
    assert (made.count("submit"), made.count("nothing"), made.count("look up"), made.estimated_cost) == (2, 1, 0, 14)


states: st.SearchStrategy[State] = st.sampled_from(["created", "not_created", "in_doubt", "sending", "released"])


@given(
    entries=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7),
    past=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3), states), max_size=7),
    only=st.sampled_from([(), ("j*",), ("j0",), ("j[0-3]",)]),
)
def test_every_job_has_one_prospect_and_what_is_submitted_is_what_is_planned(
    entries: list[tuple[int, bool]], past: list[tuple[int, int, State]], only: tuple[str, ...]
) -> None:
    jobs = [Job(f"j{at}", f"w{pair}", "p", enabled=enabled) for at, (pair, enabled) in enumerate(entries)]
    standings = [
        standing(Job(f"j{name}", f"w{pair}", "p"), state, ordinal)
        for ordinal, (name, pair, state) in enumerate(past, 1)
    ]
    manifest = Manifest("nightly", "nightly.yaml", "0" * 64, tuple(jobs))
    planned = plan.build_plan(manifest, only, standings)
    made = planned_jobs.build_preview(manifest, API, KEY, planned, standings)
    assert [one.job for one in made.jobs] == jobs
    assert [one.job for one in made.jobs if one.action == "submit"] == [one.job for one in planned.to_send]
    looked_up = [one.job.name for one in made.jobs if one.action == "look up"]
    doubts = {name for name, of in planned.match.by_name.items() if of.state in ("in_doubt", "sending")}
    assert set(looked_up) == doubts
    assert {one.run_id for one in made.jobs if one.reason in ("created", "in_doubt")} <= {"run-0"}
    assert Counter(one.action for one in made.jobs) == Counter(
        {action: count for action in ("submit", "nothing", "look up") if (count := made.count(action))}
    )


# What it would cost.


def test_costs_are_of_what_is_submitted_alone() -> None:
    bought = standing(A, "created", estimate=5, cost=3)
    made = make(A, B, C, standings=[bought], costs={"w-1": 5, "w-2": 30}, limit=100)
    assert [one.estimate for one in made.jobs] == [None, 5, 30]
    assert (made.estimated_cost, made.spent, made.limit, made.has_estimates) == (35, 5, 100, True)
    assert made.unknown_costs is None


def test_what_is_not_known_is_named_and_counts_as_nothing() -> None:
    made = make(A, C, costs={"w-1": None, "w-2": 30})
    assert (made.estimated_cost, made.unknown_costs) == (30, {"w-1": "HTTP 404 Not Found: no estimate"})


def test_without_asking_nothing_is_priced() -> None:
    made = make(A, C, limit=1)
    assert (made.has_estimates, made.estimated_cost, made.exceeds_limit) == (False, 0, False)
    cost_limit.check_limit(made, allow_unknown=False)


def test_problems_go_to_every_job_of_the_pair() -> None:
    twin = Job("a2", *A.pair)
    made = make(A, twin, C, problems={A.pair: "gone", C.pair: ""})
    assert [one.problem for one in made.jobs] == ["gone", "gone", ""]


@pytest.mark.parametrize(
    ("state", "estimate", "told", "cost", "spent"),
    [
        ("created", 10, 99, 25, 25),
        ("created", 10, 99, 0, 10),
        ("created", 10, 99, None, 10),
        ("created", None, 99, 0, 99),
        ("created", None, 99, 120, 120),
        ("created", None, None, 7, 7),
        ("created", None, None, None, 0),
        ("created", 10, 99, -5, 10),
        ("in_doubt", 10, 99, None, 10),
        ("in_doubt", None, 99, None, 99),
        ("sending", 10, 99, None, 10),
        ("not_created", 10, 99, None, 0),
        ("released", 10, 99, None, 0),
    ],
)
def test_what_is_spent(state: State, estimate: int | None, told: int | None, cost: int | None, spent: int) -> None:
    estimates = {} if told is None else {"w-1": Estimate(told)}
    one = standing(A, state, estimate=estimate, cost=cost)
    assert costs.spent_tokens([one], estimates) == spent
    assert costs.spent_tokens([one, standing(A, "created", 2, again=True, cost=4)], {}) == (
        costs.spent_tokens([one], {}) + 4
    )


def test_estimates_are_needed_of_what_is_sent_and_of_what_was_bought_without() -> None:
    standings = [
        standing(Job("x", "w-3", "p"), "created", cost=5),
        standing(Job("x", "w-4", "p"), "in_doubt", 2),
        standing(Job("x", "w-5", "p"), "created", 3, estimate=0),
        standing(Job("x", "w-6", "p"), "not_created", 4),
    ]
    planned = plan.build_plan(Manifest("nightly", "-", "", (A, C, OFF)), (), standings)
    assert costs.workflows_to_estimate(planned, standings) == ["w-1", "w-2", "w-3", "w-4"]


def test_submissions_are_given_their_estimates() -> None:
    sends = [Submission(A, 1), Submission(C, 2, again=True)]
    assert costs.with_estimates(sends, {"w-1": Estimate(5), "w-2": Estimate(None, "?")}) == (
        Submission(A, 1, estimate=5),
        Submission(C, 2, again=True),
    )


# What is refused.


def refusal(made: Preview, *, allow_unknown: bool = False) -> tuple[str, str]:
    with pytest.raises(RefusedError) as caught:
        cost_limit.check_limit(made, allow_unknown=allow_unknown)
    return caught.value.message, caught.value.hint


def test_above_the_limit_the_estimate_the_limit_and_the_dearest_are_named() -> None:
    jobs = [Job(f"j{number}", f"w-{number}", "p") for number in range(5)]
    made = make(*jobs, costs={f"w-{number}": cost for number, cost in enumerate((10, 50, 0, 70, 20))}, limit=149)
    assert refusal(made) == (
        "the estimate for 5 jobs is 150 tokens: above max_cost 149, so nothing was sent",
        "The dearest: j3 70, j1 50, j4 20. Submit fewer with --only, or raise the limit.",
    )


def test_what_the_run_key_has_used_counts_and_is_named() -> None:
    made = make(A, C, standings=[standing(A, "created", estimate=5, cost=90)], costs={"w-2": 11}, limit=100)
    assert made.exceeds_limit
    message, hint = refusal(made)
    assert message == (
        "the estimate for 1 job is 11 tokens, after 90 spent for the day 2026-10-20: above max_cost 100, so nothing "
        "was sent"
    )
    assert hint == "The dearest: c 11. Submit fewer with --only, or raise the limit."


def test_where_all_is_used_up_what_costs_nothing_is_refused_too() -> None:
    made = make(A, C, standings=[standing(A, "created", cost=101)], costs={"w-1": 1, "w-2": 0}, limit=100)
    assert "The dearest: what was bought before." in refusal(made)[1]


@pytest.mark.parametrize("limit", [35, 36, None])
def test_up_to_the_limit_nothing_is_refused(limit: int | None) -> None:
    made = make(A, C, costs={"w-1": 5, "w-2": 30}, limit=limit)
    assert not made.exceeds_limit
    cost_limit.check_limit(made, allow_unknown=False)


def test_a_run_that_sends_nothing_is_not_refused_for_what_was_spent_before() -> None:
    made = make(A, standings=[standing(A, "created", cost=500)], costs={}, limit=100)
    assert (made.spent, made.exceeds_limit) == (500, False)
    cost_limit.check_limit(made, allow_unknown=False)


def test_unknown_costs_are_refused_under_a_limit_and_named() -> None:
    costs: dict[str, int | None] = {f"w-{number}": None for number in range(5)}
    jobs = [Job(f"j{number}", f"w-{number}", "p") for number in range(5)]
    why = "HTTP 404 Not Found: no estimate"
    message, hint = refusal(make(*jobs, costs=costs, limit=100))
    assert message == (
        "what 5 workflows would cost is not known, and max_cost is 100: nothing was sent "
        f"(w-0, w-1, w-2 and 2 more: {why})"
    )
    assert "--allow-unknown-cost" in hint
    assert "what 1 workflow would cost" in refusal(make(A, costs={"w-1": None}, limit=100))[0]


def test_unknown_costs_of_several_kinds_are_told_by_what_is_wrong() -> None:
    manifest = Manifest("nightly", "-", "", ())
    unpriced = {"w-1": "no connection", "w-2": "HTTP 404", "w-3": "no connection", "w-4": "no cost", "w-5": "late"}
    made = Preview(manifest, API, KEY, (), unknown_costs=unpriced, remedies={"no connection": "Check the network."})
    error = cost_limit.unknown_cost_error(made)
    assert error.message == (
        "what 5 workflows would cost is not known (w-1, w-3: no connection; w-2: HTTP 404; w-4: no cost)"
    )
    assert error.hint == "Check the network. Jobs of unknown cost are sent with --allow-unknown-cost."


def test_the_cost_of_what_is_neither_sent_nor_counted_matters_to_nobody() -> None:
    bought = standing(Job("old", "w-9", "p"), "created", cost=5)
    unknown = standing(Job("older", "w-8", "p"), "in_doubt", 2)
    made = make(A, standings=[bought, unknown], costs={"w-1": 3, "w-8": None, "w-9": None}, limit=100)
    assert made.unknown_costs == {"w-8": "HTTP 404 Not Found: no estimate"}


def test_unknown_costs_may_be_allowed_and_what_is_known_counts() -> None:
    cost_limit.check_limit(make(A, C, costs={"w-1": None, "w-2": 100}, limit=100), allow_unknown=True)
    made = make(A, C, costs={"w-1": None, "w-2": 101}, limit=100)
    assert "the estimate for 2 jobs is 101 tokens" in refusal(made, allow_unknown=True)[0]


def test_unknown_costs_without_a_limit_are_no_matter() -> None:
    cost_limit.check_limit(make(A, costs={"w-1": None}), allow_unknown=False)
