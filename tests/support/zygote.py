"""A single-threaded process that has imported the program and forks a child for each run, with faults injected.

A script. It reads orders as JSON lines on stdin, and writes one JSON line per order to stdout. The child wraps
functions of the program with hooks, which count their calls and inject the ordered events, such as a SIGKILL.
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
    """An event to inject at the n-th pass of a kind of hook.

    `do` is `kill`, `signal` (of the number `value`), `step` (the clock, by `value` seconds), `sqlite` (an error of the
    name `value`) or `errno` (an error of the system of the number `value`). The last two go on until the hook was
    passed `until` times, for ever without it.
    """

    at: str
    nth: int
    do: str
    value: Any = None
    until: int | None = None

    def applies(self, count: int) -> bool:
        """Whether it is injected at this pass."""
        if self.do in ("sqlite", "errno"):
            return self.nth <= count and (self.until is None or count < self.until)
        return count == self.nth


@dataclass
class Skew:
    """The offset of this process's clock from the machine's, in seconds."""

    seconds: float


class Hooks:
    """Counts the passes of each kind of hook, and injects the ordered events."""

    def __init__(self, events: Sequence[Event], skew: Skew) -> None:
        self.counts: Counter[str] = Counter()
        self.happened: list[str] = []  # injected events: `<action> <value> at <hook>`
        self._events = events
        self._skew = skew
        self._lock = threading.Lock()

    def events_at(self, kind: str) -> Sequence[Event]:
        """Count a pass of a hook, and return the events to inject."""
        with self._lock:
            self.counts[kind] += 1
            met = [event for event in self._events if event.at == kind and event.applies(self.counts[kind])]
            self.happened += [f"{event.do} {event.value} at {kind}" for event in met if event.do != "kill"]
        return met

    def at(self, kind: str) -> None:
        """Count a pass of a hook, and inject its events."""
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
        """Wrap a function with a hook before and one after its call."""
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            self.at(f"before {kind}")
            result = inner(*args, **kwargs)
            self.at(f"after {kind}")
            return result

        setattr(owner, name, outer)

    @contextlib.contextmanager
    def between(self, kind: str) -> Iterator[None]:
        """Add a hook before and one after the body."""
        self.at(f"before {kind}")
        yield
        self.at(f"after {kind}")


def kill_self() -> None:
    """End the process without handlers, `finally` blocks or flushing."""
    os.kill(os.getpid(), signal.SIGKILL)


def sqlite_error(name: str) -> sqlite3.OperationalError:
    """An error as raised by SQLite."""
    error = sqlite3.OperationalError(f"injected: {name}")
    error.sqlite_errorname = name
    return error


def wrap(hooks: Hooks) -> None:
    """Install all hooks."""
    _wrap_sqlite(hooks)
    _wrap_exchanges(hooks)
    _wrap_files(hooks)
    hooks.around(progress.Progress, "decided", "telling")


def _wrap_sqlite(hooks: Hooks) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            kind = _kind_of(sql.strip())
            if kind is None:
                return super().execute(sql, parameters)
            with hooks.between(kind):
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


def _wrap_exchanges(hooks: Hooks) -> None:
    write = transport._write

    def write_in_halves(sock: Any, request: bytes) -> None:
        hooks.at("before write")
        if hooks.events_at("half written"):  # the only event for this hook is a kill
            sock.sendall(request[: len(request) // 2])
            kill_self()
        write(sock, request)
        hooks.at("after write")

    replace(transport, "_write", write_in_halves)
    hooks.around(exchange.Exchange, "begin_write", "mark")
    hooks.around(transport, "read_response", "answer")


def _wrap_files(hooks: Hooks) -> None:
    for name in ("fsync", "link", "replace", "unlink", "mkdir", "open", "ftruncate", "pwrite"):
        hooks.around(os, name, name)
    hooks.around(fcntl, "flock", "lock")
    write = atomic_file.AtomicFile.write

    def counted(self: atomic_file.AtomicFile, path: pathlib.Path, text: Iterable[str]) -> None:
        write(self, path, pieces(text))

    def pieces(text: Iterable[str]) -> Iterator[str]:
        for piece in text:
            hooks.at("writing a piece")
            yield piece

    replace(atomic_file.AtomicFile, "write", counted)
    write_text = pathlib.Path.write_text

    def started(self: pathlib.Path, *args: Any, **kwargs: Any) -> int:
        if hooks.events_at("half a text"):
            self.touch()
            kill_self()
        return write_text(self, *args, **kwargs)

    replace(pathlib.Path, "write_text", started)


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
    """Run the command once, in the forked child. Returns its exit code."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    _redirect(order["cwd"])
    if order.get("largest") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
    skew = Skew(order["skew"])
    hooks = Hooks([Event(**event) for event in order.get("events", ())], skew)
    speed_up(skew)
    wrap(hooks)
    code: int = main.main(order["argv"])
    for signum in (signal.SIGINT, signal.SIGTERM):  # from a worker that is still running
        signal.signal(signum, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(report, json.dumps({"counts": hooks.counts, "events": hooks.happened}).encode())
    return code


def _redirect(directory: str) -> None:
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, f"{directory}/stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, f"{directory}/stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        handle = os.open(path, flags, 0o600)
        os.dup2(handle, number)
        os.close(handle)


def run_order(order: dict[str, Any]) -> dict[str, Any]:
    """Fork a child for an order, kill it after `after` seconds if set, and return its result."""
    reader, writer = os.pipe()
    started = time.monotonic()
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
        data = report.read()
    _, status = os.waitpid(pid, 0)
    signal.sigtimedwait({signal.SIGCHLD}, 0)  # discard the pending signal
    return {
        "code": os.waitstatus_to_exitcode(status),
        **(json.loads(data) if data else {"counts": {}, "events": []}),
        "seconds": time.monotonic() - started,
    }


def serve(write: Callable[[str], object]) -> None:
    """Run orders until stdin ends."""
    for line in sys.stdin:
        write(json.dumps(run_order(json.loads(line))) + "\n")
        sys.stdout.flush()


def import_everything() -> None:
    """Import all modules, so that no child has to."""
    for module in pkgutil.walk_packages(runner.__path__, "runner."):
        if module.name != "runner.__main__":
            importlib.import_module(module.name)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    import_everything()
    serve(sys.stdout.write)
