"""What a run would do now with each job of a manifest, and what that would cost. Pure, but for what is asked for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from runner.core.errors import RefusedError
from runner.core.models import Job, Manifest, Submission
from runner.ledger.rows import SubmissionRow
from runner.planning import periods
from runner.planning.estimates import Estimate
from runner.planning.plan import Plan

Action = Literal["submit", "nothing", "look up"]
Reason = Literal[
    "new", "not_created_before", "one_more", "again", "created", "in_doubt", "sending", "disabled", "not_selected"
]

_MOST_SHOWN = 3


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
    prospects: tuple[PlannedJob, ...]
    spent: int = 0
    limit: int | None = None
    priced: bool = False
    unpriced: Mapping[str, str] | None = None
    remedies: Mapping[str, str] = field(default_factory=dict)

    def count(self, action: Action) -> int:
        """How many jobs a run would do this with."""
        return sum(one.action == action for one in self.prospects)

    @property
    def estimate(self) -> int:
        """What the jobs that would be submitted are expected to cost, as far as that is known."""
        return sum(one.estimate or 0 for one in self.prospects if one.action == "submit")

    @property
    def is_above_limit(self) -> bool:
        """Whether a run would be refused for its cost; one that sends nothing costs nothing."""
        if self.limit is None or not self.priced or not self.count("submit"):
            return False
        return self.spent + self.estimate > self.limit


def make(
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
    needed = {one.job.workflow_id for one in plan.sends}
    needed |= {one.workflow_id for one in standings if one.may_exist and one.budgeted_cost is None}
    unpriced = {name: one.problem for name, one in told.items() if one.cost is None and name in needed}
    return Preview(
        manifest,
        api,
        run_key,
        prospects,
        spent(standings, told),
        limit,
        estimates is not None,
        unpriced or None,
    )


def check_cost(forecast: Preview, *, allow_unknown: bool) -> None:
    """See that a run stays within its limit, if it has one.

    Raises:
        RefusedError: what it would cost is above the limit, or is not known and may not be.
    """
    if forecast.limit is None or not forecast.priced:
        return
    if forecast.unpriced and not allow_unknown:
        raise unknown_cost(forecast, f", and max_cost is {forecast.limit}: nothing was sent")
    if forecast.is_above_limit:
        before = f", after {forecast.spent} spent for {periods.describe(forecast.run_key)}" if forecast.spent else ""
        raise RefusedError(
            f"the estimate for {_jobs(forecast.count('submit'))} is {forecast.estimate} tokens{before}: above max_cost "
            f"{forecast.limit}, so nothing was sent",
            f"The dearest: {', '.join(_dearest(forecast))}. Submit fewer with --only, or raise the limit.",
        )


def unknown_cost(forecast: Preview, why: str = "") -> RefusedError:
    """What is said when the cost of something is not known. `why` that matters goes after it."""
    reasons: dict[str, list[str]] = {}
    for workflow_id, reason in (forecast.unpriced or {}).items():
        reasons.setdefault(reason, []).append(workflow_id)
    told = [f"{_some(ids)}: {reason}" for reason, ids in list(reasons.items())[:_MOST_SHOWN]]
    count, first = len(forecast.unpriced or {}), next(iter(reasons), "")
    remedy = forecast.remedies.get(first) or "Check the ids, and what the key may see: pixxel-runner plan --check."
    return RefusedError(
        f"what {_jobs(count, 'workflow')} would cost is not known{why} ({'; '.join(told)})",
        f"{remedy} Jobs of unknown cost are sent with --allow-unknown-cost.",
    )


def _some(ids: Sequence[str]) -> str:
    more = len(ids) - _MOST_SHOWN
    return f"{', '.join(ids[:_MOST_SHOWN])}{f' and {more} more' if more > 0 else ''}"


def _dearest(forecast: Preview) -> list[str]:
    submitted = [one for one in forecast.prospects if one.action == "submit" and one.estimate]
    submitted.sort(key=lambda one: one.estimate or 0, reverse=True)
    return [f"{one.job.name} {one.estimate}" for one in submitted[:_MOST_SHOWN]] or ["what was bought before"]


def _jobs(count: int, what: str = "job") -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def spent(standings: Sequence[SubmissionRow], estimates: Mapping[str, Estimate]) -> int:
    """The tokens that a run key has used: for each job that exists or may exist, the larger of estimate and cost."""
    return sum(_expense(one, estimates) for one in standings if one.may_exist)


def priced(sends: Sequence[Submission], estimates: Mapping[str, Estimate]) -> tuple[Submission, ...]:
    """The submissions, with what each is expected to cost."""
    return tuple(replace(one, estimate=estimates[one.job.workflow_id].cost) for one in sends)


def workflows(plan: Plan, standings: Sequence[SubmissionRow]) -> list[str]:
    """The workflows whose estimates a run needs: of what it sends, and of what was bought when none was asked for."""
    unpriced = [one.workflow_id for one in standings if one.may_exist and one.estimate is None]
    return [*(one.job.workflow_id for one in plan.sends), *unpriced]


def _expense(standing: SubmissionRow, estimates: Mapping[str, Estimate]) -> int:
    told = estimates.get(standing.workflow_id)
    estimate = standing.estimate if standing.estimate is not None else (told.cost if told else None)
    return max(estimate or 0, standing.cost or 0)


def _cost(prospect: PlannedJob, estimates: Mapping[str, Estimate]) -> int | None:
    if prospect.action != "submit" or prospect.job.workflow_id not in estimates:
        return None
    return estimates[prospect.job.workflow_id].cost


def _prospects(manifest: Manifest, plan: Plan, standings: Sequence[SubmissionRow]) -> Iterator[PlannedJob]:
    sends = {one.job.name: one for one in plan.sends if not one.again}
    bought = Counter(one.pair for one in standings if one.consumes_slot)
    for job in manifest.jobs:
        standing = plan.match.of.get(job.name)
        if job.name in sends:
            yield _to_send(job, standing, bought[job.pair])
        elif standing is not None and standing.consumes_slot:
            yield _bought(job, standing)
        else:
            yield _left(job, standing, plan)
    for one in plan.sends:
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
