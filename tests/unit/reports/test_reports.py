"""What every report keeps to: no text from outside reaches the terminal, and nothing else ends a line."""

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
@given(made=records)
def test_nothing_in_a_report_moves_the_cursor_or_commands_a_ci(name: str, made: RunRecord) -> None:
    text = RUN_FORMATS[name]([summarize(made)], Style())
    for line in text.replace("\r\n", "\n").split("\n"):
        assert not [char for char in line if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
        assert not set("\u202e\u2066\u200b\ufeff") & set(line)
        assert name == "github" or not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line


@pytest.mark.parametrize("name", RUN_FORMATS)
def test_a_report_leaves_the_last_line_to_its_printer(name: str) -> None:
    assert not RUN_FORMATS[name]([summarize(record(entry("a", created("j"))))], Style()).endswith("\n")


@given(records)
def test_json_is_the_results_document(made: RunRecord) -> None:
    text = RUN_FORMATS["json"]([summarize(made)], Style())
    assert text + "\n" == "".join(results_file.serialize(summarize(made)))
    check_results(loads_strictly(text))


def test_the_table_of_formats_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        RUN_FORMATS["table"] = RUN_FORMATS["csv"]  # type: ignore[index]
