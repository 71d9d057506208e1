"""A workflow's jobs as the API lists them: which they are, and whether it says that it is a part or old."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.client.job import JobObject, parse_complete_object

# What says of a list that it is a part of one, by names without case, `_`, `-` and what marks them as no standard's.
_MORE = ("hasmore", "hasnext", "hasnextpage", "more", "moreresults", "truncated", "istruncated", "partial",
         "incomplete", "incompleteresults", "continue", "continuationtoken", "cursor", "lastevaluatedkey")  # fmt: skip
_ALL = ("complete", "iscomplete", "last", "islast", "islastpage", "lastpage")  # where they are false
_TOTALS = ("total", "totalcount", "totalresults", "totalitems", "totaljobs", "totalelements", "totalrecords",
           "totalhits", "totalsize", "count", "jobcount", "jobscount", "numjobs", "resultcount")  # fmt: skip
_PAGES = ("page", "pagenumber", "currentpage", "pages", "pagecount", "totalpages", "numpages", "lastpage")
# How many come before the first, or after the last.
_LEFT_OUT = ("offset", "skip", "skipped", "from", "startindex", "remaining", "remainingitemcount")
_LIMITS = ("limit", "perpage", "pagesize", "maxresults")  # as many as are listed: there may be more
_NEXT = ("next", "nextpage", "nexttoken", "nextcursor", "nextlink", "nextpagetoken")  # of a header, which are many
_WITHIN = ("meta", "metadata", "responsemetadata", "pagination", "paging", "page", "pageinfo", "links", "cursors")
_NO = ("", "0", "false", "no", "none", "null")
_FRESH = 5  # seconds that an answer may be old
_NEXT_LINK = re.compile(r";\s*rel\s*=\s*(?:\"[^\"]*\bnext\b[^\"]*\"|next\b)", re.IGNORECASE)
_RANGE = re.compile(r"\s*[\w-]+\s+0-([0-9]{1,18})/([0-9]{1,18})\s*|\s*[\w-]+\s+\*/0\s*", re.ASCII)


def parse_job_list(body: bytes) -> tuple[JobObject, ...] | None:
    """Read a list of jobs: `jobs` is an array or null, and each has an id. None when it is not such a list."""
    found = parse_job_list_with_fields(body)
    return None if found is None else found[0]


def parse_job_list_with_fields(body: bytes) -> tuple[tuple[JobObject, ...], dict[str, Any]] | None:
    """The same, and the members that stand beside `jobs`."""
    # Of an object that is too deep its lists are lost, and no list is not an empty one: what is missing from a list
    # may be sent again.
    members = parse_complete_object(body)
    if members is None or "jobs" not in members:
        return None
    jobs = members.pop("jobs")
    if jobs is None:
        return (), members
    if not isinstance(jobs, list) or not all(_has_id(job) for job in jobs):
        return None
    # One that is listed twice is one.
    return tuple({job["id"]: JobObject(job["id"], job) for job in jobs}.values()), members


def _has_id(job: Any) -> bool:
    return isinstance(job, dict) and isinstance(job.get("id"), str) and bool(job["id"])


def find_partial_sign(count: int, beside: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """What says of a list of `count` jobs that it is a part of one, or an old one; empty where nothing does.

    Args:
        count: how many entries it has.
        beside: the members of its object but the jobs.
        headers: of the answer that it is, by lower-case names.
    """
    told = [
        *((name, value, _plain(name).startswith("next")) for name, value in _said_beside(beside)),
        *((name, value, _plain(name) in _NEXT) for name, value in headers.items()),
    ]
    for name, value, is_next in told:
        if (is_next and _is_true(value)) or _says_part(_plain(name), value, count):
            return name
    if _NEXT_LINK.search(headers.get("link", "")):
        return "link"
    if "content-range" in headers and not _is_whole(headers["content-range"]):
        return "content-range"
    return "age" if (_number(headers.get("age")) or 0) > _FRESH else ""


def _said_beside(members: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in members.items():
        if not isinstance(value, dict):
            yield name, value
        elif _plain(name).startswith("next"):
            yield name, bool(value)
        elif _plain(name) in _WITHIN:
            yield from _said_beside(value)


def _plain(name: str) -> str:
    return name.lower().removeprefix("x-").removeprefix("@odata.").replace("_", "").replace("-", "")


def _says_part(name: str, value: Any, count: int) -> bool:
    number = _number(value)
    if name in _MORE and _is_true(value):
        return True
    if name in _ALL and value is not None and number is None and not _is_true(value):
        return True
    return number is not None and (
        (name in _TOTALS and number > count)
        or (name in _PAGES and number > 1)
        or (name in _LEFT_OUT and number > 0)
        or (name in _LIMITS and 0 < number <= count)
    )


def _is_true(value: Any) -> bool:
    return value.strip().lower() not in _NO if isinstance(value, str) else bool(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        return float(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004 - of 64 bits
    return value if isinstance(value, int | float) else None


def _is_whole(content_range: str) -> bool:
    found = _RANGE.fullmatch(content_range)
    return found is not None and (found[1] is None or int(found[1]) + 1 == int(found[2]))
