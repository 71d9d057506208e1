"""The program's data types: jobs and manifests, submissions and their outcomes, and the record of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

OncePer = Literal["run", "hour", "day", "week", "month", "forever"]
OnUnfinished = Literal["refuse", "resume", "new"]
RunState = Literal["completed", "stopped", "interrupted"]

STDIN = "-"  # the path of a manifest that is read from standard input


@dataclass(frozen=True, slots=True)
class Job:
    """An entry of a manifest with the defaults applied: a named workflow/project pair. `line` counts from 1."""

    name: str
    workflow_id: str
    project_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    enabled: bool = True
    line: int = 0

    @property
    def pair(self) -> tuple[str, str]:
        """The workflow and the project, which identify what is submitted; the name is only a label."""
        return (self.workflow_id, self.project_id)


@dataclass(frozen=True, slots=True)
class LimitOverrides:
    """The limits that the user or a manifest's `submit` section sets; None for the others. Times are in seconds."""

    concurrency: int | None = None
    rate: str | None = None
    attempts: int | None = None
    timeout: float | None = None
    stop_after: int | None = None
    max_pause: float | None = None
    max_cost: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid manifest. `path` is as given (or STDIN), `sha256` that of its bytes.

    `has_explicit_name`: the name is set in the manifest, not derived from the file's.
    """

    name: str
    path: str
    sha256: str
    jobs: tuple[Job, ...]
    once_per: OncePer = "run"
    timezone: str | None = None
    on_unfinished: OnUnfinished = "refuse"
    max_cost: int | None = None
    submit: LimitOverrides = LimitOverrides()
    has_explicit_name: bool = False


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why a job was not created, or may not have been.

    `kind` classifies the error (`unreachable`, `rejected`, `timeout`, …), `message` describes it. `api_error` is the
    unchanged `error` field of the response; `request_id`, `date` and `retry_after` are headers of it, which support
    asks for; `body` is the start of a response without such a field.
    """

    kind: str
    message: str
    http_status: int | None = None
    api_error: Any = None
    request_id: str | None = None
    date: str | None = None
    retry_after: str | None = None
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """The job exists.

    `body` is the API's unchanged job object: that of the response, or of `seen_at`, when the job was final. `attempts`
    counts requests, `sent_at` is when the last one began. `recovered`: the job was in doubt, and found by a lookup.
    Not `assigned`: it is one of the `candidates`, but not certainly this one. `estimate` is the expected cost in
    tokens, if known.
    """

    job_id: str
    body: bytes
    attempts: int
    sent_at: datetime
    recovered: bool = False
    assigned: bool = True
    candidates: tuple[str, ...] = ()
    estimate: int | None = None
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NotCreated:
    """The job certainly does not exist. `attempts` counts requests, `sent_at` is when the last one began."""

    error: ErrorInfo
    attempts: int
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The job may or may not exist. `candidates` are the ids of jobs at the API that may be this one.

    `estimate` is the expected cost in tokens, if known.
    """

    error: ErrorInfo
    attempts: int
    sent_at: datetime | None
    candidates: tuple[str, ...] = ()
    estimate: int | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """The job was deliberately not sent. `reason` is a keyword, `detail` an explanation."""

    reason: str
    detail: str


Outcome = Created | NotCreated | InDoubt | Skipped
OutcomeName = Literal["created", "not_created", "in_doubt", "skipped"]


_OUTCOME_NAMES: dict[type[Outcome], OutcomeName] = {
    Created: "created",
    NotCreated: "not_created",
    InDoubt: "in_doubt",
    Skipped: "skipped",
}


def outcome_name(outcome: Outcome) -> OutcomeName:
    """Return an outcome's name in data: the ledger, the results file and machine-readable reports."""
    return _OUTCOME_NAMES[type(outcome)]


def describe_outcome(outcome: Outcome | OutcomeName) -> str:
    """Return an outcome's name in prose: `not created`."""
    name = outcome if isinstance(outcome, str) else outcome_name(outcome)
    return name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a run's record: a job, its outcome, and the run that decided it."""

    job: Job
    outcome: Outcome
    run_id: str


class CostEntry(NamedTuple):
    """What totals need to know of an entry whose job exists. Costs are in tokens, `validation_errors` is a count.

    Building an Entry and its outcome takes five times as long, which matters for 100,000 jobs.
    """

    project_id: str
    run_id: str
    cost: int
    validation_errors: int
    estimate: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """An execution of a manifest. `base_url` may be `sandbox`; `settings` are those that applied, without the key."""

    id: str
    key: str
    state: RunState
    started_at: datetime
    finished_at: datetime
    runner: str
    manifest_name: str
    manifest_path: str
    manifest_sha256: str
    git_commit: str | None
    base_url: str
    settings: Mapping[str, Any]


class Entries(Sized, Iterable[Entry], Protocol):
    """The entries of a record. They can be iterated over repeatedly, and need not be in memory."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The source of results and reports: a run, and an entry for each job of its run key, in manifest order.

    `compact_entries` iterates faster over the same entries; those of created jobs may be CostEntry objects.
    """

    run: Run
    entries: Entries
    compact_entries: Callable[[], Iterable[Entry | CostEntry]] | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to submit. `ordinal` counts the submissions of its pair under the run key, from 1.

    `again`: one more of a job that exists, on request. `estimate` is the expected cost in tokens, if known.
    """

    job: Job
    ordinal: int
    again: bool = False
    estimate: int | None = None
