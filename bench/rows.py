"""The rows of the benchmark's table: measured programs, quantities and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Self

from bench.processes import Sample
from bench.sizes import Sizes

Samples = Mapping[str, Sequence[Sample]]  # of one group, by program, in turns


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value of a sample, its unit, and its decimal places. Values below 1 are shown in `small` units."""

    of: Callable[[Sample], float]
    unit: str
    digits: int = 0
    small: str = ""  # a thousandth of the unit

    def format(self, value: float) -> str:
        """Format a value with its unit."""
        return f"{self._number(value, value)} {self._unit(value)}"

    def format_range(self, low: float, high: float, middle: float) -> str:
        """Format a range, in the unit of the median."""
        return f"{self._number(low, middle)}–{self._number(high, middle)}"

    def _unit(self, like: float) -> str:
        return self.small if self._is_small(like) else self.unit

    def _number(self, value: float, like: float) -> str:
        return f"{value * 1000:,.0f}" if self._is_small(like) else f"{value:,.{self.digits}f}"

    def _is_small(self, value: float) -> bool:
        return bool(self.small) and value < 1


SPEED = Quantity(lambda sample: sample.jobs / sample.seconds, "jobs/s")
TIME = Quantity(lambda sample: sample.seconds, "s", digits=2, small="ms")
CPU = Quantity(lambda sample: sample.cpu / sample.jobs * 1e6, "µs")
MEMORY = Quantity(lambda sample: sample.peak / 2**20, "MiB")


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio, or on the quantity itself if `absolute`."""

    bound: float
    least: bool = False
    absolute: bool = False

    def met(self, value: float) -> bool:
        """Whether a value meets the bound."""
        return value >= self.bound if self.least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """A row. `ours` and `theirs` are programs of the group; `faster` inverts the ratio of times.

    `measure` and `against` may contain sizes in braces; `remark` makes a note from the samples of `ours`.
    """

    name: str
    group: str
    measure: str
    against: str
    quantity: Quantity
    ours: str
    theirs: str | None
    target: Target | None
    faster: bool = False
    remark: Callable[[Sequence[Sample]], str] = lambda _samples: ""

    @property
    def programs(self) -> set[str]:
        """The names of the programs that the row needs."""
        return {self.ours} | ({self.theirs} if self.theirs else set())

    def describe(self, sizes: Sizes) -> tuple[str, str]:
        """The texts of `measure` and `against`, with sizes filled in."""
        values = {name: getattr(sizes, name) for name in Sizes.__slots__}
        return self.measure.format(**values), self.against.format(**values)


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with minimum and maximum."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Compute the figure of one or more values."""
        listed = list(values)
        return cls(median(listed), min(listed), max(listed))


@dataclass(frozen=True, slots=True)
class RowResult:
    """The result of a row: its figures, the ratio of the medians with its range by turns, and the verdict.

    `ours` is None if the program lacks the command; `met` is None without a target.
    """

    row: Row
    ours: Figure | None
    theirs: Figure | None = None
    ratio: Figure | None = None
    met: bool | None = None
    remark: str = ""


def summarize_row(row: Row, samples: Samples) -> RowResult:
    """Compute a row's result from the samples of its group."""
    if row.ours not in samples:
        return RowResult(row, None)
    mine = [row.quantity.of(sample) for sample in samples[row.ours]]
    ours, remark = Figure.of(mine), row.remark(samples[row.ours])
    if row.theirs is None:
        return RowResult(row, ours, met=_met(row, ours), remark=remark)
    others = [row.quantity.of(sample) for sample in samples[row.theirs]]
    theirs = Figure.of(others)
    turns = Figure.of(_ratio(row, one, other) for one, other in zip(mine, others, strict=True))
    ratio = Figure(_ratio(row, ours.median, theirs.median), turns.low, turns.high)
    return RowResult(row, ours, theirs, ratio, _met(row, ratio), remark)


def _met(row: Row, figure: Figure) -> bool | None:
    return None if row.target is None else row.target.met(figure.median)


def _ratio(row: Row, ours: float, theirs: float) -> float:
    return theirs / ours if row.faster else ours / theirs


def _about_waiting(samples: Sequence[Sample]) -> str:
    whole, nothing = (median(sample.more[name] for sample in samples) for name in ("whole", "nothing"))
    held = mean(sample.more["held"] for sample in samples) * 1000
    return (
        f"measured by the server, first request to last response; the whole command takes {whole:.2f} s, and "
        f"with nothing to send {nothing:.2f} s; the server held a request for {held:.1f} ms on average"
    )


def _about_storing(samples: Sequence[Sample]) -> str:
    return f"the run took {median(one.seconds for one in samples):.1f} s"


_SENDING = "`run`, {jobs:,} jobs, no delay"

ROWS = (
    Row(
        "urllib3", "sending", _SENDING, "bare urllib3 pool, 8 threads",
        SPEED, "run", "urllib3", Target(0.8, least=True),
    ),
    Row("requests", "sending", _SENDING, "requests, 8 threads", SPEED, "run", "requests", Target(2, least=True)),
    Row("xargs", "sending", _SENDING, "`xargs -P 8 curl`", SPEED, "run", "xargs", Target(6, least=True)),
    Row("curl", "sending", _SENDING, "`curl --parallel`, 8 at a time", SPEED, "run", "curl", None),
    Row(
        "cpu", "sending", "`run`, {jobs:,} jobs, no delay: processor time a job", "bare urllib3 pool, 8 threads",
        CPU, "run", "urllib3", Target(1.6),
    ),
    Row(
        "delay-16", "waiting",
        "`run`, {delayed:,} jobs of {delay:g} s each, concurrency 16", "{delayed:,} × {delay:g} s / 16",
        TIME, "run 16", "ideal 16", Target(0.97, least=True), faster=True, remark=_about_waiting,
    ),
    Row(
        "delay-64", "waiting",
        "`run`, {delayed:,} jobs of {delay:g} s each, concurrency 64", "{delayed:,} × {delay:g} s / 64",
        TIME, "run 64", "ideal 64", Target(0.92, least=True), faster=True, remark=_about_waiting,
    ),
    Row(
        "check-jsonschema", "checking", "`validate`, {jobs:,} jobs", "check-jsonschema with our schema",
        TIME, "validate", "check-jsonschema", Target(8, least=True), faster=True,
    ),
    Row(
        "validate-growth", "checking", "`validate`, {many:,} jobs", "itself, {jobs:,} jobs",
        TIME, "validate many", "validate", Target(11),
    ),
    Row(
        "run-growth", "growing", "`run`, {many:,} jobs, no delay", "itself, {jobs:,} jobs",
        TIME, "run many", "run", Target(11),
    ),
    Row(
        "run-memory", "growing", "`run`, {many:,} jobs, no delay: peak memory", "400 MiB",
        MEMORY, "run many", None, Target(400, absolute=True),
    ),
    Row(
        "again", "again", "second `run` of {many:,} jobs that are all done", "its own `validate`",
        TIME, "again", "validate", Target(2),
    ),
    Row(
        "plan", "again", "`plan`, one new job in {many:,}", "`validate`",
        TIME, "plan", "validate", Target(2),
    ),
    Row(
        "version", "starting", "`--version`", '`python -c "import click"`',
        TIME, "--version", "import click", Target(1.5),
    ),
    Row(
        "help", "starting", "`--help`", '`python -c "import click"`',
        TIME, "--help", "import click", Target(1.5),
    ),
    Row(
        "example", "starting", "`validate` of the example", '`python -c "import click, yaml, jsonschema"`',
        TIME, "validate", "import three", Target(1.5),
    ),
    Row(
        "large", "storing", "`run`, {many:,} jobs, responses of {large:,} bytes: peak memory", "stated",
        MEMORY, "run", None, None, remark=_about_storing,
    ),
)  # fmt: skip
