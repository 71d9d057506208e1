"""The ledger's rows as typed objects, and how their values are stored in SQLite and read back.

The fields of a row type are its columns: what is selected, which SQLite types are accepted and how each value is
decoded follows from their names and annotations.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache, lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from runner.core.models import Created, ErrorInfo, InDoubt, Job, NotCreated, OncePer, Submission

State = Literal["sending", "released", "not_created", "in_doubt", "created"]
StoredRunState = Literal["running", "completed", "stopped", "interrupted"]

MAY_EXIST: frozenset[State] = frozenset(("created", "in_doubt", "sending"))

# The error of a submission that was still being sent when its process ended.
KILLED = ErrorInfo("interrupted", "the process ended while it was being sent; the job may have been created")

_MAX_SECONDS = 1e9
_YEARS = range(1970, 9000)  # datetimes outside could overflow in arithmetic

_RowT = TypeVar("_RowT", bound=Hashable)
_Decoder = Callable[[Any], Any]


class SubmissionRow(NamedTuple):
    """One submission. The response's body is read separately: a ledger may hold a hundred thousand of them.

    A NamedTuple for the same reason: a frozen dataclass of so many fields takes nine times as long to create (9 µs).

    `claimed_at` is the time of the last claim and `ended_at` the end of that exchange, None if unknown. `timeout` is in
    seconds, `estimate` and `cost` are in tokens.
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
        """The workflow and the project."""
        return (self.workflow_id, self.project_id)

    @property
    def consumes_slot(self) -> bool:
        """Whether it counts as one of its pair's jobs, which are never created twice."""
        return self.state in MAY_EXIST and not self.again

    @property
    def may_exist(self) -> bool:
        """Whether its job exists, or may exist."""
        return self.state in MAY_EXIST

    @property
    def budgeted_cost(self) -> int | None:
        """The larger of estimate and cost, in tokens; None if neither is known.

        A cost may be 0 while the job is young, so that alone means unknown.
        """
        if self.estimate is None:
            return self.cost or None
        return max(self.estimate, self.cost or 0)


class SubmissionCount(NamedTuple):
    """How many submissions a run was the last to claim, in one state and of one cost."""

    run_id: str
    state: State
    cost: int | None
    total: int


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. `state` stays `running` if its process was killed.

    `reason` is one word for why it did not send everything, `detail` the same for a person; empty if it did.
    """

    id: str
    api: str
    manifest: str
    run_key: str
    once_per: OncePer
    state: StoredRunState
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
    """How a lookup or a person resolved a submission in doubt: the outcome, by whom, when, and the action taken."""

    submission: int
    outcome: Created | NotCreated | InDoubt
    ended_at: datetime | None
    decided_by: str
    decided_at: datetime
    action: str
    detail: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A submission that is about to be sent. `timeout` is the maximum duration of its exchange, in seconds."""

    submission: Submission
    attempt: int
    claimed_at: datetime
    timeout: float


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """The outcome of a claimed submission, and when its exchange ended.

    Not `final`: it was not created, and this run will retry it.
    """

    submission: Submission
    outcome: Created | NotCreated | InDoubt
    ended_at: datetime
    final: bool = True


def column_names(row_type: type) -> tuple[str, ...]:
    """The names of a row type's columns, in its order."""
    return tuple(get_type_hints(row_type))


def columns_of_type(row_type: type, *types: Any) -> frozenset[str]:
    """The names of a row type's columns of one of some types, or of one that may be None."""
    hints = get_type_hints(row_type)
    return frozenset(name for name, hint in hints.items() if {hint, *get_args(hint)} & set(types))


# From `submissions s` and `runs r`, each joined with `manifests m`.
SUBMISSION_COLUMNS = ", ".join("m.name" if name == "manifest" else f"s.{name}" for name in column_names(SubmissionRow))
RUN_COLUMNS = ", ".join({"api": "m.api", "manifest": "m.name"}.get(name, f"r.{name}") for name in column_names(RunRow))


# From SQLite.


def read_submission(values: Sequence[Any]) -> SubmissionRow:
    """Decode the values of SUBMISSION_COLUMNS.

    Raises ValueError, TypeError or KeyError for what this program never writes.
    """
    submission = SubmissionRow._make(_decode_values(SubmissionRow, values))
    # A CHECK of the table, too, which SQLite does not evaluate in a file that is opened read-only.
    if (submission.state == "created") != (submission.job_id is not None):
        raise ValueError("state and job id do not match")
    return submission


def decode(row_type: type[_RowT], values: Sequence[Any]) -> _RowT:
    """Create a row of the values of its columns. Raises as `read_submission` does."""
    return row_type(*_decode_values(row_type, values))


def _decode_values(row_type: Hashable, values: Sequence[Any]) -> list[Any]:
    decoded = list(values)
    for index, decoder in _decoders(row_type, tuple(map(type, values))):
        decoded[index] = decoder(decoded[index])
    return decoded


@cache  # rows differ little in this respect, and each call takes as long as reading a whole row
def _decoders(row_type: Hashable, sql_types: tuple[type, ...]) -> tuple[tuple[int, _Decoder], ...]:
    """The decoders for values of these types, each with the index of its column."""
    hints = get_type_hints(row_type).items()
    found = [_decoder(name, hint, sql_type) for (name, hint), sql_type in zip(hints, sql_types, strict=True)]
    return tuple((index, decoder) for index, decoder in enumerate(found) if decoder is not None)


def _decoder(name: str, hint: Any, sql_type: type) -> _Decoder | None:
    """The decoder for a column's value; None if it is used as it is. Raises ValueError for a type not allowed there."""
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    if sql_type is NoneType and NoneType in kinds:
        return None
    if get_origin(kinds[0]) is Literal and sql_type is str:
        return {word: word for word in get_args(kinds[0])}.__getitem__
    if kinds[0] is Any:
        return None
    for accepted_type, decoder in _DECODERS.get(kinds[0], ()):
        if sql_type is accepted_type:
            return decoder
    raise ValueError(f"unexpected type in column {name}")


def _seconds(value: float) -> float:
    if not 0 <= value <= _MAX_SECONDS:
        raise ValueError("number of seconds out of range")
    return value


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None or time.year not in _YEARS:
        raise ValueError("time out of range or without a timezone")
    return time


@lru_cache  # many jobs have the same
def _labels(text: str) -> Mapping[str, str]:
    labels = json.loads(text)
    if not isinstance(labels, dict):
        raise ValueError("unexpected labels")  # noqa: TRY004 - a damaged value, and not a caller's mistake
    _check_strings(list(labels.values()))
    return labels


@lru_cache
def _candidates(text: str) -> tuple[str, ...]:
    return tuple(_check_strings(json.loads(text)))


def _settings(text: str) -> Mapping[str, Any]:
    settings: dict[str, Any] = json.loads(text)
    _check_strings(settings["only"])
    return settings


def _error(text: str) -> ErrorInfo:
    error = ErrorInfo(**json.loads(text))
    _decoders(ErrorInfo, tuple(type(getattr(error, name)) for name in column_names(ErrorInfo)))  # only to check types
    return error


def _check_strings(values: Any) -> list[str]:
    if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
        raise ValueError("expected a list of strings")
    return values


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")


# By annotation: the SQLite types that are accepted, and how each is decoded; None for the value itself.
_DECODERS: Mapping[Any, Sequence[tuple[type, _Decoder | None]]] = {
    int: [(int, None)],
    str: [(str, None), (bytes, _text)],
    bytes: [(bytes, None)],
    bool: [(int, bool)],
    float: [(float, _seconds)],
    datetime: [(str, _time)],
    Mapping[str, str]: [(str, _labels)],
    Mapping[str, Any]: [(str, _settings)],
    tuple[str, ...]: [(str, _candidates)],
    ErrorInfo: [(str, _error)],
}


def from_sql(value: str | bytes | None) -> str | None:
    """Decode text that `to_sql` may have stored as a blob."""
    return _text(value) if isinstance(value, bytes) else value


def unpack_jobs(snapshot: bytes) -> tuple[Job, ...]:
    """Decode the jobs of a snapshot."""
    return tuple(Job(*fields) for fields in json.loads(zlib.decompress(snapshot)))


# To SQLite.


def to_sql(values: Iterable[Any]) -> list[Any]:
    """Encode values for a statement. Text that is not valid Unicode becomes a blob, as SQLite would refuse it."""
    return [
        value if (kind := type(value)) in _NATIVE or (kind is str and value.isascii()) else _encode(value)
        for value in values
    ]


_NATIVE = frozenset((int, float, bool, bytes, NoneType))


def _encode(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case tuple():
            return json.dumps(value) if value else "[]"
        case dict():
            return json.dumps(value) if value else "{}"
        case ErrorInfo():
            return json.dumps({name: member for name, member in asdict(value).items() if member is not None})
        case str():
            return _encode_text(value)
        case _:
            return value


def _encode_text(text: str) -> str | bytes:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def pack_jobs(jobs: Sequence[Job]) -> bytes:
    """Encode a manifest's jobs as a snapshot."""
    fields = [[job.name, job.workflow_id, job.project_id, dict(job.labels), job.enabled, job.line] for job in jobs]
    return zlib.compress(json.dumps(fields, separators=(",", ":")).encode())
