"""Very many jobs with lost answers, in small: what is held does not grow, and all are accounted for, in order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import load

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc here to look at")


def test_a_load_in_small(tmp_path: Path) -> None:
    done = load.run(tmp_path, jobs=600, concurrency=16, every=0.02)
    sys.stdout.write(f"{done}\n")
    assert done.samples
    assert done.doubts == done.faults["reset"] + done.faults["bad-gateway"] > 0
