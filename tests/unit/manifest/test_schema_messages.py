"""The manifest's JSON Schema is arranged as SchemaStore wants it, and explains every field to an editor."""

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

from runner.manifest import schema
from runner.manifest.yaml import reader

SCHEMA: dict[str, Any] = json.loads(schema.schema_text("manifest"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
EDITORS = Page("docs/editors.md")

# What came after draft 07, which is what every editor knows.
LATER = {
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
# Not of the standard: yaml-language-server and VS Code show them, validators pass them by.
EDITORS_OWN = {"patternErrorMessage", "enumDescriptions"}


def fields(
    node: dict[str, Any], path: str = "", *, required: bool = False
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every schema of something that a person writes: its path, itself, and whether it must be there."""
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
    """Every keyword of the schema and of those in it."""
    if isinstance(node, list):
        for each in node:
            yield from keywords(each)
    if isinstance(node, dict):
        for key, child in node.items():
            yield key
            if key == "properties":
                yield from keywords(list(child.values()))
            elif key not in ("default", "examples"):
                yield from keywords(child)


def test_there_are_fields() -> None:
    assert len(FIELDS) == 29


@pytest.mark.parametrize(("path", "node", "required"), FIELDS)
def test_each_field_has_its_words(path: str, node: dict[str, Any], required: bool) -> None:
    title, description = node["title"], node["description"]
    assert re.fullmatch(r"(?!(?:a|an|the) )[a-z][^.:!?]*[a-z0-9]", title) or ", in " in title
    assert description.endswith(".")
    assert description[0].isupper() or description.startswith("`")
    assert title.casefold() != description.rstrip(".").casefold()
    assert node["examples"]
    assert isinstance(node["type"], str)
    assert required or not path or "default" in node or "Default: " in description
    if node["type"] == "object":
        assert "additionalProperties" in node
    if "enum" in node:
        assert len(node["enum"]) == len(node["enumDescriptions"])
        assert all(words[0].isupper() and words.endswith(".") for words in node["enumDescriptions"])


@pytest.mark.parametrize(("path", "node", "required"), FIELDS)
def test_what_is_shown_as_an_example_or_a_default_is_valid(path: str, node: dict[str, Any], required: bool) -> None:
    for value in [*node["examples"], *([node["default"]] if "default" in node else [])]:
        jsonschema.Draft7Validator(node).validate(value)
    assert path or not required


def test_no_title_stands_for_two_things() -> None:
    titles: dict[str, set[str]] = {}
    for path, node, _ in fields(SCHEMA):
        titles.setdefault(node["title"], set()).add(path.rpartition(".")[2])
    assert {title: sorted(names) for title, names in titles.items() if len(names) > 1} == {}


def test_it_is_of_the_draft_that_editors_know() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert set(keywords(SCHEMA)) & LATER == set()
    assert set(keywords(SCHEMA)) - set(jsonschema.Draft7Validator.META_SCHEMA["properties"]) == EDITORS_OWN


def test_every_part_that_speaks_of_a_type_names_it() -> None:
    """ajv's strict mode, in which SchemaStore compiles it, wants the type beside each of these."""
    for part in parts(SCHEMA["allOf"]):
        if "items" in part:
            assert part["type"] == "array"
    assert [part["then"]["properties"]["jobs"]["items"]["type"] for part in SCHEMA["allOf"]] == ["object", "object"]


def parts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from parts(child)
    elif isinstance(node, list):
        for child in node:
            yield from parts(child)


# What the page on editors says of it.


def test_the_catalogue_s_entry_on_the_page_is_of_this_schema() -> None:
    entry = json.loads(EDITORS.block("catalogue entry"))
    assert entry["url"] == SCHEMA["$id"] == "https://www.schemastore.org/pixxel-runner.json"
    assert entry["name"] == SCHEMA["title"]
    assert entry["fileMatch"] == ["*.pixxel.yaml", "*.pixxel.yml"]


def test_the_editors_settings_on_the_page_match_the_same_files() -> None:
    [(path, globs)] = json.loads(EDITORS.block("vs code"))["yaml.schemas"].items()
    assert path == "./pixxel-runner.schema.json"
    entry = json.loads(EDITORS.block("catalogue entry"))
    assert globs == entry["fileMatch"]
    assert all(glob in EDITORS.block("neovim") for glob in globs)
    assert any(fnmatch.fnmatchcase("fields/nightly.pixxel.yaml", glob) for glob in globs)
    assert not any(fnmatch.fnmatchcase("docker-compose.yaml", glob) for glob in globs)


def listed(marker: str) -> list[Path]:
    """The files of the checkout that a block of the page lists."""
    return [path for line in EDITORS.block(marker).split() for path in sorted(CHECKOUT.glob(line))]


@pytest.mark.parametrize("path", listed("positive tests"), ids=lambda path: path.name)
def test_what_is_to_be_valid_at_schemastore_is(path: Path) -> None:
    VALIDATOR.validate(reader.read(path.read_bytes(), path.name).value)


@pytest.mark.parametrize("path", listed("negative tests"), ids=lambda path: path.name)
def test_what_is_to_be_invalid_there_is(path: Path) -> None:
    assert not VALIDATOR.is_valid(reader.read(path.read_bytes(), path.name).value)
