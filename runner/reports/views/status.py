"""What reports say of the jobs of a run at the API: the status of each, and what went wrong in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.core.models import OutcomeName, describe_outcome
from runner.core.text import escape_unprintable
from runner.reports.style import Style
from runner.reports.views.table import Table, column, job_ids, json_cell, numbers, times
from runner.runs.job_status import JobStatus, StatusKind, summarize_statuses
from runner.runs.results_file import format_time

MOST_LISTED = 1000
_COLORS: Mapping[StatusKind, str] = {
    "completed": "green",
    "failed": "red",
    "cancelled": "red",
    "active": "cyan",
    "unknown": "yellow",
}

FIELDS = (
    "manifest",
    "name",
    "workflow_id",
    "project_id",
    "job_id",
    "status",
    "final",
    "progress",
    "cost",
    "time_taken",
    "finished_at",
    "errors",
    "seen_at",
    "problem",
)


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The jobs of one run at the API. `others` counts what the run has without a job there, by outcome.

    `path` is the manifest's, as it was given to the run, and `lines` has the line of each job in it by name, counted
    from 1; both as far as that is known.
    """

    run_id: str
    manifest: str
    api: str
    jobs: Sequence[JobStatus]
    without_job: Mapping[OutcomeName, int] = field(default_factory=dict)
    manifest_path: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)


def sheet(made: Sequence[StatusReport], style: Style) -> Table:
    """The jobs (all of them, or, where those are very many, the ones that are not completed) and totals."""
    sightings = [(escape_unprintable(standing.manifest), one) for standing in made for one in standing.jobs]
    every = style.list_all or len(sightings) <= MOST_LISTED
    kept = [pair for pair in sightings if every or pair[1].current_kind != "completed"]
    listed = [one for _, one in kept]
    columns = [
        *([column("manifest", (name for name, _ in kept), least=8, rank=3)] if style.several_manifests else []),
        column("job", (escape_unprintable(one.name) for one in listed), least=8, rank=0),
        job_ids("job id", (escape_unprintable(one.job_id) for one in listed), rank=3),
        column("workflow", (escape_unprintable(one.workflow_id) for one in listed), least=9, rank=6),
        column("project", (escape_unprintable(one.project_id) for one in listed), least=9, rank=7),
        column("status", (escape_unprintable(one.current_status or "unknown") for one in listed), least=9, rank=0),
        column("progress", (escape_unprintable(one.progress) for one in listed), least=5, rank=1),
        numbers("cost", (one.cost for one in listed), rank=4),
        column("time taken", (escape_unprintable(one.time_taken) for one in listed), least=6, rank=5),
        times("finished (UTC)", [one.finished_at for one in listed], rank=8),
        column("errors", (escape_unprintable(trouble(one)) for one in listed), least=16, rank=2),
    ]
    shown = tuple(one for one in columns if one.title != "errors" or any(one.cells[1:]))
    notes = [note for standing in made for note in _notes(standing, style)]
    if len(listed) < len(sightings):
        notes.append("completed jobs are not listed, as there are very many: --all lists every job")
    return Table(shown, "status", tuple(_COLORS[one.current_kind] for one in listed), tuple(notes))


def _notes(standing: StatusReport, style: Style) -> Iterator[str]:
    whose = f"{escape_unprintable(standing.manifest)}: " if style.several_manifests else ""
    yield f"{whose}{escape_unprintable(summarize_statuses(standing.jobs))}"
    if standing.without_job:
        yield describe_without_job(standing.without_job)


def describe_without_job(counts: Mapping[OutcomeName, int]) -> str:
    """What a run has without a job at the API, in words."""
    words = ", ".join(f"{count} {describe_outcome(outcome)}" for outcome, count in counts.items())
    return f"without a job to follow: {words} (pixxel-runner show has them)"


def rows(made: Sequence[StatusReport]) -> Iterator[dict[str, Any]]:
    """Every job with the values of FIELDS."""
    for standing in made:
        for one in standing.jobs:
            final, errors = json_cell(one.is_final), "; ".join(one.errors)
            yield {"manifest": standing.manifest, **_values(one), "final": final, "errors": errors}


def document(standing: StatusReport) -> dict[str, Any]:
    """The jobs as JSON has them."""
    counts: dict[str, int] = {}
    for one in standing.jobs:
        counts[one.current_status or "unknown"] = counts.get(one.current_status or "unknown", 0) + 1
    return {
        "version": 1,
        "run": {"id": standing.run_id, "manifest": standing.manifest, "base_url": standing.api},
        "summary": {"statuses": counts, "cost": sum(max(0, one.cost or 0) for one in standing.jobs)},
        "without_job": dict(standing.without_job),
        "jobs": [_values(one) for one in standing.jobs],
    }


def _values(one: JobStatus) -> dict[str, Any]:
    return {
        "name": one.name,
        "workflow_id": one.workflow_id,
        "project_id": one.project_id,
        "job_id": one.job_id,
        "status": one.status or None,
        "final": one.is_final,
        "progress": one.progress or None,
        "cost": one.cost,
        "time_taken": one.time_taken or None,
        "finished_at": one.finished_at and format_time(one.finished_at),
        "errors": list(one.errors),
        "seen_at": one.seen_at and format_time(one.seen_at),
        "problem": one.problem or None,
    }


def trouble(one: JobStatus) -> str:
    """Why nothing newer is known of a job, else what went wrong in it; empty where nothing did."""
    return one.problem or "; ".join(one.errors)
