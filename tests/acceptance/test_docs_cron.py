"""docs/cron.md is true: its crontab is run as cron runs it, and says nothing or one line."""

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
from support.shell import KEY, Done, at_noon, unwatched
from support.wire import Request, Reset, Script, Stall, WireServer, created, refusing_port, reply

PAGE = Page("docs/cron.md")
CRONTAB = CHECKOUT / "docs" / "cron" / "crontab"
PLACE = "/srv/pixxel"
BARE = {"SHELL": "/bin/sh", "PATH": "/usr/bin:/bin", "LOGNAME": "pixxel"}  # all that cron gives to what it starts


@dataclass
class Night:
    """The page's folder, somewhere else, and its crontab with that folder in it."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict)

    def put(self, text: str) -> str:
        return text.replace(PLACE, str(self.folder))

    @property
    def crontab(self) -> list[str]:
        return [line for line in self.put(CRONTAB.read_text("utf-8")).splitlines() if line and line[0] != "#"]

    @property
    def variables(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.crontab if re.match(r"\w+=", line))

    @property
    def line(self) -> str:
        """The command of the only entry, as cron hands it to the shell."""
        [entry] = [line for line in self.crontab if not re.match(r"\w+=", line)]
        assert "%" not in entry, "cron makes a line break of it"
        return entry.split(maxsplit=5)[5]

    def sh(self, command: str, environment: dict[str, str], words: str = "") -> Done:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=CHECKOUT,
            env={"HOME": str(self.folder)} | environment,
            input=words,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def cron(self, *more: str) -> Done:
        """What cron does at an hour of the night; `more` goes to the end of the line."""
        return self.sh(" ".join([self.line, *more]), BARE | self.variables | self.more)

    def at(self, base_url: str) -> None:
        self.more["PIXXEL_BASE_URL"] = base_url


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the page says to set up, but for the installation: the tests have one."""
    night = Night(tmp_path_factory.mktemp("cron") / "pixxel")
    program = night.folder / "venv" / "bin" / "pixxel-runner"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m runner "$@"\n', encoding="ascii")
    program.chmod(0o755)
    done = night.sh(f"set -e\n{night.put(PAGE.block('set up'))}", unwatched(), f"{KEY}\n")
    assert done.code == 0, done.err
    nightly = night.folder / "nightly.yaml"
    nightly.write_text(at_noon(nightly.read_text("utf-8")), encoding="utf-8")
    assert (night.folder / "api-key").stat().st_mode & 0o777 == 0o600
    return night.folder


@pytest.fixture
def night(place: Path, tmp_path: Path) -> Night:
    """The page's folder, as it is before the first night."""
    return Night(shutil.copytree(place, tmp_path / "pixxel"))


def test_the_page_shows_the_crontab() -> None:
    assert PAGE.block("crontab") in CRONTAB.read_text("utf-8")


def test_the_page_names_files_that_are_there() -> None:
    for target in re.findall(r"\]\((cron/[\w./-]+)\)", PAGE.text):
        assert (CHECKOUT / "docs" / target).is_file()
    assert PAGE.block("start").split("#")[0].split() == ["crontab", str(CRONTAB.relative_to(CHECKOUT))]


def test_cron_takes_the_crontab() -> None:
    program = shutil.which("crontab")
    if program is None:
        pytest.skip("there is no crontab here")
    for checks in (["-n"], ["-T"]):  # Debian's word for it, and cronie's
        done = subprocess.run([program, *checks, CRONTAB], capture_output=True, text=True, check=False, timeout=30)
        if not re.search("(invalid|illegal) option", done.stderr):
            assert done.returncode == 0, done.stderr
            return
    pytest.skip("this crontab cannot check a file")


def test_the_first_run_of_a_night_buys_and_the_next_do_nothing_and_all_are_silent(night: Night) -> None:
    with WireServer(choose=job_of_workflow) as server:
        night.at(server.url)
        for _ in range(3):
            assert night.cron() == Done(0, "", "")
        assert len(server.created) == len(server.requests) == 2
    assert check_results(night.folder / "nightly.results.json")["summary"]["created"] == 2


def test_the_rehearsal_is_what_cron_does(night: Night) -> None:
    """Its command, its variables; and it works from a shell that has more."""
    shown = PAGE.block("as cron does")
    assert night.line.replace(str(night.folder), PLACE) in shown
    for name, value in night.variables.items():
        assert name == "MAILTO" or f"{name}={value}" in night.put(shown)
    with WireServer(choose=job_of_workflow) as server:
        command = night.put(shown).replace("env -i ", f"env -i PIXXEL_BASE_URL={server.url} ")
        assert night.sh(command, unwatched()) == Done(0, "", "")
        assert len(server.created) == 2


def test_a_folder_of_manifests_is_run_by_one_line(night: Night) -> None:
    """One that is well, and one that is not: there is a line for that one alone."""
    good = (night.folder / "nightly.yaml").read_text("utf-8")
    (night.folder / "manifests").mkdir()
    (night.folder / "manifests" / "nightly.yaml").write_text(good, encoding="utf-8")
    other = good.replace("name: nightly", "name: other").replace("workflow_id: ", "workflow_id: x")
    (night.folder / "manifests" / "other.yaml").write_text(other, encoding="utf-8")
    command = night.put(PAGE.block("several")).strip().split(maxsplit=5)[5]
    with WireServer(
        choose=lambda request: reply(404) if request.workflow[0] == "x" else job_of_workflow(request)
    ) as server:
        told = one_line(night.sh(command, BARE | night.variables | {"PIXXEL_BASE_URL": server.url}), code=1)
        assert told.startswith("other: ")
        assert len(server.created) == 2
    assert check_results(night.folder / "nightly.results.json")["summary"]["created"] == 2


def test_an_hour_that_failed_is_told_in_a_line_and_the_next_mends_it(night: Night) -> None:
    with WireServer(created("job-1"), reply(404), choose=job_of_workflow) as server:
        night.at(server.url)
        assert one_line(night.cron("--concurrency", "1"), code=1)
        assert night.cron() == Done(0, "", "")
        assert len(server.created) == 2


def job_of_workflow(request: Request) -> Script:
    return created(f"job-of-{request.workflow}")


def one_line(done: Done, *, code: int) -> str:
    """The line of a failure: on stderr, and all that there is."""
    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.err.splitlines()) == 1, done.err
    return done.err


def lists_nothing(script: Script) -> Callable[[Request], Script]:
    """What answers each POST so, and cannot list jobs."""
    return lambda request: script if request.method == "POST" else reply(500)


@pytest.mark.parametrize(
    ("script", "code", "word"),
    [
        (reply(404), 1, "rejected"),
        (reply(403), 1, "forbidden"),
        (reply(401), 4, "key"),
        (reply(307, headers=[("Location", "http://127.0.0.1:9/")]), 4, "redirect"),
        (reply(429, headers=[("Retry-After", "86400")]), 4, "throttled"),
        (reply(503), 3, "in doubt"),
        (Reset(), 3, "in doubt"),
    ],
    ids=["rejected", "forbidden", "unauthorized", "redirected", "throttled", "gateway", "reset"],
)
def test_what_the_api_says_no_to_is_a_line(night: Night, script: Script, code: int, word: str) -> None:
    with WireServer(choose=lists_nothing(script)) as server:
        night.at(server.url)
        assert word in one_line(night.cron("--hold"), code=code)


def test_failures_and_doubt_at_once_are_a_line(night: Night) -> None:
    """A crash of two kinds is the same mail."""
    with WireServer(reply(404), reply(500)) as server:
        night.at(server.url)
        told = one_line(night.cron("--hold", "--concurrency", "1"), code=3)
    assert "in doubt" in told
    assert "rejected" in told


def test_a_server_that_is_not_there_is_a_line(night: Night) -> None:
    with refusing_port() as port:
        night.at(f"http://127.0.0.1:{port}")
        assert "unreachable" in one_line(night.cron("--attempts", "1"), code=1)
        assert "unreachable" in one_line(night.cron("--attempts", "1", "--stop-after", "1"), code=4)


@pytest.mark.parametrize(
    ("lost", "code", "word"),
    [("ledger.db", 4, "ledger"), ("api-key", 4, "key"), ("nightly.yaml", 2, "nightly.yaml")],
)
def test_a_file_that_is_gone_is_a_line(night: Night, lost: str, code: int, word: str) -> None:
    (night.folder / lost).unlink()
    with WireServer(choose=job_of_workflow) as server:
        night.at(server.url)
        assert word in one_line(night.cron(), code=code)
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
def test_a_file_that_is_damaged_is_a_line(night: Night, file: str, text: str, code: int) -> None:
    (night.folder / file).write_text(text, encoding="ascii")
    with WireServer(choose=job_of_workflow) as server:
        night.at(server.url)
        assert file in one_line(night.cron(), code=code)
        assert server.requests == []


def test_a_run_that_is_still_at_work_is_a_line(night: Night) -> None:
    go = threading.Event()
    with WireServer(choose=lambda request: Stall(go, created(f"job-{request.workflow}"))) as server:
        night.at(server.url)
        first: list[Done] = []
        at_work = threading.Thread(target=lambda: first.append(night.cron()))
        at_work.start()
        try:
            server.wait_for_requests(2)
            assert "locked" in one_line(night.cron(), code=5)
        finally:
            go.set()
            at_work.join()
        assert first == [Done(0, "", "")]
        assert len(server.created) == 2
