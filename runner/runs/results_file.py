"""The results file: the record of a run key as JSON, written completely or not at all.

`schemas/results.schema.json` describes its fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.client.job import decode_lossless, is_embeddable, parse_job, verbatim_job_text
from runner.core.atomic_file import AtomicFile
from runner.core.models import Created, Entry, InDoubt, NotCreated, Run, Skipped, outcome_name
from runner.runs.summary import RunSummary

VERSION = 1
RESULTS_FILE = AtomicFile("the results file", "--results PATH", 0o600)

# What terminals and CI logs act on, and JSON allows unescaped.
_UNSAFE = re.compile(
    "[\t\r\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|##(?=\\[|vso\\[)"
)

# default=str: a setting of an unexpected type must not prevent writing the record of jobs that were paid for.
_encode = json.JSONEncoder(default=str, allow_nan=False).encode
_quote = json.encoder.encode_basestring_ascii


def serialize(run_summary: RunSummary) -> Iterator[str]:
    """Yield the document in pieces, with entries in manifest order. It ends with a newline.

    The API's job objects are included as received, with their order of keys and long numbers; only characters that a
    terminal would act on are escaped.
    """
    entries, others = run_summary.record.entries, run_summary.others
    yield f'{{\n  "version": {VERSION},\n  "run": {_dump_indented(_describe_run(run_summary.run))},\n'
    yield f'  "summary": {_dump_indented(asdict(run_summary.summary))},\n  "created": '
    yield from _array(_created(e, e.outcome) for e in entries if isinstance(e.outcome, Created))
    yield ',\n  "errors": '
    yield from _array(_error(e, e.outcome) for e in others if isinstance(e.outcome, NotCreated | InDoubt))
    yield ',\n  "skipped": '
    yield from _array(_skipped(e, e.outcome) for e in others if isinstance(e.outcome, Skipped))
    yield "\n}\n"


def write(run_summary: RunSummary, path: Path) -> None:
    """Write the results file, readable by this user only. A symbolic link at `path` is replaced.

    Raises:
        RefusedError: the file could not be written; whatever was at `path` is unchanged.
    """
    RESULTS_FILE.write(path, serialize(run_summary))


def dump_escaped(value: Any) -> str:
    """Return a value as indented JSON, with characters escaped that terminals and CI logs act on."""
    return _escape(json.dumps(value, indent=2, default=str, allow_nan=False))


def format_time(time: datetime) -> str:
    """Format a time for data: RFC 3339 in UTC with `Z`, to the millisecond."""
    in_utc = time if time.tzinfo is UTC else time.astimezone(UTC)
    return in_utc.isoformat(timespec="milliseconds")[:-6] + "Z"


def _describe_run(run: Run) -> dict[str, Any]:
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
        "settings": {name: _strict_or_none(value) for name, value in run.settings.items()},
    }


def _created(entry: Entry, outcome: Created) -> dict[str, str]:
    job = verbatim_job_text(outcome.body)
    return {
        **_job_fields(entry),
        "run_id": _quote(entry.run_id),
        "attempts": _dump(outcome.attempts),
        "sent_at": _quote(format_time(outcome.sent_at)),
        "recovered": _dump(outcome.recovered),
        "assigned": _dump(outcome.assigned),
        **({} if outcome.assigned else {"candidates": _dump(outcome.candidates)}),
        "estimate": _dump(outcome.estimate),
        "seen_at": _dump(outcome.seen_at and format_time(outcome.seen_at)),
        **(_readable_fields(outcome) if job is None else {"job": job}),
    }


def _error(entry: Entry, outcome: NotCreated | InDoubt) -> dict[str, str]:
    error, in_doubt = outcome.error, outcome if isinstance(outcome, InDoubt) else None
    return {
        **_job_fields(entry),
        "run_id": _quote(entry.run_id),
        "outcome": _quote(outcome_name(outcome)),
        "kind": _dump(error.kind),
        "message": _dump(error.message),
        "http_status": _dump(error.http_status),
        "api_error": _dump_strict(error.api_error),
        "request_id": _dump(error.request_id),
        "date": _dump(error.date),
        "retry_after": _dump(error.retry_after),
        "attempts": _dump(outcome.attempts),
        "sent_at": _dump(outcome.sent_at and format_time(outcome.sent_at)),
        "candidates": _dump(in_doubt.candidates if in_doubt else ()),
        "estimate": _dump(in_doubt.estimate if in_doubt else None),
    }


def _skipped(entry: Entry, outcome: Skipped) -> dict[str, str]:
    return {**_job_fields(entry), "reason": _dump(outcome.reason), "detail": _dump(outcome.detail)}


def _job_fields(entry: Entry) -> dict[str, str]:
    job = entry.job
    labels = ", ".join([f"{_quote(name)}: {_quote(text)}" for name, text in job.labels.items()]) if job.labels else ""
    return {
        "name": _quote(job.name),
        "workflow_id": _quote(job.workflow_id),
        "project_id": _quote(job.project_id),
        "labels": f"{{{labels}}}",
    }


def _readable_fields(outcome: Created) -> dict[str, str]:
    """The fields that could be parsed of a job object that JSON cannot contain, and all of it as text."""
    job = parse_job(outcome.body)
    readable = {name: _strict_or_none(value) for name, value in job.members.items()} if job else {}
    readable.setdefault("id", outcome.job_id)
    as_text = {"job_text": _dump(decode_lossless(outcome.body))} if outcome.body else {}
    return {"job": _dump(readable), **as_text}


def _strict_or_none(value: Any) -> Any:
    """Return a value, or None if strict JSON cannot contain it or it is nested too deeply for an ordinary reader."""
    return value if is_embeddable(_dump_lenient(value).encode()) else None


def _dump_strict(value: Any) -> str:
    """Return a value as JSON; in a string if strict JSON cannot contain it."""
    text = _dump_lenient(value)
    return text if is_embeddable(text.encode()) else _quote(text)


def _dump_lenient(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        return "null"


def _dump(value: Any) -> str:
    if value is None or isinstance(value, bool):  # a third of all values, and much faster than the encoder
        return "null" if value is None else "true" if value else "false"
    return _encode(value)


def _dump_indented(value: Any) -> str:
    """Return a value as JSON, indented to be a member of the document."""
    return dump_escaped(value).replace("\n", "\n  ")


def _escape(text: str) -> str:
    """Escape what terminals and CI logs act on in JSON text."""
    # There is rarely anything to escape, and these checks take a tenth of the pattern's time.
    if text.isascii():  # JSON itself escapes the other control characters
        is_safe = not ("#" in text or "\t" in text or "\r" in text or "\x7f" in text)
    else:
        is_safe = text.replace("\n", "").isprintable() and "##" not in text
    return text if is_safe else _UNSAFE.sub(_escape_match, text)


def _escape_match(match: re.Match[str]) -> str:
    if match[0] in "\t\r":  # JSON allows these between tokens only
        return " "
    return "\\u0023#" if match[0] == "##" else json.dumps(match[0])[1:-1]


def _array(items: Iterable[dict[str, str]]) -> Iterator[str]:
    """Yield an array of objects as a member of the document, one field per line. Their values are JSON."""
    separator = "[\n"
    for item in items:
        fields = ",\n".join([f'      "{name}": {value}' for name, value in item.items()])
        yield f"{separator}    {{\n{_escape(fields)}\n    }}"
        separator = ",\n"
    yield "[]" if separator == "[\n" else "\n  ]"
