"""Connections and the bytes on them: a request is written once, and its response read to the end.

urllib3 keeps the pool, connects, and speaks TLS and with proxies; http.client reads responses that are not plain. Added
here are a mark just before the first byte is written, no reuse of a connection that the server may be closing
(https://github.com/urllib3/urllib3/issues/3184 shows that race), and the refusal of a truncated head. Most responses
are plain and arrive at once; reading those here takes a quarter of the processor time (bench/RESULTS.md).
"""

from __future__ import annotations

import http.client
import io
import re
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ProxyError

from runner.client.exchange import Exchange
from runner.client.response import Response

MAX_BODY_SIZE = 8 * 2**20  # bytes, decoded; a job object has some kilobytes
_MAX_IDLE = 2.0  # seconds; shorter than the keep-alive of common servers (gunicorn's 2 s is the shortest)
_CHUNK = 2**16
_MAX_INTERIM = 10  # responses before the final one
_EXCERPT = 100

# A complete head as most servers send it, without folded, encoded or odd lines.
_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [ -~]*)?\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n){0,100})\r\n"
)
# http.client accepts whatever int() accepts, such as 0404: a certain rejection, of a job that may exist.
_STATUS_LINE = re.compile(rb"HTTP/[!-~]+[ \t]+[1-9][0-9]{2}(?:[ \t\r\n].*)?", re.DOTALL)
_WITHOUT_BODY = (204, 304)
_LENGTH = re.compile(r"[0-9]{1,7}")


class BodyTooLargeError(Exception):
    """The body is larger than any job object."""


class Pool(HTTPConnectionPool):
    """A connection pool that performs exchanges."""

    def send(self, request: bytes, exchange: Exchange) -> Response:
        """Write a request and read its response. Errors are raised as they are; `exchange` knows how far it got."""
        connection: Any = self._get_conn()
        exchange.connection = connection
        try:
            self._connect(connection, exchange)
            sock = connection.sock
            exchange.begin_write(sock)
            _write(sock, request)
            response, reusable = read_response(sock, request.partition(b" ")[0].decode())
            reusable = reusable and not _has_pending(sock)
            exchange.raise_if_aborted()  # a body that ends with the connection would look complete
        except BaseException:
            exchange.release()
            connection.close()
            raise
        exchange.release()  # an abort must not hit the next exchange on this connection
        if reusable:
            connection.idle_since = time.monotonic()
        else:
            connection.close()
        self._put_conn(connection)
        return response

    def _connect(self, connection: Any, exchange: Exchange) -> None:
        """Connect, unless the connection is open and safe to reuse."""
        if not connection.is_closed:
            if time.monotonic() - connection.idle_since <= _MAX_IDLE and not _has_pending(connection.sock):
                return
            connection.close()
        connection.timeout = exchange.timeout
        try:
            self._open(connection)
        except (OSError, HTTPError, http.client.HTTPException) as error:
            if self.proxy is None or connection.has_connected_to_proxy:
                raise
            raise ProxyError("cannot connect to the proxy", error) from error
        # The exchange's deadline shuts the socket down; a timeout would cost a system call for each read and write.
        connection.sock.settimeout(None)

    def _open(self, connection: Any) -> None:
        connection.connect()


class TLSPool(Pool, HTTPSConnectionPool):
    """The same over TLS, through the tunnel of a proxy if there is one."""

    def _open(self, connection: Any) -> None:
        if self.proxy is None:
            connection.connect()
        else:
            self._prepare_proxy(connection)


POOL_CLASSES = {"http": Pool, "https": TLSPool}


def read_response(sock: Any, method: str) -> tuple[Response, bool]:
    """Read a response from a connected socket; the flag says whether the connection can be reused."""
    received = sock.recv(_CHUNK)
    if not received:
        raise http.client.RemoteDisconnected("the server closed the connection without a response")
    head = _PLAIN_HEAD.match(received)
    if head is not None:
        status, headers = int(head[1]), _parse_headers(head[2])
        length = _plain_length(status, headers) if len(headers) == head[2].count(b"\r\n") else None
        if length is not None:
            body = _read_body(sock, received[head.end() :], length)
            # Bytes after the body would be read as the next response.
            return Response(status, headers, body[:length], datetime.now(UTC)), len(body) == length
    return _read_any(_Stream(sock, received), method)


def _write(sock: Any, request: bytes) -> None:
    sock.sendall(request)


def _has_pending(sock: Any) -> bool:
    """Whether a TLS layer holds bytes that would be read as the next response.

    urllib3 detects bytes in the socket itself. A layer that cannot tell is assumed to hold some.
    """
    layer = getattr(sock, "sslobj", sock)  # the inner layer of TLS within TLS
    pending = getattr(layer, "pending", None)
    return layer is not sock if pending is None else bool(pending())


def _parse_headers(lines: bytes) -> dict[str, str]:
    """Headers by lower-case name; of repeated headers the last."""
    headers: dict[str, str] = {}
    for line in lines.decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


def _plain_length(status: int, headers: dict[str, str]) -> int | None:
    """The length of a plain body; None when the body is not plain, or too large."""
    if status in _WITHOUT_BODY or "transfer-encoding" in headers or "content-encoding" in headers:
        return None
    length = headers.get("content-length", "")
    if not _LENGTH.fullmatch(length) or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return int(length) if int(length) <= MAX_BODY_SIZE else None


def _read_body(sock: Any, received: bytes, length: int) -> bytes:
    """Read at least `length` bytes of body; more when the server sent more."""
    parts, missing = [received], length - len(received)
    while missing > 0:
        part = sock.recv(_CHUNK)
        if not part:
            raise http.client.IncompleteRead(b"".join(parts), missing)
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _read_any(stream: _Stream, method: str) -> tuple[Response, bool]:
    """Read a response of any form with http.client and urllib3."""
    raw = _read_head(stream, method)
    while raw.status < HTTPStatus.OK and raw.status != HTTPStatus.SWITCHING_PROTOCOLS:
        raw = _read_head(stream, method)  # the final response follows interim ones (RFC 9110, section 15.2)
    stream.in_head = False
    headers, body = HTTPHeaderDict(raw.msg.items()), bytearray()
    if raw.status >= HTTPStatus.OK:
        response = HTTPResponse(raw, headers, raw.status, preload_content=False, request_method=method)
        for chunk in response.stream(_CHUNK, decode_content=True):
            body += chunk
            if len(body) > MAX_BODY_SIZE:
                raise BodyTooLargeError
    if raw.length:  # checked by urllib3, unless it cannot parse a length that http.client can
        raise http.client.IncompleteRead(bytes(body), raw.length)
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    reusable = raw.status >= HTTPStatus.OK and not raw.will_close and not stream.has_more()
    return Response(raw.status, lower, bytes(body), datetime.now(UTC)), reusable


def _read_head(stream: _Stream, method: str) -> http.client.HTTPResponse:
    raw = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]  # it only calls `makefile`
    raw.begin()
    return raw


class _Source(io.RawIOBase):
    """A socket, after the bytes that were already received from it."""

    def __init__(self, sock: Any, received: bytes) -> None:
        self.sock = sock
        self._received = received

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._received or (b"" if self.sock is None else self.sock.recv(len(buffer)))
        size = min(len(data), len(buffer))
        buffer[:size], self._received = data[:size], data[size:]
        return size


class _Stream(io.BufferedReader):
    """The stream that http.client reads a response from.

    http.client takes the end of a stream for the end of the head, and part of a line for a line. Here both are errors,
    and so are status lines that are invalid or too many.
    """

    def __init__(self, sock: Any, received: bytes) -> None:
        self._source = _Source(sock, received)
        super().__init__(self._source, _CHUNK)
        self.in_head = True
        self._heads = 0
        self._at_status = True

    def makefile(self, _mode: str) -> _Stream:
        """Return itself: http.client calls this on a socket."""
        return self

    def readline(self, limit: int | None = -1, /) -> bytes:
        """Read a line, or as much of it as the limit allows."""
        line = super().readline(limit)
        is_truncated = not line.endswith(b"\n") and len(line) != limit
        if is_truncated and (line or self.in_head):  # some servers omit the line after the last chunk
            raise http.client.IncompleteRead(line)
        if self.in_head:
            if self._at_status:
                self._check_status_line(line)
            self._at_status = line in (b"\r\n", b"\n")
        return line

    def _check_status_line(self, line: bytes) -> None:
        self._heads += 1
        if not _STATUS_LINE.fullmatch(line) or self._heads > _MAX_INTERIM:
            raise http.client.BadStatusLine(repr(line[:_EXCERPT].decode("iso-8859-1").strip()))

    def has_more(self) -> bool:
        """Whether bytes were received after the response. Nothing can be read after this."""
        self._source.sock = None
        return bool(self.peek())

    def flush(self) -> None:
        """Do nothing: a response that is abandoned flushes the stream when it is collected, which may be later."""

    def close(self) -> None:
        """Do nothing: http.client closes the stream after a response, but the socket is the connection's."""
