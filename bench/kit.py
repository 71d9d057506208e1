"""What every measurement needs: the sizes, a folder for each that is gone afterwards, the servers, the programs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import servers
from bench.errors import BenchError
from bench.processes import Location, run, succeeds
from bench.responses import job_response
from bench.servers import Server
from bench.sizes import Sizes

KEY = "bench-key"
_BASELINES = Path(__file__).with_name("baselines")
_SPACE_FACTOR = 4  # times: the ledger, its log and the results file each hold every answer


@dataclass(frozen=True, slots=True)
class Kit:
    """The benchmark's tools.

    `root` is the folder for temporary ones; `nginx` its path, None to use our own server; `load` is how many programs
    the machine was busy with before the first turn.
    """

    sizes: Sizes
    root: Path
    nginx: str | None
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    @property
    def runner(self) -> str:
        """The path of the command that is measured: the one installed beside this Python."""
        return program("pixxel-runner")

    @contextmanager
    def temporary_directory(self) -> Iterator[Path]:
        """A fresh folder, removed with all that is in it."""
        with tempfile.TemporaryDirectory(prefix="pixxel-bench-", dir=self.root) as path:
            yield Path(path)

    @contextmanager
    def server(self, size: int = 0) -> Iterator[Server]:
        """A fast server, whose answers have `size` bytes, or as many as a plain one has."""
        with self.temporary_directory() as folder:
            if self.nginx is None:
                with servers.run_asyncio(job_response(size), folder) as server:
                    yield server
            else:
                with servers.run_nginx(self.nginx, job_response(size), folder) as server:
                    yield server

    @contextmanager
    def slow_server(self) -> Iterator[Server]:
        """A server that keeps each request for a while. It is always our own."""
        with (
            self.temporary_directory() as folder,
            servers.run_asyncio(job_response(), folder, self.sizes.delay) as server,
        ):
            yield server

    def location(self, folder: Path, server: Server | None = None) -> Location:
        """A folder to run a program in, in an environment of nothing but what is needed."""
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
        }
        if server is not None:
            environment |= {"PIXXEL_API_KEY": KEY, "PIXXEL_BASE_URL": server.url}
        return Location(folder, environment)

    def has(self, command: str) -> bool:
        """Whether pixxel-runner has a command."""
        with self.temporary_directory() as folder:
            return succeeds([self.runner, command, "--help"], self.location(folder))

    def warm_up(self) -> None:
        """Have every Python program compiled and in memory before the first turn."""
        with self.temporary_directory() as folder:
            place = self.location(folder)
            for command in ("run", "validate"):
                run([self.runner, command, "--help"], place)
            run([sys.executable, "-c", "import click, jsonschema, requests, urllib3, yaml"], place)
            run([program("check-jsonschema"), "--version"], place)

    def require_space(self, size: int, jobs: int) -> None:
        """Raise BenchError when the disk has no room for so many answers of a size."""
        needed, free = _SPACE_FACTOR * size * jobs, shutil.disk_usage(self.root).free
        if free < needed:
            raise BenchError(
                f"{needed / 2**30:.1f} GiB of disk are needed for temporary files; {free / 2**30:.1f} free"
            )


def baseline(name: str) -> list[str]:
    """The start of the command of a script in `baselines`."""
    return [sys.executable, "-P", str(_BASELINES / f"{name}.py")]


def program(name: str) -> str:
    """The path of a program: beside this Python, else on the path. Raises BenchError."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise BenchError(f"{name} is not installed")
    return found
