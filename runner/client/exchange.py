"""One exchange with the API: how long it may take, whether a byte of it was written, and how it is cut short."""

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
    """The exchange was cut short."""


class Connection(Protocol):
    """What carries an exchange; `sock` is None while it is not connected."""

    sock: Any


class Exchange:
    """One request and what came of it, shared by the thread that sends and the one that may cut it short.

    `started` and `written` are monotonic times in seconds, None until then; `turn` is its place in the rate.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic, slot: Slot | None = None) -> None:
        self.timeout = timeout
        self.slot = slot or Slot()
        self.started_at: float | None = None
        self.written_at: float | None = None
        self.aborted_by: Cause | None = None
        self.connection: Connection | None = None
        self._sock: Any = None
        self._over = False
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may cut what its own thread is about to write

    def start(self) -> None:
        """Begin the time that the whole exchange may take."""
        self.started_at = self._clock()

    def is_overdue(self) -> bool:
        """Whether the exchange has taken longer than it may."""
        return self.started_at is not None and self._clock() - self.started_at > self.timeout

    def begin_write(self, sock: Any) -> None:
        """Mark that a byte may leave from now on through a socket; raises instead when the exchange was cut before."""
        if self.is_overdue():
            self.abort("timeout")
        with self._lock:
            self.raise_if_aborted()
            if self.written_at is None:
                self.written_at = self.slot.used_at = self._clock()
            self._sock = sock  # the connection forgets it before the body is read, if it is to be closed after it

    def raise_if_aborted(self) -> None:
        """Raise when the exchange was cut short."""
        if self.aborted_by is not None:
            raise AbortedError

    def release(self) -> None:
        """The exchange is over, and its connection may be another's: nothing is left to cut."""
        with self._lock:
            self._over = True
            self.connection = self._sock = None

    def abort(self, cause: Cause) -> bool:
        """End the exchange now. After this nothing is written any more; returns whether something may have been."""
        with self._lock:
            if not self._over:
                self.aborted_by = self.aborted_by or cause
                _shut_down(self._sock or (self.connection and self.connection.sock))
            return self.written_at is not None


def _shut_down(sock: Any) -> None:
    """Make reads and writes of any thread on this socket return."""
    if sock is None:
        return
    plain = getattr(sock, "socket", sock)  # TLS inside TLS has its socket within
    with suppress(OSError):
        # The plain socket's method: SSLSocket.shutdown drops the TLS layer first, and a thread that reads
        # meanwhile would be handed ciphertext as if it were the answer.
        socket.shutdown(plain, SHUT_RDWR)
