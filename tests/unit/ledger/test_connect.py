"""The ledger's file: how it is created and migrated, what it stores, what it refuses, and how damage is noticed."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support import ledger_history
from support.ledger_history import API, THEN, created, in_doubt, job, not_created, send, start_run

from runner.core.errors import RefusedError
from runner.core.models import Created, ErrorInfo, InDoubt, NotCreated, Submission
from runner.ledger import connect, schema
from runner.ledger.errors import LedgerError
from runner.ledger.journal import JobIdTakenError, RunJournal
from runner.ledger.rows import Claim, Decision, RecordedOutcome, SubmissionRow
from runner.ledger.store import Ledger

Outcome = Created | NotCreated | InDoubt

STATES = ("sending", "released", "not_created", "in_doubt", "created")
A, B, C = job("a"), job("b", project_id="p-2"), job("c", "w-2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with ledger_history.open_ledger(path) as opened:
        yield opened


def execute_raw(path: Path, *statements: str) -> None:
    """Write to the file as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


# Creation.


def test_a_new_ledger_is_private_and_one_file(path: Path) -> None:
    connect.create_ledger(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    with Ledger(path) as ledger:
        start_run(ledger, "r-1", [A])
        for suffix in ("-wal", "-shm"):
            assert stat.S_IMODE(path.with_name(path.name + suffix).stat().st_mode) == 0o600
        ledger.check_integrity()
    assert list(path.parent.iterdir()) == [path]  # closing checkpoints the log into it


def test_a_ledger_is_never_created_in_place_of_another_file(path: Path) -> None:
    path.write_bytes(b"anything")
    with pytest.raises(LedgerError, match="already exists"):
        connect.create_ledger(path)
    assert path.read_bytes() == b"anything"
    assert list(path.parent.iterdir()) == [path]


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(owner, name, fail)


FAILURES: list[tuple[Any, str, BaseException]] = [
    (os, "open", OSError(28, "No space left on device")),
    (os, "link", OSError(30, "Read-only file system")),
    (connect, "_open", sqlite3.OperationalError("disk I/O error")),
    (connect, "_prepare", sqlite3.OperationalError("database or disk is full")),
    (connect, "_prepare", KeyboardInterrupt()),
]


@pytest.mark.parametrize(("owner", "name", "error"), FAILURES)
def test_a_ledger_that_cannot_be_completed_is_not_created(
    path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException
) -> None:
    fail_at(monkeypatch, owner, name, error)
    with pytest.raises(LedgerError if isinstance(error, Exception) else type(error)):
        ledger_history.open_ledger(path)
    monkeypatch.undo()
    assert list(path.parent.iterdir()) == []


def run_concurrently(count: int, function: Callable[[], object]) -> list[object]:
    """Call a function in several threads at the same time. Return each result, or the LedgerError that was raised."""
    barrier = threading.Barrier(count)

    def call() -> object:
        barrier.wait()
        try:
            return function()
        except LedgerError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(count)]]


def test_a_commit_is_durable_when_it_returns(ledger: Ledger) -> None:
    assert (ledger.query("PRAGMA synchronous"), ledger.query("PRAGMA fullfsync")) == ([(2,)], [(1,)])


def test_of_concurrent_creators_one_succeeds_and_the_others_are_refused(path: Path) -> None:
    for number in range(10):
        new_path = path.with_name(f"{number}.db")
        results = run_concurrently(3, lambda new_path=new_path: connect.create_ledger(new_path))  # type: ignore[misc]
        assert results.count(None) == 1, results
        assert sum("already exists" in str(result) for result in results) == 2
        connect.connect(new_path).close()
    assert len(list(path.parent.iterdir())) == 10


def test_concurrent_runs_that_create_it_all_use_it(path: Path) -> None:
    for number in range(10):
        new_path = path.with_name(f"{number}.db")

        def write(new_path: Path = new_path) -> None:
            with ledger_history.open_ledger(new_path) as ledger:
                start_run(ledger, f"r-{threading.get_ident()}", [A], manifest=f"m-{threading.get_ident()}")

        assert run_concurrently(3, write) == [None] * 3
        with Ledger(new_path) as ledger:
            assert len(list(ledger.runs())) == 3


def test_opening_a_missing_ledger_does_not_create_it(path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger") as caught:
        Ledger(path)
    assert "ledger init" in caught.value.hint
    assert not path.exists()


# Files that are not ledgers of this version.


def test_a_ledger_of_a_newer_version_is_refused_and_unchanged(path: Path) -> None:
    connect.create_ledger(path)
    execute_raw(path, f"PRAGMA user_version = {schema.latest_version() + 1}")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="newer pixxel-runner"):
        ledger_history.open_ledger(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_unchanged(path: Path) -> None:
    execute_raw(path, "CREATE TABLE theirs (a)", "PRAGMA application_id = 7", "PRAGMA user_version = 1")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="is not a ledger"):
        ledger_history.open_ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"SQLite format 3\0", b"# a text\n" * 1000])
def test_a_file_that_is_not_a_ledger_is_refused_and_unchanged(path: Path, content: bytes) -> None:
    """Above all an empty file: a failed copy leaves one, and all knowledge of created jobs is lost."""
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        ledger_history.open_ledger(path)
    assert path.read_bytes() == content


def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(LedgerError):
        ledger_history.open_ledger(path)


# Migrations.


def test_an_older_version_is_migrated_once_and_keeps_its_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger_history.open_ledger(path) as ledger:
        send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
    newer = (*schema.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN host TEXT", "CREATE TABLE hosts (name TEXT)"))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    with Ledger(path) as ledger:
        assert [submission.job_id for submission in ledger.all_submissions()] == ["j-1"]
        assert ledger.query("SELECT host FROM runs") == [(None,)]
        assert ledger.query("PRAGMA user_version") == [(len(newer),)]
    with Ledger(path) as ledger:  # does not migrate again
        ledger.check_integrity()


def test_a_failed_migration_leaves_the_old_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect.create_ledger(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE hosts (name TEXT)", "not SQL")))
    with pytest.raises(LedgerError):
        Ledger(path)
    monkeypatch.undo()
    with Ledger(path) as ledger:
        assert ledger.query("PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
        assert ledger.query("SELECT 1 FROM sqlite_schema WHERE name = 'hosts'") == []


def test_version_0_is_migrated(path: Path) -> None:
    execute_raw(path, f"PRAGMA application_id = {schema.APPLICATION_ID}")
    with Ledger(path) as ledger:
        send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
        ledger.check_integrity()


# What it stores.


def test_any_response_is_saved_as_received(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A, B, C])
    strange = "\ud800-\udfff-job"
    bodies = [
        b'{"id": "\\ud800-\\udfff-job", "cost": 123456789012345678901234567890, "created_by": "\\udead"}',
        b'{"id": "j-2", "cost": NaN, "deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xff\xfe not JSON \x00",
    ]
    job_ids = [strange, "j-2", "j-3\x00"]
    submission_ids = [
        send(ledger, run, entry, Created(job_id, body, 1, THEN))
        for entry, job_id, body in zip((A, B, C), job_ids, bodies, strict=True)
    ]
    submissions = ledger.all_submissions()
    assert [entry.job_id for entry in submissions] == job_ids
    assert [entry.cost for entry in submissions] == [2**63 - 1, None, None]
    assert [ledger_history.response_body(ledger, submission_id) for submission_id in submission_ids] == bodies
    assert ledger.ids_in_use(API, [*job_ids, "j-none"]) == set(job_ids)
    assert not ledger.ids_in_use("https://other.example", ["j-2"])
    assert ledger.submission_by_job_id(API, strange) == submissions[0]
    assert ledger.creators("r-1") == {"\udead"}


@pytest.mark.parametrize("cost", [0, -1, 2**63 - 1, -(2**63) + 1, 2**63, 10**30, -(10**30)])
def test_a_cost_beyond_an_sqlite_integer_is_clamped(ledger: Ledger, cost: int) -> None:
    send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1", b'{"id": "j-1", "cost": %d}' % cost))
    [submission] = ledger.all_submissions()
    assert (submission.state, submission.cost) == ("created", max(1 - 2**63, min(2**63 - 1, cost)))


def test_candidates_with_lone_surrogates_are_saved(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A])
    submission = send(ledger, run, A, in_doubt("\ud800", "é"))
    assert ledger.all_submissions()[0].candidates == ("\ud800", "é")
    ledger.save_candidates({submission: ("\udfff",)})
    assert ledger.all_submissions()[0].candidates == ("\udfff",)


def test_starting_a_run_interrupts_only_runs_of_its_manifest(ledger: Ledger) -> None:
    start_run(ledger, "r-1", [A], end=None)
    start_run(ledger, "r-2", [A], manifest="other", end=None)
    start_run(ledger, "r-3", [A], api="https://other.example", end=None)
    start_run(ledger, "r-4", [A], end=None)
    states = {run.id: run.state for run in ledger.runs()}
    assert states == {"r-1": "interrupted", "r-2": "running", "r-3": "running", "r-4": "running"}


def test_intents_are_marked_in_doubt_for_one_manifest_only(ledger: Ledger) -> None:
    for number, (manifest, api) in enumerate(product(("nightly", "other"), (API, "https://other.example"))):
        send(ledger, start_run(ledger, f"r-{number}", [A], manifest=manifest, api=api), A, None)
    ledger.mark_intents_in_doubt(API, "nightly", ledger_history.TIMEOUT)
    states = {(submission.manifest, submission.api): submission.state for submission in ledger.all_submissions()}
    assert states.pop(("nightly", API)) == "in_doubt"
    assert set(states.values()) == {"sending"}


# What it refuses.


def put_into_state(ledger: Ledger, state: str) -> int:
    """Bring a submission into a state by allowed transitions, and return its id."""
    outcomes: dict[str, Outcome] = {"not_created": DECLARED_ABSENT, "in_doubt": in_doubt(), "created": created("j-1")}
    submission = send(ledger, start_run(ledger, "r-1", [A]), A, outcomes.get(state))
    if state == "released":
        with ledger.transaction():
            ledger.release(submission)
    return submission


@pytest.mark.parametrize(("old", "new"), list(product(STATES, STATES)))
def test_only_allowed_transitions_are_possible(ledger: Ledger, old: str, new: str) -> None:
    submission = put_into_state(ledger, old)
    if (old, new) in schema.TRANSITIONS:
        move_to_state(ledger, submission, new)
        assert ledger.all_submissions()[0].state == new
        return
    before = ledger.all_submissions()
    with pytest.raises(sqlite3.IntegrityError, match="transition not allowed"):
        move_to_state(ledger, submission, new)
    assert ledger.all_submissions() == before


DECLARED_ABSENT = NotCreated(ErrorInfo("absent", "declared absent"), 1, THEN)


def move_to_state(ledger: Ledger, submission: int, new: str) -> None:
    run = next(ledger.runs())
    with ledger.transaction():
        match new:
            case "sending":
                ledger.claim(run, ledger.manifest_id(API, "nightly"), [claim(Submission(A, 1), 2)])
            case "released":
                ledger.release(submission)
            case "not_created":
                ledger.save_outcomes([(submission, DECLARED_ABSENT, THEN)])
            case "in_doubt":
                ledger.save_outcomes([(submission, in_doubt(), THEN)])
            case "created":
                ledger.save_outcomes([(submission, replace(created("j-2"), recovered=True), THEN)])


@pytest.mark.parametrize(
    ("outcome", "adoption"),
    [
        (DECLARED_ABSENT, created("j-2")),
        (not_created(), replace(created("j-2"), recovered=True)),
        (not_created(), created("j-2")),
    ],
    ids=["not recovered", "not declared absent", "neither"],
)
def test_only_a_job_declared_absent_can_be_adopted_later(path: Path, outcome: NotCreated, adoption: Created) -> None:
    with ledger_history.open_ledger(path) as ledger:
        submission = send(ledger, start_run(ledger, "r-1", [A]), A, outcome)
        with pytest.raises(sqlite3.IntegrityError, match="not allowed"), ledger.transaction():
            ledger.save_outcomes([(submission, adoption, THEN)])
        assert [row.state for row in ledger.all_submissions()] == ["not_created"]


INSERT_NOT_CREATED = """
INSERT INTO submissions
SELECT 9, manifest, 'k', workflow_id, project_id, ordinal, again, api, 'not_created', name, labels, run_id, attempts,
    claimed_at, ended_at, timeout, NULL, NULL, NULL, NULL, NULL, 0, 1, '{}', NULL
FROM submissions
"""


def test_the_schema_refuses_invalid_writes(ledger: Ledger) -> None:
    submission = put_into_state(ledger, "created")
    for statement in (
        "DELETE FROM submissions",
        "UPDATE submissions SET state = 'sending'",
        "UPDATE submissions SET job_id = NULL",
        "UPDATE submissions SET ordinal = 0",
        INSERT_NOT_CREATED,
        f"INSERT INTO decisions VALUES (NULL, {submission + 1}, '', '', '', '')",  # noqa: S608 - constants
    ):
        before = ledger.all_submissions()
        with pytest.raises(sqlite3.IntegrityError), ledger.transaction():
            ledger.execute(statement)
        assert ledger.all_submissions() == before


def test_a_job_id_belongs_to_one_submission_per_api(ledger: Ledger) -> None:
    send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
    other = start_run(ledger, "r-2", [B], manifest="other")
    with pytest.raises(sqlite3.IntegrityError):
        send(ledger, other, B, created("j-1"))
    assert [submission.job_id for submission in ledger.all_submissions()] == ["j-1"]
    elsewhere = start_run(ledger, "r-3", [B], api="https://other.example")
    send(ledger, elsewhere, B, created("j-1"))
    assert [submission.job_id for submission in ledger.all_submissions()] == ["j-1", "j-1"]


def test_decisions_are_saved_all_or_none(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A, B, C])
    ids = [send(ledger, run, entry, in_doubt()) for entry in (A, B)]
    send(ledger, run, C, created("j-3"))
    decisions = [
        Decision(submission, created(job_id), None, "me", THEN, "adopted", job_id)
        for submission, job_id in zip(ids, ("j-1", "j-3"), strict=True)
    ]
    with pytest.raises(Exception, match="another submission took"):
        ledger.resolve(decisions)
    assert [row.state for row in ledger.all_submissions()] == ["in_doubt", "in_doubt", "created"]
    assert ledger_history.decisions(ledger, ids[0]) == []
    ledger.resolve(decisions[:1])
    assert ledger_history.decisions(ledger, ids[0]) == [(THEN.isoformat(), "me", "adopted", "j-1")]


@pytest.mark.parametrize("adopted_first", [True, False])
def test_decisions_on_one_submission_apply_in_order(ledger: Ledger, *, adopted_first: bool) -> None:
    """A created job can't be declared absent, but one that was declared absent can still be found."""
    doubt = send(ledger, start_run(ledger, "r-1", [A]), A, in_doubt())
    adoption = Decision(doubt, replace(created("j-1"), recovered=True), None, "lookup", THEN, "found", "j-1")
    absence = Decision(doubt, DECLARED_ABSENT, None, "me", THEN, "absent", "")
    if adopted_first:
        with pytest.raises(RefusedError):
            ledger.resolve([adoption, absence])
    else:
        ledger.resolve([absence, adoption])
    [submission] = ledger.all_submissions()
    assert submission.state == ("in_doubt" if adopted_first else "created")
    assert len(ledger_history.decisions(ledger, doubt)) == (0 if adopted_first else 2)


# The journal: outcomes, releases and intents in one transaction.


def claim(submission: Submission, attempt: int = 1) -> Claim:
    return Claim(submission, attempt, THEN, 30.0)


def test_a_commit_is_atomic(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A, B, C], end=None)
    journal = RunJournal(ledger, run)
    a, b, c = Submission(A, 1), Submission(B, 1), Submission(C, 1)
    journal.commit([], [], [claim(a), claim(b)])
    send(ledger, start_run(ledger, "r-2", [C], manifest="other"), C, created("j-1"))
    before = ledger.all_submissions()
    with pytest.raises(JobIdTakenError) as caught:  # the job id is taken, so nothing is written
        journal.commit([RecordedOutcome(a, created("j-1"), THEN)], [b], [claim(c)])
    assert caught.value.job_ids == {"j-1"}
    assert ledger.all_submissions() == before
    journal.commit([RecordedOutcome(a, created("j-2"), THEN)], [b], [claim(c)])
    states = {row.name: row.state for row in ledger.all_submissions() if row.manifest == "nightly"}
    assert states == {"a": "created", "b": "released", "c": "sending"}
    journal.commit(
        [RecordedOutcome(c, not_created(), THEN)], [], [claim(b, 2), claim(c, 2)]
    )  # saved and claimed again in one commit
    states = {row.name: row.state for row in ledger.all_submissions() if row.manifest == "nightly"}
    assert states == {"a": "created", "b": "sending", "c": "sending"}


def test_a_second_claim_clears_the_error_and_keeps_the_id(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A])
    submission = send(ledger, run, A, NotCreated(ledger_history.TIMEOUT, 3, THEN))
    renamed = job("renamed", team="agri")
    second_run = start_run(ledger, "r-2", [renamed], key=run.run_key)
    assert send(ledger, second_run, renamed, None) == submission
    [row] = ledger.all_submissions()
    assert (row.name, row.labels, row.run_id) == ("renamed", {"team": "agri"}, "r-2")
    assert (row.error, row.ended_at, row.candidates) == (None, None, ())


def test_a_submission_resolved_by_a_lookup_meanwhile_can_be_claimed_again(ledger: Ledger) -> None:
    """The run's journal does not know about it: the ledger decides what may be claimed, and under which id."""
    run = start_run(ledger, "r-1", [A, B, C], end=None)
    journal = RunJournal(ledger, run)
    a, b, c = Submission(A, 1), Submission(B, 1), Submission(C, 1)
    journal.commit([], [], [claim(a), claim(b)])
    journal.commit([RecordedOutcome(a, in_doubt(), THEN), RecordedOutcome(b, in_doubt(), THEN)], [], [])
    first_id, second_id = (row.id for row in ledger.unresolved())
    ledger.resolve([Decision(first_id, DECLARED_ABSENT, None, "lookup", THEN, "not_found", "")])
    ledger.resolve([Decision(second_id, created("j-2"), None, "lookup", THEN, "found", "j-2")])

    journal.commit([], [], [claim(a, 2), claim(c)])  # an existing submission and a new one
    with pytest.raises(sqlite3.IntegrityError, match="transition not allowed"):
        journal.commit([], [], [claim(b, 2)])  # it exists
    journal.commit([RecordedOutcome(a, created("j-1"), THEN), RecordedOutcome(c, created("j-3"), THEN)], [], [])
    rows = [(row.id, row.name, row.job_id, row.attempts) for row in ledger.all_submissions()]
    assert rows == [(first_id, "a", "j-1", 2), (second_id, "b", "j-2", 1), (second_id + 2, "c", "j-3", 1)]


def test_a_journal_saves_outcomes_only_of_open_claims(ledger: Ledger) -> None:
    journal = RunJournal(ledger, start_run(ledger, "r-1", [A, B], end=None))
    a, b = Submission(A, 1), Submission(B, 1)
    journal.commit([], [], [claim(a), claim(b)])
    journal.commit([RecordedOutcome(a, not_created(), THEN)], [b], [])
    for submission in (a, b):
        with pytest.raises(KeyError):
            journal.commit([RecordedOutcome(submission, created("j-1"), THEN)], [], [])
        with pytest.raises(KeyError):
            journal.commit([], [submission], [])
    assert [submission.state for submission in ledger.all_submissions()] == ["not_created", "released"]


@pytest.mark.parametrize("end", ["close", "crash"])
def test_committed_rows_survive_a_close_and_a_crash(path: Path, tmp_path: Path, end: str) -> None:
    ledger = ledger_history.open_ledger(path)
    run = start_run(ledger, "r-1", [A, B], end=None)
    journal = RunJournal(ledger, run)
    journal.commit([], [], [claim(Submission(A, 1)), claim(Submission(B, 1))])
    journal.commit([RecordedOutcome(Submission(A, 1), created("j-1"), THEN)], [], [])
    copy = path
    if end == "crash":
        copy = tmp_path / "after" / "ledger.db"
        copy.parent.mkdir()
        for part in tmp_path.glob("ledger.db*"):
            if not part.name.endswith("-shm"):  # useless after a crash
                shutil.copy(part, copy.parent)
    ledger.close()
    with Ledger(copy) as reopened:
        assert [(row.name, row.state) for row in reopened.all_submissions()] == [("a", "created"), ("b", "sending")]


# Damage.


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a ledger with rows in every table."""
    path = tmp_path_factory.mktemp("intact") / "ledger.db"
    with ledger_history.open_ledger(path) as ledger:
        jobs = [job(f"job-{index}", f"w-{index % 7}", f"p-{index}", team="agri") for index in range(60)]
        run = start_run(ledger, "r-1", jobs)
        for index, entry in enumerate(jobs):
            outcomes: list[Outcome] = [created(f"j-{index}"), not_created("no " * 40), in_doubt("x", "y")]
            send(ledger, run, entry, outcomes[index % 3])
        [doubt, *_] = ledger.unresolved()
        ledger.resolve([Decision(doubt.id, created("found"), None, "me", THEN, "found", "found")])
    return path.read_bytes()


def use_ledger(path: Path) -> list[SubmissionRow]:
    """Do all that a run and the read-only commands do with a ledger."""
    with Ledger(path) as ledger:
        submissions = ledger.all_submissions()
        for run in ledger.runs():
            ledger.manifest_jobs(run)
        for submission in submissions:
            ledger_history.response_body(ledger, submission.id)
            ledger_history.decisions(ledger, submission.id)
        ledger.submission_counts()
        ledger.claimed_pairs(API, "nightly")
        ledger.manifest_paths(API)
        ledger.creators("r-1")
        ledger.mark_intents_in_doubt(API, "nightly", ledger_history.TIMEOUT)
        run = start_run(ledger, "r-2", [job("new", "w-new")], end=None)
        journal = RunJournal(ledger, run)
        new_submission = Submission(job("new", "w-new"), 1)
        journal.commit([], [], [claim(new_submission)])
        journal.commit([RecordedOutcome(new_submission, created("j-new"), THEN + timedelta(seconds=1))], [], [])
    return submissions


def test_an_intact_ledger_is_usable(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert len(use_ledger(path)) == 60


def test_a_truncated_ledger_is_refused(path: Path, content: bytes) -> None:
    sizes = {*range(0, len(content), 4096), *range(1, 200, 13), len(content) - 1, len(content) - 100}
    for size in sorted(sizes):
        path.write_bytes(content[:size])
        with pytest.raises(LedgerError):
            use_ledger(path)
        path.with_name(f"{path.name}-wal").unlink(missing_ok=True)


@pytest.mark.parametrize("key", [b"run:r-1", b"w-3", b"p-11"])
def test_an_index_that_hides_a_created_job_is_refused(path: Path, content: bytes, key: bytes) -> None:
    """With one wrong byte in an index, a created job is not found by its run key, and would be created again."""
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_submissions_1'"
        [(root,)] = connection.execute(query).fetchall()
        [(size,)] = connection.execute("PRAGMA page_size").fetchall()
    offset = content.index(key, (root - 1) * size)
    assert offset < root * size
    path.write_bytes(content[:offset] + b"\x7f" + content[offset + 1 :])
    with pytest.raises(LedgerError, match="damaged"):
        Ledger(path)


def test_an_altered_schema_is_refused(path: Path, content: bytes) -> None:
    """With one wrong byte in a column's name, which SQLite accepts, no run and no job would belong to a manifest."""
    text = b"manifests (  -- each manifest at each API\n        id"
    offset = content.index(text) + len(text) - 2
    path.write_bytes(content[:offset] + b"t" + content[offset + 1 :])
    with pytest.raises(LedgerError):
        Ledger(path)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_raise_nothing_but_ledger_error(path: Path, content: bytes, seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311 - repeatable, not unpredictable
    for _ in range(60):
        damaged = bytearray(content)
        for _flip in range(generator.choice((1, 1, 2, 8, 64))):
            damaged[generator.randrange(len(damaged))] ^= generator.randrange(1, 256)
        path.write_bytes(damaged)
        with suppress(LedgerError):
            use_ledger(path)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def test_an_outcome_without_a_claim_is_refused(ledger: Ledger) -> None:
    start_run(ledger, "r-1", [A])
    for outcome in (created("j-1"), not_created(), in_doubt()):
        with pytest.raises((LedgerError, sqlite3.IntegrityError)), ledger.transaction():
            ledger.save_outcomes([(9, outcome, THEN)])
    assert ledger.all_submissions() == []


def test_batches_are_claimed_and_saved_like_single_rows(ledger: Ledger) -> None:
    jobs = [job(f"j{number}", f"w-{number}") for number in range(300)]
    run = start_run(ledger, "r-1", jobs)
    earlier = send(ledger, run, jobs[7], not_created())
    claims = [claim(Submission(entry, 1), 2) for entry in jobs]
    with ledger.transaction():
        ids = ledger.claim(run, ledger.manifest_id(run.api, run.manifest), claims)
        ledger.save_outcomes([(id_, created(f"id-{id_}"), THEN) for id_ in ids])
    assert ids[7] == earlier
    saved = {row.name: (row.id, row.job_id, row.attempts) for row in ledger.all_submissions()}
    assert saved == {row.name: (id_, f"id-{id_}", 2) for row, id_ in zip(jobs, ids, strict=True)}
    assert ledger.ids_in_use(run.api, [f"id-{id_}" for id_ in ids]) == {f"id-{id_}" for id_ in ids}
    responses = ledger.job_objects(ids)
    assert sorted(responses) == sorted(ids)
