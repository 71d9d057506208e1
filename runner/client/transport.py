"""Connections of a pool, and one exchange over one of them: connected, written once, and read to its end.

urllib3 keeps the pool, connects, and speaks TLS and with proxies; http.client reads what is not a plain answer. What
they do not do is done here: a mark just before the first byte is written, no reuse of a connection that has been idle
so long that the server may be closing it (https://github.com/urllib3/urllib3/issues/3184 shows that race), and no head
of a response that ends in its middle taken for a whole one. A plain answer over a connection that is there is read in
one go: that takes a quarter of the processor time (bench/RESULTS.md).
"""

from __future__ import annotations

import http.client
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

MAX_BODY_SIZE = 8 * 2**20  # bytes, decoded: a job object is some kilobytes
_IDLE = 2.0  # seconds: below the keep-alive of every common server (gunicorn's 2 s is the shortest)
_CHUNK = 2**16
_FINAL = 200  # the lowest status of a response that ends an exchange
_MOST_INTERIM = 10  # responses before that one
_LONGEST_LINE = 2**16  # bytes: http.client takes none that is longer
_EXCERPT = 100

# A whole head as most servers write it, with names and values that need no folding and no decoding.
_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [ -~]*)?\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n){0,100})\r\n"
)
# http.client takes for a status whatever Python takes for a number: 0404 too, which is no answer to rely on.
_STATUS_LINE = re.compile(rb"HTTP/[!-~]+[ \t]+([1-9][0-9]{2})(?:[ \t\r\n].*)?", re.DOTALL)
_BODILESS = (204, 304)
_LENGTH = re.compile(r"[0-9]{1,7}")


class BodyTooLargeError(Exception):
    """The body is larger than any job object."""


class Pool(HTTPConnectionPool):
    """A pool whose connections carry whole exchanges."""

    def send(self, request: bytes, exchange: Exchange) -> Response:
        """Write a request and read its response. Whatever goes wrong is raised; `exchange` knows how far it got."""
        connection: Any = self._get_conn()
        exchange.connection = connection
        try:
            self._make_ready(connection, exchange)
            sock = connection.sock
            exchange.begin_write(sock)
            _write(sock, request)
            response, reusable = _read(sock, request.partition(b" ")[0].decode())
            reusable = reusable and not _has_more(sock)
            exchange.raise_if_aborted()  # a body that ends where the connection does would look whole
        except BaseException:
            exchange.release()
            connection.close()
            raise
        exchange.release()  # whoever has the connection next must not be cut in its place
        if reusable:
            connection.idle_since = time.monotonic()
        else:
            connection.close()
        self._put_conn(connection)
        return response

    def _make_ready(self, connection: Any, exchange: Exchange) -> None:
        if not connection.is_closed and (
            time.monotonic() - connection.idle_since > _IDLE or _has_more(connection.sock)
        ):
            connection.close()
        if connection.is_closed:
            connection.timeout = exchange.timeout
            self._connect(connection)
            # Whoever watches the exchange shuts the socket down in time; with a timeout of its own, each read and
            # write would ask the system first whether it may.
            connection.sock.settimeout(None)

    def _connect(self, connection: Any) -> None:
        try:
            self._open(connection)
        except (OSError, HTTPError, http.client.HTTPException) as error:
            if self.proxy is None or connection.has_connected_to_proxy:
                raise
            raise ProxyError("it cannot be connected to", error) from error

    def _open(self, connection: Any) -> None:
        connection.connect()


class TLSPool(Pool, HTTPSConnectionPool):
    """The same over TLS, and through a proxy's tunnel where there is a proxy."""

    def _open(self, connection: Any) -> None:
        if self.proxy is None:
            connection.connect()
        else:
            self._prepare_proxy(connection)


POOL_CLASSES = {"http": Pool, "https": TLSPool}


def _has_more(sock: Any) -> bool:
    """Whether a TLS layer holds bytes that nobody asked for: they would be read as the next exchange's answer.

    What is in the socket itself urllib3 sees. A layer that does not tell is taken to hold some.
    """
    plain = getattr(sock, "sslobj", sock)  # TLS inside TLS has its layer within
    pending = getattr(plain, "pending", None)
    if pending is not None:
        return bool(pending())
    return plain is not sock


def _write(sock: Any, request: bytes) -> None:
    sock.sendall(request)


def _read(sock: Any, method: str) -> tuple[Response, bool]:
    """Read a response; whether the connection may carry another exchange."""
    begun = sock.recv(_CHUNK)
    if not begun:
        raise http.client.RemoteDisconnected("it was closed without an answer")
    head = _HEAD.match(begun)
    if head is not None:
        status, headers = int(head[1]), _headers(head[2])
        length = _length(status, headers)
        if length is not None:
            return _read_plain(sock, begun[head.end() :], length, status, headers)
    return _read_any(_Stream(sock, begun), method)


def _headers(lines: bytes) -> dict[str, str] | None:
    """The headers by their names in lower case; None when one is there twice."""
    headers: dict[str, str] = {}
    for line in lines.decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers if len(headers) == lines.count(b"\r\n") else None


def _length(status: int, headers: dict[str, str] | None) -> int | None:
    """How long the body of a plain response is; None when it is not one, or larger than any job object."""
    if headers is None or status in _BODILESS or "transfer-encoding" in headers or "content-encoding" in headers:
        return None
    length = headers.get("content-length", "")
    if not _LENGTH.fullmatch(length) or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return int(length) if int(length) <= MAX_BODY_SIZE else None


def _read_plain(
    sock: Any, body: bytes, length: int, status: int, headers: dict[str, str] | None
) -> tuple[Response, bool]:
    if len(body) < length:
        parts, missing = [body], length - len(body)
        while missing > 0:
            part = sock.recv(_CHUNK)  # never less: what is more than the body is to be seen
            if not part:
                raise http.client.IncompleteRead(b"".join(parts), missing)
            parts.append(part)
            missing -= len(part)
        body = b"".join(parts)
    # What comes after it was not asked for, and would be read as the next exchange's.
    return Response(status, headers or {}, body[:length], datetime.now(UTC)), len(body) == length


def _read_any(stream: _Stream, method: str) -> tuple[Response, bool]:
    raw = _head(stream, method)
    for _ in range(_MOST_INTERIM):
        if raw.status >= _FINAL or raw.status == HTTPStatus.SWITCHING_PROTOCOLS:
            break
        raw = _head(stream, method)  # after an interim response comes the real one (RFC 9110, section 15.2)
    stream.head_is_over = True
    headers = HTTPHeaderDict(raw.msg.items())
    final = raw.status >= _FINAL
    body = _body(HTTPResponse(raw, headers, raw.status, preload_content=False, request_method=method)) if final else b""
    if raw.length:  # urllib3 sees to it, unless it cannot make out the length where http.client does
        raise http.client.IncompleteRead(body, raw.length)
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    found = Response(raw.status, lower, body, datetime.now(UTC))
    return found, final and not raw.will_close and raw.isclosed() and not stream.rest


def _head(stream: _Stream, method: str) -> http.client.HTTPResponse:
    for _ in range(_MOST_INTERIM):
        if _status(stream) != HTTPStatus.CONTINUE:
            break
        stream.readline()  # http.client would pass over it, to a status line that nobody looked at
        http.client.parse_headers(stream)
    else:
        raise http.client.BadStatusLine("100 Continue without end")
    raw = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]  # it wants no more than `makefile`
    raw.begin()
    return raw


def _status(stream: _Stream) -> int:
    """The status of the head that comes next."""
    line = stream.peek_line(_LONGEST_LINE)
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise http.client.BadStatusLine(repr(line[:_EXCERPT].decode("iso-8859-1").strip()))
    return int(found[1])


def _body(response: HTTPResponse) -> bytes:
    body = bytearray()
    for chunk in response.stream(_CHUNK, decode_content=True):
        body += chunk
        if len(body) > MAX_BODY_SIZE:
            raise BodyTooLargeError
    return bytes(body)


class _Stream:
    """What came of a response, and then what comes, as the file that http.client reads.

    http.client takes the end of the stream for the end of the head, and half a line for a line; here both are errors.
    """

    def __init__(self, sock: Any, begun: bytes) -> None:
        self.rest = begun
        self.head_is_over = False
        self._sock = sock

    def makefile(self, _mode: str) -> _Stream:
        """Itself: http.client asks a socket for its file."""
        return self

    def readline(self, limit: int = -1) -> bytes:
        """A line, or as much of it as the limit allows."""
        while (end := self.rest.find(b"\n")) < 0 and not 0 <= limit <= len(self.rest):
            more = self._sock.recv(_CHUNK)
            if not more:
                break
            self.rest += more
        line = self._take(len(self.rest) if end < 0 else end + 1) if limit < 0 else self._take_line(end, limit)
        cut_off = not line.endswith(b"\n") and len(line) != limit
        if cut_off and (line or not self.head_is_over):  # some servers leave out the line after the last chunk
            raise http.client.IncompleteRead(line)
        return line

    def peek_line(self, limit: int) -> bytes:
        """The line that comes next, or as much of it as the limit allows; it is still to be read."""
        line = self.readline(limit)
        self.rest = line + self.rest
        return line

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end; all without a size."""
        parts, missing = [], size
        while missing:
            if not self.rest:
                self.rest = self._sock.recv(_CHUNK)  # never less: what is more than the body is to be seen
            part = self._take(missing)
            if not part:
                break
            parts.append(part)
            missing = missing - len(part) if size >= 0 else -1
        return b"".join(parts)

    read1 = read

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """As many bytes as fit, fewer only at the end."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def flush(self) -> None:
        """http.client asks for it when it closes a response."""

    def close(self) -> None:
        """The socket is the connection's."""

    def _take_line(self, end: int, limit: int) -> bytes:
        return self._take(min(limit, len(self.rest) if end < 0 else end + 1))

    def _take(self, size: int) -> bytes:
        size = len(self.rest) if size < 0 else size
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken
