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
from runner.planning.plan import Plan, build_plan

A = Job("field-a", "w1", "p1")
B = Job("field-b", "w1", "p2", enabled=False)
C = Job("Coast", "w1", "p1")
D = Job("w2/p1", "w2", "p1")
E = Job("plot[1]", "w2", "p2")
JOBS = (A, B, C, D, E)

DISABLED = Skipped("disabled", "disabled in the manifest")
NOT_SELECTED = Skipped("not_selected", "matches no --only pattern")


def build(
    only: Sequence[str] = (),
    *,
    jobs: Sequence[Job] = JOBS,
    submissions: Sequence[SubmissionRow] = (),
    again: Sequence[str] = (),
) -> Plan:
    return build_plan(Manifest("nightly", "nightly.yaml", "0" * 64, tuple(jobs)), only, submissions, again)


def test_without_globs_every_enabled_job_is_sent() -> None:
    plan = build()
    assert plan.to_send == (Submission(A, 1), Submission(C, 2), Submission(D, 1), Submission(E, 1))
    assert plan.skipped == {"field-b": DISABLED}


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["field-a"], [A]),
        (["field-*"], [A]),
        (["field-?"], [A]),
        (["*/p1"], [D]),
        (["[Cc]oast", "field-[!b]"], [A, C]),  # manifest order, not the order of the globs
        (["*", "*"], [A, C, D, E]),
        (["field-b"], []),  # disabled, but a match
        (["plot[1]"], [E]),  # a name matches itself, whatever characters it contains
    ],
)
def test_globs_match_whole_names(only: list[str], expected: list[Job]) -> None:
    plan = build(only)
    assert [submission.job for submission in plan.to_send] == expected
    others = [job for job in JOBS if job not in expected]
    assert plan.skipped == {job.name: NOT_SELECTED if job.enabled else DISABLED for job in others}


@pytest.mark.parametrize("glob", ["coast", "field", "ield-a", "field-a ", "", "*x*", "field-[!ab]"])
def test_a_glob_that_matches_no_job_is_an_error(glob: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(["field-a", glob])
    assert caught.value.message == f"--only {glob!r} matches no job in the manifest"


def test_the_hint_suggests_similar_names() -> None:
    with pytest.raises(UsageError) as caught:
        build(["fieldd-a"])
    assert caught.value.hint == "Did you mean field-a or field-b?"
    with pytest.raises(UsageError) as caught:
        build(["zzz"])
    assert "the whole name" in caught.value.hint


def test_the_hint_for_an_unknown_name_of_again_is_not_about_globs() -> None:
    with pytest.raises(UsageError) as caught:
        build(again=["zzz"])
    assert caught.value.message == "--again 'zzz': no such job in the manifest"
    assert caught.value.hint == "`pixxel-runner plan MANIFEST` lists the job names."


def row(name: str, pair: tuple[str, str], ordinal: int, state: State, *, again: bool = False) -> SubmissionRow:
    return SubmissionRow(
        ordinal, "https://api.example", "nightly", "key", "run-0", name, *pair, ordinal, again, {}, state,
        attempts=1, claimed_at=datetime(2026, 5, 4, tzinfo=UTC), ended_at=None, timeout=30.0, estimate=None,
        job_id=f"job-{ordinal}" if state == "created" else None, cost=None, val_errors=0,
        recovered=False, assigned=True, error=None, candidates=(),
    )  # fmt: skip


def test_a_submitted_pair_is_not_sent_again_under_another_name() -> None:
    submissions = [row("old name", A.pair, 1, "created"), row("Coast", A.pair, 2, "in_doubt")]
    plan = build(submissions=submissions)
    assert plan.to_send == (Submission(D, 1), Submission(E, 1))
    assert plan.match.by_name == {"Coast": submissions[1], "field-a": submissions[0]}
    assert plan.match.unlisted == ()


def test_a_job_that_was_not_created_is_retried_with_the_same_ordinal() -> None:
    submissions = [row("field-a", A.pair, 7, "not_created"), row("Coast", A.pair, 2, "created")]
    plan = build(["field-*", "Coast"], submissions=submissions)
    assert plan.to_send == (Submission(A, 7),)


def test_again_sends_one_more_of_a_created_job_only() -> None:
    submissions = [row("field-a", A.pair, 1, "created"), row("Coast", A.pair, 2, "in_doubt")]
    plan = build(["field-a"], submissions=submissions, again=["field-a"])
    assert plan.to_send == (Submission(A, 3, again=True),)
    for name, message in (("Coast", "not been created"), ("w2/p1", "not been created"), ("nobody", "no such job")):
        with pytest.raises(UsageError, match=message):
            build(submissions=submissions, again=[name])


_names = st.sampled_from([f"n{number}" for number in range(6)])
_jobs = st.lists(
    st.builds(Job, _names, st.just("w"), st.sampled_from(["p1", "p2"]), enabled=st.booleans()),
    unique_by=lambda job: job.name,
)
_states: st.SearchStrategy[State] = st.sampled_from(["sending", "released", "not_created", "in_doubt", "created"])
_submissions = st.lists(st.tuples(_names, st.sampled_from(["p1", "p2"]), _states, st.booleans())).map(
    lambda drawn: [
        row(name, ("w", project), ordinal, state, again=again)
        for ordinal, (name, project, state, again) in enumerate(drawn, start=1)
    ]
)


@settings(max_examples=60)
@given(jobs=_jobs, submissions=_submissions, data=st.data())
def test_as_many_of_each_pair_are_sent_as_are_missing_whatever_their_names(
    jobs: list[Job], submissions: list[SubmissionRow], data: st.DataObject
) -> None:
    listed = Counter(job.pair for job in jobs if job.enabled)
    existing = Counter(submission.pair for submission in submissions if submission.consumes_slot)
    plan = build(jobs=jobs, submissions=submissions)
    assert Counter(submission.job.pair for submission in plan.to_send) == listed - existing
    renamed = [Job(f"other-{index}", *job.pair, enabled=job.enabled) for index, job in enumerate(jobs)]
    shuffled = build(jobs=data.draw(st.permutations(renamed)), submissions=submissions)
    assert Counter(submission.job.pair for submission in shuffled.to_send) == listed - existing


@settings(max_examples=60)
@given(jobs=_jobs, submissions=_submissions)
def test_no_ordinal_is_used_for_two_submissions(jobs: list[Job], submissions: list[SubmissionRow]) -> None:
    plan = build(jobs=jobs, submissions=submissions)
    sent = [(submission.job.pair, submission.ordinal) for submission in plan.to_send]
    assert len(set(sent)) == len(sent)
    assert not set(sent) & {(row.pair, row.ordinal) for row in submissions if row.consumes_slot}
