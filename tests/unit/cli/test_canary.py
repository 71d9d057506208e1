"""The search for leaked keys finds them: a test that leaks one fails."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support import canary
from support.canary import KEY, KEYS


@pytest.mark.parametrize(
    "encode",
    [
        str.encode,
        lambda key: f"Authorization: {key}\r\n".encode(),
        lambda key: key.encode("utf-16"),
        lambda key: key.encode().hex().encode(),
        lambda key: b64encode(f"{key}:".encode()),
        lambda key: b64encode(f":{key}".encode()),
        lambda key: b64encode(f"k:{key}, k".encode()),
    ],
)
def test_an_encoded_key_is_found(encode: Callable[[str], bytes]) -> None:
    assert canary.find_key(b"x" * 9 + encode(KEY) + b"y") == KEY


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_tests_is_found(key: str) -> None:
    assert canary.find_key(f"Authorization: {key}") == key


def leaks(tmp_path: Path) -> list[str]:
    """The leaks in a directory, which is emptied: otherwise they would make this test fail, as any other."""
    found = [Path(path.removeprefix("the name ")).name for path in canary.find_leaks(tmp_path)]
    for path in tmp_path.iterdir():
        path.unlink()
    return found


def test_a_key_in_a_file_or_its_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"sent {KEY}", encoding="ascii")
    (tmp_path / KEY).touch()
    (tmp_path / "clean").write_text("nothing", encoding="ascii")
    (tmp_path / "key-file").write_text(f"{KEY}\n", encoding="ascii")
    assert leaks(tmp_path) == [KEY, "log"]


@pytest.mark.parametrize(
    "statements",
    [
        [("INSERT INTO t VALUES (?)", KEY)],
        [("INSERT INTO t VALUES (?)", KEY), ("DELETE FROM t WHERE v = ?", KEY)],
        [("INSERT INTO t VALUES (?)", zlib.compress(f"{KEY}, and more, so that it is compressed".encode() * 9))],
    ],
    ids=["row", "deleted-row", "compressed"],
)
def test_a_key_in_a_ledger_is_found(tmp_path: Path, statements: list[tuple[str, object]]) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE t (v)")
        for statement, value in statements:
            connection.execute(statement, (value,))
    assert leaks(tmp_path) == ["ledger.db"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_key_in_the_output_of_a_process_is_found(stream: str) -> None:
    code = f"import sys; sys.{stream}.write('canary-' + '{KEY.removeprefix('canary-')}')"
    with pytest.raises(AssertionError, match=f"{stream} contains a key"):
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_key_in_arguments_or_in_the_environment_of_git_is_found() -> None:
    with pytest.raises(AssertionError, match=r"the arguments of .* contain a key"):
        subprocess.run([sys.executable, "-c", "", "--key", KEY], check=True)
    with pytest.raises(AssertionError, match="the environment of git contains a key"):
        subprocess.run(["git", "--version"], check=True, env={"PIXXEL_API_KEY": KEY})  # noqa: S607 - git, wherever it is
