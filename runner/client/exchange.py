"""One exchange with the API: its deadline, whether a byte of the request was written, and how it is aborted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR, socket
from typing import Any, Protocol

from runner.client.response import Cause
from runner.core.rate_limit import Slot


class AbortedError(Exception):
    """The exchange was aborted."""


class Connection(Protocol):
    """The connection of an exchange; `sock` is None while it is not connected."""

    sock: Any


class Exchange:
    """One request and its response, shared by the thread that sends it and those that may abort it.

    `started_at` and `written_at` are monotonic times in seconds, None until then; `slot` is its share of the rate.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic, slot: Slot | None = None) -> None:
        self.timeout = timeout
        self.slot = slot or Slot()
        self.started_at: float | None = None
        self.written_at: float | None = None
        self.aborted_by: Cause | None = None
        self.connection: Connection | None = None
        self._sock: Any = None
        self._released = False
        self._clock = clock
        self._lock = threading.RLock()  # reentrant: a signal handler may abort while its own thread begins to write

    def start(self) -> None:
        """Start the time that the whole exchange may take."""
        self.started_at = self._clock()

    def is_overdue(self) -> bool:
        """Whether the exchange has exceeded its timeout."""
        return self.started_at is not None and self._clock() - self.started_at > self.timeout

    def begin_write(self, sock: Any) -> None:
        """Record that bytes may be written to a socket from now on. Raises AbortedError."""
        if self.is_overdue():
            self.abort("timeout")
        with self._lock:
            self.raise_if_aborted()
            if self.written_at is None:
                self.written_at = self.slot.used_at = self._clock()
            self._sock = sock  # a connection that is to be closed forgets its socket before the body is read

    def raise_if_aborted(self) -> None:
        """Raise AbortedError if the exchange was aborted."""
        if self.aborted_by is not None:
            raise AbortedError

    def release(self) -> None:
        """Release the connection for the next exchange: from now on `abort` does nothing."""
        with self._lock:
            self._released = True
            self.connection = self._sock = None

    def abort(self, cause: Cause) -> bool:
        """End the exchange now: nothing is written after this. Returns whether something may have been."""
        with self._lock:
            if not self._released:
                self.aborted_by = self.aborted_by or cause
                _shut_down(self._sock or (self.connection and self.connection.sock))
            return self.written_at is not None


def _shut_down(sock: Any) -> None:
    """Make reads and writes on a socket return, in any thread."""
    if sock is None:
        return
    inner = getattr(sock, "socket", sock)  # of TLS within TLS
    with suppress(OSError):
        # Not SSLSocket.shutdown: it drops the TLS layer first, and a concurrent read would return ciphertext.
        socket.shutdown(inner, SHUT_RDWR)
