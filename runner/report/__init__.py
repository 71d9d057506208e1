"""Reports: one pure function each, and the tables of their names, for a run's record, a plan, and the jobs' status.

A report is text without the last line's end; it holds no control character but line breaks (and a colour's escape
sequences, where `Style.color` asks for colour), whatever the manifest and the API put into names and messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from runner.forecast import Forecast
from runner.report import csv, json, markdown, plan, run, status, table
from runner.report.run import totals
from runner.report.sheet import Sheet
from runner.report.status import Standing, others
from runner.report.style import Style
from runner.results import Digest
from runner.status import totals as status_totals

__all__ = [
    "FORMATS",
    "NAMES",
    "PLAN_FORMATS",
    "STATUS_FORMATS",
    "Report",
    "Standing",
    "Style",
    "others",
    "status_totals",
    "totals",
]

_T = TypeVar("_T")
Report = Callable[[_T, Style], str]


def _formats(
    sheet: Callable[[_T, Style], Sheet],
    fields: Sequence[str],
    rows: Callable[[_T], Iterable[Mapping[str, Any]]],
    document: Callable[[_T], str],
) -> Mapping[str, Report[_T]]:
    return MappingProxyType(
        {
            "table": lambda made, style: table.text(sheet(made, style), style),
            "markdown": lambda made, style: markdown.text(sheet(made, style), style),
            "csv": lambda made, _style: csv.text(fields, rows(made)),
            "json": lambda made, _style: document(made),
        }
    )


FORMATS: Mapping[str, Report[Digest]] = _formats(run.sheet, run.FIELDS, run.rows, json.record)
PLAN_FORMATS: Mapping[str, Report[Forecast]] = _formats(
    plan.sheet, plan.FIELDS, plan.rows, lambda made: json.document(plan.document(made))
)
STATUS_FORMATS: Mapping[str, Report[Standing]] = _formats(
    status.sheet, status.FIELDS, status.rows, lambda made: json.document(status.document(made))
)
NAMES = tuple(FORMATS)
