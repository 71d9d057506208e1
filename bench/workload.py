"""A workload of the same jobs for every program, and the programs that run it. The server verifies that they did."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench import manifests
from bench.errors import BenchError
from bench.kit import KEY, Kit, baseline, program
from bench.processes import Location, Sample, run
from bench.servers import Server

_THREADS = "8"  # the default of pixxel-runner
_RESULTS = "manifest.results.json"
_HEAD = 16_384  # characters read from a results file, which contain the summary


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs to send to a server, as a manifest, a list of URLs and a curl configuration in a directory."""

    kit: Kit
    server: Server
    directory: Path
    jobs: int

    @property
    def manifest(self) -> Path:
        """The path of the manifest."""
        return self.directory / "manifest.yaml"

    @property
    def urls(self) -> Path:
        """The path of the list of URLs."""
        return self.directory / "urls.txt"

    @property
    def configuration(self) -> Path:
        """The path of the curl configuration."""
        return self.directory / "curl.txt"

    @property
    def location(self) -> Location:
        """Its directory, as a location to run a program in."""
        return self.kit.location(self.directory, self.server)

    @classmethod
    def prepare(cls, kit: Kit, server: Server, directory: Path, jobs: int) -> Workload:
        """Create a workload and write its files."""
        work = cls(kit, server, directory, jobs)
        manifests.write_manifest(work.manifest, jobs)
        manifests.write_urls(work.urls, jobs, server.url)
        manifests.write_curl_config(work.configuration, jobs, server.url, KEY)
        return work

    def fresh_run(self, *flags: str) -> Sample:
        """`pixxel-runner run` in a new directory with a new ledger."""
        with self.kit.temporary_directory() as directory:
            location = self.kit.location(directory, self.server)
            (directory / self.manifest.name).write_bytes(self.manifest.read_bytes())
            return self.run(location, self.jobs, *flags)

    def run(self, location: Location, sends: int, *flags: str) -> Sample:
        """`pixxel-runner run` at a location that has the manifest; it should send `sends` jobs."""
        self.server.reset_counts()
        sample = run([self.kit.runner, "run", self.manifest.name, *flags], location, jobs=sends)
        self._check_posts("pixxel-runner run", sends)
        created = _created(location.directory / _RESULTS)
        if created != self.jobs:
            raise BenchError(f"pixxel-runner run has {created} created jobs in its results file instead of {self.jobs}")
        return sample

    def validate(self) -> Sample:
        """`pixxel-runner validate`."""
        return run([self.kit.runner, "validate", self.manifest.name], self.location, jobs=self.jobs)

    def urllib3(self) -> Sample:
        """A bare urllib3 pool with threads."""
        return self._run_and_verify([*baseline("urllib3_loop"), KEY, self.urls.name, _THREADS])

    def requests(self) -> Sample:
        """The requests library with threads."""
        return self._run_and_verify([*baseline("requests_loop"), KEY, self.urls.name, _THREADS])

    def xargs(self) -> Sample:
        """One curl process per job, eight at a time."""
        curl = [program("curl"), "--silent", "--show-error", "--fail", "--request", "POST"]
        key = ["--header", f"Authorization: {KEY}"]
        return self._run_and_verify([program("xargs"), "-P", _THREADS, "-n", "1", *curl, *key], reads=self.urls)

    def curl(self) -> Sample:
        """One curl process for all jobs, eight at a time."""
        parallel = ["--parallel", "--parallel-max", _THREADS, "--no-progress-meter", "--fail"]
        return self._run_and_verify([program("curl"), *parallel, "--config", self.configuration.name])

    def _run_and_verify(self, command: list[str], *, reads: Path | None = None) -> Sample:
        self.server.reset_counts()
        sample = run(command, self.location, stdin_path=reads, jobs=self.jobs)
        self._check_posts(Path(command[0]).name, self.jobs)
        return sample

    def _check_posts(self, name: str, sends: int) -> None:
        """Check the number of jobs that the server received."""
        posts = self.server.counts().posts
        if posts != sends:
            raise BenchError(f"{name} should have sent {sends} jobs, but the server received {posts}")


def _created(results: Path) -> int:
    """The number of created jobs in a results file."""
    with results.open(encoding="utf-8") as file:
        head = file.read(_HEAD)
    _, _, summary = head.partition('"summary": ')
    created: int = json.JSONDecoder().raw_decode(summary)[0]["created"]
    return created
