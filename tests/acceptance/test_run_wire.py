"""`run` as a person has it: a process, signals, pipes and files, against a server that scripts each byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.certs import Certificates
from support.schemas import check_results
from support.wire import (
    PATIENCE,
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
class Done:
    """A process that has ended, and the record that it left."""

    code: int
    out: str
    err: str
    record: Mapping[str, Any]


@dataclass
class Desk:
    """A folder with a manifest in it, and the environment of a person who sits there."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def manifest(self, count: int) -> None:
        jobs = "".join(f"  - {{name: j{number}, workflow_id: w-1, project_id: j{number}}}\n" for number in range(count))
        (self.folder / "m.yaml").write_text(f"version: 1\njobs:\n{jobs}", encoding="utf-8")

    def start(self, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG") if name in os.environ}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen(
            [sys.executable, "-m", "runner", "run", "m.yaml", "--hold", *arguments],
            cwd=self.folder,
            env={**kept, "PIXXEL_API_KEY": KEY, **self.environment},
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            **pipes,
        )

    def run(self, *arguments: str, **streams: Any) -> Done:
        with self.start(*arguments, **streams) as process:
            return self.finish(process)

    def finish(self, process: subprocess.Popen[str]) -> Done:
        out, err = process.communicate(timeout=3 * PATIENCE)
        path = self.folder / "m.results.json"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        assert KEY not in f"{out}{err}{text}"
        assert "Traceback" not in (err or "")
        return Done(process.returncode, out, err, check_results(path) if text else {})


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    at = Desk(tmp_path)
    at.manifest(3)
    return at


@contextmanager
def serving(desk: Desk, scripts: Mapping[str, Script] | None = None, **options: Any) -> Iterator[WireServer]:
    """A server that plays the script of each job by its name, and makes a job for the others; the desk's base URL."""
    given = scripts or {}
    choose: Callable[[Request], Script] = lambda one: given.get(one.project) or created(f"job-of-{one.project}")  # noqa: E731
    with WireServer(choose=choose, **options) as server:
        desk.environment["PIXXEL_BASE_URL"] = server.url
        yield server


def kinds(done: Done) -> dict[str, str]:
    """What the record says of each job: `created`, the error's kind, or why it was skipped."""
    record = done.record
    return {
        **{job["name"]: "created" for job in record["created"]},
        **{error["name"]: error["kind"] for error in record["errors"]},
        **{job["name"]: job["reason"] for job in record["skipped"]},
    }


# Exit codes.

LONG_PAUSE = reply(429, headers=[("Retry-After", "86400")])

CODES: list[tuple[str, dict[str, Script], int, dict[str, str]]] = [
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


@pytest.mark.parametrize(("scripts", "code", "expected"), [pytest.param(*row[1:], id=row[0]) for row in CODES])
def test_exit_codes_and_the_record(desk: Desk, scripts: dict[str, Script], code: int, expected: dict[str, str]) -> None:
    if "stopped" in expected.values():  # one at a time, and none ahead, so that it is known which are still to be sent
        desk.environment |= {"PIXXEL_RUNNER_CONCURRENCY": "1", "PIXXEL_RUNNER_RATE": "20/s"}
    with serving(desk, scripts) as server:
        done = desk.run("--verbose")
    assert (done.code, kinds(done)) == (code, expected)
    assert {request.project for request in server.requests} == {
        name for name, kind in expected.items() if kind != "stopped"
    } | set(scripts)
    assert {request.headers["authorization"] for request in server.requests} == {KEY}


def test_an_api_that_is_not_there(desk: Desk) -> None:
    with refusing_port() as port:
        done = desk.run("--base-url", f"http://127.0.0.1:{port}", "--attempts", "2")
    assert (done.code, set(kinds(done).values())) == (1, {"unreachable"})
    assert {error["attempts"] for error in done.record["errors"]} == {2}
    assert all("refused" in error["message"].lower() for error in done.record["errors"])


def test_a_certificate_that_is_not_trusted(desk: Desk, certificates: Certificates) -> None:
    with serving(desk, tls=certificates.good) as server:
        done = desk.run("--concurrency", "1")
        assert (done.code, kinds(done)["j0"]) == (4, "untrusted")
        assert server.requests == []
        assert desk.run("--resume", "--ca-bundle", certificates.bundle).code == 0
    assert len(server.created) == 3


def test_a_second_run_of_what_was_left_sends_only_that(desk: Desk) -> None:
    with refusing_port() as port:
        with serving(desk, {"j1": reply(422)}, port=port):
            assert desk.run().code == 1
            refused = desk.run()
            assert refused.code == 4
            assert all(word in refused.err for word in ("--resume", "--new"))
        with serving(desk, port=port) as server:
            done = desk.run("--resume")
    assert (done.code, [request.project for request in server.requests]) == (0, ["j1"])


# Signals.

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_a_signal_lets_what_is_in_flight_finish(desk: Desk, signum: int, code: int) -> None:
    gate = threading.Event()
    waiting = {f"j{number}": Stall(gate, then=created(f"job-{number}")) for number in range(3)}
    with serving(desk, waiting) as server, desk.start("--concurrency", "2") as process:
        server.wait_for_requests(2)
        process.send_signal(signum)
        assert process.stderr is not None
        read_until(process, "stopping")
        gate.set()
        done = desk.finish(process)
    assert done.code == code
    assert kinds(done) == {"j0": "created", "j1": "created", "j2": "interrupted"}
    assert done.record["run"]["state"] == "interrupted"


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    pytest.fail(f"{word} was never said")


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_a_second_signal_ends_it_at_once_and_the_record_is_written(desk: Desk, signum: int, code: int) -> None:
    waiting = {f"j{number}": Stall(threading.Event()) for number in range(3)}
    with serving(desk, waiting) as server, desk.start("--concurrency", "2") as process:
        server.wait_for_requests(2)
        process.send_signal(signum)
        read_until(process, "stopping")
        process.send_signal(signal.SIGINT)
        done = desk.finish(process)
    assert done.code == code
    assert kinds(done) == {"j0": "interrupted", "j1": "interrupted", "j2": "interrupted"}
    assert [error["outcome"] for error in done.record["errors"]] == ["in_doubt"] * 2


# Pipes that nobody reads.


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("scripts", "code"), [({}, 0), ({"j1": reply(422)}, 1), ({"j1": Close(creates=True)}, 3)], ids=["0", "1", "3"]
)
def test_a_stream_that_nobody_reads_changes_nothing(
    desk: Desk, stream: str, scripts: dict[str, Script], code: int
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with serving(desk, scripts) as server, os.fdopen(writer, "w") as broken:
        done = desk.run("--verbose", **{stream: broken})
    assert done.code == code
    assert len(server.requests) == 3
    assert len(kinds(done)) == 3


@pytest.mark.parametrize("arguments", [(), ("--verbose",)], ids=["plain", "verbose"])
def test_a_reader_of_stderr_that_leaves_in_mid_run_changes_nothing(desk: Desk, arguments: Sequence[str]) -> None:
    gate = threading.Event()
    waiting = {f"j{number}": Stall(gate, then=created(f"job-{number}")) for number in range(3)}
    with serving(desk, waiting) as server, desk.start("--concurrency", "1", *arguments) as process:
        server.wait_for_requests(1)
        assert process.stderr is not None
        process.stderr.close()
        process.stderr = None
        gate.set()
        done = desk.finish(process)
    assert (done.code, kinds(done)) == (0, {"j0": "created", "j1": "created", "j2": "created"})


# The base URL.

MISTAKES: list[tuple[str, str]] = [
    ("", "the value of --base-url is empty"),
    ("api.pixxel.space", "not an http or https address"),
    ("ftp://api.pixxel.space", "not an http or https address"),
    ("https://", "not an http or https address"),
    ("https://api.pixxel.space/v0", "has a path"),
    ("https://api.pixxel.space/?a=b", "has a path"),
    ("https://api.pixxel.space#", "has a path"),
    ("https://user:word@api.pixxel.space", "holds credentials"),
    ("https://api.pixxel.space:port", "cannot be read"),
    ("https://api.pixxel space", "cannot be read"),
    ("http://api.pixxel.space", "plain http"),
    ("http://127.0.0.1.example", "plain http"),
]


@pytest.mark.parametrize(("url", "words"), MISTAKES)
def test_a_base_url_that_is_a_mistake(desk: Desk, url: str, words: str) -> None:
    done = desk.run("--base-url", url)
    assert (done.code, done.out, done.record) == (2, "", {})
    assert words in done.err
    assert "word@" not in done.err


# The key.


@pytest.mark.parametrize(
    ("key", "code", "words"), [("", 4, "no API key"), (" k", 4, "cannot carry"), ("k\nX: y", 4, "cannot carry")]
)
def test_a_key_that_is_none(desk: Desk, key: str, code: int, words: str) -> None:
    with serving(desk) as server:
        desk.environment["PIXXEL_API_KEY"] = key
        done = desk.run()
    assert (done.code, done.record, server.log.connections) == (code, {}, 0)
    assert words in done.err


@pytest.mark.parametrize(("key", "words"), [(KEY, "as it should"), (f"Bearer {KEY}", "must be the bare key")])
def test_a_key_that_is_not_recognised(desk: Desk, key: str, words: str) -> None:
    desk.environment["PIXXEL_API_KEY"] = key
    with serving(desk, {f"j{number}": reply(401) for number in range(3)}):
        done = desk.run()
    assert done.code == 4
    assert words in done.out + done.err


@pytest.mark.parametrize(
    ("end", "mode", "warns"), [(b"", 0o600, False), (b"\n", 0o400, False), (b"\r\n", 0o644, True), (b"\n", 0o640, True)]
)
def test_a_key_in_a_file(desk: Desk, end: bytes, mode: int, warns: bool) -> None:
    file = desk.folder / "key"
    file.write_bytes(b"key-of-the-file" + end)
    file.chmod(mode)
    with serving(desk) as server:
        done = desk.run("--api-key-file", "key")
    assert done.code == 0
    assert {request.headers["authorization"] for request in server.requests} == {"key-of-the-file"}
    assert ("others can read the key file" in done.err) is warns
    assert "key-of-the-file" not in done.out + done.err + json.dumps(done.record)


# Proxies.


def test_a_proxy_is_asked_for_a_tunnel_and_gets_no_key(desk: Desk) -> None:
    with WireServer(choose=lambda _: reply(403)) as proxy:
        desk.environment |= {"HTTPS_PROXY": proxy.url.replace("//", "//user:pass-word@")}
        done = desk.run("--base-url", "https://api.example", "--attempts", "1")
    assert (done.code, set(kinds(done).values())) == (1, {"unreachable"})
    assert {(request.method, request.target) for request in proxy.requests} == {("CONNECT", "api.example:443")}
    assert all("authorization" not in request.headers for request in proxy.requests)
    assert all(request.headers["proxy-authorization"].startswith("Basic ") for request in proxy.requests)
    assert "pass-word" not in done.out + done.err + json.dumps(done.record)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_loopback_is_never_proxied(desk: Desk, name: str) -> None:
    with WireServer() as proxy, serving(desk) as server:
        desk.environment |= {name: proxy.url}
        assert desk.run().code == 0
    assert (proxy.log.connections, len(server.created)) == (0, 3)


def test_plain_http_where_it_is_allowed(desk: Desk) -> None:
    with WireServer() as proxy:
        desk.environment |= {"http_proxy": proxy.url}
        done = desk.run("--base-url", "http://api.example", "--allow-http")
    assert done.code == 0
    assert {request.target.partition("/v0")[0] for request in proxy.requests} == {"http://api.example"}


# Text from the server.

HOSTILE = "\x1b]0;title\x07\x1b[31m::error file=x::\r\n::set-output name=a::b\x9b2J | <script> \u202e"


@pytest.mark.parametrize("arguments", [(), ("--verbose",)], ids=["plain", "verbose"])
def test_text_from_the_server_is_data(desk: Desk, arguments: Sequence[str]) -> None:
    body = json.dumps({"error": {"code": HOSTILE, "message": HOSTILE}}).encode()
    with serving(desk, {"j1": reply(422, body)}):
        done = desk.run(*arguments)
    shown = done.out + done.err
    assert not any(mark in shown for mark in ("\x1b", "\x07", "\x9b", "\r", "\u202e"))
    assert not any(line.lstrip().startswith("::") for line in shown.splitlines())
    [error] = done.record["errors"]
    assert error["api_error"]["message"] == HOSTILE
