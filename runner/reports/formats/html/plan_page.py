"""The page of plans: what runs would do with each job and why, and what that would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from runner.core.version import VERSION
from runner.planning import periods
from runner.planning.planned_jobs import Action, Preview
from runner.reports.formats.html.formatting import format_count, format_number
from runner.reports.formats.html.model import (
    Badge,
    Column,
    Details,
    Group,
    Page,
    PageTable,
    Tone,
    Total,
    Value,
    build_table,
)
from runner.reports.style import Style
from runner.reports.views.plan import (
    count_unknown_costs,
    describe_reason,
    has_known_run_key,
    list_planned_jobs,
    note_unknown_costs,
    plan_totals,
)

_TONES: Mapping[Action, Tone] = {"submit": "busy", "look up": "warn", "nothing": "off"}
_TITLES: Mapping[Action, str] = {"submit": "to submit", "look up": "to look up", "nothing": "nothing to do"}
_INDEXES = {action: index for index, action in enumerate(_TONES)}


def build_plan_page(previews: Sequence[Preview], style: Style) -> Page:
    """Build the page."""
    groups = tuple(
        Group(action, tone, sum(preview.count(action) for preview in previews)) for action, tone in _TONES.items()
    )
    title = previews[0].manifest.name if len(previews) == 1 else format_count(len(previews), "manifest", "manifests")
    return Page(
        kind="Plan",
        title=title,
        headline=_write_headline(groups),
        totals=tuple(_list_totals(previews, groups)),
        notes=tuple(_list_notes(previews)),
        details=tuple(map(_build_details, previews)),
        jobs=_build_jobs_table(previews, groups, names_manifests=style.several_manifests or len(previews) > 1),
        generator=f"pixxel-runner {VERSION}",
    )


def _write_headline(groups: Sequence[Group]) -> str:
    count, submit = sum(group.count for group in groups), groups[_INDEXES["submit"]].count
    if not count:
        return "There are no jobs."
    if not submit:
        return "A run would submit nothing."
    return f"A run would submit {format_number(submit)} of {format_count(count, 'job', 'jobs')}."


def _list_totals(previews: Sequence[Preview], groups: Sequence[Group]) -> Iterator[Total]:
    for title, group in zip(_TITLES.values(), groups, strict=True):
        yield Total(title, format_number(group.count), tone=group.tone)
    if any(preview.has_estimates for preview in previews):
        unknown = count_unknown_costs(previews)
        detail = f"and {format_count(unknown, 'job', 'jobs')} of unknown cost" if unknown else ""
        yield Total("estimate", format_number(sum(preview.estimated_cost for preview in previews)), detail)
    problems = sum(bool(planned.problem) for _, planned in list_planned_jobs(previews))
    if problems:
        yield Total("problems", format_number(problems), "found by --check", "bad")


def _list_notes(previews: Sequence[Preview]) -> Iterator[str]:
    for preview in previews:
        if preview.exceeds_limit:
            yield f"{preview.manifest.name}: a run would be refused, as the estimate exceeds max_cost"
        yield from note_unknown_costs(preview)


def _build_jobs_table(previews: Sequence[Preview], groups: tuple[Group, ...], *, names_manifests: bool) -> PageTable:
    rows = list(list_planned_jobs(previews))
    planned_jobs = [planned for _, planned in rows]
    jobs = [planned.job for planned in planned_jobs]
    columns: dict[Column, Sequence[Value]] = {
        Column("job", "name"): [job.name for job in jobs],
        **({Column("manifest", "text"): [name for name, _ in rows]} if names_manifests else {}),
        Column("action", "group"): [Badge(planned.action, _TONES[planned.action]) for planned in planned_jobs],
        Column("reason", "message"): list(map(describe_reason, planned_jobs)),
        Column("estimate", "number"): [planned.estimate for planned in planned_jobs],
        Column("problem", "message"): [planned.problem for planned in planned_jobs],
        Column("labels", "labels"): [job.labels for job in jobs],
        Column("workflow", "id"): [job.workflow_id for job in jobs],
        Column("project", "id"): [job.project_id for job in jobs],
    }
    return build_table("Jobs", columns, groups, [_INDEXES[planned.action] for planned in planned_jobs], "action")


def _build_details(preview: Preview) -> Details:
    manifest = preview.manifest
    is_limited = preview.has_estimates and preview.limit is not None
    return Details(
        manifest.name,
        plan_totals([preview]),
        {
            "run key": periods.describe_run_key(preview.run_key) if has_known_run_key(preview) else None,
            "manifest": manifest.path,
            "manifest SHA-256": manifest.sha256,
            "API": preview.api,
            "max_cost": format_number(preview.limit or 0) if is_limited else None,
            "spent": format_number(preview.spent) if is_limited else None,
            "spent after this run": format_number(preview.spent + preview.estimated_cost) if is_limited else None,
        },
    )
