"""The program's own folder: where it is, whom it lets in, and what git sees of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.systems import needs_git

from runner.core.errors import RefusedError
from runner.core.state_dir import STATE_DIR_NAME, create_state_dir, locate_state_dir


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ("-", ".pixxel-runner"),
        ("m.yaml", ".pixxel-runner"),
        ("./m.yaml", ".pixxel-runner"),
        ("a/b/m.yaml", "a/b/.pixxel-runner"),
        ("/a/m.yaml", "/a/.pixxel-runner"),
        ("../m.yaml", "../.pixxel-runner"),
        ("-/m.yaml", "-/.pixxel-runner"),
    ],
)
def test_it_is_beside_the_manifest(manifest: str, expected: str) -> None:
    assert locate_state_dir(manifest) == Path(expected)


def test_it_is_private_and_created_once(tmp_path: Path) -> None:
    home = locate_state_dir(str(tmp_path / "m.yaml"))
    umask = os.umask(0)
    try:
        create_state_dir(home)
    finally:
        os.umask(umask)
    assert home.stat().st_mode & 0o777 == 0o700
    (home / ".gitignore").write_text("mine\n")
    create_state_dir(home)
    assert (home / ".gitignore").read_text() == "mine\n"


@needs_git
def test_git_sees_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    create_state_dir(tmp_path / STATE_DIR_NAME)
    (tmp_path / STATE_DIR_NAME / "ledger.db").touch()
    for arguments in (["init", "--quiet"], ["status", "--porcelain", "--untracked-files=all"]):
        done = subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)  # noqa: S607 - git, wherever it is
        assert done.stdout == b""


def test_a_directory_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "full" / ".gitignore").parent.mkdir()
    for path in ("file", "dangling", "missing/folder", "file/folder"):
        with pytest.raises(RefusedError, match="cannot be created") as caught:
            create_state_dir(tmp_path / path)
        assert str(tmp_path / path) in caught.value.message
        assert caught.value.hint
