"""The problems that the manifest's JSON Schema finds, as messages with positions.

The fields themselves are in `schemas/manifest.schema.json`, and `loader` reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import jsonschema

from runner.core.errors import Problem
from runner.core.suggestions import closest_matches
from runner.manifest.schema_files import schema_text
from runner.manifest.yaml.document import Document
from runner.manifest.yaml.messages import FieldPath, quote
from runner.manifest.yaml.scalars import describe_value, format_number

Finding = tuple[FieldPath, str, str]  # where, message, hint

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9 ./:_-]{0,198}[A-Za-z0-9_-])?")
# What is expected, and what to write.
_TYPES = {
    "string": ("a string", "write a single value"),
    "integer": ("an integer", "write an integer"),
    "number": ("a number", "write a number"),
    "boolean": ("a boolean", "write true or false"),
    "object": ("a mapping", "write `key: value` lines, all indented by the same amount"),
    "array": ("a list", "start each item with `- `"),
}
_TOP_LEVEL_HINTS = {"version": "start the file with `version: 1`", "jobs": "list the jobs under `jobs:`"}
_CHARACTER_NAMES = {" ": "space", "/": "slash", "\n": "line break", "\r": "line break", "\t": "tab"}
_LARGEST_INTEGER = 2**53 - 1  # the largest that every JSON parser reads exactly; hints do not mention it
_LIMITS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "greater than"}
# Keys that a manifest must never have. It is reviewed as data, so pulling a manifest from somewhere else must not be
# able to send the API key elsewhere or to run anything.
_FORBIDDEN_KEYS = {
    **dict.fromkeys(
        ("address", "api", "api_url", "base_url", "endpoint", "host", "proxy", "server", "url"),
        ("a manifest cannot set the API's address", "set PIXXEL_BASE_URL, or use --base-url"),
    ),
    **dict.fromkeys(
        ("api_key", "apikey", "auth", "authorization", "bearer", "credentials", "key", "password", "secret", "token"),
        (
            "a manifest must not contain the API key",
            "set PIXXEL_API_KEY, or use --api-key-file; if this is a real key, replace it",
        ),
    ),
    **dict.fromkeys(
        ("cmd", "command", "exec", "hook", "hooks", "run", "script", "shell"),
        ("a manifest cannot run commands", "run commands before or after pixxel-runner"),
    ),
    **dict.fromkeys(
        ("extends", "file", "from", "import", "imports", "include", "includes"),
        ("a manifest cannot include other files", "put what the jobs share under `defaults`"),
    ),
}


@cache
def _manifest_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(schema_text("manifest"))
    return schema


def find_problems(document: Document) -> list[Problem]:
    """Find everything that violates the manifest's JSON Schema, in no particular order."""
    reduced, indices = _without_plain_jobs(document.value)
    errors = jsonschema.Draft7Validator(_manifest_schema()).iter_errors(reduced)
    return list(dict.fromkeys(problem for error in errors for problem in _translate(error, document, indices)))


def _without_plain_jobs(manifest: Any) -> tuple[Any, list[int]]:
    """The manifest with only those jobs that jsonschema has to check, and their original indices.

    jsonschema takes some 45 µs per job. A job of plain ids, a plain name and plain labels is valid by the schema's
    rules (`tests/unit/manifest/test_schema.py` compares the two) and need not be checked by it.
    """
    jobs = manifest.get("jobs") if isinstance(manifest, dict) else None
    if not isinstance(jobs, list) or not jobs:
        return manifest, []
    defaults = manifest.get("defaults")
    given = defaults.keys() if isinstance(defaults, dict) else ()
    required = {"workflow_id", "project_id"}.difference(given)
    distinct = list(_without_repeats(jobs))
    indices = [index for index, job in enumerate(distinct) if not is_plain_job(job, required)] or [0]
    return {**manifest, "jobs": [distinct[index] for index in indices]}, indices


def _without_repeats(jobs: Iterable[Any]) -> Iterator[Any]:
    """The jobs without what aliases repeat: its problems are reported once, where the anchor is.

    Otherwise a few kilobytes of aliases could make jsonschema find millions of problems, all of them the same few.
    """
    seen_jobs: set[int] = set()
    seen_labels: set[int] = set()
    for job in jobs:
        if not isinstance(job, dict):
            yield job
        elif id(job) in seen_jobs:  # only missing keys are reported for each
            yield {key: "-" for key in ("workflow_id", "project_id") if key in job}
        elif id(job.get("labels")) in seen_labels:
            yield {**job, "labels": {}}
        else:
            yield job
        if isinstance(job, dict):
            seen_jobs.add(id(job))
            if isinstance(job.get("labels"), dict):
                seen_labels.add(id(job["labels"]))


def is_plain_job(job: Any, required: Iterable[str]) -> bool:
    """Whether a job is valid at a glance. False means that it has to be validated."""
    return isinstance(job, dict) and all(key in job for key in required) and all(map(_is_plain_field, job.items()))


def _is_plain_field(item: tuple[str, Any]) -> bool:
    key, value = item
    if key in ("workflow_id", "project_id"):
        return isinstance(value, str) and _PLAIN_ID.fullmatch(value) is not None
    if key == "name":
        return isinstance(value, str) and _PLAIN_TEXT.fullmatch(value) is not None
    if key == "labels":
        return isinstance(value, dict) and all(map(_is_plain_label, value.items()))
    return key == "enabled" and isinstance(value, bool)


def _is_plain_label(item: tuple[str, Any]) -> bool:
    return all(isinstance(text, str) and _PLAIN_TEXT.fullmatch(text) is not None for text in item)


def _translate(error: Any, document: Document, indices: list[int]) -> Iterator[Problem]:
    """The problems behind a `jsonschema.ValidationError`. `indices` maps validated jobs to those of the document."""
    path = tuple(error.absolute_path)
    if len(path) > 1 and path[0] == "jobs":
        path = ("jobs", indices[path[1]], *path[2:])
    create_problem = document.key_problem if error.validator == "additionalProperties" else document.problem
    if "propertyNames" in error.absolute_schema_path:
        path, create_problem = (*path, error.instance), document.key_problem
    if error.validator == "type":
        findings = _explain_type(error, path, document.raw(path))
    else:
        findings = _KEYWORDS[error.validator](error, path)
    for field, message, hint in findings:
        yield create_problem(field, message, hint)


def _explain_type(error: Any, path: FieldPath, raw: str | None) -> Iterator[Finding]:
    expected = error.validator_value
    if expected == "string" and raw:
        yield path, *_explain_misread(error.instance, raw, error.schema)
    elif error.instance is None and not path:
        yield path, "the manifest is empty", "run `pixxel-runner init` to create a manifest"
    else:
        message = f"expected {_TYPES[expected][0]}, got {_describe(error.instance)}"
        yield path, message, _type_hint(expected, error.instance)


def _explain_required(error: Any, path: FieldPath) -> Iterator[Finding]:
    for key in error.validator_value:
        if key not in error.instance:
            hint = _TOP_LEVEL_HINTS.get(key, f"add `{key}:` to this job, or to `defaults` for all jobs")
            yield path, f"missing required key `{key}`", hint


def _explain_unknown_keys(error: Any, path: FieldPath) -> Iterator[Finding]:
    known = list(error.schema["properties"])
    for key in error.instance:
        if key not in known:
            yield (*path, key), *_explain_unknown_key(key, known, path)


def _explain_version(error: Any, path: FieldPath) -> Iterator[Finding]:
    if isinstance(error.instance, int | float) and not isinstance(error.instance, bool):
        message = f"unsupported format version {format_number(error.instance)}"
        yield path, message, "write `version: 1`, or upgrade pixxel-runner"


def _explain_enum(error: Any, path: FieldPath) -> Iterator[Finding]:
    if isinstance(error.instance, str):
        yield path, *_explain_choice(error.instance, error.validator_value)


def _explain_range(error: Any, path: FieldPath) -> Iterator[Finding]:
    schema = error.schema
    if schema["type"] == "integer" and error.instance % 1:
        return  # reported as a wrong type
    limits = f"from {schema.get('minimum')} to {schema['maximum']}"
    if "exclusiveMinimum" in schema:
        limits = f"greater than {schema['exclusiveMinimum']} and at most {schema['maximum']}"
    hint = f"use a number {limits}"
    if schema["maximum"] == _LARGEST_INTEGER:
        hint = "use 0 or a positive integer" if error.validator == "minimum" else "use a smaller number"
    message = f"must be {_LIMITS[error.validator]} {error.validator_value}, got {format_number(error.instance)}"
    yield path, message, hint


def _explain_length(error: Any, path: FieldPath) -> Iterator[Finding]:
    if error.instance:
        message = f"must be at most {error.schema['maxLength']:,} characters, got {len(error.instance):,}"
        yield path, message, "shorten it"
    else:
        yield path, "must not be empty", "write a value, or remove the key"


def _explain_pattern(error: Any, path: FieldPath) -> Iterator[Finding]:
    if error.instance:
        message = f"invalid value {quote(error.instance)}: {error.schema['patternErrorMessage']}"
        yield path, message, _pattern_hint(error)
    elif "minLength" not in error.schema:  # otherwise `_explain_length` reports it
        yield from _explain_length(error, path)


def _explain_min_items(_error: Any, path: FieldPath) -> Iterator[Finding]:
    yield path, "must contain at least one job", "add a job: `- workflow_id: ...`"


# `_explain_type` handles the keyword `type`.
_KEYWORDS: dict[str, Callable[[Any, FieldPath], Iterator[Finding]]] = {
    "additionalProperties": _explain_unknown_keys,
    "const": _explain_version,
    "enum": _explain_enum,
    "exclusiveMinimum": _explain_range,
    "maxLength": _explain_length,
    "maximum": _explain_range,
    "minItems": _explain_min_items,
    "minLength": _explain_length,
    "minimum": _explain_range,
    "pattern": _explain_pattern,
    "required": _explain_required,
}


def _explain_misread(value: Any, raw: str, schema: dict[str, Any]) -> tuple[str, str]:
    """The message and hint for an unquoted value that YAML does not read as a string."""
    if raw not in schema.get("enum", [raw]):
        return _explain_choice(raw, schema["enum"])
    if re.search(schema.get("pattern", ""), raw) is None:  # quotes would not help
        return f"invalid value {quote(raw)}: {schema['patternErrorMessage']}", _example_hint(schema)
    message = f"expected a string, but YAML reads {quote(raw)} as {describe_value(value, raw)}"
    return message, f"put it in quotes: {quote(chr(34) + raw + chr(34))}"


def _explain_choice(text: str, choices: list[str]) -> tuple[str, str]:
    message = f"expected one of {', '.join(choices)}; got {quote(text)}"
    return message, suggest(text, choices) or "use one of these values"


def _explain_unknown_key(key: str, known: list[str], path: FieldPath) -> tuple[str, str]:
    folded = key.lower().replace("-", "_")
    if folded in _FORBIDDEN_KEYS:
        return _FORBIDDEN_KEYS[folded]
    hint = suggest(folded, known) or _placement_hint(folded, path) or f"use one of: {', '.join(known)}"
    return f"unknown key {quote(key)}", hint


def suggest(text: str, choices: Iterable[str]) -> str:
    """A hint with the choice that was probably meant; empty if none is similar."""
    similar = closest_matches(text, choices)
    return f"did you mean `{similar[0]}`?" if similar else ""


def _placement_hint(key: str, path: FieldPath) -> str:
    """Where a misplaced key belongs; empty if nowhere."""
    properties = _manifest_schema()["properties"]
    if key in properties["submit"]["properties"]:
        return "move it under `submit`"
    if key in properties["jobs"]["items"]["properties"]:
        return "move it to a job" if key == "name" else "move it to a job, or to `defaults`"
    return "move it to the top level" if key in properties and path else ""


def _describe(value: Any) -> str:
    if isinstance(value, str):
        return f"the string {quote(value)}"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "no value" if value is None else describe_value(value, "")


def _type_hint(expected: str, value: Any) -> str:
    if value is None:
        return "write a value, or remove it"
    without_quotes = isinstance(value, str) and expected in ("integer", "number", "boolean")
    return _TYPES[expected][1] + (", without quotes" if without_quotes else "")


def _pattern_hint(error: Any) -> str:
    value, pattern = error.instance, error.validator_value
    if value != value.strip() and re.search(pattern, value.strip()):
        return "remove the whitespace at its start or end"
    for char in value if re.search(pattern, "aa") else "":
        if not re.search(pattern, f"a{char}a"):
            return f"remove the {_CHARACTER_NAMES.get(char, f'character U+{ord(char):04X}')}"
    return _example_hint(error.schema)


def _example_hint(schema: dict[str, Any]) -> str:
    return f"for example: {', '.join(map(str, schema['examples']))}"
