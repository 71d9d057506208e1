"""The look-up: what the API's list of a workflow's jobs says of jobs in doubt. What is not certain stays in doubt."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import ledger_history

from runner.client.exchange import Exchange
from runner.client.job import JobObject
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.models import Created, InDoubt, NotCreated, Outcome
from runner.core.settings import DEFAULT_SETTLE
from runner.ledger.connect import create_ledger
from runner.ledger.rows import SubmissionRow
from runner.ledger.store import Ledger
from runner.runs.reconcile import Finding, Listing, Reconciler, Window, classify_doubts

MINUTES = 60.0
DAY = 24 * 60 * MINUTES
SETTLED = 10 * 60 * MINUTES  # any time at which nothing can still be created


def at(seconds: float) -> datetime:
    """A time in these tests: so many seconds after the first send was claimed."""
    return ledger_history.THEN + timedelta(seconds=seconds)


LONG_AFTER = at(SETTLED)


def doubt(number: int, claimed: float = 0, project: str = "p-1", **members: Any) -> SubmissionRow:
    """A submission in doubt whose exchange took five seconds."""
    given: dict[str, Any] = {
        "manifest": "nightly",
        "state": "in_doubt",
        "error": ledger_history.TIMEOUT,
        "job_id": None,
    } | members
    return SubmissionRow(
        id=number,
        api=ledger_history.API,
        run_key="day:2026-10-20",
        run_id="run-1",
        name=f"j{number}",
        workflow_id="w-1",
        project_id=project,
        ordinal=number,
        again=False,
        labels={},
        attempts=1,
        claimed_at=at(claimed),
        ended_at=given.pop("ended_at", at(claimed + 5)),
        timeout=30.0,
        estimate=None,
        cost=None,
        val_errors=0,
        recovered=False,
        assigned=True,
        candidates=(),
        **given,
    )


def answered(ahead: float | None = 0) -> SubmissionRow:
    """The first, with an answer that left it open, from a server whose clock was so far ahead, or did not tell."""
    date = "soon" if ahead is None else format_datetime(at(5 + ahead), usegmt=True)
    return doubt(1, error=replace(ledger_history.TIMEOUT, date=date))


def theirs(number: int, claimed: float = 0, project: str = "p-1", **members: Any) -> SubmissionRow:
    """One of another manifest in the same ledger, whose lock somebody else may hold."""
    return doubt(number, claimed, project, manifest="other", **members)


def sending(number: int, claimed: float = 0) -> SubmissionRow:
    return theirs(number, claimed, state="sending", error=None, ended_at=None)


def known(job_id: str) -> SubmissionRow:
    return doubt(99, state="created", error=None, job_id=job_id)


def sure(number: int, claimed: float = 0, **members: Any) -> SubmissionRow:
    """One whose answer came: `k` and its number."""
    return doubt(number, claimed, state="created", error=None, job_id=f"k{number}", **members)


def listed(job_id: str, created_at: float | str | None = 3, by: str | None = "me") -> dict[str, Any]:
    """A job in the API's list; `created_at` is a time of these tests, or text as it may come."""
    time = created_at if created_at is None or isinstance(created_at, str) else at(created_at).isoformat()
    members = {"id": job_id, "created_at": time, "created_by": by}
    return {name: value for name, value in members.items() if value is not None}


def in_words(finding: Finding) -> str:
    """`created x`, `created x of x y` where which is anyone's guess, `absent`, `doubt`, or `doubt x y` (candidates)."""
    match finding.outcome:
        case Created(job_id, recovered=True, assigned=assigned, candidates=ids):
            assert assigned is (not ids)
            return " ".join(["created", job_id, *(["of", *ids] if ids else [])])
        case NotCreated(error=error):
            assert error.kind == "not_found"
            return "absent"
        case InDoubt(error=error, candidates=ids):
            assert error == finding.doubt.error
            return " ".join(["doubt", *ids])
    return repr(finding.outcome)


def judged(
    unsettled: Sequence[SubmissionRow],
    jobs: Sequence[Mapping[str, Any]],
    *,
    knows: Sequence[SubmissionRow] = (),
    ahead: float = 0,
    creators: Collection[str] = ("me",),
    now: float = SETTLED,
) -> dict[int, str]:
    """What is said of each doubt of the manifest that is judged, `nightly`."""
    findings = classify_doubts(
        ours=[one.id for one in unsettled if one.manifest == "nightly"],
        unsettled=unsettled,
        known=knows,
        listing=Listing(tuple(JobObject(job["id"], dict(job)) for job in jobs), timedelta(seconds=ahead)),
        taken=[one.job_id for one in knows if one.job_id is not None],
        creators={"run-1": creators},
        now=at(now),
    )
    assert all(finding.reason for finding in findings)
    return {finding.doubt.id: in_words(finding) for finding in findings}


# The window of a doubt that is claimed at 0 goes from -10 to 5 + 900 + 10 seconds.
END = 915
ONE, TWO = (doubt(1),), (doubt(1), doubt(2))
TWO_PROJECTS = (doubt(1), doubt(2, project="p-2"))
APART = (doubt(1), doubt(2, 2000, "p-2"))
X, Y, Z = listed("x"), listed("y"), listed("z")

Row = tuple[str, Sequence[SubmissionRow], Sequence[Mapping[str, Any]], dict[str, Any], dict[int, str]]
ROWS: list[Row] = [
    # As many jobs as doubts.
    ("one", ONE, [X], {}, {1: "created x"}),
    ("two-of-a-pair", TWO, [X, Y], {}, {1: "created x", 2: "created y"}),
    ("two-projects", TWO_PROJECTS, [X, Y], {}, {1: "created x of x y", 2: "created y of x y"}),
    ("found-before-it-is-settled", ONE, [X], {"now": 10}, {1: "created x"}),
    ("found-in-a-list-that-lacks-others", ONE, [X], {"knows": [known("k")]}, {1: "created x"}),
    (
        "each-has-a-time-that-fits",
        (doubt(1), doubt(2, 600)),
        [listed("late", 1000), listed("early", 100)],
        {},
        {1: "created early", 2: "created late"},
    ),
    (
        "times-that-fit-no-assignment",
        (doubt(1), doubt(2, 600)),
        [listed("x", 100), listed("y", 101)],
        {},
        {1: "doubt x y", 2: "doubt x y"},
    ),
    # Fewer.
    ("fewer-of-a-pair", (*TWO, doubt(3)), [X], {}, {1: "created x", 2: "doubt", 3: "doubt"}),
    (
        "fewer-of-a-pair-goes-by-time",
        (doubt(1), doubt(2, 600)),
        [listed("x", END + 1)],
        {},
        {1: "doubt", 2: "created x"},
    ),
    ("fewer-of-two-projects", TWO_PROJECTS, [X], {}, {1: "doubt x", 2: "doubt x"}),
    # More.
    ("more", ONE, [X, Y], {}, {1: "doubt x y"}),
    ("more-than-two", TWO, [X, Y, Z], {}, {1: "doubt x y z", 2: "doubt x y z"}),
    # Windows.
    ("at-its-start", ONE, [listed("x", -10)], {}, {1: "created x"}),
    ("before-it", (answered(),), [listed("x", -11)], {}, {1: "doubt x"}),
    ("at-its-end", ONE, [listed("x", END)], {}, {1: "created x"}),
    ("after-it", (answered(),), [listed("x", END + 1)], {}, {1: "doubt x"}),
    ("killed-while-it-was-sent", (doubt(1, ended_at=None),), [listed("x", 30 + END - 5)], {}, {1: "created x"}),
    ("others-before-and-after", ONE, [listed("a", -99), X, listed("b", 5000)], {}, {1: "created x"}),
    ("windows-apart", APART, [listed("y", 2003), X], {}, {1: "created x", 2: "created y"}),
    (
        "windows-apart-one-is-not-there",
        (answered(), doubt(2, 2000, "p-2")),
        [listed("y", 2003)],
        {},
        {1: "doubt y", 2: "created y"},  # absent by the next look
    ),
    (
        "windows-that-touch-are-one",
        (doubt(1), doubt(2, END + 10, "p-2")),
        [listed("x", 3)],
        {},
        {1: "doubt x", 2: "doubt x"},
    ),
    # Clocks and times.
    ("server-an-hour-ahead", ONE, [listed("x", 3603), listed("y", 3)], {"ahead": 3600}, {1: "created x"}),
    ("server-an-hour-behind", ONE, [listed("x", -3597), listed("y", 3)], {"ahead": -3600}, {1: "created x"}),
    ("our-clock-was-an-hour-behind", ONE, [listed("x", 3603)], {}, {1: "doubt x"}),
    ("our-clock-was-a-day-ahead", ONE, [listed("x", 3 - DAY)], {}, {1: "doubt x"}),
    ("no-clock-is-that-wrong", ONE, [listed("x", -11 - DAY), listed("y", END + 1 + DAY)], {}, {1: "absent"}),
    ("our-clock-was-wrong-and-a-colleague-is-right", ONE, [listed("c", 3603, by="ann")], {}, {1: "absent"}),
    ("the-answer-says-that-our-clock-was-wrong", (answered(3600),), [listed("x", 3603)], {}, {1: "doubt x"}),
    ("both-clocks-were-as-now-and-the-times-are-of-a-third", (answered(3600),), [Y], {"ahead": 3600}, {1: "doubt y"}),
    ("the-answer-s-date-is-none", (answered(None),), [listed("x", 3603)], {}, {1: "doubt x"}),
    ("a-backend-a-minute-behind", (answered(),), [listed("x", -57)], {}, {1: "doubt x"}),
    ("a-backend-in-a-zone-of-its-own", (answered(),), [listed("x", "2026-10-20T06:30:03")], {}, {1: "doubt x"}),
    ("a-day-from-the-answer-s-time", (answered(),), [listed("x", END + 1 + DAY)], {}, {1: "absent"}),
    # Jobs of answers that came say that the server's times are right: then a quarter of an hour will do.
    ("calibrated", (answered(),), [listed("x", END + 901), listed("k8")], {"knows": [sure(8)]}, {1: "absent"}),
    ("calibrated-and-before", (answered(),), [listed("x", -911), listed("k8")], {"knows": [sure(8)]}, {1: "absent"}),
    ("calibrated-and-near", (answered(),), [listed("x", -910), listed("k8")], {"knows": [sure(8)]}, {1: "doubt x"}),
    ("calibrated-and-our-clock-unknown", ONE, [listed("x", -911), listed("k8")], {"knows": [sure(8)]}, {1: "doubt x"}),
    (
        "calibrated-by-one-of-another-time",
        (answered(),),
        [listed("x", -911), listed("k8", 3603)],
        {"knows": [sure(8, 3601)]},
        {1: "doubt x"},
    ),
    (
        "calibrated-by-one-that-a-look-found",
        (answered(),),
        [listed("x", -911), listed("k8")],
        {"knows": [sure(8)._replace(recovered=True)]},
        {1: "doubt x"},
    ),
    (
        "not-calibrated-by-one-of-two",
        (answered(),),
        [listed("x", -911), listed("k8"), listed("k9", -20)],
        {"knows": [sure(8), sure(9)]},
        {1: "doubt x"},
    ),
    ("no-time-is-set", ONE, [listed("x", "0001-01-01T00:00:00Z")], {}, {1: "created x"}),
    ("no-time", ONE, [listed("x", None)], {}, {1: "created x"}),
    ("no-time-one-of-two", ONE, [listed("x", None), Y], {}, {1: "doubt x y"}),
    ("unreadable-time", ONE, [listed("x", "yesterday"), Y], {}, {1: "doubt x y"}),
    ("time-in-another-zone", ONE, [listed("x", "2026-10-20T06:30:03.123456789+05:30")], {}, {1: "created x"}),
    ("no-time-and-windows-apart", APART, [listed("x", None)], {}, {1: "doubt x", 2: "doubt x"}),
    # Who.
    ("by-a-colleague", ONE, [listed("c", by="ann"), X], {}, {1: "created x"}),
    ("by-a-colleague-alone", ONE, [listed("c", by="ann")], {}, {1: "absent"}),
    ("by-nobody", ONE, [listed("x", by=None)], {}, {1: "created x"}),
    ("by-nobody-and-by-us", ONE, [listed("n", by=None), X], {}, {1: "doubt n x"}),
    ("we-do-not-know-who-we-are", ONE, [listed("c", by="ann"), X], {"creators": ()}, {1: "doubt c x"}),
    ("held-by-another-submission", ONE, [listed("k"), X], {"knows": [known("k")]}, {1: "created x"}),
    # Another manifest in the same workflow.
    ("another-is-sending", (*ONE, sending(7)), [X], {}, {1: "doubt x"}),
    ("another-is-sending-and-nothing-is-there", (*ONE, sending(7)), [], {}, {1: "doubt"}),
    ("another-is-sending-at-another-time", (*ONE, sending(7, 5000)), [X], {}, {1: "created x"}),
    ("another-has-its-like", (*ONE, theirs(7)), [X, Y], {}, {1: "created x"}),
    ("another-has-its-like-and-one-is-there", (*ONE, theirs(7)), [X], {}, {1: "doubt x"}),
    ("another-has-another", (*ONE, theirs(7, 0, "p-2")), [X, Y], {}, {1: "created x of x y"}),
    ("another-has-another-and-none-is-there", (*ONE, theirs(7, 0, "p-2")), [], {}, {1: "absent"}),
    ("only-another-s", (theirs(7),), [X], {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("unsettled", "jobs", "options", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_the_rules(
    unsettled: Sequence[SubmissionRow],
    jobs: Sequence[Mapping[str, Any]],
    options: dict[str, Any],
    expected: dict[int, str],
) -> None:
    assert judged(unsettled, jobs, **options) == expected


# When nothing is found: absent only if the list can be trusted, and only when it is settled.


def page(*times: float) -> list[dict[str, Any]]:
    """A list of jobs of these times, none of which is anybody's candidate."""
    return [listed(f"c{number}", time, by="ann") for number, time in enumerate(times)]


NEWEST_FIRST = [float(5000 - 2000 * number) for number in range(50)]  # back to -93000, more than a day
KNOWS = {"knows": [known("k")]}

LISTS: list[tuple[str, list[dict[str, Any]], dict[str, Any], bool]] = [
    ("empty", [], {}, True),
    ("others", page(1, 2, 3), {}, True),
    ("shows-what-is-known", [listed("k", -5000)], KNOWS, True),
    ("lacks-what-is-known", page(1, 2, 3), KNOWS, False),
    ("empty-and-lacks-what-is-known", [], KNOWS, False),
    ("49-oldest-first", page(*NEWEST_FIRST[:0:-1]), {}, True),
    ("50-newest-first", page(*NEWEST_FIRST), {}, True),
    ("100-newest-first", page(*(time for one in NEWEST_FIRST for time in (one, one - 1))), {}, True),
    ("50-newest-first-with-equal-times", page(*NEWEST_FIRST[:25], *NEWEST_FIRST[25:49], -99000.0), {}, True),
    ("50-oldest-first", page(*reversed(NEWEST_FIRST)), {}, False),
    ("50-unsorted", page(*NEWEST_FIRST[1:], NEWEST_FIRST[0]), {}, False),
    ("50-of-one-time", page(*[-99.0] * 50), {}, False),
    ("50-newest-first-not-far-enough", page(*(time + 93_000 - DAY - 10 for time in NEWEST_FIRST)), {}, False),
    ("50-and-one-has-no-time", [*page(*NEWEST_FIRST[:49]), listed("c", None, by="ann")], {}, False),
]


@pytest.mark.parametrize(("jobs", "options", "trusted"), [pytest.param(*row[1:], id=row[0]) for row in LISTS])
def test_absent_only_by_a_list_that_can_be_trusted(
    jobs: list[dict[str, Any]], options: dict[str, Any], *, trusted: bool
) -> None:
    assert judged(ONE, jobs, **options) == {1: "absent" if trusted else "doubt"}
    assert judged(ONE, jobs, now=5 + 15 * MINUTES - 1, **options) == {1: "doubt"}


@pytest.mark.parametrize(("ended", "sent"), [(at(5), 5), (None, 30)])
def test_absent_only_when_a_slow_backend_would_be_done(ended: datetime | None, sent: float) -> None:
    lost = (doubt(1, ended_at=ended),)
    assert judged(lost, [], now=sent + 900 - 0.001) == {1: "doubt"}
    assert judged(lost, [], now=sent + 900) == {1: "absent"}
    [finding] = classify_doubts([1], lost, [], Listing((), timedelta(0)), (), {}, at(60))
    until = at(sent + 900)
    assert finding.reason == f"not at the API so far; a slow server may create it until {until:%H:%M:%S} UTC"
    [finding] = classify_doubts([1], lost, [], Listing((), timedelta(0)), (), {}, at(sent), timedelta(0))
    assert in_words(finding) == "absent"


def test_of_each_that_is_judged_exactly_one_thing_is_said() -> None:
    unsettled = [*TWO, theirs(3), doubt(4, 5000), sending(5, 5000), doubt(6, 9000, "p-2")]
    assert sorted(judged(unsettled, [X])) == [1, 2, 4, 6]


def listing(jobs: Sequence[Mapping[str, Any]], part: str = "", date: datetime | None = None) -> Listing:
    return Listing(tuple(JobObject(job["id"], dict(job)) for job in jobs), timedelta(0), part, date)


def test_a_part_of_a_list_shows_nothing_absent_and_not_how_many_there_are() -> None:
    for jobs, words in (([], "doubt"), ([X], "doubt x"), ([listed("x", -11)], "doubt x")):
        [finding] = classify_doubts([1], ONE, [], listing(jobs, "has_more"), (), {}, LONG_AFTER)
        assert in_words(finding) == words
        assert finding.reason == "the API's list of jobs may be incomplete or outdated (has_more)"


@pytest.mark.parametrize(
    ("lost", "made", "none", "one"),
    [
        (ONE, 4, "doubt", "created x"),  # or the server's clock is behind
        (ONE, 5, "absent", "created x"),
        ((answered(7200),), 7200 - 6, "doubt", "doubt x"),
        ((answered(7200),), 7200 + 5, "absent", "created x"),
        ((answered(-7200),), 5 - 7200, "doubt", "created x"),
    ],
)
def test_a_list_of_before_the_send_shows_nothing_absent(
    lost: Sequence[SubmissionRow], made: float, none: str, one: str
) -> None:
    """It is a cache's. Where the doubt's own answer has a date, a clock that is behind is told from that."""
    found = [classify_doubts([1], lost, [], listing(jobs, date=at(made)), (), {}, LONG_AFTER)[0] for jobs in ([], [X])]
    assert [in_words(finding) for finding in found] == [none, one]


# Against a world in which it is known what became of each send.

PAIRS = ("p-1", "p-2")


@dataclass(frozen=True)
class Send:
    """A send and the truth about it. Times are seconds; `made` and `shown` are None where no job came of it.

    `ended` is None where its process was killed; `told`: the answer came, so that it is in doubt no more.
    """

    number: int
    project: str
    claimed: float
    ended: float | None
    made: float | None
    shown: float | None
    mine: bool
    told: bool

    @property
    def sent(self) -> float:
        return self.claimed + 30 if self.ended is None else self.ended

    def standing(self, now: float) -> SubmissionRow | None:
        """What the ledger says of it at a time, as long as no look-up has settled it."""
        make = doubt if self.mine else theirs
        if self.claimed > now:
            return None
        if self.ended is not None and self.ended > now:
            return sending(self.number, self.claimed)
        if not self.told:
            return make(
                self.number, self.claimed, self.project, ended_at=None if self.ended is None else at(self.ended)
            )
        if self.made is None:
            return None
        return make(self.number, self.claimed, self.project, state="created", error=None, job_id=f"job-{self.number}")


@dataclass(frozen=True)
class Colleague:
    number: int
    made: float
    by: str


@dataclass
class Simulation:
    """Look-ups at growing times in one workflow, and what came of them."""

    sends: Sequence[Send]
    colleagues: Sequence[Colleague]
    creators: Collection[str]
    ahead: float
    order: random.Random
    settled: dict[int, Outcome] = field(default_factory=dict)
    words: dict[int, str] = field(default_factory=dict)

    def listing(self, now: float) -> Listing:
        jobs = [
            self._job(f"job-{one.number}", one.made, "me")
            for one in self.sends
            if one.made is not None and one.shown is not None and one.shown <= now
        ]
        jobs += [self._job(f"c-{one.number}", one.made, one.by) for one in self.colleagues if one.made <= now]
        self.order.shuffle(jobs)
        # `Date` and the times of jobs are cut to seconds, and the answer took a moment.
        return Listing(tuple(jobs), timedelta(seconds=self.ahead - self.order.random()))

    def _job(self, job_id: str, made: float, by: str) -> JobObject:
        return JobObject(job_id, listed(job_id, float(int(made + self.ahead)), by))

    def look(self, now: float) -> None:
        standings = [self._now(one, now) for one in self.sends]
        unsettled = [one for one in standings if one is not None and one.state in ("in_doubt", "sending")]
        known = [one for one in standings if one is not None and one.job_id is not None]
        findings = classify_doubts(
            ours=[one.id for one in unsettled if self.sends[one.id].mine],
            unsettled=unsettled,
            known=known,
            listing=self.listing(now),
            taken=[one.job_id for one in known if one.job_id is not None],
            creators={"run-1": self.creators},
            now=at(now),
        )
        for finding in findings:
            self.words[finding.doubt.id] = in_words(finding)
            if not isinstance(finding.outcome, InDoubt):
                self.settled[finding.doubt.id] = finding.outcome

    def _now(self, send: Send, now: float) -> SubmissionRow | None:
        outcome, standing = self.settled.get(send.number), send.standing(now)
        if standing is None or isinstance(outcome, NotCreated):
            return None
        if isinstance(outcome, Created):
            return standing._replace(state="created", job_id=outcome.job_id, recovered=outcome.recovered)
        return standing

    def made_of(self, job_id: str) -> float:
        kind, _, number = job_id.partition("-")
        if kind == "c":
            return self.colleagues[int(number)].made
        made = self.sends[int(number)].made
        assert made is not None
        return made


@st.composite
def sends(draw: st.DrawFn, number: int) -> Send:
    project, claimed, mine = draw(st.sampled_from(PAIRS)), draw(st.floats(0, 2500)), draw(st.booleans())
    told = draw(st.integers(0, 3)) == 0
    ended = claimed + draw(st.floats(0, 30)) if told or draw(st.booleans()) else None
    sent = claimed + 30 if ended is None else ended
    if draw(st.booleans()):
        # An answer that came was made of what is there; else a slow backend has until it is settled, list and all.
        latest = sent if told else sent + 900
        made = draw(st.floats(claimed, latest) | st.floats(claimed, sent))
        return Send(number, project, claimed, ended, made, draw(st.floats(made, latest)), mine, told)
    return Send(number, project, claimed, ended, None, None, mine, told)


@st.composite
def simulations(draw: st.DrawFn) -> tuple[Simulation, list[float]]:
    count = draw(st.integers(1, 5))
    colleagues = [
        Colleague(number, draw(st.floats(-100, 4000)), draw(st.sampled_from(["ann", "me"])))
        for number in range(draw(st.integers(0, 3)))
    ]
    world = Simulation(
        [draw(sends(number)) for number in range(count)],
        colleagues,
        draw(st.sampled_from([("me",), ()])),
        draw(st.sampled_from([0.0, 3600.0, -3600.0, 0.5])),
        random.Random(draw(st.integers(0, 9))),  # noqa: S311 - a failing example is to fail again
    )
    ready = max([0.0, *(one.sent for one in world.sends if one.mine)])
    looks = sorted(ready + draw(st.floats(0, 1200)) for _ in range(draw(st.integers(1, 3))))
    return world, [*looks, SETTLED, SETTLED]  # twice: what is left beside its like is judged by the next look


@settings(max_examples=400)
@given(simulations())
def test_what_is_said_is_true(simulated: tuple[Simulation, list[float]]) -> None:
    world, looks = simulated
    doubts = [one for one in world.sends if one.mine and not one.told]
    assume(doubts)
    for now in looks:
        world.look(now)

        adopted = {number: one.job_id for number, one in world.settled.items() if isinstance(one, Created)}
        held = {f"job-{one.number}" for one in world.sends if one.told and one.made is not None}
        assert len(set(adopted.values()) | held) == len(adopted) + len(held), "one job, two submissions"
        lost = [standing for one in world.sends if not one.told and (standing := one.standing(now)) is not None]
        for job_id in adopted.values():
            # In some lost send's window: which one's it is may be open, as a list may show the later one's first. The
            # server's clock is known to a second.
            windows, made = [Window.of_doubt(standing, DEFAULT_SETTLE) for standing in lost], world.made_of(job_id)
            assert any(window.start <= at(made + 1) and at(made - 1) <= window.end for window in windows)

        alone = not any(one.by == "me" or not world.creators for one in world.colleagues)
        for project in PAIRS:
            of_pair = [one for one in doubts if one.project == project]
            there = sum(one.made is not None for one in of_pair)
            said = Counter(type(world.settled.get(one.number)) for one in of_pair)
            # Those of one pair are alike: what must hold is how many of them are said to be there, and not to be.
            assert said[NotCreated] <= len(of_pair) - there, "a job that exists, or will, was said not to be there"
            assert not alone or said[Created] <= there, "a job that does not exist was said to be there"

    one_pair = len({one.project for one in world.sends if not one.told}) == 1
    if alone and one_pair and all(one.mine or one.told for one in world.sends):
        assert len(world.settled) == len(doubts), "all could be known"


def test_one_that_shows_later_than_its_like_is_not_said_to_be_absent() -> None:
    """The first look finds the second's job alone: given to the first, it would leave the second without its own."""
    both = [Send(0, "p-1", 0, 5, 3, 100, mine=True, told=False), Send(1, "p-1", 60, 65, 62, 62, mine=True, told=False)]
    world = Simulation(both, [], ["me"], 0, random.Random(0))  # noqa: S311 - it shuffles a list
    for now in (70, SETTLED, SETTLED):
        world.look(now)
    assert {number: type(outcome) for number, outcome in world.settled.items()} == {0: Created, 1: Created}


# How it is asked, and what is kept.


@dataclass
class Api:
    """An API whose list of jobs is `answers` by workflow, in turn, and which tells each job that is in `whole`."""

    answers: Mapping[str, ExchangeResult]
    whole: Mapping[str, ExchangeResult] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        assert exchange.timeout == 7
        self.asked.append(workflow_id)
        answer = self.answers[workflow_id]
        self.meanwhile()
        return answer

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:
        assert exchange.timeout == 7
        self.asked.append(f"{workflow_id}/{job_id}")
        return self.whole.get(job_id, GONE)


GONE = NoResponse("connect", written=False, detail="no connection: refused")


def answer(body: bytes | list[dict[str, Any]], status: int = 200, date: datetime | str | None = None) -> Response:
    data = body if isinstance(body, bytes) else json.dumps({"jobs": body}).encode()
    headers = {} if date is None else {"date": date if isinstance(date, str) else format_datetime(date, usegmt=True)}
    return Response(status, headers, data, LONG_AFTER)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    create_ledger(tmp_path / "ledger.db")
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def lose(ledger: Ledger, *names: str, run_id: str = "run-1", workflow: str = "w-1", **options: Any) -> list[int]:
    """A run whose sends ended in doubt; each is in the project of its name."""
    jobs = [ledger_history.job(name, workflow, name) for name in names]
    run = ledger_history.start_run(ledger, run_id, jobs, **options)
    return [ledger_history.send(ledger, run, one, ledger_history.in_doubt("old")) for one in jobs]


def make(ledger: Ledger, name: str, job_id: str, *, run_id: str, workflow: str = "w-1", by: str = "me") -> None:
    """A run that created one job."""
    one = ledger_history.job(name, workflow, name)
    body = json.dumps({"id": job_id, "created_by": by}).encode()
    ledger_history.send(
        ledger, ledger_history.start_run(ledger, run_id, [one]), one, ledger_history.created(job_id, body)
    )


def look(ledger: Ledger, api: Api, *, manifest: str = "nightly", now: datetime = LONG_AFTER) -> dict[str, str]:
    """Look once for all doubts of a manifest: what is said of each, by name."""
    by = Reconciler(ledger, api, ledger_history.API, "run run-2", timeout=7, now=lambda: now)
    findings = by.look_up(ledger.unresolved(ledger_history.API, manifest))
    words = {finding.doubt.name: in_words(finding) for finding in findings}
    kept = {one.id: one for one in ledger.all_submissions()}
    for finding in findings:  # what is said is what the ledger says from now on
        standing = kept[finding.doubt.id]
        state = {Created: "created", NotCreated: "not_created", InDoubt: "in_doubt"}[type(finding.outcome)]
        assert standing.state == state
        if isinstance(finding.outcome, InDoubt | Created):
            assert standing.candidates == finding.outcome.candidates
    return words


NOT_LISTS: list[tuple[str, ExchangeResult, str]] = [
    ("forbidden", answer([], 403), "could not be read (HTTP 403)"),
    ("server-error", answer([], 500), "could not be read (HTTP 500)"),
    ("partial", answer([], 206), "could not be read (HTTP 206)"),
    ("no-json", answer(b"<html>"), "could not be read (HTTP 200)"),
    ("half", answer(b'{"jobs": ['), "could not be read"),
    ("no-jobs", answer(b'{"items": []}'), "could not be read"),
    ("an-object", answer(b'{"jobs": {"x": 1}}'), "could not be read"),
    ("a-job-without-id", answer(b'{"jobs": [{"created_at": ""}]}'), "could not be read"),
    ("an-array", answer(b"[]"), "could not be read"),
    ("gone", GONE, "the API could not be asked: no connection: refused"),
]


@pytest.mark.parametrize(("happening", "words"), [pytest.param(*row[1:], id=row[0]) for row in NOT_LISTS])
def test_what_is_no_list_settles_nothing(ledger: Ledger, happening: ExchangeResult, words: str) -> None:
    lose(ledger, "a", "b")
    by = Reconciler(ledger, Api({"w-1": happening}), ledger_history.API, "run run-2", timeout=7, now=lambda: LONG_AFTER)
    findings = by.look_up(ledger.unresolved(ledger_history.API))
    assert [in_words(one) for one in findings] == ["doubt old", "doubt old"]
    assert all(words in one.reason for one in findings)
    assert [(one.state, one.candidates) for one in ledger.all_submissions()] == [("in_doubt", ("old",))] * 2


def test_a_list_that_says_that_it_is_a_part_settles_nothing(ledger: Ledger) -> None:
    lose(ledger, "a")
    [job] = [listed("x")]
    assert look(ledger, Api({"w-1": answer(b'{"jobs": [], "next": "/v0/more"}')})) == {"a": "doubt"}
    assert look(ledger, Api({"w-1": answer(json.dumps({"jobs": [job], "total": 2}).encode())})) == {"a": "doubt x"}
    old = replace(answer([job]), headers={"age": "60"})
    assert look(ledger, Api({"w-1": old})) == {"a": "doubt x"}
    paged = {"jobs": [job], "pagination": {"limit": 50, "offset": 0, "total": 1}}
    assert look(ledger, Api({"w-1": answer(json.dumps(paged).encode())})) == {"a": "created x"}


@pytest.mark.parametrize("body", [b'{"jobs": null}', b'{"jobs": [], "more": NaN}'])
def test_an_empty_list_is_a_list(ledger: Ledger, body: bytes) -> None:
    [number] = lose(ledger, "a")
    assert look(ledger, Api({"w-1": answer(body)}), now=at(60)) == {"a": "doubt"}
    assert look(ledger, Api({"w-1": answer(body)})) == {"a": "absent"}
    [(when, by, what, detail)] = ledger_history.decisions(ledger, number)
    assert (when, by, what) == (LONG_AFTER.isoformat(), "run run-2", "not found")
    assert detail == "was in doubt (no answer in time), and is not among the workflow's jobs"


@pytest.mark.parametrize(
    ("date", "created_at", "found"),
    [
        (LONG_AFTER + timedelta(hours=1), 3603, True),
        (LONG_AFTER + timedelta(hours=1), 3 - DAY, False),
        (LONG_AFTER - timedelta(hours=1), -3597, True),
        (LONG_AFTER, 3, True),
        (None, 3, True),
        ("soon", 3, True),
        ("Tue, 20 Oct 2026 11:00:00 -0000", 3, True),
    ],
)
def test_times_are_corrected_by_the_server_s_date(
    ledger: Ledger, date: datetime | str | None, created_at: float, *, found: bool
) -> None:
    lose(ledger, "a")
    api = Api({"w-1": answer([listed("x", created_at)], date=date)})
    assert look(ledger, api) == {"a": "created x" if found else "absent"}


@pytest.mark.parametrize(
    ("told", "cost"),
    [
        (answer(b'{"id": "x", "cost": 7}'), 7),
        (answer(b'{"id": "y", "cost": 7}'), 1),
        (answer(b"{}"), 1),
        (answer(b'{"id": "x", "cost": 7}', 404), 1),
        (GONE, 1),
    ],
)
def test_a_found_job_is_kept_whole_or_as_it_was_listed(ledger: Ledger, told: ExchangeResult, cost: int) -> None:
    [number] = lose(ledger, "a")
    api = Api({"w-1": answer([{**listed("x"), "cost": 1}])}, {"x": told})
    assert look(ledger, api) == {"a": "created x"}
    assert api.asked == ["w-1", "w-1/x"]
    [standing] = ledger.all_submissions()
    assert (standing.job_id, standing.recovered, standing.cost) == ("x", True, cost)
    body = json.loads(ledger_history.response_body(ledger, number))
    assert body == ({"id": "x", "cost": 7} if cost == 7 else {**listed("x"), "cost": 1})
    assert [row[1:] for row in ledger_history.decisions(ledger, number)] == [("run run-2", "found", "x")]


def test_each_workflow_is_asked_once_and_judged_by_itself(ledger: Ledger) -> None:
    lose(ledger, "a", "b")
    lose(ledger, "c", run_id="run-2", workflow="w-2", key="day:2026-10-19")
    api = Api({"w-1": answer([listed("x"), listed("y")]), "w-2": answer([], 403)})
    assert look(ledger, api) == {"a": "created x of x y", "b": "created y of x y", "c": "doubt old"}
    assert api.asked == ["w-1", "w-1/x", "w-1/y", "w-2"]


def test_who_created_the_jobs_of_a_run_is_asked_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads all that the run sent: for each doubt anew, a thousand doubts of 100,000 jobs took an hour.

    Found by the load.
    """
    jobs = [ledger_history.job(name, workflow, name) for workflow in ("w-1", "w-2", "w-3") for name in ("a", "b")]
    run = ledger_history.start_run(ledger, "run-1", jobs)
    for one in jobs:
        ledger_history.send(ledger, run, one, ledger_history.in_doubt("old"))
    asked: list[str] = []
    creators = Ledger.creators

    def counted(self: Ledger, run_id: str) -> set[str]:
        asked.append(run_id)
        return creators(self, run_id)

    monkeypatch.setattr(Ledger, "creators", counted)
    look(ledger, Api({workflow: answer([]) for workflow in ("w-1", "w-2", "w-3")}))
    assert asked == ["run-1"]


def test_what_another_manifest_got_while_the_list_was_on_its_way_is_not_taken(ledger: Ledger) -> None:
    lose(ledger, "a")
    one = ledger_history.job("b", "w-1", "b")
    run = ledger_history.start_run(ledger, "run-9", [one], manifest="other", end=None)
    number = ledger_history.send(ledger, run, one, None)

    def told() -> None:
        with ledger.transaction():
            ledger.save_outcomes([(number, ledger_history.created("theirs"), at(6))])

    api = Api({"w-1": answer([listed("theirs")])}, meanwhile=told)
    assert look(ledger, api) == {"a": "absent"}


def test_a_job_that_a_submission_of_another_workflow_has_is_nobody_s_candidate(ledger: Ledger) -> None:
    make(ledger, "c", "x", run_id="run-0", workflow="w-2")
    lose(ledger, "a")
    assert look(ledger, Api({"w-1": answer([listed("x")])})) == {"a": "absent"}


def test_a_job_that_is_listed_twice_is_one_job(ledger: Ledger) -> None:
    one = ledger_history.job("a")
    run = ledger_history.start_run(ledger, "run-1", [one])
    for ordinal in (1, 2):
        ledger_history.send(ledger, run, one, ledger_history.in_doubt(), ordinal)
    look(ledger, Api({"w-1": answer([listed("x"), listed("x")])}))
    assert [standing.job_id for standing in ledger.all_submissions()] == ["x", None]


def test_a_key_of_another_user_does_not_hide_its_jobs(ledger: Ledger) -> None:
    make(ledger, "c", "x", run_id="run-0", workflow="w-2", by="the user of the old key")
    lose(ledger, "a")
    assert look(ledger, Api({"w-1": answer([listed("y", by="the user of the new key")])}))["a"] != "absent"


def test_what_is_anyone_s_guess_stays_one_for_the_manifest_that_looks_last(ledger: Ledger) -> None:
    lose(ledger, "a")
    lose(ledger, "b", run_id="run-9", manifest="other")
    api = Api({"w-1": answer([listed("x"), listed("y")])})
    assert look(ledger, api) == {"a": "created x of x y"}
    assert look(ledger, api, manifest="other") == {"b": "created y of x y"}


def test_nothing_in_doubt_asks_nothing(ledger: Ledger) -> None:
    assert look(ledger, Api({})) == {}


@pytest.mark.parametrize(("time", "ahead"), [("0001-01-01T00:00:00Z", 1), ("9999-12-31T23:59:59Z", -1)])
def test_a_time_that_no_clock_of_ours_shows_is_unknown(time: str, ahead: int) -> None:
    job = JobObject("x", {"created_at": time})
    assert Listing((job,), timedelta(hours=ahead)).created_at(job) is None
