"""Manifests run one after another, each with its own lock, entries in the ledger and results file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGINT, SIGTERM

from runner.cli import console, options
from runner.cli.progress import Progress
from runner.cli.signals import SignalHandler
from runner.client.api import ApiClient
from runner.client.endpoint import Endpoint
from runner.core.errors import RefusedError, RunnerError, Terminated
from runner.core.exit_codes import Exit
from runner.core.models import Manifest, RunRecord, Submission
from runner.core.text import escape_unprintable
from runner.ledger.journal import RecordedOutcome
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs import execution, record, results_file, summary
from runner.runs.execution import Execution
from runner.runs.record import LazyEntries
from runner.runs.request import RunRequest
from runner.runs.summary import RunSummary
from runner.submission.engine import EngineResult

Endpoints = Callable[[Manifest], AbstractContextManager[Endpoint]]


@dataclass(frozen=True, slots=True)
class Task:
    """A manifest to run, and where its results go."""

    request: RunRequest
    results: Path


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """An execution that has ended: what is to be told of it. `unwritten`: why its results file is not there.

    `earlier` counts doubts of earlier runs of the manifest; None where the ledger could not tell.
    """

    task: Task
    run: RunRow
    made: RunSummary
    end: EngineResult
    unwritten: RefusedError | None
    earlier: int | None


class UntoldError(RefusedError):
    """Jobs were sent, and what became of them cannot be read in the ledger."""


@dataclass(slots=True)
class Batch:
    """Manifests that are run one after another. `signum` is that of a signal that came at any time.

    `refused` has an exit code for each that may not run, and `missed` all that were not run. The lock and the ledger of
    a single one are held until the batch is left, so that what is told of it is what it left.
    """

    endpoints: Endpoints
    confirm: Callable[[Execution], None]
    progress: Progress
    quiet: bool = False
    ran: list[FinishedRun] = field(default_factory=list)
    refused: list[Exit] = field(default_factory=list)
    missed: list[Task] = field(default_factory=list)
    _held: ExitStack = field(default_factory=ExitStack)
    _caught: ExitStack = field(default_factory=ExitStack)
    _interrupts: SignalHandler | None = None
    _signum: int | None = None

    @property
    def signum(self) -> int | None:
        """The signal that ended it, or came while it ended."""
        return self._signum or (self._interrupts.signum if self._interrupts else None)

    @contextmanager
    def over(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Run them; signals are caught from the first one that sends until the context is left.

        Raises:
            RunnerError: there is one manifest only, and it is not run.
        """
        with self._held, self._caught:
            for index, task in enumerate(tasks):
                if not self._goes_on(task, alone=len(tasks) == 1):
                    # A signal may have come before this one began.
                    left = tasks[index if self._signum else index + 1 :]
                    self.missed += left
                    _tell_left(left)
                    break
            yield

    def _goes_on(self, task: Task, *, alone: bool) -> bool:
        """Run one, and say whether the next one may follow."""
        try:
            ran = self._run(task, alone=alone)
        except RunnerError as error:
            if alone:
                raise
            untold = isinstance(error, UntoldError)
            about = (
                f"{escape_unprintable(task.request.manifest.path)}: {'run, and not told of' if untold else 'not run'}"
            )
            if self.quiet:
                console.info(f"{about}: {escape_unprintable(error.one_line)}")
            else:
                console.info(about)
                console.error(error)
            self.refused.append(error.exit_code)
            self.missed.append(task)
            return not untold
        except (KeyboardInterrupt, Terminated) as signal:
            if not self.ran:
                raise
            self._signum = SIGINT if isinstance(signal, KeyboardInterrupt) else SIGTERM
            if self._interrupts is not None:  # another one does not keep those that ran from being told of
                self._caught.enter_context(self._interrupts.installed())
            return False
        self.ran.append(ran)
        # What stops a run is trouble with the API as a whole, which the next would meet too; but for its own budget.
        return self.signum is None and (ran.end.state == "completed" or ran.end.reason == "budget")

    def _run(self, task: Task, *, alone: bool) -> FinishedRun:
        self._caught.close()  # a signal in `prepare` ends the program as any other: nothing was sent
        request = task.request
        with ExitStack() as own:
            with self.endpoints(request.manifest) as endpoint, ApiClient(endpoint, request.limits.concurrency) as api:
                self._interrupts = interrupts = SignalHandler(api)
                held = self._held if alone else own
                one = held.enter_context(execution.open_execution(request, api, self.progress, interrupts.wait))
                one.prepare()
                self.confirm(one)
                self.progress.note(_announcement(one))
                self._caught.enter_context(interrupts.installed())
                with self.progress.showing(len(one.plan.to_send)):
                    end = one.submit(interrupts)
            try:
                made = summary.summarize(one.record())
            except RefusedError as error:
                raise UntoldError(
                    f"{request.manifest.path} was run, and its record cannot be read: {error.message}",
                    "When the ledger can be read again: pixxel-runner show",
                ) from error
            unwritten = write(made, task.results)
            earlier = doubts_of_earlier(one.ledger, one.run)
        kept = made if alone else without_ledger(made, request, one.run, one.unsaved, one.unreleased)
        return FinishedRun(task, one.run, kept, end, unwritten, earlier)


def doubts_of_earlier(ledger: Ledger, run: RunRow) -> int | None:
    """How many jobs of earlier runs of a run's manifest are in doubt; None where the ledger can't be read."""
    try:
        return sum(one.run_key != run.run_key for one in ledger.unresolved(run.api, run.manifest))
    except RefusedError:
        return None


def without_ledger(
    made: RunSummary,
    request: RunRequest,
    run: RunRow,
    unrecorded: Sequence[RecordedOutcome] = (),
    unreleased: Sequence[Submission] = (),
) -> RunSummary:
    """The same, whose ledger need not stay open."""
    entries = LazyEntries(request.ledger.path, run, made.entry_count, unrecorded, unreleased)
    return replace(made, record=RunRecord(made.run, entries))


def last_told(task: Task) -> RunSummary | None:
    """What the last run of a manifest came to, which is not this one; None where there is none, or it can't be read."""
    request = task.request
    try:
        with Ledger(request.ledger.path, read_only=True) as ledger:
            run = next(ledger.runs(request.api, request.manifest.name), None)
            if run is None:
                return None
            return without_ledger(summary.summarize(record.load_record(ledger, run)), request, run)
    except RefusedError:
        return None


def write(made: RunSummary, path: Path) -> RefusedError | None:
    """Write a results file. What keeps it from being written is returned."""
    try:
        results_file.write(made, path)
    except RefusedError as error:
        return error
    return None


def _announcement(one: Execution) -> str:
    sends, total = len(one.plan.to_send), len(one.request.manifest.jobs)
    name, period = one.request.manifest.name, periods.describe_run_key(one.run.run_key)
    if sends:
        return f"submitting {sends} of {total} jobs of {name} to {one.request.api}, for {period}"
    earlier = sorted({standing.run_id for standing in one.plan.match.by_name.values() if standing.state == "created"})
    by = f": all that is to be was created by {', '.join(earlier[:3])}{' and others' if earlier[3:] else ''}"
    return f"nothing to submit of {name} for {period}{by if earlier else ''}"


def _tell_left(tasks: Sequence[Task]) -> None:
    if tasks:
        paths = [task.request.manifest.path for task in tasks]
        go_on = options.format_command("run", *paths)
        console.warn(
            f"not begun, as what went before was not completed: {escape_unprintable(', '.join(paths))}. To run: {go_on}"
        )
