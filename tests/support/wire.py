"""A server with scripted bytes: whatever a network, a gateway or a server may do to a request.

A `WireServer` records every request that it reads and every job that it creates, and plays the next script on that
connection. Tests rely on its log, not on what the client reports.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Protocol, Self
from urllib.parse import parse_qs, unquote, urlsplit

TIMEOUT = 30.0  # seconds to wait for something that must happen


@dataclass(frozen=True)
class Request:
    """A received request. `at` is a monotonic time, `connection` counts from 1, header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    at: float
    connection: int
    body: bytes = b""

    @property
    def workflow(self) -> str:
        return unquote(urlsplit(self.target).path.split("/")[3])

    @property
    def project(self) -> str:
        return parse_qs(urlsplit(self.target).query)["project_id"][0]


class Script(Protocol):
    """What the server does on a connection. `creates`: it creates the job; `early`: it leaves the request unread."""

    @property
    def creates(self) -> bool: ...

    @property
    def early(self) -> bool: ...

    def play(self, line: Connection) -> None:
        """Run the script; the connection stays open afterwards unless `line.end` was called."""


@dataclass(frozen=True)
class Reply:
    """Sends `data` at once."""

    data: bytes
    creates: bool = False
    end: bool = False
    early: ClassVar[bool] = False

    def play(self, line: Connection) -> None:
        line.send(self.data)
        if self.end:
            line.end()


@dataclass(frozen=True)
class Truncated:
    """Sends `data`, then closes the connection."""

    data: bytes
    creates: bool = False
    early: ClassVar[bool] = False

    def play(self, line: Connection) -> None:
        line.send(self.data)
        line.end()


@dataclass(frozen=True)
class Close:
    """Closes the connection cleanly without a response."""

    creates: bool = False
    early: bool = False

    def play(self, line: Connection) -> None:
        line.end()


@dataclass(frozen=True)
class Reset:
    """Resets the connection, before or after reading the request."""

    early: bool = False
    creates: bool = False
    data: bytes = b""

    def play(self, line: Connection) -> None:
        line.send(self.data)
        line.reset()


@dataclass(frozen=True)
class Stall:
    """Sends nothing until the test sets the event, then plays the next script."""

    until: threading.Event
    then: Script | None = None
    early: bool = False
    before: bytes = b""

    @property
    def creates(self) -> bool:
        return self.then is not None and self.then.creates

    def play(self, line: Connection) -> None:
        line.send(self.before)
        line.wait_for(self.until)
        if self.then is None:
            line.end()
        else:
            self.then.play(line)


@dataclass(frozen=True)
class Drip:
    """Sends `head` at once, then one byte of `data` per interval."""

    head: bytes
    data: bytes
    interval: float
    creates: bool = False
    early: ClassVar[bool] = False

    def play(self, line: Connection) -> None:
        line.send(self.head)
        for byte in self.data:
            line.pause(self.interval)
            line.send(bytes([byte]))


@dataclass(frozen=True)
class Endless:
    """Sends `head`, then `chunk` repeatedly (`times`), or until the client disconnects. The server counts the bytes."""

    head: bytes
    chunk: bytes
    times: int
    creates: bool = False
    early: ClassVar[bool] = False

    @property
    def total_size(self) -> int:
        return len(self.head) + len(self.chunk) * self.times

    def play(self, line: Connection) -> None:
        line.send(self.head)
        for _ in range(self.times):
            line.send(self.chunk)


@dataclass(frozen=True)
class Tunnel:
    """Acts as a proxy after an accepted CONNECT: relays bytes to and from a local port."""

    port: int
    creates: ClassVar[bool] = False
    early: ClassVar[bool] = False

    def play(self, line: Connection) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT) as upstream, line.tracked(upstream):
            line.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _pump(line.sock, upstream)
        line.end()


def _pump(one: socket.socket, other: socket.socket) -> None:
    to = {one: other, other: one}
    while True:
        readable, _, _ = select.select(list(to), [], [], TIMEOUT)
        for source in readable:
            data = source.recv(65_536)
            if not data:
                return
            to[source].sendall(data)
        if not readable:
            return


class ConnectionGoneError(Exception):
    """The client has disconnected, or the server is closing."""


class Connection:
    """A connection, as scripts see it."""

    def __init__(self, sock: socket.socket, number: int, server: WireServer) -> None:
        self.sock = sock
        self.number = number
        self.open = True
        self._server = server
        self._buffer = b""

    def request(self) -> Request | None:
        """The next request, or None at the end."""
        with suppress(OSError):
            while b"\r\n\r\n" not in self._buffer:
                if not self._more():
                    return None
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            return self._read(head.decode("latin-1"))
        return None

    def _more(self) -> bool:
        data = self.sock.recv(65_536)
        self._buffer += data
        return bool(data)

    def _read(self, head: str) -> Request:
        at = time.monotonic()
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length and self._more():
            pass
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Request(method, target, headers, at, self.number, body)

    def peek(self) -> None:
        """Wait until a byte has arrived, and leave it unread."""
        select.select([self.sock], [], [], TIMEOUT)

    def send(self, data: bytes) -> None:
        """Send all of it, or raise ConnectionGoneError."""
        try:
            self.sock.sendall(data)
        except OSError:
            raise ConnectionGoneError from None
        self._server.count_sent(len(data))

    def wait_for(self, event: threading.Event) -> None:
        """Wait for the event, which closing the server also sets."""
        self._server.wait_for_event(event)

    def pause(self, seconds: float) -> None:
        """Sleep; raises ConnectionGoneError if the server closes meanwhile."""
        if self._server.closing.wait(seconds):
            raise ConnectionGoneError

    def tracked(self, sock: socket.socket) -> _TrackedSocket:
        """Shut down this socket, too, when the server closes."""
        return _TrackedSocket(self._server, sock)

    def end(self) -> None:
        """Close the connection cleanly."""
        self.open = False

    def reset(self) -> None:
        """Close the connection with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.open = False


class _TrackedSocket:
    def __init__(self, server: WireServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock

    def __enter__(self) -> None:
        self._server.track(self._sock)

    def __exit__(self, *_: object) -> None:
        self._server.untrack(self._sock)


@dataclass
class _Log:
    requests: list[Request] = field(default_factory=list)
    created: list[Request] = field(default_factory=list)
    connections: int = 0
    ended: int = 0  # closed connections
    untrusted: int = 0  # failed TLS handshakes
    sent: int = 0
    busy: int = 0  # requests read but not yet responded to
    most_busy: int = 0


class WireServer:
    """A server on loopback. It plays `scripts` in turn, then those that `choose` returns.

    Args:
        scripts: one for each request, or for each connection where a script is early.
        choose: returns the script of a request when `scripts` is exhausted; creates a job by default.
        tls: speak TLS with this context.
        greet: what to do on each connection before anything else, a TLS handshake too.
        family: `socket.AF_INET6` for `::1`.
    """

    def __init__(
        self,
        *scripts: Script,
        choose: Callable[[Request], Script] | None = None,
        tls: ssl.SSLContext | None = None,
        greet: Callable[[Connection], None] | None = None,
        family: socket.AddressFamily = socket.AF_INET,
        port: int = 0,
    ) -> None:
        self.closing = threading.Event()
        self.log = _Log()
        self._scripts: list[Script] = list(scripts)
        self._choose = choose or (lambda request: created(f"job-of-{request.project}"))
        self._tls = tls
        self._greet = greet
        self._changed = threading.Condition()
        self._open_sockets: set[socket.socket] = set()
        self._events: set[threading.Event] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(
            ("::1" if family == socket.AF_INET6 else "127.0.0.1", port), family=family, backlog=128
        )
        self.port: int = self._listener.getsockname()[1]
        self._host = "[::1]" if family == socket.AF_INET6 else "127.0.0.1"

    @property
    def url(self) -> str:
        """The origin; over TLS by the name `localhost`."""
        return f"https://localhost:{self.port}" if self._tls else f"http://{self._host}:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """The received requests, in order."""
        with self._changed:
            return list(self.log.requests)

    @property
    def created(self) -> list[Request]:
        """The requests that created a job."""
        with self._changed:
            return list(self.log.created)

    def wait_for(self, *, what: Callable[[_Log], bool]) -> None:
        """Wait until the log satisfies `what`; fail after TIMEOUT."""
        with self._changed:
            assert self._changed.wait_for(lambda: what(self.log), TIMEOUT), self.log

    def wait_for_requests(self, count: int) -> None:
        """Wait until `count` requests have been received."""
        self.wait_for(what=lambda log: len(log.requests) >= count)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            for event in self._events:
                event.set()
            for sock in self._open_sockets:
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:  # the first one accepts connections, and starts no threads after it ends
            thread.join(TIMEOUT)
            assert not thread.is_alive()

    # Used by connections.

    def count_sent(self, size: int) -> None:
        """Count sent bytes."""
        with self._changed:
            self.log.sent += size
            self._changed.notify_all()

    def wait_for_event(self, event: threading.Event) -> None:
        """Wait for the event, which closing the server also sets."""
        with self._changed:
            self._events.add(event)
            if self.closing.is_set():
                event.set()
        event.wait()

    def track(self, sock: socket.socket) -> None:
        """Shut down this socket when the server closes."""
        with self._changed:
            self._open_sockets.add(sock)
            if self.closing.is_set():
                with suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def untrack(self, sock: socket.socket) -> None:
        """Forget a socket that is about to be closed."""
        with self._changed:
            self._open_sockets.discard(sock)

    # Threads.

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.log.connections += 1
                number = self.log.connections
                self._changed.notify_all()
            self._start(self._serve, sock, number)

    def _serve(self, plain: socket.socket, number: int) -> None:
        wrapped = self._wrap(plain)
        with wrapped as sock:
            self.track(sock)
            try:
                self._handle_connection(Connection(sock, number, self))
            except (ConnectionGoneError, OSError):
                pass
            finally:
                self.untrack(sock)
        with self._changed:
            self.log.ended += 1
            self._changed.notify_all()

    def _wrap(self, plain: socket.socket) -> socket.socket:
        if self._tls is None:
            return plain
        return self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)

    def _handle_connection(self, line: Connection) -> None:
        if self._greet is not None:
            self._greet(line)
        early = self._next_early_script()
        if early is not None:
            line.peek()
            early.play(line)
            return
        if isinstance(line.sock, ssl.SSLSocket):
            self._handshake(line.sock)
        while line.open and (request := line.request()) is not None:
            script = self._next_script(request)
            try:
                script.play(line)
            finally:
                with self._changed:
                    self.log.busy -= 1
                    self._changed.notify_all()

    def _handshake(self, sock: ssl.SSLSocket) -> None:
        try:
            sock.do_handshake()
        except OSError:
            with self._changed:
                self.log.untrusted += 1
                self._changed.notify_all()
            raise

    def _next_early_script(self) -> Script | None:
        with self._changed:
            return self._scripts.pop(0) if self._scripts and self._scripts[0].early else None

    def _next_script(self, request: Request) -> Script:
        with self._changed:
            script = self._scripts.pop(0) if self._scripts else self._choose(request)
            self.log.requests.append(request)
            self.log.busy += 1
            self.log.most_busy = max(self.log.most_busy, self.log.busy)
            if script.creates:
                self.log.created.append(request)
            self._changed.notify_all()
        return script


def reply(
    status: int,
    body: bytes = b"{}",
    headers: Iterable[tuple[str, str]] = (),
    *,
    reason: str = "Said So",
    framing: str = "length",
    creates: bool = False,
) -> Reply:
    """A response as from the API. `framing`: by `length`, `chunked`, or by the `close` of the connection."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    lines += {"length": [f"Content-Length: {len(body)}"], "chunked": ["Transfer-Encoding: chunked"], "close": []}[
        framing
    ]
    data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return Reply(data + (chunked(body) if framing == "chunked" else body), creates, end=framing == "close")


def created(job_id: str, framing: str = "length") -> Reply:
    """The response to a POST that created a job."""
    body = json.dumps({"id": job_id, "status": "accepted"}).encode()
    return reply(200, body, [("Content-Type", "application/json")], framing=framing, creates=True)


def chunked(*pieces: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    """A body in chunked encoding."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + last


@contextmanager
def refusing_port() -> Iterator[int]:
    """Reserve a port on loopback, which refuses connections unless a server of the test listens on it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, so that both can bind it
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """A port with a full connection queue, so that connecting to it hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, _fill(listener.getsockname()[1]):
        yield listener.getsockname()[1]


@contextmanager
def _fill(port: int) -> Iterator[None]:
    socks = [socket.socket() for _ in range(4)]
    try:
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        yield
    finally:
        for sock in socks:
            sock.close()
