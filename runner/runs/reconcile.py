"""The look-up: what became of jobs in doubt, by what the API lists. It never guesses, and never sends.

The rules are DESIGN, section 4. `judge` is pure; `look` asks the API and settles in the ledger.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Protocol

from runner.client.exchange import Exchange
from runner.client.headers import parse_http_date
from runner.client.job import JobObject, encode_job, parse_job
from runner.client.job_list import parse_job_list
from runner.client.response import ExchangeResult, Response
from runner.core.models import Created, ErrorInfo, InDoubt, NotCreated
from runner.core.settings import DEFAULT_SETTLE
from runner.core.text import escape_unprintable
from runner.ledger.rows import Decision, SubmissionRow
from runner.ledger.store import Ledger

_SLACK = timedelta(seconds=10)  # `Date` and `created_at` are rounded, and the clocks drift while a run goes
# A machine's clock is set by hand, or by the network after a run: until the server has told the time, it may have been
# off by as much as the wrong timezone makes it. One that is off by more trusts no certificate.
_ASTRAY = timedelta(days=1)
# `created_at` and `Date` are of two clocks, the backend's and the gateway's: how far apart they may be where jobs of
# ours that were sent at about the same time show that the server's times are as they should be.
_APART = timedelta(minutes=15)
_ABOUT_THEN = timedelta(hours=1)
_PAGE = 50  # where the API cuts its other lists off


class JobReader(Protocol):
    """What a look-up needs of the API: nothing that creates."""

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """The jobs of a workflow."""

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:
        """One job, whole."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A workflow's jobs as the API listed them, and how far its clock is ahead of ours.

    `part` names what says that these are not all of them, or not those of now; empty where nothing does. `date` is when
    the list was made, by the server's clock.
    """

    jobs: tuple[JobObject, ...]
    ahead: timedelta
    incomplete: str = ""
    date: datetime | None = None

    def created_at(self, job: JobObject) -> datetime | None:
        """When a job was created by our clock; None when the API does not say."""
        try:
            return None if job.created_at is None else job.created_at - self.ahead
        except OverflowError:  # the first or the last year that Python has: what some servers write for no time
            return None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look-up makes of one doubt."""

    doubt: SubmissionRow
    outcome: Created | NotCreated | InDoubt
    reason: str


@dataclass(frozen=True, slots=True)
class Window:
    """When a doubtful job was created, if it was: from its claim to when a slow backend would be done with it."""

    start: datetime
    sent: datetime  # when the exchange was over, at the latest
    end: datetime

    @classmethod
    def of_doubt(cls, doubt: SubmissionRow, settle: timedelta) -> Window:
        """The window of a doubt."""
        sent = doubt.ended_at or doubt.claimed_at + timedelta(seconds=doubt.timeout)
        return cls(doubt.claimed_at - _SLACK, sent, sent + settle + _SLACK)

    def contains(self, moment: datetime | None, astray: timedelta = timedelta(0)) -> bool:
        """Whether a job of that time may be the one, if our clock was astray; one of unknown time may."""
        return moment is None or self.start - astray <= moment <= self.end + astray


def classify_doubts(
    ours: Collection[int],
    unsettled: Sequence[SubmissionRow],
    known: Sequence[SubmissionRow],
    listing: Listing,
    taken: Collection[str],
    creators: Mapping[str, Collection[str]],
    now: datetime,
    settle: timedelta = DEFAULT_SETTLE,
) -> list[Finding]:
    """Settle the doubts of one workflow at one API, as far as that is certain.

    Args:
        ours: the numbers of the doubts that may be judged: their manifest's lock is held.
        unsettled: every doubt and every open intent of the workflow, whichever manifest it is of.
        known: every submission of the workflow that has a job.
        listing: the workflow's jobs at the API.
        taken: ids of listed jobs that a submission of the ledger has, of whichever workflow.
        creators: by run id, who created that run's jobs, as far as the API told; a run has one key.
        now: the time, by our clock.
        settle: how long after a send a slow backend may still create its job.
    """
    free = [job for job in listing.jobs if job.id not in taken]
    calibrated = _calibrated(known, listing)
    widths = {one.id: _width(one, calibrated, listing) for one in unsettled}
    whole = _shows_all(listing, {one.job_id for one in known}, unsettled, settle, max(widths.values(), default=_ASTRAY))
    found = [one for one in known if one.recovered]
    windows = {one.id: Window.of_doubt(one, settle) for one in [*unsettled, *found]}
    # A job of unknown time may be any doubt's, so that then there is but one group.
    apart = all(listing.created_at(job) is not None for job in free)
    exact = dict.fromkeys(windows, timedelta(0))
    findings: list[Finding] = []
    for together in _overlapping([*unsettled, *found], windows) if apart else [[*unsettled, *found]]:
        group = _Group(
            doubts=[one for one in together if one.job_id is None],
            found=[one for one in together if one.job_id is not None],
            candidates=[job for job in free if _may_be_of(job, together, listing, creators, windows, exact)],
            near=[job for job in free if _may_be_of(job, together, listing, creators, windows, widths)],
            windows=windows,
            listing=listing,
        )
        mine = [one for one in group.doubts if one.id in ours]
        findings += group.settle(mine, whole=whole, settled=now - settle) if mine else []
    return findings


def _may_be_of(
    job: JobObject,
    group: Sequence[SubmissionRow],
    listing: Listing,
    creators: Mapping[str, Collection[str]],
    windows: Mapping[int, Window],
    widths: Mapping[int, timedelta],
) -> bool:
    moment = listing.created_at(job)
    return any(
        windows[one.id].contains(moment, widths.get(one.id, _ASTRAY)) and _by_us(job, creators.get(one.run_id, ()))
        for one in group
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """Sends of one workflow whose windows overlap: any job of one of them may be of any other.

    `found` are those whose job an earlier look found. Which of the group's jobs they were given was open then, so they
    still count when one shows that the list was late with: it may be theirs, and what they have, another's. `near` are
    the candidates if a clock was wrong, ours when they were sent or that of the server's times: whatever is known of
    the clocks, they keep a send from being said to be absent, and are left to a person.
    """

    doubts: Sequence[SubmissionRow]
    found: Sequence[SubmissionRow]
    candidates: Sequence[JobObject]
    near: Sequence[JobObject]
    windows: Mapping[int, Window]
    listing: Listing

    def settle(self, mine: Sequence[SubmissionRow], *, whole: bool, settled: datetime) -> list[Finding]:
        """Say what is certain of `mine`. A send that was over by `settled` is one that no server is slow with."""
        others = len(self.doubts) - len(mine)
        count, ids = len(self.candidates), tuple(job.id for job in self.candidates)
        why = self._why_not_now(mine)
        if why:
            near = tuple(job.id for job in (self.near if self.listing.incomplete else self.candidates))
            return [_left(one, near, why) for one in mine]
        if not count:
            return [self._absent(one, whole=whole, settled=settled) for one in mine]
        if count > len(self.doubts):
            return [_left(one, ids, f"{count} jobs at the API may be it") for one in mine]
        if count < len(self.doubts) and (others or not self._one_pair()):
            return [
                _left(one, ids, f"{count} jobs at the API may be one of {len(self.doubts)} in doubt") for one in mine
            ]
        fitting = self._fit()
        if fitting is None:
            return [_left(one, ids, "the times of the jobs at the API fit no assignment") for one in mine]
        return self._adopt(mine, fitting)

    def _why_not_now(self, mine: Sequence[SubmissionRow]) -> str:
        """Why the number of candidates says nothing: it is not known how many there are."""
        if any(one.state == "sending" for one in self.doubts if one not in mine):
            return "another manifest is sending in the same workflow"
        if self.listing.incomplete:
            return (
                f"the API's list of jobs may be incomplete or outdated ({escape_unprintable(self.listing.incomplete)})"
            )
        if any(_is_of_before(one, self.listing) for one in self.doubts):
            return "the API's list of jobs is from before it was sent"
        return ""

    def _one_pair(self) -> bool:
        return len({one.pair for one in [*self.doubts, *self.found]}) == 1

    def _adopt(self, mine: Sequence[SubmissionRow], fitting: Mapping[int, JobObject]) -> list[Finding]:
        """Give each doubt the job that fits it; what fits a send that was given another's goes to whoever has none."""
        given = {one.id: fitting[one.id] for one in self.doubts if fitting.get(one.id) in self.candidates}
        over = [job for job in self._in_order(self.candidates) if job not in given.values()]
        given |= dict(zip((one.id for one in self.doubts if one.id not in given), over, strict=False))
        guesses = () if self._one_pair() else tuple(job.id for job in self._in_order(self._jobs()))
        findings: list[Finding] = []
        for one in mine:
            job = given.get(one.id)
            if job is None:
                findings.append(_left(one, (), "its like were found, and it was not"))
            else:
                created = Created(job.id, b"", one.attempts, one.claimed_at, True, not guesses, guesses)
                findings.append(Finding(one, created, "found"))
        return findings

    def _absent(self, doubt: SubmissionRow, *, whole: bool, settled: datetime) -> Finding:
        ids = tuple(job.id for job in self.near)
        if not whole:
            return _left(doubt, ids, "the API's list of jobs can't be relied on to be complete")
        if ids:
            return _left(doubt, ids, f"{len(ids)} at the API may be it, if this machine's or its clock was wrong")
        if self.listing.date is not None and self.listing.date < self.windows[doubt.id].sent:
            return _left(doubt, (), "the API's list of jobs may be from before it was sent")
        last = max(self.windows[one.id].sent for one in [doubt, *self.found])
        if last > settled:
            until = self.windows[doubt.id].end - _SLACK + (last - self.windows[doubt.id].sent)
            return _left(doubt, (), f"not at the API so far; a slow server may create it until {until:%H:%M:%S} UTC")
        error = ErrorInfo("not_found", f"was in doubt ({describe_doubt(doubt)}), and is not among the workflow's jobs")
        return Finding(doubt, NotCreated(error, doubt.attempts, doubt.claimed_at), "not found")

    def _jobs(self) -> list[JobObject]:
        """The candidates, and the jobs that were found earlier, as far as they are listed."""
        ids = {one.job_id for one in self.found}
        return [*self.candidates, *(job for job in self.listing.jobs if job.id in ids)]

    def _in_order(self, jobs: Sequence[JobObject]) -> list[JobObject]:
        far = datetime.max.replace(tzinfo=UTC)
        return sorted(jobs, key=lambda job: (self.listing.created_at(job) or far, job.id))

    def _fit(self) -> dict[int, JobObject] | None:
        """A send for each job whose time fits, as greedy matching of points to intervals finds if there is one."""
        left = sorted([*self.doubts, *self.found], key=lambda one: self.windows[one.id].end)
        fitting: dict[int, JobObject] = {}
        for job in self._in_order(self._jobs()):
            able = [one for one in left if self.windows[one.id].contains(self.listing.created_at(job))]
            if not able:
                return None
            fitting[able[0].id] = job
            left.remove(able[0])
        return fitting


def _left(doubt: SubmissionRow, candidates: tuple[str, ...], why: str) -> Finding:
    error = doubt.error or ErrorInfo("interrupted", "the process ended while it was being sent")
    return Finding(doubt, InDoubt(error, doubt.attempts, doubt.claimed_at, candidates), why)


def describe_doubt(doubt: SubmissionRow) -> str:
    """Why a submission is in doubt, for a person."""
    return doubt.error.message if doubt.error else "the process ended while it was being sent"


def _by_us(job: JobObject, creators: Collection[str]) -> bool:
    return not creators or job.created_by is None or job.created_by in creators


def _overlapping(sends: Sequence[SubmissionRow], windows: Mapping[int, Window]) -> Iterator[list[SubmissionRow]]:
    """Groups of sends whose windows overlap: a job may be of any of one group, and of no two groups."""
    group: list[SubmissionRow] = []
    end = datetime.min.replace(tzinfo=UTC)
    for send in sorted(sends, key=lambda one: windows[one.id].start):
        if group and windows[send.id].start > end:
            yield group
            group = []
        group.append(send)
        end = max(end, windows[send.id].end)
    if group:
        yield group


def _shows_all(
    listing: Listing,
    held: AbstractSet[str | None],
    unsettled: Sequence[SubmissionRow],
    settle: timedelta,
    width: timedelta,
) -> bool:
    """Whether a job that is not listed is not there.

    The list must show every job that the ledger knows. One that is as long as a page may be cut off: then it must
    show that it begins with the newest, and reach back before the first doubt, by as much as a clock may be wrong.
    """
    if not held <= {job.id for job in listing.jobs}:
        return False
    if not listing.jobs or len(listing.jobs) % _PAGE:
        return True
    times = [listing.created_at(job) for job in listing.jobs]
    first = min(Window.of_doubt(one, settle).start for one in unsettled)
    known = [time for time in times if time is not None]
    newest_first = len(known) == len(times) and known == sorted(known, reverse=True) and known[0] != known[-1]
    return newest_first and known[-1] < first - width


@dataclass(frozen=True, slots=True)
class Reconciler:
    """How look-ups are made: where, through what, by whom, and with what patience (`timeout` in seconds)."""

    ledger: Ledger
    reader: JobReader
    api: str
    decided_by: str
    settle: timedelta = DEFAULT_SETTLE
    timeout: float = 30.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def look_up(self, doubts: Sequence[SubmissionRow]) -> list[Finding]:
        """Look once for each doubt, settle in the ledger what is certain, and say what was found of each.

        The locks of the doubts' manifests must be held.
        """
        findings: list[Finding] = []
        creators: dict[str, set[str]] = {}  # asked once a run: that reads all that the run sent
        for workflow_id, group in groupby(sorted(doubts, key=lambda one: one.workflow_id), lambda one: one.workflow_id):
            findings += self._in_workflow(workflow_id, list(group), creators)
        self._keep(findings)
        return findings

    def _in_workflow(
        self, workflow_id: str, doubts: list[SubmissionRow], creators: dict[str, set[str]]
    ) -> list[Finding]:
        listing = self._list(workflow_id)
        if isinstance(listing, str):
            return [_left(one, one.candidates, listing) for one in doubts]
        standings = self.ledger.submissions_by_workflow(self.api, workflow_id)
        for run_id in {one.run_id for one in standings} - creators.keys():
            creators[run_id] = self.ledger.creators(run_id)
        findings = classify_doubts(
            ours={one.id for one in doubts},
            unsettled=[one for one in standings if one.state in ("in_doubt", "sending")],
            known=[one for one in standings if one.job_id is not None],
            listing=listing,
            taken=self.ledger.ids_in_use(self.api, [job.id for job in listing.jobs]),
            creators=creators,
            now=self.now(),
            settle=self.settle,
        )
        return [self._with_body(finding, listing) for finding in findings]

    def _list(self, workflow_id: str) -> Listing | str:
        """The workflow's jobs, or why they can't be known."""
        asked = self.now()
        answer = self.reader.list_jobs(workflow_id, Exchange(self.timeout))
        if not isinstance(answer, Response):
            return f"the API could not be asked: {answer.detail}"
        found = parse_job_list(answer.body) if answer.status == 200 else None  # noqa: PLR2004 - a status is its own name
        if found is None:
            return f"the API's list of jobs could not be read (HTTP {answer.status})"
        incomplete = found.find_incompleteness(answer.headers)
        return Listing(found.jobs, _ahead(answer, asked, self.now()), incomplete, answer.date)

    def _with_body(self, finding: Finding, listing: Listing) -> Finding:
        """A found job whole, as the API tells it; as it was listed when that fails: it exists all the same."""
        if not isinstance(finding.outcome, Created):
            return finding
        job_id = finding.outcome.job_id
        answer = self.reader.get_job(finding.doubt.workflow_id, job_id, Exchange(self.timeout))
        if isinstance(answer, Response) and answer.status == 200:  # noqa: PLR2004 - a status is its own name
            job = parse_job(answer.body)
            if job is not None and job.id == job_id:
                return replace(finding, outcome=replace(finding.outcome, body=answer.body))
        members = next(job.members for job in listing.jobs if job.id == job_id)
        return replace(finding, outcome=replace(finding.outcome, body=encode_job(members)))

    def _keep(self, findings: Sequence[Finding]) -> None:
        now = self.now()
        self.ledger.resolve(
            [
                Decision(one.doubt.id, one.outcome, one.doubt.ended_at, self.decided_by, now, one.reason, _detail(one))
                for one in findings
                if not isinstance(one.outcome, InDoubt)
            ]
        )
        self.ledger.save_candidates(
            {one.doubt.id: one.outcome.candidates for one in findings if isinstance(one.outcome, InDoubt)}
        )


def _detail(finding: Finding) -> str:
    match finding.outcome:
        case Created(job_id=job_id):
            return job_id
        case NotCreated(error=error) | InDoubt(error=error):
            return error.message


def _was_right(doubt: SubmissionRow, listing: Listing) -> bool:
    """Whether the server's answer to a send tells that our clock was then as it is now."""
    date = parse_http_date((doubt.error and doubt.error.date) or "")
    return date is not None and doubt.ended_at is not None and abs(date - doubt.ended_at - listing.ahead) <= _SLACK


def _calibrated(known: Sequence[SubmissionRow], listing: Listing) -> list[datetime]:
    """When jobs were sent whose answers came, in order, if the list says of each that it was created meanwhile.

    Empty when it says another time of any: then the times in it are of a clock that is not ours and not `Date`'s.
    """
    told = {job.id: listing.created_at(job) for job in listing.jobs}
    sure = [one for one in known if not one.recovered and one.ended_at is not None and one.job_id in told]
    for one in sure:
        time = told[one.job_id or ""]
        if time is None or not Window.of_doubt(one, timedelta(0)).contains(time):
            return []
    return sorted(one.claimed_at for one in sure)


def _width(doubt: SubmissionRow, calibrated: Sequence[datetime], listing: Listing) -> timedelta:
    """How far from its window the job of a doubt may say that it was created.

    That is a day, as any clock may be wrong. It is less where the doubt's own answer tells that our clock was right,
    and jobs whose answers came tell that the server's times are, one at least of those being sent at about that time.
    """
    at = bisect_left(calibrated, doubt.claimed_at - _ABOUT_THEN)
    beside = at < len(calibrated) and calibrated[at] <= doubt.claimed_at + _ABOUT_THEN
    return _APART if beside and _was_right(doubt, listing) else _ASTRAY


def _is_of_before(doubt: SubmissionRow, listing: Listing) -> bool:
    """Whether the list is older than the answer that left the doubt, by the server's own clock: it came of a cache."""
    date = parse_http_date((doubt.error and doubt.error.date) or "")
    return date is not None and listing.date is not None and listing.date < date - _SLACK


def _ahead(answer: Response, asked: datetime, received: datetime) -> timedelta:
    """How far the server's clock is ahead of ours; 0 when it does not say."""
    date = answer.date
    return timedelta(0) if date is None else date - (asked + (received - asked) / 2)
