"""The faults that a sandbox can rehearse: how a person asks for them, and which request meets which."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from runner.core.errors import UsageError

FaultKind = Literal["rate-limit", "bad-gateway", "reset", "slow", "failure"]
FAULT_KINDS: tuple[str, ...] = get_args(FaultKind)

# What the seconds of a kind are when the person names none. The other kinds have no seconds.
_SECONDS = {"rate-limit": 1.0, "slow": 2.0}
_LONGEST = 3600.0

_HINT = (
    "Write KIND=SHARE, for example rate-limit=0.1, reset=5%, or slow:5=0.2. The kinds are rate-limit (429, nothing "
    "created), bad-gateway (502, created all the same), reset (created, and no answer), slow (created, and answered "
    "after 2 or the given seconds) and failure (created, and the job fails half-way, whatever else the POST meets)."
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that meets `share` (0 to 1) of the POSTs. `seconds` is the delay of slow and the wait of rate-limit."""

    kind: FaultKind
    share: float
    seconds: float = 0.0


class FaultSampler:
    """Throws for one POST after the other what it meets; the same `seed` gives the same throws.

    Answers and failures are thrown apart: asking for failures changes nothing about which answers go wrong.
    """

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        self._of_answers, self._of_jobs = _apart(faults)
        self._answers = random.Random(seed)  # noqa: S311 - a rehearsal is to be repeatable, not unpredictable
        self._jobs = random.Random(f"failure {seed}")  # noqa: S311 - likewise

    def sample(self) -> Mapping[FaultKind, Fault]:
        """The faults that the next POST meets, by kind: at most one of its answer, and the failure of its job."""
        answer = select_fault(self._of_answers, self._answers.random())
        failure = select_fault(self._of_jobs, self._jobs.random())
        if answer is not None and answer.kind == "rate-limit":
            failure = None  # there is no job that could fail
        return {fault.kind: fault for fault in (answer, failure) if fault is not None}


def parse_fault(text: str) -> Fault:
    """Read `KIND=SHARE` or `KIND:SECONDS=SHARE`. A share is a number from 0 to 1, or a percentage.

    Raises:
        UsageError: it is no such thing; the hint names the kinds.
    """
    name, equals, share = text.partition("=")
    kind, colon, seconds = name.strip().partition(":")
    if not equals or kind not in FAULT_KINDS:
        raise UsageError(f"--fault {text}: no such fault", _HINT)
    return Fault(cast("FaultKind", kind), _share(share.strip(), text), _seconds(kind, seconds if colon else None, text))


def check_shares(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The faults, if they can be had together.

    Raises:
        UsageError: the shares of answers that go wrong, or those of jobs that fail, are more than the whole.
    """
    together = tuple(faults)
    for alternatives in _apart(together):
        total = math.fsum(fault.share for fault in alternatives)
        if total > 1:
            raise UsageError(f"--fault: the shares sum to {total:g}, which is more than every request", _HINT)
    return together


def select_fault(faults: Sequence[Fault], roll: float) -> Fault | None:
    """The fault that a request meets whose `roll` is evenly spread over 0 to 1; None for none."""
    edge = 0.0
    for fault in faults:
        edge += fault.share
        if roll < edge:
            return fault
    return None


def _apart(faults: Iterable[Fault]) -> tuple[tuple[Fault, ...], tuple[Fault, ...]]:
    """The faults of answers and those of jobs: a request meets one of each at most."""
    together = tuple(faults)
    return (
        tuple(fault for fault in together if fault.kind != "failure"),
        tuple(fault for fault in together if fault.kind == "failure"),
    )


def _share(text: str, whole: str) -> float:
    share = _number(text.removesuffix("%"), whole) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise UsageError(f"--fault {whole}: a share is from 0 to 1, or from 0% to 100%", _HINT)
    return share


def _seconds(kind: str, text: str | None, whole: str) -> float:
    if text is None:
        return _SECONDS.get(kind, 0.0)
    if kind not in _SECONDS:
        raise UsageError(f"--fault {whole}: {kind} takes no seconds", _HINT)
    seconds = _number(text, whole)
    if not 0 <= seconds <= _LONGEST:
        raise UsageError(f"--fault {whole}: the seconds are from 0 to {_LONGEST:g}", _HINT)
    if kind == "rate-limit" and not seconds.is_integer():
        raise UsageError(f"--fault {whole}: Retry-After has whole seconds", _HINT)
    return seconds


def _number(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise UsageError(f"--fault {whole}: {text!r} is no number", _HINT) from None
    if not math.isfinite(number):
        raise UsageError(f"--fault {whole}: {text!r} is no number", _HINT)
    return number
