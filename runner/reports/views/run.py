"""What reports say of a record: the words for an outcome, which entries are listed, the totals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, assert_never

from runner.client.job import JobObject, parse_job
from runner.core.models import Created, Entry, InDoubt, NotCreated, Outcome, Skipped, outcome_name
from runner.core.text import escape_unprintable
from runner.reports.style import Style
from runner.reports.views.table import Table, column, count, job_ids, json_cell, numbers, times
from runner.runs import summary
from runner.runs.results_file import format_time
from runner.runs.summary import RunSummary

Word = Literal["created", "not created", "in doubt", "skipped"]

# A list that nobody would read hides what went wrong, and laying it out takes longer than a second.
MOST_LISTED = 1000
_MOST_PROJECTS = 20

_COLORS: Mapping[Word, str] = {"created": "green", "not created": "red", "in doubt": "yellow", "skipped": "cyan"}

FIELDS = (
    "manifest",
    "name",
    "workflow_id",
    "project_id",
    "labels",
    "outcome",
    "job_id",
    "status",
    "estimate",
    "cost",
    "validation_errors",
    "recovered",
    "assigned",
    "kind",
    "message",
    "http_status",
    "request_id",
    "candidates",
    "attempts",
    "sent_at",
    "run_id",
)


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry in words that are fit to show. `detail` is the job's id, the error or the reason."""

    manifest: str
    name: str
    workflow: str
    project: str
    word: Word
    remarks: tuple[str, ...]
    detail: str
    status: str
    estimate: int | None
    cost: int | None
    sent_at: datetime | None

    @property
    def outcome(self) -> str:
        """The outcome with what else there is to say of it: `created, 2 validation errors`."""
        return ", ".join((self.word, *self.remarks))


def sheet(made: Sequence[RunSummary], style: Style) -> Table:
    """The entries to list (all of them, or, where those are very many, the ones that were not created) and totals."""
    every = style.list_all or _jobs(made) <= MOST_LISTED
    rows = [
        _row(escape_unprintable(one.run.manifest_name), entry)
        for one in made
        for entry in (one.record.entries if every else one.others)
    ]
    columns = [
        *([column("manifest", (row.manifest for row in rows), least=8, rank=3)] if style.several_manifests else []),
        column("job", (row.name for row in rows), least=8, rank=0),
        column("workflow", (row.workflow for row in rows), least=9, rank=5),
        column("project", (row.project for row in rows), least=9, rank=7),
        column("outcome", (row.outcome for row in rows), least=8, rank=0),
        job_ids("job id or error", (row.detail for row in rows), rank=1),
        column("status", (row.status for row in rows), least=9, rank=2),
        numbers("estimate", (row.estimate for row in rows), rank=6),
        numbers("cost", (row.cost for row in rows), rank=4),
        times("sent (UTC)", [row.sent_at for row in rows], rank=8),
    ]
    shown = tuple(one for one in columns if one.title not in ("status", "estimate") or any(one.cells[1:]))
    colors = tuple(_COLORS[row.word] for row in rows)
    return Table(shown, "outcome", colors, tuple(_notes(made, style, listed=len(rows))))


def rows(made: Sequence[RunSummary]) -> Iterator[dict[str, Any]]:
    """Every entry with the values of FIELDS."""
    for one in made:
        for entry in one.record.entries:
            job = entry.job
            yield {
                "manifest": one.run.manifest_name,
                "name": job.name,
                "workflow_id": job.workflow_id,
                "project_id": job.project_id,
                "labels": json_cell(dict(job.labels)),
                "outcome": outcome_name(entry.outcome),
                "run_id": entry.run_id,
                **_values(entry.outcome),
            }


def run_totals(made: Sequence[RunSummary]) -> str:
    """The line that counts the outcomes and adds up the cost."""
    total = summary.combine(one.summary for one in made)
    earlier = f" ({total.created_earlier} by an earlier run)" if total.created_earlier else ""
    return (
        f"{count(_jobs(made), 'job', 'jobs')}: {total.created} created{earlier}, {total.not_created} not created, "
        f"{total.in_doubt} in doubt, {total.skipped} skipped · {_money(total.cost, total.estimate)}"
    )


def _jobs(made: Sequence[RunSummary]) -> int:
    return sum(one.entry_count for one in made)


def _money(cost: int, estimate: int | None) -> str:
    return f"cost {cost}" if estimate is None else f"cost {cost} (estimate {estimate})"


def _notes(made: Sequence[RunSummary], style: Style, *, listed: int) -> Iterator[str]:
    """What stands under the list: the totals, of each project too, validation errors, what the list leaves out."""
    if style.several_manifests:
        for one in made:
            yield f"{escape_unprintable(one.run.manifest_name)}: {run_totals([one])}"
    yield run_totals(made)
    projects = summary.combine(one.summary for one in made).projects
    if len(projects) > 1:
        for project in projects[:_MOST_PROJECTS]:
            money = _money(project.cost, project.estimate)
            yield f"project {escape_unprintable(project.project_id)}: {project.created} created · {money}"
        if len(projects) > _MOST_PROJECTS:
            yield f"and {len(projects) - _MOST_PROJECTS} projects more: see the results file"
    invalid = sum(one.invalid_jobs for one in made)
    if invalid:
        yield f"{count(invalid, 'created job has', 'created jobs have')} validation errors: see the results file"
    if listed < _jobs(made):
        yield "created jobs are not listed, as there are very many: --all lists every job"


def _row(manifest: str, entry: Entry) -> _Row:
    """Put an entry into words."""
    outcome = entry.outcome
    job = parse_job(outcome.body) if isinstance(outcome, Created) else None
    return _Row(
        manifest=manifest,
        name=escape_unprintable(entry.job.name),
        workflow=escape_unprintable(entry.job.workflow_id),
        project=escape_unprintable(entry.job.project_id),
        word=_word(outcome),
        remarks=_remarks(outcome, job) if isinstance(outcome, Created) else (),
        detail=escape_unprintable(_detail(outcome)),
        status=escape_unprintable(job.status or "") if job and isinstance(outcome, Created) and outcome.seen_at else "",
        estimate=outcome.estimate if isinstance(outcome, Created | InDoubt) else None,
        cost=job.cost if job else None,
        sent_at=_sent_at(outcome),
    )


def _word(outcome: Outcome) -> Word:
    """The outcome's name for a person."""
    match outcome:
        case Created():
            return "created"
        case NotCreated():
            return "not created"
        case InDoubt():
            return "in doubt"
        case Skipped():
            return "skipped"
        case _:
            assert_never(outcome)


def _sent_at(outcome: Outcome) -> datetime | None:
    """When the last send began, in UTC; None where nothing was sent."""
    match outcome:
        case Created() | NotCreated() | InDoubt():
            return outcome.sent_at and outcome.sent_at.astimezone(UTC)
        case Skipped():
            return None
        case _:
            assert_never(outcome)


def _detail(outcome: Outcome) -> str:
    match outcome:
        case Created(job_id=job_id):
            return job_id
        case NotCreated(error=error) | InDoubt(error=error):
            return f"{error.kind}: {error.message}"
        case Skipped(reason=reason, detail=detail):
            return because(reason, detail)
        case _:
            assert_never(outcome)


def because(reason: str, detail: str) -> str:
    """A word for a reason and what a person is told of it, in one: the word once."""
    return detail if detail.startswith(f"{reason}: ") else f"{reason}: {detail}" if detail else reason


def _remarks(outcome: Created, job: JobObject | None) -> tuple[str, ...]:
    remarks = []
    if outcome.recovered:
        remarks.append("recovered" if outcome.assigned else "recovered, not certain which")
    if job and job.val_errors:
        remarks.append(count(len(job.val_errors), "validation error", "validation errors"))
    return tuple(remarks)


def _values(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Created():
            return _created(outcome)
        case NotCreated():
            return _error(outcome)
        case InDoubt():
            return {**_error(outcome), "candidates": json_cell(outcome.candidates), "estimate": outcome.estimate}
        case Skipped():
            return {"kind": outcome.reason, "message": outcome.detail}
        case _:
            assert_never(outcome)


def _created(outcome: Created) -> dict[str, Any]:
    job = parse_job(outcome.body)
    return {
        "job_id": outcome.job_id,
        "status": job.status if job else None,
        "estimate": outcome.estimate,
        "cost": job.cost if job else None,
        "validation_errors": len(job.val_errors) if job else None,
        "recovered": json_cell(outcome.recovered),
        "assigned": json_cell(outcome.assigned),
        "candidates": None if outcome.assigned else json_cell(outcome.candidates),
        "attempts": outcome.attempts,
        "sent_at": format_time(outcome.sent_at),
    }


def _error(outcome: NotCreated | InDoubt) -> dict[str, Any]:
    error = outcome.error
    return {
        "kind": error.kind,
        "message": error.message,
        "http_status": error.http_status,
        "request_id": error.request_id,
        "attempts": outcome.attempts,
        "sent_at": outcome.sent_at and format_time(outcome.sent_at),
    }
