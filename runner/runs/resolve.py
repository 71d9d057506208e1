"""Settling what is in doubt apart from a run: by a look at the API, or by what a person says of single jobs.

It does not print: what was found or settled is in what it returns, and what cannot be done is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runner.client.exchange import Exchange
from runner.client.job import parse_job
from runner.client.response import ExchangeResult, Response
from runner.core.errors import RefusedError, UsageError
from runner.core.models import Created, ErrorInfo, NotCreated
from runner.core.settings import DEFAULT_SETTLE
from runner.core.suggestions import closest_matches
from runner.core.text import escape_unprintable
from runner.ledger import lock
from runner.ledger.lock import LockedError
from runner.ledger.rows import Decision, SubmissionRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs import record
from runner.runs.listing import JobReader
from runner.runs.matching import Finding, describe_doubt
from runner.runs.reconcile import Reconciler
from runner.runs.windows import Window

Connect = Callable[[], AbstractContextManager[JobReader]]

_ABOUT = "resolve"
_MOST_NAMED = 5
_OK = 200
_ON_A_WORD = ("absent", "not_found")  # the failures that rest on what somebody said: a person, or the API's list
_STATUS_WORDS = {
    400: "the API does not know it (HTTP 400)",
    401: "the API does not recognise the key (HTTP 401)",
    404: "the API does not know it (HTTP 404)",
}
_STRANGE = timedelta(minutes=5)  # more than clocks that are kept at all are apart


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose doubts are meant: of an API; of one manifest or of all; of the runs whose ids begin with `run`."""

    api: str
    manifest: str | None = None
    run: str = ""

    def unresolved(self, ledger: Ledger) -> list[SubmissionRow]:
        """The submissions in doubt, and the intents without an outcome, which are live sends or will be doubts."""
        return [one for one in ledger.unresolved(self.api, self.manifest) if one.run_id.startswith(self.run)]

    def marked_absent(self, ledger: Ledger, names: Iterable[str]) -> list[SubmissionRow]:
        """The submissions of these names that failed on somebody's word alone, and were not sent again since."""
        return [
            one
            for name in dict.fromkeys(names)
            for one in ledger.submissions_by_name(self.api, name)
            if one.state == "not_created"
            and one.error is not None
            and one.error.kind in _ON_A_WORD
            and self.manifest in (None, one.manifest)
            and one.run_id.startswith(self.run)
        ]


@dataclass(frozen=True, slots=True)
class Adoption:
    """A person says: the job of this name is the one with this id at the API."""

    name: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Absence:
    """A person says: the job of this name was never created."""

    name: str


ManualDecision = Adoption | Absence


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What a look at the API made of each doubt, and which manifests were left alone as somebody holds their lock."""

    findings: tuple[Finding, ...]
    locked: tuple[LockedError, ...]


@dataclass(frozen=True, slots=True)
class Resolver:
    """How doubts are settled: in which ledger, whose, by whom, and with what patience (in seconds but `settle`)."""

    ledger: Ledger
    scope: Scope
    user: str
    connect: Connect
    settle: timedelta = DEFAULT_SETTLE
    lock_timeout: float = 0.0
    timeout: float = 30.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    # By a look at the API.

    def look_up(self) -> ReconcileResult:
        """Look once for everything in doubt, one manifest after the other, and settle what is certain.

        Raises:
            RefusedError: the API cannot be asked at all, as there is no key.
        """
        unsettled = self.scope.unresolved(self.ledger)
        if not unsettled:
            return ReconcileResult((), ())
        findings: list[Finding] = []
        locked: list[LockedError] = []
        with self.connect() as reader:
            for manifest in dict.fromkeys(one.manifest for one in unsettled):
                try:
                    with self._locked(manifest):
                        findings += self._look_at(reader, manifest)
                except LockedError as error:
                    locked.append(error)
        return ReconcileResult(tuple(sorted(findings, key=lambda one: one.doubt.id)), tuple(locked))

    def _look_at(self, reader: JobReader, manifest: str) -> list[Finding]:
        doubts = self._doubts([manifest])
        by = f"{_ABOUT} by {self.user}"
        return Reconciler(self.ledger, reader, self.scope.api, by, self.settle, self.timeout, self.now).look_up(doubts)

    # By what a person says.

    def apply_decisions(self, words: Sequence[ManualDecision]) -> list[Finding]:
        """Settle what a person says, all of it or nothing, and keep who said it and when.

        The API is asked for each adoption alone: that a job is absent needs no key and no network. What was said to be
        absent, and was not sent again since, may be adopted as well: whoever said so was wrong.

        Raises:
            UsageError: a name is unknown, meant twice, or in doubt in more than one place.
            RefusedError: a name is not in doubt, or its job cannot be adopted.
            LockedError: its manifest is being run.
        """
        picked = self._pick(self.scope.unresolved(self.ledger), words)
        concerned = sorted({one.manifest for one in picked})
        with ExitStack() as stack:
            for manifest in concerned:
                stack.enter_context(self._locked(manifest))
            picked = self._pick(self._doubts(concerned), words, concerned)  # again: a run may have ended in between
            findings = self._checked(list(zip(words, picked, strict=True)))
            self.ledger.resolve([self._decision(finding) for finding in findings])
        return findings

    def _checked(self, pairs: Sequence[tuple[ManualDecision, SubmissionRow]]) -> list[Finding]:
        """What each word makes of its doubt; raises before any of it is settled."""
        adoptions = [(word, doubt) for word, doubt in pairs if isinstance(word, Adoption)]
        _refuse_one_job_twice(word.job_id for word, _ in adoptions)
        for word, doubt in adoptions:
            self._refuse_held(doubt, word.job_id)
        findings = [self._absent(doubt) for word, doubt in pairs if isinstance(word, Absence)]
        if adoptions:
            with self.connect() as reader:
                findings += [self._adopted(reader, doubt, word.job_id) for word, doubt in adoptions]
        return findings

    def _absent(self, doubt: SubmissionRow) -> Finding:
        error = ErrorInfo("absent", f"was in doubt ({describe_doubt(doubt)}); {self.user} says that it was not created")
        return Finding(doubt, NotCreated(error, doubt.attempts, doubt.claimed_at), "absent")

    def _adopted(self, reader: JobReader, doubt: SubmissionRow, job_id: str) -> Finding:
        answer = reader.get_job(doubt.workflow_id, job_id, Exchange(self.timeout))
        body = _body_of(answer, doubt, job_id)
        return Finding(doubt, Created(job_id, body, doubt.attempts, doubt.claimed_at, recovered=True), "adopted")

    def _refuse_held(self, doubt: SubmissionRow, job_id: str) -> None:
        holder = self.ledger.submission_by_job_id(self.scope.api, job_id)
        if holder is not None:
            raise RefusedError(
                f"{doubt.name!r} cannot adopt the job {job_id!r}: it is that of {holder.name!r} of {holder.manifest} "
                f"(run {holder.run_id})",
                "A job belongs to one submission. Nothing was settled.",
            )

    def _decision(self, finding: Finding) -> Decision:
        doubt = finding.doubt
        adopted = f"{finding.outcome.job_id}; " if isinstance(finding.outcome, Created) else ""
        was = "not created" if doubt.state == "not_created" else "was in doubt"
        detail = f"{adopted}{was}: {describe_doubt(doubt)}"
        return Decision(doubt.id, finding.outcome, doubt.ended_at, self.user, self.now(), finding.reason, detail)

    # Which doubts.

    def _locked(self, manifest: str) -> AbstractContextManager[None]:
        return lock.hold(self.ledger.path, self.scope.api, manifest, timeout=self.lock_timeout, activity=_ABOUT)

    def _doubts(self, manifests: Collection[str]) -> list[SubmissionRow]:
        """The doubts of manifests whose locks are held; an intent without an outcome is one then."""
        for manifest in manifests:
            self.ledger.mark_intents_in_doubt(self.scope.api, manifest, record.KILLED)
        return [one for one in self.scope.unresolved(self.ledger) if one.manifest in manifests]

    def _pick(
        self, doubts: Sequence[SubmissionRow], words: Sequence[ManualDecision], locked: Collection[str] | None = None
    ) -> list[SubmissionRow]:
        """The doubt that each word is about. Sends of one name in one run are alike: any of them is as good.

        What was said to be absent stands back behind doubts; `locked`: of these manifests alone.
        """
        picked: list[SubmissionRow] = []
        for word in words:
            named, what = [one for one in doubts if one.name == word.name], "in doubt"
            if not named and isinstance(word, Adoption):
                absent = self.scope.marked_absent(self.ledger, [word.name])
                named = [one for one in absent if locked is None or one.manifest in locked]
                what = "said to be absent"
            _refuse_ambiguous(word.name, named, what)
            free = [one for one in named if one not in picked]
            if not free:
                raise self._not_in_doubt(word.name) if not named else _said_twice(word.name, len(named), what)
            picked.append(free[0])
        return picked

    def _not_in_doubt(self, name: str) -> UsageError | RefusedError:
        """What is wrong with a name that stands for nothing in doubt."""
        scope = self.scope
        wide = Scope(scope.api, scope.manifest).unresolved(self.ledger)
        runs = sorted({one.run_id for one in wide if one.name == name})
        if runs:
            return UsageError(
                f"{name!r} is not in doubt in a run {scope.run!r}", f"It is in doubt in {' and in '.join(runs)}."
            )
        known = [
            one for one in self.ledger.submissions_by_name(scope.api, name) if scope.manifest in (None, one.manifest)
        ]
        if known:
            return RefusedError(
                f"{name!r} is not in doubt: {_standing_words(known[-1])}", f"Nothing was settled. {_way_on(known[-1])}"
            )
        elsewhere = sorted({one.api for one in self.ledger.unresolved() if one.name == name})
        hint = f"It is in doubt at {' and at '.join(elsewhere)}." if elsewhere else _nearest(name, wide)
        whose = f"of {scope.manifest} " if scope.manifest else ""
        return UsageError(f"no job {whose}named {name!r} is in doubt at {scope.api}", hint)


def creation_window(doubt: SubmissionRow, settle: timedelta) -> tuple[datetime, datetime]:
    """Between which times the job of a doubt was created, if it was."""
    found = Window.of_doubt(doubt, settle)
    return found.start, found.end


def implausible_creation_time(finding: Finding, settle: timedelta) -> datetime | None:
    """When an adopted job was created, if that is well before its send or long after it: it may be another's."""
    job = parse_job(finding.outcome.body) if isinstance(finding.outcome, Created) else None
    created_at = job.created_at if job else None
    start, end = creation_window(finding.doubt, settle)
    if created_at is None or start - _STRANGE <= created_at <= end + _STRANGE:
        return None
    return created_at


def _body_of(answer: ExchangeResult, doubt: SubmissionRow, job_id: str) -> bytes:
    """The API's answer for a job, unless that says that it is one of another workflow or project."""
    what = f"the job {job_id!r} of workflow {doubt.workflow_id!r}"
    if not isinstance(answer, Response):
        raise RefusedError(f"the API could not be asked for {what}: {answer.detail}", "Nothing was settled.")
    if answer.status != _OK:
        why = _STATUS_WORDS.get(answer.status, f"the API answered HTTP {answer.status}")
        raise RefusedError(f"{doubt.name!r} cannot adopt {what}: {why}", "Nothing was settled.")
    job = parse_job(answer.body)
    if job is None or job.id != job_id:
        raise RefusedError(
            f"{doubt.name!r} cannot adopt {what}: the API's answer is not that job", "Nothing was settled."
        )
    for member, noun, ours in (
        ("workflow_id", "workflow", doubt.workflow_id),
        ("project_id", "project", doubt.project_id),
    ):
        told = job.members.get(member)
        if isinstance(told, str) and told not in ("", ours):
            raise RefusedError(
                f"{doubt.name!r} cannot adopt {what}: it is one of {noun} {told!r}",
                f"It was sent to {noun} {ours!r}. Nothing was settled.",
            )
    return answer.body


def _refuse_one_job_twice(job_ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for job_id in job_ids:
        if job_id in seen:
            raise UsageError(f"--adopt gives the job {job_id!r} twice", "A job belongs to one submission.")
        seen.add(job_id)


def _refuse_ambiguous(name: str, named: Sequence[SubmissionRow], what: str) -> None:
    manifests = sorted({one.manifest for one in named})
    runs = sorted({one.run_id for one in named})
    if len(manifests) > 1:
        raise UsageError(
            f"{name!r} is {what} in {len(manifests)} manifests: {', '.join(manifests)}",
            "Say which: pixxel-runner resolve MANIFEST …",
        )
    if len(runs) > 1:
        places = sorted(f"{one.run_id} ({periods.describe_run_key(one.run_key)})" for one in named)
        raise UsageError(f"{name!r} is {what} in {len(runs)} runs: {', '.join(places)}", "Say which with --run RUN.")


def _said_twice(name: str, count: int, what: str) -> UsageError:
    times = "once" if count == 1 else f"{count} times"
    return UsageError(f"{name!r} is {what} {times}, and named more often", "Settle each job once.")


def _standing_words(standing: SubmissionRow) -> str:
    match standing.state:
        case "created":
            return f"created as {escape_unprintable(standing.job_id or '')} by run {standing.run_id}"
        case "not_created":
            why = f": {escape_unprintable(standing.error.message)}" if standing.error else ""
            return f"not created in run {standing.run_id}{why}"
        case "released":
            return f"it was not sent in run {standing.run_id}"
        case _:
            return f"it is being sent by run {standing.run_id}"


def _way_on(standing: SubmissionRow) -> str:
    """What to do about a submission that is not in doubt, whatever was wanted of it."""
    match standing.state:
        case "created":
            return "run --again sends one more on purpose."
        case "not_created" if standing.error is not None and standing.error.kind in _ON_A_WORD:
            return "It is sent again when it is due. If it was created after all, --adopt takes its job."
        case "not_created" | "released":
            return "It was certainly not created, so that it has no job to adopt."
        case _:
            return "Wait until that run is over."


def _nearest(name: str, doubts: Iterable[SubmissionRow]) -> str:
    names = {one.name for one in doubts}
    if not names:
        return "Nothing is in doubt there."
    near = closest_matches(name, names, 3)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    listed = sorted(names)
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return f"In doubt are {', '.join(map(repr, listed[:_MOST_NAMED]))}{more}."
