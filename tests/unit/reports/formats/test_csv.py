"""CSV: a literal one, that it reads back, and that a spreadsheet takes no cell for a formula."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from support.records import created, entry, in_doubt, not_created, record, records

from runner.core.models import Created, RunRecord, Skipped
from runner.reports import RUN_FORMATS, Style
from runner.runs.summary import summarize


def as_csv(made: RunRecord) -> str:
    return RUN_FORMATS["csv"]([summarize(made)], Style())


def rows(made: RunRecord) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(as_csv(made), newline=""), strict=True))


def test_a_file() -> None:
    made = record(
        entry("a", created("1e5", cost=12, status="running", val_errors=[1]), team="agri"),
        entry("b", not_created(message='no "such", really', http_status=404, request_id="q-1"), run_id="run-1"),
        entry("c", in_doubt(candidates=("j-8", "j-9"))),
        entry("d", Skipped("disabled", "enabled: false")),
    )
    assert as_csv(made) == (
        "manifest,name,workflow_id,project_id,labels,outcome,job_id,status,estimate,cost,validation_errors,recovered,"
        "assigned,kind,message,http_status,request_id,candidates,attempts,sent_at,run_id\r\n"
        'nightly,a,w-a,p-1,"{""team"": ""agri""}",created,1e5,running,,12,1,false,true,,,,,,1,'
        "2026-10-20T01:00:03.120Z,run-2\r\n"
        'nightly,b,w-b,p-1,{},not_created,,,,,,,,rejected,"no ""such"", really",404,q-1,,1,'
        "2026-10-20T01:00:03.120Z,run-1\r\n"
        'nightly,c,w-c,p-1,{},in_doubt,,,,,,,,timeout,no answer came,,,"[""j-8"", ""j-9""]",1,'
        "2026-10-20T01:00:03.120Z,run-2\r\n"
        "nightly,d,w-d,p-1,{},skipped,,,,,,,,disabled,enabled: false,,,,,,run-2"
    )


def test_every_job_is_listed_however_many_there_are() -> None:
    assert len(rows(record(*(entry(f"{i}", created(f"{i}")) for i in range(1001))))) == 1001


def test_a_record_without_jobs_is_the_titles_alone() -> None:
    assert as_csv(record()).startswith("manifest,name,workflow_id,")
    assert rows(record()) == []


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "＋", "－", "＠"])
def test_no_cell_is_taken_for_a_formula(start: str) -> None:
    [row] = rows(record(entry(f"{start}1+1", not_created(message=f"{start}cmd|'/c calc'!A0"))))
    assert row["name"] == f"'{start}1+1"
    assert row["message"] == f"'{start}cmd|'/c calc'!A0"


def test_a_cost_is_a_number_even_below_nothing() -> None:
    [row] = rows(record(entry("a", created("j", cost=-5))))
    assert row["cost"] == "-5"


@given(records)
def test_it_reads_back(made: RunRecord) -> None:
    read = rows(made)
    assert len(read) == len(made.entries)
    for row, item in zip(read, made.entries, strict=True):
        assert None not in row
        assert None not in row.values()
        assert json.loads(row["labels"]) == json.loads(json.dumps(item.job.labels))
        assert bool(row["job_id"]) is isinstance(item.outcome, Created)
        assert not [cell for cell in row.values() if cell[:1] in ("=", "+", "@", "\t", "\r")]


@given(records)
def test_each_job_is_one_line(made: RunRecord) -> None:
    text = as_csv(made)
    assert text.count("\n") == text.count("\r") == text.count("\r\n") == len(made.entries)
