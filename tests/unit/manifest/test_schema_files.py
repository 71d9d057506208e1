"""The schema files: documented for editors, and written to the rules of SchemaStore."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.pages import CHECKOUT, Page

from runner.manifest import schema_files
from runner.manifest.yaml import reader

SCHEMA: dict[str, Any] = json.loads(schema_files.schema_text("manifest"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
EDITORS = Page("docs/editors.md")

# Keywords of later drafts than 07, which is the one that all editors support.
LATER_KEYWORDS = {
    "$anchor",
    "$defs",
    "$dynamicRef",
    "$recursiveRef",
    "$vocabulary",
    "dependentRequired",
    "dependentSchemas",
    "deprecated",
    "maxContains",
    "minContains",
    "prefixItems",
    "unevaluatedItems",
    "unevaluatedProperties",
}
# Not part of the standard: yaml-language-server and VS Code show them, validators ignore them.
EDITOR_KEYWORDS = {"patternErrorMessage", "enumDescriptions"}
NO_FIXED_DEFAULT = (".name", "_id", ".max_cost", ".rate", ".(name)")


def fields(
    node: dict[str, Any], path: str = "", *, required: bool = False
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The schema of every value that a user writes: its path, the schema, and whether the value is required."""
    yield path, node, required
    for name, child in node.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}", required=name in node.get("required", ()))
    if "items" in node:
        yield from fields(node["items"], f"{path}[]", required=True)
    if isinstance(node.get("additionalProperties"), dict):
        yield from fields(node["additionalProperties"], f"{path}.*", required=True)
    if "propertyNames" in node:
        yield from fields(node["propertyNames"], f"{path}.(name)", required=True)


FIELDS = [pytest.param(*field, id=field[0] or "(root)") for field in fields(SCHEMA)]


def keywords(node: Any) -> Iterator[str]:
    """Every keyword of a schema and its subschemas."""
    if isinstance(node, list):
        for item in node:
            yield from keywords(item)
    if isinstance(node, dict):
        for key, child in node.items():
            yield key
            if key == "properties":
                yield from keywords(list(child.values()))
            elif key not in ("default", "examples"):
                yield from keywords(child)


def test_there_are_fields() -> None:
    assert len(FIELDS) == 29


@pytest.mark.parametrize("name", ["manifest", "results"])
def test_schemas_are_valid(name: schema_files.SchemaName) -> None:
    document = json.loads(schema_files.schema_text(name))
    jsonschema.validators.validator_for(document).check_schema(document)


def test_the_results_schema_has_the_lists_of_the_results_file() -> None:
    assert {"created", "errors", "skipped"} <= json.loads(schema_files.schema_text("results"))["properties"].keys()


@pytest.mark.parametrize(("path", "node", "required"), FIELDS)
def test_every_field_is_documented(path: str, node: dict[str, Any], required: bool) -> None:
    title, description = node["title"], node["description"]
    assert re.fullmatch(r"(?!(?:a|an|the) )[a-z][^.:!?]*[a-z0-9]", title) or ", in " in title
    assert description.endswith(".")
    assert description[0].isupper() or description.startswith("`")
    assert title.casefold() != description.rstrip(".").casefold()
    assert node["examples"]
    assert isinstance(node["type"], str)
    assert required or not path or "default" in node or "Default: " in description
    assert "default" in node or path in ("", ".jobs", ".jobs[]") or path.endswith(NO_FIXED_DEFAULT)
    if node["type"] == "object":
        assert node["additionalProperties"] is False or path.endswith(".labels")
    if "enum" in node:
        assert len(node["enum"]) == len(node["enumDescriptions"])
        assert all(text[0].isupper() and text.endswith(".") for text in node["enumDescriptions"])


@pytest.mark.parametrize(("path", "node", "required"), FIELDS)
def test_examples_and_defaults_are_valid(path: str, node: dict[str, Any], required: bool) -> None:
    for value in [*node["examples"], *([node["default"]] if "default" in node else [])]:
        jsonschema.Draft7Validator(node).validate(value)
    assert path or not required


def test_each_title_describes_one_field() -> None:
    titles: dict[str, set[str]] = {}
    for path, node, _ in fields(SCHEMA):
        titles.setdefault(node["title"], set()).add(path.rpartition(".")[2])
    assert {title: sorted(names) for title, names in titles.items() if len(names) > 1} == {}


def test_the_schema_uses_draft_07() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert set(keywords(SCHEMA)) & LATER_KEYWORDS == set()
    assert set(keywords(SCHEMA)) - set(jsonschema.Draft7Validator.META_SCHEMA["properties"]) == EDITOR_KEYWORDS


def test_every_subschema_that_needs_a_type_has_one() -> None:
    """ajv's strict mode, in which SchemaStore compiles schemas, requires it."""
    for subschema in subschemas(SCHEMA["allOf"]):
        if "items" in subschema:
            assert subschema["type"] == "array"
    assert [part["then"]["properties"]["jobs"]["items"]["type"] for part in SCHEMA["allOf"]] == ["object", "object"]


def subschemas(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from subschemas(child)
    elif isinstance(node, list):
        for child in node:
            yield from subschemas(child)


# What docs/editors.md says about the schema.


def test_the_catalog_entry_in_the_docs_matches_the_schema() -> None:
    entry = json.loads(EDITORS.block("catalog entry"))
    assert entry["url"] == SCHEMA["$id"] == "https://www.schemastore.org/pixxel-runner.json"
    assert entry["name"] == SCHEMA["title"]
    assert entry["fileMatch"] == ["*.pixxel.yaml", "*.pixxel.yml"]


def test_the_editor_settings_in_the_docs_match_the_same_files() -> None:
    [(path, globs)] = json.loads(EDITORS.block("vs code"))["yaml.schemas"].items()
    assert path == "./pixxel-runner.schema.json"
    entry = json.loads(EDITORS.block("catalog entry"))
    assert globs == entry["fileMatch"]
    assert all(glob in EDITORS.block("neovim") for glob in globs)
    assert any(fnmatch.fnmatchcase("fields/nightly.pixxel.yaml", glob) for glob in globs)
    assert not any(fnmatch.fnmatchcase("docker-compose.yaml", glob) for glob in globs)


def listed_files(block: str) -> list[Path]:
    """The files of the checkout that a block of docs/editors.md lists."""
    return [CHECKOUT / line for line in EDITORS.block(block).split()]


@pytest.mark.parametrize("path", listed_files("positive tests"), ids=lambda path: path.name)
def test_positive_tests_for_schemastore(path: Path) -> None:
    VALIDATOR.validate(reader.read(path.read_bytes(), path.name).value)


@pytest.mark.parametrize("path", listed_files("negative tests"), ids=lambda path: path.name)
def test_negative_tests_for_schemastore(path: Path) -> None:
    assert not VALIDATOR.is_valid(reader.read(path.read_bytes(), path.name).value)
