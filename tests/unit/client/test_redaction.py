"""Secrets in server responses, in every form in which servers write them."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.client.redaction import Redactor

KEY = "ab<cd>&ef'gh\"0123+/=%x"
MASKED = "*" * 8

WRITERS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with slashes escaped": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "JSON of Go": lambda text: (
        json.dumps(text)[1:-1].replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    ),
    "JSON of .NET": lambda text: "".join(rf"\u{ord(c):04X}" if c in "<>&'\"+" else c for c in text),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "JSON of code points only": lambda text: "".join(rf"\u{ord(c):04x}" for c in text),
    "URL": lambda text: quote(text, safe=""),
    "URL with slashes": quote,
    "lower-case URL": lambda text: quote(text, safe="").lower(),
    "HTML": html.escape,
    "HTML of decimal references": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "HTML of hexadecimal references": lambda text: "".join(f"&#x{ord(c):X};" for c in text),
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_secret_is_redacted_in_every_encoding(writer: Callable[[str], str]) -> None:
    text = f"unknown key {writer(KEY)}, and more"
    assert Redactor([KEY]).redact_text(text) == f"unknown key {MASKED}, and more"
    assert Redactor([KEY]).redact_bytes(text.encode()) == f"unknown key {MASKED}, and more".encode()


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)


@given(secrets, st.lists(st.sampled_from(["raw", "u", "%", "&#"]), min_size=40, max_size=40))
def test_characters_may_be_escaped_in_different_ways(secret: str, ways: list[str]) -> None:
    writers = {"raw": "{0}", "u": r"\u{1:04x}", "%": "%{1:02X}", "&#": "&#{1};"}
    # What starts an escape is escaped itself: a plain one beside escapes would be ambiguous.
    text = "".join(
        writers["u" if character in "\\%&" else way].format(character, ord(character))
        for character, way in zip(secret, ways, strict=False)
    )
    assert Redactor([secret]).redact_text(text) == MASKED
    assert Redactor([secret]).redact_bytes(text.encode()) == MASKED.encode()


@pytest.mark.parametrize("escaped", ["\\", r"\u005c", r"\\", r"\\u005C", "%5C", "%5c", "&#92;", "&#x5c;"])
def test_an_escape_at_the_end_of_a_secret_is_redacted_completely(escaped: str) -> None:
    """The raw backslash alone is the start of its escape; taking it left `u005c`."""
    redactor = Redactor(["0000000\\"])
    assert redactor.redact_text(f"key 0000000{escaped}") == f"key {MASKED}"
    assert redactor.redact_bytes(f"key 0000000{escaped}".encode()) == f"key {MASKED}".encode()


def test_json_stays_valid_when_a_secret_ends_in_a_backslash() -> None:
    data = json.dumps({"key": "0000000\\"}).encode()
    assert json.loads(Redactor(["0000000\\"]).redact_bytes(data)) == {"key": MASKED}


@given(st.text(), secrets)
def test_text_without_the_secret_is_unchanged(text: str, secret: str) -> None:
    if not any(sign in text for sign in "\\%&") and secret not in text:
        assert Redactor([secret]).redact_text(text) == text


def test_a_short_secret_is_not_redacted() -> None:
    assert Redactor(["sandbox", ""]).redact_text("sandbox") == "sandbox"


@pytest.mark.parametrize("piece", ["\\", "%", "&", "a", r"a\u0062", r"\\u0061", "&#97;"])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    data = (piece * 300_000)[:300_000].encode()
    started = time.process_time()
    Redactor(["abababababababab" * 4]).redact_bytes(data)
    assert time.process_time() - started < 2
