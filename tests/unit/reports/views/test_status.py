"""Reports of job statuses: expected output in each format, and that hostile text is escaped."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import HOSTILE, bodies, json_values, times, words
from support.schemas import loads_strictly

from runner.core.models import OutcomeName
from runner.core.text import display_width
from runner.reports import STATUS_FORMATS, StatusReport, Style
from runner.runs.job_status import JobStatus

SEEN = datetime(2026, 10, 20, 2, 0, 0, 500_000, tzinfo=UTC)
API = "https://api.example"


def job(name: str, problem: str = "", **members: Any) -> JobStatus:
    body = json.dumps({"id": f"j-{name}", **members}).encode()
    return JobStatus(name, f"w-{name}", "p-1", f"j-{name}", body, SEEN, problem=problem)


FOUR_JOBS = (
    job("a", status="completed", progress="100", cost=12, time_taken="5s", finished_at="2026-10-20T03:00:00+02:00"),
    job("b", status="failed", cost=3, tasks=[{"name": "Analyze", "err_msg": "no imagery"}]),
    job("c", status="running", progress=45.5),
    job("名前", problem="HTTP 404 Not Found", status="weird"),
)


def status_report(*jobs: JobStatus, **others: int) -> StatusReport:
    return StatusReport("run-1", "nightly", API, jobs, cast("dict[OutcomeName, int]", others))


def render(
    name: str, report: StatusReport, width: int | None = None, *, color: bool = False, list_all: bool = False
) -> str:
    return STATUS_FORMATS[name]([report], Style(width, color, list_all))


def table_rows(report: StatusReport, width: int | None = None, *, list_all: bool = False) -> list[str]:
    """The lines of the table, without header and notes."""
    lines = render("table", report, width, list_all=list_all).split("\n")
    return lines[2 : lines.index("")] if "" in lines else []


# Expected output


def test_table_of_job_statuses() -> None:
    assert render("table", status_report(*FOUR_JOBS, not_created=1, skipped=2)) == (
        "job   job id  workflow  project  status     progress  cost  time taken  finished (UTC)  errors\n"
        "----  ------  --------  -------  ---------  --------  ----  ----------  --------------  -------------------\n"
        "a     j-a     w-a       p-1      completed  100 %       12  5s          01:00:00\n"
        "b     j-b     w-b       p-1      failed                  3                              Analyze: no imagery\n"
        "c     j-c     w-c       p-1      running    45.5 %\n"
        "名前  j-名前  w-名前    p-1      unknown                                                HTTP 404 Not Found\n"
        "\n"
        "4 jobs: 1 completed, 1 failed, 1 running, 1 status unknown · cost 15\n"
        "not at the API: 1 not created, 2 skipped (see pixxel-runner show)"
    )


def test_error_column_is_omitted_without_errors() -> None:
    assert render("table", status_report(FOUR_JOBS[0])).split("\n")[0].endswith("  finished (UTC)")


def test_columns_that_do_not_fit_are_omitted_with_a_note() -> None:
    assert render("table", status_report(*FOUR_JOBS), 60) == (
        "job   job id  status     progress  cost  errors\n"
        "----  ------  ---------  --------  ----  -------------------\n"
        "a     j-a     completed  100 %       12\n"
        "b     j-b     failed                  3  Analyze: no imagery\n"
        "c     j-c     running    45.5 %\n"
        "名前  j-名前  unknown                    HTTP 404 Not Found\n"
        "\n"
        "4 jobs: 1 completed, 1 failed, 1 running, 1 status unknown · cost 15\n"
        "columns that do not fit the terminal: workflow, project, time taken, finished (UTC)"
    )


def test_narrow_terminal_keeps_job_and_status() -> None:
    assert table_rows(status_report(*FOUR_JOBS), 20) == [
        "a     completed",
        "b     failed",
        "c     running",
        "名前  unknown",
    ]


def test_markdown() -> None:
    assert render("markdown", status_report(*FOUR_JOBS[:2])) == (
        "| job | job id | workflow | project | status | progress | cost | time taken | finished (UTC) | errors |\n"
        "| --- | --- | --- | --- | --- | --- | ---: | --- | --- | --- |\n"
        "| a | j-a | w-a | p-1 | completed | 100 % | 12 | 5s | 01:00:00 |  |\n"
        "| b | j-b | w-b | p-1 | failed |  | 3 |  |  | Analyze: no imagery |\n"
        "\n"
        "2 jobs: 1 completed, 1 failed · cost 15"
    )


def test_csv() -> None:
    assert render("csv", status_report(*FOUR_JOBS)) == (
        "manifest,name,workflow_id,project_id,job_id,status,final,progress,cost,time_taken,finished_at,errors,seen_at,"
        "problem\r\n"
        "nightly,a,w-a,p-1,j-a,completed,true,100 %,12,5s,2026-10-20T01:00:00.000Z,,2026-10-20T02:00:00.500Z,\r\n"
        "nightly,b,w-b,p-1,j-b,failed,true,,3,,,Analyze: no imagery,2026-10-20T02:00:00.500Z,\r\n"
        "nightly,c,w-c,p-1,j-c,running,false,45.5 %,,,,,2026-10-20T02:00:00.500Z,\r\n"
        "nightly,名前,w-名前,p-1,j-名前,weird,false,,,,,,2026-10-20T02:00:00.500Z,HTTP 404 Not Found"
    )


def test_json() -> None:
    document = json.loads(render("json", status_report(*FOUR_JOBS)))
    assert (document["version"], document["run"]) == (1, {"id": "run-1", "manifest": "nightly", "base_url": API})
    assert document["summary"] == {"statuses": {"completed": 1, "failed": 1, "running": 1, "unknown": 1}, "cost": 15}
    assert document["jobs"][0] == {
        "name": "a",
        "workflow_id": "w-a",
        "project_id": "p-1",
        "job_id": "j-a",
        "status": "completed",
        "final": True,
        "progress": "100 %",
        "cost": 12,
        "time_taken": "5s",
        "finished_at": "2026-10-20T01:00:00.000Z",
        "errors": [],
        "seen_at": "2026-10-20T02:00:00.500Z",
        "problem": None,
    }
    assert document["jobs"][1]["errors"] == ["Analyze: no imagery"]
    assert document["jobs"][3]["problem"] == "HTTP 404 Not Found"


def test_job_without_a_known_status() -> None:
    unknown_job = JobStatus("a", "w", "p", "j", b"")
    assert table_rows(status_report(unknown_job)) == ["a    j       w         p        unknown"]
    document = json.loads(render("json", status_report(unknown_job)))
    assert document["summary"] == {"statuses": {"unknown": 1}, "cost": 0}
    assert [name for name, value in document["jobs"][0].items() if value is not None] == [
        "name",
        "workflow_id",
        "project_id",
        "job_id",
        "final",
        "errors",
    ]


def test_report_without_jobs_has_only_totals() -> None:
    assert render("table", status_report()) == render("markdown", status_report()) == "no jobs at the API"
    assert render("csv", status_report()).startswith("manifest,name,workflow_id,")
    assert json.loads(render("json", status_report()))["jobs"] == []


def test_end_times_of_several_days_include_dates() -> None:
    report = status_report(*(job(f"{day}", status="done", finished_at=f"2026-10-{day}T01:00:00Z") for day in (20, 21)))
    assert [line[-19:] for line in table_rows(report)] == ["2026-10-20 01:00:00", "2026-10-21 01:00:00"]


@pytest.mark.parametrize(
    ("status", "color"),
    [("completed", 32), ("failed", 31), ("cancelled", 31), ("running", 36), ("weird", 33)],
)
def test_colors_depend_on_the_status_and_change_nothing_else(status: str, color: int) -> None:
    report = status_report(job("a", status=status))
    colored = render("table", report, color=True)
    assert f"\x1b[{color}m{status}\x1b[0m" in colored
    assert click.unstyle(colored) == render("table", report)


@pytest.mark.parametrize("job_id", ["1e5", "007", "0x10", "nan", "-1", "12345678901234567890"])
def test_job_id_is_never_formatted_as_a_number(job_id: str) -> None:
    [line] = table_rows(status_report(replace(FOUR_JOBS[2], job_id=job_id)))
    assert line.split()[1] == job_id


# Long tables


def many_completed(count: int, *other_jobs: JobStatus) -> StatusReport:
    return status_report(*(job(f"j{number}", status="completed") for number in range(count)), *other_jobs)


def test_thousand_jobs_are_all_listed() -> None:
    assert len(table_rows(many_completed(999, FOUR_JOBS[1]))) == 1000


def test_long_table_lists_only_jobs_that_are_not_completed() -> None:
    report = many_completed(1000, *FOUR_JOBS[1:])
    assert [line.split()[0] for line in table_rows(report)] == ["b", "c", "名前"]
    assert render("table", report).endswith("\ncompleted jobs are not listed; use --all to list every job")
    assert len(table_rows(report, list_all=True)) == 1003
    assert "--all" not in render("table", report, list_all=True)


def test_csv_and_json_list_every_job() -> None:
    report = many_completed(1001)
    assert len(render("csv", report).split("\r\n")) == 1002
    assert len(json.loads(render("json", report))["jobs"]) == 1001


# Hostile text

members = st.fixed_dictionaries(
    {"status": words},
    optional={
        **dict.fromkeys(("progress", "cost", "time_taken", "finished_at"), json_values),
        "tasks": st.lists(st.fixed_dictionaries({"name": words, "err_msg": words}), max_size=2),
    },
)
job_statuses = st.builds(
    JobStatus,
    *[words] * 4,
    bodies | members.map(lambda fields: json.dumps({**fields, "id": "j"}).encode()),
    st.none() | times,
    problem=st.sampled_from(["", *HOSTILE]),
)
status_reports = st.builds(status_report, *[job_statuses] * 2) | st.builds(status_report, job_statuses)

CONTROL_CHARACTERS = {
    *map(chr, range(32)),
    *map(chr, range(0x7F, 0xA0)),
    "\u202e",
    "\u2066",
    "\u2028",
    "\u200b",
    "\ufeff",
}


@given(status_reports, st.none() | st.integers(20, 200))
def test_tables_contain_no_terminal_escapes_and_no_ci_commands(report: StatusReport, columns: int | None) -> None:
    for lines in (render("table", report, columns).split("\n"), render("markdown", report).split("\n")):
        assert not CONTROL_CHARACTERS & set("".join(lines))
        assert not [line for line in lines if line.lstrip().startswith("::") or "##[" in line or "##vso[" in line]
    rows = len(report.jobs)
    lines = render("table", report, columns).split("\n")
    assert lines[rows + 2] == ""
    assert max(map(display_width, lines[: rows + 2])) <= (columns or 10**9)


@given(status_reports)
def test_csv_can_be_parsed_back(report: StatusReport) -> None:
    text = render("csv", report)
    assert not CONTROL_CHARACTERS & set(text.replace("\r\n", ""))
    parsed_rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert len(parsed_rows) == len(report.jobs)
    for row, job_status in zip(parsed_rows, report.jobs, strict=True):
        assert None not in row
        assert row["final"] == json.dumps(job_status.is_final)
        assert not [cell for cell in row.values() if cell[:1] in ("=", "@", "\t", "\r")]


@given(status_reports)
def test_json_can_be_parsed_back(report: StatusReport) -> None:
    text = render("json", report)
    assert not CONTROL_CHARACTERS & set(text.replace("\n", ""))
    document = loads_strictly(text)
    assert [job["name"] for job in document["jobs"]] == [job_status.name for job_status in report.jobs]
    assert [job["status"] or "" for job in document["jobs"]] == [job_status.status for job_status in report.jobs]
