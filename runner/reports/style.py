"""How a report looks: how wide, in color or not, and whether it lists every job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """How to show a report. A format ignores what does not apply to it.

    `width` is the terminal's, in columns; without one, nothing is truncated. `color` allows escape sequences.
    `list_all` lists every job however many there are. `several_manifests`: more than one was given, so each is named,
    even if the report is about one of them.
    """

    width: int | None = None
    color: bool = False
    list_all: bool = False
    several_manifests: bool = False
