"""The command `show`: prints the record of a run again, as the ledger has it now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from runner import reports
from runner.cli import completers, console, ledger_access, ledger_completers, options, output
from runner.cli.output import OutputOptions
from runner.core.exit_codes import Exit
from runner.core.models import Entries, Entry, ErrorInfo, InDoubt, RunRecord, Skipped
from runner.core.text import escape_unprintable
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs import record, results_file, summary


@click.command("show")
@click.argument("run", default=ledger_access.LAST, shell_complete=ledger_completers.complete_last_or_runs)
@ledger_access.location_options
@click.option(
    "--manifest",
    metavar="MANIFEST",
    shell_complete=completers.complete_files,
    help="Whose last run: a manifest's file, or its name in the ledger.",
)
@output.options(reports.RUN_FORMATS)
@click.option(
    "--results",
    "target",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write the results file again, there.",
)
@options.colors
def command(
    run: str, ledger: Path | None, sandbox: bool, manifest: str | None, target: Path | None, **given: Any
) -> Exit:
    """Print the record of RUN (the start of a run's id, or `last`) as the ledger has it now.

    What was settled since then shows: a job that was in doubt and found, say. Where runs count as one, as on one day
    with once_per: day, the record is of all of them.
    """
    wanted = OutputOptions(**given)
    place = ledger_access.locate(manifest, ledger, sandbox=sandbox)
    wanted.check_targets([target] if target else [], [*place.files, Path(manifest or "")])
    with ledger_access.open_ledger(place.path, read_only=True) as opened:
        name = None if manifest is None else ledger_access.resolve_name(opened, manifest)
        found, holder = ledger_access.refresh_run(opened, ledger_access.find_run(opened, run, name))
        shown = summary.summarize(_record(opened, found, going=holder is not None))
        done = wanted.write(reports.RUN_FORMATS, [shown])
        console.info(_about(found, holder))
        if target is not None:
            results_file.write(shown, target)
            console.info(f"results: {target}")
        _advise(opened, found, going=holder is not None)
    return Exit.OK if done else Exit.REFUSED


def _record(ledger: Ledger, run: RunRow, *, going: bool) -> RunRecord:
    """The record of a run; of one that is still going on, as far as it has come."""
    made = record.load_record(ledger, run)
    return RunRecord(made.run, _SoFar(made.entries)) if going else made


@dataclass(frozen=True, slots=True)
class _SoFar:
    """The entries of a run that is still going on: nothing is interrupted or in doubt as its process is alive."""

    entries: Entries

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        for entry in self.entries:
            match entry.outcome:
                # The very one: it stands for an intent without an outcome. Real doubts have their own, from the ledger.
                case InDoubt(error=error, attempts=attempts, sent_at=sent_at) if error is record.KILLED:
                    sending = ErrorInfo("sending", "it is being sent at this moment")
                    yield Entry(entry.job, InDoubt(sending, attempts, sent_at), entry.run_id)
                case Skipped(reason="interrupted"):
                    yield Entry(entry.job, Skipped("waiting", "the run is still going on"), entry.run_id)
                case _:
                    yield entry


def _about(run: RunRow, holder: str | None) -> str:
    whose = f"run {run.id} of {escape_unprintable(run.manifest)} at {escape_unprintable(run.api)}"
    period = (
        "" if run.run_key == f"run:{run.id}" else f", for {escape_unprintable(periods.describe_run_key(run.run_key))}"
    )
    if holder is not None:
        return f"{whose}{period}: has not ended, this is what it has so far; locked by {escape_unprintable(holder)}"
    if run.state == "running":
        return f"{whose}{period}: interrupted, its process ended without a word"
    return f"{whose}{period}: {run.state}{f', {escape_unprintable(run.detail)}' if run.detail else ''}"


def _advise(ledger: Ledger, run: RunRow, *, going: bool) -> None:
    unsettled = [one for one in ledger.unresolved(run.api, run.manifest) if one.run_key == run.run_key]
    doubts = sum(one.state == "in_doubt" or not going for one in unsettled)
    if doubts:
        console.warn(f"{doubts} job{' is' if doubts == 1 else 's are'} in doubt: pixxel-runner resolve looks them up")
