"""How a run goes, on stderr: a bar on a terminal, one line a job where that was asked for, and what holds it up."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, assert_never

import click

from runner.cli import console
from runner.model import Created, ErrorInfo, Failed, InDoubt, Outcome, Skipped, Submission
from runner.report.text import plain

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar  # click names the bar's class nowhere else


class Progress:
    """The engine's observer on the command line. Use it as a context manager around the run."""

    def __init__(self, total: int, *, quiet: bool, verbose: bool, bar: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._counts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._bar: ProgressBar[int] | None = None
        if bar and not quiet and total:
            self._bar = click.progressbar(
                length=total, label="submitting", show_pos=True, item_show_func=self._now, file=click.get_text_stream("stderr")
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
            self._bar = None

    def begin(self, text: str) -> None:
        """Say what is about to happen."""
        self._say(text)

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        """A job's outcome is on record."""
        word, detail = _in_words(outcome)
        self._counts[word] += 1
        if self._verbose:
            self._say(f"{plain(submission.job.name)}: {word}{': ' if detail else ''}{plain(detail)}")
        if self._bar is not None:
            self._bar.update(1, 1)

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:
        """A job that was certainly not sent is tried again in so many seconds."""
        if self._verbose:
            self._say(f"{plain(submission.job.name)}: not sent, again in {seconds:.1f} s: {plain(error.message)}")

    def pausing(self, error: ErrorInfo, seconds: float) -> None:
        """The server asked for a pause: nothing is sent for so many seconds."""
        self._say(f"pausing for {seconds:.1f} s: {plain(error.message)}")

    def stopping(self, why: str) -> None:
        """Nothing more is sent; what is in flight is waited for."""
        self._say(f"stopping: {plain(why)}; waiting for what is in flight")

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            click.echo("\r\x1b[2K", err=True, nl=False)  # the bar's line, which it draws again below
        console.say(text)
        if self._bar is not None:
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
