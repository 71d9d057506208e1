"""The engine: one thread decides what is sent and takes what came back; workers only send.

The thread that calls `Engine.run` owns the journal and every decision. It claims a job in the journal before its
request can leave, hands it to a worker, and takes the outcome back through a queue; outcomes are decided in the
journal before anyone is told of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from signal import Signals
from typing import Protocol, assert_never

from runner.client.exchange import Exchange
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.backoff import Backoff, Pauses
from runner.core.errors import RefusedError, ThreadLimitError
from runner.core.models import Created, ErrorInfo, InDoubt, NotCreated, Outcome, RunState, Skipped, Submission
from runner.core.rate_limit import RateLimiter
from runner.core.settings import Limits
from runner.ledger.journal import Claim, JobIdTakenError, Journal, RecordedOutcome
from runner.submission.budget import Budget
from runner.submission.queue import FailureStreak, QueuedJob, SubmissionQueue
from runner.submission.verdict import Accepted, Ambiguous, NotSent, Rejected, Throttled, classify, known_id_error
from runner.submission.workers import InFlightRequest, Sender, WorkerEvent, Workers

GRACE_PERIOD = 4.0  # seconds for what is in flight, once interrupted: CI kills 10 s after it has asked
_LAST_WORDS = 0.5  # seconds for sends that were cut to come back and say how far they got
_LONGEST_WAIT = 0.2  # seconds
_QUICK = 0.5  # seconds: a server that answers within this gets claims ahead of its workers


class Observer(Protocol):
    """Who is told how the run goes, in the thread that runs the engine."""

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        """A job's outcome is on record."""

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:
        """A job that was certainly not sent is tried again in so many seconds."""

    def pausing(self, error: ErrorInfo, seconds: float) -> None:
        """The server asked for a pause: nothing is sent for so many seconds."""

    def stopping(self, detail: str) -> None:
        """Nothing more is sent; what is in flight is waited for."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """How a run ended.

    `why` is for a person and `reason` a word for it; both are empty when it completed. `signum` is set when it was
    interrupted, and `error` when it was stopped as its record could not be written. `unrecorded` are the outcomes that
    are known and not on record, and `unreleased` what is claimed on record, and certainly was not sent.
    """

    state: RunState
    detail: str = ""
    reason: str = ""
    signum: int | None = None
    error: RefusedError | None = None
    unsaved: tuple[RecordedOutcome, ...] = ()
    unreleased: tuple[Submission, ...] = ()


class Engine:
    """Sends the submissions of one run. `run` once; `interrupt` from a signal handler or another thread."""

    def __init__(  # noqa: PLR0913 - all that tests drive is passed in
        self,
        submissions: Sequence[Submission],
        sender: Sender,
        journal: Journal,
        limits: Limits,
        observer: Observer,
        *,
        budget: Budget | None = None,
        rate_limiter: RateLimiter | None = None,
        backoff: Backoff | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`pace` is shared with what was asked before; without a `budget` nothing is too dear.

        `now` tells the times for the record.
        """
        self._journal = journal
        self._limits = limits
        self._observer = observer
        self._bearer = sender.bearer
        self._backoff = backoff or Backoff()
        self._clock = time.monotonic
        self._now = now

        self._backlog = SubmissionQueue(submissions)
        self._workers = Workers(sender, min(limits.concurrency, len(submissions)))
        self._flights: dict[int, InFlightRequest] = {}

        self._budget = budget or Budget()
        self._pace = rate_limiter or RateLimiter(limits.parsed_rate)
        self._pauses = Pauses(limits.max_pause)
        self._throttles = 0  # in a row
        self._trouble = FailureStreak(limits.stop_after)
        self._quick = False
        self._decided: list[RecordedOutcome] = []  # and not yet on record
        self._released: list[Submission] = []  # likewise
        self._end = EngineResult("completed")
        self._cut_at: float | None = None  # when the grace of an interrupted run is over
        self._leave_at: float | None = None  # when sends that were cut are no longer waited for

    def interrupt(self, signum: int) -> None:
        """End the run soon: nothing more is dispatched, what is in flight has a grace; a second call ends that.

        Safe in a signal handler: SimpleQueue.put is reentrant.
        """
        self._workers.signal(signum)

    def run(self) -> EngineResult:
        """Send everything, decide everything, and say how it ended."""
        with self._workers:
            if self._backlog and not self._workers.count:
                self._stop(ThreadLimitError().message)
            self._take(self._workers.arrivals(0))  # a signal may have come before anything was sent
            self._commit(self._next_flights())
            while self._flights or (self._backlog and self._going):
                self._take(self._workers.arrivals(self._patience()))
                self._end_grace()
                self._commit(self._next_flights())
        self._tell_rest()
        return replace(self._end, unsaved=tuple(self._decided), unreleased=tuple(self._released))

    @property
    def _going(self) -> bool:
        return self._end.state == "completed"

    # What is sent.

    def _next_flights(self) -> list[InFlightRequest]:
        now = self._clock()
        flights: list[InFlightRequest] = []
        self._stop_if_spent(now)
        while self._next_send(now, len(flights)) == now:
            waiting = self._backlog.take(now)
            self._budget.reserve(waiting.submission)
            exchange = Exchange(self._limits.timeout, slot=self._pace.acquire(now))
            flights.append(InFlightRequest(waiting, exchange, self._now()))
        return flights

    def _commit(self, flights: Sequence[InFlightRequest]) -> None:
        """Put on record what was decided and what is sent next; only then tell of the one and send the other."""
        decided, released = self._decided, self._released
        if not (decided or released or flights):
            return
        # Twice: a claim ahead may wait for a whole exchange of another before its own begins.
        longest = 2 * self._limits.timeout
        claims = [Claim(one.submission, one.attempt, one.claimed_at, longest) for one in flights]
        try:
            self._journal.commit(decided, released, claims)
        except JobIdTakenError as error:  # another manifest's run was quicker with the same id
            self._put_back(flights, claimed=False)
            self._decided = [_unless_held(one, error.job_ids) for one in decided]
            self._commit([])
            return
        except RefusedError as error:
            self._put_back(flights, claimed=False)
            self._stop_unrecorded(error)
            return
        self._decided, self._released = [], []
        for one in decided:
            if one.final:
                self._observer.decided(one.submission, one.outcome)
        for flight in flights:
            self._flights[id(flight)] = flight
            self._workers.hand(flight)

    def _next_send(self, now: float, more: int = 0) -> float | None:
        """When the next send may go: `now`, later, or None when that hangs on something that comes back."""
        room = self._room() - more
        if not self._going or room <= 0:
            return None
        # A job that waits to be tried again keeps its place: while the API cannot be reached, as many jobs are tried
        # as there are workers, and not every job of the manifest once.
        due = self._backlog.due(now, fresh=room > self._backlog.count_waiting(now))
        if due is None or not self._affords_next(now):
            return None
        return max(now, due, self._pauses.until, now + self._pace.delay(now))

    def _affords_next(self, now: float) -> bool:
        waiting = self._backlog.next(now)
        return waiting is None or self._budget.allows(waiting.submission)

    def _stop_if_spent(self, now: float) -> None:
        """Stop when the next job does not fit the budget, and nothing is in flight that could cost less than it may."""
        waiting = self._backlog.next(now)
        if waiting is not None and not self._flights and not self._budget.allows(waiting.submission):
            self._stop(self._budget.describe_refusal(waiting.submission), reason="budget")

    def _room(self) -> int:
        """How many more may be claimed.

        A server that is quick gets claims ahead, so that no worker waits for a commit; one that is slow does not, as a
        claim is to be sent within a second. Nor is there any under a budget: a cost that was told counts before the
        next job goes.
        """
        ahead = 2 if self._quick and self._limits.rate is None and self._budget.limit is None else 1
        return ahead * self._workers.count - len(self._flights)

    # What came back.

    def _patience(self) -> float:
        """The seconds until there is something to do even if nothing comes back.

        Never long: Python runs a signal handler between two steps of the main thread, and a signal that comes just
        before a wait would be seen when the wait is over.
        """
        now = self._clock()
        times = [time for time in (self._next_send(now), self._cut_at, self._leave_at) if time is not None]
        return min(_LONGEST_WAIT, max(0.0, min(times) - now)) if times else _LONGEST_WAIT

    def _take(self, arrivals: Sequence[WorkerEvent]) -> None:
        held = self._held(arrivals)
        for arrival in arrivals:
            if isinstance(arrival, int):
                self._interrupted(arrival)
                continue
            flight, happening = arrival
            if self._flights.pop(id(flight), None) is not None:
                self._settle(flight, happening, held)
            self._workers.settled(happening)

    def _held(self, arrivals: Sequence[WorkerEvent]) -> set[str]:
        """Those of the job ids that came back which are taken: by what is on record, or came back just before.

        The record is asked once for all of them: each question costs a turn of all threads.
        """
        held = {one.outcome.job_id for one in self._decided if isinstance(one.outcome, Created)}
        told = [one[1].job for one in arrivals if not isinstance(one, int) and isinstance(one[1], Response)]
        ids = [job.id for job in told if job is not None]
        try:
            return held | self._journal.ids_in_use(ids) if ids else held
        except RefusedError as error:  # what came back is told all the same
            self._stop_unrecorded(error)
            return held

    def _settle(self, flight: InFlightRequest, happening: ExchangeResult, held: set[str]) -> None:
        now = self._clock()
        flight.exchange.slot.used_at = flight.exchange.written_at or now
        self._quick = now - (flight.exchange.started_at or now) < _QUICK
        verdict = classify(happening, held.__contains__, bearer=self._bearer)
        if isinstance(verdict, Throttled):
            self._throttled(flight, verdict, now)
            return
        self._throttles = 0
        if isinstance(verdict, NotSent):
            self._not_sent(flight, happening, verdict, now)
            return
        if isinstance(verdict, Accepted):
            held.add(verdict.job_id)
        self._decide(flight, _outcome(flight, verdict))
        if not isinstance(verdict, Accepted) and verdict.stop:
            self._stop(verdict.error.message)

    def _decide(self, flight: InFlightRequest, outcome: Created | NotCreated | InDoubt) -> None:
        self._budget.settle(flight.submission, outcome)
        self._decided.append(RecordedOutcome(flight.submission, outcome, self._now()))
        if self._trouble.add(outcome):
            last = "" if isinstance(outcome, Created) else f" (last: {outcome.error.message})"
            self._stop(f"{self._trouble.kind}, {self._trouble.count} times in a row{last}")

    def _throttled(self, flight: InFlightRequest, verdict: Throttled, now: float) -> None:
        self._put_back([flight])
        self._recall()
        fresh = now >= self._pauses.until
        if fresh:  # the others of one burst say the same: the wait does not grow for each
            self._throttles += 1
        # Never less than the backoff: a server that says `Retry-After: 0` again and again is not hammered.
        seconds = max(verdict.retry_after or 0.0, self._backoff.delay(self._throttles))
        if not self._pauses.extend(now, seconds):
            self._stop(f"throttled: the server asks for longer pauses than this run makes ({verdict.error.message})")
        elif fresh:
            self._observer.pausing(verdict.error, seconds)

    def _not_sent(self, flight: InFlightRequest, happening: ExchangeResult, verdict: NotSent, now: float) -> None:
        if isinstance(happening, NoResponse) and happening.cause == "interrupted":
            self._put_back([flight])
            return
        outcome = NotCreated(verdict.error, flight.attempt, flight.claimed_at)
        if not self._going or flight.attempt >= self._limits.attempts:
            self._decide(flight, outcome)
            return
        self._budget.settle(flight.submission, outcome)
        # On record as failed until it is claimed again: whatever happens meanwhile, it was certainly not created.
        self._decided.append(RecordedOutcome(flight.submission, outcome, self._now(), final=False))
        seconds = self._backoff.delay(flight.attempt)
        self._backlog.add_retry(QueuedJob(now + seconds, flight.attempt + 1, flight.submission, outcome))
        self._observer.retrying(flight.submission, verdict.error, seconds)

    # How it ends.

    def _stop(self, why: str, reason: str = "stopped") -> None:
        if self._going:
            self._end = EngineResult("stopped", why, reason)
            self._recall()
            self._observer.stopping(why)

    def _interrupted(self, signum: int) -> None:
        first = self._cut_at is None and self._leave_at is None
        self._cut_at = self._clock() + (GRACE_PERIOD if first else 0.0)
        if first:
            why = f"interrupted by {Signals(signum).name}"
            self._end = EngineResult("interrupted", why, "interrupted", signum, self._end.error)
            self._recall()
            self._observer.stopping(self._end.detail)

    def _end_grace(self) -> None:
        now = self._clock()
        if self._cut_at is not None and self._cut_at <= now:
            self._cut_at, self._leave_at = None, now + _LAST_WORDS
            for flight in self._flights.values():
                flight.exchange.abort("interrupted")
        elif self._leave_at is not None and self._leave_at <= now:
            # A worker that is stuck (resolving a name, say) can't write any more: what it has done so far is the truth.
            self._workers.abandoned = True
            while self._flights:
                _, flight = self._flights.popitem()
                self._settle(flight, _abandoned(flight.exchange), set())

    def _stop_unrecorded(self, error: RefusedError) -> None:
        """Nothing more is sent without a record. What comes back meanwhile is tried to be recorded each time."""
        self._stop(error.message)
        self._end = replace(self._end, error=error)

    def _recall(self) -> None:
        """Take back what no worker has begun."""
        idle = self._workers.recall()
        for flight in idle:
            del self._flights[id(flight)]
        self._put_back(idle)

    def _put_back(self, flights: Sequence[InFlightRequest], *, claimed: bool = True) -> None:
        """Return jobs that were certainly not created to the head of the backlog, their attempt not counted."""
        for flight in reversed(flights):
            self._budget.settle(flight.submission, None)
            flight.exchange.slot.used_at = flight.exchange.slot.used_at or self._clock()
            self._backlog.put_back(flight.waiting)
            if claimed and flight.waiting.outcome is not None:  # its earlier attempt failed, and that still holds
                self._decided.append(
                    RecordedOutcome(flight.submission, flight.waiting.outcome, self._now(), final=False)
                )
            elif claimed:
                self._released.append(flight.submission)

    def _tell_rest(self) -> None:
        """Tell of what was not sent, or not again, because the run ended before its turn."""
        skipped = Skipped(self._end.reason, self._end.detail)
        for waiting in self._backlog.drain():
            self._observer.decided(waiting.submission, waiting.outcome or skipped)


def _unless_held(one: RecordedOutcome, job_ids: Collection[str]) -> RecordedOutcome:
    """What was decided; a job whose id is another submission's is in doubt."""
    outcome = one.outcome
    if not isinstance(outcome, Created) or outcome.job_id not in job_ids:
        return one
    return replace(one, outcome=InDoubt(known_id_error(outcome.job_id), outcome.attempts, outcome.sent_at))


def _outcome(flight: InFlightRequest, verdict: Accepted | Rejected | Ambiguous) -> Created | NotCreated | InDoubt:
    match verdict:
        case Accepted(job_id, body):
            return Created(job_id, body, flight.attempt, flight.claimed_at)
        case Rejected(error):
            return NotCreated(error, flight.attempt, flight.claimed_at)
        case Ambiguous(error):
            return InDoubt(error, flight.attempt, flight.claimed_at)
        case _:
            assert_never(verdict)


def _abandoned(exchange: Exchange) -> NoResponse:
    written = exchange.abort("interrupted")
    return NoResponse("interrupted", written, "the run was interrupted before an answer came")
