"""Runs that are killed anywhere, and run again: no job is created twice, and no created job is forgotten."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import campaign
from support.campaign import Scene, Zygote

from runner.sandbox.timeline import SandboxJob
from runner.sandbox.world import World

SEEDS = int(os.environ.get("PIXXEL_CAMPAIGN_SEEDS", "200"))
PARTS = 4
PATIENCE = 90 + 2 * SEEDS // PARTS  # seconds


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_kill_makes_a_job_be_created_twice_or_forgotten(tmp_path: Path, part: int) -> None:
    tally = campaign.play(range(part, SEEDS, PARTS), tmp_path)
    sys.stdout.write(f"{tally}\n")
    assert (tally.duplicates, tally.losses) == (0, 0)
    assert tally.runs > tally.seeds
    assert tally.kills.total() >= tally.seeds // 2


def test_the_folder_hides_itself_from_git_although_the_run_that_made_it_was_killed(tmp_path: Path) -> None:
    """A ledger that git takes for a file of the project is committed, and then brought back by a checkout."""
    (tmp_path / "m.yaml").write_text("version: 1\njobs:\n  - {workflow_id: w, project_id: p}\n", encoding="utf-8")
    env = {"PIXXEL_API_KEY": campaign.KEY, "PIXXEL_BASE_URL": "http://127.0.0.1:1", "PIXXEL_RUNNER_ATTEMPTS": "1"}
    skew = (campaign.NOON - datetime.now(UTC)).total_seconds()
    with Zygote() as zygote:
        assert zygote.run(tmp_path, env, ["run", "m.yaml"], skew=skew, kill=["half a text", 1]).code in (-9, 1)
        assert zygote.run(tmp_path, env, ["run", "m.yaml"], skew=skew).code == 1
    assert (tmp_path / ".pixxel-runner" / ".gitignore").read_text(encoding="utf-8") == "*\n"


class Slow(World):
    """A world in which the answer to the second job takes 25 seconds, and the third 20 until it is created."""

    scene: Scene

    def create(self, workflow_id: str, project_id: str) -> SandboxJob:
        if self.created == 2:
            self.scene.skew += 20.0
        job = super().create(workflow_id, project_id)
        if self.created == 2:
            self.scene.skew += 25.0
        return job

    def now(self) -> datetime:
        return self.scene.now()


def test_a_job_that_was_claimed_ahead_of_a_slow_one_is_looked_for_where_it_may_be(tmp_path: Path) -> None:
    """It leaves when the one before it is over, which takes up to `timeout`, and then takes as long itself."""
    world = Slow(clock=lambda: world.scene.now())  # noqa: PLW0108 - there is no scene yet
    with Zygote() as zygote, Scene(tmp_path, zygote, count=4, world=world) as scene:
        world.scene = scene
        scene.env["PIXXEL_RUNNER_CONCURRENCY"] = "1"  # the first is answered at once, and so the next two are claimed
        ended = zygote.run(tmp_path, scene.env, ["run", "m.yaml"], skew=scene.skew, kill=["after write", 3])
        scene.shop.wait_until_idle()
        assert (ended.code, world.created) == (-9, 3)
        for _ in range(3):
            done = scene.run()
            scene.promise.check()
            scene.pass_time()
        assert done.code == 0, done.err
        scene.promise.check_kept()
