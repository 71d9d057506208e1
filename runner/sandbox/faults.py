"""The faults that a sandbox rehearses: parsing them, and sampling which request meets which."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from runner.core.errors import UsageError

FaultKind = Literal["rate-limit", "bad-gateway", "reset", "slow", "failure"]
FAULT_KINDS: tuple[str, ...] = get_args(FaultKind)

# The default seconds of the kinds that take seconds.
_DEFAULT_SECONDS = {"rate-limit": 1.0, "slow": 2.0}
_MAX_SECONDS = 3600.0

_HINT = (
    "Use KIND=SHARE, for example rate-limit=0.1, reset=5% or slow:5=0.2. KIND is rate-limit (429, no job is created), "
    "bad-gateway (502, but the job is created), reset (the job is created, then the connection is reset), slow (the "
    "job is created, and the response takes 2 seconds or as many as given) or failure (the job is created and fails "
    "halfway, in addition to any other fault)."
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that a `share` (0 to 1) of the POSTs meets. `seconds` is slow's delay, or rate-limit's Retry-After."""

    kind: FaultKind
    share: float
    seconds: float = 0.0


class FaultSampler:
    """Samples the faults of one POST after the other. The same `seed` gives the same samples.

    Response faults and job failures are sampled independently: adding failures does not change which responses fail.
    """

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        self._response_faults, self._job_faults = _split(faults)
        self._response_random = random.Random(seed)  # noqa: S311 - has to be repeatable, not unpredictable
        self._job_random = random.Random(f"failure {seed}")  # noqa: S311 - likewise

    def sample(self) -> Mapping[FaultKind, Fault]:
        """The faults of the next POST, by kind: at most one of its response, and the failure of its job."""
        response_fault = select_fault(self._response_faults, self._response_random.random())
        job_fault = select_fault(self._job_faults, self._job_random.random())
        if response_fault is not None and response_fault.kind == "rate-limit":
            job_fault = None  # no job is created
        return {fault.kind: fault for fault in (response_fault, job_fault) if fault is not None}


def parse_fault(text: str) -> Fault:
    """Parse `KIND=SHARE` or `KIND:SECONDS=SHARE`. A share is a number from 0 to 1, or a percentage.

    Raises:
        UsageError: the text is neither; the hint lists the kinds.
    """
    name, equals, share = text.partition("=")
    kind, colon, seconds = name.strip().partition(":")
    if not equals or kind not in FAULT_KINDS:
        raise UsageError(f"--fault {text}: unknown fault", _HINT)
    return Fault(
        cast("FaultKind", kind),
        _parse_share(share.strip(), text),
        _parse_seconds(kind, seconds if colon else None, text),
    )


def check_shares(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The faults, if they can be combined.

    Raises:
        UsageError: the shares of response faults, or those of job failures, sum to more than 1.
    """
    faults = tuple(faults)
    for alternatives in _split(faults):
        total = math.fsum(fault.share for fault in alternatives)
        if total > 1:
            raise UsageError(f"--fault: the shares sum to {total:g}, which is more than 1", _HINT)
    return faults


def select_fault(faults: Sequence[Fault], number: float) -> Fault | None:
    """The fault that a uniformly distributed number from 0 to 1 selects, if any."""
    limit = 0.0
    for fault in faults:
        limit += fault.share
        if number < limit:
            return fault
    return None


def _split(faults: Iterable[Fault]) -> tuple[tuple[Fault, ...], tuple[Fault, ...]]:
    """Response faults and job failures. A request meets at most one of each."""
    faults = tuple(faults)
    failures = tuple(fault for fault in faults if fault.kind == "failure")
    return tuple(fault for fault in faults if fault.kind != "failure"), failures


def _parse_share(text: str, option: str) -> float:
    share = _parse_number(text.removesuffix("%"), option) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise UsageError(f"--fault {option}: the share must be from 0 to 1, or from 0% to 100%", _HINT)
    return share


def _parse_seconds(kind: str, text: str | None, option: str) -> float:
    if text is None:
        return _DEFAULT_SECONDS.get(kind, 0.0)
    if kind not in _DEFAULT_SECONDS:
        raise UsageError(f"--fault {option}: {kind} takes no seconds", _HINT)
    seconds = _parse_number(text, option)
    if not 0 <= seconds <= _MAX_SECONDS:
        raise UsageError(f"--fault {option}: the seconds must be from 0 to {_MAX_SECONDS:g}", _HINT)
    if kind == "rate-limit" and not seconds.is_integer():
        raise UsageError(f"--fault {option}: the seconds of rate-limit must be an integer", _HINT)
    return seconds


def _parse_number(text: str, option: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"--fault {option}: {text!r} is not a number", _HINT)
    return number
