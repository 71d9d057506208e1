"""The library: the examples of docs/library.md work; it prints nothing, never exits, and sets no signal handlers."""

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

MANIFEST = f"""\
version: 1
once_per: day
timezone: {ZONE}
defaults: {{project_id: p-1}}
jobs:
  - {{name: north, workflow_id: w-1}}
  - {{name: south, workflow_id: w-2}}
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    (tmp_path / "fields.yaml").write_text(MANIFEST, encoding="utf-8")
    invalid = "version: 1\njobs: [{workflow_ID: w-1, project_id: p-1}]\n"
    (tmp_path / "wrong.yaml").write_text(invalid, encoding="utf-8")
    return tmp_path


def test_documented_examples_work(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    failed, attempted = doctest.testfile(str(CHECKOUT / "docs" / "library.md"), module_relative=False)
    assert (failed, attempted > 15) == (0, True), capsys.readouterr().out
    assert capsys.readouterr().out == ""
    assert handlers == [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    assert check_results(directory / "fields.results.json")["summary"]["created"] == 2


def test_public_names_exist_and_are_imported_lazily() -> None:
    assert set(runner.__all__) <= set(dir(runner))
    assert all(getattr(runner, name).__name__ for name in runner.__all__ if name != "SANDBOX")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = runner.nothing
    code = "import sys, runner; print([name for name in sys.modules if name.startswith('runner.')])"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout == "[]\n"


def test_run_writes_results_and_a_later_preview_sees_them(directory: Path) -> None:
    with WireServer(created("job-1"), Reset(), choose=lambda _: reply(500)) as server:
        access = ApiAccess("key", server.url)
        result = run(
            load_manifest("fields.yaml"), access, options=RunOptions(hold=True), limits=LimitOverrides(concurrency=1)
        )
    assert (result.ok, result.code, result.summary.created, result.summary.in_doubt) == (False, 3, 1, 1)
    assert isinstance(result.entries[1].outcome, InDoubt)
    result.write(directory / "out.json")
    assert check_results(directory / "out.json")["summary"]["in_doubt"] == 1
    assert [job.action for job in preview(load_manifest("fields.yaml"), access).jobs] == ["nothing", "look up"]


def test_usage_errors_are_raised_before_anything_is_sent(directory: Path) -> None:
    manifest = load_manifest("fields.yaml")
    with WireServer() as server:
        access = ApiAccess("key", server.url)
        for arguments, message in (
            ({"ledger": directory / "gone.db"}, "there is no ledger at"),
            ({"options": RunOptions(resume=True, new=True)}, "cannot be combined"),
        ):
            with pytest.raises(runner.RunnerError, match=message):
                run(manifest, access, **arguments)
        with pytest.raises(RefusedError, match="the key is empty"):
            run(manifest, ApiAccess("", server.url))
        with pytest.raises(runner.UsageError, match="the sandbox has its own ledger"):
            run(manifest, runner.SANDBOX, ledger=directory / "gone.db")
    assert server.requests == []


def test_ledger_must_be_configured_in_ci(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with WireServer(choose=lambda request: created(f"job-{request.workflow}")) as server:
        with pytest.raises(RefusedError, match="needs a persistent ledger"):
            run(load_manifest("fields.yaml"), ApiAccess("key", server.url))
        create_ledger(directory / "kept.db")
        assert run(load_manifest("fields.yaml"), ApiAccess("key", server.url), ledger=directory / "kept.db").ok


@pytest.mark.usefixtures("directory")
def test_concurrent_use_is_refused_and_another_thread_can_stop_a_run() -> None:
    stop = StopToken()
    results = []
    with WireServer(Stall(threading.Event()), choose=lambda _: reply(500)) as server:
        access = ApiAccess("key", server.url)

        def run_in_thread() -> None:
            limits = LimitOverrides(concurrency=1)
            results.append(
                run(load_manifest("fields.yaml"), access, limits=limits, stop=stop, options=RunOptions(hold=True))
            )

        thread = threading.Thread(target=run_in_thread)
        thread.start()
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(thread.join)
            server.wait_for_requests(1)
            for function in (run, preview):
                with pytest.raises(LockedError, match=r"is locked|is being run"):
                    function(load_manifest("fields.yaml"), access)
            stop.stop()
            stop.stop()
    [result] = results
    assert (result.run.state, result.summary.in_doubt, result.summary.skipped, result.code) == (
        "interrupted",
        1,
        1,
        143,
    )
    assert len(server.requests) == 1


def test_ledger_location_does_not_depend_on_the_working_directory(directory: Path) -> None:
    manifest = load_manifest("fields.yaml")
    with WireServer(choose=lambda request: created(f"job-{request.workflow}")) as server:
        assert run(manifest, ApiAccess("key", server.url)).summary.created == 2
        (directory / "sub").mkdir()
        with contextlib.chdir(directory / "sub"):
            second = run(manifest, ApiAccess("key", server.url))
    assert (second.summary.created_earlier, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    "arguments",
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
@pytest.mark.usefixtures("directory")
def test_invalid_options_are_rejected_and_nothing_is_sent(arguments: dict[str, Any]) -> None:
    with WireServer() as server, pytest.raises(runner.UsageError):
        run(load_manifest("fields.yaml"), ApiAccess("key", server.url), **arguments)
    assert server.requests == []


@pytest.mark.usefixtures("directory")
def test_paths_can_be_strings_and_the_sandbox_a_copy() -> None:
    create_ledger(Path("kept.db"))
    with WireServer(choose=lambda request: created(f"job-{request.workflow}")) as server:
        result = run(load_manifest("fields.yaml"), ApiAccess("key", server.url), ledger="kept.db")
    result.write("out.json")
    assert check_results(Path("out.json"))["summary"]["created"] == 2
    assert run(load_manifest("fields.yaml"), copy.copy(runner.SANDBOX)).ok
