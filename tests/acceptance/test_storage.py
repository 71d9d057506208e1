"""Disks that are full, read-only, failing or damaged: nothing is sent without a record, and nothing is forgotten."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from support.campaign import Scene, Zygote, read_ledger
from support.schemas import check_results

from runner.ledger import opening
from runner.sandbox.faults import Fault
from runner.sandbox.timeline import SandboxJob
from runner.sandbox.world import World


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as one:
        yield one


@pytest.fixture
def scene(tmp_path: Path, zygote: Zygote) -> Iterator[Scene]:
    with Scene(_folder(tmp_path), zygote) as one:
        yield one


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


class Happening(World):
    """A world in which something happens as its n-th job is created, before that is answered."""

    def __init__(self, scene_clock: Callable[[], object], at: int, what: Callable[[], None]) -> None:
        super().__init__(clock=scene_clock)  # type: ignore[arg-type]
        self._at = at
        self._what = what

    def create(self, workflow_id: str, project_id: str) -> SandboxJob:
        job = super().create(workflow_id, project_id)
        if self.created == self._at:
            self._what()
        return job


@contextmanager
def happening(tmp_path: Path, zygote: Zygote, at: int, what: Callable[[], None]) -> Iterator[Scene]:
    """A scene in which something happens as the server creates its n-th job."""
    holder: list[Scene] = []
    world = Happening(lambda: holder[0].now(), at, what)  # noqa: PLW0108 - there is none yet
    scene = Scene(_folder(tmp_path), zygote, world=world)
    holder.append(scene)
    with scene:
        yield scene


# Disks of our own.


def _mount(*arguments: str) -> bool:
    program = shutil.which("mount")
    return (
        program is not None and subprocess.run([program, *arguments], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(place)):
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run([str(shutil.which("umount")), "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with (disk / "filler").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def empty(disk: Path) -> None:
    (disk / "filler").unlink()


def said_of_each(scene: Scene, err: str) -> None:
    """Each job that the server created and that the ledger has not as created was told on stderr, or is in doubt."""
    scene.promise.check()
    for line in err.splitlines():
        if "not on record:" in line and "created as" in line:
            job_id = line.rpartition("created as ")[2].strip()
            assert job_id in scene.promise.jobs(), line


def ends_well(scene: Scene) -> None:
    """The next run, when all is well again, ends with each job exactly once."""
    scene.pass_time()
    done = scene.run()
    assert done.code == 0, done.err
    scene.promise.check_kept()
    results = check_results(scene.folder / "m.results.json")
    assert results["summary"]["created"] == len(scene.pairs)


# Full.


def test_a_full_disk_stops_it_before_anything_is_sent(scene: Scene, disk: Path) -> None:
    scene.use(disk / "ledger.db")
    assert scene("ledger", "init", str(disk / "ledger.db")).code == 0
    fill(disk)
    done = scene.run()
    assert (done.code, scene.shop.posts) == (4, 0), done.err
    assert "ledger" in done.err
    empty(disk)
    ends_well(scene)


def test_a_full_disk_has_no_half_a_ledger(scene: Scene, disk: Path) -> None:
    fill(disk)
    assert scene("ledger", "init", str(disk / "ledger.db")).code == 4
    assert [one.name for one in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("at", [1, 2, 4, 6])
def test_a_disk_that_fills_up_in_mid_run_stops_it(tmp_path: Path, zygote: Zygote, disk: Path, at: int) -> None:
    with happening(tmp_path, zygote, at, lambda: fill(disk)) as scene:
        scene.use(disk / "ledger.db")
        assert scene("ledger", "init", str(disk / "ledger.db")).code == 0
        done = scene.run()
        assert done.code in (3, 4), done.err
        assert scene.shop.posts <= at + 4, "more was sent than was claimed"
        assert "error:" in done.err
        said_of_each(scene, done.err)
        check_results(scene.folder / "m.results.json")
        empty(disk)
        ends_well(scene)


def test_a_full_disk_for_the_results_stops_it_before_anything_is_sent(scene: Scene, disk: Path) -> None:
    scene.env["PIXXEL_RUNNER_RESULTS"] = str(disk / "results.json")
    fill(disk)
    done = scene.run()
    assert (done.code, scene.shop.posts) == (4, 0), done.err
    empty(disk)
    del scene.env["PIXXEL_RUNNER_RESULTS"]
    ends_well(scene)


def test_a_disk_for_the_results_that_fills_up_loses_no_job(tmp_path: Path, zygote: Zygote, disk: Path) -> None:
    with happening(tmp_path, zygote, 3, lambda: fill(disk)) as scene:
        scene.env["PIXXEL_RUNNER_RESULTS"] = str(disk / "results.json")
        done = scene.run()
        assert done.code == 4, done.err
        assert "results" in done.err
        scene.promise.check_kept()
        assert [one.name for one in disk.iterdir()] == ["filler"]
        empty(disk)
        del scene.env["PIXXEL_RUNNER_RESULTS"]
        ends_well(scene)


@pytest.mark.parametrize("largest", [0, 4096, 40_000, 80_000, 100_000, 120_000, 160_000, 200_000])
def test_a_limit_on_the_size_of_files_stops_it(scene: Scene, largest: int) -> None:
    scene.env["PIXXEL_RUNNER_CONCURRENCY"] = "1"
    done = scene.run(largest=largest)
    assert done.code in (0, 3, 4)
    if done.code:
        assert scene.shop.posts < len(scene.pairs) + 1
    said_of_each(scene, done.err)
    ends_well(scene)


# Read-only.


def test_a_read_only_folder_stops_it_before_anything_is_sent(scene: Scene, disk: Path) -> None:
    scene.use(disk / "ledger.db")
    assert scene("ledger", "init", str(disk / "ledger.db")).code == 0
    assert _mount("-o", "remount,ro", str(disk))
    done = scene.run()
    assert (done.code, scene.shop.posts) == (4, 0), done.err
    assert _mount("-o", "remount,rw", str(disk))
    ends_well(scene)


def test_a_read_only_folder_beside_the_manifest_stops_it(tmp_path: Path, zygote: Zygote, disk: Path) -> None:
    with Scene(disk, zygote) as scene:
        for name in ("stdout", "stderr"):
            (tmp_path / name).touch()
            (disk / name).symlink_to(tmp_path / name)
        scene.env["PIXXEL_RUNNER_RESULTS"] = str(tmp_path / "results.json")
        assert _mount("-o", "remount,ro", str(disk))
        done = scene.run()
        assert (done.code, scene.shop.posts) == (4, 0), done.err
        assert _mount("-o", "remount,rw", str(disk))
        del scene.env["PIXXEL_RUNNER_RESULTS"]
        ends_well(scene)


# Failing.

AT = [
    (kind, number)
    for kind, numbers in {
        "before commit": (1, 2, 3, 4, 5, 6, 8),
        "after commit": (3, 5),  # it was kept, and the disk says that it was not
        "before select": (1, 4, 8, 12, 16, 20, 24, 30),
        "before statement": (1, 20, 24, 30, 36, 40),
        "before checkpoint": (1, 2),
    }.items()
    for number in numbers
]


@pytest.mark.parametrize(("kind", "number"), AT)
@pytest.mark.parametrize("concurrency", ["1", "3"])
def test_a_disk_that_fails_from_some_point_on(scene: Scene, kind: str, number: int, concurrency: str) -> None:
    scene.env["PIXXEL_RUNNER_CONCURRENCY"] = concurrency
    fault = {"at": kind, "from": number, "name": "SQLITE_IOERR_WRITE"}
    done = scene.run(fault=fault)
    assert done.code in (0, 3, 4), done.err
    said_of_each(scene, done.err)
    if done.code:
        assert "made up: SQLITE_IOERR_WRITE" in done.err
        assert_each_is_told(scene, done.err)
    ends_well(scene)


def test_a_log_that_cannot_be_folded_in_at_the_end_changes_no_exit_code(tmp_path: Path, zygote: Zygote) -> None:
    """All is on record by then: what a person is to do about the doubt outranks what the disk says."""
    with Scene(_folder(tmp_path), zygote, faults=(Fault("reset", 1.0),)) as scene:
        done = scene("run", "m.yaml", "--hold", fault={"at": "before checkpoint", "from": 2, "name": "SQLITE_FULL"})
        assert done.code == 3, done.err
        scene.promise.check()


def assert_each_is_told(scene: Scene, err: str) -> None:
    """A job that exists and is not on record as created is not passed over: its id is said, or that it is in doubt."""
    results = scene.folder / "m.results.json"
    told = err + (results.read_text(encoding="utf-8") if results.exists() else "")
    held = {row.job_id for row in read_ledger(scene.ledger)}
    for job in scene.promise.jobs().values():
        name = f"j{job.workflow_id.removeprefix('w-')}"
        assert job.id in held or job.id in told or name in told, f"{name} was created, and nobody was told: {err}"


# Damaged, newer, in use.


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : len(data) : 97] = bytes(len(range(4096, len(data), 97)))
    path.write_bytes(data)


def erase(path: Path) -> None:
    path.write_bytes(b"")


def make_newer(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {opening.VERSION + 1}")


@pytest.mark.parametrize("how", [cut, garble, erase, make_newer], ids=lambda how: how.__name__)
@pytest.mark.parametrize("named", [True, False], ids=["named", "beside"])
def test_a_ledger_that_cannot_be_trusted_stops_it(scene: Scene, how: Callable[[Path], None], named: bool) -> None:
    assert scene.run().code == 0
    if named:
        scene.use(scene.ledger)
    kept = scene.ledger.read_bytes()
    posts = scene.shop.posts
    how(scene.ledger)
    broken = scene.ledger.read_bytes()
    done = scene.run()
    assert (done.code, scene.shop.posts) == (4, posts), done.err
    assert scene.ledger.read_bytes() == broken  # there is more to be saved from it than the program knows
    scene.ledger.write_bytes(kept)
    ends_well(scene)


def test_a_ledger_that_is_gone_is_not_made_anew_where_it_was_named(scene: Scene) -> None:
    assert scene.run().code == 0
    scene.use(scene.ledger)
    posts = scene.shop.posts
    scene.ledger.rename(scene.ledger.with_name("backup"))
    assert scene.run().code == 4
    assert scene.shop.posts == posts
    assert not scene.ledger.exists()


class Hog:
    """Another program that holds the ledger."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._connection: sqlite3.Connection | None = None

    def take(self) -> None:
        assert self.path is not None
        self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        self._connection.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()


@pytest.fixture
def hog() -> Iterator[Hog]:
    one = Hog()
    yield one
    one.let_go()


def test_a_ledger_in_use_stops_it_before_anything_is_sent(scene: Scene, hog: Hog) -> None:
    assert scene("ledger", "init", str(scene.folder / "l.db")).code == 0
    scene.use(scene.folder / "l.db")
    hog.path = scene.ledger
    hog.take()
    done = scene.run()
    assert (done.code, scene.shop.posts) == (4, 0), done.err
    assert "Another program holds it" in done.err
    hog.let_go()
    ends_well(scene)


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_ledger_that_is_taken_in_mid_run_stops_it(tmp_path: Path, zygote: Zygote, hog: Hog, at: int) -> None:
    with happening(tmp_path, zygote, at, hog.take) as scene:
        hog.path = scene.ledger
        done = scene.run()
        assert done.code in (3, 4), done.err
        said_of_each(scene, done.err)
        assert_each_is_told(scene, done.err)
        hog.let_go()
        ends_well(scene)


def test_a_process_of_its_own_stops_too(scene: Scene) -> None:
    """The same as it is started by a person: nothing of the above hangs on how the tests start it."""
    scene.ledger.parent.mkdir()
    scene.ledger.write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "runner", "run", "m.yaml"],
        cwd=scene.folder,
        env={**scene.env, "PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, scene.shop.posts) == (4, 0)
    assert b"is not a ledger" in done.stderr
