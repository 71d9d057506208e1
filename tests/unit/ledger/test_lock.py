"""The lock of a manifest: one holder at a time, whatever happens to processes, files and filesystems."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from runner.core.errors import RefusedError
from runner.core.exit_codes import Exit
from runner.ledger import lock
from runner.ledger.lock import LockedError, describe_holder, hold

API = "https://api.example"

# A process that reports the result of its attempt in a line, and ends when its standard input does.
PROCESS = """
import os, signal, subprocess, sys, time
from pathlib import Path
from runner.ledger.lock import LockedError, hold

ledger, api, manifest, timeout, activity = sys.argv[1:6]


def report(text):
    print(text, flush=True)


def attempt(**options):
    return hold(Path(ledger), api, manifest, timeout=float(timeout), activity=activity, **options)


def hold_until_line(**options):
    try:
        with attempt(**options):
            report("held")
            sys.stdin.readline()
    except LockedError as error:
        report("locked " + error.message)

"""


@contextmanager
def start_process(
    ledger: Path, body: str, *, manifest: str = "nightly", timeout: float = 0
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROCESS + body, str(ledger), API, manifest, str(timeout), "run A"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def read_line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().rstrip("\n")


def send_line(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()


@contextmanager
def holding_process(ledger: Path, manifest: str = "nightly") -> Iterator[subprocess.Popen[str]]:
    """Start another process that holds the lock until a line is sent to it."""
    with start_process(ledger, "hold_until_line()", manifest=manifest) as running:
        assert read_line(running) == "held"
        yield running


def release(running: subprocess.Popen[str]) -> None:
    send_line(running)
    assert running.wait() == 0


def no_sleep(seconds: float) -> None:
    raise AssertionError(f"slept for {seconds} s")


def take_and_release(
    ledger: Path,
    manifest: str = "nightly",
    *,
    api: str = API,
    timeout: float = 0,
    sleep: Callable[[float], object] = no_sleep,
) -> None:
    with hold(ledger, api, manifest, timeout=timeout, activity="run B", sleep=sleep):
        pass


def lock_file(ledger: Path) -> Path:
    (file,) = Path(f"{ledger}.locks").iterdir()
    return file


def lowest_free_descriptor() -> int:
    """The lowest free file descriptor, which grows if one is leaked."""
    free = os.dup(0)
    os.close(free)
    return free


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


# One holder.


def test_one_of_ten_contenders_gets_the_lock(ledger: Path) -> None:
    body = "report('ready'); sys.stdin.readline(); hold_until_line()"
    with ExitStack() as stack:
        contenders = [stack.enter_context(start_process(ledger, body)) for _ in range(10)]
        assert [read_line(contender) for contender in contenders] == ["ready"] * 10
        for contender in contenders:
            send_line(contender)
        replies = {contender.pid: read_line(contender) for contender in contenders}
        winners = [pid for pid, reply in replies.items() if reply == "held"]
        assert len(winners) == 1
        losers = [reply for reply in replies.values() if reply != "held"]
        assert all(f"(pid {winners[0]} on" in reply or "no details" in reply for reply in losers)


def test_waiting_contenders_get_the_lock_one_at_a_time(ledger: Path) -> None:
    """Each holder creates a file that must not exist yet, which fails for two holders at once."""
    body = """
report('ready')
sys.stdin.readline()
mark = Path(ledger + '.mark')
for _ in range(20):
    with attempt(sleep=lambda seconds: time.sleep(seconds / 100)):
        mark.touch(exist_ok=False)
        mark.unlink()
report('done')
"""
    with ExitStack() as stack:
        contenders = [stack.enter_context(start_process(ledger, body, timeout=60)) for _ in range(10)]
        assert [read_line(contender) for contender in contenders] == ["ready"] * 10
        for contender in contenders:
            send_line(contender)
        assert [read_line(contender) for contender in contenders] == ["done"] * 10


def test_the_error_names_what_is_locked_and_the_holder(ledger: Path) -> None:
    with holding_process(ledger) as running, pytest.raises(LockedError) as caught:
        take_and_release(ledger)
    assert caught.value.exit_code is Exit.LOCKED
    message = caught.value.message
    assert "'nightly'" in message
    assert API in message
    assert f"run A (pid {running.pid} on {socket.gethostname()}, since 20" in message
    assert "waited" not in message
    assert "--lock-timeout" in caught.value.hint


def test_a_second_holder_in_the_same_process_is_refused(ledger: Path) -> None:
    with (
        hold(ledger, API, "nightly", timeout=0, activity="run A"),
        pytest.raises(LockedError, match=f"pid {os.getpid()} "),
    ):
        take_and_release(ledger)


def test_the_lock_is_released_when_the_body_raises(ledger: Path) -> None:
    before = lowest_free_descriptor()
    with pytest.raises(KeyboardInterrupt), hold(ledger, API, "nightly", timeout=0, activity="run A"):
        raise KeyboardInterrupt
    take_and_release(ledger)
    assert lowest_free_descriptor() == before


@pytest.mark.parametrize(
    ("manifest", "api"), [("weekly", API), ("nightly", "sandbox"), ("Nightly", API), ("nightly ", API)]
)
def test_another_manifest_or_api_has_another_lock(ledger: Path, manifest: str, api: str) -> None:
    with hold(ledger, API, "nightly", timeout=0, activity="run A"):
        take_and_release(ledger, manifest, api=api)


def test_every_path_to_a_ledger_has_the_same_locks(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.db").symlink_to(ledger)
    monkeypatch.chdir(tmp_path)
    with hold(ledger, API, "nightly", timeout=0, activity="run A"):
        for path in (tmp_path / "link.db", Path("ledger.db"), tmp_path / "." / "x" / ".." / "ledger.db"):
            with pytest.raises(LockedError):
                take_and_release(path)


@pytest.mark.parametrize("name", ["nightly", "../../etc", "a/b", "साँझ", "x" * 500, "", "\udc80", "a\nb", "..", "a\0b"])
def test_any_manifest_name_gives_a_private_ascii_file_name(ledger: Path, name: str) -> None:
    take_and_release(ledger, name)
    file = lock_file(ledger)
    assert file.name.isascii()
    assert "api-example-" in file.name or name == "x" * 500
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_the_file_name_contains_the_manifest_name(ledger: Path) -> None:
    take_and_release(ledger, "Nightly NDVI")
    assert lock_file(ledger).name.startswith("nightly-ndvi-https-api-example-")


# After a killed process.


def test_a_killed_holder_needs_no_cleanup(ledger: Path) -> None:
    with holding_process(ledger) as running:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    assert lock_file(ledger).read_text(encoding="utf-8"), "the text remains, and is ignored"
    assert describe_holder(ledger, API, "nightly") is None
    take_and_release(ledger)
    assert lock_file(ledger).exists()


def test_the_text_of_a_killed_holder_is_ignored(ledger: Path) -> None:
    """The next holder has the lock but has not written its text yet: the text is still the killed one's."""
    with holding_process(ledger) as running:
        running.kill()
        running.wait()
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match=r"another run \(no details available\)"):
            take_and_release(ledger)
        assert describe_holder(ledger, API, "nightly") == "another run (no details available)"


@pytest.mark.parametrize("changed", ["host", "pids"])
def test_a_holder_in_another_container_is_assumed_alive(ledger: Path, changed: str) -> None:
    with holding_process(ledger) as running:
        running.kill()
        running.wait()
    text = json.loads(lock_file(ledger).read_bytes())
    lock_file(ledger).write_text(json.dumps({**text, changed: "elsewhere"}), encoding="utf-8")
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert f"pid {running.pid} on" in str(describe_holder(ledger, API, "nightly"))


HOLDER = {"pid": 1, "host": "h", "pids": "", "since": "s", "activity": "a"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 5000,
        b'{"pid": 1',
        b"null",
        json.dumps({**HOLDER, "pid": "1"}).encode(),
        json.dumps({"pid": 1}).encode(),
        json.dumps({**HOLDER, "activity": "x" * 5000}).encode(),
    ],
)
def test_invalid_text_is_not_shown(ledger: Path, content: bytes) -> None:
    take_and_release(ledger)
    lock_file(ledger).write_bytes(content)
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert describe_holder(ledger, API, "nightly") == "another run (no details available)"


@pytest.mark.parametrize("pid", [0, -1, 2**31, 10**40])
def test_an_impossible_pid_counts_as_ended(ledger: Path, pid: int) -> None:
    take_and_release(ledger)
    holder = {**HOLDER, "pid": pid, "host": socket.gethostname(), "pids": lock._pid_namespace()}
    lock_file(ledger).write_text(json.dumps(holder), encoding="utf-8")
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert describe_holder(ledger, API, "nightly") == "another run (no details available)"


def test_a_program_started_by_the_holder_does_not_inherit_the_lock(ledger: Path) -> None:
    body = """
with attempt():
    command = [sys.executable, "-c", "import sys; print('started', flush=True); sys.stdin.read()"]
    subprocess.Popen(command, close_fds=False).wait()
"""
    with start_process(ledger, body) as running:
        assert read_line(running) == "started"
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        take_and_release(ledger)  # the started program is alive: its standard input is still open


FORK = """
import warnings
warnings.simplefilter("ignore")  # newer Pythons warn of forks
lives, ends = os.pipe()
with attempt():
    child = os.fork()
    if child == 0 and activity == "run A":
        %s
    %s
%s
"""


def test_an_exiting_forked_child_does_not_release_its_parents_lock(ledger: Path) -> None:
    body = FORK % ("sys.exit()", "os.waitpid(child, 0); report('held'); sys.stdin.readline()", "")
    with start_process(ledger, body) as running:
        assert read_line(running) == "held"
        with pytest.raises(LockedError, match=f"run A .pid {running.pid} "):
            take_and_release(ledger)


def test_a_surviving_forked_child_does_not_keep_its_parents_lock(ledger: Path) -> None:
    body = FORK % ("os.close(ends); os.read(lives, 1); os._exit(0)", "", "report('released'); sys.stdin.readline()")
    with start_process(ledger, body) as running:
        assert read_line(running) == "released"
        take_and_release(ledger)


# Waiting.


def test_waiting_succeeds_when_the_holder_releases_the_lock(ledger: Path) -> None:
    with holding_process(ledger) as running:
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            release(running)

        take_and_release(ledger, timeout=60, sleep=sleep)
    assert len(waits) == 1
    assert 0 < waits[0] <= 1


def test_a_waiting_process_gets_the_lock_from_another(ledger: Path) -> None:
    body = "hold_until_line(sleep=lambda seconds: (report('waits'), sys.stdin.readline()))"
    with holding_process(ledger) as running, start_process(ledger, body, timeout=60) as waiting:
        assert read_line(waiting) == "waits"
        release(running)
        send_line(waiting)
        assert read_line(waiting) == "held"


def test_a_wait_in_real_time(ledger: Path) -> None:
    with (
        holding_process(ledger) as running,
        start_process(ledger, "report('starts'); hold_until_line()", timeout=60) as waiting,
    ):
        assert read_line(waiting) == "starts"
        release(running)
        assert read_line(waiting) == "held"


def test_waiting_ends_with_a_last_attempt_at_the_timeout(ledger: Path) -> None:
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with (
        holding_process(ledger) as running,
        pytest.raises(LockedError, match=rf"pid {running.pid} .*; waited 0\.5 s"),
        hold(ledger, API, "nightly", timeout=0.5, activity="run B", clock=lambda: now[0], sleep=sleep),
    ):
        raise AssertionError
    assert now[0] == pytest.approx(1000.5)


def test_the_last_attempt_can_succeed(ledger: Path) -> None:
    now = [0.0]
    with holding_process(ledger) as running:

        def sleep(seconds: float) -> None:
            now[0] += seconds
            if now[0] >= 0.5:
                release(running)

        with hold(ledger, API, "nightly", timeout=0.5, activity="run B", clock=lambda: now[0], sleep=sleep):
            pass


def test_an_interrupted_wait_leaks_nothing(ledger: Path) -> None:
    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    with holding_process(ledger) as running:
        before = lowest_free_descriptor()
        with pytest.raises(KeyboardInterrupt):
            take_and_release(ledger, timeout=60, sleep=sleep)
        assert lowest_free_descriptor() == before
        release(running)
    take_and_release(ledger)


def test_a_wait_interrupted_by_a_signal(ledger: Path) -> None:
    body = """
try:
    hold_until_line(sleep=lambda seconds: (report('waits'), time.sleep(seconds)))
except KeyboardInterrupt:
    report('interrupted')
"""
    with holding_process(ledger), start_process(ledger, body, timeout=60) as waiting:
        assert read_line(waiting) == "waits"
        os.kill(waiting.pid, signal.SIGINT)
        assert next(reply for reply in iter(lambda: read_line(waiting), "") if reply != "waits") == "interrupted"
        assert waiting.wait() == 0


# The file and its directory.


def test_a_file_deleted_while_being_locked_does_not_count(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, the file is deleted, and another run holds the new one."""
    original_open = lock._open
    with ExitStack() as stack:
        opened: list[int] = []

        def open_and_delete(path: Path) -> int:
            opened.append(descriptor := original_open(path))
            if len(opened) == 1:
                path.unlink()
                stack.enter_context(holding_process(ledger))
            return descriptor

        monkeypatch.setattr(lock, "_open", open_and_delete)
        before = lowest_free_descriptor()
        with pytest.raises(LockedError, match="run A"):
            take_and_release(ledger, sleep=lambda _seconds: None)
        assert len(opened) == 2
        stack.close()
        assert lowest_free_descriptor() == before


def test_a_directory_deleted_while_its_file_is_being_locked_is_recreated(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original_open = lock._open
    opened: list[int] = []

    def open_and_delete(path: Path) -> int:
        opened.append(descriptor := original_open(path))
        if len(opened) == 1:
            path.unlink()
            path.parent.rmdir()
        return descriptor

    monkeypatch.setattr(lock, "_open", open_and_delete)
    with hold(ledger, API, "nightly", timeout=0, activity="run B", sleep=lambda _seconds: None):
        assert os.path.samestat(os.fstat(opened[1]), lock_file(ledger).stat())


def test_a_file_that_keeps_disappearing_is_refused(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original_open = lock._open

    def open_and_delete(path: Path) -> int:
        descriptor = original_open(path)
        path.unlink()
        return descriptor

    monkeypatch.setattr(lock, "_open", open_and_delete)
    with pytest.raises(RefusedError, match="keeps being replaced"):
        take_and_release(ledger, sleep=lambda _seconds: None)


def test_a_directory_that_cannot_be_created_is_refused(ledger: Path) -> None:
    Path(f"{ledger}.locks").write_text("in the way", encoding="utf-8")
    with pytest.raises(RefusedError, match=r"cannot be used: File exists"):
        take_and_release(ledger)
    assert describe_holder(ledger, API, "nightly") is None


def test_a_missing_parent_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot be used: No such file"):
        take_and_release(tmp_path / "gone" / "ledger.db")
    assert not (tmp_path / "gone").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_refused(ledger: Path) -> None:
    ledger.parent.chmod(0o500)
    try:
        with pytest.raises(RefusedError, match="cannot be used: Permission denied"):
            take_and_release(ledger)
    finally:
        ledger.parent.chmod(0o700)


def test_a_symbolic_link_in_place_of_the_lock_is_not_followed(ledger: Path, tmp_path: Path) -> None:
    take_and_release(ledger)
    precious = tmp_path / "precious"
    precious.write_text("precious", encoding="utf-8")
    file = lock_file(ledger)
    file.unlink()
    file.symlink_to(precious)
    with pytest.raises(RefusedError, match="cannot be used"):
        take_and_release(ledger)
    with pytest.raises(RefusedError, match="cannot be used"):
        describe_holder(ledger, API, "nightly")
    assert precious.read_text(encoding="utf-8") == "precious"


def test_on_a_full_disk_only_the_description_is_missing(ledger: Path) -> None:
    """A limit on file sizes makes every write fail, as on a full disk."""
    body = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); hold_until_line()"
    with start_process(ledger, body) as running:
        assert read_line(running) == "held"
        assert lock_file(ledger).read_bytes() == b""
        with pytest.raises(LockedError, match=r"another run \(no details available\)"):
            take_and_release(ledger)


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_a_filesystem_without_locks_is_refused(ledger: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    take_and_release(ledger)
    fail_to_lock(monkeypatch, code)
    for action in (take_and_release, lambda ledger: describe_holder(ledger, API, "nightly")):
        before = lowest_free_descriptor()
        with pytest.raises(RefusedError, match="does not support locks") as caught:
            action(ledger)
        assert "network filesystems are not supported" in caught.value.hint
        assert lowest_free_descriptor() == before


def test_any_other_error_of_flock_is_refused(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_lock(monkeypatch, errno.EIO)
    with pytest.raises(RefusedError, match="cannot be used: Input/output error"):
        take_and_release(ledger)


def fail_to_lock(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Replace the system call, as no filesystem at hand fails like this."""

    def flock(_descriptor: int, _kind: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


# The holder's description.


def test_describe_holder_names_the_holder_without_disturbing_it(ledger: Path) -> None:
    with holding_process(ledger) as running:
        description = describe_holder(ledger, API, "nightly")
        assert description is not None
        assert description.startswith(f"run A (pid {running.pid} on {socket.gethostname()}, since 20")
        assert describe_holder(ledger, API, "weekly") is None
        with pytest.raises(LockedError):
            take_and_release(ledger)
        release(running)
    assert describe_holder(ledger, API, "nightly") is None


def test_describe_holder_creates_nothing(ledger: Path, tmp_path: Path) -> None:
    assert describe_holder(ledger, API, "nightly") is None
    assert list(tmp_path.iterdir()) == []


def test_a_concurrent_check_does_not_refuse_a_run(ledger: Path) -> None:
    take_and_release(ledger)
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert describe_holder(ledger, API, "nightly") is None

        def sleep(_seconds: float) -> None:
            fcntl.flock(file, fcntl.LOCK_UN)

        take_and_release(ledger, timeout=0, sleep=sleep)


def test_an_endless_shared_lock_counts_as_a_holder(ledger: Path) -> None:
    take_and_release(ledger)
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(LockedError, match=r"another run \(no details available\)"):
            take_and_release(ledger, sleep=lambda _seconds: None)


def test_a_long_description_is_truncated(ledger: Path) -> None:
    with hold(ledger, API, "nightly", timeout=0, activity="x" * 10_000):
        assert f"{'x' * 200} (pid {os.getpid()} " in str(describe_holder(ledger, API, "nightly"))


def test_the_description_is_one_line_of_json(ledger: Path) -> None:
    with hold(ledger, API, "nightly", timeout=0, activity="run\nA"):
        text = lock_file(ledger).read_bytes()
    assert text.count(b"\n") == 1
    assert json.loads(text)["activity"] == "run\nA"
    assert lock_file(ledger).read_bytes() == b""
