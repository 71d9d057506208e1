"""docs/monitoring.md: its crontab entry is run as cron does, and the metrics and pings are checked."""

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
DOCUMENTED_DIRECTORY = "/srv/pixxel"
PROMTOOL = shutil.which("promtool")

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian package: prometheus)")


@dataclass
class CronJob:
    """The page's directory in another place, and its crontab with that directory."""

    directory: Path

    @property
    def lines(self) -> list[str]:
        text = (FILES / "crontab").read_text("utf-8").replace(DOCUMENTED_DIRECTORY, str(self.directory))
        return [line for line in text.splitlines() if line and line[0] != "#"]

    @property
    def variables(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.lines if re.match(r"\w+=", line))

    @property
    def command(self) -> str:
        """The command of the only entry, as cron passes it to the shell."""
        [entry] = [line for line in self.lines if not re.match(r"\w+=", line)]
        assert "%" not in entry, "cron replaces it with a line break"
        return entry.split(maxsplit=5)[5]

    @property
    def metrics(self) -> Path:
        return self.directory / "metrics" / "pixxel-nightly.prom"

    def run(self, api: str, ping: str, *flags: str) -> CompletedCommand:
        """Run the entry as cron does, with additional flags for `run`."""
        variables = {"HOME": str(self.directory), **self.variables, "PIXXEL_BASE_URL": api, "PING": ping}
        completed = subprocess.run(
            ["/bin/sh", "-c", self.command.replace(" --quiet ", f" {' '.join(['--quiet', *flags])} ")],
            env={"SHELL": "/bin/sh", "NO_PROXY": "127.0.0.1", **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return CompletedCommand(completed.returncode, completed.stdout, completed.stderr)


@pytest.fixture
def cron_job(tmp_path: Path) -> CronJob:
    cron_job = CronJob(tmp_path / "pixxel")
    program = cron_job.directory / "venv" / "bin" / "pixxel-runner"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m runner "$@"\n', encoding="ascii")
    program.chmod(0o755)
    manifest = (CHECKOUT / "docs" / "cron" / "nightly.yaml").read_text("utf-8")
    (cron_job.directory / "nightly.yaml").write_text(set_noon_timezone(manifest), encoding="utf-8")
    key = cron_job.directory / "api-key"
    key.touch(0o600)
    key.write_text(f"{KEY}\n", encoding="ascii")
    assert Shell(cron_job.directory)("ledger", "init", "ledger.db").code == 0
    command = PAGE.block("folder").replace(DOCUMENTED_DIRECTORY, str(cron_job.directory))
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=30)
    return cron_job


@contextmanager
def ping_server() -> Iterator[tuple[str, list[str]]]:
    """A ping service: its URL, and the paths requested."""
    pings: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pings.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/check", pings
        finally:
            server.shutdown()
            thread.join()


def read_metrics(path: Path) -> dict[str, float]:
    """The samples of a metrics file by name, with the value of the label that has several."""
    samples = {}
    for family in text_string_to_metric_families(path.read_text("utf-8")):
        for sample in family.samples:
            label = sample.labels.get("outcome") or sample.labels.get("state")
            samples[f"{sample.name}:{label}" if label else sample.name] = sample.value
    return samples


def create_job(request: Request) -> Script:
    return created(f"job-of-{request.workflow}")


def test_page_contains_the_crontab() -> None:
    assert PAGE.block("crontab") in (FILES / "crontab").read_text("utf-8")


def test_crontab_is_valid() -> None:
    program = shutil.which("crontab")
    if program is None:
        pytest.skip("crontab is not installed")
    for flags in (["-n"], ["-T"]):  # the check option of Debian's cron, and of cronie
        completed = subprocess.run(
            [program, *flags, FILES / "crontab"], capture_output=True, text=True, check=False, timeout=30
        )
        if not re.search("(invalid|illegal) option", completed.stderr):
            assert completed.returncode == 0, completed.stderr
            return
    pytest.skip("this crontab cannot check a file")


@needs_curl
def test_successful_run_is_silent_and_updates_metrics_and_pings(cron_job: CronJob) -> None:
    with WireServer(choose=create_job) as api, ping_server() as (url, pings):
        assert cron_job.run(api.url, url) == CompletedCommand(0, "", "")
    assert pings == ["/check/0"]
    assert [path.name for path in cron_job.metrics.parent.iterdir()] == [cron_job.metrics.name]
    samples = read_metrics(cron_job.metrics)
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
def test_failed_run_pings_with_its_exit_code(cron_job: CronJob, script: Script, code: int, sample: str) -> None:
    with WireServer(choose=lambda _: script) as api, ping_server() as (url, pings):
        assert cron_job.run(api.url, url, "--hold").err != ""
    assert pings == [f"/check/{code}"]
    assert read_metrics(cron_job.metrics)[sample] >= 1


@needs_curl
def test_refused_run_pings_and_keeps_the_old_metrics(cron_job: CronJob) -> None:
    with WireServer(choose=create_job) as api, ping_server() as (url, pings):
        cron_job.run(api.url, url)
        before = cron_job.metrics.read_bytes()
        (cron_job.directory / "ledger.db").unlink()
        assert cron_job.run(api.url, url).err != ""
    assert pings == ["/check/0", "/check/4"]
    assert cron_job.metrics.read_bytes() == before


@needs_curl
def test_unreachable_ping_service_is_reported_and_loses_no_job(cron_job: CronJob) -> None:
    with WireServer(choose=create_job) as api, refusing_port() as port:
        completed = cron_job.run(api.url, f"http://127.0.0.1:{port}/check")
        assert len(api.created) == 2
    assert completed.err.startswith("curl: ")


# Alerts


def test_alert_rules_are_valid_and_use_known_metrics() -> None:
    metrics = set(re.findall(r'"(pixxel_runner_\w+)"', Path(prometheus.__file__).read_text("utf-8")))
    document = yaml.safe_load((FILES / "alerts.yml").read_text("utf-8"))
    assert list(document) == ["groups"]
    [group] = document["groups"]
    assert set(group) == {"name", "rules"}
    for rule in group["rules"]:
        assert (
            {"alert", "expr", "labels", "annotations"} <= set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        )
        used_metrics = set(re.findall(r"\bpixxel_runner_\w+", rule["expr"]))
        assert used_metrics
        assert used_metrics <= metrics
        assert all(isinstance(text, str) for text in rule["annotations"].values())
    assert re.findall(r"^\| `(\w+)` \|", PAGE.text, re.MULTILINE) == [rule["alert"] for rule in group["rules"]]


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    for line in PAGE.block("rules").splitlines():
        program, *arguments = line.split()
        assert program == "promtool"
        completed = subprocess.run(
            [str(PROMTOOL), *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
