"""One piece of work, the same jobs for every program, and the programs that may do it. Each is held to have done it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench import manifests
from bench.errors import BenchError
from bench.kit import KEY, Kit, baseline, program
from bench.processes import Location, Sample, run
from bench.servers import Server

_THREADS = "8"  # what pixxel-runner has by default
_RESULTS = "manifest.results.json"
_HEAD = 16_384  # characters: of a results file only the beginning is read, which has the counts


@dataclass(frozen=True, slots=True)
class Workload:
    """So many jobs to send to a server: a manifest, and the same as URLs and for curl, in a folder."""

    kit: Kit
    server: Server
    directory: Path
    jobs: int

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.directory / "manifest.yaml"

    @property
    def urls(self) -> Path:
        """Each job's URL on a line."""
        return self.directory / "urls.txt"

    @property
    def configuration(self) -> Path:
        """The same for curl."""
        return self.directory / "curl.txt"

    @property
    def location(self) -> Location:
        """Its folder, to run a program in."""
        return self.kit.location(self.directory, self.server)

    @classmethod
    def prepare(cls, kit: Kit, server: Server, folder: Path, jobs: int) -> Workload:
        """Work whose files are written."""
        work = cls(kit, server, folder, jobs)
        manifests.write_manifest(work.manifest, jobs)
        manifests.write_urls(work.urls, jobs, server.url)
        manifests.write_curl_config(work.configuration, jobs, server.url, KEY)
        return work

    def fresh_run(self, *flags: str) -> Sample:
        """`pixxel-runner run` in a fresh folder with a fresh ledger."""
        with self.kit.temporary_directory() as folder:
            place = self.kit.location(folder, self.server)
            (folder / self.manifest.name).write_bytes(self.manifest.read_bytes())
            return self.run(place, self.jobs, *flags)

    def run(self, place: Location, sends: int, *flags: str) -> Sample:
        """`pixxel-runner run` where a manifest lies already, which is to send so many jobs."""
        self.server.reset_counts()
        sample = run([self.kit.runner, "run", self.manifest.name, *flags], place, jobs=sends)
        self._check_posts("pixxel-runner run", sends)
        created = _created(place.directory / _RESULTS)
        if created != self.jobs:
            raise BenchError(f"pixxel-runner run has {created} created jobs on record, and not {self.jobs}")
        return sample

    def validate(self) -> Sample:
        """`pixxel-runner validate`."""
        return run([self.kit.runner, "validate", self.manifest.name], self.location, jobs=self.jobs)

    def urllib3(self) -> Sample:
        """A bare urllib3 pool in threads."""
        return self._run_and_verify([*baseline("urllib3_loop"), KEY, self.urls.name, _THREADS])

    def requests(self) -> Sample:
        """The requests library in threads."""
        return self._run_and_verify([*baseline("requests_loop"), KEY, self.urls.name, _THREADS])

    def xargs(self) -> Sample:
        """A curl for each job, eight at a time."""
        curl = [program("curl"), "--silent", "--show-error", "--fail", "--request", "POST"]
        key = ["--header", f"Authorization: {KEY}"]
        return self._run_and_verify([program("xargs"), "-P", _THREADS, "-n", "1", *curl, *key], reads=self.urls)

    def curl(self) -> Sample:
        """One curl for all, eight at a time."""
        parallel = ["--parallel", "--parallel-max", _THREADS, "--no-progress-meter", "--fail"]
        return self._run_and_verify([program("curl"), *parallel, "--config", self.configuration.name])

    def _run_and_verify(self, command: list[str], *, reads: Path | None = None) -> Sample:
        self.server.reset_counts()
        sample = run(command, self.location, stdin_path=reads, jobs=self.jobs)
        self._check_posts(Path(command[0]).name, self.jobs)
        return sample

    def _check_posts(self, name: str, sends: int) -> None:
        """Believe the server, and not the program."""
        posts = self.server.counts().posts
        if posts != sends:
            raise BenchError(f"{name} was to send {sends} jobs, and the server got {posts}")


def _created(results: Path) -> int:
    """How many created jobs a results file counts."""
    with results.open(encoding="utf-8") as file:
        head = file.read(_HEAD)
    _, _, summary = head.partition('"summary": ')
    created: int = json.JSONDecoder().raw_decode(summary)[0]["created"]
    return created
