"""The settings of a run and their defaults: what the user chooses, and the limits that result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from runner.core.errors import UsageError
from runner.core.models import LimitOverrides, Manifest
from runner.core.rate_limit import Rate

MAX_CONCURRENCY = 64
MAX_SECONDS = 10.0**9  # about 30 years; longer times overflow in the standard library
DEFAULT_SETTLE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the user chooses for one run: the command's options of the same names.

    `only` are globs of job names, `again` names of created jobs to submit once more. `resume` and `new` say what to do
    about an unfinished run. `hold` leaves jobs in doubt alone. `estimate` asks the API what jobs cost even without a
    limit; `allow_unknown_cost` submits jobs of unknown cost despite one. `settle` is how long after a send a slow
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
class Limits:
    """How the engine sends. Times are in seconds, `max_cost` is in tokens.

    `stop_after` is the number of consecutive failures of one kind that stops a run; `max_pause` limits the pauses that
    the server asks for, in total.
    """

    concurrency: int = 8
    rate: str | None = None
    attempts: int = 5
    timeout: float = 30.0
    stop_after: int = 10
    max_pause: float = 900.0
    max_cost: int | None = None

    @property
    def parsed_rate(self) -> Rate | None:
        """The rate as an object."""
        return None if self.rate is None else Rate.parse(self.rate)


_NUMBERS: dict[str, tuple[Any, Callable[[float], bool], str]] = {  # type, condition and description of each limit
    "concurrency": (int, lambda number: 1 <= number <= MAX_CONCURRENCY, f"a whole number from 1 to {MAX_CONCURRENCY}"),
    "attempts": (int, lambda number: number >= 1, "a whole number of at least 1"),
    "timeout": (int | float, lambda number: 0 < number <= MAX_SECONDS, "a number of seconds greater than 0"),
    "stop_after": (int, lambda number: number >= 0, "a whole number of at least 0"),
    "max_pause": (int | float, lambda number: number >= 0, "a number of seconds of at least 0"),
    "max_cost": (int, lambda number: number >= 0, "a whole number of at least 0"),
}


def validate_limits(overrides: LimitOverrides) -> None:
    """Check the limits that a program passes, by the rules of the command line. Raises UsageError."""
    for name, (kind, is_valid, expected) in _NUMBERS.items():
        value = getattr(overrides, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind) or not is_valid(value)):
            raise UsageError(f"invalid {name}: {value!r}", f"Use {expected}.")
    if overrides.rate is not None:
        try:
            Rate.parse(overrides.rate)
        except (TypeError, ValueError):
            raise UsageError(f"invalid rate: {overrides.rate!r}", "Use N/s, N/min or N/h, such as 5/s.") from None


def resolve_limits(overrides: LimitOverrides, manifest: Manifest) -> Limits:
    """Return the limits that apply: the override, else the manifest's, else the default."""
    limits = asdict(manifest.submit) | {"max_cost": manifest.max_cost}
    limits |= {name: value for name, value in asdict(overrides).items() if value is not None}
    return Limits(**{name: value for name, value in limits.items() if value is not None})
