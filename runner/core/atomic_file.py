"""Files that are written whole or not at all: a temporary file beside, synced, renamed; and why it could not be."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runner.core.errors import RefusedError

_PROBE = " " * 8192
_BUFFER = 65_536  # bytes that are written at once: 100 MB take half the time that they take in portions of 8 KiB

_HINTS = {
    errno.ENOSPC: "free some space there, or name a file elsewhere with {way}",
    errno.EDQUOT: "free some of your quota there, or name a file elsewhere with {way}",
    errno.EROFS: "name a file on a file system that can be written, with {way}",
    errno.EACCES: "make the folder writable for this user, or name a file elsewhere with {way}",
    errno.EPERM: "make the folder writable for this user, or name a file elsewhere with {way}",
    errno.ENOENT: "make the folder first, or name a file in one that exists with {way}",
    errno.ENOTDIR: "name a file in a folder with {way}",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or name a file elsewhere with {way}",
    errno.ENAMETOOLONG: "name a file with a shorter name with {way}",
}


@dataclass(frozen=True, slots=True)
class AtomicFile:
    """What kind of file is written: its name for a person, the option that names its path, and its mode.

    The mode is what the process's umask leaves of it.
    """

    description: str
    option: str
    mode: int

    def write(self, path: Path, text: Iterable[str]) -> None:
        """Write a file, piece by piece, whole or not at all. A symbolic link at `path` is replaced.

        Raises:
            RefusedError: The file could not be written; what was at `path` before is still there.
        """
        with self._explained(path):
            self._refuse_special(path)
            temporary, file = self._temporary(path)
            try:
                with file:
                    file.writelines(text)
                    _sync(file)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            sync_directory(path.parent)

    def check_writable(self, path: Path) -> None:
        """Make sure, before money is spent, that `write` would find its folder writable and its target a plain file.

        A few kilobytes are written beside `path` and removed, which also meets a full disk and a read-only file system.

        Raises:
            RefusedError: The file could not be written there.
        """
        with self._explained(path):
            self._refuse_special(path)
            self._refuse_anothers(path)
            temporary, file = self._temporary(path)
            try:
                with file:
                    file.write(_PROBE)
                    _sync(file)
            finally:
                temporary.unlink()

    @contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        """Turn what the operating system says into words for a person."""
        try:
            yield
        except OSError as error:
            hint = _HINTS.get(error.errno or 0, "name a file elsewhere with {way}").format(way=self.option)
            raise RefusedError(
                f"{self.description} {path} cannot be written: {error.strerror or error}", hint
            ) from error

    def _refuse_special(self, path: Path) -> None:
        """Refuse what a rename would destroy: a folder, a device, a pipe, a socket, or a link to one."""
        hint = f"name a plain file with {self.option}"
        if path.parent.samefile("/dev"):  # /dev/stdout is a link to a plain file where that is stdout
            raise RefusedError(f"{self.description} {path} would replace a device", hint)
        with suppress(FileNotFoundError):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise RefusedError(f"{self.description} {path} would replace {_special(mode)}", hint)

    def _refuse_anothers(self, path: Path) -> None:
        """Refuse what a folder that all may write in, such as /tmp, lets only its owner replace."""
        folder, user = path.parent.stat(), os.geteuid()
        if folder.st_mode & stat.S_ISVTX and user not in (0, folder.st_uid):
            with suppress(FileNotFoundError):
                if path.lstat().st_uid != user:
                    raise RefusedError(
                        f"{self.description} {path} is another user's, and nobody else can replace it in {path.parent}",
                        f"name a file elsewhere with {self.option}",
                    )

    def _temporary(self, path: Path) -> tuple[Path, IO[str]]:
        """Open a new file beside `path`, which nobody could have made before us."""
        temporary = path.parent / f".pixxel-runner-{secrets.token_hex(8)}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.mode)
        return temporary, open(descriptor, "w", _BUFFER, encoding="utf-8", newline="\n")  # noqa: PTH123 - both callers close it


def sync_directory(folder: Path) -> None:
    """Make durable what was renamed or linked in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot do so has nothing to say
            raise
    finally:
        os.close(descriptor)


def _special(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _sync(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
