"""The command `show`: prints a run as it is in the ledger now."""

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
from runner.ledger.rows import KILLED, RunRow
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
    help="Consider only the runs of this manifest: a file, or a name in the ledger.",
)
@output.options(reports.RUN_FORMATS)
@click.option(
    "--results",
    "results_path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write the results file again, to PATH.",
)
@options.colors
def command(
    run: str, ledger: Path | None, sandbox: bool, manifest: str | None, results_path: Path | None, **parameters: Any
) -> Exit:
    """Print the jobs of RUN (the start of a run's id, or `last`) as they are in the ledger now.

    That includes what was found out after the run, such as a job in doubt that a later lookup settled. Runs that share
    a run key, such as those of one day with `once_per: day`, are shown together.
    """
    output_options = OutputOptions(**parameters)
    location = ledger_access.locate(manifest, ledger, sandbox=sandbox)
    output_options.check_targets([results_path] if results_path else [], [*location.files, Path(manifest or "")])
    with ledger_access.open_ledger(location, read_only=True) as opened:
        name = None if manifest is None else ledger_access.resolve_name(opened, manifest)
        row, holder = ledger_access.refresh_run(opened, ledger_access.find_run(opened, run, name))
        is_running = holder is not None
        run_summary = summary.summarize(_read_record(opened, row, is_running=is_running))
        is_written = output_options.write(reports.RUN_FORMATS, [run_summary])
        console.info(_describe(row, holder))
        if results_path is not None:
            results_file.write(run_summary, results_path)
            console.info(f"results: {results_path}")
        _warn_of_doubts(opened, row, manifest, is_running=is_running)
    return Exit.OK if is_written else Exit.REFUSED


def _read_record(ledger: Ledger, run: RunRow, *, is_running: bool) -> RunRecord:
    run_record = record.load_record(ledger, run)
    return RunRecord(run_record.run, _RunningEntries(run_record.entries)) if is_running else run_record


@dataclass(frozen=True, slots=True)
class _RunningEntries:
    """The entries of a run in progress: what would be interrupted or in doubt is only not done yet."""

    entries: Entries

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        for entry in self.entries:
            match entry.outcome:
                # That very object stands for an intent without an outcome; real doubts have errors from the ledger.
                case InDoubt(error=error, attempts=attempts, sent_at=sent_at) if error is KILLED:
                    sending = ErrorInfo("sending", "the request is in progress")
                    yield Entry(entry.job, InDoubt(sending, attempts, sent_at), entry.run_id)
                case Skipped(reason="interrupted"):
                    yield Entry(entry.job, Skipped("waiting", "the run is still in progress"), entry.run_id)
                case _:
                    yield entry


def _describe(run: RunRow, holder: str | None) -> str:
    period = "" if run.run_key == f"run:{run.id}" else f", for {periods.describe_run_key(run.run_key)}"
    if holder is not None:
        process = holder.removeprefix(f"run {run.id} ")
        locked = f"; locked by {holder}" if process == holder else ""
        state = f"still in progress{'' if locked else f' {process}'}; the jobs so far are shown{locked}"
    elif run.state == "running":
        state = "interrupted; its process ended unexpectedly"
    else:
        detail = run.detail.removeprefix(f"{run.state} ")
        state = f"{run.state}{', ' if detail == run.detail else ' '}{detail}" if detail else run.state
    return escape_unprintable(f"run {run.id} of {run.manifest} at {run.api}{period}: {state}")


def _warn_of_doubts(ledger: Ledger, run: RunRow, manifest: str | None, *, is_running: bool) -> None:
    unresolved = [row for row in ledger.unresolved(run.api, run.manifest) if row.run_key == run.run_key]
    doubts = sum(row.state == "in_doubt" or not is_running for row in unresolved)
    if doubts:
        jobs, pronoun = ("job is", "it") if doubts == 1 else ("jobs are", "them")
        command_line = options.format_command("resolve", manifest or run.manifest)
        console.warn(f"{doubts} {jobs} in doubt; look {pronoun} up with: {command_line}")
