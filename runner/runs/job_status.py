"""What became of the jobs of a run at the API: one look, or looking until all of them are final.

Nothing here creates or sends anything. A job that was found to be final is not asked for again.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, Protocol

from runner.client.exchange import Exchange
from runner.client.failures import error_from_read
from runner.client.fetcher import ApiCall, Fetcher
from runner.client.job import JobObject, parse_job, parse_timestamp, update_job
from runner.client.job_list import parse_job_list
from runner.client.response import ExchangeResult, NoResponse, Response

StatusKind = Literal["completed", "failed", "cancelled", "active", "unknown"]

# What is known of the API's words; any other is shown as it is.
_KINDS: Mapping[str, StatusKind] = {
    **dict.fromkeys(("completed", "complete", "succeeded", "success", "successful", "done", "finished"), "completed"),
    **dict.fromkeys(("failed", "failure", "error", "errored", "timed_out", "timedout"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "terminated", "stopped"), "cancelled"),
    **dict.fromkeys(("created", "pending", "queued", "scheduled", "submitted", "accepted"), "active"),
    **dict.fromkeys(("running", "started", "in_progress", "processing", "paused", "retrying"), "active"),
}
_LARGEST_COST = 2**63 - 1  # tokens, as the ledger has it: no sum of such is too long for Python to print

_FIRST_PAUSE = 1.0  # seconds between the first looks
_LEAST_LOOK = 1.0  # seconds that the first look may take however soon the time to wait is over
_GROWTH = 1.5
_LONGEST_PAUSE = 60.0
# Looks in a row in which the API does not know a job, until that is believed: soon while it knows of others, and after
# some minutes while it denies everything, as a gateway does when what is behind it is being replaced.
_MOST_DENIALS, _MOST_DENIALS_OF_ALL = 5, 12
_MOST_ERRORS = 3  # of one job's tasks, in words
_DENIED = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_THROTTLED = (HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class StatusReader(Protocol):
    """What is needed of the API: nothing that creates."""

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """The jobs of a workflow."""

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:
        """One job, whole."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job that exists, as the API told it last, at `seen_at`.

    `name`, `workflow_id` and `project_id` are the manifest's. `whole`: the object has the job's tasks as of then.
    `problem` says why nothing newer is known; `denials` counts the looks in a row in which the API did not know it, and
    `is_lost` says that this is to be believed.
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
        """The API's word; empty where it told none."""
        return (self.job and self.job.status) or ""

    @property
    def current_status(self) -> str:
        """The same, where that is known now; empty where the API told no more than a `problem`."""
        return "" if self.problem else self.status

    @property
    def created_at(self) -> datetime | None:
        """When the job was created, in UTC, by the API's clock."""
        return parse_timestamp(self._member("created_at"))

    @property
    def started_at(self) -> datetime | None:
        """When work on the job began, in UTC, by the API's clock."""
        return self.job.started_at if self.job else None

    @property
    def finished_at(self) -> datetime | None:
        """When the job was over, in UTC, by the API's clock."""
        return self.job.finished_at if self.job else None

    @property
    def kind(self) -> StatusKind:
        """What the status means. A word that nobody knows is not final unless the job has an end."""
        return _KINDS.get(self.status.strip().lower().replace("-", "_").replace(" ", "_"), "unknown")

    @property
    def current_kind(self) -> StatusKind:
        """The same of `status_now`."""
        return "unknown" if self.problem else self.kind

    @property
    def is_final(self) -> bool:
        """Whether nothing will become of the job any more."""
        return self.kind in ("completed", "failed", "cancelled") or (
            self.kind == "unknown" and self.finished_at is not None
        )

    @property
    def is_known_final(self) -> bool:
        """Whether it was found to be final: not only told so by the answer that created it."""
        return self.is_final and self.seen_at is not None

    @property
    def needs_details(self) -> bool:
        """Whether it did not complete, and why is not known yet."""
        return self.is_known_final and self.kind != "completed" and not self.has_tasks

    @property
    def progress(self) -> str:
        """How far the job is, as the API tells it: a number is a percentage."""
        told = self._member("progress")
        if isinstance(told, bool) or not isinstance(told, str | int | float):
            return ""
        text = str(told).strip()
        return f"{text} %" if text.replace(".", "", 1).isdigit() else text

    @property
    def cost(self) -> int | None:
        """What the API says it costs, in tokens; None where that could be no cost."""
        cost = self.job.cost if self.job else None
        return None if cost is None or abs(cost) > _LARGEST_COST else cost

    @property
    def time_taken(self) -> str:
        """How long it took, as the API tells it."""
        told = self._member("time_taken")
        return told if isinstance(told, str) else ""

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong in its tasks, in words."""
        tasks = self._member("tasks")
        told = [_task_error(task) for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []
        said = [one for one in told if one]
        return (
            (*said[:_MOST_ERRORS], f"and {len(said) - _MOST_ERRORS} more") if len(said) > _MOST_ERRORS else tuple(said)
        )

    def _member(self, name: str) -> Any:
        return self.job.members.get(name) if self.job else None


def _task_error(task: Mapping[str, Any]) -> str:
    words = [task.get(key) for key in ("failure_type", "err_msg")]
    said = ": ".join(word for word in words if isinstance(word, str) and word.strip())
    name = task.get("name")
    return f"{name}: {said}" if said and isinstance(name, str) and name else said


def summarize_statuses(sightings: Sequence[JobStatus]) -> str:
    """How many jobs have each status, and what they cost."""
    counts = Counter(one.current_status or "status unknown" for one in sightings)
    parts = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    cost = sum(max(0, one.cost or 0) for one in sightings)
    jobs = "job" if len(sightings) == 1 else "jobs"
    return f"{len(sightings)} {jobs}{': ' if parts else ''}{parts} · cost {cost}"


class StatusPoller:
    """Looks at the jobs of a run; `sightings` is what is known of each, in their order."""

    def __init__(
        self,
        jobs: Sequence[JobStatus],
        reader: StatusReader,
        asker: Fetcher,
        keep: Callable[[Sequence[JobStatus]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`keep` is given jobs that were just found to be final, to put them on record."""
        self._known = list(jobs)
        self._reader = reader
        self._asker = asker
        self._keep = keep
        self._clock = clock
        self._now = now
        self._knows_some = False  # whether it told anything in this look
        self._explained: set[int] = set()  # the places of jobs that were asked why they failed
        self.refused = ""  # why nothing can be learned: the key is not recognised

    @property
    def statuses(self) -> tuple[JobStatus, ...]:
        """What is known of each job, in their order."""
        return tuple(self._known)

    @property
    def paused_for(self) -> float:
        """The seconds for which the API asked not to be asked."""
        return self._asker.pause_remaining

    @property
    def is_done(self) -> bool:
        """Whether looking again would tell nothing more."""
        return bool(self.refused) or all(one.is_known_final or one.is_lost for one in self._known)

    def poll(self, within: float | None = None) -> list[JobStatus]:
        """Ask for what is not final yet, and return what has changed. It takes no more than `within` seconds.

        One list for each workflow with several such jobs, and one request for each job that stands alone or that its
        list does not show; one more, once, for each job that failed, to learn why.
        """
        before = list(self._known)
        end = None if within is None else self._clock() + within
        places = [place for place, one in enumerate(self._known) if not one.is_known_final and not one.is_lost]
        missing, stalled = self._look_at_workflows(places, end)
        if not stalled:  # who was waited for once is not waited for twice
            unexplained = [place for place, one in enumerate(self._known) if one.needs_details]
            unexplained = [place for place in unexplained if place not in self._explained]
            self._explained.update(unexplained)
            self._look_at_each([*missing, *unexplained], end)
        pairs = list(zip(before, self._known, strict=True))
        final = [new for old, new in pairs if new.is_known_final and new is not old]
        if final:
            self._keep(final)
        return [new for old, new in pairs if _differ(old, new)]

    def poll_until_final(self, wait: Callable[[float], bool], timeout: float | None) -> Iterator[list[JobStatus]]:
        """Look until all is final, and yield what changed at each look.

        Args:
            wait: sleeps so many seconds; False ends the following.
            timeout: the seconds after which it ends all the same; None: never.
        """
        deadline = None if timeout is None else self._clock() + timeout
        pause, least = _FIRST_PAUSE, _LEAST_LOOK
        while True:
            yield self.poll(None if deadline is None else max(least, deadline - self._clock()))
            least = 0.0
            if self.is_done:
                return
            seconds = max(pause, self._asker.pause_remaining)
            if deadline is not None:
                left = deadline - self._clock()
                if left <= 0:
                    return
                seconds = min(seconds, left)
            if not wait(seconds):
                return
            pause = min(_LONGEST_PAUSE, pause * _GROWTH)

    def _look_at_workflows(self, places: Sequence[int], end: float | None) -> tuple[list[int], bool]:
        """Ask for one that is alone in its workflow, and list others.

        Returns those that no list showed, and whether any answer was waited for in vain.
        """
        by_workflow: defaultdict[str, list[int]] = defaultdict(list)
        for place in places:
            by_workflow[self._known[place].workflow_id].append(place)
        groups = list(by_workflow.values())
        told = self._ask([self._list(group[0]) if len(group) > 1 else self._get(group[0]) for group in groups], end)
        self._knows_some = any(isinstance(one, Response) and one.status == HTTPStatus.OK for one in told)
        missing: list[int] = []
        for group, happening in zip(groups, told, strict=True):
            if len(group) > 1:
                missing += self._from_list(group, happening)
            else:
                self._from_job(group[0], happening)
        return missing, any(isinstance(one, NoResponse) and one.cause == "timeout" for one in told)

    def _list(self, place: int) -> ApiCall:
        return partial(self._reader.list_jobs, self._known[place].workflow_id)

    def _get(self, place: int) -> ApiCall:
        return partial(self._reader.get_job, self._known[place].workflow_id, self._known[place].job_id)

    def _from_list(self, group: Sequence[int], happening: ExchangeResult) -> list[int]:
        jobs = None
        if isinstance(happening, Response) and happening.status == HTTPStatus.OK:
            jobs = parse_job_list(happening.body)
        if jobs is None:
            self._not_told(group, happening)
            # A list that cannot be read is no reason not to ask for each; an API that does not answer is.
            return list(group) if isinstance(happening, Response) and happening.status < 300 else []  # noqa: PLR2004 - a success
        by_id = {job.id: job for job in jobs.jobs}
        for place in group:
            job = by_id.get(self._known[place].job_id)
            if job is not None:
                self._see(place, update_job(self._known[place].body, job), whole=False)
        return [place for place in group if self._known[place].job_id not in by_id]

    def _look_at_each(self, places: Sequence[int], end: float | None) -> None:
        for place, happening in zip(places, self._ask([self._get(place) for place in places], end), strict=True):
            self._from_job(place, happening)

    def _from_job(self, place: int, happening: ExchangeResult) -> None:
        known = self._known[place]
        if isinstance(happening, Response) and happening.status == HTTPStatus.OK:
            job = parse_job(happening.body)
            if job is not None and job.id == known.job_id:
                self._see(place, happening.body, whole=True)
                return
        if not known.is_known_final:  # else only the reasons are not told, and a list told the rest just now
            self._not_told([place], happening)

    def _ask(self, questions: Sequence[ApiCall], end: float | None) -> list[ExchangeResult]:
        within = None if end is None else max(0.0, end - self._clock())
        return self._asker.fetch_all(questions, within) if questions else []

    def _see(self, place: int, body: bytes, *, whole: bool) -> None:
        known = self._known[place]
        self._known[place] = replace(known, body=body, seen_at=self._now(), has_tasks=whole, problem="", denials=0)

    def _not_told(self, places: Sequence[int], happening: ExchangeResult) -> None:
        if isinstance(happening, NoResponse) and happening.cause == "interrupted":  # nobody waited for it: no news
            return
        status = happening.status if isinstance(happening, Response) else None
        problem = error_from_read(happening, bearer=self._reader.bearer).message
        if status == HTTPStatus.UNAUTHORIZED:
            self.refused = problem
        for place in places:
            known = self._known[place]
            denials = known.denials + 1 if status in _DENIED else 0
            is_lost = denials >= (_MOST_DENIALS if self._knows_some else _MOST_DENIALS_OF_ALL)
            self._known[place] = replace(known, problem=problem, denials=denials, is_lost=is_lost)


def _differ(old: JobStatus, new: JobStatus) -> bool:
    return (old.status, old.progress, old.problem) != (new.status, new.progress, new.problem)
