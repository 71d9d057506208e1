"""The API's job objects: the one place that reads their bytes, whatever else is in them.

The wire is looser than the API's description, and the answer to a paid POST may hold anything beside the id:
a lone surrogate, NaN, a number of 5,000 digits, 5,000 nested lists. None of that may lose a created job, so an
object that the json module will not read is scanned for its top-level members without recursion.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

# What ordinary JSON readers take: jq and others stop near a few hundred or thousand levels.
_DEEPEST = 200

# Possessive, so that a string that never ends is passed over once and not once for each quote in it.
_TOKEN = re.compile(rb'[\[\]{},:]|"(?:[^"\\]++|\\.)*+"?|[^\s\[\]{},:"]++', re.DOTALL)
_OPEN = (b"[", b"{")
_CLOSE = (b"]", b"}")


@dataclass(frozen=True, slots=True)
class JobObject:
    """A job as the API told it. Only `id` is sure; `members` holds what could be read of the rest."""

    id: str
    members: dict[str, Any]

    @property
    def cost(self) -> int | None:
        """The job's cost in tokens, where the API told a whole number."""
        cost = self.members.get("cost")
        return cost if isinstance(cost, int) and not isinstance(cost, bool) else None

    @property
    def status(self) -> str | None:
        """The job's status at the API (`running`, `completed`, …): never an outcome."""
        status = self.members.get("status")
        return status if isinstance(status, str) else None

    @property
    def val_errors(self) -> list[Any]:
        """The validation errors that came with the job. The job exists all the same."""
        errors = self.members.get("val_errors")
        return errors if isinstance(errors, list) else []


def read(body: bytes) -> JobObject | None:
    """Read a job object. None when `body` is not a JSON object with a non-empty string `id`."""
    members = read_object(body)
    if members is None:
        return None
    job_id = members.get("id")
    return JobObject(job_id, members) if isinstance(job_id, str) and job_id else None


def read_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object leniently: numbers of any length, NaN as None. None when `body` is no JSON object.

    Of an object that is nested too deep for the json module, the members that are arrays or objects are None.
    """
    try:
        try:
            value = _loads(_text(body))
        except RecursionError:
            value = _loads(_shallow(body))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def embeddable(body: bytes) -> bool:
    """Whether the bytes can stand inside another JSON document as they are, for any ordinary reader."""
    try:
        body.decode("utf-8")
        json.loads(body, parse_float=_keep, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return not body.startswith(b"\xef\xbb\xbf") and _depth(body) <= _DEEPEST


def as_text(body: bytes) -> str:
    """The bytes as text, losing nothing: what is not UTF-8 becomes lone surrogates, as `surrogateescape` has it."""
    return body.decode("utf-8", "surrogateescape")


def _text(body: bytes) -> str:
    return as_text(body.removeprefix(b"\xef\xbb\xbf"))


def _loads(text: str) -> Any:
    return json.loads(text, strict=False, parse_int=_integer, parse_constant=_nothing)


def _integer(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:  # longer than sys.get_int_max_str_digits(): no cost that a person could pay
        return None


def _nothing(_constant: str) -> None:
    return None


def _keep(digits: str) -> str:
    return digits


def _refuse(constant: str) -> None:
    raise ValueError(constant)


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
