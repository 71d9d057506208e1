"""The page of what was submitted: one record or several, and of jobs that were found final what became of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from runner.core.models import Created, Entry, ErrorInfo, InDoubt, NotCreated, Outcome, Run, RunState, Skipped
from runner.planning import periods
from runner.reports.formats.html import job_status, time_buckets
from runner.reports.formats.html.formatting import SECOND, count, length, micros, number, period
from runner.reports.formats.html.model import (
    About,
    Bars,
    Choice,
    Column,
    Figure,
    Length,
    Mark,
    Page,
    PageTable,
    Row,
    Series,
    Spans,
    Tone,
    Value,
    table,
)
from runner.reports.style import Style
from runner.reports.views.run import Word, run_totals
from runner.runs import summary
from runner.runs.job_status import JobStatus
from runner.runs.summary import RunSummary, Summary

# Worst first.
_TONES: Mapping[Word, Tone] = {"not created": "bad", "in doubt": "warn", "created": "good", "skipped": "off"}
_PLACES = {word: place for place, word in enumerate(_TONES)}
_STATES: Mapping[RunState, Tone] = {"completed": "good", "stopped": "bad", "interrupted": "warn"}
_MOST_TROUBLES = 10


@dataclass(frozen=True, slots=True)
class _Told:
    """What there is to say of an outcome. Many may have one `reason`; `more` is of this one alone."""

    word: Word
    reason: str = ""
    more: str = ""
    remarks: tuple[str, ...] = ()
    job: JobStatus | None = None
    estimate: int | None = None
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    """An entry of a manifest's record, with what there is to say of its outcome."""

    manifest: str
    entry: Entry
    told: _Told


def page(made: Sequence[RunSummary], style: Style) -> Page:
    """Make the page: each record is gone through once."""
    total = summary.combine(one.summary for one in made)
    runs = [one.run for one in made]
    alone = runs[0] if len(runs) == 1 else None
    lines = [_line(one.run, entry) for one in made for entry in one.record.entries]
    return Page(
        "Run report",
        alone.manifest_name if alone else count(len(runs), "manifest", "manifests"),
        (Mark(alone.state, _STATES[alone.state]),) if alone else (),
        _verdict(total, len(lines)),
        tuple(_figures(total, runs)),
        tuple(_about(one) for one in made),
        _jobs(lines, total, several=style.several_manifests or len(made) > 1),
        tuple(_charts(lines, total)),
        tuple(_tables(lines, total)),
        tuple(_notes(made, lines)),
        made_by=", ".join(dict.fromkeys(one.runner for one in runs)) or "pixxel-runner",
    )


def _line(run: Run, entry: Entry) -> _Line:
    return _Line(run.manifest_name, entry, _told(entry, entry.outcome))


def _told(entry: Entry, outcome: Outcome) -> _Told:
    match outcome:
        case Created():
            job = entry.job
            found = JobStatus(job.name, job.workflow_id, job.project_id, outcome.job_id, outcome.body, outcome.seen_at)
            remarks = tuple(_remarks(outcome, found))
            return _Told("created", "", "", remarks, found, outcome.estimate, outcome.sent_at)
        case NotCreated(error=error):
            return _Told("not created", _reason(error), _request(error), sent_at=outcome.sent_at)
        case InDoubt(error=error, candidates=candidates):
            more = _request(error) + (f" · may be {', '.join(candidates)}" if candidates else "")
            return _Told("in doubt", _reason(error), more, estimate=outcome.estimate, sent_at=outcome.sent_at)
        case Skipped(reason=reason, detail=detail):
            return _Told("skipped", detail if detail.startswith(f"{reason}: ") else f"{reason}: {detail}")
        case _:
            assert_never(outcome)


def _reason(error: ErrorInfo) -> str:
    return f"{error.kind}: {error.message}"


def _request(error: ErrorInfo) -> str:
    """What support would ask for."""
    return f" · request {error.request_id}" if error.request_id else ""


def _remarks(outcome: Created, found: JobStatus) -> Iterator[str]:
    if outcome.recovered:
        yield "recovered" if outcome.assigned else "recovered, not certain which"
    if found.job and found.job.val_errors:
        yield count(len(found.job.val_errors), "validation error", "validation errors")


def _verdict(total: Summary, jobs: int) -> str:
    rest = ", ".join(f"{number(many)} {word}" for word, many in _counts(total).items() if many and word != "created")
    if not jobs:
        return "There are no jobs."
    if not rest:
        return "The job was created." if jobs == 1 else f"All {number(jobs)} jobs were created."
    return f"{number(total.created)} of {count(jobs, 'job', 'jobs')} created, {rest}."


def _counts(total: Summary) -> dict[Word, int]:
    return {
        "not created": total.not_created,
        "in doubt": total.in_doubt,
        "created": total.created,
        "skipped": total.skipped,
    }


def _figures(total: Summary, runs: Sequence[Run]) -> Iterator[Figure]:
    earlier = f"{number(total.created_earlier)} by an earlier run" if total.created_earlier else ""
    yield Figure("created", number(total.created), earlier, "good")
    yield Figure("not created", number(total.not_created), "certainly not created" if total.not_created else "", "bad")
    yield Figure("in doubt", number(total.in_doubt), "may or may not exist" if total.in_doubt else "", "warn")
    yield Figure("skipped", number(total.skipped), "not sent" if total.skipped else "", "off")
    estimate = "" if total.estimate is None else f"estimate {number(total.estimate)}"
    yield Figure("cost", number(total.cost), estimate)
    if runs:
        start, end = min(one.started_at for one in runs), max(one.finished_at for one in runs)
        yield Figure("took", length((micros(end) - micros(start)) / SECOND), period(start, end))


def _charts(lines: Sequence[_Line], total: Summary) -> Iterator[Bars | Spans]:
    sends = [(one.told.sent_at, _PLACES[one.told.word]) for one in lines if one.told.sent_at is not None]
    series = [Series(word, _TONES[word], many) for word, many in _counts(total).items()]
    unsent = time_buckets.left_out(len(lines) - len(sends), "nothing was sent")
    sent = time_buckets.happenings("Submissions over time", sends, series, unsent)
    if sent is not None:
        yield sent
    lived = job_status.chart(_seen(lines))
    if lived is not None:
        yield lived


def _seen(lines: Sequence[_Line]) -> list[JobStatus]:
    """The jobs that were found final at the API."""
    created = (one.told.job for one in lines if one.told.job is not None)
    return [job for job in created if job.seen_at is not None]


def _tables(lines: Sequence[_Line], total: Summary) -> Iterator[PageTable]:
    troubles = Counter((one.told.word, one.told.reason) for one in lines if one.told.word != "created")
    if troubles:
        shown = sorted(troubles.items(), key=lambda item: (_PLACES[item[0][0]], -item[1]))[:_MOST_TROUBLES]
        rest = len(troubles) - len(shown)
        more = f" (and for {count(rest, 'reason', 'reasons')} more)" if rest else ""
        yield PageTable(
            f"What was not created, and why{more}",
            (Column("outcome", "mark"), Column("jobs", "number"), Column("why", "message")),
            [Row((Mark(word, _TONES[word]), many, reason)) for (word, reason), many in shown],
        )
    if len(total.projects) > 1:
        priced = total.estimate is not None
        yield PageTable(
            "Projects",
            (
                Column("project", "id"),
                Column("created", "number"),
                Column("cost", "number"),
                *((Column("estimate", "number"),) if priced else ()),
            ),
            [
                Row((one.project_id, one.created, one.cost, *((one.estimate,) if priced else ())))
                for one in total.projects
            ],
        )


def _notes(made: Sequence[RunSummary], lines: Sequence[_Line]) -> Iterator[str]:
    seen = _seen(lines)
    if seen:
        yield f"What became of them at the API, as far as it was asked: {job_status.summary(seen)}."
    invalid = sum(one.invalid_jobs for one in made)
    if invalid:
        yield f"{count(invalid, 'created job has', 'created jobs have')} validation errors: the results file has them."


def _jobs(lines: Sequence[_Line], total: Summary, *, several: bool) -> PageTable:
    """All jobs. What no job has gets no column."""
    columns: dict[Column, list[Value]] = {
        Column("job", "name"): [one.entry.job.name for one in lines],
        **({Column("manifest", "text"): [one.manifest for one in lines]} if several else {}),
        Column("outcome", "choice"): [Mark(one.told.word, _TONES[one.told.word], one.told.remarks) for one in lines],
        Column("job id", "id"): [one.told.job.job_id if one.told.job else None for one in lines],
        Column("status", "mark"): [_status(one.told) for one in lines],
        Column("cost", "number"): [one.told.job.cost if one.told.job else None for one in lines],
        Column("estimate", "number"): [one.told.estimate for one in lines],
        Column("sent (UTC)", "time"): [one.told.sent_at for one in lines],
        Column("took", "length"): [_took(one.told) for one in lines],
        Column("message", "message"): [one.told.reason + one.told.more for one in lines],
        Column("labels", "labels"): [one.entry.job.labels for one in lines],
        Column("workflow", "id"): [one.entry.job.workflow_id for one in lines],
        Column("project", "id"): [one.entry.job.project_id for one in lines],
    }
    choices = tuple(Choice(word, _TONES[word], many) for word, many in _counts(total).items())
    return table("Jobs", columns, [_PLACES[one.told.word] for one in lines], "outcome", choices)


def _status(told: _Told) -> Mark | None:
    return job_status.mark(told.job) if told.job is not None and told.job.seen_at is not None else None


def _took(told: _Told) -> Length | None:
    return job_status.took(told.job) if told.job is not None and told.job.seen_at is not None else None


def _about(made: RunSummary) -> About:
    run = made.run
    return About(
        run.manifest_name,
        run_totals([made]),
        (
            ("state", Mark(run.state, _STATES[run.state])),
            ("run", run.id),
            ("for", periods.describe_run_key(run.key)),
            ("manifest", run.manifest_path),
            ("sha256", run.manifest_sha256),
            ("git commit", run.git_commit),
            ("API", run.base_url),
            ("started", run.started_at),
            ("finished", run.finished_at),
            ("took", length((micros(run.finished_at) - micros(run.started_at)) / SECOND)),
            ("settings", _settings(run.settings)),
        ),
    )


def _settings(settings: Mapping[str, Any]) -> str | None:
    applied = {name: value for name, value in settings.items() if value not in (None, [], ())}
    told = (f"{name} {one if isinstance(one, str) else json.dumps(one, default=str)}" for name, one in applied.items())
    return ", ".join(told) or None
