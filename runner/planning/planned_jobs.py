"""What a run would do now with each job of a manifest, why, and at what estimated cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from runner.core.models import Job, Manifest
from runner.core.text import pluralize
from runner.ledger.rows import SubmissionRow
from runner.planning.estimates import EstimateResponse, spent_tokens
from runner.planning.plan import Plan

Action = Literal["submit", "nothing", "look up"]
Reason = Literal[
    "new", "not_created_before", "one_more", "again", "created", "in_doubt", "sending", "disabled", "not_selected"
]

_NO_RESPONSE = EstimateResponse()


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """What a run would do with one job, and why.

    `detail` explains the reason. `run_id` is the run that submitted it before, `job_id` the job that was created.
    `estimate` is in tokens, None if unknown or not requested; `problem` is what a check found wrong.
    """

    job: Job
    action: Action
    reason: Reason
    detail: str = ""
    run_id: str | None = None
    job_id: str | None = None
    estimate: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do: with each job in the manifest's order, then with each of `--again`.

    `spent` are the tokens that the run key has used so far, and `limit` those that it may use. `has_estimates`:
    estimates were requested; `unknown_costs` are the workflows that have none, with the problem. `hints` says what to
    do about a problem that has nothing to do with a workflow.
    """

    manifest: Manifest
    api: str
    run_key: str
    jobs: tuple[PlannedJob, ...]
    spent: int = 0
    limit: int | None = None
    has_estimates: bool = False
    unknown_costs: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)

    def count(self, action: Action) -> int:
        """Return the number of jobs with an action."""
        return sum(job.action == action for job in self.jobs)

    @property
    def estimated_cost(self) -> int:
        """The estimated cost of the jobs to submit, as far as it is known."""
        return sum(job.estimate or 0 for job in self.jobs if job.action == "submit")

    @property
    def exceeds_limit(self) -> bool:
        """Whether the run would be refused for its cost. A run that submits nothing costs nothing."""
        if self.limit is None or not self.has_estimates or not self.count("submit"):
            return False
        return self.spent + self.estimated_cost > self.limit


def build_preview(
    manifest: Manifest,
    api: str,
    run_key: str,
    plan: Plan,
    submissions: Sequence[SubmissionRow],
    response: EstimateResponse = _NO_RESPONSE,
    *,
    has_estimates: bool = False,
    limit: int | None = None,
) -> Preview:
    """Build the preview of a run.

    Args:
        manifest: the manifest.
        api: the API identity.
        run_key: the run key that the run would have.
        plan: the plan of the run.
        submissions: the submissions of the run key.
        response: what the API returned, if it was asked.
        has_estimates: whether it was asked for estimates.
        limit: the tokens that the run key may use.
    """
    estimates, problems = response.estimates, response.problems
    jobs = tuple(_plan_jobs(manifest, plan, submissions))
    if estimates or problems:
        costs = {workflow_id: estimate.cost for workflow_id, estimate in estimates.items()}
        jobs = tuple(
            replace(
                job,
                estimate=costs.get(job.job.workflow_id) if job.action == "submit" else None,
                problem=problems.get(job.job.pair, ""),
            )
            for job in jobs
        )
    needed = {submission.job.workflow_id for submission in plan.to_send}
    needed |= {row.workflow_id for row in submissions if row.may_exist and row.budgeted_cost is None}
    return Preview(
        manifest,
        api,
        run_key,
        jobs,
        spent_tokens(submissions, estimates),
        limit,
        has_estimates,
        {name: estimate.problem for name, estimate in estimates.items() if estimate.cost is None and name in needed},
        response.hints,
    )


def _plan_jobs(manifest: Manifest, plan: Plan, submissions: Sequence[SubmissionRow]) -> Iterator[PlannedJob]:
    to_send = {submission.job.name for submission in plan.to_send if not submission.again}
    counts = Counter(submission.pair for submission in submissions if submission.consumes_slot)
    for job in manifest.jobs:
        submission = plan.match.by_name.get(job.name)
        if job.name in to_send:
            yield _to_submit(job, submission, counts[job.pair])
        elif submission is not None and submission.consumes_slot:
            yield _submitted(job, submission)
        else:
            yield _skipped(job, submission, plan)
    for again in plan.to_send:
        if again.again:
            yield PlannedJob(again.job, "submit", "again", "requested with --again")


def _to_submit(job: Job, submission: SubmissionRow | None, count: int) -> PlannedJob:
    if submission is not None and submission.state == "not_created":
        detail = submission.error.message if submission.error else ""
        return PlannedJob(job, "submit", "not_created_before", detail, submission.run_id)
    if count:
        return PlannedJob(job, "submit", "one_more", f"submitted {pluralize(count, 'time')} so far")
    return PlannedJob(job, "submit", "new")


def _submitted(job: Job, submission: SubmissionRow) -> PlannedJob:
    match submission.state:
        case "created":
            return PlannedJob(job, "nothing", "created", "", submission.run_id, submission.job_id)
        case "in_doubt":
            detail = submission.error.message if submission.error else ""
            return PlannedJob(job, "look up", "in_doubt", detail, submission.run_id)
        case "sending":
            detail = "it is being sent, or its run was killed while sending it"
            return PlannedJob(job, "look up", "sending", detail, submission.run_id)
        case "not_created" | "released":
            raise AssertionError("such a submission consumes no slot")
        case _:
            assert_never(submission.state)


def _skipped(job: Job, submission: SubmissionRow | None, plan: Plan) -> PlannedJob:
    reason: Reason = "not_selected" if job.enabled else "disabled"
    skipped = plan.skipped.get(job.name)
    detail = skipped.detail if skipped else ("not created before" if submission else "")
    return PlannedJob(job, "nothing", reason, detail)
