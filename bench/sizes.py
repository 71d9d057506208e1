"""How much is measured: the sizes that results are of, and tiny ones that only show that the benchmark works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many jobs, how slow a server, how large an answer, and how often each program has its turn.

    `jobs` and `many` are the two sizes of a manifest, `delayed` the jobs sent to a server that takes `delay` seconds,
    `large` the bytes of a large answer. A program has `turns` turns; `turns_of_many` where one takes a minute, and
    `turns_of_start` where one takes a tenth of a second.
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
