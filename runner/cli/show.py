"""The command `show`: prints the record of a run again, as the ledger has it now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from runner import periods, record, report, results
from runner.cli import console, options, records
from runner.errors import Exit, RefusedError, UsageError
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.model import Entries, Entry, ErrorInfo, InDoubt, Record, Skipped
from runner.text import visible

_LAST = "last"
_MOST_LISTED = 10


@click.command("show")
@click.argument("run", default=_LAST)
@records.place
@click.option("--manifest", metavar="MANIFEST", help="Whose last run: a manifest's file, or its name in the ledger.")
@click.option(
    "--format",
    "style",
    envvar="PIXXEL_RUNNER_FORMAT",
    type=click.Choice(list(report.FORMATS)),
    default="table",
    show_default=True,
    help="How it is printed; json is what the results file holds.",
)
@click.option(
    "--results",
    "target",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write the results file again, there.",
)
@click.option("--all", "every", is_flag=True, help="List every job in the table, also beyond 1,000.")
@options.colors
def command(
    run: str, ledger: Path | None, sandbox: bool, manifest: str | None, style: str, target: Path | None, every: bool
) -> Exit:
    """Print the record of RUN (the start of a run's id, or `last`) as the ledger has it now.

    What was settled since then shows: a job that was in doubt and found, say. Where runs count as one, as on one day
    with once_per: day, the record is of all of them.
    """
    with records.opened(records.path_of(manifest, ledger, sandbox=sandbox)) as opened:
        name = None if manifest is None else records.name_of(opened, manifest)
        found, holder = records.now(opened, _find(opened, run, name))
        shown = _record(opened, found, going=holder is not None)
        wanted = report.Style(width=console.stdout_width(), color=console.stdout_color(), every=every)
        console.out(report.FORMATS[style](shown, wanted))
        console.say(_about(found, holder))
        if target is not None:
            results.write(shown, target)
            console.say(f"results: {target}")
        _advise(opened, found, going=holder is not None)
    return Exit.OK


def _find(ledger: Ledger, wanted: str, manifest: str | None) -> RunRow:
    """The run that is meant.

    Raises:
        RefusedError: there is no run at all.
        UsageError: none begins so, or several do.
    """
    runs = list(ledger.runs(manifest=manifest))
    if not runs:
        whose = f" of {visible(manifest)}" if manifest else ""
        raise RefusedError(f"the ledger {ledger.path} has no run{whose} yet", "`pixxel-runner run MANIFEST` makes one.")
    if wanted == _LAST:
        return runs[0]
    found = [run for run in runs if run.id.startswith(wanted)]
    exact = [run for run in found if run.id == wanted]
    if len(exact or found) == 1:
        return (exact or found)[0]
    raise _ambiguous(wanted, found) if found else _unknown(ledger, wanted)


def _ambiguous(wanted: str, found: list[RunRow]) -> UsageError:
    listed = [f"{run.id} ({visible(run.manifest)})" for run in found[:_MOST_LISTED]]
    more = [f"{len(found) - _MOST_LISTED} more"] if len(found) > _MOST_LISTED else []
    return UsageError(f"{len(found)} runs begin with {wanted!r}", f"Give more of it: {', '.join(listed + more)}.")


def _unknown(ledger: Ledger, wanted: str) -> UsageError:
    names = {name for _, name, _ in ledger.manifests()}
    if wanted in names or os.path.exists(wanted):  # noqa: PTH110 - Path.exists raises for a name that is too long
        return UsageError(f"{wanted!r} is no run's id", f"For a manifest's last run: show --manifest {visible(wanted)}")
    return UsageError(f"no run begins with {wanted!r}", "`pixxel-runner runs` lists them; `last` is the newest.")


def _record(ledger: Ledger, run: RunRow, *, going: bool) -> Record:
    """The record of a run; of one that is still going on, as far as it has come."""
    made = record.of_run(ledger, run)
    return Record(made.run, _SoFar(made.entries)) if going else made


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
    whose = f"run {run.id} of {visible(run.manifest)} at {visible(run.api)}"
    period = "" if run.run_key == f"run:{run.id}" else f", for {visible(periods.describe(run.run_key))}"
    if holder is not None:
        return f"{whose}{period}: has not ended, this is what it has so far; locked by {visible(holder)}"
    if run.state == "running":
        return f"{whose}{period}: interrupted, its process ended without a word"
    return f"{whose}{period}: {run.state}{f', {visible(run.why)}' if run.why else ''}"


def _advise(ledger: Ledger, run: RunRow, *, going: bool) -> None:
    unsettled = [one for one in ledger.unsettled(run.api, run.manifest) if one.run_key == run.run_key]
    doubts = sum(one.state == "in_doubt" or not going for one in unsettled)
    if doubts:
        console.warn(f"{doubts} job{' is' if doubts == 1 else 's are'} in doubt: pixxel-runner resolve looks them up")
