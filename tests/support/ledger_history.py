"""Writes runs, and submissions in any state, straight into a ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runner.core.models import Created, ErrorInfo, InDoubt, Job, NotCreated, RunState, Submission
from runner.ledger import rows
from runner.ledger.connect import create_if_missing
from runner.ledger.rows import Claim, RunRow
from runner.ledger.store import Ledger

API = "https://api.example"
THEN = datetime(2026, 10, 20, 1, 0, tzinfo=UTC)
TIMEOUT = ErrorInfo("timeout", "no answer in time")


def open_ledger(path: Path) -> Ledger:
    """Open a ledger, created if there is none."""
    create_if_missing(path)
    return Ledger(path)


def job(name: str, workflow_id: str = "w-1", project_id: str = "p-1", **labels: str) -> Job:
    return Job(name, workflow_id, project_id, labels)


def start_run(
    ledger: Ledger,
    run_id: str,
    jobs: Sequence[Job],
    *,
    api: str = API,
    manifest: str = "nightly",
    key: str | None = None,
    path: str = "/gone/nightly.yaml",
    end: RunState | None = "completed",
) -> RunRow:
    """Start a run, and finish it at once unless `end` is None: submissions can be written all the same."""
    names = " ".join(job.name for job in jobs)
    once_per: Any = "run" if key is None else key.partition(":")[0]
    run = RunRow(
        id=run_id,
        api=api,
        manifest=manifest,
        run_key=key or f"run:{run_id}",
        once_per=once_per,
        state="running",
        reason="",
        detail="",
        started_at=THEN,
        finished_at=None,
        runner="0.1.0",
        path="nightly.yaml",
        sha256=f"sha256 of {names}",
        git_commit=None,
        settings={"only": []},
    )
    ledger.start_run(run, jobs, path)
    if end is not None:
        reason = "" if end == "completed" else end
        ledger.finish_run(replace(run, state=end, reason=reason, finished_at=THEN + timedelta(minutes=1)))
    return run


def send(
    ledger: Ledger, run: RunRow, entry: Job, outcome: Created | NotCreated | InDoubt | None, ordinal: int = 1
) -> int:
    """Claim a submission, and save its outcome unless that is None. Returns its id."""
    claim = Claim(Submission(entry, ordinal), 1, THEN, 30.0)
    with ledger.transaction():
        [submission] = ledger.claim(run, ledger.manifest_id(run.api, run.manifest), [claim])
        if outcome is not None:
            ledger.save_outcomes([(submission, outcome, THEN + timedelta(seconds=5))])
    return submission


def response_body(ledger: Ledger, submission: int) -> bytes:
    """The body of the response that created a submission's job; empty if there is none."""
    body, _ = ledger.job_objects([submission]).get(submission, (b"", None))
    return body


def decisions(ledger: Ledger, submission: int) -> list[tuple[str, ...]]:
    """The decisions on a submission: when, by whom, the action, and the detail; oldest first."""
    query = "SELECT decided_at, decided_by, action, detail FROM decisions WHERE submission = ? ORDER BY id"
    return [tuple(map(str, map(rows.from_sql, row))) for row in ledger.query(query, submission)]


def in_doubt(*candidates: str) -> InDoubt:
    return InDoubt(TIMEOUT, 1, THEN, candidates)


def created(job_id: str, body: bytes | None = None) -> Created:
    return Created(job_id, body or b'{"id": "%b", "cost": 12}' % job_id.encode(), 1, THEN)


def not_created(message: str = "no such workflow") -> NotCreated:
    return NotCreated(ErrorInfo("rejected", message, http_status=400), 1, THEN)
