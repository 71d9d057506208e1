"""Arbitrary bytes, and good answers with something in them changed, as what the API says: `tests/fuzz/responses.py`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fuzz import responses
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.client.response import Response
from runner.runs.listing import Listing, fetch_listing

SEEDS = list(responses.seeds())
PIECES = [
    *(b"\r\n", b"\n", b": ", b"[", b"]", b"{", b"}", b'"', b"\\", b"\xff", b",", b"-", b"0", b"9" * 400, b"NaN"),
    *(b"chunked", b"gzip", b"Content-Encoding: ", b"Transfer-Encoding: ", b"HTTP/1.1 100 C\r\n\r\n", b"[" * 250),
    *(b'"id":', b'"jobs":', b'"error":', b'"cost":', b'"tasks":[{"block_inf_start_time":"9999-12-31T23:59:59-12:00"}]'),
    *(b"Date: ", b"Retry-After: ", b"+99999999999999999999", b"99999999999999999999", b"\x00", b"\xed\xa0\x80"),
]


@st.composite
def near_answers(draw: st.DrawFn) -> bytes:
    """A good answer with some bytes put in and taken out."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(PIECES)) + data[at + draw(st.integers(0, 4)) :]
    return data


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), near_answers()))
def test_any_bytes_are_handled(data: bytes) -> None:
    responses.check(data)


def test_every_seed_is_handled() -> None:
    for seed in SEEDS:
        responses.check(seed)


DATES = ["Tue, 24 Nov 2026 00:00:00 +99999999999999999999", "Tue, 24 Nov 99999999999999999999 00:00:00 GMT"]


@pytest.mark.parametrize("date", DATES)
def test_a_date_out_of_range_is_not_a_date(date: str) -> None:
    """It ended a look-up, and so the run, in a traceback."""
    answer = Response(200, {"date": date, "retry-after": date}, b'{"jobs": []}', datetime(2026, 11, 24, tzinfo=UTC))
    api: Any = responses.FixedApi(answer)
    assert fetch_listing(api, "w", 30.0, lambda: datetime.now(UTC)) == Listing((), timedelta(0))
    assert answer.retry_after is None
