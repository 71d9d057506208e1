"""The API's endpoints: a request and a world in, an answer out. The one place that knows paths, rights and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
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


class ApiError(Exception):
    """An answer that is an error. The status says which kind; `headers` go out with it."""

    def __init__(
        self, status: HTTPStatus, message: str, details: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.headers = headers


def handle(world: Backend, key: str, request: Request, *, job_fails: bool = False) -> Response:
    """The API's answer to a request. `key` is the one that is accepted; with `job_fails`, a job created by it fails."""
    try:
        handler = _handler(request)
        if handler is not _ping:
            _check_key(request.headers.get("authorization"), key)
        if job_fails and handler is _create_job:
            handler = _create_failing_job
        return json_response(HTTPStatus.OK, handler(world, request))
    except ApiError as error:
        return error_response(error.status, error.message, error.details, error.headers)
    except RefusedError as error:  # the store: what could not be kept was not created
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, error.message)
    except Exception as error:  # noqa: BLE001 - a bug in here is told to the client, not to the terminal
        return error_response(
            HTTPStatus.INTERNAL_SERVER_ERROR, f"a fault of the sandbox: {type(error).__name__}: {error}"
        )


def error_response(
    status: HTTPStatus, message: str, details: Any = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error in the API's own form, its code made from the status: `bad_request`, `forbidden`, and so on."""
    error = {"code": status.name.lower(), "message": message, "details": details}
    return json_response(status, {"error": error}, headers)


def _handler(request: Request) -> Handler:
    shape = tuple("{id}" if place in _ID_PLACES else segment for place, segment in enumerate(request.segments))
    handlers = _RESOURCES.get(shape)
    if handlers is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "there is nothing at this path", {"path": request.path})
    method = "GET" if request.method == "HEAD" else request.method
    if method not in handlers:
        allowed = ", ".join(handlers)
        raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {allowed}", headers={"Allow": allowed})
    return handlers[method]


def _check_key(sent: str | None, key: str) -> None:
    if sent == key:
        return
    if not sent:
        raise ApiError(HTTPStatus.UNAUTHORIZED, "send the API key in the Authorization header")
    if sent.lower().startswith("bearer "):
        raise ApiError(HTTPStatus.UNAUTHORIZED, "send the API key by itself, without the prefix 'Bearer '")
    raise ApiError(HTTPStatus.UNAUTHORIZED, "the API key is not recognised")


def _ping(_world: Backend, _request: Request) -> str:
    return "pong"


def _list_projects(world: Backend, request: Request) -> dict[str, Any]:
    projects = list(world.catalog.projects.values())
    size = _number(request.query, "page_size", _PAGE_SIZE, least=1)
    start = (_number(request.query, "page_num", 1, least=1) - 1) * size
    page = projects[start : start + size]
    return {"count": len(projects), "projects": [serializers.project_item(project) for project in page]}


def _list_workflows(world: Backend, request: Request) -> dict[str, Any]:
    offset = _number(request.query, "offset", 0, least=0)
    limit = _number(request.query, "limit", _PAGE_SIZE, least=1)
    found = list(_workflows(world.catalog, request.query))
    pagination = {"limit": limit, "offset": offset, "total": len(found)}
    return {"workflows": found[offset : offset + limit], "pagination": pagination}


def _workflows(catalogue: Catalog, query: Query) -> Iterator[dict[str, Any]]:
    """The items that the query's filters leave: a workflow once for each of its projects."""
    project_id = query.get("project_id")
    if project_id:
        _check_project(catalogue, project_id)
    wanted = _wanted(query, ("id", "name", "created_by", "updated_at"))
    day = _day(query)
    for workflow in catalogue.workflows.values():
        for home in workflow.project_ids:
            item = serializers.workflow_item(workflow, home)
            if project_id in (None, "", home) and _matches(item, wanted, day):
                yield item


def _get_workflow(world: Backend, request: Request) -> dict[str, Any]:
    return serializers.workflow_object(*_workflow_in_project(world.catalog, request))


def _get_estimate(world: Backend, request: Request) -> dict[str, Any]:
    return {"estimated_cost": _workflow(world.catalog, request).cost}


def _list_jobs(world: Backend, request: Request) -> dict[str, Any]:
    wanted = _wanted(request.query, ("id", "status", "created_by"))
    day = _day(request.query)
    jobs = world.jobs(request.segments[2])
    _workflow(world.catalog, request)  # after the jobs were read: another process may have brought the workflow
    now = world.now()
    items = (serializers.job_item(job, now) for job in jobs)
    return {"jobs": [item for item in items if _matches(item, wanted, day)]}


def _create_job(world: Backend, request: Request) -> dict[str, Any]:
    workflow, project_id = _workflow_in_project(world.catalog, request)
    job = world.create(workflow.id, project_id)
    return serializers.job_object(job, job.created_at)


def _create_failing_job(world: Backend, request: Request) -> dict[str, Any]:
    workflow, project_id = _workflow_in_project(world.catalog, request)
    job = world.create_failing(workflow.id, project_id)
    return serializers.job_object(job, job.created_at)


def _get_job(world: Backend, request: Request) -> dict[str, Any]:
    job_id = request.segments[4]
    job = world.job(request.segments[2], job_id)
    _workflow(world.catalog, request)
    if job is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "the workflow has no such job", {"job_id": job_id})
    return serializers.job_object(job, world.now())


def _workflow(catalogue: Catalog, request: Request) -> Workflow:
    workflow = catalogue.workflows.get(request.segments[2])
    if workflow is None:
        raise ApiError(HTTPStatus.BAD_REQUEST, "there is no such workflow", {"workflow_id": request.segments[2]})
    return workflow


def _workflow_in_project(catalogue: Catalog, request: Request) -> tuple[Workflow, str]:
    """The workflow and the project that a request names, when they belong together."""
    project_id = request.query.get("project_id")
    if not project_id:
        raise ApiError(HTTPStatus.BAD_REQUEST, "the query parameter project_id is missing")
    workflow = _workflow(catalogue, request)
    if project_id not in workflow.project_ids:
        details = {"workflow_id": workflow.id, "project_id": project_id}
        raise ApiError(HTTPStatus.FORBIDDEN, "the workflow is not in a project of yours with this id", details)
    return workflow, project_id


def _check_project(catalogue: Catalog, project_id: str) -> None:
    if project_id not in catalogue.projects:
        raise ApiError(HTTPStatus.FORBIDDEN, "there is no project of yours with this id", {"project_id": project_id})


def _number(query: Query, name: str, default: int, *, least: int) -> int:
    text = query.get(name) or str(default)
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"{name} is to be a whole number, {least} or more", {name: text})
    return value


def _wanted(query: Query, names: Iterable[str]) -> dict[str, str]:
    """The filters that a query sets: a member's name and the value that it must have. An empty one filters nothing."""
    return {name: query[name] for name in names if query.get(name)}


def _day(query: Query) -> date | None:
    """The UTC day that `created_on` names, as a date or as a timestamp."""
    text = query.get("created_on")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError(HTTPStatus.BAD_REQUEST, "created_on is no date", {"created_on": text}) from None
    return moment.astimezone(UTC).date() if moment.tzinfo else moment.date()


def _matches(item: Mapping[str, Any], wanted: Mapping[str, str], day: date | None) -> bool:
    if any(item[member] != value for member, value in wanted.items()):
        return False
    return day is None or item["created_at"].startswith(day.isoformat())


# Where a path has ids, and what each path offers: a handler for each method.
_ID_PLACES = (2, 4)
_RESOURCES: Mapping[tuple[str, ...], Mapping[str, Handler]] = {
    ("ping",): {"GET": _ping},
    ("v0", "projects"): {"GET": _list_projects},
    ("v0", "workflows"): {"GET": _list_workflows},
    ("v0", "workflows", "{id}"): {"GET": _get_workflow},
    ("v0", "workflows", "{id}", "estimate"): {"GET": _get_estimate},
    ("v0", "workflows", "{id}", "jobs"): {"GET": _list_jobs, "POST": _create_job},
    ("v0", "workflows", "{id}", "jobs", "{id}"): {"GET": _get_job},
}
