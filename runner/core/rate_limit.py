"""When the next send may go: the rate, the pauses that a server asks for, and the backoff. The clock is passed in."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_RATE = re.compile(r"([1-9][0-9]{0,5})/(s|min|h)", re.ASCII)

# Turns are measured where the byte is written; it takes a moment more to arrive, and not each time the same.
_JITTER = 0.005


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` sends in any `period` seconds."""

    count: int
    period: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `N/s`, `N/min` or `N/h`, N from 1 to 999999. Raises ValueError."""
        match = _RATE.fullmatch(text)
        if match is None:
            raise ValueError(f"not a rate: {text!r}")
        return cls(int(match[1]), _SECONDS[match[2]])


@dataclass(slots=True)
class Slot:
    """One send's place in the rate. `left` is when its first byte was written, or when it ended without one."""

    used_at: float | None = None


@dataclass(slots=True)
class RateLimiter:
    """Spreads sends so that a rate holds over any window, measured at the moment when each one left.

    A send that first has to connect leaves late, and one on a warm connection at once: evenly given turns alone
    would let more than `count` arrive within one period.
    """

    rate: Rate | None
    _next: float = 0.0
    _turns: deque[Slot] = field(default_factory=deque)

    def delay(self, now: float) -> float:
        """The seconds until the next turn may be taken: 0 when it may be now."""
        if self.rate is None:
            return 0.0
        wait = self._next - now
        if len(self._turns) >= self.rate.count:
            left = self._turns[0].used_at
            window = _JITTER if left is None else left + self.rate.period + _JITTER - now
            wait = max(wait, window)
        return max(0.0, wait)

    def acquire(self, now: float) -> Slot:
        """Take the next turn; call only when `wait` is 0."""
        turn = Slot()
        if self.rate is not None:
            self._next = now + self.rate.period / self.rate.count
            self._turns.append(turn)
            if len(self._turns) > self.rate.count:
                self._turns.popleft()
        return turn
