"""Every fault that a server may show to one request: the bytes that it sends, and whether the job is created.

It is the counterpart of the table of outcomes in docs/design.md. faults_server.py decides which request gets which
fault.
"""

from __future__ import annotations

import gzip
import json
import random
import select
import socket
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any

from runner.sandbox.http import Response
from runner.sandbox.server import Sandbox

_DRIP_INTERVAL = 0.02  # seconds between two bytes
_PIECE = bytes(2**16)
_MOST_ENDLESS = 2**28  # bytes: a client that reads all of them has no limit
_RESET = struct.pack("ii", 1, 0)

_JSON = ("Content-Type", "application/json")
Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class FaultConnection:
    """A connection with one request to respond to.

    `response` is the correct response: the job object for a POST that created a job, else empty. `create` creates a
    job now. `known_ids` are the ids of jobs in the client's ledger.
    """

    sock: socket.socket
    random: random.Random
    server: Sandbox
    response: Response
    create: Callable[[], object]
    known_ids: Sequence[str]

    def send(self, data: bytes) -> None:
        """Send data. Raises OSError if the client has disconnected."""
        self.sock.sendall(data)

    def wait_until_gone(self) -> None:
        """Wait until the client has disconnected."""
        self.sock.settimeout(None)
        with suppress(OSError):
            while self.sock.recv(2**16):
                pass

    def is_gone(self, seconds: float) -> bool:
        """Whether the client disconnects within this many seconds."""
        return bool(select.select([self.sock], [], [], seconds)[0])


Play = Callable[[FaultConnection], bool]  # injects the fault; returns whether the connection can be reused


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    `creates` lists whether the job may or may not be created before the fault. `unread`: the request is not read.
    `late`: the job is created after the client has given up.
    """

    kind: str
    play: Play
    creates: tuple[bool, ...] = (False,)
    unread: bool = False
    late: bool = False


def head(status: int, headers: Headers = (), reason: str = "Said So") -> bytes:
    """A status line and headers."""
    return "".join([f"HTTP/1.1 {status} {reason}\r\n", *(f"{k}: {v}\r\n" for k, v in headers), "\r\n"]).encode()


def sized_response(status: int, body: bytes, headers: Headers = ()) -> bytes:
    """A response with a Content-Length."""
    return head(status, [_JSON, *headers, ("Content-Length", str(len(body)))]) + body


def _error(connection: FaultConnection, status: int, headers: Headers = ()) -> bytes:
    forms: tuple[bytes, ...] = (
        b"",
        b"<html><h1>A gateway</h1></html>",
        json.dumps({"error": {"code": "said_so", "message": "no", "details": None}}).encode(),
        json.dumps({"error": "no"}).encode(),
    )
    date = ("Date", format_datetime(connection.server.backend.now(), usegmt=True))
    return sized_response(status, connection.random.choice(forms), [date, *headers])


# No response, or an incomplete one.


def _reset(connection: FaultConnection) -> bool:
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return False


def _close(_line: FaultConnection) -> bool:
    return False


def _truncated_head(connection: FaultConnection) -> bool:
    whole = head(200, [_JSON, ("Content-Length", "500")])
    connection.send(whole[: connection.random.randrange(1, len(whole) - 1)])
    return False


def _truncated_body(connection: FaultConnection) -> bool:
    body = connection.response.body or b'{"id": "cut"}'
    cut = body[: connection.random.randrange(len(body))]
    match connection.random.randrange(3):
        case 0:
            connection.send(head(200, [_JSON, ("Content-Length", str(len(body)))]) + cut)
        case 1:
            connection.send(head(200, [_JSON, ("Transfer-Encoding", "chunked")]) + b"%x\r\n%b" % (len(body), cut))
        case _:
            connection.send(head(200, [_JSON, ("Content-Length", str(len(body)))]) + cut)
            return _reset(connection)
    return False


def _garbage(connection: FaultConnection) -> bool:
    connection.send(
        connection.random.choice(
            (
                connection.random.randbytes(300),
                b"\x15\x03\x01\x00\x02\x02\x28",  # a TLS alert
                b"SSH-2.0-server\r\n",
                b"HTTP/1.1 two hundred\r\n\r\n",
                b"HTTP/1.1 200\r\nContent-Length: -1\r\n\r\n{}",
                b"\n" * 200,
                b"HTTP/9.9 200 OK\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            )
        )
    )
    return False


def _never_respond(connection: FaultConnection) -> bool:
    connection.wait_until_gone()
    return False


def _create_late(connection: FaultConnection) -> bool:
    connection.wait_until_gone()
    connection.create()
    return False


def _send_slowly(connection: FaultConnection) -> bool:
    for byte in sized_response(200, connection.response.body or b'{"id": "dripped"}'):
        if connection.is_gone(_DRIP_INTERVAL):
            return False
        connection.send(bytes([byte]))
    return False


def _endless(connection: FaultConnection) -> bool:
    start = connection.random.choice(
        (
            head(200, [_JSON]),
            head(200, [_JSON, ("Content-Length", "99999999999")]),
            head(200, [_JSON, ("Transfer-Encoding", "chunked")]) + b"fffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nX-Long: ",
        )
    )
    connection.send(start)
    for _ in range(_MOST_ENDLESS // len(_PIECE)):
        connection.send(_PIECE)
    return False


def _bomb(connection: FaultConnection) -> bool:
    compressed = gzip.compress(bytes(2**26), 9)
    connection.send(sized_response(200, compressed, [("Content-Encoding", "gzip")]))
    return True


def _bad_gzip(connection: FaultConnection) -> bool:
    connection.send(sized_response(200, b"\x1f\x8b" + connection.random.randbytes(50), [("Content-Encoding", "gzip")]))
    return True


# A complete response that does not say whether the job was created, or a refusal.


def _no_id(connection: FaultConnection) -> bool:
    body: Any = json.loads(connection.response.body) if connection.response.body else {}
    body = {name: value for name, value in body.items() if name != "id"} | connection.random.choice(
        ({}, {"id": ""}, {"id": None}, {"id": 7}, {"id": ["x"]})
    )
    connection.send(sized_response(200, json.dumps(body).encode()))
    return True


def _not_json(connection: FaultConnection) -> bool:
    body = connection.random.choice(
        (b"", b"accepted", b"[]", b'"id"', b"null", b'{"id": "x"', b"\xff\xfe\x00", b"[" * 5000)
    )
    connection.send(sized_response(connection.random.choice((200, 200, 201, 202)), body))
    return True


def _no_content(connection: FaultConnection) -> bool:
    connection.send(head(connection.random.choice((204, 205)), [("Content-Length", "0")]))
    return True


def _known_id(connection: FaultConnection) -> bool:
    if not connection.known_ids:
        return _no_id(connection)
    body: dict[str, Any] = json.loads(connection.response.body) if connection.response.body else {}
    connection.send(
        sized_response(200, json.dumps(body | {"id": connection.random.choice(connection.known_ids)}).encode())
    )
    return True


def _status_fault(*statuses: int, location: bool = False) -> Play:
    def play(connection: FaultConnection) -> bool:
        status = connection.random.choice(statuses)
        headers = [("Location", "https://elsewhere.example/")] if location else []
        if status in (204, 304):
            connection.send(head(status, headers))
        else:
            connection.send(_error(connection, status, headers))
        return True

    return play


def _switching(connection: FaultConnection) -> bool:
    connection.send(head(101, [("Upgrade", "websocket"), ("Connection", "Upgrade")]))
    connection.wait_until_gone()
    return False


def _interim_only(connection: FaultConnection) -> bool:
    for _ in range(30):
        connection.send(head(connection.random.choice((100, 102, 103))))
    connection.wait_until_gone()
    return False


def _throttled(connection: FaultConnection) -> bool:
    retry_after = connection.random.choice(
        (None, "0", "00", "-1", "soon", "", "1e3", "0x10", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Foo 2026 25:00")
    )
    absurd = ("301", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT")
    if connection.random.random() < 0.1:
        retry_after = connection.random.choice(absurd)
    connection.send(
        _error(
            connection,
            connection.random.choice((425, 429)),
            [] if retry_after is None else [("Retry-After", retry_after)],
        )
    )
    return True


def _unavailable(connection: FaultConnection) -> bool:
    retry_after = connection.random.choice((None, "0", "1", "9" * 30, "soon"))
    connection.send(_error(connection, 503, [] if retry_after is None else [("Retry-After", retry_after)]))
    return True


# A complete response in an unusual form: the job is created, and the client must recognize that.


def _val_errors(connection: FaultConnection) -> bool:
    errors = connection.random.choice((["bad geometry"], [{"code": 1}], "all of it", [None]))
    connection.send(
        sized_response(200, json.dumps(json.loads(connection.response.body) | {"val_errors": errors}).encode())
    )
    return True


def _strange_json(connection: FaultConnection) -> bool:
    object_ = connection.response.body.rstrip()[:-1]
    more = connection.random.choice(
        (
            b'"cost": NaN',
            b'"cost": 123456789012345678901234567890',
            b'"x": "\\ud800"',
            b'"x": ' + b"[" * 900 + b"]" * 900,
        )
    )
    connection.send(sized_response(200, object_ + b", " + more + b"}"))
    return True


def _chunked(connection: FaultConnection) -> bool:
    body = connection.response.body
    cut = connection.random.randrange(1, len(body))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:cut], body[cut:]))
    connection.send(head(200, [_JSON, ("Transfer-Encoding", "chunked")]) + chunks + b"0\r\n\r\n")
    return True


def _compressed(connection: FaultConnection) -> bool:
    coding = connection.random.choice(("gzip", "deflate"))
    compressed = (
        gzip.compress(connection.response.body) if coding == "gzip" else zlib.compress(connection.response.body)
    )
    connection.send(sized_response(200, compressed, [("Content-Encoding", coding)]))
    return True


def _interim_first(connection: FaultConnection) -> bool:
    for _ in range(connection.random.randint(1, 5)):
        connection.send(head(connection.random.choice((100, 102, 103)), [("Link", "</a>; rel=preload")]))
    connection.send(sized_response(200, connection.response.body))
    return True


def _bytes_after(connection: FaultConnection) -> bool:
    more = sized_response(200, b'{"id": "nobody asked for this"}')
    connection.send(
        sized_response(200, connection.response.body) + connection.random.choice((more, b"x", b"\r\n\r\n", more[:30]))
    )
    return True


def _idle_close(connection: FaultConnection) -> bool:
    """A complete response that promises to keep the connection alive, and then closes it."""
    connection.send(sized_response(200, connection.response.body, [("Connection", "keep-alive")]))
    return False


def _until_close(connection: FaultConnection) -> bool:
    connection.send(head(200, [_JSON, ("Connection", "close")]) + connection.response.body)
    return False


def _other_success(connection: FaultConnection) -> bool:
    connection.send(sized_response(connection.random.choice((201, 202, 203, 206, 299)), connection.response.body))
    return True


_EITHER = (False, True)  # the server may or may not have created the job
_REJECTED = (400, 402, 404, 405, 406, 410, 411, 413, 414, 415, 417, 418, 421, 422, 423, 424, 426, 428, 431, 451, 499)

POST_FAULTS: tuple[Fault, ...] = (
    Fault("reset unread", _reset, unread=True),
    Fault("closed unread", _close, unread=True),
    Fault("reset", _reset, _EITHER),
    Fault("closed", _close, _EITHER),
    Fault("head cut off", _truncated_head, _EITHER),
    Fault("body cut off", _truncated_body, _EITHER),
    Fault("garbage", _garbage, _EITHER),
    Fault("stalls", _never_respond, _EITHER),
    Fault("created late", _create_late, late=True),
    Fault("drips", _send_slowly, _EITHER),
    Fault("endless", _endless, _EITHER),
    Fault("gzip bomb", _bomb, _EITHER),
    Fault("broken gzip", _bad_gzip, _EITHER),
    Fault("200 without id", _no_id, _EITHER),
    Fault("200 not JSON", _not_json, _EITHER),
    Fault("200 with a known id", _known_id, _EITHER),
    Fault("204", _no_content, _EITHER),
    Fault("101", _switching, _EITHER),
    Fault("1xx only", _interim_only, _EITHER),
    Fault("301/302/307/308", _status_fault(301, 302, 307, 308, location=True)),
    Fault("303", _status_fault(303, location=True), _EITHER),
    Fault("300/304/306", _status_fault(300, 304, 306), _EITHER),
    Fault("401", _status_fault(401)),
    Fault("403", _status_fault(403)),
    Fault("other 4xx", _status_fault(*_REJECTED)),
    Fault("408", _status_fault(408), _EITHER),
    Fault("409", _status_fault(409), _EITHER),
    Fault("425/429", _throttled),
    Fault("503", _unavailable, _EITHER),
    Fault("other 5xx", _status_fault(500, 501, 502, 504, 505, 507, 511, 520, 524, 599), _EITHER),
    Fault("6xx/9xx", _status_fault(600, 999), _EITHER),
    Fault("val_errors", _val_errors, (True,)),
    Fault("strange JSON", _strange_json, (True,)),
    Fault("chunked", _chunked, (True,)),
    Fault("compressed", _compressed, (True,)),
    Fault("1xx first", _interim_first, (True,)),
    Fault("bytes after", _bytes_after, (True,)),
    Fault("closed idle", _idle_close, (True,)),
    Fault("closed at the end", _until_close, (True,)),
    Fault("201/202/299", _other_success, (True,)),
)

# Faults of GET requests. A complete but wrong list of jobs is not among them: no client could detect it.
GET_FAULTS: tuple[Fault, ...] = (
    Fault("reset unread", _reset, unread=True),
    Fault("reset", _reset),
    Fault("closed", _close),
    Fault("head cut off", _truncated_head),
    Fault("body cut off", _truncated_body),
    Fault("garbage", _garbage),
    Fault("stalls", _never_respond),
    Fault("endless", _endless),
    Fault("200 not JSON", _not_json),
    Fault("301/302/307/308", _status_fault(301, 302, 307, 308, location=True)),
    Fault("401", _status_fault(401)),
    Fault("404", _status_fault(404)),
    Fault("425/429", _throttled),
    Fault("5xx", _status_fault(500, 502, 503, 504)),
    Fault("1xx first", _interim_first),
    Fault("compressed", _compressed),
    Fault("chunked", _chunked),
)
