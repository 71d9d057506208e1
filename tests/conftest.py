"""Fixtures that several test files share, and the search for the key in all that any test makes."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import canary, certs

# A property test tries the same examples each time, whatever the machine's load and whatever failed before. With
# `--hypothesis-profile random`, or a `--hypothesis-seed`, it tries others.
settings.register_profile(
    "same",
    derandomize=True,
    max_examples=20,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("random", settings.get_profile("same"), derandomize=False, max_examples=100)
settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have a seed wherever there is a random search, before hypothesis and the workers look for one."""
    if config.option.hypothesis_seed is not None:
        config.option.hypothesis_profile = config.option.hypothesis_profile or "random"
    elif config.option.hypothesis_profile == "random":
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which seed a random search had."""
    if config.option.hypothesis_seed is not None:
        terminalreporter.write_line(
            f"to try the same examples again: --hypothesis-seed {config.option.hypothesis_seed}"
        )


@pytest.fixture(scope="session", autouse=True)
def signals_are_not_ignored() -> Iterator[None]:
    """Programs that tests start would ignore what the tests ignore: SIGINT in the background, SIGHUP under nohup."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, lambda *_: None),
    }
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


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
