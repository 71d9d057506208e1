"""The table of what may be sent again: from the result of one POST to what it means for the job. Pure.

docs/design.md explains it. A job costs money and the API has no idempotency key, so a verdict never guesses: whatever
leaves open whether the job exists is Ambiguous, and such a job is never sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.client.failures import error_from_response, key_error, redirect_error, throttle_error
from runner.client.job import JobObject
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.models import ErrorInfo


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job exists and has this id."""

    job_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """The job certainly does not exist, and a retry would not help. `stop`: nor would any other job succeed."""

    error: ErrorInfo
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The job is in doubt: it may or may not exist. `stop`: so might any other job."""

    error: ErrorInfo
    stop: bool = False


@dataclass(frozen=True, slots=True)
class NotSent:
    """No byte of the request left: it may be retried."""

    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Throttled:
    """The job certainly does not exist, and all workers pause. `retry_after` is in seconds, None if unknown."""

    error: ErrorInfo
    retry_after: float | None


Verdict = Accepted | Rejected | Ambiguous | NotSent | Throttled


def classify(result: ExchangeResult, ids_in_use: Callable[[str], bool], *, bearer: bool = False) -> Verdict:
    """Return what the result of one POST means for the job.

    Args:
        result: the result of the exchange.
        ids_in_use: whether another submission at this API has a job id.
        bearer: whether the key that was sent begins with `Bearer `, for the message of a 401.
    """
    match result:
        case NoResponse(written=True):
            return Ambiguous(ErrorInfo(result.cause, f"{result.detail}; the job may have been created"))
        case NoResponse(cause="certificate"):
            return Rejected(ErrorInfo("untrusted", result.detail), stop=True)
        case NoResponse():
            return NotSent(ErrorInfo("unreachable", result.detail))

        case Response(job=JobObject(id=job_id)) if ids_in_use(job_id):
            return _ambiguous(result, "known_id", known_id_error(job_id).message)
        case Response(job=JobObject(id=job_id)):
            return Accepted(job_id, result.body)
        case _:
            return _classify_status(result, bearer=bearer)


def _classify_status(response: Response, *, bearer: bool) -> Verdict:  # noqa: PLR0911 - one return for each row
    match response.status:
        case status if 200 <= status <= 299:
            return _ambiguous(response, "unreadable", "the response succeeded but contains no job id")

        case 301 | 302 | 307 | 308:
            return Rejected(redirect_error(response), stop=True)
        case status if not 400 <= status <= 599:
            return _ambiguous(response, "unexpected", "unexpected status for this API", stop=True)

        case 401:
            return Rejected(key_error(response, bearer=bearer), stop=True)
        case 403:
            return _rejected(response, "forbidden", "the key may not run this workflow in this project")
        case 408:
            return _ambiguous(response, "request_timeout", "the server or a gateway timed out")
        case 409:
            return _ambiguous(response, "conflict", "the server reports a conflict; the job may have been created")
        case 425 | 429:
            return Throttled(throttle_error(response), response.retry_after)
        case status if status <= 499:
            return _rejected(response, "rejected", "the API rejected the request")

        case _:
            return _ambiguous(response, "server_error", "the server failed, possibly after it created the job")


def known_id_error(job_id: str) -> ErrorInfo:
    """The error of a job whose response has the id of another job."""
    return ErrorInfo("known_id", f"a successful response, but with the id of an earlier job: {job_id}")


def _ambiguous(response: Response, kind: str, explanation: str, *, stop: bool = False) -> Ambiguous:
    return Ambiguous(error_from_response(response, kind, explanation), stop)


def _rejected(response: Response, kind: str, explanation: str) -> Rejected:
    return Rejected(error_from_response(response, kind, explanation))
