"""Fuzzes the manifest loader: any bytes are a valid manifest or give problems, within the time limit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from fuzz.time_limit import check_time

from runner.cli import problem_format
from runner.manifest import loader

CASES = Path(__file__).parents[1] / "cases" / "manifest"
MAX_LENGTH = 4096


def seeds() -> Iterator[bytes]:
    for path in sorted(CASES.glob("*/*.yaml")):
        data = path.read_bytes()
        if len(data) <= MAX_LENGTH:
            yield data


def check(data: bytes) -> None:
    started = time.process_time()
    checked = loader.check(data, "jobs.yaml")
    check_time(started)
    assert (checked.manifest is None) == bool(checked.problems)
    for problem in (*checked.problems, *checked.warnings):
        assert problem_format.format_line(problem).isprintable(), problem
    if yaml.__with_libyaml__:
        assert checked == loader.check(data, "jobs.yaml", libyaml=False)
