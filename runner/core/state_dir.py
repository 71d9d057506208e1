"""The folder `.pixxel-runner` beside a manifest, where the program keeps what is its own. It ignores itself in git."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runner.core.errors import RefusedError
from runner.core.models import STDIN

STATE_DIR_NAME = ".pixxel-runner"
_ROOT = 0


def locate_state_dir(manifest_path: str) -> Path:
    """The folder for a manifest; the working directory's for standard input. It need not exist."""
    return (Path() if manifest_path == STDIN else Path(manifest_path).parent) / STATE_DIR_NAME


def create_state_dir(folder: Path) -> None:
    """Make the folder, private to the person, with a `.gitignore` that hides all of it.

    Raises:
        RefusedError: it cannot be made, or another user has put one there.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        check_directory_owner(folder)
        # Through a link the folder is another, which may be a repository's own: that one stays as it is.
        if not folder.is_symlink() and _is_unwritten(folder / ".gitignore"):
            _write(folder / ".gitignore", b"*\n")
    except OSError as error:
        raise RefusedError(
            f"the folder {folder} cannot be made: {error.strerror}",
            "The program keeps its record there: make it possible to write beside the manifest.",
        ) from None


def create_subdirectory(folder: Path) -> None:
    """Make a folder inside of that one. Raises RefusedError when it cannot be made."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise RefusedError(
            f"the folder {folder} cannot be made: {error.strerror}",
            "Look at what is there, and at who may write there.",
        ) from None


def check_directory_owner(folder: Path) -> None:
    """Refuse a folder of a user who could not have made the manifest's own: a record in it may be made up, or watched.

    It may belong to the person, to root, or to the owner of the folder in which it is. One that is not there is none.

    Raises:
        RefusedError: it is another user's, or a link that is.
    """
    try:
        trusted = {os.geteuid(), _ROOT, folder.parent.stat().st_uid}
        owners = {folder.lstat().st_uid, folder.stat().st_uid}
    except OSError:
        return  # whoever uses it says so
    if not owners <= trusted:
        raise RefusedError(
            f"the folder {folder} belongs to another user (uid {min(owners - trusted)})",
            "Others may write where the manifest is, and one of them made it: keep manifests in a folder of your own.",
        )


def _write(path: Path, text: bytes) -> None:
    """Write a small file, private to the person whatever the umask; a link in its place is not followed."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(text)


def _is_unwritten(path: Path) -> bool:
    """Whether there is no file, or an empty one, as a killed run may have left it; a link is not followed."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and not found.st_size
