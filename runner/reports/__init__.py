"""Reports as text: `views` decides what is shown of a run, a plan or statuses, `formats` how. Pure functions."""

from runner.reports.formats import PLAN_FORMATS, RUN_FORMATS, STATUS_FORMATS, Report
from runner.reports.style import Style
from runner.reports.views.run import run_totals
from runner.reports.views.status import StatusReport, describe_without_job
from runner.runs.job_status import summarize_statuses

__all__ = [
    "PLAN_FORMATS",
    "RUN_FORMATS",
    "STATUS_FORMATS",
    "Report",
    "StatusReport",
    "Style",
    "describe_without_job",
    "run_totals",
    "summarize_statuses",
]
