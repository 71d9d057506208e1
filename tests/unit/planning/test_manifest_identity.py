"""Duplicate and renamed manifests, which could submit jobs twice, are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ledger_history

from runner.core.errors import RefusedError
from runner.core.models import Manifest
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger
from runner.planning.manifest_identity import check_identity, resolve_path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    create_ledger(tmp_path / "ledger.db")
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working cwd, with `here.yaml` and `there/here.yaml` but without `gone.yaml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for path in ("here.yaml", "there/here.yaml"):
        (tmp_path / path).write_text("version: 1\n", encoding="ascii")
    (tmp_path / "link.yaml").symlink_to("here.yaml")
    (tmp_path / "again.yaml").hardlink_to(tmp_path / "here.yaml")
    return tmp_path


@dataclass(frozen=True)
class Known:
    """A manifest that was run: its name, its path, and the projects of its jobs."""

    name: str
    path: str
    projects: str = "123"
    api: str = ledger_history.API


def check(
    ledger: Ledger, known: list[Known], name: str, path: str, *, named: bool = False, projects: str = "123"
) -> None:
    for number, earlier in enumerate(known):
        jobs = [ledger_history.job(f"j{project}", project_id=project) for project in earlier.projects]
        at = resolve_path(earlier.path)
        run = ledger_history.start_run(ledger, f"run-{number}", jobs, api=earlier.api, manifest=earlier.name, path=at)
        for job in jobs:
            ledger_history.send(ledger, run, job, ledger_history.created(f"{earlier.name}-{job.project_id}"))
    # Each pair twice: pairs are counted, not entries.
    entries = [ledger_history.job(f"{turn}{project}", project_id=project) for project in projects for turn in "ab"]
    check_identity(ledger, ledger_history.API, Manifest(name, path, "sha256", tuple(entries), has_explicit_name=named))


GONE = [Known("gone", "gone.yaml")]


@pytest.mark.parametrize(
    ("known", "name", "path", "options"),
    [
        pytest.param([], "here", "here.yaml", {}, id="unknown"),
        pytest.param([Known("here", "here.yaml")], "here", "here.yaml", {}, id="the-same-file"),
        pytest.param([Known("here", "here.yaml")], "here", "link.yaml", {"named": True}, id="by-a-link"),
        pytest.param([Known("here", "link.yaml")], "here", "again.yaml", {"named": True}, id="by-a-hard-link"),
        pytest.param([Known("here", "old/here.yaml")], "here", "here.yaml", {}, id="its-directory-was-moved"),
        pytest.param([Known("here", "-")], "here", "here.yaml", {}, id="was-read-from-stdin"),
        pytest.param([Known("here", "here.yaml")], "here", "-", {"named": True}, id="is-read-from-stdin"),
        pytest.param(GONE, "here", "here.yaml", {"named": True}, id="renamed-with-a-new-explicit-name"),
        pytest.param(GONE, "gone", "here.yaml", {"named": True}, id="renamed-with-the-old-explicit-name"),
        pytest.param(GONE, "here", "here.yaml", {"projects": "1278"}, id="half-of-its-pairs"),
        pytest.param(GONE, "here", "here.yaml", {"projects": "789"}, id="none-of-its-pairs"),
        pytest.param([Known("other", "there/here.yaml")], "here", "here.yaml", {}, id="the-other-file-exists"),
        pytest.param([Known("gone", "-")], "here", "here.yaml", {}, id="the-other-was-read-from-stdin"),
        pytest.param([Known("gone", "gone.yaml", api="sandbox")], "here", "here.yaml", {}, id="at-another-api"),
        pytest.param(
            [Known("here", "there/here.yaml", api="sandbox")], "here", "here.yaml", {}, id="duplicate-elsewhere"
        ),
    ],
)
def test_the_identity_is_accepted(
    ledger: Ledger, known: list[Known], name: str, path: str, options: dict[str, bool]
) -> None:
    check(ledger, known, name, path, **options)  # type: ignore[arg-type] # options of several types


@pytest.mark.parametrize("named", [True, False])
def test_duplicates_are_refused(ledger: Ledger, cwd: Path, *, named: bool) -> None:
    with pytest.raises(RefusedError) as caught:
        check(ledger, [Known("here", "there/here.yaml")], "here", "here.yaml", named=named)
    assert caught.value.message == (
        f"two manifests are named 'here': here.yaml, and {cwd / 'there/here.yaml'}, which is in the ledger under that "
        "name"
    )


@pytest.mark.parametrize(
    ("known", "projects", "shared"),
    [
        (GONE, "123", "3 of its 3"),
        (GONE, "127", "2 of its 3"),
        (GONE, "1", "1 of its 1"),
        ([Known("other", "there/here.yaml"), *GONE], "123", "3 of its 3"),
    ],
)
def test_a_renamed_file_is_refused(ledger: Ledger, cwd: Path, known: list[Known], projects: str, shared: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check(ledger, known, "here", "here.yaml", projects=projects)
    assert caught.value.message == (
        f"the ledger does not know 'here', but {shared} workflow/project pairs were submitted under the name 'gone', "
        f"whose file no longer exists ({cwd / 'gone.yaml'})"
    )
    assert "`name: gone`" in caught.value.hint
    assert "`name: here`" in caught.value.hint


@pytest.mark.parametrize(
    ("path", "resolved"), [("-", "-"), ("here.yaml", "here.yaml"), ("./there/../link.yaml", "here.yaml")]
)
def test_resolve_path(cwd: Path, path: str, resolved: str) -> None:
    assert resolve_path(path) == (resolved if resolved == "-" else str(cwd.resolve() / resolved))
