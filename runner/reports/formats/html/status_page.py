"""The page of what became of jobs at the API: a look at the jobs of one run or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from runner.core.models import OutcomeName, describe_outcome
from runner.core.version import VERSION
from runner.reports.formats.html import job_status
from runner.reports.formats.html.formatting import SECOND, count, length, micros, number, period
from runner.reports.formats.html.model import About, Column, Figure, Page, PageTable, Value, table
from runner.reports.style import Style
from runner.reports.views.status import StatusReport, trouble
from runner.runs.job_status import JobStatus, summarize_statuses

_ALWAYS = ("failed", "completed")  # what is told even if there is none


def page(made: Sequence[StatusReport], style: Style) -> Page:
    """Make the page."""
    jobs = [one for standing in made for one in standing.jobs]
    chart = job_status.chart(jobs)
    return Page(
        "What became of the jobs",
        made[0].manifest if len(made) == 1 else count(len(made), "run", "runs"),
        (),
        _verdict(jobs),
        tuple(_figures(made, jobs)),
        tuple(_about(one) for one in made),
        _jobs(made, jobs, several=style.several_manifests or len(made) > 1),
        () if chart is None else (chart,),
        notes=tuple(_notes(made)),
        made_by=f"pixxel-runner {VERSION}",
    )


def _verdict(jobs: Sequence[JobStatus]) -> str:
    if not jobs:
        return "There are no jobs at the API."
    completed = sum(one.current_kind == "completed" for one in jobs)
    if completed == len(jobs):
        return "The job has completed." if len(jobs) == 1 else f"All {number(len(jobs))} jobs have completed."
    rest = [one for one in jobs if one.current_kind != "completed"]
    return f"{number(completed)} of {count(len(jobs), 'job', 'jobs')} completed, {job_status.summary(rest)}."


def _figures(made: Sequence[StatusReport], jobs: Sequence[JobStatus]) -> Iterator[Figure]:
    for choice in job_status.choices(jobs):
        if choice.count or choice.word in _ALWAYS:
            yield Figure(choice.word, number(choice.count), "", choice.tone)
    yield Figure("cost", number(sum(max(0, one.cost or 0) for one in jobs)))
    began = [one.created_at for one in jobs if one.created_at]
    ended = [one.finished_at for one in jobs if one.finished_at]
    if began and ended and max(ended) >= min(began):
        seconds = (micros(max(ended)) - micros(min(began))) / SECOND
        yield Figure("first to last", length(seconds), period(min(began), max(ended)))
    without = sum(many for one in made for many in one.without_job.values())
    if without:
        yield Figure("without a job", number(without), "nothing to follow", "off")


def _notes(made: Sequence[StatusReport]) -> Iterator[str]:
    others: Counter[OutcomeName] = Counter()
    for one in made:
        others.update(one.without_job)
    if others:
        words = ", ".join(f"{number(many)} {describe_outcome(word)}" for word, many in others.items())
        yield f"Without a job to follow: {words}. The report of the run has them."


def _jobs(made: Sequence[StatusReport], jobs: Sequence[JobStatus], *, several: bool) -> PageTable:
    manifests = [one.manifest for one in made for _ in one.jobs]
    columns: dict[Column, Sequence[Value]] = {
        Column("job", "name"): [one.name for one in jobs],
        **({Column("manifest", "text"): manifests} if several else {}),
        Column("status", "choice"): [job_status.mark(one) for one in jobs],
        Column("progress", "text"): [one.progress for one in jobs],
        Column("job id", "id"): [one.job_id for one in jobs],
        Column("cost", "number"): [one.cost for one in jobs],
        Column("took", "length"): [job_status.took(one) for one in jobs],
        Column("created (UTC)", "time"): [one.created_at for one in jobs],
        Column("finished (UTC)", "time"): [one.finished_at for one in jobs],
        Column("message", "message"): [trouble(one) for one in jobs],
        Column("workflow", "id"): [one.workflow_id for one in jobs],
        Column("project", "id"): [one.project_id for one in jobs],
    }
    return table("Jobs", columns, [job_status.place(one) for one in jobs], "status", job_status.choices(jobs))


def _about(standing: StatusReport) -> About:
    seen = [one.seen_at for one in standing.jobs if one.seen_at]
    return About(
        standing.manifest,
        summarize_statuses(standing.jobs),
        (
            ("run", standing.run_id),
            ("manifest", standing.manifest_path or None),
            ("API", standing.api),
            ("last seen", max(seen, default=None)),
        ),
    )
