"""Secrets in what a server says, however it writes them."""

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
    "as it is": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with slashes escaped": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    "JSON as Go writes it": lambda text: (
        json.dumps(text)[1:-1].replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    ),
    "JSON as .NET writes it": lambda text: "".join(rf"\u{ord(one):04X}" if one in "<>&'\"+" else one for one in text),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "JSON of code points alone": lambda text: "".join(rf"\u{ord(one):04x}" for one in text),
    "an address": lambda text: quote(text, safe=""),
    "an address with slashes": quote,
    "an address in small letters": lambda text: quote(text, safe="").lower(),
    "a page": html.escape,
    "a page in numbers": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "a page in hexadecimal": lambda text: "".join(f"&#x{ord(one):X};" for one in text),
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_secret_is_found_however_it_is_written(writer: Callable[[str], str]) -> None:
    said = f"unknown key {writer(KEY)}, and more"
    assert Redactor([KEY]).redact_text(said) == f"unknown key {MASKED}, and more"
    assert Redactor([KEY]).redact_bytes(said.encode()) == f"unknown key {MASKED}, and more".encode()


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)


@given(secrets, st.lists(st.sampled_from(["raw", "u", "%", "&#"]), min_size=40, max_size=40))
def test_each_character_may_be_escaped_in_a_way_of_its_own(secret: str, ways: list[str]) -> None:
    writers = {"raw": "{0}", "u": r"\u{1:04x}", "%": "%{1:02X}", "&#": "&#{1};"}
    # A raw one that itself begins an escape is another matter: nobody writes it so beside escapes.
    said = "".join(
        writers["u" if one in "\\%&" else way].format(one, ord(one)) for one, way in zip(secret, ways, strict=False)
    )
    assert Redactor([secret]).redact_text(said) == MASKED
    assert Redactor([secret]).redact_bytes(said.encode()) == MASKED.encode()


@given(st.text(), secrets)
def test_what_holds_no_secret_stays(said: str, secret: str) -> None:
    if not any(sign in said for sign in "\\%&") and secret not in said:
        assert Redactor([secret]).redact_text(said) == said


def test_a_short_secret_is_a_part_of_words() -> None:
    assert Redactor(["sandbox", ""]).redact_text("sandbox") == "sandbox"


@pytest.mark.parametrize("piece", ["\\", "%", "&", "a", r"a\u0062", r"\\u0061", "&#97;"])
def test_hostile_text_takes_no_longer_than_other_text(piece: str) -> None:
    said = (piece * 300_000)[:300_000].encode()
    begun = time.process_time()
    Redactor(["abababababababab" * 4]).redact_bytes(said)
    assert time.process_time() - begun < 2
