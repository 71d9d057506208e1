"""The sandbox's job file, shared by several processes that may be killed."""

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

# A process that appends jobs to the file that it is given.
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
        return [saved.id for saved in store.read_new()]
    finally:
        store.close()


def test_jobs_are_read_back(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    store.close()
    reopened = JobFile(tmp_path)
    assert reopened.read_new() == [job("a")]
    assert reopened.read_new() == []
    reopened.close()


def test_failing_jobs_are_read_back(tmp_path: Path) -> None:
    jobs = [job("sound"), replace(job("failing"), fails=True)]
    with closing(JobFile(tmp_path)) as store:
        for failing_or_not in jobs:
            store.append(failing_or_not)
    with closing(JobFile(tmp_path)) as reopened:
        assert reopened.read_new() == jobs


def test_lines_of_older_versions_are_read(tmp_path: Path) -> None:
    line = f'{{"id": "a", "workflow_id": "w", "project_id": "p", "created_at": "{AT.isoformat()}"'
    (tmp_path / "jobs.jsonl").write_text(f'{line}, "duration": 30, "cost": 10}}\n', encoding="utf-8")
    with closing(JobFile(tmp_path)) as store:
        assert store.read_new() == [job("a")]


def test_append_writes_before_it_returns(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    assert read(tmp_path) == ["a"]
    store.close()


@pytest.mark.parametrize("name", ["jobs.jsonl", "directory", "deep/directory"])
def test_directory_and_file_are_private(tmp_path: Path, name: str) -> None:
    store = JobFile(tmp_path / "new" / name)
    store.close()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_an_existing_file_of_any_name_is_used(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch()
    store = JobFile(path)
    store.append(job("a"))
    store.close()
    assert read(path) == ["a"]


def test_two_stores_see_each_other_s_jobs(tmp_path: Path) -> None:
    mine, theirs = JobFile(tmp_path), JobFile(tmp_path)
    assert mine.append(job("a")) == []
    assert theirs.append(job("b")) == [job("a")]
    assert mine.append(job("c")) == [job("b")]
    assert mine.read_new() == []
    assert theirs.read_new() == [job("c")]
    mine.close()
    theirs.close()


def test_no_line_is_lost_when_two_processes_append(tmp_path: Path) -> None:
    mine = JobFile(tmp_path)
    with subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), "300"]) as process:
        seen = [saved.id for number in range(300) for saved in mine.append(job(f"mine-{number}"))]
        assert process.wait(60) == 0
    seen += [saved.id for saved in mine.read_new()]
    mine.close()
    assert seen == [f"theirs-{number}" for number in range(300)]
    assert sorted(read(tmp_path)) == sorted([*seen, *(f"mine-{number}" for number in range(300))])


@pytest.mark.parametrize("incomplete", [b"{", b'{"id": "half', b'{"id": "\xc3'])
def test_an_incomplete_last_line_is_ignored_and_removed_by_the_next_append(tmp_path: Path, incomplete: bytes) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    store.close()
    with store.path.open("ab") as file:
        file.write(incomplete)
    assert read(tmp_path) == ["a"]
    reopened = JobFile(tmp_path)
    reopened.append(job("b"))
    reopened.close()
    assert read(tmp_path) == ["a", "b"]
    assert incomplete + b"\n" not in store.path.read_bytes()


def test_an_open_store_removes_the_incomplete_line_of_another_process(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    with store.path.open("ab") as file:
        file.write(b'{"id"')
    store.append(job("b"))
    store.close()
    assert read(tmp_path) == ["a", "b"]


def test_a_truncated_file_is_read_from_the_start(tmp_path: Path) -> None:
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
def test_invalid_lines_are_reported_with_their_position(tmp_path: Path, line: bytes) -> None:
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


def test_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError, match="cannot save its jobs"):
        JobFile(tmp_path / "file" / "below")


def test_directory_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").mkdir()
    with pytest.raises(RefusedError, match="cannot save its jobs"):
        JobFile(tmp_path)


def test_line_numbers_count_from_the_start_of_the_file(tmp_path: Path) -> None:
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


def test_lines_are_written_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobFile(tmp_path)
    locked: list[bool] = []
    write = os.write

    def check_lock(handle: int, data: bytes) -> int:
        with store.path.open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked.append(False)
            except BlockingIOError:
                locked.append(True)
        return write(handle, data)

    monkeypatch.setattr(os, "write", check_lock)
    store.append(job("a"))
    store.close()
    assert locked == [True]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobFile(tmp_path)
    store.append(job("a"))
    write = os.write
    with monkeypatch.context() as patch:  # a disk that is full after ten bytes
        patch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
        with pytest.raises(RefusedError, match="No space left"):
            store.append(job("b"))
    store.append(job("c"))
    store.close()
    assert read(tmp_path) == ["a", "c"]


def test_closed_store(tmp_path: Path) -> None:
    store = JobFile(tmp_path)
    store.close()
    store.close()
    with pytest.raises(RefusedError, match="closed"):
        store.read_new()
