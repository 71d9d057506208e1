"""The client against Prism, a mock server for the API's published description that validates every request.

Prism responds as described, or with an error for an invalid request (`--errors`). The tests are skipped if it is not
installed (`npm install -g @stoplight/prism-cli`).
"""

from __future__ import annotations

import http.client
import re
import shutil
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
TIMEOUT = 60

pytestmark = pytest.mark.skipif(PRISM is None, reason="needs Prism (npm: @stoplight/prism-cli)")


# Requests that violate the description, and the mock server's status for each.
INVALID: tuple[tuple[str, str, dict[str, str], int], ...] = (
    ("POST", "/v0/workflows/w/jobs?project_id=p", {}, 401),
    ("POST", "/v0/workflows/w/jobs", {"Authorization": "k"}, 400),
    ("PUT", "/v0/workflows/w/jobs?project_id=p", {"Authorization": "k"}, 405),
    ("GET", "/v0/workflow/w/jobs", {"Authorization": "k"}, 404),
)


@dataclass
class Mock:
    """A running mock server, and its output, which is complete once it has exited."""

    port: int
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, target: str, headers: dict[str, str]) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)) as connection:
            connection.request(method, target, headers={**headers, "Connection": "close"})
            with connection.getresponse() as response:
                return response.status


@contextmanager
def run_prism(*options: str) -> Iterator[Mock]:
    command = [str(PRISM), "mock", "--errors", *options, "-h", "127.0.0.1", "-p", "0", str(DESCRIPTION)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            startup = []
            for line in process.stdout:
                startup.append(line)
                if listening := re.search(r"Prism is listening on http://127\.0\.0\.1:(\d+)", line):
                    break
            else:
                pytest.fail("".join(startup))
            mock = Mock(int(listening[1]))
            reader = Thread(target=mock.lines.extend, args=(process.stdout,))
            reader.start()
            yield mock
        finally:
            process.terminate()
            process.wait(TIMEOUT)
            reader.join(TIMEOUT)


@pytest.mark.parametrize("options", [[], ["--dynamic", "--seed", "1"]], ids=["examples", "random values"])
def test_requests_of_all_commands_conform_to_the_description(options: list[str], tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.manifest(("a", "w:1", "p-1"), ("b", "w-é", "'p?&=#%2F'"))
    with run_prism(*options) as mock:
        shell.use_api(mock.url)
        codes = [
            shell.call(*command).code
            for command in (
                ("plan", "nightly.yaml", "--cost", "--check"),  # 4: the mock returns other workflows than requested
                ("run", "nightly.yaml", "--hold"),  # 3: both jobs have the same id, or a response has none
                ("status",),
                ("resolve", "--settle", "0"),
            )
        ]
        statuses = [mock.send(method, target, headers) for method, target, headers, _ in INVALID]
    assert set(codes) <= {0, 1, 3, 4}
    written = check_results(tmp_path / "nightly.results.json")
    assert [error for error in written["errors"] if error["outcome"] == "not_created"] == []
    assert statuses == [status for *_, status in INVALID]

    output = "".join(mock.lines)
    requests = re.findall(r"\[HTTP SERVER\] (\w+ \S+) .*Request received", output)
    assert output.count("The request passed the validation rules") == len(requests) - len(INVALID), output
    for path in ("/v0/workflows/w%3A1", "/v0/workflows/w-%C3%A9"):
        assert requests.count(f"post {path}/jobs") == 1
        assert {f"get {path}", f"get {path}/estimate"} <= set(requests)
    assert any(re.fullmatch(r"get /v0/workflows/[^/]+/jobs(/[^/]+)?", request) for request in requests)
