"""The load test: sends very many jobs, with some responses lost, and measures resources.

    python -m support.load

The real command runs as a separate process against a sandbox in this one. Its memory, file descriptors and threads
are read from /proc while it runs; at the end the results file is compared with the sandbox's jobs.
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
# 5 % in total. Throttling is rare, as it pauses all workers for half a second.
FAULTS = (Fault("reset", 0.02), Fault("bad-gateway", 0.019), Fault("slow", 0.01, 0.05), Fault("rate-limit", 0.001))
_PER_WORKFLOW = 10  # jobs
_FIGURES = (("memory (MiB)", "memory", 2**20), ("file descriptors", "files", 1), ("threads", "threads", 1))
_GROWTH = 2**8  # maximum growth of memory in bytes per job, as results go to the ledger
_BASE = 2**24  # bytes of memory allowed for the first connections and responses


class LoadError(AssertionError):
    """The run failed, or its resource use grew."""


@dataclass(frozen=True)
class Sample:
    """A process `at` seconds after its start: bytes of memory, open file descriptors and threads."""

    at: float
    memory: int
    files: int
    threads: int


@dataclass(frozen=True)
class LoadResult:
    """The measurements of a run. `recovered` counts the jobs with lost responses that the lookup found."""

    jobs: int
    seconds: float
    cpu: float
    recovered: int
    faults: Counter[str]
    samples: Sequence[Sample]

    @property
    def sending(self) -> Sequence[Sample]:
        """The samples while all threads were running, during which resource use should stay flat."""
        most = max(one.threads for one in self.samples)
        return [one for one in self.samples if one.threads == most]

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        speed = f"{self.jobs / self.seconds:.0f} a second, {self.cpu:.0f} s of CPU time"
        lines = [
            f"{self.jobs} jobs in {self.seconds:.0f} s, {speed}; faults: {faults}; {self.recovered} recovered",
            f"{len(self.sending)} samples while sending, as first / median / last / peak (peak of all):",
        ]
        for what, name, unit in _FIGURES:
            values, every = ([getattr(one, name) / unit for one in some] for some in (self.sending, self.samples))
            shown = (values[0], statistics.median(values), values[-1], max(values))
            lines.append(f"  {what}: {' / '.join(f'{value:.0f}' for value in shown)} ({max(every):.0f})")
        return "\n".join(lines)


def run(directory: Path, jobs: int, concurrency: int, every: float = 1.0) -> LoadResult:
    """Run `jobs` jobs in a directory, sampling the process `every` so many seconds. Raises LoadError."""
    pairs = [(f"w-{number // _PER_WORKFLOW}", f"p-{number % _PER_WORKFLOW}") for number in range(jobs)]
    _write_manifest(directory / "load.yaml", pairs)
    fault_counts: Counter[str] = Counter()
    with Backend() as backend:
        backend.add_pairs(pairs)
        with Sandbox(backend, key=KEY, faults=FAULTS, log=lambda line: fault_counts.update(_kinds(line))) as sandbox:
            env = {"PIXXEL_API_KEY": KEY, "PIXXEL_BASE_URL": sandbox.base_url}
            inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
            command = [sys.executable, "-P", "-m", "runner", "run", "load.yaml", "--concurrency", str(concurrency)]
            with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
                process = subprocess.Popen(command, cwd=directory, env=inherited | env, stdout=out, stderr=err)
                samples, seconds, cpu = _watch(process, every)
        created = Counter((job.workflow_id, job.project_id) for w in dict(pairs) for job in backend.jobs(w))
    stderr = (directory / "stderr").read_text(encoding="utf-8")
    if process.returncode != 0:
        raise LoadError(f"it exited with code {process.returncode}: {stderr[-2000:]}")
    if created != Counter(pairs):
        raise LoadError("not every job was created exactly once")
    load = LoadResult(jobs, seconds, cpu, _check_record(directory, pairs), fault_counts, samples)
    _check_flat(load, concurrency)
    return load


def _kinds(line: str) -> list[str]:
    """The faults in a line of the sandbox's log; a reset has no status."""
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
    """Sample a process until it exits. Returns the samples, the duration, and the CPU time in seconds."""
    started, samples = time.monotonic(), list[Sample]()
    finished = threading.Event()

    def take_samples() -> None:
        while not finished.wait(every):
            sample = _sample(process.pid, time.monotonic() - started)
            if sample is not None:
                samples.append(sample)

    watcher = threading.Thread(target=take_samples)
    watcher.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        finished.set()
        watcher.join()
        if process.returncode is None:
            process.kill()
            process.wait()
    return samples, time.monotonic() - started, usage.ru_utime + usage.ru_stime


def _sample(pid: int, at: float) -> Sample | None:
    """Read a process's resources from /proc; None if it has just exited."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - only the number of names matters
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines())
    if "VmRSS" not in fields:
        return None
    return Sample(at, int(fields["VmRSS"].split()[0]) * 1024, files, int(fields["Threads"]))


def _check_record(directory: Path, pairs: Sequence[tuple[str, str]]) -> int:
    """Fail unless the results file has each job in the manifest's order. Returns the number of recovered jobs."""
    results = check_results(directory / "load.results.json")
    names = [one["name"] for one in results["created"]]
    if names != [f"j{number}" for number in range(len(pairs))]:
        raise LoadError("the results file does not list the jobs in the manifest's order")
    if len({one["job"]["id"] for one in results["created"]}) != len(pairs):
        raise LoadError("the results file lists a job twice")
    return sum(one["recovered"] for one in results["created"])


def _check_flat(load: LoadResult, concurrency: int) -> None:
    """Fail if resource use grew with the number of jobs sent."""
    files, threads = max(one.files for one in load.samples), max(one.threads for one in load.samples)
    if files > 2 * concurrency + 32:
        raise LoadError(f"{files} file descriptors\n{load}")
    if threads > concurrency + 8:
        raise LoadError(f"{threads} threads\n{load}")
    growth = load.sending[-1].memory - load.sending[0].memory
    if growth > _GROWTH * load.jobs + _BASE:
        raise LoadError(f"memory grew by {growth} bytes\n{load}")


def main() -> int:
    """Run the load test and print its measurements."""
    parser = argparse.ArgumentParser(prog="load", description="Send very many jobs and measure resource use.")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        try:
            load = run(Path(directory), options.jobs, options.concurrency)
        except LoadError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    sys.stdout.write(f"{load}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
