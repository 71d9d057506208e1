"""One POST over a real socket, against a server that misbehaves as networks, gateways and servers do."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from support.certs import Certificates
from support.wire import (
    TIMEOUT,
    Close,
    Connection,
    Drip,
    Endless,
    Reply,
    Reset,
    Script,
    Stall,
    Truncated,
    Tunnel,
    WireServer,
    chunked,
    created,
    refusing_port,
    reply,
    silent_port,
)

from runner.client import transport
from runner.client.api import ApiClient
from runner.client.endpoint import ApiKey, Endpoint, Proxy
from runner.client.exchange import AbortedError, Exchange
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.client.transport import MAX_BODY_SIZE
from runner.core.version import VERSION
from runner.submission.verdict import Accepted, Ambiguous, NotSent, Rejected, Throttled, classify

KEY = "key-that-is-secret"
LONG_TIMEOUT = 30.0  # seconds: for tests that do not depend on the timeout
SHORT_TIMEOUT = 0.4
TIMING_MARGIN = 4.0  # seconds: margin for a slow machine; a missing timeout would take longer


@contextmanager
def open_client(url: str, ca_bundle: str | None = None, proxy: Proxy | None = None) -> Iterator[ApiClient]:
    with ApiClient(Endpoint(url, ApiKey(KEY), ca_bundle, proxy), connections=4) as api:
        yield api


def post(api: ApiClient, project: str = "p", *, workflow: str = "w", timeout: float = LONG_TIMEOUT) -> ExchangeResult:
    return api.create_job(workflow, project, Exchange(timeout))


def post_once(
    url: str, *, timeout: float = LONG_TIMEOUT, ca_bundle: str | None = None, proxy: Proxy | None = None
) -> ExchangeResult:
    with open_client(url, ca_bundle, proxy) as api:
        return post(api, timeout=timeout)


@dataclass(frozen=True)
class Classified:
    """The expected result of a row: the cause or status of the exchange, and its verdict."""

    cause_or_status: str | int
    verdict: type[object]
    kind: str = ""
    stop: bool = False
    written: bool = True


def classified(result: ExchangeResult) -> Classified:
    verdict = classify(result, lambda job_id: job_id == "held")
    cause_or_status: str | int = result.status if isinstance(result, Response) else result.cause
    return Classified(
        cause_or_status,
        type(verdict),
        kind="" if isinstance(verdict, Accepted) else verdict.error.kind,
        stop=isinstance(verdict, Rejected | Ambiguous) and verdict.stop,
        written=isinstance(result, Response) or result.written,
    )


def in_doubt(cause_or_status: str | int, kind: str = "", *, stop: bool = False) -> Classified:
    return Classified(cause_or_status, Ambiguous, kind or str(cause_or_status), stop)


def rejected(status: int, kind: str, *, stop: bool = False) -> Classified:
    return Classified(status, Rejected, kind, stop)


def not_sent(cause: str) -> Classified:
    return Classified(cause, NotSent, "unreachable", written=False)


UNTRUSTED = Classified("certificate", Rejected, "untrusted", stop=True, written=False)


# Complete responses, with any content

JOB = b'{"id": "job-1"}'
HEAD = b"HTTP/1.1 200 OK\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ACCEPTED = Classified(200, Accepted)
MIB = bytes(2**20)


def success_reply(body: bytes, *headers: tuple[str, str], framing: str = "length") -> Reply:
    return reply(200, body, headers, framing=framing, creates=True)


COMPLETE_RESPONSES: list[tuple[str, Script, Classified]] = [
    ("200", created("job-1"), ACCEPTED),
    ("200-chunked", created("job-1", "chunked"), ACCEPTED),
    ("200-until-close", created("job-1", "close"), ACCEPTED),
    ("200-gzip", success_reply(gzip.compress(JOB), ("Content-Encoding", "gzip")), ACCEPTED),
    ("200-gzip-chunked", success_reply(gzip.compress(JOB), ("Content-Encoding", "gzip"), framing="chunked"), ACCEPTED),
    ("200-deflate", success_reply(zlib.compress(JOB), ("Content-Encoding", "deflate")), ACCEPTED),
    ("200-no-trailer-end", Truncated(HEAD + CHUNKED + chunked(JOB, last=b"0\r\n")), ACCEPTED),
    ("201", reply(201, JOB, creates=True), Classified(201, Accepted)),
    ("299", reply(299, JOB, creates=True), Classified(299, Accepted)),
    ("100-then-200", Reply(CONTINUE + created("job-1").data, creates=True), ACCEPTED),
    ("100-twice-then-401", Reply(CONTINUE * 2 + reply(401).data), rejected(401, "unauthorized", stop=True)),
    ("200-held-id", created("held"), in_doubt(200, "known_id")),
    ("200-no-json", success_reply(b"<html>Welcome</html>"), in_doubt(200, "unreadable")),
    ("200-no-id", success_reply(b'{"job": "job-1"}'), in_doubt(200, "unreadable")),
    ("200-empty-id", success_reply(b'{"id": ""}'), in_doubt(200, "unreadable")),
    ("200-number-id", success_reply(b'{"id": 17}'), in_doubt(200, "unreadable")),
    ("200-list", success_reply(b'[{"id": "job-1"}]'), in_doubt(200, "unreadable")),
    ("200-empty", success_reply(b""), in_doubt(200, "unreadable")),
    ("200-unknown-coding", success_reply(JOB[::-1], ("Content-Encoding", "x-rot")), in_doubt(200, "unreadable")),
    ("204", Reply(b"HTTP/1.1 204 No Content\r\n\r\n", creates=True), in_doubt(204, "unreadable")),
    ("206-part", reply(206, JOB[:9], creates=True), in_doubt(206, "unreadable")),
    ("101", Reply(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"), in_doubt(101, "unexpected", stop=True)),
    ("103-alone", Truncated(EARLY_HINTS), in_doubt("truncated")),
    ("103-200", Reply(EARLY_HINTS + created("job-1").data, creates=True), ACCEPTED),
    ("100-103-404", Reply(CONTINUE + EARLY_HINTS + reply(404).data), rejected(404, "rejected")),
    *((f"{status}", reply(status), in_doubt(status, "unexpected", stop=True)) for status in (300, 303, 305, 306, 399)),
    ("304", Reply(b"HTTP/1.1 304 Not Modified\r\n\r\n"), in_doubt(304, "unexpected", stop=True)),
    ("600", reply(600), in_doubt(600, "unexpected", stop=True)),
    ("999", reply(999, creates=True), in_doubt(999, "unexpected", stop=True)),
    *((f"{status}", reply(status), rejected(status, "redirected", stop=True)) for status in (301, 302, 307, 308)),
    ("400", reply(400), rejected(400, "rejected")),
    ("401", reply(401), rejected(401, "unauthorized", stop=True)),
    ("402", reply(402), rejected(402, "rejected")),
    ("403", reply(403), rejected(403, "forbidden")),
    ("404", reply(404), rejected(404, "rejected")),
    ("404-until-close", reply(404, framing="close"), rejected(404, "rejected")),
    ("408", reply(408), in_doubt(408, "request_timeout")),
    ("409", reply(409), in_doubt(409, "conflict")),
    ("417", reply(417), rejected(417, "rejected")),
    ("422", reply(422, b'{"error": {"code": "bad"}}'), rejected(422, "rejected")),
    ("425", reply(425), Classified(425, Throttled, "throttled")),
    ("429", reply(429), Classified(429, Throttled, "throttled")),
    ("499", reply(499), rejected(499, "rejected")),
    *((f"{status}", reply(status), in_doubt(status, "server_error")) for status in (500, 501, 502, 503, 504, 520, 599)),
    *(
        (f"{status}-retry-after", reply(status, headers=[("Retry-After", "0")]), in_doubt(status, "server_error"))
        for status in (500, 502, 503, 504)
    ),
]  # fmt: skip


# Incomplete responses

GZIP = "Content-Encoding: gzip\r\n"
ZEROS = gzip.compress(MIB * 16)  # 16 MiB in 16 KiB; a gzip stream may have any number of members

INCOMPLETE_RESPONSES: list[tuple[str, Script, Classified]] = [
    ("reset-unread", Reset(early=True), in_doubt("closed")),
    ("reset-read", Reset(creates=True), in_doubt("closed")),
    ("close-unread", Close(early=True), in_doubt("closed")),
    ("close-read", Close(creates=True), in_doubt("closed")),
    ("half-status", Truncated(b"HTTP/1."), in_doubt("truncated")),
    ("status-line-only", Truncated(HEAD, creates=True), in_doubt("truncated")),
    ("half-head", Truncated(HEAD + b"Content-Le", creates=True), in_doubt("truncated")),
    ("half-head-404", Truncated(b"HTTP/1.1 404 Not Found\r\nContent-Le"), in_doubt("truncated")),
    ("half-head-429", Truncated(b"HTTP/1.1 429 Too Many Requests\r\nRetry-Af"), in_doubt("truncated")),
    ("half-status-line-401", Truncated(b"HTTP/1.1 401 Unauth"), in_doubt("truncated")),
    ("reset-in-head", Reset(data=HEAD + b"Content-Le"), in_doubt("closed")),
    ("no-body", Truncated(HEAD + b"Content-Length: 15\r\n\r\n", creates=True), in_doubt("truncated")),
    ("half-body", Truncated(HEAD + b"Content-Length: 15\r\n\r\n" + JOB[:9], creates=True), in_doubt("truncated")),
    ("half-body-full-json", Truncated(HEAD + b"Content-Length: 99\r\n\r\n" + JOB, creates=True), in_doubt("truncated")),
    ("half-body-404", Truncated(b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n{}"), in_doubt("truncated")),
    ("half-body-429", Truncated(b"HTTP/1.1 429 Slow\r\nContent-Length: 99\r\n\r\n{}"), in_doubt("truncated")),
    ("half-chunk", Truncated(HEAD + CHUNKED + b"f\r\n" + JOB[:9], creates=True), in_doubt("truncated")),
    ("half-chunk-size", Truncated(HEAD + CHUNKED + b"f", creates=True), in_doubt("truncated")),
    ("no-end-chunk", Truncated(HEAD + CHUNKED + chunked(JOB, last=b""), creates=True), in_doubt("truncated")),
    ("no-end-chunk-404", Truncated(b"HTTP/1.1 404 No\r\n" + CHUNKED + chunked(b"{}", last=b"")), in_doubt("truncated")),
    ("reset-in-body", Reset(data=HEAD + b"Content-Length: 15\r\n\r\n" + JOB[:9]), in_doubt("closed")),
    ("half-gzip", Truncated(HEAD + GZIP.encode() + b"\r\n" + gzip.compress(JOB)[:-12]), in_doubt(200, "unreadable")),
    ("garbage", Reply(b"\x15\x03\x01\x00\x02\x02\x16\r\n", creates=True), in_doubt("garbage")),
    ("http-0.9", Truncated(b"<html>hello</html>\r\n"), in_doubt("garbage")),
    ("ssh", Truncated(b"SSH-2.0-OpenSSH_9.6\r\n"), in_doubt("garbage")),
    ("huge-header", Reply(HEAD + b"X: " + b"x" * 100_000 + b"\r\n\r\n" + JOB), in_doubt("garbage")),
    ("header-flood", Reply(HEAD + b"X: y\r\n" * 5_000 + b"\r\n" + JOB), in_doubt("garbage")),
    ("two-lengths", Reply(HEAD + b"Content-Length: 15\r\nContent-Length: 14\r\n\r\n" + JOB), in_doubt("garbage")),
    ("bad-chunk-size", Reply(HEAD + CHUNKED + b"zz\r\n" + JOB), in_doubt("truncated")),
    ("chunk-extension-flood", Endless(HEAD + CHUNKED + b"f;x=", MIB, 64), in_doubt("truncated")),
    ("deflate-garbage", success_reply(b"\xde\xad\xbe\xef" * 9, ("Content-Encoding", "deflate")), in_doubt("garbage")),
    ("gzip-garbage", success_reply(JOB, ("Content-Encoding", "gzip")), in_doubt("garbage")),
    ("gzip-garbage-chunked", success_reply(JOB, ("Content-Encoding", "gzip"), framing="chunked"), in_doubt("garbage")),
    ("large-body", success_reply(bytes(MAX_BODY_SIZE + 1)), in_doubt("too_large")),
]  # fmt: skip


def parametrize_rows(rows: list[tuple[str, Script, Classified]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("script", "expected"), [pytest.param(script, expected, id=name) for name, script, expected in rows]
    )


@parametrize_rows(COMPLETE_RESPONSES + INCOMPLETE_RESPONSES)
def test_server_behavior_is_classified(script: Script, expected: Classified) -> None:
    with WireServer(script) as server:
        assert classified(post_once(server.url)) == expected
        assert len(server.requests) == (0 if script.early else 1)
        assert server.log.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int) -> None:
    with WireServer() as other_server:
        redirect = reply(status, headers=[("Location", f"{other_server.url}/v0/workflows/w/jobs")])
        with WireServer(redirect) as server:
            post_once(server.url)
            assert len(server.requests) == 1
        assert other_server.log.connections == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("Retry-After", "7")], 7.0),
        ([("Retry-After", " 0 ")], 0.0),
        ([("Retry-After", "soon")], None),
        ([("Retry-After", "-3")], None),
        ([("Retry-After", "1, 2")], None),
        ([], None),
    ],
)
def test_retry_after_in_seconds(headers: list[tuple[str, str]], seconds: float | None) -> None:
    with WireServer(reply(429, headers=headers)) as server:
        verdict = classify(post_once(server.url), lambda _: False)
    assert isinstance(verdict, Throttled)
    assert verdict.retry_after == seconds


@pytest.mark.parametrize(
    "clock_offset", [timedelta(hours=-1), timedelta(), timedelta(hours=1)], ids=["behind", "right", "ahead"]
)
def test_retry_after_as_a_date_is_relative_to_the_server_clock(clock_offset: timedelta) -> None:
    now = datetime.now(UTC).replace(microsecond=0) + clock_offset
    headers = [
        ("Date", format_datetime(now, usegmt=True)),
        ("Retry-After", format_datetime(now + timedelta(seconds=90), usegmt=True)),
    ]
    with WireServer(reply(429, headers=headers)) as server:
        verdict = classify(post_once(server.url), lambda _: False)
    assert isinstance(verdict, Throttled)
    assert verdict.retry_after == 90.0


# Requests


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_request_has_only_the_documented_headers(framing: str) -> None:
    with WireServer(created("job-1", framing)) as server:
        post_once(server.url)
        [request] = server.requests
    assert request.method == "POST"
    assert request.target == "/v0/workflows/w/jobs?project_id=p"
    assert request.body == b""
    assert dict(request.headers) == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "content-length": "0",
        "authorization": KEY,
        "accept": "application/json",
        "user-agent": f"pixxel-runner/{VERSION}",
    }


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("a-b.c_d~e", "a-b.c_d~e"),
        ("ü", "%C3%BC"),
        ("%2F", "%252F"),
        ("%2e%2e", "%252e%252e"),
        ("a+b", "a%2Bb"),
        ("a:b@c", "a%3Ab%40c"),
        ("a?b#c&d=e;f", "a%3Fb%23c%26d%3De%3Bf"),
        ("...", "..."),
        ("a,b'c(d)*!$", "a%2Cb%27c%28d%29%2A%21%24"),
        ("😀", "%F0%9F%98%80"),
        ('[1]|\\^`{}<>"', "%5B1%5D%7C%5C%5E%60%7B%7D%3C%3E%22"),
    ],
)
def test_ids_are_sent_as_one_path_segment_and_one_query_value(value: str, encoded: str) -> None:
    with WireServer() as server, open_client(server.url) as api:
        post(api, value, workflow=value)
        [request] = server.requests
    assert request.target == f"/v0/workflows/{encoded}/jobs?project_id={encoded}"
    assert (request.workflow, request.project) == (value, value)


def test_response_is_returned_unchanged() -> None:
    body = b'{"id": "job-1", "cost": 1e3, "spec": "\\ud800", "x": NaN}'
    headers = [("X-Request-Id", "r-1"), ("DATE", "Mon, 04 May 2026 03:02:01 GMT")]
    with WireServer(reply(200, body, headers)) as server:
        response = post_once(server.url)
    assert isinstance(response, Response)
    assert (response.body, response.headers["x-request-id"], response.headers["date"]) == (body, "r-1", headers[1][1])


def test_ipv6_address_works() -> None:
    try:
        server = WireServer(family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback address")
    with server:
        assert classified(post_once(server.url)) == ACCEPTED


# Timeouts

CONNECTION_CLOSE = b"Connection: close\r\nContent-Length: 99\r\n\r\n"

SLOW_RESPONSES: list[tuple[str, Callable[[threading.Event], Script]]] = [
    ("stall", Stall),
    ("stall-in-head", lambda event: Stall(event, before=HEAD + b"Content-Le")),
    ("stall-in-body", lambda event: Stall(event, before=HEAD + b"Content-Length: 15\r\n\r\n{")),
    ("drip-status", lambda _: Drip(b"", b"HTTP/1.1 200 OK" * 9, 0.1)),
    ("drip-head", lambda _: Drip(HEAD + b"X: ", b"x" * 99, 0.1)),
    ("drip-length", lambda _: Drip(HEAD + b"Content-Length: 99\r\n\r\n", b"x" * 99, 0.1)),
    ("drip-chunked", lambda _: Drip(HEAD + CHUNKED, b"1\r\nx\r\n" * 20, 0.1)),
    ("drip-chunk-size", lambda _: Drip(HEAD + CHUNKED, b"0" * 99, 0.1)),
    ("drip-until-close", lambda _: Drip(HEAD + b"\r\n", b"x" * 99, 0.1)),
    ("drip-connection-close", lambda _: Drip(HEAD + CONNECTION_CLOSE, b"x" * 99, 0.1)),
    ("drip-http-1.0", lambda _: Drip(b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n", b"x" * 99, 0.1)),
    ("drip-continue", lambda _: Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9, 0.02)),
]  # fmt: skip


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in SLOW_RESPONSES])
def test_slow_server_does_not_block_a_worker_beyond_the_timeout(script: Callable[[threading.Event], Script]) -> None:
    with WireServer(script(threading.Event())) as server:
        start = time.monotonic()
        assert classified(post_once(server.url, timeout=SHORT_TIMEOUT)) == in_doubt("timeout")
        assert SHORT_TIMEOUT * 0.9 < time.monotonic() - start < SHORT_TIMEOUT + TIMING_MARGIN
        assert len(server.requests) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse connections when the queue is full")
def test_connect_timeout_sends_nothing() -> None:
    with silent_port() as port:
        assert classified(post_once(f"http://127.0.0.1:{port}", timeout=SHORT_TIMEOUT)) == not_sent("timeout")


def test_timeout_applies_to_each_exchange() -> None:
    with (
        WireServer(choose=lambda _: Drip(HEAD + b"Content-Length: 15\r\n\r\n", JOB, 0.02)) as server,
        open_client(server.url) as api,
    ):
        for _ in range(3):  # the deadline is that of the exchange, not of the connection
            assert classified(post(api, timeout=0.9)) == ACCEPTED


# Memory use

ENDLESS_BODIES = [
    ("length", Endless(HEAD + b"Content-Length: 1073741824\r\n\r\n", MIB, 1024)),
    ("until-close", Endless(HEAD + b"\r\n", MIB, 1024)),
    ("chunked", Endless(HEAD + CHUNKED, chunked(MIB, last=b""), 1024)),
    ("one-chunk", Endless(HEAD + CHUNKED + b"40000000\r\n", MIB, 1024)),
    ("gzip", Endless(HEAD + f"Content-Length: {len(ZEROS) * 20_000}\r\n{GZIP}\r\n".encode(), ZEROS, 20_000)),
    ("gzip-chunked", Endless(HEAD + GZIP.encode() + CHUNKED, chunked(ZEROS, last=b""), 20_000)),
    ("gzip-until-close", Endless(HEAD + GZIP.encode() + b"\r\n", ZEROS, 20_000)),
    ("gzip-in-gzip", Endless(HEAD + b"Content-Encoding: gzip, gzip\r\n\r\n", gzip.compress(ZEROS * 64), 20_000)),
    ("trailers", Endless(HEAD + CHUNKED + chunked(JOB, last=b"0\r\n"), b"X: y\r\n" * 100_000, 1_000)),
    ("one-trailer", Endless(HEAD + CHUNKED + chunked(JOB, last=b"0\r\nX: "), MIB, 512)),
]  # fmt: skip


@pytest.fixture
def peak_memory() -> Iterator[Callable[[], int]]:
    """A function that returns the peak memory, in bytes, that Python has allocated since the start of the test."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in ENDLESS_BODIES])
def test_endless_body_is_not_read_to_its_end(script: Endless, peak_memory: Callable[[], int]) -> None:
    with WireServer(script) as server:
        result = post_once(server.url, timeout=1.5)
    assert isinstance(result, NoResponse)
    assert classified(result).verdict is Ambiguous
    assert server.log.sent < script.total_size
    assert peak_memory() < 8 * MAX_BODY_SIZE


# Connection reuse


def test_connection_is_reused() -> None:
    with WireServer() as server, open_client(server.url) as api:
        for _ in range(3):
            post(api)
        assert [request.connection for request in server.requests] == [1, 1, 1]


def test_connection_idle_too_long_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_MAX_IDLE", 0.0)
    with WireServer() as server, open_client(server.url) as api:
        assert [classified(post(api)) for _ in range(3)] == [ACCEPTED] * 3
        assert [request.connection for request in server.requests] == [1, 2, 3]


def test_connection_closed_by_the_server_while_idle_is_detected() -> None:
    with WireServer(Truncated(created("job-1").data)) as server, open_client(server.url) as api:
        post(api)
        server.wait_for(what=lambda log: log.ended == 1)
        assert classified(post(api)) == ACCEPTED
        assert [request.connection for request in server.requests] == [1, 2]


EXTRA_RESPONSE = created("of-nobody").data


@pytest.mark.parametrize(
    "first", [created("job-1"), reply(404), Reply(b"HTTP/1.1 204 No Content\r\n\r\n")], ids=["200", "404", "204"]
)
def test_bytes_after_a_response_are_not_the_next_response(first: Reply) -> None:
    with WireServer(Reply(first.data + EXTRA_RESPONSE)) as server, open_client(server.url) as api:
        post(api)
        assert job_id(post(api, "two")) == "job-of-two"


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_bytes_after_a_response_over_tls_are_not_the_next_response(
    certificates: Certificates, is_chunked: bool
) -> None:
    """The head is in its own TLS record, and the rest stays in the TLS layer, where polling the socket misses it."""
    body = created("job-1").data.partition(b"\r\n\r\n")[2]
    head = HEAD + (CHUNKED if is_chunked else b"Content-Length: %d\r\n\r\n" % len(body))
    rest = Reply((chunked(body) if is_chunked else body) + EXTRA_RESPONSE)
    proceed = threading.Event()
    proceed.set()
    first = ThenOnEvent(Reply(head), proceed, rest, threading.Event())
    with (
        WireServer(first, tls=certificates.good) as server,
        open_client(server.url, ca_bundle=certificates.bundle) as api,
    ):
        post(api)
        assert job_id(post(api, "two")) == "job-of-two"
        assert [request.connection for request in server.requests] == [1, 2]


def test_bytes_received_while_idle_are_not_the_next_response() -> None:
    proceed, sent = threading.Event(), threading.Event()
    with (
        WireServer(ThenOnEvent(created("job-1"), proceed, Reply(EXTRA_RESPONSE), sent)) as server,
        open_client(server.url) as api,
    ):
        post(api)
        proceed.set()
        assert sent.wait(TIMEOUT)
        assert job_id(post(api, "two")) == "job-of-two"


def test_bytes_after_switching_protocols_are_not_the_next_response() -> None:
    late_response = Reply(created("of-one").data)
    with (
        WireServer(Reply(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), choose=lambda _: late_response) as server,
        open_client(server.url) as api,
    ):
        post(api, "one")
        post(api, "two")  # on a new connection: the server may still respond to the first request on the old one
        assert [request.connection for request in server.requests] == [1, 2]


@dataclass(frozen=True)
class ThenOnEvent:
    """A script, then a second one once an event is set; sets `done` afterwards."""

    first: Script
    when: threading.Event
    second: Script
    done: threading.Event
    creates: bool = True
    early: bool = False

    def play(self, connection: Connection) -> None:
        self.first.play(connection)
        connection.wait_for(self.when)
        self.second.play(connection)
        self.done.set()


def job_id(result: ExchangeResult) -> Any:
    assert isinstance(result, Response)
    return json.loads(result.body)["id"]


def test_failure_makes_the_next_post_use_a_new_connection() -> None:
    scripts: list[Script] = [
        Truncated(HEAD + b"Content-Length: 9\r\n\r\n{"),
        Reply(b"what?\r\n"),
        success_reply(bytes(3 * MAX_BODY_SIZE)),
        created("job-1"),
    ]
    with WireServer(*scripts) as server, open_client(server.url) as api:
        for _ in scripts:
            last_result = post(api)
        assert job_id(last_result) == "job-1"
        assert [request.connection for request in server.requests] == [1, 2, 3, 4]


# Requests that are not sent


def test_refused_connection_sends_nothing() -> None:
    with refusing_port() as port:
        assert classified(post_once(f"http://127.0.0.1:{port}")) == not_sent("connect")


def test_unresolvable_name_sends_nothing() -> None:
    assert classified(post_once("http://nonexistent.invalid")) == not_sent("resolve")


# Aborted exchanges


@contextmanager
def post_in_thread(
    url: str, exchange: Exchange, ca_bundle: str | None = None, proxy: Proxy | None = None
) -> Iterator[list[ExchangeResult]]:
    """Post in another thread; the list has the result when the context ends."""
    results: list[ExchangeResult] = []
    with open_client(url, ca_bundle, proxy) as api:
        thread = threading.Thread(target=lambda: results.append(api.create_job("w", "p", exchange)))
        thread.start()
        yield results
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "received",
    [
        b"",
        HEAD + b"Content-Le",
        HEAD + b"Content-Length: 15\r\n\r\n{",
        HEAD + b"\r\n" + JOB,
        HEAD + b"Connection: close\r\nContent-Length: 15\r\n\r\n{",
    ],
    ids=["no-response", "head", "body", "body-until-close", "body-connection-close"],
)
def test_abort_while_waiting_for_the_response_leaves_the_job_in_doubt(received: bytes) -> None:
    exchange = Exchange(LONG_TIMEOUT)
    with (
        WireServer(Stall(threading.Event(), before=received)) as server,
        post_in_thread(server.url, exchange) as results,
    ):
        server.wait_for(what=lambda log: len(log.requests) == 1 and log.sent >= len(received))
        assert exchange.abort("interrupted") is True
    assert [classified(result) for result in results] == [in_doubt("interrupted")]


def test_abort_before_the_start_sends_nothing() -> None:
    exchange = Exchange(LONG_TIMEOUT)
    assert exchange.abort("interrupted") is False
    with WireServer() as server, post_in_thread(server.url, exchange) as results:
        pass
    assert [classified(result) for result in results] == [not_sent("interrupted")]
    assert server.requests == []


def test_abort_during_a_handshake_sends_nothing_afterwards(certificates: Certificates) -> None:
    exchange, proceed = Exchange(LONG_TIMEOUT), threading.Event()
    with (
        WireServer(tls=certificates.good, greet=lambda line: line.wait_for(proceed)) as server,
        post_in_thread(server.url, exchange, certificates.bundle) as results,
    ):
        server.wait_for(what=lambda log: log.connections == 1)
        assert exchange.abort("interrupted") is False
        proceed.set()
    assert [classified(result) for result in results] == [not_sent("interrupted")]
    assert server.requests == []


def test_abort_while_a_proxy_connects_sends_nothing() -> None:
    exchange = Exchange(LONG_TIMEOUT)
    with (
        WireServer(Stall(threading.Event())) as proxy,
        post_in_thread("https://localhost:1", exchange, proxy=Proxy(proxy.url)) as results,
    ):
        proxy.wait_for_requests(1)
        assert exchange.abort("interrupted") is False
    assert [classified(result) for result in results] == [not_sent("interrupted")]


def test_first_abort_is_the_cause() -> None:
    exchange = Exchange(LONG_TIMEOUT)
    exchange.abort("interrupted")
    exchange.abort("timeout")
    assert exchange.aborted_by == "interrupted"
    with pytest.raises(AbortedError):
        exchange.begin_write(None)


def test_abort_while_the_connection_is_being_closed_does_not_raise() -> None:
    class Closing:
        """A connection that another thread closes between two reads of `sock`."""

        def __init__(self, sock: socket.socket) -> None:
            self._socks: list[socket.socket | None] = [sock]

        @property
        def sock(self) -> socket.socket | None:
            return self._socks.pop() if self._socks else None

    with socket.socket() as sock:
        exchange = Exchange(LONG_TIMEOUT)
        exchange.connection = Closing(sock)  # type: ignore[assignment] # a stub without a setter
        assert exchange.abort("timeout") is False


def test_aborting_a_finished_exchange_does_not_affect_the_next() -> None:
    gate = threading.Event()
    first, second = Exchange(LONG_TIMEOUT), Exchange(LONG_TIMEOUT)
    with WireServer(created("job-1"), Stall(gate, then=created("job-2"))) as server:
        with open_client(server.url) as api:
            api.create_job("w", "p", first)
            results: list[ExchangeResult] = []
            thread = threading.Thread(target=lambda: results.append(api.create_job("w", "p", second)))
            thread.start()
            server.wait_for_requests(2)
            first.abort("timeout")  # as the deadline timer might, just as the exchange ends
            gate.set()
            thread.join(TIMEOUT)
        assert [request.connection for request in server.requests] == [1, 1]
    assert [classified(result) for result in results] == [ACCEPTED]


# TLS


def test_ca_bundle_is_trusted(certificates: Certificates) -> None:
    with WireServer(tls=certificates.good) as server:
        assert classified(post_once(server.url, ca_bundle=certificates.bundle)) == ACCEPTED


@pytest.mark.parametrize("certificate", ["wrong_host", "expired", "self_signed"])
def test_nothing_is_sent_to_an_untrusted_server(certificates: Certificates, certificate: str) -> None:
    with WireServer(tls=getattr(certificates, certificate)) as server:
        assert classified(post_once(server.url, ca_bundle=certificates.bundle)) == UNTRUSTED
        server.wait_for(what=lambda log: log.ended == 1)
        assert (server.requests, server.log.untrusted) == ([], 1)


def test_private_ca_is_not_trusted_without_its_bundle(certificates: Certificates) -> None:
    with WireServer(tls=certificates.good) as server:
        assert classified(post_once(server.url)) == UNTRUSTED


@pytest.mark.parametrize(
    "script",
    [Stall(threading.Event(), early=True), Reset(early=True), Close(early=True)],
    ids=["stall", "reset", "close"],
)
def test_failed_handshake_sends_nothing(script: Script) -> None:
    with WireServer(script) as server:
        start = time.monotonic()
        result = post_once(server.url.replace("http:", "https:"), timeout=SHORT_TIMEOUT)
        assert time.monotonic() - start < SHORT_TIMEOUT + TIMING_MARGIN
    assert (classified(result).verdict, classified(result).kind, classified(result).written) == (
        NotSent,
        "unreachable",
        False,
    )


def test_plain_http_instead_of_tls_sends_nothing() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def respond() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65_536)  # the ClientHello
                sock.sendall(reply(400).data)

        thread = threading.Thread(target=respond)
        thread.start()
        result = post_once(f"https://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(TIMEOUT)
    assert classified(result) == not_sent("tls")


TLS_INCOMPLETE_RESPONSES: list[tuple[str, Script, Classified]] = [
    ("reset", Reset(creates=True), in_doubt("closed")),
    ("close", Close(creates=True), in_doubt("closed")),
    ("half-body", Truncated(HEAD + b"Content-Length: 15\r\n\r\n{", creates=True), in_doubt("truncated")),
    ("stall", Stall(threading.Event()), in_doubt("timeout")),
    ("drip", Drip(HEAD + b"Content-Length: 99\r\n\r\n", b"x" * 99, 0.1), in_doubt("timeout")),
    ("drip-until-close", Drip(HEAD + b"\r\n", b"x" * 99, 0.1), in_doubt("timeout")),
]  # fmt: skip


@parametrize_rows(TLS_INCOMPLETE_RESPONSES)
def test_server_behavior_over_tls_is_classified(
    script: Script, expected: Classified, certificates: Certificates
) -> None:
    with WireServer(script, tls=certificates.good) as server:
        start = time.monotonic()
        result = post_once(server.url, ca_bundle=certificates.bundle, timeout=SHORT_TIMEOUT)
        assert time.monotonic() - start < SHORT_TIMEOUT + TIMING_MARGIN
        assert len(server.requests) == 1
    assert classified(result) == expected


# Proxies


@pytest.mark.parametrize(
    "script",
    [
        reply(403, framing="close"),
        reply(407, headers=[("Proxy-Authenticate", "Basic")]),
        reply(502),
        Truncated(b"what?\r\n"),
        Truncated(b"HTTP/1.1 2"),
        Close(),
        Reset(),
        Reset(early=True),
        Stall(threading.Event()),
        Drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 99, 0.05),
        Truncated(b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
    ids=["403", "407", "502", "garbage", "half", "close", "reset", "reset-unread", "stall", "drip", "then-close"],
)
def test_proxy_that_opens_no_tunnel_sends_nothing(script: Script) -> None:
    with WireServer(script) as proxy:
        start = time.monotonic()
        result = post_once("https://localhost:1", proxy=Proxy(proxy.url, "user:word"), timeout=SHORT_TIMEOUT)
        assert time.monotonic() - start < SHORT_TIMEOUT + TIMING_MARGIN
    assert (classified(result).verdict, classified(result).kind, classified(result).written) == (
        NotSent,
        "unreachable",
        False,
    )
    for request in proxy.requests:
        assert (request.method, request.target) == ("CONNECT", "localhost:1")
        assert "authorization" not in request.headers


@pytest.mark.parametrize("secure", [False, True], ids=["http-proxy", "https-proxy"])
def test_tunneling_proxy_never_sees_the_key(certificates: Certificates, secure: bool) -> None:
    with WireServer(tls=certificates.good) as server:
        script = Tunnel(server.port)
        with (
            WireServer(script, tls=certificates.good if secure else None) as proxy,
            open_client(server.url, certificates.bundle, Proxy(proxy.url, "user:word")) as api,
        ):
            assert [classified(post(api)) for _ in range(2)] == [ACCEPTED] * 2
        [connect] = proxy.requests
        assert connect.headers["proxy-authorization"] == f"Basic {base64.b64encode(b'user:word').decode()}"
        assert KEY not in repr(connect)
        assert [request.headers["authorization"] for request in server.requests] == [KEY, KEY]
        assert all("proxy-authorization" not in request.headers for request in server.requests)


def test_untrusted_server_behind_a_tunnel_gets_nothing(certificates: Certificates) -> None:
    with WireServer(tls=certificates.self_signed) as server, WireServer(Tunnel(server.port)) as proxy:
        assert classified(post_once(server.url, ca_bundle=certificates.bundle, proxy=Proxy(proxy.url))) == UNTRUSTED
        assert server.requests == []


def test_tunnel_broken_after_the_request_leaves_the_job_in_doubt(certificates: Certificates) -> None:
    with WireServer(Close(creates=True), tls=certificates.good) as server, WireServer(Tunnel(server.port)) as proxy:
        result = post_once(server.url, ca_bundle=certificates.bundle, proxy=Proxy(proxy.url))
        assert classified(result) == in_doubt("closed")
        assert len(server.requests) == 1


def test_unreachable_proxy_sends_nothing() -> None:
    with refusing_port() as port:
        result = post_once("https://localhost:1", proxy=Proxy(f"http://127.0.0.1:{port}"))
    assert classified(result) == not_sent("proxy")


def test_plain_http_through_a_proxy_is_forwarded_completely() -> None:
    with WireServer() as proxy:
        assert classified(post_once("http://api.example", proxy=Proxy(proxy.url, "user:word"))) == ACCEPTED
        [request] = proxy.requests
    assert request.target == "http://api.example/v0/workflows/w/jobs?project_id=p"
    assert request.headers["proxy-authorization"].startswith("Basic ")


# Messages


@pytest.mark.parametrize(
    "script",
    [Close(), Reply(b"what?\r\n"), reply(401), reply(500, KEY.encode()[:3])],
    ids=["closed", "garbage", "401", "500"],
)
def test_no_message_contains_the_key(script: Script) -> None:
    with WireServer(script) as server:
        result = post_once(server.url)
    assert KEY not in repr(result)
    assert KEY not in repr(classify(result, lambda _: False))
