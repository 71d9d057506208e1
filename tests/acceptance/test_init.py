"""The command `init`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.manifest import loader, schema_files
from runner.sandbox.catalog import EXAMPLE


def runner(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "runner", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_writes_manifest_and_schema_and_prints_the_next_step(tmp_path: Path) -> None:
    done = runner("init", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "wrote jobs.yaml and manifest.schema.json",
        "next: pixxel-runner run jobs.yaml --sandbox   (no API key needed, no cost)",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"jobs.yaml", "manifest.schema.json"}
    assert (tmp_path / "manifest.schema.json").read_text(encoding="utf-8") == schema_files.schema_text("manifest")


def test_manifest_is_valid_and_mentions_its_own_name(tmp_path: Path) -> None:
    runner("init", "nightly.yaml", cwd=tmp_path)
    text = (tmp_path / "nightly.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=manifest.schema.json\n")
    assert "pixxel-runner validate nightly.yaml" in text
    done = runner("validate", "nightly.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nightly.yaml: ok, 3 jobs (1 disabled)\n", "")


def test_commented_settings_are_valid(tmp_path: Path) -> None:
    runner("init", cwd=tmp_path)
    lines = (tmp_path / "jobs.yaml").read_text(encoding="utf-8").splitlines()
    settings = ("# name:", "# once_per:", "# timezone:", "# submit:", "#   concurrency:", "#   rate:")
    uncommented = [
        line.removeprefix("# ").replace("#   ", "  ", 1) if line.startswith(settings) else line for line in lines
    ]
    parsed = loader.parse("\n".join(uncommented).encode(), "jobs.yaml")
    assert (parsed.name, parsed.once_per, parsed.timezone) == ("my-fields", "day", "Europe/Berlin")
    assert (parsed.submit.concurrency, parsed.submit.rate) == (8, "5/s")


@pytest.mark.parametrize("name", ["starter", "example"])
def test_sandbox_has_the_workflows_and_projects(name: str, tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "jobs.example.yaml"
    if name == "starter":
        runner("init", cwd=tmp_path)
        path = tmp_path / "jobs.yaml"
    for job in loader.parse(path.read_bytes(), path.name).jobs:
        assert job.project_id in EXAMPLE.workflows[job.workflow_id].project_ids


@pytest.mark.parametrize("existing", ["file", "dangling link", "directory"])
def test_existing_file_is_never_overwritten(existing: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    if existing == "file":
        path.write_text("existing", encoding="utf-8")
    elif existing == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    done = runner("init", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: jobs.yaml already exists\n  ")
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.yaml"]
    assert not path.is_file() or path.read_text(encoding="utf-8") == "existing"


def test_existing_schema_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.schema.json").write_text("existing", encoding="utf-8")
    done = runner("init", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "wrote jobs.yaml")
    assert (tmp_path / "manifest.schema.json").read_text(encoding="utf-8") == "existing"


def test_missing_directory_is_not_created(tmp_path: Path) -> None:
    done = runner("init", "new/jobs.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: the directory new does not exist\n  Create it: mkdir -p new\n")
    assert list(tmp_path.iterdir()) == []


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = runner("init", "file/jobs.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: file/jobs.yaml cannot be written: Not a directory\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_directory_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = runner("init", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: jobs.yaml cannot be written: Permission denied\n")
