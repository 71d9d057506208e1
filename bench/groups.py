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
from bench.workload import Work

Turns = Mapping[str, Callable[[], Sample]]

_CONCURRENCIES = (16, 64)


@dataclass(frozen=True, slots=True)
class Group:
    """Programs that take turns. `open` prepares them; `turns` says how many each has; `warm` gives each one before."""

    open: Callable[[Kit], AbstractContextManager[Turns]]
    turns: Callable[[Sizes], int]
    warm: bool = False


@contextmanager
def _sending(kit: Kit) -> Iterator[Turns]:
    """Many jobs to a fast server, by whoever can."""
    with kit.folder() as folder, kit.server() as server:
        work = Work.prepared(kit, server, folder, kit.sizes.jobs)
        yield {
            "run": work.anew,
            "urllib3": work.urllib3,
            "requests": work.requests,
            "xargs": work.xargs,
            "curl": work.curl,
        }


@contextmanager
def _waiting(kit: Kit) -> Iterator[Turns]:
    """Jobs to a slow server, many at a time."""
    with kit.folder() as folder, kit.slow_server() as server:
        work = Work.prepared(kit, server, folder, kit.sizes.delayed)
        turns: dict[str, Callable[[], Sample]] = {}
        for concurrency in _CONCURRENCIES:
            turns[f"run {concurrency}"] = partial(_waited, work, concurrency)
            turns[f"ideal {concurrency}"] = partial(_ideal, kit.sizes, concurrency)
        yield turns


def _ideal(sizes: Sizes, concurrency: int) -> Sample:
    """What a sender that costs nothing would take."""
    return Sample(sizes.delayed * sizes.delay / concurrency, jobs=sizes.delayed)


def _waited(work: Work, concurrency: int) -> Sample:
    """A run as the server sees it, from the first request to the last answer; and again, with nothing to send."""
    with work.kit.folder() as folder:
        place = work.kit.place(folder, work.server)
        (folder / work.manifest.name).write_bytes(work.manifest.read_bytes())
        flag = f"--concurrency={concurrency}"
        whole = work.run(place, work.jobs, flag)
        seen = work.server.tally()
        nothing = work.run(place, 0, flag)
    more = {"whole": whole.seconds, "nothing": nothing.seconds, "held": seen.held}
    return replace(whole, seconds=seen.span, more=more)


@contextmanager
def _checking(kit: Kit) -> Iterator[Turns]:
    """Manifests against their schema."""
    with kit.folder() as one, kit.folder() as other, kit.server() as server:
        work = Work.prepared(kit, server, one, kit.sizes.jobs)
        many = Work.prepared(kit, server, other, kit.sizes.many)
        run([kit.runner, "schema"], work.place)
        schema = work.place.output.rename(one / "manifest.schema.json")
        command = [program("check-jsonschema"), "--schemafile", schema.name, work.manifest.name]
        yield {
            "validate": work.validate,
            "check-jsonschema": lambda: run(command, work.place, jobs=work.jobs),
            "validate many": many.validate,
        }


@contextmanager
def _growing(kit: Kit) -> Iterator[Turns]:
    """Whole runs of two sizes."""
    with kit.folder() as one, kit.folder() as other, kit.server() as server:
        yield {
            "run": Work.prepared(kit, server, one, kit.sizes.jobs).anew,
            "run many": Work.prepared(kit, server, other, kit.sizes.many).anew,
        }


@contextmanager
def _again(kit: Kit) -> Iterator[Turns]:
    """What is all done, and what has one new job."""
    with kit.folder() as folder, kit.server() as server:
        work = Work.prepared(kit, server, folder, kit.sizes.many)
        work.run(work.place, work.jobs)
        turns = {"again": lambda: work.run(work.place, 0), "validate": work.validate}
        if kit.has("plan"):
            turns["plan"] = lambda: _planned(work)
        yield turns


def _planned(work: Work) -> Sample:
    """`pixxel-runner plan` with one job more than the ledger has; `--exit-code` shows that it saw it."""
    manifests.write_manifest(work.manifest, work.jobs + 1)
    try:
        return run([work.kit.runner, "plan", work.manifest.name, "--exit-code"], work.place, code=1)
    finally:
        manifests.write_manifest(work.manifest, work.jobs)


@contextmanager
def _starting(kit: Kit) -> Iterator[Turns]:
    """What a command costs that has nothing much to do."""
    with kit.folder() as folder:
        place = kit.place(folder)
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
def _storing(kit: Kit) -> Iterator[Turns]:
    """A run whose answers are large."""
    kit.need_room(kit.sizes.large, kit.sizes.many)
    with kit.folder() as folder, kit.server(kit.sizes.large) as server:
        yield {"run": Work.prepared(kit, server, folder, kit.sizes.many).anew}


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "sending": Group(_sending, lambda sizes: sizes.turns),
        "waiting": Group(_waiting, lambda sizes: sizes.turns),
        "checking": Group(_checking, lambda sizes: sizes.turns, warm=True),
        "growing": Group(_growing, lambda sizes: sizes.turns_of_many),
        "again": Group(_again, lambda sizes: sizes.turns_of_many),
        "starting": Group(_starting, lambda sizes: sizes.turns_of_start, warm=True),
        "storing": Group(_storing, lambda _sizes: 1),
    }
)
