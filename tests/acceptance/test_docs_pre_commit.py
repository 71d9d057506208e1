"""The pre-commit hook, run by pre-commit itself in a repository that is set up as docs/pre-commit.md says."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.pages import CHECKOUT, Page
from support.systems import needs_git

BIN = Path(sys.executable).parent
HOOKS = CHECKOUT / ".pre-commit-hooks.yaml"
PAGE = Page("docs/pre-commit.md")
EXAMPLE_URL = "https://github.com/your-org/pixxel-runner"
EXAMPLE_REV = "0123456789abcdef0123456789abcdef01234567"
GOOD = "version: 1\njobs:\n  - {workflow_id: w-1, project_id: p-1}\n"
BAD = "version: 1\njobs: []\n"

pytestmark = [
    needs_git,
    pytest.mark.skipif(not (BIN / "pre-commit").exists(), reason="pre-commit is not installed"),
]


class Repository:
    """A git repository, and commands to run in it."""

    def __init__(self, directory: Path, home: Path) -> None:
        self.directory = directory
        directory.mkdir()
        identity = {
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PIXXEL_"))},
            **identity,
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PRE_COMMIT_HOME": str(home / "pre-commit"),
        }
        self("git", "init", "--quiet")

    def __call__(self, *command: str) -> tuple[int, str]:
        done = subprocess.run(
            command, cwd=self.directory, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    def write(self, path: str, text: str) -> None:
        file = self.directory / path
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
    """A repository with this project's hook, which uses the installed program: its path and commit."""
    repository = Repository(tmp_path / "published", tmp_path)
    text = HOOKS.read_text(encoding="utf-8")
    assert text.count("language: python\n") == 1
    repository.write(".pre-commit-hooks.yaml", text.replace("language: python\n", "language: system\n"))
    assert repository.commit()[0] == 0
    return str(repository.directory), repository("git", "rev-parse", "HEAD")[1].strip()


def test_pre_commit_accepts_the_hook(manifests: Repository) -> None:
    assert manifests("pre-commit", "validate-manifest", str(HOOKS)) == (0, "")


def test_invalid_manifest_is_not_committed(manifests: Repository, published: tuple[str, str]) -> None:
    """Follow the page: the configuration, the two commands, then a commit."""
    url, rev = published
    config = PAGE.block(".pre-commit-config.yaml").replace(EXAMPLE_URL, url).replace(EXAMPLE_REV, rev)
    assert url in config
    assert rev in config
    manifests.write(".pre-commit-config.yaml", config)
    manifests.write("jobs/field.yaml", GOOD)
    manifests.write("deep/jobs.yml", GOOD)
    manifests.write("other.yaml", BAD)
    install, run_all = map(shlex.split, PAGE.block("commands").splitlines())
    assert manifests(*install)[0] == 0
    code, output = manifests(*run_all, "--verbose")
    assert code == 0, output
    assert "jobs/field.yaml: ok, 1 job\n" in output
    assert "deep/jobs.yml: ok, 1 job\n" in output
    assert "other.yaml" not in output

    manifests.write("jobs/field.yaml", BAD)
    code, output = manifests.commit()
    assert code == 1
    assert "jobs/field.yaml:2:7: jobs: must contain at least one job" in output
    manifests.write("jobs/field.yaml", GOOD)
    assert manifests.commit()[0] == 0


def test_files_can_be_configured(manifests: Repository, published: tuple[str, str]) -> None:
    url, rev = published
    hooks = yaml.safe_load(PAGE.block("other files"))
    config = {"repos": [{"repo": url, "rev": rev, "hooks": hooks}]}
    manifests.write(".pre-commit-config.yaml", yaml.safe_dump(config))
    manifests.write("fields/north.yaml", BAD)
    manifests.write("jobs/field.yaml", BAD)
    code, output = manifests("pre-commit", "run", "--all-files")
    assert code == 1
    assert "fields/north.yaml:2:7" in output
    assert "jobs/field.yaml" not in output


def test_local_hook_uses_the_installed_program(manifests: Repository) -> None:
    manifests.write(".pre-commit-config.yaml", PAGE.block("a local hook"))
    manifests.write("jobs/field.yaml", BAD)
    code, output = manifests("pre-commit", "run", "--all-files")
    assert code == 1
    assert "jobs/field.yaml:2:7: jobs: must contain at least one job" in output
