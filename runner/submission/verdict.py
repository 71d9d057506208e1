"""The table of what may be sent again: what happened to one POST → what it means for the job. Pure.

The specification is docs/design.md. A job costs money and the API has no idempotency key, so a verdict never
guesses: whatever leaves open whether the job exists is a Doubt, and a Doubt is never sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.client.failures import error_from_response, key_error, redirect_error, throttle_error
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.models import ErrorInfo


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job exists and has this id."""

    job_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """The job certainly does not exist, and sending it again would not help. `stop`: no other job would fare better."""

    error: ErrorInfo
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The job may or may not exist."""

    error: ErrorInfo
    stop: bool = False


@dataclass(frozen=True, slots=True)
class NotSent:
    """No byte left: it may be sent again."""

    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Throttled:
    """Certainly not created; everyone waits. `retry_after` is in seconds, None when the server did not say."""

    error: ErrorInfo
    retry_after: float | None


Verdict = Accepted | Rejected | Ambiguous | NotSent | Throttled


def classify(result: ExchangeResult, ids_in_use: Callable[[str], bool], *, bearer: bool = False) -> Verdict:
    """Say what one POST came to.

    Args:
        result: what came of the exchange.
        ids_in_use: whether another submission at this API holds a job id.
        bearer: whether the key that was sent begins with `Bearer `, for the words of a 401.
    """
    if isinstance(result, NoResponse):
        return _judge_silence(result)
    return _judge_answer(result, ids_in_use, bearer=bearer)


def known_id_error(job_id: str) -> ErrorInfo:
    """Return the error of a job whose response has the id of another job."""
    return ErrorInfo("known_id", f"a successful response, but with the id of an earlier job: {job_id}")


def _judge_silence(silence: NoResponse) -> Verdict:
    if silence.written:
        return Ambiguous(ErrorInfo(silence.cause, f"{silence.detail}; the job may have been created"))
    if silence.cause == "certificate":
        return Rejected(ErrorInfo("untrusted", silence.detail), stop=True)
    return NotSent(ErrorInfo("unreachable", silence.detail))


def _judge_answer(  # noqa: PLR0911 - one return a row of the table
    answer: Response, held: Callable[[str], bool], *, bearer: bool
) -> Verdict:
    match answer.status:
        case status if 200 <= status <= 299:
            return _judge_success(answer, held)
        case 301 | 302 | 307 | 308:
            return Rejected(redirect_error(answer), stop=True)
        case status if status < 400 or status > 599:
            return Ambiguous(error_from_response(answer, "unexpected", "not an answer that this API gives"), stop=True)
        case 401:
            return Rejected(key_error(answer, bearer=bearer), stop=True)
        case 403:
            return Rejected(
                error_from_response(answer, "forbidden", "the key may not run this workflow in this project")
            )
        case 408:
            return Ambiguous(error_from_response(answer, "request_timeout", "the server or a gateway gave up waiting"))
        case 409:
            return Ambiguous(
                error_from_response(answer, "conflict", "the server reports a conflict, which leaves it open")
            )
        case 425 | 429:
            return Throttled(throttle_error(answer), answer.retry_after)
        case status if status < 500:
            return Rejected(error_from_response(answer, "rejected", "the API rejected the request"))
        case _:
            return Ambiguous(
                error_from_response(answer, "server_error", "the server failed, perhaps after it created the job")
            )


def _judge_success(answer: Response, held: Callable[[str], bool]) -> Verdict:
    job = answer.job
    if job is None:
        return Ambiguous(error_from_response(answer, "unreadable", "a success, but no job object with an id in it"))
    if held(job.id):
        return Ambiguous(error_from_response(answer, "known_id", known_id_error(job.id).message))
    return Accepted(job.id, answer.body)
