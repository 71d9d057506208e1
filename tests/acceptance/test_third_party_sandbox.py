"""The sandbox, tried by schemathesis with the published description: what it answers is what the description says.

Two answers are given on purpose and are no part of the description, which leaves them out: 401 for a key that is not
recognised, as the API itself does, and 400 or 403 for ids that nobody has (schemathesis makes them up).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runner.sandbox.backend import Backend
from runner.sandbox.catalog import EXAMPLE
from runner.sandbox.server import Sandbox

schemathesis: Any = pytest.importorskip("schemathesis", reason="needs schemathesis")

KEY = "sandbox-key"
DESCRIPTION = schemathesis.openapi.from_path(Path(__file__).parents[1] / "cases" / "api" / "openapi.json")
OPERATIONS: dict[str, Any] = {one.ok().label: one.ok() for one in DESCRIPTION.get_all_operations()}
CHECKS = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]
WORKFLOW = next(iter(EXAMPLE.workflows.values()))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Backend() as world, Sandbox(world, key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def known(sandbox: Sandbox) -> dict[str, str]:
    """Ids that the sandbox knows, by the names of their parameters."""
    [project] = WORKFLOW.project_ids
    job = sandbox.backend.create(WORKFLOW.id, project)
    return {"workflow_id": WORKFLOW.id, "project_id": project, "job_id": job.id}


class Keyed:
    """Sends the key, whatever the case has in its place."""

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = KEY
        return request


def with_known(case: Any, ids: dict[str, str]) -> Any:
    """The case, asking for what is there."""
    for part in (case.path_parameters, case.query):
        for name in part or ():
            if name in ids:
                part[name] = ids[name]
    return case


def test_there_is_every_operation() -> None:
    assert len(OPERATIONS) == 8


@pytest.mark.filterwarnings("default")  # of the libraries that schemathesis is made of
@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_as_the_description_says(label: str, sandbox: Sandbox, known: dict[str, str]) -> None:
    good = OPERATIONS[label].Case(path_parameters=known, query=known)
    assert good.call_and_validate(base_url=sandbox.base_url, auth=Keyed(), checks=CHECKS).status_code == 200

    @settings(max_examples=15, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(list(schemathesis.GenerationMode)))
        operation = OPERATIONS[label]
        case = data.draw(operation.as_strategy(generation_mode=mode)) if _can(operation, mode) else operation.Case()
        if data.draw(st.booleans()):
            case = with_known(case, known)
        answer = case.call(base_url=sandbox.base_url, auth=Keyed())
        case.validate_response(answer, checks=CHECKS)

    ask()


def _can(operation: Any, mode: Any) -> bool:
    """Whether there is something in the operation that could be wrong."""
    return mode is schemathesis.GenerationMode.POSITIVE or bool(operation.path_parameters or operation.query)


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label != "GET /ping"])
def test_without_the_key_nothing_is_told(label: str, sandbox: Sandbox, known: dict[str, str]) -> None:
    case = OPERATIONS[label].Case(path_parameters=known, query=known)
    for headers in ({}, {"Authorization": "another"}, {"Authorization": f"Bearer {KEY}"}):
        answer = case.call(base_url=sandbox.base_url, headers=headers)
        assert answer.status_code == 401
        assert set(answer.json()) == {"error"}
