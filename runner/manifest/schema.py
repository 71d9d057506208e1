"""The JSON Schemas, and what they find wrong with a manifest put into words, at its place."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import jsonschema

from runner.core.errors import Problem
from runner.core.suggestions import closest_matches
from runner.manifest.yaml.document import Document
from runner.manifest.yaml.messages import FieldPath, quote
from runner.manifest.yaml.scalars import Timestamp, describe_value, format_number

SchemaName = Literal["manifest", "results"]

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9 ./:_-]{0,198}[A-Za-z0-9_-])?")
_INIT_HINT = "`pixxel-runner init` writes one to start from"
_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
}
# What belongs beside the manifest and never in it (DESIGN, section 3): a manifest is reviewed as data, and pulling a
# stranger's must not send the key elsewhere or run anything.
_FOREIGN = {
    **dict.fromkeys(
        ("address", "api", "api_url", "base_url", "endpoint", "host", "proxy", "server", "url"),
        ("the API's address does not belong in a manifest", "use PIXXEL_BASE_URL or --base-url"),
    ),
    **dict.fromkeys(
        ("api_key", "apikey", "auth", "authorization", "bearer", "credentials", "key", "password", "secret", "token"),
        (
            "the API key does not belong in a manifest",
            "use PIXXEL_API_KEY or --api-key-file; if this is a real key, replace it at the API",
        ),
    ),
    **dict.fromkeys(
        ("cmd", "command", "exec", "hook", "hooks", "run", "script", "shell"),
        ("a manifest is data and names no command", "run commands before or after pixxel-runner"),
    ),
    **dict.fromkeys(
        ("extends", "file", "from", "import", "imports", "include", "includes"),
        ("a manifest names no other file", "put what the jobs have in common under `defaults`"),
    ),
}


def schema_text(name: SchemaName) -> str:
    """The text of a JSON Schema, as it is shipped."""
    return (_folder() / f"{name}.schema.json").read_text(encoding="utf-8")


def _folder() -> Traversable:
    """The schemas' folder: packaged as `runner.schemas`, or beside the package in a checkout."""
    package = files("runner")
    packaged = package / "schemas"
    return packaged if packaged.is_dir() else Path(str(package)).parent / "schemas"


@cache
def _manifest_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(schema_text("manifest"))
    return schema


def find_problems(document: Document) -> list[Problem]:
    """All that the manifest's JSON Schema finds wrong, in no particular order."""
    reduced, originals = _without_plain_jobs(document.value)
    words = _ErrorTranslator(document, originals)
    validator = jsonschema.Draft7Validator(_manifest_schema())
    found = {problem: None for error in validator.iter_errors(reduced) for problem in words.problems(error)}
    return list(found)


def _without_plain_jobs(manifest: Any) -> tuple[Any, list[int]]:
    """The manifest with only those jobs that jsonschema has to look at, and their indices.

    jsonschema takes some 45 µs a job. A job of plain ids, a plain name and plain labels is valid by the schema's
    own rules (`tests/unit/manifest/test_schema.py` holds the two against each other) and need not be shown to it.
    """
    jobs = manifest.get("jobs") if isinstance(manifest, dict) else None
    if not isinstance(jobs, list) or not jobs:
        return manifest, []
    defaults = manifest.get("defaults")
    given = defaults.keys() if isinstance(defaults, dict) else ()
    needed = {"workflow_id", "project_id"}.difference(given)
    once = list(_without_repeats(jobs))
    kept = [index for index, job in enumerate(once) if not is_plain_job(job, needed)] or [0]
    return {**manifest, "jobs": [once[index] for index in kept]}, kept


def _without_repeats(jobs: Iterable[Any]) -> Iterator[Any]:
    """The jobs, without what an alias repeats of them: its problems stand where its anchor does, and are told there.

    Some kilobytes of aliases could have jsonschema find millions of problems, all of them the same few.
    """
    whole: set[int] = set()
    labels: set[int] = set()
    for job in jobs:
        if not isinstance(job, dict):
            yield job
        elif id(job) in whole:  # only what is missing is told of each
            yield {key: "-" for key in ("workflow_id", "project_id") if key in job}
        elif id(job.get("labels")) in labels:
            yield {**job, "labels": {}}
        else:
            yield job
        if isinstance(job, dict):
            whole.add(id(job))
            if isinstance(job.get("labels"), dict):
                labels.add(id(job["labels"]))


def is_plain_job(job: Any, needed: Iterable[str]) -> bool:
    """Whether a job is valid at a glance. False says nothing."""
    return isinstance(job, dict) and all(key in job for key in needed) and all(map(_is_plain_field, job.items()))


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
    return all(isinstance(each, str) and _PLAIN_TEXT.fullmatch(each) is not None for each in item)


class _ErrorTranslator:
    """Turns jsonschema's errors about a document into problems. `originals` maps shown jobs to the document's."""

    def __init__(self, document: Document, originals: list[int]) -> None:
        self._document = document
        self._originals = originals

    @property
    def _by_keyword(self) -> dict[str, Callable[[Any, FieldPath], Iterable[Problem]]]:
        # Not kept: methods in a dictionary of their own object are a cycle, and with it the whole document would stay.
        return {
            "additionalProperties": self._unknown,
            "const": self._version,
            "enum": self._enum,
            "exclusiveMinimum": self._range,
            "maxLength": self._length,
            "maximum": self._range,
            "minItems": self._empty_list,
            "minLength": self._length,
            "minimum": self._range,
            "pattern": self._pattern,
            "required": self._missing,
            "type": self._type,
        }

    def problems(self, error: Any) -> Iterator[Problem]:
        """The problems that one `jsonschema.ValidationError` amounts to."""
        path = self._path(error)
        yield from self._by_keyword.get(error.validator, self._other)(error, path)

    def _path(self, error: Any) -> FieldPath:
        path = tuple(error.absolute_path)
        if len(path) > 1 and path[0] == "jobs":
            path = ("jobs", self._originals[path[1]], *path[2:])
        if "propertyNames" in error.absolute_schema_path:
            path = (*path, error.instance)
        return path

    def _type(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        expected = error.validator_value
        raw = self._document.raw(path)
        if expected == "string" and raw:
            yield self._document.problem(path, *_misread(error.instance, raw, error.schema))
        elif error.instance is None and not path:
            yield self._document.problem(path, "the file holds no manifest", _INIT_HINT)
        else:
            message = f"{_kind(error.instance)} stands here; it must be {_TYPES[expected]}"
            yield self._document.problem(path, message, _type_hint(expected, error.instance))

    def _missing(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        for key in error.validator_value:
            if key not in error.instance:
                yield self._document.problem(path, f"{key} is missing", _missing_hint(key, path))

    def _unknown(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        known = list(error.schema["properties"])
        for key in error.instance:
            if key not in known:
                yield self._document.key_problem((*path, key), *_unknown_key(key, known, path))

    def _version(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        if isinstance(error.instance, int | float) and not isinstance(error.instance, bool):
            which = f"version {format_number(error.instance)}" if math.isfinite(error.instance) else "this version"
            message = f"{which} of the format is not known to this pixxel-runner"
            yield self._document.problem(path, message, "write 1, or see whether a newer pixxel-runner is to be had")

    def _enum(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        if isinstance(error.instance, str):
            choices = error.validator_value
            message = f"{quote(error.instance)} is not one of {', '.join(choices)}"
            yield self._document.problem(path, message, suggest(error.instance, choices) or "write one of these")

    def _range(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        if error.schema["type"] == "integer" and error.instance % 1:
            return  # that it is no whole number is another problem
        least = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above"}[error.validator]
        message = f"{format_number(error.instance)} is out of range: it must be {least} {error.validator_value}"
        yield self._document.problem(path, message, f"write a number {_range_words(error.schema)}")

    def _length(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        if error.instance:
            message = f"this has {len(error.instance):,} characters; {error.schema['maxLength']:,} is the most"
            yield self._problem(error, path, message, "shorten it")
        else:
            yield self._problem(error, path, "this is empty", "write a value, or remove the key")

    def _pattern(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        if error.instance:
            message = f"{quote(error.instance)} {error.schema['patternErrorMessage']}"
            yield self._problem(error, path, message, _pattern_hint(error))
        elif "minLength" not in error.schema:  # else that it is empty is another problem
            yield self._problem(error, path, "this is empty", "write a value, or remove the key")

    def _empty_list(self, error: Any, path: FieldPath) -> Iterator[Problem]:  # noqa: ARG002 - one signature for all
        yield self._document.problem(path, "there are no jobs", "list at least one: `- workflow_id: ...`")

    def _other(self, error: Any, path: FieldPath) -> Iterator[Problem]:
        message = f"this does not fit the manifest's schema ({error.validator})"
        yield self._document.problem(path, message, "`pixxel-runner schema` prints it")

    def _problem(self, error: Any, path: FieldPath, message: str, hint: str) -> Problem:
        """A problem with a value or, where the schema speaks of keys, with the key."""
        is_key = "propertyNames" in error.absolute_schema_path
        return (self._document.key_problem if is_key else self._document.problem)(path, message, hint)


def _misread(value: Any, raw: str, schema: dict[str, Any]) -> tuple[str, str]:
    """The lesson about an unquoted value that is not text to YAML."""
    if raw not in schema.get("enum", [raw]):
        return f"{quote(raw)} is not one of {', '.join(schema['enum'])}", "write one of these"
    if re.search(schema.get("pattern", ""), raw) is None:  # quotes would not help
        return f"{quote(raw)} {schema['patternErrorMessage']}", f"such as {_examples(schema)}"
    quoted = quote(f'"{raw}"')
    return f"YAML reads {quote(raw)} as {describe_value(value, raw)}; it must be text", f"write it in quotes: {quoted}"


def _kind(value: Any) -> str:
    if value is None:
        return "no value"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {format_number(value)}" if math.isfinite(value) else describe_value(value, "")
    if isinstance(value, str):
        return f"the text {quote(value)}"
    return {dict: "a mapping", list: "a list", Timestamp: "a date"}[type(value)]


def _type_hint(expected: str, value: Any) -> str:
    if value is None:
        return "write a value, or remove this"
    if expected == "object":
        return "write `key: value` lines, indented alike"
    if expected == "array":
        return "write `- ` before each entry"
    if isinstance(value, str) and expected in ("integer", "number", "boolean"):
        return f"write {_TYPES[expected]}, without quotes"
    return "write a single value" if expected == "string" else f"write {_TYPES[expected]}"


def _missing_hint(key: str, path: FieldPath) -> str:
    if not path:
        return {"version": "begin the file with `version: 1`", "jobs": "list the jobs under `jobs:`"}[key]
    return f"add `{key}:` to this job, or to `defaults` for all jobs"


def _unknown_key(key: str, known: list[str], path: FieldPath) -> tuple[str, str]:
    folded = key.lower().replace("-", "_")
    if folded in _FOREIGN:
        return _FOREIGN[folded]
    message = f"the key {quote(key)} is not known here"
    hint = suggest(folded, known) or _home(folded, path) or f"known here: {', '.join(known)}"
    return message, hint


def suggest(text: str, choices: Iterable[str]) -> str:
    """A hint: a question that names the choice that was probably meant; empty if none is near."""
    meant = closest_matches(text, choices)
    return f"did you mean {meant[0]}?" if meant else ""


def _home(key: str, path: FieldPath) -> str:
    """Where a key belongs that stands at a wrong place; empty if nowhere."""
    properties = _manifest_schema()["properties"]
    if key in properties["submit"]["properties"]:
        return "it belongs under `submit`"
    if key in properties["jobs"]["items"]["properties"]:
        return "it belongs to a job" if key == "name" else "it belongs to a job, or under `defaults`"
    return "it belongs at the top level" if key in properties and path else ""


def _range_words(schema: dict[str, Any]) -> str:
    low = f"above {schema['exclusiveMinimum']}," if "exclusiveMinimum" in schema else f"from {schema['minimum']}"
    return f"{low} up to {schema['maximum']}"


def _pattern_hint(error: Any) -> str:
    value, pattern = error.instance, error.validator_value
    if value != value.strip() and re.search(pattern, value.strip()):
        return "remove the space or line break at its end"
    odd = (character for character in value if re.search(pattern, "aa") and not re.search(pattern, f"a{character}a"))
    return next((f"remove the {_character(character)}" for character in odd), f"such as {_examples(error.schema)}")


def _examples(schema: dict[str, Any]) -> str:
    return ", ".join(map(str, schema["examples"]))


def _character(character: str) -> str:
    names = {" ": "space", "/": "slash", "\n": "line break", "\r": "line break", "\t": "tab"}
    return names.get(character, f"character U+{ord(character):04X}")
