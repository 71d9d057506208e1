"""A faulty server: a seed decides which request meets which fault of faults_table.py."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Self

from support.campaign_environment import KEY, CampaignServer
from support.faults_table import GET_FAULTS, POST_FAULTS, Fault, FaultConnection

from runner.sandbox import handlers, http
from runner.sandbox.backend import Backend

_PEEKED = 2**12


@dataclass
class FaultSampler:
    """Selects the fault of a request: the n-th request of a kind always gets the same one.

    A `share` of the POSTs gets one of `kinds`, a `get_share` of the GETs one of `get_kinds`, and none does once it is
    `disabled`. It also records the number of the `run` in which each job was created, the number of POSTs that
    started to arrive, and the faults by kind.
    """

    seed: int
    share: float
    kinds: Collection[str]
    get_kinds: Collection[str] = ()
    get_share: float = 0.0
    disabled: bool = False
    run: int = 0
    posts: int = 0
    known_ids: Sequence[str] = ()
    created_in: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _request_counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sample(self, method: str, target: str) -> tuple[Fault | None, random.Random]:
        """The fault of this request, if any, and its random number generator."""
        with self._lock:
            request_kind = f"{method} {target}"
            self._request_counts[request_kind] += 1
            self.posts += method == "POST"
            dice = random.Random(f"{self.seed} {request_kind} {self._request_counts[request_kind]}")  # noqa: S311 - repeatable, not for security
        posts = (POST_FAULTS, self.kinds, self.share)
        faults, kinds, share = posts if method == "POST" else (GET_FAULTS, self.get_kinds, self.get_share)
        if self.disabled or dice.random() >= share:
            return None, dice
        return dice.choice([fault for fault in faults if fault.kind in kinds]), dice

    def count(self, kind: str) -> None:
        """Count an injected fault."""
        with self._lock:
            self.counts[kind] += 1

    def record_job(self, job_id: str) -> None:
        """Record that a job was created in this run."""
        with self._lock:
            self.created_in[job_id] = self.run


class FaultyServer(CampaignServer):
    """A sandbox on a given port that injects the faults of a `FaultSampler`."""

    def __init__(self, world: Backend, dice: FaultSampler, port: int) -> None:
        super().__init__(world)
        self.port = port
        self.sampler = dice
        self.is_open = False

    def __enter__(self) -> Self:
        super().__enter__()
        self.is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_open = False
        super().__exit__(kind, error, trace)

    def _serve_request(self, connection: socket.socket, reader: http.RequestReader) -> bool:
        start = connection.recv(_PEEKED, socket.MSG_PEEK)
        method, _, rest = start.partition(b" ")
        target = rest.partition(b" ")[0].decode("latin-1")
        if not start or target == "/ping":
            return super()._serve_request(connection, reader)
        fault, dice = self.sampler.sample(method.decode("latin-1"), target)
        if fault is not None and fault.unread:
            self.sampler.count(f"{method.decode()} {fault.kind}")
            return fault.play(self._line(connection, dice, None, lambda: None))
        request = reader.read()
        if request is None:
            return False
        self._log_request(request, fault.kind if fault else "")
        if fault is None:
            response = self._answer(request)
            connection.sendall(self._render(response, close=False, head_only=False))
            return True
        self.sampler.count(f"{request.method} {fault.kind}")
        creates = request.method != "POST" or dice.choice(fault.creates)
        job_response = self._answer(request) if creates else None
        return fault.play(self._line(connection, dice, job_response, partial(self._answer, request)))

    def _line(
        self, sock: socket.socket, dice: random.Random, response: http.Response | None, create: Callable[[], object]
    ) -> FaultConnection:
        return FaultConnection(
            sock, dice, self, response or http.Response(HTTPStatus.OK, b""), create, self.sampler.known_ids
        )

    def _answer(self, request: http.Request) -> http.Response:
        response = handlers.handle(self.backend, KEY, request)
        if request.method == "POST":
            assert response.status == HTTPStatus.OK, response
            self.sampler.record_job(json.loads(response.body)["id"])
        return response


class Port:
    """A reserved port on which servers may start and stop; it refuses connections while none listens."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Release the port."""
        with suppress(OSError):
            self._socket.close()
