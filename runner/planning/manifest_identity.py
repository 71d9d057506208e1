"""Whether a manifest is the one that the ledger knows by its name: renamed files and twins would buy jobs twice."""

from __future__ import annotations

from pathlib import Path

from runner.core.errors import RefusedError
from runner.core.models import STDIN, Manifest
from runner.ledger.store import Ledger


def resolve_path(path: str) -> str:
    """A manifest's path as the ledger keeps it."""
    return path if path == STDIN else str(Path(path).resolve())


def check_identity(ledger: Ledger, api: str, manifest: Manifest, *, new: bool = False) -> None:
    """See that the manifest's record is its own. `new`: a person says that it begins anew.

    Raises:
        RefusedError: another existing file has its name, or the ledger knows it by another: its file was renamed, or
            it was given a name.
    """
    paths = ledger.manifest_paths(api)
    if manifest.name in paths:
        _refuse_twin(manifest, paths[manifest.name])
        return
    if not new:
        _refuse_named(ledger, api, manifest, paths)
    if not manifest.has_explicit_name:
        _refuse_renamed(ledger, api, manifest, paths)


def _refuse_twin(manifest: Manifest, known: str) -> None:
    if STDIN in (known, manifest.path) or _is_gone(known) or _is_same(known, manifest.path):
        return
    raise RefusedError(
        f"two manifests are named {manifest.name}: {manifest.path}, and {known}, which the ledger knows by that name",
        "They would take each other's jobs for their own: give one of them a name of its own (name: …).",
    )


def _refuse_named(ledger: Ledger, api: str, manifest: Manifest, paths: dict[str, str]) -> None:
    pairs = {job.pair for job in manifest.jobs}
    for name, path in paths.items():
        if path == STDIN or path != resolve_path(manifest.path):
            continue
        shared = len(pairs & ledger.claimed_pairs(api, name))
        if 2 * shared > len(pairs):
            raise RefusedError(
                f"{manifest.path} was run as {name}, and is named {manifest.name} now: {shared} of its {len(pairs)} "
                "pairs are on record under the old name, and would be bought again",
                f"Write `name: {name}` into it to go on under that record, or start over on purpose: --new.",
            )


def _refuse_renamed(ledger: Ledger, api: str, manifest: Manifest, paths: dict[str, str]) -> None:
    pairs = {job.pair for job in manifest.jobs}
    for name, path in paths.items():
        if path == STDIN or not _is_gone(path):
            continue
        shared = len(pairs & ledger.claimed_pairs(api, name))
        if 2 * shared > len(pairs):
            raise RefusedError(
                f"the ledger does not know {manifest.name}, but holds {shared} of its {len(pairs)} pairs under the "
                f"name {name}, whose file is gone ({path})",
                f"If it is the same manifest, write `name: {name}` into it, and nothing is bought again. If it is "
                f"another, write `name: {manifest.name}`.",
            )


def _is_gone(path: str) -> bool:
    """Whether a file is certainly not there; one in a folder that may not be read is taken to be."""
    try:
        return not Path(path).exists()
    except OSError:
        return False


def _is_same(path: str, other: str) -> bool:
    try:
        return Path(path).samefile(other)
    except OSError:
        return False
