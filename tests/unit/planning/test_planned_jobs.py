"""What a run would do with each job, why, and what it would cost; and the cost limit."""

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
from runner.planning.cost_limit import check_limit, unknown_cost_error
from runner.planning.estimates import (
    Estimate,
    EstimateResponse,
    spent_tokens,
    with_estimates,
    workflows_to_estimate,
)
from runner.planning.plan import build_plan
from runner.planning.planned_jobs import PlannedJob, Preview, build_preview

API = "https://api.example"
KEY = "day:2026-10-20"

A, B, C = Job("a", "w-1", "p-1"), Job("b", "w-1", "p-2"), Job("c", "w-2", "p-1")
OFF = Job("b", "w-1", "p-2", enabled=False)


def row(job: Job, state: State, ordinal: int = 1, *, again: bool = False, **values: Any) -> SubmissionRow:
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


def preview(
    *jobs: Job,
    submissions: Sequence[SubmissionRow] = (),
    only: Sequence[str] = (),
    again: Sequence[str] = (),
    costs: Mapping[str, int | None] | None = None,
    problems: Mapping[tuple[str, str], str] | None = None,
    limit: int | None = None,
) -> Preview:
    manifest = Manifest("nightly", "nightly.yaml", "0" * 64, jobs)
    response = EstimateResponse({name: estimate(cost) for name, cost in (costs or {}).items()}, problems or {})
    plan = build_plan(manifest, only, submissions, again)
    return build_preview(manifest, API, KEY, plan, submissions, response, has_estimates=costs is not None, limit=limit)


def estimate(cost: int | None) -> Estimate:
    return Estimate(cost, "" if cost is not None else "HTTP 404 Not Found: no estimate")


# The plan for each job.


@pytest.mark.parametrize(
    ("job", "submissions", "expected"),
    [
        pytest.param(A, [], PlannedJob(A, "submit", "new"), id="new"),
        pytest.param(A, [row(A, "released")], PlannedJob(A, "submit", "new"), id="released"),
        pytest.param(
            A,
            [row(A, "not_created")],
            PlannedJob(A, "submit", "not_created_before", "no a", "run-0"),
            id="not_created",
        ),
        pytest.param(
            A,
            [row(A, "not_created", error=None)],
            PlannedJob(A, "submit", "not_created_before", "", "run-0"),
            id="not_created-without-an-error",
        ),
        pytest.param(
            A,
            [row(A, "created")],
            PlannedJob(A, "nothing", "created", "", "run-0", "job-of-a"),
            id="created",
        ),
        pytest.param(
            A,
            [row(Job("old", *A.pair), "created")],
            PlannedJob(A, "nothing", "created", "", "run-0", "job-of-old"),
            id="created-under-another-name",
        ),
        pytest.param(
            A,
            [row(A, "in_doubt")],
            PlannedJob(A, "look up", "in_doubt", "no a", "run-0"),
            id="in-doubt",
        ),
        pytest.param(
            A,
            [row(A, "sending")],
            PlannedJob(A, "look up", "sending", "it is being sent, or its run was killed while sending it", "run-0"),
            id="sending",
        ),
        pytest.param(OFF, [], PlannedJob(OFF, "nothing", "disabled", "disabled in the manifest"), id="disabled"),
        pytest.param(
            OFF,
            [row(OFF, "not_created")],
            PlannedJob(OFF, "nothing", "disabled", "not created before"),
            id="disabled-not_created",
        ),
        pytest.param(
            OFF,
            [row(OFF, "created")],
            PlannedJob(OFF, "nothing", "created", "", "run-0", "job-of-b"),
            id="disabled-created",
        ),
        pytest.param(C, [], PlannedJob(C, "nothing", "not_selected", "matches no --only pattern"), id="not-selected"),
        pytest.param(
            C,
            [row(C, "not_created")],
            PlannedJob(C, "nothing", "not_selected", "not created before"),
            id="not-selected-not_created",
        ),
        pytest.param(
            C,
            [row(C, "in_doubt")],
            PlannedJob(C, "look up", "in_doubt", "no c", "run-0"),
            id="not-selected-in-doubt",
        ),
    ],
)
def test_the_plan_for_a_job(job: Job, submissions: list[SubmissionRow], expected: PlannedJob) -> None:
    other = Job("selected", "w-9", "p-9")
    assert preview(job, other, submissions=submissions, only=["[!c]*"]).jobs[0] == expected


def test_one_more_of_a_pair_tells_how_often_it_was_submitted() -> None:
    second, third = Job("a2", *A.pair), Job("a3", *A.pair)
    submissions = [row(A, "created"), row(second, "in_doubt", 2)]
    assert preview(A, third, submissions=submissions[:1]).jobs[1] == PlannedJob(
        third, "submit", "one_more", "submitted 1 time so far"
    )
    assert preview(A, second, third, submissions=submissions).jobs[2] == PlannedJob(
        third, "submit", "one_more", "submitted 2 times so far"
    )


def test_again_comes_after_all_other_jobs() -> None:
    built = preview(A, B, submissions=[row(A, "created")], again=["a"], costs={"w-1": 7})
    assert built.jobs == (
        PlannedJob(A, "nothing", "created", "", "run-0", "job-of-a"),
        PlannedJob(B, "submit", "new", estimate=7),
        PlannedJob(A, "submit", "again", "requested with --again", estimate=7),
    )
    assert (built.count("submit"), built.count("nothing"), built.count("look up"), built.estimated_cost) == (
        2,
        1,
        0,
        14,
    )


states: st.SearchStrategy[State] = st.sampled_from(["created", "not_created", "in_doubt", "sending", "released"])


@given(
    entries=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7),
    earlier=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3), states), max_size=7),
    only=st.sampled_from([(), ("j*",), ("j0",), ("j[0-3]",)]),
)
def test_every_job_is_in_the_preview_once_and_it_submits_what_is_planned(
    entries: list[tuple[int, bool]], earlier: list[tuple[int, int, State]], only: tuple[str, ...]
) -> None:
    jobs = [Job(f"j{at}", f"w{pair}", "p", enabled=enabled) for at, (pair, enabled) in enumerate(entries)]
    submissions = [
        row(Job(f"j{name}", f"w{pair}", "p"), state, ordinal) for ordinal, (name, pair, state) in enumerate(earlier, 1)
    ]
    manifest = Manifest("nightly", "nightly.yaml", "0" * 64, tuple(jobs))
    plan = build_plan(manifest, only, submissions)
    built = build_preview(manifest, API, KEY, plan, submissions)
    assert [planned.job for planned in built.jobs] == jobs
    to_submit = [planned.job for planned in built.jobs if planned.action == "submit"]
    assert to_submit == [submission.job for submission in plan.to_send]
    looked_up = {planned.job.name for planned in built.jobs if planned.action == "look up"}
    assert looked_up == {name for name, row in plan.match.by_name.items() if row.state in ("in_doubt", "sending")}
    assert {planned.run_id for planned in built.jobs if planned.reason in ("created", "in_doubt")} <= {"run-0"}
    assert Counter(planned.action for planned in built.jobs) == Counter(
        {action: count for action in ("submit", "nothing", "look up") if (count := built.count(action))}
    )


# Costs.


def test_only_jobs_to_submit_have_estimates() -> None:
    submission = row(A, "created", estimate=5, cost=3)
    built = preview(A, B, C, submissions=[submission], costs={"w-1": 5, "w-2": 30}, limit=100)
    assert [job.estimate for job in built.jobs] == [None, 5, 30]
    assert (built.estimated_cost, built.spent, built.limit, built.has_estimates) == (35, 5, 100, True)
    assert built.unknown_costs == {}


def test_a_workflow_without_an_estimate_is_listed_and_adds_nothing() -> None:
    built = preview(A, C, costs={"w-1": None, "w-2": 30})
    assert (built.estimated_cost, built.unknown_costs) == (30, {"w-1": "HTTP 404 Not Found: no estimate"})


def test_without_estimates_there_is_no_cost() -> None:
    built = preview(A, C, limit=1)
    assert (built.has_estimates, built.estimated_cost, built.exceeds_limit) == (False, 0, False)
    check_limit(built, allow_unknown=False)


def test_a_problem_applies_to_every_job_of_the_pair() -> None:
    second = Job("a2", *A.pair)
    built = preview(A, second, C, problems={A.pair: "gone", C.pair: ""})
    assert [job.problem for job in built.jobs] == ["gone", "gone", ""]


@pytest.mark.parametrize(
    ("state", "estimate", "estimated_now", "cost", "spent"),
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
def test_spent_tokens(
    state: State, estimate: int | None, estimated_now: int | None, cost: int | None, spent: int
) -> None:
    estimates = {} if estimated_now is None else {"w-1": Estimate(estimated_now)}
    submission = row(A, state, estimate=estimate, cost=cost)
    assert spent_tokens([submission], estimates) == spent
    again = row(A, "created", 2, again=True, cost=4)
    assert spent_tokens([submission, again], {}) == spent_tokens([submission], {}) + 4


def test_estimates_are_needed_for_jobs_to_send_and_for_earlier_ones_without() -> None:
    submissions = [
        row(Job("x", "w-3", "p"), "created", cost=5),
        row(Job("x", "w-4", "p"), "in_doubt", 2),
        row(Job("x", "w-5", "p"), "created", 3, estimate=0),
        row(Job("x", "w-6", "p"), "not_created", 4),
    ]
    plan = build_plan(Manifest("nightly", "-", "", (A, C, OFF)), (), submissions)
    assert workflows_to_estimate(plan, submissions) == ["w-1", "w-2", "w-3", "w-4"]


def test_with_estimates() -> None:
    to_send = [Submission(A, 1), Submission(C, 2, again=True)]
    assert with_estimates(to_send, {"w-1": Estimate(5), "w-2": Estimate(None, "?")}) == (
        Submission(A, 1, estimate=5),
        Submission(C, 2, again=True),
    )


# The limit.


def refusal(built: Preview, *, allow_unknown: bool = False) -> tuple[str, str]:
    with pytest.raises(RefusedError) as caught:
        check_limit(built, allow_unknown=allow_unknown)
    return caught.value.message, caught.value.hint


def test_the_refusal_names_the_estimate_the_limit_and_the_most_expensive_jobs() -> None:
    jobs = [Job(f"j{number}", f"w-{number}", "p") for number in range(5)]
    built = preview(*jobs, costs={f"w-{number}": cost for number, cost in enumerate((10, 50, 0, 70, 20))}, limit=149)
    assert refusal(built) == (
        "the estimated cost of 5 jobs is 150 tokens, which exceeds max_cost 149; nothing was sent",
        "Select fewer jobs with --only, or raise the limit. Most expensive: j3 70, j1 50, j4 20.",
    )


def test_tokens_spent_by_the_run_key_count_and_are_named() -> None:
    built = preview(A, C, submissions=[row(A, "created", estimate=5, cost=90)], costs={"w-2": 11}, limit=100)
    assert built.exceeds_limit
    message, hint = refusal(built)
    assert message == (
        "the estimated cost of 1 job is 11 tokens, on top of 90 spent for the day 2026-10-20, which exceeds "
        "max_cost 100; nothing was sent"
    )
    assert hint == "Select fewer jobs with --only, or raise the limit. Most expensive: c 11."


def test_above_the_limit_a_job_that_costs_nothing_is_refused_too() -> None:
    built = preview(A, C, submissions=[row(A, "created", cost=101)], costs={"w-1": 1, "w-2": 0}, limit=100)
    assert refusal(built)[1] == "Select fewer jobs with --only, or raise the limit."


@pytest.mark.parametrize("limit", [35, 36, None])
def test_a_cost_up_to_the_limit_is_allowed(limit: int | None) -> None:
    built = preview(A, C, costs={"w-1": 5, "w-2": 30}, limit=limit)
    assert not built.exceeds_limit
    check_limit(built, allow_unknown=False)


def test_a_run_that_sends_nothing_is_not_refused_for_what_was_spent_before() -> None:
    built = preview(A, submissions=[row(A, "created", cost=500)], costs={}, limit=100)
    assert (built.spent, built.exceeds_limit) == (500, False)
    check_limit(built, allow_unknown=False)


def test_unknown_costs_are_refused_under_a_limit() -> None:
    costs: dict[str, int | None] = {f"w-{number}": None for number in range(5)}
    jobs = [Job(f"j{number}", f"w-{number}", "p") for number in range(5)]
    message, hint = refusal(preview(*jobs, costs=costs, limit=100))
    assert message == (
        "the cost of 5 workflows is unknown, and max_cost is 100; nothing was sent "
        "(w-0, w-1, w-2 and 2 more: HTTP 404 Not Found: no estimate)"
    )
    assert "--allow-unknown-cost" in hint
    assert "the cost of 1 workflow is unknown" in refusal(preview(A, costs={"w-1": None}, limit=100))[0]


def test_unknown_costs_are_grouped_by_problem() -> None:
    manifest = Manifest("nightly", "-", "", ())
    unknown = {"w-1": "no connection", "w-2": "HTTP 404", "w-3": "no connection", "w-4": "no cost", "w-5": "late"}
    built = Preview(manifest, API, KEY, (), unknown_costs=unknown, hints={"no connection": "Check the network."})
    error = unknown_cost_error(built)
    assert error.message == "the cost of 5 workflows is unknown (w-1, w-3: no connection; w-2: HTTP 404; w-4: no cost)"
    assert error.hint == "Check the network. To submit jobs of unknown cost, pass --allow-unknown-cost."


def test_an_unknown_cost_that_is_not_needed_is_ignored() -> None:
    created = row(Job("old", "w-9", "p"), "created", cost=5)
    unknown = row(Job("older", "w-8", "p"), "in_doubt", 2)
    built = preview(A, submissions=[created, unknown], costs={"w-1": 3, "w-8": None, "w-9": None}, limit=100)
    assert built.unknown_costs == {"w-8": "HTTP 404 Not Found: no estimate"}


def test_unknown_costs_may_be_allowed_and_known_ones_count() -> None:
    check_limit(preview(A, C, costs={"w-1": None, "w-2": 100}, limit=100), allow_unknown=True)
    built = preview(A, C, costs={"w-1": None, "w-2": 101}, limit=100)
    assert "the estimated cost of 2 jobs is 101 tokens" in refusal(built, allow_unknown=True)[0]


def test_unknown_costs_without_a_limit_are_allowed() -> None:
    check_limit(preview(A, costs={"w-1": None}), allow_unknown=False)
