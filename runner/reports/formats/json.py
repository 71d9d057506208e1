"""JSON documents: of a record what the results file holds, of the rest one object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner.planning.planned_jobs import Preview
from runner.reports.style import Style
from runner.reports.views import plan, status
from runner.reports.views.status import StatusReport
from runner.runs import results_file
from runner.runs.summary import RunSummary


def render_runs(made: Sequence[RunSummary], style: Style) -> str:
    """The results document, or where several were asked for, an object with all of them as `runs`.

    Without the last line's end.
    """
    documents = ("".join(results_file.serialize(one)).removesuffix("\n") for one in made)
    return _together("runs", documents) if style.several_manifests else next(documents)


def render_plans(made: Sequence[Preview], style: Style) -> str:
    """The forecast, or where several were asked for, an object with all of them as `plans`."""
    documents = (render_json(plan.document(one)) for one in made)
    return _together("plans", documents) if style.several_manifests else next(documents)


def render_statuses(made: Sequence[StatusReport], style: Style) -> str:
    """What became of the jobs of a run, or where several were asked for, an object with all of them as `statuses`."""
    documents = (render_json(status.document(one)) for one in made)
    return _together("statuses", documents) if style.several_manifests else next(documents)


def _together(name: str, documents: Iterable[str]) -> str:
    listed = ",\n".join(documents)
    return f'{{\n  "version": 1,\n  "{name}": [\n{listed}\n  ]\n}}'


def render_json(value: Mapping[str, Any]) -> str:
    """An object as JSON that no terminal and no CI log would act on, without the last line's end."""
    return results_file.dump_escaped(value)
