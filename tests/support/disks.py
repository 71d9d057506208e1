"""A small disk of its own, that a test fills, frees and makes read-only; and the same without a disk, by limits."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = 4096
_SIZE = 2 * 2**20


@dataclass(frozen=True)
class Disk:
    """A file system in memory."""

    root: Path

    @property
    def _ballast(self) -> Path:
        return self.root / ".ballast"

    def fill(self, *, but: int = 0) -> None:
        """Use up all space but so many bytes, which are whole pages."""
        handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            with suppress(_FullError):
                while True:
                    _write(handle, bytes(PAGE))
            os.truncate(handle, os.fstat(handle).st_size - but)
        finally:
            os.close(handle)

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Full meanwhile."""
        self.fill()
        try:
            yield
        finally:
            self.free()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Mounted read-only meanwhile."""
        _mount("-o", "remount,ro", self.root)
        try:
            yield
        finally:
            _mount("-o", "remount,rw", self.root)


class _FullError(Exception):
    """There is no space left."""


def _write(handle: int, data: bytes) -> None:
    try:
        os.write(handle, data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _FullError from None


@contextmanager
def mounted(root: Path) -> Iterator[Disk]:
    """A disk mounted at a new folder; the test is skipped where that is not possible."""
    root.mkdir()
    if sys.platform != "linux":
        pytest.skip("only on Linux is a disk mounted for a test")
    try:
        _mount("-t", "tmpfs", "-o", f"size={_SIZE},mode=700", "tmpfs", root)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {getattr(error, 'stderr', None) or error}")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", root], check=True)  # noqa: S607 - the system's own, wherever it is


@contextmanager
def bind_mounted(source: Path, target: Path) -> Iterator[None]:
    """One file or folder shown in another's place; the test is skipped where that is not possible."""
    try:
        _mount("--bind", source, target)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing can be bound here: {getattr(error, 'stderr', None) or error}")
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)  # noqa: S607 - likewise


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)  # noqa: S607 - likewise


@contextmanager
def file_growth_blocked(pid: int) -> Iterator[None]:
    """A process can't make any file longer meanwhile, as on a full disk; skipped where that is not possible."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system does not let a process limit another")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def file_size_limited(size: int) -> Iterator[None]:
    """Programs that are started meanwhile can't make a file longer than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
