"""The `validate` command: text, JSON and GitHub output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
VALID = (
    "version: 1\njobs:\n  - {workflow_id: ndvi, project_id: agri}\n  - {workflow_id: b, project_id: b, enabled: no}\n"
)
WARNED = VALID + "once_per: day\n"
INVALID = "version: 2\nname: a\nname: b\njobs:\n  - {workflow_id: 1e5, project_id: 'a%b/'}\n"
PROBLEMS = """\
F:1:10: version: unsupported format version 2 (write `version: 1`, or upgrade pixxel-runner)
F:3:1: name: duplicate key `name`; first used on line 2 (remove one of them)
F:5:19: jobs[0].workflow_id: expected a string, but YAML reads `1e5` as the number 100000 (put it in quotes: `"1e5"`)
F:5:36: jobs[0].project_id: invalid value `a%b/`: an id must not contain slashes, whitespace or control characters, \
or be `.` or `..` (remove the slash)
"""


def validate(*arguments: str, cwd: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "runner", "validate", *arguments]
    return subprocess.run(
        command, cwd=cwd, input=stdin or "", capture_output=True, text=True, encoding="utf-8", check=False, timeout=60
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, text in (("valid.yaml", VALID), ("warned.yaml", WARNED), ("F", INVALID)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_valid_manifest(directory: Path) -> None:
    done = validate("valid.yaml", cwd=directory)
    assert (done.returncode, done.stdout, done.stderr) == (0, "valid.yaml: ok, 2 jobs (1 disabled)\n", "")


def test_all_problems_of_all_files_are_reported(directory: Path) -> None:
    done = validate("F", "none.yaml", "valid.yaml", cwd=directory)
    assert done.stdout == PROBLEMS + (
        "none.yaml: no such file (Run `pixxel-runner init` to create a manifest.)\n"
        "valid.yaml: ok, 2 jobs (1 disabled)\n"
    )
    assert (done.returncode, done.stderr) == (2, "")


def test_warnings_go_to_stderr_and_do_not_fail(directory: Path) -> None:
    done = validate("warned.yaml", cwd=directory)
    assert (done.returncode, done.stdout) == (0, "warned.yaml: ok, 2 jobs (1 disabled)\n")
    assert done.stderr == (
        "warning: warned.yaml:5:11: once_per: `once_per: day` uses UTC because `timezone` is not set"
        " (set `timezone` to an IANA name such as Asia/Kolkata, or to UTC)\n"
    )


def test_json_output(directory: Path) -> None:
    done = validate("--format", "json", "F", "warned.yaml", "valid.yaml", cwd=directory)
    problems = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert [(problem["file"], problem["line"], problem["column"], problem["severity"]) for problem in problems] == [
        ("F", 1, 10, "error"),
        ("F", 3, 1, "error"),
        ("F", 5, 19, "error"),
        ("F", 5, 36, "error"),
        ("warned.yaml", 5, 11, "warning"),
    ]
    assert problems[2] == {
        "file": "F",
        "line": 5,
        "column": 19,
        "field": "jobs[0].workflow_id",
        "message": "expected a string, but YAML reads `1e5` as the number 100000",
        "hint": 'put it in quotes: `"1e5"`',
        "severity": "error",
    }


def test_json_output_of_valid_manifests_is_an_empty_list(directory: Path) -> None:
    done = validate("--format", "json", "valid.yaml", cwd=directory)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], "")


def test_github_annotations(directory: Path) -> None:
    path = directory / "a,b:c%.yaml"
    path.write_text(INVALID, encoding="utf-8")
    done = validate("--format", "github", path.name, "none.yaml", "warned.yaml", cwd=directory)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        "::error file=a%2Cb%3Ac%25.yaml,line=1,col=10,title=version::unsupported format version 2 ("
    )
    assert lines[3].startswith(
        "::error file=a%2Cb%3Ac%25.yaml,line=5,col=36,title=jobs[0].project_id::invalid value `a%25b/`: an id must"
    )
    assert lines[4].startswith("::error file=none.yaml,title=manifest::no such file (")
    assert lines[5].startswith("::warning file=warned.yaml,line=5,col=11,title=once_per::`once_per: day` uses UTC")
    assert lines[6:] == ["warned.yaml: ok, 2 jobs (1 disabled)"]
    assert (done.returncode, done.stderr) == (2, "")


def test_standard_input(directory: Path) -> None:
    done = validate("-", cwd=directory, stdin=VALID + "name: piped\n")
    assert (done.returncode, done.stdout) == (0, "<stdin>: ok, 2 jobs (1 disabled)\n")
    assert validate("-", cwd=directory, stdin=VALID).stdout.startswith(
        "<stdin>:1:1: name: a manifest from standard input"
    )


def test_standard_input_can_be_read_only_once(directory: Path) -> None:
    done = validate("-", "-", cwd=directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: standard input (-) can be read only once\n")


def test_closed_standard_input_is_empty(directory: Path) -> None:
    script = f'exec "{sys.executable}" -P -m runner validate - <&-'
    done = subprocess.run(["/bin/sh", "-c", script], cwd=directory, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("<stdin>:1:1: the file is empty")


def test_process_substitution(directory: Path) -> None:
    script = f'"{sys.executable}" -P -m runner validate /dev/fd/3 3<F'
    done = subprocess.run(["/bin/sh", "-c", script], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 4


def test_file_names_are_escaped(directory: Path) -> None:
    (directory / "a\x1b[31m\n.yaml").write_text("x: 1", encoding="utf-8")
    done = validate("a\x1b[31m\n.yaml", "none\x1b.yaml", cwd=directory)
    assert done.returncode == 2
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert done.stdout.startswith("a\\x1b[31m\\n.yaml:1:1: ")


def test_a_manifest_is_required(directory: Path) -> None:
    done = validate(cwd=directory)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing argument 'MANIFEST...'" in done.stderr


def test_the_example_is_valid() -> None:
    done = validate("jobs.example.yaml", cwd=CHECKOUT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "jobs.example.yaml: ok, 6 jobs (1 disabled)\n", "")
