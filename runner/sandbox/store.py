"""A file that keeps the sandbox's jobs, one JSON line each. It only ever grows."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from runner.core.errors import RefusedError
from runner.sandbox.lifecycle import SandboxJob

_FIELDS = tuple(field.name for field in dataclasses.fields(SandboxJob))


class JobFile:
    """A file of jobs that several processes may append to. Use it from one thread at a time.

    Every line is written completely, under a lock, before the job is returned to a client. It survives the process but
    is not synced to disk, because the jobs are not real. A process that is killed while writing leaves an incomplete
    last line: readers ignore it, and the next append removes it.
    """

    def __init__(self, path: Path) -> None:
        """Open or create `path`: the file itself, or the directory of a `jobs.jsonl`.

        Raises:
            RefusedError: the file cannot be opened.
        """
        self.path = path
        self._offset = 0  # bytes that were read or written as complete lines
        self._lines = 0
        with self._errors_explained():
            self.path = path if path.suffix == ".jsonl" or path.is_file() else path / "jobs.jsonl"
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A link is followed where you name it, but not where only this program should have put the file.
            no_follow = 0 if self.path == path else os.O_NOFOLLOW
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | no_follow
            self._fd: int | None = os.open(self.path, flags, 0o600)
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):  # opening a pipe would wait for its other end
                self.close()
                raise RefusedError(f"{self.path}: not a regular file", self._hint())

    def read_new(self) -> list[SandboxJob]:
        """The jobs in the file that were not returned before.

        Raises:
            RefusedError: the file cannot be read, or has an invalid line.
        """
        with self._errors_explained():
            return self._read(self._open_fd())

    def append(self, job: SandboxJob) -> list[SandboxJob]:
        """Append a job, and return the jobs that other processes appended before it.

        Raises:
            RefusedError: the file could not be written; the job is not in it.
        """
        values = {name: getattr(job, name) for name in _FIELDS} | {"created_at": job.created_at.isoformat()}
        line = json.dumps(values).encode() + b"\n"
        fd = self._open_fd()
        with self._errors_explained():
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                others = self._read(fd)
                os.ftruncate(fd, self._offset)  # removes the incomplete line of a process that was killed
                if os.write(fd, line) != len(line):  # the disk is full; the next append removes what was written
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)
        self._offset += len(line)
        self._lines += 1
        return others

    def close(self) -> None:
        """Close the file. Calling it again has no effect."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _open_fd(self) -> int:
        if self._fd is None:
            raise RefusedError(f"{self.path}: the sandbox is closed")
        return self._fd

    def _read(self, fd: int) -> list[SandboxJob]:
        size = os.fstat(fd).st_size
        if size < self._offset:  # another process truncated the file
            self._offset = self._lines = 0
        data = os.pread(fd, size - self._offset, self._offset) if size > self._offset else b""
        complete = data[: data.rfind(b"\n") + 1]
        jobs = [self._parse(line, number) for number, line in enumerate(complete.splitlines(), self._lines + 1)]
        self._offset += len(complete)
        self._lines += len(jobs)
        return jobs

    def _parse(self, line: bytes, number: int) -> SandboxJob:
        try:
            return _parse_job(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RefusedError(f"{self.path}:{number}: not a job of the sandbox", self._hint()) from error

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{self.path}: the sandbox cannot save its jobs here: {error.strerror or error}"
            raise RefusedError(message, self._hint()) from error

    def _hint(self) -> str:
        return f"Move {self.path} away to start with an empty sandbox, or use another path."


def _parse_job(value: Any) -> SandboxJob:
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
        fails=bool(value.get("fails", False)),  # missing in lines of older versions
    )
