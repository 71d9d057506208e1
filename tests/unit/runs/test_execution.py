"""The execution of a manifest: its run key, which jobs it sends and looks up, and in which order.

The API is a fake, and time only passes on the test's clock: when an execution waits, or between two executions.
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
    """The current time, as the program's modules see it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self, seconds: float) -> bool:
        """Advance the clock. Executions wait by calling it."""
        self.now += timedelta(seconds=seconds)
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    test_clock = Clock(ledger_history.THEN)

    class ClockDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            now = test_clock.now.astimezone(tz)
            return cls.combine(now.date(), now.timetz())

    for module in (execution, reconcile, engine):
        monkeypatch.setattr(module, "datetime", ClockDatetime)
    monkeypatch.setattr(execution, "_steady_clock", lambda _started_at: lambda: ClockDatetime.now(UTC))
    return test_clock


class Backend(ApiClient):
    """A fake API. `jobs` has the time of creation and the id of each job; it is listed from then on.

    `behaviors` has the results of a project's POSTs, in order, the last one repeated: `created`, `rejected`,
    `unreachable`, `lost` (no response and no job), or `late:N` (no response; the job is created after N seconds).
    `ahead` is how far the server's clock is ahead.
    """

    bearer = False

    def __init__(self, clock: Clock, **behaviors: str) -> None:
        self.clock = clock
        self.behaviors = {project: names.split() for project, names in behaviors.items()}
        self.jobs: list[tuple[datetime, str]] = []
        self.posts: list[str] = []
        self.lists = 0
        self.ahead = timedelta(0)

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - part of the API
        self.posts.append(project_id)
        behaviors = self.behaviors.get(project_id, ["created"])
        name, _, seconds = (behaviors.pop(0) if len(behaviors) > 1 else behaviors[0]).partition(":")
        match name:
            case "created":
                return self._respond(200, self._member(self.add_job()))
            case "rejected":
                return self._respond(422, {"error": {"code": "invalid", "message": "no"}})
            case "unreachable":
                return NoResponse("connect", written=False, detail="refused")
            case "late":
                self.add_job(float(seconds))
        return NoResponse("closed", written=True, detail="the connection closed before the response")

    def add_job(self, after: float = 0) -> tuple[datetime, str]:
        """Create a job, `after` so many seconds."""
        self.jobs.append((self.clock.now + timedelta(seconds=after), f"job-{len(self.jobs) + 1}"))
        return self.jobs[-1]

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - part of the API
        self.lists += 1
        return self._respond(200, {"jobs": [self._member(job) for job in self.jobs if job[0] <= self.clock.now]})

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - part of the API
        [job] = [job for job in self.jobs if job[1] == job_id]
        return self._respond(200, self._member(job))

    def _member(self, job: tuple[datetime, str]) -> dict[str, str]:
        return {"id": job[1], "created_at": (job[0] + self.ahead).isoformat(), "created_by": "me"}

    def _respond(self, status: int, body: dict[str, Any]) -> Response:
        date = f"{self.clock.now + self.ahead:%a, %d %b %Y %H:%M:%S GMT}"
        return Response(status, {"date": date}, json.dumps(body).encode(), self.clock.now)


class RecordingObserver:
    """Records the events of an execution."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lookups: list[tuple[int, float]] = []
        self.findings: list[str] = []
        self.outcomes: dict[str, str] = {}

    def looked_up(self, findings: Sequence[Finding]) -> None:
        self.findings += [f"{finding.doubt.name} {summarize(finding.outcome)}" for finding in findings]

    def looking_up(self, doubts: int, seconds: float) -> None:
        self.lookups.append((doubts, seconds))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        self.outcomes[submission.job.name] = summarize(outcome)

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None: ...

    def pausing(self, error: ErrorInfo, seconds: float) -> None: ...

    def stopping(self, detail: str) -> None: ...


class RecordingInterrupter:
    """Records its calls, and never interrupts."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def engine_started(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)
        self.calls.append("started")

    def engine_ended(self) -> None:
        self.calls.append("ended")


def summarize(outcome: Outcome) -> str:
    match outcome:
        case Created(job_id):
            return f"created {job_id}"
        case NotCreated(error):
            return f"not created {error.kind}"
        case InDoubt():
            return "in doubt"
        case Skipped(reason):
            return f"skipped {reason}"


@dataclass(frozen=True)
class FinishedExecution:
    """An execution that has ended. `earlier` are the unresolved submissions of older run keys."""

    result: EngineResult
    record: dict[str, str]
    run: RunRow
    observer: RecordingObserver
    earlier: list[SubmissionRow]


@dataclass
class Site:
    """A ledger, an API and a clock, for any number of executions."""

    ledger: Path
    clock: Clock
    backend: Backend

    def build_request(self, *jobs: Job, **options: Any) -> RunRequest:
        fields = ("once_per", "on_unfinished", "name", "timezone")
        given = {name: options.pop(name) for name in fields if name in options}
        sha256 = f"sha256 of {[(job.name, job.pair, job.enabled) for job in jobs]}"
        manifest: dict[str, Any] = {"name": "nightly", "path": "-", "once_per": "day"} | given
        return RunRequest(
            Manifest(sha256=sha256, jobs=jobs, **manifest),
            options.pop("api", ledger_history.API),
            LedgerLocation(self.ledger, explicit=not options.pop("create_ledger", True)),
            Limits(concurrency=1, attempts=1),
            RunOptions(**options),
        )

    @contextmanager
    def open(self, *jobs: Job, **options: Any) -> Iterator[Execution]:
        wait = options.pop("wait", self.clock)
        request = self.build_request(*jobs, **options)
        with execution.open_execution(request, self.backend, RecordingObserver(), wait) as opened:
            yield opened

    def run(self, *jobs: Job, **options: Any) -> FinishedExecution:
        """Execute a manifest completely."""
        interrupter = RecordingInterrupter()
        with self.open(*jobs, **options) as opened:
            opened.prepare()
            result = opened.submit(interrupter)
            record = {entry.job.name: summarize(entry.outcome) for entry in opened.record().entries}
            assert interrupter.calls == ["started", "ended"]
            assert isinstance(opened.observer, RecordingObserver)
            run = opened.run
            unresolved = opened.ledger.unresolved(run.api, run.manifest)
            earlier = [row for row in unresolved if row.run_key != run.run_key]
            return FinishedExecution(result, record, run, opened.observer, earlier)


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Site:
    return Site(tmp_path / "ledger.db", clock, Backend(clock))


def job(project: str, name: str = "", *, enabled: bool = True) -> Job:
    return Job(name or project, "w-1", project, enabled=enabled)


A, B, C = job("a"), job("b"), job("c")


# The run key.


def test_a_period_s_second_run_sends_nothing_and_the_next_period_s_run_does(site: Site) -> None:
    first = site.run(A, B)
    assert (first.result.state, first.run.run_key, site.backend.posts) == ("completed", DAY, ["a", "b"])
    site.clock(22.9 * 3600)
    second = site.run(A, B)
    assert (second.run.run_key, second.record) == (DAY, first.record)
    assert second.run.id != first.run.id
    site.clock(0.2 * 3600)
    third = site.run(A, B)
    assert (third.run.run_key, len(site.backend.posts)) == ("day:2026-10-21", 4)
    assert set(third.record.values()) == {"created job-3", "created job-4"}


def test_no_job_is_sent_again_when_the_clock_steps_back_into_the_last_period(site: Site) -> None:
    site.run(A)
    site.clock(86400)
    site.run(A)
    site.clock(-2 * 3600)
    third = site.run(A)
    assert (third.run.run_key, site.backend.posts) == (DAY, ["a", "a"])


def test_the_last_run_is_the_one_started_last_whatever_the_clock_says(site: Site) -> None:
    site.backend.behaviors = {"b": ["rejected"]}
    first = site.run(A, B, once_per="run")
    site.clock(-3600)
    second = site.run(A, B, once_per="run", new=True)
    assert second.run.id < first.run.id
    site.backend.behaviors = {}
    third = site.run(A, B, once_per="run", resume=True)
    assert (third.run.run_key, third.record) == (second.run.run_key, {"a": "created job-2", "b": "created job-3"})


def test_the_period_is_the_one_in_which_the_lock_was_acquired(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.clock.now = datetime(2026, 10, 20, 23, 59, 59, tzinfo=UTC)
    hold = lock.hold

    @contextmanager
    def hold_slowly(*arguments: Any, **options: Any) -> Iterator[None]:
        with hold(*arguments, **options):
            site.clock(2)
            yield

    monkeypatch.setattr(lock, "hold", hold_slowly)
    finished = site.run(A)
    assert finished.run.run_key == "day:2026-10-21"
    assert finished.run.id.startswith("20261020T235959Z-")
    assert finished.run.started_at == datetime(2026, 10, 21, 0, 0, 1, tzinfo=UTC)


# An unfinished last run with `once_per: run`. Each case: what happened to job b, the options of the last run, the jobs
# and options of the next, and its run key (of the last run, or a new one) or what it is refused for.
OFF = job("b", enabled=False)

UNFINISHED: list[tuple[str, str, dict[str, Any], tuple[Job, ...], dict[str, Any], str]] = [
    ("all-created", "created", {}, (A, B), {}, "new"),
    ("not-created", "rejected", {}, (A, B), {}, "did not create 1 of 2 jobs"),
    ("not-created-resume", "rejected", {}, (A, B), {"resume": True}, "last"),
    ("not-created-new", "rejected", {}, (A, B), {"new": True}, "new"),
    ("not-created-policy-resume", "rejected", {}, (A, B), {"on_unfinished": "resume"}, "last"),
    ("not-created-policy-new", "rejected", {}, (A, B), {"on_unfinished": "new"}, "new"),
    ("not-created-policy-new-and-resume", "rejected", {}, (A, B), {"on_unfinished": "new", "resume": True}, "last"),
    ("not-created-policy-resume-and-new", "rejected", {}, (A, B), {"on_unfinished": "resume", "new": True}, "new"),
    ("not-created-renamed", "rejected", {}, (A, job("b", "other")), {}, "did not create 1 of 2 jobs"),
    ("not-created-and-removed", "rejected", {}, (A,), {}, "new"),
    ("not-created-and-disabled", "rejected", {}, (A, OFF), {}, "new"),
    ("not-created-and-added", "rejected", {}, (A, B, C), {}, "did not create 1 of 2 jobs"),
    ("not-created-only-another", "rejected", {}, (A, B), {"only": ("a",)}, "did not create 1 of 2 jobs"),
    ("all-created-policy-resume", "created", {}, (A, B), {"on_unfinished": "resume"}, "new"),
    ("all-created-resume", "created", {}, (A, B), {"resume": True}, "last"),
    ("not-selected", "created", {"only": ("a",)}, (A, B), {}, "new"),
    ("not-selected-resume", "created", {"only": ("a",)}, (A, B), {"resume": True}, "last"),
    ("selected-and-not-created", "rejected", {"only": ("b",)}, (A, B), {}, "new"),
    ("in-doubt", "lost", {"hold": True}, (A, B), {"hold": True}, "left 1 of 2 jobs in doubt"),
    ("in-doubt-new", "lost", {"hold": True}, (A, B), {"hold": True, "new": True}, "new"),
    ("in-doubt-resume", "lost", {"hold": True}, (A, B), {"hold": True, "resume": True}, "last"),
    ("in-doubt-and-not-found", "lost", {"hold": True}, (A, B), {"settle": timedelta(0)}, "did not create 1 of 2 jobs"),
    ("in-doubt-and-found", "late:0", {"hold": True}, (A, B), {}, "new"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("behavior", "last_options", "jobs", "options", "expected"),
    [pytest.param(*row[1:], id=row[0]) for row in UNFINISHED],
)
def test_the_run_after_an_unfinished_one(
    site: Site,
    behavior: str,
    last_options: dict[str, Any],
    jobs: tuple[Job, ...],
    options: dict[str, Any],
    expected: str,
) -> None:
    site.backend.behaviors = {"b": [behavior]}
    last = site.run(A, B, once_per="run", **last_options)
    sent, runs = len(site.backend.posts), [last.run.id]
    options = {"once_per": "run", **options}
    if " of " in expected:
        with pytest.raises(RefusedError) as caught:
            site.run(*jobs, **options)
        assert caught.value.message == f"the last run of nightly ({last.run.id}) {expected}"
        assert "--resume" in caught.value.hint
        assert "--new" in caught.value.hint
        assert len(site.backend.posts) == sent
    else:
        finished = site.run(*jobs, **options)
        runs.insert(0, finished.run.id)
        keys = {"last": last.run.run_key, "new": f"run:{finished.run.id}"}
        assert finished.run.run_key == keys[expected]
        # A new run key sends every job; the last run's sends those that were certainly not created.
        enabled = [job.name for job in jobs if job.enabled]
        missing = [name for name in enabled if not last.record.get(name, "").startswith(("created", "in doubt"))]
        # A run limited to some jobs is finished when those are.
        missing = [name for name in missing if name in last_options.get("only", missing)]
        assert site.backend.posts[sent:] == (missing if expected == "last" else enabled)
    with Ledger(site.ledger) as ledger:
        assert [run.id for run in ledger.runs()] == runs


@pytest.mark.parametrize(
    ("before", "after"), [("run", "day"), ("day", "forever"), ("forever", "run"), ("day", "run"), ("hour", "month")]
)
def test_a_changed_once_per_is_refused_without_new(site: Site, before: Any, after: Any) -> None:
    site.backend.behaviors = {"b": ["rejected"]}
    last = site.run(A, B, once_per=before)
    for options in ({}, {"resume": True}):
        with pytest.raises(
            RefusedError, match=f"once_per was changed from {before} to {after} since the last run"
        ) as caught:
            site.run(A, B, once_per=after, **options)
        assert last.run.id in caught.value.message
    assert site.backend.posts == ["a", "b"]
    site.backend.behaviors = {}
    assert site.run(A, B, once_per=after, new=True).record == {"a": "created job-2", "b": "created job-3"}


def test_a_changed_timezone_is_refused_without_new(site: Site) -> None:
    site.backend.behaviors = {"b": ["rejected"]}
    site.run(A, B)
    for zone in ("Pacific/Honolulu", "America/New_York"):  # where it is still the previous day
        with pytest.raises(
            RefusedError, match=r"timezone was changed from UTC to .*: 1 of its jobs were submitted for the day"
        ):
            site.run(A, B, timezone=zone)
    assert site.run(B, timezone="Pacific/Honolulu").record == {"b": "not created rejected"}  # which was not created
    assert site.run(A, timezone="Asia/Tokyo").record == {"a": "created job-1"}  # where it is the same day
    assert site.backend.posts == ["a", "b", "b"]
    assert site.run(A, timezone="Pacific/Honolulu", new=True).record == {"a": "created job-2"}


def test_a_changed_timezone_is_accepted_after_the_old_period(site: Site) -> None:
    site.run(A, timezone="Asia/Tokyo")
    site.clock(2 * 86400)
    assert site.run(A, timezone="Pacific/Honolulu").record == {"a": "created job-2"}


def test_jobs_submitted_for_a_future_period_are_not_sent_again(site: Site) -> None:
    site.clock(86400)
    site.run(A, B)
    site.clock(-86400)
    with pytest.raises(RefusedError, match="in the future: 2 of its jobs were submitted for the day 2026-10-21"):
        site.run(A, B)
    assert site.run(C).record == {"c": "created job-3"}  # which was not created
    with pytest.raises(UsageError, match="--new conflicts with once_per: day"):
        site.run(A, C, new=True)
    site.clock(86400 - 60)
    assert site.run(A, B).record == {"a": "created job-1", "b": "created job-2"}
    assert site.backend.posts == ["a", "b", "c"]


def test_a_run_at_another_api_is_not_resumed(site: Site) -> None:
    site.run(A, once_per="run")
    with pytest.raises(RefusedError, match="no run of nightly to resume"):
        site.run(A, once_per="run", resume=True, api="https://other.example")


def test_new_conflicts_with_a_period(site: Site) -> None:
    site.run(A)
    with pytest.raises(UsageError, match="--new conflicts with once_per: day"):
        site.run(A, new=True)


def test_again_is_refused_while_an_earlier_again_is_in_doubt(site: Site) -> None:
    site.run(A)
    site.backend.behaviors = {"a": ["lost"]}
    assert site.run(A, again=("a",), hold=True).record["a"] in ("created job-1", "in doubt")
    with pytest.raises(UsageError, match="an earlier --again submission of this job is in doubt"):
        site.run(A, again=("a",), hold=True)
    assert site.backend.posts == ["a", "a"]


def test_resume_without_an_earlier_run_starts_one(site: Site) -> None:
    finished = site.run(A, once_per="run", resume=True)
    assert (finished.run.run_key, finished.record) == (f"run:{finished.run.id}", {"a": "created job-1"})


def test_a_changed_manifest_is_resumed_with_a_note(site: Site) -> None:
    site.backend.behaviors = {"b": ["rejected"]}
    first = site.run(A, B, job("d"), once_per="run")
    resumed = site.run(A, B, C, job("c", "c-2"), OFF, once_per="run", resume=True)
    assert resumed.observer.notes == [f"the manifest has changed since run {first.run.id}: 2 jobs added, 1 removed"]
    assert site.backend.posts == ["a", "b", "d", "b", "c", "c"]
    assert resumed.record["d"] == "created job-2"  # created, and no longer in the manifest
    again = site.run(A, B, C, job("c", "c-2"), OFF, once_per="run", resume=True)
    assert again.observer.notes == []


# After a process that was killed.


def test_jobs_of_a_killed_run_are_looked_up_or_sent(site: Site) -> None:
    create_ledger(site.ledger)
    with Ledger(site.ledger) as ledger:
        killed = ledger_history.start_run(ledger, "run-0", [A, B, C], key=DAY, path="-", end=None)
        ledger_history.send(ledger, killed, A, None)
    site.backend.add_job(2)
    site.clock(60)
    finished = site.run(A, B, C)
    assert finished.observer.findings == ["a created job-1"]
    assert (finished.result.state, site.backend.posts) == ("completed", ["b", "c"])
    assert finished.record == {"a": "created job-1", "b": "created job-2", "c": "created job-3"}
    with Ledger(site.ledger) as ledger:
        runs = {run.id: (run.state, run.detail) for run in ledger.runs()}
    assert runs["run-0"] == ("interrupted", "its process ended unexpectedly")


def test_hold_leaves_jobs_in_doubt_without_a_lookup(site: Site) -> None:
    create_ledger(site.ledger)
    with Ledger(site.ledger) as ledger:
        ledger_history.send(
            ledger, ledger_history.start_run(ledger, "run-0", [A, B], key=DAY, path="-", end=None), A, None
        )
    finished = site.run(A, B, hold=True)
    assert (finished.record, site.backend.lists) == ({"a": "in doubt", "b": "created job-1"}, 0)
    assert finished.observer.lookups == []
    with Ledger(site.ledger) as ledger:  # in doubt, not `sending`: other manifests need not wait for it
        assert [(row.name, row.state) for row in ledger.all_submissions()] == [("a", "in_doubt"), ("b", "created")]


# Lookups, as time passes.


def test_lookups_are_repeated_for_30_seconds_and_in_the_next_run(site: Site) -> None:
    site.backend.behaviors = {"a": ["lost"]}
    finished = site.run(A)
    assert finished.observer.lookups == [(1, 30.0), (1, 30.0), (1, 29.0), (1, 27.0), (1, 23.0), (1, 15.0)]
    assert (finished.record, site.backend.lists) == ({"a": "in doubt"}, 6)
    assert site.clock.now == ledger_history.THEN + timedelta(seconds=30)
    site.clock(13 * 60)
    assert site.run(A).record == {"a": "in doubt"}
    site.clock(120)
    site.backend.behaviors = {}
    late = site.run(A)
    assert late.observer.findings == ["a not created not_found"]
    assert (late.record, site.backend.posts) == ({"a": "created job-1"}, ["a", "a"])


@pytest.mark.parametrize("ahead", [-3600, 0, 3600])
@pytest.mark.parametrize(("minutes", "lookups"), [(0.1, 1), (2, 2), (14.9, 3)])
def test_a_job_created_minutes_after_the_connection_closed_is_recovered(
    site: Site, ahead: float, minutes: float, lookups: int
) -> None:
    site.backend.ahead = timedelta(seconds=ahead)
    site.backend.behaviors = {"b": [f"late:{minutes * 60}"]}
    records = [site.run(A, B).record]
    for pause in (5, 12):
        site.clock(pause * 60)
        records.append(site.run(A, B).record)
    assert site.backend.posts == ["a", "b"]
    created = {"a": "created job-1", "b": "created job-2"}
    assert records == [{"a": "created job-1", "b": "in doubt"}] * (lookups - 1) + [created] * (4 - lookups)


def test_an_interrupted_wait_ends_the_lookups(site: Site) -> None:
    site.backend.behaviors = {"a": ["lost"]}
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) < 3

    finished = site.run(A, wait=wait)
    assert (waits, site.backend.lists, finished.record) == ([0.0, 1.0, 2.0], 2, {"a": "in doubt"})
    assert finished.run.finished_at is not None


def test_doubts_of_older_run_keys_are_looked_up(site: Site) -> None:
    site.backend.behaviors = {"a": ["lost", f"late:{13 * 3600}", "created"]}
    old = site.run(A, hold=True)
    site.clock(12 * 3600)
    site.run(A, once_per="month", hold=True, new=True)
    site.clock(12 * 3600)
    finished = site.run(A, new=True)
    assert (finished.run.run_key, finished.record) == ("day:2026-10-21", {"a": "created job-2"})
    assert finished.observer.findings == ["a not created not_found", "a not created not_found"]
    assert finished.earlier == []
    assert old.run.run_key == DAY


def test_unresolved_doubts_of_older_run_keys_are_reported(site: Site) -> None:
    site.backend.behaviors = {"a": ["lost", "created"]}
    site.run(A, once_per="hour")
    finished = site.run(A, new=True)
    assert [(row.name, row.run_key) for row in finished.earlier] == [("a", "hour:2026-10-20T01:00Z")]
    assert (finished.record, finished.observer.lookups) == ({"a": "created job-1"}, [])


def test_settle_0_trusts_the_first_list(site: Site) -> None:
    site.backend.behaviors = {"a": ["lost"]}
    finished = site.run(A, settle=timedelta(0))
    assert (finished.record, site.backend.lists) == ({"a": "not created not_found"}, 1)


# Refusals, locks and full disks.


def test_concurrent_runs_of_one_manifest_are_refused(site: Site) -> None:
    with site.open(A) as running:
        with pytest.raises(LockedError) as caught, site.open(A):
            pass
        assert running.run_id in caught.value.message
        other = site.run(A, name="other")
    assert other.record == {"a": "created job-1"}


def test_an_explicit_ledger_must_exist(site: Site) -> None:
    with pytest.raises(LedgerError, match="there is no ledger at"), site.open(A, create_ledger=False):
        pass
    assert list(site.ledger.parent.iterdir()) == []
    create_ledger(site.ledger)
    assert site.run(A, create_ledger=False).record == {"a": "created job-1"}


def test_a_ledger_that_cannot_be_written_stops_the_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_full(*_: Any) -> None:
        raise LedgerError("the disk is full")

    with site.open(A, B) as opened:
        opened.prepare()
        monkeypatch.setattr(RunJournal, "commit", raise_full)
        result = opened.submit(RecordingInterrupter())
        assert (result.state, site.backend.posts) == ("stopped", [])
        assert result.error is not None
        assert result.error.message == "the disk is full"
        assert [entry.outcome for entry in opened.record().entries] == [Skipped("stopped", "the disk is full")] * 2
    monkeypatch.undo()
    with Ledger(site.ledger) as ledger:
        assert [run.state for run in ledger.runs()] == ["stopped"]


def test_a_run_stores_its_settings(site: Site) -> None:
    finished = site.run(A, B, only=("a",))
    assert finished.run.settings == {
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
    assert finished.record == {"a": "created job-1", "b": "skipped not_selected"}
    assert site.run(A, B).record == {"a": "created job-1", "b": "created job-2"}
