"""What a run, or a preview of one, is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.models import Manifest
from runner.core.settings import Limits, RunOptions
from runner.ledger.location import LedgerLocation


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One manifest to run at one API. `git_commit` is the commit that contains the manifest, for the ledger."""

    manifest: Manifest
    api: str
    ledger: LedgerLocation
    limits: Limits
    options: RunOptions
    git_commit: str | None = None
