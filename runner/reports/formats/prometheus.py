"""Metrics as the text that Prometheus reads, for node_exporter's textfile collector: gauges without timestamps.

A series is one of a manifest at an API: nothing in a label is as many as there are jobs or runs. `path` is a label, as
two folders may each have a `nightly.yaml`, and `api`, as a rehearsal in the sandbox is no night's run.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar, get_args

from runner.core.models import OutcomeName, RunState
from runner.core.text import escape_unprintable
from runner.reports.style import Style
from runner.reports.views.status import StatusReport
from runner.runs.job_status import StatusKind
from runner.runs.summary import RunSummary

_T = TypeVar("_T")
_Labels = tuple[tuple[str, str], ...]
# By the value of the metric's own label; None where there is nothing to tell.
_Values = Mapping[str, float | None]

_OUTCOMES: tuple[OutcomeName, ...] = ("created", "not_created", "in_doubt", "skipped")


@dataclass(frozen=True, slots=True)
class _Metric(Generic[_T]):
    """A gauge: the label that tells its values apart, if it has several, and where they come from."""

    name: str
    help: str
    values: Callable[[_T], _Values]
    label: str = ""


def render_runs(made: Sequence[RunSummary], _style: Style) -> str:
    """Records: jobs by outcome, when the run began and ended, how it ended, and what the jobs cost."""
    return _exposition(
        _RUN, {_labels(one.run.manifest_name, one.run.manifest_path, one.run.base_url): one for one in made}
    )


def render_statuses(made: Sequence[StatusReport], _style: Style) -> str:
    """Jobs at the API: how many there are of each kind of status, and what they cost."""
    return _exposition(_STATUS, {_labels(one.manifest, one.manifest_path, one.api): one for one in made})


def _labels(name: str, path: str, api: str) -> _Labels:
    """What tells manifests apart. Two that have all of it in common are one: the last one told is what holds."""
    place = posixpath.normpath(path) if path else ""
    return (
        ("manifest", escape_unprintable(name)),
        ("path", escape_unprintable(place)),
        ("api", escape_unprintable(api)),
    )


def _exposition(metrics: Sequence[_Metric[_T]], made: Mapping[_Labels, _T]) -> str:
    return "\n".join(line for metric in metrics for line in _family(metric, made))


def _family(metric: _Metric[_T], made: Mapping[_Labels, _T]) -> Iterator[str]:
    samples = [line for labels, one in made.items() for line in _samples(metric, labels, one)]
    if samples:
        yield f"# HELP {metric.name} {metric.help}"
        yield f"# TYPE {metric.name} gauge"
        yield from samples


def _samples(metric: _Metric[_T], labels: _Labels, one: _T) -> Iterator[str]:
    for value, number in metric.values(one).items():
        if number is not None:
            own = ((metric.label, value),) if metric.label else ()
            listed = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels + own)
            yield f"{metric.name}{{{listed}}} {_number(number)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(number: float) -> str:
    """A number as Prometheus reads it: none that it would refuse the whole file for."""
    try:
        as_float = float(number)
    except OverflowError:  # a cost of more than 300 digits
        return "+Inf" if number > 0 else "-Inf"
    return str(number) if isinstance(number, int) else f"{as_float:.3f}"


def _one(number: float | None) -> _Values:
    return {"": number}


def _latest(made: StatusReport) -> _Values:
    seen: list[datetime] = [one.seen_at for one in made.jobs if one.seen_at is not None]
    return _one(max(seen).timestamp() if seen else None)


def _kinds(made: StatusReport) -> _Values:
    # The kind and not the word, which is the API's and may be any.
    counts = Counter(one.current_kind for one in made.jobs)
    return {kind: counts[kind] for kind in get_args(StatusKind)}


_RUN: tuple[_Metric[RunSummary], ...] = (
    _Metric(
        "pixxel_runner_run_jobs",
        "Jobs of the run's key, by outcome.",
        lambda one: {outcome: getattr(one.summary, outcome) for outcome in _OUTCOMES},
        "outcome",
    ),
    _Metric(
        "pixxel_runner_run_invalid_jobs",
        "Created jobs that the API told validation errors of.",
        lambda one: _one(one.invalid_jobs),
    ),
    _Metric(
        "pixxel_runner_run_state",
        "How the run ended: 1 for the state that it has, 0 for the others.",
        lambda one: {state: int(state == one.run.state) for state in get_args(RunState)},
        "state",
    ),
    _Metric(
        "pixxel_runner_run_start_timestamp_seconds",
        "When the run began, as Unix time.",
        lambda one: _one(one.run.started_at.timestamp()),
    ),
    _Metric(
        "pixxel_runner_run_end_timestamp_seconds",
        "When the run ended, as Unix time.",
        lambda one: _one(one.run.finished_at.timestamp()),
    ),
    _Metric(
        "pixxel_runner_run_duration_seconds",
        "How long the run took.",
        lambda one: _one((one.run.finished_at - one.run.started_at).total_seconds()),
    ),
    _Metric(
        "pixxel_runner_run_cost_tokens",
        "What the jobs that exist cost, as far as the API told.",
        lambda one: _one(one.summary.cost),
    ),
    _Metric(
        "pixxel_runner_run_estimate_tokens",
        "What the jobs that exist or may exist were expected to cost, as far as that was asked for.",
        lambda one: _one(one.summary.estimate),
    ),
)

_STATUS: tuple[_Metric[StatusReport], ...] = (
    _Metric("pixxel_runner_status_jobs", "Jobs at the API, by the kind of their status.", _kinds, "status"),
    _Metric(
        "pixxel_runner_status_problem_jobs",
        "Jobs of which nothing newer could be learned.",
        lambda one: _one(sum(bool(each.problem) for each in one.jobs)),
    ),
    _Metric(
        "pixxel_runner_status_other_jobs",
        "Jobs of the run that are not known to exist at the API, by outcome.",
        lambda one: {outcome: one.without_job.get(outcome, 0) for outcome in _OUTCOMES[1:]},
        "outcome",
    ),
    _Metric(
        "pixxel_runner_status_cost_tokens",
        "What the jobs cost, as far as the API told.",
        lambda one: _one(sum(max(0, each.cost or 0) for each in one.jobs)),
    ),
    _Metric(
        "pixxel_runner_status_seen_timestamp_seconds",
        "When the API last told of one of the jobs, as Unix time.",
        _latest,
    ),
)
