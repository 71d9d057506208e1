"""The server that receives the jobs, on loopback: nginx if installed, else the bundled asyncio server."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.errors import BenchError
from bench.responses import ResponseTemplate

_TIMEOUT = 10.0  # seconds for a server to start or stop
_ASYNCIO_SERVER = Path(__file__).with_name("asyncserver.py")
_CHUNK_SIZE = 4_000  # characters: nginx limits strings in its configuration to 4,096

_CONFIGURATION = """\
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        default_type application/json;
        location = /bench/status {{ stub_status; }}
        location /v0/workflows/ {{
            set $piece "{piece}";
            set $rest "{rest}";
            return 200 '{before}$request_id{after}';
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """The counts of a server: requests; if known, the seconds from the first request to the last response.

    `held` is the average time in seconds that it held a request.
    """

    posts: int
    span: float = 0.0
    held: float = 0.0


class Server(Protocol):
    """A running server."""

    @property
    def url(self) -> str:
        """Its origin."""

    def reset_counts(self) -> None:
        """Reset the counts."""

    def counts(self) -> ServerCounts:
        """The counts since the last reset."""


def nginx() -> str | None:
    """The path of an nginx with request counts; None if there is none."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        return None
    output = subprocess.run([path, "-V"], capture_output=True, text=True, check=False).stderr
    return path if "http_stub_status_module" in output else None


@contextmanager
def run_nginx(path: str, template: ResponseTemplate, directory: Path) -> Iterator[Server]:
    """Run nginx, with all its files in `directory`."""
    port = _free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(_nginx_configuration(template, directory, port), encoding="ascii")
    command = [path, "-p", str(directory), "-c", str(configuration)]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = _Nginx(port)
            _wait_for(server, process, directory / "log")
            yield server
        finally:
            _stop(process)


@contextmanager
def run_asyncio(template: ResponseTemplate, directory: Path, delay: float = 0.0) -> Iterator[Server]:
    """Run the bundled server, which responds after `delay` seconds."""
    before, after = directory / "before", directory / "after"
    before.write_text(template.before, encoding="ascii")
    after.write_text(template.after, encoding="ascii")
    command = [sys.executable, "-P", str(_ASYNCIO_SERVER), str(before), str(after), "--delay", str(delay)]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            port = process.stdout.readline() if process.stdout else ""
            if not port:
                raise BenchError(f"the asyncio server did not start: {(directory / 'log').read_text()}")
            server = _Asyncio(int(port))
            _wait_for(server, process, directory / "log")
            yield server
        finally:
            _stop(process)


class _Nginx:
    def __init__(self, port: int) -> None:
        self._port = port
        self._baseline = 0
        self.url = f"http://127.0.0.1:{port}"

    def reset_counts(self) -> None:
        self._baseline = self._requests()

    def counts(self) -> ServerCounts:
        return ServerCounts(self._requests() - self._baseline - 1)  # without this status request

    def _requests(self) -> int:
        output = _get(self._port, "/bench/status").decode()
        match = re.search(r"^ *[0-9]+ +[0-9]+ +([0-9]+) *$", output, re.MULTILINE)  # accepts, handled, requests
        if match is None:
            raise BenchError(f"cannot parse the status of nginx: {output}")
        return int(match[1])


class _Asyncio:
    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def reset_counts(self) -> None:
        _get(self._port, "/bench/restart")

    def counts(self) -> ServerCounts:
        return ServerCounts(**json.loads(_get(self._port, "/bench/status")))


def _nginx_configuration(template: ResponseTemplate, directory: Path, port: int) -> str:
    whole, rest = divmod(len(template.padding), _CHUNK_SIZE)
    after = template.after.replace(template.padding, "$piece" * whole + "$rest") if template.padding else template.after
    return _CONFIGURATION.format(
        directory=directory,
        port=port,
        piece=template.padding[:_CHUNK_SIZE],
        rest=template.padding[:rest],
        before=template.before,
        after=after,
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().read()
    finally:
        connection.close()


def _wait_for(server: Server, process: subprocess.Popen[bytes] | subprocess.Popen[str], log: Path) -> None:
    until = time.monotonic() + _TIMEOUT
    while True:
        try:
            server.reset_counts()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise BenchError(f"the server did not start: {log.read_text()}") from None
            time.sleep(0.02)
        else:
            return


def _stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
