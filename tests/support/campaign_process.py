"""The client of zygote.py: sends it the runs of a campaign, and returns their results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ZYGOTE = Path(__file__).with_name("zygote.py")


@dataclass(frozen=True)
class RunResult:
    """How a run ended: its exit code (negative for a signal), and its duration in seconds.

    `counts` is how often each hook was passed, `events` what was injected there; both are empty for a killed run.
    """

    code: int
    counts: Mapping[str, int]
    events: Sequence[str]
    seconds: float


class Zygote:
    """Runs the command in children of one process that has imported it already."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_ZYGOTE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, directory: Path, env: Mapping[str, str], arguments: Sequence[str], **how: Any) -> RunResult:
        """Run the command in a directory, with stdout and stderr in files there.

        `how` holds `skew`, the offset of the clock in seconds; `events`, as in the zygote's `Event`; `after`, the
        seconds until the process is killed; and `largest`, the maximum size of a file in bytes.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"cwd": str(directory), "env": dict(env), "argv": list(arguments), **how}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        response = json.loads(self._process.stdout.readline())
        return RunResult(response["code"], response["counts"], response["events"], response["seconds"])
