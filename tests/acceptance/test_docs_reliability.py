"""docs/reliability.md and SECURITY.md name tests, modules and commands that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser

import pytest
from support.pages import CHECKOUT, Page

RELIABILITY = Page("docs/reliability.md")
PAGES = (RELIABILITY, Page("SECURITY.md"))
IDS = [page.path for page in PAGES]
_TICKED = re.compile(r"`([^`\s]+)`")


def named(page: Page) -> Iterator[tuple[str, str]]:
    """The tests that a page names, as (file, test): each is in the file that is named before it in its line."""
    for line in page.text.splitlines():
        file = ""
        for word in _TICKED.findall(line):
            if word.startswith("tests/") and word.endswith(".py"):
                file = word
                yield file, ""
            elif re.fullmatch(r"test_\w+", word):
                yield file, word


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_each_test_that_is_named_is_there(page: Page) -> None:
    found = set(named(page))
    assert len(found) > 20
    for file, test in found:
        assert (CHECKOUT / file).is_file(), file or f"no file before {test}"
        text = (CHECKOUT / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_each_row_of_a_promise_names_what_holds_it(page: Page) -> None:
    """But for those that lead to the other page."""
    text = page.text.partition("\n## Figures")[0].partition("\n## What is not")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    promises = [line for line in rows if not re.match(r"\| (promise|threat) \|", line)]
    assert len(promises) > 5
    for line in promises:
        assert "`tests/" in line or "reliability.md" in line, line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_each_module_and_page_that_is_named_is_there(page: Page) -> None:
    paths = [word for word in _TICKED.findall(page.text) if re.match(r"(runner|tests|requirements|docs)/", word)]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.text) if "://" not in link]
    folder = (CHECKOUT / page.path).parent
    for path in [CHECKOUT / path for path in paths] + [folder / link for link in links]:
        assert path.exists(), path


def test_each_command_with_figures_is_one_of_tox() -> None:
    tox = ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini")
    environments = {name.removeprefix("testenv:").partition("{")[0] for name in tox.sections()}
    for name in re.findall(r"tox -e ([\w-]+)", RELIABILITY.text):
        assert name in environments, name


def test_layout_of_the_design_lists_every_module() -> None:
    page = Page("docs/design.md")
    listed = set(re.findall(r"[a-z_]+", page.text.partition("```text\nrunner/")[2].partition("```")[0]))
    modules = {path.stem for path in (CHECKOUT / "runner").rglob("*.py") if not path.stem.startswith("_")}
    html = {path.stem for path in (CHECKOUT / "runner" / "reports" / "formats" / "html").glob("*.py")}
    assert modules - html <= listed
    for path in re.findall(r"`((?:runner|schemas)/[^`]+)`", page.text):
        assert (CHECKOUT / path).exists(), path
