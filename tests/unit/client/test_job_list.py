"""A workflow's jobs as the API lists them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.client.job_list import find_partial_sign, parse_job_list

# JSON, of any names, numbers that are none too.
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
members_of_any_kind = st.dictionaries(
    st.text() | st.sampled_from(["next", "total", "page", "meta", "has_more"]), values
)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"jobs": [{"id": "a"}, {"id": "b", "cost": 1}]}', ["a", "b"]),
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
def test_a_list_of_jobs_is_one_as_a_whole_or_not_at_all(body: bytes, ids: list[str] | None) -> None:
    jobs = parse_job_list(body)
    assert (None if jobs is None else [job.id for job in jobs]) == ids


# Of a list of two jobs: what stands beside them, the answer's headers, and what says that it is no whole list.
PARTS: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({}, {}, ""),
    ({"next": None, "nextPageToken": "", "has_more": False, "total": 2, "truncated": False}, {}, ""),
    ({"next": "/v0/jobs?page=2"}, {}, "next"),
    ({"nextPageToken": "abc"}, {}, "nextPageToken"),
    ({"next_offset": 50}, {}, "next_offset"),
    ({"next": {"cursor": "abc"}}, {}, "next"),
    ({"@odata.nextLink": "/v0"}, {}, "@odata.nextLink"),
    ({"has_more": True}, {}, "has_more"),
    ({"hasMore": "true"}, {}, "hasMore"),
    ({"hasMore": "False"}, {}, ""),
    ({"is_last": False}, {}, "is_last"),
    ({"links": {"last": None, "self": "/v0"}}, {}, ""),
    ({"truncated": True}, {}, "truncated"),
    ({"total": 3}, {}, "total"),
    ({"total_count": "3"}, {}, "total_count"),
    ({"count": 2.0}, {}, ""),
    ({"count": 1}, {}, ""),
    ({"total_cost": 900, "estimate": 5, "total": "many"}, {}, ""),
    ({"total": float("inf")}, {}, "total"),
    ({"page": 1, "pages": 1}, {}, ""),
    ({"page": 2}, {}, "page"),
    ({"page": 1, "total_pages": 4}, {}, "total_pages"),
    ({"offset": 0, "limit": 3}, {}, ""),
    ({"offset": 50}, {}, "offset"),
    ({"limit": 2}, {}, "limit"),
    ({"meta": {"pagination": {"hasNextPage": True}}}, {}, "hasNextPage"),
    ({"workflow": {"total": 9}}, {}, ""),
    ({}, {"x-total-count": "3"}, "x-total-count"),
    ({}, {"x-total-count": "2", "x-page": "1", "x-next-page": "", "x-nextjs-cache": "MISS"}, ""),
    ({}, {"x-next-page": "2"}, "x-next-page"),
    ({}, {"link": '</v0/a>; rel="prev", </v0/b>; title="n"; rel="last next"'}, "link"),
    ({}, {"link": "</v0/b>; REL=next"}, "link"),
    ({}, {"link": '</v0/next>; rel="first"'}, ""),
    ({}, {"content-range": "jobs 0-1/2"}, ""),
    ({}, {"content-range": "jobs */0"}, ""),
    ({}, {"content-range": "jobs 0-1/9"}, "content-range"),
    ({}, {"content-range": "jobs 0-1/*"}, "content-range"),
    ({}, {"content-range": "jobs 2-3/4"}, "content-range"),
    ({}, {"age": "5"}, ""),
    ({}, {"age": "6"}, "age"),
    ({}, {"age": "old"}, ""),
]


@pytest.mark.parametrize(("beside", "headers", "said"), PARTS)
def test_a_list_that_says_that_it_is_a_part_is_no_whole_list(
    beside: dict[str, Any], headers: dict[str, str], said: str
) -> None:
    assert find_partial_sign(2, beside, headers) == said
    assert find_partial_sign(2, {"more": None, **beside}, {"x-request-id": "next", **headers}) == said


@given(
    members_of_any_kind, st.dictionaries(st.sampled_from(["age", "link", "content-range", "x-total-count"]), st.text())
)
def test_nothing_beside_a_list_raises(members: dict[str, Any], headers: dict[str, str]) -> None:
    find_partial_sign(2, {"total": None, **members}, headers)


def test_a_list_that_is_too_deep_to_read_is_no_empty_list() -> None:
    """A job in doubt that such a list does not show would be taken for not created, and sent again."""
    deep = b'{"jobs": [{"id": "job-1", "spec": ' + b"[" * 250 + b"]" * 250 + b"}]}"
    assert parse_job_list(deep) is None
    assert parse_job_list(b'{"jobs": null, "spec": ' + b"[" * 250 + b"]" * 250 + b"}") is None
    assert parse_job_list(b'{"jobs": null}') == ()
