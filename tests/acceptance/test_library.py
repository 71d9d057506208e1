"""The library: what docs/library.md shows is run, and it prints nothing, ends nothing and leaves signals alone."""

from __future__ import annotations

import contextlib
import copy
import doctest
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.pages import CHECKOUT
from support.schemas import check_results
from support.shell import ZONE
from support.wire import Reset, Stall, WireServer, created, reply

import runner
from runner import (
    ApiAccess,
    InDoubt,
    LimitOverrides,
    LockedError,
    RefusedError,
    RunOptions,
    StopToken,
    load_manifest,
    preview,
    run,
)
from runner.ledger.connect import create_ledger

FIELDS = f"""\
version: 1
once_per: day
timezone: {ZONE}
defaults: {{project_id: p-1}}
jobs:
  - {{name: north, workflow_id: w-1}}
  - {{name: south, workflow_id: w-2}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    (tmp_path / "fields.yaml").write_text(FIELDS, encoding="utf-8")
    wrong = "version: 1\njobs: [{workflow_ID: w-1, project_id: p-1}]\n"
    (tmp_path / "wrong.yaml").write_text(wrong, encoding="utf-8")
    return tmp_path


def test_the_page_is_true(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    failed, tried = doctest.testfile(str(CHECKOUT / "docs" / "library.md"), module_relative=False)
    assert (failed, tried > 15) == (0, True), capsys.readouterr().out
    assert capsys.readouterr().out == ""
    assert handlers == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert check_results(folder / "fields.results.json")["summary"]["created"] == 2


def test_every_public_name_is_there_and_nothing_is_imported_before_it_is_asked_for() -> None:
    assert set(runner.__all__) <= set(dir(runner))
    assert all(getattr(runner, name).__name__ for name in runner.__all__ if name != "SANDBOX")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = runner.nothing
    code = "import sys, runner; print([name for name in sys.modules if name.startswith('runner.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_run_against_a_server_and_what_it_leaves(folder: Path) -> None:
    with WireServer(created("job-1"), Reset(), choose=lambda _: reply(500)) as server:
        access = ApiAccess("key", server.url)
        result = run(
            load_manifest("fields.yaml"), access, options=RunOptions(hold=True), limits=LimitOverrides(concurrency=1)
        )
    assert (result.ok, result.code, result.summary.created, result.summary.in_doubt) == (False, 3, 1, 1)
    assert isinstance(result.entries[1].outcome, InDoubt)
    result.write(folder / "out.json")
    assert check_results(folder / "out.json")["summary"]["in_doubt"] == 1
    assert [one.action for one in preview(load_manifest("fields.yaml"), access).jobs] == ["nothing", "look up"]


def test_what_a_program_does_wrong_is_raised_before_anything_is_sent(folder: Path) -> None:
    manifest = load_manifest("fields.yaml")
    with WireServer() as server:
        access = ApiAccess("key", server.url)
        for wanted, words in (
            ({"ledger": folder / "gone.db"}, "there is no ledger at"),
            ({"options": RunOptions(resume=True, new=True)}, "cannot be combined"),
        ):
            with pytest.raises(runner.RunnerError, match=words):
                run(manifest, access, **wanted)
        with pytest.raises(RefusedError, match="the key is empty"):
            run(manifest, ApiAccess("", server.url))
        with pytest.raises(runner.UsageError, match="the sandbox has its own ledger"):
            run(manifest, runner.SANDBOX, ledger=folder / "gone.db")
    assert server.requests == []


def test_ci_needs_a_ledger_that_is_kept_here_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with WireServer(choose=lambda request: created(f"job-{request.workflow}")) as server:
        with pytest.raises(RefusedError, match="needs a persistent ledger"):
            run(load_manifest("fields.yaml"), ApiAccess("key", server.url))
        create_ledger(folder / "kept.db")
        assert run(load_manifest("fields.yaml"), ApiAccess("key", server.url), ledger=folder / "kept.db").ok


@pytest.mark.usefixtures("folder")
def test_two_at_once_and_a_stop_from_another_thread() -> None:
    stop = StopToken()
    done = []
    with WireServer(Stall(threading.Event()), choose=lambda _: reply(500)) as server:
        access = ApiAccess("key", server.url)

        def work() -> None:
            one = LimitOverrides(concurrency=1)
            done.append(run(load_manifest("fields.yaml"), access, limits=one, stop=stop, options=RunOptions(hold=True)))

        thread = threading.Thread(target=work)
        thread.start()
        with contextlib.ExitStack() as ended:
            ended.callback(thread.join)
            server.wait_for_requests(1)
            for use in (run, preview):
                with pytest.raises(LockedError, match=r"is locked|is being run"):
                    use(load_manifest("fields.yaml"), access)
            stop.stop()
            stop.stop()
    [result] = done
    assert (result.run.state, result.summary.in_doubt, result.summary.skipped, result.code) == (
        "interrupted",
        1,
        1,
        143,
    )
    assert len(server.requests) == 1


def test_the_ledger_stays_beside_the_manifest_wherever_the_program_goes(folder: Path) -> None:
    manifest = load_manifest("fields.yaml")
    with WireServer(choose=lambda request: created(f"job-{request.workflow}")) as server:
        assert run(manifest, ApiAccess("key", server.url)).summary.created == 2
        (folder / "sub").mkdir()
        with contextlib.chdir(folder / "sub"):
            again = run(manifest, ApiAccess("key", server.url))
    assert (again.summary.created_earlier, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": LimitOverrides(concurrency=0)},
        {"limits": LimitOverrides(concurrency=65)},
        {"limits": LimitOverrides(concurrency="4")},  # type: ignore[arg-type]
        {"limits": LimitOverrides(attempts=0)},
        {"limits": LimitOverrides(timeout=0)},
        {"limits": LimitOverrides(timeout=float("nan"))},
        {"limits": LimitOverrides(rate="x")},
        {"limits": LimitOverrides(rate=3)},  # type: ignore[arg-type]
        {"limits": LimitOverrides(max_cost=-1)},
        {"options": RunOptions(only="north")},  # type: ignore[arg-type]
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_makes_no_sense_is_said_and_nothing_is_sent(wrong: dict[str, Any]) -> None:
    with WireServer() as server, pytest.raises(runner.UsageError):
        run(load_manifest("fields.yaml"), ApiAccess("key", server.url), **wrong)
    assert server.requests == []


@pytest.mark.usefixtures("folder")
def test_paths_may_be_texts_and_the_sandbox_a_copy() -> None:
    create_ledger(Path("kept.db"))
    with WireServer(choose=lambda request: created(f"job-{request.workflow}")) as server:
        result = run(load_manifest("fields.yaml"), ApiAccess("key", server.url), ledger="kept.db")
    result.write("out.json")
    assert check_results(Path("out.json"))["summary"]["created"] == 2
    assert run(load_manifest("fields.yaml"), copy.copy(runner.SANDBOX)).ok
