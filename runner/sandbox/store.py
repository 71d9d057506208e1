"""Where a sandbox keeps its jobs: nowhere but in memory, or a line each in a file that only ever grows."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from runner.core.errors import RefusedError
from runner.sandbox.lifecycle import SandboxJob

_FILE = "jobs.jsonl"


class Store(Protocol):
    """What a world asks of its store. A world calls it from one thread at a time."""

    def read_new(self) -> list[SandboxJob]:
        """The jobs that are in the store and were not told yet; all of them at the first call."""
        ...

    def append(self, job: SandboxJob) -> list[SandboxJob]:
        """Keep `job` and return the news that came before it. A job that was not kept raises RefusedError."""
        ...

    def close(self) -> None:
        """Let go of what the store holds. A second call does nothing."""
        ...


class Memory:
    """Keeps nothing: the world's own memory is all there is."""

    def read_new(self) -> list[SandboxJob]:
        """Nobody else creates jobs here."""
        return []

    def append(self, job: SandboxJob) -> list[SandboxJob]:  # noqa: ARG002 - the store's interface
        """The world remembers the job by itself."""
        return []

    def close(self) -> None:
        """There is nothing to let go of."""


class JobFile:
    """One JSON line a job, in a file that several processes may append to.

    A line is written whole, under a lock on the file, before the job is told to anyone. It survives the end of the
    process; it isn't synced to the disk, as the jobs are not real. A process that was killed while it wrote leaves a
    last line without an end: readers pass over it, and the next to append cuts it off.
    """

    def __init__(self, path: Path) -> None:
        """Open or create `path`, which is the file, or the folder of a `jobs.jsonl`.

        Raises:
            RefusedError: the file cannot be opened.
        """
        self.path = path
        self._told = 0  # bytes of the file that were read or written as whole lines
        self._lines = 0
        with self._explained():
            self.path = path if _names_a_file(path) else path / _FILE
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A link is followed where a person names it, and not where nobody but this program has put the file.
            unfollowed = 0 if self.path == path else os.O_NOFOLLOW
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | unfollowed
            self._handle: int | None = os.open(self.path, flags, 0o600)
            if not stat.S_ISREG(os.fstat(self._handle).st_mode):  # a pipe's other end would be waited for
                self.close()
                raise RefusedError(f"{self.path}: the sandbox keeps its jobs in a plain file", self._way_out())

    def read_new(self) -> list[SandboxJob]:
        """The jobs that are in the file and were not told yet.

        Raises:
            RefusedError: the file cannot be read, or a line of it is no job.
        """
        with self._explained():
            return self._read(self._open_handle())

    def append(self, job: SandboxJob) -> list[SandboxJob]:
        """Append `job`, and return the jobs that other processes appended before it.

        Raises:
            RefusedError: the file could not be written; then the job isn't in it.
        """
        line = json.dumps(_to_json(job)).encode() + b"\n"
        handle = self._open_handle()
        with self._explained(), _locked(handle):
            others = self._read(handle)
            os.ftruncate(handle, self._told)  # what is left is the line of a process that was killed
            self._write(handle, line)
        return others

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _open_handle(self) -> int:
        if self._handle is None:
            raise RefusedError(f"{self.path}: the sandbox is closed")
        return self._handle

    def _read(self, handle: int) -> list[SandboxJob]:
        size = os.fstat(handle).st_size
        if size < self._told:  # somebody emptied the file while we held it
            self._told = self._lines = 0
        text = os.pread(handle, size - self._told, self._told) if size > self._told else b""
        whole = text[: text.rfind(b"\n") + 1]
        jobs = [self._job(line, number) for number, line in enumerate(whole.splitlines(), self._lines + 1)]
        self._told += len(whole)
        self._lines += len(jobs)
        return jobs

    def _job(self, line: bytes, number: int) -> SandboxJob:
        try:
            return _from_json(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RefusedError(f"{self.path}:{number}: this line is no job of the sandbox", self._way_out()) from error

    def _write(self, handle: int, line: bytes) -> None:
        if os.write(handle, line) != len(line):  # the disk is full; the next append cuts off what did fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._told += len(line)
        self._lines += 1

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{self.path}: the sandbox cannot keep its jobs here: {error.strerror or error}"
            raise RefusedError(message, self._way_out()) from error

    def _way_out(self) -> str:
        return f"Move {self.path} away to begin with an empty sandbox, or keep the jobs at another path."


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _names_a_file(path: Path) -> bool:
    return path.suffix == ".jsonl" or path.is_file()


def _to_json(job: SandboxJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "workflow_id": job.workflow_id,
        "project_id": job.project_id,
        "created_at": job.created_at.isoformat(),
        "duration": job.duration,
        "cost": job.cost,
        "fails": job.fails,
    }


def _from_json(value: Any) -> SandboxJob:
    created_at = datetime.fromisoformat(value["created_at"])
    if created_at.tzinfo is None:
        raise ValueError(created_at)
    return SandboxJob(
        id=str(value["id"]),
        workflow_id=str(value["workflow_id"]),
        project_id=str(value["project_id"]),
        created_at=created_at,
        duration=int(value["duration"]),
        cost=int(value["cost"]),
        fails=bool(value.get("fails", False)),  # a line from before jobs could fail says nothing of it
    )
