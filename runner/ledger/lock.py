"""The lock that keeps two runs of one manifest at one API apart: an advisory `flock`, and the words on who holds it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from runner.core.errors import RefusedError, RunnerError
from runner.core.exit_codes import Exit

_POLL = 0.2  # seconds between two tries while waiting
_MOMENT = 0.01  # seconds until a look by `holder`, or a change of the file, is over
_MOMENTS = 100
_LARGEST_TEXT = 4096  # bytes
_LONGEST_ABOUT = 200  # characters
_LARGEST_PID = 2**31 - 1
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe in its place is not waited for
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS})
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")


class LockedError(RunnerError):
    """Another run of the manifest at this API is going on."""

    exit_code = Exit.LOCKED


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who holds a lock, as the holder wrote it. `pids` names the space that `pid` counts in, on `host`."""

    pid: int
    host: str
    pids: str
    since: str
    about: str

    def __str__(self) -> str:
        return f"{self.about} (pid {self.pid} on {self.host}, since {self.since})"

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended: the text was left by a run that was killed."""
        return (self.host, self.pids) == (socket.gethostname(), _pids()) and not _is_alive(self.pid)


@contextmanager
def hold(
    ledger: Path,
    api: str,
    manifest: str,
    *,
    timeout: float,
    activity: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[None]:
    """Hold the lock of a manifest at an API while the body runs. No other process, and no other thread, holds it then.

    The kernel gives the lock up when the process ends, however it ends: nothing is ever to be cleaned up.

    Args:
        ledger: the ledger's path; its folder must exist, the ledger need not.
        api: the API identity, an origin or `sandbox`.
        manifest: the manifest's name.
        timeout: the seconds to wait for another holder; 0 tries once.
        activity: what the holder is doing, told to those whom it keeps out: `run 20261124T…`.
        clock: the seconds of a clock that never goes back.
        sleep: waits for seconds. What it raises ends the waiting.

    Raises:
        LockedError: another run still holds the lock when the time is over.
        RefusedError: the lock cannot be had here, whoever holds it.
    """
    path = _path(ledger, api, manifest)
    handle = _wait(path, timeout, clock, sleep)
    if handle is None:
        raise _locked_error(path, api, manifest, timeout)
    owner = os.getpid()
    try:
        _sign(handle, activity)
        yield
    finally:
        _release(handle, owner)


def describe_holder(ledger: Path, api: str, manifest: str) -> str | None:
    """Who holds the lock of a manifest at an API now, in words; None when nobody does. It does not wait.

    Raises:
        RefusedError: it cannot be told.
    """
    path = _path(ledger, api, manifest)
    try:
        handle = os.open(path, _LOOK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise RefusedError(
            f"whether {manifest!r} is being run cannot be told: the lock {path} cannot be read: {error.strerror}",
            "Be a user who may read what is kept beside the ledger.",
        ) from None
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        # Shared, so that a look does not keep out another look; a run that meets one tries again (`_take`).
        return None if _lock(handle, fcntl.LOCK_SH, path) else _words(handle)
    finally:
        os.close(handle)


def directory(ledger: Path) -> Path:
    """The folder of a ledger's locks. It is made by the first run, and stays."""
    real = Path(os.path.realpath(ledger))  # the ledger is one, by whatever path it is named
    return real.with_name(f"{real.name}.locks")


def missing_ledger_error(path: Path) -> RefusedError:
    """What is said of a ledger that is gone, and was there: its locks outlive it."""
    return RefusedError(
        f"the ledger {path} is gone, and there was one: its locks are still there",
        "Without its record every job would be submitted again. Bring it back from a backup, or begin a new one on "
        f"purpose: pixxel-runner ledger init {path}",
    )


def _path(ledger: Path, api: str, manifest: str) -> Path:
    """The lock's file."""
    slug = _NOT_PLAIN.sub("-", f"{manifest} {api}".lower()).strip("-")[:60]
    identity = hashlib.sha256(json.dumps([api, manifest]).encode()).hexdigest()[:16]
    return directory(ledger) / f"{slug}-{identity}.lock"


def _wait(path: Path, timeout: float, clock: Callable[[], float], sleep: Callable[[float], object]) -> int | None:
    """Take the lock, or try until the time is over and return None. A last try is made at the very end."""
    deadline = clock() + timeout
    while (handle := _take(path, sleep)) is None:
        left = deadline - clock()
        if left <= 0:
            return None
        sleep(min(_POLL, left))
    return handle


def _take(path: Path, sleep: Callable[[float], object]) -> int | None:
    """Try once: the descriptor that has the lock, or None when another has it."""
    locked = False
    for _ in range(_MOMENTS):
        with ExitStack() as undo:
            handle = _open(path)
            undo.callback(os.close, handle)
            locked = _lock(handle, fcntl.LOCK_EX, path)
            if locked and _is_at(handle, path):
                undo.pop_all()
                return handle
            if not locked and not _lock(handle, fcntl.LOCK_SH, path):
                return None
        # Either the file was replaced after it was opened, so that another run can hold the one that is there now,
        # or the lock was shared a moment ago: someone was looking, and nobody holds it.
        sleep(_MOMENT)
    if locked:
        raise _unstable(path)
    return None


def _open(path: Path) -> int:
    """Open the lock's file, made where it is missing, private to the person. No program started later inherits it."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None


def _lock(handle: int, kind: int, path: Path) -> bool:
    """Lock an open file unless another has it."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unsupported(path) if error.errno in _UNSUPPORTED else _unusable(path, error) from None
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one that others find at the path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except OSError:
        return False


def _sign(handle: int, about: str) -> None:
    """Write into the file who holds it. On a full disk the text alone is missing: that is no reason not to go on."""
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    who = _Holder(os.getpid(), socket.gethostname(), _pids(), since, about[:_LONGEST_ABOUT])
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(who)).encode() + b"\n", 0)


def _release(handle: int, owner: int) -> None:
    """Give the lock up and close the file.

    A forked child that leaves the body shares the lock, and must not give up what its parent holds. Likewise the
    owner unlocks rather than only closing: a child may have the file open still.
    """
    if os.getpid() == owner:
        with suppress(OSError):
            os.ftruncate(handle, 0)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def _locked_error(path: Path, api: str, manifest: str, timeout: float) -> LockedError:
    waited = f"; waited {timeout:g} s" if timeout > 0 else ""
    who = _words_at(path)
    for _ in range(_MOMENTS):  # it takes the lock a moment before it says who it is
        if who != _words_of(b""):
            break
        time.sleep(_MOMENT)
        who = _words_at(path)
    return LockedError(
        f"manifest {manifest!r} is locked at {api} by {who}{waited}",
        "Wait for it with --lock-timeout SECONDS, or run again when it has ended.",
    )


def _words_at(path: Path) -> str:
    try:
        handle = os.open(path, _LOOK)
    except OSError:
        return _words_of(b"")
    try:
        return _words(handle)
    finally:
        os.close(handle)


def _words(handle: int) -> str:
    try:
        return _words_of(os.pread(handle, _LARGEST_TEXT, 0))
    except OSError:
        return _words_of(b"")


def _words_of(text: bytes) -> str:
    """Who holds a lock that is held. A run that was killed leaves its text behind, and it is not that one."""
    who = _read(text)
    return "another run, which has not said who it is" if who is None or who.is_gone else str(who)


def _read(text: bytes) -> _Holder | None:
    """The holder's own text; None when it is not whole, or is not one."""
    try:
        match json.loads(text):
            case {"pid": int(pid), "host": str(host), "pids": str(pids), "since": str(since), "about": str(about)}:
                return _Holder(pid, host, pids, since, about)
    except (ValueError, RecursionError):
        pass
    return None


def _pids() -> str:
    """The space that process ids count in: containers may share a host's name and not its processes."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    if not 0 < pid <= _LARGEST_PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another person's
        return True
    return True


def _unusable(path: Path, error: OSError) -> RefusedError:
    return RefusedError(
        f"the lock {path} cannot be used: {error.strerror}",
        "The program locks beside the ledger: make it possible to write there.",
    )


def _unstable(path: Path) -> RefusedError:
    return RefusedError(
        f"the lock {path} does not stay the same file",
        "Something deletes or replaces it all the time, or its file system cannot be locked on. Try another folder.",
    )


def _unsupported(path: Path) -> RefusedError:
    return RefusedError(
        f"the file system of {path} does not support locks",
        "Network file systems are not supported: keep the ledger on a local disk.",
    )
