"""Estimates and workflow checks, whatever bytes the API returns; and how many requests they take."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records import json_values, texts
from support.wire import Request, Script, WireServer, reply

from runner.client import api
from runner.client.endpoint import ApiKey, Endpoint
from runner.client.exchange import Exchange
from runner.client.fetcher import Fetcher
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.settings import Limits
from runner.planning.estimates import Estimate, WorkflowReader, fetch_estimates

PAIR = ("w-1", "p-1")
NO_ESTIMATE = "the API returned no valid estimate"


@dataclass
class Api:
    """An API that returns a given result for each workflow, and the same for its pairs."""

    results: Mapping[str, ExchangeResult]
    bearer: bool = False
    requests: list[str] = field(default_factory=list)

    def get_estimate(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - the protocol's
        self.requests.append(workflow_id)
        return self.results[workflow_id]

    def get_workflow(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - likewise
        self.requests.append(f"{workflow_id} in {project_id}")
        return self.results[workflow_id]


def response(body: bytes, status: int = 200) -> Response:
    return Response(status, {}, body, datetime.now(UTC))


def fetch(result: ExchangeResult, *, bearer: bool = False) -> tuple[Estimate, str]:
    """The estimate of a workflow and the problem of a pair, when the API returns the same for both."""
    fetcher = Fetcher(Limits(concurrency=1, attempts=1))
    fetched = fetch_estimates(fetcher, Api({"w-1": result}, bearer), ["w-1"], [PAIR])
    return fetched.estimates["w-1"], fetched.problems[PAIR]


# Costs.


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        (b'{"estimated_cost": 12}', 12),
        (b'{"estimated_cost": 0}', 0),
        (b'\xef\xbb\xbf {"other": [{}], "estimated_cost":\t12, "x": NaN}\n', 12),
        (b'{"estimated_cost": 9007199254740992}', 2**53),
        (b'{"estimated_cost": 9007199254740993}', None),
        (b'{"estimated_cost": -1}', None),
        (b'{"estimated_cost": 12.0}', None),
        (b'{"estimated_cost": 1e3}', None),
        (b'{"estimated_cost": 1e999}', None),
        (b'{"estimated_cost": true}', None),
        (b'{"estimated_cost": false}', None),
        (b'{"estimated_cost": "12"}', None),
        (b'{"estimated_cost": null}', None),
        (b'{"estimated_cost": NaN}', None),
        (b'{"estimated_cost": Infinity}', None),
        (b'{"estimated_cost": [12]}', None),
        (b'{"estimated_cost": 1%b}' % (b"0" * 40), None),
        (b'{"estimated_cost": 1%b}' % (b"0" * 9000), None),
        (b'{"estimated_cost": %b12%b}' % (b"[" * 5000, b"]" * 5000), None),
        (b'{"deep": %b%b, "estimated_cost": 12}' % (b"[" * 5000, b"]" * 5000), 12),
        (b"{}", None),
    ],
)
def test_an_estimate_is_a_non_negative_integer(body: bytes, cost: int | None) -> None:
    assert fetch(response(body))[0] == Estimate(cost, "" if cost is not None else NO_ESTIMATE)


@pytest.mark.parametrize("body", [b"", b"12", b"[12]", b"null", b'"x"', b"<html>", b"{", b"\xff\xfe", b"\x1f\x8b"])
def test_a_body_that_is_not_an_object_is_a_problem(body: bytes) -> None:
    assert fetch(response(body)) == (
        Estimate(None, "HTTP 200 OK: the response cannot be read"),
        "HTTP 200 OK: the response cannot be read",
    )


REFUSED = b'{"error": {"code": "not_found", "message": "no such workflow"}}'


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (response(REFUSED, 404), "HTTP 404 Not Found: not_found: no such workflow"),
        (response(b'{"estimated_cost": 12}', 500), "HTTP 500 Internal Server Error: the server failed"),
        (response(b'{"estimated_cost": 12}', 201), "HTTP 201 Created: the response cannot be read"),
        (NoResponse("timeout", written=True, detail="no answer in time"), "no answer in time"),
        (
            response(b"", 401),
            "HTTP 401 Unauthorized: the API does not recognize the key (sent without a 'Bearer ' prefix)",
        ),
        (
            Response(302, {"location": "/x"}, b"", datetime.now(UTC)),
            "HTTP 302 Found: the server redirects to /x; redirects are not followed",
        ),
    ],
)
def test_a_failure_is_a_problem(result: ExchangeResult, problem: str) -> None:
    assert fetch(result) == (Estimate(None, problem), problem)


def test_the_problem_mentions_a_bearer_prefix() -> None:
    estimate, problem = fetch(response(b"", 401), bearer=True)
    assert "sent with a 'Bearer ' prefix" in estimate.problem
    assert estimate.problem == problem


@pytest.mark.parametrize(
    ("result", "hint"),
    [
        (
            NoResponse("certificate", written=False, detail="x"),
            "Ask the server's administrator to check its certificate.",
        ),
        (NoResponse("certificate", written=False, detail="x: certificate is not yet valid"), "clock"),
        (NoResponse("certificate", written=False, detail="x: self-signed certificate"), "--ca-bundle FILE"),
        (NoResponse("connect", written=False, detail="x"), "the network, or try again later"),
        (NoResponse("timeout", written=True, detail="x"), "the network, or try again later"),
        (response(b"", 401), "PIXXEL_API_KEY"),
        (response(b"", 307), "Check the base URL."),
        (response(b"", 425), "Try again later."),
        (response(b"", 429), "Try again later."),
        (response(b"", 500), "Try again later."),
        (response(b"", 599), "Try again later."),
    ],
)
def test_problems_unrelated_to_the_workflow_have_a_hint(result: ExchangeResult, hint: str) -> None:
    fetcher = Fetcher(Limits(attempts=1, timeout=0.01))
    fetched = fetch_estimates(fetcher, Api({"w-1": result}), ["w-1"], [PAIR])
    [(problem, text)] = fetched.hints.items()
    assert problem == fetched.problems[PAIR] == fetched.estimates["w-1"].problem
    assert hint in text


@pytest.mark.parametrize("status", [200, 400, 403, 404, 422])
def test_problems_of_a_workflow_have_no_hint(status: int) -> None:
    fetched = fetch_estimates(Fetcher(Limits()), Api({"w-1": response(b"", status)}), ["w-1"], [PAIR])
    assert fetched.hints == {}


# Workflows.


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"id": "w-1", "project_id": "p-1"}, ""),
        ({"id": "w-1", "project_id": "p-1", "val_errors": None}, ""),
        ({"id": "w-1", "project_id": "p-1", "val_errors": []}, ""),
        ({"id": "w-1", "project_id": "p-1", "val_errors": "none"}, ""),
        ({"id": "w-1", "project_id": "p-1", "val_errors": [1, 2]}, "the workflow has 2 validation errors"),
        ({}, ""),  # fields may be missing; the status is enough
        ({"id": "", "project_id": ""}, ""),
        ({"id": 1, "project_id": None}, ""),
        ({"id": "w-2", "project_id": "p-1"}, "the API returned another workflow: w-2"),
        ({"id": "w-1", "project_id": "p-2"}, "the workflow is in another project: p-2"),
    ],
)
def test_the_workflow_must_be_the_requested_one(members: dict[str, Any], problem: str) -> None:
    assert fetch(response(json.dumps(members).encode()))[1] == problem


# Arbitrary responses.

bodies = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda members, ascii_only: json.dumps(members, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"),
        st.dictionaries(
            st.one_of(st.sampled_from(["estimated_cost", "id", "project_id", "val_errors", "error"]), texts),
            json_values,
            max_size=4,
        ),
        st.booleans(),
    ),
    st.integers(-(10**30), 10**30).map(lambda cost: b'{"estimated_cost": %d}' % cost),
)
results = st.one_of(
    st.builds(response, bodies),
    st.builds(response, bodies, st.integers(200, 599)),
    st.just(NoResponse("garbage", written=True, detail="what came is not an HTTP answer")),
)


@settings(max_examples=60)
@given(st.lists(results, min_size=1, max_size=8))
def test_any_response_gives_an_estimate_or_a_problem(drawn: list[ExchangeResult]) -> None:
    by_workflow = {f"w{number}": result for number, result in enumerate(drawn)}
    fetcher = Fetcher(Limits(concurrency=2, attempts=1, timeout=0.01))
    fetched = fetch_estimates(fetcher, Api(by_workflow), by_workflow, [(workflow, "p-1") for workflow in by_workflow])
    assert list(fetched.estimates) == list(by_workflow)
    for estimate in fetched.estimates.values():
        assert (estimate.cost is None) is bool(estimate.problem)
        assert estimate.cost is None or (type(estimate.cost) is int and 0 <= estimate.cost <= 2**53)
    assert all(isinstance(problem, str) for problem in fetched.problems.values())


# The requests.


def test_one_request_for_each_workflow_and_each_pair() -> None:
    pairs = [(f"w{number % 3}", f"p{number % 2}") for number in range(60)]

    def choose(request: Request) -> Script:
        if request.target.endswith("/estimate"):
            return reply(200, b'{"estimated_cost": %d}' % int(request.workflow[1:]))
        return reply(200, b'{"val_errors": [1]}')

    with (
        WireServer(choose=choose) as server,
        api.ReadOnlyClient(Endpoint(server.url, ApiKey("key")), 4) as reader,
    ):
        fetched = fetch_estimates(Fetcher(Limits(concurrency=4)), reader, (workflow for workflow, _ in pairs), pairs)
    assert fetched.estimates == {f"w{number}": Estimate(number) for number in range(3)}
    assert fetched.problems == dict.fromkeys(pairs, "the workflow has 1 validation error")
    assert Counter(request.target for request in server.requests) == {
        **{f"/v0/workflows/w{number}/estimate": 1 for number in range(3)},
        **{f"/v0/workflows/w{number}?project_id=p{project}": 1 for number in range(3) for project in range(2)},
    }
    assert {request.method for request in server.requests} == {"GET"}


def test_estimates_alone_make_no_other_request() -> None:
    reader = Api({"w-1": response(b'{"estimated_cost": 3}')})
    assert fetch_estimates(Fetcher(Limits()), reader, ["w-1", "w-1"], ()).estimates == {"w-1": Estimate(3)}
    assert reader.requests == ["w-1"]


def test_an_api_that_does_not_respond_costs_one_timeout() -> None:
    silent = NoResponse("timeout", written=True, detail="no answer in time")
    reader = Api({f"w{number}": silent for number in range(9)})
    pairs = [(workflow, "p") for workflow in reader.results]
    fetched = fetch_estimates(Fetcher(Limits(concurrency=1)), reader, reader.results, pairs)
    problems = {estimate.problem for estimate in fetched.estimates.values()}
    assert problems == set(fetched.problems.values()) == {"no answer in time"}
    assert len(reader.requests) == 1


def test_the_reader_cannot_create_a_job() -> None:
    assert get_type_hints(fetch_estimates)["reader"] is WorkflowReader
    assert {name for name in vars(WorkflowReader) if not name.startswith("_")} == {
        "bearer",
        "get_estimate",
        "get_workflow",
    }
