"""The table and `RESULTS.md`. The hand-written text below the mark in that file is kept."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import machine
from bench.kit import Kit
from bench.responses import job_response
from bench.rows import Figure, Quantity, RowResult, Target
from bench.sizes import Sizes

MARK = "<!-- What stands below is written by hand, and kept. -->"
_ABOUT = """\
# What pixxel-runner costs

Measured on {date} by `python -m bench`, in one run in which the compared programs took turns.

Jobs go to a server on loopback: {server}; its responses have {size} bytes.
In rows with a delay they go to the bundled Python server.
`run` is the whole command from start to exit, with a new ledger and its results file.
Ratios compare the medians; the range by turns is in brackets.
"""
_HEADERS = ("row", "measure", "median (min–max)", "against", "median (min–max)", "ratio (by turns)", "target", "met")


def table(outcomes: Iterable[RowResult], sizes: Sizes) -> str:
    """The rows as an aligned Markdown table."""
    lines = [_HEADERS, *(_cells(result, sizes) for result in outcomes)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        f"| {' | '.join(cell + ' ' * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))} |"
        for line in (lines[0], rule, *lines[1:])
    )


def document(outcomes: Sequence[RowResult], kit: Kit, *, tiny: bool) -> str:
    """The text of `RESULTS.md`."""
    remarks = [f"- {result.row.name}: {result.remark}." for result in outcomes if result.remark]
    facts = [f"- {name}: {fact}" for name, fact in machine.describe(kit)]
    warning = ["**Tiny sizes: these figures mean nothing.**", ""] if tiny else []
    about = _ABOUT.format(
        date=f"{datetime.now(UTC):%-d %B %Y}", server=machine.server_name(kit), size=job_response().size
    )
    return "\n".join([about, *warning, table(outcomes, kit.sizes), "", *remarks, "", "## The machine", "", *facts, ""])


def write(text: str, path: Path) -> None:
    """Write the document to a file, keeping its text from the mark on."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    _, mark, kept = before.partition(MARK)
    path.write_text(text + (f"\n{mark}{kept}" if mark else f"\n{MARK}\n"), encoding="utf-8")


def _cells(result: RowResult, sizes: Sizes) -> tuple[str, ...]:
    measure, against = result.row.describe(sizes)
    return (
        result.row.name,
        measure,
        _figure(result.ours, result.row.quantity),
        against,
        _figure(result.theirs, result.row.quantity),
        _ratio(result.ratio),
        _target(result.row.target, result.row.quantity),
        _verdict(result),
    )


def _figure(figure: Figure | None, quantity: Quantity) -> str:
    if figure is None:
        return ""
    middle = quantity.format(figure.median)
    if figure.low == figure.high:
        return middle
    return f"{middle} ({quantity.format_range(figure.low, figure.high, figure.median)})"


def _ratio(ratio: Figure | None) -> str:
    return "" if ratio is None else f"{_digits(ratio.median)} ({_digits(ratio.low)}–{_digits(ratio.high)})"


def _digits(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"  # so that 0.966 does not read as a target of 0.97


def _target(target: Target | None, quantity: Quantity) -> str:
    if target is None:
        return "stated"
    bound = quantity.format(target.bound) if target.absolute else f"{target.bound:g} ×"
    return f"{'at least' if target.least else 'at most'} {bound}"


def _verdict(result: RowResult) -> str:
    if result.ours is None:
        return "not there"
    return {None: "", True: "yes", False: "no"}[result.met]


def _width(text: str) -> int:
    return sum(unicodedata.combining(character) == 0 for character in text)
