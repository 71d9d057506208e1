"""The API's job objects: the one place that reads their bytes, whatever else is in them.

The wire is looser than the API's description, and the answer to a paid POST may hold anything beside the id:
a lone surrogate, NaN, a number of 5,000 digits, 5,000 nested lists. None of that may lose a created job, so an
object that the json module will not read is scanned for its top-level members without recursion.
"""

from __future__ import annotations

import json
import re
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
        return parse_optional_timestamp(self.members.get("created_at"))

    @property
    def started_at(self) -> datetime | None:
        """When work on the first of its tasks began, by the server's clock; None where that is not told."""
        tasks = self.members.get("tasks")
        known = [task for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
        begun = [
            time for task in known if (time := parse_optional_timestamp(task.get("block_inf_start_time"))) is not None
        ]
        return min(begun, default=None)

    @property
    def finished_at(self) -> datetime | None:
        """When it was over, by the server's clock."""
        return parse_optional_timestamp(self.members.get("finished_at"))

    @property
    def val_errors(self) -> list[Any]:
        """The validation errors that came with the job. The job exists all the same."""
        errors = self.members.get("val_errors")
        return errors if isinstance(errors, list) else []


def parse_timestamp(value: Any) -> datetime | None:
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


def parse_optional_timestamp(value: Any) -> datetime | None:
    """The same of a time that may not be set yet: None for what servers write then."""
    time = parse_timestamp(value)
    return None if time is None or time.year < _UNSET else time


def encode_job(members: dict[str, Any]) -> bytes:
    """A job object as bytes again, in ASCII."""
    return json.dumps(members).encode()


def update_job(body: bytes, newer: JobObject) -> bytes:
    """A job object with what a list tells of it now; without its tasks, which are of before, as a list has none."""
    known = parse_job(body)
    members = {} if known is None else {name: value for name, value in known.members.items() if name != "tasks"}
    return encode_job({**members, **newer.members})


def parse_job(body: bytes) -> JobObject | None:
    """Read a job object. None when `body` is not a JSON object with a non-empty string `id`."""
    members = parse_json_object(body)
    if members is None:
        return None
    job_id = members.get("id")
    return JobObject(job_id, members) if isinstance(job_id, str) and job_id else None


def parse_json_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object leniently: numbers of any length, NaN as None. None when `body` is no JSON object.

    Of an object that is nested deeper than ordinary readers go, the members that are arrays or objects are None. How
    deep the json module itself goes differs from one Python to the next.
    """
    try:
        value = _LENIENT.decode(_shallow(body) if _too_deep(body) else _text(body))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def parse_complete_object(body: bytes) -> dict[str, Any] | None:
    """The same, and None as well for one that is so deep that members of it are lost."""
    return None if _too_deep(body) else parse_json_object(body)


def is_embeddable(body: bytes) -> bool:
    """Whether the bytes can stand inside another JSON document as they are, for any ordinary reader."""
    return _strictly(body) is not None


def verbatim_job_text(body: bytes) -> str | None:
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


def decode_lossless(body: bytes) -> str:
    """The bytes as text, losing nothing: what is not UTF-8 becomes lone surrogates, as `surrogateescape` has it."""
    return body.decode("utf-8", "surrogateescape")


def _text(body: bytes) -> str:
    return decode_lossless(body.removeprefix(b"\xef\xbb\xbf"))


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
