"""A manifest file into a Manifest, or every problem that it has, at once."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import math
import re
import unicodedata
import zoneinfo
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO

from runner.core.errors import ManifestError, Problem, UsageError
from runner.core.models import STDIN, Job, Manifest, SubmitSettings
from runner.manifest import schema
from runner.manifest.yaml import reader
from runner.manifest.yaml.document import Document
from runner.manifest.yaml.messages import FieldPath, escape, quote
from runner.manifest.yaml.scalars import describe_value, format_number, is_portable_number

MAX_BYTES = 64 * 1024 * 1024

_PERIODS = ("hour", "day", "week", "month")
_ID_FIELDS = ("workflow_id", "project_id")
_NUMBER_FIELDS: tuple[FieldPath, ...] = (
    ("max_cost",),
    ("submit", "concurrency"),
    ("submit", "attempts"),
    ("submit", "timeout"),
    ("submit", "stop_after"),
)
_PLAIN_ID = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*", re.ASCII)
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What became of a manifest's bytes: the manifest if there are no problems; and warnings either way."""

    manifest: Manifest | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load(path: str, stdin: BinaryIO) -> Manifest:
    """Read and check a manifest. `path` may be `-` for standard input.

    Raises:
        UsageError: the file cannot be read.
        ManifestError: it has problems: all of them, in the order of their places.
    """
    return parse(read_source(path, stdin), path)


def read_source(path: str, stdin: BinaryIO) -> bytes:
    """Read a manifest's bytes, from a file, a pipe, or standard input if `path` is `-`.

    Raises:
        UsageError: the file is missing, no file, unreadable, or larger than `MAX_BYTES`.
    """
    try:
        data = _read(path, stdin)
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError:
        raise UsageError(f"{display_name(path)}: this is not a file's name") from None
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{display_name(path)}: the manifest is larger than {MAX_BYTES // 2**20} MiB",
            "Divide it into several manifests, or put what the jobs have in common under `defaults`.",
        )
    return data


def _read(path: str, stdin: BinaryIO) -> bytes:
    # One byte more than is allowed tells that there is more, and no more than that is ever held.
    if path == STDIN:
        return stdin.read(MAX_BYTES + 1)
    with open(path, "rb") as file:  # noqa: PTH123 - Path("") would read the folder and hide that the name is empty
        return file.read(MAX_BYTES + 1)


def _unreadable(path: str, error: OSError) -> UsageError:
    name = display_name(path)
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{name}: there is no such file", "`pixxel-runner init` writes a manifest to start from.")
    if isinstance(error, IsADirectoryError):
        return UsageError(f"{name}: this is a folder", "Name the manifest's file.")
    return UsageError(f"{name}: cannot be read: {error.strerror}", "Look at the path and at the file's permissions.")


def display_name(path: str) -> str:
    """A manifest's path as messages show it."""
    return "<stdin>" if path == STDIN else escape(path)


def parse(data: bytes, path: str) -> Manifest:
    """Check a manifest's bytes. `path` is as the person gave it; it gives the default name.

    Raises:
        ManifestError: the manifest has problems: all of them, in the order of their places.
    """
    checked = check(data, path)
    if checked.manifest is None:
        raise ManifestError(checked.problems)
    return checked.manifest


def check(data: bytes, path: str, *, libyaml: bool = reader.LIBYAML) -> CheckResult:
    """Check a manifest's bytes, and say all that there is to say of them. Raises nothing.

    `libyaml` says whether to read with it first; the verdict and the places are the same without.
    """
    with _gc_paused():
        return _check(data, path, libyaml)


@contextlib.contextmanager
def _gc_paused() -> Iterator[None]:
    """Keep the collector from walking a growing tree that holds no cycle: 100,000 jobs take 4.1 s, not 5.4 s."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check(data: bytes, path: str, libyaml: bool) -> CheckResult:
    try:
        document = reader.read(data, display_name(path), libyaml=libyaml)
    except ManifestError as error:
        return CheckResult(None, _in_order(error.problems), ())
    jobs = tuple(_jobs(document))
    problems = _all_problems(document, path, jobs)
    warnings = tuple(_warnings(document))
    manifest = None if problems else _manifest(document, path, hashlib.sha256(data).hexdigest(), jobs)
    return CheckResult(manifest, problems, warnings)


def _all_problems(document: Document, path: str, jobs: tuple[_Entry, ...]) -> tuple[Problem, ...]:
    """Every problem, but one a place from each layer: what YAML misread is not also of the wrong type."""
    layers = (document.problems, schema.find_problems(document), _own_problems(document, path, jobs))
    found: list[Problem] = []
    for layer in layers:
        taken = {_place(problem) for problem in found}
        found.extend(problem for problem in layer if _place(problem) not in taken)
    return _in_order(found)


def _place(problem: Problem) -> tuple[int, int, str]:
    # The field too: a mapping and its first key stand at one position.
    return problem.line, problem.column, problem.field


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By place; and what an alias repeats is said once."""
    once = {(problem.line, problem.column, problem.message): problem for problem in reversed(tuple(problems))}
    return tuple(sorted(once.values(), key=_place))


# What the schema cannot say. Each looks only at values of the right type: the others have their problem already.


def _own_problems(document: Document, path: str, jobs: tuple[_Entry, ...]) -> Iterator[Problem]:
    if isinstance(document.value, dict):
        yield from _name_problems(document, path)
        yield from _timezone_problems(document)
        yield from _unfinished_problems(document)
        yield from _number_problems(document)
        yield from _id_problems(document, jobs)
        yield from _repeated(document, jobs)


def _name_problems(document: Document, path: str) -> Iterator[Problem]:
    if "name" in document.value or _default_name(path) is not None:
        return
    message = "a manifest from standard input needs a name" if path == STDIN else "the file's name is no name for this"
    yield document.key_problem(("name",), message, "add `name: ...` at the top: the ledger knows the manifest by it")


def _default_name(path: str) -> str | None:
    """The file's stem; None where that says nothing, as for the pipes `/dev/stdin` and `/dev/fd/63`."""
    stem = PurePath(path).stem
    if path == STDIN or path.startswith(("/dev/", "/proc/")) or not 0 < len(stem) <= _MAX_NAME:
        return None
    return stem if stem.isprintable() and stem == stem.strip() else None


def _timezone_problems(document: Document) -> Iterator[Problem]:
    zone = document.value.get("timezone")
    if not isinstance(zone, str) or not zone:
        return
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        yield document.problem(("timezone",), f"{quote(zone)} is not a time zone", _timezone_hint(zone))


def _timezone_hint(zone: str) -> str:
    known = zoneinfo.available_timezones()
    if not known:
        return "this machine has no time zone data: install the package tzdata"
    return schema.suggest(zone, sorted(known)) or "write an IANA name such as Europe/Berlin or Asia/Kolkata"


def _unfinished_problems(document: Document) -> Iterator[Problem]:
    once_per = document.value.get("once_per", "run")
    if "on_unfinished" in document.value and once_per in (*_PERIODS, "forever"):
        message = f"this is for `once_per: run`; with `once_per: {once_per}` a run always creates what is missing"
        yield document.key_problem(("on_unfinished",), message, "remove it")


def _number_problems(document: Document) -> Iterator[Problem]:
    for path in _NUMBER_FIELDS:
        value = _at(document.value, path)
        raw = document.raw(path)
        if raw and isinstance(value, int | float) and not isinstance(value, bool) and not is_portable_number(raw):
            message = f"YAML reads {quote(raw)} as {describe_value(value, raw)}"
            hint = f"write {format_number(value)} if that is meant" if math.isfinite(value) else "write a plain number"
            yield document.problem(path, message, hint)


def _at(value: Any, path: FieldPath) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _id_problems(document: Document, jobs: Iterable[_Entry]) -> Iterator[Problem]:
    """What must never stand in a URL's path, looked at without a regular expression's `$` (DESIGN, section 3)."""
    defaults = _at(document.value, ("defaults",))
    for field in _ID_FIELDS:
        yield from _id_problem(document, ("defaults", field), _at(defaults, (field,)))
        for job in jobs:
            yield from _id_problem(document, ("jobs", job.index, field), job.written.get(field))


def _id_problem(document: Document, path: FieldPath, value: Any) -> Iterator[Problem]:
    if isinstance(value, str) and _PLAIN_ID.fullmatch(value) is None and (odd := _oddity(value)):
        yield document.problem(path, f"{quote(value)} is not usable as an id: it {odd}", "copy the id again")


def _oddity(value: str) -> str:
    """What keeps a text from being one segment of a path; empty if nothing."""
    if value in ("", ".", ".."):
        return "names no one thing"
    odd = (character for character in value if character == "/" or _is_unseen(character))
    return next((f"holds the character U+{ord(character):04X}" for character in odd), "")


def _is_unseen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _repeated(document: Document, jobs: Iterable[_Entry]) -> Iterator[Problem]:
    first: dict[str, _Entry] = {}
    for job in jobs:
        if job.name and (earlier := first.setdefault(job.name, job)) is not job:
            yield _repetition(document, earlier, job)


def _repetition(document: Document, earlier: _Entry, job: _Entry) -> Problem:
    line = document.position(("jobs", earlier.index))[0]
    if job.is_named or earlier.is_named:
        field: FieldPath = ("jobs", job.index, "name") if job.is_named else ("jobs", job.index)
        return document.problem(
            field,
            f"the name {quote(job.name)} is that of the job on line {line} too",
            "give each job a name of its own",
        )
    return document.problem(
        ("jobs", job.index),
        f"this is the workflow and project of the job on line {line} again, and neither has a name",
        "to create both, give each a `name`; else remove one",
    )


def _warnings(document: Document) -> Iterator[Problem]:
    value = document.value
    if isinstance(value, dict) and value.get("once_per") in _PERIODS and "timezone" not in value:
        message = f"`once_per: {value['once_per']}` counts in UTC, as there is no timezone"
        hint = "add `timezone:` with an IANA name such as Asia/Kolkata, or UTC if that is meant"
        yield document.problem(("once_per",), message, hint)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One mapping of `jobs`, with what applies to it: ids that may be missing or of a wrong type, a name or ""."""

    index: int
    written: dict[str, Any]
    workflow_id: Any
    project_id: Any
    name: str
    is_named: bool


def _jobs(document: Document) -> Iterator[_Entry]:
    jobs = _at(document.value, ("jobs",))
    defaults = _at(document.value, ("defaults",))
    workflow, project = (_at(defaults, (field,)) for field in _ID_FIELDS)
    for index, job in enumerate(jobs if isinstance(jobs, list) else ()):
        if isinstance(job, dict):
            yield _entry(index, job, job.get("workflow_id", workflow), job.get("project_id", project))


def _entry(index: int, job: dict[str, Any], workflow: Any, project: Any) -> _Entry:
    name = job.get("name")
    if isinstance(name, str):
        return _Entry(index, job, workflow, project, name, is_named=True)
    default = f"{workflow}/{project}" if isinstance(workflow, str) and isinstance(project, str) else ""
    return _Entry(index, job, workflow, project, default, is_named=False)


# From here on there are no problems: each value is of the type that the schema says.


def _manifest(document: Document, path: str, sha256: str, jobs: tuple[_Entry, ...]) -> Manifest:
    value = document.value
    return Manifest(
        name=value["name"] if "name" in value else str(_default_name(path)),
        path=path,
        sha256=sha256,
        jobs=_finished(document, jobs),
        once_per=value.get("once_per", "run"),
        timezone=value.get("timezone"),
        on_unfinished=value.get("on_unfinished", "refuse"),
        max_cost=_integer(value.get("max_cost")),
        submit=_submit(value.get("submit", {})),
        has_explicit_name="name" in value,
    )


def _finished(document: Document, jobs: Iterable[_Entry]) -> tuple[Job, ...]:
    defaults = document.value.get("defaults", {})
    labels, enabled = defaults.get("labels", {}), defaults.get("enabled", True)
    return tuple(
        Job(
            name=job.name,
            workflow_id=job.workflow_id,
            project_id=job.project_id,
            labels=labels | job.written.get("labels", {}),
            enabled=job.written.get("enabled", enabled),
            line=document.position(("jobs", job.index))[0],
        )
        for job in jobs
    )


def _submit(value: dict[str, Any]) -> SubmitSettings:
    timeout = value.get("timeout")
    return SubmitSettings(
        concurrency=_integer(value.get("concurrency")),
        rate=value.get("rate"),
        attempts=_integer(value.get("attempts")),
        timeout=None if timeout is None else float(timeout),
        stop_after=_integer(value.get("stop_after")),
    )


def _integer(value: float | None) -> int | None:
    """To JSON Schema, and so to us, 8.0 is a whole number too."""
    return None if value is None else int(value)
