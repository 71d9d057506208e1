"""Loads a manifest: reads the file, checks it, and returns a Manifest or every problem at once."""

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
from runner.core.models import STDIN, Job, LimitOverrides, Manifest
from runner.manifest import schema_errors
from runner.manifest.yaml import reader
from runner.manifest.yaml.document import Document
from runner.manifest.yaml.messages import FieldPath, escape, quote
from runner.manifest.yaml.scalars import describe_value, format_number, is_portable_number

MAX_BYTES = 64 * 1024 * 1024

_PERIODS = ("hour", "day", "week", "month")
_ID_FIELDS = ("workflow_id", "project_id")
_SUBMIT_TYPES = {"concurrency": int, "rate": str, "attempts": int, "timeout": float, "stop_after": int}
_PLAIN_ID = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*", re.ASCII)
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of checking a manifest: the manifest unless there are problems, and warnings either way."""

    manifest: Manifest | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load(path: str, stdin: BinaryIO) -> Manifest:
    """Read and check a manifest; `-` reads standard input.

    Raises:
        UsageError: the file cannot be read.
        ManifestError: it has problems; the error lists all of them by position.
    """
    return parse(read_source(path, stdin), path)


def read_source(path: str, stdin: BinaryIO) -> bytes:
    """Read a manifest's bytes from a file, a pipe, or standard input if `path` is `-`.

    Raises:
        UsageError: the file is missing, not a file, unreadable, or larger than `MAX_BYTES`.
    """
    name = display_name(path)
    size = MAX_BYTES + 1  # one byte more than allowed shows that there is more
    try:
        if path == STDIN:
            data = stdin.read(size)
        else:
            with open(path, "rb") as file:  # noqa: PTH123 - Path("") is the current directory, not an empty name
                data = file.read(size)
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file", "Run `pixxel-runner init` to create a manifest.") from None
    except IsADirectoryError:
        raise UsageError(f"{name}: is a directory", "Specify a manifest file.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "invalid file name"
        raise UsageError(f"{name}: cannot be read: {reason}", "Check the path and the file's permissions.") from None
    if len(data) > MAX_BYTES:
        hint = "Split it into several manifests, or put what the jobs share under `defaults`."
        raise UsageError(f"{name}: the manifest is larger than {MAX_BYTES // 2**20} MiB", hint)
    return data


def display_name(path: str) -> str:
    """A manifest's path as messages show it."""
    return "<stdin>" if path == STDIN else escape(path)


def parse(data: bytes, path: str) -> Manifest:
    """Check a manifest's bytes. `path` is as the user gave it, and gives the default name.

    Raises:
        ManifestError: the manifest has problems; the error lists all of them by position.
    """
    result = check(data, path)
    if result.manifest is None:
        raise ManifestError(result.problems)
    return result.manifest


@contextlib.contextmanager
def _gc_paused() -> Iterator[None]:
    """Keep the garbage collector from scanning a growing tree without cycles: 100,000 jobs take 4.1 s, not 5.4 s."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_gc_paused()
def check(data: bytes, path: str, *, libyaml: bool = reader.LIBYAML) -> CheckResult:
    """Check a manifest's bytes and collect all problems and warnings. Raises nothing.

    `libyaml` says whether to try libyaml first; the result is the same without it.
    """
    try:
        document = reader.read(data, display_name(path), libyaml=libyaml)
    except ManifestError as error:
        return CheckResult(None, _sorted(error.problems), ())
    entries = tuple(_job_entries(document))
    problems = _find_problems(document, path, entries)
    warnings = tuple(_find_warnings(document))
    manifest = None if problems else _build_manifest(document, path, hashlib.sha256(data).hexdigest(), entries)
    return CheckResult(manifest, problems, warnings)


def _find_problems(document: Document, path: str, entries: tuple[_JobEntry, ...]) -> tuple[Problem, ...]:
    """Every problem, but per position only those of one layer: what YAML misread is not also of the wrong type."""
    problems: list[Problem] = []
    for layer in (document.problems, schema_errors.find_problems(document), _check_rules(document, path, entries)):
        taken = {_position(problem) for problem in problems}
        problems.extend(problem for problem in layer if _position(problem) not in taken)
    return _sorted(problems)


def _position(problem: Problem) -> tuple[int, int, str]:
    # With the field, because a mapping and its first key have the same position.
    return problem.line, problem.column, problem.field


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Problems by position; what aliases repeat is listed once."""
    distinct = {(problem.line, problem.column, problem.message): problem for problem in reversed(tuple(problems))}
    return tuple(sorted(distinct.values(), key=_position))


# Rules that the schema cannot express. Each checks only values of the right type: the others are reported already.


def _check_rules(document: Document, path: str, entries: tuple[_JobEntry, ...]) -> Iterator[Problem]:
    if isinstance(document.value, dict):
        yield from _check_name(document, path)
        yield from _check_timezone(document)
        yield from _check_on_unfinished(document)
        yield from _check_numbers(document)
        yield from _check_ids(document, entries)
        yield from _check_duplicates(document, entries)


def _check_name(document: Document, path: str) -> Iterator[Problem]:
    if "name" not in document.value and _default_name(path) is None:
        source = "a manifest from standard input" if path == STDIN else "a manifest with this file name"
        hint = "add `name: ...` at the top level; it identifies the manifest in the ledger"
        yield document.key_problem(("name",), f"{source} must have a name", hint)


def _default_name(path: str) -> str | None:
    """The file name without its extension; None where that is no name, as for the pipes `/dev/stdin`, `/dev/fd/63`."""
    stem = PurePath(path).stem
    if path == STDIN or path.startswith(("/dev/", "/proc/")) or not 0 < len(stem) <= _MAX_NAME:
        return None
    return stem if stem.isprintable() and stem == stem.strip() else None


def _check_timezone(document: Document) -> Iterator[Problem]:
    zone = document.value.get("timezone")
    if not isinstance(zone, str) or not zone:
        return
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(zoneinfo.available_timezones())
        hint = schema_errors.suggest(zone, known) or "use an IANA name, such as Europe/Berlin or Asia/Kolkata"
        if not known:
            hint = "install the package tzdata: this system has no time zone data"
        yield document.problem(("timezone",), f"unknown time zone {quote(zone)}", hint)


def _check_on_unfinished(document: Document) -> Iterator[Problem]:
    once_per = document.value.get("once_per", "run")
    if "on_unfinished" in document.value and once_per in (*_PERIODS, "forever"):
        message = f"has no effect with `once_per: {once_per}`, which always creates only what is missing"
        yield document.key_problem(("on_unfinished",), message, "remove it; it applies to `once_per: run`")


def _check_numbers(document: Document) -> Iterator[Problem]:
    paths: list[FieldPath] = [("max_cost",), *(("submit", key) for key in _SUBMIT_TYPES)]
    for path in paths:
        value = _value_at(document.value, path)
        raw = document.raw(path)
        if raw and isinstance(value, int | float) and not isinstance(value, bool) and not is_portable_number(raw):
            message = f"YAML reads {quote(raw)} as {describe_value(value, raw)}"
            hint = f"write {format_number(value)} if you mean that" if math.isfinite(value) else "write a number"
            yield document.problem(path, message, hint)


def _value_at(value: Any, path: FieldPath) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _check_ids(document: Document, entries: Iterable[_JobEntry]) -> Iterator[Problem]:
    """What must never be in a URL's path, checked without relying on the `$` of a regular expression."""
    defaults = _value_at(document.value, ("defaults",))
    for field in _ID_FIELDS:
        yield from _check_id(document, ("defaults", field), _value_at(defaults, (field,)))
        for entry in entries:
            yield from _check_id(document, ("jobs", entry.index, field), entry.fields.get(field))


def _check_id(document: Document, path: FieldPath, value: Any) -> Iterator[Problem]:
    if isinstance(value, str) and _PLAIN_ID.fullmatch(value) is None and (defect := _id_defect(value)):
        message = f"invalid value {quote(value)}: an id must not {defect}"
        yield document.problem(path, message, "copy the id again")


def _id_defect(value: str) -> str:
    """What prevents a string from being one segment of a URL's path; empty if nothing."""
    if value in ("", ".", ".."):
        return "be empty, `.` or `..`"
    for char in value:
        if char == "/" or char.isspace() or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            return f"contain the character U+{ord(char):04X}"
    return ""


def _check_duplicates(document: Document, entries: Iterable[_JobEntry]) -> Iterator[Problem]:
    first_by_name: dict[str, _JobEntry] = {}
    for entry in entries:
        if entry.name and (first := first_by_name.setdefault(entry.name, entry)) is not entry:
            yield _duplicate_problem(document, first, entry)


def _duplicate_problem(document: Document, first: _JobEntry, entry: _JobEntry) -> Problem:
    path: FieldPath = ("jobs", entry.index)
    line = document.position(("jobs", first.index))[0]
    if entry.is_named or first.is_named:
        message = f"duplicate job name {quote(entry.name)}; first used by the job on line {line}"
        return document.problem((*path, "name") if entry.is_named else path, message, "give each job a unique name")
    message = f"same workflow and project as the job on line {line}, and neither has a name"
    return document.problem(path, message, "to create both jobs, give each a `name`; otherwise remove one")


def _find_warnings(document: Document) -> Iterator[Problem]:
    value = document.value
    if isinstance(value, dict) and value.get("once_per") in _PERIODS and "timezone" not in value:
        message = f"`once_per: {value['once_per']}` uses UTC because `timezone` is not set"
        yield document.problem(("once_per",), message, "set `timezone` to an IANA name such as Asia/Kolkata, or to UTC")


@dataclass(frozen=True, slots=True)
class _JobEntry:
    """One mapping of `jobs`, and what applies to it: ids that may be missing or of a wrong type, a name or ""."""

    index: int
    fields: dict[str, Any]
    workflow_id: Any
    project_id: Any
    name: str

    @property
    def is_named(self) -> bool:
        """Whether the name is its own, not the default."""
        return isinstance(self.fields.get("name"), str)


def _job_entries(document: Document) -> Iterator[_JobEntry]:
    jobs = _value_at(document.value, ("jobs",))
    defaults = _value_at(document.value, ("defaults",))
    workflow, project = (_value_at(defaults, (field,)) for field in _ID_FIELDS)
    for index, job in enumerate(jobs if isinstance(jobs, list) else ()):
        if isinstance(job, dict):
            ids = job.get("workflow_id", workflow), job.get("project_id", project)
            name = job.get("name")
            if not isinstance(name, str):
                name = "/".join(ids) if all(isinstance(part, str) for part in ids) else ""
            yield _JobEntry(index, job, *ids, name)


# From here on there are no problems: each value has the type that the schema requires. To it, 8.0 is an integer too.


def _build_manifest(document: Document, path: str, sha256: str, entries: tuple[_JobEntry, ...]) -> Manifest:
    value = document.value
    submit = value.get("submit", {})
    return Manifest(
        name=value["name"] if "name" in value else str(_default_name(path)),
        path=path,
        sha256=sha256,
        jobs=_build_jobs(document, entries),
        once_per=value.get("once_per", "run"),
        timezone=value.get("timezone"),
        on_unfinished=value.get("on_unfinished", "refuse"),
        max_cost=int(value["max_cost"]) if "max_cost" in value else None,
        submit=LimitOverrides(**{key: _SUBMIT_TYPES[key](setting) for key, setting in submit.items()}),
        has_explicit_name="name" in value,
    )


def _build_jobs(document: Document, entries: Iterable[_JobEntry]) -> tuple[Job, ...]:
    defaults = document.value.get("defaults", {})
    labels, enabled = defaults.get("labels", {}), defaults.get("enabled", True)
    return tuple(
        Job(
            name=entry.name,
            workflow_id=entry.workflow_id,
            project_id=entry.project_id,
            labels=labels | entry.fields.get("labels", {}),
            enabled=entry.fields.get("enabled", enabled),
            line=document.position(("jobs", entry.index))[0],
        )
        for entry in entries
    )
