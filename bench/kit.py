"""What every measurement needs: sizes, temporary directories, servers, and programs."""

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
_SPACE_FACTOR = 4  # the ledger, its log and the results file each hold every response


@dataclass(frozen=True, slots=True)
class Kit:
    """The benchmark's tools.

    `root` is the parent of temporary directories; `nginx` its path, or None to use the bundled server; `load` is the
    load average before the first turn.
    """

    sizes: Sizes
    root: Path
    nginx: str | None
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    @property
    def runner(self) -> str:
        """The path of the measured command, which is installed next to this Python."""
        return program("pixxel-runner")

    @contextmanager
    def temporary_directory(self) -> Iterator[Path]:
        """A temporary directory, removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="pixxel-bench-", dir=self.root) as path:
            yield Path(path)

    @contextmanager
    def server(self, size: int = 0) -> Iterator[Server]:
        """A fast server whose responses have `size` bytes, or the usual size if that is larger."""
        with self.temporary_directory() as directory:
            if self.nginx is None:
                with servers.run_asyncio(job_response(size), directory) as server:
                    yield server
            else:
                with servers.run_nginx(self.nginx, job_response(size), directory) as server:
                    yield server

    @contextmanager
    def slow_server(self) -> Iterator[Server]:
        """A server that delays each response. It is always the bundled one."""
        with (
            self.temporary_directory() as directory,
            servers.run_asyncio(job_response(), directory, self.sizes.delay) as server,
        ):
            yield server

    def location(self, directory: Path, server: Server | None = None) -> Location:
        """A directory and a minimal environment to run a program in."""
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(directory),
            "LANG": "C.UTF-8",
        }
        if server is not None:
            environment |= {"PIXXEL_API_KEY": KEY, "PIXXEL_BASE_URL": server.url}
        return Location(directory, environment)

    def has(self, command: str) -> bool:
        """Whether pixxel-runner has a command."""
        with self.temporary_directory() as directory:
            return succeeds([self.runner, command, "--help"], self.location(directory))

    def warm_up(self) -> None:
        """Run every Python program once, so that it is compiled and cached before the first turn."""
        with self.temporary_directory() as directory:
            location = self.location(directory)
            for command in ("run", "validate"):
                run([self.runner, command, "--help"], location)
            run([sys.executable, "-c", "import click, jsonschema, requests, urllib3, yaml"], location)
            run([program("check-jsonschema"), "--version"], location)

    def require_space(self, size: int, jobs: int) -> None:
        """Raise BenchError if the disk has no space for `jobs` responses of `size` bytes."""
        needed, free = _SPACE_FACTOR * size * jobs, shutil.disk_usage(self.root).free
        if free < needed:
            raise BenchError(
                f"{needed / 2**30:.1f} GiB of disk space needed for temporary files; {free / 2**30:.1f} free"
            )


def baseline(name: str) -> list[str]:
    """The start of the command line of a script in `baselines`."""
    return [sys.executable, "-P", str(_BASELINES / f"{name}.py")]


def program(name: str) -> str:
    """The path of a program: next to this Python, else in PATH. Raises BenchError."""
    local = Path(sys.executable).parent / name
    path = str(local) if local.exists() else shutil.which(name)
    if path is None:
        raise BenchError(f"{name} is not installed")
    return path
