"""The summary of a run: outcomes counted and costs added up, for one record or several."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runner.client.job import parse_job
from runner.core.models import CostEntry, Created, Entry, InDoubt, NotCreated, Run, RunRecord, Skipped

# More digits than any cost has, and few enough that Python can print any sum of costs.
_COST_LIMIT = 10**600


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """The jobs of one project: how many exist, what they cost, and what they were estimated to cost."""

    project_id: str
    created: int
    cost: int
    estimate: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """How many jobs of a record have which outcome, and what the existing ones cost.

    The four outcomes add up to the number of entries. `created` counts every job that exists under the run key, and
    `created_earlier` those of them that another run than `record.run` created. `cost` is in tokens, over all of
    `created`; jobs without a valid cost add nothing. `estimate` is the estimated cost of the jobs that exist or may
    exist, as far as it was requested; None if it never was. `projects` has each project of such a job, in the
    manifest's order.
    """

    created: int
    not_created: int
    in_doubt: int
    skipped: int
    created_earlier: int
    cost: int
    estimate: int | None
    projects: tuple[ProjectSummary, ...]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A record, and what one pass over it finds: reading it takes a query and a parser for each job.

    `others` are the entries that are not created; `invalid_jobs` counts created jobs with validation errors.
    """

    record: RunRecord
    summary: Summary
    others: tuple[Entry, ...]
    invalid_jobs: int

    @property
    def run(self) -> Run:
        """The run."""
        return self.record.run

    @property
    def entry_count(self) -> int:
        """The number of entries of the record."""
        return len(self.record.entries)


def summarize(record: RunRecord) -> RunSummary:
    """Count a record's outcomes and add up its costs, in one pass."""
    created = created_earlier = invalid_jobs = 0
    projects: dict[str, _Project] = defaultdict(_Project)
    others: list[Entry] = []
    for entry in record.compact_entries() if record.compact_entries else record.entries:
        if isinstance(entry, CostEntry):
            job = entry
        elif isinstance(entry.outcome, Created):
            cost, errors = _read_job(entry.outcome)
            job = CostEntry(entry.job.project_id, entry.run_id, cost, errors, entry.outcome.estimate)
        else:
            others.append(entry)
            if isinstance(entry.outcome, InDoubt):
                projects[entry.job.project_id].add(0, 0, entry.outcome.estimate)
            continue
        created += 1
        created_earlier += job.run_id != record.run.id
        invalid_jobs += job.validation_errors > 0
        projects[job.project_id].add(1, job.cost, job.estimate)
    counts = Counter(type(entry.outcome) for entry in others)
    summary = _build_summary((created, counts[NotCreated], counts[InDoubt], counts[Skipped], created_earlier), projects)
    return RunSummary(record, summary, tuple(others), invalid_jobs)


def combine(summaries: Iterable[Summary]) -> Summary:
    """Return the summary of several records together."""
    counts = [0] * 5
    projects: dict[str, _Project] = defaultdict(_Project)
    for summary in summaries:
        outcomes = (summary.created, summary.not_created, summary.in_doubt, summary.skipped, summary.created_earlier)
        counts = [total + count for total, count in zip(counts, outcomes, strict=True)]
        for project in summary.projects:
            projects[project.project_id].add(project.created, project.cost, project.estimate)
    return _build_summary(counts, projects)


@dataclass(slots=True)
class _Project:
    """The totals of a project so far."""

    created: int = 0
    cost: int = 0
    estimate: int | None = None

    def add(self, created: int, cost: int, estimate: int | None) -> None:
        """Add existing jobs and their cost, and the estimate of jobs that exist or may exist."""
        self.created += created
        self.cost += cost
        if estimate is not None:
            self.estimate = estimate + (self.estimate or 0)


def _build_summary(counts: Sequence[int], projects: Mapping[str, _Project]) -> Summary:
    """Build a summary of the five counts, in the order of its fields, and the totals of each project."""
    estimates = [project.estimate for project in projects.values() if project.estimate is not None]
    created, not_created, in_doubt, skipped, created_earlier = counts
    return Summary(
        created=created,
        not_created=not_created,
        in_doubt=in_doubt,
        skipped=skipped,
        created_earlier=created_earlier,
        cost=sum(project.cost for project in projects.values()),
        estimate=sum(estimates) if estimates else None,
        projects=tuple(
            ProjectSummary(name, project.created, project.cost, project.estimate) for name, project in projects.items()
        ),
    )


def _read_job(outcome: Created) -> tuple[int, int]:
    """Return the cost of a job, 0 if it has no valid one, and its number of validation errors."""
    job = parse_job(outcome.body)
    if job is None:
        return 0, 0
    cost = job.cost
    return cost if cost is not None and 0 <= cost < _COST_LIMIT else 0, len(job.val_errors)
