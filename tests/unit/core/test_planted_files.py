"""Files where others may write, and files that are none: nothing is followed, waited for, or left open to others."""

from __future__ import annotations

import codecs
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from support import ledger_history
from support.ledger_history import API

from runner.cli import ledger_access, manifests
from runner.core.atomic_file import AtomicFile
from runner.core.errors import RefusedError, UsageError
from runner.core.models import Manifest
from runner.core.settings import Limits, RunOptions
from runner.core.state_dir import STATE_DIR_NAME, create_state_dir
from runner.ledger import connect, lock
from runner.ledger.errors import LedgerError
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.store import Ledger
from runner.runs import execution, preview
from runner.runs.request import RunRequest
from runner.sandbox.store import JobFile

NOBODY = 65534
FILE = AtomicFile("the results file", "--results PATH", 0o600)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users, or do without rights")


@contextmanager
def being(user: int) -> Iterator[None]:
    """Another user meanwhile, as far as files go."""
    codecs.lookup("ascii")  # imported while it can be: that user may not enter the folder that Python is in
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that all may write in, such as /tmp."""
    for one in [tmp_path, *tmp_path.parents]:
        with suppress(PermissionError):
            if one.stat().st_uid == os.geteuid() and one != Path("/") and not one.stat().st_mode & 0o001:
                one.chmod(one.stat().st_mode | 0o011)
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o1777)
    return made


# The program's own folder.


@as_root
@pytest.mark.parametrize("what", ["folder", "link", "link to ours"])
def test_a_state_directory_planted_by_another_user_is_refused(shared: Path, tmp_path: Path, what: str) -> None:
    home = shared / STATE_DIR_NAME
    ours, theirs = tmp_path / "ours", shared / "theirs"
    ours.mkdir()
    with being(NOBODY):
        theirs.mkdir(mode=0o777)
        if what == "folder":
            home.mkdir(mode=0o777)
        else:
            home.symlink_to(theirs if what == "link" else ours)
    manifest = str(shared / "m.yaml")
    for use in (
        lambda: create_state_dir(home),
        lambda: LedgerLocation.for_manifest(manifest),
        lambda: LedgerLocation.for_manifest(manifest, Path("named.db"), sandbox=True),
    ):
        with pytest.raises(RefusedError, match=r"belongs to another user \(uid 65534\)") as caught:
            use()
        assert caught.value.hint
    assert [*theirs.iterdir(), *ours.iterdir()] == []
    assert LedgerLocation.for_manifest(manifest, Path("named.db")).path == Path(
        "named.db"
    )  # nothing is looked for in it


@as_root
def test_a_state_directory_of_root_or_the_parent_s_owner_is_trusted(shared: Path, tmp_path: Path) -> None:
    """A container's root works in a person's checkout, and a person where root has prepared the folder."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    os.chown(checkout, NOBODY, NOBODY)
    with being(NOBODY):
        create_state_dir(checkout / STATE_DIR_NAME)
    create_state_dir(checkout / STATE_DIR_NAME)
    create_state_dir(shared / STATE_DIR_NAME)
    with being(NOBODY):
        assert LedgerLocation.for_manifest(str(shared / "m.yaml")).path.parent == shared / STATE_DIR_NAME


@pytest.mark.parametrize("target", ["nowhere", "empty", "full"])
def test_a_link_in_place_of_its_gitignore_is_not_followed(tmp_path: Path, target: str) -> None:
    """As a repository may hold it: what it names might be any file of the person."""
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_text("kept\n", encoding="ascii")
    home = tmp_path / STATE_DIR_NAME
    home.mkdir()
    (home / ".gitignore").symlink_to(f"../{target}")
    create_state_dir(home)
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "full").read_text(encoding="ascii") == "kept\n"


def test_a_link_in_its_place_hides_nothing_in_another_directory(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / STATE_DIR_NAME).symlink_to("work")
    create_state_dir(tmp_path / STATE_DIR_NAME)
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir()], ids=["pipe", "folder"])
def test_a_special_file_in_place_of_its_gitignore_is_left_alone(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / STATE_DIR_NAME).mkdir()
    make(tmp_path / STATE_DIR_NAME / ".gitignore")
    create_state_dir(tmp_path / STATE_DIR_NAME)


def test_a_link_in_place_of_the_sandbox_s_jobs_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "jobs.jsonl").symlink_to("../victim")
    with pytest.raises(RefusedError):
        JobFile(tmp_path / "sandbox")
    assert not (tmp_path / "victim").exists()
    JobFile(tmp_path / "sandbox" / "jobs.jsonl").close()  # a person named it
    assert (tmp_path / "victim").exists()


def test_a_pipe_in_place_of_the_sandbox_s_jobs_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    os.mkfifo(tmp_path / "sandbox" / "jobs.jsonl")
    with pytest.raises(RefusedError, match="not a regular file"):
        JobFile(tmp_path / "sandbox")


# What another user keeps for itself.


@as_root
def test_an_inaccessible_ledger_is_refused_with_a_message(shared: Path) -> None:
    """Some versions of Python take it for one that is not there, and some raise."""
    home = shared / STATE_DIR_NAME
    create_state_dir(home)
    connect.create_ledger(home / "ledger.db")
    place = LedgerLocation.for_manifest(str(shared / "m.yaml"))
    request = RunRequest(Manifest("m", str(shared / "m.yaml"), "", ()), API, place, Limits(), RunOptions())
    with being(NOBODY):
        for look in (
            lambda: path_exists(place.path),
            lambda: ledger_access.require_ledger(place.path),
            lambda: preview.refuse_running(request),
            lambda: preview.open_ledger(place).__enter__(),
            lambda: execution.open_execution(request, None, None, None).__enter__(),  # type: ignore[arg-type]  # it goes no further
        ):
            with pytest.raises(RefusedError, match=r"cannot be accessed: Permission denied") as caught:
                look()
            assert "--ledger" in caught.value.hint
        with pytest.raises(RefusedError, match="cannot tell whether 'm' is locked"):
            lock.describe_holder(place.path, API, "m")
        with pytest.raises(RefusedError, match="Permission denied"):
            JobFile(home / "sandbox")


@as_root
def test_a_manifest_in_an_inaccessible_directory_is_refused_with_a_message(shared: Path) -> None:
    private = shared / "private"
    private.mkdir(mode=0o700)
    (private / "m.yaml").touch()
    with being(NOBODY):
        for named in (private, private / "m.yaml"):
            assert manifests.may_be_several([str(named)]) == (named == private)
            with pytest.raises(UsageError, match="cannot be read: Permission denied"):
                manifests.load([str(named)])


# The ledger.


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def talk(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as one, pytest.MonkeyPatch.context() as at:
        at.chdir(path.parent)  # a socket's path is short
        one.bind(path.name)


SPECIAL = [pipe, link_to_a_pipe, talk, lambda path: path.symlink_to("/dev/null"), lambda path: path.mkdir()]
NAMES = ["pipe", "link-to-a-pipe", "socket", "device", "folder"]


@pytest.mark.parametrize("plant", SPECIAL, ids=NAMES)
@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_a_ledger_that_is_not_a_file_is_refused_without_waiting(
    tmp_path: Path, plant: Callable[[Path], None], *, read_only: bool
) -> None:
    plant(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match="is not a regular file"):
        Ledger(tmp_path / "ledger.db", read_only=read_only)
    with pytest.raises(LedgerError, match="already exists"):
        connect.create_ledger(tmp_path / "ledger.db")


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_a_link_in_place_of_a_file_of_sqlite_is_refused(tmp_path: Path, suffix: str, target: str) -> None:
    ledger = tmp_path / "ledger.db"
    connect.create_ledger(ledger)
    (tmp_path / "link.db").symlink_to(ledger)
    (tmp_path / "victim").write_bytes(b"precious")
    Path(f"{ledger}{suffix}").symlink_to(target)
    for path in (ledger, tmp_path / "link.db"):
        for read_only in (False, True):
            with pytest.raises(LedgerError, match="is not a regular file") as caught:
                Ledger(path, read_only=read_only)
            assert f"ledger.db{suffix}" in caught.value.message
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_new_ledger_does_not_follow_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").symlink_to("nowhere")
    for make in (connect.create_ledger, ledger_history.open_ledger):
        with pytest.raises(LedgerError):
            make(tmp_path / "ledger.db")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("plant", SPECIAL[:-2], ids=NAMES[:-2])
def test_a_lock_that_is_not_a_file_is_not_waited_for(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    ledger = tmp_path / "ledger.db"
    with lock.hold(ledger, API, "m", timeout=0, activity="run 1"):
        [file] = lock.directory(ledger).iterdir()
    file.unlink()
    plant(file)
    with suppress(RefusedError), lock.hold(ledger, API, "m", timeout=0, activity="run 1"):
        assert stat.S_ISFIFO(file.stat().st_mode)  # a lock on a pipe keeps two runs apart as well
    with suppress(RefusedError):
        lock.describe_holder(ledger, API, "m")


# Modes.


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, pytest.param(0o277, marks=as_root)])
def test_all_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        create_state_dir(tmp_path / STATE_DIR_NAME)
        home = tmp_path / STATE_DIR_NAME
        connect.create_ledger(home / "ledger.db")
        with Ledger(home / "ledger.db") as ledger, lock.hold(ledger.path, API, "m", timeout=0, activity="x"):
            JobFile(home / "sandbox").close()
            FILE.write(home / "results.json", ["{}"])
            modes = {path.relative_to(home): path.stat().st_mode & 0o077 for path in home.rglob("*")}
    finally:
        os.umask(before)
    assert home.stat().st_mode & 0o077 == 0
    assert {str(path): oct(mode) for path, mode in modes.items() if mode} == {}
    assert len(modes) >= 8


# Targets.


@as_root
@pytest.mark.parametrize("theirs", ["file", "link"])
def test_a_file_that_only_its_owner_can_replace_is_refused_early(shared: Path, tmp_path: Path, theirs: str) -> None:
    target = shared / "m.results.json"
    (tmp_path / "victim").write_text("kept", encoding="ascii")
    if theirs == "file":
        target.touch()
    else:
        target.symlink_to(tmp_path / "victim")
    with being(NOBODY):
        with pytest.raises(RefusedError, match="belongs to another user") as caught:
            FILE.check_writable(target)
        assert "--results PATH" in caught.value.hint
        FILE.check_writable(shared / "mine.json")
        FILE.write(shared / "mine.json", ["1"])
        FILE.check_writable(shared / "mine.json")
        FILE.write(shared / "mine.json", ["2"])
    FILE.check_writable(target)
    FILE.write(target, ["3"])  # root may, and follows no link
    assert target.read_text(encoding="ascii") == "3"
    assert (tmp_path / "victim").read_text(encoding="ascii") == "kept"


def test_a_hard_link_to_a_replaced_file_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept", encoding="ascii")
    (tmp_path / "target").hardlink_to(tmp_path / "other")
    FILE.check_writable(tmp_path / "target")
    FILE.write(tmp_path / "target", ["new"])
    assert (tmp_path / "other").read_text(encoding="ascii") == "kept"
    assert (tmp_path / "target").stat().st_nlink == 1


def test_a_temporary_file_cannot_be_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is: it is made anew, and what is in its place is not opened."""
    monkeypatch.setattr("runner.core.atomic_file.secrets.token_hex", lambda _: "foreseen")
    (tmp_path / "victim").write_text("kept", encoding="ascii")
    (tmp_path / ".pixxel-runner-foreseen.tmp").symlink_to("victim")
    with pytest.raises(RefusedError):
        FILE.write(tmp_path / "target", ["new"])
    assert (tmp_path / "victim").read_text(encoding="ascii") == "kept"
