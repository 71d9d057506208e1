"""The results file: what a run key amounts to as one JSON document, and how it gets to the disk whole or not at all.

Its fields are those of DESIGN, section 6; `schemas/results.schema.json` describes each of them.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_never

from runner.client import job as job_object
from runner.core.atomic_file import Target
from runner.core.models import Bought, Created, Entry, Failed, InDoubt, Record, Run, Skipped

VERSION = 1

# More digits than any cost has, and few enough that no sum of costs is too long for Python to print.
_COST_LIMIT = 10**600

# What a terminal or a CI log would act on, and JSON may hold raw: in a string `\u…` says the same.
_ACTED_ON = re.compile(
    "[\t\r\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|##(?=\\[|vso\\[)"
)

# default=str: a setting of an unforeseen type must not lose the record of jobs that are paid for.
_encode = json.JSONEncoder(default=str, allow_nan=False).encode
_quoted = json.encoder.encode_basestring_ascii  # the same for a string, without finding out that it is one

FILE = Target("the results file", "--results PATH", 0o600)


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """What the jobs of one project cost, as `Summary` has it of all: `created` are those that exist."""

    project_id: str
    created: int
    cost: int
    estimate: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """How many jobs of a record came to which outcome, and what those that exist cost.

    The four outcomes add up to the number of entries. `created` counts every job that exists under the run key;
    `created_earlier` says how many *of these* another run than `record.run` created. `cost` is in tokens, over all
    of `created`, and leaves out a job of which the API told no cost, or none that could be a cost. `estimate` is what
    the jobs that exist or may exist were expected to cost, as far as that was asked for; None where it never was.
    `projects` has each project of a job that exists or may exist, in the order of the manifest.
    """

    created: int
    failed: int
    in_doubt: int
    skipped: int
    created_earlier: int
    cost: int
    estimate: int | None
    projects: tuple[ProjectSummary, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """A record, and what going through it once tells: to read it takes a query and a parser for each answer.

    `rest` has the entries that are not created, and `invalid` counts created jobs with validation errors.
    """

    record: Record
    summary: Summary
    rest: tuple[Entry, ...]
    invalid: int

    @property
    def run(self) -> Run:
        """The run."""
        return self.record.run

    @property
    def jobs(self) -> int:
        """How many entries the record has."""
        return len(self.record.entries)


def digest(record: Record) -> Digest:
    """Count a record's outcomes and add up its costs, going through it once."""
    created = earlier = invalid = 0
    projects: dict[str, _Project] = defaultdict(_Project)
    rest: list[Entry] = []
    for one in record.outline() if record.outline else record.entries:
        if isinstance(one, Bought):
            bought = one
        elif isinstance(one.outcome, Created):
            bought = Bought(one.job.project_id, one.run_id, *_told(one.outcome), one.outcome.estimate)
        else:
            rest.append(one)
            if isinstance(one.outcome, InDoubt):
                projects[one.job.project_id].add(0, 0, one.outcome.estimate)
            continue
        created += 1
        earlier += bought.run_id != record.run.id
        invalid += bought.errors > 0
        projects[bought.project_id].add(1, bought.cost, bought.estimate)
    counts = Counter(type(entry.outcome) for entry in rest)
    summary = Summary(
        created,
        counts[Failed],
        counts[InDoubt],
        counts[Skipped],
        earlier,
        sum(one.cost for one in projects.values()),
        _sum(one.estimate for one in projects.values()),
        tuple(ProjectSummary(name, one.created, one.cost, one.estimate) for name, one in projects.items()),
    )
    return Digest(record, summary, tuple(rest), invalid)


@dataclass(slots=True)
class _Project:
    """What is counted of a project so far."""

    created: int = 0
    cost: int = 0
    estimate: int | None = None

    def add(self, created: int, cost: int, estimate: int | None) -> None:
        """Count in so many jobs that exist, what they cost, and what they were, or one in doubt was, to cost."""
        self.created += created
        self.cost += cost
        if estimate is not None:
            self.estimate = estimate + (self.estimate or 0)


def total(summaries: Iterable[Summary]) -> Summary:
    """What several records amount to together."""
    every = list(summaries)
    projects: dict[str, _Project] = defaultdict(_Project)
    for one in (project for summary in every for project in summary.projects):
        projects[one.project_id].add(one.created, one.cost, one.estimate)
    return Summary(
        sum(one.created for one in every),
        sum(one.failed for one in every),
        sum(one.in_doubt for one in every),
        sum(one.skipped for one in every),
        sum(one.created_earlier for one in every),
        sum(one.cost for one in every),
        _sum(one.estimate for one in every),
        tuple(ProjectSummary(name, one.created, one.cost, one.estimate) for name, one in projects.items()),
    )


def _sum(estimates: Iterable[int | None]) -> int | None:
    """The sum of those that are known; None where none is."""
    known = [one for one in estimates if one is not None]
    return sum(known) if known else None


def chunks(made: Digest) -> Iterator[str]:
    """The results document piece by piece, entries in manifest order; the last piece ends the last line.

    The API's job objects stand in it as they came: key order, long numbers and all. Only a character that a terminal
    would act on is written as JSON's escape for it, which every reader takes for the same.
    """
    yield f'{{\n  "version": {VERSION},\n  "run": {_block(_run(made.run))},\n'
    yield f'  "summary": {_block(asdict(made.summary))},\n  "created": '
    yield from _array(_created(e, e.outcome) for e in made.record.entries if isinstance(e.outcome, Created))
    yield ',\n  "errors": '
    yield from _array(_error(e, e.outcome) for e in made.rest if isinstance(e.outcome, Failed | InDoubt))
    yield ',\n  "skipped": '
    yield from _array(_skipped(e, e.outcome) for e in made.rest if isinstance(e.outcome, Skipped))
    yield "\n}\n"


def write(made: Digest, path: Path) -> None:
    """Write the results file whole or not at all, readable by this user only. A symbolic link at `path` is replaced.

    Raises:
        RefusedError: The file could not be written; what was at `path` before is still there.
    """
    FILE.write(path, chunks(made))


def harmless(value: Any) -> str:
    """A value as JSON in lines, without a raw character that a terminal or a CI log would act on."""
    return _harmless(json.dumps(value, indent=2, default=str, allow_nan=False))


def rfc3339(time: datetime) -> str:
    """A time as the results file has it: RFC 3339 in UTC with `Z`, to the millisecond."""
    in_utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    return in_utc.isoformat(timespec="milliseconds")[:-6] + "Z"


def _run(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "key": run.key,
        "state": run.state,
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at),
        "runner": run.runner,
        "manifest": {
            "name": run.manifest_name,
            "path": run.manifest_path,
            "sha256": run.manifest_sha256,
            "git_commit": run.git_commit,
        },
        "base_url": run.base_url,
        "settings": {name: _strict(value) for name, value in run.settings.items()},
    }


def _created(entry: Entry, outcome: Created) -> dict[str, str]:
    fields = _head(entry)
    fields["run_id"] = _quoted(entry.run_id)
    fields["attempts"] = str(outcome.attempts)
    fields["sent_at"] = _quoted(rfc3339(outcome.sent_at))
    fields["recovered"] = "true" if outcome.recovered else "false"
    fields["assigned"] = "true" if outcome.assigned else "false"
    if not outcome.assigned:
        fields["candidates"] = _text(outcome.candidates)
    fields["estimate"] = _text(outcome.estimate)
    fields["seen_at"] = _text(outcome.seen_at and rfc3339(outcome.seen_at))
    job = job_object.verbatim(outcome.body)
    if job is None:
        fields.update(_readable(outcome))
    else:
        fields["job"] = job
    return fields


def _error(entry: Entry, outcome: Failed | InDoubt) -> dict[str, str]:
    error = outcome.error
    return {
        **_head(entry),
        "run_id": _text(entry.run_id),
        "outcome": _text(_word(outcome)),
        "kind": _text(error.kind),
        "message": _text(error.message),
        "http_status": _text(error.http_status),
        "api_error": _any(error.api_error),
        "request_id": _text(error.request_id),
        "date": _text(error.date),
        "retry_after": _text(error.retry_after),
        "attempts": _text(outcome.attempts),
        "sent_at": _text(outcome.sent_at and rfc3339(outcome.sent_at)),
        "candidates": _text(outcome.candidates if isinstance(outcome, InDoubt) else ()),
        "estimate": _text(outcome.estimate if isinstance(outcome, InDoubt) else None),
    }


def _skipped(entry: Entry, outcome: Skipped) -> dict[str, str]:
    return {**_head(entry), "reason": _text(outcome.reason), "detail": _text(outcome.detail)}


def _head(entry: Entry) -> dict[str, str]:
    job = entry.job
    labels = ", ".join([f"{_quoted(name)}: {_quoted(text)}" for name, text in job.labels.items()]) if job.labels else ""
    return {
        "name": _quoted(job.name),
        "workflow_id": _quoted(job.workflow_id),
        "project_id": _quoted(job.project_id),
        "labels": f"{{{labels}}}",
    }


def _word(outcome: Failed | InDoubt) -> str:
    match outcome:
        case Failed():
            return "failed"
        case InDoubt():
            return "in_doubt"
        case _:
            assert_never(outcome)


def _readable(outcome: Created) -> dict[str, str]:
    """Of an API's object that JSON cannot hold as it came: what can be read of it, and the whole as text."""
    job = job_object.read(outcome.body)
    readable = {name: _strict(value) for name, value in job.members.items()} if job else {}
    readable.setdefault("id", outcome.job_id)
    as_text = {"job_text": _text(job_object.as_text(outcome.body))} if outcome.body else {}
    return {"job": _text(readable), **as_text}


def _strict(value: Any) -> Any:
    """The value, or None where strict JSON has no place for it or an ordinary reader would give up."""
    return value if job_object.embeddable(_dumps(value).encode()) else None


def _any(value: Any) -> str:
    """What the API said, as JSON; as a string of JSON where it is too deep, or no number, for an ordinary reader."""
    text = _dumps(value)
    return text if job_object.embeddable(text.encode()) else _text(text)


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        return "null"


def _told(outcome: Created) -> tuple[int, int]:
    """What a job costs, as far as that could be a cost, and how many validation errors it has."""
    job = job_object.read(outcome.body)
    cost = job.cost if job else None
    errors = len(job.val_errors) if job else 0
    return cost if cost is not None and 0 <= cost < _COST_LIMIT else 0, errors


def _text(value: Any) -> str:
    """A value as JSON: what `_array` makes harmless."""
    if type(value) is str:
        return _quoted(value)
    if value is None or value is True or value is False:  # a third of all values, and much faster than the encoder
        return "null" if value is None else "true" if value else "false"
    return str(value) if type(value) is int else _encode(value)


def _block(value: Any) -> str:
    """JSON with one field a line, to stand one level deep in the document."""
    return _harmless(json.dumps(value, indent=2, default=str, allow_nan=False)).replace("\n", "\n  ")


def _harmless(text: str) -> str:
    """The same JSON without a raw character that a terminal or a CI log would act on."""
    if _is_harmless(text):
        return text
    return _ACTED_ON.sub(_escaped, text)


def _is_harmless(text: str) -> bool:
    """Whether there is certainly none of them: nearly always, and found out in a tenth of the time.

    Of those in ASCII, JSON itself escapes all but these.
    """
    if text.isascii():
        return not ("#" in text or "\t" in text or "\r" in text or "\x7f" in text)
    return text.replace("\n", "").isprintable() and "##" not in text


def _escaped(found: re.Match[str]) -> str:
    match found[0]:
        case "\t" | "\r":  # JSON has these raw between tokens only
            return " "
        case "##":
            return "\\u0023#"
        case character:
            return json.dumps(character)[1:-1]


def _array(items: Iterable[dict[str, str]]) -> Iterator[str]:
    """An array of objects, one level deep in the document, one field a line. The values are JSON already."""
    opening = "[\n"
    templates: dict[tuple[str, ...], str] = {}  # filling one in is three times as fast as joining names and values
    for item in items:
        names = tuple(item)
        if names not in templates:
            fields = ",\n".join(f'      "{name}": %s' for name in names)
            templates[names] = f"    {{\n{fields}\n    }}"
        yield opening + _harmless(templates[names] % tuple(item.values()))
        opening = ",\n"
    yield "[]" if opening == "[\n" else "\n  ]"
