"""Every way in which a server may misbehave to one request, as the bytes that it sends, and whether the job exists.

The table of DESIGN, section 4, from the other side. Nothing here decides which request meets what: that is the dice of
faults_server.py.
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
_MOST_ENDLESS = 2**28  # bytes: a client that takes all of them has no bound
_RESET = struct.pack("ii", 1, 0)

_JSON = ("Content-Type", "application/json")
Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class FaultConnection:
    """One connection on which one request is being answered.

    `answer` is the honest answer to it: to a POST with the job's object where a job was created, and empty else.
    `create` creates a job now. `known` are ids of jobs that the client has on record.
    """

    sock: socket.socket
    random: random.Random
    server: Sandbox
    response: Response
    create: Callable[[], object]
    known_ids: Sequence[str]

    def send(self, data: bytes) -> None:
        """Send it. Raises OSError when the client is gone."""
        self.sock.sendall(data)

    def wait_until_gone(self) -> None:
        """Wait until the client has closed the connection, or died."""
        self.sock.settimeout(None)
        with suppress(OSError):
            while self.sock.recv(2**16):
                pass

    def is_gone(self, seconds: float) -> bool:
        """Whether the client closes the connection within so many seconds."""
        return bool(select.select([self.sock], [], [], seconds)[0])


Play = Callable[[FaultConnection], bool]  # plays it, and says whether the connection may carry another request


@dataclass(frozen=True)
class Fault:
    """One way to misbehave.

    `creates` are the truths that it may hide: whether the job is created before it. `unread`: the request is not
    read. `late`: it creates the job after the client has given up.
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
    """An answer whose length is told."""
    return head(status, [_JSON, *headers, ("Content-Length", str(len(body)))]) + body


def _error(line: FaultConnection, status: int, headers: Headers = ()) -> bytes:
    forms: tuple[bytes, ...] = (
        b"",
        b"<html><h1>A gateway</h1></html>",
        json.dumps({"error": {"code": "said_so", "message": "no", "details": None}}).encode(),
        json.dumps({"error": "no"}).encode(),
    )
    date = ("Date", format_datetime(line.server.backend.now(), usegmt=True))
    return sized_response(status, line.random.choice(forms), [date, *headers])


# No answer, or no whole one.


def _reset(line: FaultConnection) -> bool:
    line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return False


def _close(_line: FaultConnection) -> bool:
    return False


def _cut_head(line: FaultConnection) -> bool:
    whole = head(200, [_JSON, ("Content-Length", "500")])
    line.send(whole[: line.random.randrange(1, len(whole) - 1)])
    return False


def _cut_body(line: FaultConnection) -> bool:
    body = line.response.body or b'{"id": "cut"}'
    cut = body[: line.random.randrange(len(body))]
    match line.random.randrange(3):
        case 0:
            line.send(head(200, [_JSON, ("Content-Length", str(len(body)))]) + cut)
        case 1:
            line.send(head(200, [_JSON, ("Transfer-Encoding", "chunked")]) + b"%x\r\n%b" % (len(body), cut))
        case _:
            line.send(head(200, [_JSON, ("Content-Length", str(len(body)))]) + cut)
            return _reset(line)
    return False


def _garbage(line: FaultConnection) -> bool:
    line.send(
        line.random.choice(
            (
                line.random.randbytes(300),
                b"\x15\x03\x01\x00\x02\x02\x28",  # TLS's own way to say that this is not TLS
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


def _stall(line: FaultConnection) -> bool:
    line.wait_until_gone()
    return False


def _late(line: FaultConnection) -> bool:
    line.wait_until_gone()
    line.create()
    return False


def _drip(line: FaultConnection) -> bool:
    for byte in sized_response(200, line.response.body or b'{"id": "dripped"}'):
        if line.is_gone(_DRIP_INTERVAL):
            return False
        line.send(bytes([byte]))
    return False


def _endless(line: FaultConnection) -> bool:
    start = line.random.choice(
        (
            head(200, [_JSON]),
            head(200, [_JSON, ("Content-Length", "99999999999")]),
            head(200, [_JSON, ("Transfer-Encoding", "chunked")]) + b"fffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nX-Long: ",
        )
    )
    line.send(start)
    for _ in range(_MOST_ENDLESS // len(_PIECE)):
        line.send(_PIECE)
    return False


def _bomb(line: FaultConnection) -> bool:
    packed = gzip.compress(bytes(2**26), 9)
    line.send(sized_response(200, packed, [("Content-Encoding", "gzip")]))
    return True


def _bad_gzip(line: FaultConnection) -> bool:
    line.send(sized_response(200, b"\x1f\x8b" + line.random.randbytes(50), [("Content-Encoding", "gzip")]))
    return True


# A whole answer that is none.


def _no_id(line: FaultConnection) -> bool:
    body: Any = json.loads(line.response.body) if line.response.body else {}
    body = {name: value for name, value in body.items() if name != "id"} | line.random.choice(
        ({}, {"id": ""}, {"id": None}, {"id": 7}, {"id": ["x"]})
    )
    line.send(sized_response(200, json.dumps(body).encode()))
    return True


def _not_json(line: FaultConnection) -> bool:
    body = line.random.choice((b"", b"accepted", b"[]", b'"id"', b"null", b'{"id": "x"', b"\xff\xfe\x00", b"[" * 5000))
    line.send(sized_response(line.random.choice((200, 200, 201, 202)), body))
    return True


def _no_content(line: FaultConnection) -> bool:
    line.send(head(line.random.choice((204, 205)), [("Content-Length", "0")]))
    return True


def _known_id(line: FaultConnection) -> bool:
    if not line.known_ids:
        return _no_id(line)
    body: dict[str, Any] = json.loads(line.response.body) if line.response.body else {}
    line.send(sized_response(200, json.dumps(body | {"id": line.random.choice(line.known_ids)}).encode()))
    return True


def _status_fault(*statuses: int, location: bool = False) -> Play:
    def play(line: FaultConnection) -> bool:
        status = line.random.choice(statuses)
        headers = [("Location", "https://elsewhere.example/")] if location else []
        if status in (204, 304):
            line.send(head(status, headers))
        else:
            line.send(_error(line, status, headers))
        return True

    return play


def _switching(line: FaultConnection) -> bool:
    line.send(head(101, [("Upgrade", "websocket"), ("Connection", "Upgrade")]))
    line.wait_until_gone()
    return False


def _interim_only(line: FaultConnection) -> bool:
    for _ in range(30):
        line.send(head(line.random.choice((100, 102, 103))))
    line.wait_until_gone()
    return False


def _throttled(line: FaultConnection) -> bool:
    when = line.random.choice(
        (None, "0", "00", "-1", "soon", "", "1e3", "0x10", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Foo 2026 25:00")
    )
    absurd = ("301", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT")
    if line.random.random() < 0.1:
        when = line.random.choice(absurd)
    line.send(_error(line, line.random.choice((425, 429)), [] if when is None else [("Retry-After", when)]))
    return True


def _unavailable(line: FaultConnection) -> bool:
    when = line.random.choice((None, "0", "1", "9" * 30, "soon"))
    line.send(_error(line, 503, [] if when is None else [("Retry-After", when)]))
    return True


# A whole answer, said in an unusual way: the job is created, and the client is to see that.


def _val_errors(line: FaultConnection) -> bool:
    errors = line.random.choice((["bad geometry"], [{"code": 1}], "all of it", [None]))
    line.send(sized_response(200, json.dumps(json.loads(line.response.body) | {"val_errors": errors}).encode()))
    return True


def _strange_json(line: FaultConnection) -> bool:
    object_ = line.response.body.rstrip()[:-1]
    more = line.random.choice(
        (
            b'"cost": NaN',
            b'"cost": 123456789012345678901234567890',
            b'"x": "\\ud800"',
            b'"x": ' + b"[" * 900 + b"]" * 900,
        )
    )
    line.send(sized_response(200, object_ + b", " + more + b"}"))
    return True


def _chunked(line: FaultConnection) -> bool:
    body = line.response.body
    cut = line.random.randrange(1, len(body))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:cut], body[cut:]))
    line.send(head(200, [_JSON, ("Transfer-Encoding", "chunked")]) + chunks + b"0\r\n\r\n")
    return True


def _compressed(line: FaultConnection) -> bool:
    coding = line.random.choice(("gzip", "deflate"))
    packed = gzip.compress(line.response.body) if coding == "gzip" else zlib.compress(line.response.body)
    line.send(sized_response(200, packed, [("Content-Encoding", coding)]))
    return True


def _interim_first(line: FaultConnection) -> bool:
    for _ in range(line.random.randint(1, 5)):
        line.send(head(line.random.choice((100, 102, 103)), [("Link", "</a>; rel=preload")]))
    line.send(sized_response(200, line.response.body))
    return True


def _bytes_after(line: FaultConnection) -> bool:
    more = sized_response(200, b'{"id": "nobody asked for this"}')
    line.send(sized_response(200, line.response.body) + line.random.choice((more, b"x", b"\r\n\r\n", more[:30])))
    return True


def _idle_close(line: FaultConnection) -> bool:
    """A whole answer that promises to go on, and the end of the connection."""
    line.send(sized_response(200, line.response.body, [("Connection", "keep-alive")]))
    return False


def _to_the_end(line: FaultConnection) -> bool:
    line.send(head(200, [_JSON, ("Connection", "close")]) + line.response.body)
    return False


def _other_success(line: FaultConnection) -> bool:
    line.send(sized_response(line.random.choice((201, 202, 203, 206, 299)), line.response.body))
    return True


_EITHER = (False, True)  # the server may have created the job, or not
_REJECTED = (400, 402, 404, 405, 406, 410, 411, 413, 414, 415, 417, 418, 421, 422, 423, 424, 426, 428, 431, 451, 499)

POST_FAULTS: tuple[Fault, ...] = (
    Fault("reset unread", _reset, unread=True),
    Fault("closed unread", _close, unread=True),
    Fault("reset", _reset, _EITHER),
    Fault("closed", _close, _EITHER),
    Fault("head cut off", _cut_head, _EITHER),
    Fault("body cut off", _cut_body, _EITHER),
    Fault("garbage", _garbage, _EITHER),
    Fault("stalls", _stall, _EITHER),
    Fault("created late", _late, late=True),
    Fault("drips", _drip, _EITHER),
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
    Fault("closed at the end", _to_the_end, (True,)),
    Fault("201/202/299", _other_success, (True,)),
)

# What a question may meet. A list that is whole and wrong is none of them: nobody could see that.
GET_FAULTS: tuple[Fault, ...] = (
    Fault("reset unread", _reset, unread=True),
    Fault("reset", _reset),
    Fault("closed", _close),
    Fault("head cut off", _cut_head),
    Fault("body cut off", _cut_body),
    Fault("garbage", _garbage),
    Fault("stalls", _stall),
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
