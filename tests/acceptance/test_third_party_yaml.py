"""The YAML test suite: what the loader accepts, it reads as the suite says."""

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

# Invalid in YAML 1.2, but accepted by PyYAML: a comment directly after a bracket, comma or quote, a lone dash in
# brackets, unindented lines in brackets or quotes. Each is read as it looks.
LENIENT = {"9C9N", "9JBA", "CVW2", "DK95-1", "G5U8", "QB6E", "S98Z", "SU5Z", "YJV2"}
# The last line of a block consists of spaces without a line break, which YAML 1.2 adds. No field of a manifest accepts
# such text.
DIFFERENT = {"L24T-1"}


def value_of(data: bytes, libyaml: bool) -> Any:
    """The value that the loader reads. Raises ManifestError for any problem."""
    document = reader.read(data, "case.yaml", libyaml=libyaml)
    if document.problems:
        raise ManifestError(document.problems)
    return document.value


def expected_documents(text: str) -> list[Any]:
    """The documents of a case's JSON."""
    documents, rest = [], text.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        documents.append(document)
        rest = rest[end:].strip()
    return documents


def to_json(value: Any) -> str:
    """For comparisons, in which 1, 1.0, true and "1" differ. In JSON, a date is a string."""
    return json.dumps(
        value, sort_keys=True, default=lambda moment: moment.text if type(moment) is Timestamp else moment
    )


def test_the_suite_is_complete() -> None:
    assert len(CASES) > 400
    assert sum(case["fail"] for case in CASES) > 90


@pytest.mark.parametrize("libyaml", PARSERS)
def test_values_are_those_of_the_suite(libyaml: bool) -> None:
    accepted = set()
    for case in CASES:
        try:
            value = value_of(case["yaml"].encode(), libyaml)
        except ManifestError:
            continue
        accepted.add(case["id"])
        if case["json"] is not None and case["id"] not in DIFFERENT:
            assert [to_json(value)] == list(map(to_json, expected_documents(case["json"]))), case
    assert accepted & {case["id"] for case in CASES if case["fail"]} == LENIENT
    assert len(accepted) > 190


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="needs libyaml to compare with")
def test_results_are_the_same_without_libyaml() -> None:
    for case in CASES:
        data = case["yaml"].encode()
        assert loader.check(data, "m.yaml", libyaml=True) == loader.check(data, "m.yaml", libyaml=False), case
