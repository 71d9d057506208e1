"""What a run tells when it is over: the summary, where the results are, what is not as it should be, the exit code."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import click

from runner import reports
from runner.cli import console, problem_format
from runner.cli.batch import FinishedRun, Task, last_told
from runner.cli.output import OutputOptions
from runner.client.failures import hint_for
from runner.core.errors import ManifestError, RunnerError
from runner.core.exit_codes import Exit, worst_exit
from runner.core.models import Created, Entry, ErrorInfo, InDoubt, NotCreated, Outcome, Skipped
from runner.core.text import escape_unprintable
from runner.runs import execution
from runner.runs.summary import RunSummary


def print_summary(
    every: Sequence[FinishedRun], wanted: OutputOptions, *, signum: int | None, quiet: bool, missed: Sequence[Task] = ()
) -> Exit:
    """Print the summary of all, and say of each what is not as it should be. Returns the worst exit code.

    `missed` were not run.
    """
    codes = [_exit_code(ran, signum) for ran in every]
    made = [ran.made for ran in every]
    if made and not wanted.write(reports.RUN_FORMATS, made, quiet=quiet, load_previous=lambda: _last_told(missed)):
        codes.append(Exit.REFUSED)
        if not quiet:  # what is counted is known, also where the ledger can't be read any more
            console.info(reports.run_totals(made))
    for ran, code in zip(every, codes, strict=False):
        where = "results: not written" if ran.unwritten else f"results: {escape_unprintable(str(ran.task.results))}"
        remarks = list(_remarks(ran))
        if not quiet:
            console.info(where)
            for remark in remarks:
                remark.say()
        elif code != Exit.OK or remarks:
            totals = f"{escape_unprintable(ran.run.manifest)}: {reports.run_totals([ran.made])}"
            console.info("; ".join([totals, *(remark.text for remark in remarks), where]))
    return worst_exit(codes)


def _last_told(missed: Sequence[Task]) -> list[RunSummary]:
    return [one for one in map(last_told, missed) if one is not None]


def print_error_line(error: RunnerError) -> None:
    """Say what is wrong and what to do in one line, as a mail from cron has it; of a manifest the first problem."""
    if isinstance(error, ManifestError):
        first, more = error.problems[0], len(error.problems) - 1
        rest = f"; and {more} more: pixxel-runner validate {shlex.quote(first.file)}" if more else ""
        console.info(f"{problem_format.format_line(first)}{escape_unprintable(rest)}")
    else:
        console.info(f"{click.style('error:', fg='red')} {escape_unprintable(error.one_line)}")


def _exit_code(ran: FinishedRun, signum: int | None) -> Exit:
    if signum is not None:
        return Exit(128 + signum)
    written = Exit.OK if ran.unwritten is None else Exit.REFUSED
    return worst_exit((execution.exit_code(ran.run, ran.made, ran.end), written))


@dataclass(frozen=True, slots=True)
class _Remark:
    """What is not as it should be. `error`: the program could not go on, or could not keep the record."""

    text: str
    error: RunnerError | None = None
    advice: bool = False

    def say(self) -> None:
        if self.error is not None:
            console.error(self.error)
        elif self.advice:
            console.info(self.text)
        else:
            console.warn(self.text)


def _remarks(ran: FinishedRun) -> Iterator[_Remark]:
    end = ran.end
    if ran.unwritten is not None:
        yield _Remark(escape_unprintable(ran.unwritten.one_line), ran.unwritten)
    if end.error is not None:
        yield _Remark(escape_unprintable(end.error.one_line), end.error)
        for decided in end.unsaved:
            yield _Remark(
                f"not on record: {escape_unprintable(decided.submission.job.name)}: {_in_short(decided.outcome)}"
            )
        for submission in end.unreleased:
            yield _Remark(f"not on record: {escape_unprintable(submission.job.name)}: not sent")
    elif end.state != "completed":
        yield _Remark(
            f"the run {'stopped early' if end.signum is None else 'was interrupted'}: {escape_unprintable(end.detail)}"
        )
    yield from _failures(ran.made.others)
    doubts = ran.made.summary.in_doubt
    if doubts:
        yield _Remark(
            f"{doubts} job{' is' if doubts == 1 else 's are'} in doubt: created or not, nobody knows yet. What is in "
            "doubt is not sent again; the next run looks it up, and so does: pixxel-runner resolve"
        )
    if ran.run.once_per == "run" and not all(_is_done(entry.outcome) for entry in ran.made.others):
        yield _Remark(
            f"To finish this run, and send only what is missing: pixxel-runner run {ran.run.path} --resume", advice=True
        )
    if ran.earlier is None:  # of this run all is said: how it ended does not hang on others
        yield _Remark("whether jobs of earlier runs are in doubt is not known: the ledger cannot be read")
    elif ran.earlier:
        yield _Remark(f"{ran.earlier} of earlier runs of this manifest still in doubt: pixxel-runner resolve")


def _failures(entries: Iterable[Entry]) -> Iterator[_Remark]:
    """Say once for each kind why jobs failed, and what to look at."""
    kinds: dict[str, list[ErrorInfo]] = {}
    for entry in entries:
        if isinstance(entry.outcome, NotCreated):
            kinds.setdefault(entry.outcome.error.kind, []).append(entry.outcome.error)
    for kind, errors in kinds.items():
        hint = f". {hint_for(errors[0])}".rstrip(". ")
        jobs = f"{len(errors)} job{'s' if len(errors) > 1 else ''} not created ({kind})"
        yield _Remark(f"{jobs}; first error: {escape_unprintable(errors[0].message)}{hint}")


def _is_done(outcome: Outcome) -> bool:
    return isinstance(outcome, Skipped) and outcome.reason in ("disabled", "not_selected")


def _in_short(outcome: Created | NotCreated | InDoubt) -> str:
    match outcome:
        case Created(job_id=job_id):
            return f"created as {escape_unprintable(job_id)}"
        case NotCreated(error=error):
            return f"not created: {escape_unprintable(error.message)}"
        case InDoubt(error=error):
            return f"in doubt: {escape_unprintable(error.message)}"
