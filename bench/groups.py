"""The groups of programs that are measured in turns, with their setup."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from bench import manifests
from bench.kit import Kit, program
from bench.processes import Sample, run
from bench.sizes import Sizes
from bench.workload import Workload

Turns = Mapping[str, Callable[[], Sample]]

_CONCURRENCIES = (16, 64)


@dataclass(frozen=True, slots=True)
class Group:
    """Programs that take turns. `open` sets them up, `turns` is the number of turns, `warm` adds a warm-up turn."""

    open: Callable[[Kit], AbstractContextManager[Turns]]
    turns: Callable[[Sizes], int]
    warm: bool = False


@contextmanager
def _throughput(kit: Kit) -> Iterator[Turns]:
    """Send many jobs to a fast server, with every program that can."""
    with kit.temporary_directory() as directory, kit.server() as server:
        work = Workload.prepare(kit, server, directory, kit.sizes.jobs)
        yield {
            "run": work.fresh_run,
            "urllib3": work.urllib3,
            "requests": work.requests,
            "xargs": work.xargs,
            "curl": work.curl,
        }


@contextmanager
def _delayed(kit: Kit) -> Iterator[Turns]:
    """Send jobs to a slow server, many at a time."""
    with kit.temporary_directory() as directory, kit.slow_server() as server:
        work = Workload.prepare(kit, server, directory, kit.sizes.delayed)
        turns: dict[str, Callable[[], Sample]] = {}
        for concurrency in _CONCURRENCIES:
            turns[f"run {concurrency}"] = partial(_delayed_run, work, concurrency)
            turns[f"ideal {concurrency}"] = partial(_ideal, kit.sizes, concurrency)
        yield turns


def _ideal(sizes: Sizes, concurrency: int) -> Sample:
    """The duration of an ideal sender without overhead."""
    return Sample(sizes.delayed * sizes.delay / concurrency, jobs=sizes.delayed)


def _delayed_run(work: Workload, concurrency: int) -> Sample:
    """Measure a run on the server, from first request to last response, and a second run with nothing to send."""
    with work.kit.temporary_directory() as directory:
        location = work.kit.location(directory, work.server)
        (directory / work.manifest.name).write_bytes(work.manifest.read_bytes())
        flag = f"--concurrency={concurrency}"
        whole = work.run(location, work.jobs, flag)
        counts = work.server.counts()
        nothing = work.run(location, 0, flag)
    more = {"whole": whole.seconds, "nothing": nothing.seconds, "held": counts.held}
    return replace(whole, seconds=counts.span, more=more)


@contextmanager
def _validation(kit: Kit) -> Iterator[Turns]:
    """Validate manifests against the schema."""
    with kit.temporary_directory() as first, kit.temporary_directory() as second, kit.server() as server:
        work = Workload.prepare(kit, server, first, kit.sizes.jobs)
        many = Workload.prepare(kit, server, second, kit.sizes.many)
        run([kit.runner, "schema"], work.location)
        schema = work.location.output.rename(first / "manifest.schema.json")
        command = [program("check-jsonschema"), "--schemafile", schema.name, work.manifest.name]
        yield {
            "validate": work.validate,
            "check-jsonschema": lambda: run(command, work.location, jobs=work.jobs),
            "validate many": many.validate,
        }


@contextmanager
def _growth(kit: Kit) -> Iterator[Turns]:
    """Run manifests of two sizes."""
    with kit.temporary_directory() as first, kit.temporary_directory() as second, kit.server() as server:
        yield {
            "run": Workload.prepare(kit, server, first, kit.sizes.jobs).fresh_run,
            "run many": Workload.prepare(kit, server, second, kit.sizes.many).fresh_run,
        }


@contextmanager
def _repeated(kit: Kit) -> Iterator[Turns]:
    """Run and plan a manifest that is complete, or has one new job."""
    with kit.temporary_directory() as directory, kit.server() as server:
        work = Workload.prepare(kit, server, directory, kit.sizes.many)
        work.run(work.location, work.jobs)
        turns = {"again": lambda: work.run(work.location, 0), "validate": work.validate}
        if kit.has("plan"):
            turns["plan"] = lambda: _plan_one_new_job(work)
        yield turns


def _plan_one_new_job(work: Workload) -> Sample:
    """`pixxel-runner plan` with one new job; `--exit-code` shows that it found it."""
    manifests.write_manifest(work.manifest, work.jobs + 1)
    try:
        return run([work.kit.runner, "plan", work.manifest.name, "--exit-code"], work.location, code=1)
    finally:
        manifests.write_manifest(work.manifest, work.jobs)


@contextmanager
def _startup(kit: Kit) -> Iterator[Turns]:
    """Measure the startup of commands that have little to do."""
    with kit.temporary_directory() as directory:
        location = kit.location(directory)
        (directory / "example.yaml").write_bytes((Path(__file__).parent.parent / "jobs.example.yaml").read_bytes())
        commands = {
            "--version": [kit.runner, "--version"],
            "--help": [kit.runner, "--help"],
            "import click": [sys.executable, "-c", "import click"],
            "validate": [kit.runner, "validate", "example.yaml"],
            "import three": [sys.executable, "-c", "import click, yaml, jsonschema"],
        }
        yield {name: partial(run, command, location) for name, command in commands.items()}


@contextmanager
def _large_responses(kit: Kit) -> Iterator[Turns]:
    """Run a manifest with large responses."""
    kit.require_space(kit.sizes.large, kit.sizes.many)
    with kit.temporary_directory() as directory, kit.server(kit.sizes.large) as server:
        yield {"run": Workload.prepare(kit, server, directory, kit.sizes.many).fresh_run}


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "sending": Group(_throughput, lambda sizes: sizes.turns),
        "waiting": Group(_delayed, lambda sizes: sizes.turns),
        "checking": Group(_validation, lambda sizes: sizes.turns, warm=True),
        "growing": Group(_growth, lambda sizes: sizes.turns_of_many),
        "again": Group(_repeated, lambda sizes: sizes.turns_of_many),
        "starting": Group(_startup, lambda sizes: sizes.turns_of_start, warm=True),
        "storing": Group(_large_responses, lambda _sizes: 1),
    }
)
