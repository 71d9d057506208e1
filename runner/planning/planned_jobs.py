"""What a run would do now with each job of a manifest, and what that would cost. Pure, but for what is asked for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from runner.core.models import Job, Manifest
from runner.ledger.rows import SubmissionRow
from runner.planning.estimates import Estimate, spent_tokens
from runner.planning.plan import Plan

Action = Literal["submit", "nothing", "look up"]
Reason = Literal[
    "new", "not_created_before", "one_more", "again", "created", "in_doubt", "sending", "disabled", "not_selected"
]


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """What a run would do with one job, and why.

    `detail` is for a person. `run_id` and `job_id` say which run created it, and as what. `estimate` is in tokens,
    None where it was not asked for, or is not known; `problem` is what a check found wrong.
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
    """What a run would do: a prospect for each job in manifest order, then one for each of `--again`.

    `spent` are the tokens that the run key has used so far, `limit` those that it may use; `unpriced` are workflows
    whose cost was asked for and is not known, with the reason. `priced`: costs were asked for. `remedies` says what to
    do about a reason that is not about a workflow.
    """

    manifest: Manifest
    api: str
    run_key: str
    jobs: tuple[PlannedJob, ...]
    spent: int = 0
    limit: int | None = None
    has_estimates: bool = False
    unknown_costs: Mapping[str, str] | None = None
    remedies: Mapping[str, str] = field(default_factory=dict)

    def count(self, action: Action) -> int:
        """How many jobs a run would do this with."""
        return sum(one.action == action for one in self.jobs)

    @property
    def estimated_cost(self) -> int:
        """What the jobs that would be submitted are expected to cost, as far as that is known."""
        return sum(one.estimate or 0 for one in self.jobs if one.action == "submit")

    @property
    def exceeds_limit(self) -> bool:
        """Whether a run would be refused for its cost; one that sends nothing costs nothing."""
        if self.limit is None or not self.has_estimates or not self.count("submit"):
            return False
        return self.spent + self.estimated_cost > self.limit


def build_preview(
    manifest: Manifest,
    api: str,
    run_key: str,
    plan: Plan,
    standings: Sequence[SubmissionRow],
    estimates: Mapping[str, Estimate] | None = None,
    problems: Mapping[tuple[str, str], str] | None = None,
    limit: int | None = None,
) -> Preview:
    """Say what a run would do.

    Args:
        manifest: what is wanted.
        api: the API identity.
        run_key: the run key that a run would have.
        plan: what `plan.make` makes of all that.
        standings: the submissions of the run key.
        estimates: by workflow, if they were asked for.
        problems: by pair, if they were asked for.
        limit: the tokens that the run key may use.
    """
    told, found = estimates or {}, problems or {}
    prospects = tuple(_prospects(manifest, plan, standings))
    if told or found:
        prospects = tuple(
            replace(one, estimate=_cost(one, told), problem=found.get(one.job.pair, "")) for one in prospects
        )
    needed = {one.job.workflow_id for one in plan.to_send}
    needed |= {one.workflow_id for one in standings if one.may_exist and one.budgeted_cost is None}
    unpriced = {name: one.problem for name, one in told.items() if one.cost is None and name in needed}
    return Preview(
        manifest,
        api,
        run_key,
        prospects,
        spent_tokens(standings, told),
        limit,
        estimates is not None,
        unpriced or None,
    )


def _cost(prospect: PlannedJob, estimates: Mapping[str, Estimate]) -> int | None:
    if prospect.action != "submit" or prospect.job.workflow_id not in estimates:
        return None
    return estimates[prospect.job.workflow_id].cost


def _prospects(manifest: Manifest, plan: Plan, standings: Sequence[SubmissionRow]) -> Iterator[PlannedJob]:
    sends = {one.job.name: one for one in plan.to_send if not one.again}
    bought = Counter(one.pair for one in standings if one.consumes_slot)
    for job in manifest.jobs:
        standing = plan.match.by_name.get(job.name)
        if job.name in sends:
            yield _to_send(job, standing, bought[job.pair])
        elif standing is not None and standing.consumes_slot:
            yield _bought(job, standing)
        else:
            yield _left(job, standing, plan)
    for one in plan.to_send:
        if one.again:
            yield PlannedJob(one.job, "submit", "again", "asked for with --again")


def _to_send(job: Job, standing: SubmissionRow | None, bought: int) -> PlannedJob:
    if standing is not None and standing.state == "not_created":
        detail = standing.error.message if standing.error else ""
        return PlannedJob(job, "submit", "not_created_before", detail, standing.run_id)
    if bought:
        return PlannedJob(job, "submit", "one_more", f"bought {bought} time{'' if bought == 1 else 's'} so far")
    return PlannedJob(job, "submit", "new")


def _bought(job: Job, standing: SubmissionRow) -> PlannedJob:
    match standing.state:
        case "created":
            return PlannedJob(job, "nothing", "created", "", standing.run_id, standing.job_id)
        case "in_doubt":
            return PlannedJob(
                job, "look up", "in_doubt", standing.error.message if standing.error else "", standing.run_id
            )
        case "sending":
            detail = "it is being sent, or its run was killed meanwhile"
            return PlannedJob(job, "look up", "sending", detail, standing.run_id)
        case "not_created" | "released":
            raise AssertionError("neither counts")
        case _:
            assert_never(standing.state)


def _left(job: Job, standing: SubmissionRow | None, plan: Plan) -> PlannedJob:
    reason: Reason = "disabled" if not job.enabled else "not_selected"
    skipped = plan.skipped.get(job.name)
    detail = skipped.detail if skipped else ("it was not created before" if standing else "")
    return PlannedJob(job, "nothing", reason, detail)
