"""Runs the programs of each group in turns (A B C A B C …), and computes the rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from bench.groups import GROUPS, Turns
from bench.kit import Kit
from bench.processes import Sample
from bench.rows import Row, RowResult, summarize_row


def measure(kit: Kit, rows: Sequence[Row], log: Callable[[str], None]) -> list[RowResult]:
    """Measure the given rows only. Raises BenchError if a program fails."""
    kit.warm_up()
    outcomes: dict[str, RowResult] = {}
    for name, group in GROUPS.items():
        group_rows = [row for row in rows if row.group == name]
        if not group_rows:
            continue
        programs = {program for row in group_rows for program in row.programs}
        with group.open(kit) as all_turns:
            turns = {program: turn for program, turn in all_turns.items() if program in programs}
            samples = _take_turns(name, turns, group.turns(kit.sizes), log, warm=group.warm)
        outcomes |= {row.name: summarize_row(row, samples) for row in group_rows}
    return [outcomes[row.name] for row in rows]


def _take_turns(
    group: str, turns: Turns, count: int, log: Callable[[str], None], *, warm: bool
) -> dict[str, list[Sample]]:
    if warm:
        for turn in turns.values():
            turn()
    samples: dict[str, list[Sample]] = {name: [] for name in turns}
    for number in range(1, count + 1):
        for name, turn in turns.items():
            os.sync()  # so that a turn does not pay for the writes of the previous one
            sample = turn()
            samples[name].append(sample)
            log(f"{group} {number}/{count}: {name}: {sample.seconds:.2f} s")
    return samples
