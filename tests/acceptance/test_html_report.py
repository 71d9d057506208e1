"""The HTML reports in Chromium: mouse, keyboard, narrow screens, dark mode, no JavaScript, offline."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support import browser
from support.browser import Browser
from support.pages import Page
from support.records import SENT, created, entry, in_doubt, not_created, record
from support.shell import Shell

from runner.core.models import Created, Entry, Job, Manifest, Skipped
from runner.planning.planned_jobs import PlannedJob, Preview
from runner.reports import PLAN_FORMATS, RUN_FORMATS, STATUS_FORMATS
from runner.reports.style import Style
from runner.reports.views.status import StatusReport
from runner.runs.job_status import JobStatus
from runner.runs.summary import summarize

pytestmark = pytest.mark.skipif(bool(browser.missing_reason()), reason=browser.missing_reason())

TAB, ENTER, SPACE, BACKSPACE = "\ue004", "\ue007", " ", "\ue003"
HOSTILE = "</script><script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'hacked'\">"

# The lowest contrast ratio (WCAG) of any text with its background, and that text.
CONTRAST = r"""
const rgb = (color) => color.match(/[\d.]+/g).map(Number);
const luminance = (color) => {
  const [r, g, b] = color.slice(0, 3).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
  for (let node = element; node; node = node.parentElement) {
    const color = rgb(getComputedStyle(node).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color;
  }
  return [255, 255, 255];
};
const ratios = [];
for (const element of document.querySelectorAll("body *:not(script):not(style)")) {
  const own = Array.from(element.childNodes).filter((node) => node.nodeType === 3);
  const text = own.map((node) => node.data).join("").trim();
  if (!text || !element.checkVisibility() || element.closest("svg, .visually-hidden")) continue;
  const [a, b] = [rgb(getComputedStyle(element).color), background(element)].map(luminance).sort((x, y) => y - x);
  ratios.push([(a + 0.05) / (b + 0.05), text]);
}
return ratios.sort((x, y) => x[0] - y[0])[0];
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser.open_browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture
def show_report(window: Browser, tmp_path: Path) -> Callable[[str], Browser]:
    """A function that shows a report in a wide window, in light mode."""

    def show(text: str) -> Browser:
        path = tmp_path / "report.html"
        path.write_text(text + "\n", encoding="utf-8")
        window.resize(1280)
        window.emulate_media("light")
        window.open(path)
        return window

    return show


def run(*entries: Entry) -> str:
    return RUN_FORMATS["html"]([summarize(record(*entries))], Style())


def final(job_id: str, seconds: float, status: str = "completed", cost: int = 40) -> Created:
    start = datetime(2026, 10, 20, 1, tzinfo=UTC)
    times = {"created_at": start.isoformat(), "finished_at": (start + timedelta(seconds=seconds)).isoformat()}
    return replace(created(job_id, status=status, cost=cost, **times), seen_at=SENT)


FIVE_JOBS = run(
    entry("field-10", final("j-1", 90, cost=1200), team="agri"),
    entry("field-9", final("j-2", 7, "failed", cost=90), team="coast"),
    entry("field-2", not_created(message="no such workflow")),
    entry("soil", in_doubt()),
    entry("off", Skipped("disabled", "disabled in the manifest")),
)
PLAN_REPORT = PLAN_FORMATS["html"](
    [
        Preview(
            Manifest("nightly", "nightly.yaml", "ab" * 32, ()),
            "sandbox",
            "day:2026-10-20",
            (
                PlannedJob(Job("a", "w" * 200, "p-1"), "submit", "new", estimate=40),
                PlannedJob(Job("b", "w-1", "p-1"), "look up", "in_doubt", "no answer " * 20),
                PlannedJob(Job("c", "w-1", "p-1"), "nothing", "created", "", "run-1", "j-1"),
            ),
        )
    ],
    Style(),
)
STATUS_REPORT = STATUS_FORMATS["html"](
    [
        StatusReport(
            "run-1",
            "nightly",
            "sandbox",
            [
                JobStatus(f"field-{place}", "w", "p", f"j-{place}", json.dumps(body).encode(), SENT)
                for place, body in enumerate(
                    {"id": f"j-{place}", "status": status, "created_at": "2026-10-20T01:00:00Z"}
                    for place, status in enumerate(["running", "completed", "failed", "cancelled", "weird"] * 10)
                )
            ],
        )
    ],
    Style(),
)
LONG_TEXT = run(*(entry("x" * 300, not_created(message="y" * 2000), key="z" * 300) for _ in range(2)))
REPORTS = {"run": FIVE_JOBS, "plan": PLAN_REPORT, "status": STATUS_REPORT, "long": LONG_TEXT}


def job_names(window: Browser) -> list[str]:
    """The names of the jobs listed, from top to bottom."""
    return list(window.run("return Array.from(document.querySelectorAll('.jobs tbody th'), (one) => one.textContent)"))


def click(window: Browser, selector: str, text: str) -> None:
    """Click the button that starts with a text, among those that match a CSS selector."""
    expression = (
        "Array.from(document.querySelectorAll(arguments[0])).find((one) => one.textContent.startsWith(arguments[1]))"
    )
    window.run(f"{expression}.click()", selector, text)


def click_column_header(window: Browser, title: str) -> None:
    """Click the header of a column."""
    click(window, ".jobs thead button", title)


def click_outcome_filter(window: Browser, outcome: str) -> None:
    """Click the filter button of an outcome."""
    click(window, "button[data-group]", outcome)


def sort_state(window: Browser) -> list[list[str]]:
    return list(
        window.run(
            "return Array.from(document.querySelectorAll('[aria-sort]'), (one) => [one.textContent, one.ariaSort])"
        )
    )


def search(window: Browser, text: str) -> None:
    window.run("document.getElementById('filter').select()")
    window.driver.find_element("id", "filter").send_keys(BACKSPACE, text)


def row_count(window: Browser) -> str:
    """The number of rows shown, as announced to screen readers."""
    return str(window.run("return document.querySelector('[role=status]').textContent"))


def focused_text(window: Browser) -> str:
    return str(window.run("return document.activeElement.textContent || document.activeElement.id"))


ShowReport = Callable[[str], Browser]


# Sorting and filtering


WITHOUT_COST = ["field-2", "soil", "off"]


@pytest.mark.parametrize(
    ("title", "ascending", "descending"),
    [
        ("job", ["field-2", "field-9", "field-10", "off", "soil"], ["soil", "off", "field-10", "field-9", "field-2"]),
        (
            "outcome",
            ["field-2", "soil", "field-10", "field-9", "off"],
            ["off", "field-10", "field-9", "soil", "field-2"],
        ),
        ("cost", ["field-9", "field-10", *WITHOUT_COST], ["field-10", "field-9", *WITHOUT_COST]),
        ("duration", ["field-9", "field-10", *WITHOUT_COST], ["field-10", "field-9", *WITHOUT_COST]),
        (
            "message",
            ["off", "field-2", "soil", "field-10", "field-9"],
            ["soil", "field-2", "off", "field-10", "field-9"],
        ),
    ],
)
def test_column_header_sorts_ascending_then_descending_then_by_manifest_order(
    show_report: ShowReport, title: str, ascending: list[str], descending: list[str]
) -> None:
    window = show_report(FIVE_JOBS)
    initial_order = job_names(window)
    click_column_header(window, title)
    assert (job_names(window), sort_state(window)) == (ascending, [[title, "ascending"]])
    click_column_header(window, title)
    assert (job_names(window), sort_state(window)) == (descending, [[title, "descending"]])
    click_column_header(window, title)
    assert (job_names(window), sort_state(window)) == (initial_order, [])


def test_filter_matches_words_anywhere_in_a_row(show_report: ShowReport) -> None:
    window = show_report(FIVE_JOBS)
    assert row_count(window) == "5 rows"
    search(window, "TEAM field")
    assert job_names(window) == ["field-10", "field-9"]
    assert row_count(window) == "2 of 5 rows"
    search(window, "nothing has this")
    assert (job_names(window), row_count(window)) == ([], "0 of 5 rows")
    search(window, "")
    assert row_count(window) == "5 rows"


def test_outcome_filters_combine(show_report: ShowReport) -> None:
    window = show_report(FIVE_JOBS)
    click_outcome_filter(window, "not created")
    assert job_names(window) == ["field-2"]
    click_outcome_filter(window, "in doubt")
    assert job_names(window) == ["field-2", "soil"]
    search(window, "soil")
    click_column_header(window, "job")
    assert (job_names(window), row_count(window)) == (["soil"], "1 of 5 rows")
    click_outcome_filter(window, "not created")
    click_outcome_filter(window, "in doubt")
    search(window, "")
    assert job_names(window) == ["field-2", "field-9", "field-10", "off", "soil"]  # the sort stays


# Pagination


def test_ten_thousand_jobs_are_paginated(show_report: ShowReport) -> None:
    created_entries = (entry(f"n{number}", created(f"j-{number}", cost=number)) for number in range(9_990))
    window = show_report(run(*created_entries, *(entry(f"bad-{number}", not_created()) for number in range(10))))
    click_page_button = "document.querySelector(`[data-page=${arguments[0]}]`).click()"
    page_text = "return document.getElementById('page').textContent"
    assert (row_count(window), len(job_names(window))) == ("10,000 rows", 200)
    assert window.run(page_text) == "Page 1 of 50: rows 1 to 200"
    window.run(click_page_button, "next")
    assert (job_names(window)[0], window.run(page_text)) == ("n200", "Page 2 of 50: rows 201 to 400")
    window.run(click_page_button, "last")
    assert (job_names(window)[-1], window.run(page_text)) == (
        "bad-9",
        "Page 50 of 50: rows 9,801 to 10,000",
    )
    window.run(click_page_button, "next")
    assert window.run(page_text).startswith("Page 50 of 50")
    click_column_header(window, "cost")
    click_column_header(window, "cost")
    assert (job_names(window)[0], window.run(page_text)) == ("n9989", "Page 1 of 50: rows 1 to 200")
    search(window, "j-9989")
    assert (job_names(window), row_count(window)) == (["n9989"], "1 of 10,000 rows")
    assert not window.driver.find_element("class name", "pager").is_displayed()
    search(window, " ")
    click_outcome_filter(window, "not created")
    assert job_names(window) == [f"bad-{number}" for number in range(10)]


def test_all_filtered_rows_are_printed(show_report: ShowReport) -> None:
    window = show_report(run(*(entry(f"n{number}", created(f"j-{number}")) for number in range(300))))
    search(window, "n2")
    window.run("window.dispatchEvent(new Event('beforeprint'))")
    assert (len(job_names(window)), row_count(window)) == (111, "111 of 300 rows")
    search(window, "n")
    assert len(job_names(window)) == 300
    window.run("window.dispatchEvent(new Event('afterprint'))")
    assert len(job_names(window)) == 200


# Accessibility


def test_report_works_with_a_keyboard(show_report: ShowReport) -> None:
    window = show_report(FIVE_JOBS)
    window.press(TAB)
    assert focused_text(window) == "Skip to the table of jobs"
    assert window.run("return document.activeElement.getBoundingClientRect().top") >= 0
    window.press(ENTER, TAB, "f", "i", "e", "l", "d")
    assert (focused_text(window), job_names(window)) == ("filter", ["field-10", "field-9", "field-2"])
    window.press(TAB, SPACE)
    assert (focused_text(window), job_names(window)) == ("not created 1", ["field-2"])
    assert window.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    window.press(SPACE, TAB, TAB, TAB, TAB)
    assert window.run("return document.activeElement.getAttribute('role')") == "region"  # scrolled with the arrow keys
    window.press(TAB, ENTER)
    assert (focused_text(window), job_names(window)) == ("job", ["field-2", "field-9", "field-10"])
    assert sort_state(window) == [["job", "ascending"]]


def test_table_keeps_its_semantics_at_any_width(show_report: ShowReport) -> None:
    window = show_report(FIVE_JOBS)
    for width in (1280, 360):
        window.resize(width)
        tree = window.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = [node["role"]["value"] for node in tree if not node["ignored"]]
        assert roles.count("rowheader") >= 5
        assert roles.count("columnheader") >= 10
        roles_and_names = {
            (node["role"]["value"], node.get("name", {}).get("value")) for node in tree if not node["ignored"]
        }
        assert {
            ("table", "Jobs"),
            ("region", "Jobs"),
            ("searchbox", "Filter"),
            ("button", "not created 1"),
        } <= roles_and_names


# Appearance


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", REPORTS)
def test_all_text_has_sufficient_contrast(show_report: ShowReport, name: str, scheme: str) -> None:
    window = show_report(REPORTS[name])
    window.emulate_media(scheme)
    contrast, text = window.run(CONTRAST)
    assert contrast >= 4.5, text
    background = window.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) > 600) == (scheme == "light")


def test_printed_report_is_light(show_report: ShowReport) -> None:
    window = show_report(FIVE_JOBS)
    window.emulate_media("dark", "print")
    assert window.run("return getComputedStyle(document.querySelector('.card')).color") == "rgb(22, 27, 34)"
    assert not window.driver.find_element("id", "filter").is_displayed()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("name", REPORTS)
def test_page_never_scrolls_horizontally(show_report: ShowReport, name: str, width: int) -> None:
    window = show_report(REPORTS[name])
    window.resize(width, 800)
    assert window.run("return document.documentElement.scrollWidth") <= width
    right_edges = (
        "return Array.from(document.querySelectorAll('.jobs tbody tr'), (one) => one.getBoundingClientRect().right)"
    )
    assert max(window.run(right_edges)) <= width or width > 736  # wider windows scroll the table in its own frame


def test_narrow_layout_labels_cells_and_keeps_sorting(show_report: ShowReport) -> None:
    window = show_report(FIVE_JOBS)
    window.resize(360)
    label = "return getComputedStyle(document.querySelector('.jobs tbody td'), ':before').content"
    assert window.run(label) == '"outcome"'
    click_column_header(window, "job")
    assert job_names(window)[0] == "field-2"


# Isolation


@pytest.mark.parametrize("name", REPORTS)
def test_report_makes_no_requests_and_logs_no_errors(show_report: ShowReport, name: str) -> None:
    window = show_report(REPORTS[name])
    click_column_header(window, "job")
    messages, urls = window.drain_logs()
    assert messages == []
    assert [url.rpartition("/")[2] for url in urls if not url.startswith("data:image/svg+xml,")] == ["report.html"]


def test_markup_in_a_name_is_not_executed(show_report: ShowReport) -> None:
    window = show_report(run(entry(HOSTILE, not_created(message=HOSTILE), **{HOSTILE: HOSTILE})))
    assert job_names(window) == [HOSTILE]
    click_column_header(window, "labels")
    search(window, "onerror")
    assert job_names(window) == [HOSTILE]
    assert window.driver.title.startswith("nightly")
    assert window.drain_logs()[0] == []


def test_injected_script_is_blocked(show_report: ShowReport) -> None:
    window = show_report(FIVE_JOBS.replace("</main>", "<script>document.title = 'hacked'</script></main>"))
    assert window.driver.title.startswith("nightly")
    [message] = window.drain_logs()[0]
    assert "Content Security Policy" in message


def test_report_is_complete_without_javascript(show_report: ShowReport) -> None:
    window = show_report(FIVE_JOBS)
    window.set_scripts(allowed=False)
    try:
        window.driver.refresh()
        rows = window.driver.find_elements("css selector", ".jobs tbody tr")
        assert [row.is_displayed() for row in rows] == [True] * 5
        assert "no such workflow" in rows[2].text
        assert not window.driver.find_element("id", "filter").is_displayed()
        assert window.driver.find_elements("css selector", ".jobs thead button") == []
    finally:
        window.set_scripts(allowed=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", ["run", "plan", "status"])
def test_axe_finds_no_violations(show_report: ShowReport, name: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_selenium_python", reason="axe-selenium-python is not installed (Python 3.12 on)")
    window = show_report(REPORTS[name])
    window.resize(width)
    window.emulate_media(scheme)
    checker = axe.Axe(window.driver)
    checker.inject()
    violations = checker.run()["violations"]
    assert violations == [], checker.report(violations)


# Reports of real commands


def test_documented_commands_create_reports(window: Browser, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.manifest(("a", "w-1", "p-1"), ("b", "w-2", "p-1"), path="jobs.yaml")
    headlines = {
        "plan.html": "A run would submit 2 of 2 jobs.",
        "run.html": "All 2 jobs were created.",
        "status.html": "0 of 2 jobs completed, 2 active.",
        "show.html": "All 2 jobs were created.",
    }
    for arguments, (name, headline) in zip(
        Page("docs/html-report.md").commands("make it"), headlines.items(), strict=True
    ):
        completed = shell(*arguments)
        assert completed.code == 0, completed.err
        window.open(tmp_path / name)
        assert window.driver.find_element("tag name", "h1").text.startswith("jobs")
        assert window.driver.find_element("class name", "headline").text == headline
        assert job_names(window) == ["a", "b"]
        assert window.drain_logs()[0] == []
