"""HTTP headers: the User-Agent, and dates in each form that servers write."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runner.client.headers import USER_AGENT, parse_http_date
from runner.core.version import VERSION

_EXAMPLE = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)


def test_user_agent_names_the_program_and_its_version() -> None:
    assert f"pixxel-runner/{VERSION}" == USER_AGENT


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 09:49:37 +0100",
    ],
)
def test_each_date_format_is_parsed(value: str) -> None:
    date = parse_http_date(value)
    assert date == _EXAMPLE
    assert date.utcoffset() is not None


@pytest.mark.parametrize(
    "value", ["", "yesterday", "0", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 99999 08:49:37 GMT"]
)
def test_no_date_is_none(value: str) -> None:
    assert parse_http_date(value) is None
