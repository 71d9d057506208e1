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

from runner import jobobject
from runner.asking import Asker, Question
from runner.exchange import Exchange
from runner.jobobject import JobObject
from runner.verdict import Answer, Happening, without_use

Kind = Literal["completed", "failed", "cancelled", "going", "unknown"]

# What is known of the API's words; any other is shown as it is.
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("completed", "complete", "succeeded", "success", "successful", "done", "finished"), "completed"),
    **dict.fromkeys(("failed", "failure", "error", "errored", "timed_out", "timedout"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "terminated", "stopped"), "cancelled"),
    **dict.fromkeys(("created", "pending", "queued", "scheduled", "submitted", "accepted"), "going"),
    **dict.fromkeys(("running", "started", "in_progress", "processing", "paused", "retrying"), "going"),
}
_UNSET = 1971  # a year: servers write a time that is not set as 0001-01-01 or 1970-01-01

_FIRST_PAUSE = 1.0  # seconds between the first looks
_GROWTH = 1.5
_LONGEST_PAUSE = 60.0
_MOST_DENIALS = 5  # looks in a row in which the API does not know a job, until that is believed
_MOST_ERRORS = 3  # of one job's tasks, in words
_DENIED = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


class Reader(Protocol):
    """What is needed of the API: nothing that creates."""

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> Happening:
        """The jobs of a workflow."""

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> Happening:
        """One job, whole."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A job that exists, as the API told it last, at `seen_at`.

    `name`, `workflow_id` and `project_id` are the manifest's. `whole`: the object has the job's tasks as of then.
    `problem` says why nothing newer is known; `denials` counts the looks in a row in which the API did not know it.
    """

    name: str
    workflow_id: str
    project_id: str
    job_id: str
    body: bytes
    seen_at: datetime | None = None
    whole: bool = False
    problem: str = ""
    denials: int = 0
    job: JobObject | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "job", jobobject.read(self.body))

    @property
    def status(self) -> str:
        """The API's word; empty where it told none."""
        return (self.job and self.job.status) or ""

    @property
    def finished_at(self) -> datetime | None:
        """When the job was over, by the API's clock."""
        moment = jobobject.moment(self._member("finished_at"))
        return None if moment is None or moment.year < _UNSET else moment

    @property
    def kind(self) -> Kind:
        """What the status means. A word that nobody knows is not final unless the job has an end."""
        return _KINDS.get(self.status.strip().lower().replace("-", "_").replace(" ", "_"), "unknown")

    @property
    def is_final(self) -> bool:
        """Whether nothing will become of the job any more."""
        return self.kind in ("completed", "failed", "cancelled") or (
            self.kind == "unknown" and self.finished_at is not None
        )

    @property
    def is_lost(self) -> bool:
        """Whether the API does not know the job, however often it is asked."""
        return self.denials >= _MOST_DENIALS

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
        """What the API says it costs, in tokens."""
        return self.job.cost if self.job else None

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


def totals(sightings: Sequence[Sighting]) -> str:
    """How many jobs have each status, and what they cost."""
    counts = Counter(one.status or "status unknown" for one in sightings)
    parts = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    cost = sum(max(0, one.cost or 0) for one in sightings)
    jobs = "job" if len(sightings) == 1 else "jobs"
    return f"{len(sightings)} {jobs}{': ' if parts else ''}{parts} · cost {cost}"


class Watch:
    """Looks at the jobs of a run; `sightings` is what is known of each, in their order."""

    def __init__(
        self,
        jobs: Sequence[Sighting],
        reader: Reader,
        asker: Asker,
        keep: Callable[[Sequence[Sighting]], None],
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
        self._silent: Happening | None = None  # what came of all that was asked last, if no answer did
        self.refused = ""  # why nothing can be learned: the key is not recognised

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """What is known of each job, in their order."""
        return tuple(self._known)

    @property
    def is_over(self) -> bool:
        """Whether looking again would tell nothing more."""
        return bool(self.refused) or all(one.is_final or one.is_lost for one in self._known)

    def look(self) -> list[Sighting]:
        """Ask for what is not final yet, and return what has changed.

        One list for each workflow with several such jobs, and one request for each job that stands alone or that its
        list does not show; one more, once, for each job that failed, to learn why.
        """
        before, self._silent = list(self._known), None
        places = [place for place, one in enumerate(self._known) if not one.is_final and not one.is_lost]
        missing = self._look_at_lists(places)
        self._look_at_each(missing)
        self._look_at_each([place for place in places if self._wants_reasons(self._known[place])], again=True)
        changed = [new for old, new in zip(before, self._known, strict=True) if _differ(old, new)]
        final = [self._known[place] for place in places if self._known[place].is_final]
        if final:
            self._keep(final)
        return changed

    def follow(self, wait: Callable[[float], bool], timeout: float | None) -> Iterator[list[Sighting]]:
        """Look until all is final, and yield what changed at each look.

        Args:
            wait: sleeps so many seconds; False ends the following.
            timeout: the seconds after which it ends all the same; None: never.
        """
        deadline = None if timeout is None else self._clock() + timeout
        pause = _FIRST_PAUSE
        while True:
            yield self.look()
            if self.is_over:
                return
            seconds = max(pause, self._asker.paused_for)
            if deadline is not None:
                left = deadline - self._clock()
                if left <= 0:
                    return
                seconds = min(seconds, left)
            if not wait(seconds):
                return
            pause = min(_LONGEST_PAUSE, pause * _GROWTH)

    def _look_at_lists(self, places: Sequence[int]) -> list[int]:
        """List the workflows that have several of these jobs; returns those that are still to be asked for."""
        by_workflow: defaultdict[str, list[int]] = defaultdict(list)
        for place in places:
            by_workflow[self._known[place].workflow_id].append(place)
        listed = {workflow_id: group for workflow_id, group in by_workflow.items() if len(group) > 1}
        told = self._ask([partial(self._reader.list_jobs, workflow_id) for workflow_id in listed])
        alone = [group[0] for group in by_workflow.values() if len(group) == 1]
        for group, happening in zip(listed.values(), told, strict=True):
            alone += self._from_list(group, happening)
        return alone

    def _from_list(self, group: Sequence[int], happening: Happening) -> list[int]:
        jobs = None
        if isinstance(happening, Answer) and happening.status == HTTPStatus.OK:
            jobs = jobobject.listed(happening.body)
        if jobs is None:
            self._not_told(group, happening)
            # A list that cannot be read is no reason not to ask for each; an API that does not answer is.
            return list(group) if isinstance(happening, Answer) and happening.status < 300 else []  # noqa: PLR2004 - a success
        by_id = {job.id: job for job in jobs}
        for place in group:
            job = by_id.get(self._known[place].job_id)
            if job is not None:
                self._see(place, jobobject.updated(self._known[place].body, job), whole=False)
        return [place for place in group if self._known[place].job_id not in by_id]

    def _look_at_each(self, places: Sequence[int], *, again: bool = False) -> None:
        """Ask for some jobs, one by one. `again`: they were seen just now, and it does not matter if that fails."""
        asked = [self._known[place] for place in places]
        told = self._ask([partial(self._reader.get_job, one.workflow_id, one.job_id) for one in asked])
        for place, happening in zip(places, told, strict=True):
            if isinstance(happening, Answer) and happening.status == HTTPStatus.OK:
                job = jobobject.read(happening.body)
                if job is not None and job.id == self._known[place].job_id:
                    self._see(place, happening.body, whole=True)
                    continue
            if not again:
                self._not_told([place], happening)

    def _ask(self, questions: Sequence[Question]) -> list[Happening]:
        if not questions or self._silent is not None:  # who answers nothing is not waited for twice
            return [self._silent] * len(questions) if self._silent is not None else []
        told = self._asker.ask(questions)
        if not any(isinstance(happening, Answer) and happening.status < 429 for happening in told):  # noqa: PLR2004 - throttled
            self._silent = told[-1]
        for happening in told:
            if isinstance(happening, Answer) and happening.status == HTTPStatus.UNAUTHORIZED:
                self.refused = without_use(happening, bearer=self._reader.bearer)
                self._silent = happening
        return told

    def _wants_reasons(self, one: Sighting) -> bool:
        return one.is_final and one.kind != "completed" and not one.whole

    def _see(self, place: int, body: bytes, *, whole: bool) -> None:
        known = self._known[place]
        self._known[place] = replace(known, body=body, seen_at=self._now(), whole=whole, problem="", denials=0)

    def _not_told(self, places: Sequence[int], happening: Happening) -> None:
        denied = isinstance(happening, Answer) and happening.status in _DENIED
        problem = without_use(happening, bearer=self._reader.bearer)
        for place in places:
            known = self._known[place]
            self._known[place] = replace(known, problem=problem, denials=known.denials + 1 if denied else 0)


def _differ(old: Sighting, new: Sighting) -> bool:
    return (old.status, old.progress, old.problem) != (new.status, new.progress, new.problem)
