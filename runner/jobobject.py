"""The API's job objects: the one place that reads their bytes, whatever else is in them.

The wire is looser than the API's description, and the answer to a paid POST may hold anything beside the id:
a lone surrogate, NaN, a number of 5,000 digits, 5,000 nested lists. None of that may lose a created job, so an
object that the json module will not read is scanned for its top-level members without recursion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# What ordinary JSON readers take: jq and others stop near a few hundred or thousand levels.
_DEEPEST = 200
_SPACE = " \t\r\n"
_UNSET = 1971  # a year: servers write a time that is not set as 0001-01-01 or 1970-01-01

# Possessive, so that a string that never ends is passed over once and not once for each quote in it.
_TOKEN = re.compile(rb'[\[\]{},:]|"(?:[^"\\]++|\\.)*+"?|[^\s\[\]{},:"]++', re.DOTALL)
_FRACTION = re.compile(r"(\.[0-9]{6})[0-9]+")
_OPEN = (b"[", b"{")
_CLOSE = (b"]", b"}")


@dataclass(frozen=True, slots=True)
class JobObject:
    """A job as the API told it. Only `id` is sure; `members` holds what could be read of the rest."""

    id: str
    members: dict[str, Any]

    @property
    def cost(self) -> int | None:
        """The job's cost in tokens, where the API told a whole number; 40.0 is one, as JSON has it."""
        cost = self.members.get("cost")
        if isinstance(cost, float) and cost.is_integer():
            return int(cost)
        return cost if isinstance(cost, int) and not isinstance(cost, bool) else None

    @property
    def status(self) -> str | None:
        """The job's status at the API (`running`, `completed`, …): never an outcome."""
        status = self.members.get("status")
        return status if isinstance(status, str) else None

    @property
    def created_by(self) -> str | None:
        """Who created the job, as far as the API says."""
        creator = self.members.get("created_by")
        return creator if isinstance(creator, str) and creator else None

    @property
    def created_at(self) -> datetime | None:
        """When the job was created, by the server's clock; None where that is missing, not set or can't be read."""
        return set_moment(self.members.get("created_at"))

    @property
    def started_at(self) -> datetime | None:
        """When work on the first of its tasks began, by the server's clock; None where that is not told."""
        tasks = self.members.get("tasks")
        known = [task for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
        begun = [time for task in known if (time := set_moment(task.get("block_inf_start_time"))) is not None]
        return min(begun, default=None)

    @property
    def finished_at(self) -> datetime | None:
        """When it was over, by the server's clock."""
        return set_moment(self.members.get("finished_at"))

    @property
    def val_errors(self) -> list[Any]:
        """The validation errors that came with the job. The job exists all the same."""
        errors = self.members.get("val_errors")
        return errors if isinstance(errors, list) else []


def moment(value: Any) -> datetime | None:
    """An RFC 3339 timestamp in UTC; one without an offset is taken as UTC.

    None for anything else, and for one that is in no year that Python has once it is in UTC.
    """
    if not isinstance(value, str):
        return None
    try:
        # Nanoseconds come from servers written in Go; Python takes no more than six digits.
        time = datetime.fromisoformat(_FRACTION.sub(r"\1", value.strip()))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def set_moment(value: Any) -> datetime | None:
    """The same of a time that may not be set yet: None for what servers write then."""
    time = moment(value)
    return None if time is None or time.year < _UNSET else time


def listed(body: bytes) -> tuple[JobObject, ...] | None:
    """Read a list of jobs: `jobs` is an array or null, and each has an id. None when it is not such a list."""
    found = listed_with(body)
    return None if found is None else found[0]


def listed_with(body: bytes) -> tuple[tuple[JobObject, ...], dict[str, Any]] | None:
    """The same, and the members that stand beside `jobs`."""
    # Of an object that is too deep its lists are lost, and no list is not an empty one: what is missing from a list
    # may be sent again.
    members = None if _too_deep(body) else read_object(body)
    if members is None or "jobs" not in members:
        return None
    jobs = members.pop("jobs")
    if jobs is None:
        return (), members
    if not isinstance(jobs, list) or not all(_has_id(job) for job in jobs):
        return None
    # One that is listed twice is one.
    return tuple({job["id"]: JobObject(job["id"], job) for job in jobs}.values()), members


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


def part_said(count: int, beside: Mapping[str, Any], headers: Mapping[str, str]) -> str:
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


def encode(members: dict[str, Any]) -> bytes:
    """A job object as bytes again, in ASCII."""
    return json.dumps(members).encode()


def updated(body: bytes, newer: JobObject) -> bytes:
    """A job object with what a list tells of it now; without its tasks, which are of before, as a list has none."""
    known = read(body)
    members = {} if known is None else {name: value for name, value in known.members.items() if name != "tasks"}
    return encode({**members, **newer.members})


def _has_id(job: Any) -> bool:
    return isinstance(job, dict) and isinstance(job.get("id"), str) and bool(job["id"])


def read(body: bytes) -> JobObject | None:
    """Read a job object. None when `body` is not a JSON object with a non-empty string `id`."""
    members = read_object(body)
    if members is None:
        return None
    job_id = members.get("id")
    return JobObject(job_id, members) if isinstance(job_id, str) and job_id else None


def read_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object leniently: numbers of any length, NaN as None. None when `body` is no JSON object.

    Of an object that is nested deeper than ordinary readers go, the members that are arrays or objects are None. How
    deep the json module itself goes differs from one Python to the next.
    """
    try:
        value = _LENIENT.decode(_shallow(body) if _too_deep(body) else _text(body))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def embeddable(body: bytes) -> bool:
    """Whether the bytes can stand inside another JSON document as they are, for any ordinary reader."""
    return _strictly(body) is not None


def verbatim(body: bytes) -> str | None:
    """A job object's text as it came, if it can stand inside another JSON document; None otherwise."""
    found = _strictly(body)
    if found is None or not isinstance(found[1], dict):
        return None
    job_id = found[1].get("id")
    return found[0] if isinstance(job_id, str) and job_id else None


def _strictly(body: bytes) -> tuple[str, Any] | None:
    """The JSON and what it says, if any ordinary reader would take it; numbers with a point stay text."""
    try:
        # Decoded here: given bytes, the json module would guess at UTF-16 and UTF-32 as well.
        text = body.decode("utf-8").strip(_SPACE)
        value, end = _STRICT.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return None if end < len(text) or _too_deep(body) else (text, value)


def as_text(body: bytes) -> str:
    """The bytes as text, losing nothing: what is not UTF-8 becomes lone surrogates, as `surrogateescape` has it."""
    return body.decode("utf-8", "surrogateescape")


def _text(body: bytes) -> str:
    return as_text(body.removeprefix(b"\xef\xbb\xbf"))


def _integer(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:  # longer than sys.get_int_max_str_digits(): no cost that a person could pay
        return None


def _nothing(_constant: str) -> None:
    return None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


# Made once: `json.loads` makes a decoder for each call that asks for anything special.
_LENIENT = json.JSONDecoder(strict=False, parse_int=_integer, parse_constant=_nothing)
_STRICT = json.JSONDecoder(parse_float=str, parse_constant=_refuse)


def _too_deep(body: bytes) -> bool:
    return body.count(b"[") + body.count(b"{") > _DEEPEST and _depth(body) > _DEEPEST


def _depth(body: bytes) -> int:
    depth = deepest = 0
    for match in _TOKEN.finditer(body):
        if match[0] in _OPEN:
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in _CLOSE:
            depth -= 1
    return deepest


def _shallow(body: bytes) -> str:
    """The object's text with every nested array and object replaced by null."""
    kept: list[bytes] = []
    depth = 0
    for match in _TOKEN.finditer(body):
        token = match[0]
        if token in _CLOSE:
            depth -= 1
        if depth == 0 or (depth == 1 and token not in _OPEN and token not in _CLOSE):
            kept.append(token)
        if token in _OPEN:
            if depth == 1:
                kept.append(b"null")
            depth += 1
    return _text(b" ".join(kept))
