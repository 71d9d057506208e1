"""Regressions that the fuzzers found in the manifest loader, and limits on its time and memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from fuzz import manifests

from runner.manifest import loader

HEAD = "version: 1\ndefaults: {workflow_id: w, project_id: p}\njobs:\n"
MAX_MEMORY = 48 * 2**20  # bytes


def aliased(jobs: int, labels: str) -> bytes:
    """A job with labels, and this many jobs that repeat them by an alias."""
    repeats = "".join(f"- {{name: n{number}, labels: *l}}\n" for number in range(jobs))
    return f"{HEAD}- {{name: n, labels: &l {{{labels}}}}}\n{repeats}".encode()


def flow_mapping(count: int, value: str) -> str:
    return ", ".join(f"k{number}: {value}" for number in range(count))


def repeated(size: int, character: str) -> bytes:
    """A long id, and jobs that repeat it by an alias."""
    repeats = "".join(f"- {{name: n{number}, workflow_id: *i}}\n" for number in range(size // 35))
    return f"{HEAD}- {{workflow_id: &i {character * size}}}\n{repeats}".encode()


LARGE = {
    "invalid labels": aliased(1_500, flow_mapping(60, "1")),
    "valid labels": aliased(1_000, flow_mapping(600, "x")),
    "jobs": f"{HEAD}- &a {{{flow_mapping(60, '1')}}}\n{'- *a' + chr(10)}".encode() + b"- *a\n" * 1_500,
    "a long id": repeated(20_000, "a"),
    "a long id with slashes": repeated(20_000, "/"),
    "a long text": b"version: '" + b"x" * 1_000_000 + b"'",
    "tokens": b"version: [" + b"a," * 2_000,
    "comments": b"#\n" * 20_000,
    "line breaks in quotes": b'name: "' + b"\n" * 20_000 + b'"',
}


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE)
def test_time_and_memory_are_bounded_by_the_size_of_the_file(data: bytes) -> None:
    """What aliases repeat is checked once: a few kilobytes of them used to take minutes, and gigabytes."""
    started = time.process_time()
    result = loader.check(data, "m.yaml")
    assert time.process_time() - started < 1
    assert len(result.problems) < 12_000
    tracemalloc.start()
    try:
        loader.check(data, "m.yaml")
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY
    finally:
        tracemalloc.stop()


def test_problems_behind_aliases_are_reported_once_and_missing_keys_for_each_job() -> None:
    data = b"version: 1\njobs:\n- &a {name: 1, labels: &l {k: 2}}\n- *a\n- {labels: *l, workflow_id: w}\n"
    assert [(problem.line, problem.column, problem.field) for problem in loader.check(data, "m.yaml").problems] == [
        (3, 3, "jobs[0]"),
        (3, 3, "jobs[0]"),
        (3, 13, "jobs[0].name"),
        (3, 31, "jobs[0].labels.k"),
        (4, 3, "jobs[1]"),
        (4, 3, "jobs[1]"),
        (5, 3, "jobs[2]"),
    ]


REGRESSIONS = [
    pytest.param(b"version: " + b"9" * 400 + b":1.", id="base 60 beyond a float"),
    pytest.param(b"version: " + b"9" * 5_000 + b":1.", id="base 60 with too many digits for int"),
    pytest.param(b"%YAML 1.1#\n---\nversion: 1\n", id="a directive that libyaml accepts"),
    pytest.param(b"{?version: 1}", id="a question mark before a key"),
    pytest.param(b"version: &a:b 1", id="a colon in an anchor"),
    pytest.param(b"version: &a b:\n", id="an anchor before a key"),
]


@pytest.mark.parametrize("data", REGRESSIONS)
def test_regressions_have_problems_with_and_without_libyaml(data: bytes) -> None:
    manifests.check(data)
    assert loader.check(data, "m.yaml").problems


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("{?workflow_id: a, project_id: b}", "ambiguous `?`: YAML parsers disagree on whether it belongs to the key"),
        ("{workflow_id: a, project_id: &p:q b}", "ambiguous anchor `&p`: YAML parsers disagree on where its name ends"),
    ],
)
def test_ambiguous_yaml_is_a_problem(job: str, message: str) -> None:
    problems = loader.check(f"version: 1\njobs:\n- {job}\n".encode(), "m.yaml").problems
    assert problems[0].message == message


def test_empty_rate() -> None:
    data = b'version: 1\nsubmit: {rate: ""}\njobs: [{workflow_id: w, project_id: p}]\n'
    assert [problem.message for problem in loader.check(data, "m.yaml").problems] == ["must not be empty"]
