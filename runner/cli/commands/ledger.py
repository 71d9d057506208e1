"""The command `ledger`: makes, checks and exports the record of what was submitted."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from runner.cli import console, ledger_access
from runner.client.job import decode_lossless, is_embeddable
from runner.core.errors import UsageError
from runner.core.exit_codes import Exit
from runner.core.text import escape_unprintable
from runner.ledger import connect, lock, salvage
from runner.ledger.location import path_exists
from runner.ledger.rows import RunRow, SubmissionRow
from runner.ledger.salvage import SalvagedSubmission
from runner.ledger.store import Ledger
from runner.planning import plan
from runner.runs.reconcile import describe_doubt

_STDIN = "-"
_STATES = ("created", "not_created", "in_doubt", "sending", "released")
_MOST_LISTED = 20

# What JSON may hold raw within strings and between tokens, and a line of ASCII may not.
_NOT_PLAIN = re.compile(r"[^ -~]|##(?=\[|vso\[)")


@click.group("ledger")
def command() -> None:
    """Make, check or export the record of what was submitted.

    Without it nobody knows what was bought: keep it where it lasts, and in a backup.
    """


@command.command("init")
@click.argument("path", type=click.Path(path_type=Path))
def init(path: Path) -> Exit:
    """Make a new, empty ledger at PATH. One that exists is never overwritten."""
    if path_exists(path) and path.is_dir():
        raise UsageError(f"{path} is a folder", f"Name the ledger's file in it: {path / 'ledger.db'}")
    connect.create_ledger(path)
    console.info(f"made the ledger {path}")
    setting = f"PIXXEL_RUNNER_LEDGER={shlex.quote(str(path.absolute()))}"
    console.info(f"next: have every run use it, with --ledger or by: export {setting}")
    console.info("  Keep it between runs, on a local disk, and in a backup: it says what must not be bought again.")
    return Exit.OK


@command.command("check")
@ledger_access.location_options
def check(ledger: Path | None, sandbox: bool) -> Exit:
    """Look through the whole ledger, and say what is in it.

    The exit code is 0 if it is whole, else 4.
    """
    with ledger_access.open_ledger(ledger_access.locate(None, ledger, sandbox=sandbox).path, read_only=True) as opened:
        opened.check_integrity()
        console.output("\n\n".join(_sections(opened)))
    return Exit.OK


@command.command("export", short_help="Print every submission, a line of JSON each.")
@ledger_access.location_options
def export(ledger: Path | None, sandbox: bool) -> Exit:
    """Print every submission with all that is known of it, as a line of JSON each.

    It reads what can be read of a damaged ledger, says on stderr what cannot, and then exits with 4.
    """
    path = ledger_access.locate(None, ledger, sandbox=sandbox).path
    ledger_access.require_ledger(path)
    with salvage.open_ledger(path) as opened:
        for found in opened.submissions():
            console.output(_exported(found))
        for loss in opened.losses:
            console.warn(f"cannot be read: {escape_unprintable(loss)}")
    return Exit.REFUSED if opened.losses else Exit.OK


# The check.


@dataclass(frozen=True, slots=True)
class _Whose:
    """A manifest that was run: its API, its name, the path of its file, its runs (newest first), what they came to."""

    api: str
    name: str
    path: str
    runs: Sequence[RunRow]
    states: Mapping[str, int]


def _sections(ledger: Ledger) -> Iterator[str]:
    """What is said of a ledger that is whole, with a blank line between."""
    known = _known(ledger)
    yield f"{ledger.path}: whole, version {connect.VERSION}, {_size(ledger.path)}"
    yield _manifests(known) if known else "nothing was submitted yet"
    yield from _listed("in doubt", [_doubt(one) for one in ledger.unresolved()])
    yield from _listed("last runs that are unfinished", [line for one in known for line in _unfinished(ledger, one)])
    yield from _listed("locked now", [line for one in known for line in _lock(ledger, one)])


def _known(ledger: Ledger) -> list[_Whose]:
    runs: defaultdict[tuple[str, str], list[RunRow]] = defaultdict(list)
    whose: dict[str, tuple[str, str]] = {}
    for run in ledger.runs():
        runs[run.api, run.manifest].append(run)
        whose[run.id] = (run.api, run.manifest)
    states: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for run_id, state, _cost, count in ledger.submission_counts():
        states[whose[run_id]][state] += count
    return [_Whose(api, name, path, runs[api, name], states[api, name]) for api, name, path in ledger.manifests()]


def _manifests(known: Sequence[_Whose]) -> str:
    used = [state for state in _STATES if any(one.states.get(state) for one in known)]
    titles = ("manifest", "API", "file", "runs", *(state.replace("_", " ") for state in used))
    align = ("left", "left", "left", *("right" for _ in titles[3:]))
    return ledger_access.format_table(titles, [_row(one, used) for one in known], align)


def _row(whose: _Whose, used: Sequence[str]) -> tuple[str, ...]:
    counts = (len(whose.runs), *(whose.states.get(state, 0) for state in used))
    return (escape_unprintable(whose.name), escape_unprintable(whose.api), _file(whose.path), *map(str, counts))


def _file(path: str) -> str:
    if path == _STDIN:
        return "standard input"
    is_there = os.path.exists(path)  # noqa: PTH110 - Path.exists raises for a name too long to be one
    return escape_unprintable(path) if is_there else f"{escape_unprintable(path)} (gone)"


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1024:,.0f} KiB" if size < 2**20 else f"{size / 2**20:,.1f} MiB"


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        more = [f"and {len(lines) - _MOST_LISTED} more"] if len(lines) > _MOST_LISTED else []
        yield "\n".join([f"{title}:", *(f"  {line}" for line in [*lines[:_MOST_LISTED], *more])])


def _doubt(doubt: SubmissionRow) -> str:
    """A submission in doubt, or an intent: only its manifest's lock tells whether that is a live send."""
    whose = f"{doubt.name} of {doubt.manifest} at {doubt.api}, run {doubt.run_id}"
    why = "no outcome yet" if doubt.state == "sending" else describe_doubt(doubt)
    return f"{escape_unprintable(whose)}: sent {doubt.claimed_at:%Y-%m-%d %H:%M:%S} UTC, {escape_unprintable(why)}"


def _unfinished(ledger: Ledger, whose: _Whose) -> Iterator[str]:
    """What is missing of a manifest's last run, counting all that share its run key."""
    if not whose.runs:
        return
    last, holder = ledger_access.refresh_run(ledger, whose.runs[0])
    jobs = [job for job in ledger.manifest_jobs(last) if plan.skip_reason(job, last.settings.get("only", ())) is None]
    of = plan.match_submissions(jobs, ledger.submissions(last.api, last.manifest, last.run_key)).by_name
    missing = sum(job.name not in of or not of[job.name].consumes_slot for job in jobs)
    if missing and holder is None:
        state = "interrupted" if last.state == "running" else last.state
        about = f"{escape_unprintable(whose.name)} at {escape_unprintable(whose.api)}, run {last.id} ({state})"
        yield f"{about}: {missing} of {len(jobs)} jobs not created"


def _lock(ledger: Ledger, whose: _Whose) -> Iterator[str]:
    holder = lock.describe_holder(ledger.path, whose.api, whose.name)
    if holder is not None:
        yield f"{escape_unprintable(whose.name)} at {escape_unprintable(whose.api)}: {escape_unprintable(holder)}"


# The export.


def _exported(found: SalvagedSubmission) -> str:
    """A submission as one line of JSON in ASCII. The API's object stands in it as it came, or as text."""
    line = json.dumps({**found.fields, "decisions": found.decisions})
    if not found.body:
        return _plain(f'{line[:-1]}, "job": null}}')
    if is_embeddable(found.body):
        return _plain(f'{line[:-1]}, "job": {found.body.decode()}}}')
    return _plain(f'{line[:-1]}, "job": null, "job_text": {json.dumps(decode_lossless(found.body))}}}')


def _plain(text: str) -> str:
    """The same JSON in one line of ASCII, with nothing that a terminal or a CI log would act on."""
    return _NOT_PLAIN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    match match[0]:
        case "\t" | "\r" | "\n":  # JSON has these raw between tokens only
            return " "
        case "##":
            return "\\u0023#"
        case character:
            return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"
