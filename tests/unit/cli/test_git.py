"""The commit of a manifest, found by a real git that executes nothing that a repository names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.canary import KEY

from runner.cli import git as git_module
from runner.cli.git import find_commit

DATA = b"version: 1\njobs: []\n"


@pytest.fixture(autouse=True)
def isolated_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the user's git configuration, and the variables of a git hook that runs these tests."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": str(tmp_path),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(tmp_path),
        "GIT_LITERAL_PATHSPECS": "1",
        **{f"GIT_{role}_{field}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")},
    }.items():
        monkeypatch.setenv(name, value)


def git(directory: Path, *arguments: str, check: bool = True) -> str:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout.strip()


def init(directory: Path, *options: str) -> Path:
    directory.mkdir()
    git(directory, "init", "--quiet", *options)
    return directory


def commit(directory: Path, name: str, data: bytes = DATA) -> str:
    """Commit a file, and return the commit's id."""
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)
    git(directory, "add", "--", name)
    git(directory, "commit", "--quiet", "--message", "x")
    return git(directory, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a manifest in a subdirectory."""
    directory = init(tmp_path / "repository")
    commit(directory, "deep/m.yaml")
    return directory


def find(repository: Path) -> str | None:
    return find_commit(str(repository / "deep" / "m.yaml"), DATA)


# The commit


@pytest.mark.parametrize(
    "name", ["m.yaml", "-m.yaml", "deep/er/m.yaml", "two words/ü *?[a].yaml", ":(top)m.yaml", "@{0}.yaml"]
)
def test_the_commit_of_an_unchanged_manifest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    directory = init(tmp_path / "repository")
    commit(directory, name, b"an earlier version")
    commit_id = commit(directory, name)
    assert find_commit(str(directory / name), DATA) == commit_id
    monkeypatch.chdir((directory / name).parent)
    assert find_commit((directory / name).name, DATA) == commit_id


def test_changes_to_other_files_do_not_matter(tmp_path: Path) -> None:
    directory = init(tmp_path / "repository")
    commit(directory, "m.yaml")
    commit_id = commit(directory, "other", b"1")
    (directory / "other").write_bytes(b"2")
    (directory / "new").touch()
    assert find_commit(str(directory / "m.yaml"), DATA) == commit_id


def test_a_repository_with_sha256_ids(tmp_path: Path) -> None:
    directory = init(tmp_path / "repository", "--object-format=sha256")
    commit_id = commit(directory, "m.yaml")
    assert len(commit_id) == 64
    assert find_commit(str(directory / "m.yaml"), DATA) == commit_id


def test_the_bytes_that_were_run_are_compared_not_the_file(tmp_path: Path) -> None:
    directory = init(tmp_path / "repository")
    commit_id = commit(directory, "m.yaml")
    (directory / "m.yaml").write_bytes(DATA + b"# edited since it was read")
    assert find_commit(str(directory / "m.yaml"), DATA) == commit_id
    assert find_commit(str(directory / "m.yaml"), DATA + b"# edited since it was read") is None


def test_an_uncommitted_manifest_has_no_commit(tmp_path: Path) -> None:
    directory = init(tmp_path / "repository")
    (directory / "untracked.yaml").write_bytes(DATA)
    assert find_commit(str(directory / "untracked.yaml"), DATA) is None  # before the first commit
    commit(directory, "m.yaml")
    (directory / "staged.yaml").write_bytes(DATA)
    git(directory, "add", "staged.yaml")
    for name in ("untracked.yaml", "staged.yaml", "missing.yaml", "missing/m.yaml"):
        assert find_commit(str(directory / name), DATA) is None
    (tmp_path / "elsewhere.yaml").write_bytes(DATA)
    assert find_commit(str(tmp_path / "elsewhere.yaml"), DATA) is None
    assert find_commit("-", DATA) is None


@pytest.mark.parametrize("path", ["nul\0.yaml", "\ud800.yaml", "x" * 5000])
def test_a_path_that_no_command_line_can_contain(path: str) -> None:
    assert find_commit(path, DATA) is None


# Another git, or none


def fake_git(directory: Path, script: str) -> Path:
    directory.mkdir()
    program = directory / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return directory


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_commit(str(tmp_path / "m.yaml"), DATA) is None


@pytest.mark.parametrize(
    "script", ["echo one line", "printf '\\377\\n\\377\\n'", "exit 1", "kill -9 $$", "exec /bin/sleep 60"]
)
def test_a_git_that_fails_hangs_or_prints_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(git_module, "_TIMEOUT", 0.3)
    monkeypatch.setenv("PATH", str(fake_git(tmp_path / "bin", script)))
    assert find_commit(str(tmp_path / "m.yaml"), DATA) is None


def test_git_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    directory = fake_git(tmp_path / "bin", f'export -p >>{seen}; echo "$@" >>{seen}')
    for name, value in {
        "PATH": str(directory),
        "PIXXEL_API_KEY": KEY,
        "PIXXEL_RUNNER_API_KEY_FILE": "/secret",
        "HTTPS_PROXY": "http://user:pass-word@proxy.example",
        "https_proxy": "http://user:pass-word@proxy.example",
        "LANG": "kept",
    }.items():
        monkeypatch.setenv(name, value)
    assert find_commit(str(tmp_path / "m.yaml"), DATA) is None
    text = seen.read_text(encoding="utf-8")
    assert "kept" in text
    assert not any(secret in text for secret in (KEY, "/secret", "pass-word"))


# Hostile repositories


def make_partial(repository: Path, **remote: str) -> None:
    """Make it a partial clone that lacks a directory, which git would fetch from its origin."""
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
    make_partial(repository, **settings(str(trap)))
    assert find(repository) is None
    assert not (tmp_path / "sprung").exists()
    git(repository, "rev-parse", "HEAD:deep/m.yaml", check=False)
    assert (tmp_path / "sprung").exists(), "the trap does not work"


def test_commands_in_the_configuration_are_not_executed(repository: Path, tmp_path: Path) -> None:
    trap = f"touch {tmp_path / 'sprung'}"
    for name in ("core.fsmonitor", "core.pager", "pager.rev-parse", "core.editor", "core.askPass", "alias.rev-parse"):
        git(repository, "config", name, f"!{trap}" if name.startswith("alias") else trap)
    hook = repository / ".git" / "hooks" / "post-index-change"
    hook.write_text(f"#!/bin/sh\n{trap}\n", encoding="ascii")
    hook.chmod(0o755)
    assert find(repository) == git(repository, "rev-parse", "HEAD")
    assert not (tmp_path / "sprung").exists()


def test_a_replaced_tree_is_ignored(repository: Path) -> None:
    (repository / "deep" / "m.yaml").write_bytes(b"version: 1\njobs: [another]\n")
    git(repository, "commit", "--quiet", "--all", "--message", "y")
    git(repository, "replace", "HEAD^{tree}", "HEAD~^{tree}")
    assert git(repository, "show", "HEAD:deep/m.yaml") == DATA.decode().strip()
    assert find(repository) is None


@pytest.mark.parametrize("path", ["absolute", "relative"])
def test_the_variables_of_another_repository_are_ignored(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """git sets them for its hooks, one of which may run the program."""
    other = init(tmp_path / "other")
    commit(other, "deep/m.yaml")
    git(other, "commit", "--quiet", "--allow-empty", "--message", "later")
    monkeypatch.chdir(other)
    with monkeypatch.context() as variables:
        variables.setenv("GIT_DIR", str(other / ".git") if path == "absolute" else ".git")
        variables.setenv("GIT_WORK_TREE", str(other) if path == "absolute" else ".")
        variables.setenv("GIT_INDEX_FILE", ".git/index")
        variables.setenv("GIT_PREFIX", "")
        found = find(repository)
    assert found == git(repository, "rev-parse", "HEAD")


def test_the_repository_of_another_user_is_not_trusted(repository: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 65534, 65534)
    assert find(repository) is None
