"""What is known of a run's jobs at the API: what their objects say, what is asked and how often, and when it ends."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import records
from support.wire import Reply, Request, Reset, Script, WireServer, refusing_port, reply

from runner.client.api import ReadOnlyClient
from runner.client.endpoint import ApiKey, Endpoint
from runner.client.fetcher import Fetcher
from runner.core.backoff import Backoff
from runner.core.settings import Limits
from runner.runs.job_status import JobStatus, StatusKind, StatusPoller, summarize_statuses

THEN = datetime(2026, 10, 20, 1, 0, tzinfo=UTC)

# One try for each question: how often one is asked again is the asker's business, and these tests are about the rest.
ONCE = Limits(attempts=1, timeout=5.0)


def sighting(job_id: str = "j", workflow_id: str = "w", **members: Any) -> JobStatus:
    return raw(json.dumps({"id": job_id, **members}).encode(), job_id, workflow_id)


def raw(body: bytes, job_id: str = "j", workflow_id: str = "w") -> JobStatus:
    return JobStatus(f"name of {job_id}", workflow_id, "p", job_id, body)


# Which words are final.

WORDS: dict[StatusKind, tuple[str, ...]] = {
    "completed": ("completed", "succeeded", "success", "successful", "done", "finished"),
    "failed": ("failed", "failure", "error", "errored", "timed_out", "timedout"),
    "cancelled": ("cancelled", "canceled", "aborted", "terminated", "stopped"),
    "active": ("pending", "queued", "scheduled", "accepted", "running", "in_progress", "processing", "paused"),
}


@pytest.mark.parametrize(("word", "kind"), [(word, kind) for kind, words in WORDS.items() for word in words])
def test_known_words(word: str, kind: StatusKind) -> None:
    seen = sighting(status=word)
    assert (seen.kind, seen.is_final, seen.status) == (kind, kind != "active", word)


@given(
    st.sampled_from([(word, kind) for kind, words in WORDS.items() for word in words]),
    st.sampled_from([str.upper, str.title, str.capitalize, str.swapcase]),
    st.sampled_from("_- "),
    st.sampled_from(["{}", " {}", "{} \n"]),
)
def test_however_they_are_spelt(
    known: tuple[str, StatusKind], case: Callable[[str], str], joint: str, around: str
) -> None:
    word, kind = known
    assert sighting(status=around.format(case(word).replace("_", joint))).kind == kind


@pytest.mark.parametrize("word", ["weird", "finalizing", "completed?", "uncompleted", "", None, 7, ["completed"]])
def test_a_word_that_nobody_knows_is_final_only_at_an_end(word: Any) -> None:
    assert (sighting(status=word).kind, sighting(status=word).is_final) == ("unknown", False)
    assert sighting(status=word, finished_at="2026-10-20T01:00:00Z").is_final


def test_a_job_that_goes_on_is_not_ended_by_a_time() -> None:
    assert not sighting(status="running", finished_at="2026-10-20T01:00:00Z").is_final


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00Z",  # what Go writes for a time that is not set
        "0001-01-01T00:00:00+05:30",  # of a year that UTC does not have
        "1970-01-01T00:00:00Z",
        "1970-01-01T05:30:00+05:30",
        "9999-12-31T23:59:59-05:00",  # likewise, at the other end
        "",
        "soon",
        None,
        0,
        1792458000,
        True,
        ["2026-10-20T01:00:00Z"],
    ],
)
def test_what_is_no_end(time: Any) -> None:
    seen = sighting(status="weird", finished_at=time)
    assert (seen.finished_at, seen.is_final) == (None, False)


@pytest.mark.parametrize(
    "time", ["2026-10-20T01:00:00Z", "2026-10-20T06:30:00+05:30", "2026-10-20T01:00:00", "2026-10-20T01:00:00.0000000Z"]
)
def test_an_end_is_told_in_utc(time: str) -> None:
    seen = sighting(finished_at=time).finished_at
    assert seen == THEN
    assert seen.utcoffset() == timedelta(0)


# What a job's object says.


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("45", "45 %"),
        (45, "45 %"),
        ("45.5", "45.5 %"),
        (45.5, "45.5 %"),
        (" 100 ", "100 %"),
        (0, "0 %"),
        ("45 %", "45 %"),
        ("half-way", "half-way"),
        ("", ""),
        (None, ""),
        (True, ""),
        ([45], ""),
        ({"percent": 45}, ""),
    ],
)
def test_progress(told: Any, shown: str) -> None:
    assert sighting(progress=told).progress == shown


@pytest.mark.parametrize(
    ("told", "cost"),
    [(12, 12), (0, 0), (-3, -3), ("12", None), (12.0, 12), (12.5, None), (True, None), (None, None), (10**19, None)],
)
def test_cost(told: Any, cost: int | None) -> None:
    assert sighting(cost=told).cost == cost


@pytest.mark.parametrize(("told", "shown"), [("1h2m", "1h2m"), (62, ""), (None, ""), (["1h"], "")])
def test_time_taken(told: Any, shown: str) -> None:
    assert sighting(time_taken=told).time_taken == shown


def task(name: Any = "", failure_type: Any = "", err_msg: Any = "") -> dict[str, Any]:
    return {"name": name, "failure_type": failure_type, "err_msg": err_msg}


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([task("Analyse", "INPUT", "no imagery")], ("Analyse: INPUT: no imagery",)),
        ([task("Analyse", "", "no imagery"), task("Deliver")], ("Analyse: no imagery",)),
        ([task("", "INPUT", "")], ("INPUT",)),
        ([task(7, " ", "no imagery")], ("no imagery",)),
        ([task("Analyse", ["INPUT"], 7)], ()),
        ([task("Analyse", " \n", None)], ()),
        ([task(str(n), "", "broken") for n in range(3)], ("0: broken", "1: broken", "2: broken")),
        ([task(str(n), "", "broken") for n in range(5)], ("0: broken", "1: broken", "2: broken", "and 2 more")),
        ([None, 7, "broken", [], {"err_msg": "broken"}], ("broken",)),
        ({"err_msg": "broken"}, ()),
        ("broken", ()),
        (None, ()),
    ],
)
def test_errors_of_tasks(tasks: Any, said: tuple[str, ...]) -> None:
    assert sighting(tasks=tasks).errors == said


def test_an_object_that_cannot_be_read_says_nothing() -> None:
    for body in (b"", b"{", b"[]", b'{"id": ""}', b"\xff\xfe", b'{"status": "completed"}'):
        seen = raw(body)
        assert (seen.status, seen.kind, seen.is_final, seen.progress, seen.cost) == ("", "unknown", False, "", None)
        assert (seen.time_taken, seen.finished_at, seen.errors) == ("", None, ())


def test_totals() -> None:
    seen = [
        sighting(status="completed", cost=12),
        sighting(status="completed", cost=-5),  # no discount for a cost that is none
        sighting(status="weird", cost=3),
        raw(b""),
    ]
    assert summarize_statuses(seen) == "4 jobs: 2 completed, 1 weird, 1 status unknown · cost 15"
    lost = replace(sighting(status="running", cost=1), problem="HTTP 404 Not Found")
    assert summarize_statuses([seen[0], lost]) == "2 jobs: 1 completed, 1 status unknown · cost 13"
    assert summarize_statuses(seen[:1]) == "1 job: 1 completed · cost 12"
    assert summarize_statuses([]) == "0 jobs · cost 0"


def test_costs_too_large_to_be_printed_are_none() -> None:
    # As many digits as Python prints: the sum of some would have one more.
    body = b'{"id": "j", "status": "completed", "cost": %s}' % (b"9" * 4300)
    assert summarize_statuses([raw(body)] * 20) == "20 jobs: 20 completed · cost 0"


MEMBERS = st.dictionaries(
    st.sampled_from(["status", "progress", "cost", "time_taken", "finished_at", "tasks"]),
    records.json_values
    | st.lists(st.dictionaries(st.sampled_from(["name", "failure_type", "err_msg"]), records.json_values), max_size=5)
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.9-23:59", "2026-02-30T00:00:00Z", "2026-10"]),
)


@given(st.lists(records.bodies | MEMBERS.map(lambda members: json.dumps({**members, "id": "j"}).encode()), max_size=4))
def test_whatever_the_api_tells_it_can_be_read(bodies: list[bytes]) -> None:
    seen = [raw(body) for body in bodies]
    for one in seen:
        assert isinstance(one.status, str)
        assert isinstance(one.progress, str)
        assert isinstance(one.time_taken, str)
        assert isinstance(one.cost, int | None)
        assert all(map(len, one.errors))
        assert one.finished_at is None or one.finished_at.utcoffset() == timedelta(0)
        assert one.is_final == (one.finished_at is not None if one.kind == "unknown" else one.kind != "active")
    assert summarize_statuses(seen).startswith(str(len(seen)))


# What is asked. The server's record says.


@dataclass
class Backend:
    """An API with jobs by workflow and id. A list shows the last `page` of them, and never their tasks."""

    jobs: dict[str, dict[str, dict[str, Any]]]
    page: int = 50
    instead: dict[str, list[Script]] = field(default_factory=dict)  # by path without `/v0/workflows/`, for each in turn

    def __call__(self, request: Request) -> Script:
        path = request.target.removeprefix("/v0/workflows/")
        if self.instead.get(path):
            script = self.instead[path][0]
            if len(self.instead[path]) > 1:  # the last stays
                self.instead[path].pop(0)
            return script
        workflow, _, job = path.partition("/jobs")
        known = self.jobs[workflow]
        if not job:
            return listing(*({"id": one, **members} for one, members in list(known.items())[-self.page :]))
        found = known.get(job.removeprefix("/"))
        return reply(404) if found is None else reply(200, json.dumps({"id": job[1:], **found, **_TASKS}).encode())

    def tell(self, word: str, *ids: str) -> None:
        """These jobs have that status from now on; all without ids."""
        for known in self.jobs.values():
            for one in ids or known:
                if one in known:
                    known[one]["status"] = word


_TASKS = {"tasks": [{"name": "Analyse", "err_msg": "broken"}]}
RUNNING = {"status": "running"}


def listing(*jobs: dict[str, Any]) -> Reply:
    items = [{name: value for name, value in job.items() if name != "tasks"} for job in jobs]
    return reply(200, json.dumps({"jobs": items}).encode())


def backend(**workflows: int) -> Backend:
    """An API with so many jobs that run in each workflow: `a-0`, `a-1`, … in workflow `a`."""
    return Backend(
        {name: {f"{name}-{n}": {"status": "running"} for n in range(count)} for name, count in workflows.items()}
    )


@dataclass
class Case:
    """A watch on jobs of a server, what it put on record, and the seconds that it slept. `up` holds the server."""

    watch: StatusPoller
    server: WireServer
    kept: list[JobStatus]
    clock: Clock
    up: ExitStack
    stopped: bool = False
    _seen: int = 0

    @property
    def asked(self) -> list[str]:
        """What was asked since this was looked at last, in any order."""
        now = [request.target.removeprefix("/v0/workflows/") for request in self.server.requests]
        new, self._seen = now[self._seen :], len(now)
        assert all(request.method == "GET" for request in self.server.requests)
        return sorted(new)

    def status(self, job_id: str) -> str:
        return self.one(job_id).status

    def one(self, job_id: str) -> JobStatus:
        return next(one for one in self.watch.statuses if one.job_id == job_id)

    def follow(self, timeout: float | None = None, then: Callable[[], object] = lambda: None) -> list[list[str]]:
        """Follow on a clock that only moves by the sleeps, `then` after each; returns what changed at each look."""

        def wait(seconds: float) -> bool:
            self.clock.sleep(seconds)
            then()
            return not self.stopped

        return [[one.job_id for one in changed] for changed in self.watch.poll_until_final(wait, timeout)]


@dataclass
class Clock:
    """A clock that stands still but for the sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@contextmanager
def watching(api: Backend, limits: Limits = ONCE, jobs: Sequence[JobStatus] | None = None) -> Iterator[Case]:
    """Watch the jobs of a server, of which is known that they were accepted, or these."""
    known = jobs or [
        sighting(one, workflow, status="accepted") for workflow, there in api.jobs.items() for one in there
    ]
    clock, kept = Clock(), list[JobStatus]()
    with refusing_port() as port, ExitStack() as up:
        server = up.enter_context(WireServer(choose=api, port=port))
        with ReadOnlyClient(Endpoint(server.url, ApiKey("a-key-of-tests")), 8) as reader:
            asker = Fetcher(limits, backoff=Backoff(base=0.001), clock=clock)
            watch = StatusPoller(known, reader, asker, kept.extend, clock=clock, now=lambda: THEN)
            yield Case(watch, server, kept, clock, up)


def test_one_list_for_several_and_one_get_for_one_alone() -> None:
    with watching(backend(a=3, b=1, c=2)) as case:
        changed = case.watch.poll()
        assert case.asked == ["a/jobs", "b/jobs/b-0", "c/jobs"]
        case.watch.poll()
        assert case.asked == ["a/jobs", "b/jobs/b-0", "c/jobs"]
    assert [one.job_id for one in changed] == ["a-0", "a-1", "a-2", "b-0", "c-0", "c-1"]
    assert {one.status for one in case.watch.statuses} == {"running"}
    assert {one.seen_at for one in case.watch.statuses} == {THEN}
    assert [one.has_tasks for one in case.watch.statuses] == [False, False, False, True, False, False]


def test_what_a_list_cuts_off_is_asked_for_by_itself() -> None:
    with watching(backend(a=53)) as case:
        case.watch.poll()
        assert case.asked == ["a/jobs", "a/jobs/a-0", "a/jobs/a-1", "a/jobs/a-2"]
    assert {one.status for one in case.watch.statuses} == {"running"}


def test_the_reasons_of_a_failure_are_asked_for_once() -> None:
    api = backend(a=3, b=1)
    api.tell("failed", "a-0", "b-0")
    api.tell("weird", "a-1")
    api.jobs["a"]["a-1"]["finished_at"] = "2026-10-20T01:00:00Z"
    with watching(api) as case:
        case.watch.poll()
        assert case.asked == ["a/jobs", "a/jobs/a-0", "a/jobs/a-1", "b/jobs/b-0"]
        case.watch.poll()
        assert case.asked == ["a/jobs/a-2"]
    assert {one.job_id for one in case.watch.statuses if one.errors == ("Analyse: broken",)} >= {"a-0", "a-1", "b-0"}


def test_reasons_that_are_not_told_do_not_matter() -> None:
    api = backend(a=2)
    api.tell("failed", "a-0")
    for trouble in (reply(404), reply(401), reply(500), reply(200, b"{}"), Reset()):
        api.instead["a/jobs/a-0"] = [trouble]
        with watching(api) as case:
            case.watch.poll()
            assert case.asked == ["a/jobs", "a/jobs/a-0"]
            assert (case.status("a-0"), case.one("a-0").errors, case.one("a-0").problem) == ("failed", (), "")
            assert (case.watch.auth_error, case.watch.is_done) == ("", False)
            case.watch.poll()
            assert case.asked == ["a/jobs/a-1"]


def test_a_completed_job_is_not_asked_for_reasons() -> None:
    api = backend(a=2)
    api.tell("completed")
    with watching(api) as case:
        case.watch.poll()
        assert case.asked == ["a/jobs"]
        assert case.watch.is_done


def test_what_is_final_is_not_asked_for_again() -> None:
    api = backend(a=3)
    with watching(api) as case:
        for number, asked in enumerate((["a/jobs"], ["a/jobs"], ["a/jobs/a-2"])):
            api.tell("completed", f"a-{number}")
            assert [one.job_id for one in case.watch.poll()][:1] == [f"a-{number}"]
            assert case.asked == asked
        assert case.watch.is_done
        assert case.watch.poll() == []
        assert case.asked == []
    assert [one.job_id for one in case.kept] == ["a-0", "a-1", "a-2"]


def test_what_was_final_before_is_never_asked_for() -> None:
    api = backend(a=2)
    seen = [replace(sighting(one, "a", status="completed"), seen_at=datetime.now(UTC)) for one in api.jobs["a"]]
    with watching(api, jobs=seen) as case:
        assert case.watch.is_done
        assert case.follow() == [[]]
        assert case.asked == []
    assert case.kept == []


def test_with_no_jobs_nothing_is_asked() -> None:
    watch = StatusPoller([], NoRequests(), Fetcher(ONCE), lambda _: pytest.fail("nothing is final"))
    assert watch.is_done
    assert watch.poll() == []


class NoRequests(ReadOnlyClient):
    """A client that must not be called."""

    def __init__(self) -> None: ...

    def _send(self, *_: object) -> Any:
        pytest.fail("unexpected request")


def test_what_a_list_says_is_added_to_what_is_known() -> None:
    api = backend(a=2)
    known = [
        sighting(one, "a", status="accepted", val_errors=["bad"], tasks=[{"err_msg": "of before"}])
        for one in api.jobs["a"]
    ]
    with watching(api, jobs=known) as case:
        case.watch.poll()
    assert json.loads(case.one("a-0").body) == {"id": "a-0", "status": "running", "val_errors": ["bad"]}


def test_an_answer_for_another_job_is_none() -> None:
    api = backend(a=1)
    api.instead["a/jobs/a-0"] = [reply(200, b'{"id": "a-1", "status": "completed"}')]
    with watching(api) as case:
        case.watch.poll()
    assert (case.status("a-0"), case.one("a-0").problem) == ("accepted", "HTTP 200 OK: the response cannot be read")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"jobs": 7}', b'{"jobs": [{"status": "running"}]}'])
def test_after_a_list_that_cannot_be_read_each_is_asked_for(body: bytes) -> None:
    api = backend(a=2)
    api.instead["a/jobs"] = [reply(200, body)]
    with watching(api) as case:
        case.watch.poll()
        assert case.asked == ["a/jobs", "a/jobs/a-0", "a/jobs/a-1"]
    assert [(one.status, one.problem) for one in case.watch.statuses] == [("running", "")] * 2


@pytest.mark.parametrize("trouble", [reply(403), reply(500), reply(302, headers=[("Location", "/")]), Reset()])
def test_after_a_list_that_is_not_told_nothing_more_is_asked(trouble: Script) -> None:
    api = backend(a=2)
    api.instead["a/jobs"] = [trouble]
    with watching(api) as case:
        changed = case.watch.poll()
        assert case.asked == ["a/jobs"]
    assert [one.job_id for one in changed] == ["a-0", "a-1"]
    assert all(one.problem and one.status == "accepted" and one.seen_at is None for one in changed)


@pytest.mark.parametrize("trouble", [reply(500), reply(404), reply(200, b"?"), Reset()])
def test_a_workflow_that_is_broken_does_not_hide_another(trouble: Script) -> None:
    api = backend(a=2, b=1, c=2)
    api.instead["a/jobs"] = [trouble]
    with watching(api) as case:
        case.watch.poll()
    assert [case.status(one) for one in ("b-0", "c-0", "c-1")] == ["running"] * 3


# What ends it, and what does not.


def test_a_key_that_is_not_recognised_ends_it() -> None:
    api = backend(a=2, b=2, c=1)
    api.instead = {path: [reply(401)] for path in ("a/jobs", "b/jobs", "c/jobs/c-0")}
    with watching(api, Limits(attempts=5, timeout=5.0, concurrency=1)) as case:
        assert case.follow() == [["a-0", "a-1", "b-0", "b-1", "c-0"]]
        assert case.asked == ["a/jobs"]
    assert case.watch.is_done
    assert "HTTP 401" in case.watch.auth_error
    assert {one.problem for one in case.watch.statuses} == {case.watch.auth_error}
    assert case.clock.slept == []


def test_a_server_that_is_restarted_is_asked_again() -> None:
    api = backend(a=2, b=1)
    with watching(api) as case:

        def turn() -> None:
            if len(case.clock.slept) == 1:
                case.up.close()
                return
            assert all(one.problem.startswith("cannot connect") for one in case.watch.statuses)
            assert {one.status for one in case.watch.statuses} == {"running"}
            api.tell("completed")
            case.up.enter_context(WireServer(choose=api, port=case.server.port))

        assert case.follow(then=turn) == [["a-0", "a-1", "b-0"]] * 3  # running, not known, completed
    assert [(one.status, one.problem) for one in case.watch.statuses] == [("completed", "")] * 3


DENIALS = [reply(404), reply(400), reply(403), reply(410)]


@pytest.mark.parametrize("denial", DENIALS, ids=lambda one: str(one.data[9:12]))
def test_a_job_that_the_api_denies_is_given_up(denial: Reply) -> None:
    api = backend(a=1, b=1)
    api.instead["a/jobs/a-0"] = [denial]
    with watching(api) as case:

        def later() -> None:
            if len(case.clock.slept) == 7:
                api.tell("completed")

        case.follow(then=later)
        asked = Counter(case.asked)
    assert asked == {"a/jobs/a-0": 5, "b/jobs/b-0": 8}
    assert (case.one("a-0").is_lost, case.one("a-0").is_final, case.watch.is_done) == (True, False, True)
    assert case.one("a-0").problem.startswith("HTTP 4")


def test_a_list_that_is_denied_counts_for_all_of_its_jobs() -> None:
    api = backend(a=2)
    api.instead["a/jobs"] = [reply(404)]
    with watching(api) as case:
        case.follow()
        assert case.asked == ["a/jobs"] * 12
    assert all(one.is_lost for one in case.watch.statuses)


@pytest.mark.parametrize("between", [reply(500), Reset(), reply(200, b'{"id": "a-0", "status": "running"}')])
def test_denials_count_in_a_row_alone(between: Script) -> None:
    api = backend(a=1)
    api.instead["a/jobs/a-0"] = [
        *[reply(404)] * 4,
        between,
        *[reply(404)] * 4,
        reply(200, b'{"id": "a-0", "status": "done"}'),
    ]
    with watching(api) as case:
        case.follow()
        assert len(case.asked) == 10
    assert (case.status("a-0"), case.one("a-0").is_lost, case.one("a-0").problem) == ("done", False, "")


@pytest.mark.parametrize("trouble", [reply(500), reply(503), Reset(), reply(200, b"?"), reply(302)])
def test_trouble_never_ends_it(trouble: Script) -> None:
    api = backend(a=1)
    api.instead["a/jobs/a-0"] = [*[trouble] * 12, reply(200, b'{"id": "a-0", "status": "done"}')]
    with watching(api) as case:
        changes = case.follow()
    assert changes == [["a-0"], *[[]] * 11, ["a-0"]]  # trouble that stays the same is no news
    assert case.watch.is_done


# How often it looks.


def test_the_pauses_grow_to_a_minute() -> None:
    with watching(backend(a=1)) as case:
        case.follow(timeout=600)
    assert case.clock.slept[:4] == [1.0, 1.5, 2.25, 3.375]
    assert max(case.clock.slept) == 60.0
    assert case.clock.slept[-2] == 60.0
    assert sum(case.clock.slept) == pytest.approx(600)


def test_the_last_look_is_when_the_time_is_over() -> None:
    with watching(backend(a=1)) as case:
        assert case.follow(timeout=5) == [["a-0"], [], [], [], []]
    assert case.clock.slept == [1.0, 1.5, 2.25, 0.25]
    assert not case.watch.is_done


def test_what_ends_at_the_last_look_is_seen() -> None:
    api = backend(a=1)
    with watching(api) as case:
        assert case.follow(timeout=1, then=lambda: api.tell("completed")) == [["a-0"], ["a-0"]]
    assert case.watch.is_done


def test_without_time_it_looks_once() -> None:
    with watching(backend(a=1)) as case:
        assert case.follow(timeout=0) == [["a-0"]]
        assert case.asked == ["a/jobs/a-0"]
    assert case.clock.slept == []


def test_a_sleep_that_is_cut_short_ends_it() -> None:
    with watching(backend(a=1)) as case:
        case.stopped = True
        assert case.follow() == [["a-0"]]
    assert not case.watch.is_done


def throttle(seconds: int) -> Reply:
    return reply(429, headers=[("Retry-After", str(seconds))])


def test_a_server_that_asks_to_be_left_alone_is() -> None:
    api = backend(a=2)
    api.instead["a/jobs"] = [throttle(120), listing({"id": "a-0", "status": "done"}, {"id": "a-1", "status": "done"})]
    with watching(api) as case:
        assert case.follow() == [["a-0", "a-1"], ["a-0", "a-1"]]
        assert case.asked == ["a/jobs", "a/jobs"]
    assert case.clock.slept == [120.0]
    assert case.watch.is_done


def test_while_it_is_left_alone_nothing_is_asked_for() -> None:
    api = backend(a=2, b=2)
    api.instead["a/jobs"] = [throttle(120)]
    api.instead["b/jobs"] = [listing({"id": "b-0", "status": "failed"})]  # b-1 would be asked for, and b-0's reasons
    with watching(api, Limits(attempts=1, timeout=5.0, concurrency=2)) as case:
        case.watch.poll()
        assert case.asked == ["a/jobs", "b/jobs"]
        assert all("HTTP 429" in case.one(one).problem for one in ("a-0", "a-1", "b-1"))
        assert (case.status("b-0"), case.one("b-0").problem) == ("failed", "")
        # The time to wait may be over sooner: then it is too early to ask again, and nobody waits for it.
        assert case.follow(timeout=10) == [[], []]
        assert case.asked == []
    assert case.clock.slept == [10.0]
    assert not case.watch.is_done


def test_pauses_that_add_up_to_too_much_are_not_waited_out() -> None:
    api = backend(a=1)
    api.instead["a/jobs/a-0"] = [throttle(3), reply(200, b'{"id": "a-0", "status": "done"}')]
    with watching(api, Limits(attempts=1, timeout=5.0, max_pause=2.0)) as case:
        case.watch.poll()
        assert case.asked == ["a/jobs/a-0"]
        assert "HTTP 429" in case.one("a-0").problem
        case.clock.sleep(3)
        case.watch.poll()
    assert case.status("a-0") == "done"


# What is told and kept.


def test_a_change_is_one_of_status_progress_or_trouble() -> None:
    api = backend(a=1)
    steps: list[dict[str, Any]] = [
        {"status": "running"},
        {"status": "running", "updated_at": "2026-10-20T01:00:00Z", "cost": 7},
        {"status": "running", "progress": 5},
        {"status": "running", "progress": 5},
        {"status": "completed", "progress": 5},
    ]
    with watching(api) as case:
        told = []
        for step in steps:
            api.jobs["a"]["a-0"] = step
            told.append(len(case.watch.poll()))
    assert told == [1, 0, 1, 0, 1]
    assert [one.job_id for one in case.kept] == ["a-0"]


def test_what_is_kept_is_the_object_as_it_was_told() -> None:
    api = backend(a=1)
    body = b'{"status":"completed", "cost" : 1e400, "id":"a-0","x":"\xff"}'
    api.instead["a/jobs/a-0"] = [reply(200, body)]
    with watching(api) as case:
        case.watch.poll()
    assert [one.body for one in case.kept] == [body]
