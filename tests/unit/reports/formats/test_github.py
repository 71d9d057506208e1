"""GitHub's annotations: literal ones, its limits, and that no text from outside is a command; the step's summary."""

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


def at(line: int, one: Entry) -> Entry:
    return replace(one, job=replace(one.job, line=line))


def runs(*made: RunSummary) -> list[str]:
    return lines(github.render_runs(made, Style()))


def lines(text: str) -> list[str]:
    return text.split("\n") if text else []


def read(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as the runner reads it."""
    found = _COMMAND.fullmatch(line)
    assert found is not None, line
    properties = dict(one.split("=", 1) for one in found[2].split(","))
    return found[1], {name: unquote(value) for name, value in properties.items()}, unquote(found[3])


# Annotations.


def test_a_record() -> None:
    made = record(
        at(5, entry("a", created("j-1", val_errors=[{"m": "cloudy"}, 2]))),
        at(6, entry("b,c:d%", not_created(message="100% no\nsuch", request_id="q-1"))),
        at(7, entry("e", in_doubt(candidates=("j-8", "j-9")))),
        at(8, entry("f", Skipped("disabled", "enabled: false"))),
        at(9, entry("g", Skipped("not_selected", "its name matches no --only"))),
        at(10, entry("h", Skipped("stopped", "not found, 10 times in a row"))),
        at(11, entry("i", Skipped("stopped", "not found, 10 times in a row"))),
        at(12, entry("j", Skipped("interrupted", "interrupted: by a signal"))),
        manifest_path="./jobs/nightly.yaml",
        state="stopped",
    )
    assert runs(summarize(made)) == [
        (
            f"::error file=jobs/nightly.yaml,line=7,title=e%3A in doubt::timeout: no answer came. {IN_DOUBT_ADVICE}. "
            "Candidates: j-8, j-9"
        ),
        (
            "::error file=jobs/nightly.yaml,line=6,title=b%2Cc%3Ad%25%3A not created::rejected: 100%25 no\\nsuch "
            "(request id q-1)"
        ),
        (
            "::warning file=jobs/nightly.yaml,line=10,title=h and 1 more job%3A not sent::stopped: not found, "
            "10 times in a row"
        ),
        "::warning file=jobs/nightly.yaml,line=12,title=j%3A not sent::interrupted: by a signal",
        (
            "::warning file=jobs/nightly.yaml,line=5,title=a%3A 2 validation errors::created as j-1 with validation "
            'errors; first: {"m": "cloudy"}'
        ),
        "::notice title=nightly%3A stopped::8 jobs: 1 created, 1 not created, 1 in doubt, 5 skipped · cost 0",
    ]


def test_a_record_of_a_good_night_is_one_notice() -> None:
    assert runs(summarize(record(entry("a", created("j-1"))))) == [
        "::notice title=nightly%3A completed::1 job: 1 created, 0 not created, 0 in doubt, 0 skipped · cost 0"
    ]
    assert runs() == []


def test_standard_input_is_no_file() -> None:
    made = summarize(record(at(3, entry("a", not_created())), manifest_path="-"))
    assert runs(made)[0] == "::error title=a%3A not created::rejected: no such workflow"


def test_a_job_without_a_line_is_shown_at_the_file() -> None:
    made = summarize(record(entry("a", not_created())))
    assert runs(made)[0].startswith("::error file=nightly.yaml,title=a%3A not created::")


@pytest.mark.parametrize(
    ("path", "file"),
    [("./a//b.yaml", "a/b.yaml"), ("../a.yaml", "../a.yaml"), ("/srv/a.yaml", "/srv/a.yaml"), ("a.yaml", "a.yaml")],
)
def test_a_path_is_written_as_the_repository_has_it(path: str, file: str) -> None:
    assert read(github.format_command(Annotation("error", "t", "m", path)))[1]["file"] == file


def test_a_plan() -> None:
    made = preview(
        planned_job("a", problem="HTTP 404 Not Found", line=4),
        planned_job("b", "look up", "in_doubt", detail="no answer in time"),
        planned_job("c", "nothing", "created"),
        has_estimates=True,
        limit=1,
        spent=2,
        unknown_costs={"w-1": "HTTP 500", "w-2": "HTTP 500"},
    )
    assert lines(github.render_plans([made], Style())) == [
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


def test_jobs_at_the_api() -> None:
    made = status_report(
        job_status("a", status="completed"),
        job_status("b", status="failed", tasks=[{"name": "Analyse", "err_msg": "no imagery"}]),
        job_status("c", status="running"),
        job_status("d", problem="HTTP 404 Not Found"),
        job_status("e", status="odd", finished_at="2026-10-20T01:00:07Z"),
        others={"not_created": 2, "in_doubt": 1, "skipped": 3},
        lines={"b": 6},
    )
    assert lines(github.render_statuses([made], Style())) == [
        "::error file=nightly.yaml,line=6,title=b%3A failed::job j-b: Analyse: no imagery",
        "::error file=nightly.yaml,title=d%3A status unknown::job j-d: HTTP 404 Not Found",
        ("::error file=nightly.yaml,title=e%3A odd::job j-e: it ended with an unrecognized status"),
        "::error file=nightly.yaml,title=nightly%3A 2 jobs not created::run run-2: pixxel-runner show has the reasons",
        f"::error file=nightly.yaml,title=nightly%3A 1 job in doubt::run run-2: {IN_DOUBT_ADVICE}",
        (
            "::notice title=nightly%3A status::5 jobs: 1 completed, 1 failed, 1 running, 1 status unknown, 1 odd · "
            "cost 0; not tracked: 2 not created, 1 in doubt, 3 skipped (see pixxel-runner show)"
        ),
    ]


# Limits.


def severities(found: list[str]) -> dict[str, int]:
    counts = dict.fromkeys(("error", "warning", "notice"), 0)
    for line in found:
        counts[read(line)[0]] += 1
    return counts


@pytest.mark.parametrize(("count", "shown"), [(10, 10), (11, 10), (300, 10)])
def test_what_github_would_not_show_is_said_in_the_last_one(count: int, shown: int) -> None:
    many = [at(1, entry(f"j{number}", not_created())) for number in range(count - 1)]
    found = runs(summarize(record(*many, entry("doubt", in_doubt()))))
    assert severities(found) == {"error": shown, "warning": 0, "notice": 1}
    assert read(found[0])[1]["title"] == "doubt: in doubt"
    last = read(found[shown - 1])
    if count == shown:
        assert last[1]["title"] == "j8: not created"
    else:
        assert last == (
            "error",
            {"title": f"{count - 9} more errors"},
            f"GitHub shows at most 10 per step; other reports list all {count}",
        )


def test_the_limit_is_that_of_all_manifests_together() -> None:
    made = summarize(record(entry("a", not_created()), entry("b", created("j", val_errors=[1]))))
    found = runs(*[made] * 12)
    assert severities(found) == {"error": 10, "warning": 10, "notice": 10}
    assert read(found[-1])[1]["title"] == "3 more notices"
    assert read(found[-1])[2].endswith("all 12: 24 jobs: 12 created, 12 not created, 0 in doubt, 0 skipped · cost 0")


def test_a_title_and_a_message_are_cut_to_what_github_takes() -> None:
    _, properties, message = read(github.format_command(Annotation("error", "t" * 256, "m" * 4097)))
    assert properties["title"] == "t" * 254 + "…"
    assert message == "m" * 4095 + "…"
    assert read(github.format_command(Annotation("error", "t" * 255, "m" * 4096)))[2] == "m" * 4096


@settings(max_examples=30)
@given(st.lists(summaries, max_size=4), st.lists(previews, max_size=4), st.lists(status_reports, max_size=4))
def test_no_text_from_outside_is_a_command_or_leaves_its_place(run: Any, plan: Any, status: Any) -> None:
    style = Style()
    for text in (
        github.render_runs(run, style),
        github.render_plans(plan, style),
        github.render_statuses(status, style),
    ):
        found = lines(text)
        assert max(severities(found).values()) <= 10
        for line in found:
            _, properties, _ = read(line)
            assert set(properties) <= {"file", "line", "col", "title"}
            assert "##[" not in line
            assert "##vso[" not in line
            assert not [char for char in line if not (char.isprintable() or char == " " or char.isspace())]


@given(st.text(max_size=9), st.text(min_size=1, max_size=9), words)
def test_what_is_escaped_reads_back(title: str, message: str, file: str) -> None:
    line = github.format_command(Annotation("notice", title or "t", message, file, 3, 4))
    assert "\n" not in line
    assert "\r" not in line
    severity, rest = line.removeprefix("::").split(" ", 1)
    listed, escaped = rest.split("::", 1)
    properties = dict(one.split("=", 1) for one in listed.split(","))
    assert severity == "notice"
    assert list(properties) == ["file", "line", "col", "title"]
    assert decoded(properties["title"]) == (title or "t")
    assert decoded(escaped) == message


def decoded(text: str) -> str:
    """As the runner does."""
    for code, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_a_manifest_s_problem_is_escaped_by_the_same_rule() -> None:
    problem = Problem("a,b:c%.yaml", 3, 7, "jobs[0].name", "100% wrong\nhere", "mend it")
    assert problem_format.format_github(problem, "error") == (
        "::error file=a%2Cb%3Ac%25.yaml,line=3,col=7,title=jobs[0].name::100%25 wrong%0Ahere (mend it)"
    )
    assert problem_format.format_github(Problem("m.yaml", 0, 0, "", "gone"), "warning") == (
        "::warning file=m.yaml,title=manifest::gone"
    )


# The step's summary.

ROW = "| a | ü |"
NOTES = "9 jobs: 9 created\nand more"


def table(rows: int) -> str:
    return "\n".join(["| job | of |", "| --- | --- |", *[ROW] * rows, "", NOTES])


def test_a_summary_that_fits_is_left_alone() -> None:
    assert github.truncate_summary(table(3)) == table(3)
    whole = "x" * (github.MAX_SUMMARY - 1)
    assert github.truncate_summary(whole) == whole
    assert github.truncate_summary(whole + "x").startswith("1 line omitted")  # with its end it would be a byte too long


def test_a_summary_that_is_too_long_loses_rows_and_not_the_totals() -> None:
    text = github.truncate_summary(table(150_000))
    assert github.MAX_SUMMARY - 20 < len(text.encode()) + 1 <= github.MAX_SUMMARY
    head, notes, rest = text.rsplit("\n\n", 2)
    kept = head.split("\n")
    assert kept == ["| job | of |", "| --- | --- |", *[ROW] * (len(kept) - 2)]
    assert notes == NOTES
    assert rest == (
        f"{150_000 + 2 - len(kept)} lines omitted, as GitHub shows at most 1 MiB per step; see the full report"
    )


def test_what_the_step_has_written_already_counts() -> None:
    taken = github.MAX_SUMMARY - 1000
    assert github.truncate_summary(table(3), taken) == table(3)
    cut = github.truncate_summary("\n".join(["x" * 49] * 30), taken)
    assert 950 < len(cut) + 1 <= 1000
    assert re.fullmatch(r"(x{49}\n)+\n1\d lines omitted, .+", cut)


def test_one_line_that_is_too_long_is_left_out() -> None:
    assert github.truncate_summary("x" * 2**21).startswith("1 line omitted")


@given(st.text(max_size=400), st.integers(0, 300))
def test_no_summary_is_above_the_limit(text: str, room: int) -> None:
    cut = github.truncate_summary(text, github.MAX_SUMMARY - 200 - room)
    assert len(cut.encode()) + 1 <= 200 + room
    if cut != text:
        assert "omitted, as GitHub shows" in cut.split("\n")[-1]
