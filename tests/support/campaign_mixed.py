"""The mixed campaign: combines all kinds of faults, and checks the server and the ledger after each run.

Each seed is one to three manifests, a faulty server, and a chain of runs. A run may be killed, interrupted once or
twice, or meet a clock step, a full disk, a damaged ledger or an unreachable server. Finally all faults stop, and
further runs and manual resolutions must complete every manifest.
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

_MAX_FINAL_RUNS = 16  # runs without faults within which every manifest must complete
_SHORT, _LONG = 0.4, 30.0  # timeout in seconds per request, with and without slow servers
_SETTLE = 900
_TAKE_TIME = {"stalls", "drips", "created late"}
# Seconds between two runs: none, less than a request may take, more than that, and much longer.
_PAUSES = (0.0, 3.0, 35.0, 120.0, 1000.0, 3600.0, 86_400.0)

# The disturbances of a run, with their weights.
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
# Three may add up: a wrong clock that steps in two runs. The guarantee holds for less than a day in total.
_STEPS = (-25_200.0, -3600.0, -90.0, -4.0, 4.0, 90.0, 3600.0, 25_200.0)
_BEGINNINGS = (0.0, 41_400.0)  # seconds after noon: far from and near to the end of the day

_Event = dict[str, Any]


@dataclass
class PlannedManifest:
    """A manifest: its name, its enabled and disabled pairs, its period, and further lines."""

    name: str
    pairs: Sequence[Pair]
    disabled: Sequence[Pair]
    once_per: str
    more: str

    def text(self, number: int, rng: random.Random | None) -> tuple[str, Sequence[str]]:
        """The manifest's text as of the n-th run, shuffled if `rng` is given, and the names of its jobs."""
        lines = [(*pair, "") for pair in self.pairs] + [(*pair, ", enabled: false") for pair in self.disabled]
        if rng is not None:
            rng.shuffle(lines)
        names = [f"{self.name}{number}-{at}" for at in range(len(lines))]
        jobs = "".join(
            f"  - {{name: {name}, workflow_id: {w}, project_id: {p}{more}}}\n"
            for name, (w, p, more) in zip(names, lines, strict=True)
        )
        return f"version: 1\nonce_per: {self.once_per}\n{self.more}jobs:\n{jobs}", names


@dataclass
class MixedScenario:
    """The scenario of one seed."""

    seed: int
    directory: Path
    zygote: Zygote
    tally: Tally
    measured: Mapping[Shape, RunResult]
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(f"mixed {self.seed}")  # noqa: S311 - repeatable, not for security
        self.plans = self._plans()
        self.renames = self.random.random() < 0.2
        self.disturbed_runs = self.random.choice((1, 1, 2, 2, 3, 4, 5))
        kinds = [fault.kind for fault in POST_FAULTS]
        selected = self.random.sample(kinds, self.random.choice((1, 2, 3, 6, len(kinds))))
        share = self.random.choice((0.1, 0.3, 0.6, 1.0))
        self.is_slow = bool(_TAKE_TIME & set(selected)) or self.random.random() < 0.2
        get_kinds = {fault.kind for fault in GET_FAULTS} - (set() if self.is_slow else _TAKE_TIME)
        self.sampler = FaultSampler(self.seed, share, selected, get_kinds, self.random.choice((0.0, 0.0, 0.2, 0.6)))
        self.settle = _SETTLE if self.is_slow else self.random.choice((0, _SETTLE))
        self.stop_after = self.random.choice((0, 2, 10))
        self.concurrency = self.random.choice((1, 2, 3, 8))

        self.skew = (NOON - datetime.now(UTC)).total_seconds() + self.random.choice(_BEGINNINGS)
        self.off = (
            self.random.choice(_STEPS) if self.random.random() < 0.25 else 0.0
        )  # seconds: the error of the runs' clock
        self.backend = Backend(clock=lambda: datetime.now(UTC) + timedelta(seconds=self.skew))
        self.backend.add_pairs(pair for plan in self.plans for pair in (*plan.pairs, *plan.disabled))
        self._foreign_ids = self._create_foreign_jobs()
        self.ledger = self.directory / ".pixxel-runner" / "ledger.db"
        self.listed: dict[str, Sequence[str]] = {}
        self.keys: dict[int, dict[str, str]] = {}  # by run, then by manifest
        self.contents = LedgerContents()

    def _plans(self) -> list[PlannedManifest]:
        shared = self.random.random() < 0.3  # manifests that share workflows
        is_run = self.random.random() < 0.35
        resumes = self.random.random() < 0.5
        plans = []
        for name in "mno"[: self.random.choice((1, 1, 1, 2, 2, 3))]:
            shape = self.random.choice(SHAPES)
            workflow = "w" if shared else f"w{name}"
            pairs = _pairs(shape, self.random.randint(1, 6), workflow, f"p{name}")
            disabled = [(f"{workflow}-9", f"p{name}-off")] if self.random.random() < 0.2 else []
            once_per = "run" if is_run else self.random.choice(("hour", "day", "week", "forever"))
            more = "on_unfinished: resume\n" if is_run and resumes else "" if is_run else "timezone: UTC\n"
            plans.append(PlannedManifest(name, pairs, disabled, once_per, more))
        self.needs_resume = is_run and not resumes
        return plans

    def _create_foreign_jobs(self) -> set[str]:
        """Create jobs that belong to someone else, three days ago."""
        if self.random.random() < 0.7:
            return set()
        self.skew -= 86_400.0 * 3
        ids = {self.backend.create(*pair).id for plan in self.plans for pair in plan.pairs[:2]}
        self.skew += 86_400.0 * 3
        return ids

    # The chain of runs.

    def run(self) -> None:
        """Run with faults, then without, and check after each run."""
        try:
            self._run_chain()
        except Exception as error:  # any failure is reported with the seed that reproduces it
            stderr = (
                (self.directory / "stderr").read_text(encoding="utf-8") if (self.directory / "stderr").exists() else ""
            )
            raise CampaignError(
                f"{type(error).__name__}: {error}\nseed {self.seed}: "
                f"{self.sampler.share} of {list(self.sampler.kinds)}, "
                f"{self.sampler.get_share} of GETs, settle {self.settle}, stop_after {self.stop_after}\n"
                + "\n".join(f"{plan.name}: once_per {plan.once_per}, {plan.pairs}" for plan in self.plans)
                + "\n"
                + "\n".join(self.history)
                + f"\n{stderr}\nto reproduce: tox -e campaign -- --only mixed --first {self.seed} --seeds 1"
            ) from error
        finally:
            self.tally.faults.update(self.sampler.counts)
        self.tally.jobs += len(self.sampler.created_in)

    def _run_chain(self) -> None:
        with ExitStack() as stack:
            self.port = Port()
            stack.callback(self.port.close)
            self.server = stack.enter_context(ExitStack())
            self._serve()
            for number in range(self.disturbed_runs):
                self._write(number)
                self._run_disturbed(number)
                self.skew += self.random.choice(_PAUSES)
                if self.off and self.random.random() < 0.4:
                    self._set_clock()
            self._finish_without_faults()

    def _finish_without_faults(self) -> None:
        self.sampler.disabled, code = True, -1
        self._set_clock()
        for number in range(self.disturbed_runs, self.disturbed_runs + _MAX_FINAL_RUNS):
            self._write(number)
            code = self._run(number, "nothing", timeout=_LONG)
            if code == 0:
                break
            if code == 3:
                self._resolve_manually()
            self.skew += _SETTLE + 100.0
        assert code == 0, f"run {_MAX_FINAL_RUNS} without faults still exited with code {code}"
        for plan in self.plans:
            self._check_done(plan)

    def _set_clock(self) -> None:
        """Correct the runs' clock for good, a minute away from any run."""
        self.off = 0.0
        self.skew += 60.0

    def _serve(self) -> None:
        self.campaign_server = self.server.enter_context(FaultyServer(self.backend, self.sampler, self.port.number))

    def _write(self, number: int) -> None:
        if number and not self.renames:
            return
        for plan in self.plans:
            text, self.listed[plan.name] = plan.text(number, self.random if self.renames else None)
            (self.directory / f"{plan.name}.yaml").write_text(text, encoding="utf-8")

    # One run.

    def _run_disturbed(self, number: int) -> None:
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
                code = self._run(number, what, timeout=timeout, **self._disturbance(what))
                if code == 3 and self.random.random() < 0.2:
                    self._resolve_manually()

    def _disturbance(self, what: str) -> dict[str, Any]:
        """The arguments for `Zygote.run` that cause a disturbance."""
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
        """Make an event last for some passes, or until the run ends."""
        return event | {"until": self.random.choice((None, event["nth"] + self.random.randint(1, 4)))}

    def _run(self, number: int, what: str, *, timeout: float, **how: Any) -> int:
        reports = [] if self.random.random() < 0.5 else self.random.sample(REPORTS, 2)
        for name in REPORTS:
            (self.directory / f"report.{name}").unlink(missing_ok=True)
        resume = ["--resume"] if self.needs_resume and number else []
        report_options = [word for name in reports for word in ("--report", f"{name}=report.{name}")]
        arguments = ["run", *(f"{plan.name}.yaml" for plan in self.plans), "--settle", str(self.settle)]
        self.sampler.run, posts = number, self.sampler.posts
        contents = self.contents
        self.sampler.known_ids = [row.job_id for row in contents.rows if row.job_id is not None]
        result = self._call([*arguments, *resume, *report_options], timeout, how)
        self.history.append(f"  {number}: {what} {how or ''} off {self.off:g} -> {result.code}, {list(result.events)}")
        self.tally.runs += 1
        self.tally.codes[result.code] += 1
        self._count(what, result, how)
        if what.startswith("ledger ") and what != "ledger error":
            assert (result.code, self.sampler.posts) == (4, posts), "it continued without the ledger"
            return result.code
        self._check_record()
        if result.code != -9:
            self._check_output(result, reports, contents, posts, has_size_limit=how.get("largest") is not None)
        return result.code

    def _call(self, arguments: Sequence[str], timeout: float, how: Mapping[str, Any]) -> RunResult:
        env = {
            "PIXXEL_API_KEY": KEY,
            "PIXXEL_BASE_URL": f"http://127.0.0.1:{self.port.number}",
            "PIXXEL_RUNNER_CONCURRENCY": str(self.concurrency),
            "PIXXEL_RUNNER_TIMEOUT": str(timeout),
            "PIXXEL_RUNNER_STOP_AFTER": str(self.stop_after),
        }
        result = self.zygote.run(self.directory, env, arguments, skew=self.skew + self.off, **how)
        if self.campaign_server.is_open:
            self.campaign_server.wait_until_idle()
        return result

    def _count(self, what: str, result: RunResult, how: Mapping[str, Any]) -> None:
        if result.code == -9:
            self.tally.kills[how["events"][0]["at"] if "events" in how else "any moment"] += 1
            return
        for event in result.events:
            do = event.partition(" at ")[0]
            if do.startswith("signal"):
                self.tally.signals[signal.Signals(int(do.split()[1])).name] += 1
        happened = Counter(event.partition(" at ")[0] for event in result.events)
        self.tally.faults.update({_event_name(do): 1 for do in happened if not do.startswith("signal")})
        if what in ("file size", "server gone") or (what.startswith("ledger ") and "events" not in how):
            self.tally.faults[what] += 1

    # Checks.

    def _check_output(
        self, result: RunResult, reports: Sequence[str], before: LedgerContents, posts: int, *, has_size_limit: bool
    ) -> None:
        out, err = ((self.directory / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        assert "Traceback" not in err, "a traceback"
        signums = [128 + int(event.split()[1]) for event in result.events if event.startswith("signal")]
        assert result.code in (0, 1, 3, 4, *signums), f"exit code {result.code}"
        new = {run.id for run in self.contents.runs} - {run.id for run in before.runs}
        ran = [run for run in self.contents.runs if run.id in new]
        output = RunOutput(self.directory, result.code, out, err, ran, reports)
        if has_size_limit:  # stdout is a file and limited, too
            return
        unreadable = "its results cannot be read" in err
        assert output.totals or unreadable or self.sampler.posts == posts, "jobs were sent, but there is no summary"
        check(output, self.listed, self.contents, before)

    def _check_record(self) -> None:
        """Compare the ledger with the server's jobs."""
        self.contents = read_ledger(self.ledger)
        self.keys[self.sampler.run] = {
            run.manifest: run.run_key for run in self.contents.runs
        }  # the last run of each manifest
        jobs = {job.id: job for plan in self.plans for w, _ in plan.pairs for job in self.backend.jobs(w)}
        own_jobs = {job_id: jobs[job_id] for job_id in self.sampler.created_in}
        rows = self.contents.rows
        for row in rows:
            if row.job_id is not None:
                job = own_jobs.get(row.job_id)
                self._require(job is not None, f"the ledger has a job that this campaign did not create: {row}")
                assert job is not None
                self._require(job.workflow_id == row.workflow_id, f"the job belongs to another workflow: {row}")
                self._require(
                    job.project_id == row.project_id or not row.assigned, f"the job belongs to another project: {row}"
                )
        created = Counter((job.workflow_id, job.project_id) for job in own_jobs.values())
        listed = Counter(pair for plan in self.plans for pair in plan.pairs)
        for pair, count in created.items():
            matching_rows = [row for row in rows if row.pair == pair]
            keys = {row.run_key for row in matching_rows}
            over = count - listed[pair] * max(1, len(keys))
            self.tally.duplicates += max(0, over)
            assert over <= 0, f"created {count} times, but listed {listed[pair]} times for {sorted(keys)}: {pair}"
        self._check_keys(rows, listed)
        self._check_losses(rows, created)

    def _check_keys(self, rows: Sequence[SubmissionLine], listed: Counter[Pair]) -> None:
        """Fail if, for a run key, a pair is in the ledger or (where certain) was created more often than listed."""
        for (manifest, key, pair), count in Counter((row.manifest, row.run_key, row.pair) for row in rows).items():
            assert count <= listed[pair], f"{count} of {pair} in the ledger for {manifest}, {key}"
        uncertain = {row.workflow_id for row in rows if row.recovered}
        by_key: Counter[tuple[str, Pair]] = Counter()
        for plan in self.plans:
            for w in {w for w, _ in plan.pairs} - uncertain:
                for job in self.backend.jobs(w):
                    run = self.sampler.created_in.get(job.id)
                    if run is not None and (job.workflow_id, job.project_id) in plan.pairs:
                        by_key[self.keys[run][plan.name], (job.workflow_id, job.project_id)] += 1
        for (key, pair), count in by_key.items():
            self.tally.duplicates += max(0, count - listed[pair])
            assert count <= listed[pair], f"{count} of {pair} created for {key}"

    def _check_losses(self, rows: Sequence[SubmissionLine], created: Counter[Pair]) -> None:
        contents = {row.job_id for row in rows}
        unknown_ids: Counter[Pair] = Counter()
        for job_id in self.sampler.created_in.keys() - contents:
            unknown_ids[self._pair_of(job_id)] += 1
        doubts = Counter(row.pair for row in rows if row.is_in_doubt)
        lost = _by_workflow(unknown_ids) - _by_workflow(doubts)
        self.tally.losses += lost.total()
        assert not lost, f"created, but neither in the ledger nor in doubt: {dict(lost)}"
        uncertain = {row.workflow_id for row in rows if not row.assigned}
        for pair, count in unknown_ids.items():
            if pair[0] not in uncertain:
                self._require(
                    count <= doubts[pair], f"reported as not created, but created {created[pair]} times: {pair}"
                )

    def _pair_of(self, job_id: str) -> Pair:
        pairs = {pair for plan in self.plans for pair in plan.pairs}
        return next((w, p) for w, p in pairs for job in self.backend.jobs(w) if (job.id, job.project_id) == (job_id, p))

    def _require(self, holds: bool, decisions: str) -> None:
        self.tally.false_claims += not holds
        assert holds, decisions

    def _check_done(self, plan: PlannedManifest) -> None:
        """Fail unless every job of a manifest is created for the key of its last run."""
        key = next(run.run_key for run in reversed(self.contents.runs) if run.manifest == plan.name)
        rows = [row for row in self.contents.rows if (row.manifest, row.run_key) == (plan.name, key)]
        created = Counter(row.pair for row in rows if row.state == "created")
        assert created == Counter(plan.pairs), f"{plan.name} is not complete for {key}: {rows}"
        assert not {row.job_id for row in rows} & self._foreign_ids, "a job of someone else was adopted"

    # Manual resolution, by someone who sees the jobs on the server.

    def _resolve_manually(self) -> None:
        rows = self.contents.rows
        unknown_ids = sorted(self.sampler.created_in.keys() - {row.job_id for row in rows})
        decisions: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if row.state == "in_doubt":
                matching = [job_id for job_id in unknown_ids if self._pair_of(job_id) == row.pair]
                matching.sort(
                    key=lambda job_id: self.keys[self.sampler.created_in[job_id]].get(row.manifest) != row.run_key
                )
                options = ["--adopt", f"{row.name}={matching[0]}"] if matching else ["--absent", row.name]
                unknown_ids = [job_id for job_id in unknown_ids if job_id not in matching[:1]]
                decisions.setdefault((row.manifest, row.run_id), []).extend(options)
        for (manifest, run_id), options in decisions.items():
            result = self._call(["resolve", f"{manifest}.yaml", "--run", run_id, *options], _LONG, {})
            self.history.append(f"  resolve {options} -> {result.code}")
            allowed = (0, 3) if self.sampler.disabled else (0, 3, 4)  # adopting needs a response of the API
            assert result.code in allowed, f"resolve exited with code {result.code}"
            self.tally.manual_resolutions += result.code != 4
            self._check_record()


def _event_name(event: str) -> str:
    """The name under which an injected event is counted."""
    do, value = event.split(" ", 1)
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
