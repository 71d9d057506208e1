"""Any interleaving of runs, look-ups and crashes on a ledger, and of manifests that change, held against a model."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import past
from support.past import THEN, begin, job, lost, made, refused

from runner import plan
from runner.errors import RefusedError
from runner.journal import Claim, Decided
from runner.ledger.book import Book
from runner.ledger.rows import Decision, RunRow, Standing, State
from runner.ledger.store import Ledger
from runner.model import Created, Failed, InDoubt, Job, Manifest, Submission

Key = tuple[str, str, str, str, int]  # API, manifest, run key, pair as one word, ordinal

JOBS = (job("a"), job("b", project_id="p-2"), job("c", "w-2"))
SUBMISSIONS = tuple(Submission(one, ordinal) for one in JOBS for ordinal in (1, 2))
OPEN = ("sending", "created", "in_doubt")
MANIFESTS = (("https://one.example", "nightly"), ("https://one.example", "other"), ("https://two.example", "nightly"))

whose = st.sampled_from(MANIFESTS)
run_keys = st.sampled_from(("day:1", "day:2"))
some = st.lists(st.integers(0, len(SUBMISSIONS) - 1), max_size=3, unique=True).map(
    lambda numbers: [SUBMISSIONS[number] for number in numbers]
)
pairs = st.sampled_from((("w-1", "p-1"), ("w-1", "p-2"), ("w-2", "p-1")))
numbers = st.integers(0, 9)
job_ids = st.integers(1, 6).map("job-{}".format)


@dataclass
class Known:
    """What the model knows of a submission: all that must never be lost."""

    state: str
    job_id: str | None = None
    body: bytes = b""
    run_id: str = ""
    number: int | None = None


@dataclass
class Running:
    """A run whose process is alive: it holds its manifest's lock."""

    row: RunRow
    book: Book


@dataclass
class Turn:
    """One transaction that a run asks for, and what it comes to if it is allowed."""

    decided: list[Decided] = field(default_factory=list)
    released: list[Submission] = field(default_factory=list)
    claimed: list[Claim] = field(default_factory=list)
    after: dict[Key, Known] = field(default_factory=dict)


class LedgerMachine(RuleBasedStateMachine):
    """Two connections to one file, as two processes have them; a crash copies the file and goes on with the copy."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.known: dict[Key, Known] = {}
        self.running: dict[tuple[str, str], Running] = {}
        self.count = 0

    @initialize()
    def open(self) -> None:
        self.path = self.home / "0" / "ledger.db"
        self.path.parent.mkdir()
        self._open(make=True)

    def _open(self, *, make: bool = False) -> None:
        self.ledgers = {one: Ledger(self.path, make=make) for one in MANIFESTS}
        for (
            ledger
        ) in self.ledgers.values():  # a crash of the processes, not of the machine: the disk need not be waited for
            ledger._connection.execute("PRAGMA synchronous = OFF")
        self.running.clear()

    def teardown(self) -> None:
        for ledger in getattr(self, "ledgers", {}).values():
            ledger.close()
        shutil.rmtree(self.home)

    # What runs do.

    @rule(whose=whose, run_key=run_keys)
    def begin(self, whose: tuple[str, str], run_key: str) -> None:
        """A run begins, as after a lock was taken: its manifest's earlier one is gone, and its intents are doubts."""
        api, manifest = whose
        ledger = self.ledgers[whose]
        self.count += 1
        ledger.doubt_intents(api, manifest, past.LOST)
        for (at, name, *_), one in self.known.items():
            if (at, name) == whose and one.state == "sending":
                one.state = "in_doubt"
        row = begin(ledger, f"r-{self.count}", JOBS, api=api, manifest=manifest, key=run_key, end=None)
        self.running[whose] = Running(row, Book(ledger, row))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), claims=some, job_id=job_ids)
    def turn(self, data: st.DataObject, claims: list[Submission], job_id: str) -> None:
        """A run decides and releases what it has in flight, and claims more: all of it or nothing."""
        whose = data.draw(st.sampled_from(sorted(self.running)))
        one = self.running[whose]
        turn = self._turn(data, whose, one, claims, job_id)
        allowed = self._allowed(whose, turn)
        try:
            one.book.commit(turn.decided, turn.released, turn.claimed)
        except sqlite3.IntegrityError:
            assert not allowed, "a turn that is allowed was refused"
        else:
            assert allowed, "a turn that is forbidden was kept"
            self.known |= turn.after

    def _turn(
        self, data: st.DataObject, whose: tuple[str, str], one: Running, claims: list[Submission], job_id: str
    ) -> Turn:
        turn = Turn()
        flying = [
            submission
            for submission in SUBMISSIONS
            if self._get(whose, one, submission).state == "sending"
            and self._get(whose, one, submission).run_id == one.row.id
        ]
        for submission in flying:
            what = data.draw(st.sampled_from(("wait", "created", "failed", "in_doubt", "released")))
            if what == "wait":
                continue
            known = replace(self._get(whose, one, submission), state=what)
            if what == "released":
                turn.released.append(submission)
            else:
                outcome = _outcome(what, job_id)
                turn.decided.append(Decided(submission, outcome, THEN + timedelta(seconds=1)))
                if isinstance(outcome, Created):
                    known = replace(known, job_id=job_id, body=outcome.body)
            turn.after[self._key(whose, one, submission)] = known
        for submission in claims:
            turn.claimed.append(Claim(submission, 1, THEN, 30.0))
        return turn

    def _allowed(self, whose: tuple[str, str], turn: Turn) -> bool:
        """Whether the rules let a turn be kept; it completes what the turn comes to."""
        one = self.running[whose]
        ids = [known.job_id for known in turn.after.values() if known.job_id is not None]
        held = {known.job_id for (api, *_), known in self.known.items() if api == whose[0]}
        allowed = len(ids) == len(set(ids)) and not set(ids) & held
        for claim in turn.claimed:
            key = self._key(whose, one, claim.submission)
            before = turn.after.get(key) or self.known.get(key, Known(""))
            allowed = allowed and before.state not in OPEN
            turn.after[key] = replace(before, state="sending", run_id=one.row.id)
        return allowed

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A run ends with nothing in flight, or is killed: what it had in flight stays an intent."""
        whose = data.draw(st.sampled_from(sorted(self.running)))
        one = self.running.pop(whose)
        if data.draw(st.booleans()):
            self.ledgers[whose].end_run(one.row.id, "completed", "", THEN)

    # What look-ups and people do.

    @rule(data=st.data(), whose=whose, job_id=job_ids, what=st.sampled_from(("created", "failed")))
    def settle(self, data: st.DataObject, whose: tuple[str, str], job_id: str, what: str) -> None:
        """A doubt is settled; so, all at once, is something that is no doubt, and then nothing is."""
        mine = [key for key in sorted(self.known) if key[:2] == whose and self.known[key].number is not None]
        if not mine:
            return
        keys = data.draw(st.lists(st.sampled_from(mine), min_size=1, max_size=2, unique=True))
        held = {known.job_id for (api, *_), known in self.known.items() if api == whose[0]}
        doubts = all(self.known[key].state in ("in_doubt", "sending") for key in keys)
        allowed = doubts and (what == "failed" or (job_id not in held and len(keys) == 1))
        outcome = _outcome(what, job_id)
        decisions = [
            Decision(self.known[key].number or 0, outcome, None, "me", THEN, "settled", job_id) for key in keys
        ]
        if any(self.known[key].state == "sending" for key in keys):
            return  # only a lock's holder may, and whoever holds it has made a doubt of it before
        if not allowed:
            with pytest.raises((sqlite3.IntegrityError, RefusedError)):
                self.ledgers[whose].settle(decisions)
            return
        self.ledgers[whose].settle(decisions)
        for key in keys:
            self.known[key].state = what
            if isinstance(outcome, Created):
                self.known[key].job_id, self.known[key].body = job_id, outcome.body

    # What goes wrong.

    @rule()
    def crash(self) -> None:
        """All processes die: what is on the disk is the file and its log."""
        self.count += 1
        after = self.home / str(self.count) / "ledger.db"
        after.parent.mkdir()
        for part in self.path.parent.glob("ledger.db*"):
            if not part.name.endswith("-shm"):
                shutil.copy(part, after.parent)
        for ledger in self.ledgers.values():
            ledger.close()
        self.path = after
        self._open()

    @rule(data=st.data())
    def crash_within_a_transaction(self, data: st.DataObject) -> None:
        """A process dies before its COMMIT: nothing of the transaction was ever there."""
        if self.running:
            whose = data.draw(st.sampled_from(sorted(self.running)))
            one, ledger = self.running[whose], self.ledgers[whose]
            ledger._connection.execute("BEGIN IMMEDIATE")
            for submission in SUBMISSIONS:
                if self._get(whose, one, submission).state not in OPEN:
                    ledger.claim(one.row, ledger.manifest_id(*whose), Claim(submission, 1, THEN, 30.0))
            ledger._connection.execute("ROLLBACK")
        self.crash()

    # What must be true.

    @invariant()
    def nothing_is_lost_or_made_up(self) -> None:
        if not hasattr(self, "ledgers"):
            return
        ledger = self.ledgers[MANIFESTS[0]]
        standings = {_key_of(one): one for one in ledger.everything()}
        assert set(standings) == set(self.known)
        for key, known in self.known.items():
            found = standings[key]
            assert (found.state, found.job_id) == (known.state, known.job_id)
            assert known.number in (None, found.id)
            known.number = found.id
            if known.state == "created":
                assert ledger.body(found.id) == known.body
                assert ledger.holds(key[0], known.job_id or "")

    @invariant()
    def a_job_belongs_to_one_submission_at_an_api(self) -> None:
        ids = [(key[0], known.job_id) for key, known in self.known.items() if known.job_id is not None]
        assert len(ids) == len(set(ids))

    def _key(self, whose: tuple[str, str], one: Running, submission: Submission) -> Key:
        return (*whose, one.row.run_key, "/".join(submission.job.pair), submission.ordinal)

    def _get(self, whose: tuple[str, str], one: Running, submission: Submission) -> Known:
        return self.known.get(self._key(whose, one, submission), Known(""))


def _key_of(one: Standing) -> Key:
    return (one.api, one.manifest, one.run_key, "/".join(one.pair), one.ordinal)


def _outcome(what: str, job_id: str) -> Created | Failed | InDoubt:
    outcomes: dict[str, Callable[[], Any]] = {
        "created": lambda: made(job_id),
        "failed": refused,
        "in_doubt": lambda: lost("some", "candidates"),
    }
    outcome: Created | Failed | InDoubt = outcomes[what]()
    return outcome


class PlanMachine(RuleBasedStateMachine):
    """One manifest that people keep changing, under one run key; what is planned is sent with any outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.standings: list[Standing] = []
        self.most: Counter[tuple[str, str]] = Counter()  # of each pair: how often it was ever enabled at once
        self.names = 0

    # What people do to a manifest.

    def _name(self) -> str:
        self.names += 1
        return f"n-{self.names}"

    @rule(pair=pairs, name=st.none() | st.sampled_from(("x", "y", "z")), enabled=st.booleans())
    def add(self, pair: tuple[str, str], name: str | None, enabled: bool) -> None:
        if name is None or name in (one.name for one in self.jobs):
            name = self._name()
        self.jobs.append(Job(name, *pair, enabled=enabled))

    @precondition(lambda self: self.jobs)
    @rule(at=numbers)
    def remove(self, at: int) -> None:
        del self.jobs[at % len(self.jobs)]

    @precondition(lambda self: self.jobs)
    @rule(at=numbers)
    def split(self, at: int) -> None:
        one = self.jobs[at % len(self.jobs)]
        self.jobs.append(replace(one, name=self._name()))

    @precondition(lambda self: self.jobs)
    @rule(at=numbers)
    def switch(self, at: int) -> None:
        one = self.jobs[at % len(self.jobs)]
        self.jobs[at % len(self.jobs)] = replace(one, enabled=not one.enabled)

    @precondition(lambda self: self.jobs)
    @rule(at=numbers)
    def rename(self, at: int) -> None:
        self.jobs[at % len(self.jobs)] = replace(self.jobs[at % len(self.jobs)], name=self._name())

    @rule()
    def regenerate(self) -> None:
        self.jobs = [replace(one, name=f"g-{number}") for number, one in enumerate(self.jobs)]

    @precondition(lambda self: len(self.jobs) > 1)
    @rule(at=numbers, to=numbers)
    def exchange_names(self, at: int, to: int) -> None:
        at, to = at % len(self.jobs), to % len(self.jobs)
        one, other = self.jobs[at].name, self.jobs[to].name
        self.jobs[at] = replace(self.jobs[at], name=other)
        self.jobs[to] = replace(self.jobs[to], name=one) if at != to else self.jobs[to]

    @rule(chance=st.randoms(use_true_random=False))
    def shuffle(self, chance: random.Random) -> None:
        chance.shuffle(self.jobs)

    # What runs make of it.

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), only=st.booleans())
    def run(self, data: st.DataObject, only: bool) -> None:
        """A run that may be killed anywhere: what it did not come to has no outcome, or is not claimed."""
        globs = [data.draw(st.sampled_from([one.name for one in self.jobs]))] if only else []
        self._settle_intents()
        for submission in self._plan(globs).sends:
            what = data.draw(st.sampled_from(("created", "failed", "in_doubt", "released", "sending", "killed")))
            if what == "killed":
                break
            self._claim(submission, cast("State", what))

    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Doubts are settled, or some of them."""
        for at, one in enumerate(self.standings):
            if one.state == "in_doubt":
                state: Any = data.draw(st.sampled_from(("created", "failed", "in_doubt")))
                self.standings[at] = replace(one, state=state)

    @precondition(lambda self: self.jobs)
    @rule()
    def one_that_succeeds(self) -> None:
        """A run with which all goes well: then each pair is there as often as it is listed, or as it was before."""
        before = self._bought()
        self._settle_intents()
        for submission in self._plan([]).sends:
            self._claim(submission, "created")
        listed = self._listed()
        assert self._bought() == before | listed  # the greater of both, for each pair
        assert not self._plan([]).sends

    def _plan(self, globs: list[str]) -> plan.Plan:
        self.most |= self._listed()
        made = plan.make(Manifest("m", "m.yaml", "0" * 64, tuple(self.jobs)), globs, self.standings)
        matched = [one.id for one in (*made.match.of.values(), *made.match.gone)]
        assert len(matched) == len(set(matched)), "one submission stands for two entries"
        assert {one.id for one in self.standings if one.counts} <= set(matched), "one that exists is not told"
        return made

    def _claim(self, submission: Submission, state: State) -> None:
        one = submission.job
        assert one.enabled
        for at, standing in enumerate(self.standings):
            if (standing.pair, standing.ordinal) == (one.pair, submission.ordinal):
                assert standing.state in ("failed", "released"), f"claimed while {standing.state}"
                self.standings[at] = replace(standing, state=state, name=one.name)
                return
        self.standings.append(_standing(len(self.standings) + 1, submission, state))

    def _settle_intents(self) -> None:
        self.standings = [replace(one, state="in_doubt") if one.state == "sending" else one for one in self.standings]

    def _listed(self) -> Counter[tuple[str, str]]:
        return Counter(one.pair for one in self.jobs if one.enabled)

    def _bought(self) -> Counter[tuple[str, str]]:
        return Counter(one.pair for one in self.standings if one.counts)

    @invariant()
    def no_pair_is_bought_more_often_than_it_was_ever_listed(self) -> None:
        assert self._bought() <= self.most


def _standing(number: int, submission: Submission, state: State) -> Standing:
    return Standing(
        id=number,
        api=past.API,
        manifest="m",
        run_key="day:1",
        run_id="r-1",
        name=submission.job.name,
        workflow_id=submission.job.workflow_id,
        project_id=submission.job.project_id,
        ordinal=submission.ordinal,
        again=submission.again,
        labels={},
        state=state,
        attempts=1,
        claimed_at=THEN,
        ended_at=None,
        timeout=30.0,
        job_id=None,
        cost=None,
        val_errors=0,
        recovered=False,
        assigned=True,
        error=None,
        candidates=(),
    )


TestPlanMachine = PlanMachine.TestCase
TestPlanMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
