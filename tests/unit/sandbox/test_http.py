"""Reading requests and rendering responses as bytes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

import pytest

from runner.sandbox.http import HttpError, Request, RequestReader, Response, render_response

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def receiver(data: bytes, chunk: int) -> Callable[[int], bytes]:
    """Returns `data` in pieces of `chunk` bytes, and then nothing."""
    pieces = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    return lambda _size: pieces.pop(0) if pieces else b""


def read(data: bytes, chunk: int = 4096) -> Request | None:
    return RequestReader(receiver(data, chunk)).read()


def request(text: str) -> Request:
    parsed = read(text.replace("\n", "\r\n").encode("latin-1"))
    assert parsed is not None
    return parsed


def test_path_query_and_headers() -> None:
    parsed = request("POST /v0/a%20b%2Fc/d?x=1&y=%C3%A9+z&x=2&e= HTTP/1.1\nHost: 127.0.0.1:80\nAUTHORIZATION:  k \n\n")
    assert parsed.method == "POST"
    assert parsed.path == "/v0/a%20b%2Fc/d"
    assert parsed.segments == ("v0", "a b/c", "d")
    assert parsed.query == {"x": "1", "y": "é z", "e": ""}
    assert parsed.headers == {"host": "127.0.0.1:80", "authorization": "k"}


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_requests_are_separated_however_their_bytes_arrive(chunk: int) -> None:
    data = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\n\r\n"
    reader = RequestReader(receiver(data, chunk))
    requests = [reader.read(), reader.read(), reader.read()]
    assert [parsed and parsed.path for parsed in requests] == ["/a", "/b", "/c"]
    assert reader.read() is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"GET",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
    ],
)
def test_incomplete_requests_are_ignored(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    ("text", "keep_alive"),
    [
        ("GET / HTTP/1.1\n\n", True),
        ("GET / HTTP/1.1\nConnection: Close\n\n", False),
        ("GET / HTTP/1.1\nConnection: keep-alive, close\n\n", False),
        ("GET / HTTP/1.0\n\n", False),
        ("GET / HTTP/1.0\nConnection: Keep-Alive\n\n", True),
    ],
)
def test_keep_alive(text: str, keep_alive: bool) -> None:
    assert request(text).keep_alive is keep_alive


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/ping?a=1", "HTTP://localhost/ping?a=1", "/ping?a=1#part"])
def test_target_may_be_a_complete_url(target: str) -> None:
    parsed = request(f"GET {target} HTTP/1.1\n\n")
    assert (parsed.path, parsed.query) == ("/ping", {"a": "1"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "localhost:1", "LOCALHOST", "[::1]:80"])
def test_loopback_hosts_are_served(host: str) -> None:
    assert request(f"GET / HTTP/1.1\nHost: {host}\n\n").headers["host"] == host


@pytest.mark.parametrize(
    "host", ["api.pixxel.space", "10.0.0.1", "127.0.0.1.evil.test", "localhost.evil.test", "", "0.0.0.0:80"]
)
def test_other_hosts_are_rejected(host: str) -> None:
    with pytest.raises(HttpError, match=r"127\.0\.0\.1") as caught:
        request(f"GET / HTTP/1.1\nHost: {host}\n\n")
    assert caught.value.status == HTTPStatus.MISDIRECTED_REQUEST


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),  # a TLS handshake
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET /\x1b[31m HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /?" + b"a&" * 200 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad name: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 9000 + b"\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 40_000, 431),
        (b"x" * 200_000, 431),
    ],
)
def test_invalid_requests_are_rejected(data: bytes, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        read(data)
    assert caught.value.status == status


def test_render_response() -> None:
    response = Response(HTTPStatus.NOT_FOUND, b"{}", {"Allow": "GET"})
    assert render_response(response, date=AT, request_id="r", close=True, head_only=False) == (
        b"HTTP/1.1 404 Not Found\r\nDate: Mon, 04 May 2026 03:02:01 GMT\r\nX-Request-Id: r\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\nAllow: GET\r\nConnection: close\r\n\r\n{}"
    )


def test_response_to_head_has_a_length_and_no_body() -> None:
    rendered = render_response(Response(HTTPStatus.OK, b"{}"), date=AT, request_id="r", close=False, head_only=True)
    assert b"Content-Length: 2\r\n" in rendered
    assert rendered.endswith(b"\r\n\r\n")
