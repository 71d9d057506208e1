"""A small HTTP server on loopback, run as a program: it responds to each POST with a new job, after a delay.

It accepts requests without a body, as sent by the programs of the benchmark. `GET /bench/status` returns its counts,
`GET /bench/restart` resets them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import selectors
import sys
from pathlib import Path
from typing import cast

_END = b"\r\n\r\n"


class _Service:
    """Responds to requests and counts them."""

    def __init__(self, before: bytes, after: bytes, delay: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay = delay
        self._prefix = secrets.token_hex(8).encode()
        size = len(before) + 32 + len(after)
        self._before = _head("200 OK", size) + before
        self._after = after
        self._made = 0
        self._posts = 0
        self._first = self._last = self._held = 0.0  # seconds of the loop's clock

    def take(self, request: bytes, transport: asyncio.Transport) -> None:
        """Respond to a request, given without its final empty line."""
        if request.startswith(b"POST /v0/workflows/"):
            now = self._loop.time()
            self._first = self._first or now
            if self._delay:
                self._loop.call_at(now + self._delay, self._respond, transport, now)
            else:
                self._respond(transport, now)
        elif request.startswith(b"GET /bench/"):
            if request.startswith(b"GET /bench/restart "):
                self._restart()
            body = json.dumps(self._counts()).encode()
            transport.write(_head("200 OK", len(body)) + body)
        else:
            transport.write(_head("400 Bad Request", 0))
            transport.close()

    def _respond(self, transport: asyncio.Transport, received_at: float) -> None:
        self._made += 1
        self._posts += 1
        transport.write(b"%b%b%016x%b" % (self._before, self._prefix, self._made, self._after))
        self._last = self._loop.time()
        self._held += self._last - received_at

    def _restart(self) -> None:
        self._posts = 0
        self._first = self._last = self._held = 0.0

    def _counts(self) -> dict[str, float]:
        return {
            "posts": self._posts,
            "span": self._last - self._first,
            "held": self._held / self._posts if self._posts else 0.0,
        }


class _Connection(asyncio.Protocol):
    """A connection: splits the received data into requests."""

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *requests, self._buffer = (self._buffer + data).split(_END)
        for request in requests:
            self._service.take(request, self._transport)


def _head(status: str, size: int) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode()


async def _serve(before: bytes, after: bytes, delay: float) -> None:
    service = _Service(before, after, delay)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(service), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Print the port, and serve until the process is terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="file with the text before the id")
    parser.add_argument("after", type=Path, help="file with the text after it")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    options = parser.parse_args()
    # epoll rounds timeouts up to milliseconds, so that 50 ms become 51 ms; select has microseconds.
    selector = selectors.SelectSelector() if options.delay else selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(_serve(options.before.read_bytes(), options.after.read_bytes(), options.delay))


if __name__ == "__main__":
    main()
