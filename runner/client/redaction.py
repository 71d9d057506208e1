"""Secrets in what a server says: found in each form that a reader of it would turn back, and masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape
from html.entities import codepoint2name
from urllib.parse import quote

_LEAST = 8  # characters; a shorter secret, as tests have, is a part of ordinary words
_MASK = "*" * 8
_SIGNS = "\\%&"  # what an escape begins with: in JSON, in an address, in a page


class Redactor:
    """Takes secrets out of text and bytes; what comes out has asterisks in their place."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = [secret for secret in secrets if len(secret) >= _LEAST]
        self._forms = tuple(dict.fromkeys(form for secret in known for form in _forms(secret)))
        self._encoded = tuple(form.encode() for form in self._forms)
        escaped = "|".join(map(_escaped, known))
        self._pattern = re.compile(escaped) if escaped else None
        self._encoded_pattern = re.compile(escaped.encode()) if escaped else None

    def redact_text(self, said: str) -> str:
        """The text without them."""
        for form in self._forms:
            said = said.replace(form, _MASK)
        if self._pattern is not None and any(sign in said for sign in _SIGNS):
            said = self._pattern.sub(_MASK, said)
        return said

    def redact_bytes(self, said: bytes) -> bytes:
        """The bytes without them."""
        for form in self._encoded:
            said = said.replace(form, _MASK.encode())
        if self._encoded_pattern is not None and (b"\\" in said or b"%" in said or b"&" in said):
            said = self._encoded_pattern.sub(_MASK.encode(), said)
        return said


def _forms(secret: str) -> tuple[str, ...]:
    """A secret as it is, and as JSON (some writers escape slashes), an address or a page would quote all of it."""
    return (secret, json.dumps(secret)[1:-1], secret.replace("/", r"\/"), quote(secret, safe=""), escape(secret))


def _escaped(secret: str) -> str:
    """A pattern of the secret in which any character may be escaped, each in its own way.

    No character's alternatives are tried again once one fits, so that hostile text takes no longer than other text.
    """
    first, *rest = (_alternatives(character) for character in secret)
    return f"(?:{first})" + "".join(f"(?>{one})" for one in rest)


def _alternatives(character: str) -> str:
    units = character.encode("utf-16-be")
    # A backslash, or more of them for JSON in JSON: so many, as more would be counted again from each of them.
    json_escape = "".join(rf"\\\\{{0,7}}u{_digits(units[at : at + 2].hex())}" for at in range(0, len(units), 2))
    percent = "".join(f"%{_digits(f'{byte:02x}')}" for byte in character.encode())
    code = ord(character)
    entity = rf"&(?:#0*{code}|#[xX]0*{_digits(f'{code:x}')}"
    if code in codepoint2name:
        entity += f"|{codepoint2name[code]}"
    short = [rf"\\\\{{0,7}}{re.escape(character)}"] if character in "\"'/" else []
    return "|".join([json_escape, *short, percent, f"{entity});", re.escape(character)])


def _digits(hexadecimal: str) -> str:
    """Hexadecimal digits in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in hexadecimal)
