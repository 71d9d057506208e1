"""Describes the machine and the versions of the programs, without host names or paths."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path

import yaml

from bench.kit import Kit, program

_DISTRIBUTIONS = ("pixxel-runner", "click", "jsonschema", "PyYAML", "urllib3", "requests", "check-jsonschema")
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+")


def describe(kit: Kit) -> list[tuple[str, str]]:
    """The facts as (name, value) pairs."""
    return [
        ("processor", f"{_processor()}, {_cores()} cores"),
        ("load before", f"{kit.load:.2f}"),
        ("memory", f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"),
        ("file system", _file_system(kit.root)),
        ("system", f"{_system()}, {platform.system()} {platform.release()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        *((name, metadata.version(name)) for name in _DISTRIBUTIONS),
        ("libyaml", "yes" if getattr(yaml, "__with_libyaml__", False) else "no"),
        ("SQLite", sqlite3.sqlite_version),
        ("curl", _version([program("curl"), "--version"])),
        ("server", server_name(kit)),
    ]


def server_name(kit: Kit) -> str:
    """The name and version of the server that receives the jobs."""
    return "asyncio, bundled with the benchmark" if kit.nginx is None else f"nginx {_version([kit.nginx, '-v'])}"


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux may restrict a process to some cores
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> str:
    try:
        output = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        output = ""
    match = re.search(r"^model name\s*: *(.+)$", output, re.MULTILINE)
    return match[1] if match else platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _file_system(path: Path) -> str:
    """The type of the file system at a path."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "unknown"
    real = path.resolve()
    candidates = [(mount, kind) for _, mount, kind, *_ in mounts if real.is_relative_to(mount)]
    kind = max(candidates, key=lambda candidate: len(candidate[0]))[1]
    return f"{kind} (in memory: syncing costs nothing)" if kind in ("tmpfs", "ramfs") else kind


def _version(command: list[str]) -> str:
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    match = _VERSION.search(output.stdout + output.stderr)
    return match[0] if match else "unknown"
