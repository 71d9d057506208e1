"""The settings of a run: what the user chooses for it, and its limits (flag, else environment, manifest, default)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from runner.core.errors import UsageError
from runner.core.models import Manifest
from runner.core.rate_limit import Rate

MAX_CONCURRENCY = 64
MAX_SECONDS = 10.0**9  # seconds: 30 years, which nobody waits
DEFAULT_SETTLE = timedelta(minutes=15)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the user chooses for one run: the command's options of the same names.

    `only` are globs of job names, `again` names of created jobs to submit once more. `resume` and `new` say what to do
    about an unfinished run. `hold` leaves jobs in doubt alone. `estimate` asks the API what jobs cost even without a
    limit; `allow_unknown_cost` submits jobs of unknown cost in spite of one. `settle` is how long after a send a slow
    server may still create its job; `lock_timeout`, in seconds, how long to wait for another run of the manifest.
    """

    only: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    resume: bool = False
    new: bool = False
    hold: bool = False
    estimate: bool = False
    allow_unknown_cost: bool = False
    settle: timedelta = DEFAULT_SETTLE
    lock_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class LimitOverrides:
    """Limits that outrank those of the manifest; None leaves the manifest's. Times are in seconds."""

    concurrency: int | None = None
    rate: str | None = None
    attempts: int | None = None
    timeout: float | None = None
    stop_after: int | None = None
    max_pause: float | None = None
    max_cost: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How a run sends: all that the engine is told. Times are in seconds, `max_cost` in tokens."""

    concurrency: int = 8
    rate: str | None = None
    attempts: int = 5
    timeout: float = 30.0
    stop_after: int = 10
    max_pause: float = 900.0
    max_cost: int | None = None

    @property
    def parsed_rate(self) -> Rate | None:
        """The rate, read."""
        return None if self.rate is None else Rate.parse(self.rate)


def validate_limits(options: LimitOverrides) -> None:
    """See that a program's options are such as the command would take. Raises UsageError."""
    for name, kind, least in (
        ("concurrency", int, 1),
        ("attempts", int, 1),
        ("timeout", int | float, 0),
        ("stop_after", int, 0),
        ("max_pause", int | float, 0),
        ("max_cost", int, 0),
    ):
        value = getattr(options, name)
        if value is not None and not (isinstance(value, kind) and not isinstance(value, bool) and value >= least):
            raise UsageError(f"{name} is {value!r}", f"Give a number from {least} up.")
    if options.concurrency is not None and options.concurrency > MAX_CONCURRENCY:
        raise UsageError(f"concurrency is {options.concurrency}", f"Give a number from 1 to {MAX_CONCURRENCY}.")
    if options.timeout is not None and not 0 < options.timeout < MAX_SECONDS:
        raise UsageError(f"timeout is {options.timeout!r}", "Give the seconds that an exchange may take.")
    if options.rate is not None:
        try:
            Rate.parse(options.rate)
        except (TypeError, ValueError):
            raise UsageError(f"rate is {options.rate!r}", "Give it as N/s, N/min or N/h, such as 5/s.") from None


def resolve_limits(options: LimitOverrides, manifest: Manifest) -> Limits:
    """Settle each limit: flag or environment, else the manifest, else the default."""
    default, written = Limits(), manifest.submit
    return Limits(
        concurrency=_first(options.concurrency, written.concurrency, default.concurrency),
        rate=_first(options.rate, written.rate, default.rate),
        attempts=_first(options.attempts, written.attempts, default.attempts),
        timeout=_first(options.timeout, written.timeout, default.timeout),
        stop_after=_first(options.stop_after, written.stop_after, default.stop_after),
        max_pause=_first(options.max_pause, None, default.max_pause),
        max_cost=_first(options.max_cost, manifest.max_cost, default.max_cost),
    )


def _first(flag: _T | None, written: _T | None, default: _T) -> _T:
    if flag is not None:
        return flag
    return default if written is None else written
