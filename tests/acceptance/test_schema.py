"""The command `schema`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCHEMAS = Path(__file__).parents[2] / "schemas"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "runner", "schema", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "name", "draft"),
    [
        ([], "manifest", "http://json-schema.org/draft-07/schema#"),  # the draft that editors support
        (["manifest"], "manifest", "http://json-schema.org/draft-07/schema#"),
        (["results"], "results", "https://json-schema.org/draft/2020-12/schema"),
    ],
)
def test_prints_the_schema_file_unchanged(arguments: list[str], name: str, draft: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")
    assert json.loads(done.stdout)["$schema"] == draft


def test_unknown_schema_is_rejected() -> None:
    done = run("ledger")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'ledger' is not one of 'manifest', 'results'" in done.stderr
