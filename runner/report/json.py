"""JSON documents: of a record what the results file holds, of the rest one object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner import results
from runner.results import Digest


def record(made: Digest) -> str:
    """The results document, without the last line's end."""
    return "".join(results.chunks(made)).removesuffix("\n")


def document(value: Mapping[str, Any]) -> str:
    """An object as JSON that no terminal and no CI log would act on, without the last line's end."""
    return results.harmless(value)
