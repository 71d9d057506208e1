"""The page of one run or several: what was submitted, the outcomes, and the final status of jobs where it is known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.core.models import OutcomeName, Run, RunState, describe_outcome
from runner.planning import periods
from runner.reports.formats.html import job_status, time_buckets
from runner.reports.formats.html.formatting import (
    format_count,
    format_duration,
    format_number,
    format_period,
    seconds_between,
)
from runner.reports.formats.html.model import (
    Badge,
    BarChart,
    Column,
    Details,
    Group,
    Page,
    PageTable,
    Timeline,
    Tone,
    Total,
    Value,
    build_table,
)
from runner.reports.style import Style
from runner.reports.views.run import EntryView, list_entries, note_invalid_jobs, run_totals
from runner.runs import summary
from runner.runs.job_status import JobStatus
from runner.runs.summary import RunSummary, Summary

# The worst first.
_TONES: Mapping[OutcomeName, Tone] = {"not_created": "bad", "in_doubt": "warn", "created": "good", "skipped": "off"}
_INDEXES = {outcome: index for index, outcome in enumerate(_TONES)}
_STATE_TONES: Mapping[RunState, Tone] = {"completed": "good", "stopped": "bad", "interrupted": "warn"}
_MAX_REASONS = 10


def build_run_page(summaries: Sequence[RunSummary], style: Style) -> Page:
    """Build the page. Each run's entries are read once."""
    total = summary.combine(run.summary for run in summaries)
    groups = tuple(Group(describe_outcome(outcome), tone, getattr(total, outcome)) for outcome, tone in _TONES.items())
    runs = [run.run for run in summaries]
    rows = list(list_entries(summaries))
    views = [view for _, view in rows]
    manifests = [name for name, _ in rows] if style.several_manifests or len(runs) > 1 else []
    return Page(
        kind="Run report",
        title=runs[0].manifest_name if len(runs) == 1 else format_count(len(runs), "manifest", "manifests"),
        badges=(_state_badge(runs[0]),) if len(runs) == 1 else (),
        headline=_write_headline(groups),
        totals=tuple(_list_totals(total, groups, runs)),
        notes=tuple(_list_notes(summaries, views)),
        charts=tuple(_list_charts(views, groups)),
        tables=tuple(_list_tables(views, total)),
        details=tuple(map(_build_details, summaries)),
        jobs=_build_jobs_table(views, groups, manifests),
        generator=", ".join(dict.fromkeys(run.runner for run in runs)) or "pixxel-runner",
    )


def _write_headline(groups: Sequence[Group]) -> str:
    count = sum(group.count for group in groups)
    created = groups[_INDEXES["created"]].count
    if not count:
        return "There are no jobs."
    if created == count:
        return "The job was created." if count == 1 else f"All {format_number(count)} jobs were created."
    others = [f"{format_number(group.count)} {group.label}" for group in groups if group.count and group.tone != "good"]
    return f"{format_number(created)} of {format_count(count, 'job', 'jobs')} created, {', '.join(others)}."


def _list_totals(total: Summary, groups: Sequence[Group], runs: Sequence[Run]) -> Iterator[Total]:
    earlier = f"{format_number(total.created_earlier)} by an earlier run" if total.created_earlier else ""
    details: Mapping[OutcomeName, str] = {
        "created": earlier,
        "not_created": "",
        "in_doubt": "may or may not exist" if total.in_doubt else "",
        "skipped": "not sent" if total.skipped else "",
    }
    for outcome, detail in details.items():
        group = groups[_INDEXES[outcome]]
        yield Total(group.label, format_number(group.count), detail, group.tone)
    estimate = "" if total.estimate is None else f"estimate {format_number(total.estimate)}"
    yield Total("cost", format_number(total.cost), estimate)
    if runs:
        start, end = min(run.started_at for run in runs), max(run.finished_at for run in runs)
        yield Total("duration", format_duration(seconds_between(start, end)), format_period(start, end))


def _list_notes(summaries: Sequence[RunSummary], views: Sequence[EntryView]) -> Iterator[str]:
    final = _list_final(views)
    if final:
        yield f"Final status at the API, where known: {job_status.describe_groups(final)}."
    if note := note_invalid_jobs(summaries):
        yield f"{note}."


def _list_final(views: Sequence[EntryView]) -> list[JobStatus]:
    return [view.final_status for view in views if view.final_status is not None]


def _list_charts(views: Sequence[EntryView], groups: Sequence[Group]) -> Iterator[BarChart | Timeline]:
    sends = [(view.sent_at, _INDEXES[view.outcome]) for view in views if view.sent_at is not None]
    note = time_buckets.note_hidden(len(views) - len(sends), "not sent")
    charts = (
        time_buckets.chart_events("Submissions over time", sends, groups, note),
        job_status.build_chart(_list_final(views)),
    )
    yield from (chart for chart in charts if chart is not None)


def _list_tables(views: Sequence[EntryView], total: Summary) -> Iterator[PageTable]:
    reasons = Counter((view.outcome, view.reason) for view in views if not view.created)
    if reasons:
        shown = sorted(reasons.items(), key=lambda item: (_INDEXES[item[0][0]], -item[1]))[:_MAX_REASONS]
        of_all = f" ({len(shown)} of {format_number(len(reasons))})" if len(shown) < len(reasons) else ""
        yield build_table(
            f"Jobs not created, in doubt or skipped, by reason{of_all}",
            {
                Column("outcome", "badge"): [_outcome_badge(outcome) for (outcome, _), _ in shown],
                Column("jobs", "number"): [count for _, count in shown],
                Column("reason", "message"): [reason for (_, reason), _ in shown],
            },
        )
    if len(total.projects) > 1:
        yield build_table(
            "Projects",
            {
                Column("project", "id"): [project.project_id for project in total.projects],
                Column("created", "number"): [project.created for project in total.projects],
                Column("cost", "number"): [project.cost for project in total.projects],
                Column("estimate", "number"): [project.estimate for project in total.projects],
            },
        )


def _build_jobs_table(views: Sequence[EntryView], groups: tuple[Group, ...], manifests: Sequence[str]) -> PageTable:
    jobs = [view.entry.job for view in views]
    final = [view.final_status for view in views]
    columns: dict[Column, Sequence[Value]] = {
        Column("job", "name"): [job.name for job in jobs],
        **({Column("manifest", "text"): manifests} if manifests else {}),
        Column("outcome", "group"): [_outcome_badge(view.outcome, view.remarks) for view in views],
        Column("job id", "id"): [view.job_id for view in views],
        Column("status", "badge"): [job_status.status_badge(status) if status else None for status in final],
        Column("cost", "number"): [view.cost for view in views],
        Column("estimate", "number"): [view.estimate for view in views],
        Column("sent (UTC)", "time"): [view.sent_at for view in views],
        Column("duration", "duration"): [job_status.job_duration(status) if status else None for status in final],
        Column("message", "message"): [_describe_message(view) for view in views],
        Column("labels", "labels"): [job.labels for job in jobs],
        Column("workflow", "id"): [job.workflow_id for job in jobs],
        Column("project", "id"): [job.project_id for job in jobs],
    }
    return build_table("Jobs", columns, groups, [_INDEXES[view.outcome] for view in views], "outcome")


def _outcome_badge(outcome: OutcomeName, remarks: tuple[str, ...] = ()) -> Badge:
    return Badge(describe_outcome(outcome), _TONES[outcome], remarks)


def _describe_message(view: EntryView) -> str:
    """Why a job was not created or is in doubt, with what support would ask for."""
    parts = [view.reason]
    if view.error and view.error.request_id:
        parts.append(f"request id {view.error.request_id}")
    if view.error and view.candidates:
        parts.append(f"candidates {', '.join(view.candidates)}")
    return " · ".join(parts)


def _build_details(run_summary: RunSummary) -> Details:
    run = run_summary.run
    return Details(
        run.manifest_name,
        run_totals([run_summary]),
        {
            "state": _state_badge(run),
            "run": run.id,
            "run key": periods.describe_run_key(run.key),
            "manifest": run.manifest_path,
            "manifest SHA-256": run.manifest_sha256,
            "git commit": run.git_commit,
            "API": run.base_url,
            "started": run.started_at,
            "finished": run.finished_at,
            "duration": format_duration(seconds_between(run.started_at, run.finished_at)),
            "settings": _describe_settings(run.settings),
        },
    )


def _state_badge(run: Run) -> Badge:
    return Badge(run.state, _STATE_TONES[run.state])


def _describe_settings(settings: Mapping[str, Any]) -> str | None:
    given = {name: value for name, value in settings.items() if value not in (None, [], ())}
    described = (
        f"{name} {value if isinstance(value, str) else json.dumps(value, default=str)}" for name, value in given.items()
    )
    return ", ".join(described) or None
