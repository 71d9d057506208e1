"""The command `runs`: lists runs, newest first."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from runner.cli import completers, console, ledger_access, options
from runner.core.exit_codes import Exit
from runner.core.text import escape_unprintable
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs.results_file import format_time

_TITLES = ("started (UTC)", "run", "manifest", "API", "for", "state", "created", "not created", "in doubt", "cost")
_ALIGN = ("left",) * 6 + ("right",) * 4


@dataclass(frozen=True, slots=True)
class _Line:
    """A run, and the submissions that it was the last to send: how many are in which state now, and their cost.

    `state` is `interrupted` if the process of the run is gone.
    """

    run: RunRow
    state: str
    created: int
    not_created: int
    in_doubt: int
    cost: int


@click.command("runs")
@click.argument("manifest", metavar="[MANIFEST]", required=False, shell_complete=completers.complete_files)
@ledger_access.location_options
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="N",
    help="List at most N runs; 0 means all.",
)
@options.output_format("table", "json")
def command(manifest: str | None, ledger: Path | None, sandbox: bool, limit: int, format: str) -> Exit:  # noqa: A002 - the option's name
    """List the runs of MANIFEST (a file, or a name in the ledger) or of all manifests, newest first.

    The counts are of the jobs that a run sent itself, in their present state: they include what a later lookup or run
    found out about them.
    """
    location = ledger_access.locate(manifest, ledger, sandbox=sandbox)
    with ledger_access.open_ledger(location, read_only=True) as opened:
        name = None if manifest is None else ledger_access.resolve_name(opened, manifest)
        lines, total = _read_lines(opened, name, limit)
    if format == "json":
        console.output(json.dumps([_to_json(line) for line in lines], indent=2))
    elif lines:
        console.output(ledger_access.format_table(_TITLES, [_to_cells(line) for line in lines], _ALIGN))
    if not total:
        of_manifest = f" of {escape_unprintable(name)}" if name else ""
        console.info(f"the ledger {location.path} contains no runs{of_manifest} yet")
    elif total > len(lines):
        console.info(f"the latest {len(lines)} of {total} runs; --limit 0 lists all")
    return Exit.OK


def _read_lines(ledger: Ledger, manifest: str | None, limit: int) -> tuple[list[_Line], int]:
    """The latest runs, and how many there are."""
    runs = list(ledger.runs(manifest=manifest))
    tallies: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for run_id, state, cost, count in ledger.submission_counts():
        tallies[run_id][state] += count
        tallies[run_id]["cost"] += (cost or 0) * count
    return [_read_line(ledger, run, tallies[run.id]) for run in islice(runs, limit or None)], len(runs)


def _read_line(ledger: Ledger, run: RunRow, tally: Counter[str]) -> _Line:
    run, holder = ledger_access.refresh_run(ledger, run)
    is_dead = run.state == "running" and holder is None
    return _Line(
        run=run,
        state="interrupted" if is_dead else run.state,
        created=tally["created"],
        not_created=tally["not_created"],
        in_doubt=tally["in_doubt"] + (0 if holder else tally["sending"]),  # an intent of a dead process is a doubt
        cost=tally["cost"],
    )


def _to_cells(line: _Line) -> tuple[str, ...]:
    run = line.run
    is_own_key = run.run_key == f"run:{run.id}"
    period = "this run" if is_own_key else periods.describe_run_key(run.run_key)
    return (
        f"{run.started_at:%Y-%m-%d %H:%M:%S}",
        *map(escape_unprintable, (run.id, run.manifest, run.api, period)),
        line.state,
        *map(str, (line.created, line.not_created, line.in_doubt, line.cost)),
    )


def _to_json(line: _Line) -> dict[str, Any]:
    run = line.run
    return {
        "id": run.id,
        "manifest": run.manifest,
        "path": run.path,
        "api": run.api,
        "key": run.run_key,
        "state": line.state,
        "why": run.detail,
        "started_at": format_time(run.started_at),
        "finished_at": run.finished_at and format_time(run.finished_at),
        "created": line.created,
        "not_created": line.not_created,
        "in_doubt": line.in_doubt,
        "cost": line.cost,
    }
