"""Where the ledger of a manifest is, and whether a run may create it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.core.errors import RefusedError
from runner.core.models import Manifest
from runner.core.state_dir import check_directory_owner, create_state_dir, create_subdirectory, locate_state_dir


@dataclass(frozen=True, slots=True)
class LedgerLocation:
    """The path of a ledger, and whether it was given explicitly: a run creates only one in its default place."""

    path: Path
    explicit: bool
    sandbox: bool = False

    @classmethod
    def for_manifest(cls, manifest_path: str, ledger: Path | None = None, *, sandbox: bool = False) -> LedgerLocation:
        """The ledger of a manifest: the given one, or the default. The sandbox always has its own.

        Raises:
            RefusedError: the default is in a directory that another user created beside the manifest.
        """
        directory = locate_state_dir(manifest_path)
        if ledger is not None and not sandbox:
            return cls(ledger, explicit=True)
        check_directory_owner(directory)
        path = directory / "sandbox" / "ledger.db" if sandbox else directory / "ledger.db"
        return cls(path, explicit=False, sandbox=sandbox)

    @property
    def files(self) -> list[Path]:
        """The files of the ledger."""
        return [Path(f"{self.path}{suffix}") for suffix in ("", "-wal", "-shm")]

    def create_directory(self, manifest_path: str) -> None:
        """Create the directory of a ledger in its default place. Raises RefusedError."""
        if not self.explicit:
            create_state_dir(locate_state_dir(manifest_path))
            create_subdirectory(self.path.parent)

    def require_explicit_in_ci(self, manifest: Manifest, *, ci: bool) -> None:
        """Refuse a default ledger in CI, which deletes its checkouts: what was created would be forgotten.

        Raises:
            RefusedError: in CI, with a `once_per` that relies on the ledger, and no explicit path.
        """
        if ci and manifest.once_per != "run" and not self.explicit:
            raise RefusedError(
                f"{manifest.path} has once_per: {manifest.once_per}, which needs a persistent ledger in CI (CI is set)",
                "Specify one with --ledger or PIXXEL_RUNNER_LEDGER, at a path that outlives the checkout. Create it "
                "once with `pixxel-runner ledger init PATH` and keep it between runs: it prevents jobs from being "
                "created twice.",
            )


def path_exists(path: Path) -> bool:
    """Whether there is a file at the path of a ledger or of one of its locks.

    Raises:
        RefusedError: this user may not look there.
    """
    try:
        path.stat()  # Path.exists returns False for every error in some versions of Python
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"the ledger {path} cannot be accessed: {getattr(error, 'strerror', None) or error}",
            "Give this user access to every directory of the path, or choose another ledger with --ledger.",
        ) from None
    return True


def is_ci(environment: Mapping[str, str]) -> bool:
    """Whether this is a CI job: nearly all CI systems set CI, most of them to `true`."""
    return environment.get("CI", "").lower() not in ("", "false", "0", "no")
