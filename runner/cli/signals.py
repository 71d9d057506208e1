"""What SIGINT and SIGTERM do while jobs are in flight: they end the run by its rules, and never in mid-record."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType

from runner.client.api import ApiClient
from runner.submission.engine import Engine

_SLICE = 0.2  # seconds


class SignalHandler:
    """Passes signals on to the engine, and after it to whatever is waited for. `signum` is the first that came."""

    def __init__(self, api: ApiClient) -> None:
        self.signum: int | None = None
        self._api = api
        self._engine: Engine | None = None
        self._came: SimpleQueue[int] = SimpleQueue()  # an Event's lock could be held by the very thread interrupted

    def engine_made(self, engine: Engine) -> None:
        """Take the engine that is about to run."""
        self._engine = engine
        if self.signum is not None:  # it came between the plan and the engine
            engine.interrupt(self.signum)

    def engine_done(self) -> None:
        """The engine has ended: from now on a signal ends exchanges at once, as none of them can create a job."""
        self._engine = None

    def wait(self, seconds: float) -> bool:
        """Sleep; False as soon as there was a signal."""
        end = time.monotonic() + seconds
        while self.signum is None:
            left = end - time.monotonic()
            if left <= 0:
                return True
            # In slices: a signal that comes just before a wait is seen by Python when the wait is over.
            with suppress(Empty):
                self._came.get(timeout=min(left, _SLICE))
        return False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM meanwhile."""
        before = {signum: signal.signal(signum, self._catch) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _catch(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        self._came.put(signum)
        if self._engine is not None:
            self._engine.interrupt(signum)
        else:
            self._api.abort_all()
