"""The `sandbox` command."""

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
    """A sandbox in its own process, and the lines that it has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.exports = [process.stdout.readline().rstrip("\n") for _ in range(2)]
        match = re.fullmatch(r"export PIXXEL_BASE_URL=http://127\.0\.0\.1:(\d+)", self.exports[0])
        assert match, self.exports
        self.port = int(match[1])

    def send(self, method: str, target: str, key: str = "sandbox-key") -> tuple[int, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, target, headers={"Authorization": key})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Stop it. Returns the exit code, the rest of stdout, and stderr."""
        self.process.send_signal(number)
        # communicate() would lose what readline() has buffered.
        out, err = (stream.read() if stream else "" for stream in (self.process.stdout, self.process.stderr))
        return self.process.wait(60), out, err


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "runner", "sandbox", *map(str, arguments)]


@contextmanager
def run_sandbox(*arguments: str | Path, stdin: str | None = None) -> Iterator[Running]:
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


def run_rejected(*arguments: str | Path) -> tuple[int, str]:
    """The exit code and stderr of a sandbox that does not start."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(number: signal.Signals) -> None:
    with run_sandbox() as sandbox:
        assert sandbox.exports[1] == "export PIXXEL_API_KEY=sandbox-key"
        assert sandbox.send("POST", CREATE)[0] == 200
        assert sandbox.send("POST", CREATE)[0] == 200
        code, out, err = sandbox.stop(number)
    assert code == 0
    assert "2 jobs were created" in err
    assert "Traceback" not in err
    lines = out.splitlines()
    assert f"# project {AGRI}  Agri Watch" in lines
    assert f"#   workflow {NDVI}  NDVI: 12 tokens, 3 s" in lines
    assert f"#   workflow {CLOUDY}  Cloudy scene: 19 tokens, 8 s, fails halfway" in lines
    assert all(line.startswith("#") or not line for line in lines)


def test_the_key_is_quoted_for_the_shell() -> None:
    with run_sandbox("--key", "my key") as sandbox:
        assert sandbox.exports[1] == "export PIXXEL_API_KEY='my key'"
        assert sandbox.send("GET", "/v0/projects", key="my key")[0] == 200
        assert sandbox.send("GET", "/v0/projects")[0] == 401


def test_jobs_are_kept_across_restarts(tmp_path: Path) -> None:
    with run_sandbox("--state", tmp_path / "state") as sandbox:
        _, job = sandbox.send("POST", CREATE)
        sandbox.process.kill()  # without a clean shutdown
    with run_sandbox("--state", tmp_path / "state") as sandbox:
        status, body = sandbox.send("GET", JOBS)
        assert (status, [item["id"] for item in body["jobs"]]) == (200, [job["id"]])
        assert "0 jobs were created" in sandbox.stop()[2]


def test_faults_can_be_repeated_with_the_seed() -> None:
    def statuses(*arguments: str) -> tuple[list[int], str]:
        with run_sandbox("--fault", "rate-limit=50%", *arguments) as sandbox:
            replies = [sandbox.send("POST", CREATE)[0] for _ in range(20)]
            return replies, sandbox.stop()[2]

    first, stderr = statuses()
    seed = re.search(r"--seed (\d+)", stderr)
    assert seed
    assert statuses("--seed", seed[1])[0] == first
    assert set(first) <= {200, 429}


def test_failing_jobs_fail_after_the_sandbox_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    with run_sandbox("--state", path, "--fault", "failure=100%", "--fault", "slow:0=100%") as sandbox:
        assert sandbox.send("POST", CREATE)[0] == 200
        sandbox.process.kill()
    line = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**line, "created_at": "2026-05-04T03:02:01+00:00"}) + "\n", encoding="utf-8")
    with run_sandbox("--state", path) as sandbox:
        [job] = sandbox.send("GET", JOBS)[1]["jobs"]
        assert (job["status"], job["progress"], job["time_taken"]) == ("failed", "50", "1.65s")


def test_verbose_logs_requests_without_the_key() -> None:
    with run_sandbox("--verbose", "--key", "do-not-show") as sandbox:
        sandbox.send("POST", CREATE, key="do-not-show")
        sandbox.send("GET", "/v0/projects", key="do-not-show-either")
        _, _, err = sandbox.stop()
    assert err.splitlines()[1:] == [f"POST {JOBS} 200", "GET /v0/projects 401", "1 job was created"]


def test_the_pairs_of_a_manifest_can_run(tmp_path: Path) -> None:
    manifest = tmp_path / "mine.yaml"
    manifest.write_text(
        "version: 1\njobs:\n  - {workflow_id: my-workflow, project_id: my-project}\n"
        f"  - {{workflow_id: {NDVI}, project_id: my-project, enabled: false}}\n",
        encoding="utf-8",
    )
    with run_sandbox("--manifest", manifest) as sandbox:
        assert sandbox.send("POST", "/v0/workflows/my-workflow/jobs?project_id=my-project")[0] == 200
        assert sandbox.send("POST", f"{JOBS}?project_id=my-project")[0] == 200
        assert sandbox.send("POST", CREATE)[0] == 200
        assert "#   workflow my-workflow" in sandbox.stop()[1]


def test_a_manifest_can_be_read_from_standard_input() -> None:
    text = "version: 1\nname: piped\njobs:\n  - {workflow_id: my-workflow, project_id: my-project}\n"
    with run_sandbox("--manifest", "-", stdin=text) as sandbox:
        assert sandbox.send("POST", "/v0/workflows/my-workflow/jobs?project_id=my-project")[0] == 200


def test_an_invalid_manifest_is_rejected(tmp_path: Path) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text("version: 1\njobs: 7\n", encoding="utf-8")
    assert run_rejected("--manifest", manifest)[0] == 2


def test_a_long_catalog_is_truncated(tmp_path: Path) -> None:
    manifest = tmp_path / "long.yaml"
    jobs = "".join(f"  - {{workflow_id: w{number}, project_id: p}}\n" for number in range(100))
    manifest.write_text(f"version: 1\njobs:\n{jobs}", encoding="utf-8")
    with run_sandbox("--manifest", manifest) as sandbox:
        lines = sandbox.stop()[1].splitlines()
    assert lines[-1] == "# and 90 more"
    assert len(lines) < 30


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, err = run_rejected("--port", str(port))
    assert code == 4
    assert f"127.0.0.1:{port}" in err


def test_invalid_state(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text("nonsense\n", encoding="utf-8")
    code, err = run_rejected("--state", tmp_path)
    assert code == 4
    assert f"{path}:1:" in err
    assert f"Move {path} away" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
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
def test_invalid_options(arguments: list[str], message: str) -> None:
    code, err = run_rejected(*arguments)
    assert code == 2
    assert message in err


def test_closing_stdout_does_not_stop_it() -> None:
    with run_sandbox() as sandbox:
        assert sandbox.process.stdout is not None
        sandbox.process.stdout.close()
        sandbox.process.stdout = None
        assert sandbox.send("POST", CREATE)[0] == 200
        assert sandbox.stop()[0] == 0


@needs_prlimit
def test_clients_wait_while_there_is_no_file_descriptor_left() -> None:
    with run_sandbox() as sandbox:
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
