"""Manifests run one after another, each with its own lock, entries in the ledger and results file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, SIGTERM

from runner import execution, periods, results
from runner.api import Api
from runner.cli import console
from runner.cli.interrupts import Interrupts
from runner.cli.progress import Progress
from runner.errors import Exit, RefusedError, RunnerError, Terminated
from runner.execution import Execution, Order
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.model import Manifest
from runner.results import Digest
from runner.settings import Endpoint
from runner.submit import End
from runner.text import visible

Endpoints = Callable[[Manifest], AbstractContextManager[Endpoint]]


@dataclass(frozen=True, slots=True)
class Task:
    """A manifest to run, and where its results go."""

    order: Order
    results: Path


@dataclass(frozen=True, slots=True)
class Ran:
    """An execution that has ended: what is to be told of it. `unwritten`: why its results file is not there."""

    task: Task
    ledger: Ledger
    run: RunRow
    made: Digest
    end: End
    unwritten: RefusedError | None


@dataclass(slots=True)
class Batch:
    """Manifests that are run one after another. `signum` is that of a signal that came at any time.

    `refused` has an exit code for each that was not run. Locks and ledgers are held until the batch is left.
    """

    endpoints: Endpoints
    confirm: Callable[[Execution], None]
    progress: Progress
    quiet: bool = False
    ran: list[Ran] = field(default_factory=list)
    refused: list[Exit] = field(default_factory=list)
    _held: ExitStack = field(default_factory=ExitStack)
    _caught: ExitStack = field(default_factory=ExitStack)
    _interrupts: Interrupts | None = None
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
                    _tell_left(tasks[index + 1 :])
                    break
            yield

    def _goes_on(self, task: Task, *, alone: bool) -> bool:
        """Run one, and say whether the next one may follow."""
        try:
            ran = self._run(task)
        except RunnerError as error:
            if alone:
                raise
            name = visible(task.order.manifest.path)
            if self.quiet:
                console.say(f"{name}: not run: {visible(error.in_a_line)}")
            else:
                console.say(f"{name}: not run")
                console.fail(error)
            self.refused.append(error.exit_code)
            return True
        except (KeyboardInterrupt, Terminated) as signal:
            if not self.ran:
                raise
            self._signum = SIGINT if isinstance(signal, KeyboardInterrupt) else SIGTERM
            return False
        self.ran.append(ran)
        # What stops a run is trouble with the API as a whole, which the next would meet too; but for its own budget.
        return self.signum is None and (ran.end.state == "completed" or ran.end.reason == "budget")

    def _run(self, task: Task) -> Ran:
        self._caught.close()  # a signal in `prepare` ends the program as any other: nothing was sent
        order = task.order
        with self.endpoints(order.manifest) as endpoint, Api(endpoint, order.limits.concurrency) as api:
            self._interrupts = interrupts = Interrupts(api)
            one = self._held.enter_context(execution.opened(order, api, self.progress, interrupts.wait))
            one.prepare()
            self.confirm(one)
            self.progress.note(_announcement(one))
            self._caught.enter_context(interrupts.caught())
            with self.progress.over(len(one.plan.sends)):
                end = one.submit(interrupts)
        made = results.digest(one.record())
        return Ran(task, one.ledger, one.run, made, end, write(made, task.results))


def write(made: Digest, path: Path) -> RefusedError | None:
    """Write a results file. What keeps it from being written is returned."""
    try:
        results.write(made, path)
    except RefusedError as error:
        return error
    return None


def _announcement(one: Execution) -> str:
    sends, total = len(one.plan.sends), len(one.order.manifest.jobs)
    name, period = one.order.manifest.name, periods.describe(one.run.run_key)
    if sends:
        return f"submitting {sends} of {total} jobs of {name} to {one.order.api}, for {period}"
    earlier = sorted({standing.run_id for standing in one.plan.match.of.values() if standing.state == "created"})
    by = f": all that is to be was created by {', '.join(earlier[:3])}{' and others' if earlier[3:] else ''}"
    return f"nothing to submit of {name} for {period}{by if earlier else ''}"


def _tell_left(tasks: Sequence[Task]) -> None:
    if tasks:
        left = ", ".join(task.order.manifest.path for task in tasks)
        console.warn(f"not begun, as the run before it was not completed: {visible(left)}")
