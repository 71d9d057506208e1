"""Ledgers with bytes or values changed, as every command meets them: `tests/fuzz/ledgers.py`."""

from __future__ import annotations

import pytest
from fuzz import ledgers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.shell import Shell

_VALUES, _BYTES = 0x80, 0
_READERS = tuple(command for command in ledgers.COMMANDS if command[0] not in ("run", "status", "resolve"))


def edit(table: str, column: str, value: object) -> bytes:
    """An example in which a column has this value in every row."""
    values = [repr(one) for one in ledgers.VALUES]
    return bytes((_VALUES, ledgers.COLUMNS.index((table, column)), 0, values.index(repr(value)), 0, 0, 0, 0))


def edits(kind: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.binary(min_size=7, max_size=7), min_size=1, max_size=3).map(
        lambda some: b"".join(bytes([kind + number % 5]) + one for number, one in enumerate(some))
    )


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.one_of(edits(_VALUES), edits(_BYTES)))
def test_no_change_ends_a_command_in_a_traceback(data: bytes) -> None:
    ledgers.check(data, _READERS)


# Each ended a command in a traceback once.
FOUND = [
    ("runs", "once_per", "2026-10-20"),
    ("runs", "settings", 7),
    ("runs", "settings", "{}"),
    ("runs", "started_at", "0001-01-01T00:00:00+00:00"),
    ("runs", "started_at", "2026-10-20T01:00:00"),
    ("submissions", "run_id", "x"),
    ("submissions", "cost", "then"),
    ("submissions", "timeout", float("inf")),
    ("submissions", "job_id", b"\xff"),
    ("submissions", "labels", '{"only": 1}'),
    ("submissions", "error", '{"kind": 1, "message": [2]}'),
    ("submissions", "candidates", "1e999"),
    ("responses", "body", 7),
    ("decisions", "decided_by", b"\xff"),
    ("manifests", "path", "a" * 300),
]


@pytest.mark.parametrize(("table", "column", "value"), FOUND)
def test_a_value_that_is_none_ends_no_command_in_a_traceback(table: str, column: str, value: object) -> None:
    ledgers.check(edit(table, column, value), _READERS)


def test_words_of_sqlite_that_are_no_text_end_no_command_in_a_traceback() -> None:
    """A page that is another's: SQLite says what is wrong in bytes that are not UTF-8."""
    ledgers.check(b"\x04\x00\xe6\xb5\xc9\x96\x15\xd5\x00\x00\xf8\x04\xe5\x06\x81\x86", _READERS)


def test_a_submission_of_no_run_is_damage() -> None:
    shell = Shell(ledgers.base_ledger().directory)
    ledgers.check(edit("submissions", "run_id", "x"), ())
    done = shell.call("ledger", "check", "--sandbox")
    assert (done.code, done.out) == (4, "")
    assert "a row of `submissions` refers to a missing row of `runs`" in done.err


def test_the_whole_one_is_read_by_every_command() -> None:
    shell = Shell(ledgers.base_ledger().directory)
    ledgers.check(b"", ())
    codes = {command[0]: shell.call(*command).code for command in _READERS}
    assert codes == {"ledger": 0, "runs": 0, "show": 0, "plan": 4}  # its last run is unfinished
