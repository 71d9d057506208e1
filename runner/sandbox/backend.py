"""The sandbox's state: its catalog, its clock and every job created in it. Safe to use from many threads."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

from runner.sandbox.catalog import EXAMPLE, Catalog
from runner.sandbox.lifecycle import SandboxJob
from runner.sandbox.store import JobFile

_utc_now = partial(datetime.now, UTC)


class Backend:
    """Projects, workflows and jobs. Jobs are never removed, and only change with time.

    `clock` returns the time in UTC. With a `store`, jobs are saved in it: jobs that are already there are part of this
    backend from the start, and those that another process adds later are found by the next query. `created` counts the
    jobs that this object created.

    Raises:
        RefusedError: the store cannot be read.
    """

    def __init__(
        self, catalog: Catalog = EXAMPLE, clock: Callable[[], datetime] = _utc_now, store: JobFile | None = None
    ) -> None:
        self._clock = clock
        self._store = store
        self._lock = threading.Lock()
        self.catalog = catalog
        self._jobs: dict[str, dict[str, SandboxJob]] = {}
        self.created = 0
        with self._lock:
            self._refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def now(self) -> datetime:
        """The sandbox's time, in UTC."""
        return self._clock()

    def add_pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Allow every (workflow id, project id) of `pairs` to run."""
        with self._lock:
            self.catalog = self.catalog.add_pairs(pairs)

    def create(self, workflow_id: str, project_id: str, *, fails: bool = False) -> SandboxJob:
        """Create a job. It is in the store before this returns. With `fails`, it fails even if its workflow does not.

        Raises:
            KeyError: the workflow is not in the catalog.
            RefusedError: the store could not save the job; it was not created.
        """
        workflow = self.catalog.workflows[workflow_id]
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
            if self._store is not None:
                self._add(self._store.append(job))
            self._jobs.setdefault(workflow_id, {})[job.id] = job
            self.created += 1
        return job

    def jobs(self, workflow_id: str) -> list[SandboxJob]:
        """The workflow's jobs, oldest first.

        Raises:
            RefusedError: the store cannot be read.
        """
        with self._lock:
            self._refresh()
            return list(self._jobs.get(workflow_id, {}).values())

    def job(self, workflow_id: str, job_id: str) -> SandboxJob | None:
        """The workflow's job with this id, if there is one.

        Raises:
            RefusedError: the store cannot be read.
        """
        with self._lock:
            self._refresh()
            return self._jobs.get(workflow_id, {}).get(job_id)

    def close(self) -> None:
        """Close the store. Calling it again has no effect."""
        with self._lock:
            if self._store is not None:
                self._store.close()

    def _refresh(self) -> None:
        """Add the jobs that other processes saved since the last time."""
        if self._store is not None:
            self._add(self._store.read_new())

    def _add(self, jobs: list[SandboxJob]) -> None:
        """Add jobs from the store, and their pairs, which were known where the jobs were created."""
        if jobs:
            self.catalog = self.catalog.add_pairs((job.workflow_id, job.project_id) for job in jobs)
        for job in jobs:
            self._jobs.setdefault(job.workflow_id, {})[job.id] = job
