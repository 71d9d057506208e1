"""Fixtures that several test files share, and the search for the key in all that any test makes."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support import canary, certs

# How many examples a property test tries that does not say so itself: CI has a time limit, a person has not.
if examples := os.environ.get("PIXXEL_TEST_EXAMPLES"):
    settings.register_profile("ci", settings.default, max_examples=int(examples))
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> certs.Certificates:
    return certs.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session", autouse=True)
def no_process_has_the_key() -> Iterator[None]:
    """No process is told a key by its arguments, no git by its environment, and none prints one."""
    with canary.watched():
        yield


@pytest.fixture(autouse=True)
def no_file_has_the_key(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a file that holds a key."""
    folder: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None:
        assert list(canary.leaks(folder)) == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test in whose process a key was printed or logged."""
    report = yield
    if report.passed and (key := canary.found(f"{report.capstdout}{report.capstderr}{report.caplog}")):
        report.outcome = "failed"
        report.longrepr = f"the key {key} was printed or logged in the test's own process"
    return report
