"""Waits for jobs to become final, and shows their status: a table redrawn on a terminal, or a line for each change."""

from __future__ import annotations

import sys
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
_LONG_PAUSE = 5.0  # seconds: a shorter one is not shown
_COLORS = {"completed": "green", "failed": "red", "cancelled": "red", "active": "cyan", "unknown": "yellow"}
_MIN_NAME_WIDTH = 16
_MIN_STATUS_WIDTH = 9
_GAP = 2

SaveStatuses = Callable[[Sequence[JobStatus]], None]


@contextmanager
def open_run_ledger(path: Path) -> Iterator[Ledger]:
    """Open the ledger of a run; read-only if it cannot be written, and then final statuses are not saved."""
    try:
        ledger = Ledger(path)
    except RefusedError:
        ledger = Ledger(path, read_only=True)
    with ledger:
        yield ledger


@contextmanager
def saving_final_statuses(ledger: Ledger, api: str) -> Iterator[SaveStatuses]:
    """Yield a function that saves final statuses. At the end, warn if that failed: until then a table may be drawn."""
    errors: list[RefusedError] = []
    try:
        yield tracking.final_status_saver(ledger, api, errors.append)
    finally:
        if errors:
            console.warn(f"final statuses could not be saved to the ledger: {escape_unprintable(errors[0].message)}")


def format_status_command(target: str) -> str:
    """The command to wait for a run again."""
    return f"{options.format_command('status', target)} --wait"


def wait_until_final(poller: StatusPoller, *, timeout: float | None, next_command: str, quiet: bool) -> Exit:
    """Wait until every job is final or the timeout expires, showing their status on stderr. Return the exit code.

    `next_command` is suggested if the wait ends early: by the timeout, by a signal, or as the status of a job cannot be
    determined.
    """
    display = _make_display(poller, quiet=quiet)
    try:
        for changed in poller.poll_until_final(sleep, timeout):
            display(changed)
    except Exception:
        raise
    except BaseException:  # a signal
        console.info(f"stopped waiting; the jobs continue at the API. To wait again: {next_command}")
        raise
    if not poller.is_done:
        console.warn(f"timed out waiting; jobs are still running. To wait again: {next_command}")
        return Exit.TIMED_OUT
    code = exit_code(poller.statuses)
    if code is Exit.REFUSED:
        console.info(f"stopped waiting. To wait again: {next_command}")
    return code


def exit_code(statuses: Sequence[JobStatus], others: Mapping[OutcomeName, int] = MappingProxyType({})) -> Exit:
    """The exit code for the statuses of a run's jobs. `others` counts its outcomes without a job at the API."""
    if others.get("in_doubt") or any(job.problem or (job.is_final and job.kind == "unknown") for job in statuses):
        return Exit.REFUSED
    failed = others.get("not_created") or any(job.kind in ("failed", "cancelled") for job in statuses)
    return Exit.NOT_CREATED if failed else Exit.OK


def report_problems(poller: StatusPoller) -> None:
    """Say which statuses could not be determined, and why."""
    if poller.auth_error:
        console.error(RefusedError(poller.auth_error, "Set PIXXEL_API_KEY or --api-key-file to a key of this API."))
        return
    problems = [escape_unprintable(job.problem) for job in poller.statuses if job.problem]
    if len(problems) == 1:
        console.warn(f"the status of 1 job is unknown: {problems[0]}")
    elif problems:
        console.warn(f"the status of {len(problems)} jobs is unknown; first error: {problems[0]}")


def sleep(seconds: float) -> bool:
    """Sleep. A signal ends it with the exception that its handler raises."""
    # In slices: Python handles a signal that arrives just before a sleep only after it.
    deadline = time.monotonic() + seconds
    while (remaining := deadline - time.monotonic()) > 0:
        time.sleep(min(remaining, _SLICE))
    return True


def _make_display(poller: StatusPoller, *, quiet: bool) -> Callable[[Sequence[JobStatus]], None]:
    if quiet:
        return lambda _changed: None
    return _LiveTable(poller).draw if terminal.can_redraw() else _ChangeLog(poller).write


def _describe_pause(seconds: float) -> str:
    return f"pausing for {seconds:.0f} s, as the API requested"


def _describe(job: JobStatus) -> str:
    if job.problem:
        return f"status unknown: {job.problem}"
    progress = f", {job.progress}" if job.progress and not job.is_final else ""
    errors = f": {'; '.join(job.errors)}" if job.errors else ""
    return f"{job.status or 'status unknown'}{progress}{errors}"


class _ChangeLog:
    """Writes a line for each change, and for each long pause that the API requests."""

    def __init__(self, poller: StatusPoller) -> None:
        self._poller = poller
        self._pause_end = 0.0  # of the pause last written

    def write(self, changed: Sequence[JobStatus]) -> None:
        """Write the jobs that have changed."""
        for job in changed:
            console.info(escape_unprintable(f"{job.name}: {_describe(job)}"))
        pause = self._poller.pause_remaining
        if pause > _LONG_PAUSE and time.monotonic() + pause > self._pause_end + _LONG_PAUSE:
            self._pause_end = time.monotonic() + pause
            console.info(_describe_pause(pause))


class _LiveTable:
    """Redraws a table on the terminal: as many jobs as fit, those that are not final first."""

    def __init__(self, poller: StatusPoller) -> None:
        self._poller = poller
        self._live_lines = terminal.LiveLines()

    def draw(self, _changed: Sequence[JobStatus]) -> None:
        """Redraw it with the present statuses."""
        size = terminal.size()
        self._live_lines.draw(self._format(max(1, size.columns - 1), max(1, size.lines - 2)))

    def _format(self, columns: int, max_lines: int) -> list[str]:
        statuses = self._poller.statuses
        shown = sorted(statuses, key=lambda job: job.is_final)[: max_lines - 1]
        widest = max((display_width(escape_unprintable(job.name)) for job in shown), default=0)
        max_width = max(_MIN_NAME_WIDTH, columns // 2)
        name_width = min(widest, max_width, max(1, columns - _GAP - _MIN_STATUS_WIDTH))
        lines = [self._format_job(job, name_width, columns) for job in shown]
        hidden = len(statuses) - len(shown)
        pause = self._poller.pause_remaining
        total = escape_unprintable(job_status.summarize_statuses(statuses))
        total += f" ({hidden} not shown)" if hidden else ""
        total += f"; {_describe_pause(pause)}" if pause > _LONG_PAUSE else ""
        return [*lines, truncate(total, columns)]

    def _format_job(self, job: JobStatus, name_width: int, columns: int) -> str:
        name = truncate(escape_unprintable(job.name), name_width)
        text = truncate(escape_unprintable(_describe(job)), max(1, columns - name_width - _GAP))
        colored = click.style(text, fg=_COLORS[job.kind]) if console.is_colored(sys.stderr) else text
        return f"{name}{' ' * (name_width - display_width(name) + _GAP)}{colored}"
