"""The command `ledger`: creates, checks and exports ledgers."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from runner.cli import console, ledger_access
from runner.client.job import decode_lossless, is_embeddable
from runner.core.errors import UsageError
from runner.core.exit_codes import Exit
from runner.core.models import STDIN
from runner.core.text import escape_unprintable
from runner.ledger import connect, lock, salvage, schema
from runner.ledger.location import path_exists
from runner.ledger.rows import RunRow, SubmissionRow
from runner.ledger.salvage import SalvagedSubmission
from runner.ledger.store import Ledger
from runner.planning import plan
from runner.runs.matching import describe_doubt

_STATES = ("created", "not_created", "in_doubt", "sending", "released")
_MAX_LISTED = 20

# What valid JSON may contain as it is, and a line of printable ASCII that is safe in a CI log may not.
_UNSAFE = re.compile(r"[^ -~]|##(?=\[|vso\[)")


@click.group("ledger")
def command() -> None:
    """Create, check or export the ledger, which records every submission.

    Without it, the program cannot tell which jobs exist already: keep it on durable storage, and back it up.
    """


@command.command("init")
@click.argument("path", type=click.Path(path_type=Path))
def init(path: Path) -> Exit:
    """Create an empty ledger at PATH. An existing file is never overwritten."""
    if path_exists(path) and path.is_dir():
        raise UsageError(f"{path} is a directory", f"Specify a file in it: {path / 'ledger.db'}")
    connect.create_ledger(path)
    setting = f"PIXXEL_RUNNER_LEDGER={shlex.quote(str(path.absolute()))}"
    console.info(f"created the ledger {path}")
    console.info(f"next: use it for every run, with --ledger or: export {setting}")
    console.info("  Keep it between runs, on a local disk, and back it up: it prevents jobs from being created twice.")
    return Exit.OK


@command.command("check")
@ledger_access.location_options
def check(ledger: Path | None, sandbox: bool) -> Exit:
    """Check the ledger's integrity, and summarize what it contains.

    The exit code is 0 if it is intact, and 4 otherwise.
    """
    with ledger_access.open_ledger(ledger_access.locate(None, ledger, sandbox=sandbox), read_only=True) as opened:
        opened.check_integrity()
        console.output("\n\n".join(_format_sections(opened)))
    return Exit.OK


@command.command("export", short_help="Print every submission as a line of JSON.")
@ledger_access.location_options
def export(ledger: Path | None, sandbox: bool) -> Exit:
    """Print every submission with all its fields, each as a line of JSON.

    It exports what can be read of a damaged ledger, reports on stderr what cannot, and then exits with code 4.
    """
    location = ledger_access.locate(None, ledger, sandbox=sandbox)
    ledger_access.require_ledger(location)
    with salvage.open_ledger(location.path) as opened:
        for submission in opened.submissions():
            console.output(_format_submission(submission))
        for loss in opened.losses:
            console.warn(f"cannot be read: {escape_unprintable(loss)}")
    return Exit.REFUSED if opened.losses else Exit.OK


# check


@dataclass(frozen=True, slots=True)
class _Manifest:
    """A manifest in the ledger, with its runs (newest first) and its submissions counted by state."""

    api: str
    name: str
    path: str
    runs: Sequence[RunRow]
    states: Mapping[str, int]

    def __str__(self) -> str:
        return escape_unprintable(f"{self.name} at {self.api}")


def _format_sections(ledger: Ledger) -> Iterator[str]:
    manifests = _read_manifests(ledger)
    yield f"{ledger.path}: intact, version {schema.latest_version()}, {_format_size(ledger.path.stat().st_size)}"
    yield _format_manifests(manifests) if manifests else "no submissions yet"
    yield from _format_list("in doubt", map(_describe_doubt, ledger.unresolved()))
    yield from _format_list("unfinished", [_describe_unfinished(ledger, manifest) for manifest in manifests])
    yield from _format_list("locked", [_describe_lock(ledger, manifest) for manifest in manifests])


def _read_manifests(ledger: Ledger) -> list[_Manifest]:
    runs: defaultdict[tuple[str, str], list[RunRow]] = defaultdict(list)
    keys: dict[str, tuple[str, str]] = {}
    for run in ledger.runs():
        keys[run.id] = (run.api, run.manifest)
        runs[keys[run.id]].append(run)
    states: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for run_id, state, _cost, count in ledger.submission_counts():
        states[keys[run_id]][state] += count
    return [_Manifest(api, name, path, runs[api, name], states[api, name]) for api, name, path in ledger.manifests()]


def _format_manifests(manifests: Sequence[_Manifest]) -> str:
    states = [state for state in _STATES if any(manifest.states.get(state) for manifest in manifests)]
    titles = ("manifest", "API", "file", "runs", *(state.replace("_", " ") for state in states))
    rows = []
    for manifest in manifests:
        counts = (len(manifest.runs), *(manifest.states.get(state, 0) for state in states))
        name, api = escape_unprintable(manifest.name), escape_unprintable(manifest.api)
        rows.append((name, api, _format_path(manifest.path), *map(str, counts)))
    return ledger_access.format_table(titles, rows, ("left",) * 3 + ("right",) * (len(titles) - 3))


def _format_path(path: str) -> str:
    if path == STDIN:
        return "standard input"
    exists = os.path.exists(path)  # noqa: PTH110 - Path.exists raises for a name that is too long
    return escape_unprintable(path) if exists else f"{escape_unprintable(path)} (missing)"


def _format_size(size: int) -> str:
    return f"{size / 1024:,.0f} KiB" if size < 2**20 else f"{size / 2**20:,.1f} MiB"


def _format_list(title: str, lines: Iterable[str | None]) -> Iterator[str]:
    """A section with the lines that are not empty, if there are any."""
    found = list(filter(None, lines))
    if found:
        more = [f"and {len(found) - _MAX_LISTED} more"] if len(found) > _MAX_LISTED else []
        yield "\n".join([f"{title}:", *(f"  {line}" for line in [*found[:_MAX_LISTED], *more])])


def _describe_doubt(row: SubmissionRow) -> str:
    """Describe a submission in doubt, or an intent, which may be a request in progress."""
    reason = "no outcome yet" if row.state == "sending" else describe_doubt(row)
    subject = f"{row.name} of {row.manifest} at {row.api}, run {row.run_id}"
    return escape_unprintable(f"{subject}: sent {row.claimed_at:%Y-%m-%d %H:%M:%S} UTC, {reason}")


def _describe_unfinished(ledger: Ledger, manifest: _Manifest) -> str | None:
    """How many jobs of a manifest's last run are missing, counting all runs that share its run key."""
    if not manifest.runs:
        return None
    last, holder = ledger_access.refresh_run(ledger, manifest.runs[0])
    jobs = [job for job in ledger.manifest_jobs(last) if plan.skip_reason(job, last.settings.get("only", ())) is None]
    submissions = plan.match_submissions(jobs, ledger.submissions(last.api, last.manifest, last.run_key)).by_name
    missing = sum(job.name not in submissions or not submissions[job.name].consumes_slot for job in jobs)
    if not missing or holder is not None:
        return None
    state = "interrupted" if last.state == "running" else last.state
    return f"{manifest}, run {last.id} ({state}): {missing} of {len(jobs)} jobs not created"


def _describe_lock(ledger: Ledger, manifest: _Manifest) -> str | None:
    holder = lock.describe_holder(ledger.path, manifest.api, manifest.name)
    return None if holder is None else f"{manifest}: {escape_unprintable(holder)}"


# export


def _format_submission(submission: SalvagedSubmission) -> str:
    """One line of JSON in ASCII. The API's object is embedded unchanged, or as text if it is not valid JSON."""
    line = json.dumps({**submission.fields, "decisions": submission.decisions})
    if not submission.body:
        return _to_ascii(f'{line[:-1]}, "job": null}}')
    if is_embeddable(submission.body):
        return _to_ascii(f'{line[:-1]}, "job": {submission.body.decode()}}}')
    return _to_ascii(f'{line[:-1]}, "job": null, "job_text": {json.dumps(decode_lossless(submission.body))}}}')


def _to_ascii(text: str) -> str:
    """The same JSON in one line of ASCII, without anything that a terminal or a CI log would act on."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    match match[0]:
        case "\t" | "\r" | "\n":  # in JSON only between tokens
            return " "
        case "##":
            return "\\u0023#"
        case character:
            return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"
