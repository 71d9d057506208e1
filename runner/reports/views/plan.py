"""What is shown of a plan: what a run would do with each job and why, and what that would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from runner.core.text import join_reason
from runner.planning import periods
from runner.planning.planned_jobs import Action, PlannedJob, Preview, Reason
from runner.reports.style import Style
from runner.reports.views.table import ColumnSpec, Table, build_table, format_count, lists_all, note_unlisted

_MAX_UNKNOWN_COSTS = 20
_COLORS: Mapping[Action, str] = {"submit": "green", "nothing": "cyan", "look up": "yellow"}
_REASONS: Mapping[Reason, str] = {
    "new": "new",
    "not_created_before": "not created before",
    "one_more": "one more of this pair",
    "again": "once more",
    "created": "created",
    "in_doubt": "in doubt",
    "sending": "in doubt",
    "disabled": "disabled",
    "not_selected": "not selected",
}

# What data formats have of a planned job.
FIELDS: Mapping[str, Callable[[PlannedJob], Any]] = {
    "name": lambda planned: planned.job.name,
    "workflow_id": lambda planned: planned.job.workflow_id,
    "project_id": lambda planned: planned.job.project_id,
    "labels": lambda planned: dict(planned.job.labels),
    "action": lambda planned: planned.action,
    "reason": lambda planned: planned.reason,
    "detail": lambda planned: planned.detail,
    "run_id": lambda planned: planned.run_id,
    "job_id": lambda planned: planned.job_id,
    "estimate": lambda planned: planned.estimate,
    "problem": lambda planned: planned.problem,
}


def list_planned_jobs(previews: Sequence[Preview]) -> Iterator[tuple[str, PlannedJob]]:
    """The name of the manifest and each of its planned jobs."""
    for preview in previews:
        for planned in preview.jobs:
            yield preview.manifest.name, planned


def describe_reason(planned: PlannedJob) -> str:
    """Why a run would do this with a job."""
    if planned.reason == "created":
        return f"created as {planned.job_id} by {planned.run_id}"
    return join_reason(_REASONS[planned.reason], planned.detail)


_COLUMNS: Sequence[ColumnSpec[PlannedJob]] = (
    ColumnSpec("job", lambda planned: planned.job.name, rank=0, min_width=8, preferred_width=24),
    ColumnSpec("workflow", lambda planned: planned.job.workflow_id, rank=4),
    ColumnSpec("project", lambda planned: planned.job.project_id, rank=5),
    ColumnSpec(
        "action", lambda planned: planned.action, rank=0, min_width=8, get_color=lambda planned: _COLORS[planned.action]
    ),
    ColumnSpec("reason", describe_reason, rank=1, kind="id"),
    ColumnSpec("estimate", lambda planned: planned.estimate, rank=3, kind="number", optional=True),
    ColumnSpec("problem", lambda planned: planned.problem, rank=2, min_width=16, optional=True),
)


def build_plan_table(previews: Sequence[Preview], style: Style) -> Table:
    """Build the table of the jobs, or, of very many, those that a run would do something with."""
    rows = list(list_planned_jobs(previews))
    count = len(rows)
    if not lists_all(count, style):
        rows = [(name, planned) for name, planned in rows if planned.action != "nothing" or planned.problem]
    return build_table(_COLUMNS, rows, style, lambda listed: _list_notes(previews, style, is_partial=listed < count))


def build_plan_document(preview: Preview) -> dict[str, Any]:
    """Build the JSON document of a plan."""
    manifest = preview.manifest
    return {
        "version": 1,
        "manifest": {"name": manifest.name, "path": manifest.path, "sha256": manifest.sha256},
        "base_url": preview.api,
        "run_key": preview.run_key if has_known_run_key(preview) else None,
        "summary": {
            "submit": preview.count("submit"),
            "nothing": preview.count("nothing"),
            "look_up": preview.count("look up"),
            "estimate": preview.estimated_cost if preview.has_estimates else None,
            "spent": preview.spent,
            "max_cost": preview.limit,
        },
        "unpriced": dict(preview.unknown_costs or {}),
        "jobs": [{name: get(planned) for name, get in FIELDS.items()} for planned in preview.jobs],
    }


def plan_totals(previews: Sequence[Preview]) -> str:
    """The number of jobs for each action and the estimated cost, in one line."""
    submit, look_up, nothing = (
        sum(preview.count(action) for preview in previews) for action in ("submit", "look up", "nothing")
    )
    totals = (
        f"{format_count(submit + look_up + nothing, 'job', 'jobs')}: {submit} to submit, {look_up} to look up, "
        f"{nothing} with nothing to do"
    )
    if not any(preview.has_estimates for preview in previews):
        return totals
    unknown = count_unknown_costs(previews)
    more = f" and {unknown} of unknown cost" if unknown else ""
    return f"{totals} · estimate {sum(preview.estimated_cost for preview in previews)}{more}"


def count_unknown_costs(previews: Sequence[Preview]) -> int:
    """How many jobs to submit have no estimate."""
    return sum(planned.action == "submit" and planned.estimate is None for _, planned in list_planned_jobs(previews))


def describe_excess(preview: Preview) -> str:
    """Why a run would be refused for its cost."""
    return f"estimated cost {preview.estimated_cost} plus {preview.spent} spent exceeds max_cost {preview.limit}"


def note_unknown_costs(preview: Preview) -> Iterator[str]:
    """The notes for workflows whose cost is unknown."""
    unknown = list((preview.unknown_costs or {}).items())
    for workflow_id, reason in unknown[:_MAX_UNKNOWN_COSTS]:
        yield f"cost of workflow {workflow_id} not known: {reason}"
    if len(unknown) > _MAX_UNKNOWN_COSTS:
        more = format_count(len(unknown) - _MAX_UNKNOWN_COSTS, "more workflow", "more workflows")
        yield f"cost of {more} not known; use --format json to list them"


def has_known_run_key(preview: Preview) -> bool:
    """Whether the run key means something already, and is not that of a run that has yet to start."""
    return not preview.run_key.startswith("run:") or any(planned.run_id for planned in preview.jobs)


def _list_notes(previews: Sequence[Preview], style: Style, *, is_partial: bool) -> Iterator[str]:
    for preview in previews:
        name = f"{preview.manifest.name}: " if style.several_manifests else ""
        yield f"{name}{plan_totals([preview])}"
        if has_known_run_key(preview):
            yield f"for {periods.describe_run_key(preview.run_key)}"
        if preview.has_estimates and preview.limit is not None:
            total = preview.spent + preview.estimated_cost
            yield f"max_cost {preview.limit}: {preview.spent} spent, {total} after this run"
        yield from note_unknown_costs(preview)
    if style.several_manifests:
        yield plan_totals(previews)
    if is_partial:
        yield note_unlisted("jobs with nothing to do")
