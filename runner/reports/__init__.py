"""Reports: one pure function each, and the tables of their names, for a run's record, a plan, and the jobs' status.

A report is text without the last line's end; it holds no control character but line breaks (and a colour's escape
sequences, where `Style.color` asks for colour), whatever the manifest and the API put into names and messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from runner.planning.planned_jobs import Preview
from runner.reports.formats import csv, github, html, json, junit, markdown, prometheus, text_table
from runner.reports.style import Style
from runner.reports.views import plan, run, status
from runner.reports.views.run import run_totals
from runner.reports.views.status import StatusReport, describe_without_job
from runner.reports.views.table import Table
from runner.runs.job_status import summarize_statuses as status_totals
from runner.runs.summary import RunSummary

__all__ = [
    "PLAN_FORMATS",
    "RUN_FORMATS",
    "STATUS_FORMATS",
    "Report",
    "StatusReport",
    "Style",
    "describe_without_job",
    "run_totals",
    "status_totals",
]

_T = TypeVar("_T")
Report = Callable[[_T, Style], str]


def _formats(
    sheet: Callable[[_T, Style], Table],
    fields: Sequence[str],
    rows: Callable[[_T], Iterable[Mapping[str, Any]]],
    **more: Report[_T],
) -> Mapping[str, Report[_T]]:
    return MappingProxyType(
        {
            "table": lambda made, style: text_table.text(sheet(made, style), style),
            "markdown": lambda made, style: markdown.text(sheet(made, style), style),
            "csv": lambda made, _style: csv.text(fields, rows(made)),
            **more,
        }
    )


RUN_FORMATS: Mapping[str, Report[Sequence[RunSummary]]] = _formats(
    run.sheet,
    run.FIELDS,
    run.rows,
    json=json.render_runs,
    junit=junit.render_runs,
    github=github.render_runs,
    html=html.render_runs,
    prometheus=prometheus.render_runs,
)
PLAN_FORMATS: Mapping[str, Report[Sequence[Preview]]] = _formats(
    plan.sheet,
    plan.FIELDS,
    plan.rows,
    json=json.render_plans,
    github=github.render_plans,
    html=html.render_plans,
)
STATUS_FORMATS: Mapping[str, Report[Sequence[StatusReport]]] = _formats(
    status.sheet,
    status.FIELDS,
    status.rows,
    json=json.render_statuses,
    junit=junit.render_statuses,
    github=github.render_statuses,
    html=html.render_statuses,
    prometheus=prometheus.render_statuses,
)
