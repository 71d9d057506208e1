"""What is shown of the jobs of a run at the API: the status of each, and what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.core.models import OutcomeName, describe_outcome
from runner.reports.style import Style
from runner.reports.views.table import ColumnSpec, Table, build_table, lists_all, note_unlisted
from runner.runs.job_status import JobStatus, StatusKind, summarize_statuses
from runner.runs.results_file import format_time

_COLORS: Mapping[StatusKind, str] = {
    "completed": "green",
    "failed": "red",
    "cancelled": "red",
    "active": "cyan",
    "unknown": "yellow",
}


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The jobs of one run at the API. `without_job` counts the run's other entries by outcome.

    `manifest_path` is as it was given to the run. `lines` has each job's line in the manifest by name, from 1. Both may
    be unknown, and empty.
    """

    run_id: str
    manifest: str
    api: str
    jobs: Sequence[JobStatus]
    without_job: Mapping[OutcomeName, int] = field(default_factory=dict)
    manifest_path: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)


# What data formats have of a job.
FIELDS: Mapping[str, Callable[[JobStatus], Any]] = {
    "name": lambda job: job.name,
    "workflow_id": lambda job: job.workflow_id,
    "project_id": lambda job: job.project_id,
    "job_id": lambda job: job.job_id,
    "status": lambda job: job.status or None,
    "final": lambda job: job.is_final,
    "progress": lambda job: job.progress or None,
    "cost": lambda job: job.cost,
    "time_taken": lambda job: job.time_taken or None,
    "finished_at": lambda job: job.finished_at and format_time(job.finished_at),
    "errors": lambda job: list(job.errors),
    "seen_at": lambda job: job.seen_at and format_time(job.seen_at),
    "problem": lambda job: job.problem or None,
}
CSV_FIELDS: Mapping[str, Callable[[JobStatus], Any]] = {**FIELDS, "errors": lambda job: "; ".join(job.errors)}


def list_jobs(reports: Sequence[StatusReport]) -> Iterator[tuple[str, JobStatus]]:
    """The name of the manifest and each of the run's jobs."""
    for report in reports:
        for job in report.jobs:
            yield report.manifest, job


def describe_errors(job: JobStatus) -> str:
    """Why the status of a job is unknown, or else what went wrong in it; empty if nothing did."""
    return job.problem or "; ".join(job.errors)


_COLUMNS: Sequence[ColumnSpec[JobStatus]] = (
    ColumnSpec("job", lambda job: job.name, rank=0, min_width=8, preferred_width=24),
    ColumnSpec("job id", lambda job: job.job_id, rank=3, kind="id"),
    ColumnSpec("workflow", lambda job: job.workflow_id, rank=6),
    ColumnSpec("project", lambda job: job.project_id, rank=7),
    ColumnSpec(
        "status", lambda job: job.current_status or "unknown", rank=0, get_color=lambda job: _COLORS[job.current_kind]
    ),
    ColumnSpec("progress", lambda job: job.progress, rank=1, min_width=5),
    ColumnSpec("cost", lambda job: job.cost, rank=4, kind="number"),
    ColumnSpec("time taken", lambda job: job.time_taken, rank=5, min_width=6),
    ColumnSpec("finished (UTC)", lambda job: job.finished_at, rank=8, kind="time"),
    ColumnSpec("errors", describe_errors, rank=2, min_width=16, optional=True),
)


def build_status_table(reports: Sequence[StatusReport], style: Style) -> Table:
    """Build the table of the jobs, or, of very many, those that are not completed."""
    rows = list(list_jobs(reports))
    count = len(rows)
    if not lists_all(count, style):
        rows = [(name, job) for name, job in rows if job.current_kind != "completed"]
    return build_table(_COLUMNS, rows, style, lambda listed: _list_notes(reports, style, is_partial=listed < count))


def build_status_document(report: StatusReport) -> dict[str, Any]:
    """Build the JSON document of a run's jobs."""
    return {
        "version": 1,
        "run": {"id": report.run_id, "manifest": report.manifest, "base_url": report.api},
        "summary": {
            "statuses": Counter(job.current_status or "unknown" for job in report.jobs),
            "cost": total_cost(report.jobs),
        },
        "without_job": dict(report.without_job),
        "jobs": [{name: get(job) for name, get in FIELDS.items()} for job in report.jobs],
    }


def total_cost(jobs: Sequence[JobStatus]) -> int:
    """What jobs cost, in tokens, as far as the API says."""
    return sum(max(0, job.cost or 0) for job in jobs)


def describe_without_job(counts: Mapping[OutcomeName, int]) -> str:
    """The entries of a run that have no known job at the API, by outcome. Those in doubt may have one."""
    parts = {outcome: f"{count} {describe_outcome(outcome)}" for outcome, count in counts.items()}
    doubts = parts.pop("in_doubt", "")
    absent = f"not at the API: {', '.join(parts.values())}" if parts else ""
    return f"{'; '.join(filter(None, (absent, doubts)))} (see pixxel-runner show)"


def _list_notes(reports: Sequence[StatusReport], style: Style, *, is_partial: bool) -> Iterator[str]:
    for report in reports:
        yield f"{f'{report.manifest}: ' if style.several_manifests else ''}{summarize_statuses(report.jobs)}"
        if report.without_job:
            yield describe_without_job(report.without_job)
    if is_partial:
        yield note_unlisted("completed jobs")
