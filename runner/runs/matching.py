"""Which listed job belongs to which submission in doubt, and when a missing job is proved absent. Pure.

The rules are in docs/design.md. What they leave open stays in doubt: they never guess.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runner.client.job import JobObject
from runner.core.models import Created, ErrorInfo, InDoubt, NotCreated
from runner.core.settings import DEFAULT_SETTLE
from runner.core.text import escape_unprintable, pluralize
from runner.ledger.rows import SubmissionRow
from runner.runs.listing import Listing
from runner.runs.windows import MAX_CLOCK_ERROR, SLACK, Window, clock_margins, group_overlapping, response_date

_PAGE_SIZE = 50  # where the API truncates its other lists


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a lookup for one doubt. `reason` says in a word how it was resolved, or why it was not."""

    doubt: SubmissionRow
    outcome: Created | NotCreated | InDoubt
    reason: str


def classify_doubts(
    resolvable: Collection[int],
    unresolved: Sequence[SubmissionRow],
    known: Sequence[SubmissionRow],
    listing: Listing,
    ids_in_use: Collection[str],
    creators: Mapping[str, Collection[str]],
    now: datetime,
    settle: timedelta = DEFAULT_SETTLE,
) -> list[Finding]:
    """Resolve the doubts of one workflow at one API, as far as that is certain.

    Args:
        resolvable: the ids of the doubts that may be resolved, as their manifest's lock is held.
        unresolved: every doubt and every open intent of the workflow, of any manifest.
        known: every submission of the workflow that has a job.
        listing: the workflow's jobs at the API.
        ids_in_use: the ids of listed jobs that belong to a submission in the ledger, of any workflow.
        creators: by run id, who created the jobs of that run, as far as the API said; a run has one key.
        now: the time, by this machine's clock.
        settle: how long after a send a slow backend may still create its job.
    """

    def may_be(job: JobObject, submission: SubmissionRow, margin: timedelta = timedelta(0)) -> bool:
        in_window = windows[submission.id].contains(listing.created_at(job), margin)
        return in_window and _may_be_by(job, creators.get(submission.run_id, ()))

    free = [job for job in listing.jobs if job.id not in ids_in_use]
    margins = clock_margins(unresolved, known, listing)
    is_complete = _is_complete(listing, {row.job_id for row in known}, unresolved, settle, margins)
    sends = [*unresolved, *(row for row in known if row.recovered)]
    windows = {row.id: Window.of_doubt(row, settle) for row in sends}
    # A job of unknown time may belong to any doubt, so that there is only one group.
    has_times = all(listing.created_at(job) is not None for job in free)
    findings: list[Finding] = []
    for members in group_overlapping(sends, windows) if has_times else [sends]:
        group = _Group(
            doubts=[row for row in members if row.job_id is None],
            recovered=[row for row in members if row.job_id is not None],
            candidates=[job for job in free if any(may_be(job, row) for row in members)],
            nearby=[
                job for job in free if any(may_be(job, row, margins.get(row.id, MAX_CLOCK_ERROR)) for row in members)
            ],
            windows=windows,
            listing=listing,
        )
        doubts = [row for row in group.doubts if row.id in resolvable]
        if doubts:
            findings += group.resolve(doubts, is_complete=is_complete, settled_at=now - settle)
    return findings


def describe_doubt(doubt: SubmissionRow) -> str:
    """Return why a submission is in doubt."""
    return doubt.error.message if doubt.error else "the process ended while it was being sent"


def unresolved_finding(doubt: SubmissionRow, candidates: tuple[str, ...], reason: str) -> Finding:
    """Return the finding for a job that stays in doubt."""
    error = doubt.error or ErrorInfo("interrupted", describe_doubt(doubt))
    return Finding(doubt, InDoubt(error, doubt.attempts, doubt.claimed_at, candidates), reason)


@dataclass(frozen=True, slots=True)
class _Group:
    """Submissions of one workflow whose windows overlap: any job of one of them may belong to any other.

    `recovered` are those whose job an earlier lookup found. It was open then which of the group's jobs was theirs, so
    they still count if one appears that was late in the list: it may be theirs, and the one they have another's.
    `nearby` are the candidates if a clock was wrong: ours when they were sent, or that of the server's times. Whatever
    is known of the clocks, they keep a job from being proved absent, and are left to the user.
    """

    doubts: Sequence[SubmissionRow]
    recovered: Sequence[SubmissionRow]
    candidates: Sequence[JobObject]
    nearby: Sequence[JobObject]
    windows: Mapping[int, Window]
    listing: Listing

    def resolve(self, doubts: Sequence[SubmissionRow], *, is_complete: bool, settled_at: datetime) -> list[Finding]:
        """Resolve some of the doubts, as far as that is certain.

        `is_complete`: a job that is not listed does not exist. A slow server is done with what had been sent by
        `settled_at`.
        """

        def leave(reason: str, candidates: Sequence[JobObject] = self.candidates) -> list[Finding]:
            ids = tuple(job.id for job in candidates)
            return [unresolved_finding(doubt, ids, reason) for doubt in doubts]

        count, total = len(self.candidates), len(self.doubts)
        obstacle = self._obstacle(doubts)
        if obstacle:
            return leave(obstacle, self.nearby if self.listing.incomplete else self.candidates)
        if not count:
            return [self._resolve_missing(doubt, is_complete=is_complete, settled_at=settled_at) for doubt in doubts]
        if count > total:
            return leave(f"{count} jobs at the API may be this one")
        if count < total and (len(doubts) < total or not self._has_one_pair()):
            return leave(f"{pluralize(count, 'job')} at the API may be any of {total} in doubt")
        assignment = self._assign_by_time()
        if assignment is None:
            return leave("the creation times of the API's jobs do not match the submissions")
        return self._adopt(doubts, assignment)

    def _obstacle(self, doubts: Sequence[SubmissionRow]) -> str:
        """Return why the number of candidates proves nothing: there may be more."""
        if any(row.state == "sending" for row in self.doubts if row not in doubts):
            return "another manifest is submitting to the same workflow"
        if self.listing.incomplete:
            field = escape_unprintable(self.listing.incomplete)
            return f"the API's list of jobs may be incomplete or outdated ({field})"
        if any(_predates(self.listing, doubt) for doubt in self.doubts):
            return "the API's list of jobs is older than this request"
        return ""

    def _has_one_pair(self) -> bool:
        return len({row.pair for row in [*self.doubts, *self.recovered]}) == 1

    def _adopt(self, doubts: Sequence[SubmissionRow], assignment: Mapping[int, JobObject]) -> list[Finding]:
        """Give each doubt the job assigned to it. A job assigned to a recovered submission goes to one without."""
        jobs = {row.id: assignment[row.id] for row in self.doubts if assignment.get(row.id) in self.candidates}
        left = [job for job in self._by_time(self.candidates) if job not in jobs.values()]
        jobs |= dict(zip((row.id for row in self.doubts if row.id not in jobs), left, strict=False))
        guesses = () if self._has_one_pair() else tuple(job.id for job in self._by_time(self._all_jobs()))
        findings: list[Finding] = []
        for doubt in doubts:
            job = jobs.get(doubt.id)
            if job is None:
                reason = "other jobs of the same workflow and project were found, but not this one"
                findings.append(unresolved_finding(doubt, (), reason))
            else:
                created = Created(job.id, b"", doubt.attempts, doubt.claimed_at, True, not guesses, guesses)
                findings.append(Finding(doubt, created, "found"))
        return findings

    def _resolve_missing(self, doubt: SubmissionRow, *, is_complete: bool, settled_at: datetime) -> Finding:
        """Declare a job without candidates not created, if that is proved."""
        sent = self.windows[doubt.id].sent
        ids = tuple(job.id for job in self.nearby)
        if not is_complete:
            return unresolved_finding(doubt, ids, "the API's list of jobs may be incomplete")
        if ids:
            reason = f"{pluralize(len(ids), 'job')} at the API may be this one, if a clock was wrong"
            return unresolved_finding(doubt, ids, reason)
        if self.listing.date is not None and self.listing.date < sent:
            return unresolved_finding(doubt, (), "the API's list of jobs may be older than this request")
        last = max(self.windows[row.id].sent for row in [doubt, *self.recovered])
        if last > settled_at:
            until = self.windows[doubt.id].end - SLACK + (last - sent)
            reason = f"not at the API so far; a slow server may still create it until {until:%H:%M:%S} UTC"
            return unresolved_finding(doubt, (), reason)
        message = f"was in doubt ({describe_doubt(doubt)}) and is not in the workflow's list of jobs"
        error = ErrorInfo("not_found", message)
        return Finding(doubt, NotCreated(error, doubt.attempts, doubt.claimed_at), "not found")

    def _all_jobs(self) -> list[JobObject]:
        """The candidates, and the jobs that were recovered earlier, as far as they are listed."""
        ids = {row.job_id for row in self.recovered}
        return [*self.candidates, *(job for job in self.listing.jobs if job.id in ids)]

    def _by_time(self, jobs: Sequence[JobObject]) -> list[JobObject]:
        never = datetime.max.replace(tzinfo=UTC)
        return sorted(jobs, key=lambda job: (self.listing.created_at(job) or never, job.id))

    def _assign_by_time(self) -> dict[int, JobObject] | None:
        """Assign each job to a submission whose window fits, by greedy matching; None if that is impossible."""
        unassigned = sorted([*self.doubts, *self.recovered], key=lambda row: self.windows[row.id].end)
        assignment: dict[int, JobObject] = {}
        for job in self._by_time(self._all_jobs()):
            created_at = self.listing.created_at(job)
            submission = next((row for row in unassigned if self.windows[row.id].contains(created_at)), None)
            if submission is None:
                return None
            assignment[submission.id] = job
            unassigned.remove(submission)
        return assignment


def _may_be_by(job: JobObject, creators: Collection[str]) -> bool:
    return not creators or job.created_by is None or job.created_by in creators


def _is_complete(
    listing: Listing,
    known_ids: AbstractSet[str | None],
    unresolved: Sequence[SubmissionRow],
    settle: timedelta,
    margins: Mapping[int, timedelta],
) -> bool:
    """Whether a job that is not listed does not exist.

    The list must contain every job that the ledger knows. If it is as long as a page, it may be truncated: then it must
    begin with the newest job, and go back to before the first doubt, by as much as a clock may be wrong.
    """
    if not known_ids <= {job.id for job in listing.jobs}:
        return False
    if not listing.jobs or len(listing.jobs) % _PAGE_SIZE:
        return True
    start = min(Window.of_doubt(row, settle).start for row in unresolved)
    start -= max(margins.values(), default=MAX_CLOCK_ERROR)
    times = [time for job in listing.jobs if (time := listing.created_at(job)) is not None]
    newest_first = len(times) == len(listing.jobs) and times == sorted(times, reverse=True) and times[0] != times[-1]
    return newest_first and times[-1] < start


def _predates(listing: Listing, doubt: SubmissionRow) -> bool:
    """Whether the list is older than the response that left the doubt, by the server's clock: a cache returned it."""
    date = response_date(doubt)
    return date is not None and listing.date is not None and listing.date < date - SLACK
