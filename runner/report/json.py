"""The results document itself, as a report."""

from __future__ import annotations

from runner import results
from runner.model import Record
from runner.report.style import Style


def report(record: Record, _style: Style) -> str:
    """The record as the results file has it, without the last line's end."""
    return "".join(results.chunks(record)).removesuffix("\n")
