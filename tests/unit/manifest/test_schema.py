"""The manifest's JSON Schema as editors read it, and the words for what it finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.rate_limit import Rate
from runner.core.settings import Limits
from runner.manifest import loader, schema
from runner.manifest.yaml import reader

MANIFEST: dict[str, Any] = json.loads(schema.schema_text("manifest"))
VALIDATOR = jsonschema.Draft7Validator(MANIFEST)


def fields(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema that describes a value that a person writes, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}")
    if "items" in node:
        yield from fields(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from fields(node["additionalProperties"], f"{path}.*")


@pytest.mark.parametrize("name", ["manifest", "results"])
def test_each_schema_is_one(name: schema.SchemaName) -> None:
    found = json.loads(schema.schema_text(name))
    jsonschema.validators.validator_for(found).check_schema(found)


@pytest.mark.parametrize(
    ("path", "node"), [pytest.param(*field, id=field[0] or "(root)") for field in fields(MANIFEST)]
)
def test_every_field_is_explained_to_an_editor(path: str, node: dict[str, Any]) -> None:
    assert node["title"]
    assert node["description"].endswith(".")
    assert node["examples"]
    if node["type"] == "object" and not path.endswith(".labels"):
        assert node["additionalProperties"] is False
    if not path.endswith((".name", "_id", ".max_cost", ".rate")) and path not in ("", ".jobs", ".jobs[]"):
        assert "default" in node  # those left out have no fixed value as their default


@pytest.mark.parametrize(
    ("path", "node"), [pytest.param(*field, id=field[0] or "(root)") for field in fields(MANIFEST)]
)
def test_examples_and_defaults_are_valid(path: str, node: dict[str, Any]) -> None:
    values = [*node["examples"], *([node["default"]] if "default" in node else [])]
    for value in values:
        jsonschema.Draft7Validator(node).validate(value)
    assert path is not None


def test_the_schema_has_no_reference_to_follow() -> None:
    assert "$ref" not in schema.schema_text("manifest")


def test_the_defaults_are_those_that_apply() -> None:
    limits = Limits()
    section = MANIFEST["properties"]["submit"]["properties"]
    for name in ("concurrency", "attempts", "timeout", "stop_after"):
        assert section[name]["default"] == getattr(limits, name)


RATES = st.one_of(st.from_regex(r"[0-9]{0,8}/?(s|min|h|m)?\n?", fullmatch=True), st.text(max_size=5))


@given(RATES)
def test_the_schema_takes_the_rates_that_pacing_takes(rate: str) -> None:
    try:
        Rate.parse(rate)
    except ValueError:
        taken = False
    else:
        taken = True
    node = MANIFEST["properties"]["submit"]["properties"]["rate"]
    assert jsonschema.Draft7Validator(node).is_valid(rate) == taken


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
def test_a_job_that_is_not_shown_to_jsonschema_would_pass_it(entry: Any) -> None:
    if schema.is_plain_job(entry, ("workflow_id", "project_id")):
        VALIDATOR.validate({"version": 1, "jobs": [entry]})


@settings(max_examples=200)
@given(st.lists(ENTRIES, max_size=4), st.sampled_from([None, {}, {"workflow_id": "w"}, {"project_id": "p"}, 1]))
def test_whole_manifests_are_judged_as_the_schema_alone_judges_them(entries: list[Any], defaults: Any) -> None:
    value = {"version": 1, "name": "n", "jobs": entries} | ({} if defaults is None else {"defaults": defaults})
    found = loader.check(json.dumps(value).encode(), "m.yaml").problems
    if not VALIDATOR.is_valid(value):
        assert found
    elif found:  # of what the schema cannot say
        assert {problem.message.split(" ")[0] for problem in found} <= {"this", "the"} or "as an id" in str(found)


def keywords(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield key
            children = child.values() if key == "properties" else [child]
            if key not in ("default", "examples"):
                for each in children:
                    yield from keywords(each)
    elif isinstance(node, list):
        for each in node:
            yield from keywords(each)


def test_every_keyword_of_the_schema_has_words() -> None:
    structural = {"properties", "items", "propertyNames", "allOf", "if", "then", "not"}
    told = {"$schema", "$id", "enumDescriptions", "title", "description", "default", "examples", "patternErrorMessage"}
    document = reader.read(b"a: 1", "m.yaml")
    known = set(schema._ErrorTranslator(document, [])._by_keyword)
    assert set(keywords(MANIFEST)) - structural - told == known


def test_a_keyword_without_words_is_still_a_problem() -> None:
    document = reader.read(b"version: 1", "m.yaml")
    (error,) = jsonschema.Draft7Validator({"maxProperties": 0}).iter_errors(document.value)
    (problem,) = schema._ErrorTranslator(document, []).problems(error)
    assert problem.message == "this does not fit the manifest's schema (maxProperties)"


def test_results_schema_names_the_lists_of_the_results_file() -> None:
    assert {"created", "errors", "skipped"} <= json.loads(schema.schema_text("results"))["properties"].keys()
