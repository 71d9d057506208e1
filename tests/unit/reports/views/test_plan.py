"""Reports of a plan: literal ones, and that text from names and the API stays text in every format."""

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
DAY = "day:2026-10-20"
RUN = "20261020T010000Z-aaaaaa"

_CELL_END = re.compile(r"(?<!\\)(?:\\\\)*\|")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def job(name: str, workflow: str = "w-1", project: str = "p-1", **given: str) -> Job:
    return Job(name, workflow, project, given)


def preview(*prospects: PlannedJob, key: str = DAY, **values: Any) -> Preview:
    manifest = Manifest("nightly", "nightly.yaml", "ab" * 32, tuple(one.job for one in prospects))
    return Preview(manifest, API, key, prospects, **values)


def shown(made: Preview, name: str = "table", **style: Any) -> str:
    return PLAN_FORMATS[name]([made], Style(**style))


EVERY_KIND = (
    PlannedJob(job("a"), "submit", "new", estimate=12),
    PlannedJob(job("b"), "submit", "not_created_before", "HTTP 404 Not Found: no such workflow", RUN, estimate=12),
    PlannedJob(job("c"), "submit", "one_more", "bought 1 time so far", estimate=12),
    PlannedJob(job("d"), "nothing", "created", "", RUN, "job-1"),
    PlannedJob(job("e"), "look up", "in_doubt", "no answer in time", RUN),
    PlannedJob(job("f"), "look up", "sending", "it is being sent, or its run was killed meanwhile", RUN),
    PlannedJob(job("g"), "nothing", "disabled", "enabled: false in the manifest"),
    PlannedJob(job("h"), "nothing", "not_selected", "its name matches no --only"),
    PlannedJob(job("d"), "submit", "again", "asked for with --again", estimate=12),
)


# The table.


def test_a_table_describes_every_kind_of_job() -> None:
    assert shown(preview(*EVERY_KIND, spent=30, limit=100, has_estimates=True)).split("\n") == [
        "job  workflow  project  action   reason                                                       estimate",
        "---  --------  -------  -------  -----------------------------------------------------------  --------",
        "a    w-1       p-1      submit   new                                                                12",
        "b    w-1       p-1      submit   not created before: HTTP 404 Not Found: no such workflow           12",
        "c    w-1       p-1      submit   one more of this pair: bought 1 time so far                        12",
        "d    w-1       p-1      nothing  created as job-1 by 20261020T010000Z-aaaaaa",
        "e    w-1       p-1      look up  in doubt: no answer in time",
        "f    w-1       p-1      look up  in doubt: it is being sent, or its run was killed meanwhile",
        "g    w-1       p-1      nothing  disabled: enabled: false in the manifest",
        "h    w-1       p-1      nothing  not selected: its name matches no --only",
        "d    w-1       p-1      submit   once more: asked for with --again                                  12",
        "",
        "9 jobs: 4 to submit, 2 to look up, 3 with nothing to do · estimate 48",
        "for the day 2026-10-20",
        "max_cost 100: 30 spent, 78 after this run",
    ]


def test_the_example_has_every_reason_and_action() -> None:
    assert {one.reason for one in EVERY_KIND} == set(get_args(Reason))
    assert {one.action for one in EVERY_KIND} == set(get_args(Action))


def test_empty_columns_are_left_out() -> None:
    titles = shown(preview(PlannedJob(job("a"), "submit", "new"))).split("\n")[0].split()
    assert titles == ["job", "workflow", "project", "action", "reason"]
    made = preview(PlannedJob(job("a"), "submit", "new", estimate=0, problem="HTTP 404 Not Found"))
    assert shown(made).split("\n")[0].split()[-2:] == ["estimate", "problem"]


def test_costs_that_were_not_requested_are_not_shown() -> None:
    text = shown(preview(PlannedJob(job("a"), "submit", "new"), limit=100))
    assert "estimate" not in text
    assert "max_cost" not in text


def test_the_key_of_a_run_that_has_not_started_is_not_shown() -> None:
    assert "for the run" not in shown(preview(PlannedJob(job("a"), "submit", "new"), key="run:next"))
    assert f"for the run {RUN}" in shown(
        preview(PlannedJob(job("a"), "nothing", "created", "", RUN, "job-1"), key=f"run:{RUN}")
    )


def test_unknown_costs_are_counted_and_explained_up_to_a_limit() -> None:
    unpriced = {f"w-{number}": "HTTP 500 Internal Server Error" for number in range(23)}
    made = preview(
        PlannedJob(job("a"), "submit", "new", estimate=7),
        *(PlannedJob(job(f"j{one}", one), "submit", "new") for one in unpriced),
        has_estimates=True,
        unknown_costs=unpriced,
    )
    lines = shown(made).split("\n")
    assert "24 jobs: 24 to submit, 0 to look up, 0 with nothing to do · estimate 7 and 23 of unknown cost" in lines
    told = [line for line in lines if "not known" in line]
    assert told[0] == "cost of workflow w-0 not known: HTTP 500 Internal Server Error"
    assert len(told) == 21
    assert "cost of 3 more workflows not known; use --format json to list them" in lines
    assert json.loads(shown(made, "json"))["unpriced"] == unpriced


def test_a_long_table_lists_only_jobs_with_something_to_do() -> None:
    made = preview(
        *(PlannedJob(job(f"j{number}"), "nothing", "created", "", RUN, "x") for number in range(1000)),
        PlannedJob(job("new"), "submit", "new"),
        PlannedJob(job("doubt"), "look up", "in_doubt"),
        PlannedJob(job("odd"), "nothing", "disabled", problem="HTTP 404 Not Found"),
    )
    lines = shown(made).split("\n")
    assert [line.split()[0] for line in lines[2:5]] == ["new", "doubt", "odd"]
    assert lines[-1] == "jobs with nothing to do are not listed; use --all to list every job"
    assert len(shown(made, list_all=True).split("\n")) == 2 + 1003 + 3
    assert len(shown(preview(*made.jobs[:1000])).split("\n")) == 2 + 1000 + 3


def test_no_jobs_at_all() -> None:
    for name in ("table", "markdown"):
        assert shown(preview(), name).split("\n")[0] == "0 jobs: 0 to submit, 0 to look up, 0 with nothing to do"
    assert shown(preview(), "csv") == ",".join(("manifest", *FIELDS))


def test_a_narrow_terminal_keeps_the_job_and_the_action() -> None:
    lines = shown(preview(*EVERY_KIND, has_estimates=True), width=30).split("\n")
    assert lines[0].split()[:2] == ["job", "action"]
    assert max(map(len, lines[:11])) <= 30
    assert lines[-1].startswith("columns that do not fit the terminal: workflow, project")


def test_colors_depend_on_the_action() -> None:
    text = shown(preview(*EVERY_KIND), color=True)
    assert text.count("\x1b[32msubmit\x1b[0m") == 4
    assert text.count("\x1b[36mnothing\x1b[0m") == 3
    assert text.count("\x1b[33mlook up\x1b[0m") == 2
    assert _ESCAPE.sub("", text) == shown(preview(*EVERY_KIND))


# Markdown, CSV, JSON.


def test_markdown() -> None:
    made = preview(
        PlannedJob(job("a|b", "w_1"), "submit", "new", estimate=3, problem="<b>gone</b>"), has_estimates=True
    )
    assert shown(made, "markdown") == (
        "| job | workflow | project | action | reason | estimate | problem |\n"
        "| --- | --- | --- | --- | --- | ---: | --- |\n"
        "| a\\|b | w\\_1 | p-1 | submit | new | 3 | &lt;b&gt;gone&lt;/b&gt; |\n"
        "\n"
        "1 job: 1 to submit, 0 to look up, 0 with nothing to do · estimate 3\n"
        "for the day 2026-10-20"
    )


def test_csv() -> None:
    made = preview(
        PlannedJob(job("a", team="agri"), "submit", "new", estimate=3),
        PlannedJob(job("=b"), "nothing", "created", "", RUN, "1e5"),
    )
    assert shown(made, "csv") == (
        "manifest,name,workflow_id,project_id,labels,action,reason,detail,run_id,job_id,estimate,problem\r\n"
        'nightly,a,w-1,p-1,"{""team"": ""agri""}",submit,new,,,,3,\r\n'
        f"nightly,'=b,w-1,p-1,{{}},nothing,created,,{RUN},1e5,,"
    )


def test_json() -> None:
    made = preview(
        PlannedJob(job("a", team="agri"), "submit", "new", estimate=3, problem="gone"),
        PlannedJob(job("b"), "look up", "in_doubt", "no answer", RUN),
        spent=5,
        limit=100,
        has_estimates=True,
    )
    assert json.loads(shown(made, "json")) == {
        "version": 1,
        "manifest": {"name": "nightly", "path": "nightly.yaml", "sha256": "ab" * 32},
        "base_url": API,
        "run_key": DAY,
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
                "run_id": RUN,
                "job_id": None,
                "estimate": None,
                "problem": "",
                "labels": {},
            },
        ],
    }


def test_json_has_null_for_what_was_not_requested() -> None:
    document = json.loads(shown(preview(PlannedJob(job("a"), "submit", "new"), key="run:next"), "json"))
    assert (document["run_key"], document["summary"]["estimate"], document["summary"]["max_cost"]) == (None,) * 3


# Anything at all.

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
    lambda listed, key, unpriced, spent: preview(
        *listed, key=key, unknown_costs=unpriced, spent=spent, has_estimates=True
    ),
    st.lists(planned_jobs, max_size=4),
    st.one_of(st.just(DAY), texts),
    st.none() | st.dictionaries(words, texts, max_size=2),
    st.integers(0, 2**60),
)


@given(previews, st.sampled_from([name for name in PLAN_FORMATS if name != "csv"]), st.sampled_from([None, 20, 100]))
def test_no_format_lets_anything_act_on_a_terminal_or_a_log(made: Preview, name: str, width: int | None) -> None:
    text = shown(made, name, width=width)
    assert all(one.isprintable() or unicodedata.category(one) == "Zs" for one in text.replace("\n", ""))
    assert "##[" not in text
    assert "##vso[" not in text
    assert name == "github" or not [line for line in text.split("\n") if line.lstrip().startswith("::")]


@given(previews)
def test_json_reads_back_as_it_was(made: Preview) -> None:
    document = loads_strictly(shown(made, "json"))
    assert [(one["name"], one["job_id"], one["estimate"], one["labels"]) for one in document["jobs"]] == [
        (one.job.name, one.job_id, one.estimate, one.job.labels) for one in made.jobs
    ]
    assert document["unpriced"] == (made.unknown_costs or {})


@given(previews)
def test_csv_reads_back_and_has_no_formula_in_it(made: Preview) -> None:
    text = shown(made, "csv")
    read = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert text.count("\n") == len(made.jobs)
    for row, one in zip(read, made.jobs, strict=True):
        assert tuple(row) == ("manifest", *FIELDS)
        assert None not in row.values()
        assert (row["action"], row["reason"]) == (one.action, one.reason)
        assert row["estimate"] == ("" if one.estimate is None else str(one.estimate))
        assert json.loads(row["labels"]) == json.loads(json.dumps(one.job.labels))
        assert not [cell for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]


@given(previews)
def test_each_job_is_a_line_of_markdown_with_as_many_cells(made: Preview) -> None:
    lines = shown(made, "markdown").split("\n")
    rows = lines[: lines.index("")] if made.jobs else []
    assert len(rows) == (len(made.jobs) + 2 if made.jobs else 0)
    assert len({len(_CELL_END.findall(row)) for row in rows}) <= 1


@pytest.mark.parametrize("name", PLAN_FORMATS)
def test_a_report_has_no_line_break_at_its_end(name: str) -> None:
    assert not shown(preview(*EVERY_KIND), name).endswith(("\n", "\r"))
