"""JUnit XML, which CI servers show as tests: a suite for each manifest, a test for each job.

It is valid against the schema of Jenkins's xUnit plugin (junit-10.xsd) and written with what the older ones ask for
too: no attribute that one of them does not know. So the place in the manifest stands in a failure's text, as there is
no attribute for it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, assert_never

from runner.core.models import Created, Entry, InDoubt, NotCreated, OutcomeName, Run, Skipped, describe_outcome
from runner.core.text import escape_unprintable
from runner.manifest import loader
from runner.reports.style import Style
from runner.reports.views import run
from runner.reports.views.status import StatusReport
from runner.reports.views.table import count
from runner.runs.job_status import JobStatus, summarize_statuses
from runner.runs.results_file import format_time
from runner.runs.summary import RunSummary

_Result = Literal["passed", "failure", "error", "skipped"]

_IN_DOUBT = "it may or may not exist: pixxel-runner resolve looks it up, and so does the next run"


@dataclass(frozen=True, slots=True)
class _Case:
    """One test: its result, a word for the kind of trouble, the trouble, and what else there is to say, line by line.

    `seconds` is how long it took, as far as that is known.
    """

    name: str
    result: _Result = "passed"
    kind: str = ""
    message: str = ""
    details: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Suite:
    """What is said of a manifest as a whole. `began_at` is left out where that is not known."""

    name: str
    path: str
    began_at: datetime | None
    seconds: float
    properties: Mapping[str, Any]
    output: str


def render_runs(made: Sequence[RunSummary], _style: Style) -> str:
    """Records: not created is a failure, in doubt an error, skipped is skipped, and created has passed."""
    return _document(line for number, one in enumerate(made) for line in _run(number, one))


def render_statuses(made: Sequence[StatusReport], _style: Style) -> str:
    """Jobs at the API: failed and cancelled are failures, what can't be told is an error, what goes on is skipped.

    What the run has without a job there is a test of its own for each outcome.
    """
    return _document(line for number, one in enumerate(made) for line in _status(number, one))


def _document(lines: Iterable[str]) -> str:
    return "\n".join(('<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>", *lines, "</testsuites>"))


def _run(number: int, made: RunSummary) -> Iterator[str]:
    about, total = made.run, made.summary
    suite = _Suite(
        about.manifest_name,
        about.manifest_path,
        about.started_at,
        (about.finished_at - about.started_at).total_seconds(),
        _properties(made),
        run.run_totals([made]),
    )
    counts = {"failure": total.not_created, "error": total.in_doubt, "skipped": total.skipped}
    yield _opening(number, suite, made.entry_count, counts)
    for entry in made.record.entries:  # one at a time: there may be 100,000 of them, each with its answer
        yield _test(suite, _of_entry(entry, about))
    yield _closing(suite)


def _status(number: int, made: StatusReport) -> Iterator[str]:
    cases = [_of_sighting(one, made) for one in made.jobs] + [_of_others(*one) for one in made.without_job.items()]
    seen = [one.seen_at for one in made.jobs if one.seen_at is not None]
    suite = _Suite(
        made.manifest,
        made.manifest_path,
        max(seen, default=None),
        sum(one.seconds for one in cases),
        {"run_id": made.run_id, "manifest_path": made.manifest_path or None, "base_url": made.api},
        summarize_statuses(made.jobs),
    )
    yield from _whole(number, suite, cases)


def _properties(made: RunSummary) -> Mapping[str, Any]:
    about = made.run
    return {
        "run_id": about.id,
        "run_key": about.key,
        "state": about.state,
        "started_at": format_time(about.started_at),
        "finished_at": format_time(about.finished_at),
        "runner": about.runner,
        "manifest_path": about.manifest_path,
        "manifest_sha256": about.manifest_sha256,
        "git_commit": about.git_commit,
        "base_url": about.base_url,
        "created_earlier": made.summary.created_earlier,
        "with_validation_errors": made.invalid_jobs,
        "cost": made.summary.cost,
        "estimate": made.summary.estimate,
    }


def _of_entry(entry: Entry, about: Run) -> _Case:
    job, outcome = entry.job, entry.outcome
    match outcome:
        case Created():
            return _Case(job.name)
        case Skipped(reason=reason, detail=detail):
            return _Case(job.name, "skipped", message=run.because(reason, detail))
        case NotCreated(error=error):
            return _Case(job.name, "failure", error.kind, error.message, _details(entry, about, outcome, "not created"))
        case InDoubt(error=error, candidates=candidates):
            more = [_IN_DOUBT, *([f"candidates: {', '.join(candidates)}"] if candidates else [])]
            details = _details(entry, about, outcome, "in doubt")
            return _Case(job.name, "error", error.kind, error.message, (*details, *more))
        case _:
            assert_never(outcome)


def _details(entry: Entry, about: Run, outcome: NotCreated | InDoubt, word: str) -> tuple[str, ...]:
    job, error = entry.job, outcome.error
    return (
        f"{_place(about.manifest_path, job.line)}{word}: {error.kind}: {error.message}",
        f"workflow: {job.workflow_id}",
        f"project: {job.project_id}",
        f"run: {entry.run_id}",
        *([f"sent: {format_time(outcome.sent_at)}"] if outcome.sent_at else []),
        *([f"request id: {error.request_id}"] if error.request_id else []),
    )


def _of_sighting(one: JobStatus, standing: StatusReport) -> _Case:
    place = _place(standing.manifest_path, standing.lines.get(one.name, 0))
    status = one.status or "status unknown"
    ids = (f"job: {one.job_id}", f"workflow: {one.workflow_id}", f"project: {one.project_id}")
    if one.problem or (one.is_final and one.kind == "unknown"):
        words = one.problem or f"{status}: a status that this program does not know"
        return _Case(one.name, "error", "unknown", words, (f"{place}{words}", *ids))
    if one.kind in ("failed", "cancelled"):
        words = "; ".join((status, *one.errors))
        details = (f"{place}{status}", *one.errors, *ids)
        return _Case(one.name, "failure", one.kind, words, details, _seconds(one))
    if one.kind == "completed":
        return _Case(one.name, seconds=_seconds(one))
    words = f"{status}, {one.progress}" if one.progress else status
    return _Case(one.name, "skipped", message=words)


def _of_others(outcome: OutcomeName, number: int) -> _Case:
    """What a run has without a job at the API: by its word for the outcome."""
    results: Mapping[OutcomeName, _Result] = {"not_created": "failure", "in_doubt": "error"}
    word = describe_outcome(outcome)
    words = f"{count(number, 'job', 'jobs')} {word}: pixxel-runner show has them"
    return _Case(f"without a job to follow: {word}", results.get(outcome, "skipped"), word, words, (words,))


def _seconds(one: JobStatus) -> float:
    """From the job's creation to its end, by the API's clock; 0 where one of both is not known."""
    began_at = one.job.created_at if one.job else None
    return max(0.0, (one.finished_at - began_at).total_seconds()) if one.finished_at and began_at else 0.0


def _place(path: str, line: int) -> str:
    """Where a job stands, as compilers say it, to be put before what is said; empty where that is not known."""
    return f"{loader.display_name(path)}:{line}: " if path and line else ""


def _whole(number: int, suite: _Suite, cases: Sequence[_Case]) -> Iterator[str]:
    """A suite whose tests are at hand, and are counted here."""
    results = [one.result for one in cases]
    counts = {result: results.count(result) for result in ("failure", "error", "skipped")}
    yield _opening(number, suite, len(cases), counts)
    for case in cases:
        yield _test(suite, case)
    yield _closing(suite)


def _opening(number: int, suite: _Suite, tests: int, counts: Mapping[str, int]) -> str:
    attributes = {
        "name": _named(suite.name),
        "package": _named(suite.path),
        "id": number,
        # The schemas allow no time zone, and ask for a host; what a name of this machine would tell, nobody needs.
        "timestamp": suite.began_at and suite.began_at.astimezone(UTC).isoformat()[:19],
        "hostname": "localhost",
        "tests": tests,
        "failures": counts["failure"],
        "errors": counts["error"],
        "skipped": counts["skipped"],
        "time": f"{max(0.0, suite.seconds):.3f}",
    }
    properties = [
        f"      {_tag('property', {'name': name, 'value': value})}/>"
        for name, value in suite.properties.items()
        if value is not None
    ]
    return "\n".join((f"  {_tag('testsuite', attributes)}>", "    <properties>", *properties, "    </properties>"))


def _closing(suite: _Suite) -> str:
    return f"    <system-out>{_text(suite.output)}</system-out>\n    <system-err/>\n  </testsuite>"


def _test(suite: _Suite, case: _Case) -> str:
    attributes = {"name": _named(case.name), "classname": _named(suite.name), "time": f"{case.seconds:.3f}"}
    test = f"    {_tag('testcase', attributes)}"
    if case.result == "passed":
        return f"{test}/>"
    if case.result == "skipped":
        return f"{test}>{_tag('skipped', {'message': case.message})}/></testcase>"
    result = _tag(case.result, {"type": case.kind, "message": case.message})
    details = "\n".join(map(_text, case.details))
    return f"{test}>{result}>{details}</{case.result}></testcase>"


def _tag(name: str, attributes: Mapping[str, Any]) -> str:
    """The start of an element, without its end; an attribute whose value is None is left out."""
    listed = (f' {name}="{_text(str(value))}"' for name, value in attributes.items() if value is not None)
    return f"<{name}{''.join(listed)}"


def _named(name: str) -> str:
    """A name that is one for every reader: they leave spaces around it aside, and want something to be left."""
    return name if name.strip() else "-"


def _text(text: str) -> str:
    """Text as XML holds it: of what XML has no place for, `visible` leaves nothing."""
    return html.escape(escape_unprintable(text))
