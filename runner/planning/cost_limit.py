"""The cost limit of a run, `max_cost`: whether a preview stays within it."""

from __future__ import annotations

from collections.abc import Sequence

from runner.core.errors import RefusedError
from runner.planning import periods
from runner.planning.planned_jobs import Preview

_MOST_SHOWN = 3


def check_limit(preview: Preview, *, allow_unknown: bool) -> None:
    """See that a run stays within its limit, if it has one.

    Raises:
        RefusedError: what it would cost is above the limit, or is not known and may not be.
    """
    if preview.limit is None or not preview.has_estimates:
        return
    if preview.unknown_costs and not allow_unknown:
        raise unknown_cost_error(preview, f", and max_cost is {preview.limit}: nothing was sent")
    if preview.exceeds_limit:
        before = (
            f", after {preview.spent} spent for {periods.describe_run_key(preview.run_key)}" if preview.spent else ""
        )
        raise RefusedError(
            f"the estimate for {_jobs(preview.count('submit'))} is {preview.estimated_cost} tokens{before}: above "
            f"max_cost {preview.limit}, so nothing was sent",
            f"The dearest: {', '.join(_dearest(preview))}. Submit fewer with --only, or raise the limit.",
        )


def unknown_cost_error(preview: Preview, why: str = "") -> RefusedError:
    """What is said when the cost of something is not known. `why` that matters goes after it."""
    reasons: dict[str, list[str]] = {}
    for workflow_id, reason in (preview.unknown_costs or {}).items():
        reasons.setdefault(reason, []).append(workflow_id)
    told = [f"{_some(ids)}: {reason}" for reason, ids in list(reasons.items())[:_MOST_SHOWN]]
    count, first = len(preview.unknown_costs or {}), next(iter(reasons), "")
    remedy = preview.remedies.get(first) or "Check the ids, and what the key may see: pixxel-runner plan --check."
    return RefusedError(
        f"what {_jobs(count, 'workflow')} would cost is not known{why} ({'; '.join(told)})",
        f"{remedy} Jobs of unknown cost are sent with --allow-unknown-cost.",
    )


def _some(ids: Sequence[str]) -> str:
    more = len(ids) - _MOST_SHOWN
    return f"{', '.join(ids[:_MOST_SHOWN])}{f' and {more} more' if more > 0 else ''}"


def _dearest(preview: Preview) -> list[str]:
    submitted = [one for one in preview.jobs if one.action == "submit" and one.estimate]
    submitted.sort(key=lambda one: one.estimate or 0, reverse=True)
    return [f"{one.job.name} {one.estimate}" for one in submitted[:_MOST_SHOWN]] or ["what was bought before"]


def _jobs(count: int, what: str = "job") -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
