"""The JUnit format: expected output, valid for the common schema and Ant's stricter rules, and parsed back."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import junitparser
import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records import HOSTILE, created, entry, in_doubt, not_created, record, words
from support.report_data import job_status, status_report, status_reports, summaries

from runner.core.models import Created, Entry, InDoubt, NotCreated, Skipped
from runner.reports.formats import junit
from runner.reports.style import Style
from runner.reports.views.run import IN_DOUBT_ADVICE
from runner.runs.summary import RunSummary, summarize

_SCHEMA = Path(__file__).parents[3] / "cases" / "junit" / "junit-10.xsd"
_WHITESPACE = "\t\n\r "
_REQUIRED = {"name", "package", "id", "hostname", "tests", "failures", "errors", "skipped", "time"}
_ATTRIBUTES = {"failure": {"type", "message"}, "error": {"type", "message"}, "skipped": {"message"}}


@functools.cache
def load_schema() -> xmlschema.XMLSchema10:
    return xmlschema.XMLSchema10(_SCHEMA)


def validate(text: str) -> Any:
    """Fail unless the text is valid for all JUnit readers. Returns the root element."""
    root = ET.fromstring(text)  # noqa: S314 - trusted input
    load_schema().validate(root)
    assert root.tag == "testsuites"
    assert not root.attrib
    for number, suite in enumerate(root):
        validate_for_ant(suite, number)
    return root


def validate_for_ant(suite: Any, number: int) -> None:
    """Check what the JUnit.xsd of Apache Ant requires beyond the common schema."""
    assert set(suite.attrib) - {"timestamp"} == _REQUIRED
    assert suite.get("id") == str(number)
    assert suite.get("name").strip(_WHITESPACE)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", "1970-01-01T00:00:00"))
    assert [element.tag for element in suite if element.tag != "testcase"] == ["properties", "system-out", "system-err"]
    assert (suite[0].tag, suite[-2].tag, suite[-1].tag) == ("properties", "system-out", "system-err")
    assert all(set(element.attrib) == {"name", "value"} for element in suite[0])
    tests = list(suite.findall("testcase"))
    for test in tests:
        assert set(test.attrib) == {"name", "classname", "time"}
        assert test.get("name").strip(_WHITESPACE)
        assert len(test) <= 1
        assert all(set(element.attrib) == _ATTRIBUTES[element.tag] for element in test)
    results = [element.tag for test in tests for element in test]
    assert [int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")] == [
        len(tests),
        results.count("failure"),
        results.count("error"),
        results.count("skipped"),
    ]


def render_runs(*run_summaries: RunSummary) -> str:
    return junit.render_runs(run_summaries, Style())


def at_line(line: int, job_entry: Entry) -> Entry:
    return replace(job_entry, job=replace(job_entry.job, line=line))


FOUR_JOBS = record(
    at_line(5, entry("a", created("j-1", cost=12, val_errors=[1]))),
    at_line(6, entry("b<&", not_created(message='no "such" workflow', request_id="q-1"), run_id="run-1")),
    at_line(7, entry("c", in_doubt(candidates=("j-8", "j-9")))),
    entry("d", Skipped("disabled", "enabled: false")),
    git_commit="c0ffee",
)


def test_xml_of_a_run() -> None:
    text = render_runs(summarize(FOUR_JOBS))
    validate(text)
    assert text == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        "<testsuites>\n"
        '  <testsuite name="nightly" package="nightly.yaml" id="0" timestamp="2026-10-20T01:00:00" '
        'hostname="localhost" tests="4" failures="1" errors="1" skipped="1" time="120.001">\n'
        "    <properties>\n"
        '      <property name="run_id" value="run-2"/>\n'
        '      <property name="run_key" value="day:2026-10-20"/>\n'
        '      <property name="state" value="completed"/>\n'
        '      <property name="started_at" value="2026-10-20T01:00:00.000Z"/>\n'
        '      <property name="finished_at" value="2026-10-20T01:02:00.000Z"/>\n'
        '      <property name="runner" value="pixxel-runner 0.1.0"/>\n'
        '      <property name="manifest_path" value="nightly.yaml"/>\n'
        f'      <property name="manifest_sha256" value="{"ab" * 32}"/>\n'
        '      <property name="git_commit" value="c0ffee"/>\n'
        '      <property name="base_url" value="https://api.pixxel.space"/>\n'
        '      <property name="created_earlier" value="0"/>\n'
        '      <property name="with_validation_errors" value="1"/>\n'
        '      <property name="cost" value="12"/>\n'
        "    </properties>\n"
        '    <testcase name="a" classname="nightly" time="0.000"/>\n'
        '    <testcase name="b&lt;&amp;" classname="nightly" time="0.000"><failure type="rejected" '
        'message="no &quot;such&quot; workflow">nightly.yaml:6: not created: rejected: no &quot;such&quot; workflow\n'
        "workflow: w-b&lt;&amp;\n"
        "project: p-1\n"
        "run: run-1\n"
        "sent: 2026-10-20T01:00:03.120Z\n"
        "request id: q-1</failure></testcase>\n"
        '    <testcase name="c" classname="nightly" time="0.000"><error type="timeout" message="no answer came">'
        "nightly.yaml:7: in doubt: timeout: no answer came\n"
        "workflow: w-c\n"
        "project: p-1\n"
        "run: run-2\n"
        "sent: 2026-10-20T01:00:03.120Z\n"
        f"{IN_DOUBT_ADVICE}\n"
        "candidates: j-8, j-9</error></testcase>\n"
        '    <testcase name="d" classname="nightly" time="0.000"><skipped message="disabled: enabled: false"/>'
        "</testcase>\n"
        "    <system-out>4 jobs: 1 created, 1 not created, 1 in doubt, 1 skipped · cost 12</system-out>\n"
        "    <system-err/>\n"
        "  </testsuite>\n"
        "</testsuites>"
    )


def test_timestamp_is_in_utc_without_an_offset() -> None:
    started_at = datetime.fromisoformat("2026-10-20T06:30:00+05:30")
    suite = validate(render_runs(summarize(record(started_at=started_at))))[0]
    assert suite.get("timestamp") == "2026-10-20T01:00:00"


def test_duration_is_not_negative_if_the_clock_was_set_back() -> None:
    started_at = datetime(2026, 10, 20, 3, tzinfo=UTC)
    assert validate(render_runs(summarize(record(started_at=started_at))))[0].get("time") == "0.000"


def test_each_manifest_is_a_test_suite() -> None:
    root = validate(render_runs(summarize(FOUR_JOBS), summarize(record(manifest_path="b/nightly.yaml"))))
    assert [suite.get("package") for suite in root] == ["nightly.yaml", "b/nightly.yaml"]
    assert len(validate(render_runs())) == 0


def test_job_from_standard_input_has_a_line_number() -> None:
    summary = summarize(record(at_line(3, entry("a", not_created())), manifest_path="-"))
    assert ">&lt;stdin&gt;:3: not created: rejected: no such workflow\n" in render_runs(summary)


def test_job_no_longer_in_the_manifest_has_no_location() -> None:
    assert ">not created: rejected: no such workflow\n" in render_runs(summarize(record(entry("a", not_created()))))


@pytest.mark.parametrize("name", [" ", "\u3000", "\t"])
def test_blank_name_is_valid(name: str) -> None:
    validate(render_runs(summarize(record(entry(name, created("j")), manifest_name=name))))


def test_entries_are_iterated_once() -> None:
    iterations = []

    class IterableOnce:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Any:
            iterations.append(1)
            yield entry("a", created("j-1"))
            yield entry("b", not_created())

    summary = summarize(replace(FOUR_JOBS, entries=IterableOnce()))
    iterations.clear()
    validate(render_runs(summary))
    assert iterations == [1]


@settings(max_examples=30)
@given(st.lists(summaries, max_size=2))
def test_any_run_is_valid_and_can_be_parsed_back(run_summaries: list[RunSummary]) -> None:
    text = render_runs(*run_summaries)
    validate(text)
    suites = list(junitparser.JUnitXml.fromstring(text.encode()))
    assert len(suites) == len(run_summaries)
    result_types: dict[type, list[type]] = {
        Created: [],
        NotCreated: [junitparser.Failure],
        InDoubt: [junitparser.Error],
        Skipped: [junitparser.Skipped],
    }
    for suite, summary in zip(suites, run_summaries, strict=True):
        assert (suite.tests, suite.failures) == (summary.entry_count, summary.summary.not_created)
        assert (suite.errors, suite.skipped) == (summary.summary.in_doubt, summary.summary.skipped)
        suite_types = [[type(result) for result in case.result] for case in suite]
        assert suite_types == [result_types[type(entry.outcome)] for entry in summary.record.entries]


@given(st.sampled_from(HOSTILE) | words)
def test_plain_name_is_unchanged(name: str) -> None:
    [suite] = junitparser.JUnitXml.fromstring(render_runs(summarize(record(entry(name or "-", created("j"))))).encode())
    [case] = suite
    assert case.name is not None
    if (
        name.isprintable()
        and name.isascii()
        and name.strip()
        and not name.lstrip().startswith("::")
        and "##" not in name
    ):
        assert case.name == name


# Job statuses


def test_xml_of_job_statuses() -> None:
    report = status_report(
        job_status("a", status="completed", created_at="2026-10-20T01:00:00Z", finished_at="2026-10-20T01:00:07.5Z"),
        job_status("b", status="failed", tasks=[{"name": "Analyze", "err_msg": "no imagery"}]),
        job_status("c", status="cancelled"),
        job_status("d", status="running", progress=45),
        job_status("e", status="running", problem="HTTP 404 Not Found"),
        job_status("f", status="odd", finished_at="2026-10-20T01:00:07Z"),
        job_status("g", status="odd"),
        others={"not_created": 2, "in_doubt": 1, "skipped": 3},
        lines={"b": 6},
    )
    suite = validate(junit.render_statuses([report], Style()))[0]
    assert suite.get("timestamp") == "2026-10-20T02:00:00"
    assert (suite.get("time"), suite[1].get("time")) == ("7.500", "7.500")
    assert [
        (test.get("name"), *[(element.tag, element.get("message")) for element in test]) for test in suite[1:-2]
    ] == [
        ("a",),
        ("b", ("failure", "failed; Analyze: no imagery")),
        ("c", ("failure", "cancelled")),
        ("d", ("skipped", "running, 45 %")),
        ("e", ("error", "HTTP 404 Not Found")),
        ("f", ("error", "unrecognized status: odd")),
        ("g", ("skipped", "odd")),
        ("jobs not created", ("failure", "2 jobs not created; see pixxel-runner show")),
        ("jobs in doubt", ("error", "1 job in doubt; see pixxel-runner show")),
        ("jobs skipped", ("skipped", "3 jobs skipped; see pixxel-runner show")),
    ]
    assert suite[2][0].text.startswith("nightly.yaml:6: failed\nAnalyze: no imagery\njob: j-b\n")


@settings(max_examples=30)
@given(st.lists(status_reports, max_size=2))
def test_any_status_report_is_valid(reports: list[Any]) -> None:
    validate(junit.render_statuses(reports, Style()))


# CI logs


@settings(max_examples=30)
@given(summaries, status_reports)
def test_no_line_is_a_ci_command(summary: Any, report: Any) -> None:
    style = Style()
    for text in (junit.render_runs([summary], style), junit.render_statuses([report], style)):
        lines = text.split("\n")
        assert not [line for line in lines if line.lstrip().startswith("::") or "##[" in line or "##vso[" in line]
        assert not [
            character for character in text.replace("\n", "") if not (character.isprintable() or character.isspace())
        ]
