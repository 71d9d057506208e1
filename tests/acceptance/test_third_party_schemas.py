"""The JSON Schemas by a validator that others wrote in another language (jsonschema-rs): it judges as ours does."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from support import past, records
from support.schemas import check_results
from support.shell import Shell

from runner.core.errors import ManifestError
from runner.core.models import RunRecord
from runner.manifest import loader, schema
from runner.manifest.yaml import reader
from runner.runs import results_file, summary

rust: Any = pytest.importorskip("jsonschema_rs", reason="needs jsonschema-rs")

CASES = Path(__file__).parents[1] / "cases" / "manifest"
MANIFEST: dict[str, Any] = json.loads(schema.schema_text("manifest"))
THEIRS: Any = rust.validator_for(MANIFEST)
OURS = jsonschema.Draft7Validator(MANIFEST)
RESULTS: Any = rust.validator_for(json.loads(schema.schema_text("results")))

OTHERS: tuple[Any, ...] = (None, True, 0, -1, 1.0, 1.5, 65, 10**30, "", " ", "a", "a\n", "a/b", "x" * 201, [], {}, [1])


def plain(value: Any) -> bool:
    """Whether JSON can hold it: no date, and no number beyond all bounds."""
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def without_halves(value: Any) -> Any:
    """The value without lone surrogates, which a string of Rust cannot hold."""
    if isinstance(value, dict):
        return {without_halves(key): without_halves(part) for key, part in value.items()}
    if isinstance(value, list):
        return list(map(without_halves, value))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def values(folder: str) -> Iterator[tuple[Path, Any]]:
    for path in sorted((CASES / folder).glob("*.yaml")):
        try:
            value = reader.read(path.read_bytes(), path.name).value
        except ManifestError:
            continue
        if plain(value):
            yield path, value


def changed(value: Any) -> Iterator[Any]:
    """The value with each of its parts taken away, or another in its place."""
    if not isinstance(value, dict | list):
        return
    for at in value if isinstance(value, dict) else range(len(value)):
        yield from (_with(value, at, other) for other in OTHERS)
        yield from (_with(value, at, inner) for inner in changed(value[at]))
        if isinstance(value, dict):
            yield {key: part for key, part in value.items() if key != at}
            yield {**value, f"{at}x": value[at]}


def _with(value: Any, at: Any, part: Any) -> Any:
    return {**value, at: part} if isinstance(value, dict) else [*value[:at], part, *value[at + 1 :]]


def test_each_good_case_is_valid_to_them() -> None:
    good = list(values("good"))
    assert len(good) > 20
    for path, value in good:
        assert THEIRS.is_valid(value), path


def test_each_bad_case_is_judged_by_them_as_by_ours() -> None:
    judged = [(path, THEIRS.is_valid(value), OURS.is_valid(value)) for path, value in values("bad")]
    assert [path for path, theirs, ours in judged if theirs != ours] == []
    assert sum(not theirs for _, theirs, _ in judged) > 40


def test_a_manifest_with_anything_else_in_it_is_judged_by_them_as_by_the_program() -> None:
    """Of what the schema alone can say: all that is invalid to them has a problem, and the valid has none of ours."""
    value = reader.read((CASES / "good" / "design.yaml").read_bytes(), "m.yaml").value
    value["jobs"] = value["jobs"][:2]
    for other in changed(value):
        valid = THEIRS.is_valid(other)
        found = loader.check(json.dumps(other).encode(), "m.yaml").problems
        assert valid or found, other
        assert not valid or OURS.is_valid(other), other


def test_the_results_of_a_real_run_are_valid_to_them(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.manifest(("a", "w-1", "p-1"), ("b", "w-2", "p-1"), ("c", "w-1", "p-2"))
    assert shell.call("run", "nightly.yaml", "--sandbox", "--only", "[ab]").code == 0
    written = check_results(tmp_path / "nightly.sandbox.results.json")
    RESULTS.validate(written)
    assert [len(written[part]) for part in ("created", "skipped")] == [2, 1]


def test_the_results_of_every_outcome_are_valid_to_them(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    jobs = [past.job(name, project_id=f"p-{name}") for name in "abcd"]
    outcomes = (past.made("j-1"), past.refused(), past.lost("x"), None)
    with past.open_ledger(tmp_path / "ledger.db") as ledger:
        run = past.begin(ledger, "r-1", jobs, end="stopped")
        for job, outcome in zip(jobs, outcomes, strict=True):
            past.send(ledger, run, job, outcome)
    shown = json.loads(shell.call("show", "--ledger", "ledger.db", "--format", "json").out)
    RESULTS.validate(shown)
    assert [len(shown[part]) for part in ("created", "errors")] == [1, 3]


@settings(max_examples=30)
@given(records.records)
def test_the_results_of_any_record_are_valid_to_them(record: RunRecord) -> None:
    RESULTS.validate(without_halves(json.loads("".join(results_file.serialize(summary.summarize(record))))))
