"""What a run would send, and why it would not send the rest: the manifest held against the ledger. Pure.

Pairs are counted, names are labels: of a pair with n enabled entries, of which c exist or may exist under the run
key, n − c are sent. Names only choose which entries those are, so that renaming or reordering never buys again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from runner.core.errors import UsageError
from runner.core.models import Job, Manifest, Skipped, Submission
from runner.core.suggestions import closest_matches
from runner.ledger.rows import MAY_EXIST, SubmissionRow

_Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Match:
    """Which entry each submission of a run key is of: by the entry's name; and those that no entry stands for.

    `gone` are the ones that exist or may exist; what failed and is not listed any more is of no concern.
    """

    by_name: Mapping[str, SubmissionRow]
    unlisted: tuple[SubmissionRow, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """`sends` in manifest order; the reason for each job that was never sent and is not to be, by name."""

    to_send: tuple[Submission, ...]
    skipped: Mapping[str, Skipped]
    match: Match


def build_plan(
    manifest: Manifest, only: Sequence[str] = (), standings: Sequence[SubmissionRow] = (), again: Sequence[str] = ()
) -> Plan:
    """Choose what to send.

    Args:
        manifest: what is wanted.
        only: globs of job names; without any, every job.
        standings: the submissions of the run key, as far as there are.
        again: names of jobs that were created and are to be sent once more.

    Raises:
        UsageError: a glob matches no job, or a name of `again` is not a job that was created.
    """
    check_names(manifest.jobs, only, again)
    matched = match_submissions(manifest.jobs, standings)
    ordinals = _Ordinals(standings)
    sends: list[Submission] = []
    skipped: dict[str, Skipped] = {}
    for job in manifest.jobs:
        standing = matched.by_name.get(job.name)
        if standing is not None and standing.consumes_slot:
            continue
        reason = skip_reason(job, only)
        if reason is None:
            sends.append(Submission(job, standing.ordinal if standing else ordinals.next(job.pair)))
        elif standing is None or standing.state == "released":
            skipped[job.name] = reason
    sends += [
        Submission(job, _again_ordinal(job, standings) or ordinals.next(job.pair), again=True)
        for job in _again(manifest, matched, again)
    ]
    return Plan(tuple(sends), skipped, matched)


def skip_reason(job: Job, only: Sequence[str]) -> Skipped | None:
    """Why a job is not among those that a run is to send; None when it is."""
    if not job.enabled:
        return Skipped("disabled", "enabled: false in the manifest")
    if only and not any(_selects(glob, job.name) for glob in only):
        return Skipped("not_selected", "its name matches no --only")
    return None


def match_submissions(jobs: Sequence[Job], standings: Sequence[SubmissionRow]) -> Match:
    """Say which entry each submission is of: those that exist or may exist first, then those to be tried again."""
    of = _all_by_name(jobs, standings)
    return _match(jobs, standings) if of is None else Match(of, ())


def _all_by_name(jobs: Sequence[Job], standings: Sequence[SubmissionRow]) -> dict[str, SubmissionRow] | None:
    """The same where every submission has its own entry still: a tenth of the time, of the usual second run."""
    named = {job.name: job for job in jobs}
    of: dict[str, SubmissionRow] = {}
    for standing in standings:
        name = standing.name
        job = named.get(name)
        if job is None or not job.enabled or standing.again or standing.state not in MAY_EXIST or name in of:
            return None
        if job.workflow_id != standing.workflow_id or job.project_id != standing.project_id:
            return None
        of[name] = standing
    return of


def _match(jobs: Sequence[Job], standings: Sequence[SubmissionRow]) -> Match:
    entries: dict[_Pair, list[Job]] = defaultdict(list)
    for job in jobs:
        entries[job.pair].append(job)
    counted: dict[_Pair, list[SubmissionRow]] = defaultdict(list)
    others: dict[_Pair, list[SubmissionRow]] = defaultdict(list)
    gone: list[SubmissionRow] = []
    for standing in standings:
        if standing.again:
            gone.append(standing)
        else:
            (counted if standing.consumes_slot else others)[standing.pair].append(standing)
    of: dict[str, SubmissionRow] = {}
    for pair, bought in counted.items():
        gone += _assign(bought, entries[pair], of)
    for pair, tried in others.items():
        _assign(tried, entries[pair], of)
    kept = (one for one in gone if one.consumes_slot or (one.again and one.state != "released"))
    return Match(of, tuple(kept))


def _assign(standings: list[SubmissionRow], jobs: Sequence[Job], of: dict[str, SubmissionRow]) -> list[SubmissionRow]:
    """Give submissions of one pair their entries, and return those that no entry is left for.

    Enabled entries come first, as they are what is counted: one of the same name, else the next in order. A disabled
    entry only shows what was bought under its name while it was enabled.
    """
    enabled = [job.name for job in jobs if job.enabled and job.name not in of]
    disabled = [job.name for job in jobs if not job.enabled and job.name not in of]
    left = _take_named(standings, enabled, of)
    free = [name for name in enabled if name not in of][: len(left)]
    of.update(zip(free, left, strict=False))
    return _take_named(left[len(free) :], disabled, of)


def _take_named(
    standings: Iterable[SubmissionRow], names: Iterable[str], of: dict[str, SubmissionRow]
) -> list[SubmissionRow]:
    free = set(names)
    left: list[SubmissionRow] = []
    for standing in standings:
        if standing.name in free:
            free.discard(standing.name)
            of[standing.name] = standing
        else:
            left.append(standing)
    return left


class _Ordinals:
    """Numbers for new submissions of each pair: never one that was given before."""

    def __init__(self, standings: Iterable[SubmissionRow]) -> None:
        self._standings = standings

    def next(self, pair: _Pair) -> int:
        self._last[pair] += 1
        return self._last[pair]

    @cached_property
    def _last(self) -> dict[_Pair, int]:
        """The last number of each pair: when it is asked for, as most often nothing is new."""
        last: dict[_Pair, int] = defaultdict(int)
        for standing in self._standings:
            last[standing.pair] = max(last[standing.pair], standing.ordinal)
        return last


def _again(manifest: Manifest, matched: Match, names: Sequence[str]) -> list[Job]:
    jobs = {job.name: job for job in manifest.jobs}
    for name in names:
        standing = matched.by_name.get(name)
        if standing is None or standing.state != "created":
            raise UsageError(
                f"--again {name!r}: this job was not created under this run key",
                "A plain run sends it. If it is in doubt, settle that first: pixxel-runner resolve",
            )
    return [jobs[name] for name in dict.fromkeys(names)]


def _again_ordinal(job: Job, standings: Iterable[SubmissionRow]) -> int | None:
    """The number of an earlier "one more" that was not created, which this one is then.

    Raises:
        UsageError: that one may exist.
    """
    for standing in standings:
        if standing.again and standing.name == job.name and standing.pair == job.pair and standing.state != "created":
            if standing.may_exist:
                raise UsageError(
                    f"--again {job.name!r}: one more of it was sent, and is in doubt",
                    "Settle that first: pixxel-runner resolve",
                )
            return standing.ordinal
    return None


def check_names(jobs: Sequence[Job], only: Sequence[str], again: Sequence[str] = ()) -> None:
    """See that every glob matches a job, and that every name is one's. Raises UsageError."""
    if not only and not again:
        return
    counts = Counter(job.name for job in jobs)  # of one manifest each is there once
    names = list(counts)
    for glob in only:
        if not any(_selects(glob, name) for name in names):
            raise UsageError(f"--only {glob!r} matches no job of the manifest", _nearest(glob, names))
    for name in again:
        if counts[name] > 1:
            raise UsageError(
                f"--again {name!r}: {counts[name]} of these manifests have such a job",
                "Each would be bought once more: name the manifest that is meant.",
            )
        if name not in names:
            raise UsageError(f"--again {name!r}: no such job in the manifest", _nearest(name, names))


def matching_names(
    jobs: Sequence[Job], only: Sequence[str], again: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of some globs, and of some names, that are about these jobs."""
    names = {job.name for job in jobs}
    globs = tuple(glob for glob in only if any(_selects(glob, name) for name in names))
    return globs, tuple(name for name in again if name in names)


def _selects(glob: str, name: str) -> bool:
    """Whether a glob matches a name; a name itself always does, whatever brackets are in it."""
    return name == glob or fnmatchcase(name, glob)


def _nearest(name: str, names: Iterable[str]) -> str:
    near = closest_matches(name, names, 3)
    return f"Did you mean {' or '.join(near)}?" if near else "A glob matches whole names: * any text, ? one character."
