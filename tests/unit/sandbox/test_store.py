"""The sandbox's job file: what was appended is there, whoever appended it and however they ended."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.core.errors import RefusedError
from runner.core.exit_codes import Exit
from runner.sandbox.lifecycle import SandboxJob
from runner.sandbox.store import JobFile

AT = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)

# Appends jobs of its own to the file it is given, as another process would.
APPENDER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from runner.sandbox.store import JobFile
from runner.sandbox.lifecycle import SandboxJob
store = JobFile(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    store.append(SandboxJob(f"theirs-{number}", "w", "p", datetime.now(UTC), 30, 10))
store.close()
"""


def job(job_id: str) -> SandboxJob:
    return SandboxJob(job_id, "w", "p", AT, 30, 10)


def read(path: Path) -> list[str]:
    store = JobFile(path)
    try:
        return [found.id for found in store.read_new()]
    finally:
        store.close()


def test_a_job_comes_back_as_it_was(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    store.close()
    again = JobFile(tmp_path)
    assert again.read_new() == [job("a")]
    assert again.read_new() == []
    again.close()


def test_that_a_job_fails_comes_back_too(tmp_path: Path) -> None:
    jobs = [job("sound"), replace(job("failing"), fails=True)]
    with closing(JobFile(tmp_path)) as store:
        for one in jobs:
            store.append(one)
    with closing(JobFile(tmp_path)) as again:
        assert again.read_new() == jobs


def test_a_line_from_before_jobs_could_fail_is_read(tmp_path: Path) -> None:
    line = f'{{"id": "a", "workflow_id": "w", "project_id": "p", "created_at": "{AT.isoformat()}"'
    (tmp_path / "jobs.jsonl").write_text(f'{line}, "duration": 30, "cost": 10}}\n', encoding="utf-8")
    with closing(JobFile(tmp_path)) as store:
        assert store.read_new() == [job("a")]


def test_a_job_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    assert read(tmp_path) == ["a"]
    store.close()


@pytest.mark.parametrize("name", ["jobs.jsonl", "folder", "deep/folder"])
def test_folder_and_file_are_private(tmp_path: Path, name: str) -> None:
    store = JobFile(tmp_path / "new" / name)
    store.close()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_an_existing_file_of_any_name_is_taken_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch()
    store = JobFile(path)
    store.append(job("a"))
    store.close()
    assert read(path) == ["a"]


def test_two_holders_see_each_other(tmp_path: Path) -> None:
    mine, theirs = JobFile(tmp_path), JobFile(tmp_path)
    assert mine.append(job("a")) == []
    assert theirs.append(job("b")) == [job("a")]
    assert mine.append(job("c")) == [job("b")]
    assert mine.read_new() == []
    assert theirs.read_new() == [job("c")]
    mine.close()
    theirs.close()


def test_two_processes_append_at_once_and_no_line_is_lost_or_torn(tmp_path: Path) -> None:
    mine = JobFile(tmp_path)
    with subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), "300"]) as process:
        seen = [found.id for number in range(300) for found in mine.append(job(f"mine-{number}"))]
        assert process.wait(60) == 0
    seen += [found.id for found in mine.read_new()]
    mine.close()
    assert seen == [f"theirs-{number}" for number in range(300)]
    assert sorted(read(tmp_path)) == sorted([*seen, *(f"mine-{number}" for number in range(300))])


@pytest.mark.parametrize("torn", [b"{", b'{"id": "half', b'{"id": "\xc3'])
def test_a_torn_last_line_is_passed_over_and_cut_by_the_next_append(tmp_path: Path, torn: bytes) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    store.close()
    with store.path.open("ab") as file:
        file.write(torn)
    assert read(tmp_path) == ["a"]
    again = JobFile(tmp_path)
    again.append(job("b"))
    again.close()
    assert read(tmp_path) == ["a", "b"]
    assert torn + b"\n" not in store.path.read_bytes()


def test_a_holder_cuts_what_another_process_left_torn(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    with store.path.open("ab") as file:
        file.write(b'{"id"')
    store.append(job("b"))
    store.close()
    assert read(tmp_path) == ["a", "b"]


def test_a_file_that_was_emptied_is_read_anew(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    os.truncate(store.path, 0)
    assert store.append(job("b")) == []
    store.close()
    assert read(tmp_path) == ["b"]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b"{}",
        b"null",
        b"\0\0\0\0",
        b'"\xff"',
        b"[" * 100_000,
        b'{"id": "a", "workflow_id": "w", "project_id": "p", "created_at": "noon", "duration": 1, "cost": 1}',
        b'{"id": "a", "workflow_id": "w", "project_id": "p", "created_at": "2026-01-01", "duration": 1, "cost": 1}',
    ],
)
def test_a_line_that_is_no_job_is_refused_with_its_place_and_a_way_out(tmp_path: Path, line: bytes) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    store.close()
    with store.path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(RefusedError) as caught:
        read(tmp_path)
    assert f"{store.path}:2:" in caught.value.message
    assert f"Move {store.path} away" in caught.value.hint
    assert caught.value.exit_code is Exit.REFUSED


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError, match="cannot keep its jobs"):
        JobFile(tmp_path / "file" / "below")


def test_a_folder_in_the_file_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").mkdir()
    with pytest.raises(RefusedError, match="cannot keep its jobs"):
        JobFile(tmp_path)


def test_a_bad_line_is_counted_from_the_file_s_start(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    other = JobFile(tmp_path)
    other.read_new()
    store.append(job("b"))
    other.read_new()
    with store.path.open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(RefusedError, match=r"jobs\.jsonl:3:"):
        other.read_new()
    store.close()
    other.close()


def test_a_line_is_written_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobFile(tmp_path)
    locked: list[bool] = []
    write = os.write

    def watched(handle: int, data: bytes) -> int:
        with store.path.open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked.append(False)
            except BlockingIOError:
                locked.append(True)
        return write(handle, data)

    monkeypatch.setattr(os, "write", watched)
    store.append(job("a"))
    store.close()
    assert locked == [True]


def test_a_job_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    write = os.write
    with monkeypatch.context() as patch:  # a disk that is full after ten bytes: no real one is at hand
        patch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
        with pytest.raises(RefusedError, match="No space left"):
            store.append(job("b"))
    store.append(job("c"))
    store.close()
    assert read(tmp_path) == ["a", "c"]


def test_a_closed_store_says_so_and_can_be_closed_again(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.close()
    store.close()
    with pytest.raises(RefusedError, match="closed"):
        store.read_new()
