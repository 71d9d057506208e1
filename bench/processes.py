"""Programs as children: run to their end and measured. One that fails ends the benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError

_TIMEOUT = 3600.0  # seconds: a program that hangs is a program that failed
_TAIL = 2_000  # characters of what a program that failed had to say


@dataclass(frozen=True, slots=True)
class Sample:
    """What one turn of a program took.

    `cpu` is user and system time in seconds, of its own children too; `peak` is the most memory in bytes that it, or
    one of its children, held; `jobs` is how many it sent. `more` holds further figures by name, in seconds.
    """

    seconds: float
    cpu: float = 0.0
    peak: int = 0
    jobs: int = 0
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a program runs: its folder, and all of its environment."""

    directory: Path
    environment: Mapping[str, str]

    @property
    def output(self) -> Path:
        """What the last program here wrote to stdout."""
        return self.directory / "stdout.txt"

    @property
    def errors(self) -> Path:
        """What it wrote to stderr."""
        return self.directory / "stderr.txt"


def run(
    command: Sequence[str], place: Location, *, stdin_path: Path | None = None, jobs: int = 0, code: int = 0
) -> Sample:
    """Run a program to its end.

    Args:
        command: the program's path and its arguments.
        place: where.
        stdin_path: file to read as standard input; empty input if None.
        jobs: how many jobs it is to send, for the sample.
        code: the exit code that means success.

    Raises:
        BenchError: it ended with another exit code, or did not end.
    """
    with (
        (stdin_path or Path(os.devnull)).open("rb") as stdin,
        place.output.open("wb") as stdout,
        place.errors.open("wb") as stderr,
    ):
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=place.directory, env=place.environment, stdin=stdin, stdout=stdout, stderr=stderr
        )
        sample = _reap(process, started, jobs)
        status = process.returncode
    if status != code:
        said = (
            place.output.read_text("utf-8", "replace")[-_TAIL:],
            place.errors.read_text("utf-8", "replace")[-_TAIL:],
        )
        raise BenchError(
            f"{_format_command(command)} ended with {status} and not with {code}:\n{''.join(said).strip()}"
        )
    return sample


def succeeds(command: Sequence[str], place: Location) -> bool:
    """Whether a program ends with 0."""
    try:
        run(command, place)
    except BenchError:
        return False
    return True


def _reap(process: subprocess.Popen[bytes], started: float, jobs: int) -> Sample:
    """Wait for the end, and see what was used, which `Popen.wait` does not tell."""
    limit = threading.Timer(_TIMEOUT, os.kill, (process.pid, signal.SIGKILL))
    limit.daemon = True
    limit.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        limit.cancel()
        if process.returncode is None:
            process.kill()
            process.wait()
    # ru_maxrss also counts this process as it was when it forked: it is kept small, below any Python program's.
    unit = 1 if sys.platform == "darwin" else 1024
    return Sample(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, jobs)


def _format_command(command: Sequence[str]) -> str:
    return " ".join(Path(word).name if os.sep in word else word for word in command)
