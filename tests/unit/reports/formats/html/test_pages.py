"""The HTML reports as text: well-formed, self-contained, deterministic, and safe with any names."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records import (
    RUN,
    SENT,
    bodies,
    created,
    entry,
    in_doubt,
    labels,
    not_created,
    record,
    records,
    times,
    words,
)
from tinyhtml5.parser import HTMLParser  # type: ignore[import-untyped] # it has no types

from runner.core.models import Created, Entry, InDoubt, Job, Manifest, Outcome, OutcomeName, RunRecord, Skipped
from runner.planning.planned_jobs import PlannedJob, Preview
from runner.reports import PLAN_FORMATS, RUN_FORMATS, STATUS_FORMATS
from runner.reports.formats.html import time_buckets
from runner.reports.formats.html.formatting import format_duration
from runner.reports.formats.html.model import Badge, BarChart, Group, Timeline, TimelineBar
from runner.reports.style import Style
from runner.reports.views.status import StatusReport
from runner.runs.job_status import JobStatus
from runner.runs.summary import summarize

API = "https://api.example"
SKIPPED = Skipped("disabled", "disabled in the manifest")


class Document:
    """A report, parsed as browsers do."""

    def __init__(self, text: str) -> None:
        parser = HTMLParser(namespace_html_elements=False)
        self.text = text
        self.tree: Element = parser.parse(text)
        self.errors = parser.errors
        for element in self.tree.iter():
            element.tag = str(element.tag).rpartition("}")[2]  # without the SVG namespace

    def find_all(self, path: str) -> list[Element]:
        return self.tree.findall(path)

    def find_texts(self, path: str) -> list[str]:
        return ["".join(element.itertext()) for element in self.find_all(path)]

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the job table."""
        table = ".//table[@class='jobs']"
        headers = self.find_texts(f"{table}/thead/tr/th")
        return [
            dict(zip(headers, ("".join(cell.itertext()) for cell in row), strict=True))
            for row in self.find_all(f"{table}/tbody/tr")
        ]

    @property
    def totals(self) -> dict[str, str]:
        """The totals, with their notes."""
        return {
            "".join(group[0].itertext()): " / ".join("".join(part.itertext()) for part in group[1:])
            for group in self.find_all(".//dl[@class='totals']/div")
        }

    @property
    def facts(self) -> dict[str, str]:
        """The facts of the first run."""
        fact_list = self.find_all(".//dl[@class='facts']")[0]
        return {"".join(pair[0].itertext()): "".join(pair[1].itertext()) for pair in fact_list}

    def chart_rows(self, title: str) -> list[list[str]]:
        """The table rows of a chart, without headers."""
        rows = self.find_all(f".//figure[h2='{title}']//tbody/tr") or self.find_all(".//figure//details//tbody/tr")
        return [["".join(cell.itertext()) for cell in row] for row in rows]


def run_page(*entries: Entry, **run: Any) -> Document:
    return Document(RUN_FORMATS["html"]([summarize(record(*entries, **run))], Style()))


def sent_after(outcome: Any, seconds: float) -> Any:
    return replace(outcome, sent_at=SENT + timedelta(seconds=seconds))


def job_status(name: str, problem: str = "", **members: Any) -> JobStatus:
    body = json.dumps({"id": f"j-{name}", **members}).encode()
    return JobStatus(name, "w-1", "p-1", f"j-{name}", body, datetime(2026, 10, 20, 2, tzinfo=UTC), problem=problem)


def status_report(*jobs: JobStatus, **others: int) -> StatusReport:
    return StatusReport("run-1", "nightly", API, jobs, cast("dict[OutcomeName, int]", others))


def make_preview(*planned_jobs: PlannedJob, key: str = "day:2026-10-20", **values: Any) -> Preview:
    manifest = Manifest("nightly", "nightly.yaml", "ab" * 32, tuple(planned_job.job for planned_job in planned_jobs))
    return Preview(manifest, API, key, planned_jobs, **values)


FOUR_ENTRIES = (
    entry("a", replace(created("j-1", cost=1200), estimate=1300), team="agri"),
    entry("b", not_created(request_id="req-7")),
    entry("c", in_doubt(candidates=("j-8", "j-9"))),
    entry("d", SKIPPED),
)


# Run pages


def test_run_page_shows_totals_cost_and_duration() -> None:
    page = run_page(*FOUR_ENTRIES)
    assert page.find_texts("./body/header/h1") == ["nightly completed"]
    assert page.find_texts(".//p[@class='headline']") == ["1 of 4 jobs created, 1 not created, 1 in doubt, 1 skipped."]
    assert page.totals == {
        "created": "1",
        "not created": "1",
        "in doubt": "1 / may or may not exist",
        "skipped": "1 / not sent",
        "cost": "1,200 / estimate 1,300",
        "duration": "2 min 00 s / 2026-10-20 01:00:00 to 01:02:00 UTC",
    }


def test_headline_if_all_jobs_were_created() -> None:
    page = run_page(entry("a", created("j-1")), entry("b", created("j-2"), run_id="run-1"))
    assert page.find_texts(".//p[@class='headline']") == ["All 2 jobs were created."]
    assert page.totals["created"] == "2 / 1 by an earlier run"


def test_run_page_identifies_the_run() -> None:
    assert run_page(*FOUR_ENTRIES, git_commit="c0ffee").facts == {
        "state": "completed",
        "run": "run-2",
        "run key": "the day 2026-10-20",
        "manifest": "nightly.yaml",
        "manifest SHA-256": "ab" * 32,
        "git commit": "c0ffee",
        "API": "https://api.pixxel.space",
        "started": "2026-10-20 01:00:00 UTC",
        "finished": "2026-10-20 01:02:00 UTC",
        "duration": "2 min 00 s",
        "settings": "concurrency 8",
    }


def test_table_lists_every_job() -> None:
    assert run_page(*FOUR_ENTRIES).rows == [
        {
            "job": "a",
            "outcome": "created",
            "job id": "j-1",
            "cost": "1,200",
            "estimate": "1,300",
            "sent (UTC)": "01:00:03",
            "message": "",
            "labels": "team: agri",
            "workflow": "w-a",
            "project": "p-1",
        },
        *(
            {
                **dict.fromkeys(("job id", "cost", "estimate", "labels"), ""),
                "job": name,
                "outcome": outcome,
                "sent (UTC)": sent,
                "message": message,
                "workflow": f"w-{name}",
                "project": "p-1",
            }
            for name, outcome, sent, message in (
                ("b", "not created", "01:00:03", "rejected: no such workflow · request id req-7"),
                ("c", "in doubt", "01:00:03", "timeout: no answer came · candidates j-8, j-9"),
                ("d", "skipped", "", "disabled in the manifest"),
            )
        ),
    ]


def test_outcome_cell_includes_remarks() -> None:
    uncertain = replace(created("j-1", val_errors=[1, 2]), recovered=True, assigned=False)
    assert (
        run_page(entry("a", uncertain)).rows[0]["outcome"] == "created recovered, job id uncertain 2 validation errors"
    )


def test_empty_columns_are_omitted() -> None:
    assert list(run_page(entry("a", created("j-1"))).rows[0]) == [
        "job",
        "outcome",
        "job id",
        "sent (UTC)",
        "workflow",
        "project",
    ]


def test_table_lists_thousands_of_jobs() -> None:
    text = RUN_FORMATS["html"](
        [summarize(record(*(entry(f"n{number}", created(f"j-{number}")) for number in range(3000))))], Style()
    )
    assert text.count("<tr data-group=") == 3000
    assert len(text) < 1_000_000


def test_reasons_are_grouped_without_variable_parts() -> None:
    page = run_page(
        *(entry(f"b{number}", not_created(request_id=f"req-{number}")) for number in range(3)),
        *(entry(f"c{number}", not_created("unreachable", f"reason {number}")) for number in range(12)),
    )
    table = ".//section[h2='Jobs not created, in doubt or skipped, by reason (10 of 13)']"
    assert page.find_texts(f"{table}//tbody/tr[1]/td") == ["not created", "3", "rejected: no such workflow"]
    assert len(page.find_all(f"{table}//tbody/tr")) == 10


def test_projects_are_listed_if_there_are_several() -> None:
    other_entry = Entry(Job("b", "w-1", "p-2"), created("j-2", cost=5), RUN.id)
    page = run_page(entry("a", created("j-1", cost=2)), other_entry)
    assert page.find_texts(".//section[h2='Projects']//tbody/tr[2]/td") == ["p-2", "1", "5"]
    assert not run_page(entry("a", created("j-1"))).find_all(".//section[h2='Projects']")


def test_several_manifests_share_one_page() -> None:
    later = summarize(
        record(entry("a", not_created()), manifest_name="coast", finished_at=RUN.finished_at + timedelta(hours=1))
    )
    page = Document(RUN_FORMATS["html"]([summarize(record(*FOUR_ENTRIES)), later], Style()))
    assert page.find_texts("./body/header/h1") == ["2 manifests"]
    assert [row["manifest"] for row in page.rows] == ["nightly"] * 4 + ["coast"]
    assert page.totals["not created"] == "2"
    assert page.totals["duration"].startswith("1 h 02 min")
    assert [text.split(": ")[0] for text in page.find_texts(".//main/details/summary")] == [
        "nightly 4 jobs",
        "coast 1 job",
    ]


def test_manifest_column_is_shown_when_running_several_manifests() -> None:
    page = Document(RUN_FORMATS["html"]([summarize(record(*FOUR_ENTRIES))], Style(several_manifests=True)))
    assert page.rows[0]["manifest"] == "nightly"


def test_run_without_jobs() -> None:
    page = run_page()
    assert page.find_texts(".//p[@class='headline']") == ["There are no jobs."]
    assert not page.errors
    assert not page.find_all(".//figure")


def test_page_without_records() -> None:
    for text in (
        RUN_FORMATS["html"]([], Style()),
        PLAN_FORMATS["html"]([], Style()),
        STATUS_FORMATS["html"]([], Style()),
    ):
        page = Document(text)
        assert not page.errors
        assert page.rows == []


# Timelines


def test_submissions_over_time() -> None:
    page = run_page(
        *(entry(f"a{number}", sent_after(created(f"j-{number}"), number)) for number in range(3)),
        entry("b", sent_after(not_created(), 2)),
        entry("c", SKIPPED),
    )
    assert page.find_texts(".//figcaption/p") == ["One bar is 50 ms; the peak is 2. 1 job is not shown: not sent."]
    assert page.find_texts(".//ul[@class='legend']/li") == ["not created 1", "created 3"]
    assert page.chart_rows("Submissions over time") == [
        ["2026-10-20 01:00:03.100", "0", "1"],
        ["2026-10-20 01:00:04.100", "0", "1"],
        ["2026-10-20 01:00:05.100", "1", "1"],
    ]
    assert page.find_texts(".//figure//g/title")[2] == "2026-10-20 01:00:05.100: 1 not created, 1 created"


@given(st.lists(st.tuples(times, st.integers(0, 2)), min_size=1, max_size=50))
def test_time_buckets_are_limited_and_count_every_event(points: list[tuple[datetime, int]]) -> None:
    series = [Group(name, "good", 0) for name in "abc"]
    chart = time_buckets.chart_events("t", points, series)
    assert chart is not None
    assert len(chart.counts) <= 60
    assert sum(map(sum, chart.counts)) == len(points)
    assert [group.label for group in chart.series] == [
        name for index, name in enumerate("abc") if index in {group_index for _, group_index in points}
    ]


def test_earliest_and_latest_possible_times() -> None:
    limits = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    page = run_page(*(entry(f"a{index}", replace(created("j"), sent_at=time)) for index, time in enumerate(limits)))
    assert not page.errors
    assert [row["sent (UTC)"] for row in page.rows] == ["0001-01-01 00:00:00", "9999-12-31 23:59:59"]


def final_entry(name: str, created_at: str, finished_at: str, **members: Any) -> Entry:
    members = {"status": "completed", "created_at": created_at, "finished_at": finished_at, **members}
    return entry(name, replace(created(f"j-{name}", **members), seen_at=SENT))


def test_final_jobs_have_a_timeline_and_a_status() -> None:
    tasks = [{"block_inf_start_time": "2026-10-20T01:00:40Z"}, {"block_inf_start_time": "2026-10-20T01:00:30Z"}]
    page = run_page(
        final_entry("a", "2026-10-20T01:00:10Z", "2026-10-20T01:01:10Z", tasks=tasks),
        final_entry("b", "2026-10-20T01:00:00Z", "2026-10-20T01:01:40Z", status="failed"),
        entry("c", created("j-c", status="pending", created_at="2026-10-20T01:00:00Z")),
    )
    assert [(row["status"], row["duration"]) for row in page.rows] == [
        ("completed", "1 min 00 s"),
        ("failed", "1 min 40 s"),
        ("", ""),
    ]
    assert page.find_texts(".//ul[@class='notes']/li") == [
        "Final status at the API, where known: 1 failed, 1 completed."
    ]
    bars = page.find_all(".//table[@class='timeline']/tbody/tr")
    assert ["".join(element.itertext()) for element in bars] == [
        "b2026-10-20 01:00:00 to 01:01:40 UTC1 min 40 s, failed",
        "a2026-10-20 01:00:10 to 01:01:10 UTC1 min 00 s, completed",
    ]
    waiting, running = sorted(bars[1].iter("rect"), key=lambda element: float(element.attrib["x"]))
    assert (waiting.attrib["class"], waiting.attrib["x"], waiting.attrib["width"]) == ("wait", "100.0", "200.0")
    assert (running.attrib["class"], running.attrib["x"], running.attrib["width"]) == ("good", "300.0", "400.0")


def test_job_starts_with_its_first_task_and_unset_times_are_none() -> None:
    tasks = ({"block_inf_start_time": time} for time in ("0001-01-01T00:00:00Z", "2026-10-20T01:00:40Z"))
    assert job_status("a", tasks=[*tasks, 7]).started_at == datetime(2026, 10, 20, 1, 0, 40, tzinfo=UTC)
    unset = job_status("a", created_at="1970-01-01T00:00:00Z", finished_at="0001-01-01T00:00:00Z", tasks=7)
    assert (unset.created_at, unset.started_at, unset.finished_at) == (None, None, None)


@pytest.mark.parametrize(("progress", "classes"), [("0", ["wait"]), ("5", ["busy"]), (None, ["wait"])])
def test_timeline_shows_a_job_not_started_as_waiting(progress: str | None, classes: list[str]) -> None:
    job = job_status("a", status="running", progress=progress, created_at="2026-10-20T01:00:00Z")
    page = Document(STATUS_FORMATS["html"]([status_report(job)], Style()))
    assert [rect.attrib["class"] for rect in page.find_all(".//table[@class='timeline']//rect")] == classes


def timeline_bar(name: str, start: float, end: float, *, is_over: bool = True) -> TimelineBar:
    badge = Badge("completed" if is_over else "running", "good")
    return TimelineBar(name, badge, SENT + timedelta(seconds=start), None, SENT + timedelta(seconds=end), is_over)


SERIES = (Group("completed", "good", 0), Group("active", "busy", 0))


def test_many_jobs_are_charted_as_cumulative_counts() -> None:
    bars = [(timeline_bar(f"{number}", number, number + 100), 0) for number in range(50)]
    chart = time_buckets.chart_jobs("t", [*bars, (timeline_bar("on", 10, 149, is_over=False), 1)], SERIES)
    assert isinstance(chart, BarChart)
    assert chart.cumulative
    assert chart.counts[0] == (0, 2)
    assert chart.counts[-1] == (50, 1)
    assert max(map(sum, chart.counts)) == 51


def test_few_jobs_have_a_bar_each_in_start_order() -> None:
    chart = time_buckets.chart_jobs("t", [(timeline_bar("b", 5, 6), 0), (timeline_bar("a", 1, 9), 0)], SERIES)
    assert isinstance(chart, Timeline)
    assert [bar.name for bar in chart.bars] == ["a", "b"]


def test_job_that_ended_before_it_started_has_zero_duration() -> None:
    page = run_page(final_entry("a", "2026-10-20T01:01:00Z", "2026-10-20T01:00:00Z"))
    assert not page.errors
    assert page.rows[0]["duration"] == "0 ms"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 ms"),
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (1, "1.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (119.7, "2 min 00 s"),
        (3599.9, "1 h 00 min"),
        (86399.9, "1 d 00 h"),
        (90000, "1 d 01 h"),
        (10**9, "11,574 d 01 h"),
    ],
)
def test_durations_are_formatted(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


# Plan and status pages


def test_plan_page() -> None:
    job = Job("a", "w-1", "p-1", {"team": "agri"})
    page = Document(
        PLAN_FORMATS["html"](
            [
                make_preview(
                    PlannedJob(
                        job, "submit", "not_created_before", "HTTP 404", "run-1", estimate=1200, problem="not there"
                    ),
                    PlannedJob(Job("b", "w-1", "p-1"), "nothing", "created", "", "run-1", "j-1"),
                    PlannedJob(Job("c", "w-2", "p-1"), "submit", "new"),
                    spent=10,
                    limit=500,
                    has_estimates=True,
                    unknown_costs={"w-2": "HTTP 403"},
                )
            ],
            Style(),
        )
    )
    assert page.find_texts(".//p[@class='headline']") == ["A run would submit 2 of 3 jobs."]
    assert page.totals == {
        "to submit": "2",
        "to look up": "0",
        "nothing to do": "1",
        "estimate": "1,200 / and 1 job of unknown cost",
        "problems": "1 / found by --check",
    }
    assert page.find_texts(".//ul[@class='notes']/li") == [
        "nightly: a run would be refused, as the estimate exceeds max_cost",
        "cost of workflow w-2 not known: HTTP 403",
    ]
    assert page.facts == {
        "run key": "the day 2026-10-20",
        "manifest": "nightly.yaml",
        "manifest SHA-256": "ab" * 32,
        "API": API,
        "max_cost": "500",
        "spent": "10",
        "spent after this run": "1,210",
    }
    assert page.rows[0] == {
        "job": "a",
        "action": "submit",
        "reason": "not created before: HTTP 404",
        "estimate": "1,200",
        "problem": "not there",
        "labels": "team: agri",
        "workflow": "w-1",
        "project": "p-1",
    }
    assert page.rows[1]["reason"] == "created as j-1 by run-1"


def test_plan_page_omits_the_run_key_of_a_new_run() -> None:
    page = Document(
        PLAN_FORMATS["html"](
            [make_preview(PlannedJob(Job("a", "w", "p"), "submit", "new"), key="run:20261020T")], Style()
        )
    )
    assert "run key" not in page.facts


def test_status_page() -> None:
    jobs = (
        job_status(
            "a",
            status="completed",
            progress="100",
            cost=1200,
            created_at="2026-10-20T01:00:00Z",
            finished_at="2026-10-20T01:30:00Z",
        ),
        job_status("b", status="failed", cost=3, tasks=[{"name": "Analyze", "err_msg": "no imagery"}]),
        job_status("c", "HTTP 503", status="running", created_at="2026-10-20T01:10:00Z"),
    )
    page = Document(STATUS_FORMATS["html"]([status_report(*jobs, skipped=2)], Style()))
    assert page.find_texts(".//p[@class='headline']") == ["1 of 3 jobs completed, 1 failed, 1 unknown."]
    assert page.totals == {
        "failed": "1",
        "completed": "1",
        "unknown": "1",
        "cost": "1,203",
        "duration": "30 min 00 s / 2026-10-20 01:00:00 to 01:30:00 UTC",
        "not tracked": "2 / no known job",
    }
    assert page.facts == {"run": "run-1", "API": API, "last seen": "2026-10-20 02:00:00 UTC"}
    assert page.find_texts(".//figcaption/p") == [
        (
            "2026-10-20 01:00:00 to 02:00:00 UTC. A thin line is time in the queue, where known. "
            "1 job is not shown: creation time unknown."
        )
    ]
    assert page.find_texts(".//table[@class='timeline']/tbody/tr/td[2]") == [
        "30 min 00 s, completed",
        "50 min 00 s so far, unknown",
    ]
    assert [(row["job"], row["status"], row["message"]) for row in page.rows] == [
        ("a", "completed", ""),
        ("b", "failed", "Analyze: no imagery"),
        ("c", "unknown", "HTTP 503"),
    ]


# All pages

members = st.fixed_dictionaries(
    {},
    optional={
        "status": words,
        "progress": words,
        "time_taken": words,
        **dict.fromkeys(("created_at", "finished_at"), times.map(datetime.isoformat)),
        "tasks": st.lists(st.fixed_dictionaries({"name": words, "err_msg": words}), max_size=2),
    },
)
job_statuses = st.builds(
    JobStatus,
    *[words] * 4,
    bodies | members.map(lambda fields: json.dumps({**fields, "id": "j"}).encode()),
    st.none() | times,
)
status_reports = st.builds(StatusReport, words, words, words, st.lists(job_statuses, max_size=3).map(tuple))
planned_jobs = st.builds(
    PlannedJob,
    st.builds(Job, words, words, words, labels),
    st.sampled_from(["submit", "nothing", "look up"]),
    st.sampled_from(["new", "created", "in_doubt", "disabled"]),
    words,
    st.none() | words,
    st.none() | words,
    problem=words,
)
previews = st.builds(
    lambda jobs, key, unknown_costs: make_preview(
        *jobs, key=key, unknown_costs=unknown_costs, has_estimates=True, limit=1
    ),
    st.lists(planned_jobs, max_size=3),
    words,
    st.dictionaries(words, words, max_size=2),
)


def with_final_statuses(run_record: RunRecord) -> RunRecord:
    """The record, with the final status of each created job known."""

    def with_final_status(outcome: Outcome) -> Outcome:
        return replace(outcome, seen_at=SENT) if isinstance(outcome, Created) else outcome

    return replace(
        run_record, entries=[replace(entry, outcome=with_final_status(entry.outcome)) for entry in run_record.entries]
    )


page_texts = st.one_of(
    st.lists(records | records.map(with_final_statuses), max_size=2).map(
        lambda run_records: RUN_FORMATS["html"]([summarize(run_record) for run_record in run_records], Style())
    ),
    st.lists(previews, max_size=2).map(lambda reports: PLAN_FORMATS["html"](reports, Style())),
    st.lists(status_reports, max_size=2).map(lambda reports: STATUS_FORMATS["html"](reports, Style())),
)

ALLOWED_ELEMENTS = {
    "html",
    "head",
    "meta",
    "title",
    "link",
    "style",
    "script",
    "body",
    "header",
    "main",
    "footer",
    "section",
} | {
    *("a", "b", "button", "caption", "circle", "col", "colgroup", "dd", "defs", "details", "div", "dl", "dt"),
    *("figcaption", "figure", "g", "h1", "h2", "input", "label", "li", "nav", "ol", "p", "pattern", "rect", "small"),
    *("span", "summary", "svg", "table", "tbody", "td", "tfoot", "th", "thead", "time", "tr", "ul"),
}


@settings(max_examples=40)
@given(page_texts)
def test_text_from_outside_adds_no_elements_and_no_requests(text: str) -> None:
    page = Document(text)
    assert not page.errors
    assert {str(element.tag) for element in page.tree.iter()} <= ALLOWED_ELEMENTS
    assert len(page.find_all(".//script")) == 1
    attributes = [(str(name), value) for element in page.tree.iter() for name, value in element.attrib.items()]
    assert not [name for name, _ in attributes if name.startswith(("on", "style", "src", "action"))]
    urls = sorted(value.partition(",")[0] for name, value in attributes if name.endswith("href"))
    assert urls == ["#jobs", "data:image/svg+xml"]
    for style in page.find_texts(".//style"):
        assert "@import" not in style
        assert set(re.findall(r"url\((.*?)\)", style)) <= {"#hatched", "#dotted", "#striped", "#checked"}
    for line in text.split("\n"):
        assert not [
            character for character in line if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        ]
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line


@pytest.mark.parametrize(
    "text",
    [
        RUN_FORMATS["html"]([summarize(record(*FOUR_ENTRIES))], Style()),
        PLAN_FORMATS["html"]([make_preview()], Style()),
        STATUS_FORMATS["html"]([status_report()], Style()),
    ],
    ids=["run", "plan", "status"],
)
def test_content_security_policy_allows_only_the_own_script_and_styles(text: str) -> None:
    page = Document(text)
    [policy] = [element.attrib["content"] for element in page.find_all("./head/meta") if "http-equiv" in element.attrib]
    rules = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": " ".join(map(csp_hash, page.find_texts(".//style"))),
        "script-src": csp_hash(page.find_texts(".//script")[0]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_pages_are_deterministic() -> None:
    def text() -> str:
        final_job = final_entry("e", "2026-10-20T01:00:10Z", "2026-10-20T01:01:10Z")
        return RUN_FORMATS["html"]([summarize(record(*FOUR_ENTRIES, final_job))], Style())

    assert text() == text()
    assert not text().endswith("\n")


HOSTILE = "</script><script>alert(1)</script>\"'&\u202e\x00\x1b[31m"


def test_hostile_name_is_shown_as_text() -> None:
    page = run_page(entry(HOSTILE, not_created(message=HOSTILE)), manifest_name=HOSTILE, manifest_path=HOSTILE)
    shown = "</script><script>alert(1)</script>\"'&\\u202e\\x00\\x1b[31m"
    assert page.rows[0]["job"] == shown
    assert page.rows[0]["message"] == f"rejected: {shown}"
    assert page.find_texts("./body/header/h1") == [f"{shown} completed"]
    assert page.find_texts("./head/title")[0].startswith(shown)
    assert page.facts["manifest"] == shown
    assert not page.errors


def element_ids(page: Document) -> Sequence[str]:
    return [element.attrib["id"] for element in page.tree.iter() if "id" in element.attrib]


def test_page_is_accessible() -> None:
    page = run_page(*FOUR_ENTRIES, final_entry("e", "2026-10-20T01:00:10Z", "2026-10-20T01:01:10Z"))
    assert page.tree.attrib["lang"] == "en"
    assert len(element_ids(page)) == len(set(element_ids(page)))
    assert page.find_all("./body")[0][0].attrib == {"class": "skip", "href": "#jobs"}
    for table in page.find_all(".//table"):
        assert "".join(table[0].itertext()), "every table has a caption"
        assert table[0].tag == "caption"
    assert all("scope" in element.attrib for element in page.find_all(".//th"))
    images = [element for element in page.tree.iter() if element.tag == "svg"]
    assert all(element.attrib.get("aria-hidden") == "true" or element.attrib["aria-label"] for element in images)
    labeled_ids = {element.attrib["for"] for element in page.find_all(".//label")}
    assert {element.attrib["id"] for element in page.find_all(".//input")} == labeled_ids
    assert [element.attrib["role"] for element in page.find_all(".//p[@id='shown']")] == ["status"]


def test_job_in_doubt_shows_its_estimate() -> None:
    outcome: InDoubt = replace(in_doubt(), estimate=40)
    assert run_page(entry("a", outcome)).rows[0]["estimate"] == "40"
