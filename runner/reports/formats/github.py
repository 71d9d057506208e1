"""GitHub Actions: annotations at the manifest's lines, and the size limit of a step's summary.

Only this module knows how workflow commands are escaped, and GitHub's limits.
"""

from __future__ import annotations

import json
import posixpath
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Literal

from runner.core.models import STDIN, Entry, InDoubt, NotCreated, OutcomeName, Skipped, describe_outcome
from runner.core.text import escape_unprintable
from runner.planning.planned_jobs import Preview
from runner.reports.style import Style
from runner.reports.views.plan import describe_excess, plan_totals
from runner.reports.views.run import IN_DOUBT_ADVICE, describe_skip, run_totals, view_entry
from runner.reports.views.status import StatusReport, describe_without_job
from runner.reports.views.table import format_count
from runner.runs.job_status import JobStatus, summarize_statuses
from runner.runs.summary import RunSummary

Severity = Literal["error", "warning", "notice"]

# Of each severity, for a step; any beyond that are only in the log:
# https://github.com/actions/toolkit/blob/main/docs/problem-matchers.md#limitations
MAX_ANNOTATIONS = 10
_MAX_MESSAGE = 4096  # characters that the Actions runner passes on (`_maxIssueMessageLength`)
_MAX_TITLE = 255  # characters of a check run's annotation

# Bytes of a step's summary, beyond which GitHub shows nothing of it:
# https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
MAX_SUMMARY = 1024 * 1024
_MAX_NOTES = 64 * 1024  # bytes of the lines after the last table, which are kept when rows are left out

_EXPECTED_SKIPS = ("disabled", "not_selected")


@dataclass(frozen=True, slots=True)
class Annotation:
    """What GitHub shows at a line of a file, in a pull request and on the page of the workflow run.

    `file` is relative to the repository, or absolute within the workspace; empty if it is about no file. `line` and
    `column` count from 1; 0 if unknown.
    """

    severity: Severity
    title: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0


def format_command(annotation: Annotation) -> str:
    """The workflow command for an annotation, in one line.

    Its properties and escapes are those of
    https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions and of `@actions/core`.
    """
    position = {
        "file": posixpath.normpath(annotation.file) if annotation.file else "",
        "line": annotation.line,
        "col": annotation.column,
    }
    properties = {name: str(value) for name, value in position.items() if value}
    properties["title"] = _shorten(annotation.title, _MAX_TITLE)
    listed = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    return f"::{annotation.severity} {listed}::{_escape_data(_shorten(annotation.message, _MAX_MESSAGE))}"


def render_runs(summaries: Sequence[RunSummary], _style: Style) -> str:
    """An error for each job that is not created or in doubt, warnings for unsent and invalid ones, and the totals."""
    # Jobs in doubt first: they must not be among those that GitHub does not show.
    errors = (
        annotation
        for outcome_type in (InDoubt, NotCreated)
        for run in summaries
        for annotation in _annotate_errors(run, outcome_type)
    )
    error_count = sum(run.summary.not_created + run.summary.in_doubt for run in summaries)
    skipped = [annotation for run in summaries for annotation in _annotate_skipped(run)]
    invalid = (annotation for run in summaries if run.invalid_jobs for annotation in _annotate_invalid(run))
    totals = (_annotate_totals(run.run.manifest_name, run.run.state, run_totals([run])) for run in summaries)
    return _render(
        _limit("error", errors, error_count),
        _limit("warning", chain(skipped, invalid), len(skipped) + sum(run.invalid_jobs for run in summaries)),
        _limit("notice", totals, len(summaries), f": {run_totals(summaries)}"),
    )


def render_plans(previews: Sequence[Preview], _style: Style) -> str:
    """Errors for what would fail or be refused, warnings for what is uncertain, and the totals."""
    errors = [annotation for preview in previews for annotation in _annotate_problems(preview)]
    warnings = [annotation for preview in previews for annotation in _annotate_unknowns(preview)]
    totals = (_annotate_totals(preview.manifest.name, "plan", plan_totals([preview])) for preview in previews)
    return _render(
        _limit("error", errors, len(errors)),
        _limit("warning", warnings, len(warnings)),
        _limit("notice", totals, len(previews), f": {plan_totals(previews)}"),
    )


def render_statuses(reports: Sequence[StatusReport], _style: Style) -> str:
    """An error for each job that failed, was cancelled or has no known status, and the totals."""
    errors = [annotation for report in reports for annotation in _annotate_statuses(report)]
    totals = (_annotate_totals(report.manifest, "status", _describe_statuses(report)) for report in reports)
    return _render(_limit("error", errors, len(errors)), _limit("notice", totals, len(reports)))


def truncate_summary(markdown: str, used: int = 0) -> str:
    """The Markdown of a step's summary as far as GitHub shows it, without a final newline.

    If it is too long, lines before the last blank line are left out (rows of a table, not the totals after it), and the
    last line says how many. `used` is how many bytes the step's summary has already.
    """
    available = MAX_SUMMARY - used - 1  # for the final newline
    if len(markdown.encode()) <= available:
        return markdown
    body, blank, notes = markdown.rpartition("\n\n")
    if not blank or len(notes.encode()) > min(_MAX_NOTES, available // 2):
        body, notes = markdown, ""
    lines = body.split("\n")
    # The last line at its longest: no count has more digits than that of all lines.
    available -= len(_join_summary([], notes, len(lines)).encode())
    kept = bisect_right(list(accumulate(len(line.encode()) + 1 for line in lines)), available)
    return _join_summary(lines[:kept], notes, len(lines) - kept)


def _join_summary(lines: Sequence[str], notes: str, omitted: int) -> str:
    count = format_count(omitted, "line", "lines")
    last = f"{count} omitted, as GitHub shows at most 1 MiB per step; see the full report"
    return "\n\n".join(part for part in ("\n".join(lines), notes, last) if part)


def _render(*annotations: Iterable[Annotation]) -> str:
    return "\n".join(map(format_command, chain(*annotations)))


def _limit(severity: Severity, annotations: Iterable[Annotation], count: int, totals: str = "") -> Iterator[Annotation]:
    """As many as GitHub shows. If some are left out, the last one says how many, and adds `totals` of all."""
    if count <= MAX_ANNOTATIONS:
        yield from annotations
        return
    shown = MAX_ANNOTATIONS - 1
    yield from islice(annotations, shown)
    message = f"GitHub shows at most {MAX_ANNOTATIONS} per step; other reports list all {count}{totals}"
    yield Annotation(severity, f"{count - shown} more {severity}s", message)


# Runs.


def _annotate_errors(run: RunSummary, outcome_type: type[NotCreated | InDoubt]) -> Iterator[Annotation]:
    for entry in run.others:
        outcome = entry.outcome
        if isinstance(outcome, outcome_type):
            error = outcome.error
            request = f" (request id {error.request_id})" if error.request_id else ""
            message = f"{error.kind}: {error.message}{request}"
            if isinstance(outcome, InDoubt):
                candidates = f". Candidates: {', '.join(outcome.candidates)}" if outcome.candidates else ""
                message = f"{message}. {IN_DOUBT_ADVICE}{candidates}"
            yield _annotate_entry(run, entry, "error", describe_outcome(outcome), message)


def _annotate_skipped(run: RunSummary) -> Iterator[Annotation]:
    """One annotation for each reason: a run that stops leaves very many jobs for the same one."""
    by_reason: dict[Skipped, list[Entry]] = {}
    for entry in run.others:
        if isinstance(entry.outcome, Skipped) and entry.outcome.reason not in _EXPECTED_SKIPS:
            by_reason.setdefault(entry.outcome, []).append(entry)
    for outcome, entries in by_reason.items():
        first = entries[0].job
        more = f" and {format_count(len(entries) - 1, 'more job', 'more jobs')}" if len(entries) > 1 else ""
        title = f"{first.name}{more}: not sent"
        yield _annotate(run.run.manifest_path, first.line, "warning", title, describe_skip(outcome))


def _annotate_invalid(run: RunSummary) -> Iterator[Annotation]:
    for entry in run.record.entries:
        view = view_entry(entry)
        if view.job and view.job.val_errors:
            errors = view.job.val_errors
            message = f"created as {view.job.id} with validation errors; first: {json.dumps(errors[0])}"
            title = format_count(len(errors), "validation error", "validation errors")
            yield _annotate_entry(run, entry, "warning", title, message)


# Plans.


def _annotate_problems(preview: Preview) -> Iterator[Annotation]:
    path = preview.manifest.path
    for planned in preview.jobs:
        if planned.problem:
            title = f"{planned.job.name}: cannot be submitted"
            yield _annotate(path, planned.job.line, "error", title, planned.problem)
    if preview.exceeds_limit:
        yield _annotate(path, 0, "error", f"{preview.manifest.name}: exceeds max_cost", describe_excess(preview))


def _annotate_unknowns(preview: Preview) -> Iterator[Annotation]:
    path = preview.manifest.path
    for planned in preview.jobs:
        if planned.action == "look up":
            message = f"{planned.detail or planned.reason}. {IN_DOUBT_ADVICE}"
            yield _annotate(path, planned.job.line, "warning", f"{planned.job.name}: in doubt", message)
    if preview.unknown_costs:
        workflow_id, reason = next(iter(preview.unknown_costs.items()))
        workflows = format_count(len(preview.unknown_costs), "workflow has", "workflows have")
        message = f"{workflows} no known cost; first: {workflow_id}: {reason}"
        yield _annotate(path, 0, "warning", f"{preview.manifest.name}: unknown cost", message)


# Statuses.


def _annotate_statuses(report: StatusReport) -> Iterator[Annotation]:
    for job in report.jobs:
        problem = _find_problem(job)
        if problem is not None:
            title, message = f"{job.name}: {problem[0]}", f"job {job.job_id}: {problem[1]}"
            yield _annotate(report.manifest_path, report.lines.get(job.name, 0), "error", title, message)
    advice: Mapping[OutcomeName, str] = {
        "not_created": "pixxel-runner show has the reasons",
        "in_doubt": IN_DOUBT_ADVICE,
    }
    for outcome, count in report.without_job.items():
        if outcome in advice:
            title = f"{report.manifest}: {format_count(count, 'job', 'jobs')} {describe_outcome(outcome)}"
            yield _annotate(report.manifest_path, 0, "error", title, f"run {report.run_id}: {advice[outcome]}")


def _find_problem(job: JobStatus) -> tuple[str, str] | None:
    """What is wrong with a job at the API, as a title and a message."""
    if job.problem:
        return "status unknown", job.problem
    if job.kind in ("failed", "cancelled"):
        return job.status, "; ".join(job.errors) or job.status
    if job.is_final and job.kind == "unknown":
        return job.status or "status unknown", "it ended with an unrecognized status"
    return None


def _describe_statuses(report: StatusReport) -> str:
    totals = summarize_statuses(report.jobs)
    return f"{totals}; {describe_without_job(report.without_job)}" if report.without_job else totals


# All.


def _annotate_totals(manifest: str, subject: str, totals: str) -> Annotation:
    return Annotation("notice", escape_unprintable(f"{manifest}: {subject}"), escape_unprintable(totals))


def _annotate_entry(run: RunSummary, entry: Entry, severity: Severity, title: str, message: str) -> Annotation:
    return _annotate(run.run.manifest_path, entry.job.line, severity, f"{entry.job.name}: {title}", message)


def _annotate(path: str, line: int, severity: Severity, title: str, message: str) -> Annotation:
    """An annotation in a manifest; standard input has no position. GitHub requires a message."""
    file = "" if path == STDIN else escape_unprintable(path)
    title, message = escape_unprintable(title), escape_unprintable(message or title)
    return Annotation(severity, title, message, file, line if file else 0)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")
