"""The sandbox over real sockets: endpoints, job statuses, faults, and a clean shutdown."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.wire import refusing_port

from runner.core.errors import RefusedError, UsageError
from runner.core.exit_codes import Exit
from runner.sandbox import handlers
from runner.sandbox.backend import Backend
from runner.sandbox.catalog import EXAMPLE
from runner.sandbox.faults import Fault
from runner.sandbox.http import parse_head
from runner.sandbox.server import Sandbox
from runner.sandbox.store import JobFile

AGRI = "1c6d7a52-0f3e-4b8a-9d21-5e7f30a4c611"
COAST = "0d9eb3f8-52c1-47a6-8e74-b1f6029ad35c"
NDVI = "9f2a4c1e-7b60-4d35-8a1f-2c9be05d7713"
STRESS = "77b0e8d4-13a9-4f62-b5c7-90d16ea42f58"
CLOUDY = "b94e6d20-3c7f-4a15-92d8-f06a1e5b7c38"
WATER = "c3185ea6-f94d-4702-bd6b-3e80a7f2415d"

KEY = "sandbox-key"
CREATE = f"/v0/workflows/{NDVI}/jobs?project_id={AGRI}"
POST = f"POST {CREATE} HTTP/1.1\r\nAuthorization: {KEY}\r\nConnection: close\r\n\r\n".encode()


class Clock:
    """A clock that stands still until it is advanced."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 5, 4, 3, 2, 1, 500000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Reply:
    """A response. The body is parsed if it is JSON, otherwise text."""

    status: int
    headers: Mapping[str, str]
    body: Any


def send(sandbox: Sandbox, method: str, target: str, key: str | None = KEY) -> Reply:
    with closing(http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=30)) as connection:
        connection.request(method, target, headers={} if key is None else {"Authorization": key})
        response = connection.getresponse()
        text = response.read().decode()
        is_json = response.headers["Content-Type"] == "application/json" and text
        return Reply(response.status, dict(response.headers), json.loads(text) if is_json else text)


def get(sandbox: Sandbox, target: str) -> Any:
    reply = send(sandbox, "GET", target)
    assert reply.status == 200, reply
    return reply.body


def create(sandbox: Sandbox, target: str = CREATE) -> Any:
    reply = send(sandbox, "POST", target)
    assert reply.status == 200, reply
    return reply.body


def raw(sandbox: Sandbox, data: bytes) -> bytes:
    """Send bytes, and return everything that is received until the connection is closed."""
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=30) as connection:
        # A small buffer, so that sending takes as long as the sandbox reads.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.sendall(data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Backend(clock=clock) as backend, Sandbox(backend) as running:
        yield running


def test_ping_does_not_need_a_key(sandbox: Sandbox) -> None:
    assert send(sandbox, "GET", "/ping", key=None).body == "pong"


def test_the_base_url_is_loopback(sandbox: Sandbox) -> None:
    assert sandbox.base_url == f"http://127.0.0.1:{sandbox.port}"


def test_list_projects(sandbox: Sandbox) -> None:
    body = get(sandbox, "/v0/projects")
    assert body["count"] == 2
    assert [(item["id"], item["name"], item["title"]) for item in body["projects"]] == [
        (AGRI, "agri-watch", "Agri Watch"),
        (COAST, "coast-line", "Coast Line"),
    ]
    assert set(body["projects"][0]) == {
        "id", "name", "title", "org_id", "members_count", "created_at", "updated_at", "metadata"
    }  # fmt: skip


def test_list_projects_by_page(sandbox: Sandbox) -> None:
    body = get(sandbox, "/v0/projects?page_num=2&page_size=1")
    assert (body["count"], [item["id"] for item in body["projects"]]) == (2, [COAST])


def test_list_workflows(sandbox: Sandbox) -> None:
    body = get(sandbox, "/v0/workflows")
    assert body["pagination"] == {"limit": 50, "offset": 0, "total": 7}
    assert [(item["project_id"], item["name"]) for item in body["workflows"]] == [
        (AGRI, "NDVI"),
        (AGRI, "Crop stress"),
        (AGRI, "Soil moisture"),
        (AGRI, "Cloudy scene"),
        (COAST, "Water quality"),
        (COAST, "Algal bloom"),
        (COAST, "Coastline change"),
    ]
    assert set(body["workflows"][0]) == {
        "id", "project_id", "legacy_project_id", "name", "created_by", "description", "created_at", "updated_at"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (f"project_id={COAST}", ["Water quality", "Algal bloom", "Coastline change"]),
        (f"id={NDVI}", ["NDVI"]),
        (f"id=&project_id={AGRI}", ["NDVI", "Crop stress", "Soil moisture", "Cloudy scene"]),
        ("name=Crop+stress", ["Crop stress"]),
        ("name=Crop%20stress", ["Crop stress"]),
        ("name=Crop", []),
        ("created_by=nobody", []),
        ("created_on=2025-01-15&limit=1", ["NDVI"]),
        ("created_on=2025-01-16", []),
        ("updated_at=2025-01-15T09:00:00Z&limit=1", ["NDVI"]),
        ("offset=5", ["Algal bloom", "Coastline change"]),
        (f"project_id={COAST}&offset=1&limit=1", ["Algal bloom"]),
        ("offset=100", []),
    ],
)
def test_list_workflows_with_filters_and_pages(sandbox: Sandbox, query: str, names: list[str]) -> None:
    assert [item["name"] for item in get(sandbox, f"/v0/workflows?{query}")["workflows"]] == names


def test_the_total_counts_filtered_workflows(sandbox: Sandbox) -> None:
    body = get(sandbox, f"/v0/workflows?project_id={COAST}&limit=1")
    assert body["pagination"] == {"limit": 1, "offset": 0, "total": 3}


def test_get_workflow_and_estimate(sandbox: Sandbox) -> None:
    body = get(sandbox, f"/v0/workflows/{NDVI}?project_id={AGRI}")
    assert (body["id"], body["name"], body["project_id"]) == (NDVI, "NDVI", AGRI)
    assert set(body) == {
        "id", "estimated_cost", "name", "created_by", "description", "spec", "created_at", "updated_at",
        "val_errors", "project_id",
    }  # fmt: skip
    assert get(sandbox, f"/v0/workflows/{NDVI}/estimate") == {"estimated_cost": body["estimated_cost"]}


def test_create_job(sandbox: Sandbox) -> None:
    job = create(sandbox)
    assert (job["workflow_id"], job["status"], job["progress"]) == (NDVI, "pending", "0")
    assert job["created_at"] == job["updated_at"] == "2026-05-04T03:02:01.500000Z"
    assert set(job) == {
        "created_by", "status", "id", "tasks", "val_errors", "spec", "cost", "workflow_id", "updated_at",
        "exec_created_at", "exec_updated_at", "created_at", "estimated_duration", "progress",
    }  # fmt: skip
    assert [task["depends_on"] for task in job["tasks"]] == [[], ["Select imagery"], ["Analyze"]]


def test_job_ids_are_unique(sandbox: Sandbox) -> None:
    ids = [create(sandbox)["id"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert [job["id"] for job in get(sandbox, f"/v0/workflows/{NDVI}/jobs")["jobs"]] == ids


def test_job_runs_and_completes(sandbox: Sandbox, clock: Clock) -> None:
    path = f"/v0/workflows/{NDVI}/jobs/{create(sandbox)['id']}"  # 3 s, of which it is pending for 0.3
    clock.advance(1.65)
    running = get(sandbox, path)
    assert (running["status"], running["progress"], running["updated_at"]) == (
        "running", "50", "2026-05-04T03:02:03.150000Z"
    )  # fmt: skip
    assert [(task["status"], task["progress"]) for task in running["tasks"]] == [
        ("completed", 100), ("running", 50), ("pending", 0)
    ]  # fmt: skip
    assert "finished_at" not in running
    clock.advance(1000)
    done = get(sandbox, path)
    assert (done["status"], done["progress"], done["time_taken"]) == ("completed", "100", "3s")
    assert done["finished_at"] == done["updated_at"] == "2026-05-04T03:02:04.500000Z"
    assert set(done) - set(running) == {"finished_at", "time_taken"}
    assert set(done["tasks"][0]) - {"block_inf_start_time"} == {
        "id", "info_logs", "created_at", "updated_at", "finished_at", "estimated_time_duration", "time_taken",
        "status", "state_msg", "inputs", "result", "depends_on", "name", "progress", "disclaimer", "recv_time",
        "send_time", "block_inf_end_time", "block_info", "err_msg", "failure_type",
    }  # fmt: skip


def test_list_jobs_returns_the_fields_of_get_job(sandbox: Sandbox, clock: Clock) -> None:
    job = create(sandbox)
    clock.advance(100)
    [item] = get(sandbox, f"/v0/workflows/{NDVI}/jobs")["jobs"]
    full = get(sandbox, f"/v0/workflows/{NDVI}/jobs/{job['id']}")
    assert item == {name: full[name] for name in item}
    assert set(item) == {
        "created_by", "id", "cost", "workflow_id", "created_at", "updated_at", "finished_at", "estimated_duration",
        "progress", "status", "time_taken",
    }  # fmt: skip


def test_list_jobs_with_filters(sandbox: Sandbox, clock: Clock) -> None:
    first = create(sandbox)
    clock.advance(86400)
    second = create(sandbox)

    def ids(query: str) -> list[str]:
        return [job["id"] for job in get(sandbox, f"/v0/workflows/{NDVI}/jobs?{query}")["jobs"]]

    assert ids(f"id={second['id']}") == [second["id"]]
    assert ids("status=completed") == [first["id"]]
    assert ids("status=pending") == [second["id"]]
    assert ids(f"created_by={first['created_by']}") == [first["id"], second["id"]]
    assert ids("created_by=nobody") == []
    assert ids("created_on=2026-05-04") == [first["id"]]
    assert ids("created_on=2026-05-06T01:00:00%2B05:30") == [second["id"]]


def test_jobs_belong_to_their_workflow(sandbox: Sandbox) -> None:
    job = create(sandbox)
    assert get(sandbox, f"/v0/workflows/{STRESS}/jobs") == {"jobs": []}
    assert send(sandbox, "GET", f"/v0/workflows/{STRESS}/jobs/{job['id']}").status == 404


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("POST", f"/v0/workflows/{NDVI}/jobs", 400, "bad_request"),
        ("POST", f"/v0/workflows/{NDVI}/jobs?project_id=", 400, "bad_request"),
        ("POST", f"/v0/workflows/unknown/jobs?project_id={AGRI}", 400, "bad_request"),
        ("POST", f"/v0/workflows/{NDVI}/jobs?project_id={COAST}", 403, "forbidden"),
        ("POST", f"/v0/workflows/{NDVI}/jobs?project_id=unknown", 403, "forbidden"),
        ("GET", f"/v0/workflows/{NDVI}", 400, "bad_request"),
        ("GET", f"/v0/workflows/{NDVI}?project_id={COAST}", 403, "forbidden"),
        ("GET", "/v0/workflows/unknown/estimate", 400, "bad_request"),
        ("GET", "/v0/workflows/unknown/jobs", 400, "bad_request"),
        ("GET", "/v0/workflows/unknown/jobs/unknown", 400, "bad_request"),
        ("GET", f"/v0/workflows/{NDVI}/jobs/unknown", 404, "not_found"),
        ("GET", f"/v0/workflows/{NDVI}/jobs?created_on=noon", 400, "bad_request"),
        ("GET", "/v0/workflows?project_id=unknown", 403, "forbidden"),
        ("GET", "/v0/workflows?limit=0", 400, "bad_request"),
        ("GET", "/v0/workflows?offset=-1", 400, "bad_request"),
        ("GET", "/v0/projects?page_num=one", 400, "bad_request"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v0/projects/", 404, "not_found"),
        ("POST", "/v1/workflows", 404, "not_found"),
        ("POST", "/v0/projects", 405, "method_not_allowed"),
        ("DELETE", f"/v0/workflows/{NDVI}/jobs", 405, "method_not_allowed"),
    ],
)
def test_errors_have_the_format_of_the_api(sandbox: Sandbox, method: str, target: str, status: int, code: str) -> None:
    reply = send(sandbox, method, target)
    assert (reply.status, reply.body["error"]["code"]) == (status, code)
    assert set(reply.body["error"]) == {"code", "message", "details"}
    assert reply.body["error"]["message"]
    assert sandbox.backend.created == 0


def test_method_not_allowed_lists_the_allowed_methods(sandbox: Sandbox) -> None:
    assert send(sandbox, "PUT", f"/v0/workflows/{NDVI}/jobs").headers["Allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "missing API key: send it in the Authorization header"),
        ("", "missing API key: send it in the Authorization header"),
        ("wrong", "invalid API key"),
        (f"Bearer {KEY}", "invalid API key: send it without the prefix 'Bearer '"),
        (f"bearer {KEY}", "invalid API key: send it without the prefix 'Bearer '"),
    ],
)
def test_invalid_key(sandbox: Sandbox, key: str | None, message: str) -> None:
    reply = send(sandbox, "POST", CREATE, key=key)
    assert (reply.status, reply.body["error"]["code"]) == (401, "unauthorized")
    assert reply.body["error"]["message"] == message
    assert KEY not in json.dumps(reply.body)
    assert sandbox.backend.created == 0


def test_the_key_can_be_set(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), key="other") as running:
        assert send(running, "GET", "/v0/projects", key="other").status == 200
        assert send(running, "GET", "/v0/projects").status == 401


@pytest.mark.parametrize(("method", "target"), [("GET", "/ping"), ("GET", "/nowhere"), ("POST", CREATE)])
def test_every_response_has_a_date_and_a_request_id(sandbox: Sandbox, method: str, target: str) -> None:
    first, second = send(sandbox, method, target), send(sandbox, method, target)
    assert first.headers["Date"] == "Mon, 04 May 2026 03:02:01 GMT"
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]


def test_head(sandbox: Sandbox) -> None:
    reply = send(sandbox, "HEAD", "/v0/projects")
    assert (reply.status, reply.body) == (200, "")
    assert send(sandbox, "HEAD", f"/v0/workflows/{NDVI}/jobs").status == 200


def test_added_pairs_can_run(sandbox: Sandbox) -> None:
    sandbox.backend.add_pairs([("mine/é", "my project"), (NDVI, COAST), (NDVI, AGRI)])
    create(sandbox, "/v0/workflows/mine%2F%C3%A9/jobs?project_id=my%20project")
    create(sandbox, f"/v0/workflows/{NDVI}/jobs?project_id={COAST}")
    assert [item["id"] for item in get(sandbox, "/v0/workflows?project_id=my+project")["workflows"]] == ["mine/é"]
    project_ids = [item["project_id"] for item in get(sandbox, f"/v0/workflows?id={NDVI}")["workflows"]]
    assert project_ids == [AGRI, COAST]
    assert len(EXAMPLE.workflows) == 7


def test_jobs_of_different_workflows_finish_soon_and_at_different_times(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.backend.add_pairs([("mine", "my-project")])
    items = get(sandbox, "/v0/workflows")["workflows"]
    paths = [f"/v0/workflows/{item['id']}/jobs" for item in items]
    for path, item in zip(paths, items, strict=True):
        create(sandbox, f"{path}?project_id={item['project_id']}")
    clock.advance(8)
    *durations, added = [get(sandbox, path)["jobs"][0]["time_taken"] for path in paths]
    assert durations == ["3s", "6s", "7s", "4.4s", "4s", "5s", "8s"]
    assert added == "5s"


def test_cloudy_scene_fails_halfway(sandbox: Sandbox, clock: Clock) -> None:
    job = create(sandbox, f"/v0/workflows/{CLOUDY}/jobs?project_id={AGRI}")
    path = f"/v0/workflows/{CLOUDY}/jobs/{job['id']}"
    assert (job["status"], job["val_errors"]) == ("pending", [])
    clock.advance(4.25)
    assert (get(sandbox, path)["status"], get(sandbox, path)["progress"]) == ("running", "47")
    clock.advance(0.25)
    failed = get(sandbox, path)
    assert (failed["status"], failed["progress"], failed["time_taken"]) == ("failed", "50", "4.4s")
    assert failed["finished_at"] == failed["updated_at"] == "2026-05-04T03:02:05.900000Z"
    clock.advance(86400)
    assert get(sandbox, path) == failed
    [item] = get(sandbox, f"/v0/workflows/{CLOUDY}/jobs?status=failed")["jobs"]
    assert item == {name: failed[name] for name in item}
    assert {"finished_at", "time_taken"} <= set(item)


def test_the_failed_task_has_the_error(sandbox: Sandbox, clock: Clock) -> None:
    job = create(sandbox, f"/v0/workflows/{CLOUDY}/jobs?project_id={AGRI}")
    clock.advance(100)
    tasks = get(sandbox, f"/v0/workflows/{CLOUDY}/jobs/{job['id']}")["tasks"]
    assert [(task["status"], task["progress"], task["failure_type"], task["err_msg"]) for task in tasks] == [
        ("completed", 100, "", ""),
        ("failed", 50, "INPUT", "no cloud-free imagery in the area of interest"),
        ("cancelled", 0, "", ""),
    ]
    done, failed, cancelled = tasks
    assert done["finished_at"] < failed["finished_at"] == failed["block_inf_end_time"] == cancelled["updated_at"]
    assert failed["time_taken"] == "1.2s"
    assert set(done) == set(failed)
    assert set(failed) - set(cancelled) == {
        "recv_time", "send_time", "block_inf_start_time", "block_inf_end_time", "finished_at", "time_taken"
    }  # fmt: skip


def test_keep_alive(sandbox: Sandbox) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=30)) as connection:
        ports = set()
        for body in (b"", b"ignored", b"{}"):
            connection.request("POST", CREATE, body, {"Authorization": KEY})
            assert connection.getresponse().read()
            ports.add(connection.sock.getsockname()[1])
    assert len(ports) == 1
    assert sandbox.backend.created == 3


def test_jobs_are_kept_across_restarts(tmp_path: Path, clock: Clock) -> None:
    with Backend(clock=clock, store=JobFile(tmp_path)) as backend, Sandbox(backend) as running:
        backend.add_pairs([("mine", "my-project")])
        job = create(running, "/v0/workflows/mine/jobs?project_id=my-project")
    with Backend(clock=clock, store=JobFile(tmp_path)) as backend, Sandbox(backend) as running:
        assert get(running, f"/v0/workflows/mine/jobs/{job['id']}") == job
        assert backend.created == 0
        create(running, "/v0/workflows/mine/jobs?project_id=my-project")


def test_failing_jobs_fail_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    path = f"/v0/workflows/{NDVI}/jobs"
    with Backend(clock=clock, store=JobFile(tmp_path)) as backend:
        with Sandbox(backend, faults=[Fault("failure", 1)]) as running:
            create(running)
        with Sandbox(backend) as running:
            create(running)
    clock.advance(100)
    with Backend(clock=clock, store=JobFile(tmp_path)) as backend, Sandbox(backend) as running:
        assert [job["status"] for job in get(running, path)["jobs"]] == ["failed", "completed"]


def test_jobs_of_another_sandbox_with_the_same_store_are_listed(tmp_path: Path, sandbox: Sandbox, clock: Clock) -> None:
    with Backend(clock=clock, store=JobFile(tmp_path)) as backend, Sandbox(backend) as other:
        with Backend(clock=clock, store=JobFile(tmp_path)) as mine, Sandbox(mine) as running:
            mine.add_pairs([("mine", "my-project")])
            job = create(running, "/v0/workflows/mine/jobs?project_id=my-project")
        assert get(other, "/v0/workflows/mine/jobs")["jobs"][0]["id"] == job["id"]
    assert send(sandbox, "GET", "/v0/workflows/mine/jobs").status == 400


def test_jobs_of_another_sandbox_are_listed_after_appending_too(tmp_path: Path, clock: Clock) -> None:
    with Backend(clock=clock, store=JobFile(tmp_path)) as mine, Backend(clock=clock, store=JobFile(tmp_path)) as other:
        created = [backend.create(NDVI, AGRI) for backend in (mine, other, mine, mine, other)]
        assert mine.jobs(NDVI) == created
        assert sorted(job.id for job in other.jobs(NDVI)) == sorted(job.id for job in created)
        assert (mine.created, other.created) == (3, 2)


def test_a_job_that_cannot_be_saved_is_not_created(tmp_path: Path, clock: Clock) -> None:
    backend = Backend(clock=clock, store=JobFile(tmp_path))
    with Sandbox(backend) as running:
        backend.close()
        reply = send(running, "POST", CREATE)
        assert (reply.status, reply.body["error"]["code"]) == (500, "internal_server_error")
        assert backend.created == 0


def test_rate_limit_creates_no_job_and_has_retry_after(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("rate-limit", 1, 3)]) as running:
        reply = send(running, "POST", CREATE)
        assert (reply.status, reply.headers["Retry-After"]) == (429, "3")
        assert reply.body["error"]["code"] == "too_many_requests"
        assert get(running, f"/v0/workflows/{NDVI}/jobs") == {"jobs": []}


def test_bad_gateway_creates_the_job(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("bad-gateway", 1)]) as running:
        reply = send(running, "POST", CREATE)
        assert (reply.status, reply.headers["Content-Type"]) == (502, "text/html")
        assert len(get(running, f"/v0/workflows/{NDVI}/jobs")["jobs"]) == 1


def test_reset_creates_the_job_and_sends_no_response(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("reset", 1)]) as running:
        with pytest.raises(ConnectionResetError):
            raw(running, POST)
        assert len(get(running, f"/v0/workflows/{NDVI}/jobs")["jobs"]) == 1


def test_failure_sends_a_normal_response_and_the_job_fails(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("failure", 1)]) as failing, Sandbox(Backend(clock=clock)) as sound:
        job, other = create(failing), create(sound)
        assert {**job, "id": "", "tasks": []} == {**other, "id": "", "tasks": []}
        clock.advance(100)
        assert get(failing, f"/v0/workflows/{NDVI}/jobs/{job['id']}")["status"] == "failed"
        assert get(sound, f"/v0/workflows/{NDVI}/jobs/{other['id']}")["status"] == "completed"


@pytest.mark.parametrize(
    ("fault", "logged"),
    [
        (Fault("bad-gateway", 1), "502 (bad-gateway, failure)"),
        (Fault("slow", 1, 0), "200 (slow, failure)"),
        (Fault("reset", 1), "reset, failure"),
    ],
)
def test_failure_combines_with_other_faults(clock: Clock, fault: Fault, logged: str) -> None:
    lines: list[str] = []
    path = f"/v0/workflows/{NDVI}/jobs"
    with Sandbox(Backend(clock=clock), faults=[Fault("failure", 1), fault], log=lines.append) as running:
        with contextlib.suppress(ConnectionResetError):
            raw(running, POST)
        clock.advance(100)
        assert [job["status"] for job in get(running, path)["jobs"]] == ["failed"]
    assert lines[0] == f"POST {path} {logged}"


def test_failure_does_not_affect_invalid_requests(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("failure", 1)]) as running:
        assert send(running, "POST", f"/v0/workflows/{NDVI}/jobs?project_id={COAST}").status == 403
        assert send(running, "POST", CREATE, key="wrong").status == 401
        assert send(running, "POST", "/v0/projects").status == 405
        assert running.backend.created == 0


def test_failure_does_not_affect_gets(clock: Clock) -> None:
    backend = Backend(clock=clock)
    request = parse_head(f"GET /v0/workflows/{NDVI}/jobs HTTP/1.1\r\nAuthorization: {KEY}")
    assert json.loads(handlers.handle(backend, KEY, request, job_fails=True).body) == {"jobs": []}
    assert backend.created == 0


def test_the_same_seed_gives_the_same_failures(clock: Clock) -> None:
    def statuses(seed: int) -> list[str]:
        started = clock()
        with Sandbox(Backend(clock=clock), faults=[Fault("failure", 0.5)], seed=seed) as running:
            for _ in range(30):
                create(running)
            clock.advance(100)
            by_job = [job["status"] for job in get(running, f"/v0/workflows/{NDVI}/jobs")["jobs"]]
        clock.moment = started
        return by_job

    assert statuses(5) == statuses(5)
    assert statuses(5) != statuses(6)
    assert set(statuses(5)) == {"completed", "failed"}


def test_slow_delays_the_response(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("slow", 1, 0.2)]) as running:
        started = time.monotonic()
        create(running)
        assert time.monotonic() - started >= 0.2


def test_closing_sends_a_slow_response_at_once(clock: Clock) -> None:
    received = threading.Event()

    def read_clock() -> datetime:
        received.set()
        return clock()

    with Sandbox(Backend(clock=read_clock), faults=[Fault("slow", 1, 3600)]) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        connection.request("POST", CREATE, headers={"Authorization": KEY})
        assert received.wait(30)
    with closing(connection):
        assert connection.getresponse().status == 200


def test_the_same_seed_gives_the_same_faults(clock: Clock) -> None:
    def statuses(seed: int) -> list[int]:
        with Sandbox(Backend(clock=clock), faults=[Fault("rate-limit", 0.5, 1)], seed=seed) as running:
            return [send(running, "POST", CREATE).status for _ in range(30)]

    assert statuses(5) == statuses(5)
    assert statuses(5) != statuses(6)
    assert set(statuses(5)) == {200, 429}


def test_shares_that_sum_to_more_than_1_are_rejected(clock: Clock) -> None:
    with pytest.raises(UsageError, match="sum"):
        Sandbox(Backend(clock=clock), faults=[Fault("slow", 0.6), Fault("reset", 0.6)])


def test_requests_are_logged_without_query_and_key(clock: Clock) -> None:
    lines: list[str] = []
    with Sandbox(Backend(clock=clock), log=lines.append) as running:
        create(running)
        raw(running, b"nonsense\r\n\r\n")
    with Sandbox(Backend(clock=clock), faults=[Fault("bad-gateway", 1)], log=lines.append) as running:
        send(running, "POST", CREATE)
    resetting = Sandbox(Backend(clock=clock), faults=[Fault("reset", 1)], log=lines.append)
    with resetting as running, pytest.raises(ConnectionResetError):
        raw(running, POST)
    path = f"/v0/workflows/{NDVI}/jobs"
    assert lines == [f"POST {path} 200", "- - 400", f"POST {path} 502 (bad-gateway)", f"POST {path} reset"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"x" * 300_000,
        b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + b"y" * 300_000,
        b"GET / HTTP/1.1\r\nHost: api.pixxel.space\r\n\r\n",
    ],
    ids=["tls", "version", "flood", "large", "host"],
)
def test_garbage_gets_an_error_response(sandbox: Sandbox, garbage: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    head, _, body = raw(sandbox, garbage).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert b"X-Request-Id: " in head
    assert b"Connection: close" in head
    assert json.loads(body)["error"]["message"]
    assert send(sandbox, "GET", "/ping").status == 200
    assert capfd.readouterr().err == ""


def test_incomplete_posts_create_nothing(clock: Clock) -> None:
    head = f"POST {CREATE} HTTP/1.1\r\nAuthorization: {KEY}\r\nContent-Length: 10\r\n\r\n".encode()
    backend = Backend(clock=clock)
    with Sandbox(backend) as running:
        for part in (head[:40], head[:-1], head + b"half"):
            with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
                connection.sendall(part)
    assert backend.created == 0  # closing has waited for every connection to end


def test_disconnecting_clients_cause_no_traceback(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    for data in (b"", b"GET /", POST, POST * 100):
        with socket.create_connection(("127.0.0.1", sandbox.port), timeout=30) as connection:
            connection.sendall(data)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert send(sandbox, "GET", "/ping").status == 200
    assert capfd.readouterr().err == ""


def test_closing_waits_for_requests_in_flight(clock: Clock) -> None:
    working = threading.Event()

    def work(_line: str) -> None:
        working.set()
        assert running._closing.wait(30)
        time.sleep(0.2)  # closing has to wait for this

    with Sandbox(Backend(clock=clock), log=work) as running:
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=30)
        connection.sendall(POST)
        assert working.wait(30)
    with connection, connection.makefile("rb") as reply:
        assert reply.read().startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_bug_causes_an_error_response_and_no_traceback(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> datetime:
        if fails_next.is_set():
            fails_next.clear()
            raise LookupError("the clock stopped")
        return clock()

    fails_next = threading.Event()
    with Sandbox(Backend(clock=broken)) as running:
        fails_next.set()
        reply = send(running, "POST", CREATE)
        assert (reply.status, reply.body["error"]["code"]) == (500, "internal_server_error")
        assert send(running, "POST", CREATE).status == 200
    assert capfd.readouterr().err == ""


def test_port_in_use(sandbox: Sandbox, clock: Clock) -> None:
    with (
        pytest.raises(RefusedError, match=f"127.0.0.1:{sandbox.port}: Address already in use$") as caught,
        Sandbox(Backend(clock=clock), port=sandbox.port),
    ):
        pass
    assert caught.value.exit_code is Exit.REFUSED
    assert "--port" in caught.value.hint


def test_a_port_can_be_reused_at_once(clock: Clock) -> None:
    with refusing_port() as port:
        with Sandbox(Backend(clock=clock), port=port) as first:
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            create(first)  # the sandbox is the first to close
        with connection, Sandbox(Backend(clock=clock), port=port) as second:
            assert second.port == port
            create(second)


def test_closing_ends_all_threads_and_sockets(clock: Clock) -> None:
    def open_files() -> int:
        gc.collect()
        return len(list(Path("/dev/fd").iterdir()))

    before = open_files()
    with Sandbox(Backend(clock=clock)) as running:
        idle = [socket.create_connection(("127.0.0.1", running.port), timeout=30) for _ in range(5)]
        idle[0].sendall(b"GET /pi")
        create(running)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("sandbox-")] == []
    assert [connection.recv(1) for connection in idle] == [b""] * 5
    for connection in idle:
        connection.close()
    assert open_files() == before


def test_closing_does_not_wait_for_clients_that_do_not_read(clock: Clock) -> None:
    request = f"GET /v0/workflows HTTP/1.1\r\nAuthorization: {KEY}\r\n\r\n".encode()
    with Sandbox(Backend(clock=clock)) as running:
        client = socket.create_connection(("127.0.0.1", running.port), timeout=0.5)
        with pytest.raises(TimeoutError):  # the sandbox stops reading because its responses are not read
            client.sendall(request * 100_000)
    client.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("sandbox-")] == []


def test_concurrent_clients(tmp_path: Path) -> None:
    with Backend(store=JobFile(tmp_path)) as backend, Sandbox(backend) as running:
        ids: list[str] = []
        clients = [
            threading.Thread(target=lambda: ids.extend(create(running)["id"] for _ in range(25))) for _ in "12345678"
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert len(ids) == len(set(ids)) == 200
    with Backend(store=JobFile(tmp_path)) as backend:
        assert {job.id for job in backend.jobs(NDVI)} == set(ids)
