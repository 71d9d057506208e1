"""The program's nouns as frozen dataclasses: Job, Manifest, the outcomes of a job, and the record of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, assert_never

OncePer = Literal["run", "hour", "day", "week", "month", "forever"]
OnUnfinished = Literal["refuse", "resume", "new"]
RunState = Literal["completed", "stopped", "interrupted"]


@dataclass(frozen=True, slots=True)
class Job:
    """One entry of a manifest, defaults applied: a workflow/project pair with a name. `line` counts from 1."""

    name: str
    workflow_id: str
    project_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    enabled: bool = True
    line: int = 0

    @property
    def pair(self) -> tuple[str, str]:
        """What is bought: the workflow and the project. Names are labels."""
        return (self.workflow_id, self.project_id)


@dataclass(frozen=True, slots=True)
class SubmitSettings:
    """The manifest's `submit` section, as written: None where it is silent. `timeout` is in seconds."""

    concurrency: int | None = None
    rate: str | None = None
    attempts: int | None = None
    timeout: float | None = None
    stop_after: int | None = None


STDIN = "-"  # the path of a manifest that is read from standard input


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid manifest. `path` is as it was given (STDIN for standard input); `sha256` is of its bytes.

    `named`: its name is written in it, and not taken from the file's.
    """

    name: str
    path: str
    sha256: str
    jobs: tuple[Job, ...]
    once_per: OncePer = "run"
    timezone: str | None = None
    on_unfinished: OnUnfinished = "refuse"
    max_cost: int | None = None
    submit: SubmitSettings = SubmitSettings()
    has_explicit_name: bool = False


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why a job was not created, or may not have been.

    `kind` is one word of DESIGN, section 4 (`unreachable`, `rejected`, `timeout`, …); `message` is for a person;
    `api_error` is the `error` member of the API's answer as it came; `request_id`, `date` and `retry_after` are
    the answer's headers, which support asks for; `body` is the start of an answer that could not be used.
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

    `body` is the API's answer as it came; `attempts` counts sends and `sent_at` is the last one's. `recovered`: it was
    in doubt and then found at the API. Not `assigned`: it is one of the `candidates`, and which is anyone's guess.
    `estimate` is what it was expected to cost, in tokens, where that was asked for. `body` is of a later time than the
    answer where there is a `seen_at`: the job was final then.
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
    """The job certainly does not exist. `sent_at` is when the last send began."""

    error: ErrorInfo
    attempts: int
    sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The job may or may not exist. `candidates` are ids of jobs at the API that may be this one.

    `estimate` is what it was expected to cost, in tokens, where that was asked for.
    """

    error: ErrorInfo
    attempts: int
    sent_at: datetime | None
    candidates: tuple[str, ...] = ()
    estimate: int | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """The job was deliberately not sent. `reason` is one word, `detail` is for a person."""

    reason: str
    detail: str


Outcome = Created | NotCreated | InDoubt | Skipped
OutcomeName = Literal["created", "not_created", "in_doubt", "skipped"]


def outcome_name(outcome: Outcome) -> OutcomeName:
    """The name of an outcome in data: the ledger, the results file, every machine-readable report."""
    match outcome:
        case Created():
            return "created"
        case NotCreated():
            return "not_created"
        case InDoubt():
            return "in_doubt"
        case Skipped():
            return "skipped"
        case _:
            assert_never(outcome)


def describe_outcome(outcome: Outcome) -> str:
    """The same for a person: `not created`."""
    return outcome_name(outcome).replace("_", " ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a run's record: a job, what became of it, and the run that decided it."""

    job: Job
    outcome: Outcome
    run_id: str


class CostEntry(NamedTuple):
    """What counting and adding up needs of an entry whose job exists: tokens, and how many validation errors it has.

    It is for records of a hundred thousand jobs: an Entry and its outcome take five times as long to make.
    """

    project_id: str
    run_id: str
    cost: int
    validation_errors: int
    estimate: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a manifest. `base_url` is `sandbox` for a rehearsal; `settings` is what applied, but the key."""

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
    """The entries of a record, which may be gone through again and again; not necessarily held in memory."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What results and reports are made of: the run, and an entry for each job of its run key, in manifest order.

    `outline` goes through the same entries quickly: in place of those that are created there may be Boughts.
    """

    run: Run
    entries: Entries
    compact_entries: Callable[[], Iterable[Entry | CostEntry]] | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """One job that is to be sent. `ordinal` counts those of its pair under the run key, from 1.

    `again`: a person asked for one more of a job that exists. `estimate` is what it is expected to cost, in tokens,
    where that was asked for.
    """

    job: Job
    ordinal: int
    again: bool = False
    estimate: int | None = None
