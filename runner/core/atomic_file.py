"""Atomic files: written completely or not at all, through a temporary file in the same directory."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runner.core.errors import RefusedError

_PROBE = " " * 8192
_BUFFER = 65_536  # bytes; the default of 8 KiB takes twice as long for 100 MB

_REMEDIES = {
    errno.ENOSPC: "Free some disk space",
    errno.EDQUOT: "Free some of your disk quota",
    errno.EACCES: "Make the directory writable for this user",
    errno.EPERM: "Make the directory writable for this user",
    errno.ENOENT: "Create the directory",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f)",
}


@dataclass(frozen=True, slots=True)
class AtomicFile:
    """A kind of file: how messages describe it, the option that sets its path, and its mode.

    The process's umask is applied to the mode.
    """

    description: str
    option: str
    mode: int

    def write(self, path: Path, text: Iterable[str]) -> None:
        """Write a file from pieces of text. A symbolic link at `path` is replaced.

        Raises:
            RefusedError: the file could not be written; whatever was at `path` is unchanged.
        """
        with self._temporary(path, text) as temporary:
            temporary.replace(path)
            sync_directory(path.parent)

    def check_writable(self, path: Path) -> None:
        """Check, before anything is sent, that `write` would succeed.

        Writes a few kilobytes beside `path` and removes them, which also detects a full or read-only file system.

        Raises:
            RefusedError: the file could not be written.
        """
        with self._temporary(path, [_PROBE]) as temporary:
            self._check_owner(path)
            temporary.unlink()

    @contextmanager
    def _temporary(self, path: Path, text: Iterable[str]) -> Iterator[Path]:
        """Write a temporary file beside `path`; remove it when that, or the block, fails."""
        temporary = path.parent / f".pixxel-runner-{secrets.token_hex(8)}.tmp"
        try:
            self._check_type(path)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.mode)
            try:
                with open(descriptor, "w", _BUFFER, encoding="utf-8", newline="\n") as file:  # noqa: PTH123 - of a descriptor
                    file.writelines(text)
                    file.flush()
                    os.fsync(descriptor)
                yield temporary
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0)
            hint = f"{remedy}, or choose another path with {self.option}." if remedy else self._other_path
            message = f"{self.description} {path} cannot be written: {error.strerror or error}"
            raise RefusedError(message, hint) from error

    @property
    def _other_path(self) -> str:
        return f"Choose another path with {self.option}."

    def _check_type(self, path: Path) -> None:
        """Refuse to replace anything but a regular file, or a link to one."""
        if path.parent.samefile("/dev"):  # /dev/stdout links to a regular file when stdout is redirected to one
            raise RefusedError(f"{self.description} {path} would replace a device", self._other_path)
        with suppress(FileNotFoundError):
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise RefusedError(f"{self.description} {path} would replace {_file_type(mode)}", self._other_path)

    def _check_owner(self, path: Path) -> None:
        """Refuse a file of another user in a sticky directory such as /tmp, where only its owner can replace it."""
        directory, user = path.parent.stat(), os.geteuid()
        if directory.st_mode & stat.S_ISVTX and user not in (0, directory.st_uid):
            with suppress(FileNotFoundError):
                if path.lstat().st_uid != user:
                    message = f"{self.description} {path} belongs to another user, and only that user can replace it"
                    raise RefusedError(message, self._other_path)


def sync_directory(directory: Path) -> None:
    """Flush renames and links in a directory to disk, on file systems that support it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _file_type(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
