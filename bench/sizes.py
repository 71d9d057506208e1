"""The sizes of the measurements, and tiny ones to check only that the benchmark works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of jobs, the delay of the slow server, the size of responses, and the turns per program.

    `jobs` and `many` are the two sizes of a manifest, `delayed` the number of jobs for a server that takes `delay`
    seconds, `large` the size of a large response in bytes. A program has `turns` turns, `turns_of_many` if a turn
    takes a minute, and `turns_of_start` if it takes a tenth of a second.
    """

    jobs: int
    many: int
    delayed: int
    delay: float
    large: int
    turns: int
    turns_of_many: int
    turns_of_start: int


FULL = Sizes(
    jobs=10_000,
    many=100_000,
    delayed=1_600,
    delay=0.05,
    large=20_000,
    turns=5,
    turns_of_many=3,
    turns_of_start=21,
)
TINY = Sizes(
    jobs=40,
    many=400,
    delayed=128,
    delay=0.02,
    large=20_000,
    turns=2,
    turns_of_many=2,
    turns_of_start=2,
)
