"""The Markdown format: expected output, and that hostile text is escaped and stays in its cell."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from support.records import created, entry, in_doubt, not_created, record, records, texts

from runner.core.models import RunRecord, Skipped
from runner.reports import RUN_FORMATS, Style
from runner.reports.formats.markdown import escape_markdown
from runner.runs.summary import summarize

_CELL_END = re.compile(r"(?<!\\)(?:\\\\)*\|")


def markdown(run_record: RunRecord) -> str:
    return RUN_FORMATS["markdown"]([summarize(run_record)], Style())


def test_markdown_of_a_run() -> None:
    run_record = record(
        entry("a|b", created("j_1", cost=12, val_errors=[1])),
        entry("c", not_created(message="<b>no</b>\nreally")),
        entry("d", in_doubt("no answer")),
        entry("e", Skipped("disabled", "enabled: false")),
    )
    assert markdown(run_record) == (
        "| job | workflow | project | outcome | job id or error | cost | sent (UTC) |\n"
        "| --- | --- | --- | --- | --- | ---: | --- |\n"
        "| a\\|b | w-a\\|b | p-1 | created, 1 validation error | j\\_1 | 12 | 01:00:03 |\n"
        "| c | w-c | p-1 | not created | rejected: &lt;b&gt;no&lt;/b&gt;\\\\nreally |  | 01:00:03 |\n"
        "| d | w-d | p-1 | in doubt | timeout: no answer |  | 01:00:03 |\n"
        "| e | w-e | p-1 | skipped | disabled: enabled: false |  |  |\n"
        "\n"
        "4 jobs: 1 created, 1 not created, 1 in doubt, 1 skipped · cost 12\n"
        "1 created job has validation errors; see the results file"
    )


def test_run_without_jobs_has_only_totals() -> None:
    assert markdown(record()) == "0 jobs: 0 created, 0 not created, 0 in doubt, 0 skipped · cost 0"


def test_long_table_lists_only_jobs_that_were_not_created() -> None:
    run_record = record(
        *(entry(f"{number}", created(f"{number}")) for number in range(1000)), entry("bad", not_created())
    )
    assert len(markdown(run_record).split("\n")) == 2 + 1 + 1 + 2


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("plain text 1", "plain text 1"),
        ("|", r"\|"),
        (r"\|", r"\\\|"),
        ("`code` *b* _i_ ~s~", r"\`code\` \*b\* \_i\_ \~s\~"),
        ("![x](http://x)", r"\!\[x\](http:&#8203;//x)"),
        ("<script>&amp;", "&lt;script&gt;&amp;amp;"),
        ("@octocat a@b", "@&#8203;octocat a@&#8203;b"),
        ("#1 # C#", "#&#8203;1 # C#"),
        ("www.example.com", "www.&#8203;example.com"),
        ("$x$", r"\$x\$"),
    ],
)
def test_markup_is_escaped(text: str, source: str) -> None:
    assert escape_markdown(text) == source


@given(records)
def test_each_job_is_a_row_with_all_cells(run_record: RunRecord) -> None:
    lines = markdown(run_record).split("\n")
    rows = lines[: lines.index("")] if run_record.entries else []
    assert len(rows) == (len(run_record.entries) + 2 if run_record.entries else 0)
    assert {len(_CELL_END.findall(row)) for row in rows} <= {8}


@given(texts)
def test_html_is_always_escaped(text: str) -> None:
    assert not set("<>") & set(escape_markdown(text))
