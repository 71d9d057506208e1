"""Comma-separated values (RFC 4180) for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from runner.core.text import escape_unprintable

# A spreadsheet takes a cell that starts so for a formula (OWASP, CSV injection); in Japan, the full-width ones, too.
_FORMULA_STARTS = tuple("=+-@\t\r＝＋－＠")

_T = TypeVar("_T")


def render_csv(fields: Mapping[str, Callable[[_T], Any]], rows: Iterable[tuple[str, _T]]) -> str:
    """One line per row, `manifest` and then the fields, under a line of their names; without a final newline.

    Args:
        fields: how to get each field of a row.
        rows: the manifest's name and the row.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(("manifest", *fields))
    getters = tuple(fields.values())
    writer.writerows([_to_cell(name), *[_to_cell(get(row)) for get in getters]] for name, row in rows)
    return out.getvalue().removesuffix("\r\n")


def _to_cell(value: Any) -> Any:
    """A cell that is nothing but data to a terminal, a CI log and a spreadsheet. Numbers stay numbers."""
    if value is None or type(value) is int:
        return value
    if isinstance(value, str):
        text = escape_unprintable(value)
        return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
    # In JSON, `#` only occurs inside strings, where it may be escaped: no CI log finds a `##[` command.
    return json.dumps(value).replace("#", "\\u0023")
