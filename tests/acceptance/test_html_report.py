"""The HTML reports in a real Chromium: with a mouse, a keyboard, a phone, in the dark, without JavaScript, offline."""

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

# The least contrast of any text with what it stands on (WCAG), and the text.
CONTRAST = r"""
const rgb = (color) => color.match(/[\d.]+/g).map(Number);
const light = (color) => {
  const [r, g, b] = color.slice(0, 3).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const color = rgb(getComputedStyle(one).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color;
  }
  return [255, 255, 255];
};
const seen = [];
for (const one of document.querySelectorAll("body *:not(script):not(style)")) {
  const own = Array.from(one.childNodes).filter((node) => node.nodeType === 3);
  const text = own.map((node) => node.data).join("").trim();
  if (!text || !one.checkVisibility() || one.closest("svg, .visually-hidden")) continue;
  const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
  seen.push([(a + 0.05) / (b + 0.05), text]);
}
return seen.sort((x, y) => x[0] - y[0])[0];
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser.open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(window: Browser, tmp_path: Path) -> Callable[[str], Browser]:
    """Shows a report, in a window of an ordinary size and in the light."""

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


FIVE = run(
    entry("field-10", final("j-1", 90, cost=1200), team="agri"),
    entry("field-9", final("j-2", 7, "failed", cost=90), team="coast"),
    entry("field-2", not_created(message="no such workflow")),
    entry("soil", in_doubt()),
    entry("off", Skipped("disabled", "enabled: false in the manifest")),
)
PLAN = PLAN_FORMATS["html"](
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
STATUS = STATUS_FORMATS["html"](
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
LONG = run(*(entry("x" * 300, not_created(message="y" * 2000), key="z" * 300) for _ in range(2)))
PAGES = {"run": FIVE, "plan": PLAN, "status": STATUS, "long": LONG}


def names(window: Browser) -> list[str]:
    """The jobs that are listed, from top to bottom."""
    return list(window.run("return Array.from(document.querySelectorAll('.jobs tbody th'), (one) => one.textContent)"))


def click(window: Browser, buttons: str, words: str) -> None:
    """Click on the button that begins with these words, among some."""
    find = "Array.from(document.querySelectorAll(arguments[0])).find((one) => one.textContent.startsWith(arguments[1]))"
    window.run(f"{find}.click()", buttons, words)


def head(window: Browser, title: str) -> None:
    """Click on the title of a column."""
    click(window, ".jobs thead button", title)


def choose(window: Browser, word: str) -> None:
    """Click on the button of an outcome."""
    click(window, "button[data-group]", word)


def sorted_by(window: Browser) -> list[list[str]]:
    return list(
        window.run(
            "return Array.from(document.querySelectorAll('[aria-sort]'), (one) => [one.textContent, one.ariaSort])"
        )
    )


def search(window: Browser, words: str) -> None:
    window.run("document.getElementById('filter').select()")
    window.driver.find_element("id", "filter").send_keys(BACKSPACE, words)


def told(window: Browser) -> str:
    """How many rows are shown, as a screen reader is told."""
    return str(window.run("return document.querySelector('[role=status]').textContent"))


def focus(window: Browser) -> str:
    return str(window.run("return document.activeElement.textContent || document.activeElement.id"))


Show = Callable[[str], Browser]


# Sorting and filtering.


REST = ["field-2", "soil", "off"]  # what has no cost


@pytest.mark.parametrize(
    ("title", "up", "down"),
    [
        ("job", ["field-2", "field-9", "field-10", "off", "soil"], ["soil", "off", "field-10", "field-9", "field-2"]),
        (
            "outcome",
            ["field-2", "soil", "field-10", "field-9", "off"],
            ["off", "field-10", "field-9", "soil", "field-2"],
        ),
        ("cost", ["field-9", "field-10", *REST], ["field-10", "field-9", *REST]),
        ("duration", ["field-9", "field-10", *REST], ["field-10", "field-9", *REST]),
        (
            "message",
            ["off", "field-2", "soil", "field-10", "field-9"],
            ["soil", "field-2", "off", "field-10", "field-9"],
        ),
    ],
)
def test_a_title_sorts_up_then_down_then_as_in_the_manifest(
    page: Show, title: str, up: list[str], down: list[str]
) -> None:
    window = page(FIVE)
    before = names(window)
    head(window, title)
    assert (names(window), sorted_by(window)) == (up, [[title, "ascending"]])
    head(window, title)
    assert (names(window), sorted_by(window)) == (down, [[title, "descending"]])
    head(window, title)
    assert (names(window), sorted_by(window)) == (before, [])


def test_words_filter_wherever_they_stand_in_a_row(page: Show) -> None:
    window = page(FIVE)
    assert told(window) == "5 rows"
    search(window, "TEAM field")
    assert names(window) == ["field-10", "field-9"]
    assert told(window) == "2 of 5 rows"
    search(window, "nothing has this")
    assert (names(window), told(window)) == ([], "0 of 5 rows")
    search(window, "")
    assert told(window) == "5 rows"


def test_outcomes_filter_one_by_one_and_together(page: Show) -> None:
    window = page(FIVE)
    choose(window, "not created")
    assert names(window) == ["field-2"]
    choose(window, "in doubt")
    assert names(window) == ["field-2", "soil"]
    search(window, "soil")
    head(window, "job")
    assert (names(window), told(window)) == (["soil"], "1 of 5 rows")
    choose(window, "not created")
    choose(window, "in doubt")
    search(window, "")
    assert names(window) == ["field-2", "field-9", "field-10", "off", "soil"]  # the sort stays


# Very many.


def test_ten_thousand_jobs_are_turned_page_by_page(page: Show) -> None:
    fine = (entry(f"n{number}", created(f"j-{number}", cost=number)) for number in range(9_990))
    window = page(run(*fine, *(entry(f"bad-{number}", not_created()) for number in range(10))))
    turn = "document.querySelector(`[data-page=${arguments[0]}]`).click()"
    where = "return document.getElementById('page').textContent"
    assert (told(window), len(names(window))) == ("10,000 rows", 200)
    assert window.run(where) == "Page 1 of 50: rows 1 to 200"
    window.run(turn, "next")
    assert (names(window)[0], window.run(where)) == ("n200", "Page 2 of 50: rows 201 to 400")
    window.run(turn, "last")
    assert (names(window)[-1], window.run(where)) == ("bad-9", "Page 50 of 50: rows 9,801 to 10,000")
    window.run(turn, "next")
    assert window.run(where).startswith("Page 50 of 50")
    head(window, "cost")
    head(window, "cost")
    assert (names(window)[0], window.run(where)) == ("n9989", "Page 1 of 50: rows 1 to 200")
    search(window, "j-9989")
    assert (names(window), told(window)) == (["n9989"], "1 of 10,000 rows")
    assert not window.driver.find_element("class name", "pager").is_displayed()
    search(window, " ")
    choose(window, "not created")
    assert names(window) == [f"bad-{number}" for number in range(10)]


def test_all_that_the_filter_lets_through_is_printed(page: Show) -> None:
    window = page(run(*(entry(f"n{number}", created(f"j-{number}")) for number in range(300))))
    search(window, "n2")
    window.run("window.dispatchEvent(new Event('beforeprint'))")
    assert (len(names(window)), told(window)) == (111, "111 of 300 rows")
    search(window, "n")
    assert len(names(window)) == 300
    window.run("window.dispatchEvent(new Event('afterprint'))")
    assert len(names(window)) == 200


# With a keyboard.


def test_everything_is_reached_and_done_with_a_keyboard(page: Show) -> None:
    window = page(FIVE)
    window.press(TAB)
    assert focus(window) == "Skip to the table of jobs"
    assert window.run("return document.activeElement.getBoundingClientRect().top") >= 0
    window.press(ENTER, TAB, "f", "i", "e", "l", "d")
    assert (focus(window), names(window)) == ("filter", ["field-10", "field-9", "field-2"])
    window.press(TAB, SPACE)
    assert (focus(window), names(window)) == ("not created 1", ["field-2"])
    assert window.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    window.press(SPACE, TAB, TAB, TAB, TAB)
    assert window.run("return document.activeElement.getAttribute('role')") == "region"  # which the arrows scroll
    window.press(TAB, ENTER)
    assert (focus(window), names(window)) == ("job", ["field-2", "field-9", "field-10"])
    assert sorted_by(window) == [["job", "ascending"]]


def test_rows_stay_rows_for_a_screen_reader(page: Show) -> None:
    window = page(FIVE)
    for width in (1280, 360):
        window.resize(width)
        tree = window.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        kinds = [one["role"]["value"] for one in tree if not one["ignored"]]
        assert kinds.count("rowheader") >= 5
        assert kinds.count("columnheader") >= 10
        named = {(one["role"]["value"], one.get("name", {}).get("value")) for one in tree if not one["ignored"]}
        assert {("table", "Jobs"), ("region", "Jobs"), ("searchbox", "Filter"), ("button", "not created 1")} <= named


# Looks.


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_all_text_can_be_told_from_its_ground(page: Show, name: str, scheme: str) -> None:
    window = page(PAGES[name])
    window.emulate_media(scheme)
    contrast, text = window.run(CONTRAST)
    assert contrast >= 4.5, text
    ground = window.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 600) == (scheme == "light")


def test_paper_is_white(page: Show) -> None:
    window = page(FIVE)
    window.emulate_media("dark", "print")
    assert window.run("return getComputedStyle(document.querySelector('.card')).color") == "rgb(22, 27, 34)"
    assert not window.driver.find_element("id", "filter").is_displayed()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_scrolled_sideways(page: Show, name: str, width: int) -> None:
    window = page(PAGES[name])
    window.resize(width, 800)
    assert window.run("return document.documentElement.scrollWidth") <= width
    wide = "return Array.from(document.querySelectorAll('.jobs tbody tr'), (one) => one.getBoundingClientRect().right)"
    assert max(window.run(wide)) <= width or width > 736  # a wider one scrolls the table, in its own frame


def test_on_a_phone_a_cell_says_what_it_is_and_titles_still_sort(page: Show) -> None:
    window = page(FIVE)
    window.resize(360)
    said = "return getComputedStyle(document.querySelector('.jobs tbody td'), ':before').content"
    assert window.run(said) == '"outcome"'
    head(window, "job")
    assert names(window)[0] == "field-2"


# Alone in the world.


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_asked_for_and_nothing_complains(page: Show, name: str) -> None:
    window = page(PAGES[name])
    head(window, "job")
    said, asked = window.drain_logs()
    assert said == []
    assert [one.rpartition("/")[2] for one in asked if not one.startswith("data:image/svg+xml,")] == ["report.html"]


def test_what_is_in_a_name_is_never_run(page: Show) -> None:
    window = page(run(entry(HOSTILE, not_created(message=HOSTILE), **{HOSTILE: HOSTILE})))
    assert names(window) == [HOSTILE]
    head(window, "labels")
    search(window, "onerror")
    assert names(window) == [HOSTILE]
    assert window.driver.title.startswith("nightly")
    assert window.drain_logs()[0] == []


def test_a_script_that_is_not_the_page_s_own_is_stopped(page: Show) -> None:
    window = page(FIVE.replace("</main>", "<script>document.title = 'hacked'</script></main>"))
    assert window.driver.title.startswith("nightly")
    [said] = window.drain_logs()[0]
    assert "Content Security Policy" in said


def test_everything_is_there_without_javascript(page: Show) -> None:
    window = page(FIVE)
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
def test_axe_finds_nothing(page: Show, name: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_selenium_python", reason="axe-selenium-python is not installed (Python 3.12 on)")
    window = page(PAGES[name])
    window.resize(width)
    window.emulate_media(scheme)
    checker = axe.Axe(window.driver)
    checker.inject()
    found = checker.run()["violations"]
    assert found == [], checker.report(found)


# The real thing.


def test_the_page_s_commands_make_reports_of_a_real_plan_run_and_status(window: Browser, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.manifest(("a", "w-1", "p-1"), ("b", "w-2", "p-1"), path="jobs.yaml")
    verdicts = {
        "plan.html": "A run would submit 2 of 2 jobs.",
        "run.html": "All 2 jobs were created.",
        "status.html": "0 of 2 jobs completed, 2 active.",
        "show.html": "All 2 jobs were created.",
    }
    for arguments, (name, verdict) in zip(
        Page("docs/html-report.md").commands("make it"), verdicts.items(), strict=True
    ):
        done = shell(*arguments)
        assert done.code == 0, done.err
        window.open(tmp_path / name)
        assert window.driver.find_element("tag name", "h1").text.startswith("jobs")
        assert window.driver.find_element("class name", "headline").text == verdict
        assert names(window) == ["a", "b"]
        assert window.drain_logs()[0] == []
