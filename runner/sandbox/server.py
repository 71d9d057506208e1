"""The sandbox's sockets: listens on 127.0.0.1 with one thread per connection, and plays the faults."""

from __future__ import annotations

import contextlib
import os
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

_IDLE_TIMEOUT = 60.0  # seconds without a byte before a connection is closed
_CLOSE_TIMEOUT = 1.0  # seconds that requests in flight have when the sandbox closes
_DRAIN_TIMEOUT = 1.0  # seconds without a byte before a rejected client is disconnected
_MAX_DRAINED = 4 * 1024 * 1024
_RETRY_DELAY = 0.05  # seconds before accepting again when there is no file descriptor or thread left
_POLL_INTERVAL = 0.5  # seconds before a blocked accept() notices that the sandbox closes, where nothing wakes it

# A gateway's error page is not in the API's format.
_BAD_GATEWAY = http.Response(
    HTTPStatus.BAD_GATEWAY, b"<html><body><h1>502 Bad Gateway</h1></body></html>\n", content_type="text/html"
)

# Linger for 0 seconds: closing discards unsent data and resets the connection.
_RESET = struct.pack("ii", 1, 0)


class Sandbox:
    """Serves a backend on loopback while its context lasts. The backend stays open afterwards.

    `key` is the accepted API key. Only POSTs meet `faults`; the same `seed` and order of POSTs give the same faults.
    `port` 0 selects any free port, which the attribute `port` then has. `log` is called with a line for each request,
    from the connection's thread; lines never contain headers or queries.

    Raises:
        UsageError: the shares of the faults sum to more than 1.
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
        self._sampler = FaultSampler(check_shares(faults), seed)
        self.port = port
        self._log = log or (lambda _line: None)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, socket.socket] = {}

    def __enter__(self) -> Self:
        """Listen, and start serving.

        Raises:
            RefusedError: the sandbox cannot listen on the port.
        """
        self._listener = _listen(self.port)
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept_connections, name="sandbox-accept", daemon=True)
        try:
            self._acceptor.start()
        except RuntimeError:
            self._listener.close()
            raise ThreadLimitError from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Respond to requests in flight, then end every thread and close every socket."""
        self._closing.set()
        with contextlib.suppress(OSError):  # not connected, as macOS says of a listening socket
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept() on Linux
        self._acceptor.join()
        self._listener.close()
        self._shut_down_connections(socket.SHUT_RD, time.monotonic() + _CLOSE_TIMEOUT)
        self._shut_down_connections(socket.SHUT_RDWR, None)

    @property
    def base_url(self) -> str:
        """The API's base URL, without a trailing slash."""
        return f"http://{_HOST}:{self.port}"

    def _accept_connections(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # there is no file descriptor left until a connection ends, or the client has gone
                self._closing.wait(_RETRY_DELAY)
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="sandbox-connection", daemon=True)
            with self._lock:
                self._connections[thread] = connection
            try:
                thread.start()
            except RuntimeError:  # there is no thread left
                self._close_connection(thread)
                self._closing.wait(_RETRY_DELAY)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # the client has gone, or was idle for too long
                connection.settimeout(_IDLE_TIMEOUT)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                reader = http.RequestReader(connection.recv)
                while not self._closing.is_set() and self._serve_request(connection, reader):
                    pass
        finally:
            self._close_connection(threading.current_thread())

    def _close_connection(self, thread: threading.Thread) -> None:
        """Close a connection, under the lock so that no other thread shuts down a reused file descriptor."""
        with self._lock:
            self._connections.pop(thread).close()

    def _serve_request(self, connection: socket.socket, reader: http.RequestReader) -> bool:
        """Serve one request. Returns whether the connection can serve another."""
        try:
            request = reader.read()
        except http.HttpError as error:
            self._reject(connection, error)
            return False
        if request is None:
            return False
        faults = self._sampler.sample() if request.method == "POST" else {}
        response = self._respond(request, faults)
        kinds = ", ".join(faults)
        if "reset" in faults:
            self._log_request(request, kinds)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            return False
        self._log_request(request, f"{response.status} ({kinds})" if kinds else str(response.status))
        connection.sendall(self._render(response, close=not request.keep_alive, head_only=request.method == "HEAD"))
        return request.keep_alive

    def _respond(self, request: http.Request, faults: Mapping[FaultKind, Fault]) -> http.Response:
        if rate_limit := faults.get("rate-limit"):
            headers = {"Retry-After": f"{rate_limit.seconds:.0f}"}
            return handlers.error_response(HTTPStatus.TOO_MANY_REQUESTS, "too many requests", headers=headers)
        response = handlers.handle(self.backend, self._key, request, job_fails="failure" in faults)
        if slow := faults.get("slow"):
            self._closing.wait(slow.seconds)
        return _BAD_GATEWAY if "bad-gateway" in faults else response

    def _reject(self, connection: socket.socket, error: http.HttpError) -> None:
        """Respond to an invalid request. Closing before the client has finished sending would discard the response."""
        self._log(f"- - {error.status}")
        response = handlers.error_response(error.status, error.message)
        connection.sendall(self._render(response, close=True, head_only=False))
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_DRAIN_TIMEOUT)
        drained = 0
        while drained < _MAX_DRAINED and (data := connection.recv(65536)):
            drained += len(data)

    def _render(self, response: http.Response, *, close: bool, head_only: bool) -> bytes:
        return http.render_response(
            response, date=self.backend.now(), request_id=str(uuid.uuid4()), close=close, head_only=head_only
        )

    def _log_request(self, request: http.Request, result: str) -> None:
        self._log(f"{request.method} {request.path} {result}")

    def _shut_down_connections(self, how: int, deadline: float | None) -> None:
        """Shut down every connection and wait for its thread until `deadline` (None: without a limit)."""
        with self._lock:
            threads = list(self._connections)
            for connection in self._connections.values():
                with contextlib.suppress(OSError):  # the client has already closed it
                    connection.shutdown(how)
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))


def _listen(port: int) -> socket.socket:
    try:
        listener = socket.create_server((_HOST, port), backlog=_BACKLOG)
    except OSError as error:
        raise RefusedError(
            f"the sandbox cannot listen on {_HOST}:{port}: {os.strerror(error.errno or 0)}",
            "Choose another port with --port, or omit --port to use any free one.",
        ) from error
    listener.settimeout(_POLL_INTERVAL)
    return listener
