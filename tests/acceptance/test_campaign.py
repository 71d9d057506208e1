"""Runs that are killed anywhere, and run again: no job is created twice, and no created job is forgotten."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import campaign
from support.campaign import Zygote

SEEDS = int(os.environ.get("PIXXEL_CAMPAIGN_SEEDS", "240"))
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
