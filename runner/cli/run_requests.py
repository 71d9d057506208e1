"""Makes the request for each manifest of a command line: shared by `run` and `plan`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from runner.cli import options
from runner.cli.manifests import LoadedManifest
from runner.core.models import LimitOverrides
from runner.core.settings import RunOptions, resolve_limits
from runner.ledger.location import is_ci
from runner.planning import run_key
from runner.runs.request import RunRequest


def build_request(
    loaded: LoadedManifest,
    run_options: RunOptions,
    overrides: LimitOverrides,
    connection: options.Connection,
    ledger: Path | None,
) -> RunRequest:
    """Return the request for a manifest. `ledger` is the one given on the command line or in the environment.

    Raises:
        UsageError: the options contradict each other or the manifest, or name a ledger for the sandbox.
        RefusedError: a CI system would delete the ledger after the run.
    """
    manifest = loaded.manifest
    run_key.check_options(manifest, run_options)
    location = options.locate_ledger(manifest.path, ledger, sandbox=connection.sandbox)
    location.require_explicit_in_ci(manifest, ci=is_ci(os.environ) and not connection.sandbox)
    return RunRequest(
        manifest=manifest,
        api=connection.api_identity,
        ledger=location,
        limits=resolve_limits(overrides, manifest),
        options=replace(run_options, only=loaded.only, again=loaded.again),
    )
