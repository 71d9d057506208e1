"""The summary of a run: outcomes counted and costs added up, for one record or several."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from runner.client.job import parse_job
from runner.core.models import CostEntry, Created, Entry, InDoubt, NotCreated, Run, RunRecord, Skipped

# More digits than any cost has, and few enough that no sum of costs is too long for Python to print.
_COST_LIMIT = 10**600


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """What the jobs of one project cost, as `Summary` has it of all: `created` are those that exist."""

    project_id: str
    created: int
    cost: int
    estimate: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """How many jobs of a record came to which outcome, and what those that exist cost.

    The four outcomes add up to the number of entries. `created` counts every job that exists under the run key;
    `created_earlier` says how many *of these* another run than `record.run` created. `cost` is in tokens, over all
    of `created`, and leaves out a job of which the API told no cost, or none that could be a cost. `estimate` is what
    the jobs that exist or may exist were expected to cost, as far as that was asked for; None where it never was.
    `projects` has each project of a job that exists or may exist, in the order of the manifest.
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
    """A record, and what going through it once tells: to read it takes a query and a parser for each answer.

    `rest` has the entries that are not created, and `invalid` counts created jobs with validation errors.
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
        """How many entries the record has."""
        return len(self.record.entries)


def summarize(record: RunRecord) -> RunSummary:
    """Count a record's outcomes and add up its costs, going through it once."""
    created = earlier = invalid = 0
    projects: dict[str, _Project] = defaultdict(_Project)
    rest: list[Entry] = []
    for one in record.compact_entries() if record.compact_entries else record.entries:
        if isinstance(one, CostEntry):
            bought = one
        elif isinstance(one.outcome, Created):
            bought = CostEntry(one.job.project_id, one.run_id, *_told(one.outcome), one.outcome.estimate)
        else:
            rest.append(one)
            if isinstance(one.outcome, InDoubt):
                projects[one.job.project_id].add(0, 0, one.outcome.estimate)
            continue
        created += 1
        earlier += bought.run_id != record.run.id
        invalid += bought.validation_errors > 0
        projects[bought.project_id].add(1, bought.cost, bought.estimate)
    counts = Counter(type(entry.outcome) for entry in rest)
    summary = Summary(
        created,
        counts[NotCreated],
        counts[InDoubt],
        counts[Skipped],
        earlier,
        sum(one.cost for one in projects.values()),
        _sum(one.estimate for one in projects.values()),
        tuple(ProjectSummary(name, one.created, one.cost, one.estimate) for name, one in projects.items()),
    )
    return RunSummary(record, summary, tuple(rest), invalid)


@dataclass(slots=True)
class _Project:
    """What is counted of a project so far."""

    created: int = 0
    cost: int = 0
    estimate: int | None = None

    def add(self, created: int, cost: int, estimate: int | None) -> None:
        """Count in so many jobs that exist, what they cost, and what they were, or one in doubt was, to cost."""
        self.created += created
        self.cost += cost
        if estimate is not None:
            self.estimate = estimate + (self.estimate or 0)


def combine(summaries: Iterable[Summary]) -> Summary:
    """What several records amount to together."""
    every = list(summaries)
    projects: dict[str, _Project] = defaultdict(_Project)
    for one in (project for summary in every for project in summary.projects):
        projects[one.project_id].add(one.created, one.cost, one.estimate)
    return Summary(
        sum(one.created for one in every),
        sum(one.not_created for one in every),
        sum(one.in_doubt for one in every),
        sum(one.skipped for one in every),
        sum(one.created_earlier for one in every),
        sum(one.cost for one in every),
        _sum(one.estimate for one in every),
        tuple(ProjectSummary(name, one.created, one.cost, one.estimate) for name, one in projects.items()),
    )


def _sum(estimates: Iterable[int | None]) -> int | None:
    """The sum of those that are known; None where none is."""
    known = [one for one in estimates if one is not None]
    return sum(known) if known else None


def _told(outcome: Created) -> tuple[int, int]:
    """What a job costs, as far as that could be a cost, and how many validation errors it has."""
    job = parse_job(outcome.body)
    cost = job.cost if job else None
    errors = len(job.val_errors) if job else 0
    return cost if cost is not None and 0 <= cost < _COST_LIMIT else 0, errors
