"""The command `sandbox`, as a person and as a script meet it."""

from __future__ import annotations

import http.client
import json
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.systems import needs_prlimit

NDVI = "9f2a4c1e-7b60-4d35-8a1f-2c9be05d7713"
CLOUDY = "b94e6d20-3c7f-4a15-92d8-f06a1e5b7c38"
AGRI = "1c6d7a52-0f3e-4b8a-9d21-5e7f30a4c611"
JOBS = f"/v0/workflows/{NDVI}/jobs"
CREATE = f"{JOBS}?project_id={AGRI}"


class Running:
    """A sandbox in a process of its own, and what it said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.exports = [process.stdout.readline().rstrip("\n") for _ in range(2)]
        match = re.fullmatch(r"export PIXXEL_BASE_URL=http://127\.0\.0\.1:(\d+)", self.exports[0])
        assert match, self.exports
        self.port = int(match[1])

    def ask(self, method: str, target: str, key: str = "sandbox-key") -> tuple[int, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, target, headers={"Authorization": key})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit code, the rest of stdout, stderr."""
        self.process.send_signal(number)
        # Not communicate(): it would pass over what readline() holds already.
        out, err = (stream.read() if stream else "" for stream in (self.process.stdout, self.process.stderr))
        return self.process.wait(60), out, err


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "runner", "sandbox", *map(str, arguments)]


@contextmanager
def serving(*arguments: str | Path, stdin: str | None = None) -> Iterator[Running]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command(*arguments), stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(stdin or "")
            process.stdin.close()
            process.stdin = None
            yield Running(process)
        finally:
            process.kill()


def refused(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and stderr of a sandbox that doesn't start."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_asked_to_stop(number: signal.Signals) -> None:
    with serving() as sandbox:
        assert sandbox.exports[1] == "export PIXXEL_API_KEY=sandbox-key"
        assert sandbox.ask("POST", CREATE)[0] == 200
        assert sandbox.ask("POST", CREATE)[0] == 200
        code, out, err = sandbox.stop(number)
    assert code == 0
    assert "2 jobs were created" in err
    assert "Traceback" not in err
    lines = out.splitlines()
    assert f"# project {AGRI}  Agri Watch" in lines
    assert f"#   workflow {NDVI}  NDVI: 12 tokens, 3 s" in lines
    assert f"#   workflow {CLOUDY}  Cloudy scene: 19 tokens, 8 s, fails halfway" in lines
    assert all(line.startswith("#") or not line for line in lines)


def test_a_key_of_one_s_own_is_quoted_for_the_shell() -> None:
    with serving("--key", "my key") as sandbox:
        assert sandbox.exports[1] == "export PIXXEL_API_KEY='my key'"
        assert sandbox.ask("GET", "/v0/projects", key="my key")[0] == 200
        assert sandbox.ask("GET", "/v0/projects")[0] == 401


def test_jobs_are_kept_over_restarts(tmp_path: Path) -> None:
    with serving("--state", tmp_path / "state") as sandbox:
        _, job = sandbox.ask("POST", CREATE)
        sandbox.process.kill()  # without a chance to tidy up
    with serving("--state", tmp_path / "state") as sandbox:
        status, body = sandbox.ask("GET", JOBS)
        assert (status, [item["id"] for item in body["jobs"]]) == (200, [job["id"]])
        assert "0 jobs were created" in sandbox.stop()[2]


def test_faults_are_rehearsed_and_can_be_had_again() -> None:
    def statuses(*arguments: str) -> tuple[list[int], str]:
        with serving("--fault", "rate-limit=50%", *arguments) as sandbox:
            found = [sandbox.ask("POST", CREATE)[0] for _ in range(20)]
            return found, sandbox.stop()[2]

    first, said = statuses()
    seed = re.search(r"--seed (\d+)", said)
    assert seed
    assert statuses("--seed", seed[1])[0] == first
    assert set(first) <= {200, 429}


def test_a_job_that_is_to_fail_fails_though_the_sandbox_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    with serving("--state", path, "--fault", "failure=100%", "--fault", "slow:0=100%") as sandbox:
        assert sandbox.ask("POST", CREATE)[0] == 200
        sandbox.process.kill()
    line = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**line, "created_at": "2026-05-04T03:02:01+00:00"}) + "\n", encoding="utf-8")
    with serving("--state", path) as sandbox:
        [job] = sandbox.ask("GET", JOBS)[1]["jobs"]
        assert (job["status"], job["progress"], job["time_taken"]) == ("failed", "50", "1.65s")


def test_verbose_says_a_line_a_request_and_never_the_key() -> None:
    with serving("--verbose", "--key", "do-not-show") as sandbox:
        sandbox.ask("POST", CREATE, key="do-not-show")
        sandbox.ask("GET", "/v0/projects", key="do-not-show-either")
        _, _, err = sandbox.stop()
    assert err.splitlines()[1:] == [f"POST {JOBS} 200", "GET /v0/projects 401", "1 job was created"]


def test_the_pairs_of_a_manifest_can_be_run(tmp_path: Path) -> None:
    manifest = tmp_path / "mine.yaml"
    manifest.write_text(
        "version: 1\njobs:\n  - {workflow_id: my-workflow, project_id: my-project}\n"
        f"  - {{workflow_id: {NDVI}, project_id: my-project, enabled: false}}\n",
        encoding="utf-8",
    )
    with serving("--manifest", manifest) as sandbox:
        assert sandbox.ask("POST", "/v0/workflows/my-workflow/jobs?project_id=my-project")[0] == 200
        assert sandbox.ask("POST", f"{JOBS}?project_id=my-project")[0] == 200
        assert sandbox.ask("POST", CREATE)[0] == 200
        assert "#   workflow my-workflow" in sandbox.stop()[1]


def test_a_manifest_may_come_from_standard_input() -> None:
    text = "version: 1\nname: piped\njobs:\n  - {workflow_id: my-workflow, project_id: my-project}\n"
    with serving("--manifest", "-", stdin=text) as sandbox:
        assert sandbox.ask("POST", "/v0/workflows/my-workflow/jobs?project_id=my-project")[0] == 200


def test_a_manifest_with_problems_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text("version: 1\njobs: 7\n", encoding="utf-8")
    assert refused("--manifest", manifest)[0] == 2


def test_a_long_catalogue_is_cut(tmp_path: Path) -> None:
    manifest = tmp_path / "long.yaml"
    jobs = "".join(f"  - {{workflow_id: w{number}, project_id: p}}\n" for number in range(100))
    manifest.write_text(f"version: 1\njobs:\n{jobs}", encoding="utf-8")
    with serving("--manifest", manifest) as sandbox:
        lines = sandbox.stop()[1].splitlines()
    assert lines[-1] == "# and 90 more"
    assert len(lines) < 30


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = refused("--port", str(port))
    assert code == 4
    assert f"127.0.0.1:{port}" in err


def test_an_unreadable_state_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text("nonsense\n", encoding="utf-8")
    code, err = refused("--state", tmp_path)
    assert code == 4
    assert f"{path}:1:" in err
    assert f"Move {path} away" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fault", "flood=0.1"], "rate-limit"),
        (["--fault", "slow=60%", "--fault", "reset=60%"], "sum"),
        (["--fault", "failure:2=60%"], "failure takes no seconds"),
        (["--port", "70000"], "--port"),
        (["--key", ""], "--key"),
        (["--key", " x"], "--key"),
        (["--key", "schlüssel"], "--key"),
    ],
)
def test_what_cannot_be_used_is_a_usage_error(arguments: list[str], said: str) -> None:
    code, err = refused(*arguments)
    assert code == 2
    assert said in err


def test_a_reader_that_goes_away_changes_nothing() -> None:
    with serving() as sandbox:
        assert sandbox.process.stdout is not None
        sandbox.process.stdout.close()
        sandbox.process.stdout = None
        assert sandbox.ask("POST", CREATE)[0] == 200
        assert sandbox.stop()[0] == 0


@needs_prlimit
def test_a_client_waits_while_no_descriptor_is_left() -> None:
    with serving() as sandbox:
        pid, limit = sandbox.process.pid, resource.RLIMIT_NOFILE
        soft, hard = resource.prlimit(pid, limit, (3, resource.getrlimit(limit)[1]))
        with socket.create_connection(("127.0.0.1", sandbox.port), timeout=0.5) as client:
            client.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
            with pytest.raises(TimeoutError):
                client.recv(1)
            resource.prlimit(pid, limit, (soft, hard))
            client.settimeout(30)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        code, _, err = sandbox.stop()
    assert code == 0
    assert "Traceback" not in err
