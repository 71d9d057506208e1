"""Finds the git commit that contains the manifest of a run.

git reads the configuration of the repository that a manifest is in, which can name commands to execute. A manifest is
data, and one from a stranger's repository must not execute anything: whatever could is turned off here.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

from runner.core.models import STDIN

_TIMEOUT = 5.0  # seconds: a repository on a slow disk must not delay a run for longer

# A partial clone fetches missing objects with commands of its configuration (core.sshCommand, remote.*.uploadpack).
# Versions of git that do not know the first variable obey the second, which allows no protocol.
_NO_FETCHING = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
# A replacement object in place of the commit's own tree would give a wrong answer; the index is not needed.
_UNMODIFIED = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
_NO_COMMANDS = ["--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]

# Set in git hooks for their own repository, which may not be the manifest's (git rev-parse --local-env-vars).
_REPOSITORY_VARIABLES = re.compile(
    "GIT_(ALTERNATE_OBJECT_DIRECTORIES|COMMON_DIR|DIR|GRAFT_FILE|IMPLICIT_WORK_TREE|INDEX_FILE|INTERNAL_SUPER_PREFIX|"
    "NAMESPACE|OBJECT_DIRECTORY|PREFIX|REPLACE_REF_BASE|SHALLOW_FILE|WORK_TREE)"
)
_SECRETS = ("PIXXEL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")  # a proxy's URL may contain a password


def find_commit(path: str, data: bytes) -> str | None:
    """The id of the checked-out commit if it contains the manifest with exactly these bytes; None otherwise."""
    if path == STDIN:
        return None
    file = Path(path)
    try:
        process = subprocess.run(
            ["git", *_NO_COMMANDS, "-C", str(file.parent), "rev-parse", "HEAD", f"HEAD:./{file.name}"],  # noqa: S607 - the user's own git, wherever it is
            capture_output=True,
            check=True,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT,
        )
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: a path that no command line can contain
        return None
    commit, _, blob = process.stdout.decode("ascii", "replace").strip().partition("\n")
    return commit if blob == _blob_id(data, len(blob)) else None


def _environment() -> dict[str, str]:
    """The environment without secrets and without the variables of another repository."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not _REPOSITORY_VARIABLES.fullmatch(name) and not name.upper().startswith(_SECRETS)
    }
    return {**inherited, **_NO_FETCHING, **_UNMODIFIED}


def _blob_id(data: bytes, digits: int) -> str:
    """The id of these bytes as a git blob: SHA-1 (40 digits) or SHA-256, as the repository's ids are."""
    digest = hashlib.sha1(usedforsecurity=False) if digits == 40 else hashlib.sha256()  # noqa: PLR2004 - see above
    digest.update(b"blob %d\0" % len(data))
    digest.update(data)
    return digest.hexdigest()
