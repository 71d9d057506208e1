"""The results file: its fields, the API's objects inside it, and that it is on the disk whole or not at all."""

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


def document_of(made: RunRecord) -> dict[str, Any]:
    return check_results(loads_strictly("".join(results_file.serialize(summary.summarize(made)))))


def of_body(body: bytes) -> RunRecord:
    return record(entry("a", Created("j", body, 1, SENT)))


def names(made: RunRecord, outcome: type[Outcome]) -> list[str]:
    """The names as JSON readers have them: two surrogates that happen to be a pair are one character."""
    wanted = [e.job.name for e in made.entries if isinstance(e.outcome, outcome)]
    return [name.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for name in wanted]


def deep(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


def test_the_document_is_readable_and_in_the_order_of_the_manifest() -> None:
    made = record(
        entry("a", created("j-1", cost=12), team="agri"),
        entry("b", not_created(http_status=404, api_error={"code": 5}, request_id="q-1")),
        entry("c", Skipped("disabled", "enabled: false")),
        entry("d", in_doubt(candidates=("j-8", "j-9"))),
        entry("e", created("j-2"), run_id="run-1"),
    )
    assert "".join(results_file.serialize(summary.summarize(made))) == LITERAL
    check_results(json.loads(LITERAL))


def test_a_record_without_entries_has_empty_lists() -> None:
    document = document_of(record())
    assert (document["created"], document["errors"], document["skipped"]) == ([], [], [])


@given(records)
def test_any_record_makes_a_valid_document(made: RunRecord) -> None:
    document = document_of(made)
    assert [item["name"] for item in document["created"]] == names(made, Created)
    assert [item["name"] for item in document["skipped"]] == names(made, Skipped)
    assert len(document["errors"]) == len(made.entries) - len(document["created"]) - len(document["skipped"])


@given(records)
def test_any_job_object_stands_in_it_as_it_came_or_as_text(made: RunRecord) -> None:
    bodies = [e.outcome.body for e in made.entries if isinstance(e.outcome, Created)]
    for body, item in zip(bodies, document_of(made)["created"], strict=True):
        if parse_job(body) is not None and is_embeddable(body):
            assert item["job"] == json.loads(body)
        else:
            assert item.get("job_text", "").encode("utf-8", "surrogateescape") == body


@given(records)
def test_no_character_that_a_terminal_acts_on_is_in_the_document(made: RunRecord) -> None:
    text = "".join(results_file.serialize(summary.summarize(made)))
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
def test_a_job_object_is_embedded_as_the_bytes_that_came(body: bytes) -> None:
    assert f'"job": {body.decode()}\n    }}' in "".join(results_file.serialize(summary.summarize(of_body(body))))


def test_what_a_terminal_acts_on_is_escaped_inside_a_job_object() -> None:
    body = '{"id":\t"j",\r\n"\x9b\u202e": "##[group]\U000e0041\\\\##[x]"}'.encode()
    text = "".join(results_file.serialize(summary.summarize(of_body(body))))
    assert '"job": {"id": "j", \n"\\u009b\\u202e": "\\u0023#[group]\\udb40\\udc41\\\\\\u0023#[x]"}\n' in text
    assert document_of(of_body(body))["created"][0]["job"] == json.loads(body)


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
def test_what_of_ascii_a_terminal_acts_on_is_escaped_too(body: bytes, written: str) -> None:
    assert f'"job": {written}\n    }}' in "".join(results_file.serialize(summary.summarize(of_body(body))))


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
def test_what_json_cannot_hold_is_kept_as_text(body: bytes, job: dict[str, Any]) -> None:
    [item] = document_of(of_body(body))["created"]
    assert item["job"] == job
    assert item["job_text"].encode("utf-8", "surrogateescape") == body


def test_a_job_whose_object_is_not_known_has_its_id_alone() -> None:
    [item] = document_of(of_body(b""))["created"]
    assert item["job"] == {"id": "j"}
    assert "job_text" not in item


def test_a_job_that_may_be_anothers_has_the_candidates() -> None:
    sure = Created("j-1", b'{"id": "j-1"}', 1, SENT, recovered=True)
    unsure = replace(sure, assigned=False, candidates=("j-1", "j-2"))
    document = document_of(record(entry("a", sure), entry("b", unsure)))
    assert [item.get("candidates") for item in document["created"]] == [None, ["j-1", "j-2"]]


@pytest.mark.parametrize("value", [float("nan"), [[float("-inf")]], deep(300)])
def test_an_error_of_the_api_that_is_no_json_becomes_a_string(value: Any) -> None:
    [item] = document_of(record(entry("a", not_created(api_error={"x": value}))))["errors"]
    assert json.loads(item["api_error"]).keys() == {"x"}


def test_settings_cannot_lose_the_record() -> None:
    run = replace(RUN, settings={"path": Path("a"), "timeout": float("inf")})
    assert document_of(RunRecord(run, ()))["run"]["settings"] == {"path": "a", "timeout": None}


def test_costs_are_added_up_exactly_and_absurd_ones_left_out() -> None:
    costs = [10**29 + 1, 1, 2.5, True, None, "7", int("9" * 4300)]
    made = record(*(entry(f"j{i}", created(f"{i}", cost=c)) for i, c in enumerate(costs)))
    counts = summary.summarize(made).summary
    assert counts.cost == 10**29 + 2
    assert counts.created == 7


def test_jobs_of_an_earlier_run_are_among_the_created_ones() -> None:
    made = record(
        entry("a", created("1"), run_id="run-1"), entry("b", created("2")), entry("c", not_created(), run_id="run-1")
    )
    assert summary.summarize(made).summary == summary.Summary(
        2, 1, 0, 0, 1, 0, None, (summary.ProjectSummary("p-1", 2, 0, None),)
    )


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 10, 20, 1, 2, 3, 999_999, tzinfo=UTC), "2026-10-20T01:02:03.999Z"),
        (datetime(2026, 10, 20, 1, 2, 3, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-10-19T19:32:03.000Z"),
    ],
)
def test_times_are_utc_to_the_millisecond(time: datetime, text: str) -> None:
    assert results_file.format_time(time) == text


class FromDisk:
    """Entries whose bodies are read anew each time, as those of a ledger are."""

    def __len__(self) -> int:
        return 1000

    def __iter__(self) -> Iterator[Entry]:
        for number in range(len(self)):
            yield entry(f"{number}", Created("j", b'{"id": "j", "result": "' + b"x" * 10_000 + b'"}', 1, SENT))


def test_the_document_is_never_whole_in_memory() -> None:
    made = RunRecord(RUN, FromDisk())
    tracemalloc.start()
    length = sum(map(len, results_file.serialize(summary.summarize(made))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < length / 10


def test_the_file_is_written_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.results.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    results_file.write(summary.summarize(record(entry("a", created("j-1")))), path)
    check_results(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_of_any_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    results_file.RESULTS_FILE.check_writable(path)
    results_file.write(summary.summarize(record()), path)
    check_results(path)


def test_a_symbolic_link_is_replaced_and_what_it_names_is_left_alone(tmp_path: Path) -> None:
    named = tmp_path / "named"
    named.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(named)
    results_file.RESULTS_FILE.check_writable(link)
    results_file.write(summary.summarize(record()), link)
    assert not link.is_symlink()
    assert named.read_bytes() == b"precious"


def test_a_link_to_nowhere_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    results_file.RESULTS_FILE.check_writable(link)
    results_file.write(summary.summarize(record()), link)
    assert list(tmp_path.iterdir()) == [link]


class Ending(Mapping[str, str]):
    """Labels that end the writing when their turn comes."""

    def __init__(self, end: BaseException) -> None:
        self.end = end

    def __iter__(self) -> Iterator[str]:
        raise self.end

    def __getitem__(self, key: str) -> str:
        raise KeyError(key)

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("end", [KeyboardInterrupt(), MemoryError(), OSError(5, "Input/output error")])
def test_an_end_in_the_middle_leaves_what_was_there(tmp_path: Path, end: BaseException) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    first = [entry(f"{i}", created(f"j{i}", result="x" * 1000)) for i in range(100)]
    last = Entry(Job("last", "w", "p", Ending(end)), created("last"), RUN.id)
    with pytest.raises(RefusedError if isinstance(end, OSError) else type(end)):
        results_file.write(summary.summarize(record(*first, last)), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


_IMPORTS = """
import os, resource
from pathlib import Path
from runner.runs import results_file
from runner.runs.summary import summarize
from runner.core.errors import RefusedError
from support.records import *
"""


def child(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, which may die or lose its rights, in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", _IMPORTS + code],
        cwd=folder,
        env={**environment_without_coverage(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_a_kill_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    code = """
class Deadly:
    def items(self):
        os.kill(os.getpid(), 9)
first = [entry(str(i), created(f"j{i}", result="x" * 1000)) for i in range(100)]
made = record(*first, Entry(Job("last", "w", "p", Deadly()), created("last"), RUN.id))
results_file.write(summarize(made), Path("a.json"))
"""
    assert child(code, tmp_path).returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2  # the unfinished one is beside it, under a name of its own


def test_a_disk_without_room_is_refused_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    code = """
made = record(*[entry(str(i), created(f"j{i}", result="x" * 1000)) for i in range(100)])
write = lambda path: results_file.write(summarize(made), path)
uses = [(4096, results_file.RESULTS_FILE.check_writable), (65536, write)]
for limit, use in uses:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        use(Path("a.json"))
    except RefusedError as error:
        print(error.message, error.hint, sep=" / ")
"""
    refusal = (
        "the results file a.json cannot be written: File too large"
        " / Raise the limit on file sizes (ulimit -f), or choose another path with --results PATH.\n"
    )
    ended = child(code, tmp_path)
    assert (ended.stdout, ended.stderr) == (refusal * 2, "")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]


def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code = """
if os.geteuid() == 0:
    os.seteuid(65534)
for use in (results_file.RESULTS_FILE.check_writable, lambda path: results_file.write(summarize(record()), path)):
    try:
        use(Path("a.json"))
    except RefusedError as error:
        print(error.message, error.hint, sep=" / ")
"""
    refusal = (
        "the results file a.json cannot be written: Permission denied"
        " / Make the directory writable for this user, or choose another path with --results PATH.\n"
    )
    ended = child(code, tmp_path)
    tmp_path.chmod(0o755)
    assert (ended.stdout, ended.stderr) == (refusal * 2, "")


def missing(folder: Path) -> Path:
    return folder / "missing" / "a.json"


def under_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "a.json"


def a_folder(folder: Path) -> Path:
    return folder


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def a_link_to_a_pipe(folder: Path) -> Path:
    (folder / "link").symlink_to(a_pipe(folder))
    return folder / "link"


def a_socket(folder: Path) -> Path:
    with contextlib.chdir(folder), socket.socket(socket.AF_UNIX) as server:
        server.bind("s")  # the whole path may be too long for a socket
    return folder / "s"


def a_link_to_itself(folder: Path) -> Path:
    (folder / "link").symlink_to("link")
    return folder / "link"


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        (missing, "cannot be written: No such file or directory", "Create the directory, or"),
        (under_a_file, "cannot be written: Not a directory", "Choose another path"),
        (a_folder, "would replace a directory", "Choose another path"),
        (a_pipe, "would replace a pipe", "Choose another path"),
        (a_link_to_a_pipe, "would replace a pipe", "Choose another path"),
        (a_socket, "would replace a socket", "Choose another path"),
        (a_link_to_itself, "cannot be written: Too many levels of symbolic links", "Choose another path"),
        (lambda _: Path("/dev/null"), "would replace a device", "Choose another path"),
        (lambda _: Path("/dev/stdout"), "would replace a device", "Choose another path"),
        pytest.param(
            lambda _: Path("/proc/a.json"),
            "cannot be written: No such file or directory",
            "Create the directory, or",
            marks=pytest.mark.skipif(not Path("/proc").exists(), reason="this system has no /proc"),
        ),
        (lambda folder: folder / ("n" * 256), "cannot be written: File name too long", "Choose another path"),
    ],
)
def test_what_cannot_be_written_is_refused_before_and_after(
    tmp_path: Path, target: Callable[[Path], Path], message: str, hint: str
) -> None:
    path = target(tmp_path)
    before = sorted(tmp_path.iterdir())
    for use in (results_file.RESULTS_FILE.check_writable, partial(results_file.write, summary.summarize(record()))):
        with pytest.raises(RefusedError) as refusal:
            use(path)
        assert refusal.value.message == f"the results file {path} {message}"
        assert hint in refusal.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_trying_leaves_nothing_behind_and_touches_nothing(tmp_path: Path) -> None:
    results_file.RESULTS_FILE.check_writable(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_the_schema_explains_every_field() -> None:
    schema = json.loads((Path(__file__).parents[3] / "schemas" / "results.schema.json").read_bytes())
    for place in (schema, *schema["$defs"].values()):
        for name, field in place.get("properties", {}).items():
            target = schema["$defs"][field["$ref"].removeprefix("#/$defs/")] if "$ref" in field else {}
            assert {"title", "description"} <= {*field, *target}, name
        assert set(place.get("required", ())) >= set(place.get("properties", ())) - {"job_text", "candidates"}
        assert "properties" not in place or place["additionalProperties"] is False
