"""Where a manifest comes from: the commit that holds exactly what was run.

git reads the settings of the repository that a manifest lies in, and some of them are commands that it would run. A
manifest is data, and pulling a stranger's must run nothing: what a repository could make git do here is off.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

_TIMEOUT = 5.0  # seconds: a repository on a slow disk is no reason to hold up a run

# Objects that a partial clone lacks are fetched by commands of its settings (core.sshCommand, remote.*.uploadpack). The
# second says so to versions of git that do not know the first: it allows no way of fetching, whatever is set.
_NO_FETCHING = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
# Another tree in the place of the commit's own would be a false claim; an index is not read, and not watched.
_AS_IT_IS = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
_QUIET = ["--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]

# What a hook of git is told of its own repository, which need not be the manifest's (git rev-parse --local-env-vars).
_OF_ANOTHER_REPOSITORY = frozenset(
    f"GIT_{name}"
    for name in (
        "ALTERNATE_OBJECT_DIRECTORIES",
        "COMMON_DIR",
        "DIR",
        "GRAFT_FILE",
        "IMPLICIT_WORK_TREE",
        "INDEX_FILE",
        "INTERNAL_SUPER_PREFIX",
        "NAMESPACE",
        "OBJECT_DIRECTORY",
        "PREFIX",
        "REPLACE_REF_BASE",
        "SHALLOW_FILE",
        "WORK_TREE",
    )
)
_SECRETS = ("PIXXEL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")  # a proxy's address may hold a password


def find_commit(path: str, data: bytes) -> str | None:
    """The id of the checked-out commit if it holds the manifest with exactly these bytes; None otherwise."""
    if path == "-":
        return None
    file = Path(path)
    try:
        done = subprocess.run(
            ["git", *_QUIET, "-C", str(file.parent), "rev-parse", "HEAD", f"HEAD:./{file.name}"],  # noqa: S607 - the person's own git, wherever it is
            capture_output=True,
            check=True,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
        )
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: a path that no command line can hold
        return None
    commit, _, blob = done.stdout.decode("ascii", "replace").strip().partition("\n")
    return commit if blob == _blob_id(data, len(blob)) else None


def _environment() -> dict[str, str]:
    """The person's, without the key and without what is of another repository."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_ANOTHER_REPOSITORY and not name.upper().startswith(_SECRETS)
    }
    return {**kept, **_NO_FETCHING, **_AS_IT_IS}


def _blob_id(data: bytes, digits: int) -> str:
    """The id that git gives these bytes as a file; a repository's ids are of SHA-1 (40 digits) or SHA-256."""
    hashed = hashlib.sha1(usedforsecurity=False) if digits == 40 else hashlib.sha256()  # noqa: PLR2004 - said above
    hashed.update(b"blob %d\0" % len(data))
    hashed.update(data)
    return hashed.hexdigest()
