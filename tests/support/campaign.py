"""The campaigns: chains of runs of the real command, each from a seed, which meet everything that can go wrong.

    python -m support.campaign --seeds 2000

The first seed is a random one, which is printed; `--first` plays the same ones again.

`crash` kills the process at every point there is (campaign_crash.py). `mixed` lets a server misbehave in every way
there is, and mixes that with kills, signals, clocks, full disks and damaged ledgers (campaign_mixed.py). After each
run it is asked whether the server, the ledger, the results file and what was said tell the same story.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, get_args

from support.campaign_crash import CrashScenario, measure
from support.campaign_mixed import MixedScenario
from support.campaign_process import Zygote
from support.campaign_tally import CampaignError, Tally

Kind = Literal["crash", "mixed"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def run_seeds(seeds: Iterable[int], folder: Path, kinds: Collection[Kind] = KINDS, until: float | None = None) -> Tally:
    """Play every seed in a folder of its own, until a monotonic time. Raises CampaignError at the first that fails."""
    tally = Tally()
    with Zygote() as zygote:
        (folder / "measured").mkdir()
        measured = measure(zygote, folder / "measured")
        for seed in seeds:
            if until is not None and time.monotonic() > until:
                break
            for kind in kinds:
                here = folder / f"{kind}-{seed}"
                here.mkdir()
                if kind == "crash":
                    CrashScenario(seed, here, zygote, tally, measured).play()
                else:
                    MixedScenario(seed, here, zygote, tally, measured).play()
                shutil.rmtree(here)
            tally.seeds += 1
    return tally


def run_seeds_in_parallel(
    seeds: range, folder: Path, kinds: Collection[Kind], until: float | None, processes: int
) -> Tally:
    """The same in so many processes: each waits most of the time, for servers that stall and for runs that end."""
    if processes == 1:
        return run_seeds(seeds, folder, kinds, until)
    tally = Tally()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = []
        for number in range(processes):
            (folder / str(number)).mkdir()
            parts.append(pool.submit(run_seeds, seeds[number::processes], folder / str(number), kinds, until))
        for part in as_completed(parts):
            tally.add(part.result())
    return tally


def main() -> int:
    """Play as many seeds as are asked for, and say what they came to."""
    parser = argparse.ArgumentParser(prog="campaign", description="Have everything go wrong, and ask the server.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=secrets.randbelow(10**9), help="the first seed")
    parser.add_argument("--minutes", type=float, help="begin no seed after so long")
    parser.add_argument("--only", choices=KINDS, help="one of the campaigns")
    parser.add_argument("--processes", type=int, default=1, help="how many play at once")
    asked = parser.parse_args()
    sys.stdout.write(f"from seed {asked.first} on\n")
    sys.stdout.flush()
    until = None if asked.minutes is None else time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory() as folder:
        try:
            seeds = range(asked.first, asked.first + asked.seeds)
            kinds = [asked.only] if asked.only else KINDS
            tally = run_seeds_in_parallel(seeds, Path(folder), kinds, until, asked.processes)
        except CampaignError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    sys.stdout.write(f"{tally}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
