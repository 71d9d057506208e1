"""HTTP/1.1 without sockets: reads requests from received bytes, and renders responses.

The standard library's `http.server` takes a third more processor time per request, which `run --sandbox` would pay in
the same process, and it accepts malformed requests that a test of the client should notice.
"""

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

_MAX_HEAD = 32 * 1024
_MAX_BODY = 1024 * 1024
_READ_SIZE = 64 * 1024

# Visible ASCII only, so that a request's path can be logged as it is (RFC 9112, section 3).
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*)")

_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d*)?", re.IGNORECASE)


@dataclass(eq=False)
class HttpError(Exception):
    """A request that cannot be served. The connection cannot be used afterwards."""

    status: HTTPStatus
    message: str


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request. `path` is as received, `segments` and `query` are decoded, header names are lower case."""

    method: str
    path: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Response:
    """A response. The headers that all responses have are added when it is rendered."""

    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class RequestReader:
    """Reads one request after the other from `receive(size)`, which returns no bytes at the end."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._buffer = b""

    def read(self) -> Request | None:
        """The next request, or None if the client has closed the connection, even in the middle of a request.

        Raises:
            HttpError: the bytes are no HTTP/1.1 request, too large, or for a host that is not loopback.
            OSError: as raised by `receive`.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")
            if not self._receive_more():
                return None
        request = parse_head(self._buffer[:end].decode("latin-1").lstrip("\r\n"))
        body_end = end + 4 + _content_length(request.headers)
        while len(self._buffer) < body_end:
            if not self._receive_more():
                return None
        self._buffer = self._buffer[body_end:]  # without the body, which no endpoint uses
        return request

    def _receive_more(self) -> bool:
        data = self._receive(_READ_SIZE)
        self._buffer += data
        return bool(data)


def parse_head(head: str) -> Request:
    """Parse a request line and headers.

    Raises:
        HttpError: they are malformed, or the host is not loopback.
    """
    line, *header_lines = head.split("\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HttpError(HTTPStatus.BAD_REQUEST, "not an HTTP/1.1 request")
    headers = _parse_headers(header_lines)
    _check_host(headers)
    path, query = _parse_target(match[2])
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    return Request(
        method=match[1],
        path=path,
        segments=tuple(unquote(segment) for segment in path[1:].split("/")),
        query=query,
        headers=headers,
        keep_alive="close" not in options and (match[3] == "1" or "keep-alive" in options),
    )


def json_response(status: HTTPStatus, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response with a JSON body."""
    return Response(status, json.dumps(value).encode(), headers or {})


def render_response(response: Response, *, date: datetime, request_id: str, close: bool, head_only: bool) -> bytes:
    """The bytes of a response, head and body in one piece. `date` must be in UTC."""
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


def _parse_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise HttpError(HTTPStatus.BAD_REQUEST, "malformed header")
        name, value = match[1].lower(), match[2].rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _check_host(headers: Mapping[str, str]) -> None:
    """Reject requests for other hosts: a web page whose name resolves to loopback (DNS rebinding) would send one."""
    host = headers.get("host", "localhost")
    if not _LOOPBACK.fullmatch(host):
        raise HttpError(HTTPStatus.MISDIRECTED_REQUEST, "only requests for 127.0.0.1 and localhost are served")


def _parse_target(target: str) -> tuple[str, dict[str, str]]:
    """The path and the query of a request target, which may be a complete URL."""
    try:
        parts = urlsplit(target if not target.startswith("/") else f"http://localhost{target}")
        query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise HttpError(HTTPStatus.BAD_REQUEST, "malformed request target") from None
    return parts.path or "/", {name: values[0] for name, values in query.items()}


def _content_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise HttpError(HTTPStatus.LENGTH_REQUIRED, "chunked requests are not supported")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise HttpError(HTTPStatus.BAD_REQUEST, "invalid Content-Length")
    if len(text) > len(str(_MAX_BODY)) or int(text) > _MAX_BODY:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
    return int(text)
