"""What the ledger holds, as frozen dataclasses, and how each gets into a row and out of it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from runner.model import Created, ErrorInfo, Failed, InDoubt, Job, OncePer, RunState

State = Literal["sending", "released", "failed", "in_doubt", "created"]


BOUGHT: frozenset[State] = frozenset(("created", "in_doubt", "sending"))  # it exists, or may exist


class Standing(NamedTuple):
    """Where one submission stands. The answer's body is read apart: there may be a hundred thousand of them.

    That is also why it is no frozen dataclass, which takes nine times as long to make (9 µs, of so many fields).

    `claimed_at` is when it was last claimed and `ended_at` when that exchange was over, None when that is not known;
    `timeout` is in seconds, `estimate` and `cost` in tokens.
    """

    id: int
    api: str
    manifest: str
    run_key: str
    run_id: str
    name: str
    workflow_id: str
    project_id: str
    ordinal: int
    again: bool
    labels: Mapping[str, str]
    state: State
    attempts: int
    claimed_at: datetime
    ended_at: datetime | None
    timeout: float
    estimate: int | None
    job_id: str | None
    cost: int | None
    val_errors: int
    recovered: bool
    assigned: bool
    error: ErrorInfo | None
    candidates: tuple[str, ...]

    @property
    def pair(self) -> tuple[str, str]:
        """What was bought, or is to be: the workflow and the project."""
        return (self.workflow_id, self.project_id)

    @property
    def counts(self) -> bool:
        """Whether it is one of its pair that exists, or may exist: what is never bought again."""
        return self.counts_as_bought and not self.again

    @property
    def counts_as_bought(self) -> bool:
        """Whether it exists, or may exist."""
        return self.state in BOUGHT

    @property
    def expense(self) -> int | None:
        """The tokens to reckon with: the larger of what was expected and what the API told; None if neither is known.

        A cost may be 0 while the job is young, so that alone it tells nothing.
        """
        if self.estimate is None:
            return self.cost or None
        return max(self.estimate, self.cost or 0)


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, as far as the ledger knows. `state` is `running` until it has ended, and when its process was killed.

    `reason` is a word for what kept it from sending everything, `why` the same for a person; empty where nothing did.
    """

    id: str
    api: str
    manifest: str
    run_key: str
    once_per: OncePer
    state: RunState | Literal["running"]
    reason: str
    why: str
    started_at: datetime
    finished_at: datetime | None
    runner: str
    path: str
    sha256: str
    git_commit: str | None
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look-up or a person makes of a submission in doubt: by whom, when, what in a word, and the detail."""

    submission: int
    outcome: Created | Failed | InDoubt
    ended_at: datetime | None
    decided_by: str
    decided_at: datetime
    what: str
    detail: str


# The columns of a Standing, in its order, from `submissions s JOIN manifests m`.
STANDING_COLUMNS = (
    "s.id, s.api, m.name, s.run_key, s.run_id, s.name, s.workflow_id, s.project_id, s.ordinal, s.again, s.labels, "
    "s.state, s.attempts, s.claimed_at, s.ended_at, s.timeout, s.estimate, s.job_id, s.cost, s.val_errors, "
    "s.recovered, s.assigned, s.error, s.candidates"
)
RUN_COLUMNS = (
    "r.id, m.api, m.name, r.run_key, r.once_per, r.state, r.reason, r.why, r.started_at, r.finished_at, r.runner, "
    "r.path, r.sha256, r.git_commit, r.settings"
)


def standing(row: Sequence[Any], labels: dict[str, Mapping[str, str]]) -> Standing:
    """Read the columns of STANDING_COLUMNS. `labels` keeps what labels are read as: many jobs have the same."""
    values = list(row)
    if values[10] not in labels:
        labels[values[10]] = json.loads(values[10])
    values[9], values[20], values[21] = bool(values[9]), bool(values[20]), bool(values[21])
    values[10] = labels[values[10]]
    values[13] = datetime.fromisoformat(values[13])
    values[14] = _moment(values[14])
    values[17] = from_sql(values[17])
    values[19] = values[19] or 0
    values[22] = ErrorInfo(**json.loads(values[22])) if values[22] else None
    values[23] = () if values[23] in (None, "", "[]") else tuple(json.loads(values[23]))
    return Standing._make(values)


def run(row: Sequence[Any]) -> RunRow:
    """Read the columns of RUN_COLUMNS."""
    values = list(row)
    values[7], values[11] = from_sql(values[7]), from_sql(values[11])
    values[8] = datetime.fromisoformat(values[8])
    values[9] = _moment(values[9])
    values[14] = json.loads(values[14])
    return RunRow(*values)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def error_text(error: ErrorInfo) -> str:
    """An error as JSON in ASCII, whatever the server put into it."""
    return json.dumps({key: value for key, value in asdict(error).items() if value is not None})


def to_sql(text: str | None) -> str | bytes | None:
    """Text from outside: a blob where it is not valid Unicode, which SQLite's text must be."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def from_sql(value: str | bytes | None) -> str | None:
    """What `to_sql` made."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def pack(jobs: Sequence[Job]) -> bytes:
    """A manifest's jobs as a snapshot."""
    listed = [[job.name, job.workflow_id, job.project_id, dict(job.labels), job.enabled, job.line] for job in jobs]
    return zlib.compress(json.dumps(listed, separators=(",", ":")).encode())


def unpack(snapshot: bytes) -> tuple[Job, ...]:
    """The jobs of a snapshot."""
    return tuple(Job(*fields) for fields in json.loads(zlib.decompress(snapshot)))
