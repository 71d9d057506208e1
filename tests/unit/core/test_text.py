"""Text from outside, made fit to show: what is escaped, how wide it is, and where it may be cut."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import texts

from runner.core.text import display_width, escape_unprintable, grapheme_clusters, truncate


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("field-a", "field-a"),
        ("", ""),
        ("two words", "two words"),
        ("Grünfläche 名前 😀", "Grünfläche 名前 😀"),
        ("a\xa0b\u3000c", "a\xa0b\u3000c"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("a\r\nb\tc\x00\x7f", r"a\r\nb\tc\x00\x7f"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("a\u200bb\ufeff\xad", r"a\u200bb\ufeff\xad"),
        ("a\u2028b\x85", r"a\u2028b\x85"),
        ("\udcff\ud800", r"\udcff\ud800"),
        ("\U000e0041\ue000", r"\U000e0041\ue000"),
        ("👨\u200d👩", r"👨\u200d👩"),
        ("::error::x", r"\x3a:error::x"),
        ("  ::error::x", r"  \x3a:error::x"),
        ("\xa0::error::x", "\xa0\\x3a:error::x"),
        (":::", r"\x3a::"),
        ("a::b", "a::b"),
        (":a", ":a"),
        ("\n::error::x", r"\n::error::x"),
        ("a ##[group]b", r"a \x23#[group]b"),
        ("###[group]", r"#\x23#[group]"),
        ("##vso[task.x]", r"\x23#vso[task.x]"),
        ("## heading", "## heading"),
        ("e\u0301", "e\u0301"),
        ("\u0301e", r"\u0301e"),
        ("a" + 6 * "\u0301", "a" + 4 * "\u0301" + 2 * r"\u0301"),
    ],
)
def test_active_characters_become_visible_escapes(text: str, shown: str) -> None:
    assert escape_unprintable(text) == shown


@given(texts)
def test_only_printable_characters_remain(text: str) -> None:
    shown = escape_unprintable(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]
    assert not shown.lstrip().startswith("::")
    assert "##[" not in shown
    assert escape_unprintable(shown) == shown


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("abc", 3), ("名前", 4), ("😀", 2), ("e\u0301", 1), ("ＡＢ", 4), ("…", 1), ("é", 1)]
)
def test_width_is_counted_in_columns(text: str, columns: int) -> None:
    assert display_width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "rest"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("abcdef", 1, "…"),
        ("名前です", 8, "名前です"),
        ("名前です", 7, "名前で…"),
        ("名前です", 6, "名前…"),
        ("ae\u0301b\u0301cd", 4, "ae\u0301b\u0301…"),
        ("ae\u0301bcd", 3, "ae\u0301…"),
    ],
)
def test_truncation_keeps_characters_complete(text: str, columns: int, rest: str) -> None:
    assert truncate(text, columns) == rest


@given(texts.map(escape_unprintable), st.integers(1, 30))
def test_truncated_text_is_never_too_wide_nor_needlessly_short(text: str, columns: int) -> None:
    rest = truncate(text, columns)
    assert display_width(rest) <= columns
    assert rest == text or (rest.endswith("…") and text.startswith(rest[:-1]))
    assert (rest == text) is (display_width(text) <= columns)


@given(texts.map(escape_unprintable))
def test_clusters_join_to_the_text_and_have_a_width(text: str) -> None:
    pieces = list(grapheme_clusters(text))
    assert "".join(pieces) == text
    assert all(display_width(piece) for piece in pieces)
