"""What can stand at a place of the command line that is completed: job names, doubts, runs, files.

The functions are what click takes as `shell_complete`. They read the manifest on the line and the ledger that goes
with it; where one is missing or broken they offer nothing.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from runner.text import visible

if TYPE_CHECKING:
    from runner.ledger.rows import Standing
    from runner.ledger.store import Ledger

_MOST_RUNS = 50
_LARGEST = 5_000_000  # bytes of a manifest: a person waits, and who has a longer one does not pick from it

_Offer = Callable[[click.Context, str], Iterable[CompletionItem]]
_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _quietly(offer: _Offer) -> _Complete:
    """Nothing instead of an error, and only what begins as it was typed."""

    @functools.wraps(offer)
    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with ctx.scope(cleanup=False):
                return [item for item in offer(ctx, incomplete) if str(item.value).startswith(incomplete)]
        except Exception:  # noqa: BLE001 - a person is in the middle of a line: whatever it is, no words
            return []

    return complete


def files(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders, which the shell finds itself."""
    return [CompletionItem(incomplete, type="file")]


@_quietly
def job_names(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The names of the jobs in the manifests on the line."""
    from runner import manifest  # noqa: PLC0415 - YAML and JSON Schema are slow to import

    for path in _manifests(ctx):
        if path.stat().st_size <= _LARGEST:
            checked = manifest.check(manifest.read_source(str(path), io.BytesIO()), str(path))
            yield from (CompletionItem(job.name) for job in (checked.manifest.jobs if checked.manifest else ()))


def _manifests(ctx: click.Context) -> Iterator[Path]:
    """The manifests that stand on the line so far. Only plain files: to read another might wait for ever."""
    # Of a line that ends with an option that waits for its value, click takes the arguments for left over.
    given = ctx.params.get("manifests") or ctx.params.get("manifest") or ctx.args
    for path in map(Path, [given] if isinstance(given, str) else given):
        found = sorted(path.glob("[!.]*.yaml")) if path.is_dir() else [path]
        yield from (one for one in found if one.is_file())


@_quietly
def doubts(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The names of the jobs in doubt."""
    for name in dict.fromkeys(doubt.name for doubt in _unsettled(ctx)):
        yield CompletionItem(name)


@_quietly
def adoptions(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """`NAME=JOB_ID` for each job in doubt and what the last look found for it; `NAME=` where it found nothing."""
    for doubt in _unsettled(ctx):
        for job_id in doubt.candidates or ("",):
            yield CompletionItem(f"{doubt.name}={job_id}")


def _unsettled(ctx: click.Context) -> list[Standing]:
    from runner.cli import records  # noqa: PLC0415 - tables and the ledger are slow to import

    given = next((str(path) for path in _manifests(ctx)), None)
    with _ledger(ctx, given) as ledger:
        name = None if given is None else records.name_of(ledger, given)
        return [one for one in ledger.unsettled(manifest=name) if one.state == "in_doubt"]


@_quietly
def runs(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The ids of the newest runs, and of which manifest they are."""
    with _ledger(ctx, ctx.params.get("manifest")) as ledger:
        for run in islice(ledger.runs(), _MOST_RUNS):
            yield CompletionItem(run.id, help=visible(f"{run.manifest}, {run.state}"))


def last_or_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`last`, and the ids of the newest runs."""
    last = [CompletionItem("last", help="the newest run")] if "last".startswith(incomplete) else []
    return [*last, *runs(ctx, parameter, incomplete)]


def files_or_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, and the ids of the newest runs: bash, which knows but one of them, shows files where no run fits."""
    return [*files(ctx, parameter, incomplete), *runs(ctx, parameter, incomplete)]


@contextmanager
def _ledger(ctx: click.Context, manifest: str | None) -> Iterator[Ledger]:
    """The ledger that the line speaks of, for reading."""
    from runner.cli import records  # noqa: PLC0415 - tables and the ledger are slow to import

    given: dict[str, Any] = ctx.params
    place = records.path_of(manifest, given.get("ledger"), sandbox=bool(given.get("sandbox")))
    with records.opened(place, read_only=True) as ledger:
        yield ledger
