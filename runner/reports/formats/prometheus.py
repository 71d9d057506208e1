"""Metrics in Prometheus's text format, for node_exporter's textfile collector: gauges without timestamps.

Each manifest at each API has its own series; no label has as many values as there are jobs or runs. `path` is a label
because two directories may each have a `nightly.yaml`, `api` because a run in the sandbox is not the nightly run.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, get_args

from runner.core.models import OutcomeName, RunState
from runner.core.text import escape_unprintable
from runner.reports.style import Style
from runner.reports.views.status import StatusReport, total_cost
from runner.runs.job_status import StatusKind
from runner.runs.summary import RunSummary

_T = TypeVar("_T")
_Labels = tuple[tuple[str, str], ...]
# One value, or several by the value of the metric's label. None: there is no sample.
_Values = float | None | Mapping[str, float]

_OUTCOMES: tuple[OutcomeName, ...] = get_args(OutcomeName)


@dataclass(frozen=True, slots=True)
class _Metric(Generic[_T]):
    """A gauge, and how to get its values. `label` distinguishes them if there are several."""

    name: str
    help: str
    get_values: Callable[[_T], _Values]
    label: str = ""


def render_runs(summaries: Sequence[RunSummary], _style: Style) -> str:
    """A run: its jobs by outcome, its state and times, and what the jobs cost."""
    return _render(
        _RUN_METRICS,
        {_build_labels(run.run.manifest_name, run.run.manifest_path, run.run.base_url): run for run in summaries},
    )


def render_statuses(reports: Sequence[StatusReport], _style: Style) -> str:
    """Jobs at the API: how many have each kind of status, and what they cost."""
    return _render(
        _STATUS_METRICS,
        {_build_labels(report.manifest, report.manifest_path, report.api): report for report in reports},
    )


def _build_labels(manifest: str, path: str, api: str) -> _Labels:
    """The labels of a manifest's series. Of two manifests with equal labels, the later one counts."""
    values = {"manifest": manifest, "path": posixpath.normpath(path) if path else "", "api": api}
    return tuple((name, escape_unprintable(value)) for name, value in values.items())


def _render(metrics: Sequence[_Metric[_T]], items: Mapping[_Labels, _T]) -> str:
    return "\n".join(line for metric in metrics for line in _render_family(metric, items))


def _render_family(metric: _Metric[_T], items: Mapping[_Labels, _T]) -> Iterator[str]:
    samples = [line for labels, item in items.items() for line in _render_samples(metric, labels, item)]
    if samples:
        yield f"# HELP {metric.name} {metric.help}"
        yield f"# TYPE {metric.name} gauge"
        yield from samples


def _render_samples(metric: _Metric[_T], labels: _Labels, item: _T) -> Iterator[str]:
    values = metric.get_values(item)
    if isinstance(values, Mapping):
        for label, value in values.items():
            yield _render_sample(metric.name, (*labels, (metric.label, label)), value)
    elif values is not None:
        yield _render_sample(metric.name, labels, values)


def _render_sample(name: str, labels: _Labels, value: float) -> str:
    listed = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
    return f"{name}{{{listed}}} {_format_number(value)}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _format_number(number: float) -> str:
    """A number as Prometheus reads it. It would refuse the whole file for one that it cannot read."""
    try:
        as_float = float(number)
    except OverflowError:  # an int of more than 308 digits
        return "+Inf" if number > 0 else "-Inf"
    return str(number) if isinstance(number, int) else f"{as_float:.3f}"


def _count_kinds(report: StatusReport) -> _Values:
    # By kind, not by status, which can be any word.
    counts = Counter(job.current_kind for job in report.jobs)
    return {kind: counts[kind] for kind in get_args(StatusKind)}


_RUN_METRICS: Sequence[_Metric[RunSummary]] = (
    _Metric(
        "pixxel_runner_run_jobs",
        "Jobs of the run key by outcome.",
        lambda run: {outcome: getattr(run.summary, outcome) for outcome in _OUTCOMES},
        "outcome",
    ),
    _Metric("pixxel_runner_run_invalid_jobs", "Created jobs with validation errors.", lambda run: run.invalid_jobs),
    _Metric(
        "pixxel_runner_run_state",
        "How the run ended: 1 for its state, 0 for the other states.",
        lambda run: {state: int(state == run.run.state) for state in get_args(RunState)},
        "state",
    ),
    _Metric(
        "pixxel_runner_run_start_timestamp_seconds",
        "When the run started, in Unix time.",
        lambda run: run.run.started_at.timestamp(),
    ),
    _Metric(
        "pixxel_runner_run_end_timestamp_seconds",
        "When the run ended, in Unix time.",
        lambda run: run.run.finished_at.timestamp(),
    ),
    _Metric(
        "pixxel_runner_run_duration_seconds",
        "How long the run took.",
        lambda run: (run.run.finished_at - run.run.started_at).total_seconds(),
    ),
    _Metric("pixxel_runner_run_cost_tokens", "Cost of the created jobs, where known.", lambda run: run.summary.cost),
    _Metric(
        "pixxel_runner_run_estimate_tokens",
        "Estimated cost of the jobs that are created or in doubt, where known.",
        lambda run: run.summary.estimate,
    ),
)

_STATUS_METRICS: Sequence[_Metric[StatusReport]] = (
    _Metric("pixxel_runner_status_jobs", "Jobs at the API by kind of status.", _count_kinds, "status"),
    _Metric(
        "pixxel_runner_status_problem_jobs",
        "Jobs whose current status could not be retrieved.",
        lambda report: sum(bool(job.problem) for job in report.jobs),
    ),
    _Metric(
        "pixxel_runner_status_other_jobs",
        "Jobs of the run that are not known to exist at the API, by outcome.",
        lambda report: {outcome: report.without_job.get(outcome, 0) for outcome in _OUTCOMES if outcome != "created"},
        "outcome",
    ),
    _Metric("pixxel_runner_status_cost_tokens", "Cost of the jobs, where known.", lambda run: total_cost(run.jobs)),
    _Metric(
        "pixxel_runner_status_seen_timestamp_seconds",
        "When the API last reported one of the jobs, in Unix time.",
        lambda report: max((job.seen_at.timestamp() for job in report.jobs if job.seen_at), default=None),
    ),
)
