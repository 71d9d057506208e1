"""The table format: expected output, columns omitted on narrow terminals, and that hostile text stays in its cell."""

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

OTHER_ENTRIES = (
    entry("field-d", not_created(message="no workflow w-field-d")),
    entry("field-e", in_doubt("no answer came")),
    entry("field-f", Skipped("disabled", "enabled: false in the manifest")),
)
SIX_JOBS = record(
    entry("field-a", created("1e5", cost=100)),
    entry("field-b", created("007", cost=20, val_errors=["bad", "worse"])),
    entry("名前", created("j-3"), run_id="run-1"),
    *OTHER_ENTRIES,
)


def render_table(
    run_record: RunRecord, width: int | None = None, *, color: bool = False, list_all: bool = False
) -> str:
    return RUN_FORMATS["table"]([summarize(run_record)], Style(width, color, list_all))


def table_rows(run_record: RunRecord, width: int | None = None, *, list_all: bool = False) -> list[str]:
    """The lines of the table, without header and notes."""
    lines = render_table(run_record, width, list_all=list_all).split("\n")
    return lines[2 : lines.index("")] if "" in lines else []


def test_table_of_a_run() -> None:
    assert render_table(SIX_JOBS) == (
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


def test_widest_columns_are_truncated_to_fit_the_terminal() -> None:
    assert render_table(SIX_JOBS, 80) == (
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


def test_job_ids_fit_on_80_columns() -> None:
    job_id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    long_name = "the-name-of-a-workflow-and-the-name-of-a-project"
    assert job_id in render_table(record(entry(long_name, created(job_id, cost=12))), 80)
    assert job_id not in render_table(record(entry(long_name, created(job_id, cost=12))), 50)


def test_narrow_terminal_omits_columns_with_a_note() -> None:
    assert render_table(record(*OTHER_ENTRIES), 40) == (
        "job      outcome      job id or error\n"
        "-------  -----------  ------------------\n"
        "field-d  not created  rejected: no work…\n"
        "field-e  in doubt     timeout: no answe…\n"
        "field-f  skipped      disabled: enabled…\n"
        "\n"
        "3 jobs: 0 created, 1 not created, 1 in doubt, 1 skipped · cost 0\n"
        "columns that do not fit the terminal: workflow, project, cost, sent (UTC)"
    )


def test_very_narrow_terminal_still_shows_a_table() -> None:
    assert render_table(record(*OTHER_ENTRIES[:2]), 5).split("\n")[:4] == [
        "job      outcome",
        "-------  --------",
        "field-d  not cre…",
        "field-e  in doubt",
    ]


def test_run_without_jobs_has_only_totals() -> None:
    assert render_table(record()) == "0 jobs: 0 created, 0 not created, 0 in doubt, 0 skipped · cost 0"


def test_totals_of_one_job() -> None:
    assert render_table(record(entry("a", created("j", cost=3)))).endswith(
        "\n\n1 job: 1 created, 0 not created, 0 in doubt, 0 skipped · cost 3"
    )


@pytest.mark.parametrize("job_id", ["1e5", "007", "0x10", "1_000", "nan", "-1", "1,000", "12345678901234567890"])
def test_job_id_is_never_formatted_as_a_number(job_id: str) -> None:
    [line] = table_rows(record(entry("1.50", created(job_id))))
    assert line.split()[0] == "1.50"
    assert line.split()[4] == job_id


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (replace(created("j"), recovered=True), "created, recovered"),
        (replace(created("j"), recovered=True, assigned=False), "created, recovered, job id uncertain"),
        (created("j", val_errors=[{"field": "aoi"}]), "created, 1 validation error"),
        (created("j", val_errors=[]), "created"),
        (created("j", val_errors="odd"), "created"),
    ],
)
def test_outcome_includes_remarks(outcome: Created, expected: str) -> None:
    [line] = table_rows(record(entry("a", outcome)))
    assert f"  {expected}  j  " in line


def test_times_of_several_days_include_dates() -> None:
    created_job = created("j")
    run_record = record(
        entry("a", created_job), entry("b", replace(created_job, sent_at=created_job.sent_at + timedelta(days=1)))
    )
    assert [line[-19:] for line in table_rows(run_record)] == ["2026-10-20 01:00:03", "2026-10-21 01:00:03"]


def test_colors_do_not_change_the_text() -> None:
    colored = render_table(SIX_JOBS, 80, color=True)
    assert "\x1b[31mnot created\x1b[0m" in colored
    assert click.unstyle(colored) == render_table(SIX_JOBS, 80)


def many_created(count: int, *other_entries: Entry) -> RunRecord:
    return RunRecord(RUN, (*(entry(f"j{number}", created(f"{number}")) for number in range(count)), *other_entries))


def test_thousand_jobs_are_all_listed() -> None:
    assert len(table_rows(many_created(1000))) == 1000


def test_long_table_lists_only_jobs_that_were_not_created() -> None:
    run_record = many_created(1000, entry("bad", not_created()))
    [line] = table_rows(run_record)
    assert line.startswith("bad ")
    assert render_table(run_record).endswith("\ncreated jobs are not listed; use --all to list every job")


def test_long_table_lists_all_jobs_on_request() -> None:
    run_record = many_created(1000, entry("bad", not_created()))
    assert len(table_rows(run_record, list_all=True)) == 1001
    assert "--all" not in render_table(run_record, list_all=True)


def test_long_table_lists_every_job_that_was_not_created() -> None:
    run_record = record(*(entry(f"j{number}", not_created()) for number in range(1001)))
    assert len(table_rows(run_record)) == 1001
    assert "--all" not in render_table(run_record)


def test_long_table_of_created_jobs_has_only_totals() -> None:
    assert render_table(many_created(1001)) == (
        "1001 jobs: 1001 created, 0 not created, 0 in doubt, 0 skipped · cost 0\n"
        "created jobs are not listed; use --all to list every job"
    )


@given(records, st.none() | st.integers(20, 200))
def test_each_job_is_a_line_that_fits_the_terminal(run_record: RunRecord, columns: int | None) -> None:
    lines = render_table(run_record, columns).split("\n")
    rows = len(run_record.entries)
    if rows:
        assert lines[rows + 2] == ""
        assert max(map(display_width, lines[: rows + 2])) <= (columns or 10**9)
    assert lines[rows + 3 if rows else 0].startswith(f"{rows} job")


@given(records)
def test_cells_are_aligned_with_their_headers(run_record: RunRecord) -> None:
    """Each row has the gaps of the header rule, counted in terminal columns rather than characters."""
    lines = render_table(run_record).split("\n")
    rows = len(run_record.entries)
    for line in lines[2 : rows + 2]:
        cells = "".join(
            character + "\0" * (display_width(character) - 1) for character in line if display_width(character)
        )
        gaps = [column for column, character in enumerate(lines[1]) if character == " " and column < len(cells)]
        assert all(cells[column] == " " for column in gaps)


def test_long_error_is_complete_without_a_width_limit() -> None:
    message = "x" * 5000
    assert message in render_table(record(entry("a", not_created(message=message))))


def test_multi_line_error_is_shown_on_one_line() -> None:
    [line] = table_rows(record(entry("a", NotCreated(not_created(message="one\n::error::two").error, 1, None))))
    assert r"rejected: one\n::error::two" in line
