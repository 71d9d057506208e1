"""The program among those who wish it ill: servers, proxies, repositories, names, folders and files of strangers.

That no key is printed or kept is looked for after each test by tests/conftest.py, so the tests of it only tempt.
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
from support.wire import Half, Reply, Request, Script, Stall, WireServer, created, reply

from runner import reports

JOBS = tuple((f"j{number}", f"w-{number}", f"p-{number}") for number in range(3))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    one = Shell(tmp_path, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIXXEL_RUNNER_ATTEMPTS": "1"})
    one.manifest(*JOBS, once_per="forever")
    return one


# TLS.

# What is wrong with a certificate: how it is said, and what to do about it.
WRONG = {
    "expired": ("certificate has expired", "Check this machine's clock"),
    "wrong_host": ("Hostname mismatch, certificate is not valid for 'localhost'", "Check the host name"),
    "self_signed": ("unable to get local issuer certificate", "the file lacks this host's authority"),
}


@pytest.mark.parametrize(("wrong", "words", "remedy"), [(name, *said) for name, said in WRONG.items()], ids=WRONG)
def test_nothing_is_sent_to_who_is_not_trusted_and_it_says_why(
    shell: Shell, certificates: Certificates, wrong: str, words: str, remedy: str
) -> None:
    with WireServer(tls=getattr(certificates, wrong)) as server:
        shell.at(server.url)
        done = shell.call("run", "nightly.yaml", "--ca-bundle", certificates.bundle)
        assert done.code == 4
        assert words in done.err
        assert remedy in done.err
        assert ("authority with --ca-bundle FILE" in done.err) == (wrong == "self_signed")
        for command in ("plan", "status"):
            told = shell.call(command, "nightly.yaml", "--ca-bundle", certificates.bundle)
            assert command == "status" or words in told.out + told.err
        assert (server.requests, server.log.connections > 0) == ([], True)
    record = check_results(shell.folder / "nightly.results.json")
    assert {error["kind"] for error in record["errors"]} == {"untrusted"}
    assert record["summary"]["in_doubt"] == 0


def test_a_private_authority_is_trusted_as_the_message_says(shell: Shell, certificates: Certificates) -> None:
    with WireServer(tls=certificates.good) as server:
        shell.at(server.url)
        refused = shell.call("run", "nightly.yaml")
        assert (refused.code, server.requests) == (4, [])
        assert "unable to get local issuer certificate" in refused.err
        assert "authority with --ca-bundle FILE" in refused.err
        assert shell.call("run", "nightly.yaml", "--ca-bundle", certificates.bundle).code == 0
        assert len(server.created) == len(JOBS)


def test_a_ca_bundle_may_come_through_a_pipe(shell: Shell, certificates: Certificates) -> None:
    """As `--ca-bundle <(command)` has it: it can be read once."""
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as pipe, WireServer(tls=certificates.good) as server:
        pipe.write(Path(certificates.bundle).read_bytes())
        pipe.close()
        shell.at(server.url)
        done = shell.call("run", "nightly.yaml", "--ca-bundle", f"/dev/fd/{reader}")
        assert (done.code, len(server.created)) == (0, len(JOBS)), done.err


def test_ipv6(shell: Shell) -> None:
    try:
        server = WireServer(family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with server, WireServer() as proxy:
        shell.at(server.url)
        shell.environment |= {"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url}
        assert shell.call("run", "nightly.yaml").code == 0
        assert (len(server.created), proxy.log.connections) == (len(JOBS), 0)
    assert check_results(shell.folder / "nightly.results.json")["run"]["base_url"] == f"http://[::1]:{server.port}"


# Proxies.

PASSWORD = "pass-word-of-the-proxy"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (reply(407, headers=[("Proxy-Authenticate", "Basic")], reason="Authentication Required"), "407 Authentication"),
        (reply(407, reason="\x1b[31m::error:: sent: user:" + PASSWORD), "407"),
        (reply(302, headers=[("Location", "https://evil.example/")]), "302"),
        (Reply(created("job-that-is-a-lie").data), ""),
    ],
    ids=["not-known", "quotes", "redirects", "answers-itself"],
)
def test_a_proxy_that_opens_no_tunnel_creates_nothing_and_is_told_no_key(
    shell: Shell, script: Script, words: str
) -> None:
    with WireServer(choose=lambda _: script) as proxy:
        shell.at("https://api.example")
        shell.environment |= {
            "HTTPS_PROXY": proxy.url.replace("//", f"//user:{PASSWORD}@"),
            "PIXXEL_RUNNER_TIMEOUT": "0.5",
        }
        done = shell.call("run", "nightly.yaml")
    assert done.code == 1
    assert words in done.err
    assert "the proxy (HTTPS_PROXY, NO_PROXY)" in done.err
    assert {request.method for request in proxy.requests} == {"CONNECT"}
    assert KEY not in repr(proxy.requests)
    assert not any(mark in done.out + done.err for mark in ("\x1b", "\n::"))
    shown = done.out + done.err + "".join(path.read_text("latin-1") for path in files(shell.folder))
    assert PASSWORD not in shown


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# The key.

ECHOES: dict[str, Script] = {
    "job": reply(200, json.dumps({"id": "job-1", "spec": KEY, KEY: [f"key {KEY}"]}).encode(), creates=True),
    "error": reply(422, json.dumps({"error": {"code": KEY, "message": f"{KEY}?", "details": [KEY]}}).encode()),
    "page": reply(502, f"<pre>Authorization: {KEY}</pre>".encode(), [("X-Request-Id", KEY), ("Date", KEY)]),
    "redirect": reply(302, headers=[("Location", f"https://evil.example/?key={KEY}")]),
    "pause": reply(429, headers=[("Retry-After", KEY)]),
    "no answer": Half(f"you said: Authorization: {KEY}\r\n".encode()),
    "no head": Half(f"HTTP/1.1 200 OK\r\n{KEY}".encode()),
    "no status": Half(f"HTTP/1.1 {KEY} OK\r\n\r\n".encode()),
    "no length": Half(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode()),
    "odd coding": reply(200, b"x", [("Content-Encoding", KEY)]),
}


@pytest.mark.parametrize("script", ECHOES.values(), ids=ECHOES)
def test_a_server_that_echoes_the_key_gets_it_nowhere(shell: Shell, script: Script) -> None:
    shell.environment |= {"PIXXEL_RUNNER_MAX_PAUSE": "0", "GITHUB_STEP_SUMMARY": "step.md"}
    arguments = [f"--report={name}=report.{name}" for name in reports.RUN_FORMATS]
    with WireServer(choose=lambda _: script) as server:
        shell.at(server.url)
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
    assert len(files(shell.folder)) > len(reports.RUN_FORMATS)


@pytest.mark.parametrize("key", [KEY + "/with+slashes/==", f'{KEY}"quoted\\"', f"{KEY}<&>", f"Bearer {KEY}"])
def test_a_key_with_odd_characters_is_known_as_it_is_quoted(shell: Shell, key: str) -> None:
    said = {"error": {"message": f"bad key {key}"}}
    bodies = [json.dumps(said), json.dumps(said).replace("/", r"\/")]
    with WireServer(choose=lambda one: reply(422, bodies[one.project == "p-1"].encode())) as server:
        shell.at(server.url, key)
        done = shell.call("run", "nightly.yaml")
        assert {request.headers["authorization"] for request in server.requests} == {key}
    assert "bad key ********" in done.out


def test_a_netrc_is_not_read_and_no_argument_holds_the_key(shell: Shell) -> None:
    netrc = shell.write(".netrc", "machine 127.0.0.1 login netrc password netrc\ndefault login a password b\n")
    netrc.chmod(0o600)
    gate = threading.Event()
    with WireServer(choose=lambda one: Stall(gate, then=created(f"job-{one.project}"))) as server:
        shell.at(server.url)
        shell.environment["NETRC"] = str(netrc)
        with shell.started("run", "nightly.yaml", "--verbose") as process:
            server.wait_for_requests(1)
            if sys.platform == "linux":
                for task in Path(f"/proc/{process.pid}").glob("task/*"):
                    for name in ("cmdline", "comm"):
                        assert not canary.found((task / name).read_bytes())
            gate.set()
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert {request.headers["authorization"] for request in server.requests} == {KEY}


BUG = """
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


def test_the_traceback_of_a_bug_holds_no_key_and_commands_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shells, "command", lambda arguments: [sys.executable, "-P", "-X", "dev", "-c", BUG, *map(str, arguments)]
    )
    shell.at("http://127.0.0.1:9")
    shell.environment["PIXXEL_RUNNER_DEBUG"] = "1"
    done = shell("run", "nightly.yaml")
    assert done.code == 70
    assert "Traceback" in done.err
    assert "\x1b" not in done.err
    assert not any(line.lstrip().startswith("::") for line in done.err.splitlines())


LOOK_ALIKES = [
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


@pytest.mark.parametrize("url", LOOK_ALIKES)
def test_an_address_that_looks_like_another_is_refused(shell: Shell, url: str) -> None:
    for way in ("flag", "environment"):
        shell.at(url if way == "environment" else "https://api.example")
        done = shell.call("run", "nightly.yaml", *(["--base-url", url] if way == "flag" else []))
        assert (done.code, done.out) == (2, "")
        assert not (shell.folder / "nightly.results.json").exists()


# Text from outside.

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
ACTED_ON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def hostile_api(text: str) -> Callable[[Request], Script]:
    """An API all of whose words are this text; what is very long is said where reports tell a reason."""
    text, long = text[:999], text
    odd = "".join(one for one in text[:99] if one not in "\r\n" and ord(one) < 256)  # what a header can carry

    def answer(request: Request) -> Script:
        if request.method == "POST" and request.project == "p-1":
            return reply(
                422,
                json.dumps({"error": {"code": text, "message": long, "details": {text: text}}}).encode(),
                [("X-Request-Id", odd)],
            )
        if request.method == "POST":
            job = {"id": f"{request.project} {text}", "status": text, "val_errors": [long], "cost": 10**30, text: text}
            return reply(200, json.dumps(job).encode(), [("X-Request-Id", odd)], creates=True)
        if "estimate" in request.target or request.target.endswith("/jobs"):
            return reply(404, json.dumps({"error": {"message": text}}).encode())
        task = {"name": text, "err_msg": long}
        job = {
            "id": unquote(request.target.rpartition("/")[2], errors="surrogatepass"),
            "status": text,
            "progress": text,
            "cost": text,
            "finished_at": text,
            "tasks": [task],
        }
        return reply(200, json.dumps(job).encode())

    return answer


def check_shown(name: str, text: str) -> None:
    """What is put out in a format is whole, and holds nothing that a terminal or a CI's log would act on."""
    assert not ACTED_ON.search(text), (name, ACTED_ON.search(text))
    commands = [line for line in text.splitlines() if line.lstrip().startswith("::")]
    assert name == "github" or commands == []
    assert all(re.match(r"::(error|warning|notice) [^:]*::", line) for line in commands)
    assert not re.search(r"##(\[|vso\[)", text)
    READERS[name](text)


def _read_csv(text: str) -> None:
    csv.field_size_limit(2**24)
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) in (1 + 2, 1 + 3)  # all jobs, or those that were created
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for row in rows for cell in row)


def _read_markdown(text: str) -> None:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}) == 1
    assert "<" not in re.sub(r"&lt;", "", text).replace("<br>", "")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def _read_html(text: str) -> None:
    page = _Page()
    page.feed(text)
    assert [tag for tag, _ in page.found].count("script") == 1
    assert not {tag for tag, _ in page.found} & {"img", "iframe", "object", "embed", "base", "testcase"}
    links = [value or "" for _, attributes in page.found for name, value in attributes if name in ("href", "src")]
    assert [link for link in links if not link.startswith(("#", "data:image/svg+xml"))] == []
    assert not [name for _, attributes in page.found for name, _ in attributes if name.startswith("on")]


def _read_prometheus(text: str) -> None:
    label = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
    line = re.compile(rf"(# (HELP|TYPE) .*|[a-z_]+(\{{{label}(,{label})*\}})? [-+0-9.eInf]+)")
    assert [one for one in text.splitlines() if not line.fullmatch(one)] == []


READERS: dict[str, Callable[[str], Any]] = {
    "table": str,
    "json": loads_strictly,
    "csv": _read_csv,
    "markdown": _read_markdown,
    "junit": ET.fromstring,
    "github": str,
    "prometheus": _read_prometheus,
    "html": _read_html,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_every_format_of_every_kind_stays_whole_whatever_the_api_says(shell: Shell, text: str) -> None:
    assert set(READERS) == set(reports.RUN_FORMATS)
    summary = shell.folder / "step.md"
    shell.environment["GITHUB_STEP_SUMMARY"] = str(summary)
    names = "".join(
        f"  - {{name: {json.dumps(nameable(text, number))}, workflow_id: w-{number}, project_id: p-{number}, "
        f"labels: {{{json.dumps(nameable(text, 9))}: {json.dumps(nameable(text, 9))}}}}}\n"
        for number in range(3)
    )
    shell.write("nightly.yaml", f"version: 1\nonce_per: forever\njobs:\n{names}")
    with WireServer(choose=hostile_api(text)) as server:
        shell.at(server.url)
        for kind, arguments in {
            "plan": ["plan", "nightly.yaml", "--cost", "--check"],
            "run": ["run", "nightly.yaml", "--verbose"],
            "status": ["status", "nightly.yaml"],
            "show": ["show"],
        }.items():
            formats = reports.PLAN_FORMATS if kind == "plan" else reports.RUN_FORMATS
            made = {name: shell.folder / f"{kind}.{name}" for name in formats}
            done = shell.call(*arguments, *(f"--report={name}={path}" for name, path in made.items()))
            assert done.code in (0, 1, 4 if kind == "plan" else 0), done.err[-2000:]
            assert not ACTED_ON.search(done.err.replace("\n", ""))
            assert not re.search(r"^\s*::|##(\[|vso\[)", done.out + done.err, re.MULTILINE)
            check_shown("table", done.out)
            for name, path in made.items():
                check_shown(name, path.read_text(encoding="utf-8"))
    check_shown("table", summary.read_text(encoding="utf-8"))
    assert len(server.created) == 2


def nameable(text: str, number: int) -> str:
    """As much of a text as a manifest lets into a name, made different by a number."""
    kept = "".join(one for one in text if one.isprintable() or one in "\u200b\u2066")[:150]
    return f"{kept.replace(chr(0x200B), '').replace(chr(0x2066), '').strip()}{number}"


# Files.


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with disks.mounted(tmp_path / "disk") as one:
        yield one


@pytest.mark.parametrize("left", [0, PAGE, 3 * PAGE])
def test_reports_on_a_disk_that_is_full_at_the_end_cost_themselves_alone(shell: Shell, disk: Disk, left: int) -> None:
    """With a few pages left, some fit and some end in the middle; none is left in half."""
    paths = {name: disk.root / f"report.{name}" for name in reports.RUN_FORMATS}
    for path in paths.values():
        path.write_text("what was there before\n", encoding="ascii")
    summary = shell.folder / "step.md"
    summary.symlink_to("/dev/full")
    shell.environment["GITHUB_STEP_SUMMARY"] = str(summary)
    arguments = [f"--report={name}={path}" for name, path in paths.items()]
    gate = threading.Event()
    with WireServer(choose=lambda one: Stall(gate, then=created(f"job-{one.project}"))) as server:
        shell.at(server.url)
        with shell.started("run", "nightly.yaml", *arguments) as process:
            server.wait_for_requests(1)
            disk.fill(but=left)
            gate.set()
            _, err = process.communicate(timeout=60)
            disk.free()
    assert process.returncode == 4
    failed = {name for name, path in paths.items() if f"error: the report {path} cannot be written" in err}
    assert failed if left else failed == set(paths)
    assert "GITHUB_STEP_SUMMARY" in err
    for name, path in paths.items():
        old = path.read_text(encoding="utf-8") == "what was there before\n"
        assert old is (name in failed)
        if not old:
            check_shown(name, path.read_text(encoding="utf-8"))
    assert {one.name for one in disk.root.iterdir()} == {path.name for path in paths.values()}
    assert len(check_results(shell.folder / "nightly.results.json")["created"]) == len(JOBS)
    del shell.environment["GITHUB_STEP_SUMMARY"]
    assert shell.call("show", *arguments).code == 0
    for name, path in paths.items():
        check_shown(name, path.read_text(encoding="utf-8"))


def test_a_summary_that_is_a_pipe_nobody_reads_does_not_hold_the_run(shell: Shell) -> None:
    os.mkfifo(shell.folder / "step")
    shell.environment["GITHUB_STEP_SUMMARY"] = "step"
    with WireServer() as server:
        shell.at(server.url)
        done = shell("run", "nightly.yaml", "--format", "github")
    assert done.code == 4
    assert "GITHUB_STEP_SUMMARY step cannot be written" in done.err
    assert len(check_results(shell.folder / "nightly.results.json")["created"]) == len(JOBS)


def test_no_command_trusts_a_folder_that_another_user_has_planted(shell: Shell) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    with WireServer() as server:
        shell.at(server.url)
        assert shell.call("run", "nightly.yaml").code == 0
        os.chown(shell.ledger.parent, 65534, 65534)
        asked = [[command, "nightly.yaml"] for command in ("run", "plan", "status", "resolve")]
        for command in [*asked, ["show"], ["runs"], ["ledger", "check"], ["ledger", "export"]]:
            done = shell.call(*command)
            assert (done.code, done.out) == (4, ""), command
            assert "belongs to another user (uid 65534)" in done.err
        assert len(server.requests) == len(JOBS)
