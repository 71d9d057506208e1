"""Writes the software bill of materials (SBOM, CycloneDX) of the packages pinned in requirements/runtime.txt.

    python -m support.sbom SCRATCH FILE

`tox -e sbom` runs it. It installs the pinned releases, verified by hash, in a fresh environment; cyclonedx-py reads
their metadata and validates its output against the CycloneDX schema. The output is reproducible byte for byte.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from support import locks
from support.pages import CHECKOUT

DYNAMIC = 'dynamic = ["version"]\n'


def main(scratch: Path, file: Path) -> None:
    """Write and check the SBOM; raises on the first problem."""
    environment = scratch / "run"
    venv.create(environment, clear=True, with_pip=False)
    run(
        *("pip", "--python", environment, "install", "--quiet"),
        *("--require-hashes", "--requirement", locks.DIRECTORY / "runtime.txt"),
    )
    file.parent.mkdir(exist_ok=True)
    run(
        *("cyclonedx_py", "environment", "--pyproject", project(scratch), "--mc-type", "application"),
        *("--output-reproducible", "--validate", "--output-file", file, environment),
    )
    check(json.loads(file.read_text(encoding="utf-8")))
    sys.stdout.write(f"{file}: valid; lists the packages pinned in requirements/runtime.txt\n")


def project(scratch: Path) -> Path:
    """Write a pyproject.toml with a static version, as cyclonedx-py cannot read the dynamic one."""
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    if DYNAMIC not in text:
        raise SystemExit(f"pyproject.toml has no line {DYNAMIC!r}")
    path = scratch / "pyproject.toml"
    path.write_text(text.replace(DYNAMIC, f"version = {json.dumps(version())}\n"), encoding="utf-8")
    return path


def version() -> str:
    """The program's version; the program itself is not installed here."""
    names: dict[str, Any] = {}
    exec((CHECKOUT / "runner" / "version.py").read_text(encoding="utf-8"), names)  # noqa: S102 - our own file
    return str(names["VERSION"])


def check(document: dict[str, Any]) -> None:
    """Check that it lists exactly the packages pinned for this Python, each with a license, and no local paths."""
    listed = {canonicalize_name(component["name"]): component["version"] for component in document["components"]}
    pinned = {name: pin.version for name, pin in locks.read("runtime.txt").items() if pin.applies}
    unlicensed = [component["name"] for component in document["components"] if not component.get("licenses")]
    if listed != pinned or unlicensed or document["metadata"]["component"]["version"] != version():
        raise SystemExit(f"sbom: listed {listed}, pinned {pinned}, without a license {unlicensed}")
    if "file:" in json.dumps(document):
        raise SystemExit("sbom: it contains local file paths")


def run(*words: str | Path) -> None:
    """Run a module with this Python."""
    subprocess.run([sys.executable, "-m", *map(str, words)], cwd=CHECKOUT, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
