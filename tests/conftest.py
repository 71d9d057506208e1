"""Shared fixtures, and a search for the API key in all output and files of every test."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import canary, certs

# Property tests try the same examples every time, regardless of the machine's load and of earlier failures. With
# `--hypothesis-profile random` or `--hypothesis-seed`, they try others.
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
    """Set a seed for random examples, before hypothesis and the workers read it."""
    if config.option.hypothesis_seed is not None:
        config.option.hypothesis_profile = config.option.hypothesis_profile or "random"
    elif config.option.hypothesis_profile == "random":
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed of random examples."""
    if config.option.hypothesis_seed is not None:
        terminalreporter.write_line(f"to repeat these examples: --hypothesis-seed {config.option.hypothesis_seed}")


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
    """No process gets a key in its arguments, git gets none in its environment, and nothing prints one."""
    with canary.watch_processes():
        yield


@pytest.fixture(autouse=True)
def no_file_has_the_key(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a file that contains a key."""
    directory: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if directory is not None:
        assert list(canary.find_leaks(directory)) == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that printed or logged a key in its own process."""
    report = yield
    if report.passed and (key := canary.find_key(f"{report.capstdout}{report.capstderr}{report.caplog}")):
        report.outcome = "failed"
        report.longrepr = f"the key {key} was printed or logged in the test's own process"
    return report
