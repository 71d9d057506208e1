"""Where a manifest comes from: the commit that holds exactly what was run."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

_PATIENCE = 5.0  # seconds: a repository on a slow disk is no reason to hold up a run


def git_commit(path: str, data: bytes) -> str | None:
    """The id of the checked-out commit if it holds the manifest with exactly these bytes; None otherwise."""
    if path == "-":
        return None
    file = Path(path)
    try:
        done = subprocess.run(
            ["git", "-C", str(file.parent), "rev-parse", "HEAD", f"HEAD:./{file.name}"],  # noqa: S607 - the person's own git, wherever it is
            capture_output=True,
            check=True,
            env=_without_the_key(),
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    commit, _, blob = done.stdout.decode("ascii", "replace").strip().partition("\n")
    return commit if blob == _blob_id(data, len(blob)) else None


def _without_the_key() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PIXXEL_API_KEY"}


def _blob_id(data: bytes, digits: int) -> str:
    """The id that git gives these bytes as a file; a repository's ids are of SHA-1 (40 digits) or SHA-256."""
    hashed = hashlib.sha1(usedforsecurity=False) if digits == 40 else hashlib.sha256()  # noqa: PLR2004 - said above
    hashed.update(b"blob %d\0" % len(data))
    hashed.update(data)
    return hashed.hexdigest()
