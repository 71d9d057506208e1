"""A preview of a run: what it would do now, without doing any of it or being able to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.client.fetcher import Fetcher
from runner.ledger import lock
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.store import Ledger
from runner.planning import estimates, manifest_identity, planned_jobs
from runner.planning.estimates import EstimateResponse
from runner.planning.plan import build_plan
from runner.planning.planned_jobs import Preview
from runner.planning.run_key import UnfinishedPolicy, choose_run_key
from runner.runs.request import RunRequest

_NEXT_RUN_ID = "next"  # stands for the id of a run that does not exist yet


class EmptyLedger(Ledger):
    """The ledger that a first run would create: every query returns no rows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def query(self, query: str, *values: Any) -> list[Any]:  # noqa: ARG002 - the result of every query
        """No rows."""
        return []


def refuse_running(request: RunRequest) -> None:
    """Check that no run of the manifest is in progress.

    Raises:
        LockedError: one is.
        RefusedError: this user may not read the ledger, or a lock beside it.
    """
    path = request.ledger.path
    path_exists(path)  # raises a better message than the lock would
    holder = lock.describe_holder(path, request.api, request.manifest.name)
    if holder is not None:
        raise lock.LockedError(
            f"manifest {request.manifest.name!r} is being run at {request.api} by {holder}",
            "Try again when that run has ended.",
        )


@contextmanager
def open_ledger(location: LedgerLocation) -> Iterator[Ledger]:
    """Open the ledger for reading; an EmptyLedger where there is none yet and a run would create it.

    Raises:
        RefusedError: the ledger is lost: its locks exist, and it does not.
        LedgerError: it can't be read.
    """
    if not location.explicit and not path_exists(location.path):
        if path_exists(lock.directory(location.path)):
            raise lock.missing_ledger_error(location.path)
        yield EmptyLedger(location.path)
        return
    with Ledger(location.path, read_only=True) as ledger:
        yield ledger


def build_preview(
    request: RunRequest,
    ledger: Ledger,
    reader: estimates.WorkflowReader | None = None,
    *,
    check: bool = False,
    resolve_command: str = "pixxel-runner resolve",
) -> tuple[Preview, tuple[str, ...]]:
    """Return what a run would do now, and notes for the user.

    Args:
        request: the run.
        ledger: its ledger, an `EmptyLedger` where there is none yet.
        reader: the API, for the costs (with `options.estimate`) and for `check`; without one, no request is made.
        check: check that each workflow that the run would use exists.
        resolve_command: the command line of the note that jobs of earlier runs are in doubt.

    Raises:
        RefusedError: the run would be refused.
        UsageError: `only` or `again` match no job.
    """
    manifest, options, now = request.manifest, request.options, datetime.now(UTC)
    manifest_identity.check_identity(ledger, request.api, manifest, new=options.new)
    policy = UnfinishedPolicy.of(manifest, options)
    choice = choose_run_key(ledger, request.api, manifest, policy, _NEXT_RUN_ID, now)
    submissions = ledger.submissions(request.api, manifest.name, choice.run_key)
    plan = build_plan(manifest, options.only or choice.only, submissions, options.again)
    response = EstimateResponse()
    if reader is not None:
        pairs = [submission.job.pair for submission in plan.to_send] if check else []
        workflow_ids = estimates.workflows_to_estimate(plan, submissions) if options.estimate and plan.to_send else []
        response = estimates.fetch_estimates(Fetcher(request.limits), reader, workflow_ids, pairs)
    preview = planned_jobs.build_preview(
        manifest,
        request.api,
        choice.run_key,
        plan,
        submissions,
        response,
        has_estimates=options.estimate,
        limit=request.limits.max_cost,
    )
    return preview, (*choice.notes, *_earlier_doubts(ledger, request, choice.run_key, resolve_command))


def _earlier_doubts(ledger: Ledger, request: RunRequest, run_key: str, resolve_command: str) -> Sequence[str]:
    doubts = ledger.unresolved(request.api, request.manifest.name)
    others = sum(doubt.run_key != run_key for doubt in doubts)
    if not others:
        return []
    jobs, them = ("1 job is", "it") if others == 1 else (f"{others} jobs are", "them")
    return [f"{jobs} still in doubt from earlier runs. To look {them} up: {resolve_command}"]
