"""Builds the input of reports other than run records: previews and status reports, specific and arbitrary ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

from hypothesis import strategies as st
from support.records import HOSTILE, bodies, entries, json_values, labels, record, texts, times, words

from runner.core.models import Job, Manifest, OutcomeName
from runner.planning.planned_jobs import Action, PlannedJob, Preview, Reason
from runner.reports.views.status import StatusReport
from runner.runs.job_status import JobStatus
from runner.runs.summary import RunSummary, summarize

API = "https://api.example"
SEEN_AT = datetime(2026, 10, 20, 2, 0, 0, 500_000, tzinfo=UTC)


def planned_job(
    name: str, action: Action = "submit", reason: Reason = "new", *, line: int = 5, **given: Any
) -> PlannedJob:
    return PlannedJob(Job(name, f"w-{name}", "p-1", line=line), action, reason, **given)


def preview(*planned_jobs: PlannedJob, name: str = "nightly", path: str = "nightly.yaml", **given: Any) -> Preview:
    manifest = Manifest(name, path, "ab" * 32, tuple(planned_job.job for planned_job in planned_jobs))
    return Preview(manifest, API, "day:2026-10-20", planned_jobs, **given)


def job_status(name: str, problem: str = "", **members: Any) -> JobStatus:
    body = json.dumps({"id": f"j-{name}", **members}).encode()
    return JobStatus(name, f"w-{name}", "p-1", f"j-{name}", body, SEEN_AT, problem=problem)


def status_report(
    *jobs: JobStatus,
    others: dict[OutcomeName, int] | None = None,
    manifest: str = "nightly",
    path: str = "nightly.yaml",
    lines: dict[str, int] | None = None,
) -> StatusReport:
    return StatusReport("run-2", manifest, API, jobs, others or {}, path, lines or {})


def _summary(job_entries: list[Any], name: str, path: str, api: str) -> RunSummary:
    return summarize(record(*job_entries, manifest_name=name, manifest_path=path, base_url=api))


_paths = words | st.sampled_from(["-", "./nightly.yaml", "/srv/nightly.yaml", "../nightly.yaml"])
_jobs = st.builds(Job, words, words, words, labels, line=st.integers(0, 9))
_costs = st.none() | st.integers(0, 10**700)

summaries = st.builds(_summary, st.lists(entries, max_size=4), words, _paths, words)
previews = st.builds(
    Preview,
    st.builds(Manifest, words, _paths, st.just("ab" * 32), st.just(())),
    words,
    st.just("day:2026-10-20"),
    st.lists(
        st.builds(
            PlannedJob,
            _jobs,
            st.sampled_from(get_args(Action)),
            st.sampled_from(get_args(Reason)),
            texts,
            st.none() | words,
            st.none() | words,
            _costs,
            st.sampled_from(["", *HOSTILE]),
        ),
        max_size=4,
    ).map(tuple),
    spent=st.integers(0, 99),
    limit=st.none() | st.integers(0, 99),
    has_estimates=st.booleans(),
    unknown_costs=st.none() | st.dictionaries(words, texts, max_size=2),
)
_members = st.fixed_dictionaries(
    {"status": words | st.sampled_from(["completed", "failed", "cancelled", "running"])},
    optional={
        **dict.fromkeys(("progress", "cost", "time_taken", "finished_at", "created_at"), json_values),
        "tasks": st.lists(st.fixed_dictionaries({"name": words, "err_msg": words}), max_size=2),
    },
)
status_reports = st.builds(
    StatusReport,
    words,
    words,
    words,
    st.lists(
        st.builds(
            JobStatus,
            *[words] * 4,
            bodies | _members.map(lambda fields: json.dumps({**fields, "id": "j"}).encode()),
            st.none() | times,
            problem=st.sampled_from(["", *HOSTILE]),
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["not_created", "in_doubt", "skipped"]), st.integers(1, 99)),
    st.just("") | _paths,
    st.dictionaries(words, st.integers(0, 9), max_size=2),
)
