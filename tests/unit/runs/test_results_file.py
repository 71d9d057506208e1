"""The results file: its fields, the API's objects in it, and that it is written completely or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import tracemalloc
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from support.records import RUN, SENT, created, entry, in_doubt, not_created, record, records
from support.schemas import check_results, loads_strictly
from support.shell import environment_without_coverage

from runner.client.job import is_embeddable, parse_job
from runner.core.errors import RefusedError
from runner.core.models import Created, Entry, Job, Outcome, RunRecord, Skipped
from runner.runs import results_file, summary

LITERAL = """\
{
  "version": 1,
  "run": {
    "id": "run-2",
    "key": "day:2026-10-20",
    "state": "completed",
    "started_at": "2026-10-20T01:00:00.000Z",
    "finished_at": "2026-10-20T01:02:00.000Z",
    "runner": "pixxel-runner 0.1.0",
    "manifest": {
      "name": "nightly",
      "path": "nightly.yaml",
      "sha256": "abababababababababababababababababababababababababababababababab",
      "git_commit": null
    },
    "base_url": "https://api.pixxel.space",
    "settings": {
      "concurrency": 8,
      "rate": null
    }
  },
  "summary": {
    "created": 2,
    "not_created": 1,
    "in_doubt": 1,
    "skipped": 1,
    "created_earlier": 1,
    "cost": 12,
    "estimate": null,
    "projects": [
      {
        "project_id": "p-1",
        "created": 2,
        "cost": 12,
        "estimate": null
      }
    ]
  },
  "created": [
    {
      "name": "a",
      "workflow_id": "w-a",
      "project_id": "p-1",
      "labels": {"team": "agri"},
      "run_id": "run-2",
      "attempts": 1,
      "sent_at": "2026-10-20T01:00:03.120Z",
      "recovered": false,
      "assigned": true,
      "estimate": null,
      "seen_at": null,
      "job": {"id": "j-1", "cost": 12}
    },
    {
      "name": "e",
      "workflow_id": "w-e",
      "project_id": "p-1",
      "labels": {},
      "run_id": "run-1",
      "attempts": 1,
      "sent_at": "2026-10-20T01:00:03.120Z",
      "recovered": false,
      "assigned": true,
      "estimate": null,
      "seen_at": null,
      "job": {"id": "j-2"}
    }
  ],
  "errors": [
    {
      "name": "b",
      "workflow_id": "w-b",
      "project_id": "p-1",
      "labels": {},
      "run_id": "run-2",
      "outcome": "not_created",
      "kind": "rejected",
      "message": "no such workflow",
      "http_status": 404,
      "api_error": {"code": 5},
      "request_id": "q-1",
      "date": null,
      "retry_after": null,
      "attempts": 1,
      "sent_at": "2026-10-20T01:00:03.120Z",
      "candidates": [],
      "estimate": null
    },
    {
      "name": "d",
      "workflow_id": "w-d",
      "project_id": "p-1",
      "labels": {},
      "run_id": "run-2",
      "outcome": "in_doubt",
      "kind": "timeout",
      "message": "no answer came",
      "http_status": null,
      "api_error": null,
      "request_id": null,
      "date": null,
      "retry_after": null,
      "attempts": 1,
      "sent_at": "2026-10-20T01:00:03.120Z",
      "candidates": ["j-8", "j-9"],
      "estimate": null
    }
  ],
  "skipped": [
    {
      "name": "c",
      "workflow_id": "w-c",
      "project_id": "p-1",
      "labels": {},
      "reason": "disabled",
      "detail": "enabled: false"
    }
  ]
}
"""


def serialize(run_record: RunRecord) -> str:
    return "".join(results_file.serialize(summary.summarize(run_record)))


def parse_document(run_record: RunRecord) -> dict[str, Any]:
    return check_results(loads_strictly(serialize(run_record)))


def write(run_record: RunRecord, path: Path) -> None:
    results_file.write(summary.summarize(run_record), path)


def record_of(body: bytes) -> RunRecord:
    """A record with one job object."""
    return record(entry("a", Created("j", body, 1, SENT)))


def list_names(run_record: RunRecord, outcome: type[Outcome]) -> list[str]:
    """The names as JSON readers decode them: two surrogates that form a pair are one character."""
    names = [e.job.name for e in run_record.entries if isinstance(e.outcome, outcome)]
    return [name.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for name in names]


def nested_list(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


def test_the_document_is_indented_and_in_manifest_order() -> None:
    run_record = record(
        entry("a", created("j-1", cost=12), team="agri"),
        entry("b", not_created(http_status=404, api_error={"code": 5}, request_id="q-1")),
        entry("c", Skipped("disabled", "enabled: false")),
        entry("d", in_doubt(candidates=("j-8", "j-9"))),
        entry("e", created("j-2"), run_id="run-1"),
    )
    assert serialize(run_record) == LITERAL
    check_results(json.loads(LITERAL))


def test_a_record_without_entries_has_empty_lists() -> None:
    document = parse_document(record())
    assert (document["created"], document["errors"], document["skipped"]) == ([], [], [])


@given(records)
def test_any_record_gives_a_valid_document(run_record: RunRecord) -> None:
    document = parse_document(run_record)
    assert [item["name"] for item in document["created"]] == list_names(run_record, Created)
    assert [item["name"] for item in document["skipped"]] == list_names(run_record, Skipped)
    assert len(document["errors"]) == len(run_record.entries) - len(document["created"]) - len(document["skipped"])


@given(records)
def test_any_job_object_is_included_unchanged_or_as_text(run_record: RunRecord) -> None:
    bodies = [e.outcome.body for e in run_record.entries if isinstance(e.outcome, Created)]
    for body, item in zip(bodies, parse_document(run_record)["created"], strict=True):
        if parse_job(body) is not None and is_embeddable(body):
            assert item["job"] == json.loads(body)
        else:
            assert item.get("job_text", "").encode("utf-8", "surrogateescape") == body


@given(records)
def test_the_document_has_no_characters_that_terminals_act_on(run_record: RunRecord) -> None:
    text = serialize(run_record)
    assert {c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")} == {"\n"}
    assert not set("\u202e\u2066\u200b\ufeff\u061c") & set(text)
    assert "##[" not in text
    assert "##vso[" not in text


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"j","cost":123456789012345678901234567890}',
        b'{"zeta": 1, "id": "j", "alpha": 1.10, "e": 1E400}',
        b'{\n  "id": "j",\n  "name": "\xe5\x90\x8d"\n}',
        b'{"id": "j", "id": "j"}',
    ],
)
def test_job_objects_are_included_as_received(body: bytes) -> None:
    assert f'"job": {body.decode()}\n    }}' in serialize(record_of(body))


def test_unsafe_characters_in_job_objects_are_escaped() -> None:
    body = '{"id":\t"j",\r\n"\x9b\u202e": "##[group]\U000e0041\\\\##[x]"}'.encode()
    text = serialize(record_of(body))
    assert '"job": {"id": "j", \n"\\u009b\\u202e": "\\u0023#[group]\\udb40\\udc41\\\\\\u0023#[x]"}\n' in text
    assert parse_document(record_of(body))["created"][0]["job"] == json.loads(body)


@pytest.mark.parametrize(
    ("body", "written"),
    [
        (b'{"id":\t"j"}', '{"id": "j"}'),
        (b'{"id":\r"j"}', '{"id": "j"}'),
        (b'{"id": "j\x7f"}', '{"id": "j\\u007f"}'),
        (b'{"id": "j", "a": "##[group]"}', '{"id": "j", "a": "\\u0023#[group]"}'),
    ],
    ids=["tab", "return", "delete", "command"],
)
def test_unsafe_ascii_characters_are_escaped(body: bytes, written: str) -> None:
    assert f'"job": {written}\n    }}' in serialize(record_of(body))


@pytest.mark.parametrize(
    ("body", "job"),
    [
        (b'{"id": "j", "cost": NaN, "status": "running"}', {"id": "j", "cost": None, "status": "running"}),
        (b'{"id": "j", "big": 1e999, "bad": "\xff"}', {"id": "j", "big": None, "bad": "\udcff"}),
        (b'{"id": "j", "deep": ' + b"[" * 300 + b"]" * 300 + b"}", {"id": "j", "deep": None}),
        (b'{"id": "j", "deep": ' + b"[" * 5000 + b"]" * 5000 + b', "cost": 3}', {"id": "j", "deep": None, "cost": 3}),
        (b'{"id": "j", "cost": ' + b"9" * 5000 + b"}", {"id": "j", "cost": None}),
        (b'\xef\xbb\xbf{"id": "j"}', {"id": "j"}),
        (b"no JSON at all", {"id": "j"}),
        ('{"id": "j"}'.encode("utf-16-le"), {"id": "j"}),
    ],
    ids=["NaN", "infinity and bytes", "300 deep", "5,000 deep", "5,000 digits", "BOM", "garbage", "UTF-16"],
)
def test_objects_that_json_cannot_contain_are_included_as_text(body: bytes, job: dict[str, Any]) -> None:
    [item] = parse_document(record_of(body))["created"]
    assert item["job"] == job
    assert item["job_text"].encode("utf-8", "surrogateescape") == body


def test_a_job_without_an_object_has_only_its_id() -> None:
    [item] = parse_document(record_of(b""))["created"]
    assert item["job"] == {"id": "j"}
    assert "job_text" not in item


def test_an_unassigned_job_has_candidates() -> None:
    certain = Created("j-1", b'{"id": "j-1"}', 1, SENT, recovered=True)
    uncertain = replace(certain, assigned=False, candidates=("j-1", "j-2"))
    document = parse_document(record(entry("a", certain), entry("b", uncertain)))
    assert [item.get("candidates") for item in document["created"]] == [None, ["j-1", "j-2"]]


@pytest.mark.parametrize("value", [float("nan"), [[float("-inf")]], nested_list(300)])
def test_api_errors_that_json_cannot_contain_become_strings(value: Any) -> None:
    [item] = parse_document(record(entry("a", not_created(api_error={"x": value}))))["errors"]
    assert json.loads(item["api_error"]).keys() == {"x"}


def test_unexpected_settings_do_not_prevent_writing() -> None:
    run = replace(RUN, settings={"path": Path("a"), "timeout": float("inf")})
    assert parse_document(RunRecord(run, ()))["run"]["settings"] == {"path": "a", "timeout": None}


def test_costs_are_added_up_exactly_without_absurd_ones() -> None:
    costs = [10**29 + 1, 1, 2.5, True, None, "7", int("9" * 4300)]
    run_record = record(*(entry(f"j{i}", created(f"{i}", cost=c)) for i, c in enumerate(costs)))
    counts = summary.summarize(run_record).summary
    assert counts.cost == 10**29 + 2
    assert counts.created == 7


def test_jobs_of_earlier_runs_count_as_created() -> None:
    run_record = record(
        entry("a", created("1"), run_id="run-1"), entry("b", created("2")), entry("c", not_created(), run_id="run-1")
    )
    assert summary.summarize(run_record).summary == summary.Summary(
        2, 1, 0, 0, 1, 0, None, (summary.ProjectSummary("p-1", 2, 0, None),)
    )


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 10, 20, 1, 2, 3, 999_999, tzinfo=UTC), "2026-10-20T01:02:03.999Z"),
        (datetime(2026, 10, 20, 1, 2, 3, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-10-19T19:32:03.000Z"),
    ],
)
def test_times_are_in_utc_to_the_millisecond(time: datetime, text: str) -> None:
    assert results_file.format_time(time) == text


class LazyEntries:
    """Entries whose bodies are read while iterating, like those of a ledger."""

    def __len__(self) -> int:
        return 1000

    def __iter__(self) -> Iterator[Entry]:
        for number in range(len(self)):
            yield entry(f"{number}", Created("j", b'{"id": "j", "result": "' + b"x" * 10_000 + b'"}', 1, SENT))


def test_the_document_is_never_complete_in_memory() -> None:
    run_record = RunRecord(RUN, LazyEntries())
    tracemalloc.start()
    length = sum(map(len, results_file.serialize(summary.summarize(run_record))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < length / 10


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a.results.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write(record(entry("a", created("j-1"))), path)
    check_results(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_possible_file_name_works(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    results_file.RESULTS_FILE.check_writable(path)
    write(record(), path)
    check_results(path)


def test_a_symbolic_link_is_replaced_and_its_target_unchanged(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(target)
    results_file.RESULTS_FILE.check_writable(link)
    write(record(), link)
    assert not link.is_symlink()
    assert target.read_bytes() == b"precious"


def test_a_dangling_symbolic_link_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    results_file.RESULTS_FILE.check_writable(link)
    write(record(), link)
    assert list(tmp_path.iterdir()) == [link]


class RaisingLabels(Mapping[str, str]):
    """Labels that raise an exception when they are written."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[str]:
        raise self.error

    def __getitem__(self, key: str) -> str:
        raise KeyError(key)

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(5, "Input/output error")])
def test_an_exception_while_writing_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    first = [entry(f"{i}", created(f"j{i}", result="x" * 1000)) for i in range(100)]
    last = Entry(Job("last", "w", "p", RaisingLabels(error)), created("last"), RUN.id)
    with pytest.raises(RefusedError if isinstance(error, OSError) else type(error)):
        write(record(*first, last), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


IMPORTS = """
import os, resource
from pathlib import Path
from runner.runs import results_file
from runner.runs.summary import summarize
from runner.core.errors import RefusedError
from support.records import *
"""


def run_python(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, which may be killed or lose its permissions."""
    return subprocess.run(
        [sys.executable, "-c", IMPORTS + code],
        cwd=directory,
        env={**environment_without_coverage(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    code = """
class KillingLabels:
    def items(self):
        os.kill(os.getpid(), 9)
first = [entry(str(i), created(f"j{i}", result="x" * 1000)) for i in range(100)]
run_record = record(*first, Entry(Job("last", "w", "p", KillingLabels()), created("last"), RUN.id))
results_file.write(summarize(run_record), Path("a.json"))
"""
    assert run_python(code, tmp_path).returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2  # beside it the temporary file


def test_a_full_disk_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    code = """
run_record = record(*[entry(str(i), created(f"j{i}", result="x" * 1000)) for i in range(100)])
write = lambda path: results_file.write(summarize(run_record), path)
for limit, function in [(4096, results_file.RESULTS_FILE.check_writable), (65536, write)]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        function(Path("a.json"))
    except RefusedError as error:
        print(error.message, error.hint, sep=" / ")
"""
    message = (
        "the results file a.json cannot be written: File too large"
        " / Raise the limit on file sizes (ulimit -f), or choose another path with --results PATH.\n"
    )
    process = run_python(code, tmp_path)
    assert (process.stdout, process.stderr) == (message * 2, "")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]


def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code = """
if os.geteuid() == 0:
    os.seteuid(65534)
write = lambda path: results_file.write(summarize(record()), path)
for function in (results_file.RESULTS_FILE.check_writable, write):
    try:
        function(Path("a.json"))
    except RefusedError as error:
        print(error.message, error.hint, sep=" / ")
"""
    message = (
        "the results file a.json cannot be written: Permission denied"
        " / Make the directory writable for this user, or choose another path with --results PATH.\n"
    )
    process = run_python(code, tmp_path)
    tmp_path.chmod(0o755)
    assert (process.stdout, process.stderr) == (message * 2, "")


def use_missing_directory(base: Path) -> Path:
    return base / "missing" / "a.json"


def create_under_file(base: Path) -> Path:
    (base / "file").touch()
    return base / "file" / "a.json"


def use_directory(base: Path) -> Path:
    return base


def create_pipe(base: Path) -> Path:
    os.mkfifo(base / "pipe")
    return base / "pipe"


def create_link_to_pipe(base: Path) -> Path:
    (base / "link").symlink_to(create_pipe(base))
    return base / "link"


def create_unix_socket(base: Path) -> Path:
    with contextlib.chdir(base), socket.socket(socket.AF_UNIX) as server:
        server.bind("s")  # the complete path may be too long for a socket
    return base / "s"


def create_link_to_itself(base: Path) -> Path:
    (base / "link").symlink_to("link")
    return base / "link"


@pytest.mark.parametrize(
    ("create", "message", "hint"),
    [
        (use_missing_directory, "cannot be written: No such file or directory", "Create the directory, or"),
        (create_under_file, "cannot be written: Not a directory", "Choose another path"),
        (use_directory, "would replace a directory", "Choose another path"),
        (create_pipe, "would replace a pipe", "Choose another path"),
        (create_link_to_pipe, "would replace a pipe", "Choose another path"),
        (create_unix_socket, "would replace a socket", "Choose another path"),
        (create_link_to_itself, "cannot be written: Too many levels of symbolic links", "Choose another path"),
        (lambda _: Path("/dev/null"), "would replace a device", "Choose another path"),
        (lambda _: Path("/dev/stdout"), "would replace a device", "Choose another path"),
        pytest.param(
            lambda _: Path("/proc/a.json"),
            "cannot be written: No such file or directory",
            "Create the directory, or",
            marks=pytest.mark.skipif(not Path("/proc").exists(), reason="this system has no /proc"),
        ),
        (lambda base: base / ("n" * 256), "cannot be written: File name too long", "Choose another path"),
    ],
)
def test_unwritable_paths_are_refused_by_check_and_write(
    tmp_path: Path, create: Callable[[Path], Path], message: str, hint: str
) -> None:
    path = create(tmp_path)
    before = sorted(tmp_path.iterdir())
    for function in (results_file.RESULTS_FILE.check_writable, partial(write, record())):
        with pytest.raises(RefusedError) as caught:
            function(path)
        assert caught.value.message == f"the results file {path} {message}"
        assert hint in caught.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_the_check_leaves_no_file(tmp_path: Path) -> None:
    results_file.RESULTS_FILE.check_writable(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_the_schema_describes_every_field() -> None:
    schema = json.loads((Path(__file__).parents[3] / "schemas" / "results.schema.json").read_bytes())
    for definition in (schema, *schema["$defs"].values()):
        for name, field in definition.get("properties", {}).items():
            target = schema["$defs"][field["$ref"].removeprefix("#/$defs/")] if "$ref" in field else {}
            assert {"title", "description"} <= {*field, *target}, name
        assert set(definition.get("required", ())) >= set(definition.get("properties", ())) - {"job_text", "candidates"}
        assert "properties" not in definition or definition["additionalProperties"] is False
