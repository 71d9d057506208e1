"""The threads that send. They decide nothing: a flight goes in, what came of it goes out.

They share two queues with the thread that decides, and a gate.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import Protocol, Self

from runner.client.exchange import Exchange
from runner.client.response import ExchangeResult, Response
from runner.core.models import Submission
from runner.submission.queue import QueuedJob


class Sender(Protocol):
    """What the engine needs of the API."""

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
        """Send one POST, once, and say what came of it. Never raises."""


@dataclass(slots=True)
class InFlightRequest:
    """One send on its way: claimed, and not yet decided."""

    waiting: QueuedJob
    exchange: Exchange
    claimed_at: datetime

    @property
    def submission(self) -> Submission:
        """What is sent."""
        return self.waiting.submission

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.waiting.attempt


WorkerEvent = tuple[InFlightRequest, ExchangeResult] | int  # what came of a send, or a signal's number


class _Gate:
    """Keeps workers from taking more work while an answer that may change everything is not yet settled.

    A job that was claimed ahead of a 429 or a 401 would otherwise be sent after it by the very worker that got it.
    """

    def __init__(self) -> None:
        self._unsettled = 0
        self._change = threading.Condition()

    def close(self) -> None:
        """An answer came that is to be settled first."""
        with self._change:
            self._unsettled += 1

    def settled(self) -> None:
        """One such answer has been."""
        with self._change:
            self._unsettled -= 1
            self._change.notify_all()

    def open(self) -> None:
        """Let everyone through: there is nothing left to settle."""
        with self._change:
            self._unsettled = 0
            self._change.notify_all()

    def pass_through(self) -> None:
        """Wait until all such answers have been."""
        if self._unsettled:  # read without the lock: most answers are plain, and this is on each one's way
            with self._change:
                self._change.wait_for(lambda: not self._unsettled)


def _is_plain(happening: ExchangeResult) -> bool:
    return isinstance(happening, Response) and happening.status == HTTPStatus.OK


class Workers:
    """So many threads that send; a context manager. All but `signal` is for the one thread that decides.

    Once entered, `count` is how many there are: as many as the system allows, which may be none.
    """

    def __init__(self, sender: Sender, count: int) -> None:
        self._sender = sender
        self._todo: SimpleQueue[InFlightRequest | None] = SimpleQueue()
        self._back: SimpleQueue[WorkerEvent] = SimpleQueue()
        self._gate = _Gate()
        self._threads: list[threading.Thread] = []
        self.count = count
        self.abandoned = False  # some are stuck: they can't write any more, and are left behind

    def __enter__(self) -> Self:
        for number in range(self.count):
            thread = threading.Thread(target=self._work, name=f"send-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system allows no more
                break
            self._threads.append(thread)
        self.count = len(self._threads)
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.open()
        for _thread in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join(timeout=0 if self.abandoned else None)

    def hand(self, flight: InFlightRequest) -> None:
        """Give the next free worker something to send."""
        self._todo.put(flight)

    def recall(self) -> list[InFlightRequest]:
        """Take back what no worker has begun, in its order."""
        idle: list[InFlightRequest] = []
        with suppress(Empty):
            while (flight := self._todo.get_nowait()) is not None:
                idle.append(flight)
        return idle

    def signal(self, signum: int) -> None:
        """Wake the thread that decides with a signal. Safe in a signal handler: SimpleQueue.put is reentrant."""
        self._back.put(signum)

    def arrivals(self, timeout: float) -> list[WorkerEvent]:
        """All that came back; waits for the first for so many seconds."""
        arrivals: list[WorkerEvent] = []
        with suppress(Empty):
            arrivals.append(self._back.get(timeout=timeout))
            while True:
                arrivals.append(self._back.get_nowait())
        return arrivals

    def settled(self, happening: ExchangeResult) -> None:
        """What a worker brought back has been acted on: it may go on."""
        if not _is_plain(happening):
            self._gate.settled()

    def _work(self) -> None:
        while (flight := self._todo.get()) is not None:
            job = flight.submission.job
            happening = self._sender.create_job(job.workflow_id, job.project_id, flight.exchange)
            if not _is_plain(happening):
                self._gate.close()
            self._back.put((flight, happening))
            self._gate.pass_through()
