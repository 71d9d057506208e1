"""The crash campaign: kills runs of the real command at points chosen by a seed, and checks the server and the ledger.

Each seed is a manifest, a server with faults, and a chain of runs. Most of them are killed with SIGKILL: around a
commit, a socket write, a response, a file operation, or at a random time. After each run, the jobs on the server are
compared with a copy of the ledger as the killed process left it.
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

# The critical kill points, which get most of the kills; all other points share the rest.
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
# Seconds between two runs: none, less than a request may take, and more.
_PAUSES = (0.0, 3.0, 35.0, 120.0, 120.0, 3600.0)


@dataclass
class CrashScenario:
    """The scenario of one seed: its manifest, its kills, and the checks after each run."""

    seed: int
    directory: Path
    zygote: Zygote
    tally: Tally
    measured: Mapping[Shape, RunResult]
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - repeatable, not for security
        self.shape: Shape = self.random.choice(SHAPES)
        self.once_per: OncePer = self.random.choice(("run", "day", "forever"))
        self.pairs = pairs_of(self.shape, self.random.randint(1, 6))
        self.faults = self.random.choice(_FAULTS)
        self.renames = self.random.random() < 0.25
        self.kill_count = self.random.choice((1, 1, 1, 2, 2, 3, 4))
        self.skew = (NOON - datetime.now(UTC)).total_seconds()
        self.backend = Backend(clock=lambda: datetime.now(UTC) + timedelta(seconds=self.skew))
        self.backend.add_pairs(self.pairs)
        self.invariants = Invariants(self.backend, self.ledger, self.pairs)
        self.env = {"PIXXEL_API_KEY": KEY, "PIXXEL_RUNNER_CONCURRENCY": str(self.random.choice((1, 2, 3, 8)))}

    @property
    def ledger(self) -> Path:
        return self.directory / ".pixxel-runner" / "ledger.db"

    def run(self) -> None:
        """Run, kill and check until all jobs are created."""
        try:
            with CampaignServer(self.backend, self.faults, self.seed) as self.server:
                self.env["PIXXEL_BASE_URL"] = self.server.base_url
                self._run_chain()
        except Exception as error:  # any failure is reported with the seed that reproduces it
            stderr = (
                (self.directory / "stderr").read_text(encoding="utf-8") if (self.directory / "stderr").exists() else ""
            )
            raise CampaignError(
                f"{type(error).__name__}: {error}\n"
                f"seed {self.seed}: {self.once_per}, {self.shape}, {len(self.pairs)} jobs, {self.faults}\n"
                + "\n".join(self.history)
                + f"\n{stderr}\nto reproduce: tox -e campaign -- --only crash --first {self.seed} --seeds 1"
            ) from error

        self.tally.jobs += self.invariants.created().total()

    def _run_chain(self) -> None:
        code = -1
        for number in range(_MOST_RUNS):
            if number == 0 or self.renames:
                self._write_manifest(number)
            killed = number < self.kill_count
            resume = ["--resume"] if self.once_per == "run" and number else []
            code = self._run(["run", "m.yaml", "--settle", "0", *resume], killed=killed)
            if code == 0:
                break
            if not killed and code == 3:
                self._resolve_manually(killed=number < self.kill_count + 1)
            self.skew += self.random.choice(_PAUSES) if number < 6 else 120.0
        assert code == 0, f"run {_MOST_RUNS} still exited with code {code}"
        self.invariants.check_complete()
        assert self._results()["summary"]["created"] == len(self.pairs), "the results file does not have every job"

    def _write_manifest(self, number: int) -> None:
        pairs = list(enumerate(self.pairs))
        if self.renames:
            self.random.shuffle(pairs)
        jobs = "".join(f"  - {{name: n{number}-{at}, workflow_id: {w}, project_id: {p}}}\n" for at, (w, p) in pairs)
        text = f"version: 1\nonce_per: {self.once_per}\njobs:\n{jobs}"
        (self.directory / "m.yaml").write_text(text, encoding="utf-8")

    def _run(self, arguments: Sequence[str], *, killed: bool) -> int:
        injection: dict[str, Any] = self._choose_kill() if killed else {}
        result = self.zygote.run(self.directory, self.env, arguments, skew=self.skew, **injection)
        self.server.wait_until_idle()
        self.history.append(f"  {' '.join(arguments)}  {injection or ''} -> {result.code}")
        self.tally.runs += 1
        self.tally.codes[result.code] += 1
        if result.code == -9:
            self.tally.kills[injection["events"][0]["at"] if "events" in injection else _MOMENT] += 1
        else:
            assert result.code in (0, 1, 3, 4), f"exit code {result.code}"
        self._check(killed=result.code == -9)
        return result.code

    def _choose_kill(self) -> dict[str, Any]:
        counts, duration = self.measured[self.shape].counts, self.measured[self.shape].seconds
        core = self.random.random() < _CORE_SHARE
        kind = self.random.choice(_CORE if core else sorted(set(counts) - set(_CORE)))
        if kind == _MOMENT:
            return {"after": self.random.uniform(0.0, duration)}
        return {"events": [{"at": kind, "nth": self.random.randint(1, counts[kind]), "do": "kill"}]}

    # Checks.

    def _check(self, *, killed: bool) -> None:
        self.tally.duplicates += self.invariants.duplicates().total()
        self.tally.losses += self.invariants.lost().total()
        self.invariants.check()
        rows = read_submissions(self.ledger)
        if not killed:
            assert not [row for row in rows if row.state == "sending"], "a submission is still in state `sending`"
        if (self.directory / "m.results.json").exists():
            results = self._results()
            if not killed and self.history[-1].lstrip().startswith("run"):
                ledger_ids = Counter(row.job_id for row in rows if row.job_id is not None)
                assert Counter(one["job"]["id"] for one in results["created"]) == ledger_ids, "the results file differs"
                doubts = sum(row.state == "in_doubt" for row in rows)
                assert results["summary"]["in_doubt"] == doubts, "the results file has other doubts"

    def _results(self) -> dict[str, Any]:
        return check_results(self.directory / "m.results.json")

    # Manual resolution, by someone who sees the jobs on the server.

    def _resolve_manually(self, *, killed: bool) -> None:
        rows = read_submissions(self.ledger)
        ledger_ids = {row.job_id for row in rows}
        unknown_ids: defaultdict[Pair, list[str]] = defaultdict(list)
        for job in self.invariants.jobs().values():
            if job.id not in ledger_ids:
                unknown_ids[job.workflow_id, job.project_id].append(job.id)
        decisions: list[str] = []
        for row in rows:
            if row.state == "in_doubt":
                ids = unknown_ids[row.workflow_id, row.project_id]
                decisions += ["--adopt", f"{row.name}={ids.pop()}"] if ids else ["--absent", row.name]
        if decisions and self._distinct(decisions):
            self.tally.manual_resolutions += 1
            self._run(["resolve", "m.yaml", *decisions], killed=killed)

    @staticmethod
    def _distinct(decisions: Sequence[str]) -> bool:
        names = [word.partition("=")[0] for word in decisions[1::2]]
        return len(names) == len(set(names))


def measure(zygote: Zygote, directory: Path) -> dict[Shape, RunResult]:
    """Count the hook passes of undisturbed runs, from which the kill points are chosen."""
    measured: dict[Shape, RunResult] = {}
    for shape in SHAPES:
        shape_directory = directory / shape
        shape_directory.mkdir()
        scenario = CrashScenario(0, shape_directory, zygote, Tally(), {})
        scenario.shape, scenario.once_per, scenario.pairs, scenario.renames = shape, "day", pairs_of(shape, 6), False
        scenario.backend.add_pairs(scenario.pairs)
        with CampaignServer(scenario.backend, (), 0) as server:
            scenario.env["PIXXEL_BASE_URL"] = server.base_url
            scenario._write_manifest(0)
            result = zygote.run(shape_directory, scenario.env, ["run", "m.yaml"], skew=scenario.skew)
            assert result.code == 0, (shape_directory / "stderr").read_text(encoding="utf-8")
            server.wait_until_idle()
        measured[shape] = result
    return measured
