"""Submissions in doubt, jobs in the API's list, and findings in short."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

from support import ledger_history

from runner.core.models import Created, InDoubt, NotCreated
from runner.ledger.rows import SubmissionRow
from runner.runs.matching import Finding

MINUTES = 60.0
DAY = 24 * 60 * MINUTES
SETTLED = 10 * 60 * MINUTES  # a time at which no job can be created any more


def at(seconds: float) -> datetime:
    """A time, in seconds after the first claim."""
    return ledger_history.THEN + timedelta(seconds=seconds)


LONG_AFTER = at(SETTLED)


def doubt(number: int, claimed: float = 0, project: str = "p-1", **members: Any) -> SubmissionRow:
    """A submission in doubt whose exchange took five seconds."""
    given: dict[str, Any] = {
        "manifest": "nightly",
        "state": "in_doubt",
        "error": ledger_history.TIMEOUT,
        "job_id": None,
    } | members
    return SubmissionRow(
        id=number,
        api=ledger_history.API,
        run_key="day:2026-10-20",
        run_id="run-1",
        name=f"j{number}",
        workflow_id="w-1",
        project_id=project,
        ordinal=number,
        again=False,
        labels={},
        attempts=1,
        claimed_at=at(claimed),
        ended_at=given.pop("ended_at", at(claimed + 5)),
        timeout=30.0,
        estimate=None,
        cost=None,
        val_errors=0,
        recovered=False,
        assigned=True,
        candidates=(),
        **given,
    )


def dated(ahead: float | None = 0) -> SubmissionRow:
    """The first doubt, left by a response whose date was so far ahead of ours, or invalid."""
    date = "soon" if ahead is None else format_datetime(at(5 + ahead), usegmt=True)
    return doubt(1, error=replace(ledger_history.TIMEOUT, date=date))


def other_doubt(number: int, claimed: float = 0, project: str = "p-1", **members: Any) -> SubmissionRow:
    """A doubt of another manifest in the same ledger, which another process may have locked."""
    return doubt(number, claimed, project, manifest="other", **members)


def sending(number: int, claimed: float = 0) -> SubmissionRow:
    return other_doubt(number, claimed, state="sending", error=None, ended_at=None)


def known(job_id: str) -> SubmissionRow:
    return doubt(99, state="created", error=None, job_id=job_id)


def created(number: int, claimed: float = 0, **members: Any) -> SubmissionRow:
    """A created submission; its job is `k` and its number."""
    return doubt(number, claimed, state="created", error=None, job_id=f"k{number}", **members)


def listed(job_id: str, created_at: float | str | None = 3, by: str | None = "me") -> dict[str, Any]:
    """A job in the API's list. `created_at` is in seconds after the first claim, or literal text."""
    time = created_at if created_at is None or isinstance(created_at, str) else at(created_at).isoformat()
    members = {"id": job_id, "created_at": time, "created_by": by}
    return {name: value for name, value in members.items() if value is not None}


def describe(finding: Finding) -> str:
    """`created x`, `created x of x y` if ambiguous, `absent`, `doubt`, or `doubt x y` with candidates."""
    match finding.outcome:
        case Created(job_id, recovered=True, assigned=assigned, candidates=ids):
            assert assigned is (not ids)
            return " ".join(["created", job_id, *(["of", *ids] if ids else [])])
        case NotCreated(error=error):
            assert error.kind == "not_found"
            return "absent"
        case InDoubt(error=error, candidates=ids):
            assert error == finding.doubt.error
            return " ".join(["doubt", *ids])
    return repr(finding.outcome)
