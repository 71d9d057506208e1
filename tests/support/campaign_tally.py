"""The counts of a campaign, and the error that ends it when an invariant is broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


class CampaignError(AssertionError):
    """An invariant does not hold."""


@dataclass
class Tally:
    """The counts of a campaign.

    `kills` are counted by kill point, `faults` by kind: of the server, the clock, disks and the ledger.
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
        """Add the counts of another part of the campaign."""
        for count in fields(self):
            setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))

    def __str__(self) -> str:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        return "\n".join(
            (
                f"{self.seeds} seeds, {self.runs} runs (by exit code {codes})",
                f"{self.kills.total()} killed: {_format_counts(self.kills)}",
                f"{self.signals.total()} signals: {_format_counts(self.signals)}",
                f"{self.faults.total()} faults: {_format_counts(self.faults)}",
                f"{self.jobs} jobs created, {self.manual_resolutions} manual resolutions",
                f"{self.duplicates} duplicates, {self.losses} lost, {self.false_claims} false outcomes",
            )
        )


def _format_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
