"""What came of one exchange: a complete response, or none; and how either is described to a person. Pure.

The specification is DESIGN, section 4. A job costs money and the API has no idempotency key, so a verdict never
guesses: whatever leaves open whether the job exists is a Doubt, and a Doubt is never sent again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any, Literal

from runner.client.headers import parse_http_date
from runner.client.job import JobObject, decode_lossless, parse_job, parse_json_object
from runner.core.models import ErrorInfo

Cause = Literal[
    "resolve", "connect", "tls", "certificate", "proxy",
    "timeout", "closed", "truncated", "garbage", "too_large", "interrupted", "broken",
]  # fmt: skip

_SUCCESS, _REDIRECT = 200, 300
# By what OpenSSL says; to trust another authority helps only where none is known.
_UNKNOWN_AUTHORITY = (
    "a private certificate authority is trusted with --ca-bundle FILE; one that was given lacks the host's authority"
)
_CERTIFICATE_REMEDIES = {
    "has expired": "check this machine's clock; if that is right, the host needs a new certificate",
    "not yet valid": "check this machine's clock; if that is right, the host's certificate is not in force yet",
    "mismatch": "check the host's name in the address; if that is right, the host needs a certificate of its own",
    "issuer certificate": _UNKNOWN_AUTHORITY,
    "self-signed": _UNKNOWN_AUTHORITY,
    "self signed": _UNKNOWN_AUTHORITY,  # so OpenSSL before 3.0
    "verify the first certificate": _UNKNOWN_AUTHORITY,
}

_EXCERPT = 2_000  # characters of an unusable answer that are kept for a person


@dataclass(frozen=True)
class Response:
    """A complete HTTP response. `headers` has lower-case names; `body` is decoded of its content coding."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime

    @cached_property
    def job(self) -> JobObject | None:
        """The job that the API tells in a success; None where there is none."""
        return parse_job(self.body) if _SUCCESS <= self.status < _REDIRECT else None

    @property
    def date(self) -> datetime | None:
        """The server's time when it sent the response; None when `Date` is missing or cannot be read."""
        return parse_http_date(self.headers.get("date", ""))

    @property
    def retry_after(self) -> float | None:
        """The seconds that `Retry-After` asks for, at least 0; None when it is missing or cannot be read.

        A date is compared with the server's own `Date`, so that a wrong local clock does not lengthen the wait.
        """
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value.lstrip("0")[:9] or 0)  # at most 31 years: float() makes 400 digits infinite
        until = parse_http_date(value)
        if until is None:
            return None
        return max(0.0, (until - (self.date or self.received_at)).total_seconds())


@dataclass(frozen=True, slots=True)
class NoResponse:
    """No complete response came. `written`: whether a byte of the request may have left; `detail` is for a person."""

    cause: Cause
    written: bool
    detail: str


ExchangeResult = Response | NoResponse


def known_id(job_id: str) -> ErrorInfo:
    """Why a job is in doubt whose answer has the id of another."""
    return ErrorInfo("known_id", f"a success, but with the id of an earlier job: {job_id}")


def describe_failure(happening: ExchangeResult, *, bearer: bool = False) -> str:
    """Why what came of a question is of no use, in words for a person. `bearer` is as for `judge`."""
    if isinstance(happening, NoResponse):
        return happening.detail
    match happening.status:
        case 301 | 302 | 307 | 308:
            return error_from_response(happening, "redirected", describe_redirect(happening)).message
        case 401:
            return error_from_response(happening, "unauthorized", describe_rejected_key(bearer=bearer)).message
        case 425 | 429:
            return error_from_response(happening, "throttled", "too many requests").message
        case status if status < 300:
            return error_from_response(happening, "unreadable", "an answer that cannot be read").message
        case _:
            return error_from_response(happening, "rejected", "the API gives no answer to this").message


def certificate_hint(why: str) -> str:
    """What to do about a certificate that was not trusted, as a phrase; `why` is or ends with OpenSSL's own words."""
    for sign, remedy in _CERTIFICATE_REMEDIES.items():
        if sign in why:
            return remedy
    return "have the host's certificate looked at"


def describe_redirect(answer: Response) -> str:
    """Where a redirect points, and what to do about it."""
    location = answer.headers.get("location", "nowhere")
    return f"the server redirects to {location}, which is never followed with a key: check the base URL"


def describe_rejected_key(*, bearer: bool) -> str:
    """Why a 401 came, as far as the form of the key tells; `bearer`: it begins with `Bearer `."""
    if bearer:
        return "the API does not recognise the key; it begins with 'Bearer ', and the API wants the bare key"
    return "the API does not recognise the key; it has no 'Bearer ' prefix, and needs none"


def error_from_response(answer: Response, kind: str, words: str) -> ErrorInfo:
    """The error in a response: its kind, a message for a person, and what support would ask for."""
    api_error = _api_error(answer.body)
    return ErrorInfo(
        kind=kind,
        message=f"HTTP {answer.status}{_phrase(answer.status)}: {_words(api_error, kind, words)}",
        http_status=answer.status,
        api_error=api_error,
        request_id=answer.headers.get("x-request-id"),
        date=answer.headers.get("date"),
        retry_after=answer.headers.get("retry-after"),
        body=None if api_error is not None else _excerpt(answer.body),
    )


def _words(api_error: Any, kind: str, words: str) -> str:
    """The API's words, and ours beside them except where the API's say all there is."""
    said = _said(api_error)
    if not said:
        return words
    return said if kind == "rejected" else f"{said} ({words})"


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _api_error(body: bytes) -> Any:
    """The `error` member of the API's error form, whatever is in it; None when the body is not of that form."""
    members = parse_json_object(body)
    return members.get("error") if members else None


def _said(api_error: Any) -> str:
    if isinstance(api_error, str):
        return api_error
    if not isinstance(api_error, dict):
        return ""
    said = [api_error.get(key) for key in ("code", "message", "details")]
    return ": ".join(word if isinstance(word, str) else json.dumps(word) for word in said if word)


def _excerpt(body: bytes) -> str | None:
    return decode_lossless(body)[:_EXCERPT] or None
