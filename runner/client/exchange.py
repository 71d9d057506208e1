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


class CutError(Exception):
    """The exchange was cut short."""


class Connection(Protocol):
    """What carries an exchange; `sock` is None while it is not connected."""

    sock: Any


class Exchange:
    """One request and what came of it, shared by the thread that sends and the one that may cut it short.

    `started` and `written` are monotonic times in seconds, None until then; `turn` is its place in the rate.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic, turn: Slot | None = None) -> None:
        self.timeout = timeout
        self.turn = turn or Slot()
        self.started: float | None = None
        self.written: float | None = None
        self.cut_by: Cause | None = None
        self.connection: Connection | None = None
        self._sock: Any = None
        self._over = False
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may cut what its own thread is about to write

    def start(self) -> None:
        """Begin the time that the whole exchange may take."""
        self.started = self._clock()

    def overdue(self) -> bool:
        """Whether the exchange has taken longer than it may."""
        return self.started is not None and self._clock() - self.started > self.timeout

    def about_to_write(self, sock: Any) -> None:
        """Mark that a byte may leave from now on through a socket; raises instead when the exchange was cut before."""
        if self.overdue():
            self.cut("timeout")
        with self._lock:
            self.refuse_cut()
            if self.written is None:
                self.written = self.turn.left = self._clock()
            self._sock = sock  # the connection forgets it before the body is read, if it is to be closed after it

    def refuse_cut(self) -> None:
        """Raise when the exchange was cut short."""
        if self.cut_by is not None:
            raise CutError

    def let_go(self) -> None:
        """The exchange is over, and its connection may be another's: nothing is left to cut."""
        with self._lock:
            self._over = True
            self.connection = self._sock = None

    def cut(self, cause: Cause) -> bool:
        """End the exchange now. After this nothing is written any more; returns whether something may have been."""
        with self._lock:
            if not self._over:
                self.cut_by = self.cut_by or cause
                _shut_down(self._sock or (self.connection and self.connection.sock))
            return self.written is not None


def _shut_down(sock: Any) -> None:
    """Make reads and writes of any thread on this socket return."""
    if sock is None:
        return
    plain = getattr(sock, "socket", sock)  # TLS inside TLS has its socket within
    with suppress(OSError):
        # The plain socket's method: SSLSocket.shutdown drops the TLS layer first, and a thread that reads
        # meanwhile would be handed ciphertext as if it were the answer.
        socket.shutdown(plain, SHUT_RDWR)
