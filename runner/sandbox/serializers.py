"""The JSON objects of the API's description, made from what the sandbox knows. A time still to come is left out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from runner.sandbox.catalog import Project, Workflow
from runner.sandbox.lifecycle import SandboxJob, Span, Stage, job_span, stage_at, task_spans

# The one service user of the sandbox, and its workspace.
USER_ID = "5e0c4f9b-2d86-4a17-b3f1-8c7a60d9e245"
_ORG_ID = "a81d3c57-6f04-4e92-9b68-17d5f2c0e3ba"

# When everything in the catalogue was made.
FOUNDED_AT = "2025-01-15T09:00:00Z"

# The names of a job's tasks, each with the id of the block that does it.
_TASKS = (
    ("Select imagery", "d6b0f3a1-94c7-4e58-8b2d-70f5a9c1e364"),
    ("Analyse", "3f97c2e8-0b5d-4a61-9e74-c8d21f60b5a3"),
    ("Deliver", "8a45d1b7-6e3c-4f90-a2d8-15b7e9c4f026"),
)

# What a task that failed says of it: the one reason that the sandbox knows.
_FAILURE_TYPE = "INPUT"
_FAILURE = "no cloud-free imagery in the area of interest"


def timestamp(moment: datetime) -> str:
    """An RFC 3339 timestamp in UTC, to the microsecond. `moment` must be in UTC."""
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def project_item(project: Project) -> dict[str, Any]:
    """An item of `frontier.listProjects`."""
    return {
        "id": project.id,
        "name": project.slug,
        "title": project.title,
        "org_id": _ORG_ID,
        "members_count": 1,
        "created_at": FOUNDED_AT,
        "updated_at": FOUNDED_AT,
        "metadata": {},
    }


def workflow_item(workflow: Workflow, project_id: str) -> dict[str, Any]:
    """`dexter.ListWorkflowItem`: a workflow in one of its projects."""
    return {
        "id": workflow.id,
        "project_id": project_id,
        "legacy_project_id": project_id,
        "name": workflow.name,
        "created_by": USER_ID,
        "description": workflow.description,
        "created_at": FOUNDED_AT,
        "updated_at": FOUNDED_AT,
    }


def workflow_object(workflow: Workflow, project_id: str) -> dict[str, Any]:
    """`dexter.GetWorkflowsByIdTransformerResponse`."""
    return {
        "id": workflow.id,
        "name": workflow.name,
        "created_by": USER_ID,
        "description": workflow.description,
        "spec": [],
        "created_at": FOUNDED_AT,
        "updated_at": FOUNDED_AT,
        "val_errors": [],
        "project_id": project_id,
        "estimated_cost": workflow.cost,
    }


def job_item(job: SandboxJob, now: datetime) -> dict[str, Any]:
    """`dexter.ListJobsItem`."""
    state = stage_at(job_span(job), now)
    return {
        "created_by": USER_ID,
        "workflow_id": job.workflow_id,
        "created_at": timestamp(job.created_at),
        "updated_at": timestamp(state.updated_at),
        "estimated_duration": job.duration,
        "progress": str(state.percent),
        "status": state.status,
        "id": job.id,
        "cost": job.cost,
        **_end(state, job.created_at),
    }


def job_object(job: SandboxJob, now: datetime) -> dict[str, Any]:
    """`dexter.PostWorkflowRunTransformerResponse`, which is also the answer to a GET of one job."""
    item = job_item(job, now)
    return {
        **item,
        "exec_created_at": item["created_at"],
        "exec_updated_at": item["updated_at"],
        "tasks": _tasks(job, now),
        "val_errors": [],
        "spec": [],
    }


def _tasks(job: SandboxJob, now: datetime) -> list[dict[str, Any]]:
    spans = task_spans(job, len(_TASKS))
    return [_task(job, index, span, now) for index, span in enumerate(spans)]


def _task(job: SandboxJob, index: int, span: Span, now: datetime) -> dict[str, Any]:
    name, block_id = _TASKS[index]
    state = stage_at(span, now)
    failed = state.status == "failed"
    return {
        "id": f"{job.id}-{index + 1}",
        "depends_on": [before for before, _ in _TASKS[max(0, index - 1) : index]],
        "block_info": {"id": block_id, "name": name, "version": "1.0.0"},
        "err_msg": _FAILURE if failed else "",
        "failure_type": _FAILURE_TYPE if failed else "",
        "info_logs": [],
        "created_at": timestamp(span.created_at),
        "updated_at": timestamp(state.updated_at),
        "estimated_time_duration": int((span.ends_at - span.begins_at).total_seconds()),
        "status": state.status,
        "state_msg": "",
        "inputs": [],
        "result": [],
        "name": name,
        "progress": state.percent,
        "disclaimer": [],
        **_begin(state),
        **_end(state, span.begins_at),
    }


def _begin(state: Stage) -> dict[str, str]:
    """When a task was sent off: once that has happened. Its inference takes as long as the task does."""
    if state.started_at is None:
        return {}
    begun = timestamp(state.started_at)
    times = {"recv_time": begun, "send_time": begun, "block_inf_start_time": begun}
    return times if state.finished_at is None else {**times, "block_inf_end_time": timestamp(state.finished_at)}


def _end(state: Stage, since: datetime) -> dict[str, str]:
    if state.finished_at is None:
        return {}
    return {"finished_at": timestamp(state.finished_at), "time_taken": _duration(state.finished_at - since)}


def _duration(length: timedelta) -> str:
    return f"{length.total_seconds():g}s"
