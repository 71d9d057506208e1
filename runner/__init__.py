"""pixxel-runner as a library: `from runner import load_manifest, run`. See docs/library.md."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.core.errors import ManifestError, Problem, RefusedError, RunnerError, UsageError
    from runner.core.exit_codes import Exit
    from runner.core.models import (
        Created,
        Entry,
        ErrorInfo,
        InDoubt,
        Job,
        LimitOverrides,
        Manifest,
        NotCreated,
        Skipped,
    )
    from runner.core.settings import RunOptions
    from runner.ledger.lock import LockedError
    from runner.library import (
        SANDBOX,
        ApiAccess,
        NullObserver,
        Result,
        StopToken,
        load_manifest,
        preview,
        run,
    )
    from runner.planning.planned_jobs import PlannedJob, Preview
    from runner.runs.summary import Summary

__all__ = [
    "SANDBOX",
    "ApiAccess",
    "Created",
    "Entry",
    "ErrorInfo",
    "Exit",
    "InDoubt",
    "Job",
    "LimitOverrides",
    "LockedError",
    "Manifest",
    "ManifestError",
    "NotCreated",
    "NullObserver",
    "PlannedJob",
    "Preview",
    "Problem",
    "RefusedError",
    "Result",
    "RunOptions",
    "RunnerError",
    "Skipped",
    "StopToken",
    "Summary",
    "UsageError",
    "load_manifest",
    "preview",
    "run",
]

# The module of each name. It is imported on first use, so that the command line starts fast.
_HOMES = {
    "runner.core.errors": ("ManifestError", "Problem", "RefusedError", "RunnerError", "UsageError"),
    "runner.planning.planned_jobs": ("PlannedJob", "Preview"),
    "runner.ledger.lock": ("LockedError",),
    "runner.core.models": (
        "Created",
        "Entry",
        "ErrorInfo",
        "InDoubt",
        "Job",
        "LimitOverrides",
        "Manifest",
        "NotCreated",
        "Skipped",
    ),
    "runner.runs.summary": ("Summary",),
    "runner.core.settings": ("RunOptions",),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "runner.library")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
