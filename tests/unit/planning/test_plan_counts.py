"""Over many runs under one run key, while the manifest changes under them: how often each pair is bought."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import ledger_history
from support.ledger_history import API, THEN, TIMEOUT, created, in_doubt, job, not_created, send, start_run

from runner.core.errors import UsageError
from runner.core.models import Created, InDoubt, Job, Manifest, NotCreated, Submission
from runner.ledger.journal import RunJournal
from runner.ledger.rows import Claim, Decision, RecordedOutcome, SubmissionRow
from runner.ledger.store import Ledger
from runner.planning import plan
from runner.runs import record

Pair = tuple[str, str]

NAME = "nightly"
KEY = "forever"
PAIRS: tuple[Pair, ...] = (("w-1", "p-1"), ("w-1", "p-2"), ("w-2", "p-1"))

pairs = st.sampled_from(PAIRS)
chances = st.randoms(use_true_random=False)
# What becomes of one submission of a run, in the order of the manifest.
fates = st.sampled_from(
    ["created"] * 5 + ["failed", "in doubt", "released", "failed, then created", "never its turn", "crash"]
)


class Machine(RuleBasedStateMachine):
    """One manifest, one run key, one ledger. The model only counts."""

    def __init__(self, template: Path, path: Path) -> None:
        super().__init__()
        shutil.copyfile(template, path)
        self.ledger = Ledger(path)
        self.ledger.query("PRAGMA synchronous = OFF")
        self.numbers = count(1)
        self.jobs: list[Job] = []
        self.aside: list[Job] = []  # in another file for the time being
        self.most: Counter[Pair] = Counter()  # how often a run ever found each pair listed and enabled at once
        self.again: Counter[Pair] = Counter()  # how often a person asked for one more
        self.made: Counter[str] = Counter()  # the ids of the jobs that were created

    def teardown(self) -> None:
        self.in_the_end_everything_succeeds()
        self.ledger.close()

    # What a person, a generator and a merge do to a manifest.

    @initialize(first=st.lists(pairs, min_size=1, max_size=5))
    def write(self, first: list[Pair]) -> None:
        self.jobs = [Job(self._name(), *pair) for pair in first]

    @rule(pair=pairs, times=st.integers(1, 2))
    def add(self, pair: Pair, times: int) -> None:
        self.jobs += [Job(self._name(), *pair) for _ in range(times)]

    @precondition(lambda self: self.jobs)
    @rule(chance=chances)
    def remove(self, chance: random.Random) -> None:
        del self.jobs[chance.randrange(len(self.jobs))]

    @rule(chance=chances)
    def shuffle(self, chance: random.Random) -> None:
        chance.shuffle(self.jobs)

    @precondition(lambda self: self.jobs)
    @rule(chance=chances)
    def rename(self, chance: random.Random) -> None:
        place = chance.randrange(len(self.jobs))
        self.jobs[place] = replace(self.jobs[place], name=self._name())

    @rule(chance=chances)
    def exchange_names(self, chance: random.Random) -> None:
        names = [job.name for job in self.jobs]
        chance.shuffle(names)
        self.jobs = [replace(job, name=name) for job, name in zip(self.jobs, names, strict=True)]

    @rule(chance=chances)
    def regenerate(self, chance: random.Random) -> None:
        """The same pairs in any order, and names that count up."""
        chance.shuffle(self.jobs)
        self.jobs = [replace(job, name=f"job-{number}") for number, job in enumerate(self.jobs)]

    @rule(chance=chances)
    def split(self, chance: random.Random) -> None:
        """Half of the entries move to another file."""
        chance.shuffle(self.jobs)
        half = len(self.jobs) // 2
        self.aside += self.jobs[half:]
        self.jobs = self.jobs[:half]

    @rule()
    def join(self) -> None:
        """And back. In one file their names must differ."""
        names = {job.name for job in self.jobs}
        self.jobs += [replace(job, name=self._name()) if job.name in names else job for job in self.aside]
        self.jobs = [replace(job, name=f"{job.name}.{place}") for place, job in enumerate(self.jobs)]
        self.aside = []

    @precondition(lambda self: self.jobs)
    @rule(chance=chances)
    def switch(self, chance: random.Random) -> None:
        place = chance.randrange(len(self.jobs))
        self.jobs[place] = replace(self.jobs[place], enabled=not self.jobs[place].enabled)

    # Runs, and what is settled between them.

    @rule(data=st.data())
    def run(self, data: st.DataObject) -> None:
        missing = self._listed() - self._bought()
        planned = self._begun()
        assert Counter(one.job.pair for one in planned.to_send) == missing
        self._send(planned.to_send, data)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), chance=chances)
    def run_a_part(self, data: st.DataObject, chance: random.Random) -> None:
        """However the names are parted, the parts together send what the whole would, each entry once."""
        names = [job.name for job in self.jobs]
        part = chance.sample(names, chance.randint(1, len(names)))
        rest = [name for name in names if name not in part]
        whole = self._plan().to_send
        planned = self._begun(part)
        others = self._plan(rest).to_send if rest else ()
        assert sorted(one.job.name for one in (*planned.to_send, *others)) == sorted(one.job.name for one in whole)
        assert {one.job.name for one in planned.to_send} <= set(part)
        self._send(planned.to_send, data)

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """A look-up finds doubtful jobs, or finds that there are none."""
        self.ledger.mark_intents_in_doubt(API, NAME, TIMEOUT)
        for doubt in self.ledger.unresolved(API, NAME):
            outcome = data.draw(st.sampled_from([self._made, not_created, None]), "found")
            if outcome is not None:
                self._settle(doubt, outcome())

    @rule(data=st.data(), chance=chances)
    def once_more(self, data: st.DataObject, chance: random.Random) -> None:
        """`--again`: exactly one more than a plain run sends, and that one on purpose."""
        self.ledger.mark_intents_in_doubt(API, NAME, TIMEOUT)
        of = self._plan().match.by_name
        names = [job.name for job in self.jobs if job.name in of and of[job.name].state == "created"]
        if not names:
            return
        name = chance.choice(names)
        plain = self._plan().to_send
        try:
            planned = self._begun(again=[name])
        except UsageError:  # the one more that was asked for before may exist
            assert any(one.again and (one.name, one.state) == (name, "in_doubt") for one in self._standings())
            return
        assert planned.to_send[:-1] == plain
        assert planned.to_send[-1].again
        assert planned.to_send[-1].job.name == name
        self._send(planned.to_send, data)
        self.again[planned.to_send[-1].job.pair] += 1

    @rule(pair=pairs)
    def one_entry_more_buys_one(self, pair: Pair) -> None:
        """Whatever was bought on purpose before. An entry that makes up for a removed one buys nothing."""
        self._succeed()
        before = self._bought()
        owed = max(0, self._listed()[pair] + 1 - before[pair])
        assert owed <= 1
        self.jobs.append(Job(self._name(), *pair))
        self._succeed()
        assert self._bought() - before == Counter({pair: owed})

    def in_the_end_everything_succeeds(self) -> None:
        before = self._bought()
        self._succeed()
        after, listed = self._bought(), self._listed()
        for pair in PAIRS:
            assert after[pair] == max(before[pair], listed[pair])
        assert self._plan().to_send == ()

    # What holds at all times.

    @invariant()
    def no_pair_is_bought_more_often_than_it_was_ever_listed_at_once(self) -> None:
        assert self._bought() <= self.most
        on_purpose = Counter(one.pair for one in self._standings() if one.again)
        assert on_purpose <= self.again

    @invariant()
    def every_job_is_told_of_once(self) -> None:
        assert all(times == 1 for times in self.made.values())
        standings = self._standings()
        assert {one.job_id for one in standings if one.job_id} == set(self.made)
        matched = plan.match_submissions(self.jobs, standings)
        told = [one.id for one in (*matched.by_name.values(), *matched.unlisted)]
        assert len(told) == len(set(told))
        assert {one.id for one in standings if one.state in ("sending", "in_doubt", "created")} <= set(told)
        of = {job.name: job.pair for job in self.jobs}
        assert all(one.pair == of[name] for name, one in matched.by_name.items())

    # What the rules are made of.

    def _name(self) -> str:
        return f"n-{next(self.numbers)}"

    def _made(self) -> Created:
        job_id = f"j-{next(self.numbers)}"
        self.made[job_id] += 1
        return created(job_id)

    def _listed(self) -> Counter[Pair]:
        return Counter(job.pair for job in self.jobs if job.enabled)

    def _standings(self) -> list[SubmissionRow]:
        return self.ledger.submissions(API, NAME, KEY)

    def _bought(self) -> Counter[Pair]:
        """What exists or may exist, but what was bought on purpose."""
        there = ("sending", "in_doubt", "created")
        return Counter(one.pair for one in self._standings() if one.state in there and not one.again)

    def _plan(self, only: Sequence[str] = (), again: Sequence[str] = ()) -> plan.Plan:
        return plan.build_plan(Manifest(NAME, "-", "0", tuple(self.jobs)), only, self._standings(), again)

    def _begun(self, only: Sequence[str] = (), again: Sequence[str] = ()) -> plan.Plan:
        """What `execution` does before it sends."""
        self.ledger.mark_intents_in_doubt(API, NAME, TIMEOUT)
        self.most |= self._listed()
        planned = self._plan(only, again)
        run = start_run(self.ledger, f"r-{next(self.numbers)}", self.jobs, manifest=NAME, key=KEY, end=None)
        self.book = RunJournal(self.ledger, run)
        names = [one.job.name for one in planned.to_send if not one.again]
        assert len(names) == len(set(names))
        assert all(one.job.enabled for one in planned.to_send if not one.again)
        return planned

    def _send(self, sends: Sequence[Submission], data: st.DataObject) -> None:
        for submission in sends:
            fate = data.draw(fates, submission.job.name)
            if fate == "never its turn":
                continue
            self._claim(submission)
            match fate:
                case "created":
                    self._decide(submission, self._made())
                case "failed":
                    self._decide(submission, not_created())
                case "in doubt":
                    self._decide(submission, in_doubt())
                case "released":
                    self.book.commit([], [submission], [])
                case "failed, then created":
                    self.book.commit(
                        [RecordedOutcome(submission, not_created(), THEN)], [], [Claim(submission, 2, THEN, 30.0)]
                    )
                    self._decide(submission, self._made())
                case "crash":
                    return

    def _succeed(self) -> None:
        for submission in self._begun().to_send:
            self._claim(submission)
            self._decide(submission, self._made())

    def _claim(self, submission: Submission) -> None:
        self.book.commit([], [], [Claim(submission, 1, THEN, 30.0)])

    def _decide(self, submission: Submission, outcome: Created | NotCreated | InDoubt) -> None:
        self.book.commit([RecordedOutcome(submission, outcome, THEN)], [], [])

    def _settle(self, doubt: SubmissionRow, outcome: Created | NotCreated) -> None:
        self.ledger.resolve([Decision(doubt.id, outcome, None, "me", THEN, "settled", "")])


@pytest.mark.hypothesis
def test_a_pair_is_bought_as_often_as_it_is_listed_whatever_happens(tmp_path: Path) -> None:
    template = tmp_path / "template.db"
    with ledger_history.open_ledger(template):
        pass
    numbers = count(1)
    run_state_machine_as_test(
        cast("Any", lambda: Machine(template, tmp_path / f"{next(numbers)}.db")),
        settings=settings(
            max_examples=80,
            stateful_step_count=30,
            phases=[Phase.generate],  # to shrink it takes minutes, as each try makes a ledger
        ),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with ledger_history.open_ledger(tmp_path / "ledger.db") as opened:
        yield opened


def once_more(ledger: Ledger) -> RunJournal:
    """A job was created, and one more of it is claimed on purpose by a run that goes on."""
    one = job("a")
    send(ledger, start_run(ledger, "r-1", [one], key=KEY), one, created("j-1"))
    book = RunJournal(ledger, start_run(ledger, "r-2", [one], key=KEY, end=None))
    book.commit([], [], [Claim(Submission(one, 2, again=True), 1, THEN, 30.0)])
    return book


def test_one_more_that_was_never_sent_is_not_told_of_as_in_doubt(ledger: Ledger) -> None:
    one = job("a")
    once_more(ledger).commit([], [Submission(one, 2, again=True)], [])
    assert [standing.state for standing in ledger.submissions(API, NAME, KEY)] == ["created", "released"]
    told = record.load_record(ledger, next(ledger.runs()))
    assert [type(entry.outcome).__name__ for entry in told.entries] == ["Created"]


def test_one_more_that_failed_is_told_of_and_a_plain_run_does_not_send_it(ledger: Ledger) -> None:
    one = job("a")
    once_more(ledger).commit([RecordedOutcome(Submission(one, 2, again=True), not_created(), THEN)], [], [])
    told = record.load_record(ledger, next(ledger.runs()))
    assert [type(entry.outcome).__name__ for entry in told.entries] == ["Created", "NotCreated"]
    planned = plan.build_plan(Manifest(NAME, "-", "0", (one,)), (), ledger.submissions(API, NAME, KEY))
    assert planned.to_send == ()


def test_no_two_submissions_of_a_plan_are_the_same_one_however_often_a_name_is_given(ledger: Ledger) -> None:
    """The ledger would refuse to claim the second, in the middle of a run."""
    one = job("a")
    once_more(ledger).commit([RecordedOutcome(Submission(one, 2, again=True), not_created(), THEN)], [], [])
    planned = plan.build_plan(Manifest(NAME, "-", "0", (one,)), (), ledger.submissions(API, NAME, KEY), ["a", "a"])
    ordinals = [submission.ordinal for submission in planned.to_send]
    assert len(ordinals) == len(set(ordinals))
