"""The command `runs`: lists what was run, newest first."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from runner.cli import completers, console, ledger_access
from runner.core.exit_codes import Exit
from runner.core.text import escape_unprintable
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs.results_file import format_time

_TITLES = ("started (UTC)", "run", "manifest", "API", "for", "state", "created", "not created", "in doubt", "cost")
_ALIGN = ("left",) * 6 + ("right",) * 4


@dataclass(frozen=True, slots=True)
class _Tally:
    """How many submissions a run was the last to send, by their state now; the cost, in tokens, of those created."""

    states: Mapping[str, int]
    cost: int


@dataclass(frozen=True, slots=True)
class _Line:
    """One run with what became of what it sent. `state` is the ledger's, but for a run whose process is gone."""

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
    "--limit", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="How many at most; 0: all."
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How they are printed.",
)
def command(manifest: str | None, ledger: Path | None, sandbox: bool, limit: int, style: str) -> Exit:
    """List what was run, newest first: of MANIFEST (its file, or its name in the ledger), or of every manifest.

    The counts are of the jobs that a run itself sent, as they stand now: a later look-up, or a retry by another run,
    shows there.
    """
    with ledger_access.open_ledger(
        ledger_access.locate(manifest, ledger, sandbox=sandbox).path, read_only=True
    ) as opened:
        name = None if manifest is None else ledger_access.resolve_name(opened, manifest)
        lines, total = _lines(opened, name, limit)
    if style == "json":
        console.output(json.dumps([_as_json(line) for line in lines], indent=2))
    elif lines:
        console.output(_table(lines))
    if not total:
        console.info(f"the ledger {opened.path} has no run{f' of {escape_unprintable(name)}' if name else ''} yet")
    elif total > len(lines):
        console.info(f"the newest {len(lines)} of {total} runs: --limit 0 lists all")
    return Exit.OK


def _lines(ledger: Ledger, name: str | None, limit: int) -> tuple[list[_Line], int]:
    """The newest runs, and how many there are."""
    runs = list(ledger.runs(manifest=name))
    tallies = _tallies(ledger.submission_counts())
    nothing = _Tally({}, 0)
    return [_line(ledger, run, tallies.get(run.id, nothing)) for run in islice(runs, limit or None)], len(runs)


def _tallies(counts: Iterable[tuple[str, str, int | None, int]]) -> dict[str, _Tally]:
    states: defaultdict[str, Counter[str]] = defaultdict(Counter)
    costs: Counter[str] = Counter()
    for run_id, state, cost, count in counts:
        states[run_id][state] += count
        costs[run_id] += (cost or 0) * count
    return {run_id: _Tally(counted, costs[run_id]) for run_id, counted in states.items()}


def _line(ledger: Ledger, run: RunRow, tally: _Tally) -> _Line:
    run, holder = ledger_access.refresh_run(ledger, run)
    gone = run.state == "running" and holder is None
    of = Counter(tally.states)
    return _Line(
        run=run,
        state="interrupted" if gone else run.state,
        created=of["created"],
        not_created=of["not_created"],
        in_doubt=of["in_doubt"] + (0 if holder else of["sending"]),  # an intent of a dead process is a doubt
        cost=tally.cost,
    )


def _table(lines: Sequence[_Line]) -> str:
    return ledger_access.format_table(_TITLES, [_row(line) for line in lines], _ALIGN)


def _row(line: _Line) -> tuple[str, ...]:
    run = line.run
    return (
        f"{run.started_at:%Y-%m-%d %H:%M:%S}",
        escape_unprintable(run.id),
        escape_unprintable(run.manifest),
        escape_unprintable(run.api),
        escape_unprintable(_for(run)),
        line.state,
        *(str(count) for count in (line.created, line.not_created, line.in_doubt, line.cost)),
    )


def _for(run: RunRow) -> str:
    """The run key in words; a run of its own says so in its id, unless it finished another's."""
    return "itself" if run.run_key == f"run:{run.id}" else periods.describe_run_key(run.run_key)


def _as_json(line: _Line) -> dict[str, Any]:
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
