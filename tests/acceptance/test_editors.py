"""docs/editors.md, and the manifest's schema in yaml-language-server, used as an editor uses it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pages import CHECKOUT, Page

PAGE = Page("docs/editors.md")
EXAMPLE = (CHECKOUT / "jobs.example.yaml").read_text(encoding="utf-8")
BAD = """\
version: 2
once_per: daily
submit: {rate: fast, concurrency: 100}
jobs:
  - workflow: x
    project_id: 5
"""

Message = dict[str, Any]


class LanguageServer:
    """A yaml-language-server process. `schemas` maps schema URIs to the globs of their files."""

    def __init__(self, program: str, schemas: dict[str, list[str]]) -> None:
        self._schemas = schemas
        self._process = subprocess.Popen([program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._request_id = 0
        formats = {"completion": {"completionItem": {"documentationFormat": ["plaintext"]}}}
        capabilities = {"textDocument": formats, "workspace": {"configuration": True}}
        self.request("initialize", {"processId": None, "rootUri": None, "capabilities": capabilities})
        self._send({"method": "initialized", "params": {}})

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def request(self, method: str, params: Message) -> Any:
        """Send a request and return the result."""
        self._request_id += 1
        request_id = self._request_id
        self._send({"id": request_id, "method": method, "params": params})
        return self._receive(lambda message: message.get("id") == request_id and "method" not in message)["result"]

    def open(self, path: str, text: str) -> list[Message]:
        """Open a file and return its diagnostics."""
        document = {"uri": f"file://{path}", "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        message = self._receive(
            lambda message: (
                message.get("method") == "textDocument/publishDiagnostics"
                and message["params"]["uri"] == document["uri"]
            )
        )
        diagnostics: list[Message] = message["params"]["diagnostics"]
        return diagnostics

    def request_at(self, feature: str, path: str, line: int, column: int) -> Any:
        """Request a feature, `completion` or `hover`, at a position of an open file."""
        position = {"textDocument": {"uri": f"file://{path}"}, "position": {"line": line, "character": column}}
        return self.request(f"textDocument/{feature}", position)

    def _receive(self, is_expected: Callable[[Message], bool]) -> Message:
        while True:
            message = self._read()
            if "id" in message and "method" in message:  # a request for its settings, or to register a capability
                items = message["params"].get("items", [])
                yaml = {"schemas": self._schemas, "schemaStore": {"enable": False}}
                settings = [yaml if item.get("section") == "yaml" else {} for item in items]
                self._send({"id": message["id"], "result": settings or None})
            if is_expected(message):
                return message

    def _send(self, message: Message) -> None:
        assert self._process.stdin is not None
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._process.stdin.flush()

    def _read(self) -> Message:
        assert self._process.stdout is not None
        length = 0
        while line := self._process.stdout.readline().strip():
            if line.startswith(b"Content-Length:"):
                length = int(line.partition(b":")[2])
        assert length, "the server has exited"
        message: Message = json.loads(self._process.stdout.read(length))
        return message


@pytest.fixture
def server() -> Iterator[LanguageServer]:
    program = shutil.which("yaml-language-server")
    if program is None:
        pytest.skip("needs yaml-language-server")
    [globs] = json.loads(PAGE.block("vs code"))["yaml.schemas"].values()
    language_server = LanguageServer(program, {(CHECKOUT / "schemas" / "manifest.schema.json").as_uri(): globs})
    yield language_server
    language_server.close()


def test_diagnostics(server: LanguageServer) -> None:
    assert server.open("/fields/weekly.pixxel.yaml", EXAMPLE.partition("\n")[2]) == []
    diagnostics = server.open("/fields/bad.pixxel.yaml", BAD)
    by_line = {diagnostic["range"]["start"]["line"]: diagnostic["message"] for diagnostic in diagnostics}
    assert sorted(by_line) == [0, 1, 2, 4, 5]
    assert '"run", "hour", "day"' in by_line[1]
    assert server.open("/fields/bad.yaml", BAD) == []  # the name does not match, so it is no manifest


def test_the_example_names_its_schema(server: LanguageServer) -> None:
    assert server.open(str(CHECKOUT / "other.yaml"), EXAMPLE) == []
    assert server.open(str(CHECKOUT / "another.yaml"), EXAMPLE.replace("version: 1", "version: 2")) != []


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("version: 1\n", {"name", "once_per", "timezone", "on_unfinished", "max_cost", "defaults", "submit", "jobs"}),
        ("version: 1\nonce_per: ", {"run", "hour", "day", "week", "month", "forever"}),
        ("version: 1\nsubmit:\n  ", {"concurrency", "rate", "attempts", "timeout", "stop_after"}),
        ("version: 1\njobs:\n  - ", {"name", "workflow_id", "project_id", "labels", "enabled"}),
        ("version: 1\njobs:\n  - workflow_id: a\n    ", {"name", "project_id", "labels", "enabled"}),
        ("version: 1\ndefaults:\n  ", {"workflow_id", "project_id", "labels", "enabled"}),
    ],
    ids=["top", "value", "submit", "job", "job-more", "defaults"],
)
def test_completions_are_documented(server: LanguageServer, text: str, labels: set[str]) -> None:
    server.open("/fields/new.pixxel.yaml", text)
    lines = text.split("\n")
    items = server.request_at("completion", "/fields/new.pixxel.yaml", len(lines) - 1, len(lines[-1]))["items"]
    documented = {item["label"] for item in items if item.get("documentation")}
    assert labels <= documented


def test_hover_shows_title_description_and_values(server: LanguageServer) -> None:
    server.open("/fields/weekly.pixxel.yaml", text := EXAMPLE.partition("\n")[2])
    line = next(index for index, text_line in enumerate(text.split("\n")) if text_line.startswith("once_per"))
    shown = json.dumps(server.request_at("hover", "/fields/weekly.pixxel.yaml", line, 2))
    assert "run period" in shown
    assert "How often each job is created" in shown
    assert "Each job is created once, ever" in shown


def test_the_page_prints_the_schema_and_its_manifest_is_valid(tmp_path: Path) -> None:
    program = [sys.executable, "-P", "-m", "runner"]
    [arguments] = PAGE.commands("print it")
    assert arguments[-2:] == [">", "pixxel-runner.schema.json"]
    printed = subprocess.run([*program, *arguments[:-2]], capture_output=True, check=True).stdout
    assert printed == (CHECKOUT / "schemas" / "manifest.schema.json").read_bytes()
    (tmp_path / "m.yaml").write_text(PAGE.block("modeline"), encoding="utf-8")
    subprocess.run([*program, "validate", "m.yaml"], cwd=tmp_path, check=True, capture_output=True)
    assert "$schema=pixxel-runner.schema.json" in PAGE.block("modeline")
