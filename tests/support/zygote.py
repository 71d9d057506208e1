"""A process without threads that has imported the program, and forks a child for each run: killed where it is told.

A script. It reads orders as lines of JSON on stdin, and answers each with one on stdout. The child wraps the seams of
the program from outside, counts what passes them, and has happen there what was ordered: a SIGKILL, say.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import pathlib
import pkgutil
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import runner
from runner.cli import main, progress, signals
from runner.client import api, exchange, transport
from runner.core import atomic_file, backoff
from runner.ledger import connect
from runner.submission import engine

_STATEMENTS = ("CREATE", "INSERT", "UPDATE", "PRAGMA user_version =")


def replace(owner: Any, name: str, value: object) -> None:
    """Set an attribute that exists: one that was renamed would be set in vain."""
    getattr(owner, name)
    setattr(owner, name, value)


@dataclass(frozen=True)
class Event:
    """What happens at the n-th pass of a seam of a kind.

    `do` is `kill`, `signal` (of the number `value`), `step` (the clock, by `value` seconds), `sqlite` (an error of the
    name `value`) or `errno` (an error of the system of the number `value`). The last two go on until the seam was
    passed `until` times, for ever without it.
    """

    at: str
    nth: int
    do: str
    value: Any = None
    until: int | None = None

    def applies(self, count: int) -> bool:
        """Whether it happens at this pass."""
        if self.do in ("sqlite", "errno"):
            return self.nth <= count and (self.until is None or count < self.until)
        return count == self.nth


@dataclass
class Skew:
    """By how many seconds this process's clock is off the machine's."""

    seconds: float


class Seams:
    """Counts what passes the seams by kind, and has happen there what was ordered."""

    def __init__(self, events: Sequence[Event], skew: Skew) -> None:
        self.counts: Counter[str] = Counter()
        self.happened: list[str] = []  # what happened: `<what> <where>`
        self._events = events
        self._skew = skew
        self._lock = threading.Lock()

    def events_at(self, kind: str) -> Sequence[Event]:
        """Count one more of a kind; what is to happen there."""
        with self._lock:
            self.counts[kind] += 1
            met = [event for event in self._events if event.at == kind and event.applies(self.counts[kind])]
            self.happened += [f"{event.do} {event.value} at {kind}" for event in met if event.do != "kill"]
        return met

    def at(self, kind: str) -> None:
        """Count one more of a kind, and have happen what was ordered for it."""
        for event in self.events_at(kind):
            self._do(event)

    def _do(self, event: Event) -> None:
        match event.do:
            case "kill":
                kill_self()
            case "signal":
                os.kill(os.getpid(), event.value)
            case "step":
                self._skew.seconds += event.value
            case "sqlite":
                raise sqlite_error(event.value)
            case "errno":
                raise OSError(event.value, os.strerror(event.value))

    def around(self, owner: Any, name: str, kind: str) -> None:
        """Make a function pass a seam before it begins and after it has ended."""
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            self.at(f"before {kind}")
            result = inner(*args, **kwargs)
            self.at(f"after {kind}")
            return result

        setattr(owner, name, outer)

    @contextlib.contextmanager
    def between(self, kind: str) -> Iterator[None]:
        """A seam before and one after the body."""
        self.at(f"before {kind}")
        yield
        self.at(f"after {kind}")


def kill_self() -> None:
    """End as a machine does that loses power: no handler, no `finally`, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def sqlite_error(name: str) -> sqlite3.OperationalError:
    """An error as SQLite raises it."""
    error = sqlite3.OperationalError(f"made up: {name}")
    error.sqlite_errorname = name
    return error


def wrap(seams: Seams) -> None:
    """Put the seams in."""
    _wrap_sqlite(seams)
    _wrap_exchanges(seams)
    _wrap_files(seams)
    seams.around(progress.Progress, "decided", "telling")


def _wrap_sqlite(seams: Seams) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            kind = _kind_of(sql.strip())
            if kind is None:
                return super().execute(sql, parameters)
            with seams.between(kind):
                return super().execute(sql, parameters)

    real = sqlite3.connect
    replace(sqlite3, "connect", lambda *args, **kwargs: real(*args, factory=Connection, **kwargs))


def _kind_of(sql: str) -> str | None:
    if sql == "COMMIT":
        return "commit"
    if sql.startswith("PRAGMA wal_checkpoint"):
        return "checkpoint"
    if sql.startswith("SELECT"):
        return "select"
    return "statement" if sql.startswith(_STATEMENTS) else None


def _wrap_exchanges(seams: Seams) -> None:
    write = transport._write

    def half_or_whole(sock: Any, request: bytes) -> None:
        seams.at("before write")
        if seams.events_at("half written"):  # nothing but a kill is ever ordered for it
            sock.sendall(request[: len(request) // 2])
            kill_self()
        write(sock, request)
        seams.at("after write")

    replace(transport, "_write", half_or_whole)
    seams.around(exchange.Exchange, "begin_write", "mark")
    seams.around(transport, "read_response", "answer")


def _wrap_files(seams: Seams) -> None:
    for name in ("fsync", "link", "replace", "unlink", "mkdir", "open", "ftruncate", "pwrite"):
        seams.around(os, name, name)
    seams.around(fcntl, "flock", "lock")
    write = atomic_file.AtomicFile.write

    def counted(self: atomic_file.AtomicFile, path: pathlib.Path, text: Iterable[str]) -> None:
        write(self, path, pieces(text))

    def pieces(text: Iterable[str]) -> Iterator[str]:
        for piece in text:
            seams.at("writing a piece")
            yield piece

    replace(atomic_file.AtomicFile, "write", counted)
    write_text = pathlib.Path.write_text

    def begun(self: pathlib.Path, *args: Any, **kwargs: Any) -> int:
        if seams.events_at("half a text"):
            self.touch()
            kill_self()
        return write_text(self, *args, **kwargs)

    replace(pathlib.Path, "write_text", begun)


def speed_up(skew: Skew) -> None:
    """Live at another time, and wait for nothing: backoffs are short, and looks follow one another at once."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=skew.seconds)

    for name, module in list(sys.modules.items()):
        if name == "runner.ledger.rows":  # it only names the type: its annotations say how a column is decoded
            continue
        if name.startswith("runner.") and getattr(module, "datetime", None) is datetime:
            replace(module, "datetime", Clock)
    replace(engine, "Backoff", lambda: backoff.Backoff(base=0.01, maximum=0.05))
    replace(signals.SignalHandler, "wait", lambda self, _seconds: self.signum is None)
    replace(api, "_TICK", 0.02)
    replace(engine, "GRACE_PERIOD", 0.2)
    replace(connect, "_BUSY_TIMEOUT", 0.3)


def run_child(order: dict[str, Any], report: int) -> int:
    """One run of the command. Returns its exit code."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    _redirect(order["cwd"])
    if order.get("largest") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
    skew = Skew(order["skew"])
    seams = Seams([Event(**event) for event in order.get("events", ())], skew)
    speed_up(skew)
    wrap(seams)
    code: int = main.main(order["argv"])
    for signum in (signal.SIGINT, signal.SIGTERM):  # from a worker that was left behind
        signal.signal(signum, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(report, json.dumps({"counts": seams.counts, "events": seams.happened}).encode())
    return code


def _redirect(folder: str) -> None:
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, f"{folder}/stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, f"{folder}/stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        handle = os.open(path, flags, 0o600)
        os.dup2(handle, number)
        os.close(handle)


def run_order(order: dict[str, Any]) -> dict[str, Any]:
    """Fork a child for an order, kill it after `after` seconds if it says so, and tell how it ended."""
    reader, writer = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 70
        try:
            code = run_child(order, writer)
        finally:
            os._exit(code)
    os.close(writer)
    if order.get("after") is not None and signal.sigtimedwait({signal.SIGCHLD}, order["after"]) is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader, "rb") as report:
        told = report.read()
    _, status = os.waitpid(pid, 0)
    signal.sigtimedwait({signal.SIGCHLD}, 0)  # the one that nobody waited for
    return {
        "code": os.waitstatus_to_exitcode(status),
        **(json.loads(told) if told else {"counts": {}, "events": []}),
        "seconds": time.monotonic() - begun,
    }


def serve(say: Callable[[str], object]) -> None:
    """Obey orders until there are no more."""
    for line in sys.stdin:
        say(json.dumps(run_order(json.loads(line))) + "\n")
        sys.stdout.flush()


def import_everything() -> None:
    """Import what commands import as they begin, so that no child has to."""
    for module in pkgutil.walk_packages(runner.__path__, "runner."):
        if module.name != "runner.__main__":
            importlib.import_module(module.name)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    import_everything()
    serve(sys.stdout.write)
