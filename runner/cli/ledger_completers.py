"""What a ledger has for a place of the command line that is completed: doubts, what they may be, and runs.

The functions are what click takes as `shell_complete`. They read the ledger that goes with the manifest on the line;
where it is missing or broken they offer nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import click
from click.shell_completion import CompletionItem

from runner.cli import completers, ledger_access
from runner.core.text import escape_unprintable
from runner.ledger.rows import SubmissionRow
from runner.ledger.store import Ledger

_MOST_RUNS = 50


@completers.completer
def complete_doubts(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The names of the jobs in doubt."""
    for name in dict.fromkeys(doubt.name for doubt in _unsettled(ctx)):
        yield CompletionItem(name)


@completers.completer
def complete_adoptions(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """`NAME=JOB_ID` for each job in doubt and what the last look found for it; `NAME=` where it found nothing."""
    for doubt in _unsettled(ctx):
        for job_id in doubt.candidates or ("",):
            yield CompletionItem(f"{doubt.name}={job_id}")


def _unsettled(ctx: click.Context) -> list[SubmissionRow]:
    given = next((str(path) for path in completers.find_manifests(ctx)), None)
    with _ledger(ctx, given) as ledger:
        name = None if given is None else ledger_access.resolve_name(ledger, given)
        return [one for one in ledger.unresolved(manifest=name) if one.state == "in_doubt"]


@completers.completer
def complete_runs(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The ids of the newest runs, and of which manifest they are."""
    with _ledger(ctx, ctx.params.get("manifest")) as ledger:
        for run in islice(ledger.runs(), _MOST_RUNS):
            yield CompletionItem(run.id, help=escape_unprintable(f"{run.manifest}, {run.state}"))


def complete_last_or_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`last`, and the ids of the newest runs."""
    last = [CompletionItem("last", help="the newest run")] if "last".startswith(incomplete) else []
    return [*last, *complete_runs(ctx, parameter, incomplete)]


def complete_files_or_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, and the ids of the newest runs: bash, which knows but one of them, shows files where no run fits."""
    return [*completers.complete_files(ctx, parameter, incomplete), *complete_runs(ctx, parameter, incomplete)]


@contextmanager
def _ledger(ctx: click.Context, manifest: str | None) -> Iterator[Ledger]:
    """The ledger that the line speaks of, for reading."""
    given: dict[str, Any] = ctx.params
    place = ledger_access.locate(manifest, given.get("ledger"), sandbox=bool(given.get("sandbox"))).path
    with ledger_access.open_ledger(place, read_only=True) as ledger:
        yield ledger
