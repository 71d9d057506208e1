"""Job objects: whatever bytes the API sends, the id is found, nothing raises, and nothing takes long."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import bodies, texts, words

from runner.client.job import (
    JobObject,
    decode_lossless,
    encode_job,
    is_embeddable,
    parse_job,
    parse_json_object,
    parse_timestamp,
)

finite = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), texts
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=10,
)
objects = st.builds(lambda members, job_id: {**members, "id": job_id}, st.dictionaries(st.text(), finite), words)

LONG = 1_000_000
# A scan that backtracks takes hours for these; one that does not, about a second.
SECONDS = 30


def nested(depth: int, inside: bytes = b"") -> bytes:
    return b"[" * depth + inside + b"]" * depth


@given(objects)
def test_valid_json_is_parsed_as_the_json_module_does(members: dict[str, Any]) -> None:
    body = json.dumps(members).encode()
    job = parse_job(body)
    assert job is not None
    assert job.members == json.loads(body)
    assert job.id == json.loads(body)["id"]
    assert is_embeddable(body)


@given(objects)
def test_text_that_is_not_ascii_is_parsed(members: dict[str, Any]) -> None:
    body = json.dumps(members, ensure_ascii=False).encode("utf-8", "replace")
    job = parse_job(body)
    assert job is not None
    assert job.members == json.loads(body)
    assert is_embeddable(body)


@given(st.one_of(st.binary(), bodies, finite.map(lambda value: json.dumps(value).encode())))
def test_no_bytes_raise(body: bytes) -> None:
    job = parse_job(body)
    if job is not None:
        assert job.id
        assert job.id == job.members["id"]
        assert isinstance(job.val_errors, list)
        assert job.cost is None or type(job.cost) is int
        assert job.status is None or isinstance(job.status, str)
    assert is_embeddable(body) in (True, False)


@given(st.binary())
def test_decoding_bytes_loses_nothing(body: bytes) -> None:
    assert decode_lossless(body).encode("utf-8", "surrogateescape") == body
    assert json.loads(json.dumps(decode_lossless(body))).encode("utf-8", "surrogateescape") == body


@given(bodies)
def test_an_embeddable_object_is_the_same_inside_a_document(body: bytes) -> None:
    if parse_job(body) is not None and is_embeddable(body):
        document = b'{"before": 1, "job": ' + body + b', "after": 2}'
        assert json.loads(document.decode()) == {"before": 1, "job": json.loads(body), "after": 2}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b'"id"',
        b"[]",
        b'[{"id": "j"}]',
        b"{}",
        b'{"id": ""}',
        b'{"id": null}',
        b'{"id": 7}',
        b'{"id": ["j"]}',
        b'{"ID": "j"}',
        b'{"id": "j"',
        b'{"id": "j"} trailing',
        b'{"job": {"id": "j"}}',
        b"<html>",
        b'{"id": "j", "a": ' + nested(5000) + b"] }",
        nested(5000, b'{"id": "j"}'),
    ],
)
def test_an_object_without_an_id_of_its_own_is_not_a_job(body: bytes) -> None:
    assert parse_job(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b' \r\n{"id": "j"}\n',
        b'\xef\xbb\xbf{"id": "j"}',
        b'{"id": "other", "id": "j"}',
        b'{"cost": NaN, "id": "j"}',
        b'{"cost": -Infinity, "id": "j"}',
        b'{"id": "j", "result": "\xff\xfe"}',
        b'{"id": "j", "name": "\\ud800"}',
        b'{"id": "j", "name": "a raw\nline break\x01"}',
        b'{"id": "j", "cost": ' + b"9" * 5000 + b"}",
        b'{"a": ' + nested(5000) + b', "id": "j"}',
        b'{"a": ' + nested(5000, b'"]", {"id": "wrong"}, "\\"]"') + b', "id": "j"}',
        b'{"id": "j", "a": ' + b'{"a": ' * 5000 + b"1" + b"}" * 5000 + b"}",
    ],
)
def test_the_id_is_found_whatever_else_is_in_the_object(body: bytes) -> None:
    job = parse_job(body)
    assert job is not None
    assert job.id == "j"


def test_an_object_that_is_too_deep_keeps_its_plain_members() -> None:
    deep = nested(5000, b'{"cost": 1}')
    body = b'{"id": "j", "inputs": ' + deep + b', "cost": -3, "status": "a, [b]: {c}", "x": {}, "e": 1e2, "t": true}'
    job = parse_job(body)
    assert job == JobObject(
        "j", {"id": "j", "inputs": None, "cost": -3, "status": "a, [b]: {c}", "x": None, "e": 100.0, "t": True}
    )


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("12", 12),
        ("0", 0),
        ("-1", -1),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("9" * 5000, None),
        ("-" + "9" * 5000, None),
        ("1.5", None),
        ("12.0", 12),
        ("1e2", 100),
        ("1e400", None),
        ("NaN", None),
        ("true", None),
        ("null", None),
        ('"12"', None),
        ("[12]", None),
    ],
)
def test_a_cost_is_a_whole_number_or_none(text: str, cost: int | None) -> None:
    job = parse_job(f'{{"id": "j", "cost": {text}}}'.encode())
    assert job is not None
    assert job.cost == cost


@pytest.mark.parametrize(
    ("members", "status", "errors"),
    [
        ({"status": "running", "val_errors": ["bad"]}, "running", ["bad"]),
        ({"status": None, "val_errors": None}, None, []),
        ({"status": 3, "val_errors": {"a": 1}}, None, []),
        ({}, None, []),
    ],
)
def test_status_and_validation_errors(members: dict[str, Any], status: str | None, errors: list[Any]) -> None:
    job = JobObject("j", members)
    assert (job.status, job.val_errors) == (status, errors)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-10-20T01:00:03Z", datetime(2026, 10, 20, 1, 0, 3, tzinfo=UTC)),
        (" 2026-10-20T01:00:03.123456789Z ", datetime(2026, 10, 20, 1, 0, 3, 123_456, tzinfo=UTC)),
        ("2026-10-20T01:00:03.5", datetime(2026, 10, 20, 1, 0, 3, 500_000, tzinfo=UTC)),
        (
            "2026-10-20T06:30:03.123456789+05:30",
            datetime(2026, 10, 20, 6, 30, 3, 123_456, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        ),
        ("0000-00-00T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (1_792_458_003, None),
        (None, None),
    ],
)
def test_timestamps_are_parsed_with_the_precision_of_python(text: Any, time: datetime | None) -> None:
    assert parse_timestamp(text) == time
    assert JobObject("j", {"created_at": text}).created_at == time


@given(texts)
def test_no_text_raises_as_a_timestamp(text: str) -> None:
    time = parse_timestamp(text)
    assert time is None or time.tzinfo is not None


@pytest.mark.parametrize(
    ("members", "creator"),
    [({"created_by": "ci"}, "ci"), ({"created_by": ""}, None), ({"created_by": 7}, None), ({}, None)],
)
def test_the_creator_is_a_string_or_unknown(members: dict[str, Any], creator: str | None) -> None:
    assert JobObject("j", members).created_by == creator


@given(objects)
def test_an_encoded_job_object_is_parsed_to_the_same(members: dict[str, Any]) -> None:
    body = encode_job(members)
    assert body.isascii()
    assert parse_json_object(body) == json.loads(json.dumps(members))


@pytest.mark.parametrize(
    ("body", "embeddable"),
    [
        (b'{"id": "j", "cost": 123456789012345678901234567890}', True),
        (b'{"id": "j", "e": 1e999}', True),
        (b'{"id": "\xe5\x90\x8d"}', True),
        (b'{"id": "j", "name": "\\ud800"}', True),
        (b'{"id": "j", "brackets": "' + b"[" * 5000 + b'\\""}', True),
        (b'{"id": ' + nested(199) + b"}", True),
        (b'{"id": ' + nested(200) + b"}", False),
        (b'{"id": ' + nested(100_000) + b"}", False),
        (b'{"id": "j", "cost": ' + b"9" * 5000 + b"}", False),
        (b'{"id": NaN}', False),
        (b'{"id": -Infinity}', False),
        (b'{"id": "\xff"}', False),
        (b'{"id": "\xed\xa0\x80"}', False),
        (b'{"id": "a\nb"}', False),
        (b'\xef\xbb\xbf{"id": "j"}', False),
        (b'{"id": "j"', False),
        (b'{"id": "j"}, "more": {}', False),
        (b"", False),
    ],
)
def test_what_a_document_can_contain_unchanged(body: bytes, embeddable: bool) -> None:
    assert is_embeddable(body) is embeddable


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_not_embeddable(encoding: str) -> None:
    assert not is_embeddable('{"id": "j"}'.encode(encoding))


@pytest.mark.parametrize(
    "body",
    [
        b'"' * LONG,
        b'"\\' * LONG,
        b'{"id": "' + b"a" * LONG,
        b'{"id": "' + b"\\" * LONG,
        b"[" * LONG,
        b"]" * LONG,
        b'{"a":' * LONG,
        b"{" + b"," * LONG,
        b" " * LONG,
        b"\xff" * LONG,
        b"\x00" * LONG,
        b'{"id": "j", "a": ' + nested(LONG) + b"}",
        b'{"id": "j", "a": ' + nested(5000, b'"q' * LONG) + b"}",
        b'{"id": "j", "a": ' + b"[" * 5000 + b'"\\' * LONG,
        b'{"id": "j", "cost": ' + b"9" * LONG + b"}",
        b'{"id": "j", "cost": 1e' + b"9" * LONG + b"}",
        b'{"id": "j", "a": [' + b"9" * 4000 + (b"," + b"9" * 4000) * 200 + b"]}",
    ],
    ids=lambda body: f"{body[:20]!r}",
)
def test_hostile_bytes_take_linear_time(body: bytes) -> None:
    before = time.process_time()
    parse_job(body)
    is_embeddable(body)
    assert time.process_time() - before < SECONDS


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_a_time_at_the_end_of_the_calendar_is_in_utc_or_none(time: str) -> None:
    parsed = parse_timestamp(time)
    assert (parsed is None) == (time != "9999-12-31T23:59:59Z")
    assert parsed is None or parsed.utcoffset() == timedelta(0)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T05:30:00+05:30"])
def test_a_time_that_is_not_set_is_none(time: str) -> None:
    assert parse_timestamp(time) is None


@pytest.mark.parametrize(
    ("tasks", "started"),
    [
        ([{"block_inf_start_time": "2026-10-20T02:00:00Z"}, {"block_inf_start_time": "2026-10-20T01:00:00Z"}], 1),
        ([{"block_inf_start_time": "0001-01-01T00:00:00Z"}, {"block_inf_start_time": "2026-10-20T03:00:00Z"}, {}], 3),
        ([{"block_inf_start_time": "soon"}, 7, None], None),
        ([], None),
        ({"block_inf_start_time": "2026-10-20T01:00:00Z"}, None),
        (7, None),
        (None, None),
    ],
)
def test_a_job_started_when_its_first_task_did(tasks: Any, started: int | None) -> None:
    expected = None if started is None else datetime(2026, 10, 20, started, tzinfo=UTC)
    assert JobObject("j", {"tasks": tasks}).started_at == expected
