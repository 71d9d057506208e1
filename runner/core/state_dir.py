"""The directory `.pixxel-runner` beside a manifest, which holds the program's own files and is hidden from git."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runner.core.errors import RefusedError
from runner.core.models import STDIN

STATE_DIR_NAME = ".pixxel-runner"
_ROOT = 0


def locate_state_dir(manifest_path: str) -> Path:
    """Return a manifest's directory; for standard input, the one in the working directory. It need not exist."""
    return (Path() if manifest_path == STDIN else Path(manifest_path).parent) / STATE_DIR_NAME


def create_state_dir(directory: Path) -> None:
    """Create the directory, readable by this user only, with a `.gitignore` that hides everything in it.

    Raises:
        RefusedError: it cannot be created, or it belongs to another user.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        check_directory_owner(directory)
        # A link may lead to a directory of the repository, which git must go on seeing.
        if not directory.is_symlink() and _is_missing_or_empty(directory / ".gitignore"):
            _write_private(directory / ".gitignore", b"*\n")
    except OSError as error:
        raise _creation_error(directory, error) from None


def create_subdirectory(directory: Path) -> None:
    """Create a directory inside the state directory. Raises RefusedError when that fails."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _creation_error(directory, error) from None


def check_directory_owner(directory: Path) -> None:
    """Refuse a directory of a user who could forge or read the ledger in it.

    It may belong to this user, to root, or to the owner of its parent. A missing directory is fine.

    Raises:
        RefusedError: it, or the link to it, belongs to someone else.
    """
    try:
        trusted = {os.geteuid(), _ROOT, directory.parent.stat().st_uid}
        owners = {directory.lstat().st_uid, directory.stat().st_uid}
    except OSError:
        return  # reported when the directory is used
    if not owners <= trusted:
        raise RefusedError(
            f"the directory {directory} belongs to another user (uid {min(owners - trusted)})",
            "Move the manifest to a directory that only you can write to.",
        )


def _creation_error(directory: Path, error: OSError) -> RefusedError:
    hint = "Check that no file has this name and that you can write to the parent directory."
    return RefusedError(f"the directory {directory} cannot be created: {error.strerror}", hint)


def _write_private(path: Path, data: bytes) -> None:
    """Write a small file with mode 600 whatever the umask, without following a link."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(data)


def _is_missing_or_empty(path: Path) -> bool:
    """Whether there is no file, or an empty one as a killed run leaves it; links are not followed."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(status.st_mode) and not status.st_size
