"""What is read of a response, however it arrives: the same as http.client and urllib3 read of it."""

from __future__ import annotations

import gzip
import http.client
import io
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import HTTPError

from runner.client.response import Response
from runner.client.transport import MAX_BODY_SIZE, BodyTooLargeError, read_response

Read = tuple[int, dict[str, str], bytes]
ERRORS = (http.client.HTTPException, HTTPError, ConnectionError, BodyTooLargeError)


class Wire:
    """A socket from which a response comes in pieces; after them the other side has closed."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [piece for piece in pieces if piece]

    def recv(self, size: int) -> bytes:
        if not self.pieces:
            return b""
        piece, rest = self.pieces[0][:size], self.pieces[0][size:]
        self.pieces[:1] = [rest] if rest else []
        return piece


def ours(*pieces: bytes) -> tuple[Response, bool]:
    return read_response(Wire(*pieces), "POST")


def theirs(data: bytes) -> Read:
    """As http.client and urllib3 read it."""

    class File:
        def makefile(self, _mode: str) -> Any:
            return io.BytesIO(data)

    raw = http.client.HTTPResponse(File(), method="POST")  # type: ignore[arg-type]  # it wants no more
    raw.begin()
    headers = HTTPHeaderDict(raw.msg.items())
    response = HTTPResponse(raw, headers, raw.status, preload_content=False, request_method="POST")
    body = response.read(decode_content=True) if raw.status >= 200 else b""
    return raw.status, {name.lower(): value.strip() for name, value in headers.items()}, body


def whole(status: int, body: bytes, *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status} Such", *lines, f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def chunked(body: bytes, *lines: str) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "Transfer-Encoding: chunked", "", ""]).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
    return head + chunks + b"0\r\n\r\n"


BODY = b'{"id": "job-1"}'
WHOLE = {
    "plain": whole(200, BODY, "Date: Tue, 24 Nov 2026 00:00:00 GMT", "X-Request-Id:  q-1 "),
    "keep-alive": whole(200, BODY, "Connection: keep-alive"),
    "no body": whole(500, b""),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "two of a name": whole(200, BODY, "X-A: 1", "X-A: 2"),
    "folded": whole(200, BODY, "X-A: 1,", "  2"),
    "latin-1": whole(200, BODY, "X-A: \xe9"),
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
    "old": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    "after a hundred": b"HTTP/1.1 100 Continue\r\n\r\n" + whole(200, BODY),
    "chunked": chunked(BODY),
    "compressed": whole(200, gzip.compress(BODY), "Content-Encoding: gzip"),
    "chunked and compressed": chunked(gzip.compress(BODY), "Content-Encoding: gzip"),
    "bare line feeds": whole(200, BODY, "X-A: 1").replace(b"\r\n", b"\n"),
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_a_complete_response_is_read_however_it_is_split(data: bytes) -> None:
    expected = theirs(data)
    for pieces in ((data,), tuple(data[at : at + 1] for at in range(len(data))), (data[:20], data[20:40], data[40:])):
        response, reusable = ours(*pieces)
        assert (response.status, response.headers, response.body) == expected
        assert reusable


NOT_AGAIN = {
    "it closes": whole(200, BODY, "Connection: close"),
    "until it closes": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "more than was asked for": whole(200, BODY) + whole(200, b"{}"),
    "more after chunks": chunked(BODY) + b"HTTP",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
}


@pytest.mark.parametrize("data", NOT_AGAIN.values(), ids=NOT_AGAIN)
def test_a_connection_that_may_deliver_more_is_not_reused(data: bytes) -> None:
    assert not ours(data)[1]


CUT = {name: data for name, data in WHOLE.items() if name not in ("no body", "no content", "no reason", "old")}


@pytest.mark.parametrize("data", CUT.values(), ids=CUT)
def test_a_truncated_response_is_an_error(data: bytes) -> None:
    for end in range(len(data)):
        if data[:end].endswith(b"\r\n0\r\n"):  # the last chunk is there, and only the line after it is not
            continue
        with pytest.raises(ERRORS):
            ours(data[:end])


def test_a_body_larger_than_any_job_is_refused() -> None:
    for size in (MAX_BODY_SIZE + 1, 10**12):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        with pytest.raises(BodyTooLargeError):
            ours(head, *[bytes(2**20)] * 9)
    with pytest.raises(BodyTooLargeError):
        ours(whole(200, gzip.compress(bytes(MAX_BODY_SIZE + 1)), "Content-Encoding: gzip"))


# http.client takes each of these statuses for a number: 0404 was a certain failure, of a job that may exist.
NO_STATUS = [b"0404", b"00404", b"+404", b"4_04", b"40", b"4040", b"404.", b"-404", b"099", b"\xd9\xa4\xd9\xa0\xd9\xa4"]


@pytest.mark.parametrize("status", NO_STATUS)
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n", b"HTTP/1.1 103 Early\r\n\r\n"])
def test_a_status_has_three_digits(status: bytes, before: bytes) -> None:
    rest = b" X\r\nContent-Length: 2\r\n\r\n{}"
    with pytest.raises(http.client.BadStatusLine):
        ours(before + b"HTTP/1.1 " + status + rest)
    assert ours(before + b"HTTP/1.1 404" + rest)[0].status == 404


_names = st.sampled_from(
    ["Content-Length", "Transfer-Encoding", "Content-Encoding", "Connection", "X-A", "Date", "content-length", "", " X"]
)
_values = st.sampled_from(["0", "2", "15", "-1", "1_0", "٣", "chunked", "gzip", "close", "keep-alive", "a b", "", "\t"])
_lines = st.tuples(_names, st.sampled_from([":", ": ", "", " : "]), _values).map("".join)
_heads = st.tuples(
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2", "http/1.1", "ICY"]),
    st.sampled_from([" 200", " 204", " 304", " 100", " 99", " 2000", " 0404", " x", "", "  200"]),
    st.sampled_from([" OK", "", " ", " \xe9"]),
).map("".join)
_responses = st.builds(
    lambda head, lines, end, body: (end.join([head, *lines, "", ""])).encode("utf-8") + body,
    _heads,
    st.lists(_lines, max_size=3),
    st.sampled_from(["\r\n", "\n"]),
    st.sampled_from([b"", b"{}", BODY, b"2\r\n{}\r\n0\r\n\r\n", gzip.compress(BODY)]),
)


@settings(max_examples=500)
@given(st.one_of(_responses, st.binary(max_size=80)), st.lists(st.integers(0, 100), max_size=3))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 15\r\n\r\n{}", [])
@example("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: \u0663\r\n\r\n".encode(), [])
def test_any_bytes_are_read_as_http_client_and_urllib3_do_or_refused(data: bytes, cuts: list[int]) -> None:
    """Never more than http.client and urllib3 take for a response: what they refuse is doubt here too."""
    at = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(at)]
    try:
        response, _ = ours(*pieces)
    except ERRORS:
        return
    assert (response.status, response.headers, response.body) == theirs(data)
