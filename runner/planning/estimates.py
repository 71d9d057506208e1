"""What workflows are estimated to cost, and whether they exist: one API request for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from runner.client.exchange import Exchange
from runner.client.failures import error_from_read, hint_for
from runner.client.fetcher import Fetcher
from runner.client.job import parse_json_object
from runner.client.response import ExchangeResult, Response
from runner.core.models import Submission
from runner.core.text import pluralize
from runner.ledger.rows import SubmissionRow
from runner.planning.plan import Plan

_LARGEST_COST = 2**53  # tokens: the largest integer that every JSON reader agrees on


class WorkflowReader(Protocol):
    """The part of the API client that estimates need. It cannot create a job."""

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""

    def get_workflow(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
        """Get a workflow in one of its projects."""

    def get_estimate(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """Get the estimated cost of a job of a workflow."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated cost of a job of a workflow, in tokens; or the problem that leaves it unknown."""

    cost: int | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EstimateResponse:
    """What the API returned: estimates by workflow, and problems by pair, empty where there is none.

    `hints` says what to do about a problem that has nothing to do with the workflow, such as a missing connection.
    """

    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    problems: Mapping[tuple[str, str], str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)


def fetch_estimates(
    fetcher: Fetcher, reader: WorkflowReader, workflow_ids: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> EstimateResponse:
    """Get the estimate of each workflow, and check that the workflow of each pair exists and is accessible.

    Sends one request for each distinct workflow and each distinct pair, all in one batch: an API that does not respond
    costs one timeout.
    """
    workflow_ids, pairs = list(dict.fromkeys(workflow_ids)), list(dict.fromkeys(pairs))
    results = fetcher.fetch_all(
        [
            *(partial(reader.get_workflow, workflow_id, project_id) for workflow_id, project_id in pairs),
            *(partial(reader.get_estimate, workflow_id) for workflow_id in workflow_ids),
        ]
    )
    checks, prices, bearer = results[: len(pairs)], results[len(pairs) :], reader.bearer
    errors = [error_from_read(result, bearer=bearer) for result in results]
    return EstimateResponse(
        {
            workflow_id: _read_estimate(price, bearer=bearer)
            for workflow_id, price in zip(workflow_ids, prices, strict=True)
        },
        {pair: _find_problem(check, pair, bearer=bearer) for pair, check in zip(pairs, checks, strict=True)},
        {error.message: hint for error in errors if (hint := hint_for(error))},
    )


def workflows_to_estimate(plan: Plan, submissions: Sequence[SubmissionRow]) -> list[str]:
    """Return the workflows whose estimates a run needs: those it sends, and those submitted without an estimate."""
    earlier = [row.workflow_id for row in submissions if row.may_exist and row.estimate is None]
    return [*(submission.job.workflow_id for submission in plan.to_send), *earlier]


def with_estimates(to_send: Sequence[Submission], estimates: Mapping[str, Estimate]) -> tuple[Submission, ...]:
    """Return the submissions with their estimated costs."""
    return tuple(replace(submission, estimate=estimates[submission.job.workflow_id].cost) for submission in to_send)


def spent_tokens(submissions: Sequence[SubmissionRow], estimates: Mapping[str, Estimate]) -> int:
    """Return the tokens used by a run key: for each job that may exist, the larger of its estimate and its cost."""
    return sum(_expense(submission, estimates) for submission in submissions if submission.may_exist)


def _expense(submission: SubmissionRow, estimates: Mapping[str, Estimate]) -> int:
    estimate = submission.estimate
    if estimate is None and submission.workflow_id in estimates:
        estimate = estimates[submission.workflow_id].cost
    return max(estimate or 0, submission.cost or 0)


def _read_estimate(result: ExchangeResult, *, bearer: bool) -> Estimate:
    members = _members(result)
    if members is None:
        return Estimate(None, error_from_read(result, bearer=bearer).message)
    cost = members.get("estimated_cost")
    if isinstance(cost, bool) or not isinstance(cost, int) or not 0 <= cost <= _LARGEST_COST:
        return Estimate(None, "the API returned no valid estimate")
    return Estimate(cost)


def _find_problem(result: ExchangeResult, pair: tuple[str, str], *, bearer: bool) -> str:
    members = _members(result)
    if members is None:
        return error_from_read(result, bearer=bearer).message
    workflow_id, project_id = (members.get(name) for name in ("id", "project_id"))
    if isinstance(workflow_id, str) and workflow_id not in ("", pair[0]):
        return f"the API returned another workflow: {workflow_id}"
    if isinstance(project_id, str) and project_id not in ("", pair[1]):
        return f"the workflow is in another project: {project_id}"
    errors = members.get("val_errors")
    if isinstance(errors, list) and errors:
        return f"the workflow has {pluralize(len(errors), 'validation error')}"
    return ""


def _members(result: ExchangeResult) -> Mapping[str, Any] | None:
    if not isinstance(result, Response) or result.status != HTTPStatus.OK:
        return None
    return parse_json_object(result.body)
