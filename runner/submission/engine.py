"""The engine: one thread decides what is sent and handles what comes back; workers only send.

The thread that calls `Engine.run` owns the journal. A job is claimed in the journal before its request can leave, and
its outcome is written to the journal before anyone is told of it.
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
from runner.ledger.journal import JobIdTakenError
from runner.ledger.rows import Claim, RecordedOutcome
from runner.submission.budget import Budget
from runner.submission.queue import FailureStreak, QueuedJob, SubmissionQueue
from runner.submission.verdict import Accepted, Ambiguous, NotSent, Rejected, Throttled, classify, known_id_error
from runner.submission.workers import InFlightRequest, Sender, WorkerEvent, Workers

GRACE_PERIOD = 4.0  # seconds for requests in flight after an interrupt: CI kills 10 s after it asks to stop
_ABORT_WAIT = 0.5  # seconds for aborted requests to return and report whether they were written
_MAX_WAIT = 0.2  # seconds
_FAST_RESPONSE = 0.5  # seconds: a server that responds within this gets claims ahead of free workers


class Journal(Protocol):
    """Where intents and outcomes are written. Called by one thread only."""

    def commit(
        self, outcomes: Sequence[RecordedOutcome], released: Sequence[Submission], claims: Sequence[Claim]
    ) -> None:
        """Write, in this order, outcomes, claimed submissions that were certainly not sent, and the next intents.

        All of it is durable when this returns, and none of it when it raises.

        Raises:
            JobIdTakenError: another manifest's run has taken job ids since `ids_in_use` was called.
            RefusedError: it cannot be written.
        """

    def ids_in_use(self, job_ids: Collection[str]) -> set[str]:
        """Those of some job ids that submissions at this API have."""


class Observer(Protocol):
    """Who is told about a run's progress, in the thread that runs the engine."""

    def decided(self, submission: Submission, outcome: Outcome) -> None:
        """A job has its outcome, which is in the journal."""

    def retrying(self, submission: Submission, error: ErrorInfo, seconds: float) -> None:
        """A job that was certainly not sent is retried after so many seconds."""

    def pausing(self, error: ErrorInfo, seconds: float) -> None:
        """The server asked for a pause: nothing is sent for so many seconds."""

    def stopping(self, detail: str) -> None:
        """Nothing more is sent; requests in flight are waited for."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """How a run ended.

    `reason` is one word for why it did not complete and `detail` the same for a person; empty if it did. `signum` is
    set if it was interrupted, and `error` if it was stopped because the journal cannot be written. `unsaved` are
    outcomes that are not in the journal, and `unreleased` what is claimed there and was certainly not sent.
    """

    state: RunState
    detail: str = ""
    reason: str = ""
    signum: int | None = None
    error: RefusedError | None = None
    unsaved: tuple[RecordedOutcome, ...] = ()
    unreleased: tuple[Submission, ...] = ()


class Engine:
    """Sends the submissions of one run. Call `run` once, and `interrupt` from a signal handler or another thread."""

    def __init__(  # noqa: PLR0913 - tests pass in all that they control
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
        """Without a `budget` there is no cost limit. `rate_limiter` may have counted earlier requests of the run.

        `now` returns the times for the journal.
        """
        self._journal = journal
        self._limits = limits
        self._observer = observer
        self._bearer = sender.bearer
        self._backoff = backoff or Backoff()
        self._clock = time.monotonic
        self._now = now

        self._queue = SubmissionQueue(submissions)
        self._workers = Workers(sender, min(limits.concurrency, len(submissions)))
        self._in_flight: dict[int, InFlightRequest] = {}
        self._outcomes: list[RecordedOutcome] = []  # for the next commit
        self._released: list[Submission] = []  # likewise

        self._budget = budget or Budget()
        self._rate_limiter = rate_limiter or RateLimiter(limits.parsed_rate)
        self._pauses = Pauses(limits.max_pause)
        self._pauses_in_a_row = 0
        self._streak = FailureStreak(limits.stop_after)
        self._server_is_fast = False

        self._result = EngineResult("completed")  # until something ends the run
        self._abort_at: float | None = None  # the end of an interrupted run's grace period
        self._abandon_at: float | None = None  # when aborted requests are no longer waited for

    def interrupt(self, signum: int) -> None:
        """Send nothing more, and end the run after a grace period for requests in flight; a second call ends that.

        Safe in a signal handler.
        """
        self._workers.signal(signum)

    def run(self) -> EngineResult:
        """Send all jobs, record their outcomes, and return how the run ended."""
        with self._workers:
            if self._queue and not self._workers.count:
                self._stop(ThreadLimitError().message)
            self._handle(self._workers.wait(0))  # a signal may have come before anything was sent
            self._commit(self._take_due_jobs())
            while self._in_flight or (self._queue and self._may_send):
                self._handle(self._workers.wait(self._idle_time()))
                self._end_grace_period()
                self._commit(self._take_due_jobs())
        self._report_unsent()
        return replace(self._result, unsaved=tuple(self._outcomes), unreleased=tuple(self._released))

    @property
    def _may_send(self) -> bool:
        return self._result.state == "completed"

    # Sending.

    def _take_due_jobs(self) -> list[InFlightRequest]:
        now = self._clock()
        queued = self._queue.peek(now)
        # With a request in flight, that one may yet cost less than its estimate.
        if queued is not None and not self._in_flight and not self._budget.allows(queued.submission):
            self._stop(self._budget.describe_refusal(queued.submission), reason="budget")
        requests: list[InFlightRequest] = []
        while self._next_send_at(now, len(requests)) == now:
            queued = self._queue.pop(now)
            self._budget.reserve(queued.submission)
            exchange = Exchange(self._limits.timeout, slot=self._rate_limiter.acquire(now))
            requests.append(InFlightRequest(queued, exchange, self._now()))
        return requests

    def _next_send_at(self, now: float, taken: int = 0) -> float | None:
        """When the next job may be sent: `now`, later, or None if that depends on requests in flight."""
        capacity = self._capacity() - taken
        if not self._may_send or capacity <= 0:
            return None
        # A retry keeps its place while it waits: while the API is unreachable, as many jobs are tried as there are
        # workers, and not every job of the manifest once.
        due = self._queue.next_due(now, include_new=capacity > self._queue.count_waiting(now))
        queued = self._queue.peek(now)
        if due is None or (queued is not None and not self._budget.allows(queued.submission)):
            return None
        return max(now, due, self._pauses.until, now + self._rate_limiter.delay(now))

    def _capacity(self) -> int:
        """How many more jobs may be claimed.

        A fast server gets claims ahead, so that no worker waits for a commit. A slow one does not, as a claim is to be
        sent within a second; nor is there any with a budget, as the cost of a job counts before the next is sent.
        """
        ahead = 2 if self._server_is_fast and self._limits.rate is None and self._budget.limit is None else 1
        return ahead * self._workers.count - len(self._in_flight)

    def _commit(self, requests: Sequence[InFlightRequest]) -> None:
        """Write outcomes, releases and new claims to the journal; only then report the outcomes and send."""
        outcomes, released = self._outcomes, self._released
        if not (outcomes or released or requests):
            return
        # Twice: a claim ahead may wait for another's whole exchange before its own begins.
        longest = 2 * self._limits.timeout
        claims = [Claim(request.submission, request.attempt, request.claimed_at, longest) for request in requests]
        try:
            self._journal.commit(outcomes, released, claims)
        except JobIdTakenError as error:  # by another manifest's run, a moment ago
            self._put_back(requests)
            self._outcomes = [_doubt_if_taken(outcome, error.job_ids) for outcome in outcomes]
            self._commit([])
            return
        except RefusedError as error:
            self._put_back(requests)
            self._stop_without_journal(error)
            return
        self._outcomes, self._released = [], []
        for outcome in outcomes:
            if outcome.final:
                self._observer.decided(outcome.submission, outcome.outcome)
        for request in requests:
            self._in_flight[id(request)] = request
            self._workers.send(request)

    # Handling results.

    def _idle_time(self) -> float:
        """The seconds until there is something to do even if no event comes.

        Never long: Python runs a signal handler between two steps of the main thread, so that a signal that comes just
        before a wait is seen after it.
        """
        now = self._clock()
        times = [time for time in (self._next_send_at(now), self._abort_at, self._abandon_at) if time is not None]
        return min(_MAX_WAIT, max(0.0, min(times) - now)) if times else _MAX_WAIT

    def _handle(self, events: Sequence[WorkerEvent]) -> None:
        ids_in_use = self._find_ids_in_use(events)
        for event in events:
            if isinstance(event, int):
                self._handle_signal(event)
                continue
            request, result = event
            if self._in_flight.pop(id(request), None) is not None:
                self._handle_result(request, result, ids_in_use)
            self._workers.handled(result)

    def _find_ids_in_use(self, events: Sequence[WorkerEvent]) -> set[str]:
        """Those of the job ids in some results that other submissions have, in the journal or since the last commit.

        The journal is asked once for all of them, as each query costs a turn of all threads.
        """
        used = {row.outcome.job_id for row in self._outcomes if isinstance(row.outcome, Created)}
        results = [event[1] for event in events if not isinstance(event, int)]
        job_ids = [result.job.id for result in results if isinstance(result, Response) and result.job is not None]
        try:
            return used | self._journal.ids_in_use(job_ids) if job_ids else used
        except RefusedError as error:  # the results are reported all the same
            self._stop_without_journal(error)
            return used

    def _handle_result(self, request: InFlightRequest, result: ExchangeResult, ids_in_use: set[str]) -> None:
        now = self._clock()
        request.exchange.slot.used_at = request.exchange.written_at or now
        self._server_is_fast = now - (request.exchange.started_at or now) < _FAST_RESPONSE
        verdict = classify(result, ids_in_use.__contains__, bearer=self._bearer)
        if isinstance(verdict, Throttled):
            self._handle_throttled(request, verdict, now)
            return
        self._pauses_in_a_row = 0
        if isinstance(verdict, NotSent):
            self._handle_not_sent(request, result, verdict, now)
            return
        if isinstance(verdict, Accepted):
            ids_in_use.add(verdict.job_id)
        self._record(request, _outcome(request, verdict))
        if not isinstance(verdict, Accepted) and verdict.stop:
            self._stop(verdict.error.message)

    def _record(self, request: InFlightRequest, outcome: Created | NotCreated | InDoubt, *, final: bool = True) -> None:
        """Have an outcome written with the next commit."""
        self._budget.settle(request.submission, outcome)
        self._outcomes.append(RecordedOutcome(request.submission, outcome, self._now(), final))
        if final and self._streak.add(outcome):
            last = "" if isinstance(outcome, Created) else f" (last: {outcome.error.message})"
            self._stop(f"{self._streak}{last}")

    def _handle_throttled(self, request: InFlightRequest, verdict: Throttled, now: float) -> None:
        self._release([request])
        self._recall()
        is_new = now >= self._pauses.until
        if is_new:  # the other responses of one burst do not lengthen it
            self._pauses_in_a_row += 1
        # Never less than the backoff, for a server that responds with `Retry-After: 0` over and over.
        seconds = max(verdict.retry_after or 0.0, self._backoff.delay(self._pauses_in_a_row))
        if not self._pauses.extend(now, seconds):
            self._stop(f"rate limited: {self._pauses.describe_excess(seconds)}")
        elif is_new:
            self._observer.pausing(verdict.error, seconds)

    def _handle_not_sent(self, request: InFlightRequest, result: ExchangeResult, verdict: NotSent, now: float) -> None:
        if isinstance(result, NoResponse) and result.cause == "interrupted":
            self._release([request])
            return
        outcome = NotCreated(verdict.error, request.attempt, request.claimed_at)
        if not self._may_send or request.attempt >= self._limits.attempts:
            self._record(request, outcome)
            return
        self._record(request, outcome, final=False)  # until it is claimed again: whatever happens, it was not created
        seconds = self._backoff.delay(request.attempt)
        self._queue.add_retry(QueuedJob(now + seconds, request.attempt + 1, request.submission, outcome))
        self._observer.retrying(request.submission, verdict.error, seconds)

    # Requests that were not sent.

    def _recall(self) -> None:
        """Release the requests that no worker has started."""
        requests = self._workers.recall()
        for request in requests:
            del self._in_flight[id(request)]
        self._release(requests)

    def _release(self, requests: Sequence[InFlightRequest]) -> None:
        """Put back claimed jobs that were certainly not created, and have that written with the next commit."""
        for request in requests:
            earlier = request.queued.outcome
            if earlier is None:
                self._released.append(request.submission)
            else:  # the outcome of the attempt before still holds
                self._outcomes.append(RecordedOutcome(request.submission, earlier, self._now(), final=False))
        self._put_back(requests)

    def _put_back(self, requests: Sequence[InFlightRequest]) -> None:
        """Return jobs to the head of the queue; their attempt does not count."""
        for request in reversed(requests):
            self._budget.settle(request.submission, None)
            request.exchange.slot.used_at = request.exchange.slot.used_at or self._clock()
            self._queue.put_back(request.queued)

    def _report_unsent(self) -> None:
        """Report the jobs that were not sent, or not retried, because the run ended before."""
        skipped = Skipped(self._result.reason, self._result.detail)
        for queued in self._queue.drain():
            self._observer.decided(queued.submission, queued.outcome or skipped)

    # Ending.

    def _stop(self, detail: str, reason: str = "stopped") -> None:
        if self._may_send:
            self._result = EngineResult("stopped", detail, reason)
            self._recall()
            self._observer.stopping(detail)

    def _stop_without_journal(self, error: RefusedError) -> None:
        """Send nothing more, as it could not be recorded. Results that still come are written if that is possible."""
        self._stop(error.message)
        self._result = replace(self._result, error=error)

    def _handle_signal(self, signum: int) -> None:
        is_first = self._abort_at is None and self._abandon_at is None
        self._abort_at = self._clock() + (GRACE_PERIOD if is_first else 0.0)
        if is_first:
            detail = f"interrupted by {Signals(signum).name}{' (Ctrl-C)' if signum == Signals.SIGINT else ''}"
            self._result = EngineResult("interrupted", detail, "interrupted", signum, self._result.error)
            self._recall()
            self._observer.stopping(detail)

    def _end_grace_period(self) -> None:
        """Abort requests in flight once their time is over, and a moment later abandon those that did not return."""
        now = self._clock()
        if self._abort_at is not None and self._abort_at <= now:
            self._abort_at, self._abandon_at = None, now + _ABORT_WAIT
            for request in self._in_flight.values():
                request.exchange.abort("interrupted")
        elif self._abandon_at is not None and self._abandon_at <= now:
            # A stuck worker (resolving a name, say) can't write any more: what it has written by now is final.
            self._workers.abandoned = True
            while self._in_flight:
                _, request = self._in_flight.popitem()
                written = request.exchange.abort("interrupted")
                result = NoResponse.interrupted(written=written)
                self._handle_result(request, result, set())


def _doubt_if_taken(row: RecordedOutcome, job_ids: Collection[str]) -> RecordedOutcome:
    """The outcome, or in doubt if its job id is one of these."""
    outcome = row.outcome
    if not isinstance(outcome, Created) or outcome.job_id not in job_ids:
        return row
    return replace(row, outcome=InDoubt(known_id_error(outcome.job_id), outcome.attempts, outcome.sent_at))


def _outcome(request: InFlightRequest, verdict: Accepted | Rejected | Ambiguous) -> Created | NotCreated | InDoubt:
    match verdict:
        case Accepted(job_id, body):
            return Created(job_id, body, request.attempt, request.claimed_at)
        case Rejected(error):
            return NotCreated(error, request.attempt, request.claimed_at)
        case Ambiguous(error):
            return InDoubt(error, request.attempt, request.claimed_at)
        case _:
            assert_never(verdict)
