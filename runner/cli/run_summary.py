"""Prints the outcome of runs: the summary, where the results are, and what needs attention. Picks the exit code."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import click

from runner import reports
from runner.cli import console, options, problem_format
from runner.cli.batch import FinishedRun, Task, load_previous
from runner.cli.output import OutputOptions
from runner.client.failures import hint_for
from runner.core.errors import ManifestError, RunnerError
from runner.core.exit_codes import Exit, worst_exit
from runner.core.models import Created, Entry, ErrorInfo, InDoubt, NotCreated, Outcome, Skipped, describe_outcome
from runner.core.text import escape_unprintable
from runner.runs import execution
from runner.runs.summary import RunSummary


def print_summary(
    finished: Sequence[FinishedRun],
    output_options: OutputOptions,
    *,
    signum: int | None,
    quiet: bool,
    not_run: Sequence[Task] = (),
) -> Exit:
    """Print the summary of all runs, and what needs attention of each. Return the worst exit code."""
    codes = [_exit_code(run, signum) for run in finished]
    summaries = [run.summary for run in finished]
    if summaries and not output_options.write(
        reports.RUN_FORMATS, summaries, quiet=quiet, load_previous=lambda: _load_previous(not_run)
    ):
        codes.append(Exit.REFUSED)
        if not quiet:  # the totals are known even if the ledger cannot be read any more
            console.info(reports.run_totals(summaries))
    for run, code in zip(finished, codes, strict=False):
        results = f"results: {'not written' if run.results_error else escape_unprintable(str(run.task.results))}"
        remarks = list(_find_remarks(run))
        if not quiet:
            console.info(results)
            for remark in remarks:
                remark.print()
        elif code != Exit.OK or remarks:
            totals = f"{escape_unprintable(run.run.manifest)}: {reports.run_totals([run.summary])}"
            console.info("; ".join([totals, *(remark.text for remark in remarks), results]))
    return worst_exit(codes)


def _load_previous(tasks: Sequence[Task]) -> list[RunSummary]:
    return [summary for summary in map(load_previous, tasks) if summary is not None]


def print_error_line(error: RunnerError) -> None:
    """Print an error and its hint in one line, for mails from cron; of an invalid manifest, the first problem."""
    if isinstance(error, ManifestError):
        first, more = error.problems[0], len(error.problems) - 1
        rest = f"; and {more} more: pixxel-runner validate {shlex.quote(first.file)}" if more else ""
        console.info(f"{problem_format.format_line(first)}{escape_unprintable(rest)}")
    else:
        console.info(f"{click.style('error:', fg='red')} {escape_unprintable(error.one_line)}")


def _exit_code(finished: FinishedRun, signum: int | None) -> Exit:
    if signum is not None:
        return Exit(128 + signum)
    results = Exit.OK if finished.results_error is None else Exit.REFUSED
    return worst_exit((execution.exit_code(finished.run, finished.summary, finished.result), results))


@dataclass(frozen=True, slots=True)
class _Remark:
    """Something that needs attention: an error, an advice, or else a warning."""

    text: str
    error: RunnerError | None = None
    is_advice: bool = False

    def print(self) -> None:
        if self.error is not None:
            console.error(self.error)
        elif self.is_advice:
            console.info(self.text)
        else:
            console.warn(self.text)


def _find_remarks(finished: FinishedRun) -> Iterator[_Remark]:
    if finished.results_error is not None:
        yield _Remark(escape_unprintable(finished.results_error.one_line), finished.results_error)
    yield from _explain_end(finished)
    run, others = finished.run, finished.summary.others
    yield from _explain_failures(others, run.path)
    look_up = options.format_resolve_command(run.manifest, run.path)
    doubts = finished.summary.summary.in_doubt
    if doubts:
        jobs, they, them = _inflect(doubts)
        yield _Remark(
            f"{jobs} in doubt: {they} may or may not have been created. The next run will look {them} up, not send "
            f"{them} again. To look {them} up now: {look_up}"
        )
    if run.once_per == "run" and not all(_is_excluded(entry.outcome) for entry in others):
        command_line = options.format_command("run", run.path, "--resume")
        yield _Remark(f"To submit the remaining jobs: {command_line}", is_advice=True)
    if finished.earlier_doubts is None:
        yield _Remark("cannot tell whether jobs from earlier runs are in doubt: the ledger cannot be read")
    elif finished.earlier_doubts:
        jobs, _, them = _inflect(finished.earlier_doubts)
        yield _Remark(f"{jobs} still in doubt from earlier runs. To look {them} up: {look_up}")


def _inflect(count: int) -> tuple[str, str, str]:
    return ("1 job is", "it", "it") if count == 1 else (f"{count} jobs are", "they", "them")


def _explain_end(finished: FinishedRun) -> Iterator[_Remark]:
    """Why the run did not complete, and what the ledger lacks because of that."""
    result = finished.result
    if result.error is not None:
        yield _Remark(escape_unprintable(result.error.one_line), result.error)
        unsaved = [(recorded.submission, _describe(recorded.outcome)) for recorded in result.unsaved]
        for submission, text in [*unsaved, *((submission, "not sent") for submission in result.unreleased)]:
            yield _Remark(escape_unprintable(f"not saved to the ledger: {submission.job.name}: {text}"))
    elif result.state != "completed":
        end = f"stopped early: {result.detail}" if result.signum is None else f"was {result.detail}"
        yield _Remark(escape_unprintable(f"the run {end}"))


def _explain_failures(entries: Iterable[Entry], path: str) -> Iterator[_Remark]:
    """For each kind of failure, how many jobs it concerns, the first error, and a hint."""
    kinds: dict[str, list[ErrorInfo]] = {}
    for entry in entries:
        if isinstance(entry.outcome, NotCreated):
            kinds.setdefault(entry.outcome.error.kind, []).append(entry.outcome.error)
    for kind, errors in kinds.items():
        advice = hint_for(errors[0])
        if errors[0].http_status == HTTPStatus.NOT_FOUND:
            advice = f"Check the workflow and project ids: {options.format_command('plan', path, '--check')}"
        hint = f". {advice}".rstrip(". ")
        jobs = f"{len(errors)} job{'s' if len(errors) > 1 else ''} not created ({kind})"
        yield _Remark(f"{jobs}; first error: {escape_unprintable(errors[0].message)}{hint}")


def _is_excluded(outcome: Outcome) -> bool:
    return isinstance(outcome, Skipped) and outcome.reason in ("disabled", "not_selected")


def _describe(outcome: Created | NotCreated | InDoubt) -> str:
    if isinstance(outcome, Created):
        return f"created as {outcome.job_id}"
    return f"{describe_outcome(outcome)}: {outcome.error.message}"
