"""docs/reliability.md and SECURITY.md cite tests, modules and commands that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser

import pytest
from support.pages import CHECKOUT, Page

RELIABILITY = Page("docs/reliability.md")
PAGES = (RELIABILITY, Page("SECURITY.md"))
IDS = [page.path for page in PAGES]
_CODE_SPAN = re.compile(r"`([^`\s]+)`")


def cited_tests(page: Page) -> Iterator[tuple[str, str]]:
    """The tests that a page cites, as (file, test). A test is in the file cited before it on the same line."""
    for line in page.text.splitlines():
        file = ""
        for word in _CODE_SPAN.findall(line):
            if word.startswith("tests/") and word.endswith(".py"):
                file = word
                yield file, ""
            elif re.fullmatch(r"test_\w+", word):
                yield file, word


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_cited_tests_exist(page: Page) -> None:
    citations = set(cited_tests(page))
    assert len(citations) > 20
    for file, test in citations:
        assert (CHECKOUT / file).is_file(), file or f"no file before {test}"
        text = (CHECKOUT / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_promise_cites_a_test(page: Page) -> None:
    """Except rows that link to the other page."""
    text = page.text.partition("\n## Figures")[0].partition("\n## What is not")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    promises = [line for line in rows if not re.match(r"\| (promise|threat) \|", line)]
    assert len(promises) > 5
    for line in promises:
        assert "`tests/" in line or "reliability.md" in line, line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_cited_paths_exist(page: Page) -> None:
    paths = [word for word in _CODE_SPAN.findall(page.text) if re.match(r"(runner|tests|requirements|docs)/", word)]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.text) if "://" not in link]
    directory = (CHECKOUT / page.path).parent
    for path in [CHECKOUT / path for path in paths] + [directory / link for link in links]:
        assert path.exists(), path


def test_cited_tox_environments_exist() -> None:
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
