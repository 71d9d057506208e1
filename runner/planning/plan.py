"""What a run would send, and why it would not send the rest: the manifest compared with the ledger. Pure.

Pairs are counted and names are labels: of a pair with n enabled entries, c of which exist or may exist under the run
key, n - c are sent. Names only decide which entries those are, so renaming or reordering entries never submits a job
twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from runner.core.errors import UsageError
from runner.core.models import Job, Manifest, Skipped, Submission
from runner.core.suggestions import closest_matches
from runner.ledger.rows import MAY_EXIST, SubmissionRow

_EXPLAIN_GLOBS = "A glob must match the whole name: * matches any text, ? one character."
_LIST_NAMES = "`pixxel-runner plan MANIFEST` lists the job names."

_Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Match:
    """Which entry each submission of a run key belongs to.

    `by_name` has the submissions by the name of their entry. `unlisted` are those that exist or may exist, or were
    requested with `--again`, and have no entry.
    """

    by_name: Mapping[str, SubmissionRow]
    unlisted: tuple[SubmissionRow, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send, in manifest order, and the reason for each job, by name, that never was and will not be sent."""

    to_send: tuple[Submission, ...]
    skipped: Mapping[str, Skipped]
    match: Match


def build_plan(
    manifest: Manifest, only: Sequence[str] = (), submissions: Sequence[SubmissionRow] = (), again: Sequence[str] = ()
) -> Plan:
    """Decide what to send.

    Args:
        manifest: the manifest.
        only: globs of job names; every job if there are none.
        submissions: the submissions of the run key so far.
        again: names of created jobs to send once more.

    Raises:
        UsageError: a glob matches no job, or a name of `again` is not that of a created job.
    """
    check_names(manifest.jobs, only, again)
    match = match_submissions(manifest.jobs, submissions)
    ordinals = _Ordinals(submissions)
    to_send: list[Submission] = []
    skipped: dict[str, Skipped] = {}
    for job in manifest.jobs:
        submission = match.by_name.get(job.name)
        if submission is not None and submission.consumes_slot:
            continue
        reason = skip_reason(job, only)
        if reason is None:
            to_send.append(Submission(job, submission.ordinal if submission else ordinals.next(job.pair)))
        elif submission is None or submission.state == "released":
            skipped[job.name] = reason
    to_send += [
        Submission(job, _again_ordinal(job, submissions) or ordinals.next(job.pair), again=True)
        for job in _jobs_to_repeat(manifest, match, again)
    ]
    return Plan(tuple(to_send), skipped, match)


def skip_reason(job: Job, only: Sequence[str]) -> Skipped | None:
    """Return why a run is not to send a job; None if it is."""
    if not job.enabled:
        return Skipped("disabled", "disabled in the manifest")
    if only and not any(_selects(glob, job.name) for glob in only):
        return Skipped("not_selected", "matches no --only pattern")
    return None


def match_submissions(jobs: Sequence[Job], submissions: Sequence[SubmissionRow]) -> Match:
    """Find the entry of each submission: first for those that exist or may exist, then for those to retry."""
    again: list[SubmissionRow] = []
    existing: list[SubmissionRow] = []
    others: list[SubmissionRow] = []
    for submission in submissions:
        (again if submission.again else existing if submission.state in MAY_EXIST else others).append(submission)
    by_name: dict[str, SubmissionRow] = {}
    named = {job.name: job for job in jobs}
    unlisted = [submission for submission in again if submission.state != "released"]
    unlisted += _assign(existing, named, by_name)
    _assign(others, named, by_name)
    return Match(by_name, tuple(unlisted))


def _assign(
    submissions: Sequence[SubmissionRow], jobs: Mapping[str, Job], by_name: dict[str, SubmissionRow]
) -> list[SubmissionRow]:
    """Assign submissions to entries of their pair, and return those for which no entry is left.

    Enabled entries come first, as they are what is counted: the one of the same name, else the next in order. A
    disabled entry only shows what was submitted under its name while it was enabled.
    """
    renamed = _assign_by_name(submissions, jobs, by_name, enabled=True)
    if not renamed:  # the usual case
        return []
    pairs = {submission.pair for submission in renamed}
    free: dict[_Pair, deque[str]] = defaultdict(deque)
    for name, job in jobs.items():
        if job.enabled and name not in by_name and job.pair in pairs:
            free[job.pair].append(name)
    left: list[SubmissionRow] = []
    for submission in renamed:
        if names := free[submission.pair]:
            by_name[names.popleft()] = submission
        else:
            left.append(submission)
    return _assign_by_name(left, jobs, by_name, enabled=False)


def _assign_by_name(
    submissions: Sequence[SubmissionRow], jobs: Mapping[str, Job], by_name: dict[str, SubmissionRow], *, enabled: bool
) -> list[SubmissionRow]:
    left: list[SubmissionRow] = []
    for submission in submissions:
        name = submission.name
        job = jobs.get(name)
        if (
            job is None
            or job.enabled is not enabled
            or name in by_name
            or job.workflow_id != submission.workflow_id
            or job.project_id != submission.project_id
        ):
            left.append(submission)
        else:
            by_name[name] = submission
    return left


class _Ordinals:
    """Ordinals for new submissions of each pair, none of which was used before."""

    def __init__(self, submissions: Iterable[SubmissionRow]) -> None:
        self._submissions = submissions

    def next(self, pair: _Pair) -> int:
        self._last[pair] += 1
        return self._last[pair]

    @cached_property
    def _last(self) -> dict[_Pair, int]:
        """The last ordinal of each pair. Computed when needed, as usually nothing is new."""
        last: dict[_Pair, int] = defaultdict(int)
        for submission in self._submissions:
            last[submission.pair] = max(last[submission.pair], submission.ordinal)
        return last


def _jobs_to_repeat(manifest: Manifest, match: Match, again: Sequence[str]) -> list[Job]:
    jobs = {job.name: job for job in manifest.jobs}
    for name in again:
        submission = match.by_name.get(name)
        if submission is None or submission.state != "created":
            raise UsageError(
                f"--again {name!r}: this job has not been created yet",
                "A run without --again submits it. If it is in doubt, resolve that first: pixxel-runner resolve",
            )
    return [jobs[name] for name in dict.fromkeys(again)]


def _again_ordinal(job: Job, submissions: Iterable[SubmissionRow]) -> int | None:
    """Return the ordinal of an earlier `--again` submission that was not created, to be retried.

    Raises:
        UsageError: that submission may exist.
    """
    for submission in submissions:
        if not submission.again or submission.name != job.name or submission.pair != job.pair:
            continue
        if submission.state == "created":
            continue
        if submission.may_exist:
            raise UsageError(
                f"--again {job.name!r}: an earlier --again submission of this job is in doubt",
                "Resolve it first: pixxel-runner resolve",
            )
        return submission.ordinal
    return None


def check_names(jobs: Sequence[Job], only: Sequence[str], again: Sequence[str] = ()) -> None:
    """Check that every glob of `only` matches a job, and that every name of `again` is that of one job.

    Raises:
        UsageError: a glob or a name does not.
    """
    if not only and not again:
        return
    counts = Counter(job.name for job in jobs)  # with several manifests a name may occur several times
    for glob in only:
        if not any(_selects(glob, name) for name in counts):
            raise UsageError(f"--only {glob!r} matches no job in the manifest", _suggest(glob, counts, _EXPLAIN_GLOBS))
    for name in again:
        if counts[name] > 1:
            raise UsageError(
                f"--again {name!r}: {counts[name]} of these manifests have a job of that name",
                "It would be submitted once more for each. Specify the one manifest that you mean.",
            )
        if not counts[name]:
            raise UsageError(f"--again {name!r}: no such job in the manifest", _suggest(name, counts, _LIST_NAMES))


def matching_names(
    jobs: Sequence[Job], only: Sequence[str], again: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the globs and the names that apply to these jobs."""
    names = {job.name for job in jobs}
    globs = tuple(glob for glob in only if any(_selects(glob, name) for name in names))
    return globs, tuple(name for name in again if name in names)


def _selects(glob: str, name: str) -> bool:
    """Whether a glob matches a name. A name always matches itself, whatever brackets it contains."""
    return name == glob or fnmatchcase(name, glob)


def _suggest(name: str, names: Iterable[str], otherwise: str) -> str:
    matches = closest_matches(name, names, 3)
    if matches:
        return f"Did you mean {' or '.join(matches)}?"
    return otherwise
