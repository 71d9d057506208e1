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

# A process that speaks line by line: it says what became of its try, and ends when its standard input does.
PROCESS = """
import os, signal, subprocess, sys, time
from pathlib import Path
from runner.ledger.lock import LockedError, hold

ledger, api, manifest, timeout, about = sys.argv[1:6]


def say(text):
    print(text, flush=True)


def attempt(**options):
    return hold(Path(ledger), api, manifest, timeout=float(timeout), activity=about, **options)


def hold_until_told(**options):
    try:
        with attempt(**options):
            say("held")
            sys.stdin.readline()
    except LockedError as error:
        say("locked " + error.message)

"""


@contextmanager
def process(
    ledger: Path, body: str, *, manifest: str = "nightly", timeout: float = 0
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROCESS + body, str(ledger), API, manifest, str(timeout), "run A"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().rstrip("\n")


def tell(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    running.stdin.write("\n")
    running.stdin.flush()


@contextmanager
def other(ledger: Path, manifest: str = "nightly") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it is told to leave."""
    with process(ledger, "hold_until_told()", manifest=manifest) as running:
        assert line(running) == "held"
        yield running


def leave(running: subprocess.Popen[str]) -> None:
    tell(running)
    assert running.wait() == 0


def no_sleep(seconds: float) -> None:
    raise AssertionError(f"slept for {seconds} s")


def take(
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
    (only,) = Path(f"{ledger}.locks").iterdir()
    return only


def descriptors() -> int:
    """The lowest descriptor that is free: it grows when one is leaked."""
    free = os.dup(0)
    os.close(free)
    return free


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


# One holder


def test_ten_contenders_one_gets_it(ledger: Path) -> None:
    body = "say('ready'); sys.stdin.readline(); hold_until_told()"
    with ExitStack() as stack:
        contenders = [stack.enter_context(process(ledger, body)) for _ in range(10)]
        assert [line(one) for one in contenders] == ["ready"] * 10
        for one in contenders:
            tell(one)
        answers = {one.pid: line(one) for one in contenders}
        winners = [pid for pid, answer in answers.items() if answer == "held"]
        assert len(winners) == 1
        losers = [answer for answer in answers.values() if answer != "held"]
        assert all(f"(pid {winners[0]} on" in answer or "no details" in answer for answer in losers)


def test_ten_contenders_that_wait_get_it_one_after_the_other(ledger: Path) -> None:
    """Each makes a file that must not be there: two holders at once would meet."""
    body = """
say('ready')
sys.stdin.readline()
mark = Path(ledger + '.mark')
for _ in range(20):
    with attempt(sleep=lambda seconds: time.sleep(seconds / 100)):
        mark.touch(exist_ok=False)
        mark.unlink()
say('done')
"""
    with ExitStack() as stack:
        contenders = [stack.enter_context(process(ledger, body, timeout=60)) for _ in range(10)]
        assert [line(one) for one in contenders] == ["ready"] * 10
        for one in contenders:
            tell(one)
        assert [line(one) for one in contenders] == ["done"] * 10


def test_a_refusal_says_what_is_locked_and_by_whom(ledger: Path) -> None:
    with other(ledger) as running, pytest.raises(LockedError) as caught:
        take(ledger)
    assert caught.value.exit_code is Exit.LOCKED
    message = caught.value.message
    assert "'nightly'" in message
    assert API in message
    assert f"run A (pid {running.pid} on {socket.gethostname()}, since 20" in message
    assert "waited" not in message
    assert "--lock-timeout" in caught.value.hint


def test_the_same_process_is_kept_out_too(ledger: Path) -> None:
    with (
        hold(ledger, API, "nightly", timeout=0, activity="run A"),
        pytest.raises(LockedError, match=f"pid {os.getpid()} "),
    ):
        take(ledger)


def test_it_is_free_after_the_body_even_when_the_body_fails(ledger: Path) -> None:
    before = descriptors()
    with pytest.raises(KeyboardInterrupt), hold(ledger, API, "nightly", timeout=0, activity="run A"):
        raise KeyboardInterrupt
    take(ledger)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("manifest", "api"), [("weekly", API), ("nightly", "sandbox"), ("Nightly", API), ("nightly ", API)]
)
def test_another_manifest_or_api_is_not_kept_out(ledger: Path, manifest: str, api: str) -> None:
    with hold(ledger, API, "nightly", timeout=0, activity="run A"):
        take(ledger, manifest, api=api)


def test_a_ledger_is_the_same_one_by_every_path(ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link.db").symlink_to(ledger)
    monkeypatch.chdir(tmp_path)
    with hold(ledger, API, "nightly", timeout=0, activity="run A"):
        for path in (tmp_path / "link.db", Path("ledger.db"), tmp_path / "." / "x" / ".." / "ledger.db"):
            with pytest.raises(LockedError):
                take(path)


@pytest.mark.parametrize("name", ["nightly", "../../etc", "a/b", "साँझ", "x" * 500, "", "\udc80", "a\nb", "..", "a\0b"])
def test_any_name_makes_a_readable_private_file_beside_the_ledger(ledger: Path, name: str) -> None:
    take(ledger, name)
    file = lock_file(ledger)
    assert file.name.isascii()
    assert "api-example-" in file.name or name == "x" * 500
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_name_that_can_be_read_is_read_in_the_files_name(ledger: Path) -> None:
    take(ledger, "Nightly NDVI")
    assert lock_file(ledger).name.startswith("nightly-ndvi-https-api-example-")


# What a killed process leaves


def test_a_killed_holder_leaves_nothing_to_clean_up(ledger: Path) -> None:
    with other(ledger) as running:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    assert lock_file(ledger).read_text(encoding="utf-8"), "the text stays, and is not believed"
    assert describe_holder(ledger, API, "nightly") is None
    take(ledger)
    assert lock_file(ledger).exists()


def test_a_killed_holders_text_is_not_taken_for_the_next_holders(ledger: Path) -> None:
    """The next holder has the lock and has not written yet: what is read then is the killed one's."""
    with other(ledger) as running:
        running.kill()
        running.wait()
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match=r"another run \(no details available\)"):
            take(ledger)
        assert describe_holder(ledger, API, "nightly") == "another run (no details available)"


@pytest.mark.parametrize("changed", ["host", "pids"])
def test_a_holder_in_another_container_is_believed(ledger: Path, changed: str) -> None:
    with other(ledger) as running:
        running.kill()
        running.wait()
    text = json.loads(lock_file(ledger).read_bytes())
    lock_file(ledger).write_text(json.dumps({**text, changed: "elsewhere"}), encoding="utf-8")
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert f"pid {running.pid} on" in str(describe_holder(ledger, API, "nightly"))


WHO = {"pid": 1, "host": "h", "pids": "", "since": "s", "activity": "a"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 5000,
        b'{"pid": 1',
        b"null",
        json.dumps({**WHO, "pid": "1"}).encode(),
        json.dumps({"pid": 1}).encode(),
        json.dumps({**WHO, "activity": "x" * 5000}).encode(),
    ],
)
def test_a_text_that_is_no_holders_is_not_shown(ledger: Path, text: bytes) -> None:
    take(ledger)
    lock_file(ledger).write_bytes(text)
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert describe_holder(ledger, API, "nightly") == "another run (no details available)"


@pytest.mark.parametrize("pid", [0, -1, 2**31, 10**40])
def test_a_pid_that_none_has_is_not_asked_for(ledger: Path, pid: int) -> None:
    take(ledger)
    who = {**WHO, "pid": pid, "host": socket.gethostname(), "pids": lock._pid_namespace()}
    lock_file(ledger).write_text(json.dumps(who), encoding="utf-8")
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert describe_holder(ledger, API, "nightly") == "another run (no details available)"


def test_a_program_that_the_holder_started_does_not_keep_the_lock(ledger: Path) -> None:
    body = """
with attempt():
    command = [sys.executable, "-c", "import sys; print('started', flush=True); sys.stdin.read()"]
    subprocess.Popen(command, close_fds=False).wait()
"""
    with process(ledger, body) as running:
        assert line(running) == "started"
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        take(ledger)  # the started program lives: its standard input is still open


FORK = """
import warnings
warnings.simplefilter("ignore")  # newer Pythons warn of forks
lives, ends = os.pipe()
with attempt():
    child = os.fork()
    if child == 0 and about == "run A":
        %s
    %s
%s
"""


def test_a_forked_child_that_leaves_does_not_give_up_its_parents_lock(ledger: Path) -> None:
    body = FORK % ("sys.exit()", "os.waitpid(child, 0); say('held'); sys.stdin.readline()", "")
    with process(ledger, body) as running:
        assert line(running) == "held"
        with pytest.raises(LockedError, match=f"run A .pid {running.pid} "):
            take(ledger)


def test_a_forked_child_that_lives_on_does_not_keep_its_parents_lock(ledger: Path) -> None:
    body = FORK % ("os.close(ends); os.read(lives, 1); os._exit(0)", "", "say('left'); sys.stdin.readline()")
    with process(ledger, body) as running:
        assert line(running) == "left"
        take(ledger)


# Waiting


def test_waiting_succeeds_when_the_holder_leaves(ledger: Path) -> None:
    with other(ledger) as running:
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            leave(running)

        take(ledger, timeout=60, sleep=sleep)
    assert len(slept) == 1
    assert 0 < slept[0] <= 1


def test_a_process_that_waits_gets_it_when_the_holder_leaves(ledger: Path) -> None:
    body = "hold_until_told(sleep=lambda seconds: (say('waits'), sys.stdin.readline()))"
    with other(ledger) as running, process(ledger, body, timeout=60) as waiting:
        assert line(waiting) == "waits"
        leave(running)
        tell(waiting)
        assert line(waiting) == "held"


def test_a_real_wait(ledger: Path) -> None:
    with other(ledger) as running, process(ledger, "say('starts'); hold_until_told()", timeout=60) as waiting:
        assert line(waiting) == "starts"
        leave(running)
        assert line(waiting) == "held"


def test_waiting_ends_with_a_last_try_when_the_time_is_over(ledger: Path) -> None:
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with (
        other(ledger) as running,
        pytest.raises(LockedError, match=rf"pid {running.pid} .*; waited 0\.5 s"),
        hold(ledger, API, "nightly", timeout=0.5, activity="run B", clock=lambda: now[0], sleep=sleep),
    ):
        raise AssertionError
    assert now[0] == pytest.approx(1000.5)


def test_the_last_try_can_succeed(ledger: Path) -> None:
    now = [0.0]
    with other(ledger) as running:

        def sleep(seconds: float) -> None:
            now[0] += seconds
            if now[0] >= 0.5:
                leave(running)

        with hold(ledger, API, "nightly", timeout=0.5, activity="run B", clock=lambda: now[0], sleep=sleep):
            pass


def test_an_interrupt_while_waiting_leaves_nothing_behind(ledger: Path) -> None:
    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    with other(ledger) as running:
        before = descriptors()
        with pytest.raises(KeyboardInterrupt):
            take(ledger, timeout=60, sleep=sleep)
        assert descriptors() == before
        leave(running)
    take(ledger)


def test_a_real_interrupt_while_waiting(ledger: Path) -> None:
    body = """
try:
    hold_until_told(sleep=lambda seconds: (say('waits'), time.sleep(seconds)))
except KeyboardInterrupt:
    say('interrupted')
"""
    with other(ledger), process(ledger, body, timeout=60) as waiting:
        assert line(waiting) == "waits"
        os.kill(waiting.pid, signal.SIGINT)
        assert next(said for said in iter(lambda: line(waiting), "") if said != "waits") == "interrupted"
        assert waiting.wait() == 0


# The file and its folder


def test_a_file_deleted_while_it_is_being_locked_is_no_lock(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, the file goes and another run holds the new one."""
    really_open = lock._open
    with ExitStack() as stack:
        opened: list[int] = []

        def open_and_lose(path: Path) -> int:
            opened.append(handle := really_open(path))
            if len(opened) == 1:
                path.unlink()
                stack.enter_context(other(ledger))
            return handle

        monkeypatch.setattr(lock, "_open", open_and_lose)
        before = descriptors()
        with pytest.raises(LockedError, match="run A"):
            take(ledger, sleep=lambda _seconds: None)
        assert len(opened) == 2
        stack.close()
        assert descriptors() == before


def test_a_folder_deleted_while_its_file_is_being_locked_is_made_again(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = lock._open
    opened: list[int] = []

    def open_and_lose(path: Path) -> int:
        opened.append(handle := really_open(path))
        if len(opened) == 1:
            path.unlink()
            path.parent.rmdir()
        return handle

    monkeypatch.setattr(lock, "_open", open_and_lose)
    with hold(ledger, API, "nightly", timeout=0, activity="run B", sleep=lambda _seconds: None):
        assert os.path.samestat(os.fstat(opened[1]), lock_file(ledger).stat())


def test_a_file_that_never_stays_is_refused(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = lock._open

    def open_and_lose(path: Path) -> int:
        handle = really_open(path)
        path.unlink()
        return handle

    monkeypatch.setattr(lock, "_open", open_and_lose)
    with pytest.raises(RefusedError, match="keeps being replaced"):
        take(ledger, sleep=lambda _seconds: None)


def test_a_folder_that_cannot_be_made_is_refused(ledger: Path) -> None:
    Path(f"{ledger}.locks").write_text("in the way", encoding="utf-8")
    with pytest.raises(RefusedError, match=r"cannot be used: File exists"):
        take(ledger)
    assert describe_holder(ledger, API, "nightly") is None


def test_a_ledgers_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot be used: No such file"):
        take(tmp_path / "gone" / "ledger.db")
    assert not (tmp_path / "gone").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(ledger: Path) -> None:
    ledger.parent.chmod(0o500)
    try:
        with pytest.raises(RefusedError, match="cannot be used: Permission denied"):
            take(ledger)
    finally:
        ledger.parent.chmod(0o700)


def test_a_link_in_the_files_place_is_not_followed(ledger: Path, tmp_path: Path) -> None:
    take(ledger)
    precious = tmp_path / "precious"
    precious.write_text("kept", encoding="utf-8")
    file = lock_file(ledger)
    file.unlink()
    file.symlink_to(precious)
    with pytest.raises(RefusedError, match="cannot be used"):
        take(ledger)
    with pytest.raises(RefusedError, match="cannot be used"):
        describe_holder(ledger, API, "nightly")
    assert precious.read_text(encoding="utf-8") == "kept"


def test_a_full_disk_costs_the_text_alone(ledger: Path) -> None:
    """A file size limit makes each write fail as a full disk does."""
    body = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); hold_until_told()"
    with process(ledger, body) as running:
        assert line(running) == "held"
        assert lock_file(ledger).read_bytes() == b""
        with pytest.raises(LockedError, match=r"another run \(no details available\)"):
            take(ledger)


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(ledger: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    take(ledger)
    failing(monkeypatch, code)
    for attempt in (take, lambda ledger: describe_holder(ledger, API, "nightly")):
        before = descriptors()
        with pytest.raises(RefusedError, match="does not support locks") as caught:
            attempt(ledger)
        assert "network filesystems are not supported" in caught.value.hint
        assert descriptors() == before


def test_another_failure_to_lock_is_refused(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errno.EIO)
    with pytest.raises(RefusedError, match="cannot be used: Input/output error"):
        take(ledger)


def failing(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """No file system at hand fails so: the system call is replaced."""

    def flock(_handle: int, _kind: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


# Who holds it


def test_holder_says_who_and_disturbs_nobody(ledger: Path) -> None:
    with other(ledger) as running:
        words = describe_holder(ledger, API, "nightly")
        assert words is not None
        assert words.startswith(f"run A (pid {running.pid} on {socket.gethostname()}, since 20")
        assert describe_holder(ledger, API, "weekly") is None
        with pytest.raises(LockedError):
            take(ledger)
        leave(running)
    assert describe_holder(ledger, API, "nightly") is None


def test_holder_makes_nothing(ledger: Path, tmp_path: Path) -> None:
    assert describe_holder(ledger, API, "nightly") is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_not_kept_out_by_one_who_looks(ledger: Path) -> None:
    take(ledger)
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert describe_holder(ledger, API, "nightly") is None

        def sleep(_seconds: float) -> None:
            fcntl.flock(file, fcntl.LOCK_UN)

        take(ledger, timeout=0, sleep=sleep)


def test_one_who_looks_for_ever_is_waited_for_like_a_holder(ledger: Path) -> None:
    take(ledger)
    with lock_file(ledger).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(LockedError, match=r"another run \(no details available\)"):
            take(ledger, sleep=lambda _seconds: None)


def test_a_long_description_is_cut(ledger: Path) -> None:
    with hold(ledger, API, "nightly", timeout=0, activity="x" * 10_000):
        assert f"{'x' * 200} (pid {os.getpid()} " in str(describe_holder(ledger, API, "nightly"))


def test_the_text_is_one_line_of_json(ledger: Path) -> None:
    with hold(ledger, API, "nightly", timeout=0, activity="run\nA"):
        text = lock_file(ledger).read_bytes()
    assert text.count(b"\n") == 1
    assert json.loads(text)["activity"] == "run\nA"
    assert lock_file(ledger).read_bytes() == b""
