"""The status of a run's jobs at the API: polled once, or until every job is final.

Nothing here creates a job, and no request is made for a job that is known to be final.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

from runner.client.api import ReadOnlyClient
from runner.client.failures import error_from_read
from runner.client.fetcher import ApiCall, Fetcher
from runner.client.job import JobObject, parse_job, update_job
from runner.client.job_list import parse_job_list
from runner.client.response import ExchangeResult, NoResponse, Response

StatusKind = Literal["completed", "failed", "cancelled", "active", "unknown"]

# The API does not document its statuses: these are the usual ones. Any other is shown as it is.
_KINDS: Mapping[str, StatusKind] = {
    **dict.fromkeys(("completed", "complete", "succeeded", "success", "successful", "done", "finished"), "completed"),
    **dict.fromkeys(("failed", "failure", "error", "errored", "timed_out", "timedout"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "terminated", "stopped"), "cancelled"),
    **dict.fromkeys(("created", "pending", "queued", "scheduled", "submitted", "accepted"), "active"),
    **dict.fromkeys(("running", "started", "in_progress", "processing", "paused", "retrying"), "active"),
}
_NO_FIELDS = JobObject("", {})
_MAX_COST = 2**63 - 1  # tokens, as in the ledger: a sum of such costs is never too long for Python to print
_MAX_ERRORS = 3  # shown of one job's tasks

_FIRST_INTERVAL = 1.0  # seconds between the first two polls
_INTERVAL_GROWTH = 1.5
_MAX_INTERVAL = 60.0
_MIN_FIRST_POLL = 1.0  # seconds that the first poll may take, however short the timeout
# A job is lost when so many polls in a row deny that it exists. If they deny every job, more are required: for some
# minutes, a gateway may do so while the service behind it is being replaced.
_MAX_DENIALS, _MAX_DENIALS_OF_ALL = 5, 12
_DENIAL = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job that exists, as the API last described it, at `seen_at`.

    `name`, `workflow_id` and `project_id` are the manifest's. `has_tasks`: `body` includes the job's tasks. `problem`
    says why its current status is unknown; `denials` counts the polls in a row that denied that the job exists, and
    `is_lost` means that there were enough to believe it.
    """

    name: str
    workflow_id: str
    project_id: str
    job_id: str
    body: bytes
    seen_at: datetime | None = None
    has_tasks: bool = False
    problem: str = ""
    denials: int = 0
    is_lost: bool = False
    job: JobObject | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "job", parse_job(self.body))

    @property
    def status(self) -> str:
        """The last status that the API returned; empty if none."""
        return self._object.status or ""

    @property
    def current_status(self) -> str:
        """The status; empty if it may have changed since, because of a `problem`."""
        return "" if self.problem else self.status

    @property
    def created_at(self) -> datetime | None:
        """When the job was created, in UTC, by the API's clock."""
        return self._object.created_at

    @property
    def started_at(self) -> datetime | None:
        """When the first of its tasks started, in UTC, by the API's clock."""
        return self._object.started_at

    @property
    def finished_at(self) -> datetime | None:
        """When the job finished, in UTC, by the API's clock."""
        return self._object.finished_at

    @property
    def kind(self) -> StatusKind:
        """What the status means."""
        return _KINDS.get(self.status.strip().lower().replace("-", "_").replace(" ", "_"), "unknown")

    @property
    def current_kind(self) -> StatusKind:
        """What `current_status` means."""
        return "unknown" if self.problem else self.kind

    @property
    def is_final(self) -> bool:
        """Whether the status can't change any more. An unknown one is final if the job has finished."""
        if self.kind == "unknown":
            return self.finished_at is not None
        return self.kind != "active"

    @property
    def is_known_final(self) -> bool:
        """Whether a poll has returned a final status: the response that created the job doesn't count."""
        return self.is_final and self.seen_at is not None

    @property
    def needs_details(self) -> bool:
        """Whether the job did not complete, and its tasks, which say why, are not known yet."""
        return self.is_known_final and self.kind != "completed" and not self.has_tasks

    @property
    def progress(self) -> str:
        """The progress as the API describes it; a number is a percentage."""
        progress = self._object.members.get("progress")
        if isinstance(progress, bool) or not isinstance(progress, str | int | float):
            return ""
        text = str(progress).strip()
        return f"{text} %" if text.replace(".", "", 1).isdigit() else text

    @property
    def cost(self) -> int | None:
        """The cost in tokens; None if the API returned none, or an absurd one."""
        cost = self._object.cost
        return None if cost is None or abs(cost) > _MAX_COST else cost

    @property
    def time_taken(self) -> str:
        """The time that the job took, as the API describes it."""
        time_taken = self._object.members.get("time_taken")
        return time_taken if isinstance(time_taken, str) else ""

    @property
    def errors(self) -> tuple[str, ...]:
        """The errors of its tasks."""
        tasks = self._object.members.get("tasks")
        known = [task for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
        errors = [error for error in map(_describe_error, known) if error]
        more = len(errors) - _MAX_ERRORS
        return (*errors[:_MAX_ERRORS], f"and {more} more") if more > 0 else tuple(errors)

    @property
    def _object(self) -> JobObject:
        return self.job or _NO_FIELDS


def _describe_error(task: Mapping[str, Any]) -> str:
    parts = [task.get(key) for key in ("failure_type", "err_msg")]
    error = ": ".join(part for part in parts if isinstance(part, str) and part.strip())
    name = task.get("name")
    return f"{name}: {error}" if error and isinstance(name, str) and name else error


def summarize_statuses(statuses: Sequence[JobStatus]) -> str:
    """Count the jobs by status, and add up their costs: `2 jobs: 1 completed, 1 running · cost 12`."""
    if not statuses:
        return "no jobs at the API"
    counts = Counter(job.current_status or "status unknown" for job in statuses)
    parts = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    cost = sum(max(0, job.cost or 0) for job in statuses)
    jobs = "job" if len(statuses) == 1 else "jobs"
    return f"{len(statuses)} {jobs}: {parts} · cost {cost}"


class StatusPoller:
    """Polls the status of a run's jobs.

    `auth_error` is set when the API rejects the key: no status can be determined then.
    """

    def __init__(
        self,
        jobs: Sequence[JobStatus],
        client: ReadOnlyClient,
        fetcher: Fetcher,
        save: Callable[[Sequence[JobStatus]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`save` is called with the jobs that a poll found to be final."""
        self._statuses = list(jobs)
        self._client = client
        self._fetcher = fetcher
        self._save = save
        self._clock = clock
        self._now = now
        self._any_success = False  # of the requests for lists and single jobs in this poll
        self._details_requested: set[int] = set()  # indexes of jobs
        self.auth_error = ""

    @property
    def statuses(self) -> tuple[JobStatus, ...]:
        """The last known status of each job, in the order of `jobs`."""
        return tuple(self._statuses)

    @property
    def pause_remaining(self) -> float:
        """The seconds for which the API asked not to be sent anything."""
        return self._fetcher.pause_remaining

    @property
    def is_done(self) -> bool:
        """Whether another poll would change nothing."""
        return bool(self.auth_error) or not self._find_pending()

    def poll(self, time_limit: float | None = None) -> list[JobStatus]:
        """Request the status of each job that is not final, and return those that changed.

        Takes at most `time_limit` seconds. Lists the jobs of each workflow that has several such jobs; gets a job that
        is the only one of its workflow or that the list does not include; and gets, once, a job that failed, for its
        tasks.
        """
        before = self.statuses
        deadline = None if time_limit is None else self._clock() + time_limit
        unlisted, timed_out = self._poll_workflows(deadline)
        if not timed_out:  # otherwise an API that does not respond would be waited for twice
            failed = {index for index, job in enumerate(self._statuses) if job.needs_details} - self._details_requested
            self._details_requested |= failed
            indexes = [*unlisted, *sorted(failed)]
            for index, result in zip(indexes, self._fetch(map(self._get_job, indexes), deadline), strict=True):
                self._update_from_job(index, result)
        updates = [(old, new) for old, new in zip(before, self._statuses, strict=True) if new is not old]
        if final := [new for _, new in updates if new.is_known_final]:
            self._save(final)
        return [new for old, new in updates if _has_changed(old, new)]

    def poll_until_final(self, wait: Callable[[float], bool], timeout: float | None) -> Iterator[list[JobStatus]]:
        """Poll until every job is final, and yield what each poll changed.

        Args:
            wait: sleeps for some seconds; returns False to stop polling.
            timeout: the seconds after which polling stops; None for no limit.
        """
        deadline = math.inf if timeout is None else self._clock() + timeout
        interval, min_time = _FIRST_INTERVAL, _MIN_FIRST_POLL
        while True:
            yield self.poll(None if timeout is None else max(min_time, deadline - self._clock()))
            remaining = deadline - self._clock()
            if self.is_done or remaining <= 0 or not wait(min(remaining, max(interval, self.pause_remaining))):
                return
            interval, min_time = min(_MAX_INTERVAL, interval * _INTERVAL_GROWTH), 0.0

    def _find_pending(self) -> list[int]:
        """Return the indexes of the jobs to poll."""
        return [index for index, job in enumerate(self._statuses) if not job.is_known_final and not job.is_lost]

    def _poll_workflows(self, deadline: float | None) -> tuple[list[int], bool]:
        """List workflows with several pending jobs, and get the job of each other one.

        Returns the indexes of pending jobs that no list included, and whether a request timed out.
        """
        by_workflow: defaultdict[str, list[int]] = defaultdict(list)
        for index in self._find_pending():
            by_workflow[self._statuses[index].workflow_id].append(index)
        calls = [
            self._get_job(indexes[0]) if len(indexes) == 1 else partial(self._client.list_jobs, workflow_id)
            for workflow_id, indexes in by_workflow.items()
        ]
        results = self._fetch(calls, deadline)
        self._any_success = any(_success_body(result) is not None for result in results)
        unlisted: list[int] = []
        for indexes, result in zip(by_workflow.values(), results, strict=True):
            if len(indexes) == 1:
                self._update_from_job(indexes[0], result)
            else:
                unlisted += self._update_from_list(indexes, result)
        return unlisted, any(isinstance(result, NoResponse) and result.cause == "timeout" for result in results)

    def _get_job(self, index: int) -> ApiCall:
        job = self._statuses[index]
        return partial(self._client.get_job, job.workflow_id, job.job_id)

    def _fetch(self, calls: Iterable[ApiCall], deadline: float | None) -> list[ExchangeResult]:
        pending = list(calls)
        time_limit = None if deadline is None else max(0.0, deadline - self._clock())
        return self._fetcher.fetch_all(pending, time_limit) if pending else []

    def _update_from_list(self, indexes: Sequence[int], result: ExchangeResult) -> Sequence[int]:
        """Update jobs from a list; returns the indexes of those to get one by one."""
        body = _success_body(result)
        job_list = None if body is None else parse_job_list(body)
        if job_list is None:
            self._set_problem(indexes, result)
            # Each job may be readable where their list is not; an API that fails is left alone.
            return indexes if isinstance(result, Response) and result.status < HTTPStatus.MULTIPLE_CHOICES else ()
        by_id = {job.id: job for job in job_list.jobs}
        for index in indexes:
            status = self._statuses[index]
            if status.job_id in by_id:
                self._update(index, update_job(status.body, by_id[status.job_id]), has_tasks=False)
        return [index for index in indexes if self._statuses[index].job_id not in by_id]

    def _update_from_job(self, index: int, result: ExchangeResult) -> None:
        status, body = self._statuses[index], _success_body(result)
        job = None if body is None else parse_job(body)
        if body is not None and job is not None and job.id == status.job_id:
            self._update(index, body, has_tasks=True)
        elif not status.is_known_final:  # otherwise its status is known, and only the details are missing
            self._set_problem([index], result)

    def _update(self, index: int, body: bytes, *, has_tasks: bool) -> None:
        self._statuses[index] = replace(
            self._statuses[index], body=body, seen_at=self._now(), has_tasks=has_tasks, problem="", denials=0
        )

    def _set_problem(self, indexes: Sequence[int], result: ExchangeResult) -> None:
        if isinstance(result, NoResponse) and result.cause == "interrupted":  # stopped by us: that tells nothing
            return
        http_status = result.status if isinstance(result, Response) else None
        problem = error_from_read(result, bearer=self._client.bearer).message
        if http_status == HTTPStatus.UNAUTHORIZED:
            self.auth_error = problem
        for index in indexes:
            job = self._statuses[index]
            denials = job.denials + 1 if http_status in _DENIAL else 0
            is_lost = denials >= (_MAX_DENIALS if self._any_success else _MAX_DENIALS_OF_ALL)
            self._statuses[index] = replace(job, problem=problem, denials=denials, is_lost=is_lost)


def _success_body(result: ExchangeResult) -> bytes | None:
    return result.body if isinstance(result, Response) and result.status == HTTPStatus.OK else None


def _has_changed(old: JobStatus, new: JobStatus) -> bool:
    return (old.status, old.progress, old.problem) != (new.status, new.progress, new.problem)
