"""The jobs whose status is tracked: those of a run in the ledger or in a results file; and saving final statuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.client.job import encode_job, parse_timestamp
from runner.core.errors import RefusedError, UsageError
from runner.core.models import Created, OutcomeName, outcome_name
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.runs import record
from runner.runs.job_status import JobStatus

_MAX_FILE_SIZE = 2**30  # bytes


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run whose jobs are tracked. `api` is the API's identity.

    `without_job` counts, by outcome, the entries without a job at the API: not created, in doubt, skipped.
    """

    run_id: str
    manifest: str
    manifest_path: str
    api: str
    jobs: tuple[JobStatus, ...]
    without_job: Mapping[OutcomeName, int]


def track_run(ledger: Ledger, row: RunRow) -> TrackedRun:
    """Return the jobs that exist under a run's key."""
    run_record = record.load_record(ledger, row)
    jobs: list[JobStatus] = []
    without_job: Counter[OutcomeName] = Counter()
    for entry in run_record.entries:
        job, outcome = entry.job, entry.outcome
        if not isinstance(outcome, Created):
            without_job[outcome_name(outcome)] += 1
            continue
        has_tasks = b'"tasks"' in outcome.body  # only lists of jobs omit them
        jobs.append(JobStatus(job.name, *job.pair, outcome.job_id, outcome.body, outcome.seen_at, has_tasks=has_tasks))
    run = run_record.run
    return TrackedRun(run.id, run.manifest_name, run.manifest_path, run.base_url, tuple(jobs), without_job)


def final_status_saver(
    ledger: Ledger, api: str, on_error: Callable[[RefusedError], None]
) -> Callable[[Sequence[JobStatus]], None]:
    """Return a function that saves final statuses to the ledger. `on_error` is called when they can't be saved."""

    def save(statuses: Sequence[JobStatus]) -> None:
        try:
            submissions = [(ledger.submission_by_job_id(api, status.job_id), status.body) for status in statuses]
            bodies = {submission.id: body for submission, body in submissions if submission is not None}
            ledger.save_final_jobs(bodies, datetime.now(UTC))
        except RefusedError as error:
            on_error(error)

    return save


def track_results_file(path: Path) -> TrackedRun | None:
    """Return the jobs of a results file; None if the file is something else.

    Raises:
        UsageError: the results file is damaged.
    """
    try:
        if path.stat().st_size > _MAX_FILE_SIZE:
            return None
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if text.lstrip().startswith("{") else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not {"run", "created", "errors"} <= document.keys():
        return None
    try:
        return _parse_document(document)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        detail = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"the results file {path} cannot be read: {detail}",
            "Recreate it from the ledger: pixxel-runner show --results PATH",
        ) from None


def _parse_document(document: dict[str, Any]) -> TrackedRun:
    run = document["run"]
    errors = document["errors"]
    in_doubt = sum(error["outcome"] == "in_doubt" for error in errors)
    without_job: dict[OutcomeName, int] = {
        "not_created": len(errors) - in_doubt,
        "in_doubt": in_doubt,
        "skipped": len(document.get("skipped", ())),
    }
    return TrackedRun(
        _check_text(run["id"]),
        _check_text(run["manifest"]["name"]),
        _check_text(run["manifest"]["path"]),
        _check_text(run["base_url"]),
        tuple(map(_parse_created, document["created"])),
        {outcome: count for outcome, count in without_job.items() if count},
    )


def _parse_created(created: dict[str, Any]) -> JobStatus:
    name, workflow_id, project_id = (_check_text(created[key]) for key in ("name", "workflow_id", "project_id"))
    job, seen_at = created["job"], parse_timestamp(created.get("seen_at"))
    job_id, body = _check_text(job["id"]), encode_job(job)
    return JobStatus(name, workflow_id, project_id, job_id, body, seen_at, has_tasks="tasks" in job)


def _check_text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"expected a non-empty string, got {type(value).__name__}")
    return value
