"""The loader: each file below `tests/cases/manifest` is a case, with the expected output of `validate` beside it."""

from __future__ import annotations

import gc
import io
import json
import os
import threading
import time
import zoneinfo
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.cli import problem_format
from runner.core.errors import ManifestError, UsageError
from runner.core.models import Job, LimitOverrides, Manifest
from runner.manifest import loader
from runner.manifest.loader import CheckResult

CASES = Path(__file__).parents[2] / "cases" / "manifest"
BAD = sorted((CASES / "bad").glob("*.yaml"))
GOOD = sorted((CASES / "good").glob("*.yaml"))
PARSERS = [True, False] if yaml.__with_libyaml__ else [False]
MINIMAL = b"version: 1\njobs:\n  - workflow_id: ndvi\n    project_id: agri\n"


def validate_output(result: CheckResult, name: str) -> str:
    """What `validate` prints about a file."""
    lines = [f"warning: {problem_format.format_line(warning)}" for warning in result.warnings]
    lines += [problem_format.format_line(problem) for problem in result.problems]
    if result.manifest is not None:
        lines.append(problem_format.format_valid(name, result.manifest))
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("libyaml", PARSERS, ids=lambda libyaml: "libyaml" if libyaml else "python")
@pytest.mark.parametrize("case", [*BAD, *GOOD], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case_has_the_expected_output(case: Path, libyaml: bool) -> None:
    result = loader.check(case.read_bytes(), case.name, libyaml=libyaml)
    assert validate_output(result, case.name) == case.with_suffix(".expected").read_text(encoding="utf-8")
    assert (result.manifest is None) == (case.parent.name == "bad")


def test_every_case_has_an_expected_output() -> None:
    names = {path.stem for path in (*BAD, *GOOD)}
    assert len(names) == len(BAD) + len(GOOD) > 150
    assert {path.suffix for path in CASES.rglob("*.*")} == {".yaml", ".expected"}
    assert {path.stem for path in CASES.rglob("*.expected")} == names


@pytest.mark.parametrize("case", BAD, ids=lambda path: path.stem)
def test_every_problem_has_a_hint_and_is_printable(case: Path) -> None:
    for problem in loader.check(case.read_bytes(), case.name).problems:
        assert problem.hint
        assert problem_format.format_line(problem).isprintable()
        assert "not-to-be-shown" not in problem_format.format_line(problem)


@pytest.mark.parametrize("libyaml", PARSERS)
def test_complete_manifest(libyaml: bool) -> None:
    data = (CASES / "good" / "design.yaml").read_bytes()
    agri, ndvi = "1c6d7a52-0f3e-4b8a-9d21-5e7f30a4c611", "9f2a4c1e-7b60-4d35-8a1f-2c9be05d7713"
    coast, stress = "0d9eb3f8-52c1-47a6-8e74-b1f6029ad35c", "77b0e8d4-13a9-4f62-b5c7-90d16ea42f58"
    assert loader.check(data, "some/design.yaml", libyaml=libyaml).manifest == Manifest(
        name="nightly-ndvi",
        path="some/design.yaml",
        sha256="f8b5e1288a046de0d2f7e0d2a9617967d5b1e68e9b956744b76774ff349ce8d2",
        jobs=(
            Job(f"{ndvi}/{agri}", ndvi, agri, {"team": "agri", "region": "north"}, enabled=True, line=17),
            Job("field-a", stress, coast, {"team": "coast", "region": "north"}, enabled=False, line=18),
        ),
        once_per="day",
        timezone="Asia/Kolkata",
        max_cost=500,
        submit=LimitOverrides(concurrency=8, rate="5/s", attempts=5, timeout=30.0, stop_after=10),
        has_explicit_name=True,
    )


def test_defaults() -> None:
    parsed = loader.parse(MINIMAL, "some/nightly.yaml")
    job = Job("ndvi/agri", "ndvi", "agri", {}, enabled=True, line=3)
    assert parsed == Manifest("nightly", "some/nightly.yaml", parsed.sha256, (job,))
    assert parsed.submit == LimitOverrides()


def test_numbers_have_the_types_of_the_model() -> None:
    parsed = loader.parse(MINIMAL + b"max_cost: 5.0\nsubmit: {concurrency: 8.0, timeout: 30}\n", "m.yaml")
    assert [type(parsed.max_cost), type(parsed.submit.concurrency), type(parsed.submit.timeout)] == [int, int, float]


def test_jobs_with_aliased_labels_do_not_share_a_dict() -> None:
    first, second, _ = loader.parse((CASES / "good" / "anchors.yaml").read_bytes(), "m.yaml").jobs
    assert first.labels == second.labels == {"team": "agri"}
    assert first.labels is not second.labels


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("nightly.yaml", "nightly"),
        ("a b/nightly.prod.yaml", "nightly.prod"),
        ("nightly", "nightly"),
        (".nightly.yaml", ".nightly"),
    ],
)
def test_default_name_is_the_file_name_without_extension(path: str, name: str) -> None:
    assert loader.parse(MINIMAL, path).name == name


@pytest.mark.parametrize(
    "path", ["-", "/dev/stdin", "/dev/fd/63", "/proc/self/fd/11", "a\nb.yaml", " .yaml", "n" * 201]
)
def test_name_is_required_if_the_file_name_gives_none(path: str) -> None:
    (problem,) = loader.check(MINIMAL, path).problems
    assert (problem.line, problem.column, problem.field) == (1, 1, "name")
    assert problem_format.format_line(problem).isprintable()
    assert loader.parse(MINIMAL + b"name: nightly\n", path).name == "nightly"


def test_standard_input_is_shown_as_stdin() -> None:
    assert loader.check(b"", "-").problems[0].file == "<stdin>"


def test_parse_raises_all_problems_sorted_by_position() -> None:
    with pytest.raises(ManifestError) as caught:
        loader.parse(b"jobs: []\nname: 1\n", "m.yaml")
    assert [(problem.line, problem.field) for problem in caught.value.problems] == [(1, ""), (1, "jobs"), (2, "name")]
    assert str(caught.value) == "3 problems in the manifest; nothing was sent"


def test_warnings_and_problems_are_reported_together() -> None:
    result = loader.check(b"once_per: day\n" + MINIMAL + b"max_cost: -1\n", "m.yaml")
    assert [len(result.warnings), len(result.problems)] == [1, 1]


def test_missing_time_zone_data_has_its_own_hint() -> None:
    try:
        zoneinfo.reset_tzpath(to=())
        zoneinfo.ZoneInfo.clear_cache()
        if zoneinfo.available_timezones():
            pytest.skip("the package tzdata is installed")
        (problem,) = loader.check(MINIMAL + b"timezone: Europe/Berlin\n", "m.yaml").problems
    finally:
        zoneinfo.reset_tzpath()
    assert problem.hint == "install the package tzdata: this system has no time zone data"


# Reading


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_bytes(MINIMAL)
    assert loader.load(str(path), io.BytesIO()).name == "nightly"


def test_dash_reads_standard_input() -> None:
    assert loader.read_source("-", io.BytesIO(b"version: 1")) == b"version: 1"


@pytest.mark.timeout(20)
def test_pipe_is_read_completely(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(MINIMAL * 5_000,))
    writer.start()
    assert loader.read_source(str(pipe), io.BytesIO()) == MINIMAL * 5_000
    writer.join()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.yaml", "none.yaml: no such file"),
        ("none/none.yaml", "none/none.yaml: no such file"),
        ("", ": no such file"),
        (".", ".: is a directory"),
        ("a\0b", "a\\x00b: cannot be read: invalid file name"),
        ("n" * 5_000, f"{'n' * 5_000}: cannot be read: File name too long"),
        ("file/below.yaml", "file/below.yaml: cannot be read: Not a directory"),
    ],
)
def test_unreadable_file(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        loader.read_source(path, io.BytesIO())
    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.touch(mode=0)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        loader.read_source(str(path), io.BytesIO())


def test_standard_input_is_a_directory() -> None:
    class Directory(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise IsADirectoryError(21, "Is a directory", size)

    with pytest.raises(UsageError, match="<stdin>: is a directory"):
        loader.read_source("-", Directory())


def test_large_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(UsageError, match="larger than 64 MiB"):
        loader.read_source(str(path), io.BytesIO())


def test_endless_input_is_read_only_up_to_the_limit() -> None:
    sizes: list[int | None] = []

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size)
            return bytes(size or 0)

    with pytest.raises(UsageError, match="larger than 64 MiB"):
        loader.read_source("-", Endless())
    assert sizes == [loader.MAX_BYTES + 1]


# Limits

HOSTILE = {
    "brackets": (b"[" * 1_000_000, "F:1:21: lists and mappings are nested more than 20 levels deep"),
    "brackets-on-lines": (b"[\n" * 500_000, "F:21:1: lists and mappings are nested more than 20 levels deep"),
    "braces": (b"{a: " * 250_000, "F:1:81: lists and mappings are nested more than 20 levels deep"),
    "entries": (b"- " * 500_000, "F:1:41: lists and mappings are nested more than 20 levels deep"),
    "question-marks": (b"? " * 500_000, "F:1:41: lists and mappings are nested more than 20 levels deep"),
    "indentation": (
        b"".join(b" " * depth + b"a:\n" for depth in range(1_000)),
        "F:21:21: lists and mappings are nested more than 20 levels deep",
    ),
    "anchors": (b"&a " * 100_000, "F:1:4: "),
    "quote": (b'name: "' + b"x\n" * 50_000, "F:1:7: missing closing quote"),
    "digits": (b"version: " + b"9" * 9_000, "F:1:1: missing required key `jobs`"),
    "base-60": (b"version: 1" + b":1" * 4_000, "F:1:1: missing required key `jobs`"),
    "exponent": (b"version: 1e999999999", "F:1:1: missing required key `jobs`"),
    "duplicates": (b"a: 1\n" * 20_000, "F:1:1: missing required key `jobs`"),
    "documents": (b"--- a\n" * 50_000, "F:1:5: expected a mapping, got the string `a`"),
    "tags": (b"a: [" + b"!t x, " * 10_000 + b"]", "F:1:1: missing required key `jobs`"),
    "time-zone": (
        MINIMAL + b"timezone: " + b"a/" * 4_000,
        "F:5:11: timezone: must be at most 100 characters, got 8,000",
    ),
}


@pytest.mark.parametrize("libyaml", PARSERS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_rejected_quickly(name: str, libyaml: bool) -> None:
    data, start = HOSTILE[name]
    started = time.process_time()
    result = loader.check(data, "F", libyaml=libyaml)
    assert problem_format.format_line(result.problems[0]).startswith(start)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "entry",
    [
        b"- workflow_idx: 12\n",
        b"- {workflow_id: a, project_id: b}\n",
        b"- {workflow_id: 1e5, project_id: 07, labels: {on: 1}}\n",
        b"- {a: 1, a: 2}\n",
    ],
)
def test_thousands_of_problems_are_reported_quickly(entry: bytes) -> None:
    started = time.process_time()
    result = loader.check(b"version: 1\njobs:\n" + entry * 3_000, "m.yaml")
    assert {problem.line for problem in result.problems} >= set(range(4, 3_003))
    assert time.process_time() - started < 5


def test_ten_thousand_jobs_are_read_quickly() -> None:
    entries = b"".join(b"- {name: job-%d, workflow_id: ndvi, project_id: agri}\n" % number for number in range(10_000))
    started = time.process_time()
    assert len(loader.parse(b"version: 1\njobs:\n" + entries, "m.yaml").jobs) == 10_000
    assert time.process_time() - started < (5 if yaml.__with_libyaml__ else 30)


@pytest.mark.parametrize("data", [MINIMAL, b"[" * 30, b"\xff", b""])
@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collector_state_is_restored(data: bytes, enabled: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        loader.check(data, "m.yaml")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()


# Properties

SEEDS = [path.read_bytes().decode("utf-8", "replace") for path in (*BAD, *GOOD) if path.stat().st_size < 2_000]
PIECES = [
    *"\n\t -?:,[]{}#&*!|>'\"%@`\\~<=.\r\0\x85\u2028\ufeffé🙂ab1",
    *("- ", "? ", ": ", ":\n", "|\n", "|2\n", ">+\n", "---\n", "...\n", "&a ", "*a ", "!t ", "!!str ", " #", "\n  "),
    *(
        "a: b",
        "\\\n",
        "%YAML 1.1\n---\n",
        "%TAG ! x:\n",
        "\r\n",
        "\\x41",
        "\\ud83d\\ude00",
        "\\U00110000",
        '"a"',
        "'b'",
    ),
    *("0x1F", "1e5", "12:30:45", "on", "2026-07-01", "<<: *a\n", "{{ x }}", "#\t", "'\t'", "? a\n: b\n", "- name: q\n"),
    *("[]", "[a, b: c, ]", "{a, b: c, }", "a: |\n  x\n\ty\n"),
]


@st.composite
def near_yaml(draw: st.DrawFn) -> bytes:
    """A case with a few pieces inserted and removed, or pieces alone."""
    text = draw(st.sampled_from(["", "", *SEEDS]))
    for _ in range(draw(st.integers(1, 8))):
        offset = draw(st.integers(0, len(text)))
        removed = draw(st.integers(0, 3))
        text = text[:offset] + draw(st.sampled_from(PIECES)) + text[offset + removed :]
    return text.encode()


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), near_yaml()), st.sampled_from(["jobs.yaml", "-"]))
def test_any_bytes_are_checked_quickly_and_without_exceptions(data: bytes, path: str) -> None:
    started = time.process_time()
    result = loader.check(data, path)
    assert (result.manifest is None) == bool(result.problems)
    assert time.process_time() - started < 1


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="needs libyaml to compare with")
@settings(max_examples=500)
@given(near_yaml())
@example(b"[? ]]")
@example(b"- {? }")
@example(b"{a:\n}")
@example(b"{a? b: c}")
@example(b"a: >#\n  b")
@example(b"a: !\n")
@example(b"{a: !b, c: d}")
@example(b"{version:\n}")
@example(b"a:\tb")
@example(b"# c\r\ta")
def test_result_is_the_same_without_libyaml(data: bytes) -> None:
    assert loader.check(data, "m.yaml", libyaml=True) == loader.check(data, "m.yaml", libyaml=False)


IDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=20).filter(
    lambda text: text not in (".", "..")
)
NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
JOBS = st.fixed_dictionaries(
    {"workflow_id": IDS, "project_id": IDS},
    optional={"labels": st.dictionaries(NAMES, NAMES, max_size=3), "enabled": st.booleans()},
)


@given(st.lists(JOBS, min_size=1, max_size=5), st.booleans(), st.booleans())
def test_round_trip(entries: list[dict[str, object]], block: bool, ascii_only: bool) -> None:
    named = [{"name": f"job-{number}", **entry} for number, entry in enumerate(entries)]
    separator = "\n    " if block else ", "
    fields = [[f"{key}: {json.dumps(job[key], ensure_ascii=ascii_only)}" for key in job] for job in named]
    jobs = [separator.join(lines) if block else f"{{{separator.join(lines)}}}" for lines in fields]
    data = "version: 1\njobs:\n" + "".join(f"  - {job}\n" for job in jobs)
    read = loader.parse(data.encode(), "m.yaml").jobs
    assert [
        {"name": job.name, "workflow_id": job.workflow_id, "project_id": job.project_id, "labels": job.labels}
        for job in read
    ] == [{"labels": {}} | {key: value for key, value in entry.items() if key != "enabled"} for entry in named]
    assert [job.enabled for job in read] == [entry.get("enabled", True) for entry in named]
