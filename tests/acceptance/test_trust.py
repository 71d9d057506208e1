"""Hostile surroundings: servers, proxies, names, directories and files under the control of others.

After each test, tests/conftest.py checks that no key was printed or written, so the tests here only provoke it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from support import canary, disks
from support import shell as shells
from support.certs import Certificates
from support.disks import PAGE, Disk
from support.schemas import check_results, loads_strictly
from support.shell import KEY, Shell
from support.wire import Reply, Request, Script, Stall, Truncated, WireServer, created, reply

from runner import reports

JOBS = tuple((f"j{number}", f"w-{number}", f"p-{number}") for number in range(3))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIXXEL_RUNNER_ATTEMPTS": "1"})
    shell.manifest(*JOBS, once_per="forever")
    return shell


# TLS

# What is wrong with a certificate: the message, and the hint.
BAD_CERTIFICATES = {
    "expired": ("certificate has expired", "Check this machine's clock"),
    "wrong_host": ("Hostname mismatch, certificate is not valid for 'localhost'", "Check the host name"),
    "self_signed": ("unable to get local issuer certificate", "the file lacks this host's authority"),
}


@pytest.mark.parametrize(
    ("name", "message", "hint"), [(name, *texts) for name, texts in BAD_CERTIFICATES.items()], ids=BAD_CERTIFICATES
)
def test_nothing_is_sent_to_an_untrusted_server_and_the_reason_is_shown(
    shell: Shell, certificates: Certificates, name: str, message: str, hint: str
) -> None:
    with WireServer(tls=getattr(certificates, name)) as server:
        shell.use_api(server.url)
        done = shell.call("run", "nightly.yaml", "--ca-bundle", certificates.bundle)
        assert done.code == 4
        assert message in done.err
        assert hint in done.err
        assert ("authority with --ca-bundle FILE" in done.err) == (name == "self_signed")
        for command in ("plan", "status"):
            other = shell.call(command, "nightly.yaml", "--ca-bundle", certificates.bundle)
            assert command == "status" or message in other.out + other.err
        assert (server.requests, server.log.connections > 0) == ([], True)
    results = check_results(shell.directory / "nightly.results.json")
    assert {error["kind"] for error in results["errors"]} == {"untrusted"}
    assert results["summary"]["in_doubt"] == 0


def test_private_authority_is_trusted_by_following_the_hint(shell: Shell, certificates: Certificates) -> None:
    with WireServer(tls=certificates.good) as server:
        shell.use_api(server.url)
        first = shell.call("run", "nightly.yaml")
        assert (first.code, server.requests) == (4, [])
        assert "unable to get local issuer certificate" in first.err
        assert "authority with --ca-bundle FILE" in first.err
        assert shell.call("run", "nightly.yaml", "--ca-bundle", certificates.bundle).code == 0
        assert len(server.created) == len(JOBS)


def test_ca_bundle_can_be_a_pipe(shell: Shell, certificates: Certificates) -> None:
    """As with `--ca-bundle <(command)`, the bundle can be read only once."""
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as pipe, WireServer(tls=certificates.good) as server:
        pipe.write(Path(certificates.bundle).read_bytes())
        pipe.close()
        shell.use_api(server.url)
        done = shell.call("run", "nightly.yaml", "--ca-bundle", f"/dev/fd/{reader}")
        assert (done.code, len(server.created)) == (0, len(JOBS)), done.err


def test_ipv6_loopback_bypasses_the_proxy(shell: Shell) -> None:
    try:
        server = WireServer(family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback")
    with server, WireServer() as proxy:
        shell.use_api(server.url)
        shell.environment |= {"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url}
        assert shell.call("run", "nightly.yaml").code == 0
        assert (len(server.created), proxy.log.connections) == (len(JOBS), 0)
    assert check_results(shell.directory / "nightly.results.json")["run"]["base_url"] == f"http://[::1]:{server.port}"


# Proxies

PASSWORD = "pass-word-of-the-proxy"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (reply(407, headers=[("Proxy-Authenticate", "Basic")], reason="Authentication Required"), "407 Authentication"),
        (reply(407, reason="\x1b[31m::error:: sent: user:" + PASSWORD), "407"),
        (reply(302, headers=[("Location", "https://evil.example/")]), "302"),
        (Reply(created("job-that-is-a-lie").data), ""),
    ],
    ids=["unauthorized", "echoes-credentials", "redirects", "responds-itself"],
)
def test_proxy_without_a_tunnel_gets_no_key_and_creates_nothing(shell: Shell, script: Script, message: str) -> None:
    with WireServer(choose=lambda _: script) as proxy:
        shell.use_api("https://api.example")
        shell.environment |= {
            "HTTPS_PROXY": proxy.url.replace("//", f"//user:{PASSWORD}@"),
            "PIXXEL_RUNNER_TIMEOUT": "0.5",
        }
        done = shell.call("run", "nightly.yaml")
    assert done.code == 1
    assert message in done.err
    assert "the proxy (HTTPS_PROXY, NO_PROXY)" in done.err
    assert {request.method for request in proxy.requests} == {"CONNECT"}
    assert KEY not in repr(proxy.requests)
    assert not any(text in done.out + done.err for text in ("\x1b", "\n::"))
    output = done.out + done.err + "".join(path.read_text("latin-1") for path in files(shell.directory))
    assert PASSWORD not in output


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# The key

ECHOES: dict[str, Script] = {
    "job": reply(200, json.dumps({"id": "job-1", "spec": KEY, KEY: [f"key {KEY}"]}).encode(), creates=True),
    "error": reply(422, json.dumps({"error": {"code": KEY, "message": f"{KEY}?", "details": [KEY]}}).encode()),
    "page": reply(502, f"<pre>Authorization: {KEY}</pre>".encode(), [("X-Request-Id", KEY), ("Date", KEY)]),
    "redirect": reply(302, headers=[("Location", f"https://evil.example/?key={KEY}")]),
    "pause": reply(429, headers=[("Retry-After", KEY)]),
    "no response": Truncated(f"you said: Authorization: {KEY}\r\n".encode()),
    "no headers": Truncated(f"HTTP/1.1 200 OK\r\n{KEY}".encode()),
    "no status": Truncated(f"HTTP/1.1 {KEY} OK\r\n\r\n".encode()),
    "no length": Truncated(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode()),
    "unknown encoding": reply(200, b"x", [("Content-Encoding", KEY)]),
}


@pytest.mark.parametrize("script", ECHOES.values(), ids=ECHOES)
def test_key_echoed_by_a_server_is_never_printed_or_written(shell: Shell, script: Script) -> None:
    shell.environment |= {"PIXXEL_RUNNER_MAX_PAUSE": "0", "GITHUB_STEP_SUMMARY": "step.md"}
    arguments = [f"--report={name}=report.{name}" for name in reports.RUN_FORMATS]
    with WireServer(choose=lambda _: script) as server:
        shell.use_api(server.url)
        shell.call("run", "nightly.yaml", "--verbose", "--hold", *arguments)
        assert server.requests
        for command in (
            ["plan", "nightly.yaml", "--check"],
            ["status", "nightly.yaml"],
            ["show"],
            ["ledger", "export"],
        ):
            shell.call(*command)
        shell.call("resolve", "nightly.yaml", "--settle", "0")
    assert len(files(shell.directory)) > len(reports.RUN_FORMATS)


@pytest.mark.parametrize("key", [KEY + "/with+slashes/==", f'{KEY}"quoted\\"', f"{KEY}<&>", f"Bearer {KEY}"])
def test_key_with_special_characters_is_redacted_when_escaped(shell: Shell, key: str) -> None:
    error = {"error": {"message": f"bad key {key}"}}
    bodies = [json.dumps(error), json.dumps(error).replace("/", r"\/")]
    with WireServer(choose=lambda request: reply(422, bodies[request.project == "p-1"].encode())) as server:
        shell.use_api(server.url, key)
        done = shell.call("run", "nightly.yaml")
        assert {request.headers["authorization"] for request in server.requests} == {key}
    assert "bad key ********" in done.out


def test_netrc_is_ignored_and_no_process_argument_contains_the_key(shell: Shell) -> None:
    netrc = shell.write(".netrc", "machine 127.0.0.1 login netrc password netrc\ndefault login a password b\n")
    netrc.chmod(0o600)
    gate = threading.Event()
    with WireServer(choose=lambda request: Stall(gate, then=created(f"job-{request.project}"))) as server:
        shell.use_api(server.url)
        shell.environment["NETRC"] = str(netrc)
        with shell.start("run", "nightly.yaml", "--verbose") as process:
            server.wait_for_requests(1)
            if sys.platform == "linux":
                for task in Path(f"/proc/{process.pid}").glob("task/*"):
                    for name in ("cmdline", "comm"):
                        assert not canary.find_key((task / name).read_bytes())
            gate.set()
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert {request.headers["authorization"] for request in server.requests} == {KEY}


BUGGY_COMMAND = """
import sys
from runner.runs import execution
from runner.cli.main import main
def broken(self, *args, **kwargs):
    key = self
    raise RuntimeError("a bug\\x1b[31m\\n::error::")
from runner.client.api import ReadOnlyClient
ReadOnlyClient.__init__ = broken
sys.exit(main())
"""


def test_traceback_of_a_bug_contains_no_key_and_no_workflow_command(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shells,
        "command",
        lambda arguments: [sys.executable, "-P", "-X", "dev", "-c", BUGGY_COMMAND, *map(str, arguments)],
    )
    shell.use_api("http://127.0.0.1:9")
    shell.environment["PIXXEL_RUNNER_DEBUG"] = "1"
    done = shell("run", "nightly.yaml")
    assert done.code == 70
    assert "Traceback" in done.err
    assert "\x1b" not in done.err
    assert not any(line.lstrip().startswith("::") for line in done.err.splitlines())


MISLEADING_URLS = [
    "https://api.pixxel.space@evil.example",
    "https://api.pixxel.space:443@evil.example",
    "https://api.pixxel.space%40evil.example",
    r"https://evil.example\@api.pixxel.space",
    r"https://api.pixxel.space\.evil.example",
    "https://api.pixxel.space#@evil.example",
    "https://api.pixxel.space?@evil.example",
    "https://api.pixxel.space/@evil.example",
    "https:///evil.example",
    "https:evil.example",
    "https://аpi.pixxel.space",
    "https://api。pixxel。space",
    "https://api.pixxel.space\u200b",
    "https://api.pixxel.space,evil.example",
    "https://api.pixxel.space evil.example",
    f"https://user:1/{KEY}@api.pixxel.space",
    f"https://{KEY}/x@api.pixxel.space",
]


@pytest.mark.parametrize("url", MISLEADING_URLS)
def test_misleading_base_url_is_rejected(shell: Shell, url: str) -> None:
    for source in ("option", "environment"):
        shell.use_api(url if source == "environment" else "https://api.example")
        done = shell.call("run", "nightly.yaml", *(["--base-url", url] if source == "option" else []))
        assert (done.code, done.out) == (2, "")
        assert not (shell.directory / "nightly.results.json").exists()


# Text from the API and from manifests

HOSTILE = {
    "terminal": "\x1b]0;title\x07\x1b[2J\x1b[31m\x9b2J\r\b",
    "bidi": "\u202eevil\u202c\u2066x\u2069\u200b\ufeff\u2028\x85",
    "commands": "\n::set-output name=a::b\n::add-mask::a\n::stop-commands::x\n##vso[task.setvariable]x\n##[error]x",
    "formulas": "=cmd|'/c calc'!A1\t@SUM(1)",
    "plus": "+1+1|`id`|\\|",
    "html": "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;",
    "markdown": "[x](javascript:alert(1)) @octocat #1 ``` | <!-- ",
    "labels": '"} 1\npixxel_runner_jobs{x="',
    "xml": "]]></failure><testcase/>\x00\x01\ufffe",
    "nothing": "\x00",
    "surrogate": "\udfff\ud800",
    "megabyte": "A" * 2**20,
}
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def hostile_api(text: str) -> Callable[[Request], Script]:
    """An API whose every text is this one. Only reasons get all of it, if it is very long."""
    text, full_text = text[:999], text
    header = text[:99].translate({ord("\r"): None, ord("\n"): None}).encode("latin-1", "ignore").decode("latin-1")

    def choose(request: Request) -> Script:
        if request.method == "POST" and request.project == "p-1":
            return reply(
                422,
                json.dumps({"error": {"code": text, "message": full_text, "details": {text: text}}}).encode(),
                [("X-Request-Id", header)],
            )
        if request.method == "POST":
            job = {
                "id": f"{request.project} {text}",
                "status": text,
                "val_errors": [full_text],
                "cost": 10**30,
                text: text,
            }
            return reply(200, json.dumps(job).encode(), [("X-Request-Id", header)], creates=True)
        if "estimate" in request.target or request.target.endswith("/jobs"):
            return reply(404, json.dumps({"error": {"message": text}}).encode())
        task = {"name": text, "err_msg": full_text}
        job = {
            "id": unquote(request.target.rpartition("/")[2], errors="surrogatepass"),
            "status": text,
            "progress": text,
            "cost": text,
            "finished_at": text,
            "tasks": [task],
        }
        return reply(200, json.dumps(job).encode())

    return choose


def check_output(output_format: str, text: str) -> None:
    """Check that output is well-formed, without anything that a terminal or a CI log would act on."""
    assert not CONTROL_CHARACTERS.search(text), (output_format, CONTROL_CHARACTERS.search(text))
    commands = [line for line in text.splitlines() if line.lstrip().startswith("::")]
    assert output_format == "github" or commands == []
    assert all(re.match(r"::(error|warning|notice) [^:]*::", line) for line in commands)
    assert not re.search(r"##(\[|vso\[)", text)
    CHECKERS[output_format](text)


def _check_csv(text: str) -> None:
    csv.field_size_limit(2**24)
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) in (1 + 2, 1 + 3)  # all jobs, or those that were created
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for row in rows for cell in row)


def _check_markdown(text: str) -> None:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}) == 1
    assert "<" not in re.sub(r"&lt;", "", text).replace("<br>", "")


class _TagCollector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))


def _check_html(text: str) -> None:
    parser = _TagCollector()
    parser.feed(text)
    assert [tag for tag, _ in parser.tags].count("script") == 1
    assert not {tag for tag, _ in parser.tags} & {"img", "iframe", "object", "embed", "base", "testcase"}
    links = [value or "" for _, attributes in parser.tags for name, value in attributes if name in ("href", "src")]
    assert [link for link in links if not link.startswith(("#", "data:image/svg+xml"))] == []
    assert not [name for _, attributes in parser.tags for name, _ in attributes if name.startswith("on")]


def _check_prometheus(text: str) -> None:
    label = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
    line = re.compile(rf"(# (HELP|TYPE) .*|[a-z_]+(\{{{label}(,{label})*\}})? [-+0-9.eInf]+)")
    assert [row for row in text.splitlines() if not line.fullmatch(row)] == []


CHECKERS: dict[str, Callable[[str], Any]] = {
    "table": str,
    "json": loads_strictly,
    "csv": _check_csv,
    "markdown": _check_markdown,
    "junit": ET.fromstring,
    "github": str,
    "prometheus": _check_prometheus,
    "html": _check_html,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_reports_stay_well_formed_with_hostile_text_from_the_api(shell: Shell, text: str) -> None:
    assert set(CHECKERS) == set(reports.RUN_FORMATS)
    summary = shell.directory / "step.md"
    shell.environment["GITHUB_STEP_SUMMARY"] = str(summary)
    jobs = "".join(
        f"  - {{name: {json.dumps(manifest_name(text, number))}, workflow_id: w-{number}, project_id: p-{number}, "
        f"labels: {{{json.dumps(manifest_name(text, 9))}: {json.dumps(manifest_name(text, 9))}}}}}\n"
        for number in range(3)
    )
    shell.write("nightly.yaml", f"version: 1\nonce_per: forever\njobs:\n{jobs}")
    with WireServer(choose=hostile_api(text)) as server:
        shell.use_api(server.url)
        for command, arguments in {
            "plan": ["plan", "nightly.yaml", "--cost", "--check"],
            "run": ["run", "nightly.yaml", "--verbose"],
            "status": ["status", "nightly.yaml"],
            "show": ["show"],
        }.items():
            formats = reports.PLAN_FORMATS if command == "plan" else reports.RUN_FORMATS
            paths = {name: shell.directory / f"{command}.{name}" for name in formats}
            done = shell.call(*arguments, *(f"--report={name}={path}" for name, path in paths.items()))
            assert done.code in (0, 1, 4 if command == "plan" else 0), done.err[-2000:]
            assert not CONTROL_CHARACTERS.search(done.err.replace("\n", ""))
            assert not re.search(r"^\s*::|##(\[|vso\[)", done.out + done.err, re.MULTILINE)
            check_output("table", done.out)
            for name, path in paths.items():
                check_output(name, path.read_text(encoding="utf-8"))
    check_output("table", summary.read_text(encoding="utf-8"))
    assert len(server.created) == 2


def manifest_name(text: str, number: int) -> str:
    """The part of a text that a manifest allows in a name, with a number to make it unique."""
    allowed = "".join(character for character in text if character.isprintable() or character in "\u200b\u2066")[:150]
    return f"{allowed.replace(chr(0x200B), '').replace(chr(0x2066), '').strip()}{number}"


# Files


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with disks.mounted(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize("free", [0, PAGE, 3 * PAGE])
def test_full_disk_loses_only_the_reports(shell: Shell, disk: Disk, free: int) -> None:
    """With a few pages free, some reports fit and others do not. None is left half-written."""
    paths = {name: disk.root / f"report.{name}" for name in reports.RUN_FORMATS}
    for path in paths.values():
        path.write_text("previous report\n", encoding="ascii")
    summary = shell.directory / "step.md"
    summary.symlink_to("/dev/full")
    shell.environment["GITHUB_STEP_SUMMARY"] = str(summary)
    arguments = [f"--report={name}={path}" for name, path in paths.items()]
    gate = threading.Event()
    with WireServer(choose=lambda request: Stall(gate, then=created(f"job-{request.project}"))) as server:
        shell.use_api(server.url)
        with shell.start("run", "nightly.yaml", *arguments) as process:
            server.wait_for_requests(1)
            disk.fill(but=free)
            gate.set()
            _, err = process.communicate(timeout=60)
            disk.free()
    assert process.returncode == 4
    failed = {name for name, path in paths.items() if f"error: the report {path} cannot be written" in err}
    assert failed if free else failed == set(paths)
    assert "GITHUB_STEP_SUMMARY" in err
    for name, path in paths.items():
        is_previous = path.read_text(encoding="utf-8") == "previous report\n"
        assert is_previous is (name in failed)
        if not is_previous:
            check_output(name, path.read_text(encoding="utf-8"))
    assert {path.name for path in disk.root.iterdir()} == {path.name for path in paths.values()}
    assert len(check_results(shell.directory / "nightly.results.json")["created"]) == len(JOBS)
    del shell.environment["GITHUB_STEP_SUMMARY"]
    assert shell.call("show", *arguments).code == 0
    for name, path in paths.items():
        check_output(name, path.read_text(encoding="utf-8"))


def test_step_summary_that_is_an_unread_pipe_does_not_block_the_run(shell: Shell) -> None:
    os.mkfifo(shell.directory / "step")
    shell.environment["GITHUB_STEP_SUMMARY"] = "step"
    with WireServer() as server:
        shell.use_api(server.url)
        done = shell("run", "nightly.yaml", "--format", "github")
    assert done.code == 4
    assert "GITHUB_STEP_SUMMARY step cannot be written" in done.err
    assert len(check_results(shell.directory / "nightly.results.json")["created"]) == len(JOBS)


def test_commands_reject_a_state_directory_of_another_user(shell: Shell) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    with WireServer() as server:
        shell.use_api(server.url)
        assert shell.call("run", "nightly.yaml").code == 0
        os.chown(shell.ledger.parent, 65534, 65534)
        commands = [[command, "nightly.yaml"] for command in ("run", "plan", "status", "resolve")]
        for command in [*commands, ["show"], ["runs"], ["ledger", "check"], ["ledger", "export"]]:
            done = shell.call(*command)
            assert (done.code, done.out) == (4, ""), command
            assert "belongs to another user (uid 65534)" in done.err
        assert len(server.requests) == len(JOBS)
