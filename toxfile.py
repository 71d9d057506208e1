"""A plugin of tox, which loads it by its name: Pythons that pyenv installed are found without being on PATH.

tox looks on PATH, and where uv installs Pythons. Of pyenv it sees only the versions that are selected, by
`pyenv global` or a `.python-version`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pluggy import HookimplMarker

hookimpl = HookimplMarker("tox")
_VERSION = re.compile(r"3\.(1[1-9]|[2-9]\d)\.(\d+)")  # no older ones are supported


@hookimpl
def tox_add_core_config(state: Any) -> None:
    """Have tox try these Pythons, too."""
    state.conf.options.discover.extend(map(str, find_pythons()))


def find_pythons() -> list[Path]:
    """Return the executables of the Pythons that pyenv installed, the newest first."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    versions = [version for path in root.glob("versions/*") if (version := _VERSION.fullmatch(path.name))]
    versions.sort(key=lambda version: (int(version[1]), int(version[2])), reverse=True)
    pythons = [root / "versions" / version[0] / "bin" / f"python3.{version[1]}" for version in versions]
    return [python for python in pythons if python.exists()]
