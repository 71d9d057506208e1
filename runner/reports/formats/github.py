"""GitHub Actions: annotations at the manifest's lines, and how much Markdown a step's summary takes.

The rule for a workflow command's escapes is here alone, and so are GitHub's limits.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

from runner.client.job import parse_job
from runner.core.models import STDIN, Created, Entry, InDoubt, NotCreated, Skipped, describe_outcome
from runner.core.text import escape_unprintable
from runner.planning.planned_jobs import Preview
from runner.reports.style import Style
from runner.reports.views import plan, run
from runner.reports.views.status import StatusReport, describe_without_job
from runner.reports.views.table import count
from runner.runs.job_status import JobStatus
from runner.runs.job_status import summarize_statuses as status_totals
from runner.runs.summary import RunSummary

Severity = Literal["error", "warning", "notice"]

# https://github.com/actions/toolkit/blob/main/docs/problem-matchers.md#limitations: of each severity, for a step. What
# is beyond that stays in the log alone.
MOST = 10
# What the runner passes on of a message (`_maxIssueMessageLength`), and a check run's annotation takes of a title.
_LONGEST_MESSAGE = 4096
_LONGEST_TITLE = 255

# https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands: 1 MiB for a step's summary, and
# with a byte more nothing of it is shown.
SUMMARY_LIMIT = 1024 * 1024
_NOTES_LIMIT = 64 * 1024  # of the lines under the last table, which are kept when rows are left out

_ON_PURPOSE = ("disabled", "not_selected")
_ADVICE = "It may or may not exist, and is not sent again: pixxel-runner resolve looks it up, and so does the next run"


@dataclass(frozen=True, slots=True)
class Annotation:
    """What GitHub shows at a line of a file, in a pull request and on the page of the workflow's run.

    `file` is relative to the repository, or absolute within the workspace, which the runner makes relative; empty for
    what is about no file. `line` and `column` count from 1; 0 where that is not known.
    """

    severity: Severity
    title: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0


def format_command(one: Annotation) -> str:
    """The workflow command for an annotation, in one line.

    Its properties and its escapes are those of
    https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions and of `@actions/core`.
    """
    place = {"file": posixpath.normpath(one.file) if one.file else "", "line": one.line, "col": one.column}
    properties = {**{name: value for name, value in place.items() if value}, "title": _cut(one.title, _LONGEST_TITLE)}
    listed = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    return f"::{one.severity} {listed}::{_data(_cut(one.message, _LONGEST_MESSAGE))}"


def render_runs(made: Sequence[RunSummary], _style: Style) -> str:
    """Records: an error for each job that is not created or in doubt, warnings for invalid jobs and what was not sent.

    One notice for each manifest has its totals.
    """
    # Doubts first: of what can't be shown they would be missed most.
    errors = chain(*map(_doubtful, made), *map(_failed, made))
    unsent = [each for one in made for each in _unsent(one)]
    invalid = (each for one in made if one.invalid_jobs for each in _invalid(one))
    totals = (
        Annotation("notice", f"{escape_unprintable(one.run.manifest_name)}: {one.run.state}", run.run_totals([one]))
        for one in made
    )
    return _commands(
        _within("error", errors, sum(one.summary.not_created + one.summary.in_doubt for one in made)),
        _within("warning", chain(unsent, invalid), len(unsent) + sum(one.invalid_jobs for one in made)),
        _within("notice", totals, len(made), f": {run.run_totals(made)}"),
    )


def render_plans(made: Sequence[Preview], _style: Style) -> str:
    """Forecasts: errors for what a run would be refused or fail for, warnings for what is not known, and the totals."""
    errors = [each for one in made for each in _wrong(one)]
    warnings = [each for one in made for each in _uncertain(one)]
    totals = (
        Annotation("notice", f"{escape_unprintable(one.manifest.name)}: plan", plan.plan_totals([one])) for one in made
    )
    return _commands(
        _within("error", errors, len(errors)),
        _within("warning", warnings, len(warnings)),
        _within("notice", totals, len(made), f": {plan.plan_totals(made)}"),
    )


def render_statuses(made: Sequence[StatusReport], _style: Style) -> str:
    """Jobs at the API: an error for each that failed, was cancelled or can't be told, and the totals."""
    errors = [each for one in made for each in _troubled(one)]
    totals = (Annotation("notice", f"{escape_unprintable(one.manifest)}: status", _totals(one)) for one in made)
    return _commands(_within("error", errors, len(errors)), _within("notice", totals, len(made)))


def truncate_summary(markdown: str, taken: int = 0) -> str:
    """The Markdown of a step's summary, without the last line's end, as far as GitHub takes it.

    Where it is too long, lines are left out before the last blank line (rows of a table, that is, and not the totals
    under it), and the last line says how many. `taken` is how many bytes the step's summary has already.
    """
    room = SUMMARY_LIMIT - taken - 1  # the last line's end
    if len(markdown.encode()) <= room:
        return markdown
    body, blank, notes = markdown.rpartition("\n\n")
    if not blank or len(notes.encode()) > min(_NOTES_LIMIT, room // 2):
        body, notes = markdown, ""
    lines = body.split("\n")
    # As long as it can be: the number of lines has no more digits than that of all of them.
    room -= len(_with_rest([], notes, len(lines)).encode())
    kept = 0
    for line in lines:
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept += 1
    return _with_rest(lines[:kept], notes, len(lines) - kept)


def _with_rest(kept: Sequence[str], notes: str, left_out: int) -> str:
    rest = f"{count(left_out, 'line is', 'lines are')} left out, as GitHub takes 1 MiB of a step: see the report itself"
    return "\n\n".join(part for part in ("\n".join(kept), notes, rest) if part)


def _commands(*annotations: Iterable[Annotation]) -> str:
    return "\n".join(map(format_command, chain(*annotations)))


def _within(severity: Severity, annotations: Iterable[Annotation], number: int, rest: str = "") -> Iterator[Annotation]:
    """As many as GitHub shows. The last one says how many are left out, where some are, and `rest` of all of them."""
    if number <= MOST:
        yield from annotations
        return
    shown = MOST - 1
    yield from islice(annotations, shown)
    words = f"GitHub shows {MOST} of a kind for a step. The other reports and the results file have all {number}"
    yield Annotation(severity, f"{number - shown} more {severity}s", f"{words}{rest}")


def _doubtful(made: RunSummary) -> Iterator[Annotation]:
    for entry in made.others:
        if isinstance(entry.outcome, InDoubt):
            error, candidates = entry.outcome.error, entry.outcome.candidates
            rest = f". It may be: {', '.join(candidates)}" if candidates else ""
            words = f"{error.kind}: {error.message}. {_ADVICE}{rest}"
            yield _at(made.run.manifest_path, entry.job.line, "error", f"{entry.job.name}: in doubt", words)


def _failed(made: RunSummary) -> Iterator[Annotation]:
    for entry in made.others:
        if isinstance(entry.outcome, NotCreated):
            error = entry.outcome.error
            request = f" (request id {error.request_id})" if error.request_id else ""
            words = f"{error.kind}: {error.message}{request}"
            yield _at(made.run.manifest_path, entry.job.line, "error", f"{entry.job.name}: not created", words)


def _unsent(made: RunSummary) -> Iterator[Annotation]:
    """One for each reason: a run that stops leaves very many jobs for the same one."""
    reasons: dict[tuple[str, str], list[Entry]] = {}
    for entry in made.others:
        if isinstance(entry.outcome, Skipped) and entry.outcome.reason not in _ON_PURPOSE:
            reasons.setdefault((entry.outcome.reason, entry.outcome.detail), []).append(entry)
    for (reason, detail), entries in reasons.items():
        first = entries[0].job
        rest = f" and {count(len(entries) - 1, 'job', 'jobs')} more" if entries[1:] else ""
        title = f"{first.name}{rest}: not sent"
        yield _at(made.run.manifest_path, first.line, "warning", title, run.because(reason, detail))


def _invalid(made: RunSummary) -> Iterator[Annotation]:
    for entry in made.record.entries:
        outcome = entry.outcome
        job = parse_job(outcome.body) if isinstance(outcome, Created) else None
        if job and job.val_errors:
            errors = count(len(job.val_errors), "validation error", "validation errors")
            words = f"created as {job.id} all the same. The first: {json.dumps(job.val_errors[0])}"
            yield _at(made.run.manifest_path, entry.job.line, "warning", f"{entry.job.name}: {errors}", words)


def _wrong(made: Preview) -> Iterator[Annotation]:
    path = made.manifest.path
    for one in made.jobs:
        if one.problem:
            yield _at(path, one.job.line, "error", f"{one.job.name}: cannot be submitted", one.problem)
    if made.exceeds_limit:
        words = f"the estimate {made.estimated_cost}, after {made.spent} spent, is above max_cost {made.limit}"
        yield _at(path, 0, "error", f"{made.manifest.name}: above max_cost", words)


def _uncertain(made: Preview) -> Iterator[Annotation]:
    path = made.manifest.path
    for one in made.jobs:
        if one.action == "look up":
            yield _at(
                path, one.job.line, "warning", f"{one.job.name}: in doubt", f"{one.detail or one.reason}. {_ADVICE}"
            )
    if made.unknown_costs:
        workflow_id, why = next(iter(made.unknown_costs.items()))
        workflows = count(len(made.unknown_costs), "workflow", "workflows")
        words = f"the cost of {workflows} is not known, the first: {workflow_id}: {why}"
        yield _at(path, 0, "warning", f"{made.manifest.name}: cost not known", words)


def _troubled(made: StatusReport) -> Iterator[Annotation]:
    for one in made.jobs:
        what = _trouble(one)
        if what is not None:
            line = made.lines.get(one.name, 0)
            yield _at(made.manifest_path, line, "error", f"{one.name}: {what[0]}", f"job {one.job_id}: {what[1]}")
    advice: Mapping[str, str] = {"not_created": "pixxel-runner show says why", "in_doubt": _ADVICE}
    for word, number in made.without_job.items():
        if word in advice:
            title = f"{made.manifest}: {count(number, 'job', 'jobs')} {describe_outcome(word)}"
            yield _at(made.manifest_path, 0, "error", title, f"run {made.run_id}: {advice[word]}")


def _trouble(one: JobStatus) -> tuple[str, str] | None:
    """What is wrong with a job at the API: in a word, and in a sentence."""
    if one.problem:
        return "not known", one.problem
    if one.kind in ("failed", "cancelled"):
        return one.status, "; ".join(one.errors) or one.status
    if one.is_final and one.kind == "unknown":
        return one.status or "not known", "it has ended, with a status that this program does not know"
    return None


def _totals(made: StatusReport) -> str:
    words = escape_unprintable(status_totals(made.jobs))
    return f"{words}; {describe_without_job(made.without_job)}" if made.without_job else words


def _at(path: str, line: int, severity: Severity, title: str, message: str) -> Annotation:
    """An annotation at a place in a manifest, of words that may be anyone's. Standard input is no place."""
    file = "" if path == STDIN else escape_unprintable(path)
    return Annotation(
        severity, escape_unprintable(title), escape_unprintable(message or title), file, line if file else 0
    )  # GitHub wants one


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
