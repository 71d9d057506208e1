"""What an exchange with the API ended with: a complete response, or none and the cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

from runner.client.headers import parse_http_date
from runner.client.job import JobObject, parse_job

Cause = Literal[
    "resolve", "connect", "tls", "certificate", "proxy",
    "timeout", "closed", "truncated", "garbage", "too_large", "interrupted", "broken",
]  # fmt: skip

_SUCCESS, _REDIRECT = 200, 300


@dataclass(frozen=True)
class Response:
    """A complete HTTP response. `headers` has lower-case names; the content coding of `body` is decoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime

    @cached_property
    def job(self) -> JobObject | None:
        """The job object of a successful response; None when there is none."""
        return parse_job(self.body) if _SUCCESS <= self.status < _REDIRECT else None

    @property
    def date(self) -> datetime | None:
        """The server's time when it responded; None when `Date` is missing or invalid."""
        return parse_http_date(self.headers.get("date", ""))

    @property
    def retry_after(self) -> float | None:
        """The seconds that `Retry-After` asks for, at least 0; None when it is missing or invalid.

        A date is compared with the server's own `Date`, so that a wrong local clock does not lengthen the wait.
        """
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value.lstrip("0")[:9] or 0)  # at most 31 years: 400 digits would become infinity
        until = parse_http_date(value)
        if until is None:
            return None
        return max(0.0, (until - (self.date or self.received_at)).total_seconds())


@dataclass(frozen=True, slots=True)
class NoResponse:
    """No complete response arrived. `written`: a byte of the request may have left; `detail` explains the cause."""

    cause: Cause
    written: bool
    detail: str

    @classmethod
    def interrupted(cls, *, written: bool) -> NoResponse:
        """Return the result of an exchange that an interrupt aborted."""
        return cls("interrupted", written, "the run was interrupted before a response arrived")


ExchangeResult = Response | NoResponse
