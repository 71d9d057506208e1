"""The Prometheus format: expected output, parsed by the client library, and the rules of `promtool check metrics`."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support.records import created, entry, in_doubt, not_created, record
from support.report_data import job_status, status_report, status_reports, summaries

from runner.core.models import Skipped
from runner.core.text import escape_unprintable
from runner.reports.formats import prometheus
from runner.reports.style import Style
from runner.runs.summary import RunSummary, summarize

OUTCOMES = ("created", "not_created", "in_doubt", "skipped")
PROMTOOL = shutil.which("promtool")


def render_runs(*run_summaries: RunSummary) -> str:
    return prometheus.render_runs(run_summaries, Style())


def parse_samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Parse the text and check its conventions. Returns the value of each series."""
    assert not text.endswith("\n")
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    names = []
    for family in text_string_to_metric_families(text + "\n"):
        names.append(family.name)
        check_conventions(family)
        for sample in family.samples:
            assert sample.timestamp is None
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in samples
            samples[series] = sample.value
    assert len(names) == len(set(names))
    return samples


def check_conventions(family: Any) -> None:
    """Check the rules of `promtool check metrics` for gauges, and the naming conventions."""
    assert family.type == "gauge"
    assert family.documentation.endswith(".")
    assert re.fullmatch(r"pixxel_runner_(run|status)(_[a-z]+)+", family.name)
    assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_info", "_created"))
    assert not set(family.name.split("_")) & {"gauge", "counter", "histogram", "summary", "milliseconds", "ms", "s"}
    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) <= {"manifest", "path", "api", "outcome", "state", "status"}
        assert not math.isnan(sample.value)


def test_metrics_of_a_run() -> None:
    run_record = record(
        entry("a", created("j-1", cost=12, val_errors=[1])),
        entry("b", not_created()),
        entry("c", in_doubt()),
        entry("d", Skipped("disabled", "enabled: false")),
        manifest_path="./jobs/nightly.yaml",
        state="stopped",
    )
    text = render_runs(summarize(run_record))
    parse_samples(text)
    labels = 'manifest="nightly",path="jobs/nightly.yaml",api="https://api.pixxel.space"'
    assert text.split("\n") == [
        "# HELP pixxel_runner_run_jobs Jobs of the run key by outcome.",
        "# TYPE pixxel_runner_run_jobs gauge",
        f'pixxel_runner_run_jobs{{{labels},outcome="created"}} 1',
        f'pixxel_runner_run_jobs{{{labels},outcome="not_created"}} 1',
        f'pixxel_runner_run_jobs{{{labels},outcome="in_doubt"}} 1',
        f'pixxel_runner_run_jobs{{{labels},outcome="skipped"}} 1',
        "# HELP pixxel_runner_run_invalid_jobs Created jobs with validation errors.",
        "# TYPE pixxel_runner_run_invalid_jobs gauge",
        f"pixxel_runner_run_invalid_jobs{{{labels}}} 1",
        "# HELP pixxel_runner_run_state How the run ended: 1 for its state, 0 for the other states.",
        "# TYPE pixxel_runner_run_state gauge",
        f'pixxel_runner_run_state{{{labels},state="completed"}} 0',
        f'pixxel_runner_run_state{{{labels},state="stopped"}} 1',
        f'pixxel_runner_run_state{{{labels},state="interrupted"}} 0',
        "# HELP pixxel_runner_run_start_timestamp_seconds When the run started, in Unix time.",
        "# TYPE pixxel_runner_run_start_timestamp_seconds gauge",
        f"pixxel_runner_run_start_timestamp_seconds{{{labels}}} 1792458000.000",
        "# HELP pixxel_runner_run_end_timestamp_seconds When the run ended, in Unix time.",
        "# TYPE pixxel_runner_run_end_timestamp_seconds gauge",
        f"pixxel_runner_run_end_timestamp_seconds{{{labels}}} 1792458120.001",
        "# HELP pixxel_runner_run_duration_seconds How long the run took.",
        "# TYPE pixxel_runner_run_duration_seconds gauge",
        f"pixxel_runner_run_duration_seconds{{{labels}}} 120.001",
        "# HELP pixxel_runner_run_cost_tokens Cost of the created jobs, where known.",
        "# TYPE pixxel_runner_run_cost_tokens gauge",
        f"pixxel_runner_run_cost_tokens{{{labels}}} 12",
    ]


def values_by_label(text: str, name: str, label: str) -> dict[str, float]:
    values = {}
    for (metric, labels), value in parse_samples(text).items():
        if metric == name:
            values[dict(labels)[label]] = value
    return values


def test_outcomes_without_jobs_are_zero() -> None:
    assert values_by_label(render_runs(summarize(record())), "pixxel_runner_run_jobs", "outcome") == dict.fromkeys(
        OUTCOMES, 0.0
    )


def test_no_records_render_no_text() -> None:
    style = Style()
    assert prometheus.render_runs([], style) == prometheus.render_statuses([], style) == ""


def test_known_estimate_is_exported() -> None:
    job = created("j-1")
    summary = summarize(record(entry("a", type(job)(job.job_id, job.body, 1, job.sent_at, estimate=40))))
    assert values_by_label(render_runs(summary), "pixxel_runner_run_estimate_tokens", "manifest") == {"nightly": 40.0}


def test_manifests_of_one_name_in_two_directories_are_distinct_series() -> None:
    run_summaries = [summarize(record(manifest_path=path)) for path in ("europe/nightly.yaml", "asia/nightly.yaml")]
    costs = values_by_label(render_runs(*run_summaries), "pixxel_runner_run_cost_tokens", "path")
    assert set(costs) == {"europe/nightly.yaml", "asia/nightly.yaml"}


def test_last_run_of_a_manifest_wins() -> None:
    later = datetime(2026, 10, 20, 3, tzinfo=UTC)
    run_summaries = [
        summarize(record(manifest_path="./a.yaml")),
        summarize(record(manifest_path="a.yaml", finished_at=later)),
    ]
    end_times = values_by_label(render_runs(*run_summaries), "pixxel_runner_run_end_timestamp_seconds", "path")
    assert end_times == {"a.yaml": later.timestamp()}


def test_sandbox_runs_are_a_separate_series() -> None:
    run_summaries = [summarize(record()), summarize(record(base_url="sandbox"))]
    assert set(values_by_label(render_runs(*run_summaries), "pixxel_runner_run_cost_tokens", "api")) == {
        "https://api.pixxel.space",
        "sandbox",
    }


@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "a\nb", "\\n", 'a",path="x', "a}b 1", "# HELP", "名前", "\udcff", "\\", "a\u2028b"]
)
def test_label_can_contain_any_text(name: str) -> None:
    costs = values_by_label(
        render_runs(summarize(record(manifest_name=name))), "pixxel_runner_run_cost_tokens", "manifest"
    )
    assert set(costs) == {escape_unprintable(name)}


@pytest.mark.parametrize("digits", [0, 15, 300, 400, 599])
def test_any_cost_is_a_valid_number(digits: int) -> None:
    text = render_runs(summarize(record(entry("a", created("j", cost=10**digits)))))
    [value] = values_by_label(text, "pixxel_runner_run_cost_tokens", "manifest").values()
    assert float(value) == float(f"1e{digits}")
    assert text.endswith(" +Inf") is (digits > 308)


def test_metrics_of_job_statuses() -> None:
    report = status_report(
        job_status("a", status="completed", cost=12),
        job_status("b", status="weird"),
        job_status("c", status="running", cost=-1, problem="HTTP 500"),
        others={"in_doubt": 2},
    )
    text = prometheus.render_statuses([report], Style())
    assert values_by_label(text, "pixxel_runner_status_jobs", "status") == {
        "completed": 1,
        "failed": 0,
        "cancelled": 0,
        "active": 0,
        "unknown": 2,
    }
    assert values_by_label(text, "pixxel_runner_status_other_jobs", "outcome") == {
        "not_created": 0,
        "in_doubt": 2,
        "skipped": 0,
    }
    values = {
        name: value for (name, _), value in parse_samples(text).items() if not name.endswith(("s_jobs", "other_jobs"))
    }
    assert values == {
        "pixxel_runner_status_problem_jobs": 1,
        "pixxel_runner_status_cost_tokens": 12,
        "pixxel_runner_status_seen_timestamp_seconds": 1792461600.5,
    }


@settings(max_examples=30)
@given(st.lists(summaries, max_size=3), st.lists(status_reports, max_size=3))
def test_any_report_can_be_parsed(run_summaries: Any, job_reports: Any) -> None:
    style = Style()
    for text in (prometheus.render_runs(run_summaries, style), prometheus.render_statuses(job_reports, style)):
        parse_samples(text)
        assert not [
            character for character in text.replace("\n", "") if not (character.isprintable() or character.isspace())
        ]


def _samples() -> Sequence[str]:
    run_record = record(entry("a", created("j-1", cost=12)), entry("b", not_created()), manifest_name='a"b\\c\n名')
    return (
        render_runs(summarize(run_record), summarize(record(base_url="sandbox"))),
        render_runs(summarize(record(entry("a", created("j", cost=10**400))))),
        prometheus.render_statuses([status_report(job_status("a", status="completed"))], Style()),
    )


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian package: prometheus)")
@pytest.mark.parametrize("text", _samples())
def test_promtool_reports_no_problems(text: str) -> None:
    completed = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text + "\n", capture_output=True, text=True, check=False
    )
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", "")
