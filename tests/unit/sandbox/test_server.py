"""The sandbox over real sockets: the endpoints, a job's life, the faults, and a clean end."""

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
    """A clock that stands still until it is set forward."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 5, 4, 3, 2, 1, 500000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Answer:
    """What came back: the body read as JSON, or as text where it is none."""

    status: int
    headers: Mapping[str, str]
    body: Any


def ask(sandbox: Sandbox, method: str, target: str, key: str | None = KEY) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=30)) as connection:
        connection.request(method, target, headers={} if key is None else {"Authorization": key})
        response = connection.getresponse()
        text = response.read().decode()
        is_json = response.headers["Content-Type"] == "application/json" and text
        return Answer(response.status, dict(response.headers), json.loads(text) if is_json else text)


def get(sandbox: Sandbox, target: str) -> Any:
    answer = ask(sandbox, "GET", target)
    assert answer.status == 200, answer
    return answer.body


def create(sandbox: Sandbox, target: str = CREATE) -> Any:
    answer = ask(sandbox, "POST", target)
    assert answer.status == 200, answer
    return answer.body


def raw(sandbox: Sandbox, data: bytes) -> bytes:
    """Send bytes, and return all that comes back until the end."""
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=30) as connection:
        # A small buffer, so that sending goes on for as long as the sandbox reads.
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
    with Backend(clock=clock) as world, Sandbox(world) as running:
        yield running


def test_ping_needs_no_key(sandbox: Sandbox) -> None:
    assert ask(sandbox, "GET", "/ping", key=None).body == "pong"


def test_the_base_url_is_loopback(sandbox: Sandbox) -> None:
    assert sandbox.base_url == f"http://127.0.0.1:{sandbox.port}"


def test_projects_are_listed(sandbox: Sandbox) -> None:
    body = get(sandbox, "/v0/projects")
    assert body["count"] == 2
    assert [(item["id"], item["name"], item["title"]) for item in body["projects"]] == [
        (AGRI, "agri-watch", "Agri Watch"),
        (COAST, "coast-line", "Coast Line"),
    ]
    assert set(body["projects"][0]) == {
        "id", "name", "title", "org_id", "members_count", "created_at", "updated_at", "metadata"
    }  # fmt: skip


def test_projects_come_in_pages(sandbox: Sandbox) -> None:
    body = get(sandbox, "/v0/projects?page_num=2&page_size=1")
    assert (body["count"], [item["id"] for item in body["projects"]]) == (2, [COAST])


def test_workflows_are_listed(sandbox: Sandbox) -> None:
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
def test_workflows_are_filtered_and_paged(sandbox: Sandbox, query: str, names: list[str]) -> None:
    assert [item["name"] for item in get(sandbox, f"/v0/workflows?{query}")["workflows"]] == names


def test_the_total_counts_what_the_filters_leave(sandbox: Sandbox) -> None:
    body = get(sandbox, f"/v0/workflows?project_id={COAST}&limit=1")
    assert body["pagination"] == {"limit": 1, "offset": 0, "total": 3}


def test_one_workflow_and_its_estimate_agree(sandbox: Sandbox) -> None:
    body = get(sandbox, f"/v0/workflows/{NDVI}?project_id={AGRI}")
    assert (body["id"], body["name"], body["project_id"]) == (NDVI, "NDVI", AGRI)
    assert set(body) == {
        "id", "estimated_cost", "name", "created_by", "description", "spec", "created_at", "updated_at",
        "val_errors", "project_id",
    }  # fmt: skip
    assert get(sandbox, f"/v0/workflows/{NDVI}/estimate") == {"estimated_cost": body["estimated_cost"]}


def test_a_created_job_is_whole(sandbox: Sandbox) -> None:
    job = create(sandbox)
    assert (job["workflow_id"], job["status"], job["progress"]) == (NDVI, "pending", "0")
    assert job["created_at"] == job["updated_at"] == "2026-05-04T03:02:01.500000Z"
    assert set(job) == {
        "created_by", "status", "id", "tasks", "val_errors", "spec", "cost", "workflow_id", "updated_at",
        "exec_created_at", "exec_updated_at", "created_at", "estimated_duration", "progress",
    }  # fmt: skip
    assert [task["depends_on"] for task in job["tasks"]] == [[], ["Select imagery"], ["Analyse"]]


def test_each_job_has_an_id_of_its_own(sandbox: Sandbox) -> None:
    ids = [create(sandbox)["id"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert [job["id"] for job in get(sandbox, f"/v0/workflows/{NDVI}/jobs")["jobs"]] == ids


def test_a_job_runs_and_completes_with_time(sandbox: Sandbox, clock: Clock) -> None:
    path = f"/v0/workflows/{NDVI}/jobs/{create(sandbox)['id']}"  # 3 s, of which it waits for 0.3
    clock.forward(1.65)
    running = get(sandbox, path)
    assert (running["status"], running["progress"], running["updated_at"]) == (
        "running", "50", "2026-05-04T03:02:03.150000Z"
    )  # fmt: skip
    assert [(task["status"], task["progress"]) for task in running["tasks"]] == [
        ("completed", 100), ("running", 50), ("pending", 0)
    ]  # fmt: skip
    assert "finished_at" not in running
    clock.forward(1000)
    done = get(sandbox, path)
    assert (done["status"], done["progress"], done["time_taken"]) == ("completed", "100", "3s")
    assert done["finished_at"] == done["updated_at"] == "2026-05-04T03:02:04.500000Z"
    assert set(done) - set(running) == {"finished_at", "time_taken"}
    assert set(done["tasks"][0]) - {"block_inf_start_time"} == {
        "id", "info_logs", "created_at", "updated_at", "finished_at", "estimated_time_duration", "time_taken",
        "status", "state_msg", "inputs", "result", "depends_on", "name", "progress", "disclaimer", "recv_time",
        "send_time", "block_inf_end_time", "block_info", "err_msg", "failure_type",
    }  # fmt: skip


def test_a_listed_job_is_the_job_in_short(sandbox: Sandbox, clock: Clock) -> None:
    job = create(sandbox)
    clock.forward(100)
    [item] = get(sandbox, f"/v0/workflows/{NDVI}/jobs")["jobs"]
    whole = get(sandbox, f"/v0/workflows/{NDVI}/jobs/{job['id']}")
    assert item == {name: whole[name] for name in item}
    assert set(item) == {
        "created_by", "id", "cost", "workflow_id", "created_at", "updated_at", "finished_at", "estimated_duration",
        "progress", "status", "time_taken",
    }  # fmt: skip


def test_jobs_are_filtered(sandbox: Sandbox, clock: Clock) -> None:
    first = create(sandbox)
    clock.forward(86400)
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


def test_jobs_of_another_workflow_are_not_here(sandbox: Sandbox) -> None:
    job = create(sandbox)
    assert get(sandbox, f"/v0/workflows/{STRESS}/jobs") == {"jobs": []}
    assert ask(sandbox, "GET", f"/v0/workflows/{STRESS}/jobs/{job['id']}").status == 404


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
def test_errors_have_the_api_s_own_form(sandbox: Sandbox, method: str, target: str, status: int, code: str) -> None:
    answer = ask(sandbox, method, target)
    assert (answer.status, answer.body["error"]["code"]) == (status, code)
    assert set(answer.body["error"]) == {"code", "message", "details"}
    assert answer.body["error"]["message"]
    assert sandbox.backend.created == 0


def test_a_wrong_method_is_told_the_right_ones(sandbox: Sandbox) -> None:
    assert ask(sandbox, "PUT", f"/v0/workflows/{NDVI}/jobs").headers["Allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "Authorization"),
        ("", "Authorization"),
        ("wrong", "not recognised"),
        (f"Bearer {KEY}", "without the prefix 'Bearer '"),
        (f"bearer {KEY}", "without the prefix 'Bearer '"),
    ],
)
def test_a_wrong_key_is_401_and_says_what_is_wrong(sandbox: Sandbox, key: str | None, said: str) -> None:
    answer = ask(sandbox, "POST", CREATE, key=key)
    assert (answer.status, answer.body["error"]["code"]) == (401, "unauthorized")
    assert said in answer.body["error"]["message"]
    assert KEY not in json.dumps(answer.body)
    assert sandbox.backend.created == 0


def test_another_key_can_be_set(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), key="other") as running:
        assert ask(running, "GET", "/v0/projects", key="other").status == 200
        assert ask(running, "GET", "/v0/projects").status == 401


@pytest.mark.parametrize(("method", "target"), [("GET", "/ping"), ("GET", "/nowhere"), ("POST", CREATE)])
def test_every_answer_has_a_date_and_a_request_id(sandbox: Sandbox, method: str, target: str) -> None:
    first, second = ask(sandbox, method, target), ask(sandbox, method, target)
    assert first.headers["Date"] == "Mon, 04 May 2026 03:02:01 GMT"
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]


def test_head_is_answered_like_get_but_for_the_body(sandbox: Sandbox) -> None:
    answer = ask(sandbox, "HEAD", "/v0/projects")
    assert (answer.status, answer.body) == (200, "")
    assert ask(sandbox, "HEAD", f"/v0/workflows/{NDVI}/jobs").status == 200


def test_admitted_pairs_can_be_run(sandbox: Sandbox) -> None:
    sandbox.backend.add_pairs([("mine/é", "my project"), (NDVI, COAST), (NDVI, AGRI)])
    create(sandbox, "/v0/workflows/mine%2F%C3%A9/jobs?project_id=my%20project")
    create(sandbox, f"/v0/workflows/{NDVI}/jobs?project_id={COAST}")
    assert [item["id"] for item in get(sandbox, "/v0/workflows?project_id=my+project")["workflows"]] == ["mine/é"]
    homes = [item["project_id"] for item in get(sandbox, f"/v0/workflows?id={NDVI}")["workflows"]]
    assert homes == [AGRI, COAST]
    assert len(EXAMPLE.workflows) == 7


def test_a_person_sees_each_job_end_soon_and_at_a_time_of_its_own(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.backend.add_pairs([("mine", "my-project")])
    items = get(sandbox, "/v0/workflows")["workflows"]
    paths = [f"/v0/workflows/{item['id']}/jobs" for item in items]
    for path, item in zip(paths, items, strict=True):
        create(sandbox, f"{path}?project_id={item['project_id']}")
    clock.forward(8)
    *taken, admitted = [get(sandbox, path)["jobs"][0]["time_taken"] for path in paths]
    assert taken == ["3s", "6s", "7s", "4.4s", "4s", "5s", "8s"]
    assert admitted == "5s"


def test_a_cloudy_scene_fails_half_way(sandbox: Sandbox, clock: Clock) -> None:
    job = create(sandbox, f"/v0/workflows/{CLOUDY}/jobs?project_id={AGRI}")
    path = f"/v0/workflows/{CLOUDY}/jobs/{job['id']}"
    assert (job["status"], job["val_errors"]) == ("pending", [])
    clock.forward(4.25)
    assert (get(sandbox, path)["status"], get(sandbox, path)["progress"]) == ("running", "47")
    clock.forward(0.25)
    failed = get(sandbox, path)
    assert (failed["status"], failed["progress"], failed["time_taken"]) == ("failed", "50", "4.4s")
    assert failed["finished_at"] == failed["updated_at"] == "2026-05-04T03:02:05.900000Z"
    clock.forward(86400)
    assert get(sandbox, path) == failed
    [item] = get(sandbox, f"/v0/workflows/{CLOUDY}/jobs?status=failed")["jobs"]
    assert item == {name: failed[name] for name in item}
    assert {"finished_at", "time_taken"} <= set(item)


def test_the_task_at_work_says_why_its_job_failed(sandbox: Sandbox, clock: Clock) -> None:
    job = create(sandbox, f"/v0/workflows/{CLOUDY}/jobs?project_id={AGRI}")
    clock.forward(100)
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


def test_a_connection_serves_many_requests(sandbox: Sandbox) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=30)) as connection:
        ports = set()
        for body in (b"", b"ignored", b"{}"):
            connection.request("POST", CREATE, body, {"Authorization": KEY})
            assert connection.getresponse().read()
            ports.add(connection.sock.getsockname()[1])
    assert len(ports) == 1
    assert sandbox.backend.created == 3


def test_jobs_survive_a_restart(tmp_path: Path, clock: Clock) -> None:
    with Backend(clock=clock, store=JobFile(tmp_path)) as world, Sandbox(world) as running:
        world.add_pairs([("mine", "my-project")])
        job = create(running, "/v0/workflows/mine/jobs?project_id=my-project")
    with Backend(clock=clock, store=JobFile(tmp_path)) as world, Sandbox(world) as running:
        assert get(running, f"/v0/workflows/mine/jobs/{job['id']}") == job
        assert world.created == 0
        create(running, "/v0/workflows/mine/jobs?project_id=my-project")


def test_a_job_that_is_to_fail_does_so_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    path = f"/v0/workflows/{NDVI}/jobs"
    with Backend(clock=clock, store=JobFile(tmp_path)) as world:
        with Sandbox(world, faults=[Fault("failure", 1)]) as running:
            create(running)
        with Sandbox(world) as running:
            create(running)
    clock.forward(100)
    with Backend(clock=clock, store=JobFile(tmp_path)) as world, Sandbox(world) as running:
        assert [job["status"] for job in get(running, path)["jobs"]] == ["failed", "completed"]


def test_jobs_of_another_sandbox_in_the_same_folder_show_up(tmp_path: Path, sandbox: Sandbox, clock: Clock) -> None:
    with Backend(clock=clock, store=JobFile(tmp_path)) as world, Sandbox(world) as other:
        with Backend(clock=clock, store=JobFile(tmp_path)) as mine, Sandbox(mine) as running:
            mine.add_pairs([("mine", "my-project")])
            job = create(running, "/v0/workflows/mine/jobs?project_id=my-project")
        assert get(other, "/v0/workflows/mine/jobs")["jobs"][0]["id"] == job["id"]
    assert ask(sandbox, "GET", "/v0/workflows/mine/jobs").status == 400


def test_jobs_of_another_sandbox_show_up_after_one_s_own_too(tmp_path: Path, clock: Clock) -> None:
    with Backend(clock=clock, store=JobFile(tmp_path)) as mine, Backend(clock=clock, store=JobFile(tmp_path)) as other:
        created = [world.create(NDVI, AGRI) for world in (mine, other, mine, mine, other)]
        assert mine.jobs(NDVI) == created
        assert sorted(job.id for job in other.jobs(NDVI)) == sorted(job.id for job in created)
        assert (mine.created, other.created) == (3, 2)


def test_a_job_that_cannot_be_kept_is_not_created(tmp_path: Path, clock: Clock) -> None:
    world = Backend(clock=clock, store=JobFile(tmp_path))
    with Sandbox(world) as running:
        world.close()
        answer = ask(running, "POST", CREATE)
        assert (answer.status, answer.body["error"]["code"]) == (500, "internal_server_error")
        assert world.created == 0


def test_rate_limit_creates_nothing_and_says_when_to_come_again(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("rate-limit", 1, 3)]) as running:
        answer = ask(running, "POST", CREATE)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
        assert answer.body["error"]["code"] == "too_many_requests"
        assert get(running, f"/v0/workflows/{NDVI}/jobs") == {"jobs": []}


def test_bad_gateway_comes_after_the_job_was_created(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("bad-gateway", 1)]) as running:
        answer = ask(running, "POST", CREATE)
        assert (answer.status, answer.headers["Content-Type"]) == (502, "text/html")
        assert len(get(running, f"/v0/workflows/{NDVI}/jobs")["jobs"]) == 1


def test_reset_comes_after_the_job_was_created_and_without_an_answer(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("reset", 1)]) as running:
        with pytest.raises(ConnectionResetError):
            raw(running, POST)
        assert len(get(running, f"/v0/workflows/{NDVI}/jobs")["jobs"]) == 1


def test_failure_is_a_normal_answer_and_a_job_that_fails(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("failure", 1)]) as failing, Sandbox(Backend(clock=clock)) as sound:
        job, other = create(failing), create(sound)
        assert {**job, "id": "", "tasks": []} == {**other, "id": "", "tasks": []}
        clock.forward(100)
        assert get(failing, f"/v0/workflows/{NDVI}/jobs/{job['id']}")["status"] == "failed"
        assert get(sound, f"/v0/workflows/{NDVI}/jobs/{other['id']}")["status"] == "completed"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("bad-gateway", 1), "502 (bad-gateway, failure)"),
        (Fault("slow", 1, 0), "200 (slow, failure)"),
        (Fault("reset", 1), "reset, failure"),
    ],
)
def test_failure_comes_on_top_of_another_fault(clock: Clock, fault: Fault, told: str) -> None:
    lines: list[str] = []
    path = f"/v0/workflows/{NDVI}/jobs"
    with Sandbox(Backend(clock=clock), faults=[Fault("failure", 1), fault], log=lines.append) as running:
        with contextlib.suppress(ConnectionResetError):
            raw(running, POST)
        clock.forward(100)
        assert [job["status"] for job in get(running, path)["jobs"]] == ["failed"]
    assert lines[0] == f"POST {path} {told}"


def test_failure_changes_no_other_request(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("failure", 1)]) as running:
        assert ask(running, "POST", f"/v0/workflows/{NDVI}/jobs?project_id={COAST}").status == 403
        assert ask(running, "POST", CREATE, key="wrong").status == 401
        assert ask(running, "POST", "/v0/projects").status == 405
        assert running.backend.created == 0


def test_only_what_creates_a_job_can_make_one_that_fails(clock: Clock) -> None:
    world = Backend(clock=clock)
    request = parse_head(f"GET /v0/workflows/{NDVI}/jobs HTTP/1.1\r\nAuthorization: {KEY}")
    assert json.loads(handlers.handle(world, KEY, request, job_fails=True).body) == {"jobs": []}
    assert world.created == 0


def test_the_same_seed_gives_the_same_failures(clock: Clock) -> None:
    def statuses(seed: int) -> list[str]:
        begun = clock()
        with Sandbox(Backend(clock=clock), faults=[Fault("failure", 0.5)], seed=seed) as running:
            for _ in range(30):
                create(running)
            clock.forward(100)
            found = [job["status"] for job in get(running, f"/v0/workflows/{NDVI}/jobs")["jobs"]]
        clock.moment = begun
        return found

    assert statuses(5) == statuses(5)
    assert statuses(5) != statuses(6)
    assert set(statuses(5)) == {"completed", "failed"}


def test_slow_answers_after_its_seconds(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock), faults=[Fault("slow", 1, 0.2)]) as running:
        begun = time.monotonic()
        create(running)
        assert time.monotonic() - begun >= 0.2


def test_closing_does_not_wait_for_a_slow_answer_but_sends_it(clock: Clock) -> None:
    asked = threading.Event()

    def telling() -> datetime:
        asked.set()
        return clock()

    with Sandbox(Backend(clock=telling), faults=[Fault("slow", 1, 3600)]) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        connection.request("POST", CREATE, headers={"Authorization": KEY})
        assert asked.wait(30)
    with closing(connection):
        assert connection.getresponse().status == 200


def test_the_same_seed_gives_the_same_faults(clock: Clock) -> None:
    def statuses(seed: int) -> list[int]:
        with Sandbox(Backend(clock=clock), faults=[Fault("rate-limit", 0.5, 1)], seed=seed) as running:
            return [ask(running, "POST", CREATE).status for _ in range(30)]

    assert statuses(5) == statuses(5)
    assert statuses(5) != statuses(6)
    assert set(statuses(5)) == {200, 429}


def test_faults_that_are_more_than_the_whole_are_refused(clock: Clock) -> None:
    with pytest.raises(UsageError, match="sum"):
        Sandbox(Backend(clock=clock), faults=[Fault("slow", 0.6), Fault("reset", 0.6)])


def test_each_answer_is_logged_without_query_or_key(clock: Clock) -> None:
    lines: list[str] = []
    with Sandbox(Backend(clock=clock), log=lines.append) as running:
        create(running)
        raw(running, b"nonsense\r\n\r\n")
    with Sandbox(Backend(clock=clock), faults=[Fault("bad-gateway", 1)], log=lines.append) as running:
        ask(running, "POST", CREATE)
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
def test_garbage_is_answered_and_harms_nobody(
    sandbox: Sandbox, garbage: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    head, _, body = raw(sandbox, garbage).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert b"X-Request-Id: " in head
    assert b"Connection: close" in head
    assert json.loads(body)["error"]["message"]
    assert ask(sandbox, "GET", "/ping").status == 200
    assert capfd.readouterr().err == ""


def test_a_post_of_which_half_arrived_creates_nothing(clock: Clock) -> None:
    head = f"POST {CREATE} HTTP/1.1\r\nAuthorization: {KEY}\r\nContent-Length: 10\r\n\r\n".encode()
    world = Backend(clock=clock)
    with Sandbox(world) as running:
        for part in (head[:40], head[:-1], head + b"half"):
            with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
                connection.sendall(part)
    assert world.created == 0  # closing has waited for every connection's end


def test_a_client_that_goes_away_is_no_traceback(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    for data in (b"", b"GET /", POST, POST * 100):
        with socket.create_connection(("127.0.0.1", sandbox.port), timeout=30) as connection:
            connection.sendall(data)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(sandbox, "GET", "/ping").status == 200
    assert capfd.readouterr().err == ""


def test_closing_lets_a_request_in_flight_finish(clock: Clock) -> None:
    working = threading.Event()

    def work(_line: str) -> None:
        working.set()
        assert running._closing.wait(30)
        time.sleep(0.2)  # the work that closing has to wait for

    with Sandbox(Backend(clock=clock), log=work) as running:
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=30)
        connection.sendall(POST)
        assert working.wait(30)
    with connection, connection.makefile("rb") as answer:
        assert answer.read().startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_bug_is_an_answer_and_no_traceback(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> datetime:
        if asked.is_set():
            asked.clear()
            raise LookupError("the clock stopped")
        return clock()

    asked = threading.Event()
    with Sandbox(Backend(clock=broken)) as running:
        asked.set()
        answer = ask(running, "POST", CREATE)
        assert (answer.status, answer.body["error"]["code"]) == (500, "internal_server_error")
        assert ask(running, "POST", CREATE).status == 200
    assert capfd.readouterr().err == ""


def test_a_taken_port_is_refused(sandbox: Sandbox, clock: Clock) -> None:
    with (
        pytest.raises(RefusedError, match=f"127.0.0.1:{sandbox.port}") as caught,
        Sandbox(Backend(clock=clock), port=sandbox.port),
    ):
        pass
    assert caught.value.exit_code is Exit.REFUSED
    assert "--port" in caught.value.hint


def test_a_port_can_be_taken_again_at_once(clock: Clock) -> None:
    with Sandbox(Backend(clock=clock)) as first:
        port = first.port
        kept = socket.create_connection(("127.0.0.1", port), timeout=30)  # so that the sandbox is the first to close
        create(first)
    with kept, Sandbox(Backend(clock=clock), port=port) as second:
        assert second.port == port
        create(second)


def test_nothing_is_left_open(clock: Clock) -> None:
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


def test_closing_does_not_wait_for_a_client_that_never_reads(clock: Clock) -> None:
    request = f"GET /v0/workflows HTTP/1.1\r\nAuthorization: {KEY}\r\n\r\n".encode()
    with Sandbox(Backend(clock=clock)) as running:
        deaf = socket.create_connection(("127.0.0.1", running.port), timeout=0.5)
        with pytest.raises(TimeoutError):  # the sandbox takes no more, as its answers are not taken
            deaf.sendall(request * 100_000)
    deaf.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("sandbox-")] == []


def test_many_clients_at_once_get_a_job_each(tmp_path: Path) -> None:
    with Backend(store=JobFile(tmp_path)) as world, Sandbox(world) as running:
        ids: list[str] = []
        clients = [
            threading.Thread(target=lambda: ids.extend(create(running)["id"] for _ in range(25))) for _ in "12345678"
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert len(ids) == len(set(ids)) == 200
    with Backend(store=JobFile(tmp_path)) as world:
        assert {job.id for job in world.jobs(NDVI)} == set(ids)
