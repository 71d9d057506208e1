"""The time limit of a fuzzing example."""

from __future__ import annotations

import time

SECONDS = 1.0  # CPU time


def check_time(started: float, allowed: float = SECONDS) -> None:
    """Fail if more than `allowed` seconds of CPU time have passed since `started`, a `time.process_time()`."""
    elapsed = time.process_time() - started
    assert elapsed < allowed, f"took {elapsed:.2f} s"
