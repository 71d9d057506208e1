"""The threads that send. They decide nothing: requests go in, and their results come out.

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
    """What the engine needs of the API's client."""

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
        """Send one POST, once, and return its result. Never raises."""


@dataclass(slots=True)
class InFlightRequest:
    """A request that is claimed and has no outcome yet."""

    queued: QueuedJob
    exchange: Exchange
    claimed_at: datetime

    @property
    def submission(self) -> Submission:
        """What is sent."""
        return self.queued.submission

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.queued.attempt


WorkerEvent = tuple[InFlightRequest, ExchangeResult] | int  # the result of a request, or the number of a signal


class _Gate:
    """Keeps workers from sending more before a result that may change everything has been handled.

    Otherwise the worker that got a 429 or a 401 would send the next job that was claimed ahead.
    """

    def __init__(self) -> None:
        self._unhandled = 0
        self._changed = threading.Condition()

    def close(self) -> None:
        """A result came that is to be handled first."""
        with self._changed:
            self._unhandled += 1

    def open(self) -> None:
        """One such result has been handled."""
        with self._changed:
            self._unhandled -= 1
            self._changed.notify_all()

    def open_for_good(self) -> None:
        """Let all workers through: nothing is left to handle."""
        with self._changed:
            self._unhandled = 0
            self._changed.notify_all()

    def pass_through(self) -> None:
        """Wait until all such results have been handled."""
        if self._unhandled:  # read without the lock, as every result passes here and most are plain
            with self._changed:
                self._changed.wait_for(lambda: not self._unhandled)


def _is_plain(result: ExchangeResult) -> bool:
    return isinstance(result, Response) and result.status == HTTPStatus.OK


class Workers:
    """Threads that send; a context manager. All methods but `signal` are for the one thread that decides.

    Once entered, `count` is the number of threads: as many as the system allows, which may be none.
    """

    def __init__(self, sender: Sender, count: int) -> None:
        self._sender = sender
        self._requests: SimpleQueue[InFlightRequest | None] = SimpleQueue()
        self._events: SimpleQueue[WorkerEvent] = SimpleQueue()
        self._gate = _Gate()
        self._threads: list[threading.Thread] = []
        self.count = count
        self.abandoned = False  # some are stuck: they can't write any more, and are not waited for

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
        self._gate.open_for_good()
        for _thread in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join(timeout=0 if self.abandoned else None)

    def send(self, request: InFlightRequest) -> None:
        """Give a request to the next free worker."""
        self._requests.put(request)

    def recall(self) -> list[InFlightRequest]:
        """Take back the requests that no worker has started, in their order."""
        requests: list[InFlightRequest] = []
        with suppress(Empty):
            while (request := self._requests.get_nowait()) is not None:
                requests.append(request)
        return requests

    def signal(self, signum: int) -> None:
        """Wake the thread that decides with a signal. Safe in a signal handler: SimpleQueue.put is reentrant."""
        self._events.put(signum)

    def wait(self, timeout: float) -> list[WorkerEvent]:
        """Return all events; wait for the first for up to `timeout` seconds."""
        events: list[WorkerEvent] = []
        with suppress(Empty):
            events.append(self._events.get(timeout=timeout))
            while True:
                events.append(self._events.get_nowait())
        return events

    def handled(self, result: ExchangeResult) -> None:
        """Let workers go on after a result that was waited for has been handled."""
        if not _is_plain(result):
            self._gate.open()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            job = request.submission.job
            result = self._sender.create_job(job.workflow_id, job.project_id, request.exchange)
            if not _is_plain(result):
                self._gate.close()
            self._events.put((request, result))
            self._gate.pass_through()
