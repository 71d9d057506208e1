"""The lock that keeps two runs of one manifest at one API apart: an advisory `flock`, and who holds it."""

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

_POLL = 0.2  # seconds between attempts while waiting
_RETRY_DELAY = 0.01  # seconds after which a check by `describe_holder`, or a replacement of the file, is over
_MAX_RETRIES = 100
_MAX_TEXT = 4096  # bytes
_MAX_ACTIVITY = 200  # characters
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never waits for a pipe in its place
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS})
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_UNKNOWN_HOLDER = "another run (no details available)"


class LockedError(RunnerError):
    """Another run of the manifest at this API is active."""

    exit_code = Exit.LOCKED


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who holds a lock, as the holder wrote it. `pids` is the namespace of `pid`."""

    pid: int
    pids: str
    host: str
    since: str
    activity: str

    def __str__(self) -> str:
        return f"{self.activity} (pid {self.pid} on {self.host}, since {self.since})"

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended: a killed run leaves its text behind."""
        return (self.host, self.pids) == (socket.gethostname(), _pid_namespace()) and not _is_alive(self.pid)


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
    """Hold the lock of a manifest at an API while the body runs. No other process or thread holds it then.

    The kernel releases the lock when the process ends, however it ends: nothing is ever to be cleaned up.

    Args:
        ledger: the path of the ledger; its directory must exist, the ledger need not.
        api: the API identity, an origin or `sandbox`.
        manifest: the name of the manifest.
        timeout: the seconds to wait for another holder; 0 tries once.
        activity: what the holder is doing, for those who find it locked: `run 20261124T…`.
        clock: a monotonic clock, in seconds.
        sleep: waits for seconds. What it raises ends the waiting.

    Raises:
        LockedError: another run still holds the lock after the timeout.
        RefusedError: the lock cannot be used here, whoever holds it.
    """
    path = _path(ledger, api, manifest)
    descriptor = _wait(path, timeout, clock, sleep)
    if descriptor is None:
        raise _locked_error(path, api, manifest, timeout)
    owner = os.getpid()
    try:
        _write_holder(descriptor, activity)
        yield
    finally:
        _release(descriptor, owner)


def describe_holder(ledger: Path, api: str, manifest: str) -> str | None:
    """Who holds the lock of a manifest at an API now, for a person; None if nobody does. It does not wait.

    Raises:
        RefusedError: the lock cannot be read.
    """
    path = _path(ledger, api, manifest)
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise RefusedError(
            f"cannot tell whether {manifest!r} is locked: {path} cannot be read: {error.strerror}",
            "Run this as a user who may read the files beside the ledger.",
        ) from None
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        # Shared, so that it keeps out no other check; a run that meets one tries again (`_take`).
        return None if _lock(descriptor, fcntl.LOCK_SH, path) else _read_holder(path)
    finally:
        os.close(descriptor)


def directory(ledger: Path) -> Path:
    """The directory of a ledger's locks. The first run creates it, and it is never removed."""
    target = Path(os.path.realpath(ledger))  # the same for every path that leads to the ledger
    return target.with_name(f"{target.name}.locks")


def missing_ledger_error(path: Path) -> RefusedError:
    """The error for a ledger that is missing while its locks, which outlive it, show that it existed."""
    return RefusedError(
        f"the ledger {path} is missing, but its locks show that it existed",
        "Without it, every job would be submitted again. Restore it from a backup, or start a new one on purpose: "
        f"pixxel-runner ledger init {path}",
    )


def _path(ledger: Path, api: str, manifest: str) -> Path:
    slug = _NOT_PLAIN.sub("-", f"{manifest} {api}".lower()).strip("-")[:60]
    identity = hashlib.sha256(json.dumps([api, manifest]).encode()).hexdigest()[:16]
    return directory(ledger) / f"{slug}-{identity}.lock"


# Taking and releasing it.


def _wait(path: Path, timeout: float, clock: Callable[[], float], sleep: Callable[[float], object]) -> int | None:
    """Try until the timeout, the last time at its very end. Return the descriptor, or None."""
    deadline = clock() + timeout
    while (descriptor := _take(path, sleep)) is None:
        remaining = deadline - clock()
        if remaining <= 0:
            return None
        sleep(min(_POLL, remaining))
    return descriptor


def _take(path: Path, sleep: Callable[[float], object]) -> int | None:
    """Try once: the descriptor that has the lock, or None if another has it."""
    locked = False
    for _ in range(_MAX_RETRIES):
        with ExitStack() as stack:
            descriptor = _open(path)
            stack.callback(os.close, descriptor)
            locked = _lock(descriptor, fcntl.LOCK_EX, path)
            if locked and _is_same_file(descriptor, path):
                stack.pop_all()
                return descriptor
            if not locked and not _lock(descriptor, fcntl.LOCK_SH, path):
                return None
        # Either the file was replaced after it was opened, so that another run can hold the one that is there now,
        # or the lock was shared a moment ago: by a check, and nobody holds it.
        sleep(_RETRY_DELAY)
    if locked:
        raise RefusedError(
            f"the lock {path} keeps being replaced by another file",
            "Another program keeps deleting it, or its filesystem does not support locks. Use another directory.",
        )
    return None


def _open(path: Path) -> int:
    """Open the lock's file, created if missing, private to the user. Programs started later do not inherit it."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None


def _lock(descriptor: int, kind: int, path: Path) -> bool:
    """Lock an open file unless another has it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unusable(path, error) from None
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that others find at the path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except OSError:
        return False


def _release(descriptor: int, owner: int) -> None:
    """Release the lock and close the file.

    A forked child that leaves the body shares the lock, and must not release what its parent holds. For the same
    reason the owner unlocks rather than only closing: a child may still have the file open.
    """
    if os.getpid() == owner:
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


# Who holds it.


def _write_holder(descriptor: int, activity: str) -> None:
    """Write who holds the lock. On a full disk only this text is missing, which is no reason to stop."""
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    holder = _Holder(os.getpid(), _pid_namespace(), socket.gethostname(), since, activity[:_MAX_ACTIVITY])
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode() + b"\n", 0)


def _locked_error(path: Path, api: str, manifest: str, timeout: float) -> LockedError:
    waited = f"; waited {timeout:g} s" if timeout > 0 else ""
    holder = _read_holder(path)
    for _ in range(_MAX_RETRIES):  # it takes the lock a moment before it writes who it is
        if holder != _UNKNOWN_HOLDER:
            break
        time.sleep(_RETRY_DELAY)
        holder = _read_holder(path)
    return LockedError(
        f"manifest {manifest!r} is locked at {api} by {holder}{waited}",
        "Wait for it with --lock-timeout SECONDS, or run again once it has ended.",
    )


def _read_holder(path: Path) -> str:
    """Who holds a lock that is held. A killed run leaves its text behind, and is not the one."""
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, _READ_FLAGS)) as file:
            holder = _parse_holder(file.read(_MAX_TEXT))
    except OSError:
        return _UNKNOWN_HOLDER
    return _UNKNOWN_HOLDER if holder is None or holder.is_gone else str(holder)


def _parse_holder(text: bytes) -> _Holder | None:
    """The holder as it wrote itself; None if the text is incomplete or something else."""
    try:
        match json.loads(text):
            case {"pid": int(pid), "pids": str(pids), "host": str(host), "since": str(at), "activity": str(activity)}:
                return _Holder(pid, pids, host, at, activity)
    except (ValueError, RecursionError):
        pass
    return None


def _pid_namespace() -> str:
    """The namespace that process ids belong to: containers may share a host name but not their processes."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    if pid <= 0:  # a group of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def _unusable(path: Path, error: OSError) -> RefusedError:
    if error.errno in _UNSUPPORTED:
        return RefusedError(
            f"the filesystem of {path} does not support locks",
            "Keep the ledger on a local disk: network filesystems are not supported.",
        )
    return RefusedError(
        f"the lock {path} cannot be used: {error.strerror}",
        "Locks are kept beside the ledger: make its directory writable.",
    )
