"""Comma-separated values (RFC 4180) for spreadsheets and scripts: every job, whatever became of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any, assert_never

from runner import jobobject
from runner.model import Created, Entry, Failed, InDoubt, Outcome, Record, Skipped
from runner.report.rows import word
from runner.report.style import Style
from runner.results import rfc3339
from runner.text import visible

_FIELDS = (
    "name",
    "workflow_id",
    "project_id",
    "labels",
    "outcome",
    "job_id",
    "status",
    "cost",
    "validation_errors",
    "recovered",
    "assigned",
    "kind",
    "message",
    "http_status",
    "request_id",
    "candidates",
    "attempts",
    "sent_at",
    "run_id",
)

# A spreadsheet takes a cell that starts so for a formula (OWASP, CSV injection), the full-width ones in Japan.
_FORMULA = tuple("=+-@\t\r＝＋－＠")


def report(record: Record, _style: Style) -> str:
    """The record as CSV with a line of titles, without the last line's end."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(_values(entry) for entry in record.entries)
    return text.getvalue().removesuffix("\r\n")


def _values(entry: Entry) -> dict[str, Any]:
    job = entry.job
    values = {
        "name": job.name,
        "workflow_id": job.workflow_id,
        "project_id": job.project_id,
        "outcome": word(entry.outcome),
        "run_id": entry.run_id,
        **_outcome(entry.outcome),
    }
    cells = {name: _safe(value) for name, value in values.items()}
    return {**cells, "labels": _labels(job.labels)}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Created():
            return _created(outcome)
        case Failed():
            return _error(outcome)
        case InDoubt():
            return {**_error(outcome), "candidates": json.dumps(outcome.candidates)}
        case Skipped():
            return {"kind": outcome.reason, "message": outcome.detail}
        case _:
            assert_never(outcome)


def _created(outcome: Created) -> dict[str, Any]:
    job = jobobject.read(outcome.body)
    return {
        "job_id": outcome.job_id,
        "status": job.status if job else None,
        "cost": job.cost if job else None,
        "validation_errors": len(job.val_errors) if job else None,
        "recovered": json.dumps(outcome.recovered),
        "assigned": json.dumps(outcome.assigned),
        "candidates": None if outcome.assigned else json.dumps(outcome.candidates),
        "attempts": outcome.attempts,
        "sent_at": rfc3339(outcome.sent_at),
    }


def _error(outcome: Failed | InDoubt) -> dict[str, Any]:
    error = outcome.error
    return {
        "kind": error.kind,
        "message": error.message,
        "http_status": error.http_status,
        "request_id": error.request_id,
        "attempts": outcome.attempts,
        "sent_at": outcome.sent_at and rfc3339(outcome.sent_at),
    }


def _labels(labels: Mapping[str, str]) -> str:
    # `#` only ever stands inside a string there: its escape keeps this JSON, and keeps `##[` from a CI log.
    return json.dumps(dict(labels)).replace("#", "\\u0023")


def _safe(value: Any) -> Any:
    """A cell that neither a terminal nor a spreadsheet takes for more than text. Numbers are left alone."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
