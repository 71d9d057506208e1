"""The rate limit: at most N requests in any period, measured when each leaves. The clock is passed in."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_RATE = re.compile(r"([1-9][0-9]{0,5})/(s|min|h)", re.ASCII)

# Seconds. A slot is measured when its first byte is written; how long that takes to arrive varies.
_JITTER = 0.005


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` requests in any `period` seconds."""

    count: int
    period: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse `N/s`, `N/min` or `N/h`, N from 1 to 999999. Raises ValueError."""
        match = _RATE.fullmatch(text)
        if match is None:
            raise ValueError(f"not a rate: {text!r}")
        return cls(int(match[1]), _SECONDS[match[2]])


@dataclass(slots=True)
class Slot:
    """One request's share of the rate. `used_at` is when its first byte was written, or when it ended without one."""

    used_at: float | None = None


@dataclass(slots=True)
class RateLimiter:
    """Hands out slots so that no window of the rate's period holds too many requests.

    Evenly spaced slots alone are not enough: a request that first has to connect leaves late, one on an open
    connection at once, so that both may fall into one period.
    """

    rate: Rate | None
    _next: float = 0.0
    _slots: deque[Slot] = field(default_factory=deque)

    def delay(self, now: float) -> float:
        """The seconds until the next slot is free; 0 when it is free now."""
        if self.rate is None:
            return 0.0
        delay = self._next - now
        if len(self._slots) >= self.rate.count:
            used_at = self._slots[0].used_at
            delay = max(delay, _JITTER if used_at is None else used_at + self.rate.period + _JITTER - now)
        return max(0.0, delay)

    def acquire(self, now: float) -> Slot:
        """Take the next slot; call it only when `delay` is 0."""
        slot = Slot()
        if self.rate is not None:
            self._next = now + self.rate.period / self.rate.count
            self._slots.append(slot)
            if len(self._slots) > self.rate.count:
                self._slots.popleft()
        return slot
