"""What a campaign came to, in numbers, and what it ends with when the promise was broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


class CampaignError(AssertionError):
    """The promise was broken."""


@dataclass
class Tally:
    """What a campaign came to.

    `kills` are by place; `faults` are by kind: those of the server, of the clock, of disks and of the ledger.
    """

    seeds: int = 0
    runs: int = 0
    jobs: int = 0
    manual_resolutions: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    duplicates: int = 0
    losses: int = 0
    false_claims: int = 0

    def add(self, other: Tally) -> None:
        """Count in what a part of the campaign came to."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def __str__(self) -> str:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        return "\n".join(
            (
                f"{self.seeds} seeds, {self.runs} runs (by exit code {codes})",
                f"{self.kills.total()} killed: {_listed(self.kills)}",
                f"{self.signals.total()} signals: {_listed(self.signals)}",
                f"{self.faults.total()} faults: {_listed(self.faults)}",
                f"{self.jobs} jobs created, {self.manual_resolutions} times settled by hand",
                f"{self.duplicates} duplicates, {self.losses} lost, {self.false_claims} false claims",
            )
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
