"""The YAML test suite's cases: none breaks the loader, and what it takes it reads as the suite says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.core.errors import ManifestError
from runner.manifest import loader
from runner.manifest.yaml import reader
from runner.manifest.yaml.scalars import Timestamp

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "cases" / "yaml" / "yaml-test-suite.json").read_text(encoding="utf-8")
)
PARSERS = [pytest.param(True, id="libyaml", marks=pytest.mark.skipif(not yaml.__with_libyaml__, reason="no libyaml"))]
PARSERS.append(pytest.param(False, id="python"))

# What YAML 1.2 forbids and PyYAML takes: a comment right behind a bracket, comma or quote, a lone dash in brackets,
# lines in brackets or quotes that are not indented. Each is read as it looks.
LENIENT = {"9C9N", "9JBA", "CVW2", "DK95-1", "G5U8", "QB6E", "S98Z", "SU5Z", "YJV2"}
# A block's last line is of spaces alone and has no line break, which YAML 1.2 would add. No field of a manifest takes
# text that ends so.
ELSEWISE = {"L24T-1"}


def value_of(data: bytes, libyaml: bool) -> Any:
    """What the loader reads; it fails where it has a problem with it."""
    document = reader.read(data, "case.yaml", libyaml=libyaml)
    if document.problems:
        raise ManifestError(document.problems)
    return document.value


def said(text: str) -> list[Any]:
    """The documents of a case's JSON."""
    documents, rest = [], text.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        documents.append(document)
        rest = rest[end:].strip()
    return documents


def in_json(value: Any) -> str:
    """For comparing: 1, 1.0, true and "1" are four things. A date is text to JSON."""
    return json.dumps(
        value, sort_keys=True, default=lambda moment: moment.text if type(moment) is Timestamp else moment
    )


def test_there_are_the_cases_of_the_whole_suite() -> None:
    assert len(CASES) > 400
    assert sum(case["fail"] for case in CASES) > 90


@pytest.mark.parametrize("libyaml", PARSERS)
def test_what_is_read_is_what_the_suite_says(libyaml: bool) -> None:
    taken = set()
    for case in CASES:
        try:
            value = value_of(case["yaml"].encode(), libyaml)
        except ManifestError:
            continue
        taken.add(case["id"])
        if case["json"] is not None and case["id"] not in ELSEWISE:
            assert [in_json(value)] == list(map(in_json, said(case["json"]))), case
    assert taken & {case["id"] for case in CASES if case["fail"]} == LENIENT
    assert len(taken) > 190


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="needs libyaml to compare with")
def test_each_case_is_judged_the_same_with_and_without_libyaml() -> None:
    for case in CASES:
        data = case["yaml"].encode()
        assert loader.check(data, "m.yaml", libyaml=True) == loader.check(data, "m.yaml", libyaml=False), case
