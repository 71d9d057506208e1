"""The commit that holds exactly the manifest that was run, by a real git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runner.cli import git as git_module
from runner.cli.git import find_commit

DATA = b"version: 1\njobs: []\n"
KEY = "s3cr3t"


@pytest.fixture(autouse=True)
def only_this_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the person's configuration of git nor a git that runs these tests from a hook is in the way."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(tmp_path),
        "GIT_LITERAL_PATHSPECS": "1",
        **{f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }.items():
        monkeypatch.setenv(name, value)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)  # noqa: S607 - git, wherever it is
    return done.stdout.strip()


def repository(folder: Path, *options: str) -> Path:
    folder.mkdir()
    git(folder, "init", "--quiet", *options)
    return folder


def committed(folder: Path, name: str, data: bytes = DATA) -> str:
    """Commit a file, and return the commit's id."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    git(folder, "add", "--", name)
    git(folder, "commit", "--quiet", "--message", "x")
    return git(folder, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "name", ["m.yaml", "-m.yaml", "deep/er/m.yaml", "two words/ü *?[a].yaml", ":(top)m.yaml", "@{0}.yaml"]
)
def test_a_manifest_as_committed_has_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = repository(tmp_path / "repo")
    committed(folder, name, b"an earlier version")
    commit = committed(folder, name)
    assert find_commit(str(folder / name), DATA) == commit
    monkeypatch.chdir((folder / name).parent)
    assert find_commit((folder / name).name, DATA) == commit


def test_other_changes_do_not_matter(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo")
    committed(folder, "m.yaml")
    commit = committed(folder, "other", b"1")
    (folder / "other").write_bytes(b"2")
    (folder / "new").touch()
    assert find_commit(str(folder / "m.yaml"), DATA) == commit


def test_a_repository_of_longer_ids(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", "--object-format=sha256")
    commit = committed(folder, "m.yaml")
    assert len(commit) == 64
    assert find_commit(str(folder / "m.yaml"), DATA) == commit


def test_what_was_run_is_what_counts_and_not_what_lies_there_now(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo")
    commit = committed(folder, "m.yaml")
    (folder / "m.yaml").write_bytes(DATA + b"# edited since it was read")
    assert find_commit(str(folder / "m.yaml"), DATA) == commit
    assert find_commit(str(folder / "m.yaml"), DATA + b"# edited since it was read") is None


def test_a_manifest_that_no_commit_holds_has_none(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo")
    (folder / "untracked.yaml").write_bytes(DATA)
    assert find_commit(str(folder / "untracked.yaml"), DATA) is None  # before the first commit
    committed(folder, "m.yaml")
    (folder / "staged.yaml").write_bytes(DATA)
    git(folder, "add", "staged.yaml")
    for name in ("untracked.yaml", "staged.yaml", "missing.yaml", "missing/m.yaml"):
        assert find_commit(str(folder / name), DATA) is None
    (tmp_path / "elsewhere.yaml").write_bytes(DATA)
    assert find_commit(str(tmp_path / "elsewhere.yaml"), DATA) is None
    assert find_commit("-", DATA) is None


def fake_git(folder: Path, script: str) -> Path:
    folder.mkdir()
    program = folder / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return folder


def test_no_git_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_commit(str(tmp_path / "m.yaml"), DATA) is None


def test_git_is_not_told_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setenv("PATH", str(fake_git(tmp_path / "bin", f'export -p >>{seen}; echo "$@" >>{seen}')))
    monkeypatch.setenv("PIXXEL_API_KEY", KEY)
    monkeypatch.setenv("CANARY", "kept")
    assert find_commit(str(tmp_path / "m.yaml"), DATA) is None
    assert "kept" in seen.read_text()
    assert KEY not in seen.read_text()


@pytest.mark.parametrize(
    "script", ["echo one line", "printf '\\377\\n\\377\\n'", "exit 1", "kill -9 $$", "exec /bin/sleep 60"]
)
def test_a_git_that_answers_otherwise_fails_or_hangs_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(git_module, "_TIMEOUT", 0.3)
    monkeypatch.setenv("PATH", str(fake_git(tmp_path / "bin", script)))
    assert find_commit(str(tmp_path / "m.yaml"), DATA) is None
