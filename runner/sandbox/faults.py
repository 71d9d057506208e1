"""The faults that a sandbox can rehearse: how a person asks for them, and which request meets which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from runner.errors import UsageError

Kind = Literal["rate-limit", "bad-gateway", "reset", "slow"]
KINDS: tuple[str, ...] = get_args(Kind)

# What the seconds of a kind are when the person names none. The other kinds have no seconds.
_SECONDS = {"rate-limit": 1.0, "slow": 2.0}
_LONGEST = 3600.0

_HINT = (
    "Write KIND=SHARE, for example rate-limit=0.1, reset=5%, or slow:5=0.2. The kinds are rate-limit (429, nothing "
    "created), bad-gateway (502, created all the same), reset (created, and no answer) and slow (created, and "
    "answered after 2 or the given seconds)."
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that meets `share` (0 to 1) of the POSTs. `seconds` is the delay of slow and the wait of rate-limit."""

    kind: Kind
    share: float
    seconds: float = 0.0


def parse_fault(text: str) -> Fault:
    """Read `KIND=SHARE` or `KIND:SECONDS=SHARE`. A share is a number from 0 to 1, or a percentage.

    Raises:
        UsageError: it is no such thing; the hint names the kinds.
    """
    name, equals, share = text.partition("=")
    kind, colon, seconds = name.strip().partition(":")
    if not equals or kind not in KINDS:
        raise UsageError(f"--fault {text}: no such fault", _HINT)
    return Fault(cast("Kind", kind), _share(share.strip(), text), _seconds(kind, seconds if colon else None, text))


def checked(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The faults, if they can be had together.

    Raises:
        UsageError: their shares are more than the whole.
    """
    together = tuple(faults)
    total = math.fsum(fault.share for fault in together)
    if total > 1:
        raise UsageError(f"--fault: the shares sum to {total:g}, which is more than every request", _HINT)
    return together


def draw(faults: Sequence[Fault], roll: float) -> Fault | None:
    """The fault that a request meets whose `roll` is evenly spread over 0 to 1; None for none."""
    edge = 0.0
    for fault in faults:
        edge += fault.share
        if roll < edge:
            return fault
    return None


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
