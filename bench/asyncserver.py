"""A small HTTP server on loopback, run as a program: answers each POST with a job that has a new id, after a delay.

It takes what the programs of this benchmark send, requests without a body, and says what it saw: `GET /bench/status`
tells, `GET /bench/restart` begins anew.
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
    """Answers requests, and counts them."""

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
        """Answer one request, given without the empty line that ends it."""
        if request.startswith(b"POST /v0/workflows/"):
            now = self._loop.time()
            self._first = self._first or now
            if self._delay:
                self._loop.call_at(now + self._delay, self._answer, transport, now)
            else:
                self._answer(transport, now)
        elif request.startswith(b"GET /bench/"):
            if request.startswith(b"GET /bench/restart "):
                self._restart()
            body = json.dumps(self._tally()).encode()
            transport.write(_head("200 OK", len(body)) + body)
        else:
            transport.write(_head("400 Bad Request", 0))
            transport.close()

    def _answer(self, transport: asyncio.Transport, came: float) -> None:
        self._made += 1
        self._posts += 1
        transport.write(b"%b%b%016x%b" % (self._before, self._prefix, self._made, self._after))
        self._last = self._loop.time()
        self._held += self._last - came

    def _restart(self) -> None:
        self._posts = 0
        self._first = self._last = self._held = 0.0

    def _tally(self) -> dict[str, float]:
        return {
            "posts": self._posts,
            "span": self._last - self._first,
            "held": self._held / self._posts if self._posts else 0.0,
        }


class _Connection(asyncio.Protocol):
    """One connection: cuts what comes into requests."""

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *requests, self._rest = (self._rest + data).split(_END)
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
    """Print the port, and serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="file with what stands before the id")
    parser.add_argument("after", type=Path, help="file with what stands after it")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    given = parser.parse_args()
    # epoll counts in milliseconds and rounds up, which would make 51 ms of 50; select counts in microseconds.
    selector = selectors.SelectSelector() if given.delay else selectors.DefaultSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(_serve(given.before.read_bytes(), given.after.read_bytes(), given.delay))


if __name__ == "__main__":
    main()
