"""The ledger's file: made whole or not at all, private, of a version; what it keeps and forbids, and its damage."""

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


def raw(path: Path, *statements: str) -> None:
    """What another program does to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


# How it is made.


def test_a_new_ledger_is_private_whole_and_alone(path: Path) -> None:
    connect.create_ledger(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    with Ledger(path) as ledger:
        start_run(ledger, "r-1", [A])
        for suffix in ("-wal", "-shm"):
            assert stat.S_IMODE(path.with_name(path.name + suffix).stat().st_mode) == 0o600
        ledger.check_integrity()
    assert list(path.parent.iterdir()) == [path]  # closing folds the log into it


def test_a_ledger_is_never_made_in_the_place_of_another(path: Path) -> None:
    path.write_bytes(b"anything")
    with pytest.raises(LedgerError, match="already exists"):
        connect.create_ledger(path)
    assert path.read_bytes() == b"anything"
    assert list(path.parent.iterdir()) == [path]


def failing_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException) -> None:
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
def test_a_ledger_that_cannot_be_made_whole_is_not_made(
    path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException
) -> None:
    failing_at(monkeypatch, owner, name, error)
    with pytest.raises(LedgerError if isinstance(error, Exception) else type(error)):
        ledger_history.open_ledger(path)
    monkeypatch.undo()
    assert list(path.parent.iterdir()) == []


def at_once(count: int, function: Callable[[], object]) -> list[object]:
    """Call a function in so many threads at once: what each returned, or the LedgerError that it raised."""
    barrier = threading.Barrier(count)

    def one() -> object:
        barrier.wait()
        try:
            return function()
        except LedgerError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(one) for _ in range(count)]]


def test_a_commit_is_on_the_disk_before_it_returns(ledger: Ledger) -> None:
    assert (ledger.query("PRAGMA synchronous"), ledger.query("PRAGMA fullfsync")) == ([(2,)], [(1,)])


def test_of_two_creators_one_makes_it_and_the_other_is_told(path: Path) -> None:
    for number in range(10):
        here = path.with_name(f"{number}.db")
        ends = at_once(3, lambda here=here: connect.create_ledger(here))  # type: ignore[misc]
        assert ends.count(None) == 1, ends
        assert sum("already exists" in str(end) for end in ends) == 2
        connect.connect(here).close()
    assert len(list(path.parent.iterdir())) == 10


def test_two_runs_that_both_make_it_both_have_it(path: Path) -> None:
    for number in range(10):
        here = path.with_name(f"{number}.db")

        def write(here: Path = here) -> None:
            with ledger_history.open_ledger(here) as ledger:
                start_run(ledger, f"r-{threading.get_ident()}", [A], manifest=f"m-{threading.get_ident()}")

        assert at_once(3, write) == [None] * 3
        with Ledger(here) as ledger:
            assert len(list(ledger.runs())) == 3


def test_one_that_is_named_must_exist(path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger") as told:
        Ledger(path)
    assert "ledger init" in told.value.hint
    assert not path.exists()


# What is not a ledger of today.


def test_one_of_a_newer_version_is_left_alone(path: Path) -> None:
    connect.create_ledger(path)
    raw(path, f"PRAGMA user_version = {schema.latest_version() + 1}")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="newer pixxel-runner"):
        ledger_history.open_ledger(path)
    assert path.read_bytes() == before


def test_another_program_s_database_is_left_alone(path: Path) -> None:
    raw(path, "CREATE TABLE theirs (a)", "PRAGMA application_id = 7", "PRAGMA user_version = 1")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="is not a ledger"):
        ledger_history.open_ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"SQLite format 3\0", b"# a text\n" * 1000])
def test_a_file_that_is_none_is_left_alone(path: Path, content: bytes) -> None:
    """An empty one most of all: a copy that failed leaves it, and with it is gone what was bought."""
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        ledger_history.open_ledger(path)
    assert path.read_bytes() == content


def test_a_folder_is_none(path: Path) -> None:
    path.mkdir()
    with pytest.raises(LedgerError):
        ledger_history.open_ledger(path)


# Its versions.


def test_an_older_version_is_brought_up_and_keeps_what_it_has(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger_history.open_ledger(path) as ledger:
        send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
    newer = (*schema.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN host TEXT", "CREATE TABLE hosts (name TEXT)"))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    with Ledger(path) as ledger:
        assert [one.job_id for one in ledger.all_submissions()] == ["j-1"]
        assert ledger.query("SELECT host FROM runs") == [(None,)]
        assert ledger.query("PRAGMA user_version") == [(len(newer),)]
    with Ledger(path) as again:  # and not a second time
        again.check_integrity()


def test_a_version_that_cannot_be_brought_up_stays_what_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect.create_ledger(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE hosts (name TEXT)", "not SQL")))
    with pytest.raises(LedgerError):
        Ledger(path)
    monkeypatch.undo()
    with Ledger(path) as ledger:
        assert ledger.query("PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
        assert ledger.query("SELECT 1 FROM sqlite_schema WHERE name = 'hosts'") == []


def test_a_version_before_the_first_is_brought_up(path: Path) -> None:
    raw(path, f"PRAGMA application_id = {schema.APPLICATION_ID}")
    with Ledger(path) as ledger:
        send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
        ledger.check_integrity()


# What it keeps.


def test_a_job_is_kept_as_it_came_whatever_is_in_it(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A, B, C])
    strange = "\ud800-\udfff-job"
    bodies = [
        b'{"id": "\\ud800-\\udfff-job", "cost": 123456789012345678901234567890, "created_by": "\\udead"}',
        b'{"id": "j-2", "cost": NaN, "deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xff\xfe not JSON \x00",
    ]
    ids = [strange, "j-2", "j-3\x00"]
    numbers = [
        send(ledger, run, one, Created(job_id, body, 1, THEN))
        for one, job_id, body in zip((A, B, C), ids, bodies, strict=True)
    ]
    standings = ledger.all_submissions()
    assert [one.job_id for one in standings] == ids
    assert [one.cost for one in standings] == [2**63 - 1, None, None]
    assert [ledger_history.response_body(ledger, number) for number in numbers] == bodies
    assert ledger.ids_in_use(API, [*ids, "j-none"]) == set(ids)
    assert not ledger.ids_in_use("https://other.example", ["j-2"])
    assert ledger.submission_by_job_id(API, strange) == standings[0]
    assert ledger.creators("r-1") == {"\udead"}


@pytest.mark.parametrize("cost", [0, -1, 2**63 - 1, -(2**63) + 1, 2**63, 10**30, -(10**30)])
def test_a_cost_is_kept_where_it_fits_and_never_costs_the_job(ledger: Ledger, cost: int) -> None:
    send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1", b'{"id": "j-1", "cost": %d}' % cost))
    [standing] = ledger.all_submissions()
    assert (standing.state, standing.cost) == ("created", max(1 - 2**63, min(2**63 - 1, cost)))


def test_lone_surrogates_of_candidates_and_errors_are_kept(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A])
    number = send(ledger, run, A, in_doubt("\ud800", "é"))
    assert ledger.all_submissions()[0].candidates == ("\ud800", "é")
    ledger.save_candidates({number: ("\udfff",)})
    assert ledger.all_submissions()[0].candidates == ("\udfff",)


def test_a_run_that_begins_ends_those_of_its_manifest_alone(ledger: Ledger) -> None:
    start_run(ledger, "r-1", [A], end=None)
    start_run(ledger, "r-2", [A], manifest="other", end=None)
    start_run(ledger, "r-3", [A], api="https://other.example", end=None)
    start_run(ledger, "r-4", [A], end=None)
    states = {run.id: run.state for run in ledger.runs()}
    assert states == {"r-1": "interrupted", "r-2": "running", "r-3": "running", "r-4": "running"}


def test_intents_become_doubts_for_the_one_manifest_alone(ledger: Ledger) -> None:
    for number, (manifest, api) in enumerate(product(("nightly", "other"), (API, "https://other.example"))):
        send(ledger, start_run(ledger, f"r-{number}", [A], manifest=manifest, api=api), A, None)
    ledger.mark_intents_in_doubt(API, "nightly", ledger_history.TIMEOUT)
    states = {(one.manifest, one.api): one.state for one in ledger.all_submissions()}
    assert states.pop(("nightly", API)) == "in_doubt"
    assert set(states.values()) == {"sending"}


# What it forbids.


def into(ledger: Ledger, state: str) -> int:
    """A submission in a state, got there by allowed ways."""
    outcomes: dict[str, Outcome] = {"not_created": SAID, "in_doubt": in_doubt(), "created": created("j-1")}
    number = send(ledger, start_run(ledger, "r-1", [A]), A, outcomes.get(state))
    if state == "released":
        with ledger.transaction():
            ledger.release(number)
    return number


@pytest.mark.parametrize(("old", "new"), list(product(STATES, STATES)))
def test_a_submission_makes_no_other_transition_than_those_allowed(ledger: Ledger, old: str, new: str) -> None:
    number = into(ledger, old)
    if (old, new) in schema.TRANSITIONS:
        move(ledger, number, new)
        assert ledger.all_submissions()[0].state == new
        return
    before = ledger.all_submissions()
    with pytest.raises(sqlite3.IntegrityError, match="transition not allowed"):
        move(ledger, number, new)
    assert ledger.all_submissions() == before


SAID = NotCreated(ErrorInfo("absent", "somebody says so"), 1, THEN)


def move(ledger: Ledger, number: int, new: str) -> None:
    run = next(ledger.runs())
    with ledger.transaction():
        match new:
            case "sending":
                ledger.claim(run, ledger.manifest_id(API, "nightly"), [claim(Submission(A, 1), 2)])
            case "released":
                ledger.release(number)
            case "not_created":
                ledger.save_outcomes([(number, SAID, THEN)])
            case "in_doubt":
                ledger.save_outcomes([(number, in_doubt(), THEN)])
            case "created":
                ledger.save_outcomes([(number, replace(created("j-2"), recovered=True), THEN)])


@pytest.mark.parametrize(
    ("failure", "created"),
    [(SAID, created("j-2")), (not_created(), replace(created("j-2"), recovered=True)), (not_created(), created("j-2"))],
    ids=["not found by a look", "not a word of anybody's", "neither"],
)
def test_of_what_failed_only_somebodys_word_is_taken_back(path: Path, failure: NotCreated, created: Created) -> None:
    with ledger_history.open_ledger(path) as ledger:
        number = send(ledger, start_run(ledger, "r-1", [A]), A, failure)
        with pytest.raises(sqlite3.IntegrityError, match="not allowed"), ledger.transaction():
            ledger.save_outcomes([(number, created, THEN)])
        assert [one.state for one in ledger.all_submissions()] == ["not_created"]


BEGINS_AS_FAILED = """
INSERT INTO submissions
SELECT 9, manifest, 'k', workflow_id, project_id, ordinal, again, api, 'not_created', name, labels, run_id, attempts,
    claimed_at, ended_at, timeout, NULL, NULL, NULL, NULL, NULL, 0, 1, '{}', NULL
FROM submissions
"""


def test_whoever_writes_is_held_to_it(ledger: Ledger) -> None:
    number = into(ledger, "created")
    for statement in (
        "DELETE FROM submissions",
        "UPDATE submissions SET state = 'sending'",
        "UPDATE submissions SET job_id = NULL",
        "UPDATE submissions SET ordinal = 0",
        BEGINS_AS_FAILED,
        f"INSERT INTO decisions VALUES (NULL, {number + 1}, '', '', '', '')",  # noqa: S608 - our own words
    ):
        before = ledger.all_submissions()
        with pytest.raises(sqlite3.IntegrityError), ledger.transaction():
            ledger.execute(statement)
        assert ledger.all_submissions() == before


def test_a_job_belongs_to_one_submission_at_an_api(ledger: Ledger) -> None:
    send(ledger, start_run(ledger, "r-1", [A]), A, created("j-1"))
    other = start_run(ledger, "r-2", [B], manifest="other")
    with pytest.raises(sqlite3.IntegrityError):
        send(ledger, other, B, created("j-1"))
    assert [one.job_id for one in ledger.all_submissions()] == ["j-1"]
    elsewhere = start_run(ledger, "r-3", [B], api="https://other.example")
    send(ledger, elsewhere, B, created("j-1"))
    assert [one.job_id for one in ledger.all_submissions()] == ["j-1", "j-1"]


def test_doubts_are_settled_all_or_none(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A, B, C])
    numbers = [send(ledger, run, one, in_doubt()) for one in (A, B)]
    send(ledger, run, C, created("j-3"))
    decisions = [
        Decision(number, created(job_id), None, "me", THEN, "adopted", job_id)
        for number, job_id in zip(numbers, ("j-1", "j-3"), strict=True)
    ]
    with pytest.raises(Exception, match="another submission took"):
        ledger.resolve(decisions)
    assert [one.state for one in ledger.all_submissions()] == ["in_doubt", "in_doubt", "created"]
    assert ledger_history.decisions(ledger, numbers[0]) == []
    ledger.resolve(decisions[:1])
    assert ledger_history.decisions(ledger, numbers[0]) == [(THEN.isoformat(), "me", "adopted", "j-1")]


@pytest.mark.parametrize("found_first", [True, False])
def test_two_decisions_about_one_submission_are_made_in_their_order(ledger: Ledger, *, found_first: bool) -> None:
    """What was found exists, whatever is said of it later; what is said to be absent may be found after all."""
    number = send(ledger, start_run(ledger, "r-1", [A]), A, in_doubt())
    found = Decision(number, replace(created("j-1"), recovered=True), None, "lookup", THEN, "found", "j-1")
    absent = Decision(number, SAID, None, "me", THEN, "absent", "")
    if found_first:
        with pytest.raises(RefusedError):
            ledger.resolve([found, absent])
    else:
        ledger.resolve([absent, found])
    [submission] = ledger.all_submissions()
    assert submission.state == ("in_doubt" if found_first else "created")
    assert len(ledger_history.decisions(ledger, number)) == (0 if found_first else 2)


# The book: outcomes, releases and intents in one transaction.


def claim(one: Submission, attempt: int = 1) -> Claim:
    return Claim(one, attempt, THEN, 30.0)


def test_a_turn_is_kept_whole_or_not_at_all(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A, B, C], end=None)
    book = RunJournal(ledger, run)
    a, b, c = Submission(A, 1), Submission(B, 1), Submission(C, 1)
    book.commit([], [], [claim(a), claim(b)])
    send(ledger, start_run(ledger, "r-2", [C], manifest="other"), C, created("j-1"))
    before = ledger.all_submissions()
    with pytest.raises(JobIdTakenError) as told:  # the id is taken, so nothing of the turn is kept
        book.commit([RecordedOutcome(a, created("j-1"), THEN)], [b], [claim(c)])
    assert told.value.job_ids == {"j-1"}
    assert ledger.all_submissions() == before
    book.commit([RecordedOutcome(a, created("j-2"), THEN)], [b], [claim(c)])
    states = {one.name: one.state for one in ledger.all_submissions() if one.manifest == "nightly"}
    assert states == {"a": "created", "b": "released", "c": "sending"}
    book.commit(
        [RecordedOutcome(c, not_created(), THEN)], [], [claim(b, 2), claim(c, 2)]
    )  # decided and claimed again in one turn
    states = {one.name: one.state for one in ledger.all_submissions() if one.manifest == "nightly"}
    assert states == {"a": "created", "b": "sending", "c": "sending"}


def test_what_is_claimed_again_forgets_the_failure_and_keeps_its_number(ledger: Ledger) -> None:
    run = start_run(ledger, "r-1", [A])
    number = send(ledger, run, A, NotCreated(ledger_history.TIMEOUT, 3, THEN))
    renamed = job("renamed", team="agri")
    again = start_run(ledger, "r-2", [renamed], key=run.run_key)
    assert send(ledger, again, renamed, None) == number
    [standing] = ledger.all_submissions()
    assert (standing.name, standing.labels, standing.run_id) == ("renamed", {"team": "agri"}, "r-2")
    assert (standing.error, standing.ended_at, standing.candidates) == (None, None, ())


def test_what_a_look_up_settled_while_its_run_goes_on_is_claimed_again_by_it(ledger: Ledger) -> None:
    """Its book has not heard of it: what may be claimed, and under which number, the ledger knows."""
    run = start_run(ledger, "r-1", [A, B, C], end=None)
    book = RunJournal(ledger, run)
    a, b, c = Submission(A, 1), Submission(B, 1), Submission(C, 1)
    book.commit([], [], [claim(a), claim(b)])
    book.commit([RecordedOutcome(a, in_doubt(), THEN), RecordedOutcome(b, in_doubt(), THEN)], [], [])
    first, second = (one.id for one in ledger.unresolved())
    ledger.resolve([Decision(first, SAID, None, "look-up", THEN, "not_found", "")])
    ledger.resolve([Decision(second, created("j-2"), None, "look-up", THEN, "found", "j-2")])

    book.commit([], [], [claim(a, 2), claim(c)])  # one that is there, and one that is new
    with pytest.raises(sqlite3.IntegrityError, match="transition not allowed"):
        book.commit([], [], [claim(b, 2)])  # it exists
    book.commit([RecordedOutcome(a, created("j-1"), THEN), RecordedOutcome(c, created("j-3"), THEN)], [], [])
    found = [(one.id, one.name, one.job_id, one.attempts) for one in ledger.all_submissions()]
    assert found == [(first, "a", "j-1", 2), (second, "b", "j-2", 1), (second + 2, "c", "j-3", 1)]


def test_a_book_decides_only_what_is_claimed_and_not_decided(ledger: Ledger) -> None:
    book = RunJournal(ledger, start_run(ledger, "r-1", [A, B], end=None))
    a, b = Submission(A, 1), Submission(B, 1)
    book.commit([], [], [claim(a), claim(b)])
    book.commit([RecordedOutcome(a, not_created(), THEN)], [b], [])
    for one in (a, b):
        with pytest.raises(KeyError):
            book.commit([RecordedOutcome(one, created("j-1"), THEN)], [], [])
        with pytest.raises(KeyError):
            book.commit([], [one], [])
    assert [one.state for one in ledger.all_submissions()] == ["not_created", "released"]


@pytest.mark.parametrize("end", ["close", "crash"])
def test_what_was_committed_is_there_when_it_is_opened_again(path: Path, tmp_path: Path, end: str) -> None:
    ledger = ledger_history.open_ledger(path)
    run = start_run(ledger, "r-1", [A, B], end=None)
    book = RunJournal(ledger, run)
    book.commit([], [], [claim(Submission(A, 1)), claim(Submission(B, 1))])
    book.commit([RecordedOutcome(Submission(A, 1), created("j-1"), THEN)], [], [])
    kept = path
    if end == "crash":
        kept = tmp_path / "after" / "ledger.db"
        kept.parent.mkdir()
        for part in tmp_path.glob("ledger.db*"):
            if not part.name.endswith("-shm"):  # of no use to anyone after a crash
                shutil.copy(part, kept.parent)
    ledger.close()
    with Ledger(kept) as again:
        assert [(one.name, one.state) for one in again.all_submissions()] == [("a", "created"), ("b", "sending")]


# Damage.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger's bytes, with something in every table."""
    path = tmp_path_factory.mktemp("whole") / "ledger.db"
    with ledger_history.open_ledger(path) as ledger:
        jobs = [job(f"job-{number}", f"w-{number % 7}", f"p-{number}", team="agri") for number in range(60)]
        run = start_run(ledger, "r-1", jobs)
        for number, one in enumerate(jobs):
            outcomes: list[Outcome] = [created(f"j-{number}"), not_created("no " * 40), in_doubt("x", "y")]
            send(ledger, run, one, outcomes[number % 3])
        [first, *_] = ledger.unresolved()
        ledger.resolve([Decision(first.id, created("found"), None, "me", THEN, "found", "found")])
    return path.read_bytes()


def use(path: Path) -> list[SubmissionRow]:
    """All that a run and the commands about the past do with a ledger."""
    with Ledger(path) as ledger:
        standings = ledger.all_submissions()
        for run in ledger.runs():
            ledger.manifest_jobs(run)
        for one in standings:
            ledger_history.response_body(ledger, one.id)
            ledger_history.decisions(ledger, one.id)
        ledger.submission_counts()
        ledger.claimed_pairs(API, "nightly")
        ledger.manifest_paths(API)
        ledger.creators("r-1")
        ledger.mark_intents_in_doubt(API, "nightly", ledger_history.TIMEOUT)
        run = start_run(ledger, "r-2", [job("new", "w-new")], end=None)
        book = RunJournal(ledger, run)
        new = Submission(job("new", "w-new"), 1)
        book.commit([], [], [claim(new)])
        book.commit([RecordedOutcome(new, created("j-new"), THEN + timedelta(seconds=1))], [], [])
    return standings


def test_the_whole_one_can_be_used(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)
    assert len(use(path)) == 60


def test_one_that_is_cut_off_is_refused_wherever_it_ends(path: Path, whole: bytes) -> None:
    ends = {*range(0, len(whole), 4096), *range(1, 200, 13), len(whole) - 1, len(whole) - 100}
    for end in sorted(ends):
        path.write_bytes(whole[:end])
        with pytest.raises(LedgerError):
            use(path)
        path.with_name(f"{path.name}-wal").unlink(missing_ok=True)


@pytest.mark.parametrize("key", [b"run:r-1", b"w-3", b"p-11"])
def test_an_index_that_hides_what_was_bought_is_refused(path: Path, whole: bytes, key: bytes) -> None:
    """One wrong byte in an index and a created job is not found by its run key: it would be bought a second time."""
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_submissions_1'"
        [(root,)] = connection.execute(query).fetchall()
        [(size,)] = connection.execute("PRAGMA page_size").fetchall()
    at = whole.index(key, (root - 1) * size)
    assert at < root * size
    path.write_bytes(whole[:at] + b"\x7f" + whole[at + 1 :])
    with pytest.raises(LedgerError, match="damaged"):
        Ledger(path)


def test_a_schema_that_is_not_the_program_s_is_refused(path: Path, whole: bytes) -> None:
    """One wrong byte in a column's name, which SQLite takes for whole: then no run and no job is any manifest's."""
    text = b"manifests (  -- each manifest at each API\n        id"
    at = whole.index(text) + len(text) - 2
    path.write_bytes(whole[:at] + b"t" + whole[at + 1 :])
    with pytest.raises(LedgerError):
        Ledger(path)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_are_refused_in_words_and_never_end_in_a_traceback(path: Path, whole: bytes, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a seed is to be repeatable, not unpredictable
    for _ in range(60):
        damaged = bytearray(whole)
        for _place in range(chance.choice((1, 1, 2, 8, 64))):
            damaged[chance.randrange(len(damaged))] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        with suppress(LedgerError):
            use(path)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def test_an_outcome_of_what_was_never_claimed_is_refused(ledger: Ledger) -> None:
    start_run(ledger, "r-1", [A])
    for outcome in (created("j-1"), not_created(), in_doubt()):
        with pytest.raises((LedgerError, sqlite3.IntegrityError)), ledger.transaction():
            ledger.save_outcomes([(9, outcome, THEN)])
    assert ledger.all_submissions() == []


def test_many_at_once_are_claimed_and_decided_as_one_by_one(ledger: Ledger) -> None:
    jobs = [job(f"j{number}", f"w-{number}") for number in range(300)]
    run = start_run(ledger, "r-1", jobs)
    again = send(ledger, run, jobs[7], not_created())
    claims = [claim(Submission(one, 1), 2) for one in jobs]
    with ledger.transaction():
        numbers = ledger.claim(run, ledger.manifest_id(run.api, run.manifest), claims)
        ledger.save_outcomes([(number, created(f"id-{number}"), THEN) for number in numbers])
    assert numbers[7] == again
    found = {one.name: (one.id, one.job_id, one.attempts) for one in ledger.all_submissions()}
    assert found == {one.name: (number, f"id-{number}", 2) for one, number in zip(jobs, numbers, strict=True)}
    assert ledger.ids_in_use(run.api, [f"id-{number}" for number in numbers]) == {f"id-{number}" for number in numbers}
    told = ledger.job_objects(numbers)
    assert sorted(told) == sorted(numbers)
