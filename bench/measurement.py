"""The turns: each group is prepared, its programs are run A B C A B C …, and its rows are made of that."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from bench.groups import GROUPS, Turns
from bench.kit import Kit
from bench.processes import Sample
from bench.rows import Row, RowResult, summarize_row


def measure(kit: Kit, rows: Sequence[Row], say: Callable[[str], None]) -> list[RowResult]:
    """Measure what some rows need, and nothing else. Raises BenchError when a program fails."""
    kit.warm_up()
    outcomes: dict[str, RowResult] = {}
    for name, group in GROUPS.items():
        wanted = [row for row in rows if row.group == name]
        if not wanted:
            continue
        programs = {program for row in wanted for program in row.programs}
        with group.open(kit) as every:
            turns = {program: turn for program, turn in every.items() if program in programs}
            samples = _take_turns(name, turns, group.turns(kit.sizes), say, warm=group.warm)
        outcomes |= {row.name: summarize_row(row, samples) for row in wanted}
    return [outcomes[row.name] for row in rows]


def _take_turns(
    group: str, turns: Turns, count: int, say: Callable[[str], None], *, warm: bool
) -> dict[str, list[Sample]]:
    if warm:
        for turn in turns.values():
            turn()
    samples: dict[str, list[Sample]] = {name: [] for name in turns}
    for number in range(1, count + 1):
        for name, turn in turns.items():
            os.sync()  # what the one before has left to be written is not to be this one's burden
            sample = turn()
            samples[name].append(sample)
            say(f"{group} {number}/{count}: {name}: {sample.seconds:.2f} s")
    return samples
