"""Rules for every report: text from outside cannot control the terminal or a CI log, or break a line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from support.records import created, entry, record, records
from support.schemas import check_results, loads_strictly

from runner.core.models import RunRecord
from runner.reports import RUN_FORMATS, Style
from runner.runs import results_file
from runner.runs.summary import summarize


@pytest.mark.parametrize("name", RUN_FORMATS)
@given(run_record=records)
def test_reports_contain_no_terminal_escapes_and_no_ci_commands(name: str, run_record: RunRecord) -> None:
    text = RUN_FORMATS[name]([summarize(run_record)], Style())
    for line in text.replace("\r\n", "\n").split("\n"):
        assert not [character for character in line if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
        assert not set("\u202e\u2066\u200b\ufeff") & set(line)
        assert name == "github" or not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line


@pytest.mark.parametrize("name", RUN_FORMATS)
def test_report_has_no_trailing_line_break(name: str) -> None:
    assert not RUN_FORMATS[name]([summarize(record(entry("a", created("j"))))], Style()).endswith("\n")


@given(records)
def test_json_report_is_the_results_file(run_record: RunRecord) -> None:
    text = RUN_FORMATS["json"]([summarize(run_record)], Style())
    assert text + "\n" == "".join(results_file.serialize(summarize(run_record)))
    check_results(loads_strictly(text))


def test_format_mapping_is_read_only() -> None:
    with pytest.raises(TypeError):
        RUN_FORMATS["table"] = RUN_FORMATS["csv"]  # type: ignore[index]
