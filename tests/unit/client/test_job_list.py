"""Lists of jobs: what is one, and which prove that they are complete and current."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.client.job import JobObject
from runner.client.job_list import JobList, parse_job_list

JOBS = (JobObject("a", {"id": "a"}), JobObject("b", {"id": "b"}))

# Any JSON, and what is none: NaN and infinity.
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["limit", "offset", "total"]), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"jobs": [{"id": "a"}, {"id": "b", "cost": 1}]}', ["a", "b"]),
        (b'{"jobs": [{"id": "a"}, {"id": "a"}]}', ["a"]),
        (b'{"jobs": []}', []),
        (b'{"jobs": null, "count": 0}', []),
        (b"{}", None),
        (b'{"jobs": {"id": "a"}}', None),
        (b'{"jobs": [{"id": "a"}, {}]}', None),
        (b'{"jobs": [{"id": ""}]}', None),
        (b'{"jobs": [7]}', None),
        (b'[{"id": "a"}]', None),
        (b'{"jobs": [', None),
    ],
)
def test_a_list_is_parsed_completely_or_not_at_all(body: bytes, ids: list[str] | None) -> None:
    listed = parse_job_list(body)
    assert (None if listed is None else [job.id for job in listed.jobs]) == ids


def test_the_fields_beside_the_jobs_are_kept() -> None:
    assert parse_job_list(b'{"jobs": [{"id": "a"}], "next": "/v0"}') == JobList(JOBS[:1], {"next": "/v0"})


def test_a_list_that_is_too_deep_to_parse_is_not_an_empty_list() -> None:
    """A job in doubt that such a list does not contain would be taken for not created, and sent again."""
    deep = b'{"jobs": [{"id": "job-1", "spec": ' + b"[" * 250 + b"]" * 250 + b"}]}"
    assert parse_job_list(deep) is None
    assert parse_job_list(b'{"jobs": null, "spec": ' + b"[" * 250 + b"]" * 250 + b"}") is None
    assert parse_job_list(b'{"jobs": null}') == JobList((), {})


def pagination(**fields: Any) -> dict[str, Any]:
    return {"pagination": fields}


# Of a list of two jobs: the fields beside them, and the one that leaves open whether there are more.
FIELDS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"pagination": None}, ""),
    ({"next": None, "cursor": None}, ""),
    (pagination(), ""),
    (pagination(limit=50, offset=0, total=2), ""),
    (pagination(limit=3), ""),
    (pagination(limit=None, offset=None, total=None), ""),
    (pagination(limit=2, offset=0, total=2), "pagination"),
    (pagination(limit=1), "pagination"),
    (pagination(limit=0), "pagination"),
    (pagination(offset=50), "pagination"),
    (pagination(offset=-1), "pagination"),
    (pagination(offset=False), "pagination"),
    (pagination(total=3), "pagination"),
    (pagination(total=1), "pagination"),
    (pagination(total="2"), "pagination"),
    (pagination(total=2.0), "pagination"),
    (pagination(total=[2]), "pagination"),
    (pagination(limit=50, offset=0, total=2, has_more=False), "pagination"),
    ({"pagination": [2]}, "pagination"),
    ({"pagination": 2}, "pagination"),
    ({"pagination": False}, "pagination"),
    ({"Pagination": {}}, "Pagination"),
    ({"next": "/v0/jobs?page=2"}, "next"),
    ({"next": ""}, "next"),
    ({"has_more": False}, "has_more"),
    ({"total": 2}, "total"),
    ({"limit": 50, "offset": 0}, "limit"),
    ({"meta": {}}, "meta"),
    ({"warnings": []}, "warnings"),
]


@pytest.mark.parametrize(("fields", "incomplete"), FIELDS)
def test_only_what_the_description_of_the_api_has_may_stand_beside_the_jobs(
    fields: dict[str, Any], incomplete: str
) -> None:
    assert JobList(JOBS, fields).find_incompleteness({"date": "now"}) == incomplete


# Of a list of two jobs: a header, its value, and whether it leaves open that the list is complete and current.
HEADERS = [
    ("x-total-count", "2", True),
    ("x-total-count", "3", False),
    ("x-total-count", "1", False),
    ("x-total", "many", False),
    ("x-count", "9", False),
    ("x-job-count", "2", True),
    ("x-envoy-attempt-count", "1", True),
    ("x-page", "1", True),
    ("x-page", "2", False),
    ("x-total-pages", "1", True),
    ("x-total-pages", "4", False),
    ("x-per-page", "20", True),
    ("x-per-page", "2", False),
    ("x-page-size", "²", False),
    ("x-limit", "9" * 5_000, True),
    ("x-ratelimit-limit", "1", True),
    ("x-next-page", "", True),
    ("x-next-page", "2", False),
    ("x-next-page", "1", False),
    ("x-nextjs-cache", "MISS", True),
    ("x-has-more", "true", False),
    ("x-has-more", "1", False),
    ("x-has-more", "False", True),
    ("x-is-last", "true", True),
    ("x-is-last", "false", False),
    ("x-continuation-token", "abc", False),
    ("x-truncated", "yes", False),
    ("x-offset", "0", True),
    ("x-offset", "50", False),
    ("x-request-id", "next", True),
    ("link", '</v0/a>; rel="prev", </v0/b>; title="n"; rel="last next"', False),
    ("link", "</v0/b>; REL=next", False),
    ("link", '</v0/next>; rel="first"', True),
    ("content-range", "jobs 0-1/2", True),
    ("content-range", "jobs 0-1/9", False),
    ("content-range", "jobs 0-1/*", False),
    ("content-range", "jobs 2-3/4", False),
    ("content-range", "jobs */0", False),
    ("content-range", "", False),
    ("age", "5", True),
    ("age", "6", False),
    ("age", "9" * 5_000, False),
    ("age", "old", True),
]


@pytest.mark.parametrize(("name", "value", "complete"), HEADERS)
def test_headers_that_page_or_come_of_a_cache_make_a_list_incomplete(name: str, value: str, *, complete: bool) -> None:
    assert JobList(JOBS, {}).find_incompleteness({"date": "now", name: value}) == ("" if complete else name)


@pytest.mark.parametrize(("value", "complete"), [("jobs */0", True), ("jobs 0-0/1", False)])
def test_the_range_of_an_empty_list(value: str, *, complete: bool) -> None:
    assert JobList((), {}).find_incompleteness({"content-range": value}) == ("" if complete else "content-range")


@given(
    st.dictionaries(st.text() | st.sampled_from(["pagination", "next"]), values),
    st.dictionaries(st.sampled_from(["age", "link", "content-range", "x-total-count", "x-limit"]), st.text()),
)
def test_nothing_beside_a_list_raises(fields: dict[str, Any], headers: dict[str, str]) -> None:
    JobList(JOBS, fields).find_incompleteness(headers)
