"""Fuzzes response handling: any bytes are a response or an ambiguous outcome, and no code that reads them fails.

The first byte of an example sets the request's method and where the rest, the response, is split into pieces.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

from fuzz.time_limit import check_time

from runner.client import api, transport
from runner.client.exchange import Exchange
from runner.client.failures import error_from_read, hint_for
from runner.client.job import JobObject, is_embeddable, parse_job, update_job
from runner.client.job_list import parse_job_list
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.models import Created, Entry, ErrorInfo, InDoubt, Job, NotCreated, Outcome, Run, RunRecord
from runner.ledger.rows import SubmissionRow
from runner.planning.estimates import fetch_estimates
from runner.runs import results_file, summary
from runner.runs.job_status import JobStatus
from runner.runs.listing import fetch_listing
from runner.runs.matching import classify_doubts
from runner.submission import verdict
from runner.submission.verdict import Accepted, NotSent, Throttled

MAX_LENGTH = 2048
SENT = datetime(2026, 10, 20, 1, 0, tzinfo=UTC)
_METHODS: tuple[Literal["POST", "GET"], ...] = ("POST", "GET")

_JOB = b'{"id": "j-1", "status": "completed", "cost": 12, "created_at": "2026-10-20T01:00:01.123456789Z", "tasks": []}'
_BODIES = (
    b"",
    _JOB,
    b'{"jobs": [' + _JOB + b', {"id": "j-2"}]}',
    b'{"jobs": null}',
    b'{"estimated_cost": 12}',
    b'{"error": {"code": "forbidden", "message": "no", "details": [1]}}',
    b'{"id": "j", "result": ' + b"[" * 300 + b"]" * 300 + b', "cost": 1e400, "val_errors": [{"a": NaN}]}',
    b'{"id": "\\ud800", "cost": ' + b"9" * 400 + b"}",
)
_LINES = (
    b"Content-Type: application/json",
    b"Date: Tue, 20 Oct 2026 01:00:05 GMT",
    b"Retry-After: 120",
    b"Retry-After: Tue, 20 Oct 2026 01:02:05 GMT",
    b"X-Request-Id: q-1",
    b"Location: https://elsewhere.example/",
    b"Connection: close",
)


def seeds() -> Iterator[bytes]:
    for number, body in enumerate(_BODIES):
        for status in (200, 201, 204, 301, 401, 404, 409, 429, 500):
            line = _LINES[(number + status) % len(_LINES)]
            yield b"\x00" + _plain(status, body, line)
        yield b"\x03" + _plain(200, body, *_LINES)
        yield b"\x11" + _chunked(body, _LINES[1])
        yield b"\x81" + _plain(200, gzip.compress(body), b"Content-Encoding: gzip")
        yield b"\x01HTTP/1.1 100 Continue\r\n\r\n" + _plain(200, body)


def _plain(status: int, body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d Such" % status, *lines, b"Content-Length: %d" % len(body), b"", body])


def _chunked(body: bytes, *lines: bytes) -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Transfer-Encoding: chunked", b"", b""])
    return head + (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


class FakeSocket:
    """A socket that returns the given pieces, then end of file."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def recv(self, size: int) -> bytes:
        if not self._pieces:
            return b""
        piece, rest = self._pieces[0][:size], self._pieces[0][size:]
        self._pieces[:1] = [rest] if rest else []
        return piece


@dataclass(frozen=True)
class FixedApi:
    """An API that gives the same result for every read."""

    result: ExchangeResult
    bearer: bool = False

    def get_workflow(self, _workflow_id: str, _project_id: str, _exchange: Exchange) -> ExchangeResult:
        return self.result

    def get_estimate(self, _workflow_id: str, _exchange: Exchange) -> ExchangeResult:
        return self.result

    def list_jobs(self, _workflow_id: str, _exchange: Exchange) -> ExchangeResult:
        return self.result

    def get_job(self, _workflow_id: str, _job_id: str, _exchange: Exchange) -> ExchangeResult:
        return self.result


class DirectFetcher:
    """Makes each call once."""

    def fetch_all(self, calls: Any, _time_limit: float | None = None) -> list[ExchangeResult]:
        return [call(Exchange(1.0)) for call in calls]


def check(data: bytes) -> None:
    started = time.process_time()
    mode, received = (data[0] if data else 0), data[1:]
    result = _read_exchange(received, _METHODS[mode & 1], mode >> 1)
    _check_submission(result)
    _check_reads(result)
    _check_body(received)
    check_time(started)


def _read_exchange(received: bytes, method: str, cuts: int) -> ExchangeResult:
    at = [0, *sorted((len(received) * part // 8) for part in range(1, 8) if cuts >> (part - 1) & 1), len(received)]
    exchange = Exchange(1.0)
    exchange.written_at = 0.0
    try:
        response, _ = transport.read_response(FakeSocket([received[start:end] for start, end in pairwise(at)]), method)
    except Exception as error:  # noqa: BLE001 - as the API client does
        return _explain_failure(error, exchange)
    assert len(response.body) <= transport.MAX_BODY_SIZE
    return Response(response.status, response.headers, response.body, SENT + timedelta(seconds=5))


def _explain_failure(error: Exception, exchange: Exchange) -> NoResponse:
    """The failure of an unreadable response; fails the example if its cause is unexpected (`broken`)."""
    failure = api.explain_failure(error, exchange)
    assert failure.cause in ("closed", "truncated", "garbage", "too_large"), (failure, error)
    return failure


def _check_submission(result: ExchangeResult) -> None:
    decision = verdict.classify(result, lambda job_id: job_id == "j-2")
    if isinstance(decision, Throttled):
        assert decision.retry_after is None or decision.retry_after >= 0
    elif isinstance(decision, Accepted):
        assert decision.job_id
        assert isinstance(result, Response)
        assert decision.body == result.body
        _check_results_file(Created(decision.job_id, decision.body, 1, SENT))
    else:
        assert not isinstance(decision, NotSent)  # a byte was written
        kind = InDoubt if isinstance(decision, verdict.Ambiguous) else NotCreated
        _check_results_file(kind(decision.error, 1, SENT))


def _check_results_file(outcome: Outcome) -> None:
    """Fail unless the results file is ASCII JSON, whatever the response contains."""
    record = RunRecord(_RUN, (Entry(Job("a", "w", "p"), outcome, "r-1"),))
    text = "".join(results_file.serialize(summary.summarize(record)))
    assert text.isascii()
    json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(constant)


def _check_reads(result: ExchangeResult) -> None:
    hint_for(error_from_read(result))
    api_stub: Any = FixedApi(result)
    fetcher: Any = DirectFetcher()
    fetch_estimates(fetcher, api_stub, ["w"], [("w", "p")])
    listing = fetch_listing(api_stub, "w", 30.0, lambda: SENT)
    if not isinstance(listing, str):
        findings = classify_doubts([1], [_DOUBT], [], listing, (), {}, SENT + timedelta(hours=1))
        assert [finding.doubt.id for finding in findings] == [1]


def _check_body(body: bytes) -> None:
    status = JobStatus("a", "w", "p", "j-1", body)
    assert status.kind
    for value in (status.progress, status.created_at, status.started_at, status.finished_at, status.is_final):
        assert value is None or isinstance(value, str | datetime | bool)
    listed = parse_job_list(body)
    for job in listed.jobs if listed is not None else ():
        assert parse_job(update_job(body, job)) is not None
    if is_embeddable(body):
        json.loads(body.decode(), parse_constant=_refuse)
    if isinstance(status.job, JobObject):
        _check_results_file(Created(status.job.id, body, 1, SENT))


_RUN = Run(
    id="r-1",
    key="run:r-1",
    state="completed",
    started_at=SENT,
    finished_at=SENT,
    runner="0",
    manifest_name="nightly",
    manifest_path="nightly.yaml",
    manifest_sha256="ab" * 32,
    git_commit=None,
    base_url="https://api.example",
    settings={},
)
_DOUBT = SubmissionRow(
    id=1,
    api="api",
    manifest="nightly",
    run_key="run:r-1",
    run_id="r-1",
    name="a",
    workflow_id="w",
    project_id="p",
    ordinal=1,
    again=False,
    labels={},
    state="in_doubt",
    attempts=1,
    claimed_at=SENT,
    ended_at=SENT + timedelta(seconds=5),
    timeout=30.0,
    estimate=None,
    job_id=None,
    cost=None,
    val_errors=0,
    recovered=False,
    assigned=True,
    error=ErrorInfo("timeout", "no answer in time"),
    candidates=(),
)
