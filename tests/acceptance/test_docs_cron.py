"""docs/cron.md is accurate: run as cron runs it, the crontab prints nothing or one line."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.pages import CHECKOUT, Page
from support.schemas import check_results
from support.shell import KEY, CompletedCommand, environment_without_coverage, set_noon_timezone
from support.wire import Request, Reset, Script, Stall, WireServer, created, refusing_port, reply

PAGE = Page("docs/cron.md")
CRONTAB = CHECKOUT / "docs" / "cron" / "crontab"
DIRECTORY = "/srv/pixxel"
BARE = {"SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", "LOGNAME": "pixxel"}  # the whole environment that cron sets


@dataclass
class Installation:
    """The page's directory at another path, and its crontab with that path."""

    directory: Path
    extra: dict[str, str] = field(default_factory=dict)

    def relocate(self, text: str) -> str:
        return text.replace(DIRECTORY, str(self.directory))

    @property
    def crontab(self) -> list[str]:
        return [line for line in self.relocate(CRONTAB.read_text("utf-8")).splitlines() if line and line[0] != "#"]

    @property
    def variables(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.crontab if re.match(r"\w+=", line))

    @property
    def line(self) -> str:
        """The command of the only entry, as cron passes it to the shell."""
        [entry] = [line for line in self.crontab if not re.match(r"\w+=", line)]
        assert "%" not in entry, "cron turns it into a line break"
        return entry.split(maxsplit=5)[5]

    def run_shell(self, command: str, environment: dict[str, str], stdin: str = "") -> CompletedCommand:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=CHECKOUT,
            env={"HOME": str(self.directory)} | environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return CompletedCommand(done.returncode, done.stdout, done.stderr)

    def cron(self, *arguments: str) -> CompletedCommand:
        """Run the entry as cron does, with further arguments at the end."""
        return self.run_shell(" ".join([self.line, *arguments]), BARE | self.variables | self.extra)

    def set_base_url(self, base_url: str) -> None:
        self.extra["PIXXEL_BASE_URL"] = base_url


@pytest.fixture(scope="module")
def prepared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set up everything as the page says, except the program, which the tests have."""
    installation = Installation(tmp_path_factory.mktemp("cron") / "pixxel")
    program = installation.directory / "venv" / "bin" / "pixxel-runner"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m runner "$@"\n', encoding="ascii")
    program.chmod(0o755)
    done = installation.run_shell(
        f"set -e\n{installation.relocate(PAGE.block('set up'))}", environment_without_coverage(), f"{KEY}\n"
    )
    assert done.code == 0, done.err
    nightly = installation.directory / "nightly.yaml"
    nightly.write_text(set_noon_timezone(nightly.read_text("utf-8")), encoding="utf-8")
    assert (installation.directory / "api-key").stat().st_mode & 0o777 == 0o600
    return installation.directory


@pytest.fixture
def installation(prepared_directory: Path, tmp_path: Path) -> Installation:
    """The page's directory, as it is before the first run."""
    return Installation(shutil.copytree(prepared_directory, tmp_path / "pixxel"))


def test_page_shows_the_crontab() -> None:
    assert PAGE.block("crontab") in CRONTAB.read_text("utf-8")


def test_page_names_existing_files() -> None:
    for target in re.findall(r"\]\((cron/[\w./-]+)\)", PAGE.text):
        assert (CHECKOUT / "docs" / target).is_file()
    assert PAGE.block("start").split("#")[0].split() == ["crontab", str(CRONTAB.relative_to(CHECKOUT))]


def test_cron_accepts_the_crontab() -> None:
    program = shutil.which("crontab")
    if program is None:
        pytest.skip("crontab is not installed")
    for checks in (["-n"], ["-T"]):  # Debian's option, and cronie's
        done = subprocess.run([program, *checks, CRONTAB], capture_output=True, text=True, check=False, timeout=30)
        if not re.search("(invalid|illegal) option", done.stderr):
            assert done.returncode == 0, done.stderr
            return
    pytest.skip("this crontab cannot check a file")


def test_first_run_of_a_night_creates_jobs_and_later_ones_do_nothing_silently(installation: Installation) -> None:
    with WireServer(choose=job_of_workflow) as server:
        installation.set_base_url(server.url)
        for _ in range(3):
            assert installation.cron() == CompletedCommand(0, "", "")
        assert len(server.created) == len(server.requests) == 2
    assert check_results(installation.directory / "nightly.results.json")["summary"]["created"] == 2


def test_trial_command_on_the_page_matches_the_crontab(installation: Installation) -> None:
    """It has the same command and variables, and works in a shell that has more variables."""
    block = PAGE.block("as cron does")
    assert installation.line.replace(str(installation.directory), DIRECTORY) in block
    for name, value in installation.variables.items():
        assert name == "MAILTO" or f"{name}={value}" in installation.relocate(block)
    with WireServer(choose=job_of_workflow) as server:
        command = installation.relocate(block).replace("env -i ", f"env -i PIXXEL_BASE_URL={server.url} ")
        assert installation.run_shell(command, environment_without_coverage()) == CompletedCommand(0, "", "")
        assert len(server.created) == 2


def test_one_entry_runs_a_directory_of_manifests(installation: Installation) -> None:
    """One manifest succeeds and one fails. Only the failed one has a line."""
    text = (installation.directory / "nightly.yaml").read_text("utf-8")
    (installation.directory / "manifests").mkdir()
    (installation.directory / "manifests" / "nightly.yaml").write_text(text, encoding="utf-8")
    other = text.replace("name: nightly", "name: other").replace("workflow_id: ", "workflow_id: x")
    (installation.directory / "manifests" / "other.yaml").write_text(other, encoding="utf-8")
    command = installation.relocate(PAGE.block("several")).strip().split(maxsplit=5)[5]
    with WireServer(
        choose=lambda request: reply(404) if request.workflow[0] == "x" else job_of_workflow(request)
    ) as server:
        line = error_line(
            installation.run_shell(command, BARE | installation.variables | {"PIXXEL_BASE_URL": server.url}), code=1
        )
        assert line.startswith("other: ")
        assert len(server.created) == 2
    assert check_results(installation.directory / "nightly.results.json")["summary"]["created"] == 2


def test_failed_run_prints_one_line_and_the_next_recovers(installation: Installation) -> None:
    with WireServer(created("job-1"), reply(404), choose=job_of_workflow) as server:
        installation.set_base_url(server.url)
        assert error_line(installation.cron("--concurrency", "1"), code=1)
        assert installation.cron() == CompletedCommand(0, "", "")
        assert len(server.created) == 2


def job_of_workflow(request: Request) -> Script:
    return created(f"job-of-{request.workflow}")


def error_line(done: CompletedCommand, *, code: int) -> str:
    """Check that the only output is one line on stderr, and return it."""
    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.err.splitlines()) == 1, done.err
    return done.err


def without_job_list(script: Script) -> Callable[[Request], Script]:
    """An API that plays this script for each POST, and cannot list jobs."""
    return lambda request: script if request.method == "POST" else reply(500)


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        (reply(404), 1, "rejected"),
        (reply(403), 1, "forbidden"),
        (reply(401), 4, "key"),
        (reply(307, headers=[("Location", "http://127.0.0.1:9/")]), 4, "redirect"),
        (reply(429, headers=[("Retry-After", "86400")]), 4, "rate limited"),
        (reply(503), 3, "in doubt"),
        (Reset(), 3, "in doubt"),
    ],
    ids=["rejected", "forbidden", "unauthorized", "redirected", "throttled", "gateway", "reset"],
)
def test_api_errors_print_one_line(installation: Installation, script: Script, code: int, text: str) -> None:
    with WireServer(choose=without_job_list(script)) as server:
        installation.set_base_url(server.url)
        assert text in error_line(installation.cron("--hold"), code=code)


def test_failures_and_doubts_together_print_one_line(installation: Installation) -> None:
    """Two kinds of failure make one mail."""
    with WireServer(reply(404), reply(500)) as server:
        installation.set_base_url(server.url)
        line = error_line(installation.cron("--hold", "--concurrency", "1"), code=3)
    assert "in doubt" in line
    assert "rejected" in line


def test_unreachable_api_prints_one_line(installation: Installation) -> None:
    with refusing_port() as port:
        installation.set_base_url(f"http://127.0.0.1:{port}")
        assert "unreachable" in error_line(installation.cron("--attempts", "1"), code=1)
        assert "unreachable" in error_line(installation.cron("--attempts", "1", "--stop-after", "1"), code=4)


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [("ledger.db", 4, "ledger"), ("api-key", 4, "key"), ("nightly.yaml", 2, "nightly.yaml")],
)
def test_missing_file_prints_one_line(installation: Installation, name: str, code: int, text: str) -> None:
    (installation.directory / name).unlink()
    with WireServer(choose=job_of_workflow) as server:
        installation.set_base_url(server.url)
        assert text in error_line(installation.cron(), code=code)
        assert server.requests == []


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("ledger.db", "not a ledger" * 500, 4),
        ("nightly.yaml", "version: 1\njobs:\n  - {workflow_id: w, project: p}\n", 2),
        ("nightly.yaml", "version: 1\njobs:\n  - {workflow_id: 1, project_id: 2}\n", 2),
    ],
    ids=["ledger", "one problem", "two problems"],
)
def test_damaged_file_prints_one_line(installation: Installation, file: str, text: str, code: int) -> None:
    (installation.directory / file).write_text(text, encoding="ascii")
    with WireServer(choose=job_of_workflow) as server:
        installation.set_base_url(server.url)
        assert file in error_line(installation.cron(), code=code)
        assert server.requests == []


def test_run_in_progress_prints_one_line(installation: Installation) -> None:
    gate = threading.Event()
    with WireServer(choose=lambda request: Stall(gate, created(f"job-{request.workflow}"))) as server:
        installation.set_base_url(server.url)
        first: list[CompletedCommand] = []
        thread = threading.Thread(target=lambda: first.append(installation.cron()))
        thread.start()
        try:
            server.wait_for_requests(2)
            assert "locked" in error_line(installation.cron(), code=5)
        finally:
            gate.set()
            thread.join()
        assert first == [CompletedCommand(0, "", "")]
        assert len(server.created) == 2
