"""The request for each manifest of a command line: shared by `run` and `plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runner.cli import options
from runner.cli.manifests import LoadedManifest
from runner.core.settings import LimitOverrides, RunOptions, resolve_limits
from runner.planning import run_key
from runner.runs.request import RunRequest


def build(
    source: LoadedManifest,
    run_options: RunOptions,
    overrides: LimitOverrides,
    connection: options.Connection,
    ledger: Path | None,
) -> RunRequest:
    """Return the request for a manifest. `ledger` is the one named on the command line or in the environment.

    Raises:
        UsageError: the options contradict each other or the manifest, or name a ledger for the sandbox.
        RefusedError: the ledger would not survive in CI.
    """
    manifest = source.manifest
    run_key.check_options(manifest, run_options)
    return RunRequest(
        manifest=manifest,
        api=connection.api_identity,
        ledger=options.locate_run_ledger(manifest, ledger, sandbox=connection.sandbox),
        limits=resolve_limits(overrides, manifest),
        options=replace(run_options, only=source.only, again=source.again),
    )
