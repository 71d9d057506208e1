"""The API keys that tests use, and the search for leaks of them: none may appear in anything a test leaves behind.

The search covers the output of child processes and of the test process, the arguments of every process, the
environment of every git process, and every file below the test's directory, including unused database pages,
write-ahead logs and compressed values. It does not cover core dumps, swapped memory, or `/proc/PID/environ` of the
program itself, which only its own user can read.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

KEY = "canary-0c5d9e17ab"

# Every key that tests pass to the program, except the placeholders that docs and sandboxes print.
KEYS = (KEY, "key-that-is-secret", "canary-4f1c0ffee-key", "key-of-the-campaign", "key-of-the-file")

_LARGEST = 64 * 2**20  # bytes


def _encodings(key: str) -> Iterator[bytes]:
    """The key itself and in common encodings."""
    plain = key.encode()
    yield plain
    yield key.encode("utf-16-le")
    yield plain[::-1]
    yield plain.hex().encode()
    for shift in range(3):  # base64 at any offset, without the characters that also encode neighboring bytes
        yield b64encode(b"\0" * shift + plain)[4 if shift else 0 : -4]


_NEEDLES = {**{key.encode(): key for key in KEYS}, **dict.fromkeys(_encodings(KEY), KEY)}


def find_key(data: str | bytes | None) -> str:
    """The first key found in `data`, in any encoding; empty if there is none."""
    if not data:
        return ""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return next((key for needle, key in _NEEDLES.items() if needle in raw), "")


def find_leaks(directory: Path) -> Iterator[str]:
    """Find files below a directory that contain a key, or whose name does.

    A file that contains only a key is a file for `--api-key-file`, not a leak.
    """
    for path in sorted(directory.rglob("*")):
        if find_key(str(path.relative_to(directory))):
            yield f"the name {path}"
        with suppress(OSError):  # a test may leave unreadable files
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST and _is_leak(path):
                yield str(path)


def _is_leak(path: Path) -> bool:
    data = path.read_bytes()
    if data.strip().decode("latin-1") in KEYS:
        return False
    return bool(
        find_key(data) or (data.startswith(b"SQLite format 3\0") and any(map(find_key, _decompressed_values(path))))
    )


def _decompressed_values(database: Path) -> Iterator[bytes]:
    """The decompressed values of a database, as far as they are readable."""
    with (
        suppress(sqlite3.Error, UnicodeError, ValueError),
        closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection,
    ):
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - a name from the schema
                for value in row:
                    with suppress(zlib.error):
                        yield zlib.decompress(value) if isinstance(value, bytes) else b""


def check_process(_executable: Any, arguments: Any, _cwd: Any, environment: Any) -> None:
    """Fail if a process would start with a key in its arguments, or git with a key in its environment."""
    words = [arguments] if isinstance(arguments, str | bytes) else [*arguments]
    texts = [word if isinstance(word, str | bytes) else str(word) for word in words]
    assert not any(map(find_key, texts)), f"the arguments of {texts[0]!r} contain a key"
    if texts and Path(_text(texts[0])).name == "git":
        assert not any(map(find_key, _values(environment))), "the environment of git contains a key"


def _values(environment: Any) -> Iterable[str | bytes]:
    if environment is None:
        return ()  # inherited from the test process, which has none
    return list(environment.values())


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else word.decode("utf-8", "replace")


@contextmanager
def watch_processes() -> Iterator[None]:
    """Check each process started within the context, and its output."""
    active = True

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event == "subprocess.Popen":
            check_process(*arguments)

    sys.addaudithook(audit)  # audit hooks cannot be removed
    communicate = subprocess.Popen.communicate

    def read(self: subprocess.Popen[Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        out, err = communicate(self, *args, **kwargs)
        assert not find_key(out), f"stdout contains a key: {out!r}"
        assert not find_key(err), f"stderr contains a key: {err!r}"
        return out, err

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "communicate", read)
        yield
    active = False
