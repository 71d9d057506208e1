"""What reports say of a forecast: what a run would do with each job, why, and what that would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.core.text import escape_unprintable
from runner.planning import periods
from runner.planning.planned_jobs import Action, PlannedJob, Preview
from runner.reports.style import Style
from runner.reports.views.table import Table, column, count, job_ids, json_cell, numbers

MOST_LISTED = 1000
_MOST_UNPRICED = 20
_COLORS: Mapping[Action, str] = {"submit": "green", "nothing": "cyan", "look up": "yellow"}
_WORDS = {
    "new": "new",
    "not_created_before": "not created before",
    "one_more": "one more of its pair",
    "again": "one more",
    "created": "created",
    "in_doubt": "in doubt",
    "sending": "in doubt",
    "disabled": "disabled",
    "not_selected": "not selected",
}

FIELDS = (
    "manifest",
    "name",
    "workflow_id",
    "project_id",
    "labels",
    "action",
    "reason",
    "detail",
    "run_id",
    "job_id",
    "estimate",
    "problem",
)


def sheet(made: Sequence[Preview], style: Style) -> Table:
    """The jobs (all of them, or, where those are very many, the ones that something would be done with) and totals."""
    prospects = [(escape_unprintable(forecast.manifest.name), one) for forecast in made for one in forecast.jobs]
    every = style.list_all or len(prospects) <= MOST_LISTED
    kept = [pair for pair in prospects if every or pair[1].action != "nothing" or pair[1].problem]
    listed = [one for _, one in kept]
    columns = [
        *([column("manifest", (name for name, _ in kept), least=8, rank=3)] if style.several_manifests else []),
        column("job", (escape_unprintable(one.job.name) for one in listed), least=8, rank=0),
        column("workflow", (escape_unprintable(one.job.workflow_id) for one in listed), least=9, rank=4),
        column("project", (escape_unprintable(one.job.project_id) for one in listed), least=9, rank=5),
        column("would", (one.action for one in listed), least=8, rank=0),
        job_ids("because", (escape_unprintable(_why(one)) for one in listed), rank=1),
        numbers("estimate", (one.estimate for one in listed), rank=3),
        column("problem", (escape_unprintable(one.problem) for one in listed), least=16, rank=2),
    ]
    shown = tuple(one for one in columns if one.title not in ("problem", "estimate") or any(one.cells[1:]))
    notes = [note for forecast in made for note in _notes(forecast, style)]
    if style.several_manifests:
        notes.append(plan_totals(made))
    if len(listed) < len(prospects):
        notes.append("jobs with nothing to do are not listed, as there are very many: --all lists every job")
    return Table(shown, "would", tuple(_COLORS[one.action] for one in listed), tuple(notes))


def rows(made: Sequence[Preview]) -> Iterator[dict[str, Any]]:
    """Every job with the values of FIELDS."""
    for forecast in made:
        for one in forecast.jobs:
            labels = json_cell(dict(one.job.labels))
            yield {"manifest": forecast.manifest.name, **_values(one), "labels": labels}


def document(forecast: Preview) -> dict[str, Any]:
    """The forecast as JSON has it."""
    manifest = forecast.manifest
    return {
        "version": 1,
        "manifest": {"name": manifest.name, "path": manifest.path, "sha256": manifest.sha256},
        "base_url": forecast.api,
        "run_key": None if _is_new(forecast) else forecast.run_key,
        "summary": {
            "submit": forecast.count("submit"),
            "nothing": forecast.count("nothing"),
            "look_up": forecast.count("look up"),
            "estimate": forecast.estimated_cost if forecast.has_estimates else None,
            "spent": forecast.spent,
            "max_cost": forecast.limit,
        },
        "unpriced": dict(forecast.unknown_costs or {}),
        "jobs": [{**_values(one), "labels": dict(one.job.labels)} for one in forecast.jobs],
    }


def plan_totals(made: Sequence[Preview]) -> str:
    """The line that counts what would be done."""
    submit, look_up, nothing = (sum(one.count(action) for one in made) for action in ("submit", "look up", "nothing"))
    words = (
        f"{count(submit + look_up + nothing, 'job', 'jobs')}: {submit} to submit, {look_up} to look up, "
        f"{nothing} with nothing to do"
    )
    if not any(one.has_estimates for one in made):
        return words
    unknown = sum(one.action == "submit" and one.estimate is None for forecast in made for one in forecast.jobs)
    rest = f" and {unknown} of unknown cost" if unknown else ""
    return f"{words} · estimate {sum(one.estimated_cost for one in made)}{rest}"


def _values(one: PlannedJob) -> dict[str, Any]:
    return {
        "name": one.job.name,
        "workflow_id": one.job.workflow_id,
        "project_id": one.job.project_id,
        "action": one.action,
        "reason": one.reason,
        "detail": one.detail,
        "run_id": one.run_id,
        "job_id": one.job_id,
        "estimate": one.estimate,
        "problem": one.problem,
    }


def _why(one: PlannedJob) -> str:
    if one.reason == "created":
        return f"created as {one.job_id} by {one.run_id}"
    return f"{_WORDS[one.reason]}: {one.detail}" if one.detail else _WORDS[one.reason]


def _notes(forecast: Preview, style: Style) -> Iterator[str]:
    yield (
        f"{escape_unprintable(forecast.manifest.name)}: {plan_totals([forecast])}"
        if style.several_manifests
        else plan_totals([forecast])
    )
    if not _is_new(forecast):
        yield f"for {escape_unprintable(periods.describe_run_key(forecast.run_key))}"
    if forecast.has_estimates and forecast.limit is not None:
        yield f"max_cost {forecast.limit}: {forecast.spent} used, {forecast.spent + forecast.estimated_cost} after this"
    unpriced = list((forecast.unknown_costs or {}).items())
    for workflow_id, why in unpriced[:_MOST_UNPRICED]:
        yield f"cost of workflow {escape_unprintable(workflow_id)} not known: {escape_unprintable(why)}"
    if len(unpriced) > _MOST_UNPRICED:
        yield f"and of {len(unpriced) - _MOST_UNPRICED} workflows more: --format json lists them"


def _is_new(forecast: Preview) -> bool:
    """Whether the run would have a key of its own, whose name says nothing yet."""
    return forecast.run_key.startswith("run:") and not any(one.run_id for one in forecast.jobs)
