"""The pre-commit hook, with the real pre-commit, in a repository of manifests as docs/pre-commit.md sets it up."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.pages import CHECKOUT, Page

BIN = Path(sys.executable).parent
HOOKS = CHECKOUT / ".pre-commit-hooks.yaml"
PAGE = Page("docs/pre-commit.md")
ELSEWHERE = "https://github.com/your-org/pixxel-runner"
REV = "0123456789abcdef0123456789abcdef01234567"
GOOD = "version: 1\njobs:\n  - {workflow_id: w-1, project_id: p-1}\n"
BAD = "version: 1\njobs: []\n"

pytestmark = pytest.mark.skipif(not (BIN / "pre-commit").exists(), reason="pre-commit is not installed")


class Repository:
    """A repository in a folder, and a person's git and pre-commit in it."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        folder.mkdir()
        who = {
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PIXXEL_"))},
            **who,
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PRE_COMMIT_HOME": str(home / "pre-commit"),
        }
        self("git", "init", "--quiet")

    def __call__(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            words, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        self("git", "add", path)

    def commit(self) -> tuple[int, str]:
        return self("git", "commit", "--quiet", "--message", "One")


@pytest.fixture
def manifests(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "manifests", tmp_path)


@pytest.fixture
def published(tmp_path: Path) -> tuple[str, str]:
    """Where the hook is, and its commit: this project's, but for the installation."""
    one = Repository(tmp_path / "published", tmp_path)
    text = HOOKS.read_text(encoding="utf-8")
    assert text.count("language: python\n") == 1
    one.write(".pre-commit-hooks.yaml", text.replace("language: python\n", "language: system\n"))
    assert one.commit()[0] == 0
    return str(one.folder), one("git", "rev-parse", "HEAD")[1].strip()


def test_the_hook_is_as_pre_commit_wants_it(manifests: Repository) -> None:
    assert manifests("pre-commit", "validate-manifest", str(HOOKS)) == (0, "")


def test_a_bad_manifest_is_not_committed(manifests: Repository, published: tuple[str, str]) -> None:
    """As the page says: the configuration, the two commands, and then a commit."""
    where, rev = published
    config = PAGE.block(".pre-commit-config.yaml").replace(ELSEWHERE, where).replace(REV, rev)
    assert where in config
    assert rev in config
    manifests.write(".pre-commit-config.yaml", config)
    manifests.write("jobs/field.yaml", GOOD)
    manifests.write("deep/jobs.yml", GOOD)
    manifests.write("other.yaml", BAD)
    install, everything = map(shlex.split, PAGE.block("commands").splitlines())
    assert manifests(*install)[0] == 0
    code, told = manifests(*everything, "--verbose")
    assert code == 0, told
    assert "jobs/field.yaml: ok, 1 job\n" in told
    assert "deep/jobs.yml: ok, 1 job\n" in told
    assert "other.yaml" not in told

    manifests.write("jobs/field.yaml", BAD)
    code, told = manifests.commit()
    assert code == 1
    assert "jobs/field.yaml:2:7: jobs: must contain at least one job" in told
    manifests.write("jobs/field.yaml", GOOD)
    assert manifests.commit()[0] == 0


def test_other_files_may_be_named(manifests: Repository, published: tuple[str, str]) -> None:
    where, rev = published
    hooks = yaml.safe_load(PAGE.block("other files"))
    config = {"repos": [{"repo": where, "rev": rev, "hooks": hooks}]}
    manifests.write(".pre-commit-config.yaml", yaml.safe_dump(config))
    manifests.write("fields/north.yaml", BAD)
    manifests.write("jobs/field.yaml", BAD)
    code, told = manifests("pre-commit", "run", "--all-files")
    assert code == 1
    assert "fields/north.yaml:2:7" in told
    assert "jobs/field.yaml" not in told


def test_a_hook_of_ones_own_uses_what_is_installed(manifests: Repository) -> None:
    manifests.write(".pre-commit-config.yaml", PAGE.block("a local hook"))
    manifests.write("jobs/field.yaml", BAD)
    code, told = manifests("pre-commit", "run", "--all-files")
    assert code == 1
    assert "jobs/field.yaml:2:7: jobs: must contain at least one job" in told
