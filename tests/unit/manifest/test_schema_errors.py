"""Problems that the manifest's JSON Schema finds, and that the fast path and the other modules agree with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.rate_limit import Rate
from runner.core.settings import Limits
from runner.manifest import loader, schema_errors, schema_files

MANIFEST: dict[str, Any] = json.loads(schema_files.schema_text("manifest"))
VALIDATOR = jsonschema.Draft7Validator(MANIFEST)


def test_the_schema_has_no_references() -> None:
    assert "$ref" not in schema_files.schema_text("manifest")


def test_defaults_are_those_of_the_settings() -> None:
    limits = Limits()
    section = MANIFEST["properties"]["submit"]["properties"]
    for name in ("concurrency", "attempts", "timeout", "stop_after"):
        assert section[name]["default"] == getattr(limits, name)


RATES = st.one_of(st.from_regex(r"[0-9]{0,8}/?(s|min|h|m)?\n?", fullmatch=True), st.text(max_size=5))


@given(RATES)
def test_the_schema_and_the_rate_limiter_accept_the_same_rates(rate: str) -> None:
    try:
        Rate.parse(rate)
    except ValueError:
        is_valid = False
    else:
        is_valid = True
    node = MANIFEST["properties"]["submit"]["properties"]["rate"]
    assert jsonschema.Draft7Validator(node).is_valid(rate) == is_valid


TEXTS = st.one_of(
    st.text(max_size=3),
    st.from_regex(r"[A-Za-z0-9 ./:_-]{0,5}\n?", fullmatch=True),
    st.sampled_from([".", "..", "a" * 200, "a" * 201]),
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), TEXTS)
ENTRIES = st.one_of(
    VALUES,
    st.dictionaries(
        st.sampled_from(["name", "workflow_id", "project_id", "labels", "enabled", "other"]),
        st.one_of(VALUES, st.dictionaries(TEXTS, VALUES, max_size=2)),
    ),
)


@settings(max_examples=500)
@given(ENTRIES)
def test_jobs_that_skip_validation_are_valid(entry: Any) -> None:
    if schema_errors.is_plain_job(entry, ("workflow_id", "project_id")):
        VALIDATOR.validate({"version": 1, "jobs": [entry]})


# What only the loader reports: duplicates, and ids with characters that the schema's pattern allows.
BEYOND_THE_SCHEMA = ("duplicate job name", "same workflow and project", "invalid value")


@settings(max_examples=200)
@given(st.lists(ENTRIES, max_size=4), st.sampled_from([None, {}, {"workflow_id": "w"}, {"project_id": "p"}, 1]))
def test_complete_manifests_are_invalid_if_the_schema_says_so(entries: list[Any], defaults: Any) -> None:
    value = {"version": 1, "name": "n", "jobs": entries} | ({} if defaults is None else {"defaults": defaults})
    problems = loader.check(json.dumps(value).encode(), "m.yaml").problems
    if not VALIDATOR.is_valid(value):
        assert problems
    else:
        assert all(problem.message.startswith(BEYOND_THE_SCHEMA) for problem in problems)


def keywords(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield key
            children = child.values() if key == "properties" else [child]
            if key not in ("default", "examples"):
                for child_node in children:
                    yield from keywords(child_node)
    elif isinstance(node, list):
        for item in node:
            yield from keywords(item)


def test_every_keyword_of_the_schema_has_a_message() -> None:
    structural = {"properties", "items", "propertyNames", "allOf", "if", "then", "not"}
    shown = {"$schema", "$id", "enumDescriptions", "title", "description", "default", "examples", "patternErrorMessage"}
    assert set(keywords(MANIFEST)) - structural - shown == {"type", *schema_errors._KEYWORDS}
