"""The command `validate`, as a person, an editor and CI meet it."""

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
F:1:10: version: version 2 of the format is not known to this pixxel-runner \
(write 1, or see whether a newer pixxel-runner is to be had)
F:3:1: name: the key `name` stands here twice; the first is on line 2 (keep one of the two)
F:5:19: jobs[0].workflow_id: YAML reads `1e5` as the number 100000; it must be text (write it in quotes: `"1e5"`)
F:5:36: jobs[0].project_id: `a%b/` is not usable as an id: one path segment, without slash, space or control \
character, and neither . nor .. (remove the slash)
"""


def validate(*arguments: str, cwd: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "runner", "validate", *arguments]
    return subprocess.run(
        command, cwd=cwd, input=stdin or "", capture_output=True, text=True, encoding="utf-8", check=False, timeout=60
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("valid.yaml", VALID), ("warned.yaml", WARNED), ("F", INVALID)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_valid(folder: Path) -> None:
    done = validate("valid.yaml", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "valid.yaml: ok, 2 jobs (1 disabled)\n", "")


def test_all_problems_of_all_files_at_once(folder: Path) -> None:
    done = validate("F", "none.yaml", "valid.yaml", cwd=folder)
    assert done.stdout == PROBLEMS + (
        "none.yaml: there is no such file (`pixxel-runner init` writes a manifest to start from.)\n"
        "valid.yaml: ok, 2 jobs (1 disabled)\n"
    )
    assert (done.returncode, done.stderr) == (2, "")


def test_a_warning_is_talk_and_does_not_fail(folder: Path) -> None:
    done = validate("warned.yaml", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "warned.yaml: ok, 2 jobs (1 disabled)\n")
    assert done.stderr == (
        "warning: warned.yaml:5:11: once_per: `once_per: day` counts in UTC, as there is no timezone"
        " (add `timezone:` with an IANA name such as Asia/Kolkata, or UTC if that is meant)\n"
    )


def test_json_is_one_list(folder: Path) -> None:
    done = validate("--format", "json", "F", "warned.yaml", "valid.yaml", cwd=folder)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert [(each["file"], each["line"], each["column"], each["severity"]) for each in found] == [
        ("F", 1, 10, "error"),
        ("F", 3, 1, "error"),
        ("F", 5, 19, "error"),
        ("F", 5, 36, "error"),
        ("warned.yaml", 5, 11, "warning"),
    ]
    assert found[2] == {
        "file": "F",
        "line": 5,
        "column": 19,
        "field": "jobs[0].workflow_id",
        "message": "YAML reads `1e5` as the number 100000; it must be text",
        "hint": 'write it in quotes: `"1e5"`',
        "severity": "error",
    }


def test_json_of_valid_manifests_is_an_empty_list(folder: Path) -> None:
    done = validate("--format", "json", "valid.yaml", cwd=folder)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], "")


def test_github_annotations(folder: Path) -> None:
    odd = folder / "a,b:c%.yaml"
    odd.write_text(INVALID, encoding="utf-8")
    done = validate("--format", "github", odd.name, "none.yaml", "warned.yaml", cwd=folder)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("::error file=a%2Cb%3Ac%25.yaml,line=1,col=10,title=version::version 2 of the format")
    assert lines[3].startswith(
        "::error file=a%2Cb%3Ac%25.yaml,line=5,col=36,title=jobs[0].project_id::`a%25b/` is not usable as an id: one"
    )
    assert lines[4].startswith("::error file=none.yaml,title=manifest::there is no such file (")
    assert lines[5].startswith("::warning file=warned.yaml,line=5,col=11,title=once_per::`once_per: day` counts")
    assert lines[6:] == ["warned.yaml: ok, 2 jobs (1 disabled)"]
    assert (done.returncode, done.stderr) == (2, "")


def test_standard_input(folder: Path) -> None:
    done = validate("-", cwd=folder, stdin=VALID + "name: piped\n")
    assert (done.returncode, done.stdout) == (0, "<stdin>: ok, 2 jobs (1 disabled)\n")
    assert validate("-", cwd=folder, stdin=VALID).stdout.startswith("<stdin>:1:1: name: a manifest from standard input")


def test_standard_input_only_once(folder: Path) -> None:
    done = validate("-", "-", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: standard input (-) can be read only once\n")


def test_a_closed_standard_input_is_an_empty_one(folder: Path) -> None:
    script = f'exec "{sys.executable}" -P -m runner validate - <&-'
    done = subprocess.run(["/bin/sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("<stdin>:1:1: the file is empty")


def test_process_substitution(folder: Path) -> None:
    script = f'"{sys.executable}" -P -m runner validate /dev/fd/3 3<F'
    done = subprocess.run(["/bin/sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 4


def test_a_file_name_cannot_act_on_the_terminal(folder: Path) -> None:
    (folder / "a\x1b[31m\n.yaml").write_text("x: 1", encoding="utf-8")
    done = validate("a\x1b[31m\n.yaml", "none\x1b.yaml", cwd=folder)
    assert done.returncode == 2
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert done.stdout.startswith("a\\x1b[31m\\n.yaml:1:1: ")


def test_a_manifest_is_needed(folder: Path) -> None:
    done = validate(cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing argument 'MANIFEST...'" in done.stderr


def test_the_example_is_valid() -> None:
    done = validate("jobs.example.yaml", cwd=CHECKOUT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "jobs.example.yaml: ok, 6 jobs (1 disabled)\n", "")
