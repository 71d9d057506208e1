"""What a run would send, and why it would not send the rest. Pure."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from runner.errors import UsageError
from runner.model import Job, Manifest, Skipped, Submission


@dataclass(frozen=True, slots=True)
class Plan:
    """`sends` in manifest order, and the reason for each job that is not among them, by name."""

    sends: tuple[Submission, ...]
    skipped: Mapping[str, Skipped]


def make(manifest: Manifest, only: Sequence[str] = ()) -> Plan:
    """Choose what to send: every enabled job whose name matches one of the globs `only`, or all without globs.

    Raises:
        UsageError: a glob matches no job.
    """
    _check_globs(manifest, only)
    sends: list[Submission] = []
    skipped: dict[str, Skipped] = {}
    for submission in _submissions(manifest):
        job = submission.job
        if not job.enabled:
            skipped[job.name] = Skipped("disabled", "enabled: false in the manifest")
        elif only and not any(fnmatchcase(job.name, glob) for glob in only):
            skipped[job.name] = Skipped("not_selected", "its name matches no --only")
        else:
            sends.append(submission)
    return Plan(tuple(sends), skipped)


def _submissions(manifest: Manifest) -> Iterator[Submission]:
    counts: Counter[tuple[str, str]] = Counter()
    for job in manifest.jobs:
        counts[job.pair] += 1
        yield Submission(job, counts[job.pair])


def _check_globs(manifest: Manifest, only: Sequence[str]) -> None:
    for glob in only:
        if not any(fnmatchcase(job.name, glob) for job in manifest.jobs):
            raise UsageError(f"--only {glob!r} matches no job of the manifest", _nearest(glob, manifest.jobs))


def _nearest(glob: str, jobs: Sequence[Job]) -> str:
    near = difflib.get_close_matches(glob, [job.name for job in jobs], n=3)
    return f"Did you mean {' or '.join(near)}?" if near else "A glob matches whole names: * any text, ? one character."
