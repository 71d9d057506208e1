"""A workflow's list of jobs, and whether the response proves that it is complete and current."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.client.job import JobObject, parse_complete_object

_MAX_AGE = 5  # seconds that a cache may have kept a response

# Beside `jobs`, the API's description knows nothing but `pagination`, with these fields: whether each says of a list of
# `count` jobs that it is complete. Whatever else there is may say that more jobs exist.
_PAGINATION: dict[str, Callable[[int, int], bool]] = {
    "offset": lambda offset, _count: offset == 0,
    "total": lambda total, count: total == count,
    "limit": lambda limit, count: limit > count,  # a list as long as its limit may have been cut off there
}

# The headers that APIs page with, without `x-` and hyphens, by what their value must be: see `_is_complete_paging`.
_PAGING = re.compile(
    "(?P<flag>(?:is)?(?:complete|last)(?:page)?)"
    "|(?P<total>total(?:count|results|items|jobs|elements|records|hits|size)?|(?:jobs?|result)?count|numjobs)"
    "|(?P<page>(?:current|num|total)?pages?(?:count|number)?)"
    "|(?P<limit>limit|perpage|pagesize|maxresults)"
    "|(?P<more>next(?:(?:page)?token|page|cursor|link)?|hasnext(?:page)?|(?:has)?more(?:results)?|cursor|continue|"
    "continuationtoken|(?:is)?truncated|partial|incomplete(?:results)?|lastevaluatedkey|offset|skip(?:ped)?|from|"
    "startindex|remaining(?:itemcount)?)"
)
_NEXT_LINK = re.compile(r";\s*rel\s*=\s*(?:\"[^\"]*\bnext\b[^\"]*\"|next\b)", re.IGNORECASE)
_NO = ("", "0", "false", "no", "none", "null")


@dataclass(frozen=True, slots=True)
class JobList:
    """A list of jobs. `fields` are the other fields of the response."""

    jobs: tuple[JobObject, ...]
    fields: Mapping[str, Any]

    def find_incompleteness(self, headers: Mapping[str, str]) -> str:
        """Name a field or header that leaves open whether the list is complete and current; empty when none does.

        `headers` are those of the response, by lower-case names.
        """
        count = len(self.jobs)
        for name, value in self.fields.items():
            if value is not None and not (name == "pagination" and _is_complete_pagination(value, count)):
                return name
        for name, value in headers.items():
            if not _is_complete_header(name.removeprefix("x-"), value.strip().lower(), count):
                return name
        return ""


def parse_job_list(body: bytes) -> JobList | None:
    """Parse a list of jobs: `jobs` is an array, or null, and each job has an id. None when it is not such a list."""
    # An object that is too deep loses its arrays; it must not pass for an empty list, as absent jobs may be sent again.
    fields = parse_complete_object(body)
    if fields is None or "jobs" not in fields:
        return None
    jobs = fields.pop("jobs")
    if jobs is None:
        return JobList((), fields)
    if not isinstance(jobs, list) or not all(_has_id(job) for job in jobs):
        return None
    distinct = {job["id"]: JobObject(job["id"], job) for job in jobs}
    return JobList(tuple(distinct.values()), fields)


def _has_id(job: Any) -> bool:
    return isinstance(job, dict) and isinstance(job.get("id"), str) and bool(job["id"])


def _is_complete_pagination(pagination: Any, count: int) -> bool:
    return isinstance(pagination, dict) and all(
        value is None or (name in _PAGINATION and type(value) is int and _PAGINATION[name](value, count))
        for name, value in pagination.items()
    )


def _is_complete_header(name: str, value: str, count: int) -> bool:
    match name:
        case "link":
            return not _NEXT_LINK.search(value)
        case "content-range":
            return value.split()[1:] == [f"0-{count - 1}/{count}" if count else "*/0"]
        case "age":
            return not value.isdecimal() or float(value) <= _MAX_AGE
    paging = _PAGING.fullmatch(name.replace("-", ""))
    return paging is None or _is_complete_paging(paging.lastgroup or "", value, count)


def _is_complete_paging(kind: str, value: str, count: int) -> bool:
    if kind == "flag":
        return value in ("", "1", "true", "yes")
    if kind == "limit" and value.isdecimal():
        return float(value) > count or not float(value)
    expected = {"total": str(count), "page": "1"}
    return value in _NO or value == expected.get(kind)
