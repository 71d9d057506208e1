"""Shows the progress of a run on stderr: a bar on a terminal, a line per job with --verbose, and what delays it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import assert_never

from runner.cli import console, terminal
from runner.core.models import Created, ErrorInfo, InDoubt, NotCreated, Outcome, Skipped, Submission, describe_outcome
from runner.core.text import escape_unprintable, join_reason, truncate
from runner.runs.matching import Finding

_MAX_BAR = 36  # columns
_MIN_BAR = 10  # columns
_LABEL = "submitting"


class Progress:
    """Observes a run for the command line."""

    def __init__(self, *, quiet: bool, verbose: bool, bar: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._wants_bar = bar and not quiet and terminal.can_redraw()
        self._counts: Counter[str] = Counter()
        self._started_at = time.monotonic()
        self._total = 0
        self._live_lines: terminal.LiveLines | None = None

    @contextmanager
    def showing(self, total: int) -> Iterator[None]:
        """Show the bar for so many jobs, within the context."""
        self._started_at = time.monotonic()
        if not (self._wants_bar and total):
            yield
            return
        self._total = total
        self._counts.clear()
        self._live_lines = terminal.LiveLines(inline=True)
        self._draw()
        try:
            yield
        finally:
            self._live_lines.finish()
            self._live_lines = None

    def note(self, text: str) -> None:
        """Show something that needs no action."""
        self._print(text)

    def looked_up(self, findings: Sequence[Finding]) -> None:
        """Show the results of a lookup."""
        for finding in findings:
            name = finding.doubt.name
            if not isinstance(finding.outcome, InDoubt):
                self._print(f"{name}: was in doubt, now {_describe(finding.outcome)}")
            elif self._verbose:
                self._print(f"{name}: still in doubt: {finding.reason}")

    def looking_up(self, doubts: int, seconds: float) -> None:
        """Show that jobs in doubt are being looked up, for at most so many seconds more."""
        self._print(f"looking up {doubts} job{'' if doubts == 1 else 's'} in doubt, for up to {seconds:.0f} s")

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        """Count an outcome that is in the ledger."""
        self._counts[describe_outcome(outcome)] += 1
        if self._verbose:
            self._print(f"{submission.job.name}: {_describe(outcome)}")
        else:
            self._draw()

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:
        """Show that a request that was not sent is retried in so many seconds."""
        if self._verbose:
            self._print(f"{submission.job.name}: not sent, retrying in {seconds:.1f} s: {error.message}")

    def pausing(self, error: ErrorInfo, seconds: float) -> None:
        """Show that nothing is sent for so many seconds, as the server requested."""
        self._print(f"pausing for {seconds:.1f} s: {error.message}")

    def stopping(self, detail: str) -> None:
        """Show that nothing more is sent, and requests in flight are waited for."""
        self._print(f"stopping: {detail}; waiting for requests in flight")

    def _print(self, text: str) -> None:
        if self._quiet:
            return
        if self._live_lines is not None:
            self._live_lines.clear()
        console.info(escape_unprintable(text))
        self._draw()

    def _draw(self) -> None:
        if self._live_lines is not None:
            done, elapsed = self._counts.total(), time.monotonic() - self._started_at
            others = {outcome: count for outcome, count in sorted(self._counts.items()) if outcome != "created"}
            self._live_lines.draw([format_bar(done, self._total, others, elapsed, terminal.size().columns - 1)])


def format_bar(done: int, total: int, others: Mapping[str, int], elapsed: float, columns: int) -> str:
    """The progress bar in at most so many columns; the least important parts are left out first.

    Args:
        done: jobs whose outcome is in the ledger.
        total: jobs that the run sends.
        others: how many of them were not created, by outcome.
        elapsed: seconds since the start.
        columns: at least 1.
    """
    count = f"{done}/{total}"
    other_counts = ", ".join(f"{number} {outcome}" for outcome, number in others.items())
    rate = done / elapsed if elapsed else 0.0
    end = ", ".join(filter(None, [f"{rate:.1f}/s", other_counts]))
    remaining = f"{_format_duration((total - done) / rate)}  " if rate and done < total else ""
    for tail in (f"  {count}  {remaining}{end}", f"  {count}  {end}"):
        width = min(columns - len(f"{_LABEL}  []{tail}"), _MAX_BAR)
        if width >= _MIN_BAR:
            filled = width * min(done, total) // total
            return f"{_LABEL}  [{'#' * filled}{'-' * (width - filled)}]{tail}"
    shorter = (f"{_LABEL}  {count}  {end}", f"{count}  {end}", f"{count}  {other_counts}".rstrip())
    return next((line for line in shorter if len(line) <= columns), truncate(shorter[-1], max(1, columns)))


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def _describe(outcome: Outcome) -> str:
    match outcome:
        case Created(job_id=detail):
            pass
        case NotCreated(error=error) | InDoubt(error=error):
            detail = error.message
        case Skipped(reason=reason, detail=explanation):
            detail = join_reason(reason, explanation)
        case _:
            assert_never(outcome)
    return f"{describe_outcome(outcome)}: {detail}"
