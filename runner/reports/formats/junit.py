"""JUnit XML, which CI servers show as tests: a suite for each manifest, a test case for each job.

It is valid against the schema of Jenkins's xUnit plugin (junit-10.xsd). It also has the elements that older schemas
require, and no attribute that one of them does not know; so the position in the manifest is in a failure's text.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from runner.core.models import Created, Entry, InDoubt, OutcomeName, Run, Skipped, describe_outcome, outcome_name
from runner.core.text import escape_unprintable
from runner.manifest import loader
from runner.reports.style import Style
from runner.reports.views.run import IN_DOUBT_ADVICE, describe_skip, run_totals
from runner.reports.views.status import StatusReport
from runner.reports.views.table import format_count
from runner.runs.job_status import JobStatus, summarize_statuses
from runner.runs.results_file import format_time
from runner.runs.summary import RunSummary

_Result = Literal["passed", "failure", "error", "skipped"]
_RESULTS: Mapping[OutcomeName, _Result] = {
    "created": "passed",
    "not_created": "failure",
    "in_doubt": "error",
    "skipped": "skipped",
}


@dataclass(frozen=True, slots=True)
class _Case:
    """A test case. `kind` classifies the failure or error, `details` are the lines of its text.

    `seconds` is its duration as far as that is known.
    """

    name: str
    result: _Result = "passed"
    kind: str = ""
    message: str = ""
    details: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Suite:
    """What is said of a manifest as a whole. `results` counts the test cases by result."""

    name: str
    path: str
    results: Mapping[_Result, int]
    started_at: datetime | None
    seconds: float
    properties: Mapping[str, Any]
    output: str


def render_runs(summaries: Sequence[RunSummary], _style: Style) -> str:
    """A run: created is passed, not created a failure, in doubt an error, skipped is skipped."""
    return _render_document(line for index, run in enumerate(summaries) for line in _render_run(index, run))


def render_statuses(reports: Sequence[StatusReport], _style: Style) -> str:
    """Jobs at the API: failed and cancelled are failures, unknown is an error, active is skipped.

    The run's entries without a job are one test case for each outcome.
    """
    return _render_document(line for index, report in enumerate(reports) for line in _render_status(index, report))


def _render_document(lines: Iterable[str]) -> str:
    return "\n".join(('<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>", *lines, "</testsuites>"))


# Runs.


def _render_run(index: int, summary: RunSummary) -> Iterator[str]:
    run, counts = summary.run, summary.summary
    suite = _Suite(
        name=run.manifest_name,
        path=run.manifest_path,
        results={result: getattr(counts, outcome) for outcome, result in _RESULTS.items()},
        started_at=run.started_at,
        seconds=(run.finished_at - run.started_at).total_seconds(),
        properties={
            "run_id": run.id,
            "run_key": run.key,
            "state": run.state,
            "started_at": format_time(run.started_at),
            "finished_at": format_time(run.finished_at),
            "runner": run.runner,
            "manifest_path": run.manifest_path,
            "manifest_sha256": run.manifest_sha256,
            "git_commit": run.git_commit,
            "base_url": run.base_url,
            "created_earlier": counts.created_earlier,
            "with_validation_errors": summary.invalid_jobs,
            "cost": counts.cost,
            "estimate": counts.estimate,
        },
        output=run_totals([summary]),
    )
    # The entries are not all in memory: there may be 100,000, each with the API's response.
    yield from _render_suite(index, suite, (_build_entry_case(entry, run) for entry in summary.record.entries))


def _build_entry_case(entry: Entry, run: Run) -> _Case:
    job, outcome = entry.job, entry.outcome
    if isinstance(outcome, Created):
        return _Case(job.name)
    if isinstance(outcome, Skipped):
        return _Case(job.name, "skipped", message=describe_skip(outcome))
    error = outcome.error
    position = _describe_position(run.manifest_path, job.line)
    details = [
        f"{position}{describe_outcome(outcome)}: {error.kind}: {error.message}",
        f"workflow: {job.workflow_id}",
        f"project: {job.project_id}",
        f"run: {entry.run_id}",
        *([f"sent: {format_time(outcome.sent_at)}"] if outcome.sent_at else []),
        *([f"request id: {error.request_id}"] if error.request_id else []),
    ]
    if isinstance(outcome, InDoubt):
        details.append(IN_DOUBT_ADVICE)
        details += [f"candidates: {', '.join(outcome.candidates)}"] if outcome.candidates else []
    return _Case(job.name, _RESULTS[outcome_name(outcome)], error.kind, error.message, tuple(details))


# Statuses.


def _render_status(index: int, report: StatusReport) -> Iterator[str]:
    cases = [_build_job_case(job, report) for job in report.jobs]
    cases += [_build_count_case(outcome, count) for outcome, count in report.without_job.items()]
    suite = _Suite(
        name=report.manifest,
        path=report.manifest_path,
        results=Counter(case.result for case in cases),
        started_at=max((job.seen_at for job in report.jobs if job.seen_at), default=None),
        seconds=sum(case.seconds for case in cases),
        properties={"run_id": report.run_id, "manifest_path": report.manifest_path or None, "base_url": report.api},
        output=summarize_statuses(report.jobs),
    )
    yield from _render_suite(index, suite, cases)


def _build_job_case(job: JobStatus, report: StatusReport) -> _Case:
    position = _describe_position(report.manifest_path, report.lines.get(job.name, 0))
    status = job.status or "status unknown"
    ids = (f"job: {job.job_id}", f"workflow: {job.workflow_id}", f"project: {job.project_id}")
    if job.problem or (job.is_final and job.kind == "unknown"):
        message = job.problem or f"unrecognized status: {status}"
        return _Case(job.name, "error", "unknown", message, (f"{position}{message}", *ids))
    if job.kind in ("failed", "cancelled"):
        message = "; ".join((status, *job.errors))
        details = (f"{position}{status}", *job.errors, *ids)
        return _Case(job.name, "failure", job.kind, message, details, _measure_seconds(job))
    if job.kind == "completed":
        return _Case(job.name, seconds=_measure_seconds(job))
    return _Case(job.name, "skipped", message=f"{status}, {job.progress}" if job.progress else status)


def _build_count_case(outcome: OutcomeName, count: int) -> _Case:
    """The case for the entries of a run that have no job at the API."""
    name = describe_outcome(outcome)
    message = f"{format_count(count, 'job', 'jobs')} {name}; see pixxel-runner show"
    return _Case(f"jobs {name}", _RESULTS[outcome], name, message, (message,))


def _measure_seconds(job: JobStatus) -> float:
    """The seconds from a job's creation to its end, by the API's clock; 0 if one of them is unknown."""
    if job.created_at is None or job.finished_at is None:
        return 0.0
    return max(0.0, (job.finished_at - job.created_at).total_seconds())


# Both.


def _describe_position(path: str, line: int) -> str:
    """The position of a job as compilers write it, to go before a message; empty if it is unknown."""
    return f"{loader.display_name(path)}:{line}: " if path and line else ""


def _render_suite(index: int, suite: _Suite, cases: Iterable[_Case]) -> Iterator[str]:
    attributes = {
        "name": _require_text(suite.name),
        "package": _require_text(suite.path),
        "id": index,
        # The schemas allow no time zone, and require a host; nobody needs to know the name of this one.
        "timestamp": suite.started_at and suite.started_at.astimezone(UTC).isoformat()[:19],
        "hostname": "localhost",
        "tests": sum(suite.results.values()),
        "failures": suite.results.get("failure", 0),
        "errors": suite.results.get("error", 0),
        "skipped": suite.results.get("skipped", 0),
        "time": f"{max(0.0, suite.seconds):.3f}",
    }
    yield f"  {_open_tag('testsuite', attributes)}>"
    yield "    <properties>"
    for name, value in suite.properties.items():
        if value is not None:
            yield f"      {_open_tag('property', {'name': name, 'value': value})}/>"
    yield "    </properties>"
    class_name = _require_text(suite.name)
    for case in cases:
        yield _render_case(case, class_name)
    yield f"    <system-out>{_escape(suite.output)}</system-out>\n    <system-err/>\n  </testsuite>"


def _render_case(case: _Case, class_name: str) -> str:
    attributes = {"name": _require_text(case.name), "classname": class_name, "time": f"{case.seconds:.3f}"}
    test = f"    {_open_tag('testcase', attributes)}"
    if case.result == "passed":
        return f"{test}/>"
    if case.result == "skipped":
        return f"{test}>{_open_tag('skipped', {'message': case.message})}/></testcase>"
    result = _open_tag(case.result, {"type": case.kind, "message": case.message})
    details = "\n".join(map(_escape, case.details))
    return f"{test}>{result}>{details}</{case.result}></testcase>"


def _open_tag(name: str, attributes: Mapping[str, Any]) -> str:
    """The start of an element, without its `>`. Attributes that are None are left out."""
    listed = (f' {name}="{_escape(str(value))}"' for name, value in attributes.items() if value is not None)
    return f"<{name}{''.join(listed)}"


def _require_text(name: str) -> str:
    """A name that is not empty to readers that strip spaces."""
    return name if name.strip() else "-"


def _escape(text: str) -> str:
    """Text as XML. Of what XML does not allow, `escape_unprintable` leaves nothing."""
    return html.escape(escape_unprintable(text))
