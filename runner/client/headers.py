"""HTTP headers: the User-Agent that is sent, and how the dates in responses are read."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from runner.core.version import VERSION

USER_AGENT = f"pixxel-runner/{VERSION}"


def parse_http_date(value: str) -> datetime | None:
    """Parse an HTTP date, such as `Sun, 06 Nov 1994 08:49:37 GMT`. None when it is not one."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
