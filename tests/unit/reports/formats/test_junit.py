"""JUnit XML: literal suites, valid against the common schema and by the stricter rules of Ant's, and read back."""

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
_SPACE = "\t\n\r "
_REQUIRED = {"name", "package", "id", "hostname", "tests", "failures", "errors", "skipped", "time"}
_ATTRIBUTES = {"failure": {"type", "message"}, "error": {"type", "message"}, "skipped": {"message"}}


@functools.cache
def schema() -> xmlschema.XMLSchema10:
    return xmlschema.XMLSchema10(_SCHEMA)


def check(text: str) -> Any:
    """Fail unless the text is what every reader of JUnit reports takes; return its root element."""
    root = ET.fromstring(text)  # noqa: S314 - of our own making
    schema().validate(root)
    assert root.tag == "testsuites"
    assert not root.attrib
    for number, suite in enumerate(root):
        check_as_ant(suite, number)
    return root


def check_as_ant(suite: Any, number: int) -> None:
    """What the JUnit.xsd for Apache Ant's reports asks for beyond the common schema."""
    assert set(suite.attrib) - {"timestamp"} == _REQUIRED
    assert suite.get("id") == str(number)
    assert suite.get("name").strip(_SPACE)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", "1970-01-01T00:00:00"))
    assert [one.tag for one in suite if one.tag != "testcase"] == ["properties", "system-out", "system-err"]
    assert (suite[0].tag, suite[-2].tag, suite[-1].tag) == ("properties", "system-out", "system-err")
    assert all(set(one.attrib) == {"name", "value"} for one in suite[0])
    tests = list(suite.findall("testcase"))
    for test in tests:
        assert set(test.attrib) == {"name", "classname", "time"}
        assert test.get("name").strip(_SPACE)
        assert len(test) <= 1
        assert all(set(one.attrib) == _ATTRIBUTES[one.tag] for one in test)
    results = [one.tag for test in tests for one in test]
    assert [int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")] == [
        len(tests),
        results.count("failure"),
        results.count("error"),
        results.count("skipped"),
    ]


def runs(*made: RunSummary) -> str:
    return junit.render_runs(made, Style())


def at(line: int, one: Entry) -> Entry:
    return replace(one, job=replace(one.job, line=line))


FOUR = record(
    at(5, entry("a", created("j-1", cost=12, val_errors=[1]))),
    at(6, entry("b<&", not_created(message='no "such" workflow', request_id="q-1"), run_id="run-1")),
    at(7, entry("c", in_doubt(candidates=("j-8", "j-9")))),
    entry("d", Skipped("disabled", "enabled: false")),
    git_commit="c0ffee",
)


def test_a_record() -> None:
    text = runs(summarize(FOUR))
    check(text)
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


def test_a_time_has_no_zone_and_is_in_utc() -> None:
    kolkata = datetime.fromisoformat("2026-10-20T06:30:00+05:30")
    suite = check(runs(summarize(record(started_at=kolkata))))[0]
    assert suite.get("timestamp") == "2026-10-20T01:00:00"


def test_a_clock_that_was_set_back_makes_no_negative_time() -> None:
    later = datetime(2026, 10, 20, 3, tzinfo=UTC)
    assert check(runs(summarize(record(started_at=later))))[0].get("time") == "0.000"


def test_each_manifest_is_a_suite() -> None:
    root = check(runs(summarize(FOUR), summarize(record(manifest_path="b/nightly.yaml"))))
    assert [one.get("package") for one in root] == ["nightly.yaml", "b/nightly.yaml"]
    assert len(check(runs())) == 0


def test_a_job_from_standard_input_has_its_place_there() -> None:
    made = summarize(record(at(3, entry("a", not_created())), manifest_path="-"))
    assert ">&lt;stdin&gt;:3: not created: rejected: no such workflow\n" in runs(made)


def test_a_job_that_is_in_the_manifest_no_more_has_no_place() -> None:
    assert ">not created: rejected: no such workflow\n" in runs(summarize(record(entry("a", not_created()))))


@pytest.mark.parametrize("name", [" ", "\u3000", "\t"])
def test_a_name_of_spaces_alone_is_a_name(name: str) -> None:
    check(runs(summarize(record(entry(name, created("j")), manifest_name=name))))


def test_the_entries_are_gone_through_once_and_not_kept() -> None:
    passes = []

    class Once:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Any:
            passes.append(1)
            yield entry("a", created("j-1"))
            yield entry("b", not_created())

    made = summarize(replace(FOUR, entries=Once()))
    passes.clear()
    check(runs(made))
    assert passes == [1]


@settings(max_examples=30)
@given(st.lists(summaries, max_size=2))
def test_any_record_is_valid_and_reads_back(made: list[RunSummary]) -> None:
    text = runs(*made)
    check(text)
    suites = list(junitparser.JUnitXml.fromstring(text.encode()))
    assert len(suites) == len(made)
    kinds: dict[type, list[type]] = {
        Created: [],
        NotCreated: [junitparser.Failure],
        InDoubt: [junitparser.Error],
        Skipped: [junitparser.Skipped],
    }
    for suite, one in zip(suites, made, strict=True):
        assert (suite.tests, suite.failures) == (one.entry_count, one.summary.not_created)
        assert (suite.errors, suite.skipped) == (one.summary.in_doubt, one.summary.skipped)
        found = [[type(result) for result in case.result] for case in suite]
        assert found == [kinds[type(entry.outcome)] for entry in one.record.entries]


@given(st.sampled_from(HOSTILE) | words)
def test_a_plain_name_reads_back_as_it_was(name: str) -> None:
    [suite] = junitparser.JUnitXml.fromstring(runs(summarize(record(entry(name or "-", created("j"))))).encode())
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


# Statuses.


def test_jobs_at_the_api() -> None:
    made = status_report(
        job_status("a", status="completed", created_at="2026-10-20T01:00:00Z", finished_at="2026-10-20T01:00:07.5Z"),
        job_status("b", status="failed", tasks=[{"name": "Analyse", "err_msg": "no imagery"}]),
        job_status("c", status="cancelled"),
        job_status("d", status="running", progress=45),
        job_status("e", status="running", problem="HTTP 404 Not Found"),
        job_status("f", status="odd", finished_at="2026-10-20T01:00:07Z"),
        job_status("g", status="odd"),
        others={"not_created": 2, "in_doubt": 1, "skipped": 3},
        lines={"b": 6},
    )
    suite = check(junit.render_statuses([made], Style()))[0]
    assert suite.get("timestamp") == "2026-10-20T02:00:00"
    assert (suite.get("time"), suite[1].get("time")) == ("7.500", "7.500")
    assert [(test.get("name"), *[(one.tag, one.get("message")) for one in test]) for test in suite[1:-2]] == [
        ("a",),
        ("b", ("failure", "failed; Analyse: no imagery")),
        ("c", ("failure", "cancelled")),
        ("d", ("skipped", "running, 45 %")),
        ("e", ("error", "HTTP 404 Not Found")),
        ("f", ("error", "unrecognized status: odd")),
        ("g", ("skipped", "odd")),
        ("jobs not created", ("failure", "2 jobs not created; see pixxel-runner show")),
        ("jobs in doubt", ("error", "1 job in doubt; see pixxel-runner show")),
        ("jobs skipped", ("skipped", "3 jobs skipped; see pixxel-runner show")),
    ]
    assert suite[2][0].text.startswith("nightly.yaml:6: failed\nAnalyse: no imagery\njob: j-b\n")


@settings(max_examples=30)
@given(st.lists(status_reports, max_size=2))
def test_any_statuses_are_valid(made: list[Any]) -> None:
    check(junit.render_statuses(made, Style()))


# Every report: nothing that a log would act on.


@settings(max_examples=30)
@given(summaries, status_reports)
def test_no_line_is_a_command_to_a_ci_log(run: Any, status: Any) -> None:
    style = Style()
    for text in (junit.render_runs([run], style), junit.render_statuses([status], style)):
        lines = text.split("\n")
        assert not [line for line in lines if line.lstrip().startswith("::") or "##[" in line or "##vso[" in line]
        assert not [char for char in text.replace("\n", "") if not (char.isprintable() or char.isspace())]
