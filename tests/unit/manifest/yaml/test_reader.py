"""Documents: values, places, and the words for what is not YAML."""

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


def test_values_are_plain() -> None:
    assert document().value == {"a": 1, "b c": ["x", {"d": "e", "f": "y"}], "h": {"i": True}}


@pytest.mark.parametrize(
    ("path", "place"),
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
def test_positions(path: tuple[str | int, ...], place: tuple[int, int]) -> None:
    assert document().position(path) == place


def test_key_positions() -> None:
    assert document().key_position(("b c", 1, "f")) == (4, 14)
    assert document().key_position(("h", "none")) == (5, 4)


def test_what_was_written_is_kept_where_yaml_reads_no_text() -> None:
    assert document().raw(("h", "i")) == "on"
    assert document().raw(("b c", 0)) is None
    assert document().raw(("h",)) is None


def test_an_alias_stands_at_its_own_place_and_its_inside_at_the_anchors() -> None:
    read = document(b"a: &x {b: on}\nc: *x\nd: &y on\ne: *y\n")
    assert read.value == {"a": {"b": True}, "c": {"b": True}, "d": True, "e": True}
    assert read.position(("c",)) == (2, 4)
    assert read.position(("c", "b")) == (1, 11)
    assert (read.position(("e",)), read.raw(("e",))) == ((4, 4), "on")


def test_an_alias_is_refused_above_its_anchor() -> None:
    (problem,) = document(TEXT).problems
    assert problem.message == "the alias `*g` names no anchor above it"


def test_an_anchor_may_be_set_anew() -> None:
    assert document(b"a: &x 1\nb: *x\nc: &x 2\nd: *x\n").value == {"a": 1, "b": 1, "c": 2, "d": 2}


@given(st.text("a\n\rб\t", max_size=20))
def test_lines_and_columns_count_characters_from_1(text: str) -> None:
    lines = Lines(text)
    line = column = 1
    for offset, character in enumerate(text):
        assert lines.position(offset) == (line, column)
        is_break = character == "\n" or (character == "\r" and text[offset + 1 : offset + 2] != "\n")
        line, column = (line + 1, 1) if is_break else (line, column + 1)
    assert lines.position(len(text)) == (line, column)


def test_a_column_counts_characters_and_not_bytes() -> None:
    assert document("größe: [水, 🙂, on]\n".encode()).position(("größe", 2)) == (1, 15)


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        (b"\xe9", (1, 1), "byte 0 of the file (0xe9) is not UTF-8"),
        (b"\xef\xbb\xbfa: \xe9", (1, 4), "byte 6 of the file (0xe9) is not UTF-8"),
        ("a\r\nü: ".encode() + b"\xc3", (2, 4), "byte 7 of the file (0xc3) is not UTF-8"),
        (b"\xed\xa0\x80", (1, 1), "byte 0 of the file (0xed) is not UTF-8"),
        (b"a: \x7f", (1, 4), "the character U+007F may not stand in a YAML file"),
        ("a: \ufffe".encode(), (1, 4), "the character U+FFFE may not stand in a YAML file"),
        (b"a: !<tag:%zz> b", (1, 11), "a tag stands here; a manifest is plain data and has none"),
        (b"a: 'b' c: d", (1, 8), "this does not fit into what began on line 1"),
    ],
)
def test_what_ends_the_reading(data: bytes, place: tuple[int, int], message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        document(data)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == place
    assert problem.message == message


def test_an_error_without_a_place_is_put_at_the_end() -> None:
    error = yaml.MarkedYAMLError(problem="something new")
    assert messages.explain(error, "ab\nc", Lines("ab\nc").position)[:2] == (4, "this is not YAML")


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ((), ""),
        (("jobs", 3, "workflow_id"), "jobs[3].workflow_id"),
        (("jobs", 0, "labels", "a b"), 'jobs[0].labels["a b"]'),
        (("a.b", "\x1b"), '["a.b"]["\\x1b"]'),
        (("x" * 100,), "x" * 100),
    ],
)
def test_field_paths(path: tuple[str | int, ...], written: str) -> None:
    assert messages.format_path(path) == written


@pytest.mark.parametrize(
    ("text", "seen"),
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
def test_visible(text: str, seen: str) -> None:
    assert messages.escape(text) == seen


def test_long_text_is_cut() -> None:
    assert messages.quote("x" * 61) == f"`{'x' * 59}…`"
    assert messages.quote("x" * 60) == f"`{'x' * 60}`"
