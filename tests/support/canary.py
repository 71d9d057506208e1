"""The keys that tests use, and the search for them in all that a test leaves: each is a canary, and must be nowhere.

What is searched is what children of the test and the program in its own process print, the arguments of every process,
the environment of every git, and each file below the test's folder: ledgers with the pages that they no longer use,
their logs, and what they hold compressed. Out of reach are a core dump, swapped memory, and `/proc/PID/environ` of the
program itself, which its own user can read.
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

# Every key that a test gives to the program, and that is none of the words which pages and sandboxes print.
KEYS = (KEY, "key-that-is-secret", "canary-4f1c0ffee-key", "key-of-the-campaign", "key-of-the-file")

_LARGEST = 64 * 2**20  # bytes


def _encodings(key: str) -> Iterator[bytes]:
    """The key as it is, and as what it is often made into."""
    plain = key.encode()
    yield plain
    yield key.encode("utf-16-le")
    yield plain[::-1]
    yield plain.hex().encode()
    for shift in range(3):  # base64 of whatever it stands in: without what is shared with its neighbours
        yield b64encode(b"\0" * shift + plain)[4 if shift else 0 : -4]


_NEEDLES = {**{key.encode(): key for key in KEYS}, **dict.fromkeys(_encodings(KEY), KEY)}


def find_key(data: str | bytes | None) -> str:
    """The first key that is in this, in any disguise; empty when there is none."""
    if not data:
        return ""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return next((key for needle, key in _NEEDLES.items() if needle in raw), "")


def find_leaks(folder: Path) -> Iterator[str]:
    """The files below a folder that hold a key, and those whose names do.

    A file with a key and nothing else is one that a person made for `--api-key-file`, and no leak.
    """
    for path in sorted(folder.rglob("*")):
        if find_key(str(path.relative_to(folder))):
            yield f"the name {path}"
        with suppress(OSError):  # a test may leave what nobody can read
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST and _is_leak(path):
                yield str(path)


def _is_leak(path: Path) -> bool:
    data = path.read_bytes()
    if data.strip().decode("latin-1") in KEYS:
        return False
    return bool(find_key(data) or (data.startswith(b"SQLite format 3\0") and any(map(find_key, _unpacked(path)))))


def _unpacked(database: Path) -> Iterator[bytes]:
    """What a database holds compressed, as far as it can be read."""
    with (
        suppress(sqlite3.Error, UnicodeError, ValueError),
        closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection,
    ):
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - a table's own name
                for value in row:
                    with suppress(zlib.error):
                        yield zlib.decompress(value) if isinstance(value, bytes) else b""


def check_process(_executable: Any, arguments: Any, _cwd: Any, environment: Any) -> None:
    """Fail when a process is to be started with a key in its arguments, or a git with one in its environment."""
    words = [arguments] if isinstance(arguments, str | bytes) else [*arguments]
    texts = [word if isinstance(word, str | bytes) else str(word) for word in words]
    assert not any(map(find_key, texts)), f"a key is in the arguments of {texts[0]!r}"
    if texts and Path(_text(texts[0])).name == "git":
        assert not any(map(find_key, _values(environment))), "git is told a key"


def _values(environment: Any) -> Iterable[str | bytes]:
    if environment is None:
        return ()  # the test's own, which has none
    return list(environment.values())


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else word.decode("utf-8", "replace")


@contextmanager
def watch_processes() -> Iterator[None]:
    """Look at each process that is started meanwhile, and at what it prints."""
    on = True

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if on and event == "subprocess.Popen":
            check_process(*arguments)

    sys.addaudithook(audit)  # it cannot be removed
    communicate = subprocess.Popen.communicate

    def read(self: subprocess.Popen[Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        out, err = communicate(self, *args, **kwargs)
        assert not find_key(out), f"a key is in what was printed: {out!r}"
        assert not find_key(err), f"a key is in what was said: {err!r}"
        return out, err

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "communicate", read)
        yield
    on = False
