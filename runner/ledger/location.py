"""Where a manifest's ledger is, and whether a run may make it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.core.errors import RefusedError
from runner.core.models import Manifest
from runner.core.state_dir import check_directory_owner, create_state_dir, create_subdirectory, locate_state_dir


@dataclass(frozen=True, slots=True)
class LedgerLocation:
    """Which ledger is used, and whether a person named it: only one in its default place may be made by a run."""

    path: Path
    explicit: bool

    @classmethod
    def for_manifest(cls, manifest_path: str, named: Path | None = None, *, sandbox: bool = False) -> LedgerLocation:
        """The ledger for a manifest. The sandbox has its own, whatever is named.

        Raises:
            RefusedError: it would be in a folder that another user has put beside the manifest.
        """
        home = locate_state_dir(manifest_path)
        if sandbox or named is None:
            check_directory_owner(home)
        if sandbox:
            return cls(home / "sandbox" / "ledger.db", explicit=False)
        return cls(home / "ledger.db", explicit=False) if named is None else cls(named, explicit=True)

    @property
    def files(self) -> list[Path]:
        """The files that the ledger consists of."""
        return [Path(f"{self.path}{suffix}") for suffix in ("", "-wal", "-shm")]

    def create_directory(self, manifest_path: str) -> None:
        """Make the folder of a ledger in its default place. Raises RefusedError."""
        if not self.explicit:
            create_state_dir(locate_state_dir(manifest_path))
            create_subdirectory(self.path.parent)

    def require_explicit_in_ci(self, manifest: Manifest, *, ci: bool) -> None:
        """CI cleans its checkouts, and with the ledger goes the knowledge of what was bought.

        Raises:
            RefusedError: in CI, with a `once_per` that lives by the record, and no ledger named.
        """
        if ci and manifest.once_per != "run" and not self.explicit:
            raise RefusedError(
                f"CI is set, and {manifest.path} says once_per: {manifest.once_per}, which needs a ledger that is kept",
                "Name one with --ledger or PIXXEL_RUNNER_LEDGER in a place that outlives the checkout (make it once "
                "with `pixxel-runner ledger init PATH`), and keep it between runs: it says what must not be bought "
                "again.",
            )


def path_exists(path: Path) -> bool:
    """Whether there is something at the path of a ledger, or of what is kept with it.

    Raises:
        RefusedError: that cannot be told: a folder on its way may not be entered, say.
    """
    try:
        path.stat()  # Path.exists takes all for a no in some versions of Python
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"the ledger cannot be reached at {path}: {getattr(error, 'strerror', None) or error}",
            "This user must be let into every folder on its way: ask whoever made them, or name another with --ledger.",
        ) from None
    return True


def is_ci(environment: Mapping[str, str]) -> bool:
    """Whether this is a CI system's job: nearly all of them set CI, most to `true`."""
    return environment.get("CI", "").lower() not in ("", "false", "0", "no")
