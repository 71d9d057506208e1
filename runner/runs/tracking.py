"""Which jobs a run created, to be looked at, and how what became of them is kept: in the ledger, where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.client.job import encode_job, parse_timestamp
from runner.core.errors import RefusedError, UsageError
from runner.core.models import Created, OutcomeName, RunRecord, outcome_name
from runner.ledger.rows import RunRow
from runner.ledger.store import Ledger
from runner.runs import record
from runner.runs.job_status import JobStatus

_LARGEST_FILE = 2**30  # bytes
_TASKS = b'"tasks"'  # of an object that has them; a list's has none


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run whose jobs are looked at: its id, its manifest's name, its API identity, the jobs, and how many it has not.

    `others` counts, by outcome, the entries that are no job at the API: not created, in doubt, skipped.
    """

    run_id: str
    manifest: str
    manifest_path: str
    api: str
    jobs: tuple[JobStatus, ...]
    others: dict[OutcomeName, int]


def track_run(ledger: Ledger, run: RunRow) -> TrackedRun:
    """The jobs that exist under a run's key."""
    return _of_record(record.load_record(ledger, run))


def _of_record(made: RunRecord) -> TrackedRun:
    jobs: list[JobStatus] = []
    others: dict[OutcomeName, int] = {}
    for entry in made.entries:
        outcome = entry.outcome
        if isinstance(outcome, Created):
            jobs.append(
                JobStatus(
                    entry.job.name,
                    entry.job.workflow_id,
                    entry.job.project_id,
                    outcome.job_id,
                    outcome.body,
                    outcome.seen_at,
                    has_tasks=_TASKS in outcome.body,
                )
            )
        else:
            name = outcome_name(outcome)
            others[name] = others.get(name, 0) + 1
    run = made.run
    return TrackedRun(run.id, run.manifest_name, run.manifest_path, run.base_url, tuple(jobs), others)


def final_status_saver(
    ledger: Ledger, api: str, failed: Callable[[RefusedError], None]
) -> Callable[[Sequence[JobStatus]], None]:
    """What keeps final states in the ledger. `failed` is told when that cannot be: then they are only shown."""

    def keep(final: Sequence[JobStatus]) -> None:
        try:
            found = {one.job_id: ledger.submission_by_job_id(api, one.job_id) for one in final}
            endings = {known.id: one.body for one in final if (known := found[one.job_id]) is not None}
            ledger.save_final_jobs(endings, datetime.now(UTC))
        except RefusedError as error:
            failed(error)

    return keep


def track_results_file(path: Path) -> TrackedRun | None:
    """The jobs of a results file; None when the file is none.

    Raises:
        UsageError: it is one, and cannot be read.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return None
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if text.lstrip().startswith("{") else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not {"run", "created", "errors"} <= document.keys():
        return None
    try:
        return _read(document)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the results file {path} cannot be read: {_about(error)}",
            "Make it again from the ledger: pixxel-runner show --results PATH",
        ) from None


def _about(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _read(document: dict[str, Any]) -> TrackedRun:
    run = document["run"]
    jobs = tuple(
        JobStatus(
            _text(one["name"]),
            _text(one["workflow_id"]),
            _text(one["project_id"]),
            _text(one["job"]["id"]),
            encode_job(one["job"]),
            parse_timestamp(one.get("seen_at")),
            has_tasks="tasks" in one["job"],
        )
        for one in document["created"]
    )
    others: dict[OutcomeName, int] = {"not_created": 0, "in_doubt": 0, "skipped": len(document.get("skipped", ()))}
    for one in document["errors"]:
        others["in_doubt" if one["outcome"] == "in_doubt" else "not_created"] += 1
    manifest = run["manifest"]
    return TrackedRun(
        _text(run["id"]),
        _text(manifest["name"]),
        _text(manifest["path"]),
        _text(run["base_url"]),
        jobs,
        {word: count for word, count in others.items() if count},
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{type(value).__name__} where text should be")
    return value
