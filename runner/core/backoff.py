"""The waits before a request is sent again: the backoff between retries, and the pauses that the server asks for."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

MAX_SINGLE_PAUSE = 300.0  # seconds; a server that asks for a longer pause is not waited for


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with equal jitter: between half and all of `base` × 2ⁿ seconds, at most `maximum`."""

    base: float = 0.5
    maximum: float = 30.0
    random: random.Random = field(default_factory=random.Random)

    def delay(self, failures: int) -> float:
        """The seconds to wait after that many consecutive failures (at least 1)."""
        longest = min(self.maximum, self.base * 2.0 ** min(failures - 1, 30))
        return longest * self.random.uniform(0.5, 1.0)


@dataclass(slots=True)
class Pauses:
    """The pauses that all workers make together. `limit` is the seconds they may add up to in one run."""

    limit: float
    until: float = 0.0
    total: float = 0.0

    def extend(self, now: float, seconds: float) -> bool:
        """Pause until `seconds` from now, unless a longer pause is under way. Return False if that is over a limit."""
        start = max(now, self.until)
        self.until = max(self.until, now + seconds)
        self.total += self.until - min(start, self.until)
        return seconds <= MAX_SINGLE_PAUSE and self.total <= self.limit

    def describe_excess(self, seconds: float) -> str:
        """Say which limit a pause exceeded."""
        if seconds > MAX_SINGLE_PAUSE:
            return f"the server asks for a pause of more than {MAX_SINGLE_PAUSE:.0f} s"
        return f"the pauses that the server asks for exceed --max-pause ({self.limit:g} s)"
