"""The HTML reports as text: well-formed, self-contained, the same each time, and whatever names hold stays text."""

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
SKIPPED = Skipped("disabled", "enabled: false in the manifest")


class Document:
    """A report as a browser reads it."""

    def __init__(self, text: str) -> None:
        parser = HTMLParser(namespace_html_elements=False)
        self.text = text
        self.tree: Element = parser.parse(text)
        self.errors = parser.errors
        for one in self.tree.iter():
            one.tag = str(one.tag).rpartition("}")[2]  # without the namespace of what is drawn

    def all(self, path: str) -> list[Element]:
        return self.tree.findall(path)

    def said(self, path: str) -> list[str]:
        return ["".join(one.itertext()) for one in self.all(path)]

    @property
    def rows(self) -> list[dict[str, str]]:
        """The table of all jobs."""
        table = ".//table[@class='jobs']"
        titles = self.said(f"{table}/thead/tr/th")
        return [
            dict(zip(titles, ("".join(cell.itertext()) for cell in row), strict=True))
            for row in self.all(f"{table}/tbody/tr")
        ]

    @property
    def figures(self) -> dict[str, str]:
        """The totals, each with what is said of it."""
        return {
            "".join(one[0].itertext()): " / ".join("".join(part.itertext()) for part in one[1:])
            for one in self.all(".//dl[@class='totals']/div")
        }

    @property
    def facts(self) -> dict[str, str]:
        """What is said of the first run."""
        found = self.all(".//dl[@class='facts']")[0]
        return {"".join(one[0].itertext()): "".join(one[1].itertext()) for one in found}

    def figures_of(self, title: str) -> list[list[str]]:
        """The figures beside a chart, without their titles."""
        rows = self.all(f".//figure[h2='{title}']//tbody/tr") or self.all(".//figure//details//tbody/tr")
        return [["".join(cell.itertext()) for cell in row] for row in rows]


def of(*entries: Entry, **run: Any) -> Document:
    return Document(RUN_FORMATS["html"]([summarize(record(*entries, **run))], Style()))


def at(outcome: Any, seconds: float) -> Any:
    return replace(outcome, sent_at=SENT + timedelta(seconds=seconds))


def job_status(name: str, problem: str = "", **members: Any) -> JobStatus:
    body = json.dumps({"id": f"j-{name}", **members}).encode()
    return JobStatus(name, "w-1", "p-1", f"j-{name}", body, datetime(2026, 10, 20, 2, tzinfo=UTC), problem=problem)


def status_report(*jobs: JobStatus, **others: int) -> StatusReport:
    return StatusReport("run-1", "nightly", API, jobs, cast("dict[OutcomeName, int]", others))


def preview(*prospects: PlannedJob, key: str = "day:2026-10-20", **values: Any) -> Preview:
    manifest = Manifest("nightly", "nightly.yaml", "ab" * 32, tuple(one.job for one in prospects))
    return Preview(manifest, API, key, prospects, **values)


FOUR = (
    entry("a", replace(created("j-1", cost=1200), estimate=1300), team="agri"),
    entry("b", not_created(request_id="req-7")),
    entry("c", in_doubt(candidates=("j-8", "j-9"))),
    entry("d", SKIPPED),
)


# What a run's page says.


def test_totals_cost_and_duration() -> None:
    page = of(*FOUR)
    assert page.said("./body/header/h1") == ["nightly completed"]
    assert page.said(".//p[@class='headline']") == ["1 of 4 jobs created, 1 not created, 1 in doubt, 1 skipped."]
    assert page.figures == {
        "created": "1",
        "not created": "1",
        "in doubt": "1 / may or may not exist",
        "skipped": "1 / not sent",
        "cost": "1,200 / estimate 1,300",
        "duration": "2 min 00 s / 2026-10-20 01:00:00 to 01:02:00 UTC",
    }


def test_all_created() -> None:
    page = of(entry("a", created("j-1")), entry("b", created("j-2"), run_id="run-1"))
    assert page.said(".//p[@class='headline']") == ["All 2 jobs were created."]
    assert page.figures["created"] == "2 / 1 by an earlier run"


def test_which_run_it_was() -> None:
    assert of(*FOUR, git_commit="c0ffee").facts == {
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


def test_every_job_is_in_the_table() -> None:
    assert of(*FOUR).rows == [
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
                ("d", "skipped", "", "disabled: enabled: false in the manifest"),
            )
        ),
    ]


def test_remarks_stand_beside_the_outcome() -> None:
    unsure = replace(created("j-1", val_errors=[1, 2]), recovered=True, assigned=False)
    assert of(entry("a", unsure)).rows[0]["outcome"] == "created recovered, job id uncertain 2 validation errors"


def test_what_no_job_has_gets_no_column() -> None:
    assert list(of(entry("a", created("j-1"))).rows[0]) == [
        "job",
        "outcome",
        "job id",
        "sent (UTC)",
        "workflow",
        "project",
    ]


def test_very_many_jobs_are_all_there() -> None:
    text = RUN_FORMATS["html"](
        [summarize(record(*(entry(f"n{number}", created(f"j-{number}")) for number in range(3000))))], Style()
    )
    assert text.count("<tr data-group=") == 3000
    assert len(text) < 1_000_000


def test_reasons_are_counted_without_what_differs() -> None:
    page = of(
        *(entry(f"b{number}", not_created(request_id=f"req-{number}")) for number in range(3)),
        *(entry(f"c{number}", not_created("unreachable", f"reason {number}")) for number in range(12)),
    )
    table = ".//section[h2='Jobs not created, in doubt or skipped, by reason (10 of 13)']"
    assert page.said(f"{table}//tbody/tr[1]/td") == ["not created", "3", "rejected: no such workflow"]
    assert len(page.all(f"{table}//tbody/tr")) == 10


def test_projects_are_told_apart_where_there_are_several() -> None:
    other = Entry(Job("b", "w-1", "p-2"), created("j-2", cost=5), RUN.id)
    page = of(entry("a", created("j-1", cost=2)), other)
    assert page.said(".//section[h2='Projects']//tbody/tr[2]/td") == ["p-2", "1", "5"]
    assert not of(entry("a", created("j-1"))).all(".//section[h2='Projects']")


def test_several_manifests() -> None:
    later = summarize(
        record(entry("a", not_created()), manifest_name="coast", finished_at=RUN.finished_at + timedelta(hours=1))
    )
    page = Document(RUN_FORMATS["html"]([summarize(record(*FOUR)), later], Style()))
    assert page.said("./body/header/h1") == ["2 manifests"]
    assert [row["manifest"] for row in page.rows] == ["nightly"] * 4 + ["coast"]
    assert page.figures["not created"] == "2"
    assert page.figures["duration"].startswith("1 h 02 min")
    assert [text.split(": ")[0] for text in page.said(".//main/details/summary")] == ["nightly 4 jobs", "coast 1 job"]


def test_one_of_several_is_named_in_the_table() -> None:
    page = Document(RUN_FORMATS["html"]([summarize(record(*FOUR))], Style(several_manifests=True)))
    assert page.rows[0]["manifest"] == "nightly"


def test_a_record_without_jobs() -> None:
    page = of()
    assert page.said(".//p[@class='headline']") == ["There are no jobs."]
    assert not page.errors
    assert not page.all(".//figure")


def test_nothing_at_all() -> None:
    for text in (
        RUN_FORMATS["html"]([], Style()),
        PLAN_FORMATS["html"]([], Style()),
        STATUS_FORMATS["html"]([], Style()),
    ):
        page = Document(text)
        assert not page.errors
        assert page.rows == []


# Timelines.


def test_submissions_over_time() -> None:
    page = of(
        *(entry(f"a{number}", at(created(f"j-{number}"), number)) for number in range(3)),
        entry("b", at(not_created(), 2)),
        entry("c", SKIPPED),
    )
    assert page.said(".//figcaption/p") == ["One bar is 50 ms; the peak is 2. 1 job is not shown: not sent."]
    assert page.said(".//ul[@class='legend']/li") == ["not created 1", "created 3"]
    assert page.figures_of("Submissions over time") == [
        ["2026-10-20 01:00:03.100", "0", "1"],
        ["2026-10-20 01:00:04.100", "0", "1"],
        ["2026-10-20 01:00:05.100", "1", "1"],
    ]
    assert page.said(".//figure//g/title")[2] == "2026-10-20 01:00:05.100: 1 not created, 1 created"


@given(st.lists(st.tuples(times, st.integers(0, 2)), min_size=1, max_size=50))
def test_steps_are_few_and_hold_every_send(points: list[tuple[datetime, int]]) -> None:
    series = [Group(word, "good", 0) for word in "abc"]
    made = time_buckets.chart_events("t", points, series)
    assert made is not None
    assert len(made.counts) <= 60
    assert sum(map(sum, made.counts)) == len(points)
    assert [one.label for one in made.series] == [
        word for place, word in enumerate("abc") if place in {p for _, p in points}
    ]


def test_times_at_the_calendar_s_ends() -> None:
    ends = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    page = of(*(entry(f"a{place}", replace(created("j"), sent_at=time)) for place, time in enumerate(ends)))
    assert not page.errors
    assert [row["sent (UTC)"] for row in page.rows] == ["0001-01-01 00:00:00", "9999-12-31 23:59:59"]


def final(name: str, created_at: str, finished_at: str, **members: Any) -> Entry:
    members = {"status": "completed", "created_at": created_at, "finished_at": finished_at, **members}
    return entry(name, replace(created(f"j-{name}", **members), seen_at=SENT))


def test_jobs_that_were_found_final_have_a_timeline_and_a_status() -> None:
    tasks = [{"block_inf_start_time": "2026-10-20T01:00:40Z"}, {"block_inf_start_time": "2026-10-20T01:00:30Z"}]
    page = of(
        final("a", "2026-10-20T01:00:10Z", "2026-10-20T01:01:10Z", tasks=tasks),
        final("b", "2026-10-20T01:00:00Z", "2026-10-20T01:01:40Z", status="failed"),
        entry("c", created("j-c", status="pending", created_at="2026-10-20T01:00:00Z")),
    )
    assert [(row["status"], row["duration"]) for row in page.rows] == [
        ("completed", "1 min 00 s"),
        ("failed", "1 min 40 s"),
        ("", ""),
    ]
    assert page.said(".//ul[@class='notes']/li") == ["Final status at the API, where known: 1 failed, 1 completed."]
    lines = page.all(".//table[@class='timeline']/tbody/tr")
    assert ["".join(one.itertext()) for one in lines] == [
        "b2026-10-20 01:00:00 to 01:01:40 UTC1 min 40 s, failed",
        "a2026-10-20 01:00:10 to 01:01:10 UTC1 min 00 s, completed",
    ]
    waited, worked = sorted(lines[1].iter("rect"), key=lambda one: float(one.attrib["x"]))
    assert (waited.attrib["class"], waited.attrib["x"], waited.attrib["width"]) == ("wait", "100.0", "200.0")
    assert (worked.attrib["class"], worked.attrib["x"], worked.attrib["width"]) == ("good", "300.0", "400.0")


def test_work_began_with_the_first_task_and_a_time_that_is_not_set_is_none() -> None:
    tasks = ({"block_inf_start_time": time} for time in ("0001-01-01T00:00:00Z", "2026-10-20T01:00:40Z"))
    assert job_status("a", tasks=[*tasks, 7]).started_at == datetime(2026, 10, 20, 1, 0, 40, tzinfo=UTC)
    never = job_status("a", created_at="1970-01-01T00:00:00Z", finished_at="0001-01-01T00:00:00Z", tasks=7)
    assert (never.created_at, never.started_at, never.finished_at) == (None, None, None)


@pytest.mark.parametrize(("progress", "drawn"), [("0", ["wait"]), ("5", ["busy"]), (None, ["wait"])])
def test_a_job_that_has_not_begun_only_waits(progress: str | None, drawn: list[str]) -> None:
    job = job_status("a", status="running", progress=progress, created_at="2026-10-20T01:00:00Z")
    page = Document(STATUS_FORMATS["html"]([status_report(job)], Style()))
    assert [one.attrib["class"] for one in page.all(".//table[@class='timeline']//rect")] == drawn


def span(name: str, start: float, end: float, *, is_over: bool = True) -> TimelineBar:
    mark = Badge("completed" if is_over else "running", "good")
    return TimelineBar(name, mark, SENT + timedelta(seconds=start), None, SENT + timedelta(seconds=end), is_over)


SERIES = (Group("completed", "good", 0), Group("active", "busy", 0))


def test_many_jobs_are_counted_by_how_far_they_were() -> None:
    spans = [(span(f"{number}", number, number + 100), 0) for number in range(50)]
    made = time_buckets.chart_jobs("t", [*spans, (span("on", 10, 149, is_over=False), 1)], SERIES)
    assert isinstance(made, BarChart)
    assert made.cumulative
    assert made.counts[0] == (0, 2)
    assert made.counts[-1] == (50, 1)
    assert max(map(sum, made.counts)) == 51


def test_few_jobs_have_a_line_each_in_the_order_in_which_they_began() -> None:
    made = time_buckets.chart_jobs("t", [(span("b", 5, 6), 0), (span("a", 1, 9), 0)], SERIES)
    assert isinstance(made, Timeline)
    assert [one.name for one in made.bars] == ["a", "b"]


def test_a_job_that_ended_before_it_began_does_no_harm() -> None:
    page = of(final("a", "2026-10-20T01:01:00Z", "2026-10-20T01:00:00Z"))
    assert not page.errors
    assert page.rows[0]["duration"] == "0 ms"


@pytest.mark.parametrize(
    ("seconds", "said"),
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
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert format_duration(seconds) == said


# Plans and statuses.


def test_a_plan() -> None:
    job = Job("a", "w-1", "p-1", {"team": "agri"})
    page = Document(
        PLAN_FORMATS["html"](
            [
                preview(
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
    assert page.said(".//p[@class='headline']") == ["A run would submit 2 of 3 jobs."]
    assert page.figures == {
        "to submit": "2",
        "to look up": "0",
        "nothing to do": "1",
        "estimate": "1,200 / and 1 job of unknown cost",
        "problems": "1 / found by --check",
    }
    assert page.said(".//ul[@class='notes']/li") == [
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


def test_a_run_that_is_yet_to_be_named_is_not_named() -> None:
    page = Document(
        PLAN_FORMATS["html"]([preview(PlannedJob(Job("a", "w", "p"), "submit", "new"), key="run:20261020T")], Style())
    )
    assert "run key" not in page.facts


def test_statuses() -> None:
    jobs = (
        job_status(
            "a",
            status="completed",
            progress="100",
            cost=1200,
            created_at="2026-10-20T01:00:00Z",
            finished_at="2026-10-20T01:30:00Z",
        ),
        job_status("b", status="failed", cost=3, tasks=[{"name": "Analyse", "err_msg": "no imagery"}]),
        job_status("c", "HTTP 503", status="running", created_at="2026-10-20T01:10:00Z"),
    )
    page = Document(STATUS_FORMATS["html"]([status_report(*jobs, skipped=2)], Style()))
    assert page.said(".//p[@class='headline']") == ["1 of 3 jobs completed, 1 failed, 1 unknown."]
    assert page.figures == {
        "failed": "1",
        "completed": "1",
        "unknown": "1",
        "cost": "1,203",
        "duration": "30 min 00 s / 2026-10-20 01:00:00 to 01:30:00 UTC",
        "not tracked": "2 / no known job",
    }
    assert page.facts == {"run": "run-1", "API": API, "last seen": "2026-10-20 02:00:00 UTC"}
    assert page.said(".//figcaption/p") == [
        (
            "2026-10-20 01:00:00 to 02:00:00 UTC. A thin line is time in the queue, where known. "
            "1 job is not shown: creation time unknown."
        )
    ]
    assert page.said(".//table[@class='timeline']/tbody/tr/td[2]") == [
        "30 min 00 s, completed",
        "50 min 00 s so far, unknown",
    ]
    assert [(row["job"], row["status"], row["message"]) for row in page.rows] == [
        ("a", "completed", ""),
        ("b", "failed", "Analyse: no imagery"),
        ("c", "unknown", "HTTP 503"),
    ]


# What every page keeps to.

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
    bodies | members.map(lambda one: json.dumps({**one, "id": "j"}).encode()),
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
    lambda made, key, unpriced: preview(*made, key=key, unknown_costs=unpriced, has_estimates=True, limit=1),
    st.lists(planned_jobs, max_size=3),
    words,
    st.dictionaries(words, words, max_size=2),
)


def seen(made: RunRecord) -> RunRecord:
    """A record of which all jobs were found final."""

    def final(outcome: Outcome) -> Outcome:
        return replace(outcome, seen_at=SENT) if isinstance(outcome, Created) else outcome

    return replace(made, entries=[replace(one, outcome=final(one.outcome)) for one in made.entries])


texts = st.one_of(
    st.lists(records | records.map(seen), max_size=2).map(
        lambda made: RUN_FORMATS["html"]([summarize(one) for one in made], Style())
    ),
    st.lists(previews, max_size=2).map(lambda made: PLAN_FORMATS["html"](made, Style())),
    st.lists(status_reports, max_size=2).map(lambda made: STATUS_FORMATS["html"](made, Style())),
)

ALLOWED = {
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
@given(texts)
def test_whatever_names_hold_stays_text_and_asks_for_nothing(text: str) -> None:
    page = Document(text)
    assert not page.errors
    assert {str(one.tag) for one in page.tree.iter()} <= ALLOWED
    assert len(page.all(".//script")) == 1
    attributes = [(str(name), value) for one in page.tree.iter() for name, value in one.attrib.items()]
    assert not [name for name, _ in attributes if name.startswith(("on", "style", "src", "action"))]
    addresses = sorted(value.partition(",")[0] for name, value in attributes if name.endswith("href"))
    assert addresses == ["#jobs", "data:image/svg+xml"]
    for style in page.said(".//style"):
        assert "@import" not in style
        assert set(re.findall(r"url\((.*?)\)", style)) <= {"#hatched", "#dotted", "#striped", "#checked"}
    for line in text.split("\n"):
        assert not [char for char in line if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line


@pytest.mark.parametrize(
    "text",
    [
        RUN_FORMATS["html"]([summarize(record(*FOUR))], Style()),
        PLAN_FORMATS["html"]([preview()], Style()),
        STATUS_FORMATS["html"]([status_report()], Style()),
    ],
    ids=["run", "plan", "status"],
)
def test_nothing_but_its_own_script_and_styles_is_let_run(text: str) -> None:
    page = Document(text)
    [policy] = [one.attrib["content"] for one in page.all("./head/meta") if "http-equiv" in one.attrib]
    rules = dict(one.strip().split(" ", 1) for one in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": " ".join(map(hashed, page.said(".//style"))),
        "script-src": hashed(page.said(".//script")[0]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_same_makes_the_same() -> None:
    def text() -> str:
        ended = final("e", "2026-10-20T01:00:10Z", "2026-10-20T01:01:10Z")
        return RUN_FORMATS["html"]([summarize(record(*FOUR, ended))], Style())

    assert text() == text()
    assert not text().endswith("\n")


HOSTILE = "</script><script>alert(1)</script>\"'&\u202e\x00\x1b[31m"


def test_a_hostile_name_is_shown_as_it_is() -> None:
    page = of(entry(HOSTILE, not_created(message=HOSTILE)), manifest_name=HOSTILE, manifest_path=HOSTILE)
    shown = "</script><script>alert(1)</script>\"'&\\u202e\\x00\\x1b[31m"
    assert page.rows[0]["job"] == shown
    assert page.rows[0]["message"] == f"rejected: {shown}"
    assert page.said("./body/header/h1") == [f"{shown} completed"]
    assert page.said("./head/title")[0].startswith(shown)
    assert page.facts["manifest"] == shown
    assert not page.errors


def ids(page: Document) -> Sequence[str]:
    return [one.attrib["id"] for one in page.tree.iter() if "id" in one.attrib]


def test_what_a_screen_reader_needs() -> None:
    page = of(*FOUR, final("e", "2026-10-20T01:00:10Z", "2026-10-20T01:01:10Z"))
    assert page.tree.attrib["lang"] == "en"
    assert len(ids(page)) == len(set(ids(page)))
    assert page.all("./body")[0][0].attrib == {"class": "skip", "href": "#jobs"}
    for table in page.all(".//table"):
        assert "".join(table[0].itertext()), "every table has a caption"
        assert table[0].tag == "caption"
    assert all("scope" in one.attrib for one in page.all(".//th"))
    pictures = [one for one in page.tree.iter() if one.tag == "svg"]
    assert all(one.attrib.get("aria-hidden") == "true" or one.attrib["aria-label"] for one in pictures)
    named = {one.attrib["for"] for one in page.all(".//label")}
    assert {one.attrib["id"] for one in page.all(".//input")} == named
    assert [one.attrib["role"] for one in page.all(".//p[@id='shown']")] == ["status"]


def test_an_outcome_that_is_in_doubt_keeps_its_estimate() -> None:
    outcome: InDoubt = replace(in_doubt(), estimate=40)
    assert of(entry("a", outcome)).rows[0]["estimate"] == "40"
