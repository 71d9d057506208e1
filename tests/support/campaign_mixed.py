"""The mixed campaign: everything that can go wrong goes wrong at once, and the truth is asked of the server.

Each seed is one to three manifests, a server that misbehaves in some ways, and a chain of runs. Each run may be
killed, interrupted once or twice, see its clock step, meet a full disk, a ledger that is damaged or a server that is
not there. Then everything is well again, and runs, and a person who can see the API, bring it to its end.
"""

from __future__ import annotations

import errno
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support import faults_ledger
from support.campaign_environment import KEY, NOON, SHAPES, Shape
from support.campaign_invariants import LedgerContents, Pair, SubmissionLine, read_ledger
from support.campaign_process import RunResult, Zygote
from support.campaign_reports import REPORTS, RunOutput, check
from support.campaign_tally import CampaignError, Tally
from support.faults_server import FaultSampler, FaultyServer, Port
from support.faults_table import GET_FAULTS, POST_FAULTS

from runner.sandbox.backend import Backend

_MOST_CALM = 16  # runs until everything is to be done
_SHORT, _LONG = 0.4, 30.0  # seconds for an exchange, where the server lets it wait, and where not
_SETTLE = 900
_TAKE_TIME = {"stalls", "drips", "created late"}
# Seconds between two runs: at once, within the time that a send may take, after it, and when no server is that slow.
_PAUSES = (0.0, 3.0, 35.0, 120.0, 1000.0, 3600.0, 86_400.0)

# What may happen to a run, and how often.
_WEIGHTS: Mapping[str, int] = {
    "nothing": 20,
    "kill": 25,
    "kill at any moment": 5,
    "signal": 14,
    "two signals": 8,
    "clock step": 8,
    "file size": 5,
    "ledger error": 9,
    "disk error": 7,
    "server gone": 5,
    "damaged ledger": 9,
}
_SQLITE = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_READONLY")
_SQLITE_AT = ("before commit", "before statement", "before select", "before checkpoint")
_ERRNO = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
_ERRNO_AT = (
    "before fsync",
    "before open",
    "before link",
    "before replace",
    "before mkdir",
    "before pwrite",
    "before ftruncate",
    "writing a piece",
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SIZES = (0, 4096, 20_000, 50_000, 90_000, 150_000)
# Three may come together: the clock is wrong, and steps in two runs. What is promised is promised for less than a day.
_STEPS = (-25_200.0, -3600.0, -90.0, -4.0, 4.0, 90.0, 3600.0, 25_200.0)
_BEGINNINGS = (0.0, 41_400.0)  # seconds after noon: far from the end of a day, and near

_Event = dict[str, Any]


@dataclass
class PlannedManifest:
    """A manifest: its name, what it lists, what is listed there and switched off, and its period."""

    name: str
    pairs: Sequence[Pair]
    disabled: Sequence[Pair]
    once_per: str
    more: str

    def text(self, number: int, dice: random.Random | None) -> tuple[str, Sequence[str]]:
        """The manifest as it is written for the n-th time, shuffled where there are dice; and its jobs' names."""
        lines = [(*pair, "") for pair in self.pairs] + [(*pair, ", enabled: false") for pair in self.disabled]
        if dice is not None:
            dice.shuffle(lines)
        names = [f"{self.name}{number}-{at}" for at in range(len(lines))]
        jobs = "".join(
            f"  - {{name: {name}, workflow_id: {w}, project_id: {p}{more}}}\n"
            for name, (w, p, more) in zip(names, lines, strict=True)
        )
        return f"version: 1\nonce_per: {self.once_per}\n{self.more}jobs:\n{jobs}", names


@dataclass
class MixedScenario:
    """One seed."""

    seed: int
    folder: Path
    zygote: Zygote
    tally: Tally
    measured: Mapping[Shape, RunResult]
    story: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(f"mixed {self.seed}")  # noqa: S311 - a seed is to be repeatable
        self.plans = self._plans()
        self.renames = self.random.random() < 0.2
        self.troubled = self.random.choice((1, 1, 2, 2, 3, 4, 5))
        kinds = [fault.kind for fault in POST_FAULTS]
        some = self.random.sample(kinds, self.random.choice((1, 2, 3, 6, len(kinds))))
        share = self.random.choice((0.1, 0.3, 0.6, 1.0))
        self.is_slow = bool(_TAKE_TIME & set(some)) or self.random.random() < 0.2
        asked = {fault.kind for fault in GET_FAULTS} - (set() if self.is_slow else _TAKE_TIME)
        self.dice = FaultSampler(self.seed, share, some, asked, self.random.choice((0.0, 0.0, 0.2, 0.6)))
        self.settle = _SETTLE if self.is_slow else self.random.choice((0, _SETTLE))
        self.stop_after = self.random.choice((0, 2, 10))
        self.concurrency = self.random.choice((1, 2, 3, 8))

        self.skew = (NOON - datetime.now(UTC)).total_seconds() + self.random.choice(_BEGINNINGS)
        self.off = self.random.choice(_STEPS) if self.random.random() < 0.25 else 0.0  # seconds: the runs' clock
        self.world = Backend(clock=lambda: datetime.now(UTC) + timedelta(seconds=self.skew))
        self.world.add_pairs(pair for plan in self.plans for pair in (*plan.pairs, *plan.disabled))
        self._strangers = self._others_jobs()
        self.ledger = self.folder / ".pixxel-runner" / "ledger.db"
        self.listed: dict[str, Sequence[str]] = {}
        self.keys: dict[int, dict[str, str]] = {}  # of each run, by manifest
        self.held = LedgerContents()

    def _plans(self) -> list[PlannedManifest]:
        shared = self.random.random() < 0.3  # manifests that send in the same workflows
        is_run = self.random.random() < 0.35
        answers = self.random.random() < 0.5
        plans = []
        for name in "mno"[: self.random.choice((1, 1, 1, 2, 2, 3))]:
            shape = self.random.choice(SHAPES)
            workflow = "w" if shared else f"w{name}"
            pairs = _pairs(shape, self.random.randint(1, 6), workflow, f"p{name}")
            disabled = [(f"{workflow}-9", f"p{name}-off")] if self.random.random() < 0.2 else []
            once_per = "run" if is_run else self.random.choice(("hour", "day", "week", "forever"))
            more = "on_unfinished: resume\n" if is_run and answers else "" if is_run else "timezone: UTC\n"
            plans.append(PlannedManifest(name, pairs, disabled, once_per, more))
        self.says_resume = is_run and not answers
        return plans

    def _others_jobs(self) -> set[str]:
        """Jobs of a colleague, which were there long before."""
        if self.random.random() < 0.7:
            return set()
        self.skew -= 86_400.0 * 3
        ids = {self.world.create(*pair).id for plan in self.plans for pair in plan.pairs[:2]}
        self.skew += 86_400.0 * 3
        return ids

    # The chain of runs.

    def play(self) -> None:
        """Let everything go wrong, then nothing, and check after each run."""
        try:
            self._play()
        except Exception as error:  # whatever it was, the seed that repeats it is told
            said = (self.folder / "stderr").read_text(encoding="utf-8") if (self.folder / "stderr").exists() else ""
            raise CampaignError(
                f"{type(error).__name__}: {error}\nseed {self.seed}: {self.dice.share} of {list(self.dice.kinds)}, "
                f"{self.dice.get_share} of GETs, settle {self.settle}, stop_after {self.stop_after}\n"
                + "\n".join(f"{plan.name}: once_per {plan.once_per}, {plan.pairs}" for plan in self.plans)
                + "\n"
                + "\n".join(self.story)
                + f"\n{said}\nagain: tox -e campaign -- --only mixed --first {self.seed} --seeds 1"
            ) from error
        finally:
            self.tally.faults.update(self.dice.counts)
        self.tally.jobs += len(self.dice.created_in)

    def _play(self) -> None:
        with ExitStack() as stack:
            self.port = Port()
            stack.callback(self.port.close)
            self.server = stack.enter_context(ExitStack())
            self._serve()
            for number in range(self.troubled):
                self._write(number)
                self._run_in_trouble(number)
                self.skew += self.random.choice(_PAUSES)
                if self.off and self.random.random() < 0.4:
                    self._set_clock()
            self._end_well()

    def _end_well(self) -> None:
        self.dice.disabled, code = True, -1
        self._set_clock()
        for number in range(self.troubled, self.troubled + _MOST_CALM):
            self._write(number)
            code = self._run(number, "nothing", timeout=_LONG)
            if code == 0:
                break
            if code == 3:
                self._settle_by_hand()
            self.skew += _SETTLE + 100.0
        assert code == 0, f"the last of {_MOST_CALM} runs in which all was well ended with {code}"
        for plan in self.plans:
            self._check_done(plan)

    def _set_clock(self) -> None:
        """Set the clock of the runs right, once and for all, and not within seconds of a run."""
        self.off = 0.0
        self.skew += 60.0

    def _serve(self) -> None:
        self.shop = self.server.enter_context(FaultyServer(self.world, self.dice, self.port.number))

    def _write(self, number: int) -> None:
        if number and not self.renames:
            return
        for plan in self.plans:
            text, self.listed[plan.name] = plan.text(number, self.random if self.renames else None)
            (self.folder / f"{plan.name}.yaml").write_text(text, encoding="utf-8")

    # One run.

    def _run_in_trouble(self, number: int) -> None:
        self.tally.faults["clock off"] += bool(self.off)
        what = self.random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        timeout = _SHORT if self.is_slow else _LONG
        match what:
            case "server gone":
                self.server.close()
                self._run(number, what, timeout=timeout)
                self._serve()
            case "damaged ledger" if self.ledger.exists():
                kind = self.random.choice(list(faults_ledger.DAMAGES))
                with faults_ledger.damaged(self.ledger, kind, self.random):
                    self._run(number, f"ledger {kind}", timeout=timeout)
                self._check_record()
            case _:
                code = self._run(number, what, timeout=timeout, **self._how(what))
                if code == 3 and self.random.random() < 0.2:
                    self._settle_by_hand()

    def _how(self, what: str) -> dict[str, Any]:
        """What is ordered of the zygote."""
        if what == "kill at any moment":
            return {"after": self.random.uniform(0.0, self.measured["apart"].seconds)}
        if what == "file size":
            return {"largest": self.random.choice(_SIZES)}
        events = self._events(what)
        return {"events": events} if events else {}

    def _events(self, what: str) -> list[_Event]:
        match what:
            case "kill":
                return [self._event(None, "kill")]
            case "signal" | "two signals":
                first = self._event(None, "signal", self.random.choice(_SIGNALS))
                second = first | {
                    "nth": first["nth"] + self.random.randint(0, 2),
                    "value": self.random.choice(_SIGNALS),
                }
                return [first] if what == "signal" else [first, second]
            case "clock step":
                return [self._event(None, "step", self.random.choice(_STEPS))]
            case "ledger error":
                return [self._lasting(self._event(_SQLITE_AT, "sqlite", self.random.choice(_SQLITE)))]
            case "disk error":
                return [self._lasting(self._event(_ERRNO_AT, "errno", self.random.choice(_ERRNO)))]
            case _:
                return []

    def _event(self, places: Sequence[str] | None, do: str, value: Any = None) -> _Event:
        counts = self.measured["apart"].counts
        at = self.random.choice([place for place in places or sorted(counts) if counts.get(place)])
        return {"at": at, "nth": self.random.randint(1, counts[at]), "do": do, "value": value}

    def _lasting(self, event: _Event) -> _Event:
        """For some passes, or to the end."""
        return event | {"until": self.random.choice((None, event["nth"] + self.random.randint(1, 4)))}

    def _run(self, number: int, what: str, *, timeout: float, **how: Any) -> int:
        reports = [] if self.random.random() < 0.5 else self.random.sample(REPORTS, 2)
        for name in REPORTS:
            (self.folder / f"report.{name}").unlink(missing_ok=True)
        resume = ["--resume"] if self.says_resume and number else []
        beside = [word for name in reports for word in ("--report", f"{name}=report.{name}")]
        arguments = ["run", *(f"{plan.name}.yaml" for plan in self.plans), "--settle", str(self.settle)]
        self.dice.run, posts = number, self.dice.posts
        held = self.held
        self.dice.known_ids = [row.job_id for row in held.rows if row.job_id is not None]
        ended = self._call([*arguments, *resume, *beside], timeout, how)
        self.story.append(f"  {number}: {what} {how or ''} off {self.off:g} -> {ended.code}, {list(ended.events)}")
        self.tally.runs += 1
        self.tally.codes[ended.code] += 1
        self._count(what, ended, how)
        if what.startswith("ledger ") and what != "ledger error":
            assert (ended.code, self.dice.posts) == (4, posts), "it went on without its record"
            return ended.code
        self._check_record()
        if ended.code != -9:
            self._check_told(ended, reports, held, posts, is_cut=how.get("largest") is not None)
        return ended.code

    def _call(self, arguments: Sequence[str], timeout: float, how: Mapping[str, Any]) -> RunResult:
        env = {
            "PIXXEL_API_KEY": KEY,
            "PIXXEL_BASE_URL": f"http://127.0.0.1:{self.port.number}",
            "PIXXEL_RUNNER_CONCURRENCY": str(self.concurrency),
            "PIXXEL_RUNNER_TIMEOUT": str(timeout),
            "PIXXEL_RUNNER_STOP_AFTER": str(self.stop_after),
        }
        ended = self.zygote.run(self.folder, env, arguments, skew=self.skew + self.off, **how)
        if self.shop.is_open:
            self.shop.wait_until_idle()
        return ended

    def _count(self, what: str, ended: RunResult, how: Mapping[str, Any]) -> None:
        if ended.code == -9:
            self.tally.kills[how["events"][0]["at"] if "events" in how else "any moment"] += 1
            return
        for met in ended.events:
            do = met.partition(" at ")[0]
            if do.startswith("signal"):
                self.tally.signals[signal.Signals(int(do.split()[1])).name] += 1
        happened = Counter(met.partition(" at ")[0] for met in ended.events)
        self.tally.faults.update({_in_words(do): 1 for do in happened if not do.startswith("signal")})
        if what in ("file size", "server gone") or (what.startswith("ledger ") and "events" not in how):
            self.tally.faults[what] += 1

    # What must be true.

    def _check_told(
        self, ended: RunResult, reports: Sequence[str], before: LedgerContents, posts: int, *, is_cut: bool
    ) -> None:
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        assert "Traceback" not in err, "a traceback"
        signums = [128 + int(met.split()[1]) for met in ended.events if met.startswith("signal")]
        assert ended.code in (0, 1, 3, 4, *signums), f"exit code {ended.code}"
        new = {run.id for run in self.held.runs} - {run.id for run in before.runs}
        ran = [run for run in self.held.runs if run.id in new]
        told = RunOutput(self.folder, ended.code, out, err, ran, reports)
        if is_cut:  # stdout is a file, too
            return
        untold = "its results cannot be read" in err
        assert told.totals or untold or self.dice.posts == posts, "jobs were sent, and nothing is told"
        check(told, self.listed, self.held, before)

    def _check_record(self) -> None:
        """The server's record against the ledger."""
        self.held = read_ledger(self.ledger)
        self.keys[self.dice.run] = {run.manifest: run.run_key for run in self.held.runs}  # the last of each
        jobs = {job.id: job for plan in self.plans for w, _ in plan.pairs for job in self.world.jobs(w)}
        ours = {job_id: jobs[job_id] for job_id in self.dice.created_in}
        rows = self.held.rows
        for row in rows:
            if row.job_id is not None:
                job = ours.get(row.job_id)
                self._claim(job is not None, f"the ledger has a job that we did not create: {row}")
                assert job is not None
                self._claim(job.workflow_id == row.workflow_id, f"it is of another workflow: {row}")
                self._claim(job.project_id == row.project_id or not row.assigned, f"it is of another project: {row}")
        created = Counter((job.workflow_id, job.project_id) for job in ours.values())
        listed = Counter(pair for plan in self.plans for pair in plan.pairs)
        for pair, count in created.items():
            mine = [row for row in rows if row.pair == pair]
            keys = {row.run_key for row in mine}
            over = count - listed[pair] * max(1, len(keys))
            self.tally.duplicates += max(0, over)
            assert over <= 0, f"created {count} times, and listed {listed[pair]} times under {sorted(keys)}: {pair}"
        self._check_keys(rows, listed)
        self._check_losses(rows, created)

    def _check_keys(self, rows: Sequence[SubmissionLine], listed: Counter[Pair]) -> None:
        """Under each run key, no more is on record than is listed; and no more was created, where that is certain."""
        for (manifest, key, pair), count in Counter((row.manifest, row.run_key, row.pair) for row in rows).items():
            assert count <= listed[pair], f"{count} of {pair} on record for {manifest}, {key}"
        unsure = {row.workflow_id for row in rows if row.recovered}
        by_key: Counter[tuple[str, Pair]] = Counter()
        for plan in self.plans:
            for w in {w for w, _ in plan.pairs} - unsure:
                for job in self.world.jobs(w):
                    run = self.dice.created_in.get(job.id)
                    if run is not None and (job.workflow_id, job.project_id) in plan.pairs:
                        by_key[self.keys[run][plan.name], (job.workflow_id, job.project_id)] += 1
        for (key, pair), count in by_key.items():
            self.tally.duplicates += max(0, count - listed[pair])
            assert count <= listed[pair], f"{count} of {pair} created for {key}"

    def _check_losses(self, rows: Sequence[SubmissionLine], created: Counter[Pair]) -> None:
        held = {row.job_id for row in rows}
        free: Counter[Pair] = Counter()
        for job_id in self.dice.created_in.keys() - held:
            free[self._pair_of(job_id)] += 1
        doubts = Counter(row.pair for row in rows if row.is_in_doubt)
        lost = _by_workflow(free) - _by_workflow(doubts)
        self.tally.losses += lost.total()
        assert not lost, f"created, and neither on record nor in doubt: {dict(lost)}"
        unsure = {row.workflow_id for row in rows if not row.assigned}
        for pair, count in free.items():
            if pair[0] not in unsure:
                self._claim(count <= doubts[pair], f"said to have failed, and created {created[pair]} times: {pair}")

    def _pair_of(self, job_id: str) -> Pair:
        pairs = {pair for plan in self.plans for pair in plan.pairs}
        return next((w, p) for w, p in pairs for job in self.world.jobs(w) if (job.id, job.project_id) == (job_id, p))

    def _claim(self, holds: bool, words: str) -> None:
        self.tally.false_claims += not holds
        assert holds, words

    def _check_done(self, plan: PlannedManifest) -> None:
        """All of a manifest is created under the key of its last run."""
        key = next(run.run_key for run in reversed(self.held.runs) if run.manifest == plan.name)
        rows = [row for row in self.held.rows if (row.manifest, row.run_key) == (plan.name, key)]
        created = Counter(row.pair for row in rows if row.state == "created")
        assert created == Counter(plan.pairs), f"{plan.name} is not done for {key}: {rows}"
        assert not {row.job_id for row in rows} & self._strangers, "a colleague's job was taken"

    # What a person does, who can see at the API what was created.

    def _settle_by_hand(self) -> None:
        rows = self.held.rows
        free = sorted(self.dice.created_in.keys() - {row.job_id for row in rows})
        words: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if row.state == "in_doubt":
                fitting = [job_id for job_id in free if self._pair_of(job_id) == row.pair]
                fitting.sort(
                    key=lambda job_id: self.keys[self.dice.created_in[job_id]].get(row.manifest) != row.run_key
                )
                said = ["--adopt", f"{row.name}={fitting[0]}"] if fitting else ["--absent", row.name]
                free = [job_id for job_id in free if job_id not in fitting[:1]]
                words.setdefault((row.manifest, row.run_id), []).extend(said)
        for (manifest, run_id), said in words.items():
            ended = self._call(["resolve", f"{manifest}.yaml", "--run", run_id, *said], _LONG, {})
            self.story.append(f"  resolve {said} -> {ended.code}")
            able = (0, 3) if self.dice.disabled else (0, 3, 4)  # the API has to know a job that is adopted
            assert ended.code in able, f"resolve ended with {ended.code}"
            self.tally.manual_resolutions += ended.code != 4
            self._check_record()


def _in_words(met: str) -> str:
    """What happened at a seam, as it is counted."""
    do, value = met.split(" ", 1)
    match do:
        case "step":
            return "clock step"
        case "errno":
            return f"disk {errno.errorcode[int(value)]}"
        case _:
            return f"ledger {value}"


def _pairs(shape: Shape, size: int, workflow: str, project: str) -> list[Pair]:
    match shape:
        case "apart":
            return [(f"{workflow}-{number}", f"{project}-0") for number in range(size)]
        case "alike":
            return [(f"{workflow}-0", f"{project}-0")] * size
        case "projects":
            return [(f"{workflow}-0", f"{project}-{number}") for number in range(size)]


def _by_workflow(pairs: Counter[Pair]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (workflow, _), count in pairs.items():
        counts[workflow] += count
    return counts
