"""Runs that are killed anywhere or meet any fault: no job is created twice, forgotten or invented."""

from __future__ import annotations

import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import campaign
from support.campaign import Kind
from support.campaign_environment import KEY, NOON, CampaignEnvironment
from support.campaign_process import RunResult, Zygote
from support.campaign_reports import check_document
from support.faults_ledger import DAMAGES
from support.faults_table import GET_FAULTS, POST_FAULTS
from support.schemas import check_results
from support.systems import needs_sigtimedwait
from support.wire import refusing_port

from runner.ledger.store import Ledger
from runner.sandbox.backend import Backend
from runner.sandbox.lifecycle import SandboxJob

pytestmark = needs_sigtimedwait

SEEDS = 16  # of both campaigns together, starting at 0. Always the same; `tox -e campaign` tries others
PARTS = 4
_TOTAL = re.compile(r"^[0-9]+ jobs?: ([0-9]+) created", re.MULTILINE)
PATIENCE = 90 + 4 * SEEDS // PARTS  # seconds


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", campaign.KINDS)
def test_no_job_is_created_twice_forgotten_or_invented(tmp_path: Path, kind: Kind, part: int) -> None:
    tally = campaign.run_seeds(range(part, SEEDS // 2, PARTS), tmp_path, [kind])
    sys.stdout.write(f"{tally}\n")
    assert (tally.duplicates, tally.losses, tally.false_claims) == (0, 0, 0)
    assert tally.runs > tally.seeds
    assert tally.kills if kind == "crash" else tally.faults


def test_state_directory_ignores_itself_in_git_even_after_a_kill(tmp_path: Path) -> None:
    """Otherwise git would commit the ledger, and a checkout would restore an old one."""
    (tmp_path / "m.yaml").write_text("version: 1\njobs:\n  - {workflow_id: w, project_id: p}\n", encoding="utf-8")
    skew = (NOON - datetime.now(UTC)).total_seconds()
    with refusing_port() as port, Zygote() as zygote:
        env = {"PIXXEL_API_KEY": KEY, "PIXXEL_BASE_URL": f"http://127.0.0.1:{port}", "PIXXEL_RUNNER_ATTEMPTS": "1"}
        kill = {"at": "half a text", "nth": 1, "do": "kill"}
        assert zygote.run(tmp_path, env, ["run", "m.yaml"], skew=skew, events=[kill]).code in (-9, 1)
        assert zygote.run(tmp_path, env, ["run", "m.yaml"], skew=skew).code == 1
    assert (tmp_path / ".pixxel-runner" / ".gitignore").read_text(encoding="utf-8") == "*\n"


class SlowBackend(Backend):
    """A backend whose second response takes 25 seconds, and which creates the third job after 20 seconds."""

    scene: CampaignEnvironment

    def create(self, workflow_id: str, project_id: str, *, fails: bool = False) -> SandboxJob:
        if self.created == 2:
            self.scene.skew += 20.0
        job = super().create(workflow_id, project_id, fails=fails)
        if self.created == 2:
            self.scene.skew += 25.0
        return job

    def now(self) -> datetime:
        return self.scene.now()


def test_lookup_covers_a_job_that_was_claimed_before_a_slow_one_finished(tmp_path: Path) -> None:
    """Its request starts when the previous one ends, up to `timeout` later, and then takes up to `timeout` itself."""
    backend = SlowBackend(clock=lambda: backend.scene.now())  # noqa: PLW0108 - the scene does not exist yet
    with Zygote() as zygote, CampaignEnvironment(tmp_path, zygote, count=4, world=backend) as scene:
        backend.scene = scene
        # The first response is immediate, so the next two jobs are claimed.
        scene.env["PIXXEL_RUNNER_CONCURRENCY"] = "1"
        kill = {"at": "after write", "nth": 3, "do": "kill"}
        ended = zygote.run(tmp_path, scene.env, ["run", "m.yaml"], skew=scene.skew, events=[kill])
        scene.server.wait_until_idle()
        assert (ended.code, backend.created) == (-9, 3)
        for _ in range(3):
            done = scene.run()
            scene.invariants.check()
            scene.advance_clock()
        assert done.code == 0, done.err
        scene.invariants.check_complete()


def test_clock_corrected_after_a_crash_does_not_resend_a_job(tmp_path: Path) -> None:
    """The job is an hour older than its request, according to the ledger: by time alone, it seems to be another.

    Found by the mixed campaign: seed 100.
    """
    with Zygote() as zygote, CampaignEnvironment(tmp_path, zygote, count=1) as scene:
        kill = {"at": "after write", "nth": 1, "do": "kill"}
        zygote.run(tmp_path, scene.env, ["run", "m.yaml"], skew=scene.skew + 3600.0, events=[kill])
        scene.server.wait_until_idle()
        assert scene.backend.created == 1
        scene.skew += 7200.0
        done = scene.run()
        assert done.code == 3, done.err
        scene.invariants.check()
        [job_id] = scene.invariants.jobs()
        [error] = check_results(tmp_path / "m.results.json")["errors"]
        assert error["candidates"] == [job_id]
        assert "clock was wrong" in scene("resolve", "m.yaml").out
        assert scene("resolve", "m.yaml", "--adopt", f"j0={job_id}").code == 0
        assert scene.run().code == 0
        scene.invariants.check_complete()


def test_clock_step_during_a_run_keeps_send_times_ordered(tmp_path: Path) -> None:
    """If a request ended a day before it started, no lookup could cover its job.

    Found by the mixed campaign: seed 1000007.
    """
    with Zygote() as zygote, CampaignEnvironment(tmp_path, zygote, count=3) as scene:
        scene.env["PIXXEL_RUNNER_CONCURRENCY"] = "1"
        done = scene.run(events=[{"at": "after write", "nth": 2, "do": "step", "value": -86_400.0}])
        assert done.code == 0, done.err
        with Ledger(scene.ledger) as ledger:
            sends = [(submission.claimed_at, submission.ended_at) for submission in ledger.all_submissions()]
    times = [time for send in sends for time in send if time is not None]
    assert len(times) == 6
    assert all(ended is not None and claimed <= ended for claimed, ended in sends)
    assert max(times) - min(times) < timedelta(seconds=PATIENCE)


def test_second_signal_between_two_manifests_still_prints_the_results(tmp_path: Path) -> None:
    """Found by the mixed campaign: seed 1000201."""
    first = {"at": "before lock", "nth": 3, "do": "signal", "value": signal.SIGTERM}  # the second manifest's

    def interrupted(name: str, *events: dict[str, Any]) -> tuple[RunResult, str]:
        directory = tmp_path / name
        directory.mkdir()
        with CampaignEnvironment(directory, zygote, count=1) as scene:
            (directory / "n.yaml").write_text("version: 1\njobs:\n  - {workflow_id: w-0, project_id: p-0}\n")
            command = ("run", "m.yaml", "n.yaml", "--report", "prometheus=metrics.prom")
            ended = zygote.run(directory, scene.env, command, skew=scene.skew, events=events)
            scene.server.wait_until_idle()
            assert scene.backend.created == 1
        return ended, (directory / "stdout").read_text(encoding="utf-8")

    with Zygote() as zygote:
        once, output = interrupted("once", first)
        last = {"at": "before select", "nth": once.counts["before select"], "do": "signal", "value": signal.SIGTERM}
        twice, second_output = interrupted("twice", first, last)
    assert once.code == twice.code == 143
    assert len(twice.events) == 2
    assert "1 job: 1 created" in output
    assert "1 job: 1 created" in second_output


def test_unreadable_ledger_at_the_end_does_not_hide_a_run(tmp_path: Path) -> None:
    """Found by the mixed campaign: seed 148."""
    command = ("run", "m.yaml", "n.yaml", "--settle", "0")
    codes = set()
    with Zygote() as zygote:
        read = 1000
        while read > 0:  # fail the last read first
            directory = tmp_path / str(read)
            directory.mkdir()
            (directory / "n.yaml").write_text("version: 1\njobs:\n  - {workflow_id: w-0, project_id: p-0}\n")
            with CampaignEnvironment(directory, zygote, count=1) as scene:
                event = {"at": "before select", "nth": read, "do": "sqlite", "value": "SQLITE_IOERR_READ"}
                ended = zygote.run(directory, scene.env, command, skew=scene.skew, events=[event])
                scene.server.wait_until_idle()
                out, err = ((directory / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
                counts = _TOTAL.findall(out) or _TOTAL.findall(err)
                created = sum(map(int, counts))
                assert (
                    created <= scene.backend.created <= created + err.count("was run, but its results are unknown")
                ), err
            codes.add(ended.code)
            read = min(read, ended.counts["before select"] + 1) - 4
    assert codes == {0, 4}


@pytest.mark.parametrize("names", [["a", "b"], ["b", "a"], ["a"], ["a", "a", "b"]])
def test_campaign_detects_dropped_doubled_and_reordered_jobs(names: list[str]) -> None:
    results = {"created": [{"name": name} for name in names], "errors": [], "skipped": []}
    if names == ["a", "b"]:
        check_document(results, ["a", "b"])
    else:
        with pytest.raises(AssertionError):
            check_document(results, ["a", "b"])


def test_fault_names_are_unique() -> None:
    for kinds in ([fault.kind for fault in POST_FAULTS], [fault.kind for fault in GET_FAULTS], list(DAMAGES)):
        assert len(set(kinds)) == len(kinds)
