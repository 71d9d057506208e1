"""What is measured together, in turns: for each group, what it needs, and each program's turn by its name."""

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
    """Programs that take turns. `open` prepares them; `turns` says how many each has; `warm` gives each one before."""

    open: Callable[[Kit], AbstractContextManager[Turns]]
    turns: Callable[[Sizes], int]
    warm: bool = False


@contextmanager
def _throughput(kit: Kit) -> Iterator[Turns]:
    """Many jobs to a fast server, by whoever can."""
    with kit.temporary_directory() as folder, kit.server() as server:
        work = Workload.prepare(kit, server, folder, kit.sizes.jobs)
        yield {
            "run": work.fresh_run,
            "urllib3": work.urllib3,
            "requests": work.requests,
            "xargs": work.xargs,
            "curl": work.curl,
        }


@contextmanager
def _delayed(kit: Kit) -> Iterator[Turns]:
    """Jobs to a slow server, many at a time."""
    with kit.temporary_directory() as folder, kit.slow_server() as server:
        work = Workload.prepare(kit, server, folder, kit.sizes.delayed)
        turns: dict[str, Callable[[], Sample]] = {}
        for concurrency in _CONCURRENCIES:
            turns[f"run {concurrency}"] = partial(_delayed_run, work, concurrency)
            turns[f"ideal {concurrency}"] = partial(_ideal, kit.sizes, concurrency)
        yield turns


def _ideal(sizes: Sizes, concurrency: int) -> Sample:
    """What a sender that costs nothing would take."""
    return Sample(sizes.delayed * sizes.delay / concurrency, jobs=sizes.delayed)


def _delayed_run(work: Workload, concurrency: int) -> Sample:
    """A run as the server sees it, from the first request to the last answer; and again, with nothing to send."""
    with work.kit.temporary_directory() as folder:
        place = work.kit.location(folder, work.server)
        (folder / work.manifest.name).write_bytes(work.manifest.read_bytes())
        flag = f"--concurrency={concurrency}"
        whole = work.run(place, work.jobs, flag)
        seen = work.server.counts()
        nothing = work.run(place, 0, flag)
    more = {"whole": whole.seconds, "nothing": nothing.seconds, "held": seen.held}
    return replace(whole, seconds=seen.span, more=more)


@contextmanager
def _validation(kit: Kit) -> Iterator[Turns]:
    """Manifests against their schema."""
    with kit.temporary_directory() as one, kit.temporary_directory() as other, kit.server() as server:
        work = Workload.prepare(kit, server, one, kit.sizes.jobs)
        many = Workload.prepare(kit, server, other, kit.sizes.many)
        run([kit.runner, "schema"], work.location)
        schema = work.location.output.rename(one / "manifest.schema.json")
        command = [program("check-jsonschema"), "--schemafile", schema.name, work.manifest.name]
        yield {
            "validate": work.validate,
            "check-jsonschema": lambda: run(command, work.location, jobs=work.jobs),
            "validate many": many.validate,
        }


@contextmanager
def _growth(kit: Kit) -> Iterator[Turns]:
    """Whole runs of two sizes."""
    with kit.temporary_directory() as one, kit.temporary_directory() as other, kit.server() as server:
        yield {
            "run": Workload.prepare(kit, server, one, kit.sizes.jobs).fresh_run,
            "run many": Workload.prepare(kit, server, other, kit.sizes.many).fresh_run,
        }


@contextmanager
def _repeated(kit: Kit) -> Iterator[Turns]:
    """What is all done, and what has one new job."""
    with kit.temporary_directory() as folder, kit.server() as server:
        work = Workload.prepare(kit, server, folder, kit.sizes.many)
        work.run(work.location, work.jobs)
        turns = {"again": lambda: work.run(work.location, 0), "validate": work.validate}
        if kit.has("plan"):
            turns["plan"] = lambda: _plan_one_new_job(work)
        yield turns


def _plan_one_new_job(work: Workload) -> Sample:
    """`pixxel-runner plan` with one job more than the ledger has; `--exit-code` shows that it saw it."""
    manifests.write_manifest(work.manifest, work.jobs + 1)
    try:
        return run([work.kit.runner, "plan", work.manifest.name, "--exit-code"], work.location, code=1)
    finally:
        manifests.write_manifest(work.manifest, work.jobs)


@contextmanager
def _startup(kit: Kit) -> Iterator[Turns]:
    """What a command costs that has nothing much to do."""
    with kit.temporary_directory() as folder:
        place = kit.location(folder)
        (folder / "example.yaml").write_bytes((Path(__file__).parent.parent / "jobs.example.yaml").read_bytes())
        commands = {
            "--version": [kit.runner, "--version"],
            "--help": [kit.runner, "--help"],
            "import click": [sys.executable, "-c", "import click"],
            "validate": [kit.runner, "validate", "example.yaml"],
            "import three": [sys.executable, "-c", "import click, yaml, jsonschema"],
        }
        yield {name: partial(run, command, place) for name, command in commands.items()}


@contextmanager
def _large_responses(kit: Kit) -> Iterator[Turns]:
    """A run whose answers are large."""
    kit.require_space(kit.sizes.large, kit.sizes.many)
    with kit.temporary_directory() as folder, kit.server(kit.sizes.large) as server:
        yield {"run": Workload.prepare(kit, server, folder, kit.sizes.many).fresh_run}


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
