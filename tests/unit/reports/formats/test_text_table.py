"""The table: literal ones, what is left out on a narrow terminal, and that hostile text stays in its cell."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import RUN, created, entry, in_doubt, not_created, record, records

from runner.core.models import Created, Entry, NotCreated, RunRecord, Skipped
from runner.core.text import display_width
from runner.reports import RUN_FORMATS, Style
from runner.runs.summary import summarize

NOT_CREATED = (
    entry("field-d", not_created(message="no workflow w-field-d")),
    entry("field-e", in_doubt("no answer came")),
    entry("field-f", Skipped("disabled", "enabled: false in the manifest")),
)
SIX = record(
    entry("field-a", created("1e5", cost=100)),
    entry("field-b", created("007", cost=20, val_errors=["bad", "worse"])),
    entry("名前", created("j-3"), run_id="run-1"),
    *NOT_CREATED,
)


def table(made: RunRecord, width: int | None = None, *, color: bool = False, every: bool = False) -> str:
    return RUN_FORMATS["table"]([summarize(made)], Style(width, color, every))


def body(made: RunRecord, width: int | None = None, *, every: bool = False) -> list[str]:
    """The lines of the table, without titles and notes."""
    lines = table(made, width, every=every).split("\n")
    return lines[2 : lines.index("")] if "" in lines else []


def test_a_table() -> None:
    assert table(SIX) == (
        "job      workflow   project  outcome                       job id or error"
        "                           cost  sent (UTC)\n"
        "-------  ---------  -------  ----------------------------  ----------------------------------------"
        "  ----  ----------\n"
        "field-a  w-field-a  p-1      created                       1e5                                       "
        " 100  01:00:03\n"
        "field-b  w-field-b  p-1      created, 2 validation errors  007                                       "
        "  20  01:00:03\n"
        "名前     w-名前     p-1      created                       j-3                                       "
        "      01:00:03\n"
        "field-d  w-field-d  p-1      not created                   rejected: no workflow w-field-d           "
        "      01:00:03\n"
        "field-e  w-field-e  p-1      in doubt                      timeout: no answer came                   "
        "      01:00:03\n"
        "field-f  w-field-f  p-1      skipped                       disabled: enabled: false in the manifest\n"
        "\n"
        "6 jobs: 3 created (1 by an earlier run), 1 not created, 1 in doubt, 1 skipped · cost 120\n"
        "1 created job has validation errors; see the results file"
    )


def test_a_table_on_an_ordinary_terminal_cuts_the_widest_columns() -> None:
    assert table(SIX, 80) == (
        "job      workflow   outcome           job id or error                       cost\n"
        "-------  ---------  ----------------  ------------------------------------  ----\n"
        "field-a  w-field-a  created           1e5                                    100\n"
        "field-b  w-field-b  created, 2 vali…  007                                     20\n"
        "名前     w-名前     created           j-3\n"
        "field-d  w-field-d  not created       rejected: no workflow w-field-d\n"
        "field-e  w-field-e  in doubt          timeout: no answer came\n"
        "field-f  w-field-f  skipped           disabled: enabled: false in the man…\n"
        "\n"
        "6 jobs: 3 created (1 by an earlier run), 1 not created, 1 in doubt, 1 skipped · cost 120\n"
        "1 created job has validation errors; see the results file\n"
        "columns that do not fit the terminal: project, sent (UTC)"
    )


def test_an_ordinary_terminal_shows_job_ids_whole() -> None:
    job_id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    long = "the-name-of-a-workflow-and-the-name-of-a-project"
    assert job_id in table(record(entry(long, created(job_id, cost=12))), 80)
    assert job_id not in table(record(entry(long, created(job_id, cost=12))), 50)


def test_a_table_on_a_narrow_terminal_leaves_columns_out_and_says_so() -> None:
    assert table(record(*NOT_CREATED), 40) == (
        "job      outcome      job id or error\n"
        "-------  -----------  ------------------\n"
        "field-d  not created  rejected: no work…\n"
        "field-e  in doubt     timeout: no answe…\n"
        "field-f  skipped      disabled: enabled…\n"
        "\n"
        "3 jobs: 0 created, 1 not created, 1 in doubt, 1 skipped · cost 0\n"
        "columns that do not fit the terminal: workflow, project, cost, sent (UTC)"
    )


def test_a_terminal_too_narrow_for_any_table_still_gets_one() -> None:
    assert table(record(*NOT_CREATED[:2]), 5).split("\n")[:4] == [
        "job      outcome",
        "-------  --------",
        "field-d  not cre…",
        "field-e  in doubt",
    ]


def test_a_record_without_jobs_has_only_totals() -> None:
    assert table(record()) == "0 jobs: 0 created, 0 not created, 0 in doubt, 0 skipped · cost 0"


def test_one_job() -> None:
    assert table(record(entry("a", created("j", cost=3)))).endswith(
        "\n\n1 job: 1 created, 0 not created, 0 in doubt, 0 skipped · cost 3"
    )


@pytest.mark.parametrize("job_id", ["1e5", "007", "0x10", "1_000", "nan", "-1", "1,000", "12345678901234567890"])
def test_an_id_is_never_read_as_a_number(job_id: str) -> None:
    [line] = body(record(entry("1.50", created(job_id))))
    assert line.split()[0] == "1.50"
    assert line.split()[4] == job_id


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (replace(created("j"), recovered=True), "created, recovered"),
        (replace(created("j"), recovered=True, assigned=False), "created, recovered, job id uncertain"),
        (created("j", val_errors=[{"field": "aoi"}]), "created, 1 validation error"),
        (created("j", val_errors=[]), "created"),
        (created("j", val_errors="odd"), "created"),
    ],
)
def test_remarks_on_a_created_job(outcome: Created, words: str) -> None:
    [line] = body(record(entry("a", outcome)))
    assert f"  {words}  j  " in line


def test_times_of_several_days_have_their_dates() -> None:
    later = created("j")
    made = record(entry("a", later), entry("b", replace(later, sent_at=later.sent_at + timedelta(days=1))))
    assert [line[-19:] for line in body(made)] == ["2026-10-20 01:00:03", "2026-10-21 01:00:03"]


def test_colors_change_nothing_but_the_color() -> None:
    colored = table(SIX, 80, color=True)
    assert "\x1b[31mnot created\x1b[0m" in colored
    assert click.unstyle(colored) == table(SIX, 80)


def many(count: int, *others: Entry) -> RunRecord:
    return RunRecord(RUN, (*(entry(f"j{i}", created(f"{i}")) for i in range(count)), *others))


def test_a_thousand_jobs_are_all_listed() -> None:
    assert len(body(many(1000))) == 1000


def test_a_long_table_lists_only_jobs_that_were_not_created() -> None:
    made = many(1000, entry("bad", not_created()))
    [line] = body(made)
    assert line.startswith("bad ")
    assert table(made).endswith("\ncreated jobs are not listed; use --all to list every job")


def test_a_long_table_lists_all_jobs_on_request() -> None:
    made = many(1000, entry("bad", not_created()))
    assert len(body(made, every=True)) == 1001
    assert "--all" not in table(made, every=True)


def test_a_long_table_lists_every_job_that_was_not_created() -> None:
    made = record(*(entry(f"j{i}", not_created()) for i in range(1001)))
    assert len(body(made)) == 1001
    assert "--all" not in table(made)


def test_a_long_table_of_created_jobs_has_only_totals() -> None:
    assert table(many(1001)) == (
        "1001 jobs: 1001 created, 0 not created, 0 in doubt, 0 skipped · cost 0\n"
        "created jobs are not listed; use --all to list every job"
    )


@given(records, st.none() | st.integers(20, 200))
def test_each_job_is_a_line_that_fits(made: RunRecord, columns: int | None) -> None:
    lines = table(made, columns).split("\n")
    rows = len(made.entries)
    if rows:
        assert lines[rows + 2] == ""
        assert max(map(display_width, lines[: rows + 2])) <= (columns or 10**9)
    assert lines[rows + 3 if rows else 0].startswith(f"{rows} job")


@given(records)
def test_cells_stand_under_their_titles(made: RunRecord) -> None:
    """Each row has two blanks where the rule has them, in columns of the terminal and not in characters."""
    lines = table(made).split("\n")
    rows = len(made.entries)
    for line in lines[2 : rows + 2]:
        across = "".join(char + "\0" * (display_width(char) - 1) for char in line if display_width(char))
        gaps = [at for at, char in enumerate(lines[1]) if char == " " and at < len(across)]
        assert all(across[at] == " " for at in gaps)


def test_a_long_error_is_whole_where_nothing_is_cut() -> None:
    message = "x" * 5000
    assert message in table(record(entry("a", not_created(message=message))))


def test_an_error_of_several_lines_is_one_line() -> None:
    [line] = body(record(entry("a", NotCreated(not_created(message="one\n::error::two").error, 1, None))))
    assert r"rejected: one\n::error::two" in line
