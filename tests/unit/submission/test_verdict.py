"""The verdict table, which decides what may be sent again: each row, and arbitrary responses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.client.response import Cause, ExchangeResult, NoResponse, Response
from runner.core.models import ErrorInfo
from runner.submission.verdict import Accepted, Ambiguous, NotSent, Rejected, Throttled, Verdict, classify

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
JOB = b'{"id": "job-1", "cost": 10}'


def response(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, headers or {}, body, NOW)


def no_response(cause: Cause, *, written: bool) -> NoResponse:
    return NoResponse(cause, written, "the reason")


def verdict_on(result: ExchangeResult, ids_in_use: frozenset[str] = frozenset(), *, bearer: bool = False) -> Verdict:
    return classify(result, ids_in_use.__contains__, bearer=bearer)


def error_of(result: ExchangeResult, *, bearer: bool = False) -> ErrorInfo:
    verdict = verdict_on(result, bearer=bearer)
    assert not isinstance(verdict, Accepted)
    return verdict.error


def summarize(verdict: Verdict) -> tuple[type[Verdict], str, bool]:
    """The verdict, the kind of its error, and whether it stops the run."""
    kind = "" if isinstance(verdict, Accepted) else verdict.error.kind
    return type(verdict), kind, isinstance(verdict, Rejected | Ambiguous) and verdict.stop


@pytest.mark.parametrize(
    ("result", "verdict", "kind", "stop"),
    [
        # No byte of the request was written.
        (no_response("resolve", written=False), NotSent, "unreachable", False),
        (no_response("connect", written=False), NotSent, "unreachable", False),
        (no_response("timeout", written=False), NotSent, "unreachable", False),
        (no_response("tls", written=False), NotSent, "unreachable", False),
        (no_response("proxy", written=False), NotSent, "unreachable", False),
        (no_response("closed", written=False), NotSent, "unreachable", False),
        (no_response("interrupted", written=False), NotSent, "unreachable", False),
        (no_response("broken", written=False), NotSent, "unreachable", False),
        (no_response("certificate", written=False), Rejected, "untrusted", True),
        # A byte was written, and no complete response came.
        (no_response("closed", written=True), Ambiguous, "closed", False),
        (no_response("timeout", written=True), Ambiguous, "timeout", False),
        (no_response("truncated", written=True), Ambiguous, "truncated", False),
        (no_response("garbage", written=True), Ambiguous, "garbage", False),
        (no_response("too_large", written=True), Ambiguous, "too_large", False),
        (no_response("interrupted", written=True), Ambiguous, "interrupted", False),
        (no_response("broken", written=True), Ambiguous, "broken", False),
        (no_response("certificate", written=True), Ambiguous, "certificate", False),
        (no_response("tls", written=True), Ambiguous, "tls", False),
        # 2xx.
        (response(200, JOB), Accepted, "", False),
        (response(201, JOB), Accepted, "", False),
        (response(299, JOB), Accepted, "", False),
        (response(200), Ambiguous, "unreadable", False),
        (response(204), Ambiguous, "unreadable", False),
        (response(200, b"<html>welcome to the hotel</html>"), Ambiguous, "unreadable", False),
        (response(200, JOB[:-1]), Ambiguous, "unreadable", False),
        (response(200, b"[" + JOB + b"]"), Ambiguous, "unreadable", False),
        (response(200, b'{"job": {"id": "job-1"}}'), Ambiguous, "unreadable", False),
        (response(200, b'{"id": ""}'), Ambiguous, "unreadable", False),
        (response(200, b'{"id": 7}'), Ambiguous, "unreadable", False),
        (response(200, b'{"id": null}'), Ambiguous, "unreadable", False),
        (response(200, b'"id"'), Ambiguous, "unreadable", False),
        (response(200, b'{"error": {"message": "no"}}'), Ambiguous, "unreadable", False),
        # 3xx, and statuses that do not answer a POST.
        (response(301, JOB), Rejected, "redirected", True),
        (response(302, JOB), Rejected, "redirected", True),
        (response(307, JOB), Rejected, "redirected", True),
        (response(308, JOB), Rejected, "redirected", True),
        (response(101, JOB), Ambiguous, "unexpected", True),
        (response(300, JOB), Ambiguous, "unexpected", True),
        (response(303, JOB), Ambiguous, "unexpected", True),
        (response(304, JOB), Ambiguous, "unexpected", True),
        (response(399, JOB), Ambiguous, "unexpected", True),
        (response(600, JOB), Ambiguous, "unexpected", True),
        (response(999, JOB), Ambiguous, "unexpected", True),
        # 4xx.
        (response(400), Rejected, "rejected", False),
        (response(401), Rejected, "unauthorized", True),
        (response(403), Rejected, "forbidden", False),
        (response(404), Rejected, "rejected", False),
        (response(408), Ambiguous, "request_timeout", False),
        (response(409), Ambiguous, "conflict", False),
        (response(422), Rejected, "rejected", False),
        (response(425), Throttled, "throttled", False),
        (response(429), Throttled, "throttled", False),
        (response(451), Rejected, "rejected", False),
        # 5xx, with or without Retry-After.
        (response(500), Ambiguous, "server_error", False),
        (response(502, b"<html>"), Ambiguous, "server_error", False),
        (response(503, b"", {"retry-after": "1"}), Ambiguous, "server_error", False),
        (response(504, JOB), Ambiguous, "server_error", False),
        (response(599), Ambiguous, "server_error", False),
    ],
)
def test_each_result_has_its_verdict(result: ExchangeResult, verdict: type[Verdict], kind: str, stop: bool) -> None:
    assert summarize(verdict_on(result)) == (verdict, kind, stop)


@pytest.mark.parametrize("body", [JOB, b"", b'{"error": {"code": "c", "message": "m"}}'])
def test_every_status_has_its_verdict(body: bytes) -> None:
    success = (Accepted, "", False) if body == JOB else (Ambiguous, "unreadable", False)
    table: dict[int, tuple[type[Verdict], str, bool]] = {
        **dict.fromkeys(range(100, 200), (Ambiguous, "unexpected", True)),
        **dict.fromkeys(range(200, 300), success),
        **dict.fromkeys(range(300, 400), (Ambiguous, "unexpected", True)),
        **dict.fromkeys((301, 302, 307, 308), (Rejected, "redirected", True)),
        **dict.fromkeys(range(400, 500), (Rejected, "rejected", False)),
        401: (Rejected, "unauthorized", True),
        403: (Rejected, "forbidden", False),
        408: (Ambiguous, "request_timeout", False),
        409: (Ambiguous, "conflict", False),
        425: (Throttled, "throttled", False),
        429: (Throttled, "throttled", False),
        **dict.fromkeys(range(500, 600), (Ambiguous, "server_error", False)),
    }
    assert {status: summarize(verdict_on(response(status, body))) for status in range(100, 600)} == table


@pytest.mark.parametrize(
    "body",
    [
        JOB,
        b'\xef\xbb\xbf{"id": "job-1"}',
        b'{"id": "job-1", "name": "\\ud800"}',
        b'{"id": "job-1", "name": "\xff\xfe"}',
        b'{"id": "job-1", "name": "two\nlines"}',
        b'{"id": "job-1", "cost": NaN, "lat": -Infinity}',
        b'{"id": "job-1", "cost": 123456789012345678901234567890}',
        b'{"id": "job-1", "cost": ' + b"9" * 5_000 + b"}",
        b'{"id": "job-1", "result": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"result": ' + b'{"id": ' * 5_000 + b'"other"' + b"}" * 5_000 + b', "id": "job-1"}',
        b'{"val_errors": [{"err": "no input"}], "id": "job-1"}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_created_job_is_accepted_whatever_else_the_body_holds(body: bytes) -> None:
    assert verdict_on(response(200, body)) == Accepted("job-1", body)


def test_the_id_of_an_earlier_job_does_not_prove_a_new_one() -> None:
    verdict = verdict_on(response(200, JOB), frozenset({"job-1"}))
    assert isinstance(verdict, Ambiguous)
    assert (verdict.error.kind, verdict.stop) == ("known_id", False)
    assert "job-1" in verdict.error.message
    assert verdict_on(response(200, JOB), frozenset({"job-2"})) == Accepted("job-1", JOB)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (no_response("closed", written=True), "the reason; the job may have been created"),
        (no_response("connect", written=False), "the reason"),
        (no_response("certificate", written=False), "the reason"),
        (
            response(307, b"", {"location": "https://elsewhere.example/v0"}),
            (
                "HTTP 307 Temporary Redirect: the server redirects to https://elsewhere.example/v0; "
                "redirects are not followed"
            ),
        ),
        (
            response(302),
            "HTTP 302 Found: the server redirects to an unknown location; redirects are not followed",
        ),
        (
            response(404, b'{"error": {"code": "NOT_FOUND", "message": "no workflow", "details": {"id": ["w"]}}}'),
            'HTTP 404 Not Found: NOT_FOUND: no workflow: {"id": ["w"]}',
        ),
        (response(400, b'{"error": {"message": "no inputs", "code": ""}}'), "HTTP 400 Bad Request: no inputs"),
        (response(400, b'{"error": "no inputs"}'), "HTTP 400 Bad Request: no inputs"),
        (response(400, b'{"error": null}'), "HTTP 400 Bad Request: the API rejected the request"),
        (response(400, b'{"error": [1, 2]}'), "HTTP 400 Bad Request: the API rejected the request"),
        (response(499, b"nginx"), "HTTP 499: the API rejected the request"),
        (
            response(403, b'{"error": {"message": "not yours"}}'),
            "HTTP 403 Forbidden: not yours (the key may not run this workflow in this project)",
        ),
        (response(429), "HTTP 429 Too Many Requests"),
        (
            response(502, b"<html>"),
            "HTTP 502 Bad Gateway: the server failed, possibly after it created the job",
        ),
    ],
)
def test_error_messages(result: ExchangeResult, message: str) -> None:
    assert error_of(result).message == message


@pytest.mark.parametrize("body", [b"", b'{"error": {"message": "unknown key"}}'])
def test_the_message_of_a_401_mentions_the_bearer_prefix(body: bytes) -> None:
    assert "(sent with a 'Bearer ' prefix)" in error_of(response(401, body), bearer=True).message
    assert "(sent without a 'Bearer ' prefix)" in error_of(response(401, body), bearer=False).message


def test_details_for_support_are_saved_unchanged() -> None:
    body = b'{"error": {"code": "E7", "message": "\\u001b[31mno", "details": [1e400, {"a": null}]}, "more": 1}'
    headers = {"x-request-id": "r-1", "date": "yesterday", "retry-after": "soon", "set-cookie": "session"}
    error = error_of(response(503, body, headers))
    assert (error.http_status, error.request_id, error.date, error.retry_after) == (503, "r-1", "yesterday", "soon")
    assert error.api_error == {"code": "E7", "message": "\x1b[31mno", "details": [math.inf, {"a": None}]}
    assert error.body is None


@pytest.mark.parametrize(
    ("body", "saved"),
    [
        (b"", None),
        (b"<html>busy</html>", "<html>busy</html>"),
        (b'{"error": null}', '{"error": null}'),
        (b"x" * 2_001, "x" * 2_000),
        (b"\xff", "\udcff"),
        # Truncating inside a character would leave a lone surrogate, which strict JSON parsers reject.
        pytest.param(("x" + "é" * 1_500).encode(), "x" + "é" * 1_500, id="1,501 characters in 3,001 bytes"),
    ],
)
def test_the_start_of_an_unusable_response_is_saved(body: bytes, saved: str | None) -> None:
    assert ascii(error_of(response(500, body)).body) == ascii(saved)  # pytest cannot print a surrogate


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("000000000300", 300.0),
        ("9" * 400, 999_999_999.0),
        ("Mon, 04 May 2026 03:04:01 GMT", 120.0),
        ("Monday, 04-May-26 03:04:01 GMT", 120.0),  # RFC 850
        ("Mon May  4 03:04:01 2026", 120.0),  # asctime
        ("Mon, 04 May 2026 05:04:01 +0200", 120.0),
        ("Mon, 04 May 2026 03:04:01 -0000", 120.0),
        ("Mon, 04 May 2026 03:01:01 GMT", 0.0),  # past
        ("Sat, 01 Jan 0001 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 251_624_437_078.0),
        *[
            (garbage, None)
            for garbage in (
                "", "-5", "+5", "1.5", "1e3", "0x10", "٣", "²", "120 seconds", "120, 120", "tomorrow", "\x00",
                "Mon, 31 Feb 2026 00:00:00 GMT", "Mon, 04 May 2026 24:00:00 GMT",
                "Mon, 04 May 2026 03:04:01 +999999999",
                "Mon, 04 May 99999999999 03:04:01 GMT", "2027-01-01T00:00:00Z",
            )
        ],
    ],
)  # fmt: skip
def test_retry_after_is_parsed_in_every_format(value: str, seconds: float | None) -> None:
    assert response(429, b"", {"retry-after": value}).retry_after == seconds
    verdict = verdict_on(response(429, b"", {"retry-after": value}))
    assert isinstance(verdict, Throttled)
    assert verdict.retry_after == seconds


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Mon, 04 May 2026 04:02:01 GMT", 30.0),  # the server's clock is an hour ahead
        ("Monday, 04-May-26 04:02:01 GMT", 30.0),
        ("Mon May  4 04:02:01 2026", 30.0),
        ("an hour ahead", 3630.0),
        ("", 3630.0),
    ],
)
def test_a_retry_after_date_is_relative_to_the_servers_clock(date: str, seconds: float) -> None:
    headers = {"date": date, "retry-after": "Mon, 04 May 2026 04:02:31 GMT"}
    assert response(425, b"", headers).retry_after == seconds
    assert response(425, b"", {**headers, "retry-after": "7"}).retry_after == 7.0


def test_a_missing_retry_after_is_none() -> None:
    assert response(429).retry_after is None


# A fixed list: for all of Unicode, Hypothesis spends seconds building tables first.
_CHARACTERS = st.sampled_from([*map(chr, range(256)), "\u202e", "٣", "\ud800", "\U0001f6f0"])
_text = st.text(_CHARACTERS, max_size=40)
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "error", "code", "message", "details", ""]), inner)
    ),
    max_leaves=10,
)
_bodies = st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode())
_dates = st.lists(
    st.sampled_from(
        ["Mon,", "Monday,", "04", "May", "2026", "26", "9999", "0001", "04-May-26", "03:04:01", "24:60:60", "::", "GMT",
         "+0000", "-0000", "-9999999", "PM", "(", ")", '"', "\\", ","]
    ),
    max_size=8,
).map(" ".join)  # fmt: skip
_values = _text | _dates
_headers = st.dictionaries(st.sampled_from(["retry-after", "date", "location", "x-request-id"]), _values)


@given(status=st.integers(100, 999), body=_bodies, headers=_headers, known=st.booleans(), bearer=st.booleans())
def test_every_response_has_a_verdict(
    status: int, body: bytes, headers: dict[str, str], known: bool, bearer: bool
) -> None:
    verdict = classify(response(status, body, headers), lambda _id: known, bearer=bearer)
    if isinstance(verdict, Accepted):
        assert 200 <= status <= 299
        assert not known
        assert verdict.body == body
        assert verdict.job_id
    else:
        assert verdict.error.http_status == status
        assert verdict.error.message.startswith(f"HTTP {status}")
    if isinstance(verdict, Throttled):
        assert verdict.retry_after is None or 0 <= verdict.retry_after < math.inf


@given(value=_values, date=_values)
def test_any_retry_after_is_seconds_or_none(value: str, date: str) -> None:
    seconds = response(429, b"", {"retry-after": value, "date": date}).retry_after
    assert seconds is None or 0 <= seconds < math.inf


@pytest.mark.parametrize("levels", [*range(150, 1_010, 20), 3_000, 20_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"message": [', b"]}")])
def test_deeply_nested_errors_have_a_verdict(left: bytes, right: bytes, levels: int) -> None:
    deep = left * levels + b"1" + right * levels
    assert error_of(response(400, b'{"error": {"details": ' + deep + b"}}")).kind == "rejected"
    assert error_of(response(200, b'{"error": ' + deep + b"}")).kind == "unreadable"
