"""The ledger compared with a model, for any order of claims, outcomes, runs, lookups and crashes."""

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


class Scope(NamedTuple):
    api: str
    manifest: str


class Forbidden(Exception):  # noqa: N818 - not an error, but what the model says
    """The ledger must refuse the write."""


class Slot(NamedTuple):
    """What identifies a submission."""

    scope: Scope
    run_key: str
    workflow_id: str
    project_id: str
    ordinal: int


@dataclass(frozen=True)
class Expected:
    """What the ledger must know about a submission. `error` is its kind."""

    state: str
    run_id: str
    attempts: int
    job_id: str | None = None
    body: bytes = b""
    error: str | None = None
    candidates: tuple[str, ...] = ()


Model = dict[Slot, Expected]
Commit = tuple[list[RecordedOutcome], list[Submission], list[Claim]]
Outcome = Created | NotCreated | InDoubt

SCOPES = (Scope("https://one.example", "nightly"), Scope("https://one.example", "weekly"),
         Scope("https://two.example", "nightly"))  # fmt: skip
JOBS = (job("a"), job("b", project_id="p-2"))
SUBMISSIONS = (Submission(JOBS[0], 1), Submission(JOBS[0], 2), Submission(JOBS[1], 1))
JOB_IDS = ("j-1", "J-1", "\ud800", "é")

# The allowed transitions, repeated here so that a change of the ledger's own list is noticed.
CLAIMABLE = {None, "released", "not_created"}
OUTCOMES = {
    "sending": {"created", "not_created", "in_doubt"},
    "in_doubt": {"created", "not_created"},
    "not_created": {"created"},  # declared absent, and adopted after all
}

scopes = st.sampled_from(SCOPES)
keys = st.sampled_from(["day:1", "day:2"])
# What a commit contains comes from a seed: if Hypothesis drew each part, most commits would be empty.
generators = st.integers(0, 2**32 - 1).map(random.Random)


@dataclass
class Process:
    """The process of one run: its connection, its journal, and its claims without an outcome."""

    ledger: Ledger
    run: RunRow
    journal: RunJournal
    open: list[Submission] = field(default_factory=list)

    def slot(self, submission: Submission) -> Slot:
        job_ = submission.job
        scope = Scope(self.run.api, self.run.manifest)
        return Slot(scope, self.run.run_key, job_.workflow_id, job_.project_id, submission.ordinal)


class FailingConnection:
    """A connection whose n-th statement fails as on a full disk, after `before` was called."""

    def __init__(self, connection: sqlite3.Connection, at: int, before: Callable[[], object]) -> None:
        self._connection = connection
        self._remaining = at
        self._before = before
        self.failed = False

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        self._remaining -= 1
        if self._remaining == 0:
            self._before()
            self.failed = True
            raise sqlite3.OperationalError("simulated: database or disk is full")
        return self._connection.execute(statement, values)


def apply_claim(model: Model, slot: Slot, run_id: str, attempt: int) -> None:
    before = model.get(slot)
    if (before and before.state) not in CLAIMABLE:
        raise Forbidden
    model[slot] = Expected("sending", run_id, attempt)


def apply_outcome(model: Model, slot: Slot, outcome: Outcome) -> None:
    before = model[slot]
    match outcome:
        case Created(job_id=job_id, body=body):
            is_forbidden = any(
                row.job_id == job_id for other_slot, row in model.items() if other_slot.scope.api == slot.scope.api
            )
            after = replace(before, state="created", job_id=job_id, body=body, error=None, candidates=())
        case NotCreated(error=error):
            is_forbidden, after = False, replace(before, state="not_created", error=error.kind, candidates=())
        case InDoubt(error=error, candidates=candidates):
            is_forbidden, after = False, replace(before, state="in_doubt", error=error.kind, candidates=candidates)
    if (before.state, after.state) == ("not_created", "created"):  # only what was declared absent
        is_forbidden = is_forbidden or before.error != "absent" or not getattr(outcome, "recovered", False)
    if is_forbidden or after.state not in OUTCOMES.get(before.state, ()):
        raise Forbidden
    model[slot] = after


def apply_release(model: Model, slot: Slot) -> None:
    if model[slot].state != "sending":
        raise Forbidden
    model[slot] = replace(model[slot], state="released")


def mark_in_doubt(model: Model, scope: Scope) -> None:
    for slot, row in model.items():
        if slot.scope == scope and row.state == "sending":
            model[slot] = replace(row, state="in_doubt", error=TIMEOUT.kind)


class Machine(RuleBasedStateMachine):
    """Three manifests, two of them at one API, each with at most one active run, and a reader."""

    def __init__(self, template: bytes, directory: Path) -> None:
        super().__init__()
        self._directories = (directory / str(number) for number in count(1))
        self._numbers = count(1)
        self.path = self._new_path()
        self.path.write_bytes(template)
        self.model: Model = {}
        self.decisions: dict[Slot, int] = {}
        self.processes: dict[Scope, Process] = {}
        self.reader = Ledger(self.path)

    def teardown(self) -> None:
        for scope in list(self.processes):
            self._kill(scope)
        self.reader.close()
        with Ledger(self.path) as ledger:
            self._compare(ledger)
            ledger.check_integrity()
        shutil.rmtree(self.path.parent)

    # Runs start and finish.

    @initialize()
    def start_all_runs(self) -> None:
        for scope in SCOPES:
            self.start(scope, "day:1")

    @rule(scope=scopes, run_key=keys)
    def start(self, scope: Scope, run_key: str) -> None:
        """Start a run as `execution` does. An active run of the manifest is killed first."""
        self._kill(scope)
        ledger = Ledger(self.path)
        ledger.mark_intents_in_doubt(*scope, TIMEOUT)
        mark_in_doubt(self.model, scope)
        run_id = f"r-{next(self._numbers)}"
        run = start_run(ledger, run_id, JOBS, api=scope.api, manifest=scope.manifest, key=run_key, end=None)
        self.processes[scope] = Process(ledger, run, RunJournal(ledger, run))

    @precondition(lambda self: self.processes)
    @rule(generator=generators)
    def finish(self, generator: random.Random) -> None:
        process = self.processes.pop(generator.choice(sorted(self.processes)))
        process.ledger.finish_run(replace(process.run, state="interrupted", reason="interrupted", finished_at=THEN))
        process.ledger.close()

    @precondition(lambda self: self.processes)
    @rule(generator=generators)
    def kill(self, generator: random.Random) -> None:
        self._kill(generator.choice(sorted(self.processes)))

    @rule()
    def lose_power(self) -> None:
        self._lose_power(self._copy_files())

    # Commits of a run.

    @precondition(lambda self: self.processes)
    @rule(generator=generators)
    def commit(self, generator: random.Random) -> None:
        """Commit outcomes, releases and claims, allowed or not."""
        process = self._draw_process(generator)
        for _ in range(6):
            self._check_commit(process, self._draw_commit(generator, process))

    def _check_commit(self, process: Process, commit: Commit) -> None:
        after = self._predict(process, *commit)
        if after is None:
            with pytest.raises((sqlite3.IntegrityError, JobIdTakenError)):
                process.journal.commit(*commit)
        else:
            process.journal.commit(*commit)
            self._apply(process, commit, after)

    @precondition(lambda self: self.processes)
    @rule(generator=generators, at=st.integers(1, 9), power=st.booleans())
    def failing_commit(self, generator: random.Random, at: int, power: bool) -> None:
        """Fill the disk, or lose power, at one statement of a commit."""
        process = self._draw_process(generator)
        commit = self._draw_commit(generator, process)
        after = self._predict(process, *commit)
        if after is None:
            return
        copies: list[Path] = []
        failing = FailingConnection(
            process.ledger._connection, at, lambda: copies.append(self._copy_files()) if power else None
        )
        with patch.object(process.ledger, "_connection", failing):
            try:
                process.journal.commit(*commit)
            except LedgerError:
                assert failing.failed
        if not failing.failed:
            self._apply(process, commit, after)
        elif power:
            self._lose_power(copies[0])

    @precondition(lambda self: self.processes)
    @rule(generator=generators, submission=st.sampled_from(SUBMISSIONS))
    def outcomes_without_a_claim_are_refused(self, generator: random.Random, submission: Submission) -> None:
        process = self._draw_process(generator)
        if submission in process.open:
            return
        outcome = RecordedOutcome(submission, not_created(), THEN)
        with pytest.raises(KeyError):
            process.journal.commit([outcome], [], [])
        with pytest.raises(KeyError):
            process.journal.commit([], [submission], [])

    # Doubts.

    @rule(generator=generators)
    def resolve(self, generator: random.Random) -> None:
        """Resolve doubts as a lookup or a person does, of active runs, too."""
        idle = sorted(slot for slot, row in self.model.items() if row.state != "sending")
        if not idle:
            return
        slots = generator.choices(idle, k=generator.randint(1, 3))
        ids = {self._slot(row): row.id for row in self.reader.all_submissions()}
        after = dict(self.model)
        decisions: list[Decision] = []
        is_allowed = True
        for slot in slots:
            outcome = self._draw_outcome(generator)
            decisions.append(Decision(ids[slot], outcome, None, "me", THEN, "resolved", ""))
            try:
                apply_outcome(after, slot, outcome)
            except Forbidden:
                is_allowed = False
        if not is_allowed:
            with pytest.raises(RefusedError):
                self.reader.resolve(decisions)
            return
        self.reader.resolve(decisions)
        self.model = after
        for slot in slots:
            self.decisions[slot] = self.decisions.get(slot, 0) + 1

    @precondition(lambda self: any(row.state == "in_doubt" for row in self.model.values()))
    @rule(generator=generators, candidates=st.lists(st.sampled_from(JOB_IDS), max_size=2).map(tuple))
    def save_candidates(self, generator: random.Random, candidates: tuple[str, ...]) -> None:
        doubts = sorted(slot for slot, row in self.model.items() if row.state == "in_doubt")
        slot = generator.choice(doubts)
        [id_] = [row.id for row in self.reader.all_submissions() if self._slot(row) == slot]
        self.reader.save_candidates({id_: candidates})
        self.model[slot] = replace(self.model[slot], candidates=candidates)

    # What always holds.

    @invariant()
    def ledger_equals_model(self) -> None:
        self._compare(self.reader)

    def _compare(self, ledger: Ledger) -> None:
        submissions = ledger.all_submissions()
        rows = {self._slot(row): self._expected(ledger, row) for row in submissions}
        assert len(rows) == len(submissions)
        assert rows == self.model
        for scope in SCOPES:
            unresolved = {self._slot(row) for row in ledger.unresolved(*scope)}
            assert unresolved == {
                slot for slot, row in rows.items() if slot.scope == scope and row.state in ("sending", "in_doubt")
            }
        for api in {scope.api for scope in SCOPES}:
            for job_id in JOB_IDS:
                holders = [row for row in submissions if (row.api, row.job_id) == (api, job_id)]
                assert len(holders) <= 1
                assert bool(ledger.ids_in_use(api, [job_id])) == bool(holders)
                assert ledger.submission_by_job_id(api, job_id) == (holders[0] if holders else None)
        counts = {self._slot(row): len(ledger_history.decisions(ledger, row.id)) for row in submissions}
        assert {slot: count_ for slot, count_ in counts.items() if count_} == self.decisions

    @staticmethod
    def _expected(ledger: Ledger, row: SubmissionRow) -> Expected:
        assert row.consumes_slot == (row.state in ("sending", "created", "in_doubt"))
        kind = row.error.kind if row.error else None
        body = response_body(ledger, row.id)
        return Expected(row.state, row.run_id, row.attempts, row.job_id, body, kind, row.candidates)

    @staticmethod
    def _slot(row: SubmissionRow) -> Slot:
        return Slot(Scope(row.api, row.manifest), row.run_key, row.workflow_id, row.project_id, row.ordinal)

    # What the rules use.

    def _draw_process(self, generator: random.Random) -> Process:
        return self.processes[generator.choice(sorted(self.processes))]

    def _draw_commit(self, generator: random.Random, process: Process) -> Commit:
        finished = generator.sample(process.open, generator.randint(0, len(process.open)))
        outcomes = [
            RecordedOutcome(submission, self._draw_outcome(generator), THEN + timedelta(seconds=1))
            for submission in finished
        ]
        # To release what has an outcome in the same commit is forbidden, and tried now and then.
        idle = [submission for submission in process.open if submission not in finished or generator.random() < 0.1]
        released = [submission for submission in idle if generator.random() < 0.2]
        claims = generator.choices(SUBMISSIONS, k=generator.randint(0, 2))
        return outcomes, released, [Claim(submission, next(self._numbers), THEN, 30.0) for submission in claims]

    def _draw_outcome(self, generator: random.Random) -> Outcome:
        match generator.choice(["created", "not_created", "in_doubt"]):
            case "created":
                job_id = generator.choice(JOB_IDS)
                body = json.dumps({"id": job_id, "number": next(self._numbers)}).encode()
                return Created(job_id, body, 1, THEN, recovered=generator.choice([True, False]))
            case "not_created":
                return generator.choice([not_created(), NotCreated(ErrorInfo("absent", "declared absent"), 1, THEN)])
            case _:
                return in_doubt("x", "\udfff")

    def _predict(
        self,
        process: Process,
        outcomes: Sequence[RecordedOutcome],
        released: Sequence[Submission],
        claims: Sequence[Claim],
    ) -> Model | None:
        """The model after a commit; None if the commit is forbidden."""
        model = dict(self.model)
        try:
            for row in outcomes:
                apply_outcome(model, process.slot(row.submission), row.outcome)
            for submission in released:
                apply_release(model, process.slot(submission))
            for claim in claims:
                apply_claim(model, process.slot(claim.submission), process.run.id, claim.attempt)
        except Forbidden:
            return None
        return model

    def _apply(self, process: Process, commit: Commit, after: Model) -> None:
        outcomes, released, claims = commit
        self.model = after
        closed = [*(outcome.submission for outcome in outcomes), *released]
        process.open = [outcome for outcome in process.open if outcome not in closed] + [
            outcome.submission for outcome in claims
        ]

    def _kill(self, scope: Scope) -> None:
        """Close a connection without a commit or a checkpoint."""
        process = self.processes.pop(scope, None)
        if process is not None:
            process.ledger._connection.close()

    def _new_path(self) -> Path:
        directory = next(self._directories)
        directory.mkdir()
        return directory / "ledger.db"

    def _copy_files(self) -> Path:
        """Copy what is on the disk at this moment, without the shared memory, which is useless after a crash."""
        path = self._new_path()
        for suffix in ("", "-wal"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                shutil.copyfile(part, path.with_name(path.name + suffix))
        return path

    def _lose_power(self, path: Path) -> None:
        for scope in list(self.processes):
            self._kill(scope)
        self.reader._connection.close()
        shutil.rmtree(self.path.parent)
        self.path = path
        self.reader = Ledger(self.path)


def disable_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make thousands of commits fast, as the machine itself does not fail here."""
    prepare = connect._prepare

    def prepare_without_fsync(connection: sqlite3.Connection, path: Path) -> None:
        prepare(connection, path)
        connection.execute("PRAGMA synchronous = OFF")

    monkeypatch.setattr(connect, "_prepare", prepare_without_fsync)


@pytest.mark.hypothesis
def test_no_order_of_events_claims_twice_or_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_fsync(monkeypatch)
    with ledger_history.open_ledger(tmp_path / "template.db"):
        pass
    template = (tmp_path / "template.db").read_bytes()
    numbers = count(1)

    def create_machine() -> Machine:
        directory = tmp_path / f"machine-{next(numbers)}"
        directory.mkdir()
        return Machine(template, directory)

    run_state_machine_as_test(
        cast("Any", create_machine),
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            phases=[Phase.generate],  # shrinking would take minutes, as each attempt creates a ledger
        ),
    )
