"""A real yaml-language-server with the manifest's schema, asked what an editor asks it; and what the page shows."""

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


class Server:
    """A language server on its streams, with a schema for the files of a pattern."""

    def __init__(self, program: str, schemas: dict[str, list[str]]) -> None:
        self._schemas = schemas
        self._process = subprocess.Popen([program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._asked = 0
        formats = {"completion": {"completionItem": {"documentationFormat": ["plaintext"]}}}
        capabilities = {"textDocument": formats, "workspace": {"configuration": True}}
        self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": capabilities})
        self._send({"method": "initialized", "params": {}})

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, method: str, params: Message) -> Any:
        """The answer to a request."""
        self._asked += 1
        number = self._asked
        self._send({"id": number, "method": method, "params": params})
        return self._until(lambda message: message.get("id") == number and "method" not in message)["result"]

    def open(self, path: str, text: str) -> list[Message]:
        """What it finds wrong with a file."""
        document = {"uri": f"file://{path}", "languageId": "yaml", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        told = self._until(
            lambda message: (
                message.get("method") == "textDocument/publishDiagnostics"
                and message["params"]["uri"] == document["uri"]
            )
        )
        found: list[Message] = told["params"]["diagnostics"]
        return found

    def at(self, what: str, path: str, line: int, column: int) -> Any:
        """What it says of a place in a file that is open: `completion` or `hover`."""
        place = {"textDocument": {"uri": f"file://{path}"}, "position": {"line": line, "character": column}}
        return self.ask(f"textDocument/{what}", place)

    def _until(self, wanted: Callable[[Message], bool]) -> Message:
        while True:
            message = self._read()
            if "id" in message and "method" in message:  # it asks for its settings, or to register something
                items = message["params"].get("items", [])
                yaml = {"schemas": self._schemas, "schemaStore": {"enable": False}}
                answer = [yaml if item.get("section") == "yaml" else {} for item in items]
                self._send({"id": message["id"], "result": answer or None})
            if wanted(message):
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
        assert length, "the server has gone"
        message: Message = json.loads(self._process.stdout.read(length))
        return message


@pytest.fixture
def server() -> Iterator[Server]:
    program = shutil.which("yaml-language-server")
    if program is None:
        pytest.skip("there is no yaml-language-server here")
    [globs] = json.loads(PAGE.block("vs code"))["yaml.schemas"].values()
    one = Server(program, {(CHECKOUT / "schemas" / "manifest.schema.json").as_uri(): globs})
    yield one
    one.close()


def test_faults_are_underlined_and_nothing_else(server: Server) -> None:
    assert server.open("/fields/weekly.pixxel.yaml", EXAMPLE.partition("\n")[2]) == []
    found = {one["range"]["start"]["line"]: one["message"] for one in server.open("/fields/bad.pixxel.yaml", BAD)}
    assert sorted(found) == [0, 1, 2, 4, 5]
    assert '"run", "hour", "day"' in found[1]
    assert server.open("/fields/bad.yaml", BAD) == []  # of another name: nobody said that it is a manifest


def test_the_first_line_of_the_example_names_the_schema(server: Server) -> None:
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
def test_keys_and_values_are_completed_and_explained(server: Server, text: str, labels: set[str]) -> None:
    server.open("/fields/new.pixxel.yaml", text)
    lines = text.split("\n")
    offered = server.at("completion", "/fields/new.pixxel.yaml", len(lines) - 1, len(lines[-1]))["items"]
    documented = {one["label"] for one in offered if one.get("documentation")}
    assert labels <= documented


def test_hovering_shows_title_description_and_example(server: Server) -> None:
    server.open("/fields/weekly.pixxel.yaml", text := EXAMPLE.partition("\n")[2])
    line = next(number for number, words in enumerate(text.split("\n")) if words.startswith("once_per"))
    shown = json.dumps(server.at("hover", "/fields/weekly.pixxel.yaml", line, 2))
    assert "period of one run" in shown
    assert "When a second run counts as the same run" in shown
    assert "Each job is created once, ever" in shown


def test_what_the_page_prints_is_the_schema_and_its_manifest_is_valid(tmp_path: Path) -> None:
    program = [sys.executable, "-P", "-m", "runner"]
    [arguments] = PAGE.commands("print it")
    assert arguments[-2:] == [">", "pixxel-runner.schema.json"]
    printed = subprocess.run([*program, *arguments[:-2]], capture_output=True, check=True).stdout
    assert printed == (CHECKOUT / "schemas" / "manifest.schema.json").read_bytes()
    (tmp_path / "m.yaml").write_text(PAGE.block("modeline"), encoding="utf-8")
    subprocess.run([*program, "validate", "m.yaml"], cwd=tmp_path, check=True, capture_output=True)
    assert "$schema=pixxel-runner.schema.json" in PAGE.block("modeline")
