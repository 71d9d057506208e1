"""What workflows are expected to cost, and whether they are there: asked of the API, once for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from runner.client.exchange import Exchange
from runner.client.failures import error_from_read, hint_for
from runner.client.fetcher import Fetcher
from runner.client.job import parse_json_object
from runner.client.response import ExchangeResult, Response
from runner.core.models import Submission
from runner.ledger.rows import SubmissionRow
from runner.planning.plan import Plan

_LARGEST = 2**53  # tokens: what JSON's readers agree on, and more than anybody pays


class WorkflowReader(Protocol):
    """What is needed of the API: nothing that creates."""

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""

    def get_workflow(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
        """One workflow, in one of its projects."""

    def get_estimate(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """What a job of the workflow is expected to cost."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job of a workflow is expected to cost, in tokens; or why that is not known."""

    cost: int | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EstimateResponse:
    """What the API told: the estimates by workflow, and by pair what is wrong in words, empty where nothing is.

    `remedies` says what to do about a problem that is not about a workflow, by its words: the API could not be asked.
    """

    estimates: dict[str, Estimate]
    problems: dict[tuple[str, str], str]
    remedies: dict[str, str]


def fetch_estimates(
    asker: Fetcher, reader: WorkflowReader, workflow_ids: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> EstimateResponse:
    """Ask what a job of each workflow is expected to cost, and whether each pair's workflow is there and may be seen.

    One request for each distinct workflow, and one for each distinct pair; all of it at once, so that an API that does
    not answer is waited for once.
    """
    priced, seen = list(dict.fromkeys(workflow_ids)), list(dict.fromkeys(pairs))
    told = asker.fetch_all(
        [
            *(partial(reader.get_workflow, workflow_id, project_id) for workflow_id, project_id in seen),
            *(partial(reader.get_estimate, workflow_id) for workflow_id in priced),
        ]
    )
    bearer = reader.bearer
    errors = [error_from_read(came, bearer=bearer) for came in told]
    return EstimateResponse(
        {one: _estimate(came, bearer=bearer) for one, came in zip(priced, told[len(seen) :], strict=True)},
        {pair: _problem(came, pair, bearer=bearer) for pair, came in zip(seen, told[: len(seen)], strict=True)},
        {error.message: hint for error in errors if (hint := hint_for(error))},
    )


def spent_tokens(standings: Sequence[SubmissionRow], estimates: Mapping[str, Estimate]) -> int:
    """The tokens that a run key has used: for each job that exists or may exist, the larger of estimate and cost."""
    return sum(_expense(one, estimates) for one in standings if one.may_exist)


def with_estimates(sends: Sequence[Submission], estimates: Mapping[str, Estimate]) -> tuple[Submission, ...]:
    """The submissions, with what each is expected to cost."""
    return tuple(replace(one, estimate=estimates[one.job.workflow_id].cost) for one in sends)


def workflows_to_estimate(plan: Plan, standings: Sequence[SubmissionRow]) -> list[str]:
    """The workflows whose estimates a run needs: of what it sends, and of what was bought when none was asked for."""
    unpriced = [one.workflow_id for one in standings if one.may_exist and one.estimate is None]
    return [*(one.job.workflow_id for one in plan.to_send), *unpriced]


def _expense(standing: SubmissionRow, estimates: Mapping[str, Estimate]) -> int:
    told = estimates.get(standing.workflow_id)
    estimate = standing.estimate if standing.estimate is not None else (told.cost if told else None)
    return max(estimate or 0, standing.cost or 0)


def _estimate(happening: ExchangeResult, *, bearer: bool) -> Estimate:
    members = _members(happening)
    if members is None:
        return Estimate(None, error_from_read(happening, bearer=bearer).message)
    cost = members.get("estimated_cost")
    if isinstance(cost, bool) or not isinstance(cost, int) or not 0 <= cost <= _LARGEST:
        return Estimate(None, "the API tells no cost that could be one")
    return Estimate(cost)


def _problem(happening: ExchangeResult, pair: tuple[str, str], *, bearer: bool) -> str:
    members = _members(happening)
    if members is None:
        return error_from_read(happening, bearer=bearer).message
    workflow_id, project_id = (members.get(name) for name in ("id", "project_id"))
    if isinstance(workflow_id, str) and workflow_id not in ("", pair[0]):
        return f"the API answers with another workflow: {workflow_id}"
    if isinstance(project_id, str) and project_id not in ("", pair[1]):
        return f"the workflow is in another project: {project_id}"
    errors = members.get("val_errors")
    return f"the workflow has {len(errors)} validation error(s)" if isinstance(errors, list) and errors else ""


def _members(happening: ExchangeResult) -> Mapping[str, Any] | None:
    if not isinstance(happening, Response) or happening.status != HTTPStatus.OK:
        return None
    return parse_json_object(happening.body)
