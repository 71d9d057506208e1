"""The reports of jobs' status: a literal one of each format, and that hostile text stays in its place."""

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


FOUR = (
    job("a", status="completed", progress="100", cost=12, time_taken="5s", finished_at="2026-10-20T03:00:00+02:00"),
    job("b", status="failed", cost=3, tasks=[{"name": "Analyse", "err_msg": "no imagery"}]),
    job("c", status="running", progress=45.5),
    job("名前", problem="HTTP 404 Not Found", status="weird"),
)


def status_report(*jobs: JobStatus, **others: int) -> StatusReport:
    return StatusReport("run-1", "nightly", API, jobs, cast("dict[OutcomeName, int]", others))


def text(name: str, made: StatusReport, width: int | None = None, *, color: bool = False, every: bool = False) -> str:
    return STATUS_FORMATS[name]([made], Style(width, color, every))


def body(made: StatusReport, width: int | None = None, *, every: bool = False) -> list[str]:
    """The lines of the table, without titles and notes."""
    lines = text("table", made, width, every=every).split("\n")
    return lines[2 : lines.index("")] if "" in lines else []


# Literal ones.


def test_a_table() -> None:
    assert text("table", status_report(*FOUR, not_created=1, skipped=2)) == (
        "job   job id  workflow  project  status     progress  cost  time taken  finished (UTC)  errors\n"
        "----  ------  --------  -------  ---------  --------  ----  ----------  --------------  -------------------\n"
        "a     j-a     w-a       p-1      completed  100 %       12  5s          01:00:00\n"
        "b     j-b     w-b       p-1      failed                  3                              Analyse: no imagery\n"
        "c     j-c     w-c       p-1      running    45.5 %\n"
        "名前  j-名前  w-名前    p-1      unknown                                                HTTP 404 Not Found\n"
        "\n"
        "4 jobs: 1 completed, 1 failed, 1 running, 1 status unknown · cost 15\n"
        "not tracked: 1 not created, 2 skipped (see pixxel-runner show)"
    )


def test_a_table_without_errors_has_no_column_for_them() -> None:
    assert text("table", status_report(FOUR[0])).split("\n")[0].endswith("  finished (UTC)")


def test_a_table_on_an_ordinary_terminal() -> None:
    assert text("table", status_report(*FOUR), 60) == (
        "job   job id  status     progress  cost  errors\n"
        "----  ------  ---------  --------  ----  -------------------\n"
        "a     j-a     completed  100 %       12\n"
        "b     j-b     failed                  3  Analyse: no imagery\n"
        "c     j-c     running    45.5 %\n"
        "名前  j-名前  unknown                    HTTP 404 Not Found\n"
        "\n"
        "4 jobs: 1 completed, 1 failed, 1 running, 1 status unknown · cost 15\n"
        "columns that do not fit the terminal: workflow, project, time taken, finished (UTC)"
    )


def test_a_table_on_a_narrow_terminal_keeps_job_and_status() -> None:
    assert body(status_report(*FOUR), 20) == ["a     completed", "b     failed", "c     running", "名前  unknown"]


def test_markdown() -> None:
    assert text("markdown", status_report(*FOUR[:2])) == (
        "| job | job id | workflow | project | status | progress | cost | time taken | finished (UTC) | errors |\n"
        "| --- | --- | --- | --- | --- | --- | ---: | --- | --- | --- |\n"
        "| a | j-a | w-a | p-1 | completed | 100 % | 12 | 5s | 01:00:00 |  |\n"
        "| b | j-b | w-b | p-1 | failed |  | 3 |  |  | Analyse: no imagery |\n"
        "\n"
        "2 jobs: 1 completed, 1 failed · cost 15"
    )


def test_csv() -> None:
    assert text("csv", status_report(*FOUR)) == (
        "manifest,name,workflow_id,project_id,job_id,status,final,progress,cost,time_taken,finished_at,errors,seen_at,"
        "problem\r\n"
        "nightly,a,w-a,p-1,j-a,completed,true,100 %,12,5s,2026-10-20T01:00:00.000Z,,2026-10-20T02:00:00.500Z,\r\n"
        "nightly,b,w-b,p-1,j-b,failed,true,,3,,,Analyse: no imagery,2026-10-20T02:00:00.500Z,\r\n"
        "nightly,c,w-c,p-1,j-c,running,false,45.5 %,,,,,2026-10-20T02:00:00.500Z,\r\n"
        "nightly,名前,w-名前,p-1,j-名前,weird,false,,,,,,2026-10-20T02:00:00.500Z,HTTP 404 Not Found"
    )


def test_json() -> None:
    made = json.loads(text("json", status_report(*FOUR)))
    assert (made["version"], made["run"]) == (1, {"id": "run-1", "manifest": "nightly", "base_url": API})
    assert made["summary"] == {"statuses": {"completed": 1, "failed": 1, "running": 1, "unknown": 1}, "cost": 15}
    assert made["jobs"][0] == {
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
    assert made["jobs"][1]["errors"] == ["Analyse: no imagery"]
    assert made["jobs"][3]["problem"] == "HTTP 404 Not Found"


def test_a_job_without_a_known_status() -> None:
    unseen = JobStatus("a", "w", "p", "j", b"")
    assert body(status_report(unseen)) == ["a    j       w         p        unknown"]
    made = json.loads(text("json", status_report(unseen)))
    assert made["summary"] == {"statuses": {"unknown": 1}, "cost": 0}
    assert [name for name, value in made["jobs"][0].items() if value is not None] == [
        "name",
        "workflow_id",
        "project_id",
        "job_id",
        "final",
        "errors",
    ]


def test_without_jobs_there_are_only_totals() -> None:
    assert text("table", status_report()) == text("markdown", status_report()) == "0 jobs · cost 0"
    assert text("csv", status_report()).startswith("manifest,name,workflow_id,")
    assert json.loads(text("json", status_report()))["jobs"] == []


def test_ends_on_several_days_have_their_dates() -> None:
    made = status_report(*(job(f"{day}", status="done", finished_at=f"2026-10-{day}T01:00:00Z") for day in (20, 21)))
    assert [line[-19:] for line in body(made)] == ["2026-10-20 01:00:00", "2026-10-21 01:00:00"]


@pytest.mark.parametrize(
    ("status", "color"),
    [("completed", 32), ("failed", 31), ("cancelled", 31), ("running", 36), ("weird", 33)],
)
def test_colors_depend_on_the_status_and_change_nothing_else(status: str, color: int) -> None:
    made = status_report(job("a", status=status))
    colored = text("table", made, color=True)
    assert f"\x1b[{color}m{status}\x1b[0m" in colored
    assert click.unstyle(colored) == text("table", made)


@pytest.mark.parametrize("job_id", ["1e5", "007", "0x10", "nan", "-1", "12345678901234567890"])
def test_an_id_is_never_read_as_a_number(job_id: str) -> None:
    [line] = body(status_report(replace(FOUR[2], job_id=job_id)))
    assert line.split()[1] == job_id


# Very many.


def many(count: int, *others: JobStatus) -> StatusReport:
    return status_report(*(job(f"j{number}", status="completed") for number in range(count)), *others)


def test_a_thousand_jobs_are_all_listed() -> None:
    assert len(body(many(999, FOUR[1]))) == 1000


def test_a_long_table_lists_only_jobs_that_are_not_completed() -> None:
    made = many(1000, *FOUR[1:])
    assert [line.split()[0] for line in body(made)] == ["b", "c", "名前"]
    assert text("table", made).endswith("\ncompleted jobs are not listed; use --all to list every job")
    assert len(body(made, every=True)) == 1003
    assert "--all" not in text("table", made, every=True)


def test_data_has_all_of_them() -> None:
    made = many(1001)
    assert len(text("csv", made).split("\r\n")) == 1002
    assert len(json.loads(text("json", made))["jobs"]) == 1001


# Hostile text.

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
    bodies | members.map(lambda one: json.dumps({**one, "id": "j"}).encode()),
    st.none() | times,
    problem=st.sampled_from(["", *HOSTILE]),
)
status_reports = st.builds(status_report, *[job_statuses] * 2) | st.builds(status_report, job_statuses)

ACTED_ON = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2066", "\u2028", "\u200b", "\ufeff"}


@given(status_reports, st.none() | st.integers(20, 200))
def test_no_table_holds_what_a_terminal_or_a_ci_log_acts_on(made: StatusReport, columns: int | None) -> None:
    for lines in (text("table", made, columns).split("\n"), text("markdown", made).split("\n")):
        assert not ACTED_ON & set("".join(lines))
        assert not [line for line in lines if line.lstrip().startswith("::") or "##[" in line or "##vso[" in line]
    rows = len(made.jobs)
    lines = text("table", made, columns).split("\n")
    assert lines[rows + 2] == ""
    assert max(map(display_width, lines[: rows + 2])) <= (columns or 10**9)


@given(status_reports)
def test_csv_reads_back(made: StatusReport) -> None:
    written = text("csv", made)
    assert not ACTED_ON & set(written.replace("\r\n", ""))
    read = list(csv.DictReader(io.StringIO(written, newline=""), strict=True))
    assert len(read) == len(made.jobs)
    for row, one in zip(read, made.jobs, strict=True):
        assert None not in row
        assert row["final"] == json.dumps(one.is_final)
        assert not [cell for cell in row.values() if cell[:1] in ("=", "@", "\t", "\r")]


@given(status_reports)
def test_json_reads_back_and_is_kept_as_it_came(made: StatusReport) -> None:
    written = text("json", made)
    assert not ACTED_ON & set(written.replace("\n", ""))
    read = loads_strictly(written)
    assert [one["name"] for one in read["jobs"]] == [one.name for one in made.jobs]
    assert [one["status"] or "" for one in read["jobs"]] == [one.status for one in made.jobs]
