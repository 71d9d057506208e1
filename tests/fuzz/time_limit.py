"""How long one example may take."""

from __future__ import annotations

import time

SECONDS = 1.0  # of the processor


def check_time(started: float, allowed: float = SECONDS) -> None:
    """Fail when more than that has passed since `began`, a `time.process_time()`."""
    took = time.process_time() - started
    assert took < allowed, f"took {took:.2f} s"
