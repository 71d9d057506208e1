"""The sandbox's sockets: listens on 127.0.0.1, a thread a connection, and plays the faults that were asked for."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Self

from runner.core.errors import RefusedError, ThreadLimitError
from runner.sandbox import handlers, http
from runner.sandbox.backend import Backend
from runner.sandbox.faults import Fault, FaultKind, FaultSampler, check_shares

_HOST = "127.0.0.1"
_BACKLOG = 512

_IDLE = 60.0  # seconds without a byte after which a connection is given up
_GRACE = 1.0  # seconds that requests in flight have when the sandbox closes
_LINGER = 1.0  # seconds without a byte that a refused client has to stop sending
_MOST_DRAINED = 4 * 1024 * 1024
_PAUSE = 0.05  # seconds before accepting is tried again when there is no file descriptor or thread left

# A gateway that lost what is behind it doesn't speak the API's language.
_BAD_GATEWAY = http.Response(
    HTTPStatus.BAD_GATEWAY, b"<html><body><h1>502 Bad Gateway</h1></body></html>\n", content_type="text/html"
)

# Linger for 0 seconds: closing throws away what was not sent, and the other side gets a reset.
_RESET = struct.pack("ii", 1, 0)


class Sandbox:
    """Serves a world on loopback while its `with` block lasts.

    `key` is the one that is accepted. `faults` meet POSTs only; the same `seed` and the same order of POSTs give the
    same faults. `port` 0 takes any free one. `log` is told each answer in a line, from the connection's thread; it
    never gets a header or a query. The world stays open when the sandbox closes.

    Raises:
        UsageError: the faults' shares are more than the whole.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        key: str = "sandbox-key",
        faults: Sequence[Fault] = (),
        seed: int = 0,
        port: int = 0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.backend = backend
        self._key = key
        self._dice = FaultSampler(check_shares(faults), seed)
        self._port = port
        self._log = log
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}

    def __enter__(self) -> Self:
        """Listen and start to serve.

        Raises:
            RefusedError: the port cannot be listened on.
        """
        with contextlib.ExitStack() as opened:
            self._listener = opened.enter_context(_listen(self._port))
            self._waker, wakened = (opened.enter_context(end) for end in socket.socketpair())
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(wakened, selectors.EVENT_READ)
            self._port = self._listener.getsockname()[1]
            self._acceptor = threading.Thread(target=self._accept, name="sandbox-accept", daemon=True)
            try:
                self._acceptor.start()
            except RuntimeError:
                raise ThreadLimitError from None
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop: requests in flight are answered, then every thread and socket is gone."""
        self._closing.set()
        self._waker.close()
        self._acceptor.join()
        self._opened.close()
        self._end_connections(socket.SHUT_RD, time.monotonic() + _GRACE)
        self._end_connections(socket.SHUT_RDWR, None)

    @property
    def port(self) -> int:
        """The port that is listened on, once it is."""
        return self._port

    @property
    def base_url(self) -> str:
        """The API's address, without a slash at its end."""
        return f"http://{_HOST}:{self._port}"

    def _accept(self) -> None:
        while not self._closing.is_set():
            self._selector.select()
            self._accept_one()

    def _accept_one(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:  # woken to close, or the client is gone already
            return
        except OSError:  # no file descriptor left: some connection has to end first
            self._closing.wait(_PAUSE)
            return
        thread = threading.Thread(target=self._serve, args=(connection,), name="sandbox-connection", daemon=True)
        with self._lock:
            self._connections[thread] = connection
        try:
            thread.start()
        except RuntimeError:  # no thread left
            self._forget(thread)
            self._closing.wait(_PAUSE)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # the client went away, or was silent for too long
                connection.settimeout(_IDLE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                reader = http.RequestReader(connection.recv)
                while not self._closing.is_set() and self._exchange(connection, reader):
                    pass
        finally:
            self._forget(threading.current_thread())

    def _forget(self, thread: threading.Thread) -> None:
        """Close a connection, under the lock so that nobody shuts down a descriptor that is another's by then."""
        with self._lock:
            self._connections.pop(thread).close()

    def _exchange(self, connection: socket.socket, reader: http.RequestReader) -> bool:
        """Serve one request; whether the connection can serve another."""
        try:
            request = reader.read()
        except http.HttpError as error:
            self._turn_away(connection, error)
            return False
        if request is None:
            return False
        met = self._dice.sample() if request.method == "POST" else {}
        response = self._respond(request, met)
        kinds = ", ".join(met)
        if "reset" in met:
            self._tell(request, kinds)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            return False
        self._tell(request, f"{response.status}{f' ({kinds})' if kinds else ''}")
        connection.sendall(self._render(response, close=not request.keep_alive, head_only=request.method == "HEAD"))
        return request.keep_alive

    def _respond(self, request: http.Request, met: Mapping[FaultKind, Fault]) -> http.Response:
        if limit := met.get("rate-limit"):
            headers = {"Retry-After": f"{limit.seconds:.0f}"}
            return handlers.error_response(HTTPStatus.TOO_MANY_REQUESTS, "too many requests", headers=headers)
        response = handlers.handle(self.backend, self._key, request, job_fails="failure" in met)
        if slow := met.get("slow"):
            self._closing.wait(slow.seconds)
        return _BAD_GATEWAY if "bad-gateway" in met else response

    def _turn_away(self, connection: socket.socket, error: http.HttpError) -> None:
        """Answer what was no request, and let the client finish sending: closing at once would reset the answer."""
        self._note(f"- - {error.status}")
        connection.sendall(
            self._render(handlers.error_response(error.status, error.message), close=True, head_only=False)
        )
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_LINGER)
        drained = 0
        while drained < _MOST_DRAINED and (data := connection.recv(65536)):
            drained += len(data)

    def _render(self, response: http.Response, *, close: bool, head_only: bool) -> bytes:
        return http.render_response(
            response, date=self.backend.now(), request_id=str(uuid.uuid4()), close=close, head_only=head_only
        )

    def _tell(self, request: http.Request, ending: str) -> None:
        self._note(f"{request.method} {request.path} {ending}")

    def _note(self, line: str) -> None:
        if self._log is not None:
            self._log(line)

    def _end_connections(self, how: int, deadline: float | None) -> None:
        """Shut every connection down, one way or both, and wait for its thread until `deadline` (None: for ever)."""
        with self._lock:
            threads = list(self._connections)
            for connection in self._connections.values():
                with contextlib.suppress(OSError):  # the client was quicker
                    connection.shutdown(how)
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise RefusedError(
            f"the sandbox cannot listen on {_HOST}:{port}: {error.strerror}",
            "Take another port with --port, or none for any free one.",
        ) from error
    return listener
