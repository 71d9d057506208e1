"""The campaigns: randomized chains of runs of the real command, under every fault that tests can inject.

    python -m support.campaign --seeds 2000

The first seed is random and printed; `--first` repeats a campaign.

`crash` kills the process at every possible point (campaign_crash.py). `mixed` combines a faulty server with kills,
signals, clock steps, full disks and damaged ledgers (campaign_mixed.py). After each run they check that the server,
the ledger, the results file and the output agree.
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


def run_seeds(
    seeds: Iterable[int], directory: Path, kinds: Collection[Kind] = KINDS, until: float | None = None
) -> Tally:
    """Run each seed in its own directory, until a monotonic time. Raises CampaignError at the first failure."""
    tally = Tally()
    with Zygote() as zygote:
        (directory / "measured").mkdir()
        measured = measure(zygote, directory / "measured")
        for seed in seeds:
            if until is not None and time.monotonic() > until:
                break
            for kind in kinds:
                seed_directory = directory / f"{kind}-{seed}"
                seed_directory.mkdir()
                if kind == "crash":
                    CrashScenario(seed, seed_directory, zygote, tally, measured).run()
                else:
                    MixedScenario(seed, seed_directory, zygote, tally, measured).run()
                shutil.rmtree(seed_directory)
            tally.seeds += 1
    return tally


def run_seeds_in_parallel(
    seeds: range, directory: Path, kinds: Collection[Kind], until: float | None, processes: int
) -> Tally:
    """Run the seeds in several processes, as each mostly waits for stalled servers and for runs to end."""
    if processes == 1:
        return run_seeds(seeds, directory, kinds, until)
    tally = Tally()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = []
        for number in range(processes):
            (directory / str(number)).mkdir()
            parts.append(pool.submit(run_seeds, seeds[number::processes], directory / str(number), kinds, until))
        for part in as_completed(parts):
            tally.add(part.result())
    return tally


def main() -> int:
    """Run the requested seeds and print the tally."""
    parser = argparse.ArgumentParser(
        prog="campaign", description="Run the program under injected faults and check every invariant."
    )
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds")
    parser.add_argument("--first", type=int, default=secrets.randbelow(10**9), help="the first seed")
    parser.add_argument("--minutes", type=float, help="start no seed after this many minutes")
    parser.add_argument("--only", choices=KINDS, help="run only this campaign")
    parser.add_argument("--processes", type=int, default=1, help="number of parallel processes")
    options = parser.parse_args()
    sys.stdout.write(f"first seed: {options.first}\n")
    sys.stdout.flush()
    until = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as directory:
        try:
            seeds = range(options.first, options.first + options.seeds)
            kinds = [options.only] if options.only else KINDS
            tally = run_seeds_in_parallel(seeds, Path(directory), kinds, until, options.processes)
        except CampaignError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    sys.stdout.write(f"{tally}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
