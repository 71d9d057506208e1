"""The look-up: what became of jobs in doubt, by what the API lists. It never guesses, and never sends.

The rules are DESIGN, section 4. `judge` is pure; `look` asks the API and settles in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import Protocol

from runner import jobobject
from runner.exchange import Exchange
from runner.jobobject import JobObject
from runner.ledger.rows import Decision, Standing
from runner.ledger.store import Ledger
from runner.model import Created, ErrorInfo, Failed, InDoubt
from runner.verdict import Answer, Happening

SETTLE = timedelta(minutes=15)
_SLACK = timedelta(seconds=10)  # `Date` and `created_at` are rounded, and the clocks drift while a run goes
_PAGE = 50  # where the API cuts its other lists off


class Reader(Protocol):
    """What a look-up needs of the API: nothing that creates."""

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> Happening:
        """The jobs of a workflow."""

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> Happening:
        """One job, whole."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A workflow's jobs as the API listed them, and how far its clock is ahead of ours."""

    jobs: tuple[JobObject, ...]
    ahead: timedelta

    def created_at(self, job: JobObject) -> datetime | None:
        """When a job was created by our clock; None when the API does not say."""
        return None if job.created_at is None else job.created_at - self.ahead


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look-up makes of one doubt."""

    doubt: Standing
    outcome: Created | Failed | InDoubt
    what: str


@dataclass(frozen=True, slots=True)
class Window:
    """When a doubtful job was created, if it was: from its claim to when a slow backend would be done with it."""

    start: datetime
    sent: datetime  # when the exchange was over, at the latest
    end: datetime

    @classmethod
    def of(cls, doubt: Standing, settle: timedelta) -> Window:
        """The window of a doubt."""
        sent = doubt.ended_at or doubt.claimed_at + timedelta(seconds=doubt.timeout)
        return cls(doubt.claimed_at - _SLACK, sent, sent + settle + _SLACK)

    def holds(self, moment: datetime | None) -> bool:
        """Whether a job of that time may be the one; one of unknown time may."""
        return moment is None or self.start <= moment <= self.end


def judge(
    ours: Collection[int],
    unsettled: Sequence[Standing],
    known: Sequence[Standing],
    listing: Listing,
    taken: Collection[str],
    creators: Mapping[str, Collection[str]],
    now: datetime,
    settle: timedelta = SETTLE,
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
    whole = _shows_all(listing, {one.job_id for one in known}, unsettled, settle)
    apart = all(listing.created_at(job) is not None for job in free)  # else any doubt's window may hold it
    findings: list[Finding] = []
    for group in _overlapping(unsettled, settle) if apart else [list(unsettled)]:
        mine = [one for one in group if one.id in ours]
        if mine:
            candidates = [job for job in free if _may_be_of(job, group, listing, creators, settle)]
            findings += _settle_group(mine, group, candidates, listing, known, whole=whole, now=now, settle=settle)
    return findings


def _may_be_of(
    job: JobObject,
    group: Sequence[Standing],
    listing: Listing,
    creators: Mapping[str, Collection[str]],
    settle: timedelta,
) -> bool:
    moment = listing.created_at(job)
    return any(Window.of(one, settle).holds(moment) and _by_us(job, creators.get(one.run_id, ())) for one in group)


def _settle_group(
    mine: Sequence[Standing],
    group: Sequence[Standing],
    candidates: Sequence[JobObject],
    listing: Listing,
    known: Sequence[Standing],
    *,
    whole: bool,
    now: datetime,
    settle: timedelta,
) -> list[Finding]:
    others = [one for one in group if one not in mine]
    ids = tuple(job.id for job in candidates)
    if any(one.state == "sending" for one in others):
        return [_left(one, ids, "another manifest is sending in the same workflow") for one in mine]
    if not candidates:
        return [_absent(one, whole=whole, now=now, settle=settle) for one in mine]
    one_pair = len({one.pair for one in group}) == 1
    if len(candidates) > len(group):
        return [_left(one, ids, f"{len(ids)} jobs at the API may be it") for one in mine]
    if len(candidates) < len(group) and not (one_pair and not others):
        return [_left(one, ids, f"{len(ids)} jobs at the API may be one of {len(group)} in doubt") for one in mine]
    guesses = () if one_pair else ids
    return _adopt(mine, group, candidates, listing, settle, lambda job_id: guesses or _guessed(job_id, known))


def _adopt(
    mine: Sequence[Standing],
    group: Sequence[Standing],
    candidates: Sequence[JobObject],
    listing: Listing,
    settle: timedelta,
    guesses: Callable[[str], tuple[str, ...]],
) -> list[Finding]:
    ids = tuple(job.id for job in candidates)
    matched = _match(group, candidates, listing, settle)
    if matched is None:
        return [_left(one, ids, "the times of the jobs at the API fit no assignment") for one in mine]
    findings: list[Finding] = []
    for one in mine:
        job = matched.get(one.id)
        if job is None:
            findings.append(_left(one, (), "its like were found, and it was not"))
        else:
            among = guesses(job.id)
            created = Created(job.id, b"", one.attempts, one.claimed_at, True, not among, among)
            findings.append(Finding(one, created, "found"))
    return findings


def _guessed(job_id: str, known: Sequence[Standing]) -> tuple[str, ...]:
    """The jobs among which this one was left over when another doubt was given one of them: it is a guess as well."""
    return next((one.candidates for one in known if not one.assigned and job_id in one.candidates), ())


def _match(
    group: Sequence[Standing], candidates: Sequence[JobObject], listing: Listing, settle: timedelta
) -> dict[int, JobObject] | None:
    """A doubt for each candidate whose time fits, as greedy matching of points to intervals finds if there is one."""
    far = datetime.max.replace(tzinfo=UTC)
    left = sorted(group, key=lambda one: Window.of(one, settle).end)
    matched: dict[int, JobObject] = {}
    for job in sorted(candidates, key=lambda job: listing.created_at(job) or far):
        fitting = [one for one in left if Window.of(one, settle).holds(listing.created_at(job))]
        if not fitting:
            return None
        matched[fitting[0].id] = job
        left.remove(fitting[0])
    return matched


def _absent(doubt: Standing, *, whole: bool, now: datetime, settle: timedelta) -> Finding:
    if not whole:
        return _left(doubt, (), "the API's list of jobs can't be relied on to be complete")
    settled = Window.of(doubt, settle).sent + settle
    if now < settled:
        return _left(doubt, (), f"not at the API so far; a slow server may create it until {settled:%H:%M:%S} UTC")
    error = ErrorInfo("not_found", f"was in doubt ({doubt_words(doubt)}), and is not among the workflow's jobs")
    return Finding(doubt, Failed(error, doubt.attempts, doubt.claimed_at), "not found")


def _left(doubt: Standing, candidates: tuple[str, ...], why: str) -> Finding:
    error = doubt.error or ErrorInfo("interrupted", "the process ended while it was being sent")
    return Finding(doubt, InDoubt(error, doubt.attempts, doubt.claimed_at, candidates), why)


def doubt_words(doubt: Standing) -> str:
    """Why a submission is in doubt, for a person."""
    return doubt.error.message if doubt.error else "the process ended while it was being sent"


def _by_us(job: JobObject, creators: Collection[str]) -> bool:
    return not creators or job.created_by is None or job.created_by in creators


def _overlapping(doubts: Sequence[Standing], settle: timedelta) -> Iterator[list[Standing]]:
    """Groups of doubts whose windows overlap: a job may be of any of one group, and of no two groups."""
    group: list[Standing] = []
    end = datetime.min.replace(tzinfo=UTC)
    for doubt in sorted(doubts, key=lambda one: one.claimed_at):
        window = Window.of(doubt, settle)
        if group and window.start > end:
            yield group
            group = []
        group.append(doubt)
        end = max(end, window.end) if len(group) > 1 else window.end
    if group:
        yield group


def _shows_all(
    listing: Listing, held: AbstractSet[str | None], unsettled: Sequence[Standing], settle: timedelta
) -> bool:
    """Whether a job that is not listed is not there.

    The list must show every job that the ledger knows. One that is as long as a page may be cut off: then it must
    show that it begins with the newest, and reach back before the first doubt.
    """
    if not held <= {job.id for job in listing.jobs}:
        return False
    if not listing.jobs or len(listing.jobs) % _PAGE:
        return True
    times = [listing.created_at(job) for job in listing.jobs]
    first = min(Window.of(one, settle).start for one in unsettled)
    known = [time for time in times if time is not None]
    newest_first = len(known) == len(times) and known == sorted(known, reverse=True) and known[0] != known[-1]
    return newest_first and known[-1] < first


@dataclass(frozen=True, slots=True)
class Look:
    """How look-ups are made: where, through what, by whom, and with what patience (`timeout` in seconds)."""

    ledger: Ledger
    reader: Reader
    api: str
    decided_by: str
    settle: timedelta = SETTLE
    timeout: float = 30.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def at(self, doubts: Sequence[Standing]) -> list[Finding]:
        """Look once for each doubt, settle in the ledger what is certain, and say what was found of each.

        The locks of the doubts' manifests must be held.
        """
        findings: list[Finding] = []
        for workflow_id, group in groupby(sorted(doubts, key=lambda one: one.workflow_id), lambda one: one.workflow_id):
            findings += self._in_workflow(workflow_id, list(group))
        self._keep(findings)
        return findings

    def _in_workflow(self, workflow_id: str, doubts: list[Standing]) -> list[Finding]:
        listing = self._list(workflow_id)
        if isinstance(listing, str):
            return [_left(one, one.candidates, listing) for one in doubts]
        standings = self.ledger.of_workflow(self.api, workflow_id)
        findings = judge(
            ours={one.id for one in doubts},
            unsettled=[one for one in standings if one.state in ("in_doubt", "sending")],
            known=[one for one in standings if one.job_id is not None],
            listing=listing,
            taken={job.id for job in listing.jobs if self.ledger.holds(self.api, job.id)},
            creators={one.run_id: self.ledger.creators(one.run_id) for one in standings},
            now=self.now(),
            settle=self.settle,
        )
        return [self._with_body(finding, listing) for finding in findings]

    def _list(self, workflow_id: str) -> Listing | str:
        """The workflow's jobs, or why they can't be known."""
        asked = self.now()
        answer = self.reader.list_jobs(workflow_id, Exchange(self.timeout))
        if not isinstance(answer, Answer):
            return f"the API could not be asked: {answer.detail}"
        jobs = jobobject.listed(answer.body) if answer.status == 200 else None  # noqa: PLR2004 - a status is its own name
        if jobs is None:
            return f"the API's list of jobs could not be read (HTTP {answer.status})"
        return Listing(jobs, _ahead(answer, asked))

    def _with_body(self, finding: Finding, listing: Listing) -> Finding:
        """A found job whole, as the API tells it; as it was listed when that fails: it exists all the same."""
        if not isinstance(finding.outcome, Created):
            return finding
        job_id = finding.outcome.job_id
        answer = self.reader.get_job(finding.doubt.workflow_id, job_id, Exchange(self.timeout))
        if isinstance(answer, Answer) and answer.status == 200:  # noqa: PLR2004 - a status is its own name
            job = jobobject.read(answer.body)
            if job is not None and job.id == job_id:
                return replace(finding, outcome=replace(finding.outcome, body=answer.body))
        members = next(job.members for job in listing.jobs if job.id == job_id)
        return replace(finding, outcome=replace(finding.outcome, body=jobobject.encode(members)))

    def _keep(self, findings: Sequence[Finding]) -> None:
        now = self.now()
        self.ledger.settle(
            [
                Decision(one.doubt.id, one.outcome, one.doubt.ended_at, self.decided_by, now, one.what, _detail(one))
                for one in findings
                if not isinstance(one.outcome, InDoubt)
            ]
        )
        self.ledger.keep_candidates(
            {one.doubt.id: one.outcome.candidates for one in findings if isinstance(one.outcome, InDoubt)}
        )


def _detail(finding: Finding) -> str:
    match finding.outcome:
        case Created(job_id=job_id):
            return job_id
        case Failed(error=error) | InDoubt(error=error):
            return error.message


def _ahead(answer: Answer, asked: datetime) -> timedelta:
    """How far the server's clock is ahead of ours; 0 when it does not say."""
    try:
        date = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError, TypeError, IndexError):
        return timedelta(0)
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return date - (asked + (answer.received_at - asked) / 2)
