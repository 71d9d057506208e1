"""One exchange: its deadline, the mark before the first byte, and how it is cut short."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from runner.client.exchange import AbortedError, Exchange


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Carrier:
    """A connection with one socket."""

    sock: Any


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_the_timeout_runs_from_the_start(clock: Clock) -> None:
    exchange = Exchange(30.0, clock)
    clock.now += 1000
    assert not exchange.is_overdue()
    exchange.start()
    assert exchange.started_at == 1100.0
    clock.now += 30
    assert not exchange.is_overdue()
    clock.now += 0.1
    assert exchange.is_overdue()


def test_the_first_write_is_marked_once(clock: Clock) -> None:
    exchange = Exchange(30.0, clock)
    exchange.start()
    assert exchange.written_at is None
    clock.now = 101.0
    exchange.begin_write(None)
    clock.now = 102.0
    exchange.begin_write(None)
    assert exchange.written_at == 101.0


def test_nothing_is_written_after_an_abort_and_the_first_cause_stays(clock: Clock) -> None:
    exchange = Exchange(30.0, clock)
    exchange.start()
    assert exchange.abort("interrupted") is False
    assert exchange.abort("timeout") is False
    with pytest.raises(AbortedError):
        exchange.begin_write(None)
    assert (exchange.written_at, exchange.aborted_by) == (None, "interrupted")


def test_an_abort_reports_that_bytes_may_have_been_written(clock: Clock) -> None:
    exchange = Exchange(30.0, clock)
    exchange.start()
    exchange.begin_write(None)
    assert exchange.abort("interrupted") is True
    with pytest.raises(AbortedError):
        exchange.begin_write(None)


def test_an_overdue_exchange_writes_nothing(clock: Clock) -> None:
    exchange = Exchange(30.0, clock)
    exchange.start()
    clock.now += 31
    with pytest.raises(AbortedError):
        exchange.begin_write(None)
    assert (exchange.written_at, exchange.aborted_by) == (None, "timeout")


def test_a_concurrent_abort_and_write_agree_on_whether_bytes_may_have_been_written() -> None:
    def write(exchange: Exchange, barrier: threading.Barrier) -> bool:
        barrier.wait()
        try:
            exchange.begin_write(None)
        except AbortedError:
            return False
        return True

    with ThreadPoolExecutor(1) as pool:
        for _ in range(500):
            exchange, barrier = Exchange(30.0), threading.Barrier(2)
            exchange.start()
            writing = pool.submit(write, exchange, barrier)
            barrier.wait()
            cut = exchange.abort("interrupted")
            assert writing.result() is cut is (exchange.written_at is not None)


def test_an_abort_ends_a_read_in_another_thread(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    exchange = Exchange(30.0)
    exchange.connection = Carrier(ours)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(ours.recv, 1)
        exchange.abort("timeout")
        assert reading.result(timeout=10) == b""
    assert theirs.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        ours.send(b"x")


def test_a_socket_within_a_socket_is_shut_down(pair: tuple[socket.socket, socket.socket]) -> None:
    @dataclass
    class Within:  # as urllib3.util.ssltransport.SSLTransport has it
        socket: socket.socket

    exchange = Exchange(30.0)
    exchange.connection = Carrier(Within(pair[0]))
    exchange.abort("timeout")
    assert pair[1].recv(1) == b""


def test_an_abort_ignores_a_connection_that_is_missing_or_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    exchange = Exchange(30.0)
    for sock in (None, socket.socket(), pair[0]):
        pair[0].close()
        exchange.connection = Carrier(sock)
        assert exchange.abort("timeout") is False
        if sock is not None:
            sock.close()


def test_an_abort_survives_a_connection_that_closes_meanwhile(pair: tuple[socket.socket, socket.socket]) -> None:
    """Otherwise the deadline thread would end, and later exchanges would have no deadline."""

    class Closing:
        """Connected at the first read of `sock`, and not at the second."""

        def __init__(self) -> None:
            self.sockets: list[Any] = [None, pair[0]]

        @property
        def sock(self) -> Any:
            return self.sockets.pop() if self.sockets else None

        @sock.setter
        def sock(self, _value: Any) -> None: ...

    exchange = Exchange(30.0)
    exchange.connection = Closing()
    assert exchange.abort("timeout") is False
