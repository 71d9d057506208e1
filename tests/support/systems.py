"""What tests need of the system they run on. A test is skipped, and says why, where there is no such thing."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
needs_sigtimedwait = pytest.mark.skipif(
    not hasattr(signal, "sigtimedwait"), reason="this system has no sigtimedwait, with which the campaigns wait"
)
needs_prlimit = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="this system does not let a process limit another"
)
