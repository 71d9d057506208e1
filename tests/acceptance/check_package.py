"""Builds the sdist and the wheel twice, checks them, and tries each alone in a fresh virtual environment.

Run by `tox -e package` with a scratch folder as its argument; it is no pytest module.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SOURCES = ("runner", "schemas", "LICENSE", "README.md", "pyproject.toml", ".gitignore")
PACKAGES = {"runner": "runner", "schemas": "runner/schemas"}  # where each folder is in the wheel
# Another person's machine, as far as one machine can be that.
ELSEWHERE = {"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "4711", "HOME": "/nonexistent"}
# What lies about in a folder that is worked in, and must not be published.
LITTER = (
    ".env",
    "nightly.yaml",
    "runner/.pixxel-runner/ledger.db",
    "runner/__pycache__/api.cpython-311.pyc",
    "runner/cli/jobs.results.json",
    "runner/reports/formats/html/key",
    "schemas/jobs.results.json",
)


def main(scratch: Path) -> None:
    """Build, check and try; raises on the first thing that is wrong."""
    work = scratch / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    sdist, wheel = build(CHECKOUT, work / "dist", work)
    check_bytes([sdist, wheel], work)
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=work)
    check_contents(sdist, wheel)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda package: try_alone(package, work / package.suffix.lstrip(".")), (wheel, sdist)))
    print("package: the wheel and the sdist are whole, the same from anywhere, and each runs the main job alone")


def build(sources: Path, folder: Path, cwd: Path, *options: str) -> tuple[Path, Path]:
    """Build with the backend that is installed here, which requirements/package.txt pins."""
    run(sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", folder, sources, cwd=cwd)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def check_bytes(packages: list[Path], work: Path) -> None:
    """Build again from a copy in another folder, of other times and modes and with litter in it; compare the bytes."""
    sources = work / "another place" / "checkout"
    for part in SOURCES:
        copy(CHECKOUT / part, sources / part)
    for part in LITTER:
        (sources / part).parent.mkdir(exist_ok=True)
        (sources / part).write_bytes(b"PIXXEL_API_KEY=canary")
    for file in sources.rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o600)
        os.utime(file, (1, 2_000_000_000))
    before, umask = dict(os.environ), os.umask(0o077)
    os.environ.update(ELSEWHERE)
    try:
        # Both from the folder itself: by default `build` makes the wheel from the sdist, as it did the first time.
        again = build(sources, work / "again", work, "--sdist", "--wheel")
    finally:
        os.umask(umask)
        os.environ.clear()
        os.environ.update(before)
    for package, other in zip(packages, again, strict=True):
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (package, other)]
        print(digests[0], package.name)
        if digests[0] != digests[1]:
            raise SystemExit(f"{package.name} is not the same from another folder: {package} and {other}")


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder without what Python leaves in it."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def check_contents(sdist: Path, wheel: Path) -> None:
    """See that every file of the packages is in the wheel (its modules, schemas, page and starter), and no other."""
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.namelist()
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in entries):
        raise SystemExit("wheel: no LICENSE")
    names = {name for name in entries if not name.startswith("pixxel_runner-")}
    ours = set(packaged())
    if names != ours:
        raise SystemExit(f"wheel: missing {sorted(ours - names)}, not ours {sorted(names - ours)}")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    missing = [part for part in (*packaged(map_schemas=False), *SOURCES[2:]) if part not in inside]
    strangers = [name for name in inside if name not in ("", "PKG-INFO") and not name.startswith(SOURCES)]
    if missing or strangers:
        raise SystemExit(f"sdist: missing {missing}, not ours {strangers}")


def packaged(*, map_schemas: bool = True) -> Iterator[str]:
    """The files of the packages, as the wheel names them or as the checkout does."""
    for folder, place in PACKAGES.items():
        for file in (CHECKOUT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                inside = file.relative_to(CHECKOUT / folder).as_posix()
                yield f"{place if map_schemas else folder}/{inside}"


def try_alone(package: Path, home: Path) -> None:
    """Install one package with nothing beside it, and run the main job from an empty folder."""
    venv.create(home / "venv", with_pip=True)
    tools = home / "venv" / "bin"
    run(tools / "python", "-m", "pip", "install", "--quiet", package, cwd=home)
    run(tools / "pixxel-runner", "init", "jobs.yaml", cwd=home)
    run(tools / "pixxel-runner", "validate", "jobs.yaml", cwd=home)
    run(tools / "pixxel-runner", "schema", "results", cwd=home, stdout=subprocess.DEVNULL)
    run(tools / "pixxel-runner", "run", "jobs.yaml", "--sandbox", "--report", "html=report.html", cwd=home)
    if not (home / "jobs.sandbox.results.json").exists() or not (home / "report.html").exists():
        raise SystemExit("the run left no results file, or no report")


def run(*command: str | Path, cwd: Path, stdout: int | None = None) -> None:
    """Run a command from a folder outside the checkout, and without what would lead Python back to it."""
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CI")}
    subprocess.run([str(part) for part in command], cwd=cwd, env=environment, stdout=stdout, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
