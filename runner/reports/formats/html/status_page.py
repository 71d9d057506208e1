"""The page of the jobs of one run or several at the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from runner.core.models import OutcomeName
from runner.core.version import VERSION
from runner.reports.formats.html import job_status
from runner.reports.formats.html.formatting import (
    format_count,
    format_duration,
    format_number,
    format_period,
    seconds_between,
)
from runner.reports.formats.html.model import Column, Details, Group, Page, PageTable, Total, Value, build_table
from runner.reports.style import Style
from runner.reports.views.status import StatusReport, describe_errors, describe_without_job, list_jobs, total_cost
from runner.runs.job_status import JobStatus, StatusKind, summarize_statuses

_ALWAYS_SHOWN: tuple[StatusKind, ...] = ("failed", "completed")  # even if there are none


def build_status_page(reports: Sequence[StatusReport], style: Style) -> Page:
    """Build the page."""
    rows = list(list_jobs(reports))
    jobs = [job for _, job in rows]
    manifests = [name for name, _ in rows] if style.several_manifests or len(reports) > 1 else []
    groups = job_status.count_groups(jobs)
    chart = job_status.build_chart(jobs)
    return Page(
        kind="Job status",
        title=reports[0].manifest if len(reports) == 1 else format_count(len(reports), "run", "runs"),
        headline=_write_headline(jobs),
        totals=tuple(_list_totals(reports, jobs, groups)),
        notes=tuple(_list_notes(reports)),
        charts=() if chart is None else (chart,),
        details=tuple(map(_build_details, reports)),
        jobs=_build_jobs_table(jobs, groups, manifests),
        generator=f"pixxel-runner {VERSION}",
    )


def _write_headline(jobs: Sequence[JobStatus]) -> str:
    if not jobs:
        return "There are no jobs at the API."
    others = [job for job in jobs if job.current_kind != "completed"]
    if not others:
        return "The job has completed." if len(jobs) == 1 else f"All {format_number(len(jobs))} jobs have completed."
    completed = format_number(len(jobs) - len(others))
    return f"{completed} of {format_count(len(jobs), 'job', 'jobs')} completed, {job_status.describe_groups(others)}."


def _list_totals(
    reports: Sequence[StatusReport], jobs: Sequence[JobStatus], groups: Sequence[Group]
) -> Iterator[Total]:
    for group in groups:
        if group.count or group.label in _ALWAYS_SHOWN:
            yield Total(group.label, format_number(group.count), tone=group.tone)
    yield Total("cost", format_number(total_cost(jobs)))
    created = [job.created_at for job in jobs if job.created_at]
    finished = [job.finished_at for job in jobs if job.finished_at]
    if created and finished and max(finished) >= min(created):
        start, end = min(created), max(finished)
        yield Total("duration", format_duration(seconds_between(start, end)), format_period(start, end))
    without_job = sum(count for report in reports for count in report.without_job.values())
    if without_job:
        yield Total("not tracked", format_number(without_job), "no known job", "off")


def _list_notes(reports: Sequence[StatusReport]) -> Iterator[str]:
    without_job: Counter[OutcomeName] = Counter()
    for report in reports:
        without_job.update(report.without_job)
    if without_job:
        yield describe_without_job(without_job)


def _build_jobs_table(jobs: Sequence[JobStatus], groups: tuple[Group, ...], manifests: Sequence[str]) -> PageTable:
    columns: dict[Column, Sequence[Value]] = {
        Column("job", "name"): [job.name for job in jobs],
        **({Column("manifest", "text"): manifests} if manifests else {}),
        Column("status", "group"): list(map(job_status.status_badge, jobs)),
        Column("progress", "text"): [job.progress for job in jobs],
        Column("job id", "id"): [job.job_id for job in jobs],
        Column("cost", "number"): [job.cost for job in jobs],
        Column("duration", "duration"): list(map(job_status.job_duration, jobs)),
        Column("created (UTC)", "time"): [job.created_at for job in jobs],
        Column("finished (UTC)", "time"): [job.finished_at for job in jobs],
        Column("message", "message"): list(map(describe_errors, jobs)),
        Column("workflow", "id"): [job.workflow_id for job in jobs],
        Column("project", "id"): [job.project_id for job in jobs],
    }
    return build_table("Jobs", columns, groups, list(map(job_status.group_index, jobs)), "status")


def _build_details(report: StatusReport) -> Details:
    return Details(
        report.manifest,
        summarize_statuses(report.jobs),
        {
            "run": report.run_id,
            "manifest": report.manifest_path or None,
            "API": report.api,
            "last seen": max((job.seen_at for job in report.jobs if job.seen_at), default=None),
        },
    )
