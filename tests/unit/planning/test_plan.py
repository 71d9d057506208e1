"""What a run would send, and why not the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.errors import UsageError
from runner.core.models import Job, Manifest, Skipped, Submission
from runner.ledger.rows import State, SubmissionRow
from runner.planning import plan

A = Job("field-a", "w1", "p1")
B = Job("field-b", "w1", "p2", enabled=False)
C = Job("Coast", "w1", "p1")
D = Job("w2/p1", "w2", "p1")
E = Job("plot[1]", "w2", "p2")
JOBS = (A, B, C, D, E)

DISABLED = Skipped("disabled", "enabled: false in the manifest")
NOT_SELECTED = Skipped("not_selected", "its name matches no --only")


def make(
    only: Sequence[str] = (),
    *,
    jobs: Sequence[Job] = JOBS,
    standings: Sequence[SubmissionRow] = (),
    again: Sequence[str] = (),
) -> plan.Plan:
    return plan.build_plan(Manifest("nightly", "nightly.yaml", "0" * 64, tuple(jobs)), only, standings, again)


def test_without_globs_every_enabled_job_is_sent_with_its_ordinal_among_its_pair() -> None:
    made = make()
    assert made.to_send == (Submission(A, 1), Submission(C, 2), Submission(D, 1), Submission(E, 1))
    assert made.skipped == {"field-b": DISABLED}


@pytest.mark.parametrize(
    ("only", "sent"),
    [
        (["field-a"], [A]),
        (["field-*"], [A]),
        (["field-?"], [A]),
        (["*/p1"], [D]),
        (["[Cc]oast", "field-[!b]"], [A, C]),  # manifest order, not the order of the globs
        (["*", "*"], [A, C, D, E]),
        (["field-b"], []),  # disabled: a match all the same
        (["plot[1]"], [E]),  # a name matches itself, whatever is in it
    ],
)
def test_globs_match_whole_names(only: list[str], sent: list[Job]) -> None:
    made = make(only)
    assert [submission.job for submission in made.to_send] == sent
    left = [job for job in JOBS if job not in sent]
    assert made.skipped == {job.name: NOT_SELECTED if job.enabled else DISABLED for job in left}


@pytest.mark.parametrize("glob", ["coast", "field", "ield-a", "field-a ", "", "*x*", "field-[!ab]"])
def test_a_glob_that_matches_no_job_is_an_error(glob: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(["field-a", glob])
    assert caught.value.message == f"--only {glob!r} matches no job of the manifest"


def test_the_error_names_what_is_near() -> None:
    with pytest.raises(UsageError) as caught:
        make(["fieldd-a"])
    assert caught.value.hint == "Did you mean field-a or field-b?"
    with pytest.raises(UsageError) as caught:
        make(["zzz"])
    assert "whole names" in caught.value.hint


def standing(name: str, pair: tuple[str, str], ordinal: int, state: State, *, again: bool = False) -> SubmissionRow:
    return SubmissionRow(
        ordinal, "https://api.example", "nightly", "key", "run-0", name, *pair, ordinal, again, {}, state,
        attempts=1, claimed_at=datetime(2026, 5, 4, tzinfo=UTC), ended_at=None, timeout=30.0, estimate=None,
        job_id=f"job-{ordinal}" if state == "created" else None, cost=None, val_errors=0,
        recovered=False, assigned=True, error=None, candidates=(),
    )  # fmt: skip


def test_a_pair_that_was_bought_is_not_bought_again_under_another_name() -> None:
    bought = [standing("old name", A.pair, 1, "created"), standing("Coast", A.pair, 2, "in_doubt")]
    made = make(standings=bought)
    assert made.to_send == (Submission(D, 1), Submission(E, 1))
    assert made.match.by_name == {"Coast": bought[1], "field-a": bought[0]}
    assert made.match.unlisted == ()


def test_what_failed_is_tried_again_as_the_same_submission() -> None:
    tried = [standing("field-a", A.pair, 7, "not_created"), standing("Coast", A.pair, 2, "created")]
    made = make(["field-*", "Coast"], standings=tried)
    assert made.to_send == (Submission(A, 7),)


def test_again_sends_one_more_of_what_was_created_and_of_nothing_else() -> None:
    bought = [standing("field-a", A.pair, 1, "created"), standing("Coast", A.pair, 2, "in_doubt")]
    made = make(["field-a"], standings=bought, again=["field-a"])
    assert made.to_send == (Submission(A, 3, again=True),)
    for name, said in (("Coast", "not created"), ("w2/p1", "not created"), ("nobody", "no such job")):
        with pytest.raises(UsageError, match=said):
            make(standings=bought, again=[name])


_names = st.sampled_from([f"n{number}" for number in range(6)])
_jobs = st.lists(
    st.builds(Job, _names, st.just("w"), st.sampled_from(["p1", "p2"]), enabled=st.booleans()),
    unique_by=lambda job: job.name,
)
_states: st.SearchStrategy[State] = st.sampled_from(["sending", "released", "not_created", "in_doubt", "created"])
_standings = st.lists(st.tuples(_names, st.sampled_from(["p1", "p2"]), _states, st.booleans())).map(
    lambda drawn: [
        standing(name, ("w", project), ordinal, state, again=again)
        for ordinal, (name, project, state, again) in enumerate(drawn, start=1)
    ]
)


@settings(max_examples=60)
@given(jobs=_jobs, standings=_standings, data=st.data())
def test_of_each_pair_as_many_are_sent_as_are_missing_whatever_they_are_called(
    jobs: list[Job], standings: list[SubmissionRow], data: st.DataObject
) -> None:
    wanted = Counter(job.pair for job in jobs if job.enabled)
    bought = Counter(standing.pair for standing in standings if standing.consumes_slot)
    made = make(jobs=jobs, standings=standings)
    assert Counter(submission.job.pair for submission in made.to_send) == wanted - bought
    renamed = [Job(f"other-{index}", *job.pair, enabled=job.enabled) for index, job in enumerate(jobs)]
    shuffled = make(jobs=data.draw(st.permutations(renamed)), standings=standings)
    assert Counter(submission.job.pair for submission in shuffled.to_send) == wanted - bought


@settings(max_examples=60)
@given(jobs=_jobs, standings=_standings)
def test_no_ordinal_is_used_for_two_submissions(jobs: list[Job], standings: list[SubmissionRow]) -> None:
    made = make(jobs=jobs, standings=standings)
    sent = [(submission.job.pair, submission.ordinal) for submission in made.to_send]
    assert len(set(sent)) == len(sent)
    assert not set(sent) & {(standing.pair, standing.ordinal) for standing in standings if standing.consumes_slot}
