"""Prometheus's text: literal ones, read back by the client library, and the rules of `promtool check metrics`."""

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


def runs(*made: RunSummary) -> str:
    return prometheus.render_runs(made, Style())


def check(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Fail unless it is what Prometheus reads and its linter has nothing to say of; return the samples."""
    assert not text.endswith("\n")
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    names = []
    for family in text_string_to_metric_families(text + "\n"):
        names.append(family.name)
        lint(family)
        for sample in family.samples:
            assert sample.timestamp is None
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in samples
            samples[series] = sample.value
    assert len(names) == len(set(names))
    return samples


def lint(family: Any) -> None:
    """The rules of `promtool check metrics`, for gauges, and of the conventions for names."""
    assert family.type == "gauge"
    assert family.documentation.endswith(".")
    assert re.fullmatch(r"pixxel_runner_(run|status)(_[a-z]+)+", family.name)
    assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_info", "_created"))
    assert not set(family.name.split("_")) & {"gauge", "counter", "histogram", "summary", "milliseconds", "ms", "s"}
    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) <= {"manifest", "path", "api", "outcome", "state", "status"}
        assert not math.isnan(sample.value)


def test_a_record() -> None:
    made = record(
        entry("a", created("j-1", cost=12, val_errors=[1])),
        entry("b", not_created()),
        entry("c", in_doubt()),
        entry("d", Skipped("disabled", "enabled: false")),
        manifest_path="./jobs/nightly.yaml",
        state="stopped",
    )
    text = runs(summarize(made))
    check(text)
    of = 'manifest="nightly",path="jobs/nightly.yaml",api="https://api.pixxel.space"'
    assert text.split("\n") == [
        "# HELP pixxel_runner_run_jobs Jobs of the run key by outcome.",
        "# TYPE pixxel_runner_run_jobs gauge",
        f'pixxel_runner_run_jobs{{{of},outcome="created"}} 1',
        f'pixxel_runner_run_jobs{{{of},outcome="not_created"}} 1',
        f'pixxel_runner_run_jobs{{{of},outcome="in_doubt"}} 1',
        f'pixxel_runner_run_jobs{{{of},outcome="skipped"}} 1',
        "# HELP pixxel_runner_run_invalid_jobs Created jobs with validation errors.",
        "# TYPE pixxel_runner_run_invalid_jobs gauge",
        f"pixxel_runner_run_invalid_jobs{{{of}}} 1",
        "# HELP pixxel_runner_run_state How the run ended: 1 for its state, 0 for the other states.",
        "# TYPE pixxel_runner_run_state gauge",
        f'pixxel_runner_run_state{{{of},state="completed"}} 0',
        f'pixxel_runner_run_state{{{of},state="stopped"}} 1',
        f'pixxel_runner_run_state{{{of},state="interrupted"}} 0',
        "# HELP pixxel_runner_run_start_timestamp_seconds When the run started, in Unix time.",
        "# TYPE pixxel_runner_run_start_timestamp_seconds gauge",
        f"pixxel_runner_run_start_timestamp_seconds{{{of}}} 1792458000.000",
        "# HELP pixxel_runner_run_end_timestamp_seconds When the run ended, in Unix time.",
        "# TYPE pixxel_runner_run_end_timestamp_seconds gauge",
        f"pixxel_runner_run_end_timestamp_seconds{{{of}}} 1792458120.001",
        "# HELP pixxel_runner_run_duration_seconds How long the run took.",
        "# TYPE pixxel_runner_run_duration_seconds gauge",
        f"pixxel_runner_run_duration_seconds{{{of}}} 120.001",
        "# HELP pixxel_runner_run_cost_tokens Cost of the created jobs, where known.",
        "# TYPE pixxel_runner_run_cost_tokens gauge",
        f"pixxel_runner_run_cost_tokens{{{of}}} 12",
    ]


def by_label(text: str, name: str, label: str) -> dict[str, float]:
    found = {}
    for (metric, labels), value in check(text).items():
        if metric == name:
            found[dict(labels)[label]] = value
    return found


def test_every_outcome_is_there_when_there_is_none_of_it() -> None:
    assert by_label(runs(summarize(record())), "pixxel_runner_run_jobs", "outcome") == dict.fromkeys(OUTCOMES, 0.0)


def test_nothing_is_nothing() -> None:
    style = Style()
    assert prometheus.render_runs([], style) == prometheus.render_statuses([], style) == ""


def test_an_estimate_is_told_where_there_is_one() -> None:
    job = created("j-1")
    made = summarize(record(entry("a", type(job)(job.job_id, job.body, 1, job.sent_at, estimate=40))))
    assert by_label(runs(made), "pixxel_runner_run_estimate_tokens", "manifest") == {"nightly": 40.0}


def test_two_manifests_of_one_name_in_two_folders_are_two() -> None:
    made = [summarize(record(manifest_path=path)) for path in ("europe/nightly.yaml", "asia/nightly.yaml")]
    found = by_label(runs(*made), "pixxel_runner_run_cost_tokens", "path")
    assert set(found) == {"europe/nightly.yaml", "asia/nightly.yaml"}


def test_a_manifest_that_is_told_twice_is_what_was_told_last() -> None:
    later = datetime(2026, 10, 20, 3, tzinfo=UTC)
    made = [summarize(record(manifest_path="./a.yaml")), summarize(record(manifest_path="a.yaml", finished_at=later))]
    found = by_label(runs(*made), "pixxel_runner_run_end_timestamp_seconds", "path")
    assert found == {"a.yaml": later.timestamp()}


def test_a_rehearsal_is_a_series_of_its_own() -> None:
    made = [summarize(record()), summarize(record(base_url="sandbox"))]
    assert set(by_label(runs(*made), "pixxel_runner_run_cost_tokens", "api")) == {"https://api.pixxel.space", "sandbox"}


@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "a\nb", "\\n", 'a",path="x', "a}b 1", "# HELP", "名前", "\udcff", "\\", "a\u2028b"]
)
def test_a_label_holds_any_text(name: str) -> None:
    found = by_label(runs(summarize(record(manifest_name=name))), "pixxel_runner_run_cost_tokens", "manifest")
    assert set(found) == {escape_unprintable(name)}


@pytest.mark.parametrize("digits", [0, 15, 300, 400, 599])
def test_a_cost_is_a_number_for_prometheus_however_large(digits: int) -> None:
    text = runs(summarize(record(entry("a", created("j", cost=10**digits)))))
    [value] = by_label(text, "pixxel_runner_run_cost_tokens", "manifest").values()
    assert float(value) == float(f"1e{digits}")
    assert text.endswith(" +Inf") is (digits > 308)


def test_jobs_at_the_api() -> None:
    made = status_report(
        job_status("a", status="completed", cost=12),
        job_status("b", status="weird"),
        job_status("c", status="running", cost=-1, problem="HTTP 500"),
        others={"in_doubt": 2},
    )
    text = prometheus.render_statuses([made], Style())
    assert by_label(text, "pixxel_runner_status_jobs", "status") == {
        "completed": 1,
        "failed": 0,
        "cancelled": 0,
        "active": 0,
        "unknown": 2,
    }
    assert by_label(text, "pixxel_runner_status_other_jobs", "outcome") == {
        "not_created": 0,
        "in_doubt": 2,
        "skipped": 0,
    }
    values = {name: value for (name, _), value in check(text).items() if not name.endswith(("s_jobs", "other_jobs"))}
    assert values == {
        "pixxel_runner_status_problem_jobs": 1,
        "pixxel_runner_status_cost_tokens": 12,
        "pixxel_runner_status_seen_timestamp_seconds": 1792461600.5,
    }


@settings(max_examples=30)
@given(st.lists(summaries, max_size=3), st.lists(status_reports, max_size=3))
def test_any_report_can_be_read(run: Any, status: Any) -> None:
    style = Style()
    for text in (prometheus.render_runs(run, style), prometheus.render_statuses(status, style)):
        check(text)
        assert not [char for char in text.replace("\n", "") if not (char.isprintable() or char.isspace())]


def _samples() -> Sequence[str]:
    made = record(entry("a", created("j-1", cost=12)), entry("b", not_created()), manifest_name='a"b\\c\n名')
    return (
        runs(summarize(made), summarize(record(base_url="sandbox"))),
        runs(summarize(record(entry("a", created("j", cost=10**400))))),
        prometheus.render_statuses([status_report(job_status("a", status="completed"))], Style()),
    )


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool (Debian's package prometheus)")
@pytest.mark.parametrize("text", _samples())
def test_promtool_has_nothing_to_say(text: str) -> None:
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text + "\n", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
