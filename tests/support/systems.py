"""Skip markers for tests that need features of the operating system, or a program."""

from __future__ import annotations

import resource
import shutil
import signal
from pathlib import Path

import pytest

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
needs_sigtimedwait = pytest.mark.skipif(
    not hasattr(signal, "sigtimedwait"), reason="this system has no sigtimedwait, which the campaigns need"
)
needs_prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="this system has no prlimit")
