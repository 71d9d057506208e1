"""The API's job objects, parsed leniently: whatever else is in a response, its id is found.

Responses are looser than the API's description says, and that to a paid POST may contain anything beside the id: a lone
surrogate, NaN, a number of 5,000 digits, 5,000 nested lists. None of that may lose a created job, so an object that is
too deep for the json module is scanned for its top-level fields without recursion.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

# Other JSON readers, such as jq, have limits of a few hundred or thousand levels.
_MAX_DEPTH = 200
_WHITESPACE = " \t\r\n"
_FIRST_YEAR = 1971  # servers write a time that is not set as 0001-01-01 or 1970-01-01

# Possessive: a string without an end is scanned once, and not once for each quote in it.
_TOKEN = re.compile(rb'[\[\]{},:]|"(?:[^"\\]++|\\.)*+"?|[^\s\[\]{},:"]++', re.DOTALL)
_LEVELS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
_NANOSECONDS = re.compile(r"(\.[0-9]{6})[0-9]+")


@dataclass(frozen=True, slots=True)
class JobObject:
    """A job as the API describes it. Only `id` is certain; `members` are all fields that could be parsed."""

    id: str
    members: dict[str, Any]

    @property
    def cost(self) -> int | None:
        """The cost in tokens, if it is a whole number (40.0 is one)."""
        cost = self.members.get("cost")
        if isinstance(cost, float) and cost.is_integer():
            return int(cost)
        return cost if isinstance(cost, int) and not isinstance(cost, bool) else None

    @property
    def status(self) -> str | None:
        """The status at the API (`running`, `completed`, …), which is not an outcome."""
        status = self.members.get("status")
        return status if isinstance(status, str) else None

    @property
    def created_by(self) -> str | None:
        """The user who created the job, if known."""
        creator = self.members.get("created_by")
        return creator if isinstance(creator, str) and creator else None

    @property
    def created_at(self) -> datetime | None:
        """When the job was created, by the server's clock, if known."""
        return parse_timestamp(self.members.get("created_at"))

    @property
    def started_at(self) -> datetime | None:
        """When the first of its tasks started, by the server's clock, if known."""
        tasks = self.members.get("tasks")
        known = [task for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
        starts = [parse_timestamp(task.get("block_inf_start_time")) for task in known]
        return min((start for start in starts if start is not None), default=None)

    @property
    def finished_at(self) -> datetime | None:
        """When the job finished, by the server's clock, if known."""
        return parse_timestamp(self.members.get("finished_at"))

    @property
    def val_errors(self) -> list[Any]:
        """The validation errors; the job exists all the same."""
        errors = self.members.get("val_errors")
        return errors if isinstance(errors, list) else []


def parse_timestamp(value: Any) -> datetime | None:
    """Parse an RFC 3339 timestamp, in UTC unless it has an offset. Returns it in UTC.

    None for a time that is not set, anything else, and a time that Python cannot represent in UTC.
    """
    if not isinstance(value, str):
        return None
    try:
        # Servers written in Go send nanoseconds; Python accepts at most six digits.
        time = datetime.fromisoformat(_NANOSECONDS.sub(r"\1", value.strip()))
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return time if time.year >= _FIRST_YEAR else None


def parse_job(body: bytes) -> JobObject | None:
    """Parse a job object. None when `body` is not a JSON object with a non-empty string `id`."""
    members = parse_json_object(body)
    job_id = None if members is None else members.get("id")
    return JobObject(job_id, members) if members is not None and isinstance(job_id, str) and job_id else None


def encode_job(members: dict[str, Any]) -> bytes:
    """Encode a job object in ASCII."""
    return json.dumps(members).encode()


def update_job(body: bytes, newer: JobObject) -> bytes:
    """Return a job object updated with one from a list, without the tasks: lists have none, and these are older."""
    job = parse_job(body)
    members = {} if job is None else {name: value for name, value in job.members.items() if name != "tasks"}
    return encode_job({**members, **newer.members})


def parse_json_object(body: bytes) -> dict[str, Any] | None:
    """Parse a JSON object leniently: NaN and numbers that are too long become None. None when it is not an object.

    In an object that is nested too deeply, arrays and objects become None; how deep the json module itself can go
    differs between versions of Python.
    """
    try:
        value = _LENIENT.decode(_flatten(body) if _is_too_deep(body) else _decode(body))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def parse_complete_object(body: bytes) -> dict[str, Any] | None:
    """The same, but None for an object that is nested too deeply, rather than a part of it."""
    return None if _is_too_deep(body) else parse_json_object(body)


def is_embeddable(body: bytes) -> bool:
    """Whether a JSON document can contain these bytes unchanged, for any ordinary reader."""
    return _parse_strictly(body) is not None


def verbatim_job_text(body: bytes) -> str | None:
    """Return the unchanged text of a job object, if a JSON document can contain it."""
    text, value = _parse_strictly(body) or ("", None)
    job_id = value.get("id") if isinstance(value, dict) else None
    return text if isinstance(job_id, str) and job_id else None


def decode_lossless(body: bytes) -> str:
    """Decode bytes as UTF-8, with lone surrogates for invalid bytes, as `surrogateescape` does."""
    return body.decode("utf-8", "surrogateescape")


def _decode(body: bytes) -> str:
    return decode_lossless(body.removeprefix(b"\xef\xbb\xbf"))


def _parse_strictly(body: bytes) -> tuple[str, Any] | None:
    """The text and the value of JSON that any ordinary reader accepts. Decimal numbers remain text."""
    try:
        # Decoded here, as the json module would also accept UTF-16 and UTF-32 bytes.
        text = body.decode("utf-8").strip(_WHITESPACE)
        value, end = _STRICT.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return None if end < len(text) or _is_too_deep(body) else (text, value)


def _parse_integer(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:  # longer than sys.get_int_max_str_digits()
        return None


def _refuse_constant(constant: str) -> None:
    raise ValueError(constant)


# Created once: `json.loads` creates a decoder for each call with options.
_LENIENT = json.JSONDecoder(strict=False, parse_int=_parse_integer, parse_constant=lambda _constant: None)
_STRICT = json.JSONDecoder(parse_float=str, parse_constant=_refuse_constant)


def _is_too_deep(body: bytes) -> bool:
    if body.count(b"[") + body.count(b"{") <= _MAX_DEPTH:
        return False
    levels = (_LEVELS.get(match[0], 0) for match in _TOKEN.finditer(body))
    return max(accumulate(levels), default=0) > _MAX_DEPTH


def _flatten(body: bytes) -> str:
    """The text of an object, with null for every array and object in it."""
    tokens: list[bytes] = []
    depth = 0
    for match in _TOKEN.finditer(body):
        level = _LEVELS.get(match[0], 0)
        depth += min(level, 0)
        if depth == 0 or (depth == 1 and level == 0):
            tokens.append(match[0])
        elif depth == 1 and level > 0:
            tokens.append(b"null")
        depth += max(level, 0)
    return _decode(b" ".join(tokens))
