"""Shell completion of what is in the ledger: jobs in doubt, their candidates, and runs.

The functions are click's `shell_complete` callbacks. They read the ledger that the command line refers to, and offer
nothing if it is missing or broken.
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

_MAX_RUNS = 50


@completers.completer
def complete_doubts(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The names of the jobs in doubt."""
    for name in dict.fromkeys(doubt.name for doubt in _read_doubts(ctx)):
        yield CompletionItem(name)


@completers.completer
def complete_adoptions(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """`NAME=JOB_ID` for each candidate that the last lookup found for a job in doubt; `NAME=` if it found none."""
    for doubt in _read_doubts(ctx):
        for job_id in doubt.candidates or ("",):
            yield CompletionItem(f"{doubt.name}={job_id}")


def _read_doubts(ctx: click.Context) -> list[SubmissionRow]:
    manifest = next((str(path) for path in completers.find_manifests(ctx)), None)
    with _open_ledger(ctx, manifest) as ledger:
        name = None if manifest is None else ledger_access.resolve_name(ledger, manifest)
        return [submission for submission in ledger.unresolved(manifest=name) if submission.state == "in_doubt"]


@completers.completer
def complete_runs(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The ids of the latest runs, with their manifests and states."""
    with _open_ledger(ctx, ctx.params.get("manifest")) as ledger:
        for run in islice(ledger.runs(), _MAX_RUNS):
            yield CompletionItem(run.id, help=escape_unprintable(f"{run.manifest}, {run.state}"))


def complete_last_or_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`last`, and the ids of the latest runs."""
    last = [CompletionItem("last", help="the latest run")] if "last".startswith(incomplete) else []
    return [*last, *complete_runs(ctx, parameter, incomplete)]


def complete_files_or_runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, and the ids of the latest runs. bash can show only one kind: files where no run matches."""
    return [*completers.complete_files(ctx, parameter, incomplete), *complete_runs(ctx, parameter, incomplete)]


@contextmanager
def _open_ledger(ctx: click.Context, manifest: str | None) -> Iterator[Ledger]:
    """Open the ledger that the command line refers to, for reading."""
    parameters: dict[str, Any] = ctx.params
    location = ledger_access.locate(manifest, parameters.get("ledger"), sandbox=bool(parameters.get("sandbox")))
    with ledger_access.open_ledger(location, read_only=True) as ledger:
        yield ledger
