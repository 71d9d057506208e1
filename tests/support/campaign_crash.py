"""The crash campaign: runs of the real command are killed at points drawn from a seed, and the server is asked.

Each seed is a manifest, a server with its faults, and a chain of runs. Most of them are killed with SIGKILL: around a
commit, a write to the socket, an answer, a file of the record, or at any moment. What is true after each of them is
read from the server's own record of what it created, and from a copy of the ledger as the dead process left it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from support.campaign_environment import KEY, NOON, SHAPES, CampaignServer, Shape, pairs_of
from support.campaign_invariants import Invariants, Pair, read_submissions
from support.campaign_process import RunResult, Zygote
from support.campaign_tally import CampaignError, Tally
from support.schemas import check_results

from runner.sandbox.backend import Backend
from runner.sandbox.faults import Fault

OncePer = Literal["run", "day", "forever"]

_FAULTS: tuple[tuple[Fault, ...], ...] = (
    (),
    (),
    (Fault("reset", 0.3),),
    (Fault("bad-gateway", 0.3),),
    (Fault("rate-limit", 0.3, 0.0),),
    (Fault("slow", 0.5, 0.02),),
    (Fault("reset", 0.15), Fault("bad-gateway", 0.15), Fault("rate-limit", 0.15, 0.0), Fault("slow", 0.15, 0.02)),
)
_MOMENT = "any moment"

# Where it matters most, and therefore where most of the kills are; the others share the rest.
_CORE = (
    _MOMENT,
    "before commit",
    "after commit",
    "after mark",
    "before write",
    "half written",
    "after write",
    "before answer",
    "after answer",
    "before telling",
)
_CORE_SHARE = 0.65
_MOST_RUNS = 14
# Seconds between two runs: at once, within the time that a send may take, and after it.
_PAUSES = (0.0, 3.0, 35.0, 120.0, 120.0, 3600.0)


@dataclass
class CrashScenario:
    """One seed: what is run, how it is killed, and what must be true after each run."""

    seed: int
    folder: Path
    zygote: Zygote
    tally: Tally
    measured: Mapping[Shape, RunResult]
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - a seed is to be repeatable, not unpredictable
        self.shape: Shape = self.random.choice(SHAPES)
        self.once_per: OncePer = self.random.choice(("run", "day", "forever"))
        self.pairs = pairs_of(self.shape, self.random.randint(1, 6))
        self.faults = self.random.choice(_FAULTS)
        self.renames = self.random.random() < 0.25
        self.deaths = self.random.choice((1, 1, 1, 2, 2, 3, 4))
        self.skew = (NOON - datetime.now(UTC)).total_seconds()
        self.world = Backend(clock=lambda: datetime.now(UTC) + timedelta(seconds=self.skew))
        self.world.add_pairs(self.pairs)
        self.promise = Invariants(self.world, self.ledger, self.pairs)
        self.env = {"PIXXEL_API_KEY": KEY, "PIXXEL_RUNNER_CONCURRENCY": str(self.random.choice((1, 2, 3, 8)))}

    @property
    def ledger(self) -> Path:
        return self.folder / ".pixxel-runner" / "ledger.db"

    def play(self) -> None:
        """Run, kill, check; and again until all is done."""
        try:
            with CampaignServer(self.world, self.faults, self.seed) as self.shop:
                self.env["PIXXEL_BASE_URL"] = self.shop.base_url
                self._play()
        except Exception as error:  # whatever it was, the seed that repeats it is told
            said = (self.folder / "stderr").read_text(encoding="utf-8") if (self.folder / "stderr").exists() else ""
            raise CampaignError(
                f"{type(error).__name__}: {error}\n"
                f"seed {self.seed}: {self.once_per}, {self.shape}, {len(self.pairs)} jobs, {self.faults}\n"
                + "\n".join(self.told)
                + f"\n{said}\nagain: tox -e campaign -- --only crash --first {self.seed} --seeds 1"
            ) from error

        self.tally.jobs += self.promise.created().total()

    def _play(self) -> None:
        code = -1
        for number in range(_MOST_RUNS):
            if number == 0 or self.renames:
                self._write_manifest(number)
            dies = number < self.deaths
            resume = ["--resume"] if self.once_per == "run" and number else []
            code = self._run(["run", "m.yaml", "--settle", "0", *resume], dies=dies)
            if code == 0:
                break
            if not dies and code == 3:
                self._settle_by_hand(dies=number < self.deaths + 1)
            self.skew += self.random.choice(_PAUSES) if number < 6 else 120.0
        assert code == 0, f"the last of {_MOST_RUNS} runs ended with {code}"
        self.promise.check_complete()
        assert self._results()["summary"]["created"] == len(self.pairs), "the results file has not every job"

    def _write_manifest(self, number: int) -> None:
        pairs = list(enumerate(self.pairs))
        if self.renames:
            self.random.shuffle(pairs)
        jobs = "".join(f"  - {{name: n{number}-{at}, workflow_id: {w}, project_id: {p}}}\n" for at, (w, p) in pairs)
        text = f"version: 1\nonce_per: {self.once_per}\njobs:\n{jobs}"
        (self.folder / "m.yaml").write_text(text, encoding="utf-8")

    def _run(self, arguments: Sequence[str], *, dies: bool) -> int:
        how: dict[str, Any] = self._death() if dies else {}
        ended = self.zygote.run(self.folder, self.env, arguments, skew=self.skew, **how)
        self.shop.wait_until_idle()
        self.told.append(f"  {' '.join(arguments)}  {how or ''} -> {ended.code}")
        self.tally.runs += 1
        self.tally.codes[ended.code] += 1
        if ended.code == -9:
            self.tally.kills[how["events"][0]["at"] if "events" in how else _MOMENT] += 1
        else:
            assert ended.code in (0, 1, 3, 4), f"exit code {ended.code}"
        self._check(killed=ended.code == -9)
        return ended.code

    def _death(self) -> dict[str, Any]:
        counts, whole = self.measured[self.shape].counts, self.measured[self.shape].seconds
        core = self.random.random() < _CORE_SHARE
        kind = self.random.choice(_CORE if core else sorted(set(counts) - set(_CORE)))
        if kind == _MOMENT:
            return {"after": self.random.uniform(0.0, whole)}
        return {"events": [{"at": kind, "nth": self.random.randint(1, counts[kind]), "do": "kill"}]}

    # What must be true.

    def _check(self, *, killed: bool) -> None:
        self.tally.duplicates += self.promise.duplicates().total()
        self.tally.losses += self.promise.lost().total()
        self.promise.check()
        rows = read_submissions(self.ledger)
        if not killed:
            assert not [row for row in rows if row.state == "sending"], "an intent was left"
        if (self.folder / "m.results.json").exists():
            results = self._results()
            if not killed and self.told[-1].lstrip().startswith("run"):
                held = Counter(row.job_id for row in rows if row.job_id is not None)
                assert Counter(one["job"]["id"] for one in results["created"]) == held, "the results file differs"
                doubts = sum(row.state == "in_doubt" for row in rows)
                assert results["summary"]["in_doubt"] == doubts, "the results file has other doubts"

    def _results(self) -> dict[str, Any]:
        return check_results(self.folder / "m.results.json")

    # What a person does, who can see at the API what was created.

    def _settle_by_hand(self, *, dies: bool) -> None:
        rows = read_submissions(self.ledger)
        held = {row.job_id for row in rows}
        free: defaultdict[Pair, list[str]] = defaultdict(list)
        for job in self.promise.jobs().values():
            if job.id not in held:
                free[job.workflow_id, job.project_id].append(job.id)
        words: list[str] = []
        for row in rows:
            if row.state == "in_doubt":
                ids = free[row.workflow_id, row.project_id]
                words += ["--adopt", f"{row.name}={ids.pop()}"] if ids else ["--absent", row.name]
        if words and self._distinct(words):
            self.tally.manual_resolutions += 1
            self._run(["resolve", "m.yaml", *words], dies=dies)

    @staticmethod
    def _distinct(words: Sequence[str]) -> bool:
        names = [word.partition("=")[0] for word in words[1::2]]
        return len(names) == len(set(names))


def measure(zygote: Zygote, folder: Path) -> dict[Shape, RunResult]:
    """What passes the seams in runs that are left in peace: from these the points to kill at are drawn."""
    measured: dict[Shape, RunResult] = {}
    for shape in SHAPES:
        here = folder / shape
        here.mkdir()
        story = CrashScenario(0, here, zygote, Tally(), {})
        story.shape, story.once_per, story.pairs, story.renames = shape, "day", pairs_of(shape, 6), False
        story.world.add_pairs(story.pairs)
        with CampaignServer(story.world, (), 0) as shop:
            story.env["PIXXEL_BASE_URL"] = shop.base_url
            story._write_manifest(0)
            ended = zygote.run(here, story.env, ["run", "m.yaml"], skew=story.skew)
            assert ended.code == 0, (here / "stderr").read_text(encoding="utf-8")
            shop.wait_until_idle()
        measured[shape] = ended
    return measured
