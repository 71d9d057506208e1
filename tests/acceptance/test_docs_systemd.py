"""docs/systemd.md is accurate: systemd accepts the units, and the service's command does what the page says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.pages import CHECKOUT, Page
from support.schemas import check_results
from support.shell import KEY, CompletedCommand, environment_without_coverage
from support.wire import Request, Script, WireServer, created

from runner.manifest import loader

PAGE = Page("docs/systemd.md")
UNITS = CHECKOUT / "docs" / "systemd"
SERVICE = UNITS / "pixxel-nightly.service"
TIMER = UNITS / "pixxel-nightly.timer"
PROGRAM = "/opt/pixxel-runner/bin/pixxel-runner"
INHERITED = {"LANG": "C.UTF-8", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "USER": "pixxel"}


def setting(unit: Path, name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", unit.read_text("utf-8"), re.MULTILINE)
    return str(value)


def analyze(*arguments: str | Path) -> CompletedCommand:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    return CompletedCommand(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that exists, because `verify` checks that."""
    for unit in (SERVICE, TIMER):
        text = unit.read_text("utf-8").replace(PROGRAM, sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return tmp_path


def test_systemd_accepts_the_units(units: Path) -> None:
    assert analyze("verify", units / SERVICE.name, units / TIMER.name) == CompletedCommand(0, "", "")


def test_service_has_the_documented_exposure_level(units: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", units / SERVICE.name)
    if "--offline" in done.err:
        pytest.skip("this systemd-analyze supports only running services")
    [score] = re.findall(r"exposure level for \S+: ([0-9.]+)", done.out)
    assert float(score) <= 1.2  # later versions of systemd may calculate another score
    assert "says 1.2" in PAGE.text


def test_timer_hours_are_on_one_day_of_the_manifest() -> None:
    calendar = setting(TIMER, "OnCalendar")
    match = re.fullmatch(r"\*-\*-\* (\d\d)\.\.(\d\d):(\d\d):00 (\S+)", calendar)
    assert match is not None
    first, last, minute = (int(part) for part in match.groups()[:3])
    delay = int(re.fullmatch(r"(\d+)min", setting(TIMER, "RandomizedDelaySec"))[1])  # type: ignore[index]
    assert 0 < first < last < 23
    assert minute + delay < 60
    nightly = loader.check((CHECKOUT / "docs/cron/nightly.yaml").read_bytes(), "nightly.yaml").manifest
    assert nightly is not None
    assert (nightly.once_per, str(nightly.timezone)) == ("day", match[4])
    assert f"Normalized form: {calendar}" in analyze("calendar", calendar).out


def test_stop_timeout_exceeds_the_grace_period() -> None:
    assert int(setting(SERVICE, "TimeoutStopSec")) > 2 * 4  # seconds: twice the grace period, to save the results


@dataclass(frozen=True)
class Machine:
    """A directory that stands for the machine's root."""

    root: Path

    def relocate(self, text: str) -> str:
        """Replace the service's specifiers and the page's paths with paths below the root."""
        text = text.replace("%S", "/var/lib").replace("%d", "/run/credentials/pixxel-nightly.service")
        return re.sub(r"(?<![\w/])/(?=(?:etc|var|run)/)", f"{self.root}/", text)

    def run_shell(self, script: str, stdin: str = "") -> None:
        subprocess.run(
            ["/bin/sh", "-ec", script],
            cwd=CHECKOUT,
            env=environment_without_coverage(),
            input=stdin,
            text=True,
            check=True,
        )

    def start(self, base_url: str) -> CompletedCommand:
        """Run ExecStart as systemd would: without a shell, in its working directory, with a minimal environment."""
        program, *arguments = shlex.split(self.relocate(setting(SERVICE, "ExecStart")))
        assert program == PROGRAM
        done = subprocess.run(
            [sys.executable, "-P", "-m", "runner", *arguments],
            cwd=self.relocate(setting(SERVICE, "WorkingDirectory")),
            env=INHERITED | {"PIXXEL_BASE_URL": base_url},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return CompletedCommand(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Set up as the page says, except the user and the program, then prepare the service as systemd does."""
    machine = Machine(tmp_path)
    state, key = Path(machine.relocate("%S")) / setting(SERVICE, "StateDirectory"), Path(machine.relocate("%d"))
    for directory in (state, key, tmp_path / "etc" / "pixxel"):
        directory.mkdir(mode=0o700, parents=True)
    machine.run_shell(machine.relocate(PAGE.block("set up")), f"{KEY}\n")
    [ledger] = PAGE.block("the ledger").splitlines()
    arguments = ledger.removeprefix(f"runuser -u {setting(SERVICE, 'User')} -- {PROGRAM} ")
    machine.run_shell(f"{sys.executable} -P -m runner {machine.relocate(arguments)}")
    name, _, source = setting(SERVICE, "LoadCredential").partition(":")
    shutil.copy(machine.relocate(source), key / name)
    (key / name).chmod(0o400)
    return machine


def job_of_workflow(request: Request) -> Script:
    return created(f"job-of-{request.workflow}")


def test_service_creates_jobs_once_a_day_and_is_silent(machine: Machine) -> None:
    with WireServer(choose=job_of_workflow) as server:
        assert [machine.start(server.url) for _ in range(2)] == [CompletedCommand(0, "", "")] * 2
        assert len(server.created) == len(server.requests) == 2
    results = machine.root / "var/lib/pixxel/nightly.results.json"
    assert check_results(results)["summary"]["created"] == 2
    assert str(results.relative_to(machine.root)) in PAGE.text


def test_missing_ledger_stops_the_service(machine: Machine) -> None:
    (machine.root / "var/lib/pixxel/ledger.db").unlink()
    with WireServer(choose=job_of_workflow) as server:
        done = machine.start(server.url)
        assert server.requests == []
    assert (done.code, done.out) == (4, "")
    assert len(done.err.splitlines()) == 1


def test_page_installs_the_existing_units() -> None:
    assert PAGE.block("start").splitlines()[0].split()[3:5] == [
        str(unit.relative_to(CHECKOUT)) for unit in (SERVICE, TIMER)
    ]
    for target in re.findall(r"\]\(((?:cron|systemd)/[\w./-]+)\)", PAGE.text):
        assert (CHECKOUT / "docs" / target).is_file()
    commands = PAGE.block("install")
    assert f"useradd --system {setting(SERVICE, 'User')}\n" in commands
    assert f"-m 700 /var/lib/{setting(SERVICE, 'StateDirectory')}\n" in commands
    assert setting(SERVICE, "StateDirectoryMode") == "0700"
