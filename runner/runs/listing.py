"""A workflow's jobs as the API lists them, with times corrected to this machine's clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Protocol

from runner.client.exchange import Exchange
from runner.client.job import JobObject
from runner.client.job_list import parse_job_list
from runner.client.response import ExchangeResult, Response


class JobReader(Protocol):
    """The part of the API client that a lookup needs. It cannot create a job."""

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """List the jobs of a workflow."""

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:
        """Get a complete job."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The jobs of a workflow as the API listed them.

    `clock_offset` is how far the server's clock is ahead of this machine's. `incomplete` names the field or header that
    leaves open whether the list is complete and current, and is empty if none does. `date` is when the list was made,
    by the server's clock.
    """

    jobs: tuple[JobObject, ...]
    clock_offset: timedelta
    incomplete: str = ""
    date: datetime | None = None

    def created_at(self, job: JobObject) -> datetime | None:
        """Return when a job was created, by this machine's clock; None if the API does not say."""
        try:
            return None if job.created_at is None else job.created_at - self.clock_offset
        except OverflowError:  # the first or the last year of datetime, which some servers use for "no time"
            return None


def fetch_listing(reader: JobReader, workflow_id: str, timeout: float, now: Callable[[], datetime]) -> Listing | str:
    """List the jobs of a workflow; returns the reason if that fails. `timeout` is in seconds."""
    sent_at = now()
    response = reader.list_jobs(workflow_id, Exchange(timeout))
    if not isinstance(response, Response):
        return f"the API's list of jobs could not be retrieved: {response.detail}"
    job_list = parse_job_list(response.body) if response.status == HTTPStatus.OK else None
    if job_list is None:
        if response.status < HTTPStatus.MULTIPLE_CHOICES:
            return f"the API's list of jobs could not be read (HTTP {response.status}, but not a valid list)"
        return f"the API's list of jobs could not be retrieved (HTTP {response.status})"
    incomplete = job_list.find_incompleteness(response.headers)
    return Listing(job_list.jobs, _clock_offset(response, sent_at, now()), incomplete, response.date)


def _clock_offset(response: Response, sent_at: datetime, received_at: datetime) -> timedelta:
    """Return how far the server's clock is ahead of this machine's; 0 if the response has no date."""
    date = response.date
    return timedelta(0) if date is None else date - (sent_at + (received_at - sent_at) / 2)
