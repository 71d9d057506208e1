"""One POST over a real socket, against a server that does what networks, gateways and servers do to it."""

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
LONG = 30.0  # seconds of timeout where a test is not about time
SHORT = 0.4
LATE = 4.0  # seconds that a busy machine may be late; what is not ended takes longer


@contextmanager
def api_at(url: str, ca_bundle: str | None = None, proxy: Proxy | None = None) -> Iterator[ApiClient]:
    with ApiClient(Endpoint(url, ApiKey(KEY), ca_bundle, proxy), connections=4) as api:
        yield api


def post(api: ApiClient, project: str = "p", *, workflow: str = "w", timeout: float = LONG) -> ExchangeResult:
    return api.create_job(workflow, project, Exchange(timeout))


def post_once(
    url: str, *, timeout: float = LONG, ca_bundle: str | None = None, proxy: Proxy | None = None
) -> ExchangeResult:
    with api_at(url, ca_bundle, proxy) as api:
        return post(api, timeout=timeout)


@dataclass(frozen=True)
class Judged:
    """One row's right side: what happened (a cause, or a status), and the verdict on it."""

    happened: str | int
    verdict: type[object]
    kind: str = ""
    stop: bool = False
    written: bool = True


def judged(result: ExchangeResult) -> Judged:
    verdict = classify(result, lambda job_id: job_id == "held")
    happened: str | int = result.status if isinstance(result, Response) else result.cause
    return Judged(
        happened,
        type(verdict),
        kind="" if isinstance(verdict, Accepted) else verdict.error.kind,
        stop=isinstance(verdict, Rejected | Ambiguous) and verdict.stop,
        written=isinstance(result, Response) or result.written,
    )


def doubt(happened: str | int, kind: str = "", *, stop: bool = False) -> Judged:
    return Judged(happened, Ambiguous, kind or str(happened), stop)


def refused(status: int, kind: str, *, stop: bool = False) -> Judged:
    return Judged(status, Rejected, kind, stop)


def not_sent(cause: str) -> Judged:
    return Judged(cause, NotSent, "unreachable", written=False)


UNTRUSTED = Judged("certificate", Rejected, "untrusted", stop=True, written=False)


# A complete answer, whatever is in it.

JOB = b'{"id": "job-1"}'
HEAD = b"HTTP/1.1 200 OK\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ACCEPTED = Judged(200, Accepted)
MIB = bytes(2**20)


def ok(body: bytes, *headers: tuple[str, str], framing: str = "length") -> Reply:
    return reply(200, body, headers, framing=framing, creates=True)


ANSWERS: list[tuple[str, Script, Judged]] = [
    ("200", created("job-1"), ACCEPTED),
    ("200-chunked", created("job-1", "chunked"), ACCEPTED),
    ("200-until-close", created("job-1", "close"), ACCEPTED),
    ("200-gzip", ok(gzip.compress(JOB), ("Content-Encoding", "gzip")), ACCEPTED),
    ("200-gzip-chunked", ok(gzip.compress(JOB), ("Content-Encoding", "gzip"), framing="chunked"), ACCEPTED),
    ("200-deflate", ok(zlib.compress(JOB), ("Content-Encoding", "deflate")), ACCEPTED),
    ("200-no-trailer-end", Truncated(HEAD + CHUNKED + chunked(JOB, last=b"0\r\n")), ACCEPTED),
    ("201", reply(201, JOB, creates=True), Judged(201, Accepted)),
    ("299", reply(299, JOB, creates=True), Judged(299, Accepted)),
    ("100-then-200", Reply(CONTINUE + created("job-1").data, creates=True), ACCEPTED),
    ("100-twice-then-401", Reply(CONTINUE * 2 + reply(401).data), refused(401, "unauthorized", stop=True)),
    ("200-held-id", created("held"), doubt(200, "known_id")),
    ("200-no-json", ok(b"<html>Welcome</html>"), doubt(200, "unreadable")),
    ("200-no-id", ok(b'{"job": "job-1"}'), doubt(200, "unreadable")),
    ("200-empty-id", ok(b'{"id": ""}'), doubt(200, "unreadable")),
    ("200-number-id", ok(b'{"id": 17}'), doubt(200, "unreadable")),
    ("200-list", ok(b'[{"id": "job-1"}]'), doubt(200, "unreadable")),
    ("200-empty", ok(b""), doubt(200, "unreadable")),
    ("200-unknown-coding", ok(JOB[::-1], ("Content-Encoding", "x-rot")), doubt(200, "unreadable")),
    ("204", Reply(b"HTTP/1.1 204 No Content\r\n\r\n", creates=True), doubt(204, "unreadable")),
    ("206-part", reply(206, JOB[:9], creates=True), doubt(206, "unreadable")),
    ("101", Reply(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"), doubt(101, "unexpected", stop=True)),
    ("103-alone", Truncated(HINTS), doubt("truncated")),
    ("103-200", Reply(HINTS + created("job-1").data, creates=True), ACCEPTED),
    ("100-103-404", Reply(CONTINUE + HINTS + reply(404).data), refused(404, "rejected")),
    *((f"{status}", reply(status), doubt(status, "unexpected", stop=True)) for status in (300, 303, 305, 306, 399)),
    ("304", Reply(b"HTTP/1.1 304 Not Modified\r\n\r\n"), doubt(304, "unexpected", stop=True)),
    ("600", reply(600), doubt(600, "unexpected", stop=True)),
    ("999", reply(999, creates=True), doubt(999, "unexpected", stop=True)),
    *((f"{status}", reply(status), refused(status, "redirected", stop=True)) for status in (301, 302, 307, 308)),
    ("400", reply(400), refused(400, "rejected")),
    ("401", reply(401), refused(401, "unauthorized", stop=True)),
    ("402", reply(402), refused(402, "rejected")),
    ("403", reply(403), refused(403, "forbidden")),
    ("404", reply(404), refused(404, "rejected")),
    ("404-until-close", reply(404, framing="close"), refused(404, "rejected")),
    ("408", reply(408), doubt(408, "request_timeout")),
    ("409", reply(409), doubt(409, "conflict")),
    ("417", reply(417), refused(417, "rejected")),
    ("422", reply(422, b'{"error": {"code": "bad"}}'), refused(422, "rejected")),
    ("425", reply(425), Judged(425, Throttled, "throttled")),
    ("429", reply(429), Judged(429, Throttled, "throttled")),
    ("499", reply(499), refused(499, "rejected")),
    *((f"{status}", reply(status), doubt(status, "server_error")) for status in (500, 501, 502, 503, 504, 520, 599)),
    *(
        (f"{status}-retry-after", reply(status, headers=[("Retry-After", "0")]), doubt(status, "server_error"))
        for status in (500, 502, 503, 504)
    ),
]  # fmt: skip


# No complete answer.

GZIP = "Content-Encoding: gzip\r\n"
ZEROS = gzip.compress(MIB * 16)  # 16 MiB in 16 KiB; members of a gzip stream may follow each other without end

SILENCES: list[tuple[str, Script, Judged]] = [
    ("reset-unread", Reset(early=True), doubt("closed")),
    ("reset-read", Reset(creates=True), doubt("closed")),
    ("close-unread", Close(early=True), doubt("closed")),
    ("close-read", Close(creates=True), doubt("closed")),
    ("half-status", Truncated(b"HTTP/1."), doubt("truncated")),
    ("status-line-only", Truncated(HEAD, creates=True), doubt("truncated")),
    ("half-head", Truncated(HEAD + b"Content-Le", creates=True), doubt("truncated")),
    ("half-head-404", Truncated(b"HTTP/1.1 404 Not Found\r\nContent-Le"), doubt("truncated")),
    ("half-head-429", Truncated(b"HTTP/1.1 429 Too Many Requests\r\nRetry-Af"), doubt("truncated")),
    ("half-status-line-401", Truncated(b"HTTP/1.1 401 Unauth"), doubt("truncated")),
    ("reset-in-head", Reset(data=HEAD + b"Content-Le"), doubt("closed")),
    ("no-body", Truncated(HEAD + b"Content-Length: 15\r\n\r\n", creates=True), doubt("truncated")),
    ("half-body", Truncated(HEAD + b"Content-Length: 15\r\n\r\n" + JOB[:9], creates=True), doubt("truncated")),
    ("half-body-looks-whole", Truncated(HEAD + b"Content-Length: 99\r\n\r\n" + JOB, creates=True), doubt("truncated")),
    ("half-body-404", Truncated(b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n{}"), doubt("truncated")),
    ("half-body-429", Truncated(b"HTTP/1.1 429 Slow\r\nContent-Length: 99\r\n\r\n{}"), doubt("truncated")),
    ("half-chunk", Truncated(HEAD + CHUNKED + b"f\r\n" + JOB[:9], creates=True), doubt("truncated")),
    ("half-chunk-size", Truncated(HEAD + CHUNKED + b"f", creates=True), doubt("truncated")),
    ("no-last-chunk", Truncated(HEAD + CHUNKED + chunked(JOB, last=b""), creates=True), doubt("truncated")),
    ("no-last-chunk-404", Truncated(b"HTTP/1.1 404 No\r\n" + CHUNKED + chunked(b"{}", last=b"")), doubt("truncated")),
    ("reset-in-body", Reset(data=HEAD + b"Content-Length: 15\r\n\r\n" + JOB[:9]), doubt("closed")),
    ("half-gzip", Truncated(HEAD + GZIP.encode() + b"\r\n" + gzip.compress(JOB)[:-12]), doubt(200, "unreadable")),
    ("garbage", Reply(b"\x15\x03\x01\x00\x02\x02\x16\r\n", creates=True), doubt("garbage")),
    ("http-0.9", Truncated(b"<html>hello</html>\r\n"), doubt("garbage")),
    ("ssh", Truncated(b"SSH-2.0-OpenSSH_9.6\r\n"), doubt("garbage")),
    ("huge-header", Reply(HEAD + b"X: " + b"x" * 100_000 + b"\r\n\r\n" + JOB), doubt("garbage")),
    ("header-flood", Reply(HEAD + b"X: y\r\n" * 5_000 + b"\r\n" + JOB), doubt("garbage")),
    ("two-lengths", Reply(HEAD + b"Content-Length: 15\r\nContent-Length: 14\r\n\r\n" + JOB), doubt("garbage")),
    ("bad-chunk-size", Reply(HEAD + CHUNKED + b"zz\r\n" + JOB), doubt("truncated")),
    ("chunk-extension-flood", Endless(HEAD + CHUNKED + b"f;x=", MIB, 64), doubt("truncated")),
    ("deflate-garbage", ok(b"\xde\xad\xbe\xef" * 9, ("Content-Encoding", "deflate")), doubt("garbage")),
    ("gzip-garbage", ok(JOB, ("Content-Encoding", "gzip")), doubt("garbage")),
    ("gzip-garbage-chunked", ok(JOB, ("Content-Encoding", "gzip"), framing="chunked"), doubt("garbage")),
    ("large-body", ok(bytes(MAX_BODY_SIZE + 1)), doubt("too_large")),
]  # fmt: skip


def table(rows: list[tuple[str, Script, Judged]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("script", "expected"), [pytest.param(script, expected, id=name) for name, script, expected in rows]
    )


@table(ANSWERS + SILENCES)
def test_each_server_behaviour_has_its_verdict(script: Script, expected: Judged) -> None:
    with WireServer(script) as server:
        assert judged(post_once(server.url)) == expected
        assert len(server.requests) == (0 if script.early else 1)
        assert server.log.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_the_key_nowhere(status: int) -> None:
    with WireServer() as elsewhere:
        answer = reply(status, headers=[("Location", f"{elsewhere.url}/v0/workflows/w/jobs")])
        with WireServer(answer) as server:
            post_once(server.url)
            assert len(server.requests) == 1
        assert elsewhere.log.connections == 0


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
    "off", [timedelta(hours=-1), timedelta(), timedelta(hours=1)], ids=["behind", "right", "ahead"]
)
def test_retry_after_as_a_date_by_the_clock_of_the_server(off: timedelta) -> None:
    now = datetime.now(UTC).replace(microsecond=0) + off
    headers = [
        ("Date", format_datetime(now, usegmt=True)),
        ("Retry-After", format_datetime(now + timedelta(seconds=90), usegmt=True)),
    ]
    with WireServer(reply(429, headers=headers)) as server:
        verdict = classify(post_once(server.url), lambda _: False)
    assert isinstance(verdict, Throttled)
    assert verdict.retry_after == 90.0


# The request.


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_the_request_is_what_the_api_wants_and_no_more(framing: str) -> None:
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
    ("given", "sent"),
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
def test_ids_are_sent_as_one_segment_and_one_value(given: str, sent: str) -> None:
    with WireServer() as server, api_at(server.url) as api:
        post(api, given, workflow=given)
        [request] = server.requests
    assert request.target == f"/v0/workflows/{sent}/jobs?project_id={sent}"
    assert (request.workflow, request.project) == (given, given)


def test_a_response_is_returned_unchanged() -> None:
    body = b'{"id": "job-1", "cost": 1e3, "spec": "\\ud800", "x": NaN}'
    headers = [("X-Request-Id", "r-1"), ("DATE", "Mon, 04 May 2026 03:02:01 GMT")]
    with WireServer(reply(200, body, headers)) as server:
        answer = post_once(server.url)
    assert isinstance(answer, Response)
    assert (answer.body, answer.headers["x-request-id"], answer.headers["date"]) == (body, "r-1", headers[1][1])


def test_ipv6() -> None:
    try:
        server = WireServer(family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with server:
        assert judged(post_once(server.url)) == ACCEPTED


# Time.

CLOSING = b"Connection: close\r\nContent-Length: 99\r\n\r\n"

SLOW: list[tuple[str, Callable[[threading.Event], Script]]] = [
    ("stall", Stall),
    ("stall-in-head", lambda event: Stall(event, before=HEAD + b"Content-Le")),
    ("stall-in-body", lambda event: Stall(event, before=HEAD + b"Content-Length: 15\r\n\r\n{")),
    ("drip-status", lambda _: Drip(b"", b"HTTP/1.1 200 OK" * 9, 0.1)),
    ("drip-head", lambda _: Drip(HEAD + b"X: ", b"x" * 99, 0.1)),
    ("drip-length", lambda _: Drip(HEAD + b"Content-Length: 99\r\n\r\n", b"x" * 99, 0.1)),
    ("drip-chunked", lambda _: Drip(HEAD + CHUNKED, b"1\r\nx\r\n" * 20, 0.1)),
    ("drip-chunk-size", lambda _: Drip(HEAD + CHUNKED, b"0" * 99, 0.1)),
    ("drip-until-close", lambda _: Drip(HEAD + b"\r\n", b"x" * 99, 0.1)),
    ("drip-connection-close", lambda _: Drip(HEAD + CLOSING, b"x" * 99, 0.1)),
    ("drip-http-1.0", lambda _: Drip(b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n", b"x" * 99, 0.1)),
    ("drip-continue", lambda _: Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9, 0.02)),
]  # fmt: skip


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in SLOW])
def test_a_slow_server_does_not_block_a_worker_beyond_the_timeout(script: Callable[[threading.Event], Script]) -> None:
    with WireServer(script(threading.Event())) as server:
        before = time.monotonic()
        assert judged(post_once(server.url, timeout=SHORT)) == doubt("timeout")
        assert SHORT * 0.9 < time.monotonic() - before < SHORT + LATE
        assert len(server.requests) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
def test_a_connect_timeout_sends_nothing() -> None:
    with silent_port() as port:
        assert judged(post_once(f"http://127.0.0.1:{port}", timeout=SHORT)) == not_sent("timeout")


def test_a_response_may_take_as_long_as_the_timeout() -> None:
    with (
        WireServer(choose=lambda _: Drip(HEAD + b"Content-Length: 15\r\n\r\n", JOB, 0.02)) as server,
        api_at(server.url) as api,
    ):
        for _ in range(3):  # each exchange has a deadline of its own, not its connection
            assert judged(post(api, timeout=0.9)) == ACCEPTED


# Memory.

ENDLESS = [
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
def peak() -> Iterator[Callable[[], int]]:
    """The most bytes that Python held at a time since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in ENDLESS])
def test_an_endless_body_is_not_read_to_its_end(script: Endless, peak: Callable[[], int]) -> None:
    with WireServer(script) as server:
        result = post_once(server.url, timeout=1.5)
    assert isinstance(result, NoResponse)
    assert judged(result).verdict is Ambiguous
    assert server.log.sent < script.total_size
    assert peak() < 8 * MAX_BODY_SIZE


# Connections that are used again.


def test_a_connection_is_reused() -> None:
    with WireServer() as server, api_at(server.url) as api:
        for _ in range(3):
            post(api)
        assert [request.connection for request in server.requests] == [1, 1, 1]


def test_a_connection_that_was_idle_too_long_is_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_MAX_IDLE", 0.0)
    with WireServer() as server, api_at(server.url) as api:
        assert [judged(post(api)) for _ in range(3)] == [ACCEPTED] * 3
        assert [request.connection for request in server.requests] == [1, 2, 3]


def test_a_connection_that_the_server_closed_while_idle_is_detected() -> None:
    with WireServer(Truncated(created("job-1").data)) as server, api_at(server.url) as api:
        post(api)
        server.wait_for(what=lambda log: log.ended == 1)
        assert judged(post(api)) == ACCEPTED
        assert [request.connection for request in server.requests] == [1, 2]


EXTRA = created("of-nobody").data


@pytest.mark.parametrize(
    "first", [created("job-1"), reply(404), Reply(b"HTTP/1.1 204 No Content\r\n\r\n")], ids=["200", "404", "204"]
)
def test_bytes_after_a_response_are_not_the_next_response(first: Reply) -> None:
    with WireServer(Reply(first.data + EXTRA)) as server, api_at(server.url) as api:
        post(api)
        assert job_id(post(api, "two")) == "job-of-two"


@pytest.mark.parametrize("chunked_", [False, True], ids=["length", "chunked"])
def test_bytes_after_a_response_over_tls_are_not_the_next_response(certificates: Certificates, chunked_: bool) -> None:
    """They stay in the TLS layer, where no look at the socket shows them: the head is in a record of its own."""
    body = created("job-1").data.partition(b"\r\n\r\n")[2]
    head = HEAD + (CHUNKED if chunked_ else b"Content-Length: %d\r\n\r\n" % len(body))
    rest = Reply((chunked(body) if chunked_ else body) + EXTRA)
    go = threading.Event()
    go.set()
    first = Then(Reply(head), go, rest, threading.Event())
    with (
        WireServer(first, tls=certificates.good) as server,
        api_at(server.url, ca_bundle=certificates.bundle) as api,
    ):
        post(api)
        assert job_id(post(api, "two")) == "job-of-two"
        assert [request.connection for request in server.requests] == [1, 2]


def test_bytes_received_while_idle_are_not_the_next_response() -> None:
    go, gone = threading.Event(), threading.Event()
    with WireServer(Then(created("job-1"), go, Reply(EXTRA), gone)) as server, api_at(server.url) as api:
        post(api)
        go.set()
        assert gone.wait(TIMEOUT)
        assert job_id(post(api, "two")) == "job-of-two"


def test_bytes_after_switching_protocols_are_not_the_next_response() -> None:
    late = Reply(created("of-one").data)
    with (
        WireServer(Reply(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), choose=lambda _: late) as server,
        api_at(server.url) as api,
    ):
        post(api, "one")
        post(api, "two")  # on a connection of its own: the server may still answer the first on that one
        assert [request.connection for request in server.requests] == [1, 2]


@dataclass(frozen=True)
class Then:
    """A script, and another one when an event is set; then `done` is set."""

    first: Script
    when: threading.Event
    second: Script
    done: threading.Event
    creates: bool = True
    early: bool = False

    def play(self, line: Connection) -> None:
        self.first.play(line)
        line.wait_for(self.when)
        self.second.play(line)
        self.done.set()


def job_id(result: ExchangeResult) -> Any:
    assert isinstance(result, Response)
    return json.loads(result.body)["id"]


def test_after_a_failure_the_next_post_uses_a_new_connection() -> None:
    scripts: list[Script] = [
        Truncated(HEAD + b"Content-Length: 9\r\n\r\n{"),
        Reply(b"what?\r\n"),
        ok(bytes(3 * MAX_BODY_SIZE)),
        created("job-1"),
    ]
    with WireServer(*scripts) as server, api_at(server.url) as api:
        for _ in scripts:
            last = post(api)
        assert job_id(last) == "job-1"
        assert [request.connection for request in server.requests] == [1, 2, 3, 4]


# What is not sent.


def test_a_refused_connection() -> None:
    with refusing_port() as port:
        assert judged(post_once(f"http://127.0.0.1:{port}")) == not_sent("connect")


def test_a_name_that_does_not_resolve() -> None:
    assert judged(post_once("http://nonexistent.invalid")) == not_sent("resolve")


# Cut short.


@contextmanager
def posting(
    url: str, exchange: Exchange, ca_bundle: str | None = None, proxy: Proxy | None = None
) -> Iterator[list[ExchangeResult]]:
    """Post in another thread; what happened is in the list afterwards."""
    happened: list[ExchangeResult] = []
    with api_at(url, ca_bundle, proxy) as api:
        thread = threading.Thread(target=lambda: happened.append(api.create_job("w", "p", exchange)))
        thread.start()
        yield happened
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "before",
    [
        b"",
        HEAD + b"Content-Le",
        HEAD + b"Content-Length: 15\r\n\r\n{",
        HEAD + b"\r\n" + JOB,
        HEAD + b"Connection: close\r\nContent-Length: 15\r\n\r\n{",
    ],
    ids=["no-answer", "head", "body", "body-until-close", "body-connection-close"],
)
def test_abort_while_waiting(before: bytes) -> None:
    exchange = Exchange(LONG)
    with WireServer(Stall(threading.Event(), before=before)) as server, posting(server.url, exchange) as happened:
        server.wait_for(what=lambda log: len(log.requests) == 1 and log.sent >= len(before))
        assert exchange.abort("interrupted") is True
    assert [judged(each) for each in happened] == [doubt("interrupted")]


def test_abort_before_the_start_sends_nothing() -> None:
    exchange = Exchange(LONG)
    assert exchange.abort("interrupted") is False
    with WireServer() as server, posting(server.url, exchange) as happened:
        pass
    assert [judged(each) for each in happened] == [not_sent("interrupted")]
    assert server.requests == []


def test_abort_during_a_handshake_sends_nothing_afterwards(certificates: Certificates) -> None:
    exchange, go = Exchange(LONG), threading.Event()
    with (
        WireServer(tls=certificates.good, greet=lambda line: line.wait_for(go)) as server,
        posting(server.url, exchange, certificates.bundle) as happened,
    ):
        server.wait_for(what=lambda log: log.connections == 1)
        assert exchange.abort("interrupted") is False
        go.set()
    assert [judged(each) for each in happened] == [not_sent("interrupted")]
    assert server.requests == []


def test_abort_while_a_proxy_connects_sends_nothing() -> None:
    exchange = Exchange(LONG)
    with (
        WireServer(Stall(threading.Event())) as proxy,
        posting("https://localhost:1", exchange, proxy=Proxy(proxy.url)) as happened,
    ):
        proxy.wait_for_requests(1)
        assert exchange.abort("interrupted") is False
    assert [judged(each) for each in happened] == [not_sent("interrupted")]


def test_the_first_abort_is_the_cause() -> None:
    exchange = Exchange(LONG)
    exchange.abort("interrupted")
    exchange.abort("timeout")
    assert exchange.aborted_by == "interrupted"
    with pytest.raises(AbortedError):
        exchange.begin_write(None)


def test_abort_while_the_connection_is_being_closed() -> None:
    class Closing:
        """A connection that another thread closes between two looks at it."""

        def __init__(self, sock: socket.socket) -> None:
            self._socks: list[socket.socket | None] = [sock]

        @property
        def sock(self) -> socket.socket | None:
            return self._socks.pop() if self._socks else None

    with socket.socket() as sock:
        exchange = Exchange(LONG)
        exchange.connection = Closing(sock)  # type: ignore[assignment] # it has no setter
        assert exchange.abort("timeout") is False


def test_aborting_an_exchange_that_has_ended_does_not_hit_the_next() -> None:
    gate = threading.Event()
    first, second = Exchange(LONG), Exchange(LONG)
    with WireServer(created("job-1"), Stall(gate, then=created("job-2"))) as server:
        with api_at(server.url) as api:
            api.create_job("w", "p", first)
            happened: list[ExchangeResult] = []
            thread = threading.Thread(target=lambda: happened.append(api.create_job("w", "p", second)))
            thread.start()
            server.wait_for_requests(2)
            first.abort("timeout")  # as the watch might, at the very moment when it ended
            gate.set()
            thread.join(TIMEOUT)
        assert [request.connection for request in server.requests] == [1, 1]
    assert [judged(each) for each in happened] == [ACCEPTED]


# TLS.


def test_tls_with_a_ca_bundle(certificates: Certificates) -> None:
    with WireServer(tls=certificates.good) as server:
        assert judged(post_once(server.url, ca_bundle=certificates.bundle)) == ACCEPTED


@pytest.mark.parametrize("wrong", ["wrong_host", "expired", "self_signed"])
def test_nothing_is_sent_to_a_server_that_is_not_trusted(certificates: Certificates, wrong: str) -> None:
    with WireServer(tls=getattr(certificates, wrong)) as server:
        assert judged(post_once(server.url, ca_bundle=certificates.bundle)) == UNTRUSTED
        server.wait_for(what=lambda log: log.ended == 1)
        assert (server.requests, server.log.untrusted) == ([], 1)


def test_the_ca_of_a_bundle_is_not_trusted_without_it(certificates: Certificates) -> None:
    with WireServer(tls=certificates.good) as server:
        assert judged(post_once(server.url)) == UNTRUSTED


@pytest.mark.parametrize(
    "script",
    [Stall(threading.Event(), early=True), Reset(early=True), Close(early=True)],
    ids=["stall", "reset", "close"],
)
def test_a_handshake_that_fails_sends_nothing(script: Script) -> None:
    with WireServer(script) as server:
        before = time.monotonic()
        result = post_once(server.url.replace("http:", "https:"), timeout=SHORT)
        assert time.monotonic() - before < SHORT + LATE
    assert (judged(result).verdict, judged(result).kind, judged(result).written) == (
        NotSent,
        "unreachable",
        False,
    )


def test_plain_http_instead_of_tls_sends_nothing() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65_536)  # the client's hello
                sock.sendall(reply(400).data)

        thread = threading.Thread(target=answer)
        thread.start()
        result = post_once(f"https://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(TIMEOUT)
    assert judged(result) == not_sent("tls")


TLS_SILENCES: list[tuple[str, Script, Judged]] = [
    ("reset", Reset(creates=True), doubt("closed")),
    ("close", Close(creates=True), doubt("closed")),
    ("half-body", Truncated(HEAD + b"Content-Length: 15\r\n\r\n{", creates=True), doubt("truncated")),
    ("stall", Stall(threading.Event()), doubt("timeout")),
    ("drip", Drip(HEAD + b"Content-Length: 99\r\n\r\n", b"x" * 99, 0.1), doubt("timeout")),
    ("drip-until-close", Drip(HEAD + b"\r\n", b"x" * 99, 0.1), doubt("timeout")),
]  # fmt: skip


@table(TLS_SILENCES)
def test_each_server_behaviour_over_tls_has_its_verdict(
    script: Script, expected: Judged, certificates: Certificates
) -> None:
    with WireServer(script, tls=certificates.good) as server:
        before = time.monotonic()
        result = post_once(server.url, ca_bundle=certificates.bundle, timeout=SHORT)
        assert time.monotonic() - before < SHORT + LATE
        assert len(server.requests) == 1
    assert judged(result) == expected


# Proxies.


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
def test_a_proxy_that_opens_no_tunnel_sends_nothing(script: Script) -> None:
    with WireServer(script) as proxy:
        before = time.monotonic()
        result = post_once("https://localhost:1", proxy=Proxy(proxy.url, "user:word"), timeout=SHORT)
        assert time.monotonic() - before < SHORT + LATE
    assert (judged(result).verdict, judged(result).kind, judged(result).written) == (
        NotSent,
        "unreachable",
        False,
    )
    for request in proxy.requests:
        assert (request.method, request.target) == ("CONNECT", "localhost:1")
        assert "authorization" not in request.headers


@pytest.mark.parametrize("secure", [False, True], ids=["http-proxy", "https-proxy"])
def test_a_proxy_with_a_tunnel_never_sees_the_key(certificates: Certificates, secure: bool) -> None:
    with WireServer(tls=certificates.good) as server:
        script = Tunnel(server.port)
        with (
            WireServer(script, tls=certificates.good if secure else None) as proxy,
            api_at(server.url, certificates.bundle, Proxy(proxy.url, "user:word")) as api,
        ):
            assert [judged(post(api)) for _ in range(2)] == [ACCEPTED] * 2
        [connect] = proxy.requests
        assert connect.headers["proxy-authorization"] == f"Basic {base64.b64encode(b'user:word').decode()}"
        assert KEY not in repr(connect)
        assert [request.headers["authorization"] for request in server.requests] == [KEY, KEY]
        assert all("proxy-authorization" not in request.headers for request in server.requests)


def test_a_server_behind_a_tunnel_that_is_not_trusted(certificates: Certificates) -> None:
    with WireServer(tls=certificates.self_signed) as server, WireServer(Tunnel(server.port)) as proxy:
        assert judged(post_once(server.url, ca_bundle=certificates.bundle, proxy=Proxy(proxy.url))) == UNTRUSTED
        assert server.requests == []


def test_a_tunnel_that_breaks_after_the_request_leaves_the_job_in_doubt(certificates: Certificates) -> None:
    with WireServer(Close(creates=True), tls=certificates.good) as server, WireServer(Tunnel(server.port)) as proxy:
        result = post_once(server.url, ca_bundle=certificates.bundle, proxy=Proxy(proxy.url))
        assert judged(result) == doubt("closed")
        assert len(server.requests) == 1


def test_a_proxy_that_cannot_be_reached() -> None:
    with refusing_port() as port:
        result = post_once("https://localhost:1", proxy=Proxy(f"http://127.0.0.1:{port}"))
    assert judged(result) == not_sent("proxy")


def test_plain_http_through_a_proxy_is_forwarded_completely() -> None:
    with WireServer() as proxy:
        assert judged(post_once("http://api.example", proxy=Proxy(proxy.url, "user:word"))) == ACCEPTED
        [request] = proxy.requests
    assert request.target == "http://api.example/v0/workflows/w/jobs?project_id=p"
    assert request.headers["proxy-authorization"].startswith("Basic ")


# Words.


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
