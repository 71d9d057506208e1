"""What is shown of a run: each job with its outcome, and the totals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, assert_never

from runner.client.job import JobObject, parse_job
from runner.core import models
from runner.core.models import Created, Entry, ErrorInfo, InDoubt, NotCreated, OutcomeName, Skipped
from runner.core.text import join_reason
from runner.reports.style import Style
from runner.reports.views.table import ColumnSpec, Table, build_table, format_count, lists_all, note_unlisted
from runner.runs import summary
from runner.runs.job_status import JobStatus
from runner.runs.results_file import format_time
from runner.runs.summary import RunSummary

IN_DOUBT_ADVICE = (
    "The job may or may not have been created, so it is not sent again. pixxel-runner resolve looks it up, and so does "
    "the next run"
)

_MAX_PROJECTS = 20
_COLORS: Mapping[OutcomeName, str] = {"created": "green", "not_created": "red", "in_doubt": "yellow", "skipped": "cyan"}


@dataclass(frozen=True, slots=True)
class EntryView:
    """An entry of a run as every format shows it. What its kind of outcome does not have is None or empty.

    `job` is the created job as the API described it last, `final_status` its status if it was found final since then,
    and `remarks` what is unusual about it. `candidates` are the ids of jobs at the API that may be this one.
    """

    entry: Entry
    outcome: OutcomeName
    created: Created | None = None
    job: JobObject | None = None
    final_status: JobStatus | None = None
    remarks: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    skipped: Skipped | None = None
    candidates: tuple[str, ...] | None = None
    estimate: int | None = None
    attempts: int | None = None
    sent_at: datetime | None = None

    @property
    def job_id(self) -> str | None:
        """The id of the created job."""
        return self.created.job_id if self.created else None

    @property
    def cost(self) -> int | None:
        """The cost of the created job in tokens."""
        return self.job.cost if self.job else None

    @property
    def reason(self) -> str:
        """Why a job was not created or is in doubt."""
        if self.skipped:
            return describe_skip(self.skipped)
        return f"{self.error.kind}: {self.error.message}" if self.error else ""


def view_entry(entry: Entry) -> EntryView:
    """View an entry. The job object of a created job is parsed."""
    outcome = entry.outcome
    match outcome:
        case Created():
            return _view_created(entry, outcome)
        case NotCreated(error, attempts, sent_at):
            return EntryView(entry, "not_created", error=error, attempts=attempts, sent_at=sent_at)
        case InDoubt(error, attempts, sent_at, ids, cost):
            view = EntryView(entry, "in_doubt", error=error, attempts=attempts, sent_at=sent_at)
            return replace(view, candidates=ids, estimate=cost)
        case Skipped():
            return EntryView(entry, "skipped", skipped=outcome)
        case _:
            assert_never(outcome)


def _view_created(entry: Entry, outcome: Created) -> EntryView:
    name, (workflow_id, project_id), body = entry.job.name, entry.job.pair, outcome.body
    status = outcome.seen_at and JobStatus(name, workflow_id, project_id, outcome.job_id, body, outcome.seen_at)
    job = status.job if status else parse_job(body)
    remarks = []
    if outcome.recovered:
        remarks.append("recovered" if outcome.assigned else "recovered, job id uncertain")
    if job and job.val_errors:
        remarks.append(format_count(len(job.val_errors), "validation error", "validation errors"))
    return EntryView(
        entry,
        "created",
        outcome,
        job,
        status or None,
        tuple(remarks),
        candidates=None if outcome.assigned else outcome.candidates,
        estimate=outcome.estimate,
        attempts=outcome.attempts,
        sent_at=outcome.sent_at,
    )


def describe_skip(outcome: Skipped) -> str:
    """Why a job was skipped."""
    return join_reason(outcome.reason, outcome.detail)


# What data formats have of an entry.
FIELDS: Mapping[str, Callable[[EntryView], Any]] = {
    "name": lambda view: view.entry.job.name,
    "workflow_id": lambda view: view.entry.job.workflow_id,
    "project_id": lambda view: view.entry.job.project_id,
    "labels": lambda view: dict(view.entry.job.labels),
    "outcome": lambda view: view.outcome,
    "job_id": lambda view: view.job_id,
    "status": lambda view: view.job and view.job.status,
    "estimate": lambda view: view.estimate,
    "cost": lambda view: view.cost,
    "validation_errors": lambda view: view.job and len(view.job.val_errors),
    "recovered": lambda view: view.created and view.created.recovered,
    "assigned": lambda view: view.created and view.created.assigned,
    "kind": lambda view: view.skipped.reason if view.skipped else view.error and view.error.kind,
    "message": lambda view: view.skipped.detail if view.skipped else view.error and view.error.message,
    "http_status": lambda view: view.error and view.error.http_status,
    "request_id": lambda view: view.error and view.error.request_id,
    "candidates": lambda view: view.candidates,
    "attempts": lambda view: view.attempts,
    "sent_at": lambda view: view.sent_at and format_time(view.sent_at),
    "run_id": lambda view: view.entry.run_id,
}


def list_entries(summaries: Sequence[RunSummary], *, all_entries: bool = True) -> Iterator[tuple[str, EntryView]]:
    """The name of the manifest and a view of each entry: of all, or only of those that were not created."""
    for run in summaries:
        for entry in run.record.entries if all_entries else run.others:
            yield run.run.manifest_name, view_entry(entry)


_COLUMNS: Sequence[ColumnSpec[EntryView]] = (
    ColumnSpec("job", lambda view: view.entry.job.name, rank=0, min_width=8, preferred_width=24),
    ColumnSpec("workflow", lambda view: view.entry.job.workflow_id, rank=5),
    ColumnSpec("project", lambda view: view.entry.job.project_id, rank=7),
    ColumnSpec(
        "outcome",
        lambda view: ", ".join((models.describe_outcome(view.outcome), *view.remarks)),
        rank=0,
        min_width=8,
        get_color=lambda view: _COLORS[view.outcome],
    ),
    ColumnSpec("job id or error", lambda view: view.job_id or view.reason, rank=1, kind="id"),
    ColumnSpec("status", lambda view: view.final_status.status if view.final_status else "", rank=2, optional=True),
    ColumnSpec("estimate", lambda view: view.estimate, rank=6, kind="number", optional=True),
    ColumnSpec("cost", lambda view: view.cost, rank=4, kind="number"),
    ColumnSpec("sent (UTC)", lambda view: view.sent_at, rank=8, kind="time"),
)


def build_run_table(summaries: Sequence[RunSummary], style: Style) -> Table:
    """Build the table of the jobs, or, of very many, those that were not created; the totals are its notes."""
    count = _count_entries(summaries)
    rows = list_entries(summaries, all_entries=lists_all(count, style))
    return build_table(_COLUMNS, rows, style, lambda listed: _list_notes(summaries, style, is_partial=listed < count))


def run_totals(summaries: Sequence[RunSummary]) -> str:
    """The number of jobs of each outcome and what they cost, in one line."""
    total = summary.combine(run.summary for run in summaries)
    earlier = f" ({total.created_earlier} by an earlier run)" if total.created_earlier else ""
    return (
        f"{format_count(_count_entries(summaries), 'job', 'jobs')}: {total.created} created{earlier}, "
        f"{total.not_created} not created, {total.in_doubt} in doubt, {total.skipped} skipped · "
        f"{_describe_cost(total.cost, total.estimate)}"
    )


def note_invalid_jobs(summaries: Sequence[RunSummary]) -> str:
    """The note for created jobs with validation errors; empty if there are none."""
    invalid = sum(run.invalid_jobs for run in summaries)
    jobs = format_count(invalid, "created job has", "created jobs have")
    return f"{jobs} validation errors; see the results file" if invalid else ""


def _count_entries(summaries: Sequence[RunSummary]) -> int:
    return sum(run.entry_count for run in summaries)


def _describe_cost(cost: int, estimate: int | None) -> str:
    return f"cost {cost}" if estimate is None else f"cost {cost} (estimate {estimate})"


def _list_notes(summaries: Sequence[RunSummary], style: Style, *, is_partial: bool) -> Iterator[str]:
    if style.several_manifests:
        for run in summaries:
            yield f"{run.run.manifest_name}: {run_totals([run])}"
    yield run_totals(summaries)
    projects = summary.combine(run.summary for run in summaries).projects
    if len(projects) > 1:
        for project in projects[:_MAX_PROJECTS]:
            cost = _describe_cost(project.cost, project.estimate)
            yield f"project {project.project_id}: {project.created} created · {cost}"
        if len(projects) > _MAX_PROJECTS:
            yield f"and {len(projects) - _MAX_PROJECTS} more projects; see the results file"
    if note := note_invalid_jobs(summaries):
        yield note
    if is_partial:
        yield note_unlisted("created jobs")
