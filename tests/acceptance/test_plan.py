"""`plan` as a person meets it: what it says and asks, that it changes nothing, and that `run` then does just that."""

from __future__ import annotations

import csv
import inspect
import io
import json
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks, ledger_history
from support import shell as shells
from support.schemas import loads_strictly
from support.shell import KEY, CompletedCommand, Shell
from support.wire import Request, Reset, Script, Stall, WireServer, created, reply

from runner.client.api import ReadOnlyClient
from runner.client.endpoint import ApiKey, Endpoint
from runner.client.exchange import Exchange
from runner.ledger.connect import create_ledger
from runner.ledger.store import Ledger
from runner.planning import estimates
from runner.planning.planned_jobs import Preview
from runner.runs import preview

Job = tuple[str, str, str]

LATE = 8.0  # seconds: a machine that is shared is slow; what is asserted would be many times as long
PAIRS: tuple[Job, ...] = (("a", "w-1", "p-1"), ("b", "w-1", "p-2"), ("c", "w-2", "p-1"))
NONE: tuple[str, ...] = ()


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-P", "-m", "runner", *map(str, arguments)]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(shells, "command", command)
    one = Shell(tmp_path)
    one.manifest(*PAIRS, once_per="forever")
    return one


class Api:
    """An API that knows every workflow, and makes a job for each POST; the test says what else becomes of a request.

    `told` is by the last part of a path: `estimate`, `jobs`, or a workflow's id.
    """

    def __init__(self, **told: Script) -> None:
        self.told = told
        self.posts: list[Script] = []  # what becomes of the first POSTs
        self.made = 0

    def __call__(self, request: Request) -> Script:
        if request.method == "POST":
            self.made += 1
            return self.posts.pop(0) if self.posts else created(f"job-{self.made}")
        last = request.target.partition("?")[0].rpartition("/")[2].replace("-", "_")
        if last == "jobs":
            return self.told.get(last) or reply(404)
        if last == "estimate":
            cost = int(request.workflow.rpartition("-")[2])
            return self.told.get(last) or reply(200, json.dumps({"estimated_cost": cost}).encode())
        body = json.dumps({"id": request.workflow, "project_id": request.project, "val_errors": None}).encode()
        return self.told.get(last) or self.told.get("workflow") or reply(200, body)


@contextmanager
def serving(shell: Shell, api: Api | None = None) -> Iterator[WireServer]:
    with WireServer(choose=api or Api()) as server:
        shell.use_api(server.url)
        yield server


def sent(server: WireServer) -> list[Request]:
    return [request for request in server.requests if request.method == "POST"]


def plan(shell: Shell, *arguments: str) -> CompletedCommand:
    done = shell("plan", "nightly.yaml", *arguments)
    assert "Traceback" not in done.err, done.err
    assert KEY not in done.out + done.err
    return done


def document(done: CompletedCommand) -> dict[str, Any]:
    return loads_strictly(done.out)


def rows(done: CompletedCommand) -> dict[str, str]:
    """What a table says of each job: what would be done, and why."""
    lines = done.out.split("\n\n")[0].splitlines()[2:]
    return {line.split()[0]: " ".join(line.split()[3:]) for line in lines}


def files(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder. SQLite's index of a log, and a log that is empty, hold nothing: readers make them."""
    found = {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
    return {
        name: data
        for name, data in found.items()
        if not name.endswith("-shm") and not (name.endswith("-wal") and data == b"")
    }


# What is asked.


def test_a_plan_asks_nobody_and_needs_no_key(shell: Shell) -> None:
    with serving(shell) as server:
        shell.use_api(server.url, key=None)
        done = plan(shell)
        assert (done.code, server.log.connections) == (0, 0)
    assert rows(done) == {"a": "submit new", "b": "submit new", "c": "submit new"}
    assert "3 jobs: 3 to submit, 0 to look up, 0 with nothing to do" in done.out
    assert "estimate" not in done.out
    assert "there is no ledger at .pixxel-runner/ledger.db yet: all jobs are new" in done.err


def test_costs_are_asked_for_once_for_each_workflow(shell: Shell) -> None:
    shell.manifest(*((f"j{number}", f"w-{number % 20}", f"p-{number}") for number in range(500)), once_per="forever")
    with serving(shell) as server:
        done = plan(shell, "--cost", "--format", "json")
        assert Counter(request.target for request in server.requests) == {
            f"/v0/workflows/w-{number}/estimate": 1 for number in range(20)
        }
        assert {request.method for request in server.requests} == {"GET"}
    assert document(done)["summary"] == {
        "submit": 500,
        "nothing": 0,
        "look_up": 0,
        "estimate": 25 * sum(range(20)),
        "spent": 0,
        "max_cost": None,
    }


def test_workflows_are_checked_once_for_each_pair(shell: Shell) -> None:
    jobs = [(f"j{number}", f"w-{number % 3}", f"p-{number % 2}") for number in range(60)]
    shell.manifest(*jobs, once_per="forever")
    pairs = {f"/v0/workflows/{workflow}?project_id={project}": 1 for _, workflow, project in jobs}
    with serving(shell) as server:
        assert plan(shell, "--check").code == 0
        assert Counter(request.target for request in server.requests) == pairs
        assert len(pairs) == 6
        done = plan(shell, "--check", "--cost")
        assert (done.code, len(server.requests)) == (0, 6 + 6 + 3)
    assert "estimate 60" in done.out


def test_what_is_not_to_be_sent_is_not_asked_for(shell: Shell) -> None:
    with serving(shell) as server:
        assert shell("run", "nightly.yaml", "--only", "[ab]").code == 0
        assert plan(shell, "--cost", "--check", "--only", "[ab]").code == 0
        assert len(server.requests) == 2
        assert plan(shell, "--cost", "--check").code == 0
        # And of what was bought without an estimate, for what is spent.
        assert sorted(request.target for request in server.requests[2:]) == [
            "/v0/workflows/w-1/estimate",
            "/v0/workflows/w-2/estimate",
            "/v0/workflows/w-2?project_id=p-1",
        ]


def test_questions_keep_to_the_rate_and_to_so_many_at_a_time(shell: Shell) -> None:
    gate = threading.Event()
    shell.manifest(*((f"j{number}", f"w-{number}", "p") for number in range(8)), once_per="forever")
    with serving(shell, Api(estimate=Stall(gate, then=reply(200, b'{"estimated_cost": 1}')))) as server:
        with shell.start("plan", "nightly.yaml", "--cost", "--concurrency", "3", "--rate", "100/s") as process:
            server.wait_for_requests(3)
            gate.set()
            process.communicate(timeout=30)
        assert (process.returncode, server.log.most_busy, len(server.requests)) == (0, 3, 8)


def test_asking_needs_a_key(shell: Shell) -> None:
    with serving(shell) as server:
        shell.use_api(server.url, key=None)
        for flag in ("--cost", "--check"):
            done = plan(shell, flag)
            assert (done.code, server.log.connections) == (4, 0)
            assert "no API key" in done.err


# What cannot be had.

TROUBLE: Mapping[str, tuple[Callable[[], Script], str]] = {
    "500": (lambda: reply(500), "HTTP 500 Internal Server Error"),
    "401": (lambda: reply(401), "HTTP 401 Unauthorized: the API does not recognise the key"),
    "429": (lambda: reply(429, headers=[("Retry-After", "60")]), "HTTP 429 Too Many Requests"),
    "html": (lambda: reply(200, b"<html>"), "the response cannot be read"),
    "reset": (Reset, "the connection was closed before the response"),
    "stall": (lambda: Stall(threading.Event()), "no complete response within"),
}


@pytest.mark.parametrize(("make", "why"), TROUBLE.values(), ids=TROUBLE)
def test_costs_that_cannot_be_had_are_said_and_block_no_longer_than_a_timeout(
    shell: Shell, make: Callable[[], Script], why: str
) -> None:
    with serving(shell, Api(estimate=make())) as server:
        begun = time.monotonic()
        done = shell.call("plan", "nightly.yaml", "--cost", "--timeout", "1")
        assert time.monotonic() - begun < 1 + LATE
        assert sent(server) == []
    assert done.code == 4  # a script is to see that it learned nothing
    assert "the cost of 2 workflows is unknown (" in done.err
    assert "estimate 0 and 3 of unknown cost" in done.out
    assert done.out.count(why) == 2


@pytest.mark.parametrize(("make", "why"), TROUBLE.values(), ids=TROUBLE)
def test_a_check_that_cannot_be_made_is_no_good_news_and_blocks_no_longer_than_a_timeout(
    shell: Shell, make: Callable[[], Script], why: str
) -> None:
    with serving(shell, Api(workflow=make())) as server:
        begun = time.monotonic()
        done = shell.call("plan", "nightly.yaml", "--check", "--timeout", "1")
        assert time.monotonic() - begun < 1 + LATE
        assert sent(server) == []
    assert done.code == 4
    assert re.search("3 workflows (could not be checked|failed the check); first error: w-1 in", done.err)
    assert why in done.err
    assert all(why in line for line in done.out.splitlines()[2:5])


CHECK_NETWORK = "Check the base URL, the proxy (HTTPS_PROXY, NO_PROXY) and the network, or try again later."


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (reply(404), "failed the check|Check the ids, and the permissions of the key."),
        (reply(403), "failed the check|Check the ids, and the permissions of the key."),
        (reply(401), "could not be checked|Set PIXXEL_API_KEY or --api-key-file to a key of this API."),
        (reply(307, headers=[("Location", "/")]), "could not be checked|Check the base URL."),
        (reply(502), "could not be checked|Try again later."),
        (Reset(), f"could not be checked|{CHECK_NETWORK}"),
    ],
)
def test_what_to_do_about_a_check_that_failed_is_said(shell: Shell, script: Script, said: str) -> None:
    words, hint = said.split("|")
    with serving(shell, Api(workflow=script)):
        done = shell.call("plan", "nightly.yaml", "--check", "--attempts", "1")
    assert done.code == 4
    assert f"error: 3 workflows {words}; first error: w-1 in project p-1: " in done.err
    assert done.err.splitlines()[-1] == f"  {hint}"


def test_both_of_a_server_that_never_answers_are_waited_for_once(shell: Shell) -> None:
    silence = Stall(threading.Event())
    with serving(shell, Api(estimate=silence, workflow=silence)):
        begun = time.monotonic()
        done = shell.call("plan", "nightly.yaml", "--cost", "--check", "--timeout", "2", "--concurrency", "1")
        assert time.monotonic() - begun < 2 + LATE
    assert done.code == 4


def test_one_workflow_that_is_not_there_is_named(shell: Shell) -> None:
    gone = reply(404, b'{"error": {"code": "not_found", "message": "no such workflow"}}')
    with serving(shell, Api(w_2=gone)):
        done = plan(shell, "--check")
    assert done.code == 4
    assert (
        "1 workflow failed the check; first error: w-2 in project p-1: HTTP 404 Not Found: not_found: no such workflow"
    ) in done.err
    assert [line.endswith("no such workflow") for line in done.out.splitlines()[2:5]] == [False, False, True]


# What it says.


def written(shell: Shell, write: Callable[[Ledger], object]) -> None:
    shell.ledger.parent.mkdir()
    create_ledger(shell.ledger)
    with Ledger(shell.ledger) as ledger:
        write(ledger)


def test_there_are_words_for_every_kind_of_job(shell: Shell) -> None:
    shell.write(
        "nightly.yaml",
        "version: 1\nonce_per: forever\ndefaults: {project_id: p-1}\njobs:\n"
        "  - {name: made, workflow_id: w-1}\n"
        "  - {name: one-more, workflow_id: w-1}\n"
        "  - {name: refused, workflow_id: w-2}\n"
        "  - {name: lost, workflow_id: w-3}\n"
        "  - {name: killed, workflow_id: w-4}\n"
        "  - {name: idle, workflow_id: w-5, enabled: false}\n"
        "  - {name: new, workflow_id: w-6}\n"
        "  - {name: z-other, workflow_id: w-7}\n",
    )
    names = ("made", "refused", "lost", "killed")
    jobs = [ledger_history.job(name, f"w-{number}") for number, name in enumerate(names, 1)]

    def write(ledger: Ledger) -> None:
        path = str(shell.directory / "nightly.yaml")
        run = ledger_history.start_run(ledger, "20261020T010000Z-aaaaaa", jobs, key="forever", path=path)
        for job, outcome in zip(
            jobs,
            (ledger_history.created("job-1"), ledger_history.not_created(), ledger_history.in_doubt(), None),
            strict=True,
        ):
            ledger_history.send(ledger, run, job, outcome)

    written(shell, write)
    shell.use_api(ledger_history.API, key=None)
    done = plan(shell, "--only", "[!z]*", "--again", "made")
    assert (done.code, done.err) == (0, "")
    assert rows(done) == {
        "made": "submit once more: requested with --again",
        "one-more": "submit one more of this pair: submitted 1 time so far",
        "refused": "submit not created before: no such workflow",
        "lost": "look up in doubt: no answer in time",
        "killed": "look up in doubt: it is being sent, or its run was killed while sending it",
        "idle": "nothing disabled: enabled: false in the manifest",
        "new": "submit new",
        "z-other": "nothing not selected: matches no --only pattern",
    }
    assert "made      w-1       p-1      nothing  created as job-1 by 20261020T010000Z-aaaaaa" in done.out
    assert "9 jobs: 4 to submit, 2 to look up, 3 with nothing to do\nfor ever" in done.out
    jobs_of = document(plan(shell, "--format", "json"))["jobs"]
    assert [(one["reason"], one["run_id"], one["job_id"]) for one in jobs_of[:2]] == [
        ("created", "20261020T010000Z-aaaaaa", "job-1"),
        ("one_more", None, None),
    ]


def test_after_a_run_there_is_nothing_to_do_and_the_exit_code_says_so(shell: Shell) -> None:
    with serving(shell) as server:
        before = [plan(shell), plan(shell, "--exit-code")]
        assert shell("run", "nightly.yaml").code == 0
        after = [plan(shell), plan(shell, "--exit-code")]
        assert len(server.requests) == 3
    assert [done.code for done in (*before, *after)] == [0, 1, 0, 0]
    assert before[0].out == before[1].out
    assert "3 jobs: 0 to submit, 0 to look up, 3 with nothing to do" in after[0].out
    run_id = document(plan(shell, "--format", "json"))["jobs"][0]["run_id"]
    assert rows(after[0])["a"].startswith("nothing created as job-")
    assert rows(after[0])["a"].endswith(f" by {run_id}")


def test_doubts_of_earlier_run_keys_are_told(shell: Shell) -> None:
    shell.manifest(*PAIRS, once_per="run")
    api = Api()
    api.posts = [Reset()]
    with serving(shell, api):
        assert shell("run", "nightly.yaml", "--hold").code == 3
    done = plan(shell, "--new")
    assert done.code == 0
    assert "1 job is still in doubt from earlier runs. To look it up: pixxel-runner resolve" in done.err
    assert "3 to submit" in done.out
    resumed = plan(shell, "--resume")
    assert (resumed.code, "earlier runs" in resumed.err) == (0, False)
    assert "0 to submit, 1 to look up, 2 with nothing to do\nfor the run " in resumed.out


def test_a_run_that_was_limited_to_some_jobs_is_finished_for_those(shell: Shell) -> None:
    shell.manifest(*PAIRS, once_per="run")
    api = Api()
    api.posts = [created("job-of-a"), reply(422)]
    with serving(shell, api) as server:
        assert shell.call("run", "nightly.yaml", "--only", "[ab]", "--concurrency", "1").code == 1
        assert rows(shell.call("plan", "nightly.yaml", "--resume"))["c"].startswith("nothing not selected")
        assert shell.call("run", "nightly.yaml", "--resume").code == 0
        assert [request.project for request in sent(server)] == ["p-1", "p-2", "p-2"]


HOSTILE = ("::error::a", "##[add-mask]b", "=1+1", "c|d", "<img src=x>", "@octocat", "1e5")
ACTS = b'{"error": {"code": "\\u001b[31m", "message": "\\r\\n::error::x ##[group] \\u202e"}}'


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_every_format_keeps_names_and_answers_text(shell: Shell, form: str) -> None:
    jobs = "".join(
        f"  - {{name: {json.dumps(name)}, workflow_id: w-{at}, project_id: p}}\n" for at, name in enumerate(HOSTILE)
    )
    shell.write("nightly.yaml", f"version: 1\nonce_per: forever\njobs:\n{jobs}")
    api = Api(workflow=reply(404, ACTS), estimate=reply(404, ACTS))
    api.posts = [created("\x1b[31m\r\n::error::j"), reply(422, ACTS), Reset()]
    with serving(shell, api):
        assert shell.call("run", "nightly.yaml", "--hold", "--concurrency", "1", "--only", "[:#=]*").code == 3
        done = shell.call("plan", "nightly.yaml", "--cost", "--check", "--format", form)
    assert done.code == 4  # the workflows are not there
    for said in (done.out, done.err):
        assert all(character.isprintable() for character in said.replace("\n", "").replace("\r", ""))
        assert "##[" not in said
        assert not [line for line in said.splitlines() if line.lstrip().startswith("::")]
    match form:
        case "json":
            read = document(done)["jobs"]
            assert [one["name"] for one in read] == list(HOSTILE)
            assert read[0]["job_id"] == "\x1b[31m\r\n::error::j"
        case "csv":
            read = list(csv.DictReader(io.StringIO(done.out, newline=""), strict=True))
            assert [one["workflow_id"] for one in read] == [f"w-{number}" for number in range(len(HOSTILE))]
            assert [one["name"] for one in read][2:] == ["'=1+1", "c|d", "<img src=x>", "'@octocat", "1e5"]
        case "markdown":
            assert "<img" not in done.out
            assert "c\\|d" in done.out
        case _:
            assert "1e5" in done.out


# It changes nothing.


def test_a_plan_makes_no_ledger_and_no_folder(shell: Shell) -> None:
    with serving(shell):
        before = files(shell.directory)
        assert plan(shell, "--cost", "--check").code == 0
        assert files(shell.directory) == before == {"nightly.yaml": (shell.directory / "nightly.yaml").read_bytes()}


@pytest.mark.parametrize("flags", [NONE, ("--cost", "--check")])
def test_a_plan_changes_no_file(shell: Shell, flags: tuple[str, ...]) -> None:
    api = Api()
    api.posts = [reply(422)]
    with serving(shell, api):
        assert shell("run", "nightly.yaml").code == 1
        before = files(shell.directory)
        assert plan(shell, *flags).code == 0
        assert files(shell.directory) == before


def test_a_plan_while_a_run_goes_and_after_it_was_killed(shell: Shell) -> None:
    api = Api()
    api.posts = [Stall(threading.Event(), then=created("late"))]
    with serving(shell, api) as server:
        with shell.start("run", "nightly.yaml", "--concurrency", "1") as process:
            server.wait_for_requests(1)
            going = plan(shell)
            process.kill()
        before = files(shell.directory)
        assert before[".pixxel-runner/ledger.db-wal"]
        killed = plan(shell)
        assert files(shell.directory) == before
    assert (going.code, going.out) == (5, "")
    assert f"error: manifest 'nightly' is being run at {server.url} by run " in going.err
    assert killed.code == 0
    assert rows(killed) == {
        "a": "look up in doubt: it is being sent, or its run was killed while sending it",
        "b": "submit new",
        "c": "submit new",
    }


def test_a_plan_can_be_had_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "command", command)
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # it writes files, where this test lets nobody do so
    with disks.mounted(tmp_path / "disk") as disk:
        shell = Shell(disk.root)
        shell.manifest(*PAIRS, once_per="forever")
        with serving(shell) as server:
            with disk.read_only():
                assert "3 to submit" in plan(shell, "--cost").out
            assert shell("run", "nightly.yaml", "--only", "a").code == 0
            with disk.read_only():
                done = plan(shell)
            assert len(sent(server)) == 1
    assert (done.code, rows(done)["b"]) == (0, "submit new")
    assert rows(done)["a"].startswith("nothing created as job-1 by ")


def test_a_plan_of_the_sandbox(shell: Shell) -> None:
    done = plan(shell, "--sandbox", "--cost", "--check")
    assert (done.code, "3 jobs: 3 to submit" in done.out, "estimate 30" in done.out) == (0, True, True)
    assert shell("run", "nightly.yaml", "--sandbox").code == 0
    assert "3 with nothing to do" in plan(shell, "--sandbox", "--cost", "--check").out


# It refuses what `run` would refuse.


def unfinished(shell: Shell, api: Api) -> tuple[str, ...]:
    shell.manifest(*PAIRS, once_per="run")
    api.posts = [reply(422)]
    assert shell.call("run", "nightly.yaml").code == 1
    return ("nightly.yaml",)


def renamed(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    (shell.directory / "nightly.yaml").rename(shell.directory / "daily.yaml")
    return ("daily.yaml",)


def twin(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    shell.write("other.yaml", "name: nightly\n" + (shell.directory / "nightly.yaml").read_text(encoding="utf-8"))
    return ("other.yaml",)


def lost_ledger(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    shell.ledger.unlink()
    return ("nightly.yaml",)


def damaged_ledger(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    shell.ledger.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    return ("nightly.yaml",)


def no_such_ledger(shell: Shell, _api: Api) -> tuple[str, ...]:
    return ("nightly.yaml", "--ledger", str(shell.directory / "nowhere.db"))


def in_ci(shell: Shell, _api: Api) -> tuple[str, ...]:
    shell.environment["CI"] = "true"
    return ("nightly.yaml",)


def edited_once_per(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    shell.manifest(*PAIRS, once_per="month")
    return ("nightly.yaml",)


def new_within_a_period(shell: Shell, _api: Api) -> tuple[str, ...]:
    assert shell.call("run", "nightly.yaml").code == 0
    return ("nightly.yaml", "--new")


def again_of_what_is_in_doubt(shell: Shell, api: Api) -> tuple[str, ...]:
    api.posts = [Reset()]
    assert shell.call("run", "nightly.yaml", "--hold", "--concurrency", "1").code == 3
    return ("nightly.yaml", "--again", "a")


def broken(shell: Shell, _api: Api) -> tuple[str, ...]:
    shell.write("nightly.yaml", "version: 1\njobs: [{workflow_id: 1}]\n")
    return ("nightly.yaml",)


def plainly(*flags: str) -> Callable[[Shell, Api], tuple[str, ...]]:
    return lambda _shell, _api: ("nightly.yaml", *flags)


REFUSALS: Mapping[str, tuple[Callable[[Shell, Api], tuple[str, ...]], int]] = {
    "unfinished": (unfinished, 4),
    "renamed": (renamed, 4),
    "twin": (twin, 4),
    "lost-ledger": (lost_ledger, 4),
    "damaged-ledger": (damaged_ledger, 4),
    "no-such-ledger": (no_such_ledger, 4),
    "ci": (in_ci, 4),
    "edited-once-per": (edited_once_per, 4),
    "new-within-a-period": (new_within_a_period, 2),
    "again-in-doubt": (again_of_what_is_in_doubt, 2),
    "broken": (broken, 2),
    "two-answers": (plainly("--resume", "--new"), 2),
    "only-nothing": (plainly("--only", "x"), 2),
    "again-nobody": (plainly("--again", "x"), 2),
    "again-not-created": (plainly("--again", "a"), 2),
    "plain-http": (plainly("--base-url", "http://api.example"), 2),
}


def error(done: CompletedCommand) -> list[str]:
    lines = done.err.splitlines()
    return next(lines[at:] for at, line in enumerate(lines) if line.startswith("error: "))


@pytest.mark.parametrize(("prepare", "code"), REFUSALS.values(), ids=REFUSALS)
def test_what_run_would_refuse_is_refused_in_the_same_words(
    shell: Shell, prepare: Callable[[Shell, Api], tuple[str, ...]], code: int
) -> None:
    api = Api()
    with serving(shell, api) as server:
        arguments = prepare(shell, api)
        before, posts = files(shell.directory), len(sent(server))
        planned = shell.call("plan", *arguments)
        assert files(shell.directory) == before
        ran = shell.call("run", *arguments, "--hold")
        assert len(sent(server)) == posts
    assert (planned.code, ran.code) == (code, code)
    assert planned.out == ""
    assert error(planned) == error(ran)


@pytest.mark.parametrize(
    ("flags", "told"),
    [(("--max-cost", "3"), {}), (("--max-cost", "100"), {"estimate": reply(404)})],
    ids=["above", "unknown"],
)
def test_costs_that_run_would_refuse_are_shown_and_refused(
    shell: Shell, flags: tuple[str, ...], told: dict[str, Script]
) -> None:
    with serving(shell, Api(**told)) as server:
        planned, ran = shell.call("plan", "nightly.yaml", "--cost", *flags), shell.call("run", "nightly.yaml", *flags)
        assert (planned.code, ran.code, sent(server)) == (4, 4, [])
    assert error(planned) == error(ran)
    assert "3 to submit" in planned.out


def test_unknown_costs_that_run_would_allow_are_no_refusal(shell: Shell) -> None:
    with serving(shell, Api(estimate=reply(404))):
        done = shell.call("plan", "nightly.yaml", "--cost", "--max-cost", "1", "--allow-unknown-cost")
    assert (done.code, "estimate 0 and 3 of unknown cost" in done.out) == (0, True)


def test_what_was_spent_before_refuses_no_plan_that_sends_nothing(shell: Shell) -> None:
    with serving(shell):
        assert shell.call("run", "nightly.yaml", "--max-cost", "4").code == 0
        for command in (("plan", "nightly.yaml", "--cost"), ("run", "nightly.yaml")):
            assert shell.call(*command, "--max-cost", "1").code == 0


# Who is asked has no way to create a job.


def test_the_type_of_who_is_asked_has_no_way_to_create_a_job() -> None:
    assert get_type_hints(preview.build_preview)["reader"] == estimates.WorkflowReader | None
    assert not hasattr(estimates.WorkflowReader, "create_job")
    assert not hasattr(ReadOnlyClient, "create_job")


def test_no_method_of_who_is_asked_sends_anything_but_a_question() -> None:
    methods = {
        name: method
        for name, method in inspect.getmembers(ReadOnlyClient, inspect.isfunction)
        if not name.startswith("_") and "exchange" in inspect.signature(method).parameters
    }
    assert methods.keys() == {"get_estimate", "get_workflow", "get_job", "list_jobs"}
    with (
        WireServer(choose=lambda _: reply(200)) as server,
        ReadOnlyClient(Endpoint(server.url, ApiKey(KEY)), 1) as reader,
    ):
        for name, method in methods.items():
            ids = [f"{name}-id"] * (len(inspect.signature(method).parameters) - 2)
            method(reader, *ids, Exchange(10.0))
    assert [request.method for request in server.requests] == ["GET"] * 4


@pytest.mark.parametrize("flags", [("--cost",), ("--check",), ("--cost", "--check", "--sandbox")])
def test_who_is_given_to_the_plan_is_such_a_one(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    given: list[object] = []
    look = preview.build_preview

    def spy(*arguments: Any, **options: Any) -> tuple[Preview, tuple[str, ...]]:
        given.append(arguments[2])
        return look(*arguments, **options)

    monkeypatch.setattr(preview, "build_preview", spy)
    with serving(shell):
        assert shell.call("plan", "nightly.yaml", *flags).code == 0
    assert [type(one) for one in given] == [ReadOnlyClient]
    assert not hasattr(given[0], "create_job")


# And `run` then does just that.

names = st.sampled_from(["a", "b", "c", "d", "e"])
entries = st.lists(
    st.tuples(names, st.sampled_from([0, 0, 1, 2]), st.sampled_from([True, True, True, False])),
    min_size=3,
    max_size=5,
    unique_by=lambda entry: entry[0],
)
fates = st.lists(st.sampled_from(["created", "rejected", "lost"]), min_size=3, max_size=5)
flags = st.sampled_from(
    [NONE, ("--only", "[a-c]"), ("--resume",), ("--new",), ("--again", "a"), ("--only", "b", "--again", "a")]
)
FATES: Mapping[str, Script] = {"rejected": reply(422), "lost": Reset()}


def write_manifest(shell: Shell, listed: Sequence[tuple[str, int, bool]], once_per: str) -> None:
    jobs = "".join(
        f"  - {{name: {name}, workflow_id: w-{pair}, project_id: p, enabled: {str(enabled).lower()}}}\n"
        for name, pair, enabled in listed
    )
    shell.write("nightly.yaml", f"version: 1\nonce_per: {once_per}\njobs:\n{jobs}")


@settings(max_examples=40)
@given(
    before=st.lists(st.tuples(entries, fates, st.just(NONE) | flags), max_size=3)
    | st.lists(st.tuples(entries, fates, st.just(NONE)), min_size=1, max_size=2),
    now=entries,
    flag=flags,
    once_per=st.sampled_from(["forever", "run"]),
)
def test_run_does_what_the_plan_says(
    before: list[tuple[list[tuple[str, int, bool]], list[str], tuple[str, ...]]],
    now: list[tuple[str, int, bool]],
    flag: tuple[str, ...],
    once_per: str,
) -> None:
    """After runs of other versions of the manifest, in which some were created, some refused, and some are in doubt."""
    api = Api()
    with tempfile.TemporaryDirectory() as folder, WireServer(choose=api) as server:
        shell = Shell(Path(folder), {"PIXXEL_RUNNER_CONCURRENCY": "1", "PIXXEL_RUNNER_STOP_AFTER": "0"})
        shell.use_api(server.url)
        for listed, what, how in before:
            write_manifest(shell, listed, once_per)
            api.posts = [FATES.get(one) or created(f"job-{api.made}-{at}") for at, one in enumerate(what)]
            shell.call("run", "nightly.yaml", "--hold", *how)
        api.posts = []
        write_manifest(shell, now, once_per)
        known, posts = files(shell.directory), len(sent(server))
        planned = shell.call("plan", "nightly.yaml", "--format", "json", *flag)
        assert (files(shell.directory), len(sent(server))) == (known, posts)
        ran = shell.call("run", "nightly.yaml", "--hold", *flag)
        bought = Counter(f"{request.workflow}/{request.project}" for request in sent(server)[posts:])
    if planned.code:
        assert (ran.code, bought) == (planned.code, Counter())
        assert error(ran) == error(planned)
        return
    made = document(planned)
    submitted = [one for one in made["jobs"] if one["action"] == "submit"]
    assert ran.code in (0, 1, 3)
    assert bought == Counter(f"{one['workflow_id']}/{one['project_id']}" for one in submitted)
