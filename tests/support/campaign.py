"""The crash campaign: runs of the real command are killed at points drawn from a seed, and the server is asked.

    python -m support.campaign --seeds 2000

Each seed is a manifest, a server with its faults, and a chain of runs. Most of them are killed with SIGKILL: around a
commit, a write to the socket, an answer, a file of the record, or at any moment. What is true after each of them is
read from the server's own record of what it created, and from a copy of the ledger as the dead process left it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from support.schemas import check_results

from runner.sandbox.faults import Fault
from runner.sandbox.server import Sandbox
from runner.sandbox.timeline import SandboxJob
from runner.sandbox.world import World

KEY = "key-of-the-campaign"
NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)  # when it all happens: far from midnight, whenever it is run
PATIENCE = 30.0
_ZYGOTE = Path(__file__).with_name("zygote.py")

Shape = Literal["apart", "alike", "projects"]
OncePer = Literal["run", "day", "forever"]

SHAPES: tuple[Shape, ...] = ("apart", "alike", "projects")
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


class CampaignError(AssertionError):
    """The promise was broken."""


class Shop(Sandbox):
    """A sandbox that can be waited for: a process that was killed may have left a request in its queue."""

    def __init__(self, world: World, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        super().__init__(world, key=KEY, faults=faults, seed=seed, log=self._keep)
        self.posts = 0
        self._gone = threading.Condition(self._lock)

    def _keep(self, line: str) -> None:
        with self._gone:
            self.posts += line.startswith("POST ")

    def _forget(self, thread: threading.Thread) -> None:
        super()._forget(thread)
        with self._gone:
            self._gone.notify_all()

    def wait_until_idle(self) -> None:
        """Wait until nothing that was ever sent can still create a job."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as last:  # after all in the queue
            last.sendall(b"GET /ping HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            while last.recv(65_536):
                pass
        with self._gone:
            assert self._gone.wait_for(lambda: not self._connections, PATIENCE)


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative for a signal), what passed each seam, and how long it took."""

    code: int
    counts: Mapping[str, int]
    seconds: float


class Zygote:
    """Runs the command in children of one process that has imported it already."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_ZYGOTE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, folder: Path, env: Mapping[str, str], arguments: Sequence[str], **how: Any) -> Ended:
        """Run the command in a folder; its streams go to files there.

        `skew` is in seconds; `kill` is a kind of seam and a number, `after` seconds until any moment's kill, `fault`
        an error of SQLite at a seam, `largest` the bytes that a file may have.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"cwd": str(folder), "env": dict(env), "argv": list(arguments), **how}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ended(answer["code"], answer["counts"], answer["seconds"])


@dataclass(frozen=True)
class Row:
    """One submission as the ledger has it."""

    name: str
    workflow_id: str
    project_id: str
    state: str
    job_id: str | None
    assigned: bool


def read_ledger(path: Path) -> list[Row]:
    """The submissions, read from a copy, so that the next run finds what the last one left and nothing else."""
    if not path.exists():
        return []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                shutil.copy(part, Path(folder) / part.name)
        with closing(sqlite3.connect(Path(folder) / path.name)) as copy:
            [(words,)] = copy.execute("PRAGMA integrity_check").fetchall()
            assert words == "ok", words
            columns = "name, workflow_id, project_id, state, job_id, assigned"
            return [Row(*row) for row in copy.execute(f"SELECT {columns} FROM submissions ORDER BY id")]  # noqa: S608 - our own words


@dataclass
class Tally:
    """What a campaign came to."""

    seeds: int = 0
    runs: int = 0
    jobs: int = 0
    by_hand: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    losses: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        return (
            f"{self.seeds} seeds, {self.runs} runs, {self.kills.total()} killed ({kinds})\n"
            f"{self.jobs} jobs sent, {self.by_hand} settled by hand, {self.duplicates} duplicates, {self.losses} lost"
        )


Pair = tuple[str, str]


class Promise:
    """What must be true of a ledger and a server, whatever happened; each is asked for its own record."""

    def __init__(self, world: World, ledger: Path, pairs: Sequence[Pair]) -> None:
        self.world = world
        self.ledger = ledger
        self.pairs = pairs

    def jobs(self) -> dict[str, SandboxJob]:
        """What the server created."""
        workflows = dict.fromkeys(workflow_id for workflow_id, _ in self.pairs)
        return {job.id: job for workflow_id in workflows for job in self.world.jobs(workflow_id)}

    def created(self) -> Counter[Pair]:
        """How often it created each pair."""
        return Counter((job.workflow_id, job.project_id) for job in self.jobs().values())

    def duplicates(self) -> Counter[Pair]:
        """What it created more often than is listed."""
        return self.created() - Counter(self.pairs)

    def lost(self) -> Counter[str]:
        """By workflow: what it created, and the ledger neither has nor is in doubt of."""
        rows = read_ledger(self.ledger)
        held = {row.job_id for row in rows}
        free = Counter(job.workflow_id for job in self.jobs().values() if job.id not in held)
        return free - Counter(row.workflow_id for row in rows if row.state in ("sending", "in_doubt"))

    def check(self) -> None:
        """Fail unless nothing was created twice, nothing is forgotten, and nothing is made up."""
        assert not self.duplicates(), f"created more often than listed: {dict(self.duplicates())}"
        assert not self.lost(), f"created, and neither on record nor in doubt: {dict(self.lost())}"
        jobs = self.jobs()
        for row in read_ledger(self.ledger):
            if row.job_id is not None:
                job = jobs.get(row.job_id)
                assert job is not None, f"the ledger has a job that the server has not: {row}"
                assert job.workflow_id == row.workflow_id, row
                assert job.project_id == row.project_id or not row.assigned, row

    def check_kept(self) -> None:
        """Fail unless each job was created exactly once, and the ledger has it."""
        self.check()
        assert self.created() == Counter(self.pairs), "not each job exactly once"
        states = Counter(row.state for row in read_ledger(self.ledger))
        assert states == {"created": len(self.pairs)}, f"the ledger has {states}"


def pairs_of(shape: Shape, size: int) -> list[Pair]:
    """What a manifest lists: each pair as often as it lists it."""
    match shape:
        case "apart":
            return [(f"w-{number}", "p-0") for number in range(size)]
        case "alike":
            return [("w-0", "p-0")] * size + [("w-1", "p-0")]
        case "projects":
            return [("w-0", f"p-{number}") for number in range(size)]


@dataclass(frozen=True)
class Done:
    """A run that has ended, and what it said."""

    code: int
    out: str
    err: str


class Scene:
    """A person's folder, a server that tells the truth, and a time that passes when the test says so.

    `world` may be another than the plain one, with the pairs not yet admitted. A context manager.
    """

    def __init__(
        self,
        folder: Path,
        zygote: Zygote,
        count: int = 6,
        world: World | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.folder = folder
        self.pairs = pairs_of("apart", count)
        self.zygote = zygote
        self.skew = (NOON - datetime.now(UTC)).total_seconds()
        self.world = world or World(clock=self.now)
        self.world.admit(self.pairs)
        self.shop = Shop(self.world, faults)
        self.ledger = folder / ".pixxel-runner" / "ledger.db"
        self.env = {"PIXXEL_API_KEY": KEY, "PIXXEL_RUNNER_CONCURRENCY": "2"}
        jobs = "".join(
            f"  - {{name: j{at}, workflow_id: {w}, project_id: {p}}}\n" for at, (w, p) in enumerate(self.pairs)
        )
        (folder / "m.yaml").write_text(f"version: 1\nonce_per: forever\njobs:\n{jobs}", encoding="utf-8")

    def now(self) -> datetime:
        """The time in this scene."""
        return datetime.now(UTC) + timedelta(seconds=self.skew)

    def __enter__(self) -> Self:
        self.shop.__enter__()
        self.env["PIXXEL_BASE_URL"] = self.shop.base_url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shop.__exit__(kind, error, trace)

    @property
    def promise(self) -> Promise:
        """What must be true."""
        return Promise(self.world, self.ledger, self.pairs)

    def use(self, ledger: Path) -> None:
        """Work with a ledger elsewhere from now on."""
        self.ledger = ledger
        self.env["PIXXEL_RUNNER_LEDGER"] = str(ledger)

    def __call__(self, *arguments: str, **how: Any) -> Done:
        """Run the command; `how` is as for `Zygote.run`. Whatever happens, it ends in words and in a code it has."""
        ended = self.zygote.run(self.folder, self.env, arguments, skew=self.skew, **how)
        self.shop.wait_until_idle()
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        assert ended.code in (0, 1, 2, 3, 4, 5), err
        assert "Traceback" not in err, err
        return Done(ended.code, out, err)

    def run(self, **how: Any) -> Done:
        """Run the manifest, with a server that is never slow."""
        return self("run", "m.yaml", "--settle", "0", **how)

    def pass_time(self) -> None:
        """Let more time pass than any send may take."""
        self.skew += 120.0


@dataclass
class Story:
    """One seed: what is run, how it is killed, and what must be true after each run."""

    seed: int
    folder: Path
    zygote: Zygote
    tally: Tally
    measured: Mapping[Shape, Ended]
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
        self.world = World(clock=lambda: datetime.now(UTC) + timedelta(seconds=self.skew))
        self.world.admit(self.pairs)
        self.promise = Promise(self.world, self.ledger, self.pairs)
        self.env = {"PIXXEL_API_KEY": KEY, "PIXXEL_RUNNER_CONCURRENCY": str(self.random.choice((1, 2, 3, 8)))}

    @property
    def ledger(self) -> Path:
        return self.folder / ".pixxel-runner" / "ledger.db"

    def play(self) -> None:
        """Run, kill, check; and again until all is done."""
        try:
            with Shop(self.world, self.faults, self.seed) as self.shop:
                self.env["PIXXEL_BASE_URL"] = self.shop.base_url
                self._play()
        except Exception as error:  # whatever it was, the seed that repeats it is told
            said = (self.folder / "stderr").read_text(encoding="utf-8") if (self.folder / "stderr").exists() else ""
            raise CampaignError(
                f"{type(error).__name__}: {error}\n"
                f"seed {self.seed}: {self.once_per}, {self.shape}, {len(self.pairs)} jobs, {self.faults}\n"
                + "\n".join(self.told)
                + f"\n{said}\nagain: tox -e campaign -- --first {self.seed} --seeds 1"
            ) from error
        self.tally.seeds += 1
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
        self.promise.check_kept()
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
        if ended.code == -9:
            self.tally.kills[how["kill"][0] if "kill" in how else _MOMENT] += 1
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
        return {"kill": [kind, self.random.randint(1, counts[kind])]}

    # What must be true.

    def _check(self, *, killed: bool) -> None:
        self.tally.duplicates += self.promise.duplicates().total()
        self.tally.losses += self.promise.lost().total()
        self.promise.check()
        rows = read_ledger(self.ledger)
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
        rows = read_ledger(self.ledger)
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
            self.tally.by_hand += 1
            self._run(["resolve", "m.yaml", *words], dies=dies)

    @staticmethod
    def _distinct(words: Sequence[str]) -> bool:
        names = [word.partition("=")[0] for word in words[1::2]]
        return len(names) == len(set(names))


def measure(zygote: Zygote, folder: Path) -> dict[Shape, Ended]:
    """What passes the seams in runs that are left in peace: from these the points to kill at are drawn."""
    measured: dict[Shape, Ended] = {}
    for shape in SHAPES:
        here = folder / shape
        here.mkdir()
        story = Story(0, here, zygote, Tally(), {})
        story.shape, story.once_per, story.pairs, story.renames = shape, "day", pairs_of(shape, 6), False
        story.world.admit(story.pairs)
        with Shop(story.world, (), 0) as shop:
            story.env["PIXXEL_BASE_URL"] = shop.base_url
            story._write_manifest(0)
            ended = zygote.run(here, story.env, ["run", "m.yaml"], skew=story.skew)
            assert ended.code == 0, (here / "stderr").read_text(encoding="utf-8")
            shop.wait_until_idle()
        measured[shape] = ended
    return measured


def play(seeds: range, folder: Path) -> Tally:
    """Play every seed in a folder of its own. Raises CampaignError at the first that breaks the promise."""
    tally = Tally()
    with Zygote() as zygote:
        (folder / "measured").mkdir()
        measured = measure(zygote, folder / "measured")
        for seed in seeds:
            here = folder / f"seed-{seed}"
            here.mkdir()
            Story(seed, here, zygote, tally, measured).play()
            shutil.rmtree(here)
    return tally


def main() -> int:
    """Play as many seeds as are asked for, and say what they came to."""
    parser = argparse.ArgumentParser(prog="campaign", description="Kill runs at every point, and ask the server.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            tally = play(range(asked.first, asked.first + asked.seeds), Path(folder))
        except CampaignError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    sys.stdout.write(f"{tally}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
