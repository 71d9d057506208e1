"""The registry of output formats, one module each: of a run, of a plan, and of the statuses of jobs.

To add a format: write `NAME.py` here with a function for each kind of report that it supports, add the functions to the
mappings below, and describe the format in docs/reports.md. A function gets the report's data, one item for each
manifest, and a `Style`, and has no side effects.

A report has no final newline. Whatever the manifest and the API put into names and messages, it contains no control
characters but line breaks, and color sequences if `Style.color` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from runner.planning.planned_jobs import Preview
from runner.reports.formats import csv, github, json, junit, markdown, prometheus, text_table
from runner.reports.formats.html.document import render_document
from runner.reports.formats.html.plan_page import build_plan_page
from runner.reports.formats.html.run_page import build_run_page
from runner.reports.formats.html.status_page import build_status_page
from runner.reports.style import Style
from runner.reports.views import plan, run, status
from runner.reports.views.status import StatusReport
from runner.runs.summary import RunSummary

__all__ = ["PLAN_FORMATS", "RUN_FORMATS", "STATUS_FORMATS", "Report"]

_T = TypeVar("_T")
Report = Callable[[_T, Style], str]

RUN_FORMATS: Mapping[str, Report[Sequence[RunSummary]]] = MappingProxyType(
    {
        "table": lambda runs, style: text_table.render_text_table(run.build_run_table(runs, style), style),
        "markdown": lambda runs, style: markdown.render_markdown(run.build_run_table(runs, style)),
        "csv": lambda runs, _style: csv.render_csv(run.FIELDS, run.list_entries(runs)),
        "json": json.render_runs,
        "junit": junit.render_runs,
        "github": github.render_runs,
        "html": lambda runs, style: render_document(build_run_page(runs, style)),
        "prometheus": prometheus.render_runs,
    }
)
PLAN_FORMATS: Mapping[str, Report[Sequence[Preview]]] = MappingProxyType(
    {
        "table": lambda plans, style: text_table.render_text_table(plan.build_plan_table(plans, style), style),
        "markdown": lambda plans, style: markdown.render_markdown(plan.build_plan_table(plans, style)),
        "csv": lambda plans, _style: csv.render_csv(plan.FIELDS, plan.list_planned_jobs(plans)),
        "json": json.render_plans,
        "github": github.render_plans,
        "html": lambda plans, style: render_document(build_plan_page(plans, style)),
    }
)
STATUS_FORMATS: Mapping[str, Report[Sequence[StatusReport]]] = MappingProxyType(
    {
        "table": lambda jobs, style: text_table.render_text_table(status.build_status_table(jobs, style), style),
        "markdown": lambda jobs, style: markdown.render_markdown(status.build_status_table(jobs, style)),
        "csv": lambda jobs, _style: csv.render_csv(status.CSV_FIELDS, status.list_jobs(jobs)),
        "json": json.render_statuses,
        "junit": junit.render_statuses,
        "github": github.render_statuses,
        "html": lambda jobs, style: render_document(build_status_page(jobs, style)),
        "prometheus": prometheus.render_statuses,
    }
)
