"""Resolving jobs in doubt apart from a run: by a lookup at the API, or by manual decisions on single jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from runner.client.exchange import Exchange
from runner.client.job import parse_job
from runner.client.response import ExchangeResult, Response
from runner.core.errors import RefusedError, UsageError
from runner.core.models import Created, ErrorInfo, NotCreated
from runner.core.settings import DEFAULT_SETTLE
from runner.core.suggestions import closest_matches
from runner.core.text import escape_unprintable, pluralize
from runner.ledger import lock
from runner.ledger.lock import LockedError
from runner.ledger.rows import KILLED, Decision, SubmissionRow
from runner.ledger.store import Ledger
from runner.planning import periods
from runner.runs.listing import JobReader
from runner.runs.matching import Finding, describe_doubt
from runner.runs.reconcile import Reconciler
from runner.runs.windows import Window

Connect = Callable[[], AbstractContextManager[JobReader]]

_ACTIVITY = "resolve"  # what the lock's file says of its holder
_MAX_LISTED = 5
_UNPROVED_KINDS = ("absent", "not_found")  # not created, but only by a person's decision or the API's list
_STATUS_PROBLEMS = {
    400: "the API does not know it (HTTP 400)",
    401: "the API does not recognize the key (HTTP 401)",
    404: "the API does not know it (HTTP 404)",
}
_MAX_CLOCK_DIFFERENCE = timedelta(minutes=5)  # more than clocks differ that are synchronized at all
_UNCHANGED = "Nothing was changed."
_LATER = "Try again later."


@dataclass(frozen=True, slots=True)
class Scope:
    """Which doubts to resolve: those at an API, of one manifest or all, of the runs whose ids begin with `run`."""

    api: str
    manifest: str | None = None
    run: str = ""

    def unresolved(self, ledger: Ledger) -> list[SubmissionRow]:
        """Return the submissions in doubt, and the intents without an outcome, which are being sent or will be."""
        return [row for row in ledger.unresolved(self.api, self.manifest) if row.run_id.startswith(self.run)]

    def marked_absent(self, ledger: Ledger, names: Iterable[str]) -> list[SubmissionRow]:
        """Return submissions of these names that were declared absent, and were not sent again since."""
        return [
            row
            for name in dict.fromkeys(names)
            for row in ledger.submissions_by_name(self.api, name)
            if row.state == "not_created"
            and row.error is not None
            and row.error.kind in _UNPROVED_KINDS
            and self.manifest in (None, row.manifest)
            and row.run_id.startswith(self.run)
        ]


@dataclass(frozen=True, slots=True)
class Adoption:
    """The manual decision that the job of a name is the one with this id at the API."""

    name: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Absence:
    """The manual decision that the job of a name was never created."""

    name: str


ManualDecision = Adoption | Absence


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """The findings of a lookup, and the manifests that were skipped because they are locked."""

    findings: tuple[Finding, ...]
    locked: tuple[LockedError, ...]


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves the doubts of a scope, in the name of a user. Timeouts are in seconds."""

    ledger: Ledger
    scope: Scope
    user: str
    connect: Connect
    settle: timedelta = DEFAULT_SETTLE
    lock_timeout: float = 0.0
    timeout: float = 30.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def look_up(self) -> ReconcileResult:
        """Look up everything in doubt once, one manifest after another, and save what is certain.

        Raises:
            RefusedError: there is no key for the API.
        """
        unresolved = self.scope.unresolved(self.ledger)
        if not unresolved:
            return ReconcileResult((), ())
        findings: list[Finding] = []
        locked: list[LockedError] = []
        with self.connect() as reader:
            for manifest in dict.fromkeys(row.manifest for row in unresolved):
                try:
                    with self._lock(manifest):
                        findings += self._look_up_manifest(reader, manifest)
                except LockedError as error:
                    locked.append(error)
        return ReconcileResult(tuple(sorted(findings, key=lambda finding: finding.doubt.id)), tuple(locked))

    def _look_up_manifest(self, reader: JobReader, manifest: str) -> list[Finding]:
        decided_by = f"{_ACTIVITY} by {self.user}"
        reconciler = Reconciler(self.ledger, reader, self.scope.api, decided_by, self.settle, self.timeout, self.now)
        return reconciler.look_up(self._doubts([manifest]))

    def apply_decisions(self, decisions: Sequence[ManualDecision]) -> list[Finding]:
        """Apply manual decisions, all of them or none, and save who made them and when.

        The API is asked about adoptions only: an absence needs no key and no network. A job that was declared absent
        and was not sent again since may be adopted after all.

        Raises:
            UsageError: a name is unknown, used twice, or in doubt in more than one place.
            RefusedError: a name is not in doubt, or its job cannot be adopted.
            LockedError: the manifest is being run.
        """
        manifests = sorted({doubt.manifest for doubt in self._pick(self.scope.unresolved(self.ledger), decisions)})
        with ExitStack() as stack:
            for manifest in manifests:
                stack.enter_context(self._lock(manifest))
            # Picked once more: a run may have ended before the locks were taken.
            picked = self._pick(self._doubts(manifests), decisions, manifests)
            findings = self._check(list(zip(decisions, picked, strict=True)))
            self.ledger.resolve([self._to_decision(finding) for finding in findings])
        return findings

    def _check(self, pairs: Sequence[tuple[ManualDecision, SubmissionRow]]) -> list[Finding]:
        """Return a finding for each decision; raises before any of them is saved."""
        adoptions = [(decision, doubt) for decision, doubt in pairs if isinstance(decision, Adoption)]
        _refuse_repeated_ids(decision.job_id for decision, _ in adoptions)
        for decision, doubt in adoptions:
            self._refuse_id_in_use(doubt, decision.job_id)
        findings = [self._absent(doubt) for decision, doubt in pairs if isinstance(decision, Absence)]
        if adoptions:
            with self.connect() as reader:
                findings += [self._adopted(reader, doubt, decision.job_id) for decision, doubt in adoptions]
        return findings

    def _absent(self, doubt: SubmissionRow) -> Finding:
        error = ErrorInfo("absent", f"was in doubt ({describe_doubt(doubt)}); declared absent by {self.user}")
        return Finding(doubt, NotCreated(error, doubt.attempts, doubt.claimed_at), "absent")

    def _adopted(self, reader: JobReader, doubt: SubmissionRow, job_id: str) -> Finding:
        result = reader.get_job(doubt.workflow_id, job_id, Exchange(self.timeout))
        body = _check_job(result, doubt, job_id)
        return Finding(doubt, Created(job_id, body, doubt.attempts, doubt.claimed_at, recovered=True), "adopted")

    def _refuse_id_in_use(self, doubt: SubmissionRow, job_id: str) -> None:
        holder = self.ledger.submission_by_job_id(self.scope.api, job_id)
        if holder is not None:
            raise RefusedError(
                f"{doubt.name!r} cannot adopt the job {job_id!r}: it belongs to {holder.name!r} of {holder.manifest} "
                f"(run {holder.run_id})",
                f"A job belongs to one submission. {_UNCHANGED}",
            )

    def _to_decision(self, finding: Finding) -> Decision:
        doubt = finding.doubt
        adopted = f"{finding.outcome.job_id}; " if isinstance(finding.outcome, Created) else ""
        state = "not created" if doubt.state == "not_created" else "was in doubt"
        detail = f"{adopted}{state}: {describe_doubt(doubt)}"
        return Decision(doubt.id, finding.outcome, doubt.ended_at, self.user, self.now(), finding.reason, detail)

    # Which doubt a decision is about.

    def _lock(self, manifest: str) -> AbstractContextManager[None]:
        return lock.hold(self.ledger.path, self.scope.api, manifest, timeout=self.lock_timeout, activity=_ACTIVITY)

    def _doubts(self, manifests: Collection[str]) -> list[SubmissionRow]:
        """Return the doubts of locked manifests. An intent without an outcome is in doubt: its process is gone."""
        for manifest in manifests:
            self.ledger.mark_intents_in_doubt(self.scope.api, manifest, KILLED)
        return [row for row in self.scope.unresolved(self.ledger) if row.manifest in manifests]

    def _pick(
        self,
        doubts: Sequence[SubmissionRow],
        decisions: Sequence[ManualDecision],
        locked: Collection[str] | None = None,
    ) -> list[SubmissionRow]:
        """Return the doubt of each decision. Doubts of one name in one run are alike: any of them will do.

        A job declared absent is picked for an adoption if no doubt has its name; `locked` restricts it to manifests.
        """
        picked: list[SubmissionRow] = []
        for decision in decisions:
            named, state = [row for row in doubts if row.name == decision.name], "in doubt"
            if not named and isinstance(decision, Adoption):
                absent = self.scope.marked_absent(self.ledger, [decision.name])
                named, state = [row for row in absent if locked is None or row.manifest in locked], "declared absent"
            _refuse_ambiguous(decision.name, named, state)
            free = [row for row in named if row not in picked]
            if not free and not named:
                raise self._unknown(decision.name)
            if not free:
                given = sum(other.name == decision.name for other in decisions)
                raise _repeated_error(decision.name, len(named), given, state)
            picked.append(free[0])
        return picked

    def _unknown(self, name: str) -> UsageError | RefusedError:
        """Return the error for a name that is not in doubt in the scope."""
        scope = self.scope
        in_any_run = Scope(scope.api, scope.manifest).unresolved(self.ledger)
        runs = sorted({row.run_id for row in in_any_run if row.name == name})
        if runs:
            return UsageError(f"{name!r} is not in doubt in run {scope.run!r}", f"It is in doubt in {_join(runs)}.")
        known = [
            row for row in self.ledger.submissions_by_name(scope.api, name) if scope.manifest in (None, row.manifest)
        ]
        if known:
            return RefusedError(f"{name!r} is not in doubt: {_describe_state(known[-1])}", _next_step(known[-1]))
        apis = sorted({row.api for row in self.ledger.unresolved() if row.name == name})
        hint = f"It is in doubt at {_join(apis)}." if apis else _suggest(name, in_any_run)
        of_manifest = f"of {scope.manifest} " if scope.manifest else ""
        return UsageError(f"no job {of_manifest}named {name!r} is in doubt at {scope.api}", hint)


def creation_window(doubt: SubmissionRow, settle: timedelta) -> tuple[datetime, datetime]:
    """Return the times between which the job of a doubt was created, if it was."""
    window = Window.of_doubt(doubt, settle)
    return window.start, window.end


def implausible_creation_time(finding: Finding, settle: timedelta) -> datetime | None:
    """Return when an adopted job was created, if that is well before or after its window; it may be another's."""
    job = parse_job(finding.outcome.body) if isinstance(finding.outcome, Created) else None
    created_at = job.created_at if job else None
    if Window.of_doubt(finding.doubt, settle).contains(created_at, _MAX_CLOCK_DIFFERENCE):
        return None
    return created_at


def _check_job(result: ExchangeResult, doubt: SubmissionRow, job_id: str) -> bytes:
    """Return the body of a job, unless it says that it belongs to another workflow or project."""
    job_name = f"the job {job_id!r} of workflow {doubt.workflow_id!r}"
    if not isinstance(result, Response):
        raise RefusedError(f"{job_name} could not be retrieved: {result.detail}", f"{_UNCHANGED} {_LATER}")
    problem, hint = _find_problem(result, doubt, job_id)
    if problem:
        raise RefusedError(f"{doubt.name!r} cannot adopt {job_name}: {problem}", f"{_UNCHANGED} {hint}".rstrip())
    return result.body


def _find_problem(response: Response, doubt: SubmissionRow, job_id: str) -> tuple[str, str]:
    """Return why a response is not the job to adopt, and a hint; both empty if it is."""
    if response.status != HTTPStatus.OK:
        problem = _STATUS_PROBLEMS.get(response.status)
        return (problem, "") if problem else (f"the API responded with HTTP {response.status}", _LATER)
    job = parse_job(response.body)
    if job is None or job.id != job_id:
        return "the API's response is not that job", ""
    for noun, expected in (("workflow", doubt.workflow_id), ("project", doubt.project_id)):
        actual = job.members.get(f"{noun}_id")
        if isinstance(actual, str) and actual not in ("", expected):
            return f"it belongs to {noun} {actual!r}", f"The request was for {noun} {expected!r}."
    return "", ""


def _refuse_repeated_ids(job_ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for job_id in job_ids:
        if job_id in seen:
            raise UsageError(f"--adopt: the job {job_id!r} was given twice", "A job belongs to one submission.")
        seen.add(job_id)


def _refuse_ambiguous(name: str, rows: Sequence[SubmissionRow], state: str) -> None:
    manifests = sorted({row.manifest for row in rows})
    if len(manifests) > 1:
        raise UsageError(
            f"{name!r} is {state} in {len(manifests)} manifests: {', '.join(manifests)}",
            "Specify the manifest: pixxel-runner resolve MANIFEST …",
        )
    runs = sorted({f"{row.run_id} ({periods.describe_run_key(row.run_key)})" for row in rows})
    if len(runs) > 1:
        raise UsageError(f"{name!r} is {state} in {len(runs)} runs: {', '.join(runs)}", "Select one with --run RUN.")


def _repeated_error(name: str, count: int, given: int, state: str) -> UsageError:
    jobs = f"only 1 job {name!r} is" if count == 1 else f"only {count} jobs {name!r} are"
    return UsageError(f"{jobs} {state}, but {given} decisions were given", "Give one decision per job.")


def _describe_state(submission: SubmissionRow) -> str:
    match submission.state:
        case "created":
            return f"created as {escape_unprintable(submission.job_id or '')} by run {submission.run_id}"
        case "not_created":
            reason = f": {escape_unprintable(submission.error.message)}" if submission.error else ""
            return f"not created in run {submission.run_id}{reason}"
        case "released":
            return f"not sent in run {submission.run_id}"
        case _:
            return f"being sent by run {submission.run_id}"


def _next_step(submission: SubmissionRow) -> str:
    """Return what to do about a submission that is not in doubt, whatever was to be done with it."""
    match submission.state:
        case "created":
            step = "To submit one more of it: run --again."
        case "not_created" if submission.error is not None and submission.error.kind in _UNPROVED_KINDS:
            step = "It is submitted again when it is due. If it was created after all, adopt its job with --adopt."
        case "not_created" | "released":
            step = "It was certainly not created, so there is no job to adopt."
        case _:
            step = "Wait until that run has ended."
    return f"{_UNCHANGED} {step}"


def _suggest(name: str, doubts: Iterable[SubmissionRow]) -> str:
    names = sorted({doubt.name for doubt in doubts})
    if not names:
        return "No jobs are in doubt there."
    matches = closest_matches(name, names, 3)
    if matches:
        return f"Did you mean {' or '.join(map(repr, matches))}?"
    more = f" and {pluralize(len(names) - _MAX_LISTED, 'other')}" if len(names) > _MAX_LISTED else ""
    return f"In doubt: {', '.join(map(repr, names[:_MAX_LISTED]))}{more}."


def _join(items: Sequence[str]) -> str:
    return " and ".join(items)
