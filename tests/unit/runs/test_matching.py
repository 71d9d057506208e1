"""The rules of a lookup: what the API's list of a workflow's jobs proves about jobs in doubt."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.doubts import (
    DAY,
    LONG_AFTER,
    MINUTES,
    SETTLED,
    at,
    created,
    dated,
    describe,
    doubt,
    known,
    listed,
    other_doubt,
    sending,
)

from runner.client.job import JobObject
from runner.core.models import Created, InDoubt, NotCreated, Outcome
from runner.core.settings import DEFAULT_SETTLE
from runner.ledger.rows import SubmissionRow
from runner.runs.listing import Listing
from runner.runs.matching import classify_doubts
from runner.runs.windows import Window


def classify(
    unresolved: Sequence[SubmissionRow],
    jobs: Sequence[Mapping[str, Any]],
    *,
    known: Sequence[SubmissionRow] = (),
    ahead: float = 0,
    creators: Collection[str] = ("me",),
    now: float = SETTLED,
) -> dict[int, str]:
    """The findings for the doubts of the manifest `nightly`, by id."""
    findings = classify_doubts(
        resolvable=[row.id for row in unresolved if row.manifest == "nightly"],
        unresolved=unresolved,
        known=known,
        listing=Listing(tuple(JobObject(job["id"], dict(job)) for job in jobs), timedelta(seconds=ahead)),
        ids_in_use=[row.job_id for row in known if row.job_id is not None],
        creators={"run-1": creators},
        now=at(now),
    )
    assert all(finding.reason for finding in findings)
    return {finding.doubt.id: describe(finding) for finding in findings}


# The window of a doubt claimed at 0, in seconds: from -10 to 5 + 900 + 10.
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
    ("found-before-the-settling-time", ONE, [X], {"now": 10}, {1: "created x"}),
    ("found-in-an-incomplete-list", ONE, [X], {"known": [known("k")]}, {1: "created x"}),
    (
        "each-fits-one-by-time",
        (doubt(1), doubt(2, 600)),
        [listed("late", 1000), listed("early", 100)],
        {},
        {1: "created early", 2: "created late"},
    ),
    (
        "times-fit-no-assignment",
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
    ("before-it", (dated(),), [listed("x", -11)], {}, {1: "doubt x"}),
    ("at-its-end", ONE, [listed("x", END)], {}, {1: "created x"}),
    ("after-it", (dated(),), [listed("x", END + 1)], {}, {1: "doubt x"}),
    ("killed-while-sending", (doubt(1, ended_at=None),), [listed("x", 30 + END - 5)], {}, {1: "created x"}),
    ("others-before-and-after", ONE, [listed("a", -99), X, listed("b", 5000)], {}, {1: "created x"}),
    ("windows-apart", APART, [listed("y", 2003), X], {}, {1: "created x", 2: "created y"}),
    (
        "windows-apart-one-missing",
        (dated(), doubt(2, 2000, "p-2")),
        [listed("y", 2003)],
        {},
        {1: "doubt y", 2: "created y"},  # absent by the next lookup
    ),
    (
        "windows-that-touch",
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
    ("more-than-a-day-off", ONE, [listed("x", -11 - DAY), listed("y", END + 1 + DAY)], {}, {1: "absent"}),
    ("our-clock-was-wrong-but-a-colleague-created-it", ONE, [listed("c", 3603, by="ann")], {}, {1: "absent"}),
    ("the-response-shows-that-our-clock-was-wrong", (dated(3600),), [listed("x", 3603)], {}, {1: "doubt x"}),
    ("clocks-agree-but-the-times-come-from-a-third", (dated(3600),), [Y], {"ahead": 3600}, {1: "doubt y"}),
    ("the-response-has-an-invalid-date", (dated(None),), [listed("x", 3603)], {}, {1: "doubt x"}),
    ("a-backend-a-minute-behind", (dated(),), [listed("x", -57)], {}, {1: "doubt x"}),
    ("a-backend-in-another-timezone", (dated(),), [listed("x", "2026-10-20T06:30:03")], {}, {1: "doubt x"}),
    ("a-day-from-the-response", (dated(),), [listed("x", END + 1 + DAY)], {}, {1: "absent"}),
    # Created jobs show that the server's times are right: then 15 minutes are enough.
    ("calibrated", (dated(),), [listed("x", END + 901), listed("k8")], {"known": [created(8)]}, {1: "absent"}),
    ("calibrated-and-before", (dated(),), [listed("x", -911), listed("k8")], {"known": [created(8)]}, {1: "absent"}),
    ("calibrated-and-near", (dated(),), [listed("x", -910), listed("k8")], {"known": [created(8)]}, {1: "doubt x"}),
    ("calibrated-and-clock-unknown", ONE, [listed("x", -911), listed("k8")], {"known": [created(8)]}, {1: "doubt x"}),
    (
        "calibrated-by-a-job-of-another-time",
        (dated(),),
        [listed("x", -911), listed("k8", 3603)],
        {"known": [created(8, 3601)]},
        {1: "doubt x"},
    ),
    (
        "calibrated-by-a-recovered-job",
        (dated(),),
        [listed("x", -911), listed("k8")],
        {"known": [created(8)._replace(recovered=True)]},
        {1: "doubt x"},
    ),
    (
        "not-calibrated-by-one-of-two",
        (dated(),),
        [listed("x", -911), listed("k8"), listed("k9", -20)],
        {"known": [created(8), created(9)]},
        {1: "doubt x"},
    ),
    ("year-1", ONE, [listed("x", "0001-01-01T00:00:00Z")], {}, {1: "created x"}),
    ("no-time", ONE, [listed("x", None)], {}, {1: "created x"}),
    ("no-time-one-of-two", ONE, [listed("x", None), Y], {}, {1: "doubt x y"}),
    ("unreadable-time", ONE, [listed("x", "yesterday"), Y], {}, {1: "doubt x y"}),
    ("time-in-another-zone", ONE, [listed("x", "2026-10-20T06:30:03.123456789+05:30")], {}, {1: "created x"}),
    ("no-time-and-windows-apart", APART, [listed("x", None)], {}, {1: "doubt x", 2: "doubt x"}),
    # Creators.
    ("by-a-colleague", ONE, [listed("c", by="ann"), X], {}, {1: "created x"}),
    ("by-a-colleague-alone", ONE, [listed("c", by="ann")], {}, {1: "absent"}),
    ("no-creator", ONE, [listed("x", by=None)], {}, {1: "created x"}),
    ("no-creator-and-us", ONE, [listed("n", by=None), X], {}, {1: "doubt n x"}),
    ("our-creator-is-unknown", ONE, [listed("c", by="ann"), X], {"creators": ()}, {1: "doubt c x"}),
    ("held-by-another-submission", ONE, [listed("k"), X], {"known": [known("k")]}, {1: "created x"}),
    # Another manifest in the same workflow.
    ("another-is-sending", (*ONE, sending(7)), [X], {}, {1: "doubt x"}),
    ("another-is-sending-and-no-job", (*ONE, sending(7)), [], {}, {1: "doubt"}),
    ("another-is-sending-at-another-time", (*ONE, sending(7, 5000)), [X], {}, {1: "created x"}),
    ("another-doubt-of-the-pair", (*ONE, other_doubt(7)), [X, Y], {}, {1: "created x"}),
    ("another-doubt-of-the-pair-and-one-job", (*ONE, other_doubt(7)), [X], {}, {1: "doubt x"}),
    ("another-doubt-of-another-pair", (*ONE, other_doubt(7, 0, "p-2")), [X, Y], {}, {1: "created x of x y"}),
    ("another-doubt-of-another-pair-and-no-job", (*ONE, other_doubt(7, 0, "p-2")), [], {}, {1: "absent"}),
    ("only-another-doubt", (other_doubt(7),), [X], {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("unresolved", "jobs", "options", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_the_rules(
    unresolved: Sequence[SubmissionRow],
    jobs: Sequence[Mapping[str, Any]],
    options: dict[str, Any],
    expected: dict[int, str],
) -> None:
    assert classify(unresolved, jobs, **options) == expected


# Without candidates: absent only if the list is complete, and only after the settling time.


def page(*times: float) -> list[dict[str, Any]]:
    """A list of jobs of these times, none of which is a candidate."""
    return [listed(f"c{number}", time, by="ann") for number, time in enumerate(times)]


NEWEST_FIRST = [float(5000 - 2000 * number) for number in range(50)]  # back to -93000, more than a day
KNOWN = {"known": [known("k")]}

LISTS: list[tuple[str, list[dict[str, Any]], dict[str, Any], bool]] = [
    ("empty", [], {}, True),
    ("others", page(1, 2, 3), {}, True),
    ("has-the-known-job", [listed("k", -5000)], KNOWN, True),
    ("lacks-the-known-job", page(1, 2, 3), KNOWN, False),
    ("empty-and-lacks-the-known-job", [], KNOWN, False),
    ("49-oldest-first", page(*NEWEST_FIRST[:0:-1]), {}, True),
    ("50-newest-first", page(*NEWEST_FIRST), {}, True),
    ("100-newest-first", page(*(time for newer in NEWEST_FIRST for time in (newer, newer - 1))), {}, True),
    ("50-newest-first-with-equal-times", page(*NEWEST_FIRST[:25], *NEWEST_FIRST[25:49], -99000.0), {}, True),
    ("50-oldest-first", page(*reversed(NEWEST_FIRST)), {}, False),
    ("50-unsorted", page(*NEWEST_FIRST[1:], NEWEST_FIRST[0]), {}, False),
    ("50-of-one-time", page(*[-99.0] * 50), {}, False),
    ("50-newest-first-not-far-enough", page(*(time + 93_000 - DAY - 10 for time in NEWEST_FIRST)), {}, False),
    ("50-one-without-a-time", [*page(*NEWEST_FIRST[:49]), listed("c", None, by="ann")], {}, False),
]


@pytest.mark.parametrize(("jobs", "options", "complete"), [pytest.param(*row[1:], id=row[0]) for row in LISTS])
def test_absent_only_by_a_complete_list(jobs: list[dict[str, Any]], options: dict[str, Any], *, complete: bool) -> None:
    assert classify(ONE, jobs, **options) == {1: "absent" if complete else "doubt"}
    assert classify(ONE, jobs, now=5 + 15 * MINUTES - 1, **options) == {1: "doubt"}


@pytest.mark.parametrize(("ended", "sent"), [(at(5), 5), (None, 30)])
def test_absent_only_after_the_settling_time(ended: datetime | None, sent: float) -> None:
    lost = (doubt(1, ended_at=ended),)
    assert classify(lost, [], now=sent + 900 - 0.001) == {1: "doubt"}
    assert classify(lost, [], now=sent + 900) == {1: "absent"}
    [finding] = classify_doubts([1], lost, [], Listing((), timedelta(0)), (), {}, at(60))
    until = at(sent + 900)
    assert finding.reason == f"not at the API so far; a slow server may still create it until {until:%H:%M:%S} UTC"
    [finding] = classify_doubts([1], lost, [], Listing((), timedelta(0)), (), {}, at(sent), timedelta(0))
    assert describe(finding) == "absent"


def test_one_finding_for_each_resolvable_doubt() -> None:
    unresolved = [*TWO, other_doubt(3), doubt(4, 5000), sending(5, 5000), doubt(6, 9000, "p-2")]
    assert sorted(classify(unresolved, [X])) == [1, 2, 4, 6]


def listing(jobs: Sequence[Mapping[str, Any]], incomplete: str = "", date: datetime | None = None) -> Listing:
    return Listing(tuple(JobObject(job["id"], dict(job)) for job in jobs), timedelta(0), incomplete, date)


def test_an_incomplete_list_resolves_nothing() -> None:
    for jobs, expected in (([], "doubt"), ([X], "doubt x"), ([listed("x", -11)], "doubt x")):
        [finding] = classify_doubts([1], ONE, [], listing(jobs, "has_more"), (), {}, LONG_AFTER)
        assert describe(finding) == expected
        assert finding.reason == "the API's list of jobs may be incomplete or outdated (has_more)"


@pytest.mark.parametrize(
    ("doubts", "made", "without_job", "with_job"),
    [
        (ONE, 4, "doubt", "created x"),  # or the server's clock is behind
        (ONE, 5, "absent", "created x"),
        ((dated(7200),), 7200 - 6, "doubt", "doubt x"),
        ((dated(7200),), 7200 + 5, "absent", "created x"),
        ((dated(-7200),), 5 - 7200, "doubt", "created x"),
    ],
)
def test_an_outdated_list_proves_nothing_absent(
    doubts: Sequence[SubmissionRow], made: float, without_job: str, with_job: str
) -> None:
    """A cache returned it. If the doubt's own response has a date, that shows whether the server's clock is behind."""
    lists = [listing(jobs, date=at(made)) for jobs in ([], [X])]
    findings = [classify_doubts([1], doubts, [], jobs, (), {}, LONG_AFTER)[0] for jobs in lists]
    assert [describe(finding) for finding in findings] == [without_job, with_job]


# A simulation in which the truth about each send is known.

PAIRS = ("p-1", "p-2")


@dataclass(frozen=True)
class Send:
    """A send and the truth about it. Times are in seconds; `made` and `shown` are None if it created no job.

    `ended` is None if its process was killed; `answered`: the response arrived, so that it is not in doubt.
    """

    number: int
    project: str
    claimed: float
    ended: float | None
    made: float | None
    shown: float | None
    mine: bool
    answered: bool

    @property
    def sent(self) -> float:
        return self.claimed + 30 if self.ended is None else self.ended

    def row(self, now: float) -> SubmissionRow | None:
        """What the ledger has at a time, unless a lookup resolved it."""
        make = doubt if self.mine else other_doubt
        if self.claimed > now:
            return None
        if self.ended is not None and self.ended > now:
            return sending(self.number, self.claimed)
        if not self.answered:
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
    """Lookups at growing times in one workflow, and their findings."""

    sends: Sequence[Send]
    colleagues: Sequence[Colleague]
    creators: Collection[str]
    ahead: float
    order: random.Random
    resolved: dict[int, Outcome] = field(default_factory=dict)

    def listing(self, now: float) -> Listing:
        jobs = [
            self._job(f"job-{send.number}", send.made, "me")
            for send in self.sends
            if send.made is not None and send.shown is not None and send.shown <= now
        ]
        jobs += [self._job(f"c-{job.number}", job.made, job.by) for job in self.colleagues if job.made <= now]
        self.order.shuffle(jobs)
        # `Date` and the times of jobs are truncated to seconds, and the response took a moment.
        return Listing(tuple(jobs), timedelta(seconds=self.ahead - self.order.random()))

    def _job(self, job_id: str, made: float, by: str) -> JobObject:
        return JobObject(job_id, listed(job_id, float(int(made + self.ahead)), by))

    def look_up(self, now: float) -> None:
        rows = [row for send in self.sends if (row := self._row(send, now)) is not None]
        unresolved = [row for row in rows if row.state in ("in_doubt", "sending")]
        known = [row for row in rows if row.job_id is not None]
        findings = classify_doubts(
            resolvable=[row.id for row in unresolved if self.sends[row.id].mine],
            unresolved=unresolved,
            known=known,
            listing=self.listing(now),
            ids_in_use=[row.job_id for row in known if row.job_id is not None],
            creators={"run-1": self.creators},
            now=at(now),
        )
        for finding in findings:
            if not isinstance(finding.outcome, InDoubt):
                self.resolved[finding.doubt.id] = finding.outcome

    def _row(self, send: Send, now: float) -> SubmissionRow | None:
        outcome, row = self.resolved.get(send.number), send.row(now)
        if row is None or isinstance(outcome, NotCreated):
            return None
        if isinstance(outcome, Created):
            return row._replace(state="created", job_id=outcome.job_id, recovered=outcome.recovered)
        return row

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
    answered = draw(st.integers(0, 3)) == 0
    ended = claimed + draw(st.floats(0, 30)) if answered or draw(st.booleans()) else None
    sent = claimed + 30 if ended is None else ended
    if draw(st.booleans()):
        # A response that arrived was made after the job; else a slow backend has until the settling time, list and all.
        latest = sent if answered else sent + 900
        made = draw(st.floats(claimed, latest) | st.floats(claimed, sent))
        return Send(number, project, claimed, ended, made, draw(st.floats(made, latest)), mine, answered)
    return Send(number, project, claimed, ended, None, None, mine, answered)


@st.composite
def simulations(draw: st.DrawFn) -> tuple[Simulation, list[float]]:
    count = draw(st.integers(1, 5))
    colleagues = [
        Colleague(number, draw(st.floats(-100, 4000)), draw(st.sampled_from(["ann", "me"])))
        for number in range(draw(st.integers(0, 3)))
    ]
    simulation = Simulation(
        [draw(sends(number)) for number in range(count)],
        colleagues,
        draw(st.sampled_from([("me",), ()])),
        draw(st.sampled_from([0.0, 3600.0, -3600.0, 0.5])),
        random.Random(draw(st.integers(0, 9))),  # noqa: S311 - a failing example must fail again
    )
    ready = max([0.0, *(send.sent for send in simulation.sends if send.mine)])
    times = sorted(ready + draw(st.floats(0, 1200)) for _ in range(draw(st.integers(1, 3))))
    return simulation, [*times, SETTLED, SETTLED]  # twice: what is left beside others of its pair needs another lookup


@settings(max_examples=400)
@given(simulations())
def test_findings_are_true(drawn: tuple[Simulation, list[float]]) -> None:
    simulation, times = drawn
    doubts = [send for send in simulation.sends if send.mine and not send.answered]
    assume(doubts)
    for now in times:
        simulation.look_up(now)

        adopted = {number: job.job_id for number, job in simulation.resolved.items() if isinstance(job, Created)}
        answered = {f"job-{send.number}" for send in simulation.sends if send.answered and send.made is not None}
        assert len(set(adopted.values()) | answered) == len(adopted) + len(answered), "one job, two submissions"
        lost = [row for send in simulation.sends if not send.answered and (row := send.row(now)) is not None]
        for job_id in adopted.values():
            # In the window of some lost send: which one's may be open, as a list may show the later job first. The
            # server's clock is known to a second.
            windows, made = [Window.of_doubt(row, DEFAULT_SETTLE) for row in lost], simulation.made_of(job_id)
            assert any(window.start <= at(made + 1) and at(made - 1) <= window.end for window in windows)

        alone = not any(job.by == "me" or not simulation.creators for job in simulation.colleagues)
        for project in PAIRS:
            of_pair = [send for send in doubts if send.project == project]
            existing = sum(send.made is not None for send in of_pair)
            counts = Counter(type(simulation.resolved.get(send.number)) for send in of_pair)
            # Doubts of one pair are interchangeable: only the numbers must be right.
            assert counts[NotCreated] <= len(of_pair) - existing, "a job that exists, or will, was declared absent"
            assert not alone or counts[Created] <= existing, "a job that does not exist was declared created"

    one_pair = len({send.project for send in simulation.sends if not send.answered}) == 1
    if alone and one_pair and all(send.mine or send.answered for send in simulation.sends):
        assert len(simulation.resolved) == len(doubts), "everything could be resolved"


def test_a_job_listed_later_than_one_of_its_pair_is_not_absent() -> None:
    """The first lookup finds the second job alone: given to the first doubt, it would leave the second without one."""
    sends = [
        Send(0, "p-1", 0, 5, 3, 100, mine=True, answered=False),
        Send(1, "p-1", 60, 65, 62, 62, mine=True, answered=False),
    ]
    simulation = Simulation(sends, [], ["me"], 0, random.Random(0))  # noqa: S311 - it shuffles a list
    for now in (70, SETTLED, SETTLED):
        simulation.look_up(now)
    assert {number: type(outcome) for number, outcome in simulation.resolved.items()} == {0: Created, 1: Created}
