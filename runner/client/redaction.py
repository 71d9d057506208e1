"""Secrets in server responses: found in each form that a reader of them would decode, and redacted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from html.entities import codepoint2name
from typing import AnyStr
from urllib.parse import quote

_MIN_LENGTH = 8  # characters; shorter secrets, as in tests, are parts of ordinary words
_MASK = "*" * 8


class Redactor:
    """Replaces secrets in text and bytes with asterisks."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = [secret for secret in secrets if len(secret) >= _MIN_LENGTH]
        # Longest first: a short form may be the start of a longer one, which would leave its rest readable.
        self._forms = sorted({form for secret in known for form in _forms(secret)}, key=len, reverse=True)
        self._encoded_forms = [form.encode() for form in self._forms]
        pattern = "|".join(map(_escaped_pattern, known)) or "(?!)"
        self._pattern, self._encoded_pattern = re.compile(pattern), re.compile(pattern.encode())

    def redact_text(self, text: str) -> str:
        """Return text without the secrets."""
        return _redact(text, self._pattern if "\\" in text or "%" in text or "&" in text else None, self._forms, _MASK)

    def redact_bytes(self, data: bytes) -> bytes:
        """Return bytes without the secrets."""
        has_escapes = b"\\" in data or b"%" in data or b"&" in data
        return _redact(data, self._encoded_pattern if has_escapes else None, self._encoded_forms, _MASK.encode())


def _redact(data: AnyStr, pattern: re.Pattern[AnyStr] | None, forms: Sequence[AnyStr], mask: AnyStr) -> AnyStr:
    # The pattern comes first: it takes whole escapes, of which a form might take the backslash only.
    if pattern is not None:
        data = pattern.sub(mask, data)
    for form in forms:
        data = data.replace(form, mask)
    return data


def _forms(secret: str) -> tuple[str, ...]:
    """The secret as it is, and as JSON (some writers escape slashes), URLs and HTML quote it."""
    return (secret, json.dumps(secret)[1:-1], secret.replace("/", r"\/"), quote(secret, safe=""), escape(secret))


def _escaped_pattern(secret: str) -> str:
    """A pattern that matches the secret with any of its characters escaped, each in its own way.

    The groups are atomic: backtracking into them would let hostile text take exponential time.
    """
    first, *rest = map(_alternatives, secret)
    return f"(?:{first})" + "".join(f"(?>{alternatives})" for alternatives in rest)


def _alternatives(character: str) -> str:
    """A pattern of the ways to write one character, the longest first."""
    code, units = ord(character), character.encode("utf-16-be")
    # JSON within JSON multiplies backslashes; without a bound, a long row of them would take quadratic time.
    more = "" if character == "\\" else r"\\{0,7}"
    quoted = [rf"\\{more}{re.escape(character)}"] if character in "\\\"'/" else []
    json_escape = "".join(rf"\\\\{{0,7}}u{_digits(units[at : at + 2].hex())}" for at in range(0, len(units), 2))
    percent = "".join(f"%{_digits(f'{byte:02x}')}" for byte in character.encode())
    entities = [f"#0*{code}", f"#[xX]0*{_digits(f'{code:x}')}", codepoint2name.get(code, "#")]
    return "|".join([json_escape, *quoted, percent, f"&(?:{'|'.join(entities)});", re.escape(character)])


def _digits(hexadecimal: str) -> str:
    """A pattern of hexadecimal digits in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in hexadecimal)
