"""Runs the program as a user does: as a process, in a directory, with a clean environment."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from support import canary
from support.preloaded import Preloaded

from runner.cli.main import main

KEY = canary.KEY
_PRELOADED = Preloaded()
# A time zone in which it is about noon, so that no day, week or month ends during a test.
ZONE = f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"


@dataclass(frozen=True)
class CompletedCommand:
    """The exit code and output of a finished process."""

    code: int
    out: str
    err: str


@dataclass
class Shell:
    """A working directory and an environment in which to run commands."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        return self.directory / ".pixxel-runner" / "ledger.db"

    def write(self, path: str, text: str) -> Path:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def manifest(self, *pairs: tuple[str, str, str], path: str = "nightly.yaml", once_per: str = "day") -> Path:
        """Write a manifest of (name, workflow, project) jobs."""
        jobs = "".join(f"  - {{name: {name}, workflow_id: {w}, project_id: {p}}}\n" for name, w, p in pairs)
        return self.write(path, f"version: 1\nonce_per: {once_per}\ntimezone: {ZONE}\njobs:\n{jobs}")

    def use_api(self, base_url: str, key: str | None = KEY) -> None:
        """Use this API from now on; without a key if `key` is None."""
        self.environment["PIXXEL_BASE_URL"] = base_url
        self.environment.pop("PIXXEL_API_KEY", None)
        if key is not None:
            self.environment["PIXXEL_API_KEY"] = key

    def __call__(self, *arguments: str | Path, **streams: Any) -> CompletedCommand:
        if not streams and (done := self._run_preloaded(*arguments)):
            return done
        with self.start(*arguments, **streams) as process:
            out, err = process.communicate(timeout=60)
        return CompletedCommand(process.returncode, out or "", err or "")

    def _run_preloaded(self, *arguments: str | Path) -> CompletedCommand | None:
        words, environment = command(arguments), self._whole_environment()
        canary.check_process(None, words, None, environment)
        done = _PRELOADED.run(words, str(self.directory), environment, timeout=60)
        if done is None:
            return None
        assert not canary.find_key(done.out + done.err)
        return CompletedCommand(done.code, done.out, done.err)

    def call(self, *arguments: str) -> CompletedCommand:
        """Run the command in this process: much faster than a new one, but without signals or a terminal."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.directory),
            patch.dict(os.environ, self.environment, clear=True),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = main(list(arguments))
        assert "bug:" not in err.getvalue(), err.getvalue()
        assert not canary.find_key(out.getvalue() + err.getvalue())
        return CompletedCommand(code, out.getvalue(), err.getvalue())

    @contextmanager
    def start(self, *arguments: str | Path, **streams: Any) -> Iterator[subprocess.Popen[str]]:
        """Start the command; the process is killed when the context ends."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        with subprocess.Popen(
            command(arguments),
            cwd=self.directory,
            env=self._whole_environment(),
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            **pipes,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _whole_environment(self) -> dict[str, str]:
        kept = ("PATH", "HOME", "PYTHONPATH", "COVERAGE_PROCESS_CONFIG")
        return {**{name: os.environ[name] for name in kept if name in os.environ}, **self.environment}


def command(arguments: Sequence[str | Path]) -> list[str]:
    return [sys.executable, "-m", "runner", *map(str, arguments)]


def set_noon_timezone(manifest: str) -> str:
    """Replace the time zone of a manifest with ZONE."""
    text, replaced = re.subn(r"(?m)^timezone: [\w/]+", f"timezone: {ZONE}", manifest)
    assert replaced == 1
    return text


def environment_without_coverage() -> dict[str, str]:
    """The environment for a process that is not measured by coverage."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS_")}
