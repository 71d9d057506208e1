"""The JSON Schemas in another validator, jsonschema-rs: it accepts and rejects the same documents."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from support import ledger_history, records
from support.schemas import check_results
from support.shell import Shell

from runner.core.errors import ManifestError
from runner.core.models import RunRecord
from runner.manifest import loader, schema_files
from runner.manifest.yaml import reader
from runner.runs import results_file, summary

rust: Any = pytest.importorskip("jsonschema_rs", reason="needs jsonschema-rs")

CASES = Path(__file__).parents[1] / "cases" / "manifest"
MANIFEST: dict[str, Any] = json.loads(schema_files.schema_text("manifest"))
RUST: Any = rust.validator_for(MANIFEST)
PYTHON = jsonschema.Draft7Validator(MANIFEST)
RESULTS: Any = rust.validator_for(json.loads(schema_files.schema_text("results")))

OTHERS: tuple[Any, ...] = (None, True, 0, -1, 1.0, 1.5, 65, 10**30, "", " ", "a", "a\n", "a/b", "x" * 201, [], {}, [1])


def is_json(value: Any) -> bool:
    """Whether JSON can represent the value: no date, and no infinite number."""
    if isinstance(value, dict):
        return all(map(is_json, value.values()))
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def without_lone_surrogates(value: Any) -> Any:
    """The value without lone surrogates, which Rust strings cannot contain."""
    if isinstance(value, dict):
        return {without_lone_surrogates(key): without_lone_surrogates(part) for key, part in value.items()}
    if isinstance(value, list):
        return list(map(without_lone_surrogates, value))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def case_values(directory: str) -> Iterator[tuple[Path, Any]]:
    for path in sorted((CASES / directory).glob("*.yaml")):
        try:
            value = reader.read(path.read_bytes(), path.name).value
        except ManifestError:
            continue
        if is_json(value):
            yield path, value


def mutations(value: Any) -> Iterator[Any]:
    """The value with each of its parts removed, renamed or replaced."""
    if not isinstance(value, dict | list):
        return
    for key in value if isinstance(value, dict) else range(len(value)):
        yield from (_with(value, key, other) for other in OTHERS)
        yield from (_with(value, key, inner) for inner in mutations(value[key]))
        if isinstance(value, dict):
            yield {name: part for name, part in value.items() if name != key}
            yield {**value, f"{key}x": value[key]}


def _with(value: Any, key: Any, part: Any) -> Any:
    return {**value, key: part} if isinstance(value, dict) else [*value[:key], part, *value[key + 1 :]]


def test_good_cases_are_valid() -> None:
    good = list(case_values("good"))
    assert len(good) > 20
    for path, value in good:
        assert RUST.is_valid(value), path


def test_bad_cases_have_the_same_result() -> None:
    results = [(path, RUST.is_valid(value), PYTHON.is_valid(value)) for path, value in case_values("bad")]
    assert [path for path, rust_valid, python_valid in results if rust_valid != python_valid] == []
    assert sum(not rust_valid for _, rust_valid, _ in results) > 40


def test_mutated_manifests_have_the_same_result() -> None:
    """Manifests that are invalid there have a problem here, and valid ones are valid by the schema here."""
    value = reader.read((CASES / "good" / "design.yaml").read_bytes(), "m.yaml").value
    value["jobs"] = value["jobs"][:2]
    for mutation in mutations(value):
        is_valid = RUST.is_valid(mutation)
        problems = loader.check(json.dumps(mutation).encode(), "m.yaml").problems
        assert is_valid or problems, mutation
        assert not is_valid or PYTHON.is_valid(mutation), mutation


def test_results_of_a_run_are_valid(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.manifest(("a", "w-1", "p-1"), ("b", "w-2", "p-1"), ("c", "w-1", "p-2"))
    assert shell.call("run", "nightly.yaml", "--sandbox", "--only", "[ab]").code == 0
    written = check_results(tmp_path / "nightly.sandbox.results.json")
    RESULTS.validate(written)
    assert [len(written[part]) for part in ("created", "skipped")] == [2, 1]


def test_results_with_every_outcome_are_valid(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    jobs = [ledger_history.job(name, project_id=f"p-{name}") for name in "abcd"]
    outcomes = (ledger_history.created("j-1"), ledger_history.not_created(), ledger_history.in_doubt("x"), None)
    with ledger_history.open_ledger(tmp_path / "ledger.db") as ledger:
        run = ledger_history.start_run(ledger, "r-1", jobs, end="stopped")
        for job, outcome in zip(jobs, outcomes, strict=True):
            ledger_history.send(ledger, run, job, outcome)
    shown = json.loads(shell.call("show", "--ledger", "ledger.db", "--format", "json").out)
    RESULTS.validate(shown)
    assert [len(shown[part]) for part in ("created", "errors")] == [1, 3]


@settings(max_examples=30)
@given(records.records)
def test_results_of_any_record_are_valid(record: RunRecord) -> None:
    RESULTS.validate(without_lone_surrogates(json.loads("".join(results_file.serialize(summary.summarize(record))))))
