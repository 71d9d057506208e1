"""Builds the sdist and the wheel, checks them, and tries each alone in a fresh virtual environment.

Run by `tox -e package` with a scratch folder as its argument; it is no pytest module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PARTS = ("runner/py.typed", "runner/schemas/manifest.schema.json", "runner/schemas/results.schema.json")


def main(scratch: Path) -> None:
    """Build, check and try; raises on the first thing that is wrong."""
    shutil.rmtree(scratch / "work", ignore_errors=True)
    work = scratch / "work"
    work.mkdir(parents=True)
    run(sys.executable, "-m", "build", "--outdir", work / "dist", CHECKOUT, cwd=work)
    sdist, wheel = next((work / "dist").glob("*.tar.gz")), next((work / "dist").glob("*.whl"))
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=work)
    check_contents(sdist, wheel)
    for package in (wheel, sdist):
        try_alone(package, work / package.suffix.lstrip("."))
    print("package: the wheel and the sdist are whole, and each runs the main job alone")


def check_contents(sdist: Path, wheel: Path) -> None:
    """See that nothing is missing, and that the tests and other people's files are not in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    missing = [part for part in PARTS if part not in names]
    strangers = [name for name in names if not name.startswith(("runner/", "pixxel_runner-"))]
    if missing or strangers:
        raise SystemExit(f"wheel: missing {missing}, not ours {strangers}")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    missing = [part for part in ("schemas/manifest.schema.json", "README.md", "pyproject.toml") if part not in inside]
    if missing:
        raise SystemExit(f"sdist: missing {missing}")


def try_alone(package: Path, home: Path) -> None:
    """Install one package with nothing beside it, and run the main job from an empty folder."""
    venv.create(home / "venv", with_pip=True)
    tools = home / "venv" / "bin"
    run(tools / "python", "-m", "pip", "install", "--quiet", package, cwd=home)
    run(tools / "pixxel-runner", "init", "jobs.yaml", cwd=home)
    run(tools / "pixxel-runner", "validate", "jobs.yaml", cwd=home)
    run(tools / "pixxel-runner", "schema", "results", cwd=home, stdout=subprocess.DEVNULL)
    run(tools / "pixxel-runner", "run", "jobs.yaml", "--sandbox", cwd=home)
    if not (home / "jobs.sandbox.results.json").exists():
        raise SystemExit("the run left no results file")


def run(*command: str | Path, cwd: Path, stdout: int | None = None) -> None:
    """Run a command from a folder outside the checkout, and without what would lead Python back to it."""
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CI")}
    subprocess.run([str(part) for part in command], cwd=cwd, env=environment, stdout=stdout, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
