"""Repositories of strangers: git is asked which commit holds a manifest, and runs nothing that a repository names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.canary import KEY

from runner.cli.git import find_commit

DATA = b"version: 1\njobs: []\n"


@pytest.fixture(autouse=True)
def only_this_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }.items():
        monkeypatch.setenv(name, value)


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=check, capture_output=True, text=True)  # noqa: S607 - git, wherever it is
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return committed(tmp_path / "repository")


def committed(folder: Path, data: bytes = DATA) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "m.yaml").write_bytes(data)
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "x"]):
        git(folder, *arguments)
    return folder


def ask(repository: Path) -> str | None:
    return find_commit(str(repository / "deep" / "m.yaml"), DATA)


def incomplete(repository: Path, **remote: str) -> None:
    """Make it a clone that lacks a folder, which git fetches from its origin when it is asked for it."""
    tree = git(repository, "rev-parse", "HEAD:deep")
    (repository / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    settings = {"core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "protocol.allow": "always"}
    for name, value in {**settings, "remote.origin.promisor": "true", **remote}.items():
        git(repository, "config", name.replace("__", "."), value)


FETCHES: dict[str, Callable[[str], dict[str, str]]] = {
    "ssh": lambda trap: {"remote__origin__url": "ssh://x/y", "core__sshCommand": trap},
    "ext": lambda trap: {"remote__origin__url": f"ext::{trap}"},
    "local": lambda trap: {"remote__origin__url": ".", "remote__origin__uploadpack": f"{trap};"},
    "proxy": lambda trap: {"remote__origin__url": "git://127.0.0.1:9/x", "core__gitProxy": trap},
}


@pytest.mark.parametrize("settings", FETCHES.values(), ids=FETCHES)
def test_nothing_is_fetched_by_a_command_of_the_repository(
    repository: Path, tmp_path: Path, settings: Callable[[str], dict[str, str]]
) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}\nexit 1\n", encoding="ascii")
    trap.chmod(0o755)
    incomplete(repository, **settings(str(trap)))
    assert ask(repository) is None
    assert not (tmp_path / "sprung").exists()
    git(repository, "rev-parse", "HEAD:deep/m.yaml", check=False)
    assert (tmp_path / "sprung").exists(), "the trap is none"


def test_settings_that_name_commands_run_none(repository: Path, tmp_path: Path) -> None:
    trap = f"touch {tmp_path / 'sprung'}"
    for name in ("core.fsmonitor", "core.pager", "pager.rev-parse", "core.editor", "core.askPass", "alias.rev-parse"):
        git(repository, "config", name, f"!{trap}" if name.startswith("alias") else trap)
    hook = repository / ".git" / "hooks" / "post-index-change"
    hook.write_text(f"#!/bin/sh\n{trap}\n", encoding="ascii")
    hook.chmod(0o755)
    assert ask(repository) == git(repository, "rev-parse", "HEAD")
    assert not (tmp_path / "sprung").exists()


def test_a_tree_in_the_place_of_the_commit_s_own_is_no_claim(repository: Path) -> None:
    (repository / "deep" / "m.yaml").write_bytes(b"version: 1\njobs: [another]\n")
    git(repository, "commit", "--quiet", "--all", "--message", "y")
    git(repository, "replace", "HEAD^{tree}", "HEAD~^{tree}")
    assert git(repository, "show", "HEAD:deep/m.yaml") == DATA.decode().strip()
    assert ask(repository) is None


@pytest.mark.parametrize("where", ["absolute", "relative"])
def test_a_hook_of_another_repository_does_not_mislead(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As where a hook runs the program: git tells its hooks which repository they are of."""
    other = committed(tmp_path / "other")
    git(other, "commit", "--quiet", "--allow-empty", "--message", "later")
    monkeypatch.chdir(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git") if where == "absolute" else ".git")
    monkeypatch.setenv("GIT_WORK_TREE", str(other) if where == "absolute" else ".")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    monkeypatch.setenv("GIT_PREFIX", "")
    found = ask(repository)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"):
        monkeypatch.delenv(name)
    assert found == git(repository, "rev-parse", "HEAD")


def test_a_repository_of_another_user_is_not_believed(repository: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 65534, 65534)
    assert ask(repository) is None


def test_git_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text(f"#!/bin/sh\nexport -p >{seen}\n", encoding="ascii")
    fake.chmod(0o755)
    for name, value in {
        "PATH": str(fake.parent),
        "PIXXEL_API_KEY": KEY,
        "PIXXEL_RUNNER_API_KEY_FILE": "/secret",
        "HTTPS_PROXY": "http://user:pass-word@proxy.example",
        "https_proxy": "http://user:pass-word@proxy.example",
        "LANG": "kept",
    }.items():
        monkeypatch.setenv(name, value)
    assert find_commit(str(tmp_path / "m.yaml"), DATA) is None
    told = seen.read_text(encoding="utf-8")
    assert "kept" in told
    assert not any(secret in told for secret in (KEY, "/secret", "pass-word"))


@pytest.mark.parametrize("path", ["nul\0.yaml", "\ud800.yaml", "x" * 5000])
def test_a_path_that_no_command_line_can_hold(path: str) -> None:
    assert find_commit(path, DATA) is None
