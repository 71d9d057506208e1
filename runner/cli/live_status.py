"""Following jobs until they are final: a table that is drawn anew on a terminal, one line for each change otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from runner.cli import console, options, terminal
from runner.core.errors import RefusedError
from runner.core.exit_codes import Exit
from runner.core.models import OutcomeName
from runner.core.text import display_width, escape_unprintable, truncate
from runner.ledger.store import Ledger
from runner.runs import job_status, tracking
from runner.runs.job_status import JobStatus

if TYPE_CHECKING:
    from runner.runs.job_status import StatusPoller

_SLICE = 0.2  # seconds
_LONG = 5.0  # seconds of a pause that a person wants to know of
_COLORS = {"completed": "green", "failed": "red", "cancelled": "red", "active": "cyan", "unknown": "yellow"}
_LEAST_NAME = 16  # columns
_LEAST_WORDS = 9  # columns
_GAP = 2  # columns

Keep = Callable[[Sequence[JobStatus]], None]


@contextmanager
def open_run_ledger(path: Path) -> Iterator[Ledger]:
    """A run's ledger; where that can't be written it is read, and what is final is only shown."""
    try:
        ledger = Ledger(path)
    except RefusedError:
        ledger = Ledger(path, read_only=True)
    with ledger:
        yield ledger


@contextmanager
def saving_final_states(ledger: Ledger, api: str) -> Iterator[Keep]:
    """What keeps final states in the ledger. That it can't is said at the end: a table may be drawn until then."""
    failed: list[RefusedError] = []
    try:
        yield tracking.final_status_saver(ledger, api, failed.append)
    finally:
        if failed:
            console.warn(f"what is final could not be kept on record: {escape_unprintable(failed[0].message)}")


def format_status_command(target: str) -> str:
    """The command that goes on following a run."""
    return f"{options.format_command('status', target)} --wait"


def wait_until_final(watch: StatusPoller, *, timeout: float | None, again: str, quiet: bool) -> Exit:
    """Follow until every job is final, or the timeout is over; say how it goes on stderr, and return the exit code.

    A signal ends the following as it ends any command; then what to do is said, with `again`, the command to go on.
    """
    display = _display(watch, quiet=quiet)
    try:
        for changed in watch.poll_until_final(sleep, timeout):
            display(changed)
    except Exception:
        raise
    except BaseException:  # a signal: the jobs are the API's, and nothing here could end them
        console.info(f"not followed any more: the jobs go on at the API. To look again: {again}")
        raise
    if not watch.is_done:
        console.warn(f"the time to wait is over, and the jobs go on. To look again: {again}")
        return Exit.TIMED_OUT
    code = exit_code(watch.statuses)
    if code is Exit.REFUSED:
        console.info(f"not followed any more. To look again: {again}")
    return code


def exit_code(sightings: Sequence[JobStatus], others: Mapping[OutcomeName, int] = MappingProxyType({})) -> Exit:
    """0: nothing is wrong; 1: a job failed or was cancelled; 4: it could not be told what became of one.

    `others` counts what a run has without a job at the API.
    """
    if others.get("in_doubt") or any(one.problem or (one.is_final and one.kind == "unknown") for one in sightings):
        return Exit.REFUSED
    failed = others.get("not_created") or any(one.kind in ("failed", "cancelled") for one in sightings)
    return Exit.NOT_CREATED if failed else Exit.OK


def report_problems(watch: StatusPoller) -> None:
    """Say what could not be learned, and why."""
    if watch.refused:
        console.error(RefusedError(watch.refused, "Set PIXXEL_API_KEY or --api-key-file to a key of this API."))
        return
    troubled = [one for one in watch.statuses if one.problem]
    if troubled:
        jobs = "1 job" if len(troubled) == 1 else f"{len(troubled)} jobs"
        console.warn(f"what became of {jobs} is not known, the first with: {escape_unprintable(troubled[0].problem)}")


def sleep(seconds: float) -> bool:
    """Wait; a signal ends it by the exception that it raises."""
    # In slices: a signal that comes just before a sleep is seen by Python when the sleep is over.
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _SLICE))
    return True


def _display(watch: StatusPoller, *, quiet: bool) -> Callable[[Sequence[JobStatus]], None]:
    if quiet:
        return lambda _changed: None
    return _Live(watch).draw if terminal.can_redraw() else _Lines(watch).say


class _Lines:
    """One line for each change, and for a pause that the API asks for."""

    def __init__(self, watch: StatusPoller) -> None:
        self._watch = watch
        self._paused_until = 0.0  # as far as it was said

    def say(self, changed: Sequence[JobStatus]) -> None:
        """Say what has changed."""
        for one in changed:
            console.info(escape_unprintable(f"{one.name}: {_in_words(one)}"))
        pause = self._watch.paused_for
        if pause > _LONG and time.monotonic() + pause > self._paused_until + _LONG:
            self._paused_until = time.monotonic() + pause
            console.info(_pause_in_words(pause))


def _pause_in_words(seconds: float) -> str:
    return f"the API asks for a pause of {seconds:.0f} s"


def _in_words(one: JobStatus) -> str:
    if one.problem:
        return f"not known now: {one.problem}"
    progress = f", {one.progress}" if one.progress and not one.is_final else ""
    reasons = f": {'; '.join(one.errors)}" if one.errors else ""
    return f"{one.status or 'status unknown'}{progress}{reasons}"


class _Live:
    """A table on a terminal that is drawn over itself: jobs that go on first, as many as there is room for."""

    def __init__(self, watch: StatusPoller) -> None:
        self._watch = watch
        self._drawing = terminal.LiveLines()

    def draw(self, _changed: Sequence[JobStatus]) -> None:
        """Draw it as it is now, in the place where it was."""
        size = terminal.size()
        self._drawing.draw(self._lines(max(1, size.columns - 1), max(1, size.lines - 2)))

    def _lines(self, columns: int, room: int) -> list[str]:
        sightings = self._watch.statuses
        going = sorted(sightings, key=lambda one: one.is_final)
        shown = going[: room - 1]
        widest = max((display_width(escape_unprintable(one.name)) for one in shown), default=0)
        most = max(_LEAST_NAME, columns // 2)
        name_width = min(widest, most, max(1, columns - _GAP - _LEAST_WORDS))
        lines = [self._line(one, name_width, columns) for one in shown]
        more = len(sightings) - len(shown)
        rest = f" ({more} not shown)" if more else ""
        pause = self._watch.paused_for
        rest += f"; {_pause_in_words(pause)}" if pause > _LONG else ""
        return [*lines, truncate(f"{escape_unprintable(job_status.summarize_statuses(sightings))}{rest}", columns)]

    def _line(self, one: JobStatus, name_width: int, columns: int) -> str:
        name = truncate(escape_unprintable(one.name), name_width)
        text = truncate(escape_unprintable(_in_words(one)), max(1, columns - name_width - _GAP))
        colored = click.style(text, fg=_COLORS[one.kind]) if console.is_stderr_colored() else text
        return f"{name}{' ' * (name_width - display_width(name) + _GAP)}{colored}"
