"""A process without threads that has imported the program, and forks a child for each run: killed where it is told.

A script. It reads orders as lines of JSON on stdin, and answers each with one on stdout. The child wraps the seams of
the program from outside, counts what passes them, and ends itself with SIGKILL at the n-th of a kind.
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
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import runner
from runner import connection, exchange, pacing, results, submit
from runner.cli import interrupts, main, progress
from runner.ledger import opening

_STATEMENTS = ("CREATE", "INSERT", "UPDATE", "PRAGMA user_version =")


class Seams:
    """Counts what passes the seams by kind, and kills the process at one of them.

    `faults` are other things that happen there: a statement to SQLite that fails from the n-th of a kind on.
    """

    def __init__(self, kill: tuple[str, int] | None, fault: dict[str, Any] | None) -> None:
        self.counts: Counter[str] = Counter()
        self._kill = kill
        self._fault = fault or {}
        self._lock = threading.Lock()

    def meets(self, kind: str) -> bool:
        """Count one more of a kind; whether it is the one to be killed at."""
        with self._lock:
            self.counts[kind] += 1
            return self._kill == (kind, self.counts[kind])

    def at(self, kind: str) -> None:
        """Count one more of a kind, and end here if it is the one."""
        if self.meets(kind):
            die()
        if self._fault.get("at") == kind and self.counts[kind] >= self._fault["from"]:
            raise sqlite_error(self._fault["name"])

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


def die() -> None:
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
    setattr(sqlite3, "connect", lambda *args, **kwargs: real(*args, factory=Connection, **kwargs))  # noqa: B010 - for mypy


def _kind_of(sql: str) -> str | None:
    if sql == "COMMIT":
        return "commit"
    if sql.startswith("PRAGMA wal_checkpoint"):
        return "checkpoint"
    if sql.startswith("SELECT"):
        return "select"
    return "statement" if sql.startswith(_STATEMENTS) else None


def _wrap_exchanges(seams: Seams) -> None:
    write = connection._write

    def half_or_whole(sock: Any, request: bytes) -> None:
        seams.at("before write")
        if seams.meets("half written"):
            sock.sendall(request[: len(request) // 2])
            die()
        write(sock, request)
        seams.at("after write")

    setattr(connection, "_write", half_or_whole)  # noqa: B010 - likewise
    seams.around(exchange.Exchange, "about_to_write", "mark")
    seams.around(connection, "_read", "answer")


def _wrap_files(seams: Seams) -> None:
    for name in ("fsync", "link", "replace", "unlink", "mkdir", "open", "ftruncate", "pwrite"):
        seams.around(os, name, name)
    seams.around(fcntl, "flock", "lock")
    pieces = results.chunks

    def counted(record: Any) -> Iterator[str]:
        for piece in pieces(record):
            seams.at("writing results")
            yield piece

    setattr(results, "chunks", counted)  # noqa: B010 - likewise
    write_text = pathlib.Path.write_text

    def begun(self: pathlib.Path, *args: Any, **kwargs: Any) -> int:
        if seams.meets("half a text"):
            self.touch()
            die()
        return write_text(self, *args, **kwargs)

    setattr(pathlib.Path, "write_text", begun)  # noqa: B010 - likewise


def hurry(skew: float) -> None:
    """Live at another time, and wait for nothing: backoffs are short, and looks follow one another at once."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=skew)

    for name, module in list(sys.modules.items()):
        if name.startswith("runner.") and getattr(module, "datetime", None) is datetime:
            setattr(module, "datetime", Clock)  # noqa: B010 - likewise
    setattr(submit, "Backoff", lambda: pacing.Backoff(first=0.01, longest=0.05))  # noqa: B010 - likewise
    setattr(interrupts.Interrupts, "wait", lambda _self, _seconds: True)  # noqa: B010 - likewise
    setattr(opening, "_BUSY", 0.3)  # noqa: B010 - likewise


def child(order: dict[str, Any], report: int) -> int:
    """One run of the command. Returns its exit code."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    _redirect(order["cwd"])
    if order.get("largest") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest"], order["largest"]))
    kill = order.get("kill")
    seams = Seams((kill[0], kill[1]) if kill else None, order.get("fault"))
    hurry(order["skew"])
    wrap(seams)
    code: int = main.main(order["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(report, json.dumps(seams.counts).encode())
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


def obey(order: dict[str, Any]) -> dict[str, Any]:
    """Fork a child for an order, kill it after `after` seconds if it says so, and tell how it ended."""
    reader, writer = os.pipe()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 70
        try:
            code = child(order, writer)
        finally:
            os._exit(code)
    os.close(writer)
    if order.get("after") is not None and signal.sigtimedwait({signal.SIGCHLD}, order["after"]) is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader, "rb") as report:
        counts = report.read()
    _, status = os.waitpid(pid, 0)
    signal.sigtimedwait({signal.SIGCHLD}, 0)  # the one that nobody waited for
    return {
        "code": os.waitstatus_to_exitcode(status),
        "counts": json.loads(counts) if counts else {},
        "seconds": time.monotonic() - begun,
    }


def serve(say: Callable[[str], object]) -> None:
    """Obey orders until there are no more."""
    for line in sys.stdin:
        say(json.dumps(obey(json.loads(line))) + "\n")
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
