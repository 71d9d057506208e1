"""Runs commands in children of one process that has imported the program already: most of a command's time is imports.

A child is a process of its own, with the arguments, the directory, the environment and the streams of one that is
started anew, and it ends as one. What depends on how an interpreter starts, such as its options, its encodings and its
limits, is left to a process that is started.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

_NUMBER = struct.Struct("q")
_LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_NPROC)
_AT_START = ("LANG", "LC_", "MALLOC", "PYTHON")  # variables that an interpreter reads as it starts


@dataclass(frozen=True)
class Ended:
    """The exit code of a command, negative for a signal, and its output."""

    code: int
    out: str
    err: str


class Preloaded:
    """The process that has imported the program, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._inherited: tuple[Any, ...] = ()

    def run(
        self, command: Sequence[str], directory: str, environment: Mapping[str, str], timeout: float
    ) -> Ended | None:
        """Run a command of this interpreter, as `subprocess.run` would; None if it must be started as a process.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout` seconds, and was killed.
        """
        program = _program_of(command)
        settings = {name: value for name, value in environment.items() if name.startswith(_AT_START)}
        if program is None or "COVERAGE_PROCESS_CONFIG" in environment or not self._lock.acquire(blocking=False):
            return None
        try:
            if self._process is None:
                self._start(environment, settings)
            if self._inherited != _inherited(settings):
                return None
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                order = {"program": program, "directory": directory, "environment": dict(environment)}
                code = self._send(json.dumps(order).encode(), out, err, timeout, command)
                return Ended(code, _text(out), _text(err))
        finally:
            self._lock.release()

    def _start(self, environment: Mapping[str, str], settings: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._inherited = _inherited(settings)
        atexit.register(self._stop)

    def _stop(self) -> None:
        assert self._process is not None
        assert self._socket is not None
        self._socket.close()
        self._process.wait()

    def _send(self, order: bytes, out: IO[bytes], err: IO[bytes], timeout: float, command: Sequence[str]) -> int:
        assert self._socket is not None
        socket.send_fds(self._socket, [_NUMBER.pack(len(order))], [out.fileno(), err.fileno()])
        self._socket.sendall(order)
        [pid] = _NUMBER.unpack(_read(self._socket, _NUMBER.size))
        if not select.select([self._socket], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
            _read(self._socket, _NUMBER.size)
            raise subprocess.TimeoutExpired(command, timeout)
        [code] = _NUMBER.unpack(_read(self._socket, _NUMBER.size))
        return int(code)


def _program_of(command: Sequence[str]) -> list[str] | None:
    """What an interpreter of this environment is to run: `-m MODULE …` or `-c SOURCE …`."""
    words = list(command)
    if words[0] != sys.executable:
        return None
    words = words[2:] if words[1] == "-P" else words[1:]
    return words if words[0] in ("-m", "-c") else None


def _inherited(settings: Mapping[str, str]) -> tuple[Any, ...]:
    """What a child takes over that is no part of an order."""
    umask = os.umask(0o077)
    os.umask(umask)
    ignored = [signum for signum in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(signum) is signal.SIG_IGN]
    return (umask, os.getresuid(), [resource.getrlimit(limit) for limit in _LIMITS], ignored, dict(settings))


def _text(file: IO[bytes]) -> str:
    """What was written, as `subprocess` reads text."""
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n").replace("\r", "\n")


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


# In the process that has imported the program.


def serve(connection: socket.socket) -> None:
    """Run orders until the other end is closed."""
    for module in pkgutil.walk_packages(importlib.import_module("runner").__path__, "runner."):
        if module.name != "runner.__main__":
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # or each child would get copies of all pages that its collector looks at
    while True:
        head, streams, _, _ = socket.recv_fds(connection, _NUMBER.size, 2)
        if not head:
            return
        [size] = _NUMBER.unpack(head)
        order = json.loads(_read(connection, size))
        pid = os.fork()
        if pid == 0:
            connection.close()
            _run(order, streams)
        for stream in streams:
            os.close(stream)
        connection.sendall(_NUMBER.pack(pid))
        _, status = os.waitpid(pid, 0)
        connection.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))


def _run(order: Mapping[str, Any], streams: Sequence[int]) -> None:
    """Become the process that was ordered."""
    for number, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["directory"])
    locale = {"LC_CTYPE": os.environ["LC_CTYPE"]} if "LC_CTYPE" in os.environ else {}  # which the interpreter set
    os.environ.clear()
    os.environ.update({**locale, **order["environment"]})
    time.tzset()
    code = _exit_code(order["program"])
    threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter does, which waits for its threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(program: Sequence[str]) -> int:
    kind, what, *arguments = program
    sys.argv = [kind, *arguments]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as `python -c` does
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return (ended.code or 0) & 0xFF
        sys.stderr.write(f"{ended.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
