"""Full and read-only disks: a small tmpfs mounted for a test, or file size limits where mounting is not possible."""

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
    """A mounted tmpfs."""

    root: Path

    @property
    def _ballast(self) -> Path:
        return self.root / ".ballast"

    def fill(self, *, but: int = 0) -> None:
        """Fill the disk, leaving `but` bytes free (a multiple of PAGE)."""
        handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            with suppress(_FullError):
                while True:
                    _write(handle, bytes(PAGE))
            os.truncate(handle, os.fstat(handle).st_size - but)
        finally:
            os.close(handle)

    def free(self) -> None:
        """Free the space again."""
        self._ballast.unlink()

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Keep the disk full within the context."""
        self.fill()
        try:
            yield
        finally:
            self.free()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Keep the disk mounted read-only within the context."""
        _mount("-o", "remount,ro", self.root)
        try:
            yield
        finally:
            _mount("-o", "remount,rw", self.root)


class _FullError(Exception):
    """No space left on the device."""


def _write(handle: int, data: bytes) -> None:
    try:
        os.write(handle, data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _FullError from None


@contextmanager
def mounted(root: Path) -> Iterator[Disk]:
    """Mount a tmpfs at a new directory, or skip the test if that is not possible."""
    root.mkdir()
    if sys.platform != "linux":
        pytest.skip("mounting a disk needs Linux")
    try:
        _mount("-t", "tmpfs", "-o", f"size={_SIZE},mode=700", "tmpfs", root)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a disk: {getattr(error, 'stderr', None) or error}")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", root], check=True)  # noqa: S607 - the system's command, from PATH


@contextmanager
def bind_mounted(source: Path, target: Path) -> Iterator[None]:
    """Bind-mount a file or directory over another, or skip the test if that is not possible."""
    try:
        _mount("--bind", source, target)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot bind-mount: {getattr(error, 'stderr', None) or error}")
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)  # noqa: S607 - likewise


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)  # noqa: S607 - likewise


@contextmanager
def file_growth_blocked(pid: int) -> Iterator[None]:
    """Keep a process from growing any file, as on a full disk; skips the test if that is not possible."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("this system has no prlimit")
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def file_size_limited(size: int) -> Iterator[None]:
    """Limit the size in bytes of files written by programs started within the context."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
