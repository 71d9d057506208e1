"""Writes the jobs in the format of each program: a manifest, a list of URLs, a configuration for curl."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

_SPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
_PROJECTS = 20


def write_manifest(path: Path, jobs: int) -> None:
    """Write a manifest. It is written line by line, to keep this process small: see `ru_maxrss` in processes.py."""
    with path.open("w", encoding="ascii") as file:
        file.write("version: 1\nname: bench\nonce_per: forever\njobs:\n")
        for number, (workflow, project) in enumerate(_pairs(jobs)):
            file.write(f"  - name: job-{number:06}\n    workflow_id: {workflow}\n    project_id: {project}\n")


def write_urls(path: Path, jobs: int, base: str) -> None:
    """Write the URL of each job, one per line."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{url}\n" for url in _urls(jobs, base))


def write_curl_config(path: Path, jobs: int, base: str, key: str) -> None:
    """Write the same requests for `curl --config`."""
    with path.open("w", encoding="ascii") as file:
        file.write(f'request = "POST"\nheader = "Authorization: {key}"\n')
        file.writelines(f'url = "{url}"\n' for url in _urls(jobs, base))


def _urls(jobs: int, base: str) -> Iterator[str]:
    return (f"{base}/v0/workflows/{workflow}/jobs?project_id={project}" for workflow, project in _pairs(jobs))


def _pairs(jobs: int) -> Iterator[tuple[str, str]]:
    """Distinct pairs, the same ones each time."""
    projects = [str(uuid.uuid5(_SPACE, f"project {number}")) for number in range(_PROJECTS)]
    for number in range(jobs):
        yield str(uuid.UUID(int=_SPACE.int + 2**40 * number)), projects[number % _PROJECTS]
