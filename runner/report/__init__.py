"""Reports of a record: one pure function each, and the table of their names.

A report is text without the last line's end; it holds no control character but line breaks (and a colour's escape
sequences, where `Style.color` asks for colour), whatever the manifest and the API put into names and messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from runner.model import Record
from runner.report import csv, json, markdown, table
from runner.report.rows import totals
from runner.report.style import Style

__all__ = ["FORMATS", "Report", "Style", "totals"]

Report = Callable[[Record, Style], str]

FORMATS: Mapping[str, Report] = MappingProxyType(
    {
        "table": table.report,
        "markdown": markdown.report,
        "csv": csv.report,
        "json": json.report,
    }
)
