"""What the API tells of costs and workflows, whatever bytes it is told in; and how often it is asked."""

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
from runner.planning import estimates
from runner.planning.estimates import Estimate

PAIR = ("w-1", "p-1")
NO_COST = "the API tells no cost that could be one"


@dataclass
class Api:
    """An API that tells what the test says of each workflow; of a pair, the same."""

    told: Mapping[str, ExchangeResult]
    bearer: bool = False
    asked: list[str] = field(default_factory=list)

    def get_estimate(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - the protocol's
        self.asked.append(workflow_id)
        return self.told[workflow_id]

    def get_workflow(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:  # noqa: ARG002 - likewise
        self.asked.append(f"{workflow_id} in {project_id}")
        return self.told[workflow_id]


def answer(body: bytes, status: int = 200) -> Response:
    return Response(status, {}, body, datetime.now(UTC))


def ask(happening: ExchangeResult, *, bearer: bool = False) -> tuple[Estimate, str]:
    """What comes of one workflow's estimate and of one pair's check, when the API says this to both."""
    asker = Fetcher(Limits(concurrency=1, attempts=1))
    told = estimates.fetch_estimates(asker, Api({"w-1": happening}, bearer), ["w-1"], [PAIR])
    return told.estimates["w-1"], told.problems[PAIR]


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
def test_a_cost_is_a_whole_number_that_somebody_could_pay(body: bytes, cost: int | None) -> None:
    assert ask(answer(body))[0] == Estimate(cost, "" if cost is not None else NO_COST)


@pytest.mark.parametrize("body", [b"", b"12", b"[12]", b"null", b'"x"', b"<html>", b"{", b"\xff\xfe", b"\x1f\x8b"])
def test_what_is_no_object_tells_no_cost_and_nothing_of_a_workflow(body: bytes) -> None:
    assert ask(answer(body)) == (
        Estimate(None, "HTTP 200 OK: the response cannot be read"),
        "HTTP 200 OK: the response cannot be read",
    )


REFUSED = b'{"error": {"code": "not_found", "message": "no such workflow"}}'


@pytest.mark.parametrize(
    ("happening", "why"),
    [
        (answer(REFUSED, 404), "HTTP 404 Not Found: not_found: no such workflow"),
        (answer(b'{"estimated_cost": 12}', 500), "HTTP 500 Internal Server Error: the server failed"),
        (answer(b'{"estimated_cost": 12}', 201), "HTTP 201 Created: the response cannot be read"),
        (NoResponse("timeout", written=True, detail="no answer in time"), "no answer in time"),
        (
            answer(b"", 401),
            "HTTP 401 Unauthorized: the API does not recognise the key; it has no 'Bearer ' prefix, as it should",
        ),
        (
            Response(302, {"location": "/x"}, b"", datetime.now(UTC)),
            "HTTP 302 Found: the server redirects to /x; redirects are not followed",
        ),
    ],
)
def test_what_is_no_answer_tells_why(happening: ExchangeResult, why: str) -> None:
    assert ask(happening) == (Estimate(None, why), why)


def test_a_key_with_a_prefix_is_said_to_have_one() -> None:
    cost, problem = ask(answer(b"", 401), bearer=True)
    assert "begins with 'Bearer '" in cost.problem
    assert cost.problem == problem


@pytest.mark.parametrize(
    ("happening", "remedy"),
    [
        (NoResponse("certificate", written=False, detail="x"), "Have the host's certificate checked."),
        (NoResponse("certificate", written=False, detail="x: certificate is not yet valid"), "clock"),
        (NoResponse("certificate", written=False, detail="x: self-signed certificate"), "--ca-bundle FILE"),
        (NoResponse("connect", written=False, detail="x"), "the network, or try again later"),
        (NoResponse("timeout", written=True, detail="x"), "the network, or try again later"),
        (answer(b"", 401), "PIXXEL_API_KEY"),
        (answer(b"", 307), "Check the base URL."),
        (answer(b"", 425), "Try again later."),
        (answer(b"", 429), "Try again later."),
        (answer(b"", 500), "Try again later."),
        (answer(b"", 599), "Try again later."),
    ],
)
def test_what_to_do_is_told_where_it_is_not_about_a_workflow(happening: ExchangeResult, remedy: str) -> None:
    asker = Fetcher(Limits(attempts=1, timeout=0.01))
    told = estimates.fetch_estimates(asker, Api({"w-1": happening}), ["w-1"], [PAIR])
    [(words, what)] = told.remedies.items()
    assert words == told.problems[PAIR] == told.estimates["w-1"].problem
    assert remedy in what


@pytest.mark.parametrize("status", [200, 400, 403, 404, 422])
def test_what_to_do_about_a_workflow_is_not(status: int) -> None:
    told = estimates.fetch_estimates(Fetcher(Limits()), Api({"w-1": answer(b"", status)}), ["w-1"], [PAIR])
    assert told.remedies == {}


# Workflows.


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"id": "w-1", "project_id": "p-1"}, ""),
        ({"id": "w-1", "project_id": "p-1", "val_errors": None}, ""),
        ({"id": "w-1", "project_id": "p-1", "val_errors": []}, ""),
        ({"id": "w-1", "project_id": "p-1", "val_errors": "none"}, ""),
        ({"id": "w-1", "project_id": "p-1", "val_errors": [1, 2]}, "the workflow has 2 validation error(s)"),
        ({}, ""),  # fields vanish; that there is an answer says enough
        ({"id": "", "project_id": ""}, ""),
        ({"id": 1, "project_id": None}, ""),
        ({"id": "w-2", "project_id": "p-1"}, "the API answers with another workflow: w-2"),
        ({"id": "w-1", "project_id": "p-2"}, "the workflow is in another project: p-2"),
    ],
)
def test_a_workflow_is_the_one_that_was_asked_for(members: dict[str, Any], problem: str) -> None:
    assert ask(answer(json.dumps(members).encode()))[1] == problem


# Anything at all.

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
happenings = st.one_of(
    st.builds(answer, bodies),
    st.builds(answer, bodies, st.integers(200, 599)),
    st.just(NoResponse("garbage", written=True, detail="what came is not an HTTP answer")),
)


@settings(max_examples=60)
@given(st.lists(happenings, min_size=1, max_size=8))
def test_whatever_it_says_is_a_cost_or_a_reason(said: list[ExchangeResult]) -> None:
    told = {f"w{number}": happening for number, happening in enumerate(said)}
    asker = Fetcher(Limits(concurrency=2, attempts=1, timeout=0.01))
    made = estimates.fetch_estimates(asker, Api(told), told, [(one, "p-1") for one in told])
    assert list(made.estimates) == list(told)
    for cost in made.estimates.values():
        assert (cost.cost is None) is bool(cost.problem)
        assert cost.cost is None or (type(cost.cost) is int and 0 <= cost.cost <= 2**53)
    assert all(isinstance(problem, str) for problem in made.problems.values())


# How often, and by whom.


def test_each_workflow_and_each_pair_is_asked_for_once() -> None:
    pairs = [(f"w{number % 3}", f"p{number % 2}") for number in range(60)]

    def choose(request: Request) -> Script:
        priced = request.target.endswith("/estimate")
        return reply(200, b'{"estimated_cost": %d}' % int(request.workflow[1:]) if priced else b'{"val_errors": [1]}')

    with (
        WireServer(choose=choose) as server,
        api.ReadOnlyClient(Endpoint(server.url, ApiKey("key")), 4) as reader,
    ):
        made = estimates.fetch_estimates(
            Fetcher(Limits(concurrency=4)), reader, (workflow for workflow, _ in pairs), pairs
        )
    assert made.estimates == {f"w{number}": Estimate(number) for number in range(3)}
    assert made.problems == dict.fromkeys(pairs, "the workflow has 1 validation error(s)")
    assert Counter(request.target for request in server.requests) == {
        **{f"/v0/workflows/w{number}/estimate": 1 for number in range(3)},
        **{f"/v0/workflows/w{number}?project_id=p{project}": 1 for number in range(3) for project in range(2)},
    }
    assert {request.method for request in server.requests} == {"GET"}


def test_estimates_alone_ask_for_nothing_else() -> None:
    reader = Api({"w-1": answer(b'{"estimated_cost": 3}')})
    assert estimates.fetch_estimates(Fetcher(Limits()), reader, ["w-1", "w-1"], ()).estimates == {"w-1": Estimate(3)}
    assert reader.asked == ["w-1"]


def test_an_api_that_does_not_answer_is_waited_for_once_for_both() -> None:
    silent = NoResponse("timeout", written=True, detail="no answer in time")
    reader = Api({f"w{number}": silent for number in range(9)})
    made = estimates.fetch_estimates(
        Fetcher(Limits(concurrency=1)), reader, reader.told, [(one, "p") for one in reader.told]
    )
    assert set(made.problems.values()) == {one.problem for one in made.estimates.values()} == {"no answer in time"}
    assert len(reader.asked) == 1


def test_who_is_asked_has_no_way_to_create_a_job() -> None:
    assert get_type_hints(estimates.fetch_estimates)["reader"] is estimates.WorkflowReader
    assert {name for name in vars(estimates.WorkflowReader) if not name.startswith("_")} == {
        "bearer",
        "get_estimate",
        "get_workflow",
    }
