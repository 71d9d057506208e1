"""How often each pair is submitted over many runs with one run key, while the manifest changes between them."""

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
randoms = st.randoms(use_true_random=False)
# The fate of each submission of a run, in manifest order.
job_fates = st.sampled_from(
    ["created"] * 5 + ["failed", "in doubt", "released", "failed, then created", "not reached", "crash"]
)


class PlanMachine(RuleBasedStateMachine):
    """One manifest, one run key, one ledger. The model only counts jobs."""

    def __init__(self, template: Path, path: Path) -> None:
        super().__init__()
        shutil.copyfile(template, path)
        self.ledger = Ledger(path)
        self.ledger.query("PRAGMA synchronous = OFF")
        self.numbers = count(1)
        self.jobs: list[Job] = []
        self.moved_jobs: list[Job] = []  # currently in another manifest file
        self.max_listed: Counter[Pair] = Counter()  # the most entries of each pair enabled in any run
        self.again: Counter[Pair] = Counter()  # how often `--again` requested one more
        self.created_ids: Counter[str] = Counter()  # ids of the jobs created

    def teardown(self) -> None:
        self.finally_everything_succeeds()
        self.ledger.close()

    # Changes to the manifest, by hand, by a generator or by a merge

    @initialize(first=st.lists(pairs, min_size=1, max_size=5))
    def write(self, first: list[Pair]) -> None:
        self.jobs = [Job(self._unique_name(), *pair) for pair in first]

    @rule(pair=pairs, times=st.integers(1, 2))
    def add(self, pair: Pair, times: int) -> None:
        self.jobs += [Job(self._unique_name(), *pair) for _ in range(times)]

    @precondition(lambda self: self.jobs)
    @rule(chance=randoms)
    def remove(self, chance: random.Random) -> None:
        del self.jobs[chance.randrange(len(self.jobs))]

    @rule(chance=randoms)
    def shuffle(self, chance: random.Random) -> None:
        chance.shuffle(self.jobs)

    @precondition(lambda self: self.jobs)
    @rule(chance=randoms)
    def rename(self, chance: random.Random) -> None:
        index = chance.randrange(len(self.jobs))
        self.jobs[index] = replace(self.jobs[index], name=self._unique_name())

    @rule(chance=randoms)
    def exchange_names(self, chance: random.Random) -> None:
        names = [job.name for job in self.jobs]
        chance.shuffle(names)
        self.jobs = [replace(job, name=name) for job, name in zip(self.jobs, names, strict=True)]

    @rule(chance=randoms)
    def regenerate(self, chance: random.Random) -> None:
        """The same pairs in any order, with sequential names."""
        chance.shuffle(self.jobs)
        self.jobs = [replace(job, name=f"job-{number}") for number, job in enumerate(self.jobs)]

    @rule(chance=randoms)
    def split(self, chance: random.Random) -> None:
        """Move half of the entries to another file."""
        chance.shuffle(self.jobs)
        half = len(self.jobs) // 2
        self.moved_jobs += self.jobs[half:]
        self.jobs = self.jobs[:half]

    @rule()
    def merge(self) -> None:
        """Move them back. Names must be unique in one file."""
        names = {job.name for job in self.jobs}
        self.jobs += [replace(job, name=self._unique_name()) if job.name in names else job for job in self.moved_jobs]
        self.jobs = [replace(job, name=f"{job.name}.{index}") for index, job in enumerate(self.jobs)]
        self.moved_jobs = []

    @precondition(lambda self: self.jobs)
    @rule(chance=randoms)
    def toggle_enabled(self, chance: random.Random) -> None:
        index = chance.randrange(len(self.jobs))
        self.jobs[index] = replace(self.jobs[index], enabled=not self.jobs[index].enabled)

    # Runs, and lookups between them

    @rule(data=st.data())
    def run(self, data: st.DataObject) -> None:
        pairs_to_send = self._listed_pairs() - self._created_pairs()
        run_plan = self._start_run()
        assert Counter(submission.job.pair for submission in run_plan.to_send) == pairs_to_send
        self._send(run_plan.to_send, data)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), chance=randoms)
    def run_subset(self, data: st.DataObject, chance: random.Random) -> None:
        """Runs of complementary subsets together send what one run would, each entry once."""
        names = [job.name for job in self.jobs]
        subset = chance.sample(names, chance.randint(1, len(names)))
        other_names = [name for name in names if name not in subset]
        all_submissions = self._plan().to_send
        run_plan = self._start_run(subset)
        other_submissions = self._plan(other_names).to_send if other_names else ()
        assert sorted(submission.job.name for submission in (*run_plan.to_send, *other_submissions)) == sorted(
            submission.job.name for submission in all_submissions
        )
        assert {submission.job.name for submission in run_plan.to_send} <= set(subset)
        self._send(run_plan.to_send, data)

    @rule(data=st.data())
    def resolve_doubts(self, data: st.DataObject) -> None:
        """A lookup finds the jobs in doubt, or finds that they do not exist."""
        self.ledger.mark_intents_in_doubt(API, NAME, TIMEOUT)
        for submission in self.ledger.unresolved(API, NAME):
            outcome = data.draw(st.sampled_from([self._create_job, not_created, None]), "found")
            if outcome is not None:
                self._resolve(submission, outcome())

    @rule(data=st.data(), chance=randoms)
    def run_with_again(self, data: st.DataObject, chance: random.Random) -> None:
        """`--again` sends exactly one submission more than a plain run, and marks it as such."""
        self.ledger.mark_intents_in_doubt(API, NAME, TIMEOUT)
        by_name = self._plan().match.by_name
        names = [job.name for job in self.jobs if job.name in by_name and by_name[job.name].state == "created"]
        if not names:
            return
        name = chance.choice(names)
        plain_submissions = self._plan().to_send
        try:
            run_plan = self._start_run(again=[name])
        except UsageError:  # an earlier extra job is in doubt
            assert any(
                submission.again and (submission.name, submission.state) == (name, "in_doubt")
                for submission in self._submissions()
            )
            return
        assert run_plan.to_send[:-1] == plain_submissions
        assert run_plan.to_send[-1].again
        assert run_plan.to_send[-1].job.name == name
        self._send(run_plan.to_send, data)
        self.again[run_plan.to_send[-1].job.pair] += 1

    @rule(pair=pairs)
    def adding_an_entry_creates_one_job(self, pair: Pair) -> None:
        """Regardless of earlier extra jobs. An entry that replaces a removed one creates nothing."""
        self._succeed()
        before = self._created_pairs()
        expected_count = max(0, self._listed_pairs()[pair] + 1 - before[pair])
        assert expected_count <= 1
        self.jobs.append(Job(self._unique_name(), *pair))
        self._succeed()
        assert self._created_pairs() - before == Counter({pair: expected_count})

    def finally_everything_succeeds(self) -> None:
        before = self._created_pairs()
        self._succeed()
        after, listed_pairs = self._created_pairs(), self._listed_pairs()
        for pair in PAIRS:
            assert after[pair] == max(before[pair], listed_pairs[pair])
        assert self._plan().to_send == ()

    # Invariants

    @invariant()
    def no_pair_is_created_more_often_than_it_was_listed(self) -> None:
        assert self._created_pairs() <= self.max_listed
        extra_pairs = Counter(submission.pair for submission in self._submissions() if submission.again)
        assert extra_pairs <= self.again

    @invariant()
    def every_job_is_matched_once(self) -> None:
        assert all(count == 1 for count in self.created_ids.values())
        submissions = self._submissions()
        assert {submission.job_id for submission in submissions if submission.job_id} == set(self.created_ids)
        match = plan.match_submissions(self.jobs, submissions)
        matched_ids = [submission.id for submission in (*match.by_name.values(), *match.unlisted)]
        assert len(matched_ids) == len(set(matched_ids))
        assert {
            submission.id for submission in submissions if submission.state in ("sending", "in_doubt", "created")
        } <= set(matched_ids)
        pair_by_name = {job.name: job.pair for job in self.jobs}
        assert all(submission.pair == pair_by_name[name] for name, submission in match.by_name.items())

    # Helpers

    def _unique_name(self) -> str:
        return f"n-{next(self.numbers)}"

    def _create_job(self) -> Created:
        job_id = f"j-{next(self.numbers)}"
        self.created_ids[job_id] += 1
        return created(job_id)

    def _listed_pairs(self) -> Counter[Pair]:
        return Counter(job.pair for job in self.jobs if job.enabled)

    def _submissions(self) -> list[SubmissionRow]:
        return self.ledger.submissions(API, NAME, KEY)

    def _created_pairs(self) -> Counter[Pair]:
        """The pairs of jobs that exist or may exist, except extra jobs."""
        existing_states = ("sending", "in_doubt", "created")
        return Counter(
            submission.pair
            for submission in self._submissions()
            if submission.state in existing_states and not submission.again
        )

    def _plan(self, only: Sequence[str] = (), again: Sequence[str] = ()) -> plan.Plan:
        return plan.build_plan(Manifest(NAME, "-", "0", tuple(self.jobs)), only, self._submissions(), again)

    def _start_run(self, only: Sequence[str] = (), again: Sequence[str] = ()) -> plan.Plan:
        """Do what `runs.execution` does before it sends."""
        self.ledger.mark_intents_in_doubt(API, NAME, TIMEOUT)
        self.max_listed |= self._listed_pairs()
        run_plan = self._plan(only, again)
        run = start_run(self.ledger, f"r-{next(self.numbers)}", self.jobs, manifest=NAME, key=KEY, end=None)
        self.journal = RunJournal(self.ledger, run)
        names = [submission.job.name for submission in run_plan.to_send if not submission.again]
        assert len(names) == len(set(names))
        assert all(submission.job.enabled for submission in run_plan.to_send if not submission.again)
        return run_plan

    def _send(self, sends: Sequence[Submission], data: st.DataObject) -> None:
        for submission in sends:
            fate = data.draw(job_fates, submission.job.name)
            if fate == "not reached":
                continue
            self._claim(submission)
            match fate:
                case "created":
                    self._record_outcome(submission, self._create_job())
                case "failed":
                    self._record_outcome(submission, not_created())
                case "in doubt":
                    self._record_outcome(submission, in_doubt())
                case "released":
                    self.journal.commit([], [submission], [])
                case "failed, then created":
                    self.journal.commit(
                        [RecordedOutcome(submission, not_created(), THEN)], [], [Claim(submission, 2, THEN, 30.0)]
                    )
                    self._record_outcome(submission, self._create_job())
                case "crash":
                    return

    def _succeed(self) -> None:
        for submission in self._start_run().to_send:
            self._claim(submission)
            self._record_outcome(submission, self._create_job())

    def _claim(self, submission: Submission) -> None:
        self.journal.commit([], [], [Claim(submission, 1, THEN, 30.0)])

    def _record_outcome(self, submission: Submission, outcome: Created | NotCreated | InDoubt) -> None:
        self.journal.commit([RecordedOutcome(submission, outcome, THEN)], [], [])

    def _resolve(self, submission: SubmissionRow, outcome: Created | NotCreated) -> None:
        self.ledger.resolve([Decision(submission.id, outcome, None, "me", THEN, "settled", "")])


@pytest.mark.hypothesis
def test_pair_is_created_as_often_as_it_is_listed(tmp_path: Path) -> None:
    template = tmp_path / "template.db"
    with ledger_history.open_ledger(template):
        pass
    numbers = count(1)
    run_state_machine_as_test(
        cast("Any", lambda: PlanMachine(template, tmp_path / f"{next(numbers)}.db")),
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            phases=[Phase.generate],  # shrinking takes minutes, as each attempt creates a ledger
        ),
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with ledger_history.open_ledger(tmp_path / "ledger.db") as opened:
        yield opened


def create_one_more(ledger: Ledger) -> RunJournal:
    """Create a job, then claim one more with `again` in a run that has not finished."""
    job_a = job("a")
    send(ledger, start_run(ledger, "r-1", [job_a], key=KEY), job_a, created("j-1"))
    journal = RunJournal(ledger, start_run(ledger, "r-2", [job_a], key=KEY, end=None))
    journal.commit([], [], [Claim(Submission(job_a, 2, again=True), 1, THEN, 30.0)])
    return journal


def test_released_extra_job_is_not_reported(ledger: Ledger) -> None:
    job_a = job("a")
    create_one_more(ledger).commit([], [Submission(job_a, 2, again=True)], [])
    assert [submission.state for submission in ledger.submissions(API, NAME, KEY)] == ["created", "released"]
    run_record = record.load_record(ledger, next(ledger.runs()))
    assert [type(entry.outcome).__name__ for entry in run_record.entries] == ["Created"]


def test_failed_extra_job_is_reported_and_not_retried_by_a_plain_run(ledger: Ledger) -> None:
    job_a = job("a")
    create_one_more(ledger).commit([RecordedOutcome(Submission(job_a, 2, again=True), not_created(), THEN)], [], [])
    run_record = record.load_record(ledger, next(ledger.runs()))
    assert [type(entry.outcome).__name__ for entry in run_record.entries] == ["Created", "NotCreated"]
    run_plan = plan.build_plan(Manifest(NAME, "-", "0", (job_a,)), (), ledger.submissions(API, NAME, KEY))
    assert run_plan.to_send == ()


def test_repeated_again_name_plans_distinct_submissions(ledger: Ledger) -> None:
    """Otherwise the ledger would reject the second claim in the middle of a run."""
    job_a = job("a")
    create_one_more(ledger).commit([RecordedOutcome(Submission(job_a, 2, again=True), not_created(), THEN)], [], [])
    run_plan = plan.build_plan(Manifest(NAME, "-", "0", (job_a,)), (), ledger.submissions(API, NAME, KEY), ["a", "a"])
    ordinals = [submission.ordinal for submission in run_plan.to_send]
    assert len(ordinals) == len(set(ordinals))
