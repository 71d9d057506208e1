"""Connections that tell their exchange what they do, and hold a response to be whole.

What urllib3 and http.client do not do is added here: a mark set just before the first write, no reuse of a connection
that has been idle so long that the server may be closing it (https://github.com/urllib3/urllib3/issues/3184 shows that
race), and no head of a response that ends in its middle taken for a whole one.
"""

from __future__ import annotations

import http.client
import time
from contextvars import ContextVar
from typing import Any, BinaryIO

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from runner.exchange import Exchange

CURRENT: ContextVar[Exchange] = ContextVar("exchange")  # of the thread that sends

_IDLE = 2.0  # seconds: below the keep-alive of every common server (gunicorn's 2 s is the shortest)


class _WholeLines:
    """The head of a response, line by line. http.client takes the end of the stream for the end of the head."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._begun = False

    def readline(self, limit: int = -1) -> bytes:
        """Read a line; raises IncompleteRead where the stream ends within the head."""
        line = self.file.readline(limit)
        cut_off = not line.endswith(b"\n") and len(line) != limit
        if cut_off and (line or self._begun):  # nothing at all is a connection that was closed: http.client says so
            raise http.client.IncompleteRead(line)
        self._begun = True
        return line

    def flush(self) -> None:
        """http.client asks for it when it closes a response."""

    def close(self) -> None:
        """Close the stream."""
        self.file.close()


class _Response(http.client.HTTPResponse):
    """A response whose head is whole."""

    fp: Any

    def begin(self) -> None:
        head = self.fp = _WholeLines(self.fp)
        super().begin()
        if self.fp is head:
            self.fp = head.file


class _Marking(HTTPConnection):
    """A connection that tells its exchange before the first byte of the request is written."""

    response_class = _Response
    idle_since = 0.0
    _in_tunnel = False

    def _tunnel(self) -> None:
        self._in_tunnel = True  # what is sent now is the CONNECT, for the proxy alone
        try:
            super()._tunnel()
        finally:
            self._in_tunnel = False

    def send(self, data: Any) -> None:
        if not self._in_tunnel:
            if self.sock is None:  # http.client enters `send` before it connects
                self.connect()
            CURRENT.get().about_to_write(self.sock)
        super().send(data)


class _MarkingTLS(_Marking, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    """A pool that hands each exchange its connection, and drops those that have been idle too long."""

    ConnectionCls = _Marking

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        if not connection.is_closed and time.monotonic() - connection.idle_since > _IDLE:
            connection.close()
        CURRENT.get().connection = connection
        return connection

    def _put_conn(self, conn: Any) -> None:
        CURRENT.get().let_go()  # whoever has it next must not be cut in its place
        if conn is not None:
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)


class _PoolTLS(_Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _MarkingTLS


POOLS = {"http": _Pool, "https": _PoolTLS}
