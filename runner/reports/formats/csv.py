"""Comma-separated values (RFC 4180) for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner.core.text import escape_unprintable
from runner.reports.views.table import JsonCell

# A spreadsheet takes a cell that starts so for a formula (OWASP, CSV injection), the full-width ones in Japan.
_FORMULA = tuple("=+-@\t\r＝＋－＠")


def text(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows under a line of titles, without the last line's end. A field that a row lacks is blank."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fields, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return out.getvalue().removesuffix("\r\n")


def _safe(value: Any) -> Any:
    """A cell that neither a terminal nor a spreadsheet takes for more than text. Numbers are left alone."""
    if not isinstance(value, str) or isinstance(value, JsonCell):
        return value
    text = escape_unprintable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
