"""What YAML reads in a plain (unquoted) scalar: text, or one of the things that surprise the person who wrote it.

YAML 1.1, which PyYAML follows, and YAML 1.2, which editors follow, differ: `on` is a boolean to the one, `1e5` a
number to the other. Here a scalar is text only if it is text to both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

_WORDS: dict[str, bool | float | None] = {
    **{form: True for word in ("yes", "true", "on") for form in (word, word.capitalize(), word.upper())},
    **{form: False for word in ("no", "false", "off") for form in (word, word.capitalize(), word.upper())},
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{f"{sign}{form}": float("inf") for sign in ("", "+") for form in (".inf", ".Inf", ".INF")},
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_NUMERIC_START = frozenset("-+.0123456789")
# https://yaml.org/type/int.html and https://yaml.org/spec/1.2.2/#103-core-schema
_INTEGER = re.compile(
    r"""(?P<sign>[-+]?)(?:
        0b(?P<binary>[01_]*[01][01_]*)
      | 0x(?P<hexadecimal>[0-9a-fA-F_]*[0-9a-fA-F][0-9a-fA-F_]*)
      | 0o(?P<octal12>[0-7]+)
      | 0(?P<octal>[0-7_]*[0-7][0-7_]*)
      | (?P<sixties>[1-9][0-9_]*(?::[0-5]?[0-9])+)
      | (?P<decimal>[0-9][0-9_]*)
    )""",
    re.VERBOSE | re.ASCII,
)
# https://yaml.org/type/float.html, and YAML 1.2, in which neither the dot nor the exponent's sign is needed.
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?",
    re.ASCII,
)
_FLOAT_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*", re.ASCII)
# https://yaml.org/type/timestamp.html
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}"
    r"(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::?[0-9]{2})?))?",
    re.ASCII,
)
_BASES = {"binary": 2, "hexadecimal": 16, "octal12": 8, "octal": 8, "decimal": 10}
# Longer digit strings are no setting of ours, and Python refuses to convert very long ones.
_MAX_DIGITS = 200


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A date or a time, which no field of a manifest takes: only what was written matters."""

    text: str


def parse_scalar(text: str) -> Any:
    """Read a plain scalar.

    Returns:
        `text` itself (the same object) if it is text to YAML 1.1 and to YAML 1.2; else the bool, None, int, float
        or `Timestamp` that one of them reads.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START:
        return text
    if (integer := _INTEGER.fullmatch(text)) is not None:
        return _integer(integer)
    if _FLOAT.fullmatch(text) is not None:
        return float(text.replace("_", ""))
    if _FLOAT_SIXTIES.fullmatch(text) is not None:
        return _sixties(text)
    return Timestamp(text) if _TIMESTAMP.fullmatch(text) is not None else text


def describe_value(value: Any, text: str) -> str:
    """What YAML reads in the plain scalar `text`, for a person: `the number 45045 (in base 60)`."""
    if value is None:
        return "null, that is, no value"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, Timestamp):
        return "a date"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "a number beyond all bounds"
    return f"the number {format_number(value)}{_peculiarity(text)}"


def format_number(value: float) -> str:
    """A number as a person writes it: whole ones in full, up to 20 digits."""
    return str(value) if isinstance(value, int) and abs(value) < 10**20 else f"{value:.15g}"


def is_portable_number(text: str) -> bool:
    """Whether every reader takes `text` for the same number, the one that it looks like."""
    return re.fullmatch(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", text, re.ASCII) is not None


def _integer(found: re.Match[str]) -> int | float:
    kind = str(found.lastgroup)
    digits = found[kind].replace("_", "")
    if len(digits) > _MAX_DIGITS:
        return float("inf")
    number = _sixties(digits) if kind == "sixties" else int(digits, _BASES[kind])
    return -number if found["sign"] == "-" else number


def _sixties(text: str) -> int | float:
    """The value of `12:30:45` in base 60, by which YAML 1.1 wanted to read times of day."""
    sign = -1 if text.startswith("-") else 1
    read: type[int | float] = float if "." in text else int  # a float has no most digits
    total: int | float = 0
    for part in text.lstrip("-+").replace("_", "").split(":"):
        total = total * 60 + read(part)
    return sign * total


def _peculiarity(text: str) -> str:
    if ":" in text:
        return " (in base 60)"
    digits = text.lstrip("-+")
    return " (a leading zero means octal)" if re.fullmatch(r"0[0-7_]+", digits) else ""
