"""The cost limit of a run, `max_cost`: whether a preview stays within it."""

from __future__ import annotations

from runner.core.errors import RefusedError
from runner.core.text import pluralize
from runner.planning import periods
from runner.planning.planned_jobs import Preview

_MAX_SHOWN = 3


def check_limit(preview: Preview, *, allow_unknown: bool) -> None:
    """Check that a run stays within its cost limit, if it has one.

    Raises:
        RefusedError: its estimated cost exceeds the limit, or is unknown and must not be.
    """
    if preview.limit is None or not preview.has_estimates:
        return
    if preview.unknown_costs and not allow_unknown:
        raise unknown_cost_error(preview, f", and max_cost is {preview.limit}; nothing was sent")
    if preview.exceeds_limit:
        period = periods.describe_run_key(preview.run_key)
        spent = f", on top of {preview.spent} spent for {period}" if preview.spent else ""
        raise RefusedError(
            f"the estimated cost of {pluralize(preview.count('submit'), 'job')} is {preview.estimated_cost} tokens"
            f"{spent}, which exceeds max_cost {preview.limit}; nothing was sent",
            f"Select fewer jobs with --only, or raise the limit.{_most_expensive(preview)}",
        )


def unknown_cost_error(preview: Preview, consequence: str = "") -> RefusedError:
    """Return the error for workflows of unknown cost, with `consequence` after the fact."""
    workflow_ids: dict[str, list[str]] = {}
    for workflow_id, problem in preview.unknown_costs.items():
        workflow_ids.setdefault(problem, []).append(workflow_id)
    problems = [f"{_list(ids)}: {problem}" for problem, ids in list(workflow_ids.items())[:_MAX_SHOWN]]
    hint = preview.hints.get(next(iter(workflow_ids), ""))
    return RefusedError(
        f"the cost of {pluralize(len(preview.unknown_costs), 'workflow')} is unknown{consequence} "
        f"({'; '.join(problems)})",
        f"{hint or 'Check the ids and the permissions of the key: pixxel-runner plan --check.'} To submit jobs of "
        "unknown cost, pass --allow-unknown-cost.",
    )


def _list(ids: list[str]) -> str:
    more = len(ids) - _MAX_SHOWN
    return f"{', '.join(ids[:_MAX_SHOWN])}{f' and {more} more' if more > 0 else ''}"


def _most_expensive(preview: Preview) -> str:
    """Return a sentence that names the most expensive jobs; empty if none of them costs anything."""
    jobs = [job for job in preview.jobs if job.action == "submit" and job.estimate]
    jobs.sort(key=lambda job: job.estimate or 0, reverse=True)
    listed = ", ".join(f"{job.job.name} {job.estimate}" for job in jobs[:_MAX_SHOWN])
    return f" Most expensive: {listed}." if listed else ""
