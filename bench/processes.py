"""Runs programs as child processes and measures them. A failure ends the benchmark."""

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

_TIMEOUT = 3600.0  # seconds, after which a program has failed
_TAIL = 2_000  # characters of a failed program's output to show


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements of one turn of a program.

    `cpu` is user and system time in seconds, including child processes; `peak` is the peak memory in bytes of the
    program or one of its children; `jobs` is the number of jobs sent. `more` has further figures in seconds, by name.
    """

    seconds: float
    cpu: float = 0.0
    peak: int = 0
    jobs: int = 0
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a program runs: its working directory, and its whole environment."""

    directory: Path
    environment: Mapping[str, str]

    @property
    def output(self) -> Path:
        """The stdout of the last program."""
        return self.directory / "stdout.txt"

    @property
    def errors(self) -> Path:
        """The stderr of the last program."""
        return self.directory / "stderr.txt"


def run(
    command: Sequence[str], place: Location, *, stdin_path: Path | None = None, jobs: int = 0, code: int = 0
) -> Sample:
    """Run a program until it exits.

    Args:
        command: the program's path and its arguments.
        place: where to run it.
        stdin_path: file to read as standard input; empty input if None.
        jobs: the number of jobs it should send, for the sample.
        code: the exit code that means success.

    Raises:
        BenchError: it exited with another code, or timed out.
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
        output_tails = (
            place.output.read_text("utf-8", "replace")[-_TAIL:],
            place.errors.read_text("utf-8", "replace")[-_TAIL:],
        )
        raise BenchError(
            f"{_format_command(command)} exited with code {status} instead of {code}:\n{''.join(output_tails).strip()}"
        )
    return sample


def succeeds(command: Sequence[str], place: Location) -> bool:
    """Whether a program exits with code 0."""
    try:
        run(command, place)
    except BenchError:
        return False
    return True


def _reap(process: subprocess.Popen[bytes], started: float, jobs: int) -> Sample:
    """Wait for a process and return its resource usage, which `Popen.wait` does not."""
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
    # ru_maxrss includes this process as it was at the fork, so it is kept smaller than any Python program.
    unit = 1 if sys.platform == "darwin" else 1024
    return Sample(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, jobs)


def _format_command(command: Sequence[str]) -> str:
    return " ".join(Path(word).name if os.sep in word else word for word in command)
