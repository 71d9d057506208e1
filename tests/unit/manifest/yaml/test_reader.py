"""Parsed documents: values, positions, and the messages for invalid YAML."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.core.errors import ManifestError
from runner.manifest.yaml import messages, reader
from runner.manifest.yaml.document import Document, Lines

TEXT = b"""\
a: 1
'b c':
  - x
  - {d: "e", f: *g}
h: &g
  i: on
"""
ORDERED = TEXT.replace(b"*g", b"y")


def document(data: bytes = ORDERED) -> Document:
    return reader.read(data, "m.yaml")


def test_values() -> None:
    assert document().value == {"a": 1, "b c": ["x", {"d": "e", "f": "y"}], "h": {"i": True}}


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ((), (1, 1)),
        (("a",), (1, 4)),
        (("b c",), (3, 3)),
        (("b c", 0), (3, 5)),
        (("b c", 1), (4, 5)),
        (("b c", 1, "f"), (4, 17)),
        (("h",), (5, 4)),
        (("h", "i"), (6, 6)),
        (("h", "none"), (5, 4)),
        (("b c", 7, "x"), (3, 3)),
        (("none", "none"), (1, 1)),
    ],
)
def test_position(path: tuple[str | int, ...], position: tuple[int, int]) -> None:
    assert document().position(path) == position


def test_key_position() -> None:
    assert document().key_position(("b c", 1, "f")) == (4, 14)
    assert document().key_position(("h", "none")) == (5, 4)


def test_raw_text_is_kept_for_values_that_are_not_strings() -> None:
    assert document().raw(("h", "i")) == "on"
    assert document().raw(("b c", 0)) is None
    assert document().raw(("h",)) is None


def test_position_of_an_alias_and_of_what_it_repeats() -> None:
    read = document(b"a: &x {b: on}\nc: *x\nd: &y on\ne: *y\n")
    assert read.value == {"a": {"b": True}, "c": {"b": True}, "d": True, "e": True}
    assert read.position(("c",)) == (2, 4)
    assert read.position(("c", "b")) == (1, 11)
    assert (read.position(("e",)), read.raw(("e",))) == ((4, 4), "on")


def test_alias_before_its_anchor() -> None:
    (problem,) = document(TEXT).problems
    assert problem.message == "invalid alias `*g`: no anchor of this name precedes it"


def test_anchor_can_be_redefined() -> None:
    assert document(b"a: &x 1\nb: *x\nc: &x 2\nd: *x\n").value == {"a": 1, "b": 1, "c": 2, "d": 2}


@given(st.text("a\n\rб\t", max_size=20))
def test_lines_and_columns_start_at_1(text: str) -> None:
    lines = Lines(text)
    line = column = 1
    for offset, character in enumerate(text):
        assert lines.position(offset) == (line, column)
        is_break = character == "\n" or (character == "\r" and text[offset + 1 : offset + 2] != "\n")
        line, column = (line + 1, 1) if is_break else (line, column + 1)
    assert lines.position(len(text)) == (line, column)


def test_columns_count_characters_not_bytes() -> None:
    assert document("größe: [水, 🙂, on]\n".encode()).position(("größe", 2)) == (1, 15)


@pytest.mark.parametrize(
    ("data", "position", "message"),
    [
        (b"\xe9", (1, 1), "invalid UTF-8: byte 0xe9 at offset 0"),
        (b"\xef\xbb\xbfa: \xe9", (1, 4), "invalid UTF-8: byte 0xe9 at offset 6"),
        ("a\r\nü: ".encode() + b"\xc3", (2, 4), "invalid UTF-8: byte 0xc3 at offset 7"),
        (b"\xed\xa0\x80", (1, 1), "invalid UTF-8: byte 0xed at offset 0"),
        (b"a: \x7f", (1, 4), "the character U+007F is not allowed in YAML"),
        ("a: \ufffe".encode(), (1, 4), "the character U+FFFE is not allowed in YAML"),
        (b"a: !<tag:%zz> b", (1, 11), "tags are not supported"),
        (b"a: 'b' c: d", (1, 8), "unexpected content in the block that starts on line 1"),
    ],
)
def test_invalid_yaml(data: bytes, position: tuple[int, int], message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        document(data)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == position
    assert problem.message == message


def test_error_without_a_position_is_reported_at_the_end() -> None:
    error = yaml.MarkedYAMLError(problem="something new")
    assert messages.explain(error, "ab\nc", Lines("ab\nc").position)[:2] == (4, "invalid YAML")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("jobs", 3, "workflow_id"), "jobs[3].workflow_id"),
        (("jobs", 0, "labels", "a b"), 'jobs[0].labels["a b"]'),
        (("a.b", "\x1b"), '["a.b"]["\\x1b"]'),
        (("x" * 100,), "x" * 100),
    ],
)
def test_format_path(path: tuple[str | int, ...], text: str) -> None:
    assert messages.format_path(path) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("größe 水 🙂", "größe 水 🙂"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("a\u00a0b", "a\\xa0b"),
        ("\n\t\0", "\\n\\t\\x00"),
        ("\U000e0001\ud800", "\\U000e0001\\ud800"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert messages.escape(text) == escaped


def test_quote_shortens_long_text() -> None:
    assert messages.quote("x" * 61) == f"`{'x' * 59}…`"
    assert messages.quote("x" * 60) == f"`{'x' * 60}`"
