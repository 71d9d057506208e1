"""The client against a mock server that Prism makes of the API's published description, and that judges each request.

Prism answers a request with what the description says, and an error with what is wrong with it (`--errors`). Where it
is not there (`npm install -g @stoplight/prism-cli`) the tests are skipped.
"""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest
from support.schemas import check_results
from support.shell import Shell

DESCRIPTION = Path(__file__).parents[1] / "cases" / "api" / "openapi.json"
PRISM = shutil.which("prism")
PATIENCE = 60

pytestmark = pytest.mark.skipif(PRISM is None, reason="needs Prism (npm: @stoplight/prism-cli)")


# What the description does not allow, and what the mock server says to it.
WRONG: tuple[tuple[str, str, dict[str, str], int], ...] = (
    ("POST", "/v0/workflows/w/jobs?project_id=p", {}, 401),
    ("POST", "/v0/workflows/w/jobs", {"Authorization": "k"}, 400),
    ("PUT", "/v0/workflows/w/jobs?project_id=p", {"Authorization": "k"}, 405),
    ("GET", "/v0/workflow/w/jobs", {"Authorization": "k"}, 404),
)


@dataclass
class Mock:
    """A mock server, and what it said: complete once it has ended."""

    port: int
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, target: str, headers: dict[str, str]) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, target, headers={**headers, "Connection": "close"})
            with connection.getresponse() as answer:
                return answer.status


@contextmanager
def serving(*options: str) -> Iterator[Mock]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        mock = Mock(free.getsockname()[1])
    command = [str(PRISM), "mock", "--errors", *options, "-h", "127.0.0.1", "-p", str(mock.port), str(DESCRIPTION)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            begun = []
            for line in process.stdout:
                begun.append(line)
                if "Prism is listening" in line:
                    break
            else:
                pytest.fail("".join(begun))
            reader = Thread(target=mock.lines.extend, args=(process.stdout,))
            reader.start()
            yield mock
        finally:
            process.terminate()
            process.wait(PATIENCE)
            reader.join(PATIENCE)


@pytest.mark.parametrize("options", [[], ["--dynamic"]], ids=["examples", "random values"])
def test_run_plan_status_and_resolve_ask_as_the_description_wants(options: list[str], tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.manifest(("a", "w:1", "p-1"), ("b", "w-é", "'p?&=#%2F'"))
    with serving(*options) as mock:
        shell.at(mock.url)
        codes = [
            shell.call(*command).code
            for command in (
                ("plan", "nightly.yaml", "--cost", "--check"),  # 4: the mock knows other workflows than were asked for
                ("run", "nightly.yaml", "--hold"),  # 3: both jobs have one id, or an answer has none
                ("status",),
                ("resolve", "--settle", "0"),
            )
        ]
        refusals = [mock.ask(method, target, headers) for method, target, headers, _ in WRONG]
    assert set(codes) <= {0, 1, 3, 4}
    written = check_results(tmp_path / "nightly.results.json")
    assert [error for error in written["errors"] if error["outcome"] == "not_created"] == []
    assert refusals == [status for *_, status in WRONG]

    said = "".join(mock.lines)
    asked = re.findall(r"\[HTTP SERVER\] (\w+ \S+) .*Request received", said)
    assert said.count("The request passed the validation rules") == len(asked) - len(WRONG), said
    for path in ("/v0/workflows/w%3A1", "/v0/workflows/w-%C3%A9"):
        assert asked.count(f"post {path}/jobs") == 1
        assert {f"get {path}", f"get {path}/estimate"} <= set(asked)
    assert any(re.fullmatch(r"get /v0/workflows/[^/]+/jobs(/[^/]+)?", one) for one in asked)
