"""What the ledger holds, as frozen dataclasses, and how each gets into a row and out of it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

from runner.core.models import Created, ErrorInfo, InDoubt, Job, NotCreated, OncePer, RunState

State = Literal["sending", "released", "not_created", "in_doubt", "created"]


MAY_EXIST: frozenset[State] = frozenset(("created", "in_doubt", "sending"))  # it exists, or may exist


class SubmissionRow(NamedTuple):
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
    def consumes_slot(self) -> bool:
        """Whether it is one of its pair that exists, or may exist: what is never bought again."""
        return self.state in MAY_EXIST and not self.again

    @property
    def may_exist(self) -> bool:
        """Whether it exists, or may exist."""
        return self.state in MAY_EXIST

    @property
    def budgeted_cost(self) -> int | None:
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
    detail: str
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
    outcome: Created | NotCreated | InDoubt
    ended_at: datetime | None
    decided_by: str
    decided_at: datetime
    action: str
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

_TEXT, _NUMBER, _NULL = (str,), (int,), type(None)
_MAYBE_TEXT, _MAYBE_NUMBER = (str, _NULL), (int, _NULL)
_ODD_TEXT = (str, bytes, _NULL)  # a blob where it is not valid Unicode
# What SQLite may have in each of these columns; it would take anything else as well.
_STANDING_TYPES = (
    _NUMBER, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _NUMBER, _NUMBER, _TEXT,
    _TEXT, _NUMBER, _TEXT, _MAYBE_TEXT, (float,), _MAYBE_NUMBER, _ODD_TEXT, _MAYBE_NUMBER, _MAYBE_NUMBER,
    _NUMBER, _NUMBER, _MAYBE_TEXT, _MAYBE_TEXT,
)  # fmt: skip
_RUN_TYPES = (
    _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, (str, bytes), _TEXT, _MAYBE_TEXT, _TEXT,
    (str, bytes), _TEXT, _MAYBE_TEXT, _TEXT,
)  # fmt: skip
_STATES = frozenset(get_args(State))
_LONGEST = 1e9  # seconds
_YEARS = range(1970, 9000)  # that times can be reckoned with


def read_submission(row: Sequence[Any], labels: dict[str, Mapping[str, str]]) -> SubmissionRow:
    """Read the columns of STANDING_COLUMNS. `labels` keeps what labels are read as: many jobs have the same.

    Raises ValueError or TypeError for a value that no ledger of this program holds.
    """
    values = list(row)
    # The checks stand here and not in functions: for 100,000 rows each call takes a twentieth of the time of all.
    if not (_is_standing(tuple(map(type, row))) and 0 <= values[15] <= _LONGEST):
        raise ValueError("of a submission")
    # The table says so as well, but SQLite does not look at that while a file is open for reading alone.
    if values[11] not in _STATES or (values[11] == "created") != (values[17] is not None):
        raise ValueError("of a state")
    if values[10] not in labels:
        labels[values[10]] = _labels(values[10])
    values[9], values[20], values[21] = bool(values[9]), bool(values[20]), bool(values[21])
    values[10] = labels[values[10]]
    values[13] = _time(values[13])
    if values[14] is not None:
        values[14] = _time(values[14])
    if type(values[17]) is bytes:
        values[17] = from_sql(values[17])
    values[19] = values[19] or 0
    values[22] = _error(values[22]) if values[22] else None
    values[23] = () if values[23] in (None, "", "[]") else tuple(_texts(json.loads(values[23])))
    return SubmissionRow._make(values)


def read_run(row: Sequence[Any]) -> RunRow:
    """Read the columns of RUN_COLUMNS. Raises ValueError or TypeError as `standing` does."""
    values = list(row)
    known = values[4] in get_args(OncePer) and values[5] in ("running", *get_args(RunState))
    _expect(known and _are(tuple(map(type, row)), _RUN_TYPES), "of a run")
    values[7], values[11] = from_sql(values[7]), from_sql(values[11])
    values[8] = _time(values[8])
    values[9] = _moment(values[9])
    values[14] = json.loads(values[14])
    _expect(isinstance(values[14], dict), "of settings")
    _texts(values[14]["only"])
    return RunRow(*values)


def read_count(row: Sequence[Any]) -> tuple[str, str, int | None, int]:
    """Read how many submissions a run was the last to claim, in a state and of a cost. Raises as `standing` does."""
    run_id, state, cost, number = row
    _expect(_are(tuple(map(type, row)), (_TEXT, _TEXT, _MAYBE_NUMBER, _NUMBER)), "of a count")
    return run_id, state, cost, number


@cache  # there are few different rows in this respect
def _is_standing(types: tuple[type, ...]) -> bool:
    return _are(types, _STANDING_TYPES)


def _are(types: tuple[type, ...], wanted: tuple[tuple[type, ...], ...]) -> bool:
    """Whether each type is one of those wanted there."""
    return all(one in allowed for one, allowed in zip(types, wanted, strict=True))


def _expect(met: bool, what: str) -> None:
    if not met:
        raise ValueError(what)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else _time(text)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None or time.year not in _YEARS:
        raise ValueError("of a time")
    return time


def _labels(text: str) -> dict[str, str]:
    labels = json.loads(text)
    _expect(isinstance(labels, dict), "of labels")
    _texts(list(labels.values()))
    return dict(labels)


def _texts(values: Any) -> list[str]:
    _expect(isinstance(values, list) and all(isinstance(value, str) for value in values), "of a list of texts")
    return list(values)


def _error(text: str) -> ErrorInfo:
    error = ErrorInfo(**json.loads(text))
    words = (error.kind, error.message, error.request_id or "", error.date or "", error.retry_after or "")
    _texts([*words, error.body or ""])
    _expect(error.http_status is None or type(error.http_status) is int, "of an error")
    return error


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


def pack_jobs(jobs: Sequence[Job]) -> bytes:
    """A manifest's jobs as a snapshot."""
    listed = [[job.name, job.workflow_id, job.project_id, dict(job.labels), job.enabled, job.line] for job in jobs]
    return zlib.compress(json.dumps(listed, separators=(",", ":")).encode())


def unpack_jobs(snapshot: bytes) -> tuple[Job, ...]:
    """The jobs of a snapshot."""
    return tuple(Job(*fields) for fields in json.loads(zlib.decompress(snapshot)))
