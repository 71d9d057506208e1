"""Plain (unquoted) YAML scalars: which are strings, and what the others are read as.

YAML 1.1, which PyYAML follows, and YAML 1.2, which editors follow, differ: `on` is a boolean to the one, `1e5` a
number to the other. Here a scalar is a string only if it is a string to both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

_CONSTANTS: dict[str, bool | float | None] = {
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
      | (?P<base60>[1-9][0-9_]*(?::[0-5]?[0-9])+)
      | (?P<decimal>[0-9][0-9_]*)
    )""",
    re.VERBOSE | re.ASCII,
)
# https://yaml.org/type/float.html, and YAML 1.2, which needs neither the dot nor the exponent's sign.
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_BASE_60_FLOAT = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*", re.ASCII)
# https://yaml.org/type/timestamp.html
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}"
    r"(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::?[0-9]{2})?))?",
    re.ASCII,
)
_BASES = {"binary": 2, "hexadecimal": 16, "octal12": 8, "octal": 8, "decimal": 10}
_LEADING_ZERO = re.compile(r"[-+]*0[0-7_]+", re.ASCII)
_PORTABLE_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
# No setting of ours is longer, and Python refuses to convert very long strings of digits.
_MAX_DIGITS = 200


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A date or a time. No field of a manifest takes one, so only its text is kept."""

    text: str


def parse_scalar(text: str) -> Any:
    """Parse a plain scalar.

    Returns:
        `text` itself (the same object) if it is a string to both YAML 1.1 and YAML 1.2; otherwise the bool, None, int,
        float or `Timestamp` that one of them reads.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMERIC_START:
        return text
    if (integer := _INTEGER.fullmatch(text)) is not None:
        return _parse_integer(integer)
    if _FLOAT.fullmatch(text) is not None:
        return float(text.replace("_", ""))
    if _BASE_60_FLOAT.fullmatch(text) is not None:
        return _parse_base_60(text)
    return Timestamp(text) if _TIMESTAMP.fullmatch(text) is not None else text


def describe_value(value: Any, text: str) -> str:
    """Describe what YAML reads in the plain scalar `text`: `the number 100000`, `base-60 notation for 45045`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, Timestamp):
        return "a date"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity"
    kind = "the number"
    if ":" in text:
        kind = "base-60 notation for"
    elif _LEADING_ZERO.fullmatch(text) is not None:
        kind = "octal notation for"
    return f"{kind} {format_number(value)}"


def format_number(value: float) -> str:
    """Format a number for a message: integers in full, up to 20 digits."""
    return str(value) if isinstance(value, int) and abs(value) < 10**20 else f"{value:.15g}"


def is_portable_number(text: str) -> bool:
    """Whether every YAML parser reads `text` as the same number, the one that it looks like."""
    return _PORTABLE_NUMBER.fullmatch(text) is not None


def _parse_integer(match: re.Match[str]) -> int | float:
    notation = str(match.lastgroup)
    digits = match[notation].replace("_", "")
    if len(digits) > _MAX_DIGITS:
        return float("inf")
    number = _parse_base_60(digits) if notation == "base60" else int(digits, _BASES[notation])
    return -number if match["sign"] == "-" else number


def _parse_base_60(text: str) -> int | float:
    """Parse `12:30:45`, which YAML 1.1 reads as seconds."""
    sign = -1 if text.startswith("-") else 1
    parse: type[int | float] = float if "." in text else int  # float takes any number of digits
    total: int | float = 0
    for part in text.lstrip("-+").replace("_", "").split(":"):
        total = total * 60 + parse(part)
    return sign * total
