"""What reports say of an entry and of all together: the words for an outcome, which entries are listed, the totals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, assert_never

from runner import jobobject
from runner.model import Created, Entry, Failed, InDoubt, Outcome, Record, Skipped
from runner.report.style import Style
from runner.results import summarise
from runner.text import visible

Word = Literal["created", "failed", "in doubt", "skipped"]

# A list that nobody would read hides what went wrong, and laying it out takes longer than a second.
MOST_LISTED = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """An entry in words that are fit to show. `detail` is the job's id, the error or the reason; `cost` is tokens."""

    name: str
    workflow: str
    project: str
    word: Word
    remarks: tuple[str, ...]
    detail: str
    cost: int | None
    sent_at: datetime | None

    @property
    def outcome(self) -> str:
        """The outcome with what else there is to say of it: `created, 2 validation errors`."""
        return ", ".join((self.word, *self.remarks))


def listed(record: Record, style: Style) -> list[Row]:
    """The entries to list, in words: all of them, or, where those are very many, the ones that were not created."""
    every = style.every or len(record.entries) <= MOST_LISTED
    return [row(entry) for entry in record.entries if every or not isinstance(entry.outcome, Created)]


def row(entry: Entry) -> Row:
    """Put an entry into words."""
    outcome = entry.outcome
    job = jobobject.read(outcome.body) if isinstance(outcome, Created) else None
    return Row(
        name=visible(entry.job.name),
        workflow=visible(entry.job.workflow_id),
        project=visible(entry.job.project_id),
        word=word(outcome),
        remarks=_remarks(outcome, job) if isinstance(outcome, Created) else (),
        detail=visible(_detail(outcome)),
        cost=job.cost if job else None,
        sent_at=sent_at(outcome),
    )


def word(outcome: Outcome) -> Word:
    """The outcome's name for a person."""
    match outcome:
        case Created():
            return "created"
        case Failed():
            return "failed"
        case InDoubt():
            return "in doubt"
        case Skipped():
            return "skipped"
        case _:
            assert_never(outcome)


def sent_at(outcome: Outcome) -> datetime | None:
    """When the last send began, in UTC; None where nothing was sent."""
    match outcome:
        case Created() | Failed() | InDoubt():
            return outcome.sent_at and outcome.sent_at.astimezone(UTC)
        case Skipped():
            return None
        case _:
            assert_never(outcome)


def notes(record: Record, rows: Sequence[Row]) -> list[str]:
    """What stands under the list, a line each: the totals, jobs with validation errors, what the list leaves out."""
    lines = [totals(record)]
    invalid = sum(_has_validation_errors(entry.outcome) for entry in record.entries)
    if invalid:
        jobs = _count(invalid, "created job has", "created jobs have")
        lines.append(f"{jobs} validation errors: see the results file")
    if len(rows) < len(record.entries):
        lines.append("created jobs are not listed, as there are very many: --all lists every job")
    return lines


def times_format(times: Iterable[datetime | None]) -> str:
    """The `strftime` format for a column of times: without the date when all are of one day."""
    days = {time.date() for time in times if time}
    return "%H:%M:%S" if len(days) <= 1 else "%Y-%m-%d %H:%M:%S"


def _detail(outcome: Outcome) -> str:
    match outcome:
        case Created(job_id=job_id):
            return job_id
        case Failed(error=error) | InDoubt(error=error):
            return f"{error.kind}: {error.message}"
        case Skipped(reason=reason, detail=detail):
            return f"{reason}: {detail}"
        case _:
            assert_never(outcome)


def _remarks(outcome: Created, job: jobobject.JobObject | None) -> tuple[str, ...]:
    remarks = []
    if outcome.recovered:
        remarks.append("recovered" if outcome.assigned else "recovered, not certain which")
    if job and job.val_errors:
        remarks.append(_count(len(job.val_errors), "validation error", "validation errors"))
    return tuple(remarks)


def _has_validation_errors(outcome: Outcome) -> bool:
    if not isinstance(outcome, Created) or b"val_errors" not in outcome.body:
        return False
    job = jobobject.read(outcome.body)
    return bool(job and job.val_errors)


def totals(record: Record) -> str:
    """The line that counts the outcomes and adds up the cost."""
    total = summarise(record)
    earlier = f" ({total.created_earlier} by an earlier run)" if total.created_earlier else ""
    return (
        f"{_count(len(record.entries), 'job', 'jobs')}: {total.created} created{earlier}, {total.failed} failed, "
        f"{total.in_doubt} in doubt, {total.skipped} skipped · cost {total.cost}"
    )


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
