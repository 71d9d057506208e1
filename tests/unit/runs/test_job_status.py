"""The status of a run's jobs: what job objects mean, which requests a poll makes and when, and when polling ends."""

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

# One attempt per request: the fetcher's tests cover its retries.
ONE_ATTEMPT = Limits(attempts=1, timeout=5.0)


def job_status(job_id: str = "j", workflow_id: str = "w", **members: Any) -> JobStatus:
    return parse_status(json.dumps({"id": job_id, **members}).encode(), job_id, workflow_id)


def parse_status(body: bytes, job_id: str = "j", workflow_id: str = "w") -> JobStatus:
    return JobStatus(f"name of {job_id}", workflow_id, "p", job_id, body)


# Which statuses are final.

STATUSES: dict[StatusKind, tuple[str, ...]] = {
    "completed": ("completed", "succeeded", "success", "successful", "done", "finished"),
    "failed": ("failed", "failure", "error", "errored", "timed_out", "timedout"),
    "cancelled": ("cancelled", "canceled", "aborted", "terminated", "stopped"),
    "active": ("pending", "queued", "scheduled", "accepted", "running", "in_progress", "processing", "paused"),
}
KNOWN = [(status, kind) for kind, statuses in STATUSES.items() for status in statuses]


@pytest.mark.parametrize(("status", "kind"), KNOWN)
def test_the_kinds_of_known_statuses(status: str, kind: StatusKind) -> None:
    job = job_status(status=status)
    assert (job.kind, job.is_final, job.status) == (kind, kind != "active", status)


@given(
    st.sampled_from(KNOWN),
    st.sampled_from([str.upper, str.title, str.capitalize, str.swapcase]),
    st.sampled_from("_- "),
    st.sampled_from(["{}", " {}", "{} \n"]),
)
def test_case_spaces_and_separators_of_a_status_do_not_matter(
    status_and_kind: tuple[str, StatusKind], change_case: Callable[[str], str], separator: str, template: str
) -> None:
    status, kind = status_and_kind
    spelling = template.format(change_case(status).replace("_", separator))
    assert job_status(status=spelling).kind == kind


@pytest.mark.parametrize("status", ["weird", "finalizing", "completed?", "uncompleted", "", None, 7, ["completed"]])
def test_an_unknown_status_is_final_only_if_the_job_has_finished(status: Any) -> None:
    job = job_status(status=status)
    assert (job.kind, job.is_final) == ("unknown", False)
    assert job_status(status=status, finished_at="2026-10-20T01:00:00Z").is_final


def test_an_active_status_is_not_final_despite_a_finish_time() -> None:
    assert not job_status(status="running", finished_at="2026-10-20T01:00:00Z").is_final


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00Z",  # what Go writes for an unset time
        "0001-01-01T00:00:00+05:30",  # out of range in UTC
        "1970-01-01T00:00:00Z",
        "1970-01-01T05:30:00+05:30",
        "9999-12-31T23:59:59-05:00",  # likewise
        "",
        "soon",
        None,
        0,
        1792458000,
        True,
        ["2026-10-20T01:00:00Z"],
    ],
)
def test_invalid_finish_times_are_ignored(time: Any) -> None:
    job = job_status(status="weird", finished_at=time)
    assert (job.finished_at, job.is_final) == (None, False)


@pytest.mark.parametrize(
    "time", ["2026-10-20T01:00:00Z", "2026-10-20T06:30:00+05:30", "2026-10-20T01:00:00", "2026-10-20T01:00:00.0000000Z"]
)
def test_finish_times_are_converted_to_utc(time: str) -> None:
    finished_at = job_status(finished_at=time).finished_at
    assert finished_at == THEN
    assert finished_at.utcoffset() == timedelta(0)


# The other fields of a job object.


@pytest.mark.parametrize(
    ("value", "expected"),
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
def test_progress(value: Any, expected: str) -> None:
    assert job_status(progress=value).progress == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12, 12), (0, 0), (-3, -3), ("12", None), (12.0, 12), (12.5, None), (True, None), (None, None), (10**19, None)],
)
def test_cost(value: Any, expected: int | None) -> None:
    assert job_status(cost=value).cost == expected


@pytest.mark.parametrize(("value", "expected"), [("1h2m", "1h2m"), (62, ""), (None, ""), (["1h"], "")])
def test_time_taken(value: Any, expected: str) -> None:
    assert job_status(time_taken=value).time_taken == expected


def task(name: Any = "", failure_type: Any = "", err_msg: Any = "") -> dict[str, Any]:
    return {"name": name, "failure_type": failure_type, "err_msg": err_msg}


@pytest.mark.parametrize(
    ("tasks", "errors"),
    [
        ([task("Analyze", "INPUT", "no imagery")], ("Analyze: INPUT: no imagery",)),
        ([task("Analyze", "", "no imagery"), task("Deliver")], ("Analyze: no imagery",)),
        ([task("", "INPUT", "")], ("INPUT",)),
        ([task(7, " ", "no imagery")], ("no imagery",)),
        ([task("Analyze", ["INPUT"], 7)], ()),
        ([task("Analyze", " \n", None)], ()),
        ([task(str(n), "", "broken") for n in range(3)], ("0: broken", "1: broken", "2: broken")),
        ([task(str(n), "", "broken") for n in range(5)], ("0: broken", "1: broken", "2: broken", "and 2 more")),
        ([None, 7, "broken", [], {"err_msg": "broken"}], ("broken",)),
        ({"err_msg": "broken"}, ()),
        ("broken", ()),
        (None, ()),
    ],
)
def test_errors_of_tasks(tasks: Any, errors: tuple[str, ...]) -> None:
    assert job_status(tasks=tasks).errors == errors


def test_an_unreadable_object_has_no_fields() -> None:
    for body in (b"", b"{", b"[]", b'{"id": ""}', b"\xff\xfe", b'{"status": "completed"}'):
        job = parse_status(body)
        assert (job.status, job.kind, job.is_final, job.progress, job.cost) == ("", "unknown", False, "", None)
        assert (job.time_taken, job.finished_at, job.errors) == ("", None, ())


def test_statuses_are_counted_and_costs_added_up() -> None:
    jobs = [
        job_status(status="completed", cost=12),
        job_status(status="completed", cost=-5),  # ignored
        job_status(status="weird", cost=3),
        parse_status(b""),
    ]
    assert summarize_statuses(jobs) == "4 jobs: 2 completed, 1 weird, 1 status unknown · cost 15"
    unknown = replace(job_status(status="running", cost=1), problem="HTTP 404 Not Found")
    assert summarize_statuses([jobs[0], unknown]) == "2 jobs: 1 completed, 1 status unknown · cost 13"
    assert summarize_statuses(jobs[:1]) == "1 job: 1 completed · cost 12"
    assert summarize_statuses([]) == "no jobs at the API"


def test_costs_too_large_to_print_are_ignored() -> None:
    # The maximum number of digits that Python prints: their sum has more.
    body = b'{"id": "j", "status": "completed", "cost": %s}' % (b"9" * 4300)
    assert summarize_statuses([parse_status(body)] * 20) == "20 jobs: 20 completed · cost 0"


MEMBERS = st.dictionaries(
    st.sampled_from(["status", "progress", "cost", "time_taken", "finished_at", "tasks"]),
    records.json_values
    | st.lists(st.dictionaries(st.sampled_from(["name", "failure_type", "err_msg"]), records.json_values), max_size=5)
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.9-23:59", "2026-02-30T00:00:00Z", "2026-10"]),
)


@given(st.lists(records.bodies | MEMBERS.map(lambda members: json.dumps({**members, "id": "j"}).encode()), max_size=4))
def test_any_job_object_can_be_summarized(bodies: list[bytes]) -> None:
    jobs = [parse_status(body) for body in bodies]
    for job in jobs:
        assert isinstance(job.status, str)
        assert isinstance(job.progress, str)
        assert isinstance(job.time_taken, str)
        assert isinstance(job.cost, int | None)
        assert all(map(len, job.errors))
        assert job.finished_at is None or job.finished_at.utcoffset() == timedelta(0)
        assert job.is_final == (job.finished_at is not None if job.kind == "unknown" else job.kind != "active")
    assert summarize_statuses(jobs).startswith(str(len(jobs) or "no jobs"))


# The requests that are sent, as the server received them.


@dataclass
class Backend:
    """An API with jobs by workflow and id. Lists contain the last `page_size` jobs of a workflow, without tasks.

    `scripts` are the responses for a path (without `/v0/workflows/`), in order; the last one is repeated.
    """

    jobs: dict[str, dict[str, dict[str, Any]]]
    page_size: int = 50
    scripts: dict[str, list[Script]] = field(default_factory=dict)

    def __call__(self, request: Request) -> Script:
        path = request.target.removeprefix("/v0/workflows/")
        if scripts := self.scripts.get(path):
            return scripts.pop(0) if len(scripts) > 1 else scripts[0]
        workflow, _, suffix = path.partition("/jobs")
        jobs, job_id = self.jobs[workflow], suffix.removeprefix("/")
        if not job_id:
            page = list(jobs.items())[-self.page_size :]
            return list_response(*({"id": listed_id, **members} for listed_id, members in page))
        if job_id not in jobs:
            return reply(404)
        return reply(200, json.dumps({"id": job_id, **jobs[job_id], **_TASKS}).encode())

    def set_status(self, status: str, *ids: str) -> None:
        """Change the status of these jobs, or of all of them."""
        for jobs in self.jobs.values():
            for job_id, members in jobs.items():
                if not ids or job_id in ids:
                    members["status"] = status


_TASKS = {"tasks": [{"name": "Analyze", "err_msg": "broken"}]}
RUNNING = {"status": "running"}


def list_response(*jobs: dict[str, Any]) -> Reply:
    items = [{name: value for name, value in job.items() if name != "tasks"} for job in jobs]
    return reply(200, json.dumps({"jobs": items}).encode())


def create_backend(**workflows: int) -> Backend:
    """An API with running jobs, so many in each workflow: `a-0`, `a-1`, … in workflow `a`."""
    return Backend(
        {name: {f"{name}-{n}": {"status": "running"} for n in range(count)} for name, count in workflows.items()}
    )


@dataclass
class Case:
    """A poller of a server's jobs, what it saved, and its clock. `stack` runs the server."""

    poller: StatusPoller
    server: WireServer
    saved: list[JobStatus]
    clock: Clock
    stack: ExitStack
    stopped: bool = False
    _requests_read: int = 0

    @property
    def requested(self) -> list[str]:
        """The sorted paths that were requested since this was last read."""
        requests = self.server.requests[self._requests_read :]
        self._requests_read += len(requests)
        assert all(request.method == "GET" for request in requests)
        return sorted(request.target.removeprefix("/v0/workflows/") for request in requests)

    def status(self, job_id: str) -> str:
        return self.job(job_id).status

    def job(self, job_id: str) -> JobStatus:
        return next(job for job in self.poller.statuses if job.job_id == job_id)

    def poll_until_final(
        self, timeout: float | None = None, after_wait: Callable[[], object] = lambda: None
    ) -> list[list[str]]:
        """Poll on the test's clock, calling `after_wait` after each wait; returns what each poll changed."""

        def wait(seconds: float) -> bool:
            self.clock.sleep(seconds)
            after_wait()
            return not self.stopped

        return [[job.job_id for job in changed] for changed in self.poller.poll_until_final(wait, timeout)]


@dataclass
class Clock:
    """A clock that only `sleep` moves."""

    now: float = 1000.0
    sleeps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps.append(seconds)


@contextmanager
def polling(api: Backend, limits: Limits = ONE_ATTEMPT, jobs: Sequence[JobStatus] | None = None) -> Iterator[Case]:
    """Serve an API, and poll these jobs, or all of its jobs with the status `accepted`."""
    statuses = jobs or [
        job_status(job_id, workflow, status="accepted") for workflow, job_ids in api.jobs.items() for job_id in job_ids
    ]
    clock, saved = Clock(), list[JobStatus]()
    with refusing_port() as port, ExitStack() as stack:
        server = stack.enter_context(WireServer(choose=api, port=port))
        with ReadOnlyClient(Endpoint(server.url, ApiKey("a-key-of-tests")), 8) as client:
            fetcher = Fetcher(limits, backoff=Backoff(base=0.001), clock=clock)
            poller = StatusPoller(statuses, client, fetcher, saved.extend, clock=clock, now=lambda: THEN)
            yield Case(poller, server, saved, clock, stack)


def test_several_jobs_of_a_workflow_are_listed_and_a_single_one_is_requested() -> None:
    with polling(create_backend(a=3, b=1, c=2)) as case:
        changed = case.poller.poll()
        assert case.requested == ["a/jobs", "b/jobs/b-0", "c/jobs"]
        case.poller.poll()
        assert case.requested == ["a/jobs", "b/jobs/b-0", "c/jobs"]
    assert [job.job_id for job in changed] == ["a-0", "a-1", "a-2", "b-0", "c-0", "c-1"]
    assert {job.status for job in case.poller.statuses} == {"running"}
    assert {job.seen_at for job in case.poller.statuses} == {THEN}
    assert [job.has_tasks for job in case.poller.statuses] == [False, False, False, True, False, False]


def test_jobs_missing_from_a_truncated_list_are_requested_one_by_one() -> None:
    with polling(create_backend(a=53)) as case:
        case.poller.poll()
        assert case.requested == ["a/jobs", "a/jobs/a-0", "a/jobs/a-1", "a/jobs/a-2"]
    assert {job.status for job in case.poller.statuses} == {"running"}


def test_the_details_of_failed_jobs_are_requested_once() -> None:
    api = create_backend(a=3, b=1)
    api.set_status("failed", "a-0", "b-0")
    api.set_status("weird", "a-1")
    api.jobs["a"]["a-1"]["finished_at"] = "2026-10-20T01:00:00Z"
    with polling(api) as case:
        case.poller.poll()
        assert case.requested == ["a/jobs", "a/jobs/a-0", "a/jobs/a-1", "b/jobs/b-0"]
        case.poller.poll()
        assert case.requested == ["a/jobs/a-2"]
    assert {job.job_id for job in case.poller.statuses if job.errors == ("Analyze: broken",)} >= {"a-0", "a-1", "b-0"}


def test_a_failed_request_for_details_is_not_a_problem() -> None:
    api = create_backend(a=2)
    api.set_status("failed", "a-0")
    for failure in (reply(404), reply(401), reply(500), reply(200, b"{}"), Reset()):
        api.scripts["a/jobs/a-0"] = [failure]
        with polling(api) as case:
            case.poller.poll()
            assert case.requested == ["a/jobs", "a/jobs/a-0"]
            assert (case.status("a-0"), case.job("a-0").errors, case.job("a-0").problem) == ("failed", (), "")
            assert (case.poller.auth_error, case.poller.is_done) == ("", False)
            case.poller.poll()
            assert case.requested == ["a/jobs/a-1"]


def test_the_details_of_completed_jobs_are_not_requested() -> None:
    api = create_backend(a=2)
    api.set_status("completed")
    with polling(api) as case:
        case.poller.poll()
        assert case.requested == ["a/jobs"]
        assert case.poller.is_done


def test_final_jobs_are_not_polled_again() -> None:
    api = create_backend(a=3)
    with polling(api) as case:
        for number, paths in enumerate((["a/jobs"], ["a/jobs"], ["a/jobs/a-2"])):
            api.set_status("completed", f"a-{number}")
            assert [job.job_id for job in case.poller.poll()][:1] == [f"a-{number}"]
            assert case.requested == paths
        assert case.poller.is_done
        assert case.poller.poll() == []
        assert case.requested == []
    assert [job.job_id for job in case.saved] == ["a-0", "a-1", "a-2"]


def test_jobs_known_to_be_final_are_never_polled() -> None:
    api = create_backend(a=2)
    jobs = [replace(job_status(job_id, "a", status="completed"), seen_at=datetime.now(UTC)) for job_id in api.jobs["a"]]
    with polling(api, jobs=jobs) as case:
        assert case.poller.is_done
        assert case.poll_until_final() == [[]]
        assert case.requested == []
    assert case.saved == []


def test_without_jobs_no_request_is_sent() -> None:
    poller = StatusPoller([], NoRequests(), Fetcher(ONE_ATTEMPT), lambda _: pytest.fail("nothing is final"))
    assert poller.is_done
    assert poller.poll() == []


class NoRequests(ReadOnlyClient):
    """A client that must not send anything."""

    def __init__(self) -> None: ...

    def _send(self, *_: object) -> Any:
        pytest.fail("unexpected request")


def test_a_list_updates_the_known_object() -> None:
    api = create_backend(a=2)
    jobs = [
        job_status(job_id, "a", status="accepted", val_errors=["bad"], tasks=[{"err_msg": "old"}])
        for job_id in api.jobs["a"]
    ]
    with polling(api, jobs=jobs) as case:
        case.poller.poll()
    assert json.loads(case.job("a-0").body) == {"id": "a-0", "status": "running", "val_errors": ["bad"]}


def test_a_response_with_another_job_is_unreadable() -> None:
    api = create_backend(a=1)
    api.scripts["a/jobs/a-0"] = [reply(200, b'{"id": "a-1", "status": "completed"}')]
    with polling(api) as case:
        case.poller.poll()
    assert (case.status("a-0"), case.job("a-0").problem) == ("accepted", "HTTP 200 OK: the response cannot be read")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"jobs": 7}', b'{"jobs": [{"status": "running"}]}'])
def test_after_an_unreadable_list_each_job_is_requested(body: bytes) -> None:
    api = create_backend(a=2)
    api.scripts["a/jobs"] = [reply(200, body)]
    with polling(api) as case:
        case.poller.poll()
        assert case.requested == ["a/jobs", "a/jobs/a-0", "a/jobs/a-1"]
    assert [(job.status, job.problem) for job in case.poller.statuses] == [("running", "")] * 2


@pytest.mark.parametrize("failure", [reply(403), reply(500), reply(302, headers=[("Location", "/")]), Reset()])
def test_after_a_failed_list_request_no_job_is_requested(failure: Script) -> None:
    api = create_backend(a=2)
    api.scripts["a/jobs"] = [failure]
    with polling(api) as case:
        changed = case.poller.poll()
        assert case.requested == ["a/jobs"]
    assert [job.job_id for job in changed] == ["a-0", "a-1"]
    assert all(job.problem and job.status == "accepted" and job.seen_at is None for job in changed)


@pytest.mark.parametrize("failure", [reply(500), reply(404), reply(200, b"?"), Reset()])
def test_the_failure_of_one_workflow_does_not_affect_others(failure: Script) -> None:
    api = create_backend(a=2, b=1, c=2)
    api.scripts["a/jobs"] = [failure]
    with polling(api) as case:
        case.poller.poll()
    assert [case.status(job_id) for job_id in ("b-0", "c-0", "c-1")] == ["running"] * 3


# What ends polling, and what does not.


def test_a_rejected_key_ends_polling() -> None:
    api = create_backend(a=2, b=2, c=1)
    api.scripts = {path: [reply(401)] for path in ("a/jobs", "b/jobs", "c/jobs/c-0")}
    with polling(api, Limits(attempts=5, timeout=5.0, concurrency=1)) as case:
        assert case.poll_until_final() == [["a-0", "a-1", "b-0", "b-1", "c-0"]]
        assert case.requested == ["a/jobs"]
    assert case.poller.is_done
    assert "HTTP 401" in case.poller.auth_error
    assert {job.problem for job in case.poller.statuses} == {case.poller.auth_error}
    assert case.clock.sleeps == []


def test_polling_continues_after_a_server_restart() -> None:
    api = create_backend(a=2, b=1)
    with polling(api) as case:

        def restart_server() -> None:
            if len(case.clock.sleeps) == 1:
                case.stack.close()
                return
            assert all(job.problem.startswith("cannot connect") for job in case.poller.statuses)
            assert {job.status for job in case.poller.statuses} == {"running"}
            api.set_status("completed")
            case.stack.enter_context(WireServer(choose=api, port=case.server.port))

        # Running, unknown, completed:
        assert case.poll_until_final(after_wait=restart_server) == [["a-0", "a-1", "b-0"]] * 3
    assert [(job.status, job.problem) for job in case.poller.statuses] == [("completed", "")] * 3


DENIALS = [reply(404), reply(400), reply(403), reply(410)]


@pytest.mark.parametrize("denial", DENIALS, ids=lambda response: str(response.data[9:12]))
def test_a_job_is_lost_after_repeated_denials(denial: Reply) -> None:
    api = create_backend(a=1, b=1)
    api.scripts["a/jobs/a-0"] = [denial]
    with polling(api) as case:

        def complete_later() -> None:
            if len(case.clock.sleeps) == 7:
                api.set_status("completed")

        case.poll_until_final(after_wait=complete_later)
        requests = Counter(case.requested)
    assert requests == {"a/jobs/a-0": 5, "b/jobs/b-0": 8}
    assert (case.job("a-0").is_lost, case.job("a-0").is_final, case.poller.is_done) == (True, False, True)
    assert case.job("a-0").problem.startswith("HTTP 4")


def test_a_denied_list_counts_for_each_of_its_jobs() -> None:
    api = create_backend(a=2)
    api.scripts["a/jobs"] = [reply(404)]
    with polling(api) as case:
        case.poll_until_final()
        assert case.requested == ["a/jobs"] * 12
    assert all(job.is_lost for job in case.poller.statuses)


@pytest.mark.parametrize("between", [reply(500), Reset(), reply(200, b'{"id": "a-0", "status": "running"}')])
def test_only_consecutive_denials_count(between: Script) -> None:
    api = create_backend(a=1)
    api.scripts["a/jobs/a-0"] = [
        *[reply(404)] * 4,
        between,
        *[reply(404)] * 4,
        reply(200, b'{"id": "a-0", "status": "done"}'),
    ]
    with polling(api) as case:
        case.poll_until_final()
        assert len(case.requested) == 10
    assert (case.status("a-0"), case.job("a-0").is_lost, case.job("a-0").problem) == ("done", False, "")


@pytest.mark.parametrize("failure", [reply(500), reply(503), Reset(), reply(200, b"?"), reply(302)])
def test_other_failures_never_end_polling(failure: Script) -> None:
    api = create_backend(a=1)
    api.scripts["a/jobs/a-0"] = [*[failure] * 12, reply(200, b'{"id": "a-0", "status": "done"}')]
    with polling(api) as case:
        changes = case.poll_until_final()
    assert changes == [["a-0"], *[[]] * 11, ["a-0"]]  # the same failure again is not a change
    assert case.poller.is_done


# How often jobs are polled.


def test_the_interval_grows_to_a_minute() -> None:
    with polling(create_backend(a=1)) as case:
        case.poll_until_final(timeout=600)
    assert case.clock.sleeps[:4] == [1.0, 1.5, 2.25, 3.375]
    assert max(case.clock.sleeps) == 60.0
    assert case.clock.sleeps[-2] == 60.0
    assert sum(case.clock.sleeps) == pytest.approx(600)


def test_the_last_poll_is_at_the_timeout() -> None:
    with polling(create_backend(a=1)) as case:
        assert case.poll_until_final(timeout=5) == [["a-0"], [], [], [], []]
    assert case.clock.sleeps == [1.0, 1.5, 2.25, 0.25]
    assert not case.poller.is_done


def test_the_last_poll_counts() -> None:
    api = create_backend(a=1)
    with polling(api) as case:
        assert case.poll_until_final(timeout=1, after_wait=lambda: api.set_status("completed")) == [["a-0"], ["a-0"]]
    assert case.poller.is_done


def test_a_timeout_of_0_polls_once() -> None:
    with polling(create_backend(a=1)) as case:
        assert case.poll_until_final(timeout=0) == [["a-0"]]
        assert case.requested == ["a/jobs/a-0"]
    assert case.clock.sleeps == []


def test_an_interrupted_wait_ends_polling() -> None:
    with polling(create_backend(a=1)) as case:
        case.stopped = True
        assert case.poll_until_final() == [["a-0"]]
    assert not case.poller.is_done


def throttle(seconds: int) -> Reply:
    return reply(429, headers=[("Retry-After", str(seconds))])


def test_a_requested_pause_is_respected() -> None:
    api = create_backend(a=2)
    api.scripts["a/jobs"] = [
        throttle(120),
        list_response(*({"id": job_id, "status": "done"} for job_id in ("a-0", "a-1"))),
    ]
    with polling(api) as case:
        assert case.poll_until_final() == [["a-0", "a-1"], ["a-0", "a-1"]]
        assert case.requested == ["a/jobs", "a/jobs"]
    assert case.clock.sleeps == [120.0]
    assert case.poller.is_done


def test_no_request_is_sent_during_a_requested_pause() -> None:
    api = create_backend(a=2, b=2)
    api.scripts["a/jobs"] = [throttle(120)]
    api.scripts["b/jobs"] = [list_response({"id": "b-0", "status": "failed"})]
    with polling(api, Limits(attempts=1, timeout=5.0, concurrency=2)) as case:
        case.poller.poll()  # without the pause, b-1 and the details of b-0 would be requested, too
        assert case.requested == ["a/jobs", "b/jobs"]
        assert all("HTTP 429" in case.job(job_id).problem for job_id in ("a-0", "a-1", "b-1"))
        assert (case.status("b-0"), case.job("b-0").problem) == ("failed", "")
        # The timeout is shorter than the pause: neither a request nor a longer wait follows.
        assert case.poll_until_final(timeout=10) == [[], []]
        assert case.requested == []
    assert case.clock.sleeps == [10.0]
    assert not case.poller.is_done


def test_pauses_above_the_maximum_are_not_waited_for() -> None:
    api = create_backend(a=1)
    api.scripts["a/jobs/a-0"] = [throttle(3), reply(200, b'{"id": "a-0", "status": "done"}')]
    with polling(api, Limits(attempts=1, timeout=5.0, max_pause=2.0)) as case:
        case.poller.poll()
        assert case.requested == ["a/jobs/a-0"]
        assert "HTTP 429" in case.job("a-0").problem
        case.clock.sleep(3)
        case.poller.poll()
    assert case.status("a-0") == "done"


# What is returned and saved.


def test_changes_of_status_and_progress_are_returned() -> None:
    api = create_backend(a=1)
    steps: list[dict[str, Any]] = [
        {"status": "running"},
        {"status": "running", "updated_at": "2026-10-20T01:00:00Z", "cost": 7},
        {"status": "running", "progress": 5},
        {"status": "running", "progress": 5},
        {"status": "completed", "progress": 5},
    ]
    with polling(api) as case:
        changes = []
        for step in steps:
            api.jobs["a"]["a-0"] = step
            changes.append(len(case.poller.poll()))
    assert changes == [1, 0, 1, 0, 1]
    assert [job.job_id for job in case.saved] == ["a-0"]


def test_job_objects_are_saved_unchanged() -> None:
    api = create_backend(a=1)
    body = b'{"status":"completed", "cost" : 1e400, "id":"a-0","x":"\xff"}'
    api.scripts["a/jobs/a-0"] = [reply(200, body)]
    with polling(api) as case:
        case.poller.poll()
    assert [job.body for job in case.saved] == [body]
