"""Whatever the order of claims, outcomes, runs, look-ups and crashes: the ledger against a model of its promise."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import ledger_history
from support.ledger_history import THEN, TIMEOUT, in_doubt, job, not_created, response_body, start_run

from runner.core.errors import RefusedError
from runner.core.models import Created, ErrorInfo, InDoubt, NotCreated, Submission
from runner.ledger import connect
from runner.ledger.errors import LedgerError
from runner.ledger.journal import JobIdTakenError, RunJournal
from runner.ledger.rows import Claim, Decision, RecordedOutcome, RunRow, SubmissionRow
from runner.ledger.store import Ledger


class Whose(NamedTuple):
    api: str
    manifest: str


class Forbidden(Exception):  # noqa: N818 - no error: the answer of the model
    """The ledger must refuse it."""


class Slot(NamedTuple):
    """What makes a submission the same one."""

    whose: Whose
    run_key: str
    workflow_id: str
    project_id: str
    ordinal: int


@dataclass(frozen=True)
class Known:
    """What must never be lost of a submission. `error` is the kind of it."""

    state: str
    run_id: str
    attempts: int
    job_id: str | None = None
    body: bytes = b""
    error: str | None = None
    candidates: tuple[str, ...] = ()


Truth = dict[Slot, Known]
Turn = tuple[list[RecordedOutcome], list[Submission], list[Claim]]
Outcome = Created | NotCreated | InDoubt

WHOSE = (Whose("https://one.example", "nightly"), Whose("https://one.example", "weekly"),
         Whose("https://two.example", "nightly"))  # fmt: skip
JOBS = (job("a"), job("b", project_id="p-2"))
SUBMISSIONS = (Submission(JOBS[0], 1), Submission(JOBS[0], 2), Submission(JOBS[1], 1))
JOB_IDS = ("j-1", "J-1", "\ud800", "é")

# What may become of what; written down here once more, so that a change of the ledger's own table is noticed.
AFTER_CLAIM = {None, "released", "not_created"}
AFTER_OUTCOME = {
    "sending": {"created", "not_created", "in_doubt"},
    "in_doubt": {"created", "not_created"},
    "not_created": {"created"},  # on somebody's word, and adopted after all
}

whoses = st.sampled_from(WHOSE)
keys = st.sampled_from(["day:1", "day:2"])
# What a turn is made of comes from a seed: drawn one by one, most turns would be empty.
chances = st.integers(0, 2**32 - 1).map(random.Random)


@dataclass
class Process:
    """One run's process: its connection, its book, and what it has claimed and not decided."""

    ledger: Ledger
    run: RunRow
    book: RunJournal
    open: list[Submission] = field(default_factory=list)

    def slot(self, submission: Submission) -> Slot:
        one = submission.job
        whose = Whose(self.run.api, self.run.manifest)
        return Slot(whose, self.run.run_key, one.workflow_id, one.project_id, submission.ordinal)


class Failing:
    """A connection whose n-th statement fails as on a full disk, after `before` was called."""

    def __init__(self, connection: sqlite3.Connection, at: int, before: Callable[[], object]) -> None:
        self._connection = connection
        self._left = at
        self._before = before
        self.failed = False

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        self._left -= 1
        if self._left == 0:
            self._before()
            self.failed = True
            raise sqlite3.OperationalError("made up: database or disk is full")
        return self._connection.execute(statement, values)


def claimed(truth: Truth, slot: Slot, run_id: str, attempt: int) -> None:
    before = truth.get(slot)
    if (before and before.state) not in AFTER_CLAIM:
        raise Forbidden
    truth[slot] = Known("sending", run_id, attempt)


def decided(truth: Truth, slot: Slot, outcome: Outcome) -> None:
    before = truth[slot]
    match outcome:
        case Created(job_id=job_id, body=body):
            taken = any(one.job_id == job_id for other, one in truth.items() if other.whose.api == slot.whose.api)
            after = replace(before, state="created", job_id=job_id, body=body, error=None, candidates=())
        case NotCreated(error=error):
            taken, after = False, replace(before, state="not_created", error=error.kind, candidates=())
        case InDoubt(error=error, candidates=candidates):
            taken, after = False, replace(before, state="in_doubt", error=error.kind, candidates=candidates)
    if (before.state, after.state) == ("not_created", "created"):  # somebody's word is taken back, and nothing else
        taken = taken or before.error != "absent" or not getattr(outcome, "recovered", False)
    if taken or after.state not in AFTER_OUTCOME.get(before.state, ()):
        raise Forbidden
    truth[slot] = after


def freed(truth: Truth, slot: Slot) -> None:
    if truth[slot].state != "sending":
        raise Forbidden
    truth[slot] = replace(truth[slot], state="released")


def doubted(truth: Truth, whose: Whose) -> None:
    for slot, known in truth.items():
        if slot.whose == whose and known.state == "sending":
            truth[slot] = replace(known, state="in_doubt", error=TIMEOUT.kind)


class Machine(RuleBasedStateMachine):
    """Three manifests, two of them at one API, each with at most one live run; a reader looks on."""

    def __init__(self, template: bytes, folder: Path) -> None:
        super().__init__()
        self._folders = (folder / str(number) for number in count(1))
        self._numbers = count(1)
        self.path = self._new_path()
        self.path.write_bytes(template)
        self.truth: Truth = {}
        self.decisions: dict[Slot, int] = {}
        self.processes: dict[Whose, Process] = {}
        self.reader = Ledger(self.path)

    def teardown(self) -> None:
        for whose in list(self.processes):
            self._kill(whose)
        self.reader.close()
        with Ledger(self.path) as ledger:
            self._compare(ledger)
            ledger.check_integrity()
        shutil.rmtree(self.path.parent)

    # Runs begin and end.

    @initialize()
    def begin_all(self) -> None:
        for whose in WHOSE:
            self.begin(whose, "day:1")

    @rule(whose=whoses, run_key=keys)
    def begin(self, whose: Whose, run_key: str) -> None:
        """A run begins as `execution` has it; one of this manifest that still went has been killed."""
        self._kill(whose)
        ledger = Ledger(self.path)
        ledger.mark_intents_in_doubt(*whose, TIMEOUT)
        doubted(self.truth, whose)
        run_id = f"r-{next(self._numbers)}"
        run = start_run(ledger, run_id, JOBS, api=whose.api, manifest=whose.manifest, key=run_key, end=None)
        self.processes[whose] = Process(ledger, run, RunJournal(ledger, run))

    @precondition(lambda self: self.processes)
    @rule(chance=chances)
    def end(self, chance: random.Random) -> None:
        process = self.processes.pop(chance.choice(sorted(self.processes)))
        process.ledger.finish_run(replace(process.run, state="interrupted", reason="interrupted", finished_at=THEN))
        process.ledger.close()

    @precondition(lambda self: self.processes)
    @rule(chance=chances)
    def kill(self, chance: random.Random) -> None:
        self._kill(chance.choice(sorted(self.processes)))

    @rule()
    def lose_power(self) -> None:
        self._lose_power(self._copied())

    # Turns of a run.

    @precondition(lambda self: self.processes)
    @rule(chance=chances)
    def turns(self, chance: random.Random) -> None:
        """Outcomes, releases and claims, allowed or not."""
        process = self._process(chance)
        for _ in range(6):
            self._take(process, self._turn(chance, process))

    def _take(self, process: Process, turn: Turn) -> None:
        after = self._after(process, *turn)
        if after is None:
            with pytest.raises((sqlite3.IntegrityError, JobIdTakenError)):
                process.book.commit(*turn)
        else:
            process.book.commit(*turn)
            self._keep(process, turn, after)

    @precondition(lambda self: self.processes)
    @rule(chance=chances, at=st.integers(1, 9), power=st.booleans())
    def torn_turn(self, chance: random.Random, at: int, power: bool) -> None:
        """The disk is full, or the power is lost, at one statement of a turn."""
        process = self._process(chance)
        turn = self._turn(chance, process)
        after = self._after(process, *turn)
        if after is None:
            return
        copies: list[Path] = []
        failing = Failing(process.ledger._connection, at, lambda: copies.append(self._copied()) if power else None)
        with patch.object(process.ledger, "_connection", failing):
            try:
                process.book.commit(*turn)
            except LedgerError:
                assert failing.failed
        if not failing.failed:
            self._keep(process, turn, after)
        elif power:
            self._lose_power(copies[0])

    @precondition(lambda self: self.processes)
    @rule(chance=chances, submission=st.sampled_from(SUBMISSIONS))
    def a_book_decides_only_what_it_claimed(self, chance: random.Random, submission: Submission) -> None:
        process = self._process(chance)
        if submission in process.open:
            return
        one = RecordedOutcome(submission, not_created(), THEN)
        with pytest.raises(KeyError):
            process.book.commit([one], [], [])
        with pytest.raises(KeyError):
            process.book.commit([], [submission], [])

    # What is settled later.

    @rule(chance=chances)
    def settle(self, chance: random.Random) -> None:
        """A look-up or a person settles doubts: of live runs too, as they do it themselves."""
        idle = sorted(slot for slot, known in self.truth.items() if known.state != "sending")
        if not idle:
            return
        slots = chance.choices(idle, k=chance.randint(1, 3))
        numbers = {self._slot(one): one.id for one in self.reader.all_submissions()}
        after = dict(self.truth)
        decisions: list[Decision] = []
        allowed = True
        for slot in slots:
            outcome = self._outcome(chance)
            decisions.append(Decision(numbers[slot], outcome, None, "me", THEN, "settled", ""))
            try:
                decided(after, slot, outcome)
            except Forbidden:
                allowed = False
        if not allowed:
            with pytest.raises(RefusedError):
                self.reader.resolve(decisions)
            return
        self.reader.resolve(decisions)
        self.truth = after
        for slot in slots:
            self.decisions[slot] = self.decisions.get(slot, 0) + 1

    @precondition(lambda self: any(one.state == "in_doubt" for one in self.truth.values()))
    @rule(chance=chances, candidates=st.lists(st.sampled_from(JOB_IDS), max_size=2).map(tuple))
    def keep_candidates(self, chance: random.Random, candidates: tuple[str, ...]) -> None:
        doubts = sorted(slot for slot, known in self.truth.items() if known.state == "in_doubt")
        slot = chance.choice(doubts)
        [number] = [one.id for one in self.reader.all_submissions() if self._slot(one) == slot]
        self.reader.save_candidates({number: candidates})
        self.truth[slot] = replace(self.truth[slot], candidates=candidates)

    # What holds at all times.

    @invariant()
    def nothing_is_lost_and_nothing_made_up(self) -> None:
        self._compare(self.reader)

    def _compare(self, ledger: Ledger) -> None:
        standings = ledger.all_submissions()
        found = {self._slot(one): self._known(ledger, one) for one in standings}
        assert len(found) == len(standings)
        assert found == self.truth
        for whose in WHOSE:
            unsettled = {self._slot(one) for one in ledger.unresolved(*whose)}
            assert unsettled == {
                slot for slot, one in found.items() if slot.whose == whose and one.state in ("sending", "in_doubt")
            }
        for api in {whose.api for whose in WHOSE}:
            for job_id in JOB_IDS:
                holders = [one for one in standings if (one.api, one.job_id) == (api, job_id)]
                assert len(holders) <= 1
                assert bool(ledger.ids_in_use(api, [job_id])) == bool(holders)
                assert ledger.submission_by_job_id(api, job_id) == (holders[0] if holders else None)
        settled = {self._slot(one): len(ledger_history.decisions(ledger, one.id)) for one in standings}
        assert {slot: times for slot, times in settled.items() if times} == self.decisions

    @staticmethod
    def _known(ledger: Ledger, one: SubmissionRow) -> Known:
        assert one.consumes_slot == (one.state in ("sending", "created", "in_doubt"))
        kind = one.error.kind if one.error else None
        body = response_body(ledger, one.id)
        return Known(one.state, one.run_id, one.attempts, one.job_id, body, kind, one.candidates)

    @staticmethod
    def _slot(one: SubmissionRow) -> Slot:
        return Slot(Whose(one.api, one.manifest), one.run_key, one.workflow_id, one.project_id, one.ordinal)

    # What the rules are made of.

    def _process(self, chance: random.Random) -> Process:
        return self.processes[chance.choice(sorted(self.processes))]

    def _turn(self, chance: random.Random, process: Process) -> Turn:
        ends = chance.sample(process.open, chance.randint(0, len(process.open)))
        outcomes = [RecordedOutcome(one, self._outcome(chance), THEN + timedelta(seconds=1)) for one in ends]
        # A release of what was decided in the same turn is forbidden: now and then it is tried.
        idle = [one for one in process.open if one not in ends or chance.random() < 0.1]
        released = [one for one in idle if chance.random() < 0.2]
        claims = chance.choices(SUBMISSIONS, k=chance.randint(0, 2))
        return outcomes, released, [Claim(one, next(self._numbers), THEN, 30.0) for one in claims]

    def _outcome(self, chance: random.Random) -> Outcome:
        match chance.choice(["created", "not_created", "in_doubt"]):
            case "created":
                job_id = chance.choice(JOB_IDS)
                body = json.dumps({"id": job_id, "number": next(self._numbers)}).encode()
                return Created(job_id, body, 1, THEN, recovered=chance.choice([True, False]))
            case "not_created":
                return chance.choice([not_created(), NotCreated(ErrorInfo("absent", "somebody says so"), 1, THEN)])
            case _:
                return in_doubt("x", "\udfff")

    def _after(
        self, process: Process, ends: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> Truth | None:
        """The truth after a turn; None when the turn is forbidden."""
        truth = dict(self.truth)
        try:
            for one in ends:
                decided(truth, process.slot(one.submission), one.outcome)
            for submission in released:
                freed(truth, process.slot(submission))
            for claim in claims:
                claimed(truth, process.slot(claim.submission), process.run.id, claim.attempt)
        except Forbidden:
            return None
        return truth

    def _keep(self, process: Process, turn: Turn, after: Truth) -> None:
        ends, released, claims = turn
        self.truth = after
        gone = [*(one.submission for one in ends), *released]
        process.open = [one for one in process.open if one not in gone] + [one.submission for one in claims]

    def _kill(self, whose: Whose) -> None:
        """A connection goes, and with it what it had not committed; nothing is said or folded."""
        process = self.processes.pop(whose, None)
        if process is not None:
            process.ledger._connection.close()

    def _new_path(self) -> Path:
        folder = next(self._folders)
        folder.mkdir()
        return folder / "ledger.db"

    def _copied(self) -> Path:
        """What is on the disk at this moment. The shared memory is of no use to anyone after a crash."""
        path = self._new_path()
        for suffix in ("", "-wal"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                shutil.copyfile(part, path.with_name(path.name + suffix))
        return path

    def _lose_power(self, left: Path) -> None:
        for whose in list(self.processes):
            self._kill(whose)
        self.reader._connection.close()
        shutil.rmtree(self.path.parent)
        self.path = left
        self.reader = Ledger(self.path)


def without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine does not fail here, and thousands of commits are made."""
    prepare = connect._prepare

    def quick(connection: sqlite3.Connection, path: Path) -> None:
        prepare(connection, path)
        connection.execute("PRAGMA synchronous = OFF")

    monkeypatch.setattr(connect, "_prepare", quick)


@pytest.mark.hypothesis
def test_no_order_of_events_claims_twice_or_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting_for_the_disk(monkeypatch)
    with ledger_history.open_ledger(tmp_path / "template.db"):
        pass
    template = (tmp_path / "template.db").read_bytes()
    runs = count(1)

    def fresh() -> Machine:
        folder = tmp_path / f"machine-{next(runs)}"
        folder.mkdir()
        return Machine(template, folder)

    run_state_machine_as_test(
        cast("Any", fresh),
        settings=settings(
            max_examples=45,
            stateful_step_count=30,
            phases=[Phase.generate],  # to shrink it takes minutes, as each try makes a ledger
        ),
    )
