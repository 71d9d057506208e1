"""How a run goes, on stderr: a bar on a terminal, one line a job where that was asked for, and what holds it up."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, assert_never

import click

from runner.cli import console
from runner.lookup import Finding
from runner.model import Created, ErrorInfo, Failed, InDoubt, Outcome, Skipped, Submission
from runner.text import visible

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar  # click names the bar's class nowhere else


class Progress:
    """Watches an execution for the command line."""

    def __init__(self, *, quiet: bool, verbose: bool, bar: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._wants_bar = bar and not quiet
        self._counts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._bar: ProgressBar[int] | None = None

    @contextmanager
    def over(self, total: int) -> Iterator[None]:
        """Show progress over so many jobs meanwhile."""
        self._started = time.monotonic()
        if not (self._wants_bar and total):
            yield
            return
        self._bar = click.progressbar(
            length=total, label="submitting", show_pos=True, item_show_func=self._now, file=sys.stderr
        )
        with suppress(OSError):
            self._bar.__enter__()
        try:
            yield
        finally:
            bar, self._bar = self._bar, None
            with suppress(OSError):
                bar.__exit__(None, None, None)

    def note(self, text: str) -> None:
        """Something that a person wants to know and need not act on."""
        self._say(visible(text))

    def found(self, findings: Sequence[Finding]) -> None:
        """A look-up was made, and this is what it says of each doubt."""
        for finding in findings:
            word, detail = _in_words(finding.outcome)
            if word != "in doubt":
                self._say(f"{visible(finding.doubt.name)}: was in doubt, now {word}: {visible(detail)}")
            elif self._verbose:
                self._say(f"{visible(finding.doubt.name)}: still in doubt: {visible(finding.what)}")

    def looking(self, doubts: int, seconds: float) -> None:
        """So many jobs are in doubt, and are looked up for at most so many seconds more."""
        self._say(f"looking up {doubts} job{'' if doubts == 1 else 's'} in doubt, for {seconds:.0f} s more at most")

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        """A job's outcome is on record."""
        word, detail = _in_words(outcome)
        self._counts[word] += 1
        if self._verbose:
            self._say(f"{visible(submission.job.name)}: {word}{': ' if detail else ''}{visible(detail)}")
        if self._bar is not None:
            with suppress(OSError):  # a terminal that hung up must not end the run
                self._bar.update(1, 1)

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:
        """A job that was certainly not sent is tried again in so many seconds."""
        if self._verbose:
            self._say(f"{visible(submission.job.name)}: not sent, again in {seconds:.1f} s: {visible(error.message)}")

    def pausing(self, error: ErrorInfo, seconds: float) -> None:
        """The server asked for a pause: nothing is sent for so many seconds."""
        self._say(f"pausing for {seconds:.1f} s: {visible(error.message)}")

    def stopping(self, why: str) -> None:
        """Nothing more is sent; what is in flight is waited for."""
        self._say(f"stopping: {visible(why)}; waiting for what is in flight")

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        if self._bar is None:
            console.say(text)
            return
        with suppress(OSError):
            click.echo("\r\x1b[2K", file=sys.stderr, nl=False, color=True)  # the bar's line; it is drawn anew below
            console.say(text)
            self._bar._last_line = None  # noqa: SLF001 - click would not draw a line that has not changed
            self._bar.render_progress()

    def _now(self, _item: int | None) -> str:
        elapsed = time.monotonic() - self._started
        rate = self._counts.total() / elapsed if elapsed else 0.0
        others = [f"{count} {word}" for word, count in sorted(self._counts.items()) if word != "created"]
        return ", ".join([f"{rate:.1f}/s", *others])


def _in_words(outcome: Outcome) -> tuple[str, str]:
    match outcome:
        case Created(job_id=job_id):
            return "created", job_id
        case Failed(error=error):
            return "failed", error.message
        case InDoubt(error=error):
            return "in doubt", error.message
        case Skipped(reason=reason, detail=detail):
            return "skipped", f"{reason}: {detail}"
        case _:
            assert_never(outcome)
