"""Comma-separated values (RFC 4180) for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner.text import visible

# A spreadsheet takes a cell that starts so for a formula (OWASP, CSV injection), the full-width ones in Japan.
_FORMULA = tuple("=+-@\t\r＝＋－＠")


class Json(str):
    """A cell that is JSON in ASCII: nothing in it is taken for a formula, and it stays JSON."""

    __slots__ = ()


def text(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows under a line of titles, without the last line's end. A field that a row lacks is blank."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fields, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return out.getvalue().removesuffix("\r\n")


def as_json(value: Any) -> Json:
    """A cell that holds a value as JSON."""
    # `#` only ever stands inside a string there: its escape keeps this JSON, and keeps `##[` from a CI log.
    return Json(json.dumps(value).replace("#", "\\u0023"))


def _safe(value: Any) -> Any:
    """A cell that neither a terminal nor a spreadsheet takes for more than text. Numbers are left alone."""
    if not isinstance(value, str) or isinstance(value, Json):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
