"""The GitHub format: annotations, their limits and escaping, and the step summary."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records import created, entry, in_doubt, not_created, record, words
from support.report_data import job_status, planned_job, preview, previews, status_report, status_reports, summaries

from runner.cli import problem_format
from runner.core.errors import Problem
from runner.core.models import Entry, Skipped
from runner.reports.formats import github
from runner.reports.formats.github import Annotation
from runner.reports.style import Style
from runner.reports.views.run import IN_DOUBT_ADVICE
from runner.runs.summary import RunSummary, summarize

_COMMAND = re.compile(r"::(error|warning|notice) ((?:[a-z]+=[^:,]*)(?:,[a-z]+=[^:,]*)*)::(.+)")


def at_line(line: int, entry: Entry) -> Entry:
    return replace(entry, job=replace(entry.job, line=line))


def render_runs(*run_summaries: RunSummary) -> list[str]:
    return lines(github.render_runs(run_summaries, Style()))


def lines(text: str) -> list[str]:
    return text.split("\n") if text else []


def parse_command(line: str) -> tuple[str, dict[str, str], str]:
    """Parse a workflow command as the GitHub runner does. Returns its severity, properties and message."""
    match = _COMMAND.fullmatch(line)
    assert match is not None, line
    properties = dict(property_.split("=", 1) for property_ in match[2].split(","))
    return match[1], {name: unquote(value) for name, value in properties.items()}, unquote(match[3])


# Annotations


def test_annotations_of_a_run() -> None:
    run_record = record(
        at_line(5, entry("a", created("j-1", val_errors=[{"m": "cloudy"}, 2]))),
        at_line(6, entry("b,c:d%", not_created(message="100% no\nsuch", request_id="q-1"))),
        at_line(7, entry("e", in_doubt(candidates=("j-8", "j-9")))),
        at_line(8, entry("f", Skipped("disabled", "enabled: false"))),
        at_line(9, entry("g", Skipped("not_selected", "its name matches no --only"))),
        at_line(10, entry("h", Skipped("stopped", "10 jobs in a row failed as not found"))),
        at_line(11, entry("i", Skipped("stopped", "10 jobs in a row failed as not found"))),
        at_line(12, entry("j", Skipped("interrupted", "interrupted: by a signal"))),
        manifest_path="./jobs/nightly.yaml",
        state="stopped",
    )
    assert render_runs(summarize(run_record)) == [
        (
            f"::error file=jobs/nightly.yaml,line=7,title=e%3A in doubt::timeout: no answer came. {IN_DOUBT_ADVICE}. "
            "Candidates: j-8, j-9"
        ),
        (
            "::error file=jobs/nightly.yaml,line=6,title=b%2Cc%3Ad%25%3A not created::rejected: 100%25 no\\nsuch "
            "(request id q-1)"
        ),
        (
            "::warning file=jobs/nightly.yaml,line=10,title=h and 1 more job%3A not sent::stopped: 10 jobs in a "
            "row failed as not found"
        ),
        "::warning file=jobs/nightly.yaml,line=12,title=j%3A not sent::interrupted: by a signal",
        (
            "::warning file=jobs/nightly.yaml,line=5,title=a%3A 2 validation errors::created as j-1 with validation "
            'errors; first: {"m": "cloudy"}'
        ),
        "::notice title=nightly%3A stopped::8 jobs: 1 created, 1 not created, 1 in doubt, 5 skipped · cost 0",
    ]


def test_successful_run_is_one_notice() -> None:
    assert render_runs(summarize(record(entry("a", created("j-1"))))) == [
        "::notice title=nightly%3A completed::1 job: 1 created, 0 not created, 0 in doubt, 0 skipped · cost 0"
    ]
    assert render_runs() == []


def test_standard_input_has_no_file_property() -> None:
    summary = summarize(record(at_line(3, entry("a", not_created())), manifest_path="-"))
    assert render_runs(summary)[0] == "::error title=a%3A not created::rejected: no such workflow"


def test_job_without_a_line_is_attached_to_the_file() -> None:
    summary = summarize(record(entry("a", not_created())))
    assert render_runs(summary)[0].startswith("::error file=nightly.yaml,title=a%3A not created::")


@pytest.mark.parametrize(
    ("path", "file"),
    [("./a//b.yaml", "a/b.yaml"), ("../a.yaml", "../a.yaml"), ("/srv/a.yaml", "/srv/a.yaml"), ("a.yaml", "a.yaml")],
)
def test_path_is_normalized(path: str, file: str) -> None:
    assert parse_command(github.format_command(Annotation("error", "t", "m", path)))[1]["file"] == file


def test_annotations_of_a_plan() -> None:
    plan = preview(
        planned_job("a", problem="HTTP 404 Not Found", line=4),
        planned_job("b", "look up", "in_doubt", detail="no answer in time"),
        planned_job("c", "nothing", "created"),
        has_estimates=True,
        limit=1,
        spent=2,
        unknown_costs={"w-1": "HTTP 500", "w-2": "HTTP 500"},
    )
    assert lines(github.render_plans([plan], Style())) == [
        "::error file=nightly.yaml,line=4,title=a%3A cannot be submitted::HTTP 404 Not Found",
        "::error file=nightly.yaml,title=nightly%3A exceeds max_cost::estimated cost 0 plus 2 spent exceeds max_cost 1",
        f"::warning file=nightly.yaml,line=5,title=b%3A in doubt::no answer in time. {IN_DOUBT_ADVICE}",
        (
            "::warning file=nightly.yaml,title=nightly%3A unknown cost::2 workflows have no known cost; "
            "first: w-1: HTTP 500"
        ),
        (
            "::notice title=nightly%3A plan::3 jobs: 1 to submit, 1 to look up, 1 with nothing to do · estimate 0 "
            "and 1 of unknown cost"
        ),
    ]


def test_annotations_of_job_statuses() -> None:
    statuses = status_report(
        job_status("a", status="completed"),
        job_status("b", status="failed", tasks=[{"name": "Analyze", "err_msg": "no imagery"}]),
        job_status("c", status="running"),
        job_status("d", problem="HTTP 404 Not Found"),
        job_status("e", status="odd", finished_at="2026-10-20T01:00:07Z"),
        others={"not_created": 2, "in_doubt": 1, "skipped": 3},
        lines={"b": 6},
    )
    assert lines(github.render_statuses([statuses], Style())) == [
        "::error file=nightly.yaml,line=6,title=b%3A failed::job j-b: Analyze: no imagery",
        "::error file=nightly.yaml,title=d%3A status unknown::job j-d: HTTP 404 Not Found",
        ("::error file=nightly.yaml,title=e%3A odd::job j-e: it ended with an unrecognized status"),
        "::error file=nightly.yaml,title=nightly%3A 2 jobs not created::run run-2: pixxel-runner show has the reasons",
        f"::error file=nightly.yaml,title=nightly%3A 1 job in doubt::run run-2: {IN_DOUBT_ADVICE}",
        (
            "::notice title=nightly%3A status::5 jobs: 1 completed, 1 failed, 1 running, 1 status unknown, 1 odd · "
            "cost 0; not at the API: 2 not created, 3 skipped; 1 in doubt (see pixxel-runner show)"
        ),
    ]


# Limits


def count_severities(commands: list[str]) -> dict[str, int]:
    counts = dict.fromkeys(("error", "warning", "notice"), 0)
    for command in commands:
        counts[parse_command(command)[0]] += 1
    return counts


@pytest.mark.parametrize(("count", "shown_count"), [(10, 10), (11, 10), (300, 10)])
def test_last_annotation_counts_those_beyond_the_limit(count: int, shown_count: int) -> None:
    entries = [at_line(1, entry(f"j{number}", not_created())) for number in range(count - 1)]
    commands = render_runs(summarize(record(*entries, entry("doubt", in_doubt()))))
    assert count_severities(commands) == {"error": shown_count, "warning": 0, "notice": 1}
    assert parse_command(commands[0])[1]["title"] == "doubt: in doubt"
    last_command = parse_command(commands[shown_count - 1])
    if count == shown_count:
        assert last_command[1]["title"] == "j8: not created"
    else:
        assert last_command == (
            "error",
            {"title": f"{count - 9} more errors"},
            f"GitHub shows at most 10 per step; other reports list all {count}",
        )


def test_limit_applies_to_all_manifests_together() -> None:
    summary = summarize(record(entry("a", not_created()), entry("b", created("j", val_errors=[1]))))
    commands = render_runs(*[summary] * 12)
    assert count_severities(commands) == {"error": 10, "warning": 10, "notice": 10}
    assert parse_command(commands[-1])[1]["title"] == "3 more notices"
    assert parse_command(commands[-1])[2].endswith(
        "all 12: 24 jobs: 12 created, 12 not created, 0 in doubt, 0 skipped · cost 0"
    )


def test_title_and_message_are_truncated() -> None:
    _, properties, message = parse_command(github.format_command(Annotation("error", "t" * 256, "m" * 4097)))
    assert properties["title"] == "t" * 254 + "…"
    assert message == "m" * 4095 + "…"
    assert parse_command(github.format_command(Annotation("error", "t" * 255, "m" * 4096)))[2] == "m" * 4096


@settings(max_examples=30)
@given(st.lists(summaries, max_size=4), st.lists(previews, max_size=4), st.lists(status_reports, max_size=4))
def test_text_from_outside_cannot_add_commands_or_properties(
    run_summaries: Any, plan_previews: Any, job_reports: Any
) -> None:
    style = Style()
    for text in (
        github.render_runs(run_summaries, style),
        github.render_plans(plan_previews, style),
        github.render_statuses(job_reports, style),
    ):
        commands = lines(text)
        assert max(count_severities(commands).values()) <= 10
        for command in commands:
            _, properties, _ = parse_command(command)
            assert set(properties) <= {"file", "line", "col", "title"}
            assert "##[" not in command
            assert "##vso[" not in command
            assert not [
                character
                for character in command
                if not (character.isprintable() or character == " " or character.isspace())
            ]


@given(st.text(max_size=9), st.text(min_size=1, max_size=9), words)
def test_escaped_text_can_be_parsed_back(title: str, message: str, file: str) -> None:
    line = github.format_command(Annotation("notice", title or "t", message, file, 3, 4))
    assert "\n" not in line
    assert "\r" not in line
    severity, rest = line.removeprefix("::").split(" ", 1)
    property_list, escaped = rest.split("::", 1)
    properties = dict(property_.split("=", 1) for property_ in property_list.split(","))
    assert severity == "notice"
    assert list(properties) == ["file", "line", "col", "title"]
    assert decode(properties["title"]) == (title or "t")
    assert decode(escaped) == message


def decode(text: str) -> str:
    """Decode a property or message as the GitHub runner does."""
    for code, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_manifest_problems_are_escaped() -> None:
    problem = Problem("a,b:c%.yaml", 3, 7, "jobs[0].name", "100% wrong\nhere", "mend it")
    assert problem_format.format_github(problem, "error") == (
        "::error file=a%2Cb%3Ac%25.yaml,line=3,col=7,title=jobs[0].name::100%25 wrong%0Ahere (mend it)"
    )
    assert problem_format.format_github(Problem("m.yaml", 0, 0, "", "gone"), "warning") == (
        "::warning file=m.yaml,title=manifest::gone"
    )


# Step summary

TABLE_ROW = "| a | ü |"
NOTES = "9 jobs: 9 created\nand more"


def make_summary(rows: int) -> str:
    return "\n".join(["| job | of |", "| --- | --- |", *[TABLE_ROW] * rows, "", NOTES])


def test_summary_that_fits_is_unchanged() -> None:
    assert github.truncate_summary(make_summary(3)) == make_summary(3)
    summary = "x" * (github.MAX_SUMMARY - 1)
    assert github.truncate_summary(summary) == summary
    with_line_break_too_long = summary + "x"
    assert github.truncate_summary(with_line_break_too_long).startswith("1 line omitted")


def test_long_summary_loses_rows_but_not_the_totals() -> None:
    text = github.truncate_summary(make_summary(150_000))
    assert github.MAX_SUMMARY - 20 < len(text.encode()) + 1 <= github.MAX_SUMMARY
    head, notes, omission = text.rsplit("\n\n", 2)
    table_lines = head.split("\n")
    assert table_lines == ["| job | of |", "| --- | --- |", *[TABLE_ROW] * (len(table_lines) - 2)]
    assert notes == NOTES
    assert omission == (
        f"{150_000 + 2 - len(table_lines)} lines omitted, as GitHub shows at most 1 MiB per step; see the full report"
    )


def test_existing_summary_of_the_step_counts_towards_the_limit() -> None:
    existing_size = github.MAX_SUMMARY - 1000
    assert github.truncate_summary(make_summary(3), existing_size) == make_summary(3)
    truncated = github.truncate_summary("\n".join(["x" * 49] * 30), existing_size)
    assert 950 < len(truncated) + 1 <= 1000
    assert re.fullmatch(r"(x{49}\n)+\n1\d lines omitted, .+", truncated)


def test_single_overlong_line_is_omitted() -> None:
    assert github.truncate_summary("x" * 2**21).startswith("1 line omitted")


@given(st.text(max_size=400), st.integers(0, 300))
def test_no_summary_exceeds_the_limit(text: str, available: int) -> None:
    truncated = github.truncate_summary(text, github.MAX_SUMMARY - 200 - available)
    assert len(truncated.encode()) + 1 <= 200 + available
    if truncated != text:
        assert "omitted, as GitHub shows" in truncated.split("\n")[-1]
