"""The API's endpoints: a request and a backend in, a response out. Paths, permissions and errors are decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from http import HTTPStatus
from typing import Any

from runner.core.errors import RefusedError
from runner.sandbox import serializers
from runner.sandbox.backend import Backend
from runner.sandbox.catalog import Catalog, Workflow
from runner.sandbox.http import Request, Response, json_response

_PAGE_SIZE = 50

Query = Mapping[str, str]
Handler = Callable[[Backend, Request], Any]


@dataclass(eq=False)
class ApiError(Exception):
    """An error response: its status, and headers to send with it."""

    status: HTTPStatus
    message: str
    details: Any = None
    headers: Mapping[str, str] | None = None


def handle(backend: Backend, key: str, request: Request, *, job_fails: bool = False) -> Response:
    """The API's response to a request. `key` is the accepted API key; with `job_fails`, a job created here fails."""
    try:
        handler = _find_handler(request)
        if handler is not _ping:
            _check_key(request.headers.get("authorization"), key)
        if handler is _create_job:
            handler = partial(_create_job, fails=job_fails)
        return json_response(HTTPStatus.OK, handler(backend, request))
    except ApiError as error:
        return error_response(error.status, error.message, error.details, error.headers)
    except RefusedError as error:  # the store could not save the job, so it was not created
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, error.message)
    except Exception as error:  # noqa: BLE001 - report a bug here to the client, not on the terminal
        message = f"internal error of the sandbox: {type(error).__name__}: {error}"
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, message)


def error_response(
    status: HTTPStatus, message: str, details: Any = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error in the API's format. Its code is made from the status: `bad_request`, `forbidden` and so on."""
    error = {"code": status.name.lower(), "message": message, "details": details}
    return json_response(status, {"error": error}, headers)


def _find_handler(request: Request) -> Handler:
    pattern = tuple("{id}" if index in _ID_INDICES else segment for index, segment in enumerate(request.segments))
    handlers = _ROUTES.get(pattern)
    if handlers is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "no such path", {"path": request.path})
    method = "GET" if request.method == "HEAD" else request.method
    if method not in handlers:
        allowed = ", ".join(handlers)
        raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, f"allowed methods: {allowed}", headers={"Allow": allowed})
    return handlers[method]


def _check_key(sent: str | None, key: str) -> None:
    if sent == key:
        return
    if not sent:
        raise ApiError(HTTPStatus.UNAUTHORIZED, "missing API key: send it in the Authorization header")
    if sent.lower().startswith("bearer "):
        raise ApiError(HTTPStatus.UNAUTHORIZED, "invalid API key: send it without the prefix 'Bearer '")
    raise ApiError(HTTPStatus.UNAUTHORIZED, "invalid API key")


def _ping(_backend: Backend, _request: Request) -> str:
    return "pong"


def _list_projects(backend: Backend, request: Request) -> dict[str, Any]:
    projects = list(backend.catalog.projects.values())
    size = _integer(request.query, "page_size", _PAGE_SIZE, minimum=1)
    start = (_integer(request.query, "page_num", 1, minimum=1) - 1) * size
    page = projects[start : start + size]
    return {"count": len(projects), "projects": [serializers.project_item(project) for project in page]}


def _list_workflows(backend: Backend, request: Request) -> dict[str, Any]:
    offset = _integer(request.query, "offset", 0, minimum=0)
    limit = _integer(request.query, "limit", _PAGE_SIZE, minimum=1)
    items = list(_workflow_items(backend.catalog, request.query))
    pagination = {"limit": limit, "offset": offset, "total": len(items)}
    return {"workflows": items[offset : offset + limit], "pagination": pagination}


def _workflow_items(catalog: Catalog, query: Query) -> Iterator[dict[str, Any]]:
    """The items that match the query: a workflow once for each of its projects."""
    project_id = query.get("project_id")
    if project_id and project_id not in catalog.projects:
        raise ApiError(HTTPStatus.FORBIDDEN, "no access to this project", {"project_id": project_id})
    filters = _filters(query, ("id", "name", "created_by", "updated_at"))
    day = _creation_day(query)
    for workflow in catalog.workflows.values():
        for workflow_project in workflow.project_ids:
            item = serializers.workflow_item(workflow, workflow_project)
            if project_id in (None, "", workflow_project) and _matches(item, filters, day):
                yield item


def _get_workflow(backend: Backend, request: Request) -> dict[str, Any]:
    return serializers.workflow_object(*_workflow_in_project(backend.catalog, request))


def _get_estimate(backend: Backend, request: Request) -> dict[str, Any]:
    return {"estimated_cost": _workflow(backend.catalog, request).cost}


def _list_jobs(backend: Backend, request: Request) -> dict[str, Any]:
    filters = _filters(request.query, ("id", "status", "created_by"))
    day = _creation_day(request.query)
    jobs = backend.jobs(request.segments[2])
    _workflow(backend.catalog, request)  # after reading the jobs, because another process may have added the workflow
    now = backend.now()
    items = (serializers.job_item(job, now) for job in jobs)
    return {"jobs": [item for item in items if _matches(item, filters, day)]}


def _create_job(backend: Backend, request: Request, *, fails: bool = False) -> dict[str, Any]:
    workflow, project_id = _workflow_in_project(backend.catalog, request)
    job = backend.create(workflow.id, project_id, fails=fails)
    return serializers.job_object(job, job.created_at)


def _get_job(backend: Backend, request: Request) -> dict[str, Any]:
    job_id = request.segments[4]
    job = backend.job(request.segments[2], job_id)
    _workflow(backend.catalog, request)
    if job is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "no such job in this workflow", {"job_id": job_id})
    return serializers.job_object(job, backend.now())


def _workflow(catalog: Catalog, request: Request) -> Workflow:
    workflow = catalog.workflows.get(request.segments[2])
    if workflow is None:
        raise ApiError(HTTPStatus.BAD_REQUEST, "no such workflow", {"workflow_id": request.segments[2]})
    return workflow


def _workflow_in_project(catalog: Catalog, request: Request) -> tuple[Workflow, str]:
    """The workflow and the project of a request, if the workflow can run in the project."""
    project_id = request.query.get("project_id")
    if not project_id:
        raise ApiError(HTTPStatus.BAD_REQUEST, "missing query parameter project_id")
    workflow = _workflow(catalog, request)
    if project_id not in workflow.project_ids:
        details = {"workflow_id": workflow.id, "project_id": project_id}
        raise ApiError(HTTPStatus.FORBIDDEN, "no access to this workflow in this project", details)
    return workflow, project_id


def _integer(query: Query, name: str, default: int, *, minimum: int) -> int:
    text = query.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{name} must be an integer of at least {minimum}", {name: text})
    return value


def _filters(query: Query, names: Iterable[str]) -> dict[str, str]:
    """The query's filters: fields and the values that they must have. An empty filter is ignored."""
    return {name: query[name] for name in names if query.get(name)}


def _creation_day(query: Query) -> date | None:
    """The UTC day of `created_on`, which may be a date or a timestamp."""
    text = query.get("created_on")
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError(HTTPStatus.BAD_REQUEST, "created_on must be a date", {"created_on": text}) from None
    return time.astimezone(UTC).date() if time.tzinfo else time.date()


def _matches(item: Mapping[str, Any], filters: Mapping[str, str], day: date | None) -> bool:
    if any(item[name] != value for name, value in filters.items()):
        return False
    return day is None or item["created_at"].startswith(day.isoformat())


# The path segments that are ids, and the handlers of each path by method.
_ID_INDICES = (2, 4)
_ROUTES: Mapping[tuple[str, ...], Mapping[str, Handler]] = {
    ("ping",): {"GET": _ping},
    ("v0", "projects"): {"GET": _list_projects},
    ("v0", "workflows"): {"GET": _list_workflows},
    ("v0", "workflows", "{id}"): {"GET": _get_workflow},
    ("v0", "workflows", "{id}", "estimate"): {"GET": _get_estimate},
    ("v0", "workflows", "{id}", "jobs"): {"GET": _list_jobs, "POST": _create_job},
    ("v0", "workflows", "{id}", "jobs", "{id}"): {"GET": _get_job},
}
