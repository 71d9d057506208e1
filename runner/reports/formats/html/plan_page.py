"""The page of what runs would do with each job, why, and what that would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from runner.core.version import VERSION
from runner.planning import periods
from runner.planning.planned_jobs import Action, PlannedJob, Preview
from runner.reports.formats.html.formatting import count, number
from runner.reports.formats.html.model import About, Choice, Column, Figure, Mark, Page, PageTable, Tone, Value, table
from runner.reports.style import Style
from runner.reports.views.plan import plan_totals

_TONES: Mapping[Action, Tone] = {"submit": "busy", "look up": "warn", "nothing": "off"}
_PLACES = {action: place for place, action in enumerate(_TONES)}
_MOST_UNPRICED = 20


def page(made: Sequence[Preview], style: Style) -> Page:
    """Make the page."""
    counts = {action: sum(one.count(action) for one in made) for action in _TONES}
    return Page(
        "Plan: nothing was sent",
        made[0].manifest.name if len(made) == 1 else count(len(made), "manifest", "manifests"),
        (),
        _verdict(counts),
        tuple(_figures(made, counts)),
        tuple(_about(one) for one in made),
        _jobs(made, counts, several=style.several_manifests or len(made) > 1),
        notes=tuple(_notes(made)),
        made_by=f"pixxel-runner {VERSION}",
    )


def _verdict(counts: Mapping[Action, int]) -> str:
    jobs = sum(counts.values())
    if not jobs:
        return "There are no jobs."
    if not counts["submit"]:
        return "A run would submit nothing."
    return f"A run would submit {number(counts['submit'])} of {count(jobs, 'job', 'jobs')}."


def _figures(made: Sequence[Preview], counts: Mapping[Action, int]) -> Iterator[Figure]:
    for action, many in counts.items():
        yield Figure(f"to {action}" if action != "nothing" else "nothing to do", number(many), "", _TONES[action])
    if any(one.has_estimates for one in made):
        unknown = sum(one.action == "submit" and one.estimate is None for made_of in made for one in made_of.jobs)
        detail = f"and {count(unknown, 'job', 'jobs')} of unknown cost" if unknown else ""
        yield Figure("estimate", number(sum(one.estimated_cost for one in made)), detail)
    wrong = sum(bool(one.problem) for made_of in made for one in made_of.jobs)
    if wrong:
        yield Figure("problems", number(wrong), "found by --check", "bad")


def _notes(made: Sequence[Preview]) -> Iterator[str]:
    for one in made:
        if one.exceeds_limit:
            yield f"{one.manifest.name}: a run would be refused, as its estimate is above max_cost"
        unpriced = list((one.unknown_costs or {}).items())
        for workflow_id, why in unpriced[:_MOST_UNPRICED]:
            yield f"cost of workflow {workflow_id} not known: {why}"
        if len(unpriced) > _MOST_UNPRICED:
            yield f"and of {count(len(unpriced) - _MOST_UNPRICED, 'workflow', 'workflows')} more"


def _jobs(made: Sequence[Preview], counts: Mapping[Action, int], *, several: bool) -> PageTable:
    prospects = [one for forecast in made for one in forecast.jobs]
    manifests = [forecast.manifest.name for forecast in made for _ in forecast.jobs]
    columns: dict[Column, Sequence[Value]] = {
        Column("job", "name"): [one.job.name for one in prospects],
        **({Column("manifest", "text"): manifests} if several else {}),
        Column("would", "choice"): [Mark(one.action, _TONES[one.action]) for one in prospects],
        Column("because", "message"): [_why(one) for one in prospects],
        Column("estimate", "number"): [one.estimate for one in prospects],
        Column("problem", "message"): [one.problem for one in prospects],
        Column("job id", "id"): [one.job_id for one in prospects],
        Column("labels", "labels"): [one.job.labels for one in prospects],
        Column("workflow", "id"): [one.job.workflow_id for one in prospects],
        Column("project", "id"): [one.job.project_id for one in prospects],
    }
    choices = tuple(Choice(action, _TONES[action], many) for action, many in counts.items())
    return table("Jobs", columns, [_PLACES[one.action] for one in prospects], "action", choices)


def _why(one: PlannedJob) -> str:
    if one.reason == "created":
        return f"created by run {one.run_id}"
    reason = one.reason.replace("_", " ")
    return f"{reason}: {one.detail}" if one.detail else reason


def _about(forecast: Preview) -> About:
    manifest, limited = forecast.manifest, forecast.has_estimates and forecast.limit is not None
    return About(
        manifest.name,
        plan_totals([forecast]),
        (
            (
                "for",
                periods.describe_run_key(forecast.run_key)
                if any(one.run_id for one in forecast.jobs) or not forecast.run_key.startswith("run:")
                else None,
            ),
            ("manifest", manifest.path),
            ("sha256", manifest.sha256),
            ("API", forecast.api),
            ("max_cost", number(forecast.limit) if limited and forecast.limit is not None else None),
            ("used", number(forecast.spent) if limited else None),
            ("used after this", number(forecast.spent + forecast.estimated_cost) if limited else None),
        ),
    )
