"""The sandbox's state: its catalogue, its clock and every job created in it. Safe to use from many threads."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from runner.sandbox.catalog import EXAMPLE, Catalog
from runner.sandbox.lifecycle import SandboxJob
from runner.sandbox.store import Memory, Store


def utc_now() -> datetime:
    """The time of this machine, in UTC."""
    return datetime.now(UTC)


class Backend:
    """Projects, workflows and jobs. A job that was created stays, and only time changes it.

    `clock` tells the time in UTC. `store` is where jobs are kept; the jobs that are in it already belong to this world
    from the start, and those that another process adds to it later join when somebody asks.

    Raises:
        RefusedError: the store cannot be read.
    """

    def __init__(
        self, catalogue: Catalog = EXAMPLE, clock: Callable[[], datetime] = utc_now, store: Store | None = None
    ) -> None:
        self._clock = clock
        self._store: Store = store or Memory()
        self._lock = threading.Lock()
        self._catalogue = catalogue
        self._jobs: dict[str, dict[str, SandboxJob]] = {}
        self._created = 0
        with self._lock:
            self._take(self._store.read_new())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def catalog(self) -> Catalog:
        """The projects and workflows as they are now."""
        return self._catalogue

    @property
    def created(self) -> int:
        """How many jobs were created through this object; those that the store held before are not counted."""
        return self._created

    def now(self) -> datetime:
        """The time in this world, in UTC."""
        return self._clock()

    def add_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Let each (workflow id, project id) of `pairs` be run."""
        with self._lock:
            self._catalogue = self._catalogue.add_pairs(pairs)

    def create(self, workflow_id: str, project_id: str) -> SandboxJob:
        """Create a job of a workflow that is in the catalogue. It is in the store before this returns.

        Raises:
            KeyError: the catalogue doesn't have the workflow.
            RefusedError: the store could not keep the job; it was not created.
        """
        return self._create(workflow_id, project_id, fails=False)

    def create_failing(self, workflow_id: str, project_id: str) -> SandboxJob:
        """Create a job that fails, whatever becomes of the workflow's other jobs; else as `create`.

        Raises:
            KeyError: the catalogue doesn't have the workflow.
            RefusedError: the store could not keep the job; it was not created.
        """
        return self._create(workflow_id, project_id, fails=True)

    def jobs(self, workflow_id: str) -> list[SandboxJob]:
        """The workflow's jobs, the oldest first.

        Raises:
            RefusedError: the store cannot be read.
        """
        with self._lock:
            self._take(self._store.read_new())
            return list(self._jobs.get(workflow_id, {}).values())

    def job(self, workflow_id: str, job_id: str) -> SandboxJob | None:
        """The workflow's job of that id, if it has one.

        Raises:
            RefusedError: the store cannot be read.
        """
        with self._lock:
            self._take(self._store.read_new())
            return self._jobs.get(workflow_id, {}).get(job_id)

    def close(self) -> None:
        """Let go of the store. A second call does nothing."""
        with self._lock:
            self._store.close()

    def _create(self, workflow_id: str, project_id: str, *, fails: bool) -> SandboxJob:
        workflow = self._catalogue.workflows[workflow_id]
        with self._lock:
            job = SandboxJob(
                id=str(uuid.uuid4()),
                workflow_id=workflow_id,
                project_id=project_id,
                created_at=self._clock(),
                duration=workflow.duration,
                cost=workflow.cost,
                fails=fails or workflow.fails,
            )
            self._take(self._store.append(job))
            self._jobs.setdefault(workflow_id, {})[job.id] = job
            self._created += 1
        return job

    def _take(self, jobs: list[SandboxJob]) -> None:
        """Add jobs from the store. Where they were created their pairs were known, so they are known here too."""
        if not jobs:
            return
        self._catalogue = self._catalogue.add_pairs((job.workflow_id, job.project_id) for job in jobs)
        for job in jobs:
            self._jobs.setdefault(job.workflow_id, {})[job.id] = job
