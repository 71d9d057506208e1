"""The CSV format: expected output, parsing it back, and protection from formulas in spreadsheets."""

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


def as_csv(run_record: RunRecord) -> str:
    return RUN_FORMATS["csv"]([summarize(run_record)], Style())


def rows(run_record: RunRecord) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(as_csv(run_record), newline=""), strict=True))


def test_csv_of_a_run() -> None:
    run_record = record(
        entry("a", created("1e5", cost=12, status="running", val_errors=[1]), team="agri"),
        entry("b", not_created(message='no "such", really', http_status=404, request_id="q-1"), run_id="run-1"),
        entry("c", in_doubt(candidates=("j-8", "j-9"))),
        entry("d", Skipped("disabled", "enabled: false")),
    )
    assert as_csv(run_record) == (
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


def test_all_jobs_are_listed_in_a_large_run() -> None:
    assert len(rows(record(*(entry(f"{number}", created(f"{number}")) for number in range(1001))))) == 1001


def test_run_without_jobs_has_only_a_header() -> None:
    assert as_csv(record()).startswith("manifest,name,workflow_id,")
    assert rows(record()) == []


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "＋", "－", "＠"])
def test_no_cell_is_interpreted_as_a_formula(start: str) -> None:
    [row] = rows(record(entry(f"{start}1+1", not_created(message=f"{start}cmd|'/c calc'!A0"))))
    assert row["name"] == f"'{start}1+1"
    assert row["message"] == f"'{start}cmd|'/c calc'!A0"


def test_negative_cost_is_not_escaped() -> None:
    [row] = rows(record(entry("a", created("j", cost=-5))))
    assert row["cost"] == "-5"


@given(records)
def test_csv_can_be_parsed_back(run_record: RunRecord) -> None:
    parsed_rows = rows(run_record)
    assert len(parsed_rows) == len(run_record.entries)
    for row, job_entry in zip(parsed_rows, run_record.entries, strict=True):
        assert None not in row
        assert None not in row.values()
        assert json.loads(row["labels"]) == json.loads(json.dumps(job_entry.job.labels))
        assert bool(row["job_id"]) is isinstance(job_entry.outcome, Created)
        assert not [cell for cell in row.values() if cell[:1] in ("=", "+", "@", "\t", "\r")]


@given(records)
def test_each_job_is_one_line_of_text(run_record: RunRecord) -> None:
    text = as_csv(run_record)
    assert text.count("\n") == text.count("\r") == text.count("\r\n") == len(run_record.entries)
