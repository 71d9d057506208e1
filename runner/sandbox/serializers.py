"""The JSON objects of the API's OpenAPI description, built from the sandbox's data. Future times are left out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from runner.sandbox.catalog import Project, Workflow
from runner.sandbox.lifecycle import SandboxJob, Span, Stage, job_span, stage_at, task_spans

# The sandbox's only service user, and its organization.
USER_ID = "5e0c4f9b-2d86-4a17-b3f1-8c7a60d9e245"
_ORG_ID = "a81d3c57-6f04-4e92-9b68-17d5f2c0e3ba"

# When everything in the catalog was created.
CATALOG_CREATED_AT = "2025-01-15T09:00:00Z"

# The names of a job's tasks, and the ids of their blocks.
_TASKS = (
    ("Select imagery", "d6b0f3a1-94c7-4e58-8b2d-70f5a9c1e364"),
    ("Analyze", "3f97c2e8-0b5d-4a61-9e74-c8d21f60b5a3"),
    ("Deliver", "8a45d1b7-6e3c-4f90-a2d8-15b7e9c4f026"),
)


def format_timestamp(time: datetime) -> str:
    """Format a time in UTC as RFC 3339, with microseconds."""
    return time.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def project_item(project: Project) -> dict[str, Any]:
    """An item of `frontier.listProjects`."""
    return {
        "id": project.id,
        "name": project.slug,
        "title": project.title,
        "org_id": _ORG_ID,
        "members_count": 1,
        "created_at": CATALOG_CREATED_AT,
        "updated_at": CATALOG_CREATED_AT,
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
        "created_at": CATALOG_CREATED_AT,
        "updated_at": CATALOG_CREATED_AT,
    }


def workflow_object(workflow: Workflow, project_id: str) -> dict[str, Any]:
    """`dexter.GetWorkflowsByIdTransformerResponse`."""
    item = workflow_item(workflow, project_id)
    del item["legacy_project_id"]
    return {**item, "spec": [], "val_errors": [], "estimated_cost": workflow.cost}


def job_item(job: SandboxJob, now: datetime) -> dict[str, Any]:
    """`dexter.ListJobsItem`."""
    stage = stage_at(job_span(job), now)
    return {
        "created_by": USER_ID,
        "workflow_id": job.workflow_id,
        "created_at": format_timestamp(job.created_at),
        "updated_at": format_timestamp(stage.updated_at),
        "estimated_duration": job.duration,
        "progress": str(stage.percent),
        "status": stage.status,
        "id": job.id,
        "cost": job.cost,
        **_end_times(stage, job.created_at),
    }


def job_object(job: SandboxJob, now: datetime) -> dict[str, Any]:
    """`dexter.PostWorkflowRunTransformerResponse`, which is also the response to a GET of one job."""
    item = job_item(job, now)
    return {
        **item,
        "exec_created_at": item["created_at"],
        "exec_updated_at": item["updated_at"],
        "tasks": [_task(job, index, span, now) for index, span in enumerate(task_spans(job, len(_TASKS)))],
        "val_errors": [],
        "spec": [],
    }


def _task(job: SandboxJob, index: int, span: Span, now: datetime) -> dict[str, Any]:
    name, block_id = _TASKS[index]
    stage = stage_at(span, now)
    failed = stage.status == "failed"
    return {
        "id": f"{job.id}-{index + 1}",
        "depends_on": [previous for previous, _ in _TASKS[max(0, index - 1) : index]],
        "block_info": {"id": block_id, "name": name, "version": "1.0.0"},
        "err_msg": "no cloud-free imagery in the area of interest" if failed else "",
        "failure_type": "INPUT" if failed else "",
        "info_logs": [],
        "created_at": format_timestamp(span.created_at),
        "updated_at": format_timestamp(stage.updated_at),
        "estimated_time_duration": int((span.ends_at - span.begins_at).total_seconds()),
        "status": stage.status,
        "state_msg": "",
        "inputs": [],
        "result": [],
        "name": name,
        "progress": stage.percent,
        "disclaimer": [],
        **_start_times(stage),
        **_end_times(stage, span.begins_at),
    }


def _start_times(stage: Stage) -> dict[str, str]:
    """The start times of a task. Its inference takes as long as the task does."""
    if stage.started_at is None:
        return {}
    started = format_timestamp(stage.started_at)
    times = {"recv_time": started, "send_time": started, "block_inf_start_time": started}
    return times if stage.finished_at is None else times | {"block_inf_end_time": format_timestamp(stage.finished_at)}


def _end_times(stage: Stage, started_at: datetime) -> dict[str, str]:
    if stage.finished_at is None:
        return {}
    duration = (stage.finished_at - started_at).total_seconds()
    return {"finished_at": format_timestamp(stage.finished_at), "time_taken": f"{duration:g}s"}
