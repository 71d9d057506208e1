"""What an hour of a busy API is, as fast as both sides can: very many jobs, some answers lost, and what that takes.

    python -m support.load

The real command runs as a process of its own against a sandbox in this one. Its memory, file descriptors and threads
are read from /proc while it runs; at the end the results file is held against the sandbox's own record.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.schemas import check_results

from runner.sandbox.backend import Backend
from runner.sandbox.faults import Fault
from runner.sandbox.server import Sandbox

KEY = "key-of-the-load"
# Together 5 %. A pause holds everyone up for half a second: of those there are few.
FAULTS = (Fault("reset", 0.02), Fault("bad-gateway", 0.019), Fault("slow", 0.01, 0.05), Fault("rate-limit", 0.001))
_PER_WORKFLOW = 10  # jobs
_FIGURES = (("memory (MiB)", "memory", 2**20), ("file descriptors", "files", 1), ("threads", "threads", 1))
_GROWTH = 2**8  # bytes of memory that a job may cost while it is sent: what is in the ledger is not held
_BASE = 2**24  # bytes that the first connections and answers may cost


class LoadError(AssertionError):
    """It did not end as it should, or did not stay flat."""


@dataclass(frozen=True)
class Sample:
    """A process at a moment: seconds since its start, bytes of memory, open file descriptors and threads."""

    at: float
    memory: int
    files: int
    threads: int


@dataclass(frozen=True)
class LoadResult:
    """What a run came to. `doubts` are answers that were lost, and whose jobs were found at the API."""

    jobs: int
    seconds: float
    cpu: float
    recovered: int
    faults: Counter[str]
    samples: Sequence[Sample]

    @property
    def sending(self) -> Sequence[Sample]:
        """The samples from when all threads are there until the first of them is gone: between, all should be flat."""
        most = max(one.threads for one in self.samples)
        return [one for one in self.samples if one.threads == most]

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        speed = f"{self.jobs / self.seconds:.0f} a second, {self.cpu:.0f} s of processor time"
        lines = [
            f"{self.jobs} jobs in {self.seconds:.0f} s, {speed}; faults: {faults}; {self.recovered} recovered",
            f"{len(self.sending)} samples while it sent, as first / median / last / peak (peak of all):",
        ]
        for what, name, unit in _FIGURES:
            values, every = ([getattr(one, name) / unit for one in some] for some in (self.sending, self.samples))
            shown = (values[0], statistics.median(values), values[-1], max(values))
            lines.append(f"  {what}: {' / '.join(f'{value:.0f}' for value in shown)} ({max(every):.0f})")
        return "\n".join(lines)


def run(folder: Path, jobs: int, concurrency: int, every: float = 1.0) -> LoadResult:
    """Run so many jobs in a folder, and look at the process every so many seconds. Raises LoadError."""
    pairs = [(f"w-{number // _PER_WORKFLOW}", f"p-{number % _PER_WORKFLOW}") for number in range(jobs)]
    _write_manifest(folder / "load.yaml", pairs)
    met: Counter[str] = Counter()
    with Backend() as world:
        world.add_pairs(pairs)
        with Sandbox(world, key=KEY, faults=FAULTS, log=lambda line: met.update(_kinds(line))) as sandbox:
            env = {"PIXXEL_API_KEY": KEY, "PIXXEL_BASE_URL": sandbox.base_url}
            kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
            command = [sys.executable, "-P", "-m", "runner", "run", "load.yaml", "--concurrency", str(concurrency)]
            with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
                process = subprocess.Popen(command, cwd=folder, env=kept | env, stdout=out, stderr=err)
                samples, seconds, cpu = _watch(process, every)
        created = Counter((job.workflow_id, job.project_id) for w in dict(pairs) for job in world.jobs(w))
    said = (folder / "stderr").read_text(encoding="utf-8")
    if process.returncode != 0:
        raise LoadError(f"it ended with {process.returncode}: {said[-2000:]}")
    if created != Counter(pairs):
        raise LoadError("not each job exactly once")
    load = LoadResult(jobs, seconds, cpu, _check_record(folder, pairs), met, samples)
    _check_flat(load, concurrency)
    return load


def _kinds(line: str) -> list[str]:
    """The faults that a line of the sandbox's log tells of; a reset has no status."""
    ending = line.split(" ", 2)[2]
    if ending == "reset":
        return ["reset"]
    return ending.partition("(")[2].rstrip(")").split(", ") if "(" in ending else []


def _write_manifest(path: Path, pairs: Sequence[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("version: 1\nonce_per: forever\njobs:\n")
        for number, (workflow, project) in enumerate(pairs):
            file.write(f"  - {{name: j{number}, workflow_id: {workflow}, project_id: {project}}}\n")


def _watch(process: subprocess.Popen[bytes], every: float) -> tuple[list[Sample], float, float]:
    """Sample a process until it has ended: the samples, the seconds, and those of processor time."""
    begun, samples = time.monotonic(), list[Sample]()
    over = threading.Event()

    def look() -> None:
        while not over.wait(every):
            sample = _sample(process.pid, time.monotonic() - begun)
            if sample is not None:
                samples.append(sample)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        over.set()
        watcher.join()
        if process.returncode is None:
            process.kill()
            process.wait()
    return samples, time.monotonic() - begun, usage.ru_utime + usage.ru_stime


def _sample(pid: int, at: float) -> Sample | None:
    """A process as /proc tells; None when it has just ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - of the names, none is a path
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines())
    if "VmRSS" not in fields:
        return None
    return Sample(at, int(fields["VmRSS"].split()[0]) * 1024, files, int(fields["Threads"]))


def _check_record(folder: Path, pairs: Sequence[tuple[str, str]]) -> int:
    """Fail unless the results file has each job, in the manifest's order. How many were recovered."""
    results = check_results(folder / "load.results.json")
    names = [one["name"] for one in results["created"]]
    if names != [f"j{number}" for number in range(len(pairs))]:
        raise LoadError("the results file is not the manifest, in its order")
    if len({one["job"]["id"] for one in results["created"]}) != len(pairs):
        raise LoadError("the results file has a job twice")
    return sum(one["recovered"] for one in results["created"])


def _check_flat(load: LoadResult, concurrency: int) -> None:
    """Fail unless what is held does not grow with what was sent."""
    files, threads = max(one.files for one in load.samples), max(one.threads for one in load.samples)
    if files > 2 * concurrency + 32:
        raise LoadError(f"{files} file descriptors\n{load}")
    if threads > concurrency + 8:
        raise LoadError(f"{threads} threads\n{load}")
    growth = load.sending[-1].memory - load.sending[0].memory
    if growth > _GROWTH * load.jobs + _BASE:
        raise LoadError(f"{growth} bytes more in the end\n{load}")


def main() -> int:
    """Run the load, and print what it took."""
    parser = argparse.ArgumentParser(prog="load", description="Send very many jobs, and see what that takes.")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=64)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            load = run(Path(folder), asked.jobs, asked.concurrency)
        except LoadError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    sys.stdout.write(f"{load}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
