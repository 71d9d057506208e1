"""Whether a manifest is the one the ledger knows by its name. Renamed and duplicate ones could submit jobs twice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runner.core.errors import RefusedError
from runner.core.models import STDIN, Manifest
from runner.ledger.store import Ledger


def resolve_path(path: str) -> str:
    """Return a manifest's path as it is stored in the ledger."""
    return path if path == STDIN else str(Path(path).resolve())


def check_identity(ledger: Ledger, api: str, manifest: Manifest, *, new: bool = False) -> None:
    """Check that the ledger's entries for the manifest's name are its own, and that it has none under another name.

    `new` permits it to start over under a new name.

    Raises:
        RefusedError: another existing file has the same name, or the manifest or its file was renamed.
    """
    paths = ledger.manifest_paths(api)
    if manifest.name in paths:
        _refuse_duplicate(manifest, paths[manifest.name])
        return
    path = resolve_path(manifest.path)
    if not new:
        _refuse_new_name(ledger, api, manifest, [name for name, known in paths.items() if path == known != STDIN])
    if not manifest.has_explicit_name:
        _refuse_renamed_file(ledger, api, manifest, {name: known for name, known in paths.items() if _is_gone(known)})


def _refuse_duplicate(manifest: Manifest, path: str) -> None:
    if STDIN in (path, manifest.path) or _is_gone(path) or _is_same_file(path, manifest.path):
        return
    raise RefusedError(
        f"two manifests are named {manifest.name!r}: {manifest.path}, and {path}, which is in the ledger under that "
        "name",
        "Each would treat the other's jobs as its own. Give one of them another name (name: …).",
    )


def _refuse_new_name(ledger: Ledger, api: str, manifest: Manifest, names: Iterable[str]) -> None:
    name, pairs = _find_same_pairs(ledger, api, manifest, names)
    if name:
        raise RefusedError(
            f"{manifest.path} was run as {name!r} and is now named {manifest.name!r}: {pairs} were submitted under the "
            "old name and would be submitted again",
            f"To continue under the old name, set `name: {name}` in the manifest. To start over and pay for every job "
            "again, pass --new.",
        )


def _refuse_renamed_file(ledger: Ledger, api: str, manifest: Manifest, paths: dict[str, str]) -> None:
    name, pairs = _find_same_pairs(ledger, api, manifest, paths)
    if name:
        raise RefusedError(
            f"the ledger does not know {manifest.name!r}, but {pairs} were submitted under the name {name!r}, whose "
            f"file no longer exists ({paths[name]})",
            f"If it is the same manifest, set `name: {name}` in it, and nothing is submitted again. If it is another "
            f"one, set `name: {manifest.name}`.",
        )


def _find_same_pairs(ledger: Ledger, api: str, manifest: Manifest, names: Iterable[str]) -> tuple[str, str]:
    """Return the name under which most of the manifest's pairs were submitted, and how many; or empty strings."""
    pairs = {job.pair for job in manifest.jobs}
    for name in names:
        shared = len(pairs & ledger.claimed_pairs(api, name))
        if 2 * shared > len(pairs):
            return name, f"{shared} of its {len(pairs)} workflow/project pairs"
    return "", ""


def _is_gone(path: str) -> bool:
    """Whether a file certainly does not exist. One that may not be looked at is assumed to exist."""
    try:
        return path != STDIN and not Path(path).exists()
    except OSError:
        return False


def _is_same_file(path: str, other: str) -> bool:
    try:
        return Path(path).samefile(other)
    except OSError:
        return False
