"""JSON documents: for a run the results file's, for a plan and for statuses one object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.planning.planned_jobs import Preview
from runner.reports.style import Style
from runner.reports.views.plan import build_plan_document
from runner.reports.views.status import StatusReport, build_status_document
from runner.runs import results_file
from runner.runs.summary import RunSummary


def render_runs(summaries: Sequence[RunSummary], style: Style) -> str:
    """The results document, or, with several manifests, an object whose `runs` are the documents."""
    documents = ("".join(results_file.serialize(run)).removesuffix("\n") for run in summaries)
    return _combine("runs", documents, style)


def render_plans(previews: Sequence[Preview], style: Style) -> str:
    """The plan, or, with several manifests, an object whose `plans` are the plans."""
    return _combine("plans", (results_file.dump_escaped(build_plan_document(plan)) for plan in previews), style)


def render_statuses(reports: Sequence[StatusReport], style: Style) -> str:
    """The jobs of a run, or, with several manifests, an object whose `statuses` are those of each run."""
    documents = (results_file.dump_escaped(build_status_document(report)) for report in reports)
    return _combine("statuses", documents, style)


def _combine(name: str, documents: Iterator[str], style: Style) -> str:
    if not style.several_manifests:
        return next(documents)
    joined = ",\n".join(documents)
    return f'{{\n  "version": 1,\n  "{name}": [\n{joined}\n  ]\n}}'
