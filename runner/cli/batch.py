"""Runs manifests one after another, each with its own lock, ledger and results file."""

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
from runner.client.endpoint import SANDBOX_IDENTITY, Endpoint
from runner.core.errors import RefusedError, RunnerError, Terminated
from runner.core.exit_codes import Exit
from runner.core.models import Manifest, RunRecord, Submission
from runner.core.text import escape_unprintable, pluralize
from runner.ledger.rows import RecordedOutcome, RunRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs import execution, results_file
from runner.runs.execution import Execution
from runner.runs.record import LazyEntries, load_record
from runner.runs.request import RunRequest
from runner.runs.summary import RunSummary, summarize
from runner.submission.engine import EngineResult

EndpointFactory = Callable[[Manifest], AbstractContextManager[Endpoint]]


@dataclass(frozen=True, slots=True)
class Task:
    """A manifest to run, and the path of its results file."""

    request: RunRequest
    results: Path


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that has ended. `results_error` says why its results file was not written.

    `earlier_doubts` counts the jobs in doubt of earlier runs of the manifest; None if the ledger could not be read.
    """

    task: Task
    run: RunRow
    summary: RunSummary
    result: EngineResult
    results_error: RefusedError | None
    earlier_doubts: int | None

    def detach(self) -> FinishedRun:
        """The same, which opens the ledger by itself when its entries are read."""
        unsaved = (self.result.unsaved, self.result.unreleased)
        return replace(self, summary=_detach(self.summary, self.task.request, self.run, *unsaved))


class UnreadableResultError(RefusedError):
    """A manifest was run, and the ledger cannot be read to say what became of it."""


@dataclass(slots=True)
class Batch:
    """Runs manifests one after another. `signum` is the first signal, whenever it came.

    `exit_codes` has one for each manifest that was refused, and `not_run` has all that did not run. With a single
    manifest, its lock and ledger are held until the end, so that nothing changes before its summary is printed.
    """

    endpoint_factory: EndpointFactory
    confirm: Callable[[Execution], None]
    progress: Progress
    quiet: bool = False
    finished: list[FinishedRun] = field(default_factory=list)
    exit_codes: list[Exit] = field(default_factory=list)
    not_run: list[Task] = field(default_factory=list)
    _held: ExitStack = field(default_factory=ExitStack)
    _handling_signals: ExitStack = field(default_factory=ExitStack)
    _handler: SignalHandler | None = None
    _signum: int | None = None

    @property
    def signum(self) -> int | None:
        """The signal that interrupted the batch."""
        return self._signum or (self._handler.signum if self._handler else None)

    @contextmanager
    def running(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Run all of them, then enter the context. Signals are handled from the first request to the end of it.

        Raises:
            RunnerError: there is only one manifest, and it was refused.
        """
        with self._held, self._handling_signals:
            for index, task in enumerate(tasks):
                if not self._run_next(task, alone=len(tasks) == 1):
                    # A signal may have come before this one started.
                    remaining = tasks[index if self._signum else index + 1 :]
                    self.not_run += remaining
                    _report_not_started(remaining)
                    break
            yield

    def _run_next(self, task: Task, *, alone: bool) -> bool:
        """Run a manifest. Return whether to continue with the next."""
        try:
            finished = self._run(task, alone=alone)
        except RunnerError as error:
            if alone:
                raise
            self._refuse(task, error)
            return not isinstance(error, UnreadableResultError)
        except (KeyboardInterrupt, Terminated) as error:
            if not self.finished:
                raise
            self._signum = SIGINT if isinstance(error, KeyboardInterrupt) else SIGTERM
            if self._handler is not None:  # another signal must not keep the summary from being printed
                self._handling_signals.enter_context(self._handler.installed())
            return False
        self.finished.append(finished)
        # Other reasons to stop than the budget concern the API as a whole, and so the next manifest as well.
        result = finished.result
        return self.signum is None and (result.state == "completed" or result.reason == "budget")

    def _refuse(self, task: Task, error: RunnerError) -> None:
        was_run = isinstance(error, UnreadableResultError)
        status = "was run, but its results are unknown" if was_run else "not run"
        line = f"{escape_unprintable(task.request.manifest.path)}: {status}"
        if self.quiet:
            console.info(f"{line}: {escape_unprintable(error.one_line)}")
        else:
            console.info(line)
            console.error(error)
        self.exit_codes.append(error.exit_code)
        self.not_run.append(task)

    def _run(self, task: Task, *, alone: bool) -> FinishedRun:
        self._handling_signals.close()  # during `prepare`, a signal ends the program at once: nothing is sent yet
        request = task.request
        with ExitStack() as own:
            with (
                self.endpoint_factory(request.manifest) as endpoint,
                ApiClient(endpoint, request.limits.concurrency) as api,
            ):
                self._handler = handler = SignalHandler(api)
                stack = self._held if alone else own
                run = stack.enter_context(execution.open_execution(request, api, self.progress, handler.wait))
                run.prepare()
                self.confirm(run)
                self.progress.note(_announce(run))
                self._handling_signals.enter_context(handler.installed())
                with self.progress.showing(len(run.plan.to_send)):
                    result = run.submit(handler)
            try:
                finished = _finish(task, run.ledger, run.run, run.record(), result)
            except RefusedError as error:
                raise UnreadableResultError(
                    f"{request.manifest.path} was run, but its results cannot be read: {error.message}",
                    "Once the ledger can be read again: pixxel-runner show",
                ) from error
        return finished if alone else finished.detach()


def refresh(finished: FinishedRun) -> FinishedRun:
    """Read a run from the ledger again, and write its results file again."""
    with Ledger(finished.task.request.ledger.path, read_only=True) as ledger:
        record = load_record(ledger, finished.run)
        return _finish(finished.task, ledger, finished.run, record, finished.result).detach()


def _finish(task: Task, ledger: Ledger, run: RunRow, record: RunRecord, result: EngineResult) -> FinishedRun:
    """Summarize a run and write its results file. Raises RefusedError if the ledger cannot be read."""
    summary = summarize(record)
    try:
        results_file.write(summary, task.results)
        results_error = None
    except RefusedError as error:
        results_error = error
    try:
        earlier_doubts = sum(row.run_key != run.run_key for row in ledger.unresolved(run.api, run.manifest))
    except RefusedError:
        earlier_doubts = None
    return FinishedRun(task, run, summary, result, results_error, earlier_doubts)


def load_previous(task: Task) -> RunSummary | None:
    """The latest run of a manifest that did not run this time; None if there is none, or it cannot be read."""
    request = task.request
    try:
        with Ledger(request.ledger.path, read_only=True) as ledger:
            run = next(ledger.runs(request.api, request.manifest.name), None)
            return None if run is None else _detach(summarize(load_record(ledger, run)), request, run)
    except RefusedError:
        return None


def _detach(
    summary: RunSummary,
    request: RunRequest,
    run: RunRow,
    unsaved: Sequence[RecordedOutcome] = (),
    unreleased: Sequence[Submission] = (),
) -> RunSummary:
    entries = LazyEntries(request.ledger.path, run, summary.entry_count, unsaved, unreleased)
    return replace(summary, record=RunRecord(summary.run, entries))


def _announce(run: Execution) -> str:
    count, jobs = len(run.plan.to_send), pluralize(len(run.request.manifest.jobs), "job")
    name, run_key = run.request.manifest.name, run.run.run_key
    if count:
        api = "the sandbox" if run.request.api == SANDBOX_IDENTITY else run.request.api
        return f"submitting {count} of {jobs} of {name} to {api} ({periods.label_run_key(run_key)})"
    run_ids = sorted({row.run_id for row in run.plan.match.by_name.values() if row.state == "created"})
    runs = "run" if len(run_ids) == 1 else "runs"
    creators = f"; its jobs were created by {runs} {', '.join(run_ids[:3])}{' and others' if run_ids[3:] else ''}"
    return f"{name}: nothing to submit{periods.describe_scope(run_key)}{creators if run_ids else ''}"


def _report_not_started(tasks: Sequence[Task]) -> None:
    if tasks:
        paths = [task.request.manifest.path for task in tasks]
        command_line = options.format_command("run", *paths)
        names = escape_unprintable(", ".join(paths))
        console.warn(f"{names} not started: an earlier manifest did not complete. To run: {command_line}")
