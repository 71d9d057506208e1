"""SIGINT and SIGTERM during a run: it shuts down gracefully, and every job is recorded."""

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
    """Forwards signals to the engine while it runs, and aborts requests after that. `signum` is the first signal."""

    def __init__(self, api: ApiClient) -> None:
        self.signum: int | None = None
        self._api = api
        self._engine: Engine | None = None
        # Not an Event: its lock could be held by the very thread that the signal interrupts.
        self._signals: SimpleQueue[int] = SimpleQueue()

    def engine_started(self, engine: Engine) -> None:
        """Start forwarding signals to the engine, with one that came before it existed."""
        self._engine = engine
        if self.signum is not None:
            engine.interrupt(self.signum)

    def engine_ended(self) -> None:
        """Abort requests at once from now on: none of them can create a job."""
        self._engine = None

    def wait(self, seconds: float) -> bool:
        """Sleep. Return False as soon as there was a signal."""
        deadline = time.monotonic() + seconds
        while self.signum is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return True
            # In slices: Python handles a signal that arrives just before a wait only after it.
            with suppress(Empty):
                self._signals.get(timeout=min(remaining, _SLICE))
        return False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM within the context."""
        previous = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        self._signals.put(signum)
        if self._engine is not None:
            self._engine.interrupt(signum)
        else:
            self._api.abort_all()
