"""The lookup: what became of jobs in doubt, by what the API lists. It never guesses, and never sends.

`Reconciler` asks the API and saves the findings; the rules are in `matching`, the clocks in `windows`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import groupby

from runner.client.exchange import Exchange
from runner.client.job import encode_job, parse_job
from runner.client.response import Response
from runner.core.models import Created, InDoubt, NotCreated
from runner.core.settings import DEFAULT_SETTLE
from runner.ledger.rows import Decision, SubmissionRow
from runner.ledger.store import Ledger
from runner.runs.listing import JobReader, Listing, fetch_listing
from runner.runs.matching import Finding, classify_doubts, unresolved_finding

# Seconds before each lookup at the end of a run: half a minute in all, at growing intervals.
LOOKUP_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Looks up jobs in doubt at one API, in the name of `decided_by`. `timeout` is in seconds."""

    ledger: Ledger
    reader: JobReader
    api: str
    decided_by: str
    settle: timedelta = DEFAULT_SETTLE
    timeout: float = 30.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def look_up(self, doubts: Sequence[SubmissionRow]) -> list[Finding]:
        """Look up each doubt once, save what is certain, and return a finding for each.

        The locks of the doubts' manifests must be held.
        """
        findings: list[Finding] = []
        creators: dict[str, set[str]] = {}  # queried once per run: the query reads everything that the run sent
        by_workflow = sorted(doubts, key=lambda doubt: doubt.workflow_id)
        for workflow_id, group in groupby(by_workflow, lambda doubt: doubt.workflow_id):
            findings += self._look_up_workflow(workflow_id, list(group), creators)
        self._save(findings)
        return findings

    def _look_up_workflow(
        self, workflow_id: str, doubts: Sequence[SubmissionRow], creators: dict[str, set[str]]
    ) -> list[Finding]:
        listing = fetch_listing(self.reader, workflow_id, self.timeout, self.now)
        if isinstance(listing, str):
            return [unresolved_finding(doubt, doubt.candidates, listing) for doubt in doubts]
        submissions = self.ledger.submissions_by_workflow(self.api, workflow_id)
        for run_id in {submission.run_id for submission in submissions} - creators.keys():
            creators[run_id] = self.ledger.creators(run_id)
        findings = classify_doubts(
            resolvable={doubt.id for doubt in doubts},
            unresolved=[row for row in submissions if row.state in ("in_doubt", "sending")],
            known=[row for row in submissions if row.job_id is not None],
            listing=listing,
            ids_in_use=self.ledger.ids_in_use(self.api, [job.id for job in listing.jobs]),
            creators=creators,
            now=self.now(),
            settle=self.settle,
        )
        return [self._with_body(finding, listing) for finding in findings]

    def _with_body(self, finding: Finding, listing: Listing) -> Finding:
        """Return a finding with its complete job; if that can't be retrieved, as it was listed: it exists anyway."""
        if not isinstance(finding.outcome, Created):
            return finding
        job_id = finding.outcome.job_id
        response = self.reader.get_job(finding.doubt.workflow_id, job_id, Exchange(self.timeout))
        if isinstance(response, Response) and response.status == HTTPStatus.OK:
            job = parse_job(response.body)
            if job is not None and job.id == job_id:
                return replace(finding, outcome=replace(finding.outcome, body=response.body))
        members = next(job.members for job in listing.jobs if job.id == job_id)
        return replace(finding, outcome=replace(finding.outcome, body=encode_job(members)))

    def _save(self, findings: Sequence[Finding]) -> None:
        now = self.now()
        decisions: list[Decision] = []
        candidates: dict[int, tuple[str, ...]] = {}
        for finding in findings:
            doubt, outcome = finding.doubt, finding.outcome
            match outcome:
                case InDoubt():
                    candidates[doubt.id] = outcome.candidates
                    continue
                case Created():
                    detail = outcome.job_id
                case NotCreated():
                    detail = outcome.error.message
            decisions.append(Decision(doubt.id, outcome, doubt.ended_at, self.decided_by, now, finding.reason, detail))
        self.ledger.resolve(decisions)
        self.ledger.save_candidates(candidates)
