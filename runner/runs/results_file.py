"""The results file: what a run key amounts to as one JSON document, and how it gets to the disk whole or not at all.

Its fields are those of DESIGN, section 6; `schemas/results.schema.json` describes each of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_never

from runner.client.job import decode_lossless, is_embeddable, parse_job, verbatim_job_text
from runner.core.atomic_file import AtomicFile
from runner.core.models import Created, Entry, InDoubt, NotCreated, Run, Skipped
from runner.runs.summary import RunSummary

VERSION = 1


# What a terminal or a CI log would act on, and JSON may hold raw: in a string `\u…` says the same.
_ACTED_ON = re.compile(
    "[\t\r\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|##(?=\\[|vso\\[)"
)

# default=str: a setting of an unforeseen type must not lose the record of jobs that are paid for.
_encode = json.JSONEncoder(default=str, allow_nan=False).encode
_quoted = json.encoder.encode_basestring_ascii  # the same for a string, without finding out that it is one

RESULTS_FILE = AtomicFile("the results file", "--results PATH", 0o600)


def serialize(made: RunSummary) -> Iterator[str]:
    """The results document piece by piece, entries in manifest order; the last piece ends the last line.

    The API's job objects stand in it as they came: key order, long numbers and all. Only a character that a terminal
    would act on is written as JSON's escape for it, which every reader takes for the same.
    """
    yield f'{{\n  "version": {VERSION},\n  "run": {_block(_run(made.run))},\n'
    yield f'  "summary": {_block(asdict(made.summary))},\n  "created": '
    yield from _array(_created(e, e.outcome) for e in made.record.entries if isinstance(e.outcome, Created))
    yield ',\n  "errors": '
    yield from _array(_error(e, e.outcome) for e in made.others if isinstance(e.outcome, NotCreated | InDoubt))
    yield ',\n  "skipped": '
    yield from _array(_skipped(e, e.outcome) for e in made.others if isinstance(e.outcome, Skipped))
    yield "\n}\n"


def write(made: RunSummary, path: Path) -> None:
    """Write the results file whole or not at all, readable by this user only. A symbolic link at `path` is replaced.

    Raises:
        RefusedError: The file could not be written; what was at `path` before is still there.
    """
    RESULTS_FILE.write(path, serialize(made))


def dump_escaped(value: Any) -> str:
    """A value as JSON in lines, without a raw character that a terminal or a CI log would act on."""
    return _harmless(json.dumps(value, indent=2, default=str, allow_nan=False))


def format_time(time: datetime) -> str:
    """A time as the results file has it: RFC 3339 in UTC with `Z`, to the millisecond."""
    in_utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    return in_utc.isoformat(timespec="milliseconds")[:-6] + "Z"


def _run(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "key": run.key,
        "state": run.state,
        "started_at": format_time(run.started_at),
        "finished_at": format_time(run.finished_at),
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
    fields["sent_at"] = _quoted(format_time(outcome.sent_at))
    fields["recovered"] = "true" if outcome.recovered else "false"
    fields["assigned"] = "true" if outcome.assigned else "false"
    if not outcome.assigned:
        fields["candidates"] = _text(outcome.candidates)
    fields["estimate"] = _text(outcome.estimate)
    fields["seen_at"] = _text(outcome.seen_at and format_time(outcome.seen_at))
    job = verbatim_job_text(outcome.body)
    if job is None:
        fields.update(_readable(outcome))
    else:
        fields["job"] = job
    return fields


def _error(entry: Entry, outcome: NotCreated | InDoubt) -> dict[str, str]:
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
        "sent_at": _text(outcome.sent_at and format_time(outcome.sent_at)),
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


def _word(outcome: NotCreated | InDoubt) -> str:
    match outcome:
        case NotCreated():
            return "not_created"
        case InDoubt():
            return "in_doubt"
        case _:
            assert_never(outcome)


def _readable(outcome: Created) -> dict[str, str]:
    """Of an API's object that JSON cannot hold as it came: what can be read of it, and the whole as text."""
    job = parse_job(outcome.body)
    readable = {name: _strict(value) for name, value in job.members.items()} if job else {}
    readable.setdefault("id", outcome.job_id)
    as_text = {"job_text": _text(decode_lossless(outcome.body))} if outcome.body else {}
    return {"job": _text(readable), **as_text}


def _strict(value: Any) -> Any:
    """The value, or None where strict JSON has no place for it or an ordinary reader would give up."""
    return value if is_embeddable(_dumps(value).encode()) else None


def _any(value: Any) -> str:
    """What the API said, as JSON; as a string of JSON where it is too deep, or no number, for an ordinary reader."""
    text = _dumps(value)
    return text if is_embeddable(text.encode()) else _text(text)


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        return "null"


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
