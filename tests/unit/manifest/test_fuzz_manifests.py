"""What the fuzzers and the YAML test suite found in the manifest's loader, and how much memory any file may take."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from fuzz import manifests

from runner.manifest import loader

HEAD = "version: 1\ndefaults: {workflow_id: w, project_id: p}\njobs:\n"
MOST = 48 * 2**20  # bytes


def aliased(jobs: int, labels: str) -> bytes:
    """A job's labels, and so many jobs that have them too."""
    more = "".join(f"- {{name: n{number}, labels: *l}}\n" for number in range(jobs))
    return f"{HEAD}- {{name: n, labels: &l {{{labels}}}}}\n{more}".encode()


def many(count: int, value: str) -> str:
    return ", ".join(f"k{number}: {value}" for number in range(count))


def repeated(size: int, character: str) -> bytes:
    """A long id, and jobs that have it too."""
    more = "".join(f"- {{name: n{number}, workflow_id: *i}}\n" for number in range(size // 35))
    return f"{HEAD}- {{workflow_id: &i {character * size}}}\n{more}".encode()


LARGE = {
    "invalid labels": aliased(1_500, many(60, "1")),
    "valid labels": aliased(1_000, many(600, "x")),
    "jobs": f"{HEAD}- &a {{{many(60, '1')}}}\n{'- *a' + chr(10)}".encode() + b"- *a\n" * 1_500,
    "a long id": repeated(20_000, "a"),
    "a long id with slashes": repeated(20_000, "/"),
    "a long text": b"version: '" + b"x" * 1_000_000 + b"'",
    "tokens": b"version: [" + b"a," * 2_000,
    "comments": b"#\n" * 20_000,
    "line breaks in quotes": b'name: "' + b"\n" * 20_000 + b'"',
}


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE)
def test_a_file_takes_no_more_time_and_memory_than_its_size(data: bytes) -> None:
    """What aliases repeat is looked at once: some kilobytes of them took minutes, and gigabytes."""
    began = time.process_time()
    checked = loader.check(data, "m.yaml")
    assert time.process_time() - began < 1
    assert len(checked.problems) < 12_000
    tracemalloc.start()
    try:
        loader.check(data, "m.yaml")
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


def test_what_an_alias_repeats_is_told_once_and_what_is_missing_of_each() -> None:
    data = b"version: 1\njobs:\n- &a {name: 1, labels: &l {k: 2}}\n- *a\n- {labels: *l, workflow_id: w}\n"
    assert [(one.line, one.column, one.field) for one in loader.check(data, "m.yaml").problems] == [
        (3, 3, "jobs[0]"),
        (3, 3, "jobs[0]"),
        (3, 13, "jobs[0].name"),
        (3, 31, "jobs[0].labels.k"),
        (4, 3, "jobs[1]"),
        (4, 3, "jobs[1]"),
        (5, 3, "jobs[2]"),
    ]


FOUND = [
    pytest.param(b"version: " + b"9" * 400 + b":1.", id="base 60 beyond a float"),
    pytest.param(b"version: " + b"9" * 5_000 + b":1.", id="base 60 beyond Python's most digits"),
    pytest.param(b"%YAML 1.1#\n---\nversion: 1\n", id="a directive that libyaml takes"),
    pytest.param(b"{?version: 1}", id="a question mark before a key"),
    pytest.param(b"version: &a:b 1", id="a colon in an anchor"),
    pytest.param(b"version: &a b:\n", id="an anchor before a key"),
]


@pytest.mark.parametrize("data", FOUND)
def test_what_was_found_is_told_in_words_with_and_without_libyaml(data: bytes) -> None:
    manifests.check(data)
    assert loader.check(data, "m.yaml").problems


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("{?workflow_id: a, project_id: b}", "readers of YAML differ in whether this `?` belongs to the key"),
        ("{workflow_id: a, project_id: &p:q b}", "readers of YAML differ in where the name of the anchor `&p` ends"),
    ],
)
def test_where_readers_of_yaml_differ_is_a_problem(job: str, words: str) -> None:
    found = loader.check(f"version: 1\njobs:\n- {job}\n".encode(), "m.yaml").problems
    assert found[0].message == words


def test_an_empty_rate_is_a_problem() -> None:
    data = b'version: 1\nsubmit: {rate: ""}\njobs: [{workflow_id: w, project_id: p}]\n'
    assert [one.message for one in loader.check(data, "m.yaml").problems] == ["this is empty"]
