"""HTTP/1.1 as bytes: requests read from a connection, answers rendered for it. No socket and no API in here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_LONGEST_HEAD = 32 * 1024
_LONGEST_BODY = 1024 * 1024
_MOST_PARAMETERS = 100
_READ = 64 * 1024

# Visible ASCII only, so that a request's path can be shown as it is (RFC 9112, section 3).
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*)")

_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d*)?", re.IGNORECASE)


class HttpError(Exception):
    """What came is no request that can be served; the connection is of no use after it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole. `path` is as it came, `segments` and `query` are decoded, header names are lower case."""

    method: str
    path: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. The headers that every answer has are added when it is rendered."""

    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class RequestReader:
    """Reads one request after the other from what `receive(size)` returns; empty bytes are the end."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._buffer = b""

    def read(self) -> Request | None:
        """The next request, or None when the other side is done, be it in the middle of one.

        Raises:
            HttpError: what came is no HTTP/1.1 request, is too large, or names a host that is not loopback.
            OSError: whatever `receive` raises.
        """
        head = self._head()
        if head is None:
            return None
        request = parse_head(head)
        return request if self._skip(_body_length(request.headers)) else None

    def _head(self) -> str | None:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")
            if not self._more():
                return None
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return head.decode("latin-1").lstrip("\r\n")

    def _skip(self, length: int) -> bool:
        """Pass over a request's body: no endpoint of the sandbox looks at one. Whether it was all there."""
        while len(self._buffer) < length:
            if not self._more():
                return False
        self._buffer = self._buffer[length:]
        return True

    def _more(self) -> bool:
        data = self._receive(_READ)
        self._buffer += data
        return bool(data)


def parse_head(head: str) -> Request:
    """Read a request's line and headers.

    Raises:
        HttpError: they are malformed, or the host is not loopback.
    """
    line, *fields = head.split("\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HttpError(HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1 request")
    headers = _headers(fields)
    _check_host(headers)
    path, query = _target(match[2])
    return Request(
        method=match[1],
        path=path,
        segments=tuple(unquote(segment) for segment in path[1:].split("/")),
        query=query,
        headers=headers,
        keep_alive=_keeps_alive(match[3], headers.get("connection", "")),
    )


def json_response(status: HTTPStatus, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that is JSON."""
    return Response(status, json.dumps(value).encode(), headers or {})


def render_response(response: Response, *, date: datetime, request_id: str, close: bool, head_only: bool) -> bytes:
    """The bytes of an answer, head and body in one piece. `date` must be in UTC."""
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Date: {format_datetime(date, usegmt=True)}",
        f"X-Request-Id: {request_id}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
        *(["Connection: close"] if close else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head_only else response.body)


def _headers(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for text in fields:
        match = _FIELD.fullmatch(text)
        if match is None:
            raise HttpError(HTTPStatus.BAD_REQUEST, "a header is malformed")
        name, value = match[1].lower(), match[2].rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _check_host(headers: Mapping[str, str]) -> None:
    """Refuse a request for another host: a web page whose name was rebound to loopback would send one."""
    host = headers.get("host", "localhost")
    if not _LOOPBACK.fullmatch(host):
        raise HttpError(HTTPStatus.MISDIRECTED_REQUEST, "the sandbox answers for 127.0.0.1 and localhost only")


def _target(target: str) -> tuple[str, dict[str, str]]:
    """The path and the query of a request's target, which a proxy's client sends as a whole URL."""
    try:
        parts = urlsplit(target if not target.startswith("/") else f"http://localhost{target}")
        query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise HttpError(HTTPStatus.BAD_REQUEST, "the request's target is malformed") from None
    return parts.path or "/", {name: values[0] for name, values in query.items()}


def _keeps_alive(minor: str, connection: str) -> bool:
    options = {option.strip().lower() for option in connection.split(",")}
    return "close" not in options and (minor == "1" or "keep-alive" in options)


def _body_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise HttpError(HTTPStatus.LENGTH_REQUIRED, "the sandbox reads no chunked bodies")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
    if len(text) > len(str(_LONGEST_BODY)) or int(text) > _LONGEST_BODY:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
    return int(text)
