"""A small load test with lost responses: memory does not grow, and all jobs are accounted for, in order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import load

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def test_small_load(tmp_path: Path) -> None:
    done = load.run(tmp_path, jobs=600, concurrency=16, every=0.02)
    sys.stdout.write(f"{done}\n")
    assert done.samples
    assert done.recovered == done.faults["reset"] + done.faults["bad-gateway"] > 0
