"""The server that everything is sent to, on loopback: nginx where the system has one, else the one that we bring."""

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

_TIMEOUT = 10.0  # seconds for a server to come up, and to end
_ASYNCIO_SERVER = Path(__file__).with_name("asyncserver.py")
_CHUNK_SIZE = 4_000  # characters: nginx takes words of up to 4,096 in its configuration

_CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
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
    """What a server saw: requests; and where it tells, the seconds from the first one's coming to the last answer.

    `held` is how many seconds it kept a request, on average.
    """

    posts: int
    span: float = 0.0
    held: float = 0.0


class Server(Protocol):
    """A server that runs."""

    @property
    def url(self) -> str:
        """Its origin."""

    def reset_counts(self) -> None:
        """Begin to count anew."""

    def counts(self) -> ServerCounts:
        """What it saw since then."""


def nginx() -> str | None:
    """The path of an nginx that can count its requests; None when the system has none."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        return None
    told = subprocess.run([path, "-V"], capture_output=True, text=True, check=False).stderr
    return path if "http_stub_status_module" in told else None


@contextmanager
def run_nginx(path: str, answer: ResponseTemplate, folder: Path) -> Iterator[Server]:
    """Run nginx meanwhile, with all that it writes in a folder of its own."""
    port = _free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(_nginx_configuration(answer, folder, port), encoding="ascii")
    command = [path, "-p", str(folder), "-c", str(configuration)]
    with (folder / "talk").open("wb") as talk, subprocess.Popen(command, stdout=talk, stderr=talk) as process:
        try:
            server = _Nginx(port)
            _wait_for(server, process, folder / "talk")
            yield server
        finally:
            _end(process)


@contextmanager
def run_asyncio(answer: ResponseTemplate, folder: Path, delay: float = 0.0) -> Iterator[Server]:
    """Run the server that we bring meanwhile. It answers after so many seconds."""
    before, after = folder / "before", folder / "after"
    before.write_text(answer.before, encoding="ascii")
    after.write_text(answer.after, encoding="ascii")
    command = [sys.executable, "-P", str(_ASYNCIO_SERVER), str(before), str(after), "--delay", str(delay)]
    with (
        (folder / "talk").open("wb") as talk,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=talk, text=True) as process,
    ):
        try:
            port = process.stdout.readline() if process.stdout else ""
            if not port:
                raise BenchError(f"the asyncio server did not start: {(folder / 'talk').read_text()}")
            server = _Asyncio(int(port))
            _wait_for(server, process, folder / "talk")
            yield server
        finally:
            _end(process)


class _Nginx:
    def __init__(self, port: int) -> None:
        self._port = port
        self._seen = 0
        self.url = f"http://127.0.0.1:{port}"

    def reset_counts(self) -> None:
        self._seen = self._requests()

    def counts(self) -> ServerCounts:
        return ServerCounts(self._requests() - self._seen - 1)  # this look is one of them

    def _requests(self) -> int:
        told = _get(self._port, "/bench/status").decode()
        found = re.search(r"^ *[0-9]+ +[0-9]+ +([0-9]+) *$", told, re.MULTILINE)  # accepts, handled, requests
        if found is None:
            raise BenchError(f"nginx's status can't be read: {told}")
        return int(found[1])


class _Asyncio:
    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def reset_counts(self) -> None:
        _get(self._port, "/bench/restart")

    def counts(self) -> ServerCounts:
        return ServerCounts(**json.loads(_get(self._port, "/bench/status")))


def _nginx_configuration(answer: ResponseTemplate, folder: Path, port: int) -> str:
    whole, rest = divmod(len(answer.padding), _CHUNK_SIZE)
    after = answer.after.replace(answer.padding, "$piece" * whole + "$rest") if answer.padding else answer.after
    return _CONFIGURATION.format(
        folder=folder,
        port=port,
        piece=answer.padding[:_CHUNK_SIZE],
        rest=answer.padding[:rest],
        before=answer.before,
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


def _wait_for(server: Server, process: subprocess.Popen[bytes] | subprocess.Popen[str], talk: Path) -> None:
    until = time.monotonic() + _TIMEOUT
    while True:
        try:
            server.reset_counts()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise BenchError(f"the server did not start: {talk.read_text()}") from None
            time.sleep(0.02)
        else:
            return


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
