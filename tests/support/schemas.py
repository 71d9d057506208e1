"""Checks results files against the packaged schema, and their counts against their lists."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

_SCHEMA = Path(__file__).parents[2] / "schemas" / "results.schema.json"


def check_results(results: Path | str | dict[str, Any]) -> dict[str, Any]:
    """Fail unless `results` (a path or the parsed document) is a valid results file; return the document."""
    document = results if isinstance(results, dict) else _load(Path(results))
    _validator().validate(document)
    _check_counts(document)
    return document


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    schema = _load(_SCHEMA)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def _load(path: Path) -> dict[str, Any]:
    return loads_strictly(path.read_text(encoding="utf-8"))


def loads_strictly(text: str) -> dict[str, Any]:
    """Parse JSON strictly: NaN and Infinity are errors."""
    document: dict[str, Any] = json.loads(text, parse_constant=_reject_constant)
    return document


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def _check_counts(document: dict[str, Any]) -> None:
    summary, errors = document["summary"], document["errors"]
    earlier = [created for created in document["created"] if created["run_id"] != document["run"]["id"]]
    assert summary["created"] == len(document["created"])
    assert summary["not_created"] == sum(error["outcome"] == "not_created" for error in errors)
    assert summary["in_doubt"] == sum(error["outcome"] == "in_doubt" for error in errors)
    assert summary["skipped"] == len(document["skipped"])
    assert summary["created_earlier"] == len(earlier)
