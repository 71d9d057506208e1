"""docs/monitoring.md is true: its line is run as cron runs it, and what it writes and pings is looked at."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.pages import CHECKOUT, Page
from support.shell import KEY, CompletedCommand, Shell, set_noon_timezone
from support.wire import Request, Reset, Script, WireServer, created, refusing_port, reply

from runner.reports.formats import prometheus

PAGE = Page("docs/monitoring.md")
FILES = CHECKOUT / "docs" / "monitoring"
PLACE = "/srv/pixxel"
PROMTOOL = shutil.which("promtool")

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool (Debian's package prometheus)")


@dataclass
class Night:
    """The page's folder, somewhere else, and its crontab with that folder in it."""

    folder: Path

    @property
    def lines(self) -> list[str]:
        text = (FILES / "crontab").read_text("utf-8").replace(PLACE, str(self.folder))
        return [line for line in text.splitlines() if line and line[0] != "#"]

    @property
    def variables(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.lines if re.match(r"\w+=", line))

    @property
    def command(self) -> str:
        """The command of the only entry, as cron hands it to the shell."""
        [entry] = [line for line in self.lines if not re.match(r"\w+=", line)]
        assert "%" not in entry, "cron makes a line break of it"
        return entry.split(maxsplit=5)[5]

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics" / "pixxel-nightly.prom"

    def cron(self, api: str, ping: str, *flags: str) -> CompletedCommand:
        """What cron does at an hour of the night; the run has `flags` more."""
        variables = {"HOME": str(self.folder), **self.variables, "PIXXEL_BASE_URL": api, "PING": ping}
        done = subprocess.run(
            ["/bin/sh", "-c", self.command.replace(" --quiet ", f" {' '.join(['--quiet', *flags])} ")],
            env={"SHELL": "/bin/sh", "NO_PROXY": "127.0.0.1", **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return CompletedCommand(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def night(tmp_path: Path) -> Night:
    night = Night(tmp_path / "pixxel")
    program = night.folder / "venv" / "bin" / "pixxel-runner"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m runner "$@"\n', encoding="ascii")
    program.chmod(0o755)
    nightly = (CHECKOUT / "docs" / "cron" / "nightly.yaml").read_text("utf-8")
    (night.folder / "nightly.yaml").write_text(set_noon_timezone(nightly), encoding="utf-8")
    key = night.folder / "api-key"
    key.touch(0o600)
    key.write_text(f"{KEY}\n", encoding="ascii")
    assert Shell(night.folder)("ledger", "init", "ledger.db").code == 0
    command = PAGE.block("folder").replace(PLACE, str(night.folder))
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=30)
    return night


@contextmanager
def pings() -> Iterator[tuple[str, list[str]]]:
    """A service that is pinged: its URL, and the paths that came."""
    came: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/check", came
        finally:
            server.shutdown()
            thread.join()


def told(path: Path) -> dict[str, float]:
    """The samples of a metrics file by name, with the value of the label that has several."""
    found = {}
    for family in text_string_to_metric_families(path.read_text("utf-8")):
        for sample in family.samples:
            own = sample.labels.get("outcome") or sample.labels.get("state")
            found[f"{sample.name}:{own}" if own else sample.name] = sample.value
    return found


def buys(request: Request) -> Script:
    return created(f"job-of-{request.workflow}")


def test_the_page_shows_the_crontab() -> None:
    assert PAGE.block("crontab") in (FILES / "crontab").read_text("utf-8")


def test_cron_takes_the_crontab() -> None:
    program = shutil.which("crontab")
    if program is None:
        pytest.skip("there is no crontab here")
    for checks in (["-n"], ["-T"]):  # Debian's word for it, and cronie's
        done = subprocess.run(
            [program, *checks, FILES / "crontab"], capture_output=True, text=True, check=False, timeout=30
        )
        if not re.search("(invalid|illegal) option", done.stderr):
            assert done.returncode == 0, done.stderr
            return
    pytest.skip("this crontab cannot check a file")


@needs_curl
def test_a_night_that_went_well_is_silent_pinged_and_on_record(night: Night) -> None:
    with WireServer(choose=buys) as api, pings() as (url, came):
        assert night.cron(api.url, url) == CompletedCommand(0, "", "")
    assert came == ["/check/0"]
    assert [path.name for path in night.metrics.parent.iterdir()] == [night.metrics.name]
    samples = told(night.metrics)
    assert samples["pixxel_runner_run_jobs:created"] == 2
    assert samples["pixxel_runner_run_jobs:not_created"] == 0
    assert samples["pixxel_runner_run_state:completed"] == 1
    assert samples["pixxel_runner_run_end_timestamp_seconds"] > 1.7e9


@needs_curl
@pytest.mark.parametrize(
    ("script", "code", "sample"),
    [
        (reply(404), 1, "pixxel_runner_run_jobs:not_created"),
        (Reset(), 3, "pixxel_runner_run_jobs:in_doubt"),
        (reply(401), 4, "pixxel_runner_run_state:stopped"),
    ],
    ids=["not created", "in doubt", "stopped"],
)
def test_a_night_that_went_wrong_is_pinged_with_its_exit_code(
    night: Night, script: Script, code: int, sample: str
) -> None:
    with WireServer(choose=lambda _: script) as api, pings() as (url, came):
        assert night.cron(api.url, url, "--hold").err != ""
    assert came == [f"/check/{code}"]
    assert told(night.metrics)[sample] >= 1


@needs_curl
def test_a_run_that_is_refused_leaves_the_old_metrics_and_is_pinged(night: Night) -> None:
    with WireServer(choose=buys) as api, pings() as (url, came):
        night.cron(api.url, url)
        before = night.metrics.read_bytes()
        (night.folder / "ledger.db").unlink()
        assert night.cron(api.url, url).err != ""
    assert came == ["/check/0", "/check/4"]
    assert night.metrics.read_bytes() == before


@needs_curl
def test_a_service_that_cannot_be_pinged_is_told_of_and_costs_nothing(night: Night) -> None:
    with WireServer(choose=buys) as api, refusing_port() as port:
        done = night.cron(api.url, f"http://127.0.0.1:{port}/check")
        assert len(api.created) == 2
    assert done.err.startswith("curl: ")


# The alerts.


def test_the_rules_are_what_prometheus_takes_and_name_metrics_that_there_are() -> None:
    there = set(re.findall(r'"(pixxel_runner_\w+)"', Path(prometheus.__file__).read_text("utf-8")))
    document = yaml.safe_load((FILES / "alerts.yml").read_text("utf-8"))
    assert list(document) == ["groups"]
    [group] = document["groups"]
    assert set(group) == {"name", "rules"}
    for rule in group["rules"]:
        assert (
            {"alert", "expr", "labels", "annotations"} <= set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        )
        named = set(re.findall(r"\bpixxel_runner_\w+", rule["expr"]))
        assert named
        assert named <= there
        assert all(isinstance(text, str) for text in rule["annotations"].values())
    assert re.findall(r"^\| `(\w+)` \|", PAGE.text, re.MULTILINE) == [rule["alert"] for rule in group["rules"]]


@needs_promtool
def test_promtool_checks_and_tests_the_rules() -> None:
    for line in PAGE.block("rules").splitlines():
        program, *arguments = line.split()
        assert program == "promtool"
        done = subprocess.run(
            [str(PROMTOOL), *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
