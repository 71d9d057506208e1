"""The environment of a campaign: a server that can be waited for, and a working directory with its own clock."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from support.campaign_invariants import Invariants, Pair
from support.campaign_process import Zygote

from runner.sandbox.backend import Backend
from runner.sandbox.faults import Fault
from runner.sandbox.server import Sandbox

KEY = "key-of-the-campaign"
NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)  # the campaign's time, always far from midnight
TIMEOUT = 30.0

Shape = Literal["apart", "alike", "projects"]

SHAPES: tuple[Shape, ...] = ("apart", "alike", "projects")


class CampaignServer(Sandbox):
    """A sandbox that can be waited for, as a killed process may have left a request in its queue."""

    def __init__(self, world: Backend, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        super().__init__(world, key=KEY, faults=faults, seed=seed, log=self._count_posts)
        self.posts = 0
        self._connection_closed = threading.Condition(self._lock)

    def _count_posts(self, line: str) -> None:
        with self._connection_closed:
            self.posts += line.startswith("POST ")

    def _close_connection(self, thread: threading.Thread) -> None:
        super()._close_connection(thread)
        with self._connection_closed:
            self._connection_closed.notify_all()

    def wait_until_idle(self) -> None:
        """Wait until no request in flight can still create a job."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT) as last:  # queued after all others
            last.sendall(b"GET /ping HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            while last.recv(65_536):
                pass
        with self._connection_closed:
            assert self._connection_closed.wait_for(lambda: not self._connections, TIMEOUT)


def pairs_of(shape: Shape, size: int) -> list[Pair]:
    """The (workflow, project) pairs of a manifest, with repetitions."""
    match shape:
        case "apart":
            return [(f"w-{number}", "p-0") for number in range(size)]
        case "alike":
            return [("w-0", "p-0")] * size + [("w-1", "p-0")]
        case "projects":
            return [("w-0", f"p-{number}") for number in range(size)]


@dataclass(frozen=True)
class CompletedRun:
    """The exit code and output of a finished run."""

    code: int
    out: str
    err: str


class CampaignEnvironment:
    """A working directory, a server without hidden faults, and a clock that the test controls.

    A context manager. `world` replaces the default backend; the pairs are added to it.
    """

    def __init__(
        self,
        directory: Path,
        zygote: Zygote,
        count: int = 6,
        world: Backend | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.directory = directory
        self.pairs = pairs_of("apart", count)
        self.zygote = zygote
        self.skew = (NOON - datetime.now(UTC)).total_seconds()
        self.backend = world or Backend(clock=self.now)
        self.backend.add_pairs(self.pairs)
        self.server = CampaignServer(self.backend, faults)
        self.ledger = directory / ".pixxel-runner" / "ledger.db"
        self.env = {"PIXXEL_API_KEY": KEY, "PIXXEL_RUNNER_CONCURRENCY": "2"}
        jobs = "".join(
            f"  - {{name: j{at}, workflow_id: {w}, project_id: {p}}}\n" for at, (w, p) in enumerate(self.pairs)
        )
        (directory / "m.yaml").write_text(f"version: 1\nonce_per: forever\njobs:\n{jobs}", encoding="utf-8")

    def now(self) -> datetime:
        """The current time of this environment."""
        return datetime.now(UTC) + timedelta(seconds=self.skew)

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.env["PIXXEL_BASE_URL"] = self.server.base_url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.__exit__(kind, error, trace)

    @property
    def invariants(self) -> Invariants:
        """The invariants between this environment's ledger and server."""
        return Invariants(self.backend, self.ledger, self.pairs)

    def use_ledger(self, ledger: Path) -> None:
        """Use a ledger at another path from now on."""
        self.ledger = ledger
        self.env["PIXXEL_RUNNER_LEDGER"] = str(ledger)

    def __call__(self, *arguments: str, **how: Any) -> CompletedRun:
        """Run the command; `how` is as for `Zygote.run`. Fails on a traceback or an undocumented exit code."""
        result = self.zygote.run(self.directory, self.env, arguments, skew=self.skew, **how)
        self.server.wait_until_idle()
        out, err = ((self.directory / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        assert result.code in (0, 1, 2, 3, 4, 5), err
        assert "Traceback" not in err, err
        return CompletedRun(result.code, out, err)

    def run(self, **how: Any) -> CompletedRun:
        """Run the manifest without waiting for jobs to settle."""
        return self("run", "m.yaml", "--settle", "0", **how)

    def advance_clock(self) -> None:
        """Advance the clock by more than any request may take."""
        self.skew += 120.0
