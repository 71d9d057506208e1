"""One HTML document for a person: of the records of runs, of plans, or of what became of jobs.

It is one file that asks nobody for anything, can be read without JavaScript, and holds every job: what sorts, filters
and turns pages is added by its script. The same input makes the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

from runner.planning.planned_jobs import Preview
from runner.reports.formats.html import plan_page, run_page, status_page
from runner.reports.formats.html.document import document
from runner.reports.style import Style
from runner.reports.views.status import StatusReport
from runner.runs.summary import RunSummary

__all__ = ["render_plans", "render_runs", "render_statuses"]


def render_runs(made: Sequence[RunSummary], style: Style) -> str:
    """What was submitted, and what it came to: a digest a manifest. Without the last line's end."""
    return document(run_page.page(made, style))


def render_plans(made: Sequence[Preview], style: Style) -> str:
    """What runs would do: a forecast a manifest. Without the last line's end."""
    return document(plan_page.page(made, style))


def render_statuses(made: Sequence[StatusReport], style: Style) -> str:
    """What became of jobs at the API: a standing a run. Without the last line's end."""
    return document(status_page.page(made, style))
