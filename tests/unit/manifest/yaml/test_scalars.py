"""Plain scalars, compared with PyYAML and with YAML 1.2."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.manifest.yaml.scalars import Timestamp, describe_value, is_portable_number, parse_scalar

# https://yaml.org/spec/1.2.2/#1032-tag-resolution
CORE = re.compile(
    r"null|Null|NULL|~||true|True|TRUE|false|False|FALSE|[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN"
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("yes", True),
        ("On", True),
        ("TRUE", True),
        ("no", False),
        ("off", False),
        ("0", 0),
        ("12345", 12345),
        ("-7", -7),
        ("+7", 7),
        ("0123", 83),
        ("0o17", 15),
        ("08", 8),
        ("0x1F", 31),
        ("0b11", 3),
        ("1_000", 1000),
        ("12:30:45", 45045),
        ("-1:30", -90),
        ("1:30.5", 90.5),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e5", 100000.0),
        ("1.5e-3", 0.0015),
        ("1_0.5", 10.5),
        ("77e12345", math.inf),
        ("-.inf", -math.inf),
        ("9" * 201, math.inf),
        ("2026-07-01", Timestamp("2026-07-01")),
        ("2026-7-1 10:00:00 +5", Timestamp("2026-7-1 10:00:00 +5")),
        ("2026-07-01T10:00:00.5Z", Timestamp("2026-07-01T10:00:00.5Z")),
    ],
)
def test_scalars_that_are_not_strings(text: str, value: Any) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "9f2a4c1e-7b60-4d35-8a1f-2c9be05d7713",
        *("y", "n", "Yes!", "nulls", "-", "+", ".", "..", "-a", "1.2.3", "1e", "1e5f", "0x", "0b2", "0o8", "12:99"),
        *("0:30", "2026-07", "2026-07-01-02", "1 000", "1,000", "=", "<<", "_1", "١٢٣", "1:60"),
    ],
)
def test_strings(text: str) -> None:
    assert parse_scalar(text) is text


def test_nan() -> None:
    assert math.isnan(parse_scalar(".nan"))


@settings(max_examples=1_000)
@given(st.text("0123456789abefox_:.+-TZ ~nultrsyNO", max_size=10))
def test_a_string_is_a_string_in_yaml_1_1_and_1_2(text: str) -> None:
    resolver: Any = yaml.SafeLoader("")
    tag = resolver.resolve(yaml.ScalarNode, text, (True, False))
    is_string = tag in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:value", "tag:yaml.org,2002:merge")
    if isinstance(parse_scalar(text), str):
        assert is_string
        assert CORE.fullmatch(text) is None


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("~", "null"),
        ("on", "the boolean true"),
        ("2026-07-01", "a date"),
        ("1e5", "the number 100000"),
        ("0123", "octal notation for 83"),
        ("089", "the number 89"),
        ("1:30", "base-60 notation for 90"),
        (".inf", "infinity"),
        (".nan", "NaN"),
        ("123456789012345678", "the number 123456789012345678"),
        ("0x" + "f" * 100, "the number 2.58224987808691e+120"),
    ],
)
def test_describe_value(text: str, description: str) -> None:
    assert describe_value(parse_scalar(text), text) == description


@pytest.mark.parametrize(
    ("text", "portable"),
    [("0", True), ("-12.50", True), ("010", False), ("1e5", False), ("1:30", False), ("1_0", False), (".5", False)],
)
def test_is_portable_number(text: str, portable: bool) -> None:
    assert is_portable_number(text) == portable


@given(st.text("0123456789:._e-+xob", max_size=3_000))
def test_any_number_of_digits_can_be_described(text: str) -> None:
    if (value := parse_scalar(text)) is not text:
        assert describe_value(value, text)
