"""`run` as a process, with signals, pipes and files, against a server whose every byte is scripted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.certs import Certificates
from support.schemas import check_results
from support.shell import Shell
from support.wire import (
    TIMEOUT,
    Close,
    Request,
    Reset,
    Script,
    Stall,
    WireServer,
    created,
    refusing_port,
    reply,
)

KEY = "key-that-is-secret"


@dataclass(frozen=True)
class CompletedRun:
    """A process that has ended, and its results file."""

    code: int
    out: str
    err: str
    results: Mapping[str, Any]


@dataclass
class Workspace:
    """A directory with a manifest, and the environment to run it in."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def manifest(self, count: int) -> None:
        jobs = "".join(f"  - {{name: j{number}, workflow_id: w-1, project_id: j{number}}}\n" for number in range(count))
        (self.directory / "m.yaml").write_text(f"version: 1\njobs:\n{jobs}", encoding="utf-8")

    def start(self, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
        return self._shell.start("run", "m.yaml", "--hold", *arguments)

    def run(self, *arguments: str, **streams: Any) -> CompletedRun:
        done = self._shell("run", "m.yaml", "--hold", *arguments, **streams)
        return self._check(done.code, done.out, done.err)

    def finish(self, process: subprocess.Popen[str]) -> CompletedRun:
        out, err = process.communicate(timeout=3 * TIMEOUT)
        return self._check(process.returncode, out or "", err or "")

    @property
    def _shell(self) -> Shell:
        return Shell(self.directory, {"PIXXEL_API_KEY": KEY, **self.environment})

    def _check(self, code: int, out: str, err: str) -> CompletedRun:
        path = self.directory / "m.results.json"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        assert KEY not in f"{out}{err}{text}"
        assert "Traceback" not in err
        return CompletedRun(code, out, err, check_results(path) if text else {})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.manifest(3)
    return workspace


@contextmanager
def serving(workspace: Workspace, scripts: Mapping[str, Script] | None = None, **options: Any) -> Iterator[WireServer]:
    """A server, set as the workspace's base URL, that plays each job's script, and creates the jobs without one."""
    by_project = scripts or {}

    def choose(request: Request) -> Script:
        return by_project.get(request.project) or created(f"job-of-{request.project}")

    with WireServer(choose=choose, **options) as server:
        workspace.environment["PIXXEL_BASE_URL"] = server.url
        yield server


def outcomes(result: CompletedRun) -> dict[str, str]:
    """Each job in the results file: `created`, the error's kind, or why it was skipped."""
    results = result.results
    return {
        **{job["name"]: "created" for job in results["created"]},
        **{error["name"]: error["kind"] for error in results["errors"]},
        **{job["name"]: job["reason"] for job in results["skipped"]},
    }


# Exit codes

LONG_PAUSE = reply(429, headers=[("Retry-After", "86400")])

EXIT_CODES: list[tuple[str, dict[str, Script], int, dict[str, str]]] = [
    ("created", {}, 0, {"j0": "created", "j1": "created", "j2": "created"}),
    ("rejected", {"j1": reply(422)}, 1, {"j0": "created", "j1": "rejected", "j2": "created"}),
    ("forbidden", {"j1": reply(403)}, 1, {"j0": "created", "j1": "forbidden", "j2": "created"}),
    ("in-doubt", {"j1": Reset(creates=True)}, 3, {"j0": "created", "j1": "closed", "j2": "created"}),
    ("doubt-and-failed", {"j0": reply(422), "j1": Close()}, 3, {"j0": "rejected", "j1": "closed", "j2": "created"}),
    ("unauthorized", {"j0": reply(401)}, 4, {"j0": "unauthorized", "j1": "stopped", "j2": "stopped"}),
    ("redirected", {"j1": reply(302)}, 4, {"j0": "created", "j1": "redirected", "j2": "stopped"}),
    ("throttled", {"j0": LONG_PAUSE}, 4, {"j0": "stopped", "j1": "stopped", "j2": "stopped"}),
    ("stopped-in-doubt", {"j0": reply(303)}, 3, {"j0": "unexpected", "j1": "stopped", "j2": "stopped"}),
]  # fmt: skip


@pytest.mark.parametrize(("scripts", "code", "expected"), [pytest.param(*row[1:], id=row[0]) for row in EXIT_CODES])
def test_exit_code_and_results_file(
    workspace: Workspace, scripts: dict[str, Script], code: int, expected: dict[str, str]
) -> None:
    if "stopped" in expected.values():  # one at a time, none sent ahead: it is certain which jobs remain
        workspace.environment |= {"PIXXEL_RUNNER_CONCURRENCY": "1", "PIXXEL_RUNNER_RATE": "20/s"}
    with serving(workspace, scripts) as server:
        result = workspace.run("--verbose")
    assert (result.code, outcomes(result)) == (code, expected)
    assert {request.project for request in server.requests} == {
        name for name, kind in expected.items() if kind != "stopped"
    } | set(scripts)
    assert {request.headers["authorization"] for request in server.requests} == {KEY}


def test_an_unknown_workflow_is_explained_by_a_check_of_the_plan(workspace: Workspace) -> None:
    with serving(workspace, {"j1": reply(404)}):
        result = workspace.run()
    assert result.code == 1
    assert re.search(r"Check the workflow and project ids: pixxel-runner plan \S+ --check", result.err)


def test_unreachable_api(workspace: Workspace) -> None:
    with refusing_port() as port:
        result = workspace.run("--base-url", f"http://127.0.0.1:{port}", "--attempts", "2")
    assert (result.code, set(outcomes(result).values())) == (1, {"unreachable"})
    assert {error["attempts"] for error in result.results["errors"]} == {2}
    assert all("refused" in error["message"].lower() for error in result.results["errors"])


def test_untrusted_certificate(workspace: Workspace, certificates: Certificates) -> None:
    with serving(workspace, tls=certificates.good) as server:
        result = workspace.run("--concurrency", "1")
        assert (result.code, outcomes(result)["j0"]) == (4, "untrusted")
        assert server.requests == []
        assert workspace.run("--resume", "--ca-bundle", certificates.bundle).code == 0
    assert len(server.created) == 3


def test_resumed_run_sends_only_the_remaining_jobs(workspace: Workspace) -> None:
    with refusing_port() as port:
        with serving(workspace, {"j1": reply(422)}, port=port):
            assert workspace.run().code == 1
            second = workspace.run()
            assert second.code == 4
            assert all(option in second.err for option in ("--resume", "--new"))
        with serving(workspace, port=port) as server:
            result = workspace.run("--resume")
    assert (result.code, [request.project for request in server.requests]) == (0, ["j1"])


# Signals

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_first_signal_lets_requests_in_flight_finish(workspace: Workspace, signum: int, code: int) -> None:
    gate = threading.Event()
    waiting = {f"j{number}": Stall(gate, then=created(f"job-{number}")) for number in range(3)}
    with serving(workspace, waiting) as server, workspace.start("--concurrency", "2") as process:
        server.wait_for_requests(2)
        process.send_signal(signum)
        assert process.stderr is not None
        read_until(process, "stopping")
        gate.set()
        result = workspace.finish(process)
    assert result.code == code
    assert outcomes(result) == {"j0": "created", "j1": "created", "j2": "interrupted"}
    assert result.results["run"]["state"] == "interrupted"


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"stderr ended without {text!r}")


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_second_signal_aborts_immediately_and_results_are_written(workspace: Workspace, signum: int, code: int) -> None:
    waiting = {f"j{number}": Stall(threading.Event()) for number in range(3)}
    with serving(workspace, waiting) as server, workspace.start("--concurrency", "2") as process:
        server.wait_for_requests(2)
        process.send_signal(signum)
        read_until(process, "stopping")
        process.send_signal(signal.SIGINT)
        result = workspace.finish(process)
    assert result.code == code
    assert outcomes(result) == {"j0": "interrupted", "j1": "interrupted", "j2": "interrupted"}
    assert [error["outcome"] for error in result.results["errors"]] == ["in_doubt"] * 2


# Broken pipes


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("scripts", "code"), [({}, 0), ({"j1": reply(422)}, 1), ({"j1": Close(creates=True)}, 3)], ids=["0", "1", "3"]
)
def test_broken_pipe_changes_nothing(workspace: Workspace, stream: str, scripts: dict[str, Script], code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with serving(workspace, scripts) as server, os.fdopen(writer, "w") as broken:
        result = workspace.run("--verbose", **{stream: broken})
    assert result.code == code
    assert len(server.requests) == 3
    assert len(outcomes(result)) == 3


@pytest.mark.parametrize("arguments", [(), ("--verbose",)], ids=["plain", "verbose"])
def test_stderr_closed_during_the_run_changes_nothing(workspace: Workspace, arguments: Sequence[str]) -> None:
    gate = threading.Event()
    waiting = {f"j{number}": Stall(gate, then=created(f"job-{number}")) for number in range(3)}
    with serving(workspace, waiting) as server, workspace.start("--concurrency", "1", *arguments) as process:
        server.wait_for_requests(1)
        assert process.stderr is not None
        process.stderr.close()
        process.stderr = None
        gate.set()
        result = workspace.finish(process)
    assert (result.code, outcomes(result)) == (0, {"j0": "created", "j1": "created", "j2": "created"})


# The base URL

INVALID_URLS: list[tuple[str, str]] = [
    ("", "the argument after --base-url is empty"),
    ("api.pixxel.space", "not an http or https URL"),
    ("ftp://api.pixxel.space", "not an http or https URL"),
    ("https://", "not an http or https URL"),
    ("https://api.pixxel.space/v0", "has a path"),
    ("https://api.pixxel.space/?a=b", "has a path"),
    ("https://api.pixxel.space#", "has a path"),
    ("https://user:word@api.pixxel.space", "contains credentials"),
    ("https://api.pixxel.space:port", "not a valid URL"),
    ("https://api.pixxel space", "not a valid URL"),
    ("http://api.pixxel.space", "plain http"),
    ("http://127.0.0.1.example", "plain http"),
]


@pytest.mark.parametrize(("url", "message"), INVALID_URLS)
def test_invalid_base_url(workspace: Workspace, url: str, message: str) -> None:
    result = workspace.run("--base-url", url)
    assert (result.code, result.out, result.results) == (2, "", {})
    assert message in result.err
    assert "word@" not in result.err


# The key


@pytest.mark.parametrize(
    ("key", "code", "message"), [("", 4, "no API key"), (" k", 4, "HTTP header"), ("k\nX: y", 4, "HTTP header")]
)
def test_invalid_key(workspace: Workspace, key: str, code: int, message: str) -> None:
    with serving(workspace) as server:
        workspace.environment["PIXXEL_API_KEY"] = key
        result = workspace.run()
    assert (result.code, result.results, server.log.connections) == (code, {}, 0)
    assert message in result.err


@pytest.mark.parametrize(
    ("key", "message"), [(KEY, "sent without a 'Bearer ' prefix"), (f"Bearer {KEY}", "Try the key alone")]
)
def test_unrecognized_key(workspace: Workspace, key: str, message: str) -> None:
    workspace.environment["PIXXEL_API_KEY"] = key
    with serving(workspace, {f"j{number}": reply(401) for number in range(3)}):
        result = workspace.run()
    assert result.code == 4
    assert message in result.out + result.err


@pytest.mark.parametrize(
    ("line_end", "mode", "warns"),
    [(b"", 0o600, False), (b"\n", 0o400, False), (b"\r\n", 0o644, True), (b"\n", 0o640, True)],
)
def test_key_file(workspace: Workspace, line_end: bytes, mode: int, warns: bool) -> None:
    file = workspace.directory / "key"
    file.write_bytes(b"key-of-the-file" + line_end)
    file.chmod(mode)
    with serving(workspace) as server:
        result = workspace.run("--api-key-file", "key")
    assert result.code == 0
    assert {request.headers["authorization"] for request in server.requests} == {"key-of-the-file"}
    assert ("other users can read the key file" in result.err) is warns
    assert "key-of-the-file" not in result.out + result.err + json.dumps(result.results)


# Proxies


def test_proxy_gets_a_connect_request_without_the_key(workspace: Workspace) -> None:
    with WireServer(choose=lambda _: reply(403)) as proxy:
        workspace.environment |= {"HTTPS_PROXY": proxy.url.replace("//", "//user:pass-word@")}
        result = workspace.run("--base-url", "https://api.example", "--attempts", "1")
    assert (result.code, set(outcomes(result).values())) == (1, {"unreachable"})
    assert {(request.method, request.target) for request in proxy.requests} == {("CONNECT", "api.example:443")}
    assert all("authorization" not in request.headers for request in proxy.requests)
    assert all(request.headers["proxy-authorization"].startswith("Basic ") for request in proxy.requests)
    assert "pass-word" not in result.out + result.err + json.dumps(result.results)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_loopback_is_never_proxied(workspace: Workspace, name: str) -> None:
    with WireServer() as proxy, serving(workspace) as server:
        workspace.environment |= {name: proxy.url}
        assert workspace.run().code == 0
    assert (proxy.log.connections, len(server.created)) == (0, 3)


def test_plain_http_with_allow_http(workspace: Workspace) -> None:
    with WireServer() as proxy:
        workspace.environment |= {"http_proxy": proxy.url}
        result = workspace.run("--base-url", "http://api.example", "--allow-http")
    assert result.code == 0
    assert {request.target.partition("/v0")[0] for request in proxy.requests} == {"http://api.example"}


# Text from the server

HOSTILE = "\x1b]0;title\x07\x1b[31m::error file=x::\r\n::set-output name=a::b\x9b2J | <script> \u202e"


@pytest.mark.parametrize("arguments", [(), ("--verbose",)], ids=["plain", "verbose"])
def test_text_from_the_server_is_escaped(workspace: Workspace, arguments: Sequence[str]) -> None:
    body = json.dumps({"error": {"code": HOSTILE, "message": HOSTILE}}).encode()
    with serving(workspace, {"j1": reply(422, body)}):
        result = workspace.run(*arguments)
    output = result.out + result.err
    assert not any(character in output for character in ("\x1b", "\x07", "\x9b", "\r", "\u202e"))
    assert not any(line.lstrip().startswith("::") for line in output.splitlines())
    [error] = result.results["errors"]
    assert error["api_error"]["message"] == HOSTILE
