"""The folder `.pixxel-runner` beside a manifest, where the program keeps what is its own. It ignores itself in git."""

from __future__ import annotations

from pathlib import Path

from runner.errors import RefusedError

NAME = ".pixxel-runner"


def beside(manifest_path: str) -> Path:
    """The folder for a manifest; the working directory's for standard input. It need not exist."""
    return (Path() if manifest_path == "-" else Path(manifest_path).parent) / NAME


def make(folder: Path) -> None:
    """Make the folder, private to the person, with a `.gitignore` that hides all of it.

    Raises:
        RefusedError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists() or not ignore.stat().st_size:  # a killed run may have left it empty
            ignore.write_text("*\n", encoding="ascii")
    except OSError as error:
        raise RefusedError(
            f"the folder {folder} cannot be made: {error.strerror}",
            "The program keeps its record there: make it possible to write beside the manifest.",
        ) from None
