"""Every command with ledgers whose bytes or values were changed, as in `tests/fuzz/ledgers.py`."""

from __future__ import annotations

import pytest
from fuzz import ledgers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.shell import Shell

_VALUES, _BYTES = 0x80, 0
_READERS = tuple(command for command in ledgers.COMMANDS if command[0] not in ("run", "status", "resolve"))


def edit_column(table: str, column: str, value: object) -> bytes:
    """Build an example that sets a column to a value in every row."""
    values = [repr(candidate) for candidate in ledgers.VALUES]
    return bytes((_VALUES, ledgers.COLUMNS.index((table, column)), 0, values.index(repr(value)), 0, 0, 0, 0))


def random_edits(kind: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.binary(min_size=7, max_size=7), min_size=1, max_size=3).map(
        lambda tails: b"".join(bytes([kind + number % 5]) + tail for number, tail in enumerate(tails))
    )


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.one_of(random_edits(_VALUES), random_edits(_BYTES)))
def test_no_damage_causes_a_traceback(data: bytes) -> None:
    ledgers.check(data, _READERS)


# Each of these once caused a traceback.
REGRESSIONS = [
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


@pytest.mark.parametrize(("table", "column", "value"), REGRESSIONS)
def test_no_invalid_value_causes_a_traceback(table: str, column: str, value: object) -> None:
    ledgers.check(edit_column(table, column, value), _READERS)


def test_an_sqlite_message_that_is_not_utf_8_causes_no_traceback() -> None:
    """A page is replaced by another: SQLite's error message contains bytes that are not UTF-8."""
    ledgers.check(b"\x04\x00\xe6\xb5\xc9\x96\x15\xd5\x00\x00\xf8\x04\xe5\x06\x81\x86", _READERS)


def test_a_submission_without_its_run_is_reported_as_damage() -> None:
    shell = Shell(ledgers.base_ledger().directory)
    ledgers.check(edit_column("submissions", "run_id", "x"), ())
    result = shell.call("ledger", "check", "--sandbox")
    assert (result.code, result.out) == (4, "")
    assert "a row of `submissions` refers to a missing row of `runs`" in result.err


def test_every_command_reads_the_undamaged_ledger() -> None:
    shell = Shell(ledgers.base_ledger().directory)
    ledgers.check(b"", ())
    codes = {command[0]: shell.call(*command).code for command in _READERS}
    assert codes == {"ledger": 0, "runs": 0, "show": 0, "plan": 4}  # the last run is unfinished
