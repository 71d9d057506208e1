"""One execution of a manifest: which run it is, what it settles, sends and looks up, and in which order.

The API is a stand-in, and the clock is the test's: minutes pass when the execution waits, or between two of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest
from support import ledger_history

from runner.client.api import ApiClient
from runner.client.exchange import Exchange
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.errors import RefusedError, UsageError
from runner.core.models import Created, ErrorInfo, InDoubt, Job, Manifest, NotCreated, Outcome, Skipped, Submission
from runner.core.settings import Limits, RunOptions
from runner.ledger import lock
from runner.ledger.connect import create_ledger
from runner.ledger.errors import LedgerError
from runner.ledger.journal import RunJournal
from runner.ledger.location import LedgerLocation
from runner.ledger.lock import LockedError
from runner.ledger.rows import RunRow, SubmissionRow
from runner.ledger.store import Ledger
from runner.runs import execution, reconcile
from runner.runs.execution import Execution
from runner.runs.matching import Finding
from runner.runs.request import RunRequest
from runner.submission import engine
from runner.submission.engine import Engine, EngineResult

DAY = "day:2026-10-20"


class Clock:
    """The time in the program's modules, as the test has it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self, seconds: float) -> bool:
        """Let time pass. It is what an execution waits by."""
        self.now += timedelta(seconds=seconds)
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    driven = Clock(ledger_history.THEN)

    class Driven(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            moment = driven.now.astimezone(tz)
            return cls.combine(moment.date(), moment.timetz())

    for module in (execution, reconcile, engine):
        monkeypatch.setattr(module, "datetime", Driven)
    monkeypatch.setattr(execution, "_steady_clock", lambda _begun: lambda: Driven.now(UTC))
    return driven


class Backend(ApiClient):
    """The API, and the truth of it: `jobs` holds each job with the time at which it is there and listed.

    `does` says what becomes of the POSTs of a project, in turn, the last for ever: `created`, `rejected`,
    `unreachable`, `lost` (no answer, no job), or `late:N` (no answer, and the job is created after N seconds).
    """

    bearer = False

    def __init__(self, clock: Clock, **does: str) -> None:
        self.clock = clock
        self.does = {project: words.split() for project, words in does.items()}
        self.jobs: list[tuple[datetime, str]] = []
        self.posts: list[str] = []
        self.lists = 0
        self.ahead = timedelta(0)

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - the API's
        self.posts.append(project_id)
        turns = self.does.get(project_id, ["created"])
        what, _, seconds = (turns.pop(0) if len(turns) > 1 else turns[0]).partition(":")
        match what:
            case "created":
                return self._answer(200, self._member(self.make()))
            case "rejected":
                return self._answer(422, {"error": {"code": "invalid", "message": "no"}})
            case "unreachable":
                return NoResponse("connect", written=False, detail="refused")
            case "late":
                self.make(float(seconds))
        return NoResponse("closed", written=True, detail="the connection ended before the answer")

    def make(self, after: float = 0) -> tuple[datetime, str]:
        """A job comes to be."""
        self.jobs.append((self.clock.now + timedelta(seconds=after), f"job-{len(self.jobs) + 1}"))
        return self.jobs[-1]

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - the API's
        self.lists += 1
        return self._answer(200, {"jobs": [self._member(job) for job in self.jobs if job[0] <= self.clock.now]})

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - the API's
        [job] = [job for job in self.jobs if job[1] == job_id]
        return self._answer(200, self._member(job))

    def _member(self, job: tuple[datetime, str]) -> dict[str, str]:
        return {"id": job[1], "created_at": (job[0] + self.ahead).isoformat(), "created_by": "me"}

    def _answer(self, status: int, body: dict[str, Any]) -> Response:
        date = f"{self.clock.now + self.ahead:%a, %d %b %Y %H:%M:%S GMT}"
        return Response(status, {"date": date}, json.dumps(body).encode(), self.clock.now)


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.looks: list[tuple[int, float]] = []
        self.findings: list[str] = []
        self.outcomes: dict[str, str] = {}

    def looked_up(self, findings: Sequence[Finding]) -> None:
        self.findings += [f"{one.doubt.name} {words(one.outcome)}" for one in findings]

    def looking_up(self, doubts: int, seconds: float) -> None:
        self.looks.append((doubts, seconds))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        self.outcomes[submission.job.name] = words(outcome)

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None: ...

    def pausing(self, error: ErrorInfo, seconds: float) -> None: ...

    def stopping(self, detail: str) -> None: ...


class Interrupter:
    """Nobody interrupts."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def engine_started(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)
        self.calls.append("made")

    def engine_ended(self) -> None:
        self.calls.append("done")


def words(outcome: Outcome) -> str:
    match outcome:
        case Created(job_id):
            return f"created {job_id}"
        case NotCreated(error):
            return f"failed {error.kind}"
        case InDoubt():
            return "doubt"
        case Skipped(reason):
            return f"skipped {reason}"


@dataclass(frozen=True)
class Ran:
    """An execution that has ended."""

    end: EngineResult
    record: dict[str, str]
    run: RunRow
    watcher: Watcher
    left: list[SubmissionRow]


@dataclass
class Site:
    """A ledger, a backend and a clock, at which a manifest is executed again and again."""

    ledger: Path
    clock: Clock
    backend: Backend

    def order(self, *jobs: Job, **options: Any) -> RunRequest:
        asked = ("once_per", "on_unfinished", "name", "timezone")
        about = {name: options.pop(name) for name in asked if name in options}
        sha256 = f"sha256 of {[(job.name, job.pair, job.enabled) for job in jobs]}"
        given: dict[str, Any] = {"name": "nightly", "path": "-", "once_per": "day"} | about
        return RunRequest(
            Manifest(sha256=sha256, jobs=jobs, **given),
            options.pop("api", ledger_history.API),
            LedgerLocation(self.ledger, explicit=not options.pop("make_ledger", True)),
            Limits(concurrency=1, attempts=1),
            RunOptions(**options),
        )

    @contextmanager
    def opened(self, *jobs: Job, **options: Any) -> Iterator[Execution]:
        wait = options.pop("wait", self.clock)
        with execution.open_execution(self.order(*jobs, **options), self.backend, Watcher(), wait) as one:
            yield one

    def run(self, *jobs: Job, **options: Any) -> Ran:
        """One execution, from its lock to its record."""
        interrupter = Interrupter()
        with self.opened(*jobs, **options) as one:
            one.prepare()
            end = one.submit(interrupter)
            record = {entry.job.name: words(entry.outcome) for entry in one.record().entries}
            assert interrupter.calls == ["made", "done"]
            assert isinstance(one.observer, Watcher)
            unsettled = one.ledger.unresolved(one.run.api, one.run.manifest)
            earlier = [left for left in unsettled if left.run_key != one.run.run_key]
            return Ran(end, record, one.run, one.observer, earlier)


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Site:
    return Site(tmp_path / "ledger.db", clock, Backend(clock))


def job(project: str, name: str = "", *, enabled: bool = True) -> Job:
    return Job(name or project, "w-1", project, enabled=enabled)


A, B, C = job("a"), job("b"), job("c")


# Which run it is.


def test_a_second_run_in_the_period_sends_nothing_and_one_in_the_next_does(site: Site) -> None:
    first = site.run(A, B)
    assert (first.end.state, first.run.run_key, site.backend.posts) == ("completed", DAY, ["a", "b"])
    site.clock(22.9 * 3600)
    second = site.run(A, B)
    assert (second.run.run_key, second.record) == (DAY, first.record)
    assert second.run.id != first.run.id
    site.clock(0.2 * 3600)
    third = site.run(A, B)
    assert (third.run.run_key, len(site.backend.posts)) == ("day:2026-10-21", 4)
    assert set(third.record.values()) == {"created job-3", "created job-4"}


def test_a_clock_that_steps_back_over_the_end_of_a_period_buys_nothing_again(site: Site) -> None:
    site.run(A)
    site.clock(86400)
    site.run(A)
    site.clock(-2 * 3600)
    back = site.run(A)
    assert (back.run.run_key, site.backend.posts) == (DAY, ["a", "a"])


def test_the_last_run_is_the_one_that_began_last_whatever_the_clock_says(site: Site) -> None:
    site.backend.does = {"b": ["rejected"]}
    first = site.run(A, B, once_per="run")
    site.clock(-3600)
    second = site.run(A, B, once_per="run", new=True)
    assert second.run.id < first.run.id
    site.backend.does = {}
    third = site.run(A, B, once_per="run", resume=True)
    assert (third.run.run_key, third.record) == (second.run.run_key, {"a": "created job-2", "b": "created job-3"})


def test_the_period_is_that_in_which_the_lock_was_got(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.clock.now = datetime(2026, 10, 20, 23, 59, 59, tzinfo=UTC)
    hold = lock.hold

    @contextmanager
    def waiting(*arguments: Any, **options: Any) -> Iterator[None]:
        with hold(*arguments, **options):
            site.clock(2)
            yield

    monkeypatch.setattr(lock, "hold", waiting)
    ran = site.run(A)
    assert ran.run.run_key == "day:2026-10-21"
    assert ran.run.id.startswith("20261020T235959Z-")
    assert ran.run.started_at == datetime(2026, 10, 21, 0, 0, 1, tzinfo=UTC)


# What the last run with once_per: run left: how it went, what is in the manifest now, how it is run, what comes of it.
# `a` is created at first; `b` goes as `does` says. A refusal counts; `last` and `fresh` are run keys.
OFF = job("b", enabled=False)

UNFINISHED: list[tuple[str, str, dict[str, Any], tuple[Job, ...], dict[str, Any], str]] = [
    ("all-created", "created", {}, (A, B), {}, "fresh"),
    ("not_created", "rejected", {}, (A, B), {}, "1 of 2 jobs not created"),
    ("failed-resume", "rejected", {}, (A, B), {"resume": True}, "last"),
    ("failed-new", "rejected", {}, (A, B), {"new": True}, "fresh"),
    ("failed-says-resume", "rejected", {}, (A, B), {"on_unfinished": "resume"}, "last"),
    ("failed-says-new", "rejected", {}, (A, B), {"on_unfinished": "new"}, "fresh"),
    ("failed-says-new-and-resume", "rejected", {}, (A, B), {"on_unfinished": "new", "resume": True}, "last"),
    ("failed-says-resume-and-new", "rejected", {}, (A, B), {"on_unfinished": "resume", "new": True}, "fresh"),
    ("failed-renamed", "rejected", {}, (A, job("b", "other")), {}, "1 of 2 jobs not created"),
    ("failed-and-removed", "rejected", {}, (A,), {}, "fresh"),
    ("failed-and-disabled", "rejected", {}, (A, OFF), {}, "fresh"),
    ("failed-and-added", "rejected", {}, (A, B, C), {}, "1 of 2 jobs not created"),
    ("failed-only-another", "rejected", {}, (A, B), {"only": ("a",)}, "1 of 2 jobs not created"),
    ("all-created-says-resume", "created", {}, (A, B), {"on_unfinished": "resume"}, "fresh"),
    ("all-created-resume", "created", {}, (A, B), {"resume": True}, "last"),
    ("not-selected", "created", {"only": ("a",)}, (A, B), {}, "fresh"),
    ("not-selected-resume", "created", {"only": ("a",)}, (A, B), {"resume": True}, "last"),
    ("selected-and-failed", "rejected", {"only": ("b",)}, (A, B), {}, "fresh"),
    ("in-doubt", "lost", {"hold": True}, (A, B), {"hold": True}, "1 of 2 jobs in doubt"),
    ("in-doubt-new", "lost", {"hold": True}, (A, B), {"hold": True, "new": True}, "fresh"),
    ("in-doubt-resume", "lost", {"hold": True}, (A, B), {"hold": True, "resume": True}, "last"),
    ("in-doubt-and-not-there", "lost", {"hold": True}, (A, B), {"settle": timedelta(0)}, "1 of 2 jobs not created"),
    ("in-doubt-and-found", "late:0", {"hold": True}, (A, B), {}, "fresh"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("does", "before", "jobs", "options", "expected"), [pytest.param(*row[1:], id=row[0]) for row in UNFINISHED]
)
def test_what_the_last_run_left(
    site: Site, does: str, before: dict[str, Any], jobs: tuple[Job, ...], options: dict[str, Any], expected: str
) -> None:
    site.backend.does = {"b": [does]}
    last = site.run(A, B, once_per="run", **before)
    sent, runs = len(site.backend.posts), [last.run.id]
    options = {"once_per": "run", **options}
    if " of " in expected:
        with pytest.raises(RefusedError) as caught:
            site.run(*jobs, **options)
        assert caught.value.message == f"the last run of nightly ({last.run.id}) left {expected}"
        assert "--resume" in caught.value.hint
        assert "--new" in caught.value.hint
        assert len(site.backend.posts) == sent
    else:
        ran = site.run(*jobs, **options)
        runs.insert(0, ran.run.id)
        keys = {"last": last.run.run_key, "fresh": f"run:{ran.run.id}"}
        assert ran.run.run_key == keys[expected]
        # All again under a new key; of the last run only what was not created, and nothing that may have been.
        lacking = [
            one.name for one in jobs if one.enabled and last.record.get(one.name, "")[:7] not in ("created", "doubt")
        ]
        # A run that was limited to some jobs is finished when those are.
        lacking = [name for name in lacking if name in before.get("only", lacking)]
        wanted = lacking if expected == "last" else [one.name for one in jobs if one.enabled]
        assert site.backend.posts[sent:] == wanted
    with Ledger(site.ledger) as ledger:
        assert [one.id for one in ledger.runs()] == runs


@pytest.mark.parametrize(
    ("before", "after"), [("run", "day"), ("day", "forever"), ("forever", "run"), ("day", "run"), ("hour", "month")]
)
def test_an_edited_once_per_buys_nothing_again_unless_it_is_said(site: Site, before: Any, after: Any) -> None:
    site.backend.does = {"b": ["rejected"]}
    last = site.run(A, B, once_per=before)
    for options in ({}, {"resume": True}):
        with pytest.raises(
            RefusedError, match=f"once_per was changed from {before} to {after} since the last run"
        ) as caught:
            site.run(A, B, once_per=after, **options)
        assert last.run.id in caught.value.message
    assert site.backend.posts == ["a", "b"]
    site.backend.does = {}
    assert site.run(A, B, once_per=after, new=True).record == {"a": "created job-2", "b": "created job-3"}


def test_an_edited_timezone_buys_nothing_again_unless_it_is_said(site: Site) -> None:
    site.backend.does = {"b": ["rejected"]}
    site.run(A, B)
    for zone in ("Pacific/Honolulu", "America/New_York"):  # where it is the day before still
        with pytest.raises(
            RefusedError, match=r"timezone was changed from UTC to .*: 1 of its jobs were submitted for the day"
        ):
            site.run(A, B, timezone=zone)
    assert site.run(B, timezone="Pacific/Honolulu").record == {"b": "failed rejected"}  # which was not bought
    assert site.run(A, timezone="Asia/Tokyo").record == {"a": "created job-1"}  # where it is the same day
    assert site.backend.posts == ["a", "b", "b"]
    assert site.run(A, timezone="Pacific/Honolulu", new=True).record == {"a": "created job-2"}


def test_an_edited_timezone_is_no_matter_when_the_period_is_over_by_the_old_one(site: Site) -> None:
    site.run(A, timezone="Asia/Tokyo")
    site.clock(2 * 86400)
    assert site.run(A, timezone="Pacific/Honolulu").record == {"a": "created job-2"}


def test_a_clock_that_was_ahead_buys_nothing_again_unless_it_is_said(site: Site) -> None:
    site.clock(86400)
    site.run(A, B)
    site.clock(-86400)
    with pytest.raises(RefusedError, match="in the future: 2 of its jobs were submitted for the day 2026-10-21"):
        site.run(A, B)
    assert site.run(C).record == {"c": "created job-3"}  # of which nothing was bought
    with pytest.raises(UsageError, match="--new conflicts with once_per: day"):
        site.run(A, C, new=True)
    site.clock(86400 - 60)
    assert site.run(A, B).record == {"a": "created job-1", "b": "created job-2"}
    assert site.backend.posts == ["a", "b", "c"]


def test_a_run_that_the_ledger_knows_elsewhere_is_not_resumed_here(site: Site) -> None:
    site.run(A, once_per="run")
    with pytest.raises(RefusedError, match="no run of nightly to resume"):
        site.run(A, once_per="run", resume=True, api="https://other.example")


def test_new_is_no_answer_within_a_period(site: Site) -> None:
    site.run(A)
    with pytest.raises(UsageError, match="--new conflicts with once_per: day"):
        site.run(A, new=True)


def test_one_more_is_not_asked_for_twice_while_the_first_is_in_doubt(site: Site) -> None:
    site.run(A)
    site.backend.does = {"a": ["lost"]}
    assert site.run(A, again=("a",), hold=True).record["a"] in ("created job-1", "doubt")
    with pytest.raises(UsageError, match="an earlier --again submission of this job is in doubt"):
        site.run(A, again=("a",), hold=True)
    assert site.backend.posts == ["a", "a"]


def test_a_first_run_has_nothing_to_resume(site: Site) -> None:
    ran = site.run(A, once_per="run", resume=True)
    assert (ran.run.run_key, ran.record) == (f"run:{ran.run.id}", {"a": "created job-1"})


def test_a_changed_manifest_is_resumed_and_what_changed_is_said(site: Site) -> None:
    site.backend.does = {"b": ["rejected"]}
    first = site.run(A, B, job("d"), once_per="run")
    resumed = site.run(A, B, C, job("c", "c-2"), OFF, once_per="run", resume=True)
    assert resumed.watcher.notes == [f"the manifest has changed since run {first.run.id}: 2 jobs added, 1 removed"]
    assert site.backend.posts == ["a", "b", "d", "b", "c", "c"]
    assert resumed.record["d"] == "created job-2"  # bought, and not listed any more
    again = site.run(A, B, C, job("c", "c-2"), OFF, once_per="run", resume=True)
    assert again.watcher.notes == []


# What was left behind by a process that is gone.


def test_what_a_killed_run_was_sending_is_looked_up_and_the_rest_is_sent(site: Site) -> None:
    create_ledger(site.ledger)
    with Ledger(site.ledger) as ledger:
        killed = ledger_history.start_run(ledger, "run-0", [A, B, C], key=DAY, path="-", end=None)
        ledger_history.send(ledger, killed, A, None)
    site.backend.make(2)
    site.clock(60)
    ran = site.run(A, B, C)
    assert ran.watcher.findings == ["a created job-1"]
    assert (ran.end.state, site.backend.posts) == ("completed", ["b", "c"])
    assert ran.record == {"a": "created job-1", "b": "created job-2", "c": "created job-3"}
    with Ledger(site.ledger) as ledger:
        runs = {one.id: (one.state, one.detail) for one in ledger.runs()}
    assert runs["run-0"] == ("interrupted", "its process ended unexpectedly")


def test_with_hold_it_is_in_doubt_and_nobody_asks(site: Site) -> None:
    create_ledger(site.ledger)
    with Ledger(site.ledger) as ledger:
        ledger_history.send(
            ledger, ledger_history.start_run(ledger, "run-0", [A, B], key=DAY, path="-", end=None), A, None
        )
    ran = site.run(A, B, hold=True)
    assert (ran.record, site.backend.lists) == ({"a": "doubt", "b": "created job-1"}, 0)
    assert ran.watcher.looks == []
    with Ledger(site.ledger) as ledger:  # in doubt, and not being sent: other manifests need not wait for it
        assert [(one.name, one.state) for one in ledger.all_submissions()] == [("a", "in_doubt"), ("b", "created")]


# Looking up, while minutes pass.


def test_it_looks_at_growing_intervals_for_half_a_minute_and_again_in_the_next_run(site: Site) -> None:
    site.backend.does = {"a": ["lost"]}
    ran = site.run(A)
    assert ran.watcher.looks == [(1, 30.0), (1, 30.0), (1, 29.0), (1, 27.0), (1, 23.0), (1, 15.0)]
    assert (ran.record, site.backend.lists) == ({"a": "doubt"}, 6)
    assert site.clock.now == ledger_history.THEN + timedelta(seconds=30)
    site.clock(13 * 60)
    assert site.run(A).record == {"a": "doubt"}
    site.clock(120)
    site.backend.does = {}
    late = site.run(A)
    assert late.watcher.findings == ["a failed not_found"]
    assert (late.record, site.backend.posts) == ({"a": "created job-1"}, ["a", "a"])


@pytest.mark.parametrize("ahead", [-3600, 0, 3600])
@pytest.mark.parametrize(("minutes", "looks"), [(0.1, 1), (2, 2), (14.9, 3)])
def test_a_server_that_creates_the_job_minutes_after_it_dropped_the_connection(
    site: Site, ahead: float, minutes: float, looks: int
) -> None:
    site.backend.ahead = timedelta(seconds=ahead)
    site.backend.does = {"b": [f"late:{minutes * 60}"]}
    records = [site.run(A, B).record]
    for pause in (5, 12):
        site.clock(pause * 60)
        records.append(site.run(A, B).record)
    assert site.backend.posts == ["a", "b"]
    found = {"a": "created job-1", "b": "created job-2"}
    assert records == [{"a": "created job-1", "b": "doubt"}] * (looks - 1) + [found] * (4 - looks)


def test_a_wait_that_is_interrupted_ends_the_looking(site: Site) -> None:
    site.backend.does = {"a": ["lost"]}
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) < 3

    ran = site.run(A, wait=wait)
    assert (waits, site.backend.lists, ran.record) == ([0.0, 1.0, 2.0], 2, {"a": "doubt"})
    assert ran.run.finished_at is not None


def test_doubts_of_an_older_run_key_are_looked_up_and_only_warn(site: Site) -> None:
    site.backend.does = {"a": ["lost", f"late:{13 * 3600}", "created"]}
    old = site.run(A, hold=True)
    site.clock(12 * 3600)
    site.run(A, once_per="month", hold=True, new=True)
    site.clock(12 * 3600)
    ran = site.run(A, new=True)
    assert (ran.run.run_key, ran.record) == ("day:2026-10-21", {"a": "created job-2"})
    assert ran.watcher.findings == ["a failed not_found", "a failed not_found"]
    assert ran.left == []
    assert old.run.run_key == DAY


def test_what_is_left_in_doubt_of_older_run_keys_is_told(site: Site) -> None:
    site.backend.does = {"a": ["lost", "created"]}
    site.run(A, once_per="hour")
    ran = site.run(A, new=True)
    assert [(one.name, one.run_key) for one in ran.left] == [("a", "hour:2026-10-20T01:00Z")]
    assert (ran.record, ran.watcher.looks) == ({"a": "created job-1"}, [])


def test_settle_0_takes_the_first_list_at_its_word(site: Site) -> None:
    site.backend.does = {"a": ["lost"]}
    ran = site.run(A, settle=timedelta(0))
    assert (ran.record, site.backend.lists) == ({"a": "failed not_found"}, 1)


# Refusals leave no trace, and locks keep two apart.


def test_two_at_once_are_kept_apart_by_name_and_api(site: Site) -> None:
    with site.opened(A) as one:
        with pytest.raises(LockedError) as caught, site.opened(A):
            pass
        assert one.run_id in caught.value.message
        other = site.run(A, name="other")
    assert other.record == {"a": "created job-1"}


def test_a_ledger_that_is_named_must_be_there(site: Site) -> None:
    with pytest.raises(LedgerError, match="there is no ledger at"), site.opened(A, make_ledger=False):
        pass
    assert list(site.ledger.parent.iterdir()) == []
    create_ledger(site.ledger)
    assert site.run(A, make_ledger=False).record == {"a": "created job-1"}


def test_a_record_that_cannot_be_written_stops_the_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise LedgerError("the disk is full")

    with site.opened(A, B) as one:
        one.prepare()
        monkeypatch.setattr(RunJournal, "commit", full)
        end = one.submit(Interrupter())
        assert (end.state, site.backend.posts) == ("stopped", [])
        assert end.error is not None
        assert end.error.message == "the disk is full"
        assert [entry.outcome for entry in one.record().entries] == [Skipped("stopped", "the disk is full")] * 2
    monkeypatch.undo()
    with Ledger(site.ledger) as ledger:
        assert [one.state for one in ledger.runs()] == ["stopped"]


def test_a_run_keeps_what_applied_to_it(site: Site) -> None:
    ran = site.run(A, B, only=("a",))
    assert ran.run.settings == {
        "concurrency": 1,
        "rate": None,
        "attempts": 1,
        "timeout": 30.0,
        "stop_after": 10,
        "max_pause": 900.0,
        "max_cost": None,
        "only": ["a"],
        "timezone": None,
    }
    assert ran.record == {"a": "created job-1", "b": "skipped not_selected"}
    assert site.run(A, B).record == {"a": "created job-1", "b": "created job-2"}
