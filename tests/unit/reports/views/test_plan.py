"""Reports of a plan: expected output, and that text from names and the API is escaped in every format."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import labels, texts, words
from support.schemas import loads_strictly

from runner.core.models import Job, Manifest
from runner.planning.planned_jobs import Action, PlannedJob, Preview, Reason
from runner.reports import PLAN_FORMATS, Style
from runner.reports.views.plan import FIELDS

API = "https://api.example"
DAY_KEY = "day:2026-10-20"
RUN_ID = "20261020T010000Z-aaaaaa"

_CELL_END = re.compile(r"(?<!\\)(?:\\\\)*\|")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def job(name: str, workflow: str = "w-1", project: str = "p-1", **job_labels: str) -> Job:
    return Job(name, workflow, project, job_labels)


def make_preview(*jobs: PlannedJob, key: str = DAY_KEY, **values: Any) -> Preview:
    manifest = Manifest("nightly", "nightly.yaml", "ab" * 32, tuple(planned_job.job for planned_job in jobs))
    return Preview(manifest, API, key, jobs, **values)


def render(plan_preview: Preview, name: str = "table", **style: Any) -> str:
    return PLAN_FORMATS[name]([plan_preview], Style(**style))


EVERY_REASON = (
    PlannedJob(job("a"), "submit", "new", estimate=12),
    PlannedJob(job("b"), "submit", "not_created_before", "HTTP 404 Not Found: no such workflow", RUN_ID, estimate=12),
    PlannedJob(job("c"), "submit", "one_more", "bought 1 time so far", estimate=12),
    PlannedJob(job("d"), "nothing", "created", "", RUN_ID, "job-1"),
    PlannedJob(job("e"), "look up", "in_doubt", "no answer in time", RUN_ID),
    PlannedJob(job("f"), "look up", "sending", "it is being sent, or its run was killed meanwhile", RUN_ID),
    PlannedJob(job("g"), "nothing", "disabled", "disabled in the manifest"),
    PlannedJob(job("h"), "nothing", "not_selected", "its name matches no --only"),
    PlannedJob(job("d"), "submit", "again", "asked for with --again", estimate=12),
)


# Table


def test_table_describes_every_reason() -> None:
    assert render(make_preview(*EVERY_REASON, spent=30, limit=100, has_estimates=True)).split("\n") == [
        "job  workflow  project  action   reason                                                       estimate",
        "---  --------  -------  -------  -----------------------------------------------------------  --------",
        "a    w-1       p-1      submit   new                                                                12",
        "b    w-1       p-1      submit   not created before: HTTP 404 Not Found: no such workflow           12",
        "c    w-1       p-1      submit   one more of this pair: bought 1 time so far                        12",
        "d    w-1       p-1      nothing  created as job-1 by 20261020T010000Z-aaaaaa",
        "e    w-1       p-1      look up  in doubt: no answer in time",
        "f    w-1       p-1      look up  in doubt: it is being sent, or its run was killed meanwhile",
        "g    w-1       p-1      nothing  disabled in the manifest",
        "h    w-1       p-1      nothing  not selected: its name matches no --only",
        "d    w-1       p-1      submit   once more: asked for with --again                                  12",
        "",
        "9 jobs: 4 to submit, 2 to look up, 3 with nothing to do · estimate 48",
        "for the day 2026-10-20",
        "max_cost 100: 30 spent, 78 after this run",
    ]


def test_sample_has_every_reason_and_action() -> None:
    assert {planned_job.reason for planned_job in EVERY_REASON} == set(get_args(Reason))
    assert {planned_job.action for planned_job in EVERY_REASON} == set(get_args(Action))


def test_empty_columns_are_omitted() -> None:
    headers = render(make_preview(PlannedJob(job("a"), "submit", "new"))).split("\n")[0].split()
    assert headers == ["job", "workflow", "project", "action", "reason"]
    plan_preview = make_preview(PlannedJob(job("a"), "submit", "new", estimate=0, problem="HTTP 404 Not Found"))
    assert render(plan_preview).split("\n")[0].split()[-2:] == ["estimate", "problem"]


def test_costs_that_were_not_requested_are_not_shown() -> None:
    text = render(make_preview(PlannedJob(job("a"), "submit", "new"), limit=100))
    assert "estimate" not in text
    assert "max_cost" not in text


def test_run_key_of_a_new_run_is_not_shown() -> None:
    assert "for the run" not in render(make_preview(PlannedJob(job("a"), "submit", "new"), key="run:next"))
    assert f"for the run {RUN_ID}" in render(
        make_preview(PlannedJob(job("a"), "nothing", "created", "", RUN_ID, "job-1"), key=f"run:{RUN_ID}")
    )


def test_unknown_costs_are_counted_and_explained_up_to_a_limit() -> None:
    unknown_costs = {f"w-{number}": "HTTP 500 Internal Server Error" for number in range(23)}
    plan_preview = make_preview(
        PlannedJob(job("a"), "submit", "new", estimate=7),
        *(PlannedJob(job(f"j{workflow}", workflow), "submit", "new") for workflow in unknown_costs),
        has_estimates=True,
        unknown_costs=unknown_costs,
    )
    lines = render(plan_preview).split("\n")
    assert "24 jobs: 24 to submit, 0 to look up, 0 with nothing to do · estimate 7 and 23 of unknown cost" in lines
    notes = [line for line in lines if "not known" in line]
    assert notes[0] == "cost of workflow w-0 not known: HTTP 500 Internal Server Error"
    assert len(notes) == 21
    assert "cost of 3 more workflows not known; use --format json to list them" in lines
    assert json.loads(render(plan_preview, "json"))["unpriced"] == unknown_costs


def test_long_table_lists_only_jobs_with_something_to_do() -> None:
    plan_preview = make_preview(
        *(PlannedJob(job(f"j{number}"), "nothing", "created", "", RUN_ID, "x") for number in range(1000)),
        PlannedJob(job("new"), "submit", "new"),
        PlannedJob(job("doubt"), "look up", "in_doubt"),
        PlannedJob(job("odd"), "nothing", "disabled", problem="HTTP 404 Not Found"),
    )
    lines = render(plan_preview).split("\n")
    assert [line.split()[0] for line in lines[2:5]] == ["new", "doubt", "odd"]
    assert lines[-1] == "jobs with nothing to do are not listed; use --all to list every job"
    assert len(render(plan_preview, list_all=True).split("\n")) == 2 + 1003 + 3
    assert len(render(make_preview(*plan_preview.jobs[:1000])).split("\n")) == 2 + 1000 + 3


def test_plan_without_jobs() -> None:
    for name in ("table", "markdown"):
        assert render(make_preview(), name).split("\n")[0] == "0 jobs: 0 to submit, 0 to look up, 0 with nothing to do"
    assert render(make_preview(), "csv") == ",".join(("manifest", *FIELDS))


def test_narrow_terminal_keeps_the_job_and_the_action() -> None:
    lines = render(make_preview(*EVERY_REASON, has_estimates=True), width=30).split("\n")
    assert lines[0].split()[:2] == ["job", "action"]
    assert max(map(len, lines[:11])) <= 30
    assert lines[-1].startswith("columns that do not fit the terminal: workflow, project")


def test_colors_depend_on_the_action() -> None:
    text = render(make_preview(*EVERY_REASON), color=True)
    assert text.count("\x1b[32msubmit\x1b[0m") == 4
    assert text.count("\x1b[36mnothing\x1b[0m") == 3
    assert text.count("\x1b[33mlook up\x1b[0m") == 2
    assert _ESCAPE.sub("", text) == render(make_preview(*EVERY_REASON))


# Markdown, CSV and JSON


def test_markdown() -> None:
    plan_preview = make_preview(
        PlannedJob(job("a|b", "w_1"), "submit", "new", estimate=3, problem="<b>gone</b>"), has_estimates=True
    )
    assert render(plan_preview, "markdown") == (
        "| job | workflow | project | action | reason | estimate | problem |\n"
        "| --- | --- | --- | --- | --- | ---: | --- |\n"
        "| a\\|b | w\\_1 | p-1 | submit | new | 3 | &lt;b&gt;gone&lt;/b&gt; |\n"
        "\n"
        "1 job: 1 to submit, 0 to look up, 0 with nothing to do · estimate 3\n"
        "for the day 2026-10-20"
    )


def test_csv() -> None:
    plan_preview = make_preview(
        PlannedJob(job("a", team="agri"), "submit", "new", estimate=3),
        PlannedJob(job("=b"), "nothing", "created", "", RUN_ID, "1e5"),
    )
    assert render(plan_preview, "csv") == (
        "manifest,name,workflow_id,project_id,labels,action,reason,detail,run_id,job_id,estimate,problem\r\n"
        'nightly,a,w-1,p-1,"{""team"": ""agri""}",submit,new,,,,3,\r\n'
        f"nightly,'=b,w-1,p-1,{{}},nothing,created,,{RUN_ID},1e5,,"
    )


def test_json() -> None:
    plan_preview = make_preview(
        PlannedJob(job("a", team="agri"), "submit", "new", estimate=3, problem="gone"),
        PlannedJob(job("b"), "look up", "in_doubt", "no answer", RUN_ID),
        spent=5,
        limit=100,
        has_estimates=True,
    )
    assert json.loads(render(plan_preview, "json")) == {
        "version": 1,
        "manifest": {"name": "nightly", "path": "nightly.yaml", "sha256": "ab" * 32},
        "base_url": API,
        "run_key": DAY_KEY,
        "summary": {"submit": 1, "nothing": 0, "look_up": 1, "estimate": 3, "spent": 5, "max_cost": 100},
        "unpriced": {},
        "jobs": [
            {
                "name": "a",
                "workflow_id": "w-1",
                "project_id": "p-1",
                "action": "submit",
                "reason": "new",
                "detail": "",
                "run_id": None,
                "job_id": None,
                "estimate": 3,
                "problem": "gone",
                "labels": {"team": "agri"},
            },
            {
                "name": "b",
                "workflow_id": "w-1",
                "project_id": "p-1",
                "action": "look up",
                "reason": "in_doubt",
                "detail": "no answer",
                "run_id": RUN_ID,
                "job_id": None,
                "estimate": None,
                "problem": "",
                "labels": {},
            },
        ],
    }


def test_json_has_null_for_costs_not_requested() -> None:
    document = json.loads(render(make_preview(PlannedJob(job("a"), "submit", "new"), key="run:next"), "json"))
    assert (document["run_key"], document["summary"]["estimate"], document["summary"]["max_cost"]) == (None,) * 3


# Arbitrary plans

planned_jobs = st.builds(
    PlannedJob,
    st.builds(Job, words, words, words, labels),
    st.sampled_from(get_args(Action)),
    st.sampled_from(get_args(Reason)),
    texts,
    st.none() | words,
    st.none() | words,
    st.none() | st.integers(0, 2**53),
    texts,
)
previews = st.builds(
    lambda jobs, key, unknown_costs, spent: make_preview(
        *jobs, key=key, unknown_costs=unknown_costs, spent=spent, has_estimates=True
    ),
    st.lists(planned_jobs, max_size=4),
    st.one_of(st.just(DAY_KEY), texts),
    st.none() | st.dictionaries(words, texts, max_size=2),
    st.integers(0, 2**60),
)


@given(previews, st.sampled_from([name for name in PLAN_FORMATS if name != "csv"]), st.sampled_from([None, 20, 100]))
def test_formats_contain_no_terminal_escapes_and_no_ci_commands(
    plan_preview: Preview, name: str, width: int | None
) -> None:
    text = render(plan_preview, name, width=width)
    assert all(
        character.isprintable() or unicodedata.category(character) == "Zs" for character in text.replace("\n", "")
    )
    assert "##[" not in text
    assert "##vso[" not in text
    assert name == "github" or not [line for line in text.split("\n") if line.lstrip().startswith("::")]


@given(previews)
def test_json_can_be_parsed_back(plan_preview: Preview) -> None:
    document = loads_strictly(render(plan_preview, "json"))
    assert [(job["name"], job["job_id"], job["estimate"], job["labels"]) for job in document["jobs"]] == [
        (planned_job.job.name, planned_job.job_id, planned_job.estimate, planned_job.job.labels)
        for planned_job in plan_preview.jobs
    ]
    assert document["unpriced"] == (plan_preview.unknown_costs or {})


@given(previews)
def test_csv_can_be_parsed_back_and_contains_no_formulas(plan_preview: Preview) -> None:
    text = render(plan_preview, "csv")
    parsed_rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert text.count("\n") == len(plan_preview.jobs)
    for row, planned_job in zip(parsed_rows, plan_preview.jobs, strict=True):
        assert tuple(row) == ("manifest", *FIELDS)
        assert None not in row.values()
        assert (row["action"], row["reason"]) == (planned_job.action, planned_job.reason)
        assert row["estimate"] == ("" if planned_job.estimate is None else str(planned_job.estimate))
        assert json.loads(row["labels"]) == json.loads(json.dumps(planned_job.job.labels))
        assert not [cell for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]


@given(previews)
def test_each_job_is_a_markdown_row_with_all_cells(plan_preview: Preview) -> None:
    lines = render(plan_preview, "markdown").split("\n")
    rows = lines[: lines.index("")] if plan_preview.jobs else []
    assert len(rows) == (len(plan_preview.jobs) + 2 if plan_preview.jobs else 0)
    assert len({len(_CELL_END.findall(row)) for row in rows}) <= 1


@pytest.mark.parametrize("name", PLAN_FORMATS)
def test_report_has_no_trailing_line_break(name: str) -> None:
    assert not render(make_preview(*EVERY_REASON), name).endswith(("\n", "\r"))
