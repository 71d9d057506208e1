"""Files planted by other users, and special files: symlinks are not followed, nothing blocks, files stay private."""

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
requires_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Access files as another user."""
    codecs.lookup("ascii")  # import it now: that user may not be able to read Python's directory
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def shared_directory(tmp_path: Path) -> Path:
    """A directory that everyone can write to, such as /tmp."""
    for directory in [tmp_path, *tmp_path.parents]:
        with suppress(PermissionError):
            if (
                directory.stat().st_uid == os.geteuid()
                and directory != Path("/")
                and not directory.stat().st_mode & 0o001
            ):
                directory.chmod(directory.stat().st_mode | 0o011)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    return shared


# The state directory


@requires_root
@pytest.mark.parametrize("kind", ["directory", "link", "link to own"])
def test_state_directory_planted_by_another_user_is_refused(shared_directory: Path, tmp_path: Path, kind: str) -> None:
    state_dir = shared_directory / STATE_DIR_NAME
    own_directory, other_directory = tmp_path / "ours", shared_directory / "theirs"
    own_directory.mkdir()
    with as_user(NOBODY):
        other_directory.mkdir(mode=0o777)
        if kind == "directory":
            state_dir.mkdir(mode=0o777)
        else:
            state_dir.symlink_to(other_directory if kind == "link" else own_directory)
    manifest = str(shared_directory / "m.yaml")
    for function in (
        lambda: create_state_dir(state_dir),
        lambda: LedgerLocation.for_manifest(manifest),
        lambda: LedgerLocation.for_manifest(manifest, Path("named.db"), sandbox=True),
    ):
        with pytest.raises(RefusedError, match=r"belongs to another user \(uid 65534\)") as caught:
            function()
        assert caught.value.hint
    assert [*other_directory.iterdir(), *own_directory.iterdir()] == []
    assert LedgerLocation.for_manifest(manifest, Path("named.db")).path == Path(
        "named.db"
    )  # the state directory is not used


@requires_root
def test_state_directory_of_root_or_of_the_parent_directory_owner_is_trusted(
    shared_directory: Path, tmp_path: Path
) -> None:
    """As when root in a container uses a person's checkout, or a person uses a directory that root created."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    os.chown(checkout, NOBODY, NOBODY)
    with as_user(NOBODY):
        create_state_dir(checkout / STATE_DIR_NAME)
    create_state_dir(checkout / STATE_DIR_NAME)
    create_state_dir(shared_directory / STATE_DIR_NAME)
    with as_user(NOBODY):
        assert (
            LedgerLocation.for_manifest(str(shared_directory / "m.yaml")).path.parent
            == shared_directory / STATE_DIR_NAME
        )


@pytest.mark.parametrize("target", ["nowhere", "empty", "full"])
def test_gitignore_symlink_is_not_followed(tmp_path: Path, target: str) -> None:
    """A repository can contain such a symlink, and its target could be any file of the user."""
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_text("kept\n", encoding="ascii")
    state_dir = tmp_path / STATE_DIR_NAME
    state_dir.mkdir()
    (state_dir / ".gitignore").symlink_to(f"../{target}")
    create_state_dir(state_dir)
    assert not (tmp_path / "nowhere").exists()
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "full").read_text(encoding="ascii") == "kept\n"


def test_state_directory_symlink_adds_no_gitignore_to_its_target(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / STATE_DIR_NAME).symlink_to("work")
    create_state_dir(tmp_path / STATE_DIR_NAME)
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("create", [os.mkfifo, lambda path: path.mkdir()], ids=["pipe", "directory"])
def test_special_file_in_place_of_the_gitignore_is_ignored(tmp_path: Path, create: Callable[[Path], object]) -> None:
    (tmp_path / STATE_DIR_NAME).mkdir()
    create(tmp_path / STATE_DIR_NAME / ".gitignore")
    create_state_dir(tmp_path / STATE_DIR_NAME)


def test_sandbox_job_file_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "jobs.jsonl").symlink_to("../victim")
    with pytest.raises(RefusedError):
        JobFile(tmp_path / "sandbox")
    assert not (tmp_path / "victim").exists()
    JobFile(tmp_path / "sandbox" / "jobs.jsonl").close()  # named explicitly
    assert (tmp_path / "victim").exists()


def test_sandbox_job_file_pipe_is_refused_without_blocking(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    os.mkfifo(tmp_path / "sandbox" / "jobs.jsonl")
    with pytest.raises(RefusedError, match="not a regular file"):
        JobFile(tmp_path / "sandbox")


# Files without access


@requires_root
def test_inaccessible_ledger_is_refused(shared_directory: Path) -> None:
    """Some versions of Python report it as missing, and others raise."""
    state_dir = shared_directory / STATE_DIR_NAME
    create_state_dir(state_dir)
    connect.create_ledger(state_dir / "ledger.db")
    location = LedgerLocation.for_manifest(str(shared_directory / "m.yaml"))
    request = RunRequest(Manifest("m", str(shared_directory / "m.yaml"), "", ()), API, location, Limits(), RunOptions())
    with as_user(NOBODY):
        for function in (
            lambda: path_exists(location.path),
            lambda: ledger_access.require_ledger(location),
            lambda: preview.refuse_running(request),
            lambda: preview.open_ledger(location).__enter__(),
            lambda: execution.open_execution(request, None, None, None).__enter__(),  # type: ignore[arg-type]  # unused: it is refused first
        ):
            with pytest.raises(RefusedError, match=r"cannot be accessed: Permission denied") as caught:
                function()
            assert "--ledger" in caught.value.hint
        with pytest.raises(RefusedError, match="cannot tell whether 'm' is locked"):
            lock.describe_holder(location.path, API, "m")
        with pytest.raises(RefusedError, match="Permission denied"):
            JobFile(state_dir / "sandbox")


@requires_root
def test_manifest_in_an_inaccessible_directory_is_rejected(shared_directory: Path) -> None:
    private = shared_directory / "private"
    private.mkdir(mode=0o700)
    (private / "m.yaml").touch()
    with as_user(NOBODY):
        for path in (private, private / "m.yaml"):
            assert manifests.may_be_several([str(path)]) == (path == private)
            with pytest.raises(UsageError, match="cannot be read: Permission denied"):
                manifests.load([str(path)])


# Ledgers and locks


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def make_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as unix_socket, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(path.parent)  # socket paths are limited in length
        unix_socket.bind(path.name)


SPECIAL_FILES = [
    make_pipe,
    make_link_to_pipe,
    make_socket,
    lambda path: path.symlink_to("/dev/null"),
    lambda path: path.mkdir(),
]
SPECIAL_FILE_IDS = ["pipe", "link-to-a-pipe", "socket", "device", "directory"]


@pytest.mark.parametrize("plant", SPECIAL_FILES, ids=SPECIAL_FILE_IDS)
@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_special_file_as_ledger_is_refused_without_blocking(
    tmp_path: Path, plant: Callable[[Path], None], *, read_only: bool
) -> None:
    plant(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match="is not a regular file"):
        Ledger(tmp_path / "ledger.db", read_only=read_only)
    with pytest.raises(LedgerError, match="already exists"):
        connect.create_ledger(tmp_path / "ledger.db")


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_symlink_in_place_of_a_sqlite_file_is_refused(tmp_path: Path, suffix: str, target: str) -> None:
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


def test_new_ledger_does_not_follow_a_dangling_symlink(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").symlink_to("nowhere")
    for create in (connect.create_ledger, ledger_history.open_ledger):
        with pytest.raises(LedgerError):
            create(tmp_path / "ledger.db")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("plant", SPECIAL_FILES[:-2], ids=SPECIAL_FILE_IDS[:-2])
def test_special_file_as_lock_does_not_block(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    ledger = tmp_path / "ledger.db"
    with lock.hold(ledger, API, "m", timeout=0, activity="run 1"):
        [file] = lock.directory(ledger).iterdir()
    file.unlink()
    plant(file)
    with suppress(RefusedError), lock.hold(ledger, API, "m", timeout=0, activity="run 1"):
        assert stat.S_ISFIFO(file.stat().st_mode)  # a lock on a pipe also excludes other runs
    with suppress(RefusedError):
        lock.describe_holder(ledger, API, "m")


# Permissions


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, pytest.param(0o277, marks=requires_root)])
def test_all_files_are_private_regardless_of_the_umask(tmp_path: Path, umask: int) -> None:
    previous_umask = os.umask(umask)
    try:
        create_state_dir(tmp_path / STATE_DIR_NAME)
        state_dir = tmp_path / STATE_DIR_NAME
        connect.create_ledger(state_dir / "ledger.db")
        with Ledger(state_dir / "ledger.db") as ledger, lock.hold(ledger.path, API, "m", timeout=0, activity="x"):
            JobFile(state_dir / "sandbox").close()
            FILE.write(state_dir / "results.json", ["{}"])
            modes = {path.relative_to(state_dir): path.stat().st_mode & 0o077 for path in state_dir.rglob("*")}
    finally:
        os.umask(previous_umask)
    assert state_dir.stat().st_mode & 0o077 == 0
    assert {str(path): oct(mode) for path, mode in modes.items() if mode} == {}
    assert len(modes) >= 8


# Output files


@requires_root
@pytest.mark.parametrize("kind", ["file", "link"])
def test_file_that_only_its_owner_can_replace_is_refused_early(
    shared_directory: Path, tmp_path: Path, kind: str
) -> None:
    target = shared_directory / "m.results.json"
    (tmp_path / "victim").write_text("kept", encoding="ascii")
    if kind == "file":
        target.touch()
    else:
        target.symlink_to(tmp_path / "victim")
    with as_user(NOBODY):
        with pytest.raises(RefusedError, match="belongs to another user") as caught:
            FILE.check_writable(target)
        assert "--results PATH" in caught.value.hint
        FILE.check_writable(shared_directory / "mine.json")
        FILE.write(shared_directory / "mine.json", ["1"])
        FILE.check_writable(shared_directory / "mine.json")
        FILE.write(shared_directory / "mine.json", ["2"])
    FILE.check_writable(target)
    FILE.write(target, ["3"])  # root may, and does not follow the symlink
    assert target.read_text(encoding="ascii") == "3"
    assert (tmp_path / "victim").read_text(encoding="ascii") == "kept"


def test_hard_link_to_a_replaced_file_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept", encoding="ascii")
    (tmp_path / "target").hardlink_to(tmp_path / "other")
    FILE.check_writable(tmp_path / "target")
    FILE.write(tmp_path / "target", ["new"])
    assert (tmp_path / "other").read_text(encoding="ascii") == "kept"
    assert (tmp_path / "target").stat().st_nlink == 1


def test_existing_temporary_file_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if its name is predicted: the file is created exclusively."""
    monkeypatch.setattr("runner.core.atomic_file.secrets.token_hex", lambda _: "foreseen")
    (tmp_path / "victim").write_text("kept", encoding="ascii")
    (tmp_path / ".pixxel-runner-foreseen.tmp").symlink_to("victim")
    with pytest.raises(RefusedError):
        FILE.write(tmp_path / "target", ["new"])
    assert (tmp_path / "victim").read_text(encoding="ascii") == "kept"
