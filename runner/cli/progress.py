"""How a run goes, on stderr: a bar on a terminal, one line a job where that was asked for, and what holds it up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import assert_never

from runner.cli import console, terminal
from runner.core.models import Created, ErrorInfo, InDoubt, NotCreated, Outcome, Skipped, Submission
from runner.core.text import escape_unprintable, truncate
from runner.runs.reconcile import Finding

_WIDEST_BAR = 36  # columns
_NARROWEST_BAR = 10  # columns
_LABEL = "submitting"


class Progress:
    """Watches an execution for the command line."""

    def __init__(self, *, quiet: bool, verbose: bool, bar: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._wants_bar = bar and not quiet and terminal.can_redraw()
        self._counts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._total = 0
        self._drawing: terminal.LiveLines | None = None

    @contextmanager
    def showing(self, total: int) -> Iterator[None]:
        """Show progress over so many jobs meanwhile."""
        self._started = time.monotonic()
        if not (self._wants_bar and total):
            yield
            return
        self._total = total
        self._counts.clear()
        self._drawing = terminal.LiveLines(inline=True)
        self._draw()
        try:
            yield
        finally:
            self._drawing.finish()
            self._drawing = None

    def note(self, text: str) -> None:
        """Something that a person wants to know and need not act on."""
        self._say(escape_unprintable(text))

    def looked_up(self, findings: Sequence[Finding]) -> None:
        """A look-up was made, and this is what it says of each doubt."""
        for finding in findings:
            word, detail = _in_words(finding.outcome)
            if word != "in doubt":
                self._say(
                    f"{escape_unprintable(finding.doubt.name)}: was in doubt, now {word}: {escape_unprintable(detail)}"
                )
            elif self._verbose:
                self._say(
                    f"{escape_unprintable(finding.doubt.name)}: still in doubt: {escape_unprintable(finding.reason)}"
                )

    def looking_up(self, doubts: int, seconds: float) -> None:
        """So many jobs are in doubt, and are looked up for at most so many seconds more."""
        self._say(f"looking up {doubts} job{'' if doubts == 1 else 's'} in doubt, for {seconds:.0f} s more at most")

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        """A job's outcome is on record."""
        word, detail = _in_words(outcome)
        self._counts[word] += 1
        if self._verbose:
            self._say(
                f"{escape_unprintable(submission.job.name)}: {word}{': ' if detail else ''}{escape_unprintable(detail)}"
            )
        else:
            self._draw()

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:
        """A job that was certainly not sent is tried again in so many seconds."""
        if self._verbose:
            retry = f"{submission.job.name}: not sent, retrying in {seconds:.1f} s: {error.message}"
            self._say(escape_unprintable(retry))

    def pausing(self, error: ErrorInfo, seconds: float) -> None:
        """The server asked for a pause: nothing is sent for so many seconds."""
        self._say(f"pausing for {seconds:.1f} s: {escape_unprintable(error.message)}")

    def stopping(self, why: str) -> None:
        """Nothing more is sent; what is in flight is waited for."""
        self._say(f"stopping: {escape_unprintable(why)}; waiting for what is in flight")

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        if self._drawing is not None:
            self._drawing.clear()
        console.info(text)
        self._draw()

    def _draw(self) -> None:
        if self._drawing is not None:
            done, elapsed = self._counts.total(), time.monotonic() - self._started
            others = {word: count for word, count in sorted(self._counts.items()) if word != "created"}
            self._drawing.draw([format_bar(done, self._total, others, elapsed, terminal.size().columns - 1)])


def format_bar(done: int, total: int, others: Mapping[str, int], elapsed: float, columns: int) -> str:
    """One line that says how far a run is, in at most so many columns: what matters least goes first.

    Args:
        done: jobs whose outcome is on record.
        total: jobs that the run sends.
        others: how many of them were not created, by outcome.
        elapsed: seconds since it began.
        columns: at least 1.
    """
    count = f"{done}/{total}"
    rest = ", ".join(f"{number} {word}" for word, number in others.items())
    rate = done / elapsed if elapsed else 0.0
    end = ", ".join(filter(None, [f"{rate:.1f}/s", rest]))
    left = f"{_clock((total - done) / rate)}  " if rate and done < total else ""
    for tail in (f"  {count}  {left}{end}", f"  {count}  {end}"):
        room = min(columns - len(f"{_LABEL}  []{tail}"), _WIDEST_BAR)
        if room >= _NARROWEST_BAR:
            full = room * min(done, total) // total
            return f"{_LABEL}  [{'#' * full}{'-' * (room - full)}]{tail}"
    shorter = (f"{_LABEL}  {count}  {end}", f"{count}  {end}", f"{count}  {rest}".rstrip())
    return next((line for line in shorter if len(line) <= columns), truncate(shorter[-1], max(1, columns)))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def _in_words(outcome: Outcome) -> tuple[str, str]:
    match outcome:
        case Created(job_id=job_id):
            return "created", job_id
        case NotCreated(error=error):
            return "not created", error.message
        case InDoubt(error=error):
            return "in doubt", error.message
        case Skipped(reason=reason, detail=detail):
            return "skipped", f"{reason}: {detail}"
        case _:
            assert_never(outcome)
